//! Registration of webhooks: Natter's own route, and the calls of WhatsApp's Cloud API.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use natter_protocol::error::Kind;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{TEXT_BYTES_MAX, Webhooks};
use crate::Error;
use crate::http::{Caller, Problem, Whole, must_be_version};

/// A webhook as it is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The callback: it must answer the challenge of a GET (`hub.mode`, `hub.challenge`, `hub.verify_token`) at once.
    url: String,
    /// What `hub.verify_token` says to it.
    #[serde(default)]
    verify_token: String,
    /// The key of `X-Hub-Signature-256`; one is made, and answered once, if there is none.
    secret: Option<String>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AskedSecret {
    /// The new key; one is made if it is left out.
    secret: Option<String>,
}

/// A webhook as it is.
#[derive(Debug, Serialize, ToSchema)]
struct Shown {
    /// The callback.
    url: String,
    /// The key of the signatures, only when it was made by this call.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// Why the last POST was not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// Since when it has been so, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_since: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Success {
    success: bool,
}

const SUCCESS: Json<Success> = Json(Success { success: true });

/// The Cloud API's words: on a number, `webhook_configuration` around them.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct Override {
    /// The callback; empty or left out: none any more.
    override_callback_uri: Option<String>,
    /// What `hub.verify_token` says to it.
    verify_token: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct Configuration {
    webhook_configuration: Override,
}

fn parse<T: DeserializeOwned>(body: &Bytes, expected: &str) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let detail = format!("body: expected {expected}, got something else at line {line}, column {column}");
        Problem::of(Kind::Malformed, detail)
    })
}

/// A webhook gets everything of its user: no token of a single device decides about it.
fn must_be_the_user(caller: &Caller) -> Result<(), Problem> {
    match &caller.device {
        None => Ok(()),
        Some(device) => Err(Problem::of(
            Kind::NotAllowed,
            format!("expected a token for every device of {}, got one for {device} alone", caller.user),
        )),
    }
}

fn check_secret(secret: Option<&str>) -> Result<(), Problem> {
    match secret {
        Some(secret) if secret.is_empty() || secret.len() > TEXT_BYTES_MAX => {
            let detail = format!("secret: expected 1 to {TEXT_BYTES_MAX} bytes, got {}", secret.len());
            Err(Problem::of(Kind::InvalidValue, detail))
        }
        _ => Ok(()),
    }
}

fn no_webhook(caller: &Caller) -> Problem {
    let detail = format!("{} has no webhook; PUT /v1/webhook makes one", caller.user);
    Problem::new(StatusCode::NOT_FOUND, Kind::Malformed, detail)
}

/// Posts what the caller gets to a URL from now on: `messages` and `statuses` as the Cloud API has them, one a POST, signed.
#[utoipa::path(put, path = "/v1/webhook", operation_id = "put_webhook", tag = "webhooks", request_body = Asked,
    responses((status = 200, body = Shown), (status = 400, body = Problem), (status = 403, body = Problem)))]
async fn put(State(webhooks): State<Webhooks>, caller: Caller, Whole(body): Whole) -> Result<Json<Shown>, Problem> {
    must_be_the_user(&caller)?;
    let Asked { url, verify_token, secret } = parse(&body, r#"{"url":"..","verify_token":"..","secret":".."}"#)?;
    check_secret(secret.as_deref())?;
    let (webhook, is_new) = webhooks.set(&caller.user, url, verify_token, secret, || caller.must_still_be()).await?;
    let secret = is_new.then_some(webhook.secret.0);
    Ok(Json(Shown { url: webhook.url, secret, last_error: None, failing_since: None }))
}

/// The caller's webhook, and how it is doing.
#[utoipa::path(get, path = "/v1/webhook", operation_id = "get_webhook", tag = "webhooks", responses((status = 200, body = Shown), (status = 404, body = Problem)))]
async fn get(State(webhooks): State<Webhooks>, caller: Caller) -> Result<Json<Shown>, Problem> {
    let webhook = webhooks.of(&caller.user).await?.ok_or_else(|| no_webhook(&caller))?;
    let health = webhooks.health(&caller.user).unwrap_or_default();
    let (last_error, failing_since) = (health.last_error, health.failing_since);
    Ok(Json(Shown { url: webhook.url, secret: None, last_error, failing_since }))
}

/// Takes the caller's webhook away, with the device that it is.
#[utoipa::path(delete, path = "/v1/webhook", operation_id = "delete_webhook", tag = "webhooks", responses((status = 200, body = Success), (status = 403, body = Problem)))]
async fn delete(State(webhooks): State<Webhooks>, caller: Caller) -> Result<Json<Success>, Problem> {
    must_be_the_user(&caller)?;
    webhooks.remove(&caller.user).await?;
    Ok(SUCCESS)
}

/// Another key for the signatures: what is registered by the Cloud API's call has one that nobody was told.
#[utoipa::path(put, path = "/v1/webhook/secret", operation_id = "put_webhook_secret", tag = "webhooks", request_body(content = Option<AskedSecret>),
    responses((status = 200, body = Shown), (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn put_secret(
    State(webhooks): State<Webhooks>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Json<Shown>, Problem> {
    must_be_the_user(&caller)?;
    let asked: AskedSecret = if body.is_empty() { AskedSecret::default() } else { parse(&body, r#"{"secret":".."}"#)? };
    check_secret(asked.secret.as_deref())?;
    caller.must_still_be().map_err(Error::from)?;
    let is_made = asked.secret.is_none();
    let webhook = webhooks.set_secret(&caller.user, asked.secret).await?.ok_or_else(|| no_webhook(&caller))?;
    let secret = is_made.then_some(webhook.secret.0);
    Ok(Json(Shown { url: webhook.url, secret, last_error: None, failing_since: None }))
}

async fn set_override(
    webhooks: &Webhooks,
    caller: &Caller,
    user: &str,
    asked: Override,
) -> Result<Json<Success>, Problem> {
    caller.must_be("the path", user)?;
    must_be_the_user(caller)?;
    match asked.override_callback_uri.filter(|uri| !uri.is_empty()) {
        Some(url) => {
            let verify_token = asked.verify_token.unwrap_or_default();
            webhooks.set(&caller.user, url, verify_token, None, || caller.must_still_be()).await?;
        }
        None => {
            caller.must_still_be().map_err(Error::from)?;
            webhooks.remove(&caller.user).await?;
        }
    }
    Ok(SUCCESS)
}

/// The webhook of a number, as in the Cloud API. `PUT /v1/webhook/secret` sets the key of its signatures.
#[utoipa::path(post, path = "/v{version}/{user}", tag = "Cloud API", request_body = Configuration,
    params(("version" = String, Path, description = "N.M"), ("user" = String, Path, description = "The caller's name.")),
    responses((status = 200, body = Success)))]
async fn of_number(
    State(webhooks): State<Webhooks>,
    caller: Caller,
    Path((version, user)): Path<(String, String)>,
    Whole(body): Whole,
) -> Result<Json<Success>, Problem> {
    must_be_version(&version)?;
    let expected = r#"{"webhook_configuration":{"override_callback_uri":"..","verify_token":".."}}"#;
    let asked: Configuration = parse(&body, expected)?;
    set_override(&webhooks, &caller, &user, asked.webhook_configuration).await
}

/// The webhook of an account, as in the Cloud API; an account is its number here.
#[utoipa::path(post, path = "/v{version}/{user}/subscribed_apps", tag = "Cloud API", request_body(content = Option<Override>),
    params(("version" = String, Path, description = "N.M"), ("user" = String, Path, description = "The caller's name.")),
    responses((status = 200, body = Success)))]
async fn of_account(
    State(webhooks): State<Webhooks>,
    caller: Caller,
    Path((version, user)): Path<(String, String)>,
    Whole(body): Whole,
) -> Result<Json<Success>, Problem> {
    must_be_version(&version)?;
    let expected = r#"{"override_callback_uri":"..","verify_token":".."}"#;
    let asked: Override = if body.is_empty() { Override::default() } else { parse(&body, expected)? };
    set_override(&webhooks, &caller, &user, asked).await
}

/// The answer to `GET /v{N}.{M}/{user}?fields=webhook_configuration`, for the route that has this path.
///
/// # Errors
/// It is not the caller's, or the bridge does not answer.
pub async fn configuration(webhooks: &Webhooks, caller: &Caller, user: &str) -> Result<Json<Value>, Problem> {
    caller.must_be("the path", user)?;
    let webhook = webhooks.of(&caller.user).await?;
    let url = webhook.map(|webhook| webhook.url).unwrap_or_default();
    Ok(Json(json!({"webhook_configuration": {"phone_number": url}, "id": caller.user.as_str()})))
}

/// The routes, for behind the authentication layer.
pub fn router(webhooks: Webhooks) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(put, get, delete))
        .routes(routes!(put_secret))
        .routes(routes!(of_number))
        .routes(routes!(of_account))
        .with_state(webhooks)
}
