//! What an account is beside its inbox: a password, whether its user may come in, and where its entries are posted to.
//!
//! A user who may not come in is there for everybody else as one whose devices are off: messages to him are accepted and wait, with one
//! tick, as long as any entry does. Who writes to him is not told, and nothing is lost if it was a mistake.

use natter_protocol::error::{Kind, Refusal};
use natter_protocol::{DeviceId, UserId};

use crate::change::{Account, Change, Revoked, Secret, Webhook};
use crate::engine::Engine;
use crate::store::{Store, StoreError};

/// Webhooks of a server; one more is refused.
pub const WEBHOOKS_MAX: usize = 10_000;

/// What can be asked for. Whatever revokes does it in the same batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// What there is of a user.
    Look(UserId),
    /// Adds a user who has a password.
    Register(UserId, Secret),
    /// Gives a user another password, or none; tokens issued before the Unix second are not accepted any more.
    SetPassword {
        /// Whom.
        user: UserId,
        /// The hash, as a PHC string.
        hash: Option<Secret>,
        /// Tokens issued before this Unix second.
        before: u64,
    },
    /// Keeps a user out, or lets him in again; when he is kept out, tokens issued before the Unix second are revoked.
    SetDisabled {
        /// Whom.
        user: UserId,
        /// Whether he is kept out.
        disabled: bool,
        /// Tokens issued before this Unix second.
        before: u64,
    },
    /// Makes a device of the user a webhook, or no webhook any more; the device stays.
    SetWebhook {
        /// Whose.
        user: UserId,
        /// Which device.
        device: DeviceId,
        /// Where to.
        webhook: Option<Webhook>,
    },
    /// Every webhook whose user may come in.
    Webhooks,
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// What there is of the user; `None`: there is no such user.
    Account(Option<Account>),
    /// It was done; `false`: the user was there already, or is not there.
    Done(bool),
    /// It was not.
    Refused(Refusal),
    /// The webhooks.
    Webhooks(Vec<(UserId, DeviceId, Webhook)>),
}

impl<S: Store> Engine<S> {
    pub(crate) fn account(&mut self, ask: Ask) -> Result<Told, StoreError> {
        match ask {
            Ask::Look(user) => {
                let is_known = self.state.user(&user)?.known;
                Ok(Told::Account(if is_known { Some(self.state.account(&user)?) } else { None }))
            }
            Ask::Register(user, hash) => {
                let is_new = self.add_user(&user)?;
                if is_new {
                    self.change(Change::Password { user, hash: Some(hash) })?;
                }
                Ok(Told::Done(is_new))
            }
            Ask::SetPassword { user, hash, before } => {
                if !self.state.user(&user)?.known {
                    return Ok(Told::Done(false));
                }
                self.change(Change::Password { user: user.clone(), hash })?;
                self.change(Change::Revoked(Revoked::User(user, before)))?;
                Ok(Told::Done(true))
            }
            Ask::SetDisabled { user, disabled, before } => {
                if !self.state.user(&user)?.known {
                    return Ok(Told::Done(false));
                }
                if self.state.account(&user)?.disabled != disabled {
                    self.change(Change::Disabled { user: user.clone(), disabled })?;
                    if disabled {
                        self.change(Change::Revoked(Revoked::User(user, before)))?;
                    }
                }
                Ok(Told::Done(true))
            }
            Ask::SetWebhook { user, device, webhook } => self.set_webhook(user, device, webhook),
            Ask::Webhooks => Ok(Told::Webhooks(self.active_webhooks())),
        }
    }

    /// Every webhook whose user may come in.
    pub(crate) fn active_webhooks(&self) -> Vec<(UserId, DeviceId, Webhook)> {
        let active = self.state.webhooks.iter().filter(|((user, _), _)| !self.state.disabled.contains(user));
        active.map(|((user, device), webhook)| (user.clone(), device.clone(), webhook.clone())).collect()
    }

    fn set_webhook(&mut self, user: UserId, device: DeviceId, webhook: Option<Webhook>) -> Result<Told, StoreError> {
        let key = (user, device);
        let before = self.state.webhooks.get(&key);
        if before == webhook.as_ref() {
            return Ok(Told::Done(true));
        }
        let is_one_more = before.is_none();
        if is_one_more && self.state.webhooks.len() >= WEBHOOKS_MAX {
            let details = format!("webhook: expected at most {WEBHOOKS_MAX} on this server, got one more");
            return Ok(Told::Refused(Refusal::new(Kind::Quota, details)));
        }
        let (user, device) = key;
        if webhook.is_some() {
            self.add_user(&user)?;
            if !self.begin_device(&user, &device)? {
                let max = self.limits.devices_max;
                let details =
                    format!("webhook: expected fewer than {max} devices of {user}, or one that was idle for a week");
                return Ok(Told::Refused(Refusal::new(Kind::Quota, details)));
            }
        }
        self.change(Change::Webhook { user, device, webhook })?;
        Ok(Told::Done(true))
    }
}
