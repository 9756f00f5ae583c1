//! The least of MQTT 3.1.1 and 5 that a test needs, written here so that a test says every byte and shares no mistake with the server.

/// A packet from the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Packet {
    ConnAck {
        session_present: bool,
        code: u8,
        properties: Properties,
    },
    Publish {
        dup: bool,
        qos: u8,
        retain: bool,
        topic: String,
        id: u16,
        payload: Vec<u8>,
    },
    PubAck {
        id: u16,
        reason: u8,
        properties: Properties,
    },
    PubRec {
        id: u16,
        reason: u8,
        properties: Properties,
    },
    PubRel {
        id: u16,
    },
    PubComp {
        id: u16,
        reason: u8,
    },
    SubAck {
        id: u16,
        codes: Vec<u8>,
    },
    /// 3.1.1 has no codes here.
    UnsubAck {
        id: u16,
        codes: Vec<u8>,
    },
    PingResp,
    Disconnect {
        reason: u8,
        properties: Properties,
    },
}

/// The MQTT 5 properties that tests look at.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Properties {
    pub user: Vec<(String, String)>,
    pub reason_string: Option<String>,
    /// Of those with a number as value: identifier and value.
    pub numbers: Vec<(u8, u32)>,
    pub assigned_client_id: Option<String>,
    /// The other texts and binary values: identifier and value.
    pub texts: Vec<(u8, String)>,
}

impl Properties {
    /// The value of a user property.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.user.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value of a numeric property.
    pub fn number(&self, identifier: u8) -> Option<u32> {
        self.numbers.iter().find(|(id, _)| *id == identifier).map(|(_, value)| *value)
    }
}

/// Session Expiry Interval.
pub const SESSION_EXPIRY: u8 = 0x11;
/// Receive Maximum.
pub const RECEIVE_MAXIMUM: u8 = 0x21;
/// Server Keep Alive.
pub const SERVER_KEEP_ALIVE: u8 = 0x13;
/// Topic Alias Maximum.
pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
/// Retain Available.
pub const RETAIN_AVAILABLE: u8 = 0x25;
/// Maximum Packet Size.
pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;

/// A packet of `kind` (first byte) around `body`.
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    write_variable(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

pub fn write_variable(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = u8::try_from(length % 128).expect("7 bits");
        length /= 128;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            return;
        }
    }
}

pub fn write_text(out: &mut Vec<u8>, text: &str) {
    write_binary(out, text.as_bytes());
}

pub fn write_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u16::try_from(bytes.len()).expect("at most 65,535 bytes").to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Takes the first whole packet out of `buffer`.
pub fn take(buffer: &mut Vec<u8>, v5: bool) -> Option<Packet> {
    let mut length = 0;
    let mut at = 1;
    loop {
        let byte = *buffer.get(at)?;
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        assert!(at <= 4, "a length of more than four bytes");
    }
    if buffer.len() < at + length {
        return None;
    }
    let rest = buffer.split_off(at + length);
    let whole = std::mem::replace(buffer, rest);
    let mut reader = Reader { bytes: &whole[at..], v5 };
    let packet = reader.packet(whole[0]);
    assert!(reader.bytes.is_empty(), "{} bytes behind {packet:?}", reader.bytes.len());
    Some(packet)
}

struct Reader<'a> {
    bytes: &'a [u8],
    v5: bool,
}

impl Reader<'_> {
    fn packet(&mut self, first: u8) -> Packet {
        let flags = first & 0x0f;
        match first >> 4 {
            2 => {
                let flags = self.byte();
                assert!(flags <= 1, "[MQTT-3.2.2-1]: reserved flags of a CONNACK: {flags}");
                let session_present = flags == 1;
                Packet::ConnAck { session_present, code: self.byte(), properties: self.properties() }
            }
            3 => {
                let topic = self.text();
                let qos = (flags >> 1) & 3;
                let id = if qos > 0 { self.number() } else { 0 };
                self.properties();
                let payload = std::mem::take(&mut self.bytes).to_vec();
                Packet::Publish { dup: flags & 8 != 0, qos, retain: flags & 1 != 0, topic, id, payload }
            }
            4 => {
                let (id, reason, properties) = self.answer();
                Packet::PubAck { id, reason, properties }
            }
            5 => {
                let (id, reason, properties) = self.answer();
                Packet::PubRec { id, reason, properties }
            }
            6 => Packet::PubRel { id: self.answer().0 },
            7 => {
                let (id, reason, _) = self.answer();
                Packet::PubComp { id, reason }
            }
            9 => {
                let id = self.number();
                self.properties();
                Packet::SubAck { id, codes: std::mem::take(&mut self.bytes).to_vec() }
            }
            11 => {
                let id = self.number();
                self.properties();
                Packet::UnsubAck { id, codes: std::mem::take(&mut self.bytes).to_vec() }
            }
            13 => Packet::PingResp,
            14 => {
                let reason = if self.bytes.is_empty() { 0 } else { self.byte() };
                Packet::Disconnect { reason, properties: self.properties() }
            }
            other => panic!("the server sent a packet of kind {other}"),
        }
    }

    /// Packet id, and in MQTT 5 a reason and properties, both of which may be left out.
    fn answer(&mut self) -> (u16, u8, Properties) {
        let id = self.number();
        let reason = if self.bytes.is_empty() { 0 } else { self.byte() };
        (id, reason, self.properties())
    }

    fn properties(&mut self) -> Properties {
        let mut out = Properties::default();
        if !self.v5 || self.bytes.is_empty() {
            return out;
        }
        let length = self.variable();
        let (mine, behind) = self.bytes.split_at(length);
        self.bytes = mine;
        while !self.bytes.is_empty() {
            let identifier = self.byte();
            match identifier {
                0x26 => out.user.push((self.text(), self.text())),
                0x1f => out.reason_string = Some(self.text()),
                0x12 => out.assigned_client_id = Some(self.text()),
                0x1a | 0x1c | 0x15 | 0x03 | 0x08 | 0x09 | 0x16 => {
                    let value = self.text();
                    out.texts.push((identifier, value));
                }
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => {
                    let value = self.byte().into();
                    out.numbers.push((identifier, value));
                }
                0x13 | 0x21 | 0x22 | 0x23 => {
                    let value = self.number().into();
                    out.numbers.push((identifier, value));
                }
                0x02 | 0x11 | 0x18 | 0x27 => {
                    let value = u32::from(self.number()) << 16 | u32::from(self.number());
                    out.numbers.push((identifier, value));
                }
                other => panic!("an MQTT 5 property 0x{other:02x}"),
            }
        }
        self.bytes = behind;
        out
    }

    fn byte(&mut self) -> u8 {
        let (first, rest) = self.bytes.split_first().expect("one more byte");
        self.bytes = rest;
        *first
    }

    fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn variable(&mut self) -> usize {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte();
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }

    fn text(&mut self) -> String {
        let length = usize::from(self.number());
        let (text, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        String::from_utf8(text.to_vec()).expect("UTF-8")
    }
}
