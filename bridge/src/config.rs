//! Where the store is, and every limit of the rules, with its default.

use std::path::PathBuf;

use natter_protocol::error::{Kind, Refusal};

use crate::media::row::MediaUse;
use crate::quota::Amount;

const MIB: u64 = 1024 * 1024;

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
    /// What may wait for a user before messages to him are refused. Default 400,000 entries or 512 MiB; one chat alone fills half of it.
    pub inbox: Amount,
    /// What a device may lag behind while another one of its user is further: more is skipped. Default 200,000 entries or 256 MiB.
    pub device_lag: Amount,
    /// Devices a user; one more replaces the one idle longest, if it is idle for a week, or is refused. Default 10.
    pub devices_max: usize,
    /// Stored sessions a user; one more makes the server forget the one that ended first. Default 32.
    pub sessions_max: usize,
    /// Inboxes whose changes of hands are remembered for a minute; above it older ones are forgotten. Default 10,000.
    pub swaps_max: usize,
    /// Users that a connection watches; one more is refused. Default 256.
    pub watches_max: usize,
    /// Connections that watch a user and see something of him; one more is refused. Default 1,000.
    pub watchers_max: usize,
    /// Events a batch: what one journal row may hold. Default 1,024.
    pub batch_events_max: usize,
    /// What a user may keep of files.
    pub media: MediaLimits,
    /// Whom a user may know and block, and what he may show.
    pub people: PeopleLimits,
    /// How large groups are, and how many.
    pub groups: GroupLimits,
}

/// How large groups are, and how many. One more is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLimits {
    /// Members a group, at most [`MEMBERS_MAX`](natter_protocol::group::MEMBERS_MAX). Default 1,024.
    pub members_max: usize,
    /// Groups that a user is in. Default 1,000.
    pub groups_max: usize,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self { members_max: natter_protocol::group::MEMBERS_MAX, groups_max: 1000 }
    }
}

/// Whom a user may know and block, and what he may show. One more is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeopleLimits {
    /// Contacts a user. Default 10,000.
    pub contacts_max: usize,
    /// Users that one user may have blocked. Default 1,000.
    pub blocks_max: usize,
    /// Statuses of a user that are shown at a time. Default 100.
    pub statuses_max: usize,
}

impl Default for PeopleLimits {
    fn default() -> Self {
        Self { contacts_max: 10_000, blocks_max: 1000, statuses_max: 100 }
    }
}

/// What a user may keep of files, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaLimits {
    /// Files a user. Default 10,000.
    pub files_max: u64,
    /// Their bytes. Default 2 GiB.
    pub bytes_max: u64,
    /// Server seconds that a file is kept after its upload, and after each message with it. Default 30 days.
    pub ttl_secs: u64,
}

impl MediaLimits {
    /// Whether a user who has `used` may have a file of `size` more.
    ///
    /// # Errors
    /// The quota, what is used, and what to do.
    pub fn check(&self, used: MediaUse, size: u64) -> Result<(), Refusal> {
        let refused = |limit: String, got: String| {
            let details =
                format!("expected at most {limit} of one user, got {got}: delete some, or wait until they expire");
            Err(Refusal::new(Kind::Quota, details))
        };
        if used.files >= self.files_max {
            return refused(format!("{} files", self.files_max), format!("{} and this one", used.files));
        }
        if used.bytes.saturating_add(size) > self.bytes_max {
            let (limit, got) =
                (format!("{} bytes of files", self.bytes_max), format!("{} and {size} more", used.bytes));
            return refused(limit, got);
        }
        Ok(())
    }
}

impl Default for MediaLimits {
    fn default() -> Self {
        Self { files_max: 10_000, bytes_max: 2048 * MIB, ttl_secs: 30 * 24 * 3600 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entry_ttl_secs: 30 * 24 * 3600,
            inbox: Amount { entries: 400_000, bytes: 512 * MIB },
            device_lag: Amount { entries: 200_000, bytes: 256 * MIB },
            devices_max: 10,
            sessions_max: 32,
            swaps_max: 10_000,
            watches_max: 256,
            watchers_max: 1000,
            batch_events_max: 1024,
            media: MediaLimits::default(),
            people: PeopleLimits::default(),
            groups: GroupLimits::default(),
        }
    }
}
