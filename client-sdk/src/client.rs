//! What an app holds.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use natter_protocol::outbox::PAYLOAD_BYTES_MAX;
use natter_protocol::{Chat as ChatName, MessageId, N};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::builder::{Builder, Settings};
use crate::driver::Driver;
use crate::error::Error;
use crate::event::Events;
use crate::outbox::Publication;

/// Publications that wait for the driver; a caller waits when it is full.
const QUEUE_MAX: usize = 64;

/// A connected device. Cheap to clone; the connection ends when the last clone and the [`Events`] are dropped.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    publications: mpsc::Sender<Publication>,
    closing: mpsc::Sender<oneshot::Sender<()>>,
    events: Mutex<Option<Events>>,
}

/// A message that is on the server's disk: one tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub id: MessageId,
    /// Its number in the chat.
    pub n: N,
    /// Unix seconds of the commit.
    pub timestamp: u64,
}

impl Client {
    /// A client of the server at `url`, as `mqtt://127.0.0.1:1883`.
    #[must_use]
    pub fn builder(url: &str) -> Builder {
        Builder::new(url)
    }

    pub(crate) async fn connect(settings: Settings) -> Result<Self, Error> {
        let (publications, queue) = mpsc::channel(QUEUE_MAX);
        let (closing, close) = mpsc::channel(1);
        let (events, feed) = Events::new(publications.clone());
        let (ready, connected) = oneshot::channel();
        tokio::spawn(Driver::new(settings, queue, close, feed).run(ready));
        connected.await.unwrap_or(Err(Error::Closed))?;
        Ok(Self { inner: Arc::new(Inner { publications, closing, events: Mutex::new(Some(events)) }) })
    }

    /// The conversation with a user, or `g:{group}`, or `status@broadcast`.
    #[must_use]
    pub fn chat(&self, name: &str) -> Chat {
        Chat { client: self.clone(), name: name.to_owned() }
    }

    /// Says that everything up to number `n` of `chat` is read. Returns when the server has it on disk.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such chat; [`Error::Closed`].
    pub async fn mark_read(&self, chat: &str, n: N) -> Result<(), Error> {
        let chat = parse_chat(chat)?;
        self.publish(&json!({"status": "read", "chat": chat.to_string(), "n": n})).await.map(|_| ())
    }

    /// What arrives at this device, in order. There is one such stream: a second call, on any clone, gets one that ends at once.
    #[must_use]
    pub fn events(&self) -> Events {
        let taken = self.inner.events.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.unwrap_or_else(|| Events::ended(self.inner.publications.clone()))
    }

    /// Tells the server good-bye and ends the connection; what was sent and not answered fails with [`Error::Closed`].
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.inner.closing.send(done).await.is_ok() {
            let _ = closed.await;
        }
    }

    async fn publish(&self, payload: &Value) -> Result<Option<Sent>, Error> {
        let payload = payload.to_string();
        if payload.len() > PAYLOAD_BYTES_MAX {
            let got = payload.len();
            return Err(Error::Invalid(format!("payload: expected at most {PAYLOAD_BYTES_MAX} bytes, got {got}")));
        }
        let (reply, answer) = oneshot::channel();
        let publication = Publication { payload: Bytes::from(payload), reply };
        self.inner.publications.send(publication).await.map_err(|_| Error::Closed)?;
        answer.await.unwrap_or(Err(Error::Closed))
    }
}

/// A conversation, made by [`Client::chat`].
#[derive(Clone)]
pub struct Chat {
    client: Client,
    name: String,
}

impl Chat {
    /// Sends words and returns when the server has them on disk; across reconnects, and once only.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad chat name or too much text; [`Error::Refused`] as wire.md section 4 lists; [`Error::Closed`].
    pub async fn send_text(&self, body: &str) -> Result<Sent, Error> {
        self.send(json!({"type": "text", "text": {"body": body}})).await
    }

    /// Sends a message object of wire.md section 3. `to` and, unless it has one, `id` are added here.
    ///
    /// # Errors
    /// As [`Chat::send_text`].
    pub async fn send(&self, mut message: Value) -> Result<Sent, Error> {
        let to = parse_chat(&self.name)?;
        let Some(members) = message.as_object_mut() else {
            return Err(Error::Invalid("message: expected an object".into()));
        };
        members.insert("to".into(), to.to_string().into());
        members.entry("id").or_insert_with(|| uuid::Uuid::now_v7().to_string().into());
        self.client
            .publish(&message)
            .await?
            .ok_or_else(|| Error::Protocol("a PUBACK without id, n and timestamp".into()))
    }
}

fn parse_chat(name: &str) -> Result<ChatName, Error> {
    ChatName::parse(name).map_err(|error| Error::Invalid(error.to_string()))
}
