//! `(sender, id)` is one message, however often it is sent.

mod common;

use common::{Device, TestServer, assert_receipt, assert_text};
use serde_json::{Value, json};

fn text(id: &str, body: &str) -> Value {
    json!({"id": id, "to": "bob", "type": "text", "text": {"body": body}})
}

#[test]
fn ten_times_over_two_connections_is_one_message() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut phone = Device::v5(&server, "alice", "phone");
    let mut tablet = Device::v5(&server, "alice", "tablet");
    let mut bob = Device::v5(&server, "bob", "phone");

    let mut answers = Vec::new();
    for device in [&mut phone, &mut tablet] {
        for _ in 0..5 {
            let (reason, answer) = device.publish(&text("m1", "hi"));
            assert_eq!((reason, answer.get("id"), answer.get("n")), (0, Some("m1"), Some("1")), "{answer:?}");
            answers.push(answer.get("timestamp").map(str::to_owned));
        }
    }
    assert!(answers[0].is_some() && answers.iter().all(|t| *t == answers[0]), "one timestamp: {answers:?}");

    // The same fields in another order, with members that nobody knows, are the same message.
    let again = r#"{"text":{"body":"hi"},"x":1,"from":"carol","type":"text","to":"bob","id":"m1"}"#;
    let (reason, answer) = phone.raw.publish_and_wait(&phone.outbox(), again);
    assert_eq!((reason, answer.get("n")), (0, Some("1")));

    assert_text(&bob.entry(), "alice", "hi");
    assert_eq!(phone.send("bob", "m2", "next"), 2);
    assert_text(&bob.entry(), "alice", "next");
}

#[test]
fn with_other_content_it_is_refused_over_mqtt_5_and_the_good_one_keeps_its_ticks() {
    let server = TestServer::with_users(&["alice", "bob", "carol"]);
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut bob = Device::v5(&server, "bob", "phone");
    assert_eq!(alice.send("bob", "m1", "good"), 1);
    for other in [text("m1", "bad"), json!({"id": "m1", "to": "carol", "text": {"body": "good"}})] {
        let (reason, properties) = alice.publish(&other);
        assert_eq!(reason, 0x83, "{properties:?}");
        assert!(properties.reason_string.is_some(), "a reason string");
    }
    assert_text(&bob.entry(), "alice", "good");
    assert_receipt(&alice.entry(), "delivered", "bob", 0, 1);
    assert_eq!(alice.send("bob", "m1", "good"), 1, "the good one is still the one");
    alice.send("bob", "m2", "next");
    assert_text(&bob.entry(), "alice", "next");
}

#[test]
fn with_other_content_it_is_refused_over_mqtt_3_1_1_by_a_failed_without_id() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v3(&server, "alice", "phone");
    alice.publish(&text("m1", "good"));
    alice.publish(&text("m1", "bad"));
    let failed = alice.entry();
    assert_eq!((&failed["type"], &failed["status"]), (&json!("status"), &json!("failed")), "{failed}");
    assert_eq!(failed.get("id"), None, "the id is the good message's: {failed}");
    assert_eq!((&failed["errors"][0]["code"], &failed["errors"][0]["conflicts_with"]), (&json!(1409), &json!("m1")));

    let mut bob = Device::v5(&server, "bob", "phone");
    assert_text(&bob.entry(), "alice", "good");
    assert_receipt(&alice.entry(), "delivered", "bob", 0, 1);
}

#[test]
fn after_a_crash_it_is_still_the_same_message() {
    let mut server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v5(&server, "alice", "phone");
    assert_eq!(alice.send("bob", "m1", "hi"), 1);
    server.kill9();
    server.restart();
    alice.reconnect(&server);
    assert_eq!(alice.send("bob", "m1", "hi"), 1);
    assert_eq!(alice.publish(&text("m1", "other")).0, 0x83);
    assert_eq!(alice.send("bob", "m2", "next"), 2);
    let mut bob = Device::v5(&server, "bob", "phone");
    assert_text(&bob.entry(), "alice", "hi");
    assert_text(&bob.entry(), "alice", "next");
}
