//! Where to connect, and as whom.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use natter_protocol::{DeviceId, UserId};
use tokio::sync::oneshot;

use crate::client::Client;
use crate::error::{BoxError, Error};
use crate::feed::lock;
use crate::store::{MemoryStore, Store};
use crate::url::Url;

type Provider = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<String, BoxError>> + Send>> + Send + Sync>;

/// Made by [`Client::builder`].
///
/// ```no_run
/// # async fn example(token: &str) -> Result<(), natter_client::Error> {
/// let client = natter_client::Client::builder("mqtt://127.0.0.1:1883").user("alice").device("phone").token(token).connect().await?;
/// # Ok(())
/// # }
/// ```
pub struct Builder {
    url: String,
    user: String,
    device: String,
    tokens: Tokens,
    store: Result<Box<dyn Store>, Error>,
    http: Option<String>,
    send_only: bool,
    #[cfg(feature = "tls")]
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// Where tokens come from.
pub(crate) struct Tokens {
    provider: Option<Provider>,
    last: Mutex<Option<String>>,
    refused: Mutex<Option<String>>,
}

impl Tokens {
    /// The token that the server refused last.
    pub(crate) fn refused(&self) -> Option<String> {
        lock(&self.refused).clone()
    }

    pub(crate) fn refuse(&self, token: String) {
        *lock(&self.refused) = Some(token);
    }

    pub(crate) async fn token(&self, refused: Option<&str>) -> Result<String, Error> {
        let last = lock(&self.last).clone();
        match (&self.provider, last) {
            (_, Some(token)) if refused != Some(token.as_str()) => Ok(token),
            (None, _) => Err(Error::Denied("the token is refused, and there is no token provider to ask".into())),
            (Some(provider), _) => {
                let token = provider().await.map_err(|e| Error::Unreachable(format!("the token provider: {e}")))?;
                if refused == Some(token.as_str()) {
                    return Err(Error::Denied(
                        "the token provider gave the token again that the server refused".into(),
                    ));
                }
                *lock(&self.last) = Some(token.clone());
                Ok(token)
            }
        }
    }
}

/// A [`Builder`] that was checked.
pub(crate) struct Settings {
    pub(crate) url: Url,
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    pub(crate) tokens: Tokens,
    pub(crate) http: String,
    pub(crate) send_only: bool,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

/// Tokens are not for logs.
impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url, user, device, .. } = self;
        f.debug_struct("Builder").field("url", url).field("user", user).field("device", device).finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            user: String::new(),
            device: "sdk".to_owned(),
            tokens: Tokens { provider: None, last: Mutex::new(Some(String::new())), refused: Mutex::default() },
            store: Ok(Box::new(MemoryStore::default())),
            http: None,
            send_only: false,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Whose account: `[a-z0-9][a-z0-9._-]{0,63}`, usually the digits of a phone number.
    ///
    /// ```
    /// let builder = natter_client::Client::builder("mqtt://127.0.0.1:1883").user("4915112345678");
    /// ```
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    /// Which installation: `[A-Za-z0-9_-]{1,64}`. Its inbox has a cursor of its own; without a call it is `sdk`.
    ///
    /// ```
    /// let builder = natter_client::Client::builder("mqtt://127.0.0.1:1883").user("alice").device("laptop");
    /// ```
    #[must_use]
    pub fn device(mut self, device: &str) -> Self {
        device.clone_into(&mut self.device);
        self
    }

    /// The token of `natter token`, or of the app's own backend. When the server refuses it, the client ends.
    ///
    /// ```
    /// let token = std::env::var("NATTER_TOKEN").unwrap_or_default();
    /// let builder = natter_client::Client::builder("mqtt://127.0.0.1:1883").user("alice").token(token);
    /// ```
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.tokens = Tokens { provider: None, last: Mutex::new(Some(token.into())), refused: Mutex::default() };
        self
    }

    /// Asked for a token before the first connection, and again whenever the server refuses one, as after its expiry. When it fails, it is asked
    /// again later; when the server refuses two tokens one after the other, or it gives a refused one again, the client ends.
    ///
    /// ```
    /// # async fn log_in() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// // `log_in` asks the app's own backend.
    /// let builder = natter_client::Client::builder("mqtt://127.0.0.1:1883").user("alice").token_provider(log_in);
    /// ```
    #[must_use]
    pub fn token_provider<F, Fut, E>(mut self, provider: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let provider: Provider = Arc::new(move || {
            let token = provider();
            Box::pin(async move { token.await.map_err(Into::into) })
        });
        self.tokens = Tokens { provider: Some(provider), last: Mutex::new(None), refused: Mutex::default() };
        self
    }

    /// Keeps what is to be sent and what was received in this SQLite file, which is made where there is none. It belongs to one user and device,
    /// is locked against a second client, and may hold tables of the app's own (their names do not begin with `natter_`).
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), natter_client::Error> {
    /// let client = natter_client::Client::builder("mqtt://127.0.0.1:1883").user("alice").token("..").store("alice.db").start().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "sqlite")]
    #[must_use]
    pub fn store(mut self, path: impl AsRef<std::path::Path>) -> Self {
        let store = crate::store::SqliteStore::open(path);
        self.store = store.map(|store| Box::new(store) as Box<dyn Store>).map_err(|e| Error::Store(e.to_string()));
        self
    }

    /// Keeps everything in memory: what was not sent when the process ends is gone. This is the default.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// let client = natter_client::Client::builder("mqtt://127.0.0.1:1883").user("alice").token("..").in_memory().start().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn in_memory(self) -> Self {
        self.custom_store(MemoryStore::default())
    }

    /// Keeps everything in a store of your own; [`crate::store::conformance::check`] tests it.
    ///
    /// ```
    /// use natter_client::store::MemoryStore;
    ///
    /// let builder = natter_client::Client::builder("mqtt://127.0.0.1:1883").user("alice").custom_store(MemoryStore::default());
    /// ```
    #[must_use]
    pub fn custom_store(mut self, store: impl Store) -> Self {
        self.store = Ok(Box::new(store));
        self
    }

    /// For an app that sends and never asks for events, as a bot that reports: what arrives moves the ticks of what was sent, and is dropped.
    /// Without this call 10,000 entries wait for the app; then the server keeps the rest, and ticks stand still.
    ///
    /// Messages to this device are *delivered* then, although nobody sees them. [`Client::events`] yields live events only.
    ///
    /// ```no_run
    /// # async fn example(token: &str) -> Result<(), natter_client::Error> {
    /// let bot = natter_client::Client::builder("mqtt://127.0.0.1:1883").user("bot").token(token).send_only().start().await?;
    /// let report = bot.chat("alice").send_text("all is well").await?;
    /// report.read().await?; // ticks move, although nobody asks for events
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn send_only(mut self) -> Self {
        self.send_only = true;
        self
    }

    /// Where the HTTP API is, for media. Without a call: the host of the MQTT URL at port 8080, `https` where that is encrypted.
    ///
    /// ```
    /// let builder = natter_client::Client::builder("mqtts://chat.example.org").http("https://files.example.org");
    /// ```
    #[must_use]
    pub fn http(mut self, url: &str) -> Self {
        self.http = Some(url.trim_end_matches('/').to_owned());
        self
    }

    /// How to speak TLS, as with authorities of one's own. Without a call: the authorities that the system trusts.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// let mut roots = rustls::RootCertStore::empty();
    /// // roots.add(..) what the server's certificate is signed by.
    /// let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    /// let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    /// let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    /// let builder = natter_client::Client::builder("mqtts://chat.example.org").tls(config);
    /// # Ok::<(), rustls::Error>(())
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Connects, subscribes to the device's inbox, and returns once the server has said yes to both. From then on the client reconnects by
    /// itself, for ever.
    ///
    /// ```no_run
    /// # async fn example(token: &str) -> Result<(), natter_client::Error> {
    /// match natter_client::Client::builder("mqtt://127.0.0.1:1883").user("alice").token(token).connect().await {
    ///     Ok(client) => println!("connected as {}", client.user()),
    ///     Err(error) if error.is_auth() => println!("log in again: {error}"),
    ///     Err(error) => println!("later, perhaps: {error}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for names and URLs; [`Error::Store`]; [`Error::Denied`] for the token; [`Error::InboxRefused`] and
    /// [`Error::Unreachable`] are retryable.
    pub async fn connect(self) -> Result<Client, Error> {
        let (ready, connected) = oneshot::channel();
        let client = self.open(Some(ready)).await?;
        connected.await.unwrap_or(Err(Error::Closed))?;
        Ok(client)
    }

    /// Opens the store and returns at once; the connection is made when the server can be reached. What is sent before waits in the store.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), natter_client::Error> {
    /// let client = natter_client::Client::builder("mqtt://127.0.0.1:1").user("alice").token("..").start().await?;
    /// client.chat("bob").send_text("waits until there is a server").await?;
    /// assert_eq!(client.outgoing().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for names and URLs; [`Error::Store`].
    pub async fn start(self) -> Result<Client, Error> {
        self.open(None).await
    }

    async fn open(self, ready: Option<oneshot::Sender<Result<(), Error>>>) -> Result<Client, Error> {
        let invalid = |error: natter_protocol::ids::NameError| Error::Invalid(error.to_string());
        let url = Url::parse(&self.url)?;
        let settings = Settings {
            user: UserId::parse(&self.user).map_err(invalid)?,
            device: DeviceId::parse(&self.device).map_err(invalid)?,
            tokens: self.tokens,
            http: self.http.unwrap_or_else(|| url.http()),
            url,
            send_only: self.send_only,
            #[cfg(feature = "tls")]
            tls: self.tls,
        };
        Client::start(settings, self.store?, ready).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        let shown = format!("{:?}", Builder::new("mqtt://h").user("alice").token("secret"));
        assert!(shown.contains("alice") && !shown.contains("secret"));
    }
}
