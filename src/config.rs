//! What `natter` is told: embedded defaults, a file, the environment, flags, each over the one before it.

mod media;
mod people;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Environment, File, FileFormat};
use natter_broker::Rate;
use natter_protocol::UserId;
use serde::{Deserialize, Deserializer, Serialize};
use tracing_subscriber::EnvFilter;

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

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listen {
    #[serde(deserialize_with = "address")]
    pub(crate) mqtt: SocketAddr,
    #[serde(deserialize_with = "address")]
    pub(crate) http: SocketAddr,
    #[serde(deserialize_with = "address")]
    pub(crate) admin: SocketAddr,
    #[serde(default, deserialize_with = "some_address")]
    pub(crate) mqtts: Option<SocketAddr>,
    #[serde(default, deserialize_with = "some_address")]
    pub(crate) https: Option<SocketAddr>,
}

/// What the TLS listeners show, and how long they wait.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) handshake_timeout_s: u64,
    pub(crate) handshakes_max: usize,
}

impl Tls {
    /// How long a handshake may take.
    pub(crate) fn handshake_timeout(&self) -> Duration {
        Duration::from_secs(self.handshake_timeout_s)
    }
}

/// The limits of the HTTP listeners, and which web pages may connect.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http {
    #[serde(deserialize_with = "list")]
    pub(crate) allowed_origins: Vec<String>,
    pub(crate) connections_max: usize,
    pub(crate) header_timeout_s: u64,
    pub(crate) write_timeout_s: u64,
}

impl Http {
    /// How long the head of a request may take to arrive.
    pub(crate) fn header_timeout(&self) -> Duration {
        Duration::from_secs(self.header_timeout_s)
    }

    /// How long a client may take nothing of an answer.
    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_secs(self.write_timeout_s)
    }
}

/// Whose tokens are accepted beside our own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Auth {
    pub(crate) public_key_file: Option<PathBuf>,
    pub(crate) algorithm: KeyAlgorithm,
    pub(crate) jwks_file: Option<PathBuf>,
    pub(crate) issuer: Option<String>,
}

/// Who may make an account, and what logging in costs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Accounts {
    pub(crate) registration: Registration,
    pub(crate) registration_in_public: bool,
    pub(crate) registrations_per_min: u32,
    pub(crate) token_ttl_s: u64,
    pub(crate) login_failures_per_min: u32,
    pub(crate) renewals_per_min: u32,
    pub(crate) hashes_at_a_time: usize,
}

/// Who may make an account over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Registration {
    /// Nobody: `natter user add` does.
    Closed,
    /// Everybody.
    Open,
}

/// How entries are posted to the backends of businesses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Webhooks {
    pub(crate) private_addresses: bool,
    pub(crate) posts_at_a_time: usize,
    pub(crate) timeout_s: u64,
}

/// The signature algorithms that an issuer may use: asymmetric ones only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(crate) enum KeyAlgorithm {
    /// Ed25519.
    EdDSA,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// RSA PKCS#1 v1.5 with SHA-256, 2048 bits or more.
    RS256,
}

impl TryFrom<String> for KeyAlgorithm {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "EdDSA" => Ok(Self::EdDSA),
            "ES256" => Ok(Self::ES256),
            "RS256" => Ok(Self::RS256),
            _ => Err(format!("expected EdDSA, ES256 or RS256, got {text:?}")),
        }
    }
}

/// What MQTT clients may leave out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mqtt {
    /// Empty: nobody.
    pub(crate) anonymous_as: String,
}

impl Mqtt {
    /// Who a client is that shows neither user name nor password.
    pub(crate) fn anonymous_as(&self) -> Option<UserId> {
        UserId::parse(&self.anonymous_as).ok()
    }
}

/// The limits and times of client connections.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Door {
    pub(crate) connections_max: usize,
    pub(crate) handshakes_max: usize,
    pub(crate) memory_max_mib: u64,
    pub(crate) connections_per_address_max: usize,
    pub(crate) loopback_counts: bool,
    pub(crate) connections_per_user_max: usize,
    pub(crate) connects_per_s: u32,
    pub(crate) connects_per_min: u32,
    pub(crate) auth_failures_per_min: u32,
    pub(crate) publishes_per_s: u32,
    pub(crate) packets_per_s: u32,
    pub(crate) connect_timeout_s: u64,
    pub(crate) packet_timeout_s: u64,
    pub(crate) write_timeout_s: u64,
    pub(crate) keep_alive_max_s: u64,
    pub(crate) receive_maximum: u16,
    pub(crate) session_expiry_max_s: u64,
    pub(crate) queue_frames_max: usize,
    pub(crate) queue_bytes_max: usize,
}

/// The limits of what is kept for users.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bridge {
    pub(crate) entry_ttl_s: u64,
    pub(crate) inbox_entries_max: u64,
    pub(crate) inbox_bytes_max: u64,
    pub(crate) device_lag_entries_max: u64,
    pub(crate) device_lag_bytes_max: u64,
    pub(crate) devices_max: usize,
    pub(crate) sessions_max: usize,
    pub(crate) watches_max: usize,
    pub(crate) watchers_max: usize,
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
        let (door, bridge, accounts) = (&self.door, &self.bridge, &self.accounts);
        for (key, expected, range, got) in [
            ("shutdown.drain_timeout_s", "1 to 600", 1..=600, self.shutdown.drain_timeout_s),
            ("tls.handshake_timeout_s", "1 to 60", 1..=60, self.tls.handshake_timeout_s),
            ("tls.handshakes_max", "1 to 1000000", 1..=1_000_000, self.tls.handshakes_max as u64),
            ("http.connections_max", "1 to 1000000", 1..=1_000_000, self.http.connections_max as u64),
            ("http.header_timeout_s", "1 to 600", 1..=600, self.http.header_timeout_s),
            ("http.write_timeout_s", "1 to 600", 1..=600, self.http.write_timeout_s),
            ("door.connections_max", "1 to 1000000", 1..=1_000_000, door.connections_max as u64),
            ("door.handshakes_max", "1 to 1000000", 1..=1_000_000, door.handshakes_max as u64),
            ("door.memory_max_mib", "0 to 16777216", 0..=16_777_216, door.memory_max_mib),
            (
                "door.connections_per_address_max",
                "1 to 1000000",
                1..=1_000_000,
                door.connections_per_address_max as u64,
            ),
            ("door.connections_per_user_max", "1 to 1000000", 1..=1_000_000, door.connections_per_user_max as u64),
            ("door.connects_per_s", "0 to 1000000", 0..=1_000_000, door.connects_per_s.into()),
            ("door.connects_per_min", "1 to 1000000", 1..=1_000_000, door.connects_per_min.into()),
            ("door.auth_failures_per_min", "1 to 1000000", 1..=1_000_000, door.auth_failures_per_min.into()),
            ("door.publishes_per_s", "1 to 1000000", 1..=1_000_000, door.publishes_per_s.into()),
            ("door.packets_per_s", "1 to 1000000", 1..=1_000_000, door.packets_per_s.into()),
            ("door.connect_timeout_s", "1 to 600", 1..=600, door.connect_timeout_s),
            ("door.packet_timeout_s", "1 to 600", 1..=600, door.packet_timeout_s),
            ("door.write_timeout_s", "1 to 600", 1..=600, door.write_timeout_s),
            ("door.keep_alive_max_s", "1 to 65535", 1..=65_535, door.keep_alive_max_s),
            ("door.receive_maximum", "1 to 65535", 1..=65_535, door.receive_maximum.into()),
            ("door.session_expiry_max_s", "0 to 4294967294", 0..=4_294_967_294, door.session_expiry_max_s),
            ("door.queue_frames_max", "256 to 65536", 256..=65_536, door.queue_frames_max as u64),
            ("door.queue_bytes_max", "2097152 to 1073741824", 2_097_152..=1_073_741_824, door.queue_bytes_max as u64),
            ("bridge.entry_ttl_s", "1 to 315360000", 1..=315_360_000, bridge.entry_ttl_s),
            ("bridge.inbox_entries_max", "100 to 1000000000", 100..=1_000_000_000, bridge.inbox_entries_max),
            ("bridge.inbox_bytes_max", "1 MiB to 1 TiB", 1 << 20..=1 << 40, bridge.inbox_bytes_max),
            ("bridge.device_lag_entries_max", "100 to 1000000000", 100..=1_000_000_000, bridge.device_lag_entries_max),
            ("bridge.device_lag_bytes_max", "1 MiB to 1 TiB", 1 << 20..=1 << 40, bridge.device_lag_bytes_max),
            ("bridge.devices_max", "1 to 100", 1..=100, bridge.devices_max as u64),
            ("bridge.sessions_max", "1 to 1000", 1..=1000, bridge.sessions_max as u64),
            ("bridge.watches_max", "0 to 100000", 0..=100_000, bridge.watches_max as u64),
            ("bridge.watchers_max", "0 to 1000000", 0..=1_000_000, bridge.watchers_max as u64),
            ("accounts.token_ttl_s", "60 to 315360000", 60..=315_360_000, accounts.token_ttl_s),
            ("accounts.registrations_per_min", "1 to 1000000", 1..=1_000_000, accounts.registrations_per_min.into()),
            ("accounts.login_failures_per_min", "1 to 1000000", 1..=1_000_000, accounts.login_failures_per_min.into()),
            ("accounts.renewals_per_min", "1 to 1000000", 1..=1_000_000, accounts.renewals_per_min.into()),
            ("accounts.hashes_at_a_time", "1 to 64", 1..=64, accounts.hashes_at_a_time as u64),
            ("webhooks.posts_at_a_time", "1 to 10000", 1..=10_000, self.webhooks.posts_at_a_time as u64),
            ("webhooks.timeout_s", "1 to 300", 1..=300, self.webhooks.timeout_s),
        ] {
            if !range.contains(&got) {
                return Err(ConfigError::Value { key, expected, got: got.to_string() });
            }
        }
        self.media.check()?;
        self.people.check()?;
        self.check_tls()?;
        self.check_anonymous()?;
        self.check_registration()?;
        if let Some(got) = self.http.allowed_origins.iter().find(|origin| !is_origin(origin)) {
            let expected = "origins as \"https://chat.example.com\", without a path";
            return Err(ConfigError::Value { key: "http.allowed_origins", expected, got: format!("{got:?}") });
        }
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

    /// A certificate and its key come together, and are there if a listener needs them.
    fn check_tls(&self) -> Result<(), ConfigError> {
        let listener = match (self.listen.mqtts, self.listen.https) {
            (Some(_), _) => Some("listen.mqtts is set"),
            (None, Some(_)) => Some("listen.https is set"),
            (None, None) => None,
        };
        let (key, has) = match (&self.tls.certificate, &self.tls.key) {
            (Some(_), Some(_)) => return Ok(()),
            (Some(_), None) => ("tls.key", "tls.certificate is set"),
            (None, Some(_)) => ("tls.certificate", "tls.key is set"),
            (None, None) => match listener {
                Some(listener) => ("tls.certificate", listener),
                None => return Ok(()),
            },
        };
        let expected = "a PEM file (`natter cert` makes one for development)";
        Err(ConfigError::Value { key, expected, got: format!("none, though {has}") })
    }

    /// Everybody may register only where nobody comes from outside, unless that is said too.
    fn check_registration(&self) -> Result<(), ConfigError> {
        if self.accounts.registration == Registration::Closed || self.accounts.registration_in_public {
            return Ok(());
        }
        let listeners = [("http", Some(self.listen.http)), ("https", self.listen.https)];
        for (name, address) in listeners {
            if let Some(address) = address
                && !address.ip().to_canonical().is_loopback()
            {
                return Err(ConfigError::Value {
                    key: "accounts.registration",
                    expected: "\"closed\", loopback addresses only in listen.http and https, or accounts.registration_in_public = true",
                    got: format!("\"open\", though listen.{name} is {address}"),
                });
            }
        }
        Ok(())
    }

    /// Who shows nothing is somebody only where nobody comes from outside.
    fn check_anonymous(&self) -> Result<(), ConfigError> {
        const KEY: &str = "mqtt.anonymous_as";
        if self.mqtt.anonymous_as.is_empty() {
            return Ok(());
        }
        if self.mqtt.anonymous_as().is_none() {
            let (expected, got) = ("a user name as \"demo\", or \"\"", format!("{:?}", self.mqtt.anonymous_as));
            return Err(ConfigError::Value { key: KEY, expected, got });
        }
        let Listen { mqtt, http, admin: _, mqtts, https } = self.listen;
        let listeners = [("mqtt", Some(mqtt)), ("http", Some(http)), ("mqtts", mqtts), ("https", https)];
        for (name, address) in listeners {
            if let Some(address) = address
                && !address.ip().to_canonical().is_loopback()
            {
                let expected =
                    "\"\" (nobody), or loopback addresses only in listen.mqtt, http, mqtts and https, as 127.0.0.1";
                let got = format!("{:?}, though listen.{name} is {address}", self.mqtt.anonymous_as);
                return Err(ConfigError::Value { key: KEY, expected, got });
            }
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

    /// What the door is told.
    pub(crate) fn door(&self) -> natter_broker::Config {
        natter_broker::Config {
            connections_max: self.door.connections_max,
            handshakes_max: self.door.handshakes_max,
            memory_max: (self.door.memory_max_mib > 0).then_some(self.door.memory_max_mib << 20),
            connections_per_address_max: self.door.connections_per_address_max,
            loopback_counts: self.door.loopback_counts,
            connections_per_user_max: self.door.connections_per_user_max,
            arrival_rate: match self.door.connects_per_s {
                0 => natter_broker::Config::default().arrival_rate,
                connects => Rate::spread(connects),
            },
            departure_rate: natter_broker::Config::default().departure_rate,
            connect_rate: Rate::per_minute(self.door.connects_per_min),
            auth_failure_rate: Rate::per_minute(self.door.auth_failures_per_min),
            publish_rate: Rate::per_second(self.door.publishes_per_s),
            packet_rate: Rate::per_second(self.door.packets_per_s),
            anonymous_as: self.mqtt.anonymous_as(),
            connect_time_max: Duration::from_secs(self.door.connect_timeout_s),
            packet_time_max: Duration::from_secs(self.door.packet_timeout_s),
            write_time_max: Duration::from_secs(self.door.write_timeout_s),
            keep_alive_max: Duration::from_secs(self.door.keep_alive_max_s),
            receive_maximum: self.door.receive_maximum,
            session_expiry_max: Duration::from_secs(self.door.session_expiry_max_s),
            queue_frames_max: self.door.queue_frames_max,
            queue_bytes_max: self.door.queue_bytes_max,
            // Not for the configuration to say: it is the store's.
            epoch: None,
            drain_time_max: self.drain_timeout(),
        }
    }

    /// What the bridge is told, with its database.
    pub(crate) fn bridge(&self, path: PathBuf) -> natter_bridge::Config {
        let limits = natter_bridge::Limits {
            entry_ttl_secs: self.bridge.entry_ttl_s,
            inbox: natter_bridge::Amount { entries: self.bridge.inbox_entries_max, bytes: self.bridge.inbox_bytes_max },
            device_lag: natter_bridge::Amount {
                entries: self.bridge.device_lag_entries_max,
                bytes: self.bridge.device_lag_bytes_max,
            },
            devices_max: self.bridge.devices_max,
            sessions_max: self.bridge.sessions_max,
            watches_max: self.bridge.watches_max,
            watchers_max: self.bridge.watchers_max,
            media: self.media.limits(),
            people: self.people.limits(),
            ..natter_bridge::Limits::default()
        };
        natter_bridge::Config { path, limits }
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

/// Parses `IP:PORT`.
///
/// # Errors
/// Expected and got, as text.
pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("expected IP:PORT as 127.0.0.1:1883 or [::1]:1883, got {text:?}"))
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parse_address(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn some_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    address(deserializer).map(Some)
}

/// A list, or as the environment has it: one text, with commas.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum List {
        Many(Vec<String>),
        Text(String),
    }
    Ok(match List::deserialize(deserializer)? {
        List::Many(many) => many,
        List::Text(text) => {
            text.split(',').map(|each| each.trim().to_owned()).filter(|each| !each.is_empty()).collect()
        }
    })
}

/// Whether a browser could say this in `Origin`: scheme, host, perhaps a port.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let is_name = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    is_name(scheme, b"+-.") && is_name(authority, b"-._:[]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn load(file: Option<&str>, environment: &[(&str, &str)], flags: &Flags) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("natter.toml");
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
        }
        let source = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let environment = Environment::default().source(Some(source));
        Config::load_from(file.map(|_| path.as_path()), environment, flags).map_err(|error| error.to_string())
    }

    fn refused(file: Option<&str>, environment: &[(&str, &str)], words: &[&str]) {
        let error = load(file, environment, &Flags::default()).unwrap_err();
        for word in words {
            assert!(error.contains(word), "{word:?} is not in {error:?}");
        }
    }

    #[test]
    fn the_shipped_file_is_the_default() {
        let config = load(None, &[], &Flags::default()).unwrap();
        let Config { door, bridge, media, .. } = config.clone();
        let expected = Config {
            accounts: Accounts {
                registration: Registration::Closed,
                registration_in_public: false,
                registrations_per_min: 10,
                token_ttl_s: 7 * 86_400,
                login_failures_per_min: 60,
                renewals_per_min: 30,
                hashes_at_a_time: 2,
            },
            webhooks: Webhooks { private_addresses: false, posts_at_a_time: 64, timeout_s: 10 },
            people: People { contacts_max: 10_000, blocks_max: 1000, statuses_max: 100 },
            door,
            bridge,
            media,
            data: Data { dir: "natter-data".into() },
            listen: Listen {
                mqtt: "127.0.0.1:1883".parse().unwrap(),
                http: "127.0.0.1:8080".parse().unwrap(),
                admin: "127.0.0.1:8081".parse().unwrap(),
                mqtts: None,
                https: None,
            },
            tls: Tls { certificate: None, key: None, handshake_timeout_s: 5, handshakes_max: 1024 },
            http: Http {
                allowed_origins: Vec::new(),
                connections_max: 4096,
                header_timeout_s: 30,
                write_timeout_s: 20,
            },
            auth: Auth { public_key_file: None, algorithm: KeyAlgorithm::EdDSA, jwks_file: None, issuer: None },
            mqtt: Mqtt { anonymous_as: String::new() },
            shutdown: Shutdown { drain_timeout_s: 10 },
            log: Log { level: "info,rumqttd=off".into() },
        };
        assert_eq!(config, expected);
        assert_eq!(load(Some(DEFAULTS), &[], &Flags::default()).unwrap(), expected);
    }

    #[test]
    fn the_shipped_file_says_what_door_and_bridge_have_as_defaults() {
        let config = load(None, &[], &Flags::default()).unwrap();
        let drain_time_max = config.drain_timeout();
        let door = natter_broker::Config { drain_time_max, ..natter_broker::Config::default() };
        assert_eq!(format!("{:?}", config.door()), format!("{door:?}"));
        assert_eq!(config.bridge(PathBuf::new()).limits, natter_bridge::Limits::default());
        let local = natter_bridge::media::StoreConfig::Local("data/media".into());
        let media = natter_bridge::media::Config::new(local, "data/media-notes".into());
        assert_eq!(format!("{:?}", config.media.for_bridge(Path::new("data"))), format!("{media:?}"));
    }

    #[test]
    fn the_shipped_file_names_every_key_and_no_other() {
        let mut section = String::new();
        let mut named = BTreeSet::new();
        for line in DEFAULTS.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
            } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ")
                && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            {
                named.insert(format!("{section}.{key}"));
            }
        }
        let config = load(None, &[], &Flags::default()).unwrap();
        let mut known = BTreeSet::new();
        for (section, keys) in serde_json::to_value(config).unwrap().as_object().unwrap() {
            for key in keys.as_object().unwrap().keys() {
                known.insert(format!("{section}.{key}"));
            }
        }
        assert_eq!(named, known);
    }

    #[test]
    fn the_commented_keys_are_valid_too() {
        let text: Vec<&str> = DEFAULTS
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => rest,
                _ => line,
            })
            .collect();
        let config = load(Some(&text.join("\n")), &[], &Flags::default()).unwrap();
        assert_eq!(config.auth.public_key_file, Some("issuer.pem".into()));
        assert_eq!(config.auth.jwks_file, Some("issuer.jwks.json".into()));
        assert_eq!(config.listen.mqtts, Some("0.0.0.0:8883".parse().unwrap()));
        assert_eq!(config.tls.key, Some("server.key".into()));
    }

    #[test]
    fn origins_come_as_a_list_or_as_a_text() {
        let origins = |file, environment: &[(&str, &str)]| {
            load(file, environment, &Flags::default()).unwrap().http.allowed_origins
        };
        let both = ["https://a.example", "http://b.example:3000"];
        let file = "[http]\nallowed_origins = [\"https://a.example\", \"http://b.example:3000\"]\n";
        assert_eq!(origins(Some(file), &[]), both);
        let environment = [("NATTER__HTTP__ALLOWED_ORIGINS", "https://a.example, http://b.example:3000")];
        assert_eq!(origins(None, &environment), both);
        for wrong in ["a.example", "https://", "https://a.example/", "*", "https://a b"] {
            let environment = [("NATTER__HTTP__ALLOWED_ORIGINS", wrong)];
            refused(None, &environment, &["http.allowed_origins", "https://chat.example.com", wrong]);
        }
    }

    #[test]
    fn an_s3_store_needs_keys_and_they_are_shown_to_nobody() {
        let s3 = "[media]\nstore = \"s3://bucket/files\"\n";
        refused(Some(s3), &[], &["media.s3_access_key"]);
        let with_key = format!("{s3}s3_access_key = \"who\"\n");
        refused(Some(&with_key), &[], &["media.s3_secret_key", "NATTER__MEDIA__S3_SECRET_KEY"]);
        let environment = [("NATTER__MEDIA__S3_SECRET_KEY", "not-for-you")];
        let config = load(Some(&with_key), &environment, &Flags::default()).unwrap();
        assert!(!format!("{config:?}").contains("not-for-you") && !config.to_toml().unwrap().contains("not-for-you"));
        assert!(format!("{:?}", config.media.for_bridge(Path::new("d"))).contains("s3://bucket/files"));
        for wrong in ["s3://", "s3://ab", "s3://bucket/../x", "file:///x", "s3://Bucket"] {
            refused(
                Some(&format!("[media]\nstore = \"{wrong}\"\n")),
                &[],
                &["media.store", "s3://BUCKET/PREFIX", wrong],
            );
        }
        refused(Some("[media]\nredirect = true\n"), &[], &["media.redirect", "media.store"]);
        refused(Some("[media]\ns3_endpoint = \"localhost\"\n"), &[], &["media.s3_endpoint", "https://host:port"]);
        refused(Some("[media]\nuploads_max = 0\n"), &[], &["media.uploads_max", "1 to 10000"]);
    }

    #[test]
    fn a_tls_listener_needs_a_certificate_and_a_key() {
        refused(Some("[listen]\nmqtts = \"[::]:8883\"\n"), &[], &["tls.certificate", "natter cert", "listen.mqtts"]);
        refused(Some("[listen]\nhttps = \"[::]:8443\"\n"), &[], &["tls.certificate", "listen.https"]);
        refused(Some("[tls]\ncertificate = \"a.pem\"\n"), &[], &["tls.key", "tls.certificate is set"]);
        refused(Some("[tls]\nkey = \"a.key\"\n"), &[], &["tls.certificate", "tls.key is set"]);
        refused(Some("[listen]\nmqtts = \"example.com\"\n"), &[], &["listen.mqtts", "IP:PORT", "example.com"]);
    }

    #[test]
    fn whoever_shows_nothing_is_somebody_on_loopback_only() {
        let anonymous = |listen: &str| format!("[mqtt]\nanonymous_as = \"demo\"\n[listen]\n{listen}\n");
        let flags = Flags::default();
        for listen in ["", "mqtt = \"[::1]:1883\"", "admin = \"0.0.0.0:8081\"", "http = \"127.1.2.3:80\""] {
            let config = load(Some(&anonymous(listen)), &[], &flags).unwrap();
            assert_eq!(config.door().anonymous_as, UserId::parse("demo").ok(), "{listen}");
        }
        let tls = "[tls]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n";
        for name in ["mqtt", "http", "mqtts", "https"] {
            for address in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
                let file = anonymous(&format!("{name} = \"{address}\"")) + tls;
                refused(Some(&file), &[], &["mqtt.anonymous_as", "loopback", &format!("listen.{name} is {address}")]);
            }
        }
        refused(Some("[mqtt]\nanonymous_as = \"system\"\n"), &[], &["mqtt.anonymous_as", "user name", "system"]);
        // A flag that makes a listener public counts as well.
        let flags = Flags { mqtt: Some("0.0.0.0:1883".parse().unwrap()), ..Flags::default() };
        assert!(load(Some(&anonymous("")), &[], &flags).unwrap_err().contains("listen.mqtt is 0.0.0.0:1883"));
    }

    #[test]
    fn registration_is_open_in_public_only_if_that_is_said() {
        let open = "[accounts]\nregistration = \"open\"\n";
        assert!(load(Some(open), &[], &Flags::default()).is_ok());
        let public = [("NATTER__LISTEN__HTTP", "0.0.0.0:8080")];
        refused(
            Some(open),
            &public,
            &["accounts.registration", "registration_in_public", "listen.http is 0.0.0.0:8080"],
        );
        let said = format!("{open}registration_in_public = true\n");
        assert!(load(Some(&said), &public, &Flags::default()).is_ok());
        refused(Some("[accounts]\nregistration = \"ajar\"\n"), &[], &["registration", "ajar"]);
        assert_eq!(load(None, &[], &Flags::default()).unwrap().accounts.registration, Registration::Closed);
    }

    #[test]
    fn flags_stand_above_environment_above_file_above_defaults() {
        let file = "[listen]\nmqtt = \"127.0.0.1:1\"\nhttp = \"127.0.0.1:2\"\nadmin = \"127.0.0.1:3\"\n";
        let environment = [("NATTER__LISTEN__MQTT", "127.0.0.1:11"), ("NATTER__LISTEN__HTTP", "127.0.0.1:12")];
        let flags = Flags { mqtt: Some("127.0.0.1:21".parse().unwrap()), ..Flags::default() };
        let listen = load(Some(file), &environment, &flags).unwrap().listen;
        assert_eq!((listen.mqtt.port(), listen.http.port(), listen.admin.port()), (21, 12, 3));
    }

    #[test]
    fn what_is_printed_loads_again() {
        let environment = [("NATTER__AUTH__JWKS_FILE", "a.json"), ("NATTER__SHUTDOWN__DRAIN_TIMEOUT_S", "7")];
        let config = load(None, &environment, &Flags::default()).unwrap();
        assert_eq!(load(Some(&config.to_toml().unwrap()), &[], &Flags::default()).unwrap(), config);
    }

    #[test]
    fn an_unknown_key_is_named() {
        refused(Some("[listen]\nmqqt = \"127.0.0.1:1\"\n"), &[], &["mqqt", "mqtt", "listen"]);
        refused(Some("[lisden]\nmqtt = \"127.0.0.1:1\"\n"), &[], &["lisden"]);
        refused(None, &[("NATTER__LISTEN__MQQT", "127.0.0.1:1")], &["mqqt", "listen"]);
        refused(None, &[("NATTER__LISDEN__MQTT", "127.0.0.1:1")], &["lisden"]);
    }

    #[test]
    fn a_wrong_value_says_key_expected_and_got() {
        refused(Some("[listen]\nmqtt = \"localhost\"\n"), &[], &["listen.mqtt", "expected IP:PORT", "localhost"]);
        refused(
            Some("[shutdown]\ndrain_timeout_s = \"soon\"\n"),
            &[],
            &["shutdown.drain_timeout_s", "expected", "soon"],
        );
        refused(
            None,
            &[("NATTER__SHUTDOWN__DRAIN_TIMEOUT_S", "soon")],
            &["shutdown.drain_timeout_s", "expected", "soon"],
        );
        refused(None, &[("NATTER__SHUTDOWN__DRAIN_TIMEOUT_S", "0")], &["shutdown.drain_timeout_s", "1 to 600", "0"]);
        refused(Some("[auth]\nalgorithm = \"HS256\"\n"), &[], &["auth.algorithm", "EdDSA", "HS256"]);
        refused(Some("[log]\nlevel = \"natter=loud\"\n"), &[], &["log.level", "loud"]);
        refused(Some("listen = 5\n"), &[], &["listen", "expected", "5"]);
        refused(Some("[listen\n"), &[], &["natter.toml"]);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Config::load(Some(Path::new("/nowhere/natter.toml")), &Flags::default()).unwrap_err().to_string();
        assert!(error.contains("/nowhere/natter.toml"), "{error}");
    }
}
