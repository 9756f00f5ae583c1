//! Who calls: one layer reads the token, and every route behind it gets a [`Caller`].

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use natter_protocol::accounts::{Denied, Grant, Scope};
use natter_protocol::error::{Kind, Refusal};
use natter_protocol::{DeviceId, UserId};

use super::{Api, Problem};

/// 360dialog's header for the token.
const D360_API_KEY: &str = "d360-api-key";
/// The query parameter that may carry the token; queries are never logged.
const ACCESS_TOKEN: &str = "access_token";
/// When an address that was shut out for its failures may try again, at the latest.
const BRAKE_SECS: u64 = 60;

/// What keeps an address from guessing tokens: the door's count of failures, shared by all listeners.
pub trait Brake: Send + Sync {
    /// Whether `peer` may try now.
    fn may_try(&self, peer: SocketAddr) -> bool;
    /// A try of `peer` has failed.
    fn failed(&self, peer: SocketAddr);
}

/// Who calls, as the token says.
#[derive(Clone)]
pub struct Caller {
    /// The token's user.
    pub user: UserId,
    /// The token's device, if it names one.
    pub device: Option<DeviceId>,
    /// All that the token allows.
    pub grant: Grant,
    api: Api,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { user, device, grant: _, api: _ } = self;
        f.debug_struct("Caller").field("user", user).field("device", device).finish_non_exhaustive()
    }
}

impl Caller {
    /// Refuses whoever has lost what his token allowed while his request arrived: a body may take long, and a revocation must not wait for it.
    ///
    /// # Errors
    /// 401: the token was revoked, or has expired.
    pub fn must_still_be(&self) -> Result<(), Refusal> {
        let held = self.api.accounts.still_holds(&self.grant, self.api.now());
        held.map_err(|denied| Refusal::new(Kind::Token, denied.to_string()))
    }

    /// The device that HTTP calls act as: the token's, else `http`.
    #[must_use]
    pub fn acting_device(&self) -> DeviceId {
        self.device.clone().unwrap_or_else(DeviceId::http)
    }

    /// Refuses whoever speaks in another's name. `what` is the parameter, `named` its value.
    ///
    /// # Errors
    /// 403, if `named` is another user.
    pub fn must_be(&self, what: &str, named: &str) -> Result<(), Problem> {
        match UserId::parse_recipient(named) {
            Ok(user) if user == self.user => Ok(()),
            _ => {
                let detail = format!("{what}: expected {}, whose token this is, got another user", self.user);
                Err(Problem::of(Kind::NotAllowed, detail))
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(no_token)
    }
}

/// The layer: no token, no route.
pub(super) async fn authenticate(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = identify(&api, peer, request.headers(), request.uri())?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// Whether the token of a request that has waited is still good.
pub(super) fn identify_again(api: &Api, headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    let identified = api.accounts.identify(token(headers, uri)?.as_bytes(), Scope::Http, api.now());
    identified.map(|_| ()).map_err(|denied| Problem::of(Kind::Token, denied.to_string()))
}

fn identify(api: &Api, peer: SocketAddr, headers: &HeaderMap, uri: &Uri) -> Result<Caller, Problem> {
    let token = token(headers, uri)?;
    if !api.brake.may_try(peer) {
        let detail = "expected fewer failed authentications from this address; wait a minute and try again";
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, Kind::Quota, detail);
        return Err(problem.retry_after(BRAKE_SECS));
    }
    let grant = api.accounts.identify(token.as_bytes(), Scope::Http, api.now()).map_err(|denied| {
        // An expired or revoked token is no guess: one forgotten device would shut its whole network out.
        if !matches!(denied, Denied::Expired | Denied::Revoked) {
            api.brake.failed(peer);
        }
        let kind = if denied.is_valid_elsewhere() { Kind::NotAllowed } else { Kind::Token };
        Problem::of(kind, denied.to_string())
    })?;
    Ok(Caller { user: grant.user.clone(), device: grant.device.clone(), grant, api: api.clone() })
}

/// The token of a request. One place is enough, and the first that has one counts.
///
/// # Errors
/// 401 when it has none.
pub fn token<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Result<&'a str, Problem> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let bearer = value.to_str().ok().and_then(|value| value.split_once(' '));
        let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"));
        return bearer.map(|(_, token)| token.trim()).ok_or_else(no_token);
    }
    if let Some(value) = headers.get(D360_API_KEY) {
        return value.to_str().map(str::trim).map_err(|_| no_token());
    }
    let pairs = uri.query().unwrap_or_default().split('&');
    // A JWT has no character that a query must escape.
    let found = pairs.filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == ACCESS_TOKEN);
    found.map(|(_, token)| token).ok_or_else(no_token)
}

fn no_token() -> Problem {
    let detail =
        "expected a token, as `Authorization: Bearer <token>`; `natter token NAME` or POST /v1/users/login gives one";
    Problem::of(Kind::Token, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(headers: &[(&'static str, &str)], uri: &str) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        token(&map, &uri.parse().unwrap()).ok().map(ToOwned::to_owned)
    }

    #[test]
    fn a_token_may_stand_in_three_places() {
        assert_eq!(found(&[("authorization", "Bearer a.b.c")], "/messages").as_deref(), Some("a.b.c"));
        assert_eq!(found(&[("authorization", "bearer a.b.c")], "/messages").as_deref(), Some("a.b.c"));
        assert_eq!(found(&[("d360-api-key", "a.b.c")], "/messages").as_deref(), Some("a.b.c"));
        assert_eq!(found(&[], "/messages?limit=1&access_token=a.b.c").as_deref(), Some("a.b.c"));
        assert_eq!(found(&[("authorization", "Bearer h")], "/?access_token=q").as_deref(), Some("h"));
    }

    #[test]
    fn anything_else_is_no_token() {
        for headers in [&[][..], &[("authorization", "Basic YTpi")], &[("authorization", "a.b.c")]] {
            assert_eq!(found(headers, "/messages?xaccess_token=a"), None, "{headers:?}");
        }
        assert_eq!(found(&[("authorization", "Basic YTpi")], "/?access_token=q"), None, "the header is what counts");
    }
}
