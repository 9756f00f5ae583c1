//! Webhooks, end to end: a bot's backend gets messages and statuses as WhatsApp's Cloud API posts them. Security tests S64 and S21.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;
#[path = "webhooks/receiver.rs"]
mod receiver;

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::http::Client;
use common::server::natter;
use common::{Device, TestServer, assert_receipt};
use receiver::{Post, Receiver};
use serde_json::{Value, json};

const PRIVATE: &str = "[webhooks]\nprivate_addresses = true\ntimeout_s = 1\n";
const SECRET: &str = "an app secret";
const BOT: &str = "15550001";
const BOB: &str = "15550002";

/// A server, a bot with a webhook there, and a person on MQTT.
struct World {
    server: TestServer,
    receiver: Receiver,
    bot: Client,
    bob: Device,
}

impl World {
    fn new() -> Self {
        let server = TestServer::start_with(PRIVATE);
        [BOT, BOB].into_iter().for_each(|name| server.add_user(name));
        let receiver = Receiver::start();
        let bot = Client::of(&server, BOT);
        register(&bot, &receiver.url());
        let bob = Device::v5(&server, BOB, "phone");
        Self { server, receiver, bot, bob }
    }

    /// Sends a text over HTTP; its id.
    #[track_caller]
    fn say(&self, to: &str, body: &str) -> String {
        let message = json!({"messaging_product": "whatsapp", "to": to, "type": "text", "text": {"body": body}});
        let answer = self.bot.post(&format!("/v24.0/{BOT}/messages"), &message).ok();
        answer["messages"][0]["id"].as_str().expect("an id").to_owned()
    }

    #[track_caller]
    fn status(&self) -> Value {
        self.receiver.taken().value(BOT, SECRET)["statuses"][0].clone()
    }

    #[track_caller]
    fn message(&self) -> Value {
        self.receiver.taken().value(BOT, SECRET)["messages"][0].clone()
    }

    fn restart(&mut self) {
        self.server.restart();
        self.bot = Client::of(&self.server, BOT);
        self.bob.reconnect(&self.server);
    }
}

#[track_caller]
fn register(bot: &Client, url: &str) {
    let body = json!({"url": url, "verify_token": "vt", "secret": SECRET});
    let answer = bot.request("PUT", "/v1/webhook", &[], body.to_string().as_bytes()).ok();
    assert_eq!(answer, json!({"url": url}), "a secret that is given is not repeated");
}

fn body_of(post: &Post) -> String {
    let body: Value = serde_json::from_slice(&post.body).unwrap();
    let message = &body["entry"][0]["changes"][0]["value"]["messages"][0];
    message["text"]["body"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_text_its_ticks_and_the_answer_that_quotes_it() {
    let mut world = World::new();
    let id = world.say(BOB, "hi \u{e4}\u{f6}\u{fc} \u{1f600}");
    let entry = world.bob.entry();
    assert_eq!(entry["id"], id);
    world.bob.mark_read(BOT, 1);
    for status in ["sent", "delivered", "read"] {
        let got = world.status();
        assert_eq!(
            (&got["id"], &got["status"], &got["recipient_id"]),
            (&json!(id), &json!(status), &json!(BOB)),
            "{got}"
        );
        assert!(got["timestamp"].as_str().is_some_and(|text| text.parse::<u64>().is_ok()), "{got}");
    }
    let answer = json!({"id": "r1", "to": BOT, "type": "text", "text": {"body": "to you too \u{e4}\u{1f600}"}, "context": {"message_id": id}});
    assert_eq!(world.bob.publish(&answer).0, 0);
    let post = world.receiver.taken();
    let value = post.value(BOT, SECRET);
    let message = &value["messages"][0];
    assert_eq!(
        (&message["from"], &message["id"], &message["type"]),
        (&json!(BOB), &json!(format!("{BOB}/r1")), &json!("text"))
    );
    assert_eq!(message["text"], json!({"body": "to you too \u{e4}\u{1f600}"}));
    assert_eq!(message["context"], json!({"from": BOT, "id": id}));
    assert_eq!(value["contacts"], json!([{"profile": {"name": BOB}, "wa_id": BOB, "user_id": BOB}]));
    assert_eq!(post.path, "/hook");
    assert_receipt(&world.bob.entry(), "delivered", BOT, 0, 2);

    // The id that came is one that goes back: read, and a reaction to it.
    let of = message["id"].clone();
    let path = format!("/v24.0/{BOT}/messages");
    let read = json!({"messaging_product": "whatsapp", "status": "read", "message_id": of});
    assert_eq!(world.bot.post(&path, &read).ok(), json!({"success": true}));
    assert_receipt(&world.bob.entry(), "read", BOT, 0, 2);
    let reaction = json!({"to": BOB, "type": "reaction", "reaction": {"message_id": of, "emoji": "\u{1f44d}"}});
    world.bot.post(&path, &reaction).ok();
    assert_eq!(world.bob.entry()["reaction"]["message_id"], "r1");
}

#[test]
fn a_receipt_over_several_messages_is_a_status_for_each() {
    let mut world = World::new();
    let ids: Vec<String> = (0..150).map(|n| world.say(BOB, &format!("message {n}"))).collect();
    for _ in &ids {
        world.bob.entry();
    }
    world.bob.mark_read(BOT, 150);
    let mut seen: HashMap<String, Vec<String>> = HashMap::new();
    while seen.values().filter(|ids| ids.len() == 150).count() < 3 {
        let status = world.status();
        let of = |name: &str| status[name].as_str().unwrap().to_owned();
        seen.entry(of("status")).or_default().push(of("id"));
    }
    for (status, got) in seen {
        assert_eq!(got, ids, "{status}: each one once, in order");
    }
}

#[test]
fn delivered_is_said_when_the_callback_has_taken_it_and_not_before() {
    let mut world = World::new();
    world.receiver.answers(|_| Some(500));
    world.bob.send(BOT, "m1", "one");
    assert_eq!(world.receiver.post().status, 500);
    let (first, second) = (world.receiver.post(), world.receiver.post());
    assert_eq!(first.body, second.body, "byte for byte");
    assert_eq!(first.header("x-hub-signature-256"), second.header("x-hub-signature-256"));
    let health = world.bot.get("/v1/webhook").ok();
    assert!(health["last_error"].as_str().is_some_and(|why| why.contains("500")), "{health}");
    assert!(health["failing_since"].as_u64().is_some());
    // Any 2xx is an acknowledgement.
    world.receiver.answers(|_| Some(202));
    let taken = world.receiver.taken();
    assert_eq!(taken.body, first.body);
    assert_receipt(&world.bob.entry(), "delivered", BOT, 0, 1);
    assert_eq!(world.bot.get("/v1/webhook").ok(), json!({"url": world.receiver.url()}));
}

#[test]
fn what_was_not_taken_comes_again_after_a_kill_in_order_and_byte_for_byte() {
    let mut world = World::new();
    world.receiver.answers(|_| Some(503));
    for n in 0..3 {
        world.bob.send(BOT, &format!("m{n}"), &format!("{n}"));
    }
    let before = world.receiver.post();
    assert_eq!(body_of(&before), "0", "nothing overtakes");
    world.server.kill9();
    world.receiver.answers(|_| Some(200));
    world.restart();
    let taken: Vec<Post> = (0..3).map(|_| world.receiver.taken()).collect();
    assert_eq!(taken.iter().map(body_of).collect::<Vec<_>>(), ["0", "1", "2"]);
    assert_eq!(taken[0].body, before.body);
    for n in 1..=3 {
        let entry = world.bob.entry();
        let upto = entry["n"].as_u64().unwrap();
        assert_eq!(entry["status"], "delivered");
        if upto == 3 {
            break;
        }
        assert!(n < 3, "{entry}");
    }
    // What was taken does not come again.
    world.server.terminate();
    world.restart();
    world.bob.send(BOT, "m9", "9");
    assert_eq!(body_of(&world.receiver.taken()), "9");
}

#[test]
fn a_chat_that_is_not_taken_holds_no_other_up() {
    let mut world = World::new();
    world.server.add_user("15550003");
    let mut carol = Device::v5(&world.server, "15550003", "phone");
    let refused = Arc::new(Mutex::new(true));
    let switch = Arc::clone(&refused);
    world.receiver.answers(move |post| {
        let is_bobs = String::from_utf8_lossy(&post.body).contains(r#""from":"15550002""#);
        Some(if is_bobs && *switch.lock().unwrap() { 500 } else { 200 })
    });
    world.bob.send(BOT, "b1", "bob 1");
    world.bob.send(BOT, "b2", "bob 2");
    for n in 0..20 {
        carol.send(BOT, &format!("c{n}"), &format!("carol {n}"));
    }
    for n in 0..20 {
        assert_eq!(body_of(&world.receiver.taken()), format!("carol {n}"));
    }
    *refused.lock().unwrap() = false;
    assert_eq!(body_of(&world.receiver.taken()), "bob 1");
    assert_eq!(body_of(&world.receiver.taken()), "bob 2");
}

#[test]
fn a_2xx_whose_body_does_not_end_is_an_acknowledgement_all_the_same() {
    let mut world = World::new();
    world.receiver.answers(|_| Some(receiver::ENDLESS));
    world.bob.send(BOT, "m1", "one");
    world.receiver.taken();
    assert_receipt(&world.bob.entry(), "delivered", BOT, 0, 1);
    world.receiver.nothing_for(Duration::from_millis(1500));
}

#[test]
fn a_callback_that_never_answers_is_cut_and_holds_nobody_else_up() {
    let mut world = World::new();
    world.server.add_user("15550004");
    let (other, second) = (Client::of(&world.server, "15550004"), Receiver::start());
    register(&other, &second.url());
    world.receiver.answers(|_| None);
    world.bob.send(BOT, "m1", "into the void");
    world.receiver.post();
    world.bob.send("15550004", "m2", "hi");
    assert_eq!(second.taken().value("15550004", SECRET)["messages"][0]["text"]["body"], "hi");
    world.receiver.answers(|_| Some(200));
    assert_eq!(world.message()["id"], format!("{BOB}/m1"), "cut after its time, and tried again");
}

#[test]
fn s64_a_redirect_is_not_followed() {
    let mut world = World::new();
    let elsewhere = Receiver::start();
    world.receiver.answers(|post| Some(if post.path == "/hook" { 307 } else { 200 }));
    world.bob.send(BOT, "m1", "one");
    let posts = [world.receiver.post(), world.receiver.post()];
    assert!(posts.iter().all(|post| post.path == "/hook" && post.status == 307), "{posts:?}");
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn a_callback_that_does_not_know_its_verify_token_is_no_webhook() {
    let world = World::new();
    let asked = |url: &str, token: &str| {
        let body = json!({"url": url, "verify_token": token, "secret": "s"});
        world.bot.request("PUT", "/v1/webhook", &[], body.to_string().as_bytes())
    };
    let why = asked(&world.receiver.url(), "wrong").refused(400, 131_009);
    assert!(why.contains("hub.challenge") && why.contains("403"), "{why}");
    // One that says 200 and something else, one that says nothing, one that is not there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (n, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 1024]);
            if n == 0 {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"success\":false}");
            } else {
                std::mem::forget(stream);
            }
        }
    });
    asked(&format!("http://{address}/"), "vt").refused(400, 131_009);
    let why = asked(&format!("http://{address}/"), "vt").refused(400, 131_009);
    assert!(why.contains("within 1 seconds"), "{why}");
    asked("http://127.0.0.1:1/", "vt").refused(400, 131_009);
    for wrong in ["", "/hook", "ftp://127.0.0.1/", "http://user:pass@127.0.0.1/"] {
        asked(wrong, "vt").refused(400, 131_009);
    }
    assert_eq!(world.bot.get("/v1/webhook").ok()["url"], world.receiver.url(), "the one before stays");
}

#[test]
fn s64_private_addresses_are_refused_unless_they_are_allowed() {
    let server = TestServer::with_users(&[BOT]);
    let (bot, receiver) = (Client::of(&server, BOT), Receiver::start());
    let port = receiver.address.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f.1",
        "017700000001",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "[::]",
        "169.254.169.254",
        "10.0.0.1",
        "[fd00::1]",
    ] {
        for scheme in ["http", "https"] {
            let body = json!({"url": format!("{scheme}://{host}:{port}/hook"), "verify_token": "vt", "secret": "s"});
            let why = bot.request("PUT", "/v1/webhook", &[], body.to_string().as_bytes()).refused(400, 131_009);
            assert!(why.contains("webhooks.private_addresses") || why.contains("that has an address"), "{host}: {why}");
            let cloud = json!({"webhook_configuration": {"override_callback_uri": body["url"], "verify_token": "vt"}});
            assert_eq!(bot.post(&format!("/v24.0/{BOT}"), &cloud).status, 400);
        }
    }
    assert_eq!(receiver.connections(), 0, "nobody was asked");
    bot.get("/v1/webhook").refused(404, 100);
}

#[test]
fn s64_a_private_callback_gets_nothing_once_that_is_not_allowed_any_more() {
    let mut world = World::new();
    world.server.terminate();
    let connections = world.receiver.connections();
    world.server.set_under(&["env", "NATTER__WEBHOOKS__PRIVATE_ADDRESSES=false"].map(ToOwned::to_owned));
    world.restart();
    world.bob.send(BOT, "m1", "one");
    world.receiver.nothing_for(Duration::from_millis(1500));
    assert_eq!(world.receiver.connections(), connections);
    world.server.terminate();
    world.server.set_under(&[]);
    world.restart();
    assert_eq!(world.message()["id"], format!("{BOB}/m1"), "it has waited");
}

#[test]
fn the_cloud_apis_calls_register_and_remove() {
    let mut world = World::new();
    let second = Receiver::start();
    let call = |path: &str, body: &Value| world.bot.post(path, body);
    let number = format!("/v24.0/{BOT}");
    let of = |url: &str| json!({"webhook_configuration": {"override_callback_uri": url, "verify_token": "vt"}});
    // pywa's path ends in a slash.
    assert_eq!(call(&format!("{number}/"), &of(&second.url())).ok(), json!({"success": true}));
    world.bob.send(BOT, "m1", "one");
    assert_eq!(second.taken().value(BOT, SECRET)["messages"][0]["id"], format!("{BOB}/m1"), "the secret stays");
    // Acknowledged: what is not comes again, to whatever callback there is then.
    assert_receipt(&world.bob.entry(), "delivered", BOT, 0, 1);
    // Another's number, a token of one device, a version that is none.
    assert_eq!(call(&format!("/v24.0/{BOB}"), &of(&second.url())).status, 403);
    let bound = Client { token: Some(world.server.token_with(BOT, &["--device", "phone"])), ..world.bot.clone() };
    assert_eq!(bound.post(&number, &of(&second.url())).status, 403);
    assert_eq!(call(&format!("/vx/{BOT}"), &of(&second.url())).status, 404);
    let body = call(&number, &json!({"webhook": 1}));
    assert_eq!((body.status, &body.json()["error"]["code"]), (400, &json!(100)));

    let account = json!({"override_callback_uri": world.receiver.url(), "verify_token": "vt"});
    assert_eq!(call(&format!("{number}/subscribed_apps"), &account).ok(), json!({"success": true}));
    world.bob.send(BOT, "m2", "two");
    assert_eq!(world.message()["id"], format!("{BOB}/m2"));
    let shown = world.bot.get(&format!("{number}?fields=webhook_configuration")).ok();
    assert_eq!(shown, json!({"webhook_configuration": {"phone_number": world.receiver.url()}, "id": BOT}));
    assert_eq!(world.bot.get(&format!("/v24.0/{BOB}?fields=webhook_configuration")).status, 403);
    let key = world.bot.request("PUT", "/v1/webhook/secret", &[], b"").ok();
    let key = key["secret"].as_str().expect("a key that was made").to_owned();
    world.bob.send(BOT, "m3", "three");
    world.receiver.taken().value(BOT, &key);

    assert_eq!(call(&number, &of("")).ok(), json!({"success": true}));
    world.bot.get("/v1/webhook").refused(404, 100);
    world.bob.send(BOT, "m4", "four");
    world.receiver.nothing_for(Duration::from_millis(500));
    world.bot.request("PUT", "/v1/webhook/secret", &[], b"").refused(404, 100);
}

#[test]
fn a_key_that_is_made_is_told_once_and_the_device_is_no_clients() {
    let server = TestServer::start_with(PRIVATE);
    [BOT, BOB].into_iter().for_each(|name| server.add_user(name));
    let (bot, receiver) = (Client::of(&server, BOT), Receiver::start());
    let put = || {
        let body = json!({"url": receiver.url(), "verify_token": "vt"}).to_string();
        bot.request("PUT", "/v1/webhook", &[], body.as_bytes()).ok()
    };
    let key = put()["secret"].as_str().expect("a key").to_owned();
    assert_eq!(key.len(), 64);
    assert!(put().get("secret").is_none() && bot.get("/v1/webhook").ok().get("secret").is_none());
    let mut bob = Device::v5(&server, BOB, "phone");
    bob.send(BOT, "m1", "hi");
    receiver.taken().value(BOT, &key);
    let mut phone = Device::v5(&server, BOT, "phone");
    assert_eq!(phone.raw.subscribe(&format!("users/{BOT}/webhook/inbox"), 1), 0x87);
    assert_eq!(phone.raw.publish_and_wait(&format!("users/{BOT}/webhook/outbox"), "{}").0, 0x87);
    let nobody = Client::nobody(&server);
    for (method, path) in
        [("GET", "/v1/webhook"), ("PUT", "/v1/webhook"), ("DELETE", "/v1/webhook"), ("PUT", "/v1/webhook/secret")]
    {
        assert_eq!(nobody.request(method, path, &[], b"{}").status, 401, "{method} {path}");
    }
}

#[test]
fn s21_the_webhook_of_a_user_who_is_kept_out_rests() {
    let mut world = World::new();
    let desk = |world: &World, what: &str| {
        let status = natter().args(["user", what, BOT, "--data"]).arg(world.server.data()).status().unwrap();
        assert!(status.success());
    };
    desk(&world, "disable");
    world.bob.send(BOT, "m1", "one");
    world.receiver.nothing_for(Duration::from_millis(500));
    world.server.kill9();
    world.restart();
    world.receiver.nothing_for(Duration::from_millis(500));
    desk(&world, "enable");
    assert_eq!(world.message()["id"], format!("{BOB}/m1"));
}

/// The programs of a business, unchanged but for the base URL: pywa (Python) and @kapso/whatsapp-cloud-api (JavaScript).
fn play(mut command: Command, with_image: bool) {
    let server = TestServer::start_with("[webhooks]\nprivate_addresses = true\n");
    [BOT, BOB].into_iter().for_each(|name| server.add_user(name));
    let mut bob = Device::v5(&server, BOB, "phone");
    let world = json!({"base": format!("http://{}", server.http()), "token": server.token(BOT), "secret": SECRET,
        "bot": BOT, "person": BOB, "image": with_image});
    let mut child = command.arg(world.to_string()).stdout(std::process::Stdio::piped()).spawn().expect("the program");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("stdout")));
    let mut line = || -> Value { serde_json::from_str(&lines.next().expect("a line").expect("a line")).expect("JSON") };

    // It has registered its webhook and sent a text.
    let sent = line();
    let entry = bob.entry();
    assert_eq!(
        (&entry["id"], &entry["text"]["body"]),
        (&sent["sent"], &json!("hi \u{e4}\u{f6}\u{e5} \u{1f600}")),
        "{sent}"
    );
    if with_image {
        let sent = line();
        let entry = bob.entry();
        assert_eq!((&entry["id"], &entry["image"]["caption"]), (&sent["sent"], &json!("us")), "{entry}");
    }
    bob.mark_read(BOT, entry["n"].as_u64().unwrap());
    let answer = json!({"id": "r1", "to": BOT, "type": "text", "text": {"body": "an answer \u{e4}\u{1f600}"}, "context": {"message_id": entry["id"]}});
    assert_eq!(bob.publish(&answer).0, 0);
    // What its webhook got, as the library reads it; then it has answered and marked as read.
    let (mut statuses, mut message) = (Vec::new(), Value::Null);
    while statuses.len() < 3 || message.is_null() {
        let got = line();
        match got["status"].as_str() {
            Some(status) if got["id"] == entry["id"] => statuses.push(status.to_owned()),
            Some(_) => {}
            None => message = got,
        }
    }
    // They came in order; a library may handle them in threads.
    statuses.sort_unstable();
    assert_eq!(statuses, ["delivered", "read", "sent"]);
    let expected = json!({"from": BOB, "text": "an answer \u{e4}\u{1f600}", "context": entry["id"]});
    assert_eq!(message["message"], expected, "{message}");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let entry = bob.entry();
        match (entry["type"].as_str(), entry["status"].as_str()) {
            (Some("text"), _) => {
                assert_eq!(
                    (&entry["text"]["body"], &entry["context"]["message_id"]),
                    (&json!("echo"), &json!("r1")),
                    "{entry}"
                );
                seen.push("echo");
            }
            (_, Some("read")) => seen.push("read"),
            _ => {}
        }
    }
    // A body whose signature is wrong is refused by the library: its checks are on.
    assert_eq!(line()["forged"].as_u64().map(|status| (401..=403).contains(&status)), Some(true));
    assert!(child.wait().expect("its end").success());
}

fn source(file: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(file)
}

fn with_image() -> bool {
    // Media have routes: then a picture goes along.
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("bridge/src/http/media.rs").exists()
}

#[test]
fn pywa_unchanged() {
    if let Some(python) = common::interop::installed("venv/bin/python") {
        let mut command = Command::new(python);
        command.arg(source("bot.py"));
        play(command, with_image());
    }
}

#[test]
fn kapso_whatsapp_cloud_api_unchanged() {
    if let Some(modules) = common::interop::installed("js/node_modules") {
        let mut command = Command::new("node");
        command.arg(source("bot.mjs")).arg(modules.parent().expect("a directory"));
        play(command, with_image());
    }
}
