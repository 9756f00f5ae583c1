//! The message flow of the mission, step by step, over real sockets against the real process, with clients that nobody here wrote.

mod common;

use common::mosquitto::{self, Subscriber, Version};
use common::rumqtt::Rumqtt;
use common::{TestServer, assert_receipt, assert_text};
use serde_json::{Value, json};

/// A user with a connected device, whatever client it runs.
trait Party {
    /// Publishes to the outbox; returns with the PUBACK.
    fn publish(&mut self, payload: &str);
    /// The next entry of the inbox; the client has acknowledged it.
    fn entry(&mut self) -> Value;
}

impl Party for Rumqtt {
    fn publish(&mut self, payload: &str) {
        self.publish(payload);
    }

    fn entry(&mut self) -> Value {
        self.entry()
    }
}

/// mosquitto_sub for the inbox, mosquitto_pub for the outbox.
struct Mosquitto<'a> {
    server: &'a TestServer,
    version: Version,
    user: &'static str,
    token: String,
    inbox: Subscriber,
}

impl<'a> Mosquitto<'a> {
    fn connect(server: &'a TestServer, version: Version, user: &'static str) -> Self {
        let token = server.token(user);
        let inbox = Subscriber::start(server, version, user, "phone", &token, &[]);
        Self { server, version, user, token, inbox }
    }
}

impl Party for Mosquitto<'_> {
    fn publish(&mut self, payload: &str) {
        mosquitto::publish(self.server, self.version, self.user, "phone", &self.token, 1, payload);
    }

    fn entry(&mut self) -> Value {
        self.inbox.entry()
    }
}

/// How a party's client is started: step 1.
type Connects = for<'a> fn(&'a TestServer, &'static str) -> Box<dyn Party + 'a>;

const MOSQUITTO_311: Connects = |server, user| Box::new(Mosquitto::connect(server, Version::V311, user));
const MOSQUITTO_5: Connects = |server, user| Box::new(Mosquitto::connect(server, Version::V5, user));
const RUMQTTC_311: Connects = |server, user| Box::new(Rumqtt::v4(server, user, "phone"));
const RUMQTTC_5: Connects = |server, user| Box::new(Rumqtt::v5(server, user, "phone"));

fn eight_steps(alice: Connects, bob: Connects) {
    let server = TestServer::with_users(&["alice", "bob"]);

    // 1. Both connect to the server.
    let mut alice = alice(&server, "alice");
    let mut bob_online = bob(&server, "bob");

    // 2. Alice sends a message. 3. The server acknowledges: publish returns with the PUBACK, one tick.
    alice.publish(&json!({"id": "m1", "to": "bob", "type": "text", "text": {"body": "hi"}}).to_string());

    // 4. The server sends it to bob. 5. Bob's client acknowledges it by itself.
    let message = bob_online.entry();
    assert_text(&message, "alice", "hi");
    assert_eq!((&message["id"], message["n"].as_u64()), (&json!("m1"), Some(1)), "{message}");

    // 6. Alice learns that it was delivered: two ticks.
    let delivered = alice.entry();
    assert_receipt(&delivered, "delivered", "bob", 0, 1);
    assert_eq!((&delivered["id"], &delivered["recipient_id"]), (&json!("m1"), &json!("bob")), "{delivered}");

    // 7. Bob reads it, and his app says so.
    bob_online.publish(&json!({"status": "read", "message_id": "m1", "chat": "alice", "from": "alice"}).to_string());

    // 8. Alice learns that he has read it: blue ticks.
    let read = alice.entry();
    assert_receipt(&read, "read", "bob", 0, 1);
    assert_eq!((&read["id"], &read["recipient_id"]), (&json!("m1"), &json!("bob")), "{read}");

    // 4 again, with bob offline: the message is stored, and waits for him.
    drop(bob_online);
    alice.publish(&json!({"id": "m2", "to": "bob", "type": "text", "text": {"body": "are you there?"}}).to_string());
    let mut bob_again = bob(&server, "bob");
    assert_text(&bob_again.entry(), "alice", "are you there?");
    assert_receipt(&alice.entry(), "delivered", "bob", 1, 2);
    bob_again.publish(&json!({"status": "read", "chat": "alice", "n": 2}).to_string());
    assert_receipt(&alice.entry(), "read", "bob", 1, 2);
}

#[test]
fn with_mosquitto_clients_from_3_1_1_to_5() {
    if mosquitto::is_there() {
        eight_steps(MOSQUITTO_311, MOSQUITTO_5);
    }
}

#[test]
fn with_mosquitto_clients_from_5_to_3_1_1() {
    if mosquitto::is_there() {
        eight_steps(MOSQUITTO_5, MOSQUITTO_311);
    }
}

#[test]
fn with_rumqttc_from_3_1_1_to_5() {
    eight_steps(RUMQTTC_311, RUMQTTC_5);
}

#[test]
fn with_rumqttc_from_5_to_3_1_1() {
    eight_steps(RUMQTTC_5, RUMQTTC_311);
}

#[test]
fn with_mosquitto_to_rumqttc() {
    if mosquitto::is_there() {
        eight_steps(MOSQUITTO_311, RUMQTTC_5);
    }
}
