//! Where the server's HTTP is, and what stands in URLs. Pure.

use hyper::Uri;

use super::HttpError;

/// The root of the server's HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) is_tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Before every path; empty, or `/something`.
    pub(crate) prefix: String,
}

impl Base {
    /// Reads `http://host:port`, `https://host`, `https://host/natter`.
    pub(crate) fn parse(url: &str) -> Result<Self, HttpError> {
        let refuse = || HttpError::Invalid(format!("url: expected http://host:port or https://host, got {url:?}"));
        let uri: Uri = url.trim().parse().map_err(|_| refuse())?;
        Self::of(&uri).filter(|_| uri.query().is_none()).ok_or_else(refuse)
    }

    fn of(uri: &Uri) -> Option<Self> {
        let is_tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Some(Self { is_tls, host: authority.host().to_owned(), port, prefix })
    }

    /// Where a redirect leads: the server that it names, and the path there with its query.
    pub(crate) fn redirected(&self, location: &str) -> Option<(Self, String)> {
        let uri: Uri = location.parse().ok()?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        if uri.scheme().is_none() {
            return path.starts_with('/').then(|| (Self { prefix: String::new(), ..self.clone() }, path));
        }
        let base = Self::of(&uri)?;
        // Nobody is led from TLS into the open.
        (base.is_tls || !self.is_tls).then(|| (Self { prefix: String::new(), ..base }, path))
    }

    /// For the `Host` header.
    pub(crate) fn authority(&self) -> String {
        let Self { host, port, is_tls, .. } = self;
        if *port == if *is_tls { 443 } else { 80 } { host.clone() } else { format!("{host}:{port}") }
    }

    /// The host as the resolver and TLS want it: an IPv6 address without brackets.
    pub(crate) fn name(&self) -> &str {
        self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host)
    }

    /// The same server.
    pub(crate) fn is_origin_of(&self, other: &Self) -> bool {
        (self.is_tls, &self.host, self.port) == (other.is_tls, &other.host, other.port)
    }
}

/// A value of a query, or a segment of a path (RFC 3986 section 2.3).
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(url: &str) -> Base {
        Base::parse(url).expect("a URL")
    }

    #[test]
    fn urls_name_a_server_and_a_prefix() {
        let expected =
            |is_tls, host: &str, port, prefix: &str| Base { is_tls, host: host.into(), port, prefix: prefix.into() };
        assert_eq!(base("http://127.0.0.1:8080"), expected(false, "127.0.0.1", 8080, ""));
        assert_eq!(base("https://chat.example/"), expected(true, "chat.example", 443, ""));
        assert_eq!(base("https://chat.example/natter/"), expected(true, "chat.example", 443, "/natter"));
        assert_eq!((base("http://[::1]:81").name(), base("http://[::1]:81").authority()), ("::1", "[::1]:81".into()));
        assert_eq!(base("http://h").authority(), "h");
        for bad in ["", "h", "ftp://h", "http://", "http://u:p@h", "http://h?x=1", "mqtt://h:1883"] {
            assert!(Base::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn redirects_keep_the_server_or_name_another_and_never_leave_tls() {
        let natter = base("https://h/natter");
        let (to, path) = natter.redirected("/x?y=1").expect("a place");
        assert!(to.is_origin_of(&natter) && path == "/x?y=1" && to.prefix.is_empty());
        let (to, path) = natter.redirected("https://s3.example/b/k?sig=1").expect("a place");
        assert!(!to.is_origin_of(&natter) && path == "/b/k?sig=1");
        assert!(natter.redirected("http://s3.example/b/k").is_none());
        assert!(base("http://h").redirected("http://s3.example/b/k").is_some());
        assert!(natter.redirected("file:///etc/passwd").is_none());
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encoded("a b/ü&"), "a%20b%2F%C3%BC%26");
    }
}
