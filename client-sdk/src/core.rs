//! The client without its network, its clock and its disk: what comes in, what must be written, what may go out.
//!
//! The caller hands in [`Input`]s with the time, takes [`Output`]s, and commits the batches of [`Core::take_batch`] one at a time. What
//! depends on a write is held back until [`Input::Stored`]: an acknowledgement until its entry is on the disk, a publication until it can
//! be found again after a crash. Everything that must be known for that is in [`crate::store::Snapshot`], so a core made from what was
//! committed goes on where the last one was.
//!
//! It is public for simulations, and no part of the stable API.

use std::collections::VecDeque;

use bytes::Bytes;
use natter_protocol::Seq;
use natter_protocol::entry::Entry;

use crate::error::Error;
use crate::event::Failed;
use crate::progress::Progress;
use crate::store::{Snapshot, Write};

mod inbox;
mod outbox;
mod ranges;
pub mod takeover;

use inbox::Inbox;
use outbox::Outbox;

/// Publications without a PUBACK at any time. Below what any MQTT 5 server takes by default, and half of what rumqttc is told, so that its
/// packet ids never collide.
pub const WINDOW: usize = 50;
/// Most messages and commands that wait to be sent.
pub const OUTBOX_MAX: usize = 100_000;
/// Most bytes of them.
pub const OUTBOX_BYTES_MAX: usize = 256 << 20;
/// Most answered messages that are remembered, for their ticks; the oldest are forgotten.
pub const SETTLED_MAX: usize = 10_000;
/// Most entries that are kept for an app that does not take them; further ones stay with the server.
pub const INBOX_MAX: usize = 10_000;
/// The server forgets ids after 30 days; what was tried so long ago (25 days, in milliseconds) is not sent again.
pub const RESEND_MS_MAX: i64 = 25 * 24 * 3600 * 1000;

/// The place of something in the outbox.
pub type Key = u64;

/// What the server said to a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Committed; number and Unix seconds of a message.
    Accepted {
        /// The number in the chat, 0 if the server did not say.
        n: u64,
        /// Unix seconds, 0 if the server did not say.
        timestamp: u64,
    },
    /// Refused for good.
    Refused {
        /// The MQTT reason code.
        reason: u8,
        /// The server's words.
        details: String,
    },
}

/// Something happened.
#[derive(Debug)]
pub enum Input {
    /// The app sends. `ticket` comes back in [`Output::Accepted`] or [`Output::Rejected`].
    Send {
        /// The caller's number for it.
        ticket: u64,
        /// The message's id; a command has none.
        id: Option<String>,
        /// The message's chat.
        chat: Option<String>,
        /// The publication.
        payload: Vec<u8>,
    },
    /// The app has an entry for good; `stored`: its transaction has deleted the row already.
    Took {
        /// Which.
        seq: Seq,
        /// Nothing is to be written.
        stored: bool,
    },
    /// The app does not want to hear of an answered message again.
    Forget(String),
    /// The server said which store it has, before any entry of this connection.
    Epoch(String),
    /// The inbox is subscribed.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// A packet came from the inbox.
    Arrived {
        /// The caller's number for it, not used twice on a connection.
        delivery: u64,
        /// What it says.
        entry: Box<Entry>,
        /// Its bytes.
        payload: Bytes,
    },
    /// A PUBACK came.
    Answered {
        /// For which publication.
        key: Key,
        /// What it says.
        answer: Answer,
    },
    /// The batch taken last is on the disk.
    Stored,
    /// Time has passed.
    Tick,
}

/// Something is to be done.
#[derive(Debug)]
pub enum Output {
    /// Publish it at QoS 1, behind those before it.
    Publish {
        /// Comes back in [`Input::Answered`].
        key: Key,
        /// The bytes.
        payload: Bytes,
    },
    /// Acknowledge the packet of this number.
    Acknowledge(u64),
    /// `Send` is on the disk.
    Accepted(u64),
    /// `Send` was not taken.
    Rejected(u64, Error),
    /// A message got further.
    Progress(String, Box<Progress>),
    /// A message is not remembered any more.
    Forgotten(String),
    /// Hand it to the app, and say [`Input::Took`] when it has it.
    Entry(Seq, Box<Entry>),
    /// Hand it to the app, if it looks.
    Live(Box<Entry>),
    /// The server has another store than before: positions and numbers begin anew, and what it had answered is not known to it.
    BegunAnew,
    /// A message or command was refused.
    Failed(Failed),
    /// Entries are missing: end this connection and make another at once.
    Reconnect,
}

/// What waits for a commit.
#[derive(Debug)]
enum After {
    /// A write about the rows from this key to that is on the disk.
    Sendable(Key, Key),
    /// An entry is on the disk.
    Kept(Seq, Box<Entry>),
    Output(Output),
}

/// See the module.
#[derive(Debug)]
pub struct Core {
    durable: bool,
    outbox: Outbox,
    inbox: Inbox,
    out: VecDeque<Output>,
    writes: Vec<Write>,
    after: Vec<After>,
    committing: Option<Vec<After>>,
}

impl Core {
    /// A client that goes on from what its store has. `durable` as [`crate::store::Store::is_durable`].
    #[must_use]
    pub fn new(snapshot: Snapshot, durable: bool) -> Self {
        Self::with_inbox(snapshot, durable, INBOX_MAX)
    }

    /// As [`Core::new`], with another bound than [`INBOX_MAX`].
    #[must_use]
    pub fn with_inbox(snapshot: Snapshot, durable: bool, inbox_max: usize) -> Self {
        let mut out = VecDeque::new();
        let Snapshot { last_seq, epoch, outgoing, incoming, receipts } = snapshot;
        let outbox = Outbox::new(outgoing, receipts, &mut out);
        let inbox = Inbox::new(last_seq, epoch, incoming, durable, inbox_max, &mut out);
        Self { durable, outbox, inbox, out, writes: Vec::new(), after: Vec::new(), committing: None }
    }

    /// Takes in what happened at `now_ms`, in Unix milliseconds. A clock that goes back stands still instead.
    pub fn handle(&mut self, now_ms: i64, input: Input) {
        self.outbox.set_clock(now_ms);
        let mut to = Effects { out: &mut self.out, writes: &mut self.writes, after: &mut self.after };
        match input {
            Input::Send { ticket, id, chat, payload } => self.outbox.send(ticket, id, chat, payload, &mut to),
            Input::Took { seq, stored } => {
                self.inbox.took(seq, stored, &mut to);
                self.go_on();
                return self.outbox.publish(&mut self.out);
            }
            Input::Forget(id) => self.outbox.forget(&id, &mut to),
            Input::Epoch(epoch) => {
                if self.inbox.epoch(epoch, &mut to) {
                    self.outbox.begin_anew(&mut to);
                }
                self.go_on();
                return;
            }
            Input::Connected => self.outbox.connected(&mut to),
            Input::Disconnected => {
                // What was for the old connection is not for the next one.
                let old = |output: &Output| {
                    matches!(output, Output::Publish { .. } | Output::Acknowledge(_) | Output::Reconnect)
                };
                self.out.retain(|output| !old(output));
                self.outbox.disconnected();
                self.inbox.disconnected();
            }
            Input::Arrived { delivery, entry, payload } => {
                if let Some(entry) = self.inbox.arrived(delivery, entry, payload, &mut to) {
                    self.outbox.entry(&entry, &mut to);
                }
            }
            Input::Answered { key, answer } => self.outbox.answered(key, answer, &mut to),
            Input::Stored => self.stored(),
            Input::Tick => self.outbox.expire(&mut to),
        }
        self.outbox.publish(&mut self.out);
    }

    /// What had to wait until the app took something.
    fn go_on(&mut self) {
        let mut to = Effects { out: &mut self.out, writes: &mut self.writes, after: &mut self.after };
        self.inbox.begin_anew(&mut to);
        for entry in self.inbox.unpark(&mut to) {
            self.outbox.entry(&entry, &mut to);
        }
    }

    fn stored(&mut self) {
        for after in self.committing.take().into_iter().flatten() {
            match after {
                After::Sendable(first, last) => self.outbox.sendable(first, last),
                After::Kept(seq, entry) => {
                    self.inbox.kept(seq, self.durable, &mut self.out);
                    self.out.push_back(Output::Entry(seq, entry));
                }
                After::Output(output) => self.out.push_back(output),
            }
        }
    }

    /// What is to be done next.
    pub fn next_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// What is to be committed as one transaction, if anything is, and nothing is being committed. [`Input::Stored`] says that it is done;
    /// a batch that fails ends this core: load the store and make another.
    pub fn take_batch(&mut self) -> Option<Vec<Write>> {
        if self.committing.is_some() || self.writes.is_empty() {
            return None;
        }
        self.committing = Some(std::mem::take(&mut self.after));
        Some(std::mem::take(&mut self.writes))
    }

    /// Whether everything is answered, written and said.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.outbox.is_empty() && self.writes.is_empty() && self.committing.is_none() && self.out.is_empty()
    }

    /// Whether a batch is being committed.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.committing.is_some()
    }

    /// Whether a message of that id is known.
    #[must_use]
    pub fn knows(&self, id: &str) -> bool {
        self.outbox.knows(id)
    }
}

/// Where the parts put what they want.
struct Effects<'a> {
    out: &'a mut VecDeque<Output>,
    writes: &'a mut Vec<Write>,
    after: &'a mut Vec<After>,
}
