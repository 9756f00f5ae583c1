//! A plain broker: the sender publishes to the receiver's inbox what Natter's entry would be, and the receiver publishes the receipt, one for
//! each message.

use std::io::Write as _;

use anyhow::Result;

use super::natter::{entry, hear, is_message, is_receipt};
use super::{DEVICE, Dialect, Heard, Script, Side, packet_id};
use crate::bench::packets::{split, topic};
use crate::mqtt;

/// See the module.
pub(crate) struct Relay {
    from: String,
    to: String,
    there: String,
    back: String,
    text: String,
    scratch: Vec<u8>,
}

impl Dialect for Relay {
    const ACCEPTS: bool = true;

    fn new(Script { from, to, text_bytes, run: _ }: Script) -> Self {
        let (there, back) = (topic(&to, DEVICE, "inbox"), topic(&from, DEVICE, "inbox"));
        Self { from, to, there, back, text: "x".repeat(text_bytes), scratch: Vec::new() }
    }

    fn write_message(&mut self, k: u64, output: &mut Vec<u8>) {
        let Self { from, text, there, scratch, .. } = self;
        let (n, prev) = (k + 1, k);
        scratch.clear();
        // Writing to memory does not fail.
        let _ = write!(
            scratch,
            r#"{{"seq":{n},"prev":{prev},"from":"{from}","chat":"{from}","n":{n},"id":"{:016x}-{k:016x}","timestamp":"1764000000","type":"text","text":{{"body":"{text}"}}}}"#,
            0
        );
        mqtt::write_publish(output, true, there, packet_id(k), scratch);
    }

    fn write_receipt(&mut self, n: u64, output: &mut Vec<u8>) {
        let Self { to, back, scratch, .. } = self;
        let (prev, k) = (n - 1, n - 1);
        scratch.clear();
        // Writing to memory does not fail.
        let _ = write!(
            scratch,
            r#"{{"seq":{n},"prev":{prev},"type":"status","status":"delivered","chat":"{to}","after":{prev},"n":{n},"id":"{:016x}-{k:016x}","recipient_id":"{to}","timestamp":"1764000000"}}"#,
            0
        );
        mqtt::write_publish(output, true, back, packet_id(k), scratch);
    }

    fn hear(&mut self, side: Side, bytes: &[u8], output: &mut Vec<u8>) -> Result<Option<(Heard, usize)>> {
        let Some((first, body, end)) = split(bytes) else { return Ok(None) };
        // Of the receipts that the receiver has published.
        if first >> 4 == 4 && side == Side::Receiver {
            return Ok(Some((Heard::Nothing, end)));
        }
        Ok(Some((hear(side, first, body, output)?, end)))
    }

    fn is_message(&self, got: &[u8], n: u64, k: u64) -> bool {
        entry(got).is_some_and(|entry| is_message(&entry, &self.from, n, k))
    }

    fn is_receipt(&self, got: &[u8], after: u64, n: u64) -> bool {
        entry(got).is_some_and(|entry| is_receipt(&entry, &self.to, after, n))
    }
}
