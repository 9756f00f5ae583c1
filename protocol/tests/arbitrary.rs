//! What holds for any input: nothing panics, what is written reads back, and an entry always fits.

#![expect(clippy::panic, reason = "tests end that way")]

use bytes::Bytes;
use natter_protocol::entry::{self, Entry, MessageTail};
use natter_protocol::ids::{Chat, MessageId, UserId};
use natter_protocol::link::{Down, Up};
use natter_protocol::outbox::{self, Item, Message, NUMBER_MAX, PAYLOAD_BYTES_MAX};
use natter_protocol::{json, topic::Topic};
use proptest::prelude::*;
use proptest::strategy::Union;
use serde_json::{Map, Value, json};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = json::parse(&bytes);
        let _ = outbox::parse(&bytes);
        let _ = Entry::parse(&bytes);
        let _ = Up::decode(Bytes::from(bytes.clone()));
        let _ = Down::decode(Bytes::from(bytes));
    }

    #[test]
    fn no_frame_makes_a_decoder_panic(kind in 0u8..48, rest in prop::collection::vec(any::<u8>(), 0..100)) {
        let frame: Bytes = std::iter::once(kind).chain(rest).collect();
        if let Ok(up) = Up::decode(frame.clone()) {
            prop_assert_eq!(Up::decode(up.encode()), Ok(up));
        }
        if let Ok(down) = Down::decode(frame) {
            prop_assert_eq!(Down::decode(down.encode()), Ok(down));
        }
    }

    #[test]
    fn no_text_makes_a_name_panic(text in ".{0,80}") {
        let _ = (Chat::parse(&text), UserId::parse_recipient(&text), Topic::parse(&text));
    }

    #[test]
    fn no_json_makes_the_outbox_panic(value in near_message()) {
        if let Err(rejected) = outbox::parse(value.to_string().as_bytes()) {
            prop_assert!(rejected.refusal.details.len() < 1024, "{}", rejected.refusal.details);
        }
    }

    #[test]
    fn a_body_reads_back_to_the_same_hash(value in message()) {
        let first = parse(&value.to_string());
        let hash = first.hash;
        let to = first.to.to_string();
        let stored = String::from_utf8(first.into_body(None)).expect("bodies are UTF-8");
        let second = parse(&format!("{{\"to\":\"{to}\",{stored}}}"));
        prop_assert_eq!(hash, second.hash, "{}", stored);
        prop_assert_eq!(stored.as_bytes(), second.into_body(None));
    }

    #[test]
    fn the_largest_message_fits_an_entry(unit in prop::sample::select(vec!["x", "é", "\\u0000", "\\n", "\\\"", "\\ud83d\\udc4d"]), less in 0usize..20) {
        let start = "{\"to\":\"b\",\"context\":{\"message_id\":\"m\"},\"text\":{\"body\":\"";
        let room = PAYLOAD_BYTES_MAX - start.len() - 3 - less;
        let message = parse(&format!("{start}{}\"}}}}", unit.repeat(room / unit.len())));
        let name = UserId::parse(&"u".repeat(64)).expect("a user");
        let (chat, id) = (Chat::Direct(name.clone()), MessageId::parse(&"m".repeat(64)).expect("an id"));
        let tail = MessageTail { from: &name, chat: &chat, to: Some(&chat), n: NUMBER_MAX, id: &id, timestamp: 1 << 40 };
        let entry = entry::head(NUMBER_MAX, NUMBER_MAX - 1, &tail.with_body(&message.into_body(Some(&name))));
        prop_assert!(entry.len() <= entry::ENTRY_BYTES_MAX, "{}", entry.len());
        prop_assert!(Entry::parse(&entry).is_ok());
    }

    /// Any message at all grows by less than what lies between the two limits.
    #[test]
    fn a_body_is_hardly_larger_than_its_payload(value in message()) {
        let payload = value.to_string();
        let body = parse(&payload).into_body(Some(&UserId::parse(&"u".repeat(64)).expect("a user")));
        prop_assert!(body.len() <= payload.len() + 1024, "{} from {}", body.len(), payload.len());
    }
}

fn parse(payload: &str) -> Message {
    match outbox::parse(payload.as_bytes()) {
        Ok(Item::Message(message)) => message,
        other => panic!("a message, got {other:?}"),
    }
}

/// Messages of every type, with everything that is allowed beside them.
fn message() -> impl Strategy<Value = Value> {
    let media = || "[0-9]{16,19}";
    let text = || any::<String>().prop_filter("a body", |s| !s.is_empty());
    let object = Union::new(vec![
        text().prop_map(|body| ("text", json!({ "body": body }))).boxed(),
        (media(), any::<String>(), 0u32..=1 << 20)
            .prop_map(|(id, caption, width)| ("image", json!({"id": id, "caption": caption, "width": width})))
            .boxed(),
        (media(), 0.0..1e7f64, any::<bool>())
            .prop_map(|(id, duration, voice)| ("audio", json!({"id": id, "duration": duration, "voice": voice})))
            .boxed(),
        (media(), ".{0,200}").prop_map(|(id, name)| ("document", json!({"id": id, "filename": name}))).boxed(),
        (-90.0..=90.0f64, -180.0..=180.0f64, ".{0,50}")
            .prop_map(|(lat, long, name)| ("location", json!({"latitude": lat, "longitude": long, "name": name})))
            .boxed(),
        prop::collection::vec((".{1,50}", ".{0,50}"), 1..5)
            .prop_map(|people| {
                let cards =
                    people.iter().map(|(n, p)| json!({"name": {"formatted_name": n}, "phones": [{"phone": p}]}));
                ("contacts", Value::Array(cards.collect()))
            })
            .boxed(),
        (".{0,10}", id()).prop_map(|(emoji, id)| ("reaction", json!({"emoji": emoji, "message_id": id}))).boxed(),
        (text(), id()).prop_map(|(body, id)| ("edit", json!({"text": {"body": body}, "message_id": id}))).boxed(),
        (any::<String>(), id()).prop_map(|(words, id)| ("edit", json!({"caption": words, "message_id": id}))).boxed(),
        id().prop_map(|id| ("delete", json!({"message_id": id}))).boxed(),
    ]);
    let reply = prop::option::of((id(), prop::option::of("[a-z]{1,9}")));
    ("[a-z]{1,20}|g:[a-zA-Z]{1,20}", object, reply).prop_map(|(to, (kind, object), reply)| {
        let mut message = json!({"to": to, "type": kind, kind: object, "from": "somebody", "seq": 9});
        if let Some((id, from)) = reply.filter(|_| !["reaction", "edit", "delete"].contains(&kind)) {
            message["context"] = json!({"message_id": id, "from": from});
        }
        message
    })
}

fn id() -> &'static str {
    "[A-Za-z0-9_.:-]{1,64}"
}

/// Objects with the wire's own names and any values behind them.
fn near_message() -> impl Strategy<Value = Value> {
    static NAMES: [&str; 27] = [
        "id",
        "to",
        "type",
        "text",
        "image",
        "location",
        "contacts",
        "reaction",
        "context",
        "status",
        "chat",
        "n",
        "ack",
        "sync",
        "body",
        "latitude",
        "longitude",
        "message_id",
        "from",
        "emoji",
        "recipient_type",
        "name",
        "edit",
        "delete",
        "caption",
        "forwarded",
        "frequently_forwarded",
    ];
    static WORDS: [&str; 17] = [
        "bob",
        "text",
        "image",
        "location",
        "contacts",
        "reaction",
        "read",
        "typing",
        "watch",
        "available",
        "g:42",
        "status@broadcast",
        "a/b",
        "edit",
        "delete",
        "starred",
        "",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(&WORDS[..]).prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from), object(inner, &NAMES)]
    });
    object(value, &NAMES)
}

fn object<S: Strategy<Value = Value>>(value: S, names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::collection::vec((prop::sample::select(names), value), 0..6)
        .prop_map(|members| Value::Object(members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>()))
}
