//! Who is told when somebody comes and goes. Pure: what a watcher may see, who is there, and time are passed in.
//!
//! A user is *available* while a device of his reads its inbox with the app in front, and [`LINGER_SECS`] longer: a reconnect shows
//! nothing. A connection *watches* other users. What it is told is what its user may see ([`Sight`]) of how they are ([`Shown`]): at once when
//! it begins to watch, and then every change, at most one a server second of each; the last one wins, and is told. Who is not watched has
//! nothing here, but for the seconds in which he leaves.
//!
//! - this file knows who watches whom and what they were told, `told` what that is · [`typing`] holds hints back
//! - `commands` is the engine's side, `live` what it says without a place in an inbox · [`ask`] what HTTP asks

pub mod ask;
mod commands;
mod live;
mod told;
pub mod typing;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use natter_protocol::{ConnectionId, UserId};

pub(crate) use live::Sent;
pub use told::{Bounds, Full, Shown, Sight, Takes, Told};

/// Server seconds that somebody is available still who has left.
pub const LINGER_SECS: u64 = 10;
/// Server seconds between two presences of the same user for the same connection.
const REST_SECS: u64 = 1;

/// See the module.
#[derive(Debug, Default)]
pub struct Presence {
    /// Who has left, and when: server second and Unix second.
    leaving: HashMap<UserId, (u64, u64)>,
    /// The same by server second.
    leaving_in_order: BTreeSet<(u64, UserId)>,
    watching: HashMap<ConnectionId, Watching>,
    connections: HashMap<UserId, BTreeSet<ConnectionId>>,
    watched: HashMap<UserId, Watched>,
    /// What may have to be told, and from which server second on.
    due: BTreeSet<(u64, ConnectionId, UserId)>,
    /// Of whom it must be looked again what they may see.
    unseen: BTreeSet<(ConnectionId, UserId)>,
    watches: usize,
}

/// A connection that watches somebody.
#[derive(Debug)]
struct Watching {
    user: UserId,
    watched: BTreeSet<UserId>,
}

/// A user whom somebody watches.
#[derive(Debug, Default)]
struct Watched {
    is: Shown,
    watchers: BTreeMap<ConnectionId, Watcher>,
    /// Of them, those who see something.
    seeing: usize,
    /// And those who could, were there a place.
    waiting: usize,
}

#[derive(Debug)]
struct Watcher {
    /// `None`: it must be looked again; nothing is told meanwhile.
    sight: Option<Sight>,
    /// Whether it counts as one who sees something.
    counts: bool,
    /// Or waits for a place to.
    waits: bool,
    /// What it was told last.
    told: Option<Shown>,
    told_at: Option<u64>,
    due: Option<u64>,
}

impl Presence {
    /// A connection of `watcher` watches `watched` from now on, who is as `is`. Whoever watches already is told again.
    ///
    /// # Errors
    /// Which bound is reached; nothing has changed then.
    #[expect(clippy::too_many_arguments, reason = "who, whom, what he may see, and when")]
    pub fn watch(
        &mut self,
        connection: ConnectionId,
        watcher: &UserId,
        watched: &UserId,
        sight: Sight,
        is: Shown,
        now: u64,
        bounds: Bounds,
    ) -> Result<(), Full> {
        let known = self.watched.get_mut(watched).and_then(|known| known.watchers.get_mut(&connection));
        if let Some(known) = known {
            known.told = None;
            self.make_due(connection, watched, now);
            return Ok(());
        }
        if self.watching.get(&connection).is_some_and(|known| known.watched.len() >= bounds.watches_max) {
            return Err(Full::Watches);
        }
        let counts = sight != Sight::NONE;
        if counts && self.watched.get(watched).is_some_and(|known| known.seeing >= bounds.watchers_max) {
            return Err(Full::Watchers);
        }
        let known = self.watched.entry(watched.clone()).or_insert_with(|| Watched { is, ..Watched::default() });
        known.seeing += usize::from(counts);
        let new = Watcher { sight: Some(sight), counts, waits: false, told: None, told_at: None, due: None };
        known.watchers.insert(connection, new);
        self.watches += 1;
        let watching = self
            .watching
            .entry(connection)
            .or_insert_with(|| Watching { user: watcher.clone(), watched: BTreeSet::new() });
        watching.watched.insert(watched.clone());
        self.connections.entry(watcher.clone()).or_default().insert(connection);
        self.make_due(connection, watched, now);
        Ok(())
    }

    /// And no more.
    pub fn unwatch(&mut self, connection: ConnectionId, watched: &UserId) {
        let Some(watching) = self.watching.get_mut(&connection) else { return };
        if watching.watched.remove(watched) {
            let is_last = watching.watched.is_empty();
            self.forget(connection, watched);
            if is_last {
                self.closed(connection);
            }
        }
    }

    /// A connection is no more, and neither is what it watched.
    pub fn closed(&mut self, connection: ConnectionId) {
        let Some(Watching { user, watched }) = self.watching.remove(&connection) else { return };
        for watched in watched {
            self.forget(connection, &watched);
        }
        if let Some(all) = self.connections.get_mut(&user) {
            all.remove(&connection);
            if all.is_empty() {
                self.connections.remove(&user);
            }
        }
    }

    fn forget(&mut self, connection: ConnectionId, watched: &UserId) {
        self.unseen.remove(&(connection, watched.clone()));
        let Some(known) = self.watched.get_mut(watched) else { return };
        if let Some(watcher) = known.watchers.remove(&connection) {
            self.watches -= 1;
            known.seeing -= usize::from(watcher.counts);
            known.waiting -= usize::from(watcher.waits);
            if let Some(at) = watcher.due {
                self.due.remove(&(at, connection, watched.clone()));
            }
        }
        if known.watchers.is_empty() {
            self.watched.remove(watched);
        } else {
            self.let_one_more_see(watched);
        }
    }

    /// A place may be free: the first one who waits for it is looked at again.
    fn let_one_more_see(&mut self, watched: &UserId) {
        let Some(known) = self.watched.get_mut(watched).filter(|known| known.waiting > 0) else { return };
        if let Some((connection, watcher)) = known.watchers.iter_mut().find(|(_, watcher)| watcher.waits) {
            watcher.sight = None;
            self.unseen.insert((*connection, watched.clone()));
        }
    }

    /// How many watches there are.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.watches
    }

    /// Whether `user` has left and is available still.
    #[must_use]
    pub fn is_leaving(&self, user: &UserId) -> bool {
        self.leaving.contains_key(user)
    }

    /// A device of `user` is there.
    pub fn came(&mut self, user: &UserId, now: u64) {
        if let Some((at, _)) = self.leaving.remove(user) {
            self.leaving_in_order.remove(&(at, user.clone()));
        }
        if let Some(known) = self.watched.get_mut(user).filter(|known| !known.is.available) {
            known.is.available = true;
            self.tell_all(user, now);
        }
    }

    /// No device of `user` is there any more.
    pub fn went(&mut self, user: &UserId, now: u64, unix: u64) {
        if let Some((before, _)) = self.leaving.insert(user.clone(), (now, unix)) {
            self.leaving_in_order.remove(&(before, user.clone()));
        }
        self.leaving_in_order.insert((now, user.clone()));
    }

    /// The next one who is away now, and the Unix second at which he left; `now` is `None` at the end of everything, when all are.
    pub fn next_left(&mut self, now: Option<u64>) -> Option<(UserId, u64)> {
        let (at, _) = self.leaving_in_order.first()?;
        if now.is_some_and(|now| at.saturating_add(LINGER_SECS) > now) {
            return None;
        }
        let (at, user) = self.leaving_in_order.pop_first()?;
        let (_, unix) = self.leaving.remove(&user)?;
        if let Some(known) = self.watched.get_mut(&user) {
            known.is = Shown { available: false, last_seen: known.is.last_seen.max(Some(unix)) };
            self.tell_all(&user, now.unwrap_or(at));
        }
        Some((user, unix))
    }

    fn tell_all(&mut self, watched: &UserId, now: u64) {
        let Some(known) = self.watched.get_mut(watched) else { return };
        for (connection, watcher) in &mut known.watchers {
            // Who sees nothing has nothing to be told.
            if watcher.due.is_none() && watcher.sight != Some(Sight::NONE) {
                let at = watcher.next_at(now);
                watcher.due = Some(at);
                self.due.insert((at, *connection, watched.clone()));
            }
        }
    }

    fn make_due(&mut self, connection: ConnectionId, watched: &UserId, now: u64) {
        let watcher = self.watched.get_mut(watched).and_then(|known| known.watchers.get_mut(&connection));
        if let Some(watcher) = watcher.filter(|watcher| watcher.due.is_none()) {
            let at = watcher.next_at(now);
            watcher.due = Some(at);
            self.due.insert((at, connection, watched.clone()));
        }
    }

    /// What either of two users may see of the other may have changed.
    pub fn look_again(&mut self, one: &UserId, other: &UserId) {
        for (watcher, watched) in [(one, other), (other, one)] {
            let Some(known) = self.watched.get_mut(watched) else { continue };
            for connection in self.connections.get(watcher).into_iter().flatten() {
                if let Some(watcher) = known.watchers.get_mut(connection) {
                    watcher.sight = None;
                    self.unseen.insert((*connection, watched.clone()));
                }
            }
        }
    }

    /// What anybody may see of `user`, or he of anybody, may have changed.
    pub fn look_again_at(&mut self, user: &UserId) {
        if let Some(known) = self.watched.get_mut(user) {
            for (connection, watcher) in &mut known.watchers {
                watcher.sight = None;
                self.unseen.insert((*connection, user.clone()));
            }
        }
        for connection in self.connections.get(user).into_iter().flatten() {
            for watched in self.watching.get(connection).into_iter().flat_map(|watching| &watching.watched) {
                let known = self.watched.get_mut(watched);
                if let Some(watcher) = known.and_then(|known| known.watchers.get_mut(connection)) {
                    watcher.sight = None;
                    self.unseen.insert((*connection, watched.clone()));
                }
            }
        }
    }

    /// The next one of whom it must be looked what he may see: connection, its user, whom he watches. [`Presence::saw`] says it.
    pub fn next_unseen(&mut self) -> Option<(ConnectionId, UserId, UserId)> {
        while let Some((connection, watched)) = self.unseen.pop_first() {
            if let Some(watching) = self.watching.get(&connection) {
                return Some((connection, watching.user.clone(), watched));
            }
        }
        None
    }

    /// What a watcher may see from now on. Where there is no place for one more who sees, he waits for one.
    pub fn saw(&mut self, connection: ConnectionId, watched: &UserId, sight: Sight, now: u64, bounds: Bounds) {
        let Some(known) = self.watched.get_mut(watched) else { return };
        let Some(watcher) = known.watchers.get_mut(&connection) else { return };
        let (others, waiting) =
            (known.seeing - usize::from(watcher.counts), known.waiting - usize::from(watcher.waits));
        let counts = sight != Sight::NONE && others < bounds.watchers_max;
        let waits = sight != Sight::NONE && !counts;
        let is_free = watcher.counts && !counts;
        (known.seeing, known.waiting) = (others + usize::from(counts), waiting + usize::from(waits));
        (watcher.counts, watcher.waits) = (counts, waits);
        watcher.sight = Some(if counts { sight } else { Sight::NONE });
        self.make_due(connection, watched, now);
        if is_free {
            self.let_one_more_see(watched);
        }
    }

    /// A connection reads an inbox from now on: it is told what it was not yet.
    pub fn began(&mut self, connection: ConnectionId, now: u64) {
        let Some(watching) = self.watching.get(&connection) else { return };
        for watched in watching.watched.clone() {
            self.make_due(connection, &watched, now);
        }
    }

    /// The next presence to tell, if there is one. Who cannot take it now is told a second later, if it is true then.
    pub fn next_told(&mut self, now: u64, takes: impl Fn(ConnectionId, &UserId) -> Takes) -> Option<Told> {
        loop {
            if self.due.first()?.0 > now {
                return None;
            }
            let (_, connection, user) = self.due.pop_first()?;
            let Some(watching) = self.watching.get(&connection) else { continue };
            let Some(known) = self.watched.get_mut(&user) else { continue };
            let Some(watcher) = known.watchers.get_mut(&connection) else { continue };
            watcher.due = None;
            // Once it is known what he may see, it is due again.
            let Some(sight) = watcher.sight else { continue };
            let shown = sight.of(known.is);
            if watcher.told == Some(shown) {
                continue;
            }
            match takes(connection, &watching.user) {
                Takes::Now => {}
                Takes::Later => {
                    watcher.due = Some(now + REST_SECS);
                    self.due.insert((now + REST_SECS, connection, user));
                    continue;
                }
                Takes::Nothing => continue,
            }
            watcher.told = Some(shown);
            watcher.told_at = Some(now);
            return Some(Told { connection, watcher: watching.user.clone(), watched: user, shown });
        }
    }

    /// Whether nothing is to be told at this server second.
    #[must_use]
    pub fn is_quiet(&self, now: u64) -> bool {
        self.due.first().is_none_or(|(at, ..)| *at > now)
    }

    /// Whether somebody is to be looked at, or has left long enough.
    #[must_use]
    pub fn is_behind(&self, now: u64) -> bool {
        !self.unseen.is_empty()
            || self.leaving_in_order.first().is_some_and(|(at, _)| at.saturating_add(LINGER_SECS) <= now)
    }

    /// Everybody who watches is gone, as when all connections are closed.
    pub fn clear_watches(&mut self) {
        self.watching.clear();
        self.connections.clear();
        self.watched.clear();
        self.due.clear();
        self.unseen.clear();
        self.watches = 0;
    }
}

impl Watcher {
    fn next_at(&self, now: u64) -> u64 {
        self.told_at.map_or(now, |at| now.max(at + REST_SECS))
    }
}

#[cfg(test)]
mod tests;
