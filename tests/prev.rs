//! A client that keeps the rule of wire.md ("What a client does") never sees a gap that is none: `prev` is never beyond what it has.
//! `Device` checks it at every entry; here it is led through everything that leaves holes in `seq`. (Expired entries: the bridge's tests.)

mod common;

use common::{Connect, Device, TestServer, assert_receipt, assert_text};
use serde_json::json;

#[test]
fn a_device_that_joins_later_starts_at_the_smallest_cursor_and_goes_on_without_gaps() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut phone = Device::v5(&server, "bob", "phone");
    for i in 1..=5 {
        alice.send("bob", &format!("m{i}"), &i.to_string());
        assert_text(&phone.entry(), "alice", &i.to_string());
    }
    phone.raw.ping();
    let mut tablet = Device::v5(&server, "bob", "tablet");
    for i in 6..=8 {
        alice.send("bob", &format!("m{i}"), &i.to_string());
        assert_text(&tablet.entry(), "alice", &i.to_string());
        assert_text(&phone.entry(), "alice", &i.to_string());
    }
    for device in [&mut tablet, &mut phone] {
        device.reconnect(&server);
        alice.send("bob", &format!("to {}", device.device).replace(' ', "-"), "again");
        assert_text(&device.entry(), "alice", "again");
    }
}

#[test]
fn own_echoes_and_what_is_meant_for_one_device_only_leave_no_gaps_at_the_others() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut phone = Device::v3(&server, "alice", "phone");
    let mut tablet = Device::v5(&server, "alice", "tablet");
    let mut bob = Device::v5(&server, "bob", "phone");
    for round in 0..20 {
        // An echo for the tablet alone, a failure for the phone alone, then something for both.
        phone.send("bob", &format!("a{round}"), "from the phone");
        phone.publish(&json!({"id": format!("f{round}"), "to": "nobody", "text": {"body": "x"}}));
        tablet.send("bob", &format!("b{round}"), "from the tablet");
        bob.send("alice", &format!("c{round}"), "to both");
        for device in [&mut phone, &mut tablet] {
            loop {
                let entry = device.entry();
                if entry["from"] == "bob" {
                    assert_text(&entry, "bob", "to both");
                    break;
                }
            }
            if round % 3 == 0 {
                device.reconnect(&server);
            }
        }
        // Acknowledge everything at bob's, so that receipts come between.
        for expected in ["from the phone", "from the tablet"] {
            let message = loop {
                let entry = bob.entry();
                if entry["type"] == "text" {
                    break entry;
                }
            };
            assert_text(&message, "alice", expected);
        }
    }
}

#[test]
fn receipts_that_merge_leave_no_gaps() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut bob = Device::v5(&server, "bob", "phone");
    alice.send("bob", "first", "0");
    assert_text(&bob.entry(), "alice", "0");
    assert_receipt(&alice.entry(), "delivered", "bob", 0, 1);

    // Alice sends and is gone; bob acknowledges one by one, so that many receipts merge into few while she is away.
    for i in 1..=60 {
        alice.send("bob", &format!("m{i}"), &i.to_string());
    }
    alice.raw = Connect::v5("alice", "elsewhere", &server.token("alice")).open(server.mqtt()).0;
    for i in 1..=60 {
        assert_text(&bob.entry(), "alice", &i.to_string());
        bob.raw.ping();
        if i == 30 {
            bob.mark_read("alice", 20);
        }
    }
    bob.raw.ping();
    bob.send("alice", "end", "the end");
    alice.reconnect(&server);
    let (mut delivered, mut read, mut entries) = (1, 0, 0);
    loop {
        let entry = alice.entry();
        entries += 1;
        let n = entry["n"].as_u64().expect("n");
        match entry["status"].as_str() {
            Some("delivered") => {
                assert_receipt(&entry, "delivered", "bob", delivered, n);
                delivered = n;
            }
            Some("read") => {
                assert_receipt(&entry, "read", "bob", read, 20);
                read = n;
            }
            _ => break assert_text(&entry, "bob", "the end"),
        }
    }
    assert_eq!((delivered, read), (61, 20), "after {entries} entries");
}

#[test]
fn acknowledging_out_of_order_and_not_at_all_makes_repeats_but_no_gaps() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut bob = Device::v5(&server, "bob", "phone");
    for round in 0..10 {
        for i in 0..6 {
            alice.send("bob", &format!("m{round}-{i}"), &format!("{round}-{i}"));
        }
        let packets: Vec<u16> = (0..6)
            .map(|i| {
                let (packet, entry) = bob.entry_without_ack();
                assert_text(&entry, "alice", &format!("{round}-{i}"));
                packet
            })
            .collect();
        // The last first, the second never: the cursor moves over the acknowledged prefix only.
        for i in [5, 3, 0, 2] {
            bob.raw.ack(packets[i]);
        }
        bob.reconnect(&server);
    }
    alice.send("bob", "end", "end");
    assert_text(&bob.entry(), "alice", "end");
    assert!(bob.repeats >= 10, "each round's unacknowledged entries came again: {}", bob.repeats);
}
