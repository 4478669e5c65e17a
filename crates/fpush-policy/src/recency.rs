//! A bounded map from fingerprints to values that knows which entry was touched longest ago.

use std::mem;

use hashbrown::HashTable;

use fpush_push::Fingerprint;

use crate::chunks::Chunks;

/// Entries are in one list, linked from the oldest to the newest by index, beside tables of indices: 28 bytes an entry
/// with a value of four, which is what lets a million tokens cost tens of megabytes. There are several tables, by the hash
/// of the key, and the list is in chunks, because what grows moves all that it holds at once, and pushes wait for as long
/// as this takes.
#[derive(Debug)]
pub struct Recency<V> {
    tables: Box<[HashTable<u32>]>,
    entries: Chunks<Entry<V>>,
    oldest: u32,
    newest: u32,
    bound: u32,
}

#[derive(Debug)]
struct Entry<V> {
    key: Key,
    older: u32,
    newer: u32,
    value: V,
}

/// A fingerprint in parts that leave no gap beside a value of four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key([u32; 4]);

impl<V> Recency<V> {
    /// An empty map that never holds more than `bound` entries.
    pub fn new(bound: u32) -> Self {
        assert!(bound > 0 && bound < NONE, "a bound that indices can hold");
        let tables = bound.div_ceil(TABLE);
        Self {
            tables: (0..tables).map(|_| HashTable::new()).collect(),
            entries: Chunks::default(),
            oldest: NONE,
            newest: NONE,
            bound,
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// How much memory it has.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        let tables: usize = self.tables.iter().map(HashTable::allocation_size).sum();
        tables + self.entries.size()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: Fingerprint) -> Option<&V> {
        self.index(Key::of(key))
            .map(|index| &self.entries[index as usize].value)
    }

    /// The value of a key, to be changed; its entry does not become newer by that.
    pub fn get_mut(&mut self, key: Fingerprint) -> Option<&mut V> {
        self.index(Key::of(key))
            .map(|index| &mut self.entries[index as usize].value)
    }

    /// Sets a value and makes its entry the newest. Where there is no room the oldest entry goes. Returns the value that is
    /// not there any more: the former one of the key, or that of the oldest entry.
    pub fn touch(&mut self, key: Fingerprint, value: V) -> Option<V> {
        let key = Key::of(key);
        if let Some(index) = self.index(key) {
            self.unlink(index);
            let former = mem::replace(&mut self.entries[index as usize].value, value);
            self.link_newest(index);
            return Some(former);
        }
        let gone = if self.entries.len() as u32 == self.bound {
            self.pop_oldest()
        } else {
            None
        };
        let index = self.entries.len() as u32;
        self.entries.push(Entry {
            key,
            older: NONE,
            newer: NONE,
            value,
        });
        self.link_newest(index);
        let entries = &self.entries;
        let hash = |&other: &u32| entries[other as usize].key.hash();
        let table = key.table(self.tables.len());
        self.tables[table].insert_unique(key.hash(), index, hash);
        gone
    }

    /// The value that was touched longest ago.
    pub fn oldest(&self) -> Option<&V> {
        let entry = self.entries.get(self.oldest as usize)?;
        Some(&entry.value)
    }

    /// The entry that was touched longest ago.
    pub fn oldest_entry(&self) -> Option<(Fingerprint, V)>
    where
        V: Copy,
    {
        let entry = self.entries.get(self.oldest as usize)?;
        Some((entry.key.fingerprint(), entry.value))
    }

    /// Some entries as they are in memory, from this index on, and the index of the next part; none after the last one.
    pub fn part(&self, from: usize, most: usize) -> (impl Iterator<Item = (Fingerprint, &V)>, Option<usize>) {
        let part = self.entries.iter_from(from).take(most);
        let next = from.saturating_add(most);
        (
            part.map(|entry| (entry.key.fingerprint(), &entry.value)),
            (next < self.len()).then_some(next),
        )
    }

    /// All entries, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Fingerprint, &V)> {
        let mut next = self.oldest;
        std::iter::from_fn(move || {
            let entry = self.entries.get(next as usize)?;
            next = entry.newer;
            Some((entry.key.fingerprint(), &entry.value))
        })
    }

    /// Changes all values, and the order of none.
    pub fn update_all(&mut self, update: impl Fn(&mut V)) {
        self.entries.iter_mut().for_each(|entry| update(&mut entry.value));
    }

    /// Forgets the entry that was touched longest ago.
    pub fn pop_oldest(&mut self) -> Option<V> {
        let oldest = self.entries.get(self.oldest as usize)?;
        self.take_out(self.oldest, oldest.key)
    }

    /// Forgets a key.
    pub fn remove(&mut self, key: Fingerprint) -> Option<V> {
        let key = Key::of(key);
        self.take_out(self.index(key)?, key)
    }

    fn take_out(&mut self, index: u32, key: Key) -> Option<V> {
        let table = &mut self.tables[key.table(self.tables.len())];
        table
            .find_entry(key.hash(), |&other| other == index)
            .ok()?
            .remove();
        self.unlink(index);
        let last = self.entries.len() as u32 - 1;
        if index != last {
            self.relocate(last, index);
        }
        self.entries.swap_remove(index as usize).map(|entry| entry.value)
    }

    /// Points everything that knows an entry at `from` to `to`, its new place.
    fn relocate(&mut self, from: u32, to: u32) {
        let Entry {
            key, older, newer, ..
        } = self.entries[from as usize];
        let table = &mut self.tables[key.table(self.tables.len())];
        if let Some(slot) = table.find_mut(key.hash(), |&index| index == from) {
            *slot = to;
        }
        *self.newer_of(older) = to;
        *self.older_of(newer) = to;
    }

    fn index(&self, key: Key) -> Option<u32> {
        self.tables[key.table(self.tables.len())]
            .find(key.hash(), |&index| self.entries[index as usize].key == key)
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

impl Key {
    fn of(fingerprint: Fingerprint) -> Self {
        let [first, second] = fingerprint.to_parts();
        Self([
            first as u32,
            (first >> 32) as u32,
            second as u32,
            (second >> 32) as u32,
        ])
    }

    fn fingerprint(self) -> Fingerprint {
        let Self([_, _, low, high]) = self;
        Fingerprint::from_parts([self.hash(), u64::from(high) << 32 | u64::from(low)])
    }

    fn hash(self) -> u64 {
        let Self([low, high, ..]) = self;
        u64::from(high) << 32 | u64::from(low)
    }

    /// Which of so many tables has it, by other bits than those by which a table finds it.
    fn table(self, tables: usize) -> usize {
        let Self([.., high]) = self;
        ((u64::from(high) * tables as u64) >> 32) as usize
    }
}

const NONE: u32 = u32::MAX;
/// So many entries are in a table at most, or somewhat more where chance has it: what has room in 16,384 places, of which an
/// eighth has to be free.
const TABLE: u32 = 12_500;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use fpush_push::TokenHasher;

    #[test]
    fn an_entry_with_a_value_of_four_bytes_has_no_gap() {
        assert_eq!(size_of::<Entry<u32>>(), 28);
    }

    /// What waits for a call waits for all that is moved in it.
    #[test]
    fn no_table_is_large_however_many_entries_there_are() {
        let hasher = TokenHasher::with_key([7; 16]);
        let mut map = Recency::new(200_000);
        for number in 0..200_000 {
            map.touch(hasher.fingerprint(&number.to_string()), ());
        }
        let largest = map.tables.iter().map(HashTable::len).max();
        assert!(largest < Some(20_000), "{largest:?}");
        assert_eq!(map.tables.iter().map(HashTable::len).sum::<usize>(), map.len());
    }

    proptest! {
        /// The map against a queue of pairs: whatever is done, they agree on content, order and bound.
        #[test]
        fn behaves_like_an_ordered_list(steps in prop::collection::vec((0..3u8, 0..12u8), 1..200)) {
            let hasher = TokenHasher::with_key([7; 16]);
            let key = |name: u8| hasher.fingerprint(&name.to_string());
            let mut map = Recency::new(5);
            // As in a large map.
            map.tables = (0..4).map(|_| HashTable::new()).collect();
            let mut model: VecDeque<(u8, usize)> = VecDeque::new();
            for (number, (step, name)) in steps.into_iter().enumerate() {
                match step {
                    0 => {
                        let gone = match model.iter().position(|(other, _)| *other == name) {
                            Some(at) => model.remove(at),
                            None if model.len() == 5 => model.pop_front(),
                            None => None,
                        };
                        prop_assert_eq!(map.touch(key(name), number), gone.map(|(_, value)| value));
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
