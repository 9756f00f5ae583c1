//! The mission's calls: `POST /messages` (sendMessage), `GET /messages` (getMessage), `POST /messages/ack`.

use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use natter_protocol::Seq;
use natter_protocol::error::Kind;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep_until};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Params, Whole};
use super::send::{Sent, Success, answer, send};
use super::shape::Shape;
use super::{Api, Caller, Problem, form, inline, liberal, whatsapp};
use crate::inside::{Fetch, Page};
use crate::media::kind::Declared;
use crate::news::Woken;
use crate::reader::WINDOW_ENTRIES;

/// Longest `wait` of a long poll, in seconds.
const WAIT_SECS_MAX: u64 = 60;

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(send_message, get_messages)).routes(routes!(acknowledge))
}

/// The body of sendMessage. A body of the Cloud API is taken as well: one with `messaging_product` or `to`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document; what is taken is read in `liberal`")]
struct SendMessage {
    /// Who sends: the token's user. May be left out.
    #[schema(rename = "sender_ID", example = "alice")]
    sender_id: Option<String>,
    /// Who receives. `receiver_ID` is taken as well.
    #[schema(rename = "reciever_ID", example = "bob")]
    reciever_id: String,
    /// text (also if it is left out), image, audio, video, sticker, document, location, contacts or reaction.
    #[schema(rename = "type", example = "text")]
    kind: Option<String>,
    /// The words of a text, or the caption of a picture, film or document.
    #[schema(example = "hi")]
    text: Option<String>,
    /// For image, audio, video, sticker: the media id, or an object with `id`; in multipart, the file itself.
    media_object: Option<Value>,
    /// For document: the media id, or an object with `id` and `filename`; in multipart, the file itself.
    document: Option<Value>,
    /// The sender's name for the message. Sending the same again is answered like the first time.
    #[schema(example = "m-1")]
    id: Option<String>,
}

/// The same as a form, with the file itself where a media id would stand.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document; what is taken is read in `form`")]
struct SendForm {
    #[schema(rename = "sender_ID")]
    sender_id: Option<String>,
    #[schema(rename = "reciever_ID", example = "bob")]
    reciever_id: String,
    #[schema(rename = "type")]
    kind: Option<String>,
    /// The words, or the caption.
    text: Option<String>,
    /// The file, with its name: an image, audio, a video, a sticker.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    media_object: Option<String>,
    /// The file, with its name: any.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    document: Option<String>,
    id: Option<String>,
}

/// sendMessage: answers when the message is on disk.
#[utoipa::path(
    post, path = "/messages", tag = "messages",
    params(("Idempotency-Key" = Option<String>, Header, description = "Stands for a body's `id`: a retry with the same key is safe")),
    request_body(content(
        (SendMessage = "application/json"),
        (SendForm = "multipart/form-data"),
    )),
    responses((status = 200, description = "The message is committed, now or by an earlier try", body = Sent))
)]
async fn send_message(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    if !form::is_multipart(&headers) {
        let Whole(body) = <Whole>::from_request(request, &()).await?;
        return of_parameters(&api, &caller, &headers, liberal::parse(&body)?).await;
    }
    let body = request.into_body();
    let form = form::multipart(&api.media, &caller.user, &headers, &Declared::default(), body).await?;
    inline::send(&api, &caller, &form, |body| of_parameters(&api, &caller, &headers, body)).await
}

async fn of_parameters(
    api: &Api,
    caller: &Caller,
    headers: &HeaderMap,
    body: Map<String, Value>,
) -> Result<Response, Problem> {
    if liberal::is_cloud(&body) {
        // 360dialog's second API: Cloud bodies without version and number in the path.
        return whatsapp::cloud(api, caller, headers, body).await.map_err(|problem| problem.in_shape(Shape::Cloud));
    }
    if liberal::is_mark(&body) {
        whatsapp::mark(api, caller, &body, None).await?;
        return Ok(Json(Success::YES).into_response());
    }
    let liberal::Mission { sender, draft } = liberal::mission(body)?;
    if let Some(sender) = sender {
        caller.must_be("sender_ID", &sender)?;
    }
    let (sent, n, timestamp) = send(api, caller, headers, draft).await?;
    Ok(Json(sent.natter(n, timestamp)).into_response())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct GetMessages {
    /// Whose messages: the token's user. May be left out.
    #[serde(alias = "user_Id", alias = "user_ID")]
    user_id: Option<String>,
    /// Acknowledges everything up to this `seq`: the sender gets his second tick. Without it nothing is acknowledged.
    #[param(minimum = 0)]
    after: Option<Seq>,
    /// Most entries of the answer: 1 to 100, and at most 1 MiB.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
    /// How many seconds to wait for a first entry: 0 to 60.
    #[param(minimum = 0, maximum = 60)]
    wait: Option<u64>,
}

/// What a device has not acknowledged yet.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document; entries are written as they are on the wire")]
struct Messages {
    /// Entries of the inbox, in order: messages, receipts, gaps, as a device gets them over MQTT.
    messages: Vec<Value>,
    /// What to say as `after` next time, once these are kept.
    next: Seq,
}

/// getMessage: the unread entries of the calling device (the token's, else `http`), which begins with its first call.
#[utoipa::path(
    get, path = "/messages", tag = "messages",
    params(GetMessages),
    responses((status = 200, description = "Entries, perhaps none", body = Messages))
)]
async fn get_messages(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    uri: axum::http::Uri,
    Params(query): Params<GetMessages>,
) -> Result<Response, Problem> {
    if let Some(user) = &query.user_id {
        caller.must_be("user_id", user)?;
    }
    let limit = query.limit.unwrap_or(WINDOW_ENTRIES);
    if !(1..=WINDOW_ENTRIES).contains(&limit) {
        let detail = format!("limit: expected 1 to {WINDOW_ENTRIES}, got {limit}");
        return Err(Problem::of(Kind::InvalidValue, detail));
    }
    let wait = query.wait.unwrap_or_default();
    if wait > WAIT_SECS_MAX {
        let detail = format!("wait: expected 0 to {WAIT_SECS_MAX} seconds, got {wait}");
        return Err(Problem::of(Kind::InvalidValue, detail));
    }
    // A token that ends while it waits ends the wait.
    let wait = wait.min(caller.grant.expires_at.saturating_sub(api.now()));
    let deadline = Instant::now() + Duration::from_secs(wait);
    let mut watch = api.bridge.watch(&caller.user);
    let mut after = query.after;
    loop {
        let (user, device) = (caller.user.clone(), caller.acting_device());
        let page = answer(api.bridge.fetch(Fetch { user, device, after: after.take(), limit })).await?;
        if page.entries.is_empty() && page.is_cut {
            // Rows for other devices only, so far.
            continue;
        }
        if !page.entries.is_empty() || Instant::now() >= deadline {
            return Ok(written(&page));
        }
        let woken = tokio::select! {
            woken = watch.beyond(page.newest) => Some(woken),
            () = sleep_until(deadline) => None,
        };
        if woken == Some(Woken::Nudged) {
            // Something was revoked, or the server stops.
            super::caller::identify_again(&api, &headers, &uri)?;
            return Ok(written(&page));
        }
    }
}

/// The entries are JSON already.
fn written(page: &Page) -> Response {
    let bytes: usize = page.entries.iter().map(|(_, entry)| entry.len() + 1).sum();
    let mut body = Vec::with_capacity(bytes + 64);
    body.extend_from_slice(b"{\"messages\":[");
    for (i, (_, entry)) in page.entries.iter().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        body.extend_from_slice(entry);
    }
    body.extend_from_slice(format!("],\"next\":{}}}", page.next).as_bytes());
    json(Bytes::from(body))
}

/// An answer that is JSON already.
pub(super) fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

/// An acknowledgement.
#[derive(Deserialize, ToSchema)]
struct Acknowledge {
    /// Whose inbox: the token's user. May be left out.
    #[serde(default)]
    user_id: Option<String>,
    /// Everything up to this `seq` is kept by the client.
    ack: Seq,
}

/// Acknowledges everything up to a `seq`, and asks for nothing.
#[utoipa::path(
    post, path = "/messages/ack", tag = "messages",
    request_body = Acknowledge,
    responses((status = 200, description = "The cursor is on disk", body = Success))
)]
async fn acknowledge(State(api): State<Api>, caller: Caller, Whole(body): Whole) -> Result<Json<Success>, Problem> {
    let body = Value::Object(liberal::parse(&body)?);
    let Acknowledge { user_id, ack } = serde_json::from_value(body)
        .map_err(|error| Problem::of(Kind::Malformed, format!("body: expected {{\"ack\":N}}: {error}")))?;
    if let Some(user) = &user_id {
        caller.must_be("user_id", user)?;
    }
    answer(api.bridge.ack(caller.user.clone(), caller.acting_device(), ack)).await?;
    Ok(Json(Success::YES))
}
