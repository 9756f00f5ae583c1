//! What arrives at a device.

use natter_protocol::entry::{Entry, ReceiptKind};
use natter_protocol::{N, Seq};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::error::Error;
use crate::outbox::Publication;

/// Entries that the app has not taken and that are therefore not acknowledged; also the Receive Maximum towards the server.
pub(crate) const ENTRIES_MAX: usize = 100;

/// Something an app wants to know.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A message, from another user or from another device of this user.
    Message(Message),
    /// Ticks went up.
    Receipt(Receipt),
    /// A message of this user was refused or expired.
    Failed(Failed),
    /// Entries that will not come any more.
    Gap(Gap),
    /// The connection came or went.
    State(State),
    /// Anything else, as it came: typing, presence, changes in a group, and what later versions add.
    Other(Entry),
}

/// A message as the wire has it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Its position in this device's inbox.
    pub seq: Seq,
    /// The sender.
    pub from: String,
    /// The chat, from this user's side.
    pub chat: String,
    /// Set on an own message that another device sent: the other side.
    pub to: Option<String>,
    /// Its number in the chat.
    pub n: N,
    /// Its id.
    pub id: String,
    /// Unix seconds of the commit.
    pub timestamp: u64,
    /// `text`, `image`, `unsupported` and so on.
    pub kind: String,
    /// The object of that name and what stands beside it, as `context`.
    pub content: Map<String, Value>,
}

impl Message {
    /// The words of a text message.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.content.get("text")?.get("body")?.as_str()
    }
}

/// The messages of this user in `chat` with `after < n <= n` were delivered or read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// Delivered or read.
    pub kind: ReceiptKind,
    /// The chat.
    pub chat: String,
    /// The start of the range, itself not in it.
    pub after: N,
    /// The end of the range, in it.
    pub n: N,
    /// The id of the newest message in it.
    pub id: String,
    /// Who has them. The user himself: what he read, on another device.
    pub recipient: String,
    /// Unix seconds.
    pub timestamp: u64,
}

/// A message that will not be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failed {
    /// Its id, where one was known.
    pub id: Option<String>,
    /// The code of wire.md section 6.
    pub code: u64,
    /// What was expected and what came.
    pub details: String,
}

/// The entries `from..=to` are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The first.
    pub from: Seq,
    /// The last.
    pub to: Seq,
    /// `expired` or `lagged`.
    pub reason: String,
}

/// How the connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Connected and subscribed.
    Connected,
    /// Gone; the client tries again by itself.
    Reconnecting(Error),
    /// Gone for good. Nothing comes after it.
    Closed(Error),
}

/// The stream of a device's events, made by [`crate::Client::events`].
///
/// Entries are acknowledged to the server when [`Events::next`] hands them out. An app that does not call it gets no new ones after the
/// first hundred; they wait at the server.
pub struct Events {
    events: mpsc::Receiver<Delivery>,
    taken: mpsc::Sender<Seq>,
    /// Keeps the driver alive while somebody listens.
    _publications: mpsc::Sender<Publication>,
}

/// The driver's end of [`Events`].
pub(crate) struct Feed {
    pub(crate) events: mpsc::Sender<Delivery>,
    pub(crate) taken: mpsc::Receiver<Seq>,
}

/// An event on its way to the app, and the position to acknowledge when it has it.
pub(crate) struct Delivery {
    pub(crate) seq: Option<Seq>,
    pub(crate) event: Event,
}

impl Events {
    pub(crate) fn new(publications: mpsc::Sender<Publication>) -> (Self, Feed) {
        // Twice the entries: hints and states use what entries cannot fill.
        let (tx, rx) = mpsc::channel(2 * ENTRIES_MAX);
        let (taken_tx, taken_rx) = mpsc::channel(2 * ENTRIES_MAX);
        (Self { events: rx, taken: taken_tx, _publications: publications }, Feed { events: tx, taken: taken_rx })
    }

    pub(crate) fn ended(publications: mpsc::Sender<Publication>) -> Self {
        Self::new(publications).0
    }

    /// The next event; `None` after [`State::Closed`]. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        // The place is taken first, so that nothing waits between an event's leaving the queue and its acknowledgement.
        let place = self.taken.clone().reserve_owned().await.ok();
        let delivery = self.events.recv().await?;
        if let (Some(seq), Some(place)) = (delivery.seq, place) {
            place.send(seq);
        }
        Some(delivery.event)
    }
}

impl Event {
    /// Reads an entry; live ones have no position and are [`Event::Other`].
    pub(crate) fn from_entry(entry: Entry) -> Self {
        let timestamp = entry.timestamp.as_deref().and_then(|t| t.parse().ok()).unwrap_or(0);
        match (entry.kind.as_str(), entry.status.as_deref()) {
            ("status", Some("delivered")) => Self::receipt(ReceiptKind::Delivered, entry, timestamp),
            ("status", Some("read")) => Self::receipt(ReceiptKind::Read, entry, timestamp),
            ("status", Some("failed")) => {
                let (code, details) = entry.error().map_or((0, String::new()), |(code, d)| (code, d.to_owned()));
                Self::Failed(Failed { id: entry.id, code, details })
            }
            // A status taken back, and whatever else comes to be said of messages: none of it is a message.
            ("status", _) => Self::Other(entry),
            ("gap", _) => match entry.gap() {
                Some((from, to)) => Self::Gap(Gap { from, to, reason: entry.reason().unwrap_or_default().to_owned() }),
                None => Self::Other(entry),
            },
            _ => Self::message(entry, timestamp),
        }
    }

    fn receipt(kind: ReceiptKind, entry: Entry, timestamp: u64) -> Self {
        match entry {
            Entry {
                chat: Some(chat),
                after: Some(after),
                n: Some(n),
                id: Some(id),
                recipient_id: Some(recipient),
                ..
            } => Self::Receipt(Receipt { kind, chat, after, n, id, recipient, timestamp }),
            other => Self::Other(other),
        }
    }

    fn message(entry: Entry, timestamp: u64) -> Self {
        let from = entry.from_user().map(str::to_owned);
        match (from, entry) {
            (Some(from), Entry { seq: Some(seq), chat: Some(chat), n: Some(n), id: Some(id), kind, to, rest, .. }) => {
                let to = to.as_str().map(str::to_owned);
                Self::Message(Message { seq, from, chat, to, n, id, timestamp, kind, content: rest })
            }
            (_, other) => Self::Other(other),
        }
    }
}
