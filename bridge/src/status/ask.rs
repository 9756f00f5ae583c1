//! What is asked about statuses, from HTTP: lists, viewers, deletion.

use bytes::Bytes;
use natter_protocol::{Chat, DeviceId, MessageId, N, UserId, entry};

use super::Status;
use crate::change::Tick;
use crate::chat_key::ChatKey;
use crate::engine::{Engine, Reply, Request};
use crate::recipient::whole;
use crate::store::{Store, StoreError};
use crate::{Error, Handle};

/// Statuses that one answer lists.
pub const STATUSES_A_PAGE: usize = 10;
/// Viewers that one answer lists.
pub const VIEWERS_A_PAGE: usize = 1000;

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The statuses of `from` that are shown to `user`, or his own, behind number `after`.
    List {
        /// Who asks.
        user: UserId,
        /// Whose.
        from: UserId,
        /// Behind this number.
        after: N,
    },
    /// Who has got and seen an own status, behind a name.
    Viewers {
        /// Whose status.
        user: UserId,
        /// Which.
        id: MessageId,
        /// Behind this name.
        after: Option<UserId>,
    },
    /// Takes an own status back.
    Delete {
        /// Whose.
        user: UserId,
        /// By which of his devices: the others are told.
        device: DeviceId,
        /// Which.
        id: MessageId,
    },
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Statuses, oldest first, and whether there are more.
    List(Vec<Listed>, bool),
    /// Viewers; `None`: there is no such status.
    Viewers(Option<Viewers>),
    /// Whether it was there, now or before.
    Deleted(bool),
}

/// A status as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its number.
    pub n: N,
    /// Its entry, without `seq` and `prev`.
    pub entry: Bytes,
    /// Unix second of its end, about.
    pub expires: u64,
    /// Who was given it, who has it, who has seen it: for its poster.
    pub counts: Option<(usize, usize, usize)>,
}

/// A page of those who have a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewers {
    /// How many were given it.
    pub audience: usize,
    /// Who has it, and whether he has seen it, in order of names.
    pub viewers: Vec<(UserId, Tick)>,
    /// The name to go on behind, if there may be more.
    pub next: Option<UserId>,
}

impl<S: Store> Engine<S> {
    pub(crate) fn status_question(&mut self, ask: Ask) -> Result<Told, StoreError> {
        match ask {
            Ask::List { user, from, after } => self.list_statuses(&user, &from, after),
            Ask::Viewers { user, id, after } => Ok(Told::Viewers(self.viewers_of(&user, &id, after)?)),
            Ask::Delete { user, device, id } => Ok(Told::Deleted(self.delete_status(&user, &device, &id)?)),
        }
    }

    fn list_statuses(&mut self, user: &UserId, from: &UserId, after: N) -> Result<Told, StoreError> {
        let chat = ChatKey::new(from, &Chat::Status);
        let now = self.now;
        let mut listed = Vec::new();
        for n in self.state.live_statuses(&chat, now.server_secs)?.into_iter().filter(|n| *n > after) {
            let Some(status) = self.state.status(&chat, n)? else { continue };
            if user != from && !self.state.is_shown(user, &status, now.server_secs)? {
                continue;
            }
            if listed.len() == STATUSES_A_PAGE {
                return Ok(Told::List(listed, true));
            }
            let Some(tail) = whole(user, &status.message) else { continue };
            let counts = if user == from { Some(self.counts(&status)?) } else { None };
            let expires = now.unix_secs.saturating_add(status.until.saturating_sub(now.server_secs));
            listed.push(Listed { n, entry: entry::live(&tail).into(), expires, counts });
        }
        Ok(Told::List(listed, false))
    }

    fn counts(&mut self, status: &Status) -> Result<(usize, usize, usize), StoreError> {
        let (n, chat) = (status.message.n, self.state.chat(&status.message.chat)?);
        let had =
            |tick| status.audience().filter(|(user, _)| chat.mark(user, tick) >= n && !chat.is_hidden(user, n)).count();
        Ok((status.audience().count(), had(Tick::Delivered), had(Tick::Read)))
    }

    fn viewers_of(
        &mut self,
        user: &UserId,
        id: &MessageId,
        after: Option<UserId>,
    ) -> Result<Option<Viewers>, StoreError> {
        let chat = ChatKey::new(user, &Chat::Status);
        let Some(accepted) = self.state.accepted(id, user)?.filter(|accepted| accepted.chat == chat) else {
            return Ok(None);
        };
        let Some(status) = self.state.status(&chat, accepted.n)?.filter(|s| s.until > self.now.server_secs) else {
            return Ok(None);
        };
        let marks = self.state.chat(&chat)?;
        let has = |user: &UserId| {
            let ticks = [Tick::Read, Tick::Delivered];
            let had = |tick: &Tick| marks.mark(user, *tick) >= accepted.n && !marks.is_hidden(user, accepted.n);
            ticks.into_iter().find(had)
        };
        let behind = status.audience().map(|(user, _)| user).filter(|user| after.as_ref().is_none_or(|a| *user > a));
        let mut viewers: Vec<(UserId, Tick)> =
            behind.filter_map(|user| Some((user.clone(), has(user)?))).take(VIEWERS_A_PAGE + 1).collect();
        let is_cut = viewers.len() > VIEWERS_A_PAGE;
        viewers.truncate(VIEWERS_A_PAGE);
        let next = if is_cut { viewers.last().map(|(user, _)| user.clone()) } else { None };
        Ok(Some(Viewers { audience: status.audience().count(), viewers, next }))
    }
}

impl Handle {
    /// Asks about statuses; what changes is answered after the commit.
    ///
    /// # Errors
    /// When the loop has ended or the commit fails.
    pub async fn status(&self, ask: Ask) -> Result<Told, Error> {
        match self.reply(Request::Status(ask)).await? {
            Reply::Status(told) => Ok(told),
            _ => Err(Error::Ended),
        }
    }
}
