//! What the server said, held against the mirror: every frame, as it comes.

use std::rc::Rc;

use natter_protocol::ConnectionId;
use natter_protocol::error::Kind;
use natter_protocol::link::{Answer, Down, Mode};
use natter_protocol::{N, Seq};
use serde_json::{Value, json};

use super::facts::{Device, Expected, Fate, Flight, Inbox, Item, User, What, device_id, pair, user_named};
use super::mirror::Mirror;
use super::ops::USERS;
use super::server::Frames;

impl Mirror {
    /// A committed batch has spoken. `fed`: the door could take everything.
    pub(crate) fn hear(&mut self, frames: Frames, fed: bool) {
        for (_, frame) in frames {
            let down = Down::decode(frame).unwrap();
            match down {
                Down::Entry { connection, seq, again, payload } => {
                    let entry = serde_json::from_slice(&payload).unwrap();
                    self.entry(connection, seq, again, entry);
                }
                Down::Live { connection, payload } => self.live(connection, &serde_json::from_slice(&payload).unwrap()),
                other => self.answered(other),
            }
        }
        let silent: Vec<_> = self.expected.values().flatten().collect();
        assert!(silent.is_empty(), "expected also {silent:?}, got nothing more");
        if fed {
            self.nobody_waits_for_nothing();
        }
    }

    fn answered(&mut self, down: Down) {
        let (connection, got) = match down {
            Down::Opened { connection, session_present, device, held } => {
                let device = device.map(|got| (0..).find(|device| device_id(*device) == got).unwrap());
                (connection, Expected::Opened { session_present, device, held })
            }
            Down::Attached { connection, reason, .. } => (connection, Expected::Attached(reason)),
            Down::Complete { connection, packet_id } => (connection, Expected::Completed(packet_id)),
            Down::Close { connection, reason } => (connection, Expected::Closed(reason)),
            Down::Answer { connection, packet, answer } => {
                let packet = packet.id;
                let got = match answer {
                    Answer::Message { id, n, timestamp } => {
                        Expected::Message { packet, id: id.as_str().to_owned(), n, timestamp }
                    }
                    Answer::Done => Expected::Done { packet },
                    Answer::Refused { kind, .. } => Expected::Refused { packet, kind },
                };
                (connection, got)
            }
            Down::Entry { .. } | Down::Live { .. } | Down::Took(_) | Down::Committed(_) => {
                panic!("no answer: {down:?}")
            }
        };
        let expected = self.expected.get_mut(&connection).and_then(std::collections::VecDeque::pop_front);
        assert_eq!(Some(&got), expected.as_ref(), "the next answer to {connection}");
    }

    /// Everything a batch says that was not committed: every connection is closed with "not now".
    pub(crate) fn hear_not_now(&mut self, frames: Frames) {
        for (_, frame) in frames {
            let down = Down::decode(frame).unwrap();
            let Down::Close { connection, reason: 0x89 } = down else {
                panic!("expected the end of a connection, got {down:?} of a batch that was not committed")
            };
            let link = self.links.get_mut(&connection).unwrap_or_else(|| panic!("{connection} is closed already"));
            assert!(!link.deaf, "{connection} is told twice");
            link.deaf = true;
            link.reading = None;
            link.flight.clear();
            self.leaving.push(connection);
        }
        self.has_crashed = true;
        assert!(self.links.values().all(|link| link.deaf), "a connection goes on as if nothing had happened");
    }

    fn entry(&mut self, connection: ConnectionId, seq: Seq, again: bool, entry: Value) {
        let link = self.links.get_mut(&connection).unwrap_or_else(|| panic!("{connection} is gone: {entry}"));
        let Some((device, Mode::Device)) = link.reading else { panic!("{connection} reads no inbox: {entry}") };
        let user = link.user;
        let stub = entry["type"] == "unsupported";
        let prev = entry["prev"].as_u64().unwrap();
        assert_eq!(entry["seq"], json!(seq));
        assert!(prev < seq, "{entry}");
        if let Some(before) = link.prev {
            assert_eq!(prev, before, "`prev` is what was sent before on this connection, at first the cursor: {entry}");
        }
        assert!(link.flight.len() < link.entries_max(), "more in flight than the client takes: {entry}");
        link.prev = Some(seq);

        let inbox = &mut self.inboxes[user];
        let known = inbox.devices.get_mut(&device).unwrap();
        if known.cursor.is_none() {
            known.cursor = Some(prev);
        }
        assert!(known.cursor < Some(seq), "the device is done with this: {entry}");
        let new = match known.last {
            // What a client does: up to its newest, an entry is a repeat and dropped.
            Some(last) if seq <= last => {
                assert!(known.seqs.contains(&seq), "the client drops this as a repeat, and never had it: {entry}");
                false
            }
            Some(last) => {
                assert!(prev <= last, "a hole that nothing explains: the client has seen {last}, got {entry}");
                true
            }
            None => true,
        };
        let comes_again = link.is_resumed && known.seqs.contains(&seq);
        assert!(again || !comes_again, "it comes again to its session, and is not said to: {entry}");
        let may_come_again = link.is_resumed && (known.seqs.contains(&seq) || self.has_crashed);
        assert!(!again || may_come_again, "it is said to come again, and comes for the first time: {entry}");
        let first = self.is_said_first(user, seq, &entry);
        let item = self.place(user, seq, &entry, first);
        if let Some(index) = item {
            self.inboxes[user].got(device, index, seq, &entry);
        }
        if new && entry["type"] == "gap" {
            let (from, to) = (entry["from"].as_u64().unwrap(), entry["to"].as_u64().unwrap());
            assert!(from <= to && to < seq && entry["reason"] == "expired", "{entry}");
            let inbox = &mut self.inboxes[user];
            let lost = inbox.places.range(from..=to).map(|(_, index)| &inbox.items[*index]);
            let wrong: Vec<_> = lost.filter(|item| item.is_for(device) && !item.may_expire).collect();
            assert!(wrong.is_empty(), "too young for a gap: {wrong:?}, {entry}");
            inbox.devices.get_mut(&device).unwrap().gaps.push((from, to));
        }
        let had = self.inboxes[user].devices.get_mut(&device).unwrap();
        had.seqs.insert(seq);
        had.last = had.last.max(Some(seq));
        if let Some(index) = item {
            if stub {
                had.stubs.insert(index)
            } else {
                had.stubs.remove(&index)
            };
        }
        self.links.get_mut(&connection).unwrap().flight.push_back(Flight { seq, item, stub, acknowledged: None });
    }

    /// Whether a position is said for the first time; later it must say the same, to every device and after every crash.
    fn is_said_first(&mut self, user: User, seq: Seq, entry: &Value) -> bool {
        let mut content = entry.clone();
        content.as_object_mut().unwrap().remove("prev");
        let said = &mut self.inboxes[user].said;
        let Some(before) = said.get(&seq) else {
            said.insert(seq, Rc::new(content));
            return true;
        };
        if before["type"] == "unsupported" || content["type"] == "unsupported" {
            for field in ["from", "chat", "n", "id", "timestamp"] {
                assert_eq!(before[field], content[field], "{before} and {content}");
            }
        } else {
            assert_eq!(**before, content, "one position says two things");
        }
        false
    }

    /// Finds what the mirror knows of an entry, and holds it to that.
    fn place(&mut self, user: User, seq: Seq, entry: &Value, first: bool) -> Option<usize> {
        let kind = entry["type"].as_str().unwrap();
        match (kind, entry["status"].as_str()) {
            ("text" | "unsupported", _) => {
                let inbox = &mut self.inboxes[user];
                let index = inbox.find(seq, |item| is_text(user, item, entry));
                Some(index.unwrap_or_else(|| panic!("nobody sent this: {entry}")))
            }
            ("status", Some("failed")) if entry["n"].is_null() => {
                let index = self.inboxes[user].find(seq, |item| is_failed(item, entry));
                Some(index.unwrap_or_else(|| panic!("nothing was refused: {entry}")))
            }
            ("status", Some("failed")) => {
                if first {
                    self.expired(user, seq, entry);
                }
                None
            }
            ("status", Some("delivered" | "read")) => {
                if first {
                    self.receipt(user, seq, entry);
                }
                None
            }
            ("gap", _) => None,
            _ => panic!("what is this: {entry}"),
        }
    }

    fn receipt(&mut self, user: User, seq: Seq, entry: &Value) {
        let kind = entry["status"].as_str().unwrap();
        let other = user_named(entry["chat"].as_str().unwrap());
        let member = user_named(entry["recipient_id"].as_str().unwrap());
        let (after, n) = (entry["after"].as_u64().unwrap(), entry["n"].as_u64().unwrap());
        assert!(member == other || (member == user && kind == "read"), "whose receipt is it: {entry}");
        // An own read mark covers the other side's messages.
        let sender = if member == user { other } else { user };
        let talk = &self.talks[&pair(user, other)];
        assert!(after < n, "{entry}");
        let newest = (sender, entry["id"].as_str().unwrap().to_owned());
        assert_eq!(talk.messages.get(&n), Some(&newest), "`n` and `id` name the newest covered: {entry}");
        for (covered, _) in talk.messages.range(after + 1..=n).filter(|(_, (from, _))| *from == sender) {
            let had = matches!(talk.fates.get(&(*covered, member)), Some(Fate::Taken | Fate::Either));
            let over = talk.may_expire.contains(&(*covered, member));
            let read = talk.read.get(&member).is_some_and(|upto| covered <= upto);
            let true_ = if kind == "read" { read } else { had || over };
            assert!(true_, "no device of {member} has said so of {covered}: {entry}");
        }
        let ranges = self.inboxes[user].receipts.entry((other, member, kind.to_owned())).or_default();
        let before = ranges.range(..seq).next_back().map_or(0, |(_, (_, n))| *n);
        let behind = ranges.range(seq..).next().map_or(N::MAX, |(_, (after, _))| *after);
        assert!(before <= after && n <= behind, "said before, up to {before}: {entry}");
        ranges.insert(seq, (after, n));
    }

    /// `failed` of a message that had been accepted.
    fn expired(&mut self, user: User, seq: Seq, entry: &Value) {
        let other = user_named(entry["chat"].as_str().unwrap());
        let n = entry["n"].as_u64().unwrap();
        let talk = &self.talks[&pair(user, other)];
        let own = (user, entry["id"].as_str().unwrap().to_owned());
        assert_eq!(talk.messages.get(&n), Some(&own), "{entry}");
        assert_eq!((user_named(entry["recipient_id"].as_str().unwrap()), code(entry)), (other, 1411), "{entry}");
        assert!(talk.may_expire.contains(&(n, other)), "it is too young: {entry}");
        let inbox = &mut self.inboxes[user];
        let receipts = inbox.receipts.get(&(other, other, "delivered".to_owned()));
        let covered =
            receipts.into_iter().flat_map(|all| all.range(..seq)).any(|(_, (after, upto))| *after < n && n <= *upto);
        assert!(!covered, "it was delivered: {entry}");
        assert_eq!(inbox.expired.insert((other, n), seq), None, "told twice: {entry}");
    }

    fn live(&mut self, connection: ConnectionId, payload: &Value) {
        // It may have lost the inbox later in the same batch.
        let Some(link) = self.links.get_mut(&connection) else { return };
        let user = link.user;
        if let Some(seq) = payload["seq"].as_u64() {
            let Some((device, Mode::Viewer)) = link.reading else { panic!("{connection} is no viewer: {payload}") };
            assert!(link.prev.is_none_or(|prev| payload["prev"] == json!(prev) && prev < seq), "{payload}");
            link.prev = Some(seq);
            let first = self.is_said_first(user, seq, payload);
            if let Some(index) = self.place(user, seq, payload, first) {
                assert!(self.inboxes[user].items[index].is_for(device), "{payload}");
            }
        } else if payload["status"] == "sent" {
            for message in payload["messages"].as_array().unwrap() {
                let accepted = &self.accepted[&(user, message["id"].as_str().unwrap().to_owned())];
                let expected = (user_named(payload["chat"].as_str().unwrap()), json!(accepted.n));
                assert_eq!((accepted.to, &message["n"]), (expected.0, &expected.1), "{payload}");
            }
        } else {
            assert_eq!(payload["status"], "failed", "{payload}");
        }
    }

    /// A reader with room in its window has got all that waits for its device.
    fn nobody_waits_for_nothing(&self) {
        for (connection, link) in &self.links {
            let Some((device, Mode::Device)) = link.reading else { continue };
            if link.flight.len() * 2 > link.entries_max() {
                continue;
            }
            let inbox = &self.inboxes[link.user];
            let flight = &link.flight;
            let waits = inbox.waiting(device);
            assert!(waits.is_empty(), "{connection} has room, {flight:?} in flight, and {waits:?} does not come");
        }
    }

    /// Every device has connected, acknowledged everything, and is sent nothing more.
    pub(crate) fn check_the_end(&self) {
        for (user, inbox) in self.inboxes.iter().enumerate() {
            for (device, had) in &inbox.devices {
                let waits = inbox.waiting(*device);
                assert!(waits.is_empty(), "{user}/{device} never got {waits:?}");
                for (index, item) in inbox.items.iter().enumerate() {
                    let lost = item.is_for(*device) && !had.items.contains(&index) && !had.excused.contains(&index);
                    if lost {
                        inbox.check_gap(*device, index);
                    }
                }
            }
            if !self.lossy && !inbox.devices.is_empty() {
                self.check_ticks(user);
            }
        }
    }

    /// Every message that was taken has its two ticks, every one that was read its blue ones.
    fn check_ticks(&self, user: User) {
        let inbox = &self.inboxes[user];
        for ((sender, id), message) in self.accepted.iter().filter(|((sender, _), _)| *sender == user) {
            let talk = &self.talks[&pair(*sender, message.to)];
            let covered = |kind: &str| {
                let ranges = inbox.receipts.get(&(message.to, message.to, kind.to_owned()));
                ranges.into_iter().flat_map(|all| all.values()).any(|(after, n)| *after < message.n && message.n <= *n)
            };
            let read = talk.read.get(&message.to).is_some_and(|upto| message.n <= *upto);
            let taken = talk.fates.get(&(message.n, message.to)) == Some(&Fate::Taken);
            assert!(!read || covered("read"), "{id} was read, and its sender is not told");
            assert!(!taken || covered("delivered") || covered("read"), "{id} was taken, and its sender is not told");
        }
    }
}

impl Inbox {
    /// The item at a position: where it was before, or the first that fits and has no place yet.
    fn find(&mut self, seq: Seq, fits: impl Fn(&Item) -> bool) -> Option<usize> {
        if let Some(index) = self.places.get(&seq) {
            return Some(*index).filter(|index| fits(&self.items[*index]));
        }
        let after = self.places.range(..seq).next_back().map_or(0, |(_, index)| index + 1);
        let until = self.places.range(seq..).next().map_or(self.items.len(), |(_, index)| *index);
        let index = (after..until).find(|index| self.items[*index].seq.is_none() && fits(&self.items[*index]))?;
        self.places.insert(seq, index);
        self.items[index].seq = Some(seq);
        Some(index)
    }

    /// A device was sent an item: it is for it, and nothing before it was left out.
    fn got(&mut self, device: Device, index: usize, seq: Seq, entry: &Value) {
        assert!(self.items[index].is_for(device), "meant for others: {entry}");
        let had = self.devices.get_mut(&device).unwrap();
        for (before, item) in self.items.iter().enumerate().take(index) {
            let missing = item.is_for(device) && !had.items.contains(&before) && !had.excused.contains(&before);
            if missing && item.may_expire {
                had.owed.insert(before);
            } else {
                assert!(!missing, "left out: {item:?}, before {entry}");
            }
        }
        assert!(!had.owed.contains(&index), "it came after all, behind what was said later ({seq}): {entry}");
        had.items.insert(index);
    }

    /// Items that a device still has to get.
    fn waiting(&self, device: Device) -> Vec<&Item> {
        let had = &self.devices[&device];
        let all = self.items.iter().enumerate().filter(|(index, item)| {
            item.is_for(device) && !item.may_expire && !had.items.contains(index) && !had.excused.contains(index)
        });
        all.map(|(_, item)| item).collect()
    }

    /// The device was told that it does not get this.
    fn check_gap(&self, device: Device, index: usize) {
        let before = self.items[..index].iter().rev().find_map(|item| item.seq).unwrap_or(0);
        let behind = self.items[index + 1..].iter().find_map(|item| item.seq).unwrap_or(Seq::MAX);
        let seqs = self.items[index].seq.map_or(before + 1..=behind - 1, |seq| seq..=seq);
        let gaps = &self.devices[&device].gaps;
        let told = gaps.iter().any(|(from, to)| from <= seqs.end() && seqs.start() <= to);
        assert!(told, "{:?} is gone, and no gap says so: {gaps:?}", self.items[index]);
    }
}

fn is_text(user: User, item: &Item, entry: &Value) -> bool {
    let What::Text { from, other, n, id, body, timestamp } = &*item.what else { return false };
    let own = *from == user && *other != user;
    let same = user_named(entry["from"].as_str().unwrap()) == *from
        && user_named(entry["chat"].as_str().unwrap()) == *other
        && entry["n"] == json!(n)
        && entry["id"] == json!(id)
        && entry["timestamp"] == json!(timestamp.to_string())
        && entry["to"].as_str().map(user_named) == own.then_some(*other);
    same && (entry["type"] == "unsupported" || entry["text"] == json!({ "body": &**body }))
}

fn is_failed(item: &Item, entry: &Value) -> bool {
    let What::Failed { id, conflicts_with, kind } = &*item.what else { return false };
    let error = &entry["errors"][0];
    entry["id"].as_str() == id.as_deref()
        && error["conflicts_with"].as_str() == conflicts_with.as_deref()
        && code(entry) == u64::from(Kind::code(*kind))
}

fn code(entry: &Value) -> u64 {
    entry["errors"][0]["code"].as_u64().unwrap()
}

/// Users of the mirror.
pub(crate) fn users() -> std::ops::Range<User> {
    0..USERS
}
