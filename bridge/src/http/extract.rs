//! What routes take out of a request; whatever is wrong with it is a [`Problem`] that says so.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use natter_protocol::MessageId;
use natter_protocol::error::Kind;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::{BODY_BYTES_MAX, Problem};

/// How long a body may take to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);
/// The header by which a retry says what it repeats.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Longest value of it, in bytes.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The query, as `T`.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => Err(Problem::of(Kind::Malformed, format!("query: {}", rejection.body_text()))),
        }
    }
}

/// The names in the path, as `T`.
#[derive(Debug)]
pub struct Names<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Names<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(names)) => Ok(Self(names)),
            Err(rejection) => Err(Problem::of(Kind::Malformed, format!("path: {}", rejection.body_text()))),
        }
    }
}

/// A whole body of at most `BYTES_MAX`, which has 30 seconds to arrive.
#[derive(Debug)]
pub struct Whole<const BYTES_MAX: usize = BODY_BYTES_MAX>(pub Bytes);

impl<S: Send + Sync, const BYTES_MAX: usize> FromRequest<S> for Whole<BYTES_MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let declared = request.headers().get(axum::http::header::CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|length| length > BYTES_MAX) {
            return Err(too_large(BYTES_MAX));
        }
        match timeout(BODY_TIME_MAX, to_bytes(request.into_body(), BYTES_MAX)).await {
            Ok(Ok(bytes)) => Ok(Self(bytes)),
            Ok(Err(error)) if is_over_limit(&error) => Err(too_large(BYTES_MAX)),
            Ok(Err(_)) => Err(Problem::of(Kind::Malformed, "body: expected as much as was declared, got less")),
            Err(_) => {
                let detail = format!("body: expected all of it within {} s", BODY_TIME_MAX.as_secs());
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, Kind::Malformed, detail))
            }
        }
    }
}

fn is_over_limit(error: &axum::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.to_string().contains("length limit exceeded") {
            return true;
        }
        source = error.source();
    }
    false
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::of(Kind::TooLarge, format!("body: expected at most {bytes_max} bytes, got more"))
}

/// The id that `Idempotency-Key` stands for, if it is there: the key itself where it can be an id, else its hash.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<MessageId>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let bytes = value.as_bytes();
    // The draft standard has it in quotes, as a structured field.
    let bytes = bytes.strip_prefix(b"\"").and_then(|bytes| bytes.strip_suffix(b"\"")).unwrap_or(bytes);
    if bytes.is_empty() || bytes.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        let detail = format!("Idempotency-Key: expected 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes, got {}", bytes.len());
        return Err(Problem::of(Kind::InvalidValue, detail));
    }
    let as_it_is = std::str::from_utf8(bytes).ok().and_then(|text| MessageId::parse(text).ok());
    Ok(Some(as_it_is.unwrap_or_else(|| {
        let digest = Sha256::digest(bytes);
        let half: [u8; 16] = std::array::from_fn(|i| digest[i]);
        MessageId::from_stamp(u128::from_be_bytes(half))
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(key: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, key.parse().unwrap());
        idempotency_key(&headers).ok()?.map(|id| id.to_string())
    }

    #[test]
    fn a_key_that_can_be_an_id_is_the_id_and_any_other_makes_one() {
        assert_eq!(id("8e03978e-40d5").as_deref(), Some("8e03978e-40d5"));
        assert_eq!(id("\"8e03978e-40d5\"").as_deref(), Some("8e03978e-40d5"));
        let hashed = id("order 42/7").unwrap();
        assert_eq!((hashed.len(), id("order 42/7").unwrap() == hashed), (36, true));
        assert_ne!(id("order 42/8").unwrap(), hashed);
        assert_eq!(id(&"k".repeat(255)).unwrap().len(), 36);
        for bad in ["", "\"\"", &"k".repeat(256)] {
            assert_eq!(id(bad), None, "{bad:?}");
        }
    }
}
