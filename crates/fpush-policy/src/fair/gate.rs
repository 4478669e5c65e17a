//! A bound on what is under way, with a fair queue in front of it.

use super::{Entered, FairQueue, Sender, Ticket};

/// So many may be under way at a time; the others wait in a [`FairQueue`].
#[derive(Debug)]
pub struct Gate<K, T> {
    permits: usize,
    /// Permits that are out.
    out: usize,
    waiting: FairQueue<K, T>,
}

/// What somebody finds who comes to a [`Gate`].
#[derive(Debug, PartialEq, Eq)]
pub enum Passed<K, T> {
    /// A permit, to be given back by [`Gate::give_back`].
    Now(T),
    /// A place in the queue, or none.
    Entered(Entered<K, T>),
}

impl<K: Ord + Clone, T> Gate<K, T> {
    /// So many permits, and so many places in the queue.
    #[must_use]
    pub fn new(permits: usize, places: usize) -> Self {
        Self {
            permits,
            out: 0,
            waiting: FairQueue::new(places),
        }
    }

    /// How many permits are out, and how many wait for one.
    #[must_use]
    pub fn lengths(&self) -> (usize, usize) {
        (self.out, self.waiting.len())
    }

    /// Comes to the gate.
    pub fn enter(&mut self, sender: Sender<K>, item: T) -> Passed<K, T> {
        if self.out < self.permits {
            self.out += 1;
            return Passed::Now(item);
        }
        Passed::Entered(self.waiting.enter(sender, item))
    }

    /// Leaves the queue; `None` for who is not in it any more.
    pub fn leave(&mut self, ticket: &Ticket<K>) -> Option<T> {
        self.waiting.leave(ticket)
    }

    /// Gives a permit back. Returns who has it now.
    pub fn give_back(&mut self) -> Option<T> {
        let next = self.waiting.serve();
        if next.is_none() {
            self.out = self.out.saturating_sub(1);
        }
        next
    }
}
