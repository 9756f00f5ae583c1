//! All connections of a door: by number, for what the bridge sends, and by client, for takeovers and revocations.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use natter_protocol::accounts::{Grant, Revocation};
use natter_protocol::ids::UserId;

use crate::config::Config;
use crate::mailbox::Mailbox;
use crate::rate::Bucket;
use crate::session::End;

/// Revocations that are remembered for those who are in the middle of connecting.
const REVOCATIONS_MAX: usize = 1024;
/// Users without a connection whose rates are remembered, beyond as many as have one. At this many, those whose rates are as good as new
/// are forgotten, which takes two seconds of rest for publishes and a minute for connects.
const IDLE_MEMBERS_MAX: usize = 1024;

/// Who a client is: a client id means something for its user only.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    pub(crate) user: UserId,
    pub(crate) client_id: String,
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_number: HashMap<u64, Arc<Mailbox>>,
    by_client: HashMap<Arc<Client>, Present>,
    members: HashMap<UserId, Member>,
    /// So many members, and those that can be are forgotten.
    members_max: usize,
    revocations: VecDeque<Revocation>,
    /// How many revocations there were in all.
    revoked: u64,
}

/// The connection of a client.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) number: u64,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) grant: Grant,
}

/// What is counted of a user.
#[derive(Debug, Default)]
struct Member {
    connections: usize,
    connects: Bucket,
    publishes: Arc<Mutex<Bucket>>,
}

/// Why a client is not let in although its token is good.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoEntry {
    /// The token was revoked while its client connected.
    Revoked,
    /// Its user has [`Config::connections_per_user_max`] connections.
    TooMany,
    /// Its user has connected more often than [`Config::connect_rate`].
    TooOften,
}

/// A client that was let in.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its earlier connection, which has been told to end: the new one must wait for it to be done.
    pub(crate) earlier: Option<Arc<Mailbox>>,
    /// What its user has published, with all connections.
    pub(crate) publishes: Arc<Mutex<Bucket>>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A socket was accepted.
    pub(crate) fn add(&self, number: u64, mailbox: Arc<Mailbox>) {
        self.lock().by_number.insert(number, mailbox);
    }

    /// The mailbox of a connection.
    pub(crate) fn mailbox(&self, number: u64) -> Option<Arc<Mailbox>> {
        self.lock().by_number.get(&number).cloned()
    }

    /// Some connection of a user: for the planted bug that answers by packet id alone.
    pub(crate) fn any_of(&self, user: &UserId) -> Option<Arc<Mailbox>> {
        let inner = self.lock();
        let found = inner.by_client.iter().find(|(client, _)| client.user == *user);
        found.map(|(_, present)| Arc::clone(&present.mailbox))
    }

    /// A mark in the row of revocations, to be taken before a token is verified.
    pub(crate) fn revocation_mark(&self) -> u64 {
        self.lock().revoked
    }

    /// A client asks to be let in; `mark` is from before its token was verified.
    pub(crate) fn enter(
        &self,
        client: Arc<Client>,
        present: Present,
        mark: u64,
        config: &Config,
        now: Instant,
    ) -> Result<Entry, NoEntry> {
        let mut inner = self.lock();
        let since = usize::try_from(inner.revoked - mark).unwrap_or(usize::MAX);
        if since > inner.revocations.len()
            || inner.revocations.iter().rev().take(since).any(|r| r.covers(&present.grant))
        {
            return Err(NoEntry::Revoked);
        }
        inner.forget_members(now);
        let is_takeover = inner.by_client.contains_key(&client);
        let member = inner.members.entry(client.user.clone()).or_default();
        if !is_takeover && member.connections >= config.connections_per_user_max {
            return Err(NoEntry::TooMany);
        }
        if !member.connects.try_take(config.connect_rate, now) {
            return Err(NoEntry::TooOften);
        }
        member.connections += usize::from(!is_takeover);
        let publishes = Arc::clone(&member.publishes);
        let earlier = inner.by_client.insert(client, present).map(|earlier| {
            earlier.mailbox.end(End::TAKEN_OVER);
            earlier.mailbox
        });
        Ok(Entry { earlier, publishes })
    }

    /// A connection has ended.
    pub(crate) fn leave(&self, number: u64, client: Option<&Arc<Client>>) {
        let mut inner = self.lock();
        inner.by_number.remove(&number);
        if let Some(client) = client
            && inner.by_client.get(client).is_some_and(|present| present.number == number)
        {
            inner.by_client.remove(client);
            if let Some(member) = inner.members.get_mut(&client.user) {
                member.connections -= 1;
            }
        }
    }

    /// Ends every connection that `revocation` covers.
    pub(crate) fn revoke(&self, revocation: &Revocation) {
        let mut inner = self.lock();
        if inner.revocations.len() == REVOCATIONS_MAX {
            inner.revocations.pop_front();
        }
        inner.revocations.push_back(revocation.clone());
        inner.revoked += 1;
        for present in inner.by_client.values() {
            if revocation.covers(&present.grant) {
                present.mailbox.end(End::REVOKED);
            }
        }
    }

    /// Ends those connections for which the most bytes wait, at most `count`; how many.
    pub(crate) fn end_hungriest(&self, count: usize) -> usize {
        let inner = self.lock();
        let mut waiting: Vec<_> = inner
            .by_number
            .values()
            .map(|mailbox| (mailbox.bytes(), mailbox))
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        waiting.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        waiting.truncate(count);
        waiting.iter().for_each(|(_, mailbox)| mailbox.cut(End::SLOW));
        waiting.len()
    }

    /// Ends every connection.
    pub(crate) fn end_all(&self, end: End) {
        for mailbox in self.lock().by_number.values() {
            mailbox.end(end);
        }
    }
}

impl Inner {
    /// Forgets users who have no connection, and of whom nothing counts any more, when there are many.
    fn forget_members(&mut self, now: Instant) {
        if self.members.len() < self.members_max.max(IDLE_MEMBERS_MAX) {
            return;
        }
        self.members.retain(|_, member| {
            let publishes = member.publishes.lock().unwrap_or_else(PoisonError::into_inner);
            member.connections > 0 || !member.connects.is_full(now) || !publishes.is_full(now)
        });
        self.members_max = 2 * self.members.len();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};
    use std::time::Duration;

    use natter_protocol::link::Down;

    use super::*;
    use crate::rate::Rate;
    use crate::testing::start;

    fn grant(jti: &str) -> Grant {
        let user = UserId::parse("alice").unwrap();
        Grant { user, device: None, expires_at: 9, jti: jti.into(), issued_at: 1 }
    }

    fn client(id: &str) -> Arc<Client> {
        Arc::new(Client { user: UserId::parse("alice").unwrap(), client_id: id.into() })
    }

    fn token(jti: &str) -> Revocation {
        Revocation::Token { user: UserId::parse("alice").unwrap(), jti: jti.into() }
    }

    fn present(number: u64, jti: &str) -> Present {
        Present { number, mailbox: Arc::new(Mailbox::new(8, 8)), grant: grant(jti) }
    }

    fn enter(registry: &Registry, id: &str, present: Present, mark: u64) -> Result<Option<Arc<Mailbox>>, NoEntry> {
        let entry = registry.enter(client(id), present, mark, &Config::default(), start())?;
        Ok(entry.earlier)
    }

    #[test]
    fn a_newer_connection_takes_over_and_an_older_one_leaves_it_alone() {
        let registry = Registry::default();
        let (old, new) = (present(1, "a"), present(3, "b"));
        let (old_box, new_box) = (Arc::clone(&old.mailbox), Arc::clone(&new.mailbox));
        assert!(enter(&registry, "c", old, 0).unwrap().is_none());
        assert!(enter(&registry, "d", present(2, "a"), 0).unwrap().is_none());
        let earlier = enter(&registry, "c", new, 0).unwrap().unwrap();
        assert!(Arc::ptr_eq(&earlier, &old_box));
        registry.leave(1, Some(&client("c")));
        let again = enter(&registry, "c", present(4, "b"), 0).unwrap().unwrap();
        assert!(Arc::ptr_eq(&again, &new_box));
    }

    #[test]
    fn a_revocation_in_the_middle_of_connecting_counts() {
        let registry = Registry::default();
        registry.revoke(&token("a"));
        let mark = registry.revocation_mark();
        assert!(enter(&registry, "c", present(1, "a"), mark).is_ok(), "verify would have seen it");
        registry.revoke(&token("b"));
        assert_eq!(enter(&registry, "c", present(2, "b"), mark).unwrap_err(), NoEntry::Revoked);
        assert!(enter(&registry, "c", present(2, "c"), mark).is_ok());
        for _ in 0..REVOCATIONS_MAX {
            registry.revoke(&token("x"));
        }
        assert_eq!(enter(&registry, "c", present(3, "c"), mark).unwrap_err(), NoEntry::Revoked, "too long ago");
    }

    #[test]
    fn a_user_has_so_many_connections_and_a_takeover_is_not_one_more() {
        let registry = Registry::default();
        let config = Config { connections_per_user_max: 2, ..Config::default() };
        let enter = |id, number| registry.enter(client(id), present(number, "a"), 0, &config, start());
        assert!(enter("c", 1).is_ok() && enter("d", 2).is_ok());
        assert_eq!(enter("e", 3).unwrap_err(), NoEntry::TooMany);
        assert!(enter("d", 4).unwrap().earlier.is_some());
        // The one that was taken over leaves: that frees nothing.
        registry.leave(2, Some(&client("d")));
        assert_eq!(enter("e", 5).unwrap_err(), NoEntry::TooMany);
        registry.leave(4, Some(&client("d")));
        assert!(enter("e", 6).is_ok());
    }

    #[test]
    fn a_takeover_loop_is_refused_and_the_last_one_in_stays() {
        let registry = Registry::default();
        let config = Config { connect_rate: Rate::per_minute(10), ..Config::default() };
        let (now, mut ended) = (start(), Vec::new());
        for number in 1..=1000 {
            match registry.enter(client("c"), present(number, "a"), 0, &config, now) {
                Ok(entry) => ended.extend(entry.earlier),
                Err(error) => assert_eq!((error, number > 10), (NoEntry::TooOften, true)),
            }
        }
        assert_eq!((ended.len(), registry.lock().by_client.len()), (9, 1));
        let later = now + Duration::from_secs(6);
        assert!(registry.enter(client("c"), present(2000, "a"), 0, &config, later).is_ok());
    }

    #[test]
    fn those_for_whom_the_most_waits_are_ended_first() {
        let registry = Registry::default();
        let mailboxes: Vec<_> = (0..4).map(|_| Arc::new(Mailbox::new(1000, 1_000_000))).collect();
        for (number, mailbox) in mailboxes.iter().enumerate() {
            registry.add(number as u64, Arc::clone(mailbox));
            for _ in 0..number {
                let payload = vec![0; 1000].into();
                mailbox.put(Down::Entry { connection: Default::default(), seq: 1, again: false, payload }, 0);
            }
        }
        let ended = || -> Vec<bool> {
            let cx = Context::from_waker(Waker::noop());
            mailboxes.iter().map(|mailbox| mailbox.poll_end(&cx).is_some()).collect()
        };
        assert_eq!((registry.end_hungriest(2), ended()), (2, vec![false, false, true, true]));
        assert_eq!(mailboxes[3].bytes(), 0, "what waited is let go");
        assert_eq!(
            (registry.end_hungriest(2), ended()),
            (1, vec![false, true, true, true]),
            "one that waits for nothing stays"
        );
    }

    #[test]
    fn users_who_are_gone_are_forgotten_when_their_rates_are_as_good_as_new() {
        let registry = Registry::default();
        let (config, start) = (Config::default(), start());
        for n in 0..20_000_u32 {
            let user = UserId::parse(&format!("u{n}")).unwrap();
            let client = Arc::new(Client { user, client_id: "c".into() });
            let now = start + Duration::from_millis(n.into());
            registry.enter(Arc::clone(&client), present(n.into(), "a"), 0, &config, now).unwrap();
            registry.leave(n.into(), Some(&client));
        }
        assert!(registry.lock().members.len() <= 2 * IDLE_MEMBERS_MAX, "{}", registry.lock().members.len());
    }
}
