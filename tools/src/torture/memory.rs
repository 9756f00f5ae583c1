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
    /// Those of them that a client of the SDK took in.
    pub(crate) kept: BTreeSet<u32>,
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
                self.kept.remove(&k);
            }
            What::Kept { k } => drop(self.kept.insert(k)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::history::Message;

    #[test]
    fn a_device_goes_on_where_its_journal_ends() {
        let place = Place { index: 2, user: 1, device: 0, v5: true, clean: true, is_sdk: false, quota: 10 };
        let mut memory = Memory::default();
        let receipt = |read, recipient, n, seq| {
            let message = Message { device: 2, k: 0 };
            What::Receipt { read, recipient, after: 0, n, message, seq }
        };
        for what in [
            What::Subscribed,
            What::Sent { k: 0, hash: 1 },
            What::Sent { k: 1, hash: 1 },
            What::Sent { k: 2, hash: 1 },
            What::Kept { k: 1 },
            What::Kept { k: 2 },
            What::Acked { k: 1, n: Some(8) },
            // From the other side, and from another device of the own user.
            What::Taken { message: Message { device: 0, k: 0 }, n: 5, seq: 3, hash: 1 },
            What::Taken { message: Message { device: 3, k: 0 }, n: 6, seq: 4, hash: 1 },
            What::Acknowledged { seq: 3 },
            receipt(false, 0, 8, 5),
            receipt(true, 0, 7, 6),
            receipt(true, 1, 9, 7),
            What::MarkedRead { n: 5 },
        ] {
            memory.apply(&what, &place, 2);
        }
        let expected = Memory {
            subscribed: true,
            last: 7,
            next_k: 3,
            unacked: BTreeSet::from([0, 2]),
            kept: BTreeSet::from([2]),
            taken: 2,
            theirs: 5,
            read: 7,
            mark: Some(5),
            marked: 5,
        };
        assert_eq!(memory, expected);
        assert_eq!(memory.answered(), 1);
    }
}
