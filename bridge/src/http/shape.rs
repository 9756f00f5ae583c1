//! Errors in the words of the API that a path belongs to: Natter's own (RFC 9457), WhatsApp's Cloud API, its on-premises API.

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use natter_protocol::error::Kind;
use serde::Serialize;
use utoipa::ToSchema;

use super::Problem;
use super::send::Meta;

/// The API that a path belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Natter,
    Cloud,
    OnPremises,
}

/// Paths of the on-premises API and of 360dialog's; what is behind one of them with a `/` is too.
const ON_PREMISES: [&str; 7] =
    ["/v1/messages", "/v1/media", "/v1/contacts", "/v1/settings", "/v1/configs", "/v1/users/login", "/v1/users/logout"];

impl Shape {
    pub(super) fn of(path: &str) -> Self {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let version = first.strip_prefix('v').and_then(|version| version.split_once('.'));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if version.is_some_and(|(major, minor)| is_number(major) && is_number(minor)) {
            return Self::Cloud;
        }
        let is_on_premises = ON_PREMISES
            .iter()
            .any(|known| path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        if is_on_premises { Self::OnPremises } else { Self::Natter }
    }
}

/// The layer: a [`Problem`] that a route answers with gets the shape of the route's path.
pub(super) async fn of_the_path(request: Request, next: Next) -> Response {
    let shape = Shape::of(request.uri().path());
    let mut response = next.run(request).await;
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let (status, body) = match problem.shape.unwrap_or(shape) {
        Shape::Natter => return response,
        Shape::Cloud => {
            let (status, error) = cloud(&problem);
            (status, serde_json::to_vec(&error).unwrap_or_default())
        }
        Shape::OnPremises => {
            let (status, error) = on_premises(problem);
            (status, serde_json::to_vec(&error).unwrap_or_default())
        }
    };
    let mut headers = std::mem::take(response.headers_mut());
    headers.remove(header::CONTENT_LENGTH);
    // These clients parse nothing that does not say application/json.
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    (status, headers, body).into_response()
}

/// An error of the Cloud API.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CloudError {
    error: CloudErrorBody,
}

#[derive(Debug, Serialize, ToSchema)]
struct CloudErrorBody {
    /// `(#code) title`
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// What to branch on.
    code: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_subcode: Option<u32>,
    error_data: CloudErrorData,
    fbtrace_id: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
struct CloudErrorData {
    messaging_product: &'static str,
    /// What was expected, what came, what to do.
    details: String,
}

/// What Meta's Cloud API would say.
fn cloud(problem: &Problem) -> (StatusCode, CloudError) {
    let status = problem.status();
    let error_data = CloudErrorData { messaging_product: "whatsapp", details: problem.detail.clone() };
    let (code, fbtrace_id) = (problem.code, "");
    let is_no_object = matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
    if code == Kind::Malformed.code() && is_no_object {
        let message = format!("Unsupported request. {}", problem.detail);
        let (kind, error_subcode) = ("GraphMethodException", Some(33));
        let error = CloudErrorBody { message, kind, code, error_subcode, error_data, fbtrace_id };
        return (StatusCode::BAD_REQUEST, CloudError { error });
    }
    let (title, status) = match code {
        10 => ("Permission denied", status),
        100 => ("Invalid parameter", status),
        190 => ("Access token has expired", status),
        130_429 => ("Rate limit hit", status),
        131_000 => ("Something went wrong", status),
        131_009 => ("Parameter value is not valid", status),
        131_026 => ("Message undeliverable", StatusCode::BAD_REQUEST),
        131_051 => ("Unsupported message type", status),
        131_052 => ("Media download error", StatusCode::BAD_REQUEST),
        1409 => ("Id used for another message", status),
        1410 => ("Ambiguous reference", status),
        _ => ("Error", status),
    };
    let message = format!("(#{code}) {title}");
    let error = CloudErrorBody { message, kind: "OAuthException", code, error_subcode: None, error_data, fbtrace_id };
    (status, CloudError { error })
}

/// An error of the on-premises API, beside the members of our own problem.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OnPremisesError {
    #[serde(flatten)]
    problem: Problem,
    /// One.
    errors: Vec<OnPremisesErrorBody>,
    meta: Meta,
}

#[derive(Debug, Serialize, ToSchema)]
struct OnPremisesErrorBody {
    /// The on-premises API's own.
    code: u32,
    title: &'static str,
    details: String,
}

/// What the on-premises API would say.
fn on_premises(problem: Problem) -> (StatusCode, OnPremisesError) {
    let (code, title) = match problem.code {
        100 if problem.status == 404 => (1006, "Resource not found"),
        100 => (1008, "Required parameter is missing"),
        10 | 190 => (1005, "Access denied"),
        130_429 => (1015, "Too many requests"),
        131_000 => (1016, "System overloaded"),
        131_026 => (1013, "User is not valid"),
        131_052 => (1006, "Resource not found"),
        1409 => (1004, "Resource already exists"),
        _ => (1009, "Parameter value is not valid"),
    };
    let errors = vec![OnPremisesErrorBody { code, title, details: problem.detail.clone() }];
    (problem.status(), OnPremisesError { problem, errors, meta: Meta::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_whose_words_it_speaks() {
        for path in ["/v24.0/15550001/messages", "/v1.0/x", "/v13.0/"] {
            assert_eq!(Shape::of(path), Shape::Cloud, "{path}");
        }
        for path in ["/v1/messages", "/v1/messages/bob/m1", "/v1/media/1", "/v1/users/login"] {
            assert_eq!(Shape::of(path), Shape::OnPremises, "{path}");
        }
        for path in ["/", "/messages", "/v1", "/v1/users", "/v1/messagesx", "/v1.x/a", "/v.0/a", "/mqtt"] {
            assert_eq!(Shape::of(path), Shape::Natter, "{path}");
        }
    }
}
