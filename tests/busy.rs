//! Another process writes to the database, a backup tool say: messages wait for it, and are never acknowledged before they are on disk.
#![allow(clippy::expect_used, reason = "a test ends where its world does not hold")]

mod common;

use std::time::{Duration, Instant};

use common::{Device, Packet, TestServer, assert_text};
use rusqlite::Connection;
use serde_json::json;

fn text(id: &str) -> String {
    json!({"id": id, "to": "bob", "type": "text", "text": {"body": id}}).to_string()
}

#[test]
fn messages_wait_for_another_writer_and_are_not_acknowledged_while_it_is_there() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut bob = Device::v5(&server, "bob", "phone");
    assert_eq!(alice.send("bob", "m1", "m1"), 1);
    assert_text(&bob.entry(), "alice", "m1");
    assert_eq!(alice.entry()["status"], "delivered");

    let other = Connection::open(server.data().join("natter.db")).expect("the database");
    other.busy_timeout(Duration::from_secs(5)).expect("a timeout");
    other.execute_batch("BEGIN IMMEDIATE").expect("a transaction");
    let id = alice.raw.publish(&alice.outbox(), &text("m2"));
    // The door answers while the bridge waits.
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_secs(1) {
        alice.raw.ping();
        assert_eq!(alice.raw.queued().next(), None, "no PUBACK before the commit");
    }
    other.execute_batch("COMMIT").expect("its end");
    assert_eq!(alice.raw.puback(id).0, 0);
    assert_text(&bob.entry(), "alice", "m2");
    assert_eq!(alice.entry()["status"], "delivered");

    // One that stays longer than a batch may wait: "not now", and nothing of it is there.
    other.execute_batch("BEGIN IMMEDIATE").expect("a transaction");
    alice.raw.publish(&alice.outbox(), &text("m3"));
    loop {
        match alice.raw.next().expect("a DISCONNECT first") {
            Packet::Disconnect { reason, .. } => {
                assert!(reason == 0x89 || reason == 0x97, "\"not now\", got 0x{reason:02x}");
                break;
            }
            packet => assert!(!matches!(packet, Packet::PubAck { .. }), "{packet:?}"),
        }
    }
    other.execute_batch("COMMIT").expect("its end");
    alice.reconnect(&server);
    bob.reconnect(&server);
    assert_eq!(alice.send("bob", "m3", "m3"), 3, "the resend is the first");
    assert_text(&bob.entry(), "alice", "m3");
    assert_eq!(alice.send("bob", "m4", "m4"), 4);
    assert_text(&bob.entry(), "alice", "m4");
}
