//! Wills whose delay is running: published when it is over, or forgotten when the client comes back to its session in time (3.1.3.2.2).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use natter_protocol::accounts::{Grant, Revocation};
use natter_protocol::ids::UserId;
use natter_protocol::link::Publication;

use crate::registry::Client;

#[derive(Debug, Default)]
pub(crate) struct Wills {
    waiting: Mutex<HashMap<Arc<Client>, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    publication: Publication,
    grant: Grant,
}

impl Waiting {
    /// The will, if its token still held at `now`: what a client may publish is asked again when it is published.
    fn if_allowed(self, now: u64) -> Option<Publication> {
        (now < self.grant.expires_at).then_some(self.publication)
    }
}

impl Wills {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<Client>, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection has ended whose will is to wait. Hands the will back if `waiting_max` wait already.
    pub(crate) fn wait(
        &self,
        client: Arc<Client>,
        publication: Publication,
        grant: Grant,
        waiting_max: usize,
    ) -> Option<Publication> {
        let mut waiting = self.lock();
        if waiting.len() >= waiting_max {
            return Some(publication);
        }
        waiting.insert(client, Waiting { publication, grant }).map(|earlier| earlier.publication)
    }

    /// The delay of connection `number`'s will is over at `now` (Unix seconds): it is due, if it still waits.
    pub(crate) fn due(&self, client: &Arc<Client>, number: u64, now: u64) -> Option<Publication> {
        let mut waiting = self.lock();
        if waiting.get(client)?.publication.connection.n != number {
            return None;
        }
        waiting.remove(client)?.if_allowed(now)
    }

    /// The client has come back. If it begins a new session the old one has ended, and its will is due.
    pub(crate) fn came_back(&self, client: &Arc<Client>, is_new_session: bool, now: u64) -> Option<Publication> {
        let waiting = self.lock().remove(client)?;
        if is_new_session { waiting.if_allowed(now) } else { None }
    }

    /// Whoever has lost the right to publish has lost it for the will too.
    pub(crate) fn revoke(&self, revocation: &Revocation) {
        self.lock().retain(|_, waiting| !revocation.covers(&waiting.grant));
    }

    /// The server goes away: rather early than never.
    pub(crate) fn take_all(&self, now: u64) -> Vec<(UserId, Publication)> {
        let waiting = std::mem::take(&mut *self.lock());
        waiting
            .into_iter()
            .filter_map(|(client, waiting)| Some((client.user.clone(), waiting.if_allowed(now)?)))
            .collect()
    }
}
