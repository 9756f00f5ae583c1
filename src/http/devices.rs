//! A user's devices over HTTP: the list, linking by a one-time code, and unlinking. In the root, which has the key.
//!
//! As `accounts.rs` has it: a token of one device ends that device; to link another, or to end another, it needs the user's password beside it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use natter_bridge::Error;
use natter_bridge::devices::{Ask, Device, Told};
use natter_bridge::http::{Brake as _, Caller, Names, Problem, Routes, token as token_of};
use natter_protocol::accounts::Accounts as _;
use natter_protocol::error::Kind;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::accounts::{Accounts, Body, Token, device_of, parse, too_many, user_of};
use crate::codes::{CODE_TTL, NoCode};
use crate::desk::unix_secs;
use crate::password::Password;

type Shared = Arc<Accounts>;

/// The caller's devices, in order of names.
#[derive(Serialize, ToSchema)]
struct Devices {
    devices: Vec<Listed>,
}

#[derive(Serialize, ToSchema)]
struct Listed {
    #[schema(example = "laptop")]
    device: String,
    /// What it was called when it was linked.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// Unix seconds; left out for a device that is older than this knowledge.
    #[serde(skip_serializing_if = "Option::is_none")]
    linked_at: Option<String>,
    /// Whether it reads its inbox over MQTT now.
    connected: bool,
    /// Unix seconds since which it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_since: Option<String>,
    /// Unix seconds, at times only to the hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<String>,
    /// Whether it is the device of this token.
    current: bool,
}

impl Listed {
    fn new(device: Device, caller: &Caller) -> Self {
        let Device { name, label, linked_at, connected_since, last_seen } = device;
        let text = |secs: Option<u64>| secs.map(|secs| secs.to_string());
        Self {
            current: caller.device.as_ref() == Some(&name),
            device: name.to_string(),
            label: label.map(|label| label.to_string()),
            linked_at: text(linked_at),
            connected: connected_since.is_some(),
            connected_since: text(connected_since),
            last_seen: text(last_seen),
        }
    }
}

/// A code that links one device.
#[derive(Serialize, ToSchema)]
struct LinkCode {
    #[schema(example = "7G4K-X2MQ")]
    code: String,
    /// Unix seconds; a restart of the server ends it too.
    expires_at: u64,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewDevice {
    /// Whose.
    #[schema(example = "bob")]
    user: String,
    /// As the other device shows it; small letters, and no hyphen, will do.
    code: String,
    /// Its name; none that a device of the user has.
    #[schema(example = "laptop")]
    device: String,
    /// What to call it in lists: at most 64 characters.
    label: Option<String>,
}

/// Who asks.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Sure {
    /// The user's password: the token of a single device needs it for another one.
    #[schema(value_type = Option<String>)]
    password: Option<Password>,
}

/// A body that may be missing.
fn parse_or_default<T: DeserializeOwned + Default>(body: Body, expected: &str) -> Result<T, Problem> {
    if body.0.is_empty() { Ok(T::default()) } else { parse(body, expected) }
}

/// The caller's devices: those that have begun to read, and those that were linked and have not connected yet.
#[utoipa::path(get, path = "/v1/devices", tag = "devices", operation_id = "list_devices",
    responses((status = 200, description = "Devices, perhaps none", body = Devices)))]
async fn list(State(accounts): State<Shared>, caller: Caller) -> Result<Json<Devices>, Problem> {
    let told = accounts.desk.bridge.devices(Ask::List(caller.user.clone())).await?;
    let Told::List(found) = told else { return Err(Error::Ended.into()) };
    Ok(Json(Devices { devices: found.into_iter().map(|device| Listed::new(device, &caller)).collect() }))
}

/// A code with which one new device of the caller gets a token: good for two minutes, once, and as long as this token is. The token of a single
/// device asks for one with the user's password.
#[utoipa::path(post, path = "/v1/devices/codes", tag = "devices", operation_id = "make_link_code", request_body(content = Option<Sure>),
    responses((status = 201, body = LinkCode), (status = 401, body = Problem), (status = 403, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
async fn make_code(
    State(accounts): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    caller: Caller,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Result<Response, Problem> {
    let Sure { password } = parse_or_default(body, r#"{"password":".."} or nothing"#)?;
    accounts.must_be_the_user(peer, &caller, password).await?;
    let token = token_of(&headers, &uri)?;
    let looked = accounts.desk.tokens.look_at(token.as_bytes(), unix_secs());
    let verified = looked.map_err(|denied| Problem::of(Kind::Token, denied.to_string()))?;
    if !verified.is_own {
        let detail = "expected a token that this server has issued; with one of another issuer, that one gives the new device its token";
        return Err(Problem::of(Kind::NotAllowed, detail));
    }
    let mut random = [0; 5];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Problem::not_now("the system has no random bytes"))?;
    let code = accounts.codes.make(caller.grant, verified.scope, random, Instant::now()).map_err(|no| match no {
        NoCode::TooOften => too_many("expected fewer codes of this user"),
        NoCode::NotNow => Problem::not_now("too many codes are open on this server; try again in a minute"),
    })?;
    let expires_at = unix_secs() + CODE_TTL.as_secs();
    Ok((StatusCode::CREATED, Json(LinkCode { code, expires_at })).into_response())
}

/// Links a device: a token for it alone, against a code that another device of the user has asked for.
#[utoipa::path(post, path = "/v1/devices", tag = "devices", operation_id = "link_device", request_body = NewDevice,
    responses((status = 201, body = Token), (status = 401, description = "The code is not good", body = Problem),
        (status = 409, description = "A device has that name", body = Problem), (status = 429, body = Problem)))]
async fn link(
    State(accounts): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Body,
) -> Result<Response, Problem> {
    let asked: NewDevice = parse(body, r#"{"user":"..","code":"..","device":".."}"#)?;
    let user = user_of(&asked.user)?;
    let Some(device) = device_of(Some(&asked.device))? else { return Err(Error::Ended.into()) };
    let now = Instant::now();
    if !accounts.failures_of_address.may_try(peer) || !accounts.codes.may_try(&user, now) {
        return Err(too_many("expected fewer wrong codes of this address, for this user, or of all"));
    }
    let desk = &accounts.desk;
    let good = accounts.codes.take(&user, &asked.code, now);
    // Whoever asked for it may have lost his right since.
    let Some(open) = good.filter(|open| desk.tokens.still_holds(&open.grant, unix_secs()).is_ok()) else {
        accounts.codes.was_wrong(&user, now);
        accounts.failures_of_address.failed(peer);
        let detail = "code: expected one of this user that is not used and not older than two minutes, got another";
        return Err(Problem::of(Kind::Token, detail));
    };
    let at = match desk.link(&open.grant, &device, asked.label).await {
        Ok(at) => at,
        Err(error) => {
            accounts.codes.put_back(&asked.code, open);
            return Err(error.into());
        }
    };
    let token = accounts.token(&user, Some(&device), open.scope.as_deref(), at)?;
    Ok((StatusCode::CREATED, Json(token)).into_response())
}

/// Unlinks a device: its tokens end and its connections are cut before the answer, and nothing is kept for it any more. What is
/// connected with a token of all devices ends too, if it reads this one's inbox, and may come back with that token. The token of a single
/// device unlinks that device, and others with the user's password.
#[utoipa::path(delete, path = "/v1/devices/{device}", tag = "devices", operation_id = "unlink_device",
    params(("device" = String, Path, description = "Which")), request_body(content = Option<Sure>),
    responses((status = 204, description = "It is cut off"), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, description = "There is no such device", body = Problem)))]
async fn unlink(
    State(accounts): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    caller: Caller,
    Names(device): Names<String>,
    body: Body,
) -> Result<StatusCode, Problem> {
    let Some(device) = device_of(Some(&device))? else { return Err(Error::Ended.into()) };
    let Sure { password } = parse_or_default(body, r#"{"password":".."} or nothing"#)?;
    if caller.device.as_ref() != Some(&device) {
        accounts.must_be_the_user(peer, &caller, password).await?;
    }
    accounts.may_renew(&caller.user)?;
    caller.must_still_be().map_err(Error::from)?;
    if accounts.desk.unlink(caller.user, device).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let detail = "device: expected a device of yours (GET /v1/devices lists them), got another";
    Err(Problem::new(StatusCode::NOT_FOUND, Kind::InvalidValue, detail))
}

/// Adds the routes.
pub(crate) fn add_to(routes: Routes, accounts: &Shared) -> Routes {
    let open = OpenApiRouter::new().routes(routes!(link));
    let with_token = OpenApiRouter::new().routes(routes!(list)).routes(routes!(make_code)).routes(routes!(unlink));
    Routes {
        open: routes.open.merge(open.with_state(Arc::clone(accounts))),
        with_token: routes.with_token.merge(with_token.with_state(Arc::clone(accounts))),
    }
}
