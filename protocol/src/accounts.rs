//! What a door asks about a client that presents a token. The root package answers from the bridge's store and the configured keys.

use crate::ids::{DeviceId, UserId};

/// What a token is presented for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A connection to the door.
    Mqtt,
    /// A request over HTTP.
    Http,
}

impl Scope {
    /// The word in the token's `scope` claim.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Http => "http",
        }
    }
}

/// What a valid token allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whose topics: the token's `sub`.
    pub user: UserId,
    /// Only that device's topics, if the token names one.
    pub device: Option<DeviceId>,
    /// Until when, in Unix seconds; live connections end then.
    pub expires_at: u64,
    /// The token's own name, by which it can be revoked.
    pub jti: String,
    /// When it was issued, in Unix seconds.
    pub issued_at: u64,
}

/// Why a token is not accepted. The words are for logs and errors, never the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Not a token of ours, or a broken one: CONNACK 4 / 0x86.
    #[error(
        "the token is not valid: expected a JWT signed with this server's key, with aud natter, sub, iat, exp and jti"
    )]
    Bad,
    /// Its time is over: CONNACK 4 / 0x86.
    #[error("the token has expired: issue another with `natter token`")]
    Expired,
    /// It, its device or its user was revoked: CONNACK 4 / 0x86.
    #[error("the token was revoked")]
    Revoked,
    /// Good, but for another user: CONNACK 5 / 0x87.
    #[error("the token belongs to another user than the user name says")]
    OtherUser,
    /// Good, but not for this use: CONNACK 5 / 0x87.
    #[error("the token's scope does not cover this use")]
    OtherScope,
}

impl Denied {
    /// Whether the token is good and only this use of it is not allowed.
    #[must_use]
    pub fn is_valid_elsewhere(self) -> bool {
        match self {
            Self::Bad | Self::Expired | Self::Revoked => false,
            Self::OtherUser | Self::OtherScope => true,
        }
    }
}

/// What was revoked. Every live connection that it covers is cut (0x87).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// One token.
    Token {
        /// Whose.
        user: UserId,
        /// Its `jti`.
        jti: String,
    },
    /// Every token of the user that is bound to the device.
    Device {
        /// Whose.
        user: UserId,
        /// Which device.
        device: DeviceId,
        /// Tokens issued before this Unix second.
        before: u64,
    },
    /// Every token of the user.
    User {
        /// Whose.
        user: UserId,
        /// Tokens issued before this Unix second.
        before: u64,
    },
}

impl Revocation {
    /// Whose tokens end.
    #[must_use]
    pub fn user(&self) -> &UserId {
        match self {
            Self::Token { user, .. } | Self::Device { user, .. } | Self::User { user, .. } => user,
        }
    }

    /// Whether `grant` ends by this.
    #[must_use]
    pub fn covers(&self, grant: &Grant) -> bool {
        match self {
            Self::Token { user, jti } => grant.user == *user && grant.jti == *jti,
            Self::Device { user, device, before } => {
                grant.user == *user && grant.device.as_ref() == Some(device) && grant.issued_at < *before
            }
            Self::User { user, before } => grant.user == *user && grant.issued_at < *before,
        }
    }
}

/// Called with every revocation, on the thread that made it; it must not block.
pub type RevocationListener = Box<dyn Fn(&Revocation) + Send + Sync>;

/// Who may connect. Implementations answer from memory: they are asked on the path of every CONNECT.
pub trait Accounts: Send + Sync {
    /// Checks `token` for `user` and `scope` at `now` (Unix seconds).
    ///
    /// # Errors
    /// [`Denied`] says why not.
    fn verify(&self, user: &UserId, token: &[u8], scope: Scope, now: u64) -> Result<Grant, Denied>;

    /// Whose token it is, for `scope` at `now` (Unix seconds): over HTTP nothing but the token says who speaks.
    ///
    /// # Errors
    /// [`Denied`] says why not; never [`Denied::OtherUser`].
    fn identify(&self, token: &[u8], scope: Scope, now: u64) -> Result<Grant, Denied>;

    /// Whether what was granted still holds at `now` (Unix seconds): for a request that took its time.
    ///
    /// # Errors
    /// [`Denied`] says why not.
    fn still_holds(&self, grant: &Grant, now: u64) -> Result<(), Denied>;

    /// Asks to be told of every later revocation.
    fn on_revocation(&self, listener: RevocationListener);
}
