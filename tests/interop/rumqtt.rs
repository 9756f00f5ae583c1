//! The scenario with rumqttc. It connects again by itself when it is polled, and sends again what is not acknowledged when there is a
//! session; without one it forgets, and the program sends again.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use rumqttc::{Event, Packet, v5};
use serde_json::{Value, json};

use crate::common::{parse, patience};
use crate::inbox::Inbox;
use crate::{ALICE_BREAKS_AT, BOB_BREAKS_AT, Case, MESSAGES, User};

#[expect(clippy::large_enum_variant, reason = "there are two of it")]
enum Library {
    V4(rumqttc::Client, rumqttc::Connection),
    V5(v5::Client, v5::Connection),
}

/// What the two modules of rumqttc name differently.
enum Heard {
    ConnAck(bool),
    SubAck(u8),
    PubAck { is_good: bool },
    Payload(Vec<u8>),
    Nothing,
}

impl From<Event> for Heard {
    fn from(event: Event) -> Self {
        match event {
            Event::Incoming(Packet::ConnAck(connack)) => Self::ConnAck(connack.session_present),
            Event::Incoming(Packet::SubAck(suback)) => match suback.return_codes[0] {
                rumqttc::SubscribeReasonCode::Success(qos) => Self::SubAck(qos as u8),
                rumqttc::SubscribeReasonCode::Failure => Self::SubAck(0x80),
            },
            Event::Incoming(Packet::PubAck(_)) => Self::PubAck { is_good: true },
            Event::Incoming(Packet::Publish(publish)) => Self::Payload(publish.payload.to_vec()),
            _ => Self::Nothing,
        }
    }
}

impl From<v5::Event> for Heard {
    fn from(event: v5::Event) -> Self {
        use v5::mqttbytes::v5::{Packet, PubAckReason, SubscribeReasonCode};
        match event {
            v5::Event::Incoming(Packet::ConnAck(connack)) => Self::ConnAck(connack.session_present),
            v5::Event::Incoming(Packet::SubAck(suback)) => match suback.return_codes[0] {
                SubscribeReasonCode::Success(qos) => Self::SubAck(qos as u8),
                _ => Self::SubAck(0x80),
            },
            v5::Event::Incoming(Packet::PubAck(puback)) => {
                Self::PubAck { is_good: puback.reason == PubAckReason::Success }
            }
            v5::Event::Incoming(Packet::Publish(publish)) => Self::Payload(publish.payload.to_vec()),
            _ => Self::Nothing,
        }
    }
}

struct Party {
    library: Library,
    topics: String,
    inbox: Inbox,
    session_present: Vec<bool>,
    granted: Vec<u8>,
    /// Connections that are open and subscribed.
    ready: u64,
    acknowledged: u64,
    /// The connection breaks at this new entry.
    break_at: Option<u64>,
    /// What a new session must be sent again.
    unacknowledged: Vec<String>,
}

impl Party {
    fn new(case: &Case, user: &User, address: SocketAddr) -> Self {
        let (id, host, port) = (format!("{}-phone", user.name), address.ip().to_string(), address.port());
        let library = if case.version == 5 {
            let mut options = v5::MqttOptions::new(id, host, port);
            options.set_credentials(&user.name, &user.token).set_max_packet_size(Some(128 * 1024));
            options.set_clean_start(!case.kept).set_session_expiry_interval(Some(if case.kept { 300 } else { 0 }));
            let (client, connection) = v5::Client::new(options, 100);
            Library::V5(client, connection)
        } else {
            let mut options = rumqttc::MqttOptions::new(id, host, port);
            options.set_credentials(&user.name, &user.token).set_max_packet_size(128 * 1024, 128 * 1024);
            options.set_clean_session(!case.kept);
            let (client, connection) = rumqttc::Client::new(options, 100);
            Library::V4(client, connection)
        };
        Self {
            library,
            topics: format!("users/{}/phone", user.name),
            inbox: Inbox::default(),
            session_present: Vec::new(),
            granted: Vec::new(),
            ready: 0,
            acknowledged: 0,
            break_at: None,
            unacknowledged: Vec::new(),
        }
    }

    fn subscribe(&self) {
        let inbox = format!("{}/inbox", self.topics);
        match &self.library {
            Library::V4(client, _) => client.subscribe(inbox, rumqttc::QoS::AtLeastOnce).expect("subscribe"),
            Library::V5(client, _) => client.subscribe(inbox, v5::mqttbytes::QoS::AtLeastOnce).expect("subscribe"),
        }
    }

    fn publish(&mut self, payload: &Value) {
        self.unacknowledged.push(payload.to_string());
        self.send(&payload.to_string());
    }

    fn send(&self, payload: &str) {
        let outbox = format!("{}/outbox", self.topics);
        match &self.library {
            Library::V4(client, _) => client.publish(outbox, rumqttc::QoS::AtLeastOnce, false, payload),
            Library::V5(client, _) => {
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                client.publish(outbox, qos, false, payload.to_owned()).expect("publish");
                Ok(())
            }
        }
        .expect("publish");
    }

    /// Closes the socket, without a DISCONNECT. What rumqttc has read before counts.
    fn cut(&mut self) {
        let heard: Vec<Heard> = match &mut self.library {
            Library::V4(_, connection) => {
                connection.eventloop.clean();
                connection.eventloop.state.events.drain(..).map(Heard::from).collect()
            }
            Library::V5(_, connection) => {
                connection.eventloop.clean();
                connection.eventloop.state.events.drain(..).map(Heard::from).collect()
            }
        };
        heard.into_iter().for_each(|heard| self.take(heard));
    }

    fn until(&mut self, what: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + patience();
        while !what(self) {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let heard = match &mut self.library {
                Library::V4(_, connection) => {
                    connection.recv_timeout(left).map(|event| event.map(Heard::from).ok()).ok().flatten()
                }
                Library::V5(_, connection) => {
                    connection.recv_timeout(left).map(|event| event.map(Heard::from).ok()).ok().flatten()
                }
            };
            self.take(heard.expect("something from rumqttc, in time"));
        }
    }

    fn take(&mut self, heard: Heard) {
        match heard {
            Heard::ConnAck(session_present) => {
                self.session_present.push(session_present);
                if session_present {
                    self.ready += 1;
                } else {
                    self.subscribe();
                    self.unacknowledged.iter().for_each(|payload| self.send(payload));
                }
            }
            Heard::SubAck(code) => {
                self.granted.push(code);
                self.ready += 1;
            }
            Heard::PubAck { is_good } => {
                self.unacknowledged.remove(0);
                self.acknowledged += u64::from(is_good);
            }
            Heard::Payload(payload) => {
                self.inbox.take(&parse(&payload));
                if self.break_at == Some(self.inbox.fresh) {
                    self.break_at = None;
                    self.cut();
                }
            }
            Heard::Nothing => {}
        }
    }

    fn outcome(&self) -> Value {
        json!({"session_present": self.session_present, "granted": self.granted, "acknowledged": self.acknowledged,
            "unexpected": self.inbox.unexpected})
    }
}

/// Plays the case.
pub(crate) fn scenario(case: &Case, address: SocketAddr) -> Value {
    let (mut alice, mut bob) = (Party::new(case, &case.alice, address), Party::new(case, &case.bob, address));
    bob.break_at = Some(BOB_BREAKS_AT);
    bob.until(|bob| bob.ready == 1);
    alice.until(|alice| alice.ready == 1);
    thread::scope(|scope| {
        let bob = scope.spawn(|| {
            bob.until(|bob| bob.inbox.fresh >= MESSAGES && bob.ready == 2);
            bob.publish(&json!({"status": "read", "chat": case.alice.name, "n": MESSAGES}));
            bob.until(|bob| bob.acknowledged == 1);
            bob
        });
        let text = |i: u64| json!({"id": format!("m{i}"), "to": case.bob.name, "text": {"body": format!("m{i}")}});
        (0..ALICE_BREAKS_AT).for_each(|i| alice.publish(&text(i)));
        alice.until(|alice| alice.unacknowledged.is_empty());
        (ALICE_BREAKS_AT..ALICE_BREAKS_AT + 3).for_each(|i| alice.publish(&text(i)));
        // Some of it is on its way.
        alice.until(|alice| alice.unacknowledged.len() < 3);
        alice.cut();
        alice.until(|alice| alice.ready == 2 && alice.unacknowledged.is_empty());
        (ALICE_BREAKS_AT + 3..MESSAGES).for_each(|i| alice.publish(&text(i)));
        alice.until(|alice| alice.unacknowledged.is_empty());
        alice.until(|alice| alice.inbox.delivered >= MESSAGES && alice.inbox.read >= MESSAGES);
        let bob = bob.join().expect("bob");
        let mut of_bob = bob.outcome();
        of_bob["received"] = bob.inbox.received.clone().into();
        json!({"alice": alice.outcome(), "bob": of_bob, "ticks": alice.inbox.ticks, "delivered": alice.inbox.delivered, "read": alice.inbox.read})
    })
}
