//! Accounts over HTTP and at the desk: registration, passwords, tokens and their end, users who are kept out. Security tests S16, S20,
//! S21, S24, S25, S77 and S80.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use common::http::{Answer, Client};
use common::server::natter;
use common::{Connect, Device, TestServer, assert_receipt, assert_text, dial, patience};
use serde_json::{Value, json};

const OPEN: &str = "[accounts]\nregistration = \"open\"\nregistrations_per_min = 1000\n";
const PASSWORD: &str = "correct horse battery";

#[track_caller]
fn post(server: &TestServer, path: &str, token: Option<&str>, body: Value) -> Answer {
    let client = Client { address: server.http(), token: token.map(ToOwned::to_owned) };
    if body.is_null() { client.request("POST", path, &[], b"") } else { client.post(path, &body) }
}

/// With these headers alone.
#[track_caller]
fn request(server: &TestServer, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    Client::nobody(server).request("POST", "/v1/users/login", headers, body)
}

/// The answer has that status, and that code if it is no success.
#[track_caller]
fn expect(answer: &Answer, status: u16, code: u64) -> Value {
    let body = answer.json();
    assert_eq!((answer.status, body["code"].as_u64().unwrap_or(0)), (status, code), "{body}");
    body
}

#[track_caller]
fn token_of(answer: &Answer) -> String {
    assert!((200..300).contains(&answer.status), "{}", String::from_utf8_lossy(&answer.body));
    answer.json()["token"].as_str().expect("a token").to_owned()
}

#[track_caller]
fn register(server: &TestServer, name: &str) -> String {
    token_of(&post(server, "/v1/users", None, json!({"user": name, "password": PASSWORD})))
}

#[track_caller]
fn login(server: &TestServer, name: &str, password: &str) -> Answer {
    post(server, "/v1/users/login", None, json!({"user": name, "password": password}))
}

/// Whether a token opens the HTTP API.
#[track_caller]
fn works(server: &TestServer, token: &str) -> bool {
    let answer = post(server, "/v1/users/revoke", Some(token), json!({}));
    match answer.status {
        400 => true,
        401 => false,
        other => panic!("{other}: {}", String::from_utf8_lossy(&answer.body)),
    }
}

/// `natter user ...`, with a line on stdin.
fn desk(server: &TestServer, arguments: &[&str], line: &str) -> (bool, String) {
    let mut child = natter()
        .args(["user"])
        .args(arguments)
        .arg("--data")
        .arg(server.data())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{line}").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[track_caller]
fn done(server: &TestServer, arguments: &[&str], line: &str) {
    let (success, text) = desk(server, arguments, line);
    assert!(success, "{arguments:?}: {text}");
}

fn device(server: &TestServer, user: &str, device: &str, token: &str) -> Device {
    Device::open(server.mqtt(), Connect::v5(user, &format!("{user}-{device}"), token), device)
}

#[test]
fn s80_registration_is_closed_until_it_is_opened() {
    let server = TestServer::start();
    let answer = post(&server, "/v1/users", None, json!({"user": "alice", "password": PASSWORD}));
    let body = expect(&answer, 403, 10);
    assert!(body["detail"].as_str().unwrap().contains("natter user add"), "{body}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    expect(&login(&server, "alice", PASSWORD), 401, 190);
}

#[test]
fn who_registers_logs_in_and_talks_over_both_doors() {
    let server = TestServer::start_with(OPEN);
    let first = post(&server, "/v1/users", None, json!({"user": "+15550001", "password": PASSWORD}));
    assert_eq!((first.status, &first.json()["user"]), (201, &json!("15550001")));
    register(&server, "bob");
    let answer = login(&server, "15550001", PASSWORD);
    let body = answer.json();
    assert_eq!(answer.status, 200);
    assert_eq!(body["users"][0]["token"], body["token"], "in the words of the on-premises API too");
    let expires_after = body["users"][0]["expires_after"].as_str().unwrap();
    assert!(expires_after.ends_with("+00:00") && expires_after.len() == 25, "{expires_after}");
    let mut alice = device(&server, "15550001", "phone", &token_of(&answer));
    let bobs = token_of(&post(
        &server,
        "/v1/users/login",
        None,
        json!({"user": "bob", "password": PASSWORD, "device": "phone"}),
    ));
    let mut bob = device(&server, "bob", "phone", &bobs);
    alice.send("bob", "m1", "hi");
    assert_text(&bob.entry(), "15550001", "hi");
    // The token of one device opens no other one.
    let (mut other, _) = Connect::v5("bob", "bob-tablet", &bobs).open(server.mqtt());
    assert_eq!(other.subscribe("users/bob/tablet/inbox", 1), 0x87);

    expect(&post(&server, "/v1/users", None, json!({"user": "bob", "password": "another password"})), 409, 1409);
    assert_eq!(login(&server, "bob", PASSWORD).status, 200, "his password stays");
}

#[test]
fn what_is_no_user_or_no_password_is_refused_and_never_repeated() {
    let server = TestServer::start_with(OPEN);
    for (body, status, code) in [
        (json!({"user": "Alice", "password": PASSWORD}), 400, 131_009),
        (json!({"user": "system", "password": PASSWORD}), 400, 131_009),
        (json!({"user": "alice", "password": "short"}), 400, 131_009),
        (json!({"user": "alice", "password": "x".repeat(1025)}), 400, 131_009),
        (json!({"user": "alice", "password": PASSWORD, "device": "a/b"}), 400, 131_009),
        (json!({"user": "alice"}), 400, 100),
        (json!({"user": "alice", "password": 12_345_678}), 400, 100),
        (json!({"user": "alice", "password": PASSWORD, "admin": true}), 400, 100),
        (json!(["alice", PASSWORD]), 400, 100),
        (json!("x"), 400, 100),
    ] {
        let answer = post(&server, "/v1/users", None, body);
        let text = expect(&answer, status, code).to_string();
        assert!(!text.contains(PASSWORD) && !text.contains("12345678") && !text.contains("short\\\""), "{text}");
    }
    expect(&login(&server, "alice", PASSWORD), 401, 190);
}

#[test]
fn basic_authentication_logs_in_and_may_change_the_password_at_once() {
    let server = TestServer::start_with(OPEN);
    let before = register(&server, "alice");
    // alice:correct horse battery
    let basic = [("Authorization", "Basic YWxpY2U6Y29ycmVjdCBob3JzZSBiYXR0ZXJ5"), ("Content-Type", "application/json")];
    let answer = request(&server, &basic, b"");
    let token = answer.json()["users"][0]["token"].as_str().expect("a token").to_owned();
    assert!(works(&server, &token));
    let answer = request(&server, &basic, br#"{"new_password":"short"}"#);
    let body = expect(&answer, 400, 131_009);
    assert_eq!(body["errors"][0]["code"], 1009, "the on-premises API's words: {body}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let answer = request(&server, &basic, br#"{"new_password":"another password"}"#);
    let token = token_of(&answer);
    assert!(works(&server, &token), "the token that comes with the new password");
    assert!(!works(&server, &before), "those before it have ended");
    expect(&request(&server, &basic, b""), 401, 190);
    assert_eq!(login(&server, "alice", "another password").status, 200);
    for wrong in ["Basic", "Basic !!!!", "Basic YWxpY2U=", "Bearer x"] {
        let answer = request(&server, &[("Authorization", wrong)], b"");
        expect(&answer, 400, 100);
    }
}

#[test]
fn a_renewed_token_has_the_rights_of_the_one_before_and_no_others() {
    let server = TestServer::start_with(OPEN);
    register(&server, "alice");
    let of_phone = token_of(&post(
        &server,
        "/v1/users/login",
        None,
        json!({"user": "alice", "password": PASSWORD, "device": "phone"}),
    ));
    let renewed = token_of(&post(&server, "/v1/users/refresh", Some(&of_phone), Value::Null));
    assert_ne!(renewed, of_phone);
    assert!(works(&server, &of_phone) && works(&server, &renewed));
    let (mut raw, _) = Connect::v5("alice", "c", &renewed).open(server.mqtt());
    assert_eq!(raw.subscribe("users/alice/tablet/inbox", 1), 0x87, "still of the phone alone");
    assert_eq!(raw.subscribe("users/alice/phone/inbox", 1), 1);
    // S20: another's words are no token.
    for wrong in ["", "x", "a.b.c"] {
        expect(&post(&server, "/v1/users/refresh", Some(wrong), Value::Null), 401, 190);
    }
    expect(&post(&server, "/v1/users/refresh", None, Value::Null), 401, 190);
}

#[test]
fn s21_a_token_ends_with_its_logout_and_its_connection_with_it() {
    let server = TestServer::start_with(OPEN);
    let (one, two) = (register(&server, "alice"), token_of(&login(&server, "alice", PASSWORD)));
    let mut phone = device(&server, "alice", "phone", &one);
    let mut tablet = device(&server, "alice", "tablet", &two);
    assert_eq!(post(&server, "/v1/users/logout", Some(&one), Value::Null).json(), json!({"success": true}));
    let began = Instant::now();
    assert_eq!(phone.raw.expect_end(), Some(0x87));
    assert!(began.elapsed() < Duration::from_secs(5));
    expect(&post(&server, "/v1/users/logout", Some(&one), Value::Null), 401, 190);
    Connect::v5("alice", "c", &one).refused(server.mqtt(), 0x86);
    tablet.raw.ping();
    assert!(works(&server, &two));
}

/// A request, but for the last `withheld` bytes of its body.
fn begin(server: &TestServer, token: &str, line: &str, body: &str, withheld: usize) -> TcpStream {
    let mut stream = dial(server.http());
    let length = body.len();
    let head =
        format!("{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body.as_bytes()[..length - withheld]).unwrap();
    stream
}

#[test]
fn s21_a_logout_whose_client_hangs_up_is_done_whole_or_not_at_all() {
    let mut server = TestServer::start_with(&format!("{OPEN}renewals_per_min = 1000\n"));
    register(&server, "alice");
    let tokens: Vec<String> = (0..40).map(|_| token_of(&login(&server, "alice", PASSWORD))).collect();
    for (token, n) in tokens.iter().zip(0..) {
        let stream = begin(&server, token, "POST /v1/users/logout", "", 0);
        // Somewhere between its arrival and its answer.
        thread::sleep(Duration::from_micros(100 * (n % 40)));
        drop(stream);
    }
    // What is asked later is committed later.
    post(&server, "/v1/users/logout", Some(&token_of(&login(&server, "alice", PASSWORD))), Value::Null).ok();
    let before: Vec<bool> = tokens.iter().map(|token| works(&server, token)).collect();
    server.kill9();
    server.restart();
    let after: Vec<bool> = tokens.iter().map(|token| works(&server, token)).collect();
    assert_eq!(before, after, "a token that works until the next start is revoked on disk only");
    assert!(before.contains(&false), "no logout came through: the test shows nothing");
}

#[test]
fn s21_what_ends_after_its_token_does_is_refused() {
    let server = TestServer::start_with(OPEN);
    let alice = register(&server, "alice");
    let requests = [
        ("POST /messages", r#"{"to":"alice","text":"hi","id":"late"}"#),
        ("POST /v24.0/alice/messages", r#"{"messaging_product":"whatsapp","to":"alice","text":{"body":"hi"}}"#),
        ("PUT /v1/webhook", r#"{"url":"https://callback.example/"}"#),
    ];
    let held: Vec<_> = requests.map(|(line, body)| (line, begin(&server, &alice, line, body, 1))).into();
    post(&server, "/v1/users/logout", Some(&alice), Value::Null).ok();
    for (line, mut stream) in held {
        stream.write_all(b"}").unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 401", "{line}");
    }
    let again = token_of(&login(&server, "alice", PASSWORD));
    let client = Client { address: server.http(), token: Some(again) };
    assert_eq!(client.get("/messages").ok()["messages"], json!([]), "nothing was sent");
    assert_eq!(client.get("/v1/webhook").status, 404);
}

#[test]
fn s60_a_body_that_does_not_come_ends_its_request() {
    let server = TestServer::start_with(OPEN);
    let alice = register(&server, "alice");
    let lines =
        ["POST /v1/users/login", "POST /v1/users", "POST /v1/users/password", "PUT /v1/webhook", "POST /messages"];
    let held: Vec<_> = lines.map(|line| (line, begin(&server, &alice, line, "{\"user\":1}", 4))).into();
    let began = Instant::now();
    for (line, mut stream) in held {
        stream.set_read_timeout(Some(Duration::from_secs(45))).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 408", "{line}");
    }
    assert!(began.elapsed() > Duration::from_secs(20), "it had time");
}

#[test]
fn s21_what_is_revoked_stays_revoked_after_a_kill() {
    let mut server = TestServer::start_with(OPEN);
    let of = |device: Option<&str>| json!({"user": "alice", "password": PASSWORD, "device": device});
    let one = register(&server, "alice");
    let [phone, tablet] =
        ["phone", "tablet"].map(|name| token_of(&post(&server, "/v1/users/login", None, of(Some(name)))));
    let other = token_of(&login(&server, "alice", PASSWORD));
    let mut live = device(&server, "alice", "phone", &phone);
    assert_eq!(post(&server, "/v1/users/revoke", Some(&one), json!({"device": "phone"})).status, 200);
    assert_eq!(live.raw.expect_end(), Some(0x87));
    assert_eq!(post(&server, "/v1/users/revoke", Some(&one), json!({"token": other})).status, 200);
    server.kill9();
    server.restart();
    assert!(!works(&server, &phone) && !works(&server, &other));
    assert!(works(&server, &tablet) && works(&server, &one));
    // A login in the same second as the revocation is not taken along.
    assert_eq!(post(&server, "/v1/users/revoke", Some(&one), json!({"all": true})).status, 200);
    let after = token_of(&login(&server, "alice", PASSWORD));
    assert!(works(&server, &after) && !works(&server, &one) && !works(&server, &tablet));
    server.kill9();
    server.restart();
    assert!(works(&server, &after) && !works(&server, &one));
}

#[test]
fn the_token_of_one_device_reaches_no_further_without_the_password() {
    let server = TestServer::start_with(OPEN);
    let all = register(&server, "alice");
    let of_phone = || {
        token_of(&post(
            &server,
            "/v1/users/login",
            None,
            json!({"user": "alice", "password": PASSWORD, "device": "phone"}),
        ))
    };
    let phone = of_phone();
    for body in [json!({"all": true}), json!({"device": "tablet"}), json!({"jti": "x"})] {
        expect(&post(&server, "/v1/users/revoke", Some(&phone), body.clone()), 403, 10);
        let mut wrong = body.clone();
        wrong["password"] = json!("not her password");
        expect(&post(&server, "/v1/users/revoke", Some(&phone), wrong), 401, 190);
        assert!(works(&server, &all), "{body}");
    }
    expect(&post(&server, "/v1/users/disable", Some(&phone), Value::Null), 403, 10);
    let answer = post(&server, "/v1/users/revoke", Some(&phone), json!({"device": "phone"}));
    assert_eq!(answer.status, 200, "its own device");
    let phone = of_phone();
    let answer = post(&server, "/v1/users/revoke", Some(&phone), json!({"all": true, "password": PASSWORD}));
    assert_eq!(answer.status, 200);
    assert!(!works(&server, &all) && !works(&server, &phone));
    // Nobody ends another's tokens.
    let (bob, alice) = (register(&server, "bob"), token_of(&login(&server, "alice", PASSWORD)));
    expect(&post(&server, "/v1/users/revoke", Some(&bob), json!({"token": alice})), 400, 131_009);
    assert!(works(&server, &alice));
    for body in
        [json!({}), json!({"all": true, "device": "phone"}), json!({"jti": ""}), json!({"jti": "x".repeat(129)})]
    {
        expect(&post(&server, "/v1/users/revoke", Some(&bob), body), 400, 100);
    }
}

#[test]
fn another_password_ends_every_token_and_connection() {
    let mut server = TestServer::start_with(OPEN);
    let token = register(&server, "alice");
    let mut phone = device(&server, "alice", "phone", &token);
    let change = |old: &str, new: &str| json!({"password": old, "new_password": new});
    expect(&post(&server, "/v1/users/password", Some(&token), change("wrong password", "another password")), 401, 190);
    expect(&post(&server, "/v1/users/password", Some(&token), change(PASSWORD, "short")), 400, 131_009);
    phone.raw.ping();
    let renewed = token_of(&post(&server, "/v1/users/password", Some(&token), change(PASSWORD, "another password")));
    assert_eq!(phone.raw.expect_end(), Some(0x87));
    server.kill9();
    server.restart();
    assert!(works(&server, &renewed) && !works(&server, &token));
    expect(&login(&server, "alice", PASSWORD), 401, 190);
    // At the desk, whether the server runs or not.
    done(&server, &["password", "alice"], "a third password");
    assert!(!works(&server, &renewed));
    assert_eq!(login(&server, "alice", "a third password").status, 200);
    server.terminate();
    done(&server, &["password", "alice"], "a fourth password");
    let (success, text) = desk(&server, &["password", "alice"], "short");
    assert!(!success && text.contains("8 characters"), "{text}");
    let (success, text) = desk(&server, &["password", "nobody"], "a fourth password");
    assert!(!success && text.contains("no such user"), "{text}");
    server.restart();
    expect(&login(&server, "alice", "a third password"), 401, 190);
    assert_eq!(login(&server, "alice", "a fourth password").status, 200);
}

#[test]
fn s21_who_is_kept_out_is_cut_and_what_is_written_to_him_waits() {
    let mut server = TestServer::start_with(OPEN);
    let (alices, bobs) = (register(&server, "alice"), register(&server, "bob"));
    let mut alice = device(&server, "alice", "phone", &alices);
    let mut bob = device(&server, "bob", "phone", &bobs);
    let began = Instant::now();
    done(&server, &["disable", "bob"], "");
    assert_eq!(bob.raw.expect_end(), Some(0x87));
    assert!(began.elapsed() < Duration::from_secs(5));
    Connect::v5("bob", "bob-phone", &bobs).refused(server.mqtt(), 0x86);
    let fresh = server.token("bob");
    Connect::v5("bob", "bob-phone", &fresh).refused(server.mqtt(), 0x86);
    assert!(!works(&server, &fresh));
    let body = expect(&login(&server, "bob", PASSWORD), 403, 10);
    assert!(body["detail"].as_str().unwrap().contains("natter user enable"), "{body}");
    expect(&login(&server, "bob", "wrong password"), 401, 190);

    alice.send("bob", "m1", "are you there?");
    server.kill9();
    server.restart();
    Connect::v5("bob", "bob-phone", &bobs).refused(server.mqtt(), 0x86);
    expect(&login(&server, "bob", PASSWORD), 403, 10);
    server.terminate();
    done(&server, &["enable", "bob"], "");
    server.restart();
    Connect::v5("bob", "bob-phone", &bobs).refused(server.mqtt(), 0x86);
    alice.reconnect(&server);
    bob.connect = Connect::v5("bob", "bob-phone", &token_of(&login(&server, "bob", PASSWORD)));
    bob.reconnect(&server);
    assert_text(&bob.entry(), "alice", "are you there?");
    assert_receipt(&alice.entry(), "delivered", "bob", 0, 1);
}

#[test]
fn who_keeps_himself_out_is_let_in_at_the_desk_alone() {
    let server = TestServer::start_with(OPEN);
    let token = register(&server, "alice");
    let mut phone = device(&server, "alice", "phone", &token);
    assert_eq!(post(&server, "/v1/users/disable", Some(&token), Value::Null).json(), json!({"success": true}));
    assert_eq!(phone.raw.expect_end(), Some(0x87));
    assert!(!works(&server, &token));
    expect(&login(&server, "alice", PASSWORD), 403, 10);
    expect(&post(&server, "/v1/users", None, json!({"user": "alice", "password": PASSWORD})), 409, 1409);
    done(&server, &["enable", "alice"], "");
    assert!(!works(&server, &token), "what was revoked stays so");
    assert!(works(&server, &token_of(&login(&server, "alice", PASSWORD))));
    let (success, text) = desk(&server, &["disable", "nobody"], "");
    assert!(!success && text.contains("no such user"), "{text}");
}

#[test]
fn s24_a_thousand_guesses_are_braked_for_the_address_and_for_the_user() {
    let server = TestServer::start_with(&format!(
        "{OPEN}[door]\nloopback_counts = true\nconnections_per_address_max = 100000\n"
    ));
    let token = register(&server, "alice");
    let statuses: Vec<u16> = (0..1000).map(|n| login(&server, "alice", &format!("guess number {n}")).status).collect();
    let refused = statuses.iter().filter(|status| **status == 401).count();
    assert!((20..=40).contains(&refused), "{refused} of 1,000 were looked at");
    assert!(statuses.iter().all(|status| [401, 429].contains(status)));
    let answer = login(&server, "alice", PASSWORD);
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("60")), "unseen, right as it is");
    // One count for all doors.
    let (_, _, code, _) = Connect::v5("alice", "c", &token).try_open(server.mqtt());
    assert_eq!(code, 0x9f);

    // From many addresses (loopback does not count): the user's own brake.
    let server = TestServer::start_with(OPEN);
    register(&server, "alice");
    let token = register(&server, "bob");
    let statuses: Vec<u16> = (0..150).map(|n| login(&server, "alice", &format!("guess number {n}")).status).collect();
    let refused = statuses.iter().filter(|status| **status == 401).count();
    assert!((60..=120).contains(&refused), "{refused} of 150 were looked at");
    assert_eq!(login(&server, "alice", PASSWORD).status, 429);
    assert_eq!(login(&server, "bob", PASSWORD).status, 200, "nobody else is shut out");
    assert!(works(&server, &token), "and no token is");
}

#[test]
fn s24_an_unknown_user_is_answered_the_same_and_takes_as_long() {
    let server = TestServer::start_with("[accounts]\nlogin_failures_per_min = 1000000\nregistration = \"open\"\n");
    register(&server, "alice");
    server.add_user("bob");
    login(&server, "nobody", PASSWORD);
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let mut bodies = Vec::new();
    for _ in 0..15 {
        for (name, times) in ["alice", "nobody", "bob"].into_iter().zip(&mut times) {
            let began = Instant::now();
            let answer = login(&server, name, "not the password");
            times.push(began.elapsed());
            assert_eq!(answer.status, 401);
            bodies.push(answer.body);
        }
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    // Other work on the machine only adds to a time.
    let [known, unknown, without] = times.map(|times| times.into_iter().min().unwrap().as_secs_f64());
    for other in [unknown, without] {
        assert!(
            (0.6..1.7).contains(&(known / other)),
            "known {known}, unknown {unknown}, without a password {without}"
        );
    }
}

#[test]
fn s25_an_endless_password_is_not_hashed_and_hashes_are_few_at_a_time() {
    let server = TestServer::start_with(
        "[accounts]\nlogin_failures_per_min = 1000000\nhashes_at_a_time = 1\nregistration = \"open\"\n",
    );
    register(&server, "alice");
    expect(&login(&server, "alice", &"x".repeat(100_000)), 413, 131_009);
    expect(&login(&server, "alice", &"x".repeat(10_000)), 401, 190);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let tries: Vec<_> = (0..120)
            .map(|n| {
                scope.spawn({
                    let server = &server;
                    move || login(server, "alice", &format!("guess {n} of many")).status
                })
            })
            .collect();
        tries.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let busy = statuses.iter().filter(|status| **status == 503).count();
    assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{statuses:?}");
    assert!(busy > 0, "more than 65 at a time are told so");
    assert_eq!(login(&server, "alice", PASSWORD).status, 200, "it goes on");
}

#[test]
fn s77_no_log_has_a_password_a_hash_or_a_token() {
    let program = [
        "env",
        "RUST_LOG=debug,natter=trace,natter_bridge=trace,natter_broker=trace",
        "NATTER__ACCOUNTS__REGISTRATION=open",
    ];
    let server = TestServer::start_under(&program.map(ToOwned::to_owned));
    let token = register(&server, "alice");
    login(&server, "alice", "a wrong password");
    post(
        &server,
        "/v1/users/password",
        Some(&token),
        json!({"password": PASSWORD, "new_password": "another password"}),
    );
    post(&server, &format!("/v1/users/logout?access_token={token}"), None, Value::Null);
    Connect::v5("alice", "c", &token).refused(server.mqtt(), 0x86);
    let log = server.log_so_far();
    assert!(log.iter().any(|line| line.contains("started")), "it does log: {log:?}");
    for line in &log {
        for secret in [PASSWORD, "a wrong password", "another password", "$argon2", token.as_str()] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}
