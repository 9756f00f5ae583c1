//! Messages over HTTP: the same channel, rules and receipts as over MQTT, against the real server with a real MQTT client on the other side.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use common::mosquitto::{self, Subscriber, Version};
use common::{Client, Device, TestServer, assert_receipt, assert_text, dial, patience};
use serde_json::{Value, json};

fn texts(page: &Value) -> Vec<&str> {
    page["messages"].as_array().unwrap().iter().filter_map(|entry| entry["text"]["body"].as_str()).collect()
}

fn mission(to: &str, id: &str, text: &str) -> Value {
    json!({"sender_ID": "alice", "reciever_ID": to, "type": "text", "text": text, "id": id})
}

#[test]
fn a_message_over_http_reaches_mqtt_and_its_ticks_come_back() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = Device::v5(&server, "bob", "phone");
    let alice = Client::of(&server, "alice");
    assert_eq!(alice.get("/messages?user_id=alice").ok(), json!({"messages": [], "next": 0}), "the device begins");

    let sent = alice.post("/messages", &json!({"sender_ID": "alice", "reciever_ID": "bob", "text": "hi"})).ok();
    let id = sent["messages"][0]["id"].as_str().unwrap();
    assert_eq!((&sent["id"], &sent["n"], &sent["contacts"][0]["wa_id"]), (&json!(id), &json!(1), &json!("bob")));
    let entry = bob.entry();
    assert_text(&entry, "alice", "hi");
    assert_eq!((&entry["id"], &entry["n"], &entry["timestamp"]), (&json!(id), &json!(1), &sent["timestamp"]));

    let page = alice.get("/messages?user_id=alice&wait=20").ok();
    assert_receipt(&page["messages"][0], "delivered", "bob", 0, 1);
    bob.mark_read("alice", 1);
    let page = alice.get(&format!("/messages?user_id=alice&wait=20&after={}", page["next"])).ok();
    assert_receipt(&page["messages"][0], "read", "bob", 0, 1);
    assert_eq!(page["messages"].as_array().unwrap().len(), 1, "what `after` acknowledged is gone: {page}");
}

#[test]
fn a_message_over_mqtt_reaches_http_and_its_ticks_come_back() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v5(&server, "alice", "phone");
    let bob = Client::of(&server, "bob");
    for id in ["m1", "m2"] {
        alice.send("bob", id, id);
    }
    let page = bob.get("/messages?user_id=bob").ok();
    assert_eq!(texts(&page), ["m1", "m2"]);
    let seqs: Vec<_> =
        page["messages"].as_array().unwrap().iter().map(|entry| (&entry["prev"], &entry["seq"])).collect();
    assert_eq!(seqs, [(&json!(0), &json!(1)), (&json!(1), &json!(2))]);
    assert_eq!(bob.get("/messages?user_id=bob").ok(), page, "without `after` nothing is acknowledged");

    assert_eq!(
        bob.post("/messages/ack", &json!({"user_id": "bob", "ack": page["next"]})).ok(),
        json!({"success": true})
    );
    assert_receipt(&alice.entry(), "delivered", "bob", 0, 2);
    assert_eq!(bob.get("/messages?user_id=bob").ok()["messages"], json!([]));
    let mark = json!({"messaging_product": "whatsapp", "status": "read", "message_id": "m2"});
    assert_eq!(bob.post("/v24.0/bob/messages", &mark).ok(), json!({"success": true}));
    assert_receipt(&alice.entry(), "read", "bob", 0, 2);
}

#[test]
fn http_and_a_stock_mqtt_client_talk_to_each_other() {
    if !mosquitto::is_there() {
        return;
    }
    let server = TestServer::with_users(&["alice", "bob"]);
    let token = server.token("bob");
    for version in [Version::V311, Version::V5] {
        let mut bob = Subscriber::start(&server, version, "bob", "esp32", &token, &[]);
        let alice = Client::of(&server, "alice");
        let place = json!({"latitude": 48.85, "longitude": 2.35});
        let sent = alice.post("/messages", &json!({"reciever_ID": "bob", "type": "location", "location": place})).ok();
        let entry = loop {
            let entry = bob.entry();
            if entry["id"] == sent["id"] {
                break entry;
            }
        };
        assert_eq!((&entry["type"], &entry["location"]), (&json!("location"), &place));
        let answer = json!({"to": "alice", "type": "text", "text": {"body": format!("seen {}", sent["n"])}});
        mosquitto::publish(&server, version, "bob", "esp32", &token, 1, &answer.to_string());
        let mut after = String::new();
        loop {
            let page = alice.get(&format!("/messages?wait=20{after}")).ok();
            if texts(&page) == [format!("seen {}", sent["n"])] {
                break;
            }
            assert_ne!(page["messages"], json!([]), "nothing in time");
            after = format!("&after={}", page["next"]);
        }
        let last = alice.get("/messages").ok()["next"].clone();
        alice.post("/messages/ack", &json!({ "ack": last })).ok();
    }
}

#[test]
fn the_same_again_is_answered_like_the_first_time_whatever_way_it_comes() {
    let mut server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = Device::v5(&server, "bob", "phone");
    let mut phone = Device::v5(&server, "alice", "phone");
    let alice = Client::of(&server, "alice");
    let first = alice.post("/messages", &mission("bob", "m1", "hi")).ok();
    assert_eq!(alice.post("/messages", &mission("bob", "m1", "hi")).ok(), first);
    let cloud = json!({"id": "m1", "to": "bob", "type": "text", "text": {"body": "hi"}});
    assert_eq!(alice.post("/v24.0/alice/messages", &cloud).ok()["messages"], first["messages"]);
    assert_eq!(phone.send("bob", "m1", "hi"), 1, "over MQTT too");

    // A key stands for an id; the body's own counts first.
    let unnamed = json!({"reciever_ID": "bob", "text": "keyed"}).to_string();
    let keyed = |key: &str| alice.request("POST", "/messages", &[("Idempotency-Key", key)], unnamed.as_bytes()).ok();
    let once = keyed("order 42/7");
    assert_eq!((keyed("order 42/7"), keyed("\"order 42/7\"")), (once.clone(), once.clone()));
    assert_ne!(keyed("order 42/8")["id"], once["id"]);
    let named = mission("bob", "m1", "hi").to_string();
    assert_eq!(alice.request("POST", "/messages", &[("Idempotency-Key", "k")], named.as_bytes()).ok(), first);

    server.kill9();
    server.restart();
    let alice = Client { address: server.http(), ..alice };
    assert_eq!(alice.post("/messages", &mission("bob", "m1", "hi")).ok(), first, "after a crash");
    let conflict = alice.post("/messages", &mission("bob", "m1", "something else"));
    conflict.refused(409, 1409);
    assert_eq!(conflict.json()["conflicts_with"], "m1");
    bob.reconnect(&server);
    let bodies: Vec<Value> = (0..3).map(|_| bob.entry()["text"]["body"].clone()).collect();
    assert_eq!(bodies, ["hi", "keyed", "keyed"]);
    bob.raw.ping();
    let more = bob.raw.queued().filter(|packet| matches!(packet, common::Packet::Publish { .. })).count();
    assert_eq!(more, 0, "each of them once");
}

#[test]
fn marks_of_an_outbox_are_taken_too() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v5(&server, "alice", "phone");
    alice.send("bob", "m1", "hi");
    let bob = Client::of(&server, "bob");
    assert_eq!(bob.post("/messages", &json!({"status": "typing", "chat": "alice"})).ok(), json!({"success": true}));
    assert_eq!(alice.live()["type"], "typing");
    bob.post("/messages", &json!({"status": "read", "chat": "alice", "n": 1})).ok();
    assert_receipt(&alice.entry(), "read", "bob", 0, 1);
    bob.post("/messages", &json!({"status": "read", "chat": "alice", "n": 2})).refused(400, 131_009);
}

#[test]
fn an_answer_means_that_it_is_on_disk() {
    let mut server = TestServer::with_users(&["alice", "bob"]);
    let alice = Client::of(&server, "alice");
    let ids: Vec<Value> =
        (0..20).map(|i| alice.post("/messages", &mission("bob", &format!("m{i}"), "hi")).ok()["id"].clone()).collect();
    server.kill9();
    server.restart();
    let page = Client::of(&server, "bob").get("/messages").ok();
    let got: Vec<Value> = page["messages"].as_array().unwrap().iter().map(|entry| entry["id"].clone()).collect();
    assert_eq!(got, ids);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_not_now_in_every_shape_and_nothing_is_lost_or_doubled() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let server = TestServer::with_users(&["alice", "bob"]);
    let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap()).unwrap();
    let room = |bytes| {
        prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    };
    let (alice, bob) = (Client::of(&server, "alice"), Client::of(&server, "bob"));
    bob.get("/messages").ok();
    room(Some(400 * 1024));
    let body = |i: usize| mission("bob", &format!("m{i}"), &format!("{i} {}", "x".repeat(20_000)));
    let full = (0..100).find(|i| alice.post("/messages", &body(*i)).status != 200).expect("the disk is full some time");
    assert!(full > 0);
    let refused = alice.post("/messages", &body(full));
    refused.refused(503, 131_000);
    assert!(refused.header("retry-after").is_some_and(|secs| secs.parse::<u64>().is_ok()), "{refused:?}");
    let cloud = json!({"id": "c1", "to": "bob", "text": {"body": "y".repeat(20_000)}});
    let refused = alice.post("/v24.0/alice/messages", &cloud);
    refused.refused(503, 131_000);
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert_eq!(bob.get("/messages?limit=1").ok()["messages"][0]["id"], "m0", "what is there can be read");

    room(None);
    let deadline = Instant::now() + patience();
    while alice.post("/messages", &body(full)).status != 200 {
        assert!(Instant::now() < deadline, "it does not go on when there is room");
    }
    let page = bob.get("/messages").ok();
    let got: Vec<&str> = page["messages"].as_array().unwrap().iter().filter_map(|entry| entry["id"].as_str()).collect();
    assert_eq!(got, (0..=full).map(|i| format!("m{i}")).collect::<Vec<_>>());
}

#[test]
fn what_is_sent_over_http_shows_on_the_senders_devices() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut phone = Device::v5(&server, "alice", "phone");
    let alice = Client::of(&server, "alice");
    alice.get("/messages").ok();
    let sent = alice.post("/messages", &json!({"reciever_ID": "bob", "text": "hi"})).ok();
    let copy = phone.entry();
    assert_text(&copy, "alice", "hi");
    assert_eq!((&copy["to"], &copy["id"]), (&json!("bob"), &sent["id"]));
    assert_eq!(alice.get("/messages").ok()["messages"], json!([]), "not on the device that sent it");

    // A token of a device acts as that device.
    let bound = Client { address: server.http(), token: Some(server.token_with("alice", &["--device", "phone"])) };
    bound.post("/messages", &json!({"reciever_ID": "bob", "text": "from the phone"})).ok();
    assert_eq!(texts(&alice.get("/messages").ok()), ["from the phone"]);
}

#[test]
fn a_long_poll_ends_with_the_first_entry_or_with_its_time() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let (alice, bob) = (Client::of(&server, "alice"), Client::of(&server, "bob"));
    let began = Instant::now();
    assert_eq!(bob.get("/messages?wait=1").ok(), json!({"messages": [], "next": 0}));
    assert!((Duration::from_secs(1)..patience()).contains(&began.elapsed()), "{:?}", began.elapsed());

    let waiting = thread::spawn(move || (bob.get("/messages?wait=60").ok(), Instant::now()));
    // However early or late it comes to wait, it misses nothing.
    alice.post("/messages", &mission("bob", "m1", "hi")).ok();
    let (page, _) = waiting.join().unwrap();
    assert_eq!(texts(&page), ["hi"]);
}

#[test]
fn a_long_poll_ends_with_its_token_and_with_the_server() {
    let mut server = TestServer::with_users(&["alice", "bob"]);
    let brief = Client { address: server.http(), token: Some(server.token_with("bob", &["--ttl", "3s"])) };
    let began = Instant::now();
    assert_eq!(brief.get("/messages?wait=60").ok()["messages"], json!([]));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(brief.get("/messages").refused(401, 190).contains("expired"));

    let mut stream = dial(server.http());
    stream.set_read_timeout(Some(patience())).unwrap();
    let token = server.token("bob");
    // The second request on the connection is behind the answer to the first one: the server has it in hand then.
    let first = format!("GET /messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(first.as_bytes()).unwrap();
    let mut answer = vec![0; 4096];
    assert!(stream.read(&mut answer).unwrap() > 0);
    stream.write_all(first.replace("/messages", "/messages?wait=60").as_bytes()).unwrap();
    let alice = Client::of(&server, "alice");
    alice.get("/messages").ok();
    let began = Instant::now();
    server.terminate();
    assert!(began.elapsed() < Duration::from_secs(5), "the poll must not hold the stop: {:?}", began.elapsed());
}

#[test]
fn limits_are_told_with_what_was_expected() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let alice = Client::of(&server, "alice");
    for (target, word) in [
        ("/messages?limit=0", "limit: expected 1 to 100"),
        ("/messages?limit=101", "limit: expected 1 to 100"),
        ("/messages?wait=61", "wait: expected 0 to 60"),
        ("/messages?after=1", "ack: expected at most 0"),
    ] {
        let details = alice.get(target).refused(400, 131_009);
        assert!(details.starts_with(word), "{target}: {details}");
    }
    for target in ["/messages?after=-1", "/messages?limit=x", "/messages?user_id=%ff&after=1.5"] {
        alice.get(target).refused(400, 100);
    }
    for body in ["", "x", "[]", "{\"ack\":-1}", "{\"ack\":\"1\"}", "{\"ack\":1,\"ack\":2}"] {
        alice.request("POST", "/messages/ack", &[], body.as_bytes()).refused(400, 100);
    }
    let large = |bytes: usize| json!({"reciever_ID": "bob", "text": "x".repeat(bytes)});
    alice.post("/messages", &large(50 * 1024)).ok();
    alice.post("/messages", &large(61 * 1024)).refused(413, 131_009);
    let details = alice.post("/messages", &large(129 * 1024)).refused(413, 131_009);
    assert!(details.contains("131072"), "{details}");
    // A body that is chunked has no declared length.
    let token = alice.token.as_ref().unwrap();
    let mut chunked = format!(
        "POST /messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for _ in 0..200 {
        chunked.extend(b"400\r\n");
        chunked.extend([b'x'; 1024]);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    common::http::exchange(server.http(), &chunked).expect("an answer").refused(413, 131_009);
}

#[test]
fn a_page_ends_at_its_limit_and_the_next_one_goes_on() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let (alice, bob) = (Client::of(&server, "alice"), Client::of(&server, "bob"));
    // 40 of 50 kB are more than a page's 1 MiB.
    for i in 0..40 {
        alice.post("/messages", &mission("bob", &format!("m{i}"), &format!("{i} {}", "x".repeat(50_000)))).ok();
    }
    let (mut got, mut after) = (Vec::new(), String::new());
    let mut pages = Vec::new();
    while got.len() < 40 {
        let page = bob.get(&format!("/messages?limit=30{after}")).ok();
        after = format!("&after={}", page["next"]);
        pages.push(texts(&page).len());
        got.extend(texts(&page).iter().map(|text| text.split(' ').next().unwrap().to_owned()));
    }
    assert_eq!(got, (0..40).map(|i| i.to_string()).collect::<Vec<_>>());
    assert!(pages[0] < 30 && pages.len() < 5, "{pages:?}");
    let bytes = pages.iter().max().unwrap() * 50_000;
    assert!(bytes <= 1024 * 1024, "{pages:?}");
}

#[test]
fn parameters_may_come_as_parts_of_a_form() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let alice = Client::of(&server, "alice");
    let form = |parts: &[(&str, &str)]| {
        let part = |(name, value): &(&str, &str)| {
            format!("--cut\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        parts.iter().map(part).collect::<String>() + "--cut--\r\n"
    };
    let header = [("content-type", "multipart/form-data; boundary=cut")];
    let send = |parts: &[(&str, &str)]| alice.request("POST", "/messages", &header, form(parts).as_bytes());
    send(&[("sender_ID", "alice"), ("reciever_ID", "bob"), ("text", "{not JSON")]).ok();
    let place = r#"{"latitude":1,"longitude":2}"#;
    send(&[("receiver_ID", "bob"), ("type", "location"), ("location", place), ("id", "m2")]).ok();
    let page = Client::of(&server, "bob").get("/messages").ok();
    assert_eq!(page["messages"][0]["text"]["body"], "{not JSON");
    assert_eq!((&page["messages"][1]["id"], &page["messages"][1]["location"]["longitude"]), (&json!("m2"), &json!(2)));
    send(&[("reciever_ID", "bob"), ("text", "hi"), ("text", "ho")]).refused(400, 100);
    send(&[("reciever_ID", "bob"), ("text", &"x".repeat(70_000))]).refused(413, 131_009);
    alice.request("POST", "/messages", &[("content-type", "multipart/form-data")], b"x").refused(400, 100);
    alice.request("POST", "/messages", &header, b"--cut\r\nContent-Disp").refused(400, 100);
}

/// A form: words, and a file with its part's name, its own name and its type.
fn form(fields: &[(&str, &str)], file: (&str, &str, &str), bytes: &[u8]) -> Vec<u8> {
    let part = |(name, value): &(&str, &str)| {
        format!("--cut\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let (name, file_name, kind) = file;
    let head = format!(
        "--cut\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\nContent-Type: {kind}\r\n\r\n"
    );
    let mut body = fields.iter().map(part).collect::<String>().into_bytes();
    body.extend(head.into_bytes());
    body.extend(bytes);
    body.extend(b"\r\n--cut--\r\n");
    body
}

#[test]
fn a_file_may_come_with_its_message_and_a_retry_is_still_one() {
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";
    let server = TestServer::with_users(&["alice", "bob", "mallory"]);
    let (alice, bob) = (Client::of(&server, "alice"), Client::of(&server, "bob"));
    let mut phone = Device::v5(&server, "bob", "phone");
    let header = [("content-type", "multipart/form-data; boundary=cut")];
    let send = |body: &[u8]| alice.request("POST", "/messages", &header, body);
    let picture = |id: &str, bytes: &[u8]| {
        let fields = [("sender_ID", "alice"), ("reciever_ID", "bob"), ("text", "us"), ("id", id)];
        form(&fields, ("media_object", "a.png", "image/png"), bytes)
    };
    let sent = send(&picture("m1", PNG)).ok();
    let entry = phone.entry();
    assert_eq!(
        (&entry["id"], &entry["type"], &entry["image"]["caption"]),
        (&json!("m1"), &json!("image"), &json!("us"))
    );
    assert_eq!((&entry["image"]["mime_type"], &entry["image"]["file_size"]), (&json!("image/png"), &json!(PNG.len())));
    let path = format!("/v1/media/{}", entry["image"]["id"].as_str().unwrap());
    assert_eq!(bob.get(&path).body, PNG);
    assert_eq!(Client::of(&server, "mallory").get(&path).status, 404);

    // The same bytes again have another media id, and are the same message.
    assert_eq!(send(&picture("m1", PNG)).ok(), sent);
    let other = [PNG, b"more"].concat();
    send(&picture("m1", &other)).refused(409, 1409);
    let files = |name: &str| alice.get(&format!("/v1/media?name={name}")).ok()["media"].as_array().unwrap().len();
    assert_eq!(files("a.png"), 1, "what was uploaded for nothing is gone");

    let fields = [("reciever_ID", "bob"), ("id", "m2")];
    send(&form(&fields, ("document", "b.pdf", "application/pdf"), b"%PDF-1.7")).ok();
    let entry = phone.entry();
    assert_eq!((&entry["type"], &entry["document"]["filename"]), (&json!("document"), &json!("b.pdf")));
    send(&form(&[("reciever_ID", "nobody")], ("document", "c.pdf", "application/pdf"), b"%PDF-1.7"))
        .refused(404, 131_026);
    send(&form(&[("sender_ID", "bob"), ("reciever_ID", "bob")], ("document", "c.pdf", "text/plain"), b"x"))
        .refused(403, 10);
    send(&form(&[("reciever_ID", "bob"), ("reciever_ID", "bob")], ("document", "c.pdf", "text/plain"), b"x"))
        .refused(400, 100);
    assert_eq!(files("c.pdf"), 0, "nobody has the file of a message that was not sent");
    let large = vec![0; (16 << 20) + 1];
    send(&form(&[("type", "image"), ("reciever_ID", "bob")], ("media_object", "d.png", "image/png"), &large))
        .refused(413, 131_009);
    assert_eq!(files("d.png"), 0);
}

#[test]
fn s21_a_user_is_known_by_the_token_alone() {
    let server = TestServer::with_users(&["alice", "bob", "carol"]);
    let carol = Client::of(&server, "carol");
    let details = carol.post("/messages", &mission("bob", "m1", "hi")).refused(403, 10);
    assert!(details.starts_with("sender_ID: expected carol"), "{details}");
    carol.get("/messages?user_id=bob").refused(403, 10);
    carol.post("/messages/ack", &json!({"user_id": "bob", "ack": 0})).refused(403, 10);
    // What the server gives is not taken from anybody.
    let forged =
        json!({"to": "bob", "from": "alice", "seq": 9, "n": 9, "text": {"body": "hi"}, "status": "read", "ack": 9});
    carol.post("/v1/messages", &forged).refused(400, 100);
    let forged =
        json!({"to": "bob", "from": "alice", "seq": 9, "n": 9, "type": "text", "text": {"body": "hi"}, "ack": 9});
    carol.post("/v1/messages", &forged).ok();
    let page = Client::of(&server, "bob").get("/messages").ok();
    assert_eq!((&page["messages"][0]["from"], &page["messages"][0]["n"]), (&json!("carol"), &json!(1)));
}
