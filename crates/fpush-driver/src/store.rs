//! Where held pushes are written down.

use fpush_policy::{HeldChange, HeldRecord};
use tokio::sync::oneshot;

/// Writes down what a module holds. Nothing here waits: another thread does what takes time, in the order of the calls.
pub trait HeldStore: Send + Sync + 'static {
    /// Writes changes down. `Acknowledge` says who waits for that.
    fn write(&self, changes: Vec<HeldChange>, acknowledge: Option<Acknowledge>);

    /// Reads held pushes by their numbers.
    fn read(&self, numbers: Vec<u64>) -> oneshot::Receiver<Read>;
}

/// Hears whether changes are written down, so that they outlast everything.
pub type Acknowledge = oneshot::Sender<bool>;

/// What was read under each number; nothing where there is nothing that could be sent. What is not here cannot be read now.
pub type Read = Vec<(u64, Option<HeldRecord>)>;
