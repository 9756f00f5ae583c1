//! Counts what somebody does too often, by whatever he is known by.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use natter_broker::{Bucket, Rate};

/// Keys that are remembered. At this many, those whose time is over are forgotten; if there are none, further ones do not count: nobody
/// may shut others out by filling a table.
const KEYS_MAX: usize = 65_536;
/// How often those whose time is over are looked for while the table is full.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Brake<K> {
    rate: Rate,
    inner: Mutex<Inner<K>>,
}

struct Inner<K> {
    buckets: HashMap<K, Bucket>,
    forgot_at: Option<Instant>,
}

impl<K: Eq + Hash + Clone> Brake<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, inner: Mutex::new(Inner { buckets: HashMap::new(), forgot_at: None }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has not been too often.
    pub(crate) fn may(&self, key: &K, now: Instant) -> bool {
        self.lock().buckets.get(key).is_none_or(|bucket| bucket.wait(self.rate, now).is_zero())
    }

    /// It has happened once more.
    pub(crate) fn count(&self, key: &K, now: Instant) {
        let mut inner = self.lock();
        if let Some(bucket) = inner.buckets.get_mut(key) {
            return bucket.take(self.rate, now);
        }
        if inner.buckets.len() >= KEYS_MAX && inner.forgot_at.is_none_or(|at| at + FORGET_EVERY <= now) {
            inner.buckets.retain(|_, bucket| !bucket.is_full(now));
            inner.forgot_at = Some(now);
        }
        if inner.buckets.len() < KEYS_MAX {
            inner.buckets.entry(key.clone()).or_default().take(self.rate, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_too_often_waits_and_others_do_not() {
        let (brake, now) = (Brake::new(Rate::per_minute(2)), Instant::now());
        for _ in 0..2 {
            assert!(brake.may(&"a", now));
            brake.count(&"a", now);
        }
        assert!(!brake.may(&"a", now) && brake.may(&"b", now));
        assert!(brake.may(&"a", now + Duration::from_secs(30)));
    }

    #[test]
    fn the_table_is_bounded_and_full_it_shuts_nobody_out() {
        let (brake, now) = (Brake::new(Rate::per_minute(1)), Instant::now());
        (0..KEYS_MAX + 10).for_each(|key| brake.count(&key, now));
        assert_eq!(brake.lock().buckets.len(), KEYS_MAX);
        assert!(brake.may(&(KEYS_MAX + 5), now));
        brake.count(&KEYS_MAX, now + Duration::from_secs(61));
        assert_eq!(brake.lock().buckets.len(), 1);
    }
}
