//! What a client keeps of its inbox, and the rules of wire.md that it holds the server to.

use serde_json::{Value, json};

#[derive(Default)]
pub(crate) struct Inbox {
    last: Option<u64>,
    /// New entries.
    pub(crate) fresh: u64,
    pub(crate) received: Vec<Value>,
    /// `delivered` and `read`, in the order in which the first of each came.
    pub(crate) ticks: Vec<&'static str>,
    pub(crate) delivered: u64,
    pub(crate) read: u64,
    pub(crate) unexpected: Vec<Value>,
}

impl Inbox {
    /// Takes an entry in, unless it came before.
    pub(crate) fn take(&mut self, entry: &Value) {
        let Some(seq) = entry["seq"].as_u64() else { return };
        if self.last.is_some_and(|last| seq <= last) {
            return;
        }
        if self.last.is_some_and(|last| entry["prev"].as_u64().is_none_or(|prev| prev > last)) {
            self.unexpected.push(json!(format!("a gap before {seq}")));
        }
        self.last = Some(seq);
        self.fresh += 1;
        let (after, n) = (entry["after"].as_u64(), entry["n"].as_u64().unwrap_or_default());
        match (entry["type"].as_str(), entry["status"].as_str()) {
            (Some("text"), _) => self.received.push(json!([n, entry["text"]["body"]])),
            (_, Some("delivered")) if after == Some(self.delivered) => {
                self.delivered = n;
                self.note("delivered");
            }
            (_, Some("read")) if after == Some(self.read) => {
                // What is read is delivered; when bob's mark was faster than his PUBACK nothing else says so.
                self.read = n;
                self.delivered = self.delivered.max(n);
                self.note("read");
            }
            _ => self.unexpected.push(entry.clone()),
        }
    }

    fn note(&mut self, tick: &'static str) {
        if !self.ticks.contains(&tick) {
            self.ticks.push(tick);
        }
    }
}
