//! What a member of a conversation never had: messages of somebody he had blocked. No receipt of his covers one, ever, so that the sender
//! cannot tell by a tick that rises late.

use natter_protocol::N;

/// Ranges kept of a member; beyond it the two oldest become one, and what he had between them rises no more.
pub const RANGES_MAX: usize = 32;

/// Ranges of numbers, `after < n <= upto` each, in order, none touching another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hidden {
    ranges: Vec<(N, N)>,
}

impl Hidden {
    /// Hides `after < n <= upto`.
    pub fn add(&mut self, mut after: N, mut upto: N) {
        if after >= upto {
            return;
        }
        self.ranges.retain(|(from, to)| {
            let touches = *from <= upto && after <= *to;
            if touches {
                (after, upto) = (after.min(*from), upto.max(*to));
            }
            !touches
        });
        let at = self.ranges.partition_point(|(from, _)| *from < after);
        self.ranges.insert(at, (after, upto));
        if self.ranges.len() > RANGES_MAX {
            let (first, _) = self.ranges.remove(0);
            if let Some(second) = self.ranges.first_mut() {
                second.0 = first;
            }
        }
    }

    /// Whether a number is hidden.
    #[must_use]
    pub fn has(&self, n: N) -> bool {
        self.around(n).is_some()
    }

    /// The ranges, in order.
    #[must_use]
    pub fn ranges(&self) -> &[(N, N)] {
        &self.ranges
    }

    /// The ranges, without one that may have been two: of what lies in it, some may not be hidden.
    #[must_use]
    pub fn sure(&self) -> &[(N, N)] {
        if self.ranges.len() < RANGES_MAX { &self.ranges } else { self.ranges.get(1..).unwrap_or_default() }
    }

    /// Where a receipt that ends at `upto`, which is not hidden, may begin: at `after`, or behind what is hidden last before it.
    #[must_use]
    pub fn start(&self, after: N, upto: N) -> N {
        let before = self.ranges.iter().rev().find(|(from, _)| *from < upto);
        before.map_or(after, |(_, to)| after.max(*to))
    }

    /// What of `after < n <= upto` is not hidden, in order.
    #[must_use]
    pub fn shown(&self, mut after: N, upto: N) -> Vec<(N, N)> {
        let mut shown = Vec::new();
        for (from, to) in &self.ranges {
            if *to <= after || *from >= upto {
                continue;
            }
            if after < *from {
                shown.push((after, *from));
            }
            after = *to;
        }
        if after < upto {
            shown.push((after, upto));
        }
        shown
    }

    /// Where what waits begins, for a member whose mark is `mark`: what is hidden from there on waits for nobody.
    #[must_use]
    pub fn waits_behind(&self, mark: N) -> N {
        self.ranges.iter().find(|(from, to)| *from <= mark && mark < *to).map_or(mark, |(_, to)| *to)
    }

    fn around(&self, n: N) -> Option<(N, N)> {
        let at = self.ranges.partition_point(|(_, to)| *to < n);
        self.ranges.get(at).copied().filter(|(from, _)| *from < n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_hidden_stays_so_and_what_is_shown_is_the_rest(
            adds in proptest::collection::vec((0_u64..60, 0_u64..9), 0..20), after in 0_u64..70, length in 0_u64..70,
        ) {
            let (mut hidden, mut model) = (Hidden::default(), std::collections::BTreeSet::new());
            for (after, length) in adds {
                hidden.add(after, after + length);
                model.extend(after + 1..=after + length);
            }
            let upto = after + length;
            for n in 0..=80 {
                prop_assert_eq!(hidden.has(n), model.contains(&n), "{}", n);
            }
            let shown: Vec<N> = hidden.shown(after, upto).iter().flat_map(|(from, to)| from + 1..=*to).collect();
            let expected: Vec<N> = (after + 1..=upto).filter(|n| !model.contains(n)).collect();
            prop_assert_eq!(shown, expected);
            if upto > after && !model.contains(&upto) {
                let start = hidden.start(after, upto);
                prop_assert!((start + 1..=upto).all(|n| !model.contains(&n)));
                prop_assert!(start == after || model.contains(&start), "no further than it must");
            }
            prop_assert!(hidden.ranges().windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }

    #[test]
    fn beyond_the_bound_the_two_oldest_become_one() {
        let mut hidden = Hidden::default();
        for i in 0..RANGES_MAX as u64 + 1 {
            hidden.add(10 * i, 10 * i + 1);
        }
        assert_eq!((hidden.ranges().len(), hidden.ranges()[0], hidden.ranges()[1]), (RANGES_MAX, (0, 11), (20, 21)));
        assert_eq!((hidden.sure().len(), hidden.sure()[0]), (RANGES_MAX - 1, (20, 21)));
        hidden.add(10, 11);
        assert_eq!(hidden.ranges()[0], (0, 11), "what is told again changes nothing");
        assert_eq!((hidden.waits_behind(0), hidden.waits_behind(11), hidden.waits_behind(20)), (11, 11, 21));
    }
}
