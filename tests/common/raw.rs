//! A client that does exactly what the test says, packet by packet.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::codec::{
    self, MAXIMUM_PACKET_SIZE, Packet, Properties, RECEIVE_MAXIMUM, SESSION_EXPIRY, frame, write_binary, write_text,
    write_variable,
};
use super::patience;

/// What a CONNECT says.
#[derive(Debug, Clone)]
pub struct Connect {
    pub v5: bool,
    pub client_id: String,
    pub user: Option<String>,
    pub token: Option<String>,
    /// CleanSession, Clean Start.
    pub clean: bool,
    pub keep_alive: u16,
    /// MQTT 5 only, in seconds.
    pub session_expiry: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub packet_bytes_max: Option<u32>,
    /// Topic, QoS, payload.
    pub will: Option<(String, u8, Vec<u8>)>,
    pub will_retain: bool,
    /// Bytes of MQTT 5 properties that are not among the above.
    pub more_properties: Vec<u8>,
    /// Bytes of MQTT 5 will properties.
    pub will_properties: Vec<u8>,
}

impl Connect {
    /// An MQTT 5 connection that keeps no session.
    pub fn v5(user: &str, client_id: &str, token: &str) -> Self {
        Self {
            v5: true,
            client_id: client_id.to_owned(),
            user: Some(user.to_owned()),
            token: Some(token.to_owned()),
            clean: true,
            keep_alive: 60,
            session_expiry: None,
            receive_maximum: None,
            packet_bytes_max: None,
            will: None,
            will_retain: false,
            more_properties: Vec::new(),
            will_properties: Vec::new(),
        }
    }

    /// An MQTT 3.1.1 connection that keeps no session.
    pub fn v3(user: &str, client_id: &str, token: &str) -> Self {
        Self { v5: false, ..Self::v5(user, client_id, token) }
    }

    /// Asks for a session that outlives the connection.
    pub fn keeping_its_session(mut self) -> Self {
        self.clean = false;
        self.session_expiry = self.v5.then_some(3600);
        self
    }

    /// The bytes of the CONNECT.
    pub fn encode(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        let mut body = Vec::new();
        write_text(&mut body, "MQTT");
        body.push(if self.v5 { 5 } else { 4 });
        if let Some((_, qos, _)) = &self.will {
            flags |= 0x04 | qos << 3 | u8::from(self.will_retain) << 5;
        }
        flags |= u8::from(self.user.is_some()) << 7 | u8::from(self.token.is_some()) << 6;
        body.push(flags);
        body.extend_from_slice(&self.keep_alive.to_be_bytes());
        if self.v5 {
            let mut properties = Vec::new();
            if let Some(seconds) = self.session_expiry {
                properties.push(SESSION_EXPIRY);
                properties.extend_from_slice(&seconds.to_be_bytes());
            }
            if let Some(maximum) = self.receive_maximum {
                properties.push(RECEIVE_MAXIMUM);
                properties.extend_from_slice(&maximum.to_be_bytes());
            }
            if let Some(maximum) = self.packet_bytes_max {
                properties.push(MAXIMUM_PACKET_SIZE);
                properties.extend_from_slice(&maximum.to_be_bytes());
            }
            properties.extend_from_slice(&self.more_properties);
            write_variable(&mut body, properties.len());
            body.extend_from_slice(&properties);
        }
        write_text(&mut body, &self.client_id);
        if let Some((topic, _, payload)) = &self.will {
            if self.v5 {
                write_variable(&mut body, self.will_properties.len());
                body.extend_from_slice(&self.will_properties);
            }
            write_text(&mut body, topic);
            write_binary(&mut body, payload);
        }
        for text in [&self.user, &self.token].into_iter().flatten() {
            write_text(&mut body, text);
        }
        frame(0x10, &body)
    }

    /// Connects and returns whatever CONNACK comes.
    pub fn try_open(&self, address: SocketAddr) -> (Raw, bool, u8, Properties) {
        self.try_open_over(Box::new(dial(address)))
    }

    /// As [`Connect::try_open`], over a stream that is there: a TLS session, a WebSocket.
    pub fn try_open_over(&self, stream: Box<dyn Stream>) -> (Raw, bool, u8, Properties) {
        let mut raw = Raw::over(stream, self.v5);
        raw.send(&self.encode());
        match raw.next() {
            Some(Packet::ConnAck { session_present, code, properties }) => (raw, session_present, code, properties),
            other => panic!("expected a CONNACK, got {other:?}"),
        }
    }

    /// Connects; the CONNACK says yes. Returns Session Present too.
    #[track_caller]
    pub fn open(&self, address: SocketAddr) -> (Raw, bool) {
        let (raw, session_present, code, properties) = self.try_open(address);
        assert_eq!(code, 0, "CONNACK of {}: {properties:?}", self.client_id);
        (raw, session_present)
    }

    /// As [`Connect::open`], over a stream that is there.
    #[track_caller]
    pub fn open_over(&self, stream: impl Stream + 'static) -> Raw {
        let (raw, _, code, properties) = self.try_open_over(Box::new(stream));
        assert_eq!(code, 0, "CONNACK of {}: {properties:?}", self.client_id);
        raw
    }

    /// Connects; the CONNACK says no.
    #[track_caller]
    pub fn refused(&self, address: SocketAddr, code: u8) {
        let (mut raw, _, got, properties) = self.try_open(address);
        assert_eq!(format!("0x{got:02x}"), format!("0x{code:02x}"), "{properties:?}");
        raw.expect_end();
    }
}

/// What MQTT runs over.
pub trait Stream: Read + Write + Send {
    fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        TcpStream::set_read_timeout(self, time)
    }
}

impl<S: Stream + ?Sized> Stream for Box<S> {
    fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        (**self).set_read_timeout(time)
    }
}

/// A TCP connection.
#[track_caller]
pub fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, patience()).expect("a TCP connection");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream
}

/// A connection. Dropping it closes the socket without a DISCONNECT.
pub struct Raw {
    stream: Box<dyn Stream>,
    pub v5: bool,
    bytes: Vec<u8>,
    /// Read already, and not asked for yet.
    queue: VecDeque<Packet>,
    next_id: u16,
}

impl Raw {
    /// A connection on which nothing was said yet.
    #[track_caller]
    pub fn dial(address: SocketAddr, v5: bool) -> Self {
        Self::over(Box::new(dial(address)), v5)
    }

    /// As [`Raw::dial`], over a stream that is there.
    pub fn over(stream: Box<dyn Stream>, v5: bool) -> Self {
        Self { stream, v5, bytes: Vec::new(), queue: VecDeque::new(), next_id: 0 }
    }

    /// Writes bytes. A connection that the server has closed is noticed when reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    /// A packet id that this connection has not used for a long time.
    pub fn packet_id(&mut self) -> u16 {
        self.next_id = self.next_id % 60_000 + 1;
        self.next_id
    }

    /// The bytes of a PUBLISH.
    pub fn publish_bytes(&self, topic: &str, flags: u8, id: u16, payload: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        write_text(&mut body, topic);
        if flags & 0x06 != 0 {
            body.extend_from_slice(&id.to_be_bytes());
        }
        if self.v5 {
            body.push(0);
        }
        body.extend_from_slice(payload);
        frame(0x30 | flags, &body)
    }

    /// PUBLISH at QoS 1, without waiting; returns the packet id.
    pub fn publish(&mut self, topic: &str, payload: &str) -> u16 {
        let id = self.packet_id();
        let bytes = self.publish_bytes(topic, 0x02, id, payload.as_bytes());
        self.send(&bytes);
        id
    }

    /// PUBLISH at QoS 1, and its PUBACK: reason and properties.
    #[track_caller]
    pub fn publish_and_wait(&mut self, topic: &str, payload: &str) -> (u8, Properties) {
        let id = self.publish(topic, payload);
        self.puback(id)
    }

    /// The PUBACK for a packet id. Others stay in the queue.
    #[track_caller]
    pub fn puback(&mut self, id: u16) -> (u8, Properties) {
        self.wait_for("a PUBACK", |packet| match packet {
            Packet::PubAck { id: got, reason, properties } if *got == id => Some((*reason, properties.clone())),
            _ => None,
        })
    }

    /// SUBSCRIBE to one filter: the code of the SUBACK.
    #[track_caller]
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> u8 {
        self.subscribe_all(&[(filter, qos)])[0]
    }

    /// SUBSCRIBE to filters with their options: the codes of the SUBACK, one for each.
    #[track_caller]
    pub fn subscribe_all(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        let id = self.packet_id();
        let mut body = id.to_be_bytes().to_vec();
        if self.v5 {
            body.push(0);
        }
        for (filter, options) in filters {
            write_text(&mut body, filter);
            body.push(*options);
        }
        self.send(&frame(0x82, &body));
        let codes = self.wait_for("a SUBACK", |packet| match packet {
            Packet::SubAck { id: got, codes } if *got == id => Some(codes.clone()),
            _ => None,
        });
        assert_eq!(codes.len(), filters.len(), "one code for each filter");
        codes
    }

    /// UNSUBSCRIBE: the codes of the UNSUBACK, of which 3.1.1 has none.
    #[track_caller]
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.packet_id();
        let mut body = id.to_be_bytes().to_vec();
        if self.v5 {
            body.push(0);
        }
        filters.iter().for_each(|filter| write_text(&mut body, filter));
        self.send(&frame(0xa2, &body));
        self.wait_for("an UNSUBACK", |packet| match packet {
            Packet::UnsubAck { id: got, codes } if *got == id => Some(codes.clone()),
            _ => None,
        })
    }

    /// PUBLISH at QoS 2, and its PUBREC: the reason.
    #[track_caller]
    pub fn publish_qos2(&mut self, topic: &str, id: u16, dup: bool, payload: &str) -> u8 {
        let flags = if dup { 0x0c } else { 0x04 };
        let bytes = self.publish_bytes(topic, flags, id, payload.as_bytes());
        self.send(&bytes);
        self.pubrec(id)
    }

    /// The PUBREC for a packet id: its reason.
    #[track_caller]
    pub fn pubrec(&mut self, id: u16) -> u8 {
        self.wait_for("a PUBREC", |packet| match packet {
            Packet::PubRec { id: got, reason, .. } if *got == id => Some(*reason),
            _ => None,
        })
    }

    /// PUBREL, and its PUBCOMP: the reason.
    #[track_caller]
    pub fn release_and_wait(&mut self, id: u16) -> u8 {
        self.release(id);
        self.wait_for("a PUBCOMP", |packet| match packet {
            Packet::PubComp { id: got, reason } if *got == id => Some(*reason),
            _ => None,
        })
    }

    /// PUBACK.
    pub fn ack(&mut self, id: u16) {
        self.send(&frame(0x40, &id.to_be_bytes()));
    }

    /// PUBREL.
    pub fn release(&mut self, id: u16) {
        self.send(&frame(0x62, &id.to_be_bytes()));
    }

    /// PINGREQ and its answer: the server has handled all that was written before. What came meanwhile is in the queue.
    #[track_caller]
    pub fn ping(&mut self) {
        self.send(&frame(0xc0, &[]));
        self.wait_for("a PINGRESP", |packet| (*packet == Packet::PingResp).then_some(()));
    }

    /// DISCONNECT, and the end of the connection.
    pub fn disconnect(mut self) {
        self.send(&frame(0xe0, &[]));
        while self.read() {}
    }

    /// The next packet; `None` when the server has closed the connection.
    #[track_caller]
    pub fn next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.queue.pop_front() {
                return Some(packet);
            }
            if !self.read() {
                return None;
            }
        }
    }

    /// The first packet that `pick` takes; the others stay, in order.
    #[track_caller]
    pub fn wait_for<T>(&mut self, what: &str, pick: impl Fn(&Packet) -> Option<T>) -> T {
        let mut looked_at = 0;
        loop {
            while let Some(packet) = self.queue.get(looked_at) {
                if let Some(found) = pick(packet) {
                    self.queue.remove(looked_at);
                    return found;
                }
                looked_at += 1;
            }
            assert!(self.read(), "expected {what}, got the end of the connection; before it {:?}", self.queue);
        }
    }

    /// The next PUBLISH: QoS, packet id, payload.
    #[track_caller]
    pub fn next_publish(&mut self) -> (u8, u16, Vec<u8>) {
        self.wait_for("a PUBLISH", |packet| match packet {
            Packet::Publish { qos, id, payload, .. } => Some((*qos, *id, payload.clone())),
            _ => None,
        })
    }

    /// What lies in the queue already.
    pub fn queued(&self) -> impl Iterator<Item = &Packet> {
        self.queue.iter()
    }

    /// The server ends the connection; the reason of its DISCONNECT, if it says one.
    #[track_caller]
    pub fn expect_end(&mut self) -> Option<u8> {
        let mut reason = None;
        while let Some(packet) = self.next() {
            if let Packet::Disconnect { reason: said, .. } = packet {
                reason = Some(said);
            }
        }
        reason
    }

    /// Reads something into the queue; `false` at the end of the connection.
    #[track_caller]
    fn read(&mut self) -> bool {
        let deadline = Instant::now() + patience();
        let mut chunk = [0; 16 * 1024];
        loop {
            let before = self.queue.len();
            while let Some(packet) = codec::take(&mut self.bytes, self.v5) {
                self.queue.push_back(packet);
            }
            if self.queue.len() > before {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing comes any more; in the queue: {:?}", self.queue);
            self.stream.set_read_timeout(Some(left)).expect("a timeout");
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(bytes) => self.bytes.extend_from_slice(&chunk[..bytes]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(_) => return false,
            }
        }
    }
}
