//! A message of this user.

use natter_protocol::N;
use tokio::sync::watch;

use crate::error::Error;
use crate::progress::{Progress, Tick};

/// A message that is on the server's disk: one tick.
///
/// ```no_run
/// # async fn example(client: natter_client::Client) -> Result<(), natter_client::Error> {
/// let sent = client.chat("bob").send_text("hi").await?.sent().await?;
/// println!("number {} at {}", sent.n, sent.timestamp);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub id: String,
    /// Its number in the chat.
    pub n: N,
    /// Unix seconds of the commit.
    pub timestamp: u64,
}

/// A message that this device sends or sent. Cheap to clone; [`crate::Client::message`] finds it again by its id, after a restart too.
///
/// ```no_run
/// # async fn example(client: natter_client::Client) -> Result<(), natter_client::Error> {
/// let message = client.chat("bob").send_text("hi").await?;
/// message.sent().await?; // one tick
/// message.delivered().await?; // two
/// message.read().await?; // blue
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct OutgoingMessage {
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) progress: watch::Receiver<Progress>,
}

impl OutgoingMessage {
    /// Its id, a UUIDv7 unless the app chose one.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// let message = client.chat("bob").send_text("hi").await?;
    /// assert!(client.message(message.id()).is_some());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its chat.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// assert_eq!(client.chat("bob").send_text("hi").await?.chat(), "bob");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn chat(&self) -> String {
        self.progress.borrow().chat.clone()
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// How far it is now.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// # let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("t").start().await?;
    /// let message = client.chat("bob").send_text("hi").await?;
    /// assert_eq!(message.progress().tick, natter_client::Tick::Queued);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// How far it is, and every change of it.
    ///
    /// ```no_run
    /// # async fn example(message: natter_client::OutgoingMessage) -> Result<(), natter_client::Error> {
    /// let mut ticks = message.ticks();
    /// while ticks.changed().await.is_ok() {
    ///     println!("{:?}", ticks.borrow_and_update().tick);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn ticks(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits until the server has it on its disk: one tick. Across reconnects, as long as it takes.
    ///
    /// ```no_run
    /// # async fn example(message: natter_client::OutgoingMessage) -> Result<(), natter_client::Error> {
    /// match message.sent().await {
    ///     Ok(sent) => println!("number {}", sent.n),
    ///     Err(error) => println!("refused: {error}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unconfirmed`]; [`Error::Closed`] if the client ends before: the message stays in the store and is sent by
    /// the next client.
    pub async fn sent(&self) -> Result<Sent, Error> {
        let progress = self.wait(|progress| progress.sent.is_some()).await?;
        let (n, timestamp) = progress.sent.unwrap_or_default();
        Ok(Sent { id: self.id.clone(), n, timestamp })
    }

    /// Waits until a device of the recipient has it: two ticks.
    ///
    /// ```no_run
    /// # async fn example(message: natter_client::OutgoingMessage) -> Result<(), natter_client::Error> {
    /// message.delivered().await?;
    /// println!("two ticks");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`OutgoingMessage::sent`], and [`Error::Undelivered`].
    pub async fn delivered(&self) -> Result<(), Error> {
        self.wait(|progress| progress.tick >= Tick::Delivered).await.map(drop)
    }

    /// Waits until the recipient has read it: blue ticks.
    ///
    /// ```no_run
    /// # async fn example(message: natter_client::OutgoingMessage) -> Result<(), natter_client::Error> {
    /// message.read().await?;
    /// println!("blue ticks");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`OutgoingMessage::delivered`].
    pub async fn read(&self) -> Result<(), Error> {
        self.wait(|progress| progress.tick >= Tick::Read).await.map(drop)
    }

    async fn wait(&self, reached: impl Fn(&Progress) -> bool) -> Result<Progress, Error> {
        let mut progress = self.progress.clone();
        let end = progress.wait_for(|progress| reached(progress) || progress.failure.is_some()).await;
        let end = end.map_err(|_| Error::Closed)?.clone();
        match &end.failure {
            Some(failure) if !reached(&end) => Err(failure.clone()),
            _ => Ok(end),
        }
    }
}
