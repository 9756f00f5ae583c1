//! Where the store is, and every limit of the rules, with its default.

use std::path::PathBuf;

/// Where the store is, and the limits.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The database file; made if it is not there.
    pub path: PathBuf,
    /// The limits of the rules.
    pub limits: Limits,
}

/// The limits of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Server seconds after which an entry that nobody took expires. Default 30 days.
    pub entry_ttl_secs: u64,
    /// Devices a user; one more replaces the one idle longest, if it is idle for a week, or is refused. Default 10.
    pub devices_max: usize,
    /// Stored sessions a user; one more makes the server forget the one that ended first. Default 32.
    pub sessions_max: usize,
    /// Inboxes whose changes of hands are remembered for a minute; above it older ones are forgotten. Default 10,000.
    pub swaps_max: usize,
    /// Events a batch: what one journal row may hold. Default 1,024.
    pub batch_events_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entry_ttl_secs: 30 * 24 * 3600,
            devices_max: 10,
            sessions_max: 32,
            swaps_max: 10_000,
            batch_events_max: 1024,
        }
    }
}
