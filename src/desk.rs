//! The desk: adds users and issues tokens, from a running server's bridge or from a store that nobody else has open.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use natter_bridge::{Bridge, Handle};
use natter_protocol::{DeviceId, UserId};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::keys::OwnKey;
use crate::token;

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Adds a user.
    AddUser {
        /// Whom.
        user: UserId,
    },
    /// Adds users, passing over those that are there.
    AddUsers {
        /// Whom; as many as the bridge's loop takes at once.
        users: Vec<UserId>,
    },
    /// Issues a token.
    IssueToken {
        /// For whom.
        user: UserId,
        /// For this device only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<DeviceId>,
        /// For how many seconds.
        ttl_s: u64,
    },
}

/// What comes of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The user is new, and on disk.
    Added,
    /// All of the users are on disk.
    AddedSome {
        /// How many are new.
        added: usize,
        /// How many were there.
        known: usize,
    },
    /// There was such a user before.
    Known,
    /// Here it is.
    Token {
        /// The JWT.
        token: String,
    },
    /// There is no such user.
    UnknownUser,
    /// It was not done.
    Failed {
        /// Why not.
        reason: String,
    },
}

/// The desk of a running server.
pub(crate) struct Desk {
    pub(crate) bridge: Handle,
    pub(crate) key: OwnKey,
}

impl Desk {
    /// Does what is asked, through the bridge's loop.
    pub(crate) async fn answer(&self, request: Request) -> Answer {
        match request {
            Request::AddUser { user } => added(self.bridge.add_user(user).await),
            Request::AddUsers { users } => self.add_users(users).await,
            Request::IssueToken { user, device, ttl_s } => match self.bridge.has_user(user.clone()).await {
                Ok(true) => issue(&self.key, &user, device.as_ref(), ttl_s),
                Ok(false) => Answer::UnknownUser,
                Err(error) => failed(&error),
            },
        }
    }

    /// Asks for all of them before it waits for any, so that they share commits.
    async fn add_users(&self, users: Vec<UserId>) -> Answer {
        let mut tasks = JoinSet::new();
        for user in users {
            let bridge = self.bridge.clone();
            tasks.spawn(async move { bridge.add_user(user).await });
        }
        let outcomes = tasks.join_all().await;
        added_some(outcomes.into_iter())
    }
}

/// Does what is asked, on a store that only the caller has open.
pub(crate) fn answer_alone(bridge: &mut Bridge, key: &OwnKey, request: &Request) -> Answer {
    match request {
        Request::AddUser { user } => added(bridge.add_user(user)),
        Request::AddUsers { users } => added_some(users.iter().map(|user| bridge.add_user(user))),
        Request::IssueToken { user, device, ttl_s } => match bridge.has_user(user) {
            Ok(true) => issue(key, user, device.as_ref(), *ttl_s),
            Ok(false) => Answer::UnknownUser,
            Err(error) => failed(&error),
        },
    }
}

fn added(outcome: Result<bool, natter_bridge::Error>) -> Answer {
    match outcome {
        Ok(true) => Answer::Added,
        Ok(false) => Answer::Known,
        Err(error) => failed(&error),
    }
}

fn added_some(mut outcomes: impl Iterator<Item = Result<bool, natter_bridge::Error>>) -> Answer {
    let counted = outcomes.try_fold((0, 0), |(added, known), outcome| {
        outcome.map(|is_new| if is_new { (added + 1, known) } else { (added, known + 1) })
    });
    match counted {
        Ok((added, known)) => Answer::AddedSome { added, known },
        Err(error) => failed(&error),
    }
}

fn issue(key: &OwnKey, user: &UserId, device: Option<&DeviceId>, ttl_s: u64) -> Answer {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match token::issue(&key.signing, user, device, Duration::from_secs(ttl_s), now) {
        Ok(token) => Answer::Token { token },
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> Answer {
    Answer::Failed { reason: error.to_string() }
}
