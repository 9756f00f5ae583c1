//! What wire.md promises, in memory and without faults: the faults are the world's.

use std::collections::{BTreeMap, BTreeSet};

use natter_client::Tick;
use natter_client::core::Answer;
use serde_json::{Value, json};

/// How long an id is remembered, on the server's own clock.
const DEDUPE_MS: i64 = 30 * 24 * 3600 * 1000;

pub(crate) fn message(id: &str) -> Vec<u8> {
    json!({"id": id, "to": "bob", "type": "text", "text": {"body": id}}).to_string().into_bytes()
}

pub(crate) fn id_of(payload: &[u8]) -> String {
    let message: Value = serde_json::from_slice(payload).unwrap();
    message["id"].as_str().unwrap().to_owned()
}

#[derive(Default)]
pub(crate) struct Server {
    /// What it is sent is for a group of two beside the client: a receipt counts.
    pub(crate) is_group: bool,
    /// One of the two has what is not delivered to both.
    half: bool,
    /// Which store it has.
    pub(crate) epoch: u64,
    /// Ids in the order of `n`; one that stands here twice was doubled.
    pub(crate) committed: Vec<String>,
    /// id -> n, when.
    known: BTreeMap<String, (u64, i64)>,
    /// Every entry ever, by seq.
    inbox: BTreeMap<u64, Value>,
    acked: BTreeSet<u64>,
    cursor: u64,
    /// The newest sent over this connection.
    sent: u64,
    /// The newest ever sent.
    sent_ever: u64,
    /// The newest sent went out for the first time.
    first: bool,
    /// Something went out over this connection.
    spoken: bool,
    delivered: u64,
    read: u64,
    incoming: u64,
}

impl Server {
    /// An empty store.
    pub(crate) fn new(epoch: u64, is_group: bool) -> Self {
        Self { epoch, is_group, ..Self::default() }
    }

    pub(crate) fn connected(&mut self) {
        self.sent = self.cursor;
        self.first = false;
        self.spoken = false;
    }

    /// The answer, and whether it was there already.
    pub(crate) fn publish(&mut self, payload: &[u8], now_ms: i64) -> (Answer, bool) {
        let id = id_of(payload);
        if id.ends_with('7') {
            return (Answer::Refused { reason: 0x83, details: "no".into() }, false);
        }
        if let Some(&(n, at)) = self.known.get(&id)
            && now_ms - at < DEDUPE_MS
        {
            return (Answer::Accepted { n, timestamp: 1 }, true);
        }
        self.committed.push(id.clone());
        let n = self.committed.len() as u64;
        self.known.insert(id, (n, now_ms));
        (Answer::Accepted { n, timestamp: 1 }, false)
    }

    pub(crate) fn acked(&mut self, seq: u64) {
        self.acked.insert(seq);
        while let Some((&next, _)) = self.inbox.range(self.cursor + 1..).next()
            && self.acked.contains(&next)
        {
            self.cursor = next;
        }
    }

    /// What goes out next, and whether it went out before.
    pub(crate) fn next_entry(&mut self) -> (Option<(u64, Vec<u8>)>, bool) {
        let Some((&seq, entry)) = self.inbox.range(self.sent + 1..).next() else { return (None, false) };
        let mut entry = entry.clone();
        entry["seq"] = seq.into();
        entry["prev"] = self.sent.into();
        entry["epoch"] = self.epoch.into();
        self.sent = seq;
        let again = seq <= self.sent_ever;
        // The very first of a connection is what tells a new device where it is: nobody could miss it.
        self.first = !again && self.spoken;
        self.spoken = true;
        self.sent_ever = self.sent_ever.max(seq);
        (Some((seq, entry.to_string().into_bytes())), again)
    }

    pub(crate) fn is_first_time(&self, seq: u64) -> bool {
        self.first && seq == self.sent_ever
    }

    /// The world goes on: a message for the client, or bob has or reads what was sent.
    pub(crate) fn act(&mut self, what: u64, at_most: u64) {
        let n = self.committed.len() as u64;
        let seq = self.inbox.keys().next_back().unwrap_or(&0) + 1 + self.incoming % 3;
        let chat = self.chat();
        let counted = |status, after, delivered_to: u64, read_by: u64| json!({"type": "status", "status": status, "chat": chat, "after": after, "n": n, "id": "x", "delivered_to": delivered_to, "read_by": read_by, "of": 2});
        let is_group = self.is_group;
        let receipt = |status, after| match is_group {
            true => counted(status, after, 2, if status == "read" { 2 } else { 1 }),
            false => {
                json!({"type": "status", "status": status, "chat": chat, "after": after, "n": n, "id": "x", "recipient_id": "bob"})
            }
        };
        let entry = match what {
            0 if is_group && self.delivered < n && !self.half => {
                self.half = true;
                counted("read", self.delivered, 1, 1)
            }
            0 if self.delivered < n => receipt("delivered", std::mem::replace(&mut self.delivered, n)),
            1 if self.read < n => {
                self.delivered = n;
                receipt("read", std::mem::replace(&mut self.read, n))
            }
            2 if self.incoming < at_most => {
                self.incoming += 1;
                json!({"type": "text", "from": "bob", "chat": chat, "n": self.incoming, "id": "y", "text": {"body": "."}})
            }
            _ => return,
        };
        self.half &= self.delivered < n;
        self.inbox.insert(seq, entry);
    }

    /// Where everything is written.
    pub(crate) fn chat(&self) -> &'static str {
        if self.is_group { "g:42" } else { "bob" }
    }

    pub(crate) fn everything(&self) -> Vec<u64> {
        self.inbox.keys().copied().collect()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.cursor == self.inbox.keys().next_back().copied().unwrap_or(0)
    }

    pub(crate) fn tick(&self, id: &str) -> Tick {
        match self.known.get(id) {
            Some((n, _)) if *n <= self.read => Tick::Read,
            Some((n, _)) if *n <= self.delivered => Tick::Delivered,
            Some(_) => Tick::Sent,
            None => Tick::Queued,
        }
    }
}
