//! Where to connect, and as whom.

use natter_protocol::{DeviceId, UserId};

use crate::client::Client;
use crate::error::Error;

/// Made by [`Client::builder`].
#[derive(Clone)]
pub struct Builder {
    url: String,
    user: String,
    device: String,
    token: String,
}

/// Tokens are not for logs.
impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url, user, device, token: _ } = self;
        f.debug_struct("Builder").field("url", url).field("user", user).field("device", device).finish_non_exhaustive()
    }
}

/// A [`Builder`] that was checked.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    pub(crate) token: String,
}

impl Builder {
    pub(crate) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), user: String::new(), device: "sdk".to_owned(), token: String::new() }
    }

    /// Whose account: `[a-z0-9][a-z0-9._-]{0,63}`, usually the digits of a phone number.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    /// Which installation: `[A-Za-z0-9_-]{1,64}`. Its inbox has a cursor of its own; without a call it is `sdk`.
    #[must_use]
    pub fn device(mut self, device: &str) -> Self {
        device.clone_into(&mut self.device);
        self
    }

    /// The token of `natter token`, or of the app's own backend.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// Connects, subscribes to the device's inbox, and returns once the server has said yes to both. From then on the client
    /// reconnects by itself.
    ///
    /// # Errors
    /// [`Error::Invalid`] for names and URLs; [`Error::Denied`] for the token; [`Error::InboxRefused`] and [`Error::Unreachable`] are
    /// retryable.
    pub async fn connect(self) -> Result<Client, Error> {
        Client::connect(self.settings()?).await
    }

    fn settings(self) -> Result<Settings, Error> {
        let (host, port) = parse_url(&self.url)?;
        let invalid = |error: natter_protocol::ids::NameError| Error::Invalid(error.to_string());
        let user = UserId::parse(&self.user).map_err(invalid)?;
        let device = DeviceId::parse(&self.device).map_err(invalid)?;
        Ok(Settings { host, port, user, device, token: self.token })
    }
}

/// `mqtt://host:port`, `mqtt://host` (1883), `mqtt://[::1]:1883`.
fn parse_url(url: &str) -> Result<(String, u16), Error> {
    let refuse = || Error::Invalid(format!("url: expected mqtt://host:port, got {url:?}"));
    let address = url.strip_prefix("mqtt://").ok_or_else(refuse)?.trim_end_matches('/');
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| refuse())?),
        _ => (address, 1883),
    };
    if host.is_empty() || host.contains(['/', '@']) { Err(refuse()) } else { Ok((host.to_owned(), port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_host_and_a_port() {
        assert_eq!(parse_url("mqtt://127.0.0.1:1884"), Ok(("127.0.0.1".into(), 1884)));
        assert_eq!(parse_url("mqtt://localhost/"), Ok(("localhost".into(), 1883)));
        assert_eq!(parse_url("mqtt://[::1]:1884"), Ok(("[::1]".into(), 1884)));
        assert_eq!(parse_url("mqtt://[::1]"), Ok(("[::1]".into(), 1883)));
        for bad in ["", "localhost:1883", "mqtts://localhost", "mqtt://", "mqtt://a:b", "mqtt://u:p@host:1"] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let shown = format!("{:?}", Builder::new("mqtt://h").user("alice").token("secret"));
        assert!(shown.contains("alice") && !shown.contains("secret"));
    }
}
