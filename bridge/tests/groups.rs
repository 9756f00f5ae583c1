//! Groups: who may do what, who gets what, and that all members see one history.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where its world does not hold"
)]

mod world;

use natter_bridge::GroupLimits;
use natter_bridge::config::Limits;
use natter_bridge::engine::{Event, Reply, Request};
use natter_bridge::groups::{Ask, Told};
use natter_protocol::error::Kind;
use natter_protocol::link::{Answer, Dialect};
use natter_protocol::{ConnectionId, GroupId};
use serde_json::{Value, json};
use world::{World, answers, entries, text, user};

const GROUP: &str = "g:0123456789abcdef";

fn group() -> GroupId {
    GroupId::parse(&GROUP[2..]).unwrap()
}

/// Alice, Bob, Carol and Dave, each with a phone.
struct Group {
    world: World,
    phones: Vec<(&'static str, ConnectionId)>,
}

const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];

impl Group {
    /// A group of Alice, its admin, and these.
    fn of(users: &[&str]) -> Self {
        let mut world = World::with_users(&NAMES);
        let phones = NAMES.map(|name| (name, world.device(name, "phone").0)).to_vec();
        let mut this = Self { world, phones };
        let created = this
            .send("alice", &json!({"id": "made", "group": "create", "chat": GROUP, "subject": "Trip", "users": users}));
        assert!(created.is_ok(), "{created:?}");
        this.take_all();
        this
    }

    fn phone(&self, name: &str) -> ConnectionId {
        self.phones.iter().find(|(of, _)| *of == name).unwrap().1
    }

    /// Publishes; the number of the message, or why not.
    fn send(&mut self, name: &str, payload: &Value) -> Result<u64, (Kind, String)> {
        let said = self.world.publish(name, "phone", self.phone(name), payload);
        match answers(&said).first() {
            Some(Answer::Message { n, .. }) => Ok(*n),
            Some(Answer::Refused { kind, details }) => Err((*kind, details.clone())),
            other => panic!("{other:?}"),
        }
    }

    fn command(&mut self, name: &str, act: &str, users: &[&str]) -> Result<u64, (Kind, String)> {
        self.send(name, &json!({"group": act, "chat": GROUP, "users": users}))
    }

    /// Everything that a user has not acknowledged, acknowledged.
    fn take(&mut self, name: &str) -> Vec<Value> {
        let (phone, entries) = self.come_again(name);
        let last = entries.last().map(|entry| entry["seq"].as_u64().unwrap());
        if let Some(last) = last {
            self.world.ack(name, phone, last);
            for entry in &entries[..entries.len() - 1] {
                self.world.ack(name, phone, entry["seq"].as_u64().unwrap());
            }
        }
        entries
    }

    fn come_again(&mut self, name: &str) -> (ConnectionId, Vec<Value>) {
        self.world.close(name, self.phone(name));
        let (phone, entries) = self.world.device(name, "phone");
        self.phones.iter_mut().find(|(of, _)| *of == name).unwrap().1 = phone;
        (phone, entries)
    }

    fn take_all(&mut self) {
        for name in NAMES {
            self.take(name);
        }
    }

    /// What a user got of the group since he took last: number and what it is.
    fn lines(&mut self, name: &str) -> Vec<(u64, String)> {
        let of_group = self.take(name).into_iter().filter(|entry| entry["chat"] == GROUP && entry["type"] != "status");
        let line = |entry: Value| {
            let what = match entry["type"].as_str().unwrap() {
                "system" => {
                    let system = &entry["system"];
                    let users = if system["users"].is_null() { &system["user"] } else { &system["users"] };
                    assert_eq!(system["by"], entry["from"]);
                    format!("{} {users}", system["type"].as_str().unwrap())
                }
                "edit" => format!("edit {}", entry["edit"]["text"]["body"].as_str().unwrap()),
                "delete" => format!("delete {} {}", entry["delete"]["from"].as_str().unwrap(), entry["delete"]["n"]),
                _ => entry["text"]["body"].as_str().unwrap().to_owned(),
            };
            (entry["n"].as_u64().unwrap(), what)
        };
        of_group.map(line).collect()
    }

    fn ask(&mut self, ask: Ask) -> Told {
        self.world.handle(Event::Request(1, Request::Groups(ask)));
        self.world.engine.commit().unwrap();
        let mut released = natter_bridge::engine::Released::default();
        self.world.engine.release(&mut self.world.window, &mut released).unwrap();
        match released.replies.pop() {
            Some((_, Reply::Groups(told))) => told,
            other => panic!("{other:?}"),
        }
    }

    fn members(&mut self, asker: &str) -> Vec<(String, bool)> {
        match self.ask(Ask::Show(user(asker), group())) {
            Told::Group(group) => group.members.into_iter().map(|m| (m.user.to_string(), m.is_admin)).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Killed and started again, settled before or not.
    fn crash(self, settled: bool) -> Self {
        let Self { mut world, mut phones } = self;
        if settled {
            world.settle_everything();
        }
        let mut world = world.crash();
        for (name, phone) in &mut phones {
            *phone = world.device(name, "phone").0;
        }
        Self { world, phones }
    }
}

fn written(lines: &[(u64, &str)]) -> Vec<(u64, String)> {
    lines.iter().map(|(n, what)| (*n, (*what).to_owned())).collect()
}

#[test]
fn all_members_see_one_history_and_who_comes_later_the_rest_of_it() {
    for settled in [false, true] {
        let mut group = Group::of(&["bob", "carol"]);
        assert_eq!(group.send("bob", &text("m1", GROUP, "hi")), Ok(2));
        assert_eq!(group.command("alice", "add", &["dave", "bob"]), Ok(3));
        let mut group = group.crash(settled);
        assert_eq!(group.send("dave", &text("m1", GROUP, "hello")), Ok(4));
        assert_eq!(group.send("alice", &json!({"group": "change", "chat": GROUP, "subject": "Paris"})), Ok(5));
        let whole = [(2, "hi"), (3, "group_user_added \"dave\""), (4, "hello"), (5, "group_changed null")];
        assert_eq!(group.lines("carol"), written(&whole));
        assert_eq!(group.lines("alice"), written(&whole));
        // Own messages come back to other devices only, what was decided to all.
        assert_eq!(group.lines("bob"), written(&whole[1..]));
        assert_eq!(group.lines("dave"), written(&[whole[1], whole[3]]));
        let admins = [("alice", true), ("bob", false), ("carol", false), ("dave", false)];
        assert_eq!(group.members("dave"), admins.map(|(name, is_admin)| (name.to_owned(), is_admin)));
    }
}

#[test]
fn s36_s37_who_is_out_gets_the_line_that_says_so_and_nothing_behind_it() {
    for settled in [false, true] {
        let mut group = Group::of(&["bob", "carol"]);
        assert_eq!(group.send("alice", &text("m1", GROUP, "before")), Ok(2));
        assert_eq!(group.command("alice", "remove", &["bob"]), Ok(3));
        assert_eq!(group.send("carol", &text("m1", GROUP, "after")), Ok(4));
        let mut group = group.crash(settled);
        assert_eq!(group.send("alice", &text("m2", GROUP, "and more")), Ok(5));
        assert_eq!(group.lines("bob"), written(&[(2, "before"), (3, "group_user_removed \"bob\"")]));
        let (kind, _) = group.send("bob", &text("m9", GROUP, "still here")).unwrap_err();
        assert_eq!(kind, Kind::UnknownRecipient);
        assert_eq!(group.lines("bob"), []);
        assert_eq!(group.ask(Ask::Show(user("bob"), self::group())), Told::NotFound);
        assert_eq!(group.ask(Ask::List(user("bob"), None, 9)), Told::List(Vec::new()));
    }
}

#[test]
fn s52_a_group_that_one_is_not_in_is_as_one_that_is_not_there() {
    let mut group = Group::of(&["bob"]);
    assert_eq!(group.send("alice", &text("m1", GROUP, "secret")), Ok(2));
    let other = "g:fedcba9876543210";
    let tries = |to: &str| {
        [
            text("x", to, "hi"),
            json!({"group": "leave", "chat": to}),
            json!({"group": "add", "chat": to, "users": ["carol"]}),
            json!({"group": "change", "chat": to, "subject": "mine"}),
            json!({"status": "read", "chat": to, "n": 1}),
            json!({"id": "y", "to": to, "type": "reaction", "reaction": {"message_id": "m1", "from": "alice", "emoji": "+"}}),
        ]
    };
    for (there, not) in tries(GROUP).iter().zip(&tries(other)) {
        let (kind, details) = group.send("carol", there).unwrap_err();
        assert_eq!(kind, Kind::UnknownRecipient);
        assert_eq!(group.send("carol", not), Err((kind, details.replace(GROUP, other))), "{there}");
    }
    for ask in [Ask::Show, |user, group| Ask::Receipts(user, group, 2), Ask::Invite, Ask::NoInvite] {
        assert_eq!(group.ask(ask(user("carol"), self::group())), Told::NotFound);
    }
    assert_eq!(group.lines("alice"), []);
}

#[test]
fn who_comes_back_has_nothing_of_the_time_between() {
    for settled in [false, true] {
        let mut group = Group::of(&["bob"]);
        assert_eq!(group.send("alice", &text("m1", GROUP, "one")), Ok(2));
        assert_eq!(group.send("bob", &json!({"group": "leave", "chat": GROUP})), Ok(3));
        assert_eq!(group.send("alice", &text("m2", GROUP, "between")), Ok(4));
        assert_eq!(group.command("alice", "add", &["bob"]), Ok(5));
        assert_eq!(group.send("alice", &text("m3", GROUP, "again")), Ok(6));
        let mut group = group.crash(settled);
        let his = [(2, "one"), (3, "group_user_removed \"bob\""), (5, "group_user_added \"bob\""), (6, "again")];
        assert_eq!(group.lines("bob"), written(&his));
        let react = |id: &str, to: &str| json!({"id": id, "to": GROUP, "type": "reaction", "reaction": {"message_id": to, "emoji": "+"}});
        let (kind, _) = group.send("bob", &react("r1", "m2")).unwrap_err();
        assert_eq!(kind, Kind::Ambiguous, "it is not his");
        assert_eq!(group.send("bob", &react("r2", "m3")), Ok(7));
        let (kind, _) = group.send("bob", &react("r3", "m1")).unwrap_err();
        assert_eq!(kind, Kind::Ambiguous, "what he had before he left is his no more");
    }
}

#[test]
fn only_admins_change_a_group_and_one_is_always_there() {
    let mut group = Group::of(&["bob", "carol"]);
    for act in ["add", "remove", "promote", "demote"] {
        let (kind, details) = group.command("bob", act, &["dave"]).unwrap_err();
        assert_eq!(kind, Kind::NotAllowed, "{details}");
    }
    let (kind, _) = group.command("alice", "demote", &["alice"]).unwrap_err();
    assert_eq!(kind, Kind::InvalidValue);
    assert_eq!(group.command("alice", "promote", &["carol"]), Ok(2));
    assert_eq!(group.command("carol", "demote", &["alice"]), Ok(3));
    assert_eq!(group.command("alice", "add", &["dave"]).unwrap_err().0, Kind::NotAllowed);
    assert_eq!(group.command("carol", "add", &["dave"]), Ok(4));
    assert_eq!(group.send("carol", &json!({"id": "bye", "group": "leave", "chat": GROUP})), Ok(5));
    assert_eq!(group.members("bob")[0], ("alice".to_owned(), true), "who has been there longest, then by name");
    assert_eq!(group.lines("dave").last(), Some(&(6, "group_admin_added \"alice\"".to_owned())));
    assert_eq!(group.lines("carol").last(), Some(&(5, "group_user_removed \"carol\"".to_owned())));
    assert_eq!(group.send("carol", &json!({"id": "bye", "group": "leave", "chat": GROUP})), Ok(5), "a repeat");
    for name in ["alice", "bob", "dave"] {
        group.send(name, &json!({"group": "leave", "chat": GROUP})).unwrap();
    }
    assert_eq!(group.ask(Ask::Show(user("alice"), self::group())), Told::NotFound);
    let again = json!({"group": "create", "chat": GROUP, "subject": "Trip"});
    assert_eq!(group.send("alice", &again).unwrap_err().0, Kind::Conflict, "its numbers are used");
}

#[test]
fn a_command_is_done_once_and_says_what_is_wrong() {
    let mut group = Group::of(&["bob"]);
    let add = json!({"id": "a1", "group": "add", "chat": GROUP, "users": ["carol"]});
    assert_eq!(group.send("alice", &add), Ok(2));
    assert_eq!(group.send("alice", &add), Ok(2), "the first answer again");
    let other = json!({"id": "a1", "group": "add", "chat": GROUP, "users": ["dave"]});
    assert_eq!(group.send("alice", &other).unwrap_err().0, Kind::Conflict);
    assert_eq!(group.command("alice", "add", &["nobody-knows"]).unwrap_err().0, Kind::UnknownRecipient);
    assert_eq!(group.command("alice", "add", &["bob"]).unwrap_err().0, Kind::InvalidValue);
    assert_eq!(group.command("alice", "remove", &["dave"]).unwrap_err().0, Kind::InvalidValue);
    group
        .world
        .handle(Event::Request(0, Request::Blocks(natter_bridge::blocks::Ask::Block(user("dave"), user("alice")))));
    group.world.commit();
    assert_eq!(group.command("alice", "add", &["dave"]).unwrap_err().0, Kind::NotAllowed);
    assert_eq!(group.lines("bob"), written(&[(2, "group_user_added \"carol\"")]));
}

#[test]
fn groups_are_bounded_in_members_and_a_user_in_groups() {
    let limits = Limits { groups: GroupLimits { members_max: 3, groups_max: 2 }, ..Limits::default() };
    let mut world = World::with_limits(&NAMES, limits);
    let phones = NAMES.map(|name| (name, world.device(name, "phone").0)).to_vec();
    let mut group = Group { world, phones };
    let create = |id: &str, users: &[&str]| json!({"id": id, "group": "create", "subject": "x", "users": users});
    let (kind, details) = group.send("alice", &create("c1", &["bob", "carol", "dave"])).unwrap_err();
    assert_eq!((kind, details.contains("at most 3 members, got 1 and 3 more")), (Kind::Quota, true), "{details}");
    let make = |chat: &str, users: &[&str]| json!({"group": "create", "chat": chat, "subject": "x", "users": users});
    for chat in ["g:aaaaaaaaaaaaaaaaa1", "g:aaaaaaaaaaaaaaaaa2"] {
        assert_eq!(group.send("alice", &make(chat, &["bob"])), Ok(1));
    }
    assert_eq!(group.send("alice", &make("g:aaaaaaaaaaaaaaaaa3", &[])).unwrap_err().0, Kind::Quota);
    assert_eq!(
        group.send("carol", &make("g:aaaaaaaaaaaaaaaaa3", &["bob"])).unwrap_err().0,
        Kind::Quota,
        "Bob is in two"
    );
    assert_eq!(group.send("carol", &make("g:aaaaaaaaaaaaaaaaa3", &["dave"])), Ok(1));
}

#[test]
fn an_invite_link_brings_in_who_has_it_until_there_is_another() {
    for settled in [false, true] {
        let mut group = Group::of(&["bob"]);
        assert!(matches!(group.ask(Ask::NewInvite(user("bob"), self::group(), "x".into())), Told::Refused(_)));
        let told = group.ask(Ask::NewInvite(user("alice"), self::group(), "first".into()));
        assert_eq!(told, Told::Invite(Some("first".into())));
        let mut group = group.crash(settled);
        let join = |code: &str| json!({"group": "join", "invite": code});
        assert!(matches!(group.ask(Ask::Preview("first".into())), Told::Preview(about) if about.members_count == 2));
        assert_eq!(group.send("carol", &join("natter:join/first")), Ok(2));
        assert_eq!(group.send("carol", &join("first")).unwrap_err().0, Kind::InvalidValue, "she is in it");
        group.ask(Ask::NewInvite(user("alice"), self::group(), "second".into()));
        let mut group = group.crash(settled);
        assert_eq!(group.send("dave", &join("first")).unwrap_err().0, Kind::UnknownRecipient);
        assert_eq!(group.ask(Ask::Preview("first".into())), Told::NotFound);
        assert_eq!(group.send("dave", &join("second")), Ok(3));
        assert_eq!(group.ask(Ask::NoInvite(user("alice"), self::group())), Told::Invite(None));
        assert_eq!(group.ask(Ask::Invite(user("alice"), self::group())), Told::Invite(None));
        assert_eq!(group.ask(Ask::Preview("second".into())), Told::NotFound);
        assert_eq!(group.lines("bob"), written(&[(2, "group_user_added \"carol\""), (3, "group_user_added \"dave\"")]));
    }
}

fn edit(of: &str, body: &str) -> Value {
    json!({"to": GROUP, "type": "edit", "edit": {"message_id": of, "text": {"body": body}}})
}

fn delete(from: &str, of: &str) -> Value {
    json!({"to": GROUP, "type": "delete", "delete": {"message_id": of, "from": from}})
}

#[test]
fn members_edit_and_delete_their_own_and_an_admin_deletes_what_is_anybodys() {
    for settled in [false, true] {
        let mut group = Group::of(&["bob", "carol", "dave"]);
        group.send("bob", &text("m1", GROUP, "one")).unwrap();
        group.send("bob", &text("m2", GROUP, "two")).unwrap();
        group.send("carol", &text("m3", GROUP, "three")).unwrap();
        assert_eq!(group.send("bob", &edit("m1", "one and more")).unwrap(), 5);
        assert_eq!(group.send("alice", &edit("bob/m2", "mine")).unwrap_err().0, Kind::NotAllowed, "not even an admin");
        assert_eq!(group.send("bob", &delete("carol", "m3")).unwrap_err().0, Kind::NotAllowed);
        assert_eq!(group.send("alice", &delete("bob", "m2")).unwrap(), 6);
        assert_eq!(group.send("carol", &delete("carol", "m3")).unwrap(), 7);
        assert_eq!(group.send("alice", &delete("bob", "m2")).unwrap_err().0, Kind::InvalidValue);
        let mut group = group.crash(settled);
        let seen = written(&[(2, "one"), (5, "edit one and more"), (6, "delete bob 3"), (7, "delete carol 4")]);
        assert_eq!(group.lines("dave"), seen);
    }
}

#[test]
fn of_a_group_that_one_is_not_in_nothing_is_edited_deleted_or_starred() {
    let mut group = Group::of(&["bob"]);
    group.send("bob", &text("m1", GROUP, "one")).unwrap();
    let star = json!({"status": "starred", "chat": GROUP, "message_id": "m1", "from": "bob"});
    let elsewhere = |mut value: Value, member: &str| {
        value[member] = json!("g:fedcba9876543210");
        value
    };
    for (command, member) in [(edit("m1", "x"), "to"), (delete("bob", "m1"), "to"), (star.clone(), "chat")] {
        let (kind, details) = group.send("carol", &command).unwrap_err();
        let (other, words) = group.send("carol", &elsewhere(command, member)).unwrap_err();
        assert_eq!((kind, details.replace(GROUP, "G")), (other, words.replace("g:fedcba9876543210", "G")));
        assert_eq!(kind, Kind::UnknownRecipient);
    }
    // Who comes later, and be it as an admin, has nothing to say of what came before.
    group.command("alice", "add", &["carol"]).unwrap();
    group.command("alice", "promote", &["carol"]).unwrap();
    for command in [delete("bob", "m1"), star.clone(), delete("bob", "none")] {
        assert_eq!(group.send("carol", &command).unwrap_err().0, Kind::Ambiguous);
    }
    // And who is out hears of no deletion: his devices go on showing the same.
    group.take("alice");
    group.command("alice", "remove", &["bob"]).unwrap();
    assert_eq!(group.send("bob", &delete("bob", "m1")).unwrap_err().0, Kind::UnknownRecipient);
    let said = group.world.publish("alice", "phone", group.phone("alice"), &star);
    assert_eq!(answers(&said), [&Answer::Done]);
    group.send("alice", &delete("bob", "m1")).unwrap();
    let stars = |group: &mut Group, name| {
        let got = group.take(name);
        got.into_iter()
            .filter(|entry| entry["status"] == "starred")
            .map(|entry| entry["from"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!((stars(&mut group, "alice"), stars(&mut group, "carol")), (vec![json!("bob")], vec![]));
}

#[test]
fn what_is_deleted_when_one_is_out_stays_with_who_was_to_have_it() {
    for settled in [false, true] {
        let mut group = Group::of(&["bob", "carol"]);
        group.send("bob", &text("m1", GROUP, "one")).unwrap();
        group.command("alice", "remove", &["carol"]).unwrap();
        group.send("bob", &delete("bob", "m1")).unwrap();
        // What the group says of itself goes out in any case.
        let _ = group.send("alice", &delete("alice", "made"));
        let mut group = group.crash(settled);
        let removed = "group_user_removed \"carol\"";
        assert_eq!(group.lines("carol"), written(&[(2, "one"), (3, removed)]));
        assert!(!group.lines("alice").iter().any(|(_, what)| what == "one"));
    }
}

#[test]
fn of_a_batch_that_is_not_committed_no_member_is_in_or_out() {
    let mut group = Group::of(&["bob"]);
    group.world.is_full.store(true, std::sync::atomic::Ordering::Relaxed);
    let alice = group.phone("alice");
    let remove = json!({"group": "remove", "chat": GROUP, "users": ["bob"]});
    group.world.handle(Event::Up(user("alice"), world::publication("phone", alice, 7, &remove)));
    assert!(group.world.engine.commit().is_err());
    group.world.engine.abort(natter_protocol::error::NotNow::Unavailable).unwrap();
    group.world.is_full.store(false, std::sync::atomic::Ordering::Relaxed);
    let mut group = group.crash(false);
    assert_eq!(group.send("bob", &text("m1", GROUP, "here")), Ok(2));
}

#[test]
fn a_client_of_3_1_1_is_told_the_number_of_its_command() {
    let mut group = Group::of(&["bob"]);
    let old = group.world.connect("alice", Dialect::Bare, u32::MAX);
    group.world.attach("alice", "tablet", old);
    let said = group.world.publish(
        "alice",
        "tablet",
        old,
        &json!({"id": "p1", "group": "promote", "chat": GROUP, "users": ["bob"]}),
    );
    let live: Vec<Value> = said
        .iter()
        .filter_map(|down| match down {
            natter_protocol::link::Down::Live { payload, .. } => Some(serde_json::from_slice(payload).unwrap()),
            _ => None,
        })
        .collect();
    assert_eq!(live[0]["messages"], json!([{"id": "p1", "n": 2}]), "{live:?}");
    assert_eq!(entries(said)[0]["system"]["type"], "group_admin_added", "and the line, as every member");
}

#[test]
fn the_line_of_a_new_admin_has_a_name_that_no_message_has() {
    let mut group = Group::of(&["bob", "carol"]);
    group.send("alice", &json!({"group": "leave", "chat": GROUP})).unwrap();
    group.send("bob", &json!({"to": GROUP, "type": "text", "text": {"body": "hi"}})).unwrap();
    let entries = group.take("carol");
    let ids: Vec<&str> = entries.iter().map(|entry| entry["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3, "{entries:?}");
    assert!(ids[1].starts_with("system:"), "{ids:?}");
    assert!(!ids[0].starts_with("system:") && !ids[2].starts_with("system:"), "{ids:?}");
}

#[test]
fn a_read_mark_for_ones_other_devices_names_a_message_of_somebody_else() {
    let mut group = Group::of(&["bob"]);
    let (tablet, _) = group.world.device("bob", "tablet");
    assert_eq!(group.send("alice", &text("a1", GROUP, "hi")), Ok(2));
    for (i, n) in (3..73).enumerate() {
        assert_eq!(group.send("bob", &text(&format!("b{i}"), GROUP, "ho")), Ok(n));
    }
    let bob = group.phone("bob");
    let said = group.world.publish("bob", "phone", bob, &json!({"status": "read", "chat": GROUP, "n": 72}));
    assert!(matches!(answers(&said)[..], [Answer::Done]), "{said:?}");
    group.world.close("bob", tablet);
    let (_, seen) = group.world.device("bob", "tablet");
    let marks: Vec<&Value> = seen.iter().filter(|entry| entry["status"] == "read").collect();
    assert_eq!(marks.len(), 1, "{marks:?}");
    assert_eq!((&marks[0]["id"], &marks[0]["n"]), (&json!("a1"), &json!(2)), "{marks:?}");
}

#[test]
fn a_line_that_says_what_changed_is_neither_edited_nor_deleted() {
    let mut group = Group::of(&["bob"]);
    for (id, kind, what) in [
        ("e1", "edit", json!({"message_id": "made", "text": {"body": "x"}})),
        ("d1", "delete", json!({"message_id": "made"})),
    ] {
        let mut payload = json!({"id": id, "to": GROUP, "type": kind});
        payload[kind] = what;
        let (refused, details) = group.send("alice", &payload).unwrap_err();
        assert_eq!(
            (refused, details.contains("a line that says what changed")),
            (Kind::InvalidValue, true),
            "{details}"
        );
    }
    assert_eq!(group.send("alice", &text("m1", GROUP, "hi")), Ok(2));
}
