//! Tokens: JWTs that say who a client is (wire.md section 2). Signed here, or by an issuer that the configuration trusts.

use std::time::Duration;

use jsonwebtoken::errors::Error;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use natter_protocol::accounts::{Denied, Grant, Scope};
use natter_protocol::{DeviceId, UserId};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::keys::TrustedKey;

/// Whom the tokens are for.
pub(crate) const AUDIENCE: &str = "natter";
/// A longer token is not looked at.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest `jti`, in bytes: revocations keep it.
const JTI_BYTES_MAX: usize = 128;
/// How far an issuer's clock may be ahead, in seconds; a token from further in the future could outlive a revocation.
const ISSUED_AHEAD_S_MAX: u64 = 60;

/// Signs a token for `user` at `now` (Unix seconds), with both scopes, for `ttl`.
///
/// # Errors
/// When the key does not sign.
pub(crate) fn issue(
    key: &EncodingKey,
    user: &UserId,
    device: Option<&DeviceId>,
    ttl: Duration,
    now: u64,
) -> Result<String, Error> {
    issue_for(key, user, device, None, ttl, now)
}

/// As [`issue`], for the words of `scope` only, if there are some.
///
/// # Errors
/// As [`issue`].
pub(crate) fn issue_for(
    key: &EncodingKey,
    user: &UserId,
    device: Option<&DeviceId>,
    scope: Option<&str>,
    ttl: Duration,
    now: u64,
) -> Result<String, Error> {
    #[derive(Serialize)]
    struct Claims<'a> {
        sub: &'a UserId,
        aud: &'a str,
        iat: u64,
        exp: u64,
        jti: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        device: Option<&'a DeviceId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        scope: Option<&'a str>,
    }
    let exp = now.saturating_add(ttl.as_secs());
    let claims = Claims { sub: user, aud: AUDIENCE, iat: now, exp, jti: Uuid::now_v7().to_string(), device, scope };
    encode(&Header::new(Algorithm::EdDSA), &claims, key)
}

/// A token whose signature and claims are good, before anyone asked what it may be used for.
#[derive(Debug)]
pub(crate) struct Verified {
    /// What it allows.
    pub(crate) grant: Grant,
    /// What it is for; `None`: everything.
    pub(crate) scope: Option<String>,
    /// It was signed here, not by an issuer that is trusted.
    pub(crate) is_own: bool,
}

impl Verified {
    /// Whether its `scope` has the word; a token without `scope` is for everything.
    pub(crate) fn covers(&self, scope: Scope) -> bool {
        self.scope.as_deref().is_none_or(|words| words.split(' ').any(|word| word == scope.as_str()))
    }
}

/// Checks tokens against a set of keys.
#[derive(Debug)]
pub(crate) struct Verifier {
    keys: Vec<(TrustedKey, Validation)>,
}

/// The claims that we read; what must be there is no `Option`, and `null` is not absence.
#[derive(Deserialize)]
struct Claims {
    sub: UserId,
    #[serde(deserialize_with = "numeric_date")]
    exp: u64,
    #[serde(deserialize_with = "numeric_date")]
    iat: u64,
    #[serde(default, deserialize_with = "some_numeric_date")]
    nbf: Option<u64>,
    jti: String,
    #[serde(default, deserialize_with = "some")]
    scope: Option<String>,
    #[serde(default, deserialize_with = "some")]
    device: Option<DeviceId>,
}

impl Verifier {
    /// Takes the keys, each with the algorithm that it is pinned to; the first one is our own.
    pub(crate) fn new(keys: Vec<TrustedKey>) -> Self {
        let with_validation = |key: TrustedKey| {
            let mut validation = Validation::new(key.algorithm);
            // Times are checked below, against the caller's clock and without leeway.
            validation.validate_exp = false;
            validation.leeway = 0;
            validation.set_audience(&[AUDIENCE]);
            let mut required = vec!["exp", "aud", "sub"];
            if let Some(issuer) = &key.issuer {
                validation.set_issuer(&[issuer]);
                required.push("iss");
            }
            validation.set_required_spec_claims(&required);
            (key, validation)
        };
        Self { keys: keys.into_iter().map(with_validation).collect() }
    }

    /// The bytes of the public keys, in their order.
    #[cfg(test)]
    pub(crate) fn public_keys(&self) -> Vec<Vec<u8>> {
        self.keys.iter().map(|(key, _)| key.key.try_get_as_bytes().unwrap().to_vec()).collect()
    }

    /// Checks signature, audience and times of `token` at `now` (Unix seconds).
    ///
    /// # Errors
    /// [`Denied::Bad`] or [`Denied::Expired`].
    pub(crate) fn verify(&self, token: &[u8], now: u64) -> Result<Verified, Denied> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Denied::Bad);
        }
        let header = decode_header(token).map_err(|_| Denied::Bad)?;
        // RFC 7515 4.1.11: an extension that must be understood, and we understand none.
        if header.crit.is_some() {
            return Err(Denied::Bad);
        }
        let fits = |key: &TrustedKey| match (&key.id, &header.kid) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        let candidates = self.keys.iter().enumerate().filter(|(_, (key, _))| key.algorithm == header.alg && fits(key));
        let mut good =
            candidates.filter_map(|(index, (key, validation))| Some((index, claims(token, &key.key, validation)?)));
        let (index, claims) = good.next().ok_or(Denied::Bad)?;
        if claims.exp <= now {
            return Err(Denied::Expired);
        }
        let too_early = claims.nbf.is_some_and(|nbf| nbf > now) || claims.iat > now.saturating_add(ISSUED_AHEAD_S_MAX);
        if too_early || claims.jti.is_empty() || claims.jti.len() > JTI_BYTES_MAX {
            return Err(Denied::Bad);
        }
        let Claims { sub, exp, iat, jti, scope, device, nbf: _ } = claims;
        Ok(Verified {
            grant: Grant { user: sub, device, expires_at: exp, jti, issued_at: iat },
            scope,
            is_own: index == 0,
        })
    }
}

fn claims(token: &[u8], key: &DecodingKey, validation: &Validation) -> Option<Claims> {
    decode::<Claims>(token, key, validation).ok().map(|data| data.claims)
}

/// RFC 7519 NumericDate: a JSON number of seconds, which may have a fraction; never a string.
fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let seconds = number.as_u64().or_else(|| {
        let seconds = number.as_f64()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
        (0.0..9e15).contains(&seconds).then_some(seconds as u64)
    });
    seconds.ok_or_else(|| serde::de::Error::custom("expected seconds since 1970"))
}

fn some_numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    numeric_date(deserializer).map(Some)
}

fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
