//! Numbers that repeat with their seed, and counts of what has happened.

/// splitmix64
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.next() % below
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// How often what this is about has happened.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) crashes: u64,
    pub(crate) drops: u64,
    pub(crate) failed_commits: u64,
    pub(crate) resent: u64,
    pub(crate) gaps: u64,
    pub(crate) unconfirmed: u64,
    pub(crate) refused: u64,
    pub(crate) repeats: u64,
    pub(crate) full: u64,
    pub(crate) ghosts: u64,
    pub(crate) begun_anew: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Self) {
        let Self {
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
        } = other;
        self.crashes += crashes;
        self.drops += drops;
        self.failed_commits += failed_commits;
        self.resent += resent;
        self.gaps += gaps;
        self.unconfirmed += unconfirmed;
        self.refused += refused;
        self.repeats += repeats;
        self.full += full;
        self.ghosts += ghosts;
        self.begun_anew += begun_anew;
    }
}
