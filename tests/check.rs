//! `natter check` and the check in the background: a whole store is called whole, and every kind of damage has its line.
#![allow(clippy::expect_used, clippy::panic, reason = "a test ends where its world does not hold")]

mod common;

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Device, TestServer, patience};
use rusqlite::Connection;

fn natter(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_natter"));
    command.env("RUST_LOG", "warn").args(arguments).arg("--data").arg(data).stdin(Stdio::null());
    command.output().expect("natter")
}

/// What `natter check` says; its exit code agrees with it.
#[track_caller]
fn check(data: &Path, arguments: &[&str]) -> String {
    let output = natter(data, &[&["check"], arguments].concat());
    let text = String::from_utf8(output.stdout).expect("text");
    let whole = text.starts_with("the store is whole: ");
    assert_eq!(output.status.code(), Some(i32::from(!whole)), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn get(server: &TestServer, path: &str) -> String {
    let mut stream = TcpStream::connect(server.admin()).expect("the admin listener");
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Waits until the answer holds `words`.
#[track_caller]
fn eventually(server: &TestServer, path: &str, words: &str) -> String {
    let deadline = Instant::now() + patience();
    loop {
        let answer = get(server, path);
        if answer.contains(words) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{words:?} is not in {answer}");
        sleep(Duration::from_millis(10));
    }
}

/// A server where alice has sent bob two messages: he had the first, and the second waits.
fn talked() -> TestServer {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut bob = Device::v5(&server, "bob", "phone");
    alice.send("bob", "m1", "one");
    bob.entry();
    alice.entry();
    alice.send("bob", "m2", "two");
    bob.entry_without_ack();
    server
}

/// Such a server's data, once it has ended.
fn stopped() -> TestServer {
    let mut server = talked();
    server.terminate();
    server
}

#[test]
fn a_whole_store_is_called_whole_beside_its_server_and_after_it() {
    let mut server = talked();
    let beside = check(server.data(), &[]);
    assert!(beside.starts_with("the store is whole: "), "{beside}");
    server.terminate();
    for arguments in [&[][..], &["--quick"]] {
        let after = check(server.data(), arguments);
        assert!(
            after.contains(": users=2 devices=2 entries=1 messages=1 dedupe=2 journal=0 bytes="),
            "what waits is one message: {after}"
        );
    }
    server.restart();
    let metrics = eventually(&server, "/metrics", "natter_store_check 1");
    assert!(metrics.contains("natter_store_check_findings 0"), "{metrics}");
    let wal = metrics.lines().find_map(|line| line.strip_prefix("natter_wal_bytes ")).expect("a gauge");
    assert!(wal.parse::<u64>().expect("bytes") > 0, "the boot is in the WAL: {wal}");
    server.kill9();
    check(server.data(), &[]);
    assert!(server.data().join("natter.db-wal").exists(), "a check moves nothing, also when it is the last to look");
}

#[test]
fn where_there_is_no_store_a_check_says_so_and_makes_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("nothing");
    let output = natter(&data, &["check"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && stderr.contains("there is no natter.db in it"), "{stderr}");
    assert!(!data.exists());
}

#[test]
fn every_kind_of_damage_has_its_line() {
    let damages = [
        ("DELETE FROM messages", "an inbox row's message is there: bob/2"),
        ("DELETE FROM inbox", "somebody waits for a message, or may read it: "),
        ("UPDATE inbox SET item = x'ff'", "an inbox row points to a message or carries an item: bob/2"),
        ("INSERT INTO inbox (user, seq, at, item) VALUES ('bob', 1, 1, x'ff')", "an inbox row's item reads: bob/1: "),
        ("UPDATE inbox SET seq = 9", "an inbox row's position was given: bob/9"),
        ("UPDATE inbox SET offset = 1000000", "an inbox row's place in bytes was given: bob/2"),
        ("UPDATE users SET settled_seq = last_seq + 1", "what is settled of an inbox was given: alice"),
        ("UPDATE messages SET n = 7; UPDATE inbox SET n = 7", "a message's number was given: "),
        ("UPDATE accepted SET n = 5 WHERE id = 'm2'", "the number of a dedupe row was given: alice/m2"),
        ("UPDATE accepted SET n = 1", "a number is given once: "),
        ("UPDATE accepted SET hash = x'00'", "a dedupe row has a hash of 16 bytes: alice/m1"),
        ("UPDATE members SET delivered_n = 3", "a member's marks lie within the chat: "),
        ("UPDATE members SET read_n = 2", "what a member has read was delivered: "),
        ("UPDATE devices SET cursor = 99 WHERE user = 'bob'", "device bob/phone: expected a cursor up to 2, got 99"),
        (
            "INSERT INTO devices (user, device, cursor, active_at) VALUES ('carol', 'phone', 0, 0)",
            "device carol/phone: its user is not there",
        ),
        ("INSERT INTO devices (user, device, cursor, active_at) VALUES ('bob', '!', 0, 0)", "\"!\": not a name"),
        (
            "UPDATE devices SET seen_at = -1 WHERE user = 'bob'",
            "a device began and was there at a time, and has a short label: bob/phone",
        ),
        (
            "UPDATE devices SET label = printf('%065d', 0) WHERE user = 'bob'",
            "a device began and was there at a time, and has a short label: bob/phone",
        ),
        ("INSERT INTO kept VALUES ('bob', 'nowhere', 1, 9)", "a kept message is there: bob nowhere/1"),
        (
            "INSERT INTO accounts VALUES ('carol', NULL, 1)",
            "an account has its user and a password of a known form: carol",
        ),
        (
            "INSERT INTO accounts VALUES ('bob', 'hunter2', 0)",
            "an account has its user and a password of a known form: bob",
        ),
        ("INSERT INTO webhooks VALUES ('carol', 'webhook', '', '', '')", "a webhook has its user: carol/webhook"),
        ("INSERT INTO grants VALUES ('7', 'bob', NULL, 0)", "the file of a grant is there: 7 bob"),
        (
            "INSERT INTO media VALUES ('7', 'bob', 0, 'image/png', zeroblob(32), 5, NULL, 0, 9)",
            "the owner of a file may read it: 7",
        ),
        (
            "INSERT INTO media VALUES ('7', 'bob', 9, 'image/png', zeroblob(32), 5, NULL, 0, 9)",
            "a file has a kind, a size and a sum of 32 bytes: 7",
        ),
        ("INSERT INTO contacts VALUES ('bob', 'carol', NULL, 0)", "a contact and who has him are users: bob carol"),
        (
            "INSERT INTO statuses VALUES ('s:bob', 1, 9, NULL, x'00')",
            "a status is its poster's and has its body: s:bob/1",
        ),
        (
            "INSERT INTO messages VALUES ('s:bob', 1, 'bob', 'x', 9, '{}'); INSERT INTO chats VALUES ('s:bob', 1);
             INSERT INTO statuses VALUES ('s:bob', 1, 9, NULL, 'text')",
            "a status is its poster's and has its body: s:bob/1",
        ),
        ("INSERT INTO blocks VALUES ('bob', 'carol', 0)", "a block and who is blocked are users: bob carol"),
        ("INSERT INTO last_seen VALUES ('carol', 0)", "who was there last is a user: carol"),
        (
            "INSERT INTO privacy VALUES ('bob', 'photo', 'nobody')",
            "a rule of privacy is a user's and says something: bob photo",
        ),
        (
            "INSERT INTO privacy_lists VALUES ('bob', 'online', 'alice')",
            "a list of privacy has its rule: bob online alice",
        ),
        (
            "INSERT INTO hidden VALUES ('bob', 'alice bob', 0, 999)",
            "what is hidden lies within the chat, no part of it twice: bob alice bob/0",
        ),
        ("INSERT INTO unheard VALUES ('bob', 'alice bob', 1, 0)", "what is to fail unheard is hidden: bob alice bob/1"),
        ("INSERT INTO journal SELECT 0, value + 1, x'09', value + 1 FROM meta WHERE key = 'settled:0'", "got layout 9"),
        (
            "INSERT INTO journal SELECT 0, value + 3, x'0100', value + 3 FROM meta WHERE key = 'settled:0'",
            "journal: expected row ",
        ),
        ("UPDATE meta SET value = value - 2 WHERE key = 'settled:0'", "2 acknowledged batches are missing"),
    ];
    let server = stopped();
    let whole = std::fs::read(server.data().join("natter.db")).expect("a database");
    check(server.data(), &[]);
    for (damage, line) in damages {
        std::fs::write(server.data().join("natter.db"), &whole).expect("the database");
        for leftover in ["natter.db-wal", "natter.db-shm"] {
            let _ = std::fs::remove_file(server.data().join(leftover));
        }
        let connection = Connection::open(server.data().join("natter.db")).expect("a database");
        connection.execute_batch(damage).unwrap_or_else(|error| panic!("{damage}: {error}"));
        drop(connection);
        let text = check(server.data(), &[]);
        assert!(text.contains(line), "{damage}\n{text}");
    }
}

#[test]
fn a_lost_mark_is_a_finding_and_the_next_start_makes_one() {
    let mut server = stopped();
    std::fs::remove_file(server.data().join("natter.mark")).expect("a mark");
    let text = check(server.data(), &[]);
    assert!(text.contains("there is no natter.mark"), "{text}");
    std::fs::write(server.data().join("natter.mark"), [7; 4096]).expect("a mark");
    let text = check(server.data(), &[]);
    assert!(text.contains("natter.mark does not read"), "{text}");
    server.restart();
    check(server.data(), &[]);
}

/// Breaks the kind of the first page of a table or index.
fn break_page_of(data: &Path, name: &str) {
    let path = data.join("natter.db");
    let connection = Connection::open(&path).expect("a database");
    let page: i64 = connection
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [name], |row| row.get(0))
        .expect("a page");
    let size: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0)).expect("a size");
    drop(connection);
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("the file");
    let at = u64::try_from((page - 1) * size).expect("a place");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x55], at).expect("a byte");
}

#[test]
fn a_damaged_page_is_found_by_the_check_and_makes_a_running_server_not_ready() {
    let mut server = stopped();
    break_page_of(server.data(), "grants");
    for arguments in [&[][..], &["--quick"]] {
        let text = check(server.data(), arguments);
        assert!(text.contains("the database's pages are sound: "), "{text}");
    }
    server.restart();
    let answer = eventually(&server, "/readyz", "503");
    assert!(answer.contains("\"ready\":false,\"bridge\":true") && answer.contains("\"store\":\"grants: "), "{answer}");
    let metrics = eventually(&server, "/metrics", "natter_store_check 1");
    assert!(!metrics.contains("natter_store_check_findings 0"), "{metrics}");
    // It goes on all the same: what is damaged is for the operator to judge.
    let mut alice = Device::v5(&server, "alice", "phone");
    assert_eq!(alice.send("bob", "m3", "three"), 3);
}

#[test]
fn a_server_that_has_lost_acknowledged_messages_does_not_start_until_that_is_accepted() {
    let mut server = talked();
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut bob = Device::v5(&server, "bob", "phone");
    assert_eq!(bob.entry()["id"], "m2");
    alice.send("bob", "m3", "three");
    let last = bob.entry();
    server.kill9();
    let wal = OpenOptions::new().write(true).open(server.data().join("natter.db-wal")).expect("a WAL");
    // Nothing is left of it; what was settled before may be in the database, or not.
    wal.set_len(0).expect("truncated");

    let refused =
        natter(server.data(), &["serve", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("acknowledged batches are missing") && stderr.contains("natter check --accept-loss"),
        "{stderr}"
    );
    let text = check(server.data(), &[]);
    assert!(text.contains("acknowledged batches are missing"), "{text}");

    let accepted = natter(server.data(), &["check", "--accept-loss"]);
    let stdout = String::from_utf8_lossy(&accepted.stdout);
    assert!(accepted.status.success() && stdout.contains("acknowledged batches are lost: rows "), "{accepted:?}");
    server.restart();
    let running = natter(server.data(), &["check", "--accept-loss"]);
    assert!(String::from_utf8_lossy(&running.stderr).contains("stop it first"), "{running:?}");
    let text = check(server.data(), &[]);
    assert!(text.starts_with("the store is whole: "), "{text}");

    for name in ["alice", "bob"] {
        natter(server.data(), &["user", "add", name]);
    }
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut bob = Device::v5(&server, "bob", "phone");
    alice.send("bob", "m4", "four");
    let entry = bob.entry();
    assert_eq!(entry["id"], "m4", "{entry}");
    assert!(entry["seq"].as_u64() > last["seq"].as_u64(), "{entry} after {last}");
}
