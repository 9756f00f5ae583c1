//! The door over real sockets and the real router, with a bridge that does what the test says.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use common::{Client, SOON, packet, publish, start};
use natter_broker::Config;
use natter_protocol::ids::ConnectionId;
use natter_protocol::link::{Answer, Down, Packet, Up, WINDOW_FRAMES};

const OUTBOX: &str = "users/alice/phone/outbox";

fn opened(frame: Up) -> ConnectionId {
    match frame {
        Up::Open(connection, _) => connection,
        other => panic!("expected an open, got {other:?}"),
    }
}

fn answer(connection: ConnectionId, id: u16) -> Down {
    Down::Answer { connection, packet: Packet { id, qos: 1 }, answer: Answer::Done }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_puback_waits_for_the_bridge_and_belongs_to_its_connection() {
    let (_door, mut bridge, address) = start(Config::default()).await;
    let mut old = Client::connect(address, 60).await;
    let first = opened(bridge.next().await);
    old.write(&publish(OUTBOX, 1, b"{}")).await;
    assert!(matches!(bridge.next().await, Up::Publish(_)));
    old.expect_nothing().await;

    let mut new = Client::connect(address, 60).await;
    let (kind, body) = old.read().await.expect("a DISCONNECT");
    assert_eq!((kind, body[0]), (0xe0, 0x8e));
    assert!(old.read().await.is_none());
    assert!(matches!(bridge.next().await, Up::Close { connection, by_server: true, .. } if connection == first));
    let second = opened(bridge.next().await);
    new.write(&publish(OUTBOX, 1, b"{}")).await;
    assert!(matches!(bridge.next().await, Up::Publish(_)));
    bridge.send(&answer(first, 1));
    new.expect_nothing().await;
    bridge.send(&answer(second, 1));
    assert_eq!(new.read().await.expect("a PUBACK").0, 0x40);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_topics_and_large_packets_are_answered_and_hurt_nobody() {
    let (_door, mut bridge, address) = start(Config::default()).await;
    let mut client = Client::connect(address, 60).await;
    let connection = opened(bridge.next().await);
    for (id, bytes, reason) in
        [(1, publish("été/x", 1, b"boom"), 0x87), (2, publish(OUTBOX, 2, &vec![b'x'; 200 * 1024]), 0x97)]
    {
        client.write(&bytes).await;
        let Up::Refused { kind, details, .. } = bridge.next().await else { panic!("expected a refusal") };
        let answer = Answer::Refused { kind, details };
        bridge.send(&Down::Answer { connection, packet: Packet { id, qos: 1 }, answer });
        let (kind, body) = client.read().await.expect("a PUBACK");
        assert_eq!((kind, body[2]), (0x40, reason));
    }
    client.write(&publish(OUTBOX, 3, b"{}")).await;
    assert!(matches!(bridge.next().await, Up::Publish(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_refused() {
    let (_door, _bridge, address) = start(Config::default()).await;
    let mut client = Client::dial(address, "expired", 60).await;
    let (kind, body) = client.read().await.expect("CONNACK");
    assert_eq!((kind, body[1]), (0x20, 0x86));
    assert!(client.read().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_packets_of_one_read_are_all_taken_in() {
    let (_door, mut bridge, address) = start(Config::default()).await;
    let mut client = Client::connect(address, 60).await;
    opened(bridge.next().await);
    let mut bytes = publish(OUTBOX, 0, b"{}").repeat(300);
    bytes.extend(packet(0xc0, b""));
    client.write(&bytes).await;
    for n in 0..300 {
        assert!(matches!(bridge.next().await, Up::Publish(_)), "{n}");
    }
    assert_eq!(client.read().await.expect("PINGRESP").0, 0xd0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credit_nothing_more_is_read_and_with_it_everything() {
    let (_door, mut bridge, address) = start(Config::default()).await;
    let mut client = Client::connect(address, 60).await;
    let total = WINDOW_FRAMES + 500;
    client.write(&publish(OUTBOX, 0, b"{}").repeat(usize::try_from(total).unwrap())).await;
    let mut frames = 0;
    while bridge.next_within(Duration::from_millis(500)).await.is_some() {
        frames += 1;
    }
    assert_eq!(frames, WINDOW_FRAMES);
    bridge.confirm();
    while frames < total + 1 {
        bridge.next().await;
        frames += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_and_half_packets_end_a_connection() {
    let config = Config { packet_time_max: Duration::from_millis(500), ..Config::default() };
    let (_door, _bridge, address) = start(config).await;
    for (keep_alive, half, at_least) in [(1, &b""[..], 1400), (60, &b"\x32\x40ab"[..], 450)] {
        let mut client = Client::connect(address, keep_alive).await;
        let since = Instant::now();
        client.write(half).await;
        let (kind, body) = client.read().await.expect("a DISCONNECT");
        assert_eq!((kind, body[0]), (0xe0, 0x8d));
        assert!(since.elapsed() >= Duration::from_millis(at_least) && since.elapsed() < Duration::from_secs(3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_tells_every_client() {
    let (door, mut bridge, address) = start(Config::default()).await;
    let mut client = Client::connect(address, 60).await;
    let first = opened(bridge.next().await);
    let drained = tokio::spawn(door.drain());
    let (kind, body) = client.read().await.expect("a DISCONNECT");
    assert_eq!((kind, body[0]), (0xe0, 0x8b));
    drop(client);
    assert!(matches!(bridge.next().await, Up::Close { connection, by_server: true, .. } if connection == first));
    tokio::time::timeout(SOON, drained).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_resets_leave_no_connection_behind() {
    let (door, _bridge, address) = start(Config::default()).await;
    for _ in 0..1000 {
        let client = Client::dial(address, "good", 60).await;
        client.0.set_zero_linger().unwrap();
    }
    let give_up = Instant::now() + 2 * SOON;
    while door.stats().connections > 0 {
        assert!(Instant::now() < give_up, "{} left", door.stats().connections);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_closed_and_another_goes_on() {
    let config = Config { queue_frames_max: 64, ..Config::default() };
    let (door, mut bridge, address) = start(config).await;
    let mut slow = Client::connect_as(address, 60, 's').await;
    let slow_id = opened(bridge.next().await);
    let mut other = Client::connect_as(address, 60, 'o').await;
    opened(bridge.next().await);
    slow.write(&packet(0x82, b"\0\x01\0\0\x17users/alice/phone/inbox\x01")).await;
    assert!(matches!(bridge.next().await, Up::Attach { .. }));
    bridge.send(&Down::Attached { connection: slow_id, request: 1, reason: 1 });
    let payload = bytes::Bytes::from(vec![b'x'; 60 * 1024]);
    let give_up = Instant::now() + 2 * SOON;
    for seq in 1.. {
        assert!(Instant::now() < give_up, "never closed");
        bridge.send(&Down::Entry { connection: slow_id, seq, again: false, payload: payload.clone() });
        tokio::time::sleep(Duration::from_millis(2)).await;
        if door.stats().slow_consumers > 0 {
            break;
        }
    }
    other.write(&packet(0xc0, b"")).await;
    assert_eq!(other.read().await.expect("PINGRESP").0, 0xd0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_does_not_answer_costs_a_client_its_connection_not_its_patience() {
    let config = Config { connect_time_max: Duration::from_millis(500), ..Config::default() };
    let (_door, mut bridge, address) = start(config).await;
    let mut client = Client::dial_with(address, "good", 60, 'c', false).await;
    opened(bridge.next().await);
    let (kind, body) = client.read().await.expect("CONNACK");
    assert_eq!((kind, body[1]), (0x20, 0x88));
    drop(client);
    assert!(matches!(bridge.next().await, Up::Close { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_counts_again_when_a_subscribe_is_answered_late() {
    let (_door, mut bridge, address) = start(Config::default()).await;
    let mut client = Client::connect(address, 1).await;
    let connection = opened(bridge.next().await);
    client.write(&packet(0x82, b"\0\x01\0\0\x17users/alice/phone/inbox\x01")).await;
    assert!(matches!(bridge.next().await, Up::Attach { .. }));
    tokio::time::sleep(Duration::from_secs(2)).await;
    bridge.send(&Down::Attached { connection, request: 1, reason: 1 });
    assert_eq!(client.read().await.expect("SUBACK").0, 0x90);
    let (kind, body) = client.read().await.expect("a DISCONNECT");
    assert_eq!((kind, body[0]), (0xe0, 0x8d));
}

/// An MQTT 5 CONNECT of client `w` with a session of 60 s, a will with this delay, and this Maximum Packet Size.
fn connect_with_will(clean: bool, delay_secs: u8, packet_bytes_max: u8) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x05".to_vec();
    body.extend([if clean { 0xc6 } else { 0xc4 }, 0, 60, 10, 0x11, 0, 0, 0, 60, 0x27, 0, 0, 0, packet_bytes_max, 0, 1]);
    body.extend([b'w', 5, 0x18, 0, 0, 0, delay_secs, 0, 24]);
    body.extend(OUTBOX.as_bytes());
    body.extend(b"\0\x02{}\0\x05alice\0\x04good");
    packet(0x10, &body)
}

async fn dial_with_will(
    address: std::net::SocketAddr,
    bridge: &mut common::FakeBridge,
    clean: bool,
    delay_secs: u8,
) -> (Client, ConnectionId) {
    let mut client = Client(tokio::net::TcpStream::connect(address).await.unwrap());
    client.write(&connect_with_will(clean, delay_secs, 100)).await;
    let connection = opened(bridge.next().await);
    open(bridge, &mut client, connection).await;
    (client, connection)
}

async fn open(bridge: &mut common::FakeBridge, client: &mut Client, connection: ConnectionId) {
    let device = natter_protocol::DeviceId::parse("phone").ok();
    bridge.send(&Down::Opened { connection, session_present: true, device, held: Vec::new() });
    let (kind, body) = client.read().await.expect("CONNACK");
    assert_eq!((kind, body[0], body[1]), (0x20, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_goes_up_before_the_close_and_a_takeover_is_an_end() {
    let (_door, mut bridge, address) = start(Config::default()).await;
    let (_old, first) = dial_with_will(address, &mut bridge, false, 0).await;
    let mut new = Client(tokio::net::TcpStream::connect(address).await.unwrap());
    new.write(&connect_with_will(false, 0, 100)).await;
    assert!(matches!(bridge.next().await, Up::Publish(will) if will.will && will.connection == first));
    assert!(matches!(bridge.next().await, Up::Close { connection, .. } if connection == first));
    let second = opened(bridge.next().await);
    // DISCONNECT 0x00 takes the will back; 0x04 does not.
    open(&mut bridge, &mut new, second).await;
    new.write(&packet(0xe0, b"")).await;
    assert!(matches!(bridge.next().await, Up::Close { connection, .. } if connection == second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_will_is_forgotten_by_who_comes_back_and_due_when_the_session_ends() {
    let (_door, mut bridge, address) = start(Config::default()).await;
    let (client, _) = dial_with_will(address, &mut bridge, false, 1).await;
    drop(client);
    assert!(matches!(bridge.next().await, Up::Close { .. }));
    let (client, second) = dial_with_will(address, &mut bridge, false, 2).await;
    assert!(bridge.next_within(Duration::from_millis(1500)).await.is_none(), "it came back in time");
    drop(client);
    assert!(matches!(bridge.next().await, Up::Close { .. }));
    let mut fresh = Client(tokio::net::TcpStream::connect(address).await.unwrap());
    fresh.write(&connect_with_will(true, 1, 100)).await;
    assert!(matches!(bridge.next().await, Up::Publish(will) if will.will && will.connection == second));
    let third = opened(bridge.next().await);
    open(&mut bridge, &mut fresh, third).await;
    drop(fresh);
    assert!(matches!(bridge.next().await, Up::Close { .. }));
    assert!(matches!(bridge.next().await, Up::Publish(will) if will.will), "nobody came back");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_a_client_cannot_take_ends_the_connection_and_a_live_one_does_not() {
    let (door, mut bridge, address) = start(Config::default()).await;
    let (mut client, connection) = dial_with_will(address, &mut bridge, false, 0).await;
    let payload = bytes::Bytes::from(vec![b'x'; 100]);
    bridge.send(&Down::Live { connection, payload: payload.clone() });
    client.write(&packet(0xc0, b"")).await;
    assert_eq!(client.read().await.expect("PINGRESP").0, 0xd0);
    bridge.send(&Down::Entry { connection, seq: 1, again: false, payload });
    let (kind, body) = client.read().await.expect("a DISCONNECT");
    assert_eq!((kind, body[0]), (0xe0, 0x95));
    drop(client);
    assert!(matches!(bridge.next().await, Up::Publish(will) if will.will));
    assert!(matches!(bridge.next().await, Up::Close { connection: id, by_server: false, .. } if id == connection));
    assert_eq!(door.stats().violations, 1);
}
