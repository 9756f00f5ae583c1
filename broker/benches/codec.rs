//! MQTT packets of a client: bytes checked and decoded. Needs the feature `fuzzing`, by which the codec is seen from outside.
#![allow(missing_docs, reason = "the macros of criterion make public functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use natter_broker::fuzzing::decode;

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    // Below 128 and 16,384.
    let mut out = vec![first];
    match u8::try_from(body.len()) {
        Ok(length @ ..=127) => out.push(length),
        _ => out.extend([(body.len() % 128) as u8 | 0x80, (body.len() / 128) as u8]),
    }
    out.extend_from_slice(body);
    out
}

fn publish(text_bytes: usize) -> Vec<u8> {
    let topic = b"users/4915112345678/phone/outbox";
    let mut body = vec![0, topic.len() as u8];
    body.extend_from_slice(topic);
    body.extend_from_slice(&[0, 7, 0]);
    body.extend(std::iter::repeat_n(b'x', text_bytes));
    packet(0x32, &body)
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    for (name, bytes) in
        [("PUBLISH 200 B", publish(200)), ("PUBLISH 4096 B", publish(4096)), ("PUBACK", packet(0x40, &[0, 7]))]
    {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| b.iter(|| decode(true, black_box(&bytes))));
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
