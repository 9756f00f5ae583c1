//! An `{"ack":N}` over more entries than the loop may look at in one go: a page a batch, and what its user's connections and requests bring behind it
//! waits.

use std::collections::VecDeque;

use natter_protocol::error::NotNow;
use natter_protocol::link::{Answer, Packet, Up};
use natter_protocol::{ConnectionId, DeviceId, Seq, UserId};

use crate::engine::{Engine, Now, Reply, Request, Ticket};
use crate::store::{Store, StoreError};

/// Acknowledgements that go on at a time; with one more its connection is told "not now".
const LONG_ACKS_MAX: usize = 64;
/// Frames of a user that wait behind his acknowledgement, and their bytes; with more a connection is told "not now".
const WAITING_MAX: usize = 1024;
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// An acknowledgement that goes on.
#[derive(Debug)]
pub(crate) struct LongAck {
    user: UserId,
    device: DeviceId,
    asker: Asker,
    upto: Seq,
    /// What the user's connections sent later, and what was asked for him: answers leave in the order of the PUBLISHes, and a newer
    /// connection does not overtake.
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
}

/// Who hears of its end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asker {
    /// A PUBLISH.
    Packet(ConnectionId, Packet),
    /// A request of the process; `then` it gets a page of so many entries.
    Inside { ticket: Ticket, then: Option<usize> },
}

#[derive(Debug)]
enum Waiting {
    Frame(Up),
    Request(Ticket, Request),
}

impl LongAck {
    /// The requests whose replies are open.
    fn tickets(&self) -> impl Iterator<Item = Ticket> {
        let own = match self.asker {
            Asker::Packet(..) => None,
            Asker::Inside { ticket, .. } => Some(ticket),
        };
        let waiting = self.waiting.iter().filter_map(|waiting| match waiting {
            Waiting::Frame(_) => None,
            Waiting::Request(ticket, _) => Some(*ticket),
        });
        own.into_iter().chain(waiting)
    }
}

impl<S: Store> Engine<S> {
    /// Whether there is work left that no new event is needed for.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        !self.long_acks.is_empty() || self.presence.is_behind(self.now.server_secs)
    }

    /// Goes on with what an earlier batch left unfinished, by one page.
    ///
    /// # Errors
    /// As [`Engine::handle`].
    pub fn go_on(&mut self, now: Now) -> Result<(), StoreError> {
        self.now = now;
        let Some(mut first) = self.long_acks.pop_front() else { return Ok(()) };
        // If this batch fails, they are told so with the rest.
        self.open_tickets(first.tickets());
        let ruling = match self.ack_upto(&first.user, &first.device, first.upto)? {
            Ok(false) => {
                self.long_acks.push_back(first);
                return Ok(());
            }
            Ok(true) => Ok(Answer::Done),
            Err(refusal) => Err(refusal),
        };
        match first.asker {
            Asker::Packet(connection, packet) => {
                self.conclude(&first.user, connection, packet, &first.device, None, ruling)?;
            }
            Asker::Inside { ticket, then } => {
                self.conclude_inside(ticket, &first.user, &first.device, then, ruling)?;
            }
        }
        while let Some(waiting) = first.waiting.pop_front() {
            // It may be another long one: then the rest waits behind that.
            match waiting {
                Waiting::Frame(up) => self.handle_up(first.user.clone(), up)?,
                Waiting::Request(ticket, request) => self.handle_inside(ticket, request)?,
            }
        }
        Ok(())
    }

    /// Goes on with an acknowledgement in later batches; `false`: too many do.
    pub(crate) fn ack_later(&mut self, user: &UserId, device: DeviceId, asker: Asker, upto: Seq) -> bool {
        if self.long_acks.len() >= LONG_ACKS_MAX {
            return false;
        }
        let (user, waiting) = (user.clone(), VecDeque::new());
        self.long_acks.push_back(LongAck { user, device, asker, upto, waiting, waiting_bytes: 0 });
        true
    }

    /// Keeps a frame back if it must wait; gives it back if it need not.
    pub(crate) fn wait_behind_long_ack(&mut self, user: &UserId, up: Up) -> Option<Up> {
        let Some(ack) = self.long_acks.iter_mut().find(|ack| ack.user == *user) else { return Some(up) };
        let Some(connection) = up.connection() else { return Some(up) };
        let bytes = if let Up::Publish(publication) = &up { publication.payload.len() } else { 0 };
        let is_full = ack.waiting.len() >= WAITING_MAX || ack.waiting_bytes + bytes > WAITING_BYTES_MAX;
        // That a connection began or ended must be known, and a will is not sent again.
        let must = match &up {
            Up::Open(..) | Up::Close { .. } => true,
            Up::Publish(publication) => publication.will,
            _ => false,
        };
        if is_full && !must {
            self.not_now(user, connection, NotNow::Busy);
            return None;
        }
        ack.waiting_bytes += bytes;
        ack.waiting.push_back(Waiting::Frame(up));
        None
    }

    /// As [`Engine::wait_behind_long_ack`], for a request.
    pub(crate) fn wait_behind_long_ack_inside(&mut self, ticket: Ticket, request: Request) -> Option<Request> {
        let Some((user, bytes)) = request.in_order_of() else { return Some(request) };
        let Some(ack) = self.long_acks.iter_mut().find(|ack| ack.user == *user) else { return Some(request) };
        if ack.waiting.len() >= WAITING_MAX || ack.waiting_bytes + bytes > WAITING_BYTES_MAX {
            self.reply(ticket, Reply::NotNow(NotNow::Busy));
            return None;
        }
        ack.waiting_bytes += bytes;
        ack.waiting.push_back(Waiting::Request(ticket, request));
        None
    }

    /// A batch is given up, and every connection with it: what waits is dropped. Connections that began meanwhile are to be closed.
    pub(crate) fn give_up_long_acks(&mut self) -> Result<Vec<(UserId, ConnectionId)>, StoreError> {
        let mut begun = Vec::new();
        for ack in std::mem::take(&mut self.long_acks) {
            self.open_tickets(ack.tickets());
            for waiting in ack.waiting {
                match waiting {
                    Waiting::Frame(Up::Open(connection, _)) => begun.push((ack.user.clone(), connection)),
                    // The next batch has what it changes.
                    Waiting::Frame(Up::Close { connection, expiry_secs, by_server }) => {
                        self.close(&ack.user, connection, expiry_secs, by_server)?;
                    }
                    Waiting::Frame(_) | Waiting::Request(..) => {}
                }
            }
        }
        Ok(begun)
    }
}
