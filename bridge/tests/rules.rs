//! The rules without sockets: events in, frames out, time passed in. What 30 days do is seen in milliseconds.

#![allow(clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod world;

use std::sync::atomic::Ordering;

use natter_bridge::chat_key::ChatKey;
use natter_bridge::engine::{CommitError, Event};
use natter_protocol::error::{Kind, NotNow};
use natter_protocol::link::{Answer, Dialect, Down, Mode, Up};
use natter_protocol::{Chat, DeviceId};
use serde_json::json;
use world::{DAY, World, answers, entries, frames, publication, text, user};

#[test]
fn an_entry_that_expires_is_told_by_a_gap_and_to_its_sender_by_failed() {
    for settled in [false, true] {
        let mut world = World::with_users(&["alice", "bob"]);
        let (alice, _) = world.device("alice", "phone");
        let (bob, _) = world.device("bob", "phone");
        world.publish("alice", "phone", alice, &text("m1", "bob", "taken"));
        let receipt = entries(world.ack("bob", bob, 1));
        assert_eq!((&receipt[0]["status"], &receipt[0]["n"]), (&json!("delivered"), &json!(1)));
        world.ack("alice", alice, 1);
        world.close("bob", bob);

        world.publish("alice", "phone", alice, &text("m2", "bob", "too old"));
        if settled {
            world.settle_everything();
        }
        let told = if settled { entries(world.sweep_after(31)) } else { Vec::new() };
        if settled {
            assert_eq!(told.len(), 1, "{told:?}");
            let failed = &told[0];
            assert_eq!(
                (&failed["status"], &failed["id"], &failed["errors"][0]["code"]),
                (&json!("failed"), &json!("m2"), &json!(1411))
            );
            assert_eq!(
                (&failed["n"], &failed["chat"], &failed["recipient_id"]),
                (&json!(2), &json!("bob"), &json!("bob"))
            );
        }
        world.publish("alice", "phone", alice, &text("m3", "bob", "new"));

        // Bob's phone took seq 1 last: `prev` is never above that, or it would take the hole for a loss and reconnect for ever.
        let (_, got) = world.device("bob", "phone");
        assert_eq!(got[0]["prev"], json!(1), "{got:?}");
        if settled {
            assert_eq!(
                (&got[0]["type"], &got[0]["from"], &got[0]["to"], &got[0]["reason"]),
                (&json!("gap"), &json!(2), &json!(2), &json!("expired"))
            );
        } else {
            assert_eq!(got[0]["id"], json!("m2"), "nothing has expired");
        }
        assert_eq!(got[1]["prev"], got[0]["seq"]);
        assert_eq!(got[1]["id"], json!("m3"));
    }
}

#[test]
fn what_another_device_has_taken_expires_for_the_absent_one_alone() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    let (bob, _) = world.device("bob", "phone");
    let (tablet, _) = world.device("bob", "tablet");
    world.close("bob", tablet);
    world.publish("alice", "phone", alice, &text("m1", "bob", "hi"));
    world.ack("bob", bob, 1);
    world.settle_everything();
    let told = entries(world.sweep_after(31));
    assert!(told.iter().all(|entry| entry["status"] != "failed"), "bob had it: {told:?}");
    let (_, got) = world.device("bob", "tablet");
    assert_eq!((&got[0]["type"], &got[0]["from"], &got[0]["prev"]), (&json!("gap"), &json!(1), &json!(0)));
    assert_eq!(got.len(), 1, "the phone's inbox holds no gap: {got:?}");
}

#[test]
fn nothing_of_a_batch_that_is_not_committed_is_said_and_its_senders_hear_not_now() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    let (bob, _) = world.device("bob", "phone");
    world.is_full.store(true, Ordering::Relaxed);
    world.handle(Event::Up(user("alice"), publication("phone", alice, 1, &text("m1", "bob", "hi"))));
    assert!(matches!(world.engine.commit(), Err(CommitError::Store(_))));
    let said = frames(world.engine.abort(NotNow::Unavailable).unwrap());
    let closed: Vec<_> = said.iter().filter(|frame| matches!(frame, Down::Close { reason: 0x89, .. })).collect();
    assert_eq!((said.len(), closed.len()), (2, 2), "every connection is closed, and nothing is answered: {said:?}");

    // What is behind it on the same connection is not taken in either, even when there is room again.
    world.is_full.store(false, Ordering::Relaxed);
    let said = world.publish("alice", "phone", alice, &text("m2", "bob", "behind"));
    assert!(said.is_empty(), "{said:?}");
    world.close("alice", alice);
    world.close("bob", bob);

    let (alice, _) = world.device("alice", "phone");
    let said = world.publish("alice", "phone", alice, &text("m1", "bob", "hi"));
    assert!(matches!(answers(&said)[..], [Answer::Message { n: 1, .. }]), "{said:?}");
    let (_, got) = world.device("bob", "phone");
    assert_eq!(got.len(), 1, "once: {got:?}");
}

#[test]
fn receipts_cover_only_what_was_taken_and_merge_while_unsent() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    world.close("alice", alice);
    let alice = world.connect("alice", Dialect::Full, u32::MAX);
    let (bob, _) = world.device("bob", "phone");
    for n in 1..=4 {
        world.publish("alice", "laptop", alice, &text(&format!("m{n}"), "bob", "hi"));
    }
    world.ack("bob", bob, 1);
    world.ack("bob", bob, 2);
    world.up("bob", Up::Acked { connection: bob, seq: 3, taken: false });
    world.ack("bob", bob, 4);
    let (_, got) = world.device("alice", "phone");
    let ranges: Vec<_> =
        got.iter().filter(|e| e["status"] == "delivered").map(|e| (e["after"].clone(), e["n"].clone())).collect();
    assert_eq!(ranges, [(json!(0), json!(2)), (json!(3), json!(4))], "{got:?}");
}

#[test]
fn acknowledgements_out_of_order_move_the_cursor_over_the_prefix_only() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    let (bob, _) = world.device("bob", "phone");
    for n in 1..=3 {
        world.publish("alice", "phone", alice, &text(&format!("m{n}"), "bob", "hi"));
    }
    assert!(entries(world.ack("bob", bob, 3)).is_empty(), "m1 and m2 are not taken");
    assert!(entries(world.ack("bob", bob, 2)).is_empty());
    let told = entries(world.ack("bob", bob, 1));
    assert_eq!((&told[0]["after"], &told[0]["n"], &told[0]["id"]), (&json!(0), &json!(3), &json!("m3")));
}

#[test]
fn an_entry_the_client_cannot_take_goes_out_as_a_stub_that_makes_no_tick() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    let small = world.connect("bob", Dialect::Full, 600);
    world.attach("bob", "phone", small);
    let said = world.publish("alice", "phone", alice, &text("m1", "bob", &"x".repeat(1000)));
    let got = entries(said);
    assert_eq!((&got[0]["type"], &got[0]["id"], &got[0]["n"]), (&json!("unsupported"), &json!("m1"), &json!(1)));
    assert!(entries(world.ack("bob", small, 1)).is_empty(), "no `delivered` for a stub");
    let got = entries(world.publish("alice", "phone", alice, &text("m2", "bob", "short")));
    assert_eq!((&got[0]["id"], &got[0]["prev"]), (&json!("m2"), &json!(1)));
}

#[test]
fn an_entry_that_a_client_does_not_survive_goes_out_as_a_stub_and_stays_readable() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    world.publish("alice", "phone", alice, &text("poison", "bob", "boom"));
    world.publish("alice", "phone", alice, &text("good", "bob", "hi"));
    for round in 0..8 {
        let (bob, got) = world.device("bob", "phone");
        assert_eq!((&got[0]["type"], got.len()), (&json!("text"), 2), "{round}: the server's own ends do not count");
        world.up("bob", Up::Close { connection: bob, expiry_secs: None, by_server: true });
        world.now.server_secs += 900;
    }
    for round in 0..5 {
        let (bob, got) = world.device("bob", "phone");
        assert_eq!((&got[0]["type"], got.len()), (&json!("text"), 2), "{round}");
        world.close("bob", bob);
        world.now.server_secs += 900;
    }
    let (bob, got) = world.device("bob", "phone");
    let kinds: Vec<_> = got.iter().map(|entry| (&entry["type"], &entry["id"])).collect();
    assert_eq!(kinds, [(&json!("unsupported"), &json!("poison")), (&json!("text"), &json!("good"))]);
    assert!(entries(world.ack("bob", bob, 1)).is_empty(), "no `delivered` for a stub");
    let told = entries(world.ack("bob", bob, 2));
    assert_eq!((&told[0]["after"], &told[0]["n"]), (&json!(1), &json!(2)));

    // The full one is there, also after a restart, and until its time is over.
    world.settle_everything();
    let mut world = world.crash();
    let chat = ChatKey::new(&user("bob"), &Chat::Direct(user("alice")));
    assert!(world.engine.kept(&user("bob"), &chat, 1).unwrap().is_some_and(|message| message.body.contains("boom")));
    assert_eq!(world.engine.kept(&user("bob"), &chat, 2).unwrap(), None);
    world.sweep_after(31);
    assert_eq!(world.engine.kept(&user("bob"), &chat, 1).unwrap(), None);
}

#[test]
fn an_ack_by_position_of_a_stub_of_an_earlier_connection_makes_no_tick_and_keeps_it() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    let small = world.connect("bob", Dialect::Full, 600);
    world.attach("bob", "phone", small);
    world.publish("alice", "phone", alice, &text("m1", "bob", &"x".repeat(1000)));
    world.close("bob", small);
    let again = world.connect("bob", Dialect::Full, 600);
    let said = world.publish("bob", "phone", again, &json!({"ack": 1}));
    assert!(entries(said).is_empty(), "no `delivered` for a stub");
    let chat = ChatKey::new(&user("bob"), &Chat::Direct(user("alice")));
    assert!(world.engine.kept(&user("bob"), &chat, 1).unwrap().is_some());
}

#[test]
fn an_acknowledgement_of_a_connection_that_is_not_the_reader_changes_nothing() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    let (old, _) = world.device("bob", "phone");
    world.publish("alice", "phone", alice, &text("m1", "bob", "hi"));
    let (new, got) = world.device("bob", "phone");
    assert_eq!(got.len(), 1, "the newer reader gets it");
    assert!(entries(world.ack("bob", old, 1)).is_empty());
    assert_eq!(entries(world.ack("bob", new, 1)).len(), 1, "the delivered receipt");
}

#[test]
fn clients_that_fight_for_an_inbox_are_made_to_wait_and_the_same_client_is_not() {
    let mut world = World::with_users(&["bob"]);
    let mut reasons = Vec::new();
    for _ in 0..6 {
        let connection = world.connect("bob", Dialect::Full, u32::MAX);
        let device = DeviceId::parse("phone").unwrap();
        for frame in world.up("bob", Up::Attach { connection, request: 1, device, mode: Mode::Device }) {
            if let Down::Attached { reason, .. } = frame {
                reasons.push(reason);
            }
        }
    }
    assert_eq!(reasons, [1, 1, 1, 1, 0x97, 0x97]);
    world.now.server_secs += 61;
    let (_, _) = world.device("bob", "phone");
}

#[test]
fn an_eleventh_device_replaces_one_that_is_idle_for_a_week_or_is_refused() {
    let mut world = World::with_users(&["bob"]);
    for n in 0..10 {
        let (connection, _) = world.device("bob", &format!("d{n}"));
        world.close("bob", connection);
    }
    let attach = |world: &mut World| {
        let connection = world.connect("bob", Dialect::Full, u32::MAX);
        let device = DeviceId::parse("d10").unwrap();
        let said = world.up("bob", Up::Attach { connection, request: 1, device, mode: Mode::Device });
        said.into_iter().find_map(|frame| match frame {
            Down::Attached { reason, .. } => Some(reason),
            _ => None,
        })
    };
    assert_eq!(attach(&mut world), Some(0x97));
    world.now.server_secs += 8 * DAY;
    assert_eq!(attach(&mut world), Some(1));
}

#[test]
fn an_ack_by_position_does_what_the_pubacks_would_and_not_more() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    let (bob, _) = world.device("bob", "phone");
    for n in 1..=3 {
        world.publish("alice", "phone", alice, &text(&format!("m{n}"), "bob", "hi"));
    }
    let said = world.publish("bob", "phone", bob, &json!({"ack": 9}));
    assert!(
        matches!(answers(&said)[..], [Answer::Refused { kind: Kind::InvalidValue, .. }]),
        "above the newest: {said:?}"
    );
    let said = world.publish("bob", "phone", bob, &json!({"ack": 2}));
    let told = entries(said);
    assert_eq!((&told[0]["after"], &told[0]["n"]), (&json!(0), &json!(2)));
    assert!(entries(world.ack("bob", bob, 2)).is_empty(), "the late PUBACK says nothing new");
    assert_eq!(entries(world.ack("bob", bob, 3)).len(), 1);
}

#[test]
fn a_receipt_that_may_have_been_sent_before_a_crash_is_not_raised_in_place() {
    for settled in [false, true] {
        let mut world = World::with_users(&["alice", "bob"]);
        let (alice, _) = world.device("alice", "phone");
        let (bob, _) = world.device("bob", "phone");
        world.publish("alice", "phone", alice, &text("m1", "bob", "hi"));
        world.publish("alice", "phone", alice, &text("m2", "bob", "hi"));
        let told = entries(world.ack("bob", bob, 1));
        assert_eq!(told[0]["seq"], json!(1), "alice's phone has it, and its PUBACK is lost with the server");
        if settled {
            world.settle_everything();
        }
        let mut world = world.crash();
        let (bob, _) = world.device("bob", "phone");
        world.ack("bob", bob, 2);
        let (_, got) = world.device("alice", "phone");
        // What alice's phone drops as a repeat must be what it was.
        let ranges: Vec<_> = got.iter().map(|e| (e["seq"].clone(), e["n"].clone())).collect();
        assert_eq!(ranges, [(json!(1), json!(1)), (json!(2), json!(2))], "{got:?}");
    }
}
