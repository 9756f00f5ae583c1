//! What a connection may do, without a socket and without a bridge.

use natter_protocol::accounts::Grant;
use natter_protocol::ids::MessageId;
use natter_protocol::link::{Answer, Opening};

use super::*;
use crate::packet::Detail;

const ID: ConnectionId = ConnectionId { boot: 1, n: 7 };

fn device() -> DeviceId {
    DeviceId::parse("phone").unwrap()
}

fn accepted(version: Version, expiry_secs: u32) -> Accepted {
    Accepted {
        version,
        grant: Grant {
            user: UserId::parse("alice").unwrap(),
            device: None,
            expires_at: 0,
            jti: "j".into(),
            issued_at: 0,
        },
        opening: Opening {
            client_id: "c".into(),
            clean_start: expiry_secs == 0,
            expiry_secs,
            dialect: if version == Version::V5 { Dialect::Full } else { Dialect::Bare },
            receive_maximum: 10,
            packet_bytes_max: u32::MAX,
            device: None,
            issued_at: 0,
        },
        will: Some(Will { device: device(), payload: Bytes::from_static(b"{}"), delay_secs: 0 }),
        expiry_secs_max: 100,
        keep_alive: Duration::from_secs(10),
        welcome: Welcome { receive_maximum: 4, ..Welcome::default() },
    }
}

struct Bench {
    session: Session,
    now: Instant,
}

impl Bench {
    /// A session whose CONNACK may still be waiting for the bridge.
    fn raw(version: Version, expiry_secs: u32, lives: Option<Duration>) -> Self {
        let now = crate::testing::start();
        let expires_at = lives.map(|lives| now + lives);
        Self { session: Session::new(ID, accepted(version, expiry_secs), expires_at, || 5, now), now }
    }

    /// An open one, with nothing left to send.
    fn new(version: Version) -> Self {
        let mut bench = Self::raw(version, 0, None);
        assert!(matches!(bench.out()[..], [Outbound::ConnAck(_)]));
        assert!(matches!(bench.up()[..], [Up::Open(..)]));
        bench
    }

    fn out(&mut self) -> Vec<Outbound> {
        std::iter::from_fn(|| self.session.poll_transmit()).collect()
    }

    fn up(&mut self) -> Vec<Up> {
        std::iter::from_fn(|| self.session.poll_up()).collect()
    }

    fn packet(&mut self, packet: Inbound) {
        self.session.handle_packet(packet, self.now);
    }

    fn publish_to(&mut self, topic: &str, id: u16, qos: u8) {
        let packet = Packet { id, qos };
        self.packet(Inbound::Publish(Publish { packet, topic: topic.into(), payload: Bytes::from_static(b"{}") }));
    }

    fn publish(&mut self, id: u16, qos: u8) {
        self.publish_to("users/alice/phone/outbox", id, qos);
    }

    fn answer(&mut self, id: u16, qos: u8, answer: Answer) {
        self.session.handle_down(Down::Answer { connection: ID, packet: Packet { id, qos }, answer });
    }

    fn subscribe(&mut self, packet_id: u16, filters: &[(&str, u8)]) {
        let filters = filters.iter().map(|(filter, qos)| (ByteString::from(*filter), *qos)).collect();
        self.packet(Inbound::Subscribe { packet_id, filters });
    }

    fn attached(&mut self, request: u16, reason: u8) {
        self.session.handle_down(Down::Attached { connection: ID, request, reason });
    }

    fn entry(&mut self, seq: Seq, again: bool) {
        self.session.handle_down(Down::Entry { connection: ID, seq, again, payload: Bytes::from_static(b"{}") });
    }

    fn pass(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
        self.session.handle_timeout(self.now);
    }
}

fn puback(packet_id: u16) -> Outbound {
    Outbound::PubAck { packet_id, reason: 0, detail: Detail::Nothing }
}

fn pubrec(packet_id: u16) -> Outbound {
    Outbound::PubRec { packet_id, reason: 0, detail: Detail::Nothing }
}

#[test]
fn pubacks_come_from_answers_and_in_order() {
    let mut bench = Bench::new(Version::V5);
    bench.publish(1, 1);
    bench.publish(2, 1);
    assert_eq!(bench.up().len(), 2);
    assert_eq!(bench.out(), []);
    bench.answer(2, 1, Answer::Done);
    bench.answer(9, 1, Answer::Done);
    assert_eq!(bench.out(), [], "the first is not answered");
    let id = MessageId::parse("m1").unwrap();
    bench.answer(1, 1, Answer::Message { id, n: 3, timestamp: 4 });
    let detail = Detail::Message { id: "m1".into(), n: 3, timestamp: 4 };
    assert_eq!(bench.out(), [Outbound::PubAck { packet_id: 1, reason: 0, detail }, puback(2)]);
    bench.answer(1, 1, Answer::Done);
    assert_eq!(bench.out(), [], "an answer counts once");
}

#[test]
fn refused_publishes_go_up_and_keep_their_place() {
    let mut bench = Bench::new(Version::V5);
    bench.publish(1, 1);
    bench.publish_to("users/bob/phone/outbox", 2, 1);
    bench.publish_to("elsewhere", 0, 0);
    let up = bench.up();
    assert!(matches!(&up[..], [Up::Publish(_), Up::Refused { kind: Kind::NotAllowed, .. }]), "{up:?}");
    bench.answer(2, 1, Answer::Refused { kind: Kind::NotAllowed, details: "no".into() });
    assert_eq!(bench.out(), []);
    bench.answer(1, 1, Answer::Done);
    let refused = Outbound::PubAck { packet_id: 2, reason: 0x87, detail: Detail::Reason("no".into()) };
    assert_eq!(bench.out(), [puback(1), refused]);
}

#[test]
fn the_tenth_denial_closes_a_3_1_1_connection_only() {
    for (version, closes) in [(Version::V3, true), (Version::V5, false)] {
        let mut bench = Bench::new(version);
        for n in 1..=10 {
            assert!(bench.session.end().is_none(), "{n}");
            bench.publish_to("elsewhere", 0, 0);
        }
        assert_eq!(bench.session.end().is_some(), closes);
    }
}

#[test]
fn a_qos_2_publish_goes_up_once_until_its_pubrel() {
    let mut bench = Bench::new(Version::V5);
    bench.publish(1, 2);
    bench.publish(1, 2);
    assert_eq!((bench.up().len(), bench.out().len()), (1, 0));
    bench.answer(1, 2, Answer::Done);
    assert_eq!(bench.out(), [pubrec(1)]);
    bench.publish(1, 2);
    assert_eq!((bench.up().len(), bench.out()), (0, vec![pubrec(1)]));
    bench.packet(Inbound::PubRel { packet_id: 1 });
    assert_eq!(bench.up(), [Up::Release { connection: ID, packet_id: 1 }]);
    assert_eq!(bench.out(), []);
    bench.session.handle_down(Down::Complete { connection: ID, packet_id: 1 });
    assert_eq!(bench.out(), [Outbound::PubComp { packet_id: 1, reason: 0 }]);
    bench.publish(1, 2);
    assert_eq!(bench.up().len(), 1, "after PUBCOMP it is a new one");
    bench.answer(1, 2, Answer::Refused { kind: Kind::NotAllowed, details: String::new() });
    assert!(matches!(bench.out()[..], [Outbound::PubRec { reason: 0x87, .. }]));
    bench.publish(1, 2);
    assert_eq!(bench.up().len(), 1, "an error ends the exchange");
    bench.packet(Inbound::PubRel { packet_id: 9 });
    assert_eq!(bench.out(), [Outbound::PubComp { packet_id: 9, reason: 0x92 }]);
}

#[test]
fn a_stored_session_resumes_its_inbox_and_its_qos_2_ids() {
    let mut bench = Bench::raw(Version::V5, 60, None);
    assert!(!bench.session.may_read() && bench.out().is_empty());
    bench.session.handle_down(Down::Opened {
        connection: ID,
        session_present: true,
        device: Some(device()),
        held: vec![3],
    });
    assert!(matches!(&bench.out()[..], [Outbound::ConnAck(welcome)] if welcome.session_present));
    bench.up();
    bench.publish(3, 2);
    assert_eq!((bench.up().len(), bench.out()), (0, vec![pubrec(3)]));
    bench.subscribe(4, &[("users/alice/phone/inbox", 1)]);
    assert_eq!((bench.up().len(), bench.out()), (0, vec![Outbound::SubAck { packet_id: 4, codes: vec![1] }]));
    bench.entry(1, true);
    assert!(matches!(bench.out()[..], [Outbound::Publish { packet_id: 2, again: true, .. }]));
}

#[test]
fn subscribes_keep_the_order_of_their_codes() {
    let mut bench = Bench::new(Version::V5);
    let filters = [("#", 1), ("users/alice/phone/inbox", 2), ("users/alice/tablet/inbox", 1), ("$share/g/a", 1)];
    bench.subscribe(1, &filters);
    let attach = Up::Attach { connection: ID, request: 1, device: device(), mode: Mode::Device };
    assert_eq!(bench.up(), [attach]);
    assert!(!bench.session.may_read() && bench.out().is_empty());
    bench.attached(2, 1);
    assert_eq!(bench.out(), [], "the answer to another");
    bench.attached(1, 1);
    assert_eq!(bench.out(), [Outbound::SubAck { packet_id: 1, codes: vec![0x87, 1, 0x97, 0x87] }]);
    for filter in ["users/bob/phone/inbox", "users/+/phone/inbox", "+", "users/alice/phone/outbox"] {
        bench.subscribe(2, &[(filter, 1)]);
        assert_eq!(bench.out(), [Outbound::SubAck { packet_id: 2, codes: vec![0x87] }], "{filter}");
    }
    bench.subscribe(3, &[("users/alice/phone/inbox", 1)]);
    assert_eq!((bench.up().len(), bench.out().len()), (0, 1), "it is read already");
    bench.subscribe(4, &[("users/alice/phone/inbox", 0)]);
    assert!(matches!(bench.up()[..], [Up::Attach { mode: Mode::Viewer, .. }]));
}

#[test]
fn every_unsubscribe_is_answered_once() {
    let mut bench = Bench::new(Version::V5);
    bench.packet(Inbound::Unsubscribe { packet_id: 1, filters: vec!["a".into(), "b".into()] });
    assert_eq!(bench.out(), [Outbound::UnsubAck { packet_id: 1, codes: vec![0x11, 0x11] }]);
    bench.subscribe(2, &[("users/alice/phone/inbox", 1)]);
    bench.attached(2, 1);
    bench.out();
    bench.up();
    bench.packet(Inbound::Unsubscribe { packet_id: 3, filters: vec!["users/alice/phone/inbox".into()] });
    assert_eq!(bench.up(), [Up::Detach { connection: ID }]);
    assert_eq!(bench.out(), [Outbound::UnsubAck { packet_id: 3, codes: vec![0] }]);
    bench.entry(1, false);
    assert_eq!(bench.out(), [], "left over from before");
}

#[test]
fn the_receive_maximum_ends_mqtt_5_and_stops_reading_from_3_1_1() {
    for version in [Version::V3, Version::V5] {
        let mut bench = Bench::new(version);
        for id in 1..=4 {
            bench.publish(id, 1);
        }
        assert_eq!(bench.session.may_read(), version == Version::V5);
        if version == Version::V5 {
            bench.publish(5, 1);
            assert_eq!(bench.out(), [Outbound::Disconnect { reason: 0x93 }]);
        } else {
            bench.answer(1, 1, Answer::Done);
            assert!(bench.session.may_read());
        }
    }
}

#[test]
fn pubacks_of_a_receiver_name_the_entry() {
    let mut bench = Bench::new(Version::V5);
    bench.subscribe(1, &[("users/alice/phone/inbox", 1)]);
    bench.attached(1, 1);
    bench.entry(65_536, false);
    bench.entry(65_537, false);
    bench.up();
    let ack = || Inbound::PubAck { packet_id: entry::packet_id(65_536), is_taken: true };
    assert!(bench.session.awaits(&ack()) && !bench.session.awaits(&Inbound::PingReq));
    bench.packet(ack());
    assert!(!bench.session.awaits(&ack()), "nobody waits for it a second time");
    bench.packet(Inbound::PubAck { packet_id: entry::packet_id(65_537), is_taken: false });
    bench.packet(Inbound::PubAck { packet_id: entry::packet_id(65_537), is_taken: true });
    let acked = |seq, taken| Up::Acked { connection: ID, seq, taken };
    assert_eq!(bench.up(), [acked(65_536, true), acked(65_537, false)]);
}

#[test]
fn silence_counts_while_the_socket_is_read_and_tokens_end() {
    let mut bench = Bench::new(Version::V5);
    bench.pass(14);
    bench.session.set_reading(false, bench.now);
    bench.pass(100);
    assert!(bench.session.end().is_none());
    bench.session.set_reading(true, bench.now);
    assert_eq!(bench.session.poll_timeout(), Some(bench.now + Duration::from_secs(1)));
    bench.pass(1);
    assert_eq!(bench.out(), [Outbound::Disconnect { reason: 0x8d }]);
    let mut bench = Bench::raw(Version::V5, 0, Some(Duration::from_secs(3)));
    bench.out();
    bench.pass(3);
    assert_eq!(bench.out(), [Outbound::Disconnect { reason: 0x87 }]);
}

#[test]
fn disconnect_decides_about_the_will_and_the_expiry() {
    for (reason, has_will) in [(0, false), (4, true)] {
        let mut bench = Bench::new(Version::V5);
        bench.packet(Inbound::Disconnect { reason, expiry_secs: None });
        let legacy = bench.session.finish();
        assert_eq!(legacy.will.is_some(), has_will);
        assert_eq!(legacy.close, Up::Close { connection: ID, expiry_secs: None, by_server: false });
        assert_eq!(bench.out(), []);
    }
    let mut bench = Bench::new(Version::V5);
    bench.packet(Inbound::Disconnect { reason: 0, expiry_secs: Some(9) });
    assert_eq!(bench.out(), [Outbound::Disconnect { reason: 0x82 }]);
    assert!(bench.session.finish().will.is_some());
}

#[test]
fn an_end_before_connack_is_told_by_connack() {
    for (version, code) in [(Version::V3, 3), (Version::V5, 0x88)] {
        let mut bench = Bench::raw(version, 60, None);
        bench.session.close(End::TAKEN_OVER);
        bench.session.close(End::REVOKED);
        assert_eq!(bench.out(), [Outbound::ConnRefused(code)]);
    }
    let mut bench = Bench::new(Version::V5);
    bench.session.close(End::TAKEN_OVER);
    assert_eq!(bench.out(), [Outbound::Disconnect { reason: 0x8e }]);
    assert_eq!(bench.session.finish().close, Up::Close { connection: ID, expiry_secs: None, by_server: true });
}
