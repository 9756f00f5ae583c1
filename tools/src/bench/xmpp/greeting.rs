//! How an XMPP connection begins: stream, in-band registration (XEP-0077; a user who is there already may stay), SASL PLAIN, stream again,
//! resource, presence.

use anyhow::{Result, bail};

use super::{DOMAIN, stanza};
use crate::bench::dialect::DEVICE;
use crate::bench::idle::FIRST;
use crate::bench::opening::{Greeting, Login, Step};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// The server's first stream, and what it offers.
    Stream,
    Offer,
    /// That the user is there.
    User,
    /// That he is who he says.
    Success,
    /// The second stream, and its offer.
    StreamAgain,
    OfferAgain,
    /// The resource.
    Bound,
}

/// See the module.
pub(crate) struct XmppGreeting<'a> {
    login: &'a Login,
    wants: Wants,
}

impl<'a> XmppGreeting<'a> {
    pub(crate) fn new(login: &'a Login) -> Self {
        Self { login, wants: Wants::Stream }
    }

    /// The first device of a user registers him; the others must come later.
    fn registers(&self) -> bool {
        [DEVICE, FIRST].contains(&self.login.device.as_str())
    }

    fn auth(&self) -> Vec<u8> {
        let Login { user, token, .. } = self.login;
        let secret = base64(format!("\0{user}\0{token}").as_bytes());
        format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>").into_bytes()
    }
}

fn stream() -> Vec<u8> {
    format!(
        "<?xml version='1.0'?><stream:stream to='{DOMAIN}' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
         version='1.0'>"
    )
    .into_bytes()
}

impl Greeting for XmppGreeting<'_> {
    fn first(&mut self) -> Vec<u8> {
        stream()
    }

    fn take(&mut self, input: &[u8]) -> Result<Step> {
        let Some(used) = stanza::measure(input) else { return Ok(Step::Wait) };
        let got = input.get(..used).unwrap_or_default();
        let has = |name: &str| stanza::tag(got, name.as_bytes()).is_some();
        let is = |kind: &[u8]| stanza::attribute(got, "type") == Some(kind);
        let Login { user, token, device, .. } = self.login;
        let (next, bytes) = match self.wants {
            Wants::Stream if has("stream:stream") => (Wants::Offer, Vec::new()),
            Wants::Offer if has("stream:features") && !self.registers() => (Wants::Success, self.auth()),
            Wants::Offer if has("stream:features") => {
                let register = format!(
                    "<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>{user}</username><password>{token}</password>\
                     </query></iq>"
                );
                (Wants::User, register.into_bytes())
            }
            Wants::User if has("iq") && (is(b"result") || has("conflict")) => (Wants::Success, self.auth()),
            Wants::Success if has("success") => (Wants::StreamAgain, stream()),
            Wants::StreamAgain if has("stream:stream") => (Wants::OfferAgain, Vec::new()),
            Wants::OfferAgain if has("stream:features") => {
                let bind = format!(
                    "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{device}</resource></bind></iq>"
                );
                (Wants::Bound, bind.into_bytes())
            }
            Wants::Bound if has("iq") && is(b"result") => {
                return Ok(Step::Done { used, bytes: b"<presence/>".to_vec() });
            }
            wants => bail!("expected {wants:?}, got {:?}", String::from_utf8_lossy(got)),
        };
        self.wants = next;
        Ok(Step::Say { used, bytes })
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let digit = DIGITS.get((bits >> (18 - 6 * i) & 63) as usize).copied().unwrap_or(b'=');
            out.push(if i > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_goes_to_its_end_and_names_what_it_did_not_get() {
        let login = Login { user: "u".into(), token: "p".into(), device: "phone".into(), subscribes: true };
        let mut greeting = XmppGreeting::new(&login);
        assert!(greeting.first().starts_with(b"<?xml"));
        let said = [
            "<?xml version='1.0'?><stream:stream id='1'>",
            "<stream:features><mechanisms/></stream:features>",
            "<iq type='error' id='r'><error><conflict/></error></iq>",
            "<success xmlns='x'/>",
            "<stream:stream id='2'>",
            "<stream:features/>",
        ];
        let mut answers = Vec::new();
        for said in said {
            match greeting.take(said.as_bytes()) {
                Ok(Step::Say { used, bytes }) if used == said.len() => answers.extend(bytes),
                other => unreachable!("{said}: {other:?}"),
            }
        }
        let answers = String::from_utf8_lossy(&answers).into_owned();
        // base64 of \0u\0p.
        assert!(answers.contains(">AHUAcA==</auth>") && answers.contains("<resource>phone</resource>"), "{answers}");
        assert_eq!(greeting.take(b"<iq type='resu").ok(), Some(Step::Wait));
        let refused = greeting.take(b"<iq type='error' id='b'/>").map_err(|error| error.to_string());
        assert!(refused.as_ref().is_err_and(|error| error.starts_with("expected Bound")), "{refused:?}");
        let done = greeting.take(b"<iq type='result' id='b'/>").ok();
        assert_eq!(done, Some(Step::Done { used: 26, bytes: b"<presence/>".to_vec() }));
    }
}
