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
        Self {
            indices: BTreeMap::new(),
            next: first,
            end,
        }
    }

    /// Makes sure that each of `keys` has an index; gives those indices that changed hands, whose counters belong
    /// to someone else. `None`: more keys than indices, and nothing changed.
    pub(super) fn assign(&mut self, keys: &BTreeSet<K>) -> Option<Vec<u32>> {
        let mut recycled = Vec::new();
        let missing: Vec<&K> = keys
            .iter()
            .filter(|key| !self.indices.contains_key(key))
            .collect();
        let fresh = (self.end - self.next) as usize;
        let idle: Vec<K> = self
            .indices
            .keys()
            .filter(|key| !keys.contains(key))
            .cloned()
            .collect();
        if missing.len() > fresh + idle.len() {
            return None;
        }
        let mut idle = idle.into_iter();
        for key in missing {
            let index = if self.next < self.end {
                self.next += 1;
                self.next - 1
            } else {
                let Some(index) = idle.next().and_then(|key| self.indices.remove(&key)) else {
                    return None;
                };
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
