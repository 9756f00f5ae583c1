//! The README keeps its word: its five minutes and its calls over HTTP run as they stand there, against a server of the test's own.
#![expect(clippy::expect_used, clippy::print_stderr, clippy::unwrap_used, reason = "a test ends that way")]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const README: &str = include_str!("../README.md");
const CI: &str = include_str!("../.ci/run");
/// How long the five minutes may take a machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The shell blocks, in order.
fn blocks() -> Vec<&'static str> {
    README.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Where a program is, or `None`, said aloud; with `NATTER_TEST_ALL=1` that is a failure.
fn program(name: &str) -> Option<String> {
    let found = std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var_os("NATTER_TEST_ALL").is_none(), "{name} is missing");
        eprintln!("SKIP the five minutes of the README: {name} is missing");
    }
    Some(found?.to_str().unwrap().to_owned())
}

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn every_command_is_run_by_a_test_or_by_ci() {
    let blocks = blocks();
    assert_eq!(blocks.len(), 8, "a new block needs somebody who runs it");
    assert_eq!((blocks[0], blocks[1]), ("cargo run --release\n", "cargo test --workspace\n"));
    assert!(blocks[2].starts_with("apt-get update && apt-get install "));
    // Contacts, groups and media: behind the five minutes, below.
    assert!(blocks[5].contains("/v1/contacts/import") && blocks[6].contains("/v1/groups"));
    assert!(blocks[7].contains("/v1/media"));
    for command in [
        "cargo run --release",
        "cargo test --workspace",
        "apt-get update",
        "mosquitto-clients",
        "natter user add",
        "curl",
    ] {
        assert!(CI.contains(command), "{command} is not in .ci/run");
    }
}

/// The first program is an example of the SDK, which is compiled and run with the others, and short enough for a first look.
#[test]
fn the_first_program_is_the_example() {
    let example = include_str!("../client-sdk/examples/quickstart.rs");
    let is_head = |line: &&str| line.starts_with("//!") || line.starts_with("#![");
    let program: Vec<&str> = example.lines().skip_while(is_head).collect();
    let shown = README.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(shown.lines().collect::<Vec<_>>(), program);
    assert!(program.len() <= 15, "{} lines", program.len());
}

#[test]
fn every_file_it_links_to_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for link in README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        assert!(root.join(link).exists(), "{link}");
    }
}

/// A server over a directory of its own, which has the program where the README expects it; and what it says when it is ready.
fn serve(dir: &Path) -> (Killed, String) {
    let server = Command::new(env!("CARGO_BIN_EXE_natter"))
        .args(["serve", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut server = Killed(server);
    let mut ready = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let programs = dir.join("target/release");
    fs::create_dir_all(&programs).unwrap();
    symlink(env!("CARGO_BIN_EXE_natter"), programs.join("natter")).unwrap();
    (server, ready)
}

/// What a block prints.
fn run(dir: &Path, block: &str) -> String {
    let shell = Command::new("bash")
        .args(["-euo", "pipefail", "-c", block])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shell = Killed(shell);
    let mut stdout = shell.0.stdout.take().unwrap();
    let (output_tx, output_rx) = mpsc::channel();
    thread::spawn(move || output_tx.send(std::io::read_to_string(&mut stdout)));
    let output = output_rx.recv_timeout(PATIENCE).expect("the block does not end").unwrap();
    assert!(shell.0.wait().unwrap().success(), "{output}");
    output
}

#[test]
fn the_calls_over_http_end_with_both_ticks_and_read() {
    if program("curl").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_server, ready) = serve(dir.path());
    let address = ready.split(' ').find_map(|word| word.strip_prefix("http=")).unwrap();
    let output = run(dir.path(), &blocks()[4].replace("127.0.0.1:8080", address));
    for word in [
        r#""messages":[{"id":"m1"}]"#,
        r#""body":"hi""#,
        r#""status":"delivered""#,
        r#"{"success":true}"#,
        r#""status":"read""#,
    ] {
        assert!(output.contains(word), "no {word} in:\n{output}");
    }
}

#[test]
fn the_five_minutes_end_with_both_ticks_and_read() {
    let (Some(publish), Some(subscribe)) = (program("mosquitto_pub"), program("mosquitto_sub")) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (_server, ready) = serve(dir.path());
    let port = ready.split([' ', ':']).nth(3).unwrap_or_else(|| panic!("not ready: {ready:?}"));
    // The block looks for its programs in target/release first: ours is there, and mosquitto's with the port of this server.
    let programs = dir.path().join("target/release");
    for (name, path) in [("mosquitto_pub", publish), ("mosquitto_sub", subscribe)] {
        write_program(&programs.join(name), &format!("#!/bin/sh\nexec '{path}' -p {port} \"$@\"\n"));
    }
    let output = run(dir.path(), blocks()[3]);

    let line = |topic: &str, word: &str| {
        let found = output.lines().find(|line| line.starts_with(topic) && line.contains(word));
        assert!(found.is_some(), "no line {topic} with {word} in:\n{output}");
    };
    line("users/bob/phone/inbox ", r#""body":"hi""#);
    line("users/alice/phone/inbox ", r#""status":"delivered""#);
    line("users/alice/phone/inbox ", r#""status":"read""#);

    if program("curl").is_none() {
        return;
    }
    let http = ready.split_whitespace().find_map(|word| word.strip_prefix("http=")).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let run = |block: &str| {
        Command::new("timeout")
            .args(["120", "bash", "-euo", "pipefail", "-c", &block.replace("127.0.0.1:8080", http)])
            .current_dir(dir.path())
            .env("PATH", &path)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let output = run(blocks()[5]);
    assert!(String::from_utf8_lossy(&output.stdout).contains(r#""added":1,"present":0,"failed":0"#), "{output:?}");
    let output = run(blocks()[6]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let words = ["group_created", "to the sea?", r#""members":[{"user":"alice","admin":true"#, "natter:join/"];
    for word in words {
        assert!(stdout.contains(word), "no {word} in: {output:?}");
    }
    let output = run(blocks()[7]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.ends_with("see you at eight\n"), "{output:?}");
}
