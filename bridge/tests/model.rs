//! The mirror test: random lives of a server, with crashes, held against a model of what users may observe.
//!
//! - `model/ops.rs` what can happen · `model/play.rs` tells it to the server and to the mirror
//! - `model/server.rs` the server: the rules over a store, without sockets
//! - `model/mirror.rs` what must come of it · `model/said.rs` whether it did
//!
//! `PROPTEST_CASES` says how many lives; one that fails is made as short as it can be, and printed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its world does not hold")]

#[path = "model/mirror.rs"]
mod mirror;
#[path = "model/ops.rs"]
mod ops;
#[path = "model/play.rs"]
mod play;
#[path = "model/said.rs"]
mod said;
#[path = "model/server.rs"]
mod server;

use ops::{Step, last_step, step};
use play::Player;
use proptest::collection::vec;
use proptest::prelude::*;
use server::{Directory, Rig, Twins};

/// `part` of the cases that `PROPTEST_CASES` asks for, or `usual`.
fn cases(usual: u32, part: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse::<u32>().ok());
    ProptestConfig {
        cases: asked.map_or(usual, |cases| (cases / part).max(1)),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

fn life(step: impl Strategy<Value = Step>, steps: usize) -> impl Strategy<Value = Vec<Step>> {
    vec(step, 1..steps)
}

proptest! {
    #![proptest_config(cases(300, 1))]

    #[test]
    fn a_life_in_memory(steps in life(step(), 60)) {
        Player::new(Rig::memory()).play(&steps);
    }

    #[test]
    fn a_life_with_a_crash_after_every_step(steps in life(last_step(), 60)) {
        Player::new(Rig::memory()).play(&steps);
    }
}

proptest! {
    #![proptest_config(cases(20, 20))]

    #[test]
    fn a_life_on_sqlite_with_a_crash_after_every_step(steps in life(last_step(), 40)) {
        let dir = Directory::new();
        Player::new(Rig::sqlite(&dir)).play(&steps);
    }

    #[test]
    fn memory_and_sqlite_say_the_same(steps in life(step(), 60)) {
        let dir = Directory::new();
        Player::new(Twins(Rig::memory(), Rig::sqlite(&dir))).play(&steps);
    }
}
