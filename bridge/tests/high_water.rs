//! What was acknowledged and is gone is said at the next start, whatever has happened to the end of the WAL; and a store that goes on
//! without it gives no position twice.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use natter_bridge::config::{Config, Limits};
use natter_bridge::engine::{Engine, Event, Now, Released, Request};
use natter_bridge::stats::Counters;
use natter_bridge::store::loss::SEQ_JUMP;
use natter_bridge::store::sqlite::Sqlite;
use natter_bridge::store::{Store, StoreError};
use natter_bridge::{AcceptedLoss, Bridge};
use natter_protocol::link::{Dialect, Down, Mode, Opening, Packet, Publication, Up, Window};
use natter_protocol::{ConnectionId, DeviceId, UserId};
use serde_json::{Value, json};

/// A store and its rules, without a server around them.
struct World {
    engine: Engine<Sqlite>,
    connections: u64,
}

impl World {
    fn open(dir: &Path) -> Result<Self, StoreError> {
        let store = Sqlite::open(&dir.join("natter.db"))?;
        let engine = Engine::recover(store, Limits::default(), Arc::new(Counters::default()))?;
        Ok(Self { engine, connections: 0 })
    }

    fn event(&mut self, event: Event) -> Vec<Value> {
        self.engine.handle(event, Now { server_secs: 1, unix_secs: 1_764_000_000 }).unwrap();
        self.engine.commit().unwrap();
        let mut released = Released::default();
        self.engine.release(&mut Window::default(), &mut released).unwrap();
        let frames = released.frames.into_iter().map(|(_, frame)| Down::decode(frame).unwrap());
        let payloads = frames.filter_map(|frame| match frame {
            Down::Entry { payload, .. } => Some(serde_json::from_slice(&payload).unwrap()),
            _ => None,
        });
        payloads.collect()
    }

    fn up(&mut self, name: &str, up: Up) -> Vec<Value> {
        self.event(Event::Up(user(name), up))
    }

    fn add(&mut self, name: &str) {
        self.event(Event::Request(0, Request::AddUser(user(name))));
    }

    /// A phone that connects and subscribes, and what it gets at once.
    fn phone(&mut self, name: &str) -> (ConnectionId, Vec<Value>) {
        self.connections += 1;
        let connection = ConnectionId { boot: 1, n: self.connections };
        let opening = Opening {
            client_id: name.into(),
            clean_start: true,
            expiry_secs: 0,
            dialect: Dialect::Full,
            receive_maximum: 100,
            packet_bytes_max: u32::MAX,
            device: None,
            issued_at: 0,
        };
        self.up(name, Up::Open(connection, opening));
        let got = self.up(name, Up::Attach { connection, request: 1, device: phone(), mode: Mode::Device });
        (connection, got)
    }

    fn send(&mut self, name: &str, connection: ConnectionId, to: &str, id: &str) -> Vec<Value> {
        let payload = json!({"id": id, "to": to, "type": "text", "text": {"body": id}}).to_string();
        let (packet, payload) = (Packet { id: 7, qos: 1 }, Bytes::from(payload));
        self.up(name, Up::Publish(Publication { connection, packet, device: phone(), stamp: 1, will: false, payload }))
    }

    fn ack(&mut self, name: &str, connection: ConnectionId, seq: u64) -> Vec<Value> {
        self.up(name, Up::Acked { connection, seq, taken: true })
    }
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn phone() -> DeviceId {
    DeviceId::parse("phone").unwrap()
}

/// The files as a crash leaves them: without the WAL's index, which is only memory.
fn crash(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let _ = std::fs::remove_file(to.join("natter.db-shm"));
    for name in ["natter.db", "natter.db-wal", "natter.mark"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

fn wal(dir: &Path) -> PathBuf {
    dir.join("natter.db-wal")
}

fn cut_wal(dir: &Path, bytes: u64) {
    std::fs::OpenOptions::new().write(true).open(wal(dir)).unwrap().set_len(bytes).unwrap();
}

fn config(dir: &Path) -> Config {
    Config { path: dir.join("natter.db"), ..Config::default() }
}

fn refusal(dir: &Path) -> (u64, u64) {
    match World::open(dir) {
        Err(StoreError::Missing { newest, marked }) => (newest, marked),
        Err(other) => panic!("expected that rows are missing, got {other}"),
        Ok(_) => panic!("expected that rows are missing, got a store"),
    }
}

#[test]
fn a_lost_end_of_the_wal_is_refused_and_after_it_is_accepted_no_position_comes_twice() {
    let tmp = tempfile::tempdir().unwrap();
    let (live, copy) = (tmp.path().join("live"), tmp.path().join("copy"));
    std::fs::create_dir_all(&live).unwrap();
    let mut world = World::open(&live).unwrap();
    world.add("alice");
    world.add("bob");
    let (bob, _) = world.phone("bob");
    let (alice, _) = world.phone("alice");
    for id in ["m1", "m2", "m3"] {
        world.send("alice", alice, "bob", id);
    }
    world.ack("bob", bob, 1);
    let kept_bytes = std::fs::metadata(wal(&live)).unwrap().len();
    let kept = world.engine.unsettled() as u64;
    // What comes now will be lost: bob takes and acknowledges two entries more, and carol comes and takes one.
    world.send("alice", alice, "bob", "m4");
    world.send("alice", alice, "bob", "m5");
    for seq in 2..=5 {
        world.ack("bob", bob, seq);
    }
    world.add("carol");
    let (_, got) = world.phone("carol");
    assert!(got.is_empty());
    let got = world.send("alice", alice, "carol", "m6");
    assert_eq!(got[0]["seq"], 1, "{got:?}");
    let committed = world.engine.unsettled() as u64;
    let (bob_last, carol_last) = (5, 1);
    crash(&live, &copy);

    cut_wal(&copy, kept_bytes + 100);
    let before = (std::fs::read(copy.join("natter.db")).unwrap(), std::fs::read(wal(&copy)).unwrap());
    assert_eq!(refusal(&copy), (kept, committed));
    let text = World::open(&copy).map(|_| ()).unwrap_err().to_string();
    let rows = format!("{} acknowledged batches are missing (rows {} to {committed})", committed - kept, kept + 1);
    assert!(text.contains(&rows) && text.contains("natter check --accept-loss"), "{text}");
    let after = (std::fs::read(copy.join("natter.db")).unwrap(), std::fs::read(wal(&copy)).unwrap());
    assert!(before == after, "a store that is refused stays as it is, for whoever can save more of it");

    let AcceptedLoss { extent, users } = Bridge::accept_loss(config(&copy)).unwrap();
    assert_eq!((extent.newest, extent.marked, extent.missing(), users), (kept, committed, committed - kept, 2));

    let mut world = World::open(&copy).unwrap();
    let (bob, again) = world.phone("bob");
    let seqs: Vec<_> = again.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [2, 3], "what is kept and was not known to be acknowledged comes again: repeats to bob");
    assert_eq!(again[0]["prev"], 1);
    let (alice, _) = world.phone("alice");
    let new = world.send("alice", alice, "bob", "m7");
    let (seq, prev) = (new[0]["seq"].as_u64().unwrap(), new[0]["prev"].as_u64().unwrap());
    assert_eq!(seq, SEQ_JUMP + 4, "above {bob_last}, and above anything else that can have been given");
    assert!(prev <= bob_last, "bob sees no gap that nobody explains: {new:?}");
    world.ack("bob", bob, 2);
    world.ack("bob", bob, 3);
    world.ack("bob", bob, seq);

    world.add("carol");
    world.phone("carol");
    let new = world.send("alice", alice, "carol", "m8");
    assert!(new[0]["seq"].as_u64().unwrap() > carol_last, "she is gone from the store, her phone is not: {new:?}");

    // All that holds after the next crash too, and the numbers of lost rows are not used again.
    while world.engine.settle().unwrap() {}
    let mut store = world.engine.into_store();
    assert!(store.next_no(0).unwrap() > committed);
    drop(store);
    let mut world = World::open(&copy).unwrap();
    let (_, nothing) = world.phone("bob");
    assert!(nothing.is_empty(), "{nothing:?}");
    world.add("dave");
    world.phone("dave");
    let (alice, _) = world.phone("alice");
    assert!(world.send("alice", alice, "dave", "m9")[0]["seq"].as_u64().unwrap() > SEQ_JUMP);
}

#[test]
fn an_older_copy_of_the_database_is_refused_and_a_store_without_a_mark_gets_one() {
    let tmp = tempfile::tempdir().unwrap();
    let (live, old) = (tmp.path().join("live"), tmp.path().join("old"));
    std::fs::create_dir_all(&live).unwrap();
    let mut world = World::open(&live).unwrap();
    world.add("alice");
    crash(&live, &old);
    world.add("bob");
    drop(world);
    assert!(!wal(&live).exists(), "a clean end");
    // Somebody puts the copy back, and the mark stays.
    for name in ["natter.db", "natter.db-wal"] {
        std::fs::copy(old.join(name), live.join(name)).unwrap();
    }
    assert_eq!(refusal(&live), (1, 2));
    std::fs::remove_file(live.join("natter.db")).unwrap();
    assert_eq!(refusal(&live), (0, 2));
    assert!(wal(&live).exists() && !live.join("natter.db").exists(), "nothing was made or taken away");

    std::fs::remove_file(old.join("natter.mark")).unwrap();
    drop(World::open(&old).unwrap());
    std::fs::remove_file(old.join("natter.db")).unwrap();
    assert_eq!(refusal(&old), (0, 1), "the new mark counts");
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }
}

#[test]
fn whatever_happens_to_the_wal_a_loss_is_never_silent() {
    const CASES: u64 = 1_000;
    let tmp = tempfile::tempdir().unwrap();
    let (live, copy) = (tmp.path().join("live"), tmp.path().join("copy"));
    std::fs::create_dir_all(&live).unwrap();
    let mut world = World::open(&live).unwrap();
    world.add("alice");
    world.add("bob");
    let (alice, _) = world.phone("alice");
    for i in 0..90 {
        world.send("alice", alice, "bob", &format!("a{i}"));
        if i == 30 {
            // From here on the WAL starts again, over the frames that are in the database now.
            while world.engine.settle().unwrap() {}
            let other = rusqlite::Connection::open(live.join("natter.db")).unwrap();
            other.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(())).unwrap();
        }
    }
    let mut store = world.engine.into_store();
    let journal = store.journal(0).unwrap();
    let committed = store.next_no(0).unwrap() - 1;
    assert_eq!(journal.last().unwrap().0, committed);
    crash(&live, &copy);
    let whole = std::fs::read(wal(&copy)).unwrap();
    let database = std::fs::read(copy.join("natter.db")).unwrap();
    let mark = std::fs::read(copy.join("natter.mark")).unwrap();

    let (mut refused, mut opened) = (0, 0);
    for seed in 1..=CASES {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut damaged = whole.clone();
        let length = damaged.len() as u64;
        let at = usize::try_from(random.below(length)).unwrap();
        match random.below(10) {
            0..=4 => damaged[at] ^= 1 << random.below(8),
            5..=7 => damaged.truncate(at),
            8 => {
                let sector = at / 512 * 512;
                damaged[sector..(sector + 512).min(whole.len())].fill(0);
            }
            _ => damaged[at..(at + 8).min(whole.len())].fill(0xff),
        }
        std::fs::write(copy.join("natter.db"), &database).unwrap();
        std::fs::write(copy.join("natter.mark"), &mark).unwrap();
        std::fs::write(wal(&copy), &damaged).unwrap();
        let _ = std::fs::remove_file(copy.join("natter.db-shm"));
        match Sqlite::open(&copy.join("natter.db")) {
            Ok(mut store) => {
                assert!(store.journal(0).unwrap() == journal, "seed {seed}: opened, and rows are missing or others");
                opened += 1;
            }
            Err(StoreError::Missing { newest, marked }) => {
                assert!(
                    newest < committed && marked == committed,
                    "seed {seed}: {newest} of {committed}, mark {marked}"
                );
                refused += 1;
            }
            Err(other) => panic!("seed {seed}: expected a store or a loss with its name, got {other}"),
        }
    }
    assert!(refused > CASES / 4 && opened > CASES / 20, "both happen: {refused} refused, {opened} opened");
}
