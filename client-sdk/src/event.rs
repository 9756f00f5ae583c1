//! What arrives at a device.

use std::fmt;

use natter_protocol::entry::{Entry, ReceiptKind};
use natter_protocol::{N, Seq};
use serde_json::{Map, Value};

use crate::chat::Chat;
use crate::client::{Client, WeakClient};
use crate::error::Error;
use crate::groups::{Counts, GroupChange};

/// Something an app wants to know.
///
/// ```no_run
/// # async fn example(mut events: natter_client::Events) -> Result<(), natter_client::Error> {
/// use natter_client::Event;
///
/// while let Some(event) = events.next().await {
///     match event {
///         Event::Message(message) => println!("{}: {}", message.from, message.text().unwrap_or("(no text)")),
///         Event::Receipt(receipt) => println!("{} up to {}", receipt.chat, receipt.n),
///         Event::Failed(failed) => println!("{:?}: {}", failed.id, failed.error),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A message, from another user or from another device of this user.
    Message(IncomingMessage),
    /// Ticks went up.
    Receipt(Receipt),
    /// A message or command of this user was refused, or expired.
    Failed(Failed),
    /// Entries that will not come any more.
    Gap(Gap),
    /// Somebody types. Live: worth something now or never.
    Typing(Typing),
    /// Somebody came or went, see [`Chat::watch_presence`]. Live.
    Presence(Presence),
    /// A message was taken back by its sender.
    Deleted(Deleted),
    /// A change of a group: who is in it, who may change it, what it is called.
    Group(GroupChange),
    /// The server has another store than before, as after a start over an empty data directory: positions ([`IncomingMessage::seq`]) and numbers
    /// begin anew, and what was sent before is not remembered: a message that the old store had taken, and whose answer a crash took from this
    /// device, is sent again and may come behind newer ones. An app that keeps events by their position forgets the old ones. It comes
    /// before the first event of the new inbox, after the last of the old one was acknowledged, and is live: an app that ends right then
    /// does not hear it again.
    BegunAnew,
    /// So many live events were dropped, because the app does not ask for the next ones.
    SlowConsumer(u64),
    /// Anything else, as it came: what later versions add.
    Other(Box<Entry>),
}

/// A message as it arrives.
///
/// ```no_run
/// # async fn example(mut events: natter_client::Events) -> Result<(), natter_client::Error> {
/// while let Some(event) = events.next().await {
///     if let natter_client::Event::Message(message) = event {
///         println!("number {} of {}, from {}: {}", message.n, message.chat, message.from, message.kind);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct IncomingMessage {
    /// Its position in this user's inbox: the stable id of this event. What comes again after a crash comes with the same one.
    pub seq: Seq,
    /// The sender.
    pub from: String,
    /// The chat, from this user's side.
    pub chat: String,
    /// Set on an own message that another device sent: the other side.
    pub to: Option<String>,
    /// Its number in the chat.
    pub n: N,
    /// Its id, unique together with `from`.
    pub id: String,
    /// Unix seconds of the commit.
    pub timestamp: u64,
    /// `text`, `image`, `unsupported` and so on.
    pub kind: String,
    /// The object of that name and what stands beside it, as `context`.
    pub content: Map<String, Value>,
    pub(crate) client: WeakClient,
}

/// Bodies are not for logs.
impl fmt::Debug for IncomingMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seq, from, chat, to: _, n, id, timestamp: _, kind, content: _, client: _ } = self;
        let mut f = f.debug_struct("IncomingMessage");
        f.field("seq", seq).field("from", from).field("chat", chat).field("n", n).field("id", id).field("kind", kind);
        f.finish_non_exhaustive()
    }
}

impl IncomingMessage {
    /// The words of a text message.
    ///
    /// ```no_run
    /// # async fn example(message: natter_client::IncomingMessage) -> Result<(), natter_client::Error> {
    /// println!("{}", message.text().unwrap_or("(not a text)"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.content.get("text")?.get("body")?.as_str()
    }

    /// The object of its type, as `{"id":"..","caption":".."}` of an image.
    ///
    /// ```no_run
    /// # async fn example(message: natter_client::IncomingMessage) -> Result<(), natter_client::Error> {
    /// if let Some(location) = message.object().filter(|_| message.kind == "location") {
    ///     println!("{}, {}", location["latitude"], location["longitude"]);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn object(&self) -> Option<&Value> {
        self.content.get(&self.kind)
    }

    /// The id of the message that it answers.
    ///
    /// ```no_run
    /// # async fn example(message: natter_client::IncomingMessage) -> Result<(), natter_client::Error> {
    /// if let Some(question) = message.reply_to() {
    ///     println!("answers {question}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn reply_to(&self) -> Option<&str> {
        self.content.get("context")?.get("message_id")?.as_str()
    }

    /// Says that this message and everything before it in its chat is read. On the disk when it returns; sent when there is a connection.
    ///
    /// ```no_run
    /// # async fn example(message: natter_client::IncomingMessage) -> Result<(), natter_client::Error> {
    /// message.mark_read().await?; // blue ticks at its sender
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::OutboxFull`], [`Error::Store`], [`Error::Closed`].
    pub async fn mark_read(&self) -> Result<(), Error> {
        let client = self.client.upgrade()?;
        if self.chat == natter_protocol::ids::STATUS_BROADCAST {
            let Self { chat, from, id, .. } = self;
            let read = serde_json::json!({"status": "read", "chat": chat, "from": from, "message_id": id});
            client.command(&read).await
        } else {
            client.chat(&self.chat).mark_read(self.n).await
        }
    }

    /// Its chat, in which everything that is sent answers this message.
    ///
    /// ```no_run
    /// # async fn example(message: natter_client::IncomingMessage) -> Result<(), natter_client::Error> {
    /// message.reply()?.send_text("yes").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn reply(&self) -> Result<Chat, Error> {
        Ok(self.client.upgrade()?.chat(&self.chat).reply(self))
    }
}

/// The messages of this user in `chat` with `after < n <= n` were delivered or read.
///
/// ```no_run
/// # async fn example(mut events: natter_client::Events) -> Result<(), natter_client::Error> {
/// while let Some(event) = events.next().await {
///     if let natter_client::Event::Receipt(receipt) = event {
///         println!("{}: {:?} {}..={}", receipt.chat, receipt.kind, receipt.after + 1, receipt.n);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// Its position in the inbox.
    pub seq: Seq,
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
    /// Who has them. The user himself: what he read, on another device. `None` in a group, where it is counted.
    pub recipient: Option<String>,
    /// In a group: how many members have each of them now. `kind` says which number rose.
    pub counts: Option<Counts>,
    /// Unix seconds.
    pub timestamp: u64,
}

/// A message that will not be delivered, or a command that was refused.
///
/// ```no_run
/// # async fn example(mut events: natter_client::Events) -> Result<(), natter_client::Error> {
/// while let Some(event) = events.next().await {
///     if let natter_client::Event::Failed(failed) = event {
///         println!("{:?} is not delivered: {}", failed.id, failed.error);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failed {
    /// The id of the message, where one is known.
    pub id: Option<String>,
    /// Its chat, where that is known.
    pub chat: Option<String>,
    /// Why.
    pub error: Error,
}

impl Failed {
    /// As the core says it.
    pub(crate) fn of_entry(entry: &Entry) -> Self {
        let (code, details) = entry.error().map_or((0, ""), |(code, details)| (code, details));
        let code = u32::try_from(code).unwrap_or(u32::MAX);
        Self {
            id: entry.id.clone(),
            chat: entry.chat.clone(),
            error: Error::Undelivered { code, details: details.to_owned() },
        }
    }
}

/// The entries `from..=to` of the inbox are gone.
///
/// ```no_run
/// # async fn example(mut events: natter_client::Events) -> Result<(), natter_client::Error> {
/// while let Some(event) = events.next().await {
///     if let natter_client::Event::Gap(gap) = event {
///         println!("{} entries are gone: {}", gap.to - gap.from + 1, gap.reason);
///     }
/// }
/// # Ok(())
/// # }
/// ```
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

/// Somebody types.
///
/// ```no_run
/// # async fn example(mut events: natter_client::Events) -> Result<(), natter_client::Error> {
/// while let Some(event) = events.next().await {
///     if let natter_client::Event::Typing(typing) = event {
///         println!("{} types in {}", typing.from, typing.chat);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Typing {
    /// Who.
    pub from: String,
    /// Where.
    pub chat: String,
}

/// Somebody came or went.
///
/// ```no_run
/// # async fn example(mut events: natter_client::Events) -> Result<(), natter_client::Error> {
/// while let Some(event) = events.next().await {
///     if let natter_client::Event::Presence(presence) = event {
///         println!("{} is here: {}", presence.from, presence.available);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    /// Who.
    pub from: String,
    /// Whether a device of his is connected.
    pub available: bool,
    /// Unix seconds, if he is away and shows it.
    pub last_seen: Option<u64>,
}

/// A message that its sender took back.
///
/// ```no_run
/// # async fn example(mut events: natter_client::Events) -> Result<(), natter_client::Error> {
/// while let Some(event) = events.next().await {
///     if let natter_client::Event::Deleted(deleted) = event {
///         println!("{} of {} was taken back", deleted.id, deleted.chat);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deleted {
    /// The chat.
    pub chat: String,
    /// The sender.
    pub from: Option<String>,
    /// The id of the message.
    pub id: String,
    /// Its number.
    pub n: Option<N>,
}

impl Event {
    /// Reads an entry.
    pub(crate) fn from_entry(entry: Entry, client: &Client) -> Self {
        let timestamp = entry.timestamp.as_deref().and_then(|t| t.parse().ok()).unwrap_or(0);
        match (entry.kind.as_str(), entry.status.as_deref()) {
            ("status", Some("delivered")) => Self::receipt(ReceiptKind::Delivered, entry, timestamp),
            ("status", Some("read")) => Self::receipt(ReceiptKind::Read, entry, timestamp),
            ("status", Some("failed")) => Self::Failed(Failed::of_entry(&entry)),
            ("status", Some("deleted")) => match (&entry.chat, &entry.id) {
                (Some(chat), Some(id)) => {
                    let (chat, id, from) = (chat.clone(), id.clone(), entry.from_user().map(str::to_owned));
                    Self::Deleted(Deleted { chat, from, id, n: entry.n })
                }
                _ => Self::Other(Box::new(entry)),
            },
            // Whatever else comes to be said of messages: none of it is a message.
            ("status", _) => Self::Other(Box::new(entry)),
            ("gap", _) => match entry.gap() {
                Some((from, to)) => Self::Gap(Gap { from, to, reason: entry.reason().unwrap_or_default().to_owned() }),
                None => Self::Other(Box::new(entry)),
            },
            ("typing", _) => match (entry.from_user(), &entry.chat) {
                (Some(from), Some(chat)) => Self::Typing(Typing { from: from.to_owned(), chat: chat.clone() }),
                _ => Self::Other(Box::new(entry)),
            },
            ("presence", _) => Self::presence(entry),
            ("system", _) => match GroupChange::of_entry(&entry) {
                Some(change) => Self::Group(change),
                None => Self::Other(Box::new(entry)),
            },
            _ => Self::message(entry, timestamp, client),
        }
    }

    fn presence(entry: Entry) -> Self {
        let text = |name: &str| entry.rest.get(name).and_then(Value::as_str);
        match (entry.from_user(), text("presence")) {
            (Some(from), Some(presence)) => {
                let last_seen = text("last_seen").and_then(|seconds| seconds.parse().ok());
                Self::Presence(Presence { from: from.to_owned(), available: presence == "available", last_seen })
            }
            _ => Self::Other(Box::new(entry)),
        }
    }

    fn receipt(kind: ReceiptKind, mut entry: Entry, timestamp: u64) -> Self {
        let (recipient, counts) = (entry.recipient_id.take(), Counts::of_entry(&entry));
        match entry {
            Entry { seq: Some(seq), chat: Some(chat), after: Some(after), n: Some(n), id: Some(id), .. }
                if recipient.is_some() || counts.is_some() =>
            {
                Self::Receipt(Receipt { seq, kind, chat, after, n, id, recipient, counts, timestamp })
            }
            other => Self::Other(Box::new(Entry { recipient_id: recipient, ..other })),
        }
    }

    fn message(entry: Entry, timestamp: u64, client: &Client) -> Self {
        let from = entry.from_user().map(str::to_owned);
        match (from, entry) {
            (Some(from), Entry { seq: Some(seq), chat: Some(chat), n: Some(n), id: Some(id), kind, to, rest, .. }) => {
                let to = to.as_str().map(str::to_owned);
                let client = client.downgrade();
                Self::Message(IncomingMessage { seq, from, chat, to, n, id, timestamp, kind, content: rest, client })
            }
            (_, other) => Self::Other(Box::new(other)),
        }
    }
}
