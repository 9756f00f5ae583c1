//! Which entries arrived, which of them the app has, and what may be acknowledged (wire.md, "What a client does").

use std::collections::BTreeMap;

use natter_protocol::Seq;
use rumqttc::v5::mqttbytes::v5::Publish;

#[derive(Default)]
pub(crate) struct Inbox {
    /// The newest position that arrived; `None` before the first.
    last: Option<Seq>,
    /// Arrived and not yet taken by the app, with the packet to acknowledge, if it came over this connection.
    waiting: BTreeMap<Seq, Option<Publish>>,
    /// A gap that a new connection did not close is the server's word.
    gap_at: Option<Seq>,
}

/// What to do with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Hand it to the app.
    New,
    /// It came again before the app took it.
    Waiting,
    /// The app has it: acknowledge.
    Repeat,
    /// Something before it is missing: reconnect.
    Gap,
}

impl Inbox {
    /// The connection is gone; acknowledgements of its packets would name others now.
    pub(crate) fn rewind(&mut self) {
        self.waiting.values_mut().for_each(|packet| *packet = None);
    }

    pub(crate) fn arrived(&mut self, seq: Seq, prev: Seq, packet: &Publish) -> Arrival {
        if let Some(waiting) = self.waiting.get_mut(&seq) {
            *waiting = Some(packet.clone());
            return Arrival::Waiting;
        }
        match self.last {
            Some(last) if seq <= last => return Arrival::Repeat,
            Some(last) if prev > last && self.gap_at != Some(seq) => {
                self.gap_at = Some(seq);
                return Arrival::Gap;
            }
            _ => {}
        }
        self.last = Some(seq);
        self.waiting.insert(seq, Some(packet.clone()));
        Arrival::New
    }

    /// The app has it: the packet to acknowledge, if its connection is still there.
    pub(crate) fn taken(&mut self, seq: Seq) -> Option<Publish> {
        self.waiting.remove(&seq).flatten()
    }

    /// It could not be handed over: it must come again.
    pub(crate) fn forget(&mut self, seq: Seq) {
        self.waiting.remove(&seq);
        self.last = self.waiting.keys().next_back().copied().or_else(|| seq.checked_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::v5::mqttbytes::QoS;

    fn packet(pkid: u16) -> Publish {
        let mut publish = Publish::new("users/a/b/inbox", QoS::AtLeastOnce, "{}", None);
        publish.pkid = pkid;
        publish
    }

    #[test]
    fn an_entry_is_handed_over_once_and_acknowledged_after() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.arrived(5, 4, &packet(6)), Arrival::New);
        assert_eq!(inbox.taken(5), Some(packet(6)));
        assert_eq!(inbox.arrived(5, 4, &packet(6)), Arrival::Repeat);
    }

    #[test]
    fn what_came_over_a_dead_connection_is_acknowledged_over_the_next() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.arrived(5, 4, &packet(6)), Arrival::New);
        assert_eq!(inbox.arrived(6, 5, &packet(7)), Arrival::New);
        inbox.rewind();
        assert_eq!(inbox.taken(5), None);
        assert_eq!(inbox.arrived(5, 4, &packet(60)), Arrival::Repeat);
        assert_eq!(inbox.arrived(6, 5, &packet(70)), Arrival::Waiting);
        assert_eq!(inbox.taken(6), Some(packet(70)));
    }

    #[test]
    fn a_gap_asks_for_one_new_connection() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.arrived(5, 4, &packet(6)), Arrival::New);
        assert_eq!(inbox.arrived(9, 7, &packet(10)), Arrival::Gap);
        inbox.rewind();
        assert_eq!(inbox.arrived(9, 7, &packet(10)), Arrival::New);
    }

    #[test]
    fn what_could_not_be_handed_over_comes_again() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.arrived(5, 4, &packet(6)), Arrival::New);
        inbox.forget(5);
        assert_eq!(inbox.arrived(5, 4, &packet(6)), Arrival::New);
    }
}
