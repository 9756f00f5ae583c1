//! What the loop knows: everything that is not settled yet, and of the rest what was asked for lately.
//!
//! [`State::apply`] is the one function that takes a [`Change`] in: in the running server, at a start, and in tests. What a cache does not
//! hold is read from the store by its key, so memory follows what is in use and not what is stored.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use natter_protocol::planted::{self, Bug};
use natter_protocol::{DeviceId, MediaId, MessageId, N, Seq, UserId};

use crate::change::{Accepted, Account, Change, Item, Message, Place, Revoked, Row, Session, Tick, Webhook};
use crate::chat_key::ChatKey;
use crate::hidden::Hidden;
use crate::media::row::{MediaFile, MediaUse};
use crate::overlay::Overlay;
use crate::settle::Purge;
use crate::status::Status;
use crate::store::{DeviceRow, InboxPlace, MemberRow, Store, StoreError};

/// Users and conversations kept in memory without need; above it those that nobody uses are forgotten (and read again when asked for).
pub const CACHED_MAX: usize = 50_000;
/// Server seconds that a repeat is known after its message: the time to live of the message and 30 days more.
pub const DEDUPE_SECS: u64 = 60 * 24 * 3600;

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
    /// Rows that are not settled and that a device still waits for.
    pub rows: BTreeMap<Seq, Row>,
    pins: u32,
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

    fn keep(&mut self, seq: Seq, row: Row) {
        self.last_seq = self.last_seq.max(seq);
        self.last_offset = self.last_offset.max(row.offset);
        if seq > self.floor() && !self.is_dead(seq, row.only.as_ref(), row.except.as_ref()) {
            self.rows.insert(seq, row);
        }
    }

    fn bury(&mut self, after: Seq, upto: Seq) {
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
    /// What members never had.
    pub hidden: BTreeMap<UserId, Hidden>,
    /// Senders and ids of the messages that are not settled.
    pub recent: BTreeMap<N, (UserId, MessageId)>,
    pins: u32,
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

    /// Whether a message was hidden from a member.
    #[must_use]
    pub fn is_hidden(&self, member: &UserId, n: N) -> bool {
        self.hidden.get(member).is_some_and(|hidden| hidden.has(n))
    }
}

/// Everything the rules decide on.
#[derive(Debug)]
pub struct State<S> {
    /// The database.
    pub store: S,
    /// Every revocation.
    pub revoked: BTreeSet<Revoked>,
    /// Every user that may not come in.
    pub disabled: BTreeSet<UserId>,
    /// Every webhook.
    pub webhooks: BTreeMap<(UserId, DeviceId), Webhook>,
    /// Changes by journal row, oldest first: committed, not settled.
    pub(crate) journal: VecDeque<(u64, Vec<Change>)>,
    /// The newest journal row that is settled, of those settled in this run.
    pub(crate) settled_no: u64,
    /// What is to be purged from the tables.
    pub(crate) purge: Purge,
    users: HashMap<UserId, User>,
    chats: HashMap<ChatKey, Conversation>,
    accepted: HashMap<MessageId, Vec<(UserId, Accepted)>>,
    sessions: Overlay<(UserId, String), Option<Session>>,
    kept: HashMap<(UserId, ChatKey, N), Arc<Message>>,
    accounts: Overlay<UserId, Account>,
    media: Overlay<MediaId, Option<MediaFile>>,
    /// Who was sent a file by a message that is not settled: once a message.
    pub(crate) media_grants: HashMap<MediaId, Vec<UserId>>,
    pub(crate) contacts: crate::contacts::Unsettled,
    pub(crate) statuses: crate::status::known::Unsettled,
    pub(crate) blocks: crate::blocks::Unsettled,
}

impl<S: Store> State<S> {
    /// Reads the tables' summary and replays the journal.
    ///
    /// # Errors
    /// When the store cannot be read, or holds what this program did not write.
    pub fn recover(store: S, log: u8) -> Result<Self, StoreError> {
        let mut state = Self {
            store,
            revoked: BTreeSet::new(),
            disabled: BTreeSet::new(),
            webhooks: BTreeMap::new(),
            journal: VecDeque::new(),
            settled_no: 0,
            purge: Purge::default(),
            users: HashMap::new(),
            chats: HashMap::new(),
            accepted: HashMap::new(),
            sessions: Overlay::default(),
            kept: HashMap::new(),
            accounts: Overlay::default(),
            media: Overlay::default(),
            media_grants: HashMap::new(),
            contacts: Overlay::default(),
            statuses: Overlay::default(),
            blocks: Overlay::default(),
        };
        state.reset(log)?;
        Ok(state)
    }

    /// Forgets everything and reads it anew: what a batch that was not committed did to this is gone.
    ///
    /// # Errors
    /// As [`State::recover`].
    pub fn reset(&mut self, log: u8) -> Result<(), StoreError> {
        self.journal.clear();
        self.purge.clear();
        self.users.clear();
        self.chats.clear();
        self.accepted.clear();
        self.sessions.clear();
        self.kept.clear();
        self.accounts.clear();
        self.media.clear();
        self.media_grants.clear();
        self.contacts.clear();
        self.statuses.clear();
        self.blocks.clear();
        self.revoked = self.store.revoked()?.into_iter().collect();
        self.disabled = self.store.disabled()?.into_iter().collect();
        self.webhooks = self.store.webhooks()?.into_iter().map(|(user, device, row)| ((user, device), row)).collect();
        self.settled_no = self.store.next_no(log)? - 1;
        for (no, row) in self.store.journal(log)? {
            self.settled_no = self.settled_no.min(no - 1);
            let changes = crate::change::decode(&row)
                .map_err(|e| StoreError::Corrupt { expected: "a journal row", got: format!("row {no}: {e}") })?;
            for change in &changes {
                self.apply(change)?;
            }
            self.journal.push_back((no, changes));
        }
        for user in self.users.values_mut() {
            // Nobody knows what was sent before: a reader that drops a repeat by its `seq` must not miss what it says.
            user.pushed = user.last_seq;
            user.loaded_seq = user.last_seq;
        }
        if planted::has(Bug::SeqOutsideTransaction) {
            for (id, user) in &mut self.users {
                user.last_seq = self.store.user(id)?.map_or(0, |row| row.last_seq);
            }
        }
        Ok(())
    }

    /// A user, known or not.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn user(&mut self, id: &UserId) -> Result<&mut User, StoreError> {
        if !self.users.contains_key(id) {
            let mut user = User::default();
            if let Some(row) = self.store.user(id)? {
                user.known = true;
                user.last_seq = row.last_seq;
                user.settled_seq = row.settled_seq;
                user.last_offset = row.last_offset;
                user.pushed = row.last_seq;
                user.loaded_seq = row.last_seq;
                user.devices = self.store.devices(id)?.into_iter().collect();
                (user.blocks, user.hides) = self.store.has_blocks(id)?;
                let oldest = self.store.inbox_places(id, 0, Seq::MAX >> 1, 1)?;
                user.stored = !oldest.is_empty();
                user.base = oldest.first().map_or((user.settled_seq, user.last_offset), before);
                if oldest.iter().any(|row| user.is_dead(row.seq, row.only.as_ref(), row.except.as_ref())) {
                    // A purge was cut off by a crash.
                    self.purge.add(id, 0, user.settled_seq);
                }
            } else {
                user.last_seq = self.store.first_seq();
                user.pushed = user.last_seq;
            }
            self.users.insert(id.clone(), user);
        }
        Ok(self.users.entry(id.clone()).or_default())
    }

    /// A user that is in memory.
    #[must_use]
    pub fn user_in_memory(&self, id: &UserId) -> Option<&User> {
        self.users.get(id)
    }

    /// As [`State::user_in_memory`].
    pub fn user_in_memory_mut(&mut self, id: &UserId) -> Option<&mut User> {
        self.users.get_mut(id)
    }

    /// A conversation, begun or not.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn chat(&mut self, key: &ChatKey) -> Result<&mut Conversation, StoreError> {
        if !self.chats.contains_key(key) {
            let mut chat = Conversation::default();
            if let Some(last_n) = self.store.chat(key)? {
                chat.last_n = last_n;
                chat.members = self.store.members(key)?.into_iter().collect();
                for (member, after, upto) in self.store.hidden(key)? {
                    chat.hidden.entry(member).or_default().add(after, upto);
                }
            }
            self.chats.insert(key.clone(), chat);
        }
        Ok(self.chats.entry(key.clone()).or_default())
    }

    /// What was accepted from `sender` under `id`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn accepted(&mut self, id: &MessageId, sender: &UserId) -> Result<Option<Accepted>, StoreError> {
        let recent = self.accepted.get(id).and_then(|all| all.iter().find(|(from, _)| from == sender));
        match recent {
            Some((_, accepted)) => Ok(Some(accepted.clone())),
            None => self.store.accepted(id, sender),
        }
    }

    /// Who used `id`, and what for: at most `limit` of them from the tables, and all that are not settled.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn accepted_by_id(&mut self, id: &MessageId, limit: usize) -> Result<Vec<(UserId, Accepted)>, StoreError> {
        let mut all = self.accepted.get(id).cloned().unwrap_or_default();
        for (from, accepted) in self.store.accepted_by_id(id, limit)? {
            if all.iter().all(|(known, _)| *known != from) {
                all.push((from, accepted));
            }
        }
        Ok(all)
    }

    /// The newest message of `sender` in `chat` with `after < n <= upto`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn newest_of(
        &mut self,
        key: &ChatKey,
        sender: &UserId,
        after: N,
        upto: N,
    ) -> Result<Option<(N, MessageId)>, StoreError> {
        if upto <= after {
            return Ok(None);
        }
        let chat = self.chat(key)?;
        let recent = chat.recent.range(after + 1..=upto).rev().find(|(_, (from, _))| from == sender);
        match recent {
            Some((n, (_, id))) => Ok(Some((*n, id.clone()))),
            None => self.store.newest_of(key, sender, after, upto),
        }
    }

    /// How many messages of `sender` in `chat` lie behind `after`; counting ends about `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn count_of(&mut self, key: &ChatKey, sender: &UserId, after: N, limit: u64) -> Result<u64, StoreError> {
        let recent = self.chat(key)?.recent.range(after + 1..).filter(|(_, (from, _))| from == sender).count() as u64;
        if recent >= limit { Ok(recent) } else { Ok(recent + self.store.count_of(key, sender, after, limit)?) }
    }

    /// A message that stays readable for a user beyond the inbox.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn kept(&mut self, user: &UserId, chat: &ChatKey, n: N) -> Result<Option<Arc<Message>>, StoreError> {
        match self.kept.get(&(user.clone(), chat.clone(), n)) {
            Some(message) => Ok(Some(Arc::clone(message))),
            None => self.store.kept(user, chat, n),
        }
    }

    /// What an account is beside its inbox; that of a user who has nothing of it, or is not there, is empty.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn account(&mut self, user: &UserId) -> Result<Account, StoreError> {
        match self.accounts.get(user) {
            Some(account) => Ok(account.clone()),
            None => self.store.account(user),
        }
    }

    /// A stored session.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn session(&mut self, user: &UserId, client_id: &str) -> Result<Option<Session>, StoreError> {
        match self.sessions.get(&(user.clone(), client_id.to_owned())) {
            Some(session) => Ok(session.clone()),
            None => self.store.session(user, client_id),
        }
    }

    /// Every stored session of a user.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn sessions(&mut self, user: &UserId) -> Result<Vec<(String, Session)>, StoreError> {
        let mut all: BTreeMap<String, Session> = self.store.sessions(user)?.into_iter().collect();
        for ((owner, client_id), session) in self.sessions.iter() {
            if owner == user {
                match session {
                    Some(session) => all.insert(client_id.clone(), session.clone()),
                    None => all.remove(client_id),
                };
            }
        }
        Ok(all.into_iter().collect())
    }

    /// A file.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn media(&mut self, id: &MediaId) -> Result<Option<MediaFile>, StoreError> {
        match self.media.get(id) {
            Some(file) => Ok(file.clone()),
            None => self.store.media(id),
        }
    }

    /// Whether a message with the file was sent to `user`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn has_media_grant(&mut self, user: &UserId, id: &MediaId) -> Result<bool, StoreError> {
        if self.media_grants.get(id).is_some_and(|users| users.contains(user)) {
            return Ok(true);
        }
        self.store.has_media_grant(user, id)
    }

    /// What `owner` has uploaded and not deleted.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn media_use(&mut self, owner: &UserId) -> Result<MediaUse, StoreError> {
        let mut sum = self.store.media_use(owner)?;
        for (id, file) in self.media.iter() {
            let stored = self.store.media(id)?;
            for file in stored.iter().filter(|file| file.owner == *owner) {
                sum.files = sum.files.saturating_sub(1);
                sum.bytes = sum.bytes.saturating_sub(file.size);
            }
            for file in file.iter().filter(|file| file.owner == *owner) {
                sum.files += 1;
                sum.bytes += file.size;
            }
        }
        Ok(sum)
    }

    /// The files called `name` that `user` may read, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn find_media(&mut self, user: &UserId, name: &str, limit: usize) -> Result<Vec<MediaFile>, StoreError> {
        let mut ids: BTreeSet<MediaId> =
            self.store.find_media(user, name, limit + self.media.len())?.into_iter().map(|file| file.id).collect();
        ids.extend(self.media.iter().map(|(id, _)| id.clone()));
        ids.extend(self.media_grants.iter().filter(|(_, users)| users.contains(user)).map(|(id, _)| id.clone()));
        let mut found = Vec::new();
        for id in ids {
            if let Some(file) = self.media(&id)?
                && file.name.as_deref() == Some(name)
                && (file.owner == *user || self.has_media_grant(user, &id)?)
            {
                found.push(file);
            }
        }
        found.sort_by(|a, b| (b.made_at, &b.id).cmp(&(a.made_at, &a.id)));
        found.truncate(limit);
        Ok(found)
    }

    /// At most `limit` files whose time was over before `now`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn expired_media(&mut self, now: u64, limit: usize) -> Result<Vec<MediaFile>, StoreError> {
        let mut expired = self.store.expired_media(now, limit)?;
        // What was decided since counts.
        expired.retain(|file| self.media.get(&file.id).is_none());
        Ok(expired)
    }

    /// Where the first device starts, in entries and in bytes: before the oldest row that the inbox still holds, or behind the newest.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn start(&mut self, id: &UserId) -> Result<(Seq, u64), StoreError> {
        let user = self.user(id)?;
        let (floor, settled, stored) = (user.floor(), user.settled_seq, user.stored);
        let oldest =
            user.rows.first_key_value().map(|(seq, row)| (seq - 1, row.offset.saturating_sub(row.item.bytes())));
        let in_memory = oldest.unwrap_or((user.last_seq, user.last_offset));
        let in_store = if stored { self.store.inbox_places(id, floor, settled, 1)? } else { Vec::new() };
        Ok(in_store.first().map_or(in_memory, before))
    }

    /// At most `limit` rows behind `after`, in order; some may be meant for other devices. From memory where memory has them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn page(&mut self, id: &UserId, after: Seq, limit: usize) -> Result<Vec<(Seq, Row)>, StoreError> {
        let user = self.user(id)?;
        let after = after.max(user.floor());
        let settled = user.settled_seq;
        let mut rows = Vec::new();
        if user.stored && after < settled {
            rows = self.store.inbox(id, after, limit)?;
            rows.retain(|(seq, _)| *seq <= settled);
        }
        if rows.len() < limit {
            let from = after.max(settled) + 1;
            let user = self.user(id)?;
            rows.extend(user.rows.range(from..).take(limit - rows.len()).map(|(seq, row)| (*seq, row.clone())));
        }
        Ok(rows)
    }

    /// Takes one fact in.
    ///
    /// # Errors
    /// When the store cannot be read. The state is of no use then, and must be recovered.
    pub fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        self.pin(change)?;
        match change {
            Change::User { user } => self.user(user)?.known = true,
            Change::Device { user, device, cursor, offset, at } => {
                let row = DeviceRow { cursor: *cursor, skipped: 0, offset: *offset, active_at: *at };
                self.user(user)?.devices.insert(device.clone(), row);
            }
            Change::DeviceGone { user, device, cursor } => {
                let user = self.user(user)?;
                user.devices.remove(device);
                user.bury(*cursor, Seq::MAX - 1);
            }
            Change::DeviceSeen { user, device, at } => {
                if let Some(row) = self.user(user)?.devices.get_mut(device) {
                    row.active_at = row.active_at.max(*at);
                }
            }
            Change::Message { message, hash, at, grant, places } => {
                if message.chat.is_status() {
                    let status = Status::new(Arc::clone(message), *at, granted(grant.as_deref()), places);
                    self.statuses.put((message.chat.clone(), message.n), Some(Arc::new(status)));
                } else if let Some(media) = granted(grant.as_deref()) {
                    let users = places.iter().map(|place| place.user.clone());
                    self.media_grants.entry(media).or_default().extend(users);
                }
                let accepted = Accepted {
                    chat: message.chat.clone(),
                    n: message.n,
                    timestamp: message.timestamp,
                    hash: *hash,
                    until: at + DEDUPE_SECS,
                };
                let chat = self.chat(&message.chat)?;
                chat.last_n = chat.last_n.max(message.n);
                chat.recent.insert(message.n, (message.from.clone(), message.id.clone()));
                self.accepted.entry(message.id.clone()).or_default().push((message.from.clone(), accepted));
                for place in places {
                    let row = Row {
                        at: *at,
                        offset: place.offset,
                        only: place.only.clone(),
                        except: place.except.clone(),
                        item: Item::Message(Arc::clone(message)),
                    };
                    self.user(&place.user)?.keep(place.seq, row);
                }
            }
            Change::Notice { user, seq, row } => self.user(user)?.keep(*seq, row.clone()),
            Change::Merged { user, seq, n, id, timestamp } => {
                if let Some(Row { item: Item::Receipt(receipt), .. }) = self.user(user)?.rows.get_mut(seq) {
                    receipt.n = *n;
                    receipt.id = id.clone();
                    receipt.timestamp = *timestamp;
                }
            }
            Change::Cursor { user, device, from, upto, offset } => {
                let user = self.user(user)?;
                if let Some(row) = user.devices.get_mut(device) {
                    row.cursor = row.cursor.max(*upto);
                    row.offset = row.offset.max(*offset);
                }
                user.bury(*from, *upto);
            }
            Change::Skipped { user, device, from, upto, offset } => {
                let user = self.user(user)?;
                if let Some(row) = user.devices.get_mut(device) {
                    row.skipped = row.skipped.max(*upto);
                    row.offset = row.offset.max(*offset);
                }
                user.bury(*from, *upto);
            }
            Change::Mark { chat, member, tick, n } => {
                let row = self.chat(chat)?.members.entry(member.clone()).or_default();
                match tick {
                    Tick::Delivered => row.delivered_n = row.delivered_n.max(*n),
                    Tick::Read => row.read_n = row.read_n.max(*n),
                }
            }
            Change::Dropped { user, upto, offset } => {
                let user = self.user(user)?;
                user.base = (user.base.0.max(*upto), user.base.1.max(*offset));
                user.rows = user.rows.split_off(&(upto + 1));
            }
            Change::Kept { user, message, until: _ } => {
                self.kept.insert((user.clone(), message.chat.clone(), message.n), Arc::clone(message));
            }
            Change::Session { user, client_id, session } => {
                self.sessions.put((user.clone(), client_id.clone()), Some(session.clone()));
            }
            Change::SessionGone { user, client_id } => self.sessions.put((user.clone(), client_id.clone()), None),
            Change::Revoked(revoked) => {
                self.revoked.insert(revoked.clone());
            }
            Change::Password { user, hash } => self.change_account(user, |account| account.password = hash.clone())?,
            Change::Disabled { user, disabled } => {
                if *disabled {
                    self.disabled.insert(user.clone());
                } else {
                    self.disabled.remove(user);
                }
                self.change_account(user, |account| account.disabled = *disabled)?;
            }
            Change::Webhook { user, device, webhook } => {
                let key = (user.clone(), device.clone());
                match webhook {
                    Some(webhook) => self.webhooks.insert(key, webhook.clone()),
                    None => self.webhooks.remove(&key),
                };
            }
            Change::Media(file) => self.media.put(file.id.clone(), Some(MediaFile::clone(file))),
            Change::MediaKept { id, owner: _, until } => {
                let file = self.media(id)?.map(|file| MediaFile { until: file.until.max(*until), ..file });
                self.media.put(id.clone(), file);
            }
            Change::MediaGone { id, owner: _ } => self.media.put(id.clone(), None),
            Change::Contact { user, contact, known } => {
                self.contacts.put((user.clone(), contact.clone()), known.clone());
            }
            Change::Block { user, other, since } => {
                self.user(user)?.blocks = true;
                self.blocks.put((user.clone(), other.clone()), *since);
            }
            Change::Hidden { chat, member, after, upto } => {
                self.user(member)?.hides = true;
                self.chat(chat)?.hidden.entry(member.clone()).or_default().add(*after, *upto);
            }
            Change::StatusGone { chat, n, places } => {
                self.statuses.put((chat.clone(), *n), None);
                for (user, seq) in places {
                    // Who is not in memory has nothing that is not settled.
                    if let Some(user) = self.users.get_mut(user) {
                        user.rows.remove(seq);
                    }
                }
            }
        }
        Ok(())
    }

    fn change_account(&mut self, user: &UserId, change: impl FnOnce(&mut Account)) -> Result<(), StoreError> {
        let mut account = self.account(user)?;
        change(&mut account);
        self.accounts.put(user.clone(), account);
        Ok(())
    }

    fn pin(&mut self, change: &Change) -> Result<(), StoreError> {
        for user in users_of(change) {
            self.user(user)?.pins += 1;
        }
        if let Some(chat) = chat_of(change) {
            self.chat(chat)?.pins += 1;
        }
        Ok(())
    }

    /// The counterpart of [`State::pin`], once the change is settled.
    pub(crate) fn unpin(&mut self, change: &Change) {
        for user in users_of(change) {
            if let Some(user) = self.users.get_mut(user) {
                user.pins = user.pins.saturating_sub(1);
            }
        }
        if let Some(chat) = chat_of(change).and_then(|key| self.chats.get_mut(key)) {
            chat.pins = chat.pins.saturating_sub(1);
            if let Change::Message { message, .. } = change {
                chat.recent.remove(&message.n);
            }
        }
        match change {
            Change::Message { message, grant, places, .. } => {
                if message.chat.is_status() {
                    self.statuses.unpin(&(message.chat.clone(), message.n));
                } else {
                    self.unpin_grants(grant.as_deref(), places);
                }
                if let Some(all) = self.accepted.get_mut(&message.id) {
                    all.retain(|(from, _)| *from != message.from);
                    if all.is_empty() {
                        self.accepted.remove(&message.id);
                    }
                }
            }
            Change::Session { user, client_id, .. } | Change::SessionGone { user, client_id } => {
                self.sessions.unpin(&(user.clone(), client_id.clone()));
            }
            Change::Password { user, .. } | Change::Disabled { user, .. } => self.accounts.unpin(user),
            Change::Kept { user, message, .. } => {
                self.kept.remove(&(user.clone(), message.chat.clone(), message.n));
            }
            Change::Media(file) => self.media.unpin(&file.id),
            Change::MediaKept { id, .. } | Change::MediaGone { id, .. } => self.media.unpin(id),
            Change::Contact { user, contact, .. } => self.contacts.unpin(&(user.clone(), contact.clone())),
            Change::Block { user, other, .. } => self.blocks.unpin(&(user.clone(), other.clone())),
            Change::StatusGone { chat, n, .. } => self.statuses.unpin(&(chat.clone(), *n)),
            _ => {}
        }
    }

    fn unpin_grants(&mut self, grant: Option<&str>, places: &[Place]) {
        let Some(media) = granted(grant) else { return };
        let Some(users) = self.media_grants.get_mut(&media) else { return };
        for place in places {
            if let Some(at) = users.iter().position(|user| *user == place.user) {
                users.swap_remove(at);
            }
        }
        if users.is_empty() {
            self.media_grants.remove(&media);
        }
    }

    /// Forgets what is settled and in nobody's use, if too much is held.
    pub fn trim(&mut self, in_use: impl Fn(&UserId) -> bool) {
        if self.users.len() > CACHED_MAX {
            self.users.retain(|id, user| user.pins > 0 || in_use(id));
            self.users.shrink_to(CACHED_MAX);
        }
        if self.chats.len() > CACHED_MAX {
            self.chats.retain(|_, chat| chat.pins > 0);
            self.chats.shrink_to(CACHED_MAX);
        }
    }
}

/// The position before a row. What it counts for is not read for that: a byte is enough to lie before it.
fn before(place: &InboxPlace) -> (Seq, u64) {
    (place.seq - 1, place.offset.saturating_sub(1))
}

/// The media that a message grants.
pub(crate) fn granted(grant: Option<&str>) -> Option<MediaId> {
    grant.and_then(|id| MediaId::parse(id).ok())
}

fn users_of(change: &Change) -> Vec<&UserId> {
    match change {
        Change::Message { places, .. } => places.iter().map(|place| &place.user).collect(),
        Change::User { user }
        | Change::Device { user, .. }
        | Change::DeviceGone { user, .. }
        | Change::DeviceSeen { user, .. }
        | Change::Notice { user, .. }
        | Change::Merged { user, .. }
        | Change::Cursor { user, .. }
        | Change::Skipped { user, .. }
        | Change::Block { user, .. }
        | Change::Dropped { user, .. } => vec![user],
        Change::Hidden { member, .. } => vec![member],
        Change::Mark { .. }
        | Change::Kept { .. }
        | Change::Session { .. }
        | Change::SessionGone { .. }
        | Change::Media(_)
        | Change::MediaKept { .. }
        | Change::MediaGone { .. }
        | Change::Contact { .. }
        | Change::StatusGone { .. }
        | Change::Revoked(_)
        | Change::Password { .. }
        | Change::Disabled { .. }
        | Change::Webhook { .. } => Vec::new(),
    }
}

fn chat_of(change: &Change) -> Option<&ChatKey> {
    match change {
        Change::Message { message, .. } => Some(&message.chat),
        Change::Mark { chat, .. } | Change::Hidden { chat, .. } => Some(chat),
        _ => None,
    }
}
