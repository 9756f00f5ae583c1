//! How much may wait, and what long work does to everybody else.

#![allow(clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod world;

use natter_bridge::engine::Released;
use natter_bridge::{Amount, Limits};
use natter_protocol::error::Kind;
use natter_protocol::link::{Answer, Dialect, Down, Window};
use natter_protocol::{ConnectionId, Seq};
use serde_json::{Value, json};
use world::{World, answers, entries, frames, publication, text, user};

fn limits(inbox: u64, lag: u64) -> Limits {
    let bytes = 1 << 30;
    let (inbox, device_lag) = (Amount { entries: inbox, bytes }, Amount { entries: lag, bytes });
    Limits { inbox, device_lag, ..Limits::default() }
}

/// Sends until it is refused, at most `count`; how many were accepted.
fn send(world: &mut World, from: &str, connection: ConnectionId, to: &str, count: u64) -> u64 {
    for n in 0..count {
        let said = world.publish(from, "phone", connection, &text(&format!("{from}-{n}"), to, "hi"));
        if matches!(answers(&said)[..], [Answer::Refused { kind: Kind::Quota, .. }]) {
            return n;
        }
        assert!(matches!(answers(&said)[..], [Answer::Message { .. }]), "{said:?}");
    }
    count
}

/// Takes everything that comes and acknowledges it.
fn drain(world: &mut World, name: &str, connection: ConnectionId, mut got: Vec<Value>) -> Vec<Value> {
    let mut at = 0;
    while let Some(entry) = got.get(at) {
        let seq = entry["seq"].as_u64().unwrap();
        at += 1;
        let said = world.ack(name, connection, seq);
        let more =
            said.into_iter().filter(|frame| matches!(frame, Down::Entry { connection: to, .. } if *to == connection));
        got.extend(entries(more.collect()));
    }
    got
}

#[test]
fn a_full_inbox_refuses_messages_until_a_device_has_taken_some() {
    let mut world = World::with_limits(&["alice", "bob"], limits(100, 1000));
    let (alice, _) = world.device("alice", "phone");
    // From half of it on, one chat may still have a thousand: the whole quota is the end here.
    assert_eq!(send(&mut world, "alice", alice, "bob", 200), 100);
    world.settle_everything();
    let mut world = world.crash();
    let (alice, _) = world.device("alice", "phone");
    assert_eq!(
        send(&mut world, "alice", alice, "bob", 101),
        100,
        "the same ids are repeats, a new one is refused after a restart too"
    );
    let (bob, got) = world.device("bob", "phone");
    let got = drain(&mut world, "bob", bob, got);
    assert_eq!(got.len(), 100);
    let said = world.publish("alice", "phone", alice, &text("room", "bob", "hi"));
    assert!(matches!(answers(&said)[..], [Answer::Message { n: 101, .. }]), "{said:?}");
}

#[test]
fn a_quota_counts_bytes_too() {
    let inbox = Amount { entries: 1 << 30, bytes: 100_000 };
    let mut world = World::with_limits(&["alice", "bob"], Limits { inbox, ..Limits::default() });
    let (alice, _) = world.device("alice", "phone");
    let long = "x".repeat(10_000);
    let mut accepted = 0;
    for n in 0..20 {
        let said = world.publish("alice", "phone", alice, &text(&format!("m{n}"), "bob", &long));
        accepted += u64::from(matches!(answers(&said)[..], [Answer::Message { .. }]));
    }
    assert_eq!(accepted, 10);
}

#[test]
fn s50_a_flood_leaves_room_for_everybody_else() {
    let mut world = World::with_limits(&["mallory", "alice", "bob"], limits(4000, 10_000));
    let (mallory, _) = world.device("mallory", "phone");
    let (alice, _) = world.device("alice", "phone");
    assert_eq!(send(&mut world, "mallory", mallory, "bob", 5000), 2000, "half of it, and no more");
    assert_eq!(send(&mut world, "alice", alice, "bob", 500), 500, "others still reach him");
    let (bob, got) = world.device("bob", "phone");
    let got = drain(&mut world, "bob", bob, got);
    assert_eq!(got.iter().filter(|entry| entry["from"] == "alice").count(), 500, "nothing of it is lost");
}

#[test]
fn a_lagging_device_never_makes_senders_fail_and_is_told_what_it_missed() {
    let mut world = World::with_limits(&["alice", "bob"], limits(200, 100));
    let (alice, _) = world.device("alice", "phone");
    let (tablet, _) = world.device("bob", "tablet");
    let (bob, _) = world.device("bob", "phone");
    world.close("bob", tablet);
    for n in 1..=350_u64 {
        let said = world.publish("alice", "phone", alice, &text(&format!("m{n}"), "bob", "hi"));
        assert!(matches!(answers(&said)[..], [Answer::Message { .. }]), "{n}: {said:?}");
        let got = entries(said).into_iter().filter(|entry| entry["type"] == "text").collect();
        drain(&mut world, "bob", bob, got);
        if n % 50 == 0 {
            world.settle_everything();
        }
    }
    let (tablet, got) = world.device("bob", "tablet");
    let got = drain(&mut world, "bob", tablet, got);
    // Every position is either an entry or in a gap, or was never meant for it.
    assert_eq!(got[0]["prev"], json!(0), "{:?}", got[0]);
    let mut last: Seq = 0;
    for entry in &got {
        assert!(entry["prev"].as_u64().unwrap() <= last, "a client would take this for a loss: {entry}");
        last = entry["seq"].as_u64().unwrap();
    }
    let texts: Vec<u64> = got.iter().filter(|e| e["type"] == "text").map(|e| e["n"].as_u64().unwrap()).collect();
    let gaps: Vec<_> = got.iter().filter(|e| e["type"] == "gap").collect();
    assert!(gaps.iter().all(|gap| gap["reason"] == "lagged"), "{gaps:?}");
    let skipped = gaps.iter().map(|gap| gap["to"].as_u64().unwrap()).max().unwrap();
    assert!(
        gaps.iter().any(|gap| gap["from"] == 1),
        "the oldest too, though the gap that told of it was skipped: {gaps:?}"
    );
    assert!(texts.len() <= 100 && *texts.last().unwrap() == 350, "{texts:?}");
    let first_seq = got[0]["seq"].as_u64().unwrap();
    assert_eq!(skipped + 1, first_seq, "what it did not get is in the gaps");
    // The sender hears nothing bad: bob's phone had it all.
    let (_, told) = world.device("alice", "phone");
    assert!(told.iter().all(|entry| entry["status"] != "failed"), "{told:?}");
}

#[test]
fn copies_of_own_messages_do_not_pile_up_for_ever() {
    let mut world = World::with_limits(&["alice", "bob"], limits(100, 1000));
    // Alice's tablet is away; she sends from a phone that reads nothing, so no device of hers is current.
    let (tablet, _) = world.device("alice", "tablet");
    world.close("alice", tablet);
    let (bob, _) = world.device("bob", "phone");
    let alice = world.connect("alice", Dialect::Full, u32::MAX);
    for n in 1..=600_u64 {
        let said = world.publish("alice", "phone", alice, &text(&format!("m{n}"), "bob", "hi"));
        assert!(matches!(answers(&said)[..], [Answer::Message { .. }]), "{n}: {said:?}");
        let got = entries(said).into_iter().filter(|entry| entry["from"] == "alice").collect();
        drain(&mut world, "bob", bob, got);
    }
    let (tablet, got) = world.device("alice", "tablet");
    let got = drain(&mut world, "alice", tablet, got);
    // Copies and receipts.
    assert!((130..300).contains(&got.len()), "about twice the quota stays: {}", got.len());
    assert!(got.iter().any(|entry| entry["type"] == "gap" && entry["reason"] == "lagged"));
}

#[test]
fn a_phone_that_has_everything_lags_behind_nothing() {
    let mut world = World::with_limits(&["alice", "bob"], limits(100, 100));
    // Alice's phone sends and is online, her tablet is away: copies for the tablet are not the phone's.
    let (tablet, _) = world.device("alice", "tablet");
    world.close("alice", tablet);
    let (alice, _) = world.device("alice", "phone");
    let (bob, _) = world.device("bob", "phone");
    for n in 1..=400_u64 {
        let said = world.publish("alice", "phone", alice, &text(&format!("m{n}"), "bob", "hi"));
        let (to_bob, to_alice): (Vec<_>, Vec<_>) =
            entries(said).into_iter().partition(|entry| entry["from"] == "alice");
        assert!(to_alice.iter().all(|entry| entry["type"] != "gap"), "{to_alice:?}");
        drain(&mut world, "bob", bob, to_bob);
        for seq in 1..=2000 {
            // Whatever receipt is out.
            world.ack("alice", alice, seq);
            if seq > 3 * n {
                break;
            }
        }
    }
    let said = world.publish("bob", "phone", bob, &text("back", "alice", "hi"));
    assert!(matches!(answers(&said)[..], [Answer::Message { .. }]), "{said:?}");
}

#[test]
fn what_has_expired_is_no_lag() {
    let mut world = World::with_limits(&["alice", "bob"], limits(100, 1000));
    let (bob, _) = world.device("bob", "phone");
    world.close("bob", bob);
    let (alice, _) = world.device("alice", "phone");
    assert_eq!(send(&mut world, "alice", alice, "bob", 200), 100);
    world.settle_everything();
    world.sweep_after(31);
    let said = world.publish("alice", "phone", alice, &text("new", "bob", "hi"));
    assert!(matches!(answers(&said)[..], [Answer::Message { .. }]), "{said:?}");
}

#[test]
fn a_flood_does_not_shut_out_those_whom_the_victim_writes_to() {
    let mut world = World::with_limits(&["mallory", "alice", "bob"], limits(4000, 10_000));
    let (alice, _) = world.device("alice", "phone");
    let (bob, _) = world.device("bob", "phone");
    // Bob has written alice much: that is nothing of hers.
    assert_eq!(send(&mut world, "bob", bob, "alice", 1100), 1100);
    world.close("bob", bob);
    let (mallory, _) = world.device("mallory", "phone");
    assert_eq!(send(&mut world, "mallory", mallory, "bob", 5000), 2000);
    for settled in [false, true] {
        if settled {
            world.settle_everything();
        }
        let said = world.publish("alice", "phone", alice, &text(&format!("a{settled}"), "bob", "hi"));
        assert!(matches!(answers(&said)[..], [Answer::Message { .. }]), "{said:?}");
    }
    let said = world.publish("mallory", "phone", mallory, &text("more", "bob", "hi"));
    assert!(matches!(answers(&said)[..], [Answer::Refused { kind: Kind::Quota, .. }]), "{said:?}");
}

#[test]
fn two_crowded_inboxes_do_not_toss_failures_to_each_other() {
    let mut world = World::with_limits(&["alice", "bob"], limits(400, 10_000));
    let mut connections = Vec::new();
    for name in ["alice", "bob"] {
        let (away, _) = world.device(name, "tablet");
        world.close(name, away);
        connections.push((name, world.connect(name, Dialect::Bare, u32::MAX)));
    }
    for n in 0..399 {
        for (name, connection) in &connections {
            let other = if *name == "alice" { "bob" } else { "alice" };
            world.publish(name, "phone", *connection, &text(&format!("{name}-{n}"), other, "hi"));
        }
    }
    // Refusals fill the own inbox, until the oldest must go; each of those fails for the other side.
    for n in 0..600 {
        for (name, connection) in &connections {
            let other = if *name == "alice" { "bob" } else { "alice" };
            let said = world.publish(name, "phone", *connection, &text(&format!("{name}-{}", n % 399), other, "other"));
            assert!(said.len() < 100, "{n}: {}", said.len());
        }
    }
}

/// What one batch without new events does: goes on with what was left.
fn idle_batch(world: &mut World) -> Vec<Down> {
    world.engine.go_on(world.now).unwrap();
    world.commit()
}

#[test]
fn an_acknowledgement_of_much_goes_on_in_pages_and_what_is_behind_it_waits() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    send(&mut world, "alice", alice, "bob", 1800);
    world.settle_everything();
    let (bob, got) = world.device("bob", "phone");
    assert_eq!(got.len(), 100, "a window");
    let said = world.publish("bob", "phone", bob, &json!({"ack": 1700}));
    assert!(answers(&said).is_empty(), "not done yet: {:?}", answers(&said));
    let said = world.up("bob", publication("phone", bob, 8, &text("behind", "alice", "hi")));
    assert!(answers(&said).is_empty(), "answers keep their order");
    // Others are served meanwhile.
    let said = world.publish("alice", "phone", alice, &text("between", "bob", "hi"));
    assert_eq!(answers(&said).len(), 1);
    let mut said = Vec::new();
    let mut batches = 0;
    while world.engine.is_unfinished() {
        said.extend(idle_batch(&mut world));
        batches += 1;
    }
    assert_eq!(batches, 3, "500 rows a batch, the first one with the command");
    assert!(matches!(answers(&said)[..], [Answer::Done, Answer::Message { .. }]), "{:?}", answers(&said));
    // The receipts cover what was acknowledged, without a hole.
    let (phone, told) = world.device("alice", "phone");
    let told = drain(&mut world, "alice", phone, told);
    let covered: u64 = told
        .iter()
        .filter(|entry| entry["status"] == "delivered")
        .map(|entry| entry["n"].as_u64().unwrap() - entry["after"].as_u64().unwrap())
        .sum();
    assert_eq!(covered, 1700);
}

#[test]
fn what_was_passed_is_purged_in_slices_also_after_a_crash_in_between() {
    for crash in [false, true] {
        let mut world = World::with_users(&["alice", "bob"]);
        let (alice, _) = world.device("alice", "phone");
        send(&mut world, "alice", alice, "bob", 5000);
        world.settle_everything();
        let (bob, _) = world.device("bob", "phone");
        world.publish("bob", "phone", bob, &json!({"ack": 5000}));
        while world.engine.is_unfinished() {
            idle_batch(&mut world);
        }
        let mut slices = 0;
        while world.engine.unsettled() > 0 {
            world.engine.settle().unwrap();
            slices += 1;
        }
        assert!(world.engine.has_dead_rows(), "5,000 rows are more than {slices} slices purge");
        if crash {
            world = world.crash();
            // Nobody has looked at bob's inbox yet; when somebody does, the rest is found.
            world.device("bob", "phone");
            assert!(world.engine.has_dead_rows());
        }
        world.settle_everything();
        let mut store = world.engine.into_store();
        let left = natter_bridge::store::Store::inbox_places(&mut store, &user("bob"), 0, u64::MAX >> 1, 9).unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_newer_connection_does_not_overtake_what_waits_behind_an_acknowledgement() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    send(&mut world, "alice", alice, "bob", 1200);
    let (bob, _) = world.device("bob", "phone");
    world.publish("bob", "phone", bob, &json!({"ack": 1200}));
    world.up("bob", publication("phone", bob, 8, &text("first", "alice", "hi")));
    world.close("bob", bob);
    // The same user comes back at once, and publishes.
    let (again, _) = world.device("bob", "phone");
    world.up("bob", publication("phone", again, 1, &text("second", "alice", "hi")));
    let mut said = Vec::new();
    while world.engine.is_unfinished() {
        said.extend(idle_batch(&mut world));
    }
    let numbers: Vec<_> = answers(&said)
        .iter()
        .filter_map(|answer| if let Answer::Message { id, n, .. } = answer { Some((id.to_string(), *n)) } else { None })
        .collect();
    assert_eq!(numbers, [("first".to_owned(), 1201), ("second".to_owned(), 1202)]);
    assert!(
        said.iter().all(|frame| !matches!(frame, Down::Close { connection, .. } if *connection == again)),
        "{said:?}"
    );
    assert!(said.iter().any(|frame| matches!(frame, Down::Opened { connection, .. } if *connection == again)));
}

#[test]
fn a_batch_that_fails_ends_what_went_on() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    send(&mut world, "alice", alice, "bob", 1200);
    let (bob, _) = world.device("bob", "phone");
    world.publish("bob", "phone", bob, &json!({"ack": 1200}));
    let (late, _) = world.device("bob", "tablet");
    world.is_full.store(true, std::sync::atomic::Ordering::Relaxed);
    world.engine.go_on(world.now).unwrap();
    assert!(world.engine.commit().is_err());
    let said = frames(world.engine.abort(natter_protocol::error::NotNow::Unavailable).unwrap());
    assert!(!world.engine.is_unfinished(), "the loop would never rest");
    let closed = |id| said.iter().any(|frame| matches!(frame, Down::Close { connection, .. } if *connection == id));
    assert!(closed(bob) && closed(late), "{said:?}");
    world.is_full.store(false, std::sync::atomic::Ordering::Relaxed);
    world.close("bob", bob);
    let (_, got) = world.device("bob", "phone");
    assert_eq!(got[0]["seq"], json!(501), "the page that was committed");
}

#[test]
fn a_connection_that_goes_on_sending_behind_a_long_acknowledgement_is_told_not_now() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    send(&mut world, "alice", alice, "bob", 600);
    let (bob, _) = world.device("bob", "phone");
    world.publish("bob", "phone", bob, &json!({"ack": 600}));
    for n in 0..1025 {
        let id = u16::try_from(n + 10).unwrap();
        world.handle(natter_bridge::engine::Event::Up(
            user("bob"),
            publication("phone", bob, id, &text(&format!("b{n}"), "alice", "hi")),
        ));
    }
    world.engine.commit().unwrap();
    let mut released = Released::default();
    world.engine.release(&mut Window::default(), &mut released).unwrap();
    let said = frames(released);
    assert!(
        said.iter().any(|frame| matches!(frame, Down::Close { connection, reason: 0x97 } if *connection == bob)),
        "{said:?}"
    );
}
