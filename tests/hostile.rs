//! 200 connections that write what they should not, over TCP, TLS and WebSocket, at the whole server, while two devices chat: they get every
//! message once and in order, nothing panics, and the server ends well.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use common::codec::{frame, write_text};
use common::tls::Certificate;
use common::websocket::WebSocket;
use common::{Connect, Device, Random, TestServer, assert_text, dial};

const HOSTILE: u64 = 200;
/// Messages of alice, at least; she goes on until all the others are done.
const MESSAGES: u64 = 100;
/// As many users share the hostile connections, so that some meet under one client id.
const MALLORIES: u64 = 4;

fn text(random: &mut Random, user: &str) -> String {
    match random.below(6) {
        0 => format!("users/{user}/phone/outbox"),
        1 => format!("users/{user}/phone/inbox"),
        2 => "users/bob/phone/inbox".to_owned(),
        3 => "users/alice/phone/outbox".to_owned(),
        4 => "#".to_owned(),
        _ => "x".repeat(usize::try_from(random.below(300)).unwrap()),
    }
}

fn bytes(random: &mut Random, length: u64) -> Vec<u8> {
    (0..random.below(length + 1)).map(|_| u8::try_from(random.below(256)).unwrap()).collect()
}

/// One packet: mostly well made, of any kind.
fn packet(random: &mut Random, user: &str, v5: bool) -> Vec<u8> {
    let id = u16::try_from(random.below(4)).unwrap().to_be_bytes();
    let properties = if v5 { &b"\0"[..] } else { b"" };
    let mut body = Vec::new();
    match random.below(10) {
        0..4 => {
            let qos = u8::try_from(random.below(3)).unwrap();
            write_text(&mut body, &text(random, user));
            if qos > 0 {
                body.extend(id);
            }
            body.extend(properties);
            match random.below(4) {
                0 => {
                    body.extend(format!(r#"{{"id":"m{}","to":"bob","text":{{"body":7}}}}"#, random.below(9)).as_bytes())
                }
                1 => body.extend(format!(r#"{{"ack":{}}}"#, random.below(u64::MAX >> 1)).as_bytes()),
                2 => body.resize(body.len() + usize::try_from(random.below(140_000)).unwrap(), b'{'),
                _ => body.extend(bytes(random, 200)),
            }
            frame(0x30 | qos << 1, &body)
        }
        4 => frame(0x40, &id),
        5 => frame(0x62, &id),
        6 | 7 => {
            body.extend(id);
            body.extend(properties);
            write_text(&mut body, &text(random, user));
            body.push(u8::try_from(random.below(3)).unwrap());
            frame(0x82, &body)
        }
        8 => frame(0xc0, &[]),
        _ => frame(u8::try_from(random.below(256)).unwrap(), &bytes(random, 60)),
    }
}

/// All that one connection writes.
fn script(random: &mut Random, mallory: &Mallory) -> Vec<u8> {
    if random.below(8) == 0 {
        return bytes(random, 2000);
    }
    let id = format!("{}-{}", mallory.user, random.below(2));
    let v5 = random.below(2) == 0;
    let connect = if v5 {
        Connect::v5(&mallory.user, &id, &mallory.token)
    } else {
        Connect::v3(&mallory.user, &id, &mallory.token)
    };
    let connect = if random.below(2) == 0 { connect.keeping_its_session() } else { connect };
    let mut script = connect.encode();
    let begin = if random.below(10) == 0 { 0 } else { script.len() };
    for _ in 0..random.below(30) {
        script.extend(packet(random, &mallory.user, v5));
    }
    for _ in 0..random.below(4) {
        let room = u64::try_from(script.len() - begin).unwrap();
        if room > 0 {
            script[begin + usize::try_from(random.below(room)).unwrap()] = u8::try_from(random.below(256)).unwrap();
        }
    }
    script
}

struct Mallory {
    user: String,
    token: String,
}

/// Writes the script in pieces, and leaves: in the middle, at the end, or when the server has had enough.
fn attack(random: &mut Random, mallory: &Mallory, server: &TestServer, ca: &Certificate) {
    let script = script(random, mallory);
    let addresses: [SocketAddr; 4] = [server.mqtt(), server.mqtts(), server.http(), server.https()];
    let which = usize::try_from(random.below(8)).unwrap();
    let mut stream: Box<dyn common::Stream> = match which {
        // Bytes of MQTT where HTTP or TLS is spoken.
        0..4 => Box::new(dial(addresses[which])),
        4 => Box::new(common::tls::connect(server.mqtts(), &ca.file("ca.pem"), &[])),
        5 => Box::new(WebSocket::open(server.http())),
        _ => Box::new(dial(server.mqtt())),
    };
    let mut left = &script[..];
    while !left.is_empty() {
        let (piece, rest) = left.split_at(left.len().min(1 + usize::try_from(random.below(4000)).unwrap()));
        if stream.write_all(piece).is_err() || random.below(60) == 0 {
            return;
        }
        left = rest;
    }
    if random.below(2) == 0 {
        // What the server has to say is read for a moment.
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let _ = stream.read(&mut [0; 4096]);
    }
}

#[test]
fn two_devices_chat_while_two_hundred_connections_misbehave() {
    let seed = std::env::var("NATTER_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let ca = Certificate::make();
    let mut server = TestServer::start_with(&ca.config());
    ["alice", "bob"].iter().for_each(|name| server.add_user(name));
    let mallories: Vec<Mallory> = (0..MALLORIES)
        .map(|i| {
            let user = format!("mallory{i}");
            server.add_user(&user);
            Mallory { token: server.token(&user), user }
        })
        .collect();

    let (mut alice, mut bob) = (Device::v5(&server, "alice", "phone"), Device::v3(&server, "bob", "phone"));
    let sent = thread::scope(|scope| {
        let attackers: Vec<_> = (0..4)
            .map(|lane| {
                let (server, ca, mallories) = (&server, &ca, &mallories);
                scope.spawn(move || {
                    for i in 0..HOSTILE / 4 {
                        let mut random = Random(seed ^ (lane * 1000 + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                        let mallory = &mallories[usize::try_from(random.below(MALLORIES)).unwrap()];
                        attack(&mut random, mallory, server, ca);
                    }
                })
            })
            .collect();
        let mut sent = 0;
        while sent < MESSAGES || !attackers.iter().all(thread::ScopedJoinHandle::is_finished) {
            assert_eq!(alice.send("bob", &format!("m{sent}"), &sent.to_string()), sent + 1);
            let entry = loop {
                let entry = bob.entry();
                // Mallory may write to bob; everybody may.
                if entry["from"] == "alice" {
                    break entry;
                }
            };
            assert_text(&entry, "alice", &sent.to_string());
            sent += 1;
        }
        sent
    });
    bob.mark_read("alice", sent);
    loop {
        let receipt = alice.entry();
        if receipt["status"] == "read" {
            assert_eq!(receipt["n"], sent, "{receipt}");
            break;
        }
    }
    // A new connection is served as ever.
    alice.reconnect(&server);
    alice.send("bob", "last", "last");
    assert_text(&bob.entry(), "alice", "last");
    let panics: Vec<String> = server.log_so_far().into_iter().filter(|line| line.contains("panicked")).collect();
    assert!(panics.is_empty(), "{panics:?}");
    server.terminate();
}
