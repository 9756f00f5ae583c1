//! How connections and sessions end: what docs/conformance.md claims of keepalive, takeover, DISCONNECT, session expiry and a stop of the
//! server; security tests S13, S26, S48, S49.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use common::codec::{SESSION_EXPIRY, frame};
use common::{Connect, Device, Packet, Random, Raw, TestServer, assert_text, dial, parse, patience};
use serde_json::json;

const OUTBOX: &str = "users/alice/phone/outbox";
const INBOX: &str = "users/alice/phone/inbox";

fn alice(server: &TestServer, v5: bool, client_id: &str) -> Connect {
    Connect { v5, ..Connect::v5("alice", client_id, &server.token("alice")) }
}

/// How many connections the door counts.
fn connections(server: &TestServer) -> u64 {
    let mut stream = dial(server.admin());
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let line = answer.lines().find(|line| line.starts_with("natter_door_connections ")).expect("a gauge");
    line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).expect("a number")
}

/// [MQTT-3.1.2-11], [MQTT-3.1.2-22]: only what comes in counts.
#[test]
fn what_the_server_sends_keeps_no_silent_client_alive() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = Device::v5(&server, "bob", "phone");
    for v5 in [true, false] {
        let connect = Connect { keep_alive: 1, ..alice(&server, v5, "silent") };
        let (mut silent, _) = connect.open(server.mqtt());
        assert_eq!(silent.subscribe(INBOX, 0), 0);
        let (mut pinging, _) = Connect { keep_alive: 1, ..alice(&server, v5, "pinging") }.open(server.mqtt());
        let since = Instant::now();
        let reader = thread::spawn(move || (silent.expect_end(), since.elapsed()));
        let mut n = 0;
        while !reader.is_finished() {
            assert!(since.elapsed() < patience(), "never closed");
            bob.send("alice", &format!("m-{v5}-{n}"), "hello");
            pinging.ping();
            n += 1;
            // What is waited for is time itself.
            thread::sleep(Duration::from_millis(50));
        }
        let (reason, lived) = reader.join().unwrap();
        assert_eq!(reason, v5.then_some(0x8d));
        assert!(n > 10 && lived > Duration::from_millis(1400) && lived < Duration::from_secs(4), "{n}, {lived:?}");
        pinging.ping();
    }
}

/// [MQTT-3.1.4-3], and [MQTT-3.14.4-1]: nothing comes behind DISCONNECT.
#[test]
fn s13_a_loop_of_takeovers_leaves_one_connection() {
    let server = TestServer::with_users(&["alice"]);
    for (v5, reason) in [(true, Some(0x8e)), (false, None)] {
        let connect = alice(&server, v5, "same").keeping_its_session();
        let (mut last, _) = connect.open(server.mqtt());
        for round in 0..300 {
            let (new, present) = connect.open(server.mqtt());
            assert!(present);
            let mut old = std::mem::replace(&mut last, new);
            assert_eq!(old.expect_end(), reason, "round {round}");
        }
        last.ping();
        let deadline = Instant::now() + patience();
        while connections(&server) != 1 {
            assert!(Instant::now() < deadline, "{} connections", connections(&server));
            thread::sleep(Duration::from_millis(10));
        }
        last.disconnect();
    }
}

#[test]
fn s26_a_connection_ends_with_its_token() {
    let server = TestServer::with_users(&["alice"]);
    let begun = Instant::now();
    let token = server.token_with("alice", &["--ttl", "3s"]);
    let (mut new, _) = Connect::v5("alice", "new", &token).open(server.mqtt());
    let (mut old, _) = Connect::v3("alice", "old", &token).open(server.mqtt());
    assert_eq!(new.subscribe(INBOX, 1), 1);
    old.ping();
    assert_eq!(new.expect_end(), Some(0x87));
    assert_eq!(old.expect_end(), None);
    let lived = begun.elapsed();
    assert!(lived > Duration::from_millis(1900) && lived < Duration::from_secs(6), "{lived:?}");
}

/// [MQTT-3.14.0-1], [MQTT-3.14.2-2], [MQTT-3.14.4-2], [MQTT-4.13.2-1]
#[test]
fn a_stop_of_the_server_is_told_and_sessions_outlive_it() {
    let mut server = TestServer::with_users(&["alice"]);
    let kept = alice(&server, true, "kept").keeping_its_session();
    let mut new = kept.open(server.mqtt()).0;
    let mut old = alice(&server, false, "old").open(server.mqtt()).0;
    // No CONNECT, so no DISCONNECT either.
    let mut stranger = Raw::dial(server.mqtt(), true);
    let reading = thread::spawn(move || {
        let packet = new.next();
        (packet, new.next(), old.next(), stranger.next())
    });
    server.terminate();
    let (disconnect, end, of_old, of_stranger) = reading.join().unwrap();
    let Some(Packet::Disconnect { reason: 0x8b, properties }) = disconnect else {
        panic!("expected DISCONNECT 0x8B, got {disconnect:?}")
    };
    assert_eq!(properties.number(SESSION_EXPIRY), None);
    assert_eq!((end, of_old, of_stranger), (None, None, None));
    server.restart();
    assert!(kept.open(server.mqtt()).1, "Session Present");
}

/// [MQTT-3.1.2-4], [MQTT-3.1.2-5], [MQTT-3.1.2-23], [MQTT-3.1.3-2], [MQTT-3.1.4-4], [MQTT-3.2.2-2], [MQTT-3.2.2-3], [MQTT-4.1.0-2]
#[test]
fn a_session_lives_as_long_as_was_said() {
    let server = TestServer::with_users(&["alice"]);
    let with = |client_id: &str, expiry: Option<u32>, clean: bool| Connect {
        session_expiry: expiry,
        clean,
        ..alice(&server, true, client_id)
    };
    let present = |client_id: &str| with(client_id, Some(3600), false).open(server.mqtt()).1;

    // None is asked for: it ends with the connection.
    with("none", None, false).open(server.mqtt()).0.disconnect();
    assert!(!present("none"));
    // A minute; another client id does not find it, and a clean start ends it.
    with("minute", Some(60), true).open(server.mqtt()).0.disconnect();
    assert!(!present("Minute"));
    assert!(present("minute"));
    assert!(!with("minute", Some(60), true).open(server.mqtt()).1);
    // Brought to nothing, or longer, by DISCONNECT.
    for (client_id, asked, said, expected) in [("less", 60, 0_u32, false), ("more", 1, 3600, true)] {
        let (mut raw, _) = with(client_id, Some(asked), true).open(server.mqtt());
        raw.send(&frame(0xe0, &[&[0, 5, SESSION_EXPIRY][..], &said.to_be_bytes()].concat()));
        assert_eq!(raw.next(), None);
        if expected {
            // What is waited for is time itself: longer than was asked for at first.
            thread::sleep(Duration::from_millis(2500));
        }
        assert_eq!(present(client_id), expected, "{client_id}");
    }
    // A second, and it is over.
    with("second", Some(1), true).open(server.mqtt()).0.disconnect();
    thread::sleep(Duration::from_millis(2500));
    assert!(!present("second"));
    // On 3.1.1 only CleanSession says it.
    let keeping = Connect { v5: false, ..with("old", None, false) };
    assert!(!keeping.open(server.mqtt()).1);
    assert!(keeping.open(server.mqtt()).1);
    assert!(!Connect { clean: true, ..keeping.clone() }.open(server.mqtt()).1);
    assert!(!keeping.open(server.mqtt()).1);
}

#[test]
fn s48_sessions_are_counted_and_their_expiry_is_clamped() {
    let server = TestServer::start_with("[door]\nsession_expiry_max_s = 100\n[bridge]\nsessions_max = 3\n");
    server.add_user("alice");
    for n in 0..20 {
        let connect = Connect { session_expiry: Some(u32::MAX), ..alice(&server, true, &format!("random-{n}")) };
        let (raw, _, code, properties) = connect.try_open(server.mqtt());
        assert_eq!((code, properties.number(SESSION_EXPIRY)), (0, Some(100)));
        raw.disconnect();
    }
    let left = (0..20).filter(|n| {
        let connect = Connect { session_expiry: Some(0), clean: false, ..alice(&server, true, &format!("random-{n}")) };
        connect.open(server.mqtt()).1
    });
    assert!(left.count() <= 3);
}

#[test]
fn s48_the_expiry_of_a_disconnect_is_clamped_too() {
    let server = TestServer::start_with("[door]\nsession_expiry_max_s = 1\n");
    server.add_user("alice");
    let connect = Connect { session_expiry: Some(1), clean: false, ..alice(&server, true, "x") };
    let (mut raw, _) = connect.open(server.mqtt());
    raw.send(&frame(0xe0, &[0, 5, SESSION_EXPIRY, 0xff, 0xff, 0xff, 0xff]));
    assert_eq!(raw.next(), None);
    // What is waited for is time itself.
    thread::sleep(Duration::from_millis(2500));
    assert!(!connect.open(server.mqtt()).1);
}

/// [MQTT-4.1.0-2]
#[test]
fn a_session_whose_connection_died_with_the_server_ends_too() {
    let mut server = TestServer::with_users(&["alice"]);
    let connect = Connect { session_expiry: Some(1), clean: false, ..alice(&server, true, "x") };
    let (mut raw, _) = connect.open(server.mqtt());
    raw.ping();
    server.kill9();
    server.restart();
    // What is waited for is time itself.
    thread::sleep(Duration::from_millis(2500));
    assert!(!connect.open(server.mqtt()).1);
}

#[test]
fn s49_two_hostile_connections_harm_nobody() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = Device::v5(&server, "bob", "phone");
    let seed = std::env::var("NATTER_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(49);
    let mut random = Random(seed);
    let tokens = [server.token("alice"), server.token("alice")];
    let mut sides: Vec<Raw> = Vec::new();
    for round in 0..600 {
        let v5 = random.below(2) == 0;
        if sides.len() < 2 || random.below(4) == 0 {
            let token = &tokens[usize::try_from(random.below(2)).unwrap()];
            let will = (random.below(2) == 0).then(|| (OUTBOX.to_owned(), 1, b"{\"sync\":true}".to_vec()));
            let connect = Connect { v5, will, ..Connect::v5("alice", "hostile", token) };
            let connect = if random.below(2) == 0 { connect.keeping_its_session() } else { connect };
            let mut raw = Raw::dial(server.mqtt(), v5);
            raw.send(&connect.encode());
            sides.truncate(1);
            sides.insert(0, raw);
        }
        let side = usize::try_from(random.below(sides.len() as u64)).unwrap();
        let (v5, side) = (sides[side].v5, &mut sides[side]);
        let id = u16::try_from(random.below(4) + 1).unwrap();
        let [high, low] = id.to_be_bytes();
        let head: &[u8] = if v5 { &[high, low, 0] } else { &[high, low] };
        let filter = [&[0, 23][..], INBOX.as_bytes()].concat();
        let bytes = match random.below(10) {
            0 => frame(0x82, &[head, &filter, &[1]].concat()),
            1 => frame(0xa2, &[head, &filter].concat()),
            2 => frame(0xe0, &[]),
            3 => side.publish_bytes(OUTBOX, 0x04, id, b"{\"sync\":true}"),
            4 => side.publish_bytes(OUTBOX, 0x0a, id, b"{\"ack\":0}"),
            5 => frame(0x62, &[high, low]),
            6 => frame(0x40, &[high, low]),
            7 => frame(0xc0, &[]),
            8 => (0..random.below(20)).map(|_| u8::try_from(random.below(256)).unwrap()).collect(),
            _ => frame(0x32, &[0, 9, b'u']),
        };
        side.send(&bytes);
        if round % 100 == 99 {
            bob.raw.ping();
            let mut witness = Device::v5(&server, "alice", "witness");
            witness.send("bob", &format!("m{seed}-{round}"), "still here");
            assert_text(&bob.entry(), "alice", "still here");
        }
    }
}

/// A will to bob.
fn will(body: &str) -> Option<(String, u8, Vec<u8>)> {
    Some((OUTBOX.to_owned(), 1, json!({"to": "bob", "text": {"body": body}}).to_string().into_bytes()))
}

/// [MQTT-3.1.2-10], [MQTT-3.1.2-14], [MQTT-3.14.4-3]
#[test]
fn a_will_is_published_at_every_end_but_a_disconnect_with_reason_0() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = Device::v5(&server, "bob", "phone");
    type Ending = fn(&TestServer, &Connect, Raw);
    let drops: Ending = |_, _, raw| drop(raw);
    let disconnects: Ending = |_, _, raw| raw.disconnect();
    let disconnects_with_will: Ending = |_, _, mut raw| {
        raw.send(&frame(0xe0, &[0x04]));
        assert_eq!(raw.next(), None);
    };
    let breaks_the_rules: Ending = |_, _, mut raw| {
        raw.send(&frame(0xc1, &[]));
        raw.expect_end();
    };
    let falls_silent: Ending = |_, _, mut raw| {
        raw.expect_end();
    };
    let is_taken_over: Ending = |server, connect, mut raw| {
        let next = Connect { will: None, ..connect.clone() }.open(server.mqtt()).0;
        raw.expect_end();
        next.disconnect();
    };
    for (what, end, is_published, on_v3) in [
        ("the socket is closed", drops, true, true),
        ("DISCONNECT", disconnects, false, true),
        ("DISCONNECT 0x04", disconnects_with_will, true, false),
        ("an illegal packet", breaks_the_rules, true, true),
        ("silence", falls_silent, true, true),
        ("a takeover", is_taken_over, true, true),
    ] {
        for v5 in [true, false] {
            if !v5 && !on_v3 {
                continue;
            }
            let connect = Connect { will: will(what), keep_alive: 1, ..alice(&server, v5, "testator") };
            end(&server, &connect, connect.open(server.mqtt()).0);
            // The close of a will that is not published is behind it: what comes next is this.
            let mut witness = Device::v5(&server, "alice", "witness");
            if is_published {
                let (_, id, payload) = bob.raw.next_publish();
                assert_text(&parse(&payload), "alice", what);
                bob.raw.ack(id);
            }
            let (reason, _) = witness.publish(&json!({"to": "bob", "text": {"body": "behind"}}));
            assert_eq!(reason, 0);
            let (_, id, payload) = bob.raw.next_publish();
            assert_text(&parse(&payload), "alice", "behind");
            bob.raw.ack(id);
        }
    }
    // No will, nothing.
    drop(alice(&server, true, "intestate").open(server.mqtt()));
    bob.raw.ping();
}

/// [MQTT-3.1.3-9]; 3.1.3.2.2: at the end of the delay or of the session, whichever is first.
#[test]
fn a_will_waits_for_its_delay_unless_the_session_ends_before() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = Device::v5(&server, "bob", "phone");
    let delayed = |body: &str, delay: u32, expiry: Option<u32>| Connect {
        will: will(body),
        will_properties: [&[0x18][..], &delay.to_be_bytes()].concat(),
        session_expiry: expiry,
        clean: false,
        ..alice(&server, true, "testator")
    };
    let mut arrives = |body: &str| {
        let (_, id, payload) = bob.raw.next_publish();
        assert_text(&parse(&payload), "alice", body);
        bob.raw.ack(id);
    };
    // No session, no delay.
    drop(delayed("at once", 600, None).open(server.mqtt()));
    arrives("at once");
    // After a second, and not before.
    let begun = Instant::now();
    drop(delayed("after a second", 1, Some(600)).open(server.mqtt()));
    arrives("after a second");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    // Who comes back in time takes it back: the next that arrives is another.
    drop(delayed("never", 2, Some(600)).open(server.mqtt()));
    let (back, _) = Connect { will: None, ..delayed("", 0, Some(600)) }.open(server.mqtt());
    thread::sleep(Duration::from_millis(2500));
    back.disconnect();
    // A clean start ends the session that it belongs to, and so does a session expiry that is shorter.
    drop(delayed("the session was ended", 600, Some(600)).open(server.mqtt()));
    Connect { will: None, clean: true, ..delayed("", 0, None) }.open(server.mqtt()).0.disconnect();
    arrives("the session was ended");
    drop(delayed("the session was over", 600, Some(1)).open(server.mqtt()));
    arrives("the session was over");
}
