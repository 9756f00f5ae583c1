//! A token opens its user's topics and nothing else; nobody speaks as another.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::codec::{RETAIN_AVAILABLE, TOPIC_ALIAS_MAXIMUM};
use common::{Connect, Device, Raw, TestServer, assert_text, patience};
use serde_json::json;

/// Everything that is not alice's own inbox.
const FOREIGN_FILTERS: [&str; 16] = [
    "#",
    "+",
    "+/+/+/+",
    "users/#",
    "users/+/+/inbox",
    "users/alice/#",
    "users/alice/+/inbox",
    "users/bob/phone/inbox",
    "users/bob/phone/outbox",
    "users/alice/phone/outbox",
    "users/alice/up",
    "users/alice/down",
    "$share/g/users/alice/phone/inbox",
    "$SYS/#",
    "users/élan/phone/inbox",
    "users/alice/http/inbox",
];

/// Everything that is not alice's own outbox, but a legal topic.
const FOREIGN_TOPICS: [&str; 8] = [
    "users/bob/phone/outbox",
    "users/bob/phone/inbox",
    "users/alice/phone/inbox",
    "users/alice/http/outbox",
    "users/alice/up",
    "users/alice/down",
    "users/élan/phone/outbox",
    "élan",
];

fn hi(to: &str) -> String {
    json!({"to": to, "type": "text", "text": {"body": "hi"}}).to_string()
}

fn raw(server: &TestServer, v5: bool, user: &str) -> Raw {
    let connect = Connect { v5, ..Connect::v5(user, &format!("{user}-phone"), &server.token(user)) };
    connect.open(server.mqtt()).0
}

#[test]
fn alice_subscribes_to_nothing_but_her_own_inbox() {
    let server = TestServer::with_users(&["alice", "bob"]);
    for (v5, refused) in [(true, 0x87), (false, 0x80)] {
        let mut alice = raw(&server, v5, "alice");
        for filter in FOREIGN_FILTERS {
            assert_eq!(alice.subscribe(filter, 1), refused, "{filter:?}, MQTT 5: {v5}");
        }
        let code = alice.subscribe("users/alice/phone/inbox", 1);
        assert_eq!(code, 1, "the refusals did not hurt her, MQTT 5: {v5}");
    }
}

#[test]
fn alice_publishes_to_nothing_but_her_own_outbox() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = Device::v5(&server, "bob", "phone");
    let mut alice = raw(&server, true, "alice");
    for topic in FOREIGN_TOPICS {
        let (reason, properties) = alice.publish_and_wait(topic, &hi("bob"));
        assert_eq!(reason, 0x87, "{topic:?}: {properties:?}");
    }
    assert_eq!(alice.publish_and_wait("users/alice/phone/outbox", &hi("bob")).0, 0);
    let entry = bob.entry();
    assert_text(&entry, "alice", "hi");
    assert_eq!(entry["n"].as_u64(), Some(1), "nothing came of the others: {entry}");
}

#[test]
fn over_3_1_1_foreign_topics_get_a_puback_and_a_failed_and_the_tenth_ends_the_connection() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v3(&server, "alice", "phone");
    for attempt in 1..10 {
        let (_, _) = alice.raw.publish_and_wait("users/bob/phone/outbox", &hi("alice"));
        let (_, _, payload) = alice.raw.next_publish();
        let failed = common::parse(&payload);
        assert_eq!(
            (&failed["status"], &failed["errors"][0]["code"]),
            (&json!("failed"), &json!(10)),
            "{attempt}: {failed}"
        );
    }
    alice.raw.publish("users/bob/phone/outbox", &hi("alice"));
    alice.raw.expect_end();
    // She may come back, and nothing of it reached anybody.
    alice.reconnect(&server);
    alice.send("bob", "m1", "sorry");
    let mut bob = Device::v5(&server, "bob", "phone");
    assert_text(&bob.entry(), "alice", "sorry");
}

#[test]
fn nobody_speaks_as_another_by_any_field() {
    let server = TestServer::with_users(&["alice", "bob", "carol"]);
    let mut bob = Device::v5(&server, "bob", "phone");
    let mut alice = Device::v5(&server, "alice", "phone");
    let payload = json!({"id": "m1", "to": "bob", "text": {"body": "I am carol", "from": "carol"}, "from": "carol",
        "sender": "carol", "chat": "carol", "seq": 99, "prev": 98, "n": 77, "timestamp": "1"});
    let (reason, _) = alice.publish(&payload);
    assert_eq!(reason, 0);
    let entry = bob.entry();
    assert_text(&entry, "alice", "I am carol");
    assert_eq!(
        (&entry["chat"], entry["n"].as_u64(), entry["seq"].as_u64()),
        (&json!("alice"), Some(1), Some(1)),
        "{entry}"
    );
    assert_ne!(entry["timestamp"], "1");
    assert_eq!(entry["text"], json!({"body": "I am carol"}));
    assert_eq!(entry.get("sender"), None);
}

#[test]
fn a_token_is_good_for_its_own_user_only() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let bobs = server.token("bob");
    Connect::v3("alice", "x", &bobs).refused(server.mqtt(), 5);
    Connect::v5("alice", "x", &bobs).refused(server.mqtt(), 0x87);
}

#[test]
fn a_bad_token_opens_nothing() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let good = server.token("alice");
    // Signed by another server for the same user.
    let alien = TestServer::with_users(&["alice"]).token("alice");
    let (head, signature) = good.rsplit_once('.').expect("a JWT");
    let (header, claims) = head.split_once('.').expect("a JWT");
    let bobs_claims = server.token("bob").split('.').nth(1).expect("claims").to_owned();
    // {"alg":"none"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{claims}.");
    let other_claims = format!("{header}.{bobs_claims}.{signature}");
    for (what, user, token) in [
        ("empty", "alice", ""),
        ("no JWT", "alice", "password"),
        ("alien", "alice", alien.as_str()),
        ("unsigned", "alice", unsigned.as_str()),
        ("other claims", "bob", other_claims.as_str()),
        ("cut", "alice", head),
    ] {
        for v5 in [true, false] {
            let connect = Connect { v5, ..Connect::v5(user, "x", token) };
            let (mut raw, _, code, _) = connect.try_open(server.mqtt());
            assert_eq!(code, if v5 { 0x86 } else { 4 }, "{what}, MQTT 5: {v5}");
            raw.expect_end();
        }
    }
    let nobody = Connect { user: None, token: None, ..Connect::v5("", "x", "") };
    let (_, _, code, _) = nobody.try_open(server.mqtt());
    assert!(code >= 0x80, "no anonymous access: 0x{code:02x}");
}

#[test]
fn an_expired_token_opens_nothing_and_ends_what_it_opened() {
    let server = TestServer::with_users(&["alice"]);
    let token = server.token_with("alice", &["--ttl", "2s"]);
    let (mut live, _) = Connect::v5("alice", "live", &token).open(server.mqtt());
    let deadline = Instant::now() + patience();
    let refused_with = loop {
        let (_, _, code, _) = Connect::v5("alice", "x", &token).try_open(server.mqtt());
        if code != 0 {
            break code;
        }
        assert!(Instant::now() < deadline, "a token of two seconds works for ever");
        // What we wait for is time itself.
        thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(refused_with, 0x86);
    Connect::v3("alice", "x", &token).refused(server.mqtt(), 4);
    live.expect_end();
}

#[test]
fn a_token_of_a_device_opens_that_device_only() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let token = server.token_with("alice", &["--device", "phone"]);
    let (mut alice, _) = Connect::v5("alice", "x", &token).open(server.mqtt());
    assert_eq!(alice.subscribe("users/alice/tablet/inbox", 1), 0x87);
    assert_eq!(alice.publish_and_wait("users/alice/tablet/outbox", &hi("bob")).0, 0x87);
    assert_eq!(alice.subscribe("users/alice/phone/inbox", 1), 1);
    assert_eq!(alice.publish_and_wait("users/alice/phone/outbox", &hi("bob")).0, 0);
}

#[test]
fn retained_messages_do_not_exist() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let connect = Connect::v5("alice", "alice-phone", &server.token("alice"));
    let (mut alice, _, code, properties) = connect.try_open(server.mqtt());
    assert_eq!((code, properties.number(RETAIN_AVAILABLE)), (0, Some(0)), "{properties:?}");
    assert_eq!(properties.number(TOPIC_ALIAS_MAXIMUM).unwrap_or(0), 0);
    let retained = alice.publish_bytes("users/alice/phone/outbox", 0x03, 1, hi("bob").as_bytes());
    alice.send(&retained);
    assert_eq!(alice.expect_end(), Some(0x9a));

    // Over 3.1.1 the flag is ignored.
    let mut alice = raw(&server, false, "alice");
    let retained = alice.publish_bytes("users/alice/phone/outbox", 0x03, 1, hi("bob").as_bytes());
    alice.send(&retained);
    alice.puback(1);
    let mut bob = Device::v5(&server, "bob", "phone");
    let entry = bob.entry();
    assert_text(&entry, "alice", "hi");
    assert_eq!(entry["n"].as_u64(), Some(1), "only that one: {entry}");
}

#[test]
fn a_topic_with_wildcards_ends_the_connection_and_nothing_else() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut bob = Device::v5(&server, "bob", "phone");
    for v5 in [true, false] {
        for topic in ["users/+/phone/outbox", "users/alice/#", "+", "#"] {
            let mut alice = raw(&server, v5, "alice");
            alice.publish(topic, &hi("bob"));
            let reason = alice.expect_end();
            assert!(reason.is_none_or(|reason| reason >= 0x80), "{topic}: {reason:?}");
        }
    }
    Device::v5(&server, "alice", "phone").send("bob", "m1", "still here");
    assert_text(&bob.entry(), "alice", "still here");
}

#[test]
fn the_device_of_http_is_not_for_mqtt() {
    let server = TestServer::with_users(&["alice"]);
    let mut alice = raw(&server, true, "alice");
    assert_eq!(alice.subscribe("users/alice/http/inbox", 1), 0x87);
    assert_eq!(alice.publish_and_wait("users/alice/http/outbox", &hi("alice")).0, 0x87);
}
