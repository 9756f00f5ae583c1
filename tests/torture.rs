//! Short runs of `natter torture`: servers and clients killed while messages fly, and nothing acknowledged is lost.

#![allow(clippy::unwrap_used, reason = "a test ends where its world does not hold")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The number of `name=` in a line.
fn number(line: &str, name: &str) -> u64 {
    let word = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    word.and_then(|word| word.parse().ok()).ok_or_else(|| format!("no {name} in {line:?}")).unwrap()
}

#[test]
fn nothing_acknowledged_is_lost_whatever_is_killed_paused_or_cut() {
    let output = Command::new(env!("CARGO_BIN_EXE_natter"))
        .args(["torture", "--seconds", "6", "--kills", "5", "--pairs", "2", "--devices", "3", "--seed", "1"])
        .output()
        .unwrap();
    let (line, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}{log}");
    for name in ["lost", "duplicated", "reordered", "false_receipts", "repeated_receipts", "gaps", "stuck"] {
        assert_eq!(number(&line, name), 0, "{line}{log}");
    }
    assert_eq!(number(&line, "kills"), 5, "{line}{log}");
    for name in ["acked", "client_kills", "connections", "rss_max_mib", "fds_max"] {
        assert!(number(&line, name) > 0, "{name} in {line}{log}");
    }
    assert!(line.contains(r#" seed=1 "#) && line.contains(r#" again="natter torture --kills 5 "#), "{line}");
}

/// Each device of the SDK has a store, dies by SIGKILL with its host, and goes on over the same file.
#[test]
fn clients_of_the_sdk_lose_double_and_reorder_nothing_either() {
    let output = Command::new(env!("CARGO_BIN_EXE_natter"))
        .args([
            "torture",
            "--seconds",
            "10",
            "--kills",
            "4",
            "--pairs",
            "2",
            "--devices",
            "3",
            "--sdk",
            "2",
            "--seed",
            "2",
        ])
        .output()
        .unwrap();
    let (line, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}{log}");
    for name in ["lost", "duplicated", "reordered", "false_receipts", "repeated_receipts", "gaps", "phantoms", "stuck"]
    {
        assert_eq!(number(&line, name), 0, "{line}{log}");
    }
    for name in ["acked", "client_kills"] {
        assert!(number(&line, name) > 0, "{name} in {line}{log}");
    }
    assert!(line.contains(" --sdk 2 "), "{line}");
}

/// Processes with `dir` in their command line.
fn processes(dir: &Path) -> Vec<String> {
    let dir = dir.display().to_string();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(&dir)).collect()
}

#[test]
fn a_run_that_is_killed_leaves_no_process_behind() {
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join("run");
    let mut conductor = Command::new(env!("CARGO_BIN_EXE_natter"))
        .args(["torture", "--seconds", "600", "--kills", "0", "--without", "client-kill", "--data"])
        .arg(&dir)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The conductor, the server and four hosts.
    wait("six processes", || processes(&dir).len() == 6 && dir.join("device-0.journal").exists());
    conductor.kill().unwrap();
    conductor.wait().unwrap();
    wait("none", || processes(&dir).is_empty());
}

fn wait(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: did not come true");
        sleep(Duration::from_millis(20));
    }
}
