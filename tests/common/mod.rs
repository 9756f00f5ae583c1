//! What the end-to-end tests share: the real server as a child process, and clients of several makes.
//!
//! Nothing here sleeps to wait for something: every wait is for an event, with a deadline of `NATTER_TEST_PATIENCE` seconds (20).
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "every test uses its part, and ends with the first thing that is wrong"
)]

pub mod codec;
pub mod device;
pub mod http;
pub mod interop;
pub mod mosquitto;
pub mod port;
pub mod raw;
pub mod rumqtt;
pub mod server;
pub mod tls;
pub mod websocket;

pub use codec::Packet;
pub use device::Device;
pub use http::{Answer, Client};
pub use raw::{Connect, Raw, Stream, dial};
pub use server::TestServer;

use std::time::Duration;

use serde_json::Value;

/// How long a test waits for something before it says that it does not come.
pub fn patience() -> Duration {
    let seconds = std::env::var("NATTER_TEST_PATIENCE").ok().and_then(|s| s.parse().ok()).unwrap_or(20);
    Duration::from_secs(seconds)
}

/// An inbox entry or another JSON text.
pub fn parse(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(payload)))
}

/// Whether `entry` is the text message `body`.
#[track_caller]
pub fn assert_text(entry: &Value, from: &str, body: &str) {
    assert_eq!((&entry["from"], &entry["text"]["body"]), (&Value::from(from), &Value::from(body)), "{entry}");
}

/// Whether `entry` is the receipt `status` for `after < n <= upto` of `chat`.
#[track_caller]
pub fn assert_receipt(entry: &Value, status: &str, chat: &str, after: u64, upto: u64) {
    let got = (&entry["type"], &entry["status"], &entry["chat"], entry["after"].as_u64(), entry["n"].as_u64());
    let expected = (&Value::from("status"), &Value::from(status), &Value::from(chat), Some(after), Some(upto));
    assert_eq!(got, expected, "{entry}");
}

/// A generator of numbers that repeats with its seed.
pub struct Random(pub u64);

impl Random {
    /// From 0 to `below - 1`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}
