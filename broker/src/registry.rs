//! All connections of a door: by number, for what the bridge sends, and by client, for takeovers and revocations.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use natter_protocol::accounts::{Grant, Revocation};
use natter_protocol::ids::UserId;

use crate::mailbox::Mailbox;
use crate::session::End;

/// Revocations that are remembered for those who are in the middle of connecting.
const REVOCATIONS_MAX: usize = 1024;

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
    revocations: VecDeque<Revocation>,
    /// How many revocations there were in all.
    revoked: u64,
}

#[derive(Debug)]
struct Present {
    number: u64,
    mailbox: Arc<Mailbox>,
    grant: Grant,
}

/// The token was revoked while its client connected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Revoked;

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

    /// A client was let in; `mark` is from before its token was verified. Its earlier connection is told to end and handed back: the
    /// new one must wait for it to be done.
    pub(crate) fn enter(
        &self,
        client: Arc<Client>,
        number: u64,
        mailbox: Arc<Mailbox>,
        grant: Grant,
        mark: u64,
    ) -> Result<Option<Arc<Mailbox>>, Revoked> {
        let mut inner = self.lock();
        let since = usize::try_from(inner.revoked - mark).unwrap_or(usize::MAX);
        if since > inner.revocations.len() || inner.revocations.iter().rev().take(since).any(|r| r.covers(&grant)) {
            return Err(Revoked);
        }
        let earlier = inner.by_client.insert(client, Present { number, mailbox, grant });
        Ok(earlier.map(|earlier| {
            earlier.mailbox.end(End::TAKEN_OVER);
            earlier.mailbox
        }))
    }

    /// A connection has ended.
    pub(crate) fn leave(&self, number: u64, client: Option<&Arc<Client>>) {
        let mut inner = self.lock();
        inner.by_number.remove(&number);
        if let Some(client) = client
            && inner.by_client.get(client).is_some_and(|present| present.number == number)
        {
            inner.by_client.remove(client);
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

    /// Ends every connection.
    pub(crate) fn end_all(&self, end: End) {
        for mailbox in self.lock().by_number.values() {
            mailbox.end(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_newer_connection_takes_over_and_an_older_one_leaves_it_alone() {
        let registry = Registry::default();
        let mailbox = || Arc::new(Mailbox::new(8, 8));
        let (old, new) = (mailbox(), mailbox());
        assert!(registry.enter(client("c"), 1, old.clone(), grant("a"), 0).unwrap().is_none());
        assert!(registry.enter(client("d"), 2, mailbox(), grant("a"), 0).unwrap().is_none());
        let earlier = registry.enter(client("c"), 3, new.clone(), grant("b"), 0).unwrap().unwrap();
        assert!(Arc::ptr_eq(&earlier, &old));
        registry.leave(1, Some(&client("c")));
        let again = registry.enter(client("c"), 4, mailbox(), grant("b"), 0).unwrap().unwrap();
        assert!(Arc::ptr_eq(&again, &new));
    }

    #[test]
    fn a_revocation_in_the_middle_of_connecting_counts() {
        let registry = Registry::default();
        let mailbox = || Arc::new(Mailbox::new(8, 8));
        registry.revoke(&token("a"));
        let mark = registry.revocation_mark();
        assert!(registry.enter(client("c"), 1, mailbox(), grant("a"), mark).is_ok(), "verify would have seen it");
        registry.revoke(&token("b"));
        assert_eq!(registry.enter(client("c"), 2, mailbox(), grant("b"), mark).unwrap_err(), Revoked);
        assert!(registry.enter(client("c"), 2, mailbox(), grant("c"), mark).is_ok());
        for _ in 0..REVOCATIONS_MAX {
            registry.revoke(&token("x"));
        }
        assert_eq!(registry.enter(client("c"), 3, mailbox(), grant("c"), mark).unwrap_err(), Revoked, "too long ago");
    }
}
