//! Groups over HTTP: the real server, with MQTT clients in the same groups, who see the same history.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use std::collections::BTreeSet;

use common::{Answer, Client, Device, TestServer};
use serde_json::{Value, json};

/// The group that alice has made with these users.
#[track_caller]
fn created(alice: &Client, users: &[&str]) -> String {
    let group = alice.post("/v1/groups", &json!({"subject": "Trip", "users": users})).ok();
    group["group"].as_str().unwrap().to_owned()
}

/// What an entry says has changed, in which number of the group's history.
#[track_caller]
fn system(entry: &Value, group: &str) -> (u64, String, Value) {
    assert_eq!((&entry["chat"], &entry["type"]), (&json!(group), &json!("system")), "{entry}");
    let system = &entry["system"];
    let who = if system["users"].is_array() { &system["users"] } else { &system["user"] };
    (entry["n"].as_u64().unwrap(), system["type"].as_str().unwrap().to_owned(), who.clone())
}

/// Who is in it, admins with a star.
#[track_caller]
fn members(who: &Client, group: &str) -> Vec<String> {
    let shown = who.get(&format!("/v1/groups/{group}")).ok();
    let all = shown["members"].as_array().unwrap();
    assert_eq!(shown["members_count"], all.len());
    let star = |member: &Value| if member["admin"] == true { "*" } else { "" };
    all.iter().map(|member| format!("{}{}", member["user"].as_str().unwrap(), star(member))).collect()
}

fn delete(who: &Client, path: &str) -> Answer {
    who.request("DELETE", path, &[], b"")
}

#[test]
fn the_whole_life_of_a_group_is_one_history_for_all_of_its_members() {
    let mut server = TestServer::with_users(&["alice", "bob", "carol"]);
    let (mut bob, mut carol) = (Device::v5(&server, "bob", "phone"), Device::v3(&server, "carol", "phone"));
    let alice = Client::of(&server, "alice");
    let of_bob = Client::of(&server, "bob");
    alice.get("/messages").ok();

    let made =
        alice.post("/v1/groups", &json!({"subject": "Trip", "description": "to the sea", "users": ["bob"]})).ok();
    let group = made["group"].as_str().unwrap();
    assert!(group.starts_with("g:") && group.len() == 34, "{made}");
    assert_eq!(
        (&made["subject"], &made["description"], &made["members_count"], &made["created_by"]),
        (&json!("Trip"), &json!("to the sea"), &json!(2), &json!("alice"))
    );
    assert_eq!(members(&alice, group), ["alice*", "bob"]);
    assert_eq!(system(&bob.entry(), group), (1, "group_created".into(), json!("bob")));

    let path = format!("/v1/groups/{group}");
    let added = alice.post(&format!("{path}/members"), &json!({"users": ["carol"]})).ok();
    assert_eq!((&added["success"], &added["n"]), (&json!(true), &json!(2)));
    for device in [&mut bob, &mut carol] {
        let entry = device.entry();
        assert_eq!(system(&entry, group), (2, "group_user_added".into(), json!("carol")));
        assert_eq!((&entry["id"], &entry["system"]["subject"]), (&added["id"], &json!("Trip")));
    }
    // A member without rights says something, and changes nothing.
    assert_eq!(bob.send(group, "m3", "hello"), 3);
    let entry = carol.entry();
    assert_eq!((&entry["from"], &entry["chat"], &entry["n"]), (&json!("bob"), &json!(group), &json!(3)));
    of_bob.request("PATCH", &path, &[], b"{\"subject\":\"Mine\"}").refused(403, 10);
    of_bob.request("PUT", &format!("{path}/admins/bob"), &[], b"").refused(403, 10);
    delete(&of_bob, &format!("{path}/members/carol")).refused(403, 10);

    let promoted = alice.request("PUT", &format!("{path}/admins/bob"), &[], b"").ok();
    assert_eq!(promoted["n"], 4);
    let again = alice.request("PUT", &format!("{path}/admins/bob"), &[], b"").ok();
    assert_eq!(again, json!({"success": true}), "he is one already");
    assert_eq!(system(&carol.entry(), group), (4, "group_admin_added".into(), json!("bob")));
    assert_eq!(of_bob.request("PATCH", &path, &[], b"{\"subject\":\"Ours\",\"description\":\"\"}").ok()["n"], 5);
    let entry = carol.entry();
    assert_eq!(system(&entry, group), (5, "group_changed".into(), Value::Null));
    assert_eq!((&entry["system"]["subject"], &entry["system"]["by"]), (&json!("Ours"), &json!("bob")));
    let shown = alice.get(&path).ok();
    assert_eq!((&shown["subject"], shown.get("description")), (&json!("Ours"), None));

    assert_eq!(delete(&alice, &format!("{path}/members/carol")).ok()["n"], 6);
    assert_eq!(system(&carol.entry(), group), (6, "group_user_removed".into(), json!("carol")));
    assert_eq!(delete(&alice, &format!("{path}/members/carol")).ok(), json!({"success": true}), "she is out already");
    delete(&alice, &format!("{path}/admins/alice")).ok();
    assert_eq!(delete(&of_bob, &format!("{path}/admins/bob")).status, 400, "there would be none");
    // The last admin leaves, and there is one still.
    delete(&of_bob, &format!("{path}/members/bob")).ok();
    of_bob.get(&path).refused(404, 131_026);
    assert_eq!(members(&alice, group), ["alice*"]);

    // All that alice's device has is in one order, and a kill changes nothing.
    server.kill9();
    server.restart();
    let alice = Client { address: server.http(), ..alice };
    let page = alice.get("/messages").ok();
    let of_group: Vec<u64> = page["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["chat"] == *group && entry["type"] != "status")
        .map(|entry| entry["n"].as_u64().unwrap())
        .collect();
    assert_eq!(of_group, (1..=of_group.len() as u64).collect::<Vec<_>>(), "{page}");
    let listed = alice.get("/v1/groups").ok();
    assert_eq!((&listed["groups"][0]["group"], &listed["groups"][0]["members_count"]), (&json!(group), &json!(1)));
    // Who goes last puts out the light.
    delete(&alice, &format!("/v1/groups/{group}/members/alice")).ok();
    alice.get(&format!("/v1/groups/{group}")).refused(404, 131_026);
    assert_eq!(alice.get("/v1/groups").ok(), json!({"groups": []}));
    carol.reconnect(&server);
    alice.post("/messages", &json!({"reciever_ID": "carol", "text": "bye"})).ok();
    assert_eq!(carol.entry()["text"]["body"], "bye", "nothing of the group comes after her end");
}

#[test]
fn s52_of_a_group_that_one_is_not_in_everything_looks_as_if_it_were_not_there() {
    let server = TestServer::with_users(&["alice", "bob", "mallory"]);
    let (alice, mallory) = (Client::of(&server, "alice"), Client::of(&server, "mallory"));
    let group = created(&alice, &["bob"]);
    alice.post(&format!("/v1/groups/{group}/invite_link"), &json!({})).ok();
    // As long as the other, and nobody's.
    let nowhere = format!("g:{}", "0".repeat(32));
    let calls: [(&str, &str, Value); 17] = [
        ("GET", "", json!({})),
        ("PATCH", "", json!({"subject": "Mine"})),
        ("PATCH", "", json!({"subject": ""})),
        ("POST", "/members", json!({"users": ["mallory"]})),
        ("POST", "/members", json!({"users": ["bob"]})),
        ("POST", "/members", json!({"users": ["nobody-knows-him"]})),
        ("DELETE", "/members/bob", json!({})),
        ("DELETE", "/members/mallory", json!({})),
        ("DELETE", "/members/nobody-knows-him", json!({})),
        ("PUT", "/admins/bob", json!({})),
        ("DELETE", "/admins/alice", json!({})),
        ("GET", "/invite_link", json!({})),
        ("POST", "/invite_link", json!({})),
        ("DELETE", "/invite_link", json!({})),
        ("GET", "/messages/1/receipts", json!({})),
        ("GET", "/messages/99/receipts", json!({})),
        ("GET", "/messages/x/receipts", json!({})),
    ];
    for (method, rest, body) in &calls {
        let call = |group: &str| {
            let answer =
                mallory.request(method, &format!("/v1/groups/{group}{rest}"), &[], body.to_string().as_bytes());
            let headers: Vec<_> = answer.headers.into_iter().filter(|(name, _)| name != "date").collect();
            (answer.status, headers, String::from_utf8(answer.body).unwrap())
        };
        let (there, not_there) = (call(&group), call(&nowhere));
        let (status, headers, text) = not_there;
        assert_eq!(there, (status, headers, text.replace(&nowhere, &group)), "{method} {rest}");
        let is_bad_whatever_it_is_of = rest.contains("/x/") || *body == json!({"subject": ""});
        assert_eq!(there.0, if is_bad_whatever_it_is_of { 400 } else { 404 }, "{method} {rest}: {}", there.2);
    }
    // A name that is none at all, and messages by every way of sending.
    for bad in ["g:", "g%3A", "a%20b", &"x".repeat(65)] {
        mallory.get(&format!("/v1/groups/{bad}")).refused(404, 131_026);
    }
    for (path, body) in [
        ("/messages", json!({"reciever_ID": "GROUP", "text": "hi"})),
        ("/v1/messages", json!({"recipient_type": "group", "to": "GROUP", "type": "text", "text": {"body": "hi"}})),
        (
            "/v24.0/mallory/messages",
            json!({"recipient_type": "group", "to": "GROUP", "type": "text", "text": {"body": "hi"}}),
        ),
    ] {
        let call = |group: &str| {
            let body: Value = serde_json::from_str(&body.to_string().replace("GROUP", group)).unwrap();
            let answer = mallory.post(path, &body);
            (answer.status, String::from_utf8(answer.body).unwrap())
        };
        let (status, text) = call(&nowhere);
        assert_eq!(call(&group), (status, text.replace(&nowhere, &group)), "{path}");
        assert!(status == 404 || path.starts_with("/v24.0") && status == 400, "{path}: {status} {text}");
    }
    assert_eq!(members(&alice, &group), ["alice*", "bob"]);
    assert_eq!(alice.get(&format!("/v1/groups/{group}")).ok()["subject"], "Trip");
}

#[test]
fn a_retry_of_a_command_is_answered_like_the_first_time() {
    let mut server = TestServer::with_users(&["alice", "bob", "carol"]);
    let alice = Client::of(&server, "alice");
    let body = json!({"subject": "Trip", "users": ["bob"]}).to_string();
    let keyed =
        |alice: &Client, key: &str| alice.request("POST", "/v1/groups", &[("Idempotency-Key", key)], body.as_bytes());
    let once = keyed(&alice, "order 42/7").ok();
    assert_eq!(keyed(&alice, "order 42/7").ok(), once);
    assert_ne!(keyed(&alice, "order 42/8").ok()["group"], once["group"]);
    assert_ne!(keyed(&Client::of(&server, "bob"), "order 42/7").ok()["group"], once["group"], "his key is his");
    let group = once["group"].as_str().unwrap();
    let add = json!({"users": ["carol"], "id": "a1"});
    let added = alice.post(&format!("/v1/groups/{group}/members"), &add).ok();

    server.kill9();
    server.restart();
    let alice = Client { address: server.http(), ..alice };
    assert_eq!(alice.post(&format!("/v1/groups/{group}/members"), &add).ok(), added, "after a crash");
    let without_id = json!({"users": ["carol", "bob"]});
    assert_eq!(alice.post(&format!("/v1/groups/{group}/members"), &without_id).ok(), json!({"success": true}));
    let other = json!({"subject": "Other", "users": ["bob"]}).to_string();
    let conflict = alice.request("POST", "/v1/groups", &[("Idempotency-Key", "order 42/7")], other.as_bytes());
    conflict.refused(409, 1409);
    let made = alice.get("/v1/groups").ok();
    assert_eq!(made["groups"].as_array().unwrap().len(), 2, "{made}");
}

#[test]
fn an_invite_link_lets_people_in_until_there_is_another() {
    let server = TestServer::with_users(&["alice", "bob", "carol"]);
    let clients = ["alice", "bob", "carol"].map(|name| Client::of(&server, name));
    let [alice, bob, carol] = &clients;
    let group = created(alice, &["bob"]);
    let path = format!("/v1/groups/{group}/invite_link");
    assert_eq!(alice.get(&path).ok(), json!({}), "there is none from the beginning");
    bob.post(&path, &json!({})).refused(403, 10);
    bob.get(&path).refused(403, 10);
    let link = |answer: Value| answer["invite_link"].as_str().unwrap().to_owned();
    let first = link(alice.post(&path, &json!({})).ok());
    assert_eq!((link(alice.get(&path).ok()), first.starts_with("natter:join/")), (first.clone(), true));
    let of_code = |link: &str| format!("/v1/groups/invites/{}", link.strip_prefix("natter:join/").unwrap());

    let shown = carol.get(&of_code(&first)).ok();
    assert_eq!(
        (&shown["group"], &shown["subject"], &shown["members_count"]),
        (&json!(group), &json!("Trip"), &json!(2))
    );
    assert!(shown.get("members").is_none(), "who is in it, members know");
    let joined = carol.post("/v1/groups/join", &json!({"invite_link": first})).ok();
    assert_eq!((&joined["group"], &joined["success"]), (&json!(group), &json!(true)));
    assert_eq!(members(carol, &group), ["alice*", "bob", "carol"]);

    // A new one ends the old one, also for those who were in by it.
    delete(alice, &format!("/v1/groups/{group}/members/carol")).ok();
    let second = link(alice.post(&path, &json!({})).ok());
    assert_ne!(first, second);
    carol.post("/v1/groups/join", &json!({"invite_link": first})).refused(404, 131_026);
    carol.get(&of_code(&first)).refused(404, 131_026);
    carol.get(&format!("/v1/groups/{group}")).refused(404, 131_026);
    let code = second.strip_prefix("natter:join/").unwrap();
    carol.post("/v1/groups/join", &json!({"invite_link": code})).ok();

    assert_eq!(delete(alice, &path).ok(), json!({}));
    assert_eq!(delete(alice, &path).ok(), json!({}));
    delete(carol, &format!("/v1/groups/{group}/members/carol")).ok();
    carol.post("/v1/groups/join", &json!({"invite_link": second})).refused(404, 131_026);
    for bad in [json!({}), json!({"invite_link": 5})] {
        carol.post("/v1/groups/join", &bad).refused(400, 100);
    }
    carol.post("/v1/groups/join", &json!({"invite_link": "a b"})).refused(400, 131_009);
    assert_eq!(members(alice, &group), ["alice*", "bob"]);
}

#[test]
fn receipts_tell_the_sender_of_each_member() {
    let server = TestServer::with_users(&["alice", "bob", "carol", "dave"]);
    let (mut bob, mut carol) = (Device::v5(&server, "bob", "phone"), Device::v5(&server, "carol", "phone"));
    let alice = Client::of(&server, "alice");
    let group = created(&alice, &["bob", "carol"]);
    bob.entry();
    carol.entry();
    let cloud = json!({"messaging_product": "whatsapp", "recipient_type": "group", "to": group, "type": "text", "text": {"body": "hi"}, "id": "m2"});
    alice.post("/v24.0/alice/messages", &cloud).ok();
    alice.post(&format!("/v1/groups/{group}/members"), &json!({"users": ["dave"]})).ok();
    let (packet_id, entry) = carol.entry_without_ack();
    assert_eq!((&entry["id"], &entry["n"]), (&json!("m2"), &json!(2)));
    assert_eq!(bob.entry()["id"], "m2");
    bob.mark_read(&group, 2);
    let path = format!("/v1/groups/{group}/messages/2/receipts");
    let tick = |user: &str, delivered, read| json!({"user": user, "delivered": delivered, "read": read});
    let told = alice.get(&path).ok();
    let expected = json!({"delivered_to": 1, "read_by": 1, "of": 2,
        "receipts": [tick("bob", true, true), tick("carol", false, false)]});
    assert_eq!(told, expected, "dave has joined behind it");
    carol.raw.ack(packet_id);
    carol.raw.ping();
    let told = alice.get(&path).ok();
    assert_eq!((&told["delivered_to"], &told["read_by"], &told["of"]), (&json!(2), &json!(1), &json!(2)));
    // What others have sent, and what tells of changes, is nobody's to ask about.
    assert_eq!(bob.send(&group, "m4", "yes"), 4);
    for other in ["4", "99"] {
        let refused = alice.get(&format!("/v1/groups/{group}/messages/{other}/receipts"));
        assert!([403, 404].contains(&refused.status), "{refused:?}");
    }
    assert!([403, 404].contains(&Client::of(&server, "bob").get(&path).status));
    // Who is out, is out of the counts.
    delete(&alice, &format!("/v1/groups/{group}/members/carol")).ok();
    assert_eq!(alice.get(&path).ok()["of"], 1);
}

#[test]
fn limits_are_told_and_lists_come_in_pages() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let alice = Client::of(&server, "alice");
    for (body, word) in [
        (json!({}), "subject"),
        (json!({"subject": ""}), "subject: expected 1 to 100"),
        (json!({"subject": "x".repeat(101)}), "subject: expected 1 to 100"),
        (json!({"subject": "x", "description": "x".repeat(2049)}), "description: expected 0 to 2048"),
        (json!({"subject": "x", "users": "bob"}), "users: expected 0 to 256"),
        (json!({"subject": "x", "users": vec!["bob"; 257]}), "users: expected 0 to 256 users, got 257"),
        (json!({"subject": "x", "users": ["A B"]}), "users[0]"),
    ] {
        let answer = alice.post("/v1/groups", &body);
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(answer.status == 400 && detail.starts_with(word), "{body}: {answer:?}");
    }
    // All of them, or nobody.
    alice.post("/v1/groups", &json!({"subject": "x", "users": ["bob", "nobody-knows-him"]})).refused(404, 131_026);
    assert_eq!(alice.get("/v1/groups").ok(), json!({"groups": []}));
    let made: BTreeSet<String> = (0..5).map(|_| created(&alice, &[])).collect();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = alice.get(&format!("/v1/groups?limit=2{after}")).ok();
        seen.extend(page["groups"].as_array().unwrap().iter().map(|group| group["group"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen, made.into_iter().collect::<Vec<_>>(), "each once, in order");
    for limit in ["0", "101"] {
        alice.get(&format!("/v1/groups?limit={limit}")).refused(400, 131_009);
    }
    alice.get("/v1/groups?after=a%20b").refused(400, 131_009);
}

#[test]
fn a_group_takes_1024_members_and_not_one_more() {
    let server = TestServer::start();
    let names: Vec<String> = (0..1025).map(|i| format!("u{i:04}")).collect();
    server.add_users(&names);
    let first = Client::of(&server, "u0000");
    let made = first.post("/v1/groups", &json!({"subject": "All", "users": names[1..=200]})).ok();
    let group = made["group"].as_str().unwrap();
    let path = format!("/v1/groups/{group}/members");
    for part in names[201..1024].chunks(256) {
        first.post(&path, &json!({"users": part})).ok();
    }
    let refused = first.post(&path, &json!({"users": names[1024..]}));
    assert!(refused.refused(429, 130_429).contains("1024"), "{refused:?}");
    let shown = first.get(&format!("/v1/groups/{group}")).ok();
    assert_eq!((&shown["members_count"], shown["members"].as_array().unwrap().len()), (&json!(1024), 1024));
    delete(&first, &format!("{path}/u0001")).ok();
    first.post(&path, &json!({"users": names[1024..]})).ok();
}
