//! When pushes were accepted and refused, where, and with which secrets they came, gathered until it is written together.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

use fpush_push::sync::lock;

use crate::{device::Device, time::Time};

/// Times that are not written yet: at most one entry for each device.
#[derive(Default)]
pub(crate) struct Times {
    gathered: Mutex<HashMap<Box<str>, Noted>>,
}

/// What was noted of one device.
#[derive(Clone, Default)]
pub(crate) struct Noted {
    pub(crate) delivered: Option<Time>,
    pub(crate) failed: Option<Time>,
    /// Whether the last accepted push was in the second lane, if that is not where the one before was.
    pub(crate) in_second: Option<bool>,
    /// A secret that was replaced, and that a push came with nevertheless.
    pub(crate) former: Option<Box<str>>,
}

impl Times {
    /// Notes what became of a push. Does nothing while too much waits to be written.
    pub(crate) fn note(&self, node: &str, noted: Noted) {
        let mut gathered = self.lock();
        if let Some(known) = gathered.get_mut(node) {
            *known = noted.after(std::mem::take(known));
        } else if gathered.len() < MOST {
            gathered.insert(node.into(), noted);
        }
    }

    /// Takes some of what was noted.
    pub(crate) fn take(&self, most: usize) -> Vec<(Box<str>, Noted)> {
        let mut gathered = self.lock();
        if gathered.len() <= most {
            return gathered.drain().collect();
        }
        let nodes: Vec<_> = gathered.keys().take(most).cloned().collect();
        nodes
            .into_iter()
            .filter_map(|node| gathered.remove_entry(&node))
            .collect()
    }

    /// Puts back what could not be written.
    pub(crate) fn put_back(&self, taken: Vec<(Box<str>, Noted)>) {
        let mut gathered = self.lock();
        for (node, noted) in taken {
            let later = gathered.remove(&node).unwrap_or_default();
            gathered.insert(node, later.after(noted));
        }
    }

    /// Adds what was noted of a device.
    pub(crate) fn complete(&self, device: &mut Device) {
        if let Some(noted) = self.lock().get(device.node.as_str()) {
            device.delivered = noted.delivered.or(device.delivered);
            device.failed = noted.failed.or(device.failed);
            device.in_second = noted.in_second.unwrap_or(device.in_second);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Noted>> {
        lock(&self.gathered)
    }
}

impl Noted {
    fn after(self, earlier: Self) -> Self {
        Self {
            delivered: self.delivered.or(earlier.delivered),
            failed: self.failed.or(earlier.failed),
            in_second: self.in_second.or(earlier.in_second),
            former: self.former.or(earlier.former),
        }
    }
}

/// Devices whose times may wait: it takes 30 MB at most.
const MOST: usize = 200_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_times_are_kept() {
        let times = Times::default();
        let delivered = |at| Noted {
            delivered: Some(Time(at)),
            ..Noted::default()
        };
        times.note("a", delivered(1));
        times.note(
            "a",
            Noted {
                failed: Some(Time(2)),
                ..Noted::default()
            },
        );
        times.note("b", delivered(1));
        let taken = times.take(10);
        assert_eq!(taken.len(), 2);
        assert!(times.take(10).is_empty());
        times.note("a", delivered(3));
        times.put_back(taken);
        let (_, a) = times
            .take(10)
            .into_iter()
            .find(|(node, _)| &**node == "a")
            .unwrap();
        assert_eq!((a.delivered, a.failed), (Some(Time(3)), Some(Time(2))));
    }
}
