//! What is wrong is answered as wire.md section 4 says, and nothing behind it is lost.

mod common;

use common::{Device, TestServer, assert_text, parse};
use serde_json::{Value, json};

/// What is wrong, the payload, and the answer: MQTT 5 reason, code, and the id where one can be known.
fn bad() -> Vec<(&'static str, String, u8, u64, Option<&'static str>)> {
    let large = json!({"id": "large", "to": "bob", "text": {"body": "x".repeat(61_440)}}).to_string();
    vec![
        ("no JSON", "{\"to\":\"bob\"".to_owned(), 0x99, 100, None),
        ("nothing", String::new(), 0x99, 100, None),
        ("no object", "[1,2]".to_owned(), 0x99, 100, None),
        ("a key twice", r#"{"id":"twice","to":"bob","to":"bob","text":{"body":"x"}}"#.to_owned(), 0x99, 100, None),
        ("no text", json!({"id": "notext", "to": "bob", "type": "text"}).to_string(), 0x99, 100, Some("notext")),
        ("no recipient", json!({"id": "noto", "text": {"body": "x"}}).to_string(), 0x99, 100, Some("noto")),
        (
            "unknown recipient",
            json!({"id": "nobody", "to": "nobody", "text": {"body": "x"}}).to_string(),
            0x83,
            131_026,
            Some("nobody"),
        ),
        ("unknown type", json!({"id": "poll", "to": "bob", "type": "poll"}).to_string(), 0x83, 131_051, Some("poll")),
        (
            "a value out of range",
            json!({"id": "mars", "to": "bob", "type": "location", "location": {"latitude": 91, "longitude": 0}})
                .to_string(),
            0x83,
            131_009,
            Some("mars"),
        ),
        (
            "a reference to nothing",
            json!({"id": "lost", "to": "bob", "text": {"body": "x"}, "context": {"message_id": "never-was"}})
                .to_string(),
            0x83,
            1410,
            Some("lost"),
        ),
        (
            "an ambiguous reference",
            json!({"id": "which", "to": "bob", "text": {"body": "x"}, "context": {"message_id": "same"}}).to_string(),
            0x83,
            1410,
            Some("which"),
        ),
        ("too large", large, 0x97, 131_009, None),
    ]
}

/// Alice and bob have both sent a message `same` in their chat.
fn with_an_ambiguous_id(server: &TestServer) -> Device {
    let mut bob = Device::v5(server, "bob", "phone");
    let mut alice = Device::v5(server, "alice", "before");
    alice.send("bob", "same", "mine");
    assert_text(&bob.entry(), "alice", "mine");
    bob.send("alice", "same", "yours");
    bob
}

#[test]
fn over_mqtt_5_the_puback_says_why_and_the_next_message_goes_through() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = with_an_ambiguous_id(&server);
    let mut alice = Device::v5(&server, "alice", "phone");
    for (i, (what, payload, expected, _, _)) in bad().into_iter().enumerate() {
        // Both are on their way before the first is answered.
        let good = json!({"id": format!("good-{i}"), "to": "bob", "text": {"body": what}}).to_string();
        let outbox = alice.outbox();
        let (bad_id, good_id) = (alice.raw.publish(&outbox, &payload), alice.raw.publish(&outbox, &good));
        let (reason, properties) = alice.raw.puback(bad_id);
        assert_eq!(format!("0x{reason:02x}"), format!("0x{expected:02x}"), "{what}: {properties:?}");
        assert!(properties.reason_string.is_some_and(|text| !text.is_empty()), "{what}: a reason string");
        let (reason, properties) = alice.raw.puback(good_id);
        assert_eq!(reason, 0, "behind {what}: {properties:?}");
        let entry = loop {
            let entry = bob.entry();
            if entry["type"] == "text" {
                break entry;
            }
        };
        assert_text(&entry, "alice", what);
        assert_eq!(entry["id"], format!("good-{i}"), "{what}");
    }
}

#[test]
fn over_mqtt_3_1_1_a_failed_names_the_id_where_one_is_known_and_the_next_message_goes_through() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = with_an_ambiguous_id(&server);
    let mut alice = Device::v3(&server, "alice", "phone");
    for (i, (what, payload, _, code, id)) in bad().into_iter().enumerate() {
        let good = json!({"id": format!("good-{i}"), "to": "bob", "text": {"body": what}}).to_string();
        let outbox = alice.outbox();
        let (bad_id, good_id) = (alice.raw.publish(&outbox, &payload), alice.raw.publish(&outbox, &good));
        alice.raw.puback(bad_id);
        alice.raw.puback(good_id);
        if let Some(id) = id {
            let failed = next_failed(&mut alice);
            assert_eq!((&failed["id"], &failed["errors"][0]["code"]), (&json!(id), &json!(code)), "{what}: {failed}");
            let details = failed["errors"][0]["error_data"]["details"].as_str();
            assert!(details.is_some_and(|details| !details.is_empty()), "{what}: {failed}");
        }
        let entry = loop {
            let entry = bob.entry();
            if entry["type"] == "text" {
                break entry;
            }
        };
        assert_text(&entry, "alice", what);
        assert_eq!(entry["id"], format!("good-{i}"), "{what}");
    }
}

#[test]
fn over_mqtt_3_1_1_sent_says_what_the_puback_cannot() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v3(&server, "alice", "phone");
    alice.send("bob", "m1", "hi");
    let sent = alice.live();
    assert_eq!(
        (&sent["type"], &sent["status"], &sent["chat"]),
        (&json!("status"), &json!("sent"), &json!("bob")),
        "{sent}"
    );
    assert_eq!(sent["messages"], json!([{"id": "m1", "n": 1}]), "{sent}");
    assert_eq!(sent.get("seq"), None);
}

#[test]
fn a_failed_that_the_sender_did_not_take_comes_again() {
    let mut server = TestServer::with_users(&["alice"]);
    let mut alice = Device::v3(&server, "alice", "phone");
    alice.publish(&json!({"id": "m1", "to": "nobody", "text": {"body": "x"}}));
    // The PUBACK came: `failed` is on disk.
    server.kill9();
    server.restart();
    alice.last = None;
    alice.reconnect(&server);
    let failed = next_failed(&mut alice);
    assert_eq!(failed["id"], "m1", "{failed}");
}

#[test]
fn bad_commands_are_refused_too() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v5(&server, "alice", "phone");
    for (what, payload, expected) in [
        ("an ack of what was never sent", json!({"ack": 1_000_000}), 0x83),
        ("a read mark that points nowhere", json!({"status": "read"}), 0x99),
        ("an unknown status", json!({"status": "seen", "chat": "bob", "n": 1}), 0x83),
        ("a read mark of an unknown message", json!({"status": "read", "message_id": "never-was"}), 0x83),
        ("two purposes", json!({"ack": 1, "sync": true}), 0x99),
    ] {
        let (reason, properties) = alice.publish(&payload);
        assert_eq!(format!("0x{reason:02x}"), format!("0x{expected:02x}"), "{what}: {properties:?}");
    }
    alice.send("bob", "m1", "hi");
}

/// The next `failed`, whether it is stored or live.
#[track_caller]
fn next_failed(alice: &mut Device) -> Value {
    loop {
        let (qos, packet_id, payload) = alice.raw.next_publish();
        let entry = parse(&payload);
        if qos == 1 {
            alice.takes(&entry);
            alice.raw.ack(packet_id);
        }
        // A hint without a `seq` is live: it tells of a publish that no id is known of.
        if entry["status"] == "failed" && qos == 1 {
            return entry;
        }
    }
}
