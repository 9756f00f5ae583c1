//! Which numbers of a chat have a tick.

use natter_protocol::N;

/// Most ranges of a chat and tick: beyond it the oldest are forgotten, and with them ticks of messages that nobody has looked at for long.
pub(crate) const RANGES_MAX: usize = 64;

/// Ranges `after < n <= upto`, apart from each other and rising.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(N, N)>);

impl Ranges {
    pub(crate) fn new(ranges: &[(N, N)]) -> Self {
        let mut all = Self::default();
        ranges.iter().for_each(|&(after, upto)| all.add(after, upto));
        all
    }

    pub(crate) fn add(&mut self, mut after: N, mut upto: N) {
        if after >= upto {
            return;
        }
        self.0.retain(|&(a, u)| {
            let apart = u < after || upto < a;
            if !apart {
                (after, upto) = (after.min(a), upto.max(u));
            }
            apart
        });
        let at = self.0.partition_point(|&(a, _)| a < after);
        self.0.insert(at, (after, upto));
        if self.0.len() > RANGES_MAX {
            self.0.remove(0);
        }
    }

    pub(crate) fn has(&self, n: N) -> bool {
        self.0.iter().any(|&(after, upto)| after < n && n <= upto)
    }

    pub(crate) fn as_slice(&self) -> &[(N, N)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_where_they_touch_and_stay_apart_where_they_do_not() {
        let mut ranges = Ranges::default();
        ranges.add(0, 2);
        ranges.add(5, 7);
        ranges.add(9, 9);
        assert!(ranges.has(2) && !ranges.has(3) && !ranges.has(5) && ranges.has(6) && !ranges.has(0));
        ranges.add(2, 5);
        assert_eq!(ranges.as_slice(), [(0, 7)]);
        for i in 0..=RANGES_MAX as u64 {
            ranges.add(100 + 3 * i, 101 + 3 * i);
        }
        assert_eq!(ranges.as_slice().len(), RANGES_MAX);
        assert!(ranges.has(101 + 3 * RANGES_MAX as u64) && !ranges.has(1));
    }
}
