//! A user has several devices, and each gets every entry once.
#![allow(clippy::expect_used, clippy::panic, reason = "a test ends that way")]

mod common;

use common::{Connect, Device, TestServer, assert_receipt, assert_text, parse};
use serde_json::{Value, json};

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

/// Texts of the long conversation, and how many are on their way at a time.
const TEXTS: u64 = 400;
const GROUP: u64 = 20;

#[test]
fn of_three_devices_one_is_away_and_each_gets_every_entry_once_and_in_order() {
    let mut server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = [Device::v5(&server, "alice", "phone"), Device::v5(&server, "alice", "laptop")];
    let mut phone = Device::v5(&server, "bob", "phone");
    let mut laptop = Device::v5(&server, "bob", "laptop");
    let mut tablet = Device::v5(&server, "bob", "tablet");
    let mut seen = [Seen::default(), Seen::default()];

    for (i, first) in (1..=TEXTS).step_by(20).enumerate() {
        // Alice's devices take turns.
        send_group(&mut alice[i % 2], first);
        match first / GROUP {
            4 => {
                // The tablet has taken what came so far, and goes.
                take_texts(&mut tablet, 1, first + GROUP - 1);
                tablet.raw.ping();
                let away = Connect::v5("bob", "away", &server.token("bob")).open(server.mqtt()).0;
                std::mem::replace(&mut tablet.raw, away).disconnect();
            }
            12 => {
                // Killed while the newest group is on its way to both, and the last acknowledgements may be.
                server.kill9();
                server.restart();
                for device in alice.iter_mut().chain([&mut phone, &mut laptop]) {
                    device.reconnect(&server);
                }
            }
            _ => {}
        }
        take_texts(&mut phone, first, first + GROUP - 1);
        take_texts(&mut laptop, first, first + GROUP - 1);
    }
    for (device, seen) in alice.iter_mut().zip(&mut seen) {
        seen.until(device, TEXTS);
    }

    // The tablet comes back: everything behind what it took, once, and nobody hears `delivered` again.
    tablet.reconnect(&server);
    take_texts(&mut tablet, 5 * GROUP + 1, TEXTS);
    assert_eq!(tablet.repeats, 0, "what it had acknowledged does not come again");
    tablet.raw.ping();
    tablet.mark_read("alice", TEXTS);
    for (device, seen) in alice.iter_mut().zip(&mut seen) {
        assert_receipt(&device.entry(), "read", "bob", 0, TEXTS);
        // One after the other, without a hole: `delivered` was said once of each.
        let mut upto = 0;
        for (after, n) in &seen.delivered {
            assert_eq!(*after, upto, "{:?}", seen.delivered);
            upto = *n;
        }
        assert_eq!(upto, TEXTS);
        // The other device's texts, in order.
        assert_eq!(seen.echoes.len() as u64, TEXTS / 2);
        assert!(seen.echoes.is_sorted(), "{:?}", seen.echoes);
    }
    for device in [&mut phone, &mut laptop] {
        let mark = device.entry();
        assert_receipt(&mark, "read", "alice", 0, TEXTS);
        assert_eq!(mark["recipient_id"], "bob", "{mark}");
    }
}

/// A group of texts, all on their way before the first is answered.
#[track_caller]
fn send_group(device: &mut Device, first: u64) {
    let outbox = device.outbox();
    let ids: Vec<_> = (first..first + GROUP)
        .map(|i| {
            let text = json!({"id": format!("m{i}"), "to": "bob", "type": "text", "text": {"body": i.to_string()}});
            device.raw.publish(&outbox, &text.to_string())
        })
        .collect();
    for (id, n) in ids.into_iter().zip(first..) {
        let (reason, properties) = device.raw.puback(id);
        assert_eq!((reason, properties.get("n")), (0, Some(n.to_string().as_str())), "{properties:?}");
    }
}

#[track_caller]
fn take_texts(device: &mut Device, first: u64, last: u64) {
    for i in first..=last {
        let entry = device.entry();
        assert_text(&entry, "alice", &i.to_string());
        assert_eq!((&entry["id"], entry["n"].as_u64()), (&json!(format!("m{i}")), Some(i)), "{entry}");
    }
}

/// What a device of the sender sees.
#[derive(Default)]
struct Seen {
    delivered: Vec<(u64, u64)>,
    echoes: Vec<u64>,
}

impl Seen {
    /// Takes entries until everything up to `n` is delivered.
    #[track_caller]
    fn until(&mut self, device: &mut Device, n: u64) {
        while self.delivered.last().is_none_or(|(_, upto)| *upto < n) {
            let entry = device.entry();
            if entry["type"] == "text" {
                assert_eq!((&entry["from"], &entry["to"]), (&json!("alice"), &json!("bob")), "{entry}");
                self.echoes.push(entry["n"].as_u64().expect("n"));
            } else {
                let number = |field: &str| entry[field].as_u64().unwrap_or_else(|| panic!("{field} in {entry}"));
                let (after, n) = (number("after"), number("n"));
                assert_receipt(&entry, "delivered", "bob", after, n);
                assert_eq!(entry["id"], Value::from(format!("m{n}")), "{entry}");
                self.delivered.push((after, n));
            }
        }
    }
}
