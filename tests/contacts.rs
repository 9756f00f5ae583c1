//! Contacts end to end: a phone's file goes in by HTTP, is there after a kill, and counts.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use common::{Client, Device, TestServer};
use serde_json::{Value, json};

const VCARD: (&str, &str) = ("content-type", "text/vcard; charset=utf-8");
const FILE: &str = "BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Bob\r\nitem1.TEL;waid=15550002:+1 (555) 0002\r\nEND:VCARD\r\n\
    BEGIN:VCARD\r\nVERSION:2.1\r\nN;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:M=C3=BCller;J=C3=B6rg=\r\n;;;\r\nX-NATTER:carol\r\nEND:VCARD\r\n\
    BEGIN:VCARD\r\nVERSION:4.0\r\nFN:Nobody\r\nTEL:+49 30 1\r\nEND:VCARD\r\n\
    BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Cut off\r\n";
const IMPORT: &str = "/v1/contacts/import";

fn names(client: &Client) -> Vec<(String, Value)> {
    let all = client.get("/v1/contacts").ok();
    let contacts = all["contacts"].as_array().unwrap().iter();
    contacts.map(|contact| (contact["user"].as_str().unwrap().to_owned(), contact["name"].clone())).collect()
}

#[test]
fn a_file_of_a_phone_brings_whoever_is_here_and_says_what_it_does_not_understand() {
    let mut server = TestServer::with_users(&["alice", "15550002", "carol"]);
    let alice = Client::of(&server, "alice");
    let told = alice.request("POST", IMPORT, &[VCARD], FILE.as_bytes()).ok();
    assert_eq!((&told["added"], &told["present"], &told["failed"]), (&json!(2), &json!(0), &json!(2)), "{told}");
    assert_eq!(told["cards"][0], json!({"card": 1, "status": "added", "user": "15550002", "name": "Bob"}));
    assert_eq!(told["cards"][1], json!({"card": 2, "status": "added", "user": "carol", "name": "Jörg Müller"}));
    assert_eq!((&told["cards"][2]["status"], &told["cards"][2]["code"]), (&json!("failed"), &json!(131_026)));
    assert_eq!(told["cards"][3]["detail"], "card: expected END:VCARD, got the end of the file");

    server.kill9();
    server.restart();
    let alice = Client::of(&server, "alice");
    assert_eq!(names(&alice), [("15550002".into(), json!("Bob")), ("carol".into(), json!("Jörg Müller"))]);
    let told = alice.request("POST", IMPORT, &[], FILE.as_bytes()).ok();
    assert_eq!((&told["added"], &told["present"]), (&json!(0), &json!(2)), "the same again changes nothing: {told}");

    // They count: with both sides, a status goes.
    let carol = Client::of(&server, "carol");
    let message = json!({"to": "carol", "type": "contacts", "id": "m1",
        "contacts": [{"name": {"formatted_name": "Alice"}, "phones": [{"wa_id": "alice"}]}]});
    let mut phone = Device::v5(&server, "carol", "phone");
    alice.post("/v1/messages", &message).ok();
    let entry = phone.entry();
    let told = carol.post(IMPORT, &entry).ok();
    assert_eq!(told["cards"], json!([{"card": 1, "status": "added", "user": "alice", "name": "Alice"}]), "{entry}");
    alice.post("/v1/status", &json!({"text": "at the sea", "id": "s1"})).ok();
    assert_eq!(phone.entry()["id"], "s1");
}

#[test]
fn an_import_has_limits_and_says_them() {
    let server = TestServer::start_with("[people]\ncontacts_max = 1\n");
    ["alice", "bob", "carol"].iter().for_each(|name| server.add_user(name));
    let alice = Client::of(&server, "alice");
    let import = |body: &[u8]| alice.request("POST", IMPORT, &[VCARD], body);
    let card = |name: &str| format!("BEGIN:VCARD\nVERSION:4.0\nX-NATTER:{name}\nEND:VCARD\n");
    import((card("bob") + &card("carol")).as_bytes()).refused(429, 130_429);
    assert_eq!(names(&alice), [], "nothing half done");
    import(card("bob").as_bytes()).ok();
    import(&vec![b'x'; 8 * 1024 * 1024 + 1]).refused(413, 131_009);
    import(card("bob").repeat(1001).as_bytes()).refused(400, 131_009);
    import(b"FN:no card").refused(400, 100);
    alice.post(IMPORT, &json!({"contacts": []})).refused(400, 131_009);
    alice.request("POST", IMPORT, &[("content-type", "text/vcard; charset=klingon")], b"x").refused(400, 131_009);
    // The name of a route is a user's name all the same.
    server.add_user("import");
    alice.request("DELETE", "/v1/contacts/bob", &[], b"").ok();
    alice.request("PUT", "/v1/contacts/%69mport", &[], b"{}").ok();
    assert_eq!(names(&alice), [("import".into(), json!(null))]);
}
