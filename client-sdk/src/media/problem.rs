//! An answer that is no success: `application/problem+json` (RFC 9457), or whatever a proxy says in its place. Pure.

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;

use super::{DOCUMENT_BYTES_MAX, MediaError};

/// Most of a stranger's answer that is shown.
const DETAILS_CHARS_MAX: usize = 300;

/// What was said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    code: u64,
    details: String,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    detail: String,
    #[serde(default)]
    code: u64,
}

impl Problem {
    pub(super) fn read(status: StatusCode, body: &[u8]) -> Self {
        let (code, details) = match serde_json::from_slice::<Body>(body) {
            Ok(Body { detail, code }) if !detail.is_empty() => (code, detail),
            _ => (0, status.canonical_reason().unwrap_or("no reason").to_owned()),
        };
        Self { status, code, details: details.chars().take(DETAILS_CHARS_MAX).collect() }
    }

    pub(super) fn into_error(self, retry_after: Option<Duration>) -> MediaError {
        let Self { status, code, details } = self;
        match status.as_u16() {
            401 => MediaError::Unauthorized(details),
            404 => MediaError::NotFound(details),
            413 => MediaError::TooLarge { max: DOCUMENT_BYTES_MAX, details },
            // A quota of files is 429 without a time: waiting does not help, deleting does.
            429 if retry_after.is_none() => MediaError::Refused { status: 429, code, details },
            408 | 429 | 500 | 502 | 503 | 504 => MediaError::NotNow { details, retry_after },
            status => MediaError::Refused { status, code, details },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, body: &str, after: Option<u64>) -> MediaError {
        let status = StatusCode::from_u16(status).expect("a status");
        Problem::read(status, body.as_bytes()).into_error(after.map(Duration::from_secs))
    }

    #[test]
    fn the_servers_words_and_codes_are_kept() {
        let body = r#"{"type":"about:blank","title":"Bad Request","status":400,"detail":"expected a file","code":100}"#;
        match error(400, body, None) {
            MediaError::Refused { status: 400, code: 100, details } => assert_eq!(details, "expected a file"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(error(404, "", None), MediaError::NotFound(_)));
        assert!(error(401, "", None).is_auth());
    }

    #[test]
    fn not_now_is_retryable_and_a_quota_is_not() {
        let busy = error(503, "", Some(7));
        assert!(busy.is_retryable() && busy.retry_after() == Some(Duration::from_secs(7)));
        assert!(error(502, "<html>proxy</html>", None).is_retryable());
        assert!(error(429, "", Some(1)).is_retryable() && !error(429, "", None).is_retryable());
    }
}
