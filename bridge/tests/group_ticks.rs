//! Ticks in groups, in the engine: what senders are told, once a batch, and what nobody is told.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its world does not hold")]

mod world;

use std::sync::Arc;

use natter_bridge::change::{Accepted, Item, Message, Row};
use natter_bridge::chat_key::ChatKey;
use natter_bridge::engine::{Event, Released, Reply, Request};
use natter_bridge::groups::row::GroupRow;
use natter_bridge::groups::{Ask, Told};
use natter_bridge::store::{MemberRow, Settlement, UserRow};
use natter_protocol::link::{Answer, Down, Up};
use natter_protocol::{ConnectionId, GroupId, MessageId, N, Seq};
use serde_json::{Value, json};
use world::{World, entries, publication, user};

const MEMBERS: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

/// A group of [`MEMBERS`] in which `from[i]` has sent message `i + 1`, which all others have in their inboxes; erin has left.
fn group(from: &[&str]) -> World {
    let chat = ChatKey::from_stored("g:42");
    let mut rows = Settlement { chats: vec![(chat.clone(), from.len() as N)], ..Settlement::default() };
    for (name, n) in from.iter().zip(1..) {
        let (from, id, timestamp) = (user(name), MessageId::parse(&format!("m{n}")).unwrap(), 1_764_000_000);
        let body = Arc::from(r#""type":"text","text":{"body":"hi"}"#);
        let message = Message { chat: chat.clone(), n, from: from.clone(), id: id.clone(), timestamp, body };
        rows.messages.push(Arc::new(message));
        rows.accepted.push((
            id,
            from,
            Accepted { chat: chat.clone(), n, timestamp, hash: [0; 16], until: u64::MAX >> 1 },
        ));
    }
    let (subject, created_by) = (Arc::from("Trip"), user("alice"));
    let row = GroupRow { subject, description: None, created_by, created_at: 1_764_000_000, invite: None };
    rows.groups.push((chat.clone(), Some(row)));
    for name in MEMBERS {
        let left_n = (name == "erin").then_some(0);
        let is_admin = name == "alice";
        rows.members.push((chat.clone(), user(name), MemberRow { left_n, is_admin, ..MemberRow::default() }));
        let (mut seq, mut offset) = (0, 0);
        let not_own: Vec<_> = rows.messages.iter().filter(|message| message.from != user(name)).cloned().collect();
        for message in not_own {
            seq += 1;
            offset += message.bytes();
            let row = Row { at: 1, offset, only: None, except: None, item: Item::Message(message) };
            rows.inbox.push((user(name), seq, row));
        }
        rows.users.push((user(name), UserRow { last_seq: seq, settled_seq: seq, last_offset: offset }));
    }
    World::with_users(&MEMBERS).over(rows)
}

/// What a status says of whom: which, of which range, `[delivered_to, read_by, of]`.
fn counts(entry: &Value) -> (&str, [u64; 2], &str, [u64; 3]) {
    assert_eq!((&entry["type"], &entry["chat"]), (&json!("status"), &json!("g:42")), "{entry}");
    assert!(entry.get("recipient_id").is_none(), "{entry}");
    let number = |name: &str| entry[name].as_u64().unwrap();
    let counts = [number("delivered_to"), number("read_by"), number("of")];
    (entry["status"].as_str().unwrap(), [number("after"), number("n")], entry["id"].as_str().unwrap(), counts)
}

fn read(world: &mut World, name: &str, device: &str, connection: ConnectionId, n: N) -> Vec<Down> {
    world.publish(name, device, connection, &json!({"status": "read", "chat": "g:42", "n": n}))
}

fn ack_of(connection: ConnectionId, seq: Seq) -> Up {
    Up::Acked { connection, seq, taken: true }
}

#[test]
fn a_sender_is_told_counts_once_a_batch_and_each_step_once() {
    let mut world = group(&["alice", "alice", "alice"]);
    let (alice, _) = world.device("alice", "phone");
    let (bob, got) = world.device("bob", "phone");
    assert_eq!(got.len(), 3);
    let (carol, _) = world.device("carol", "phone");
    // Two members, three messages, one batch.
    for seq in 1..=3 {
        world.handle(Event::Up(user("bob"), ack_of(bob, seq)));
        world.handle(Event::Up(user("carol"), ack_of(carol, seq)));
    }
    let said = entries(world.commit());
    assert_eq!(said.iter().map(counts).collect::<Vec<_>>(), [("delivered", [0, 3], "m3", [2, 0, 3])]);
    world.ack("alice", alice, said[0]["seq"].as_u64().unwrap());
    // What is acknowledged again rises no more.
    assert!(entries(world.ack("bob", bob, 3)).is_empty());
    let said = entries(read(&mut world, "bob", "phone", bob, 2));
    assert_eq!(said.iter().map(counts).collect::<Vec<_>>(), [("read", [0, 2], "m2", [2, 1, 3])]);
    assert!(entries(read(&mut world, "bob", "phone", bob, 1)).is_empty(), "it is read already");
    let (dave, _) = world.device("dave", "phone");
    let said = entries(read(&mut world, "dave", "phone", dave, 3));
    let expected = [("read", [0, 2], "m2", [3, 2, 3]), ("read", [2, 3], "m3", [3, 1, 3])];
    assert_eq!(said.iter().map(counts).collect::<Vec<_>>(), expected);
}

#[test]
fn counts_of_several_senders_go_to_each_of_them() {
    let mut world = group(&["alice", "bob", "alice", "bob"]);
    world.device("alice", "phone");
    world.device("bob", "phone");
    let (carol, _) = world.device("carol", "phone");
    let said = entries(read(&mut world, "carol", "phone", carol, 4));
    let expected = [("read", [0, 3], "m3", [1, 1, 3]), ("read", [1, 4], "m4", [1, 1, 3])];
    assert_eq!(said.iter().map(counts).collect::<Vec<_>>(), expected);
}

#[test]
fn counts_that_nobody_was_sent_are_replaced_and_no_others() {
    let mut world = group(&["alice", "alice"]);
    let members: Vec<_> = ["bob", "carol", "dave"].map(|name| (name, world.device(name, "phone").0)).into();
    for (name, connection) in &members {
        for seq in 1..=2 {
            world.ack(name, *connection, seq);
        }
        read(&mut world, name, "phone", *connection, 1);
    }
    let (alice, said) = world.device("alice", "phone");
    let last = said.iter().map(counts).fold([None, None], |mut last, (_, [after, n], _, counts)| {
        for told in after..n {
            last[usize::try_from(told).unwrap()] = Some(counts);
        }
        last
    });
    assert_eq!(last, [Some([3, 3, 3]), Some([3, 0, 3])]);
    assert!(said.len() <= 3, "{said:?}");
    assert!(!said.is_empty());
    // What was sent stays as it is.
    let newest = said.last().unwrap()["seq"].as_u64().unwrap();
    let more = entries(read(&mut world, "bob", "phone", members[0].1, 2));
    assert_eq!(more.iter().map(counts).collect::<Vec<_>>(), [("read", [1, 2], "m2", [3, 1, 3])]);
    assert!(more[0]["seq"].as_u64().unwrap() > newest);
    world.ack("alice", alice, newest + 1);
}

#[test]
fn nothing_rises_for_who_is_out() {
    let mut world = group(&["alice"]);
    world.device("alice", "phone");
    let (erin, got) = world.device("erin", "phone");
    // What lies in the inbox since before is still handed out here; it makes no tick.
    assert_eq!(got.len(), 1);
    assert!(entries(world.ack("erin", erin, 1)).is_empty());
    assert!(entries(read(&mut world, "erin", "phone", erin, 1)).is_empty());
    let (bob, _) = world.device("bob", "phone");
    let said = entries(read(&mut world, "bob", "phone", bob, 1));
    assert_eq!(said.iter().map(counts).collect::<Vec<_>>(), [("read", [0, 1], "m1", [1, 1, 3])]);
}

#[test]
fn who_goes_is_awaited_no_more_and_what_is_complete_by_that_is_told() {
    let mut world = group(&["alice", "alice"]);
    let (alice, _) = world.device("alice", "phone");
    for (name, n) in [("bob", 2), ("carol", 1)] {
        let (connection, _) = world.device(name, "phone");
        read(&mut world, name, "phone", connection, n);
    }
    let remove = json!({"id": "c1", "group": "remove", "chat": "g:42", "users": ["dave"]});
    let said = entries(world.publish("alice", "phone", alice, &remove));
    let told: Vec<_> = said.iter().filter(|entry| entry["type"] == "status").map(counts).collect();
    assert_eq!(told, [("read", [0, 1], "m1", [2, 2, 2])], "m2 waits for carol");
    // And nothing of his rises any more, of what he was given before either.
    let (dave, got) = world.device("dave", "phone");
    assert_eq!(got.len(), 3, "with the line that he was removed");
    assert!(entries(world.ack("dave", dave, 3)).is_empty());
    let remove = json!({"id": "c2", "group": "remove", "chat": "g:42", "users": ["bob", "carol"]});
    let said = entries(world.publish("alice", "phone", alice, &remove));
    assert!(said.iter().all(|entry| entry["type"] != "status"), "nobody is left to have it: {said:?}");
}

#[test]
fn a_line_of_the_group_makes_no_tick() {
    let mut world = group(&[]);
    let (alice, _) = world.device("alice", "phone");
    let change = json!({"id": "c1", "group": "change", "chat": "g:42", "subject": "Trip to Rome"});
    world.publish("alice", "phone", alice, &change);
    let (bob, got) = world.device("bob", "phone");
    assert_eq!(got.len(), 1);
    assert!(entries(world.ack("bob", bob, 1)).is_empty());
}

#[test]
fn a_crash_and_a_settlement_after_every_step_change_nothing() {
    let play = |breaks: bool| {
        let mut world = group(&["alice", "bob", "alice"]);
        for (name, n) in [("bob", 1), ("carol", 2), ("dave", 3), ("bob", 3), ("carol", 3)] {
            if breaks {
                world = world.crash();
                if n == 2 {
                    world.settle_everything();
                }
            }
            let (connection, _) = world.device(name, "phone");
            read(&mut world, name, "phone", connection, n);
        }
        let (_, said) = world.device("alice", "phone");
        let all = said.iter().filter(|entry| entry["type"] == "status").map(counts);
        let mut last = std::collections::BTreeMap::new();
        for (_, [after, n], _, counts) in all {
            for told in (after + 1..=n).filter(|n| *n != 2) {
                last.insert(told, counts);
            }
        }
        last
    };
    assert_eq!(play(true), play(false));
    assert_eq!(play(true), [(1, [3, 3, 3]), (3, [3, 3, 3])].into());
}

#[test]
fn a_batch_that_is_not_committed_tells_nothing_and_its_repeat_tells_all() {
    let mut world = group(&["alice"]);
    let (bob, _) = world.device("bob", "phone");
    world.is_full.store(true, std::sync::atomic::Ordering::Relaxed);
    world.handle(Event::Up(user("bob"), ack_of(bob, 1)));
    assert!(world.engine.commit().is_err());
    world.engine.abort(natter_protocol::error::NotNow::Unavailable).unwrap();
    world.is_full.store(false, std::sync::atomic::Ordering::Relaxed);
    let (_, said) = world.device("alice", "phone");
    assert!(said.is_empty(), "{said:?}");
    let (bob, _) = world.device("bob", "tablet");
    let said = entries(world.ack("bob", bob, 1));
    assert_eq!(said.iter().map(counts).collect::<Vec<_>>(), [("delivered", [0, 1], "m1", [1, 0, 3])]);
}

#[test]
fn the_own_read_mark_goes_to_the_other_devices() {
    let mut world = group(&["alice", "bob"]);
    let (phone, _) = world.device("bob", "phone");
    world.device("bob", "tablet");
    let said = entries(read(&mut world, "bob", "phone", phone, 2));
    let own: Vec<_> = said.iter().filter(|entry| entry["recipient_id"] == "bob").collect();
    assert_eq!(own.len(), 1, "{said:?}");
    assert_eq!(
        (&own[0]["status"], &own[0]["chat"], &own[0]["n"], &own[0]["id"]),
        (&json!("read"), &json!("g:42"), &json!(1), &json!("m1")),
        "message 2 is his own"
    );
}

#[test]
fn who_has_had_a_message_is_told_to_its_sender_alone() {
    let mut world = group(&["alice", "bob"]);
    let (bob, _) = world.device("bob", "phone");
    let (carol, _) = world.device("carol", "phone");
    read(&mut world, "bob", "phone", bob, 1);
    world.ack("carol", carol, 1);
    let mut ask = |name: &str, group: &str, n: N| {
        let ask = Ask::Receipts(user(name), GroupId::parse(group).unwrap(), n);
        world.handle(Event::Request(9, Request::Groups(ask)));
        world.engine.commit().unwrap();
        let mut released = Released::default();
        world.engine.release(&mut world.window, &mut released).unwrap();
        released.replies.pop().unwrap().1
    };
    let Reply::Groups(Told::Receipts(ticks)) = ask("alice", "42", 1) else { panic!("no receipts") };
    let ticks: Vec<_> = ticks.iter().map(|tick| (tick.user.as_str(), tick.delivered, tick.read)).collect();
    assert_eq!(ticks, [("bob", true, true), ("carol", true, false), ("dave", false, false)]);
    for (name, group, n) in [
        ("bob", "42", 1),
        ("erin", "42", 1),
        ("alice", "42", 2),
        ("alice", "42", 0),
        ("alice", "42", 9),
        ("alice", "43", 1),
    ] {
        assert_eq!(ask(name, group, n), Reply::Groups(Told::NotFound), "{name} {group} {n}");
    }
}

#[test]
fn a_mark_in_a_group_one_is_not_in_is_refused_as_in_one_that_is_not_there() {
    let mut world = group(&["alice"]);
    let (erin, _) = world.device("erin", "phone");
    let mut refusal = |command: &Value| {
        let said = world.publish("erin", "phone", erin, command);
        match world::answers(&said)[..] {
            [Answer::Refused { kind, details }] => (*kind, details.clone()),
            _ => panic!("{said:?}"),
        }
    };
    let (kind, details) = refusal(&json!({"status": "read", "chat": "g:42", "n": 1}));
    let (other_kind, other_details) = refusal(&json!({"status": "read", "chat": "g:99", "n": 1}));
    assert_eq!((kind, details.replace("42", "99")), (other_kind, other_details));
    let (kind, details) = refusal(&json!({"status": "read", "message_id": "m1"}));
    let (other_kind, other_details) = refusal(&json!({"status": "read", "message_id": "m9"}));
    assert_eq!((kind, details.replace("m1", "m9")), (other_kind, other_details));
}

#[test]
fn a_read_mark_by_the_messages_name_means_one_that_was_received() {
    let mut world = group(&["alice", "bob"]);
    world.device("alice", "phone");
    let (bob, _) = world.device("bob", "phone");
    let said = entries(world.publish("bob", "phone", bob, &json!({"status": "read", "message_id": "m1"})));
    assert_eq!(said.iter().map(counts).collect::<Vec<_>>(), [("read", [0, 1], "m1", [1, 1, 3])]);
    let said = world.publish("bob", "phone", bob, &json!({"status": "read", "message_id": "m2"}));
    assert!(matches!(world::answers(&said)[..], [Answer::Refused { .. }]), "an own one");
}

#[test]
fn a_command_is_answered_as_in_a_chat_of_two() {
    let mut world = group(&["alice"]);
    let (bob, _) = world.device("bob", "phone");
    let said = world.up("bob", publication("phone", bob, 7, &json!({"status": "read", "chat": "g:42", "n": 1})));
    assert!(matches!(world::answers(&said)[..], [Answer::Done]), "{said:?}");
}
