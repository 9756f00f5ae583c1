//! Errors in the words of the API that a path belongs to: Natter's own (RFC 9457), WhatsApp's Cloud API, its on-premises API.

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::Problem;

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
        Shape::Cloud => cloud(&problem),
        Shape::OnPremises => on_premises(&problem),
    };
    let mut headers = std::mem::take(response.headers_mut());
    headers.remove(header::CONTENT_LENGTH);
    // These clients parse nothing that does not say application/json.
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    (status, headers, body.to_string()).into_response()
}

/// What Meta's Cloud API would say.
fn cloud(problem: &Problem) -> (StatusCode, Value) {
    let status = problem.status();
    if problem.code == 100 && matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
        let message = format!("Unsupported request. {}", problem.detail);
        let error = json!({"message": message, "type": "GraphMethodException", "code": 100, "error_subcode": 33,
            "error_data": {"messaging_product": "whatsapp", "details": problem.detail}, "fbtrace_id": ""});
        return (StatusCode::BAD_REQUEST, json!({ "error": error }));
    }
    let (title, status) = match problem.code {
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
    let message = format!("(#{}) {title}", problem.code);
    let error = json!({"message": message, "type": "OAuthException", "code": problem.code,
        "error_data": {"messaging_product": "whatsapp", "details": problem.detail}, "fbtrace_id": ""});
    (status, json!({ "error": error }))
}

/// What the on-premises API would say, beside the members of our own problem.
fn on_premises(problem: &Problem) -> (StatusCode, Value) {
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
    let mut body = serde_json::to_value(problem).unwrap_or_default();
    body["errors"] = json!([{"code": code, "title": title, "details": problem.detail}]);
    body["meta"] = json!({"api_status": "stable", "version": env!("CARGO_PKG_VERSION")});
    (problem.status(), body)
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
