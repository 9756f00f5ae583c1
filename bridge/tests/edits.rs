//! Edits, deletions for everybody and stars: whose, until when, and what a device gets that was away.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its world does not hold")]

mod world;

use natter_bridge::blocks::Ask;
use natter_bridge::edits::{DELETE_SECS, EDIT_SECS};
use natter_bridge::engine::{Event, Request};
use natter_protocol::link::{Answer, Dialect, Down};
use natter_protocol::{ConnectionId, DeviceId, Seq};
use serde_json::{Value, json};
use world::{World, answers, entries, text, user};

fn edit(id: &str, to: &str, of: &str, body: &str) -> Value {
    json!({"id": id, "to": to, "type": "edit", "edit": {"message_id": of, "text": {"body": body}}})
}

fn delete(id: &str, to: &str, of: &str) -> Value {
    json!({"id": id, "to": to, "type": "delete", "delete": {"message_id": of}})
}

fn reaction(id: &str, to: &str, of: &str) -> Value {
    json!({"id": id, "to": to, "type": "reaction", "reaction": {"message_id": of, "emoji": "x"}})
}

/// The number it got, or the refusal's code and words.
fn said(frames: &[Down]) -> Result<u64, (u32, String)> {
    match answers(frames).as_slice() {
        [Answer::Message { n, .. }] => Ok(*n),
        [Answer::Refused { kind, details }] => Err((kind.code(), details.clone())),
        other => panic!("one answer, got {other:?}"),
    }
}

fn is_refused(frames: &[Down], code: u32, words: &str) {
    let (got, details) = said(frames).unwrap_err();
    assert!(got == code && details.contains(words), "{got} {details}");
}

struct Talk {
    world: World,
    alice: ConnectionId,
    bob: ConnectionId,
}

impl Talk {
    fn new() -> Self {
        let mut world = World::with_users(&["alice", "bob", "carol"]);
        let (alice, bob) = (world.device("alice", "phone").0, world.device("bob", "phone").0);
        Self { world, alice, bob }
    }

    fn alice(&mut self, payload: &Value) -> Vec<Down> {
        self.world.publish("alice", "phone", self.alice, payload)
    }

    fn bob(&mut self, payload: &Value) -> Vec<Down> {
        self.world.publish("bob", "phone", self.bob, payload)
    }

    /// What a device gets that was away until now, and acknowledges.
    fn comes(&mut self, name: &str, device: &str) -> Vec<Value> {
        let connection = self.world.connect(name, Dialect::Full, u32::MAX);
        let got = self.world.attach(name, device, connection);
        for seq in got.iter().filter_map(|entry| entry["seq"].as_u64()) {
            self.world.ack(name, connection, seq);
        }
        self.world.close(name, connection);
        got
    }

    fn away(&mut self, name: &str, device: &str) {
        let (connection, _) = self.world.device(name, device);
        self.world.close(name, connection);
    }
}

fn ids(entries: &[Value]) -> Vec<&str> {
    entries.iter().filter(|entry| entry["type"] != "status").filter_map(|entry| entry["id"].as_str()).collect()
}

#[test]
fn an_edit_and_a_deletion_name_whose_message_it_is_and_its_number() {
    let mut talk = Talk::new();
    talk.alice(&text("m1", "bob", "one"));
    let edited = entries(talk.alice(&edit("e1", "bob", "m1", "two"))).pop().unwrap();
    assert_eq!(edited["edit"], json!({"message_id": "m1", "from": "alice", "n": 1, "text": {"body": "two"}}));
    assert_eq!((&edited["n"], &edited["id"], &edited["type"]), (&json!(2), &json!("e1"), &json!("edit")));
    let deleted = entries(talk.alice(&delete("d1", "bob", "m1"))).pop().unwrap();
    assert_eq!(deleted["delete"], json!({"message_id": "m1", "from": "alice", "n": 1}));
    assert_eq!(said(&talk.alice(&delete("d1", "bob", "m1"))), Ok(3), "a repeat gets the first answer");
}

#[test]
fn one_edits_and_deletes_what_is_ones_own_and_only_for_a_while() {
    let mut talk = Talk::new();
    talk.alice(&text("m1", "bob", "one"));
    is_refused(&talk.bob(&edit("e1", "alice", "m1", "mine")), 1410, "a message of the chat");
    is_refused(&talk.bob(&edit("e1", "alice", "alice/m1", "mine")), 10, "an own message");
    is_refused(&talk.bob(&delete("d1", "alice", "alice/m1")), 10, "an own message");
    is_refused(&talk.alice(&edit("e1", "carol", "m1", "elsewhere")), 1410, "a message of the chat");

    talk.world.now.server_secs += EDIT_SECS;
    assert_eq!(said(&talk.alice(&edit("e1", "bob", "m1", "two"))), Ok(2));
    talk.world.now.server_secs += 1;
    is_refused(&talk.alice(&edit("e2", "bob", "m1", "three")), 10, "of the last 15 minutes");
    talk.world.now.server_secs += DELETE_SECS - EDIT_SECS;
    is_refused(&talk.alice(&delete("d1", "bob", "m1")), 10, "of the last 3600 minutes");
    talk.world.now.server_secs -= 1;
    assert_eq!(said(&talk.alice(&delete("d1", "bob", "m1"))), Ok(3));
}

#[test]
fn the_time_of_a_message_outlives_a_crash_and_the_journal() {
    for settles in [false, true] {
        let mut talk = Talk::new();
        talk.alice(&text("m1", "bob", "one"));
        talk.world.now.server_secs += EDIT_SECS + 1;
        if settles {
            talk.world.settle_everything();
        }
        let world = talk.world.crash();
        talk = Talk { world, ..talk };
        (talk.alice, talk.bob) = (talk.world.device("alice", "phone").0, talk.world.device("bob", "phone").0);
        is_refused(&talk.alice(&edit("e1", "bob", "m1", "two")), 10, "of the last 15 minutes");
        assert!(said(&talk.alice(&delete("d1", "bob", "m1"))).is_ok());
    }
}

#[test]
fn what_is_deleted_takes_no_edit_no_reaction_no_star_and_no_second_deletion() {
    let mut talk = Talk::new();
    talk.alice(&text("m1", "bob", "one"));
    talk.alice(&edit("e1", "bob", "m1", "two"));
    talk.alice(&delete("d1", "bob", "m1"));
    for settles in [false, true] {
        if settles {
            talk.world.settle_everything();
            talk.world = talk.world.crash();
            (talk.alice, talk.bob) = (talk.world.device("alice", "phone").0, talk.world.device("bob", "phone").0);
        }
        is_refused(&talk.alice(&edit("e2", "bob", "m1", "three")), 131_009, "one that was deleted");
        is_refused(&talk.alice(&delete("d2", "bob", "m1")), 131_009, "one that was deleted");
        is_refused(&talk.bob(&reaction("r1", "alice", "alice/m1")), 131_009, "one that was deleted");
        let star = json!({"status": "starred", "chat": "alice", "message_id": "m1"});
        is_refused(&talk.bob(&star), 131_009, "one that was deleted");
        // What says it is no message: who has not got it would not see what others do not any more.
        is_refused(&talk.alice(&delete("d3", "bob", "d1")), 131_009, "an edit or a deletion");
        is_refused(&talk.alice(&edit("e3", "bob", "e1", "three")), 131_009, "one that was deleted");
    }
    talk.alice(&text("m2", "bob", "one"));
    talk.alice(&edit("f1", "bob", "m2", "two"));
    is_refused(&talk.alice(&delete("d4", "bob", "f1")), 131_009, "an edit or a deletion");
}

#[test]
fn who_was_away_gets_the_deletion_alone_and_of_edits_the_last() {
    for settles in [false, true] {
        let mut talk = Talk::new();
        talk.away("bob", "laptop");
        talk.away("alice", "laptop");
        talk.alice(&text("m1", "bob", "secret"));
        talk.alice(&edit("e1", "bob", "m1", "more of it"));
        talk.alice(&text("m2", "bob", "one"));
        talk.alice(&edit("e2", "bob", "m2", "two"));
        talk.alice(&edit("e3", "bob", "m2", "three"));
        talk.alice(&edit("e4", "bob", "m1", "even more"));
        talk.alice(&delete("d1", "bob", "m1"));
        if settles {
            talk.world.settle_everything();
            talk.world = talk.world.crash();
        }
        for name in ["bob", "alice"] {
            let got = talk.comes(name, "laptop");
            assert_eq!(ids(&got), ["m2", "e3", "d1"], "{name}");
            assert!(!format!("{got:?}").contains("secret") && !format!("{got:?}").contains("more"), "{name}");
        }
        assert_eq!(ids(&talk.comes("bob", "laptop")), [""; 0], "and all of that is behind it");
    }
}

#[test]
fn a_viewer_a_page_and_what_was_kept_show_no_deleted_message() {
    let mut talk = Talk::new();
    talk.away("bob", "laptop");
    talk.alice(&text("m1", "bob", "secret"));
    talk.alice(&delete("d1", "bob", "m1"));
    let fetch = natter_bridge::inside::Fetch {
        user: user("bob"),
        device: DeviceId::parse("laptop").unwrap(),
        after: None,
        limit: 100,
    };
    talk.world.handle(Event::Request(9, Request::Fetch(fetch)));
    talk.world.engine.commit().unwrap();
    let mut released = natter_bridge::engine::Released::default();
    talk.world.engine.release(&mut talk.world.window, &mut released).unwrap();
    let page = format!("{:?}", released.replies);
    assert!(page.contains("d1") && !page.contains("secret"), "{page}");
}

#[test]
fn a_deletion_that_is_hidden_takes_nothing_from_who_has_blocked_its_sender() {
    let mut talk = Talk::new();
    talk.away("bob", "laptop");
    let got = entries(talk.alice(&text("m1", "bob", "one")));
    let seq = got[0]["seq"].as_u64().unwrap();
    talk.world.ack("bob", talk.bob, seq);
    talk.world.handle(Event::Request(9, Request::Blocks(Ask::Block(user("bob"), user("alice")))));
    talk.world.commit();
    // His phone has it, and goes on showing it.
    assert!(said(&talk.alice(&delete("d1", "bob", "m1"))).is_ok());
    assert_eq!(ids(&talk.comes("bob", "laptop")), ["m1"], "both devices show the same");
}

#[test]
fn a_star_goes_to_every_device_of_the_user_and_to_nobody_else() {
    let mut talk = Talk::new();
    talk.away("bob", "laptop");
    talk.alice(&text("m1", "bob", "one"));
    let frames = talk.bob(&json!({"status": "starred", "chat": "alice", "message_id": "m1"}));
    let got = entries(frames);
    let star = json!({"seq": got[0]["seq"], "prev": got[0]["prev"], "type": "status", "status": "starred", "chat": "alice",
        "from": "alice", "n": 1, "id": "m1", "timestamp": "1764000000"});
    assert_eq!(got, [star], "the acting device, and nobody else");
    talk.bob(&json!({"status": "unstarred", "chat": "alice", "message_id": "alice/m1"}));
    let got = talk.comes("bob", "laptop");
    let stars: Vec<&Value> = got.iter().map(|entry| &entry["status"]).filter(|status| !status.is_null()).collect();
    assert_eq!(stars, ["starred", "unstarred"]);
    is_refused(&talk.bob(&json!({"status": "starred", "chat": "carol", "message_id": "m1"})), 1410, "of the chat");
    let elsewhere = json!({"status": "starred", "chat": "carol", "message_id": "m1", "from": "alice"});
    is_refused(&talk.bob(&elsewhere), 1410, "of the chat");
}

#[test]
fn a_note_to_oneself_is_edited_and_deleted_too() {
    let mut talk = Talk::new();
    talk.away("alice", "laptop");
    talk.alice(&text("m1", "alice", "one"));
    talk.alice(&edit("e1", "alice", "m1", "two"));
    assert_eq!(ids(&talk.comes("alice", "laptop")), ["m1", "e1"]);
    talk.alice(&text("m2", "alice", "one"));
    talk.alice(&delete("d1", "alice", "m2"));
    assert_eq!(ids(&talk.comes("alice", "laptop")), ["d1"]);
}

#[test]
fn a_deleted_message_neither_fails_nor_leaves_a_gap_when_its_time_is_over() {
    let mut world = World::with_users(&["alice", "bob"]);
    let alice = world.device("alice", "phone").0;
    let (bob, _) = world.device("bob", "phone");
    world.close("bob", bob);
    world.publish("alice", "phone", alice, &text("m1", "bob", "one"));
    world.publish("alice", "phone", alice, &delete("d1", "bob", "m1"));
    world.settle_everything();
    let told = entries(world.sweep_after(31));
    let failed: Vec<&Value> =
        told.iter().filter(|entry| entry["status"] == "failed").map(|entry| &entry["id"]).collect();
    assert_eq!(failed, ["d1"], "{told:?}");
    let seqs = |got: &[Value]| got.iter().filter_map(|e| e["seq"].as_u64()).collect::<Vec<Seq>>();
    let (_, got) = world.device("bob", "phone");
    assert_eq!((got[0]["type"].as_str(), seqs(&got).len()), (Some("gap"), 1));
    assert_eq!(got[0]["from"], got[0]["to"], "of the deletion alone: {got:?}");
}
