//! An entry in the words of WhatsApp's Cloud API: one message or one status a body, in pure ASCII. Pure: the same entry makes the same
//! bytes each time, before and after a restart.

use bytes::Bytes;
use natter_protocol::{Chat, MessageId, N, UserId};
use serde_json::{Value, json};

/// What a webhook has to say of an entry.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Saying {
    /// Nothing: a gap, a read mark of the user's own, a change of another kind.
    Nothing,
    /// A message that the user has received.
    Message(Bytes),
    /// A message that another device of the user has sent: it has one tick.
    Sent(Bytes),
    /// A message that did not arrive.
    Failed(Bytes),
    /// One status for each of the user's messages of a chat with `after < n <= upto`.
    Receipt(Receipt),
}

/// A watermark that is to be told message by message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Receipt {
    status: String,
    timestamp: String,
    /// Where the messages are.
    pub(super) chat: Chat,
    recipient: Recipient,
    pub(super) after: N,
    pub(super) upto: N,
}

/// Whose receipt it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Recipient {
    One(UserId),
    /// Everybody in a group.
    Group(String),
}

/// The chat that an entry belongs to, and what there is to say of it.
pub(super) fn read(user: &UserId, entry: &[u8]) -> (String, Saying) {
    let entry: Value = serde_json::from_slice(entry).unwrap_or_default();
    let chat = text(&entry, "chat").to_owned();
    let saying = match text(&entry, "type") {
        // Statuses are nothing to the Cloud API, nor are their receipts.
        _ if chat == "status@broadcast" => Saying::Nothing,
        "" | "gap" | "system" | "typing" | "presence" => Saying::Nothing,
        "status" => status(user, &entry),
        // A bot would answer itself.
        _ if text(&entry, "from") == user.as_str() => match text(&entry, "to") {
            "" => Saying::Nothing,
            to => Saying::Sent(status_body(user, to, "sent", text(&entry, "id"), text(&entry, "timestamp"), None)),
        },
        kind => Saying::Message(message(user, &entry, kind)),
    };
    (chat, saying)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn status(user: &UserId, entry: &Value) -> Saying {
    if let Some(of) = entry["of"].as_u64() {
        return group_status(entry, of);
    }
    let (status, recipient) = (text(entry, "status"), text(entry, "recipient_id"));
    let Ok(member) = UserId::parse(recipient) else { return Saying::Nothing };
    match (status, entry["after"].as_u64(), entry["n"].as_u64()) {
        ("failed", _, _) if !text(entry, "id").is_empty() => {
            let (id, timestamp) = (text(entry, "id"), text(entry, "timestamp"));
            Saying::Failed(status_body(user, recipient, status, id, timestamp, Some(&entry["errors"])))
        }
        // The user's own read marks tell nothing of his messages.
        ("delivered" | "read", Some(after), Some(upto)) if member != *user => Saying::Receipt(Receipt {
            status: status.to_owned(),
            timestamp: text(entry, "timestamp").to_owned(),
            chat: match Chat::parse(text(entry, "chat")) {
                Ok(chat) => chat,
                Err(_) => return Saying::Nothing,
            },
            recipient: Recipient::One(member),
            after,
            upto,
        }),
        _ => Saying::Nothing,
    }
}

/// Counts in a group. The Cloud API has one status for a group as a whole: it is said once everybody has the messages, or has read them.
fn group_status(entry: &Value, of: u64) -> Saying {
    let is_all = |name: &str| entry[name].as_u64().is_some_and(|count| count >= of);
    let status = match (is_all("delivered_to"), is_all("read_by")) {
        (_, true) => "read",
        (true, false) => "delivered",
        (false, false) => return Saying::Nothing,
    };
    let group = text(entry, "chat").to_owned();
    match (Chat::parse(&group), entry["after"].as_u64(), entry["n"].as_u64()) {
        (Ok(chat), Some(after), Some(upto)) => Saying::Receipt(Receipt {
            status: status.to_owned(),
            timestamp: text(entry, "timestamp").to_owned(),
            chat,
            recipient: Recipient::Group(group),
            after,
            upto,
        }),
        _ => Saying::Nothing,
    }
}

impl Receipt {
    /// The body for one of the messages.
    pub(super) fn of(&self, user: &UserId, id: &MessageId) -> Bytes {
        match &self.recipient {
            Recipient::One(member) => {
                status_body(user, member.as_str(), &self.status, id.as_str(), &self.timestamp, None)
            }
            Recipient::Group(group) => {
                let it = json!({"id": id.as_str(), "status": self.status, "timestamp": self.timestamp, "recipient_id": group,
                    "recipient_type": "group"});
                envelope(user, group, "statuses", it)
            }
        }
    }
}

fn status_body(
    user: &UserId,
    recipient: &str,
    status: &str,
    id: &str,
    timestamp: &str,
    errors: Option<&Value>,
) -> Bytes {
    // As in the answer to the send: without the sender's name before it.
    let mut it = json!({"id": id, "status": status, "timestamp": timestamp, "recipient_id": recipient});
    if let Some(errors) = errors.filter(|errors| errors.is_array()) {
        it["errors"] = errors.clone();
    }
    envelope(user, recipient, "statuses", it)
}

fn message(user: &UserId, entry: &Value, kind: &str) -> Bytes {
    let from = text(entry, "from");
    let mut it = json!({"from": from, "from_user_id": from, "id": named(user, from, text(entry, "id")),
        "timestamp": text(entry, "timestamp"), "type": kind});
    if kind == "unsupported" {
        it["errors"] = entry["errors"].clone();
    } else {
        it[kind] = entry[kind].clone();
    }
    if kind == "reaction" {
        let of = &entry["reaction"];
        it["reaction"] =
            json!({"message_id": named(user, text(of, "from"), text(of, "message_id")), "emoji": of["emoji"]});
    }
    let context = &entry["context"];
    if context.is_object() {
        let of = text(context, "from");
        it["context"] = json!({"from": of, "id": named(user, of, text(context, "message_id"))});
    }
    envelope(user, from, "messages", it)
}

/// The id of a message as the webhook's side may give it back: the user's own as his send was answered, others' with their sender, since
/// ids are unique for a sender only.
fn named(user: &UserId, from: &str, id: &str) -> String {
    if from.is_empty() || from == user.as_str() { id.to_owned() } else { format!("{from}/{id}") }
}

fn envelope(user: &UserId, other: &str, what: &str, it: Value) -> Bytes {
    let user = user.as_str();
    let contact = json!({"profile": {"name": other}, "wa_id": other, "user_id": other});
    let mut value = json!({"messaging_product": "whatsapp", "contacts": [contact],
        "metadata": {"display_phone_number": user, "phone_number_id": user}});
    value[what] = json!([it]);
    let body = json!({"object": "whatsapp_business_account",
        "entry": [{"id": user, "changes": [{"field": "messages", "value": value}]}]});
    ascii(&body.to_string()).into()
}

/// JSON with everything beyond ASCII, and DEL, as `\uXXXX`: some receivers hash the escaped form, the others the bytes as they are.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character < '\u{7f}' {
            out.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let [high, low] = unit.to_be_bytes();
            out.push_str("\\u");
            out.push_str(&super::post::hex(&[high, low]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bot() -> UserId {
        UserId::parse("15550001").unwrap()
    }

    fn value(body: &Bytes) -> Value {
        let body: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(body["object"], "whatsapp_business_account");
        assert_eq!(body["entry"][0]["changes"][0]["field"], "messages");
        body["entry"][0]["changes"][0]["value"].clone()
    }

    fn said(entry: &Value) -> (String, Saying) {
        read(&bot(), entry.to_string().as_bytes())
    }

    #[test]
    fn a_message_has_what_clients_read_of_it() {
        let (chat, saying) = said(&json!({"seq": 5, "prev": 4, "from": "ann", "chat": "ann", "n": 17, "id": "m1",
            "timestamp": "1764000000", "type": "text", "text": {"body": "hi"},
            "context": {"message_id": "q1", "from": "15550001"}}));
        let Saying::Message(body) = saying else { panic!("{saying:?}") };
        assert_eq!(chat, "ann");
        assert_eq!(
            value(&body),
            json!({"messaging_product": "whatsapp",
                "metadata": {"display_phone_number": "15550001", "phone_number_id": "15550001"},
                "contacts": [{"profile": {"name": "ann"}, "wa_id": "ann", "user_id": "ann"}],
                "messages": [{"from": "ann", "from_user_id": "ann", "id": "ann/m1", "timestamp": "1764000000", "type": "text",
                    "text": {"body": "hi"}, "context": {"from": "15550001", "id": "q1"}}]})
        );
    }

    #[test]
    fn what_is_absent_stays_so_and_a_reaction_names_its_message() {
        let (_, saying) =
            said(&json!({"from": "ann", "chat": "ann", "n": 1, "id": "m1", "timestamp": "1", "type": "reaction",
            "reaction": {"message_id": "x", "from": "ann", "emoji": "\u{1f44d}"}}));
        let Saying::Message(body) = saying else { panic!("{saying:?}") };
        let message = &value(&body)["messages"][0];
        assert_eq!(message["reaction"], json!({"message_id": "ann/x", "emoji": "\u{1f44d}"}));
        assert!(message.get("context").is_none() && message.get("errors").is_none(), "no null");
        assert!(value(&body).get("statuses").is_none());
    }

    #[test]
    fn a_body_is_ascii_and_the_same_each_time() {
        let entry = json!({"from": "ann", "chat": "ann", "n": 1, "id": "m1", "timestamp": "1", "type": "text",
            "text": {"body": "\u{e4}\u{f6} \u{1f600} \u{7f} \" \\ / \n \u{1} <&>"}});
        let (_, Saying::Message(body)) = said(&entry) else { panic!("a message") };
        let text = std::str::from_utf8(&body).unwrap();
        assert!(text.is_ascii() && text.contains(r"\u00e4\u00f6 \ud83d\ude00 \u007f"), "{text}");
        assert_eq!(value(&body)["messages"][0]["text"]["body"], entry["text"]["body"]);
        let mut again = entry;
        (again["seq"], again["prev"]) = (json!(9), json!(3));
        assert_eq!(said(&again).1, Saying::Message(body), "wherever the entry stands");
    }

    #[test]
    fn statuses_come_with_their_contact_and_without_a_senders_name() {
        let receipt = json!({"type": "status", "status": "read", "chat": "bob", "after": 12, "n": 17, "id": "m5",
            "recipient_id": "bob", "timestamp": "9"});
        let (_, Saying::Receipt(receipt)) = said(&receipt) else { panic!("a receipt") };
        assert_eq!((receipt.after, receipt.upto), (12, 17));
        let body = value(&receipt.of(&bot(), &MessageId::parse("m5").unwrap()));
        assert_eq!(body["statuses"], json!([{"id": "m5", "status": "read", "timestamp": "9", "recipient_id": "bob"}]));
        assert_eq!(body["contacts"][0]["wa_id"], "bob");
        let failed = json!({"type": "status", "status": "failed", "id": "m3", "chat": "bob", "n": 3, "recipient_id": "bob",
            "timestamp": "9", "errors": [{"code": 1411, "title": "t", "message": "m", "error_data": {"details": "d"}}]});
        let (_, Saying::Failed(body)) = said(&failed) else { panic!("a failure") };
        assert_eq!(value(&body)["statuses"][0]["errors"], failed["errors"]);
        let echo = json!({"from": "15550001", "chat": "bob", "to": "bob", "n": 4, "id": "m4", "timestamp": "9", "type": "text",
            "text": {"body": "hi"}});
        let (_, Saying::Sent(body)) = said(&echo) else { panic!("an own message") };
        assert_eq!(
            value(&body)["statuses"],
            json!([{"id": "m4", "status": "sent", "timestamp": "9", "recipient_id": "bob"}])
        );
    }

    #[test]
    fn a_group_has_a_status_once_everybody_has_the_message() {
        let counts = |delivered_to: u32, read_by: u32| {
            said(
                &json!({"type": "status", "status": "read", "chat": "g:42", "after": 0, "n": 3, "id": "m3", "delivered_to": delivered_to,
                "read_by": read_by, "of": 7, "timestamp": "9"}),
            )
        };
        for (delivered_to, read_by, status) in [(7, 3, "delivered"), (7, 7, "read")] {
            let (chat, Saying::Receipt(receipt)) = counts(delivered_to, read_by) else { panic!("a receipt") };
            assert_eq!((chat.as_str(), receipt.after, receipt.upto), ("g:42", 0, 3));
            let body = value(&receipt.of(&bot(), &MessageId::parse("m2").unwrap()));
            let expected = json!([{"id": "m2", "status": status, "timestamp": "9", "recipient_id": "g:42", "recipient_type": "group"}]);
            assert_eq!(body["statuses"], expected);
        }
        assert_eq!(counts(6, 1).1, Saying::Nothing);
    }

    #[test]
    fn the_rest_is_nobodys_business() {
        for entry in [
            json!({"type": "gap", "from": 8, "to": 8, "reason": "expired"}),
            json!({"type": "status", "status": "read", "chat": "bob", "after": 1, "n": 2, "id": "x", "recipient_id": "15550001", "timestamp": "1"}),
            json!({"type": "status", "status": "failed", "errors": []}),
            json!({"type": "text", "from": "15550001", "chat": "15550001", "n": 1, "id": "x", "timestamp": "1", "text": {"body": "to me"}}),
            json!({"type": "text", "from": "ann", "chat": "status@broadcast", "n": 1, "id": "s1", "timestamp": "1", "text": {"body": "x"}}),
            json!({"type": "text", "from": "15550001", "chat": "status@broadcast", "to": "status@broadcast", "n": 1, "id": "s1",
                "timestamp": "1", "text": {"body": "x"}}),
            json!({"type": "status", "status": "read", "chat": "status@broadcast", "after": 0, "n": 1, "id": "s1",
                "recipient_id": "ann", "timestamp": "1"}),
            json!({"type": "status", "status": "deleted", "chat": "status@broadcast", "from": "ann", "n": 1, "id": "s1", "timestamp": "1"}),
            json!("no entry"),
        ] {
            assert_eq!(said(&entry).1, Saying::Nothing, "{entry}");
        }
    }
}
