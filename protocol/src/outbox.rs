//! What a device publishes: messages and commands (wire.md section 3).

mod written;

use sha2::{Digest, Sha256};

use crate::error::{Kind, Refusal};
use crate::group;
use crate::ids::{Chat, MediaId, MessageId, N, Seq, UserId};
use crate::json::{self, Json, write_string};
use crate::message::{self, MessageType};

pub use written::Forwarded;

/// Most bytes of a payload.
pub const PAYLOAD_BYTES_MAX: usize = 60 * 1024;
/// Numbers on the wire are below this, so that every JSON reader keeps them exact.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

/// What `status` may say.
const STATUSES: &str = "read, typing, watch, unwatch, available, unavailable, starred, unstarred or deleted";

/// One publication.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A message.
    Message(Message),
    /// Everything up to a message is read.
    Read(Read),
    /// Shows the other side that somebody types.
    Typing(Chat),
    /// From now on this connection is told when the other side of a chat comes and goes; with a presence at once.
    Watch(Chat),
    /// And no more.
    Unwatch(Chat),
    /// The app is in front, or not: whether this connection makes its user available.
    Available(bool),
    /// Makes or changes a group.
    Group(group::Command),
    /// Takes an own status back.
    Deleted(Reference),
    /// Stars a message for this user's own devices, or takes the star away.
    Starred(Chat, Reference, bool),
    /// Acknowledges every entry up to this one.
    Ack(Seq),
    /// Asks for everything from the cursor.
    Sync,
}

/// A message as its sender wrote it, checked.
#[derive(Clone, PartialEq)]
pub struct Message {
    /// The sender's name for it.
    pub id: Option<MessageId>,
    /// Who gets it.
    pub to: Chat,
    /// What it is.
    pub kind: MessageType,
    /// `"type":"text","text":{..}`: what is stored and forwarded, but for [`Message::reference`].
    pub body: Vec<u8>,
    /// The message it answers, or that a reaction, an edit or a deletion is about.
    pub reference: Option<Reference>,
    /// Whether its sender passes it on.
    pub forwarded: Forwarded,
    /// The media it carries.
    pub media: Option<MediaId>,
    /// Of everything parsed but the id: the first half of a SHA-256. The same id with another hash is another message.
    pub hash: [u8; 16],
}

/// Bodies are not for logs.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, to, kind, body, reference: _, forwarded: _, media: _, hash: _ } = self;
        write!(f, "Message({id:?} to {to} {} {} bytes)", kind.as_str(), body.len())
    }
}

/// Points to another message: by its id, and by whose it is where that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The message's id.
    pub id: MessageId,
    /// Its sender.
    pub from: Option<UserId>,
    /// The chat it is in.
    pub chat: Option<Chat>,
}

/// A read mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Up to where.
    pub upto: ReadUpTo,
    /// The Cloud API's `typing_indicator` stood beside it.
    pub typing: bool,
}

/// Where a read mark stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadUpTo {
    /// At this message.
    Message(Reference),
    /// At this number of this chat.
    Number(Chat, N),
    /// At this number of what this user posts to `status@broadcast`.
    Status(UserId, N),
}

/// What was refused, and the id it came with, if one could be read: the `failed` entry names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{refusal}")]
pub struct Rejected {
    /// Why.
    pub refusal: Refusal,
    /// Of which message.
    pub id: Option<MessageId>,
}

impl Message {
    /// Writes the facts of the media behind its id, where the Cloud API has them. The hash stays: it is of what the sender wrote.
    pub fn add_media_facts(&mut self, mime_type: &str, sha256: &str, file_size: u64) {
        let Some(media) = &self.media else { return };
        // The id is the first member of every object that has one.
        let kind = self.kind.as_str();
        let start = format!("\"type\":\"{kind}\",\"{kind}\":{{\"id\":\"{media}\"");
        let Some(rest) = self.body.strip_prefix(start.as_bytes()) else { return };
        let mut body = Vec::with_capacity(self.body.len() + mime_type.len() + 128);
        body.extend_from_slice(start.as_bytes());
        body.extend_from_slice(b",\"mime_type\":");
        write_string(&mut body, mime_type);
        body.extend_from_slice(b",\"sha256\":");
        write_string(&mut body, sha256);
        body.extend_from_slice(format!(",\"file_size\":{file_size}").as_bytes());
        body.extend_from_slice(rest);
        self.body = body;
    }
}

/// Parses a payload.
///
/// # Errors
/// [`Rejected`], which says what was expected and what came.
pub fn parse(payload: &[u8]) -> Result<Item, Rejected> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        let details = format!("payload: expected at most {PAYLOAD_BYTES_MAX} bytes, got {}", payload.len());
        return Err(Rejected { refusal: Refusal::new(Kind::TooLarge, details), id: None });
    }
    let tree = json::parse(payload)
        .map_err(|e| Rejected { refusal: Refusal::new(Kind::Malformed, format!("payload: {e}")), id: None })?;
    parse_tree(&tree)
}

/// Parses a payload that is a tree already (HTTP adds to it before it gets here).
///
/// # Errors
/// As [`parse`].
pub fn parse_tree(tree: &Json<'_>) -> Result<Item, Rejected> {
    let mut id = None;
    item(tree, &mut id).map_err(|refusal| Rejected { refusal, id })
}

fn item(tree: &Json<'_>, id: &mut Option<MessageId>) -> Result<Item, Refusal> {
    if !matches!(tree, Json::Object(_)) {
        return Err(malformed("payload", "an object", Some(tree)));
    }
    if let Some(value) = tree.get("id") {
        *id = Some(parsed("id", value, MessageId::parse)?);
    }
    let has = |name| tree.get(name).is_some();
    let kind = has("type") || (has("text") && !["status", "ack", "sync", "group"].into_iter().any(has));
    if has("group") && !kind && !has("status") && !has("ack") && !has("sync") {
        return group::parse(tree, id.clone()).map(Item::Group);
    }
    match (kind, has("status"), has("ack"), has("sync")) {
        (true, false, false, false) => message(tree, id.clone()).map(Item::Message),
        (false, true, false, false) => status(tree),
        (false, false, true, false) => Ok(Item::Ack(number("ack", tree)?)),
        (false, false, false, true) => match tree.get("sync") {
            Some(Json::Bool(true)) => Ok(Item::Sync),
            other => Err(malformed("sync", "true", other)),
        },
        (kind, status, ack, sync) => {
            let got = [kind, status, ack, sync].into_iter().filter(|has| *has).count();
            let details = format!("payload: expected exactly one of type, status, ack, sync, group, got {got} of them");
            Err(Refusal::new(Kind::Malformed, details))
        }
    }
}

fn message(tree: &Json<'_>, id: Option<MessageId>) -> Result<Message, Refusal> {
    let kind = match tree.get("type") {
        None => MessageType::Text,
        Some(Json::String(name)) => MessageType::parse(name).ok_or_else(|| {
            let names: Vec<_> = MessageType::ALL.iter().map(|kind| kind.as_str()).collect();
            Refusal::new(Kind::UnknownType, format!("type: expected one of {}, got another string", names.join(", ")))
        })?,
        other => return Err(malformed("type", "a string", other)),
    };
    let to = match tree.get("to") {
        Some(value) => parsed("to", value, Chat::parse)?,
        None => return Err(malformed("to", "a user, g:{group} or status@broadcast", None)),
    };
    if to == Chat::Status && !kind.is_status() {
        let details = format!("type: expected text, image or video for a status, got {}", kind.as_str());
        return Err(Refusal::new(Kind::InvalidValue, details));
    }
    if let Some(value) = tree.get("recipient_type") {
        let expected = if matches!(to, Chat::Group(_)) { "group" } else { "individual" };
        match value {
            Json::String(text) if text == expected => {}
            Json::String(_) => {
                let details = format!("recipient_type: expected {expected} for this `to`, got another string");
                return Err(Refusal::new(Kind::InvalidValue, details));
            }
            other => return Err(malformed("recipient_type", expected, Some(other))),
        }
    }

    let mut body = Vec::with_capacity(160);
    body.extend_from_slice(b"\"type\":\"");
    body.extend_from_slice(kind.as_str().as_bytes());
    body.extend_from_slice(b"\",");
    message::write_body(&mut body, kind, tree)?;

    let object = tree.get(kind.as_str());
    let (reference, forwarded) = written::read(kind, tree)?;
    let media =
        object.and_then(|object| object.get("id")).and_then(Json::as_str).and_then(|id| MediaId::parse(id).ok());
    let hash = hash(&to, &body, reference.as_ref(), forwarded);
    Ok(Message { id, to, kind, body, reference, forwarded, media, hash })
}

fn hash(to: &Chat, body: &[u8], reference: Option<&Reference>, forwarded: Forwarded) -> [u8; 16] {
    let mut sha = Sha256::new();
    sha.update(to.to_string().as_bytes());
    sha.update([0]);
    sha.update(body);
    if let Some(Reference { id, from, chat }) = reference {
        sha.update([0]);
        sha.update(id.as_str().as_bytes());
        sha.update([0]);
        sha.update(from.as_ref().map_or("", UserId::as_str).as_bytes());
        sha.update([0]);
        sha.update(chat.as_ref().map(ToString::to_string).unwrap_or_default().as_bytes());
    }
    if let Some(forwarded) = forwarded.as_str() {
        sha.update([0]);
        sha.update(forwarded.as_bytes());
    }
    let digest = sha.finalize();
    let hash: [u8; 16] = std::array::from_fn(|i| digest[i]);
    if group::is_command(&hash) { std::array::from_fn(|i| !hash[i]) } else { hash }
}

fn status(tree: &Json<'_>) -> Result<Item, Refusal> {
    match tree.get("status").and_then(Json::as_str) {
        Some("read") => {
            let upto = if tree.get("message_id").is_some() {
                ReadUpTo::Message(reference("", tree)?)
            } else {
                let chat = match tree.get("chat") {
                    Some(value) => parsed("chat", value, Chat::parse)?,
                    None => return Err(malformed("message_id", "a message id, or chat and n", None)),
                };
                match (chat, tree.get("from")) {
                    // Every poster counts for himself there.
                    (Chat::Status, Some(from)) => {
                        ReadUpTo::Status(parsed("from", from, UserId::parse_recipient)?, number("n", tree)?)
                    }
                    (Chat::Status, None) => return Err(malformed("from", "whose status is read", None)),
                    (chat, _) => ReadUpTo::Number(chat, number("n", tree)?),
                }
            };
            Ok(Item::Read(Read { upto, typing: tree.get("typing_indicator").is_some() }))
        }
        Some("typing") => chat(tree, "the chat somebody types in").map(Item::Typing),
        Some("watch") => chat(tree, "the chat whose other side is watched").map(Item::Watch),
        Some("unwatch") => chat(tree, "the chat whose other side is watched no more").map(Item::Unwatch),
        Some("available") => Ok(Item::Available(true)),
        Some("unavailable") => Ok(Item::Available(false)),
        Some("deleted") => match tree.get("chat").map(|value| parsed("chat", value, Chat::parse)).transpose()? {
            Some(Chat::Status) => Ok(Item::Deleted(reference("", tree)?)),
            Some(_) => Err(Refusal::new(Kind::InvalidValue, "chat: expected status@broadcast, got another chat")),
            None => Err(malformed("chat", "status@broadcast", None)),
        },
        Some(word @ ("starred" | "unstarred")) => match chat(tree, "the chat of the message")? {
            Chat::Status => {
                let details = "chat: expected a user or g:{group}, got status@broadcast: a status ends after a day";
                Err(Refusal::new(Kind::InvalidValue, details))
            }
            chat => Ok(Item::Starred(chat, reference("", tree)?, word == "starred")),
        },
        Some(_) => Err(Refusal::new(Kind::InvalidValue, format!("status: expected {STATUSES}, got another string"))),
        None => Err(malformed("status", STATUSES, tree.get("status"))),
    }
}

fn chat(tree: &Json<'_>, which: &str) -> Result<Chat, Refusal> {
    match tree.get("chat") {
        Some(value) => parsed("chat", value, Chat::parse),
        None => Err(malformed("chat", which, None)),
    }
}

/// Reads `message_id`, also as `{from}/{id}`, with `from` and `chat` where they stand beside it. `prefix` is the path to `object`.
fn reference(prefix: &str, object: &Json<'_>) -> Result<Reference, Refusal> {
    let path = format!("{prefix}message_id");
    let Some(Json::String(text)) = object.get("message_id") else {
        return Err(malformed(&path, "a message id", object.get("message_id")));
    };
    let (mut from, id) = match text.split_once('/') {
        Some((from, id)) => (Some(UserId::parse(from).map_err(|e| invalid(&path, &e))?), id),
        None => (None, text.as_ref()),
    };
    let id = MessageId::parse(id).map_err(|e| invalid(&path, &e))?;
    if let Some(value) = object.get("from") {
        from = Some(parsed(&format!("{prefix}from"), value, UserId::parse_recipient)?);
    }
    let chat = object.get("chat").map(|value| parsed(&format!("{prefix}chat"), value, Chat::parse)).transpose()?;
    Ok(Reference { id, from, chat })
}

fn parsed<T>(path: &str, value: &Json<'_>, parse: fn(&str) -> Result<T, crate::ids::NameError>) -> Result<T, Refusal> {
    match value {
        Json::String(text) => parse(text).map_err(|e| invalid(path, &e)),
        other => Err(malformed(path, "a string", Some(other))),
    }
}

fn number(name: &str, tree: &Json<'_>) -> Result<u64, Refusal> {
    match tree.get(name) {
        Some(Json::Unsigned(n)) if *n <= NUMBER_MAX => Ok(*n),
        Some(other) if other.as_f64().is_some() => {
            let details = format!("{name}: expected a whole number from 0 to 2^53-1, got another number");
            Err(Refusal::new(Kind::Malformed, details))
        }
        other => Err(malformed(name, "a whole number from 0 to 2^53-1", other)),
    }
}

fn invalid(path: &str, error: &crate::ids::NameError) -> Refusal {
    Refusal::new(Kind::InvalidValue, format!("{path}: expected {} {}, got another string", error.what, error.expected))
}

fn malformed(path: &str, expected: &str, got: Option<&Json<'_>>) -> Refusal {
    let got = got.map_or("nothing", Json::what);
    Refusal::new(Kind::Malformed, format!("{path}: expected {expected}, got {got}"))
}
