//! Files over HTTP and in messages, end to end: the real server, large files, those who may and may not, and what crashes leave.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]
#![expect(clippy::print_stderr, reason = "it says what it measured")]

#[path = "media/client.rs"]
mod client;
mod common;

use std::time::{Duration, Instant};

use client::{FORM, MIB, Rss, Sending, bytes, form, get, hex, stored, stored_soon, sum, upload};
use common::{Client, Device, TestServer, patience};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";
/// By how much the server may grow while a large file passes, in MiB.
const GROWTH_MIB_MAX: u64 = 32;
/// Sweeps at once, and calls what is a second old.
const SWEEPS: &str = "[media]\nsweep_interval_s = 1\norphan_age_s = 1\n";

fn three(config: &str) -> (TestServer, [Client; 3]) {
    let server = TestServer::start_with(config);
    let clients = ["alice", "bob", "carol"].map(|name| {
        server.add_user(name);
        Client::of(&server, name)
    });
    (server, clients)
}

#[test]
fn a_document_of_100_mib_goes_up_and_down_and_the_server_stays_small() {
    let (server, [alice, ..]) = three("");
    upload(&alice, "", "text/plain", b"warm");
    let rss = Rss::watch(server.pid());
    let expected = sum(7, 100 * MIB);

    let mut sending = Sending::begin(&alice, "/v1/media?file_type=document&name=a.bin", &[], Some(100 * MIB));
    sending.send_file(7, 0..100 * MIB);
    let answer = sending.answer();
    let raw = answer.json();
    assert_eq!((answer.status, &raw["sha256"], &raw["file_size"]), (200, &json!(expected), &json!(100 * MIB)), "{raw}");

    let mut sending = Sending::begin(&alice, "/v1/media", &[FORM], None);
    sending.send(b"--b0undary\r\nContent-Disposition: form-data; name=\"file\"; filename=\"b.bin\"\r\n\r\n");
    sending.send_file(7, 0..100 * MIB);
    sending
        .send(b"\r\n--b0undary\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\ndocument\r\n--b0undary--\r\n");
    let form = sending.answer().json();
    assert_eq!(form["sha256"], json!(expected), "{form}");

    let got = get(&alice, &format!("/v1/media/{}", raw["id"].as_str().unwrap()), &[], None);
    assert_eq!((got.status, got.length, got.sha256), (200, 100 * MIB, expected));
    let grown = rss.grown_mib();
    eprintln!("the server grew by {grown} MiB while 100 MiB went up twice and down once");
    assert!(grown < GROWTH_MIB_MAX, "the server grew by {grown} MiB");
}

#[test]
fn one_byte_too_many_is_refused_and_leaves_nothing() {
    let (server, [alice, ..]) = three("");
    let too_large = |answer: client::Answer, what: &str| {
        assert_eq!((answer.status, answer.json()["code"].as_u64()), (413, Some(131_009)), "{what}");
    };
    for (query, size) in
        [("?type=document", 100 * MIB + 1), ("?file_type=image/png", 16 * MIB + 1), ("", 100 * MIB + 1)]
    {
        // As the head says; as it turns out.
        for length in [Some(size), None] {
            let mut sending = Sending::begin(&alice, &format!("/v1/media{query}"), &[], length);
            sending.send_file(1, 0..size);
            // While it is read: nobody waits for the end of it.
            let answer = if length.is_some() { sending.answer() } else { sending.early_answer() };
            too_large(answer, &format!("{query} {length:?}"));
        }
    }
    let part = |mime: &str| {
        format!(
            "--b0undary\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\nContent-Type: {mime}\r\n\r\n"
        )
    };
    let field = "--b0undary\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\nvideo\r\n";
    for (before, mime, after) in [(field, "text/plain", ""), ("", "audio/ogg", ""), ("", "text/plain", field)] {
        let mut sending = Sending::begin(&alice, "/v1/media", &[FORM], None);
        sending.send(format!("{before}{}", part(mime)).as_bytes());
        sending.send_file(1, 0..16 * MIB + 1);
        sending.send(format!("\r\n{after}--b0undary--\r\n").as_bytes());
        too_large(sending.answer(), &format!("{before} {mime} {after}"));
    }
    stored_soon(&server, 0);
    // One byte less is taken.
    let mut sending = Sending::begin(&alice, "/v1/media?type=sticker", &[], None);
    sending.send_file(1, 0..16 * MIB);
    assert_eq!(sending.answer().status, 200);
    stored_soon(&server, 1);
}

#[test]
fn who_waits_to_be_asked_for_the_body_is_refused_before() {
    let (server, [alice, ..]) = three("");
    let nobody = Client::nobody(&server);
    let expect = [("expect", "100-continue"), ("content-type", "image/png")];
    for (client, length, status) in [(&alice, 16 * MIB + 1, 413), (&nobody, 10, 401)] {
        let begun = Instant::now();
        let answer = Sending::begin(client, "/v1/media", &expect, Some(length)).early_answer();
        assert_eq!(answer.status, status);
        assert!(answer.head.starts_with(&format!("http/1.1 {status}")) && begun.elapsed() < Duration::from_secs(2));
    }
    let mut sending = Sending::begin(&alice, "/v1/media", &expect, Some(PNG.len() as u64));
    sending.send(PNG);
    assert_eq!(sending.answer().status, 200);
}

#[test]
fn s65_a_file_is_for_who_uploaded_it_and_for_who_was_sent_it() {
    let (mut server, [alice, bob, carol]) = three("");
    let id = upload(&alice, "?name=us.png", "image/png", PNG);
    let path = format!("/v1/media/{id}");
    assert_eq!(alice.get(&path).body, PNG);
    for other in [&bob, &carol] {
        other.get(&path).refused(404, 131_052);
        assert_eq!(other.get("/v1/media?name=us.png").ok()["media"], json!([]));
        other.request("DELETE", &path, &[], b"").refused(404, 131_052);
        other.get(&format!("/v24.0/{id}")).refused(400, 131_052);
    }
    let mut phone = Device::v5(&server, "alice", "phone");
    let mut bobs = Device::v5(&server, "bob", "phone");
    let message = format!(r#"{{"id":"m1","to":"bob","type":"image","image":{{"id":"{id}","caption":"us"}}}}"#);
    let (reason, _) = phone.raw.publish_and_wait(&phone.outbox(), &message);
    assert_eq!(reason, 0);
    let sha256 = hex(&Sha256::digest(PNG));
    assert_eq!(
        bobs.entry()["image"],
        json!({"id": id, "mime_type": "image/png", "sha256": sha256, "file_size": PNG.len(), "caption": "us"})
    );
    // Not who was not sent it, also if he knows the id and says so himself.
    let mut carols = Device::v5(&server, "carol", "phone");
    let (reason, answer) = carols.raw.publish_and_wait(&carols.outbox(), &message.replace("bob", "carol"));
    assert_eq!(reason, 0x83, "{answer:?}");
    drop((phone, bobs, carols));

    let check = |server: &TestServer| {
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| Client::of(server, name));
        assert_eq!((alice.get(&path).body, bob.get(&path).body), (PNG.to_vec(), PNG.to_vec()));
        assert_eq!(bob.get("/v1/media?name=us.png").ok()["media"][0]["id"], json!(id));
        carol.get(&path).refused(404, 131_052);
        bob.request("DELETE", &path, &[], b"").refused(404, 131_052);
    };
    check(&server);
    server.kill9();
    server.restart();
    check(&server);
    let alice = Client::of(&server, "alice");
    assert_eq!(alice.request("DELETE", &path, &[], b"").ok(), json!({"success": true}));
    alice.get(&path).refused(404, 131_052);
    Client::of(&server, "bob").get(&path).refused(404, 131_052);
    stored_soon(&server, 0);
}

#[test]
fn s59_no_route_of_media_is_there_without_a_token() {
    let (server, [alice, ..]) = three("");
    let id = upload(&alice, "?name=a", "image/png", PNG);
    for token in [None, Some("x.y.z".to_owned())] {
        let nobody = Client { address: server.http(), token };
        for (method, target) in [
            ("POST", "/v1/media".to_owned()),
            ("GET", "/v1/media?name=a".to_owned()),
            ("GET", format!("/v1/media/{id}")),
            ("HEAD", format!("/v1/media/{id}")),
            ("DELETE", format!("/v1/media/{id}")),
            ("POST", "/v24.0/alice/media".to_owned()),
            ("GET", format!("/v24.0/{id}")),
            ("DELETE", format!("/v24.0/{id}")),
        ] {
            let answer = nobody.request(method, &target, &[("content-type", "image/png")], b"");
            assert_eq!(answer.status, 401, "{method} {target}");
        }
        assert_eq!(nobody.get(&format!("/v1/media/{id}/content")).status, 404);
    }
    assert_eq!(stored(&server).len(), 1);
}

#[test]
fn a_download_says_what_it_is_and_comes_in_parts() {
    let (server, [alice, ..]) = three("");
    let content = bytes(3, 700_000);
    let id = upload(&alice, "?name=a%20b.bin", "application/x-thing", &content);
    let path = format!("/v1/media/{id}");
    let all = alice.get(&path);
    let etag = format!("\"{}\"", hex(&Sha256::digest(&content)));
    for (name, value) in [
        ("content-type", "application/x-thing"),
        ("content-length", "700000"),
        ("content-disposition", "attachment; filename=\"a b.bin\""),
        ("etag", etag.as_str()),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox; default-src 'none'"),
    ] {
        assert_eq!(all.header(name), Some(value));
    }
    assert!(all.status == 200 && all.body == content);
    let head = alice.request("HEAD", &path, &[], b"");
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("700000"), 0));
    for (range, status, content_range, part) in [
        ("bytes=0-0", 206, "bytes 0-0/700000", &content[..1]),
        ("bytes=262143-262145", 206, "bytes 262143-262145/700000", &content[262_143..262_146]),
        ("bytes=-10", 206, "bytes 699990-699999/700000", &content[699_990..]),
        ("bytes=699999-", 206, "bytes 699999-699999/700000", &content[699_999..]),
        ("bytes=0-99999999999999999999", 206, "bytes 0-699999/700000", &content[..]),
    ] {
        let answer = alice.request("GET", &path, &[("range", range)], b"");
        assert_eq!((answer.status, answer.header("content-range")), (status, Some(content_range)), "{range}");
        assert!(answer.body == part && answer.header("content-length") == Some(&part.len().to_string()), "{range}");
    }
    // S72.
    let many = format!("bytes={}", vec!["0-"; 300].join(","));
    for (range, status) in [("bytes=-0", 416), ("bytes=700000-", 416), ("bytes=5-2", 200), (many.as_str(), 200)] {
        let answer = alice.request("GET", &path, &[("range", range)], b"");
        assert_eq!(answer.status, status, "{range}");
        assert!(answer.body.len() <= content.len());
    }
    let outside = alice.request("GET", &path, &[("range", "bytes=700000-")], b"");
    assert_eq!(outside.header("content-range"), Some("bytes */700000"));
    let known = alice.request("GET", &path, &[("if-none-match", &etag)], b"");
    assert_eq!((known.status, known.header("etag"), known.body.len()), (304, Some(etag.as_str()), 0));
    let other = alice.request("GET", &path, &[("if-range", "\"other\""), ("range", "bytes=0-1")], b"");
    assert_eq!((other.status, other.body.len()), (200, content.len()));
    drop(server);
}

#[test]
fn s67_s68_s69_names_and_types_are_data_and_run_nowhere() {
    let (_server, [alice, ..]) = three("");
    let html = b"<!DOCTYPE html><html><script>alert(1)</script></html>";
    for (name, shown) in [
        ("../../x", "attachment; filename=\"x\""),
        ("/etc/passwd", "attachment; filename=\"passwd\""),
        ("a%22%3Bfilename=b", "attachment; filename=\"a__filename=b\"; filename*=UTF-8''a%22%3Bfilename%3Db"),
        ("a%0d%0aX-Evil:%201", "attachment; filename=\"aX-Evil: 1\""),
        ("a%00b", "attachment; filename=\"ab\""),
        ("photo%E2%80%AEgpj.exe", "attachment; filename=\"photogpj.exe\""),
    ] {
        let id = upload(&alice, &format!("?type=document&name={name}"), "text/plain", html);
        let answer = alice.get(&format!("/v1/media/{id}"));
        assert_eq!(answer.header("content-disposition"), Some(shown), "{name}");
        assert_eq!(answer.header("x-evil"), None);
        // What the bytes are, whatever their sender says, and never in place.
        assert_eq!(answer.header("content-type"), Some("text/html"));
        assert_eq!(answer.header("content-security-policy"), Some("sandbox; default-src 'none'"));
    }
    let long = "n".repeat(10_000);
    let id = upload(&alice, &format!("?name={long}"), "text/plain", b"x");
    assert_eq!(alice.get(&format!("/v1/media?name={}", &long[..255])).ok()["media"][0]["id"], json!(id));
    let disposition = alice.get(&format!("/v1/media/{id}")).header("content-disposition").unwrap().to_owned();
    assert!(disposition.len() < 300, "{disposition}");

    let refused = alice.request("POST", "/v1/media", &[("content-type", "image/png")], html);
    assert!(refused.refused(400, 131_009).contains("text/html"));
    for kind in ["image/png%0d%0aX-Evil:1", "picture", "%00"] {
        alice.request("POST", &format!("/v1/media?type={kind}"), &[], PNG).refused(400, 131_009);
    }
    // A type with a line break in its part's head, and one that is none.
    for mime in ["image/png\r\nX-Evil: 1", "\u{1}/\u{2}", "x"] {
        let body = form(&[], Some(("a", mime, PNG)), &[]);
        let answer = alice.request("POST", "/v1/media", &[FORM], &body);
        if answer.status == 200 {
            let id = answer.json()["id"].as_str().unwrap().to_owned();
            assert_eq!(alice.get(&format!("/v1/media/{id}")).header("content-type"), Some("image/png"));
        } else {
            assert_eq!(answer.status, 400, "{mime:?}");
        }
    }
}

#[test]
fn forms_are_taken_as_clients_write_them() {
    let (server, [alice, ..]) = three("");
    let jpeg = b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01";
    for (body, kind, mime, name) in [
        // kapso, great-detail: before the file.
        (
            form(&[("messaging_product", "whatsapp"), ("type", "image/png")], Some(("a.png", "image/png", PNG)), &[]),
            "image",
            "image/png",
            Some("a.png"),
        ),
        // heyoo, pywa: behind it, the whole path as its name.
        (
            form(
                &[],
                Some(("/home/a/b.png", "image/png", PNG)),
                &[("messaging_product", "whatsapp"), ("type", "image/png")],
            ),
            "image",
            "image/png",
            Some("b.png"),
        ),
        // A nameless Blob.
        (
            form(&[], Some(("blob", "application/octet-stream", jpeg)), &[("type", "image/jpeg")]),
            "image",
            "image/jpeg",
            Some("blob"),
        ),
        // whatsapp-business-rs: no type at all.
        (
            form(&[("messaging_product", "whatsapp")], Some(("file.bin", "image/jpeg", jpeg)), &[]),
            "image",
            "image/jpeg",
            Some("file.bin"),
        ),
        // uploadFile(file_type, file).
        (
            form(&[("file_type", "sticker")], Some(("s.webp", "", b"RIFF\x1a\0\0\0WEBPVP8 ")), &[]),
            "sticker",
            "image/webp",
            Some("s.webp"),
        ),
        (
            form(&[("file_type", "document")], Some(("a.pdf", "", b"%PDF-1.7 ")), &[]),
            "document",
            "application/pdf",
            Some("a.pdf"),
        ),
        (
            form(&[], Some(("note.txt", "text/plain; charset=utf-8", b"hi")), &[]),
            "document",
            "text/plain",
            Some("note.txt"),
        ),
    ] {
        let answer = alice.request("POST", "/v1/media", &[FORM], &body).ok();
        assert_eq!(
            (answer["type"].as_str(), answer["mime_type"].as_str(), answer["name"].as_str()),
            (Some(kind), Some(mime), name),
            "{answer}"
        );
        assert_eq!(answer["media"][0]["id"], answer["id"]);
    }
    let count = stored(&server).len();
    let nothing = alice.request("POST", "/v1/media", &[FORM], &form(&[("type", "image")], None, &[]));
    assert!(nothing.refused(400, 100).contains("file"));
    let two = [form(&[], Some(("a", "", PNG)), &[]), form(&[], Some(("b", "", PNG)), &[])].concat();
    let two = String::from_utf8_lossy(&two).into_owned().replacen("--b0undary--\r\n", "", 1);
    alice.request("POST", "/v1/media", &[FORM], two.as_bytes()).refused(400, 100);
    let cut = form(&[], Some(("a", "", PNG)), &[]);
    alice.request("POST", "/v1/media", &[FORM], &cut[..cut.len() - 20]).refused(400, 100);
    alice.request("POST", "/v1/media", &[("content-type", "multipart/form-data")], &cut).refused(400, 100);
    alice.request("POST", "/v1/media?type=image", &[("content-type", "image/png")], b"").refused(400, 131_009);
    alice
        .request("POST", "/v1/media", &[FORM], &form(&[("type", "x")], Some(("a", "", PNG)), &[]))
        .refused(400, 131_009);
    let many: Vec<(&str, &str)> = vec![("x", "y"); 40];
    alice.request("POST", "/v1/media", &[FORM], &form(&many, Some(("a", "", PNG)), &[])).refused(400, 100);
    stored_soon(&server, count);
}

#[test]
fn a_name_finds_the_newest_first() {
    let (_server, [alice, bob, _]) = three("");
    let mut ids: Vec<String> = Vec::new();
    for content in [b"one".as_slice(), b"two", b"three"] {
        ids.insert(0, upload(&alice, "?name=a.txt", "text/plain", content));
        // The next second: files of one are in no order.
        std::thread::sleep(Duration::from_millis(1050));
    }
    upload(&alice, "?name=A.txt", "text/plain", b"another");
    upload(&bob, "?name=a.txt", "text/plain", b"bob's");
    let found = alice.get("/v1/media?name=a.txt").ok();
    let found: Vec<&str> = found["media"].as_array().unwrap().iter().map(|file| file["id"].as_str().unwrap()).collect();
    assert_eq!(found, ids);
    alice.get("/v1/media").refused(400, 100);
    alice.get("/v1/media?name=").refused(400, 100);
}

#[test]
fn the_cloud_api_has_its_shapes_and_a_url_that_works_with_and_without_a_token() {
    let (server, [alice, bob, _]) = three("");
    let body =
        form(&[("messaging_product", "whatsapp"), ("type", "image/png")], Some(("a.png", "image/png", PNG)), &[]);
    let answer = alice.request("POST", "/v24.0/alice/media", &[FORM], &body).ok();
    let id = answer["id"].as_str().unwrap().to_owned();
    assert_eq!(answer, json!({ "id": id }));
    assert!((16..=19).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit()));
    alice.request("POST", "/v24.0/bob/media", &[FORM], &body).refused(403, 10);

    let info = alice.get(&format!("/v24.0/{id}?phone_number_id=alice")).ok();
    let url = info["url"].as_str().unwrap().to_owned();
    let sha256 = hex(&Sha256::digest(PNG));
    assert_eq!(
        info,
        json!({"messaging_product": "whatsapp", "url": url, "mime_type": "image/png", "sha256": sha256,
            "file_size": PNG.len(), "id": id})
    );
    alice.get(&format!("/v24.0/{id}?phone_number_id=bob")).refused(400, 131_052);
    bob.get(&format!("/v24.0/{id}")).refused(400, 131_052);
    alice.get("/v24.0/1234567890123456").refused(400, 131_052);
    assert_eq!(alice.get(&format!("/v24/{id}")).status, 404);

    let target = url.strip_prefix("http://natter").expect("where the request found it");
    let nobody = Client::nobody(&server);
    let wrong = Client { address: server.http(), token: Some("x.y.z".into()) };
    for client in [&alice, &bob, &nobody, &wrong] {
        let answer = client.request("GET", target, &[("host", "lookaside.fbsbx.com")], b"");
        assert_eq!(
            (answer.status, answer.body.as_slice(), answer.header("content-type")),
            (200, PNG, Some("image/png"))
        );
        assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"a.png\""));
    }
    // S66: of another file, by another way, changed.
    let other = upload(&alice, "", "image/png", PNG);
    for target in
        [target.replace(&id, &other), target.replace("expires=1", "expires=2"), target.replace("for=alice", "for=bob")]
    {
        assert_eq!(nobody.get(&target).status, 404, "{target}");
    }
    assert_eq!(nobody.request("DELETE", target, &[], b"").status, 405);
    assert_eq!(
        alice.request("DELETE", &format!("/v24.0/{id}?phone_number_id=alice"), &[], b"").ok(),
        json!({"success": true})
    );
    assert_eq!(nobody.get(target).status, 404, "the file is gone");
    alice.get(&format!("/v24.0/{id}")).refused(400, 131_052);
}

#[test]
fn s66_a_url_is_good_for_its_time() {
    let (server, [alice, ..]) = three("[media]\nurl_s = 1\n");
    let id = upload(&alice, "", "image/png", PNG);
    let url = alice.get(&format!("/v24.0/{id}")).ok()["url"].as_str().unwrap().replace("http://natter", "");
    let nobody = Client::nobody(&server);
    let deadline = Instant::now() + patience();
    while nobody.get(&url).status == 200 {
        assert!(Instant::now() < deadline, "it stays good");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(nobody.get(&url).status, 404);
}

#[test]
fn s71_uploads_that_never_end_are_ended_and_have_no_more_than_their_places() {
    let (server, [alice, bob, carol]) = three(
        "[media]\nupload_idle_timeout_s = 2\nuploads_max = 3\nuploads_per_user_max = 2\nuser_bytes_max = 1000000\nuser_files_max = 2\n",
    );
    let begin = |client: &Client| {
        let mut sending = Sending::begin(client, "/v1/media?type=document", &[], Some(500_000));
        sending.send(&bytes(1, 300_000));
        sending
    };
    let first = begin(&alice);
    let second = begin(&alice);
    stored_now(&server, 2);
    let third = alice.request("POST", "/v1/media", &[], b"x");
    assert!(third.refused(429, 130_429).contains("2 uploads"));
    let bobs = begin(&bob);
    stored_now(&server, 3);
    let full = carol.request("POST", "/v1/media", &[], b"x");
    full.refused(503, 131_000);
    assert!(full.header("retry-after").is_some());
    for sending in [first, second, bobs] {
        let answer = sending.early_answer();
        assert_eq!(answer.status, 408, "{}", answer.json());
    }
    stored_soon(&server, 0);
    // And the places are free again; the quota counts what is kept.
    let kept = upload(&alice, "", "text/plain", &bytes(1, 600_000));
    let over = alice.request("POST", "/v1/media", &[], &bytes(2, 400_001));
    assert!(over.refused(429, 130_429).contains("1000000 bytes"));
    let mut chunked = Sending::begin(&alice, "/v1/media", &[], None);
    chunked.send(&bytes(2, 400_001));
    assert_eq!(chunked.answer().status, 429);
    upload(&alice, "", "text/plain", b"x");
    alice.request("POST", "/v1/media", &[], b"x").refused(429, 130_429);
    stored_soon(&server, 2);
    alice.request("DELETE", &format!("/v1/media/{kept}"), &[], b"").ok();
    upload(&alice, "", "text/plain", &bytes(2, 400_001));
}

/// Waits until so many files are there, whole or not.
#[track_caller]
fn stored_now(server: &TestServer, count: usize) {
    let deadline = Instant::now() + patience();
    while stored(server).len() != count {
        assert!(Instant::now() < deadline, "expected {count} files, got {:?}", stored(server));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn s74_a_form_whose_heads_never_end_is_cut_and_held_nowhere() {
    let (server, [alice, ..]) = three("");
    upload(&alice, "", "text/plain", b"warm");
    let rss = Rss::watch(server.pid());
    let mut sending = Sending::begin(&alice, "/v1/media", &[FORM], None);
    sending.send(b"--b0undary\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n");
    let line = format!("X-A: {}\r\n", "a".repeat(60_000));
    for _ in 0..2000 {
        if !sending.send(line.as_bytes()) {
            break;
        }
    }
    assert_eq!(sending.early_answer().status, 400);
    let mut sending = Sending::begin(&alice, "/v1/media", &[FORM], None);
    sending.send(b"--b0undary\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\n");
    for _ in 0..2000 {
        if !sending.send(line.as_bytes()) {
            break;
        }
    }
    assert_eq!(sending.early_answer().status, 413);
    let grown = rss.grown_mib();
    assert!(grown < GROWTH_MIB_MAX, "the server grew by {grown} MiB");
    stored_soon(&server, 1);
}

#[test]
fn s70_what_is_packed_stays_packed() {
    let (_server, [alice, ..]) = three("");
    let packed = b"\x1f\x8b\x08\0\0\0\0\0\0\x03whatever it would be";
    let headers = [("content-type", "text/plain"), ("content-encoding", "gzip")];
    let answer = alice.request("POST", "/v1/media", &headers, packed).ok();
    assert_eq!(answer["file_size"], json!(packed.len()));
    let got = alice.get(&format!("/v1/media/{}", answer["id"].as_str().unwrap()));
    assert_eq!((got.body.as_slice(), got.header("content-encoding")), (packed.as_slice(), None));
}

#[test]
fn s78_nobody_else_on_the_machine_reads_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let (server, [alice, ..]) = three("");
    upload(&alice, "", "image/png", PNG);
    for dir in ["media", "media-notes"] {
        let mode = std::fs::metadata(server.data().join(dir)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{dir}");
    }
    let mut dirs = vec![server.data().to_owned()];
    let mut files = 0;
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
            let mode = std::fs::symlink_metadata(&entry).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", entry.display());
            if entry.is_dir() { dirs.push(entry) } else { files += 1 }
        }
    }
    assert!(files > 3, "{files}");
}

#[test]
fn s73_s75_the_same_bytes_are_another_file_and_no_file_changes() {
    let (_server, [alice, bob, _]) = three("");
    let mine = upload(&alice, "?name=a", "image/png", PNG);
    let answer = bob.request("POST", "/v1/media?name=a", &[("content-type", "image/png")], PNG).ok();
    let his = answer["id"].as_str().unwrap().to_owned();
    assert_ne!(mine, his, "nobody learns that somebody has it");
    bob.get(&format!("/v1/media/{mine}")).refused(404, 131_052);
    for method in ["PUT", "POST", "PATCH"] {
        let answer = alice.request(method, &format!("/v1/media/{mine}"), &[("content-type", "image/png")], b"other");
        assert_eq!(answer.status, 405, "{method}");
    }
    alice.request("DELETE", &format!("/v1/media/{mine}"), &[], b"").ok();
    assert_eq!(bob.get(&format!("/v1/media/{his}")).body, PNG);
}

#[test]
fn a_server_killed_in_the_middle_leaves_nothing_of_an_upload_and_all_of_a_file() {
    let (mut server, [alice, ..]) = three(SWEEPS);
    let mut sending = Sending::begin(&alice, "/v1/media?type=document", &[], Some(20 * MIB));
    sending.send_file(5, 0..20 * MIB);
    let kept = sending.answer().json()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/media/{kept}");

    let mut sending = Sending::begin(&alice, "/v1/media?type=document", &[], Some(20 * MIB));
    sending.send_file(6, 0..12 * MIB);
    stored_now(&server, 2);
    // While somebody downloads.
    let part = get(&alice, &path, &[], Some(MIB));
    assert_eq!(part.status, 200);
    server.kill9();
    drop(sending);
    assert_eq!(stored(&server).len(), 2, "or there is nothing to sweep");
    server.restart();
    let alice = Client::of(&server, "alice");
    stored_soon(&server, 1);
    let range = format!("bytes={}-", part.length);
    let rest = get(&alice, &path, &[("range", &range)], None);
    assert_eq!((rest.status, part.length + rest.length), (206, 20 * MIB));
    assert_eq!(get(&alice, &path, &[], None).sha256, sum(5, 20 * MIB));
    upload(&alice, "", "text/plain", b"and on");
}

#[test]
fn files_go_when_their_time_is_over() {
    let (server, [alice, ..]) = three(&format!("{SWEEPS}ttl_s = 1\n"));
    let id = upload(&alice, "?name=a", "image/png", PNG);
    stored_soon(&server, 0);
    alice.get(&format!("/v1/media/{id}")).refused(404, 131_052);
    assert_eq!(alice.get("/v1/media?name=a").ok()["media"], json!([]));
}

#[test]
fn a_message_with_its_file_inline_is_one_request() {
    let (server, [alice, bob, _]) = three("");
    let body = form(
        &[("sender_ID", "alice"), ("reciever_ID", "bob"), ("type", "image")],
        Some(("a.png", "image/png", PNG)),
        &[],
    );
    let answer = alice.request("POST", "/messages", &[FORM], &body).ok();
    let mut phone = Device::v5(&server, "bob", "phone");
    let entry = phone.entry();
    let id = entry["image"]["id"].as_str().unwrap_or_else(|| panic!("{answer} {entry}"));
    assert_eq!(bob.get(&format!("/v1/media/{id}")).body, PNG);
    assert_eq!(entry["image"]["file_size"], Value::from(PNG.len()));
}
