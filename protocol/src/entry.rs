//! What a device receives: entries of its inbox (wire.md section 5), written by the bridge and read by clients.
//!
//! An entry differs between devices in `seq` and `prev` only. So everything behind them, the *tail*, is written once and put behind each
//! device's [`head`].

use std::io::Write as _;

use serde::Deserialize;

use crate::error::Refusal;
use crate::ids::{Chat, ConnectionId, MessageId, N, Seq, UserId};

/// Most bytes of an entry.
pub const ENTRY_BYTES_MAX: usize = 64 * 1024;

/// Which way a receipt goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReceiptKind {
    /// A device of the member has it: two ticks.
    Delivered,
    /// The member read it: blue ticks.
    Read,
}

impl ReceiptKind {
    /// The value of `status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Read => "read",
        }
    }
}

/// Why entries are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// Their time to live was over.
    Expired,
    /// The device lagged further behind than its quota.
    Lagged,
}

impl GapReason {
    /// The value of `reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Lagged => "lagged",
        }
    }
}

/// The packet id of an entry: kept across resends, from 1 to 65535.
#[must_use]
pub fn packet_id(seq: Seq) -> u16 {
    // The remainder is below 65535, so the sum fits.
    u16::try_from(1 + seq % 65_535).unwrap_or(u16::MAX)
}

/// Joins head and tail to an entry.
#[must_use]
pub fn head(seq: Seq, prev: Seq, tail: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(tail.len() + 48);
    let _ = write!(out, "{{\"seq\":{seq},\"prev\":{prev},");
    out.extend_from_slice(tail);
    out
}

/// A live payload: no `seq`, nothing to acknowledge.
#[must_use]
pub fn live(tail: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(tail.len() + 1);
    out.push(b'{');
    out.extend_from_slice(tail);
    out
}

/// A message as one of its readers sees it.
#[derive(Debug, Clone, Copy)]
pub struct MessageTail<'a> {
    /// The sender.
    pub from: &'a UserId,
    /// The chat, from the reader's side.
    pub chat: &'a Chat,
    /// Set on the sender's own copy: the other side.
    pub to: Option<&'a Chat>,
    /// Its number.
    pub n: N,
    /// Its id.
    pub id: &'a MessageId,
    /// Unix seconds.
    pub timestamp: u64,
}

impl MessageTail<'_> {
    fn write_start(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(192);
        let Self { from, chat, to, n, id, timestamp } = self;
        let _ = write!(out, "\"from\":\"{from}\",\"chat\":\"{chat}\"");
        if let Some(to) = to {
            let _ = write!(out, ",\"to\":\"{to}\"");
        }
        let _ = write!(out, ",\"n\":{n},\"id\":\"{id}\",\"timestamp\":\"{timestamp}\",");
        out
    }

    /// The tail with the message's body.
    #[must_use]
    pub fn with_body(&self, body: &[u8]) -> Vec<u8> {
        let mut out = self.write_start();
        out.extend_from_slice(body);
        out.push(b'}');
        out
    }

    /// The stub that stands for an entry that the client cannot take.
    #[must_use]
    pub fn unsupported(&self, why: &Refusal) -> Vec<u8> {
        let mut out = self.write_start();
        out.extend_from_slice(b"\"type\":\"unsupported\",");
        write_errors(&mut out, why);
        out
    }
}

/// The tail of a receipt: `recipient` has had delivered, or has read, the reader's messages of `chat` with `after < n <= upto`.
#[must_use]
pub fn receipt(
    kind: ReceiptKind,
    chat: &Chat,
    after: N,
    upto: N,
    id: &MessageId,
    recipient: &UserId,
    timestamp: u64,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    let _ = write!(
        out,
        "\"type\":\"status\",\"status\":\"{}\",\"chat\":\"{chat}\",\"after\":{after},\"n\":{upto},\"id\":\"{id}\",\
         \"recipient_id\":\"{recipient}\",\"timestamp\":\"{timestamp}\"}}",
        kind.as_str()
    );
    out
}

/// How many members of a group have had a message of the reader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Members of whom a device has it: two ticks once these are all.
    pub delivered_to: u32,
    /// Members who have read it: blue ticks once these are all.
    pub read_by: u32,
    /// All members who may: those who are in the group now and were when it was sent, without its sender.
    pub of: u32,
}

/// The tail of a receipt in a group: each of the reader's messages of `chat` with `after < n <= upto` has these counts now. `kind` says which
/// of them rose.
#[must_use]
pub fn group_receipt(
    kind: ReceiptKind,
    chat: &Chat,
    (after, upto): (N, N),
    id: &MessageId,
    counts: Counts,
    timestamp: u64,
) -> Vec<u8> {
    let Counts { delivered_to, read_by, of } = counts;
    format!(
        "\"type\":\"status\",\"status\":\"{}\",\"chat\":\"{chat}\",\"after\":{after},\"n\":{upto},\"id\":\"{id}\",\
         \"delivered_to\":{delivered_to},\"read_by\":{read_by},\"of\":{of},\"timestamp\":\"{timestamp}\"}}",
        kind.as_str()
    )
    .into_bytes()
}

/// The tail of a user's own read mark of what `poster` posts to `status@broadcast`, for the user's other devices: as [`receipt`], with
/// the poster, since each has numbers of his own.
#[must_use]
pub fn status_read(poster: &UserId, after: N, upto: N, id: &MessageId, reader: &UserId, timestamp: u64) -> Vec<u8> {
    format!(
        "\"type\":\"status\",\"status\":\"read\",\"chat\":\"status@broadcast\",\"from\":\"{poster}\",\"after\":{after},\
         \"n\":{upto},\"id\":\"{id}\",\"recipient_id\":\"{reader}\",\"timestamp\":\"{timestamp}\"}}"
    )
    .into_bytes()
}

/// The tail of `deleted`: number `n` of what `poster` posts to `status@broadcast` was taken back.
#[must_use]
pub fn status_deleted(poster: &UserId, n: N, id: &MessageId, timestamp: u64) -> Vec<u8> {
    format!(
        "\"type\":\"status\",\"status\":\"deleted\",\"chat\":\"status@broadcast\",\"from\":\"{poster}\",\"n\":{n},\
         \"id\":\"{id}\",\"timestamp\":\"{timestamp}\"}}"
    )
    .into_bytes()
}

/// The tail of `starred` or `unstarred`: a user's own mark on number `n` of a chat, which `from` sent, for his own devices.
#[must_use]
pub fn starred(is_starred: bool, chat: &Chat, from: &UserId, n: N, id: &MessageId, timestamp: u64) -> Vec<u8> {
    let status = if is_starred { "starred" } else { "unstarred" };
    format!(
        "\"type\":\"status\",\"status\":\"{status}\",\"chat\":\"{chat}\",\"from\":\"{from}\",\"n\":{n},\"id\":\"{id}\",\
         \"timestamp\":\"{timestamp}\"}}"
    )
    .into_bytes()
}

/// The tail of `sent`, for devices whose PUBACK cannot say it.
#[must_use]
pub fn sent(chat: &Chat, messages: &[(MessageId, N)], timestamp: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let _ = write!(out, "\"type\":\"status\",\"status\":\"sent\",\"chat\":\"{chat}\",\"messages\":[");
    for (i, (id, n)) in messages.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let _ = write!(out, "{comma}{{\"id\":\"{id}\",\"n\":{n}}}");
    }
    let _ = write!(out, "],\"timestamp\":\"{timestamp}\"}}");
    out
}

/// The place of an accepted message that failed later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAt {
    /// The chat.
    pub chat: Chat,
    /// Its number.
    pub n: N,
    /// Who did not get it.
    pub recipient: UserId,
    /// Unix seconds.
    pub timestamp: u64,
}

/// The tail of `failed`: the message of that id stays at no tick, or at the ticks it has.
///
/// A conflict carries no id, since the id is another message's; it says `conflicts_with`.
#[must_use]
pub fn failed(id: Option<&MessageId>, at: Option<&FailedAt>, why: &Refusal) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"\"type\":\"status\",\"status\":\"failed\",");
    if let Some(id) = id {
        let _ = write!(out, "\"id\":\"{id}\",");
    }
    if let Some(FailedAt { chat, n, recipient, timestamp }) = at {
        let _ = write!(
            out,
            "\"chat\":\"{chat}\",\"n\":{n},\"recipient_id\":\"{recipient}\",\"timestamp\":\"{timestamp}\","
        );
    }
    write_errors(&mut out, why);
    out
}

/// The tail of a gap: the entries `from..=to` will not come.
#[must_use]
pub fn gap(from: Seq, to: Seq, reason: GapReason) -> Vec<u8> {
    format!("\"type\":\"gap\",\"from\":{from},\"to\":{to},\"reason\":\"{}\"}}", reason.as_str()).into_bytes()
}

/// The tail of a typing hint.
#[must_use]
pub fn typing(from: &UserId, chat: &Chat) -> Vec<u8> {
    format!("\"type\":\"typing\",\"from\":\"{from}\",\"chat\":\"{chat}\"}}").into_bytes()
}

/// Whether a user has a device connected whose app is in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// At least one.
    Available,
    /// None, or he does not show it.
    Unavailable,
}

impl Presence {
    /// The value of `presence`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The tail of a presence hint. `last_seen`, in Unix seconds, is that of a user who is away; left out where he does not show it.
#[must_use]
pub fn presence(from: &UserId, presence: Presence, last_seen: Option<u64>) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    let _ = write!(
        out,
        "\"type\":\"presence\",\"from\":\"{from}\",\"chat\":\"{from}\",\"presence\":\"{}\"",
        presence.as_str()
    );
    if let Some(last_seen) = last_seen {
        let _ = write!(out, ",\"last_seen\":\"{last_seen}\"");
    }
    out.push(b'}');
    out
}

fn write_errors(out: &mut Vec<u8>, why: &Refusal) {
    out.extend_from_slice(b"\"errors\":[");
    why.write_json(out);
    out.extend_from_slice(b"]}");
}

/// An entry as a client reads it. Members that this version does not know are left out.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Entry {
    /// Its position; absent in live payloads.
    #[serde(default)]
    pub seq: Option<Seq>,
    /// The position sent before it on this connection.
    #[serde(default)]
    pub prev: Option<Seq>,
    /// `text`, `status`, `gap` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// The sender of a message. A gap's `from` is a number, see [`Entry::gap`].
    #[serde(default)]
    pub from: serde_json::Value,
    /// The end of a gap, or the other side of an own message.
    #[serde(default)]
    pub to: serde_json::Value,
    /// The chat.
    #[serde(default)]
    pub chat: Option<String>,
    /// The number of the message, or the end of a receipt's range.
    #[serde(default)]
    pub n: Option<N>,
    /// The start of a receipt's range, itself not in it.
    #[serde(default)]
    pub after: Option<N>,
    /// The message's id.
    #[serde(default)]
    pub id: Option<String>,
    /// `delivered`, `read`, `sent`, `failed`.
    #[serde(default)]
    pub status: Option<String>,
    /// Whose receipt it is.
    #[serde(default)]
    pub recipient_id: Option<String>,
    /// Unix seconds, as text.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// Why a gap or a failure.
    #[serde(default)]
    pub errors: Vec<serde_json::Value>,
    /// The object of the message's type, and whatever else stands there.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

impl Entry {
    /// Reads a payload of an inbox.
    ///
    /// # Errors
    /// What is wrong with the JSON.
    pub fn parse(payload: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(payload)
    }

    /// The sender of a message.
    #[must_use]
    pub fn from_user(&self) -> Option<&str> {
        self.from.as_str()
    }

    /// The range of a gap, both ends in it.
    #[must_use]
    pub fn gap(&self) -> Option<(Seq, Seq)> {
        (self.kind == "gap").then_some((self.from.as_u64()?, self.to.as_u64()?))
    }

    /// Why a gap is there: `expired` or `lagged`.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.rest.get("reason")?.as_str()
    }

    /// The first error of a `failed` or `unsupported` entry: its code and its details.
    #[must_use]
    pub fn error(&self) -> Option<(u64, &str)> {
        let error = self.errors.first()?;
        Some((error.get("code")?.as_u64()?, error.pointer("/error_data/details")?.as_str()?))
    }

    /// The messages that a `sent` speaks of: id and number.
    #[must_use]
    pub fn sent_messages(&self) -> Vec<(&str, N)> {
        let messages = self.rest.get("messages").and_then(serde_json::Value::as_array);
        messages.into_iter().flatten().filter_map(|m| Some((m.get("id")?.as_str()?, m.get("n")?.as_u64()?))).collect()
    }

    /// The words of a text message.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.rest.get("text")?.get("body")?.as_str()
    }
}

/// The client id that stands for a connection that came without one.
#[must_use]
pub fn assigned_client_id(user: &UserId, connection: ConnectionId) -> String {
    format!("{user}-auto-{}-{}", connection.boot, connection.n)
}
