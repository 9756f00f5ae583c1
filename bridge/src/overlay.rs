//! What lies over the store: values that are committed and not settled, each with how many changes say so. A value that is not here is what
//! the store says. Memory follows what is in use, not what is stored.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::RangeBounds;

/// Values by key, over the store.
#[derive(Debug)]
pub(crate) struct Overlay<K, V> {
    values: BTreeMap<K, (V, u32)>,
}

impl<K, V> Default for Overlay<K, V> {
    fn default() -> Self {
        Self { values: BTreeMap::new() }
    }
}

impl<K: Ord, V> Overlay<K, V> {
    /// The value, unless only the store has it.
    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.values.get(key).map(|(value, _)| value)
    }

    /// One more change says what the value is.
    pub(crate) fn put(&mut self, key: K, value: V) {
        let pins = self.values.get(&key).map_or(0, |(_, pins)| *pins);
        self.values.insert(key, (value, pins + 1));
    }

    /// The counterpart of [`Overlay::put`], once the change is settled: the last one leaves the value to the store.
    pub(crate) fn unpin<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if let Some((_, pins)) = self.values.get_mut(key) {
            *pins -= 1;
            if *pins == 0 {
                self.values.remove(key);
            }
        }
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.values.iter().map(|(key, (value, _))| (key, value))
    }

    /// Those of a range, in order.
    pub(crate) fn range(&self, range: impl RangeBounds<K>) -> impl Iterator<Item = (&K, &V)> {
        self.values.range(range).map(|(key, (value, _))| (key, value))
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn clear(&mut self) {
        self.values.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_here_until_the_last_change_that_says_it_is_settled() {
        let mut overlay = Overlay::default();
        overlay.put("a", Some(1));
        overlay.put("a", None);
        assert_eq!(overlay.get("a"), Some(&None), "gone, whatever the store says");
        overlay.unpin("a");
        assert_eq!(overlay.get("a"), Some(&None));
        overlay.unpin("a");
        overlay.unpin("a");
        assert_eq!((overlay.get("a"), overlay.len()), (None, 0), "the store says it");
    }
}
