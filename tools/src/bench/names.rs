//! Who takes part: names as phone numbers would lie, scattered over the store's key space, and not in the order in which they are made.

/// Odd, and no multiple of 5: every number below [`NAMES`] comes once.
const STEP: u64 = 61_803_398_877;
/// How many names there are.
const NAMES: u64 = 100_000_000_000;

/// Name number `i` of a run.
pub(crate) fn name(seed: u64, i: u64) -> String {
    let digits = u128::from(i) * u128::from(STEP) + u128::from(seed) * 7919;
    format!("49{:011}", digits % u128::from(NAMES))
}

/// The users of a run: the pairs first, then those who only write to the stored ones, then the stored ones, then the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cast {
    pub(crate) seed: u64,
    pub(crate) pairs: u64,
    /// Users with connections that say nothing.
    pub(crate) idle: u64,
    /// Writers of what is stored.
    pub(crate) writers: u64,
    /// Users who are not there, and for whom it is stored.
    pub(crate) absent: u64,
    /// All users, those above among them.
    pub(crate) users: u64,
}

impl Cast {
    /// How many have a part.
    pub(crate) fn needed(&self) -> u64 {
        2 * self.pairs + self.idle + self.writers + self.absent
    }

    /// Who sends and who receives in a pair.
    pub(crate) fn pair(&self, pair: u64) -> (String, String) {
        (name(self.seed, 2 * pair), name(self.seed, 2 * pair + 1))
    }

    pub(crate) fn idle(&self, i: u64) -> String {
        name(self.seed, 2 * self.pairs + i)
    }

    pub(crate) fn writer(&self, i: u64) -> String {
        name(self.seed, 2 * self.pairs + self.idle + i)
    }

    pub(crate) fn absent(&self, i: u64) -> String {
        name(self.seed, 2 * self.pairs + self.idle + self.writers + i)
    }

    /// Everybody.
    pub(crate) fn all(&self) -> impl Iterator<Item = String> + use<> {
        let (seed, users) = (self.seed, self.users.max(self.needed()));
        (0..users).map(move |i| name(seed, i))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everybody_has_a_name_of_his_own() {
        let cast = Cast { seed: 3, pairs: 50, idle: 7, writers: 16, absent: 1000, users: 5000 };
        let all: BTreeSet<String> = cast.all().collect();
        assert_eq!(all.len(), 5000);
        let mut parts = BTreeSet::new();
        parts.extend((0..50).flat_map(|i| <[String; 2]>::from(cast.pair(i))));
        parts.extend((0..7).map(|i| cast.idle(i)));
        parts.extend((0..16).map(|i| cast.writer(i)));
        parts.extend((0..1000).map(|i| cast.absent(i)));
        assert_eq!(parts.len() as u64, cast.needed());
        assert!(parts.is_subset(&all));
    }
}
