//! The rules of statuses: who is given one, what he may do with it, and that it is gone after a day.

#![allow(clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod world;

use natter_bridge::Limits;
use natter_bridge::change::Tick;
use natter_bridge::contacts;
use natter_bridge::engine::{Event, Released, Reply as EngineReply, Request};
use natter_bridge::inside::Fetch;
use natter_bridge::media::row::{MediaFile, MediaKind};
use natter_bridge::media::rules::{Question, Reply};
use natter_bridge::quota::Amount;
use natter_bridge::status::STATUS_SECS;
use natter_bridge::status::ask::{Ask, Listed, Told, Viewers};
use natter_protocol::error::Kind;
use natter_protocol::link::{Answer, Down};
use natter_protocol::{DeviceId, MediaId, MessageId};
use serde_json::{Value, json};
use world::{DAY, World, answers, entries, text, user};

/// Users of whom each has all the others as contacts.
fn friends(names: &[&str]) -> World {
    let mut world = World::with_users(names);
    befriend(&mut world, names);
    world
}

fn befriend(world: &mut World, names: &[&str]) {
    for name in names {
        for other in names.iter().filter(|other| *other != name) {
            put_contact(world, name, other);
        }
    }
}

fn put_contact(world: &mut World, name: &str, other: &str) {
    let put = contacts::Ask::Put(user(name), user(other), None);
    let told = request(world, Request::Contacts(put));
    assert!(matches!(told, EngineReply::Contacts(contacts::Told::Done(_))), "{told:?}");
}

fn request(world: &mut World, request: Request) -> EngineReply {
    world.handle(Event::Request(99, request));
    world.engine.commit().unwrap();
    let mut released = Released::default();
    world.engine.release(&mut world.window, &mut released).unwrap();
    released.replies.pop().unwrap().1
}

fn ask(world: &mut World, ask: Ask) -> Told {
    match request(world, Request::Status(ask)) {
        EngineReply::Status(told) => told,
        other => unreachable!("{other:?}"),
    }
}

fn id(name: &str) -> MessageId {
    MessageId::parse(name).unwrap()
}

fn status(id: &str) -> Value {
    text(id, "status@broadcast", id)
}

fn post(world: &mut World, name: &str, id: &str) {
    let said = request(
        world,
        Request::Publish {
            user: user(name),
            device: DeviceId::http(),
            stamp: 1,
            payload: status(id).to_string().into(),
        },
    );
    assert!(matches!(said, EngineReply::Answer(Answer::Message { .. })), "{said:?}");
}

/// What `name` is told over HTTP when he publishes that.
fn published(world: &mut World, name: &str, payload: &Value) -> Option<Kind> {
    let (user, device) = (user(name), DeviceId::http());
    match request(world, Request::Publish { user, device, stamp: 1, payload: payload.to_string().into() }) {
        EngineReply::Answer(_) => None,
        EngineReply::Refused(refusal) => Some(refusal.kind),
        other => unreachable!("{other:?}"),
    }
}

fn listed(world: &mut World, name: &str, from: &str) -> Vec<Listed> {
    match ask(world, Ask::List { user: user(name), from: user(from), after: 0 }) {
        Told::List(listed, _) => listed,
        other => unreachable!("{other:?}"),
    }
}

fn ids(listed: &[Listed]) -> Vec<String> {
    let entry =
        |listed: &Listed| serde_json::from_slice::<Value>(&listed.entry).unwrap()["id"].as_str().unwrap().into();
    listed.iter().map(entry).collect()
}

fn viewers(world: &mut World, name: &str, status: &str) -> Option<Viewers> {
    match ask(world, Ask::Viewers { user: user(name), id: id(status), after: None }) {
        Told::Viewers(viewers) => viewers,
        other => unreachable!("{other:?}"),
    }
}

fn delete(world: &mut World, name: &str, status: &str) -> bool {
    match ask(world, Ask::Delete { user: user(name), device: DeviceId::http(), id: id(status) }) {
        Told::Deleted(was_there) => was_there,
        other => unreachable!("{other:?}"),
    }
}

/// What a device of `name` has not acknowledged, as getMessage says it.
fn fetched(world: &mut World, name: &str, device: &str) -> Vec<Value> {
    let fetch = Fetch { user: user(name), device: DeviceId::parse(device).unwrap(), after: None, limit: 100 };
    match request(world, Request::Fetch(fetch)) {
        EngineReply::Page(page) => page.entries.iter().map(|(_, e)| serde_json::from_slice(e).unwrap()).collect(),
        other => unreachable!("{other:?}"),
    }
}

fn kinds(entries: &[Value]) -> Vec<String> {
    let name = |entry: &Value, member: &str| entry[member].as_str().unwrap_or_default().to_owned();
    entries.iter().map(|entry| [name(entry, "status"), name(entry, "id")].join(" ").trim().to_owned()).collect()
}

/// The same after every way that a fact may be known: in memory, replayed, settled.
fn in_every_state(mut world: World, check: impl Fn(&mut World)) -> World {
    check(&mut world);
    let mut world = world.crash();
    check(&mut world);
    world.settle_everything();
    check(&mut world);
    let mut world = world.crash();
    check(&mut world);
    world
}

#[test]
fn a_status_goes_to_the_audience_once_and_to_who_comes_later_that_day() {
    let mut world = friends(&["alice", "bob", "carol"]);
    let (alice, _) = world.device("alice", "phone");
    let (bob, _) = world.device("bob", "phone");
    let said = world.publish("alice", "phone", alice, &status("s1"));
    let bobs = entries(said);
    assert_eq!(bobs.len(), 1, "only who is there: {bobs:?}");
    let entry = &bobs[0];
    assert_eq!((&entry["from"], &entry["chat"], &entry["n"]), (&json!("alice"), &json!("status@broadcast"), &json!(1)));
    assert_eq!(entry["text"]["body"], "s1");
    // A repeat is one.
    let again = world.publish("alice", "phone", alice, &status("s1"));
    assert!(entries(again.clone()).is_empty() && matches!(answers(&again)[..], [Answer::Message { n: 1, .. }]));
    let ticked = entries(world.ack("bob", bob, 1));
    assert_eq!(kinds(&ticked), ["delivered s1"]);
    assert_eq!((&ticked[0]["chat"], &ticked[0]["recipient_id"]), (&json!("status@broadcast"), &json!("bob")));
    let mut world = world.crash();
    world.settle_everything();
    world.now.server_secs += STATUS_SECS - 1;
    let (carol, late) = world.device("carol", "phone");
    assert_eq!(kinds(&late), ["s1"]);
    let seq = late[0]["seq"].as_u64().unwrap();
    world.ack("carol", carol, seq);
    world.close("carol", carol);
    assert!(world.device("carol", "phone").1.is_empty(), "once");
}

#[test]
fn after_a_day_nothing_of_it_is_handed_out_by_any_way_also_before_the_sweep() {
    let mut world = friends(&["alice", "bob"]);
    post(&mut world, "alice", "s1");
    assert_eq!(ids(&listed(&mut world, "bob", "alice")), ["s1"]);
    world.now.server_secs += STATUS_SECS;
    let mut world = in_every_state(world, |world| {
        assert!(listed(world, "bob", "alice").is_empty() && listed(world, "alice", "alice").is_empty());
        assert_eq!(viewers(world, "alice", "s1"), None);
        assert!(fetched(world, "bob", "http").is_empty());
        assert!(world.device("bob", "phone").1.is_empty());
        let read = json!({"status": "read", "chat": "status@broadcast", "from": "alice", "n": 1});
        assert_eq!(published(world, "bob", &read), Some(Kind::InvalidValue));
        let reply =
            json!({"to": "alice", "type": "text", "text": {"body": "x"}, "context": {"message_id": "alice/s1"}});
        assert_eq!(published(world, "bob", &reply), Some(Kind::Ambiguous));
    });
    // The sweep: neither a gap nor a failure, and nothing is left.
    let (_alice, told) = world.device("alice", "phone");
    assert!(told.is_empty(), "{told:?}");
    let said = world.sweep_after(0);
    assert!(entries(said).is_empty());
    let world = in_every_state(world, |world| assert!(fetched(world, "bob", "http").is_empty()));
    let stored = format!("{:?}", world.engine.into_store());
    assert!(!stored.contains("Message(s:alice"), "no body is left: {stored}");
}

#[test]
fn what_waits_behind_a_status_that_is_over_comes_and_its_device_passes_it() {
    let mut world = friends(&["alice", "bob"]);
    for n in 0..70 {
        post(&mut world, "alice", &format!("s{n}"));
    }
    world.settle_everything();
    world.now.server_secs += STATUS_SECS;
    let (_bob, nothing) = world.device("bob", "phone");
    assert!(nothing.is_empty());
    let (alice, _) = world.device("alice", "phone");
    let said = entries(world.publish("alice", "phone", alice, &text("m1", "bob", "hi")));
    assert_eq!(kinds(&said), ["m1"]);
    assert_eq!(said[0]["seq"], 71);
    world.sweep_after(0);
    let bob = fetched(&mut world, "bob", "phone");
    assert_eq!(kinds(&bob), ["m1"]);
}

#[test]
fn receipts_cover_only_statuses_that_the_viewer_was_given() {
    let mut world = friends(&["alice", "bob"]);
    post(&mut world, "alice", "s1");
    let limits = Limits { inbox: Amount { entries: 2, bytes: 1 << 20 }, ..Limits::default() };
    let mut world = World::with_limits(&["alice", "bob"], limits);
    befriend(&mut world, &["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    // Bob's inbox is full from the third on; the fifth finds room again.
    let (bob, _) = world.device("bob", "phone");
    for n in 1..=4 {
        world.publish("alice", "phone", alice, &status(&format!("s{n}")));
    }
    let receipts = entries(world.ack("bob", bob, 1));
    assert_eq!((&receipts[0]["after"], &receipts[0]["n"]), (&json!(0), &json!(1)));
    world.ack("alice", alice, 1);
    world.ack("bob", bob, 2);
    world.ack("alice", alice, 2);
    world.publish("alice", "phone", alice, &status("s5"));
    assert_eq!(ids(&listed(&mut world, "bob", "alice")), ["s1", "s2", "s5"]);
    let receipts = entries(world.ack("bob", bob, 3));
    assert_eq!((&receipts[0]["after"], &receipts[0]["n"]), (&json!(4), &json!(5)), "not the two between");
    world.ack("alice", alice, 3);
    let read = json!({"status": "read", "chat": "status@broadcast", "message_id": "alice/s5"});
    let said = entries(world.publish("bob", "phone", bob, &read));
    let ranges: Vec<_> = said.iter().map(|entry| (entry["after"].clone(), entry["n"].clone())).collect();
    assert_eq!(ranges, [(json!(0), json!(2)), (json!(4), json!(5))], "{said:?}");
    assert!(said.iter().all(|entry| entry["status"] == "read" && entry["recipient_id"] == "bob"), "{said:?}");
    assert!(entries(world.publish("bob", "phone", bob, &read)).is_empty(), "read twice is read once");
    let seen = viewers(&mut world, "alice", "s5").unwrap();
    assert_eq!((seen.audience, seen.viewers), (1, vec![(user("bob"), Tick::Read)]));
    assert_eq!(viewers(&mut world, "alice", "s3").unwrap().audience, 0);
    for n in [3, 4] {
        let by_number = json!({"status": "read", "chat": "status@broadcast", "from": "alice", "n": n});
        assert_eq!(published(&mut world, "bob", &by_number), Some(Kind::InvalidValue), "he was not given it");
    }
}

#[test]
fn the_reads_of_a_viewer_are_told_to_his_other_devices_with_the_posters_name() {
    let mut world = friends(&["alice", "bob"]);
    let (phone, _) = world.device("bob", "phone");
    let (tablet, _) = world.device("bob", "tablet");
    post(&mut world, "alice", "s1");
    world.ack("bob", phone, 1);
    world.ack("bob", tablet, 1);
    let read = json!({"status": "read", "chat": "status@broadcast", "from": "alice", "message_id": "s1"});
    let said = entries(world.publish("bob", "phone", phone, &read));
    let own: Vec<_> = said.iter().filter(|entry| entry["recipient_id"] == "bob" && entry["from"] == "alice").collect();
    assert_eq!(own.len(), 1, "{said:?}");
    assert_eq!((&own[0]["status"], &own[0]["n"], &own[0]["id"]), (&json!("read"), &json!(1), &json!("s1")));
}

#[test]
fn a_status_that_is_taken_back_is_told_to_those_who_may_have_it_and_to_nobody_else() {
    let mut world = friends(&["alice", "bob", "carol"]);
    let (bob, _) = world.device("bob", "phone");
    let (alice, _) = world.device("alice", "phone");
    let (_tablet, _) = world.device("alice", "tablet");
    world.publish("alice", "phone", alice, &status("s1"));
    world.ack("bob", bob, 1);
    let taken_back = json!({"status": "deleted", "chat": "status@broadcast", "message_id": "s1"});
    assert_eq!(published(&mut world, "bob", &taken_back), Some(Kind::Ambiguous), "not his");
    let said = entries(world.publish("alice", "phone", alice, &taken_back));
    let deleted: Vec<_> = said.iter().filter(|entry| entry["status"] == "deleted").collect();
    assert_eq!(deleted.len(), 2, "bob, and alice's tablet: {said:?}");
    assert!(deleted.iter().all(|entry| entry["from"] == "alice" && entry["id"] == "s1" && entry["n"] == 1));
    assert!(entries(world.publish("alice", "phone", alice, &taken_back)).is_empty(), "twice is once");
    // Carol was never there.
    assert!(fetched(&mut world, "carol", "http").is_empty());
    let mut world = in_every_state(world, |world| {
        assert!(listed(world, "bob", "alice").is_empty() && fetched(world, "carol", "http").is_empty());
        assert!(world.device("carol", "phone").1.is_empty());
    });
    assert!(delete(&mut world, "alice", "s1"), "it was his");
    assert!(!delete(&mut world, "alice", "s9") && !delete(&mut world, "bob", "s1"));
    let stored = format!("{:?}", world.engine.into_store());
    assert!(!stored.contains("Message(s:alice"), "no body is left: {stored}");
}

#[test]
fn answers_and_reactions_to_a_status_go_to_its_poster_and_name_it() {
    let mut world = friends(&["alice", "bob", "carol"]);
    let (_alice, _) = world.device("alice", "phone");
    let (bob, _) = world.device("bob", "phone");
    post(&mut world, "alice", "s1");
    world.ack("bob", bob, 1);
    for (n, context) in [
        json!({"message_id": "alice/s1"}),
        json!({"message_id": "s1", "chat": "status@broadcast"}),
        json!({"message_id": "s1", "from": "alice", "chat": "status@broadcast"}),
    ]
    .into_iter()
    .enumerate()
    {
        let reply =
            json!({"id": format!("r{n}"), "to": "alice", "type": "text", "text": {"body": "nice"}, "context": context});
        let said = entries(world.publish("bob", "phone", bob, &reply));
        assert_eq!(said[0]["chat"], "bob");
        assert_eq!(said[0]["context"], json!({"message_id": "s1", "from": "alice", "chat": "status@broadcast"}));
    }
    let reaction = json!({"to": "alice", "type": "reaction",
        "reaction": {"message_id": "alice/s1", "chat": "status@broadcast", "emoji": "+"}});
    let said = entries(world.publish("bob", "phone", bob, &reaction));
    assert_eq!(said[0]["reaction"]["chat"], "status@broadcast");
    // To somebody else it is no message of that chat; and a status answers nothing.
    let elsewhere =
        json!({"to": "carol", "type": "text", "text": {"body": "x"}, "context": {"message_id": "alice/s1"}});
    assert_eq!(published(&mut world, "bob", &elsewhere), Some(Kind::Ambiguous));
    let mut answering = status("s2");
    answering["context"] = json!({"message_id": "alice/s1"});
    assert_eq!(published(&mut world, "bob", &answering), Some(Kind::InvalidValue));
}

#[test]
fn a_user_shows_a_hundred_statuses_and_one_more_is_refused_until_one_goes() {
    let mut world = friends(&["alice", "bob"]);
    for n in 0..Limits::default().people.statuses_max - 1 {
        post(&mut world, "alice", &format!("s{n}"));
    }
    world.settle_everything();
    post(&mut world, "alice", "last");
    let mut world = in_every_state(world, |world| {
        assert_eq!(published(world, "alice", &status("more")), Some(Kind::Quota));
    });
    assert_eq!(published(&mut world, "alice", &status("last")), None, "a repeat is no more");
    assert!(delete(&mut world, "alice", "s0"));
    assert_eq!(published(&mut world, "alice", &status("more")), None);
    assert_eq!(published(&mut world, "alice", &status("even-more")), Some(Kind::Quota));
    world.now.server_secs += STATUS_SECS;
    assert_eq!(published(&mut world, "alice", &status("even-more")), None, "before the sweep too");
    let said = world.sweep_after(0);
    assert!(entries(said).is_empty());
    assert_eq!(ids(&listed(&mut world, "bob", "alice")), ["even-more"]);
}

fn media_id(n: u64) -> MediaId {
    MediaId::parse(&(7_000_000_000_000_000 + n).to_string()).unwrap()
}

fn media(world: &mut World, question: Question) -> Vec<MediaId> {
    match request(world, Request::Media(question)) {
        EngineReply::Media(Reply::Files(files)) => files.into_iter().map(|file| file.id).collect(),
        other => unreachable!("{other:?}"),
    }
}

fn add_media(world: &mut World, n: u64, owner: &str) {
    let file = MediaFile {
        id: media_id(n),
        owner: user(owner),
        kind: MediaKind::Image,
        mime: "image/png".into(),
        sha256: [0xab; 32],
        size: 5,
        name: None,
        made_at: 1_764_000_000,
        until: 0,
    };
    assert_eq!(media(world, Question::Add(Box::new(file))), [media_id(n)]);
}

fn may_read(world: &mut World, name: &str, n: u64) -> bool {
    !media(world, Question::Read(user(name), media_id(n))).is_empty()
}

fn image(message: &str, to: &str, n: u64) -> Value {
    json!({"id": message, "to": to, "type": "image", "image": {"id": media_id(n), "caption": "us"}})
}

#[test]
fn the_file_of_a_status_is_for_the_audience_as_long_as_it_is_shown_and_goes_with_it() {
    let mut world = friends(&["alice", "bob", "carol"]);
    add_media(&mut world, 1, "alice");
    add_media(&mut world, 2, "alice");
    assert_eq!(published(&mut world, "alice", &image("s1", "status@broadcast", 1)), None);
    assert_eq!(published(&mut world, "alice", &image("s2", "status@broadcast", 2)), None);
    // The second was sent to bob as well.
    assert_eq!(published(&mut world, "alice", &image("m1", "bob", 2)), None);
    let mut world = in_every_state(world, |world| {
        assert_eq!(["alice", "bob", "carol"].map(|name| may_read(world, name, 1)), [true; 3]);
        assert_eq!(["alice", "bob", "carol"].map(|name| may_read(world, name, 2)), [true; 3]);
    });
    world.now.server_secs += STATUS_SECS;
    let mut world = in_every_state(world, |world| {
        assert_eq!(["bob", "carol"].map(|name| may_read(world, name, 1)), [false; 2], "before the sweep");
        assert_eq!(["bob", "carol"].map(|name| may_read(world, name, 2)), [true, false]);
    });
    world.sweep_after(0);
    assert_eq!(media(&mut world, Question::TakeExpired), [media_id(1)], "its bytes are to go");
    assert!(media(&mut world, Question::TakeExpired).is_empty(), "once");
    in_every_state(world, |world| {
        assert_eq!(["alice", "bob", "carol"].map(|name| may_read(world, name, 1)), [false; 3]);
        assert_eq!(["alice", "bob", "carol"].map(|name| may_read(world, name, 2)), [true, true, false]);
    });
}

#[test]
fn a_file_that_a_group_has_too_outlives_its_status() {
    let mut world = friends(&["alice", "bob", "carol"]);
    add_media(&mut world, 1, "alice");
    let group = "g:0123456789abcdef";
    let create = json!({"group": "create", "chat": group, "subject": "Trip", "users": ["bob"]});
    assert_eq!(published(&mut world, "alice", &create), None);
    assert_eq!(published(&mut world, "alice", &image("s1", "status@broadcast", 1)), None);
    assert_eq!(published(&mut world, "alice", &image("m1", group, 1)), None);
    let mut world = in_every_state(world, |world| assert!(may_read(world, "carol", 1)));
    assert!(delete(&mut world, "alice", "s1"));
    in_every_state(world, |world| {
        assert_eq!(["alice", "bob", "carol"].map(|name| may_read(world, name, 1)), [true, true, false]);
    });
}

#[test]
fn a_file_that_is_in_two_statuses_goes_with_the_last() {
    let mut world = friends(&["alice", "bob"]);
    add_media(&mut world, 1, "alice");
    assert_eq!(published(&mut world, "alice", &image("s1", "status@broadcast", 1)), None);
    world.now.server_secs += DAY / 2;
    assert_eq!(published(&mut world, "alice", &image("s2", "status@broadcast", 1)), None);
    world.settle_everything();
    assert!(delete(&mut world, "alice", "s1"));
    let mut world = in_every_state(world, |world| assert!(may_read(world, "bob", 1)));
    assert!(delete(&mut world, "alice", "s2"));
    in_every_state(world, |world| assert!(!may_read(world, "alice", 1) && !may_read(world, "bob", 1)));
}

#[test]
fn of_a_batch_that_is_not_committed_neither_the_status_nor_its_end_is_there() {
    let mut world = friends(&["alice", "bob"]);
    add_media(&mut world, 1, "alice");
    assert_eq!(published(&mut world, "alice", &image("s1", "status@broadcast", 1)), None);
    world.is_full.store(true, std::sync::atomic::Ordering::Relaxed);
    let delete = Ask::Delete { user: user("alice"), device: DeviceId::http(), id: id("s1") };
    world.handle(Event::Request(1, Request::Status(delete)));
    assert!(world.engine.commit().is_err());
    world.engine.abort(natter_protocol::error::NotNow::Unavailable).unwrap();
    world.is_full.store(false, std::sync::atomic::Ordering::Relaxed);
    assert!(media(&mut world, Question::TakeExpired).is_empty(), "or the bytes of a file that is there would go");
    in_every_state(world, |world| {
        assert!(may_read(world, "bob", 1));
        assert_eq!(ids(&listed(world, "bob", "alice")), ["s1"]);
    });
}

#[test]
fn nobody_but_the_audience_lists_or_reads_a_status() {
    let mut world = World::with_users(&["alice", "bob", "eve"]);
    befriend(&mut world, &["alice", "bob"]);
    // One side alone is not enough: nobody shows himself to strangers, and nobody looks at them.
    put_contact(&mut world, "alice", "eve");
    let mut world = in_every_state(world, |_| {});
    add_media(&mut world, 1, "alice");
    assert_eq!(published(&mut world, "alice", &image("s1", "status@broadcast", 1)), None);
    in_every_state(world, |world| {
        assert_eq!(ids(&listed(world, "bob", "alice")), ["s1"]);
        assert!(listed(world, "eve", "alice").is_empty() && !may_read(world, "eve", 1));
        assert_eq!(viewers(world, "eve", "s1"), None);
        assert!(fetched(world, "eve", "http").is_empty());
        let by_id = json!({"status": "read", "chat": "status@broadcast", "from": "alice", "message_id": "s1"});
        let by_number = json!({"status": "read", "chat": "status@broadcast", "from": "alice", "n": 1});
        let of_nothing = json!({"status": "read", "chat": "status@broadcast", "from": "alice", "message_id": "s7"});
        assert_eq!(published(world, "eve", &by_id), published(world, "eve", &of_nothing), "she learns nothing");
        assert_eq!(published(world, "eve", &by_number), Some(Kind::InvalidValue));
    });
}

#[test]
fn a_viewer_at_qos_0_and_a_lagging_device_are_told_nothing_of_what_is_over() {
    let limits = Limits { inbox: Amount { entries: 4, bytes: 1 << 20 }, ..Limits::default() };
    let mut world = World::with_limits(&["alice", "bob"], limits);
    befriend(&mut world, &["alice", "bob"]);
    let (alice, _) = world.device("alice", "phone");
    for n in 0..4 {
        world.publish("alice", "phone", alice, &status(&format!("s{n}")));
    }
    world.now.server_secs += STATUS_SECS;
    world.sweep_after(0);
    world.settle_everything();
    // 30 days later the inbox is swept: there is nothing to tell of.
    let said: Vec<Down> = world.sweep_after(31);
    assert!(entries(said).is_empty());
    let (_bob, told) = world.device("bob", "phone");
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn a_crowded_inbox_tells_of_no_status_that_is_over_when_its_oldest_entries_go() {
    let limits = Limits { inbox: Amount { entries: 4, bytes: 1 << 20 }, ..Limits::default() };
    let mut world = World::with_limits(&["alice", "bob"], limits);
    befriend(&mut world, &["alice", "bob"]);
    let (bob, _) = world.device("bob", "phone");
    world.publish("bob", "phone", bob, &text("m1", "alice", "one"));
    world.publish("bob", "phone", bob, &text("m2", "alice", "two"));
    world.close("bob", bob);
    for n in 0..5 {
        post(&mut world, "alice", &format!("s{n}"));
    }
    world.now.server_secs += STATUS_SECS;
    // Four receipts beside the four statuses that found room: too much, before the sweep has come by.
    let (alice, mine) = world.device("alice", "phone");
    assert_eq!(kinds(&mine), ["m1", "m2"]);
    for n in [1, 2] {
        world.ack("alice", alice, n);
        world.publish("alice", "phone", alice, &json!({"status": "read", "chat": "bob", "n": n}));
    }
    let (_bob, told) = world.device("bob", "phone");
    let gaps: Vec<_> = told.iter().filter(|entry| entry["type"] == "gap").collect();
    assert_eq!(gaps.len(), 1, "{told:?}");
    assert_eq!((&gaps[0]["from"], &gaps[0]["to"]), (&json!(5), &json!(8)), "not the statuses before them: {told:?}");
}
