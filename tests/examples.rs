//! The examples of the SDK do what they say, as programs of their own against a real server.
#![expect(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test ends that way")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Once, mpsc};
use std::thread;

use common::{Device, TestServer, patience};
use serde_json::Value;

/// The program of an example. Where all tests are built it is there already, and this is a look at time stamps.
fn example(name: &str) -> Command {
    static BUILD: Once = Once::new();
    BUILD.call_once(|| {
        let cargo = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--offline", "--workspace", "--examples", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .status();
        assert!(cargo.expect("cargo").success(), "the examples do not build");
    });
    let deps = std::env::current_exe().expect("this program");
    let target = deps.parent().and_then(Path::parent).expect("a target directory");
    let mut command = Command::new(PathBuf::from(target).join("examples").join(name));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// An example that runs, and its lines.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("an example");
        let stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        Self { child, lines }
    }

    #[track_caller]
    fn says(&self, words: &str) {
        loop {
            match self.lines.recv_timeout(patience()) {
                Ok(line) if line.contains(words) => return,
                Ok(_) => {}
                Err(error) => panic!("the example does not say {words:?}: {error}"),
            }
        }
    }

    #[track_caller]
    fn ends(mut self) {
        let status = common::server::wait(&mut self.child, patience()).expect("the example does not end");
        assert!(status.success(), "{status}");
    }
}

/// The next message, past receipts.
#[track_caller]
fn message(device: &mut Device) -> Value {
    loop {
        let entry = device.entry();
        if entry["type"] == "text" {
            return entry;
        }
    }
}

fn url(server: &TestServer) -> String {
    format!("mqtt://{}", server.mqtt())
}

#[test]
fn echo_bot_answers_once_each_whatever_is_killed() {
    let server = TestServer::with_users(&["alice", "bot"]);
    let (dir, token) = (tempfile::tempdir().unwrap(), server.token("bot"));
    let start = || {
        let mut command = example("echo_bot");
        command.args([&url(&server), "bot", &token]).arg(dir.path().join("bot.db"));
        Running::start(command)
    };
    let mut alice = Device::v5(&server, "alice", "phone");
    let mut bot = start();
    for i in 0..6 {
        let question = format!("question {i}");
        alice.send("bot", &format!("q{i}"), &question);
        if i == 2 {
            drop(bot);
            bot = start();
        }
        let answer = message(&mut alice);
        assert_eq!((&answer["from"], &answer["text"]["body"]), (&"bot".into(), &question.into()), "{answer}");
    }
    drop(bot);
}

#[test]
fn offline_outbox_keeps_what_it_cannot_send_and_sends_it_later() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let dir = tempfile::tempdir().unwrap();
    let run = |url: &str, text: &str| {
        let mut command = example("offline_outbox");
        command.args([url, "alice", &server.token("alice")]).arg(dir.path().join("alice.db")).args(["bob", text]);
        Running::start(command)
    };
    let nowhere = run("mqtt://127.0.0.1:1", "one");
    nowhere.says("1 wait for the next start");
    nowhere.ends();
    let there = run(&url(&server), "two");
    there.says("0 wait for the next start");
    there.ends();
    let mut bob = Device::v5(&server, "bob", "phone");
    for text in ["one", "two"] {
        assert_eq!(message(&mut bob)["text"]["body"], text);
    }
}

#[test]
fn custom_store_counts_its_transactions() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut command = example("custom_store");
    command.args([&url(&server), "alice", &server.token("alice"), "bob", "hi"]);
    let store = Running::start(command);
    store.says("number 1 of the chat, ");
    store.ends();
}

#[test]
fn send_file_sends_it_and_saves_what_comes_back() {
    let server = TestServer::with_users(&["alice"]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("chart.txt"), "here be dragons").unwrap();
    let mut command = example("send_file");
    command.current_dir(dir.path()).args(["alice", "alice", "chart.txt"]);
    command.env("NATTER_URL", url(&server)).env("NATTER_HTTP", format!("http://{}", server.http()));
    let files = Running::start({
        command.env("TOKEN", server.token("alice"));
        command
    });
    files.says("15 bytes in received/chart.txt");
    files.ends();
    assert_eq!(std::fs::read_to_string(dir.path().join("received/chart.txt")).unwrap(), "here be dragons");
}

#[test]
fn group_prints_what_its_members_do() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut command = example("group");
    command.args([&url(&server), "alice", &server.token("alice"), "Trip", "bob"]);
    let group = Running::start(command);
    group.says("Trip is g:");
    let mut bob = Device::v5(&server, "bob", "phone");
    let question = message(&mut bob);
    assert_eq!((&question["n"], &question["text"]["body"]), (&2.into(), &"who comes?".into()));
    let chat = question["chat"].as_str().unwrap();
    group.says("alice made the group");
    group.says("1 of 1 have it, 0 have read it");
    bob.send(chat, "b1", "me");
    group.says("bob: me");
}

/// It names the port that a first server has; where somebody else has that port, there is nothing to see.
#[test]
fn quickstart_says_hi_and_prints_what_arrives() {
    let Ok(listener) = TcpListener::bind("127.0.0.1:1883") else {
        eprintln!("SKIP: port 1883 is taken");
        return;
    };
    let server = TestServer::with_users(&["alice", "bob"]);
    let to = server.mqtt();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(to).expect("the server");
            for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
    let mut bob = Device::v5(&server, "bob", "phone");
    let mut command = example("quickstart");
    command.env("TOKEN", server.token("alice"));
    let quickstart = Running::start(command);
    assert_eq!(message(&mut bob)["text"]["body"], "hi");
    bob.send("alice", "b1", "hello");
    quickstart.says("bob: hello");
}
