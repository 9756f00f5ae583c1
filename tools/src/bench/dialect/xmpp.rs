//! XMPP: a message asks for a receipt, and the receiver answers with one (XEP-0184). Nothing says that the server has taken it.

use anyhow::Result;

use super::{DEVICE, Dialect, Heard, Script, Side, expected, write_number};
use crate::bench::xmpp::{jid, stanza};

/// See the module.
pub(crate) struct Xmpp {
    from: String,
    to: String,
    text_bytes: usize,
    /// A message and a receipt, each with the place of its number.
    message: (Vec<u8>, usize),
    receipt: (Vec<u8>, usize),
}

/// `text` with a number at `#`.
fn template(text: &str) -> (Vec<u8>, usize) {
    let at = text.find('#').unwrap_or(0);
    (text.replace('#', &"0".repeat(16)).into_bytes(), at)
}

impl Dialect for Xmpp {
    const ACCEPTS: bool = false;

    fn new(Script { from, to, text_bytes, run: _ }: Script) -> Self {
        let (from, to, text) = (jid(&from, DEVICE), jid(&to, DEVICE), "x".repeat(text_bytes));
        let message = template(&format!(
            "<message to='{to}' type='chat' id='#'><body>{text}</body><request xmlns='urn:xmpp:receipts'/></message>"
        ));
        let receipt = template(&format!(
            "<message to='{from}' type='chat'><received xmlns='urn:xmpp:receipts' id='#'/></message>"
        ));
        Self { from, to, text_bytes, message, receipt }
    }

    fn write_message(&mut self, k: u64, output: &mut Vec<u8>) {
        let (bytes, at) = &mut self.message;
        write_number(k, *at, bytes);
        output.extend_from_slice(bytes);
    }

    fn write_receipt(&mut self, n: u64, output: &mut Vec<u8>) {
        let (bytes, at) = &mut self.receipt;
        write_number(n - 1, *at, bytes);
        output.extend_from_slice(bytes);
    }

    fn hear(&mut self, side: Side, bytes: &[u8], _: &mut Vec<u8>) -> Result<Option<(Heard, usize)>> {
        let Some(end) = stanza::measure(bytes) else { return Ok(None) };
        let got = bytes.get(..end).unwrap_or_default();
        let heard = match stanza::tag(got, b"message ") {
            None if stanza::tag(got, b"presence").is_some() => Heard::Nothing,
            None => return Err(expected("a message or a presence")),
            Some(head) if stanza::attribute(head, "type") == Some(b"error") => {
                return Err(expected("no error"));
            }
            Some(head) => {
                let receipt = stanza::tag(got, b"received ");
                let k = stanza::attribute(receipt.unwrap_or(head), "id").and_then(stanza::number);
                match (k, receipt.is_some(), side) {
                    (Some(k), true, Side::Sender) => Heard::Receipt { after: k, n: k + 1 },
                    (Some(k), false, Side::Receiver) => Heard::Message { n: k + 1 },
                    _ => return Err(expected("a receipt for the sender, a message for the receiver")),
                }
            }
        };
        Ok(Some((heard, end)))
    }

    fn is_message(&self, got: &[u8], _: u64, _: u64) -> bool {
        let from = stanza::tag(got, b"message ").and_then(|head| stanza::attribute(head, "from"));
        let body =
            stanza::tag(got, b"body>").is_some() && got.iter().filter(|b| **b == b'x').count() >= self.text_bytes;
        from == Some(self.from.as_bytes()) && body && stanza::tag(got, b"request ").is_some()
    }

    fn is_receipt(&self, got: &[u8], _: u64, _: u64) -> bool {
        let from = stanza::tag(got, b"message ").and_then(|head| stanza::attribute(head, "from"));
        from == Some(self.to.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_writes_the_other_one_reads() {
        let script = Script { from: "1".into(), to: "2".into(), text_bytes: 5, run: 0 };
        let mut xmpp = Xmpp::new(script);
        let (mut message, mut receipt, mut output) = (Vec::new(), Vec::new(), Vec::new());
        xmpp.write_message(255, &mut message);
        xmpp.write_receipt(256, &mut receipt);
        let heard = xmpp.hear(Side::Receiver, &message, &mut output).ok().flatten();
        assert_eq!(heard, Some((Heard::Message { n: 256 }, message.len())));
        let heard = xmpp.hear(Side::Sender, &receipt, &mut output).ok().flatten();
        assert_eq!(heard, Some((Heard::Receipt { after: 255, n: 256 }, receipt.len())));
        assert!(xmpp.hear(Side::Sender, &message, &mut output).is_err());
        assert!(xmpp.hear(Side::Receiver, b"<message type='error' id='1'/>", &mut output).is_err());
        assert!(output.is_empty());
    }
}
