//! What `natter` is told: embedded defaults, a file, the environment, flags, each over the one before it.

mod accounts;
mod bridge;
mod door;
mod listen;
mod media;
mod people;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Environment, File, FileFormat};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

pub(crate) use accounts::{Accounts, Auth, KeyAlgorithm, Registration};
pub(crate) use bridge::Bridge;
pub(crate) use door::{Door, Mqtt};
pub(crate) use listen::{Http, Listen, Tls, parse_address};
pub(crate) use media::Media;
pub(crate) use people::People;

/// The defaults: the commented file that is shipped is the one that counts.
pub(crate) const DEFAULTS: &str = include_str!("../config/natter.toml");

/// Everything that can be configured. `config/natter.toml` says what each key means.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) data: Data,
    pub(crate) listen: Listen,
    pub(crate) tls: Tls,
    pub(crate) http: Http,
    pub(crate) auth: Auth,
    pub(crate) accounts: Accounts,
    pub(crate) webhooks: Webhooks,
    pub(crate) mqtt: Mqtt,
    pub(crate) door: Door,
    pub(crate) bridge: Bridge,
    pub(crate) media: Media,
    pub(crate) people: People,
    pub(crate) shutdown: Shutdown,
    pub(crate) log: Log,
}

/// Where the data is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Data {
    pub(crate) dir: PathBuf,
}

/// How entries are posted to the backends of businesses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Webhooks {
    pub(crate) private_addresses: bool,
    pub(crate) posts_at_a_time: usize,
    pub(crate) timeout_s: u64,
}

/// How the server stops.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shutdown {
    pub(crate) drain_timeout_s: u64,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) level: String,
}

impl Webhooks {
    fn check(&self) -> Result<(), ConfigError> {
        check_ranges([
            ("webhooks.posts_at_a_time", "1 to 10000", 1..=10_000, self.posts_at_a_time as u64),
            ("webhooks.timeout_s", "1 to 300", 1..=300, self.timeout_s),
        ])
    }
}

/// What the command line says over everything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// `--data`.
    pub(crate) data: Option<PathBuf>,
    /// `--mqtt`.
    pub(crate) mqtt: Option<SocketAddr>,
    /// `--http`.
    pub(crate) http: Option<SocketAddr>,
    /// `--admin`.
    pub(crate) admin: Option<SocketAddr>,
}

/// A configuration that is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A key that is unknown, missing or of the wrong type; the words name it.
    #[error("configuration: {0}")]
    Key(#[from] config::ConfigError),
    /// A value that its key does not take.
    #[error("configuration: {key}: expected {expected}, got {got}")]
    Value { key: &'static str, expected: &'static str, got: String },
    /// The effective configuration cannot be printed.
    #[error("configuration: cannot be printed as TOML: {0}")]
    Print(#[from] toml::ser::Error),
}

/// Numbers and the ranges they must be in.
fn check_ranges<const N: usize>(
    numbers: [(&'static str, &'static str, RangeInclusive<u64>, u64); N],
) -> Result<(), ConfigError> {
    for (key, expected, range, got) in numbers {
        if !range.contains(&got) {
            return Err(ConfigError::Value { key, expected, got: got.to_string() });
        }
    }
    Ok(())
}

impl Config {
    /// Loads the defaults, `file` if there is one, the environment and `flags`.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, what was expected and what came.
    pub(crate) fn load(file: Option<&Path>, flags: &Flags) -> Result<Self, ConfigError> {
        Self::load_from(file, Environment::default(), flags)
    }

    /// As [`Config::load`], with the environment given.
    fn load_from(file: Option<&Path>, environment: Environment, flags: &Flags) -> Result<Self, ConfigError> {
        let mut builder = config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(path) = file {
            builder = builder.add_source(File::from(path).format(FileFormat::Toml));
        }
        builder = builder.add_source(environment.prefix("NATTER").separator("__").ignore_empty(true));
        let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        builder = builder
            .set_override_option("listen.mqtt", text(flags.mqtt))?
            .set_override_option("listen.http", text(flags.http))?
            .set_override_option("listen.admin", text(flags.admin))?;
        let mut config: Self = builder.build()?.try_deserialize()?;
        if let Some(dir) = &flags.data {
            config.data.dir.clone_from(dir);
        }
        config.check()?;
        Ok(config)
    }

    /// The values that a type alone does not check.
    fn check(&self) -> Result<(), ConfigError> {
        if self.data.dir.as_os_str().is_empty() {
            return Err(ConfigError::Value { key: "data.dir", expected: "a directory", got: "\"\"".into() });
        }
        check_ranges([("shutdown.drain_timeout_s", "1 to 600", 1..=600, self.shutdown.drain_timeout_s)])?;
        self.tls.check(&self.listen)?;
        self.http.check()?;
        self.mqtt.check(&self.listen)?;
        self.door.check()?;
        self.bridge.check()?;
        self.accounts.check(&self.listen)?;
        self.webhooks.check()?;
        self.media.check()?;
        self.people.check()?;
        if let Err(error) = EnvFilter::try_new(&self.log.level) {
            let got = format!("{:?} ({error})", self.log.level);
            return Err(ConfigError::Value {
                key: "log.level",
                expected: "a tracing filter as \"info,natter=debug\"",
                got,
            });
        }
        Ok(())
    }

    /// What is in force, as TOML that [`Config::load`] takes back.
    ///
    /// # Errors
    /// [`ConfigError::Print`], for a path that is not UTF-8.
    pub(crate) fn to_toml(&self) -> Result<String, ConfigError> {
        Ok(toml::to_string(self)?)
    }

    /// What posts to webhooks is told.
    pub(crate) fn webhooks(&self) -> natter_bridge::webhook::Settings {
        let Webhooks { private_addresses, posts_at_a_time, timeout_s } = self.webhooks;
        natter_bridge::webhook::Settings { private_addresses, posts_at_a_time, timeout: Duration::from_secs(timeout_s) }
    }

    /// How long a stop waits for connections and requests.
    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.shutdown.drain_timeout_s)
    }
}

#[cfg(test)]
mod tests;
