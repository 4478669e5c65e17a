//! Lines that are served in turn, and know which of them is the longest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Something in which there are places. A path of keys leads to each.
pub(super) trait Line<K>: Default {
    /// What waits.
    type Item;

    /// How many wait.
    fn len(&self) -> usize;

    /// Takes the last place; numbers ascend.
    fn enter(&mut self, path: &[K], number: u64, item: Self::Item);

    /// Takes out whose turn it is.
    fn next(&mut self) -> Option<Self::Item>;

    /// Takes out the last of the longest line.
    fn last(&mut self) -> Option<Self::Item>;

    /// Takes out one whose place a newcomer with this path may have: the last of the longest line, if that stays as long as
    /// the newcomer's own.
    fn displace(&mut self, path: &[K]) -> Option<Self::Item>;

    /// Takes out the one with this number.
    fn leave(&mut self, path: &[K], number: u64) -> Option<Self::Item>;
}

/// A single line: who came first is served first.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// Who left is `None`, and is never the first or the last.
    places: VecDeque<(u64, Option<T>)>,
    len: usize,
}

/// Lines by key, served in turn. None of them is empty.
#[derive(Debug)]
pub(super) struct Lines<K, L> {
    lines: BTreeMap<K, (u64, L)>,
    /// The lines in the order in which they are served.
    turns: BTreeMap<u64, K>,
    by_length: BTreeSet<(usize, K)>,
    next_turn: u64,
    len: usize,
}

impl<T> Queue<T> {
    fn trim(&mut self) {
        while self.places.front().is_some_and(|(_, item)| item.is_none()) {
            self.places.pop_front();
        }
        while self.places.back().is_some_and(|(_, item)| item.is_none()) {
            self.places.pop_back();
        }
    }

    fn taken(&mut self, item: Option<T>) -> Option<T> {
        self.len -= usize::from(item.is_some());
        self.trim();
        item
    }
}

impl<K, T> Line<K> for Queue<T> {
    type Item = T;

    fn len(&self) -> usize {
        self.len
    }

    fn enter(&mut self, _path: &[K], number: u64, item: T) {
        self.places.push_back((number, Some(item)));
        self.len += 1;
    }

    fn next(&mut self) -> Option<T> {
        let (_, item) = self.places.pop_front()?;
        self.taken(item)
    }

    fn last(&mut self) -> Option<T> {
        let (_, item) = self.places.pop_back()?;
        self.taken(item)
    }

    fn displace(&mut self, _path: &[K]) -> Option<T> {
        None
    }

    fn leave(&mut self, _path: &[K], number: u64) -> Option<T> {
        let at = self
            .places
            .binary_search_by_key(&number, |(number, _)| *number)
            .ok()?;
        let item = self.places[at].1.take();
        self.taken(item)
    }
}

impl<K: Ord + Clone, L: Line<K>> Lines<K, L> {
    /// Changes one line, and keeps the order of turns and lengths. With `served` its turn was taken.
    fn change<R>(&mut self, key: &K, served: bool, change: impl FnOnce(&mut L) -> R) -> Option<R> {
        let (turn, line) = self.lines.get_mut(key)?;
        let before = line.len();
        let result = change(line);
        let after = line.len();
        self.len = self.len + after - before;
        if before != after {
            self.by_length.remove(&(before, key.clone()));
        }
        if served || after == 0 {
            self.turns.remove(turn);
        }
        if after == 0 {
            self.lines.remove(key);
            return Some(result);
        }
        if served {
            *turn = self.next_turn;
            self.next_turn += 1;
            self.turns.insert(*turn, key.clone());
        }
        if before != after {
            self.by_length.insert((after, key.clone()));
        }
        Some(result)
    }
}

impl<K: Ord + Clone, L: Line<K>> Line<K> for Lines<K, L> {
    type Item = L::Item;

    fn len(&self) -> usize {
        self.len
    }

    fn enter(&mut self, path: &[K], number: u64, item: L::Item) {
        let Some((key, rest)) = path.split_first() else {
            return;
        };
        if !self.lines.contains_key(key) {
            self.turns.insert(self.next_turn, key.clone());
            self.lines.insert(key.clone(), (self.next_turn, L::default()));
            self.next_turn += 1;
        }
        self.change(key, false, |line| line.enter(rest, number, item));
    }

    fn next(&mut self) -> Option<L::Item> {
        let (_, key) = self.turns.first_key_value()?;
        let key = key.clone();
        self.change(&key, true, L::next)?
    }

    fn last(&mut self) -> Option<L::Item> {
        let (_, key) = self.by_length.last()?;
        let key = key.clone();
        self.change(&key, false, L::last)?
    }

    fn displace(&mut self, path: &[K]) -> Option<L::Item> {
        let (own, rest) = path.split_first()?;
        let own_length = self.lines.get(own).map_or(0, |(_, line)| line.len());
        let (longest, _) = self.by_length.last()?;
        if *longest > own_length + 1 {
            return self.last();
        }
        self.change(own, false, |line| line.displace(rest))?
    }

    fn leave(&mut self, path: &[K], number: u64) -> Option<L::Item> {
        let (key, rest) = path.split_first()?;
        self.change(key, false, |line| line.leave(rest, number))?
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            places: VecDeque::new(),
            len: 0,
        }
    }
}

impl<K, L> Default for Lines<K, L> {
    fn default() -> Self {
        Self {
            lines: BTreeMap::new(),
            turns: BTreeMap::new(),
            by_length: BTreeSet::new(),
            next_turn: 0,
            len: 0,
        }
    }
}
