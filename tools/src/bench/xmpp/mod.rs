//! The least of XMPP that a client needs: plain c2s streams, SASL PLAIN, resource binding, messages with receipts (XEP-0184). Pure.
//!
//! - `stanza` where one ends, and what is read of it · `greeting` how a connection begins

pub(crate) mod greeting;
pub(crate) mod stanza;

/// The virtual host, unless told otherwise: that of the servers which `scripts/bench` sets up.
pub(crate) const DOMAIN: &str = "bench.local";

/// The address of a user's device.
pub(crate) fn jid(user: &str, device: &str) -> String {
    format!("{user}@{DOMAIN}/{device}")
}
