//! Tells the server and the mirror the same, and compares what the one says with what the other expects.

use bytes::Bytes;
use natter_bridge::engine::Now;
use natter_protocol::link::{Dialect, Mode, Opening, Packet, Publication, Up};
use natter_protocol::{ConnectionId, UserId};
use serde_json::{Value, json};

use super::facts::{Device, NAMES, User, device_id, pair};
use super::mirror::Mirror;
use super::ops::{Act, At, End, Id, Op, Step, UpTo, Which};
use super::said::users;
use super::server::{Ask, Server};

/// Rounds in which everything must be delivered at the end.
const ROUNDS_MAX: usize = 60;
/// Ids are used again for so long; later they may be forgotten.
const AGAIN_SECS: u64 = 50 * 24 * 3600;

pub(crate) struct Player<S> {
    server: S,
    mirror: Mirror,
    now: Now,
    /// The clock of a server that crashes falls back; what it has forgotten stays forgotten.
    latest_secs: u64,
    last_connection: u64,
    last_packet: u16,
    last_id: u64,
}

impl<S: Server> Player<S> {
    /// A server with the first two users.
    pub(crate) fn new(server: S) -> Self {
        let now = Now { server_secs: 1, unix_secs: 1_764_000_000 };
        let mirror = Mirror::default();
        let mut player = Self { server, mirror, now, latest_secs: 1, last_connection: 0, last_packet: 0, last_id: 0 };
        player.batch(End::Said, |player, draft| (0..2).for_each(|user| player.add_user(draft, user)));
        player
    }

    /// Plays a life to its end.
    pub(crate) fn play(mut self, steps: &[Step]) {
        for step in steps {
            let open = self.readers();
            self.batch(step.end, |player, draft| step.ops.iter().for_each(|op| player.op(draft, op)));
            if step.end == End::Lost {
                self.crash();
            }
            for _ in 0..step.settle {
                if !self.server.settle() {
                    break;
                }
            }
            if matches!(step.end, End::Unsaid | End::Died) {
                self.crash();
            }
            if matches!(step.end, End::Lost | End::Unsaid | End::Died) {
                self.come_back(&open);
            }
        }
        self.finish();
    }

    /// One batch, to its end. (Who has died is told by [`Self::crash`].)
    fn batch(&mut self, end: End, events: impl FnOnce(&mut Self, &mut Mirror)) {
        let mut draft = self.mirror.clone();
        for connection in std::mem::take(&mut draft.leaving) {
            if let Some(user) = draft.links.get(&connection).map(|link| link.user) {
                self.tell(&mut draft, user, Up::Close { connection, expiry_secs: None, by_server: true });
            }
        }
        events(self, &mut draft);
        // A sweep takes the memory of repeats away at once, whatever becomes of its batch.
        self.mirror.lossy |= draft.lossy;
        match end {
            End::Lost => {}
            End::Failed => {
                let frames = self.server.abort();
                // What the door knows of connections stays true; all else is as before.
                self.mirror.links = draft.links;
                self.mirror.by_client = draft.by_client;
                self.mirror.leaving = draft.leaving;
                self.mirror.hear_not_now(frames);
            }
            End::Unsaid => {
                self.server.commit();
                self.mirror = draft;
            }
            End::Said | End::Died | End::Starved(_) => {
                self.server.commit();
                let credit = if let End::Starved(left) = end { Some(usize::from(left)) } else { None };
                draft.hear(self.server.release(credit), credit.is_none());
                self.mirror = draft;
            }
        }
    }

    fn crash(&mut self) {
        self.server.crash();
        self.mirror.crashed(self.server.server_secs());
        // The clock of a server goes on from what the store knows.
        self.now.server_secs = self.server.server_secs().max(1);
    }

    fn readers(&self) -> Vec<(User, String, Device)> {
        let links = self.mirror.links.values();
        links.filter_map(|l| Some((l.user, l.client_id.clone(), l.reading?.0))).collect()
    }

    /// Clients that were cut off connect again.
    fn come_back(&mut self, open: &[(User, String, Device)]) {
        self.batch(End::Said, |player, draft| {
            for (user, client_id, device) in open {
                let connection = player.open(draft, *user, client_id, opening(client_id, false, 0));
                player.attach(draft, *user, connection, *device, Mode::Device);
            }
        });
    }

    fn tell(&mut self, draft: &mut Mirror, user: User, up: Up) {
        draft.take(user, &up, self.now);
        self.server.handle(Ask::Up(name(user), up), self.now);
    }

    fn add_user(&mut self, draft: &mut Mirror, user: User) {
        draft.known[user] = true;
        self.server.handle(Ask::AddUser(name(user)), self.now);
    }

    fn open(&mut self, draft: &mut Mirror, user: User, client_id: &str, opening: Opening) -> ConnectionId {
        if let Some(device) = draft.resumes(user, client_id, self.now).and_then(|session| session.device) {
            self.make_peace(draft, user, client_id, device);
        }
        self.last_connection += 1;
        let connection = ConnectionId { boot: 1, n: self.last_connection };
        self.tell(draft, user, Up::Open(connection, opening));
        connection
    }

    fn attach(&mut self, draft: &mut Mirror, user: User, connection: ConnectionId, device: Device, mode: Mode) {
        if mode == Mode::Device {
            let client_id = draft.links[&connection].client_id.clone();
            self.make_peace(draft, user, &client_id, device);
        }
        self.tell(draft, user, Up::Attach { connection, request: 1, device: device_id(device), mode });
    }

    /// Takes so much time that no two clients seem to fight for an inbox.
    fn make_peace(&mut self, draft: &Mirror, user: User, client_id: &str, device: Device) {
        if draft.reader_of(user, device).is_some_and(|id| draft.links[&id].client_id != client_id) {
            self.now.server_secs += 30;
        }
    }

    /// The connection of a client; one that has none connects, and reads its device.
    fn connection(&mut self, draft: &mut Mirror, user: User, client: usize) -> ConnectionId {
        let client_id = format!("c{client}");
        if let Some(id) = draft.by_client.get(&(user, client_id.clone()))
            && draft.links.get(id).is_some_and(|link| !link.deaf)
        {
            return *id;
        }
        let connection = self.open(draft, user, &client_id, opening(&client_id, false, 0));
        if draft.links[&connection].reading.is_none() {
            self.attach(draft, user, connection, client % 2, Mode::Device);
        }
        connection
    }

    fn publish(&mut self, draft: &mut Mirror, user: User, connection: ConnectionId, qos: u8, payload: &Value) {
        let link = &draft.links[&connection];
        let fallback = usize::from(link.client_id == "c1");
        let device = device_id(link.reading.map_or(fallback, |(device, _)| device));
        self.last_packet = self.last_packet % 60_000 + 1;
        let packet = Packet { id: if qos == 0 { 0 } else { self.last_packet }, qos };
        self.last_id += 1;
        let publication = Publication {
            connection,
            packet,
            device,
            stamp: u128::from(self.last_id) << 64,
            will: false,
            payload: Bytes::from(payload.to_string()),
        };
        self.tell(draft, user, Up::Publish(publication));
    }

    fn op(&mut self, draft: &mut Mirror, op: &Op) {
        let Op { user, client, ref act } = *op;
        match *act {
            Act::AddUser => return self.add_user(draft, user),
            Act::Wait(secs) => {
                self.now.server_secs += secs;
                self.now.unix_secs += secs;
                self.latest_secs = self.latest_secs.max(self.now.server_secs);
                return;
            }
            Act::Sweep => {
                self.server.sweep(self.now);
                return draft.swept(self.now);
            }
            Act::Connect { clean, expiry_secs, bare, receive_maximum, small } => {
                let client_id = format!("c{client}");
                let dialect = if bare { Dialect::Bare } else { Dialect::Full };
                let packet_bytes_max = if small { 700 } else { u32::MAX };
                let opening = opening(&client_id, clean, expiry_secs);
                let connection = self.open(
                    draft,
                    user,
                    &client_id,
                    Opening { dialect, receive_maximum, packet_bytes_max, ..opening },
                );
                if draft.links[&connection].reading.is_none() {
                    self.attach(draft, user, connection, client % 2, Mode::Device);
                }
                return;
            }
            _ => {}
        }
        let connection = self.connection(draft, user, client);
        match *act {
            Act::Attach { device, viewer } => {
                let mode = if viewer { Mode::Viewer } else { Mode::Device };
                self.attach(draft, user, connection, device, mode);
            }
            Act::Detach => self.tell(draft, user, Up::Detach { connection }),
            Act::Close { expiry_secs } => {
                // MQTT 5: a session that was not asked for cannot be asked for at the end.
                let expiry_secs = expiry_secs.filter(|_| draft.links[&connection].opening.expiry_secs > 0);
                self.tell(draft, user, Up::Close { connection, expiry_secs, by_server: false });
            }
            Act::Text { to, id, qos, long } => {
                let payload = self.text(draft, user, to, id, long);
                self.publish(draft, user, connection, qos, &payload);
            }
            Act::UnknownType => {
                self.last_id += 1;
                let payload = json!({"id": format!("u{}", self.last_id), "to": "bob", "type": "poll"});
                self.publish(draft, user, connection, 1, &payload);
            }
            Act::Will { to } => self.will(draft, user, connection, to),
            Act::Release => {
                let packet_id = self.last_packet;
                self.tell(draft, user, Up::Release { connection, packet_id });
            }
            Act::Acknowledge(which) => self.acknowledge(draft, user, connection, which, true),
            Act::TurnDown(which) => self.acknowledge(draft, user, connection, which, false),
            Act::Read { other, at } => {
                let payload = self.read_mark(draft, user, other, at);
                self.publish(draft, user, connection, 1, &payload);
            }
            Act::AckUpTo(upto) => {
                let inbox = &draft.inboxes[user];
                let link = &draft.links[&connection];
                let device = link.reading.map(|(device, _)| device);
                let n = match upto {
                    UpTo::Oldest => link.flight.front().map(|entry| entry.seq),
                    UpTo::Newest => device.and_then(|device| inbox.devices.get(&device)?.last),
                    UpTo::Blind => Some(inbox.newest()),
                    UpTo::TooFar => Some(inbox.newest() + 1000),
                };
                self.publish(draft, user, connection, 1, &json!({"ack": n.unwrap_or(0)}));
            }
            Act::Sync => self.publish(draft, user, connection, 1, &json!({"sync": true})),
            Act::AddUser | Act::Wait(_) | Act::Sweep | Act::Connect { .. } => {}
        }
    }

    fn text(&mut self, draft: &Mirror, user: User, to: User, id: Id, long: bool) -> Value {
        self.last_id += 1;
        let new = format!("m{}", self.last_id);
        let body = if long { "x".repeat(1000) } else { new.clone() };
        let fresh =
            |id: Option<String>, body: &str| json!({"id": id, "to": NAMES[to], "type": "text", "text": {"body": body}});
        let used = |k: u8| {
            let young = |at: u64| at + AGAIN_SECS > self.latest_secs;
            let all: Vec<_> = draft.accepted.iter().filter(|((from, _), a)| *from == user && young(a.at)).collect();
            all.get(usize::from(k) % all.len().max(1)).map(|((_, id), first)| (id.clone(), (*first).clone()))
        };
        match id {
            Id::New => fresh(Some(new), &body),
            Id::None => {
                let mut payload = fresh(None, &body);
                payload.as_object_mut().unwrap().remove("id");
                payload
            }
            Id::Again(k) => match used(k) {
                Some((id, first)) => {
                    json!({"id": id, "to": NAMES[first.to], "type": "text", "text": {"body": &*first.body}})
                }
                None => fresh(Some(new), &body),
            },
            Id::Other(k) => match used(k) {
                Some((id, _)) => fresh(Some(id), "other content"),
                None => fresh(Some(new), &body),
            },
        }
    }

    fn will(&mut self, draft: &mut Mirror, user: User, connection: ConnectionId, to: User) {
        let payload = self.text(draft, user, to, Id::New, false);
        let device = device_id(draft.links[&connection].reading.map_or(0, |(device, _)| device));
        self.tell(draft, user, Up::Close { connection, expiry_secs: None, by_server: false });
        let publication = Publication {
            connection,
            packet: Packet { id: 0, qos: 0 },
            device,
            stamp: u128::from(self.last_id) << 64,
            will: true,
            payload: Bytes::from(payload.to_string()),
        };
        self.tell(draft, user, Up::Publish(publication));
    }

    fn acknowledge(&mut self, draft: &mut Mirror, user: User, connection: ConnectionId, which: Which, taken: bool) {
        let flight = draft.links[&connection].flight.iter().filter(|entry| entry.acknowledged.is_none());
        let mut seqs: Vec<_> = flight.map(|entry| entry.seq).collect();
        match which {
            Which::Oldest => seqs.truncate(1),
            Which::Newest => seqs = seqs.pop().into_iter().collect(),
            Which::All => {}
            Which::Backwards => seqs.reverse(),
            Which::Unknown(seq) => {
                let unknown = !draft.links[&connection].flight.iter().any(|entry| entry.seq == u64::from(seq));
                seqs = unknown.then_some(u64::from(seq)).into_iter().collect();
            }
        }
        for seq in seqs {
            self.tell(draft, user, Up::Acked { connection, seq, taken });
        }
    }

    fn read_mark(&self, draft: &Mirror, user: User, other: User, at: At) -> Value {
        let last_n = draft.talks.get(&pair(user, other)).map_or(0, super::facts::Talk::last_n);
        let n = match at {
            At::Newest => last_n,
            At::Older => last_n / 2,
            At::Beyond => last_n + 1,
            At::ById(k) => {
                let young = |at: u64| at + AGAIN_SECS > self.latest_secs;
                let all = draft.accepted.iter().filter(|((from, _), a)| *from == other && young(a.at));
                let all: Vec<_> = all.map(|((_, id), _)| id.as_str()).collect();
                let id = all.get(usize::from(k) % all.len().max(1)).copied().unwrap_or("never-was");
                return json!({"status": "read", "message_id": id, "from": NAMES[other]});
            }
            At::Nowhere => return json!({"status": "read", "chat": "nobody", "n": 1}),
        };
        json!({"status": "read", "chat": NAMES[other], "n": n})
    }

    /// Every device comes and takes everything; then nothing is left, of entries and of questions.
    fn finish(&mut self) {
        self.mirror.leaving.extend(self.mirror.links.keys().copied().collect::<Vec<_>>());
        self.batch(End::Said, |_, _| {});
        self.batch(End::Said, |player, draft| {
            for user in users() {
                for device in draft.inboxes[user].devices.keys().copied().collect::<Vec<_>>() {
                    let client_id = format!("last-{device}");
                    let connection = player.open(draft, user, &client_id, opening(&client_id, true, 0));
                    player.attach(draft, user, connection, device, Mode::Device);
                }
            }
        });
        let mut rounds = 0;
        while self.mirror.links.values().any(|link| !link.flight.is_empty()) {
            rounds += 1;
            assert!(rounds < ROUNDS_MAX, "it never ends");
            self.batch(End::Said, |player, draft| {
                for (connection, user) in draft.links.iter().map(|(id, link)| (*id, link.user)).collect::<Vec<_>>() {
                    player.acknowledge(draft, user, connection, Which::All, true);
                }
            });
        }
        self.mirror.check_the_end();

        while self.server.settle() {}
        for user in users().filter(|user| !self.mirror.inboxes[*user].devices.is_empty()) {
            let left = self.server.stored(&name(user));
            assert!(left.is_empty(), "everybody has everything, and {user}'s inbox holds {left:?}");
        }
        self.crash();
        self.every_repeat_gets_the_first_answer();
    }

    fn every_repeat_gets_the_first_answer(&mut self) {
        self.batch(End::Said, |player, draft| {
            for user in users() {
                let all: Vec<_> = draft.accepted.iter().filter(|((from, _), _)| *from == user).collect();
                let young: Vec<_> = all.iter().filter(|(_, a)| a.at + AGAIN_SECS > player.latest_secs).collect();
                let payloads: Vec<_> = young
                    .iter()
                    .map(
                        |((_, id), a)| json!({"id": id, "to": NAMES[a.to], "type": "text", "text": {"body": &*a.body}}),
                    )
                    .collect();
                let connection = player.connection(draft, user, 0);
                for payload in payloads {
                    player.publish(draft, user, connection, 1, &payload);
                }
            }
        });
    }
}

fn name(user: User) -> UserId {
    UserId::parse(NAMES[user]).unwrap()
}

fn opening(client_id: &str, clean_start: bool, expiry_secs: u32) -> Opening {
    Opening {
        client_id: client_id.to_owned(),
        clean_start,
        expiry_secs,
        dialect: Dialect::Full,
        receive_maximum: 100,
        packet_bytes_max: u32::MAX,
        device: None,
        issued_at: 0,
    }
}
