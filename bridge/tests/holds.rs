//! How long one piece of background work holds the loop. A measurement, not a test of speed: it prints, and fails only where a slice
//! is not a slice.
//!
//! `cargo test --release -p natter-bridge --test holds -- --ignored --nocapture`

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends where its world does not hold, and this one says what it saw"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use natter_bridge::engine::{Engine, Event, Now, Released, Request};
use natter_bridge::store::sqlite::Sqlite;
use natter_bridge::{Limits, stats::Counters};
use natter_protocol::link::{Dialect, Mode, Opening, Packet, Publication, Up, Window};
use natter_protocol::{ConnectionId, DeviceId, UserId};

const USERS: u64 = 1000;
const MESSAGES: u64 = 200_000;
/// Events of a batch.
const BATCH: u64 = 256;

struct Server {
    engine: Engine<Sqlite>,
    now: Now,
}

fn user(n: u64) -> UserId {
    UserId::parse(&format!("u{n}")).unwrap()
}

fn connection(n: u64) -> ConnectionId {
    ConnectionId { boot: 1, n }
}

impl Server {
    fn handle(&mut self, event: Event) {
        self.engine.handle(event, self.now).unwrap();
    }

    fn up(&mut self, name: u64, up: Up) {
        self.handle(Event::Up(user(name), up));
    }

    fn publish(&mut self, from: u64, packet_id: u64, payload: String) {
        let packet = Packet { id: u16::try_from(packet_id % 60_000 + 1).unwrap(), qos: 1 };
        let device = DeviceId::parse("phone").unwrap();
        let payload = Bytes::from(payload);
        self.up(
            from,
            Up::Publish(Publication { connection: connection(from), packet, device, stamp: 0, will: false, payload }),
        );
    }

    fn commit(&mut self) {
        self.engine.commit().unwrap();
        self.engine.release(&mut Window::default(), &mut Released::default()).unwrap();
    }

    fn connect(&mut self, n: u64) {
        let opening = Opening {
            client_id: "c".into(),
            clean_start: true,
            expiry_secs: 0,
            dialect: Dialect::Full,
            receive_maximum: 100,
            packet_bytes_max: u32::MAX,
            device: None,
            issued_at: 0,
        };
        self.up(n, Up::Open(connection(n), opening));
    }

    /// Settles to the end; how long each slice took.
    fn settle(&mut self) -> Vec<Duration> {
        let mut times = Vec::new();
        loop {
            let start = Instant::now();
            if !self.engine.settle().unwrap() {
                return times;
            }
            times.push(start.elapsed());
        }
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len() - 1)).copied().unwrap_or_default();
    eprintln!("{what}: {} times, p50 {:.2?}, p99 {:.2?}, max {:.2?}", times.len(), at(50), at(99), at(100));
}

#[test]
#[ignore = "a measurement"]
fn how_long_the_loop_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&dir.path().join("natter.db")).unwrap();
    let engine = Engine::recover(store, Limits::default(), Arc::new(Counters::default())).unwrap();
    let mut server = Server { engine, now: Now { server_secs: 1, unix_secs: 1_764_000_000 } };
    for n in 0..USERS {
        server.handle(Event::Request(n, Request::AddUser(user(n))));
    }
    server.commit();
    (1..=50).for_each(|n| server.connect(n));
    server.commit();
    report("settling users", server.settle());

    let (mut batches, mut slices) = (Vec::new(), Vec::new());
    let mut sent = 0;
    while sent < MESSAGES {
        let start = Instant::now();
        for _ in 0..BATCH {
            sent += 1;
            // Half of it for one user, so that there is an inbox with much in it.
            let to = if sent % 2 == 0 { 0 } else { 100 + sent % 900 };
            let body = "x".repeat(100);
            server.publish(
                1 + sent % 50,
                sent,
                format!(r#"{{"id":"m{sent}","to":"u{to}","type":"text","text":{{"body":"{body}"}}}}"#),
            );
        }
        server.commit();
        batches.push(start.elapsed());
        let start = Instant::now();
        server.engine.settle().unwrap();
        slices.push(start.elapsed());
    }
    slices.extend(server.settle());
    report(&format!("batches of {BATCH} messages to users who are away"), batches);
    report("settling them", slices);

    server.connect(0);
    server.up(
        0,
        Up::Attach {
            connection: connection(0),
            request: 1,
            device: DeviceId::parse("phone").unwrap(),
            mode: Mode::Device,
        },
    );
    server.commit();
    let mut pages = Vec::new();
    let start = Instant::now();
    server.publish(0, 1, format!(r#"{{"ack":{}}}"#, MESSAGES / 2));
    server.commit();
    pages.push(start.elapsed());
    while server.engine.is_unfinished() {
        let start = Instant::now();
        server.engine.go_on(server.now).unwrap();
        server.commit();
        pages.push(start.elapsed());
    }
    assert!(pages.len() as u64 >= MESSAGES / 2 / 500, "in pages");
    report("an acknowledgement of 100,000 entries, a page a batch", pages);
    report("purging them", server.settle());

    server.now.server_secs += 31 * 24 * 3600;
    let mut steps = Vec::new();
    loop {
        let start = Instant::now();
        let more = server.engine.sweep(server.now).unwrap();
        server.commit();
        steps.push(start.elapsed());
        if !more && steps.len() > 100 {
            break;
        }
    }
    report("a sweep when all the rest expires", steps);
    report("settling that", server.settle());
}
