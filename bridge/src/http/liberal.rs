//! What clients send is taken liberally and becomes a payload of an outbox, which is not (wire.md section 3). Pure.
//!
//! The Cloud API's and the on-premises API's bodies differ from it in small things that real clients rely on; the parameters of the
//! mission's `sendMessage` have names of their own.

use natter_protocol::error::{Kind, Refusal};
use natter_protocol::json::{self, Json};
use natter_protocol::message::MessageType;
use natter_protocol::{MessageId, UserId};
use serde_json::{Map, Value};

/// Reads a body. What `serde_json` alone would forgive (duplicate keys, endless nesting) is refused.
pub(crate) fn parse(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let tree = json::parse(body).map_err(|error| malformed(format!("body: {error}")))?;
    let got = tree.what();
    match value(tree) {
        Value::Object(members) => Ok(members),
        _ => Err(malformed(format!("body: expected an object, got {got}"))),
    }
}

fn value(tree: Json<'_>) -> Value {
    match tree {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(flag),
        Json::Unsigned(n) => Value::from(n),
        Json::Negative(n) => Value::from(n),
        Json::Float(n) => Value::from(n),
        Json::String(text) => Value::String(text.into_owned()),
        Json::Array(items) => Value::Array(items.into_iter().map(value).collect()),
        Json::Object(members) => {
            // `null` is absent.
            let members = members.into_iter().filter(|(_, member)| *member != Json::Null);
            Value::Object(members.map(|(name, member)| (name.into_owned(), value(member))).collect())
        }
    }
}

/// Whether a body at a bare `/messages` is the Cloud API's rather than the mission's.
pub(crate) fn is_cloud(body: &Map<String, Value>) -> bool {
    body.contains_key("messaging_product") || body.contains_key("to") || body.contains_key("recipient")
}

/// A message for an outbox, and what its `to` was before it was made a name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draft {
    pub(crate) payload: Map<String, Value>,
    pub(crate) to_as_sent: String,
}

impl Draft {
    /// Who gets it.
    pub(crate) fn to(&self) -> &str {
        self.payload.get("to").and_then(Value::as_str).unwrap_or_default()
    }

    /// Names it, if it has no name.
    pub(crate) fn name(&mut self, id: Option<MessageId>) {
        if let Some(id) = id
            && !self.payload.contains_key("id")
        {
            self.payload.insert("id".into(), Value::from(id.as_str()));
        }
    }

    /// The payload.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.payload).unwrap_or_default()
    }
}

/// A message as WhatsApp's APIs have it.
pub(crate) fn whatsapp(mut body: Map<String, Value>) -> Result<Draft, Refusal> {
    // What is not the outbox's: commands have routes of their own, and nothing of them may come by this one.
    for name in ["status", "ack", "sync", "recipient_type"] {
        body.remove(name);
    }
    let recipient = body.remove("recipient");
    let (to, to_as_sent) = match body.remove("to").or(recipient) {
        Some(to) => recipient_name(&to)?,
        None => return Err(malformed("to: expected a user, g:{group} or status@broadcast, got nothing")),
    };
    body.insert("to".into(), Value::from(to));
    let kind = match body.get("type") {
        Some(Value::String(name)) => MessageType::parse(name),
        _ => Some(MessageType::Text),
    };
    if let Some(preview) = body.remove("preview_url")
        && let Some(Value::Object(text)) = body.get_mut("text")
    {
        text.entry("preview_url").or_insert(preview);
    }
    if body.get("context").is_some_and(|context| context.get("message_id").is_none()) {
        body.remove("context");
    }
    if let Some(kind) = kind {
        type_object(&mut body, kind)?;
    }
    Ok(Draft { payload: body, to_as_sent })
}

/// The object of the message's type.
fn type_object(body: &mut Map<String, Value>, kind: MessageType) -> Result<(), Refusal> {
    let name = kind.as_str();
    if let Some(Value::String(text)) = body.get(name)
        && text.trim_start().starts_with(['{', '['])
    {
        // whatsapp-api-js sends JSON inside the JSON.
        let tree = json::parse(text.as_bytes()).map_err(|error| malformed(format!("{name}: {error}")))?;
        let parsed = value(tree);
        body.insert(name.into(), parsed);
    }
    let Some(object) = body.get_mut(name).and_then(Value::as_object_mut) else { return Ok(()) };
    if kind == MessageType::Location {
        for name in ["latitude", "longitude"] {
            if let Some(Value::String(text)) = object.get(name)
                && let Ok(number) = text.trim().parse::<f64>()
                && number.is_finite()
            {
                object.insert(name.into(), Value::from(number));
            }
        }
    }
    let is_media = matches!(
        kind,
        MessageType::Image | MessageType::Audio | MessageType::Video | MessageType::Sticker | MessageType::Document
    );
    if is_media && object.contains_key("link") && !object.contains_key("id") {
        let details = format!(
            "{name}.link: expected {name}.id, of a file that was uploaded with POST .../media, got a link; this server fetches none"
        );
        return Err(Refusal::new(Kind::InvalidValue, details));
    }
    Ok(())
}

/// A `to` as a name, and as it was sent: a number keeps its digits, however it is written.
fn recipient_name(to: &Value) -> Result<(String, String), Refusal> {
    let text = match to {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_u64() => number.to_string(),
        _ => return Err(malformed("to: expected a string, got something else")),
    };
    let is_number = text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'(' | b')' | b' '));
    let name = if is_number { text.chars().filter(char::is_ascii_digit).collect() } else { text.clone() };
    Ok((name, text))
}

/// The parameters of the mission's sendMessage: `sender_ID, reciever_ID, type, text, media_object, document`.
pub(crate) struct Mission {
    /// Who says that he sends; it must be the caller.
    pub(crate) sender: Option<String>,
    pub(crate) draft: Draft,
}

/// Reads the mission's parameters.
pub(crate) fn mission(mut body: Map<String, Value>) -> Result<Mission, Refusal> {
    let sender = first_of(&mut body, &["sender_ID", "sender_id"]);
    let sender = sender.map(|sender| recipient_name(&sender).map(|(name, _)| name)).transpose()?;
    let receivers = ["reciever_ID", "receiver_ID", "reciever_id", "receiver_id"];
    let Some(receiver) = first_of(&mut body, &receivers) else {
        return Err(malformed("reciever_ID: expected the user who receives the message, got nothing"));
    };
    body.insert("to".into(), receiver);
    let (media, document) = (body.remove("media_object"), body.remove("document"));
    let name = match body.get("type") {
        Some(Value::String(name)) => name.clone(),
        Some(_) => return Err(malformed("type: expected a string, got something else")),
        None if document.is_some() && !body.contains_key("text") => "document".to_owned(),
        None => "text".to_owned(),
    };
    body.insert("type".into(), Value::from(name.as_str()));
    match MessageType::parse(&name) {
        Some(MessageType::Text) => {
            if let Some(text) = body.get_mut("text")
                && text.is_string()
            {
                *text = serde_json::json!({ "body": text.take() });
            }
        }
        Some(
            kind @ (MessageType::Image
            | MessageType::Audio
            | MessageType::Video
            | MessageType::Sticker
            | MessageType::Document),
        ) => {
            let (own, parameter) =
                if kind == MessageType::Document { (document, "document") } else { (media, "media_object") };
            let object = match own.or_else(|| body.remove(kind.as_str())) {
                Some(Value::String(id)) if !id.trim_start().starts_with('{') => serde_json::json!({ "id": id }),
                Some(Value::Number(id)) => serde_json::json!({ "id": id.to_string() }),
                Some(other) => other,
                None => {
                    let expected = "a media id, or an object with `id`";
                    return Err(malformed(format!("{parameter}: expected {expected} for this type, got nothing")));
                }
            };
            body.insert(kind.as_str().into(), object);
            // Words beside a picture are its caption.
            let words = match body.remove("text") {
                Some(Value::String(text)) => Some(text),
                Some(Value::Object(text)) => text.get("body").and_then(Value::as_str).map(ToOwned::to_owned),
                _ => None,
            };
            let takes_words = matches!(kind, MessageType::Image | MessageType::Video | MessageType::Document);
            if let Some(words) = words.filter(|words| takes_words && !words.is_empty())
                && let Some(object) = body.get_mut(kind.as_str()).and_then(Value::as_object_mut)
            {
                object.entry("caption").or_insert(Value::from(words));
            }
        }
        Some(_) | None => {}
    }
    Ok(Mission { sender, draft: whatsapp(body)? })
}

fn first_of(body: &mut Map<String, Value>, names: &[&str]) -> Option<Value> {
    let found: Vec<Value> = names.iter().filter_map(|name| body.remove(*name)).collect();
    found.into_iter().next()
}

/// Whether a body is a mark rather than a message.
pub(crate) fn is_mark(body: &Map<String, Value>) -> bool {
    body.contains_key("status") && !body.contains_key("type")
}

/// A read mark as WhatsApp's APIs have it, or one of an outbox (`chat` and `n`; `typing`). `id` is that of the path, where the path has it.
pub(crate) fn mark(body: &Map<String, Value>, id: Option<&str>) -> Result<Vec<u8>, Refusal> {
    let status = body.get("status").and_then(Value::as_str);
    let names: &[&str] = match status {
        Some("read") => &["message_id", "chat", "from", "n", "typing_indicator"],
        Some("typing") if id.is_none() => &["chat"],
        Some("deleted") if id.is_none() => &["message_id", "chat", "from"],
        _ => {
            let details = "status: expected read, typing or deleted, got something else";
            return Err(Refusal::new(Kind::InvalidValue, details));
        }
    };
    let mut mark = Map::new();
    mark.insert("status".into(), Value::from(status));
    for name in names {
        if let Some(member) = body.get(*name) {
            mark.insert((*name).into(), member.clone());
        }
    }
    if let Some(id) = id {
        mark.insert("message_id".into(), Value::from(id));
    }
    serde_json::to_vec(&mark).map_err(|error| malformed(error.to_string()))
}

/// The user that a `to` or a name in a path means.
pub(crate) fn user(text: &str) -> Result<UserId, Refusal> {
    let (name, _) = recipient_name(&Value::from(text))?;
    UserId::parse_recipient(&name)
        .map_err(|error| Refusal::new(Kind::InvalidValue, format!("expected {} {}", error.what, error.expected)))
}

fn malformed(details: impl Into<String>) -> Refusal {
    Refusal::new(Kind::Malformed, details)
}

#[cfg(test)]
mod tests {
    use natter_protocol::outbox::{self, Item};
    use serde_json::json;

    use super::*;

    fn of(body: &Value) -> Map<String, Value> {
        parse(body.to_string().as_bytes()).unwrap()
    }

    fn taken(draft: &Draft) -> (String, String) {
        match outbox::parse(&draft.to_bytes()) {
            Ok(Item::Message(message)) => (message.to.to_string(), String::from_utf8(message.body).unwrap()),
            other => panic!("{:?}: {other:?}", draft.payload),
        }
    }

    #[track_caller]
    fn becomes(body: &Value, to: &str, written: &str) {
        let draft = whatsapp(of(body)).unwrap();
        assert_eq!(taken(&draft), (to.to_owned(), written.to_owned()), "{body}");
    }

    #[test]
    fn a_number_keeps_its_digits_however_it_is_written() {
        for to in [json!(16_505_551_234_u64), json!("+1 (650) 555-1234"), json!("16505551234"), json!("+16505551234")] {
            let draft = whatsapp(of(&json!({"to": to, "text": {"body": "hi"}}))).unwrap();
            assert_eq!(draft.to(), "16505551234", "{to}");
            assert_eq!(draft.to_as_sent, to.as_str().unwrap_or("16505551234"));
        }
        assert_eq!(whatsapp(of(&json!({"to": "bob-2", "text": {"body": "hi"}}))).unwrap().to(), "bob-2");
        assert!(whatsapp(of(&json!({"to": [], "text": {"body": "hi"}}))).is_err());
    }

    #[test]
    fn what_real_clients_send_is_taken() {
        let text = r#""type":"text","text":{"body":"hi"}"#;
        // Chatwoot, heyoo: nulls. pywa: `group` for whatever is not digits.
        becomes(
            &json!({"messaging_product": "whatsapp", "context": null, "to": "bob", "type": "text", "text": {"body": "hi", "preview_url": null}}),
            "bob",
            text,
        );
        becomes(&json!({"recipient_type": "group", "to": "bob", "type": "text", "text": {"body": "hi"}}), "bob", text);
        // whatsapp-api-js: `recipient` without `to`, and beside it.
        becomes(&json!({"recipient": "jo.smith", "type": "text", "text": {"body": "hi"}}), "jo.smith", text);
        becomes(
            &json!({"recipient": "jo.smith", "to": "bob", "type": "text", "text": {"body": "hi"}, "context": {}}),
            "bob",
            text,
        );
        let cards = json!([{"name": {"formatted_name": "Ann", "first_name": null}, "ims": []}]).to_string();
        becomes(
            &json!({"to": "bob", "type": "contacts", "contacts": cards}),
            "bob",
            r#""type":"contacts","contacts":[{"name":{"formatted_name":"Ann"}}]"#,
        );
        // heyoo's documentation, whatsapp-business-rs: numbers as strings.
        becomes(
            &json!({"to": "bob", "type": "location", "location": {"latitude": "37.5", "longitude": -122.5}}),
            "bob",
            r#""type":"location","location":{"latitude":37.5,"longitude":-122.5}"#,
        );
        // On-premises: `preview_url` beside `text`.
        becomes(
            &json!({"to": "bob", "preview_url": true, "text": {"body": "hi"}}),
            "bob",
            r#""type":"text","text":{"body":"hi","preview_url":true}"#,
        );
        // tawn33y: `filename` on any media.
        becomes(
            &json!({"to": "bob", "type": "image", "image": {"id": "1234567890123456", "filename": "a.png", "caption": null}}),
            "bob",
            r#""type":"image","image":{"id":"1234567890123456"}"#,
        );
    }

    #[test]
    fn a_link_is_refused_in_its_own_words_and_commands_do_not_come_as_messages() {
        let refusal =
            whatsapp(of(&json!({"to": "bob", "type": "image", "image": {"link": "http://x/a.png"}}))).unwrap_err();
        assert!(refusal.details.contains("image.link") && refusal.details.contains("upload"), "{refusal}");
        let draft =
            whatsapp(of(&json!({"to": "bob", "text": {"body": "hi"}, "ack": 5, "sync": true, "status": "read"})));
        assert_eq!(taken(&draft.unwrap()).0, "bob");
    }

    #[test]
    fn what_serde_json_would_forgive_is_refused() {
        for body in [r#"{"to":"a","to":"b"}"#, "[]", "1", "", "{}x", "\u{feff}{}"] {
            assert!(parse(body.as_bytes()).is_err(), "{body:?}");
        }
        assert!(parse(format!("{}1{}", "[".repeat(100), "]".repeat(100)).as_bytes()).is_err());
    }

    #[test]
    fn the_missions_parameters_make_the_same_messages() {
        let cases = [
            (json!({"text": "hi"}), r#""type":"text","text":{"body":"hi"}"#),
            (json!({"type": "text", "text": {"body": "hi"}}), r#""type":"text","text":{"body":"hi"}"#),
            (
                json!({"type": "image", "media_object": "1234567890123456", "text": "us"}),
                r#""type":"image","image":{"id":"1234567890123456","caption":"us"}"#,
            ),
            (
                json!({"type": "audio", "media_object": {"id": "1234567890123456", "voice": true}, "text": "dropped"}),
                r#""type":"audio","audio":{"id":"1234567890123456","voice":true}"#,
            ),
            (
                json!({"type": "document", "document": {"id": "1234567890123456", "filename": "a.pdf"}}),
                r#""type":"document","document":{"id":"1234567890123456","filename":"a.pdf"}"#,
            ),
            (json!({"document": "1234567890123456"}), r#""type":"document","document":{"id":"1234567890123456"}"#),
            (
                json!({"type": "location", "location": {"latitude": 1, "longitude": 2}}),
                r#""type":"location","location":{"latitude":1,"longitude":2}"#,
            ),
        ];
        for receiver in ["reciever_ID", "receiver_ID"] {
            for (parameters, written) in &cases {
                let mut body = of(parameters);
                body.insert("sender_ID".into(), json!("alice"));
                body.insert(receiver.into(), json!("bob"));
                let Mission { sender, draft } = mission(body).unwrap();
                assert_eq!(sender.as_deref(), Some("alice"));
                assert_eq!(taken(&draft), ("bob".to_owned(), (*written).to_owned()), "{parameters}");
            }
        }
        for (parameters, word) in [
            (json!({"sender_ID": "alice", "text": "hi"}), "reciever_ID"),
            (json!({"reciever_ID": "bob", "type": "image"}), "media_object"),
            (json!({"reciever_ID": "bob", "type": "document", "media_object": "1"}), "document"),
            (json!({"reciever_ID": "bob", "type": 5}), "type"),
        ] {
            let refusal = mission(of(&parameters)).err().unwrap();
            assert!(refusal.details.starts_with(word), "{refusal}");
        }
    }

    #[test]
    fn a_read_mark_takes_its_id_from_the_path_or_the_body() {
        let written = |body: Value, id| -> Value { serde_json::from_slice(&mark(&of(&body), id).unwrap()).unwrap() };
        let expected = json!({"status": "read", "message_id": "bob/m1"});
        let body = json!({"messaging_product": "whatsapp", "status": "read", "message_id": "bob/m1", "ack": 1});
        assert_eq!(written(body, None), expected);
        assert_eq!(written(json!({"status": "read", "message_id": "m9"}), Some("bob/m1")), expected);
        let typing = json!({"status": "typing", "chat": "bob"});
        assert_eq!(written(typing.clone(), None), typing);
        assert!(mark(&of(&json!({"status": "delivered", "message_id": "m1"})), None).is_err());
        assert!(mark(&of(&json!({"status": "typing", "chat": "bob"})), Some("m1")).is_err());
    }
}
