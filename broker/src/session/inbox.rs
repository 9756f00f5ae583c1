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

    /// The QoS that SUBACK grants.
    pub(super) fn granted(&self) -> u8 {
        match self.mode {
            Mode::Device => 1,
            Mode::Viewer => 0,
        }
    }
}

/// A SUBSCRIBE whose answer waits for the bridge.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) packet_id: u16,
    pub(super) reading: Reading,
    /// A code for each filter; `None` is what the bridge says.
    pub(super) codes: Vec<Option<u8>>,
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

    /// A PUBACK has come: for which entry. One that nobody waits for is `None`.
    pub(super) fn acked(&mut self, packet_id: u16) -> Option<Seq> {
        self.in_flight.remove(&packet_id)
    }
}
