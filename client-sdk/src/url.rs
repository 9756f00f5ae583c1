//! Where a server is.

use crate::error::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Mqtt,
    Mqtts,
    Ws,
    Wss,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) scheme: Scheme,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Of WebSocket, with its slash.
    pub(crate) path: String,
}

impl Url {
    /// `mqtt://host:port`, `mqtts://host`, `ws://[::1]:8080/mqtt`.
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let refuse = || Error::Invalid(format!("url: expected {}, got {url:?}", expected()));
        let (scheme, address) = url.split_once("://").ok_or_else(refuse)?;
        let (scheme, default) = match scheme {
            "mqtt" => (Scheme::Mqtt, 1883),
            "mqtts" if cfg!(feature = "tls") => (Scheme::Mqtts, 8883),
            "ws" if cfg!(feature = "websocket") => (Scheme::Ws, 8080),
            "wss" if cfg!(all(feature = "websocket", feature = "tls")) => (Scheme::Wss, 443),
            _ => return Err(refuse()),
        };
        let web = matches!(scheme, Scheme::Ws | Scheme::Wss);
        let (address, path) = match address.find('/') {
            Some(at) => address.split_at(at),
            None => (address, ""),
        };
        let path = match (web, path) {
            (false, "" | "/") => String::new(),
            (false, _) => return Err(refuse()),
            (true, "" | "/") => "/mqtt".to_owned(),
            (true, path) => path.to_owned(),
        };
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| refuse())?),
            _ => (address, default),
        };
        if host.is_empty() || host.contains('@') {
            return Err(refuse());
        }
        Ok(Self { scheme, host: host.to_owned(), port, path })
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.scheme, Scheme::Mqtts | Scheme::Wss)
    }

    /// Where its HTTP API is, unless told otherwise.
    pub(crate) fn http(&self) -> String {
        let scheme = if self.is_encrypted() { "https" } else { "http" };
        format!("{scheme}://{}:8080", self.host)
    }
}

fn expected() -> &'static str {
    match (cfg!(feature = "tls"), cfg!(feature = "websocket")) {
        (false, false) => "mqtt://host:port (features tls and websocket give more)",
        (true, false) => "mqtt://host:port or mqtts://host:port (feature websocket gives more)",
        (false, true) => "mqtt://host:port or ws://host:port/mqtt (feature tls gives more)",
        (true, true) => "mqtt://host:port, mqtts://host:port, ws://host:port/mqtt or wss://host:port/mqtt",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_host_and_a_port() {
        let parse = |url| Url::parse(url).map(|url| (url.host, url.port));
        assert_eq!(parse("mqtt://127.0.0.1:1884"), Ok(("127.0.0.1".into(), 1884)));
        assert_eq!(parse("mqtt://localhost/"), Ok(("localhost".into(), 1883)));
        assert_eq!(parse("mqtt://[::1]:1884"), Ok(("[::1]".into(), 1884)));
        assert_eq!(parse("mqtt://[::1]"), Ok(("[::1]".into(), 1883)));
        for bad in
            ["", "localhost:1883", "http://localhost", "mqtt://", "mqtt://a:b", "mqtt://u:p@host:1", "mqtt://h/x"]
        {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Url::parse("mqtts://h").is_ok(), cfg!(feature = "tls"));
        assert_eq!(Url::parse("ws://h").map(|url| url.path).ok(), cfg!(feature = "websocket").then(|| "/mqtt".into()));
        assert_eq!(Url::parse("mqtt://h:1").map(|url| url.http()), Ok("http://h:8080".into()));
    }
}
