//! What the thread that writes is told.

use std::{
    sync::{Arc, Mutex, atomic::AtomicUsize, mpsc},
    time::Instant,
};

use fpush_driver::{Acknowledge, Part, Read};
use fpush_policy::HeldChange;
use tokio::sync::oneshot;

use super::table::SpoolModule;

/// What the thread and the others share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Pushes that are not written yet.
    pub(super) unwritten: AtomicUsize,
    pub(super) state: Mutex<Writing>,
}

/// How it goes.
#[derive(Debug, Default)]
pub(super) struct Writing {
    /// Since when it has been writing.
    pub(super) since: Option<Instant>,
    /// Why the last attempt failed.
    pub(super) trouble: Option<String>,
    /// Why something could not be read.
    pub(super) unreadable: Option<String>,
}

/// What the thread is to do.
pub(super) enum Order {
    Write(Arc<SpoolModule>, Vec<HeldChange>, Option<Acknowledge>),
    Read(Arc<SpoolModule>, Vec<u64>, oneshot::Sender<Read>),
    /// Reads so many at most, from this number on.
    ReadPart(Arc<SpoolModule>, u64, usize, oneshot::Sender<Part>),
    /// Forgets what modules hold that expired before then, in milliseconds since 1970.
    Expire(Vec<Arc<SpoolModule>>, u64, mpsc::Sender<Expired>),
    /// Says whether all that was ordered before is written.
    Flush(Box<dyn FnOnce(bool) + Send>),
}

/// How many pushes of a module have expired.
pub(crate) type Expired = (Arc<SpoolModule>, usize);
