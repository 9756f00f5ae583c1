//! mosquitto_pub and mosquitto_sub: clients that nobody here wrote.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::Value;

use super::server::wait;
use super::{TestServer, parse, patience};

/// Whether the tools are there. Without them a test says aloud that it is skipped; with `NATTER_TEST_ALL=1` it fails.
pub fn is_there() -> bool {
    let found = ["mosquitto_pub", "mosquitto_sub"]
        .iter()
        .all(|tool| Command::new(tool).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok());
    if !found {
        assert!(std::env::var_os("NATTER_TEST_ALL").is_none(), "mosquitto_pub or mosquitto_sub is missing");
        eprintln!("SKIPPED: mosquitto_pub or mosquitto_sub is missing (package mosquitto-clients)");
    }
    found
}

/// The version of MQTT to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V311,
    V5,
}

impl Version {
    fn word(self) -> &'static str {
        match self {
            Self::V311 => "311",
            Self::V5 => "5",
        }
    }
}

/// `tool` with where the server is and who calls.
pub fn command(tool: &str, server: &TestServer, version: Version, user: &str, token: &str, client_id: &str) -> Command {
    let mut command = Command::new(tool);
    let address = server.mqtt();
    command
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-V", version.word()])
        .args(["-u", user, "-P", token, "-i", client_id]);
    command
}

/// Publishes one message with mosquitto_pub; returns when it has ended, with its PUBACK (QoS 1) or PUBCOMP (QoS 2).
#[track_caller]
pub fn publish(server: &TestServer, version: Version, user: &str, device: &str, token: &str, qos: u8, payload: &str) {
    let status = publish_with(server, version, user, device, token, qos, payload, &[]);
    assert!(status.success(), "mosquitto_pub: {status}");
}

/// As [`publish`], with more arguments, which count above the usual ones; how it ended.
#[track_caller]
#[expect(clippy::too_many_arguments, reason = "they are those of the program")]
pub fn publish_with(
    server: &TestServer,
    version: Version,
    user: &str,
    device: &str,
    token: &str,
    qos: u8,
    payload: &str,
    more: &[&str],
) -> ExitStatus {
    let topic = format!("users/{user}/{device}/outbox");
    let mut child = command("mosquitto_pub", server, version, user, token, &format!("{user}-{device}-pub"))
        .args(["-q", &qos.to_string(), "-t", &topic, "-m", payload])
        .args(more)
        .spawn()
        .expect("mosquitto_pub");
    wait(&mut child, patience()).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("mosquitto_pub gets no answer")
    })
}

/// mosquitto_sub on a device's inbox: acknowledges what it gets, and prints it.
pub struct Subscriber {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Subscriber {
    pub fn start(server: &TestServer, version: Version, user: &str, device: &str, token: &str, more: &[&str]) -> Self {
        let mut child = command("mosquitto_sub", server, version, user, token, &format!("{user}-{device}"))
            .args(["-q", "1", "-t", &format!("users/{user}/{device}/inbox"), "-F", "%p"])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .expect("mosquitto_sub");
        let stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let (lines_tx, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(lines_tx.send(line))));
        Self { child, lines }
    }

    /// The next entry; live payloads are passed over.
    #[track_caller]
    pub fn entry(&mut self) -> Value {
        loop {
            let payload = self.payload();
            if payload.get("seq").is_some() {
                return payload;
            }
        }
    }

    /// The next payload of any kind.
    #[track_caller]
    pub fn payload(&mut self) -> Value {
        let line = self.lines.recv_timeout(patience()).expect("a line of mosquitto_sub");
        parse(line.as_bytes())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
