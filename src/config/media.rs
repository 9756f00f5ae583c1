//! The section `[media]`.

use std::path::Path;
use std::time::Duration;

use natter_bridge::MediaLimits;
use natter_bridge::media::{self, Links, S3Config, StoreConfig};
use serde::{Deserialize, Serialize, Serializer};

use super::{ConfigError, check_ranges};

/// Where files are kept, and the limits of the way there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Media {
    pub(crate) store: String,
    pub(crate) s3_endpoint: String,
    pub(crate) s3_public_endpoint: String,
    pub(crate) s3_region: String,
    pub(crate) s3_access_key: String,
    pub(crate) s3_secret_key: Secret,
    pub(crate) s3_request_timeout_s: u64,
    pub(crate) s3_retry_timeout_s: u64,
    pub(crate) redirect: bool,
    pub(crate) public_url: String,
    pub(crate) url_s: u64,
    #[serde(deserialize_with = "super::listen::list")]
    pub(crate) link_hosts: Vec<String>,
    pub(crate) link_private_addresses: bool,
    pub(crate) link_timeout_s: u64,
    pub(crate) user_files_max: u64,
    pub(crate) user_bytes_max: u64,
    pub(crate) ttl_s: u64,
    pub(crate) uploads_max: usize,
    pub(crate) uploads_per_user_max: usize,
    pub(crate) upload_idle_timeout_s: u64,
    pub(crate) upload_timeout_s: u64,
    pub(crate) sweep_interval_s: u64,
    pub(crate) orphan_age_s: u64,
}

/// A value that is neither logged nor printed.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(pub(crate) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "(hidden)" })
    }
}

impl Media {
    /// The values that a type alone does not check.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_ranges([
            ("media.s3_request_timeout_s", "1 to 600", 1..=600, self.s3_request_timeout_s),
            ("media.s3_retry_timeout_s", "1 to 600", 1..=600, self.s3_retry_timeout_s),
            ("media.url_s", "1 to 86400", 1..=86_400, self.url_s),
            ("media.link_timeout_s", "1 to 600", 1..=600, self.link_timeout_s),
            ("media.user_files_max", "0 to 1000000000", 0..=1_000_000_000, self.user_files_max),
            ("media.user_bytes_max", "0 to 1 PiB", 0..=1 << 50, self.user_bytes_max),
            ("media.ttl_s", "1 to 3153600000", 1..=3_153_600_000, self.ttl_s),
            ("media.uploads_max", "1 to 10000", 1..=10_000, self.uploads_max as u64),
            ("media.uploads_per_user_max", "1 to 10000", 1..=10_000, self.uploads_per_user_max as u64),
            ("media.upload_idle_timeout_s", "1 to 600", 1..=600, self.upload_idle_timeout_s),
            ("media.upload_timeout_s", "1 to 86400", 1..=86_400, self.upload_timeout_s),
            ("media.sweep_interval_s", "1 to 86400", 1..=86_400, self.sweep_interval_s),
            ("media.orphan_age_s", "1 to 31536000", 1..=31_536_000, self.orphan_age_s),
        ])?;
        let urls = [
            ("media.s3_endpoint", &self.s3_endpoint),
            ("media.s3_public_endpoint", &self.s3_public_endpoint),
            ("media.public_url", &self.public_url),
        ];
        for (key, url) in urls {
            if !url.is_empty() && !super::listen::is_origin(url) {
                let expected = "a URL as \"https://host:port\", without a path, or \"\"";
                return Err(ConfigError::Value { key, expected, got: format!("{url:?}") });
            }
        }
        if self.store.is_empty() {
            if self.redirect {
                let expected = "false, or an S3 store in media.store: a local one has no URLs";
                return Err(ConfigError::Value { key: "media.redirect", expected, got: "true".into() });
            }
            return Ok(());
        }
        if StoreConfig::parse_s3(&self.store).is_err() {
            let expected = "\"\" (the data directory), or \"s3://BUCKET/PREFIX\"";
            return Err(ConfigError::Value { key: "media.store", expected, got: format!("{:?}", self.store) });
        }
        if self.s3_access_key.is_empty() || self.s3_secret_key.0.is_empty() {
            let expected = "a key for the S3 store, as its environment variable NATTER__MEDIA__S3_SECRET_KEY";
            let key = if self.s3_access_key.is_empty() { "media.s3_access_key" } else { "media.s3_secret_key" };
            return Err(ConfigError::Value { key, expected, got: "\"\"".into() });
        }
        Ok(())
    }

    /// What a user may keep.
    pub(crate) fn limits(&self) -> MediaLimits {
        MediaLimits { files_max: self.user_files_max, bytes_max: self.user_bytes_max, ttl_secs: self.ttl_s }
    }

    /// What the bridge is told, with the data directory.
    pub(crate) fn for_bridge(&self, data: &Path) -> media::Config {
        let some = |text: &String| (!text.is_empty()).then(|| text.trim_end_matches('/').to_owned());
        let store = match StoreConfig::parse_s3(&self.store) {
            Ok((bucket, prefix)) => StoreConfig::S3(S3Config {
                bucket,
                prefix,
                endpoint: some(&self.s3_endpoint),
                public_endpoint: some(&self.s3_public_endpoint),
                region: self.s3_region.clone(),
                access_key: self.s3_access_key.clone(),
                secret_key: self.s3_secret_key.0.clone(),
                request_time_max: Duration::from_secs(self.s3_request_timeout_s),
                retry_time_max: Duration::from_secs(self.s3_retry_timeout_s),
            }),
            Err(_) => StoreConfig::Local(data.join("media")),
        };
        media::Config {
            redirect: self.redirect,
            public_url: some(&self.public_url),
            links: Links {
                hosts: self.link_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
                private_addresses: self.link_private_addresses,
                time_max: Duration::from_secs(self.link_timeout_s),
            },
            url_time: Duration::from_secs(self.url_s),
            uploads_max: self.uploads_max,
            uploads_per_user_max: self.uploads_per_user_max,
            idle_time_max: Duration::from_secs(self.upload_idle_timeout_s),
            upload_time_max: Duration::from_secs(self.upload_timeout_s),
            sweep_rest: Duration::from_secs(self.sweep_interval_s),
            orphan_age: Duration::from_secs(self.orphan_age_s),
            ..media::Config::new(store, data.join("media-notes"))
        }
    }
}
