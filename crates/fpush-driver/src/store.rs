//! Where held pushes are written down.

use fpush_policy::{HeldChange, HeldRecord};
use tokio::sync::oneshot;

/// Writes down what a module holds. Nothing here waits: another thread does what takes time, in the order of the calls.
pub trait HeldStore: Send + Sync + 'static {
    /// Writes changes down. `Acknowledge` says who waits for that.
    fn write(&self, changes: Vec<HeldChange>, acknowledge: Option<Acknowledge>);

    /// Whether something is not written down yet.
    fn has_unwritten(&self) -> bool;

    /// Reads a part of all that is held, by ascending numbers from this one on. Where it cannot be read, nobody answers.
    fn read_part(&self, from: u64, most: usize) -> oneshot::Receiver<Part>;

    /// Reads held pushes by their numbers.
    fn read(&self, numbers: Vec<u64>) -> oneshot::Receiver<Read>;
}

/// Hears whether changes are written down, so that they outlast everything.
pub type Acknowledge = oneshot::Sender<bool>;

/// A part of all that is held, in the order of the numbers; the last one is shorter than was asked for.
pub type Part = Vec<(u64, HeldRecord)>;

/// What was read under each number; nothing where there is nothing that could be sent. What is not here cannot be read now.
pub type Read = Vec<(u64, Option<HeldRecord>)>;
