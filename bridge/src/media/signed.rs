//! Short-lived URLs that need no token: they say which file, for whom and until when, under a signature of ours. Pure, but for the key.

use aws_lc_rs::hmac;
use natter_protocol::{MediaId, UserId};

use super::Error;
use super::row::hex;

/// Signs URLs. A key is made at each start: URLs are shorter-lived than that.
#[derive(Debug)]
pub struct Signer {
    key: hmac::Key,
}

/// What a URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Which file.
    pub id: MediaId,
    /// Who asked for it.
    pub user: UserId,
    /// Until which Unix second.
    pub expires: u64,
}

impl Signer {
    /// Makes a key.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn new() -> Result<Self, Error> {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| Error::Store("the system has no random bytes".into()))?;
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key) })
    }

    /// The query of a URL for `ticket`.
    #[must_use]
    pub fn query(&self, ticket: &Ticket) -> String {
        let signature = hex(hmac::sign(&self.key, said(ticket).as_bytes()).as_ref());
        format!("for={}&expires={}&signature={signature}", ticket.user, ticket.expires)
    }

    /// Whether the query of a request for `id` is one of ours and still good at `now`.
    #[must_use]
    pub fn check(&self, id: &MediaId, query: &str, now: u64) -> Option<Ticket> {
        let value = |name: &str| {
            let mut values = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(key, _)| *key == name);
            values.next().map(|(_, value)| value)
        };
        let expires = value("expires")?.parse().ok()?;
        let ticket = Ticket { id: id.clone(), user: UserId::parse(value("for")?).ok()?, expires };
        let signature = unhex(value("signature")?)?;
        hmac::verify(&self.key, said(&ticket).as_bytes(), &signature).ok()?;
        (now < ticket.expires).then_some(ticket)
    }
}

fn said(ticket: &Ticket) -> String {
    let Ticket { id, user, expires } = ticket;
    format!("media\n{id}\n{user}\n{expires}")
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    (0..32).map(|i| u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s66_a_signed_url_is_good_for_its_file_and_its_time_only() {
        let signer = Signer::new().unwrap();
        let id = MediaId::parse("1234567890123456").unwrap();
        let ticket = Ticket { id: id.clone(), user: UserId::parse("alice").unwrap(), expires: 100 };
        let query = signer.query(&ticket);
        assert_eq!(signer.check(&id, &query, 99), Some(ticket.clone()));
        assert_eq!(signer.check(&id, &format!("x=1&{query}&y"), 99), Some(ticket.clone()));
        assert_eq!(signer.check(&id, &query, 100), None, "its time is over");
        assert_eq!(signer.check(&MediaId::parse("1234567890123457").unwrap(), &query, 0), None);
        assert_eq!(Signer::new().unwrap().check(&id, &query, 0), None, "another server's");
        for (from, to) in [("alice", "bob"), ("expires=100", "expires=999"), ("signature=", "signature=0")] {
            assert_eq!(signer.check(&id, &query.replace(from, to), 0), None, "{to}");
        }
        assert_eq!(signer.check(&id, "", 0), None);
    }
}
