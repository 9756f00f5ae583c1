//! Random lives of people who have each other as contacts, block each other, post statuses and write, over crashes at any moment: held
//! against a model that says of each message and status who may have it, which ticks it has, and whether it fails.
//!
//! A plain run always tells the same lives; `PROPTEST_CASES=4000` tells that many, and new ones.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its world does not hold")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use natter_bridge::config::Limits;
use natter_bridge::engine::{Engine, Event, Now, Released, Reply, Request};
use natter_bridge::inside::Fetch;
use natter_bridge::stats::Counters;
use natter_bridge::status::{self, STATUS_SECS};
use natter_bridge::store::Store;
use natter_bridge::store::memory::Memory;
use natter_bridge::store::sqlite::Sqlite;
use natter_bridge::{blocks, contacts};
use natter_protocol::error::Kind;
use natter_protocol::link::{Answer, Window};
use natter_protocol::{DeviceId, N, Seq, UserId};
use proptest::prelude::*;
use serde_json::{Value, json};

const NAMES: [&str; 3] = ["alice", "bob", "carol"];
const HOUR: u64 = 3600;
const MONTH: u64 = 30 * 24 * HOUR;
/// Later a dedupe row may be gone, and with it what a read mark covers.
const LIFE: u64 = 55 * 24 * HOUR;

type Who = usize;

#[derive(Debug, Clone, Copy)]
enum Act {
    Contact(Who, Who, bool),
    Block(Who, Who, bool),
    Post(Who),
    /// Takes back one of the statuses that he ever posted.
    TakeBack(Who, usize),
    Send(Who, Who),
    /// Fetches and acknowledges all there is.
    Take(Who),
    /// Fetches, and keeps nothing of it.
    Peek(Who),
    ReadChat(Who, Who),
    ReadStatuses(Who, Who),
    Pass(u64),
    Sweep,
    Settle,
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    let who = || 0..NAMES.len();
    let mostly = || prop::bool::weighted(0.6);
    prop_oneof![
        3 => (who(), who(), mostly()).prop_map(|(a, b, on)| Act::Contact(a, b, on)),
        4 => (who(), who(), mostly()).prop_map(|(a, b, on)| Act::Block(a, b, on)),
        6 => who().prop_map(Act::Post),
        2 => (who(), 0_usize..4).prop_map(|(a, k)| Act::TakeBack(a, k)),
        6 => (who(), who()).prop_map(|(a, b)| Act::Send(a, b)),
        6 => who().prop_map(Act::Take),
        1 => who().prop_map(Act::Peek),
        3 => (who(), who()).prop_map(|(a, b)| Act::ReadChat(a, b)),
        3 => (who(), who()).prop_map(|(a, b)| Act::ReadStatuses(a, b)),
        3 => prop_oneof![1 => 1..STATUS_SECS, 1 => Just(STATUS_SECS), 1 => Just(11 * 24 * HOUR)].prop_map(Act::Pass),
        3 => Just(Act::Sweep),
        3 => Just(Act::Settle),
        4 => Just(Act::Crash),
    ]
}

/// A message, or a status, and what is to be seen of it.
#[derive(Debug)]
struct Sent {
    from: Who,
    /// To whom; of a status, its audience.
    to: BTreeSet<Who>,
    is_status: bool,
    n: N,
    at: u64,
    /// Who has a place that was not taken, and may still get it.
    waits: BTreeSet<Who>,
    hidden: BTreeSet<Who>,
    /// Which devices have had it, and whoever may have been shown it.
    had: BTreeSet<Who>,
    peeked: BTreeSet<Who>,
    /// Read when that could be told.
    blue: BTreeSet<Who>,
    /// Taken back, or over and swept.
    gone: bool,
    must_fail: bool,
    /// What its sender was told.
    told_delivered: BTreeSet<Who>,
    told_read: BTreeSet<Who>,
    told_failed: u32,
}

/// What marks and numbers belong to: a pair of users, or a poster's statuses.
type Place = (Who, Option<Who>);

struct Life<S> {
    engine: Option<Engine<S>>,
    reopen: Box<dyn Fn(S) -> S>,
    now: Now,
    count: usize,
    contacts: BTreeSet<(Who, Who)>,
    blocks: BTreeSet<(Who, Who)>,
    sent: BTreeMap<String, Sent>,
    /// In the order of acceptance.
    order: Vec<String>,
    last_n: BTreeMap<Place, N>,
    delivered: BTreeMap<(Place, Who), N>,
    read: BTreeMap<(Place, Who), N>,
    cursors: [Seq; NAMES.len()],
    /// Deletions that must be told, and those that may be.
    must_delete: BTreeSet<(Who, String)>,
    may_delete: BTreeSet<(Who, String)>,
    /// Notices that nobody took may have expired too.
    is_lossy: bool,
}

fn user(who: Who) -> UserId {
    UserId::parse(NAMES[who]).unwrap()
}

fn who(entry: &Value, member: &str) -> Who {
    NAMES.iter().position(|name| entry[member] == *name).unwrap_or_else(|| panic!("{member}: {entry}"))
}

fn pair(a: Who, b: Who) -> Place {
    (a.min(b), Some(a.max(b)))
}

fn recover<S: Store>(store: S) -> Engine<S> {
    Engine::recover(store, Limits::default(), Arc::new(Counters::default())).unwrap()
}

impl<S: Store> Life<S> {
    fn new(store: S, reopen: Box<dyn Fn(S) -> S>) -> Self {
        let mut life = Self {
            engine: Some(recover(store)),
            reopen,
            now: Now { server_secs: 1, unix_secs: 1_764_000_000 },
            count: 0,
            contacts: BTreeSet::new(),
            blocks: BTreeSet::new(),
            sent: BTreeMap::new(),
            order: Vec::new(),
            last_n: BTreeMap::new(),
            delivered: BTreeMap::new(),
            read: BTreeMap::new(),
            cursors: [0; NAMES.len()],
            must_delete: BTreeSet::new(),
            may_delete: BTreeSet::new(),
            is_lossy: false,
        };
        for who in 0..NAMES.len() {
            life.ask(Request::AddUser(user(who)));
            life.page(who, None);
        }
        for (a, b) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
            life.act(Act::Contact(a, b, true));
        }
        life
    }

    fn ask(&mut self, request: Request) -> Reply {
        let engine = self.engine.as_mut().unwrap();
        engine.handle(Event::Request(1, request), self.now).unwrap();
        engine.commit().unwrap();
        let mut released = Released::default();
        engine.release(&mut Window::default(), &mut released).unwrap();
        released.replies.pop().unwrap().1
    }

    fn publish(&mut self, who: Who, payload: &Value) -> Result<N, Kind> {
        let stamp = 1 << 64;
        let payload = payload.to_string().into();
        match self.ask(Request::Publish { user: user(who), device: DeviceId::http(), stamp, payload }) {
            Reply::Answer(Answer::Message { n, .. }) => Ok(n),
            Reply::Answer(_) => Ok(0),
            Reply::Refused(refusal) => Err(refusal.kind),
            other => panic!("{other:?}"),
        }
    }

    fn page(&mut self, who: Who, after: Option<Seq>) -> (Vec<Value>, Seq) {
        match self.ask(Request::Fetch(Fetch { user: user(who), device: DeviceId::http(), after, limit: 100 })) {
            Reply::Page(page) => {
                (page.entries.iter().map(|(_, entry)| serde_json::from_slice(entry).unwrap()).collect(), page.next)
            }
            other => panic!("{other:?}"),
        }
    }

    fn is_cut_off(&self, a: Who, b: Who) -> bool {
        self.blocks.contains(&(a, b)) || self.blocks.contains(&(b, a))
    }

    /// Whether `viewer` is still to see a status.
    fn is_shown(&self, sent: &Sent, viewer: Who) -> bool {
        sent.is_status
            && !sent.gone
            && self.now.server_secs < sent.at + STATUS_SECS
            && sent.to.contains(&viewer)
            && !sent.hidden.contains(&viewer)
            && !self.is_cut_off(viewer, sent.from)
    }

    fn accepted(&mut self, from: Who, place: Place, n: N, to: BTreeSet<Who>, waits: BTreeSet<Who>) -> &mut Sent {
        let last_n = self.last_n.entry(place).or_default();
        *last_n += 1;
        assert_eq!(n, *last_n, "numbers are dense");
        let id = format!("x{}", self.count);
        self.order.push(id.clone());
        let none = BTreeSet::new;
        self.sent.entry(id).or_insert(Sent {
            from,
            to,
            is_status: place.1.is_none(),
            n,
            at: self.now.server_secs,
            waits,
            hidden: none(),
            had: none(),
            peeked: none(),
            blue: none(),
            gone: false,
            must_fail: false,
            told_delivered: none(),
            told_read: none(),
            told_failed: 0,
        })
    }

    fn act(&mut self, act: Act) {
        self.count += 1;
        let id = format!("x{}", self.count);
        match act {
            Act::Contact(a, b, _) | Act::Block(a, b, _) | Act::Send(a, b) if a == b => {}
            Act::ReadChat(a, b) | Act::ReadStatuses(a, b) if a == b => {}
            Act::Contact(a, b, on) => {
                let (ask, has) = if on {
                    (contacts::Ask::Put(user(a), user(b), None), self.contacts.insert((a, b)))
                } else {
                    (contacts::Ask::Remove(user(a), user(b)), self.contacts.remove(&(a, b)))
                };
                assert_eq!(self.ask(Request::Contacts(ask)), Reply::Contacts(contacts::Told::Done(has)));
            }
            Act::Block(a, b, on) => self.block(a, b, on),
            Act::Post(a) => {
                let payload = json!({"id": id, "to": "status@broadcast", "type": "text", "text": {"body": id}});
                let n = self.publish(a, &payload).unwrap();
                let is_both = |b: &Who| self.contacts.contains(&(a, *b)) && self.contacts.contains(&(*b, a));
                let audience = (0..NAMES.len()).filter(|b| is_both(b) && !self.is_cut_off(a, *b));
                let audience: BTreeSet<Who> = audience.collect();
                self.accepted(a, (a, None), n, audience.clone(), audience);
            }
            Act::TakeBack(a, k) => self.take_back(a, k),
            Act::Send(a, b) => {
                let payload = json!({"id": id, "to": NAMES[b], "type": "text", "text": {"body": id}});
                let told = self.publish(a, &payload);
                if self.blocks.contains(&(a, b)) {
                    assert_eq!(told, Err(Kind::NotAllowed));
                    return;
                }
                let is_hidden = self.blocks.contains(&(b, a));
                let to = BTreeSet::from([b]);
                let sent = self.accepted(a, pair(a, b), told.unwrap(), to.clone(), to);
                if is_hidden {
                    sent.hidden.extend(std::mem::take(&mut sent.waits));
                }
            }
            Act::Take(a) => self.take(a),
            Act::Peek(a) => {
                let entries = self.page(a, None).0;
                self.got(a, &entries);
                for id in entries.iter().filter_map(|entry| entry["id"].as_str()) {
                    if let Some(sent) = self.sent.get_mut(id) {
                        sent.peeked.insert(a);
                    }
                }
            }
            Act::ReadChat(a, b) => self.read(a, pair(a, b), b),
            Act::ReadStatuses(a, poster) => self.read(a, (poster, None), poster),
            Act::Pass(secs) => {
                if self.now.server_secs + secs < LIFE {
                    self.now.server_secs += secs;
                }
            }
            Act::Sweep => self.sweep(),
            Act::Settle => while self.engine.as_mut().unwrap().settle().unwrap() {},
            Act::Crash => {
                let store = self.engine.take().unwrap().into_store();
                self.engine = Some(recover((self.reopen)(store)));
                // Nobody knows what was sent before.
                self.sent.values_mut().for_each(|sent| sent.peeked.extend(&sent.waits));
            }
        }
    }

    fn block(&mut self, a: Who, b: Who, on: bool) {
        let (ask, has) = if on {
            (blocks::Ask::Block(user(a), user(b)), self.blocks.insert((a, b)))
        } else {
            (blocks::Ask::Unblock(user(a), user(b)), self.blocks.remove(&(a, b)))
        };
        assert_eq!(self.ask(Request::Blocks(ask)), Reply::Blocks(blocks::Told::Done(has)));
        if !on || !has {
            return;
        }
        for (place, from, member) in [(pair(a, b), b, a), ((b, None), b, a), ((a, None), a, b)] {
            let mark = self.delivered.get(&(place, member)).copied().unwrap_or(0);
            let is_status = place.1.is_none();
            let late = self
                .sent
                .values_mut()
                .filter(|s| s.is_status == is_status && s.from == from && s.n > mark && s.to.contains(&member));
            for sent in late {
                sent.hidden.insert(member);
                sent.waits.remove(&member);
            }
        }
    }

    fn take_back(&mut self, a: Who, k: usize) {
        let own: Vec<String> =
            self.order.iter().filter(|id| self.sent[*id].is_status && self.sent[*id].from == a).cloned().collect();
        let Some(id) = own.get(own.len().saturating_sub(k + 1)) else { return };
        let command = json!({"status": "deleted", "chat": "status@broadcast", "message_id": id});
        self.publish(a, &command).unwrap();
        let sent = self.sent.get_mut(id).unwrap();
        let is_over = sent.at + STATUS_SECS <= self.now.server_secs;
        if is_over || std::mem::replace(&mut sent.gone, true) {
            return;
        }
        for viewer in sent.to.iter().filter(|viewer| !sent.hidden.contains(viewer)) {
            let mark = self.delivered.get(&((a, None), *viewer)).copied().unwrap_or(0);
            if sent.had.contains(viewer) {
                self.must_delete.insert((*viewer, id.clone()));
            } else if sent.peeked.contains(viewer) || sent.n <= mark {
                self.may_delete.insert((*viewer, id.clone()));
            }
        }
        sent.waits.clear();
    }

    /// Everything of a chat, or of a poster's statuses, is read.
    fn read(&mut self, a: Who, place: Place, other: Who) {
        let is_status = place.1.is_none();
        let given = self.sent.values().filter(|s| {
            s.is_status && s.from == other && !s.gone && s.to.contains(&a) && self.now.server_secs < s.at + STATUS_SECS
        });
        let newest = if is_status { given.map(|s| s.n).max() } else { self.last_n.get(&place).copied() };
        let Some(n) = newest else { return };
        let chat = if is_status { "status@broadcast" } else { NAMES[other] };
        self.publish(a, &json!({"status": "read", "chat": chat, "from": NAMES[other], "n": n})).unwrap();
        let read = self.read.entry((place, a)).or_default();
        let before = std::mem::replace(read, n.max(*read));
        let mark = self.delivered.entry((place, a)).or_default();
        *mark = n.max(*mark);
        let is_told = !self.blocks.contains(&(a, other));
        let covered: Vec<String> = self
            .sent
            .iter()
            .filter(|(_, s)| s.is_status == is_status && s.from == other && s.n > before && s.n <= n)
            .filter(|(_, s)| {
                if is_status { self.is_shown(s, a) } else { is_told && s.to.contains(&a) && !s.hidden.contains(&a) }
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in covered {
            self.sent.get_mut(&id).unwrap().blue.insert(a);
        }
    }

    /// Time takes away what it may, all around the store.
    fn sweep(&mut self) {
        for _ in 0..2 {
            let (engine, now) = (self.engine.as_mut().unwrap(), self.now);
            while engine.settle().unwrap() {}
            loop {
                let is_more = engine.sweep(now).unwrap();
                engine.commit().unwrap();
                engine.release(&mut Window::default(), &mut Released::default()).unwrap();
                while engine.settle().unwrap() {}
                if !is_more {
                    break;
                }
            }
        }
        let before = self.now.server_secs.saturating_sub(MONTH);
        self.is_lossy |= before > 0;
        for sent in self.sent.values_mut() {
            if sent.is_status {
                sent.gone |= sent.at + STATUS_SECS <= self.now.server_secs;
            } else if sent.at < before {
                let member = *sent.to.first().unwrap();
                let mark = self.delivered.get(&(pair(sent.from, member), member)).copied().unwrap_or(0);
                let is_lost = sent.waits.remove(&member) && sent.n > mark;
                sent.must_fail |=
                    is_lost || sent.hidden.contains(&member) && sent.told_failed == 0 && !sent.had.contains(&member);
            }
        }
    }

    /// What an inbox hands out: every text that waits and may be seen, in order, and nothing else.
    fn got(&self, a: Who, entries: &[Value]) {
        let texts: Vec<&str> =
            entries.iter().filter(|entry| entry["type"] == "text").map(|entry| entry["id"].as_str().unwrap()).collect();
        let is_due = |s: &Sent| s.waits.contains(&a) && (!s.is_status || self.now.server_secs < s.at + STATUS_SECS);
        let due: Vec<&str> = self.order.iter().filter(|id| is_due(&self.sent[*id])).map(String::as_str).collect();
        assert_eq!(texts, due, "what {} gets", NAMES[a]);
    }

    fn take(&mut self, a: Who) {
        let (mut entries, mut next) = self.page(a, None);
        loop {
            let (more, then) = self.page(a, Some(next));
            if more.is_empty() {
                break;
            }
            (entries, next) = ([entries, more].concat(), then);
        }
        self.got(a, &entries);
        let seqs: Vec<Seq> = entries.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
        assert!(seqs.is_sorted() && seqs.first().is_none_or(|seq| *seq > self.cursors[a]), "once each: {seqs:?}");
        self.cursors[a] = seqs.last().copied().unwrap_or(self.cursors[a]);
        for entry in &entries {
            let status = entry["status"].as_str();
            match (entry["type"].as_str().unwrap(), status) {
                ("text", _) => {
                    let sent = self.sent.get_mut(entry["id"].as_str().unwrap()).unwrap();
                    sent.waits.remove(&a);
                    sent.had.insert(a);
                    let place = if sent.is_status { (sent.from, None) } else { pair(sent.from, a) };
                    let mark = self.delivered.entry((place, a)).or_default();
                    *mark = sent.n.max(*mark);
                }
                ("status", Some("deleted")) => {
                    let key = (a, entry["id"].as_str().unwrap().to_owned());
                    assert!(self.must_delete.remove(&key) || self.may_delete.remove(&key), "{entry}");
                }
                ("status", Some("failed")) => {
                    let sent = self.sent.get_mut(entry["id"].as_str().unwrap()).unwrap();
                    assert!(sent.from == a && sent.must_fail, "{entry}, {sent:?}");
                    sent.told_failed += 1;
                }
                ("status", Some(kind @ ("delivered" | "read"))) => self.receipt(a, kind, entry),
                ("gap", _) => {}
                _ => panic!("what is this: {entry}"),
            }
        }
        for poster in 0..NAMES.len() {
            self.look(a, poster);
        }
    }

    fn receipt(&mut self, a: Who, kind: &str, entry: &Value) {
        let member = who(entry, "recipient_id");
        assert_ne!(member, a, "there is no other device: {entry}");
        let (after, n) = (entry["after"].as_u64().unwrap(), entry["n"].as_u64().unwrap());
        let is_status = entry["chat"] == "status@broadcast";
        for sent in
            self.sent.values_mut().filter(|s| s.from == a && s.is_status == is_status && s.n > after && s.n <= n)
        {
            if !is_status && !sent.to.contains(&member) {
                continue;
            }
            assert!(sent.to.contains(&member) && !sent.hidden.contains(&member), "{entry} covers {sent:?}");
            let (is_true, told) = if kind == "read" {
                (sent.blue.contains(&member), &mut sent.told_read)
            } else {
                // One that expired before may lie between: `failed` stands against any receipt.
                (sent.had.contains(&member) || sent.must_fail, &mut sent.told_delivered)
            };
            assert!(is_true, "{entry} covers {sent:?}");
            told.insert(member);
        }
    }

    /// What is listed: contacts, blocks, and the statuses that are shown.
    fn look(&mut self, a: Who, poster: Who) {
        let ask = status::ask::Ask::List { user: user(a), from: user(poster), after: 0 };
        let Reply::Status(status::ask::Told::List(listed, _)) = self.ask(Request::Status(ask)) else { panic!() };
        let shown = self.order.iter().map(|id| &self.sent[id]).filter(|s| {
            let is_own = a == poster && s.is_status && !s.gone && self.now.server_secs < s.at + STATUS_SECS;
            s.from == poster && (is_own || a != poster && self.is_shown(s, a))
        });
        let shown: Vec<N> = shown.map(|s| s.n).take(10).collect();
        assert_eq!(listed.iter().map(|s| s.n).collect::<Vec<_>>(), shown, "{} of {}", NAMES[a], NAMES[poster]);
        let of = |all: &BTreeSet<(Who, Who)>| all.iter().filter(|(who, _)| *who == a).map(|(_, b)| user(*b)).collect();
        let (known, blocked): (Vec<UserId>, Vec<UserId>) = (of(&self.contacts), of(&self.blocks));
        let Reply::Contacts(contacts::Told::List(all)) =
            self.ask(Request::Contacts(contacts::Ask::List(user(a), None, 9)))
        else {
            panic!()
        };
        assert_eq!(all.into_iter().map(|(user, _)| user).collect::<Vec<_>>(), known);
        let Reply::Blocks(blocks::Told::List(all)) = self.ask(Request::Blocks(blocks::Ask::List(user(a), None, 9)))
        else {
            panic!()
        };
        assert_eq!(all.into_iter().map(|(user, _)| user).collect::<Vec<_>>(), blocked);
    }

    fn play(mut self, acts: Vec<Act>) {
        for act in acts {
            self.act(act);
        }
        // All that there is to say is said, and heard.
        self.act(Act::Crash);
        for _ in 0..2 {
            (0..NAMES.len()).for_each(|who| self.act(Act::Take(who)));
        }
        assert!(
            self.is_lossy || self.must_delete.is_empty(),
            "not told of what was taken back: {:?}",
            self.must_delete
        );
        for (id, sent) in &self.sent {
            assert_eq!(sent.told_failed, u32::from(sent.must_fail), "{id}: {sent:?}");
            if self.is_lossy {
                continue;
            }
            assert_eq!(sent.told_read, sent.blue, "{id}: {sent:?}");
            let ticked: BTreeSet<Who> = &sent.told_delivered | &sent.told_read;
            assert!(sent.had.is_subset(&ticked), "{id}: taken, and no tick: {sent:?}");
        }
    }
}

fn config(usual: u32, part: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse::<u32>().ok());
    ProptestConfig {
        cases: asked.map_or(usual, |cases| (cases / part).max(1)),
        failure_persistence: None,
        rng_seed: match asked {
            Some(_) => proptest::test_runner::RngSeed::Random,
            None => proptest::test_runner::RngSeed::Fixed(61),
        },
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(400, 1))]

    #[test]
    fn lives_of_people_in_memory(acts in proptest::collection::vec(act(), 1..80)) {
        Life::new(Memory::default(), Box::new(|store| store)).play(acts);
    }
}

proptest! {
    #![proptest_config(config(20, 20))]

    #[test]
    fn lives_of_people_on_sqlite(acts in proptest::collection::vec(act(), 1..80)) {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = dir.path().join("natter.db");
        let store = Sqlite::open(&path).unwrap();
        // The file is opened anew: what counts is what stands there.
        let reopen = move |store: Sqlite| {
            drop(store);
            Sqlite::open(&path).unwrap()
        };
        Life::new(store, Box::new(reopen)).play(acts);
    }
}
