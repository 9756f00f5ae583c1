//! What one connection may do after its CONNECT was accepted. Pure: packets, frames and the time come in; packets, frames and an end go
//! out. Everything that a PUBACK claims comes from an answer of the bridge.

mod inbox;
mod publishes;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use natter_protocol::entry;
use natter_protocol::error::Kind;
use natter_protocol::ids::{ConnectionId, DeviceId, Seq, UserId};
use natter_protocol::link::{Dialect, Down, Mode, Packet, Publication, Up};
use natter_protocol::outbox::PAYLOAD_BYTES_MAX;
use natter_protocol::topic::TopicKind;

use self::inbox::{Asking, Inbox, Reading};
use self::publishes::{Arrival, Publishes};
use crate::connect::{self, Accepted, Will};
use crate::packet::{Inbound, Outbound, Publish, Version, Welcome};
use crate::validate::{self, Violation};

/// Refused publishes after which a 3.1.1 connection is closed; it cannot be told otherwise.
const DENIALS_MAX: u32 = 10;

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The client said so.
    Disconnect,
    /// The socket broke or was closed.
    Gone,
    /// A malformed packet or a protocol error.
    Violation,
    /// Nothing came within the keepalive, or a packet did not come to its end.
    Silence,
    /// It does not read what is written to it.
    Slow,
    /// Its token does not hold any more.
    Revoked,
    /// The server wants it so.
    Server,
}

/// The end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// Why.
    pub(crate) cause: Cause,
    /// The reason of the DISCONNECT that tells it; 0: nobody is told.
    pub(crate) reason: u8,
}

impl End {
    /// The server ends it for `reason`.
    pub(crate) fn server(reason: u8) -> Self {
        Self { cause: Cause::Server, reason }
    }

    /// The socket is gone.
    pub(crate) const GONE: Self = Self { cause: Cause::Gone, reason: 0 };
    /// The token was revoked, or has expired.
    pub(crate) const REVOKED: Self = Self { cause: Cause::Revoked, reason: 0x87 };
    /// A packet is larger than the client takes.
    pub(crate) const TOO_LARGE: Self = Self { cause: Cause::Violation, reason: 0x95 };
    /// It reads too slowly.
    pub(crate) const SLOW: Self = Self { cause: Cause::Slow, reason: 0x97 };
    /// A newer connection of the same client has come.
    pub(crate) const TAKEN_OVER: Self = Self { cause: Cause::Server, reason: 0x8e };
    /// The server goes away.
    pub(crate) const SHUTTING_DOWN: Self = Self { cause: Cause::Server, reason: 0x8b };

    fn is_by_server(self) -> bool {
        match self.cause {
            Cause::Disconnect | Cause::Gone | Cause::Violation | Cause::Silence => false,
            Cause::Slow | Cause::Revoked | Cause::Server => true,
        }
    }
}

/// What is left to do when a connection has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Legacy {
    /// Goes up, before the close unless it is delayed.
    pub(crate) will: Option<(Publication, Duration)>,
    /// Goes up.
    pub(crate) close: Up,
}

/// One connection after CONNECT.
#[derive(Debug)]
pub(crate) struct Session {
    connection: ConnectionId,
    version: Version,
    user: UserId,
    /// The only device whose topics the token allows.
    bound: Option<DeviceId>,
    packet_bytes_max: u32,
    expiry_secs: u32,
    /// The longest session expiry that is granted.
    expiry_secs_max: u32,
    /// Makes the id of a message that has none.
    stamp: fn() -> u128,

    /// CONNACK, while it waits for the bridge.
    welcome: Option<Box<Welcome>>,
    publishes: Publishes,
    inbox: Inbox,
    denials: u32,
    will: Option<Will>,
    /// A changed session expiry, from DISCONNECT.
    new_expiry_secs: Option<u32>,

    /// One and a half times the keepalive.
    silence_max: Duration,
    last_packet: Instant,
    /// Since when the socket is not read from; silence does not count then.
    paused: Option<Instant>,
    expires_at: Option<Instant>,

    out: VecDeque<Outbound>,
    up: VecDeque<Up>,
    end: Option<End>,
}

impl Session {
    /// Begins a session: tells the bridge, and the client if the bridge has nothing to say in it. `expires_at` is the token's end.
    pub(crate) fn new(
        connection: ConnectionId,
        accepted: Accepted,
        expires_at: Option<Instant>,
        stamp: fn() -> u128,
        now: Instant,
    ) -> Self {
        let Accepted { version, grant, opening, expiry_secs_max, will, keep_alive, welcome } = accepted;
        let is_fresh = opening.clean_start && opening.expiry_secs == 0;
        let mut session = Self {
            connection,
            version,
            user: grant.user,
            bound: grant.device,
            packet_bytes_max: opening.packet_bytes_max,
            expiry_secs: opening.expiry_secs,
            expiry_secs_max,
            stamp,
            publishes: Publishes::new(version, opening.dialect == Dialect::Full, welcome.receive_maximum),
            welcome: Some(Box::new(welcome)),
            inbox: Inbox::default(),
            denials: 0,
            will,
            new_expiry_secs: None,
            silence_max: keep_alive + keep_alive / 2,
            last_packet: now,
            paused: None,
            expires_at,
            out: VecDeque::new(),
            up: VecDeque::new(),
            end: None,
        };
        session.up.push_back(Up::Open(connection, opening));
        if is_fresh {
            session.welcome(false);
        }
        session
    }

    /// The largest packet that the client takes.
    pub(crate) fn packet_bytes_max(&self) -> u32 {
        self.packet_bytes_max
    }

    /// What the client speaks.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// How many publishes were refused here.
    pub(crate) fn denials(&self) -> u32 {
        self.denials
    }

    /// Whether CONNACK has gone out.
    pub(crate) fn is_open(&self) -> bool {
        self.welcome.is_none()
    }

    /// The end, once there is one. Nothing that comes after it counts.
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// The next packet to write.
    pub(crate) fn poll_transmit(&mut self) -> Option<Outbound> {
        let packet = self.out.pop_front();
        if packet.is_none() && self.out.capacity() > 0 {
            self.out = VecDeque::new();
        }
        packet
    }

    /// The next frame to send up.
    pub(crate) fn poll_up(&mut self) -> Option<Up> {
        let frame = self.up.pop_front();
        if frame.is_none() && self.up.capacity() > 0 {
            self.up = VecDeque::new();
        }
        frame
    }

    /// Whether another packet may be taken in now: not before CONNACK, not behind a SUBSCRIBE that is not answered, not beyond what may be
    /// unanswered.
    pub(crate) fn may_read(&self) -> bool {
        self.is_open() && self.end.is_none() && self.inbox.asking.is_none() && self.publishes.has_room()
    }

    /// The driver reads from the socket again, or does not: silence counts only while it does.
    pub(crate) fn set_reading(&mut self, reading: bool, now: Instant) {
        match (reading, self.paused) {
            (false, None) => self.paused = Some(now),
            (true, Some(since)) => {
                self.paused = None;
                self.last_packet += now.saturating_duration_since(since);
            }
            _ => {}
        }
    }

    /// When [`Session::handle_timeout`] wants to be called next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let silence = self.paused.is_none().then(|| self.last_packet + self.silence_max);
        silence.into_iter().chain(self.expires_at).min()
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.expires_at.is_some_and(|at| at <= now) {
            self.close(End::REVOKED);
        } else if self.paused.is_none() && self.last_packet + self.silence_max <= now {
            // [MQTT-3.1.2-22]
            self.close(End { cause: Cause::Silence, reason: 0x8d });
        }
    }

    /// Ends the connection, if nothing has ended it yet.
    pub(crate) fn close(&mut self, end: End) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(end);
        if end.reason == 0 {
            return;
        }
        self.out.push_back(match (self.is_open(), self.version, end.reason) {
            (true, _, reason) => Outbound::Disconnect { reason },
            // [MQTT-3.14.0-1]: no DISCONNECT before CONNACK.
            (false, Version::V3, _) => Outbound::ConnRefused(3),
            (false, Version::V5, reason @ (0x87 | 0x89 | 0x97)) => Outbound::ConnRefused(reason),
            (false, Version::V5, _) => Outbound::ConnRefused(0x88),
        });
    }

    /// CONNACK is larger than the client takes [MQTT-3.1.2-24]: a shorter one says so, if even that one fits; no DISCONNECT goes before
    /// CONNACK [MQTT-3.14.0-1].
    pub(crate) fn cannot_welcome(&mut self) {
        self.end.get_or_insert(End::TOO_LARGE);
        self.out.clear();
        self.out.push_back(Outbound::ConnRefused(End::TOO_LARGE.reason));
    }

    /// A packet that is not legal.
    pub(crate) fn handle_violation(&mut self, Violation(reason): Violation) {
        self.close(End { cause: Cause::Violation, reason });
    }

    /// Whether a packet acknowledges an entry that is on its way. The bridge sends few of those before it waits, so that a client's own will
    /// does not decide how many such packets come, and no rate need hold them back.
    pub(crate) fn awaits(&self, packet: &Inbound) -> bool {
        matches!(packet, Inbound::PubAck { packet_id, .. } if self.inbox.is_in_flight(*packet_id))
    }

    /// A packet has come.
    pub(crate) fn handle_packet(&mut self, packet: Inbound, now: Instant) {
        if self.end.is_some() {
            return;
        }
        self.last_packet = now;
        match packet {
            Inbound::Publish(publish) => self.handle_publish(publish),
            Inbound::PubAck { packet_id, is_taken } => {
                if let Some(seq) = self.inbox.acked(packet_id) {
                    self.up.push_back(Up::Acked { connection: self.connection, seq, taken: is_taken });
                }
            }
            Inbound::PubRel { packet_id } => {
                if self.publishes.release(packet_id, &mut self.out) {
                    self.up.push_back(Up::Release { connection: self.connection, packet_id });
                }
            }
            Inbound::Subscribe { packet_id, filters } => self.handle_subscribe(packet_id, &filters),
            Inbound::Unsubscribe { packet_id, filters } => self.handle_unsubscribe(packet_id, &filters),
            // [MQTT-3.12.4-1]
            Inbound::PingReq => self.out.push_back(Outbound::PingResp),
            Inbound::Disconnect { reason, expiry_secs } => self.handle_disconnect(reason, expiry_secs),
        }
    }

    fn handle_publish(&mut self, Publish { packet, topic, payload }: Publish) {
        let device = connect::own_device(&topic, TopicKind::Outbox, &self.user, self.bound.as_ref());
        let refusal = match &device {
            None => Some((Kind::NotAllowed, self.expected_outbox(&topic))),
            Some(_) if payload.len() > PAYLOAD_BYTES_MAX => Some((
                Kind::TooLarge,
                format!("payload: expected at most {PAYLOAD_BYTES_MAX} bytes, got {}", payload.len()),
            )),
            Some(_) => None,
        };
        if let Some((kind, details)) = refusal {
            self.refuse(packet, kind, details);
        } else if let Some(device) = device
            && self.arrives(packet)
        {
            self.up.push_back(Up::Publish(Publication {
                connection: self.connection,
                packet,
                device,
                stamp: (self.stamp)(),
                will: false,
                payload,
            }));
        }
    }

    /// A PUBLISH that was too large to read has passed.
    pub(crate) fn handle_oversize(&mut self, packet: Packet, now: Instant) {
        if self.end.is_none() {
            self.last_packet = now;
            let details =
                format!("payload: expected at most {PAYLOAD_BYTES_MAX} bytes, got a packet of more than 128 KiB");
            self.refuse(packet, Kind::TooLarge, details);
        }
    }

    /// Whether a PUBLISH is to go up: it is new, and within the receive maximum.
    fn arrives(&mut self, packet: Packet) -> bool {
        if packet.qos == 0 {
            return true;
        }
        match self.publishes.arrive(packet, &mut self.out) {
            Arrival::New => true,
            Arrival::Repeat => false,
            Arrival::TooMany => {
                // [MQTT-3.3.4-7]
                self.handle_violation(Violation(0x93));
                false
            }
        }
    }

    /// A refused PUBLISH goes up as well: its answer keeps its place among the others.
    fn refuse(&mut self, packet: Packet, kind: Kind, details: String) {
        if packet.qos > 0 && self.arrives(packet) {
            self.up.push_back(Up::Refused { connection: self.connection, packet, kind, details });
        }
        self.denials = self.denials.saturating_add(1);
        if self.version == Version::V3 && self.denials >= DENIALS_MAX {
            self.close(End { cause: Cause::Violation, reason: 0x87 });
        }
    }

    fn expected_outbox(&self, topic: &str) -> String {
        let device = self.bound.as_ref().map_or("{device}", DeviceId::as_str);
        let got: String = topic.chars().take(80).collect();
        format!("topic: expected users/{}/{device}/outbox, got {got}", self.user)
    }

    fn handle_subscribe(&mut self, packet_id: u16, filters: &[(ByteString, u8)]) {
        let mut asked: Option<Reading> = None;
        let mut codes = Vec::with_capacity(filters.len());
        for (filter, qos) in filters {
            codes.push(match self.own_inbox(filter) {
                Err(reason) => Err(reason),
                Ok(device) => {
                    let one = asked.as_ref().or(self.inbox.reading.as_ref()).map(|reading| &reading.device);
                    if one.is_some_and(|one| *one != device) {
                        // One inbox a connection.
                        Err(0x97)
                    } else {
                        let mode = if *qos == 0 { Mode::Viewer } else { Mode::Device };
                        asked = Some(Reading::new(&self.user, device, mode));
                        Ok(mode)
                    }
                }
            });
        }
        match asked {
            Some(reading) if self.inbox.reading.as_ref() != Some(&reading) => {
                self.up.push_back(Up::Attach {
                    connection: self.connection,
                    request: packet_id,
                    device: reading.device.clone(),
                    mode: reading.mode,
                });
                self.inbox.asking = Some(Asking { packet_id, reading, codes });
            }
            // The inbox is read in this way already: there is nothing to change and nothing to resend.
            _ => self.out.push_back(Outbound::SubAck { packet_id, codes: inbox::suback(&codes, None) }),
        }
    }

    /// The device whose inbox a filter names, or the reason against it.
    fn own_inbox(&self, filter: &str) -> Result<DeviceId, u8> {
        if !validate::is_filter(filter) {
            Err(0x8f)
        } else {
            connect::own_device(filter, TopicKind::Inbox, &self.user, self.bound.as_ref()).ok_or(0x87)
        }
    }

    fn handle_unsubscribe(&mut self, packet_id: u16, filters: &[ByteString]) {
        let mut codes = Vec::with_capacity(filters.len());
        for filter in filters {
            if self.inbox.reading.as_ref().is_some_and(|reading| reading.topic == *filter) {
                self.inbox.reading = None;
                self.up.push_back(Up::Detach { connection: self.connection });
                codes.push(0x00);
            } else {
                codes.push(0x11);
            }
        }
        // [MQTT-3.10.4-5]
        self.out.push_back(Outbound::UnsubAck { packet_id, codes });
    }

    fn handle_disconnect(&mut self, reason: u8, expiry_secs: Option<u32>) {
        // [MQTT-3.1.2-23], 3.14.2.2.2
        if self.expiry_secs == 0 && expiry_secs.is_some_and(|secs| secs > 0) {
            return self.handle_violation(validate::PROTOCOL_ERROR);
        }
        self.new_expiry_secs = expiry_secs.map(|secs| secs.min(self.expiry_secs_max));
        if reason == 0 {
            // [MQTT-3.14.4-3]
            self.will = None;
        }
        self.close(End { cause: Cause::Disconnect, reason: 0 });
    }

    /// A frame from the bridge has come.
    pub(crate) fn handle_down(&mut self, frame: Down) {
        if self.end.is_some() {
            return;
        }
        match frame {
            Down::Opened { session_present, device, held, .. } => self.opened(session_present, device, held),
            Down::Answer { packet, answer, .. } => self.publishes.answered(packet, answer, &mut self.out),
            Down::Complete { packet_id, .. } => self.publishes.completed(packet_id, &mut self.out),
            Down::Attached { request, reason, .. } => self.attached(request, reason),
            Down::Entry { seq, again, payload, .. } => self.entry(seq, again, payload),
            Down::Live { payload, .. } => self.live(payload),
            Down::Close { reason, .. } => self.close(End::server(reason)),
            Down::Took(_) | Down::Committed(_) => {}
        }
    }

    fn opened(&mut self, session_present: bool, device: Option<DeviceId>, held: Vec<u16>) {
        if self.is_open() {
            return;
        }
        self.publishes.hold(held);
        // The stored subscription is at work already, and it is one of QoS 1.
        self.inbox.reading = device.map(|device| Reading::new(&self.user, device, Mode::Device));
        self.welcome(session_present);
    }

    fn welcome(&mut self, session_present: bool) {
        if let Some(mut welcome) = self.welcome.take() {
            welcome.session_present = session_present;
            self.out.push_back(Outbound::ConnAck(welcome));
        }
    }

    fn attached(&mut self, request: u16, reason: u8) {
        let Some(Asking { packet_id, reading, codes }) =
            self.inbox.asking.take_if(|asking| asking.packet_id == request)
        else {
            return;
        };
        let refused = (reason >= 0x80).then_some(reason);
        if refused.is_none() {
            self.inbox.reading = Some(reading);
        }
        self.out.push_back(Outbound::SubAck { packet_id, codes: inbox::suback(&codes, refused) });
    }

    fn entry(&mut self, seq: Seq, again: bool, payload: Bytes) {
        let Some(reading) = self.inbox.current() else { return };
        let topic = reading.topic.clone();
        let packet_id = match reading.mode {
            Mode::Device => entry::packet_id(seq),
            Mode::Viewer => 0,
        };
        if packet_id != 0 {
            self.inbox.sent(packet_id, seq);
        }
        self.out.push_back(Outbound::Publish { packet_id, again, topic, payload });
    }

    fn live(&mut self, payload: Bytes) {
        if let Some(reading) = self.inbox.current() {
            let topic = reading.topic.clone();
            self.out.push_back(Outbound::Publish { packet_id: 0, again: false, topic, payload });
        }
    }

    /// The connection has ended: what is left to say about it.
    pub(crate) fn finish(&mut self) -> Legacy {
        let end = self.end.unwrap_or(End::GONE);
        let expiry_secs = self.new_expiry_secs.unwrap_or(self.expiry_secs);
        // Whoever has lost the right to publish has lost it for the will too.
        let will = self.will.take().filter(|_| end.cause != Cause::Revoked).map(|will| {
            let publication = Publication {
                connection: self.connection,
                packet: Packet { id: 0, qos: 0 },
                device: will.device,
                stamp: (self.stamp)(),
                will: true,
                payload: will.payload,
            };
            (publication, Duration::from_secs(will.delay_secs.min(expiry_secs).into()))
        });
        let close =
            Up::Close { connection: self.connection, expiry_secs: self.new_expiry_secs, by_server: end.is_by_server() };
        Legacy { will, close }
    }
}

#[cfg(test)]
mod tests;
