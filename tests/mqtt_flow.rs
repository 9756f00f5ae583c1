//! Acknowledgements, quotas and sizes in both directions: what docs/conformance.md claims of sections 4.3, 4.4 and 4.9 of MQTT 5, and of
//! Maximum Packet Size; security tests S44, S45.

mod common;

use common::codec::{RECEIVE_MAXIMUM, frame};
use common::{Connect, Device, Packet, Raw, TestServer, assert_text, parse};
use serde_json::{Value, json};

const OUTBOX: &str = "users/alice/phone/outbox";
const INBOX: &str = "users/alice/phone/inbox";

/// Without an id: only packet ids tell one message from another.
fn text(body: &str) -> String {
    json!({"to": "bob", "text": {"body": body}}).to_string()
}

struct Stage {
    server: TestServer,
    alice: String,
    bob: Device,
}

impl Stage {
    fn new(config: &str) -> Self {
        let server = TestServer::start_with(config);
        ["alice", "bob"].iter().for_each(|name| server.add_user(name));
        let alice = server.token("alice");
        let bob = Device::v5(&server, "bob", "phone");
        Self { server, alice, bob }
    }

    fn connect(&self, v5: bool) -> Connect {
        Connect { v5, ..Connect::v5("alice", "alice-phone", &self.alice) }
    }

    fn alice(&self, v5: bool) -> Raw {
        self.connect(v5).open(self.server.mqtt()).0
    }

    /// Bob gets exactly these from alice, once and in order.
    #[track_caller]
    fn bob_gets(&mut self, bodies: &[&str]) {
        for body in bodies {
            assert_text(&self.bob.entry(), "alice", body);
        }
        self.bob.raw.ping();
        assert_eq!(self.bob.raw.queued().count(), 0);
    }

    fn bob_sends(&mut self, count: usize) {
        for n in 0..count {
            let payload = json!({"to": "alice", "text": {"body": n.to_string()}}).to_string();
            let outbox = self.bob.outbox();
            assert_eq!(self.bob.raw.publish_and_wait(&outbox, &payload).0, 0);
        }
    }
}

/// The PUBLISHes at QoS 1 that have come: DUP, packet id, body.
fn arrived(raw: &mut Raw) -> Vec<(bool, u16, Value)> {
    // A PINGRESP is the door's own and overtakes entries; a PUBACK comes behind all that was sent before.
    let nothing = json!({"status": "typing", "chat": "alice"}).to_string();
    assert_eq!(raw.publish_and_wait("users/alice/phone/outbox", &nothing).0, 0);
    let mut all = Vec::new();
    for packet in raw.queued() {
        if let Packet::Publish { dup, qos: 1, id, payload, .. } = packet {
            all.push((*dup, *id, parse(payload)["text"]["body"].clone()));
        }
    }
    all
}

/// [MQTT-3.3.1-3], [MQTT-4.3.2-4], [MQTT-4.3.2-5], [MQTT-2.2.1-5], [MQTT-3.3.4-1]
#[test]
fn after_its_puback_a_packet_id_is_a_new_message_whatever_dup_says() {
    let mut stage = Stage::new("");
    for v5 in [true, false] {
        let mut alice = stage.alice(v5);
        for (flags, body) in [(0x02, "first"), (0x0a, "second"), (0x0a, "third")] {
            let bytes = alice.publish_bytes(OUTBOX, flags, 7, text(body).as_bytes());
            alice.send(&bytes);
            assert_eq!(alice.puback(7).0, 0);
            let (dup, id) = stage.bob.raw.wait_for("a PUBLISH", |packet| match packet {
                Packet::Publish { dup, id, payload, .. } => {
                    assert_text(&parse(payload), "alice", body);
                    Some((*dup, *id))
                }
                _ => None,
            });
            assert!(!dup, "DUP of the sender is not handed on");
            stage.bob.raw.ack(id);
        }
    }
}

/// [MQTT-4.3.3-8], [MQTT-4.3.3-10] to [MQTT-4.3.3-13], [MQTT-3.5.2-1], [MQTT-3.7.2-1], [MQTT-2.2.1-5]
#[test]
fn qos_2_is_one_message_until_its_pubcomp() {
    let mut stage = Stage::new("");
    for v5 in [true, false] {
        let mut alice = stage.alice(v5);
        // Twice before the first PUBREC can have come.
        let first = alice.publish_bytes(OUTBOX, 0x04, 5, text("one").as_bytes());
        let again = alice.publish_bytes(OUTBOX, 0x0c, 5, text("one").as_bytes());
        alice.send(&[first, again].concat());
        assert_eq!(alice.pubrec(5), 0);
        // And after it, with other content even: the packet id is taken.
        assert_eq!(alice.publish_qos2(OUTBOX, 5, true, &text("one")), 0);
        assert_eq!(alice.publish_qos2(OUTBOX, 5, false, &text("ONE")), 0);
        assert_eq!(alice.release_and_wait(5), 0);
        // A PUBREL that comes again, and one of nothing.
        let unknown = if v5 { 0x92 } else { 0 };
        assert_eq!(alice.release_and_wait(5), unknown);
        assert_eq!(alice.release_and_wait(6), unknown);
        assert_eq!(alice.publish_qos2(OUTBOX, 5, false, &text("two")), 0);
        assert_eq!(alice.release_and_wait(5), 0);
        stage.bob_gets(&["one", "two"]);
    }
}

/// [MQTT-4.3.3-9]: an error in PUBREC ends the exchange on MQTT 5; 3.1.1 knows no errors.
#[test]
fn a_refused_qos_2_publish_is_over_with_its_pubrec() {
    let mut stage = Stage::new("");
    let mut alice = stage.alice(true);
    assert_eq!(alice.publish_qos2("users/bob/phone/outbox", 5, false, &text("no")), 0x87);
    assert_eq!(alice.publish_qos2(OUTBOX, 5, false, "not json"), 0x99);
    assert_eq!(alice.publish_qos2(OUTBOX, 5, false, &text("yes")), 0);
    assert_eq!(alice.release_and_wait(5), 0);
    let mut alice = stage.alice(false);
    assert_eq!(alice.publish_qos2("users/bob/phone/outbox", 5, false, &text("no")), 0);
    assert_eq!(alice.release_and_wait(5), 0);
    stage.bob_gets(&["yes"]);
}

#[test]
fn s44_qos_2_without_pubrel_is_bounded_and_a_repeated_packet_id_is_absorbed() {
    let mut stage = Stage::new("");
    let mut alice = stage.alice(true);
    let one = alice.publish_bytes(OUTBOX, 0x04, 1, text("one").as_bytes());
    alice.send(&one);
    alice.pubrec(1);
    for _ in 0..100 {
        alice.send(&one.repeat(100));
        for _ in 0..100 {
            assert_eq!(alice.pubrec(1), 0);
        }
    }
    stage.bob_gets(&["one"]);
    for id in 2..=128 {
        assert_eq!(alice.publish_qos2(OUTBOX, id, false, "{\"sync\":true}"), 0);
    }
    alice.send(&one.repeat(10));
    let more = alice.publish_bytes(OUTBOX, 0x04, 129, text("too many").as_bytes());
    alice.send(&more);
    assert_eq!(alice.expect_end(), Some(0x93));

    // 3.1.1 knows no receive maximum: its packet ids are bounded all the same.
    let mut alice = stage.alice(false);
    for id in 1..=5000 {
        let bytes = alice.publish_bytes(OUTBOX, 0x04, id, b"{\"sync\":true}");
        alice.send(&bytes);
    }
    alice.expect_end();
    stage.bob_gets(&[]);
    assert_eq!(stage.alice(true).publish_qos2(OUTBOX, 1, false, &text("again")), 0);
    stage.bob_gets(&["again"]);
}

/// [MQTT-3.3.4-8]
#[test]
fn more_publishes_than_the_receive_maximum_end_the_connection() {
    let mut stage = Stage::new("[door]\nreceive_maximum = 3\n");
    let (mut alice, _, code, properties) = stage.connect(true).try_open(stage.server.mqtt());
    assert_eq!((code, properties.number(RECEIVE_MAXIMUM)), (0, Some(3)));
    for (id, body) in [(1, "1"), (2, "2"), (3, "3")] {
        assert_eq!(alice.publish_qos2(OUTBOX, id, false, &text(body)), 0);
    }
    assert_eq!(alice.release_and_wait(2), 0, "which makes room for one");
    assert_eq!(alice.publish_qos2(OUTBOX, 4, false, &text("4")), 0);
    // At QoS 0 there is no quota.
    let free = alice.publish_bytes(OUTBOX, 0, 0, text("5").as_bytes());
    alice.send(&free);
    alice.publish(OUTBOX, &text("too many"));
    assert_eq!(alice.expect_end(), Some(0x93));
    stage.bob_gets(&["1", "2", "3", "4", "5"]);
}

/// [MQTT-3.3.4-7], [MQTT-4.9.0-1] to [MQTT-4.9.0-3], [MQTT-2.2.1-4], [MQTT-4.3.2-1], [MQTT-4.3.2-2], [MQTT-4.6.0-5],
/// [MQTT-4.6.0-6]
#[test]
fn a_client_is_sent_no_more_than_its_receive_maximum() {
    let mut stage = Stage::new("");
    let connect = Connect { receive_maximum: Some(3), ..stage.connect(true) };
    let (mut alice, _) = connect.open(stage.server.mqtt());
    assert_eq!(alice.subscribe(INBOX, 1), 1);
    stage.bob_sends(10);
    let mut seen: Vec<Value> = Vec::new();
    for taken in 0..10 {
        // Everything else goes on while the quota is used up.
        assert_eq!(alice.subscribe("users/bob/phone/inbox", 1), 0x87);
        assert_eq!(alice.publish_and_wait(OUTBOX, &text("meanwhile")).0, 0);
        let flying = arrived(&mut alice);
        assert_eq!(flying.len(), 3.min(10 - taken), "after {taken}: {flying:?}");
        let mut ids: Vec<u16> = flying.iter().map(|(_, id, _)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), flying.len(), "packet ids that are in use are not used");
        assert!(flying.iter().all(|(dup, id, _)| !dup && *id != 0));
        let (_, id, payload) = alice.next_publish();
        seen.push(parse(&payload)["text"]["body"].clone());
        alice.ack(id);
    }
    assert_eq!(seen, (0..10).map(|n| json!(n.to_string())).collect::<Vec<_>>(), "in order");
}

#[test]
fn s45_who_acknowledges_nothing_is_sent_a_hundred_entries_and_no_more() {
    let mut stage = Stage::new("");
    for v5 in [true, false] {
        let (mut alice, _) = stage.connect(v5).open(stage.server.mqtt());
        assert_eq!(alice.subscribe(INBOX, 1), 1);
        stage.bob_sends(120);
        let flying = arrived(&mut alice);
        assert_eq!(flying.len(), 100, "MQTT 5: {v5}");
        // Its session is parked, not lost.
        let mut taken = 0;
        while taken < 120 {
            let (_, id, payload) = alice.next_publish();
            assert_text(&parse(&payload), "bob", &taken.to_string());
            alice.ack(id);
            taken += 1;
        }
        alice.ping();
        assert_eq!(arrived(&mut alice).len(), 0);
    }
}

/// [MQTT-3.3.1-1], [MQTT-4.3.2-3], [MQTT-4.4.0-1], [MQTT-4.4.0-2], [MQTT-4.1.0-1], [MQTT-4.5.0-1]
#[test]
fn what_is_unacknowledged_comes_again_on_the_next_connection_and_at_no_other_time() {
    let mut stage = Stage::new("");
    for v5 in [true, false] {
        let connect = Connect { client_id: format!("kept-{v5}"), ..stage.connect(v5) }.keeping_its_session();
        let (mut alice, _) = connect.open(stage.server.mqtt());
        assert_eq!(alice.subscribe(INBOX, 1), 1);
        stage.bob_sends(4);
        let first = arrived(&mut alice);
        assert_eq!(first.len(), 4);
        assert!(first.iter().all(|(dup, ..)| !dup));
        alice.ping();
        assert_eq!(arrived(&mut alice).len(), 4, "nothing is sent again on this connection");
        alice.ack(first[0].1);
        if v5 {
            // An error in PUBACK is an acknowledgement too.
            let id = first[1].1.to_be_bytes();
            alice.send(&frame(0x40, &[id[0], id[1], 0x99]));
        } else {
            alice.ack(first[1].1);
        }
        alice.ping();
        drop(alice);
        let (mut alice, present) = connect.open(stage.server.mqtt());
        assert!(present);
        alice.wait_for("the last of them", |packet| match packet {
            Packet::Publish { id, .. } if *id == first[3].1 => Some(()),
            _ => None,
        });
        let again = arrived(&mut alice);
        assert_eq!(again, [(true, first[2].1, first[2].2.clone())], "and the last was {:?}", first[3]);
        alice.ack(first[2].1);
        alice.ack(first[3].1);
        alice.ping();
        drop(alice);
        let (mut alice, _) = connect.open(stage.server.mqtt());
        assert_eq!(arrived(&mut alice), []);
    }
}

/// [MQTT-3.1.2-24], [MQTT-3.1.2-25], [MQTT-3.4.2-2], [MQTT-3.4.2-3], [MQTT-3.5.2-2], [MQTT-3.5.2-3]
#[test]
fn nothing_larger_than_the_maximum_packet_size_is_sent() {
    let mut stage = Stage::new("");
    let connect = Connect { packet_bytes_max: Some(400), ..stage.connect(true) };
    let (mut alice, _) = connect.open(stage.server.mqtt());
    assert_eq!(alice.subscribe(INBOX, 1), 1);
    let long = json!({"to": "alice", "id": "long", "text": {"body": "x".repeat(1000)}}).to_string();
    let outbox = stage.bob.outbox();
    assert_eq!(stage.bob.raw.publish_and_wait(&outbox, &long).0, 0);
    let (qos, id, payload) = alice.next_publish();
    assert_eq!((qos, parse(&payload)["type"].as_str()), (1, Some("unsupported")), "a stub in its place");
    assert!(payload.len() < 400, "{}", payload.len());
    alice.ack(id);
    stage.bob_sends(1);
    assert_text(&parse(&alice.next_publish().2), "bob", "0");

    // Answers lose what does not fit, and keep their reason.
    let bare = Connect { client_id: "bare".into(), packet_bytes_max: Some(20), ..stage.connect(true) };
    let (mut alice, _) = bare.open(stage.server.mqtt());
    let (reason, properties) = alice.publish_and_wait(OUTBOX, &text("hello"));
    assert_eq!((reason, properties), (0, Default::default()));
    let (reason, properties) = alice.publish_and_wait(OUTBOX, "not json");
    assert_eq!((reason, properties), (0x99, Default::default()));
    for (id, payload, expected) in [(8, text("world"), 0), (9, "not json".to_owned(), 0x99)] {
        let bytes = alice.publish_bytes(OUTBOX, 0x04, id, payload.as_bytes());
        alice.send(&bytes);
        let (reason, properties) = alice.wait_for("a PUBREC", |packet| match packet {
            Packet::PubRec { reason, properties, .. } => Some((*reason, properties.clone())),
            _ => None,
        });
        assert_eq!((reason, properties), (expected, Default::default()));
    }
}

/// [MQTT-3.1.2-29]
#[test]
fn without_problem_information_answers_are_bare_and_hints_say_the_rest() {
    let mut stage = Stage::new("");
    let connect = Connect { more_properties: vec![0x17, 0], ..stage.connect(true) };
    let mut alice = Device::open(stage.server.mqtt(), connect, "phone");
    let (reason, properties) = alice.publish(&json!({"id": "m1", "to": "bob", "text": {"body": "hello"}}));
    assert_eq!((reason, properties), (0, Default::default()));
    assert_eq!(alice.live()["status"], "sent");
    let (reason, properties) = alice.publish(&json!({"id": "m2", "to": "nobody", "text": {"body": "hello"}}));
    assert_eq!((reason, properties), (0x83, Default::default()));
    assert_text(&stage.bob.entry(), "alice", "hello");
}

/// [MQTT-4.3.2-2], [MQTT-3.1.2-4]
#[test]
fn what_a_new_session_is_sent_has_no_dup() {
    let mut stage = Stage::new("");
    for v5 in [true, false] {
        let (mut alice, _) = stage.connect(v5).open(stage.server.mqtt());
        assert_eq!(alice.subscribe(INBOX, 1), 1);
        stage.bob_sends(1);
        let (sent, id) = alice.wait_for("the entry", dup);
        assert!(!sent);
        let (mut alice, present) = stage.connect(v5).open(stage.server.mqtt());
        assert!(!present);
        assert_eq!(alice.subscribe(INBOX, 1), 1);
        assert_eq!(alice.wait_for("the entry", dup), (false, id), "MQTT 5: {v5}");
        alice.ack(id);
        alice.ping();
    }
}

/// [MQTT-3.3.1-1]
#[test]
fn after_a_crash_what_is_unacknowledged_has_dup() {
    let mut stage = Stage::new("");
    let connect = stage.connect(true).keeping_its_session();
    let (mut alice, _) = connect.open(stage.server.mqtt());
    assert_eq!(alice.subscribe(INBOX, 1), 1);
    stage.bob_sends(1);
    let (sent, id) = alice.wait_for("the entry", dup);
    assert!(!sent);
    stage.server.kill9();
    stage.server.restart();
    let (mut alice, present) = connect.open(stage.server.mqtt());
    assert!(present);
    assert_eq!(alice.wait_for("the entry", dup), (true, id));
}

/// DUP and packet id of a PUBLISH at QoS 1.
fn dup(packet: &Packet) -> Option<(bool, u16)> {
    match packet {
        Packet::Publish { dup, qos: 1, id, .. } => Some((*dup, *id)),
        _ => None,
    }
}
