//! rumqttc's clients for MQTT 3.1.1 and 5, as a simple program would use them: auto-acknowledging, one call at a time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{TestServer, parse, patience};

/// Three things that the two modules of rumqttc name differently.
enum Heard {
    Acknowledged,
    Subscribed,
    Payload(Vec<u8>),
    Nothing,
}

#[expect(clippy::large_enum_variant, reason = "there is one of it")]
enum Connection {
    V4(rumqttc::Client, rumqttc::Connection),
    V5(rumqttc::v5::Client, rumqttc::v5::Connection),
}

pub struct Rumqtt {
    connection: Connection,
    outbox: String,
    payloads: VecDeque<Value>,
}

impl Rumqtt {
    /// MQTT 3.1.1, connected and subscribed.
    #[track_caller]
    pub fn v4(server: &TestServer, user: &str, device: &str) -> Self {
        let address = server.mqtt();
        let mut options =
            rumqttc::MqttOptions::new(format!("{user}-{device}"), address.ip().to_string(), address.port());
        options.set_credentials(user, server.token(user)).set_max_packet_size(128 * 1024, 128 * 1024);
        let (client, connection) = rumqttc::Client::new(options, 10);
        client.subscribe(format!("users/{user}/{device}/inbox"), rumqttc::QoS::AtLeastOnce).expect("subscribe");
        Self::subscribed(Connection::V4(client, connection), user, device)
    }

    /// MQTT 5, connected and subscribed.
    #[track_caller]
    pub fn v5(server: &TestServer, user: &str, device: &str) -> Self {
        use rumqttc::v5::mqttbytes::QoS;
        let address = server.mqtt();
        let mut options =
            rumqttc::v5::MqttOptions::new(format!("{user}-{device}"), address.ip().to_string(), address.port());
        options.set_credentials(user, server.token(user)).set_max_packet_size(Some(128 * 1024));
        options.set_outgoing_inflight_upper_limit(10);
        let (client, connection) = rumqttc::v5::Client::new(options, 10);
        client.subscribe(format!("users/{user}/{device}/inbox"), QoS::AtLeastOnce).expect("subscribe");
        Self::subscribed(Connection::V5(client, connection), user, device)
    }

    #[track_caller]
    fn subscribed(connection: Connection, user: &str, device: &str) -> Self {
        let outbox = format!("users/{user}/{device}/outbox");
        let mut client = Self { connection, outbox, payloads: VecDeque::new() };
        let deadline = Instant::now() + patience();
        while !matches!(client.hear(deadline), Heard::Subscribed) {}
        client
    }

    /// PUBLISH at QoS 1, until its PUBACK.
    #[track_caller]
    pub fn publish(&mut self, payload: &str) {
        match &self.connection {
            Connection::V4(client, _) => {
                client.publish(&self.outbox, rumqttc::QoS::AtLeastOnce, false, payload).expect("publish");
            }
            Connection::V5(client, _) => {
                let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
                client.publish(&self.outbox, qos, false, payload.to_owned()).expect("publish");
            }
        }
        let deadline = Instant::now() + patience();
        while !matches!(self.hear(deadline), Heard::Acknowledged) {}
    }

    /// The next entry; live payloads are passed over.
    #[track_caller]
    pub fn entry(&mut self) -> Value {
        let deadline = Instant::now() + patience();
        loop {
            while let Some(payload) = self.payloads.pop_front() {
                if payload.get("seq").is_some() {
                    return payload;
                }
            }
            self.hear(deadline);
        }
    }

    #[track_caller]
    fn hear(&mut self, deadline: Instant) -> Heard {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let heard = match &mut self.connection {
            Connection::V4(_, connection) => {
                use rumqttc::{Event, Packet};
                match connection.recv_timeout(left).expect("something from rumqttc").expect("a connection") {
                    Event::Incoming(Packet::PubAck(_)) => Heard::Acknowledged,
                    Event::Incoming(Packet::SubAck(_)) => Heard::Subscribed,
                    Event::Incoming(Packet::Publish(publish)) => Heard::Payload(publish.payload.to_vec()),
                    _ => Heard::Nothing,
                }
            }
            Connection::V5(_, connection) => {
                use rumqttc::v5::Event;
                use rumqttc::v5::mqttbytes::v5::Packet;
                match connection.recv_timeout(left).expect("something from rumqttc").expect("a connection") {
                    Event::Incoming(Packet::PubAck(_)) => Heard::Acknowledged,
                    Event::Incoming(Packet::SubAck(_)) => Heard::Subscribed,
                    Event::Incoming(Packet::Publish(publish)) => Heard::Payload(publish.payload.to_vec()),
                    _ => Heard::Nothing,
                }
            }
        };
        if let Heard::Payload(payload) = &heard {
            self.payloads.push_back(parse(payload));
        }
        heard
    }
}
