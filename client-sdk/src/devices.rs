//! The devices of a user: which there are, a code for a new one, and the end of one. Over HTTP.
//!
//! A signed-in device asks for a [`LinkCode`] and shows it; the new one [redeems](Client::redeem) it for a token of its own, and is there
//! from then on: what arrives waits for it. [`Client::unlink`] ends it, with its token, its connections and what waits for it.
//!
//! A token that names no device may do all of that. The token of a single device ends that device; for others it needs the user's password
//! beside it, as in [`Client::link_code_with_password`].

mod error;
mod redeem;

use std::fmt;

use hyper::Method;
use natter_protocol::DeviceId;
use serde::Deserialize;
use serde_json::{Value, json};

pub use error::DeviceError;
pub use redeem::{Linked, Redeem};

use crate::Client;
use crate::http::HttpError;

/// A device of the user.
///
/// ```no_run
/// # async fn example(client: natter_client::Client) -> Result<(), natter_client::devices::DeviceError> {
/// for device in client.devices().await? {
///     let label = device.label.as_deref().unwrap_or("no label");
///     println!("{} ({label}), {}", device.name, if device.connected { "connected" } else { "away" });
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// Its name, as `laptop`.
    pub name: String,
    /// What it was called when it was linked.
    pub label: Option<String>,
    /// Unix second in which it began; `None`: the server does not know it any more.
    pub linked_at: Option<u64>,
    /// Whether it reads its inbox over MQTT now.
    pub connected: bool,
    /// Unix second since which it does.
    pub connected_since: Option<u64>,
    /// Unix second in which it was there last, at times only to the hour.
    pub last_seen: Option<u64>,
    /// Whether the token of this client is that device's. A token that names no device is nobody's.
    pub is_current: bool,
}

/// A code that links one device: for the screen of the device that asked for it, and for nothing else.
///
/// ```no_run
/// # async fn example(client: natter_client::Client) -> Result<(), natter_client::devices::DeviceError> {
/// let code = client.link_code().await?;
/// println!("on the new device: natter link --user {} {}", client.user(), code.code);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkCode {
    /// As people read it: `7G4K-X2MQ`.
    pub code: String,
    /// Unix second from which it is no good any more; it is good once, and a restart of the server ends it too.
    pub expires_at: u64,
}

/// A code is not for logs.
impl fmt::Debug for LinkCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkCode").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Devices {
    devices: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    device: String,
    label: Option<String>,
    linked_at: Option<String>,
    connected: bool,
    connected_since: Option<String>,
    last_seen: Option<String>,
    current: bool,
}

#[derive(Deserialize)]
struct Made {
    code: String,
    expires_at: u64,
}

impl From<Listed> for Device {
    fn from(listed: Listed) -> Self {
        let secs = |text: Option<String>| text.and_then(|text| text.parse().ok());
        Self {
            name: listed.device,
            label: listed.label,
            linked_at: secs(listed.linked_at),
            connected: listed.connected,
            connected_since: secs(listed.connected_since),
            last_seen: secs(listed.last_seen),
            is_current: listed.current,
        }
    }
}

impl Client {
    /// The user's devices, in order of names: those that have begun to read, and those that were linked and have not connected yet.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), natter_client::devices::DeviceError> {
    /// let away = client.devices().await?.into_iter().filter(|device| !device.connected).count();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`DeviceError`] lists them. Nothing is tried again but a request whose token was refused, once.
    pub async fn devices(&self) -> Result<Vec<Device>, DeviceError> {
        let body = self.ask_http(Method::GET, "/v1/devices", None).await?;
        let Devices { devices } = read(&body)?;
        Ok(devices.into_iter().map(Device::from).collect())
    }

    /// A code for one new device of the user: good for two minutes, once, and as long as this client's token is.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), natter_client::devices::DeviceError> {
    /// println!("{}", client.link_code().await?.code);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`DeviceError::NotAllowed`]: the client's token is one of a single device, and needs the password
    /// ([`Client::link_code_with_password`]), or another issuer's, who gives the new device its token. [`DeviceError::NotNow`]: ten codes a
    /// minute are a user's. And the others of [`DeviceError`].
    pub async fn link_code(&self) -> Result<LinkCode, DeviceError> {
        self.make_code(None).await
    }

    /// As [`Client::link_code`], also with the token of a single device.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client, password: &str) -> Result<(), natter_client::devices::DeviceError> {
    /// println!("{}", client.link_code_with_password(password).await?.code);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`DeviceError::Denied`]: it is another password, or the token is not good any more. And the others of [`DeviceError`].
    pub async fn link_code_with_password(&self, password: &str) -> Result<LinkCode, DeviceError> {
        self.make_code(Some(password)).await
    }

    /// Ends a device of the user: when this returns, its tokens are no good, its connections are cut and nothing is kept for it. A client that
    /// runs there ends with [`Error::Denied`](crate::Error::Denied).
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client) -> Result<(), natter_client::devices::DeviceError> {
    /// client.unlink("laptop").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`DeviceError::NotFound`]: there is no such device. [`DeviceError::NotAllowed`]: the client's token is one of another device, and needs
    /// the password ([`Client::unlink_with_password`]). And the others of [`DeviceError`].
    pub async fn unlink(&self, name: &str) -> Result<(), DeviceError> {
        self.unlink_device(name, None).await
    }

    /// As [`Client::unlink`], also with the token of another device.
    ///
    /// ```no_run
    /// # async fn example(client: natter_client::Client, password: &str) -> Result<(), natter_client::devices::DeviceError> {
    /// client.unlink_with_password("laptop", password).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`DeviceError::Denied`]: it is another password, or the token is not good any more. And the others of [`DeviceError`].
    pub async fn unlink_with_password(&self, name: &str, password: &str) -> Result<(), DeviceError> {
        self.unlink_device(name, Some(password)).await
    }

    /// Begins the linking of this device, without a client: against `code`, which a signed-in device of `user` shows, the server at `http_url`
    /// (`http://host:8080`, `https://host`) gives a token for `device`. Nothing happens before it is awaited.
    ///
    /// ```no_run
    /// # async fn example(code: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// use natter_client::Client;
    ///
    /// let linked = Client::redeem("http://127.0.0.1:8080", "alice", code, "laptop").label("Work").await?;
    /// // Keep the token where nobody else reads it: it is good for this device alone.
    /// let client = Client::builder("mqtt://127.0.0.1:1883").user("alice").device("laptop").token(linked.token).connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn redeem(http_url: &str, user: &str, code: &str, device: &str) -> Redeem {
        Redeem::new(http_url, user, code, device)
    }

    async fn make_code(&self, password: Option<&str>) -> Result<LinkCode, DeviceError> {
        let body = self.ask_http(Method::POST, "/v1/devices/codes", with(password).as_ref()).await?;
        let Made { code, expires_at } = read(&body)?;
        Ok(LinkCode { code, expires_at })
    }

    async fn unlink_device(&self, name: &str, password: Option<&str>) -> Result<(), DeviceError> {
        let name = DeviceId::parse(name).map_err(|error| DeviceError::Invalid(format!("device: {error}")))?;
        let body = with(password);
        self.ask_http(Method::DELETE, &format!("/v1/devices/{name}"), body.as_ref()).await?;
        Ok(())
    }
}

fn with(password: Option<&str>) -> Option<Value> {
    password.map(|password| json!({"password": password}))
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, DeviceError> {
    serde_json::from_slice(body).map_err(|error| DeviceError::Protocol(error.to_string()))
}

impl From<HttpError> for DeviceError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Invalid(details) => Self::Invalid(details),
            HttpError::Unreachable(details) => Self::Unreachable(details),
            HttpError::Refused(problem) => Self::of(problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_of_a_device_is_read() {
        let body = br#"{"devices":[{"device":"laptop","label":"Work","linked_at":"7","connected":true,"connected_since":"8","last_seen":"9","current":true},
            {"device":"old","connected":false,"current":false}]}"#;
        let Devices { devices } = read(body).expect("a list");
        let [laptop, old] = &devices.into_iter().map(Device::from).collect::<Vec<_>>()[..] else { panic!("two") };
        assert_eq!((laptop.name.as_str(), laptop.label.as_deref(), laptop.is_current), ("laptop", Some("Work"), true));
        assert_eq!((laptop.linked_at, laptop.connected_since, laptop.last_seen), (Some(7), Some(8), Some(9)));
        assert_eq!((old.label.as_ref(), old.linked_at, old.connected), (None, None, false));
        assert!(matches!(read::<Devices>(b"{}"), Err(DeviceError::Protocol(_))));
    }

    #[test]
    fn a_code_is_never_shown() {
        let shown = format!("{:?}", LinkCode { code: "7G4K-X2MQ".into(), expires_at: 5 });
        assert!(shown.contains('5') && !shown.contains("7G4K"), "{shown}");
    }
}
