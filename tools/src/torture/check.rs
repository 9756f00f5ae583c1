//! The judge: reads a history and counts what must not be. No I/O and no clock.

use std::collections::HashMap;
use std::fmt;

use super::history::{Device, History, Message, What};

/// What a history says. Everything but `acked` must be 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages with a PUBACK.
    pub acked: u64,
    /// Acknowledged, and not received by a device that should have it; or never acknowledged.
    pub lost: u64,
    /// Taken twice by a device.
    pub duplicated: u64,
    /// Out of order: `seq` of a device, `n` of a chat, the order of a sender, or an acknowledged message behind a later one.
    pub reordered: u64,
    /// Receipts of what was not acknowledged or not read, or with another message's id.
    pub false_receipts: u64,
    /// Acknowledged messages that the receipts at the end do not cover, per device of the sender.
    pub uncovered: u64,
    /// Missing entries that the client noticed by `prev`.
    pub gaps: u64,
    /// Messages with another body than sent.
    pub altered: u64,
    /// One message with two numbers, or one number with two messages.
    pub renumbered: u64,
    /// Received, and never sent.
    pub phantoms: u64,
    /// Refused, although nothing was wrong with it.
    pub refused: u64,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self { acked: self.acked, ..Self::default() }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked, lost, duplicated, reordered, false_receipts, uncovered, .. } = self;
        let Self { gaps, altered, renumbered, phantoms, refused, .. } = self;
        write!(
            f,
            "acked={acked} lost={lost} duplicated={duplicated} reordered={reordered} false_receipts={false_receipts} \
             uncovered={uncovered} gaps={gaps} altered={altered} renumbered={renumbered} phantoms={phantoms} refused={refused}"
        )
    }
}

/// Judges a history that has come to its end: healed and drained.
#[must_use]
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    let pairs = history.devices.iter().map(|device| device.user / 2).max().map_or(0, |last| last + 1);
    for pair in 0..pairs {
        let devices = history.devices.iter().enumerate().filter(|(_, device)| device.user / 2 == pair);
        let devices = devices.filter_map(|(i, device)| Some((u32::try_from(i).ok()?, device))).collect();
        Chat { devices, sent: HashMap::new(), numbers: HashMap::new(), by_number: HashMap::new() }.check(&mut verdict);
    }
    verdict
}

struct Sent {
    at: u64,
    hash: u64,
    acked: bool,
}

/// The conversation of one pair.
struct Chat<'a> {
    devices: Vec<(u32, &'a Device)>,
    sent: HashMap<Message, Sent>,
    numbers: HashMap<Message, u32>,
    by_number: HashMap<u32, Message>,
}

impl Chat<'_> {
    fn check(mut self, verdict: &mut Verdict) {
        self.collect_sent(verdict);
        for (_, device) in self.devices.clone() {
            self.check_order(device, verdict);
        }
        self.check_all_received(verdict);
        self.check_senders(verdict);
        self.check_real_time(verdict);
        self.check_receipts(verdict);
    }

    fn collect_sent(&mut self, verdict: &mut Verdict) {
        for (index, device) in self.devices.clone() {
            for event in &device.events {
                match event.what {
                    What::Sent { k, hash } => {
                        self.sent.insert(Message { device: index, k }, Sent { at: event.at, hash, acked: false });
                    }
                    What::Acked { k, n } => {
                        let message = Message { device: index, k };
                        match self.sent.get_mut(&message) {
                            Some(sent) => {
                                verdict.acked += u64::from(!sent.acked);
                                sent.acked = true;
                            }
                            None => verdict.phantoms += 1,
                        }
                        if let Some(n) = n {
                            self.number(message, n, verdict);
                        }
                    }
                    What::Gap => verdict.gaps += 1,
                    What::Phantom => verdict.phantoms += 1,
                    What::Refused => verdict.refused += 1,
                    What::Taken { .. } | What::Acknowledged { .. } | What::MarkedRead { .. } | What::Receipt { .. } => {
                    }
                }
            }
        }
        // Every message was sent again until it was acknowledged: one that never was is lost too.
        verdict.lost += self.sent.values().filter(|sent| !sent.acked).count() as u64;
    }

    fn number(&mut self, message: Message, n: u32, verdict: &mut Verdict) {
        let known = *self.numbers.entry(message).or_insert(n);
        let other = *self.by_number.entry(n).or_insert(message);
        verdict.renumbered += u64::from(known != n || other != message);
    }

    fn check_order(&mut self, device: &Device, verdict: &mut Verdict) {
        let (mut last_seq, mut last_n) = (0, 0);
        let mut seen = std::collections::HashSet::new();
        for event in &device.events {
            let seq = match event.what {
                What::Taken { message, n, seq, hash } => {
                    match self.sent.get(&message) {
                        Some(sent) => {
                            verdict.altered += u64::from(sent.hash != hash);
                            verdict.phantoms += u64::from(event.at < sent.at);
                        }
                        None => verdict.phantoms += 1,
                    }
                    self.number(message, n, verdict);
                    if seen.insert(message) {
                        verdict.reordered += u64::from(n <= last_n);
                        last_n = last_n.max(n);
                    } else {
                        verdict.duplicated += 1;
                    }
                    seq
                }
                What::Receipt { seq, .. } => seq,
                _ => continue,
            };
            verdict.reordered += u64::from(seq <= last_seq);
            last_seq = last_seq.max(seq);
        }
    }

    fn check_all_received(&self, verdict: &mut Verdict) {
        for (index, device) in &self.devices {
            let taken = device.events.iter().filter_map(|event| match event.what {
                What::Taken { message, .. } => Some(message),
                _ => None,
            });
            let taken: std::collections::HashSet<Message> = taken.collect();
            let due = self.sent.iter().filter(|(message, sent)| sent.acked && message.device != *index);
            verdict.lost += due.filter(|(message, _)| !taken.contains(message)).count() as u64;
        }
    }

    /// The messages of one sending device have rising numbers.
    fn check_senders(&self, verdict: &mut Verdict) {
        let mut numbers: Vec<_> = self.numbers.iter().collect();
        numbers.sort_unstable();
        for two in numbers.windows(2) {
            if let [(a, a_n), (b, b_n)] = two {
                verdict.reordered += u64::from(a.device == b.device && a_n >= b_n);
            }
        }
    }

    /// Acknowledged before another was sent: the smaller number.
    fn check_real_time(&self, verdict: &mut Verdict) {
        let mut line = Vec::new();
        for (index, device) in &self.devices {
            for event in &device.events {
                let (k, sent) = match event.what {
                    What::Sent { k, .. } => (k, true),
                    What::Acked { k, .. } => (k, false),
                    _ => continue,
                };
                if let Some(n) = self.numbers.get(&Message { device: *index, k }) {
                    // At the same microsecond nothing is known: sent first.
                    line.push((event.at, !sent, *n));
                }
            }
        }
        line.sort_unstable();
        let mut acked_max = 0;
        for (_, acked, n) in line {
            if acked {
                acked_max = acked_max.max(n);
            } else {
                verdict.reordered += u64::from(n <= acked_max);
            }
        }
    }

    fn user_of(&self, device: u32) -> Option<u32> {
        self.devices.iter().find(|(index, _)| *index == device).map(|(_, device)| device.user)
    }

    fn check_receipts(&self, verdict: &mut Verdict) {
        let Some(first) = self.devices.first().map(|(_, device)| device.user / 2 * 2) else { return };
        for recipient in [first, first + 1] {
            let mut theirs: Vec<u32> = Vec::new();
            for (message, n) in &self.numbers {
                if self.user_of(message.device).is_some_and(|user| user != recipient) {
                    theirs.push(*n);
                }
            }
            theirs.sort_unstable();
            theirs.dedup();
            let had = self.first_acknowledged(recipient);
            let marks = self.marks(recipient);
            for (_, device) in &self.devices {
                let upto = self.check_receipts_at(device, recipient, &theirs, &had, &marks, verdict);
                if device.user != recipient {
                    verdict.uncovered += upto;
                }
            }
        }
    }

    /// Counts false receipts, and returns how many of `theirs` no receipt covers.
    fn check_receipts_at(
        &self,
        device: &Device,
        recipient: u32,
        theirs: &[u32],
        had: &HashMap<u32, u64>,
        marks: &[(u64, u32)],
        verdict: &mut Verdict,
    ) -> u64 {
        let final_mark = marks.last().map_or(0, |(_, n)| *n);
        // Bit 0: delivered or read, bit 1: read.
        let mut covered = vec![0_u8; theirs.len()];
        for event in &device.events {
            let What::Receipt { read, recipient: who, after, n, message, .. } = event.what else { continue };
            if who != recipient {
                verdict.false_receipts += u64::from(who / 2 != recipient / 2);
                continue;
            }
            let from = theirs.partition_point(|x| *x <= after);
            let to = theirs.partition_point(|x| *x <= n).max(from);
            let mut wrong = self.numbers.get(&message) != Some(&n) || from == to;
            for (x, seen) in theirs.iter().zip(&mut covered).skip(from).take(to - from) {
                *seen |= if read { 3 } else { 1 };
                // Who says that a message is read has it, whether its PUBACK is on the way or not: the mark is looked at below.
                wrong |= !read && had.get(x).is_none_or(|at| *at > event.at);
            }
            if read {
                let before = marks.partition_point(|(at, _)| *at <= event.at);
                let marked = before.checked_sub(1).and_then(|i| marks.get(i)).map_or(0, |(_, n)| *n);
                wrong |= theirs.get(to.wrapping_sub(1)).is_none_or(|newest| *newest > marked);
            }
            verdict.false_receipts += u64::from(wrong);
        }
        let need = |n: u32| if n <= final_mark { 3 } else { 1 };
        theirs.iter().zip(covered).filter(|(n, seen)| *seen & need(**n) != need(**n)).count() as u64
    }

    /// When the first device of a user acknowledged each number.
    fn first_acknowledged(&self, user: u32) -> HashMap<u32, u64> {
        let mut first: HashMap<u32, u64> = HashMap::new();
        for (_, device) in self.devices.iter().filter(|(_, device)| device.user == user) {
            let mut by_seq = HashMap::new();
            for event in &device.events {
                match event.what {
                    What::Taken { n, seq, .. } => {
                        by_seq.insert(seq, n);
                    }
                    What::Acknowledged { seq } => {
                        if let Some(n) = by_seq.get(&seq) {
                            let at = first.entry(*n).or_insert(event.at);
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
        let devices = self.devices.iter().filter(|(_, device)| device.user == user);
        let events = devices.flat_map(|(_, device)| &device.events);
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

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
