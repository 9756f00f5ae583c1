//! Disks that say no: nothing is acknowledged then. A write that fails may work later; a sync that fails ends the process, for nobody
//! knows any more what the disk holds.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use natter_bridge::engine::{CommitError, Engine, Event, Now, Released};
use natter_bridge::run::{Loop, Order};
use natter_bridge::store::StoreError;
use natter_bridge::store::sqlite::Sqlite;
use natter_protocol::error::NotNow;
use natter_protocol::link::{Answer, Bell, Down, LinkDown, LinkReceiver, LinkSender, Packet, Up, Window};
use natter_protocol::{ConnectionId, N, UserId};
use rusqlite::{Connection, ffi};

use super::directory;
use super::disk::{Disk, Op, Random};
use super::vfs::Watch;
use super::workload::{decode, opening, publication, start, text, user};

/// How long a frame may take that must come.
const PATIENCE: Duration = Duration::from_secs(20);
const WAL: &str = "-wal";
const DATABASE: &str = ".db";

type Frame = (Option<UserId>, Bytes);

struct DoorToBridge(Receiver<Frame>);

impl LinkReceiver for DoorToBridge {
    fn receive(&mut self, deadline: Instant) -> Result<Option<Frame>, LinkDown> {
        match self.0.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(frame) => Ok(Some(frame)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(None),
        }
    }

    fn bell(&self) -> Bell {
        Arc::new(|| {})
    }
}

struct BridgeToDoor(Sender<Down>);

impl LinkSender for BridgeToDoor {
    fn send(&mut self, frames: &mut Vec<Frame>) -> Result<(), LinkDown> {
        for (_, frame) in frames.drain(..) {
            // A test that is over hears nothing.
            let _ = self.0.send(Down::decode(frame).unwrap());
        }
        Ok(())
    }
}

/// The bridge's loop over a watched directory, and a door to it.
struct Running {
    up: Sender<Frame>,
    down: Receiver<Down>,
    orders: SyncSender<Order>,
    thread: JoinHandle<Result<(), natter_bridge::Error>>,
    boot: u32,
}

impl Running {
    fn start(path: &Path) -> Self {
        let (engine, boot) = start(path);
        let ((up, from_door), (to_door, down), (orders, orders_rx)) = (channel(), channel(), sync_channel(1));
        let (sender, receiver) = (Box::new(BridgeToDoor(to_door)), Box::new(DoorToBridge(from_door)));
        let looping = Loop::new(engine, sender, receiver, orders_rx, Arc::default());
        Self { up, down, orders, thread: std::thread::spawn(move || looping.run()), boot }
    }

    fn connect(&self, name: &str, n: u64) -> ConnectionId {
        let connection = ConnectionId { boot: self.boot, n };
        self.up.send((Some(user(name)), Up::Open(connection, opening(name)).encode())).unwrap();
        let frame = self.next();
        assert!(matches!(frame, Down::Opened { .. }), "{frame:?}");
        connection
    }

    fn publish(&self, name: &str, connection: ConnectionId, id: &str) {
        let packet = Packet { id: 1, qos: 1 };
        let up = publication("phone", connection, packet, 1, &text(id, "bob", "hi"));
        self.up.send((Some(user(name)), up.encode())).unwrap();
    }

    fn next(&self) -> Down {
        self.down.recv_timeout(PATIENCE).expect("a frame")
    }

    fn expect_accepted(&self, expected: N) {
        let frame = self.next();
        assert!(matches!(frame, Down::Answer { answer: Answer::Message { n, .. }, .. } if n == expected), "{frame:?}");
    }

    /// Tells the loop to stop, if it still runs: how it has ended, and what else it had said.
    fn end(self) -> (Result<(), natter_bridge::Error>, Vec<Down>) {
        if self.orders.send(Order::Stop).is_ok() {
            let _ = self.up.send((None, Up::Ring.encode()));
        }
        (self.thread.join().unwrap(), self.down.try_iter().collect())
    }

    fn stop(self) -> Result<(), natter_bridge::Error> {
        self.end().0
    }

    /// Both connections are closed with "not now", and nothing else is said.
    fn expect_not_now(&self, of: [ConnectionId; 2]) {
        let mut closed: Vec<_> = of
            .iter()
            .map(|_| match self.next() {
                Down::Close { connection, reason } if reason == NotNow::Unavailable.mqtt_reason() => connection.n,
                other => panic!("expected \"not now\", got {other:?}"),
            })
            .collect();
        closed.sort_unstable();
        assert_eq!(closed, of.map(|connection| connection.n));
    }
}

/// What may be there when the power goes at the end of a log.
fn after_power_cut(log: &[Op], seed: u64) -> tempfile::TempDir {
    let mut disk = Disk::new(seed);
    log.iter().for_each(|op| disk.apply(op));
    let place = directory();
    for (name, content) in disk.after_power_cut(&mut Random(seed)) {
        std::fs::write(place.path().join(&*name), content).unwrap();
    }
    place
}

#[test]
fn a_sync_that_fails_ends_the_loop_and_what_it_was_for_is_not_acknowledged() {
    let home = directory();
    let watch = Watch::directory(home.path());
    let path = home.path().join("natter.db");
    let running = Running::start(&path);
    let (bob, alice) = (running.connect("bob", 1), running.connect("alice", 2));
    running.publish("alice", alice, "m1");
    running.expect_accepted(1);
    watch.faults(|faults| faults.sync = Some((0, WAL)));
    running.publish("alice", alice, "m2");
    running.expect_not_now([bob, alice]);
    let (error, said) = running.end();
    let error = error.expect_err("the loop has ended by itself").to_string();
    assert!(error.contains("expected the disk to confirm") && error.contains("start again"), "{error}");
    assert_eq!(said, [], "nothing was said after it");
    assert_eq!(watch.faults_met(), 1, "and no sync was tried again");
    let log = watch.log();
    drop(watch);

    // A power cut follows: what the failed sync was for is there or is not, and what was acknowledged before is.
    let mut with_m2 = 0;
    for seed in 0..100 {
        let place = after_power_cut(&log, seed);
        let running = Running::start(&place.path().join("natter.db"));
        let alice = running.connect("alice", 1);
        running.publish("alice", alice, "m1");
        running.expect_accepted(1);
        running.publish("alice", alice, "m3");
        let frame = running.next();
        let Down::Answer { answer: Answer::Message { n, .. }, .. } = frame else { panic!("{frame:?}") };
        with_m2 += n - 2;
        running.stop().unwrap();
    }
    assert!((1..100).contains(&with_m2), "{with_m2} of 100");
}

#[test]
fn a_sync_that_fails_under_a_settlement_ends_the_loop_too() {
    let home = directory();
    let watch = Watch::directory(home.path());
    let running = Running::start(&home.path().join("natter.db"));
    running.connect("bob", 1);
    watch.faults(|faults| faults.sync = Some((0, WAL)));
    // Nothing more happens, but that the journal settles.
    assert_eq!(running.down.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected), "the loop ends by itself");
    let error = running.stop().expect_err("it has ended with an error").to_string();
    assert!(error.contains("(SQLite's code 1034)"), "{error}");
    assert_eq!(watch.faults_met(), 1);
}

#[test]
fn a_disk_that_is_full_stops_nothing_for_longer_than_it_is_full() {
    for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE] {
        let home = directory();
        let watch = Watch::directory(home.path());
        let path = home.path().join("natter.db");
        let running = Running::start(&path);
        let (bob, alice) = (running.connect("bob", 1), running.connect("alice", 2));
        running.publish("alice", alice, "m1");
        running.expect_accepted(1);
        watch.faults(|faults| faults.write = Some((code, WAL)));
        running.publish("alice", alice, "m2");
        running.expect_not_now([bob, alice]);
        watch.faults(|faults| faults.write = None);
        let alice = running.connect("alice", 3);
        running.publish("alice", alice, "m2");
        running.expect_accepted(2);
        running.publish("alice", alice, "m1");
        running.expect_accepted(1);
        running.stop().unwrap();
        assert!(watch.faults_met() > 0);
    }
}

#[test]
fn a_database_that_somebody_else_locks_stops_nothing_for_longer_than_it_is_locked() {
    let home = directory();
    let path = home.path().join("natter.db");
    let running = Running::start(&path);
    let (bob, alice) = (running.connect("bob", 1), running.connect("alice", 2));
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // SQLite waits for five seconds before it says that the database is busy.
    running.publish("alice", alice, "m1");
    running.expect_not_now([bob, alice]);
    other.execute_batch("ROLLBACK").unwrap();
    let alice = running.connect("alice", 3);
    running.publish("alice", alice, "m1");
    running.expect_accepted(1);
    running.stop().unwrap();
}

/// Without a loop: what the engine says, and when.
struct Direct {
    engine: Engine<Sqlite>,
    last: u64,
}

impl Direct {
    fn start(path: &Path) -> Self {
        let (engine, _) = start(path);
        let mut direct = Self { engine, last: 0 };
        direct.up("bob", Up::Open(ConnectionId { boot: 1, n: 1 }, opening("bob")));
        direct.up("alice", Up::Open(ConnectionId { boot: 1, n: 2 }, opening("alice")));
        direct.commit().unwrap();
        direct
    }

    fn up(&mut self, name: &str, up: Up) {
        let now = Now { server_secs: 1, unix_secs: 1_764_000_000 };
        self.engine.handle(Event::Up(user(name), up), now).unwrap();
    }

    fn commit(&mut self) -> Result<Vec<Down>, CommitError> {
        self.engine.commit()?;
        let mut released = Released::default();
        self.engine.release(&mut Window::default(), &mut released)?;
        Ok(decode(released))
    }

    /// Publishes one message more and commits it.
    fn publish(&mut self) -> Result<Vec<Down>, CommitError> {
        self.last += 1;
        let payload = text(&format!("m{}", self.last), "bob", &"x".repeat(300));
        let packet = Packet { id: 1, qos: 1 };
        self.up("alice", publication("phone", ConnectionId { boot: 1, n: 2 }, packet, self.last, &payload));
        self.commit()
    }
}

#[test]
fn a_failed_sync_has_a_name_of_its_own_wherever_it_happens() {
    let home = directory();
    let watch = Watch::directory(home.path());
    let mut direct = Direct::start(&home.path().join("natter.db"));
    direct.publish().unwrap();
    watch.faults(|faults| faults.sync = Some((0, WAL)));
    let error = direct.engine.settle().expect_err("the settlement's commit is a sync");
    assert!(matches!(error, StoreError::NotSynced(_)), "{error:?}");
    watch.faults(|faults| faults.sync = Some((0, WAL)));
    let error = direct.publish().expect_err("so is a batch's");
    assert!(matches!(error, CommitError::Store(StoreError::NotSynced(_))), "{error:?}");
    watch.faults(|faults| faults.write = Some((ffi::SQLITE_FULL, WAL)));
    let error = direct.engine.settle().expect_err("the disk is full");
    assert!(matches!(error, StoreError::Database(_)), "{error:?}");
}

#[test]
fn a_copy_into_the_database_that_fails_is_made_again_and_loses_nothing() {
    let home = directory();
    let watch = Watch::directory(home.path());
    let path = home.path().join("natter.db");
    let mut direct = Direct::start(&path);
    let second = Connection::open(&path).unwrap();
    let copy = |works: bool| {
        let copied = second.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get::<_, i64>(0));
        assert_eq!(copied.is_ok(), works, "{copied:?}");
    };
    // The write of a page, then the sync after all of them: in both cases what was written of it is lost.
    for fault in 0..2 {
        for _ in 0..20 {
            direct.publish().unwrap();
        }
        direct.engine.settle().unwrap();
        watch.faults(|faults| match fault {
            0 => faults.write = Some((ffi::SQLITE_FULL, DATABASE)),
            _ => faults.sync = Some((0, DATABASE)),
        });
        copy(false);
        direct.publish().unwrap();
        watch.faults(|faults| faults.write = None);
        copy(true);
        // Begins the write-ahead log anew: from now on only the database has what was before.
        direct.publish().unwrap();
    }
    assert!(watch.faults_met() >= 2);
    let (log, last) = (watch.log(), direct.last);
    for seed in 0..50 {
        let place = after_power_cut(&log, seed);
        let (engine, _) = start(&place.path().join("natter.db"));
        let mut state = natter_bridge::state::State::recover(engine.into_store(), 0).unwrap();
        let rows = state.page(&user("bob"), 0, 1000).unwrap();
        assert_eq!(rows.len() as u64, last, "every message is in the inbox");
    }
}
