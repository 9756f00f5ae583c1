//! Webhooks: what a device of a user gets is posted to his backend, in the shape of WhatsApp's Cloud API. A 2xx is the acknowledgement.
//!
//! - `address` which callbacks are accepted, and which addresses are nobody's business · `post` the HTTP client
//! - `envelope` an entry in the Cloud API's words, pure · `delivery` reads the inbox and posts, in order per chat, until it is taken
//! - `routes` registration, by Natter's own route and by the Cloud API's calls
//!
//! A webhook is a device of its user, [`DEVICE`]: it begins with its registration, has a cursor, lags, makes ticks, as any other.

mod address;
mod delivery;
mod envelope;
mod post;
mod routes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use natter_protocol::error::{Kind, Refusal};
use natter_protocol::{DeviceId, UserId};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use address::is_private;
pub use routes::{configuration, router};

use crate::change::{Secret, Webhook};
use crate::{Error, Handle, wholly};
pub(crate) use address::Target;
use delivery::Delivery;
pub(crate) use post::Client;

/// The device that a webhook is.
pub const DEVICE: &str = natter_protocol::ids::WEBHOOK_DEVICE;
/// Callbacks that are being verified at a time; others are told "not now".
const VERIFICATIONS_MAX: usize = 16;
/// Longest callback, verify token and secret, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 2048;
/// How long a stop waits for POSTs that are on their way: their acknowledgements are lost otherwise, and they come again.
const STOP_WAIT: Duration = Duration::from_secs(3);

/// What is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Callbacks may lie at private addresses, and there at http:// too.
    pub private_addresses: bool,
    /// POSTs to all callbacks at a time.
    pub posts_at_a_time: usize,
    /// How long a callback may take, from the connection on.
    pub timeout: Duration,
}

/// Every webhook of a server, and what posts for them. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks {
    inner: Arc<Inner>,
}

struct Inner {
    bridge: Handle,
    client: Client,
    posts: Arc<Semaphore>,
    verifications: Semaphore,
    stopping: watch::Sender<bool>,
    running: Mutex<Running>,
    looking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Running {
    tasks: JoinSet<()>,
    deliveries: HashMap<(UserId, DeviceId), Arc<Delivery>>,
}

/// How a webhook is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Why the last POST was not taken; `None`: it was.
    pub last_error: Option<String>,
    /// Since when it has been so, in Unix seconds.
    pub failing_since: Option<u64>,
}

impl Webhooks {
    /// Begins to post for every webhook that the bridge knows.
    ///
    /// # Errors
    /// When the bridge does not answer.
    pub async fn start(bridge: Handle, settings: Settings) -> Result<Self, Error> {
        let inner = Inner {
            client: Client::new(settings),
            posts: Arc::new(Semaphore::new(settings.posts_at_a_time)),
            verifications: Semaphore::new(VERIFICATIONS_MAX),
            stopping: watch::Sender::new(false),
            running: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            bridge,
        };
        let webhooks = Self { inner: Arc::new(inner) };
        webhooks.look_again().await?;
        Ok(webhooks)
    }

    /// Goes on with what the bridge knows now: a user was kept out, or let in.
    ///
    /// # Errors
    /// When the bridge does not answer.
    pub async fn look_again(&self) -> Result<(), Error> {
        // One at a time: what was read earlier must not be applied later.
        let _turn = self.inner.looking.lock().await;
        let known = self.inner.bridge.webhooks().await?;
        let mut running = self.lock();
        let mut deliveries = HashMap::new();
        for (user, device, webhook) in known {
            let key = (user, device);
            let is_same = running.deliveries.get(&key).is_some_and(|delivery| delivery.is_for(&webhook));
            let delivery =
                if is_same { running.deliveries.remove(&key) } else { self.begin(&mut running, key.clone(), webhook) };
            if let Some(delivery) = delivery {
                deliveries.insert(key, delivery);
            }
        }
        // Those that are not there any more, and those before what is new.
        for gone in std::mem::replace(&mut running.deliveries, deliveries).into_values() {
            gone.stop();
        }
        // What has ended is forgotten.
        while running.tasks.try_join_next().is_some() {}
        Ok(())
    }

    fn begin(&self, running: &mut Running, key: (UserId, DeviceId), webhook: Webhook) -> Option<Arc<Delivery>> {
        if *self.inner.stopping.borrow() {
            return None;
        }
        let target = match Target::parse(&webhook.url) {
            Ok(target) => target,
            Err(error) => {
                tracing::error!(user = %key.0, %error, "a webhook's callback does not read");
                return None;
            }
        };
        let Inner { bridge, client, posts, stopping, .. } = &*self.inner;
        let delivery = Arc::new(Delivery::new(key, webhook, target));
        let task = Arc::clone(&delivery).run(bridge.clone(), client.clone(), Arc::clone(posts), stopping.subscribe());
        running.tasks.spawn(task);
        Some(delivery)
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Posts nothing more, and waits for a moment for what is on its way.
    pub async fn stop(&self) {
        self.inner.stopping.send_replace(true);
        let mut tasks = std::mem::take(&mut self.lock().tasks);
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_WAIT, ended).await.is_err() {
            tracing::debug!("some webhooks did not answer in time: their entries come again");
        }
    }

    /// A user's webhook, as it is stored.
    ///
    /// # Errors
    /// When the bridge does not answer.
    pub async fn of(&self, user: &UserId) -> Result<Option<Webhook>, Error> {
        self.inner.bridge.webhook(user.clone(), DeviceId::webhook()).await
    }

    /// How a user's webhook is doing.
    #[must_use]
    pub fn health(&self, user: &UserId) -> Option<Health> {
        let running = self.lock();
        let found = running.deliveries.iter().find(|((of, device), _)| of == user && device.as_str() == DEVICE);
        found.map(|(_, delivery)| delivery.health())
    }

    /// Gives a user a webhook, or another one, once its callback has answered the challenge; the secret stays, or is made, if none is given.
    /// `still`: whether the caller may do that, before and after the callback has answered. Returns the webhook, and whether the secret is new.
    ///
    /// # Errors
    /// [`Error::Refused`]: the callback is not accepted, did not answer, or a quota is full.
    pub async fn set(
        &self,
        user: &UserId,
        url: String,
        verify_token: String,
        secret: Option<String>,
        still: impl Fn() -> Result<(), Refusal>,
    ) -> Result<(Webhook, bool), Error> {
        still()?;
        for (name, text) in [("url", &url), ("verify_token", &verify_token)] {
            if text.len() > TEXT_BYTES_MAX {
                let details = format!("{name}: expected at most {TEXT_BYTES_MAX} bytes, got {}", text.len());
                return Err(Refusal::new(Kind::InvalidValue, details).into());
            }
        }
        let target = Target::parse(&url).map_err(|details| Refusal::new(Kind::InvalidValue, details))?;
        let busy = natter_protocol::error::NotNow::Busy;
        let permit = self.inner.verifications.try_acquire().map_err(|_| Error::NotNow(busy))?;
        let challenge = random_number().to_string();
        let outcome = self.inner.client.verify(&target, &verify_token, &challenge).await;
        drop(permit);
        outcome.map_err(|details| Refusal::new(Kind::InvalidValue, details))?;
        let before = self.of(user).await?.map(|webhook| webhook.secret);
        still()?;
        let is_new = secret.is_none() && before.is_none();
        let secret = secret.map(Secret).or(before).unwrap_or_else(random_secret);
        let webhook = Webhook { url, verify_token: Secret(verify_token), secret };
        self.store(user, Some(webhook.clone())).await?;
        Ok((webhook, is_new))
    }

    /// Gives a user's webhook another secret; a new one if none is given. `None`: there is no webhook.
    ///
    /// # Errors
    /// When the bridge does not answer.
    pub async fn set_secret(&self, user: &UserId, secret: Option<String>) -> Result<Option<Webhook>, Error> {
        let Some(webhook) = self.of(user).await? else { return Ok(None) };
        let secret = secret.map_or_else(random_secret, Secret);
        let webhook = Webhook { secret, ..webhook };
        self.store(user, Some(webhook.clone())).await?;
        Ok(Some(webhook))
    }

    /// Takes a user's webhook away, and the device that it is.
    ///
    /// # Errors
    /// When the bridge does not answer.
    pub async fn remove(&self, user: &UserId) -> Result<(), Error> {
        self.store(user, None).await
    }

    async fn store(&self, user: &UserId, webhook: Option<Webhook>) -> Result<(), Error> {
        let (webhooks, user) = (self.clone(), user.clone());
        // To its end, whoever hangs up: what is stored must be what runs.
        wholly(async move {
            webhooks.inner.bridge.set_webhook(user, DeviceId::webhook(), webhook).await?;
            webhooks.look_again().await
        })
        .await
    }
}

/// What a callback must repeat: decimal digits without a leading zero, below 2^53, since some answer it as a JSON number.
fn random_number() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness a challenge is still one: the callback is asked all the same.
    let _ = SystemRandom::new().fill(&mut bytes);
    1_000_000_000 + u64::from_be_bytes(bytes) % 8_000_000_000_000_000
}

fn random_secret() -> Secret {
    let mut bytes = [0; 32];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        // A secret that anybody knows is none: this one nobody does.
        return Secret(format!("{}{}", uuid::Uuid::now_v7().simple(), uuid::Uuid::now_v7().simple()));
    }
    Secret(post::hex(&bytes))
}
