//! All devices in memory.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use fpush_push::sync;
use hashbrown::HashTable;

use crate::{
    device::{Device, Dialect},
    entry::{Entry, Field},
    former,
    targets::Targets,
    text::secret_matches,
    time::Time,
};

/// All devices by their nodes. Looking one up costs no system call.
pub(crate) struct Cache {
    targets: Arc<Targets>,
    /// Nodes are chosen by strangers: the hash has a key.
    hasher: RandomState,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// Whether all devices are here, so that a node that is not here is none.
    complete: bool,
    devices: HashTable<Entry>,
    kinds: Vec<Kind>,
    numbers: HashMap<(Dialect, String), u32>,
}

/// A dialect and a push type or provider id.
struct Kind {
    dialect: Dialect,
    module: Arc<str>,
}

/// What the cache says about a node. Others may have registered devices of which it has not heard yet: only that a
/// device is there is certain.
pub(crate) enum Cached {
    Device {
        entry: Entry,
        /// Its push module.
        module: Arc<str>,
        /// Whether the secret was replaced, and this is the first push since then that comes with it.
        is_first_use: bool,
    },
    /// The device has another secret.
    WrongSecret,
    /// There is no such device.
    Nothing,
    /// The cache does not hold all devices yet.
    Incomplete,
}

impl Cache {
    pub(crate) fn new(targets: Arc<Targets>) -> Self {
        Self {
            targets,
            hasher: RandomState::new(),
            state: RwLock::default(),
        }
    }

    /// Looks up a node.
    pub(crate) fn find(&self, node: &str, secret: Option<&str>) -> Cached {
        let state = self.read();
        let hash = self.hasher.hash_one(node.as_bytes());
        let found = state
            .devices
            .find(hash, |entry| entry.with_node(|its| its == node.as_bytes()));
        match found {
            Some(entry) => {
                let kind = &state.kinds[entry.kind() as usize];
                let found = |is_first_use| Cached::Device {
                    entry: entry.clone(),
                    module: Arc::clone(&kind.module),
                    is_first_use,
                };
                if kind.dialect == Dialect::Tigase || entry.with_secret(|its| secret_matches(its, secret)) {
                    return found(false);
                }
                let former = former::from_text(entry.text(Field::Former).as_deref());
                match former::matching(&former, secret, Time::now()) {
                    Some(former) => found(!former.used),
                    None => Cached::WrongSecret,
                }
            }
            None if state.complete => Cached::Nothing,
            None => Cached::Incomplete,
        }
    }

    /// Puts a device in the place of one with the same node.
    pub(crate) fn put(&self, device: &Device) {
        let mut state = self.write();
        self.insert(&mut state, device);
    }

    /// Puts many devices.
    pub(crate) fn put_all(&self, devices: &[Device]) {
        let mut state = self.write();
        for device in devices {
            self.insert(&mut state, device);
        }
    }

    /// Forgets a node.
    pub(crate) fn remove(&self, node: &str) {
        let mut state = self.write();
        let hash = self.hasher.hash_one(node.as_bytes());
        let is_it = |entry: &Entry| entry.with_node(|its| its == node.as_bytes());
        if let Ok(entry) = state.devices.find_entry(hash, is_it) {
            entry.remove();
        }
    }

    /// Forgets everything, before all devices are put anew.
    pub(crate) fn clear(&self) {
        *self.write() = State::default();
    }

    /// From now on all devices are here.
    pub(crate) fn complete(&self) {
        let mut state = self.write();
        state.complete = true;
        let hasher = |entry: &Entry| entry.with_node(|node| self.hasher.hash_one(node));
        state.devices.shrink_to_fit(hasher);
    }

    /// How many devices there are, if all are here.
    pub(crate) fn len(&self) -> Option<usize> {
        let state = self.read();
        state.complete.then(|| state.devices.len())
    }

    fn insert(&self, state: &mut State, device: &Device) {
        let number = match state.numbers.get(&(device.dialect, device.kind.clone())) {
            Some(number) => *number,
            None => {
                let number = state.kinds.len() as u32;
                state.kinds.push(Kind {
                    dialect: device.dialect,
                    module: self.targets.of(device.dialect, &device.kind),
                });
                state
                    .numbers
                    .insert((device.dialect, device.kind.clone()), number);
                number
            }
        };
        let new = Entry::new(device, number);
        let hash = self.hasher.hash_one(device.node.as_bytes());
        let is_it = |entry: &Entry| entry.with_node(|its| its == device.node.as_bytes());
        let hasher = |entry: &Entry| entry.with_node(|node| self.hasher.hash_one(node));
        match state.devices.entry(hash, is_it, hasher) {
            hashbrown::hash_table::Entry::Occupied(mut entry) => *entry.get_mut() = new,
            hashbrown::hash_table::Entry::Vacant(entry) => drop(entry.insert(new)),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        sync::read(&self.state)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        sync::write(&self.state)
    }
}
