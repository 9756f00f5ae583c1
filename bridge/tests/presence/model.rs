//! Random lives against a naive model: who may see what is worked out anew each time, from what was said alone.

use std::collections::{BTreeMap, BTreeSet};

use natter_bridge::engine::Request;
use natter_bridge::presence::LINGER_SECS;
use natter_bridge::presence::ask::Ask;
use natter_bridge::privacy::{Aspect, Rule, Who};
use natter_bridge::{Limits, blocks, contacts};
use natter_protocol::ConnectionId;
use natter_protocol::link::{Answer, Down};
use proptest::prelude::*;
use serde_json::json;

use super::world::{World, answers, user};
use super::{live, pass, said, said_with_frames};

const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];
const DEVICES: [&str; 2] = ["phone", "tablet"];
const WATCHES_MAX: usize = 2;
const WATCHERS_MAX: usize = 2;

#[derive(Debug, Clone)]
enum Op {
    Connect(usize, usize),
    Disconnect(usize, usize),
    InFront(usize, usize, bool),
    Watch(usize, usize, usize),
    Unwatch(usize, usize, usize),
    Block(usize, usize, bool),
    Contact(usize, usize, bool),
    Privacy(usize, Aspect, Who, Vec<usize>),
    Pass(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (name, device) = (0..NAMES.len(), 0..DEVICES.len());
    let pair = (name.clone(), 1..NAMES.len()).prop_map(|(one, by)| (one, (one + by) % NAMES.len()));
    let aspect = prop_oneof![Just(Aspect::Online), Just(Aspect::LastSeen)];
    let op = prop_oneof![
        4 => (name.clone(), device.clone()).prop_map(|(who, device)| Op::Connect(who, device)),
        2 => (name.clone(), device.clone()).prop_map(|(who, device)| Op::Disconnect(who, device)),
        2 => (name.clone(), device.clone(), any::<bool>()).prop_map(|(who, device, is)| Op::InFront(who, device, is)),
        6 => (pair.clone(), device.clone()).prop_map(|((who, other), device)| Op::Watch(who, device, other)),
        1 => (pair.clone(), device).prop_map(|((who, other), device)| Op::Unwatch(who, device, other)),
        2 => (pair.clone(), any::<bool>()).prop_map(|((who, other), is)| Op::Block(who, other, is)),
        3 => (pair, any::<bool>()).prop_map(|((who, other), is)| Op::Contact(who, other, is)),
        2 => (name, aspect, prop::sample::select(&Who::ALL[..]), prop::collection::vec(0..NAMES.len(), 0..3))
            .prop_map(|(who, aspect, rule, users)| Op::Privacy(who, aspect, rule, users)),
        4 => (1..15u64).prop_map(Op::Pass),
    ];
    prop::collection::vec(op, 1..60)
}

/// What is known of a user.
#[derive(Debug, Default)]
struct Person {
    connections: BTreeMap<usize, (ConnectionId, bool)>,
    left: Option<(u64, u64)>,
    last_seen: Option<u64>,
    contacts: BTreeSet<usize>,
    blocked: BTreeSet<usize>,
    online: (Who, Vec<usize>),
    seen: (Who, Vec<usize>),
}

impl Person {
    fn is_here(&self) -> bool {
        self.connections.values().any(|(_, in_front)| *in_front)
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Look {
    available: bool,
    last_seen: Option<String>,
}

/// Whose watch it is, what it was told last, and when.
type Watch = (usize, Option<Look>, Option<u64>);

struct Life {
    world: World,
    people: [Person; 4],
    watches: BTreeMap<(ConnectionId, usize), Watch>,
}

impl Life {
    fn new() -> Self {
        let limits = Limits { watches_max: WATCHES_MAX, watchers_max: WATCHERS_MAX, ..Limits::default() };
        let mut life =
            Self { world: World::with_limits(&NAMES, limits), people: Default::default(), watches: BTreeMap::new() };
        for one in 0..NAMES.len() {
            for other in (0..NAMES.len()).filter(|other| *other != one) {
                life.contact(one, other, true);
            }
        }
        life
    }

    fn contact(&mut self, one: usize, other: usize, is: bool) {
        let (one_name, other_name) = (user(NAMES[one]), user(NAMES[other]));
        let ask = if is {
            contacts::Ask::Put(one_name, other_name, None)
        } else {
            contacts::Ask::Remove(one_name, other_name)
        };
        let (_, frames) = said_with_frames(&mut self.world, Request::Contacts(ask));
        if is {
            self.people[one].contacts.insert(other);
        } else {
            self.people[one].contacts.remove(&other);
        }
        self.take(&frames);
    }

    fn admits(&self, owner: usize, other: usize, rule: &(Who, Vec<usize>)) -> bool {
        let are_contacts = self.people[owner].contacts.contains(&other) && self.people[other].contacts.contains(&owner);
        match rule.0 {
            Who::Everyone => true,
            Who::Contacts => are_contacts,
            Who::Except => are_contacts && !rule.1.contains(&other),
            Who::Only => are_contacts && rule.1.contains(&other),
            Who::Nobody => false,
        }
    }

    /// Whether `watcher` may see whether the other is there, and when he left.
    fn may_see(&self, watcher: usize, watched: usize) -> (bool, bool) {
        let (one, other) = (&self.people[watcher], &self.people[watched]);
        if one.blocked.contains(&watched) || other.blocked.contains(&watcher) {
            return (false, false);
        }
        (
            self.admits(watched, watcher, &other.online) && self.admits(watcher, watched, &one.online),
            self.admits(watched, watcher, &other.seen) && self.admits(watcher, watched, &one.seen),
        )
    }

    fn expected(&self, watcher: usize, watched: usize) -> Look {
        let (online, seen) = self.may_see(watcher, watched);
        let person = &self.people[watched];
        let available = online && (person.is_here() || person.left.is_some());
        let last_seen = if seen && !available { person.last_seen.map(|at| at.to_string()) } else { None };
        Look { available, last_seen }
    }

    /// Watchers of `watched` who may see something.
    fn sighted(&self, watched: usize) -> usize {
        let all = self.watches.iter().filter(|((_, of), _)| *of == watched);
        all.filter(|(_, (watcher, ..))| self.may_see(*watcher, watched) != (false, false)).count()
    }

    /// What was told is what may be seen, to who watches, and no more often than may be.
    fn take(&mut self, frames: &[Down]) {
        let now = self.world.now.server_secs;
        for (connection, payload) in live(frames) {
            let watched = NAMES.iter().position(|name| payload["from"] == *name).unwrap();
            let look = Look {
                available: payload["presence"] == "available",
                last_seen: payload["last_seen"].as_str().map(str::to_owned),
            };
            let watcher = self.watches.get(&(connection, watched)).map(|(watcher, ..)| *watcher);
            let watcher = watcher.unwrap_or_else(|| panic!("{connection} does not watch, and was told {payload}"));
            let (online, seen) = self.may_see(watcher, watched);
            assert!(!look.available || online, "{} may not see it: {payload}", NAMES[watcher]);
            assert!(look.last_seen.is_none() || seen, "{} may not see it: {payload}", NAMES[watcher]);
            let known = self.watches.get_mut(&(connection, watched)).unwrap();
            assert!(known.2.is_none_or(|at| at < now), "two in one second: {payload}");
            (known.1, known.2) = (Some(look), Some(now));
        }
    }

    fn left(&mut self, who: usize) {
        let (now, unix) = (self.world.now.server_secs, self.world.now.unix_secs);
        if !self.people[who].is_here() {
            self.people[who].left = Some((now, unix));
        }
    }

    fn go(&mut self, op: &Op) {
        match op {
            Op::Connect(who, device) => {
                if self.people[*who].connections.contains_key(device) {
                    return;
                }
                let connection = self.world.connect(NAMES[*who], natter_protocol::link::Dialect::Full, u32::MAX);
                self.people[*who].connections.insert(*device, (connection, true));
                self.people[*who].left = None;
                let device = natter_protocol::DeviceId::parse(DEVICES[*device]).unwrap();
                let mode = natter_protocol::link::Mode::Device;
                let up = natter_protocol::link::Up::Attach { connection, request: 1, device, mode };
                let frames = self.world.up(NAMES[*who], up);
                self.take(&frames);
            }
            Op::Disconnect(who, device) => {
                let was = self.people[*who].is_here();
                let Some((connection, _)) = self.people[*who].connections.remove(device) else { return };
                self.watches.retain(|(of, _), _| *of != connection);
                if was {
                    self.left(*who);
                }
                // Its places may be others' now.
                let up = natter_protocol::link::Up::Close { connection, expiry_secs: None, by_server: false };
                let frames = self.world.up(NAMES[*who], up);
                self.take(&frames);
            }
            Op::InFront(who, device, is) => {
                let was = self.people[*who].is_here();
                let Some((connection, in_front)) = self.people[*who].connections.get_mut(device) else { return };
                let connection = *connection;
                *in_front = *is;
                match (was, self.people[*who].is_here()) {
                    (true, false) => self.left(*who),
                    (false, true) => self.people[*who].left = None,
                    _ => {}
                }
                let payload = json!({"status": if *is { "available" } else { "unavailable" }});
                let frames = self.world.publish(NAMES[*who], DEVICES[*device], connection, &payload);
                self.take(&frames);
            }
            Op::Watch(who, device, other) => self.watch(*who, *device, *other),
            Op::Unwatch(who, device, other) => {
                let Some((connection, _)) = self.people[*who].connections.get(device).copied() else { return };
                let payload = json!({"status": "unwatch", "chat": NAMES[*other]});
                self.watches.remove(&(connection, *other));
                let frames = self.world.publish(NAMES[*who], DEVICES[*device], connection, &payload);
                self.take(&frames);
            }
            Op::Block(who, other, is) => {
                let (one, two) = (user(NAMES[*who]), user(NAMES[*other]));
                let ask = if *is { blocks::Ask::Block(one, two) } else { blocks::Ask::Unblock(one, two) };
                if *is {
                    self.people[*who].blocked.insert(*other);
                } else {
                    self.people[*who].blocked.remove(other);
                }
                let (_, frames) = said_with_frames(&mut self.world, Request::Blocks(ask));
                self.take(&frames);
            }
            Op::Contact(who, other, is) => self.contact(*who, *other, *is),
            Op::Privacy(who, aspect, rule, users) => {
                let kept = if rule.has_list() { users.clone() } else { Vec::new() };
                let person = &mut self.people[*who];
                *(if *aspect == Aspect::Online { &mut person.online } else { &mut person.seen }) = (*rule, kept);
                let rule = Rule::new(*rule, users.iter().map(|other| user(NAMES[*other])).collect());
                let ask = Ask::Put(user(NAMES[*who]), vec![(*aspect, rule)]);
                let (_, frames) = said_with_frames(&mut self.world, Request::Presence(ask));
                self.take(&frames);
            }
            Op::Pass(secs) => self.pass(*secs),
        }
    }

    fn watch(&mut self, who: usize, device: usize, other: usize) {
        let Some((connection, _)) = self.people[who].connections.get(&device).copied() else { return };
        let mine = self.watches.keys().filter(|(of, _)| *of == connection).count();
        let is_known = self.watches.contains_key(&(connection, other));
        let sees = self.may_see(who, other) != (false, false);
        let is_full = !is_known && (mine >= WATCHES_MAX || (sees && self.sighted(other) >= WATCHERS_MAX));
        if !is_full && !is_known {
            self.watches.insert((connection, other), (who, None, None));
        }
        let payload = json!({"status": "watch", "chat": NAMES[other]});
        let frames = self.world.publish(NAMES[who], DEVICES[device], connection, &payload);
        let was_refused = matches!(answers(&frames)[..], [Answer::Refused { .. }]);
        assert_eq!(was_refused, is_full, "{} watches {}", NAMES[who], NAMES[other]);
        self.take(&frames);
        if !was_refused {
            assert!(self.watches[&(connection, other)].1.is_some(), "told at once");
        }
    }

    fn pass(&mut self, secs: u64) {
        for _ in 0..secs {
            for person in &mut self.people {
                if let Some((at, unix)) =
                    person.left.filter(|(at, _)| at + LINGER_SECS <= self.world.now.server_secs + 1)
                {
                    let _ = at;
                    person.last_seen = Some(unix);
                    person.left = None;
                }
            }
            let frames = pass(&mut self.world, 1);
            self.take(&frames);
        }
    }

    /// After a rest everybody was told how it is, but for those for whom there is no place; and of those there are no more than must be.
    fn rest(&mut self) {
        self.pass(2);
        for (watched, name) in NAMES.iter().enumerate() {
            let (mut blind, sighted) = (0, self.sighted(watched));
            for ((_, of), (watcher, look, _)) in &self.watches {
                if *of != watched {
                    continue;
                }
                let expected = self.expected(*watcher, watched);
                let look = look.as_ref().unwrap();
                if *look != expected {
                    assert_eq!(*look, Look { available: false, last_seen: None }, "{} of {name}", NAMES[*watcher]);
                    blind += 1;
                }
            }
            assert!(blind <= sighted.saturating_sub(WATCHERS_MAX), "{blind} of {sighted} are told nothing of {name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 300 } else { 2000 }))]

    #[test]
    fn what_is_told_is_what_a_naive_model_says(ops in ops()) {
        let mut life = Life::new();
        for op in &ops {
            life.go(op);
        }
        life.rest();
        for (one, name) in NAMES.iter().enumerate() {
            for other in (0..NAMES.len()).filter(|other| *other != one) {
                let ask = Ask::Presence { asker: user(name), user: user(NAMES[other]) };
                let natter_bridge::engine::Reply::Presence(natter_bridge::presence::ask::Told::Presence(shown)) =
                    said(&mut life.world, Request::Presence(ask)) else { panic!("no presence") };
                let look = Look { available: shown.available, last_seen: shown.last_seen.map(|at| at.to_string()) };
                prop_assert_eq!(look, life.expected(one, other));
            }
        }
    }
}
