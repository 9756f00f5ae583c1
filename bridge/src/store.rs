//! What the loop needs of a database: a journal to append to, tables to settle into, and reads by key.
//!
//! One suite (`conformance`) runs against every store.

pub mod audit;
pub mod background;
mod blocks;
mod contacts;
mod kept;
pub mod loss;
mod mark;
mod media;
pub mod memory;
mod migrate;
mod privacy;
mod redacted;
pub mod sqlite;
mod status;
mod unheard;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod contention;
mod groups;

use std::sync::Arc;

use natter_protocol::{DeviceId, MediaId, MessageId, N, Seq, UserId};

use crate::change::{Accepted, Account, Message, Revoked, Row, Session, Webhook};
use crate::chat_key::ChatKey;
use crate::contacts::Contact;
use crate::edits::Redacted;
use crate::groups::row::GroupRow;
use crate::hidden::Hidden;
use crate::media::row::{MediaFile, MediaGrant, MediaUse};
use crate::privacy::{Aspect, Rule, Who};
use crate::status::Status;

/// Messages that stay readable beyond the inbox, a user: with one more the oldest goes.
pub const KEPT_MAX: usize = 1000;

/// A store that failed. Nothing of the call has happened, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database said no: disk full, read error, locked.
    #[error("store: {0}")]
    Database(String),
    /// The disk did not take what was written, and what it holds now is not known: after a failed sync the operating system may drop
    /// pages and report the next sync as done. It is never tried again; the process must end, and its next start reads what is there.
    #[error(
        "store: expected the disk to confirm what was written to it, got {0}: look for errors of the disk, and start again; \
         nothing that was acknowledged depends on it"
    )]
    NotSynced(String),
    /// What it holds is not what this program wrote.
    #[error("store: expected {expected}, got {got}: restore a backup, or run `natter check`")]
    Corrupt {
        /// What should stand there.
        expected: &'static str,
        /// What does.
        got: String,
    },
    /// Batches are missing that were acknowledged. Nothing was changed.
    #[error(
        "expected journal row {marked}, which natter.mark says was committed, got an end at row {newest}: {} acknowledged \
         batches are missing (rows {} to {marked}). The end of natter.db-wal is torn or lost, or an older copy of natter.db was put \
         back. Put the missing natter.db-wal or a newer backup back; or go on without them: `natter check --accept-loss`",
        .marked - .newest, .newest + 1
    )]
    Missing {
        /// The newest row that is there.
        newest: u64,
        /// The newest row that was committed, or a newer one that was not noted yet.
        marked: u64,
    },
}

impl StoreError {
    /// Whether the process must end: going on could lose or serve what it should not. A start looks at what is truly there.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::NotSynced(_) | Self::Corrupt { .. } | Self::Missing { .. } => true,
            Self::Database(_) => false,
        }
    }
}

/// What became of a journal row.
#[derive(Debug)]
pub enum Append {
    /// It is on disk.
    Committed,
    /// Somebody else has written this row: this process does not own the journal any more.
    Fenced,
    /// It is not there.
    Failed(StoreError),
}

/// What a user is in the tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserRow {
    /// The newest position ever given in the inbox.
    pub last_seq: Seq,
    /// Everything up to here is settled or gone; what is above lives in the journal.
    pub settled_seq: Seq,
    /// Bytes ever given in the inbox.
    pub last_offset: u64,
}

/// What a device is in the tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceRow {
    /// Everything up to here is acknowledged.
    pub cursor: Seq,
    /// Everything up to here will not come: the device lagged too far behind.
    pub skipped: Seq,
    /// Where it stands, in bytes of the inbox.
    pub offset: u64,
    /// Server second of the last time a reader came.
    pub active_at: u64,
    /// Unix second in which it began; 0: before that was kept.
    pub linked_at: u64,
    /// Unix second in which it was there, to the hour; 0: before that was kept.
    pub seen_at: u64,
    /// What its user calls it.
    pub label: Option<Arc<str>>,
}

impl DeviceRow {
    /// Everything up to here is behind the device, acknowledged or skipped.
    #[must_use]
    pub fn position(&self) -> Seq {
        self.cursor.max(self.skipped)
    }
}

/// A member of a conversation, in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemberRow {
    /// The number behind which the member joined.
    pub joined_n: N,
    /// The number up to which the member stayed; `None`: still there.
    pub left_n: Option<N>,
    /// Everything up to here was delivered.
    pub delivered_n: N,
    /// Everything up to here was read.
    pub read_n: N,
    /// In a group: he may change it.
    pub is_admin: bool,
}

/// An inbox row's position, and for whom it is meant: `only` that device, or all `except` that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxPlace {
    /// The position.
    pub seq: Seq,
    /// The same in bytes.
    pub offset: u64,
    /// Meant for that device only.
    pub only: Option<DeviceId>,
    /// Meant for every device but that.
    pub except: Option<DeviceId>,
}

/// A message's number, and the server second since which it counts.
pub type Since = (N, u64);

/// Rows of a settlement, as they are now; `None` takes the row away.
#[derive(Debug, Default)]
pub struct Settlement {
    /// Users.
    pub users: Vec<(UserId, UserRow)>,
    /// Devices.
    pub devices: Vec<(UserId, DeviceId, Option<DeviceRow>)>,
    /// Conversations: the newest number.
    pub chats: Vec<(ChatKey, N)>,
    /// Members and their watermarks.
    pub members: Vec<(ChatKey, UserId, MemberRow)>,
    /// Bodies that somebody still waits for.
    pub messages: Vec<Arc<Message>>,
    /// Inbox rows that a device still waits for.
    pub inbox: Vec<(UserId, Seq, Row)>,
    /// Messages that stay readable for a user beyond the inbox, and until which server second; of a user only the newest [`KEPT_MAX`].
    pub kept: Vec<(UserId, Arc<Message>, u64)>,
    /// Inbox rows to take away, if they are there; a body goes with the last row that points to it.
    pub gone: Vec<(UserId, Seq)>,
    /// Inbox ranges `..=seq` to take away.
    pub dropped: Vec<(UserId, Seq)>,
    /// Dedupe rows.
    pub accepted: Vec<(MessageId, UserId, Accepted)>,
    /// Sessions.
    pub sessions: Vec<(UserId, String, Option<Session>)>,
    /// Files. One that goes takes its grants along.
    pub media: Vec<(MediaId, Option<MediaFile>)>,
    /// Who may read which file, its owner too.
    pub grants: Vec<MediaGrant>,
    /// Contacts, by whose they are.
    pub contacts: Vec<(UserId, UserId, Option<Contact>)>,
    /// Blocks, by who blocks and who is blocked: since which Unix second.
    pub blocks: Vec<(UserId, UserId, Option<u64>)>,
    /// When users were there last, in Unix seconds. A later one that is there stays.
    pub last_seen: Vec<(UserId, u64)>,
    /// Who sees what of a user, with the whole list.
    pub privacy: Vec<(UserId, Aspect, Rule)>,
    /// All that is hidden from a member of a conversation.
    pub hidden: Vec<(ChatKey, UserId, Hidden)>,
    /// The oldest message hidden from a member that has not failed yet, and the server second since which it counts.
    pub unheard: Vec<(ChatKey, UserId, Option<Since>)>,
    /// Groups; `None` takes one away.
    pub groups: Vec<(ChatKey, Option<GroupRow>)>,
    /// Files that went into groups, by which message.
    pub media_groups: Vec<(MediaId, ChatKey, N)>,
    /// What was said anew of messages, by conversation and number.
    pub redacted: Vec<(ChatKey, N, Redacted)>,
    /// Statuses. A body goes with its status, or with the last row that points to it.
    pub statuses: Vec<(ChatKey, N, Option<Arc<Status>>)>,
    /// Revocations.
    pub revoked: Vec<Revoked>,
    /// Accounts; an empty one takes the row away.
    pub accounts: Vec<(UserId, Account)>,
    /// Webhooks.
    pub webhooks: Vec<(UserId, DeviceId, Option<Webhook>)>,
    /// Server second of the settlement.
    pub server_secs: u64,
    /// The last journal row this covers; it and all before it go.
    pub upto: u64,
}

/// Which messages of an inbox are meant.
#[derive(Debug)]
pub struct Waits<'a> {
    /// Whose inbox.
    pub user: &'a UserId,
    /// In this conversation.
    pub chat: &'a ChatKey,
    /// Sent by him.
    pub sender: &'a UserId,
    /// With greater numbers than this.
    pub after: N,
    /// At positions behind this one.
    pub behind: Seq,
    /// Up to this one.
    pub upto: Seq,
}

/// A database. All calls come from one thread.
pub trait Store {
    /// Writes row `no` of `log` and returns when it is on disk.
    fn append(&mut self, log: u8, no: u64, delta: &[u8]) -> Append;

    /// The number of the next journal row: one more than the newest ever written.
    ///
    /// # Errors
    /// When it cannot be read.
    fn next_no(&mut self, log: u8) -> Result<u64, StoreError>;

    /// Every journal row of `log`, in order.
    ///
    /// # Errors
    /// When the journal cannot be read.
    fn journal(&mut self, log: u8) -> Result<Vec<(u64, Vec<u8>)>, StoreError>;

    /// Writes a settlement and takes the journal rows away that it covers, in one transaction.
    ///
    /// # Errors
    /// Nothing was written.
    fn settle(&mut self, log: u8, settlement: &Settlement) -> Result<(), StoreError>;

    /// A user, if there is one.
    ///
    /// # Errors
    /// As for every read: the database failed or holds what it should not.
    fn user(&mut self, user: &UserId) -> Result<Option<UserRow>, StoreError>;

    /// Where the inbox of a user begins that is not stored: above 0 if positions may have been given that this store has lost.
    fn first_seq(&self) -> Seq {
        0
    }

    /// The devices of a user.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn devices(&mut self, user: &UserId) -> Result<Vec<(DeviceId, DeviceRow)>, StoreError>;

    /// At most `limit` inbox rows behind `after`, in order, with their messages.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn inbox(&mut self, user: &UserId, after: Seq, limit: usize) -> Result<Vec<(Seq, Row)>, StoreError>;

    /// For whom the inbox rows behind `after` up to `upto` are meant, at most `limit` of them.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn inbox_places(
        &mut self,
        user: &UserId,
        after: Seq,
        upto: Seq,
        limit: usize,
    ) -> Result<Vec<InboxPlace>, StoreError>;

    /// The newest number of a conversation, if it has one.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn chat(&mut self, chat: &ChatKey) -> Result<Option<N>, StoreError>;

    /// The members of a conversation that have watermarks.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn members(&mut self, chat: &ChatKey) -> Result<Vec<(UserId, MemberRow)>, StoreError>;

    /// What was accepted from `sender` under `id`.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn accepted(&mut self, id: &MessageId, sender: &UserId) -> Result<Option<Accepted>, StoreError>;

    /// At most `limit` senders who used `id`, and what for.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn accepted_by_id(&mut self, id: &MessageId, limit: usize) -> Result<Vec<(UserId, Accepted)>, StoreError>;

    /// The newest message of `sender` in `chat` with a number up to `upto` and above `after`.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn newest_of(
        &mut self,
        chat: &ChatKey,
        sender: &UserId,
        after: N,
        upto: N,
    ) -> Result<Option<(N, MessageId)>, StoreError>;

    /// The oldest message of `sender` in `chat` with `after < n <= upto`.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn oldest_of(
        &mut self,
        chat: &ChatKey,
        sender: &UserId,
        after: N,
        upto: N,
    ) -> Result<Option<(N, MessageId)>, StoreError>;

    /// How many messages of `sender` a conversation has behind number `after`, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn count_of(&mut self, chat: &ChatKey, sender: &UserId, after: N, limit: u64) -> Result<u64, StoreError>;

    /// A stored session.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn session(&mut self, user: &UserId, client_id: &str) -> Result<Option<Session>, StoreError>;

    /// Every session of a user.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn sessions(&mut self, user: &UserId) -> Result<Vec<(String, Session)>, StoreError>;

    /// A message that stays readable for a user beyond the inbox.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn kept(&mut self, user: &UserId, chat: &ChatKey, n: N) -> Result<Option<Arc<Message>>, StoreError>;

    /// Takes away at most `limit` kept messages whose time is over.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn sweep_kept(&mut self, limit: usize, now: u64) -> Result<(), StoreError>;

    /// A file.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn media(&mut self, id: &MediaId) -> Result<Option<MediaFile>, StoreError>;

    /// Whether `user` may read a file: as its owner, or because it was sent to him.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn has_media_grant(&mut self, user: &UserId, id: &MediaId) -> Result<bool, StoreError>;

    /// The files called `name` that `user` may read, newest first, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn find_media(&mut self, user: &UserId, name: &str, limit: usize) -> Result<Vec<MediaFile>, StoreError>;

    /// At most `limit` files whose time was over before `now`, those first that have waited longest.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn expired_media(&mut self, now: u64, limit: usize) -> Result<Vec<MediaFile>, StoreError>;

    /// What `owner` has.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn media_use(&mut self, owner: &UserId) -> Result<MediaUse, StoreError>;

    /// Whether somebody but `owner` was sent a file.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn is_media_shared(&mut self, id: &MediaId, owner: &UserId) -> Result<bool, StoreError>;

    /// What a user has of a contact.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn contact(&mut self, user: &UserId, contact: &UserId) -> Result<Option<Contact>, StoreError>;

    /// The contacts of a user behind a name, in order, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn contacts(
        &mut self,
        user: &UserId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, Contact)>, StoreError>;

    /// How many contacts a user has.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn contacts_count(&mut self, user: &UserId) -> Result<u64, StoreError>;

    /// Since which Unix second `user` has blocked `other`, if he has.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn block(&mut self, user: &UserId, other: &UserId) -> Result<Option<u64>, StoreError>;

    /// Whom a user has blocked, behind a name, in order, at most `limit`; each with the Unix second of the block.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn blocks(&mut self, user: &UserId, after: Option<&UserId>, limit: usize)
    -> Result<Vec<(UserId, u64)>, StoreError>;

    /// Whether a user has blocked anybody, and whether anything is hidden from him.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn has_blocks(&mut self, user: &UserId) -> Result<(bool, bool), StoreError>;

    /// What is hidden in a conversation, from whom: `after < n <= upto`.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn hidden(&mut self, chat: &ChatKey) -> Result<Vec<(UserId, N, N)>, StoreError>;

    /// When a user was there last, in Unix seconds.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn last_seen(&mut self, user: &UserId) -> Result<Option<u64>, StoreError>;

    /// Who sees what of a user, where he has said so.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn privacy(&mut self, user: &UserId) -> Result<Vec<(Aspect, Who)>, StoreError>;

    /// The list that goes with a rule, in order of names.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn privacy_list(&mut self, user: &UserId, aspect: Aspect) -> Result<Vec<UserId>, StoreError>;

    /// Whether the list that goes with a rule has `other`.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn is_in_privacy_list(&mut self, user: &UserId, aspect: Aspect, other: &UserId) -> Result<bool, StoreError>;

    /// What was said anew of a conversation's messages, by their numbers, in order.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn redacted(&mut self, chat: &ChatKey) -> Result<Vec<(N, Redacted)>, StoreError>;

    /// Forgets what was said anew and is known no longer than `now`, at most `limit` of it.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn sweep_redacted(&mut self, limit: usize, now: u64) -> Result<(), StoreError>;

    /// The oldest message hidden from a member that has not failed yet, and the server second since which it counts.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn unheard(&mut self, chat: &ChatKey, member: &UserId) -> Result<Option<(N, u64)>, StoreError>;

    /// At most `limit` conversations and members whose oldest such message counts since before `before`, the oldest first.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn unheard_over(&mut self, before: u64, limit: usize) -> Result<Vec<(ChatKey, UserId)>, StoreError>;

    /// The oldest message that waits in an inbox, and the server second of its row.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn oldest_waiting(&mut self, of: &Waits<'_>) -> Result<Option<(N, u64)>, StoreError>;

    /// A group, without its members.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn group(&mut self, chat: &ChatKey) -> Result<Option<GroupRow>, StoreError>;

    /// The groups that a user is in, behind a name, in order, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn groups_of(&mut self, user: &UserId, after: Option<&ChatKey>, limit: usize) -> Result<Vec<ChatKey>, StoreError>;

    /// The group that a code invites to.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn invited_by(&mut self, code: &str) -> Result<Option<ChatKey>, StoreError>;

    /// The groups that a file was sent to, and the numbers of the messages, at most `limit`, the greatest numbers first.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn groups_with(&mut self, media: &MediaId, limit: usize) -> Result<Vec<(ChatKey, N)>, StoreError>;

    /// The groups that `user` is in and a file was sent to after he joined, with the number of the newest message that has it, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn groups_open_with(
        &mut self,
        user: &UserId,
        media: &MediaId,
        limit: usize,
    ) -> Result<Vec<(ChatKey, N)>, StoreError>;

    /// The newest message of a group that has a file.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn newest_with(&mut self, media: &MediaId, chat: &ChatKey) -> Result<Option<N>, StoreError>;

    /// The messages of a conversation with `after < n <= upto`: their numbers, senders and ids, the newest first, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn accepted_between(
        &mut self,
        chat: &ChatKey,
        after: N,
        upto: N,
        limit: usize,
    ) -> Result<Vec<(N, UserId, MessageId)>, StoreError>;

    /// A status, if it is kept.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn status(&mut self, chat: &ChatKey, n: N) -> Result<Option<Status>, StoreError>;

    /// The numbers of a poster's statuses in order, each with the server second until which it is shown.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn status_times(&mut self, chat: &ChatKey) -> Result<Vec<(N, u64)>, StoreError>;

    /// At most `limit` statuses whose time was over at `now`, those first that have waited longest.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn statuses_over(&mut self, now: u64, limit: usize) -> Result<Vec<(ChatKey, N)>, StoreError>;

    /// The statuses that carry a file, at most `limit`, the newest first.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn statuses_with(&mut self, media: &MediaId, limit: usize) -> Result<Vec<(ChatKey, N)>, StoreError>;

    /// Every revocation.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn revoked(&mut self) -> Result<Vec<Revoked>, StoreError>;

    /// What an account is beside its inbox; empty for a user who has nothing of it.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn account(&mut self, user: &UserId) -> Result<Account, StoreError>;

    /// Every user that may not come in.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn disabled(&mut self) -> Result<Vec<UserId>, StoreError>;

    /// Every webhook.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn webhooks(&mut self) -> Result<Vec<(UserId, DeviceId, Webhook)>, StoreError>;

    /// Server second of the last settlement.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn server_secs(&mut self) -> Result<u64, StoreError>;

    /// The oldest inbox row of each of at most `limit` users behind `after`, in the order of names: what a sweep looks at.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn oldest_rows(&mut self, after: Option<&UserId>, limit: usize) -> Result<Vec<(UserId, u64)>, StoreError>;

    /// Takes away dedupe rows whose time is over, among at most `limit` behind `after`; where to go on, `None` at the end.
    ///
    /// # Errors
    /// As [`Store::user`].
    fn sweep_accepted(
        &mut self,
        after: Option<(MessageId, UserId)>,
        limit: usize,
        now: u64,
    ) -> Result<Option<(MessageId, UserId)>, StoreError>;
}
