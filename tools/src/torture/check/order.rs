//! What each device received: everything, once, unaltered and in order; and the order of numbers.

use super::Judgement;
use super::chat::Chat;
use crate::torture::history::{Message, What};

/// A set of messages.
struct Seen {
    /// By local index of the sender, a bit for each `k`.
    bits: Vec<Vec<u64>>,
}

impl Seen {
    fn new(chat: &Chat<'_>) -> Self {
        Self { bits: chat.sent.iter().map(|sent| vec![0; sent.len().div_ceil(64)]).collect() }
    }

    /// Whether it is new.
    fn insert(&mut self, local: usize, k: usize) -> bool {
        let word = self.bits.get_mut(local).and_then(|bits| bits.get_mut(k / 64));
        word.is_some_and(|word| {
            let new = *word >> (k % 64) & 1 == 0;
            *word |= 1 << (k % 64);
            new
        })
    }

    fn has(&self, local: usize, k: usize) -> bool {
        self.bits.get(local).and_then(|bits| bits.get(k / 64)).is_some_and(|word| word >> (k % 64) & 1 == 1)
    }
}

impl Chat<'_> {
    /// Every device received every acknowledged message of the others once, as it was sent, in the order of `seq` and of `n`.
    pub(super) fn check_order(&mut self, judgement: &mut Judgement) {
        for (local, device) in self.devices.iter().enumerate() {
            let index = self.index(local);
            let (mut last_seq, mut last_n) = (0, 0);
            let mut seen = Seen::new(self);
            for event in &device.events {
                let seq = match event.what {
                    What::Taken { message, n, seq, hash } => {
                        if self.take(index, message, (event.at, hash), judgement) {
                            let sender = self.local(message.device).unwrap_or(usize::MAX);
                            if seen.insert(sender, message.k as usize) {
                                judgement.blame(
                                    n <= last_n,
                                    |v| &mut v.reordered,
                                    || {
                                        format!(
                                            "reordered: device {index} took {} with n {n} behind n {last_n}",
                                            message.id()
                                        )
                                    },
                                );
                                last_n = last_n.max(n);
                            } else {
                                judgement.blame(
                                    true,
                                    |v| &mut v.duplicated,
                                    || {
                                        format!(
                                            "duplicated: device {index} took {} again, with seq {seq}",
                                            message.id()
                                        )
                                    },
                                );
                            }
                        }
                        seq
                    }
                    What::Receipt { seq, .. } => seq,
                    _ => continue,
                };
                judgement.blame(
                    seq <= last_seq,
                    |v| &mut v.reordered,
                    || format!("reordered: device {index} took seq {seq} behind seq {last_seq}"),
                );
                last_seq = last_seq.max(seq);
            }
            self.check_all_received(local, &seen, judgement);
        }
    }

    /// Whether the message was ever sent.
    fn take(&self, index: u32, message: Message, (at, hash): (u64, u64), judgement: &mut Judgement) -> bool {
        let Some(sent) = self.sent(message) else {
            judgement.blame(
                true,
                |v| &mut v.phantoms,
                || format!("phantom: device {index} took {}, which nobody sent", message.id()),
            );
            return false;
        };
        judgement.blame(
            sent.hash != hash,
            |v| &mut v.altered,
            || format!("altered: device {index} took {} with another body than it was sent with", message.id()),
        );
        judgement.blame(
            at < sent.at,
            |v| &mut v.phantoms,
            || format!("phantom: device {index} took {} before it was sent", message.id()),
        );
        true
    }

    fn check_all_received(&self, local: usize, seen: &Seen, judgement: &mut Judgement) {
        for (sender, sent) in self.sent.iter().enumerate().filter(|(sender, _)| *sender != local) {
            for (k, sent) in sent.iter().enumerate() {
                judgement.blame(
                    sent.acked && !seen.has(sender, k),
                    |v| &mut v.lost,
                    || {
                        let (index, id) = (self.index(local), self.message(sender, k).id());
                        format!("lost: device {index} never received {id} (n {}), which was acknowledged", sent.n)
                    },
                );
            }
        }
    }

    /// The messages of one sending device have rising numbers.
    pub(super) fn check_senders(&self, judgement: &mut Judgement) {
        for (local, sent) in self.sent.iter().enumerate() {
            let mut last = 0;
            for (k, sent) in sent.iter().enumerate().filter(|(_, sent)| sent.n > 0) {
                judgement.blame(
                    sent.n <= last,
                    |v| &mut v.reordered,
                    || format!("reordered: {} has n {}, the one before it {last}", self.message(local, k).id(), sent.n),
                );
                last = sent.n;
            }
        }
    }

    /// Numbers are dense.
    pub(super) fn check_numbers(&self, judgement: &mut Judgement) {
        let newest = (1..=self.n_max()).rev().find(|n| self.user_of(*n).is_some()).unwrap_or(0);
        for n in (1..newest).filter(|n| self.user_of(*n).is_none()) {
            judgement.blame(true, |v| &mut v.skipped, || format!("skipped: no message of the chat has n {n}"));
        }
    }

    /// Acknowledged before another was sent: the smaller number.
    pub(super) fn check_real_time(&self, judgement: &mut Judgement) {
        let mut line = Vec::new();
        for (device, sent) in self.devices.iter().zip(&self.sent) {
            for event in &device.events {
                let (k, acked) = match event.what {
                    What::Sent { k, .. } => (k, false),
                    What::Acked { k, .. } => (k, true),
                    _ => continue,
                };
                if let Some(sent) = sent.get(k as usize).filter(|sent| sent.n > 0) {
                    // At the same microsecond nothing is known: sent first.
                    line.push((event.at, acked, sent.n));
                }
            }
        }
        line.sort_unstable();
        let mut acked_max = 0;
        for (at, acked, n) in line {
            if acked {
                acked_max = acked_max.max(n);
            } else {
                judgement.blame(
                    n <= acked_max,
                    |v| &mut v.reordered,
                    || format!("reordered: n {n} was sent at {at} us, when n {acked_max} was acknowledged already"),
                );
            }
        }
    }
}
