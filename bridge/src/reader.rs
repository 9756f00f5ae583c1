//! A connection that reads a device's inbox, and the window it reads through.

use std::collections::VecDeque;
use std::sync::Arc;

use natter_protocol::{ConnectionId, DeviceId, Seq, entry};

use crate::change::Message;

/// Most entries in flight to one device, unless its client takes fewer.
pub const WINDOW_ENTRIES: usize = 100;
/// Most bytes in flight to one device; one entry may always be.
pub const WINDOW_BYTES: usize = 1024 * 1024;

/// The reader of a device's inbox at QoS 1.
#[derive(Debug)]
pub struct Reader {
    /// Which inbox.
    pub device: DeviceId,
    /// Which connection.
    pub connection: ConnectionId,
    /// The client's name: the same client coming back is no swap.
    pub client_id: Arc<str>,
    /// Most entries in flight.
    pub entries_max: usize,
    /// Largest PUBLISH the client takes, in bytes.
    pub packet_bytes_max: usize,
    /// What was not looked at yet starts here.
    pub next: Seq,
    /// The position sent last on this connection, at first the device's cursor.
    pub prev: Seq,
    /// An entry that the client did not survive again and again: it goes out as a stub.
    pub stub_at: Option<Seq>,
    /// Since which Unix second.
    pub since: u64,
    /// Its session may have been sent entries before: those go out as sent again [MQTT-3.3.1-1].
    pub is_resumed: bool,
    in_flight: VecDeque<InFlight>,
    bytes: usize,
}

/// An entry that was sent and is not passed by the cursor.
#[derive(Debug)]
pub struct InFlight {
    /// Its position.
    pub seq: Seq,
    /// The client took it, rather than turning it down or getting a stub.
    pub taken: bool,
    /// The message in it.
    pub message: Option<Arc<Message>>,
    /// Its position in bytes of the inbox.
    pub offset: u64,
    bytes: usize,
    acknowledged: bool,
    /// It went out as a stub.
    pub stub: bool,
}

impl InFlight {
    /// The client cannot have it: it got a stub, or has acknowledged it with an error.
    #[must_use]
    pub fn is_turned_down(&self) -> bool {
        self.stub || (self.acknowledged && !self.taken)
    }
}

impl Reader {
    /// A reader that starts at `cursor`.
    #[must_use]
    pub fn new(
        device: DeviceId,
        connection: ConnectionId,
        client_id: Arc<str>,
        receive_maximum: u16,
        packet_bytes_max: u32,
        cursor: Seq,
    ) -> Self {
        Self {
            device,
            connection,
            client_id,
            entries_max: usize::from(receive_maximum.max(1)).min(WINDOW_ENTRIES),
            packet_bytes_max: usize::try_from(packet_bytes_max).unwrap_or(usize::MAX),
            is_resumed: false,
            next: cursor + 1,
            prev: cursor,
            stub_at: None,
            since: 0,
            in_flight: VecDeque::new(),
            bytes: 0,
        }
    }

    /// How many more entries may be sent.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.in_flight.is_empty() {
            return self.entries_max;
        }
        if self.bytes >= WINDOW_BYTES { 0 } else { self.entries_max.saturating_sub(self.in_flight.len()) }
    }

    /// Whether the entry must wait: for room in bytes, or until its packet id is free again.
    #[must_use]
    pub fn must_wait(&self, seq: Seq, bytes: usize) -> bool {
        let Some(first) = self.in_flight.front() else { return false };
        self.bytes + bytes > WINDOW_BYTES
            || (seq - first.seq >= 65_535
                && self.in_flight.iter().any(|entry| entry::packet_id(entry.seq) == entry::packet_id(seq)))
    }

    /// Whether less than half of the window is used: time to read the store again.
    #[must_use]
    pub fn is_half_empty(&self) -> bool {
        self.in_flight.len() * 2 <= self.entries_max
    }

    /// An entry went out.
    pub fn sent(&mut self, seq: Seq, offset: u64, bytes: usize, message: Option<Arc<Message>>, stub: bool) {
        self.in_flight.push_back(InFlight { seq, taken: false, message, offset, bytes, acknowledged: false, stub });
        self.bytes += bytes;
        self.prev = seq;
        self.next = seq + 1;
    }

    /// An entry was acknowledged. Returns what the cursor passes now, in order: nothing while an earlier one is out.
    pub fn acknowledged(&mut self, seq: Seq, taken: bool) -> Vec<InFlight> {
        if let Ok(index) = self.in_flight.binary_search_by_key(&seq, |entry| entry.seq)
            && let Some(entry) = self.in_flight.get_mut(index)
        {
            entry.acknowledged = true;
            entry.taken = taken && !entry.stub;
        }
        let mut passed = Vec::new();
        while self.in_flight.front().is_some_and(|entry| entry.acknowledged)
            && let Some(entry) = self.in_flight.pop_front()
        {
            self.bytes -= entry.bytes;
            passed.push(entry);
        }
        passed
    }

    /// Everything up to `upto` was acknowledged by other means. Returns what was in flight of it.
    pub fn passed(&mut self, upto: Seq) -> Vec<InFlight> {
        let mut passed = Vec::new();
        while self.in_flight.front().is_some_and(|entry| entry.seq <= upto)
            && let Some(entry) = self.in_flight.pop_front()
        {
            self.bytes -= entry.bytes;
            passed.push(entry);
        }
        self.next = self.next.max(upto + 1);
        self.prev = self.prev.max(upto);
        passed
    }

    /// The oldest entry that was sent and is not acknowledged.
    #[must_use]
    pub fn oldest_in_flight(&self) -> Option<Seq> {
        self.in_flight.front().map(|entry| entry.seq)
    }
}

/// A connection that watches an inbox at QoS 0: live entries, no cursor, no ticks.
#[derive(Debug)]
pub struct Viewer {
    /// Whose inbox, as which device.
    pub device: DeviceId,
    /// Which connection.
    pub connection: ConnectionId,
    /// The newest position shown.
    pub prev: Seq,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(receive_maximum: u16) -> Reader {
        let device = DeviceId::parse("phone").unwrap();
        Reader::new(device, ConnectionId { boot: 1, n: 1 }, Arc::from("c"), receive_maximum, 1 << 20, 4)
    }

    fn seqs(passed: &[InFlight]) -> Vec<Seq> {
        passed.iter().map(|entry| entry.seq).collect()
    }

    #[test]
    fn the_cursor_moves_over_the_acknowledged_prefix() {
        let mut reader = reader(10);
        for seq in 5..9 {
            reader.sent(seq, 0, 100, None, false);
        }
        assert!(seqs(&reader.acknowledged(6, true)).is_empty());
        assert_eq!(seqs(&reader.acknowledged(5, true)), [5, 6]);
        assert!(seqs(&reader.acknowledged(6, true)).is_empty(), "a repeated acknowledgement changes nothing");
        assert!(seqs(&reader.acknowledged(99, true)).is_empty(), "nor does one for what was never sent");
        assert_eq!(seqs(&reader.acknowledged(7, false)), [7]);
        assert_eq!(reader.room(), 9);
    }

    #[test]
    fn the_window_counts_entries_and_bytes_but_one_entry_always_goes() {
        let mut reader = reader(2);
        assert_eq!(reader.room(), 2);
        assert!(!reader.must_wait(5, WINDOW_BYTES * 2));
        reader.sent(5, 0, WINDOW_BYTES * 2, None, false);
        assert_eq!(reader.room(), 0);
        reader.acknowledged(5, true);
        reader.sent(6, 0, 10, None, false);
        assert_eq!(reader.room(), 1);
        assert!(reader.must_wait(7, WINDOW_BYTES));
    }

    #[test]
    fn a_packet_id_in_flight_is_not_used_twice() {
        let mut reader = reader(10);
        reader.sent(5, 0, 10, None, false);
        assert!(!reader.must_wait(6, 10));
        assert!(reader.must_wait(5 + 65_535, 10));
        assert!(!reader.must_wait(6 + 65_535, 10));
    }

    #[test]
    fn a_stub_that_is_acknowledged_was_not_taken() {
        let mut reader = reader(10);
        reader.sent(5, 0, 10, None, true);
        let passed = reader.acknowledged(5, true);
        assert!(passed.iter().all(|entry| !entry.taken));
    }
}
