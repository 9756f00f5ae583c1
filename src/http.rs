//! The HTTP listener: the routes, and errors as `application/problem+json` (RFC 9457).

use axum::Router;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use natter_protocol::error::{Kind, NotNow};
use serde::Serialize;

use crate::websocket::{self, Gate};

const ABOUT: &str = concat!(
    "Natter ",
    env!("CARGO_PKG_VERSION"),
    ": a messenger whose wire is plain MQTT.\n",
    "\n",
    "Connect an MQTT 3.1.1 or 5 client: user name = your user, password = your token (`natter token NAME`).\n",
    "Over WebSocket, that is at /mqtt, with the subprotocol mqtt.\n",
    "Publish to users/{user}/{device}/outbox, subscribe to users/{user}/{device}/inbox, both at QoS 1.\n",
    "The docs are README.md and ARCHITECTURE.md beside the source.\n",
);

/// The routes of the public listener.
pub(crate) fn router(gate: Gate) -> Router {
    with_problems(
        Router::new().route("/", get(|| async { ABOUT })).route("/mqtt", get(websocket::mqtt).with_state(gate)),
    )
}

/// `router`, where whatever it has no answer for is a problem in JSON.
pub(crate) fn with_problems(router: Router) -> Router {
    router.fallback(no_route).method_not_allowed_fallback(no_method)
}

async fn no_route(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, Kind::Malformed, format!("there is nothing at {}", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, Kind::Malformed, format!("{} does not take {method}", uri.path()))
}

/// An answer that says what went wrong.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    code: u32,
}

impl Problem {
    /// Of that status, with the stable code of `kind`.
    pub(crate) fn new(status: StatusCode, kind: Kind, detail: String) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self { kind: "about:blank", title, status: status.as_u16(), detail, code: kind.code() }
    }

    /// "Not now": trying again later helps.
    pub(crate) fn not_now(detail: String) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { code: NotNow::CODE, ..Self::new(status, Kind::Quota, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}
