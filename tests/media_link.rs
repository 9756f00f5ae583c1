//! Media by `link`: off by default; from allowed hosts, within its limits, and never from this machine's own network unless told so.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

#[path = "media/client.rs"]
mod client;
mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use client::{MIB, stored_soon};
use common::{Answer, Client, Device, TestServer};
use serde_json::json;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";

/// A web server that has a few files; how often it was asked.
fn web() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || serve(stream));
        }
    });
    (address, asked)
}

fn serve(mut stream: TcpStream) {
    let mut head = [0; 4096];
    let count = stream.read(&mut head).unwrap_or(0);
    let head = String::from_utf8_lossy(&head[..count]).into_owned();
    let path = head.split([' ', '?']).nth(1).unwrap_or_default();
    let length = |kind: &str, length: u64| {
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n")
    };
    let answer = match path {
        "/us.png" => [length("image/jpeg", PNG.len() as u64).as_bytes(), PNG].concat(),
        "/page" => [length("image/png", 22).as_bytes(), b"<!DOCTYPE html><html>\n"].concat(),
        "/there" => b"HTTP/1.1 302 Found\r\nlocation: /us.png\r\ncontent-length: 0\r\n\r\n".to_vec(),
        "/large" => length("image/png", 16 * MIB + 1).into_bytes(),
        "/cut" => [length("image/png", 1000).as_bytes(), PNG].concat(),
        "/endless" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: video/mp4\r\nconnection: close\r\n\r\n");
            while stream.write_all(&[7; 65_536]).is_ok() {}
            return;
        }
        "/slow" => {
            let _ = stream.write_all(length("image/png", 1000).as_bytes());
            // Until the other side has had enough.
            let _ = stream.read(&mut [0; 1]);
            return;
        }
        _ => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
    };
    let _ = stream.write_all(&answer);
}

fn server(config: &str) -> (TestServer, Client) {
    let server = TestServer::start_with(config);
    ["alice", "bob"].iter().for_each(|name| server.add_user(name));
    let alice = Client::of(&server, "alice");
    (server, alice)
}

fn send(alice: &Client, to: &str, kind: &str, link: &str) -> Answer {
    alice.post("/v24.0/alice/messages", &json!({"to": to, "type": kind, kind: {"link": link, "caption": "us"}}))
}

#[test]
fn a_link_is_fetched_from_an_allowed_host() {
    let (web, _) = web();
    let (server, alice) =
        server("[media]\nlink_hosts = [\"127.0.0.1\"]\nlink_private_addresses = true\nlink_timeout_s = 2\n");
    let url = |path: &str| format!("http://{web}{path}");
    send(&alice, "bob", "image", &url("/us.png")).ok();
    alice
        .post("/v1/messages", &json!({"to": "bob", "type": "document", "document": {"link": url("/us.png?x=1")}}))
        .ok();
    let mut phone = Device::v5(&server, "bob", "phone");
    let (image, document) = (phone.entry(), phone.entry());
    assert_eq!((&image["image"]["mime_type"], &image["image"]["caption"]), (&json!("image/png"), &json!("us")));
    assert!(image["image"].get("link").is_none(), "{image}");
    let bob = Client::of(&server, "bob");
    for id in [&image["image"]["id"], &document["document"]["id"]] {
        let got = bob.get(&format!("/v1/media/{}", id.as_str().unwrap()));
        assert_eq!(
            (got.body.as_slice(), got.header("content-disposition")),
            (PNG, Some("attachment; filename=\"us.png\""))
        );
    }
    stored_soon(&server, 2);
    // A retry fetches it again, and is the first message all the same.
    let body = json!({"id": "l1", "to": "bob", "type": "image", "image": {"link": url("/us.png")}});
    for _ in 0..2 {
        assert_eq!(alice.post("/v24.0/alice/messages", &body).ok()["messages"][0]["id"], "l1");
        stored_soon(&server, 3);
    }
    assert_eq!(phone.entry()["id"], "l1");
    let begun = Instant::now();
    for (kind, path, status, code, word) in [
        ("image", "/there", 400, 131_052, "302"),
        ("image", "/nothing", 400, 131_052, "404"),
        ("image", "/page", 400, 131_009, "text/html"),
        ("image", "/large", 413, 131_009, "16777216"),
        ("video", "/endless", 413, 131_009, "16777216"),
        ("image", "/cut", 400, 131_052, "all of the file"),
        ("image", "/slow", 400, 131_052, "within 2 s"),
    ] {
        let details = send(&alice, "bob", kind, &url(path)).refused(status, code);
        assert!(details.starts_with(&format!("{kind}.link: ")) && details.contains(word), "{path}: {details}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
    send(&alice, "nobody", "image", &url("/us.png")).refused(400, 131_026);
    send(&alice, "bob", "image", "http://localhost/us.png").refused(403, 10);
    stored_soon(&server, 3);
}

#[test]
fn s64_no_link_is_fetched_by_default_and_none_from_a_private_address() {
    let (web, asked) = web();
    let url = format!("http://{web}/us.png");
    let (_off, alice) = server("");
    assert!(send(&alice, "bob", "image", &url).refused(400, 131_009).contains("image.link"));
    let (_public, alice) = server("[media]\nlink_hosts = [\"*\"]\n");
    for link in [
        url.clone(),
        format!("http://localhost:{}/us.png", web.port()),
        format!("http://[::ffff:127.0.0.1]:{}/us.png", web.port()),
        format!("http://2130706433:{}/us.png", web.port()),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "https://10.0.0.1/".to_owned(),
    ] {
        let answer = send(&alice, "bob", "image", &link);
        assert_eq!(answer.status, 400, "{link}: {}", String::from_utf8_lossy(&answer.body));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nobody was asked");
}
