//! Several devices of a user end to end: listed, linked by a one-time code, and unlinked while they talk.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use std::thread;

use common::{Client, Connect, Device, TestServer, assert_text};
use serde_json::{Value, json};

/// A client with a token of its own.
fn with(server: &TestServer, token: &str) -> Client {
    Client { address: server.http(), token: Some(token.to_owned()) }
}

/// A code that `client` asks for.
#[track_caller]
fn code(client: &Client) -> String {
    let answer = client.post("/v1/devices/codes", &json!({}));
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["code"].as_str().unwrap().to_owned()
}

/// The token of a device that is linked.
#[track_caller]
fn link(server: &TestServer, code: &str, device: &str) -> String {
    let asked = json!({"user": "bob", "code": code, "device": device, "label": "Work"});
    let answer = Client::nobody(server).post("/v1/devices", &asked);
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.json()["user"], "bob");
    answer.json()["token"].as_str().unwrap().to_owned()
}

fn listed(client: &Client) -> Vec<Value> {
    client.get("/v1/devices").ok()["devices"].as_array().unwrap().clone()
}

fn connect(server: &TestServer, token: &str, device: &str) -> Device {
    Device::open(server.mqtt(), Connect::v5("bob", &format!("bob-{device}"), token).keeping_its_session(), device)
}

#[test]
fn a_device_is_linked_by_a_code_listed_and_gets_what_arrives() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let phone_token = server.token_with("bob", &["--device", "phone"]);
    let mut phone = connect(&server, &phone_token, "phone");
    let of_phone = with(&server, &phone_token);
    let code = code(&Client::of(&server, "bob"));
    let token = link(&server, &code.to_lowercase(), "laptop");
    // From the linking on, what arrives waits for it.
    let mut alice = Device::v5(&server, "alice", "phone");
    alice.send("bob", "m1", "hi");
    assert_text(&phone.entry(), "alice", "hi");
    phone.raw.ping();
    let mut laptop = connect(&server, &token, "laptop");
    assert_text(&laptop.entry(), "alice", "hi");

    let all = listed(&of_phone);
    let brief: Vec<_> = all.iter().map(|d| (&d["device"], &d["label"], &d["connected"], &d["current"])).collect();
    let (yes, no) = (&json!(true), &json!(false));
    assert_eq!(brief, [(&json!("laptop"), &json!("Work"), yes, no), (&json!("phone"), &Value::Null, yes, yes)]);
    for device in &all {
        for time in ["linked_at", "connected_since", "last_seen"] {
            assert!(device[time].as_str().unwrap().parse::<u64>().unwrap() > 1_700_000_000, "{device}");
        }
    }
    // The token is one of that device alone, and is renewed as any other.
    let mut other = Connect::v5("bob", "x", &token).open(server.mqtt()).0;
    assert_eq!(other.publish_and_wait("users/bob/phone/outbox", "{}").0, 0x87);
    let renewed = with(&server, &token).post("/v1/users/refresh", &json!({})).ok();
    assert_eq!(listed(&with(&server, renewed["token"].as_str().unwrap())).len(), 2);

    let nobody = Client::nobody(&server);
    let again = nobody.post("/v1/devices", &json!({"user": "bob", "code": code, "device": "tablet"}));
    again.refused(401, 190);
    let others = self::code(&Client::of(&server, "alice"));
    for (user, code) in [("bob", "ZZZZ-ZZZZ"), ("bob", &others), ("nobody", &others)] {
        let wrong = nobody.post("/v1/devices", &json!({"user": user, "code": code, "device": "tablet"}));
        assert_eq!(
            again.json(),
            wrong.json(),
            "a code that was good tells no more than one that never was, or another's"
        );
    }
    let admin = Client { address: server.admin(), token: None };
    let metrics = String::from_utf8(admin.get("/metrics").body).unwrap();
    for counted in
        ["natter_devices_linked_total 1", "natter_devices_unlinked_total 0", "natter_link_codes_refused_total 4"]
    {
        assert!(metrics.contains(counted), "{counted} is not in\n{metrics}");
    }
    for line in server.log_so_far() {
        assert!(!line.contains(&code) && !line.contains(&token), "{line}");
    }
}

#[test]
fn a_code_that_is_good_is_not_used_up_by_a_bad_name_and_ends_with_whoever_asked_for_it() {
    let mut server = TestServer::with_users(&["bob"]);
    let token = server.token("bob");
    let _phone = connect(&server, &token, "phone");
    let (phone, nobody) = (with(&server, &token), Client::nobody(&server));
    let good = code(&phone);
    let asked = |code: &str, device: &str| json!({"user": "bob", "code": code, "device": device});
    let ask = |code: &str, device: &str| nobody.post("/v1/devices", &asked(code, device));
    ask(&good, "phone").refused(409, 1409);
    ask(&good, "http").refused(400, 131_009);
    ask(&good, "no spaces").refused(400, 131_009);
    link(&server, &good, "laptop");

    let good = code(&phone);
    Client::of(&server, "bob").post("/v1/users/revoke", &json!({"token": token})).ok();
    ask(&good, "tablet").refused(401, 190);
    let other = Client::of(&server, "bob");
    let good = code(&other);
    server.kill9();
    server.restart();
    let nobody = Client::nobody(&server);
    nobody.post("/v1/devices", &asked(&good, "tablet")).refused(401, 190);
}

#[test]
fn the_token_of_one_device_ends_that_device_and_needs_the_password_for_others() {
    const PASSWORD: &str = "correct horse battery";
    let server = TestServer::start_with("[accounts]\nregistration = \"open\"\n");
    let account = json!({"user": "bob", "password": PASSWORD});
    let answer = Client::nobody(&server).post("/v1/users", &account);
    let of_bob = with(&server, answer.json()["token"].as_str().unwrap());
    let laptop = with(&server, &link(&server, &code(&of_bob), "laptop"));
    let unlink = |client: &Client, device: &str, body: &Value| {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        client.request("DELETE", &format!("/v1/devices/{device}"), &[], &body)
    };
    let (none, wrong, right) = (Value::Null, json!({"password": "another one"}), json!({"password": PASSWORD}));

    laptop.request("POST", "/v1/devices/codes", &[], b"").refused(403, 10);
    laptop.post("/v1/devices/codes", &wrong).refused(401, 190);
    let answer = laptop.post("/v1/devices/codes", &right);
    assert_eq!(answer.status, 201, "{answer:?}");
    let tablet = with(&server, &link(&server, answer.json()["code"].as_str().unwrap(), "tablet"));
    unlink(&tablet, "laptop", &none).refused(403, 10);
    unlink(&tablet, "laptop", &wrong).refused(401, 190);
    unlink(&tablet, "lap%ZZtop", &none).refused(400, 131_009);
    unlink(&tablet, "%ff", &none).refused(400, 100);
    assert_eq!(listed(&of_bob).len(), 2, "all of that has ended nothing");
    assert_eq!(unlink(&tablet, "laptop", &right).status, 204);
    laptop.get("/v1/devices").refused(401, 190);
    assert_eq!(unlink(&tablet, "tablet", &none).status, 204, "itself");
    tablet.get("/v1/devices").refused(401, 190);
    assert!(listed(&of_bob).is_empty());
}

#[test]
fn unlinked_is_cut_off_with_the_answer_also_in_the_middle_of_sending() {
    let mut server = TestServer::with_users(&["alice", "bob"]);
    let mut phone = connect(&server, &server.token("bob"), "phone");
    let of_bob = Client::of(&server, "bob");
    let token = link(&server, &code(&of_bob), "laptop");
    let mut laptop = connect(&server, &token, "laptop");
    let mut alice = Device::v5(&server, "alice", "phone");

    // It publishes as fast as it can, and counts what was acknowledged.
    let sender = thread::spawn(move || {
        let (outbox, mut acknowledged) = (laptop.outbox(), 0);
        for n in 1.. {
            let text = json!({"id": format!("m{n}"), "to": "alice", "type": "text", "text": {"body": "x"}});
            let id = laptop.raw.publish(&outbox, &text.to_string());
            let mine = |packet: &common::Packet| match packet {
                common::Packet::PubAck { id: got, .. } if *got == id => Some(true),
                common::Packet::Disconnect { .. } => Some(false),
                _ => None,
            };
            if !laptop.raw.wait_for("an answer or the end", mine) {
                break;
            }
            acknowledged = n;
        }
        acknowledged
    });
    for _ in 0..20 {
        alice.entry();
    }
    let answer = of_bob.request("DELETE", "/v1/devices/laptop", &[], b"");
    assert_eq!(answer.status, 204, "{answer:?}");
    // Whatever comes in behind the answer stands behind everything of the laptop's.
    phone.send("alice", "last", "last");
    let acknowledged: u64 = sender.join().unwrap();
    let mut got = 20;
    while alice.entry()["id"] != "last" {
        got += 1;
    }
    assert!(got >= acknowledged, "what was acknowledged is there: {acknowledged} of {got}");
    alice.raw.ping();
    assert!(alice.raw.queued().next().is_none(), "nothing comes behind");

    // The token opens nothing, and nothing waits for the device; a kill changes nothing about that.
    server.kill9();
    server.restart();
    Connect::v5("bob", "bob-laptop", &token).refused(server.mqtt(), 0x86);
    with(&server, &token).get("/messages").refused(401, 190);
    let of_bob = Client::of(&server, "bob");
    assert_eq!(listed(&of_bob).len(), 1);
    assert_eq!(of_bob.request("DELETE", "/v1/devices/laptop", &[], b"").status, 404);

    // The same name begins anew, with a token that is dated behind the end of the others.
    let token = link(&server, &code(&of_bob), "laptop");
    connect(&server, &token, "laptop");
}

#[test]
fn who_guesses_at_the_codes_of_one_user_stops_his_linking_and_nobody_elses() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let (good, nobody) = (code(&Client::of(&server, "bob")), Client::nobody(&server));
    let guess = || nobody.post("/v1/devices", &json!({"user": "alice", "code": "ZZZZ-ZZZZ", "device": "x"}));
    // A minute's worth, and what comes back while they are tried.
    let stopped = (0..300).map(|_| guess()).find(|answer| answer.status != 401).expect("an end of it");
    stopped.refused(429, 130_429);
    assert_eq!(stopped.header("retry-after"), Some("60"));
    link(&server, &good, "laptop");
}
