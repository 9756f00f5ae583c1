//! Every route, read from the server's own document: who may call it, and what nobody may do to it.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use common::http::exchange;
use common::{Client, Device, TestServer, dial, patience};
use serde_json::{Value, json};

/// Operations that ask for no token.
const OPEN: [&str; 4] = ["POST /v1/users", "POST /v1/users/login", "POST /v1/devices", "GET /v1/media/{id}/content"];

/// An operation of the document.
struct Operation {
    method: String,
    path: String,
    asks_for_a_token: bool,
    responses: Value,
}

impl Operation {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

fn operations(server: &TestServer) -> Vec<Operation> {
    let document = Client::nobody(server).get("/openapi.json").ok();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "put", "post", "delete", "options", "head", "patch", "trace"] {
            let Some(operation) = item.get(method) else { continue };
            let asks_for_a_token = operation["security"].as_array().is_some_and(|ways| !ways.is_empty());
            let (method, responses) = (method.to_uppercase(), operation["responses"].clone());
            all.push(Operation { method, path: path.clone(), asks_for_a_token, responses });
        }
    }
    assert!(all.len() >= 10, "a document with all routes");
    all
}

/// The path with something in the place of every name.
fn filled(path: &str, names: &[(&str, &str)]) -> String {
    let mut path = path.to_owned();
    for (name, value) in names {
        path = path.replace(&format!("{{{name}}}"), value);
    }
    let names = ["version", "user", "id", "chat", "n", "media_id", "device", "jti", "group", "code"];
    let usual = ["24.0", "alice", "1234567890123456", "bob", "1", "1234567890123456", "phone", "x", "g:42", "abc"];
    for (name, value) in names.iter().zip(usual) {
        path = path.replace(&format!("{{{name}}}"), value);
    }
    assert!(!path.contains('{'), "{path}: a name that this test does not know");
    path
}

/// The codes of a 401, in every shape.
fn assert_no_token(operation: &Operation, answer: &common::Answer) {
    assert_eq!(answer.status, 401, "{}: {answer:?}", operation.name());
    answer.refused(401, 190);
    let documented = &operation.responses["401"]["content"];
    assert!(documented.get(answer.header("content-type").unwrap()).is_some(), "{}: {documented}", operation.name());
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{}", operation.name());
}

#[test]
fn s59_every_route_asks_for_a_token() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let nobody = Client::nobody(&server);
    let good = server.token("alice");
    let parts: Vec<&str> = good.split('.').collect();
    let unsigned = format!("{}.{}.", parts[0], parts[1]);
    let cut = &good[..good.len() - 4];
    for operation in operations(&server) {
        if !operation.asks_for_a_token {
            assert!(OPEN.contains(&operation.name().as_str()), "{}: open, and not meant to be", operation.name());
            continue;
        }
        let path = filled(&operation.path, &[]);
        let call = |headers: &[(&str, &str)]| nobody.request(&operation.method, &path, headers, b"{}");
        assert_no_token(&operation, &call(&[]));
        for token in ["", "x", "a.b.c", &unsigned, cut] {
            assert_no_token(&operation, &call(&[("authorization", &format!("Bearer {token}"))]));
        }
        assert_no_token(&operation, &call(&[("authorization", &format!("Basic {good}"))]));
        assert_no_token(&operation, &call(&[("d360-api-key", "x")]));
        let in_query = nobody.request(&operation.method, &format!("{path}?access_token=x"), &[], b"{}");
        assert_no_token(&operation, &in_query);
    }
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, b| word << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(word >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    text
}

#[test]
fn s16_s17_s18_s25_the_head_of_a_token_chooses_nothing() {
    let server = TestServer::with_users(&["alice"]);
    let alice = Client::of(&server, "alice");
    alice.get("/messages").ok();
    let good = alice.token.clone().unwrap();
    let (_, rest) = good.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    for head in [
        json!({"alg": "none"}),
        json!({"alg": "HS256", "typ": "JWT"}),
        json!({"alg": "RS256"}),
        json!({"alg": "EdDSA", "kid": "../../etc/passwd"}),
        json!({"alg": "EdDSA", "kid": "' OR 1=1 --"}),
        json!({"alg": "EdDSA", "jku": "http://127.0.0.1/keys", "x5u": "http://127.0.0.1/keys"}),
        json!({"alg": "EdDSA", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}}),
        json!({"alg": "EdDSA", "crit": ["exp"]}),
    ] {
        let head = base64url(head.to_string().as_bytes());
        for token in [format!("{head}.{claims}.{signature}"), format!("{head}.{claims}.")] {
            Client { token: Some(token), ..alice.clone() }.get("/messages").refused(401, 190);
        }
    }
    Client { token: Some("a".repeat(100_000)), ..alice }.get("/messages").refused(401, 190);
}

#[test]
fn s20_a_token_for_something_else_opens_nothing() {
    let server = TestServer::with_users(&["alice"]);
    let expired = Client { address: server.http(), token: Some(server.token_with("alice", &["--ttl", "1s"])) };
    // Its second is over when the server says so.
    let deadline = Instant::now() + patience();
    while expired.get("/messages").status == 200 {
        assert!(Instant::now() < deadline, "the token does not expire");
        std::thread::sleep(Duration::from_millis(50));
    }
    for operation in operations(&server).iter().filter(|operation| operation.asks_for_a_token) {
        let answer = expired.request(&operation.method, &filled(&operation.path, &[]), &[], b"{}");
        assert_no_token(operation, &answer);
    }
}

/// How an operation speaks of something of alice's when somebody else calls it; `None`: it speaks of nothing but its caller's.
fn of_alice(name: &str, media: &str, group: &str) -> Option<(String, Value)> {
    let cloud = format!("/v24.0/{media}");
    let own = format!("/v1/media/{media}");
    let of_group = |rest: &str| format!("/v1/groups/{group}{rest}");
    if let Some((method, rest)) = name.split_once(" /v1/groups/{group}") {
        let body = match (method, rest) {
            ("PATCH", "") => json!({"subject": "of mallory"}),
            ("POST", "/members") => json!({"users": ["mallory"]}),
            _ => json!({}),
        };
        return Some((of_group(&rest.replace("{user}", "alice").replace("{n}", "1")), body));
    }
    let (path, body) = match name {
        "GET /messages" => ("/messages?user_id=alice", json!({})),
        "POST /messages" => ("/messages", json!({"sender_ID": "alice", "reciever_ID": "alice", "text": "hi"})),
        "POST /messages/ack" => ("/messages/ack", json!({"user_id": "alice", "ack": 1})),
        "POST /v{version}/{user}/messages" => ("/v24.0/alice/messages", json!({"to": "alice", "text": {"body": "hi"}})),
        // An entry of alice's inbox that went out as a stub.
        "GET /v1/messages/{chat}/{n}" => ("/v1/messages/bob/1", json!({})),
        // A mark speaks of what its caller has received.
        "PUT /v1/messages/{id}" => ("/v1/messages/for-alice", json!({"status": "read"})),
        "PUT /v1/messages/{chat}/{n}" => ("/v1/messages/bob/for-alice", json!({"status": "read"})),
        "GET /v1/media/{id}" | "DELETE /v1/media/{id}" => (own.as_str(), json!({})),
        "GET /v{version}/{user}" | "DELETE /v{version}/{user}" => (cloud.as_str(), json!({})),
        "GET /v1/status/{id}/viewers" => ("/v1/status/hers/viewers", json!({})),
        "DELETE /v1/status/{id}" => ("/v1/status/hers", json!({})),
        "GET /v{version}/{user}/block_users"
        | "POST /v{version}/{user}/block_users"
        | "DELETE /v{version}/{user}/block_users" => ("/v24.0/alice/block_users", json!({"block_users": []})),
        "POST /v{version}/{user}/media" => ("/v24.0/alice/media", json!({})),
        "POST /v{version}/{user}" => ("/v24.0/alice", json!({"webhook_configuration": {"override_callback_uri": ""}})),
        "POST /v{version}/{user}/subscribed_apps" => ("/v24.0/alice/subscribed_apps", json!({})),
        "POST /v1/messages"
        | "POST /v1/media"
        | "GET /v1/media"
        | "GET /v1/webhook"
        | "PUT /v1/webhook"
        | "DELETE /v1/webhook"
        | "PUT /v1/webhook/secret"
        | "POST /v1/users/refresh"
        | "POST /v1/users/logout"
        | "POST /v1/users/revoke"
        | "POST /v1/users/password"
        | "POST /v1/users/disable"
        | "POST /v1/contacts"
        | "GET /v1/contacts"
        | "POST /v1/contacts/import"
        | "PUT /v1/contacts/{user}"
        | "DELETE /v1/contacts/{user}"
        | "GET /v1/blocks"
        | "PUT /v1/blocks/{user}"
        | "DELETE /v1/blocks/{user}"
        | "GET /v1/groups"
        | "POST /v1/groups"
        // Whoever has the code is meant.
        | "GET /v1/groups/invites/{code}"
        | "POST /v1/groups/join"
        | "GET /v1/presence/{user}"
        | "GET /v1/privacy"
        | "PUT /v1/privacy"
        | "GET /v1/devices"
        | "POST /v1/devices/codes"
        | "DELETE /v1/devices/{device}"
        | "POST /v1/status"
        | "GET /v1/status"
        | "GET /v1/configs/templates"
        | "GET /v{version}/{user}/message_templates" => return None,
        other => panic!("{other}: a new route needs a line here: how does it speak of something of alice's?"),
    };
    Some((path.to_owned(), body))
}

#[test]
fn s59_nobody_reaches_what_is_anothers() {
    let server = TestServer::with_users(&["alice", "bob", "mallory"]);
    let (alice, bob) = (Client::of(&server, "alice"), Client::of(&server, "bob"));
    let mut small = common::Connect::v5("alice", "alice-esp32", &server.token("alice"));
    small.packet_bytes_max = Some(1000);
    let mut esp32 = Device::open(server.mqtt(), small, "esp32");
    bob.post("/messages", &json!({"reciever_ID": "alice", "id": "for-alice", "text": "x".repeat(5000)})).ok();
    assert_eq!(esp32.entry()["type"], "unsupported");
    assert_eq!(alice.get("/v1/messages/bob/1").ok()["text"]["body"], "x".repeat(5000), "she has it");

    let media = alice.request("POST", "/v1/media?name=secret.txt", &[("content-type", "text/plain")], b"xxxx").ok();
    let media = media["id"].as_str().unwrap();
    alice.post("/v1/status", &json!({"text": "xxxx", "id": "hers"})).ok();
    let group = alice.post("/v1/groups", &json!({"subject": "xxxx", "users": ["bob"]})).ok();
    let group = group["group"].as_str().unwrap();
    let link = alice.post(&format!("/v1/groups/{group}/invite_link"), &json!({})).ok();
    let mallory = Client::of(&server, "mallory");
    for operation in operations(&server).iter().filter(|operation| operation.asks_for_a_token) {
        let Some((path, body)) = of_alice(&operation.name(), media, group) else { continue };
        let answer = mallory.request(&operation.method, &path, &[], body.to_string().as_bytes());
        // An id that is unknown is 400 in WhatsApp's APIs, whatever it is of.
        let is_unknown = body.get("status").is_some() || path.ends_with(media) && path.starts_with("/v24.0/");
        let expected: &[u16] = if is_unknown { &[400] } else { &[403, 404] };
        assert!(expected.contains(&answer.status), "{}: {answer:?}", operation.name());
        assert!(!String::from_utf8_lossy(&answer.body).contains("xxxx"), "{}", operation.name());
    }
    assert_eq!(mallory.get("/v1/media?name=secret.txt").ok()["media"], json!([]));
    assert_eq!(mallory.get("/v1/status?from=alice").ok()["statuses"], json!([]));
    assert_eq!(alice.get(&format!("/v1/media/{media}")).body, b"xxxx", "it is there still");
    assert_eq!(alice.get("/v1/status").ok()["statuses"][0]["id"], "hers", "and so is that");
    assert_eq!(mallory.get("/v1/groups").ok()["groups"], json!([]));
    let shown = alice.get(&format!("/v1/groups/{group}")).ok();
    let who: Vec<&Value> = shown["members"].as_array().unwrap().iter().map(|member| &member["user"]).collect();
    assert_eq!((&shown["subject"], who), (&json!("xxxx"), vec![&json!("alice"), &json!("bob")]));
    assert_eq!(alice.get(&format!("/v1/groups/{group}/invite_link")).ok(), link, "the link is the same");
    let page = bob.get("/messages").ok();
    let entries = page["messages"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "no mark of mallory's, and no message: {page}");
    assert_eq!(entries[0]["system"]["type"], "group_created");
}

#[test]
fn s24_guesses_shut_their_address_out() {
    let server = TestServer::start_with("[door]\nloopback_counts = true\nauth_failures_per_min = 5\n");
    server.add_user("alice");
    let alice = Client::of(&server, "alice");
    let guess = Client { token: Some("a.b.c".into()), ..alice.clone() };
    let statuses: Vec<u16> = (0..1000).map(|_| guess.get("/messages").status).collect();
    let first_throttled = statuses.iter().position(|status| *status == 429).expect("some are throttled");
    assert!(first_throttled <= 6, "{first_throttled}");
    assert!(statuses[..first_throttled].iter().all(|status| *status == 401));
    let refused = alice.get("/messages");
    refused.refused(429, 130_429);
    assert!(refused.header("retry-after").is_some_and(|secs| secs.parse::<u64>().is_ok()), "{refused:?}");
}

#[test]
fn s22_s77_tokens_and_bodies_are_in_no_log() {
    let server = TestServer::start_under(&["env".to_owned(), "RUST_LOG=trace".to_owned()]);
    server.add_user("alice");
    let alice = Client::of(&server, "alice");
    let token = alice.token.clone().unwrap();
    let signature = token.rsplit('.').next().unwrap().to_owned();
    alice.post("/messages", &json!({"reciever_ID": "alice", "text": "a secret of alice's"})).ok();
    Client::nobody(&server).get(&format!("/messages?access_token={token}")).ok();
    alice.post("/messages", &json!({"reciever_ID": "nobody", "text": "a secret of alice's"})).refused(404, 131_026);
    alice.request("POST", "/messages", &[], b"{\"text\":\"a secret of alice's\"").refused(400, 100);
    // The last line there is to be.
    server.hang_up();
    let (mut lines, deadline) = (Vec::new(), Instant::now() + patience());
    while !lines.iter().any(|line: &String| line.contains("SIGHUP")) {
        assert!(Instant::now() < deadline, "no end of the log");
        std::thread::sleep(Duration::from_millis(10));
        lines.extend(server.log_so_far());
    }
    assert!(lines.iter().any(|line| line.contains("TRACE")), "a log that says everything");
    lines.retain(|line| line.contains("secret of alice") || line.contains(&signature));
    assert!(lines.is_empty(), "{lines:?}");
}

#[test]
fn s61_requests_that_two_servers_may_read_differently_are_refused() {
    let server = TestServer::with_users(&["alice"]);
    let token = server.token("alice");
    let head = |more: &str| format!("POST /messages HTTP/1.1\r\nauthorization: Bearer {token}\r\n{more}\r\n");
    for more in [
        "host: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n",
        "host: x\r\ncontent-length: +5\r\n",
        "host: x\r\ncontent-length: 5, 6\r\n",
        "host: x\r\ntransfer-encoding: xchunked\r\n",
        "host: x\r\nbad header: x\r\n",
        "host: x\r\n folded: x\r\n",
    ] {
        let answer = exchange(server.http(), &[head(more).as_bytes(), b"hello!"].concat());
        assert!(answer.as_ref().is_none_or(|answer| answer.status == 400), "{more:?}: {answer:?}");
    }
    // Both: the chunks count, and the connection ends with the answer, so that nothing can be hidden behind it.
    let both = "host: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n";
    let smuggled = format!("{}0\r\n\r\nGET /messages?smuggled=1 HTTP/1.1\r\nhost: x\r\n\r\n", head(both));
    let mut stream = dial(server.http());
    stream.set_read_timeout(Some(patience())).unwrap();
    stream.write_all(smuggled.as_bytes()).unwrap();
    let mut answers = String::new();
    let _ = stream.read_to_string(&mut answers);
    assert!(answers.matches("HTTP/1.1 ").count() <= 1, "{answers}");
}

#[test]
fn s60_heads_have_an_end() {
    let server = TestServer::start();
    let huge = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let answer = exchange(server.http(), huge.as_bytes());
    assert!(answer.as_ref().is_none_or(|answer| answer.status == 431), "{answer:?}");
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(1000));
    let answer = exchange(server.http(), many.as_bytes());
    assert!(answer.as_ref().is_none_or(|answer| answer.status == 431), "{answer:?}");
    // HTTP/2 is not spoken: its floods find nobody.
    let answer = exchange(server.http(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(answer.as_ref().is_none_or(|answer| answer.status >= 400), "{answer:?}");
}

#[test]
fn s62_other_origins_get_no_leave() {
    let server = TestServer::with_users(&["alice"]);
    let alice = Client::of(&server, "alice");
    let origin = [("origin", "https://evil.example"), ("cookie", "session=1")];
    for answer in [
        alice.request("GET", "/messages", &origin, b""),
        alice.request("OPTIONS", "/messages", &[origin[0], ("access-control-request-method", "POST")], b""),
    ] {
        assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("access-control-")), "{answer:?}");
        assert_eq!(answer.header("set-cookie"), None);
    }
}

#[test]
fn s63_s80_the_public_listener_shows_nothing_of_the_admins() {
    let server = TestServer::start();
    assert!(server.http().ip().is_loopback() && server.admin().ip().is_loopback());
    let nobody = Client::nobody(&server);
    for path in ["/metrics", "/healthz", "/readyz", "/debug", "/admin", "/config"] {
        assert_eq!(nobody.get(path).status, 404, "{path}");
    }
}

#[test]
fn the_document_is_whole_and_the_page_needs_nothing_from_elsewhere() {
    let server = TestServer::start();
    let nobody = Client::nobody(&server);
    let document = nobody.get("/openapi.json").ok();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let mut ids: BTreeMap<&str, usize> = BTreeMap::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            *ids.entry(operation["operationId"].as_str().unwrap()).or_default() += 1;
            assert!(operation["summary"].as_str().is_some_and(|words| !words.is_empty()), "{operation}");
        }
    }
    assert!(ids.values().all(|count| *count == 1), "operation ids are names: {ids:?}");
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
    let page = nobody.get("/docs");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    let html = String::from_utf8(page.body).unwrap();
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
}
