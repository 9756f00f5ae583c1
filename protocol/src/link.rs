//! What passes between a door and the bridge: small binary frames on two topics a user (`users/{user}/up`, `users/{user}/down`).
//!
//! Every fact that the router must not count or lose stands in the frame: kind, connection, packet id, device. Each direction is totally
//! ordered. The user is in the topic. Frames never outlive the process that made them, so their layout has no version.

#[cfg(test)]
mod tests;
mod window;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::Kind;
use crate::ids::{ConnectionId, DeviceId, MessageId, N, Seq, UserId};

pub use window::{Credit, Intake, WINDOW_BYTES, WINDOW_FRAMES, Window};

/// Most bytes of one frame: the largest body that a door lets through, and room for the frame's own fields.
pub const FRAME_BYTES_MAX: usize = 128 * 1024;

/// What a client speaks; it decides how the bridge answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// MQTT 3.1.1, or MQTT 5 with Request Problem Information 0: PUBACKs are bare, `sent` and `failed` say the rest.
    Bare,
    /// MQTT 5: PUBACKs carry reason codes and user properties.
    Full,
}

/// Which PUBLISH a frame speaks of. Packet id 0 is a QoS 0 publish: nobody waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packet {
    /// The packet id, 0 at QoS 0.
    pub id: u16,
    /// 0, 1 or 2.
    pub qos: u8,
}

/// A session that a client asked for at CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The client id, the door's own if the client sent none; at most 256 bytes.
    pub client_id: String,
    /// Forget what is stored of an earlier session.
    pub clean_start: bool,
    /// How long the session outlives the connection, in seconds; 0: not at all. `u32::MAX` is as long as the server keeps sessions.
    pub expiry_secs: u32,
    /// What the client speaks.
    pub dialect: Dialect,
    /// How many unacknowledged QoS 1 entries the client takes.
    pub receive_maximum: u16,
    /// The largest packet the client takes, in bytes.
    pub packet_bytes_max: u32,
    /// The device that the token is bound to, if it is: a stored subscription of another device is not resumed.
    pub device: Option<DeviceId>,
    /// When the token was issued, in Unix seconds: one that a device had before it was unlinked opens nothing, also when it was on its way.
    pub issued_at: u64,
}

/// How a reader takes an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// QoS 1: a device, with a cursor and ticks.
    Device,
    /// QoS 0: live entries only.
    Viewer,
}

/// A PUBLISH that the door passed: topic and size are right, the rest is the bridge's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Where the answer goes.
    pub connection: ConnectionId,
    /// Which PUBLISH.
    pub packet: Packet,
    /// The device in the topic.
    pub device: DeviceId,
    /// A UUIDv7 of the door's: the id of the message if it has none.
    pub stamp: u128,
    /// The will of a connection that ended: an `id` in it does not count.
    pub will: bool,
    /// What was published.
    pub payload: Bytes,
}

/// From a door to the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Up {
    /// A client connected. Answered by [`Down::Opened`].
    Open(ConnectionId, Opening),
    /// A connection ended. `expiry_secs` replaces the one of [`Opening`] (MQTT 5 DISCONNECT may change it); `by_server` ends do not count
    /// against an entry that the client cannot take.
    Close {
        /// Which.
        connection: ConnectionId,
        /// The session's expiry from now on, in seconds.
        expiry_secs: Option<u32>,
        /// The server ended it.
        by_server: bool,
    },
    /// A PUBLISH.
    Publish(Publication),
    /// A PUBLISH that the door refused: it comes up so that answers keep their order and `failed` can be said.
    Refused {
        /// Where the answer goes.
        connection: ConnectionId,
        /// Which PUBLISH.
        packet: Packet,
        /// Why.
        kind: Kind,
        /// What was expected and what came.
        details: String,
    },
    /// PUBREL: the client will not send this packet id again.
    Release {
        /// Whose.
        connection: ConnectionId,
        /// Which QoS 2 publish.
        packet_id: u16,
    },
    /// SUBSCRIBE to the own inbox. Answered by [`Down::Attached`].
    Attach {
        /// Who reads from now on.
        connection: ConnectionId,
        /// The SUBSCRIBE's packet id, echoed in the answer.
        request: u16,
        /// Which inbox.
        device: DeviceId,
        /// How.
        mode: Mode,
    },
    /// UNSUBSCRIBE from the inbox this connection reads.
    Detach {
        /// Whose.
        connection: ConnectionId,
    },
    /// PUBACK of a receiver, translated to the entry it was for.
    Acked {
        /// Whose.
        connection: ConnectionId,
        /// Which entry.
        seq: Seq,
        /// The client took it (reason below 0x80).
        taken: bool,
    },
    /// Cumulative: what this side has taken in from the other since the start. On the link's own topic.
    Took(Credit),
    /// Wakes the other side's reader; says nothing.
    Ring,
}

/// What became of a PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Committed as this message, now or by an earlier try.
    Message {
        /// Its id.
        id: MessageId,
        /// Its number in the chat.
        n: N,
        /// Unix seconds of the commit.
        timestamp: u64,
    },
    /// A command was done.
    Done,
    /// Refused for good.
    Refused {
        /// Why.
        kind: Kind,
        /// What was expected and what came.
        details: String,
    },
}

/// From the bridge to a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Down {
    /// The session is open.
    Opened {
        /// Whose.
        connection: ConnectionId,
        /// CONNACK's Session Present.
        session_present: bool,
        /// The inbox that the stored session reads: it is attached.
        device: Option<DeviceId>,
        /// QoS 2 packet ids between PUBREC and PUBREL.
        held: Vec<u16>,
    },
    /// The answer to a PUBLISH: PUBACK, or PUBREC at QoS 2.
    Answer {
        /// Whose.
        connection: ConnectionId,
        /// Which PUBLISH.
        packet: Packet,
        /// What became of it.
        answer: Answer,
    },
    /// The answer to PUBREL: PUBCOMP.
    Complete {
        /// Whose.
        connection: ConnectionId,
        /// Which.
        packet_id: u16,
    },
    /// The answer to [`Up::Attach`].
    Attached {
        /// Whose.
        connection: ConnectionId,
        /// The SUBSCRIBE it answers.
        request: u16,
        /// The MQTT 5 reason: 0 or 1 the granted QoS, 0x80 and above refused.
        reason: u8,
    },
    /// An entry for the reader of a device's inbox, QoS 1.
    Entry {
        /// Whose.
        connection: ConnectionId,
        /// Its position; the packet id follows from it.
        seq: Seq,
        /// It was sent to this device before.
        again: bool,
        /// The payload.
        payload: Bytes,
    },
    /// Something live for whoever reads an inbox, QoS 0. The first thing to be dropped.
    Live {
        /// Whose.
        connection: ConnectionId,
        /// The payload.
        payload: Bytes,
    },
    /// End the connection with this MQTT 5 reason.
    Close {
        /// Which.
        connection: ConnectionId,
        /// The reason of the DISCONNECT.
        reason: u8,
    },
    /// Cumulative: what this side has taken in from the other since the start. On the link's own topic.
    Took(Credit),
    /// Entries behind this frame, up to the next of its kind, left the bridge at this time: microseconds of Unix time, after their commit.
    /// On the link's own topic; for the histograms alone.
    Committed(u64),
}

/// A frame that does not read: a defect of this program, since nobody else writes them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("link frame: expected {expected}, got {got}")]
pub struct FrameError {
    /// What should stand there.
    pub expected: &'static str,
    /// What does.
    pub got: String,
}

mod tag {
    pub(super) const OPEN: u8 = 1;
    pub(super) const CLOSE: u8 = 2;
    pub(super) const PUBLISH: u8 = 3;
    pub(super) const REFUSED: u8 = 4;
    pub(super) const RELEASE: u8 = 5;
    pub(super) const ATTACH: u8 = 6;
    pub(super) const DETACH: u8 = 7;
    pub(super) const ACKED: u8 = 8;
    pub(super) const TOOK: u8 = 9;
    pub(super) const RING: u8 = 10;
    pub(super) const OPENED: u8 = 33;
    pub(super) const ANSWER: u8 = 34;
    pub(super) const COMPLETE: u8 = 35;
    pub(super) const ATTACHED: u8 = 36;
    pub(super) const ENTRY: u8 = 37;
    pub(super) const LIVE: u8 = 38;
    pub(super) const END: u8 = 39;
    pub(super) const COMMITTED: u8 = 40;
}

impl Up {
    /// The connection it speaks of, if it speaks of one.
    #[must_use]
    pub fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Publish(publication) => Some(publication.connection),
            Self::Open(connection, _)
            | Self::Close { connection, .. }
            | Self::Refused { connection, .. }
            | Self::Release { connection, .. }
            | Self::Attach { connection, .. }
            | Self::Detach { connection }
            | Self::Acked { connection, .. } => Some(*connection),
            Self::Took(_) | Self::Ring => None,
        }
    }

    /// The frame's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_room(match self {
            Self::Publish(publication) => publication.payload.len(),
            _ => 0,
        });
        match self {
            Self::Open(connection, opening) => {
                w.head(tag::OPEN, *connection);
                w.text(&opening.client_id);
                w.flag(opening.clean_start);
                w.0.put_u32(opening.expiry_secs);
                w.flag(opening.dialect == Dialect::Full);
                w.0.put_u16(opening.receive_maximum);
                w.0.put_u32(opening.packet_bytes_max);
                w.text(opening.device.as_ref().map_or("", DeviceId::as_str));
                w.0.put_u64(opening.issued_at);
            }
            Self::Close { connection, expiry_secs, by_server } => {
                w.head(tag::CLOSE, *connection);
                w.flag(*by_server);
                w.flag(expiry_secs.is_some());
                w.0.put_u32(expiry_secs.unwrap_or(0));
            }
            Self::Publish(publication) => {
                w.head(tag::PUBLISH, publication.connection);
                w.packet(publication.packet);
                w.text(publication.device.as_str());
                w.0.put_u128(publication.stamp);
                w.flag(publication.will);
                w.0.put_slice(&publication.payload);
            }
            Self::Refused { connection, packet, kind, details } => {
                w.head(tag::REFUSED, *connection);
                w.packet(*packet);
                w.0.put_u8(kind.to_byte());
                w.text(details);
            }
            Self::Release { connection, packet_id } => {
                w.head(tag::RELEASE, *connection);
                w.0.put_u16(*packet_id);
            }
            Self::Attach { connection, request, device, mode } => {
                w.head(tag::ATTACH, *connection);
                w.0.put_u16(*request);
                w.text(device.as_str());
                w.flag(*mode == Mode::Device);
            }
            Self::Detach { connection } => w.head(tag::DETACH, *connection),
            Self::Acked { connection, seq, taken } => {
                w.head(tag::ACKED, *connection);
                w.0.put_u64(*seq);
                w.flag(*taken);
            }
            Self::Took(credit) => w.credit(*credit),
            Self::Ring => w.0.put_u8(tag::RING),
        }
        w.0.freeze()
    }

    /// Reads what [`Up::encode`] wrote; payloads share `frame`'s memory.
    ///
    /// # Errors
    /// [`FrameError`] on anything else.
    pub fn decode(frame: Bytes) -> Result<Self, FrameError> {
        let mut r = Reader(frame);
        let kind = r.u8("a kind")?;
        match kind {
            tag::TOOK => return Ok(Self::Took(r.credit()?)),
            tag::RING => return Ok(Self::Ring),
            _ => {}
        }
        let connection = r.connection()?;
        Ok(match kind {
            tag::OPEN => Self::Open(
                connection,
                Opening {
                    client_id: r.text()?,
                    clean_start: r.flag()?,
                    expiry_secs: r.u32()?,
                    dialect: if r.flag()? { Dialect::Full } else { Dialect::Bare },
                    receive_maximum: r.u16()?,
                    packet_bytes_max: r.u32()?,
                    device: r.device_or_none()?,
                    issued_at: r.u64()?,
                },
            ),
            tag::CLOSE => {
                let by_server = r.flag()?;
                let (known, expiry_secs) = (r.flag()?, r.u32()?);
                Self::Close { connection, expiry_secs: known.then_some(expiry_secs), by_server }
            }
            tag::PUBLISH => Self::Publish(Publication {
                connection,
                packet: r.packet()?,
                device: r.device()?,
                stamp: r.u128()?,
                will: r.flag()?,
                payload: r.0,
            }),
            tag::REFUSED => Self::Refused { connection, packet: r.packet()?, kind: r.kind()?, details: r.text()? },
            tag::RELEASE => Self::Release { connection, packet_id: r.u16()? },
            tag::ATTACH => Self::Attach {
                connection,
                request: r.u16()?,
                device: r.device()?,
                mode: if r.flag()? { Mode::Device } else { Mode::Viewer },
            },
            tag::DETACH => Self::Detach { connection },
            tag::ACKED => Self::Acked { connection, seq: r.u64()?, taken: r.flag()? },
            other => return Err(FrameError { expected: "a frame to the bridge", got: format!("kind {other}") }),
        })
    }

    /// Whether this frame may use the reserve of the window: it frees something on the other side.
    #[must_use]
    pub fn is_acknowledgement(&self) -> bool {
        matches!(
            self,
            Self::Acked { .. }
                | Self::Close { .. }
                | Self::Detach { .. }
                | Self::Release { .. }
                | Self::Took(_)
                | Self::Ring
        )
    }
}

impl Down {
    /// The frame's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_room(match self {
            Self::Entry { payload, .. } | Self::Live { payload, .. } => payload.len(),
            _ => 0,
        });
        match self {
            Self::Opened { connection, session_present, device, held } => {
                w.head(tag::OPENED, *connection);
                w.flag(*session_present);
                w.text(device.as_ref().map_or("", DeviceId::as_str));
                for id in held {
                    w.0.put_u16(*id);
                }
            }
            Self::Answer { connection, packet, answer } => {
                w.head(tag::ANSWER, *connection);
                w.packet(*packet);
                match answer {
                    Answer::Message { id, n, timestamp } => {
                        w.0.put_u8(0);
                        w.text(id.as_str());
                        w.0.put_u64(*n);
                        w.0.put_u64(*timestamp);
                    }
                    Answer::Done => w.0.put_u8(1),
                    Answer::Refused { kind, details } => {
                        w.0.put_u8(2);
                        w.0.put_u8(kind.to_byte());
                        w.text(details);
                    }
                }
            }
            Self::Complete { connection, packet_id } => {
                w.head(tag::COMPLETE, *connection);
                w.0.put_u16(*packet_id);
            }
            Self::Attached { connection, request, reason } => {
                w.head(tag::ATTACHED, *connection);
                w.0.put_u16(*request);
                w.0.put_u8(*reason);
            }
            Self::Entry { connection, seq, again, payload } => {
                w.head(tag::ENTRY, *connection);
                w.0.put_u64(*seq);
                w.flag(*again);
                w.0.put_slice(payload);
            }
            Self::Live { connection, payload } => {
                w.head(tag::LIVE, *connection);
                w.0.put_slice(payload);
            }
            Self::Close { connection, reason } => {
                w.head(tag::END, *connection);
                w.0.put_u8(*reason);
            }
            Self::Took(credit) => w.credit(*credit),
            Self::Committed(at) => {
                w.0.put_u8(tag::COMMITTED);
                w.0.put_u64(*at);
            }
        }
        w.0.freeze()
    }

    /// Whether `frame`, as [`Down::encode`] wrote it, is an entry.
    #[must_use]
    pub fn is_entry(frame: &[u8]) -> bool {
        frame.first() == Some(&tag::ENTRY)
    }

    /// Reads what [`Down::encode`] wrote; payloads share `frame`'s memory.
    ///
    /// # Errors
    /// [`FrameError`] on anything else.
    pub fn decode(frame: Bytes) -> Result<Self, FrameError> {
        let mut r = Reader(frame);
        let kind = r.u8("a kind")?;
        if kind == tag::TOOK {
            return Ok(Self::Took(r.credit()?));
        }
        if kind == tag::COMMITTED {
            return Ok(Self::Committed(r.u64()?));
        }
        let connection = r.connection()?;
        Ok(match kind {
            tag::OPENED => {
                let session_present = r.flag()?;
                let device = r.device_or_none()?;
                let mut held = Vec::with_capacity(r.0.len() / 2);
                while !r.0.is_empty() {
                    held.push(r.u16()?);
                }
                Self::Opened { connection, session_present, device, held }
            }
            tag::ANSWER => {
                let packet = r.packet()?;
                let answer = match r.u8("an answer")? {
                    0 => Answer::Message { id: r.message_id()?, n: r.u64()?, timestamp: r.u64()? },
                    1 => Answer::Done,
                    2 => Answer::Refused { kind: r.kind()?, details: r.text()? },
                    other => return Err(FrameError { expected: "an answer", got: format!("kind {other}") }),
                };
                Self::Answer { connection, packet, answer }
            }
            tag::COMPLETE => Self::Complete { connection, packet_id: r.u16()? },
            tag::ATTACHED => Self::Attached { connection, request: r.u16()?, reason: r.u8("a reason")? },
            tag::ENTRY => Self::Entry { connection, seq: r.u64()?, again: r.flag()?, payload: r.0 },
            tag::LIVE => Self::Live { connection, payload: r.0 },
            tag::END => Self::Close { connection, reason: r.u8("a reason")? },
            other => return Err(FrameError { expected: "a frame to a door", got: format!("kind {other}") }),
        })
    }

    /// Which connection the frame is for; `None` is the link's own business.
    #[must_use]
    pub fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Opened { connection, .. }
            | Self::Answer { connection, .. }
            | Self::Complete { connection, .. }
            | Self::Attached { connection, .. }
            | Self::Entry { connection, .. }
            | Self::Live { connection, .. }
            | Self::Close { connection, .. } => Some(*connection),
            Self::Took(_) | Self::Committed(_) => None,
        }
    }

    /// Whether this frame may use the reserve of the window: it answers something the other side waits for.
    #[must_use]
    pub fn is_acknowledgement(&self) -> bool {
        !matches!(self, Self::Entry { .. } | Self::Live { .. })
    }
}

/// The router is gone: this end of the link can do nothing any more, and the process must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the router between door and bridge has stopped")]
pub struct LinkDown;

/// One end of the link, for sending. Frames of one end arrive in the order of the calls.
pub trait LinkSender: Send {
    /// Sends frames, each under its user's topic (`None`: the link's own); leaves the vector empty. Blocks for microseconds at most, since
    /// the router waits for nobody; the caller keeps within its [`Window`].
    ///
    /// # Errors
    /// [`LinkDown`] when the router has stopped.
    fn send(&mut self, frames: &mut Vec<(Option<UserId>, Bytes)>) -> Result<(), LinkDown>;
}

/// One end of the link, for receiving.
pub trait LinkReceiver: Send {
    /// The next frame and the user of its topic, or `None` at `deadline`. A deadline that has passed makes this a look without waiting.
    ///
    /// # Errors
    /// [`LinkDown`] when the router has stopped, or has skipped frames (which is as bad: the order is broken).
    fn receive(&mut self, deadline: std::time::Instant) -> Result<Option<(Option<UserId>, Bytes)>, LinkDown>;

    /// A bell for other threads: ringing it makes a waiting [`LinkReceiver::receive`] return, perhaps with a [`Up::Ring`].
    fn bell(&self) -> Bell;
}

/// Wakes the receiver of a link; see [`LinkReceiver::bell`].
pub type Bell = std::sync::Arc<dyn Fn() + Send + Sync>;

struct Writer(BytesMut);

impl Writer {
    fn with_room(payload: usize) -> Self {
        // Small frames are most of what the router's log keeps: no room is wasted on them.
        Self(BytesMut::with_capacity(if payload == 0 { 32 } else { payload + 64 }))
    }

    fn head(&mut self, kind: u8, connection: ConnectionId) {
        self.0.put_u8(kind);
        self.0.put_u32(connection.boot);
        self.0.put_u64(connection.n);
    }

    fn packet(&mut self, packet: Packet) {
        self.0.put_u16(packet.id);
        self.0.put_u8(packet.qos);
    }

    fn flag(&mut self, flag: bool) {
        self.0.put_u8(u8::from(flag));
    }

    fn text(&mut self, text: &str) {
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        let mut end = usize::from(length).min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.0.put_u16(u16::try_from(end).unwrap_or(u16::MAX));
        self.0.put_slice(&text.as_bytes()[..end]);
    }

    fn credit(&mut self, credit: Credit) {
        self.0.put_u8(tag::TOOK);
        self.0.put_u64(credit.frames);
        self.0.put_u64(credit.bytes);
    }
}

struct Reader(Bytes);

impl Reader {
    fn need(&self, bytes: usize, expected: &'static str) -> Result<(), FrameError> {
        if self.0.len() >= bytes {
            Ok(())
        } else {
            Err(FrameError { expected, got: format!("{} bytes left", self.0.len()) })
        }
    }

    fn u8(&mut self, expected: &'static str) -> Result<u8, FrameError> {
        self.need(1, expected)?;
        Ok(self.0.get_u8())
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        self.need(2, "a u16")?;
        Ok(self.0.get_u16())
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.need(4, "a u32")?;
        Ok(self.0.get_u32())
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.need(8, "a u64")?;
        Ok(self.0.get_u64())
    }

    fn u128(&mut self) -> Result<u128, FrameError> {
        self.need(16, "a u128")?;
        Ok(self.0.get_u128())
    }

    fn flag(&mut self) -> Result<bool, FrameError> {
        Ok(self.u8("a flag")? != 0)
    }

    fn connection(&mut self) -> Result<ConnectionId, FrameError> {
        Ok(ConnectionId { boot: self.u32()?, n: self.u64()? })
    }

    fn packet(&mut self) -> Result<Packet, FrameError> {
        Ok(Packet { id: self.u16()?, qos: self.u8("a QoS")? })
    }

    fn credit(&mut self) -> Result<Credit, FrameError> {
        Ok(Credit { frames: self.u64()?, bytes: self.u64()? })
    }

    fn slice(&mut self) -> Result<Bytes, FrameError> {
        let length = usize::from(self.u16()?);
        self.need(length, "a text")?;
        Ok(self.0.split_to(length))
    }

    fn text(&mut self) -> Result<String, FrameError> {
        let bytes = self.slice()?;
        String::from_utf8(bytes.into()).map_err(|e| FrameError { expected: "UTF-8", got: e.to_string() })
    }

    fn parsed<T>(&mut self, expected: &'static str, parse: fn(&str) -> Option<T>) -> Result<T, FrameError> {
        let bytes = self.slice()?;
        let text = std::str::from_utf8(&bytes).map_err(|e| FrameError { expected, got: e.to_string() })?;
        parse(text).ok_or_else(|| FrameError { expected, got: text.to_owned() })
    }

    fn device(&mut self) -> Result<DeviceId, FrameError> {
        self.parsed("a device", |text| DeviceId::parse(text).ok())
    }

    fn device_or_none(&mut self) -> Result<Option<DeviceId>, FrameError> {
        self.parsed("a device or nothing", |text| {
            if text.is_empty() { Some(None) } else { DeviceId::parse(text).ok().map(Some) }
        })
    }

    fn message_id(&mut self) -> Result<MessageId, FrameError> {
        self.parsed("a message id", |text| MessageId::parse(text).ok())
    }

    fn kind(&mut self) -> Result<Kind, FrameError> {
        let byte = self.u8("a kind of refusal")?;
        Kind::from_byte(byte).ok_or_else(|| FrameError { expected: "a kind of refusal", got: byte.to_string() })
    }
}
