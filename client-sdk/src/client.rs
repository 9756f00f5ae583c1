//! What an app holds.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use natter_protocol::outbox::{self, PAYLOAD_BYTES_MAX};
use natter_protocol::{DeviceId, Seq, UserId};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::builder::{Builder, Settings};
use crate::chat::Chat;
use crate::driver::{Command, Driver, Job};
use crate::error::Error;
use crate::feed::{Claim, Events, Feed, lock};
use crate::message::OutgoingMessage;
use crate::progress::Tick;
use crate::registry::Registry;
use crate::store::Store;

/// Commands that wait for the driver; a caller waits when it is full.
const QUEUE_MAX: usize = 256;

/// How the connection is.
///
/// ```no_run
/// # async fn example(client: natter_client::Client) -> Result<(), natter_client::Error> {
/// let mut state = client.state();
/// while state.changed().await.is_ok() {
///     match &*state.borrow_and_update() {
///         natter_client::ConnectionState::Connected => println!("connected"),
///         natter_client::ConnectionState::Reconnecting(why) => println!("again soon: {why}"),
///         natter_client::ConnectionState::Closed(why) => println!("over: {why}"),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// A connection is being made.
    Connecting,
    /// The inbox is subscribed.
    Connected,
    /// The connection is gone, for this reason, and another will be made; after [`Error::TakenOver`] too, if it may have been a late attempt
    /// of this client's own.
    Reconnecting(Error),
    /// There will be no other connection: [`Error::Closed`], [`Error::Denied`] (log in again) or [`Error::TakenOver`].
    Closed(Error),
}

/// A device of a user. Cheap to clone; the connection ends when the last clone, [`Chat`] and [`Events`] of it are dropped.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), natter_client::Error> {
/// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
/// let chats = client.clone(); // the same device
/// assert_eq!((chats.user().as_str(), chats.device().as_str()), ("alice", "sdk"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Arc<Settings>,
    commands: mpsc::Sender<Command>,
    took: mpsc::UnboundedSender<Seq>,
    shared: Arc<Shared>,
}

/// What the driver and the clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) feed: Mutex<Feed>,
    pub(crate) registry: Mutex<Registry>,
    pub(crate) state: watch::Sender<ConnectionState>,
}

/// A client that does not keep the connection.
#[derive(Clone)]
pub(crate) struct WeakClient(Weak<Inner>);

impl WeakClient {
    pub(crate) fn upgrade(&self) -> Result<Client, Error> {
        self.0.upgrade().map(|inner| Client { inner }).ok_or(Error::Closed)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Settings { user, device, .. } = &*self.inner.settings;
        f.debug_struct("Client").field("user", user).field("device", device).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at `url`: `mqtt://host:1883`, `mqtts://host:8883` (feature `tls`), `ws://host:8080/mqtt` and `wss://` (feature
    /// `websocket`).
    ///
    /// ```
    /// let builder = natter_client::Client::builder("mqtts://chat.example.org").user("alice").device("phone");
    /// ```
    #[must_use]
    pub fn builder(url: &str) -> Builder {
        Builder::new(url)
    }

    /// Opens the store, and makes connections from then on. `ready` hears how the first one went.
    pub(crate) async fn start(
        settings: Settings,
        store: Box<dyn Store>,
        ready: Option<oneshot::Sender<Result<(), Error>>>,
    ) -> Result<Self, Error> {
        let settings = Arc::new(settings);
        let (commands, queue) = mpsc::channel(QUEUE_MAX);
        let (took, taken) = mpsc::unbounded_channel();
        let state = watch::Sender::new(ConnectionState::Connecting);
        let shared = Arc::new(Shared { feed: Mutex::default(), registry: Mutex::default(), state });
        let driver = Driver::open(settings.clone(), store, shared.clone(), queue, taken).await?;
        tokio::spawn(driver.run(ready));
        Ok(Self { inner: Arc::new(Inner { settings, commands, took, shared }) })
    }

    /// Whose device it is.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// assert_eq!(client.user().as_str(), "alice");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.inner.settings.user
    }

    /// Which device it is.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// assert_eq!(client.device().as_str(), "sdk"); // unless the builder was told another
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn device(&self) -> &DeviceId {
        &self.inner.settings.device
    }

    /// The conversation with a user, or `g:{group}`, or `status@broadcast`. A bad name is said when something is sent.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// let message = client.chat("bob").send_text("hi").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn chat(&self, name: &str) -> Chat {
        Chat::new(self.clone(), name)
    }

    /// The chat that statuses are sent to: text, images and videos.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), natter_client::Error> {
    /// client.status().send_text("at the sea").await?.sent().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn status(&self) -> Chat {
        self.chat(natter_protocol::ids::STATUS_BROADCAST)
    }

    /// What arrives at this device, beginning with the oldest event that was not acknowledged. An older stream of this client ends.
    ///
    /// An app that never asks keeps at most 10,000 entries on its disk; then the server keeps the rest, receipts too, and ticks stand still:
    /// see [`Builder::send_only`].
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), natter_client::Error> {
    /// let mut events = client.events();
    /// while let Some(event) = events.next().await {
    ///     println!("{event:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self) -> Events {
        Events::new(self.clone())
    }

    /// Says whether the app is in front, over reconnects: while it is not, this device does not make its user available to those who watch
    /// him. It is, until something else is said.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), natter_client::Error> {
    /// client.set_available(false).await?; // the app went into the background
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn set_available(&self, available: bool) -> Result<(), Error> {
        self.send_command(Command::Available(available)).await
    }

    /// How the connection is, and every change of it.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), natter_client::Error> {
    /// let mut state = client.state();
    /// let connected = state.wait_for(|state| *state == natter_client::ConnectionState::Connected).await;
    /// assert!(connected.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.inner.shared.state.subscribe()
    }

    /// A message that this device sent: everything that waits, and the newest 10,000 of those answered, after a restart too.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// let id = client.chat("bob").send_text("hi").await?.id().to_owned();
    /// assert!(client.message(&id).is_some());
    /// assert!(client.message("another").is_none());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn message(&self, id: &str) -> Option<OutgoingMessage> {
        let progress = lock(&self.inner.shared.registry).watch(id)?;
        Some(OutgoingMessage { id: id.to_owned(), user: self.user().to_string(), progress })
    }

    /// The messages that wait for the server or failed, in the order of sending, after a restart too.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// client.chat("bob").send_text("hi").await?;
    /// for message in client.outgoing() {
    ///     println!("{} waits: {:?}", message.id(), message.progress().failure);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn outgoing(&self) -> Vec<OutgoingMessage> {
        let ids = lock(&self.inner.shared.registry).ids();
        let all = ids.iter().filter_map(|id| self.message(id));
        all.filter(|message| {
            let progress = message.progress.borrow();
            progress.tick == Tick::Queued || progress.failure.is_some()
        })
        .collect()
    }

    /// Takes an answered message off the record, as one that failed and that the user has seen. A waiting one stays.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), natter_client::Error> {
    /// for message in client.outgoing() {
    ///     if let Some(why) = message.progress().failure {
    ///         println!("not delivered: {why}");
    ///         client.forget(message.id()).await?;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn forget(&self, id: &str) -> Result<(), Error> {
        self.send_command(Command::Forget(id.to_owned())).await
    }

    /// A token as the client itself uses it, for HTTP calls of the app's own: `Authorization: Bearer`. `refused` is one that the server did not
    /// take: the token provider is asked for another.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// let header = format!("Bearer {}", client.token(None).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Denied`] if there is no other; [`Error::Unreachable`] with what the provider said.
    pub async fn token(&self, refused: Option<&str>) -> Result<String, Error> {
        self.inner.settings.tokens.token(refused).await
    }

    /// Where the HTTP API is: as told, or the host of the MQTT URL at port 8080.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// assert_eq!(client.http_url(), "http://127.0.0.1:8080");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn http_url(&self) -> &str {
        &self.inner.settings.http
    }

    /// Takes nothing more, waits at most so long until everything is sent and answered, says good-bye to the server and closes the store.
    /// Returns how many messages are left: they stay in the store, and the next client sends them.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// client.chat("bob").send_text("hi").await?;
    /// let left = client.close(std::time::Duration::ZERO).await;
    /// assert_eq!(left, 1); // in memory it is gone now; with a store the next client sends it
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(&self, at_most: Duration) -> usize {
        let (done, closed) = oneshot::channel();
        if self.inner.commands.send(Command::Close(at_most, done)).await.is_ok() {
            let _ = closed.await;
        }
        self.outgoing().iter().filter(|message| message.progress.borrow().failure.is_none()).count()
    }

    /// How the app wants TLS to be spoken, if it said so.
    #[cfg(feature = "http")]
    pub(crate) fn tls(&self) -> Option<Arc<rustls::ClientConfig>> {
        #[cfg(feature = "tls")]
        return self.inner.settings.tls.clone();
        #[cfg(not(feature = "tls"))]
        None
    }

    pub(crate) fn downgrade(&self) -> WeakClient {
        WeakClient(Arc::downgrade(&self.inner))
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.inner.shared.clone()
    }

    pub(crate) fn feed(&self) -> &Mutex<Feed> {
        &self.inner.shared.feed
    }

    pub(crate) fn took(&self, seq: Seq) {
        // A driver that has ended forgets it: the event comes again.
        let _ = self.inner.took.send(seq);
    }

    pub(crate) async fn transaction(&self, claim: Claim, job: Job) -> Result<(), Error> {
        self.ask(|reply| Command::Transaction { claim, job, reply }).await
    }

    pub(crate) async fn send_message(
        &self,
        id: String,
        chat: Option<String>,
        message: &Value,
    ) -> Result<OutgoingMessage, Error> {
        let payload = checked(message)?;
        self.ask(|reply| Command::Send { id: Some(id.clone()), chat, payload, reply }).await?;
        self.message(&id).ok_or(Error::Closed)
    }

    pub(crate) async fn command(&self, command: &Value) -> Result<(), Error> {
        let payload = command.to_string().into_bytes();
        self.ask(|reply| Command::Send { id: None, chat: None, payload, reply }).await
    }

    pub(crate) async fn live(&self, command: Value) -> Result<(), Error> {
        self.send_command(Command::Live(command.to_string())).await
    }

    pub(crate) async fn watch(&self, chat: String, on: bool) -> Result<(), Error> {
        self.send_command(Command::Watch(chat, on)).await
    }

    async fn send_command(&self, command: Command) -> Result<(), Error> {
        self.inner.commands.send(command).await.map_err(|_| self.end())
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<Result<(), Error>>) -> Command) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.send_command(command(reply)).await?;
        answer.await.unwrap_or_else(|_| Err(self.end()))
    }

    /// Why the driver has ended.
    fn end(&self) -> Error {
        match &*self.inner.shared.state.borrow() {
            ConnectionState::Closed(error) => error.clone(),
            _ => Error::Closed,
        }
    }
}

/// What the server would refuse is refused here.
fn checked(message: &Value) -> Result<Vec<u8>, Error> {
    let payload = message.to_string().into_bytes();
    if payload.len() > PAYLOAD_BYTES_MAX {
        let got = payload.len();
        return Err(Error::Invalid(format!("payload: expected at most {PAYLOAD_BYTES_MAX} bytes, got {got}")));
    }
    outbox::parse(&payload).map_err(|rejected| Error::Invalid(rejected.refusal.details))?;
    Ok(payload)
}
