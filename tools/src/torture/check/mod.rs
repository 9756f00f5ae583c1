//! The judge: reads a history and counts what must not be. No I/O and no clock.

mod chat;
mod order;
mod receipts;

use std::fmt;

use super::history::History;
use chat::Chat;

/// How many violations of each kind are told in words.
const WORDS_MAX: u64 = 3;

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
    /// Receipts of what an earlier one said already; or `delivered` of what is read: a tick that goes back.
    pub repeated_receipts: u64,
    /// Acknowledged messages that the receipts at the end do not cover, per device of the sender.
    pub uncovered: u64,
    /// Missing entries that the client noticed by `prev`.
    pub gaps: u64,
    /// Messages with another body than sent.
    pub altered: u64,
    /// One message with two numbers, or one number with two messages.
    pub renumbered: u64,
    /// Numbers that no message has, below one that has.
    pub skipped: u64,
    /// Received, and never sent.
    pub phantoms: u64,
    /// Refused, although nothing was wrong with it.
    pub refused: u64,
    /// Devices that had not sent, received or heard everything in time after the last fault.
    pub stuck: u64,
    /// Bounds of the server's memory, files or descriptors that it exceeded.
    pub unbounded: u64,
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
        let Self { acked, lost, duplicated, reordered, false_receipts, repeated_receipts, uncovered, gaps, .. } = self;
        let Self { altered, renumbered, skipped, phantoms, refused, stuck, unbounded, .. } = self;
        write!(
            f,
            "acked={acked} lost={lost} duplicated={duplicated} reordered={reordered} false_receipts={false_receipts} \
             repeated_receipts={repeated_receipts} uncovered={uncovered} gaps={gaps} altered={altered} \
             renumbered={renumbered} skipped={skipped} phantoms={phantoms} refused={refused} stuck={stuck} \
             unbounded={unbounded}"
        )
    }
}

/// A verdict, and what it rests on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The counts.
    pub verdict: Verdict,
    /// The first violations in words.
    pub words: Vec<String>,
}

impl Judgement {
    /// A device that was not done in time.
    pub(crate) fn stuck(&mut self, device: u32, text: &str) {
        self.blame(true, |v| &mut v.stuck, || format!("stuck: device {device}: {text}"));
    }

    /// A bound that was exceeded.
    pub(crate) fn unbounded(&mut self, text: &str) {
        self.blame(true, |v| &mut v.unbounded, || format!("unbounded: {text}"));
    }

    /// Counts a violation if `wrong`.
    fn blame(&mut self, wrong: bool, count: fn(&mut Verdict) -> &mut u64, text: impl FnOnce() -> String) {
        if wrong {
            let count = count(&mut self.verdict);
            *count += 1;
            if *count <= WORDS_MAX {
                self.words.push(text());
            }
        }
    }
}

/// Judges a history that has come to its end: healed and drained.
pub fn check(history: &History, judgement: &mut Judgement) {
    let mut chat = Chat::new(history, judgement);
    chat.check_order(judgement);
    chat.check_senders(judgement);
    chat.check_numbers(judgement);
    chat.check_real_time(judgement);
    chat.check_receipts(judgement);
}

#[cfg(test)]
mod tests;
