//! The driver's side towards the app: what it asks for, and what it is answered.

use std::any::Any;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::warn;

use super::Driver;
use crate::connection::End;
use crate::core::{Core, Input};
use crate::error::{BoxError, Error};
use crate::feed::{Claim, lock};
use crate::store::Write;

/// Chats whose presence is watched, as the server allows on a connection.
const WATCHES_MAX: usize = 256;

/// The app's part of a transaction.
pub(crate) type Job = Box<dyn FnMut(&dyn Any) -> Result<(), BoxError> + Send>;
pub(super) type Reply = oneshot::Sender<Result<(), Error>>;

/// What an app asks for.
pub(crate) enum Command {
    Send { id: Option<String>, chat: Option<String>, payload: Vec<u8>, reply: Reply },
    Transaction { claim: Claim, job: Job, reply: Reply },
    Forget(String),
    Live(String),
    Watch(String, bool),
    Available(bool),
    Close(Duration, oneshot::Sender<()>),
}

impl Driver {
    pub(super) fn command(&mut self, now: i64, command: Command) {
        match command {
            Command::Send { id, chat, payload, reply } => {
                if self.closing.is_some() {
                    let _ = reply.send(Err(Error::Closed));
                    return;
                }
                let ticket = self.ticket();
                self.sends.insert(ticket, (id.clone(), reply));
                self.core.handle(now, Input::Send { ticket, id, chat, payload });
            }
            Command::Transaction { claim, job, reply } => {
                let ticket = self.ticket();
                self.storage.transaction(ticket, claim.seq().map(Write::Taken).into_iter().collect(), job);
                self.transactions.insert(ticket, (claim, reply));
            }
            Command::Forget(id) => self.core.handle(now, Input::Forget(id)),
            Command::Live(payload) => {
                if let Some(connection) = &self.connection {
                    connection.publish_live(payload);
                }
            }
            Command::Watch(chat, on) => {
                if let Some(connection) = &self.connection {
                    connection.publish_live(watch(&chat, on));
                }
                if !on {
                    self.watches.remove(&chat);
                } else if self.watches.len() < WATCHES_MAX {
                    self.watches.insert(chat);
                }
            }
            Command::Available(available) => {
                self.available = available;
                if let Some(connection) = &self.connection {
                    connection.publish_live(in_front(available));
                }
            }
            Command::Close(at_most, done) => self.closing = Some((Instant::now() + at_most, done)),
        }
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// It is not known what is on the disk: look, and go on from there as a new process would.
    pub(super) async fn store_failed(&mut self, why: &str) -> Result<(), End> {
        warn!(error = why, "the store failed");
        let end = || End::Final(Error::Store(why.to_owned()));
        let snapshot = self.storage.load().await.map_err(|_| end())?;
        lock(&self.shared.feed).reload();
        self.core = Core::new(snapshot, self.storage.durable);
        lock(&self.shared.registry).retain(|id| self.core.knows(id));
        for (_, (id, reply)) in self.sends.drain() {
            let kept = id.is_some_and(|id| self.core.knows(&id));
            let _ = reply.send(if kept { Ok(()) } else { Err(Error::Store(why.to_owned())) });
        }
        for (_, (_, reply)) in self.transactions.drain() {
            let _ = reply.send(Err(Error::Store(why.to_owned())));
        }
        self.flush()?;
        Err(End::Broken(Error::Store(why.to_owned())))
    }

    pub(super) fn answer(&mut self, ticket: u64, result: Result<(), Error>) {
        if let Some((_, reply)) = self.sends.remove(&ticket) {
            let _ = reply.send(result);
        }
    }
}

pub(super) fn in_front(available: bool) -> String {
    serde_json::json!({"status": if available { "available" } else { "unavailable" }}).to_string()
}

pub(super) fn watch(chat: &str, on: bool) -> String {
    serde_json::json!({"status": if on { "watch" } else { "unwatch" }, "chat": chat}).to_string()
}
