//! Topics and filters: what docs/conformance.md claims of sections 3.3 and 4.7 of MQTT 5; security tests S27 to S29, S31 to S34, S38,
//! S39.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use common::codec::{frame, write_text};
use common::{Connect, Device, Packet, Raw, TestServer, assert_text};
use serde_json::json;

const OUTBOX: &str = "users/alice/phone/outbox";
const INBOX: &str = "users/alice/phone/inbox";
/// SUBACK when the client may not, and when a filter does not follow the grammar.
const NOT_AUTHORIZED: u8 = 0x87;
const FILTER_INVALID: u8 = 0x8f;

fn hi(to: &str, body: &str) -> String {
    json!({"to": to, "text": {"body": body}}).to_string()
}

struct Stage {
    server: TestServer,
    token: String,
}

impl Stage {
    fn new() -> Self {
        let server = TestServer::with_users(&["alice", "bob"]);
        let token = server.token("alice");
        Self { server, token }
    }

    fn connect(&self, v5: bool) -> Connect {
        Connect { v5, ..Connect::v5("alice", "alice-phone", &self.token) }
    }

    fn alice(&self, v5: bool) -> Raw {
        self.connect(v5).open(self.server.mqtt()).0
    }

    fn bob(&self) -> Device {
        Device::v5(&self.server, "bob", "phone")
    }

    /// SUBACK codes for filters that alice may not have: she is told, receives nothing of it, and goes on.
    #[track_caller]
    fn refuses(&self, filters: &[(&str, u8)]) {
        let mut bob = self.bob();
        for v5 in [true, false] {
            let mut alice = self.alice(v5);
            for (filter, code) in filters {
                let expected = if v5 { *code } else { 0x80 };
                assert_eq!(alice.subscribe(filter, 1), expected, "{filter:?}, MQTT 5: {v5}");
            }
            bob.send("alice", &format!("m-{v5}"), "for alice's own inbox");
            let own = json!({"to": "bob", "text": {"body": "for bob"}}).to_string();
            alice.publish_and_wait(OUTBOX, &own);
            bob.entry();
            alice.ping();
            let publishes = alice.queued().filter(|packet| matches!(packet, Packet::Publish { .. })).count();
            assert_eq!(publishes, 0, "nothing comes of a refused filter, MQTT 5: {v5}");
        }
    }
}

/// [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.2-1], [MQTT-4.8.2-1], [MQTT-4.8.2-2]
#[test]
fn s27_wildcards_system_topics_and_shared_subscriptions_are_refused() {
    Stage::new().refuses(&[
        ("#", NOT_AUTHORIZED),
        ("+/#", NOT_AUTHORIZED),
        ("/#", NOT_AUTHORIZED),
        ("+/+/+/+", NOT_AUTHORIZED),
        ("users/#", NOT_AUTHORIZED),
        ("users/+/inbox", NOT_AUTHORIZED),
        ("users/alice/+/inbox", NOT_AUTHORIZED),
        ("users/alice/phone/+", NOT_AUTHORIZED),
        ("users/alice/phone/inbox/#", NOT_AUTHORIZED),
        ("$SYS/#", NOT_AUTHORIZED),
        ("$share/g/#", NOT_AUTHORIZED),
        ("$share/g/users/alice/phone/inbox", NOT_AUTHORIZED),
        ("$share//users/alice/phone/inbox", NOT_AUTHORIZED),
        ("$queue/users/alice/phone/inbox", NOT_AUTHORIZED),
        ("$exclusive/users/alice/phone/inbox", NOT_AUTHORIZED),
        ("#/inbox", FILTER_INVALID),
        ("users/#/inbox", FILTER_INVALID),
        ("users/alice/phone#", FILTER_INVALID),
        ("users/ali+/phone/inbox", FILTER_INVALID),
        ("users/alice/phone/inbox+", FILTER_INVALID),
    ]);
}

#[test]
fn s28_anothers_inbox_is_refused_and_paths_mean_nothing() {
    Stage::new().refuses(&[
        ("users/bob/phone/inbox", NOT_AUTHORIZED),
        ("users/bob/phone/outbox", NOT_AUTHORIZED),
        ("users/alice/phone/outbox", NOT_AUTHORIZED),
        ("users/alice/../bob/phone/inbox", NOT_AUTHORIZED),
        ("users/alice/phone/../../bob/phone/inbox", NOT_AUTHORIZED),
        ("users/./alice/phone/inbox", NOT_AUTHORIZED),
        ("users/alice/phone/./inbox", NOT_AUTHORIZED),
        ("users/alice/http/inbox", NOT_AUTHORIZED),
        ("users/alice/down", NOT_AUTHORIZED),
        ("users/alice/up", NOT_AUTHORIZED),
        ("watchdog", NOT_AUTHORIZED),
    ]);
}

/// [MQTT-4.7.3-4], [MQTT-1.5.4-3]
#[test]
fn s29_topics_are_compared_byte_by_byte() {
    let near = [
        "Users/alice/phone/inbox",
        "users/Alice/phone/inbox",
        "users/alice/phone/INBOX",
        "users/alice/phone/inbox/",
        "/users/alice/phone/inbox",
        "users//alice/phone/inbox",
        "users/alice//phone/inbox",
        "users/alice/phone/inbox ",
        " users/alice/phone/inbox",
        "users/alice/phone/inbox\n",
        "users%2Falice%2Fphone%2Finbox",
        "users/%61lice/phone/inbox",
        "\u{feff}users/alice/phone/inbox",
        "users/\u{430}lice/phone/inbox",
        "users/\u{ff41}lice/phone/inbox",
        "users/alic\u{65}\u{301}/phone/inbox",
        "users/alice\u{200b}/phone/inbox",
        "users\\alice\\phone\\inbox",
        "users/alice/inbox",
    ];
    let stage = Stage::new();
    stage.refuses(&near.map(|filter| (filter, NOT_AUTHORIZED)));
    let mut bob = stage.bob();
    let mut alice = stage.alice(true);
    for topic in near {
        let topic = topic.replace("inbox", "outbox");
        assert_eq!(alice.publish_and_wait(&topic, &hi("bob", "near")).0, 0x87, "{topic:?}");
    }
    bob.raw.ping();
    let near =
        bob.raw.queued().filter(|p| matches!(p, Packet::Publish { payload, .. } if payload.ends_with(b"near\"}}")));
    assert_eq!(near.count(), 0);
}

#[test]
fn s31_publishing_elsewhere_is_refused_and_stores_nothing() {
    let stage = Stage::new();
    let mut bob = stage.bob();
    let forged =
        json!({"seq": 1, "prev": 0, "type": "status", "status": "delivered", "chat": "alice", "n": 9}).to_string();
    let topics = [
        "users/bob/phone/inbox",
        "users/bob/phone/outbox",
        "users/bob/down",
        "users/bob/up",
        "users/alice/down",
        "users/alice/up",
        "users/alice/phone/inbox",
        "users/alice/http/outbox",
        "$SYS/broker/uptime",
        "$share/g/users/alice/phone/outbox",
        "watchdog",
        "/",
    ];
    for qos in [0, 1, 2] {
        let mut alice = stage.alice(true);
        for (id, topic) in (1..).zip(topics) {
            let bytes = alice.publish_bytes(topic, qos << 1, id, forged.as_bytes());
            alice.send(&bytes);
            match qos {
                0 => {}
                1 => assert_eq!(alice.puback(id).0, 0x87, "{topic}"),
                // [MQTT-4.3.3-9]: and the packet id is free again.
                _ => assert_eq!((alice.pubrec(id), alice.release_and_wait(id)), (0x87, 0x92), "{topic}"),
            }
        }
        alice.ping();
    }
    bob.raw.ping();
    assert_eq!(bob.raw.queued().count(), 0, "nothing reached bob");
    let mut alice = Device::v5(&stage.server, "alice", "phone");
    assert_eq!(alice.send("bob", "m1", "the first"), 1, "nothing was stored in their chat");
    assert_text(&bob.entry(), "alice", "the first");
}

/// [MQTT-3.3.2-1], [MQTT-3.3.2-2], [MQTT-4.7.3-1] to [MQTT-4.7.3-3]
#[test]
fn s32_hostile_topics_reach_nobody_and_the_router_lives() {
    let stage = Stage::new();
    let mut bob = stage.bob();
    let long = "x".repeat(65_535);
    let deep = "a/".repeat(1000);
    for v5 in [true, false] {
        // These end the connection.
        for topic in [&b""[..], b"a/+", b"#", b"a\0b", b"\xc3\x28", b"\xff\xfe", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"] {
            let mut alice = stage.alice(v5);
            let length = u16::try_from(topic.len()).unwrap().to_be_bytes();
            alice.send(&frame(0x30, &[&length, topic, b"\0{}"].concat()));
            alice.expect_end();
        }
        // These are well-formed and not hers. On 3.1.1 nine of them are forgiven.
        let mut alice = stage.alice(v5);
        for topic in ["é/x", "été", "\u{10ffff}", "\u{feff}", long.as_str(), deep.as_str()] {
            let (reason, _) = alice.publish_and_wait(topic, "{}");
            assert_eq!(reason, if v5 { 0x87 } else { 0 }, "{} bytes", topic.len());
        }
        let (reason, _) = alice.publish_and_wait(OUTBOX, &hi("bob", "alive"));
        assert_eq!(reason, 0);
        assert_text(&bob.entry(), "alice", "alive");
    }
}

/// [MQTT-3.3.2-7], [MQTT-3.3.2-8], [MQTT-3.3.2-10] to [MQTT-3.3.2-12]
#[test]
fn s33_topic_aliases_are_not_granted_and_end_the_connection() {
    let stage = Stage::new();
    let mut bob = stage.bob();
    for (topic, alias) in [(OUTBOX, 0), (OUTBOX, 1), (OUTBOX, 65_535), ("", 1), ("users/bob/phone/outbox", 1)] {
        let (mut alice, _, code, properties) = stage.connect(true).try_open(stage.server.mqtt());
        assert_eq!((code, properties.number(0x22)), (0, None), "Topic Alias Maximum is 0");
        let mut body = Vec::new();
        write_text(&mut body, topic);
        body.extend([3, 0x23]);
        body.extend(u16::to_be_bytes(alias));
        body.extend(hi("bob", "by alias").as_bytes());
        alice.send(&frame(0x30, &body));
        assert_eq!(alice.expect_end(), Some(0x94), "{topic:?} {alias}");
    }
    // [MQTT-3.1.2-26], [MQTT-3.1.2-27]: nor does the server make any.
    let connect = Connect { more_properties: vec![0x22, 0, 10], ..stage.connect(true) };
    let mut alice = Device::open(stage.server.mqtt(), connect, "phone");
    for n in 1..=3 {
        bob.send("alice", &format!("m{n}"), "hello");
        alice.raw.wait_for("a PUBLISH with its topic", |packet| match packet {
            Packet::Publish { topic, .. } if topic == INBOX => Some(()),
            _ => None,
        });
    }
}

#[test]
fn s34_a_response_topic_is_stripped_and_never_acted_on() {
    let stage = Stage::new();
    let mut bob = stage.bob();
    let mut alice = stage.alice(true);
    let mut properties = vec![0x08];
    write_text(&mut properties, "users/bob/phone/inbox");
    properties.push(0x09);
    write_text(&mut properties, "correlation");
    let mut body = Vec::new();
    write_text(&mut body, OUTBOX);
    body.extend([0, 7, u8::try_from(properties.len()).unwrap()]);
    body.extend(properties);
    body.extend(hi("bob", "answer there").as_bytes());
    alice.send(&frame(0x32, &body));
    assert_eq!(alice.puback(7).0, 0);
    let (_, id, payload) = bob.raw.next_publish();
    assert_text(&common::parse(&payload), "alice", "answer there");
    bob.raw.ack(id);
    bob.raw.ping();
    assert_eq!(bob.raw.queued().count(), 0, "the message and nothing else");
}

/// [MQTT-3.3.1-5] to [MQTT-3.3.1-13], [MQTT-3.8.4-4]
#[test]
fn s38_retain_is_refused_or_ignored_and_a_subscriber_gets_nothing_retained() {
    let stage = Stage::new();
    let mut alice = stage.alice(true);
    let retained = alice.publish_bytes(OUTBOX, 0x03, 1, hi("bob", "retained").as_bytes());
    alice.send(&retained);
    assert_eq!(alice.expect_end(), Some(0x9a));
    let mut alice = stage.alice(false);
    let retained = alice.publish_bytes(OUTBOX, 0x03, 1, hi("bob", "once").as_bytes());
    alice.send(&retained);
    alice.puback(1);

    let (mut bob, _) = Connect::v5("bob", "bob-phone", &stage.server.token("bob")).open(stage.server.mqtt());
    let inbox = "users/bob/phone/inbox";
    // Retain As Published, and each Retain Handling: the message comes once, without the flag.
    assert_eq!(bob.subscribe(inbox, 0x09), 1);
    let id = bob.wait_for("the message", |packet| match packet {
        Packet::Publish { retain: false, qos: 1, id, payload, .. } => {
            assert_text(&common::parse(payload), "alice", "once");
            Some(*id)
        }
        _ => None,
    });
    bob.ack(id);
    for options in [0x19, 0x29, 0x09, 0x01] {
        assert_eq!(bob.subscribe(inbox, options), 1);
    }
    bob.ping();
    assert_eq!(bob.queued().count(), 0, "nothing is sent for a subscription that was there");
}

#[test]
fn s39_an_empty_payload_is_refused_and_clears_nothing() {
    let stage = Stage::new();
    let mut bob = stage.bob();
    let mut alice = stage.alice(true);
    alice.publish_and_wait(OUTBOX, &hi("bob", "stays"));
    assert_eq!(alice.publish_and_wait(OUTBOX, "").0, 0x99);
    let bytes = alice.publish_bytes(OUTBOX, 0, 0, b"");
    alice.send(&bytes);
    alice.ping();
    let mut old = stage.alice(false);
    let retained = old.publish_bytes(OUTBOX, 0x01, 0, b"");
    old.send(&retained);
    old.ping();
    assert_text(&bob.entry(), "alice", "stays");
    bob.raw.ping();
    assert_eq!(bob.raw.queued().count(), 0);
}
