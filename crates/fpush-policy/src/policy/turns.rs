//! Who is at the provider, and whose turn it is.

use fpush_push::Fingerprint;

use crate::fair::{Entered, FairQueue, Sender};

/// The pushes at the provider, and those that wait for a permit.
#[derive(Debug)]
pub(super) struct Turns<W> {
    pub(super) permits: usize,
    /// Permits that are out. They may be more for a while after `permits` became fewer.
    pub(super) out: usize,
    /// Those of them that held pushes have.
    pub(super) held_out: usize,
    /// Publishes whose senders wait for a reply.
    pub(super) waiting: FairQueue<Fingerprint, W>,
    /// Held pushes that are due, by their numbers.
    pub(super) due: FairQueue<Fingerprint, u64>,
    /// Whether a held push has the next turn, if one is due.
    pub(super) held_next: bool,
}

/// Who wants a permit.
pub(super) enum Wanting<W> {
    Waiter(W),
    Held(u64),
}

impl<W> Turns<W> {
    pub(super) fn new(permits: usize) -> Self {
        Self {
            permits,
            out: 0,
            held_out: 0,
            waiting: FairQueue::new(permits.saturating_mul(PLACES_PER_PERMIT)),
            // What is acknowledged has a place in the hold queue, and joins whatever waits here.
            due: FairQueue::new(0),
            held_next: false,
        }
    }

    pub(super) fn resize(&mut self, permits: usize) {
        self.permits = permits;
        self.waiting.set_places(permits.saturating_mul(PLACES_PER_PERMIT));
    }

    /// A permit, or else what a publish finds in the queue for one.
    pub(super) fn take(
        &mut self,
        sender: Sender<Fingerprint>,
        waiter: impl FnOnce() -> W,
    ) -> Option<Entered<Fingerprint, W>> {
        if self.out < self.permits {
            self.out += 1;
            return None;
        }
        Some(self.waiting.enter(sender, waiter()))
    }

    /// Publishes and held pushes take turns while both wait.
    pub(super) fn next(&mut self, without_held: bool) -> Option<Wanting<W>> {
        let held_waits = !without_held && !self.due.is_empty();
        let held_has_turn = held_waits && (self.held_next || self.waiting.is_empty());
        self.held_next = held_waits && !held_has_turn;
        if held_has_turn {
            self.due.serve().map(Wanting::Held)
        } else {
            self.waiting.serve().map(Wanting::Waiter)
        }
    }

    /// Whether anybody wants a permit.
    pub(super) fn is_wanted(&self) -> bool {
        !(self.waiting.is_empty() && self.due.is_empty())
    }
}

/// Publishes that may wait, for each push that may be at the provider; half of them from domains that are not known.
const PLACES_PER_PERMIT: usize = 20;
