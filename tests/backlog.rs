//! A user who was away for long: what waits drains in order, to a device that is slow at first, and the server's memory stays flat.
//!
//! `NATTER_BACKLOG` says how many entries wait.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends that way, and says what it measured"
)]

mod common;

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use common::codec::RECEIVE_MAXIMUM;
use common::{Connect, Device, Packet, Raw, TestServer};
use serde_json::{Value, json};

/// Entries that wait, unless the environment says otherwise.
const ENTRIES: u64 = 16_000;
/// The waiting entries together are larger than what memory may grow by.
const BODY_BYTES: usize = 2_000;
/// Connections that send, and PUBLISHes of each that are not answered yet, unless the server takes fewer.
const SENDERS: u64 = 4;
const IN_FLIGHT_MAX: usize = 200;
/// What the device takes at a time.
const BOB_TAKES: u16 = 20;
/// The first entries are acknowledged one by one with a rest before each, as a phone does that writes each to its flash.
const SLOW_ENTRIES: u64 = 1_500;
const REST: Duration = Duration::from_millis(2);
/// What the server's memory may grow by during the drain.
const GROWTH_MAX_KIB: u64 = 32 * 1024;
/// How often memory is looked at, in entries.
const LOOK_EVERY: u64 = 250;

#[test]
fn what_waits_drains_in_order_to_a_slow_device_and_memory_stays_flat() {
    let entries = std::env::var("NATTER_BACKLOG").ok().and_then(|text| text.parse().ok()).unwrap_or(ENTRIES);
    let senders: Vec<_> = (0..SENDERS).map(|i| format!("sender{i}")).collect();
    let names: Vec<_> = senders.iter().map(String::as_str).chain(["bob"]).collect();
    let server = TestServer::with_users(&names);
    // Bob has a device, which goes before anything comes.
    let mut bob = Device::v5(&server, "bob", "phone");
    bob.connect.receive_maximum = Some(BOB_TAKES);
    let away = Connect::v5("bob", "away", &server.token("bob")).open(server.mqtt()).0;
    std::mem::replace(&mut bob.raw, away).disconnect();

    let empty = rss_kib(&server);
    let start = Instant::now();
    let each = entries / SENDERS;
    thread::scope(|scope| {
        for name in &senders {
            let server = &server;
            scope.spawn(move || fill(server, name, each));
        }
    });
    let waiting = each * SENDERS;
    println!("filled {waiting} in {:?}: {:.0}/s", start.elapsed(), rate(waiting, start));

    let before = rss_kib(&server);
    let mut peak = before;
    let start = Instant::now();
    bob.reconnect(&server);
    let mut next = vec![1; senders.len()];
    let mut slow_until = start.elapsed();
    for taken in 1..=waiting {
        let (packet_id, entry) = bob.entry_without_ack();
        assert_eq!(entry["prev"].as_u64(), Some(taken - 1), "no gap, and nothing between: {entry}");
        assert_eq!(entry["seq"].as_u64(), Some(taken), "{entry}");
        let sender = senders.iter().position(|name| entry["from"] == **name).unwrap_or_else(|| panic!("{entry}"));
        assert_eq!((entry["n"].as_u64(), &entry["id"]), (Some(next[sender]), &id(next[sender])), "in order: {entry}");
        next[sender] += 1;
        if taken <= SLOW_ENTRIES {
            // The device's own slowness, which is what is tested; nothing is waited for.
            thread::sleep(REST);
            slow_until = start.elapsed();
        }
        bob.raw.ack(packet_id);
        if taken % LOOK_EVERY == 0 {
            peak = peak.max(rss_kib(&server));
        }
    }
    assert_eq!(bob.repeats, 0);
    bob.raw.ping();
    assert_eq!(bob.raw.queued().count(), 0, "nothing more comes");
    let fast = waiting.saturating_sub(SLOW_ENTRIES) as f64 / (start.elapsed() - slow_until).as_secs_f64();
    println!(
        "drained {waiting} in {:?}, at the end {fast:.0}/s; VmRSS {empty} KiB empty, {before} before, {peak} at most",
        start.elapsed()
    );
    assert!(
        peak <= before + GROWTH_MAX_KIB,
        "expected memory to grow by at most {GROWTH_MAX_KIB} KiB while {waiting} entries drain, got {before} KiB before and {peak} KiB"
    );
}

fn id(n: u64) -> Value {
    Value::from(format!("m{n}"))
}

/// Sends `count` texts to bob, many at a time; every PUBACK says yes, in order.
fn fill(server: &TestServer, name: &str, count: u64) {
    let (mut raw, _, code, properties) = Connect::v5(name, name, &server.token(name)).try_open(server.mqtt());
    assert_eq!(code, 0, "{properties:?}");
    let in_flight = properties.number(RECEIVE_MAXIMUM).map_or(65_535, |n| n as usize).min(IN_FLIGHT_MAX);
    let outbox = format!("users/{name}/d/outbox");
    let mut waiting = VecDeque::new();
    for n in 1..=count {
        if waiting.len() == in_flight {
            answered(&mut raw, &mut waiting);
        }
        let text = json!({"id": id(n), "to": "bob", "type": "text", "text": {"body": "x".repeat(BODY_BYTES)}});
        waiting.push_back(raw.publish(&outbox, &text.to_string()));
    }
    while !waiting.is_empty() {
        answered(&mut raw, &mut waiting);
    }
}

#[track_caller]
fn answered(raw: &mut Raw, waiting: &mut VecDeque<u16>) {
    match raw.next() {
        Some(Packet::PubAck { id, reason: 0, .. }) => assert_eq!(Some(id), waiting.pop_front()),
        other => panic!("expected a PUBACK, got {other:?}"),
    }
}

fn rate(count: u64, start: Instant) -> f64 {
    count as f64 / start.elapsed().as_secs_f64()
}

/// What the server holds of the machine's memory.
fn rss_kib(server: &TestServer) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("KiB")
}
