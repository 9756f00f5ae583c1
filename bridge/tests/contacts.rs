//! The rules of contacts: an import brings everybody whom its cards name, or nobody.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its world does not hold")]

mod world;

use natter_bridge::contacts::import::{IMPORT_NAMES_MAX, Outcome};
use natter_bridge::contacts::vcard::{self, Card};
use natter_bridge::contacts::{Ask, NAME_BYTES_MAX, Told};
use natter_bridge::engine::{Event, Released, Reply, Request};
use natter_bridge::{Limits, PeopleLimits};
use natter_protocol::error::{Kind, NotNow, Refusal};
use world::{World, user};

fn handle(world: &mut World, ask: Ask) {
    world.handle(Event::Request(99, Request::Contacts(ask)));
}

fn ask(world: &mut World, ask: Ask) -> Told {
    handle(world, ask);
    world.engine.commit().unwrap();
    let mut released = Released::default();
    world.engine.release(&mut world.window, &mut released).unwrap();
    match released.replies.pop().unwrap().1 {
        Reply::Contacts(told) => told,
        other => panic!("{other:?}"),
    }
}

/// Name and contact, in order of the latter.
fn listed(world: &mut World, name: &str) -> Vec<(String, Option<String>)> {
    match ask(world, Ask::List(user(name), None, 100)) {
        Told::List(all) => all.into_iter().map(|(user, known)| (user.to_string(), known.name)).collect(),
        other => panic!("{other:?}"),
    }
}

fn card(name: &str, names: &[&str]) -> Result<Card, Refusal> {
    Ok(Card { name: Some(name.to_owned()), names: names.iter().map(|name| (*name).to_owned()).collect() })
}

fn import(world: &mut World, cards: Vec<Result<Card, Refusal>>) -> Result<Vec<Vec<Outcome>>, Kind> {
    match ask(world, Ask::Import(user("alice"), cards)) {
        Told::Imported(outcomes) => Ok(outcomes),
        Told::Refused(refusal) => Err(refusal.kind),
        other => panic!("{other:?}"),
    }
}

fn refused(outcomes: &[Outcome]) -> Kind {
    match outcomes {
        [Outcome::Refused(refusal)] => refusal.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn cards_bring_users_by_name_and_number_and_take_no_name_away() {
    let mut world = World::with_users(&["alice", "bob", "15550002", "carol"]);
    ask(&mut world, Ask::Put(user("alice"), user("bob"), Some("Bobby".into())));
    let file = "BEGIN:VCARD\nVERSION:4.0\nFN:Robert\nX-NATTER:bob\nEND:VCARD\n\
        BEGIN:VCARD\nVERSION:3.0\nFN:Carol\nIMPP:natter:carol\nTEL:+1 (555) 0002\nTEL:555 9999\nEND:VCARD\n\
        BEGIN:VCARD\nVERSION:2.1\nFN:Again\nTEL;CELL:+1 555-0002\nEND:VCARD\n";
    let outcomes = import(&mut world, vcard::read(file.as_bytes(), None).unwrap()).unwrap();
    let [carol, number] = ["carol", "15550002"].map(|name| Outcome::Added(user(name)));
    let present = |name: &str| Outcome::Present(user(name));
    assert_eq!(outcomes, [vec![present("bob")], vec![carol, number], vec![present("15550002")]]);
    let of = |name: &str, called: &str| (name.to_owned(), Some(called.to_owned()));
    let expected = [of("15550002", "Carol"), of("bob", "Bobby"), of("carol", "Carol")];
    assert_eq!(listed(&mut world, "alice"), expected);
    let mut world = world.crash();
    assert_eq!(listed(&mut world, "alice"), expected);
    world.settle_everything();
    let again = import(&mut world, vcard::read(file.as_bytes(), None).unwrap()).unwrap();
    assert!(again.iter().flatten().all(|outcome| matches!(outcome, Outcome::Present(_))), "{again:?}");
    assert_eq!(listed(&mut world, "alice"), expected);
}

#[test]
fn a_card_that_brings_nobody_says_why_and_the_others_count() {
    let mut world = World::with_users(&["alice", "bob"]);
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let broken = || Err(Refusal::new(Kind::Malformed, "card: expected END:VCARD, got the end of the file"));
    let cards = vec![
        card("me", &["alice"]),
        card("x", &["nobody", "ALICE!"]),
        card(&long, &["bob"]),
        broken(),
        card("Bob", &["bob"]),
    ];
    let outcomes = import(&mut world, cards).unwrap();
    let kinds: Vec<Kind> = outcomes[..4].iter().map(|outcomes| refused(outcomes)).collect();
    assert_eq!(kinds, [Kind::InvalidValue, Kind::UnknownRecipient, Kind::InvalidValue, Kind::Malformed]);
    assert_eq!(outcomes[4], [Outcome::Added(user("bob"))]);
}

#[test]
fn an_import_beyond_a_limit_adds_nobody() {
    let people = PeopleLimits { contacts_max: 2, ..PeopleLimits::default() };
    let users = ["alice", "bob", "carol", "dave"];
    let mut world = World::with_limits(&users, Limits { people, ..Limits::default() });
    ask(&mut world, Ask::Put(user("alice"), user("bob"), None));
    let all = || users[1..].iter().map(|name| card(name, &[name])).collect::<Vec<_>>();
    assert_eq!(import(&mut world, all()), Err(Kind::Quota));
    assert_eq!(listed(&mut world, "alice").len(), 1);
    assert!(import(&mut world, all().into_iter().take(2).collect()).is_ok(), "as many as there is room for");
    assert!(import(&mut world, all().into_iter().take(2).collect()).is_ok(), "nothing new needs no room");
    let numbers: Vec<String> = (0..=IMPORT_NAMES_MAX).map(|n| n.to_string()).collect();
    let many: Vec<_> = numbers.chunks(50).map(|some| Ok(Card { name: None, names: some.to_vec() })).collect();
    assert_eq!(import(&mut world, many), Err(Kind::InvalidValue));
}

#[test]
fn an_import_that_is_not_committed_adds_nobody() {
    let mut world = World::with_users(&["alice", "bob", "carol"]);
    world.is_full.store(true, std::sync::atomic::Ordering::Relaxed);
    handle(&mut world, Ask::Import(user("alice"), vec![card("Bob", &["bob"]), card("Carol", &["carol"])]));
    assert!(world.engine.commit().is_err());
    let released = world.engine.abort(NotNow::Unavailable).unwrap();
    assert_eq!(released.replies, [(99, Reply::NotNow(NotNow::Unavailable))]);
    world.is_full.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(listed(&mut world, "alice"), []);
}
