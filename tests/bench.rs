//! Short runs of `natter bench`: what it counts adds up. Nothing here says how fast anything is.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends where its world does not hold, and says what it skips"
)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn bench(dir: &Path, arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_natter"))
        .args(["bench"])
        .args(arguments)
        .args(["--json", "--data"])
        .arg(dir.join("run"))
        .output()
        .unwrap();
    let (line, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}{log}");
    serde_json::from_str(&line).unwrap_or_else(|error| unreachable!("{error}: {line}{log}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().ok_or_else(|| format!("expected a number, got {value}")).unwrap()
}

/// Every step of a round trip was made as often as the one before, and what was measured is part of that.
fn assert_adds_up(report: &Value) {
    let counts = &report["counts"];
    let sent = number(&counts["sent"]);
    for step in ["acked", "delivered", "receipted"] {
        assert_eq!(number(&counts[step]), sent, "{step} in {report}");
    }
    let round_trips = number(&report["round_trips"]);
    assert!(round_trips > 0.0 && round_trips <= sent, "{report}");
    assert!(number(&counts["receipts"]) > 0.0 && number(&counts["receipts"]) <= sent, "{report}");
    let latency = &report["latency_us"];
    assert_eq!(number(&latency["round_trip"]["count"]), round_trips, "{report}");
    for step in ["accept", "deliver", "round_trip"] {
        let order = ["p50", "p90", "p99", "p99.9", "max"].map(|name| number(&latency[step][name]));
        assert!(order[0] > 0.0 && order.is_sorted(), "{step} in {report}");
    }
    // A message has 100 bytes of text, goes in, and comes out.
    assert!(number(&report["wire_bytes_to_server"]) > 100.0, "{report}");
    assert!(number(&report["wire_bytes_from_server"]) > 100.0, "{report}");
    assert!(number(&report["seconds"]) >= 1.0 && number(&report["rss_after_kib"]) > 1000.0, "{report}");
}

#[test]
fn a_closed_loop_beside_stored_entries_and_idle_connections_adds_up() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["pairs", "--pairs", "2", "--in-flight", "4", "--seconds", "1", "--warmup", "0", "--seed", "7"];
    let more = ["--stored", "301", "--stored-users", "3", "--users", "40", "--idle", "11"];
    let report = bench(dir.path(), &[&arguments[..], &more].concat());
    assert_adds_up(&report);
    for (name, expected) in
        [("pairs", 2), ("in_flight", 4), ("seed", 7), ("users", 40), ("stored", 301), ("stored_users", 3), ("idle", 11)]
    {
        assert_eq!(report[name], expected, "{name} in {report}");
    }
    assert_eq!(report["loop"], "closed");
    assert!(number(&report["stored_per_s"]) > 0.0 && number(&report["rss_idle_bytes_each"]) >= 0.0, "{report}");
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["pairs", "--pairs", "2", "--rate", "50", "--seconds", "2", "--warmup", "1"];
    let report = bench(dir.path(), &arguments);
    assert_adds_up(&report);
    assert_eq!((&report["loop"], &report["rate"], &report["in_flight"]), (&"open".into(), &50.0.into(), &Value::Null));
    // One of each pair to begin with, and then 50 a second for 3 seconds: those that were due, however late.
    let sent = number(&report["counts"]["sent"]);
    assert!((145.0..=160.0).contains(&sent), "{report}");
}

#[test]
fn a_backlog_is_drained_to_its_last_entry() {
    let dir = tempfile::tempdir().unwrap();
    let report = bench(dir.path(), &["backlog", "--entries", "700"]);
    assert_eq!(report["entries"], 700);
    assert!(number(&report["entries_per_s"]) > 0.0 && number(&report["stored_per_s"]) > 0.0, "{report}");
}

#[test]
fn a_run_against_a_plain_broker_adds_up() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_natter"))
        .args(["bench", "pairs", "--broker", "--pairs", "2", "--seconds", "1", "--warmup", "0", "--json", "--data"])
        .arg(dir.path().join("run"))
        .output()
        .unwrap();
    let (line, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}{log}");
    if line.is_empty() {
        assert!(std::env::var_os("NATTER_TEST_ALL").is_none() && log.contains("SKIPPED"), "{log}");
        eprintln!("{log}");
        return;
    }
    let report: Value = serde_json::from_str(&line).unwrap();
    assert!(report["server"].as_str().unwrap().starts_with("mosquitto "), "{report}");
    assert_adds_up(&report);
}
