//! Packets as both versions mean them, read and written by the codec. Reading validates first.

use std::num::NonZeroU16;

use bytes::{BufMut as _, Bytes, BytesMut};
use bytestring::ByteString;
use natter_protocol::link;
use rmqtt_codec::error::EncodeError;
use rmqtt_codec::types::QoS;
use rmqtt_codec::{v3, v5};
use tokio_util::codec::{Decoder as _, Encoder as _};

use crate::validate::{self, BadConnect, MALFORMED, Violation};

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// MQTT 3.1.1.
    V3,
    /// MQTT 5.
    V5,
}

/// A packet from a client, after CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Inbound {
    Publish(Publish),
    /// `is_taken`: the reason is below 0x80.
    PubAck {
        packet_id: u16,
        is_taken: bool,
    },
    PubRel {
        packet_id: u16,
    },
    /// Filters with the QoS asked for.
    Subscribe {
        packet_id: u16,
        filters: Vec<(ByteString, u8)>,
    },
    Unsubscribe {
        packet_id: u16,
        filters: Vec<ByteString>,
    },
    PingReq,
    Disconnect {
        reason: u8,
        expiry_secs: Option<u32>,
    },
}

/// A PUBLISH from a client. Retain is no field of it: MQTT 5 must not say it, and on 3.1.1 it is ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) packet: link::Packet,
    pub(crate) topic: ByteString,
    pub(crate) payload: Bytes,
}

/// A CONNECT of either version.
#[derive(Debug)]
pub(crate) enum Connect {
    V3(Box<v3::Connect>),
    V5(Box<v5::Connect>),
}

impl Connect {
    /// What the client speaks.
    pub(crate) fn version(&self) -> Version {
        match self {
            Self::V3(_) => Version::V3,
            Self::V5(_) => Version::V5,
        }
    }
}

/// What is said beside the reason of a PUBACK or PUBREC, on MQTT 5 with problem information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Detail {
    Nothing,
    Message { id: ByteString, n: u64, timestamp: u64 },
    Reason(String),
}

/// The CONNACK that accepts; the version decides which of it is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) session_present: bool,
    pub(crate) receive_maximum: u16,
    pub(crate) packet_bytes_max: u32,
    /// Said when it is not what was asked for.
    pub(crate) expiry_secs: Option<u32>,
    /// Said when the client sent none.
    pub(crate) client_id: Option<String>,
    /// Said when it is not what was asked for.
    pub(crate) keep_alive_secs: Option<u16>,
    /// As [`crate::Config::epoch`]; left out where the client does not take so many bytes [MQTT-3.2.2-20].
    pub(crate) epoch: Option<u64>,
}

/// A packet to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outbound {
    ConnAck(Box<Welcome>),
    /// A CONNACK that refuses: the return code of 3.1.1 or the reason of 5.
    ConnRefused(u8),
    /// Packet id 0 is QoS 0.
    Publish {
        packet_id: u16,
        again: bool,
        topic: ByteString,
        payload: Bytes,
    },
    PubAck {
        packet_id: u16,
        reason: u8,
        detail: Detail,
    },
    PubRec {
        packet_id: u16,
        reason: u8,
        detail: Detail,
    },
    PubComp {
        packet_id: u16,
        reason: u8,
    },
    SubAck {
        packet_id: u16,
        codes: Vec<u8>,
    },
    UnsubAck {
        packet_id: u16,
        codes: Vec<u8>,
    },
    PingResp,
    /// Nothing on 3.1.1.
    Disconnect {
        reason: u8,
    },
}

/// Longest reason string.
const REASON_BYTES_MAX: usize = 512;

/// Reads one whole packet after CONNECT.
pub(crate) fn decode(version: Version, raw: &[u8]) -> Result<Inbound, Violation> {
    let (first, body) = split(raw)?;
    validate::packet(version, first, body)?;
    match version {
        Version::V3 => decode_v3(raw),
        Version::V5 => decode_v5(first, body, raw),
    }
}

/// Reads a whole CONNECT.
pub(crate) fn decode_connect(raw: &[u8]) -> Result<Connect, BadConnect> {
    let (_, body) = split(raw).map_err(|_| BadConnect::Close)?;
    match validate::connect(body)? {
        Version::V3 => match v3::Codec::new(0).decode(&mut BytesMut::from(raw)) {
            Ok(Some((v3::Packet::Connect(connect), _))) => Ok(Connect::V3(connect)),
            _ => Err(BadConnect::Close),
        },
        Version::V5 => {
            let head = raw.len() - body.len();
            let mut raw = BytesMut::from(raw);
            // The codec refuses a will that expires at once, which is legal; when it expires means nothing here.
            if let Some(expiry) = validate::will_expiry(body).and_then(|at| raw.get_mut(head + at..head + at + 4)) {
                expiry.fill(1);
            }
            let flags = head + 7;
            // The codec refuses an empty client id without clean start, which is legal. An id that is made up now has no session
            // anyway. It reads the id, so flipping the flag is left to when it is needed.
            match v5::Codec::new(0, 0).decode(&mut raw.clone()) {
                Ok(Some((v5::Packet::Connect(connect), _))) => return Ok(Connect::V5(connect)),
                _ => raw[flags] |= 2,
            }
            match v5::Codec::new(0, 0).decode(&mut raw) {
                Ok(Some((v5::Packet::Connect(connect), _))) if connect.client_id.is_empty() => Ok(Connect::V5(connect)),
                _ => Err(BadConnect::Refuse(Version::V5, MALFORMED.0)),
            }
        }
    }
}

/// The first byte and what follows the fixed header.
fn split(raw: &[u8]) -> Result<(u8, &[u8]), Violation> {
    let (first, rest) = raw.split_first().ok_or(MALFORMED)?;
    let (length, bytes) = validate::remaining_length(rest)?.ok_or(MALFORMED)?;
    let body = &rest[bytes..];
    if body.len() == length { Ok((*first, body)) } else { Err(MALFORMED) }
}

fn decode_v3(raw: &[u8]) -> Result<Inbound, Violation> {
    let Ok(Some((packet, _))) = v3::Codec::new(0).decode(&mut BytesMut::from(raw)) else { return Err(MALFORMED) };
    Ok(match packet {
        v3::Packet::Publish(publish) => Inbound::Publish(Publish {
            packet: packet_of(publish.qos, publish.packet_id),
            topic: publish.topic,
            payload: publish.payload,
        }),
        v3::Packet::PublishAck { packet_id } => Inbound::PubAck { packet_id: packet_id.get(), is_taken: true },
        v3::Packet::PublishRelease { packet_id } => Inbound::PubRel { packet_id: packet_id.get() },
        v3::Packet::Subscribe { packet_id, topic_filters } => Inbound::Subscribe {
            packet_id: packet_id.get(),
            filters: topic_filters.into_iter().map(|(filter, qos)| (filter, qos.value())).collect(),
        },
        v3::Packet::Unsubscribe { packet_id, topic_filters } => {
            Inbound::Unsubscribe { packet_id: packet_id.get(), filters: topic_filters }
        }
        v3::Packet::PingRequest => Inbound::PingReq,
        v3::Packet::Disconnect => Inbound::Disconnect { reason: 0, expiry_secs: None },
        _ => return Err(MALFORMED),
    })
}

fn decode_v5(first: u8, body: &[u8], raw: &[u8]) -> Result<Inbound, Violation> {
    let mut raw =
        if first >> 4 == validate::kind::PUBLISH { without_properties(first, body)? } else { BytesMut::from(raw) };
    let Ok(Some((packet, _))) = v5::Codec::new(0, 0).decode(&mut raw) else { return Err(MALFORMED) };
    Ok(match packet {
        v5::Packet::Publish(publish) => Inbound::Publish(Publish {
            packet: packet_of(publish.qos, publish.packet_id),
            topic: publish.topic,
            payload: publish.payload,
        }),
        v5::Packet::PublishAck(ack) => {
            Inbound::PubAck { packet_id: ack.packet_id.get(), is_taken: u8::from(ack.reason_code) < 0x80 }
        }
        v5::Packet::PublishRelease(release) => Inbound::PubRel { packet_id: release.packet_id.get() },
        v5::Packet::Subscribe(subscribe) => Inbound::Subscribe {
            packet_id: subscribe.packet_id.get(),
            filters: subscribe.topic_filters.into_iter().map(|(filter, opts)| (filter, opts.qos.value())).collect(),
        },
        v5::Packet::Unsubscribe(unsubscribe) => {
            Inbound::Unsubscribe { packet_id: unsubscribe.packet_id.get(), filters: unsubscribe.topic_filters }
        }
        v5::Packet::PingRequest => Inbound::PingReq,
        v5::Packet::Disconnect(disconnect) => Inbound::Disconnect {
            reason: disconnect.reason_code.into(),
            expiry_secs: disconnect.session_expiry_interval_secs,
        },
        _ => return Err(MALFORMED),
    })
}

/// The PUBLISH without its properties: none of them means anything here, and the codec refuses a message expiry of 0, which is legal.
fn without_properties(first: u8, body: &[u8]) -> Result<BytesMut, Violation> {
    let topic = body.first_chunk::<2>().map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
    let head = 2 + topic + if first & 0x06 == 0 { 0 } else { 2 };
    let properties = body.get(head..).ok_or(MALFORMED)?;
    let (length, bytes) = validate::remaining_length(properties)?.ok_or(MALFORMED)?;
    let payload = properties.get(bytes + length..).ok_or(MALFORMED)?;

    let mut out = BytesMut::with_capacity(6 + head + payload.len());
    out.put_u8(first);
    put_remaining_length(&mut out, head + 1 + payload.len());
    out.put_slice(&body[..head]);
    out.put_u8(0);
    out.put_slice(payload);
    Ok(out)
}

fn put_remaining_length(out: &mut BytesMut, mut length: usize) {
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or(0);
        length >>= 7;
        if length == 0 {
            out.put_u8(low);
            return;
        }
        out.put_u8(low | 0x80);
    }
}

fn packet_of(qos: QoS, packet_id: Option<NonZeroU16>) -> link::Packet {
    link::Packet { id: packet_id.map_or(0, NonZeroU16::get), qos: qos.value() }
}

impl Outbound {
    /// Appends the packet to `out`. What is larger than the client takes (`bytes_max`) loses its details, and if that is not enough,
    /// nothing is appended and the answer is false ([MQTT-3.1.2-24], [MQTT-3.1.2-25]).
    pub(crate) fn encode(self, version: Version, bytes_max: u32, out: &mut BytesMut) -> bool {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let start = out.len();
        let bare = match &self {
            Self::ConnAck(welcome) if welcome.epoch.is_some() => {
                Some(Self::ConnAck(Box::new(Welcome { epoch: None, ..(**welcome).clone() })))
            }
            Self::PubAck { packet_id, reason, detail } if *detail != Detail::Nothing => {
                Some(Self::PubAck { packet_id: *packet_id, reason: *reason, detail: Detail::Nothing })
            }
            Self::PubRec { packet_id, reason, detail } if *detail != Detail::Nothing => {
                Some(Self::PubRec { packet_id: *packet_id, reason: *reason, detail: Detail::Nothing })
            }
            _ => None,
        };
        for packet in [Some(self), bare].into_iter().flatten() {
            let written = match version {
                Version::V3 => packet.encode_v3(out),
                Version::V5 => packet.encode_v5(out),
            };
            if written.is_ok() && out.len() - start <= bytes_max {
                return true;
            }
            out.truncate(start);
        }
        false
    }

    fn encode_v3(self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let packet = match self {
            Self::ConnAck(welcome) => v3::Packet::ConnectAck(v3::ConnectAck {
                return_code: v3::ConnectAckReason::ConnectionAccepted,
                session_present: welcome.session_present,
            }),
            Self::ConnRefused(code) => v3::Packet::ConnectAck(v3::ConnectAck {
                return_code: v3::ConnectAckReason::try_from(code).unwrap_or(v3::ConnectAckReason::ServiceUnavailable),
                session_present: false,
            }),
            Self::Publish { packet_id, again, topic, payload } => {
                v3::Packet::Publish(Box::new(publish(packet_id, again, topic, payload)))
            }
            Self::PubAck { packet_id, .. } => v3::Packet::PublishAck { packet_id: non_zero(packet_id)? },
            Self::PubRec { packet_id, .. } => v3::Packet::PublishReceived { packet_id: non_zero(packet_id)? },
            Self::PubComp { packet_id, .. } => v3::Packet::PublishComplete { packet_id: non_zero(packet_id)? },
            Self::SubAck { packet_id, codes } => v3::Packet::SubscribeAck {
                packet_id: non_zero(packet_id)?,
                status: codes
                    .into_iter()
                    .map(|code| {
                        QoS::try_from(code).map_or(v3::SubscribeReturnCode::Failure, v3::SubscribeReturnCode::Success)
                    })
                    .collect(),
            },
            Self::UnsubAck { packet_id, .. } => v3::Packet::UnsubscribeAck { packet_id: non_zero(packet_id)? },
            Self::PingResp => v3::Packet::PingResponse,
            Self::Disconnect { .. } => return Ok(()),
        };
        v3::Codec::new(0).encode(packet, out)
    }

    fn encode_v5(self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let packet = match self {
            Self::ConnAck(welcome) => v5::Packet::ConnectAck(Box::new(connect_ack(*welcome))),
            Self::ConnRefused(reason) => v5::Packet::ConnectAck(Box::new(v5::ConnectAck {
                reason_code: v5::ConnectAckReason::try_from(reason).unwrap_or(v5::ConnectAckReason::UnspecifiedError),
                ..v5::ConnectAck::default()
            })),
            Self::Publish { packet_id, again, topic, payload } => {
                v5::Packet::Publish(Box::new(publish(packet_id, again, topic, payload)))
            }
            Self::PubAck { packet_id, reason, detail } => {
                v5::Packet::PublishAck(publish_ack(packet_id, reason, detail)?)
            }
            Self::PubRec { packet_id, reason, detail } => {
                v5::Packet::PublishReceived(publish_ack(packet_id, reason, detail)?)
            }
            Self::PubComp { packet_id, reason } => v5::Packet::PublishComplete(v5::PublishAck2 {
                packet_id: non_zero(packet_id)?,
                reason_code: v5::PublishAck2Reason::try_from(reason).unwrap_or(v5::PublishAck2Reason::Success),
                ..v5::PublishAck2::default()
            }),
            Self::SubAck { packet_id, codes } => v5::Packet::SubscribeAck(v5::SubscribeAck {
                packet_id: non_zero(packet_id)?,
                properties: Vec::new(),
                reason_string: None,
                status: codes
                    .into_iter()
                    .map(|code| {
                        v5::SubscribeAckReason::try_from(code).unwrap_or(v5::SubscribeAckReason::UnspecifiedError)
                    })
                    .collect(),
            }),
            Self::UnsubAck { packet_id, codes } => v5::Packet::UnsubscribeAck(v5::UnsubscribeAck {
                packet_id: non_zero(packet_id)?,
                properties: Vec::new(),
                reason_string: None,
                status: codes
                    .into_iter()
                    .map(|code| {
                        v5::UnsubscribeAckReason::try_from(code).unwrap_or(v5::UnsubscribeAckReason::UnspecifiedError)
                    })
                    .collect(),
            }),
            Self::PingResp => v5::Packet::PingResponse,
            Self::Disconnect { reason } => v5::Packet::Disconnect(v5::Disconnect::new(
                v5::DisconnectReasonCode::try_from(reason).unwrap_or(v5::DisconnectReasonCode::UnspecifiedError),
            )),
        };
        v5::Codec::new(0, 0).encode(packet, out)
    }
}

fn non_zero(packet_id: u16) -> Result<NonZeroU16, EncodeError> {
    NonZeroU16::new(packet_id).ok_or(EncodeError::PacketIdRequired)
}

fn publish(packet_id: u16, again: bool, topic: ByteString, payload: Bytes) -> rmqtt_codec::types::Publish {
    let packet_id = NonZeroU16::new(packet_id);
    rmqtt_codec::types::Publish {
        dup: again && packet_id.is_some(),
        retain: false,
        qos: if packet_id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce },
        topic,
        packet_id,
        payload,
        properties: None,
    }
}

fn publish_ack(packet_id: u16, reason: u8, detail: Detail) -> Result<v5::PublishAck, EncodeError> {
    let (properties, reason_string) = match detail {
        Detail::Nothing => (Vec::new(), None),
        Detail::Message { id, n, timestamp } => (
            vec![
                (ByteString::from_static("id"), id),
                (ByteString::from_static("n"), n.to_string().into()),
                (ByteString::from_static("timestamp"), timestamp.to_string().into()),
            ],
            None,
        ),
        Detail::Reason(text) => (Vec::new(), Some(reason_string(&text))),
    };
    Ok(v5::PublishAck {
        packet_id: non_zero(packet_id)?,
        reason_code: v5::PublishAckReason::try_from(reason).unwrap_or(v5::PublishAckReason::UnspecifiedError),
        properties,
        reason_string,
    })
}

/// Details may quote what a client sent, which may hold what a string must not.
fn reason_string(text: &str) -> ByteString {
    let cut = text.floor_char_boundary(REASON_BYTES_MAX);
    text[..cut].replace('\0', "\u{fffd}").into()
}

fn connect_ack(welcome: Welcome) -> v5::ConnectAck {
    v5::ConnectAck {
        session_present: welcome.session_present,
        session_expiry_interval_secs: welcome.expiry_secs,
        receive_max: NonZeroU16::new(welcome.receive_maximum).unwrap_or(NonZeroU16::MIN),
        max_packet_size: Some(welcome.packet_bytes_max),
        assigned_client_id: welcome.client_id.map(ByteString::from),
        retain_available: false,
        subscription_identifiers_available: false,
        server_keepalive_sec: welcome.keep_alive_secs,
        user_properties: welcome
            .epoch
            .map(|epoch| ("epoch".into(), format!("{epoch:016x}").into()))
            .into_iter()
            .collect(),
        ..v5::ConnectAck::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(packet: Outbound, version: Version) -> Vec<u8> {
        let mut out = BytesMut::new();
        assert!(packet.encode(version, u32::MAX, &mut out));
        out.to_vec()
    }

    #[test]
    fn what_clients_see_in_bytes() {
        let welcome = || {
            Outbound::ConnAck(Box::new(Welcome {
                session_present: true,
                receive_maximum: 128,
                packet_bytes_max: 131_072,
                expiry_secs: Some(60),
                client_id: Some("x".into()),
                keep_alive_secs: Some(1200),
                epoch: Some(0xfeed),
            }))
        };
        assert_eq!(encoded(welcome(), Version::V3), b"\x20\x02\x01\x00");
        let v5 = encoded(welcome(), Version::V5);
        assert_eq!(&v5[..5], [0x20, v5.len() as u8 - 2, 1, 0, v5.len() as u8 - 5]);
        for property in [
            &b"\x11\0\0\0\x3c"[..],
            b"\x21\0\x80",
            b"\x27\0\x02\0\0",
            b"\x12\0\x01x",
            b"\x25\0",
            b"\x29\0",
            b"\x13\x04\xb0",
            b"\x26\0\x05epoch\0\x10000000000000feed",
        ] {
            assert!(v5.windows(property.len()).any(|w| w == property), "{property:x?} in {v5:x?}");
        }
        for id in [0x22, 0x24, 0x28, 0x2a] {
            assert!(!v5[5..].contains(&id), "property {id:#x} must not be said: {v5:x?}");
        }
        assert_eq!(encoded(Outbound::ConnRefused(5), Version::V3), b"\x20\x02\x00\x05");
        assert_eq!(&encoded(Outbound::ConnRefused(0x87), Version::V5)[2..4], b"\x00\x87");

        let ack = |detail| Outbound::PubAck { packet_id: 7, reason: 0, detail };
        assert_eq!(encoded(ack(Detail::Nothing), Version::V3), b"\x40\x02\0\x07");
        let full = encoded(ack(Detail::Message { id: "m1".into(), n: 3, timestamp: 17 }), Version::V5);
        assert_eq!(
            full,
            b"\x40\x24\0\x07\0\x20\x26\0\x02id\0\x02m1\x26\0\x01n\0\x013\x26\0\x09timestamp\0\x0217".to_vec()
        );
        let refused = Outbound::PubAck { packet_id: 7, reason: 0x87, detail: Detail::Reason("no\0".into()) };
        assert_eq!(
            encoded(refused, Version::V5),
            "\x40\x0c\0\x07\u{87}\x08\x1f\0\x05no\u{fffd}".chars().fold(Vec::new(), |mut bytes, c| {
                match c {
                    '\u{87}' => bytes.push(0x87),
                    c => bytes.extend_from_slice(c.to_string().as_bytes()),
                }
                bytes
            })
        );
        let entry = |packet_id, again| Outbound::Publish {
            packet_id,
            again,
            topic: "t".into(),
            payload: Bytes::from_static(b"{}"),
        };
        assert_eq!(encoded(entry(5, true), Version::V3), b"\x3a\x07\0\x01t\0\x05{}");
        assert_eq!(encoded(entry(5, false), Version::V5), b"\x32\x08\0\x01t\0\x05\0{}");
        assert_eq!(encoded(entry(0, true), Version::V5), b"\x30\x06\0\x01t\0{}");
        let suback = |codes: &[u8]| Outbound::SubAck { packet_id: 1, codes: codes.to_vec() };
        assert_eq!(encoded(suback(&[0, 1, 0x87]), Version::V3), b"\x90\x05\0\x01\x00\x01\x80");
        assert_eq!(encoded(suback(&[1, 0x9e]), Version::V5), b"\x90\x05\0\x01\0\x01\x9e");
        let unsuback = Outbound::UnsubAck { packet_id: 1, codes: vec![0, 0x11] };
        assert_eq!(encoded(unsuback.clone(), Version::V3), b"\xb0\x02\0\x01");
        assert_eq!(encoded(unsuback, Version::V5), b"\xb0\x05\0\x01\0\0\x11");
        assert_eq!(encoded(Outbound::Disconnect { reason: 0x8e }, Version::V5), b"\xe0\x02\x8e\0");
        assert_eq!(encoded(Outbound::Disconnect { reason: 0x8e }, Version::V3), b"");
        assert_eq!(encoded(Outbound::PubComp { packet_id: 9, reason: 0x92 }, Version::V5), b"\x70\x04\0\x09\x92\0");
        assert_eq!(encoded(Outbound::PingResp, Version::V5), b"\xd0\0");
    }

    #[test]
    fn what_a_client_cannot_take_is_cut_or_left_out() {
        let mut out = BytesMut::from(&b"before"[..]);
        let ack = Outbound::PubAck { packet_id: 7, reason: 0x87, detail: Detail::Reason("a long story".into()) };
        assert!(ack.clone().encode(Version::V5, 6, &mut out));
        assert_eq!(&out[..], b"before\x40\x04\0\x07\x87\0");
        assert!(!ack.encode(Version::V5, 5, &mut out));
        assert_eq!(out.len(), 12);
    }

    #[test]
    fn publishes_lose_their_properties_and_nothing_else() {
        let raw = b"\x32\x0f\0\x01t\0\x07\x05\x02\0\0\0\0hey";
        let raw = [&raw[..1], &[u8::try_from(raw.len() - 2).unwrap()], &raw[2..]].concat();
        assert_eq!(
            decode(Version::V5, &raw),
            Ok(Inbound::Publish(Publish {
                packet: link::Packet { id: 7, qos: 1 },
                topic: "t".into(),
                payload: Bytes::from_static(b"hey"),
            }))
        );
    }

    #[test]
    fn an_empty_client_id_is_legal_without_clean_start_on_5() {
        let Ok(Connect::V5(connect)) = decode_connect(b"\x10\x0d\0\x04MQTT\x05\0\0\x3c\0\0\0") else { panic!() };
        assert!(connect.client_id.is_empty());
        let Ok(Connect::V5(connect)) = decode_connect(b"\x10\x0e\0\x04MQTT\x05\0\0\x3c\0\0\x01a") else { panic!() };
        assert!(!connect.clean_start);
    }

    #[test]
    fn what_is_valid_is_read_by_the_codec_too() {
        // SUBSCRIBE with all options, UNSUBSCRIBE, PUBACK and DISCONNECT with properties.
        for raw in [
            &b"\x82\x07\0\x01\0\0\x01a\x2d"[..],
            b"\xa2\x06\0\x01\0\0\x01a",
            b"\x40\x08\0\x01\x80\x04\x1f\0\x01r",
            b"\x62\x03\0\x01\x92",
            b"\xe0\x07\0\x05\x11\0\0\0\x09",
            b"\xe0\x01\x99",
            b"\xc0\0",
        ] {
            assert!(decode(Version::V5, raw).is_ok(), "{raw:x?}");
        }
    }
}
