//! What could not be done with a file.

use std::time::Duration;

use super::DOCUMENT_BYTES_MAX;
use crate::http::HttpError;

/// Why an up- or download ended. What helps against broken connections and servers that are busy was tried already.
///
/// ```no_run
/// # async fn example(media: natter_client::media::Media) -> Result<(), natter_client::media::MediaError> {
/// use natter_client::media::MediaError;
///
/// match media.upload("film.mp4").await {
///     Ok(file) => println!("{}", file.id),
///     Err(error @ MediaError::TooLarge { .. }) => println!("{error}"),
///     Err(error) if error.is_retryable() => println!("later: {error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// An argument that cannot be: a bad URL, a name that is too long.
    #[error("{0}")]
    Invalid(String),
    /// The server was not there, or the connection broke, again and again without a byte of progress.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The server says "not now": its disk is full, it is busy, or this user does too much.
    #[error("not now: {details}")]
    NotNow {
        /// The server's words.
        details: String,
        /// When it says that another try is worth it.
        retry_after: Option<Duration>,
    },
    /// The token is not accepted, and there is no other.
    #[error("the server does not accept the token: {0}")]
    Unauthorized(String),
    /// There is no such file, or it is not for this user.
    #[error("there is no such file for this user: {0}")]
    NotFound(String),
    /// The file is larger than its kind may be.
    #[error("expected at most {max} bytes for this kind, got more: {details}")]
    TooLarge {
        /// Most bytes of the kind.
        max: u64,
        /// Of what, or the server's words.
        details: String,
    },
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
    /// The bytes are not those that the server has: their SHA-256 differs. What was downloaded is thrown away.
    #[error("expected bytes with the SHA-256 {expected}, got {got}")]
    Corrupt {
        /// As the server or the message says.
        expected: String,
        /// Of the bytes that came, or of those that were sent.
        got: String,
    },
    /// Another download of the same file to the same path runs.
    #[error("another download of this file to {0} runs")]
    Busy(String),
    /// The local file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The server said something that it should not.
    #[error("unexpected answer: {0}")]
    Protocol(String),
}

impl MediaError {
    /// Whether the same call may succeed later.
    ///
    /// ```
    /// use natter_client::media::MediaError;
    ///
    /// assert!(MediaError::Unreachable("no route".into()).is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::NotNow { .. } | Self::Corrupt { .. } | Self::Busy(_) => true,
            Self::Invalid(_)
            | Self::Unauthorized(_)
            | Self::NotFound(_)
            | Self::TooLarge { .. }
            | Self::Refused { .. }
            | Self::Io { .. }
            | Self::Protocol(_) => false,
        }
    }

    /// When the server says that another try is worth it.
    ///
    /// ```
    /// use natter_client::media::MediaError;
    ///
    /// assert_eq!(MediaError::Invalid("a bad URL".into()).retry_after(), None);
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::NotNow { retry_after, .. } = self { *retry_after } else { None }
    }

    /// Whether another token is needed.
    ///
    /// ```
    /// use natter_client::media::MediaError;
    ///
    /// assert!(!MediaError::Invalid("a bad URL".into()).is_auth());
    /// ```
    #[must_use]
    pub fn is_auth(&self) -> bool {
        matches!(self, Self::Unauthorized(_))
    }

    pub(super) fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io { path: path.display().to_string(), source }
    }
}

impl From<HttpError> for MediaError {
    fn from(error: HttpError) -> Self {
        let problem = match error {
            HttpError::Invalid(details) => return Self::Invalid(details),
            HttpError::Unreachable(details) => return Self::Unreachable(details),
            HttpError::Refused(problem) => problem,
        };
        let is_not_now = problem.is_not_now();
        let crate::http::Problem { status, code, details, retry_after } = problem;
        match status {
            401 => Self::Unauthorized(details),
            404 => Self::NotFound(details),
            413 => Self::TooLarge { max: DOCUMENT_BYTES_MAX, details },
            _ if is_not_now => Self::NotNow { details, retry_after },
            status => Self::Refused { status, code, details },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Problem;

    #[test]
    fn a_refusal_says_whether_to_try_again_or_to_log_in_again() {
        let error = |status, secs: Option<u64>| {
            let retry_after = secs.map(Duration::from_secs);
            MediaError::from(HttpError::Refused(Problem { status, code: 7, details: "x".into(), retry_after }))
        };
        assert!(matches!(error(404, None), MediaError::NotFound(_)) && error(401, None).is_auth());
        assert!(matches!(error(400, None), MediaError::Refused { status: 400, code: 7, .. }));
        assert_eq!(error(503, Some(7)).retry_after(), Some(Duration::from_secs(7)));
        assert!(error(429, Some(1)).is_retryable() && !error(429, None).is_retryable());
    }
}
