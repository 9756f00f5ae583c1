//! The engine, without a disk: a batch of messages to its last acknowledgement, and its way into the tables.
#![allow(missing_docs, reason = "the macros of criterion make public functions")]

mod work;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use work::{PAIRS, World};

/// Messages of a pair on their way: alone, and as in a closed loop.
const IN_FLIGHT: [usize; 2] = [1, 16];

fn rounds(c: &mut Criterion) {
    let mut group = c.benchmark_group("engine");
    for each in IN_FLIGHT {
        group.throughput(Throughput::Elements((PAIRS * each) as u64));
        let mut world = World::new();
        let mut count = 0;
        group.bench_function(format!("round of {PAIRS} x {each}"), |b| {
            b.iter(|| {
                world.round(each);
                count += 1;
                // As in the server, the journal does not grow for ever.
                if count % 64 == 0 {
                    world.settle();
                }
            });
        });
    }
    group.throughput(Throughput::Elements((PAIRS * 16) as u64));
    group.bench_function(format!("settle {PAIRS} x 16"), |b| {
        let ready = || {
            let mut world = World::new();
            world.settle();
            world.round(16);
            world
        };
        b.iter_batched(ready, |mut world| world.settle(), BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, rounds);
criterion_main!(benches);
