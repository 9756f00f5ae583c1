//! CONNECT and CONNACK: what docs/conformance.md claims for sections 3.1 and 3.2 of MQTT 5, and security tests S5 to S12, S40, S42.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use std::time::{Duration, Instant};

use common::codec::{
    MAXIMUM_PACKET_SIZE, RECEIVE_MAXIMUM, RETAIN_AVAILABLE, SERVER_KEEP_ALIVE, SESSION_EXPIRY, frame, write_text,
};
use common::{Connect, Device, Packet, Raw, TestServer, assert_text};
use serde_json::json;

fn hi(body: &str) -> String {
    json!({"to": "bob", "text": {"body": body}}).to_string()
}

/// What the server answers to bytes on a new connection before it closes it: the code of a CONNACK, or nothing.
#[track_caller]
fn answer(server: &TestServer, v5: bool, bytes: &[u8]) -> Option<u8> {
    let mut raw = Raw::dial(server.mqtt(), v5);
    raw.send(bytes);
    let answer = match raw.next() {
        None => return None,
        Some(Packet::ConnAck { session_present, code, .. }) => {
            assert!(!session_present, "[MQTT-3.2.2-6]: Session Present beside code 0x{code:02x}");
            code
        }
        Some(other) => panic!("expected a CONNACK or the end, got {other:?}"),
    };
    assert_eq!(raw.next(), None, "closed after CONNACK 0x{answer:02x}");
    Some(answer)
}

/// The server serves others.
#[track_caller]
fn is_alive(server: &TestServer, token: &str) {
    Connect::v5("alice", "witness", token).open(server.mqtt()).0.ping();
}

/// [MQTT-3.1.0-1]
#[test]
fn s05_what_comes_first_is_a_connect_or_the_end() {
    let server = TestServer::with_users(&["alice"]);
    let mut connect = Connect::v5("alice", "x", &server.token("alice")).encode();
    for first in (0..=0xff_u8).filter(|first| *first != 0x10) {
        // Whatever the type is, its body could be a CONNECT's.
        connect[0] = first;
        assert_eq!(answer(&server, true, &connect), None, "first byte 0x{first:02x}");
        assert_eq!(answer(&server, true, &[first, 2, 0, 0]), None, "first byte 0x{first:02x}");
    }
    is_alive(&server, &server.token("alice"));
}

/// [MQTT-3.1.4-1]
#[test]
fn s06_a_large_connect_is_refused_from_its_header() {
    let server = TestServer::with_users(&["alice"]);
    for header in [&[0x10, 0xff, 0xff, 0xff, 0x7f][..], &[0x10, 0xff, 0xff, 0x01]] {
        let begun = Instant::now();
        assert_eq!(answer(&server, true, header), None, "{header:x?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "before its time for CONNECT was over");
    }
    let token = server.token("alice");
    let (mut alice, _) = Connect::v5("alice", "x", &token).open(server.mqtt());
    alice.send(&[0x32, 0xff, 0xff, 0xff, 0x7f]);
    assert_eq!(alice.expect_end(), Some(0x95));
    is_alive(&server, &token);
}

/// [MQTT-3.1.0-2]
#[test]
fn s08_a_second_connect_ends_the_connection() {
    let server = TestServer::with_users(&["alice"]);
    let token = server.token("alice");
    for (v5, reason) in [(true, Some(0x82)), (false, None)] {
        let connect = Connect { v5, ..Connect::v5("alice", "x", &token) };
        let (mut alice, _) = connect.open(server.mqtt());
        alice.send(&connect.encode());
        assert_eq!(alice.expect_end(), reason, "MQTT 5: {v5}");
        is_alive(&server, &token);
    }
}

/// A CONNECT of alice from its parts: protocol name, level, flags, properties (with their length), payload.
fn connect(name: &str, level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    write_text(&mut body, name);
    body.extend([level, flags, 0, 60]);
    body.extend(rest);
    frame(0x10, &body)
}

/// [MQTT-3.1.2-1] to [MQTT-3.1.2-3], [MQTT-3.1.2-6] to [MQTT-3.1.2-9], [MQTT-3.1.2-12], [MQTT-3.1.2-13], [MQTT-3.1.2-16] to
/// [MQTT-3.1.2-19], [MQTT-3.1.3-11], [MQTT-3.1.3-12], [MQTT-3.1.4-1], [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-2.2.2-1]
#[test]
fn s09_a_connect_that_is_not_legal_is_refused() {
    let server = TestServer::with_users(&["alice"]);
    #[rustfmt::skip]
    let rows: &[(&str, Vec<u8>, Option<u8>)] = &[
        ("another protocol", connect("MQTX", 5, 0x02, b"\0\0\x01c"), None),
        ("a protocol in lower case", connect("mqtt", 5, 0x02, b"\0\0\x01c"), None),
        ("level 6", connect("MQTT", 6, 0x02, b"\0\0\x01c"), Some(0x84)),
        ("level 255", connect("MQTT", 255, 0x02, b"\0\0\x01c"), Some(0x84)),
        ("level 3, answered in 3.1.1", connect("MQTT", 3, 0x02, b"\0\x01c"), Some(1)),
        ("MQTT 3.1, answered in 3.1.1", connect("MQIsdp", 3, 0x02, b"\0\x01c"), Some(1)),
        ("5: reserved flag", connect("MQTT", 5, 0x03, b"\0\0\x01c"), Some(0x81)),
        ("3.1.1: reserved flag", connect("MQTT", 4, 0x03, b"\0\x01c"), None),
        ("5: will QoS 3", connect("MQTT", 5, 0x1e, b"\0\0\x01c\0\0\x01t\0\x01m"), Some(0x81)),
        ("3.1.1: will QoS 3", connect("MQTT", 4, 0x1e, b"\0\x01c\0\x01t\0\x01m"), None),
        ("5: will QoS without a will", connect("MQTT", 5, 0x0a, b"\0\0\x01c"), Some(0x81)),
        ("3.1.1: will QoS without a will", connect("MQTT", 4, 0x0a, b"\0\x01c"), None),
        ("5: will retain without a will", connect("MQTT", 5, 0x22, b"\0\0\x01c"), Some(0x81)),
        ("3.1.1: will retain without a will", connect("MQTT", 4, 0x22, b"\0\x01c"), None),
        ("5: will flag without its fields", connect("MQTT", 5, 0x06, b"\0\0\x01c"), Some(0x81)),
        ("3.1.1: will flag without its fields", connect("MQTT", 4, 0x06, b"\0\x01c"), None),
        ("5: will without its payload", connect("MQTT", 5, 0x06, b"\0\0\x01c\0\0\x01t"), Some(0x81)),
        ("5: user flag without a user", connect("MQTT", 5, 0x82, b"\0\0\x01c"), Some(0x81)),
        ("3.1.1: user flag without a user", connect("MQTT", 4, 0x82, b"\0\x01c"), None),
        ("5: a user without its flag", connect("MQTT", 5, 0x02, b"\0\0\x01c\0\x05alice"), Some(0x81)),
        ("3.1.1: a user without its flag", connect("MQTT", 4, 0x02, b"\0\x01c\0\x05alice"), None),
        ("5: password flag without a password", connect("MQTT", 5, 0xc2, b"\0\0\x01c\0\x05alice"), Some(0x81)),
        ("5: a password without its flag", connect("MQTT", 5, 0x82, b"\0\0\x01c\0\x05alice\0\x01p"), Some(0x81)),
        ("3.1.1: a password without a user", connect("MQTT", 4, 0x42, b"\0\x01c\0\x01p"), None),
        ("5: a password without a user", connect("MQTT", 5, 0x42, b"\0\0\x01c\0\x01p"), Some(0x86)),
        ("5: a user that is not UTF-8", connect("MQTT", 5, 0xc2, b"\0\0\x01c\0\x02\xc3\x28\0\x01p"), Some(0x81)),
        ("5: a user with U+0000", connect("MQTT", 5, 0xc2, b"\0\0\x01c\0\x02a\0\0\x01p"), Some(0x81)),
        ("5: a will topic that is not UTF-8", connect("MQTT", 5, 0x06, b"\0\0\x01c\0\0\x02\xc3\x28\0\x01m"), Some(0x81)),
        ("5: a client id with a surrogate", connect("MQTT", 5, 0x02, b"\0\0\x03\xed\xa0\x80"), Some(0x81)),
        ("3.1.1: a client id with a surrogate", connect("MQTT", 4, 0x02, b"\0\x03\xed\xa0\x80"), None),
        ("3.1.1: a client id with U+0000", connect("MQTT", 4, 0x02, b"\0\x02a\0"), None),
        ("5: no properties, not even their length", connect("MQTT", 5, 0x02, b""), Some(0x81)),
        ("5: properties past the end", connect("MQTT", 5, 0x02, b"\x40\0\x01c"), Some(0x81)),
        ("5: an unknown property", connect("MQTT", 5, 0x02, b"\x02\x7e\x01\0\x01c"), Some(0x81)),
        ("5: a property twice", connect("MQTT", 5, 0x02, b"\x06\x21\0\x09\x21\0\x09\0\x01c"), Some(0x82)),
        ("5: Receive Maximum 0", connect("MQTT", 5, 0x02, b"\x03\x21\0\0\0\x01c"), Some(0x82)),
        ("5: Maximum Packet Size 0", connect("MQTT", 5, 0x02, b"\x05\x27\0\0\0\0\0\x01c"), Some(0x82)),
        ("5: a user property that is not UTF-8", connect("MQTT", 5, 0x02, b"\x07\x26\0\x01k\0\x01\xff\0\x01c"), Some(0x81)),
        ("5: authentication data without a method", connect("MQTT", 5, 0x02, b"\x04\x16\0\x01d\0\x01c"), Some(0x82)),
        ("3.1.1: bytes behind the end", connect("MQTT", 4, 0x02, b"\0\x01c!"), None),
        ("fixed header flags", { let mut c = connect("MQTT", 5, 0x02, b"\0\0\x01c"); c[0] = 0x11; c }, None),
    ];
    for (what, bytes, expected) in rows {
        let v5 = bytes[8] > 4;
        assert_eq!(answer(&server, v5, bytes), *expected, "{what}");
    }
    is_alive(&server, &server.token("alice"));
}

/// [MQTT-3.1.2-11], [MQTT-3.1.2-21], [MQTT-3.1.2-22], [MQTT-3.2.2-22]
#[test]
fn s10_a_keepalive_that_is_off_or_too_long_is_capped_told_and_kept() {
    let server = TestServer::start_with("[door]\nkeep_alive_max_s = 1\n");
    server.add_user("alice");
    let token = server.token("alice");
    let mut clients = Vec::new();
    for (v5, keep_alive) in [(true, 0), (true, 0xffff), (true, 1), (false, 0), (false, 0xffff), (false, 1)] {
        let client_id = format!("{v5}-{keep_alive}");
        let connect = Connect { v5, keep_alive, ..Connect::v5("alice", &client_id, &token) };
        let since = Instant::now();
        let (alice, _, code, properties) = connect.try_open(server.mqtt());
        assert_eq!(code, 0);
        let told = (v5 && keep_alive != 1).then_some(1);
        assert_eq!(properties.number(SERVER_KEEP_ALIVE), told, "{client_id}");
        clients.push((alice, client_id, since));
    }
    for (mut alice, client_id, since) in clients {
        assert_eq!(alice.expect_end(), alice.v5.then_some(0x8d), "{client_id}");
        let lived = since.elapsed();
        assert!(
            lived > Duration::from_millis(1400) && lived < Duration::from_secs(5),
            "{client_id}: {lived:?}, not 1.5 s"
        );
    }
}

/// [MQTT-3.1.3-3], [MQTT-3.1.3-5], [MQTT-3.1.3-8], [MQTT-1.5.4-3]
#[test]
fn s11_client_ids_are_bounded_and_mean_nothing_but_themselves() {
    let server = TestServer::with_users(&["alice"]);
    let token = server.token("alice");
    let every = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let legal = (1..=23).map(|length| every[length..2 * length].to_owned());
    // Other characters are the server's choice: it takes them, and each is itself.
    let odd = [
        "+",
        "#",
        "a/b",
        "$SYS",
        "%s%n",
        "x'; DROP TABLE sessions;--",
        "(a+)+$",
        "\u{feff}c",
        "c",
        "C",
        "é",
        "e\u{301}",
    ];
    for client_id in legal.chain(odd.into_iter().map(str::to_owned)) {
        for v5 in [true, false] {
            let connect = Connect { v5, ..Connect::v5("alice", &client_id, &token) }.keeping_its_session();
            let (mut raw, present) = connect.open(server.mqtt());
            assert_eq!(present, !v5, "a session of its own for {client_id:?}, found by the second connection");
            raw.ping();
            let gone = Connect { clean: true, session_expiry: None, ..connect };
            if !v5 {
                gone.open(server.mqtt());
            }
        }
    }
    let long = "x".repeat(257);
    Connect::v5("alice", &long, &token).refused(server.mqtt(), 0x85);
    Connect::v3("alice", &long, &token).refused(server.mqtt(), 2);
    assert_eq!(answer(&server, true, &Connect::v5("alice", &"x".repeat(65_535), &token).encode()), None);
    is_alive(&server, &token);
}

/// [MQTT-3.1.3-4], [MQTT-3.1.3-6], [MQTT-3.1.3-2]
#[test]
fn an_empty_client_id_gets_one_of_its_own_that_finds_the_session_again() {
    let server = TestServer::with_users(&["alice"]);
    let token = server.token("alice");
    let asked = Connect { session_expiry: Some(60), ..Connect::v5("alice", "", &token) };
    let (mut one, _, _, first) = asked.try_open(server.mqtt());
    let (mut two, _, _, second) = asked.try_open(server.mqtt());
    let (first, second) = (first.assigned_client_id.expect("an id"), second.assigned_client_id.expect("an id"));
    assert_ne!(first, second);
    one.ping();
    two.ping();
    drop(one);
    let again = Connect { client_id: first, clean: false, ..asked };
    let (_raw, present, code, properties) = again.try_open(server.mqtt());
    assert_eq!((code, present, properties.assigned_client_id), (0, true, None));
}

#[test]
fn s12_a_client_id_of_another_users_device_is_another_client() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = Device::open(
        server.mqtt(),
        Connect::v5("bob", "bob-phone", &server.token("bob")).keeping_its_session(),
        "phone",
    );
    for v5 in [true, false] {
        let connect = Connect { v5, ..Connect::v5("alice", "bob-phone", &server.token("alice")) };
        let (mut alice, present) = connect.keeping_its_session().open(server.mqtt());
        assert!(!present, "never bob's session");
        assert_eq!(alice.publish_and_wait("users/alice/phone/outbox", &hi("hello")).0, 0);
        assert_text(&bob.entry(), "alice", "hello");
        // A token of one device under another's id opens that device and no other.
        let bound = server.token_with("alice", &["--device", "phone"]);
        let (mut alice, _) = Connect { v5, ..Connect::v5("alice", "bob-phone", &bound) }.open(server.mqtt());
        assert!(alice.subscribe("users/bob/phone/inbox", 1) >= 0x80);
        bob.raw.ping();
    }
}

/// [MQTT-3.1.4-2], [MQTT-3.1.4-6], [MQTT-3.2.2-6], [MQTT-3.2.2-7], [MQTT-3.2.2-8], [MQTT-3.14.0-1], [MQTT-4.13.2-1]
#[test]
fn what_stands_behind_a_refused_connect_is_not_processed() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = Device::v5(&server, "bob", "phone");
    let token = server.token("alice");
    for (v5, code) in [(true, 0x86), (false, 4)] {
        let bad = Connect { v5, ..Connect::v5("alice", "x", "not a token") };
        let scratch = Raw::dial(server.mqtt(), v5);
        let behind = scratch.publish_bytes("users/alice/phone/outbox", 0x02, 1, hi("behind").as_bytes());
        let bytes = [bad.encode(), behind, Connect { v5, ..Connect::v5("alice", "x", &token) }.encode()].concat();
        assert_eq!(answer(&server, v5, &bytes), Some(code));
    }
    let mut alice = Device::v5(&server, "alice", "phone");
    alice.send("bob", "m1", "accepted");
    assert_text(&bob.entry(), "alice", "accepted");
}

/// [MQTT-3.1.4-5], [MQTT-3.2.0-1], [MQTT-3.2.0-2], [MQTT-3.2.2-1], [MQTT-3.1.2-28], [MQTT-4.12.0-6]
#[test]
fn connack_is_the_first_packet_the_only_one_and_tells_the_truth() {
    let server = TestServer::with_users(&["alice"]);
    let token = server.token("alice");
    // Request Response Information 1, Topic Alias Maximum 10.
    let more = vec![0x19, 1, 0x22, 0, 10];
    let connect =
        Connect { more_properties: more, session_expiry: Some(u32::MAX), ..Connect::v5("alice", "x", &token) };
    let mut alice = Raw::dial(server.mqtt(), true);
    alice.send(&[connect.encode(), frame(0xc0, &[])].concat());
    let Some(Packet::ConnAck { session_present: false, code: 0, properties }) = alice.next() else {
        panic!("expected CONNACK first")
    };
    assert_eq!(alice.next(), Some(Packet::PingResp));
    assert_eq!(properties.number(RECEIVE_MAXIMUM), Some(128));
    assert_eq!(properties.number(MAXIMUM_PACKET_SIZE), Some(128 * 1024));
    assert_eq!(properties.number(RETAIN_AVAILABLE), Some(0));
    assert_eq!(properties.number(SESSION_EXPIRY), Some(30 * 24 * 3600), "granted, not what was asked for");
    assert_eq!(properties.number(0x29), Some(0), "Subscription Identifiers Available");
    assert_eq!(properties.number(0x22), None, "Topic Alias Maximum is 0");
    assert_eq!(properties.number(0x24), None, "Maximum QoS is 2");
    assert_eq!(properties.reason_string, None);
    let user: Vec<&str> = properties.user.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(user, ["epoch"], "by which a client knows a store that began anew");
    assert_eq!(properties.texts, [], "no response information and no authentication method");
    alice.ping();
    assert_eq!(alice.queued().count(), 0, "one CONNACK and no more");
}

/// [MQTT-3.1.2-24], [MQTT-3.2.2-16], [MQTT-3.2.2-19], [MQTT-3.2.2-20], [MQTT-3.14.0-1]
#[test]
fn a_client_that_cannot_take_connack_is_sent_nothing_that_is_too_large_and_no_disconnect() {
    let server = TestServer::with_users(&["alice"]);
    let token = server.token("alice");
    for packet_bytes_max in [1, 4, 5, 16] {
        let connect = Connect { packet_bytes_max: Some(packet_bytes_max), ..Connect::v5("alice", "x", &token) };
        let answer = answer(&server, true, &connect.encode());
        assert!(matches!(answer, None | Some(0x95)), "{packet_bytes_max}: {answer:x?}");
    }
    is_alive(&server, &token);
}

/// [MQTT-4.12.0-1], [MQTT-4.12.0-7], [MQTT-3.15.1-1]
#[test]
fn no_authentication_method_is_known() {
    let server = TestServer::with_users(&["alice"]);
    let token = server.token("alice");
    let mut method = vec![0x15];
    write_text(&mut method, "SCRAM-SHA-256");
    Connect { more_properties: method, ..Connect::v5("alice", "x", &token) }.refused(server.mqtt(), 0x8c);
    for auth in [&b"\xf0\0"[..], b"\xf0\x02\x18\0", b"\xf1\0"] {
        let (mut alice, _) = Connect::v5("alice", "x", &token).open(server.mqtt());
        alice.send(auth);
        assert_eq!(alice.expect_end(), Some(0x82), "{auth:x?}");
    }
}

/// Topic, payload, retain, and the code of CONNACK on MQTT 5 and 3.1.1; `None`: closed without one.
type WillRow = (&'static str, String, bool, Option<u8>, Option<u8>);

/// [MQTT-3.2.2-12], [MQTT-3.2.2-13]
#[test]
fn s40_s42_a_will_is_a_publish_to_the_own_outbox_or_no_connection() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = Device::v5(&server, "bob", "phone");
    let token = server.token("alice");
    let delivered = json!({"type": "status", "status": "delivered", "chat": "alice", "n": 1}).to_string();
    #[rustfmt::skip]
    let rows: &[WillRow] = &[
        ("users/bob/phone/outbox", hi("x"), false, Some(0x87), Some(5)),
        ("users/bob/phone/inbox", delivered.clone(), false, Some(0x87), Some(5)),
        ("users/alice/phone/inbox", delivered.clone(), false, Some(0x87), Some(5)),
        ("users/bob/down", delivered.clone(), false, Some(0x87), Some(5)),
        ("users/alice/up", delivered, false, Some(0x87), Some(5)),
        ("users/alice/http/outbox", hi("x"), false, Some(0x87), Some(5)),
        ("$SYS/x", hi("x"), false, Some(0x87), Some(5)),
        ("été/x", hi("x"), false, Some(0x87), Some(5)),
        ("users/alice/#", hi("x"), false, Some(0x90), None),
        ("users/+/phone/outbox", hi("x"), false, Some(0x90), None),
        ("", hi("x"), false, Some(0x82), None),
        ("users/alice/phone/outbox", hi("x"), true, Some(0x9a), Some(0)),
        // CONNECT has a limit of its own.
        ("users/alice/phone/outbox", "x".repeat(17_000), false, None, None),
        ("users/alice/phone/outbox", "x".repeat(65_535), false, None, None),
    ];
    for (topic, payload, will_retain, v5_code, v3_code) in rows {
        for (v5, expected) in [(true, *v5_code), (false, *v3_code)] {
            let connect = Connect {
                v5,
                will: Some(((*topic).to_owned(), 1, payload.clone().into_bytes())),
                will_retain: *will_retain,
                ..Connect::v5("alice", "x", &token)
            };
            if expected == Some(0) {
                connect.open(server.mqtt()).0.disconnect();
            } else {
                assert_eq!(answer(&server, v5, &connect.encode()), expected, "{topic:?}, MQTT 5: {v5}");
            }
        }
    }
    // Nothing of it was published, and a good one is.
    let will = Some(("users/alice/phone/outbox".to_owned(), 2, hi("the will").into_bytes()));
    drop(Connect { will, ..Connect::v5("alice", "x", &token) }.open(server.mqtt()));
    let entry = bob.entry();
    assert_text(&entry, "alice", "the will");
    assert_eq!(entry["n"].as_u64(), Some(1), "{entry}");
}
