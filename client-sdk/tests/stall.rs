//! A server, or what is between, that falls silent: the client notices, and makes another connection. Time is virtual: nothing here waits for it.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends that way")]

use std::time::Duration;

use natter_client::{Client, ConnectionState, Error};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

/// CONNACK of MQTT 5: accepted, no properties.
const CONNACK: [u8; 5] = [0x20, 3, 0, 0, 0];

/// A listener whose connections take little before their writer has to wait.
fn listen() -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.listen(8).unwrap()
}

async fn packet(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let first = stream.read_u8().await.unwrap();
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = stream.read_u8().await.unwrap();
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (first, body)
}

/// Says yes to CONNECT and SUBSCRIBE.
async fn welcome(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(packet(&mut stream).await.0, 0x10, "CONNECT");
    stream.write_all(&CONNACK).await.unwrap();
    let (first, body) = packet(&mut stream).await;
    assert_eq!(first, 0x82, "SUBSCRIBE");
    stream.write_all(&[0x90, 4, body[0], body[1], 0, 1]).await.unwrap();
    stream
}

async fn start(listener: &TcpListener) -> (Client, watch::Receiver<ConnectionState>) {
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    let client = Client::builder(&url).user("alice").token("t").start().await.unwrap();
    let state = client.state();
    (client, state)
}

async fn until(state: &mut watch::Receiver<ConnectionState>, what: fn(&ConnectionState) -> bool) -> ConnectionState {
    state.wait_for(what).await.expect("a client").clone()
}

fn is_connected(state: &ConnectionState) -> bool {
    *state == ConnectionState::Connected
}

fn is_lost(state: &ConnectionState) -> bool {
    matches!(state, ConnectionState::Reconnecting(Error::Unreachable(_)))
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_given_up_within_75_seconds_and_made_again() {
    let listener = listen();
    let (_client, mut state) = start(&listener).await;
    let silent = welcome(&listener).await;
    until(&mut state, is_connected).await;
    tokio::time::pause();
    let begin = Instant::now();
    until(&mut state, is_lost).await;
    let noticed = begin.elapsed();
    assert!((Duration::from_secs(30)..Duration::from_secs(76)).contains(&noticed), "{noticed:?}");
    tokio::time::resume();
    let _again = welcome(&listener).await;
    until(&mut state, is_connected).await;
    drop(silent);
}

/// rumqttc waits for the socket then, and for nothing else: not even for its own clock.
#[tokio::test]
async fn a_socket_that_takes_nothing_any_more_is_given_up_within_75_seconds_too() {
    let listener = listen();
    let (client, mut state) = start(&listener).await;
    let silent = welcome(&listener).await;
    until(&mut state, is_connected).await;
    // More than the buffers of both sides take.
    for _ in 0..200 {
        client.chat("bob").send_text("x".repeat(60_000)).await.unwrap();
    }
    tokio::time::pause();
    let begin = Instant::now();
    until(&mut state, is_lost).await;
    assert!(begin.elapsed() < Duration::from_secs(76), "{:?}", begin.elapsed());
    tokio::time::resume();
    let mut again = welcome(&listener).await;
    until(&mut state, is_connected).await;
    // What was under way comes again, from the first on.
    let (first, body) = packet(&mut again).await;
    assert_eq!(first & 0xf6, 0x32, "PUBLISH at QoS 1");
    assert!(body.windows(10).any(|bytes| bytes == b"xxxxxxxxxx"));
    drop(silent);
}

/// CONNECT is not answered: no handshake takes for ever either.
#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_within_15_seconds() {
    let listener = listen();
    let (_client, mut state) = start(&listener).await;
    let (mut silent, _) = listener.accept().await.unwrap();
    assert_eq!(packet(&mut silent).await.0, 0x10, "CONNECT");
    tokio::time::pause();
    let begin = Instant::now();
    until(&mut state, is_lost).await;
    assert!(begin.elapsed() < Duration::from_secs(16), "{:?}", begin.elapsed());
}
