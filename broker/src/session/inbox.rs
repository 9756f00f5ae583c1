//! The one inbox that a connection reads, and the SUBSCRIBE that is to change it.

use std::collections::BTreeMap;

use bytestring::ByteString;
use natter_protocol::ids::{DeviceId, Seq, UserId};
use natter_protocol::link::Mode;
use natter_protocol::topic;

/// An inbox and how it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) device: DeviceId,
    pub(super) mode: Mode,
    pub(super) topic: ByteString,
}

impl Reading {
    pub(super) fn new(user: &UserId, device: DeviceId, mode: Mode) -> Self {
        let topic = topic::inbox(user, &device).into();
        Self { device, mode, topic }
    }
}

/// SUBACK's codes: what was refused here, else the QoS that each filter asked for and gets, as if it had come alone [MQTT-3.8.4-5]; or
/// why the bridge refused.
pub(super) fn suback(codes: &[Result<Mode, u8>], refused: Option<u8>) -> Vec<u8> {
    let granted = |mode: &Mode| match mode {
        Mode::Device => 1,
        Mode::Viewer => 0,
    };
    codes
        .iter()
        .map(|code| code.as_ref().map_or_else(|reason| *reason, |mode| refused.unwrap_or(granted(mode))))
        .collect()
}

/// A SUBSCRIBE whose answer waits for the bridge.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) packet_id: u16,
    pub(super) reading: Reading,
    /// What each filter asks for, or why it is refused.
    pub(super) codes: Vec<Result<Mode, u8>>,
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) reading: Option<Reading>,
    pub(super) asking: Option<Asking>,
    /// Entries that are not acknowledged, by packet id.
    in_flight: BTreeMap<u16, Seq>,
}

impl Inbox {
    /// What entries are published under: the inbox that is read, or is about to be. Without one they are left over from before an
    /// UNSUBSCRIBE, and dropped.
    pub(super) fn current(&self) -> Option<&Reading> {
        self.asking.as_ref().map(|asking| &asking.reading).or(self.reading.as_ref())
    }

    /// An entry goes out under this packet id.
    pub(super) fn sent(&mut self, packet_id: u16, seq: Seq) {
        self.in_flight.insert(packet_id, seq);
    }

    /// Whether an entry waits for its PUBACK under this packet id.
    pub(super) fn is_in_flight(&self, packet_id: u16) -> bool {
        self.in_flight.contains_key(&packet_id)
    }

    /// A PUBACK has come: for which entry. One that nobody waits for is `None`.
    pub(super) fn acked(&mut self, packet_id: u16) -> Option<Seq> {
        self.in_flight.remove(&packet_id)
    }
}
