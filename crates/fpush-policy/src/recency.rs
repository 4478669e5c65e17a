//! A bounded map from fingerprints to values that knows which entry was touched longest ago.

use hashbrown::HashTable;

use fpush_push::Fingerprint;

/// Entries are in one vector, linked from the oldest to the newest by index, beside a table of indices: 32
/// bytes an entry with a value of 8, which is what lets a million tokens cost tens of megabytes.
#[derive(Debug)]
pub struct Recency<V> {
    table: HashTable<u32>,
    entries: Vec<Entry<V>>,
    oldest: u32,
    newest: u32,
    bound: u32,
}

#[derive(Debug)]
struct Entry<V> {
    key: Fingerprint,
    older: u32,
    newer: u32,
    value: V,
}

impl<V> Recency<V> {
    /// An empty map that never holds more than `bound` entries.
    pub fn new(bound: u32) -> Self {
        assert!(bound > 0 && bound < NONE, "a bound that indices can hold");
        Self {
            table: HashTable::new(),
            entries: Vec::new(),
            oldest: NONE,
            newest: NONE,
            bound,
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: Fingerprint) -> Option<&V> {
        self.index(key).map(|index| &self.entries[index as usize].value)
    }

    /// The value of a key, to be changed; its entry does not become newer by that.
    pub fn get_mut(&mut self, key: Fingerprint) -> Option<&mut V> {
        self.index(key)
            .map(|index| &mut self.entries[index as usize].value)
    }

    /// Sets a value and makes its entry the newest. Where there is no room the oldest entry goes.
    pub fn touch(&mut self, key: Fingerprint, value: V) {
        if let Some(index) = self.index(key) {
            self.unlink(index);
            self.entries[index as usize].value = value;
            self.link_newest(index);
            return;
        }
        if self.entries.len() as u32 == self.bound {
            self.pop_oldest();
        }
        let index = self.entries.len() as u32;
        self.entries.push(Entry {
            key,
            older: NONE,
            newer: NONE,
            value,
        });
        self.link_newest(index);
        let entries = &self.entries;
        self.table.insert_unique(key.table_hash(), index, |&other| {
            entries[other as usize].key.table_hash()
        });
    }

    /// The value that was touched longest ago.
    pub fn oldest(&self) -> Option<&V> {
        (self.oldest != NONE).then(|| &self.entries[self.oldest as usize].value)
    }

    /// The entry that was touched longest ago.
    pub fn oldest_entry(&self) -> Option<(Fingerprint, V)>
    where
        V: Copy,
    {
        let entry = self.entries.get(self.oldest as usize)?;
        Some((entry.key, entry.value))
    }

    /// Some entries as they are in memory, from this index on.
    pub fn part(&self, from: usize, most: usize) -> impl Iterator<Item = (Fingerprint, &V)> {
        let part = self.entries.iter().skip(from).take(most);
        part.map(|entry| (entry.key, &entry.value))
    }

    /// All entries, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Fingerprint, &V)> {
        let mut next = self.oldest;
        std::iter::from_fn(move || {
            let entry = self.entries.get(next as usize)?;
            next = entry.newer;
            Some((entry.key, &entry.value))
        })
    }

    /// Changes all values, and the order of none.
    pub fn update_all(&mut self, update: impl Fn(&mut V)) {
        self.entries.iter_mut().for_each(|entry| update(&mut entry.value));
    }

    /// Forgets the entry that was touched longest ago.
    pub fn pop_oldest(&mut self) {
        if self.oldest != NONE {
            self.remove(self.entries[self.oldest as usize].key);
        }
    }

    /// Forgets a key.
    pub fn remove(&mut self, key: Fingerprint) -> Option<V> {
        let entries = &self.entries;
        let occupied = self
            .table
            .find_entry(key.table_hash(), |&index| entries[index as usize].key == key)
            .ok()?;
        let (index, _) = occupied.remove();
        self.unlink(index);
        let last = self.entries.len() as u32 - 1;
        if index != last {
            self.relocate(last, index);
        }
        Some(self.entries.swap_remove(index as usize).value)
    }

    /// Points everything that knows an entry at `from` to `to`, its new place.
    fn relocate(&mut self, from: u32, to: u32) {
        let Entry {
            key, older, newer, ..
        } = self.entries[from as usize];
        if let Some(slot) = self.table.find_mut(key.table_hash(), |&index| index == from) {
            *slot = to;
        }
        *self.newer_of(older) = to;
        *self.older_of(newer) = to;
    }

    fn index(&self, key: Fingerprint) -> Option<u32> {
        self.table
            .find(key.table_hash(), |&index| self.entries[index as usize].key == key)
            .copied()
    }

    fn unlink(&mut self, index: u32) {
        let Entry { older, newer, .. } = self.entries[index as usize];
        *self.newer_of(older) = newer;
        *self.older_of(newer) = older;
    }

    fn link_newest(&mut self, index: u32) {
        let older = self.newest;
        let entry = &mut self.entries[index as usize];
        (entry.older, entry.newer) = (older, NONE);
        *self.newer_of(older) = index;
        self.newest = index;
    }

    /// The link from an entry to its newer neighbour; from before the first, the oldest entry.
    fn newer_of(&mut self, index: u32) -> &mut u32 {
        if index == NONE {
            &mut self.oldest
        } else {
            &mut self.entries[index as usize].newer
        }
    }

    /// The link from an entry to its older neighbour; from behind the last, the newest entry.
    fn older_of(&mut self, index: u32) -> &mut u32 {
        if index == NONE {
            &mut self.newest
        } else {
            &mut self.entries[index as usize].older
        }
    }
}

const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use fpush_push::TokenHasher;

    proptest! {
        /// The map against a queue of pairs: whatever is done, they agree on content, order and bound.
        #[test]
        fn behaves_like_an_ordered_list(steps in prop::collection::vec((0..3u8, 0..12u8), 1..200)) {
            let hasher = TokenHasher::with_key([7; 16]);
            let key = |name: u8| hasher.fingerprint(&name.to_string());
            let mut map = Recency::new(5);
            let mut model: VecDeque<(u8, usize)> = VecDeque::new();
            for (number, (step, name)) in steps.into_iter().enumerate() {
                match step {
                    0 => {
                        map.touch(key(name), number);
                        if let Some(at) = model.iter().position(|(other, _)| *other == name) {
                            model.remove(at);
                        } else if model.len() == 5 {
                            model.pop_front();
                        }
                        model.push_back((name, number));
                    }
                    1 => {
                        let at = model.iter().position(|(other, _)| *other == name);
                        let expected = at.and_then(|at| model.remove(at)).map(|(_, value)| value);
                        prop_assert_eq!(map.remove(key(name)), expected);
                    }
                    _ => {
                        map.pop_oldest();
                        model.pop_front();
                    }
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.oldest().copied(), model.front().map(|(_, value)| *value));
                for (name, value) in &model {
                    prop_assert_eq!(map.get(key(*name)), Some(value));
                }
            }
        }
    }
}
