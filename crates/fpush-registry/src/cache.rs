//! All devices in memory.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use crate::{
    device::{Device, Dialect},
    entry::{Entry, Field},
    former,
    shelf::Shelf,
    targets::Targets,
    text::secret_matches,
    time::Time,
};
use fpush_push::sync;

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
    /// By the hashes of the nodes: one that grows moves all that it holds at once, and look-ups wait for as long as that takes.
    shelves: Shelves,
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
        match state.shelves.of(hash).find(hash, node.as_bytes()) {
            Some(entry) => {
                let kind = &state.kinds[entry.kind() as usize];
                let found = |is_first_use| Cached::Device {
                    entry: entry.to_entry(),
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
        let shelf = state.shelves.of_mut(hash);
        shelf.remove(hash, node.as_bytes(), |node| self.hasher.hash_one(node));
    }

    /// Forgets everything, before all devices are put anew.
    pub(crate) fn clear(&self) {
        *self.write() = State::default();
    }

    /// From now on all devices are here.
    pub(crate) fn complete(&self) {
        self.write().complete = true;
    }

    /// Whether there is any device; `None` if none is here, and not all are.
    pub(crate) fn has_devices(&self) -> Option<bool> {
        let state = self.read();
        let is_any_here = state.shelves.0.iter().any(|shelf| shelf.len() > 0);
        (is_any_here || state.complete).then_some(is_any_here)
    }

    /// How many devices there are, if all are here.
    pub(crate) fn len(&self) -> Option<usize> {
        let state = self.read();
        let shelves = &state.shelves.0;
        state.complete.then(|| shelves.iter().map(Shelf::len).sum())
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
        let shelf = state.shelves.of_mut(hash);
        shelf.put(hash, &new, |node| self.hasher.hash_one(node));
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        sync::read(&self.state)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        sync::write(&self.state)
    }
}

struct Shelves(Box<[Shelf]>);

impl Default for Shelves {
    fn default() -> Self {
        Self((0..SHELVES).map(|_| Shelf::default()).collect())
    }
}

impl Shelves {
    fn of(&self, hash: u64) -> &Shelf {
        &self.0[Self::number(hash)]
    }

    fn of_mut(&mut self, hash: u64) -> &mut Shelf {
        &mut self.0[Self::number(hash)]
    }

    /// By bits that do not say where in a table something is.
    fn number(hash: u64) -> usize {
        ((u64::from((hash >> 16) as u32) * SHELVES) >> 32) as usize
    }
}

/// Of two million devices each has about six thousand, which are moved in half a millisecond.
const SHELVES: u64 = 320;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn seed(number: usize) -> Device {
        Device {
            dialect: Dialect::Seed,
            kind: "apns".to_owned(),
            node: format!("{number:016x}-device"),
            secret: format!("{:064x}", number * 7),
            token: format!("{:064x}", number * 9),
            voip_token: None,
            owner: Some("user@example.org".to_owned()),
            account: None,
            channel: None,
            registered: Time(1_767_225_600_000),
            renewed: None,
            delivered: None,
            failed: None,
            former: Vec::new(),
            imported: false,
            in_second: false,
        }
    }

    /// With a token as those of FCM are.
    fn p2(number: usize) -> Device {
        Device {
            dialect: Dialect::P2,
            kind: "fcm".to_owned(),
            node: format!("{number:064x}"),
            token: format!("{number:022}:APA91b{}", "-_Zz7".repeat(27).split_at(134).0),
            account: Some(format!("{number:040x}")),
            ..seed(number)
        }
    }

    #[test]
    fn a_device_takes_little_memory_and_no_shelf_is_large() {
        let devices = 200_000_usize;
        for (device, most) in [(seed as fn(usize) -> Device, 130), (p2, 260)] {
            let targets = Targets::new(BTreeMap::new(), BTreeMap::new());
            let cache = Cache::new(Arc::new(targets));
            for number in 0..devices {
                cache.put(&device(number));
            }
            let state = cache.read();
            let shelves = &state.shelves.0;
            let size: usize = shelves.iter().map(Shelf::size).sum();
            assert!(size / devices <= most, "{} bytes each", size / devices);
            let largest = shelves.iter().map(Shelf::len).max();
            assert!(largest < Some(devices / 320 * 3 / 2), "{largest:?}");
        }
    }
}
