//! Frames read back as they were written, and what is none is an error.

use super::*;

fn connection() -> ConnectionId {
    ConnectionId { boot: 7, n: 1 << 40 }
}

fn device() -> DeviceId {
    DeviceId::parse("phone").expect("a device")
}

#[test]
fn every_frame_up_reads_back() {
    let connection = connection();
    let packet = Packet { id: 17, qos: 1 };
    for frame in [
        Up::Open(
            connection,
            Opening {
                client_id: "alice-phone é".into(),
                clean_start: true,
                expiry_secs: 5,
                dialect: Dialect::Full,
                receive_maximum: 20,
                packet_bytes_max: 1 << 20,
                device: None,
                issued_at: 0,
            },
        ),
        Up::Close { connection, expiry_secs: Some(9), by_server: true },
        Up::Close { connection, expiry_secs: None, by_server: false },
        Up::Publish(Publication {
            connection,
            packet,
            device: device(),
            stamp: 1 << 100,
            will: false,
            payload: Bytes::from_static(b"{}"),
        }),
        Up::Refused { connection, packet, kind: Kind::NotAllowed, details: "no".into() },
        Up::Release { connection, packet_id: 3 },
        Up::Attach { connection, request: 4, device: device(), mode: Mode::Viewer },
        Up::Detach { connection },
        Up::Acked { connection, seq: 1 << 33, taken: false },
        Up::Took(Credit { frames: 1, bytes: 2 }),
        Up::Ring,
    ] {
        assert_eq!(Up::decode(frame.encode()), Ok(frame));
    }
}

#[test]
fn every_frame_down_reads_back() {
    let connection = connection();
    let packet = Packet { id: 17, qos: 2 };
    let id = MessageId::parse("m1").expect("an id");
    for frame in [
        Down::Opened { connection, session_present: true, device: Some(device()), held: vec![1, 65535] },
        Down::Answer { connection, packet, answer: Answer::Message { id, n: 3, timestamp: 1_764_000_000 } },
        Down::Answer { connection, packet, answer: Answer::Done },
        Down::Answer { connection, packet, answer: Answer::Refused { kind: Kind::Quota, details: "full".into() } },
        Down::Complete { connection, packet_id: 3 },
        Down::Attached { connection, request: 4, reason: 0x97 },
        Down::Entry { connection, seq: 9, again: true, payload: Bytes::from_static(b"{}") },
        Down::Live { connection, payload: Bytes::from_static(b"{}") },
        Down::Close { connection, reason: 0x8e },
        Down::Took(Credit { frames: 1, bytes: 2 }),
        Down::Committed(1_764_000_000_000_000),
    ] {
        assert_eq!(Down::decode(frame.encode()), Ok(frame));
    }
}

#[test]
fn a_cut_frame_is_an_error_not_a_panic() {
    let whole = Down::Opened { connection: connection(), session_present: true, device: Some(device()), held: vec![1] }
        .encode();
    for cut in 0..whole.len() - 2 {
        assert!(Down::decode(whole.slice(..cut)).is_err(), "cut at {cut}");
    }
    assert!(Up::decode(Bytes::from_static(&[99; 20])).is_err());
}
