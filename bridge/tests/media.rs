//! The rules of media: who may read a file, who may send it on, what a user may keep, and when it goes.

#![allow(clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod world;

use natter_bridge::engine::{Event, Released, Reply as EngineReply, Request};
use natter_bridge::media::row::{MediaFile, MediaKind, MediaUse};
use natter_bridge::media::rules::{Question, Reply};
use natter_bridge::{Limits, MediaLimits};
use natter_protocol::MediaId;
use natter_protocol::error::Kind;
use natter_protocol::link::Answer;
use serde_json::{Value, json};
use world::{DAY, World, answers, entries, user};

const MIB: u64 = 1 << 20;

fn id(n: u64) -> MediaId {
    MediaId::parse(&(7_000_000_000_000_000 + n).to_string()).unwrap()
}

fn file(n: u64, owner: &str, kind: MediaKind, size: u64) -> MediaFile {
    MediaFile {
        id: id(n),
        owner: user(owner),
        kind,
        mime: "image/png".into(),
        sha256: [0xab; 32],
        size,
        name: Some("a.png".into()),
        made_at: 1_764_000_000 + n,
        until: 0,
    }
}

fn ask(world: &mut World, question: Question) -> Reply {
    world.handle(Event::Request(99, Request::Media(question)));
    world.engine.commit().unwrap();
    let mut released = Released::default();
    world.engine.release(&mut world.window, &mut released).unwrap();
    match released.replies.pop() {
        Some((99, EngineReply::Media(reply))) => reply,
        other => unreachable!("{other:?}"),
    }
}

fn add(world: &mut World, file: &MediaFile) {
    assert!(matches!(ask(world, Question::Add(Box::new(file.clone()))), Reply::Files(_)));
}

fn files(world: &mut World, question: Question) -> Vec<MediaId> {
    match ask(world, question) {
        Reply::Files(files) => files.into_iter().map(|file| file.id).collect(),
        other => unreachable!("{other:?}"),
    }
}

fn may_read(world: &mut World, name: &str, n: u64) -> bool {
    !files(world, Question::Read(user(name), id(n))).is_empty()
}

fn image(message: &str, to: &str, media: &MediaId) -> Value {
    json!({"id": message, "to": to, "type": "image", "image": {"id": media, "caption": "us"}})
}

fn refusal(said: &[natter_protocol::link::Down]) -> Option<Kind> {
    match answers(said)[..] {
        [Answer::Refused { kind, .. }] => Some(*kind),
        _ => None,
    }
}

/// The same after every way that a fact may be known: in memory, replayed, settled.
fn in_every_state(world: World, check: impl Fn(&mut World)) -> World {
    let mut world = world;
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
fn a_file_is_for_its_owner_and_for_those_it_was_sent_to() {
    let mut world = World::with_users(&["alice", "bob", "carol"]);
    add(&mut world, &file(1, "alice", MediaKind::Image, 5));
    let mut world = in_every_state(world, |world| {
        assert_eq!(["alice", "bob", "carol"].map(|name| may_read(world, name, 1)), [true, false, false]);
        assert!(!may_read(world, "alice", 2));
    });
    let (alice, _) = world.device("alice", "phone");
    assert_eq!(refusal(&world.publish("alice", "phone", alice, &image("m1", "bob", &id(1)))), None);
    let mut world = in_every_state(world, |world| {
        assert_eq!(["alice", "bob", "carol"].map(|name| may_read(world, name, 1)), [true, true, false]);
        assert_eq!(files(world, Question::Find(user("bob"), "a.png".into())), [id(1)]);
        assert!(files(world, Question::Find(user("carol"), "a.png".into())).is_empty());
    });
    // Who received it may send it on, and nobody else.
    let (bob, _) = world.device("bob", "phone");
    let (carol, _) = world.device("carol", "phone");
    assert_eq!(refusal(&world.publish("carol", "phone", carol, &image("m1", "alice", &id(1)))), Some(Kind::NoMedia));
    assert!(!may_read(&mut world, "carol", 1));
    assert_eq!(refusal(&world.publish("bob", "phone", bob, &image("m1", "carol", &id(1)))), None);
    assert!(may_read(&mut world, "carol", 1));
}

#[test]
fn an_entry_says_what_its_media_is_and_a_repeat_is_a_repeat_though_the_file_is_gone() {
    let mut world = World::with_users(&["alice", "bob"]);
    add(&mut world, &file(1, "alice", MediaKind::Image, 5));
    let (alice, _) = world.device("alice", "phone");
    let (_bob, _) = world.device("bob", "phone");
    let said = world.publish("alice", "phone", alice, &image("m1", "bob", &id(1)));
    let sum = "ab".repeat(32);
    assert_eq!(
        entries(said)[0]["image"],
        json!({"id": id(1), "mime_type": "image/png", "sha256": sum, "file_size": 5, "caption": "us"})
    );
    assert_eq!(files(&mut world, Question::Delete(user("bob"), id(1))), [], "not his");
    assert_eq!(files(&mut world, Question::Delete(user("alice"), id(1))), [id(1)]);
    let mut world = in_every_state(world, |world| {
        assert!(!may_read(world, "alice", 1) && !may_read(world, "bob", 1));
        assert_eq!(ask(world, Question::Use(user("alice"))), Reply::Use(MediaUse::default()));
    });
    let (alice, _) = world.device("alice", "phone");
    assert_eq!(refusal(&world.publish("alice", "phone", alice, &image("m1", "bob", &id(1)))), None, "a repeat");
    assert_eq!(refusal(&world.publish("alice", "phone", alice, &image("m2", "bob", &id(1)))), Some(Kind::NoMedia));
}

#[test]
fn a_document_is_no_picture_beyond_sixteen_mebibytes() {
    let mut world = World::with_users(&["alice", "bob"]);
    add(&mut world, &file(1, "alice", MediaKind::Document, 16 * MIB));
    add(&mut world, &file(2, "alice", MediaKind::Document, 16 * MIB + 1));
    let (alice, _) = world.device("alice", "phone");
    assert_eq!(refusal(&world.publish("alice", "phone", alice, &image("m1", "bob", &id(1)))), None);
    assert_eq!(refusal(&world.publish("alice", "phone", alice, &image("m2", "bob", &id(2)))), Some(Kind::TooLarge));
    let document = json!({"id": "m2", "to": "bob", "type": "document", "document": {"id": id(2)}});
    assert_eq!(refusal(&world.publish("alice", "phone", alice, &document)), None);
}

#[test]
fn a_user_may_keep_so_many_files_and_bytes() {
    let media = MediaLimits { files_max: 3, bytes_max: 100, ttl_secs: 30 * DAY };
    let mut world = World::with_limits(&["alice", "bob"], Limits { media, ..Limits::default() });
    add(&mut world, &file(1, "alice", MediaKind::Image, 60));
    let refused = |world: &mut World, file: MediaFile| match ask(world, Question::Add(Box::new(file))) {
        Reply::Refused(refusal) => Some((refusal.kind, refusal.details)),
        _ => None,
    };
    let world = in_every_state(world, |world| {
        let (kind, details) = refused(world, file(2, "alice", MediaKind::Image, 41)).unwrap();
        assert!(kind == Kind::Quota && details.contains("at most 100 bytes") && details.contains("60"), "{details}");
    });
    let mut world = world;
    add(&mut world, &file(2, "alice", MediaKind::Image, 20));
    add(&mut world, &file(3, "alice", MediaKind::Image, 20));
    assert!(refused(&mut world, file(4, "alice", MediaKind::Image, 0)).unwrap().1.contains("at most 3 files"));
    add(&mut world, &file(4, "bob", MediaKind::Image, 100));
    assert_eq!(files(&mut world, Question::Delete(user("alice"), id(1))), [id(1)]);
    let mut world = in_every_state(world, |world| {
        assert_eq!(ask(world, Question::Use(user("alice"))), Reply::Use(MediaUse { files: 2, bytes: 40 }));
    });
    add(&mut world, &file(5, "alice", MediaKind::Image, 60));
    assert!(refused(&mut world, file(5, "alice", MediaKind::Image, 0)).is_some(), "its id is taken");
}

#[test]
fn a_file_goes_when_its_time_is_over_and_a_message_with_it_keeps_it_longer() {
    let mut world = World::with_users(&["alice", "bob"]);
    add(&mut world, &file(1, "alice", MediaKind::Image, 5));
    add(&mut world, &file(2, "alice", MediaKind::Image, 5));
    world.settle_everything();
    world.now.server_secs += 20 * DAY;
    let (alice, _) = world.device("alice", "phone");
    assert_eq!(refusal(&world.publish("alice", "phone", alice, &image("m1", "bob", &id(2)))), None);
    let mut world = in_every_state(world, |world| assert!(files(world, Question::TakeExpired).is_empty()));
    world.now.server_secs += 10 * DAY + 1;
    assert_eq!(files(&mut world, Question::TakeExpired), [id(1)]);
    let mut world = in_every_state(world, |world| {
        assert_eq!((may_read(world, "alice", 1), may_read(world, "bob", 2)), (false, true));
        assert_eq!(ask(world, Question::Known(vec![id(1), id(2), id(3)])), Reply::Known(vec![id(2)]));
    });
    world.now.server_secs += 20 * DAY;
    assert_eq!(files(&mut world, Question::TakeExpired), [id(2)]);
    in_every_state(world, |world| assert!(!may_read(world, "bob", 2)));
}

#[test]
fn of_a_batch_that_is_not_committed_no_file_is_there() {
    let mut world = World::with_users(&["alice"]);
    world.is_full.store(true, std::sync::atomic::Ordering::Relaxed);
    world.handle(Event::Request(1, Request::Media(Question::Add(Box::new(file(1, "alice", MediaKind::Image, 5))))));
    assert!(world.engine.commit().is_err());
    let released = world.engine.abort(natter_protocol::error::NotNow::Unavailable).unwrap();
    assert!(matches!(released.replies[..], [(1, EngineReply::NotNow(_))]));
    world.is_full.store(false, std::sync::atomic::Ordering::Relaxed);
    in_every_state(world, |world| assert!(!may_read(world, "alice", 1)));
}

#[test]
fn who_is_in_one_of_many_groups_with_a_file_reads_it_and_no_more_once_he_is_out() {
    let mut world = World::with_users(&["alice", "bob", "carol"]);
    let (phone, _) = world.device("alice", "phone");
    let send = |world: &mut World, payload: &Value| {
        let said = world.publish("alice", "phone", phone, payload);
        assert!(matches!(answers(&said)[..], [Answer::Message { .. }]), "{said:?}");
    };
    let media = file(1, "alice", MediaKind::Image, MIB);
    add(&mut world, &media);
    // The oldest of more than 100 messages with the file is the one of Bob's group.
    for i in 0..120 {
        let (chat, users) = (format!("g:0123456789abcdef{i}"), if i == 0 { vec!["bob"] } else { vec![] });
        send(&mut world, &json!({"group": "create", "chat": chat, "subject": "Trip", "users": users}));
        for k in 0..i.min(2) {
            send(&mut world, &image(&format!("more{i}.{k}"), &chat, &id(1)));
        }
        send(&mut world, &image(&format!("m{i}"), &chat, &id(1)));
    }
    let mut world = in_every_state(world, |world| {
        assert_eq!((may_read(world, "bob", 1), may_read(world, "carol", 1)), (true, false));
    });
    let (phone, _) = world.device("alice", "phone");
    let command = |world: &mut World, act: &str, chat: &str, user: &str| {
        let said = world.publish("alice", "phone", phone, &json!({"group": act, "chat": chat, "users": [user]}));
        assert!(matches!(answers(&said)[..], [Answer::Message { .. }]), "{said:?}");
    };
    command(&mut world, "remove", "g:0123456789abcdef0", "bob");
    // He comes to another, and what was sent there before is not his.
    command(&mut world, "add", "g:0123456789abcdef1", "bob");
    command(&mut world, "add", "g:0123456789abcdef0", "bob");
    in_every_state(world, |world| assert!(!may_read(world, "bob", 1)));
}
