//! The least of MQTT 3.1.1 and 5 that clients need, for `torture` and `bench`. What the server sends is not trusted: a packet that cannot be read is `None`.

/// A packet from the server.
#[derive(Debug)]
pub(crate) enum Packet {
    ConnAck {
        session_present: bool,
        code: u8,
    },
    Publish {
        qos: u8,
        id: u16,
        payload: Vec<u8>,
    },
    /// With the user property `n`.
    PubAck {
        id: u16,
        reason: u8,
        n: Option<u32>,
    },
    SubAck {
        code: u8,
    },
    Other,
}

/// A packet of a kind (first byte) around `body`.
pub(crate) fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    write_length(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

fn write_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    // Names and tokens only: far below 65,536.
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// `keep_alive_s`: the server closes a connection that is silent for one and a half times as long.
pub(crate) fn connect(v5: bool, clean: bool, keep_alive_s: u16, client_id: &str, user: &str, token: &str) -> Vec<u8> {
    let mut body = Vec::new();
    write_text(&mut body, "MQTT");
    body.push(if v5 { 5 } else { 4 });
    body.push(0xc0 | u8::from(clean) << 1);
    body.extend_from_slice(&keep_alive_s.to_be_bytes());
    match (v5, clean) {
        (true, false) => body.extend_from_slice(&[5, 0x11, 0, 0, 0x0e, 0x10]),
        (true, true) => body.push(0),
        (false, _) => {}
    }
    for text in [client_id, user, token] {
        write_text(&mut body, text);
    }
    frame(0x10, &body)
}

pub(crate) fn subscribe(v5: bool, filter: &str) -> Vec<u8> {
    let mut body = 65_535_u16.to_be_bytes().to_vec();
    if v5 {
        body.push(0);
    }
    write_text(&mut body, filter);
    body.push(1);
    frame(0x82, &body)
}

pub(crate) fn publish(v5: bool, topic: &str, id: u16, payload: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + topic.len() + 16);
    write_publish(&mut out, v5, topic, id, payload.as_bytes());
    out
}

/// As [`publish`], behind what is in `out`.
pub(crate) fn write_publish(out: &mut Vec<u8>, v5: bool, topic: &str, id: u16, payload: &[u8]) {
    out.push(0x32);
    write_length(out, 2 + topic.len() + 2 + usize::from(v5) + payload.len());
    write_text(out, topic);
    out.extend_from_slice(&id.to_be_bytes());
    if v5 {
        out.push(0);
    }
    out.extend_from_slice(payload);
}

/// As [`write_publish`], at QoS 0.
pub(crate) fn write_live(out: &mut Vec<u8>, v5: bool, topic: &str, payload: &[u8]) {
    out.push(0x30);
    write_length(out, 2 + topic.len() + usize::from(v5) + payload.len());
    write_text(out, topic);
    if v5 {
        out.push(0);
    }
    out.extend_from_slice(payload);
}

pub(crate) fn puback(id: u16) -> Vec<u8> {
    puback_bytes(id).to_vec()
}

/// As [`puback`].
pub(crate) fn puback_bytes(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x40, 2, high, low]
}

/// The length of the first packet in `bytes`: of its header, and of all. `None`: not all of it is there.
pub(crate) fn measure(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for at in 1..=4 {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            let all = at + 1 + length;
            return (bytes.len() >= all).then_some((at + 1, all));
        }
    }
    None
}

/// Reads a packet: its first byte, and what stands behind the length.
pub(crate) fn decode(first: u8, body: &[u8], v5: bool) -> Option<Packet> {
    let mut reader = Reader(body);
    Some(match first >> 4 {
        2 => Packet::ConnAck { session_present: reader.byte()? == 1, code: reader.byte()? },
        3 => {
            let (qos, id, payload) = split_publish(first, body, v5)?;
            Packet::Publish { qos, id, payload: payload.to_vec() }
        }
        4 => {
            let id = reader.number()?;
            let reason = if reader.0.is_empty() { 0 } else { reader.byte()? };
            let n = if reader.0.is_empty() { None } else { reader.properties()? };
            Packet::PubAck { id, reason, n }
        }
        9 => Packet::SubAck { code: *body.last()? },
        _ => Packet::Other,
    })
}

/// QoS, packet id (0 without one) and payload of a PUBLISH.
pub(crate) fn split_publish(first: u8, body: &[u8], v5: bool) -> Option<(u8, u16, &[u8])> {
    let mut reader = Reader(body);
    let topic_length = reader.number()?;
    reader.take(topic_length.into())?;
    let qos = (first >> 1) & 3;
    let id = if qos > 0 { reader.number()? } else { 0 };
    if v5 {
        reader.properties()?;
    }
    Some((qos, id, reader.0))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (mine, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(mine)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.number()?;
        std::str::from_utf8(self.take(length.into())?).ok()
    }

    /// The user property `n`.
    fn properties(&mut self) -> Option<Option<u32>> {
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut mine = Reader(self.take(length)?);
        let mut n = None;
        while !mine.0.is_empty() {
            match mine.byte()? {
                0x26 => {
                    let (key, value) = (mine.text()?, mine.text()?);
                    if key == "n" {
                        n = value.parse().ok();
                    }
                }
                0x1f | 0x12 | 0x03 | 0x08 | 0x09 => drop(mine.text()?),
                0x01 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => drop(mine.byte()?),
                0x13 | 0x21 | 0x22 | 0x23 => drop(mine.number()?),
                0x02 | 0x11 | 0x27 => drop(mine.take(4)?),
                _ => return None,
            }
        }
        Some(n)
    }
}
