//! Who may log in, and who may make an account: `[auth]`, `[accounts]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Listen, check_ranges};

/// Whose tokens are accepted beside our own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Auth {
    pub(crate) public_key_file: Option<PathBuf>,
    pub(crate) algorithm: KeyAlgorithm,
    pub(crate) jwks_file: Option<PathBuf>,
    pub(crate) issuer: Option<String>,
}

/// Who may make an account, and what logging in costs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Accounts {
    pub(crate) registration: Registration,
    pub(crate) registration_in_public: bool,
    pub(crate) registrations_per_min: u32,
    pub(crate) token_ttl_s: u64,
    pub(crate) login_failures_per_min: u32,
    pub(crate) renewals_per_min: u32,
    pub(crate) hashes_at_a_time: usize,
}

/// Who may make an account over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Registration {
    /// Nobody: `natter user add` does.
    Closed,
    /// Everybody.
    Open,
}

impl Accounts {
    /// The values that a type alone does not check.
    pub(super) fn check(&self, listen: &Listen) -> Result<(), ConfigError> {
        check_ranges([
            ("accounts.token_ttl_s", "60 to 315360000", 60..=315_360_000, self.token_ttl_s),
            ("accounts.registrations_per_min", "1 to 1000000", 1..=1_000_000, self.registrations_per_min.into()),
            ("accounts.login_failures_per_min", "1 to 1000000", 1..=1_000_000, self.login_failures_per_min.into()),
            ("accounts.renewals_per_min", "1 to 1000000", 1..=1_000_000, self.renewals_per_min.into()),
            ("accounts.hashes_at_a_time", "1 to 64", 1..=64, self.hashes_at_a_time as u64),
        ])?;
        self.check_registration(listen)
    }

    /// Everybody may register only where nobody comes from outside, unless that is said too.
    fn check_registration(&self, listen: &Listen) -> Result<(), ConfigError> {
        if self.registration == Registration::Closed || self.registration_in_public {
            return Ok(());
        }
        let listeners = [("http", Some(listen.http)), ("https", listen.https)];
        let Some((name, address)) = Listen::public(&listeners) else { return Ok(()) };
        Err(ConfigError::Value {
            key: "accounts.registration",
            expected: "\"closed\", loopback addresses only in listen.http and https, or accounts.registration_in_public = true",
            got: format!("\"open\", though listen.{name} is {address}"),
        })
    }
}

/// The signature algorithms that an issuer may use: asymmetric ones only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(crate) enum KeyAlgorithm {
    /// Ed25519.
    EdDSA,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// RSA PKCS#1 v1.5 with SHA-256, 2048 bits or more.
    RS256,
}

impl TryFrom<String> for KeyAlgorithm {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "EdDSA" => Ok(Self::EdDSA),
            "ES256" => Ok(Self::ES256),
            "RS256" => Ok(Self::RS256),
            _ => Err(format!("expected EdDSA, ES256 or RS256, got {text:?}")),
        }
    }
}
