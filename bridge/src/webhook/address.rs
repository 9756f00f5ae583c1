//! Which callbacks are accepted, and which addresses a server must not be made to talk to (SSRF).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::Uri;
use axum::http::uri::{PathAndQuery, Scheme};

/// A callback, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(super) is_tls: bool,
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// As in the `Host` header.
    pub(super) authority: String,
    /// From the path on.
    pub(super) path_and_query: String,
}

impl Target {
    /// Reads a callback.
    ///
    /// # Errors
    /// Expected and got, as text.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let wrong = |got: &str| format!("url: expected https://HOST[:PORT][/PATH][?QUERY], got {got}");
        let uri: Uri = url.parse().map_err(|error| wrong(&format!("something else ({error})")))?;
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(other) => return Err(wrong(&format!("{other}://"))),
            None => return Err(wrong("no scheme")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("a user or password in it"));
        }
        if url.contains('#') {
            return Err(wrong("a fragment"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong("no host"));
        }
        // `Authority::port` passes over one that is out of range.
        let behind = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        let port = match behind.strip_prefix(':').map(str::parse::<u16>) {
            None if is_tls => 443,
            None => 80,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => return Err(wrong("another port than 1 to 65535")),
        };
        let path_and_query = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let path_and_query =
            if path_and_query.starts_with('?') { format!("/{path_and_query}") } else { path_and_query.to_owned() };
        Ok(Self { is_tls, host, port, authority: authority.as_str().to_owned(), path_and_query })
    }

    /// The name or address that is asked.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// What its path ends in.
    pub(crate) fn file_name(&self) -> Option<&str> {
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        path.rsplit('/').next().filter(|name| !name.is_empty())
    }

    /// Whether it may be asked at `address`.
    ///
    /// # Errors
    /// Expected and got, as text.
    pub(super) fn may_be_at(&self, address: IpAddr, private_addresses: bool) -> Result<(), String> {
        let host = &self.host;
        match (is_private(address), private_addresses) {
            (true, false) => Err(format!(
                "url: expected a public address, got {host}, which is at a private one (webhooks.private_addresses allows that)"
            )),
            (false, _) if !self.is_tls => {
                Err(format!("url: expected https:// for {host}, which is at a public address"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether an address is not somebody's on the internet: this machine, its network, or nobody's. What hides such an address in a public
/// one (IPv4 in IPv6, NAT64, 6to4) counts as what it hides.
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => is_private_v6(v6),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        // This network; carriers' NAT; IETF protocols; 6to4 relays; benchmarks; reserved and broadcast.
        || a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        || (a == 198 && (18..20).contains(&b))
        || a >= 240
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [a, b, ..] = segments;
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_private_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // ::, ::1, and the old way to write IPv4 in IPv6.
        [0, 0, 0, 0, 0, 0, ..] => true,
        [0, 0, 0, 0, 0, 0xffff, high, low] => v4(high, low),
        // NAT64, well-known and local.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, ..] => true,
        [0x2002, high, low, ..] => v4(high, low),
        // Only 2000::/3 is given out; of that, 2001::/23 is for protocols (Teredo among them), 2001:db8::/32 and 3fff::/20 for examples.
        _ => a & 0xe000 != 0x2000 || (a == 0x2001 && (b < 0x200 || b == 0x0db8)) || (a == 0x3fff && b < 0x1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s64_what_is_nobodys_on_the_internet_is_private() {
        for private in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "5f00::1",
        ] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn a_callback_is_https_or_http_with_a_host() {
        let parse = |url: &str| Target::parse(url).map(|t| (t.is_tls, t.host, t.port, t.authority, t.path_and_query));
        let of = |is_tls, host: &str, port, authority: &str, path: &str| {
            Ok((is_tls, host.into(), port, authority.into(), path.into()))
        };
        assert_eq!(parse("https://a.example/hook?x=1"), of(true, "a.example", 443, "a.example", "/hook?x=1"));
        assert_eq!(parse("https://a.example:8443"), of(true, "a.example", 8443, "a.example:8443", "/"));
        assert_eq!(parse("http://127.0.0.1:9000/hook"), of(false, "127.0.0.1", 9000, "127.0.0.1:9000", "/hook"));
        assert_eq!(parse("http://[::1]:9000/"), of(false, "::1", 9000, "[::1]:9000", "/"));
        assert_eq!(parse("https://a.example?x=1"), of(true, "a.example", 443, "a.example", "/?x=1"));
        for wrong in [
            "",
            "/hook",
            "a.example",
            "ftp://a.example/",
            "file:///etc/passwd",
            "https://",
            "https:///x",
            "https://u:p@a.example/",
            "https://a.example:0/",
            "https://a.example:99999/",
            "https://a.example/#x",
            "https://a b/",
            "gopher://127.0.0.1:25/",
            "https://a.example/\r\nX: y",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn s64_a_private_address_needs_leave_and_a_public_one_needs_tls() {
        let (plain, tls) = (Target::parse("http://a.example/").unwrap(), Target::parse("https://a.example/").unwrap());
        let (public, private) = ("1.1.1.1".parse().unwrap(), "10.0.0.1".parse().unwrap());
        for target in [&plain, &tls] {
            assert!(target.may_be_at(private, false).unwrap_err().contains("webhooks.private_addresses"));
            assert!(target.may_be_at(private, true).is_ok());
        }
        assert!(tls.may_be_at(public, false).is_ok() && tls.may_be_at(public, true).is_ok());
        assert!(plain.may_be_at(public, true).unwrap_err().contains("https://"));
    }
}
