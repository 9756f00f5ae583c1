//! Short runs of `natter bench`: what it counts adds up. Nothing here says how fast anything is.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends where its world does not hold, and says what it skips"
)]

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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
fn backlogs_of_many_devices_are_drained_and_compared_with_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let report = bench(dir.path(), &["backlog", "--entries", "300", "--users", "30"]);
    assert_eq!((&report["entries"], &report["devices"]), (&300.into(), &30.into()));
    // One statement over 300 rows in a file, without a socket: no server is faster.
    assert!(number(&report["sqlite_entries_per_s"]) > number(&report["entries_per_s"]), "{report}");
}

#[test]
fn files_go_up_and_down() {
    let dir = tempfile::tempdir().unwrap();
    let report = bench(dir.path(), &["media", "--files", "3", "--bytes", "300001", "--at-once", "2"]);
    assert_eq!((&report["files"], &report["file_bytes"]), (&3.into(), &300_001.into()));
    for way in ["up", "down"] {
        assert!(number(&report[way]["mb_per_s"]) > 0.0 && number(&report[way]["seconds"]) > 0.0, "{report}");
    }
}

#[test]
fn a_run_of_so_many_messages_tells_memory_on_the_way_and_an_idle_hour_has_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let report = bench(dir.path(), &["pairs", "--pairs", "2", "--messages", "500", "--warmup", "0", "--idle", "20"]);
    let marks: Vec<(f64, f64)> = serde_json::from_value(report["marks"].clone()).unwrap();
    assert!(
        matches!(marks[..], [(a, x), (b, y)] if a >= 50.0 && b >= 500.0 && a < b && x > 1000.0 && y > 1000.0),
        "{report}"
    );
    assert!(number(&report["round_trips"]) >= 500.0, "{report}");
    // PINGREQ and PINGRESP, two bytes each, with a header of 40 bytes each at least; 12 of those an hour.
    let (each, hour) = (number(&report["keep_alive_ip_bytes"]), number(&report["idle_hour_ip_bytes"]));
    assert!(each >= 84.0 && (hour - 12.0 * each).abs() < 2.0, "{report}");
    assert!(number(&report["ip_bytes"]) > number(&report["wire_bytes_to_server"]), "{report}");
}

/// Prosody, ended when the test is.
struct Prosody(Child, u16);

impl Drop for Prosody {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// `None`: it is not installed.
fn prosody(dir: &Path) -> Option<Prosody> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (config, at) = (dir.join("prosody.cfg.lua"), dir.display());
    let text = format!(
        r#"daemonize = false
run_as_root = true
data_path = "{at}"
certificates = "{at}"
log = {{ error = "{at}/prosody.log" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
s2s_ports = {{}}
c2s_direct_tls_ports = {{}}
modules_enabled = {{ "roster", "saslauth", "disco", "ping", "register_ibr" }}
modules_disabled = {{ "s2s", "tls" }}
allow_registration = true
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
VirtualHost "bench.local"
"#
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("prosody");
    command.arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut prosody = Prosody(command.spawn().ok()?, port);
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline && prosody.0.try_wait().unwrap().is_none(), "prosody does not listen");
        std::thread::yield_now();
    }
    Some(prosody)
}

#[test]
fn a_run_against_an_xmpp_server_adds_up() {
    let dir = tempfile::tempdir().unwrap();
    let Some(prosody) = prosody(dir.path()) else {
        assert!(std::env::var_os("NATTER_TEST_ALL").is_none(), "prosody is missing");
        eprintln!("SKIPPED: prosody is missing (package prosody)");
        return;
    };
    let (address, pid) = (format!("127.0.0.1:{}", prosody.1), prosody.0.id().to_string());
    let server = ["--xmpp", address.as_str(), "--pid", pid.as_str(), "--name", "Prosody"];
    let run = ["pairs", "--pairs", "2", "--seconds", "1", "--warmup", "0", "--idle", "12"];
    let report = bench(dir.path(), &[&run[..], &server].concat());
    assert_eq!((&report["server"], &report["latency_us"]["accept"]), (&"Prosody".into(), &Value::Null));
    let counts = &report["counts"];
    assert!(number(&counts["sent"]) > 0.0, "{report}");
    for step in ["delivered", "receipted", "receipts"] {
        assert_eq!(counts[step], counts["sent"], "{step} in {report}");
    }
    assert!(number(&report["keep_alive_ip_bytes"]) > 84.0, "{report}");
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
