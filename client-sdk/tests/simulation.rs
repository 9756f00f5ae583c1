//! The core of the client in a bad world: connections that end anywhere and lose what was under way, a server that answers late, not at all or
//! with a refusal, a process that dies between any two steps, commits that fail or whose end is not known, clocks that jump.
//!
//! `NATTER_SIM_SEEDS` worlds (300), from `NATTER_SIM_FIRST` (0) on. A world that fails names its seed.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test ends that way")]

mod world;

use world::World;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_is_lost_doubled_or_reordered() {
    let first = number("NATTER_SIM_FIRST", 0);
    let mut total = world::Seen::default();
    let seeds = number("NATTER_SIM_SEEDS", 300);
    for seed in first..first + seeds {
        total.add(&World::new(seed).run());
    }
    println!("{seeds} worlds: {total:?}");
    if seeds >= 300 {
        // A simulation in which these do not happen shows nothing.
        let world::Seen {
            crashes,
            drops,
            failed_commits,
            resent,
            gaps,
            unconfirmed,
            refused,
            repeats,
            full,
            ghosts,
            begun_anew,
        } = total;
        for (what, count) in [
            ("crashes", crashes),
            ("dropped connections", drops),
            ("failed commits", failed_commits),
            ("messages sent again", resent),
            ("gaps", gaps),
            ("messages reported after 25 days", unconfirmed),
            ("refusals", refused),
            ("entries sent again", repeats),
            ("full inboxes", full),
            ("takeovers by late attempts", ghosts),
            ("servers that began anew", begun_anew),
        ] {
            assert!(count >= 10, "{what}: {count}");
        }
    }
}
