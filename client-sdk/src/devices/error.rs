//! What could not be done with a device.

use std::time::Duration;

use crate::http::Problem;

/// Why a device was not listed, linked or unlinked.
///
/// ```no_run
/// # async fn example(client: natter_client::Client) -> Result<(), natter_client::devices::DeviceError> {
/// use natter_client::devices::DeviceError;
///
/// match client.unlink("laptop").await {
///     Ok(()) | Err(DeviceError::NotFound(_)) => println!("it is gone"),
///     Err(DeviceError::NotAllowed(_)) => println!("ask the user for his password"),
///     Err(error) if error.is_retryable() => println!("later: {error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
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
    /// The token is not accepted, and there is no other; or it is another password.
    #[error("the server does not accept the token or the password: {0}")]
    Denied(String),
    /// The code is wrong, used, older than two minutes, or another user's: ask for a new one.
    #[error("the code is not good: {0}")]
    WrongCode(String),
    /// The token of a single device may not do that without the user's password.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// There is no such device.
    #[error("there is no such device: {0}")]
    NotFound(String),
    /// A device has that name. The code is still good, for another name.
    #[error("the name is taken: {0}")]
    Taken(String),
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

impl DeviceError {
    /// Whether the same call may succeed later.
    ///
    /// ```
    /// use natter_client::devices::DeviceError;
    ///
    /// assert!(DeviceError::Unreachable("no route".into()).is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::NotNow { .. } => true,
            Self::Invalid(_)
            | Self::Denied(_)
            | Self::WrongCode(_)
            | Self::NotAllowed(_)
            | Self::NotFound(_)
            | Self::Taken(_)
            | Self::Refused { .. }
            | Self::Protocol(_) => false,
        }
    }

    /// When the server says that another try is worth it.
    ///
    /// ```
    /// use natter_client::devices::DeviceError;
    ///
    /// assert_eq!(DeviceError::WrongCode("it is used".into()).retry_after(), None);
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::NotNow { retry_after, .. } = self { *retry_after } else { None }
    }

    pub(super) fn of(problem: Problem) -> Self {
        let is_not_now = problem.is_not_now();
        let Problem { status, code, details, retry_after } = problem;
        match status {
            401 => Self::Denied(details),
            403 => Self::NotAllowed(details),
            404 => Self::NotFound(details),
            409 => Self::Taken(details),
            _ if is_not_now => Self::NotNow { details, retry_after },
            status => Self::Refused { status, code, details },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_what_the_app_can_do_about_it() {
        let of = |status, secs: Option<u64>| {
            let retry_after = secs.map(Duration::from_secs);
            DeviceError::of(Problem { status, code: 7, details: "x".into(), retry_after })
        };
        let x = || "x".to_owned();
        assert_eq!((of(401, None), of(403, None)), (DeviceError::Denied(x()), DeviceError::NotAllowed(x())));
        assert_eq!((of(404, None), of(409, None)), (DeviceError::NotFound(x()), DeviceError::Taken(x())));
        assert_eq!(of(400, None), DeviceError::Refused { status: 400, code: 7, details: x() });
        assert_eq!(of(429, Some(60)).retry_after(), Some(Duration::from_secs(60)));
        assert!(of(503, None).is_retryable() && !of(429, None).is_retryable());
    }
}
