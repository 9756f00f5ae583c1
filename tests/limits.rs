//! What one address, one user and one connection may do, and what happens beyond that.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::codec::frame;
use common::tls::{Certificate, connect as dial_tls};
use common::websocket::WebSocket;
use common::{Connect, Device, Packet, Raw, TestServer, assert_text, dial, patience};
use serde_json::json;

/// A server with these lines in its section `[door]`, where loopback counts as an address.
fn server_with(door: &str) -> TestServer {
    TestServer::start_with(&format!("[door]\nloopback_counts = true\n{door}"))
}

/// Whether the server closes a connection on which nothing is said, long before it would for the silence.
fn is_closed(mut stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
    match stream.read(&mut [0; 16]) {
        Ok(read) => read == 0,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

/// Whether a CONNECT is accepted; no if the connection is closed before it is looked at.
fn may_connect(server: &TestServer, connect: &Connect) -> bool {
    let mut stream = dial(server.mqtt());
    stream.set_read_timeout(Some(patience())).unwrap();
    let mut connack = [0; 4];
    // A connection that is closed already is noticed when reading.
    let _ = stream.write_all(&connect.encode());
    stream.read_exact(&mut connack).is_ok() && connack[3] == 0
}

/// An HTTP connection that has a place: a request on it was answered. One that comes before another's place is free is dialled again.
fn http_connection(server: &TestServer) -> TcpStream {
    let deadline = Instant::now() + patience();
    loop {
        let mut stream = dial(server.http());
        stream.set_read_timeout(Some(patience())).unwrap();
        // A connection that is closed already is noticed when reading.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
            return stream;
        }
        assert!(Instant::now() < deadline, "no place for HTTP");
    }
}

/// The value of a metric.
#[track_caller]
fn metric(server: &TestServer, name: &str) -> u64 {
    let mut stream = dial(server.admin());
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let metrics = std::io::read_to_string(stream).unwrap();
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {metrics}"))
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience();
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn text(id: &str, to: &str) -> String {
    json!({"id": id, "to": to, "text": {"body": id}}).to_string()
}

#[test]
fn s15_an_address_has_so_many_connections_over_all_listeners_and_one_more_is_closed() {
    let certificate = Certificate::make();
    let tls = certificate.config();
    let server =
        TestServer::start_with(&format!("{tls}[door]\nloopback_counts = true\nconnections_per_address_max = 4\n"));
    server.add_user("alice");
    let token = server.token("alice");
    let connect = |id: &str| Connect::v5("alice", id, &token);
    // One of each kind. A WebSocket keeps the place that its connection had.
    let mqtt = connect("tcp").open(server.mqtt()).0;
    let mqtts = connect("tls").open_over(dial_tls(server.mqtts(), &certificate.file("ca.pem"), &["mqtt"]));
    let websocket = connect("ws").open_over(WebSocket::open(server.http()));
    let mut held = vec![http_connection(&server)];
    eventually("all four are counted", || !may_connect(&server, &connect("more")));
    for (name, address) in
        [("mqtt", server.mqtt()), ("mqtts", server.mqtts()), ("http", server.http()), ("https", server.https())]
    {
        assert!(is_closed(dial(address)), "{name}");
    }
    // Another address is not concerned.
    drop(connect("elsewhere").open_over(dial_from([127, 0, 0, 2], server.mqtt())));
    // The operator's listener stands beside.
    assert!(metric(&server, "natter_door_over_address_limit_total") >= 5);
    for (name, mut client) in [("mqtt", mqtt), ("mqtts", mqtts), ("websocket", websocket)] {
        client.ping();
        drop(client);
        eventually(name, || may_connect(&server, &connect("more")));
        held.push(http_connection(&server));
        eventually(name, || !may_connect(&server, &connect("more")));
    }
}

#[test]
fn loopback_does_not_count_as_an_address_unless_it_is_told_to() {
    let server = TestServer::start_with("[door]\nconnections_per_address_max = 1\nauth_failures_per_min = 1\n");
    server.add_user("alice");
    let token = server.token("alice");
    for _ in 0..3 {
        Connect::v5("alice", "bad", "no token").refused(server.mqtt(), 0x86);
    }
    let _both = ["a", "b"].map(|id| Connect::v5("alice", id, &token).open(server.mqtt()));
}

#[test]
fn a_user_has_so_many_connections_and_a_takeover_is_not_one_more() {
    let server = TestServer::start_with("[door]\nconnections_per_user_max = 3\n");
    ["alice", "bob"].iter().for_each(|name| server.add_user(name));
    let token = server.token("alice");
    let connect = |id: &str| Connect::v5("alice", id, &token);
    let mut first = connect("a").open(server.mqtt()).0;
    let mut second = connect("b").open_over(WebSocket::open(server.http()));
    let third = connect("c").open(server.mqtt()).0;
    connect("d").refused(server.mqtt(), 0x97);
    Connect::v3("alice", "d", &token).refused(server.mqtt(), 3);
    let mut refused = WebSocket::open(server.http());
    refused.write_all(&connect("d").encode()).unwrap();
    eventually("over WebSocket too", || metric(&server, "natter_door_over_user_limit_total") == 3);
    // Another user is not concerned, and the same client comes back.
    Connect::v5("bob", "a", &server.token("bob")).open(server.mqtt());
    let mut again = connect("b").open(server.mqtt()).0;
    assert_eq!(second.expect_end(), Some(0x8e));
    connect("d").refused(server.mqtt(), 0x97);
    third.disconnect();
    eventually("the place is free", || connect("d").try_open(server.mqtt()).2 == 0);
    again.ping();
    first.ping();
}

/// Publishes `count` messages at QoS 1 as fast as the server takes them; returns when all are acknowledged. The first is `m1`.
fn flood(raw: &mut Raw, topic: &str, count: u16) {
    let mut sent = 0;
    let mut acknowledged = 0;
    while acknowledged < count {
        while sent < count && sent - acknowledged < 100 {
            sent += 1;
            let payload = text(&format!("m{sent}"), "bob");
            let bytes = raw.publish_bytes(topic, 0x02, sent, payload.as_bytes());
            raw.send(&bytes);
        }
        match raw.next() {
            Some(Packet::PubAck { id, reason, properties }) => {
                acknowledged += 1;
                assert_eq!((id, reason), (acknowledged, 0), "in order, none lost, none refused: {properties:?}");
            }
            other => panic!("expected PUBACK {}, got {other:?}", acknowledged + 1),
        }
    }
}

#[test]
fn s43_who_publishes_too_much_is_read_more_slowly_on_all_connections_and_others_are_not() {
    // 200 at once, then 100 a second.
    let server = TestServer::start_with("[door]\npublishes_per_s = 100\n");
    ["alice", "bob", "carol", "dave"].iter().for_each(|name| server.add_user(name));
    let token = server.token("alice");
    // A keepalive of 1 s: its clock must stand still while nothing is read.
    let open = |id: &str| Connect { keep_alive: 1, ..Connect::v5("alice", id, &token) }.open(server.mqtt()).0;
    let (mut one, mut two) = (open("one"), open("two"));
    let mut carol = Device::v5(&server, "carol", "phone");
    let mut dave = Device::v5(&server, "dave", "phone");
    let begun = Instant::now();
    thread::scope(|scope| {
        let floods = [
            scope.spawn(|| flood(&mut one, "users/alice/one/outbox", 300)),
            scope.spawn(|| flood(&mut two, "users/alice/two/outbox", 300)),
        ];
        let mut slowest = Duration::ZERO;
        for n in 0.. {
            if floods.iter().all(thread::ScopedJoinHandle::is_finished) {
                break;
            }
            let sent = Instant::now();
            carol.send("dave", &format!("c{n}"), "hi");
            assert_text(&dave.entry(), "carol", "hi");
            slowest = slowest.max(sent.elapsed());
            thread::sleep(Duration::from_millis(50));
        }
        assert!(slowest < Duration::from_secs(1), "carol waited for {slowest:?}");
    });
    let took = begun.elapsed();
    // 600 less the 200 at once.
    assert!(took >= Duration::from_millis(3900) && took < Duration::from_secs(15), "{took:?}");
    assert!(metric(&server, "natter_door_rate_pauses_total") > 10);
}

#[test]
fn qos_0_counts_too_and_packets_of_any_kind_have_a_rate_of_their_own() {
    let server = TestServer::start_with("[door]\npublishes_per_s = 50\npackets_per_s = 500\n");
    ["alice", "bob"].iter().for_each(|name| server.add_user(name));
    let mut alice = Connect::v5("alice", "a", &server.token("alice")).open(server.mqtt()).0;
    let begun = Instant::now();
    let typing = json!({"status": "typing", "chat": "bob"}).to_string();
    let bytes = alice.publish_bytes("users/alice/phone/outbox", 0, 0, typing.as_bytes());
    alice.send(&bytes.repeat(200));
    alice.ping();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1900) && took < Duration::from_secs(8), "{took:?}");

    let mut bob = Connect::v5("bob", "b", &server.token("bob")).open(server.mqtt()).0;
    let begun = Instant::now();
    bob.send(&frame(0xc0, &[]).repeat(2000));
    for n in 0..2000 {
        assert_eq!(bob.next(), Some(Packet::PingResp), "{n}");
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1900) && took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn acknowledgements_of_entries_have_no_rate_and_those_that_nobody_waits_for_do() {
    // 40 at once, then 20 a second.
    let server = TestServer::start_with("[door]\npackets_per_s = 20\n");
    ["alice", "bob"].iter().for_each(|name| server.add_user(name));
    let mut bob = Device::v5(&server, "bob", "phone");
    let token = server.token("alice");
    for n in 0..10 {
        // Each connection has a rate of its own.
        let mut alice = Connect::v5("alice", &format!("a{n}"), &token).open(server.mqtt()).0;
        let outbox = format!("users/alice/a{n}/outbox");
        for message in 0..30 {
            let id = alice.publish(&outbox, &text(&format!("{n}-{message}"), "bob"));
            alice.wait_for("a PUBACK", |packet| {
                matches!(packet, Packet::PubAck { id: got, .. } if *got == id).then_some(())
            });
        }
    }
    let begun = Instant::now();
    for _ in 0..300 {
        bob.entry();
    }
    let took = begun.elapsed();
    // Counted, 260 of them would take 13 s.
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(metric(&server, "natter_door_rate_pauses_total"), 0);

    let begun = Instant::now();
    bob.raw.send(&frame(0x40, &[0xff, 0xff]).repeat(100));
    bob.raw.ping();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(2900) && took < Duration::from_secs(12), "{took:?}");
}

#[test]
fn subscribing_and_unsubscribing_without_end_costs_no_memory() {
    let server = TestServer::with_users(&["alice"]);
    let mut alice = Connect::v5("alice", "a", &server.token("alice")).open(server.mqtt()).0;
    let inbox = "users/alice/phone/inbox";
    let mut churn = |rounds: u32| {
        for _ in 0..rounds {
            assert_eq!(alice.subscribe(inbox, 1), 1);
            let mut body = vec![0, 9, 0];
            common::codec::write_text(&mut body, inbox);
            alice.send(&frame(0xa2, &body));
            alice.wait_for("an UNSUBACK", |packet| matches!(packet, Packet::UnsubAck { .. }).then_some(()));
        }
    };
    churn(500);
    let before = rss_kib(&server);
    churn(2000);
    let after = rss_kib(&server);
    assert!(after < before + 4096, "from {before} to {after} KiB");
}

fn rss_kib(server: &TestServer) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn after_so_many_failed_authentications_an_address_is_refused_unseen() {
    let server = server_with("auth_failures_per_min = 20\n");
    server.add_user("alice");
    let token = server.token("alice");
    let good = Connect::v5("alice", "a", &token);
    let begun = Instant::now();
    for n in 0..20 {
        // One that is there and one that is not look the same.
        let user = if n % 2 == 0 { "alice" } else { "nobody" };
        Connect::v5(user, "guess", &format!("guess {n}")).refused(server.mqtt(), 0x86);
        if n == 10 {
            good.open(server.mqtt());
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "too slow a machine for what follows: {:?}", begun.elapsed());
    Connect::v5("alice", "guess", "guess").refused(server.mqtt(), 0x9f);
    Connect::v3("alice", "guess", "guess").refused(server.mqtt(), 3);
    // The token is not looked at.
    good.refused(server.mqtt(), 0x9f);
    let mut over_websocket = WebSocket::open(server.http());
    over_websocket.write_all(&good.encode()).unwrap();
    eventually("over WebSocket too", || metric(&server, "natter_door_auth_throttled_total") == 4);
    // Another address is not concerned, and this one comes in when its time is over.
    let other = dial_from([127, 0, 0, 2], server.mqtt());
    good.open_over(other);
    eventually("its time is over", || good.try_open(server.mqtt()).2 == 0);
    assert!(begun.elapsed() >= Duration::from_millis(2900), "one more every 3 s: {:?}", begun.elapsed());
    assert_eq!(metric(&server, "natter_door_auth_failures_total"), 20);
}

/// A TCP connection from an address of the loopback network.
fn dial_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(to).await.unwrap()
    });
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

#[test]
fn a_token_that_was_good_once_is_no_guess() {
    let server = server_with("auth_failures_per_min = 2\n");
    server.add_user("alice");
    let expired = server.token_with("alice", &["--ttl", "1s"]);
    eventually("it expires", || Connect::v5("alice", "a", &expired).try_open(server.mqtt()).2 == 0x86);
    for _ in 0..5 {
        Connect::v5("alice", "a", &expired).refused(server.mqtt(), 0x86);
    }
    Connect::v5("alice", "a", &server.token("alice")).open(server.mqtt());
}

#[test]
fn a_takeover_loop_is_refused_after_a_while_and_costs_no_memory() {
    let server = TestServer::start_with("[door]\nconnects_per_min = 100\n");
    ["alice", "bob"].iter().for_each(|name| server.add_user(name));
    let token = server.token("alice");
    let connect = Connect::v5("alice", "same", &token);
    let attempt = || {
        let (raw, _, code, _) = connect.try_open(server.mqtt());
        (raw, code)
    };
    let mut newest = None;
    let mut refused = 0;
    let mut after_100 = 0;
    for n in 0..1000 {
        match attempt() {
            (raw, 0) => newest = Some(raw),
            (_, code) => {
                assert_eq!(code, 0x9f);
                refused += 1;
            }
        }
        if n == 100 {
            after_100 = rss_kib(&server);
        }
    }
    assert!(refused >= 700, "{refused} refused");
    // Who was refused has taken nothing over, and others come in.
    newest.unwrap().ping();
    Connect::v5("bob", "same", &server.token("bob")).open(server.mqtt());
    assert!(rss_kib(&server) < after_100 + 4096, "from {after_100} to {} KiB", rss_kib(&server));
    eventually("only one is left", || metric(&server, "natter_door_connections") <= 2);
}

#[test]
fn a_publish_that_is_too_large_is_read_past_and_answered_in_its_order() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = Device::v5(&server, "bob", "phone");
    let mut alice = Device::v5(&server, "alice", "phone");
    let outbox = alice.outbox();
    let large = vec![b'x'; 255 * 1024];
    let (before, after) = (text("before", "bob"), text("after", "bob"));
    for (flags, id, payload) in [
        (0x02, 1, before.as_bytes()),
        (0x02, 2, &large),
        (0x00, 0, &large),
        (0x04, 3, &large),
        (0x02, 4, after.as_bytes()),
    ] {
        let bytes = alice.raw.publish_bytes(&outbox, flags, id, payload);
        alice.raw.send(&bytes);
    }
    let mut answers = Vec::new();
    while answers.len() < 4 {
        match alice.raw.next().expect("the connection goes on") {
            Packet::PubAck { id, reason, .. } => answers.push((id, reason)),
            Packet::PubRec { id, reason, .. } => answers.push((id, reason)),
            _ => {}
        }
    }
    assert_eq!(answers, [(1, 0), (2, 0x97), (3, 0x97), (4, 0)]);
    assert_text(&bob.entry(), "alice", "before");
    assert_text(&bob.entry(), "alice", "after");
    assert_eq!(metric(&server, "natter_door_publishes_oversize_total"), 3);

    // 3.1.1: a PUBACK, and the hint that it is none of success.
    let mut carol = Device::v3(&server, "alice", "tablet");
    let bytes = carol.raw.publish_bytes(&carol.outbox(), 0x02, 1, &large);
    carol.raw.send(&bytes);
    carol.raw.puback(1);
    let failed = carol.raw.wait_for("a hint", |packet| match packet {
        Packet::Publish { payload, .. } => Some(common::parse(payload)).filter(|entry| entry["status"] == "failed"),
        _ => None,
    });
    assert_eq!(failed["errors"][0]["code"], 131_009, "{failed}");

    // Larger still, from the header alone.
    alice.raw.send(b"\x32\x81\x80\x10");
    assert_eq!(alice.raw.expect_end(), Some(0x95));
}

#[test]
fn an_oversized_publish_is_not_kept_while_it_is_read() {
    let server = TestServer::with_users(&["alice"]);
    let token = server.token("alice");
    let mut clients: Vec<Raw> =
        (0..60).map(|n| Connect::v5("alice", &format!("c{n}"), &token).open(server.mqtt()).0).collect();
    let before = rss_kib(&server);
    for client in &mut clients {
        let bytes = client.publish_bytes("users/alice/phone/outbox", 0x02, 1, &vec![b'x'; 255 * 1024]);
        client.send(&bytes[..250 * 1024]);
    }
    // 15 MB are on their way in, and have been read when the next answer comes.
    thread::sleep(Duration::from_millis(500));
    let after = rss_kib(&server);
    assert!(after < before + 5000, "from {before} to {after} KiB");
    for client in &mut clients {
        client.send(&vec![b'x'; 5 * 1024 + 64]);
    }
}

#[test]
fn a_connect_that_is_too_large_or_no_connect_is_refused_from_its_first_bytes() {
    let server = TestServer::with_users(&["alice"]);
    let before = rss_kib(&server);
    for (what, bytes) in [
        ("a CONNECT of 256 MiB", &b"\x10\xff\xff\xff\x7f"[..]),
        ("a CONNECT of 16 KiB and a byte", b"\x10\x81\x80\x01"),
        ("a length of five bytes", b"\x10\xff\xff\xff\xff\x01"),
        ("PUBLISH", b"\x30\x80\x80\x04"),
        ("CONNACK", b"\x20"),
        ("UNSUBACK", b"\xb0"),
        ("AUTH", b"\xf0"),
        ("type 0", b"\x00"),
    ] {
        let mut stream = dial(server.mqtt());
        stream.write_all(bytes).unwrap();
        let began = Instant::now();
        let mut answer = Vec::new();
        stream.set_read_timeout(Some(patience())).unwrap();
        let _ = stream.read_to_end(&mut answer);
        assert!(began.elapsed() < Duration::from_secs(2), "{what}: not at once");
        assert!(answer.is_empty(), "{what}: {answer:02x?}");
    }
    // The largest that is read, and a password that fills it.
    Connect::v5("alice", "a", &"x".repeat(16_000)).refused(server.mqtt(), 0x86);
    let after = rss_kib(&server);
    assert!(after < before + 2048, "from {before} to {after} KiB");
    Connect::v5("alice", "a", &server.token("alice")).open(server.mqtt()).0.ping();
}

#[test]
fn who_shows_nothing_is_the_user_that_the_configuration_names() {
    let server = TestServer::start_with("[mqtt]\nanonymous_as = \"demo\"\n");
    server.add_user("alice");
    let nothing = |v5| Connect { v5, user: None, token: None, ..Connect::v5("demo", "esp32", "") };
    let mut alice = Device::v5(&server, "alice", "phone");
    for v5 in [false, true] {
        let mut demo = nothing(v5).open(server.mqtt()).0;
        assert_eq!(demo.subscribe("users/demo/esp32/inbox", 1), 1, "any device");
        let (reason, _) = demo.publish_and_wait("users/demo/esp32/outbox", &text(&format!("m{v5}"), "alice"));
        assert_eq!(reason, 0);
        assert_text(&alice.entry(), "demo", &format!("m{v5}"));
        // His rights and no others.
        assert!(demo.subscribe("users/alice/phone/inbox", 1) >= 0x80);
        demo.publish_and_wait("users/alice/phone/outbox", &text(&format!("not {v5}"), "demo"));
        demo.disconnect();
    }
    let over_websocket = nothing(true).open_over(WebSocket::open(server.http()));
    over_websocket.disconnect();
    // Who shows something is checked as ever.
    let own = server.token("alice");
    let bad: [(Option<&str>, Option<&str>); 4] =
        [(Some("demo"), None), (Some("demo"), Some("x")), (None, Some("x")), (Some(""), Some(""))];
    for (user, token) in bad {
        let connect =
            Connect { user: user.map(str::to_owned), token: token.map(str::to_owned), ..Connect::v5("demo", "x", "") };
        connect.refused(server.mqtt(), 0x86);
    }
    Connect::v5("demo", "x", &own).refused(server.mqtt(), 0x87);
    Connect::v5("alice", "x", &own).open(server.mqtt());
}

#[test]
fn those_who_come_at_once_are_let_in_one_after_the_other_and_nobody_is_refused() {
    let server = server_with("connects_per_s = 10\n");
    server.add_user("alice");
    let token = server.token("alice");
    let begun = Instant::now();
    let mut together: Vec<Raw> = (0..8)
        .map(|n| {
            let mut raw = Raw::dial(server.mqtt(), true);
            raw.send(&Connect::v5("alice", &format!("c{n}"), &token).encode());
            raw
        })
        .collect();
    for raw in &mut together {
        assert!(matches!(raw.next(), Some(Packet::ConnAck { code: 0, .. })));
    }
    // The first need not wait, the others have a tenth of a second each.
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
    assert!(metric(&server, "natter_door_connects_paced_total") >= 6);
}

#[test]
fn who_shows_nothing_is_refused_without_it() {
    let server = TestServer::start();
    Connect { user: None, token: None, ..Connect::v5("demo", "esp32", "") }.refused(server.mqtt(), 0x86);
    Connect { user: None, token: None, ..Connect::v3("demo", "esp32", "") }.refused(server.mqtt(), 4);
}

#[test]
fn connack_comes_within_its_time_or_the_connection_ends() {
    let server = TestServer::start_with("[door]\nconnect_timeout_s = 2\n");
    server.add_user("alice");
    let other = rusqlite::Connection::open(server.data().join("natter.db")).unwrap();
    let connect = Connect::v5("alice", "a", &server.token("alice")).keeping_its_session().encode();
    // The bridge commits nothing meanwhile, so that a session cannot be opened.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = Instant::now();
    let mut stream = dial(server.mqtt());
    stream.set_read_timeout(Some(patience())).unwrap();
    let (first, rest) = connect.split_at(20);
    stream.write_all(first).unwrap();
    thread::sleep(Duration::from_millis(1500));
    stream.write_all(rest).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let took = begun.elapsed();
    other.execute_batch("COMMIT").unwrap();
    assert!(took >= Duration::from_millis(1900) && took < Duration::from_millis(3000), "{took:?}: {answer:02x?}");
    assert_eq!(answer.first(), Some(&0x20), "a CONNACK says why");
}

#[test]
fn above_the_memory_ceiling_nobody_more_comes_in_and_the_server_says_so() {
    let server = TestServer::start_with("[door]\nmemory_max_mib = 1\n");
    server.add_user("alice");
    let connect = Connect::v5("alice", "a", &server.token("alice"));
    server.wait_for_log("memory is above its ceiling");
    assert!(!may_connect(&server, &connect));
    let refusal = WebSocket::open_over(dial(server.http()), &[common::websocket::SUBPROTOCOL]).err().unwrap();
    assert_eq!(refusal.status, 503, "{refusal:?}");
    assert_eq!(metric(&server, "natter_door_memory_refused_total"), 2);
    assert!(metric(&server, "natter_memory_bytes") > 1 << 20);
    // It serves those who are there.
    assert_eq!(metric(&server, "natter_ready"), 1);
}

#[test]
fn those_who_say_nothing_take_no_more_than_their_share_of_the_connections() {
    let server = TestServer::start_with("[door]\nhandshakes_max = 3\nconnect_timeout_s = 2\n");
    server.add_user("alice");
    let connect = |id: &str| Connect::v5("alice", id, &server.token("alice"));
    // Whoever is in does not count.
    let mut first = connect("first").open(server.mqtt()).0;
    let silent: Vec<_> = (0..3).map(|_| dial(server.mqtt())).collect();
    eventually("three say nothing", || metric(&server, "natter_door_connections") == 4);
    assert!(!may_connect(&server, &connect("second")));
    assert_eq!(metric(&server, "natter_door_over_handshake_limit_total"), 1);
    first.ping();
    // They are cut in their time.
    assert!(silent.into_iter().all(is_closed));
    eventually("there is room again", || may_connect(&server, &connect("second")));
}
