//! What is to be told to the engine.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use fpush_policy::Change;
use fpush_push::sync::lock;
use tokio::{sync::Notify, time::Instant};

/// What is to be told, by lane. What waits here because the engine is away has the time that is left when it is told.
pub(crate) struct Outbox<L> {
    queue: Mutex<Queue<L>>,
    /// Something is to be told.
    pub(crate) filled: Notify,
    /// There is room again.
    room: Notify,
}

struct Queue<L> {
    groups: VecDeque<Group<L>>,
    /// In all groups.
    changes: usize,
    /// Something was dropped that can only be told from what is known.
    has_lost: bool,
}

struct Group<L> {
    lane: Arc<L>,
    changes: Vec<Change>,
    at: Instant,
}

impl<L> Default for Outbox<L> {
    fn default() -> Self {
        Self {
            queue: Mutex::new(Queue {
                groups: VecDeque::new(),
                changes: 0,
                has_lost: false,
            }),
            filled: Notify::new(),
            room: Notify::new(),
        }
    }
}

impl<L> Outbox<L> {
    pub(crate) fn add(&self, lane: Arc<L>, changes: Vec<Change>) {
        let mut queue = lock(&self.queue);
        queue.changes += changes.len();
        queue.groups.push_back(Group {
            lane,
            changes,
            at: Instant::now(),
        });
        if queue.changes > MOST_TO_TELL {
            queue.keep_what_lifts();
            queue.has_lost = true;
        }
        drop(queue);
        self.filled.notify_one();
    }

    /// Takes back what could not be told, to be told before all others.
    pub(crate) fn put_back(&self, lane: Arc<L>, changes: Vec<Change>) {
        let mut queue = lock(&self.queue);
        queue.changes += changes.len();
        queue.groups.push_front(Group {
            lane,
            changes,
            at: Instant::now(),
        });
    }

    /// Waits until there is room for what nobody is in a hurry with.
    pub(crate) async fn room(&self) {
        while lock(&self.queue).changes >= SOME_TO_TELL {
            self.room.notified().await;
        }
    }

    /// What is to be told first: of one lane, as much as goes at a time.
    pub(crate) fn next(&self) -> Option<(Arc<L>, Vec<Change>)> {
        let mut queue = lock(&self.queue);
        let now = Instant::now();
        let first = queue.groups.pop_front()?;
        queue.changes -= first.changes.len();
        let lane = Arc::clone(&first.lane);
        let mut changes = first.after(now);
        while changes.len() < AT_A_TIME
            && let Some(more) = queue.groups.pop_front_if(|next| Arc::ptr_eq(&next.lane, &lane))
        {
            queue.changes -= more.changes.len();
            changes.extend(more.after(now));
        }
        drop(queue);
        self.room.notify_one();
        Some((lane, changes))
    }

    /// Whether all has been told that was to be told.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.queue).groups.is_empty()
    }

    /// Whether something is not here any more that should have been told, since the last time.
    pub(crate) fn take_has_lost(&self) -> bool {
        std::mem::take(&mut lock(&self.queue).has_lost)
    }

    /// All that is known will be told. What is lifted is not known later, so that stays, once.
    pub(crate) fn keep_what_lifts(&self) {
        lock(&self.queue).keep_what_lifts();
        self.room.notify_one();
    }
}

impl<L> Queue<L> {
    fn keep_what_lifts(&mut self) {
        let mut seen = HashSet::new();
        for Group { lane, changes, .. } in &mut self.groups {
            let lane = Arc::as_ptr(lane);
            changes.retain(|change| match change {
                Change::Unblock(token) => seen.insert((lane, Some(*token))),
                Change::Resume => seen.insert((lane, None)),
                _ => {
                    debug_assert!(!change.lifts());
                    false
                }
            });
        }
        self.groups.retain(|group| !group.changes.is_empty());
        self.changes = self.groups.iter().map(|group| group.changes.len()).sum();
        // They are too many to be told one by one; a word from before them is not believed here.
        while self.changes > MOST_TO_TELL
            && let Some(group) = self.groups.pop_front()
        {
            self.changes -= group.changes.len();
        }
    }
}

impl<L> Group<L> {
    fn after(self, now: Instant) -> Vec<Change> {
        let late = now.duration_since(self.at);
        if late < MOMENT {
            return self.changes;
        }
        let changes = self.changes.into_iter();
        changes.filter_map(|change| change.after(late)).collect()
    }
}

/// Changes that wait to be told, some 50 bytes each.
const MOST_TO_TELL: usize = 200_000;
/// So few of them that others may be added that can wait.
const SOME_TO_TELL: usize = 2_000;
/// Changes that one script takes: for less than a millisecond nobody else is served.
pub(crate) const AT_A_TIME: usize = 100;
/// What is told so soon is told at once.
const MOMENT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use fpush_policy::BlockReason;
    use fpush_push::Fingerprint;
    use tokio::time::advance;

    use super::*;

    fn token(number: u64) -> Fingerprint {
        Fingerprint::from_parts([number, 0])
    }

    fn all<L>(outbox: &Outbox<L>) -> Vec<Change> {
        std::iter::from_fn(|| outbox.next())
            .flat_map(|(_, changes)| changes)
            .collect()
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn what_waited_for_the_engine_has_the_time_that_is_left() {
        let (outbox, lane) = (Outbox::default(), Arc::new(()));
        let block = |left| Change::Block(token(1), BlockReason::Doubted, left);
        outbox.add(
            Arc::clone(&lane),
            vec![Change::Pause(HOUR), block(HOUR), Change::Unblock(token(2))],
        );
        advance(HOUR / 4).await;
        outbox.add(Arc::clone(&lane), vec![Change::Pause(HOUR)]);
        advance(HOUR / 4).await;
        let (lane, told) = outbox.next().unwrap();
        let left = [
            Change::Pause(HOUR / 2),
            block(HOUR / 2),
            Change::Unblock(token(2)),
            Change::Pause(HOUR * 3 / 4),
        ];
        assert_eq!(told, left);
        // It was not told, and the pause is over when it is.
        outbox.put_back(lane, told);
        advance(3 * HOUR).await;
        assert_eq!(all(&outbox), [Change::Unblock(token(2))]);
        assert!(outbox.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn of_what_is_told_from_what_is_known_only_what_lifts_stays_and_once() {
        let (outbox, lanes) = (Outbox::default(), [Arc::new(1), Arc::new(2)]);
        for _ in 0..3 {
            for lane in &lanes {
                let changes = vec![
                    Change::Pause(HOUR),
                    Change::Resume,
                    Change::Unblock(token(1)),
                    Change::Window(token(1), HOUR),
                ];
                outbox.add(Arc::clone(lane), changes);
            }
        }
        outbox.keep_what_lifts();
        let lifts = [Change::Resume, Change::Unblock(token(1))];
        assert_eq!(all(&outbox), [lifts, lifts].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn a_bound_holds_and_it_is_known_that_something_is_lost() {
        let (outbox, lane) = (Outbox::default(), Arc::new(()));
        outbox.add(Arc::clone(&lane), vec![Change::Unblock(token(1))]);
        for number in 0..=MOST_TO_TELL as u64 {
            outbox.add(Arc::clone(&lane), vec![Change::Window(token(number), HOUR)]);
        }
        assert!(outbox.take_has_lost() && !outbox.take_has_lost());
        assert!(lock(&outbox.queue).changes < MOST_TO_TELL);
        assert_eq!(all(&outbox)[0], Change::Unblock(token(1)));
        for number in 0..=MOST_TO_TELL as u64 {
            outbox.add(Arc::clone(&lane), vec![Change::Unblock(token(number))]);
        }
        assert_eq!(lock(&outbox.queue).changes, MOST_TO_TELL);
    }
}
