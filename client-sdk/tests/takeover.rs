//! Two programs with the name of one device do not fight for ever, and the newer one stays.

use natter_client::core::takeover::{GHOST_MS_MAX, TAKEOVERS_MAX, Takeovers};

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

/// The longest wait of the client, and the longest attempt.
const RETRY_MS_MAX: u64 = 45_000;

#[test]
fn of_two_programs_the_older_one_ends_and_soon() {
    for seed in 0..10_000 {
        let mut random = Random(seed);
        let mut programs = [Takeovers::default(), Takeovers::default()];
        // The older one has been there for a while when the newer one comes.
        let mut lived = random.below(2 * GHOST_MS_MAX);
        let mut reader = 0;
        let mut takeovers = 0;
        while programs[reader].ended(lived, true) {
            takeovers += 1;
            assert!(takeovers <= 2 * TAKEOVERS_MAX, "seed {seed}: they fight for ever");
            // The other one has it until this one is back.
            lived = random.below(RETRY_MS_MAX);
            reader = 1 - reader;
        }
        assert_eq!(reader, 0, "seed {seed}: the newer one ended");
    }
}

#[test]
fn a_client_whose_own_attempts_come_late_goes_on() {
    let mut takeovers = Takeovers::default();
    for _ in 0..100 {
        for _ in 0..TAKEOVERS_MAX {
            assert!(takeovers.ended(GHOST_MS_MAX, true));
            assert!(takeovers.ended(5, false), "other ends are none of its business");
        }
        assert!(takeovers.ended(GHOST_MS_MAX + 1, false));
    }
}
