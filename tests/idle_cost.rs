//! What an idle, subscribed connection costs, and how fast they come. A measurement, so it runs only when it is asked to, on a release
//! build, and best alone on the machine:
//!
//! ```sh
//! cargo build --release
//! NATTER_TEST_BINARY=target/release/natter NATTER_IDLE=15000 cargo test --test idle_cost -- --ignored --nocapture
//! ```
//!
//! Clients and server each need a file handle for every connection: see `ulimit -n`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement says what it measured, and ends where its world does not hold"
)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::codec::{frame, write_text};
use common::{Connect, TestServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

/// Connections, unless `NATTER_IDLE` says otherwise.
const CONNECTIONS: usize = 15_000;
/// Connections, each a device, of a user.
const DEVICES: usize = 10;
/// Connections that are made at a time.
const AT_A_TIME: usize = 256;
/// What a connection may cost.
const BYTES_MAX: u64 = 8 * 1024;
/// How many must come in a second.
const CONNECTS_PER_S: f64 = 2000.0;

fn rss_kib(server: &TestServer) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn connect(address: SocketAddr, from: u8, connect: &Connect) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // Spread over the loopback network, which has as many ports again for each address.
    socket.bind(([127, 0, 0, from], 0).into()).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(&connect.encode()).await.unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).await.unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0], "CONNACK");
    stream
}

async fn subscribe(stream: &mut TcpStream, user: &str, device: &str) {
    let mut body = vec![0, 1];
    write_text(&mut body, &format!("users/{user}/{device}/inbox"));
    body.push(1);
    stream.write_all(&frame(0x82, &body)).await.unwrap();
    let mut suback = [0; 5];
    stream.read_exact(&mut suback).await.unwrap();
    assert_eq!(suback, [0x90, 3, 0, 1, 1], "SUBACK");
}

#[test]
#[ignore = "a measurement: see above"]
fn an_idle_connection_costs_little() {
    let connections = std::env::var("NATTER_IDLE").ok().and_then(|n| n.parse().ok()).unwrap_or(CONNECTIONS);
    let server = TestServer::start_with("[door]\nconnections_max = 20000\nconnect_timeout_s = 60\n");
    let users: Vec<_> = (0..connections.div_ceil(DEVICES)).map(|n| format!("user{n}")).collect();
    users.iter().for_each(|user| server.add_user(user));
    let clients: Vec<Connect> = users
        .iter()
        .flat_map(|user| {
            let token = server.token(user);
            (0..DEVICES)
                .map(move |n| Connect { keep_alive: 1200, ..Connect::v3(user, &format!("{user}-d{n}"), &token) })
        })
        .take(connections)
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let before = rss_kib(&server);
    let address = server.mqtt();
    let begun = Instant::now();
    let mut streams = runtime.block_on(async {
        let turns = Arc::new(Semaphore::new(AT_A_TIME));
        let mut tasks = Vec::new();
        for (n, client) in clients.iter().cloned().enumerate() {
            let turn = Arc::clone(&turns).acquire_owned().await.unwrap();
            tasks.push(tokio::spawn(async move {
                let stream = connect(address, u8::try_from(1 + n % 8).unwrap(), &client).await;
                drop(turn);
                stream
            }));
        }
        let mut streams = Vec::new();
        for task in tasks {
            streams.push(task.await.unwrap());
        }
        streams
    });
    let per_s = connections as f64 / begun.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_secs(2));
    let connected = rss_kib(&server);
    let begun = Instant::now();
    runtime.block_on(async {
        let mut tasks = Vec::new();
        let turns = Arc::new(Semaphore::new(AT_A_TIME));
        for (n, mut stream) in streams.drain(..).enumerate() {
            let turn = Arc::clone(&turns).acquire_owned().await.unwrap();
            let (user, device) = (users[n / DEVICES].clone(), format!("d{}", n % DEVICES));
            tasks.push(tokio::spawn(async move {
                subscribe(&mut stream, &user, &device).await;
                drop(turn);
                stream
            }));
        }
        for task in tasks {
            streams.push(task.await.unwrap());
        }
    });
    let subscribes_per_s = connections as f64 / begun.elapsed().as_secs_f64();
    // What waits for the settlement of the journal is not the connections' cost.
    std::thread::sleep(Duration::from_secs(5));
    let subscribed = rss_kib(&server);
    let each = |now: u64| (now - before) * 1024 / connections as u64;
    println!(
        "{connections} connections: {per_s:.0} connects/s, {} bytes each connected ({before} -> {connected} KiB); \
         {subscribes_per_s:.0} subscribes/s, {} bytes each with its device ({subscribed} KiB)",
        each(connected),
        each(subscribed)
    );
    assert!(each(connected) <= BYTES_MAX && each(subscribed) <= BYTES_MAX, "more than {BYTES_MAX} bytes a connection");
    assert!(per_s >= CONNECTS_PER_S, "{per_s:.0} connects/s");
    drop(streams);
}
