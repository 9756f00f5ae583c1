//! Hostile bytes at the door: raw ones, packets in any order with bytes changed, two connections at once. Whatever comes, nothing panics,
//! every connection ends or is answered in time, nobody gets an answer to what he did not send, and a bystander notices nothing.
//!
//! - `fuzz/script.rs` what a connection writes · `fuzz/bytes.rs` what was asked and what was answered, read without the door's code
//! - `fuzz/world.rs` the door, a bridge that answers everything, and the bystander
//!
//! A plain run always plays the same. `PROPTEST_CASES=4000` plays that many, and new ones. The endless version is `fuzz/`.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "fuzz/bytes.rs"]
mod bytes;
mod common;
#[path = "fuzz/script.rs"]
mod script;
#[path = "fuzz/world.rs"]
mod world;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use script::{Leave, Script, packets, raw, turns};
use world::World;

/// What the process may hold more after all cases than after the first ones.
const GROWTH_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Plays cases of `strategy` in one world.
fn play(usual: u32, strategy: impl Strategy<Value = (Vec<Script>, Vec<(usize, usize)>)>) {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse::<u32>().ok());
    let config = ProptestConfig {
        cases: asked.unwrap_or(usual),
        failure_persistence: None,
        rng_seed: if asked.is_some() { RngSeed::Random } else { RngSeed::Fixed(51) },
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let world = runtime.block_on(World::new());
    let world = std::cell::RefCell::new(world);
    let before = std::cell::Cell::new((0_u32, 0_u64));
    let result = TestRunner::new(config).run(&strategy, |(scripts, turns)| {
        let (played, held) = before.get();
        before.set((played + 1, if played == 20 { world::resident_bytes() } else { held }));
        runtime.block_on(world.borrow_mut().play(&scripts, &turns)).map_err(TestCaseError::fail)
    });
    // The bridge waits for frames in a thread.
    runtime.shutdown_background();
    if let Err(error) = result {
        panic!("{error}");
    }
    let (played, held) = before.get();
    let growth = world::resident_bytes().saturating_sub(held);
    assert!(played > 20 && growth < GROWTH_BYTES_MAX, "{growth} bytes more after {played} cases");
}

#[test]
fn raw_bytes_hurt_nobody() {
    play(1500, (raw(), turns(1)).prop_map(|(script, turns)| (vec![script], turns)));
}

#[test]
fn packets_in_any_order_with_bytes_changed_hurt_nobody() {
    play(1500, (packets(), turns(1)).prop_map(|(script, turns)| (vec![script], turns)));
}

#[test]
fn two_connections_at_once_get_their_own_answers() {
    play(
        300,
        (vec(packets(), 2), any::<bool>(), turns(2)).prop_map(|(mut scripts, same, turns)| {
            scripts[1].client = if same { scripts[0].client } else { 1 - scripts[0].client };
            (scripts, turns)
        }),
    );
}

#[test]
fn half_a_packet_ends_a_connection_whatever_came_before() {
    play(40, (packets(), turns(1)).prop_map(|(script, turns)| (vec![Script { leave: Leave::Stay, ..script }], turns)));
}
