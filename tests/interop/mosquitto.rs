//! The scenario with mosquitto_sub for the inboxes and mosquitto_pub for the outboxes. They are killed and started again where a library's
//! connection breaks; they subscribe each time, and do not tell about Session Present. libmosquitto acknowledges a message before it hands
//! it out, so mosquitto_sub loses what it holds when it is killed: it is killed when it has printed everything.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::common::mosquitto::{Subscriber, Version, publish_with};
use crate::common::tls::Certificate;
use crate::common::{TestServer, mosquitto};
use crate::inbox::Inbox;
use crate::{ALICE_BREAKS_AT, Case, MESSAGES, User};

struct Ways<'a> {
    server: &'a TestServer,
    version: Version,
    /// Where the server is.
    over: Vec<String>,
    session: &'static [&'static str],
}

impl Ways<'_> {
    fn subscriber(&self, user: &User) -> Subscriber {
        let more: Vec<&str> = self.over.iter().map(String::as_str).chain(self.session.iter().copied()).collect();
        Subscriber::start(self.server, self.version, &user.name, "phone", &user.token, &more)
    }

    fn publish(&self, user: &User, payload: &Value) -> u64 {
        let over: Vec<&str> = self.over.iter().map(String::as_str).collect();
        let payload = payload.to_string();
        let status = publish_with(self.server, self.version, &user.name, "phone", &user.token, 1, &payload, &over);
        u64::from(status.success())
    }

    /// Publishes, and is killed meanwhile: with SIGKILL it says no DISCONNECT.
    fn publish_and_die(&self, user: &User, payloads: &[Value]) {
        let topic = format!("users/{}/phone/outbox", user.name);
        let mut child = mosquitto::command("mosquitto_pub", self.server, self.version, &user.name, &user.token, "dies")
            .args(["-q", "1", "-l", "-t", &topic])
            .args(&self.over)
            .stdin(Stdio::piped())
            .spawn()
            .expect("mosquitto_pub");
        let stdin = child.stdin.as_mut().expect("stdin");
        payloads.iter().for_each(|payload| writeln!(stdin, "{payload}").expect("a line"));
        child.kill().expect("SIGKILL");
        child.wait().expect("its end");
    }
}

/// Plays the case. What the clients do not tell is left out of the outcome.
pub(crate) fn scenario(case: &Case, server: &TestServer, certificate: &Certificate) -> Value {
    let mut over = Vec::new();
    if case.transport == "tls" {
        let ca = certificate.file("ca.pem").to_string_lossy().into_owned();
        over.extend(["-p".to_owned(), server.mqtts().port().to_string(), "--cafile".to_owned(), ca]);
    }
    let (version, session): (_, &[&str]) = match (case.version, case.kept) {
        (5, true) => (Version::V5, &["-c", "-x", "300"]),
        (5, false) => (Version::V5, &[]),
        (_, true) => (Version::V311, &["-c"]),
        (_, false) => (Version::V311, &[]),
    };
    let ways = Ways { server, version, over, session };
    let text = |i: u64| json!({"id": format!("m{i}"), "to": case.bob.name, "text": {"body": format!("m{i}")}});

    let (mut bob_sub, mut alice_sub) = (ways.subscriber(&case.bob), ways.subscriber(&case.alice));
    let (mut alice, mut bob) = (Inbox::default(), Inbox::default());
    let mut acknowledged = 0;
    for i in 0..ALICE_BREAKS_AT {
        acknowledged += ways.publish(&case.alice, &text(i));
    }
    while bob.fresh < ALICE_BREAKS_AT {
        bob.take(&bob_sub.entry());
    }
    drop(bob_sub);
    while alice.delivered < ALICE_BREAKS_AT {
        alice.take(&alice_sub.entry());
    }
    drop(alice_sub);
    ways.publish_and_die(&case.alice, &(ALICE_BREAKS_AT..ALICE_BREAKS_AT + 3).map(text).collect::<Vec<_>>());
    let (mut bob_sub, mut alice_sub) = (ways.subscriber(&case.bob), ways.subscriber(&case.alice));
    for i in ALICE_BREAKS_AT..MESSAGES {
        acknowledged += ways.publish(&case.alice, &text(i));
    }

    while bob.fresh < MESSAGES {
        bob.take(&bob_sub.entry());
    }
    let read = ways.publish(&case.bob, &json!({"status": "read", "chat": case.alice.name, "n": MESSAGES}));
    while alice.delivered < MESSAGES || alice.read < MESSAGES {
        alice.take(&alice_sub.entry());
    }
    json!({
        "alice": {"acknowledged": acknowledged, "unexpected": alice.unexpected},
        "bob": {"acknowledged": read, "unexpected": bob.unexpected, "received": bob.received},
        "ticks": alice.ticks,
        "delivered": alice.delivered,
        "read": alice.read,
    })
}
