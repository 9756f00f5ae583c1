//! What crosses the wire and the link: a message read, a frame written and read, the sum over a message's fields among it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "the macros of criterion make public functions; a bench ends where its world does not hold"
)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use natter_protocol::link::{Down, Packet, Publication, Up};
use natter_protocol::{ConnectionId, DeviceId, outbox};

const CONNECTION: ConnectionId = ConnectionId { boot: 1, n: 7 };

fn payload(text_bytes: usize) -> Vec<u8> {
    let text = "x".repeat(text_bytes);
    format!(r#"{{"id":"0191e4a0-7a3b-7000","to":"4915112345678","type":"text","text":{{"body":"{text}"}}}}"#)
        .into_bytes()
}

fn wire(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire");
    for text_bytes in [100, 4096] {
        let payload = payload(text_bytes);
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function(format!("outbox::parse {text_bytes} B"), |b| {
            b.iter(|| outbox::parse(black_box(&payload)).is_ok());
        });
        let publish = Up::Publish(Publication {
            connection: CONNECTION,
            packet: Packet { id: 1, qos: 1 },
            device: DeviceId::parse("phone").unwrap(),
            stamp: 1,
            will: false,
            payload: payload.clone().into(),
        });
        let frame = publish.encode();
        group.bench_function(format!("Up::Publish encode {text_bytes} B"), |b| b.iter(|| black_box(&publish).encode()));
        group.bench_function(format!("Up::Publish decode {text_bytes} B"), |b| {
            b.iter(|| Up::decode(black_box(frame.clone())))
        });
        let entry = Down::Entry { connection: CONNECTION, seq: 9, again: false, payload: payload.into() };
        let frame = entry.encode();
        group.bench_function(format!("Down::Entry encode {text_bytes} B"), |b| b.iter(|| black_box(&entry).encode()));
        group.bench_function(format!("Down::Entry decode {text_bytes} B"), |b| {
            b.iter(|| Down::decode(black_box(frame.clone())))
        });
    }
    group.finish();
}

criterion_group!(benches, wire);
criterion_main!(benches);
