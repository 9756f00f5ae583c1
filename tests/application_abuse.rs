//! A client that is logged in and means harm: forged names, guessed ids, forged receipts, numbers and JSON made to hurt. Each is refused
//! within the limits, tells nothing about what it should not see, and leaves the others' sessions as they were.
//!
//! The names of the tests are those of the failure catalogue, S51 to S56.

mod common;

use std::time::{Duration, Instant};

use common::{Connect, Device, Raw, TestServer, assert_receipt, assert_text, patience};
use serde_json::{Value, json};

/// The slowest answer to anything that is refused: it is read once, and no more.
const ANSWER_AT_MOST: Duration = Duration::from_secs(5);

/// Alice and bob talk; mallory is a user like any other.
struct Stage {
    server: TestServer,
    alice: Device,
    bob: Device,
    mallory: Device,
    n: u64,
}

impl Stage {
    fn new() -> Self {
        let server = TestServer::with_users(&["alice", "bob", "mallory"]);
        let alice = Device::v5(&server, "alice", "phone");
        let bob = Device::v5(&server, "bob", "phone");
        let mallory = Device::v5(&server, "mallory", "phone");
        let mut stage = Self { server, alice, bob, mallory, n: 0 };
        stage.untouched();
        stage
    }

    /// The server lives, and the victims' connections, order and ticks are as if nothing had happened.
    #[track_caller]
    fn untouched(&mut self) {
        self.n += 1;
        let (id, body) = (format!("m{}", self.n), format!("text {}", self.n));
        assert_eq!(self.alice.send("bob", &id, &body), self.n, "the chat's numbers go on");
        assert_text(&self.bob.entry(), "alice", &body);
        assert_receipt(&self.alice.entry(), "delivered", "bob", self.n - 1, self.n);
    }

    /// What mallory is answered: reason code and text.
    #[track_caller]
    fn mallory_says(&mut self, payload: &Value) -> (u8, String) {
        self.mallory_writes(&payload.to_string())
    }

    #[track_caller]
    fn mallory_writes(&mut self, payload: &str) -> (u8, String) {
        let (reason, properties) = self.mallory.raw.publish_and_wait(&self.mallory.outbox(), payload);
        (reason, properties.reason_string.unwrap_or_default())
    }
}

fn text(id: &str, to: &str, body: &str) -> Value {
    json!({"id": id, "to": to, "type": "text", "text": {"body": body}})
}

#[test]
fn s51_a_from_in_the_payload_is_not_believed() {
    let mut stage = Stage::new();
    for (i, v5) in [(1, true), (2, false)] {
        let token = stage.server.token("mallory");
        let connect = Connect { v5, ..Connect::v5("mallory", &format!("mallory-{i}"), &token) };
        let mut mallory = Device::open(stage.server.mqtt(), connect, "other");
        let forged = json!({"id": format!("f{i}"), "from": "alice", "sender": "alice", "sender_ID": "alice", "user": "alice",
            "to": "bob", "chat": "alice", "recipient_id": "alice", "type": "text", "text": {"body": "I am alice", "from": "alice"}});
        mallory.publish(&forged);
        let entry = stage.bob.entry();
        assert_text(&entry, "mallory", "I am alice");
        assert_eq!((&entry["chat"], entry["n"].as_u64()), (&json!("mallory"), Some(i)), "{entry}");
        stage.untouched();
    }
    // As a will, and where the other side only sees that somebody types.
    let will = json!({"from": "alice", "to": "bob", "text": {"body": "I was alice"}}).to_string();
    let outbox = "users/mallory/w/outbox".to_owned();
    let connect = Connect {
        will: Some((outbox, 1, will.into_bytes())),
        ..Connect::v5("mallory", "mallory-w", &stage.server.token("mallory"))
    };
    drop(connect.open(stage.server.mqtt()));
    assert_text(&stage.bob.entry(), "mallory", "I was alice");
    assert_eq!(stage.mallory_says(&json!({"status": "typing", "chat": "bob", "from": "alice"})).0, 0);
    let typing = stage.bob.live();
    assert_eq!((&typing["type"], &typing["from"]), (&json!("typing"), &json!("mallory")), "{typing}");
    stage.untouched();
}

#[test]
fn s52_what_one_is_not_in_answers_like_what_does_not_exist() {
    let mut stage = Stage::new();
    // A message of alice and bob, and one that never was: whatever is tried, the answers do not differ.
    let tries = |id: &str, from: &str| {
        [
            json!({"status": "read", "message_id": id}),
            json!({"status": "read", "message_id": id, "from": from}),
            json!({"status": "read", "message_id": id, "from": from, "chat": from}),
            json!({"status": "read", "message_id": format!("{from}/{id}")}),
            json!({"to": "bob", "type": "reaction", "reaction": {"message_id": id, "emoji": "\u{1f44d}"}}),
            json!({"to": "bob", "type": "reaction", "reaction": {"message_id": id, "from": from, "emoji": ""}}),
            json!({"to": "bob", "text": {"body": "x"}, "context": {"message_id": id, "from": from}}),
            json!({"to": "bob", "text": {"body": "x"}, "context": {"message_id": id, "from": from, "chat": "bob"}}),
            json!({"to": "bob", "text": {"body": "x"}, "context": {"message_id": id, "from": from, "chat": "alice"}}),
        ]
    };
    for (real, never) in tries("m1", "alice").into_iter().zip(tries("zz", "alice")) {
        let (reason, details) = stage.mallory_says(&real);
        let (reason_2, details_2) = stage.mallory_says(&never);
        assert_eq!((reason, details), (0x83, details_2.replace("zz", "m1")), "{real}");
        assert_eq!(reason_2, reason, "{never}");
    }
    // Chats by name and number: one that others have begun, one with somebody who is not there, groups.
    let refused = |stage: &mut Stage, chat: &str| {
        let (reason, details) = stage.mallory_says(&json!({"status": "read", "chat": chat, "n": 1}));
        let (to, to_details) = stage.mallory_says(&json!({"to": chat, "text": {"body": "x"}}));
        (reason, details.replace(chat, "CHAT"), to, to_details.replace(chat, "CHAT"))
    };
    let nobody = refused(&mut stage, "nobody");
    assert_eq!((nobody.0, nobody.2), (0x83, 0x83), "{nobody:?}");
    let none = refused(&mut stage, "g:1");
    assert_eq!((none.0, none.2), (0x83, 0x83), "{none:?}");
    let real = "g:0123456789abcdef";
    let create = json!({"group": "create", "chat": real, "subject": "Trip"}).to_string();
    let (reason, _) = stage.alice.raw.publish_and_wait(&stage.alice.outbox(), &create);
    assert_eq!((reason, stage.alice.entry()["system"]["type"].clone()), (0, json!("group_created")));
    for group in [real, "g:42", "g:alice", "g:alice-bob"] {
        assert_eq!(refused(&mut stage, group), none, "{group}");
    }
    let (reason, details) = stage.mallory_says(&json!({"status": "read", "chat": "bob", "n": 1}));
    assert_eq!((reason, details), (nobody.0, nobody.1.clone()), "alice has a chat with bob, mallory has none");
    // Topics: an inbox or outbox of somebody answers like one of nobody.
    for box_of in ["users/{}/phone/inbox", "users/{}/zz/inbox", "users/{}/up"] {
        let codes = ["bob", "nobody"].map(|name| stage.mallory.raw.subscribe(&box_of.replace("{}", name), 1));
        assert_eq!(codes, [0x87, 0x87], "{box_of}");
    }
    let answers = ["bob", "nobody"].map(|name| {
        let topic = format!("users/{name}/phone/outbox");
        let (reason, properties) = stage.mallory.raw.publish_and_wait(&topic, &text("x", "alice", "x").to_string());
        (reason, properties.reason_string.unwrap_or_default().replace(name, "NAME"))
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].0, 0x87);
    stage.untouched();
}

#[test]
fn s53_another_senders_id_is_ones_own_message() {
    let mut stage = Stage::new();
    // The same id: with the same content, with other content, to somebody else.
    assert_eq!(stage.mallory.send("bob", "m1", "text 1"), 1, "a chat of her own");
    let entry = stage.bob.entry();
    assert_text(&entry, "mallory", "text 1");
    assert_eq!((&entry["id"], &entry["chat"]), (&json!("m1"), &json!("mallory")), "{entry}");
    assert_eq!(stage.mallory_says(&text("m1", "alice", "mine")).0, 0x83, "that is her own conflict");

    // She takes an id before alice does.
    stage.mallory.send("bob", "m2", "first");
    assert_text(&stage.bob.entry(), "mallory", "first");
    stage.untouched();

    // Alice's repeats get alice's answer, with alice's number; her other content is refused as before.
    assert_eq!(stage.alice.send("bob", "m1", "text 1"), 1);
    assert_eq!(stage.alice.send("bob", "m2", "text 2"), 2);
    assert_eq!(stage.alice.publish(&text("m2", "bob", "first")).0, 0x83);
    // The id alone means two messages now; with `from` it means one, and mallory's tick is not alice's.
    let (reason, _) = stage.bob.publish(&json!({"status": "read", "message_id": "m1"}));
    assert_eq!(reason, 0x83, "ambiguous");
    let (reason, _) = stage.bob.publish(&json!({"status": "read", "message_id": "m1", "from": "mallory"}));
    assert_eq!(reason, 0);
    let read = loop {
        let entry = stage.mallory.entry();
        if entry["status"] == "read" {
            break entry;
        }
    };
    assert_receipt(&read, "read", "bob", 0, 1);
    stage.untouched();
}

#[test]
fn s54_a_forged_receipt_moves_nothing() {
    let mut stage = Stage::new();
    for (what, forged, expected) in [
        ("a message of others", json!({"status": "read", "message_id": "m1", "from": "alice"}), 0x83),
        ("in a chat of others", json!({"status": "read", "message_id": "m1", "from": "alice", "chat": "bob"}), 0x83),
        ("a number in a chat of others", json!({"status": "read", "chat": "alice", "n": 1}), 0x83),
        ("as bob", json!({"status": "read", "chat": "alice", "n": 1, "from": "bob", "recipient_id": "bob"}), 0x83),
        ("delivered", json!({"status": "delivered", "chat": "alice", "n": 1, "recipient_id": "bob"}), 0x83),
        ("sent", json!({"status": "sent", "chat": "alice", "messages": [{"id": "m1", "n": 1}]}), 0x83),
        ("failed", json!({"status": "failed", "id": "m1", "chat": "alice"}), 0x83),
        (
            "an entry as the server writes it",
            json!({"seq": 9, "prev": 8, "type": "status", "status": "read", "chat": "bob", "after": 0, "n": 1, "id": "m1",
                "recipient_id": "bob", "timestamp": "1764000000"}),
            0x99,
        ),
        ("an entry of another's inbox", json!({"ack": 1, "user": "bob", "device": "phone"}), 0x83),
    ] {
        let (reason, details) = stage.mallory_says(&forged);
        assert_eq!(format!("0x{reason:02x}"), format!("0x{expected:02x}"), "{what}: {details}");
        stage.untouched();
    }
    // PUBACKs for entries that were never sent to her; she is sent nothing, and bob's entries stay unacknowledged.
    let (first, entry) = {
        stage.n += 1;
        stage.alice.send("bob", &format!("m{}", stage.n), "not yet taken");
        stage.bob.entry_without_ack()
    };
    for id in [first, 1, 2, 3, 65_535] {
        stage.mallory.raw.ack(id);
        // Bob himself acknowledges what is not out.
        if id != first {
            stage.bob.raw.ack(id);
        }
    }
    stage.mallory.raw.ping();
    stage.bob.raw.ping();
    stage.alice.raw.ping();
    assert_eq!(stage.alice.raw.queued().count(), 0, "nobody took {entry}");

    // Of another device of one's own: a bound token reaches the bound device only.
    let token = stage.server.token_with("bob", &["--device", "watch"]);
    let (mut watch, _) = Connect::v5("bob", "bob-watch", &token).open(stage.server.mqtt());
    let seq = entry["seq"].as_u64().expect("a seq");
    let (reason, _) = watch.publish_and_wait("users/bob/phone/outbox", &json!({"ack": seq}).to_string());
    assert_eq!(reason, 0x87);
    let (reason, _) = watch.publish_and_wait("users/bob/watch/outbox", &json!({"ack": seq}).to_string());
    assert_eq!(reason, 0x83, "the watch reads no inbox");
    stage.alice.raw.ping();
    assert_eq!(stage.alice.raw.queued().count(), 0, "nobody took {entry}");
    stage.bob.raw.ack(first);
    assert_receipt(&stage.alice.entry(), "delivered", "bob", stage.n - 1, stage.n);

    // Beyond the newest, of one's own messages, and backwards: at most nothing happens.
    let newest = stage.n;
    assert_eq!(stage.bob.publish(&json!({"status": "read", "chat": "alice", "n": newest + 1})).0, 0x83);
    assert_eq!(stage.alice.publish(&json!({"status": "read", "message_id": "m1", "from": "alice"})).0, 0x83);
    assert_eq!(
        stage.alice.publish(&json!({"status": "read", "chat": "bob", "n": newest})).0,
        0,
        "there is nothing of his"
    );
    stage.bob.mark_read("alice", newest);
    assert_receipt(&stage.alice.entry(), "read", "bob", 0, newest);
    for n in [newest, 1, 0] {
        stage.bob.mark_read("alice", n);
    }
    stage.bob.raw.ping();
    assert_eq!(stage.bob.raw.queued().count(), 0, "alice's mark covers nothing of his");
    // If one of them had made a receipt, it would come before this one.
    stage.untouched();
    stage.bob.mark_read("alice", stage.n);
    assert_receipt(&stage.alice.entry(), "read", "bob", newest, stage.n);
}

#[test]
fn s55_positions_that_are_none_are_refused_and_no_cursor_moves() {
    let mut stage = Stage::new();
    // Three entries are out and not acknowledged.
    let token = stage.server.token("mallory");
    let mut mallory = Device::open(stage.server.mqtt(), Connect::v5("mallory", "c", &token), "tablet");
    for i in 1..=3 {
        stage.alice.send("mallory", &format!("x{i}"), &format!("for mallory {i}"));
        assert_text(&mallory.entry_without_ack().1, "alice", &format!("for mallory {i}"));
    }
    let numbers = [
        "-1",
        "-0.5",
        "-9223372036854775808",
        "-1e300",
        "0.5",
        "1.5",
        "1e-7",
        "9007199254740991",
        "9007199254740992",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "1e30",
        "1e400",
        "123456789012345678901234567890",
        "\"1\"",
        "\"\"",
        "null",
        "true",
        "[1]",
        "[1,3]",
        "{}",
        "{\"from\":1,\"to\":3}",
        "NaN",
        "Infinity",
        "0x10",
        "01",
        "+1",
        "1 2",
    ];
    for number in numbers {
        for payload in [
            format!("{{\"ack\":{number}}}"),
            format!("{{\"ack\":{number},\"limit\":1000000}}"),
            format!("{{\"sync\":{number}}}").replace("true", "false"),
            format!("{{\"status\":\"read\",\"chat\":\"alice\",\"n\":{number}}}"),
        ] {
            let outbox = mallory.outbox();
            let (reason, properties) = mallory.raw.publish_and_wait(&outbox, &payload);
            assert!(matches!(reason, 0x83 | 0x99), "{payload}: 0x{reason:02x} {properties:?}");
        }
    }
    for (payload, expected) in [
        (json!({"ack": 0}), 0),
        (json!({"ack": 1, "sync": true}), 0x99),
        (json!({"ack": [1, 2, 3], "status": "read"}), 0x99),
        (json!({"sync": true, "status": "read", "chat": "alice", "n": 3}), 0x99),
    ] {
        let (reason, properties) = mallory.publish(&payload);
        assert_eq!(format!("0x{reason:02x}"), format!("0x{expected:02x}"), "{payload}: {properties:?}");
    }
    stage.alice.raw.ping();
    assert_eq!(stage.alice.raw.queued().count(), 0, "nothing of it took anything");

    // A sync with fields it does not have is a sync: nothing moves, and nothing in flight is resent on this connection [MQTT-4.4.0-1].
    let (reason, properties) =
        mallory.publish(&json!({"sync": true, "seq": -1, "after": 1u64 << 63, "from": 0, "limit": 1e300}));
    assert_eq!(reason, 0, "{properties:?}");
    mallory.raw.ping();
    assert_eq!(mallory.raw.queued().count(), 0);
    // On the next one it comes from the cursor.
    let mut mallory = Device::open(stage.server.mqtt(), Connect::v5("mallory", "c", &token), "tablet");
    let (mut prev, mut seqs) = (0, Vec::new());
    for _ in 0..3 {
        let (_, id, payload) = mallory.raw.next_publish();
        let entry = common::parse(&payload);
        assert_eq!(entry["prev"].as_u64(), Some(prev), "{entry}");
        prev = entry["seq"].as_u64().expect("a seq");
        seqs.push(prev);
        mallory.raw.ack(id);
    }
    assert_eq!(seqs, [1, 2, 3]);
    let mut told = 0;
    while told < 3 {
        let receipt = stage.alice.entry();
        let n = receipt["n"].as_u64().expect("n");
        assert_receipt(&receipt, "delivered", "mallory", told, n);
        told = n;
    }
    stage.untouched();
}

/// JSON that is made to hurt its reader, each at most as large as a payload may be.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    const ROOM: usize = 60_000;
    let around = |open: &str, close: &str, depth: usize| [open.repeat(depth), close.repeat(depth)].concat();
    let keys = |count: usize, name: fn(usize) -> String| {
        let members: Vec<_> = (0..count).map(|i| format!("\"{}\":{i}", name(i))).collect();
        members.join(",")
    };
    vec![
        ("nested 20 deep, where nobody looks", {
            format!(r#"{{"to":"bob","text":{{"body":"x"}},"x":{}}}"#, around("[", "]", 20)).into_bytes()
        }),
        ("arrays 30,000 deep", around("[", "]", ROOM / 2).into_bytes()),
        ("arrays that do not end", "[".repeat(ROOM).into_bytes()),
        ("objects 10,000 deep", around("{\"a\":", "}", ROOM / 6).replace(":}", ":1}").into_bytes()),
        (
            "a body nested in a message",
            format!(r#"{{"id":"deep","to":"bob","text":{{"body":{}}}}}"#, around("[", "]", ROOM / 2 - 50)).into_bytes(),
        ),
        (
            "nested in what nobody knows",
            format!(r#"{{"to":"bob","text":{{"body":"x"}},"x":{}}}"#, around("[", "]", ROOM / 2 - 50)).into_bytes(),
        ),
        ("one key 8,000 times", format!("{{{}}}", keys(8_000 / 2, |_| "aaaaaa".to_owned())).into_bytes()),
        ("a key twice, once escaped", br#"{"to":"bob","t\u006f":"alice","text":{"body":"x"}}"#.to_vec()),
        ("a key twice, inside", br#"{"to":"bob","text":{"body":"x","body":"y"}}"#.to_vec()),
        ("a key twice, where nobody looks", br#"{"to":"bob","text":{"body":"x"},"x":{"y":1,"y":2}}"#.to_vec()),
        ("a list of 30,000 contacts", {
            let list = vec!["1"; ROOM / 2 - 50].join(",");
            format!(r#"{{"to":"bob","type":"contacts","contacts":[{list}]}}"#).into_bytes()
        }),
        ("no UTF-8", b"{\"to\":\"bob\",\"text\":{\"body\":\"\xff\xfe\xc0\x80\"}}".to_vec()),
        ("half a surrogate pair", br#"{"to":"bob","text":{"body":"\ud83d"}}"#.to_vec()),
        ("a number of 50,000 digits", format!("{{\"ack\":{}}}", "9".repeat(ROOM - 20)).into_bytes()),
        ("an exponent of 50,000 digits", format!("{{\"ack\":1e{}}}", "9".repeat(ROOM - 20)).into_bytes()),
        ("a backslash at the end", [b"{\"to\":\"".to_vec(), vec![b'\\'; ROOM]].concat()),
        ("CBOR that says 2^63 items", vec![0x9b, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x01]),
        ("bytes behind the value", br#"{"to":"bob","text":{"body":"x"}} {"to":"bob"}"#.to_vec()),
    ]
}

#[test]
fn s56_json_that_is_made_to_hurt_is_refused_quickly() {
    let mut stage = Stage::new();
    for (what, payload) in hostile() {
        let outbox = stage.mallory.outbox();
        let start = Instant::now();
        let id = stage.mallory.raw.packet_id();
        let bytes = stage.mallory.raw.publish_bytes(&outbox, 0x02, id, &payload);
        stage.mallory.raw.send(&bytes);
        let (reason, properties) = stage.mallory.raw.puback(id);
        let took = start.elapsed();
        assert!(matches!(reason, 0x83 | 0x97 | 0x99), "{what}: 0x{reason:02x} {properties:?}");
        assert!(took < ANSWER_AT_MOST, "{what}: {took:?}");
        let said = properties.reason_string.unwrap_or_default();
        assert!(said.len() < 500 && !said.contains("9999"), "{what}: the answer repeats what came: {said}");
    }
    stage.untouched();

    // Many keys that nobody knows are no crime within the size limit: they are passed over, quickly.
    let many: Vec<_> = (0..4_000).map(|i| format!("\"k{i}\":{i}")).collect();
    let start = Instant::now();
    let (reason, details) =
        stage.mallory_writes(&format!(r#"{{"id":"many","to":"bob","text":{{"body":"keys"}},{}}}"#, many.join(",")));
    assert!(start.elapsed() < ANSWER_AT_MOST, "{:?}", start.elapsed());
    assert_eq!(reason, 0, "{details}");
    let entry = stage.bob.entry();
    assert_text(&entry, "mallory", "keys");
    assert!(entry.to_string().len() < 300, "they are not forwarded: {entry}");

    // More than a payload may be: said so, on both sides of the largest packet.
    let large = json!({"id": "large", "to": "bob", "text": {"body": "x".repeat(100_000)}}).to_string();
    assert_eq!(stage.mallory_writes(&large).0, 0x97);
    stage.untouched();
    for v5 in [true, false] {
        let megabyte = json!({"to": "bob", "text": {"body": "x".repeat(1 << 20)}}).to_string();
        let mut raw = mallory_again(&stage, v5);
        raw.publish("users/mallory/big/outbox", &megabyte);
        let reason = raw.expect_end();
        assert!(reason.is_none_or(|reason| reason == 0x95), "MQTT 5: {v5}: {reason:?}");
        stage.untouched();
    }
    // Her other connection is as it was, too.
    stage.mallory.send("bob", "after", "all that");
    assert_text(&stage.bob.entry(), "mallory", "all that");
    assert!(patience() > ANSWER_AT_MOST, "what is too slow is told as that");
}

fn mallory_again(stage: &Stage, v5: bool) -> Raw {
    let connect = Connect { v5, ..Connect::v5("mallory", "mallory-big", &stage.server.token("mallory")) };
    connect.open(stage.server.mqtt()).0
}
