//! What waits for its PUBACK.

use std::collections::VecDeque;

use bytes::Bytes;
use natter_protocol::MessageId;
use rumqttc::v5::mqttbytes::v5::{PubAck, PubAckReason};
use tokio::sync::oneshot;

use crate::client::Sent;
use crate::error::Error;

/// Publications without a PUBACK at any time; more wait at the caller's. Below what any MQTT 5 server takes by default, and half of what
/// rumqttc is told, so that its packet ids never collide.
pub(crate) const OUTBOX_MAX: usize = 50;

/// A payload for the outbox, and who waits for the answer.
pub(crate) struct Publication {
    pub(crate) payload: Bytes,
    pub(crate) reply: oneshot::Sender<Result<Option<Sent>, Error>>,
}

#[derive(PartialEq)]
enum Progress {
    /// Not given to this connection.
    Waiting,
    /// Given to rumqttc, which has not said its packet id.
    Handed,
    /// Written under this packet id.
    Written(u16),
}

/// In the order of the calls. Nothing leaves but by its PUBACK, so a new connection sends all of it again.
#[derive(Default)]
pub(crate) struct Outbox {
    items: VecDeque<(Progress, Publication)>,
}

impl Outbox {
    pub(crate) fn has_room(&self) -> bool {
        self.items.len() < OUTBOX_MAX
    }

    pub(crate) fn push(&mut self, publication: Publication) {
        self.items.push_back((Progress::Waiting, publication));
    }

    /// The connection is gone, and with it every packet id.
    pub(crate) fn rewind(&mut self) {
        for (progress, _) in &mut self.items {
            *progress = Progress::Waiting;
        }
    }

    /// Gives to `publish` what waits, in order, as long as it takes it.
    pub(crate) fn hand_out(&mut self, mut publish: impl FnMut(Bytes) -> bool) {
        for (progress, publication) in &mut self.items {
            if *progress == Progress::Waiting {
                if !publish(publication.payload.clone()) {
                    return;
                }
                *progress = Progress::Handed;
            }
        }
    }

    /// rumqttc wrote the first of what it was handed.
    pub(crate) fn written(&mut self, packet_id: u16) {
        if let Some((progress, _)) = self.items.iter_mut().find(|(progress, _)| *progress == Progress::Handed) {
            *progress = Progress::Written(packet_id);
        }
    }

    pub(crate) fn answered(&mut self, ack: &PubAck) {
        let at = self.items.iter().position(|(progress, _)| *progress == Progress::Written(ack.pkid));
        if let Some((_, publication)) = at.and_then(|at| self.items.remove(at)) {
            // Whoever asked may have stopped waiting.
            let _ = publication.reply.send(outcome(ack));
        }
    }

    pub(crate) fn fail(&mut self, error: &Error) {
        for (_, publication) in self.items.drain(..) {
            let _ = publication.reply.send(Err(error.clone()));
        }
    }
}

fn outcome(ack: &PubAck) -> Result<Option<Sent>, Error> {
    let reason = match ack.reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => return Ok(sent(ack)),
        PubAckReason::UnspecifiedError => 0x80,
        PubAckReason::ImplementationSpecificError => 0x83,
        PubAckReason::NotAuthorized => 0x87,
        PubAckReason::TopicNameInvalid => 0x90,
        PubAckReason::PacketIdentifierInUse => 0x91,
        PubAckReason::QuotaExceeded => 0x97,
        PubAckReason::PayloadFormatInvalid => 0x99,
    };
    let details = ack.properties.as_ref().and_then(|p| p.reason_string.clone()).unwrap_or_default();
    Err(Error::Refused { reason, details })
}

fn sent(ack: &PubAck) -> Option<Sent> {
    let properties = &ack.properties.as_ref()?.user_properties;
    let get = |name: &str| properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    Some(Sent {
        id: MessageId::parse(get("id")?).ok()?,
        n: get("n")?.parse().ok()?,
        timestamp: get("timestamp")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::v5::mqttbytes::v5::PubAckProperties;

    fn push(outbox: &mut Outbox, payload: &'static str) -> oneshot::Receiver<Result<Option<Sent>, Error>> {
        let (reply, answer) = oneshot::channel();
        outbox.push(Publication { payload: Bytes::from_static(payload.as_bytes()), reply });
        answer
    }

    fn handed(outbox: &mut Outbox) -> Vec<Bytes> {
        let mut payloads = Vec::new();
        outbox.hand_out(|payload| {
            payloads.push(payload);
            true
        });
        payloads
    }

    #[test]
    fn a_puback_answers_its_own_publication() {
        let mut outbox = Outbox::default();
        let (mut a, mut b) = (push(&mut outbox, "a"), push(&mut outbox, "b"));
        assert_eq!(handed(&mut outbox), ["a", "b"]);
        outbox.written(7);
        outbox.written(8);
        let mut ack = PubAck::new(8, None);
        ack.reason = PubAckReason::QuotaExceeded;
        outbox.answered(&ack);
        assert!(matches!(b.try_recv(), Ok(Err(Error::Refused { reason: 0x97, .. }))));
        let user_properties =
            [("id", "m1"), ("n", "3"), ("timestamp", "9")].map(|(k, v)| (k.into(), v.into())).to_vec();
        outbox.answered(&PubAck::new(7, Some(PubAckProperties { reason_string: None, user_properties })));
        let sent = a.try_recv().expect("answered").expect("accepted").expect("a message");
        assert_eq!((sent.id.as_str(), sent.n, sent.timestamp), ("m1", 3, 9));
    }

    #[test]
    fn a_new_connection_sends_the_same_again_in_order_and_old_packet_ids_say_nothing() {
        let mut outbox = Outbox::default();
        let mut a = push(&mut outbox, "a");
        assert_eq!(handed(&mut outbox), ["a"]);
        outbox.written(1);
        let _b = push(&mut outbox, "b");
        outbox.rewind();
        outbox.answered(&PubAck::new(1, None));
        assert!(a.try_recv().is_err(), "still waits");
        assert_eq!(handed(&mut outbox), ["a", "b"]);
        assert!(handed(&mut outbox).is_empty());
    }
}
