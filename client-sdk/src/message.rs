//! A message of this user.

use natter_protocol::N;
use tokio::sync::watch;

use crate::error::Error;
use crate::progress::{Progress, Tick};

/// A message that is on the server's disk: one tick.
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
#[derive(Debug, Clone)]
pub struct OutgoingMessage {
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) progress: watch::Receiver<Progress>,
}

impl OutgoingMessage {
    /// Its id, a UUIDv7 unless the app chose one.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its chat.
    #[must_use]
    pub fn chat(&self) -> String {
        self.progress.borrow().chat.clone()
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// How far it is now.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// How far it is, and every change of it.
    #[must_use]
    pub fn ticks(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits until the server has it on its disk: one tick. Across reconnects, as long as it takes.
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
    /// # Errors
    /// As [`OutgoingMessage::sent`], and [`Error::Undelivered`].
    pub async fn delivered(&self) -> Result<(), Error> {
        self.wait(|progress| progress.tick >= Tick::Delivered).await.map(drop)
    }

    /// Waits until the recipient has read it: blue ticks.
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
