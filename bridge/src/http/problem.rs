//! An error: `application/problem+json` (RFC 9457) with a stable code (wire.md section 6).

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use natter_protocol::error::{Kind, NotNow, Refusal};
use serde::Serialize;
use utoipa::ToSchema;

use super::shape::Shape;
use crate::Error;

/// After how many seconds a "not now" is worth another try.
const RETRY_AFTER_SECS: u64 = 1;

/// An answer that says what went wrong, what was expected and what to do.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// `about:blank`: the status and the code say it all.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What the status means.
    title: &'static str,
    /// The HTTP status.
    pub(super) status: u16,
    /// What was expected, what came, what to do.
    pub(super) detail: String,
    /// The stable code, the same in MQTT and in the Cloud API.
    pub(super) code: u32,
    /// The id that was used for another message.
    #[serde(skip_serializing_if = "Option::is_none")]
    conflicts_with: Option<String>,
    #[serde(skip)]
    retry_after: Option<u64>,
    /// Set where the path alone does not say whose words to use.
    #[serde(skip)]
    pub(super) shape: Option<Shape>,
}

impl Problem {
    /// Of that status, with the stable code of `kind`.
    #[must_use]
    pub fn new(status: StatusCode, kind: Kind, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            detail: detail.into(),
            code: kind.code(),
            conflicts_with: None,
            retry_after: None,
            shape: None,
        }
    }

    /// Of the status that `kind` has in wire.md section 4.
    #[must_use]
    pub fn of(kind: Kind, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
        Self::new(status, kind, detail)
    }

    /// "Not now": trying again later helps.
    #[must_use]
    pub fn not_now(detail: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let code = NotNow::CODE;
        Self { code, retry_after: Some(RETRY_AFTER_SECS), ..Self::new(status, Kind::Quota, detail) }
    }

    /// Says first which parameter it speaks of.
    #[must_use]
    pub fn within(self, parameter: &str) -> Self {
        Self { detail: format!("{parameter}: {}", self.detail), ..self }
    }

    /// Adds `Retry-After`.
    #[must_use]
    pub fn retry_after(self, secs: u64) -> Self {
        Self { retry_after: Some(secs), ..self }
    }

    /// In the words of that API, whatever the path.
    pub(super) fn in_shape(self, shape: Shape) -> Self {
        Self { shape: Some(shape), ..self }
    }

    /// Whether it has the code and the status of `kind`.
    pub(super) fn is(&self, kind: Kind) -> bool {
        (self.code, self.status) == (kind.code(), kind.http_status())
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let conflicts_with = refusal.conflicts_with.as_ref().map(ToString::to_string);
        Self { conflicts_with, ..Self::of(refusal.kind, refusal.details) }
    }
}

impl From<NotNow> for Problem {
    fn from(why: NotNow) -> Self {
        let status = StatusCode::from_u16(why.http_status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let title = status.canonical_reason().unwrap_or("Error");
        Self { status: status.as_u16(), title, ..Self::not_now(why.to_string()) }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::NotNow(why) => why.into(),
            Error::Refused(refusal) => refusal.into(),
            // The process is about to end; its next start may answer.
            other => {
                tracing::warn!(error = %other, "HTTP: the bridge did not answer");
                NotNow::Unavailable.into()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.status(), [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        let headers = response.headers_mut();
        if let Some(secs) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // For the shape of its path.
        response.extensions_mut().insert(self);
        response
    }
}

pub(super) async fn no_route(uri: Uri) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        Kind::Malformed,
        format!("there is nothing at {}; /openapi.json has the routes", uri.path()),
    )
}

pub(super) async fn no_method(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, Kind::Malformed, format!("{} does not take {method}", uri.path()))
}
