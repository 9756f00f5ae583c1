//! A new device: its code against a token.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;

use hyper::{Method, header};
use natter_protocol::{DeviceId, UserId};
use serde::Deserialize;
use serde_json::json;

use super::{DeviceError, read};
use crate::http::{self, Base, Http};

/// A device that is being linked: await it. See [`Client::redeem`](crate::Client::redeem).
///
/// ```no_run
/// # async fn example(code: &str) -> Result<(), natter_client::devices::DeviceError> {
/// let redeem = natter_client::Client::redeem("https://chat.example.org", "alice", code, "laptop");
/// let linked = redeem.label("Work").await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens before it is awaited"]
pub struct Redeem {
    url: String,
    user: String,
    code: String,
    device: String,
    label: Option<String>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// A code is not for logs.
impl fmt::Debug for Redeem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, user, device, .. } = self;
        f.debug_struct("Redeem").field("url", url).field("user", user).field("device", device).finish_non_exhaustive()
    }
}

/// A device that is linked.
///
/// ```no_run
/// # async fn example(code: &str) -> Result<(), natter_client::devices::DeviceError> {
/// let linked = natter_client::Client::redeem("http://127.0.0.1:8080", "alice", code, "laptop").await?;
/// println!("log in again, or renew the token, before {}", linked.expires_at);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Linked {
    /// Whose it is.
    pub user: String,
    /// A token for this device alone, for [`Builder::token`](crate::Builder::token). Whoever has it is the device.
    pub token: String,
    /// Until when it is good, in Unix seconds.
    pub expires_at: u64,
}

/// A token is not for logs.
impl fmt::Debug for Linked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, expires_at, token: _ } = self;
        f.debug_struct("Linked").field("user", user).field("expires_at", expires_at).finish_non_exhaustive()
    }
}

impl Redeem {
    pub(super) fn new(url: &str, user: &str, code: &str, device: &str) -> Self {
        let [url, user, code, device] = [url, user, code, device].map(str::to_owned);
        Self { url, user, code, device, label: None, tls: None }
    }

    /// What the user calls the device in his list: at most 64 characters, none of them a control character.
    ///
    /// ```
    /// let redeem = natter_client::Client::redeem("http://127.0.0.1:8080", "alice", "7G4K-X2MQ", "laptop").label("Work");
    /// ```
    pub fn label(mut self, label: &str) -> Self {
        self.label = Some(label.to_owned());
        self
    }

    /// How to speak TLS, as with authorities of one's own. Without a call: the authorities that the system trusts.
    ///
    /// ```
    /// # fn example(config: std::sync::Arc<rustls::ClientConfig>) {
    /// let redeem = natter_client::Client::redeem("https://chat.example.org", "alice", "7G4K-X2MQ", "laptop").tls(config);
    /// # }
    /// ```
    pub fn tls(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    async fn run(self) -> Result<Linked, DeviceError> {
        let Self { url, user, code, device, label, tls } = self;
        let http = Http::new(Base::parse(&url)?, tls);
        let user = UserId::parse_recipient(&user).map_err(|error| DeviceError::Invalid(format!("user: {error}")))?;
        let device = DeviceId::parse(&device).map_err(|error| DeviceError::Invalid(format!("device: {error}")))?;
        let mut body = json!({"user": user.as_str(), "code": code, "device": device.as_str()});
        if let Some(label) = label {
            body["label"] = label.into();
        }
        let request = http.open_request(Method::POST, "/v1/devices").header(header::CONTENT_TYPE, "application/json");
        match http.ask(request, http::json(&body)).await.map_err(DeviceError::from) {
            Ok((_, answer)) => read(&answer),
            // There is no token here that could be refused.
            Err(DeviceError::Denied(details)) => Err(DeviceError::WrongCode(details)),
            Err(error) => Err(error),
        }
    }
}

impl IntoFuture for Redeem {
    type Output = Result<Linked, DeviceError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_code_nor_token_is_ever_shown() {
        let redeem = Redeem::new("http://h", "alice", "7G4K-X2MQ", "laptop");
        let linked = Linked { user: "alice".into(), token: "secret".into(), expires_at: 5 };
        let shown = format!("{redeem:?} {linked:?}");
        assert!(shown.contains("laptop") && !shown.contains("7G4K") && !shown.contains("secret"), "{shown}");
    }
}
