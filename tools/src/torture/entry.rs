//! What arrives in an inbox, as a client reads it.

use std::borrow::Cow;

use serde::Deserialize;

use super::history::{Message, What};
use super::random::hash;

/// An entry or a hint.
#[derive(Deserialize)]
pub(crate) struct Entry<'a> {
    pub(crate) seq: Option<u64>,
    pub(crate) prev: Option<u64>,
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    recipient_id: Option<Cow<'a, str>>,
    after: Option<u32>,
    n: Option<u32>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    messages: Vec<Numbered<'a>>,
}

#[derive(Deserialize)]
struct Text<'a> {
    #[serde(borrow)]
    body: Cow<'a, str>,
}

/// A message that a hint `sent` names.
#[derive(Deserialize)]
struct Numbered<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    n: u32,
}

impl Entry<'_> {
    /// What an entry with this `seq` is.
    pub(crate) fn what(&self, seq: u64) -> What {
        let message = self.id.as_deref().and_then(Message::parse);
        match (self.r#type.as_deref(), self.status.as_deref(), message, self.n) {
            (Some("text"), None, Some(message), Some(n)) => {
                let hash = self.text.as_ref().map_or(0, |text| hash(text.body.as_bytes()));
                What::Taken { message, n, seq, hash }
            }
            (Some("status"), Some(status @ ("delivered" | "read")), Some(message), Some(n)) => {
                let recipient = self.recipient_id.as_deref().and_then(|name| name.strip_prefix('u')?.parse().ok());
                let (Some(recipient), Some(after)) = (recipient, self.after) else { return What::Phantom };
                What::Receipt { read: status == "read", recipient, after, n, message, seq }
            }
            (Some("gap"), ..) => What::Gap,
            (_, Some("failed"), ..) => What::Refused,
            _ => What::Phantom,
        }
    }

    /// What a payload without a `seq` says to the device with this index.
    pub(crate) fn hints(&self, device: u32) -> Vec<What> {
        match self.status.as_deref() {
            Some("failed") => vec![What::Refused],
            Some("sent") => {
                let hint = |numbered: &Numbered<'_>| match Message::parse(&numbered.id) {
                    Some(message) if message.device == device => What::Numbered { k: message.k, n: numbered.n },
                    _ => What::Phantom,
                };
                self.messages.iter().map(hint).collect()
            }
            _ => Vec::new(),
        }
    }
}
