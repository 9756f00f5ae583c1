//! The journal rows that wait to be settled: how old they are, and how much they hold. Pure: time is passed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a journal row waits before it is settled: what is delivered by then is never written to a table.
pub(super) const SETTLE_AFTER: Duration = Duration::from_secs(1);
/// Changes that the journal may hold before they are settled whatever their age, as fast as they come: about 150 MB of memory, and a second
/// of a start.
pub(super) const JOURNAL_CHANGES_MAX: usize = 200_000;

/// Rows in the order of their commits: when, and how many changes each has.
#[derive(Debug)]
pub(super) struct Waiting {
    rows: VecDeque<(Instant, usize)>,
    changes: usize,
    pub(super) changes_max: usize,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { rows: VecDeque::new(), changes: 0, changes_max: JOURNAL_CHANGES_MAX }
    }
}

impl Waiting {
    /// A row was committed.
    pub(super) fn push(&mut self, at: Instant, changes: usize) {
        // An empty row is something too.
        let changes = changes.max(1);
        self.rows.push_back((at, changes));
        self.changes += changes;
    }

    /// Of the rows, the newest `left` are still there: the others are settled.
    pub(super) fn keep_newest(&mut self, left: usize) {
        while self.rows.len() > left
            && let Some((_, changes)) = self.rows.pop_front()
        {
            self.changes -= changes;
        }
    }

    /// Of the rows, the oldest `left` are still there: the others were not committed.
    pub(super) fn keep_oldest(&mut self, left: usize) {
        while self.rows.len() > left
            && let Some((_, changes)) = self.rows.pop_back()
        {
            self.changes -= changes;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// When the oldest row is to be settled.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.rows.front().map(|(at, _)| *at + SETTLE_AFTER)
    }

    /// How many rows are to be settled now: those that are old enough, or all.
    pub(super) fn due(&self, now: Instant) -> usize {
        if self.is_full() {
            return self.rows.len();
        }
        self.rows.partition_point(|(at, _)| now.duration_since(*at) >= SETTLE_AFTER)
    }

    /// More came than was settled, for a while.
    pub(super) fn is_full(&self) -> bool {
        self.changes > self.changes_max
    }

    /// How many changes the newest row has.
    pub(super) fn newest(&self) -> usize {
        self.rows.back().map_or(0, |(_, changes)| *changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_due_by_their_age_or_all_of_them_when_there_is_too_much() {
        let start = Instant::now();
        let mut waiting = Waiting::default();
        waiting.push(start, 3);
        waiting.push(start + SETTLE_AFTER, 0);
        assert_eq!((waiting.due(start), waiting.due(start + SETTLE_AFTER), waiting.newest()), (0, 1, 1));
        waiting.push(start + SETTLE_AFTER, JOURNAL_CHANGES_MAX - 3);
        assert!(waiting.is_full());
        assert_eq!(waiting.due(start), 3);
        waiting.keep_newest(2);
        assert!(!waiting.is_full(), "the oldest row is settled");
        waiting.keep_oldest(1);
        assert_eq!((waiting.len(), waiting.newest(), waiting.due_at()), (1, 1, Some(start + SETTLE_AFTER * 2)));
    }
}
