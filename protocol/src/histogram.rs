//! Durations, counted in buckets by whoever measures them and read by whoever is asked. No lock: a record is three additions.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets: the first is up to [`FIRST_MICROS`], each of the others twice as long as the one before, the last one everything above.
pub const BUCKETS: usize = 20;

/// Upper bound of the first bucket, in microseconds. That of the last but one is 16.8 s.
pub const FIRST_MICROS: u64 = 64;

/// See the module. Times are in microseconds.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
}

/// What a [`Histogram`] held when it was read. While others record, the parts may be a few records apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// How many were in each bucket, not those below it.
    pub buckets: [u64; BUCKETS],
    /// The sum of all, in microseconds.
    pub sum_micros: u64,
}

impl Histogram {
    /// Counts one of this length.
    pub fn record(&self, micros: u64) {
        self.record_many(micros, 1);
    }

    /// Counts `count` of this length.
    pub fn record_many(&self, micros: u64, count: u64) {
        if let Some(bucket) = self.buckets.get(bucket(micros)) {
            bucket.fetch_add(count, Ordering::Relaxed);
            self.sum_micros.fetch_add(micros.saturating_mul(count), Ordering::Relaxed);
        }
    }

    /// What it holds.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let buckets = std::array::from_fn(|i| self.buckets.get(i).map_or(0, |b| b.load(Ordering::Relaxed)));
        Snapshot { buckets, sum_micros: self.sum_micros.load(Ordering::Relaxed) }
    }
}

/// Which bucket a length falls into.
fn bucket(micros: u64) -> usize {
    // Of 0..=64 it is 0, of 65..=128 1, of 129..=256 2.
    let above = micros.saturating_sub(1) / FIRST_MICROS;
    ((u64::BITS - above.leading_zeros()) as usize).min(BUCKETS - 1)
}

/// The upper bound of a bucket, in microseconds; `None`: it has none.
///
/// ```
/// use natter_protocol::histogram::{BUCKETS, upper_micros};
/// assert_eq!([upper_micros(0), upper_micros(1), upper_micros(BUCKETS - 1)], [Some(64), Some(128), None]);
/// ```
#[must_use]
pub fn upper_micros(bucket: usize) -> Option<u64> {
    (bucket + 1 < BUCKETS).then(|| FIRST_MICROS << bucket)
}

/// When a UUIDv7 was made, in microseconds of Unix time, if whoever made it put fractions of a millisecond into the 12 bits behind the
/// version (RFC 9562, section 6.2, method 3).
#[must_use]
pub fn micros_of_uuid7(stamp: u128) -> u64 {
    let millis = (stamp >> 80) as u64;
    let fraction = (stamp >> 64) as u64 & 0xfff;
    millis * 1000 + fraction * 1000 / 4096
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_within_the_bounds_of_its_bucket() {
        for micros in (0..70).chain([127, 128, 129, 1000, 16_777_216, 16_777_217, u64::MAX]) {
            let bucket = bucket(micros);
            assert!(upper_micros(bucket).is_none_or(|upper| micros <= upper), "{micros} in {bucket}");
            assert!(
                bucket == 0 || upper_micros(bucket - 1).is_some_and(|below| micros > below),
                "{micros} in {bucket}"
            );
        }
        let histogram = Histogram::default();
        histogram.record(65);
        histogram.record_many(u64::MAX, 2);
        histogram.record_many(1, 3);
        let Snapshot { buckets, .. } = histogram.snapshot();
        assert_eq!((buckets[0], buckets[1], buckets[BUCKETS - 1]), (3, 1, 2));
    }
}
