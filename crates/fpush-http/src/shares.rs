//! Bounds that nobody can use up alone: so much for everybody together, and so much for each address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use fpush_push::{client_network, sync::lock};

/// Something that is there a limited number of times.
#[derive(Debug)]
pub(crate) struct Shares {
    all: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One of them; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    address: IpAddr,
}

impl Shares {
    /// So many for all addresses together, and so many for each.
    pub(crate) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self {
            all,
            each,
            taken: Mutex::default(),
        })
    }

    /// Takes one for an address, if it may have one more.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Share> {
        let address = client_network(address);
        let mut taken = self.lock();
        let by_address = taken.by_address.get(&address).copied().unwrap_or(0);
        if taken.all >= self.all || by_address >= self.each {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, by_address + 1);
        Some(Share {
            shares: Arc::clone(self),
            address,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        lock(&self.taken)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.lock();
        taken.all -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_what_each_may_have_and_all_together_not_more_than_there_is() {
        let shares = Shares::new(3, 2);
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        let first = shares.take(a).unwrap();
        let _second = shares.take(a).unwrap();
        assert!(shares.take(a).is_none());
        let _third = shares.take(b).unwrap();
        assert!(shares.take(b).is_none(), "there were three");
        drop(first);
        assert!(shares.take(a).is_some());
        assert_eq!(shares.lock().by_address.len(), 2);
    }
}
