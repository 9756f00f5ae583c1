//! A server's rules without sockets: events in, frames out, and a hand on the clock.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test ends where its world does not hold")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use natter_bridge::change::{Accepted, Account, Message, Revoked, Row, Session, Webhook};
use natter_bridge::chat_key::ChatKey;
use natter_bridge::config::Limits;
use natter_bridge::contacts::Contact;
use natter_bridge::edits::Redacted;
use natter_bridge::engine::{Engine, Event, Now, Released, Request};
use natter_bridge::groups::row::GroupRow;
use natter_bridge::media::row::{MediaFile, MediaUse};
use natter_bridge::privacy::{Aspect, Who};
use natter_bridge::stats::Counters;
use natter_bridge::status::Status;
use natter_bridge::store::memory::Memory;
use natter_bridge::store::{Append, DeviceRow, InboxPlace, MemberRow, Settlement, Store, StoreError, UserRow, Waits};
use natter_protocol::link::{Answer, Dialect, Down, Mode, Opening, Packet, Publication, Up, Window};
use natter_protocol::{ConnectionId, DeviceId, MediaId, MessageId, N, Seq, UserId};
use serde_json::{Value, json};

pub(crate) const DAY: u64 = 24 * 3600;

/// A store whose journal can be made to fail, as a full disk does.
#[derive(Debug)]
pub(crate) struct Fragile {
    inner: Memory,
    is_full: Arc<AtomicBool>,
}

macro_rules! delegate {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(fn $name(&mut self, $($arg: $type),*) -> $out { self.inner.$name($($arg),*) })*
    };
}

impl Store for Fragile {
    fn append(&mut self, log: u8, no: u64, delta: &[u8]) -> Append {
        if self.is_full.load(Ordering::Relaxed) {
            return Append::Failed(StoreError::Database("the disk is full".into()));
        }
        self.inner.append(log, no, delta)
    }

    delegate! {
        next_no(log: u8) -> Result<u64, StoreError>;
        journal(log: u8) -> Result<Vec<(u64, Vec<u8>)>, StoreError>;
        settle(log: u8, settlement: &Settlement) -> Result<(), StoreError>;
        user(user: &UserId) -> Result<Option<UserRow>, StoreError>;
        devices(user: &UserId) -> Result<Vec<(DeviceId, DeviceRow)>, StoreError>;
        inbox(user: &UserId, after: Seq, limit: usize) -> Result<Vec<(Seq, Row)>, StoreError>;
        inbox_places(user: &UserId, after: Seq, upto: Seq, limit: usize) -> Result<Vec<InboxPlace>, StoreError>;
        chat(chat: &ChatKey) -> Result<Option<N>, StoreError>;
        members(chat: &ChatKey) -> Result<Vec<(UserId, MemberRow)>, StoreError>;
        accepted(id: &MessageId, sender: &UserId) -> Result<Option<Accepted>, StoreError>;
        accepted_by_id(id: &MessageId, limit: usize) -> Result<Vec<(UserId, Accepted)>, StoreError>;
        newest_of(chat: &ChatKey, sender: &UserId, after: N, upto: N) -> Result<Option<(N, MessageId)>, StoreError>;
        session(user: &UserId, client_id: &str) -> Result<Option<Session>, StoreError>;
        sessions(user: &UserId) -> Result<Vec<(String, Session)>, StoreError>;
        revoked() -> Result<Vec<Revoked>, StoreError>;
        account(user: &UserId) -> Result<Account, StoreError>;
        disabled() -> Result<Vec<UserId>, StoreError>;
        webhooks() -> Result<Vec<(UserId, DeviceId, Webhook)>, StoreError>;
        count_of(chat: &ChatKey, sender: &UserId, after: N, limit: u64) -> Result<u64, StoreError>;
        kept(user: &UserId, chat: &ChatKey, n: N) -> Result<Option<Arc<Message>>, StoreError>;
        sweep_kept(limit: usize, now: u64) -> Result<(), StoreError>;
        media(id: &MediaId) -> Result<Option<MediaFile>, StoreError>;
        has_media_grant(user: &UserId, id: &MediaId) -> Result<bool, StoreError>;
        find_media(user: &UserId, name: &str, limit: usize) -> Result<Vec<MediaFile>, StoreError>;
        expired_media(now: u64, limit: usize) -> Result<Vec<MediaFile>, StoreError>;
        media_use(owner: &UserId) -> Result<MediaUse, StoreError>;
        is_media_shared(id: &MediaId, owner: &UserId) -> Result<bool, StoreError>;
        contact(user: &UserId, contact: &UserId) -> Result<Option<Contact>, StoreError>;
        contacts(user: &UserId, after: Option<&UserId>, limit: usize) -> Result<Vec<(UserId, Contact)>, StoreError>;
        contacts_count(user: &UserId) -> Result<u64, StoreError>;
        block(user: &UserId, other: &UserId) -> Result<Option<u64>, StoreError>;
        blocks(user: &UserId, after: Option<&UserId>, limit: usize) -> Result<Vec<(UserId, u64)>, StoreError>;
        has_blocks(user: &UserId) -> Result<(bool, bool), StoreError>;
        hidden(chat: &ChatKey) -> Result<Vec<(UserId, N, N)>, StoreError>;
        last_seen(user: &UserId) -> Result<Option<u64>, StoreError>;
        privacy(user: &UserId) -> Result<Vec<(Aspect, Who)>, StoreError>;
        privacy_list(user: &UserId, aspect: Aspect) -> Result<Vec<UserId>, StoreError>;
        is_in_privacy_list(user: &UserId, aspect: Aspect, other: &UserId) -> Result<bool, StoreError>;
        group(chat: &ChatKey) -> Result<Option<GroupRow>, StoreError>;
        groups_of(user: &UserId, after: Option<&ChatKey>, limit: usize) -> Result<Vec<ChatKey>, StoreError>;
        invited_by(code: &str) -> Result<Option<ChatKey>, StoreError>;
        groups_with(media: &MediaId, limit: usize) -> Result<Vec<(ChatKey, N)>, StoreError>;
        groups_open_with(user: &UserId, media: &MediaId, limit: usize) -> Result<Vec<(ChatKey, N)>, StoreError>;
        newest_with(media: &MediaId, chat: &ChatKey) -> Result<Option<N>, StoreError>;
        accepted_between(chat: &ChatKey, after: N, upto: N, limit: usize) -> Result<Vec<(N, UserId, MessageId)>, StoreError>;
        redacted(chat: &ChatKey) -> Result<Vec<(N, Redacted)>, StoreError>;
        sweep_redacted(limit: usize, now: u64) -> Result<(), StoreError>;
        unheard(chat: &ChatKey, member: &UserId) -> Result<Option<(N, u64)>, StoreError>;
        unheard_over(before: u64, limit: usize) -> Result<Vec<(ChatKey, UserId)>, StoreError>;
        oldest_waiting(of: &Waits<'_>) -> Result<Option<(N, u64)>, StoreError>;
        oldest_of(chat: &ChatKey, sender: &UserId, after: N, upto: N) -> Result<Option<(N, MessageId)>, StoreError>;
        status(chat: &ChatKey, n: N) -> Result<Option<Status>, StoreError>;
        status_times(chat: &ChatKey) -> Result<Vec<(N, u64)>, StoreError>;
        statuses_over(now: u64, limit: usize) -> Result<Vec<(ChatKey, N)>, StoreError>;
        statuses_with(media: &MediaId, limit: usize) -> Result<Vec<(ChatKey, N)>, StoreError>;
        server_secs() -> Result<u64, StoreError>;
        oldest_rows(after: Option<&UserId>, limit: usize) -> Result<Vec<(UserId, u64)>, StoreError>;
        sweep_accepted(after: Option<(MessageId, UserId)>, limit: usize, now: u64) -> Result<Option<(MessageId, UserId)>, StoreError>;
    }
}

/// A server's rules and a hand on its clock.
pub(crate) struct World {
    pub(crate) engine: Engine<Fragile>,
    pub(crate) is_full: Arc<AtomicBool>,
    pub(crate) window: Window,
    pub(crate) now: Now,
    limits: Limits,
    last_connection: u64,
}

impl World {
    pub(crate) fn with_users(users: &[&str]) -> Self {
        Self::with_limits(users, Limits::default())
    }

    pub(crate) fn with_limits(users: &[&str], limits: Limits) -> Self {
        let is_full = Arc::new(AtomicBool::new(false));
        let store = Fragile { inner: Memory::default(), is_full: Arc::clone(&is_full) };
        let engine = Engine::recover(store, limits.clone(), Arc::new(Counters::default())).unwrap();
        let now = Now { server_secs: 1, unix_secs: 1_764_000_000 };
        let mut world = Self { engine, is_full, window: Window::default(), now, limits, last_connection: 0 };
        for (ticket, name) in users.iter().enumerate() {
            world.handle(Event::Request(ticket as u64, Request::AddUser(user(name))));
        }
        world.commit();
        world
    }

    pub(crate) fn handle(&mut self, event: Event) {
        self.engine.handle(event, self.now).unwrap();
    }

    pub(crate) fn commit(&mut self) -> Vec<Down> {
        self.engine.commit().unwrap();
        let mut released = Released::default();
        self.engine.release(&mut self.window, &mut released).unwrap();
        frames(released)
    }

    pub(crate) fn up(&mut self, name: &str, up: Up) -> Vec<Down> {
        self.handle(Event::Up(user(name), up));
        self.commit()
    }

    pub(crate) fn connect(&mut self, name: &str, dialect: Dialect, packet_bytes_max: u32) -> ConnectionId {
        self.last_connection += 1;
        let connection = ConnectionId { boot: 1, n: self.last_connection };
        let opening = Opening {
            client_id: format!("{name}-{}", connection.n),
            clean_start: true,
            expiry_secs: 0,
            dialect,
            receive_maximum: 100,
            packet_bytes_max,
            device: None,
            issued_at: 0,
        };
        self.up(name, Up::Open(connection, opening));
        connection
    }

    pub(crate) fn attach(&mut self, name: &str, device: &str, connection: ConnectionId) -> Vec<Value> {
        let device = DeviceId::parse(device).unwrap();
        entries(self.up(name, Up::Attach { connection, request: 1, device, mode: Mode::Device }))
    }

    /// A device that connects and subscribes, and what it gets at once.
    pub(crate) fn device(&mut self, name: &str, device: &str) -> (ConnectionId, Vec<Value>) {
        let connection = self.connect(name, Dialect::Full, u32::MAX);
        let entries = self.attach(name, device, connection);
        (connection, entries)
    }

    pub(crate) fn publish(&mut self, name: &str, device: &str, connection: ConnectionId, payload: &Value) -> Vec<Down> {
        self.up(name, publication(device, connection, 7, payload))
    }

    pub(crate) fn ack(&mut self, name: &str, connection: ConnectionId, seq: Seq) -> Vec<Down> {
        self.up(name, Up::Acked { connection, seq, taken: true })
    }

    pub(crate) fn close(&mut self, name: &str, connection: ConnectionId) {
        self.up(name, Up::Close { connection, expiry_secs: None, by_server: false });
    }

    /// The process dies and starts again: what was committed is there, connections are not.
    pub(crate) fn crash(self) -> Self {
        let Self { engine, is_full, now, limits, last_connection, .. } = self;
        let engine = Engine::recover(engine.into_store(), limits.clone(), Arc::new(Counters::default())).unwrap();
        Self { engine, is_full, window: Window::default(), now, limits, last_connection }
    }

    /// The process dies, and starts again over a store that holds these rows beside its own.
    pub(crate) fn over(mut self, mut rows: Settlement) -> Self {
        self.settle_everything();
        let Self { engine, is_full, now, limits, last_connection, .. } = self;
        let mut store = engine.into_store();
        rows.upto = store.next_no(0).unwrap() - 1;
        rows.server_secs = now.server_secs;
        store.settle(0, &rows).unwrap();
        let engine = Engine::recover(store, limits.clone(), Arc::new(Counters::default())).unwrap();
        Self { engine, is_full, window: Window::default(), now, limits, last_connection }
    }

    /// The process dies and starts again; how many rows of an inbox the tables hold meanwhile.
    pub(crate) fn crash_and_count(self, name: &str) -> (Self, usize) {
        let Self { engine, is_full, now, limits, last_connection, .. } = self;
        let mut store = engine.into_store();
        let rows = store.inbox(&user(name), 0, 1000).unwrap().len();
        let engine = Engine::recover(store, limits.clone(), Arc::new(Counters::default())).unwrap();
        (Self { engine, is_full, window: Window::default(), now, limits, last_connection }, rows)
    }

    pub(crate) fn settle_everything(&mut self) {
        while self.engine.settle().unwrap() {}
    }

    /// A sweep around the whole store, `days` later.
    pub(crate) fn sweep_after(&mut self, days: u64) -> Vec<Down> {
        self.now.server_secs += days * DAY;
        let mut said = Vec::new();
        while self.engine.sweep(self.now).unwrap() {
            said.extend(self.commit());
        }
        said.extend(self.commit());
        said
    }
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub(crate) fn publication(device: &str, connection: ConnectionId, packet_id: u16, payload: &Value) -> Up {
    Up::Publish(Publication {
        connection,
        packet: Packet { id: packet_id, qos: 1 },
        device: DeviceId::parse(device).unwrap(),
        stamp: 1 << 70,
        will: false,
        payload: Bytes::from(payload.to_string()),
    })
}

pub(crate) fn text(id: &str, to: &str, body: &str) -> Value {
    json!({"id": id, "to": to, "type": "text", "text": {"body": body}})
}

pub(crate) fn frames(released: Released) -> Vec<Down> {
    released.frames.into_iter().map(|(_, frame)| Down::decode(frame).unwrap()).collect()
}

pub(crate) fn entries(frames: Vec<Down>) -> Vec<Value> {
    let payloads = frames.into_iter().filter_map(|frame| match frame {
        Down::Entry { payload, .. } => Some(payload),
        _ => None,
    });
    payloads.map(|payload| serde_json::from_slice(&payload).unwrap()).collect()
}

pub(crate) fn answers(frames: &[Down]) -> Vec<&Answer> {
    let all = frames.iter().filter_map(|frame| match frame {
        Down::Answer { answer, .. } => Some(answer),
        _ => None,
    });
    all.collect()
}
