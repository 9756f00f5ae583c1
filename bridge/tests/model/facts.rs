//! What the mirror keeps: users, devices, messages, and who has had what.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use natter_bridge::engine::Now;
use natter_protocol::error::Kind;
use natter_protocol::link::{Mode, Opening};
use natter_protocol::{DeviceId, N, Seq};
use serde_json::Value;

use super::ops::{DEVICES, USERS};

pub(crate) const NAMES: [&str; USERS + 1] = ["alice", "bob", "carol", "nobody"];
pub(crate) const DEVICE_NAMES: [&str; DEVICES] = ["phone", "tablet", "web"];
/// Server seconds after which an entry may expire.
pub(crate) const TTL_SECS: u64 = 30 * 24 * 3600;
/// Server seconds that a repeat is surely known.
pub(crate) const REPEATS_SECS: u64 = 60 * 24 * 3600;

pub(crate) type User = usize;
pub(crate) type Device = usize;
/// Both members, the smaller first.
pub(crate) type Pair = (User, User);

pub(crate) fn user_named(name: &str) -> User {
    NAMES.iter().position(|known| *known == name).unwrap_or_else(|| panic!("a user nobody knows: {name}"))
}

pub(crate) fn device_id(device: Device) -> DeviceId {
    DeviceId::parse(DEVICE_NAMES[device]).unwrap()
}

pub(crate) fn device_named(device: &DeviceId) -> Device {
    DEVICE_NAMES.iter().position(|name| *name == device.as_str()).unwrap()
}

pub(crate) fn pair(a: User, b: User) -> Pair {
    (a.min(b), a.max(b))
}

/// What must be answered, in order, to one connection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expected {
    Opened { session_present: bool, device: Option<Device>, held: Vec<u16> },
    Attached(u8),
    Completed(u16),
    Message { packet: u16, id: String, n: N, timestamp: u64 },
    Done { packet: u16 },
    Refused { packet: u16, kind: Kind },
    Closed(u8),
}

/// A message that was accepted.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) to: User,
    pub(crate) n: N,
    pub(crate) body: Rc<str>,
    pub(crate) timestamp: u64,
    pub(crate) at: u64,
}

/// Something that has a place in an inbox and that the mirror foresees.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    Text {
        from: User,
        other: User,
        n: N,
        id: String,
        body: Rc<str>,
        timestamp: u64,
    },
    /// A refusal that a PUBACK cannot tell.
    Failed {
        id: Option<String>,
        conflicts_with: Option<String>,
        kind: Kind,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) what: Rc<What>,
    pub(crate) only: Option<Device>,
    pub(crate) except: Option<Device>,
    pub(crate) at: u64,
    /// Known once somebody was sent it.
    pub(crate) seq: Option<Seq>,
    pub(crate) may_expire: bool,
    /// Server second of the sweep that may have taken it.
    pub(crate) since: u64,
    /// An acknowledgement by position may have passed it, unseen.
    pub(crate) may_be_passed: bool,
}

impl Item {
    pub(crate) fn is_for(&self, device: Device) -> bool {
        self.only.is_none_or(|only| only == device) && self.except != Some(device)
    }
}

/// What a device has had, over all its connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct Had {
    /// `None`: it began where the mirror cannot see, and the first `prev` tells.
    pub(crate) cursor: Option<Seq>,
    pub(crate) last: Option<Seq>,
    pub(crate) seqs: BTreeSet<Seq>,
    pub(crate) items: BTreeSet<usize>,
    /// Need not come.
    pub(crate) excused: BTreeSet<usize>,
    /// May have expired: a gap must say so.
    pub(crate) owed: BTreeSet<usize>,
    pub(crate) gaps: Vec<(Seq, Seq)>,
    /// Came as stubs last.
    pub(crate) stubs: BTreeSet<usize>,
}

/// Receipts by position: what they cover.
pub(crate) type Ranges = BTreeMap<Seq, (N, N)>;

#[derive(Debug, Clone, Default)]
pub(crate) struct Inbox {
    pub(crate) items: Vec<Item>,
    pub(crate) places: BTreeMap<Seq, usize>,
    /// Everything that was said, without `prev`.
    pub(crate) said: BTreeMap<Seq, Rc<Value>>,
    pub(crate) devices: BTreeMap<Device, Had>,
    /// By other side, member and kind.
    pub(crate) receipts: BTreeMap<(User, User, String), Ranges>,
    pub(crate) expired: BTreeMap<(User, N), Seq>,
}

/// What became of a message at the first device that was done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Taken,
    TurnedDown,
    /// The mirror cannot know.
    Either,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Talk {
    pub(crate) messages: BTreeMap<N, (User, String)>,
    pub(crate) delivered: BTreeMap<User, N>,
    pub(crate) read: BTreeMap<User, N>,
    pub(crate) fates: BTreeMap<(N, User), Fate>,
    pub(crate) may_expire: BTreeSet<(N, User)>,
}

impl Talk {
    pub(crate) fn last_n(&self) -> N {
        self.messages.keys().next_back().copied().unwrap_or(0)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Flight {
    pub(crate) seq: Seq,
    pub(crate) item: Option<usize>,
    pub(crate) stub: bool,
    pub(crate) acknowledged: Option<bool>,
}

#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) user: User,
    pub(crate) client_id: String,
    pub(crate) opening: Opening,
    pub(crate) reading: Option<(Device, Mode)>,
    /// Its session, or this connection before an UNSUBSCRIBE, may have been sent entries.
    pub(crate) is_resumed: bool,
    pub(crate) deaf: bool,
    pub(crate) prev: Option<Seq>,
    pub(crate) flight: VecDeque<Flight>,
}

impl Link {
    pub(crate) fn entries_max(&self) -> usize {
        usize::from(self.opening.receive_maximum).clamp(1, 100)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) device: Option<Device>,
    pub(crate) expiry_secs: u32,
    pub(crate) gone_at: Option<u64>,
    pub(crate) held: Vec<u16>,
}

impl Inbox {
    pub(crate) fn put(&mut self, what: What, only: Option<Device>, except: Option<Device>, now: Now) {
        let at = now.server_secs;
        let what = Rc::new(what);
        self.items.push(Item { what, only, except, at, seq: None, may_expire: false, since: 0, may_be_passed: false });
    }

    /// The newest position that anybody has seen.
    pub(crate) fn newest(&self) -> Seq {
        self.said.keys().next_back().copied().unwrap_or(0)
    }
}
