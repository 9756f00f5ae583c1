//! What the loop knows: everything that is not settled yet, and of the rest what was asked for lately.
//!
//! [`State::apply`] is the one function that takes a [`Change`] in: in the running server, at a start, and in tests. What a cache does not
//! hold is read from the store by its key, so memory follows what is in use and not what is stored.

mod apply;
mod known;
mod media;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use natter_protocol::planted::{self, Bug};
use natter_protocol::{DeviceId, MediaId, MessageId, N, Seq, UserId};

use crate::change::{Accepted, Account, Change, Message, Revoked, Row, Session, Webhook};
use crate::chat_key::ChatKey;
use crate::media::row::MediaFile;
use crate::overlay::Overlay;
use crate::settle::Purge;
use crate::store::{InboxPlace, Store, StoreError};

pub(crate) use apply::granted;
pub use known::{Conversation, User};

/// Users and conversations kept in memory without need; above it those that nobody uses are forgotten (and read again when asked for).
pub const CACHED_MAX: usize = 50_000;
/// Server seconds that a repeat is known after its message: the time to live of the message and 30 days more.
pub const DEDUPE_SECS: u64 = 60 * 24 * 3600;

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
    /// Places of the oldest of these rows that are settled already; the row goes with the last.
    pub(crate) settled_places: usize,
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
    pub(crate) last_seen: Overlay<UserId, u64>,
    pub(crate) privacy_lists: crate::privacy::Lists,
    pub(crate) unheard: crate::unheard::Unsettled,
    pub(crate) groups: crate::groups::known::Unsettled,
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
            settled_places: 0,
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
            last_seen: Overlay::default(),
            privacy_lists: Overlay::default(),
            unheard: Overlay::default(),
            groups: crate::groups::known::Unsettled::default(),
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
        self.settled_places = 0;
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
        self.last_seen.clear();
        self.privacy_lists.clear();
        self.unheard.clear();
        self.groups.clear();
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
                if key.is_group() {
                    chat.group = self.store.group(key)?;
                }
                for (n, redacted) in self.store.redacted(key)? {
                    chat.redacted.note(n, redacted);
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

    /// The oldest message of `sender` in `chat` with `after < n <= upto`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn oldest_of(
        &mut self,
        key: &ChatKey,
        sender: &UserId,
        after: N,
        upto: N,
    ) -> Result<Option<(N, MessageId)>, StoreError> {
        if upto <= after {
            return Ok(None);
        }
        if let Some(stored) = self.store.oldest_of(key, sender, after, upto)? {
            return Ok(Some(stored));
        }
        let recent = self.chat(key)?.recent.range(after + 1..=upto).find(|(_, (from, _))| from == sender);
        Ok(recent.map(|(n, (_, id))| (*n, id.clone())))
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
        let kept = match self.kept.get(&(user.clone(), chat.clone(), n)) {
            Some(message) => Some(Arc::clone(message)),
            None => self.store.kept(user, chat, n)?,
        };
        match kept {
            Some(message) if self.is_redacted(user, &message)? => Ok(None),
            kept => Ok(kept),
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
