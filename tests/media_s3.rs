//! Files in a real S3 store, end to end: the same server, killed in the middle, and a store that is away.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]
#![expect(clippy::print_stderr, reason = "it says what it measured")]

#[path = "media/client.rs"]
mod client;
mod common;
#[path = "s3/weed.rs"]
mod weed;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use client::{MIB, Rss, Sending, bytes, get, sum, upload};
use common::{Client, Device, TestServer, patience};
use weed::{ACCESS_KEY, BUCKET, Mode, Proxy, SECRET_KEY, Weed};

/// By how much the server may grow while a large file passes, in MiB.
const GROWTH_MIB_MAX: u64 = 32;

fn server(s3: SocketAddr, more: &str) -> TestServer {
    let config = format!(
        "[media]\nstore = \"s3://{BUCKET}/e2e\"\ns3_endpoint = \"http://{s3}\"\ns3_access_key = \"{ACCESS_KEY}\"\n\
         s3_secret_key = \"{SECRET_KEY}\"\ns3_request_timeout_s = 3\ns3_retry_timeout_s = 3\nsweep_interval_s = 1\norphan_age_s = 1\n{more}"
    );
    let server = TestServer::start_with(&config);
    ["alice", "bob"].iter().for_each(|name| server.add_user(name));
    server
}

/// What a server notes of uploads that run.
fn notes(server: &TestServer) -> usize {
    let entries = std::fs::read_dir(server.data().join("media-notes")).expect("a directory");
    entries.filter(|entry| entry.as_ref().expect("an entry").file_name() != "owner").count()
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience();
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn begin(client: &Client, seed: u8, sent: u64) -> Sending {
    let mut sending = Sending::begin(client, "/v1/media?type=document", &[], Some(100 * MIB));
    sending.send_file(seed, 0..sent);
    sending
}

#[test]
fn large_files_a_server_killed_in_the_middle_and_a_store_that_is_away() {
    let Some(weed) = Weed::start() else { return };
    let proxy = Proxy::to(weed.address);
    let mut server = server(proxy.address, "");
    let alice = Client::of(&server, "alice");
    upload(&alice, "", "text/plain", b"warm");

    // A hundred mebibytes up and down.
    let rss = Rss::watch(server.pid());
    let mut sending = begin(&alice, 7, 0);
    sending.send_file(7, 0..100 * MIB);
    let answer = sending.answer();
    assert_eq!(answer.status, 200, "{}", answer.json());
    let kept = answer.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/media/{kept}");
    let got = get(&alice, &path, &[], None);
    assert_eq!((got.status, got.length, got.sha256), (200, 100 * MIB, sum(7, 100 * MIB)));
    let grown = rss.grown_mib();
    eprintln!("the server grew by {grown} MiB while 100 MiB went up and down");
    assert!(grown < GROWTH_MIB_MAX, "the server grew by {grown} MiB");

    // Killed in the middle of an upload and of a download.
    let sending = begin(&alice, 8, 12 * MIB);
    eventually("a part is on its way", || notes(&server) == 1);
    let part = get(&alice, &path, &[], Some(3 * MIB));
    server.kill9();
    drop(sending);
    assert_eq!(notes(&server), 1, "or there is nothing to sweep");
    server.restart();
    let alice = Client::of(&server, "alice");
    eventually("the upload that was cut off is forgotten", || notes(&server) == 0);
    let range = format!("bytes={}-", part.length);
    let rest = get(&alice, &path, &[("range", &range)], None);
    assert_eq!((rest.status, part.length + rest.length), (206, 100 * MIB));

    // A client that leaves in the middle.
    let sending = begin(&alice, 9, 6 * MIB);
    eventually("a part is on its way", || notes(&server) == 1);
    drop(sending);
    eventually("what it left is taken away", || notes(&server) == 0);

    // The store is away: files wait, messages do not.
    for mode in [Mode::Down, Mode::Silent, Mode::Fails(u64::MAX)] {
        proxy.set(mode);
        let begun = Instant::now();
        let refused = alice.request("POST", "/v1/media", &[], &bytes(1, 1000));
        refused.refused(503, 131_000);
        assert!(refused.header("retry-after").is_some() && begun.elapsed() < Duration::from_secs(20), "{mode:?}");
        alice.get(&path).refused(503, 131_000);
        let mut phone = Device::v5(&server, "alice", "phone");
        let begun = Instant::now();
        phone.send("bob", &format!("{mode:?}").replace(['(', ')'], "-"), "hi");
        assert!(begun.elapsed() < Duration::from_secs(2), "{mode:?}");
        proxy.set(Mode::Fast);
        let again = upload(&alice, "", "text/plain", b"and on");
        assert_eq!(alice.get(&format!("/v1/media/{again}")).body, b"and on");
    }
}

#[test]
fn a_server_starts_without_its_store_and_sends_downloads_on_when_told_so() {
    let Some(weed) = Weed::start() else { return };
    let proxy = Proxy::to(weed.address);
    proxy.set(Mode::Down);
    let public = format!("redirect = true\ns3_public_endpoint = \"http://{}\"\n", weed.address);
    let server = server(proxy.address, &public);
    let alice = Client::of(&server, "alice");
    let mut phone = Device::v5(&server, "alice", "phone");
    phone.send("bob", "m1", "hi");
    alice.request("POST", "/v1/media", &[], b"x").refused(503, 131_000);
    proxy.set(Mode::Fast);

    let content = bytes(3, 300_000);
    let id = upload(&alice, "?name=gr%C3%B6%C3%9Fe.png", "image/png", &content);
    for target in [format!("/v1/media/{id}"), {
        let url = alice.get(&format!("/v24.0/{id}")).ok()["url"].as_str().unwrap().to_owned();
        assert!(url.starts_with("http://natter/"), "Natter's own, whatever the store: {url}");
        url.replace("http://natter", "")
    }] {
        let sent_on = alice.get(&target);
        assert_eq!((sent_on.status, sent_on.body.len()), (302, 0));
        let location = sent_on.header("location").unwrap();
        let rest = location.strip_prefix(&format!("http://{}", weed.address)).expect("the public endpoint");
        // The store refuses two ways to sign in at once: clients drop theirs at another host.
        let nobody = Client { address: weed.address, token: None };
        let host = weed.address.to_string();
        let got = nobody.request("GET", rest, &[("host", &host)], b"");
        // Of two `host` headers some servers take neither.
        let got = if got.status == 200 { got } else { plain_get(weed.address, rest, "") };
        assert!(got.status == 200 && got.body == content, "{} {}", got.status, String::from_utf8_lossy(&got.body));
        assert_eq!(got.header("content-type"), Some("image/png"));
        assert!(
            got.header("content-disposition").is_some_and(|text| text.contains("filename*=UTF-8''gr%C3%B6%C3%9Fe.png"))
        );
        let part = plain_get(weed.address, rest, "range: bytes=10-19\r\n");
        assert_eq!((part.status, part.body.as_slice()), (206, &content[10..20]));
    }
    let head = alice.request("HEAD", &format!("/v1/media/{id}"), &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some("300000")));
}

fn plain_get(address: SocketAddr, target: &str, headers: &str) -> common::http::Answer {
    let request = format!("GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\r\n");
    common::http::exchange(address, request.as_bytes()).expect("an answer")
}
