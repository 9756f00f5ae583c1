//! A user has several devices, and each gets every entry once.

mod common;

use common::{Connect, Device, TestServer, assert_receipt, assert_text, parse};
use serde_json::json;

#[test]
fn both_devices_get_every_message_and_delivered_is_said_once() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut phone = Device::v5(&server, "bob", "phone");
    let mut tablet = Device::v5(&server, "bob", "tablet");
    for i in 1..=3 {
        alice.send("bob", &format!("m{i}"), &i.to_string());
        assert_text(&phone.entry(), "alice", &i.to_string());
        assert_receipt(&alice.entry(), "delivered", "bob", i - 1, i);
        assert_text(&tablet.entry(), "alice", &i.to_string());
        tablet.raw.ping();
    }
    // If the tablet's acknowledgements had said `delivered` again, it would come before this.
    phone.mark_read("alice", 3);
    assert_receipt(&alice.entry(), "read", "bob", 0, 3);
    // The other device of the reader hears of it too, as his own.
    let read = tablet.entry();
    assert_receipt(&read, "read", "alice", 0, 3);
    assert_eq!(read["recipient_id"], "bob", "{read}");
}

#[test]
fn an_own_message_is_seen_on_the_other_device_with_to() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut phone = Device::v5(&server, "alice", "phone");
    let mut tablet = Device::v5(&server, "alice", "tablet");
    let n = phone.send("bob", "m1", "hi");
    let echo = tablet.entry();
    assert_text(&echo, "alice", "hi");
    assert_eq!((&echo["chat"], &echo["to"], &echo["id"]), (&json!("bob"), &json!("bob"), &json!("m1")), "{echo}");
    assert_eq!(echo["n"].as_u64(), Some(n));

    // The sending device gets none: what comes next is bob's.
    let mut bob = Device::v5(&server, "bob", "phone");
    let message = bob.entry();
    assert_text(&message, "alice", "hi");
    assert_eq!(message.get("to"), None, "{message}");
    assert_receipt(&phone.entry(), "delivered", "bob", 0, 1);
    assert_receipt(&tablet.entry(), "delivered", "bob", 0, 1);
}

#[test]
fn a_message_to_oneself_is_one_entry() {
    let server = TestServer::with_users(&["alice"]);
    let mut phone = Device::v5(&server, "alice", "phone");
    let mut tablet = Device::v5(&server, "alice", "tablet");
    phone.send("alice", "m1", "note to self");
    for device in [&mut phone, &mut tablet] {
        let entry = device.entry();
        assert_text(&entry, "alice", "note to self");
        assert_eq!(entry["chat"], "alice", "{entry}");
    }
    phone.send("alice", "m2", "another");
    let next = loop {
        let entry = tablet.entry();
        if entry["type"] == "text" {
            break entry;
        }
    };
    assert_text(&next, "alice", "another");
}

#[test]
fn a_device_that_joins_later_starts_where_the_slowest_stands() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut phone = Device::v5(&server, "bob", "phone");
    for i in 1..=4 {
        alice.send("bob", &format!("m{i}"), &i.to_string());
    }
    assert_text(&phone.entry(), "alice", "1");
    assert_text(&phone.entry(), "alice", "2");
    phone.raw.ping();

    let mut tablet = Device::v5(&server, "bob", "tablet");
    assert_text(&tablet.entry(), "alice", "3");
    assert_text(&tablet.entry(), "alice", "4");
    assert_text(&phone.entry(), "alice", "3");
}

#[test]
fn the_first_device_of_a_user_gets_everything_that_waits() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v5(&server, "alice", "phone");
    for i in 1..=250 {
        alice.send("bob", &format!("m{i}"), &i.to_string());
    }
    let mut bob = Device::v5(&server, "bob", "phone");
    for i in 1..=250 {
        assert_text(&bob.entry(), "alice", &i.to_string());
    }
}

#[test]
fn a_viewer_gets_what_is_live_and_makes_no_ticks() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v5(&server, "alice", "phone");
    alice.send("bob", "m1", "before");
    let (mut viewer, _) = Connect::v5("bob", "viewer", &server.token("bob")).open(server.mqtt());
    assert_eq!(viewer.subscribe("users/bob/web/inbox", 0), 0);
    alice.send("bob", "m2", "now");
    let (qos, _, payload) = viewer.next_publish();
    assert_eq!(qos, 0);
    let entry = parse(&payload);
    assert_text(&entry, "alice", "now");
    viewer.ping();

    // No cursor: a device that comes now gets both, and only it makes the ticks.
    let mut bob = Device::v5(&server, "bob", "phone");
    let (first, entry) = bob.entry_without_ack();
    assert_text(&entry, "alice", "before");
    let (second, entry) = bob.entry_without_ack();
    assert_text(&entry, "alice", "now");
    alice.raw.ping();
    assert_eq!(alice.raw.queued().count(), 0, "no ticks so far");
    bob.raw.ack(first);
    assert_receipt(&alice.entry(), "delivered", "bob", 0, 1);
    bob.raw.ack(second);
    assert_receipt(&alice.entry(), "delivered", "bob", 1, 2);
}
