//! What a client could not do.

use std::time::Duration;

/// What an app's own code fails with, in a token provider or a transaction.
///
/// ```
/// let error: natter_client::BoxError = "the backend is away".into();
/// ```
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a call failed. [`Error::is_retryable`] says whether trying the same again may help.
///
/// ```no_run
/// # async fn example(client: natter_client::Client) -> Result<(), natter_client::Error> {
/// match client.chat("bob").send_text("hi").await?.sent().await {
///     Ok(sent) => println!("number {}", sent.n),
///     Err(natter_client::Error::Refused { reason, details }) => println!("0x{reason:02x}: {details}"),
///     Err(other) => return Err(other),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument that the wire has no place for: a bad name, a bad URL, too much text.
    #[error("{0}")]
    Invalid(String),
    /// The server cannot be reached, or the connection broke before it was ready.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The server does not accept the token, or not for this user or device.
    #[error("the server refused the connection: {0}")]
    Denied(String),
    /// The server refused the inbox for now: another client reads it, or the user has too many devices.
    #[error("the server refused the inbox: {0}")]
    InboxRefused(String),
    /// The server refused this message or command for good.
    #[error("refused with reason 0x{reason:02x}: {details}")]
    Refused {
        /// The MQTT 5 reason code (wire.md section 4).
        reason: u8,
        /// What was expected and what came, in the server's words.
        details: String,
    },
    /// The server accepted the message and could not deliver it: its time was over, or the recipient's inbox was full for long.
    #[error("accepted and not delivered, code {code}: {details}")]
    Undelivered {
        /// The code of wire.md section 6.
        code: u32,
        /// The server's words.
        details: String,
    },
    /// The message was first tried 25 days ago and never answered: the server may have it or not, and sending it again might double it.
    #[error("first tried more than 25 days ago and never answered: it is not known whether the server has it")]
    Unconfirmed,
    /// The queue of what is to be sent is full: wait until the server has taken some of it.
    #[error("the outbox is full: expected at most {messages} messages and {bytes} bytes to wait")]
    OutboxFull {
        /// The bound on messages.
        messages: usize,
        /// The bound on bytes.
        bytes: usize,
    },
    /// The store failed, as a full disk makes it: nothing was sent.
    #[error("the store: {0}")]
    Store(String),
    /// The app's own code in a transaction failed: nothing of it is kept, and the event comes again.
    #[error("the transaction was taken back: {0}")]
    Transaction(String),
    /// Another program connected as this device and has it now. A connection that is taken over in its first minute is made again, three times
    /// in a row at most, since an attempt of this client's own may have been long under way; of two programs with one device name the newer
    /// one stays.
    #[error(
        "another program connected as this device and has it now: expected one program for each device, give each its own name"
    )]
    TakenOver,
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// The server said something that is not in wire.md.
    #[error("unexpected answer: {0}")]
    Protocol(String),
}

impl Error {
    /// Whether the same call may succeed later.
    ///
    /// ```
    /// use natter_client::Error;
    ///
    /// assert!(Error::Unreachable("no route".into()).is_retryable());
    /// assert!(!Error::Invalid("a bad name".into()).is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::InboxRefused(_)
            | Self::OutboxFull { .. }
            | Self::Store(_)
            | Self::Transaction(_) => true,
            // Inbox or rate quota: somebody may make room.
            Self::Refused { reason, .. } => *reason == 0x97,
            Self::Invalid(_)
            | Self::Denied(_)
            | Self::Undelivered { .. }
            | Self::Unconfirmed
            | Self::TakenOver
            | Self::Closed
            | Self::Protocol(_) => false,
        }
    }

    /// How long to wait before trying again, where trying again may help.
    ///
    /// ```
    /// use natter_client::Error;
    ///
    /// assert!(Error::Store("the disk is full".into()).retry_after().is_some());
    /// assert_eq!(Error::Closed.retry_after(), None);
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::InboxRefused(_) | Self::Refused { .. } => self.is_retryable().then_some(Duration::from_secs(60)),
            _ => self.is_retryable().then_some(Duration::from_secs(1)),
        }
    }

    /// Whether the token is at fault: ask the user to log in again.
    ///
    /// ```
    /// use natter_client::Error;
    ///
    /// assert!(Error::Denied("expired".into()).is_auth());
    /// ```
    #[must_use]
    pub fn is_auth(&self) -> bool {
        matches!(self, Self::Denied(_))
    }
}
