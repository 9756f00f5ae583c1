//! Files in groups, over HTTP: whoever is in the group, and joined before the message, may fetch one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its world does not hold")]

mod common;

use common::{Client, Device, TestServer};
use serde_json::json;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";
const GROUP: &str = "g:0123456789abcdef";

#[test]
fn s65_a_file_of_a_group_is_for_who_is_in_it_and_for_nobody_who_is_out() {
    let mut server = TestServer::with_users(&["alice", "bob", "carol", "dave"]);
    let alice = Client::of(&server, "alice");
    let id = alice.request("POST", "/v1/media", &[("content-type", "image/png")], PNG).ok()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/v1/media/{id}");
    let mut phone = Device::v5(&server, "alice", "phone");
    let outbox = phone.outbox();
    let mut say = |payload: serde_json::Value| {
        let (reason, properties) = phone.raw.publish_and_wait(&outbox, &payload.to_string());
        assert_eq!(reason, 0, "{properties:?}");
    };
    say(json!({"group": "create", "chat": GROUP, "subject": "Trip", "users": ["bob", "carol"]}));
    say(json!({"id": "m1", "to": GROUP, "type": "image", "image": {"id": id}}));
    say(json!({"group": "add", "chat": GROUP, "users": ["dave"]}));
    let may = |server: &TestServer, name: &str| {
        let answer = Client::of(server, name).get(&path);
        if answer.status == 200 {
            assert_eq!(answer.body, PNG);
            return true;
        }
        answer.refused(404, 131_052);
        false
    };
    assert!(may(&server, "bob") && may(&server, "carol"));
    assert!(!may(&server, "dave"), "it was sent before he joined");
    say(json!({"group": "remove", "chat": GROUP, "users": ["bob"]}));
    assert!(!may(&server, "bob") && may(&server, "carol"));
    server.kill9();
    server.restart();
    assert!(!may(&server, "bob") && may(&server, "carol") && !may(&server, "dave"));
}
