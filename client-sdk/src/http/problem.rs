//! An answer that is no success: `application/problem+json` (RFC 9457), or whatever a proxy says in its place. Pure.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{self, HeaderName};
use hyper::http::response::Parts;
use serde::Deserialize;

/// Most of a stranger's answer that is shown.
const DETAILS_CHARS_MAX: usize = 300;

/// What was said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    /// Of wire.md section 6; 0 if the answer had none.
    pub(crate) code: u64,
    /// The server's words.
    pub(crate) details: String,
    /// When it says that another try is worth it.
    pub(crate) retry_after: Option<Duration>,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    detail: String,
    #[serde(default)]
    code: u64,
}

impl Problem {
    /// Of an answer's head and body.
    pub(crate) fn of(head: &Parts, body: &[u8]) -> Self {
        let text = |name: HeaderName| head.headers.get(name).and_then(|v| v.to_str().ok());
        let after = text(header::RETRY_AFTER).and_then(|secs| secs.parse().ok()).map(Duration::from_secs);
        Self::read(head.status, body, after)
    }

    fn read(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> Self {
        let (code, details) = match serde_json::from_slice::<Body>(body) {
            Ok(Body { detail, code }) if !detail.is_empty() => (code, detail),
            _ => (0, status.canonical_reason().unwrap_or("no reason").to_owned()),
        };
        let details = details.chars().take(DETAILS_CHARS_MAX).collect();
        Self { status: status.as_u16(), code, details, retry_after }
    }

    /// Whether the same may succeed later.
    pub(crate) fn is_not_now(&self) -> bool {
        // A quota is 429 without a time: waiting does not help, deleting does.
        matches!(self.status, 408 | 500 | 502 | 503 | 504) || self.status == 429 && self.retry_after.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, body: &str, after: Option<u64>) -> Problem {
        let status = StatusCode::from_u16(status).expect("a status");
        Problem::read(status, body.as_bytes(), after.map(Duration::from_secs))
    }

    #[test]
    fn the_servers_words_and_codes_are_kept() {
        let body = r#"{"type":"about:blank","title":"Bad Request","status":400,"detail":"expected a file","code":100}"#;
        let expected = Problem { status: 400, code: 100, details: "expected a file".into(), retry_after: None };
        assert_eq!(problem(400, body, None), expected);
        let proxy = problem(502, "<html>proxy</html>", None);
        assert_eq!((proxy.code, proxy.details.as_str()), (0, "Bad Gateway"));
    }

    #[test]
    fn not_now_is_said_with_a_status_or_a_time() {
        assert!(problem(503, "", Some(7)).is_not_now() && problem(502, "", None).is_not_now());
        assert!(problem(429, "", Some(1)).is_not_now() && !problem(429, "", None).is_not_now());
        assert!(!problem(404, "", Some(1)).is_not_now());
    }
}
