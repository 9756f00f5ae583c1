//! A device that does what wire.md asks of a client, and notices when the server does not.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::codec::Properties;
use super::{Connect, Raw, TestServer, parse};

/// One installation of a user: takes each entry once, acknowledges it, and keeps what it knows across connections.
pub struct Device {
    pub raw: Raw,
    pub connect: Connect,
    pub user: String,
    pub device: String,
    /// The newest entry taken.
    pub last: Option<u64>,
    /// The newest entry that the server sent on this connection.
    sent: Option<u64>,
    /// How often an entry came that was taken before.
    pub repeats: usize,
}

impl Device {
    /// A device over MQTT 5, connected and subscribed.
    #[track_caller]
    pub fn v5(server: &TestServer, user: &str, device: &str) -> Self {
        Self::open(server.mqtt(), Connect::v5(user, &format!("{user}-{device}"), &server.token(user)), device)
    }

    /// A device over MQTT 3.1.1, connected and subscribed.
    #[track_caller]
    pub fn v3(server: &TestServer, user: &str, device: &str) -> Self {
        Self::open(server.mqtt(), Connect::v3(user, &format!("{user}-{device}"), &server.token(user)), device)
    }

    #[track_caller]
    pub fn open(address: SocketAddr, connect: Connect, device: &str) -> Self {
        let (raw, _) = connect.open(address);
        Self::over(raw, connect, device)
    }

    /// A device over a connection that is open: `connect` is what opened it.
    #[track_caller]
    pub fn over(raw: Raw, connect: Connect, device: &str) -> Self {
        let user = connect.user.clone().expect("a user");
        let device = device.to_owned();
        let mut device = Self { raw, connect, user, device, last: None, sent: None, repeats: 0 };
        device.subscribe();
        device
    }

    /// A new connection with the same client id, while the old one may still be there.
    #[track_caller]
    pub fn reconnect(&mut self, server: &TestServer) {
        self.raw = self.connect.open(server.mqtt()).0;
        self.sent = None;
        self.subscribe();
    }

    #[track_caller]
    fn subscribe(&mut self) {
        let code = self.raw.subscribe(&self.inbox(), 1);
        assert_eq!(code, 1, "SUBACK for {}", self.inbox());
    }

    pub fn outbox(&self) -> String {
        format!("users/{}/{}/outbox", self.user, self.device)
    }

    pub fn inbox(&self) -> String {
        format!("users/{}/{}/inbox", self.user, self.device)
    }

    /// Publishes and waits for the PUBACK.
    #[track_caller]
    pub fn publish(&mut self, payload: &Value) -> (u8, Properties) {
        self.raw.publish_and_wait(&self.outbox(), &payload.to_string())
    }

    /// Sends a text; the PUBACK says yes. Returns its `n`, which MQTT 5 tells.
    #[track_caller]
    pub fn send(&mut self, to: &str, id: &str, body: &str) -> u64 {
        let (reason, properties) = self.publish(&json!({"id": id, "to": to, "type": "text", "text": {"body": body}}));
        assert_eq!(reason, 0, "{properties:?}");
        if !self.raw.v5 {
            return 0;
        }
        assert_eq!(properties.get("id"), Some(id));
        properties.get("n").and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("n in {properties:?}"))
    }

    /// Marks everything up to `n` as read.
    #[track_caller]
    pub fn mark_read(&mut self, chat: &str, n: u64) {
        let (reason, properties) = self.publish(&json!({"status": "read", "chat": chat, "n": n}));
        assert_eq!(reason, 0, "{properties:?}");
    }

    /// The next entry that is new, acknowledged.
    #[track_caller]
    pub fn entry(&mut self) -> Value {
        let (packet_id, entry) = self.entry_without_ack();
        self.raw.ack(packet_id);
        entry
    }

    /// The next entry that is new, and the packet id to acknowledge it with. Live payloads are passed over.
    #[track_caller]
    pub fn entry_without_ack(&mut self) -> (u16, Value) {
        loop {
            let (qos, packet_id, payload) = self.raw.next_publish();
            if qos == 0 {
                continue;
            }
            let entry = parse(&payload);
            if self.takes(&entry) {
                return (packet_id, entry);
            }
            self.repeats += 1;
            self.raw.ack(packet_id);
        }
    }

    /// Holds an entry to the rules of wire.md, and says whether it is new.
    #[track_caller]
    pub fn takes(&mut self, entry: &Value) -> bool {
        let seq = entry["seq"].as_u64().unwrap_or_else(|| panic!("a seq in {entry}"));
        let prev = entry["prev"].as_u64().unwrap_or_else(|| panic!("a prev in {entry}"));
        assert!(prev < seq, "prev before seq: {entry}");
        if let Some(sent) = self.sent {
            assert_eq!(prev, sent, "prev is the seq sent before it on this connection: {entry}");
        }
        self.sent = Some(seq);
        match self.last {
            Some(last) if seq <= last => return false,
            Some(last) => assert!(prev <= last, "a gap that the server does not explain: last {last}, got {entry}"),
            None => {}
        }
        self.last = Some(seq);
        true
    }

    /// The next payload of the inbox at QoS 0.
    #[track_caller]
    pub fn live(&mut self) -> Value {
        self.raw.wait_for("a live payload", |packet| match packet {
            super::Packet::Publish { qos: 0, payload, .. } => Some(parse(payload)),
            _ => None,
        })
    }
}
