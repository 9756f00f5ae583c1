//! What could not be asked of a group.

use std::time::Duration;

use crate::http::{HttpError, Problem};

/// Why nothing was told of a group.
///
/// ```no_run
/// # async fn example(client: natter_client::Client) -> Result<(), natter_client::groups::GroupError> {
/// use natter_client::groups::GroupError;
///
/// match client.group("g:0191f0a2c3d4e5f6").info().await {
///     Ok(info) => println!("{} members", info.members.len()),
///     Err(GroupError::NotFound(_)) => println!("not a group of this user"),
///     Err(error) if error.is_retryable() => println!("later: {error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// An argument that cannot be: a bad URL, a name that is none.
    #[error("{0}")]
    Invalid(String),
    /// The server was not there, or the connection broke. Whether it has done what was asked is not known.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The server says "not now": it is busy, or this was asked too often.
    #[error("not now: {details}")]
    NotNow {
        /// The server's words.
        details: String,
        /// When it says that another try is worth it.
        retry_after: Option<Duration>,
    },
    /// The token is not accepted, and there is no other.
    #[error("the server does not accept the token: {0}")]
    Denied(String),
    /// It is for an admin, or for the sender of the message.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// There is no such group, or this user is not in it, or there is no such message or invite link.
    #[error("there is no such group: {0}")]
    NotFound(String),
    /// The server refused it for good.
    #[error("refused with {status}, code {code}: {details}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The stable code of wire.md section 6; 0 if the answer had none.
        code: u64,
        /// What was expected and what came, in the server's words.
        details: String,
    },
    /// The server said something that it should not.
    #[error("unexpected answer: {0}")]
    Protocol(String),
}

impl GroupError {
    /// Whether the same call may succeed later.
    ///
    /// ```
    /// use natter_client::groups::GroupError;
    ///
    /// assert!(GroupError::Unreachable("no route".into()).is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::NotNow { .. } => true,
            Self::Invalid(_)
            | Self::Denied(_)
            | Self::NotAllowed(_)
            | Self::NotFound(_)
            | Self::Refused { .. }
            | Self::Protocol(_) => false,
        }
    }
}

impl From<HttpError> for GroupError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Invalid(details) => Self::Invalid(details),
            HttpError::Unreachable(details) => Self::Unreachable(details),
            HttpError::Refused(problem) => {
                let is_not_now = problem.is_not_now();
                let Problem { status, code, details, retry_after } = problem;
                match status {
                    401 => Self::Denied(details),
                    403 => Self::NotAllowed(details),
                    404 => Self::NotFound(details),
                    _ if is_not_now => Self::NotNow { details, retry_after },
                    status => Self::Refused { status, code, details },
                }
            }
        }
    }
}
