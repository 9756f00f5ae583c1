//! What the server does before the cut: the real rules over the real store, in a watched directory. Users write to each other,
//! post statuses and take them back, have contacts and block each other, acknowledge, read, come and go; the journal settles; the write-ahead log is copied, begun anew, and deleted.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use natter_bridge::blocks;
use natter_bridge::chat_key::ChatKey;
use natter_bridge::config::Limits;
use natter_bridge::contacts;
use natter_bridge::engine::{Engine, Event, Now, Released, Request};
use natter_bridge::stats::Counters;
use natter_bridge::store::sqlite::Sqlite;
use natter_protocol::accounts::Revocation;
use natter_protocol::link::{Answer, Dialect, Down, Mode, Opening, Packet, Publication, Up, Window};
use natter_protocol::{Chat, ConnectionId, DeviceId, MessageId, N, Seq, UserId};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::disk::{Image, Op, Random, making};
use super::vfs::Watch;

/// Who writes. The last one has no device: his inbox only grows.
pub const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];
/// Who connects, and from where.
const SEATS: [(&str, &str); 4] = [("alice", "phone"), ("alice", "laptop"), ("bob", "phone"), ("carol", "phone")];
/// Batches of a run, and those after which something special happens.
const BATCHES: usize = 420;
const CLEAN_RESTART: usize = 140;
const RESTART_WITHOUT_CHECKPOINT: usize = 210;
const DAY_LATER: usize = 250;
const MONTH_LATER: usize = 300;
/// The same after a first cut, and where the ids of its messages begin.
const BATCHES_AFTER_A_CUT: usize = 12;
const FIRST_ID_AFTER_A_CUT: u64 = 1_000_000;
/// One body in so many is as long as the journal's largest pages.
const LONG_BODIES: usize = 4;
const LONG_BODY_BYTES: usize = 20_000;

/// A message that was acknowledged to its sender.
#[derive(Debug, Clone)]
pub struct Sent {
    pub from: UserId,
    pub to: UserId,
    pub id: MessageId,
    pub n: N,
    pub payload: Value,
}

impl Sent {
    pub fn chat(&self) -> ChatKey {
        ChatKey::new(&self.from, &Chat::Direct(self.to.clone()))
    }
}

/// A batch that changed something.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Where the log stood when `commit()` was called, and when it returned.
    pub begun: usize,
    pub done: usize,
    /// Its journal row.
    pub delta: Vec<u8>,
    /// What was acknowledged because of it.
    pub sent: Vec<Sent>,
    /// The inbox entries it may have ended: acknowledged by a device, or expired.
    pub taken: Vec<(UserId, MessageId)>,
}

/// What happened, in order.
#[derive(Debug, Default)]
pub struct History {
    pub log: Vec<Op>,
    pub commits: Vec<Commit>,
    /// Numbers of starts, and where the log stood when each was known.
    pub boots: Vec<(usize, u32)>,
    /// So many commits were made before the log begins: they are in what it begins with.
    pub before: usize,
    /// Where the log stood when the server started over it.
    pub begins: usize,
}

impl History {
    /// What is left of it after a cut that the first `commits` survived.
    pub fn before_cut(&self, commits: usize, position: usize) -> Self {
        let survived = |commit: &Commit| Commit { begun: 0, done: 0, ..commit.clone() };
        Self {
            log: Vec::new(),
            commits: self.commits[..commits].iter().map(survived).collect(),
            boots: self.boots.iter().filter(|(known, _)| *known <= position).map(|(_, boot)| (0, *boot)).collect(),
            before: commits,
            begins: 0,
        }
    }

    /// Commits that had returned when the log stood there, and those that had begun.
    pub fn commits_at(&self, position: usize) -> (usize, usize) {
        let done = self.commits.iter().filter(|commit| commit.done <= position).count();
        let begun = self.commits.iter().filter(|commit| commit.begun < position).count();
        (done, begun.max(done))
    }
}

/// A message's id, number, and chat as its recipient sees it.
type Received = (MessageId, N, String);

/// A connected client.
struct Seat {
    connection: ConnectionId,
    next_packet: u16,
    /// Entries that came and are not acknowledged.
    entries: VecDeque<(Seq, Option<Received>)>,
    /// QoS 2 packet ids that are not released.
    held: Vec<u16>,
}

pub struct Workload {
    watch: Watch,
    path: PathBuf,
    /// `None` only while it starts again.
    engine: Option<Engine<Sqlite>>,
    /// A second connection to the database: reads the journal, and copies the write-ahead log in every way there is.
    second: Option<Connection>,
    random: Random,
    now: Now,
    boot: u32,
    last_connection: u64,
    last_id: u64,
    seats: HashMap<usize, Seat>,
    asked: HashMap<(ConnectionId, u16), Sent>,
    /// Statuses that were posted and not answered yet.
    posted: HashSet<(ConnectionId, u16)>,
    /// Who shows statuses of what ids.
    statuses: Vec<(&'static str, String)>,
    /// Who blocks whom.
    blocks: BTreeSet<(&'static str, &'static str)>,
    sent: Vec<Sent>,
    taken: Vec<(UserId, MessageId)>,
    history: History,
}

pub fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub fn start(path: &Path) -> (Engine<Sqlite>, u32) {
    let mut store = Sqlite::open(path).unwrap();
    let boot = store.next_boot().unwrap();
    (Engine::recover(store, Limits::default(), Arc::new(Counters::default())).unwrap(), boot)
}

pub fn opening(client_id: &str) -> Opening {
    Opening {
        client_id: client_id.to_owned(),
        clean_start: false,
        expiry_secs: 3600,
        dialect: Dialect::Full,
        receive_maximum: 100,
        packet_bytes_max: u32::MAX,
        device: None,
        issued_at: 0,
    }
}

pub fn publication(device: &str, connection: ConnectionId, packet: Packet, stamp: u64, payload: &Value) -> Up {
    Up::Publish(Publication {
        connection,
        packet,
        device: DeviceId::parse(device).unwrap(),
        stamp: u128::from(stamp) + (1 << 70),
        will: false,
        payload: Bytes::from(payload.to_string()),
    })
}

pub fn text(id: &str, to: &str, body: &str) -> Value {
    json!({"id": id, "to": to, "type": "text", "text": {"body": body}})
}

pub fn decode(released: Released) -> Vec<Down> {
    released.frames.into_iter().map(|(_, frame)| Down::decode(frame).unwrap()).collect()
}

/// Runs it all in an empty directory.
pub fn run(directory: &Path, seed: u64) -> History {
    let mut workload = Workload::new(directory, seed, History::default());
    for name in USERS {
        workload.handle(Event::Request(0, Request::AddUser(user(name))));
    }
    for name in USERS {
        for other in USERS.into_iter().filter(|other| *other != name) {
            let put = contacts::Ask::Put(user(name), user(other), Some(other.to_owned()));
            workload.handle(Event::Request(0, Request::Contacts(put)));
        }
    }
    workload.commit();
    for batch in 0..BATCHES {
        workload.batch();
        workload.between_batches();
        match batch {
            CLEAN_RESTART => workload.restart(true),
            RESTART_WITHOUT_CHECKPOINT => workload.restart(false),
            DAY_LATER => workload.sweep_a_day_later(),
            MONTH_LATER => workload.sweep_a_month_later(),
            _ => {}
        }
    }
    workload.end()
}

/// Goes on for a while over what a cut has left.
pub fn go_on(directory: &Path, seed: u64, image: &Image, past: History) -> History {
    for (name, content) in image {
        std::fs::write(directory.join(&**name), content).unwrap();
    }
    let mut workload = Workload::new(directory, seed, History { log: making(image), ..past });
    workload.last_id = FIRST_ID_AFTER_A_CUT;
    for name in USERS {
        workload.handle(Event::Request(0, Request::AddUser(user(name))));
        for other in USERS {
            // Who blocked whom is in what the cut has left.
            let unblock = blocks::Ask::Unblock(user(name), user(other));
            workload.handle(Event::Request(0, Request::Blocks(unblock)));
        }
    }
    workload.commit();
    for _ in 0..BATCHES_AFTER_A_CUT {
        workload.batch();
        workload.between_batches();
    }
    workload.end()
}

impl Workload {
    /// A start in a directory that is what the log of `past` has made of it.
    fn new(directory: &Path, seed: u64, mut past: History) -> Self {
        let watch = Watch::directory_after(directory, std::mem::take(&mut past.log));
        past.begins = watch.position();
        let path = directory.join("natter.db");
        let (engine, boot) = start(&path);
        past.boots.push((watch.position(), boot));
        let second = Connection::open(&path).unwrap();
        Self {
            watch,
            path,
            now: Now { server_secs: engine.server_secs() + 1, unix_secs: 1_764_000_000 },
            engine: Some(engine),
            second: Some(second),
            random: Random(seed),
            boot,
            last_connection: 0,
            last_id: 0,
            seats: HashMap::new(),
            asked: HashMap::new(),
            posted: HashSet::new(),
            statuses: Vec::new(),
            blocks: BTreeSet::new(),
            sent: past.commits.iter().flat_map(|commit| commit.sent.clone()).collect(),
            taken: Vec::new(),
            history: past,
        }
    }

    fn engine(&mut self) -> &mut Engine<Sqlite> {
        self.engine.as_mut().unwrap()
    }

    fn second(&self) -> &Connection {
        self.second.as_ref().unwrap()
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        self.engine().handle(event, now).unwrap();
    }

    fn up(&mut self, name: &str, up: Up) {
        self.handle(Event::Up(user(name), up));
    }

    fn batch(&mut self) {
        self.now.server_secs += 1;
        for _ in 0..=self.random.below(4) {
            let seat = self.random.below(SEATS.len());
            if !self.seats.contains_key(&seat) {
                self.connect(seat);
                continue;
            }
            match self.random.below(27) {
                0 => self.disconnect(seat),
                1 => self.repeat(seat),
                2 => self.read(seat),
                3 => self.release(seat),
                4 => self.revoke(),
                20..=22 => self.post(seat),
                23 => self.take_back(seat),
                24 => self.contact(seat),
                25..=26 => self.block(seat),
                5..=9 => self.acknowledge(seat),
                _ => self.publish(seat),
            }
        }
        self.commit();
    }

    fn connect(&mut self, seat: usize) {
        let (name, device) = SEATS[seat];
        self.last_connection += 1;
        let connection = ConnectionId { boot: self.boot, n: self.last_connection };
        self.up(name, Up::Open(connection, opening(&format!("{name}-{device}"))));
        let device = DeviceId::parse(device).unwrap();
        self.up(name, Up::Attach { connection, request: 1, device, mode: Mode::Device });
        let client = Seat { connection, next_packet: 0, entries: VecDeque::new(), held: Vec::new() };
        self.seats.insert(seat, client);
    }

    fn disconnect(&mut self, seat: usize) {
        let client = self.seats.remove(&seat).unwrap();
        self.up(SEATS[seat].0, Up::Close { connection: client.connection, expiry_secs: None, by_server: false });
    }

    fn publish(&mut self, seat: usize) {
        let name = SEATS[seat].0;
        let to = self.another(name);
        if self.blocks.contains(&(name, to)) {
            return;
        }
        self.last_id += 1;
        let id = format!("m{}", self.last_id);
        if self.blocks.contains(&(to, name)) {
            // It is accepted, and takes no place.
            self.taken.push((user(to), MessageId::parse(&id).unwrap()));
        }
        let longest = if self.random.below(LONG_BODIES) == 0 { LONG_BODY_BYTES } else { 200 };
        let body = "x".repeat(self.random.below(longest) + 1);
        let payload = text(&id, to, &body);
        let id = MessageId::parse(&id).unwrap();
        self.ask(seat, Sent { from: user(name), to: user(to), id, n: 0, payload });
    }

    fn another(&mut self, name: &str) -> &'static str {
        let others: Vec<_> = USERS.into_iter().filter(|other| *other != name).collect();
        others[self.random.below(others.len())]
    }

    fn post(&mut self, seat: usize) {
        let (name, device) = SEATS[seat];
        self.last_id += 1;
        let id = format!("s{}", self.last_id);
        let client = self.seats.get_mut(&seat).unwrap();
        client.next_packet += 1;
        let (connection, packet) = (client.connection, Packet { id: client.next_packet, qos: 1 });
        let up = publication(device, connection, packet, self.last_id, &text(&id, "status@broadcast", "at the sea"));
        self.posted.insert((connection, packet.id));
        self.statuses.push((name, id));
        self.up(name, up);
    }

    fn take_back(&mut self, seat: usize) {
        let (name, device) = SEATS[seat];
        let Some(at) = self.statuses.iter().position(|(poster, _)| *poster == name) else { return };
        let (_, id) = self.statuses.remove(at);
        let client = self.seats.get_mut(&seat).unwrap();
        client.next_packet += 1;
        let (connection, packet) = (client.connection, Packet { id: client.next_packet, qos: 1 });
        let payload = json!({"status": "deleted", "chat": "status@broadcast", "message_id": id});
        self.up(name, publication(device, connection, packet, 0, &payload));
    }

    /// Loses a contact, or has one again.
    fn contact(&mut self, seat: usize) {
        let name = SEATS[seat].0;
        let other = self.another(name);
        let ask = match self.random.below(2) {
            0 => contacts::Ask::Remove(user(name), user(other)),
            _ => contacts::Ask::Put(user(name), user(other), None),
        };
        self.handle(Event::Request(0, Request::Contacts(ask)));
    }

    /// Blocks somebody, or no more. Alice never blocks bob: after a cut she writes to him.
    fn block(&mut self, seat: usize) {
        let name = SEATS[seat].0;
        let other = self.another(name);
        if (name, other) == ("alice", "bob") {
            return;
        }
        if self.blocks.remove(&(name, other)) {
            let ask = blocks::Ask::Unblock(user(name), user(other));
            return self.handle(Event::Request(0, Request::Blocks(ask)));
        }
        self.blocks.insert((name, other));
        self.handle(Event::Request(0, Request::Blocks(blocks::Ask::Block(user(name), user(other)))));
        // What has not arrived by now does not.
        let asked = self.asked.values().chain(&self.sent);
        let lost = asked.filter(|sent| sent.from.as_str() == other && sent.to.as_str() == name);
        let lost: Vec<_> = lost.map(|sent| (sent.to.clone(), sent.id.clone())).collect();
        self.taken.extend(lost);
    }

    /// The same message again: its sender has not heard the answer, say.
    fn repeat(&mut self, seat: usize) {
        let of_user = |sent: &&Sent| sent.from.as_str() == SEATS[seat].0;
        let last = self.history.commits.iter().rev().flat_map(|commit| &commit.sent).find(of_user);
        if let Some(sent) = last.cloned() {
            self.ask(seat, sent);
        }
    }

    fn ask(&mut self, seat: usize, sent: Sent) {
        let (name, device) = SEATS[seat];
        let qos = if self.random.percent(20) { 2 } else { 1 };
        let client = self.seats.get_mut(&seat).unwrap();
        client.next_packet += 1;
        let (connection, packet) = (client.connection, Packet { id: client.next_packet, qos });
        if qos == 2 {
            client.held.push(packet.id);
        }
        let up = publication(device, connection, packet, self.last_id, &sent.payload);
        self.asked.insert((connection, packet.id), sent);
        self.up(name, up);
    }

    fn release(&mut self, seat: usize) {
        let client = self.seats.get_mut(&seat).unwrap();
        if let Some(packet_id) = client.held.pop() {
            let connection = client.connection;
            self.up(SEATS[seat].0, Up::Release { connection, packet_id });
        }
    }

    fn acknowledge(&mut self, seat: usize) {
        for _ in 0..=self.random.below(4) {
            let client = self.seats.get_mut(&seat).unwrap();
            let Some((seq, message)) = client.entries.pop_front() else { return };
            let connection = client.connection;
            self.taken.extend(message.map(|(id, ..)| (user(SEATS[seat].0), id)));
            self.up(SEATS[seat].0, Up::Acked { connection, seq, taken: true });
        }
    }

    fn read(&mut self, seat: usize) {
        let (name, device) = SEATS[seat];
        let client = self.seats.get_mut(&seat).unwrap();
        let Some((_, n, chat)) = client.entries.iter().rev().find_map(|(_, message)| message.clone()) else { return };
        client.next_packet += 1;
        let packet = Packet { id: client.next_packet, qos: 1 };
        let payload = json!({"status": "read", "chat": chat, "n": n});
        let up = publication(device, client.connection, packet, 0, &payload);
        self.up(name, up);
    }

    fn revoke(&mut self) {
        self.last_id += 1;
        let revocation = Revocation::Token { user: user("dave"), jti: format!("t{}", self.last_id) };
        self.handle(Event::Request(self.last_id, Request::Revoke(revocation)));
    }

    fn commit(&mut self) {
        let changes = self.engine().has_changes();
        let begun = self.watch.position();
        self.engine().commit().unwrap();
        let done = self.watch.position();
        if changes {
            let delta =
                self.second().query_row("SELECT delta FROM journal ORDER BY no DESC LIMIT 1", [], |row| row.get(0));
            let (delta, taken) = (delta.unwrap(), std::mem::take(&mut self.taken));
            self.history.commits.push(Commit { begun, done, delta, sent: Vec::new(), taken });
        }
        let mut released = Released::default();
        self.engine().release(&mut Window::default(), &mut released).unwrap();
        for frame in decode(released) {
            self.down(frame);
        }
    }

    fn down(&mut self, frame: Down) {
        match frame {
            Down::Answer { connection, packet, answer: Answer::Message { .. } }
                if self.posted.remove(&(connection, packet.id)) => {}
            Down::Answer { connection, packet, answer: Answer::Message { id, n, .. } } => {
                let mut sent = self.asked.remove(&(connection, packet.id)).expect("a packet that was sent");
                assert_eq!(sent.id, id);
                let known = self.sent.iter().find(|known| known.id == id).map(|known| known.n);
                assert_eq!(known.unwrap_or(n), n, "a repeat gets the first answer");
                sent.n = n;
                if known.is_none() {
                    self.sent.push(sent.clone());
                    self.history.commits.last_mut().unwrap().sent.push(sent);
                }
            }
            Down::Answer { answer, .. } => assert_eq!(answer, Answer::Done),
            Down::Entry { connection, seq, payload, .. } => {
                let entry: Value = serde_json::from_slice(&payload).unwrap();
                let message = (entry["type"] == "text" && entry["chat"] != "status@broadcast").then(|| {
                    let id = MessageId::parse(entry["id"].as_str().unwrap()).unwrap();
                    (id, entry["n"].as_u64().unwrap(), entry["chat"].as_str().unwrap().to_owned())
                });
                if let Some(client) = self.seats.values_mut().find(|client| client.connection == connection) {
                    client.entries.push_back((seq, message));
                }
            }
            Down::Attached { reason, .. } => assert!(reason < 0x80, "attached: {reason}"),
            _ => {}
        }
    }

    fn between_batches(&mut self) {
        if self.random.percent(20) {
            self.engine().settle().unwrap();
        }
        if self.random.percent(4) {
            let how = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][self.random.below(4)];
            let busy: i64 =
                self.second().query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |row| row.get(0)).unwrap();
            assert_eq!(busy, 0, "nobody else uses the database");
        }
    }

    /// The process ends and starts again. The last connection that closes copies the write-ahead log and deletes it; with one more that
    /// stays open, it is left as a kill leaves it.
    fn restart(&mut self, clean: bool) {
        self.seats.clear();
        let path = self.path.clone();
        let second = self.second.take().filter(|_| !clean);
        self.engine = None;
        let (engine, boot) = start(&path);
        self.history.boots.push((self.watch.position(), boot));
        (self.engine, self.boot) = (Some(engine), boot);
        self.second = Some(second.unwrap_or_else(|| Connection::open(&path).unwrap()));
    }

    /// Statuses end, whoever has them and whoever has not.
    fn sweep_a_day_later(&mut self) {
        while self.engine().settle().unwrap() {}
        self.now.server_secs += 24 * 3600;
        let now = self.now;
        while self.engine().sweep(now).unwrap() {}
        self.statuses.clear();
        assert!(self.engine().has_changes(), "statuses have ended");
        self.commit();
    }

    /// What nobody took is told by gaps and failures.
    fn sweep_a_month_later(&mut self) {
        while self.engine().settle().unwrap() {}
        self.now.server_secs += 31 * 24 * 3600;
        let now = self.now;
        self.engine().sweep(now).unwrap();
        let expired = self.sent.iter().flat_map(|sent| [(&sent.to, &sent.id), (&sent.from, &sent.id)]);
        self.taken.extend(expired.map(|(user, id)| (user.clone(), id.clone())));
        assert!(self.engine().has_changes(), "entries have expired");
        self.commit();
    }

    fn end(self) -> History {
        let Self { watch, engine, second, mut history, .. } = self;
        drop(second);
        drop(engine);
        history.log = watch.log();
        history
    }
}
