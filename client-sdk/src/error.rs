//! What a client could not do.

/// Why a call failed. [`Error::is_retryable`] says whether trying the same again may help.
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
    /// Another connection with the same client id took over.
    #[error("another client took this device over")]
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
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::InboxRefused(_) => true,
            // Inbox or rate quota: somebody may make room.
            Self::Refused { reason, .. } => *reason == 0x97,
            Self::Invalid(_) | Self::Denied(_) | Self::TakenOver | Self::Closed | Self::Protocol(_) => false,
        }
    }
}
