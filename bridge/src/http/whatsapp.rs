//! WhatsApp's calls, in the shapes of its on-premises API (`/v1/..`) and of its Cloud API (`/v{N}.{M}/..`), so that existing clients work
//! by changing a base URL. A success is exactly 200 with `application/json`: clients branch on both.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use natter_protocol::error::Kind;
use natter_protocol::{Chat, N};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Names, Whole};
use super::messages;
use super::send::{Sent, Success, answer, command, send};
use super::{Api, Caller, Problem, inline, liberal, link};

/// Most names of one question.
const CONTACTS_MAX: usize = 1000;

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(cloud_message))
        .routes(routes!(cloud_templates))
        .routes(routes!(on_premises_message))
        .routes(routes!(on_premises_read))
        .routes(routes!(whole_entry, on_premises_read_from))
        .routes(routes!(contacts))
        .routes(routes!(on_premises_templates))
}

/// A message as WhatsApp's APIs have it, or a read mark.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document; what is taken is read in `liberal`")]
struct WhatsAppMessage {
    /// `whatsapp`; may be left out.
    messaging_product: Option<String>,
    /// The user, also as a number with `+`, blanks and dashes; `g:{group}`; `status@broadcast`.
    #[schema(example = "bob")]
    to: Option<String>,
    /// text, image, audio, video, sticker, document, location, contacts or reaction.
    #[schema(rename = "type", example = "text")]
    kind: Option<String>,
    /// The object of the type. Other types have theirs, of their own name.
    text: Option<TextObject>,
    /// A reply: the `message_id` it answers.
    context: Option<Value>,
    /// The sender's name for the message: a retry with the same is safe. `Idempotency-Key` stands for it.
    id: Option<String>,
    /// `read`, for a read mark: then `message_id` is what is read, and everything before it.
    status: Option<String>,
    /// Of a read mark.
    message_id: Option<String>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
struct TextObject {
    #[schema(example = "hi")]
    body: String,
}

/// The Cloud API's send, and its read mark (with a typing hint, if it asks for one).
#[utoipa::path(
    post, path = "/v{version}/{user}/messages", tag = "Cloud API",
    params(
        ("version" = String, Path, description = "Any, as 24.0"),
        ("user" = String, Path, description = "The token's user, where the Cloud API has a phone number id"),
    ),
    request_body = WhatsAppMessage,
    responses((status = 200, description = "The message is committed, or {\"success\":true}", body = Sent))
)]
async fn cloud_message(
    State(api): State<Api>,
    caller: Caller,
    Names((version, user)): Names<(String, String)>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    must_be_version(&version)?;
    caller.must_be("user in the path", &user)?;
    cloud(&api, &caller, &headers, liberal::parse(&body)?).await
}

/// What a body of the Cloud API asks for.
pub(super) async fn cloud(
    api: &Api,
    caller: &Caller,
    headers: &HeaderMap,
    body: Map<String, Value>,
) -> Result<Response, Problem> {
    if liberal::is_mark(&body) {
        mark(api, caller, &body, None).await?;
        return Ok(Json(Success::YES).into_response());
    }
    let (sent, _, _) = send_with_links(api, caller, headers, body).await?;
    Ok(Json(sent).into_response())
}

/// Sends a message, after its `link` has been fetched, if it has one and that is allowed.
async fn send_with_links(
    api: &Api,
    caller: &Caller,
    headers: &HeaderMap,
    body: Map<String, Value>,
) -> Result<(Sent, N, u64), Problem> {
    let sending = async |body| send(api, caller, headers, liberal::whatsapp(body)?).await;
    match link::fetch(api, caller, &body).await? {
        None => sending(body).await,
        Some(file) => inline::send_file(api, caller, &file, |id| Ok(link::replaced(&body, id)), sending).await,
    }
}

/// What follows `v` in a path of the Cloud API: two numbers and a dot between.
pub(crate) fn must_be_version(version: &str) -> Result<(), Problem> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match version.split_once('.') {
        Some((major, minor)) if is_number(major) && is_number(minor) => Ok(()),
        _ => {
            let detail = format!("expected a version as v24.0 in the path, got v{version}");
            Err(Problem::new(StatusCode::NOT_FOUND, Kind::Malformed, detail))
        }
    }
}

pub(super) async fn mark(
    api: &Api,
    caller: &Caller,
    body: &Map<String, Value>,
    id: Option<&str>,
) -> Result<(), Problem> {
    let payload = liberal::mark(body, id)?;
    command(api, caller, payload).await.map_err(|problem| {
        if problem.code == Kind::Ambiguous.code() {
            // What WhatsApp says of an id that it does not know.
            return Problem::of(Kind::InvalidValue, problem.detail);
        }
        problem
    })
}

/// There are no templates; a set-up that asks for them learns that its token is good.
#[utoipa::path(
    get, path = "/v{version}/{user}/message_templates", tag = "Cloud API",
    params(("version" = String, Path), ("user" = String, Path)),
    responses((status = 200, description = "An empty list"))
)]
async fn cloud_templates(Names((version, _)): Names<(String, String)>, _: Caller) -> Result<Json<Value>, Problem> {
    must_be_version(&version)?;
    Ok(Json(json!({"data": []})))
}

/// The on-premises API's send: answers when the message is on disk. Bodies of the Cloud API are taken as well.
#[utoipa::path(
    post, path = "/v1/messages", tag = "on-premises API",
    params(("Idempotency-Key" = Option<String>, Header, description = "Stands for a body's `id`: a retry with the same key is safe")),
    request_body = WhatsAppMessage,
    responses((status = 200, description = "The message is committed", body = Sent))
)]
async fn on_premises_message(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let body = liberal::parse(&body)?;
    if liberal::is_mark(&body) {
        mark(&api, &caller, &body, None).await?;
        return Ok(Json(Success::YES).into_response());
    }
    let (sent, _, _) = send_with_links(&api, &caller, &headers, body).await?;
    Ok(Json(sent.on_premises()).into_response())
}

/// A read mark: `{"status":"read"}`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
struct ReadMark {
    #[schema(example = "read")]
    status: String,
}

/// Marks a received message as read, and everything before it in its chat.
#[utoipa::path(
    put, path = "/v1/messages/{id}", tag = "on-premises API",
    params(("id" = String, Path, description = "The message's id")),
    request_body = ReadMark,
    responses((status = 200, description = "It is marked"))
)]
async fn on_premises_read(
    State(api): State<Api>,
    caller: Caller,
    Names(id): Names<String>,
    Whole(body): Whole,
) -> Result<Json<Value>, Problem> {
    mark(&api, &caller, &liberal::parse(&body)?, Some(&id)).await?;
    Ok(Json(json!({})))
}

/// The same for an id as `{from}/{id}`, as webhooks write it.
#[utoipa::path(
    put, path = "/v1/messages/{chat}/{n}", tag = "on-premises API",
    params(("chat" = String, Path, description = "Who sent the message"), ("n" = String, Path, description = "The message's id")),
    request_body = ReadMark,
    responses((status = 200, description = "It is marked"))
)]
async fn on_premises_read_from(
    State(api): State<Api>,
    caller: Caller,
    Names((from, id)): Names<(String, String)>,
    Whole(body): Whole,
) -> Result<Json<Value>, Problem> {
    mark(&api, &caller, &liberal::parse(&body)?, Some(&format!("{from}/{id}"))).await?;
    Ok(Json(json!({})))
}

/// The whole entry behind an `unsupported` one, which a device was sent because it could not take the other.
#[utoipa::path(
    get, path = "/v1/messages/{chat}/{n}", tag = "messages",
    params(("chat" = String, Path, description = "`chat` of the entry"), ("n" = u64, Path, description = "`n` of the entry")),
    responses((status = 200, description = "The entry, without `seq` and `prev`", body = Value))
)]
async fn whole_entry(
    State(api): State<Api>,
    caller: Caller,
    Names((chat, n)): Names<(String, String)>,
) -> Result<Response, Problem> {
    let found = match (Chat::parse(&chat), n.parse::<N>()) {
        (Ok(chat), Ok(n)) => answer(api.bridge.kept(caller.user, chat, n)).await?,
        _ => None,
    };
    found.map(messages::json).ok_or_else(|| {
        let detail = "expected chat and n of an `unsupported` entry of the own inbox; there is none of these, or its time is over";
        Problem::new(StatusCode::NOT_FOUND, Kind::Malformed, detail)
    })
}

#[derive(Deserialize, ToSchema)]
struct Contacts {
    /// Names or numbers.
    contacts: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct CheckedContacts {
    contacts: Vec<CheckedContact>,
}

#[derive(Serialize, ToSchema)]
struct CheckedContact {
    input: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_id: Option<String>,
}

/// The names of contacts: how they are written in `to`. Whether there is such a user is not said, as in late versions of the original:
/// a list of numbers would be a list of users otherwise.
#[utoipa::path(
    post, path = "/v1/contacts", tag = "on-premises API",
    request_body = Contacts,
    responses((status = 200, description = "In the same order", body = CheckedContacts))
)]
async fn contacts(_: Caller, Whole(body): Whole) -> Result<Json<CheckedContacts>, Problem> {
    let body = Value::Object(liberal::parse(&body)?);
    let Contacts { contacts } = serde_json::from_value(body)
        .map_err(|error| Problem::of(Kind::Malformed, format!("contacts: expected a list of strings: {error}")))?;
    if contacts.len() > CONTACTS_MAX {
        let detail = format!("contacts: expected at most {CONTACTS_MAX}, got {}", contacts.len());
        return Err(Problem::of(Kind::InvalidValue, detail));
    }
    let checked = contacts.into_iter().map(|input| match liberal::user(&input) {
        Ok(user) => CheckedContact { input, status: "valid", wa_id: Some(user.to_string()) },
        Err(_) => CheckedContact { input, status: "invalid", wa_id: None },
    });
    Ok(Json(CheckedContacts { contacts: checked.collect() }))
}

/// There are no templates.
#[utoipa::path(
    get, path = "/v1/configs/templates", tag = "on-premises API",
    responses((status = 200, description = "An empty list"))
)]
async fn on_premises_templates(_: Caller) -> Json<Value> {
    Json(json!({"waba_templates": []}))
}
