//! The domains that publish: the fingerprint of each, and which of them are known.

use std::sync::{Arc, Mutex, MutexGuard};

use fpush_policy::{Clocks, KnownDomain, KnownDomains, LastAccepted, Recency, SenderDomain};
use fpush_push::{TokenHasher, sync::lock};

use crate::clock::clocks;

/// Knows the domains that published last, so that their registrable domains are not looked up for each push, and those of
/// which a push was accepted. Clones share both.
#[derive(Clone, Debug)]
pub struct Senders {
    hasher: TokenHasher,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug)]
struct Table {
    last: Recency<Arc<SenderDomain>>,
    known: KnownDomains,
}

impl Senders {
    /// Knows none.
    #[must_use]
    pub fn new(hasher: TokenHasher) -> Self {
        Self {
            hasher,
            table: Arc::new(Mutex::new(Table {
                last: Recency::new(MAX_SENDERS),
                known: KnownDomains::new(clocks()),
            })),
        }
    }

    /// What makes fingerprints.
    #[must_use]
    pub fn hasher(&self) -> &TokenHasher {
        &self.hasher
    }

    /// The domain of this name, as it is known now.
    #[must_use]
    pub fn domain(&self, name: &str) -> Arc<SenderDomain> {
        let key = self.hasher.domain(name);
        let mut table = self.lock();
        let Table { last, known } = &mut *table;
        let sender = match last.get(key) {
            Some(sender) => {
                let last_accepted = known.last_accepted(sender.share);
                if sender.last_accepted == last_accepted {
                    return Arc::clone(sender);
                }
                Arc::new(sender.accepted(last_accepted))
            }
            None => {
                let sender = SenderDomain::new(name, &self.hasher);
                Arc::new(sender.accepted(known.last_accepted(sender.share)))
            }
        };
        last.touch(key, Arc::clone(&sender));
        sender
    }

    /// A push of a domain was accepted.
    pub fn note_accepted(&self, sender: &SenderDomain) {
        // Nearly always, and then nothing is locked.
        if sender.last_accepted != LastAccepted::Today && sender.can_be_known() {
            self.lock().known.note_accepted(sender.share);
        }
    }

    /// Follows the wall clock. To be called once a second.
    pub fn follow_clock(&self, clocks: Clocks) {
        self.lock().known.follow_clock(clocks);
    }

    /// How often something changed of the known domains that should survive a restart.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.lock().known.changes()
    }

    /// A part of the known domains, to be written down; see [`KnownDomains::part`].
    #[must_use]
    pub fn known(&self, from: usize) -> (Vec<KnownDomain>, Option<usize>) {
        self.lock().known.part(from)
    }

    /// Takes the domains that were known before the daemon started.
    pub fn remember(&self, known: impl IntoIterator<Item = KnownDomain>) {
        self.lock().known.remember(known);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

/// Some 200 bytes each.
const MAX_SENDERS: u32 = 20_000;

#[cfg(test)]
mod tests {
    use fpush_push::network_name;

    use super::*;

    #[test]
    fn what_is_known_of_a_domain_is_known_of_all_its_names_at_once() {
        let senders = Senders::new(TokenHasher::new().unwrap());
        let last = |name: &str| senders.domain(name).last_accepted;
        let names = ["a.example.org", "b.example.org", "example.com"];
        assert_eq!(names.map(last), [LastAccepted::Never; 3]);
        senders.note_accepted(&senders.domain("a.example.org"));
        let (today, never) = (LastAccepted::Today, LastAccepted::Never);
        assert_eq!(names.map(last), [today, today, never]);
        assert!(Arc::ptr_eq(
            &senders.domain("example.com"),
            &senders.domain("example.com")
        ));
        let again = Senders::new(senders.hasher().clone());
        again.remember(senders.known(0).0);
        assert_eq!(again.domain("b.example.org").last_accepted, today);
    }

    /// An owner of an IPv6 network has thousands of them, and for nothing.
    #[test]
    fn clients_of_the_http_api_have_one_share_and_are_never_known() {
        let senders = Senders::new(TokenHasher::new().unwrap());
        let [one, two] = ["2001:db8:1::5", "192.0.2.7"].map(|address| {
            let sender = senders.domain(&network_name(address.parse().unwrap()));
            senders.note_accepted(&sender);
            senders.domain(&sender.name)
        });
        assert_eq!((&*one.name, &*two.name), ("2001:db8:1::/64", "192.0.2.7/32"));
        assert_eq!(one.share, two.share);
        assert_ne!(one.key, two.key, "each has its turns");
        assert_eq!(one.last_accepted, LastAccepted::Never);
        assert_ne!(one.share, senders.domain("192.0.2.7").share);
    }

    /// Tokens are hashed under the key of the instances with which this one shares.
    #[test]
    fn another_key_of_tokens_makes_no_known_domain_a_stranger() {
        let senders = Senders::new(TokenHasher::new().unwrap());
        senders.note_accepted(&senders.domain("a.example.org"));
        senders.hasher().set_key([9; 16]);
        for name in ["a.example.org", "b.example.org"] {
            assert_eq!(senders.domain(name).last_accepted, LastAccepted::Today, "{name}");
        }
    }

    #[test]
    fn a_domain_is_noted_once_a_day() {
        let senders = Senders::new(TokenHasher::new().unwrap());
        for _ in 0..10 {
            senders.note_accepted(&senders.domain("a.example"));
        }
        assert_eq!(senders.changes(), 1);
    }
}
