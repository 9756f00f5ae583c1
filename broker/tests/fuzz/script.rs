//! What one connection writes, and how it leaves.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::common::packet;

/// How a connection is left by its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It says that it writes no more, and reads to the end.
    Close,
    /// With a reset.
    Reset,
    /// Half a packet, then nothing: the server has to end it.
    Stay,
}

/// The bytes of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// Whether a CONNECT that would be accepted stands first.
    pub(crate) connects: bool,
    pub(crate) v5: bool,
    pub(crate) clean: bool,
    /// Which client id.
    pub(crate) client: u8,
    /// An own outbox as will.
    pub(crate) will: bool,
    pub(crate) items: Vec<Item>,
    /// Bytes changed behind the CONNECT: where, how, with what.
    pub(crate) changes: Vec<(prop::sample::Index, u8, u8)>,
    pub(crate) leave: Leave,
}

/// What stands in a script; `V` is left out where the versions do not differ.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    Bytes(Vec<u8>),
    /// A kind of packet with a right length and any body.
    Framed(u8, Vec<u8>),
    Connect,
    Publish {
        qos: u8,
        dup: bool,
        retain: bool,
        id: u16,
        topic: u8,
        length: usize,
    },
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    Answer(u8, u16),
    Subscribe {
        id: u16,
        topic: u8,
        qos: u8,
    },
    Unsubscribe {
        id: u16,
        topic: u8,
    },
    Ping,
    Disconnect(u8),
}

fn leave() -> impl Strategy<Value = Leave> {
    prop_oneof![6 => Just(Leave::Close), 3 => Just(Leave::Reset)]
}

fn changes(most: usize) -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    vec((any::<prop::sample::Index>(), 0_u8..4, any::<u8>()), 0..=most)
}

fn id() -> impl Strategy<Value = u16> {
    prop_oneof![60 => 1_u16..5, 1 => Just(0), 2 => any::<u16>()]
}

fn item() -> impl Strategy<Value = Item> {
    // Most of it is legal, or connections would end before they have come far.
    let length = prop_oneof![
        60 => 0_usize..200,
        3 => 61_000_usize..62_000,
        3 => 130_000_usize..132_000,
        1 => 260_000_usize..265_000,
    ];
    let answers = prop_oneof![20 => Just(0x40_u8), 10 => Just(0x62), 1 => Just(0x50), 1 => Just(0x70)];
    prop_oneof![
        80 => (0_u8..3, any::<bool>(), prop::bool::weighted(0.02), id(), 0_u8..6, length)
            .prop_map(|(qos, dup, retain, id, topic, length)| Item::Publish { qos, dup, retain, id, topic, length }),
        60 => (answers, id()).prop_map(|(kind, id)| Item::Answer(kind, id)),
        40 => (id(), 0_u8..6, 0_u8..3).prop_map(|(id, topic, qos)| Item::Subscribe { id, topic, qos }),
        20 => (id(), 0_u8..6).prop_map(|(id, topic)| Item::Unsubscribe { id, topic }),
        20 => Just(Item::Ping),
        2 => Just(Item::Connect),
        2 => prop::sample::select(vec![0_u8, 4, 0x80, 0xff]).prop_map(Item::Disconnect),
    ]
}

fn script(items: impl Strategy<Value = Vec<Item>>, connects: f64, changes_max: usize) -> impl Strategy<Value = Script> {
    let flags = (prop::bool::weighted(connects), any::<bool>(), any::<bool>(), 0_u8..2, prop::bool::weighted(0.2));
    (flags, items, changes(changes_max), leave()).prop_map(
        |((connects, v5, clean, client, will), items, changes, leave)| Script {
            connects,
            v5,
            clean,
            client,
            will,
            items,
            changes,
            leave,
        },
    )
}

/// Bytes that mean nothing, bare or behind a CONNECT, some of them with a right length.
pub(crate) fn raw() -> impl Strategy<Value = Script> {
    let bytes = prop_oneof![
        3 => vec(any::<u8>(), 0..300).prop_map(Item::Bytes),
        4 => (any::<u8>(), vec(any::<u8>(), 0..80)).prop_map(|(first, body)| Item::Framed(first, body)),
        2 => (prop::sample::select(vec![0x10_u8, 0x30, 0x32, 0x34, 0x40, 0x62, 0x82, 0xa2, 0xe0]), vec(0_u8..8, 0..40))
            .prop_map(|(first, body)| Item::Framed(first, body)),
    ];
    script(vec(bytes, 1..8), 0.6, 0)
}

/// Packets that are well made, in any order, with a few bytes changed.
pub(crate) fn packets() -> impl Strategy<Value = Script> {
    script(vec(item(), 1..25), 0.95, 3)
}

/// In which pieces the scripts are written: which of them, and how many bytes. What is left follows at the end.
pub(crate) fn turns(scripts: usize) -> impl Strategy<Value = Vec<(usize, usize)>> {
    vec((0..scripts, prop_oneof![1_usize..20, 1_usize..3000]), 0..30)
}

impl Script {
    /// Its bytes, as of this user.
    pub(crate) fn bytes(&self, user: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.items.iter().for_each(|item| bytes.extend(self.item(item, user)));
        for (at, how, value) in &self.changes {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = *value,
                1 => bytes[at] ^= 1 << (value & 7),
                2 => bytes.insert(at, *value),
                _ => drop(bytes.remove(at)),
            }
        }
        if self.connects {
            bytes.splice(0..0, self.connect(user));
        }
        if self.leave == Leave::Stay {
            bytes.extend([0x32, 0x20, 0]);
        }
        bytes
    }

    fn connect(&self, user: &str) -> Vec<u8> {
        let mut body = b"\0\x04MQTT".to_vec();
        let flags = 0xc0 | (u8::from(self.clean) << 1) | if self.will { 0x0c } else { 0 };
        body.extend([if self.v5 { 5 } else { 4 }, flags, 0, 60]);
        if self.v5 {
            // A session of a minute, unless it is a clean one.
            body.extend(if self.clean { &b"\0"[..] } else { &b"\x05\x11\0\0\0\x3c"[..] });
        }
        write_text(&mut body, &format!("{user}-{}", self.client));
        if self.will {
            if self.v5 {
                body.push(0);
            }
            write_text(&mut body, &format!("users/{user}/phone/outbox"));
            write_text(&mut body, "{}");
        }
        write_text(&mut body, user);
        write_text(&mut body, "good");
        packet(0x10, &body)
    }

    fn item(&self, item: &Item, user: &str) -> Vec<u8> {
        let mut body = Vec::new();
        let properties: &[u8] = if self.v5 { b"\0" } else { b"" };
        match item {
            Item::Bytes(bytes) => bytes.clone(),
            Item::Framed(first, body) => packet(*first, body),
            Item::Connect => self.connect(user),
            Item::Publish { qos, dup, retain, id, topic, length } => {
                write_text(&mut body, &topic_of(*topic, user));
                if *qos > 0 {
                    body.extend(id.to_be_bytes());
                }
                body.extend(properties);
                body.resize(body.len() + length, b'x');
                packet(0x30 | (u8::from(*dup) << 3) | (qos << 1) | u8::from(*retain), &body)
            }
            Item::Answer(first, id) => packet(*first, &id.to_be_bytes()),
            Item::Subscribe { id, topic, qos } => {
                body.extend(id.to_be_bytes());
                body.extend(properties);
                write_text(&mut body, &topic_of(*topic, user));
                body.push(*qos);
                packet(0x82, &body)
            }
            Item::Unsubscribe { id, topic } => {
                body.extend(id.to_be_bytes());
                body.extend(properties);
                write_text(&mut body, &topic_of(*topic, user));
                packet(0xa2, &body)
            }
            Item::Ping => packet(0xc0, b""),
            Item::Disconnect(0) => packet(0xe0, b""),
            Item::Disconnect(reason) => packet(0xe0, &[*reason]),
        }
    }
}

fn topic_of(which: u8, user: &str) -> String {
    match which {
        0 | 1 => format!("users/{user}/phone/outbox"),
        2 | 3 => format!("users/{user}/phone/inbox"),
        4 => format!("users/{user}/+/inbox"),
        _ => "\u{e9}t\u{e9}/x".to_owned(),
    }
}

pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text.as_bytes());
}
