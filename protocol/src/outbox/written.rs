//! What a message says of another one: an answer, a reaction, an edit, a deletion; and that it is forwarded. How it is read, and how it is
//! written into the body that the store keeps.

use std::io::Write as _;

use super::{Message, Reference, malformed, reference};
use crate::error::{Kind, Refusal};
use crate::ids::{Chat, N, UserId};
use crate::json::{Json, write_string};
use crate::message::MessageType;

/// How the bodies of those types begin whose object is about another message: its reference stands inside, at the beginning.
const STARTS: [&[u8]; 3] =
    [b"\"type\":\"reaction\",\"reaction\":{", b"\"type\":\"edit\",\"edit\":{", b"\"type\":\"delete\",\"delete\":{"];

/// Whether a message was passed on from another chat, as its sender says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Forwarded {
    /// It was not.
    #[default]
    No,
    /// `"context":{"forwarded":true}`.
    Once,
    /// `"context":{"frequently_forwarded":true}`: more than five times, as clients count.
    Often,
}

impl Forwarded {
    /// The member of `context` that says it.
    #[must_use]
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::No => None,
            Self::Once => Some("forwarded"),
            Self::Often => Some("frequently_forwarded"),
        }
    }

    fn read(context: &Json<'_>) -> Result<Self, Refusal> {
        let mut found = Self::No;
        for one in [Self::Once, Self::Often] {
            let name = one.as_str().unwrap_or_default();
            match context.get(name) {
                Some(Json::Bool(true)) => found = one,
                None | Some(Json::Bool(false)) => {}
                other => return Err(malformed(&format!("context.{name}"), "true or false", other)),
            }
        }
        Ok(found)
    }
}

/// What a message of a type refers to, and whether it is forwarded.
pub(super) fn read(kind: MessageType, tree: &Json<'_>) -> Result<(Option<Reference>, Forwarded), Refusal> {
    if kind.is_about_another() {
        let name = kind.as_str();
        let object = tree.get(name).map(|object| reference(&format!("{name}."), object)).transpose()?;
        if let (MessageType::Edit, Some(edit)) = (kind, tree.get(name))
            && edit.get("text").is_some() == edit.get("caption").is_some()
        {
            return Err(Refusal::new(Kind::Malformed, "edit: expected either text or caption, got both or none"));
        }
        return Ok((object, Forwarded::No));
    }
    let Some(context) = tree.get("context") else { return Ok((None, Forwarded::No)) };
    let forwarded = Forwarded::read(context)?;
    if forwarded != Forwarded::No && context.get("message_id").is_none() {
        return Ok((None, forwarded));
    }
    Ok((Some(reference("context.", context)?), forwarded))
}

impl Message {
    /// The body with its reference written out: what the store keeps. `from` is the sender of the message referred to.
    #[must_use]
    pub fn into_body(self, from: Option<&UserId>) -> Vec<u8> {
        self.into_body_about(from, None)
    }

    /// As [`Message::into_body`]; an edit or a deletion tells the number of the message that it is about too.
    #[must_use]
    pub fn into_body_about(self, from: Option<&UserId>, n: Option<N>) -> Vec<u8> {
        let mut written = Vec::with_capacity(192);
        if let Some(reference) = &self.reference {
            written.extend_from_slice(b"\"message_id\":");
            write_string(&mut written, reference.id.as_str());
            if let Some(from) = from.or(reference.from.as_ref()) {
                written.extend_from_slice(b",\"from\":");
                write_string(&mut written, from.as_str());
            }
            if reference.chat == Some(Chat::Status) {
                // Of another chat than the message itself.
                written.extend_from_slice(b",\"chat\":\"status@broadcast\"");
            }
        }
        if let Some(n) = n {
            let _ = write!(written, ",\"n\":{n}");
        }
        let mut body = self.body;
        for start in STARTS {
            // The reference of these stands inside, where the Cloud API has a reaction's.
            if let Some(rest) = body.strip_prefix(start)
                && !written.is_empty()
            {
                let comma: &[u8] = if rest == b"}" { b"" } else { b"," };
                return [start, &written, comma, rest].concat();
            }
        }
        if let Some(forwarded) = self.forwarded.as_str() {
            let comma = if written.is_empty() { "" } else { "," };
            let _ = write!(written, "{comma}\"{forwarded}\":true");
        }
        if !written.is_empty() {
            body.extend_from_slice(b",\"context\":{");
            body.extend_from_slice(&written);
            body.push(b'}');
        }
        body
    }
}
