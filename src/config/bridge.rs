//! What is kept for users: `[bridge]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Config, ConfigError, check_ranges};

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

impl Bridge {
    /// The values that a type alone does not check.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_ranges([
            ("bridge.entry_ttl_s", "1 to 315360000", 1..=315_360_000, self.entry_ttl_s),
            ("bridge.inbox_entries_max", "100 to 1000000000", 100..=1_000_000_000, self.inbox_entries_max),
            ("bridge.inbox_bytes_max", "1 MiB to 1 TiB", 1 << 20..=1 << 40, self.inbox_bytes_max),
            ("bridge.device_lag_entries_max", "100 to 1000000000", 100..=1_000_000_000, self.device_lag_entries_max),
            ("bridge.device_lag_bytes_max", "1 MiB to 1 TiB", 1 << 20..=1 << 40, self.device_lag_bytes_max),
            ("bridge.devices_max", "1 to 100", 1..=100, self.devices_max as u64),
            ("bridge.sessions_max", "1 to 1000", 1..=1000, self.sessions_max as u64),
            ("bridge.watches_max", "0 to 100000", 0..=100_000, self.watches_max as u64),
            ("bridge.watchers_max", "0 to 1000000", 0..=1_000_000, self.watchers_max as u64),
        ])
    }
}

impl Config {
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
}
