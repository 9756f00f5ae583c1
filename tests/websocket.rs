//! MQTT over WebSocket on the HTTP listener: packets in frames of any cut, and what the door does with frames that are none.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use std::io::Write as _;
use std::time::{Duration, Instant};

use common::codec::{self, Packet};
use common::websocket::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, Refusal, SUBPROTOCOL, TEXT, WebSocket, frame};
use common::{Connect, Device, TestServer, assert_receipt, assert_text, dial};
use serde_json::Value;

/// The largest packet of a client, and the largest that is read past and refused.
const PACKET_BYTES_MAX: usize = 128 * 1024;
const OVERSIZE_BYTES_MAX: usize = 256 * 1024;

fn alice(server: &TestServer) -> Connect {
    Connect::v5("alice", "alice-phone", &server.token("alice"))
}

fn device(server: &TestServer, connect: Connect, name: &str) -> Device {
    let raw = connect.open_over(WebSocket::open(server.http()));
    Device::over(raw, connect, name)
}

/// The next MQTT packet; `bytes` holds what is read and not taken.
#[track_caller]
fn next_packet(socket: &mut WebSocket, bytes: &mut Vec<u8>) -> Packet {
    loop {
        if let Some(packet) = codec::take(bytes, true) {
            return packet;
        }
        let (first, payload) = socket.next_frame().expect("a frame");
        assert_eq!(first, FIN | BINARY, "the server sends binary frames only");
        bytes.extend_from_slice(&payload);
    }
}

#[track_caller]
fn is_connected(socket: &mut WebSocket) {
    let packet = next_packet(socket, &mut Vec::new());
    assert!(matches!(packet, Packet::ConnAck { code: 0, .. }), "{packet:?}");
}

#[test]
fn devices_talk_over_websocket_in_both_versions_and_with_those_over_tcp() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = device(&server, alice(&server), "phone");
    let mut bob = device(&server, Connect::v3("bob", "bob-phone", &server.token("bob")), "phone");
    let mut tablet = Device::v5(&server, "bob", "tablet");
    let n = alice.send("bob", "m1", "hi");
    assert_text(&bob.entry(), "alice", "hi");
    assert_text(&tablet.entry(), "alice", "hi");
    assert_receipt(&alice.entry(), "delivered", "bob", n - 1, n);
    bob.mark_read("alice", n);
    assert_receipt(&alice.entry(), "read", "bob", n - 1, n);
    // Larger than a frame of the server.
    let long = "x".repeat(60_000);
    alice.send("bob", "m2", &long);
    assert_text(&bob.entry(), "alice", &long);
    alice.raw.disconnect();
}

#[test]
fn packets_may_span_frames_and_share_them() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = Device::v5(&server, "bob", "phone");
    let connect = alice(&server).encode();
    let publish = |id: u16, body: &str| {
        let payload = format!(r#"{{"to":"bob","type":"text","text":{{"body":"{body}"}}}}"#);
        let mut packet = Vec::new();
        codec::write_text(&mut packet, "users/alice/phone/outbox");
        packet.extend_from_slice(&id.to_be_bytes());
        packet.push(0);
        packet.extend_from_slice(payload.as_bytes());
        codec::frame(0x32, &packet)
    };

    // One byte a frame; then a packet over two messages of two frames each; then three packets in one.
    let mut socket = WebSocket::open(server.http());
    connect.iter().for_each(|byte| socket.send_frame(FIN | BINARY, &[*byte]));
    is_connected(&mut socket);
    let first = publish(1, "one");
    let quarter = first.len() / 4;
    socket.send_frame(BINARY, &first[..quarter]);
    socket.send_frame(FIN | CONTINUATION, &first[quarter..2 * quarter]);
    socket.send_frame(BINARY, &first[2 * quarter..3 * quarter]);
    socket.send_frame(FIN | PING, b"between");
    socket.send_frame(FIN | CONTINUATION, &first[3 * quarter..]);
    socket.send_frame(FIN | BINARY, &[publish(2, "two"), publish(3, "three"), publish(4, "four")].concat());
    socket.send_frame(FIN | BINARY, b"");
    let mut bytes = Vec::new();
    let mut answered = Vec::new();
    let mut pong = None;
    while answered.len() < 4 {
        let (first, payload) = socket.next_frame().expect("a frame");
        if first & 0x0f == PONG {
            pong = Some(payload);
            continue;
        }
        bytes.extend_from_slice(&payload);
        while let Some(packet) = codec::take(&mut bytes, true) {
            match packet {
                Packet::PubAck { id, reason: 0, .. } => answered.push(id),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(answered, [1, 2, 3, 4]);
    assert_eq!(pong.as_deref(), Some(&b"between"[..]));
    for body in ["one", "two", "three", "four"] {
        assert_text(&bob.entry(), "alice", body);
    }

    // The handshake, the CONNECT and a PINGREQ at once: nothing that came early is lost.
    let mut stream = dial(server.http());
    let request = "GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    let early = frame(FIN | BINARY, &[&connect[..], &codec::frame(0xc0, &[])].concat());
    stream.write_all(&[request.as_bytes(), &early].concat()).unwrap();
    let mut socket = WebSocket::opened_by_hand(stream);
    let mut bytes = Vec::new();
    assert!(matches!(next_packet(&mut socket, &mut bytes), Packet::ConnAck { code: 0, .. }));
    assert_eq!(next_packet(&mut socket, &mut bytes), Packet::PingResp);
}

#[test]
fn closing_is_answered_by_closing() {
    let server = TestServer::with_users(&["alice"]);
    let mut socket = WebSocket::open(server.http());
    socket.send_frame(FIN | BINARY, &alice(&server).encode());
    is_connected(&mut socket);
    socket.send_frame(FIN | CLOSE, &1000u16.to_be_bytes());
    assert_eq!(socket.expect_end(), Some(1000));
    // And a DISCONNECT by a close of the server's.
    let mut socket = WebSocket::open(server.http());
    socket.send_frame(FIN | BINARY, &[alice(&server).encode(), codec::frame(0xe0, &[])].concat());
    is_connected(&mut socket);
    let (first, _) = socket.next_frame().expect("a close frame");
    assert_eq!(first, FIN | CLOSE);
}

#[test]
fn a_stop_of_the_server_is_told() {
    let mut server = TestServer::with_users(&["alice"]);
    let mut device = device(&server, alice(&server), "phone");
    server.terminate();
    assert_eq!(device.raw.expect_end(), Some(0x8b));
}

#[track_caller]
fn refused(server: &TestServer, headers: &[(&str, &str)]) -> Refusal {
    let refusal = WebSocket::open_over(dial(server.http()), headers).err().expect("a refusal");
    assert!(refusal.head.contains("application/problem+json"), "{}", refusal.head);
    let problem: Value = serde_json::from_str(&refusal.body).unwrap();
    assert_eq!(problem["status"], refusal.status, "{problem}");
    refusal
}

#[test]
fn s14_foreign_pages_and_other_subprotocols_are_refused() {
    let server = TestServer::start_with("[http]\nallowed_origins = [\"https://app.example.com\"]\n");
    for origin in ["https://evil.example.com", "https://app.example.com:444", "null", "https://localhost.evil.com"] {
        let refusal = refused(&server, &[SUBPROTOCOL, ("Origin", origin)]);
        assert_eq!(refusal.status, 403, "{origin}");
        assert!(refusal.body.contains("http.allowed_origins"), "{}", refusal.body);
    }
    for origin in ["https://app.example.com", "http://localhost:3000", "https://localhost"] {
        assert!(WebSocket::open_over(dial(server.http()), &[SUBPROTOCOL, ("Origin", origin)]).is_ok(), "{origin}");
    }
    let host = ("Host", "chat.example.com:8080");
    let own = [SUBPROTOCOL, host, ("Origin", "https://chat.example.com")];
    assert!(WebSocket::open_over(dial(server.http()), &own).is_ok());
    for headers in [&[][..], &[("Sec-WebSocket-Protocol", "mqttv3.1")], &[("Sec-WebSocket-Protocol", "MQTT")]] {
        let refusal = refused(&server, headers);
        assert_eq!(refusal.status, 400, "{headers:?}");
        assert!(refusal.body.contains("subprotocol mqtt"), "{}", refusal.body);
    }
    let two = [("Sec-WebSocket-Protocol", "mqttv3.1, mqtt")];
    assert!(WebSocket::open_over(dial(server.http()), &two).is_ok());
}

#[test]
fn a_request_that_is_no_handshake_is_a_problem_in_json() {
    let server = TestServer::start();
    for (request, status) in [
        ("GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400),
        ("POST /mqtt HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 405),
    ] {
        let mut stream = dial(server.http());
        stream.write_all(request.as_bytes()).unwrap();
        let answer = std::io::read_to_string(stream).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
}

#[test]
fn frames_that_do_not_belong_end_the_connection_and_hurt_nobody() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = Device::v5(&server, "bob", "phone");
    let unmasked = || {
        let mut bytes = vec![FIN | BINARY, 2];
        bytes.extend_from_slice(&codec::frame(0xc0, &[]));
        bytes
    };
    // A frame that says it is longer than it may be: refused by its header alone.
    let claims = |length: u64| {
        let mut bytes = vec![FIN | BINARY, 0x80 | 127];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes
    };
    let many_frames = || {
        let part = vec![0; 64 * 1024];
        let mut bytes = frame(BINARY, &part);
        (0..4).for_each(|_| bytes.extend(frame(CONTINUATION, &part)));
        bytes
    };
    let cases: [(&str, Vec<u8>, Option<u16>); 9] = [
        ("text", frame(FIN | TEXT, b"hi"), Some(1003)),
        ("text that is not UTF-8", frame(FIN | TEXT, &[0xff]), Some(1002)),
        ("unmasked", unmasked(), Some(1002)),
        ("a reserved opcode", frame(FIN | 0x3, b"x"), Some(1002)),
        ("a reserved bit", frame(FIN | 0x40 | BINARY, b"x"), Some(1002)),
        ("a continuation of nothing", frame(FIN | CONTINUATION, b"x"), Some(1002)),
        ("1 MiB", claims(1 << 20), Some(1002)),
        ("2^62 bytes", claims(1 << 62), Some(1002)),
        ("a message of many frames", many_frames(), Some(1002)),
    ];
    for (name, bytes, code) in cases {
        let mut socket = WebSocket::open(server.http());
        socket.send_frame(FIN | BINARY, &alice(&server).encode());
        is_connected(&mut socket);
        socket.send_bytes(&bytes);
        assert_eq!(socket.expect_end(), code, "{name}");
    }

    // The MQTT inside is looked at as everywhere else: a length that is none, and a packet that ends behind its frame.
    for (bytes, reason) in [(&[0x32, 0xff, 0xff, 0xff, 0xff, 1][..], 0x81), (&[0x50, 2, 0, 1], 0x82)] {
        let mut socket = WebSocket::open(server.http());
        socket.send_frame(FIN | BINARY, &alice(&server).encode());
        is_connected(&mut socket);
        socket.send_frame(FIN | BINARY, bytes);
        let packet = next_packet(&mut socket, &mut Vec::new());
        assert!(matches!(packet, Packet::Disconnect { reason: got, .. } if got == reason), "{packet:?}");
    }
    bob.raw.ping();
}

#[test]
fn a_packet_longer_than_its_frame_waits_for_the_rest_and_not_for_ever() {
    let server = TestServer::start_with("[door]\npacket_timeout_s = 1\n");
    server.add_user("alice");
    let mut socket = WebSocket::open(server.http());
    socket.send_frame(FIN | BINARY, &alice(&server).encode());
    is_connected(&mut socket);
    let began = Instant::now();
    socket.send_frame(FIN | BINARY, &[0x32, 100, 0, 24]);
    let packet = next_packet(&mut socket, &mut Vec::new());
    assert!(matches!(packet, Packet::Disconnect { reason: 0x8d, .. }), "{packet:?}");
    assert!(began.elapsed() < Duration::from_secs(8));
}

#[test]
fn a_packet_of_the_largest_size_fits_into_one_frame_and_one_too_large_is_refused_politely() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = device(&server, alice(&server), "phone");
    for bytes in [PACKET_BYTES_MAX - 100, PACKET_BYTES_MAX + 1, OVERSIZE_BYTES_MAX - 100] {
        let (reason, _) = alice.raw.publish_and_wait(&alice.outbox(), &"x".repeat(bytes));
        assert!(reason >= 0x80, "{bytes} bytes that are no JSON: 0x{reason:02x}");
    }
    alice.raw.ping();
}

#[test]
fn a_full_door_answers_in_http() {
    let server = TestServer::start_with("[door]\nconnections_max = 2\n");
    server.add_user("alice");
    let first = WebSocket::open(server.http());
    let _second = WebSocket::open(server.http());
    assert_eq!(refused(&server, &[SUBPROTOCOL]).status, 503);
    // The place is free again when the connection has ended.
    drop(first);
    let deadline = Instant::now() + common::patience();
    while WebSocket::open_over(dial(server.http()), &[SUBPROTOCOL]).is_err() {
        assert!(Instant::now() < deadline, "no place is given back");
    }
}

#[test]
fn a_websocket_without_connect_is_cut() {
    let server = TestServer::start_with("[door]\nconnect_timeout_s = 1\n");
    let began = Instant::now();
    let mut socket = WebSocket::open(server.http());
    // Pings are no sign of life of MQTT.
    socket.send_frame(FIN | PING, b"");
    socket.expect_end();
    assert!((1..8).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}
