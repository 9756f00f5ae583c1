//! What the loop knows of groups beside their conversations: what is not settled of who is in which, of invite links, and of files.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use natter_protocol::{MediaId, MessageId, N, UserId};

use crate::change::Message;
use crate::chat_key::ChatKey;
use crate::overlay::Overlay;
use crate::state::State;
use crate::store::{Store, StoreError};

/// What is not settled.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    /// Whether a user is in a group.
    pub(crate) is_in: Overlay<(UserId, ChatKey), bool>,
    /// What a code invites to.
    pub(crate) invites: Overlay<Arc<str>, Option<ChatKey>>,
    /// In which messages of groups a file is: once a message.
    media: HashMap<MediaId, Vec<(ChatKey, N)>>,
}

impl Unsettled {
    pub(crate) fn clear(&mut self) {
        self.is_in.clear();
        self.invites.clear();
        self.media.clear();
    }

    /// A message brought a file to a group.
    pub(crate) fn grant(&mut self, message: &Message, media: Option<MediaId>) {
        if let Some(media) = media {
            self.media.entry(media).or_default().push((message.chat.clone(), message.n));
        }
    }

    /// And is settled.
    pub(crate) fn ungrant(&mut self, message: &Message, media: Option<MediaId>) {
        let Some(media) = media else { return };
        let Some(places) = self.media.get_mut(&media) else { return };
        places.retain(|(chat, n)| (chat, *n) != (&message.chat, message.n));
        if places.is_empty() {
            self.media.remove(&media);
        }
    }
}

impl<S: Store> State<S> {
    /// The groups that a user is in, behind a name, in order, at most `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn groups_of(
        &mut self,
        user: &UserId,
        after: Option<&ChatKey>,
        limit: usize,
    ) -> Result<Vec<ChatKey>, StoreError> {
        let mine = self.groups.is_in.iter().filter(|((of, chat), _)| of == user && after.is_none_or(|a| chat > a));
        let recent: Vec<(ChatKey, bool)> = mine.map(|((_, chat), is_in)| (chat.clone(), *is_in)).collect();
        let mut all: BTreeSet<ChatKey> = self.store.groups_of(user, after, limit + recent.len())?.into_iter().collect();
        for (chat, is_in) in recent {
            if is_in {
                all.insert(chat);
            } else {
                all.remove(&chat);
            }
        }
        Ok(all.into_iter().take(limit).collect())
    }

    /// The group that a code invites to.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn invited_by(&mut self, code: &str) -> Result<Option<ChatKey>, StoreError> {
        match self.groups.invites.get(code) {
            Some(chat) => Ok(chat.clone()),
            None => self.store.invited_by(code),
        }
    }

    /// Whether a file was sent to a group that `user` is in, after he joined.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn has_group_grant(&mut self, user: &UserId, media: &MediaId) -> Result<bool, StoreError> {
        let mut places = self.groups.media.get(media).cloned().unwrap_or_default();
        // Where his standing is not settled the store does not know it. What is hidden from him lies before he joined, so the newest decides.
        let standings = self.groups.is_in.iter().filter(|((of, _), _)| of == user);
        let standings: Vec<(ChatKey, bool)> = standings.map(|((_, chat), is_in)| (chat.clone(), *is_in)).collect();
        let limit = standings.len() + 1;
        for (chat, _) in standings.into_iter().filter(|(_, is_in)| *is_in) {
            places.extend(self.store.newest_with(media, &chat)?.map(|n| (chat, n)));
        }
        // One more than may be untrue by now.
        places.extend(self.store.groups_open_with(user, media, limit)?);
        for (chat, n) in places {
            if self.chat(&chat)?.is_his(user, n) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a file was sent to a group.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_in_group(&mut self, media: &MediaId) -> Result<bool, StoreError> {
        Ok(self.groups.media.contains_key(media) || !self.store.groups_with(media, 1)?.is_empty())
    }

    /// The messages of a conversation with `after < n <= upto`: their numbers, senders and ids, the newest first, at most `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn accepted_between(
        &mut self,
        chat: &ChatKey,
        after: N,
        upto: N,
        limit: usize,
    ) -> Result<Vec<(N, UserId, MessageId)>, StoreError> {
        if upto <= after {
            return Ok(Vec::new());
        }
        let recent = self.chat(chat)?.recent.range(after + 1..=upto).rev().take(limit);
        let mut found: Vec<_> = recent.map(|(n, (from, id))| (*n, from.clone(), id.clone())).collect();
        // What is not settled is newer than what is.
        let upto = found.last().map_or(upto, |(n, _, _)| n - 1);
        if found.len() < limit {
            found.extend(self.store.accepted_between(chat, after, upto, limit - found.len())?);
        }
        Ok(found)
    }
}
