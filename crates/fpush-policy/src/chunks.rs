//! A list that never moves all that it holds at once.

use std::mem;

/// Values in chunks of a fixed size. Only the first chunk grows by being moved, and is as large as one then.
#[derive(Debug)]
pub(crate) struct Chunks<T> {
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T> Chunks<T> {
    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        match self.chunks.last() {
            Some(last) => (self.chunks.len() - 1) * CHUNK + last.len(),
            None => 0,
        }
    }

    /// How much memory they have.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<T>()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    /// Adds a value at the end.
    pub(crate) fn push(&mut self, value: T) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(value),
            Some(_) => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(value);
                self.chunks.push(chunk);
            }
            None => self.chunks.push(vec![value]),
        }
    }

    /// Takes out a value; the last one comes in its place.
    pub(crate) fn swap_remove(&mut self, index: usize) -> Option<T> {
        let chunk = self.chunks.last_mut()?;
        let last = chunk.pop();
        if chunk.is_empty() {
            self.chunks.pop();
        }
        if index == self.len() {
            return last;
        }
        last.map(|last| mem::replace(&mut self[index], last))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.iter_mut().flatten()
    }

    /// The values from this index on.
    pub(crate) fn iter_from(&self, index: usize) -> impl Iterator<Item = &T> {
        let chunks = self.chunks.iter().skip(index / CHUNK);
        chunks.flatten().skip(index % CHUNK)
    }
}

impl<T> std::ops::Index<usize> for Chunks<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        &self.chunks[index / CHUNK][index % CHUNK]
    }
}

impl<T> std::ops::IndexMut<usize> for Chunks<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }
}

/// Values in a chunk.
const CHUNK: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_where_they_are_in_one_vector() {
        let (mut chunks, mut model) = (Chunks::default(), Vec::new());
        for number in 0..3 * CHUNK + 7 {
            chunks.push(number);
            model.push(number);
        }
        assert!(
            chunks.chunks.iter().all(|chunk| chunk.capacity() == CHUNK),
            "none is larger"
        );
        for from in [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 6, 3 * CHUNK + 7, 9 * CHUNK] {
            let expected = model.iter().skip(from);
            assert!(chunks.iter_from(from).eq(expected), "{from}");
        }
        for step in 0..model.len() {
            let index = step * 7_919 % model.len();
            assert_eq!(chunks.swap_remove(index), Some(model.swap_remove(index)));
            assert_eq!(chunks.len(), model.len());
            assert_eq!(chunks.get(index), model.get(index));
        }
        assert!(chunks.is_empty() && chunks.get(0).is_none());
    }
}
