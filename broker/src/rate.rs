//! Rates: a bucket that holds so many events, and fills again with time. Pure; the time is passed in.
//!
//! Unlike the limiters of the usual crates it can be looked at without taking from it (a failed authentication counts when it has
//! failed, and refuses the next one), and it may go into debt: what has been read is taken in, and the next one waits.

use std::time::{Duration, Instant};

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// One event is allowed every so often.
    every: Duration,
    /// So many at once, after a while without any. At least 1.
    burst: u32,
}

impl Rate {
    /// `events` a second, 1 or more, and twice as many at once.
    #[must_use]
    pub const fn per_second(events: u32) -> Self {
        let events = if events == 0 { 1 } else { events };
        Self { every: Duration::from_nanos(1_000_000_000 / events as u64), burst: events.saturating_mul(2) }
    }

    /// `events` a minute, 1 or more, and as many at once.
    #[must_use]
    pub const fn per_minute(events: u32) -> Self {
        let events = if events == 0 { 1 } else { events };
        Self { every: Duration::from_nanos(60_000_000_000 / events as u64), burst: events }
    }
}

/// What is left of a [`Rate`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    /// When it is full again; `None`: it was never used.
    full_at: Option<Instant>,
}

impl Bucket {
    /// An event has happened.
    pub fn take(&mut self, rate: Rate, now: Instant) {
        self.full_at = Some(self.full_at.map_or(now, |at| at.max(now)) + rate.every);
    }

    /// How long the next event must wait; zero if it need not.
    pub fn wait(&self, rate: Rate, now: Instant) -> Duration {
        let missing = self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        missing.saturating_sub(rate.every * (rate.burst - 1))
    }

    /// Takes an event if it need not wait; whether it did.
    pub fn try_take(&mut self, rate: Rate, now: Instant) -> bool {
        let may = self.wait(rate, now).is_zero();
        if may {
            self.take(rate, now);
        }
        may
    }

    /// Whether it is as good as a new one.
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn a_burst_goes_at_once_and_then_one_at_a_time() {
        let (rate, start) = (Rate::per_minute(20), start());
        let mut bucket = Bucket::default();
        let at = |secs| start + Duration::from_secs(secs);
        for n in 0..20 {
            assert!(bucket.try_take(rate, start), "{n}");
        }
        assert!(!bucket.try_take(rate, start));
        assert_eq!(bucket.wait(rate, at(1)), Duration::from_secs(2));
        assert!(!bucket.try_take(rate, at(2)) && bucket.try_take(rate, at(3)) && !bucket.try_take(rate, at(3)));
        assert!(!bucket.is_full(at(62)) && bucket.is_full(at(63)));
        for n in 0..20 {
            assert!(bucket.try_take(rate, at(3600)), "{n}");
        }
        assert!(!bucket.try_take(rate, at(3600)), "a long rest saves up no more than the burst");
    }

    #[test]
    fn a_debt_is_waited_for_and_the_rate_holds() {
        let (rate, start) = (Rate::per_second(1000), start());
        let mut bucket = Bucket::default();
        let mut now = start;
        for _ in 0..12_000 {
            bucket.take(rate, now);
            now += bucket.wait(rate, now);
        }
        let took = now - start;
        assert!(took >= Duration::from_secs(10) && took < Duration::from_millis(10_010), "{took:?}");
    }
}
