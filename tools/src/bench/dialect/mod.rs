//! What the clients of a pair say and hear: Natter's messages, a plain broker's, or XMPP's. The scenario (`pairs`) is the same.
//!
//! - `natter` messages to the outbox, receipts from the server · `relay` a plain broker, the receiver publishes receipts itself
//! - `xmpp` messages with XEP-0184 receipts · `scan` what is read of an entry

pub(crate) mod natter;
pub(crate) mod relay;
pub(crate) mod scan;
pub(crate) mod xmpp;

use anyhow::{Result, anyhow};

/// The device of everybody here.
pub(crate) const DEVICE: &str = "phone";

/// A pair, and what its messages are made of.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// Who writes.
    pub(crate) from: String,
    /// Who receives.
    pub(crate) to: String,
    pub(crate) text_bytes: usize,
    /// What makes the ids of this run its own.
    pub(crate) run: u64,
}

/// Whose connection something came on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Sender,
    Receiver,
}

/// What a connection was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The server has taken the sender's message with this packet id.
    Accepted { packet: u16 },
    /// Message `n` of the chat is at its receiver.
    Message { n: u64 },
    /// What is behind `after`, up to `n`, is known by its sender to have been delivered.
    Receipt { after: u64, n: u64 },
    /// What says nothing of a message.
    Nothing,
}

/// The protocol of a pair. Message k (from 0) of a run has the number `n` = base + k + 1 in its chat.
pub(crate) trait Dialect: Sized {
    /// Whether a server says that it has taken a message, before it is delivered.
    const ACCEPTS: bool;

    fn new(script: Script) -> Self;

    /// The number before the first message's, if it is known from the start.
    fn base(&self) -> Option<u64> {
        Some(0)
    }

    /// Writes message `k`.
    fn write_message(&mut self, k: u64, output: &mut Vec<u8>);

    /// What a receiver says of message `n`, beside what [`Dialect::hear`] has answered.
    fn write_receipt(&mut self, _n: u64, _output: &mut Vec<u8>) {}

    /// Reads the first thing of `bytes`, and how long it is; `None`: not all of it is there. What the protocol itself demands is answered.
    ///
    /// # Errors
    /// It is nothing that may come here; the words are what was expected.
    fn hear(&mut self, side: Side, bytes: &[u8], output: &mut Vec<u8>) -> Result<Option<(Heard, usize)>>;

    /// The number that an `Accepted` told, if it did.
    fn accepted_as(&self, _got: &[u8]) -> Option<u64> {
        None
    }

    /// Reads a sample in full, with a parser; whether it is message `n`, which is message `k` of the run.
    fn is_message(&self, got: &[u8], n: u64, k: u64) -> bool;

    /// Likewise a receipt.
    fn is_receipt(&self, got: &[u8], after: u64, n: u64) -> bool;
}

/// Packet id of message k.
pub(crate) fn packet_id(k: u64) -> u16 {
    // Below 65,535.
    u16::try_from(k % 65_535).unwrap_or(0) + 1
}

/// Writes `k` as 16 hexadecimal digits over what is at `at`.
fn write_number(k: u64, at: usize, into: &mut [u8]) {
    let mut rest = k;
    for digit in into.get_mut(at..at + 16).unwrap_or_default().iter_mut().rev() {
        *digit = *b"0123456789abcdef".get((rest & 15) as usize).unwrap_or(&b'0');
        rest >>= 4;
    }
}

fn expected(what: &str) -> anyhow::Error {
    anyhow!("{what}")
}
