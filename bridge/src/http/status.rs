//! Statuses over HTTP: posting one, those that are shown, who has seen one, taking one back.

use axum::Json;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use natter_protocol::error::Kind;
use natter_protocol::ids::STATUS_BROADCAST;
use natter_protocol::{MessageId, N, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Names, Params, Whole};
use super::send::{Sent, Success, answer, send};
use super::{Api, Caller, Problem, form, inline, liberal, link};
use crate::Error;
use crate::change::Tick;
use crate::media::kind::Declared;
use crate::status::ask::{Ask, Listed, Told};

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(post_status, list)).routes(routes!(take_back)).routes(routes!(viewers))
}

/// A status: a message without `to`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document; what is taken is read in `liberal`")]
struct PostStatus {
    /// text (also if it is left out), image or video.
    #[schema(rename = "type", example = "text")]
    kind: Option<String>,
    /// The object of the type, or the words alone; beside a picture or film its caption.
    #[schema(example = "at the sea")]
    text: Option<Value>,
    /// `id` of an uploaded file, and `caption`.
    image: Option<Value>,
    /// `id` of an uploaded file, and `caption`.
    video: Option<Value>,
    /// The sender's name for it. Sending the same again is answered like the first time.
    #[schema(example = "s-1")]
    id: Option<String>,
}

/// The same as a form, with the file itself.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document; what is taken is read in `form`")]
struct StatusForm {
    #[schema(rename = "type")]
    kind: Option<String>,
    /// The words, or the caption.
    text: Option<String>,
    /// The file, with its name: an image or a video.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    media_object: Option<String>,
    id: Option<String>,
}

/// Posts a status: the caller's audience sees it for a day. Answers when it is on disk.
#[utoipa::path(
    post, path = "/v1/status", tag = "status",
    params(("Idempotency-Key" = Option<String>, Header, description = "Stands for a body's `id`: a retry with the same key is safe")),
    request_body(content(
        (PostStatus = "application/json"),
        (StatusForm = "multipart/form-data"),
    )),
    responses((status = 200, description = "The status is committed, now or by an earlier try", body = Sent))
)]
async fn post_status(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    if !form::is_multipart(&headers) {
        let Whole(body) = <Whole>::from_request(request, &()).await?;
        let body = to_everybody(liberal::parse(&body)?)?;
        let sending = async |body| of_parameters(&api, &caller, &headers, body).await;
        return match link::fetch(&api, &caller, &body).await? {
            None => sending(body).await,
            Some(file) => inline::send_file(&api, &caller, &file, |id| Ok(link::replaced(&body, id)), sending).await,
        };
    }
    let form = form::multipart(&api.media, &caller.user, &headers, &Declared::default(), request.into_body()).await?;
    let sending = async |body| of_parameters(&api, &caller, &headers, to_everybody(body)?).await;
    inline::send(&api, &caller, &form, sending).await
}

/// The body with its `to`, which is no other.
fn to_everybody(mut body: Map<String, Value>) -> Result<Map<String, Value>, Problem> {
    for name in ["to", "recipient", "reciever_ID", "receiver_ID", "reciever_id", "receiver_id"] {
        if body.remove(name).is_some_and(|to| to != STATUS_BROADCAST) {
            let detail =
                format!("{name}: expected none, or {STATUS_BROADCAST}, got another: a message has /v1/messages");
            return Err(Problem::of(Kind::InvalidValue, detail));
        }
    }
    body.insert("reciever_ID".into(), Value::from(STATUS_BROADCAST));
    Ok(body)
}

async fn of_parameters(
    api: &Api,
    caller: &Caller,
    headers: &HeaderMap,
    body: Map<String, Value>,
) -> Result<Response, Problem> {
    let liberal::Mission { sender, draft } = liberal::mission(body)?;
    if let Some(sender) = sender {
        caller.must_be("sender_ID", &sender)?;
    }
    let (sent, n, timestamp) = send(api, caller, headers, draft).await?;
    Ok(Json(sent.natter(n, timestamp)).into_response())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Whose; without it, the caller's own.
    from: Option<String>,
    /// Behind this number: `next` of the answer before.
    #[param(minimum = 0)]
    after: Option<N>,
}

/// Statuses that are shown, oldest first, ten at a time.
#[derive(Serialize, ToSchema)]
struct Statuses {
    /// Entries as a device gets them, with `expires` (Unix seconds); own ones with `audience`, `delivered` and `read`: how many.
    statuses: Vec<Value>,
    /// What to say as `after`, if there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<N>,
}

/// The statuses of a user that the caller was given and that are shown, so that a new device can show them too; or the caller's own.
#[utoipa::path(
    get, path = "/v1/status", tag = "status", operation_id = "list_statuses",
    params(ListQuery),
    responses((status = 200, description = "Statuses, perhaps none", body = Statuses))
)]
async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListQuery>,
) -> Result<Json<Statuses>, Problem> {
    let from = match &query.from {
        Some(from) => liberal::user(from).map_err(|refusal| Problem::from(refusal).within("from"))?,
        None => caller.user.clone(),
    };
    let asked = Ask::List { user: caller.user, from, after: query.after.unwrap_or_default() };
    let Told::List(listed, is_cut) = answer(api.bridge.status(asked)).await? else { return Err(Error::Ended.into()) };
    let next = if is_cut { listed.last().map(|status| status.n) } else { None };
    Ok(Json(Statuses { statuses: listed.iter().map(written).collect(), next }))
}

fn written(status: &Listed) -> Value {
    let mut entry: Value = serde_json::from_slice(&status.entry).unwrap_or_default();
    if let Some(members) = entry.as_object_mut() {
        members.insert("expires".into(), Value::from(status.expires.to_string()));
        if let Some((audience, delivered, read)) = status.counts {
            for (name, count) in [("audience", audience), ("delivered", delivered), ("read", read)] {
                members.insert(name.into(), Value::from(count));
            }
        }
    }
    entry
}

/// Takes an own status back: who has not got it will not, and who has is told to take it away. Once more is as good.
#[utoipa::path(
    delete, path = "/v1/status/{id}", tag = "status",
    params(("id" = String, Path, description = "The status's id")),
    responses((status = 200, description = "It is gone, with its file if that was sent nowhere else", body = Success))
)]
async fn take_back(State(api): State<Api>, caller: Caller, Names(id): Names<String>) -> Result<Json<Success>, Problem> {
    let Ok(id) = MessageId::parse(&id) else { return Err(no_status()) };
    caller.must_still_be().map_err(Error::from)?;
    let asked = Ask::Delete { user: caller.user.clone(), device: caller.acting_device(), id };
    match answer(api.bridge.status(asked)).await? {
        Told::Deleted(true) => Ok(Json(Success::YES)),
        _ => Err(no_status()),
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ViewersQuery {
    /// Behind this name: `next` of the answer before.
    after: Option<String>,
}

/// Who has a status, in order of names, a thousand at a time.
#[derive(Serialize, ToSchema)]
struct ViewersPage {
    /// How many were given it.
    audience: usize,
    /// Those who have it.
    viewers: Vec<Viewer>,
    /// What to say as `after`, if there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Viewer {
    #[schema(example = "bob")]
    user: String,
    /// `delivered` or `read`.
    status: &'static str,
}

/// Who has got, and who has seen, an own status that is shown.
#[utoipa::path(
    get, path = "/v1/status/{id}/viewers", tag = "status",
    params(("id" = String, Path, description = "The status's id"), ViewersQuery),
    responses((status = 200, description = "Viewers, perhaps none", body = ViewersPage))
)]
async fn viewers(
    State(api): State<Api>,
    caller: Caller,
    Names(id): Names<String>,
    Params(query): Params<ViewersQuery>,
) -> Result<Json<ViewersPage>, Problem> {
    let after = match &query.after {
        Some(after) => Some(UserId::parse(after).map_err(|error| {
            Problem::of(Kind::InvalidValue, format!("after: expected {} {}", error.what, error.expected))
        })?),
        None => None,
    };
    let Ok(id) = MessageId::parse(&id) else { return Err(no_status()) };
    let asked = Ask::Viewers { user: caller.user, id, after };
    let Told::Viewers(Some(found)) = answer(api.bridge.status(asked)).await? else { return Err(no_status()) };
    let of = |(user, tick): (UserId, Tick)| Viewer {
        user: user.to_string(),
        status: match tick {
            Tick::Delivered => "delivered",
            Tick::Read => "read",
        },
    };
    Ok(Json(ViewersPage {
        audience: found.audience,
        viewers: found.viewers.into_iter().map(of).collect(),
        next: found.next.map(|user| user.to_string()),
    }))
}

fn no_status() -> Problem {
    let detail = "id: expected that of an own status; there is none of it, or its time is over";
    Problem::new(StatusCode::NOT_FOUND, Kind::InvalidValue, detail)
}
