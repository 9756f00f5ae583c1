//! What comes over HTTP keeps the rules of what comes over the link: the same acceptance, the same order, and nothing before its commit.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod world;

use std::sync::atomic::Ordering;

use bytes::Bytes;
use natter_bridge::engine::{Event, Released, Reply, Request};
use natter_bridge::{Fetch, Page};
use natter_protocol::error::{Kind, NotNow};
use natter_protocol::link::{Answer, Down};
use natter_protocol::{Chat, DeviceId, Seq};
use serde_json::{Value, json};
use world::{World, answers, entries, frames, publication, text, user};

fn device(name: &str) -> DeviceId {
    DeviceId::parse(name).unwrap()
}

fn publish(name: &str, payload: &Value) -> Request {
    let payload = Bytes::from(payload.to_string());
    Request::Publish { user: user(name), device: device("http"), stamp: 1 << 71, payload }
}

fn fetch(name: &str, after: Option<Seq>, limit: usize) -> Request {
    Request::Fetch(Fetch { user: user(name), device: device("http"), after, limit })
}

fn released(world: &mut World) -> Released {
    world.engine.commit().unwrap();
    let mut released = Released::default();
    world.engine.release(&mut world.window, &mut released).unwrap();
    released
}

/// Asks in a batch of its own; the reply and what else the batch said.
fn ask(world: &mut World, request: Request) -> (Option<Reply>, Vec<Down>) {
    world.handle(Event::Request(77, request));
    let mut said = released(world);
    let reply = said.replies.pop();
    (reply.map(|(_, reply)| reply), frames(said))
}

fn page(world: &mut World, name: &str, after: Option<Seq>, limit: usize) -> Page {
    match ask(world, fetch(name, after, limit)).0 {
        Some(Reply::Page(page)) => page,
        other => panic!("expected a page, got {other:?}"),
    }
}

fn parsed(page: &Page) -> Vec<Value> {
    page.entries.iter().map(|(_, entry)| serde_json::from_slice(entry).unwrap()).collect()
}

#[test]
fn a_message_is_one_message_by_whatever_way_it_comes_and_comes_again() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alices, _) = world.device("alice", "phone");
    world.device("bob", "phone");
    let (reply, said) = ask(&mut world, publish("alice", &text("m1", "bob", "hi")));
    let Some(Reply::Answer(Answer::Message { id, n: 1, .. })) = &reply else { panic!("{reply:?}") };
    assert_eq!(id.as_str(), "m1");
    let got = entries(said);
    assert_eq!(got.len(), 2, "bob's, and the copy for alice's phone");
    assert!(got.iter().all(|entry| entry["id"] == "m1" && entry["text"]["body"] == "hi"), "{got:?}");

    let (again, said) = ask(&mut world, publish("alice", &text("m1", "bob", "hi")));
    assert_eq!(again, reply, "the first answer again");
    assert!(entries(said).is_empty());
    let said = world.publish("alice", "phone", alices, &text("m1", "bob", "hi"));
    assert!(matches!(answers(&said)[..], [Answer::Message { n: 1, .. }]), "over MQTT too: {said:?}");
    let (other, _) = ask(&mut world, publish("alice", &text("m1", "bob", "something else")));
    let Some(Reply::Refused(refusal)) = other else { panic!("{other:?}") };
    assert_eq!(refusal.kind, Kind::Conflict);
    assert_eq!(refusal.conflicts_with.unwrap().as_str(), "m1");
}

#[test]
fn what_is_not_committed_is_not_now_and_nothing_of_it_is_there() {
    let mut world = World::with_users(&["alice", "bob"]);
    world.is_full.store(true, Ordering::Relaxed);
    world.handle(Event::Request(1, publish("alice", &text("m1", "bob", "hi"))));
    world.handle(Event::Request(2, fetch("bob", None, 10)));
    world.engine.commit().unwrap_err();
    let mut replies = world.engine.abort(NotNow::Unavailable).unwrap().replies;
    replies.sort_by_key(|(ticket, _)| *ticket);
    assert_eq!(replies, [(1, Reply::NotNow(NotNow::Unavailable)), (2, Reply::NotNow(NotNow::Unavailable))]);
    world.is_full.store(false, Ordering::Relaxed);
    assert!(page(&mut world, "bob", None, 10).entries.is_empty());
    let (reply, _) = ask(&mut world, publish("alice", &text("m1", "bob", "hi")));
    assert!(matches!(reply, Some(Reply::Answer(Answer::Message { n: 1, .. }))), "{reply:?}");
}

#[test]
fn a_refusal_is_the_reply_and_no_entry() {
    let mut world = World::with_users(&["alice"]);
    world.device("alice", "phone");
    for (payload, kind) in [
        (text("m1", "nobody", "hi"), Kind::UnknownRecipient),
        (json!({"to": "alice", "type": "poll"}), Kind::UnknownType),
        (json!({"status": "read", "message_id": "m9"}), Kind::Ambiguous),
        (json!([]), Kind::Malformed),
    ] {
        let (reply, said) = ask(&mut world, publish("alice", &payload));
        assert!(matches!(&reply, Some(Reply::Refused(refusal)) if refusal.kind == kind), "{payload}: {reply:?}");
        assert!(said.is_empty(), "{said:?}");
    }
}

#[test]
fn the_device_http_begins_with_its_first_page_and_ticks_with_its_acknowledgement() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    for id in ["m1", "m2", "m3"] {
        world.publish("alice", "phone", alice, &text(id, "bob", "hi"));
    }
    let first = page(&mut world, "bob", None, 2);
    let ids: Vec<_> = parsed(&first).iter().map(|entry| entry["id"].clone()).collect();
    assert_eq!((ids, first.is_cut), (vec![json!("m1"), json!("m2")], true));
    assert_eq!(page(&mut world, "bob", None, 2), first, "without `after` nothing is acknowledged");

    let (reply, said) = ask(&mut world, fetch("bob", Some(first.next), 10));
    let Some(Reply::Page(second)) = reply else { panic!("{reply:?}") };
    let got = parsed(&second);
    assert_eq!((got.len(), &got[0]["id"], &got[0]["prev"]), (1, &json!("m3"), &json!(first.next)));
    assert!(!second.is_cut);
    let ticks = entries(said);
    assert_eq!((&ticks[0]["status"], &ticks[0]["id"]), (&json!("delivered"), &json!("m2")), "{ticks:?}");

    let (reply, said) = ask(&mut world, Request::Ack { user: user("bob"), device: device("http"), upto: second.next });
    assert_eq!(reply, Some(Reply::Answer(Answer::Done)));
    assert_eq!(entries(said)[0]["id"], "m3");
    let empty = page(&mut world, "bob", None, 10);
    assert!(empty.entries.is_empty() && empty.next == second.next, "{empty:?}");
    let (reply, _) = ask(&mut world, fetch("bob", Some(second.next + 1), 10));
    assert!(matches!(&reply, Some(Reply::Refused(refusal)) if refusal.kind == Kind::InvalidValue), "{reply:?}");
    let mut world = world.crash();
    assert_eq!(page(&mut world, "bob", None, 10).next, second.next, "the cursor is on disk");
}

#[test]
fn a_receipt_that_was_handed_out_is_not_raised_in_place() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (bob, _) = world.device("bob", "phone");
    page(&mut world, "alice", None, 1);
    for id in ["m1", "m2"] {
        ask(&mut world, publish("alice", &text(id, "bob", "hi")));
    }
    world.ack("bob", bob, 1);
    let first = page(&mut world, "alice", None, 10);
    world.ack("bob", bob, 2);
    let both = page(&mut world, "alice", None, 10);
    assert_eq!((first.entries.len(), both.entries.len()), (1, 2));
    assert_eq!(first.entries[0], both.entries[0]);
}

#[test]
fn copies_for_other_devices_are_passed_without_end_in_sight() {
    let mut world = World::with_users(&["alice", "bob"]);
    world.device("alice", "phone");
    page(&mut world, "alice", None, 1);
    for i in 0..2500 {
        // Copies for the phone, not for the device that sent them.
        ask(&mut world, publish("alice", &text(&format!("m{i}"), "bob", "hi")));
    }
    world.settle_everything();
    let mut pages = 0;
    let last = loop {
        let page = page(&mut world, "alice", None, 100);
        assert!(page.entries.is_empty());
        pages += 1;
        assert!(pages < 10);
        if !page.is_cut {
            break page;
        }
    };
    assert_eq!((pages, last.next), (3, 2500), "each looks at some, and none looks twice");
}

/// Bob's and carol's `http` with 1,200 entries each: more than one page of an acknowledgement.
fn crowded() -> World {
    let mut world = World::with_users(&["alice", "bob", "carol"]);
    let (alice, _) = world.device("alice", "phone");
    for name in ["bob", "carol"] {
        page(&mut world, name, None, 1);
        for i in 0..1200 {
            world.publish("alice", "phone", alice, &text(&format!("{name}{i}"), name, "hi"));
        }
    }
    world
}

#[test]
fn what_is_behind_a_long_acknowledgement_waits_for_it() {
    let mut world = crowded();
    let (bob, _) = world.device("bob", "phone");
    world.handle(Event::Request(1, fetch("bob", Some(1150), 100)));
    world.handle(Event::Up(user("bob"), publication("phone", bob, 9, &text("b1", "alice", "first"))));
    world.handle(Event::Request(2, publish("bob", &text("b2", "alice", "second"))));
    world.handle(Event::Request(3, Request::HasUser(user("bob"))));
    let said = released(&mut world);
    assert_eq!(said.replies, [(3, Reply::Changed(true))], "only what has no order with it");
    let (mut replies, mut bodies) = (Vec::new(), Vec::new());
    while world.engine.is_unfinished() {
        world.engine.go_on(world.now).unwrap();
        let said = released(&mut world);
        replies.extend(said.replies.iter().map(|(ticket, reply)| (*ticket, reply.clone())));
        bodies.extend(entries(frames(said)).into_iter().filter(|e| e["from"] == "bob" && e["chat"] == "bob"));
    }
    let tickets: Vec<_> = replies.iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!(tickets, [1, 2]);
    let Reply::Page(page) = &replies[0].1 else { panic!("{replies:?}") };
    assert_eq!((page.entries.len(), page.entries[0].0), (50, 1151));
    assert!(matches!(replies[1].1, Reply::Answer(Answer::Message { n: 1202, .. })), "{replies:?}");
    let bodies: Vec<_> = bodies.iter().map(|entry| entry["text"]["body"].clone()).collect();
    assert_eq!(bodies, ["first", "second"]);
}

#[test]
fn a_batch_that_fails_tells_everybody_who_waits_behind_a_long_acknowledgement() {
    let mut world = crowded();
    world.handle(Event::Request(1, fetch("bob", Some(1150), 100)));
    world.handle(Event::Request(2, publish("bob", &text("b1", "alice", "hi"))));
    world.handle(Event::Request(3, Request::Ack { user: user("carol"), device: device("http"), upto: 1150 }));
    assert!(released(&mut world).replies.is_empty());
    world.is_full.store(true, Ordering::Relaxed);
    world.engine.go_on(world.now).unwrap();
    world.engine.commit().unwrap_err();
    let mut replies = world.engine.abort(NotNow::Unavailable).unwrap().replies;
    replies.sort_by_key(|(ticket, _)| *ticket);
    assert_eq!(replies, [1, 2, 3].map(|ticket| (ticket, Reply::NotNow(NotNow::Unavailable))));
    assert!(!world.engine.is_unfinished());
    world.is_full.store(false, Ordering::Relaxed);
    assert_eq!(page(&mut world, "bob", None, 1).entries[0].0, 501, "one page of it was committed");
}

#[test]
fn the_whole_entry_behind_a_stub_is_there_before_and_after_its_acknowledgement() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    let bob = world.connect("bob", natter_protocol::link::Dialect::Full, 2_000);
    world.attach("bob", "esp32", bob);
    let long = "x".repeat(5_000);
    let stub = entries(world.publish("alice", "phone", alice, &text("m1", "bob", &long)));
    assert_eq!(stub.last().unwrap()["type"], "unsupported");
    let kept = |name: &str, chat: &str, n| Request::Kept { user: user(name), chat: Chat::parse(chat).unwrap(), n };
    for _ in 0..2 {
        let (reply, _) = ask(&mut world, kept("bob", "alice", 1));
        let Some(Reply::Entry(Some(entry))) = reply else { panic!("{reply:?}") };
        let entry: Value = serde_json::from_slice(&entry).unwrap();
        assert_eq!((&entry["text"]["body"], &entry["from"]), (&json!(long), &json!("alice")));
        assert!(entry["seq"].is_null());
        world.ack("bob", bob, 1);
    }
    for (name, chat, n) in [("bob", "alice", 2), ("alice", "bob", 1), ("bob", "bob", 1)] {
        let (reply, _) = ask(&mut world, kept(name, chat, n));
        assert_eq!(reply, Some(Reply::Entry(None)), "{name} {chat} {n}");
    }
}
