//! Every type of message arrives byte for byte as wire.md shows it.
#![expect(clippy::expect_used, reason = "a test ends that way")]

mod common;

use common::{Client, Device, TestServer};

/// What is published behind `"id"` and `"to"`, and what stands behind `"timestamp"` in the entry.
const TYPES: [(&str, &str, &str); 12] = [
    ("text", r#""type":"text","text":{"body":"hi"}"#, r#""type":"text","text":{"body":"hi"}"#),
    ("short", r#""text":{"body":"hi"}"#, r#""type":"text","text":{"body":"hi"}"#),
    ("unicode", r#""text":{"body":"\u00e9 \ud83d\udc4d \n"}"#, r#""type":"text","text":{"body":"é 👍 \n"}"#),
    (
        "location",
        r#""type":"location","location":{"latitude":48.85,"longitude":2.35,"name":"Paris","address":".."}"#,
        r#""type":"location","location":{"latitude":48.85,"longitude":2.35,"name":"Paris","address":".."}"#,
    ),
    (
        "contacts",
        r#""type":"contacts","contacts":[{"name":{"formatted_name":"Ann"},"phones":[{"phone":"+331","type":"CELL"}]}]"#,
        r#""type":"contacts","contacts":[{"name":{"formatted_name":"Ann"},"phones":[{"phone":"+331","type":"CELL"}]}]"#,
    ),
    (
        "reaction",
        r#""type":"reaction","reaction":{"message_id":"text","emoji":"\ud83d\udc4d"}"#,
        r#""type":"reaction","reaction":{"message_id":"text","from":"alice","emoji":"👍"}"#,
    ),
    (
        "unreaction",
        r#""type":"reaction","reaction":{"message_id":"text","emoji":""}"#,
        r#""type":"reaction","reaction":{"message_id":"text","from":"alice","emoji":""}"#,
    ),
    (
        "reply",
        r#""context":{"message_id":"text"},"type":"text","text":{"body":"yes"}"#,
        r#""type":"text","text":{"body":"yes"},"context":{"message_id":"text","from":"alice"}"#,
    ),
    (
        "reply-by-name",
        r#""context":{"message_id":"alice/text"},"type":"text","text":{"body":"yes"}"#,
        r#""type":"text","text":{"body":"yes"},"context":{"message_id":"text","from":"alice"}"#,
    ),
    (
        "individual",
        r#""messaging_product":"whatsapp","recipient_type":"individual","type":"text","text":{"body":"hi","preview_url":false}"#,
        r#""type":"text","text":{"body":"hi","preview_url":false}"#,
    ),
    (
        "far-away",
        r#""type":"location","location":{"longitude":-122.41941550000001,"latitude":37.774929499999999}"#,
        r#""type":"location","location":{"latitude":37.7749295,"longitude":-122.41941550000001}"#,
    ),
    (
        "quotes",
        r#""text":{"body":"\"\\\/\u0000\u007f"}"#,
        "\"type\":\"text\",\"text\":{\"body\":\"\\\"\\\\/\\u0000\u{7f}\"}",
    ),
];

/// Of files, by media id, with the type they are uploaded with.
const MEDIA: [(&str, &str, &str); 5] = [
    ("image", "image/jpeg", r#""type":"image","image":{"id":"MEDIA","caption":"us"}"#),
    ("audio", "audio/ogg", r#""type":"audio","audio":{"id":"MEDIA","duration":3.5,"voice":true}"#),
    ("video", "video/mp4", r#""type":"video","video":{"id":"MEDIA","caption":"us","width":1920,"height":1080}"#),
    ("document", "application/pdf", r#""type":"document","document":{"id":"MEDIA","filename":"a b.pdf"}"#),
    ("sticker", "image/webp", r#""type":"sticker","sticker":{"id":"MEDIA"}"#),
];

/// Publishes one message and compares the entry with what it must be, byte for byte.
#[track_caller]
fn arrives(alice: &mut Device, bob: &mut Device, id: &str, published: &str, expected: &str) {
    let payload = format!(r#"{{"id":"{id}","to":"bob",{published}}}"#);
    let (reason, answer) = alice.raw.publish_and_wait(&alice.outbox(), &payload);
    assert_eq!(reason, 0, "{id}: {answer:?}");
    let (n, timestamp) = (answer.get("n").expect("n"), answer.get("timestamp").expect("a timestamp"));
    let (qos, packet_id, entry) = bob.raw.next_publish();
    assert_eq!(qos, 1);
    let entry = String::from_utf8(entry).expect("UTF-8");
    let seq: u64 = n.parse().expect("n");
    let prev = seq - 1;
    let expected = format!(
        r#"{{"seq":{seq},"prev":{prev},"from":"alice","chat":"alice","n":{n},"id":"{id}","timestamp":"{timestamp}",{expected}}}"#
    );
    assert_eq!(entry, expected, "{id}");
    assert_eq!(u64::from(packet_id), 1 + seq % 65_535);
    bob.raw.ack(packet_id);
}

#[test]
fn words_places_people_reactions_and_replies() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let (mut alice, mut bob) = (Device::v5(&server, "alice", "phone"), Device::v5(&server, "bob", "phone"));
    for (id, published, expected) in TYPES {
        arrives(&mut alice, &mut bob, id, published, expected);
    }
}

#[test]
fn files_by_media_id() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let (mut alice, mut bob) = (Device::v5(&server, "alice", "phone"), Device::v5(&server, "bob", "phone"));
    let files = Client::of(&server, "alice");
    for (id, mime, object) in MEDIA {
        let uploaded = files.request("POST", "/v1/media", &[("content-type", mime)], b"?").ok();
        let published = object.replace("MEDIA", uploaded["id"].as_str().expect("an id"));
        let sha256 = uploaded["sha256"].as_str().expect("a sum");
        // Behind the id stands what the server knows of it.
        let facts = format!(r#","mime_type":"{mime}","sha256":"{sha256}","file_size":1"#);
        let at = published.find(r#""id":""#).expect("an id")
            + r#""id":""#.len()
            + uploaded["id"].as_str().map_or(0, str::len)
            + 1;
        let expected = format!("{}{facts}{}", &published[..at], &published[at..]);
        arrives(&mut alice, &mut bob, id, &published, &expected);
    }
}

#[test]
fn the_largest_text_arrives_whole() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let (mut alice, mut bob) = (Device::v5(&server, "alice", "phone"), Device::v5(&server, "bob", "phone"));
    let room = 60 * 1024 - r#"{"id":"m","to":"bob","type":"text","text":{"body":""}}"#.len();
    let body = format!(r#""type":"text","text":{{"body":"{}"}}"#, "x".repeat(room));
    arrives(&mut alice, &mut bob, "m", &body, &body);
}

#[test]
fn a_message_without_an_id_gets_one() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let (mut alice, mut bob) = (Device::v5(&server, "alice", "phone"), Device::v5(&server, "bob", "phone"));
    let (reason, answer) = alice.raw.publish_and_wait(&alice.outbox(), r#"{"to":"bob","text":{"body":"hi"}}"#);
    assert_eq!(reason, 0);
    let id = answer.get("id").expect("an id");
    assert_eq!(id.len(), 36, "a UUID: {id}");
    assert_eq!(bob.entry()["id"], id);
}

#[test]
fn typing_is_live_and_leaves_no_trace() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let (mut alice, mut bob) = (Device::v5(&server, "alice", "phone"), Device::v5(&server, "bob", "phone"));
    let typing = alice.raw.publish_bytes(&alice.outbox(), 0x00, 0, br#"{"status":"typing","chat":"bob"}"#);
    alice.raw.send(&typing);
    let (qos, _, payload) = bob.raw.next_publish();
    assert_eq!(
        (qos, String::from_utf8_lossy(&payload).as_ref()),
        (0, r#"{"type":"typing","from":"alice","chat":"alice"}"#)
    );
    assert_eq!(alice.send("bob", "m1", "hi"), 1);
    assert_eq!(bob.entry()["seq"].as_u64(), Some(1));
}
