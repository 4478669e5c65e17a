//! Entries of devices, one after the other in one piece of memory: what a device takes beside its texts is a few bytes.

use hashbrown::{HashTable, hash_table};

use crate::entry::{Entry, Packed, push_number, read_number};

/// Some of the devices by the hashes of their nodes.
#[derive(Default)]
pub(crate) struct Shelf {
    /// The length of each entry, and the entry.
    bytes: Vec<u8>,
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
        self.bytes.capacity() + self.places.allocation_size()
    }

    /// The entry of a node with this hash.
    pub(crate) fn find(&self, hash: u64, node: &[u8]) -> Option<Packed<'_>> {
        let place = self.places.find(hash, |place| is_of(&self.bytes, *place, node))?;
        Some(entry(&self.bytes, *place))
    }

    /// Puts an entry, in the place of the one with the same node. `hasher` says the hash of a node.
    pub(crate) fn put(&mut self, hash: u64, new: &Entry, hasher: impl Fn(&[u8]) -> u64) {
        let place = self.bytes.len() as u32;
        self.write(new.packed());
        let bytes = &self.bytes;
        let is_it = |place: &u32| new.packed().with_node(|node| is_of(bytes, *place, node));
        let hash_of = |place: &u32| entry(bytes, *place).with_node(&hasher);
        match self.places.entry(hash, is_it, hash_of) {
            hash_table::Entry::Occupied(mut known) => {
                self.waste += size(bytes, *known.get());
                *known.get_mut() = place;
            }
            hash_table::Entry::Vacant(free) => drop(free.insert(place)),
        }
        self.tidy(hasher);
    }

    /// Forgets a node with this hash.
    pub(crate) fn remove(&mut self, hash: u64, node: &[u8], hasher: impl Fn(&[u8]) -> u64) {
        let bytes = &self.bytes;
        if let Ok(known) = self.places.find_entry(hash, |place| is_of(bytes, *place, node)) {
            self.waste += size(bytes, *known.get());
            known.remove();
        }
        self.tidy(hasher);
    }

    fn write(&mut self, entry: Packed<'_>) {
        let mut length = Vec::new();
        push_number(entry.bytes().len(), &mut length);
        let more = length.len() + entry.bytes().len();
        if self.bytes.capacity() - self.bytes.len() < more {
            // Not twice as much: it would be empty for the most part.
            self.bytes.reserve_exact(more.max(self.bytes.len() / SLACK));
        }
        self.bytes.extend(length);
        self.bytes.extend(entry.bytes());
    }

    /// Makes room if there is much waste.
    fn tidy(&mut self, hasher: impl Fn(&[u8]) -> u64) {
        if self.waste < LEAST_WASTE || self.waste < self.bytes.len() / 4 {
            return;
        }
        let mut tidy = Self {
            bytes: Vec::with_capacity(self.bytes.len() - self.waste),
            places: HashTable::with_capacity(self.places.len()),
            waste: 0,
        };
        for place in &self.places {
            let entry = entry(&self.bytes, *place);
            let place = tidy.bytes.len() as u32;
            tidy.write(entry);
            // None has to be moved.
            tidy.places.insert_unique(entry.with_node(&hasher), place, |_| 0);
        }
        *self = tidy;
    }
}

fn entry(bytes: &[u8], place: u32) -> Packed<'_> {
    let (length, rest) = read_number(&bytes[place as usize..]);
    Packed::read(&rest[..length])
}

fn is_of(bytes: &[u8], place: u32, node: &[u8]) -> bool {
    entry(bytes, place).with_node(|its| its == node)
}

/// How many bytes an entry takes, with its length.
fn size(bytes: &[u8], place: u32) -> usize {
    let from = &bytes[place as usize..];
    let (length, rest) = read_number(from);
    from.len() - rest.len() + length
}

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
                prop_assert!(shelf.waste < LEAST_WASTE.max(shelf.bytes.len() / 4), "waste is not kept");
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
