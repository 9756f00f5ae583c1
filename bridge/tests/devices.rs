//! Devices that are linked, listed and cut off: the rules, without sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

use natter_bridge::devices::{Ask, Device, LABEL_CHARS_MAX, Told};
use natter_bridge::engine::{Event, Released, Reply, Request};
use natter_protocol::error::Kind;
use natter_protocol::link::{Dialect, Down, Mode, Opening, Up};
use natter_protocol::{ConnectionId, DeviceId};
use world::{DAY, World, answers, entries, text, user};

const PHONE: &str = "phone";
const LAPTOP: &str = "laptop";

fn device(name: &str) -> DeviceId {
    DeviceId::parse(name).unwrap()
}

/// Asks, and what is sent to connections with it.
fn ask(world: &mut World, ask: Ask) -> (Told, Vec<Down>) {
    world.handle(Event::Request(77, Request::Devices(ask)));
    world.engine.commit().unwrap();
    let mut released = Released::default();
    world.engine.release(&mut world.window, &mut released).unwrap();
    let told = match released.replies.pop() {
        Some((77, Reply::Devices(told))) => told,
        other => panic!("{other:?}"),
    };
    (told, world::frames(released))
}

fn list(world: &mut World, name: &str) -> Vec<Device> {
    match ask(world, Ask::List(user(name))).0 {
        Told::List(devices) => devices,
        other => panic!("{other:?}"),
    }
}

fn names(world: &mut World, name: &str) -> Vec<String> {
    list(world, name).into_iter().map(|device| device.name.to_string()).collect()
}

fn link(world: &mut World, name: &str, label: Option<&str>) -> Told {
    ask(world, Ask::Link { user: user("bob"), device: device(name), label: label.map(Into::into) }).0
}

fn unlink(world: &mut World, name: &str, before: u64) -> (Told, Vec<Down>) {
    ask(world, Ask::Unlink { user: user("bob"), device: device(name), before })
}

/// A connection with a token of that device.
fn bound(world: &mut World, n: u64, name: &str, issued_at: u64, expiry_secs: u32) -> (ConnectionId, Vec<Down>) {
    let connection = ConnectionId { boot: 1, n };
    let opening = Opening {
        client_id: format!("bob-{name}"),
        clean_start: expiry_secs == 0,
        expiry_secs,
        dialect: Dialect::Full,
        receive_maximum: 100,
        packet_bytes_max: u32::MAX,
        device: Some(device(name)),
        issued_at,
    };
    let down = world.up("bob", Up::Open(connection, opening));
    (connection, down)
}

fn attach(world: &mut World, name: &str, connection: ConnectionId) -> Vec<Down> {
    world.up("bob", Up::Attach { connection, request: 1, device: device(name), mode: Mode::Device })
}

fn refused(told: &Told) -> Kind {
    match told {
        Told::Refused(refusal) => refusal.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_device_is_listed_with_its_label_and_its_times_also_settled_and_after_a_crash() {
    let mut world = World::with_users(&["alice", "bob"]);
    let start = world.now.unix_secs;
    let (phone, _) = world.device("bob", PHONE);
    world.now.unix_secs += 10;
    assert_eq!(link(&mut world, LAPTOP, Some("Work")), Told::Done(true));
    let all = list(&mut world, "bob");
    assert_eq!(all.iter().map(|device| device.name.as_str()).collect::<Vec<_>>(), [LAPTOP, PHONE]);
    assert_eq!(
        (all[0].label.as_deref(), all[0].linked_at, all[0].connected_since),
        (Some("Work"), Some(start + 10), None)
    );
    assert_eq!(
        (all[1].linked_at, all[1].connected_since, all[1].last_seen),
        (Some(start), Some(start), Some(start + 10))
    );
    world.now.unix_secs += 10;
    world.close("bob", phone);
    world.now.unix_secs += 500;
    let phone = list(&mut world, "bob").pop().unwrap();
    assert_eq!((phone.connected_since, phone.last_seen), (None, Some(start + 20)));

    // To the hour is what the store has.
    world.now.unix_secs += 2 * DAY;
    world.now.server_secs += 2 * DAY;
    let (again, _) = world.device("bob", PHONE);
    world.close("bob", again);
    let seen = world.now.unix_secs;
    let mut world = world.crash();
    let replayed = list(&mut world, "bob");
    assert_eq!((replayed[1].last_seen, replayed[1].linked_at), (Some(seen), Some(start)));
    world.settle_everything();
    let mut world = world.crash();
    assert_eq!(list(&mut world, "bob"), replayed);
    assert_eq!(names(&mut world, "alice"), [] as [&str; 0]);
}

#[test]
fn what_arrives_from_the_linking_on_waits_for_a_device_that_has_never_connected() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (phone, _) = world.device("bob", PHONE);
    assert_eq!(link(&mut world, LAPTOP, None), Told::Done(true));
    let (alice, _) = world.device("alice", PHONE);
    world.publish("alice", PHONE, alice, &text("m1", "bob", "hi"));
    world.ack("bob", phone, 1);
    world.settle_everything();
    let (_, waits) = world.device("bob", LAPTOP);
    assert_eq!(waits.len(), 1, "{waits:?}");
}

#[test]
fn names_labels_and_the_number_of_devices_are_bounded() {
    let mut world = World::with_users(&["bob"]);
    assert_eq!(refused(&link(&mut world, "http", None)), Kind::InvalidValue);
    assert_eq!(refused(&link(&mut world, "webhook", None)), Kind::InvalidValue);
    assert_eq!(refused(&link(&mut world, "d0", Some(&"x".repeat(LABEL_CHARS_MAX + 1)))), Kind::InvalidValue);
    assert_eq!(refused(&link(&mut world, "d0", Some("a\u{1b}[2J"))), Kind::InvalidValue);
    for n in 0..10 {
        assert_eq!(link(&mut world, &format!("d{n}"), Some(&"\u{e4}".repeat(LABEL_CHARS_MAX))), Told::Done(true));
    }
    assert_eq!(refused(&link(&mut world, "d0", None)), Kind::Conflict);
    assert_eq!(refused(&link(&mut world, "d10", None)), Kind::Quota);
    // One that was idle for a week gives its place up; d0 is as idle as the others.
    world.now.server_secs += 7 * DAY;
    assert_eq!(link(&mut world, "d10", None), Told::Done(true));
    assert_eq!(names(&mut world, "bob").len(), 10);
    assert_eq!(
        unlink(&mut world, "webhook", 9).0,
        Told::Refused(natter_protocol::error::Refusal::new(
            Kind::NotAllowed,
            "device: expected another one than webhook: DELETE /v1/webhook ends that"
        ))
    );
}

#[test]
fn from_the_batch_of_its_end_on_a_device_is_not_heard_and_gets_nothing() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", PHONE);
    let (laptop, _) = bound(&mut world, 100, LAPTOP, 5, 3600);
    attach(&mut world, LAPTOP, laptop);
    // Reads the same inbox live only, with a token of every device.
    let viewer = world.connect("bob", Dialect::Full, u32::MAX);
    world.up("bob", Up::Attach { connection: viewer, request: 1, device: device(LAPTOP), mode: Mode::Viewer });
    let (phone, _) = world.device("bob", PHONE);

    // All in one batch: what stands before the end counts, what stands behind it does not.
    world.handle(Event::Up(user("bob"), world::publication(LAPTOP, laptop, 1, &text("before", "alice", "1"))));
    world.handle(Event::Request(
        77,
        Request::Devices(Ask::Unlink { user: user("bob"), device: device(LAPTOP), before: 9 }),
    ));
    world.handle(Event::Up(user("bob"), world::publication(LAPTOP, laptop, 2, &text("behind", "alice", "2"))));
    world.handle(Event::Up(user("alice"), world::publication(PHONE, alice, 3, &text("m1", "bob", "hi"))));
    let frames = world.commit();
    let closed: Vec<u64> = frames
        .iter()
        .filter_map(|frame| match frame {
            Down::Close { connection, reason: 0x87 } => Some(connection.n),
            _ => None,
        })
        .collect();
    assert_eq!(closed.len(), 2, "{frames:?}");
    assert!(closed.contains(&laptop.n) && closed.contains(&viewer.n));
    assert_eq!(answers(&frames).len(), 2, "of the message before, and of alice's: {frames:?}");
    for frame in &frames {
        if let Down::Entry { connection, .. } | Down::Live { connection, .. } = frame {
            assert!([phone, alice].contains(connection), "{frame:?}");
        }
    }
    let got: Vec<_> = entries(frames).into_iter().filter_map(|entry| entry["id"].as_str().map(str::to_owned)).collect();
    assert!(got.contains(&"before".to_owned()) && !got.contains(&"behind".to_owned()), "{got:?}");

    // Also what comes later of those connections: an acknowledgement, a subscription, a will.
    let later = [
        Up::Acked { connection: laptop, seq: 1, taken: true },
        Up::Attach { connection: laptop, request: 2, device: device(LAPTOP), mode: Mode::Device },
        world::publication(LAPTOP, laptop, 4, &text("later", "alice", "3")),
        Up::Close { connection: laptop, expiry_secs: Some(3600), by_server: true },
    ];
    for up in later {
        assert!(world.up("bob", up).is_empty());
    }
    assert_eq!(names(&mut world, "bob"), [PHONE]);

    // One that was let in by the door before it knew, and arrives now, with the session that it had.
    let (late, frames) = bound(&mut world, 101, LAPTOP, 8, 3600);
    assert!(matches!(frames[..], [Down::Close { reason: 0x87, .. }]), "{frames:?}");
    assert!(attach(&mut world, LAPTOP, late).is_empty());
    assert!(world.publish("bob", LAPTOP, late, &text("late", "alice", "4")).is_empty());
    assert_eq!(names(&mut world, "bob"), [PHONE]);

    // Another device's token is another matter, and so is one that was issued since.
    let (tablet, _) = bound(&mut world, 102, "tablet", 5, 0);
    assert!(!attach(&mut world, "tablet", tablet).is_empty());
    let (again, frames) = bound(&mut world, 103, LAPTOP, 9, 3600);
    assert!(matches!(frames[..], [Down::Opened { session_present: false, .. }]), "it begins anew: {frames:?}");
    assert!(!attach(&mut world, LAPTOP, again).is_empty());
}

#[test]
fn what_only_the_unlinked_device_waited_for_is_gone_and_its_name_begins_anew() {
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", PHONE);
    let (phone, _) = world.device("bob", PHONE);
    assert_eq!(link(&mut world, LAPTOP, Some("Old")), Told::Done(true));
    for n in 1..=3 {
        world.publish("alice", PHONE, alice, &text(&format!("m{n}"), "bob", "hi"));
        world.ack("bob", phone, n);
    }
    world.settle_everything();
    let (mut world, rows) = world.crash_and_count("bob");
    assert_eq!(rows, 3);
    assert_eq!(unlink(&mut world, LAPTOP, 9).0, Told::Done(true));
    assert_eq!(unlink(&mut world, LAPTOP, 9).0, Told::Done(false));
    world.settle_everything();
    let (mut world, rows) = world.crash_and_count("bob");
    assert_eq!(rows, 0, "nothing is kept for it");
    assert_eq!(world.engine.revocations().len(), 1);

    assert_eq!(link(&mut world, LAPTOP, None), Told::Done(true));
    assert_eq!(list(&mut world, "bob")[0].label, None);
    let (_, waits) = world.device("bob", LAPTOP);
    assert!(waits.is_empty(), "{waits:?}");
}

#[test]
fn of_an_end_that_is_not_committed_nothing_is_done() {
    let mut world = World::with_users(&["bob"]);
    let (_, _) = world.device("bob", LAPTOP);
    world.is_full.store(true, std::sync::atomic::Ordering::Relaxed);
    world.handle(Event::Request(
        77,
        Request::Devices(Ask::Unlink { user: user("bob"), device: device(LAPTOP), before: 9 }),
    ));
    world.engine.commit().unwrap_err();
    let released = world.engine.abort(natter_protocol::error::NotNow::Unavailable).unwrap();
    assert!(matches!(released.replies[..], [(77, Reply::NotNow(_))]), "{released:?}");
    world.is_full.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(names(&mut world, "bob"), [LAPTOP]);
    assert!(world.engine.revocations().is_empty());
}
