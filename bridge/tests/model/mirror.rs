//! What users may observe, told from outside: who has sent what, what each device must get, where it stands. No queue, no journal, no
//! table: it says what must come of an event, never how.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use natter_bridge::engine::Now;
use natter_protocol::error::Kind;
use natter_protocol::link::{Dialect, Mode, Opening, Publication, Up};
use natter_protocol::{ConnectionId, MessageId, N, Seq};
use serde_json::Value;

use super::facts::{
    Accepted, Device, Expected, Fate, Flight, Had, Inbox, Link, Pair, REPEATS_SECS, Session, TTL_SECS, Talk, User,
    What, device_named, pair, user_named,
};
use super::ops::USERS;

#[derive(Debug, Clone, Default)]
pub(crate) struct Mirror {
    /// A server has died, or has given up a batch: what it had sent is not known any more.
    pub(crate) has_crashed: bool,
    /// When the last start was.
    pub(crate) recovered_at: u64,
    pub(crate) known: [bool; USERS + 1],
    pub(crate) inboxes: [Inbox; USERS],
    pub(crate) accepted: BTreeMap<(User, String), Accepted>,
    pub(crate) talks: BTreeMap<Pair, Talk>,
    pub(crate) sessions: BTreeMap<(User, String), Session>,
    pub(crate) links: BTreeMap<ConnectionId, Link>,
    pub(crate) by_client: BTreeMap<(User, String), ConnectionId>,
    pub(crate) expected: BTreeMap<ConnectionId, VecDeque<Expected>>,
    /// Connections that the server has ended, or that a newer one has.
    pub(crate) leaving: Vec<ConnectionId>,
    /// So much time has passed that entries may have expired: what is said of receipts may be incomplete.
    pub(crate) lossy: bool,
}

impl Mirror {
    fn expect(&mut self, connection: ConnectionId, expected: Expected) {
        self.expected.entry(connection).or_default().push_back(expected);
    }

    pub(crate) fn reader_of(&self, user: User, device: Device) -> Option<ConnectionId> {
        let mut all = self.links.iter().filter(|(_, l)| l.user == user && l.reading == Some((device, Mode::Device)));
        all.next().map(|(id, _)| *id)
    }

    /// The inbox that the client's stored session would read.
    pub(crate) fn resumes(&self, user: User, client_id: &str, now: Now) -> Option<&Session> {
        self.sessions.get(&(user, client_id.to_owned())).filter(|session| {
            // Whoever is connected holds its session; one whose server died was there until the next start at least.
            let is_connected =
                self.by_client.get(&(user, client_id.to_owned())).is_some_and(|id| self.links.contains_key(id));
            let gone = session.gone_at.unwrap_or(self.recovered_at);
            let expiry = u64::from(session.expiry_secs);
            session.expiry_secs == u32::MAX || is_connected || gone + expiry > now.server_secs
        })
    }

    /// Takes in what the server is told.
    pub(crate) fn take(&mut self, user: User, up: &Up, now: Now) {
        match up {
            Up::Open(id, opening) => self.open(user, *id, opening, now),
            Up::Close { connection, expiry_secs, .. } => self.close(user, *connection, *expiry_secs, now),
            Up::Attach { connection, device, mode, .. } => self.attach(user, *connection, device_named(device), *mode),
            Up::Detach { connection } => {
                self.stop_reading(*connection);
                self.remember(*connection, None);
            }
            Up::Publish(publication) => self.publish(user, publication, now),
            Up::Acked { connection, seq, taken } => self.acknowledged(*connection, *seq, *taken),
            Up::Release { connection, packet_id } => {
                self.hold(*connection, *packet_id, false);
                self.expect(*connection, Expected::Completed(*packet_id));
            }
            Up::Refused { .. } | Up::Took(_) | Up::Ring => unreachable!("never told"),
        }
    }

    fn open(&mut self, user: User, id: ConnectionId, opening: &Opening, now: Now) {
        self.known[user] = true;
        let key = (user, opening.client_id.clone());
        let resumed = self.resumes(user, &opening.client_id, now).filter(|_| !opening.clean_start).cloned();
        if let Some(old) = self.by_client.insert(key.clone(), id) {
            self.stop_reading(old);
            self.leaving.push(old);
        }
        let session_present = resumed.is_some();
        let fresh = Session { device: None, expiry_secs: 0, gone_at: None, held: Vec::new() };
        let mut session = resumed.unwrap_or(fresh);
        session.expiry_secs = opening.expiry_secs;
        session.gone_at = None;
        let (device, held) = (session.device, session.held.clone());
        self.sessions.remove(&key);
        if opening.expiry_secs > 0 {
            self.sessions.insert(key, session);
        }
        self.links.insert(
            id,
            Link {
                user,
                client_id: opening.client_id.clone(),
                opening: opening.clone(),
                reading: None,
                is_resumed: session_present,
                deaf: false,
                prev: None,
                flight: VecDeque::new(),
            },
        );
        if let Some(device) = device {
            self.read_device(id, device);
        }
        self.expect(id, Expected::Opened { session_present, device, held });
    }

    fn close(&mut self, user: User, id: ConnectionId, expiry_secs: Option<u32>, now: Now) {
        let Some(link) = self.links.remove(&id) else { return };
        let key = (user, link.client_id);
        if self.by_client.get(&key) != Some(&id) {
            return;
        }
        self.by_client.remove(&key);
        if let Some(session) = self.sessions.get_mut(&key) {
            session.expiry_secs = expiry_secs.unwrap_or(link.opening.expiry_secs);
            session.gone_at = Some(now.server_secs);
            if session.expiry_secs == 0 {
                self.sessions.remove(&key);
            }
        }
    }

    fn stop_reading(&mut self, id: ConnectionId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.is_resumed |= matches!(link.reading.take(), Some((_, Mode::Device)));
            link.flight.clear();
            link.prev = None;
        }
    }

    fn remember(&mut self, id: ConnectionId, device: Option<Device>) {
        let Some(link) = self.links.get(&id).filter(|link| link.opening.expiry_secs > 0) else { return };
        if let Some(session) = self.sessions.get_mut(&(link.user, link.client_id.clone())) {
            session.device = device;
        }
    }

    fn hold(&mut self, id: ConnectionId, packet_id: u16, held: bool) {
        let Some(link) = self.links.get(&id).filter(|link| link.opening.expiry_secs > 0) else { return };
        if let Some(session) = self.sessions.get_mut(&(link.user, link.client_id.clone())) {
            session.held.retain(|other| *other != packet_id);
            if held {
                session.held.push(packet_id);
            }
        }
    }

    fn attach(&mut self, user: User, id: ConnectionId, device: Device, mode: Mode) {
        let Some(link) = self.links.get(&id).filter(|link| !link.deaf) else { return };
        assert_eq!(link.user, user);
        if link.reading.is_some_and(|(other, _)| other != device) {
            return self.expect(id, Expected::Attached(0x97));
        }
        match mode {
            Mode::Device => {
                self.read_device(id, device);
                self.remember(id, Some(device));
                self.expect(id, Expected::Attached(1));
            }
            Mode::Viewer => {
                self.stop_reading(id);
                self.remember(id, None);
                self.links.get_mut(&id).unwrap().reading = Some((device, Mode::Viewer));
                self.expect(id, Expected::Attached(0));
            }
        }
    }

    fn read_device(&mut self, id: ConnectionId, device: Device) {
        let user = self.links[&id].user;
        self.begin_device(user, device);
        self.stop_reading(id);
        if let Some(old) = self.reader_of(user, device) {
            self.stop_reading(old);
            self.leaving.push(old);
            self.expect(old, Expected::Closed(0x8e));
        }
        let cursor = self.inboxes[user].devices[&device].cursor;
        let link = self.links.get_mut(&id).unwrap();
        link.reading = Some((device, Mode::Device));
        link.prev = cursor;
    }

    /// A first device begins with the oldest entry kept, a later one where the slowest other stands.
    fn begin_device(&mut self, user: User, device: Device) {
        let inbox = &mut self.inboxes[user];
        if inbox.devices.contains_key(&device) {
            return;
        }
        let nothing_gone = inbox.items.iter().all(|item| !item.may_expire);
        let first = (nothing_gone && !self.lossy).then_some(0);
        let others = inbox.devices.values().map(|had| had.cursor).reduce(|a, b| Some(a?.min(b?)));
        let cursor = others.unwrap_or(first);
        let start = cursor.unwrap_or(0);
        let excused = inbox.items.iter().enumerate().filter(|(_, item)| {
            let mut others = inbox.devices.iter().filter(|(other, _)| item.is_for(**other));
            let over = !inbox.devices.is_empty()
                && item.seq.is_some_and(|seq| others.all(|(_, had)| had.cursor.unwrap_or(0) >= seq));
            item.may_expire || item.may_be_passed || over || item.seq.is_some_and(|seq| seq <= start)
        });
        let excused = excused.map(|(index, _)| index).collect();
        inbox.devices.insert(device, Had { cursor, excused, ..Had::default() });
    }

    fn publish(&mut self, user: User, publication: &Publication, now: Now) {
        let Publication { connection, packet, device, stamp, will, payload } = publication;
        let link = self.links.get(connection);
        if link.is_some_and(|link| link.deaf) || (link.is_none() && !will) {
            return;
        }
        let bare = link.is_some_and(|link| link.opening.dialect == Dialect::Bare);
        if packet.qos == 2 {
            self.hold(*connection, packet.id, true);
        }
        let payload: Value = serde_json::from_slice(payload).unwrap();
        let device = device_named(device);
        let outcome = if payload["type"].is_string() {
            self.message(user, device, &payload, *stamp, *will, now)
        } else {
            self.command(user, device, &payload).map(|()| None)
        };
        match outcome {
            Ok(message) if packet.qos > 0 => {
                let expected = match message {
                    Some((id, n, timestamp)) => Expected::Message { packet: packet.id, id, n, timestamp },
                    None => Expected::Done { packet: packet.id },
                };
                self.expect(*connection, expected);
            }
            Err(kind) if packet.qos > 0 => {
                if packet.qos == 2 && !bare {
                    self.hold(*connection, packet.id, false);
                }
                let id = payload["id"].as_str().map(str::to_owned);
                if bare && id.is_some() {
                    let inbox = &mut self.inboxes[user];
                    let only = inbox.devices.contains_key(&device).then_some(device);
                    let (id, conflicts_with) = if kind == Kind::Conflict { (None, id) } else { (id, None) };
                    let what = What::Failed { id, conflicts_with, kind };
                    inbox.put(what, only, None, now);
                }
                self.expect(*connection, Expected::Refused { packet: packet.id, kind });
            }
            _ => {}
        }
    }

    fn message(
        &mut self,
        user: User,
        device: Device,
        payload: &Value,
        stamp: u128,
        will: bool,
        now: Now,
    ) -> Result<Option<(String, N, u64)>, Kind> {
        if payload["type"] != "text" {
            return Err(Kind::UnknownType);
        }
        let to = user_named(payload["to"].as_str().unwrap());
        let body: Rc<str> = Rc::from(payload["text"]["body"].as_str().unwrap());
        let id = match payload["id"].as_str().filter(|_| !will) {
            Some(id) => id.to_owned(),
            None => MessageId::from_stamp(stamp).as_str().to_owned(),
        };
        if let Some(first) = self.accepted.get(&(user, id.clone())) {
            assert!(first.at + REPEATS_SECS > now.server_secs, "the player uses no id that may be forgotten");
            let same = first.to == to && first.body == body;
            return if same { Ok(Some((id, first.n, first.timestamp))) } else { Err(Kind::Conflict) };
        }
        if !self.known[to] {
            return Err(Kind::UnknownRecipient);
        }
        let talk = self.talks.entry(pair(user, to)).or_default();
        let n = talk.last_n() + 1;
        talk.messages.insert(n, (user, id.clone()));
        let timestamp = now.unix_secs;
        let text = |other| What::Text { from: user, other, n, id: id.clone(), body: body.clone(), timestamp };
        // In a chat with oneself the other side is oneself.
        self.inboxes[to].put(text(user), None, None, now);
        if to != user && self.inboxes[user].devices.keys().any(|other| *other != device) {
            self.inboxes[user].put(text(to), None, Some(device), now);
        }
        let accepted = Accepted { to, n, body: body.clone(), timestamp, at: now.server_secs };
        self.accepted.insert((user, id.clone()), accepted);
        Ok(Some((id.clone(), n, timestamp)))
    }

    fn command(&mut self, user: User, device: Device, payload: &Value) -> Result<(), Kind> {
        if payload["sync"] == true {
            self.begin_device(user, device);
            return Ok(());
        }
        if let Some(upto) = payload["ack"].as_u64() {
            return self.acknowledged_upto(user, device, upto);
        }
        assert_eq!(payload["status"], "read");
        let (talk, n) = match payload["message_id"].as_str() {
            Some(id) => {
                let from = user_named(payload["from"].as_str().unwrap());
                let received = self.accepted.get(&(from, id.to_owned())).filter(|accepted| accepted.to == user);
                let n = received.map(|accepted| accepted.n).ok_or(Kind::Ambiguous)?;
                (pair(from, user), n)
            }
            None => (pair(user, user_named(payload["chat"].as_str().unwrap())), payload["n"].as_u64().unwrap()),
        };
        let talk = self.talks.entry(talk).or_default();
        if n > talk.last_n() {
            return Err(Kind::InvalidValue);
        }
        // What is read counts as delivered: nothing more is said of that.
        for marks in [&mut talk.read, &mut talk.delivered] {
            let mark = marks.entry(user).or_default();
            *mark = (*mark).max(n);
        }
        Ok(())
    }

    fn acknowledged(&mut self, id: ConnectionId, seq: Seq, taken: bool) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some((device, Mode::Device)) = link.reading else { return };
        let user = link.user;
        if let Some(entry) = link.flight.iter_mut().find(|entry| entry.seq == seq) {
            entry.acknowledged = Some(taken && !entry.stub);
        }
        let is_done = |entry: &&mut Flight| entry.acknowledged.is_some();
        while let Some(entry) = self.links.get_mut(&id).and_then(|link| {
            link.flight.front_mut().filter(is_done)?;
            link.flight.pop_front()
        }) {
            let had = self.inboxes[user].devices.get_mut(&device).unwrap();
            had.cursor = had.cursor.max(Some(entry.seq));
            let fate = if entry.acknowledged == Some(true) { Fate::Taken } else { Fate::TurnedDown };
            if let Some(item) = entry.item {
                self.passed(user, item, fate);
            }
        }
    }

    fn acknowledged_upto(&mut self, user: User, device: Device, upto: Seq) -> Result<(), Kind> {
        let inbox = &mut self.inboxes[user];
        if !inbox.devices.contains_key(&device) || upto > inbox.newest() {
            return Err(Kind::InvalidValue);
        }
        let had = inbox.devices.get_mut(&device).unwrap();
        let cursor = had.cursor.unwrap_or(0);
        if upto <= cursor {
            return Ok(());
        }
        had.cursor = Some(upto);
        had.last = had.last.max(Some(upto));
        let mut passed = Vec::new();
        for (index, item) in inbox.items.iter_mut().enumerate().filter(|(_, item)| item.is_for(device)) {
            match item.seq {
                Some(seq) if seq > upto => break,
                Some(seq) if seq <= cursor => {}
                Some(seq) => {
                    if !had.seqs.contains(&seq) {
                        had.excused.insert(index);
                    }
                    // A stub of an earlier connection: a server that has started since does not know of it.
                    passed.push((index, if had.stubs.contains(&index) { Fate::Either } else { Fate::Taken }));
                }
                None => {
                    item.may_be_passed = true;
                    had.excused.insert(index);
                    passed.push((index, Fate::Either));
                }
            }
        }
        let reader = self.reader_of(user, device);
        for (index, mut fate) in passed {
            let flight = reader.and_then(|id| self.links[&id].flight.iter().find(|entry| entry.item == Some(index)));
            if flight.is_some_and(|entry| entry.stub || entry.acknowledged == Some(false)) {
                fate = Fate::TurnedDown;
            }
            self.passed(user, index, fate);
        }
        if let Some(link) = reader.and_then(|id| self.links.get_mut(&id)) {
            link.flight.retain(|entry| entry.seq > upto);
            link.prev = link.prev.max(Some(upto));
        }
        Ok(())
    }

    /// A device of `user` is done with an item.
    fn passed(&mut self, user: User, item: usize, fate: Fate) {
        let What::Text { from, other, n, .. } = *self.inboxes[user].items[item].what else { return };
        if from == user && other != user {
            return;
        }
        let talk = self.talks.get_mut(&pair(user, other)).unwrap();
        let mark = talk.delivered.entry(user).or_default();
        if n > *mark {
            *mark = n;
            talk.fates.insert((n, user), fate);
        }
    }

    /// A sweep around the store: what is too old may go.
    pub(crate) fn swept(&mut self, now: Now) {
        self.lossy |= now.server_secs > TTL_SECS;
        let before = now.server_secs.saturating_sub(TTL_SECS);
        for (user, inbox) in self.inboxes.iter_mut().enumerate() {
            for item in inbox.items.iter_mut().filter(|item| item.at < before) {
                item.since = if item.may_expire { item.since } else { now.server_secs };
                item.may_expire = true;
                if let What::Text { from, other, n, .. } = *item.what
                    && (from != user || other == user)
                {
                    self.talks.get_mut(&pair(user, other)).unwrap().may_expire.insert((n, user));
                }
            }
        }
    }

    /// The process died: connections are gone, and nobody says goodbye. What was sent is forgotten; it may have been all.
    pub(crate) fn crashed(&mut self, server_secs: u64) {
        self.recovered_at = server_secs;
        self.has_crashed = true;
        self.links.clear();
        self.by_client.clear();
        self.expected.clear();
        self.leaving.clear();
    }
}
