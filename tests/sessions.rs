//! Sessions that outlive their connections, and servers.

mod common;

use common::mosquitto::{self, Version};
use common::{Connect, Device, Packet, Raw, TestServer, assert_text, parse};
use serde_json::{Value, json};

const INBOX: &str = "users/bob/phone/inbox";

fn both_versions(token: &str) -> [Connect; 2] {
    [Connect::v3("bob", "bob-phone", token), Connect::v5("bob", "bob-phone", token)].map(Connect::keeping_its_session)
}

/// The next entry, acknowledged.
#[track_caller]
fn take(raw: &mut Raw) -> Value {
    let (qos, id, payload) = raw.next_publish();
    assert_eq!(qos, 1);
    raw.ack(id);
    parse(&payload)
}

#[test]
fn delivery_resumes_without_a_subscribe() {
    for version in [0, 1] {
        let server = TestServer::with_users(&["alice", "bob"]);
        let mut alice = Device::v5(&server, "alice", "phone");
        let connect = both_versions(&server.token("bob"))[version].clone();
        let (mut bob, present) = connect.open(server.mqtt());
        assert!(!present, "the first time there is none");
        assert_eq!(bob.subscribe(INBOX, 1), 1);
        drop(bob);

        alice.send("bob", "m1", "while he is away");
        let (mut bob, present) = connect.open(server.mqtt());
        assert!(present);
        assert_text(&take(&mut bob), "alice", "while he is away");
        bob.disconnect();

        alice.send("bob", "m2", "after a DISCONNECT");
        let (mut bob, present) = connect.open(server.mqtt());
        assert!(present);
        assert_text(&take(&mut bob), "alice", "after a DISCONNECT");
    }
}

#[test]
fn a_session_survives_the_server() {
    for version in [0, 1] {
        let mut server = TestServer::with_users(&["alice", "bob"]);
        let connect = both_versions(&server.token("bob"))[version].clone();
        let (mut bob, _) = connect.open(server.mqtt());
        assert_eq!(bob.subscribe(INBOX, 1), 1);
        server.kill9();
        server.restart();
        Device::v5(&server, "alice", "phone").send("bob", "m1", "after a crash");
        let (mut bob, present) = connect.open(server.mqtt());
        assert!(present, "after a crash");
        assert_text(&take(&mut bob), "alice", "after a crash");
        bob.ping();

        server.terminate();
        server.restart();
        Device::v5(&server, "alice", "phone").send("bob", "m2", "after a clean end");
        let (mut bob, present) = connect.open(server.mqtt());
        assert!(present, "after a clean end");
        assert_text(&take(&mut bob), "alice", "after a clean end");
    }
}

#[test]
fn a_session_that_never_subscribed_resumes_to_nothing() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let connect = both_versions(&server.token("bob"))[1].clone();
    drop(connect.open(server.mqtt()));
    let (mut bob, present) = connect.open(server.mqtt());
    assert!(present);
    Device::v5(&server, "alice", "phone").send("bob", "m1", "hi");
    bob.ping();
    assert_eq!(bob.queued().count(), 0, "nothing was subscribed to");
    assert_eq!(bob.subscribe(INBOX, 1), 1);
    assert_text(&take(&mut bob), "alice", "hi");
}

#[test]
fn a_clean_start_forgets_the_session_but_not_the_device() {
    for version in [0, 1] {
        let server = TestServer::with_users(&["alice", "bob"]);
        let mut alice = Device::v5(&server, "alice", "phone");
        let keeping = both_versions(&server.token("bob"))[version].clone();
        let clean = Connect { clean: true, session_expiry: None, ..keeping.clone() };
        let (mut bob, _) = keeping.open(server.mqtt());
        assert_eq!(bob.subscribe(INBOX, 1), 1);
        drop(bob);
        alice.send("bob", "m1", "kept for the device");

        let (mut bob, present) = clean.open(server.mqtt());
        assert!(!present);
        bob.ping();
        assert_eq!(bob.queued().count(), 0, "a clean session has no subscription");
        drop(bob);
        let (mut bob, present) = keeping.open(server.mqtt());
        assert!(!present, "the clean start ended the old session, and left none");
        assert_eq!(bob.subscribe(INBOX, 1), 1);
        assert_text(&take(&mut bob), "alice", "kept for the device");
    }
}

#[test]
fn an_unsubscribe_is_remembered() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let connect = both_versions(&server.token("bob"))[1].clone();
    let (mut bob, _) = connect.open(server.mqtt());
    assert_eq!(bob.subscribe(INBOX, 1), 1);
    let mut body = vec![0, 77, 0];
    common::codec::write_text(&mut body, INBOX);
    bob.send(&common::codec::frame(0xa2, &body));
    bob.wait_for("an UNSUBACK", |packet| matches!(packet, Packet::UnsubAck { id: 77, .. }).then_some(()));
    drop(bob);
    Device::v5(&server, "alice", "phone").send("bob", "m1", "hi");
    let (mut bob, present) = connect.open(server.mqtt());
    assert!(present);
    bob.ping();
    assert_eq!(bob.queued().count(), 0);
}

#[test]
fn the_same_client_id_takes_the_connection_over() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let token = server.token("bob");
    for (v5, reason) in [(true, Some(0x8e)), (false, None)] {
        let connect = Connect { v5, ..Connect::v5("bob", "bob-phone", &token) };
        let (mut old, _) = connect.open(server.mqtt());
        let (mut new, _) = connect.open(server.mqtt());
        assert_eq!(old.expect_end(), reason);
        new.ping();
    }
    // Another user's connection of the same client id is another connection.
    let (mut bob, _) = Connect::v5("bob", "same", &token).open(server.mqtt());
    let (mut alice, _) = Connect::v5("alice", "same", &server.token("alice")).open(server.mqtt());
    alice.ping();
    bob.ping();
}

#[test]
fn a_newer_reader_of_the_same_inbox_takes_it_over() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let token = server.token("bob");
    let (mut old, _) = Connect::v5("bob", "one", &token).open(server.mqtt());
    assert_eq!(old.subscribe(INBOX, 1), 1);
    let (mut new, _) = Connect::v5("bob", "two", &token).open(server.mqtt());
    assert_eq!(new.subscribe(INBOX, 1), 1);
    assert_eq!(old.expect_end(), Some(0x8e));
    Device::v5(&server, "alice", "phone").send("bob", "m1", "hi");
    assert_text(&take(&mut new), "alice", "hi");
}

#[test]
fn qos_2_from_mosquitto_pub_is_one_message() {
    if !mosquitto::is_there() {
        return;
    }
    let server = TestServer::with_users(&["alice", "bob"]);
    let token = server.token("alice");
    let mut bob = Device::v5(&server, "bob", "phone");
    for (i, version) in [Version::V311, Version::V5].into_iter().enumerate() {
        let text = json!({"to": "bob", "type": "text", "text": {"body": format!("exactly {i}")}}).to_string();
        mosquitto::publish(&server, version, "alice", "phone", &token, 2, &text);
        let entry = bob.entry();
        assert_text(&entry, "alice", &format!("exactly {i}"));
        assert_eq!(entry["n"].as_u64(), Some(i as u64 + 1), "{entry}");
    }
}

#[test]
fn a_qos_2_message_that_is_sent_again_before_its_pubrel_is_one_message() {
    let mut server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = Device::v5(&server, "bob", "phone");
    let connect = Connect::v5("alice", "alice-phone", &server.token("alice")).keeping_its_session();
    // Without an id of the sender's, only the packet id says that it is the same.
    let text = |body: &str| json!({"to": "bob", "text": {"body": body}}).to_string();
    let topic = "users/alice/phone/outbox";

    let (mut alice, _) = connect.open(server.mqtt());
    let bytes = alice.publish_bytes(topic, 0x04, 5, text("once").as_bytes());
    alice.send(&bytes);
    assert_eq!(pubrec(&mut alice, 5), 0);
    drop(alice);
    for crash in [false, true] {
        if crash {
            server.kill9();
            server.restart();
            bob.reconnect(&server);
        }
        let (mut alice, present) = connect.open(server.mqtt());
        assert!(present);
        let again = alice.publish_bytes(topic, 0x0c, 5, text("once").as_bytes());
        alice.send(&again);
        assert_eq!(pubrec(&mut alice, 5), 0);
    }
    let (mut alice, _) = connect.open(server.mqtt());
    alice.release(5);
    alice.wait_for("a PUBCOMP", |packet| matches!(packet, Packet::PubComp { id: 5, .. }).then_some(()));
    // Released, the packet id is free for the next message.
    let next = alice.publish_bytes(topic, 0x04, 5, text("next").as_bytes());
    alice.send(&next);
    assert_eq!(pubrec(&mut alice, 5), 0);
    alice.release(5);
    alice.wait_for("a PUBCOMP", |packet| matches!(packet, Packet::PubComp { id: 5, .. }).then_some(()));

    assert_text(&bob.entry(), "alice", "once");
    assert_text(&bob.entry(), "alice", "next");
}

#[track_caller]
fn pubrec(raw: &mut Raw, id: u16) -> u8 {
    raw.wait_for("a PUBREC", |packet| match packet {
        Packet::PubRec { id: got, reason, .. } if *got == id => Some(*reason),
        _ => None,
    })
}

#[test]
fn client_ids_follow_the_standard() {
    let server = TestServer::with_users(&["bob"]);
    let token = server.token("bob");
    let (_, _, code, properties) = Connect::v5("bob", "", &token).try_open(server.mqtt());
    assert_eq!(code, 0);
    assert!(properties.assigned_client_id.is_some_and(|id| !id.is_empty()), "an empty id gets one");
    Connect::v3("bob", "", &token).open(server.mqtt());
    Connect { clean: false, ..Connect::v3("bob", "", &token) }.refused(server.mqtt(), 2);
}
