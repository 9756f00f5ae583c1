//! Accounts over HTTP: registration, login, tokens and their end. In the root, which has the key.
//!
//! A token of one device ends itself and what is its device's; for what goes beyond that it needs the user's password beside it.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use natter_bridge::http::{Brake as AddressBrake, Caller, Problem, Routes, Whole, token as token_of};
use natter_broker::{Addresses, Rate};
use natter_protocol::accounts::Revocation;
use natter_protocol::error::Kind;
use natter_protocol::{DeviceId, UserId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::brake::Brake;
use crate::codes::Codes;
use crate::config::{Accounts as Settings, Registration};
use crate::desk::{Desk, unix_secs};
use crate::http::DoorBrake;
use crate::password::{Busy, Password};
use crate::token::issue_for;

/// Most bytes of a body here; the longest password and token fit.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// When somebody who was too fast may try again, at the latest, in seconds.
const BRAKE_SECS: u64 = 60;

/// What the routes share.
pub(crate) struct Accounts {
    pub(super) desk: Arc<Desk>,
    pub(super) codes: Codes,
    settings: Settings,
    addresses: Arc<Addresses>,
    pub(super) failures_of_address: DoorBrake,
    failures_of_user: Brake<UserId>,
    registrations: Brake<IpAddr>,
    renewals: Brake<UserId>,
}

type Shared = Arc<Accounts>;

impl Accounts {
    pub(crate) fn new(desk: Arc<Desk>, settings: &Settings, addresses: Arc<Addresses>, codes: Codes) -> Shared {
        Arc::new(Self {
            desk,
            codes,
            failures_of_address: DoorBrake(Arc::clone(&addresses)),
            failures_of_user: Brake::new(Rate::per_minute(settings.login_failures_per_min)),
            registrations: Brake::new(Rate::per_minute(settings.registrations_per_min)),
            renewals: Brake::new(Rate::per_minute(settings.renewals_per_min)),
            settings: settings.clone(),
            addresses,
        })
    }

    /// Whether `password` is the user's. Who is not there, or has none, is answered the same, and takes as long.
    async fn check_password(&self, peer: SocketAddr, user: &UserId, password: Password) -> Result<(), Problem> {
        let now = Instant::now();
        if !self.failures_of_address.may_try(peer) || !self.failures_of_user.may(user, now) {
            return Err(too_many("expected fewer wrong passwords of this address or for this user"));
        }
        let account = self.desk.bridge.account(user.clone()).await?.unwrap_or_default();
        if !self.desk.hasher.fits(password, account.password).await? {
            self.failures_of_address.failed(peer);
            self.failures_of_user.count(user, now);
            return Err(Problem::of(Kind::Token, "expected a user and his password, got another user or password"));
        }
        if account.disabled {
            return Err(kept_out());
        }
        Ok(())
    }

    /// What is the user's alone: a token for every device of his may do it, one of a single device with his password.
    pub(super) async fn must_be_the_user(
        &self,
        peer: SocketAddr,
        caller: &Caller,
        password: Option<Password>,
    ) -> Result<(), Problem> {
        match password {
            Some(password) => self.check_password(peer, &caller.user, password).await,
            None if caller.device.is_none() => Ok(()),
            None => Err(Problem::of(
                Kind::NotAllowed,
                "expected the user's password beside the token of a single device (\"password\"), got none",
            )),
        }
    }

    /// The date of a token. It is taken before anything is looked at: what is revoked meanwhile covers the token then.
    fn date(&self, user: &UserId, device: Option<&DeviceId>) -> u64 {
        self.desk.tokens.issue_at(user, device, unix_secs())
    }

    pub(super) fn token(
        &self,
        user: &UserId,
        device: Option<&DeviceId>,
        scope: Option<&str>,
        now: u64,
    ) -> Result<Token, Problem> {
        let ttl = Duration::from_secs(self.settings.token_ttl_s);
        let token = issue_for(&self.desk.key.signing, user, device, scope, ttl, now).map_err(|error| {
            tracing::error!(%error, "a token was not signed");
            Problem::not_now("the token could not be signed; the server's log says why")
        })?;
        Ok(Token::new(user, token, now + self.settings.token_ttl_s))
    }

    /// Renewals, logouts and other passwords leave rows behind, and some take a second of the clock: so many a minute.
    pub(super) fn may_renew(&self, user: &UserId) -> Result<(), Problem> {
        let now = Instant::now();
        if !self.renewals.may(user, now) {
            return Err(too_many("expected fewer renewals and logouts of this user"));
        }
        self.renewals.count(user, now);
        Ok(())
    }
}

pub(super) fn too_many(expected: &str) -> Problem {
    let detail = format!("{expected}; wait a minute and try again");
    Problem::new(StatusCode::TOO_MANY_REQUESTS, Kind::Quota, detail).retry_after(BRAKE_SECS)
}

fn kept_out() -> Problem {
    Problem::of(
        Kind::NotAllowed,
        "this account is disabled; whoever runs the server can enable it (`natter user enable`)",
    )
}

impl From<Busy> for Problem {
    fn from(busy: Busy) -> Self {
        Self::not_now(busy.to_string())
    }
}

/// A token, in Natter's words and in those of the on-premises API.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Token {
    /// Whose it is.
    user: String,
    /// The token, for `Authorization: Bearer` and as an MQTT password.
    token: String,
    /// Until when, in Unix seconds.
    expires_at: u64,
    /// The same in the words of the on-premises API.
    users: [OnPremisesToken; 1],
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OnPremisesToken {
    token: String,
    /// ISO 8601.
    expires_after: String,
}

impl Token {
    fn new(user: &UserId, token: String, expires_at: u64) -> Self {
        let users = [OnPremisesToken { token: token.clone(), expires_after: iso_8601(expires_at) }];
        Self { user: user.to_string(), token, expires_at, users }
    }
}

fn iso_8601(unix_secs: u64) -> String {
    let mut text = String::new();
    let at = i64::try_from(unix_secs).ok().and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok());
    if let Some(at) = at {
        let (hour, minute, second) = at.to_hms();
        // A String takes everything.
        let _ = write!(
            text,
            "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}+00:00",
            at.year(),
            u8::from(at.month()),
            at.day()
        );
    }
    text
}

/// Who a new user is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewUser {
    /// His name, usually a phone number in digits.
    user: String,
    /// 8 characters or more.
    #[schema(value_type = String)]
    password: Password,
    /// For a token of this device only.
    device: Option<String>,
}

/// Who logs in; or the same as `Authorization: Basic`.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct Login {
    user: Option<String>,
    #[schema(value_type = Option<String>)]
    password: Option<Password>,
    /// For a token of this device only.
    device: Option<String>,
    /// Becomes the password, as in the on-premises API.
    #[schema(value_type = Option<String>)]
    new_password: Option<Password>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangePassword {
    /// The one before.
    #[schema(value_type = String)]
    password: Password,
    /// 8 characters or more.
    #[schema(value_type = String)]
    new_password: Password,
}

/// What is to end: one of `token`, `jti`, `device` and `all`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Revoke {
    /// This token.
    token: Option<String>,
    /// The token of this name.
    jti: Option<String>,
    /// Every token of this device.
    device: Option<String>,
    /// Every token.
    #[serde(default)]
    all: bool,
    /// The user's password: the token of a single device needs it.
    #[schema(value_type = Option<String>)]
    password: Option<Password>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Disable {
    /// The user's password: the token of a single device needs it.
    #[schema(value_type = Option<String>)]
    password: Option<Password>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Success {
    success: bool,
}

const SUCCESS: Json<Success> = Json(Success { success: true });

pub(super) type Body = Whole<BODY_BYTES_MAX>;

/// A body as JSON. Its words say what was expected and never what came: it may be a password.
pub(super) fn parse<T: DeserializeOwned>(Whole(body): Body, expected: &str) -> Result<T, Problem> {
    serde_json::from_slice(&body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let detail = format!("body: expected {expected}, got something else at line {line}, column {column}");
        Problem::of(Kind::Malformed, detail)
    })
}

pub(super) fn user_of(name: &str) -> Result<UserId, Problem> {
    UserId::parse_recipient(name).map_err(|error| Problem::of(Kind::InvalidValue, format!("user: {error}")))
}

pub(super) fn device_of(name: Option<&str>) -> Result<Option<DeviceId>, Problem> {
    let parse =
        |name| DeviceId::parse(name).map_err(|error| Problem::of(Kind::InvalidValue, format!("device: {error}")));
    name.map(parse).transpose()
}

fn check(password: &Password) -> Result<(), Problem> {
    password.check().map_err(|detail| Problem::of(Kind::InvalidValue, detail))
}

/// Makes an account, if the server lets everybody do that.
#[utoipa::path(post, path = "/v1/users", tag = "accounts", request_body = NewUser,
    responses((status = 201, body = Token), (status = 403, body = Problem), (status = 409, body = Problem)))]
async fn register(
    State(accounts): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Body,
) -> Result<Response, Problem> {
    if accounts.settings.registration == Registration::Closed {
        let detail = "registration is closed on this server; whoever runs it adds users (`natter user add`)";
        return Err(Problem::of(Kind::NotAllowed, detail));
    }
    let asked: NewUser = parse(body, r#"{"user":"..","password":".."}"#)?;
    let (user, device) = (user_of(&asked.user)?, device_of(asked.device.as_deref())?);
    check(&asked.password)?;
    if let Some(address) = accounts.addresses.counted(peer) {
        let now = Instant::now();
        if !accounts.registrations.may(&address, now) {
            return Err(too_many("expected fewer registrations of this address"));
        }
        accounts.registrations.count(&address, now);
    }
    let hash = accounts.desk.hasher.hash(asked.password).await?;
    if !accounts.desk.bridge.register(user.clone(), hash).await? {
        return Err(Problem::of(
            Kind::Conflict,
            format!("user: expected a name that is free, got {user}, who is there"),
        ));
    }
    let at = accounts.date(&user, device.as_ref());
    let token = accounts.token(&user, device.as_ref(), None, at)?;
    Ok((StatusCode::CREATED, Json(token)).into_response())
}

/// A token for a user and his password: as JSON, or with `Authorization: Basic` as in the on-premises API.
#[utoipa::path(post, path = "/v1/users/login", tag = "accounts", request_body(content = Option<Login>),
    responses((status = 200, body = Token), (status = 401, body = Problem), (status = 403, body = Problem), (status = 429, body = Problem)))]
async fn login(
    State(accounts): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Token>, Problem> {
    let is_empty = body.0.is_empty();
    let asked: Login = if is_empty { Login::default() } else { parse(body, r#"{"user":"..","password":".."}"#)? };
    let (name, password) = match (basic(&headers)?, asked.user, asked.password) {
        (Some(both), _, _) => both,
        (None, Some(name), Some(password)) => (name, password),
        (None, ..) => {
            let detail = r#"expected {"user":"..","password":".."} or Authorization: Basic, got neither"#;
            return Err(Problem::of(Kind::Malformed, detail));
        }
    };
    let device = device_of(asked.device.as_deref())?;
    if let Some(new) = &asked.new_password {
        check(new)?;
    }
    let user = user_of(&name)?;
    let mut at = accounts.date(&user, device.as_ref());
    accounts.check_password(peer, &user, password).await?;
    if let Some(new) = asked.new_password {
        accounts.may_renew(&user)?;
        let hash = accounts.desk.hasher.hash(new).await?;
        accounts.desk.set_password(user.clone(), hash).await?;
        at = accounts.date(&user, device.as_ref());
    }
    accounts.token(&user, device.as_ref(), None, at).map(Json)
}

/// User and password of `Authorization: Basic`, if that is there.
fn basic(headers: &HeaderMap) -> Result<Option<(String, Password)>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let both = value.to_str().ok().and_then(|value| {
        let (scheme, encoded) = value.split_once(' ')?;
        let is_basic = scheme.eq_ignore_ascii_case("Basic");
        let text = String::from_utf8(base64(encoded.trim())?).ok()?;
        let (user, password) = text.split_once(':')?;
        is_basic.then(|| (user.to_owned(), Password::from(password.to_owned())))
    });
    let detail = "Authorization: expected Basic with user:password in base64, got something else";
    both.map(Some).ok_or_else(|| Problem::of(Kind::Malformed, detail))
}

/// Decodes base64 (RFC 4648 section 4).
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let (mut bytes, mut word, mut bits) = (Vec::new(), 0u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        word = word << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits & 0xff) as u8);
        }
    }
    (text.len() - digits.len() <= 2).then_some(bytes)
}

/// Another token with the rights of this one. The one before stays good until its time is over, or until it is logged out.
#[utoipa::path(post, path = "/v1/users/refresh", tag = "accounts",
    responses((status = 200, body = Token), (status = 401, body = Problem), (status = 403, body = Problem)))]
async fn refresh(
    State(accounts): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<Token>, Problem> {
    let token = token_of(&headers, &uri)?;
    let at = accounts.date(&caller.user, caller.device.as_ref());
    let verified = accounts
        .desk
        .tokens
        .look_at(token.as_bytes(), unix_secs())
        .map_err(|denied| Problem::of(Kind::Token, denied.to_string()))?;
    if !verified.is_own {
        let detail = "expected a token that this server has issued; the issuer of this one must renew it";
        return Err(Problem::of(Kind::NotAllowed, detail));
    }
    accounts.may_renew(&caller.user)?;
    accounts.token(&caller.user, caller.device.as_ref(), verified.scope.as_deref(), at).map(Json)
}

/// The end of this token, and of the connections that were made with it.
#[utoipa::path(post, path = "/v1/users/logout", tag = "accounts",
    responses((status = 200, body = Success), (status = 401, body = Problem)))]
async fn logout(State(accounts): State<Shared>, caller: Caller) -> Result<Json<Success>, Problem> {
    accounts.may_renew(&caller.user)?;
    accounts.desk.revoke(Revocation::Token { user: caller.user, jti: caller.grant.jti }).await?;
    Ok(SUCCESS)
}

/// The end of other tokens of the user, and of the connections that were made with them.
#[utoipa::path(post, path = "/v1/users/revoke", tag = "accounts", request_body = Revoke,
    responses((status = 200, body = Success), (status = 401, body = Problem), (status = 403, body = Problem)))]
async fn revoke(
    State(accounts): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    caller: Caller,
    body: Body,
) -> Result<Json<Success>, Problem> {
    let expected = r#"one of {"token":".."}, {"jti":".."}, {"device":".."} and {"all":true}"#;
    let Revoke { token, jti, device, all, password } = parse(body, expected)?;
    let user = caller.user.clone();
    let before = accounts.desk.tokens.end_before(&user, unix_secs());
    let revocation = match (token, jti, device_of(device.as_deref())?, all) {
        (Some(token), None, None, false) => {
            // Who has the token may end it, as by a logout.
            let verified = accounts.desk.tokens.look_at(token.as_bytes(), unix_secs());
            let grant = verified.ok().map(|verified| verified.grant).filter(|grant| grant.user == user);
            let grant = grant.ok_or_else(|| {
                Problem::of(Kind::InvalidValue, format!("token: expected one of {user} that is good now, got another"))
            })?;
            Revocation::Token { user, jti: grant.jti }
        }
        (None, Some(jti), None, false) if (1..=128).contains(&jti.len()) => {
            accounts.must_be_the_user(peer, &caller, password).await?;
            Revocation::Token { user, jti }
        }
        (None, None, Some(device), false) => {
            if caller.device.as_ref() != Some(&device) {
                accounts.must_be_the_user(peer, &caller, password).await?;
            }
            Revocation::Device { user, device, before }
        }
        (None, None, None, true) => {
            accounts.must_be_the_user(peer, &caller, password).await?;
            Revocation::User { user, before }
        }
        _ => {
            return Err(Problem::of(
                Kind::Malformed,
                format!("body: expected {expected}, got none or several of them"),
            ));
        }
    };
    accounts.may_renew(&caller.user)?;
    accounts.desk.revoke(revocation).await?;
    Ok(SUCCESS)
}

/// Another password. Every token of the user ends with the one before; the answer has a new one.
#[utoipa::path(post, path = "/v1/users/password", tag = "accounts", request_body = ChangePassword,
    responses((status = 200, body = Token), (status = 401, body = Problem), (status = 429, body = Problem)))]
async fn change_password(
    State(accounts): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    caller: Caller,
    body: Body,
) -> Result<Json<Token>, Problem> {
    let asked: ChangePassword = parse(body, r#"{"password":"..","new_password":".."}"#)?;
    check(&asked.new_password)?;
    accounts.may_renew(&caller.user)?;
    accounts.check_password(peer, &caller.user, asked.password).await?;
    let hash = accounts.desk.hasher.hash(asked.new_password).await?;
    accounts.desk.set_password(caller.user.clone(), hash).await?;
    let at = accounts.date(&caller.user, caller.device.as_ref());
    accounts.token(&caller.user, caller.device.as_ref(), None, at).map(Json)
}

/// Keeps the caller himself out, until whoever runs the server lets him in again. Messages to him wait, as for one who is away.
#[utoipa::path(post, path = "/v1/users/disable", tag = "accounts", request_body(content = Option<Disable>),
    responses((status = 200, body = Success), (status = 401, body = Problem), (status = 403, body = Problem)))]
async fn disable(
    State(accounts): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    caller: Caller,
    body: Body,
) -> Result<Json<Success>, Problem> {
    let is_empty = body.0.is_empty();
    let asked: Disable = if is_empty { Disable::default() } else { parse(body, r#"{"password":".."}"#)? };
    accounts.must_be_the_user(peer, &caller, asked.password).await?;
    accounts.desk.set_disabled(caller.user, true).await?;
    Ok(SUCCESS)
}

/// Adds the routes.
pub(crate) fn add_to(routes: Routes, accounts: &Shared) -> Routes {
    let open = OpenApiRouter::new().routes(routes!(register)).routes(routes!(login));
    let with_token = OpenApiRouter::new()
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(revoke))
        .routes(routes!(change_password))
        .routes(routes!(disable));
    Routes {
        open: routes.open.merge(open.with_state(Arc::clone(accounts))),
        with_token: routes.with_token.merge(with_token.with_state(Arc::clone(accounts))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_iso_8601() {
        assert_eq!(iso_8601(1_519_918_166), "2018-03-01T15:29:26+00:00");
        assert_eq!(iso_8601(0), "1970-01-01T00:00:00+00:00");
    }

    #[test]
    fn base64_is_read_with_and_without_its_end() {
        for (text, bytes) in
            [("", ""), ("YQ==", "a"), ("YQ", "a"), ("YWxpY2U6cDpx", "alice:p:q"), ("Pz8/Pj4+", "???>>>")]
        {
            assert_eq!(base64(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        for wrong in ["a b", "YQ===", "Y-", "\u{e4}"] {
            assert_eq!(base64(wrong), None, "{wrong}");
        }
    }
}
