//! Requests that schemathesis makes up from /openapi.json, well-formed and not: whatever comes, the server has an answer that is not a 5xx.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends where its world does not hold")]

mod common;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::interop::installed;
use common::{Device, TestServer};

/// Requests of each kind for each operation. `NATTER_SCHEMATHESIS` says how many more are wanted.
const EXAMPLES: &str = "10";
/// What ends the token that it asks with.
const ENDS_THE_TOKEN: &str = "/v1/users/(logout|revoke|disable|password)";

/// Asks what `only` says, as a user of his own.
fn play(server: &TestServer, user: &str, only: [&str; 2]) {
    let Some(program) = installed("venv/bin/st") else { return };
    let examples = std::env::var("NATTER_SCHEMATHESIS").unwrap_or_else(|_| EXAMPLES.to_owned());
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(program)
        .current_dir(dir.path())
        .args(["run", &format!("http://{}/openapi.json", server.http())])
        .args(["--header", &format!("Authorization: Bearer {}", server.token(user))])
        .args(["--checks", "not_a_server_error", "--max-examples", &examples, "--generation-deterministic"])
        .args(["--phases", "examples,coverage,fuzzing", "--request-timeout", "60", "--no-color", "--no-shrink"])
        .args(["--suppress-health-check", "all"])
        .args(only)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    // It did ask.
    assert!(said.contains("generated") || said.contains("passed"), "{said}");
}

#[test]
fn no_request_makes_the_server_fail() {
    let server = TestServer::start_with("[accounts]\nregistration = \"open\"\n");
    server.add_user("alice");
    server.add_user("bob");
    let mut bob = Device::v5(&server, "bob", "phone");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Something comes now and then, or long polls would take all of their time.
        let writing = scope.spawn(|| {
            for n in 0.. {
                bob.send("alice", &format!("m{n}"), "hi");
                thread::sleep(Duration::from_millis(100));
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let played = scope.spawn(|| play(&server, "alice", ["--exclude-path-regex", ENDS_THE_TOKEN])).join();
        done.store(true, Ordering::Relaxed);
        played.unwrap();
        // It has worked all the time for those who ask properly.
        writing.join().unwrap();
    });
    server.add_user("mallory");
    play(&server, "mallory", ["--include-path-regex", ENDS_THE_TOKEN]);
}
