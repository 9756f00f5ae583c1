//! An `{"ack":N}` over more entries than the loop may look at in one go: a page a batch, and what its connection sent behind it waits.

use std::collections::VecDeque;

use natter_protocol::error::NotNow;
use natter_protocol::link::{Answer, Packet, Up};
use natter_protocol::{ConnectionId, DeviceId, Seq, UserId};

use crate::engine::{Engine, Now};
use crate::store::{Store, StoreError};

/// Frames of a connection that wait behind its acknowledgement; at one more the connection is told "not now".
const WAITING_MAX: usize = 1024;

/// An acknowledgement that goes on.
#[derive(Debug)]
pub(crate) struct LongAck {
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    pub(crate) connection: ConnectionId,
    pub(crate) packet: Packet,
    pub(crate) upto: Seq,
    /// Answers of one connection leave in the order of its PUBLISHes: what came later waits.
    pub(crate) waiting: VecDeque<Up>,
}

impl<S: Store> Engine<S> {
    /// Whether there is work left that no new event is needed for.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        !self.long_acks.is_empty()
    }

    /// Goes on with what an earlier batch left unfinished, by one page.
    ///
    /// # Errors
    /// As [`Engine::handle`].
    pub fn go_on(&mut self, now: Now) -> Result<(), StoreError> {
        self.now = now;
        let Some(mut first) = self.long_acks.pop_front() else { return Ok(()) };
        match self.ack_upto(&first.user, &first.device, first.upto)? {
            Ok(false) => {
                self.long_acks.push_back(first);
                return Ok(());
            }
            Ok(true) => self.answer_packet(&first.user, first.connection, first.packet, Answer::Done),
            Err(refusal) => {
                let (user, device) = (first.user.clone(), first.device.clone());
                self.refuse(&user, first.connection, first.packet, &device, None, refusal)?;
            }
        }
        while let Some(up) = first.waiting.pop_front() {
            // It may be another long one: then the rest waits behind that.
            self.handle_up(first.user.clone(), up)?;
        }
        Ok(())
    }

    /// Keeps a frame back if it must wait; gives it back if it need not.
    pub(crate) fn wait_behind_long_ack(&mut self, up: Up) -> Option<Up> {
        if self.long_acks.is_empty() {
            return Some(up);
        }
        let connection = up.connection();
        let Some(ack) = self.long_acks.iter_mut().find(|ack| Some(ack.connection) == connection) else {
            return Some(up);
        };
        let is_full = ack.waiting.len() >= WAITING_MAX;
        let (user, connection) = (ack.user.clone(), ack.connection);
        match up {
            // After "not now" nothing is taken in, but that it ended is.
            Up::Close { .. } => ack.waiting.push_back(up),
            _ if is_full => self.not_now(&user, connection, NotNow::Busy),
            up => ack.waiting.push_back(up),
        }
        None
    }
}
