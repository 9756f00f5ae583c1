//! What receipts said: the truth, once, and in the end everything.

use super::Judgement;
use super::chat::Chat;
use crate::torture::history::{Device, What};

/// Nobody acknowledged it.
const NEVER: u64 = u64::MAX;

/// What is known of one user as the recipient of the other's messages.
struct Recipient {
    user: u32,
    /// The numbers of the other's messages, rising.
    theirs: Vec<u32>,
    /// By number: when the first of his devices acknowledged it.
    had: Vec<u64>,
    /// When he marked what as read: times and numbers both rise.
    marks: Vec<(u64, u32)>,
}

impl Chat<'_> {
    /// Receipts are true, said once, never go back, and cover everything in the end.
    pub(super) fn check_receipts(&self, judgement: &mut Judgement) {
        let Some(first) = self.devices.first().map(|device| device.user / 2 * 2) else { return };
        for user in [first, first + 1] {
            let other = |n: &u32| self.user_of(*n).is_some_and(|sender| sender != user);
            let recipient = Recipient {
                user,
                theirs: (1..=self.n_max()).filter(other).collect(),
                had: self.first_acknowledged(user),
                marks: self.marks(user),
            };
            for (local, device) in self.devices.iter().enumerate() {
                self.check_receipts_at(self.index(local), device, &recipient, judgement);
            }
        }
        for (local, device) in self.devices.iter().enumerate() {
            for event in &device.events {
                if let What::Receipt { recipient, .. } = event.what {
                    judgement.blame(
                        recipient / 2 * 2 != first,
                        |v| &mut v.false_receipts,
                        || format!("false receipt: device {} heard of user {recipient}", self.index(local)),
                    );
                }
            }
        }
    }

    fn check_receipts_at(&self, index: u32, device: &Device, recipient: &Recipient, judgement: &mut Judgement) {
        let Recipient { user, theirs, had, marks } = recipient;
        // Bit 0: delivered or read, bit 1: read.
        let mut covered = vec![0_u8; theirs.len()];
        for event in &device.events {
            let What::Receipt { read, recipient: who, after, n, message, seq } = event.what else { continue };
            if who != *user {
                continue;
            }
            let from = theirs.partition_point(|x| *x <= after);
            let to = theirs.partition_point(|x| *x <= n).max(from);
            let named = self.sent(message).is_some_and(|sent| sent.n == n) && from != to;
            let (mut too_early, mut again) = (None, None);
            for (x, seen) in theirs.iter().zip(&mut covered).skip(from).take(to - from) {
                let bits = if read { 2 } else { 1 };
                if *seen & bits != 0 {
                    again = Some(*x);
                }
                *seen |= bits | 1;
                // Who says that a message is read has it, whether its PUBACK is on the way or not: the mark is looked at below.
                if !read && had.get(*x as usize).is_none_or(|at| *at > event.at) {
                    too_early = Some(*x);
                }
            }
            if read {
                let before = marks.partition_point(|(at, _)| *at <= event.at);
                let marked = before.checked_sub(1).and_then(|i| marks.get(i)).map_or(0, |(_, n)| *n);
                let newest = to.checked_sub(1).and_then(|i| theirs.get(i)).copied();
                too_early = newest.filter(|newest| *newest > marked);
            }
            let kind = if read { "read" } else { "delivered" };
            let text = move || format!("device {index}, seq {seq}: {kind} by user {user}, after {after}, n {n}");
            judgement.blame(
                !named || too_early.is_some(),
                |v| &mut v.false_receipts,
                || match too_early {
                    Some(x) => format!("false receipt: {}; n {x} was not {kind} yet at {} us", text(), event.at),
                    None => format!("false receipt: {}; it names {}", text(), message.id()),
                },
            );
            judgement.blame(
                again.is_some(),
                |v| &mut v.repeated_receipts,
                || format!("repeated receipt: {}; an earlier one had said as much of n {}", text(), again.unwrap_or(0)),
            );
        }
        if device.user != *user {
            let final_mark = marks.last().map_or(0, |(_, n)| *n);
            for (n, seen) in theirs.iter().zip(covered) {
                let need = if *n <= final_mark { 3 } else { 1 };
                judgement.blame(
                    seen & need != need,
                    |v| &mut v.uncovered,
                    || {
                        let word = if seen & 1 == 0 { "delivered" } else { "read" };
                        format!("uncovered: device {index} was never told that n {n} is {word} by user {user}")
                    },
                );
            }
        }
    }

    /// By number: when the first device of a user acknowledged it.
    fn first_acknowledged(&self, user: u32) -> Vec<u64> {
        let mut first = vec![NEVER; self.n_max() as usize + 1];
        for device in self.devices.iter().filter(|device| device.user == user) {
            // Rising, unless something is out of order, which is counted elsewhere.
            let mut taken: Vec<(u64, u32)> = Vec::new();
            for event in &device.events {
                match event.what {
                    // It was acknowledged some time before, and it is here: `delivered` said what is true.
                    What::Taken { n, .. } if device.is_sdk => {
                        if let Some(at) = first.get_mut(n as usize) {
                            *at = 0;
                        }
                    }
                    What::Taken { n, seq, .. } => taken.push((seq, n)),
                    What::Acknowledged { seq } => {
                        let n = taken.binary_search_by_key(&seq, |(seq, _)| *seq).ok().and_then(|i| taken.get(i));
                        if let Some(at) = n.and_then(|(_, n)| first.get_mut(*n as usize)) {
                            *at = event.at.min(*at);
                        }
                    }
                    _ => {}
                }
            }
        }
        first
    }

    /// The read marks of a user: when, and the highest so far.
    fn marks(&self, user: u32) -> Vec<(u64, u32)> {
        let devices = self.devices.iter().filter(|device| device.user == user);
        let events = devices.flat_map(|device| &device.events);
        let marks = events.filter_map(|event| match event.what {
            What::MarkedRead { n } => Some((event.at, n)),
            _ => None,
        });
        let mut marks: Vec<(u64, u32)> = marks.collect();
        marks.sort_unstable();
        let mut highest = 0;
        for (_, n) in &mut marks {
            highest = highest.max(*n);
            *n = highest;
        }
        marks
    }
}
