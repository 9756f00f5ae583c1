//! WhatsApp's shapes, byte by byte where its clients look: what they send, and what they parse and branch on.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use common::{Answer, Client, Device, TestServer, assert_receipt, assert_text};
use serde_json::{Value, json};

const BOT: &str = "15550001";
const PERSON: &str = "15550002";

fn server() -> (TestServer, Client) {
    let server = TestServer::with_users(&[BOT, PERSON]);
    let bot = Client::of(&server, BOT);
    (server, bot)
}

fn text(to: &str, body: &str) -> Value {
    json!({"messaging_product": "whatsapp", "recipient_type": "individual", "to": to, "type": "text", "text": {"body": body}})
}

/// Clients branch on exactly this.
#[track_caller]
fn is_plain_json(answer: &Answer) {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
}

#[track_caller]
fn cloud_error(answer: &Answer, status: u16, code: u64, kind: &str) -> Value {
    is_plain_json(answer);
    let error = answer.json()["error"].clone();
    assert_eq!((answer.status, &error["code"], &error["type"]), (status, &json!(code), &json!(kind)), "{error}");
    assert!(error["message"].is_string() && error["error_data"]["details"].is_string(), "{error}");
    assert_eq!(error["error_data"]["messaging_product"], "whatsapp");
    error
}

#[track_caller]
fn on_premises_error(answer: &Answer, status: u16, code: u64) {
    is_plain_json(answer);
    let body = answer.json();
    let error = &body["errors"][0];
    assert_eq!((answer.status, &error["code"]), (status, &json!(code)), "{body}");
    assert!(error["title"].is_string() && error["details"].is_string() && body["meta"].is_object(), "{body}");
}

#[test]
fn a_cloud_client_sends_marks_and_types() {
    let (server, bot) = server();
    let mut person = Device::v5(&server, PERSON, "phone");
    for (n, path) in [(1, "/v24.0/15550001/messages"), (2, "/v13.0/15550001/messages/")] {
        let answer = bot.post(path, &text("+1 555 0002", "h\u{e4}llo \u{1f600}"));
        is_plain_json(&answer);
        let sent = answer.ok();
        let entry = person.entry();
        assert_text(&entry, BOT, "h\u{e4}llo \u{1f600}");
        assert_eq!(entry["n"], n);
        let expected = json!({
            "messaging_product": "whatsapp",
            "contacts": [{"input": "+1 555 0002", "wa_id": PERSON}],
            "messages": [{"id": entry["id"]}],
        });
        assert_eq!(sent, expected);
    }
    person.send(BOT, "p1", "hi bot");
    let mark = json!({"messaging_product": "whatsapp", "status": "read", "message_id": format!("{PERSON}/p1"),
        "typing_indicator": {"type": "text"}});
    let answer = bot.post("/v24.0/15550001/messages", &mark);
    is_plain_json(&answer);
    assert_eq!(answer.ok(), json!({"success": true}));
    assert_eq!(person.live()["type"], "typing");
    assert_receipt(&person.entry(), "read", BOT, 0, 3);

    let reply = json!({"to": PERSON, "text": {"body": "a reply"}, "context": {"message_id": format!("{PERSON}/p1")}});
    bot.post("/v24.0/15550001/messages", &reply).ok();
    let entry = person.entry();
    assert_eq!(entry["context"], json!({"message_id": "p1", "from": PERSON}));
    let emoji = json!({"to": PERSON, "type": "reaction", "reaction": {"message_id": format!("{PERSON}/p1"), "emoji": "\u{1f44d}"}});
    bot.post("/v24.0/15550001/messages", &emoji).ok();
    assert_eq!(person.entry()["reaction"]["message_id"], "p1");
}

#[test]
fn errors_of_the_cloud_api_have_its_shape_and_its_codes() {
    let (server, bot) = server();
    let path = "/v24.0/15550001/messages";
    let oauth = "OAuthException";
    cloud_error(&Client::nobody(&server).post(path, &text(PERSON, "hi")), 401, 190, oauth);
    let error = cloud_error(&bot.post(path, &text("99999999", "hi")), 400, 131_026, oauth);
    assert_eq!(error["message"], "(#131026) Message undeliverable");
    for kind in ["template", "interactive", "order", "carrier-pigeon"] {
        let body = json!({"messaging_product": "whatsapp", "to": PERSON, "type": kind, kind: {}});
        cloud_error(&bot.post(path, &body), 400, 131_051, oauth);
    }
    cloud_error(&bot.post("/v24.0/15550002/messages", &text(PERSON, "hi")), 403, 10, oauth);
    cloud_error(&bot.post(path, &json!({"messaging_product": "whatsapp", "type": "text"})), 400, 100, oauth);
    cloud_error(&bot.post(path, &text(PERSON, "")), 400, 131_009, oauth);
    cloud_error(&bot.request("POST", path, &[], b"{"), 400, 100, oauth);
    cloud_error(&bot.post(path, &text(PERSON, &"x".repeat(200_000))), 413, 131_009, oauth);
    let unknown = json!({"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.none"});
    cloud_error(&bot.post(path, &unknown), 400, 131_009, oauth);
    let linked = json!({"to": PERSON, "type": "image", "image": {"link": "http://10.0.0.1/a.png"}});
    let error = cloud_error(&bot.post(path, &linked), 400, 131_009, oauth);
    assert!(error["error_data"]["details"].as_str().unwrap().contains("image.link"), "{error}");
    let error = cloud_error(&bot.get("/v24.0/15550001/nothing"), 400, 100, "GraphMethodException");
    assert_eq!(error["error_subcode"], 33);
    cloud_error(&bot.get(path), 400, 100, "GraphMethodException");
    for path in ["/v24.x/15550001/messages", "/v1/15550001/messages"] {
        bot.post(path, &text(PERSON, "hi")).refused(404, 100);
    }
}

#[test]
fn an_on_premises_client_sends_and_marks() {
    let (server, bot) = server();
    let mut person = Device::v5(&server, PERSON, "phone");
    let body = json!({"to": "15550002", "recipient_type": "individual", "preview_url": false, "type": "text", "text": {"body": "hi"}});
    let key = bot.token.clone().unwrap();
    let d360 = Client { token: None, ..bot.clone() };
    let answer = d360.request("POST", "/v1/messages?retry=1", &[("D360-API-KEY", &key)], body.to_string().as_bytes());
    is_plain_json(&answer);
    let sent = answer.ok();
    let entry = person.entry();
    assert_eq!((&sent["messages"][0]["id"], &sent["contacts"][0]["wa_id"]), (&entry["id"], &json!(PERSON)));
    assert!(sent.get("errors").is_none() && sent["meta"]["api_status"].is_string(), "{sent}");

    for (n, path) in [(2, "/v1/messages/p2".to_owned()), (3, format!("/v1/messages/{PERSON}/p3"))] {
        person.send(BOT, &format!("p{n}"), "hi bot");
        let answer = bot.request("PUT", &path, &[], b"{\"status\":\"read\"}");
        is_plain_json(&answer);
        assert_eq!(answer.ok(), json!({}));
        let receipt = person.entry();
        assert_eq!((&receipt["status"], &receipt["n"]), (&json!("read"), &json!(n)), "{receipt}");
    }
    on_premises_error(&bot.post("/v1/messages", &json!({"to": "99999999", "text": {"body": "hi"}})), 404, 1013);
    on_premises_error(&bot.post("/v1/messages", &json!({"text": {"body": "hi"}})), 400, 1008);
    on_premises_error(&bot.post("/v1/messages", &json!({"to": PERSON, "type": "hsm", "hsm": {}})), 400, 1009);
    on_premises_error(&Client::nobody(&server).post("/v1/messages", &body), 401, 1005);
    on_premises_error(&bot.request("PUT", "/v1/messages/none", &[], b"{\"status\":\"read\"}"), 400, 1009);
    let named = json!({"id": "m1", "to": PERSON, "text": {"body": "one"}});
    bot.post("/v1/messages", &named).ok();
    on_premises_error(
        &bot.post("/v1/messages", &json!({"id": "m1", "to": PERSON, "text": {"body": "two"}})),
        409,
        1004,
    );
}

#[test]
fn the_calls_of_a_set_up_find_what_they_look_for() {
    let (server, bot) = server();
    let token = bot.token.clone().unwrap();
    let chatwoot = Client::nobody(&server).get(&format!("/v14.0/123456789/message_templates?access_token={token}"));
    assert_eq!(chatwoot.ok(), json!({"data": []}));
    assert_eq!(bot.get("/v1/configs/templates").ok(), json!({"waba_templates": []}));
    let names = json!({"blocking": "wait", "contacts": ["+1 555 0002", "nobody here", "bob"], "force_check": true});
    let checked = bot.post("/v1/contacts", &names).ok();
    let expected = json!([
        {"input": "+1 555 0002", "status": "valid", "wa_id": PERSON},
        {"input": "nobody here", "status": "invalid"},
        {"input": "bob", "status": "valid", "wa_id": "bob"},
    ]);
    assert_eq!(checked["contacts"], expected, "whether there is such a user is not said");
}

#[test]
fn a_cloud_body_without_version_and_number_is_known_by_its_members() {
    let (server, bot) = server();
    let mut person = Device::v5(&server, PERSON, "phone");
    let sent = bot.post("/messages", &text(PERSON, "hi")).ok();
    assert_eq!(sent["messages"][0]["id"], person.entry()["id"]);
    assert!(sent.get("n").is_none(), "{sent}");
    cloud_error(&bot.post("/messages", &text("99999999", "hi")), 400, 131_026, "OAuthException");
    let mark = json!({"messaging_product": "whatsapp", "status": "read", "message_id": "none"});
    cloud_error(&bot.post("/messages", &mark), 400, 131_009, "OAuthException");
}
