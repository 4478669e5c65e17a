//! The domains that publish, and the fingerprint of each.

use std::sync::{Arc, Mutex};

use fpush_policy::{Recency, SenderDomain};
use fpush_push::{TokenHasher, sync::lock};

/// Knows the domains that published last, so that their registrable domains are not looked up for each push. Clones share
/// one table.
#[derive(Clone, Debug)]
pub struct Senders {
    hasher: TokenHasher,
    table: Arc<Mutex<Recency<Arc<SenderDomain>>>>,
}

impl Senders {
    /// Knows none.
    #[must_use]
    pub fn new(hasher: TokenHasher) -> Self {
        Self {
            hasher,
            table: Arc::new(Mutex::new(Recency::new(MAX_SENDERS))),
        }
    }

    /// What makes fingerprints.
    #[must_use]
    pub fn hasher(&self) -> &TokenHasher {
        &self.hasher
    }

    /// The domain of this name.
    #[must_use]
    pub fn domain(&self, name: &str) -> Arc<SenderDomain> {
        let key = self.hasher.fingerprint(name);
        let mut table = lock(&self.table);
        if let Some(sender) = table.get(key) {
            return Arc::clone(sender);
        }
        let sender = Arc::new(SenderDomain::new(name, &self.hasher));
        table.touch(key, Arc::clone(&sender));
        sender
    }
}

/// Some 200 bytes each.
const MAX_SENDERS: u32 = 20_000;
