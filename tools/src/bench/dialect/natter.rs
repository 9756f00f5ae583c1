//! Natter: a message goes to the sender's outbox, an entry comes from the receiver's inbox, and the server makes the receipt.

use anyhow::Result;
use serde_json::Value;

use super::{DEVICE, Dialect, Heard, Script, Side, expected, packet_id, scan, write_number};
use crate::bench::packets::{split, topic};
use crate::mqtt::{self, Packet};

/// See the module.
pub(crate) struct Natter {
    from: String,
    to: String,
    topic: String,
    /// With the number of the message to be written at `number_at`.
    payload: Vec<u8>,
    number_at: usize,
}

impl Dialect for Natter {
    const ACCEPTS: bool = true;

    fn new(Script { from, to, text_bytes, run }: Script) -> Self {
        let text = "x".repeat(text_bytes);
        let payload =
            format!(r#"{{"id":"{run:016x}-{:016x}","to":"{to}","type":"text","text":{{"body":"{text}"}}}}"#, 0);
        let topic = topic(&from, DEVICE, "outbox");
        Self { from, to, topic, payload: payload.into_bytes(), number_at: r#"{"id":""#.len() + 17 }
    }

    fn base(&self) -> Option<u64> {
        None
    }

    fn write_message(&mut self, k: u64, output: &mut Vec<u8>) {
        write_number(k, self.number_at, &mut self.payload);
        mqtt::write_publish(output, true, &self.topic, packet_id(k), &self.payload);
    }

    fn hear(&mut self, side: Side, bytes: &[u8], output: &mut Vec<u8>) -> Result<Option<(Heard, usize)>> {
        let Some((first, body, end)) = split(bytes) else { return Ok(None) };
        Ok(Some((hear(side, first, body, output)?, end)))
    }

    fn accepted_as(&self, got: &[u8]) -> Option<u64> {
        let (first, body, _) = split(got)?;
        match mqtt::decode(first, body, true)? {
            Packet::PubAck { n: Some(n), .. } => Some(n.into()),
            _ => None,
        }
    }

    fn is_message(&self, got: &[u8], n: u64, k: u64) -> bool {
        entry(got).is_some_and(|entry| is_message(&entry, &self.from, n, k))
    }

    fn is_receipt(&self, got: &[u8], after: u64, n: u64) -> bool {
        entry(got).is_some_and(|entry| is_receipt(&entry, &self.to, after, n))
    }
}

/// What a packet says: a message or a receipt, which is answered by a PUBACK, or a PUBACK.
pub(super) fn hear(side: Side, first: u8, body: &[u8], output: &mut Vec<u8>) -> Result<Heard> {
    match (first >> 4, side) {
        (3, side) => {
            let (qos, id, payload) = mqtt::split_publish(first, body, true).ok_or_else(|| expected("a PUBLISH"))?;
            if qos > 0 {
                output.extend_from_slice(&mqtt::puback_bytes(id));
            }
            match side {
                Side::Receiver => {
                    scan::message(payload).map(|n| Heard::Message { n }).ok_or_else(|| expected("a message"))
                }
                Side::Sender => scan::delivered(payload)
                    .map(|scan::Receipt { after, n }| Heard::Receipt { after, n })
                    .ok_or_else(|| expected("a receipt: delivered")),
            }
        }
        (4, Side::Sender) if body.get(2).is_none_or(|reason| *reason < 0x80) => body
            .first_chunk()
            .map(|id| Heard::Accepted { packet: u16::from_be_bytes(*id) })
            .ok_or_else(|| expected("a packet id")),
        _ => Err(expected("PUBLISH, or PUBACK that accepts")),
    }
}

/// The entry in a PUBLISH.
pub(super) fn entry(got: &[u8]) -> Option<Value> {
    let (first, body, _) = split(got)?;
    serde_json::from_slice(mqtt::split_publish(first, body, true)?.2).ok()
}

pub(super) fn is_message(entry: &Value, from: &str, n: u64, k: u64) -> bool {
    let id = entry["id"].as_str().and_then(|id| id.rsplit('-').next());
    entry["n"] == n && entry["from"] == from && id == Some(&format!("{k:016x}"))
}

pub(super) fn is_receipt(entry: &Value, to: &str, after: u64, n: u64) -> bool {
    let is_delivered = entry["type"] == "status" && entry["status"] == "delivered" && entry["chat"] == to;
    is_delivered && entry["after"] == after && entry["n"] == n
}
