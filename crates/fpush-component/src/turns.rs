//! Turns at the database of registered devices.
//!
//! So many requests may use it at a time. The others wait in turns by registrable domain, and inside each by full name, so
//! that a sender of many of them, under however many names, delays only itself.

use std::sync::{Arc, Mutex, MutexGuard};

use fpush_policy::{Entered, Gate, Passed, Sender, Ticket};
use fpush_push::{Fingerprint, sync::lock};
use tokio::{
    sync::oneshot,
    time::{Duration, timeout},
};

/// The turns of one kind of requests.
#[derive(Debug)]
pub(crate) struct Turns {
    small: Mutex<Waiters>,
    large: Mutex<Waiters>,
}

type Waiters = Gate<Fingerprint, oneshot::Sender<Turn>>;

/// How many requests of a size may be under way, and how many may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) under_way: usize,
    pub(crate) waiting: usize,
}

/// Requests of a few bytes and large ones have bounds of their own, which makes them bounds in bytes.
#[derive(Clone, Copy, Debug)]
enum Size {
    Small,
    Large,
}

/// The right to use the database; whose turn is next has it when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    size: Size,
}

/// A place among those that wait. Dropped, it is given up.
#[derive(Debug)]
pub(crate) enum Place {
    /// Its turn has come.
    First(Turn),
    Waiting(Waiting),
}

#[derive(Debug)]
pub(crate) struct Waiting {
    turns: Arc<Turns>,
    size: Size,
    ticket: Ticket<Fingerprint>,
    turn: oneshot::Receiver<Turn>,
}

impl Turns {
    /// With these bounds for small requests, and these for large ones.
    pub(crate) fn new(small: Bounds, large: Bounds) -> Arc<Self> {
        let gate = |bounds: Bounds| Mutex::new(Gate::new(bounds.under_way, bounds.waiting));
        Arc::new(Self {
            small: gate(small),
            large: gate(large),
        })
    }

    /// A place for a request of which so many bytes are kept while it waits. `None` if there is none, because others have
    /// as much right to theirs, or because it is larger than any that makes sense.
    pub(crate) fn enter(self: &Arc<Self>, sender: Sender<Fingerprint>, bytes: usize) -> Option<Place> {
        let size = Size::of(bytes)?;
        let (waker, turn) = oneshot::channel();
        // Unlocked before anything is dropped: a turn that is dropped locks.
        let passed = self.waiters(size).enter(sender, waker);
        let ticket = match passed {
            Passed::Now(_) => return Some(Place::First(self.turn(size))),
            // Dropped, the displaced one hears that it has no turn.
            Passed::Entered(Entered::Waiting(ticket) | Entered::Displacing(ticket, _)) => ticket,
            Passed::Entered(Entered::Full(_)) => return None,
        };
        Some(Place::Waiting(Waiting {
            turns: Arc::clone(self),
            size,
            ticket,
            turn,
        }))
    }

    fn turn(self: &Arc<Self>, size: Size) -> Turn {
        Turn {
            turns: Arc::clone(self),
            size,
        }
    }

    fn waiters(&self, size: Size) -> MutexGuard<'_, Waiters> {
        lock(match size {
            Size::Small => &self.small,
            Size::Large => &self.large,
        })
    }
}

impl Size {
    /// `None` for more than any request has that makes sense.
    fn of(bytes: usize) -> Option<Self> {
        if bytes <= SMALL {
            Some(Self::Small)
        } else if bytes <= LARGE {
            Some(Self::Large)
        } else {
            None
        }
    }
}

impl Place {
    /// Waits for its turn; `None` if that takes too long, or if a newcomer with a smaller share has taken the place.
    pub(crate) async fn turn(self) -> Option<Turn> {
        match self {
            Self::First(turn) => Some(turn),
            Self::Waiting(mut waiting) => timeout(PATIENCE, &mut waiting.turn).await.ok()?.ok(),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A turn that has come meanwhile goes back as soon as the receiver is dropped.
        let left = self.turns.waiters(self.size).leave(&self.ticket);
        drop(left);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = self.turns.waiters(self.size).give_back();
        if let Some(waker) = next {
            // Who is gone drops it, and it goes to the next.
            drop(waker.send(self.turns.turn(self.size)));
        }
    }
}

/// Bytes of a small request: nearly all are, those with an encrypted notification of 3,000 bytes included.
const SMALL: usize = 4 * 1_024;
/// Bytes of a large one: more than the longest fields that make sense have together.
const LARGE: usize = 32 * 1_024;
/// How long a turn may be waited for. Then the database has 2 s, and the server that waits is told after 5 s.
const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use fpush_policy::Standing;
    use futures_util::{FutureExt as _, poll};

    use super::*;

    fn turns() -> Arc<Turns> {
        let (small, large) = (
            Bounds {
                under_way: 1,
                waiting: 20,
            },
            Bounds {
                under_way: 1,
                waiting: 2,
            },
        );
        Turns::new(small, large)
    }

    fn sender(share: u64, name: u64) -> Sender<Fingerprint> {
        Sender {
            share: Fingerprint::from_parts([share, 0]),
            name: Fingerprint::from_parts([name, 1]),
            standing: Standing::Known,
        }
    }

    /// A place, and its turn once it has come.
    fn enter(turns: &Arc<Turns>, sender: Sender<Fingerprint>) -> impl Future<Output = Option<Turn>> {
        Box::pin(turns.enter(sender, 1).unwrap().turn())
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_under_many_names_delays_only_itself() {
        let turns = turns();
        let first = enter(&turns, sender(1, 0)).await.unwrap();
        let mut flood: Vec<_> = (1..=20).map(|name| enter(&turns, sender(1, name))).collect();
        assert!(
            turns.enter(sender(1, 0), 1).is_none(),
            "it has all places, and no more"
        );
        let other = enter(&turns, sender(2, 0));
        let displaced = flood.pop().unwrap();
        assert!(displaced.now_or_never().unwrap().is_none());
        drop(first);
        // One of the flood at most comes before it.
        let turn = flood.remove(0).now_or_never().unwrap().unwrap();
        drop(turn);
        assert!(other.now_or_never().unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_no_trace() {
        let turns = turns();
        let first = enter(&turns, sender(1, 0)).await.unwrap();
        for _ in 0..100 {
            assert!(enter(&turns, sender(1, 0)).await.is_none(), "it takes too long");
        }
        assert_eq!(turns.waiters(Size::Small).lengths(), (1, 0));
        // Its turn comes at the very moment when it gives up.
        let mut second = enter(&turns, sender(1, 0));
        assert!(matches!(poll!(&mut second), Poll::Pending));
        let third = enter(&turns, sender(1, 0));
        drop(first);
        drop(second);
        drop(third.now_or_never().unwrap());
        assert_eq!(turns.waiters(Size::Small).lengths(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn large_requests_take_no_place_of_small_ones() {
        let turns = turns();
        let large: Vec<_> = (0..4).map(|_| turns.enter(sender(1, 0), SMALL + 1)).collect();
        assert_eq!(large.iter().flatten().count(), 3);
        assert!(turns.enter(sender(1, 0), LARGE + 1).is_none());
        assert!(matches!(turns.enter(sender(1, 0), SMALL), Some(Place::First(_))));
    }
}
