//! Who holds how much of what is acknowledged.

use std::collections::BTreeMap;

use fpush_push::Fingerprint;

use crate::{fair::Standing, job::SenderDomain};

/// Places and bytes that acknowledged pushes take, by registrable domain.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    places: usize,
    /// Bytes of what is encrypted in them.
    encrypted: usize,
    by_domain: BTreeMap<Fingerprint, Share>,
}

/// What a registrable domain has.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    places: usize,
    encrypted: usize,
}

/// How many places there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// For anybody.
    pub(crate) anybody: usize,
    /// Those included that are kept for known domains that hold less than a quarter of `anybody`.
    pub(crate) all: usize,
}

impl Shares {
    /// Whether one more push of a registrable domain may be acknowledged. A domain may hold as many as there are places for
    /// anybody. Beyond that some places are left to those who hold little, because what is acknowledged is not taken out
    /// again for others.
    pub(crate) fn has_room(&self, sender: &SenderDomain, bound: Bound) -> bool {
        let own = self.of(sender.share).places;
        match sender.last_accepted.standing() {
            Standing::Known if own >= bound.anybody / 4 => self.places < bound.anybody,
            Standing::Known => !self.is_full(bound),
            Standing::Unknown => own < MAX_OF_UNKNOWN && self.places < bound.anybody,
        }
    }

    /// Whether all places are taken.
    pub(crate) fn is_full(&self, bound: Bound) -> bool {
        self.places >= bound.all
    }

    /// Whether one more push may keep what is encrypted for its app. Beyond that it goes out plain, so that strangers do
    /// not fill the memory.
    pub(crate) fn has_room_for_encrypted(&self, share: Fingerprint) -> bool {
        let bound = if self.of(share).encrypted < MAX_ENCRYPTED / 4 {
            MAX_ENCRYPTED
        } else {
            MAX_ENCRYPTED / 2
        };
        self.encrypted < bound
    }

    pub(crate) fn add(&mut self, share: Fingerprint, places: usize, encrypted: usize) {
        self.places += places;
        self.encrypted += encrypted;
        let share = self.by_domain.entry(share).or_default();
        share.places += places;
        share.encrypted += encrypted;
    }

    pub(crate) fn take(&mut self, share: Fingerprint, places: usize, encrypted: usize) {
        self.places -= places;
        self.encrypted -= encrypted;
        if let Some(own) = self.by_domain.get_mut(&share) {
            own.places -= places;
            own.encrypted -= encrypted;
            if own.places == 0 {
                self.by_domain.remove(&share);
            }
        }
    }

    fn of(&self, share: Fingerprint) -> Share {
        self.by_domain.get(&share).copied().unwrap_or_default()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        (self.places, self.encrypted, self.by_domain.len()) == (0, 0, 0)
    }
}

/// For a domain of which no push was accepted.
const MAX_OF_UNKNOWN: usize = 1_000;
/// Bytes of what is encrypted, in all pushes of a module that wait.
const MAX_ENCRYPTED: usize = 16 * 1_024 * 1_024;
