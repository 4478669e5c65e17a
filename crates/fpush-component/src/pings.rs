//! Pings that links have sent to themselves, so that one is known over whichever link it comes back.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use fpush_push::sync::lock;
use uuid::Uuid;

/// The pings that are on their way, by their ids.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    sent: Mutex<HashMap<String, Arc<AtomicBool>>>,
}

/// The pings of one link.
#[derive(Debug)]
pub(crate) struct Sent<'a> {
    pings: &'a Pings,
    ids: Vec<String>,
    arrived: Arc<AtomicBool>,
}

impl Pings {
    /// For a link that has sent none yet.
    pub(crate) fn watch(&self) -> Sent<'_> {
        Sent {
            pings: self,
            ids: Vec::new(),
            arrived: Arc::default(),
        }
    }

    /// A ping came, which may be one of ours: nobody else knows their ids.
    pub(crate) fn arrived(&self, id: &str) {
        if let Some(arrived) = lock(&self.sent).get(id) {
            arrived.store(true, Ordering::Relaxed);
        }
    }
}

impl Sent<'_> {
    /// Whether any of them has come back since this was asked before.
    pub(crate) fn has_arrived(&self) -> bool {
        self.arrived.swap(false, Ordering::Relaxed)
    }

    /// So many new ones take the place of the former ones. Returns their ids.
    pub(crate) fn renew(&mut self, count: usize) -> &[String] {
        self.forget();
        self.ids = (0..count).map(|_| Uuid::new_v4().simple().to_string()).collect();
        let sent = self.ids.iter().map(|id| (id.clone(), Arc::clone(&self.arrived)));
        lock(&self.pings.sent).extend(sent);
        &self.ids
    }

    fn forget(&mut self) {
        let mut sent = lock(&self.pings.sent);
        for id in self.ids.drain(..) {
            sent.remove(&id);
        }
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        self.forget();
    }
}
