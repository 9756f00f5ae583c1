//! The rules of presence: who is told what, when, and who is not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its world does not hold")]

#[path = "presence/model.rs"]
mod model;
mod world;

use natter_bridge::blocks;
use natter_bridge::contacts;
use natter_bridge::engine::{Event, Released, Reply, Request};
use natter_bridge::presence::ask::{Ask, Told};
use natter_bridge::presence::{LINGER_SECS, Shown};
use natter_bridge::privacy::{Aspect, Rule, Who};
use natter_bridge::{Limits, status};
use natter_protocol::link::{Answer, Credit, Dialect, Down, Mode, Up, WINDOW_FRAMES, Window};
use natter_protocol::{ConnectionId, DeviceId};
use serde_json::{Value, json};
use world::{World, answers, frames, text, user};

pub(crate) fn said(world: &mut World, request: Request) -> Reply {
    said_with_frames(world, request).0
}

fn said_with_frames(world: &mut World, request: Request) -> (Reply, Vec<Down>) {
    world.handle(Event::Request(99, request));
    world.engine.commit().unwrap();
    let mut released = Released::default();
    world.engine.release(&mut world.window, &mut released).unwrap();
    let (_, reply) = released.replies.pop().unwrap();
    (reply, frames(released))
}

/// Server seconds pass, one after the other, as in the loop; what is said meanwhile.
pub(crate) fn pass(world: &mut World, secs: u64) -> Vec<Down> {
    let mut said = Vec::new();
    for _ in 0..secs {
        world.now.server_secs += 1;
        world.now.unix_secs += 1;
        world.engine.go_on(world.now).unwrap();
        said.extend(world.commit());
    }
    said
}

/// The live payloads, each with its connection.
pub(crate) fn live(frames: &[Down]) -> Vec<(ConnectionId, Value)> {
    let all = frames.iter().filter_map(|frame| match frame {
        Down::Live { connection, payload } => Some((*connection, serde_json::from_slice(payload).unwrap())),
        _ => None,
    });
    all.collect()
}

/// Presence alone, without who it is for.
fn shown(frames: &[Down]) -> Vec<Value> {
    live(frames).into_iter().map(|(_, payload)| payload).filter(|payload| payload["type"] == "presence").collect()
}

/// Nothing is told.
const NONE: [Value; 0] = [];

fn available(name: &str) -> Value {
    json!({"type": "presence", "from": name, "chat": name, "presence": "available"})
}

fn unavailable(name: &str, last_seen: Option<u64>) -> Value {
    let mut entry = json!({"type": "presence", "from": name, "chat": name, "presence": "unavailable"});
    if let Some(at) = last_seen {
        entry["last_seen"] = at.to_string().into();
    }
    entry
}

/// Users who all have each other as contacts.
fn friends(names: &[&str], limits: Limits) -> World {
    let mut world = World::with_limits(names, limits);
    for name in names {
        for other in names.iter().filter(|other| *other != name) {
            said(&mut world, Request::Contacts(contacts::Ask::Put(user(name), user(other), None)));
        }
    }
    world
}

fn watch(world: &mut World, name: &str, connection: ConnectionId, other: &str) -> Vec<Down> {
    world.publish(name, "phone", connection, &json!({"status": "watch", "chat": other}))
}

fn command(world: &mut World, name: &str, connection: ConnectionId, status: &str) -> Vec<Down> {
    world.publish(name, "phone", connection, &json!({"status": status}))
}

fn set(world: &mut World, name: &str, aspect: Aspect, who: Who, users: &[&str]) -> Vec<Down> {
    let rule = Rule::new(who, users.iter().map(|name| user(name)).collect());
    let (reply, said) = said_with_frames(world, Request::Presence(Ask::Put(user(name), vec![(aspect, rule)])));
    assert!(matches!(reply, Reply::Presence(Told::Done(_))), "{reply:?}");
    said
}

fn asked(world: &mut World, asker: &str, of: &str) -> Shown {
    let ask = Ask::Presence { asker: user(asker), user: user(of) };
    match said(world, Request::Presence(ask)) {
        Reply::Presence(Told::Presence(shown)) => shown,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_watcher_is_told_at_once_and_of_every_change_and_a_reconnect_shows_nothing() {
    let mut world = friends(&["alice", "bob"], Limits::default());
    let (alice, _) = world.device("alice", "phone");
    let told = watch(&mut world, "alice", alice, "bob");
    assert_eq!((answers(&told), shown(&told)), (vec![&Answer::Done], vec![unavailable("bob", None)]), "never there");
    pass(&mut world, 5);
    let (bob, _) = world.device("bob", "phone");
    assert_eq!(shown(&pass(&mut world, 1)), NONE, "it was told when he came");
    world.close("bob", bob);
    assert_eq!(shown(&pass(&mut world, LINGER_SECS - 1)), NONE);
    assert_eq!(asked(&mut world, "alice", "bob"), Shown { available: true, last_seen: None });
    let (bob, _) = world.device("bob", "phone");
    assert_eq!(shown(&pass(&mut world, 2 * LINGER_SECS)), NONE, "a reconnect shows nothing");

    // A second device keeps him there; the first to go does not matter.
    let (tablet, _) = world.device("bob", "tablet");
    world.close("bob", bob);
    assert_eq!(shown(&pass(&mut world, 2 * LINGER_SECS)), NONE);
    let left = world.now.unix_secs;
    assert_eq!(shown(&command(&mut world, "bob", tablet, "unavailable")), NONE);
    assert_eq!(shown(&command(&mut world, "bob", tablet, "unavailable")), NONE);
    assert_eq!(shown(&pass(&mut world, LINGER_SECS)), [unavailable("bob", Some(left))]);
    pass(&mut world, 1);
    assert_eq!(shown(&command(&mut world, "bob", tablet, "available")), [available("bob")]);
    let left = world.now.unix_secs;
    world.close("bob", tablet);
    assert_eq!(shown(&pass(&mut world, LINGER_SECS)), [unavailable("bob", Some(left))]);
    for settled in [false, true] {
        if settled {
            world.settle_everything();
        }
        world = world.crash();
        assert_eq!(asked(&mut world, "alice", "bob"), Shown { available: false, last_seen: Some(left) }, "{settled}");
    }
}

#[test]
fn when_the_server_ends_those_who_are_leaving_were_there_last_then() {
    let mut world = friends(&["alice", "bob"], Limits::default());
    let (bob, _) = world.device("bob", "phone");
    world.close("bob", bob);
    let left = world.now.unix_secs;
    world.engine.say_goodbye().unwrap();
    let mut world = world.crash();
    assert_eq!(asked(&mut world, "alice", "bob"), Shown { available: false, last_seen: Some(left) });
}

#[test]
fn what_leaves_is_committed_before_it_is_told_and_otherwise_waits_for_others() {
    let mut world = friends(&["alice", "bob", "carol"], Limits::default());
    let (alice, _) = world.device("alice", "phone");
    watch(&mut world, "alice", alice, "bob");
    let [bob, carol] = ["bob", "carol"].map(|name| world.device(name, "phone").0);
    assert_eq!(shown(&pass(&mut world, 1)), [available("bob")]);
    let is_silent_when = |world: &mut World, name: &str, connection| {
        world.close(name, connection);
        world.now.server_secs += LINGER_SECS;
        world.engine.go_on(world.now).unwrap();
        world.engine.look_around().unwrap();
        assert!(world.engine.has_changes());
        let is_silent = world.engine.is_silent();
        world.commit();
        is_silent
    };
    assert!(is_silent_when(&mut world, "carol", carol), "nobody waits for that");
    assert!(!is_silent_when(&mut world, "bob", bob), "somebody is told of it");
}

#[test]
fn one_change_a_second_of_each_and_the_last_one_wins() {
    let mut world = friends(&["alice", "bob"], Limits::default());
    let (alice, _) = world.device("alice", "phone");
    let (bob, _) = world.device("bob", "phone");
    assert_eq!(shown(&watch(&mut world, "alice", alice, "bob")), [available("bob")]);
    let mut told = Vec::new();
    for _ in 0..5 {
        told.extend(set(&mut world, "bob", Aspect::Online, Who::Nobody, &[]));
        told.extend(set(&mut world, "bob", Aspect::Online, Who::Contacts, &[]));
    }
    told.extend(set(&mut world, "bob", Aspect::Online, Who::Nobody, &[]));
    assert_eq!(shown(&told), NONE);
    assert_eq!(shown(&pass(&mut world, 1)), [unavailable("bob", None)]);
    set(&mut world, "bob", Aspect::Online, Who::Contacts, &[]);
    set(&mut world, "bob", Aspect::Online, Who::Nobody, &[]);
    assert_eq!(shown(&pass(&mut world, 3)), NONE, "what is as it was is not told again");
    // Unless it is asked for; and that he has left is hidden too.
    assert_eq!(shown(&watch(&mut world, "alice", alice, "bob")), [unavailable("bob", None)]);
    world.close("bob", bob);
    let left = world.now.unix_secs;
    assert_eq!(shown(&pass(&mut world, 20)), [unavailable("bob", Some(left))], "when he was seen last is not");
}

#[test]
fn who_shows_nothing_looks_like_one_who_never_was_there_and_sees_nothing() {
    let mut world = friends(&["alice", "bob", "never"], Limits::default());
    let (alice, _) = world.device("alice", "phone");
    let (bob, _) = world.device("bob", "phone");
    for aspect in [Aspect::Online, Aspect::LastSeen] {
        set(&mut world, "bob", aspect, Who::Nobody, &[]);
    }
    let never = watch(&mut world, "alice", alice, "never");
    let hidden = watch(&mut world, "alice", alice, "bob");
    assert_eq!(shown(&hidden).len(), 1);
    assert_eq!(format!("{hidden:?}").replace("bob", "never").len(), format!("{never:?}").len());
    assert_eq!(shown(&hidden), [unavailable("bob", None)]);
    world.close("bob", bob);
    let (bob, _) = world.device("bob", "phone");
    assert_eq!(shown(&pass(&mut world, 20)), NONE);
    assert_eq!(asked(&mut world, "alice", "bob"), asked(&mut world, "alice", "never"));
    assert_eq!(shown(&watch(&mut world, "bob", bob, "alice")), [unavailable("alice", None)], "he sees none");
    // Strangers see nothing either; who shows it to everyone is seen by those who do too.
    let mut world = World::with_users(&["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    world.device("bob", "phone");
    assert_eq!(shown(&watch(&mut world, "alice", alice, "bob")), [unavailable("bob", None)]);
    pass(&mut world, 1);
    assert_eq!(shown(&set(&mut world, "bob", Aspect::Online, Who::Everyone, &[])), NONE);
    assert_eq!(shown(&set(&mut world, "alice", Aspect::Online, Who::Everyone, &[])), [available("bob")]);
    for settled in [true, false] {
        if settled {
            world.settle_everything();
        }
        world = world.crash();
        world.device("bob", "phone");
        assert!(asked(&mut world, "alice", "bob").available, "rules are durable");
    }
}

#[test]
fn a_block_stands_above_everything_and_takes_effect_at_once() {
    for name in ["alice", "bob"] {
        let other = if name == "alice" { "bob" } else { "alice" };
        let mut world = friends(&["alice", "bob"], Limits::default());
        for of in ["alice", "bob"] {
            set(&mut world, of, Aspect::Online, Who::Everyone, &[]);
        }
        let (alice, _) = world.device("alice", "phone");
        let (bob, _) = world.device("bob", "phone");
        assert_eq!(shown(&watch(&mut world, "alice", alice, "bob")), [available("bob")]);
        pass(&mut world, 1);
        let block = Request::Blocks(blocks::Ask::Block(user(name), user(other)));
        assert_eq!(shown(&said_with_frames(&mut world, block).1), [unavailable("bob", None)], "{name} blocks");
        world.close("bob", bob);
        pass(&mut world, 20);
        assert_eq!(asked(&mut world, "alice", "bob"), Shown::default());
        world.device("bob", "phone");
        assert_eq!(shown(&pass(&mut world, 20)), NONE);
        let unblock = Request::Blocks(blocks::Ask::Unblock(user(name), user(other)));
        assert_eq!(shown(&said_with_frames(&mut world, unblock).1), [available("bob")]);
    }
}

#[test]
fn watches_are_bounded_and_strangers_take_no_place() {
    let limits = Limits { watches_max: 2, watchers_max: 1, ..Limits::default() };
    let mut world = friends(&["alice", "bob", "carol", "dave"], limits);
    for name in ["eve", "frank"] {
        said(&mut world, Request::AddUser(user(name)));
    }
    let connections = ["alice", "bob", "eve"].map(|name| world.device(name, "phone").0);
    let [alice, bob, eve] = connections;
    let refused = |down: &[Down]| match answers(down).as_slice() {
        [Answer::Refused { kind, details }] => format!("{kind:?} {details}"),
        other => panic!("{other:?}"),
    };
    for other in ["carol", "dave"] {
        watch(&mut world, "eve", eve, other);
    }
    let third = watch(&mut world, "eve", eve, "bob");
    assert_eq!(refused(&third), "Quota chat: expected at most 2 that a connection watches, got one more: unwatch some");
    assert_eq!(shown(&watch(&mut world, "alice", alice, "carol")).len(), 1, "a stranger took no place");
    let second = watch(&mut world, "bob", bob, "carol");
    assert_eq!(
        refused(&second),
        "Quota chat: expected at most 1 connections that watch carol, got one more: try later"
    );
    let unwatch = json!({"status": "unwatch", "chat": "carol"});
    assert_eq!(answers(&world.publish("alice", "phone", alice, &unwatch)), [&Answer::Done]);
    assert_eq!(shown(&watch(&mut world, "bob", bob, "carol")).len(), 1);
    world.close("bob", bob);
    assert_eq!(shown(&watch(&mut world, "alice", alice, "carol")).len(), 1, "a place that is free again");
    // Who could see, were there a place, waits for one.
    for name in ["carol", "eve"] {
        set(&mut world, name, Aspect::Online, Who::Everyone, &[]);
    }
    pass(&mut world, 1);
    let connection = world.connect("carol", Dialect::Full, u32::MAX);
    let device = DeviceId::parse("phone").unwrap();
    let told = world.up("carol", Up::Attach { connection, request: 1, device, mode: Mode::Device });
    assert_eq!(live(&told), [(alice, available("carol"))]);
    assert_eq!(live(&world.publish("alice", "phone", alice, &unwatch)), [(eve, available("carol"))]);
    for (chat, kind) in
        [("nobody", "UnknownRecipient"), ("alice", "InvalidValue"), ("status@broadcast", "InvalidValue")]
    {
        assert!(refused(&watch(&mut world, "alice", alice, chat)).starts_with(kind), "{chat}");
    }
}

#[test]
fn presence_waits_for_credit_and_hints_do_not() {
    let mut world = friends(&["alice", "bob"], Limits::default());
    let (alice, _) = world.device("alice", "phone");
    let (bob, _) = world.device("bob", "phone");
    assert_eq!(shown(&watch(&mut world, "alice", alice, "bob")), [available("bob")]);
    let full = || {
        let mut window = Window::default();
        (0..WINDOW_FRAMES).for_each(|_| window.sent(1));
        window
    };
    let typing = json!({"status": "typing", "chat": "alice"});
    world.window = full();
    let hinted = world.publish("bob", "phone", bob, &typing);
    assert_eq!((answers(&hinted).len(), live(&hinted)), (1, vec![]));
    world.close("bob", bob);
    assert_eq!(live(&pass(&mut world, 20)), []);
    let (bob, _) = world.device("bob", "phone");
    command(&mut world, "bob", bob, "unavailable");
    let left = world.now.unix_secs;
    assert_eq!(live(&pass(&mut world, 20)), []);
    world.window.confirmed(Credit { frames: WINDOW_FRAMES, bytes: WINDOW_FRAMES });
    assert_eq!(shown(&world.commit()), [unavailable("bob", Some(left))], "what is true then");

    // Nor does who has not taken what it has.
    world.window = Window::default();
    for i in 0..100 {
        world.publish("bob", "phone", bob, &text(&format!("m{i}"), "alice", "x"));
    }
    assert_eq!(live(&world.publish("bob", "phone", bob, &typing)), []);
    assert_eq!(shown(&command(&mut world, "bob", bob, "available")), NONE);
    assert_eq!(shown(&pass(&mut world, 3)), NONE);
    world.ack("alice", alice, 1);
    assert_eq!(shown(&pass(&mut world, 1)), [available("bob")]);
    assert_eq!(live(&world.publish("bob", "phone", bob, &typing)).len(), 1);
}

#[test]
fn one_typing_hint_in_three_seconds_of_each_chat() {
    let mut world = friends(&["alice", "bob", "carol"], Limits::default());
    let connections = ["alice", "bob", "carol"].map(|name| world.device(name, "phone").0);
    let typing = |world: &mut World, chat: &str| {
        live(&world.publish("bob", "phone", connections[1], &json!({"status": "typing", "chat": chat}))).len()
    };
    assert_eq!([typing(&mut world, "alice"), typing(&mut world, "alice"), typing(&mut world, "carol")], [1, 0, 1]);
    pass(&mut world, 2);
    assert_eq!(typing(&mut world, "alice"), 0);
    pass(&mut world, 1);
    assert_eq!(typing(&mut world, "alice"), 1);
    // The Cloud API's, beside a read mark.
    world.publish("alice", "phone", connections[0], &text("m1", "bob", "hi"));
    let read = |indicator: bool| match indicator {
        true => json!({"status": "read", "message_id": "m1", "typing_indicator": {"type": "text"}}),
        false => json!({"status": "read", "message_id": "m1"}),
    };
    assert_eq!(live(&world.publish("bob", "phone", connections[1], &read(true))), []);
    pass(&mut world, 3);
    assert_eq!(live(&world.publish("bob", "phone", connections[1], &read(false))), []);
    assert_eq!(live(&world.publish("bob", "phone", connections[1], &read(true))).len(), 1);
}

#[test]
fn a_viewer_is_there_and_may_watch_and_who_reads_nothing_is_told_once_it_does() {
    let mut world = friends(&["alice", "bob"], Limits::default());
    let alice = world.connect("alice", Dialect::Full, u32::MAX);
    assert_eq!(shown(&watch(&mut world, "alice", alice, "bob")), NONE);
    let bob = world.connect("bob", Dialect::Full, u32::MAX);
    command(&mut world, "bob", bob, "available");
    let device = DeviceId::parse("phone").unwrap();
    let attach = Up::Attach { connection: alice, request: 1, device: device.clone(), mode: Mode::Viewer };
    assert_eq!(shown(&world.up("alice", attach)), [unavailable("bob", None)], "he reads nothing");
    assert_eq!(shown(&world.commit()), NONE, "it was told with its SUBACK");
    world.up("bob", Up::Attach { connection: bob, request: 1, device, mode: Mode::Viewer });
    assert_eq!(shown(&pass(&mut world, 1)), [available("bob")]);
    world.up("bob", Up::Detach { connection: bob });
    assert_eq!(shown(&pass(&mut world, LINGER_SECS)).len(), 1);
}

#[test]
fn a_batch_that_fails_ends_all_watches_and_forgets_nobody_who_was_there() {
    let mut world = friends(&["alice", "bob"], Limits::default());
    let (alice, _) = world.device("alice", "phone");
    world.device("bob", "phone");
    watch(&mut world, "alice", alice, "bob");
    world.is_full.store(true, std::sync::atomic::Ordering::Relaxed);
    world.handle(Event::Request(7, Request::AddUser(user("carol"))));
    world.engine.commit().unwrap_err();
    let left = world.now.unix_secs;
    world.engine.abort(natter_protocol::error::NotNow::Unavailable).unwrap();
    world.is_full.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(live(&pass(&mut world, LINGER_SECS)), []);
    let mut world = world.crash();
    assert_eq!(asked(&mut world, "alice", "bob").last_seen, Some(left));
}

#[test]
fn a_status_goes_to_whom_the_privacy_of_its_poster_admits_when_it_is_posted() {
    let mut world = friends(&["alice", "bob", "carol", "dave"], Limits::default());
    let mut posted = 0;
    let mut audience = |world: &mut World| -> Vec<String> {
        posted += 1;
        let payload = text(&format!("s{posted}"), "status@broadcast", "x").to_string().into();
        let publish = Request::Publish { user: user("alice"), device: DeviceId::http(), stamp: 1, payload };
        said(world, publish);
        ["bob", "carol", "dave"].into_iter().filter(|name| is_shown(world, name, posted)).map(str::to_owned).collect()
    };
    let ask = |who, users: &[&str], world: &mut World| set(world, "alice", Aspect::Status, who, users);
    assert_eq!(audience(&mut world), ["bob", "carol", "dave"]);
    ask(Who::Except, &["carol", "nobody"], &mut world);
    assert_eq!(audience(&mut world), ["bob", "dave"]);
    ask(Who::Only, &["carol", "eve"], &mut world);
    assert_eq!(audience(&mut world), ["carol"]);
    world.settle_everything();
    world = world.crash();
    assert_eq!(audience(&mut world), ["carol"], "a list is durable");
    ask(Who::Nobody, &[], &mut world);
    assert_eq!(audience(&mut world), [""; 0]);
    let everyone = vec![(Aspect::Status, Rule::new(Who::Everyone, vec![]))];
    let too_many = (0..=Limits::default().people.contacts_max).map(|i| user(&format!("u{i}"))).collect();
    let too_many = vec![(Aspect::Online, Rule::new(Who::Except, too_many))];
    for rules in [everyone, too_many] {
        let reply = said(&mut world, Request::Presence(Ask::Put(user("alice"), rules)));
        assert!(matches!(reply, Reply::Presence(Told::Refused(_))));
    }
}

fn is_shown(world: &mut World, name: &str, n: u64) -> bool {
    let ask = status::ask::Ask::List { user: user(name), from: user("alice"), after: n - 1 };
    match said(world, Request::Status(ask)) {
        Reply::Status(status::ask::Told::List(all, _)) => all.iter().any(|status| status.n == n),
        other => panic!("{other:?}"),
    }
}
