//! Presence end to end: the real server, real sockets, and its time passed by hand.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use std::time::Instant;

use common::{Client, Device, TestServer, patience};
use serde_json::{Value, json};

/// A server whose users have each other as contacts.
fn friends(names: &[&str], config: &str) -> TestServer {
    let server = TestServer::start_with(config);
    names.iter().for_each(|name| server.add_user(name));
    for name in names {
        let client = Client::of(&server, name);
        for other in names.iter().filter(|other| *other != name) {
            client.request("PUT", &format!("/v1/contacts/{other}"), &[], b"{}").ok();
        }
    }
    server
}

fn watch(device: &mut Device, other: &str) {
    let (reason, _) = device.publish(&json!({"status": "watch", "chat": other}));
    assert_eq!(reason, 0, "PUBACK");
}

/// What HTTP says of `user`.
fn seen(server: &TestServer, by: &str, user: &str) -> Value {
    Client::of(server, by).get(&format!("/v1/presence/{user}")).ok()
}

/// Lets time pass until `user` is away, whose end the server notices when it does.
fn pass_until_away(server: &TestServer, by: &str, user: &str) -> Value {
    let deadline = Instant::now() + patience();
    loop {
        server.pass_time(10);
        let seen = seen(server, by, user);
        if seen["presence"] == "unavailable" {
            return seen;
        }
        assert!(Instant::now() < deadline, "{user} is there for ever");
    }
}

#[test]
fn who_watches_is_told_who_comes_and_goes_and_last_seen_survives_a_kill() {
    let mut server = friends(&["alice", "bob"], "");
    for v5 in [true, false] {
        let mut alice = if v5 { Device::v5(&server, "alice", "phone") } else { Device::v3(&server, "alice", "tablet") };
        watch(&mut alice, "bob");
        let first = alice.live();
        assert_eq!((&first["from"], &first["presence"]), (&json!("bob"), &json!("unavailable")));
        assert_eq!(first.get("last_seen").is_some(), !v5, "he was there the second time: {first}");
        let bob = Device::v3(&server, "bob", "phone");
        let told = alice.live();
        assert_eq!(told, json!({"type": "presence", "from": "bob", "chat": "bob", "presence": "available"}));
        assert_eq!(seen(&server, "alice", "bob"), json!({"user": "bob", "presence": "available"}));
        drop(bob);
        let away = pass_until_away(&server, "alice", "bob");
        let told = alice.live();
        assert_eq!((&told["presence"], &told["last_seen"]), (&json!("unavailable"), &away["last_seen"]));
        assert!(away["last_seen"].as_str().is_some_and(|at| at.parse::<u64>().unwrap() > 1_700_000_000), "{away}");
        server.kill9();
        server.restart();
        assert_eq!(seen(&server, "alice", "bob"), away);
    }
    assert_eq!(Client::of(&server, "alice").get("/v1/presence/nobody").status, 404);
}

#[test]
fn the_app_says_whether_it_is_in_front() {
    let server = friends(&["alice", "bob"], "");
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut bob = Device::v5(&server, "bob", "phone");
    watch(&mut alice, "bob");
    assert_eq!(alice.live()["presence"], "available");
    bob.publish(&json!({"status": "unavailable"}));
    server.pass_time(10);
    assert_eq!(alice.live()["presence"], "unavailable");
    // At QoS 0 too.
    let bytes = bob.raw.publish_bytes(&bob.outbox(), 0, 0, br#"{"status":"available"}"#);
    bob.raw.send(&bytes);
    assert_eq!(alice.live()["presence"], "available");
    alice.publish(&json!({"status": "unwatch", "chat": "bob"}));
    bob.publish(&json!({"status": "unavailable"}));
    server.pass_time(20);
    bob.publish(&json!({"status": "typing", "chat": "alice"}));
    assert_eq!(alice.live()["type"], "typing", "nothing before it");
}

#[test]
fn privacy_takes_effect_on_those_who_watch_and_hidden_looks_like_never() {
    let server = friends(&["alice", "bob", "never"], "");
    let (of_alice, of_bob) = (Client::of(&server, "alice"), Client::of(&server, "bob"));
    let put = |client: &Client, rules: &Value| {
        client.request("PUT", "/v1/privacy", &[("content-type", "application/json")], rules.to_string().as_bytes())
    };
    let default = json!({"who": "contacts"});
    assert_eq!(of_bob.get("/v1/privacy").ok(), json!({"last_seen": default, "online": default, "status": default}));
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut bob = Device::v5(&server, "bob", "phone");
    watch(&mut alice, "bob");
    assert_eq!(alice.live()["presence"], "available");
    let nobody = json!({"online": {"who": "nobody"}, "last_seen": {"who": "except", "users": ["alice"]}});
    put(&of_bob, &nobody).ok();
    assert_eq!(alice.live(), json!({"type": "presence", "from": "bob", "chat": "bob", "presence": "unavailable"}));
    let shown = of_bob.get("/v1/privacy").ok();
    assert_eq!((&shown["online"], &shown["last_seen"]), (&nobody["online"], &nobody["last_seen"]));
    bob.publish(&json!({"status": "unavailable"}));
    server.pass_time(20);
    let never = of_alice.get("/v1/presence/never");
    let hidden = of_alice.get("/v1/presence/bob");
    assert_eq!(String::from_utf8(hidden.body).unwrap().replace("bob", "never"), String::from_utf8(never.body).unwrap());
    watch(&mut bob, "alice");
    assert_eq!(bob.live()["presence"], "unavailable", "who hides it sees none");

    let many: Vec<String> = (0..10_000).map(|i| format!("{i:064}")).collect();
    put(&of_bob, &json!({"status": {"who": "only", "users": many}})).ok();
    assert_eq!(of_bob.get("/v1/privacy").ok()["status"]["users"].as_array().unwrap().len(), 10_000);
    for (rules, code) in [
        (json!({"status": {"who": "everyone"}}), 131_009),
        (json!({"status": {"who": "only"}}), 131_009),
        (json!({"online": {"who": "friends"}}), 131_009),
        (json!({"photo": {"who": "nobody"}}), 100),
    ] {
        put(&of_bob, &rules).refused(400, code);
    }
}

#[test]
fn one_watch_too_many_is_refused_with_words() {
    let server = friends(&["alice", "bob", "carol"], "[bridge]\nwatches_max = 1\n");
    let mut alice = Device::v5(&server, "alice", "phone");
    watch(&mut alice, "bob");
    let (reason, properties) = alice.publish(&json!({"status": "watch", "chat": "carol"}));
    assert_eq!(reason, 0x97);
    assert!(format!("{properties:?}").contains("expected at most 1 that a connection watches"), "{properties:?}");
    let mut bob = Device::v3(&server, "bob", "phone");
    watch(&mut bob, "alice");
    assert_eq!(bob.live()["presence"], "available");
    watch(&mut bob, "carol");
    let failed = bob.live();
    assert_eq!((&failed["status"], &failed["errors"][0]["code"]), (&json!("failed"), &json!(130_429)));
}
