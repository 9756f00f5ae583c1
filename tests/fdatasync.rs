//! What a page cache cannot fake: the server's system calls, as strace sees them. Every acknowledgement is written to the socket only
//! after the message's bytes were written to the write-ahead log and a sync of that file has come back.
//!
//! `kill -9` proves less: what a killed process has written is in the page cache, synced or not.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test ends where its world does not hold, and says aloud when it is skipped"
)]

mod common;

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::{Connect, Device, Packet, Raw, TestServer, assert_text, patience};
use serde_json::json;

/// Messages a test publishes, one after another.
const MESSAGES: usize = 50;
/// The calls that matter.
const CALLS: &str = "trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,pwrite64,fsync,fdatasync";
const READS: [&str; 4] = ["read", "readv", "recvfrom", "recvmsg"];
const WRITES: [&str; 4] = ["write", "writev", "sendto", "sendmsg"];
/// What only a socket takes.
const SOCKET_CALLS: [&str; 4] = ["recvfrom", "recvmsg", "sendto", "sendmsg"];
const SYNCS: [&str; 2] = ["fsync", "fdatasync"];

const PUBACK: u8 = 4;
const PUBREC: u8 = 5;

/// Whether strace works. Without it a test says aloud that it is skipped; with `NATTER_TEST_ALL=1` it fails.
fn strace_works() -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-o", "/dev/null", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    let works = strace.status().is_ok_and(|status| status.success());
    if !works {
        assert!(std::env::var_os("NATTER_TEST_ALL").is_none(), "strace is missing, or may not trace");
        eprintln!("SKIPPED: strace is missing (package strace), or may not trace");
    }
    works
}

/// strace as a grandchild, so that the server is our child as always.
fn strace(output: &Path, expressions: &[&str]) -> Vec<String> {
    let mut words = vec!["strace", "-D", "-f", "-ttt", "-y", "-xx", "-s", "65536", "-e", "signal=none"];
    words.extend(expressions.iter().flat_map(|expression| ["-e", expression]));
    words.extend(["-o", output.to_str().expect("UTF-8"), "--"]);
    words.into_iter().map(str::to_owned).collect()
}

/// A system call that has come back.
#[derive(Debug, PartialEq)]
struct Call {
    name: String,
    /// The first argument, a file descriptor.
    fd: u32,
    /// What it stands for: a path, or `socket:[inode]`; empty if strace does not say.
    file: String,
    /// All strings among its arguments, joined.
    data: Vec<u8>,
    result: i64,
    /// Lines of the trace: where it began, and where it came back.
    began: usize,
    ended: usize,
}

/// Reads what strace writes with `-f -ttt -y -xx`. Calls that never came back are left out.
fn parse(trace: &str) -> Vec<Call> {
    let mut unfinished: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut calls = Vec::new();
    for (line_no, line) in trace.lines().enumerate() {
        // Short process ids are padded.
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let Some((_time, rest)) = rest.trim_start().split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(first_half) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(pid, (line_no, first_half));
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((began, first_half)) = unfinished.remove(pid) else { continue };
            let second_half = resumed.split_once(" resumed>").map_or("", |(_, behind)| behind);
            calls.extend(call(&format!("{first_half}{second_half}"), began, line_no));
        } else {
            calls.extend(call(rest, line_no, line_no));
        }
    }
    calls
}

/// `name(3<file>, "data", ..) = result`
fn call(text: &str, began: usize, ended: usize) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let result = result.split_whitespace().next()?.parse().ok()?;
    let digits = arguments.len() - arguments.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (fd, behind) = arguments.split_at(digits);
    let fd = fd.parse().ok()?;
    // Now and then strace cannot resolve a descriptor, and leaves the name out.
    let file = behind.strip_prefix('<').and_then(|file| file.split_once('>')).map_or("", |(file, _)| file);
    let file = String::from_utf8(unescape(file)).ok()?;
    let data = arguments.split('"').skip(1).step_by(2).flat_map(unescape).collect();
    Some(Call { name: name.to_owned(), fd, file, data, result, began, ended })
}

/// Takes the `\x2f` of `-xx` back.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let hex = behind.strip_prefix(b"x").and_then(|hex| std::str::from_utf8(hex.get(..2)?).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if first == b'\\' => {
                out.push(byte);
                rest = &behind[3..];
            }
            _ => {
                out.push(first);
                rest = behind;
            }
        }
    }
    out
}

impl Call {
    fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.name.as_str()) && self.result >= 0
    }

    fn is_on_a_socket(&self) -> bool {
        self.file.starts_with("socket:") || SOCKET_CALLS.contains(&self.name.as_str())
    }

    fn is_on_the_log(&self) -> bool {
        self.file.ends_with("-wal")
    }

    fn has(&self, text: &str) -> bool {
        self.data.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// Whether the message with this body was read from a socket, written to the write-ahead log and synced there, in this order, before its
/// acknowledgement (the first thing said on that socket afterwards) and before it went out to anybody.
fn synced_before_it_was_said(calls: &[Call], body: &str, acknowledgement: u8) -> Result<(), String> {
    let first = |what: &str, wanted: &dyn Fn(&&Call) -> bool| {
        calls.iter().filter(wanted).min_by_key(|call| call.began).ok_or(format!("{body}: no {what}"))
    };
    let read = first("PUBLISH", &|call| call.is(&READS) && call.is_on_a_socket() && call.has(body))?;
    let behind = |call: &Call, other: &Call| call.began > other.ended;
    let answer = first("answer", &|call| call.is(&WRITES) && call.fd == read.fd && behind(call, read))?;
    let kind = answer.data.first().map_or(0, |byte| byte >> 4);
    if kind != acknowledgement {
        return Err(format!("{body}: expected a packet of kind {acknowledgement}, got {kind}"));
    }
    let written = first("write to the log", &|call| {
        call.is(&["pwrite64"]) && call.is_on_the_log() && call.has(body) && behind(call, read)
    })?;
    let synced = calls.iter().filter(|call| call.is(&SYNCS) && call.is_on_the_log() && behind(call, written));
    let Some(synced) = synced.min_by_key(|call| call.ended) else {
        return Err(format!("{body}: no sync of the log behind its write"));
    };
    let said = calls.iter().filter(|call| call.is(&WRITES) && call.is_on_a_socket() && call.has(body));
    for said in said.chain([answer]) {
        if !behind(said, synced) {
            return Err(format!("{body}: said to {} before the sync had come back: {synced:?}", said.file));
        }
    }
    Ok(())
}

/// The whole trace of a server that has ended.
fn finished_trace(path: &Path, pid: u32) -> String {
    let deadline = Instant::now() + patience();
    loop {
        let trace = std::fs::read_to_string(path).expect("the trace");
        let end = trace.lines().rfind(|line| line.contains("+++ exited with") || line.contains("+++ killed by"));
        if end.is_some_and(|line| line.split_whitespace().next() == Some(&pid.to_string())) {
            return trace;
        }
        assert!(Instant::now() < deadline, "strace does not come to an end: {:?}", trace.lines().last());
        // strace is not our child: there is nothing to wait for but its last line.
        thread::sleep(Duration::from_millis(5));
    }
}

fn publish_qos_2(raw: &mut Raw, topic: &str, payload: &str) {
    let id = raw.packet_id();
    let bytes = raw.publish_bytes(topic, 0x04, id, payload.as_bytes());
    raw.send(&bytes);
    raw.wait_for("a PUBREC", |packet| {
        matches!(packet, Packet::PubRec { id: got, reason: 0, .. } if *got == id).then_some(())
    });
    raw.release(id);
    raw.wait_for("a PUBCOMP", |packet| matches!(packet, Packet::PubComp { id: got, .. } if *got == id).then_some(()));
}

/// Only one strace at a time: they get in each other's way.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the test publishes, at a QoS.
fn bodies(qos: u8) -> impl Iterator<Item = String> {
    (0..MESSAGES).map(move |i| format!("the body number {i} at QoS {qos}."))
}

/// The system calls of a server while alice sends bob messages at both QoS.
fn traced_calls() -> Vec<Call> {
    let home = tempfile::tempdir().expect("a temporary directory");
    let output = home.path().join("trace");
    let mut server = TestServer::start_under(&strace(&output, &[CALLS]));
    server.add_user("alice");
    server.add_user("bob");
    let mut bob = Device::v5(&server, "bob", "phone");
    let (mut alice, _) = Connect::v5("alice", "alice-phone", &server.token("alice")).open(server.mqtt());
    let outbox = "users/alice/phone/outbox";
    let payload = |body: &str| json!({"to": "bob", "type": "text", "text": {"body": body}}).to_string();
    for body in bodies(1) {
        assert_eq!(alice.publish_and_wait(outbox, &payload(&body)).0, 0);
        assert_text(&bob.entry(), "alice", &body);
    }
    for body in bodies(2) {
        publish_qos_2(&mut alice, outbox, &payload(&body));
        assert_text(&bob.entry(), "alice", &body);
    }
    let pid = server.pid();
    server.terminate();
    parse(&finished_trace(&output, pid))
}

#[test]
fn every_acknowledgement_waits_for_a_sync_of_its_message() {
    if !strace_works() {
        return;
    }
    let _turn = turn();
    let calls = traced_calls();
    let proofs = bodies(1).map(|body| (body, PUBACK)).chain(bodies(2).map(|body| (body, PUBREC)));
    for (body, acknowledgement) in proofs {
        if let Err(problem) = synced_before_it_was_said(&calls, &body, acknowledgement) {
            panic!("{problem}");
        }
    }
}

#[test]
fn a_sync_that_fails_ends_the_process_and_what_was_acknowledged_is_there_after_the_next_start() {
    if !strace_works() {
        return;
    }
    let _turn = turn();
    let home = tempfile::tempdir().expect("a temporary directory");
    // Enough syncs to be up and to accept some messages, and then the disk fails, once.
    let fault = "inject=fsync,fdatasync:error=EIO:when=25";
    let under = strace(&home.path().join("trace"), &["trace=fsync,fdatasync", fault]);
    let mut server = TestServer::start_under(&under);
    server.add_user("alice");
    server.add_user("bob");
    let connect = Connect::v5("alice", "alice-phone", &server.token("alice"));
    let (mut alice, _) = connect.open(server.mqtt());
    let mut acknowledged = 0;
    loop {
        let payload = json!({"id": format!("m{acknowledged}"), "to": "bob", "type": "text", "text": {"body": "hi"}});
        let id = alice.publish("users/alice/phone/outbox", &payload.to_string());
        let puback = loop {
            match alice.next() {
                Some(Packet::PubAck { id: got, reason, .. }) => break Some((got, reason)),
                Some(_) => {}
                None => break None,
            }
        };
        let Some(puback) = puback else { break };
        assert_eq!(puback, (id, 0));
        acknowledged += 1;
        assert!(acknowledged < 1000, "the disk never fails");
    }
    assert_eq!(server.wait_for_its_end().code(), Some(70), "a supervisor starts it again");
    assert!(acknowledged > 0, "some were accepted before");

    server.set_under(&[]);
    server.restart();
    let mut bob = Device::v5(&server, "bob", "phone");
    for n in 0..acknowledged {
        let entry = bob.entry();
        assert_eq!((&entry["id"], &entry["n"]), (&json!(format!("m{n}")), &json!(n + 1)), "{entry}");
    }
}

#[test]
fn a_disk_that_is_full_for_a_while_makes_senders_wait_and_loses_nothing() {
    if !strace_works() {
        return;
    }
    let _turn = turn();
    let home = tempfile::tempdir().expect("a temporary directory");
    // Some way behind the start; each batch that fails has failed with its first write.
    let fault = "inject=pwrite64:error=ENOSPC:when=300..303";
    let mut server = TestServer::start_under(&strace(&home.path().join("trace"), &["trace=pwrite64", fault]));
    server.add_user("alice");
    server.add_user("bob");
    let connect = Connect::v5("alice", "alice-phone", &server.token("alice"));
    let (mut alice, _) = connect.open(server.mqtt());
    let (mut acknowledged, mut not_now, mut since) = (0, 0, 0);
    // Until ten in a row were accepted behind the last "not now".
    while not_now == 0 || since < 10 {
        assert!(acknowledged < 1000, "the disk never fails");
        let payload = json!({"id": format!("m{acknowledged}"), "to": "bob", "type": "text", "text": {"body": "hi"}});
        let id = alice.publish("users/alice/phone/outbox", &payload.to_string());
        match alice.next() {
            Some(Packet::PubAck { id: got, reason, .. }) => {
                assert_eq!((got, reason), (id, 0));
                acknowledged += 1;
                since += 1;
            }
            // "Not now": the message is tried again on another connection.
            Some(Packet::Disconnect { reason: 0x89, .. }) => {
                (not_now, since) = (not_now + 1, 0);
                alice = connect.open(server.mqtt()).0;
            }
            other => panic!("expected a PUBACK, or a DISCONNECT that says \"server busy\", got {other:?}"),
        }
    }
    let mut bob = Device::v5(&server, "bob", "phone");
    for n in 0..acknowledged {
        let entry = bob.entry();
        assert_eq!((&entry["id"], &entry["n"]), (&json!(format!("m{n}")), &json!(n + 1)), "{entry}");
    }
    server.terminate();
}

/// A trace in short: who, call, file, data or nothing, result. A line that ends in `..` is unfinished; one that begins so goes on.
fn trace(lines: &[&str]) -> Vec<Call> {
    let lines = lines.iter().enumerate().map(|(i, line)| {
        let (pid, rest) = line.split_once(' ').expect("a pid");
        format!("{pid} 17955044{i:02}.0 {rest}\n")
    });
    parse(&lines.collect::<String>())
}

#[test]
fn a_trace_that_proves_nothing_is_refused() {
    const READ: &str = r#"1 recvfrom(9<socket:[17]>, "\x32\x08hello", 8192, 0, NULL, NULL) = 7"#;
    const WRITE: &str = r#"2 pwrite64(5</d/natter.db-wal>, "..hello..", 4096, 32) = 4096"#;
    const SYNC: &str = "2 fdatasync(5</d/natter.db-wal>) = 0";
    const ACK: &str = r#"1 sendto(9<socket:[17]>, "\x40\x02\x00\x01", 4, MSG_NOSIGNAL, NULL, 0) = 4"#;
    const OUT: &str =
        r#"1 writev(8<socket:[18]>, [{iov_base="\x32", iov_len=1}, {iov_base="hello", iov_len=5}], 2) = 6"#;
    let judge = |lines: &[&str]| synced_before_it_was_said(&trace(lines), "hello", PUBACK);
    assert_eq!(judge(&[READ, WRITE, SYNC, ACK, OUT]), Ok(()));
    let halves = ["2 fdatasync(5</d/natter.db-wal> <unfinished ...>", "2 <... fdatasync resumed>) = 0"];
    assert_eq!(judge(&[READ, WRITE, halves[0], halves[1], ACK, OUT]), Ok(()));

    let failed = "2 fdatasync(5</d/natter.db-wal>) = -1 EIO (Input/output error)";
    let other = "2 fdatasync(6</d/natter.db>) = 0";
    let bad: [(&[&str], &str); 10] = [
        (&[READ, WRITE, ACK, SYNC], "before the sync had come back"),
        (&[READ, WRITE, halves[0], ACK, halves[1]], "before the sync had come back"),
        (&[READ, WRITE, OUT, SYNC, ACK], "before the sync had come back"),
        (&[READ, WRITE, failed, ACK], "no sync"),
        (&[READ, WRITE, other, ACK], "no sync"),
        (&[READ, WRITE, halves[0], ACK], "no sync"),
        (&[READ, SYNC, WRITE, ACK], "no sync"),
        (&[WRITE, READ, SYNC, ACK], "no write to the log"),
        (&[READ, WRITE, SYNC], "no answer"),
        (&[WRITE, SYNC, ACK], "no PUBLISH"),
    ];
    for (lines, expected) in bad {
        let judged = judge(lines);
        assert!(
            judged.as_ref().is_err_and(|problem| problem.contains(expected)),
            "{expected}: {judged:?} of {lines:?}"
        );
    }
}
