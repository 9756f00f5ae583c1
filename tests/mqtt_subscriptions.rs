//! SUBSCRIBE and UNSUBSCRIBE: what docs/conformance.md claims of sections 3.8 to 3.11 of MQTT 5; security tests S30, S35.

mod common;

use common::codec::{frame, write_text};
use common::{Connect, Device, Packet, Raw, TestServer, assert_text};
use serde_json::json;

const INBOX: &str = "users/alice/phone/inbox";

struct Stage {
    server: TestServer,
    token: String,
}

impl Stage {
    fn new() -> Self {
        let server = TestServer::with_users(&["alice", "bob"]);
        let token = server.token("alice");
        Self { server, token }
    }

    fn connect(&self, v5: bool) -> Connect {
        Connect { v5, ..Connect::v5("alice", "alice-phone", &self.token) }
    }

    fn alice(&self, v5: bool) -> Raw {
        self.connect(v5).open(self.server.mqtt()).0
    }

    fn bob(&self) -> Device {
        Device::v5(&self.server, "bob", "phone")
    }
}

/// [MQTT-3.8.4-1], [MQTT-3.8.4-2], [MQTT-3.8.4-5] to [MQTT-3.8.4-7], [MQTT-3.9.2-1], [MQTT-3.9.3-1], [MQTT-3.9.3-2],
/// [MQTT-2.2.1-6]
#[test]
fn s30_of_a_list_the_allowed_are_granted_in_order() {
    let stage = Stage::new();
    for v5 in [true, false] {
        let mut alice = stage.alice(v5);
        let (no, bad, quota) = if v5 { (0x87, 0x8f, 0x97) } else { (0x80, 0x80, 0x80) };
        let codes = alice.subscribe_all(&[
            ("users/bob/phone/inbox", 1),
            (INBOX, 1),
            ("#", 0),
            ("users/alice/tablet/inbox", 1),
            ("a#", 1),
            ("$share/g/a", 2),
        ]);
        assert_eq!(codes, [no, 1, no, quota, bad, no], "MQTT 5: {v5}");
        let mut bob = stage.bob();
        bob.send("alice", &format!("m-{v5}"), "hello");
        let (qos, id, payload) = alice.next_publish();
        assert_eq!(qos, 1);
        assert_text(&common::parse(&payload), "bob", "hello");
        alice.ack(id);
        alice.ping();
    }
}

/// [MQTT-3.10.4-1], [MQTT-3.8.4-3]
#[test]
fn s35_a_packet_has_at_most_128_filters_and_churn_leaves_nothing_behind() {
    let stage = Stage::new();
    for (v5, reason) in [(true, Some(0x97)), (false, None)] {
        let mut alice = stage.alice(v5);
        let codes = alice.subscribe_all(&[("a/b", 1); 128]);
        assert!(codes.iter().all(|code| *code >= 0x80));
        let (first, tail): (u8, &[u8]) = (0x82, if v5 { &[0, 9, 0] } else { &[0, 9] });
        let mut body = tail.to_vec();
        for _ in 0..129 {
            write_text(&mut body, "a/b");
            body.push(1);
        }
        alice.send(&frame(first, &body));
        assert_eq!(alice.expect_end(), reason);
    }
    let mut bob = stage.bob();
    let mut alice = stage.alice(true);
    for _ in 0..500 {
        assert_eq!(alice.subscribe(INBOX, 1), 1);
        assert_eq!(alice.unsubscribe(&[INBOX]), [0]);
    }
    bob.send("alice", "m1", "nobody reads");
    alice.ping();
    assert_eq!(alice.queued().count(), 0);
}

/// [MQTT-3.10.4-1], [MQTT-3.10.4-4] to [MQTT-3.10.4-6], [MQTT-3.11.2-1], [MQTT-3.11.3-1], [MQTT-3.11.3-2], [MQTT-2.2.1-6]
#[test]
fn every_unsubscribe_is_answered_once_with_a_code_for_each_filter() {
    let stage = Stage::new();
    for v5 in [true, false] {
        let codes = |codes: &[u8]| if v5 { codes.to_vec() } else { Vec::new() };
        let mut alice = stage.alice(v5);
        assert_eq!(alice.unsubscribe(&["never/subscribed"]), codes(&[0x11]));
        assert_eq!(alice.unsubscribe(&["#", INBOX, "$share/g/a"]), codes(&[0x11; 3]));
        assert_eq!(alice.subscribe(INBOX, 1), 1);
        assert_eq!(alice.unsubscribe(&["a", INBOX, "b", INBOX]), codes(&[0x11, 0, 0x11, 0x11]));
        let mut bob = stage.bob();
        bob.send("alice", &format!("m-{v5}"), "after it");
        alice.ping();
        assert_eq!(alice.queued().count(), 0, "one UNSUBACK, and no message after it");
        assert_eq!(alice.subscribe(INBOX, 1), 1, "it waits for a subscription");
        let (_, id, _) = alice.next_publish();
        alice.ack(id);
        alice.ping();
    }
}

/// [MQTT-3.2.2-9], [MQTT-3.2.2-10], [MQTT-3.8.4-8], [MQTT-3.3.2-3], [MQTT-3.3.4-2], [MQTT-4.3.1-1]
#[test]
fn qos_2_is_granted_as_1_and_qos_0_as_it_is() {
    let stage = Stage::new();
    for v5 in [true, false] {
        let mut bob = stage.bob();
        let mut alice = stage.alice(v5);
        assert_eq!(alice.subscribe(INBOX, 2), 1);
        let text = json!({"to": "alice", "text": {"body": "at QoS 2"}}).to_string();
        assert_eq!(bob.raw.publish_qos2(&bob.outbox(), 5, false, &text), 0);
        assert_eq!(bob.raw.release_and_wait(5), 0);
        let id = alice.wait_for("a PUBLISH", |packet| match packet {
            Packet::Publish { dup, qos, retain, topic, id, .. } => {
                assert_eq!((*dup, *qos, *retain, topic.as_str()), (false, 1, false, INBOX));
                Some(*id)
            }
            _ => None,
        });
        alice.ack(id);
        assert_eq!(alice.subscribe(INBOX, 0), 0);
        bob.send("alice", &format!("m-{v5}"), "at QoS 0");
        let packet = alice.wait_for("a PUBLISH", |packet| match packet {
            Packet::Publish { dup, qos, id, .. } => Some((*dup, *qos, *id)),
            _ => None,
        });
        assert_eq!(packet, (false, 0, 0), "[MQTT-3.3.1-2]");
        // QoS 0 is a viewer: the entry still waits for the device.
        assert_eq!(alice.subscribe(INBOX, 1), 1);
        let (qos, id, _) = alice.next_publish();
        assert_eq!(qos, 1);
        alice.ack(id);
        alice.ping();
    }
}

/// [MQTT-3.8.4-3], [MQTT-3.8.4-4]
#[test]
fn a_subscription_that_is_replaced_loses_and_repeats_nothing() {
    let stage = Stage::new();
    let mut bob = stage.bob();
    for v5 in [true, false] {
        let mut alice = Device::open(stage.server.mqtt(), stage.connect(v5), "phone");
        for n in 0..30 {
            bob.send("alice", &format!("m-{v5}-{n}"), &n.to_string());
            assert_eq!(alice.raw.subscribe(INBOX, 1), 1);
        }
        for n in 0..30 {
            assert_text(&alice.entry(), "bob", &n.to_string());
        }
        alice.raw.ping();
        assert_eq!((alice.raw.queued().count(), alice.repeats), (0, 0));
    }
}

/// 3.1.1 [MQTT-3.10.4-3]; of MQTT 5, section 3.10.4.
#[test]
fn an_unsubscribe_loses_nothing_that_was_on_its_way() {
    let stage = Stage::new();
    let mut bob = stage.bob();
    for v5 in [true, false] {
        let mut alice = stage.alice(v5);
        assert_eq!(alice.subscribe(INBOX, 1), 1);
        bob.send("alice", &format!("m1-{v5}"), "one");
        bob.send("alice", &format!("m2-{v5}"), "two");
        let first = [alice.next_publish(), alice.next_publish()];
        alice.unsubscribe(&[INBOX]);
        alice.ping();
        assert_eq!(alice.subscribe(INBOX, 1), 1);
        for (body, (_, id, _)) in ["one", "two"].into_iter().zip(first) {
            let (qos, again, payload) = alice.next_publish();
            assert_eq!((qos, again), (1, id), "the same packet id");
            assert_text(&common::parse(&payload), "bob", body);
            alice.ack(id);
        }
        alice.ping();
        assert_eq!(alice.queued().count(), 0);
    }
}
