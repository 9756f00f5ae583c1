//! Whether a packet is legal, on its raw bytes and before the codec sees it: the codec forgives much of what the standard forbids.
//!
//! A violation carries the MQTT 5 reason that ends the connection. Numbers in comments are sections and statements of MQTT 5.

use crate::packet::Version;

/// Largest CONNECT, in bytes behind the fixed header.
pub(crate) const CONNECT_BYTES_MAX: usize = 16 * 1024;
/// Largest packet that is read, in bytes with its header; also what CONNACK says.
pub(crate) const PACKET_BYTES_MAX: usize = 128 * 1024;
/// Largest PUBLISH that is read past and refused, rather than ending the connection.
pub const OVERSIZE_BYTES_MAX: usize = 256 * 1024;
/// Most filters of one SUBSCRIBE or UNSUBSCRIBE; more is 0x97.
pub(crate) const FILTERS_MAX: usize = 128;
/// Longest client id that is taken.
pub(crate) const CLIENT_ID_BYTES_MAX: usize = 256;

/// A packet that ends the connection, with this reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) u8);

pub(crate) const MALFORMED: Violation = Violation(0x81);
pub(crate) const PROTOCOL_ERROR: Violation = Violation(0x82);
pub(crate) const TOPIC_INVALID: Violation = Violation(0x90);
pub(crate) const ALIAS_INVALID: Violation = Violation(0x94);
pub(crate) const TOO_LARGE: Violation = Violation(0x95);
pub(crate) const QUOTA: Violation = Violation(0x97);
pub(crate) const RETAIN: Violation = Violation(0x9a);
pub(crate) const SUBSCRIPTION_ID: Violation = Violation(0xa1);

/// A CONNECT that is not even looked at further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadConnect {
    /// Not MQTT, or nothing that has an answer: just closed.
    Close,
    /// Answered by a CONNACK of this version with this code, then closed.
    Refuse(Version, u8),
}

/// Packet types (2.1.2).
pub(crate) mod kind {
    pub(crate) const CONNECT: u8 = 1;
    pub(crate) const PUBLISH: u8 = 3;
    pub(crate) const PUBACK: u8 = 4;
    pub(crate) const PUBREL: u8 = 6;
    pub(crate) const SUBSCRIBE: u8 = 8;
    pub(crate) const UNSUBSCRIBE: u8 = 10;
    pub(crate) const PINGREQ: u8 = 12;
    pub(crate) const DISCONNECT: u8 = 14;
}

/// Checks the first byte: a type that a client may send, with its exact flags.
pub(crate) fn first_byte(first: u8) -> Result<(), Violation> {
    let flags = first & 0x0f;
    match first >> 4 {
        kind::PUBLISH => {
            let qos = (flags >> 1) & 3;
            // [MQTT-3.3.1-4], [MQTT-3.3.1-2]
            if qos == 3 || (qos == 0 && flags & 8 != 0) { Err(MALFORMED) } else { Ok(()) }
        }
        // [MQTT-2.1.3-1]
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE if flags != 2 => Err(MALFORMED),
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => Ok(()),
        kind::CONNECT | kind::PUBACK | kind::PINGREQ | kind::DISCONNECT if flags != 0 => Err(MALFORMED),
        kind::CONNECT | kind::PUBACK | kind::PINGREQ | kind::DISCONNECT => Ok(()),
        // PUBREC and PUBCOMP too: nothing is sent to a client at QoS 2. AUTH: no method was agreed at CONNECT.
        _ => Err(PROTOCOL_ERROR),
    }
}

/// Reads a remaining length: the value and its bytes, `None` when not all of it is there.
pub(crate) fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Violation> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            // [MQTT-1.5.5-1]: in as few bytes as it takes.
            return if i > 0 && *byte == 0 { Err(MALFORMED) } else { Ok(Some((value, i + 1))) };
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(MALFORMED) }
}

/// Checks a whole packet after CONNECT; `body` is what follows the fixed header.
pub(crate) fn packet(version: Version, first: u8, body: &[u8]) -> Result<(), Violation> {
    first_byte(first)?;
    let mut cursor = Cursor(body);
    match first >> 4 {
        // [MQTT-3.1.0-2]
        kind::CONNECT => Err(PROTOCOL_ERROR),
        kind::PUBLISH => publish(version, first, &mut cursor),
        kind::PUBACK => ack(version, &mut cursor, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
        kind::PUBREL => ack(version, &mut cursor, &[0x00, 0x92]),
        kind::SUBSCRIBE => subscribe(version, &mut cursor),
        kind::UNSUBSCRIBE => unsubscribe(version, &mut cursor),
        kind::DISCONNECT => disconnect(version, &mut cursor),
        _ => cursor.end(),
    }
}

/// Checks a CONNECT and says what version its client speaks.
pub(crate) fn connect(body: &[u8]) -> Result<Version, BadConnect> {
    let mut cursor = Cursor(body);
    let name = cursor.binary().map_err(|_| BadConnect::Close)?;
    let level = cursor.u8().map_err(|_| BadConnect::Close)?;
    let version = match (name, level) {
        (b"MQTT", 4) => Version::V3,
        (b"MQTT", 5) => Version::V5,
        // [MQTT-3.1.2-2]; what is newer than 5 may understand an answer of 5.
        (b"MQTT", 6..) => return Err(BadConnect::Refuse(Version::V5, 0x84)),
        (b"MQTT" | b"MQIsdp", _) => return Err(BadConnect::Refuse(Version::V3, 1)),
        _ => return Err(BadConnect::Close),
    };
    match connect_fields(version, &mut cursor) {
        Ok(()) => Ok(version),
        Err(Violation(2)) => Err(BadConnect::Refuse(version, 2)),
        Err(Violation(reason)) if version == Version::V5 => Err(BadConnect::Refuse(version, reason)),
        Err(_) => Err(BadConnect::Close),
    }
}

/// Where the four bytes of the Message Expiry Interval of an MQTT 5 CONNECT's will stand in its body, which is legal.
pub(crate) fn will_expiry(body: &[u8]) -> Option<usize> {
    let mut cursor = Cursor(body);
    // Name, level, flags, keepalive.
    let (_, _, flags, _) = (cursor.binary().ok()?, cursor.u8().ok()?, cursor.u8().ok()?, cursor.u16().ok()?);
    if flags & 0x04 == 0 {
        return None;
    }
    let length = cursor.varint().ok()?;
    cursor.take(length).ok()?;
    cursor.string().ok()?;
    let length = cursor.varint().ok()?;
    let mut properties = Cursor(cursor.take(length).ok()?);
    loop {
        let id = properties.u8().ok()?;
        if id == 0x02 {
            return Some(body.len() - cursor.0.len() - properties.0.len());
        }
        properties.property(id).ok()?;
    }
}

fn connect_fields(version: Version, cursor: &mut Cursor<'_>) -> Result<(), Violation> {
    let flags = cursor.u8()?;
    let has = |bit: u8| flags & bit != 0;
    let (user_name, password, will_retain, will, clean) = (has(0x80), has(0x40), has(0x20), has(0x04), has(0x02));
    let will_qos = (flags >> 3) & 3;
    // [MQTT-3.1.2-3], [MQTT-3.1.2-11], [MQTT-3.1.2-12], [MQTT-3.1.2-13]
    if has(0x01) || will_qos == 3 || (!will && (will_qos != 0 || will_retain)) {
        return Err(MALFORMED);
    }
    // 3.1.1 [MQTT-3.1.2-22]
    if version == Version::V3 && password && !user_name {
        return Err(MALFORMED);
    }
    cursor.u16()?;
    if version == Version::V5 {
        let seen = cursor.properties(&[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27])?;
        if seen.has(0x16) && !seen.has(0x15) {
            return Err(PROTOCOL_ERROR);
        }
    }
    let client_id = cursor.string()?;
    // 3.1.1 [MQTT-3.1.3-8]: the CONNACK for it is 2.
    let is_unnamed_session = version == Version::V3 && client_id.is_empty() && !clean;
    if will {
        if version == Version::V5 {
            cursor.properties(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26])?;
        }
        topic_name(cursor.string()?)?;
        cursor.binary()?;
    }
    if user_name {
        cursor.string()?;
    }
    if password {
        cursor.binary()?;
    }
    cursor.end()?;
    if is_unnamed_session { Err(Violation(2)) } else { Ok(()) }
}

fn publish(version: Version, first: u8, cursor: &mut Cursor<'_>) -> Result<(), Violation> {
    let topic = cursor.string()?;
    if first & 0x06 != 0 {
        cursor.packet_id()?;
    }
    if version == Version::V5 {
        // [MQTT-3.3.4-6]: Subscription Identifiers are not among a client's.
        let seen = cursor.properties(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x23, 0x26])?;
        if seen.has(0x23) {
            return Err(ALIAS_INVALID);
        }
        if seen.has(0x0b) {
            return Err(PROTOCOL_ERROR);
        }
        if first & 1 != 0 {
            return Err(RETAIN);
        }
    }
    topic_name(topic)
}

/// The head of a PUBLISH that is too large to read: its packet id, 0 at QoS 0; `None` while `head` does not reach that far.
pub(crate) fn oversize_head(version: Version, first: u8, head: &[u8]) -> Result<Option<u16>, Violation> {
    let mut cursor = Cursor(head);
    let packet_id = (|| {
        let topic = cursor.binary()?;
        let id = if first & 0x06 == 0 { 0 } else { cursor.u16()? };
        Ok::<_, Violation>((topic, id))
    })();
    let Ok((topic, id)) = packet_id else { return Ok(None) };
    topic_name(Cursor::text(topic)?)?;
    if version == Version::V5 && first & 1 != 0 {
        return Err(RETAIN);
    }
    if first & 0x06 != 0 && id == 0 { Err(PROTOCOL_ERROR) } else { Ok(Some(id)) }
}

/// [MQTT-4.7.3-1], [MQTT-3.3.2-2]
fn topic_name(topic: &str) -> Result<(), Violation> {
    if topic.is_empty() {
        Err(PROTOCOL_ERROR)
    } else if topic.contains(['+', '#']) {
        Err(TOPIC_INVALID)
    } else {
        Ok(())
    }
}

fn ack(version: Version, cursor: &mut Cursor<'_>, reasons: &[u8]) -> Result<(), Violation> {
    cursor.packet_id()?;
    if version == Version::V5 && !cursor.0.is_empty() {
        if !reasons.contains(&cursor.u8()?) {
            return Err(MALFORMED);
        }
        if !cursor.0.is_empty() {
            cursor.properties(&[0x1f, 0x26])?;
        }
    }
    cursor.end()
}

fn subscribe(version: Version, cursor: &mut Cursor<'_>) -> Result<(), Violation> {
    cursor.packet_id()?;
    // 3.2.2.3.12: CONNACK said that there are no subscription identifiers.
    if version == Version::V5 && cursor.properties(&[0x0b, 0x26])?.has(0x0b) {
        return Err(SUBSCRIPTION_ID);
    }
    filters(cursor, |cursor, filter| {
        let options = cursor.u8()?;
        let is_legal = match version {
            Version::V3 => options <= 2,
            // [MQTT-3.8.3-5]; retain handling 3 and QoS 3 do not exist
            Version::V5 => options & 0xc0 == 0 && options & 0x30 != 0x30 && options & 3 != 3,
        };
        if !is_legal {
            return Err(MALFORMED);
        }
        // [MQTT-3.8.3-4]
        let is_shared_no_local = version == Version::V5 && options & 4 != 0 && filter.starts_with("$share/");
        if is_shared_no_local { Err(PROTOCOL_ERROR) } else { Ok(()) }
    })
}

fn unsubscribe(version: Version, cursor: &mut Cursor<'_>) -> Result<(), Violation> {
    cursor.packet_id()?;
    if version == Version::V5 {
        cursor.properties(&[0x26])?;
    }
    filters(cursor, |_, _| Ok(()))
}

/// At least one filter ([MQTT-3.8.3-2]), none of them empty; `options` reads what follows each.
fn filters<'a>(
    cursor: &mut Cursor<'a>,
    options: impl Fn(&mut Cursor<'a>, &str) -> Result<(), Violation>,
) -> Result<(), Violation> {
    let mut count = 0;
    while !cursor.0.is_empty() {
        let filter = cursor.string()?;
        options(cursor, filter)?;
        if filter.is_empty() {
            return Err(PROTOCOL_ERROR);
        }
        count += 1;
        if count > FILTERS_MAX {
            return Err(QUOTA);
        }
    }
    if count == 0 { Err(PROTOCOL_ERROR) } else { Ok(()) }
}

fn disconnect(version: Version, cursor: &mut Cursor<'_>) -> Result<(), Violation> {
    const REASONS: [u8; 14] = [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
    if version == Version::V5 && !cursor.0.is_empty() {
        if !REASONS.contains(&cursor.u8()?) {
            return Err(PROTOCOL_ERROR);
        }
        if !cursor.0.is_empty() {
            cursor.properties(&[0x11, 0x1f, 0x26])?;
        }
    }
    cursor.end()
}

/// Whether a filter follows the grammar of 4.7.1: `+` fills a level, `#` fills the last one.
pub(crate) fn is_filter(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_legal = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            _ => !level.contains(['+', '#']),
        };
        if !is_legal {
            return false;
        }
    }
    !filter.is_empty()
}

/// Which properties a packet carries.
#[derive(Clone, Copy, Default)]
struct Seen(u64);

impl Seen {
    fn has(self, id: u8) -> bool {
        self.0 & (1 << id) != 0
    }
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Violation> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Violation> {
        let (first, rest) = self.0.split_first().ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(*first)
    }

    fn u16(&mut self) -> Result<u16, Violation> {
        Ok(u16::from(self.u8()?) << 8 | u16::from(self.u8()?))
    }

    fn u32(&mut self) -> Result<u32, Violation> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    /// [MQTT-2.2.1-3]
    fn packet_id(&mut self) -> Result<u16, Violation> {
        match self.u16()? {
            0 => Err(PROTOCOL_ERROR),
            id => Ok(id),
        }
    }

    fn binary(&mut self) -> Result<&'a [u8], Violation> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    fn string(&mut self) -> Result<&'a str, Violation> {
        Self::text(self.binary()?)
    }

    /// [MQTT-1.5.4-1], [MQTT-1.5.4-2]
    fn text(bytes: &[u8]) -> Result<&str, Violation> {
        match std::str::from_utf8(bytes) {
            Ok(text) if !bytes.contains(&0) => Ok(text),
            _ => Err(MALFORMED),
        }
    }

    fn varint(&mut self) -> Result<usize, Violation> {
        let (value, length) = remaining_length(self.0)?.ok_or(MALFORMED)?;
        self.take(length)?;
        Ok(value)
    }

    fn end(&self) -> Result<(), Violation> {
        if self.0.is_empty() { Ok(()) } else { Err(MALFORMED) }
    }

    /// Reads the properties: only those of `allowed`, each but User Property once (2.2.2.2).
    fn properties(&mut self, allowed: &[u8]) -> Result<Seen, Violation> {
        let length = self.varint()?;
        let mut properties = Self(self.take(length)?);
        let mut seen = Seen::default();
        while !properties.0.is_empty() {
            let id = properties.u8()?;
            if !allowed.contains(&id) {
                return Err(MALFORMED);
            }
            if id != 0x26 && seen.has(id) {
                return Err(PROTOCOL_ERROR);
            }
            seen.0 |= 1 << id;
            properties.property(id)?;
        }
        Ok(seen)
    }

    fn property(&mut self, id: u8) -> Result<(), Violation> {
        match id {
            0x01 | 0x17 | 0x19 => {
                if self.u8()? > 1 {
                    return Err(PROTOCOL_ERROR);
                }
            }
            // Receive Maximum and Maximum Packet Size are never 0 (3.1.2.11.3, 3.1.2.11.4).
            0x21 => {
                if self.u16()? == 0 {
                    return Err(PROTOCOL_ERROR);
                }
            }
            0x27 => {
                if self.u32()? == 0 {
                    return Err(PROTOCOL_ERROR);
                }
            }
            0x22 | 0x23 => {
                self.u16()?;
            }
            0x02 | 0x11 | 0x18 => {
                self.u32()?;
            }
            0x0b => {
                if self.varint()? == 0 {
                    return Err(PROTOCOL_ERROR);
                }
            }
            0x08 => topic_name(self.string()?)?,
            0x03 | 0x15 | 0x1f => {
                self.string()?;
            }
            0x09 | 0x16 => {
                self.binary()?;
            }
            0x26 => {
                self.string()?;
                self.string()?;
            }
            _ => return Err(MALFORMED),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V3: Version = Version::V3;
    const V5: Version = Version::V5;

    /// What is checked, the version, the first byte and the body, the reason expected (0: legal).
    type Row = (&'static str, Version, u8, &'static [u8], u8);

    #[rustfmt::skip]
    const PACKETS: &[Row] = &[
        ("type 0", V5, 0x00, b"", 0x82),
        ("a second CONNECT", V3, 0x10, b"\0\x04MQTT\x04\x02\0\0\0\0", 0x82),
        ("CONNACK from a client", V5, 0x20, b"\0\0\0", 0x82),
        ("PUBREC", V5, 0x50, b"\0\x01", 0x82),
        ("PUBCOMP", V3, 0x70, b"\0\x01", 0x82),
        ("SUBACK", V3, 0x90, b"\0\x01\0", 0x82),
        ("UNSUBACK", V5, 0xb0, b"\0\x01\0\0", 0x82),
        ("PINGRESP", V5, 0xd0, b"", 0x82),
        ("AUTH", V5, 0xf0, b"", 0x82),
        ("PUBLISH QoS 0", V3, 0x30, b"\0\x01axyz", 0),
        ("PUBLISH QoS 0, no payload", V3, 0x30, b"\0\x01a", 0),
        ("PUBLISH QoS 1", V3, 0x32, b"\0\x01a\0\x01xyz", 0),
        ("PUBLISH QoS 2", V3, 0x34, b"\0\x01a\0\x01xyz", 0),
        ("PUBLISH DUP QoS 1", V3, 0x3a, b"\0\x01a\0\x01xyz", 0),
        ("PUBLISH retain on 3.1.1", V3, 0x31, b"\0\x01axyz", 0),
        ("PUBLISH retain on 5", V5, 0x31, b"\0\x01a\0xyz", 0x9a),
        ("PUBLISH QoS 3", V3, 0x36, b"\0\x01a\0\x01xyz", 0x81),
        ("PUBLISH DUP at QoS 0", V3, 0x38, b"\0\x01axyz", 0x81),
        ("PUBLISH packet id 0", V3, 0x32, b"\0\x01a\0\0xyz", 0x82),
        ("PUBLISH without packet id", V3, 0x32, b"\0\x01a\0", 0x81),
        ("PUBLISH empty topic", V3, 0x30, b"\0\0xyz", 0x82),
        ("PUBLISH empty topic and no alias", V5, 0x30, b"\0\0\0xyz", 0x82),
        ("PUBLISH alias", V5, 0x30, b"\0\x01a\x03\x23\0\x01xyz", 0x94),
        ("PUBLISH alias and no topic", V5, 0x30, b"\0\0\x03\x23\0\x01xyz", 0x94),
        ("PUBLISH wildcard", V3, 0x30, b"\0\x01#xyz", 0x90),
        ("PUBLISH wildcard level", V5, 0x30, b"\0\x03a/+\0xyz", 0x90),
        ("PUBLISH topic past the end", V3, 0x30, b"\0\x09a", 0x81),
        ("PUBLISH topic not UTF-8", V3, 0x30, b"\0\x02\xc3\x28", 0x81),
        ("PUBLISH topic with a surrogate", V3, 0x30, b"\0\x03\xed\xa0\x80", 0x81),
        ("PUBLISH topic with U+0000", V3, 0x30, b"\0\x02a\0", 0x81),
        ("PUBLISH topic beyond ASCII", V3, 0x30, b"\0\x03\xc3\xa9/", 0),
        ("PUBLISH properties", V5, 0x32, b"\0\x01a\0\x01\x13\x01\x01\x02\0\0\0\x05\x03\0\x01t\x08\0\x01r\x09\0\x01cxyz", 0),
        ("PUBLISH message expiry 0", V5, 0x32, b"\0\x01a\0\x01\x05\x02\0\0\0\0xyz", 0),
        ("PUBLISH user property twice", V5, 0x30, b"\0\x01a\x0e\x26\0\x01k\0\x01v\x26\0\x01k\0\x01vxyz", 0),
        ("PUBLISH content type twice", V5, 0x30, b"\0\x01a\x08\x03\0\x01t\x03\0\x01txyz", 0x82),
        ("PUBLISH payload format 2", V5, 0x30, b"\0\x01a\x02\x01\x02xyz", 0x82),
        ("PUBLISH subscription id", V5, 0x30, b"\0\x01a\x02\x0b\x01xyz", 0x82),
        ("PUBLISH a property of CONNECT", V5, 0x30, b"\0\x01a\x05\x11\0\0\0\x01xyz", 0x81),
        ("PUBLISH an unknown property", V5, 0x30, b"\0\x01a\x02\x7e\x01xyz", 0x81),
        ("PUBLISH properties past the end", V5, 0x30, b"\0\x01a\x40\x01", 0x81),
        ("PUBLISH property cut off", V5, 0x30, b"\0\x01a\x03\x02\0\0xyz", 0x81),
        ("PUBLISH response topic with wildcard", V5, 0x30, b"\0\x01a\x04\x08\0\x01#xyz", 0x90),
        ("PUBACK", V3, 0x40, b"\0\x01", 0),
        ("PUBACK trailing byte", V3, 0x40, b"\0\x01\0", 0x81),
        ("PUBACK id 0", V3, 0x40, b"\0\0", 0x82),
        ("PUBACK short", V3, 0x40, b"\0", 0x81),
        ("PUBACK flags", V3, 0x42, b"\0\x01", 0x81),
        ("PUBACK with reason", V5, 0x40, b"\0\x01\x10", 0),
        ("PUBACK with properties", V5, 0x40, b"\0\x01\x80\x04\x1f\0\x01r", 0),
        ("PUBACK unknown reason", V5, 0x40, b"\0\x01\x44", 0x81),
        ("PUBACK trailing byte", V5, 0x40, b"\0\x01\0\0\0", 0x81),
        ("PUBREL", V3, 0x62, b"\0\x01", 0),
        ("PUBREL flags", V3, 0x60, b"\0\x01", 0x81),
        ("PUBREL with reason", V5, 0x62, b"\0\x01\x92", 0),
        ("PUBREL with PUBACK's reason", V5, 0x62, b"\0\x01\x87", 0x81),
        ("SUBSCRIBE", V3, 0x82, b"\0\x01\0\x01a\x01", 0),
        ("SUBSCRIBE two", V3, 0x82, b"\0\x01\0\x01a\x01\0\x01b\x02", 0),
        ("SUBSCRIBE flags", V3, 0x80, b"\0\x01\0\x01a\x01", 0x81),
        ("SUBSCRIBE nothing", V3, 0x82, b"\0\x01", 0x82),
        ("SUBSCRIBE id 0", V3, 0x82, b"\0\0\0\x01a\x01", 0x82),
        ("SUBSCRIBE empty filter", V3, 0x82, b"\0\x01\0\0\x01", 0x82),
        ("SUBSCRIBE QoS 3", V3, 0x82, b"\0\x01\0\x01a\x03", 0x81),
        ("SUBSCRIBE reserved bits", V3, 0x82, b"\0\x01\0\x01a\x05", 0x81),
        ("SUBSCRIBE options missing", V3, 0x82, b"\0\x01\0\x01a", 0x81),
        ("SUBSCRIBE", V5, 0x82, b"\0\x01\0\0\x01a\x2d", 0),
        ("SUBSCRIBE reserved bits", V5, 0x82, b"\0\x01\0\0\x01a\x41", 0x81),
        ("SUBSCRIBE retain handling 3", V5, 0x82, b"\0\x01\0\0\x01a\x31", 0x81),
        ("SUBSCRIBE QoS 3", V5, 0x82, b"\0\x01\0\0\x01a\x03", 0x81),
        ("SUBSCRIBE subscription id", V5, 0x82, b"\0\x01\x02\x0b\x01\0\x01a\x01", 0xa1),
        ("SUBSCRIBE subscription id 0", V5, 0x82, b"\0\x01\x02\x0b\0\0\x01a\x01", 0x82),
        ("SUBSCRIBE shared no local", V5, 0x82, b"\0\x01\0\0\x0a$share/g/a\x05", 0x82),
        ("UNSUBSCRIBE", V3, 0xa2, b"\0\x01\0\x01a", 0),
        ("UNSUBSCRIBE flags", V3, 0xa0, b"\0\x01\0\x01a", 0x81),
        ("UNSUBSCRIBE nothing", V3, 0xa2, b"\0\x01", 0x82),
        ("UNSUBSCRIBE", V5, 0xa2, b"\0\x01\0\0\x01a", 0),
        ("UNSUBSCRIBE with a subscription id", V5, 0xa2, b"\0\x01\x02\x0b\x01\0\x01a", 0x81),
        ("PINGREQ", V3, 0xc0, b"", 0),
        ("PINGREQ flags", V3, 0xc1, b"", 0x81),
        ("PINGREQ with a body", V5, 0xc0, b"\0", 0x81),
        ("DISCONNECT", V3, 0xe0, b"", 0),
        ("DISCONNECT with a body", V3, 0xe0, b"\0", 0x81),
        ("DISCONNECT", V5, 0xe0, b"", 0),
        ("DISCONNECT with will", V5, 0xe0, b"\x04", 0),
        ("DISCONNECT with expiry", V5, 0xe0, b"\0\x05\x11\0\0\0\x09", 0),
        ("DISCONNECT a server's reason", V5, 0xe0, b"\x8e", 0x82),
        ("DISCONNECT server reference", V5, 0xe0, b"\0\x04\x1c\0\x01s", 0x81),
        ("DISCONNECT trailing byte", V5, 0xe0, b"\0\0\0", 0x81),
    ];

    #[test]
    fn packets_are_legal_or_end_with_their_reason() {
        for (what, version, first, body, reason) in PACKETS {
            let got = packet(*version, *first, body).map_or_else(|Violation(reason)| reason, |()| 0);
            assert_eq!(got, *reason, "{what} ({version:?}): got {got:#x}, expected {reason:#x}");
        }
    }

    #[rustfmt::skip]
    const CONNECTS: &[(&str, &[u8], Result<Version, BadConnect>)] = &[
        ("3.1.1", b"\0\x04MQTT\x04\x02\0\x3c\0\x01a", Ok(V3)),
        ("3.1.1 with everything", b"\0\x04MQTT\x04\xce\0\x3c\0\x01a\0\x01t\0\x01m\0\x01u\0\x01p", Ok(V3)),
        ("3.1.1 no id, clean", b"\0\x04MQTT\x04\x02\0\x3c\0\0", Ok(V3)),
        ("3.1.1 no id, not clean", b"\0\x04MQTT\x04\0\0\x3c\0\0", Err(BadConnect::Refuse(V3, 2))),
        ("3.1.1 password alone", b"\0\x04MQTT\x04\x42\0\x3c\0\x01a\0\x01p", Err(BadConnect::Close)),
        ("3.1.1 reserved flag", b"\0\x04MQTT\x04\x03\0\x3c\0\x01a", Err(BadConnect::Close)),
        ("3.1.1 will QoS without will", b"\0\x04MQTT\x04\x0a\0\x3c\0\x01a", Err(BadConnect::Close)),
        ("3.1.1 will retain without will", b"\0\x04MQTT\x04\x22\0\x3c\0\x01a", Err(BadConnect::Close)),
        ("3.1.1 will QoS 3", b"\0\x04MQTT\x04\x1e\0\x3c\0\x01a\0\x01t\0\x01m", Err(BadConnect::Close)),
        ("3.1.1 trailing byte", b"\0\x04MQTT\x04\x02\0\x3c\0\x01a\0", Err(BadConnect::Close)),
        ("3.1.1 id with U+0000", b"\0\x04MQTT\x04\x02\0\x3c\0\x02a\0", Err(BadConnect::Close)),
        ("3.1", b"\0\x06MQIsdp\x03\x02\0\x3c\0\x01a", Err(BadConnect::Refuse(V3, 1))),
        ("level 3 of MQTT", b"\0\x04MQTT\x03\x02\0\x3c\0\x01a", Err(BadConnect::Refuse(V3, 1))),
        ("level 6", b"\0\x04MQTT\x06\x02\0\x3c\0\0\x01a", Err(BadConnect::Refuse(V5, 0x84))),
        ("another protocol", b"\0\x04HTTP\x04\x02\0\x3c\0\x01a", Err(BadConnect::Close)),
        ("nothing", b"", Err(BadConnect::Close)),
        ("5", b"\0\x04MQTT\x05\x02\0\x3c\0\0\x01a", Ok(V5)),
        ("5 no id, not clean", b"\0\x04MQTT\x05\0\0\x3c\0\0\0", Ok(V5)),
        ("5 password alone", b"\0\x04MQTT\x05\x42\0\x3c\0\0\x01a\0\x01p", Ok(V5)),
        ("5 properties", b"\0\x04MQTT\x05\x02\0\x3c\x0d\x11\0\0\0\x05\x21\0\x0a\x27\0\0\x10\0\0\x01a", Ok(V5)),
        ("5 receive maximum 0", b"\0\x04MQTT\x05\x02\0\x3c\x03\x21\0\0\0\x01a", Err(BadConnect::Refuse(V5, 0x82))),
        ("5 packet size 0", b"\0\x04MQTT\x05\x02\0\x3c\x05\x27\0\0\0\0\0\x01a", Err(BadConnect::Refuse(V5, 0x82))),
        ("5 expiry twice", b"\0\x04MQTT\x05\x02\0\x3c\x0a\x11\0\0\0\x05\x11\0\0\0\x05\0\x01a", Err(BadConnect::Refuse(V5, 0x82))),
        ("5 authentication data alone", b"\0\x04MQTT\x05\x02\0\x3c\x04\x16\0\x01d\0\x01a", Err(BadConnect::Refuse(V5, 0x82))),
        ("5 a property of PUBLISH", b"\0\x04MQTT\x05\x02\0\x3c\x03\x23\0\x01\0\x01a", Err(BadConnect::Refuse(V5, 0x81))),
        ("5 will", b"\0\x04MQTT\x05\x06\0\x3c\0\0\x01a\x05\x18\0\0\0\x05\0\x01t\0\x01m", Ok(V5)),
        ("5 will beyond ASCII", b"\0\x04MQTT\x05\x06\0\x3c\0\0\x01a\0\0\x02\xc3\xa9\0\x01m", Ok(V5)),
        ("5 will to a wildcard", b"\0\x04MQTT\x05\x06\0\x3c\0\0\x01a\0\0\x01#\0\x01m", Err(BadConnect::Refuse(V5, 0x90))),
        ("5 reserved flag", b"\0\x04MQTT\x05\x03\0\x3c\0\0\x01a", Err(BadConnect::Refuse(V5, 0x81))),
    ];

    #[test]
    fn connects_are_legal_or_answered() {
        for (what, body, expected) in CONNECTS {
            assert_eq!(connect(body), *expected, "{what}");
        }
    }

    #[test]
    fn remaining_lengths_take_four_bytes_at_most() {
        assert_eq!(remaining_length(&[0x7f]), Ok(Some((127, 1))));
        assert_eq!(remaining_length(&[0x80, 0x01]), Ok(Some((128, 2))));
        assert_eq!(remaining_length(&[0x80, 0x00]), Err(MALFORMED));
        assert_eq!(remaining_length(&[0xff, 0xff, 0xff, 0x7f]), Ok(Some((268_435_455, 4))));
        assert_eq!(remaining_length(&[0xff, 0xff, 0xff]), Ok(None));
        assert_eq!(remaining_length(&[0xff, 0xff, 0xff, 0xff]), Err(MALFORMED));
    }

    #[test]
    fn filters_have_their_wildcards_in_place() {
        for good in ["a", "#", "+", "a/#", "+/b/#", "/", "a//b", "$share/g/a"] {
            assert!(is_filter(good), "{good}");
        }
        for bad in ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a/b+"] {
            assert!(!is_filter(bad), "{bad}");
        }
    }

    #[test]
    fn no_cut_packet_makes_the_checks_fail_otherwise_than_by_a_reason() {
        for (_, version, first, body, _) in PACKETS {
            for end in 0..body.len() {
                let _ = packet(*version, *first, &body[..end]);
            }
        }
        for (name, body, expected) in CONNECTS {
            for end in 0..body.len() {
                // What was refused for its last bytes may be legal without them.
                assert!(connect(&body[..end]).is_err() || expected.is_err(), "{name} cut at {end}");
            }
        }
    }
}
