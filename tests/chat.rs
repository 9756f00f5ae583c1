//! `natter chat` under a pseudo-terminal, against a real server.

#![expect(clippy::expect_used, clippy::panic, reason = "a test ends that way")]

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use common::{TestServer, patience};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A chat that runs, its keyboard, and everything that it has written to its screen.
struct Terminal {
    child: Child,
    keyboard: File,
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Terminal {
    /// Beside the server, so that it makes its token itself.
    fn of(server: &TestServer, user: &str, peer: &str) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&keyboard).expect("a terminal of our own");
        unlockpt(&keyboard).expect("a terminal that opens");
        let name = ptsname(&keyboard, Vec::new()).expect("its name");
        tcsetwinsize(&keyboard, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).expect("its size");
        let screen = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its screen");
        let screen = || Stdio::from(screen.try_clone().expect("another handle"));
        // In a session of its own, it has no other terminal to find.
        let child = Command::new("setsid")
            .arg(env!("CARGO_BIN_EXE_natter"))
            .args(["chat", "--user", user, "--server", &format!("mqtt://{}", server.mqtt())])
            .args(["--http", &format!("http://{}", server.http())])
            .arg("--store")
            .arg(server.data().join(format!("chat-{user}.db")))
            .arg("--data")
            .arg(server.data())
            .arg(peer)
            .current_dir(server.data())
            .env("TERM", "xterm-256color")
            .env_remove("NATTER_TOKEN")
            .stdin(screen())
            .stdout(screen())
            .stderr(screen())
            .spawn()
            .expect("natter chat");
        let (tell, output) = channel();
        let keyboard = File::from(keyboard);
        let mut reader = keyboard.try_clone().expect("another handle");
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if tell.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut terminal = Self { child, keyboard, output, screen: vt100::Parser::new(24, 80, 0) };
        terminal.sees(" · connected");
        terminal
    }

    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("a keyboard");
    }

    fn shows(&self) -> String {
        self.screen.screen().contents()
    }

    /// Waits until the words are on the screen.
    #[track_caller]
    fn sees(&mut self, words: &str) {
        self.waits(words, |terminal| terminal.shows().contains(words));
    }

    /// Waits until the ticks behind the words are two, and blue.
    #[track_caller]
    fn sees_read(&mut self, words: &str) {
        let ticks = format!("{words} ✓✓");
        self.waits(&format!("{ticks} in blue"), |terminal| {
            let screen = terminal.screen.screen();
            let line = screen.rows(0, 80).position(|line| line.contains(&ticks));
            line.and_then(|line| u16::try_from(line).ok()).is_some_and(|line| {
                let cells = (0..80).filter_map(|column| screen.cell(line, column));
                let mut ticks = cells.filter(|cell| cell.contents() == "✓");
                ticks.all(|tick| tick.fgcolor() == vt100::Color::Idx(12))
            })
        });
    }

    #[track_caller]
    fn waits(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + patience();
        while !done(self) {
            let more = self.output.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let more = more.unwrap_or_else(|error| panic!("no {what} ({error}) on:\n{}", self.shows()));
            self.screen.process(&more);
        }
    }

    fn leaves(mut self) {
        self.types("/quit\r");
        let ended = common::server::wait(&mut self.child, patience()).expect("it ends");
        assert!(ended.success(), "{ended}");
    }
}

#[test]
fn two_terminals_talk_with_ticks_and_files_and_keep_their_history() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Terminal::of(&server, "alice", "bob");
    // He is not there: one tick, at the server. Then he is, and two.
    alice.types("ahoy\r");
    alice.sees("ahoy ✓");
    assert!(!alice.shows().contains("✓✓"), "nobody has it:\n{}", alice.shows());
    let mut bob = Terminal::of(&server, "bob", "alice");
    bob.sees("ahoy");
    // His chat is open: it is read at once.
    alice.sees_read("ahoy");

    bob.types("aye\r");
    alice.sees("aye");

    std::fs::write(server.data().join("chart.txt"), "here be dragons").expect("a file");
    alice.types("/send chart.txt\r");
    bob.sees("chart.txt");
    bob.types("/save 3 treasure.txt\r");
    bob.sees("saved");
    let saved = std::fs::read_to_string(server.data().join("treasure.txt")).expect("the file");
    assert_eq!(saved, "here be dragons");

    bob.leaves();
    alice.leaves();
    let mut alice = Terminal::of(&server, "alice", "bob");
    for words in ["bob aye", "#3 chart.txt 15 B"] {
        alice.sees(words);
    }
    alice.sees_read("ahoy");
    alice.types("\u{3}");
    let ended = common::server::wait(&mut alice.child, patience()).expect("Ctrl-C ends it");
    assert!(ended.success(), "{ended}");
}

#[test]
fn what_is_written_while_the_server_is_away_goes_out_once_when_it_is_back() {
    let mut server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Terminal::of(&server, "alice", "bob");
    server.kill9();
    alice.types("lost?\r");
    alice.sees("lost? ◷");
    drop(alice);
    server.restart();
    let mut alice = Terminal::of(&server, "alice", "bob");
    alice.sees("lost? ✓");
    let bob = common::Client::of(&server, "bob");
    let got = bob.get("/messages?user_id=bob&wait=5").ok();
    assert_eq!(got["messages"].as_array().map(Vec::len), Some(1), "{got}");
    assert_eq!(got["messages"][0]["text"]["body"], "lost?");
    alice.leaves();
}

#[test]
fn a_device_is_linked_by_the_code_on_the_screen_and_unlinked_there() {
    let server = TestServer::with_users(&["alice", "bob"]);
    let mut alice = Terminal::of(&server, "alice", "bob");
    alice.types("/link\r");
    alice.sees("good once, for another ");
    let shown = alice.shows();
    let code = shown
        .split("  good once")
        .next()
        .and_then(|before| before.split(['│', ' ', '\n']).next_back())
        .expect("a code");
    let out = server.data().join("laptop.token");
    let http = format!("http://{}", server.http());
    let link = |code: &str, device: &str| {
        let mut natter = common::server::natter();
        natter.args(["link", code, "--user", "alice", "--server", &http, "--label", "Work", "--device", device]);
        natter.arg("--out").arg(&out).output().expect("natter link")
    };
    let taken = link(code, "terminal");
    let stderr = String::from_utf8_lossy(&taken.stderr);
    assert!(taken.status.code() == Some(1) && stderr.contains("--device NAME"), "{stderr}");
    assert!(!out.exists(), "no token, no file");
    let linked = link(&code.to_lowercase(), "laptop");
    assert!(linked.status.success(), "{linked:?}");
    let token = std::fs::read_to_string(&out).expect("a token");
    assert!(!String::from_utf8_lossy(&linked.stdout).contains(token.trim()));
    assert_eq!(std::fs::metadata(&out).expect("a file").permissions().mode() & 0o777, 0o600);
    let again = link(code, "tablet");
    let stderr = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.code() == Some(1) && stderr.contains("File exists"), "what is there stays: {stderr}");

    let of_laptop = common::Client { address: server.http(), token: Some(token.trim().to_owned()) };
    of_laptop.get("/v1/devices").ok();
    alice.types("/devices\r");
    alice.sees("laptop (Work)  last seen just now");
    assert!(alice.shows().contains("terminal  this one") && !alice.shows().contains(code), "{}", alice.shows());
    alice.types("/unlink laptop\r");
    alice.sees("laptop is unlinked");
    of_laptop.get("/v1/devices").refused(401, 190);
    alice.types("/unlink laptop\r");
    alice.sees("there is no such device");
    alice.leaves();
}

#[test]
fn a_group_is_made_joined_counted_and_left_on_the_screen() {
    let server = TestServer::with_users(&["alice", "bob", "carol"]);
    let mut alice = Terminal::of(&server, "alice", "bob");
    alice.types("/group new \"Our trip\" bob\r");
    alice.sees("alice made the group Our trip with bob");
    alice.types("who drives?\r");
    alice.sees("who drives? ✓");
    let groups = common::Client::of(&server, "alice").get("/v1/groups").ok();
    let group = groups["groups"][0]["group"].as_str().expect("a group").to_owned();
    let mut bob = Terminal::of(&server, "bob", &group);
    bob.sees("alice who drives?");
    alice.sees_read("who drives?");

    alice.types("/invite\r");
    alice.sees("/join natter:join/");
    let shown = alice.shows();
    let link = shown.split("/join ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a link").to_owned();
    let mut carol = Terminal::of(&server, "carol", "alice");
    carol.types(&format!("/join {link}\r"));
    carol.sees("carol joined by the invite link");
    carol.leaves();
    alice.types("/group promote bob\r");
    alice.sees("alice made bob an admin");
    bob.types("I do\r");
    // She is away: one of two has it.
    bob.sees("I do ✓ 1/2");
    bob.types("/group remove carol\r");
    bob.sees_read("I do");
    bob.types("/group info\r");
    bob.sees("bob  admin");
    alice.types("/group leave\r");
    alice.sees("alice left");
    alice.types("/group add carol\r");
    alice.sees("chat: expected a group");
    alice.leaves();
    bob.leaves();
    // What happened is kept.
    let mut bob = Terminal::of(&server, "bob", &group);
    bob.sees("alice left");
    assert!(bob.shows().contains("Our trip"), "{}", bob.shows());
    bob.leaves();
}

#[test]
fn a_status_is_posted_and_seen_by_who_has_its_poster_as_a_contact() {
    let server = TestServer::with_users(&["alice", "bob"]);
    for (user, contact) in [("alice", "bob"), ("bob", "alice")] {
        common::Client::of(&server, user).request("PUT", &format!("/v1/contacts/{contact}"), &[], b"{}").ok();
    }
    let mut alice = Terminal::of(&server, "alice", "bob");
    let mut bob = Terminal::of(&server, "bob", "alice");
    alice.types("/status at the sea\r");
    bob.types("/chat status@broadcast\r");
    bob.sees("at the sea");
    alice.types("/chat status@broadcast\r");
    alice.sees("at the sea ✓✓");
    let viewers = common::Client::of(&server, "alice").get("/v1/status").ok();
    assert_eq!(viewers["statuses"][0]["text"]["body"], "at the sea", "{viewers}");
    alice.leaves();
    bob.leaves();
}
