//! What a device must remember: a sum of its journal, so that a host that was killed goes on where it was.

use std::collections::BTreeSet;

use super::history::What;
use super::plan::Place;

/// The state of a device.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) subscribed: bool,
    /// The newest `seq` that it took.
    pub(crate) last: u64,
    /// Its next message.
    pub(crate) next_k: u32,
    /// Its messages without a PUBACK.
    pub(crate) unacked: BTreeSet<u32>,
    /// How many messages it took.
    pub(crate) taken: u64,
    /// Newest number of the other side's messages.
    pub(crate) theirs: u32,
    /// Newest own number that the other side has read.
    pub(crate) read: u32,
    /// A read mark that has no PUBACK yet, as far as the journal knows.
    pub(crate) mark: Option<u32>,
    /// The newest read mark.
    pub(crate) marked: u32,
}

impl Memory {
    /// Takes an event in, as it happens or from the journal.
    pub(crate) fn apply(&mut self, what: &What, place: &Place, devices: u32) {
        match *what {
            What::Subscribed => self.subscribed = true,
            What::Sent { k, .. } => {
                self.next_k = k + 1;
                self.unacked.insert(k);
            }
            What::Acked { k, .. } => {
                self.unacked.remove(&k);
            }
            What::Taken { message, n, seq, .. } => {
                self.last = seq;
                self.taken += 1;
                if message.device / devices != place.user {
                    self.theirs = self.theirs.max(n);
                }
            }
            What::Receipt { read, recipient, n, seq, .. } => {
                self.last = seq;
                if read && recipient != place.user {
                    self.read = self.read.max(n);
                }
            }
            What::Acknowledged { seq } => self.last = self.last.max(seq),
            What::MarkedRead { n } => (self.mark, self.marked) = (Some(n), n),
            What::Numbered { .. } | What::Refused | What::Gap | What::Phantom => {}
        }
    }

    /// Messages that it sent and that were answered.
    pub(crate) fn answered(&self) -> u64 {
        u64::from(self.next_k) - self.unacked.len() as u64
    }
}
