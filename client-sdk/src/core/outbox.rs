//! What is to be sent, what became of it, and its ticks.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use natter_protocol::N;
use natter_protocol::entry::Entry;
use natter_protocol::ids::STATUS_BROADCAST;

use super::ranges::Ranges;
use super::{After, Answer, Effects, Key, OUTBOX_BYTES_MAX, OUTBOX_MAX, Output, RESEND_MS_MAX, SETTLED_MAX, WINDOW};
use crate::error::Error;
use crate::event::Failed;
use crate::groups::Counts;
use crate::progress::{Progress, Tick};
use crate::store::{Outcome, OutgoingRow, ReceiptRow, Write};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// So many writes about it are not confirmed.
    Storing(u8),
    /// Not given to this connection.
    Ready,
    /// Given to this connection.
    Sent,
}

#[derive(Debug)]
struct Queued {
    row: OutgoingRow,
    payload: Bytes,
    stage: Stage,
}

#[derive(Debug, Default)]
struct Ticks {
    delivered: Ranges,
    read: Ranges,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    online: bool,
    clock_ms: i64,
    next_key: Key,
    queue: BTreeMap<Key, Queued>,
    bytes: usize,
    in_flight: usize,
    /// Answered; without their payloads.
    settled: BTreeMap<Key, OutgoingRow>,
    keys: HashMap<String, Key>,
    /// Where accepted messages stand in their chats.
    numbers: BTreeMap<(String, N), Key>,
    ticks: HashMap<String, Ticks>,
}

impl Outbox {
    pub(super) fn new(rows: Vec<OutgoingRow>, receipts: Vec<ReceiptRow>, out: &mut VecDeque<Output>) -> Self {
        let mut outbox = Self { next_key: 1, ..Self::default() };
        for ReceiptRow { chat, delivered, read } in receipts {
            outbox.ticks.insert(chat, Ticks { delivered: Ranges::new(&delivered), read: Ranges::new(&read) });
        }
        for mut row in rows {
            let key = row.key;
            outbox.next_key = outbox.next_key.max(key + 1);
            outbox.clock_ms = outbox.clock_ms.max(row.created_ms).max(row.tried_ms.unwrap_or(0));
            if let Some(id) = &row.id {
                outbox.keys.insert(id.clone(), key);
            }
            if row.outcome == Outcome::Queued {
                let payload = Bytes::from(std::mem::take(&mut row.payload));
                outbox.bytes += payload.len();
                outbox.queue.insert(key, Queued { row, payload, stage: Stage::Ready });
            } else {
                outbox.settle(row);
            }
            outbox.say(key, out);
        }
        outbox
    }

    pub(super) fn set_clock(&mut self, now_ms: i64) {
        self.clock_ms = self.clock_ms.max(now_ms);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn knows(&self, id: &str) -> bool {
        self.keys.contains_key(id)
    }

    pub(super) fn send(
        &mut self,
        ticket: u64,
        id: Option<String>,
        chat: Option<String>,
        payload: Vec<u8>,
        to: &mut Effects<'_>,
    ) {
        if let Some(key) = id.as_ref().and_then(|id| self.keys.get(id)) {
            // A repeat is one message; what is being written may be this very one.
            match self.queue.get(key) {
                Some(queued) if queued.payload != payload => {
                    let error = Error::Invalid("id: expected one that no other message has".into());
                    to.out.push_back(Output::Rejected(ticket, error));
                }
                Some(queued) => {
                    to.writes.push(Write::Outgoing(queued.stored()));
                    to.after.push(After::Output(Output::Accepted(ticket)));
                }
                None => to.out.push_back(Output::Accepted(ticket)),
            }
            return;
        }
        if self.queue.len() >= OUTBOX_MAX || self.bytes + payload.len() > OUTBOX_BYTES_MAX {
            let error = Error::OutboxFull { messages: OUTBOX_MAX, bytes: OUTBOX_BYTES_MAX };
            to.out.push_back(Output::Rejected(ticket, error));
            return;
        }
        let key = self.next_key;
        self.next_key += 1;
        let tried_ms = self.online.then_some(self.clock_ms);
        if let Some(id) = &id {
            self.keys.insert(id.clone(), key);
        }
        let created_ms = self.clock_ms;
        let row = OutgoingRow { key, id, chat, payload: Vec::new(), created_ms, tried_ms, outcome: Outcome::Queued };
        self.bytes += payload.len();
        let queued = Queued { row, payload: Bytes::from(payload), stage: Stage::Storing(1) };
        to.writes.push(Write::Outgoing(queued.stored()));
        self.queue.insert(key, queued);
        to.after.push(After::Sendable(key, key));
        self.say(key, to.out);
        to.after.push(After::Output(Output::Accepted(ticket)));
    }

    /// The first attempt of everything that waits is written down before it is made: from then on the server may have it.
    pub(super) fn connected(&mut self, to: &mut Effects<'_>) {
        self.online = true;
        self.expire(to);
        let mut untried = None;
        for queued in self.queue.values_mut().filter(|queued| queued.row.tried_ms.is_none()) {
            queued.row.tried_ms = Some(self.clock_ms);
            queued.stage = match queued.stage {
                Stage::Storing(writes) => Stage::Storing(writes.saturating_add(1)),
                Stage::Ready | Stage::Sent => Stage::Storing(1),
            };
            let key = queued.row.key;
            untried = Some((untried.map_or(key, |(first, _)| first), key));
        }
        // They are the newest: whatever was there at an earlier connection was tried.
        if let Some((first, last)) = untried {
            to.writes.push(Write::Tried { upto: last, at_ms: self.clock_ms });
            to.after.push(After::Sendable(first, last));
        }
    }

    pub(super) fn disconnected(&mut self) {
        self.online = false;
        self.in_flight = 0;
        for queued in self.queue.values_mut().filter(|queued| queued.stage == Stage::Sent) {
            queued.stage = Stage::Ready;
        }
    }

    /// A write about each of these is on the disk.
    pub(super) fn sendable(&mut self, first: Key, last: Key) {
        for queued in self.queue.range_mut(first..=last).map(|(_, queued)| queued) {
            if let Stage::Storing(writes) = queued.stage {
                queued.stage = if writes > 1 { Stage::Storing(writes - 1) } else { Stage::Ready };
            }
        }
    }

    /// Gives out what may go, in order.
    pub(super) fn publish(&mut self, out: &mut VecDeque<Output>) {
        if !self.online || self.in_flight >= WINDOW {
            return;
        }
        for (key, queued) in &mut self.queue {
            match queued.stage {
                Stage::Sent => {}
                Stage::Storing(_) => return,
                Stage::Ready if self.in_flight >= WINDOW => return,
                Stage::Ready => {
                    queued.stage = Stage::Sent;
                    self.in_flight += 1;
                    out.push_back(Output::Publish { key: *key, payload: queued.payload.clone() });
                }
            }
        }
    }

    pub(super) fn answered(&mut self, key: Key, answer: Answer, to: &mut Effects<'_>) {
        if self.queue.get(&key).is_none_or(|queued| queued.stage != Stage::Sent) {
            return;
        }
        let outcome = match answer {
            Answer::Accepted { n, timestamp } => Outcome::Sent { n, timestamp },
            Answer::Refused { reason, details } => Outcome::Failed { code: reason.into(), details, sent: None },
        };
        self.finish(key, outcome, to);
    }

    /// Reports what was first tried too long ago. What this connection was given gets its answer.
    pub(super) fn expire(&mut self, to: &mut Effects<'_>) {
        let limit = self.clock_ms - RESEND_MS_MAX;
        let old = |queued: &Queued| queued.stage == Stage::Ready && queued.row.tried_ms.is_some_and(|at| at < limit);
        let keys: Vec<Key> = self.queue.iter().filter(|(_, queued)| old(queued)).map(|(key, _)| *key).collect();
        for key in keys {
            self.finish(key, Outcome::Failed { code: 0, details: String::new(), sent: None }, to);
        }
    }

    fn finish(&mut self, key: Key, outcome: Outcome, to: &mut Effects<'_>) {
        let Some(queued) = self.queue.remove(&key) else { return };
        self.bytes -= queued.payload.len();
        if queued.stage == Stage::Sent {
            self.in_flight -= 1;
        }
        let row = OutgoingRow { outcome, ..queued.row };
        if let Outcome::Failed { code, details, .. } = &row.outcome {
            let error = failure(*code, details);
            to.out.push_back(Output::Failed(Failed { id: row.id.clone(), chat: row.chat.clone(), error }));
        }
        if row.id.is_none() {
            to.writes.push(Write::ForgetOutgoing(key));
            return;
        }
        to.writes.push(Write::Outgoing(row.clone()));
        self.settle(row);
        self.say(key, to.out);
        while self.settled.len() > SETTLED_MAX {
            let Some((key, row)) = self.settled.pop_first() else { break };
            self.drop_settled(key, row, to);
        }
    }

    fn settle(&mut self, row: OutgoingRow) {
        if let (Some(chat), Some((n, _))) = (&row.chat, sent_of(&row.outcome)) {
            self.numbers.insert((chat.clone(), n), row.key);
        }
        self.settled.insert(row.key, row);
    }

    pub(super) fn forget(&mut self, id: &str, to: &mut Effects<'_>) {
        if let Some(&key) = self.keys.get(id)
            && let Some(row) = self.settled.remove(&key)
        {
            self.drop_settled(key, row, to);
        }
    }

    /// The server has another store: it knows nothing of what it had accepted, and gives the same numbers again. What waits is sent to it.
    pub(super) fn begin_anew(&mut self, to: &mut Effects<'_>) {
        self.ticks.clear();
        let accepted = |row: &OutgoingRow| sent_of(&row.outcome).is_some();
        let keys: Vec<Key> = self.settled.iter().filter(|(_, row)| accepted(row)).map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(row) = self.settled.remove(&key) {
                self.drop_settled(key, row, to);
            }
        }
    }

    fn drop_settled(&mut self, key: Key, row: OutgoingRow, to: &mut Effects<'_>) {
        to.writes.push(Write::ForgetOutgoing(key));
        if let (Some(chat), Some((n, _))) = (row.chat, sent_of(&row.outcome)) {
            self.numbers.remove(&(chat, n));
        }
        if let Some(id) = row.id {
            self.keys.remove(&id);
            to.out.push_back(Output::Forgotten(id));
        }
    }

    /// An entry was taken in: receipts and failures are about messages here. Once each, since the inbox lets repeats through no further.
    pub(super) fn entry(&mut self, entry: &Entry, to: &mut Effects<'_>) {
        match (entry.kind.as_str(), entry.status.as_deref()) {
            ("status", Some(status @ ("delivered" | "read"))) => self.receipt(entry, status == "read", to),
            ("status", Some("failed")) => self.undelivered(entry, to),
            _ => {}
        }
    }

    fn receipt(&mut self, entry: &Entry, read: bool, to: &mut Effects<'_>) {
        let (Some(chat), Some(after), Some(n)) = (&entry.chat, entry.after, entry.n) else { return };
        let (delivered, read) = match Counts::of_entry(entry) {
            Some(counts) => (counts.is_delivered(), counts.is_read()),
            // What this user read, on another device, are not his own messages.
            None => (is_by_others(entry, chat), read && is_by_others(entry, chat)),
        };
        if !delivered && !read {
            return;
        }
        let ticks = self.ticks.entry(chat.clone()).or_default();
        if read {
            ticks.read.add(after, n);
        }
        // `read` implies `delivered`.
        ticks.delivered.add(after, n);
        let (delivered, read) = (ticks.delivered.as_slice().to_vec(), ticks.read.as_slice().to_vec());
        to.writes.push(Write::Receipts(ReceiptRow { chat: chat.clone(), delivered, read }));
        let numbers = (chat.clone(), after + 1)..=(chat.clone(), n.max(after + 1));
        let keys: Vec<Key> = self.numbers.range(numbers).map(|(_, key)| *key).collect();
        keys.into_iter().for_each(|key| self.say(key, to.out));
    }

    fn undelivered(&mut self, entry: &Entry, to: &mut Effects<'_>) {
        let Some(&key) = entry.id.as_ref().and_then(|id| self.keys.get(id)) else { return };
        let Some(row) = self.settled.get_mut(&key) else { return };
        let (code, details) = entry.error().map_or((1411, ""), |(code, details)| (code, details));
        let sent = sent_of(&row.outcome);
        // 256 and more are the codes of wire.md section 6; 100 and 10 are not said of what was accepted.
        let code = u32::try_from(code).unwrap_or(1411).max(256);
        row.outcome = Outcome::Failed { code, details: details.to_owned(), sent };
        to.writes.push(Write::Outgoing(row.clone()));
        self.say(key, to.out);
    }

    /// Says how far a message is.
    fn say(&self, key: Key, out: &mut VecDeque<Output>) {
        let row = self.settled.get(&key).or_else(|| self.queue.get(&key).map(|queued| &queued.row));
        let Some((row, id)) = row.and_then(|row| Some((row, row.id.as_ref()?))) else { return };
        let sent = sent_of(&row.outcome);
        let tick = match (sent, row.chat.as_ref().and_then(|chat| self.ticks.get(chat))) {
            (Some((n, _)), Some(ticks)) if ticks.read.has(n) => Tick::Read,
            (Some((n, _)), Some(ticks)) if ticks.delivered.has(n) => Tick::Delivered,
            (Some(_), _) => Tick::Sent,
            (None, _) => Tick::Queued,
        };
        let failure = match &row.outcome {
            Outcome::Failed { code, details, .. } => Some(failure(*code, details)),
            Outcome::Queued | Outcome::Sent { .. } => None,
        };
        let chat = row.chat.clone().unwrap_or_default();
        out.push_back(Output::Progress(id.clone(), Box::new(Progress { chat, key, sent, tick, failure })));
    }
}

/// Whether a receipt that names one user is about messages of this one: it is from the other side of the chat, or from whoever saw a status.
fn is_by_others(entry: &Entry, chat: &str) -> bool {
    entry.recipient_id.as_deref() == Some(chat) || (chat == STATUS_BROADCAST && entry.from_user().is_none())
}

impl Queued {
    fn stored(&self) -> OutgoingRow {
        OutgoingRow { payload: self.payload.to_vec(), ..self.row.clone() }
    }
}

fn sent_of(outcome: &Outcome) -> Option<(N, u64)> {
    match outcome {
        Outcome::Sent { n, timestamp } => Some((*n, *timestamp)),
        Outcome::Failed { sent, .. } => *sent,
        Outcome::Queued => None,
    }
}

fn failure(code: u32, details: &str) -> Error {
    match u8::try_from(code) {
        Ok(0) => Error::Unconfirmed,
        Ok(reason) => Error::Refused { reason, details: details.to_owned() },
        Err(_) => Error::Undelivered { code, details: details.to_owned() },
    }
}
