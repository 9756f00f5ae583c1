//! The publishes of one connection that are not done with: PUBACKs and PUBRECs leave in the order of the PUBLISHes (4.6), and a QoS 2
//! packet id is taken once until its PUBREL (4.3.3).

use std::collections::{BTreeSet, VecDeque};

use bytestring::ByteString;
use natter_protocol::link::{Answer, Packet};

use crate::packet::{Detail, Outbound, Version};

/// What a PUBLISH with a packet id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Taken up; the bridge is to answer.
    New,
    /// A QoS 2 repeat: there is nothing to send up.
    Repeat,
    /// More than the receive maximum are unanswered.
    TooMany,
}

#[derive(Debug)]
pub(super) struct Publishes {
    version: Version,
    /// Whether answers say more than a reason.
    has_details: bool,
    receive_maximum: usize,
    awaiting: VecDeque<Awaiting>,
    /// QoS 2 packet ids between PUBREC and PUBREL.
    held: BTreeSet<u16>,
    /// QoS 2 packet ids between PUBREL and PUBCOMP.
    releasing: BTreeSet<u16>,
    /// How much of the receive maximum is used (4.9).
    used: usize,
}

#[derive(Debug)]
struct Awaiting {
    packet: Packet,
    answer: Option<(u8, Detail)>,
}

/// Most QoS 2 packet ids of a 3.1.1 client between PUBREC and PUBREL, which no receive maximum bounds. More ends the connection.
const HELD_MAX: usize = 4096;

impl Publishes {
    pub(super) fn new(version: Version, has_details: bool, receive_maximum: u16) -> Self {
        Self {
            version,
            has_details,
            receive_maximum: receive_maximum.max(1).into(),
            awaiting: VecDeque::new(),
            held: BTreeSet::new(),
            releasing: BTreeSet::new(),
            used: 0,
        }
    }

    /// What the stored session holds.
    pub(super) fn hold(&mut self, ids: Vec<u16>) {
        self.held.extend(ids);
    }

    /// Whether there is room for another PUBLISH. MQTT 5 clients keep the receive maximum themselves; 3.1.1 does not know it, so its
    /// clients are not read from.
    pub(super) fn has_room(&self) -> bool {
        let max = match self.version {
            Version::V3 => self.receive_maximum,
            Version::V5 => 2 * self.receive_maximum,
        };
        self.awaiting.len() < max
    }

    /// A PUBLISH at QoS 1 or 2 has come.
    pub(super) fn arrive(&mut self, packet: Packet, out: &mut VecDeque<Outbound>) -> Arrival {
        if packet.qos == 2 {
            if self.held.contains(&packet.id) {
                self.awaiting.push_back(Awaiting { packet, answer: Some((0, Detail::Nothing)) });
                self.answer_in_order(out);
                return Arrival::Repeat;
            }
            if self.awaiting.iter().any(|waiting| waiting.packet == packet) {
                return Arrival::Repeat;
            }
        }
        let is_too_many = match self.version {
            Version::V3 => self.held.len() >= HELD_MAX,
            Version::V5 => self.used >= self.receive_maximum,
        };
        if is_too_many {
            return Arrival::TooMany;
        }
        self.used += 1;
        self.awaiting.push_back(Awaiting { packet, answer: None });
        Arrival::New
    }

    /// The bridge has answered. An answer that nobody waits for is dropped.
    pub(super) fn answered(&mut self, packet: Packet, answer: Answer, out: &mut VecDeque<Outbound>) {
        let waiting = self.awaiting.iter_mut().find(|waiting| waiting.packet == packet && waiting.answer.is_none());
        let Some(waiting) = waiting else { return };
        let (reason, detail) = match answer {
            Answer::Message { id, n, timestamp } => {
                (0, Detail::Message { id: ByteString::from(id.as_str()), n, timestamp })
            }
            Answer::Done => (0, Detail::Nothing),
            Answer::Refused { kind, details } => (kind.mqtt_reason(), Detail::Reason(details)),
        };
        waiting.answer = Some((reason, if self.has_details { detail } else { Detail::Nothing }));
        self.answer_in_order(out);
    }

    fn answer_in_order(&mut self, out: &mut VecDeque<Outbound>) {
        while let Some(Awaiting { packet, answer: Some(_) }) = self.awaiting.front() {
            let packet_id = packet.id;
            let is_qos2 = packet.qos == 2;
            let Some((reason, detail)) = self.awaiting.pop_front().and_then(|waiting| waiting.answer) else { return };
            // On 3.1.1 a PUBREC is always followed by a PUBREL.
            let is_held = is_qos2 && (reason < 0x80 || self.version == Version::V3);
            out.push_back(if is_qos2 {
                Outbound::PubRec { packet_id, reason, detail }
            } else {
                Outbound::PubAck { packet_id, reason, detail }
            });
            if is_held {
                self.held.insert(packet_id);
            } else {
                self.used = self.used.saturating_sub(1);
            }
        }
        if self.awaiting.is_empty() {
            self.awaiting = VecDeque::new();
        }
    }

    /// PUBREL: whether the bridge is to release the packet id. One that nobody knows is completed at once.
    pub(super) fn release(&mut self, packet_id: u16, out: &mut VecDeque<Outbound>) -> bool {
        if self.releasing.contains(&packet_id) {
            return false;
        }
        if self.held.remove(&packet_id) {
            self.releasing.insert(packet_id);
            return true;
        }
        out.push_back(Outbound::PubComp { packet_id, reason: 0x92 });
        false
    }

    /// The bridge has released the packet id.
    pub(super) fn completed(&mut self, packet_id: u16, out: &mut VecDeque<Outbound>) {
        if self.releasing.remove(&packet_id) {
            self.used = self.used.saturating_sub(1);
            out.push_back(Outbound::PubComp { packet_id, reason: 0 });
        }
    }
}
