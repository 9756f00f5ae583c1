//! 1,000 messages each way while both sides drop their connections at random: none lost, none twice, in order.
#![expect(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test ends that way")]

mod common;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use common::{Device, Packet, Random, TestServer, parse};
use serde_json::{Value, json};

const MESSAGES: usize = 1000;
/// Publishes without a PUBACK.
const WINDOW: usize = 20;

/// What one side saw.
struct Ledger {
    /// `n` of each own message, in the order they were sent.
    acknowledged: Vec<u64>,
    /// `n` and body of each message of the other side.
    received: Vec<(u64, String)>,
    /// How far `delivered` got.
    delivered: u64,
    reconnects: usize,
    repeats: usize,
}

/// One side: sends its messages, takes the other's, drops its connection now and then.
fn side(server: &TestServer, user: &str, other: &str, seed: u64, done: &AtomicUsize, finished: &AtomicBool) -> Ledger {
    let mut device = Device::v5(server, user, "phone");
    let mut random = Random(seed);
    let mut ledger = Ledger { acknowledged: Vec::new(), received: Vec::new(), delivered: 0, reconnects: 0, repeats: 0 };
    let mut unacknowledged: VecDeque<(u16, usize)> = VecDeque::new();
    let mut next = 0;
    let mut complete = false;

    let text =
        |i: usize| json!({"id": format!("{user}-{i}"), "to": other, "text": {"body": i.to_string()}}).to_string();
    loop {
        while next < MESSAGES && unacknowledged.len() < WINDOW {
            let id = device.raw.publish(&device.outbox(), &text(next));
            unacknowledged.push_back((id, next));
            next += 1;
        }
        if !complete
            && ledger.acknowledged.len() == MESSAGES
            && ledger.received.len() == MESSAGES
            && ledger.delivered > 0
        {
            complete = ledger.delivered >= ledger.acknowledged[MESSAGES - 1];
            if complete {
                done.fetch_add(1, Ordering::SeqCst);
            }
        }
        if complete && done.load(Ordering::SeqCst) == 2 {
            finished.store(true, Ordering::SeqCst);
            ledger.repeats = device.repeats;
            return ledger;
        }
        if !complete && random.below(60) == 0 {
            // In the middle of everything: half a packet, unread packets, unsent acknowledgements.
            let half = device.raw.publish_bytes(&device.outbox(), 0x02, 1, text(0).as_bytes());
            device.raw.send(&half[..usize::try_from(random.below(half.len() as u64)).expect("small")]);
            device.reconnect(server);
            ledger.reconnects += 1;
            for (packet_id, i) in &mut unacknowledged {
                *packet_id = device.raw.publish(&device.outbox(), &text(*i));
            }
        }
        if complete {
            // Nothing more comes; wait for the other side, but answer the server.
            device.raw.ping();
            thread::yield_now();
            continue;
        }
        match device.raw.next() {
            Some(Packet::PubAck { id, reason, properties }) => {
                assert_eq!(reason, 0, "{properties:?}");
                let (expected, i) = unacknowledged.pop_front().expect("a PUBLISH that waits");
                assert_eq!(id, expected, "PUBACKs come in order");
                assert_eq!(properties.get("id"), Some(format!("{user}-{i}").as_str()));
                ledger.acknowledged.push(properties.get("n").and_then(|n| n.parse().ok()).expect("n"));
            }
            Some(Packet::Publish { qos: 1, id, payload, .. }) => {
                let entry = parse(&payload);
                if device.takes(&entry) {
                    take(&mut ledger, &entry);
                } else {
                    device.repeats += 1;
                }
                device.raw.ack(id);
            }
            Some(_) => {}
            None => panic!("the server ended {user}'s connection"),
        }
    }
}

fn take(ledger: &mut Ledger, entry: &Value) {
    match (entry["type"].as_str(), entry["status"].as_str()) {
        (Some("text"), _) => {
            let body = entry["text"]["body"].as_str().expect("a body").to_owned();
            ledger.received.push((entry["n"].as_u64().expect("n"), body));
        }
        (Some("status"), Some("delivered")) => {
            let (after, n) = (entry["after"].as_u64().expect("after"), entry["n"].as_u64().expect("n"));
            assert!(after >= ledger.delivered && n > after, "receipts rise and do not overlap: {entry}");
            ledger.delivered = n;
        }
        _ => panic!("an entry that nobody asked for: {entry}"),
    }
}

fn both_ways(seed: u64) {
    let server = Arc::new(TestServer::with_users(&["alice", "bob"]));
    let (done, finished) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let sides: Vec<_> = [("alice", "bob", seed), ("bob", "alice", seed ^ 0xffff)]
        .into_iter()
        .map(|(user, other, seed)| {
            let (server, done, finished) = (server.clone(), done.clone(), finished.clone());
            thread::spawn(move || side(&server, user, other, seed, &done, &finished))
        })
        .collect();
    let ledgers: Vec<Ledger> = sides.into_iter().map(|side| side.join().expect("a side that ends well")).collect();

    let bodies: Vec<String> = (0..MESSAGES).map(|i| i.to_string()).collect();
    for (mine, theirs) in [(&ledgers[0], &ledgers[1]), (&ledgers[1], &ledgers[0])] {
        let received: Vec<_> = theirs.received.iter().map(|(_, body)| body.clone()).collect();
        assert_eq!(received, bodies, "each once, in the order they were sent");
        let numbers: Vec<_> = theirs.received.iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, mine.acknowledged, "the n of the PUBACK is the n that the other side sees");
        assert!(numbers.is_sorted_by(|a, b| a < b), "n rises");
    }
    let mut all: Vec<u64> = ledgers.iter().flat_map(|ledger| ledger.acknowledged.clone()).collect();
    all.sort_unstable();
    assert_eq!(all, (1..=2 * MESSAGES as u64).collect::<Vec<_>>(), "n is dense over both sides");
    let (reconnects, repeats) = ledgers.iter().fold((0, 0), |(a, b), l| (a + l.reconnects, b + l.repeats));
    println!("seed {seed}: {reconnects} reconnects, {repeats} entries came again");
    assert!(reconnects > 10, "the test did what it is for");
}

#[test]
fn a_thousand_messages_each_way_are_received_once_in_order() {
    both_ways(1);
}

#[test]
fn and_again_with_other_chances() {
    // Another seed each time somebody asks for it.
    let seed = std::env::var("NATTER_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    both_ways(seed.unwrap_or(20_251_124));
}
