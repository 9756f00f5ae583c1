//! The door's limits, and who may come without credentials: `[door]`, `[mqtt]`.

use std::time::Duration;

use natter_broker::Rate;
use natter_protocol::UserId;
use serde::{Deserialize, Serialize};

use super::{Config, ConfigError, Listen, check_ranges};

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

    /// Who shows nothing is somebody only where nobody comes from outside.
    pub(super) fn check(&self, listen: &Listen) -> Result<(), ConfigError> {
        const KEY: &str = "mqtt.anonymous_as";
        if self.anonymous_as.is_empty() {
            return Ok(());
        }
        if self.anonymous_as().is_none() {
            let (expected, got) = ("a user name as \"demo\", or \"\"", format!("{:?}", self.anonymous_as));
            return Err(ConfigError::Value { key: KEY, expected, got });
        }
        let Listen { mqtt, http, admin: _, mqtts, https } = *listen;
        let listeners = [("mqtt", Some(mqtt)), ("http", Some(http)), ("mqtts", mqtts), ("https", https)];
        let Some((name, address)) = Listen::public(&listeners) else { return Ok(()) };
        let expected = "\"\" (nobody), or loopback addresses only in listen.mqtt, http, mqtts and https, as 127.0.0.1";
        let got = format!("{:?}, though listen.{name} is {address}", self.anonymous_as);
        Err(ConfigError::Value { key: KEY, expected, got })
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

impl Door {
    /// The values that a type alone does not check.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_ranges([
            ("door.connections_max", "1 to 1000000", 1..=1_000_000, self.connections_max as u64),
            ("door.handshakes_max", "1 to 1000000", 1..=1_000_000, self.handshakes_max as u64),
            ("door.memory_max_mib", "0 to 16777216", 0..=16_777_216, self.memory_max_mib),
            (
                "door.connections_per_address_max",
                "1 to 1000000",
                1..=1_000_000,
                self.connections_per_address_max as u64,
            ),
            ("door.connections_per_user_max", "1 to 1000000", 1..=1_000_000, self.connections_per_user_max as u64),
            ("door.connects_per_s", "0 to 1000000", 0..=1_000_000, self.connects_per_s.into()),
            ("door.connects_per_min", "1 to 1000000", 1..=1_000_000, self.connects_per_min.into()),
            ("door.auth_failures_per_min", "1 to 1000000", 1..=1_000_000, self.auth_failures_per_min.into()),
            ("door.publishes_per_s", "1 to 1000000", 1..=1_000_000, self.publishes_per_s.into()),
            ("door.packets_per_s", "1 to 1000000", 1..=1_000_000, self.packets_per_s.into()),
            ("door.connect_timeout_s", "1 to 600", 1..=600, self.connect_timeout_s),
            ("door.packet_timeout_s", "1 to 600", 1..=600, self.packet_timeout_s),
            ("door.write_timeout_s", "1 to 600", 1..=600, self.write_timeout_s),
            ("door.keep_alive_max_s", "1 to 65535", 1..=65_535, self.keep_alive_max_s),
            ("door.receive_maximum", "1 to 65535", 1..=65_535, self.receive_maximum.into()),
            ("door.session_expiry_max_s", "0 to 4294967294", 0..=4_294_967_294, self.session_expiry_max_s),
            ("door.queue_frames_max", "256 to 65536", 256..=65_536, self.queue_frames_max as u64),
            ("door.queue_bytes_max", "2097152 to 1073741824", 2_097_152..=1_073_741_824, self.queue_bytes_max as u64),
        ])
    }
}

impl Config {
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
}
