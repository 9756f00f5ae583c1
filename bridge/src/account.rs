//! What an account is beside its inbox: a password, whether its user may come in, and where its entries are posted to.
//!
//! A user who may not come in is there for everybody else as one whose devices are off: messages to him are accepted and wait, with one
//! tick, as long as any entry does. Who writes to him is not told, and nothing is lost if it was a mistake.

use natter_protocol::error::{Kind, Refusal};
use natter_protocol::{Chat, DeviceId, MessageId, N, UserId};

use crate::change::{Account, Change, Revoked, Secret, Webhook};
use crate::chat_key::ChatKey;
use crate::engine::{Engine, Reply, Request};
use crate::store::{Store, StoreError};
use crate::{Bridge, Error, Handle};

/// Webhooks of a server; one more is refused.
pub const WEBHOOKS_MAX: usize = 10_000;

/// Numbers of a chat that are looked through in one go for the messages that a receipt covers.
const COVERED_MAX: N = 100;

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
    /// Makes a device of the user a webhook, or takes webhook and device away.
    SetWebhook {
        /// Whose.
        user: UserId,
        /// Which device.
        device: DeviceId,
        /// Where to.
        webhook: Option<Webhook>,
    },
    /// One webhook, if its user may come in.
    Webhook(UserId, DeviceId),
    /// Every webhook whose user may come in.
    Webhooks,
    /// The ids of the user's messages that a receipt covers, the first of them.
    Covered {
        /// Whose messages.
        user: UserId,
        /// In which chat, as he sees it.
        chat: Chat,
        /// Above this number.
        after: N,
        /// Up to this one.
        upto: N,
    },
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
    /// The webhook.
    Webhook(Option<Webhook>),
    /// The webhooks.
    Webhooks(Vec<(UserId, DeviceId, Webhook)>),
    /// Ids, oldest first, and up to which number that is all.
    Covered(Vec<MessageId>, N),
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
            Ask::Webhook(user, device) => {
                let may_come_in = !self.state.disabled.contains(&user);
                let webhook = self.state.webhooks.get(&(user, device)).filter(|_| may_come_in);
                Ok(Told::Webhook(webhook.cloned()))
            }
            Ask::Webhooks => Ok(Told::Webhooks(self.active_webhooks())),
            Ask::Covered { user, chat, after, upto } => self.covered(&user, &chat, after, upto),
        }
    }

    fn covered(&mut self, user: &UserId, chat: &Chat, after: N, upto: N) -> Result<Told, StoreError> {
        let key = ChatKey::new(user, chat);
        let upto = upto.min(after.saturating_add(COVERED_MAX));
        let (mut ids, mut below) = (Vec::new(), upto);
        while let Some((n, id)) = self.state.newest_of(&key, user, after, below)? {
            ids.push(id);
            below = n - 1;
        }
        ids.reverse();
        Ok(Told::Covered(ids, upto))
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
        let is_gone = webhook.is_none();
        self.change(Change::Webhook { user: user.clone(), device: device.clone(), webhook })?;
        if is_gone && let Some(row) = self.state.user(&user)?.devices.get(&device) {
            let cursor = row.position();
            self.change(Change::DeviceGone { user, device, cursor })?;
        }
        Ok(Told::Done(true))
    }
}

impl Bridge {
    /// Every user who may not come in.
    #[must_use]
    pub fn disabled(&self) -> Vec<UserId> {
        self.engine.disabled()
    }

    /// Gives a user another password, or none, and revokes his tokens issued before the Unix second; `false`: there is no such user.
    ///
    /// # Errors
    /// When the commit fails.
    pub fn set_password(&mut self, user: &UserId, hash: Option<Secret>, before: u64) -> Result<bool, Error> {
        done(self.ask(Request::Account(Ask::SetPassword { user: user.clone(), hash, before }))?)
    }

    /// Keeps a user out, or lets him in again; `false`: there is no such user. Who is kept out loses his tokens issued before the Unix
    /// second too.
    ///
    /// # Errors
    /// When the commit fails.
    pub fn set_disabled(&mut self, user: &UserId, disabled: bool, before: u64) -> Result<bool, Error> {
        done(self.ask(Request::Account(Ask::SetDisabled { user: user.clone(), disabled, before }))?)
    }
}

impl Handle {
    /// What there is of a user; `None`: there is no such user.
    ///
    /// # Errors
    /// When the loop has ended.
    pub async fn account(&self, user: UserId) -> Result<Option<Account>, Error> {
        match self.tell(Ask::Look(user)).await? {
            Told::Account(account) => Ok(account),
            _ => Err(Error::Ended),
        }
    }

    /// Adds a user who has a password, after the commit; `false`: there is such a user.
    ///
    /// # Errors
    /// When the loop has ended or the commit fails.
    pub async fn register(&self, user: UserId, hash: Secret) -> Result<bool, Error> {
        done(self.reply(Request::Account(Ask::Register(user, hash))).await?)
    }

    /// As [`Bridge::set_password`].
    ///
    /// # Errors
    /// When the loop has ended or the commit fails.
    pub async fn set_password(&self, user: UserId, hash: Option<Secret>, before: u64) -> Result<bool, Error> {
        done(self.reply(Request::Account(Ask::SetPassword { user, hash, before })).await?)
    }

    /// As [`Bridge::set_disabled`].
    ///
    /// # Errors
    /// When the loop has ended or the commit fails.
    pub async fn set_disabled(&self, user: UserId, disabled: bool, before: u64) -> Result<bool, Error> {
        done(self.reply(Request::Account(Ask::SetDisabled { user, disabled, before })).await?)
    }

    /// Makes a device of the user a webhook, or takes webhook and device away, after the commit.
    ///
    /// # Errors
    /// [`Error::Refused`]: a quota is full. Otherwise the loop has ended or the commit failed.
    pub async fn set_webhook(&self, user: UserId, device: DeviceId, webhook: Option<Webhook>) -> Result<(), Error> {
        match self.tell(Ask::SetWebhook { user, device, webhook }).await? {
            Told::Done(_) => Ok(()),
            Told::Refused(refusal) => Err(refusal.into()),
            _ => Err(Error::Ended),
        }
    }

    /// A user's webhook, if he may come in.
    ///
    /// # Errors
    /// When the loop has ended.
    pub async fn webhook(&self, user: UserId, device: DeviceId) -> Result<Option<Webhook>, Error> {
        match self.tell(Ask::Webhook(user, device)).await? {
            Told::Webhook(webhook) => Ok(webhook),
            _ => Err(Error::Ended),
        }
    }

    /// Every webhook whose user may come in.
    ///
    /// # Errors
    /// When the loop has ended.
    pub async fn webhooks(&self) -> Result<Vec<(UserId, DeviceId, Webhook)>, Error> {
        match self.tell(Ask::Webhooks).await? {
            Told::Webhooks(webhooks) => Ok(webhooks),
            _ => Err(Error::Ended),
        }
    }

    /// The ids of the user's messages in `chat` with `after < n <= upto`, oldest first, and up to which number these are all.
    ///
    /// # Errors
    /// When the loop has ended, or the store cannot be read now.
    pub async fn covered(&self, user: UserId, chat: Chat, after: N, upto: N) -> Result<(Vec<MessageId>, N), Error> {
        match self.tell(Ask::Covered { user, chat, after, upto }).await? {
            Told::Covered(ids, upto) => Ok((ids, upto)),
            _ => Err(Error::Ended),
        }
    }

    async fn tell(&self, ask: Ask) -> Result<Told, Error> {
        match self.reply(Request::Account(ask)).await? {
            Reply::Account(told) => Ok(told),
            _ => Err(Error::Ended),
        }
    }
}

fn done(reply: Reply) -> Result<bool, Error> {
    match reply {
        Reply::Account(Told::Done(done)) => Ok(done),
        _ => Err(Error::Ended),
    }
}
