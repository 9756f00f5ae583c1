//! What an HTTP client can hold: one place, and only while it talks and listens.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::websocket::WebSocket;
use common::{TestServer, dial, patience};

/// The start of the answer to a GET on a connection of its own; empty if it is closed at once.
fn get(address: SocketAddr) -> String {
    let mut stream = dial(address);
    stream.set_read_timeout(Some(patience())).unwrap();
    // A connection that is closed already is noticed when reading.
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap().lines().next().unwrap_or_default().to_owned()
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience();
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn one_more_connection_than_the_limit_is_closed_at_once() {
    let server = TestServer::start_with("[http]\nconnections_max = 2\n");
    let held: Vec<TcpStream> = (0..2).map(|_| dial(server.http())).collect();
    assert_eq!(get(server.http()), "");
    drop(held);
    eventually("the places are free again", || get(server.http()) == "HTTP/1.1 200 OK");
}

#[test]
fn a_websocket_is_a_client_of_the_door_and_takes_no_place_of_http() {
    let server = TestServer::start_with("[http]\nconnections_max = 1\n");
    // Its place of HTTP is given back a moment after the handshake's answer.
    let _open = WebSocket::open(server.http());
    eventually("room for a request", || get(server.http()) == "HTTP/1.1 200 OK");
}

#[test]
fn a_client_that_takes_nothing_of_its_answers_is_cut() {
    let server = TestServer::start_with("[http]\nconnections_max = 1\nwrite_timeout_s = 1\n");
    let mut stuck = dial(server.http());
    stuck.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let requests = "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    while stuck.write_all(requests.as_bytes()).is_ok() {}
    eventually("its place is free", || get(server.http()) == "HTTP/1.1 200 OK");
}

#[test]
fn a_head_that_comes_too_slowly_is_cut() {
    let server = TestServer::start_with("[http]\nheader_timeout_s = 1\n");
    let began = Instant::now();
    let mut stream = dial(server.http());
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut head = b"GET / HTTP/1.1\r\nHost: x\r\n".iter().chain(b"X-Slow: y\r\n".iter().cycle());
    loop {
        let _ = stream.write_all(&[*head.next().unwrap()]);
        match stream.read(&mut [0; 512]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => assert!(began.elapsed() < patience()),
            // Closed, with an answer (408) or without.
            Ok(_) | Err(_) => break,
        }
    }
    assert!((1..10).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}
