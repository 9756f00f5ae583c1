//! Packets after CONNECT, byte by byte, in both versions: what docs/conformance.md claims of sections 1.5, 2 and 3.3 to 3.15 of MQTT 5
//! about what is legal; security tests S7, S46, S47.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use common::codec::{frame, write_text, write_variable};
use common::{Connect, Device, Packet, Raw, TestServer, assert_text};
use serde_json::json;

const OUTBOX: &str = "users/alice/phone/outbox";
const INBOX: &str = "users/alice/phone/inbox";

/// What becomes of bytes.
#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    /// The connection ends; MQTT 5 says this reason.
    End(u8),
    /// The connection goes on.
    Goes,
}
use Outcome::{End, Goes};

/// What is sent, and the outcome on MQTT 5 and on 3.1.1; `None`: the bytes mean something only in the other version.
type Row = (&'static str, Vec<u8>, Option<Outcome>, Option<Outcome>);

struct Stage {
    server: TestServer,
    token: String,
    bob: Device,
    sent: u64,
}

impl Stage {
    fn new() -> Self {
        let server = TestServer::with_users(&["alice", "bob"]);
        let token = server.token("alice");
        let bob = Device::v5(&server, "bob", "phone");
        Self { server, token, bob, sent: 0 }
    }

    fn alice(&self, v5: bool) -> Raw {
        Connect { v5, ..Connect::v5("alice", "alice-phone", &self.token) }.open(self.server.mqtt()).0
    }

    /// Every row in both versions. A message behind illegal bytes is not taken in, one behind legal bytes is.
    #[track_caller]
    fn play(&mut self, rows: &[Row]) {
        for (what, bytes, on_v5, on_v3) in rows {
            for (v5, expected) in [(true, on_v5), (false, on_v3)] {
                let Some(expected) = *expected else { continue };
                let mut alice = self.alice(v5);
                let text = json!({"to": "bob", "text": {"body": *what}}).to_string();
                let message = alice.publish_bytes(OUTBOX, 0x02, 9999, text.as_bytes());
                alice.send(&[bytes.clone(), message].concat());
                match expected {
                    End(reason) => assert_eq!(alice.expect_end(), v5.then_some(reason), "{what}, MQTT 5: {v5}"),
                    Goes => {
                        alice.puback(9999);
                        self.sent += 1;
                        let entry = self.bob.entry();
                        assert_text(&entry, "alice", what);
                        assert_eq!(entry["n"].as_u64(), Some(self.sent), "nothing behind illegal bytes was taken in");
                    }
                }
            }
        }
        self.bob.raw.ping();
        assert_eq!(self.bob.raw.queued().count(), 0);
    }
}

fn both(outcome: Outcome) -> (Option<Outcome>, Option<Outcome>) {
    (Some(outcome), Some(outcome))
}

fn row(what: &'static str, bytes: impl Into<Vec<u8>>, (v5, v3): (Option<Outcome>, Option<Outcome>)) -> Row {
    (what, bytes.into(), v5, v3)
}

/// A packet of MQTT 5.
fn v5(what: &'static str, first: u8, body: &[u8], outcome: Outcome) -> Row {
    (what, frame(first, body), Some(outcome), None)
}

/// A packet of MQTT 3.1.1.
fn v3(what: &'static str, first: u8, body: &[u8], outcome: Outcome) -> Row {
    (what, frame(first, body), None, Some(outcome))
}

/// Length-prefixed texts and other bytes, in a row.
fn body(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn text(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_text(&mut out, text);
    out
}

/// [MQTT-2.1.3-1], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1], [MQTT-3.3.1-2], [MQTT-3.3.1-4],
/// [MQTT-4.13.1-1]
#[test]
fn a_first_byte_is_a_clients_type_with_its_exact_flags() {
    let mut rows = Vec::new();
    for first in 0..=0xff_u8 {
        let (kind, flags) = (first >> 4, first & 0x0f);
        let expected = match kind {
            // Tested with their bodies.
            3 if (flags >> 1) & 3 != 3 && flags != 8 && flags != 9 => continue,
            3 => End(0x81),
            6 | 8 | 10 if flags == 2 => continue,
            6 | 8 | 10 => End(0x81),
            1 | 4 | 12 | 14 if flags == 0 => continue,
            1 | 4 | 12 | 14 => End(0x81),
            // Reserved, a server's, or AUTH when no method was agreed on.
            _ => End(0x82),
        };
        rows.push(row("a first byte", frame(first, &[0, 1, 0, 0]), both(expected)));
    }
    Stage::new().play(&rows);
}

/// [MQTT-1.5.5-1]
#[test]
fn s07_lengths_are_of_at_most_four_bytes_and_of_the_fewest() {
    let publish = |properties: &[u8]| frame(0x32, &body(&[&text(OUTBOX), &[0, 7], properties, b"{}"]));
    Stage::new().play(&[
        row("a remaining length of five bytes", b"\xc0\x80\x80\x80\x80\x00".to_vec(), both(End(0x81))),
        row("and of more", b"\xc0\xff\xff\xff\xff\xff\xff".to_vec(), both(End(0x81))),
        row("a remaining length that is too long for its value", b"\xc0\x80\x00".to_vec(), both(End(0x81))),
        row("and another", b"\x40\x82\x80\x00\x00\x01".to_vec(), both(End(0x81))),
        row("a property length that is too long for its value", publish(&[0x80, 0x00]), (Some(End(0x81)), None)),
        row("a property length of five bytes", publish(&[0x80, 0x80, 0x80, 0x80, 0x00]), (Some(End(0x81)), None)),
        row("a property length past the end", publish(&[0x7f]), (Some(End(0x81)), None)),
        row("a text past the end", frame(0x32, b"\0\x50users"), both(End(0x81))),
        row("a packet that ends in its packet id", frame(0x32, &body(&[&text(OUTBOX), b"\0"])), both(End(0x81))),
    ]);
}

/// [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-1.5.7-1], [MQTT-2.2.1-2], [MQTT-2.2.2-1], [MQTT-3.3.2-1], [MQTT-3.3.2-2], [MQTT-3.3.2-7],
/// [MQTT-3.3.2-8], [MQTT-3.3.2-13], [MQTT-3.3.2-14], [MQTT-3.3.2-19], [MQTT-3.3.4-6], [MQTT-4.7.0-1], [MQTT-4.7.3-1], [MQTT-4.7.3-2]
#[test]
fn a_publish_is_legal_or_the_end() {
    let on_v5 = |what, properties: &[u8], outcome| {
        let mut length = Vec::new();
        write_variable(&mut length, properties.len());
        v5(what, 0x32, &body(&[&text(OUTBOX), &[0, 7], &length, properties, b"{\"ack\":0}"]), outcome)
    };
    let named = |what, topic: &[u8], outcome| {
        let length = u16::try_from(topic.len()).unwrap().to_be_bytes();
        (what, frame(0x30, &body(&[&length, topic, b"\0{}"])), Some(outcome), Some(outcome))
    };
    Stage::new().play(&[
        named("an empty topic", b"", End(0x82)),
        named("a topic with U+0000", b"users/alice\0", End(0x81)),
        named("a topic that is not UTF-8", b"users/\xc3\x28", End(0x81)),
        named("a topic with a surrogate", b"users/\xed\xa0\x80", End(0x81)),
        named("a topic in more bytes than UTF-8 takes", b"users/\xc0\xaf", End(0x81)),
        named("a topic with +", b"users/+/phone/outbox", End(0x90)),
        named("a topic with #", b"users/#", End(0x90)),
        v3("packet id 0", 0x32, &body(&[&text(OUTBOX), b"\0\0{}"]), End(0x82)),
        v5("packet id 0 on 5", 0x32, &body(&[&text(OUTBOX), b"\0\0\0{}"]), End(0x82)),
        v5("retain", 0x33, &body(&[&text(OUTBOX), b"\0\x07\0{}"]), End(0x9a)),
        v5("no property length", 0x32, &body(&[&text(OUTBOX), b"\0\x07"]), End(0x81)),
        on_v5(
            "all properties that a client may send",
            b"\x01\x01\x02\0\0\0\x05\x03\0\x01t\x08\0\x01r\x09\0\x01c\x26\0\x01k\0\x01v\x26\0\x01k\0\x01v",
            Goes,
        ),
        on_v5("topic alias 0", b"\x23\0\0", End(0x94)),
        on_v5("topic alias 1", b"\x23\0\x01", End(0x94)),
        on_v5("a subscription identifier", b"\x0b\x01", End(0x82)),
        on_v5("a response topic with a wildcard", b"\x08\0\x01#", End(0x90)),
        on_v5("a response topic that is not UTF-8", b"\x08\0\x02\xc3\x28", End(0x81)),
        on_v5("a content type that is not UTF-8", b"\x03\0\x02\xc3\x28", End(0x81)),
        on_v5("a content type with U+0000", b"\x03\0\x01\0", End(0x81)),
        on_v5("a user property whose name is not UTF-8", b"\x26\0\x02\xc3\x28\0\x01v", End(0x81)),
        on_v5("a user property whose value is not UTF-8", b"\x26\0\x01k\0\x02\xc3\x28", End(0x81)),
        on_v5("a user property without a value", b"\x26\0\x01k", End(0x81)),
        on_v5("a payload format twice", b"\x01\x01\x01\x01", End(0x82)),
        on_v5("payload format 2", b"\x01\x02", End(0x82)),
        on_v5("a property of CONNECT", b"\x11\0\0\0\x01", End(0x81)),
        on_v5("an unknown property", b"\x7e\x01", End(0x81)),
    ]);
}

/// [MQTT-3.4.2-1], [MQTT-3.6.2-1], [MQTT-4.3.2-5]: acknowledgements, also of packets that were never sent.
#[test]
fn s46_acknowledgements_are_legal_or_the_end_and_those_of_nothing_change_nothing() {
    Stage::new().play(&[
        row("a PUBACK of nothing", frame(0x40, &[0, 1]), both(Goes)),
        row("a thousand PUBACKs of nothing", frame(0x40, &[0x12, 0x34]).repeat(1000), both(Goes)),
        row("a PUBREL of nothing", frame(0x62, &[0, 1]), both(Goes)),
        row("PUBACK of packet 0", frame(0x40, &[0, 0]), both(End(0x82))),
        row("PUBREL of packet 0", frame(0x62, &[0, 0]), both(End(0x82))),
        row("half a PUBACK", frame(0x40, &[0]), both(End(0x81))),
        row("PUBREC: nothing is sent at QoS 2", frame(0x50, &[0, 1]), both(End(0x82))),
        row("PUBCOMP: nothing is sent at QoS 2", frame(0x70, &[0, 1]), both(End(0x82))),
        v5("a PUBACK with a reason", 0x40, &[0, 1, 0x10], Goes),
        v5("a PUBACK with a reason string", 0x40, b"\0\x01\x80\x04\x1f\0\x01r", Goes),
        v5("a PUBACK with two reason strings", 0x40, b"\0\x01\x80\x08\x1f\0\x01r\x1f\0\x01r", End(0x82)),
        v5("a PUBACK with a reason that it has not", 0x40, &[0, 1, 0x92], End(0x81)),
        v5("a PUBREL with a reason", 0x62, &[0, 1, 0x92], Goes),
        v5("a PUBREL with a reason that it has not", 0x62, &[0, 1, 0x87], End(0x81)),
        v5("bytes behind a PUBACK", 0x40, &[0, 1, 0, 0, 0], End(0x81)),
        v3("bytes behind a PUBACK", 0x40, &[0, 1, 0], End(0x81)),
    ]);
}

/// [MQTT-3.8.3-1] to [MQTT-3.8.3-5], [MQTT-3.10.3-1], [MQTT-3.10.3-2], [MQTT-4.7.3-1], [MQTT-4.7.3-2], [MQTT-1.5.4-1]
#[test]
fn a_subscribe_or_unsubscribe_is_legal_or_the_end() {
    let inbox = text(INBOX);
    Stage::new().play(&[
        v5("SUBSCRIBE without filters", 0x82, &[0, 1, 0], End(0x82)),
        v3("SUBSCRIBE without filters on 3.1.1", 0x82, &[0, 1], End(0x82)),
        v5("SUBSCRIBE without options", 0x82, &body(&[b"\0\x01\0", &inbox]), End(0x81)),
        v3("SUBSCRIBE without QoS", 0x82, &body(&[b"\0\x01", &inbox]), End(0x81)),
        v5("SUBSCRIBE with packet id 0", 0x82, &body(&[b"\0\0\0", &inbox, b"\x01"]), End(0x82)),
        v3("SUBSCRIBE with packet id 0 on 3.1.1", 0x82, &body(&[b"\0\0", &inbox, b"\x01"]), End(0x82)),
        v5("an empty filter", 0x82, b"\0\x01\0\0\0\x01", End(0x82)),
        v3("an empty filter on 3.1.1", 0x82, b"\0\x01\0\0\x01", End(0x82)),
        v5("a filter that is not UTF-8", 0x82, b"\0\x01\0\0\x02\xc3\x28\x01", End(0x81)),
        v3("a filter with U+0000", 0x82, b"\0\x01\0\x02a\0\x01", End(0x81)),
        v5("reserved option bits", 0x82, &body(&[b"\0\x01\0", &inbox, b"\x41"]), End(0x81)),
        v5("the other reserved option bit", 0x82, &body(&[b"\0\x01\0", &inbox, b"\x81"]), End(0x81)),
        v5("retain handling 3", 0x82, &body(&[b"\0\x01\0", &inbox, b"\x31"]), End(0x81)),
        v5("SUBSCRIBE at QoS 3", 0x82, &body(&[b"\0\x01\0", &inbox, b"\x03"]), End(0x81)),
        v3("SUBSCRIBE at QoS 3 on 3.1.1", 0x82, &body(&[b"\0\x01", &inbox, b"\x03"]), End(0x81)),
        v3("no local is nothing of 3.1.1", 0x82, &body(&[b"\0\x01", &inbox, b"\x05"]), End(0x81)),
        v5("no local on a shared subscription", 0x82, &body(&[b"\0\x01\0", &text("$share/g/a"), b"\x05"]), End(0x82)),
        v5("a subscription identifier", 0x82, &body(&[b"\0\x01\x02\x0b\x01", &inbox, b"\x01"]), End(0xa1)),
        v5("subscription identifier 0", 0x82, &body(&[b"\0\x01\x02\x0b\0", &inbox, b"\x01"]), End(0x82)),
        v5("UNSUBSCRIBE without filters", 0xa2, &[0, 1, 0], End(0x82)),
        v3("UNSUBSCRIBE without filters on 3.1.1", 0xa2, &[0, 1], End(0x82)),
        v5("UNSUBSCRIBE with packet id 0", 0xa2, &body(&[b"\0\0\0", &inbox]), End(0x82)),
        v5("UNSUBSCRIBE of a filter that is not UTF-8", 0xa2, b"\0\x01\0\0\x02\xc3\x28", End(0x81)),
        v3("UNSUBSCRIBE of a filter with U+0000", 0xa2, b"\0\x01\0\x02a\0", End(0x81)),
        v5("UNSUBSCRIBE of an empty filter", 0xa2, b"\0\x01\0\0\0", End(0x82)),
        v5("UNSUBSCRIBE with a subscription identifier", 0xa2, &body(&[b"\0\x01\x02\x0b\x01", &inbox]), End(0x81)),
    ]);
}

/// [MQTT-3.14.2-1], [MQTT-3.14.1-1], [MQTT-3.12.4-1]: what ends with DISCONNECT ends without an answer.
#[test]
fn a_disconnect_or_pingreq_is_legal_or_the_end() {
    let mut stage = Stage::new();
    stage.play(&[
        row("PINGREQ", frame(0xc0, &[]), both(Goes)),
        row("PINGREQ with a body", frame(0xc0, &[0]), both(End(0x81))),
        v5("DISCONNECT with a server's reason", 0xe0, &[0x8e], End(0x82)),
        v5("DISCONNECT with no reason at all", 0xe0, &[0x55], End(0x82)),
        v5("DISCONNECT with a server reference", 0xe0, b"\0\x04\x1c\0\x01s", End(0x81)),
        v5("DISCONNECT with a session expiry of a clean session", 0xe0, b"\0\x05\x11\0\0\0\x09", End(0x82)),
        v5("bytes behind DISCONNECT", 0xe0, &[0, 0, 0], End(0x81)),
        v3("DISCONNECT with a body", 0xe0, &[0], End(0x81)),
    ]);
    for (v5, bytes) in [(true, &b"\xe0\0"[..]), (true, b"\xe0\x01\x04"), (true, b"\xe0\x02\x99\0"), (false, b"\xe0\0")]
    {
        let mut alice = stage.alice(v5);
        // [MQTT-3.14.4-1]: what stands behind it counts for nothing.
        alice.send(&[bytes, &frame(0xc0, &[])].concat());
        assert_eq!(alice.next(), None, "{bytes:x?}");
    }
}

#[test]
fn s47_many_or_large_properties_are_bounded_by_the_packet_and_kept_by_nobody() {
    let mut stage = Stage::new();
    let user_property = |value: &str| body(&[&[0x26], &text("key"), &text(value)]);
    // In CONNECT: as many as it has room for, and no more.
    let many = user_property("value").repeat(500);
    Connect { more_properties: many.clone(), ..Connect::v5("alice", "x", &stage.token) }.open(stage.server.mqtt());
    let mut large = Raw::dial(stage.server.mqtt(), true);
    let connect =
        Connect { more_properties: user_property(&"v".repeat(65_535)), ..Connect::v5("alice", "x", &stage.token) };
    large.send(&connect.encode());
    assert_eq!(large.next(), None);
    // In PUBLISH: taken, and not handed on.
    for properties in [many, user_property(&"v".repeat(65_535))] {
        let mut length = Vec::new();
        write_variable(&mut length, properties.len());
        let payload = json!({"to": "bob", "text": {"body": "short"}}).to_string();
        let mut alice = stage.alice(true);
        alice.send(&frame(0x32, &body(&[&text(OUTBOX), &[0, 7], &length, &properties, payload.as_bytes()])));
        assert_eq!(alice.puback(7).0, 0);
        let (topic, size) = stage.bob.raw.wait_for("a PUBLISH", |packet| match packet {
            Packet::Publish { topic, id, payload, .. } => Some((topic.clone(), (payload.len(), *id))),
            _ => None,
        });
        stage.bob.raw.ack(size.1);
        assert!(topic == stage.bob.inbox() && size.0 < 500, "{size:?}");
    }
}
