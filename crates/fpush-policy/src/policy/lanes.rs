//! The lanes of a module beside its main one.

use std::collections::BTreeMap;

use super::{origins::Origins, turns::Turns};
use crate::{
    health::ModuleHealth,
    verdict::{VerdictGuard, Whose},
};

/// The place of the second lane among the vendors, who are few.
pub(super) const SECOND: u8 = u8::MAX;

/// The lanes of a module beside its main one.
#[derive(Debug)]
pub(super) struct Lanes<W> {
    /// Those that the backend knows by name, as soon as something was sent to them. None is ever forgotten.
    pub(super) vendors: BTreeMap<u8, Box<Vendor<W>>>,
    pub(super) origins: Origins<W>,
    /// What vendors say of receivers for which senders sign themselves, each in a lane of its own.
    relayed: BTreeMap<u8, VerdictGuard>,
    permits: usize,
    digest: u128,
}

/// The lane of a provider that the backend knows by name.
#[derive(Debug)]
pub(super) struct Vendor<W> {
    pub(super) guard: VerdictGuard,
    pub(super) health: ModuleHealth,
    pub(super) turns: Turns<W>,
}

impl<W> Lanes<W> {
    pub(super) fn new(permits: usize, digest: u128) -> Self {
        Self {
            vendors: BTreeMap::new(),
            origins: Origins::new(permits, digest),
            relayed: BTreeMap::new(),
            permits,
            digest,
        }
    }

    /// Goes on with other settings.
    pub(super) fn configure(&mut self, permits: usize, digest: u128) {
        (self.permits, self.digest) = (permits, digest);
        for vendor in self.vendors.values_mut() {
            vendor.guard.go_on_under(digest);
            vendor.health = ModuleHealth::default();
            vendor.turns.resize(permits);
        }
        self.origins.words.go_on_under(digest);
        for guard in self.relayed.values_mut() {
            guard.go_on_under(digest);
        }
        self.origins.configure(permits);
    }

    /// A vendor's lane. It begins when it is asked for.
    pub(super) fn vendor(&mut self, vendor: u8) -> &mut Vendor<W> {
        let (permits, digest) = (self.permits, self.digest);
        self.vendors.entry(vendor).or_insert_with(|| {
            Box::new(Vendor {
                guard: VerdictGuard::of(Whose::Vendor(vendor), digest),
                health: ModuleHealth::default(),
                turns: Turns::new(permits),
            })
        })
    }

    /// What is known of a vendor's words about receivers for which senders sign themselves. It is not written down: after a
    /// restart those words begin again.
    pub(super) fn relayed(&mut self, vendor: u8) -> &mut VerdictGuard {
        let digest = self.digest;
        let guard = || VerdictGuard::of(Whose::Strangers, digest);
        self.relayed.entry(vendor).or_insert_with(guard)
    }

    /// What is known of the words of all of them.
    pub(super) fn guards(&self) -> impl Iterator<Item = &VerdictGuard> {
        let vendors = self.vendors.values().map(|vendor| &vendor.guard);
        vendors.chain([&self.origins.words]).chain(self.relayed.values())
    }

    /// The same, to be changed.
    pub(super) fn guards_mut(&mut self) -> impl Iterator<Item = &mut VerdictGuard> {
        let vendors = self.vendors.values_mut().map(|vendor| &mut vendor.guard);
        let beside = self.relayed.values_mut();
        vendors.chain([&mut self.origins.words]).chain(beside)
    }

    /// Pushes under way, and publishes that wait for a permit.
    pub(super) fn lengths(&self) -> (usize, usize) {
        let vendors = self.vendors.values();
        let vendors = vendors.map(|vendor| (vendor.turns.out, vendor.turns.waiting.len()));
        vendors
            .chain([self.origins.lengths()])
            .fold((0, 0), |(out, waiting), (more, wait)| {
                (out + more, waiting + wait)
            })
    }
}
