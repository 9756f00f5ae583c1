//! One scenario, played by MQTT libraries that others wrote, in both versions, over every transport, with and without a kept session:
//! the same outcome each time.
//!
//! Alice sends twenty messages to bob. Her connection breaks while three of them are on their way, his while he takes one of them; both
//! libraries connect again. Without a session they subscribe again; with one they do not, and get what is still due all the same.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]
#![expect(clippy::print_stderr, reason = "it says what it leaves out and what it saw")]

mod common;
#[path = "interop/inbox.rs"]
mod inbox;
#[path = "interop/mosquitto.rs"]
mod mosquitto;
#[path = "interop/rumqtt.rs"]
mod rumqtt;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use common::TestServer;
use common::interop::installed;
use common::tls::Certificate;
use serde_json::{Value, json};

/// What alice sends.
const MESSAGES: u64 = 20;
/// Bob's connection breaks while he takes this one.
const BOB_BREAKS_AT: u64 = 7;
/// Alice's connection breaks when so many are acknowledged and three more are sent.
const ALICE_BREAKS_AT: u64 = 10;

const TRANSPORTS: [&str; 4] = ["tcp", "tls", "ws", "wss"];

/// What every library sees.
fn expected(kept: bool) -> Value {
    let session_present = json!([false, kept]);
    let granted = if kept { json!([1]) } else { json!([1, 1]) };
    let received: Vec<Value> = (0..MESSAGES).map(|i| json!([i + 1, format!("m{i}")])).collect();
    json!({
        "alice": {"session_present": session_present, "granted": granted, "acknowledged": MESSAGES, "unexpected": []},
        "bob": {"session_present": session_present, "granted": granted, "acknowledged": 1, "unexpected": [], "received": received},
        "ticks": ["delivered", "read"],
        "delivered": MESSAGES,
        "read": MESSAGES,
    })
}

/// A pair of users for each way to connect.
struct Case {
    name: String,
    version: u8,
    transport: &'static str,
    kept: bool,
    alice: User,
    bob: User,
}

struct User {
    name: String,
    token: String,
}

impl Case {
    fn new(server: &TestServer, version: u8, transport: &'static str, kept: bool) -> Self {
        let name = format!("{version}-{transport}-{}", if kept { "kept" } else { "clean" });
        let user = |who: &str| {
            let name = format!("{who}-{name}");
            server.add_user(&name);
            User { token: server.token(&name), name }
        };
        Self { alice: user("alice"), bob: user("bob"), name, version, transport, kept }
    }

    fn to_json(&self) -> Value {
        let user = |user: &User| json!({"user": user.name, "token": user.token});
        json!({"name": self.name, "version": self.version, "transport": self.transport, "kept": self.kept,
            "alice": user(&self.alice), "bob": user(&self.bob)})
    }
}

fn cases(server: &TestServer, transports: &[&'static str]) -> Vec<Case> {
    let mut cases = Vec::new();
    for version in [4, 5] {
        for transport in transports {
            for kept in [false, true] {
                cases.push(Case::new(server, version, transport, kept));
            }
        }
    }
    cases
}

fn server(certificate: &Certificate) -> TestServer {
    TestServer::start_with(&certificate.config())
}

fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(file)
}

/// Plays every case with the library that `command` runs.
fn play(mut command: Command) {
    let certificate = Certificate::make();
    let server = server(&certificate);
    let cases = cases(&server, &TRANSPORTS);
    let ports = json!({"tcp": server.mqtt().port(), "tls": server.mqtts().port(), "ws": server.http().port(), "wss": server.https().port()});
    let world = json!({"host": "127.0.0.1", "ports": ports, "ca": certificate.file("ca.pem"),
        "cases": cases.iter().map(Case::to_json).collect::<Vec<_>>()});
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the client's program");
    child.stdin.take().expect("stdin").write_all(world.to_string().as_bytes()).expect("the cases");

    let (mut left, mut repeats, mut failures) = (cases.iter().collect::<Vec<_>>(), 0, Vec::new());
    for line in BufReader::new(child.stdout.take().expect("stdout")).lines() {
        let line: Value = serde_json::from_str(&line.expect("a line")).expect("a line of JSON");
        let at = left.iter().position(|case| line["case"] == case.name).expect("a case that has not ended before");
        let case = left.swap_remove(at);
        repeats += line["repeats"].as_u64().expect("repeats");
        let expected = expected(case.kept);
        if line["outcome"] != expected {
            failures.push(format!("{}:\n  expected {expected}\n  got      {}", case.name, line["outcome"]));
        }
    }
    assert!(child.wait().expect("its end").success());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(left.is_empty(), "no word of {:?}", left.iter().map(|case| &case.name).collect::<Vec<_>>());
    eprintln!("{} cases, {repeats} entries came again and were dropped by their seq", cases.len());
}

fn python(library: &str) {
    if let Some(python) = installed("venv/bin/python") {
        let mut command = Command::new(python);
        command.arg(source("client.py")).arg(library);
        play(command);
    }
}

#[test]
fn paho_in_every_way() {
    python("paho");
}

#[test]
fn aiomqtt_in_every_way() {
    python("aiomqtt");
}

#[test]
fn mqtt_js_in_every_way() {
    if let Some(modules) = installed("js/node_modules") {
        let mut command = Command::new("node");
        command.arg(source("client.mjs")).arg(modules.parent().expect("a directory"));
        play(command);
    }
}

/// Plays every case, at once, with a client that runs here.
fn play_here(transports: &[&'static str], scenario: impl Fn(&Case, &TestServer, &Certificate) -> Value + Sync) {
    let certificate = Certificate::make();
    let server = server(&certificate);
    let cases = cases(&server, transports);
    thread::scope(|scope| {
        for case in &cases {
            let (scenario, server, certificate) = (&scenario, &server, &certificate);
            scope.spawn(move || assert_eq!(scenario(case, server, certificate), expected(case.kept), "{}", case.name));
        }
    });
}

/// Over TCP: for TLS it brings a second rustls-webpki and an unmaintained rustls-pemfile, for WebSocket four crates more.
#[test]
fn rumqttc_over_tcp() {
    play_here(&["tcp"], |case, server, _| rumqtt::scenario(case, server.mqtt()));
}

/// Over TCP and TLS; Debian's has no WebSocket.
#[test]
fn mosquitto_over_tcp_and_tls() {
    if common::mosquitto::is_there() {
        play_here(&["tcp", "tls"], |case, server, certificate| {
            let mut outcome = mosquitto::scenario(case, server, certificate);
            for who in ["alice", "bob"] {
                // It does not tell.
                for name in ["session_present", "granted"] {
                    outcome[who][name] = expected(case.kept)[who][name].clone();
                }
            }
            outcome
        });
    }
}
