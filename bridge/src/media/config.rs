//! Where files are kept, and the limits of the way there.

use std::path::PathBuf;
use std::time::Duration;

use super::Error;

/// Where files are kept, and the limits of the way there. What a user may keep is in [`crate::MediaLimits`].
#[derive(Debug, Clone)]
pub struct Config {
    /// The object store.
    pub store: StoreConfig,
    /// A directory of this server for what it must know of its uploads to an S3 store, and which store is its own.
    pub notes: PathBuf,
    /// Whether clients that download are sent on to a signed URL of the S3 store. Local stores have none.
    pub redirect: bool,
    /// Where clients find this server, as `https://chat.example.com`, for URLs that are given out; `None`: where they found it.
    pub public_url: Option<String>,
    /// Media by `link`.
    pub links: Links,
    /// How long a URL is good that needs no token. Default 5 minutes.
    pub url_time: Duration,
    /// Uploads at a time; one more is told "not now". Default 32: on S3, each holds two parts of 5 MiB.
    pub uploads_max: usize,
    /// Uploads at a time of one user; one more is refused. Default 8.
    pub uploads_per_user_max: usize,
    /// How long an upload may send nothing. Default 30 s.
    pub idle_time_max: Duration,
    /// How long an upload may take in all. Default an hour.
    pub upload_time_max: Duration,
    /// The rest between two sweeps. Default 10 minutes.
    pub sweep_rest: Duration,
    /// How old an object is before it goes if no row knows of it. Default an hour.
    pub orphan_age: Duration,
}

impl Config {
    /// The defaults over a store; `notes` as in [`Config::notes`].
    #[must_use]
    pub fn new(store: StoreConfig, notes: PathBuf) -> Self {
        Self {
            store,
            notes,
            redirect: false,
            public_url: None,
            links: Links::default(),
            url_time: Duration::from_secs(300),
            uploads_max: 32,
            uploads_per_user_max: 8,
            idle_time_max: Duration::from_secs(30),
            upload_time_max: Duration::from_secs(3600),
            sweep_rest: Duration::from_secs(600),
            orphan_age: Duration::from_secs(3600),
        }
    }
}

/// From where files are fetched that messages name by `link`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// These hosts only, in lower case; `*`: any. Default: none, and such messages are refused.
    pub hosts: Vec<String>,
    /// Hosts may lie at private addresses, and there at http:// too. Default: no.
    pub private_addresses: bool,
    /// How long a file may take. Default 20 s.
    pub time_max: Duration,
}

impl Default for Links {
    fn default() -> Self {
        Self { hosts: Vec::new(), private_addresses: false, time_max: Duration::from_secs(20) }
    }
}

/// The object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// A directory; made if it is not there.
    Local(PathBuf),
    /// A bucket of an S3-compatible store.
    S3(S3Config),
}

/// A bucket, and how to get at it.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with; may be empty.
    pub prefix: String,
    /// Where the store is, as `http://127.0.0.1:8333`; `None`: AWS.
    pub endpoint: Option<String>,
    /// Where clients find it, for URLs that they are sent on to; `None`: the endpoint.
    pub public_endpoint: Option<String>,
    /// The region that signatures name.
    pub region: String,
    /// The key's name.
    pub access_key: String,
    /// The key.
    pub secret_key: String,
    /// How long one request may take, body and all; what is not there then is tried again.
    pub request_time_max: Duration,
    /// How long a request may be tried in all.
    pub retry_time_max: Duration,
}

/// Keys are not for logs.
impl std::fmt::Debug for S3Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bucket, prefix, endpoint, region, .. } = self;
        write!(f, "S3Config(s3://{bucket}/{prefix} at {endpoint:?}, {region})")
    }
}

impl StoreConfig {
    /// Splits `s3://bucket/prefix` into bucket and prefix.
    ///
    /// # Errors
    /// What was expected and what came.
    pub fn parse_s3(url: &str) -> Result<(String, String), Error> {
        let wrong = || Error::Config(format!("expected s3://BUCKET or s3://BUCKET/PREFIX, got {url:?}"));
        let rest = url.strip_prefix("s3://").ok_or_else(wrong)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_bucket = (3..=63).contains(&bucket.len())
            && bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
        let prefix = prefix.trim_matches('/');
        let is_part = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        if !is_bucket || !(prefix.is_empty() || prefix.split('/').all(is_part)) {
            return Err(wrong());
        }
        Ok((bucket.to_owned(), prefix.to_owned()))
    }
}
