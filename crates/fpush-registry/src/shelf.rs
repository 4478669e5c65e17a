//! Entries of devices, one after the other in a few pieces of memory: what a device takes beside its texts is a few bytes.

use hashbrown::{HashTable, hash_table};

use crate::entry::{Entry, Packed, push_number, read_number};

/// The length of each entry, and the entry. A block that is full stays where it is: one large piece that grows would be moved
/// again and again, and leave holes in memory that are too small for any other.
#[derive(Default)]
struct Blocks {
    blocks: Vec<Vec<u8>>,
    /// Bytes in all of them.
    length: usize,
}

/// Some of the devices by the hashes of their nodes.
#[derive(Default)]
pub(crate) struct Shelf {
    bytes: Blocks,
    /// Where each begins.
    places: HashTable<u32>,
    /// Bytes of what is not there any more.
    waste: usize,
}

impl Shelf {
    /// How many devices there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// How much memory it has.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        let blocks = self.bytes.blocks.iter().map(Vec::capacity).sum::<usize>();
        blocks + self.bytes.blocks.capacity() * size_of::<Vec<u8>>() + self.places.allocation_size()
    }

    /// The entry of a node with this hash.
    pub(crate) fn find(&self, hash: u64, node: &[u8]) -> Option<Packed<'_>> {
        let place = self.places.find(hash, |place| self.bytes.is_of(*place, node))?;
        Some(self.bytes.entry(*place))
    }

    /// Puts an entry, in the place of the one with the same node. `hasher` says the hash of a node.
    pub(crate) fn put(&mut self, hash: u64, new: &Entry, hasher: impl Fn(&[u8]) -> u64) {
        let place = self.bytes.write(new.packed());
        let bytes = &self.bytes;
        let is_it = |place: &u32| new.packed().with_node(|node| bytes.is_of(*place, node));
        let hash_of = |place: &u32| bytes.entry(*place).with_node(&hasher);
        match self.places.entry(hash, is_it, hash_of) {
            hash_table::Entry::Occupied(mut known) => {
                self.waste += bytes.size(*known.get());
                *known.get_mut() = place;
            }
            hash_table::Entry::Vacant(free) => drop(free.insert(place)),
        }
        self.tidy(hasher);
    }

    /// Forgets a node with this hash.
    pub(crate) fn remove(&mut self, hash: u64, node: &[u8], hasher: impl Fn(&[u8]) -> u64) {
        let bytes = &self.bytes;
        if let Ok(known) = self.places.find_entry(hash, |place| bytes.is_of(*place, node)) {
            self.waste += bytes.size(*known.get());
            known.remove();
        }
        self.tidy(hasher);
    }

    /// Makes room if there is much waste.
    fn tidy(&mut self, hasher: impl Fn(&[u8]) -> u64) {
        if self.waste < LEAST_WASTE || self.waste < self.bytes.length / 4 {
            return;
        }
        let mut tidy = Self {
            bytes: Blocks::default(),
            places: HashTable::with_capacity(self.places.len()),
            waste: 0,
        };
        for place in &self.places {
            let entry = self.bytes.entry(*place);
            let place = tidy.bytes.write(entry);
            // None has to be moved.
            tidy.places.insert_unique(entry.with_node(&hasher), place, |_| 0);
        }
        *self = tidy;
    }
}

impl Blocks {
    /// Adds an entry. Returns where it begins: its block, and its place there in the lower half.
    fn write(&mut self, entry: Packed<'_>) -> u32 {
        let mut length = Vec::new();
        push_number(entry.bytes().len(), &mut length);
        let more = length.len() + entry.bytes().len();
        if self.blocks.last().is_none_or(|block| block.len() + more > BLOCK) {
            self.blocks.push(Vec::new());
        }
        let number = self.blocks.len() - 1;
        let block = &mut self.blocks[number];
        if block.capacity() - block.len() < more {
            // Not twice as much: it would be empty for the most part.
            let free = BLOCK.saturating_sub(block.len());
            block.reserve_exact((self.length / SLACK).min(free).max(more));
        }
        let place = number << 16 | block.len();
        block.extend(length);
        block.extend(entry.bytes());
        self.length += more;
        place as u32
    }

    fn rest(&self, place: u32) -> &[u8] {
        &self.blocks[(place >> 16) as usize][(place & 0xffff) as usize..]
    }

    fn entry(&self, place: u32) -> Packed<'_> {
        let (length, rest) = read_number(self.rest(place));
        Packed::read(&rest[..length])
    }

    fn is_of(&self, place: u32, node: &[u8]) -> bool {
        self.entry(place).with_node(|its| its == node)
    }

    /// How many bytes an entry takes, with its length.
    fn size(&self, place: u32) -> usize {
        let its = self.rest(place);
        let (length, rest) = read_number(its);
        its.len() - rest.len() + length
    }
}

/// Bytes of a block, unless an entry alone has more.
const BLOCK: usize = 1 << 16;
/// An eighth of the memory is free at most.
const SLACK: usize = 8;
/// Less than that is not worth the work.
const LEAST_WASTE: usize = 4_096;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        device::{Device, Dialect},
        entry::Field,
        time::Time,
    };

    fn device(node: &str, token: String) -> Device {
        Device {
            dialect: Dialect::Seed,
            kind: "fcm".to_owned(),
            node: node.to_owned(),
            secret: "secret".to_owned(),
            token,
            voip_token: None,
            owner: None,
            account: None,
            channel: None,
            registered: Time(7),
            renewed: None,
            delivered: None,
            failed: None,
            former: Vec::new(),
            imported: false,
            in_second: false,
        }
    }

    /// As bad as can be: many nodes have one hash.
    fn hash(node: &[u8]) -> u64 {
        node.iter().map(|byte| u64::from(*byte)).sum::<u64>() % 7
    }

    proptest! {
        /// A shelf against a map: whatever is put and removed, each node has what was put last.
        #[test]
        fn behaves_like_a_map(steps in proptest::collection::vec((0..40u8, 0..4u8, 0..400usize), 1..400)) {
            let (mut shelf, mut model) = (Shelf::default(), HashMap::new());
            for (number, (node, step, length)) in steps.into_iter().enumerate() {
                let node = format!("n{node}");
                if step == 0 {
                    shelf.remove(hash(node.as_bytes()), node.as_bytes(), hash);
                    model.remove(&node);
                } else {
                    let token = format!("{number}{}", "t".repeat(length));
                    shelf.put(hash(node.as_bytes()), &Entry::new(&device(&node, token.clone()), 3), hash);
                    model.insert(node, token);
                }
                prop_assert_eq!(shelf.len(), model.len());
                prop_assert!(shelf.waste < LEAST_WASTE.max(shelf.bytes.length / 4), "waste is not kept");
            }
            for number in 0..40 {
                let node = format!("n{number}");
                let found = shelf.find(hash(node.as_bytes()), node.as_bytes());
                let token = found.and_then(|entry| entry.text(Field::Token));
                prop_assert_eq!(token.as_ref(), model.get(&node));
            }
        }
    }
}
