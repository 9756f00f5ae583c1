//! Statuses end to end: the real server, real sockets, and its time passed by hand.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

#[path = "media/client.rs"]
mod client;
mod common;

use client::{FORM, form, stored, stored_soon, upload};
use common::server::natter;
use common::{Client, Device, TestServer};
use serde_json::{Value, json};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";
/// Sweeps at once.
const SWEEPS: &str = "[media]\nsweep_interval_s = 1\norphan_age_s = 1\n";
const HOUR: u64 = 3600;

/// A server whose users have each other as contacts.
fn friends(names: &[&str]) -> TestServer {
    let server = TestServer::start_with(SWEEPS);
    names.iter().for_each(|name| server.add_user(name));
    for name in names {
        let client = Client::of(&server, name);
        for other in names.iter().filter(|other| *other != name) {
            client.request("PUT", &format!("/v1/contacts/{other}"), &[], b"{}").ok();
        }
    }
    server
}

fn listed(client: &Client, query: &str) -> Vec<String> {
    let all = client.get(&format!("/v1/status{query}")).ok();
    all["statuses"].as_array().unwrap().iter().map(|status| status["id"].as_str().unwrap().to_owned()).collect()
}

/// Sends something and takes what comes up to it: what is not there by then does not come.
#[track_caller]
fn only(device: &mut Device, server: &TestServer, mark: &str) {
    let sent = Client::of(server, "postmaster")
        .post("/messages", &json!({"reciever_ID": device.user, "text": "x", "id": mark}));
    sent.ok();
    let entry = device.entry();
    assert_eq!(entry["id"], mark, "nothing before it: {entry}");
}

#[test]
fn a_status_is_posted_seen_over_and_swept() {
    let mut server = friends(&["alice", "bob", "carol", "dave"]);
    server.add_user("postmaster");
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut bob = Device::v3(&server, "bob", "phone");
    let (alice_http, bob_http) = (Client::of(&server, "alice"), Client::of(&server, "bob"));

    // A text over MQTT: one tick, two ticks, seen.
    assert_eq!(alice.send("status@broadcast", "s1", "at the sea"), 1);
    let entry = bob.entry();
    assert_eq!(
        (&entry["from"], &entry["chat"], &entry["text"]["body"]),
        (&json!("alice"), &json!("status@broadcast"), &json!("at the sea"))
    );
    let delivered = alice.entry();
    assert_eq!(
        (&delivered["status"], &delivered["chat"], &delivered["n"], &delivered["recipient_id"]),
        (&json!("delivered"), &json!("status@broadcast"), &json!(1), &json!("bob"))
    );
    bob.publish(&json!({"status": "read", "chat": "status@broadcast", "from": "alice", "message_id": "s1"}));
    assert_eq!(alice.entry()["status"], "read");

    // A picture over HTTP, with the file inline; the answer of a retry is the first one's.
    let body = form(&[("id", "s2"), ("text", "the sea itself")], Some(("media_object", "sea.png", PNG)), &[]);
    let sent = alice_http.request("POST", "/v1/status", &[FORM], &body).ok();
    assert_eq!((&sent["id"], &sent["n"]), (&json!("s2"), &json!(2)));
    assert_eq!(alice_http.request("POST", "/v1/status", &[FORM], &body).ok()["n"], 2);
    stored_soon(&server, 1);
    let picture = bob.entry();
    assert_eq!((&picture["image"]["caption"], &picture["n"]), (&json!("the sea itself"), &json!(2)));
    let media = format!("/v1/media/{}", picture["image"]["id"].as_str().unwrap());
    assert_eq!(bob_http.get(&media).body, PNG);
    // The own echo: alice's other device, HTTP, posted it.
    let echo = alice.entry();
    assert_eq!((&echo["id"], &echo["to"]), (&json!("s2"), &json!("status@broadcast")));
    assert_eq!(alice.entry()["status"], "delivered");
    let viewers = alice_http.get("/v1/status/s1/viewers").ok();
    assert_eq!(viewers, json!({"audience": 3, "viewers": [{"user": "bob", "status": "read"}]}));
    let own = alice_http.get("/v1/status").ok();
    assert_eq!(
        (&own["statuses"][1]["audience"], &own["statuses"][1]["delivered"], &own["statuses"][1]["read"]),
        (&json!(3), &json!(1), &json!(0))
    );

    // An answer goes to the poster alone.
    bob.publish(&json!({"to": "alice", "type": "text", "text": {"body": "nice"}, "context": {"message_id": "alice/s2", "chat": "status@broadcast"}}));
    let reply = alice.entry();
    assert_eq!((&reply["chat"], &reply["context"]["chat"]), (&json!("bob"), &json!("status@broadcast")));

    // A kill, and 23 hours later: who comes then gets them once.
    server.kill9();
    server.restart();
    server.pass_time(23 * HOUR);
    let mut carol = Device::v5(&server, "carol", "phone");
    assert_eq!([carol.entry()["id"].clone(), carol.entry()["id"].clone()], [json!("s1"), json!("s2")]);
    carol.reconnect(&server);
    only(&mut carol, &server, "m1");
    let (alice_http, bob_http) = (Client::of(&server, "alice"), Client::of(&server, "bob"));
    assert_eq!(listed(&Client::of(&server, "dave"), "?from=alice"), ["s1", "s2"]);

    // After the day: nobody gets it any more, by any way, and nothing is left.
    server.pass_time(HOUR);
    assert_eq!(listed(&bob_http, "?from=alice"), [""; 0]);
    assert_eq!(listed(&alice_http, ""), [""; 0]);
    assert_eq!(bob_http.get(&media).status, 404);
    alice_http.get("/v1/status/s1/viewers").refused(404, 131_009);
    let mut dave = Device::v5(&server, "dave", "phone");
    only(&mut dave, &server, "m2");
    stored_soon(&server, 0);
    assert_eq!(alice_http.get(&media).status, 404, "its file was sent nowhere else");
    bob.reconnect(&server);
    only(&mut bob, &server, "m3");
    server.terminate();
    let checked = natter().args(["check", "--data"]).arg(server.data()).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let connection = rusqlite::Connection::open(server.data().join("natter.db")).unwrap();
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM statuses"), 0);
    assert_eq!(count("SELECT count(*) FROM messages WHERE chat LIKE 's:%'"), 0);
    assert_eq!(count("SELECT count(*) FROM inbox WHERE chat LIKE 's:%'"), 0);
}

#[test]
fn a_status_that_is_taken_back_is_gone_for_all() {
    let server = friends(&["alice", "bob", "carol"]);
    server.add_user("postmaster");
    let mut bob = Device::v5(&server, "bob", "phone");
    let (alice, bob_http) = (Client::of(&server, "alice"), Client::of(&server, "bob"));
    let picture = upload(&alice, "?name=sea.png", "image/png", PNG);
    let kept = upload(&alice, "?name=shore.png", "image/png", PNG);
    alice.post("/v1/messages", &json!({"to": "bob", "type": "image", "image": {"id": kept}, "id": "m0"})).ok();
    assert_eq!(bob.entry()["id"], "m0");
    for (id, media) in [("s1", &picture), ("s2", &kept)] {
        let sent = alice.post("/v1/status", &json!({"type": "image", "image": {"id": media}, "id": id})).ok();
        assert_eq!((&sent["id"], &bob.entry()["id"]), (&json!(id), &json!(id)));
    }
    stored_soon(&server, 2);
    for id in ["s1", "s2", "s1"] {
        alice.request("DELETE", &format!("/v1/status/{id}"), &[], b"").ok();
    }
    bob_http.request("DELETE", "/v1/status/s1", &[], b"").refused(404, 131_009);
    for (id, n) in [("s1", 1), ("s2", 2)] {
        let entry = bob.entry();
        assert_eq!(
            (&entry["status"], &entry["from"], &entry["id"], &entry["n"], &entry["chat"]),
            (&json!("deleted"), &json!("alice"), &json!(id), &json!(n), &json!("status@broadcast"))
        );
    }
    let mut carol = Device::v5(&server, "carol", "phone");
    only(&mut carol, &server, "m1");
    assert_eq!(listed(&bob_http, "?from=alice"), [""; 0]);
    assert_eq!(bob_http.get(&format!("/v1/media/{picture}")).status, 404);
    assert_eq!(bob_http.get(&format!("/v1/media/{kept}")).body, PNG, "it was sent to him too");
    assert_eq!(Client::of(&server, "carol").get(&format!("/v1/media/{kept}")).status, 404);
    stored_soon(&server, 1);
    assert!(stored(&server)[0].display().to_string().contains(&kept));
}

#[test]
fn a_status_goes_to_nobody_who_is_no_contact_of_both_sides() {
    let server = friends(&["alice", "bob"]);
    for name in ["eve", "carol", "postmaster"] {
        server.add_user(name);
    }
    let put = |name: &str, other: &str| {
        Client::of(&server, name).request("PUT", &format!("/v1/contacts/{other}"), &[], b"{}")
    };
    put("alice", "carol").ok();
    put("eve", "alice").ok();
    put("alice", "nobody").refused(404, 131_026);
    let devices = ["bob", "carol", "eve"].map(|name| Device::v5(&server, name, "phone"));
    let [mut bob, mut carol, mut eve] = devices;
    let alice = Client::of(&server, "alice");
    // Any of the ways of a message is one for a status; a context is not for one.
    alice
        .post("/v1/messages", &json!({"to": "status@broadcast", "type": "text", "text": {"body": "1"}, "id": "s1"}))
        .ok();
    alice.post("/v1/status", &json!({"text": "2", "id": "s2"})).ok();
    alice.post("/v1/status", &json!({"to": "bob", "text": "3"})).refused(400, 131_009);
    alice.post("/v1/status", &json!({"type": "audio", "audio": {"id": "1234567890123456"}})).refused(400, 131_009);
    alice.post("/v1/status", &json!({"text": "4", "context": {"message_id": "s1"}})).refused(400, 131_009);
    let bodies: Vec<Value> = [bob.entry(), bob.entry()].iter().map(|entry| entry["text"]["body"].clone()).collect();
    assert_eq!(bodies, ["1", "2"]);
    only(&mut carol, &server, "m1");
    only(&mut eve, &server, "m1e");
    for name in ["carol", "eve"] {
        assert_eq!(listed(&Client::of(&server, name), "?from=alice"), [""; 0]);
    }
    // A contact from today on sees what is posted from then on.
    put("carol", "alice").ok();
    alice.post("/v1/status", &json!({"text": "5", "id": "s5"})).ok();
    assert_eq!(carol.entry()["id"], "s5");
    Client::of(&server, "bob").request("DELETE", "/v1/contacts/alice", &[], b"").ok();
    alice.post("/v1/status", &json!({"text": "6", "id": "s6"})).ok();
    assert_eq!(carol.entry()["id"], "s6");
    assert_eq!(bob.entry()["id"], "s5");
    only(&mut bob, &server, "m2");
}
