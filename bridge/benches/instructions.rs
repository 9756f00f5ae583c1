//! A fixed piece of work for `scripts/instructions`, which counts its instructions: messages through the engine, and into the tables. What
//! is said on the command line is how many rounds; the difference of two numbers of them is what rounds cost, without the start.

mod work;

use work::World;

/// Messages of a pair in a round; rounds between two settlements.
const EACH: usize = 16;
const SETTLE_EVERY: usize = 4;

fn main() {
    // `cargo bench` adds words of its own.
    let rounds = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(1);
    let mut world = World::new();
    for round in 1..=rounds {
        world.round(EACH);
        if round % SETTLE_EVERY == 0 {
            world.settle();
        }
    }
}
