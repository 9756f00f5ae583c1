//! A user and a conversation, as the loop knows them.

use std::collections::{BTreeMap, BTreeSet};

use natter_protocol::{DeviceId, MessageId, N, Seq, UserId};

use crate::change::{Row, Tick};
use crate::edits::Redactions;
use crate::groups::row::GroupRow;
use crate::hidden::Hidden;
use crate::privacy::Privacy;
use crate::store::{DeviceRow, MemberRow};

/// A user.
#[derive(Debug, Default)]
pub struct User {
    /// There is such a user.
    pub known: bool,
    /// The newest position given.
    pub last_seq: Seq,
    /// Bytes ever given.
    pub last_offset: u64,
    /// Rows up to here are in the tables, those above in [`User::rows`].
    pub settled_seq: Seq,
    /// Rows up to here are gone, whatever the tables still hold: a position, and the same in bytes.
    pub base: (Seq, u64),
    /// The tables may hold rows of this inbox.
    pub stored: bool,
    /// The newest position that may have been handed to a reader: what lies above may still be merged.
    pub pushed: Seq,
    /// The newest position when this was read from the store.
    pub loaded_seq: Seq,
    /// The newest position sent to each device: up to there an entry goes out *again*, to a session that was sent entries before.
    pub sent: BTreeMap<DeviceId, Seq>,
    /// Entries that went out to a device as stubs and are not acknowledged: no more than its window holds.
    pub stubs: BTreeSet<(DeviceId, Seq)>,
    /// The devices.
    pub devices: BTreeMap<DeviceId, DeviceRow>,
    /// The user may have blocked somebody: `false` saves the look-up.
    pub blocks: bool,
    /// Something may be hidden from the user: likewise.
    pub hides: bool,
    /// Who sees what of him; `None`: not read yet.
    pub privacy: Option<Privacy>,
    /// Rows that are not settled and that a device still waits for.
    pub rows: BTreeMap<Seq, Row>,
    pub(super) pins: u32,
}

impl User {
    /// Whether no device waits for this row any more. With no device at all, the first one to come waits for it.
    #[must_use]
    pub fn is_dead(&self, seq: Seq, only: Option<&DeviceId>, except: Option<&DeviceId>) -> bool {
        if self.devices.is_empty() {
            return only.is_some();
        }
        self.devices
            .iter()
            .filter(|(device, _)| only.is_none_or(|only| only == *device) && except != Some(*device))
            .all(|(_, row)| row.position() >= seq)
    }

    /// Rows up to here are gone.
    #[must_use]
    pub fn floor(&self) -> Seq {
        self.base.0
    }

    pub(super) fn keep(&mut self, seq: Seq, row: Row) {
        self.last_seq = self.last_seq.max(seq);
        self.last_offset = self.last_offset.max(row.offset);
        // What is settled is in the tables, if a device waits for it: a journal row is replayed of which a part was.
        if seq > self.floor().max(self.settled_seq) && !self.is_dead(seq, row.only.as_ref(), row.except.as_ref()) {
            self.rows.insert(seq, row);
        }
    }

    pub(super) fn bury(&mut self, after: Seq, upto: Seq) {
        let dead: Vec<Seq> = self
            .rows
            .range(after + 1..=upto)
            .filter(|(seq, row)| self.is_dead(**seq, row.only.as_ref(), row.except.as_ref()))
            .map(|(seq, _)| *seq)
            .collect();
        for seq in dead {
            self.rows.remove(&seq);
        }
    }
}

/// A conversation.
#[derive(Debug, Default)]
pub struct Conversation {
    /// The newest number given.
    pub last_n: N,
    /// Watermarks of the members that have some.
    pub members: BTreeMap<UserId, MemberRow>,
    /// What it is, if it is a group's that is there; its members are those of [`Conversation::members`] who have not left.
    pub group: Option<GroupRow>,
    /// What members never had.
    pub hidden: BTreeMap<UserId, Hidden>,
    /// What was said anew of messages, by their numbers.
    pub redacted: Redactions,
    /// Senders and ids of the messages that are not settled.
    pub recent: BTreeMap<N, (UserId, MessageId)>,
    pub(super) pins: u32,
}

impl Conversation {
    /// A member's watermark.
    #[must_use]
    pub fn mark(&self, member: &UserId, tick: Tick) -> N {
        let row = self.members.get(member).copied().unwrap_or_default();
        match tick {
            Tick::Delivered => row.delivered_n,
            Tick::Read => row.read_n,
        }
    }

    /// A member's place in this group, if it is one, is there, and he is in it.
    #[must_use]
    pub fn member(&self, user: &UserId) -> Option<&MemberRow> {
        self.group.as_ref().and_then(|_| self.members.get(user)).filter(|row| row.left_n.is_none())
    }

    /// Who is in this group, in order of names.
    pub fn members_now(&self) -> impl Iterator<Item = (&UserId, &MemberRow)> {
        self.members.iter().filter(|(_, row)| self.group.is_some() && row.left_n.is_none())
    }

    /// Whether message `n` of this group is one of those that `user`, who is in it, had or is to have.
    #[must_use]
    pub fn is_his(&self, user: &UserId, n: N) -> bool {
        self.member(user).is_some_and(|row| row.joined_n < n) && !self.is_hidden(user, n)
    }

    /// Whether message `n` is said to a member: it is not hidden from him, and in a group came before he left, if he has.
    #[must_use]
    pub fn is_told(&self, member: &UserId, n: N) -> bool {
        let left_n = self.members.get(member).and_then(|row| row.left_n);
        left_n.is_none_or(|left_n| n <= left_n) && !self.is_hidden(member, n)
    }

    /// Whether a message was hidden from a member.
    #[must_use]
    pub fn is_hidden(&self, member: &UserId, n: N) -> bool {
        self.hidden.get(member).is_some_and(|hidden| hidden.has(n))
    }
}
