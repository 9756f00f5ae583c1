//! The rules of blocks: what a blocked user sends does not arrive, and no tick tells him, then or later.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its world does not hold")]

mod world;

use std::collections::{BTreeSet, VecDeque};

use natter_bridge::blocks::{Ask, Told};
use natter_bridge::contacts;
use natter_bridge::engine::{Event, Released, Reply, Request};
use natter_bridge::inside::Fetch;
use natter_bridge::presence::typing::TYPING_SECS;
use natter_bridge::quota::Amount;
use natter_bridge::status;
use natter_bridge::{Limits, PeopleLimits};
use natter_protocol::error::Kind;
use natter_protocol::link::{Answer, Dialect, Down, Mode, Up};
use natter_protocol::{ConnectionId, DeviceId, N, Seq};
use proptest::prelude::*;
use serde_json::{Value, json};
use world::{World, answers, entries, frames, text, user};

fn said(world: &mut World, request: Request) -> (Reply, Vec<Down>) {
    world.handle(Event::Request(99, request));
    world.engine.commit().unwrap();
    let mut released = Released::default();
    world.engine.release(&mut world.window, &mut released).unwrap();
    let (_, reply) = released.replies.pop().unwrap();
    (reply, frames(released))
}

fn ask(world: &mut World, ask: Ask) -> Told {
    match said(world, Request::Blocks(ask)).0 {
        Reply::Blocks(told) => told,
        other => panic!("{other:?}"),
    }
}

fn block(world: &mut World, name: &str, other: &str) -> Told {
    ask(world, Ask::Block(user(name), user(other)))
}

fn unblock(world: &mut World, name: &str, other: &str) -> Told {
    ask(world, Ask::Unblock(user(name), user(other)))
}

/// Over HTTP: the number, or why not.
fn send(world: &mut World, name: &str, payload: &Value) -> Result<N, Kind> {
    let publish =
        Request::Publish { user: user(name), device: DeviceId::http(), stamp: 1, payload: payload.to_string().into() };
    match said(world, publish).0 {
        Reply::Answer(Answer::Message { n, .. }) => Ok(n),
        Reply::Answer(_) => Ok(0),
        Reply::Refused(refusal) => Err(refusal.kind),
        other => panic!("{other:?}"),
    }
}

fn fetch(world: &mut World, name: &str, device: &str, after: Option<Seq>) -> (Vec<Value>, Seq) {
    let fetch = Fetch { user: user(name), device: DeviceId::parse(device).unwrap(), after, limit: 100 };
    match said(world, Request::Fetch(fetch)).0 {
        Reply::Page(page) => {
            let entries = page.entries.iter().map(|(_, entry)| serde_json::from_slice(entry).unwrap());
            (entries.collect(), page.next)
        }
        other => panic!("{other:?}"),
    }
}

/// Everything there is, acknowledged as it comes.
fn take_all(world: &mut World, name: &str, device: &str) -> Vec<Value> {
    let (mut all, mut next) = fetch(world, name, device, None);
    loop {
        let (more, then) = fetch(world, name, device, Some(next));
        if more.is_empty() {
            return all;
        }
        all.extend(more);
        next = then;
    }
}

fn ids(entries: &[Value]) -> Vec<&str> {
    entries.iter().filter_map(|entry| entry["id"].as_str()).collect()
}

#[test]
fn what_a_blocked_user_sends_is_answered_as_ever_and_does_not_arrive() {
    let mut world = World::with_users(&["alice", "bob"]);
    fetch(&mut world, "bob", "http", None);
    fetch(&mut world, "alice", "tablet", None);
    assert_eq!(send(&mut world, "alice", &text("m1", "bob", "before")), Ok(1));
    assert_eq!(ids(&take_all(&mut world, "bob", "http")), ["m1"]);
    assert_eq!(send(&mut world, "alice", &text("m2", "bob", "not taken yet")), Ok(2));
    assert_eq!(block(&mut world, "bob", "alice"), Told::Done(true));
    assert_eq!(block(&mut world, "bob", "alice"), Told::Done(false));
    assert_eq!(send(&mut world, "alice", &text("m3", "bob", "blocked")), Ok(3));
    assert_eq!(send(&mut world, "alice", &text("m3", "bob", "blocked")), Ok(3), "a repeat is one");
    assert_eq!(send(&mut world, "alice", &text("m3", "bob", "other")), Err(Kind::Conflict));
    assert_eq!(send(&mut world, "bob", &text("b1", "alice", "unblock first")), Err(Kind::NotAllowed));
    for settled in [false, true] {
        if settled {
            world.settle_everything();
        }
        world = world.crash();
        assert_eq!(ids(&take_all(&mut world, "bob", "http")), [""; 0], "settled: {settled}");
    }
    assert_eq!(unblock(&mut world, "bob", "alice"), Told::Done(true));
    assert_eq!(unblock(&mut world, "bob", "alice"), Told::Done(false));
    assert_eq!(ids(&take_all(&mut world, "bob", "new")), [""; 0], "nothing comes later");
    assert_eq!(send(&mut world, "alice", &text("m4", "bob", "again")), Ok(4));
    assert_eq!(ids(&take_all(&mut world, "bob", "http")), ["m4"]);
    send(&mut world, "bob", &json!({"status": "read", "chat": "alice", "n": 4})).unwrap();
    let told = take_all(&mut world, "alice", "tablet");
    let own = ids(&told).into_iter().filter(|id| !id.is_empty()).collect::<BTreeSet<_>>();
    assert_eq!(own, ["m1", "m2", "m3", "m4"].into(), "her other device shows all of them");
    let receipts: Vec<_> = told.iter().filter(|entry| entry["type"] == "status").map(range).collect();
    assert_eq!(receipts, [("delivered", 0, 1), ("delivered", 3, 4), ("read", 0, 1), ("read", 3, 4)]);
}

fn range(entry: &Value) -> (&str, N, N) {
    (entry["status"].as_str().unwrap(), entry["after"].as_u64().unwrap(), entry["n"].as_u64().unwrap())
}

/// What `failed` says of a message, but for its id and number.
fn failed(told: &[Value]) -> Vec<(&str, String)> {
    let failed = told.iter().filter(|entry| entry["status"] == "failed");
    failed.map(|entry| (entry["id"].as_str().unwrap(), entry["errors"].to_string())).collect()
}

#[test]
fn a_hidden_message_fails_on_the_day_on_which_one_does_that_nobody_takes() {
    for settled in [false, true] {
        let settle = |world: &mut World| {
            if settled {
                world.settle_everything();
            }
        };
        let mut world = World::with_users(&["alice", "bob", "carol"]);
        fetch(&mut world, "alice", "http", None);
        let (phone, _) = world.device("bob", "phone");
        // To both, on the same days: before the block (on its way to bob), in it, and after it.
        let both = |world: &mut World, id: &str| {
            send(world, "alice", &text(&format!("b-{id}"), "bob", id)).unwrap();
            send(world, "alice", &text(&format!("c-{id}"), "carol", id)).unwrap();
        };
        both(&mut world, "lay");
        settle(&mut world);
        world.sweep_after(1);
        block(&mut world, "bob", "alice");
        both(&mut world, "blocked");
        world.sweep_after(1);
        unblock(&mut world, "bob", "alice");
        world.ack("bob", phone, 1);
        take_all(&mut world, "bob", "http");
        send(&mut world, "bob", &json!({"status": "read", "chat": "alice", "n": 2})).unwrap();
        settle(&mut world);
        let mut world = world.crash();
        let mut told = Vec::new();
        for (days, expected) in [(27, &[][..]), (2, &["lay"]), (1, &["blocked"]), (30, &[])] {
            world.sweep_after(days);
            // What has expired is found in the tables.
            world.settle_everything();
            world.sweep_after(0);
            settle(&mut world);
            let new = take_all(&mut world, "alice", "http");
            let ids: BTreeSet<String> = failed(&new).iter().map(|(id, _)| (*id).to_owned()).collect();
            let both = expected.iter().flat_map(|id| [format!("b-{id}"), format!("c-{id}")]);
            assert_eq!(ids, both.collect(), "settled: {settled}, {days} days more: {new:?}");
            assert_eq!(failed(&new).len(), ids.len(), "once each: {new:?}");
            told.extend(new);
            world = world.crash();
        }
        let of_bob: Vec<String> = failed(&told).iter().map(|(_, errors)| errors.replace("bob", "carol")).collect();
        assert!(of_bob.iter().all(|errors| *errors == of_bob[0]), "the words are the same: {told:?}");
        let told = take_all(&mut world, "bob", "http");
        assert!(told.is_empty(), "no gap tells of what he did not want: {told:?}");
    }
}

#[test]
fn what_had_failed_before_a_block_does_not_fail_again() {
    let mut world = World::with_users(&["alice", "bob"]);
    fetch(&mut world, "alice", "http", None);
    send(&mut world, "alice", &text("m1", "bob", "nobody takes it")).unwrap();
    world.settle_everything();
    world.sweep_after(31);
    assert_eq!(failed(&take_all(&mut world, "alice", "http")).len(), 1);
    block(&mut world, "bob", "alice");
    world.settle_everything();
    world.sweep_after(31);
    assert_eq!(take_all(&mut world, "alice", "http"), [""; 0]);
}

#[test]
fn what_is_read_during_a_block_turns_blue_neither_then_nor_later() {
    let mut world = World::with_users(&["alice", "bob"]);
    fetch(&mut world, "alice", "http", None);
    fetch(&mut world, "bob", "tablet", None);
    for id in ["m1", "m2", "m3"] {
        send(&mut world, "alice", &text(id, "bob", "before")).unwrap();
    }
    take_all(&mut world, "bob", "http");
    let read =
        |world: &mut World, n: N| send(world, "bob", &json!({"status": "read", "chat": "alice", "n": n})).unwrap();
    read(&mut world, 1);
    block(&mut world, "bob", "alice");
    read(&mut world, 2);
    let own = take_all(&mut world, "bob", "tablet");
    let marks: Vec<_> = own.iter().filter(|entry| entry["type"] == "status").map(range).collect();
    assert_eq!(marks, [("read", 0, 2)], "his own devices know");
    unblock(&mut world, "bob", "alice");
    let mut world = world.crash();
    read(&mut world, 2);
    read(&mut world, 3);
    let told = take_all(&mut world, "alice", "http");
    let receipts: Vec<_> = told.iter().map(range).collect();
    assert_eq!(receipts, [("delivered", 0, 3), ("read", 0, 1), ("read", 2, 3)]);
}

#[test]
fn typing_is_not_shown_either_way() {
    let mut world = World::with_users(&["alice", "bob"]);
    let connections = ["alice", "bob"].map(|name| world.device(name, "phone").0);
    let typing = |world: &mut World, index: usize| {
        let (name, other) = [("alice", "bob"), ("bob", "alice")][index];
        let down = world.publish(name, "phone", connections[index], &json!({"status": "typing", "chat": other}));
        assert_eq!(answers(&down), [&Answer::Done], "the same answer");
        down.iter().filter(|down| matches!(down, Down::Live { .. })).count()
    };
    assert_eq!((typing(&mut world, 0), typing(&mut world, 1)), (1, 1));
    block(&mut world, "bob", "alice");
    world.now.server_secs += TYPING_SECS;
    assert_eq!((typing(&mut world, 0), typing(&mut world, 1)), (0, 0));
    unblock(&mut world, "bob", "alice");
    world.now.server_secs += TYPING_SECS;
    assert_eq!((typing(&mut world, 0), typing(&mut world, 1)), (1, 1));
}

#[test]
fn statuses_are_shown_neither_way_and_those_of_the_blocked_time_never() {
    let mut world = World::with_users(&["alice", "bob"]);
    for (name, other) in [("alice", "bob"), ("bob", "alice")] {
        fetch(&mut world, name, "http", None);
        said(&mut world, Request::Contacts(contacts::Ask::Put(user(name), user(other), None)));
    }
    let listed = |world: &mut World, name: &str, from: &str| {
        let asked = status::ask::Ask::List { user: user(name), from: user(from), after: 0 };
        match said(world, Request::Status(asked)).0 {
            Reply::Status(status::ask::Told::List(all, _)) => {
                all.into_iter().map(|status| status.n).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    let all = "status@broadcast";
    send(&mut world, "alice", &text("s1", all, "seen")).unwrap();
    assert_eq!(ids(&take_all(&mut world, "bob", "http")), ["s1"]);
    send(&mut world, "alice", &text("s2", all, "not taken yet")).unwrap();
    send(&mut world, "bob", &text("t1", all, "not taken yet")).unwrap();
    assert_eq!(listed(&mut world, "bob", "alice"), [1, 2]);
    block(&mut world, "bob", "alice");
    send(&mut world, "alice", &text("s3", all, "blocked")).unwrap();
    send(&mut world, "bob", &text("t2", all, "blocked")).unwrap();
    assert_eq!((listed(&mut world, "bob", "alice"), listed(&mut world, "alice", "bob")), (vec![], vec![]));
    assert_eq!(ids(&take_all(&mut world, "bob", "http")), [""; 0]);
    assert_eq!(
        send(
            &mut world,
            "alice",
            &json!({"id": "r1", "to": "bob", "type": "text", "text": {"body": "nice"},
        "context": {"message_id": "t1", "from": "bob", "chat": all}})
        ),
        Ok(1),
        "an answer does not tell"
    );
    unblock(&mut world, "bob", "alice");
    send(&mut world, "alice", &text("s4", all, "again")).unwrap();
    assert_eq!(ids(&take_all(&mut world, "bob", "http")), ["s4"]);
    assert_eq!(listed(&mut world, "bob", "alice"), [1, 4], "those he had, and those since");
    send(&mut world, "bob", &json!({"status": "read", "chat": all, "from": "alice", "n": 4})).unwrap();
    let told = take_all(&mut world, "alice", "http");
    let receipts: Vec<_> = told.iter().filter(|entry| entry["type"] == "status").map(range).collect();
    assert_eq!(receipts, [("delivered", 0, 1), ("delivered", 3, 4), ("read", 0, 1), ("read", 3, 4)]);
    assert!(ids(&told).iter().all(|id| !["t1", "t2"].contains(id)), "{told:?}");
}

#[test]
fn what_is_hidden_takes_no_room_of_the_chat() {
    let limits = Limits { inbox: Amount { entries: 4, bytes: 1 << 30 }, ..Limits::default() };
    let mut world = World::with_limits(&["alice", "bob", "carol"], limits);
    fetch(&mut world, "bob", "http", None);
    block(&mut world, "bob", "alice");
    for i in 0..1001 {
        assert_eq!(send(&mut world, "alice", &text(&format!("m{i}"), "bob", "x")), Ok(i + 1));
    }
    unblock(&mut world, "bob", "alice");
    for i in 0..2 {
        send(&mut world, "carol", &text(&format!("c{i}"), "bob", "half of it")).unwrap();
    }
    assert_eq!(send(&mut world, "alice", &text("more", "bob", "x")), Ok(1002), "nothing of hers waits");
}

#[test]
fn blocks_are_bounded_and_only_of_users() {
    const BLOCKS_MAX: usize = 20;
    let names: Vec<String> = (0..=BLOCKS_MAX).map(|i| format!("u{i:04}")).collect();
    let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
    all.push("alice");
    let people = PeopleLimits { blocks_max: BLOCKS_MAX, ..PeopleLimits::default() };
    let mut world = World::with_limits(&all, Limits { people, ..Limits::default() });
    let refused = |told: Told| match told {
        Told::Refused(refusal) => refusal.kind,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(block(&mut world, "alice", "alice")), Kind::InvalidValue);
    assert_eq!(refused(block(&mut world, "alice", "nobody")), Kind::UnknownRecipient);
    for name in &names[..BLOCKS_MAX] {
        assert_eq!(block(&mut world, "alice", name), Told::Done(true));
    }
    world.settle_everything();
    assert_eq!(refused(block(&mut world, "alice", &names[BLOCKS_MAX])), Kind::Quota);
    unblock(&mut world, "alice", &names[7]);
    assert_eq!(block(&mut world, "alice", &names[BLOCKS_MAX]), Told::Done(true));
    let Told::List(page) = ask(&mut world, Ask::List(user("alice"), Some(user("u0006")), 2)) else { panic!() };
    assert_eq!(page.iter().map(|(user, _)| user.as_str()).collect::<Vec<_>>(), ["u0008", "u0009"]);
}

/// What happens in a random life of alice, who sends, and bob, who blocks her now and then. He has a phone over MQTT and a tablet that
/// asks.
#[derive(Debug, Clone, Copy)]
enum Act {
    Send,
    SendBack,
    Block,
    Unblock,
    /// The phone acknowledges so many of what is in flight.
    Ack(usize),
    /// The tablet asks, and acknowledges what it got.
    Take,
    /// Bob has read up to so many before the newest.
    Read(u64),
    Reconnect,
    /// Alice takes her receipts: what she has not taken merges.
    Look,
    Settle,
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => Just(Act::Send),
        2 => Just(Act::SendBack),
        3 => Just(Act::Block),
        3 => Just(Act::Unblock),
        5 => (1_usize..4).prop_map(Act::Ack),
        2 => Just(Act::Take),
        4 => (0_u64..4).prop_map(Act::Read),
        1 => Just(Act::Reconnect),
        2 => Just(Act::Look),
        1 => Just(Act::Settle),
        1 => Just(Act::Crash),
    ]
}

fn of_alice(entry: &Value) -> Option<N> {
    (entry["type"] == "text" && entry["from"] == "alice").then(|| entry["n"].as_u64().unwrap())
}

/// The life, and what may be seen of it: told from outside, message by message.
struct Life {
    world: World,
    phone: Option<ConnectionId>,
    in_flight: VecDeque<(Seq, Option<N>)>,
    blocked: bool,
    /// Alice's messages.
    sent: BTreeSet<N>,
    last_n: N,
    /// What bob has acknowledged or says he has read up to.
    mark: N,
    /// What he must never have had.
    hidden: BTreeSet<N>,
    /// What a device of his has taken.
    had: BTreeSet<N>,
    covered: BTreeSet<N>,
    /// Up to where he has said that he read.
    read: N,
    /// Read, and not during a block: what must turn blue, and nothing else.
    blue: BTreeSet<N>,
    turned_blue: BTreeSet<N>,
    looked: Seq,
    count: usize,
}

impl Life {
    fn new() -> Self {
        let mut world = World::with_users(&["alice", "bob"]);
        fetch(&mut world, "alice", "http", None);
        fetch(&mut world, "bob", "tablet", None);
        let (phone, in_flight, sent, hidden) = (None, VecDeque::new(), BTreeSet::new(), BTreeSet::new());
        let (had, covered) = (BTreeSet::new(), BTreeSet::new());
        let mut life = Self {
            world,
            phone,
            in_flight,
            blocked: false,
            sent,
            last_n: 0,
            mark: 0,
            hidden,
            had,
            covered,
            read: 0,
            blue: BTreeSet::new(),
            turned_blue: BTreeSet::new(),
            looked: 0,
            count: 0,
        };
        life.connect();
        life
    }

    fn connect(&mut self) {
        if let Some(phone) = self.phone.take() {
            self.world.close("bob", phone);
        }
        self.in_flight.clear();
        let connection = self.world.connect("bob", Dialect::Full, u32::MAX);
        self.phone = Some(connection);
        let device = DeviceId::parse("phone").unwrap();
        let down = self.world.up("bob", Up::Attach { connection, request: 1, device, mode: Mode::Device });
        self.arrived(down);
    }

    fn request(&mut self, request: Request) -> Reply {
        let (reply, down) = said(&mut self.world, request);
        self.arrived(down);
        reply
    }

    /// What the phone gets: nothing hidden begins its way.
    fn arrived(&mut self, down: Vec<Down>) {
        for entry in entries(down) {
            let n = of_alice(&entry);
            assert!(n.is_none_or(|n| !self.hidden.contains(&n)), "hidden: {entry}");
            self.in_flight.push_back((entry["seq"].as_u64().unwrap(), n));
        }
    }

    fn take(&mut self, n: Option<N>) {
        if let Some(n) = n.filter(|n| !self.hidden.contains(n)) {
            self.had.insert(n);
            self.mark = self.mark.max(n);
        }
    }

    fn publish(&mut self, name: &str, payload: &Value) -> Result<N, Kind> {
        let (user, device) = (user(name), DeviceId::http());
        match self.request(Request::Publish { user, device, stamp: 1, payload: payload.to_string().into() }) {
            Reply::Answer(Answer::Message { n, .. }) => Ok(n),
            Reply::Answer(_) => Ok(0),
            Reply::Refused(refusal) => Err(refusal.kind),
            other => panic!("{other:?}"),
        }
    }

    fn act(&mut self, act: Act) {
        self.count += 1;
        match act {
            Act::Send => {
                let n = self.publish("alice", &text(&format!("a{}", self.count), "bob", "x")).unwrap();
                assert_eq!(n, self.last_n + 1);
                self.last_n = n;
                self.sent.insert(n);
                if self.blocked {
                    self.hidden.insert(n);
                }
            }
            Act::SendBack => match self.publish("bob", &text(&format!("b{}", self.count), "alice", "x")) {
                Ok(n) => self.last_n = n,
                Err(kind) => assert!(kind == Kind::NotAllowed && self.blocked),
            },
            Act::Block => {
                if !self.blocked {
                    let mark = self.mark;
                    self.hidden.extend(self.sent.iter().filter(|n| **n > mark));
                }
                self.blocked = true;
                self.request(Request::Blocks(Ask::Block(user("bob"), user("alice"))));
            }
            Act::Unblock => {
                self.blocked = false;
                self.request(Request::Blocks(Ask::Unblock(user("bob"), user("alice"))));
            }
            Act::Ack(count) => {
                for _ in 0..count {
                    let Some((seq, n)) = self.in_flight.pop_front() else { break };
                    self.take(n);
                    let connection = self.phone.unwrap();
                    let down = self.world.up("bob", Up::Acked { connection, seq, taken: true });
                    self.arrived(down);
                }
            }
            Act::Take => {
                let of_tablet = |after| {
                    let (user, device) = (user("bob"), DeviceId::parse("tablet").unwrap());
                    Request::Fetch(Fetch { user, device, after, limit: 5 })
                };
                let Reply::Page(page) = self.request(of_tablet(None)) else { panic!() };
                let got: Vec<Value> = page.entries.iter().map(|(_, e)| serde_json::from_slice(e).unwrap()).collect();
                for n in got.iter().filter_map(of_alice) {
                    assert!(!self.hidden.contains(&n), "hidden: {n}");
                    self.take(Some(n));
                }
                self.request(of_tablet(Some(page.next)));
            }
            Act::Read(before) => {
                let n = self.last_n.saturating_sub(before);
                self.publish("bob", &json!({"status": "read", "chat": "alice", "n": n})).unwrap();
                self.mark = self.mark.max(n);
                if n > self.read && !self.blocked {
                    let shown = self.sent.range(self.read + 1..=n).filter(|n| !self.hidden.contains(n));
                    self.blue.extend(shown);
                }
                self.read = self.read.max(n);
            }
            Act::Reconnect => self.connect(),
            Act::Look => self.look(),
            Act::Settle => self.world.settle_everything(),
            Act::Crash => {
                let spare = World::with_users(&[]);
                self.world = std::mem::replace(&mut self.world, spare).crash();
                self.phone = None;
                self.connect();
            }
        }
    }

    /// Alice's receipts: none covers what is hidden.
    fn look(&mut self) {
        loop {
            let (user, device, after) = (user("alice"), DeviceId::http(), Some(self.looked));
            let Reply::Page(page) = self.request(Request::Fetch(Fetch { user, device, after, limit: 100 })) else {
                panic!()
            };
            let entries: Vec<Value> = page.entries.iter().map(|(_, e)| serde_json::from_slice(e).unwrap()).collect();
            for entry in entries.iter().filter(|entry| entry["recipient_id"] == "bob") {
                let (_, after, n) = range(entry);
                let covered: BTreeSet<N> = self.sent.range(after + 1..=n).copied().collect();
                assert!(covered.is_disjoint(&self.hidden), "{entry} covers what is hidden: {:?}", self.hidden);
                if entry["status"] == "read" {
                    self.turned_blue.extend(&covered);
                }
                self.covered.extend(covered);
            }
            if entries.is_empty() {
                break;
            }
            self.looked = page.next;
        }
    }

    fn end(mut self) {
        self.look();
        assert!(self.had.is_disjoint(&self.hidden));
        let unticked: Vec<_> = self.had.difference(&self.covered).collect();
        assert!(unticked.is_empty(), "taken, and no tick: {unticked:?}");
        assert_eq!(self.turned_blue, self.blue, "what was read while nobody was blocked is blue, and nothing else");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(400),
        failure_persistence: None,
        rng_seed: if std::env::var("PROPTEST_CASES").is_ok() {
            proptest::test_runner::RngSeed::Random
        } else {
            proptest::test_runner::RngSeed::Fixed(7)
        },
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_tick_of_the_blocked_time_ever_rises(acts in proptest::collection::vec(act(), 1..70)) {
        let mut life = Life::new();
        for act in acts {
            life.act(act);
        }
        life.end();
    }
}
