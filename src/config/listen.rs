//! Where the server listens, and what its listeners show and bear: `[listen]`, `[tls]`, `[http]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::{ConfigError, check_ranges};

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

impl Listen {
    /// The first of these listeners, each with its name, that others than this machine reach.
    pub(super) fn public(listeners: &[(&'static str, Option<SocketAddr>)]) -> Option<(&'static str, SocketAddr)> {
        let mut open = listeners.iter().filter_map(|(name, address)| Some((*name, (*address)?)));
        open.find(|(_, address)| !address.ip().to_canonical().is_loopback())
    }
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

    /// The values that a type alone does not check.
    pub(super) fn check(&self, listen: &Listen) -> Result<(), ConfigError> {
        check_ranges([
            ("tls.handshake_timeout_s", "1 to 60", 1..=60, self.handshake_timeout_s),
            ("tls.handshakes_max", "1 to 1000000", 1..=1_000_000, self.handshakes_max as u64),
        ])?;
        self.check_files(listen)
    }

    /// A certificate and its key come together, and are there if a listener needs them.
    fn check_files(&self, listen: &Listen) -> Result<(), ConfigError> {
        let listener = match (listen.mqtts, listen.https) {
            (Some(_), _) => Some("listen.mqtts is set"),
            (None, Some(_)) => Some("listen.https is set"),
            (None, None) => None,
        };
        let (key, has) = match (&self.certificate, &self.key) {
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

    /// The values that a type alone does not check.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_ranges([
            ("http.connections_max", "1 to 1000000", 1..=1_000_000, self.connections_max as u64),
            ("http.header_timeout_s", "1 to 600", 1..=600, self.header_timeout_s),
            ("http.write_timeout_s", "1 to 600", 1..=600, self.write_timeout_s),
        ])?;
        if let Some(got) = self.allowed_origins.iter().find(|origin| !is_origin(origin)) {
            let expected = "origins as \"https://chat.example.com\", without a path";
            return Err(ConfigError::Value { key: "http.allowed_origins", expected, got: format!("{got:?}") });
        }
        Ok(())
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
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
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
pub(super) fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let is_name = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    is_name(scheme, b"+-.") && is_name(authority, b"-._:[]")
}
