//! The desk: adds users, sets passwords, keeps users out, issues and revokes tokens, from a running server's bridge or from a store that nobody else has open.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use natter_bridge::change::Secret;
use natter_bridge::devices::{Ask, Told};
use natter_bridge::webhook::Webhooks;
use natter_bridge::{Bridge, Handle, wholly};
use natter_protocol::accounts::{Accounts as _, Grant, Revocation};
use natter_protocol::error::{Kind, Refusal};
use natter_protocol::{DeviceId, UserId};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::accounts::TokenAccounts;
use crate::keys::OwnKey;
use crate::password::{Hasher, Password};
use crate::token::{self, Verifier};

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
    /// Gives a user another password; his tokens end.
    SetPassword {
        /// Whom.
        user: UserId,
        /// The new one.
        password: Password,
    },
    /// Keeps a user out, or lets him in again.
    SetDisabled {
        /// Whom.
        user: UserId,
        /// Whether he is kept out.
        disabled: bool,
    },
    /// Lets server time pass: for tests, in builds that are not for release, and only if `NATTER_TEST_CLOCK` is set.
    #[cfg(debug_assertions)]
    PassTime {
        /// Server seconds.
        secs: u64,
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
    /// It was done.
    Done,
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
    pub(crate) tokens: Arc<TokenAccounts>,
    pub(crate) hasher: Hasher,
    pub(crate) webhooks: Webhooks,
    /// What is committed and then applied: one after the other, and each to its end, whoever hangs up meanwhile.
    pub(crate) turn: Arc<Mutex<()>>,
}

impl Desk {
    /// Does what is asked, through the bridge's loop.
    pub(crate) async fn answer(&self, request: Request) -> Answer {
        match request {
            Request::AddUser { user } => added(self.bridge.add_user(user).await),
            Request::AddUsers { users } => self.add_users(users).await,
            Request::IssueToken { user, device, ttl_s } => match self.bridge.has_user(user.clone()).await {
                Ok(true) => {
                    let now = self.tokens.issue_at(&user, device.as_ref(), unix_secs());
                    issue(&self.key, &user, device.as_ref(), ttl_s, now)
                }
                Ok(false) => Answer::UnknownUser,
                Err(error) => failed(&error),
            },
            Request::SetPassword { user, password } => {
                if let Err(reason) = password.check() {
                    return Answer::Failed { reason };
                }
                match self.hasher.hash(password).await {
                    Ok(hash) => done(self.set_password(user, hash).await),
                    Err(error) => failed(&error),
                }
            }
            Request::SetDisabled { user, disabled } => done(self.set_disabled(user, disabled).await),
            #[cfg(debug_assertions)]
            Request::PassTime { secs } => self.pass_time(secs),
        }
    }

    #[cfg(debug_assertions)]
    fn pass_time(&self, secs: u64) -> Answer {
        if std::env::var_os("NATTER_TEST_CLOCK").is_none() {
            let reason =
                "expected a server that was started with NATTER_TEST_CLOCK, got one whose time passes by itself";
            return Answer::Failed { reason: reason.into() };
        }
        self.bridge.pass_time(secs);
        Answer::Done
    }

    /// Gives a user another password; every token that was issued up to now ends. `false`: there is no such user.
    pub(crate) async fn set_password(&self, user: UserId, hash: Secret) -> Result<bool, natter_bridge::Error> {
        let (turn, bridge, tokens) = (Arc::clone(&self.turn), self.bridge.clone(), Arc::clone(&self.tokens));
        wholly(async move {
            let _turn = turn.lock().await;
            let before = tokens.end_before(&user, unix_secs());
            let is_known = bridge.set_password(user.clone(), Some(hash), before).await?;
            if is_known {
                tokens.revoke(&Revocation::User { user, before });
            }
            Ok(is_known)
        })
        .await
    }

    /// Keeps a user out, and every token that was issued up to now ends; or lets him in again. `false`: there is no such user.
    pub(crate) async fn set_disabled(&self, user: UserId, disabled: bool) -> Result<bool, natter_bridge::Error> {
        let (turn, bridge, tokens) = (Arc::clone(&self.turn), self.bridge.clone(), Arc::clone(&self.tokens));
        let webhooks = self.webhooks.clone();
        wholly(async move {
            let _turn = turn.lock().await;
            let before = tokens.end_before(&user, unix_secs());
            let is_known = bridge.set_disabled(user.clone(), disabled, before).await?;
            if is_known {
                if disabled {
                    tokens.revoke(&Revocation::User { user: user.clone(), before });
                }
                tokens.set_disabled(&user, disabled);
                webhooks.look_again().await?;
            }
            Ok(is_known)
        })
        .await
    }

    /// Begins a device for the user of `asked`, whose token was good a moment ago, and says how the device's token is to be dated.
    pub(crate) async fn link(
        &self,
        asked: &Grant,
        device: &DeviceId,
        label: Option<String>,
    ) -> Result<u64, natter_bridge::Error> {
        let (turn, bridge, tokens) = (Arc::clone(&self.turn), self.bridge.clone(), Arc::clone(&self.tokens));
        let (asked, device) = (asked.clone(), device.clone());
        wholly(async move {
            let _turn = turn.lock().await;
            // Under the turn: whatever ends that token later also covers the new one.
            tokens
                .still_holds(&asked, unix_secs())
                .map_err(|denied| natter_bridge::Error::from(Refusal::new(Kind::Token, denied.to_string())))?;
            let at = tokens.issue_at(&asked.user, Some(&device), unix_secs());
            bridge.devices(Ask::Link { user: asked.user, device, label }).await?;
            Ok(at)
        })
        .await
    }

    /// Cuts a device off: its tokens, its connections and its inbox end. `false`: there is no such device.
    pub(crate) async fn unlink(&self, user: UserId, device: DeviceId) -> Result<bool, natter_bridge::Error> {
        let (turn, bridge, tokens) = (Arc::clone(&self.turn), self.bridge.clone(), Arc::clone(&self.tokens));
        wholly(async move {
            let _turn = turn.lock().await;
            let before = tokens.end_before(&user, unix_secs());
            let end = Ask::Unlink { user: user.clone(), device: device.clone(), before };
            let is_known = bridge.devices(end.clone()).await? == Told::Done(true);
            if is_known {
                tokens.revoke(&Revocation::Device { user, device, before });
                // A call of the device over HTTP may have come between the two, and have begun it again.
                bridge.devices(end).await?;
            }
            Ok(is_known)
        })
        .await
    }

    /// Ends what `revocation` covers, and the connections with it.
    pub(crate) async fn revoke(&self, revocation: Revocation) -> Result<(), natter_bridge::Error> {
        let (turn, bridge, tokens) = (Arc::clone(&self.turn), self.bridge.clone(), Arc::clone(&self.tokens));
        wholly(async move {
            let _turn = turn.lock().await;
            bridge.revoke(revocation.clone()).await?;
            tokens.revoke(&revocation);
            Ok(())
        })
        .await
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
    let tokens = TokenAccounts::new(Verifier::new(Vec::new()), &bridge.revocations(), Vec::new());
    match request {
        Request::AddUser { user } => added(bridge.add_user(user)),
        Request::AddUsers { users } => added_some(users.iter().map(|user| bridge.add_user(user))),
        Request::IssueToken { user, device, ttl_s } => match bridge.has_user(user) {
            Ok(true) => issue(key, user, device.as_ref(), *ttl_s, tokens.issue_at(user, device.as_ref(), unix_secs())),
            Ok(false) => Answer::UnknownUser,
            Err(error) => failed(&error),
        },
        Request::SetPassword { user, password } => match password.check().and_then(|()| password.hash()) {
            Ok(hash) => done(bridge.set_password(user, Some(hash), tokens.end_before(user, unix_secs()))),
            Err(reason) => Answer::Failed { reason },
        },
        Request::SetDisabled { user, disabled } => {
            done(bridge.set_disabled(user, *disabled, tokens.end_before(user, unix_secs())))
        }
        #[cfg(debug_assertions)]
        Request::PassTime { .. } => Answer::Failed { reason: "expected a server that runs, got none".into() },
    }
}

fn done(outcome: Result<bool, natter_bridge::Error>) -> Answer {
    match outcome {
        Ok(true) => Answer::Done,
        Ok(false) => Answer::UnknownUser,
        Err(error) => failed(&error),
    }
}

/// What time it is, in Unix seconds.
pub(crate) fn unix_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
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

fn issue(key: &OwnKey, user: &UserId, device: Option<&DeviceId>, ttl_s: u64, now: u64) -> Answer {
    match token::issue(&key.signing, user, device, Duration::from_secs(ttl_s), now) {
        Ok(token) => Answer::Token { token },
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> Answer {
    Answer::Failed { reason: error.to_string() }
}
