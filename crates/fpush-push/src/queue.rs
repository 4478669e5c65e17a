//! Pushes that were acknowledged and wait for their time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
};

use tokio::time::Instant;
use uuid::Uuid;

use crate::{Clocks, HeldRecord, order::Order};

/// An acknowledged push.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) order: Box<Order>,
    /// Not before then.
    pub(crate) due: Instant,
    /// When it is given up; unknown until its first attempt.
    pub(crate) give_up: Option<Instant>,
    /// How often it has failed.
    pub(crate) attempts: u32,
}

impl Held {
    /// A push that was not tried yet.
    pub(crate) fn new(order: Box<Order>, due: Instant) -> Self {
        Self {
            order,
            due,
            give_up: None,
            attempts: 0,
        }
    }

    /// Bytes of what is encrypted in it.
    fn encrypted(&self) -> usize {
        let extra = self.order.push.extra.as_ref();
        let encrypted = extra.and_then(|extra| extra.encrypted.as_ref());
        encrypted.map_or(0, |encrypted| encrypted.iv.len() + encrypted.ciphertext.len())
    }
}

/// Held pushes in the order in which they are due.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// By number. Whatever comes gets a higher one than all before it, also if it comes again: so who reads them in pieces,
    /// by number, misses nothing that stays.
    waiting: BTreeMap<u64, Held>,
    next_number: u64,
    by_due: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Taken out to be sent, and not done with: whoever ends now must write these down as well.
    under_way: HashMap<Uuid, HeldRecord>,
    changes: u64,
    /// Bytes of what is encrypted in the waiting pushes.
    encrypted: usize,
}

impl Queue {
    /// Whether one more push may be acknowledged. A push that comes back after a failed attempt always has
    /// its place.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_HELD
    }

    /// Whether one more push may keep what is encrypted for its app. Beyond that it goes out plain, so that strangers do
    /// not fill the memory.
    pub(crate) fn has_room_for_encrypted(&self) -> bool {
        self.encrypted < MAX_ENCRYPTED
    }

    /// How many there are, those included that are being sent.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.under_way.len()
    }

    /// A part of what is held or being sent, from this number on, and the number at which the next part begins; none after
    /// the last one. A push that came again meanwhile is in two parts, and the later one counts.
    pub(crate) fn part(
        &self,
        from: u64,
        most: usize,
        clocks: Clocks,
    ) -> (Vec<(Uuid, HeldRecord)>, Option<u64>) {
        let mut numbered = self.waiting.range(from..);
        let record = |held: &Held| (held.order.push.id, HeldRecord::of(held, clocks));
        let mut part: Vec<_> = numbered
            .by_ref()
            .take(most)
            .map(|(_, held)| record(held))
            .collect();
        let next = numbered.next().map(|(number, _)| *number);
        if next.is_none() {
            part.extend(self.under_way.iter().map(|(id, record)| (*id, record.clone())));
        }
        (part, next)
    }

    /// How often something came or went.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    pub(crate) fn push(&mut self, held: Held) {
        self.changes += 1;
        self.under_way.remove(&held.order.push.id);
        self.encrypted += held.encrypted();
        self.by_due.push(Reverse((held.due, self.next_number)));
        self.waiting.insert(self.next_number, held);
        self.next_number += 1;
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.by_due.peek().map(|Reverse((due, _))| *due)
    }

    /// The first push that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Held> {
        if self.next_due()? <= now { self.pop() } else { None }
    }

    /// Takes out everything, due or not; what is due first comes first.
    pub(crate) fn take_all(&mut self) -> Vec<Held> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    fn pop(&mut self) -> Option<Held> {
        let Reverse((_, number)) = self.by_due.pop()?;
        let held = self.waiting.remove(&number)?;
        self.changes += 1;
        self.encrypted -= held.encrypted();
        self.under_way
            .insert(held.order.push.id, HeldRecord::of(&held, Clocks::read()));
        Some(held)
    }

    /// One that was taken out needs nothing more.
    pub(crate) fn done(&mut self, id: Uuid) {
        if self.under_way.remove(&id).is_some() {
            self.changes += 1;
        }
    }
}

const MAX_HELD: usize = 100_000;
/// Bytes of what is encrypted, in all pushes of a module that wait.
const MAX_ENCRYPTED: usize = 16 * 1_024 * 1_024;

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{Encrypted, Extra, TokenHasher};

    #[test]
    fn pushes_come_out_when_they_are_due_and_in_that_order() {
        let start = Instant::now();
        let hasher = TokenHasher::new().unwrap();
        let held = |seconds: u64| {
            let order = Order::any(hasher.fingerprint("t"));
            Held::new(order, start + Duration::from_secs(seconds))
        };
        let mut queue = Queue::default();
        for seconds in [3, 1, 2] {
            queue.push(held(seconds));
        }
        assert!(queue.pop_due(start).is_none());
        let now = start + Duration::from_secs(2);
        assert_eq!(
            queue.pop_due(now).map(|held| held.due),
            Some(start + Duration::from_secs(1))
        );
        assert_eq!(queue.pop_due(now).map(|held| held.due), Some(now));
        assert!(queue.pop_due(now).is_none());
        assert_eq!(queue.waiting.len(), 1);
        assert!(queue.has_room());
    }

    #[test]
    fn what_is_encrypted_is_counted_in_bytes() {
        let (now, hasher) = (Instant::now(), TokenHasher::new().unwrap());
        let mut queue = Queue::default();
        let kib = || {
            let mut order = Order::any(hasher.fingerprint("t"));
            let encrypted = Some(Encrypted {
                iv: "iv".into(),
                ciphertext: "x".repeat(1_022).into(),
            });
            order.push.extra = Some(Arc::new(Extra {
                account: None,
                channel: None,
                encrypted,
                call: false,
            }));
            Held::new(order, now)
        };
        for _ in 0..16 * 1_024 {
            assert!(queue.has_room_for_encrypted());
            queue.push(kib());
        }
        assert!(!queue.has_room_for_encrypted());
        let back = queue.pop_due(now).unwrap();
        assert!(queue.has_room_for_encrypted());
        queue.push(back);
        assert!(!queue.has_room_for_encrypted());
        queue.take_all();
        assert_eq!(queue.encrypted, 0);
    }

    /// Whatever happens between two parts: what stays is in one of them.
    #[test]
    fn nothing_that_stays_is_missed_by_who_reads_in_parts() {
        let clocks = Clocks::read();
        let hasher = TokenHasher::new().unwrap();
        let held = |due: u64| {
            let mut order = Order::any(hasher.fingerprint("t"));
            order.push.id = Uuid::new_v4();
            Held::new(order, clocks.now + Duration::from_secs(due))
        };
        let mut queue = Queue::default();
        for due in 0..10 {
            queue.push(held(due));
        }
        let all: Vec<_> = queue.waiting.values().map(|held| held.order.push.id).collect();
        let (mut seen, mut from, mut sent) = (Vec::new(), 0, None);
        for round in 0.. {
            let (part, next) = queue.part(from, 3, clocks);
            assert!(part.len() <= 3 + queue.under_way.len());
            seen.extend(part.into_iter().map(|(id, _)| id));
            // One comes back and is due first or last, one stays under way, one is done with.
            let far = clocks.now + Duration::from_secs(60);
            match round {
                0 => {
                    let mut again = queue.pop_due(far).unwrap();
                    again.due = clocks.now;
                    queue.push(again);
                    let mut again = queue.pop_due(far).unwrap();
                    again.due = far;
                    queue.push(again);
                    queue.push(held(0));
                }
                1 => drop(queue.pop_due(far).unwrap()),
                2 => {
                    let last = queue.pop_due(far).unwrap().order.push.id;
                    queue.done(last);
                    sent = Some(last);
                }
                _ => {}
            }
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        for id in all {
            assert!(seen.contains(&id) || sent == Some(id), "missed");
        }
    }
}
