//! A client process, its disk, its network and its server, one step at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use natter_client::Progress;
use natter_client::core::takeover::Takeovers;
use natter_client::core::{Answer, Core, Input, Key};
use natter_client::store::{MemoryStore, Owner, Write};
use natter_protocol::entry::Entry;

mod judge;
mod network;
mod process;
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
    /// When the connection was begun.
    begun_ms: i64,
    /// An attempt that was given up and is still under way: it will take the device over.
    ghost: bool,
    /// Ghosts that came one after the other, with no long connection in between.
    ghosts_in_a_row: u32,
    takeovers: Takeovers,
    /// Batch at the disk.
    batch: Option<Vec<Write>>,
    true_ms: i64,
    skew_ms: i64,
    next_message: u64,
    next_delivery: u64,
    tickets: BTreeMap<u64, String>,
    /// `send` returned Ok, in order.
    accepted: Vec<String>,
    /// What stores had taken that are gone.
    gone: BTreeSet<String>,
    /// The app was told that they will not arrive.
    failed: BTreeSet<String>,
    progress: BTreeMap<String, Progress>,
    /// Handed to this process and not taken.
    handed: VecDeque<(u64, Entry)>,
    /// The app's own table: every entry that it has, in order: which store of the server it was of, and `seq`.
    app: Vec<(u64, u64)>,
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
            server: Server::new(0, seed.is_multiple_of(3)),
            wire: None,
            begun_ms: 0,
            ghost: false,
            ghosts_in_a_row: 0,
            takeovers: Takeovers::default(),
            batch: None,
            true_ms: 1_000 * DAY_MS,
            skew_ms: 0,
            next_message: 0,
            next_delivery: 0,
            tickets: BTreeMap::new(),
            accepted: Vec::new(),
            gone: BTreeSet::new(),
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
            87..90 => self.ghost_arrives(),
            90 => self.server_begins_anew(),
            _ => self.handle(Input::Tick),
        }
    }
}
