//! The histograms of a message's stages at `/metrics`, over real sockets: each message and each entry is in them once, and a reader that
//! takes its time is seen in its own stage only.

#![allow(clippy::expect_used, clippy::panic, reason = "a test ends with the first thing that is wrong")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::{Device, TestServer, patience};

/// How long the reader of one entry keeps its PUBACK back.
const SLOW: Duration = Duration::from_millis(400);

struct Stage {
    count: f64,
    sum_secs: f64,
    /// How many took at most 131 ms, as the buckets say.
    quick: f64,
}

fn stage(admin: SocketAddr, name: &str) -> Stage {
    let mut stream = TcpStream::connect(admin).expect("the admin listener");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: natter\r\nconnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let figure = |name: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|line| line.parse::<f64>().ok()).unwrap_or_else(|| panic!("{name} is not in {answer}"))
    };
    let labels = format!("stage=\"{name}\"");
    let count = figure(&format!("natter_stage_seconds_count{{{labels}}}"));
    let last = answer.lines().find(|line| line.contains("le=\"+Inf\"") && line.contains(&labels));
    assert!(last.is_some_and(|line| line.ends_with(&format!(" {count}"))), "{last:?} is not {count}");
    Stage {
        count,
        sum_secs: figure(&format!("natter_stage_seconds_sum{{{labels}}}")),
        quick: figure(&format!("natter_stage_seconds_bucket{{le=\"0.131072\",{labels}}}")),
    }
}

#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + patience();
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn every_message_is_in_each_stage_once_and_a_slow_reader_in_the_last() {
    let server = TestServer::with_users(&["alice", "bob", "carol"]);
    let admin = server.admin();
    let started = Instant::now();
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut bob = Device::v5(&server, "bob", "phone");
    alice.send("bob", "m1", "at once");
    bob.entry();
    alice.entry();
    alice.send("bob", "m2", "late");
    let (packet_id, _) = bob.entry_without_ack();
    let out_at = Instant::now();
    let mut sent = 2.0;
    while out_at.elapsed() < SLOW {
        alice.send("carol", &format!("c{sent}"), "meanwhile");
        sent += 1.0;
    }
    bob.raw.ack(packet_id);
    alice.entry();
    eventually("all four acknowledgements are counted", || stage(admin, "acked").count == 4.0);
    let [committed, out, acked] = ["committed", "out", "acked"].map(|name| stage(admin, name));
    assert_eq!([committed.count, out.count], [sent, 4.0], "what alice sent; two messages and two receipts");
    let elapsed = started.elapsed().as_secs_f64();
    for stage in [&committed, &out] {
        assert!(stage.sum_secs > 0.0 && stage.sum_secs < elapsed * stage.count, "{}", stage.sum_secs);
    }
    // m2 alone: what was acknowledged at once did not take as long as the slow one waited, all together.
    assert!((SLOW.as_secs_f64()..elapsed).contains(&acked.sum_secs), "{}", acked.sum_secs);
    assert!(acked.quick <= 3.0, "{}", acked.quick);
}
