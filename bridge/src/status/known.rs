//! What the loop knows of statuses: those that are not settled from memory, the others from the store by their keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use natter_protocol::{MediaId, N, Seq, UserId};

use super::{STATUS_SECS, Status};
use crate::change::{Item, Message, Row};
use crate::chat_key::ChatKey;
use crate::overlay::Overlay;
use crate::state::State;
use crate::store::{Store, StoreError};

/// Statuses with the same file that are looked through for one reader: the newest.
const WITH_MEDIA_MAX: usize = 100;

/// Statuses that are not settled, or not settled as being gone.
pub(crate) type Unsettled = Overlay<(ChatKey, N), Option<Arc<Status>>>;

impl<S: Store> State<S> {
    /// A status, if it is kept; it may be over.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn status(&mut self, chat: &ChatKey, n: N) -> Result<Option<Arc<Status>>, StoreError> {
        match self.statuses.get(&(chat.clone(), n)) {
            Some(status) => Ok(status.clone()),
            None => Ok(self.store.status(chat, n)?.map(Arc::new)),
        }
    }

    /// The numbers of a poster's statuses that are shown at a server second, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn live_statuses(&mut self, chat: &ChatKey, now: u64) -> Result<Vec<N>, StoreError> {
        let stored = self.store.status_times(chat)?;
        let mut live: BTreeSet<N> = stored.into_iter().filter(|(_, until)| *until > now).map(|(n, _)| n).collect();
        for ((_, n), status) in self.statuses.range((chat.clone(), 0)..=(chat.clone(), N::MAX)) {
            match status {
                Some(status) if status.until > now => live.insert(*n),
                _ => live.remove(n),
            };
        }
        Ok(live.into_iter().collect())
    }

    /// At most `limit` settled statuses whose time is over; some may have ended already.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn statuses_over(&mut self, now: u64, limit: usize) -> Result<Vec<(ChatKey, N)>, StoreError> {
        self.store.statuses_over(now, limit)
    }

    fn statuses_with(&mut self, media: &MediaId) -> Result<Vec<Arc<Status>>, StoreError> {
        let mut keys: BTreeSet<(ChatKey, N)> = self.store.statuses_with(media, WITH_MEDIA_MAX)?.into_iter().collect();
        let is_with = |status: &Option<Arc<Status>>| status.as_ref().is_some_and(|s| s.media.as_ref() == Some(media));
        keys.extend(self.statuses.iter().filter(|(_, status)| is_with(status)).map(|(key, _)| key.clone()));
        let mut found = Vec::new();
        for (chat, n) in keys {
            found.extend(self.status(&chat, n)?);
        }
        Ok(found)
    }

    /// Whether a status with the file is kept.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_in_status(&mut self, media: &MediaId) -> Result<bool, StoreError> {
        Ok(!self.statuses_with(media)?.is_empty())
    }

    /// Whether a status with the file is shown to `user` at a server second.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn has_status_grant(&mut self, user: &UserId, media: &MediaId, now: u64) -> Result<bool, StoreError> {
        for status in self.statuses_with(media)? {
            if self.is_shown(user, &status, now)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether somebody but its owner was sent a file, in a message, or a group was.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_media_shared(&mut self, id: &MediaId, owner: &UserId) -> Result<bool, StoreError> {
        let recent = self.media_grants.get(id).into_iter().flatten();
        if recent.into_iter().any(|user| user != owner) {
            return Ok(true);
        }
        Ok(self.is_in_group(id)? || self.store.is_media_shared(id, owner)?)
    }

    /// Whether an inbox row of `user` says nothing to any device of his: a message that was hidden from him or deleted, a status that
    /// is over, though the sweep has not come by, or one that was taken back a moment ago. Whatever reads rows passes it, without a word to anybody.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_silent(&mut self, user: &UserId, row: &Row, now: u64) -> Result<bool, StoreError> {
        let Item::Message(message) = &row.item else { return Ok(false) };
        if message.from != *user && self.user(user)?.hides && self.chat(&message.chat)?.is_hidden(user, message.n) {
            return Ok(true);
        }
        if !message.chat.is_status() {
            return self.is_redacted(user, message);
        }
        let is_gone = matches!(self.statuses.get(&(message.chat.clone(), message.n)), Some(None));
        Ok(is_gone || row.at.saturating_add(STATUS_SECS) <= now)
    }
    /// The positions of those rows that say nothing: [`State::is_silent`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn silent_rows(&mut self, user: &UserId, rows: &[(Seq, Row)], now: u64) -> Result<BTreeSet<Seq>, StoreError> {
        let mut silent = BTreeSet::new();
        for (seq, row) in rows {
            if self.is_silent(user, row, now)? {
                silent.insert(*seq);
            }
        }
        Ok(silent)
    }

    /// Whether a status is shown to `user` at a server second: he was given it, and neither has blocked the other, then or since.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_shown(&mut self, user: &UserId, status: &Status, now: u64) -> Result<bool, StoreError> {
        let Message { chat, n, from, .. } = &*status.message;
        Ok(status.until > now
            && status.is_for(user)
            && !self.chat(chat)?.is_hidden(user, *n)
            && !self.is_cut_off(user, from)?)
    }
}
