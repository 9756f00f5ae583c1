//! A connection: eight bytes say in which pieces the rest comes and how fast the bridge answers. Nobody gets an answer to what he did not
//! send, and every frame that goes up reads back as what it was.

#![no_main]

#[path = "../../broker/tests/fuzz/bytes.rs"]
mod bytes;

use std::collections::VecDeque;

use libfuzzer_sys::fuzz_target;
use natter_broker::fuzzing::{Bridge, CONNECTION, drive};
use natter_protocol::ids::{DeviceId, MessageId};
use natter_protocol::link::{Answer, Down, FRAME_BYTES_MAX, Mode, Up};

/// Says yes to everything, after as many calls as `delays` say.
struct Yes<'a> {
    frames: VecDeque<Down>,
    delays: std::iter::Cycle<std::slice::Iter<'a, u8>>,
    seq: u64,
}

impl Yes<'_> {
    fn entry(&mut self) {
        self.seq += 1;
        let payload = format!(r#"{{"seq":{}}}"#, self.seq).into();
        self.frames.push_back(Down::Entry { connection: CONNECTION, seq: self.seq, again: false, payload });
    }
}

impl Bridge for Yes<'_> {
    fn take(&mut self, frame: Up) {
        let bytes = frame.encode();
        assert!(bytes.len() <= FRAME_BYTES_MAX, "{} bytes: {frame:?}", bytes.len());
        assert_eq!(Up::decode(bytes).as_ref(), Ok(&frame));
        let connection = CONNECTION;
        match frame {
            Up::Open(_, opening) => {
                let present = !opening.clean_start;
                let device = DeviceId::parse("phone").ok().filter(|_| present);
                let held = if present { vec![3] } else { Vec::new() };
                self.frames.push_back(Down::Opened { connection, session_present: present, device, held });
            }
            Up::Publish(publication) if !publication.will => {
                let packet = publication.packet;
                let id = MessageId::parse(&format!("re:c{}-{}.", connection.n, packet.id)).expect("a good id");
                let answer = Answer::Message { id, n: 1, timestamp: 1_764_000_000 };
                self.frames.push_back(Down::Answer { connection, packet, answer });
            }
            Up::Refused { packet, kind, details, .. } => {
                let answer = Answer::Refused { kind, details };
                self.frames.push_back(Down::Answer { connection, packet, answer });
            }
            Up::Release { packet_id, .. } => self.frames.push_back(Down::Complete { connection, packet_id }),
            Up::Attach { request, mode, .. } => {
                let reason = u8::from(mode == Mode::Device);
                self.frames.push_back(Down::Attached { connection, request, reason });
                self.entry();
                self.entry();
            }
            Up::Acked { .. } => self.entry(),
            Up::Publish(_) | Up::Close { .. } | Up::Detach { .. } | Up::Took(_) | Up::Ring => {}
        }
    }

    fn next(&mut self) -> Option<Down> {
        if self.delays.next().is_some_and(|delay| delay & 1 == 1) { None } else { self.frames.pop_front() }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((control, stream)) = data.split_first_chunk::<8>() else { return };
    let mut rest = stream;
    let mut sizes = control.iter().cycle();
    let chunks = std::iter::from_fn(|| {
        let size = sizes.next().map_or(1, |size| if *size >= 0xf0 { 16 * 1024 } else { usize::from(*size) + 1 });
        let (chunk, behind) = rest.split_at(size.min(rest.len()));
        rest = behind;
        (!chunk.is_empty()).then_some(chunk)
    });
    let mut bridge = Yes { frames: VecDeque::new(), delays: control.iter().cycle(), seq: 0 };
    let told = drive(chunks, &mut bridge);
    let mut number = None;
    if let Err(error) = bytes::check(stream, &told, &mut number) {
        panic!("{error}");
    }
    assert!(number.is_none_or(|number| number == CONNECTION.n));
});
