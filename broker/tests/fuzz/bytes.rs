//! What a connection asked for and what it was told, read from the bytes as the standard has them, without the door's code.

use std::collections::HashMap;

/// A packet's first byte, and its body.
pub(crate) type Cut<'a> = (u8, &'a [u8]);

/// Cuts a stream into packets. `true`: there is a part of one behind them.
pub(crate) fn cut(mut bytes: &[u8]) -> (Vec<Cut<'_>>, bool) {
    let mut packets = Vec::new();
    while let [first, rest @ ..] = bytes {
        let Some((length, used)) = remaining_length(rest) else { return (packets, true) };
        let Some(body) = rest.get(used..used + length) else { return (packets, true) };
        packets.push((*first, body));
        bytes = &rest[used + length..];
    }
    (packets, false)
}

fn remaining_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((length, at + 1));
        }
    }
    None
}

fn number(bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |two| u16::from_be_bytes(*two))
}

/// How often something was asked for or said, by kind of answer and packet id.
type Counts = HashMap<(u8, u16), u32>;

/// The most answers that a client may get to what it wrote.
pub(crate) fn asked(written: &[u8]) -> Counts {
    let mut counts = Counts::new();
    for (first, body) in cut(written).0 {
        let answer = match (first >> 4, (first >> 1) & 3) {
            (3, 0) => continue,
            (3, qos) => {
                let id = body.get(2 + usize::from(number(body))..).map_or(0, number);
                (if qos == 1 { 0x40 } else { 0x50 }, id)
            }
            (6, _) => (0x70, number(body)),
            (8, _) => (0x90, number(body)),
            (10, _) => (0xb0, number(body)),
            (12, _) => (0xd0, 0),
            (1, _) => (0x20, 0),
            _ => continue,
        };
        *counts.entry(answer).or_default() += 1;
    }
    counts
}

/// Holds what a client was told to what it asked for. `number` is the connection that its PUBACKs name, as far as one is known.
pub(crate) fn check(written: &[u8], told: &[u8], number_of: &mut Option<u64>) -> Result<(), String> {
    let mut left = asked(written);
    let (packets, _) = cut(told);
    for (at, (first, body)) in packets.iter().enumerate() {
        let kind = first & 0xf0;
        if (at == 0) != (kind == 0x20) {
            return Err(format!("packet {at} is a 0x{first:02x}: one CONNACK, and before everything else"));
        }
        let id = match kind {
            0x20 | 0xd0 => 0,
            0x30 if left.keys().any(|(kind, _)| *kind == 0x90) => continue,
            0x30 => return Err("an entry without a SUBSCRIBE".to_owned()),
            // PUBREL: of a QoS 2 PUBLISH of the server, which there is none of.
            0x40 | 0x50 | 0x70 | 0x90 | 0xb0 => number(body),
            0xe0 if at + 1 == packets.len() => continue,
            _ => return Err(format!("a 0x{first:02x}, packet {at} of {}", packets.len())),
        };
        match left.get_mut(&(kind, id)) {
            Some(count @ 1..) => *count -= 1,
            _ => return Err(format!("a 0x{kind:02x} for packet id {id}, which was not asked for (so often)")),
        }
        if let Some((of, packet)) = signature(body)
            && (packet != id || *number_of.get_or_insert(of) != of)
        {
            return Err(format!("an answer to packet {packet} of connection {of} as one to {id} of {number_of:?}"));
        }
    }
    Ok(())
}

/// The connection and the packet that the bridge answered, from the id it gave: `c17-3.`.
fn signature(body: &[u8]) -> Option<(u64, u16)> {
    let text: String = body.iter().map(|byte| char::from(*byte)).collect();
    let (of, packet) = text.split_once("re:c")?.1.split_once('.')?.0.split_once('-')?;
    Some((of.parse().ok()?, packet.parse().ok()?))
}
