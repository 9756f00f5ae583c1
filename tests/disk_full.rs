//! A full disk: what is not on disk is not acknowledged, what is there can be read, and room is all it takes to go on.
//!
//! The server's files may not grow beyond a size (`RLIMIT_FSIZE`): SQLite's writes end with EFBIG as they would with ENOSPC.
#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test ends where its world does not hold")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Connect, Device, Packet, TestServer, assert_receipt, patience};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

/// Room in which the WAL is full before it is ever moved into the database.
const LITTLE_ROOM_BYTES: u64 = 400 * 1024;
/// Room in which the database is full too: the WAL is moved into it at 4 MiB, until there is no room for that either.
const MORE_ROOM_BYTES: u64 = 6 * 1024 * 1024;
/// Messages this long fill it soon.
const BODY_BYTES: usize = 20_000;

struct World {
    server: TestServer,
    alice: Connect,
    /// Messages that were acknowledged, with their `n`.
    acknowledged: Vec<(String, u64)>,
}

fn limit_files(server: &TestServer, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(server.pid()).expect("a pid")).expect("a pid");
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes, maximum: None }).expect("prlimit");
}

fn ready(server: &TestServer) -> (bool, String) {
    let mut stream = TcpStream::connect(server.admin()).expect("the admin listener");
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    (answer.starts_with("HTTP/1.1 200"), answer)
}

fn wait_until_ready(server: &TestServer) {
    let deadline = Instant::now() + patience();
    while !ready(server).0 {
        assert!(Instant::now() < deadline, "{}", ready(server).1);
        sleep(Duration::from_millis(20));
    }
}

fn text(id: &str) -> String {
    json!({"id": id, "to": "bob", "type": "text", "text": {"body": id.repeat(BODY_BYTES / id.len())}}).to_string()
}

impl World {
    /// Alice and bob have talked, and then alice sends until `room` more bytes a file are full.
    fn full(room: u64) -> Self {
        let server = TestServer::with_users(&["alice", "bob"]);
        let mut alice = Device::v5(&server, "alice", "phone");
        let mut bob = Device::v5(&server, "bob", "phone");
        alice.send("bob", "before", "hi");
        bob.entry();
        alice.entry_without_ack();
        let alice = alice.connect;
        drop(bob);

        let wal = std::fs::metadata(server.data().join("natter.db-wal")).expect("a WAL").len();
        let database = std::fs::metadata(server.data().join("natter.db")).expect("a database").len();
        limit_files(&server, Some(wal.max(database) + room));
        let mut acknowledged = vec![("before".to_owned(), 1)];
        let (mut raw, _) = alice.open(server.mqtt());
        for i in 0.. {
            assert!(i < 3000, "the disk is never full");
            let id = format!("m{i:04}");
            let packet_id = raw.publish("users/alice/phone/outbox", &text(&id));
            match raw.next().expect("an answer") {
                Packet::PubAck { id: of, reason, properties } => {
                    assert_eq!((of, reason), (packet_id, 0), "{properties:?}");
                    acknowledged.push((id, properties.get("n").and_then(|n| n.parse().ok()).expect("n")));
                }
                Packet::Disconnect { reason, .. } => {
                    assert!(reason == 0x89 || reason == 0x97, "\"not now\", got 0x{reason:02x}");
                    assert_eq!(raw.next(), None, "and nothing behind it");
                    break;
                }
                other => panic!("expected a PUBACK or the end, got {other:?}"),
            }
        }
        assert!(acknowledged.len() > 2, "some found room: {}", acknowledged.len());
        Self { server, alice, acknowledged }
    }

    fn first_lost(&self) -> String {
        format!("m{:04}", self.acknowledged.len() - 1)
    }

    /// Publishes over a connection of its own; `None`: not now.
    fn send(&self, id: &str) -> Option<u64> {
        let (mut raw, _) = self.alice.open(self.server.mqtt());
        raw.publish("users/alice/phone/outbox", &text(id));
        match raw.next() {
            Some(Packet::PubAck { reason: 0, properties, .. }) => properties.get("n").and_then(|n| n.parse().ok()),
            Some(Packet::Disconnect { reason: 0x89 | 0x97, .. }) => None,
            other => panic!("expected a PUBACK or \"not now\", got {other:?}"),
        }
    }

    /// Bob reads what is there, each once and in order, and acknowledges it.
    fn bob_gets_everything(&self, ids: &[&str]) {
        let mut bob = Device::v5(&self.server, "bob", "phone");
        for (id, n) in self.acknowledged.iter().skip(1) {
            assert_entry(&bob.entry(), id, *n);
        }
        for (id, n) in ids.iter().zip(self.acknowledged.len() as u64 + 1..) {
            assert_entry(&bob.entry(), id, n);
        }
        assert_eq!(self.send("last"), Some(self.acknowledged.len() as u64 + ids.len() as u64 + 1));
        assert_eq!(bob.entry()["id"], "last", "nothing was doubled");
    }
}

#[track_caller]
fn assert_entry(entry: &Value, id: &str, n: u64) {
    assert_eq!((&entry["id"], entry["n"].as_u64()), (&json!(id), Some(n)));
    assert_eq!(entry["text"]["body"], id.repeat(BODY_BYTES / id.len()));
}

#[test]
fn with_a_full_disk_nothing_more_is_acknowledged_and_room_is_enough_to_go_on() {
    let world = World::full(LITTLE_ROOM_BYTES);
    let (is_ready, answer) = ready(&world.server);
    assert!(!is_ready && answer.contains("503"), "{answer}");
    assert_eq!(world.send(&world.first_lost()), None, "still no room");

    // What needs no commit works: connecting, subscribing, and reading what is stored, receipts too.
    let mut bob = Device::v5(&world.server, "bob", "phone");
    for (id, n) in world.acknowledged.iter().skip(1) {
        assert_entry(&bob.entry_without_ack().1, id, *n);
    }
    let mut alice = Device::v5(&world.server, "alice", "phone");
    assert_receipt(&alice.entry_without_ack().1, "delivered", "bob", 0, 1);
    assert_eq!(world.send(&world.acknowledged[1].0), Some(2), "a repeat is answered again: it is on disk");
    drop((alice, bob));

    // Nobody is sent to a server that is not ready: it must find out by itself.
    limit_files(&world.server, None);
    wait_until_ready(&world.server);
    let n = world.acknowledged.len() as u64 + 1;
    assert_eq!(world.send(&world.first_lost()), Some(n), "the resend is the first that is taken");
    assert_eq!(world.send(&world.first_lost()), Some(n), "and another is a repeat");
    world.bob_gets_everything(&[&world.first_lost()]);
}

#[test]
fn a_server_killed_while_the_disk_is_full_has_everything_that_it_acknowledged() {
    let mut world = World::full(LITTLE_ROOM_BYTES);
    world.server.kill9();
    world.server.restart();
    wait_until_ready(&world.server);
    assert_eq!(world.send(&world.first_lost()), Some(world.acknowledged.len() as u64 + 1));
    world.bob_gets_everything(&[&world.first_lost()]);
}

#[test]
fn a_disk_that_is_full_for_the_database_too_loses_and_doubles_nothing() {
    let world = World::full(MORE_ROOM_BYTES);
    let written = std::fs::metadata(world.server.data().join("natter.db")).expect("a database").len();
    assert!(written > MORE_ROOM_BYTES / 2, "the WAL was moved into the database before: {written} bytes");
    assert!(!ready(&world.server).0);
    limit_files(&world.server, None);
    wait_until_ready(&world.server);
    assert_eq!(world.send(&world.first_lost()), Some(world.acknowledged.len() as u64 + 1));
    world.bob_gets_everything(&[&world.first_lost()]);
}
