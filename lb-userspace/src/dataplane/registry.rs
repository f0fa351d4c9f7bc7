//! Small numbers for things with names.

use std::collections::{BTreeMap, BTreeSet};

/// Gives each key an index of its own and keeps it for as long as the daemon runs.
///
/// A key that went and comes back gets its old index: the same backend added again is the same member, and its
/// counter goes on. Indices are taken from keys that are not in use only when no fresh one is left.
#[derive(Debug)]
pub(super) struct Registry<K> {
    indices: BTreeMap<K, u32>,
    next: u32,
    end: u32,
}

impl<K: Ord + Clone> Registry<K> {
    /// Indices from `first` up to and without `end`.
    pub(super) fn new(first: u32, end: u32) -> Self {
        Self { indices: BTreeMap::new(), next: first, end }
    }

    /// Makes sure that each of `keys` has an index; gives those indices that changed hands, whose counters belong
    /// to someone else. `None`: more keys than indices, and nothing changed.
    pub(super) fn assign(&mut self, keys: &BTreeSet<K>) -> Option<Vec<u32>> {
        let mut recycled = Vec::new();
        let missing: Vec<&K> = keys.iter().filter(|key| !self.indices.contains_key(key)).collect();
        let fresh = (self.end - self.next) as usize;
        let idle: Vec<K> = self.indices.keys().filter(|key| !keys.contains(key)).cloned().collect();
        if missing.len() > fresh + idle.len() {
            return None;
        }
        let mut idle = idle.into_iter();
        for key in missing {
            let index = if self.next < self.end {
                self.next += 1;
                self.next - 1
            } else {
                let index = idle.next().and_then(|key| self.indices.remove(&key))?;
                recycled.push(index);
                index
            };
            self.indices.insert(key.clone(), index);
        }
        Some(recycled)
    }

    /// The index of a key that was assigned one.
    pub(super) fn get(&self, key: &K) -> Option<u32> {
        self.indices.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&'static str]) -> BTreeSet<&'static str> {
        names.iter().copied().collect()
    }

    #[test]
    fn a_key_that_returns_gets_its_old_index() {
        let mut registry = Registry::new(1, 10);
        assert_eq!(registry.assign(&keys(&["a", "b"])), Some(vec![]));
        let of_a = registry.get(&"a");
        assert_eq!(registry.assign(&keys(&["b", "c"])), Some(vec![]));
        assert_eq!(registry.assign(&keys(&["a", "b", "c"])), Some(vec![]));
        assert_eq!(registry.get(&"a"), of_a);
    }

    #[test]
    fn an_index_changes_hands_only_when_no_fresh_one_is_left() {
        let mut registry = Registry::new(1, 3);
        assert_eq!(registry.assign(&keys(&["a", "b"])), Some(vec![]));
        assert_eq!(registry.assign(&keys(&["b", "c"])), Some(vec![1]), "the index of a");
        assert_eq!((registry.get(&"a"), registry.get(&"b"), registry.get(&"c")), (None, Some(2), Some(1)));
    }

    #[test]
    fn more_keys_than_indices_change_nothing() {
        let mut registry = Registry::new(0, 2);
        assert_eq!(registry.assign(&keys(&["a"])), Some(vec![]));
        assert_eq!(registry.assign(&keys(&["b", "c", "d"])), None);
        assert_eq!((registry.get(&"a"), registry.get(&"b")), (Some(0), None));
    }
}
