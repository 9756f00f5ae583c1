//! The mirror test: random lives of a server, with crashes, held against a model of what users may observe.
//!
//! - `model/ops.rs` what can happen · `model/play.rs` tells it to the server and to the mirror
//! - `model/server.rs` the server: the rules over a store, without sockets
//! - `model/mirror.rs` `model/facts.rs` what must come of it · `model/said.rs` whether it did
//!
//! A plain run always tells the same lives. `PROPTEST_CASES=4000` tells that many, and new ones. One that fails is made as short as it
//! can be, and printed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its world does not hold")]

#[path = "model/facts.rs"]
mod facts;
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

use ops::{Act, End, Id, Op, Step, UpTo, Which, last_step, step};
use play::Player;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use server::{Directory, Rig, Twins};

/// `part` of the cases that `PROPTEST_CASES` asks for, or `usual`.
fn cases(usual: u32, part: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse::<u32>().ok());
    ProptestConfig {
        cases: asked.map_or(usual, |cases| (cases / part).max(1)),
        failure_persistence: None,
        rng_seed: if asked.is_some() { RngSeed::Random } else { RngSeed::Fixed(51) },
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
    fn a_life_in_memory(steps in life(step(false), 60)) {
        Player::new(Rig::memory()).play(&steps);
    }

    #[test]
    fn a_life_of_months(steps in life(step(true), 60)) {
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
    fn memory_and_sqlite_say_the_same(steps in life(step(false), 60)) {
        let dir = Directory::new();
        Player::new(Twins(Rig::memory(), Rig::sqlite(&dir))).play(&steps);
    }
}

fn single(user: usize, client: usize, act: Act) -> Step {
    Step { ops: vec![Op { user, client, act }], end: End::Said, settle: 0 }
}

fn text(long: bool) -> Act {
    Act::Text { to: 1, id: Id::New, qos: 1, long }
}

fn connect(small: bool) -> Act {
    Act::Connect { clean: true, expiry_secs: 0, bare: false, receive_maximum: 100, small }
}

// What the mirror found, as shortest lives: an acknowledgement by position said `delivered` of a stub, and of what was turned down; and
// a gap that expired took along what it told of.

#[test]
fn an_ack_by_position_of_a_stub_makes_no_tick() {
    let life = [single(1, 0, connect(true)), single(0, 0, text(true)), single(1, 0, Act::AckUpTo(UpTo::Oldest))];
    Player::new(Rig::memory()).play(&life);
}

#[test]
fn an_ack_by_position_of_what_was_turned_down_makes_no_tick() {
    // What is in flight: two texts; the second is turned down while the first is still out.
    let life = [
        single(1, 0, connect(false)),
        single(0, 0, text(false)),
        single(0, 0, text(false)),
        single(1, 0, Act::TurnDown(Which::Newest)),
        single(1, 0, Act::AckUpTo(UpTo::Newest)),
    ];
    Player::new(Rig::memory()).play(&life);
}

#[test]
fn a_gap_that_expires_is_told_again() {
    let away = |act| Step { settle: 9, ..single(0, 0, act) };
    let month = || [away(Act::Wait(ops::LONG_SECS)), away(Act::Sweep)];
    // Bob's phone goes, his tablet takes the text.
    let begin = [
        single(1, 0, connect(false)),
        single(1, 0, Act::Close { expiry_secs: None }),
        single(1, 1, connect(false)),
        away(text(false)),
        Step { settle: 9, ..single(1, 1, Act::Acknowledge(Which::All)) },
    ];
    let life: Vec<_> = begin.into_iter().chain(month()).chain(month()).collect();
    Player::new(Rig::memory()).play(&life);
}
