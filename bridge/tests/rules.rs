//! The rules without sockets: events in, frames out, time passed in. What 30 days do is seen in milliseconds.

#![allow(clippy::unwrap_used, reason = "a test ends where its world does not hold")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use natter_bridge::change::{Accepted, Revoked, Row, Session};
use natter_bridge::chat_key::ChatKey;
use natter_bridge::config::Limits;
use natter_bridge::engine::{CommitError, Engine, Event, Now, Released, Request};
use natter_bridge::stats::Counters;
use natter_bridge::store::memory::Memory;
use natter_bridge::store::{Append, DeviceRow, InboxPlace, MemberRow, Settlement, Store, StoreError, UserRow};
use natter_protocol::error::{Kind, NotNow};
use natter_protocol::link::{Answer, Dialect, Down, Mode, Opening, Packet, Publication, Up, Window};
use natter_protocol::{ConnectionId, DeviceId, MessageId, N, Seq, UserId};
use serde_json::{Value, json};

const DAY: u64 = 24 * 3600;

/// A store whose journal can be made to fail, as a full disk does.
struct Fragile {
    inner: Memory,
    is_full: Arc<AtomicBool>,
}

macro_rules! delegate {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(fn $name(&mut self, $($arg: $type),*) -> $out { self.inner.$name($($arg),*) })*
    };
}

impl Store for Fragile {
    fn append(&mut self, log: u8, no: u64, delta: &[u8]) -> Append {
        if self.is_full.load(Ordering::Relaxed) {
            return Append::Failed(StoreError::Database("the disk is full".into()));
        }
        self.inner.append(log, no, delta)
    }

    delegate! {
        next_no(log: u8) -> Result<u64, StoreError>;
        journal(log: u8) -> Result<Vec<(u64, Vec<u8>)>, StoreError>;
        settle(log: u8, settlement: &Settlement) -> Result<(), StoreError>;
        user(user: &UserId) -> Result<Option<UserRow>, StoreError>;
        devices(user: &UserId) -> Result<Vec<(DeviceId, DeviceRow)>, StoreError>;
        inbox(user: &UserId, after: Seq, limit: usize) -> Result<Vec<(Seq, Row)>, StoreError>;
        inbox_places(user: &UserId, after: Seq, upto: Seq, limit: usize) -> Result<Vec<InboxPlace>, StoreError>;
        chat(chat: &ChatKey) -> Result<Option<N>, StoreError>;
        members(chat: &ChatKey) -> Result<Vec<(UserId, MemberRow)>, StoreError>;
        accepted(id: &MessageId, sender: &UserId) -> Result<Option<Accepted>, StoreError>;
        accepted_by_id(id: &MessageId, limit: usize) -> Result<Vec<(UserId, Accepted)>, StoreError>;
        newest_of(chat: &ChatKey, sender: &UserId, after: N, upto: N) -> Result<Option<(N, MessageId)>, StoreError>;
        session(user: &UserId, client_id: &str) -> Result<Option<Session>, StoreError>;
        sessions(user: &UserId) -> Result<Vec<(String, Session)>, StoreError>;
        revoked() -> Result<Vec<Revoked>, StoreError>;
        server_secs() -> Result<u64, StoreError>;
        oldest_rows(after: Option<&UserId>, limit: usize) -> Result<Vec<(UserId, u64)>, StoreError>;
        sweep_accepted(after: Option<(MessageId, UserId)>, limit: usize, now: u64) -> Result<Option<(MessageId, UserId)>, StoreError>;
    }
}

/// A server's rules and a hand on its clock.
struct World {
    engine: Engine<Fragile>,
    is_full: Arc<AtomicBool>,
    window: Window,
    now: Now,
    last_connection: u64,
}

impl World {
    fn with_users(users: &[&str]) -> Self {
        let is_full = Arc::new(AtomicBool::new(false));
        let store = Fragile { inner: Memory::default(), is_full: Arc::clone(&is_full) };
        let engine = Engine::recover(store, Limits::default(), Arc::new(Counters::default())).unwrap();
        let now = Now { server_secs: 1, unix_secs: 1_764_000_000 };
        let mut world = Self { engine, is_full, window: Window::default(), now, last_connection: 0 };
        for (ticket, name) in users.iter().enumerate() {
            world.handle(Event::Request(ticket as u64, Request::AddUser(user(name))));
        }
        world.commit();
        world
    }

    fn handle(&mut self, event: Event) {
        self.engine.handle(event, self.now).unwrap();
    }

    fn commit(&mut self) -> Vec<Down> {
        self.engine.commit().unwrap();
        let mut released = Released::default();
        self.engine.release(&mut self.window, &mut released).unwrap();
        frames(released)
    }

    fn up(&mut self, name: &str, up: Up) -> Vec<Down> {
        self.handle(Event::Up(user(name), up));
        self.commit()
    }

    fn connect(&mut self, name: &str, dialect: Dialect, packet_bytes_max: u32) -> ConnectionId {
        self.last_connection += 1;
        let connection = ConnectionId { boot: 1, n: self.last_connection };
        let opening = Opening {
            client_id: format!("{name}-{}", connection.n),
            clean_start: true,
            expiry_secs: 0,
            dialect,
            receive_maximum: 100,
            packet_bytes_max,
            device: None,
        };
        self.up(name, Up::Open(connection, opening));
        connection
    }

    fn attach(&mut self, name: &str, device: &str, connection: ConnectionId) -> Vec<Value> {
        let device = DeviceId::parse(device).unwrap();
        entries(self.up(name, Up::Attach { connection, request: 1, device, mode: Mode::Device }))
    }

    /// A device that connects and subscribes, and what it gets at once.
    fn device(&mut self, name: &str, device: &str) -> (ConnectionId, Vec<Value>) {
        let connection = self.connect(name, Dialect::Full, u32::MAX);
        let entries = self.attach(name, device, connection);
        (connection, entries)
    }

    fn publish(&mut self, name: &str, device: &str, connection: ConnectionId, payload: &Value) -> Vec<Down> {
        self.up(name, publication(device, connection, 7, payload))
    }

    fn ack(&mut self, name: &str, connection: ConnectionId, seq: Seq) -> Vec<Down> {
        self.up(name, Up::Acked { connection, seq, taken: true })
    }

    fn close(&mut self, name: &str, connection: ConnectionId) {
        self.up(name, Up::Close { connection, expiry_secs: None, by_server: false });
    }

    /// The process dies and starts again: what was committed is there, connections are not.
    fn crash(self) -> Self {
        let Self { engine, is_full, now, last_connection, .. } = self;
        let engine = Engine::recover(engine.into_store(), Limits::default(), Arc::new(Counters::default())).unwrap();
        Self { engine, is_full, window: Window::default(), now, last_connection }
    }

    fn settle_everything(&mut self) {
        while self.engine.settle().unwrap() {}
    }

    /// A sweep around the whole store, `days` later.
    fn sweep_after(&mut self, days: u64) -> Vec<Down> {
        self.now.server_secs += days * DAY;
        self.engine.sweep(self.now).unwrap();
        self.commit()
    }
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn publication(device: &str, connection: ConnectionId, packet_id: u16, payload: &Value) -> Up {
    Up::Publish(Publication {
        connection,
        packet: Packet { id: packet_id, qos: 1 },
        device: DeviceId::parse(device).unwrap(),
        stamp: 1 << 70,
        will: false,
        payload: Bytes::from(payload.to_string()),
    })
}

fn text(id: &str, to: &str, body: &str) -> Value {
    json!({"id": id, "to": to, "type": "text", "text": {"body": body}})
}

fn frames(released: Released) -> Vec<Down> {
    released.frames.into_iter().map(|(_, frame)| Down::decode(frame).unwrap()).collect()
}

fn entries(frames: Vec<Down>) -> Vec<Value> {
    let payloads = frames.into_iter().filter_map(|frame| match frame {
        Down::Entry { payload, .. } => Some(payload),
        _ => None,
    });
    payloads.map(|payload| serde_json::from_slice(&payload).unwrap()).collect()
}

fn answers(frames: &[Down]) -> Vec<&Answer> {
    let all = frames.iter().filter_map(|frame| match frame {
        Down::Answer { answer, .. } => Some(answer),
        _ => None,
    });
    all.collect()
}

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
