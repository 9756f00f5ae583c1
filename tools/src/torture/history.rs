//! What happened in a run, as the clients saw it: small enough to stay in memory for millions of messages.

/// A message: the index of the device that sent it, and its place among that device's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    /// Its index in the run.
    pub device: u32,
    /// From 0.
    pub k: u32,
}

impl Message {
    /// Its id on the wire.
    #[must_use]
    pub fn id(self) -> String {
        format!("t{}-{}", self.device, self.k)
    }

    /// The message of an id that [`Message::id`] made.
    #[must_use]
    pub fn parse(id: &str) -> Option<Self> {
        let (device, k) = id.strip_prefix('t')?.split_once('-')?;
        let message = Self { device: device.parse().ok()?, k: k.parse().ok()? };
        (message.id() == id).then_some(message)
    }
}

/// One thing that a device did or saw. All times are of one monotonic clock, in microseconds: taken before a write, and after a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant says what its fields are")]
pub enum What {
    /// Its first SUBACK: the device exists.
    Subscribed,
    /// It sent its message `k` for the first time; the hash of the body.
    Sent { k: u32, hash: u64 },
    /// The client of the SDK took its message `k` in: `send` has returned.
    Kept { k: u32 },
    /// A PUBACK without an error for its message `k`; the number it named, if it did.
    Acked { k: u32, n: Option<u32> },
    /// A hint `sent` named the number of its message `k`.
    Numbered { k: u32, n: u32 },
    /// A message was refused.
    Refused,
    /// It took an entry with a message.
    Taken { message: Message, n: u32, seq: u64, hash: u64 },
    /// It acknowledged an entry.
    Acknowledged { seq: u64 },
    /// It published that everything up to `n` is read.
    MarkedRead { n: u32 },
    /// It took a receipt of `recipient` (index of a user).
    Receipt { read: bool, recipient: u32, after: u32, n: u32, message: Message, seq: u64 },
    /// An entry whose `prev` is above the last one taken, or an entry of type `gap`.
    Gap,
    /// Something that nobody sent, or that cannot be read.
    Phantom,
}

/// A [`What`] and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Microseconds of a monotonic clock that all devices share.
    pub at: u64,
    /// What.
    pub what: What,
}

/// Everything that one device did and saw, in order.
#[derive(Debug, Clone, Default)]
pub struct Device {
    /// Index of its user; users 2p and 2p + 1 write to each other.
    pub user: u32,
    /// A client of the SDK: it acknowledges what is in its store before its app sees it, so nobody can write down when.
    pub is_sdk: bool,
    /// As it happened.
    pub events: Vec<Event>,
}

/// What the devices of one pair of users did and saw.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The index, in the run, of the first of them.
    pub first: u32,
    /// All devices of both users; each existed before the first message.
    pub devices: Vec<Device>,
}
