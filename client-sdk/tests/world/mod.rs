//! A client process, its disk, its network and its server, one step at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use natter_client::core::{Answer, Core, Input, Key, Output};
use natter_client::store::{MemoryStore, Owner, Store, Write};
use natter_client::{Error, Progress, Tick};
use natter_protocol::entry::Entry;

mod seen;
mod server;

pub(crate) use seen::{Random, Seen};

use server::Server;

const DAY_MS: i64 = 24 * 3600 * 1000;
/// What the app sends, and what comes for it.
const MESSAGES: u64 = 25;
const STEPS: u32 = 600;

pub(crate) enum Up {
    Publish(Key, Bytes),
    Ack(u64),
}

pub(crate) enum Down {
    Answer(Key, Answer),
    Entry(u64, Vec<u8>),
}

/// One connection: what is under way in both directions. Answers and entries keep their own order, and mix freely.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) up: VecDeque<Up>,
    pub(crate) answers: VecDeque<Down>,
    pub(crate) entries: VecDeque<Down>,
    deliveries: BTreeMap<u64, u64>,
}

pub(crate) struct World {
    seed: u64,
    random: Random,
    seen: Seen,
    durable: bool,
    exactly_once: bool,
    inbox_max: usize,
    rough: bool,
    disk: MemoryStore,
    core: Core,
    server: Server,
    wire: Option<Wire>,
    /// Batch at the disk.
    batch: Option<Vec<Write>>,
    true_ms: i64,
    skew_ms: i64,
    next_message: u64,
    next_delivery: u64,
    tickets: BTreeMap<u64, String>,
    /// `send` returned Ok, in order.
    accepted: Vec<String>,
    /// The app was told that they will not arrive.
    failed: BTreeSet<String>,
    progress: BTreeMap<String, Progress>,
    /// Handed to this process and not taken.
    handed: VecDeque<(u64, Entry)>,
    /// The app's own table: every entry that it has, in order; `seq` and its text.
    app: Vec<u64>,
    calm: bool,
}

fn owner() -> Owner {
    Owner { user: "alice".into(), device: "phone".into() }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let durable = !random.one_in(4);
        let exactly_once = durable && random.one_in(2);
        let inbox_max = if random.one_in(3) { 3 } else { 1_000 };
        let rough = random.one_in(3);
        Self {
            seed,
            random,
            seen: Seen::default(),
            durable,
            exactly_once,
            inbox_max,
            rough,
            disk: MemoryStore::default(),
            core: Core::with_inbox(Default::default(), durable, inbox_max),
            server: Server::default(),
            wire: None,
            batch: None,
            true_ms: 1_000 * DAY_MS,
            skew_ms: 0,
            next_message: 0,
            next_delivery: 0,
            tickets: BTreeMap::new(),
            accepted: Vec::new(),
            failed: BTreeSet::new(),
            progress: BTreeMap::new(),
            handed: VecDeque::new(),
            app: Vec::new(),
            calm: false,
        }
    }

    pub(crate) fn run(mut self) -> Seen {
        for _ in 0..STEPS {
            self.step();
        }
        self.calm = true;
        self.drop_connection();
        for _ in 0..20_000 {
            if self.is_quiet() {
                break;
            }
            self.step();
        }
        self.judge();
        self.seen
    }

    fn fail(&self, what: &str) -> ! {
        panic!("seed {}: {what}", self.seed)
    }

    fn now(&self) -> i64 {
        self.true_ms + self.skew_ms
    }

    fn handle(&mut self, input: Input) {
        let now = self.now();
        self.core.handle(now, input);
    }

    fn step(&mut self) {
        self.true_ms += i64::try_from(self.random.below(5_000)).unwrap();
        let what = self.random.below(if self.calm { 60 } else { 100 });
        // In most worlds connections live long enough for something to happen on them.
        if what >= 80 && !self.rough && !self.random.one_in(6) {
            return self.server_speaks();
        }
        match what {
            0..15 => self.outputs(),
            15..25 => self.disk_step(),
            25..35 => self.server_reads(),
            35..45 => self.client_reads(),
            45..50 => self.server_speaks(),
            50..56 => self.app_takes(),
            56..60 => self.connect(),
            60..72 => self.app_sends(),
            72..80 => self.server_acts(),
            80..82 => self.disk_fails(),
            82..84 => self.crash(),
            84..86 => self.drop_connection(),
            86 => self.time_jumps(),
            _ => self.handle(Input::Tick),
        }
    }

    /// Some of what the core wants is done; a crash may come before the rest.
    fn outputs(&mut self) {
        for _ in 0..self.random.below(6) {
            let Some(output) = self.core.next_output() else { break };
            self.output(output);
        }
        if self.batch.is_none() {
            self.batch = self.core.take_batch();
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Publish { key, payload } => {
                let Some(wire) = &mut self.wire else { return };
                let id = server::id_of(&payload);
                let rows = self.disk.load(&owner()).unwrap().outgoing;
                let row = rows.into_iter().find(|row| row.id.as_deref() == Some(id.as_str()));
                if row.is_none_or(|row| row.tried_ms.is_none()) {
                    self.fail("published before it and its first attempt were on the disk");
                }
                wire.up.push_back(Up::Publish(key, payload));
            }
            Output::Acknowledge(delivery) => {
                let Some(wire) = &mut self.wire else { return };
                let Some(seq) = wire.deliveries.remove(&delivery) else {
                    self.fail("acknowledged what did not come over this connection");
                };
                wire.up.push_back(Up::Ack(seq));
                let last = self.disk.load(&owner()).unwrap().last_seq;
                let kept = if self.durable { last >= Some(seq) } else { self.app.contains(&seq) };
                if !kept {
                    self.fail("acknowledged before it was kept");
                }
            }
            Output::Accepted(ticket) => {
                let id = self.tickets.remove(&ticket).unwrap();
                self.accepted.push(id);
            }
            Output::Rejected(..) => self.fail("rejected"),
            Output::Progress(id, progress) => {
                if progress.failure.is_some() {
                    self.failed.insert(id.clone());
                }
                self.progress.insert(id, *progress);
            }
            Output::Failed(failed) => match failed.error {
                Error::Unconfirmed => self.seen.unconfirmed += 1,
                Error::Refused { .. } => self.seen.refused += 1,
                other => panic!("{other}"),
            },
            Output::Forgotten(_) | Output::Live(_) => self.fail("nothing of the kind is expected here"),
            Output::Entry(seq, entry) => self.handed.push_back((seq, *entry)),
            Output::Reconnect => {
                self.seen.gaps += 1;
                self.drop_connection();
            }
        }
    }

    fn disk_step(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.disk.commit(&batch).unwrap();
            self.handle(Input::Stored);
        }
    }

    /// The commit fails, done or not; the driver looks what is there.
    fn disk_fails(&mut self) {
        let Some(batch) = self.batch.take() else { return };
        self.seen.failed_commits += 1;
        if self.random.one_in(2) {
            self.disk.commit(&batch).unwrap();
        }
        self.restart();
        for (_, id) in std::mem::take(&mut self.tickets) {
            if self.core.knows(&id) {
                self.accepted.push(id);
            }
        }
    }

    fn crash(&mut self) {
        self.seen.crashes += 1;
        if !self.durable {
            self.disk = MemoryStore::default();
            self.accepted.clear();
            self.progress.clear();
        } else if let Some(batch) = self.batch.take()
            && self.random.one_in(2)
        {
            self.disk.commit(&batch).unwrap();
        }
        self.tickets.clear();
        self.restart();
    }

    fn restart(&mut self) {
        self.batch = None;
        self.handed.clear();
        self.wire = None;
        let snapshot = self.disk.load(&owner()).unwrap();
        self.core = Core::with_inbox(snapshot, self.durable, self.inbox_max);
    }

    fn connect(&mut self) {
        if self.wire.is_none() {
            self.wire = Some(Wire::default());
            self.server.connected();
            self.handle(Input::Connected);
        }
    }

    fn drop_connection(&mut self) {
        if self.wire.take().is_some() {
            self.seen.drops += 1;
            self.handle(Input::Disconnected);
        }
    }

    fn server_reads(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        match wire.up.pop_front() {
            // Not now: nothing behind it on this connection is taken in.
            Some(Up::Publish(..)) if !self.calm && self.random.one_in(15) => self.drop_connection(),
            Some(Up::Publish(key, payload)) => {
                let (answer, again) = self.server.publish(&payload, self.true_ms);
                self.seen.resent += u64::from(again);
                wire.answers.push_back(Down::Answer(key, answer));
            }
            Some(Up::Ack(seq)) => self.server.acked(seq),
            None => {}
        }
    }

    fn server_speaks(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let (entry, again) = self.server.next_entry();
        self.seen.repeats += u64::from(again);
        if let Some((seq, payload)) = entry {
            // What is lost although the connection stays: only what goes out for the first time, as the server sends again until it is told.
            if !self.calm && self.server.is_first_time(seq) && self.random.one_in(8) {
                return;
            }
            wire.entries.push_back(Down::Entry(seq, payload));
        }
    }

    fn client_reads(&mut self) {
        let answers = self.random.one_in(2);
        let Some(wire) = &mut self.wire else { return };
        let packet = if answers { wire.answers.pop_front() } else { wire.entries.pop_front() };
        match packet {
            Some(Down::Answer(key, answer)) => self.handle(Input::Answered { key, answer }),
            Some(Down::Entry(seq, payload)) => {
                self.next_delivery += 1;
                let delivery = self.next_delivery;
                wire.deliveries.insert(delivery, seq);
                let entry = Box::new(Entry::parse(&payload).unwrap());
                if self.handed.len() >= self.inbox_max {
                    self.seen.full += 1;
                }
                self.handle(Input::Arrived { delivery, entry, payload: Bytes::from(payload) });
            }
            None => {}
        }
    }

    fn app_takes(&mut self) {
        let Some((seq, entry)) = self.handed.pop_front() else { return };
        assert_eq!(entry.seq, Some(seq));
        if self.exactly_once {
            // One transaction: the app's row and the mark.
            if self.random.one_in(5) {
                return self.handed.push_front((seq, entry));
            }
            self.disk.commit(&[Write::Taken(seq)]).unwrap();
            self.app.push(seq);
            if self.calm || !self.random.one_in(20) {
                self.handle(Input::Took { seq, stored: true });
            } else {
                self.crash();
            }
            return;
        }
        // At least once: what comes again has the same position.
        if !self.app.contains(&seq) {
            self.app.push(seq);
        }
        if self.calm || !self.random.one_in(20) {
            self.handle(Input::Took { seq, stored: false });
        } else {
            self.crash();
        }
    }

    fn app_sends(&mut self) {
        if self.next_message >= MESSAGES {
            return;
        }
        self.next_message += 1;
        let id = format!("m{:03}", self.next_message);
        self.tickets.insert(self.next_message, id.clone());
        let payload = server::message(&id);
        self.handle(Input::Send { ticket: self.next_message, id: Some(id), chat: Some("bob".into()), payload });
    }

    fn server_acts(&mut self) {
        let what = self.random.below(3);
        self.server.act(what, MESSAGES);
    }

    /// A clock is wrong by two days at most. Days pass while nothing happens.
    fn time_jumps(&mut self) {
        if self.random.one_in(4) {
            self.true_ms += i64::try_from(self.random.below(40)).unwrap() * DAY_MS;
            // Nothing stays under way for that long.
            self.drop_connection();
        } else {
            self.skew_ms = (i64::try_from(self.random.below(5)).unwrap() - 2) * DAY_MS;
        }
    }

    fn is_quiet(&self) -> bool {
        let wire = self.wire.as_ref();
        let silent = wire.is_some_and(|w| w.up.is_empty() && w.answers.is_empty() && w.entries.is_empty());
        silent && self.core.is_idle() && self.batch.is_none() && self.handed.is_empty() && self.server.is_idle()
    }

    fn judge(&self) {
        if !self.is_quiet() {
            self.fail("it does not come to an end");
        }
        let committed = &self.server.committed;
        let unique: BTreeSet<&String> = committed.iter().collect();
        if unique.len() != committed.len() {
            self.fail(&format!("doubled: {committed:?}"));
        }
        // Ids rise in the order of the sends.
        if !committed.is_sorted() {
            self.fail(&format!("reordered: {committed:?}"));
        }
        if let Some(lost) = self.accepted.iter().find(|id| !unique.contains(id) && !self.failed.contains(*id)) {
            self.fail(&format!("lost: {lost}"));
        }
        if self.app != self.server.everything() {
            self.fail(&format!("expected entries {:?}, the app has {:?}", self.server.everything(), self.app));
        }
        for id in self.accepted.iter().filter(|id| !self.failed.contains(*id)) {
            let tick = self.progress.get(id).map_or(Tick::Queued, |progress| progress.tick);
            let expected = self.server.tick(id);
            // Without a disk, receipts that an earlier process took are forgotten with it.
            if tick != expected && (self.durable || tick > expected) {
                self.fail(&format!("{id}: expected {expected:?}, got {tick:?}"));
            }
        }
    }
}
