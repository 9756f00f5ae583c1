//! What is measured of the engine: pairs that write to each other, frame by frame as the link brings it, over a store in memory.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each program uses a part, and ends where its world does not hold"
)]

use std::sync::Arc;

use bytes::Bytes;
use natter_bridge::config::Limits;
use natter_bridge::engine::{Engine, Event, Now, Released, Request};
use natter_bridge::stats::Counters;
use natter_bridge::store::memory::Memory;
use natter_protocol::link::{Credit, Dialect, Down, Intake, Mode, Opening, Packet, Publication, Up, Window};
use natter_protocol::{ConnectionId, DeviceId, UserId};

/// A batch's share of what a second of real traffic is.
pub const PAIRS: usize = 50;

/// A frame as the link has it.
type Frame = (UserId, Bytes);

/// The engine and what the other side of the link would hold.
pub struct World {
    engine: Engine<Memory>,
    window: Window,
    /// The door's half of the credit.
    intake: Intake,
    users: Vec<(UserId, ConnectionId)>,
    now: Now,
    sent: u64,
}

impl World {
    /// Pairs of users, each with a phone that is connected and reads.
    pub fn new() -> Self {
        let engine = Engine::recover(Memory::default(), Limits::default(), Arc::new(Counters::default())).unwrap();
        let users = (0..2 * PAIRS).map(|i| (UserId::parse(&format!("49{i:011}")).unwrap(), connection(i))).collect();
        let now = Now { server_secs: 1, unix_secs: 1_764_000_000 };
        let mut world = Self { engine, window: Window::default(), intake: Intake::default(), users, now, sent: 0 };
        for (ticket, (user, _)) in world.users.clone().into_iter().enumerate() {
            world.engine.handle(Event::Request(ticket as u64, Request::AddUser(user)), now).unwrap();
        }
        world.batch(Vec::new());
        for (user, connection) in world.users.clone() {
            let opening = Opening {
                client_id: format!("{user}-phone"),
                clean_start: true,
                expiry_secs: 0,
                dialect: Dialect::Full,
                receive_maximum: 128,
                packet_bytes_max: 128 * 1024,
                device: None,
                issued_at: 0,
            };
            let attach = Up::Attach { connection, request: 1, device: phone(), mode: Mode::Device };
            world.batch(vec![(user.clone(), Up::Open(connection, opening).encode()), (user, attach.encode())]);
        }
        world
    }

    /// `each` messages of every pair, to the end: committed, delivered, acknowledged, receipted, and the receipts acknowledged.
    pub fn round(&mut self, each: usize) {
        let frames = self.publications(each);
        let entries = self.batch(frames);
        let receipts = self.acknowledge(entries);
        let rest = self.acknowledge(receipts);
        assert!(rest.is_empty(), "every message and every receipt is acknowledged");
    }

    /// PUBLISHes, as the door sends them up.
    fn publications(&mut self, each: usize) -> Vec<Frame> {
        let mut frames = Vec::with_capacity(PAIRS * each);
        for _ in 0..each {
            for pair in 0..PAIRS {
                let ((user, connection), (to, _)) = (self.users[2 * pair].clone(), &self.users[2 * pair + 1]);
                let k = self.sent;
                self.sent += 1;
                let payload = format!(
                    r#"{{"id":"{:016x}-{k:016x}","to":"{to}","type":"text","text":{{"body":"{}"}}}}"#,
                    7,
                    "x".repeat(100)
                );
                let publication = Publication {
                    connection,
                    packet: Packet { id: (k % 60_000) as u16 + 1, qos: 1 },
                    device: phone(),
                    stamp: u128::from(k) + 1,
                    will: false,
                    payload: payload.into(),
                };
                frames.push((user, Up::Publish(publication).encode()));
            }
        }
        frames
    }

    /// One batch; the entries that it hands out: whose, by which connection, which.
    fn batch(&mut self, frames: Vec<Frame>) -> Vec<(UserId, ConnectionId, u64)> {
        for (user, frame) in frames {
            let up = Up::decode(frame).unwrap();
            self.engine.handle(Event::Up(user, up), self.now).unwrap();
        }
        self.engine.commit().unwrap();
        let mut released = Released::default();
        self.engine.release(&mut self.window, &mut released).unwrap();
        let mut entries = Vec::new();
        let mut credit: Option<Credit> = None;
        for (user, frame) in released.frames {
            credit = self.intake.took(frame.len()).or(credit);
            if let (Some(user), Ok(Down::Entry { connection, seq, .. })) = (user, Down::decode(frame)) {
                entries.push((user, connection, seq));
            }
        }
        if let Some(credit) = credit {
            self.window.confirmed(credit);
        }
        entries
    }

    fn acknowledge(&mut self, entries: Vec<(UserId, ConnectionId, u64)>) -> Vec<(UserId, ConnectionId, u64)> {
        let acked = |(user, connection, seq)| (user, Up::Acked { connection, seq, taken: true }.encode());
        self.batch(entries.into_iter().map(acked).collect())
    }

    /// Everything from the journal into the tables.
    pub fn settle(&mut self) {
        while self.engine.settle().unwrap() {}
    }
}

fn connection(i: usize) -> ConnectionId {
    ConnectionId { boot: 1, n: i as u64 + 1 }
}

fn phone() -> DeviceId {
    DeviceId::parse("phone").unwrap()
}
