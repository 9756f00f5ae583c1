//! Counters of the loop, read by `/metrics` while it runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use natter_protocol::histogram::{Histogram, Snapshot};

/// What the loop has done since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Batches committed.
    pub commits: u64,
    /// Messages accepted.
    pub messages: u64,
    /// Repeats of accepted messages, answered again.
    pub repeats: u64,
    /// Commands and messages refused for good.
    pub refused: u64,
    /// Connections that got "not now".
    pub not_now: u64,
    /// Entries handed to doors.
    pub entries: u64,
    /// Entries acknowledged by devices.
    pub acknowledged: u64,
    /// Entries that expired, or were dropped from a crowded inbox.
    pub expired: u64,
    /// Messages refused because an inbox was full.
    pub quota: u64,
    /// Positions that devices skipped because they lagged too far behind.
    pub skipped: u64,
    /// Statuses posted; they are messages too.
    pub statuses: u64,
    /// Statuses refused because too many are shown.
    pub statuses_refused: u64,
    /// Statuses whose time was over.
    pub statuses_expired: u64,
    /// Statuses that were taken back.
    pub statuses_deleted: u64,
    /// Messages edited.
    pub edits: u64,
    /// Messages deleted for everybody.
    pub deletions: u64,
    /// Contacts added.
    pub contacts_added: u64,
    /// Contacts removed.
    pub contacts_removed: u64,
    /// Users blocked.
    pub blocks: u64,
    /// Users blocked no more.
    pub unblocks: u64,
    /// Devices linked before they connected.
    pub devices_linked: u64,
    /// Devices cut off by their users.
    pub devices_unlinked: u64,
    /// Messages of blocked users, accepted and hidden from those who block them.
    pub hidden: u64,
    /// Changes of groups.
    pub group_changes: u64,
    /// Presences told to connections that watch.
    pub presences: u64,
    /// Hints that somebody types, dropped because their reader or the link was behind.
    pub hints_dropped: u64,
    /// Watches of connections, now.
    pub watches: u64,
    /// Journal rows that wait to be settled.
    pub unsettled: u64,
    /// Whether the last commit went well.
    pub healthy: bool,
    /// PUBLISHes: from when the door read them until they were committed, or refused.
    pub committed: Snapshot,
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) repeats: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) not_now: AtomicU64,
    pub(crate) entries: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) quota: AtomicU64,
    pub(crate) skipped: AtomicU64,
    pub(crate) statuses: AtomicU64,
    pub(crate) statuses_refused: AtomicU64,
    pub(crate) statuses_expired: AtomicU64,
    pub(crate) statuses_deleted: AtomicU64,
    pub(crate) edits: AtomicU64,
    pub(crate) deletions: AtomicU64,
    pub(crate) contacts_added: AtomicU64,
    pub(crate) contacts_removed: AtomicU64,
    pub(crate) blocks: AtomicU64,
    pub(crate) unblocks: AtomicU64,
    pub(crate) devices_linked: AtomicU64,
    pub(crate) devices_unlinked: AtomicU64,
    pub(crate) hidden: AtomicU64,
    pub(crate) group_changes: AtomicU64,
    pub(crate) presences: AtomicU64,
    pub(crate) hints_dropped: AtomicU64,
    pub(crate) watches: AtomicU64,
    pub(crate) unsettled: AtomicU64,
    pub(crate) healthy: AtomicBool,
    pub(crate) committed: Histogram,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        Self::add_many(counter, 1);
    }

    pub(crate) fn add_many(counter: &AtomicU64, count: u64) {
        // One thread writes: a load and a store are cheaper than a locked addition.
        counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// The counters as they stand.
    #[must_use]
    pub fn snapshot(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            commits: read(&self.commits),
            messages: read(&self.messages),
            repeats: read(&self.repeats),
            refused: read(&self.refused),
            not_now: read(&self.not_now),
            entries: read(&self.entries),
            acknowledged: read(&self.acknowledged),
            expired: read(&self.expired),
            quota: read(&self.quota),
            skipped: read(&self.skipped),
            statuses: read(&self.statuses),
            statuses_refused: read(&self.statuses_refused),
            statuses_expired: read(&self.statuses_expired),
            statuses_deleted: read(&self.statuses_deleted),
            edits: read(&self.edits),
            deletions: read(&self.deletions),
            contacts_added: read(&self.contacts_added),
            contacts_removed: read(&self.contacts_removed),
            blocks: read(&self.blocks),
            unblocks: read(&self.unblocks),
            devices_linked: read(&self.devices_linked),
            devices_unlinked: read(&self.devices_unlinked),
            hidden: read(&self.hidden),
            group_changes: read(&self.group_changes),
            presences: read(&self.presences),
            hints_dropped: read(&self.hints_dropped),
            watches: read(&self.watches),
            unsettled: read(&self.unsettled),
            healthy: self.healthy.load(Ordering::Relaxed),
            committed: self.committed.snapshot(),
        }
    }
}
