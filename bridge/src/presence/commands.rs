//! The engine's side of presence: what connections ask for, who comes and goes, and what time brings.

use natter_protocol::error::{Kind, Refusal};
use natter_protocol::{Chat, ConnectionId, UserId, entry};

use super::{Bounds, Full, Shown};
use crate::change::Change;
use crate::engine::{CommitError, Engine};
use crate::sender::Ruling;
use crate::store::{Store, StoreError};

/// Users who have left and are noted in one batch; the rest comes with the next, at once.
const LEFT_A_BATCH: usize = 1000;
/// Watches that are looked at again in one batch, likewise: each costs a few reads of the store.
const LOOKS_A_BATCH: usize = 256;

impl<S: Store> Engine<S> {
    fn bounds(&self) -> Bounds {
        Bounds { watches_max: self.limits.watches_max, watchers_max: self.limits.watchers_max }
    }

    /// `watch`: the connection is told when the other side of a chat comes and goes.
    pub(crate) fn watch(&mut self, user: &UserId, connection: Option<ConnectionId>, chat: &Chat) -> Ruling<()> {
        let refused = |kind, details: String| Ok(Err(Refusal::new(kind, details)));
        let Some(connection) = connection else { return Ok(Err(no_connection("watch"))) };
        if !self.connections.contains_key(&connection) {
            // The will of one that is gone.
            return Ok(Ok(()));
        }
        let Chat::Direct(watched) = chat else {
            return refused(Kind::InvalidValue, format!("chat: expected a user, got {chat}"));
        };
        if watched == user {
            return refused(Kind::InvalidValue, format!("chat: expected another user, got {user}"));
        }
        if !self.state.user(watched)?.known {
            return refused(Kind::UnknownRecipient, format!("chat: expected a user of this server, got {watched}"));
        }
        let sight = self.state.sight(user, watched)?;
        let (is, bounds) = (self.is_as(watched)?, self.bounds());
        match self.presence.watch(connection, user, watched, sight, is, self.now.server_secs, bounds) {
            Ok(()) => Ok(Ok(())),
            Err(Full::Watches) => {
                let limit = bounds.watches_max;
                let details =
                    format!("chat: expected at most {limit} that a connection watches, got one more: unwatch some");
                refused(Kind::Quota, details)
            }
            Err(Full::Watchers) => {
                let limit = bounds.watchers_max;
                let details =
                    format!("chat: expected at most {limit} connections that watch {watched}, got one more: try later");
                refused(Kind::Quota, details)
            }
        }
    }

    /// `unwatch`. Whom it does not watch, it watches no more.
    pub(crate) fn unwatch(&mut self, connection: Option<ConnectionId>, chat: &Chat) -> Ruling<()> {
        let Some(connection) = connection else { return Ok(Err(no_connection("unwatch"))) };
        if let Chat::Direct(watched) = chat {
            self.presence.unwatch(connection, watched);
        }
        Ok(Ok(()))
    }

    /// `available`, `unavailable`: the app is in front, or not.
    pub(crate) fn set_in_front(
        &mut self,
        user: &UserId,
        connection: Option<ConnectionId>,
        in_front: bool,
    ) -> Ruling<()> {
        let Some(connection) = connection else { return Ok(Err(no_connection("available and unavailable"))) };
        let was = self.is_here(user);
        if let Some(known) = self.connections.get_mut(&connection) {
            known.in_front = in_front;
        }
        match (was, self.is_here(user)) {
            (false, true) => self.presence.came(user, self.now.server_secs),
            (true, false) => self.presence.went(user, self.now.server_secs, self.now.unix_secs),
            _ => {}
        }
        Ok(Ok(()))
    }

    /// The other side of the chat sees that somebody types.
    pub(crate) fn typing(&mut self, user: &UserId, chat: &Chat) -> Result<(), StoreError> {
        if let Chat::Direct(other) = chat
            && other != user
            && (self.readers.contains_key(other) || self.viewers.contains_key(other))
            && !self.state.is_cut_off(user, other)?
            && self.typing.goes_out(user, other, self.now.server_secs)
        {
            self.hint(other, &entry::typing(user, &Chat::Direct(user.clone())));
        }
        Ok(())
    }

    /// Whether a connection of the user reads his inbox with the app in front.
    fn is_here(&self, user: &UserId) -> bool {
        let readers = self.readers.get(user).into_iter().flatten().map(|reader| reader.connection);
        let viewers = self.viewers.get(user).into_iter().flatten().map(|viewer| viewer.connection);
        readers.chain(viewers).any(|id| self.is_in_front(id))
    }

    fn is_in_front(&self, connection: ConnectionId) -> bool {
        self.connections.get(&connection).is_some_and(|known| known.in_front)
    }

    /// How a user is, whoever may see it.
    pub(super) fn is_as(&mut self, user: &UserId) -> Result<Shown, StoreError> {
        let available = self.is_here(user) || self.presence.is_leaving(user);
        Ok(Shown { available, last_seen: self.state.last_seen(user)? })
    }

    /// A connection reads its user's inbox from now on.
    pub(crate) fn began_to_read(&mut self, user: &UserId, connection: ConnectionId) {
        if self.is_in_front(connection) {
            self.presence.came(user, self.now.server_secs);
        }
        self.presence.began(connection, self.now.server_secs);
    }

    /// And no more.
    pub(crate) fn ended_to_read(&mut self, user: &UserId, connection: ConnectionId) {
        if self.is_in_front(connection) && !self.is_here(user) {
            self.presence.went(user, self.now.server_secs, self.now.unix_secs);
        }
    }

    /// What time and others' changes have brought: who has left long enough is away, and who may see what is looked at again. Changes join the
    /// batch, whoever's it is: nobody waits for a commit of theirs.
    ///
    /// # Errors
    /// As [`Engine::handle`].
    pub fn look_around(&mut self) -> Result<(), StoreError> {
        let now = self.now.server_secs;
        for _ in 0..LEFT_A_BATCH {
            let Some((user, at)) = self.presence.next_left(Some(now)) else { break };
            self.change(Change::LastSeen { user, at })?;
        }
        let bounds = self.bounds();
        for _ in 0..LOOKS_A_BATCH {
            let Some((connection, watcher, watched)) = self.presence.next_unseen() else { break };
            let sight = self.state.sight(&watcher, &watched)?;
            self.presence.saw(connection, &watched, sight, now, bounds);
        }
        Ok(())
    }

    /// Commits when those were there last who are leaving: the server ends.
    ///
    /// # Errors
    /// As [`Engine::commit`].
    pub fn say_goodbye(&mut self) -> Result<(), CommitError> {
        while let Some((user, at)) = self.presence.next_left(None) {
            self.change(Change::LastSeen { user, at })?;
        }
        self.commit()
    }

    /// A batch is given up, and every connection with it: nobody watches any more, and who was there has left.
    pub(crate) fn give_up_presence(&mut self) {
        let (now, unix) = (self.now.server_secs, self.now.unix_secs);
        let here: Vec<UserId> =
            self.readers.keys().chain(self.viewers.keys()).filter(|user| self.is_here(user)).cloned().collect();
        self.hints.clear();
        self.presence.clear_watches();
        for user in here {
            self.presence.went(&user, now, unix);
        }
        for change in self.lost_changes() {
            if let Change::LastSeen { user, at } = change {
                self.presence.went(&user, now, at);
            }
        }
    }
}

fn no_connection(what: &str) -> Refusal {
    let details =
        format!("status: expected {what} on a connection over MQTT, got it over HTTP: GET /v1/presence tells once");
    Refusal::new(Kind::InvalidValue, details)
}
