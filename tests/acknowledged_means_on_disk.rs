//! One tick means on disk: the server may be killed in the very moment after its PUBACK.

mod common;

use common::mosquitto::{self, Version};
use common::{Connect, Device, TestServer, assert_receipt, assert_text};
use serde_json::json;

fn text(id: &str, body: &str) -> String {
    json!({"id": id, "to": "bob", "type": "text", "text": {"body": body}}).to_string()
}

#[test]
fn a_message_acknowledged_to_mosquitto_pub_survives_kill_9() {
    if !mosquitto::is_there() {
        return;
    }
    let mut server = TestServer::with_users(&["alice", "bob"]);
    let token = server.token("alice");

    mosquitto::publish(&server, Version::V311, "alice", "phone", &token, 1, &text("m1", "the first"));
    server.kill9();
    server.restart();
    mosquitto::publish(&server, Version::V5, "alice", "phone", &token, 1, &text("m2", "the second"));
    server.kill9();
    server.restart();

    // Bob was offline all the time. Each message comes once: what comes behind them is the third.
    let mut bob = Device::v5(&server, "bob", "phone");
    let first = bob.entry();
    assert_text(&first, "alice", "the first");
    assert_eq!((&first["id"], first["n"].as_u64()), (&json!("m1"), Some(1)), "{first}");
    let second = bob.entry();
    assert_text(&second, "alice", "the second");
    assert_eq!((&second["id"], second["n"].as_u64()), (&json!("m2"), Some(2)), "{second}");

    // Alice hears of both, whether in one receipt or in two, and then that he has read them.
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut upto = 0;
    while upto < 2 {
        let delivered = alice.entry();
        let n = delivered["n"].as_u64().expect("n");
        assert_receipt(&delivered, "delivered", "bob", upto, n);
        assert_eq!(delivered["id"], format!("m{n}"), "{delivered}");
        upto = n;
    }
    bob.mark_read("alice", 2);
    let read = alice.entry();
    assert_receipt(&read, "read", "bob", 0, 2);
    assert_eq!(read["id"], "m2", "{read}");

    alice.send("bob", "m3", "the third");
    assert_text(&bob.entry(), "alice", "the third");
}

#[test]
fn every_message_that_was_acknowledged_is_there_whenever_the_server_dies() {
    let mut server = TestServer::with_users(&["alice", "bob"]);
    let connect = Connect::v5("alice", "alice-phone", &server.token("alice"));
    let mut acknowledged = 0;
    for round in 0..6 {
        let (mut alice, _) = connect.open(server.mqtt());
        let ids: Vec<u16> = (0..50)
            .map(|i| {
                alice.publish("users/alice/phone/outbox", &text(&format!("r{round}-{i}"), &format!("{round}-{i}")))
            })
            .collect();
        // Dies with some of the messages acknowledged, some committed, some on their way.
        for id in &ids[..usize::try_from(round * 9 + 1).expect("a small number")] {
            assert_eq!(alice.puback(*id).0, 0);
            acknowledged += 1;
        }
        server.kill9();
        server.restart();
    }

    let mut bob = Device::v5(&server, "bob", "phone");
    let (mut expected_n, mut got) = (1, Vec::new());
    let (mut alice, _) = connect.open(server.mqtt());
    alice.publish_and_wait("users/alice/phone/outbox", &text("end", "the end"));
    loop {
        let entry = bob.entry();
        assert_eq!(entry["n"].as_u64(), Some(expected_n), "dense and in order: {entry}");
        expected_n += 1;
        let body = entry["text"]["body"].as_str().expect("a text").to_owned();
        if body == "the end" {
            break;
        }
        got.push(body);
    }
    for round in 0..6 {
        let of_round: Vec<_> = got.iter().filter(|body| body.starts_with(&format!("{round}-"))).collect();
        let expected: Vec<_> = (0..of_round.len()).map(|i| format!("{round}-{i}")).collect();
        assert_eq!(of_round, expected.iter().collect::<Vec<_>>(), "a prefix of what was sent, in order");
        assert!(of_round.len() > round * 9, "round {round}: {} of at least {}", of_round.len(), round * 9 + 1);
    }
    assert!(got.len() >= acknowledged, "{} of {acknowledged}", got.len());
}

#[test]
fn a_clean_end_loses_nothing_either() {
    let mut server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut bob = Device::v5(&server, "bob", "phone");
    alice.send("bob", "m1", "one");
    assert_text(&bob.entry(), "alice", "one");
    assert_receipt(&alice.entry(), "delivered", "bob", 0, 1);
    alice.send("bob", "m2", "two");
    let (_, entry) = bob.entry_without_ack();
    assert_text(&entry, "alice", "two");

    server.terminate();
    assert_eq!(alice.raw.expect_end(), Some(0x8b), "the server says that it is shutting down");
    server.restart();

    bob.last = Some(entry["prev"].as_u64().expect("prev"));
    bob.reconnect(&server);
    assert_text(&bob.entry(), "alice", "two");
    alice.reconnect(&server);
    assert_receipt(&alice.entry(), "delivered", "bob", 1, 2);
    assert_eq!(alice.send("bob", "m1", "one"), 1, "a repeat gets the first answer again");
    assert_eq!(alice.send("bob", "m3", "three"), 3);
    assert_text(&bob.entry(), "alice", "three");
}
