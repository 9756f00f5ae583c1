//! Every form that the standard allows is taken: optional parts left out or said in full, properties in any order, values at their
//! bounds. What is refused elsewhere must not be refused here.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use common::codec::{frame, write_text};
use common::{Connect, Packet, Raw, TestServer};

const OUTBOX: &str = "users/alice/phone/outbox";
const INBOX: &str = "users/alice/phone/inbox";

fn text(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_text(&mut out, text);
    out
}

fn user_property(name: &str, value: &str) -> Vec<u8> {
    [vec![0x26], text(name), text(value)].concat()
}

/// [MQTT-3.1.4-5], [MQTT-3.1.2-9]
#[test]
fn a_legal_connect_is_accepted_in_every_form() {
    let server = TestServer::with_users(&["alice"]);
    let token = server.token("alice");
    let base = Connect::v5("alice", "x", &token);
    let will = || Some((OUTBOX.to_owned(), 0, b"{\"sync\":true}".to_vec()));
    let properties: Vec<(&str, Vec<u8>)> = vec![
        ("session expiry 0", vec![0x11, 0, 0, 0, 0]),
        ("the longest session expiry", vec![0x11, 0xff, 0xff, 0xff, 0xff]),
        ("Receive Maximum 1", vec![0x21, 0, 1]),
        ("the largest Receive Maximum", vec![0x21, 0xff, 0xff]),
        ("the largest Maximum Packet Size", vec![0x27, 0xff, 0xff, 0xff, 0xff]),
        ("Topic Alias Maximum 0", vec![0x22, 0, 0]),
        ("the largest Topic Alias Maximum", vec![0x22, 0xff, 0xff]),
        ("Request Response Information 0", vec![0x19, 0]),
        ("Request Problem Information 1", vec![0x17, 1]),
        ("a user property twice", [user_property("k", "v"), user_property("k", "v")].concat()),
        ("a user property of nothing", user_property("", "")),
        (
            "all of them, upside down",
            [
                &[0x27, 0, 1, 0, 0, 0x26, 0, 1, b'k', 0, 1, b'v', 0x22, 0, 9, 0x21, 0, 9, 0x19, 1, 0x17, 0][..],
                &[0x11, 0, 0, 0, 9],
            ]
            .concat(),
        ),
    ];
    for (what, more_properties) in properties {
        let (_, _, code, _) = Connect { more_properties, ..base.clone() }.try_open(server.mqtt());
        assert_eq!(code, 0, "{what}");
    }
    let will_properties: Vec<(&str, Vec<u8>)> = vec![
        ("no delay", vec![0x18, 0, 0, 0, 0]),
        ("payload format 0", vec![0x01, 0]),
        ("payload format 1", vec![0x01, 1]),
        ("a message expiry", vec![0x02, 0, 0, 0, 1]),
        ("a content type", [vec![0x03], text("application/json")].concat()),
        ("an empty content type", [vec![0x03], text("")].concat()),
        ("a response topic", [vec![0x08], text("a/b")].concat()),
        ("empty correlation data", vec![0x09, 0, 0]),
        ("user properties", [user_property("k", "v"), user_property("k", "w")].concat()),
    ];
    for (what, will_properties) in will_properties {
        let connect = Connect { will: will(), will_properties, ..base.clone() };
        let (_, _, code, _) = connect.try_open(server.mqtt());
        assert_eq!(code, 0, "a will with {what}");
    }
    for v5 in [true, false] {
        for qos in 0..=2 {
            for payload in [Vec::new(), b"\0\xff".to_vec(), b"{\"sync\":true}".to_vec()] {
                let connect = Connect { v5, will: Some((OUTBOX.to_owned(), qos, payload)), ..base.clone() };
                connect.open(server.mqtt()).0.disconnect();
            }
        }
        for (clean, keep_alive) in [(true, 0), (false, 0xffff), (false, 1)] {
            let client_id = "y".repeat(256);
            let connect = Connect { v5, clean, keep_alive, client_id, ..base.clone() };
            connect.open(server.mqtt()).0.disconnect();
        }
        // One that is empty is a name and a password all the same, and nobody's.
        let code = if v5 { 0x86 } else { 4 };
        Connect { v5, user: Some(String::new()), ..base.clone() }.refused(server.mqtt(), code);
        Connect { v5, token: Some(String::new()), ..base.clone() }.refused(server.mqtt(), code);
    }
    // An empty client id without a clean start, on MQTT 5.
    let (_, present, code, properties) =
        Connect { clean: false, client_id: String::new(), ..base }.try_open(server.mqtt());
    assert_eq!((code, present), (0, false));
    assert!(properties.assigned_client_id.is_some());
}

/// [MQTT-3.1.4-5]
#[test]
fn a_will_may_expire_at_once() {
    let server = TestServer::with_users(&["alice"]);
    let connect = Connect {
        will: Some((OUTBOX.to_owned(), 0, b"{\"sync\":true}".to_vec())),
        will_properties: vec![0x02, 0, 0, 0, 0],
        ..Connect::v5("alice", "x", &server.token("alice"))
    };
    let (_, _, code, _) = connect.try_open(server.mqtt());
    assert_eq!(code, 0);
}

/// [MQTT-4.2-1]: however the stream is cut.
#[test]
fn packets_come_in_pieces_and_together() {
    let server = TestServer::with_users(&["alice"]);
    let token = server.token("alice");
    for v5 in [true, false] {
        let mut stream = Connect { v5, ..Connect::v5("alice", "x", &token) }.encode();
        let tail: &[u8] = if v5 { &[0] } else { &[] };
        stream.extend(frame(0x82, &[&[0, 1], tail, &text(INBOX), &[1]].concat()));
        stream.extend(frame(0x32, &[&text(OUTBOX), &[0, 2][..], tail, b"{\"sync\":true}"].concat()));
        stream.extend(frame(0xa2, &[&[0, 3], tail, &text(INBOX)].concat()));
        stream.extend(frame(0xc0, &[]));
        for step in [1, 2, 7, 50, stream.len()] {
            let mut alice = Raw::dial(server.mqtt(), v5);
            stream.chunks(step).for_each(|chunk| alice.send(chunk));
            let mut kinds = Vec::new();
            while kinds.len() < 5 {
                kinds.push(match alice.next() {
                    Some(Packet::ConnAck { code: 0, .. }) => 2,
                    Some(Packet::SubAck { id: 1, .. }) => 9,
                    Some(Packet::PubAck { id: 2, reason: 0, .. }) => 4,
                    Some(Packet::UnsubAck { id: 3, .. }) => 11,
                    Some(Packet::PingResp) => 13,
                    other => panic!("unexpected: {other:?}"),
                });
            }
            // A PUBACK waits for its commit; all else keeps its place.
            kinds.retain(|kind| *kind != 4);
            assert_eq!(kinds, [2, 9, 11, 13], "MQTT 5: {v5}, {step} bytes at a time");
        }
    }
}

/// [MQTT-3.3.4-1], [MQTT-3.8.4-1], [MQTT-3.10.4-4], [MQTT-3.12.4-1]
#[test]
fn a_legal_packet_is_taken_in_every_form() {
    let server = TestServer::with_users(&["alice"]);
    let token = server.token("alice");
    let (mut alice, _) = Connect::v5("alice", "x", &token).open(server.mqtt());
    let twice = [user_property("k", "v"), user_property("k", "")].concat();
    let length = u8::try_from(twice.len()).unwrap();
    let publishes: Vec<(&str, Vec<u8>)> = vec![
        ("message expiry 0", vec![0x02, 0, 0, 0, 0]),
        ("the longest message expiry", vec![0x02, 0xff, 0xff, 0xff, 0xff]),
        ("payload format 0", vec![0x01, 0]),
        ("an empty content type", vec![0x03, 0, 0]),
        ("empty correlation data", vec![0x09, 0, 0]),
        ("a response topic in UTF-8", [vec![0x08], text("é/漢")].concat()),
        ("user properties", twice.clone()),
    ];
    for (what, properties) in publishes {
        let id = alice.packet_id();
        let parts = [&text(OUTBOX), &id.to_be_bytes()[..], &[u8::try_from(properties.len()).unwrap()], &properties];
        alice.send(&frame(0x32, &[&parts.concat()[..], b"{\"sync\":true}"].concat()));
        assert_eq!(alice.puback(id).0, 0, "{what}");
    }
    for id in [1, 0x7fff, 0xffff_u16] {
        let bytes = alice.publish_bytes(OUTBOX, 0x02, id, b"{\"sync\":true}");
        alice.send(&bytes);
        assert_eq!(alice.puback(id).0, 0);
    }
    for options in [0x00, 0x01, 0x02, 0x04, 0x05, 0x08, 0x10, 0x20, 0x2e] {
        assert!(alice.subscribe(INBOX, options) <= 1, "options 0x{options:02x}");
    }
    let subscribe = [&[0, 9, length][..], &twice, &text(INBOX), &[1]].concat();
    alice.send(&frame(0x82, &subscribe));
    alice.wait_for("a SUBACK", |packet| matches!(packet, Packet::SubAck { id: 9, .. }).then_some(()));
    alice.send(&frame(0xa2, &[&[0, 10, length][..], &twice, &text(INBOX)].concat()));
    alice.wait_for("an UNSUBACK", |packet| matches!(packet, Packet::UnsubAck { id: 10, .. }).then_some(()));
    let reason = [vec![0x1f], text("why")].concat();
    for first in [0x40, 0x62] {
        alice.send(&frame(first, &[0, 1]));
        alice.send(&frame(first, &[0, 1, 0]));
        alice.send(&frame(first, &[0, 1, 0, 0]));
        alice.send(&frame(first, &[&[0, 1, 0, length][..], &twice].concat()));
        alice.send(&frame(first, &[&[0, 1, 0, 6][..], &reason].concat()));
    }
    for reason in [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] {
        alice.send(&frame(0x40, &[0, 1, reason]));
    }
    alice.ping();
    // [MQTT-3.14.2-1]: every reason that a client may give, and every form.
    for reason in [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
        for rest in [&[][..], &[0], &[&[length][..], &twice].concat()] {
            let connect = Connect { session_expiry: Some(9), ..Connect::v5("alice", "y", &token) };
            let (mut alice, _) = connect.open(server.mqtt());
            alice.send(&frame(0xe0, &[&[reason], rest].concat()));
            assert_eq!(alice.next(), None, "0x{reason:02x} {rest:x?}");
        }
    }
}
