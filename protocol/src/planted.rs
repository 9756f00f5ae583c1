//! Bugs on purpose, so that the tests that must find them can be seen to find them (cargo feature `planted`).
//!
//! The environment variable `NATTER_PLANTED` chooses one by its name. Release builds refuse the feature; without it every question is
//! answered "no" at compile time.

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!(
    "the feature `planted` puts bugs into Natter on purpose: it is for debug builds, and for its own tests, only"
);

/// A bug that loses, doubles or reorders something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// PUBACK and entries leave before their batch is written.
    AckBeforeCommit,
    /// The database does not wait for the disk.
    SynchronousOff,
    /// A repeat is a new message.
    DroppedDedupe,
    /// A batch without messages is not written before its receipts leave.
    ReceiptBeforeCommit,
    /// Positions in an inbox are counted beside the journal.
    SeqOutsideTransaction,
    /// A device's cursor moves when an entry is sent, not when it is acknowledged.
    CursorOnSend,
    /// An answer is for whoever of the user waits for that packet id.
    AckByPacketId,
    /// Devices are not settled into their table.
    SettlingForgetsDevice,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::AckBeforeCommit,
        Self::SynchronousOff,
        Self::DroppedDedupe,
        Self::ReceiptBeforeCommit,
        Self::SeqOutsideTransaction,
        Self::CursorOnSend,
        Self::AckByPacketId,
        Self::SettlingForgetsDevice,
    ];

    /// Its name in `NATTER_PLANTED`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AckBeforeCommit => "ack-before-commit",
            Self::SynchronousOff => "synchronous-off",
            Self::DroppedDedupe => "dropped-dedupe",
            Self::ReceiptBeforeCommit => "receipt-before-commit",
            Self::SeqOutsideTransaction => "seq-outside-transaction",
            Self::CursorOnSend => "cursor-on-send",
            Self::AckByPacketId => "ack-by-packet-id",
            Self::SettlingForgetsDevice => "settling-forgets-device",
        }
    }
}

/// Whether `bug` is planted in this process.
#[cfg(feature = "planted")]
#[must_use]
pub fn has(bug: Bug) -> bool {
    use std::sync::OnceLock;
    static PLANTED: OnceLock<Option<Bug>> = OnceLock::new();
    let planted = PLANTED.get_or_init(|| {
        let name = std::env::var("NATTER_PLANTED").ok()?;
        Bug::ALL.into_iter().find(|bug| bug.name() == name)
    });
    *planted == Some(bug)
}

/// Whether `bug` is planted in this process: never, without the feature.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn has(bug: Bug) -> bool {
    let _ = bug;
    false
}
