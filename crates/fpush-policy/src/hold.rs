//! Pushes that were acknowledged and wait for their time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use fpush_push::{Class, Fingerprint, TokenHasher};
use uuid::Uuid;

use crate::{
    job::{PushJob, SenderDomain},
    limiter::Target,
    shares::{Bound, Shares},
};

/// An acknowledged push. It is in the queue until it is done with, also while it is sent.
#[derive(Debug)]
pub(crate) struct HeldPush {
    pub(crate) job: Box<PushJob>,
    pub(crate) state: HeldState,
    /// Not before then.
    pub(crate) due: Instant,
    /// When it is given up; unknown until its first attempt where nothing is held for outages.
    pub(crate) expires: Option<Instant>,
    /// Whether it comes from the spool: then a newer push to the device may be under way.
    pub(crate) is_spooled: bool,
    /// How often it has failed.
    pub(crate) attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldState {
    /// It waits until it is due.
    Waiting,
    /// It is due, and wants a permit.
    Due,
    /// An attempt is under way. Another push may be queued for its key meanwhile.
    UnderWay,
}

/// All acknowledged pushes of a module, by number.
#[derive(Debug, Default)]
pub(crate) struct HoldQueue {
    pushes: BTreeMap<u64, HeldPush>,
    /// The one that waits for each key and class, or is due.
    queued: BTreeMap<Fingerprint, u64>,
    /// Those that wait until they are due.
    by_due: BTreeSet<(Instant, u64)>,
    /// The numbers of those that have come, changed or gone, if that is to be written down.
    touched: Option<Vec<u64>>,
    shares: Shares,
    /// How many come from the spool.
    spooled: usize,
}

impl HeldPush {
    /// A push that was not tried yet.
    pub(crate) fn new(job: Box<PushJob>, due: Instant, expires: Option<Instant>) -> Self {
        Self {
            job,
            state: HeldState::Waiting,
            due,
            expires,
            is_spooled: false,
            attempts: 0,
        }
    }
}

impl HeldPush {
    /// One from the spool, whose turn is near.
    pub(crate) fn spooled(job: Box<PushJob>, now: Instant, expires: Instant) -> Self {
        Self {
            state: HeldState::Due,
            is_spooled: true,
            ..Self::new(job, now, Some(expires))
        }
    }

    /// Whether its provider could not take it, or was known to be away: then it waits for that, and not for its window.
    pub(crate) fn waits_for_provider(&self) -> bool {
        self.is_spooled || self.attempts > 0
    }

    /// The same push for another one of its key, too: with what the newer one carries, at the time of this one.
    pub(crate) fn merged(self, other: Self) -> Self {
        let is_newer = other.job.arrived > self.job.arrived;
        Self {
            expires: self.expires.max(other.expires),
            job: if is_newer { other.job } else { self.job },
            ..self
        }
    }
}

impl HoldQueue {
    /// Whether one more push of a registrable domain may be acknowledged.
    pub(crate) fn has_room(&self, sender: &SenderDomain) -> bool {
        self.shares.has_room(sender, BOUND)
    }

    /// Whether all places are taken.
    pub(crate) fn is_full(&self) -> bool {
        self.shares.is_full(BOUND)
    }

    /// Whether one more push may keep what is encrypted for its app.
    pub(crate) fn has_room_for_encrypted(&self, share: Fingerprint) -> bool {
        self.shares.has_room_for_encrypted(share)
    }

    /// From now on it takes note of what changes.
    pub(crate) fn begin_noting(&mut self) {
        self.touched.get_or_insert_default();
    }

    /// What has changed since this was called last, by numbers.
    pub(crate) fn take_touched(&mut self) -> Vec<u64> {
        self.touched.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A push has changed, or gone.
    pub(crate) fn touch(&mut self, number: u64) {
        if let Some(touched) = &mut self.touched {
            touched.push(number);
        }
    }

    /// How many there are, those included that are being sent.
    pub(crate) fn len(&self) -> usize {
        self.pushes.len()
    }

    /// How many of them waited until their provider is back.
    pub(crate) fn spooled(&self) -> usize {
        self.spooled
    }

    /// When the queued push of a key and class is due.
    pub(crate) fn queued(&self, target: Target) -> Option<Instant> {
        self.queued_push(target).map(|held| held.due)
    }

    /// The queued push of a key and class.
    pub(crate) fn queued_push(&self, target: Target) -> Option<&HeldPush> {
        if self.queued.is_empty() {
            return None;
        }
        self.pushes.get(self.queued.get(&target.slot_key())?)
    }

    /// Adds a push under a number of its own, as the queued one of its key.
    pub(crate) fn push(&mut self, number: u64, held: HeldPush) {
        self.touch(number);
        self.add(number, held);
    }

    /// Adds a push that is written down already as it is.
    pub(crate) fn add(&mut self, number: u64, held: HeldPush) {
        let job = &held.job;
        self.shares.add(job.sender.share, places(job), job.encrypted());
        self.spooled += usize::from(held.is_spooled);
        self.queued.insert(held.job.target().slot_key(), number);
        if held.state == HeldState::Waiting {
            self.by_due.insert((held.due, number));
        }
        self.pushes.insert(number, held);
    }

    /// Puts a newer push in the place of the queued one of its key; both go out at the time of the first.
    pub(crate) fn renew(&mut self, job: Box<PushJob>, expires: Instant) -> Option<u64> {
        let number = *self.queued.get(&job.target().slot_key())?;
        let held = self.pushes.get_mut(&number)?;
        if held.state == HeldState::Due && held.job.lane != job.lane {
            // Its turn is in another lane than the one that it waits for.
            (held.state, held.due) = (HeldState::Waiting, job.arrived);
            self.by_due.insert((held.due, number));
        }
        let before = (places(&held.job), held.job.encrypted());
        let after = (places(&job), job.encrypted());
        let (old, new) = (held.job.sender.share, job.sender.share);
        held.expires = held.expires.max(Some(expires));
        held.job = job;
        self.shares.take(old, before.0, before.1);
        self.shares.add(new, after.0, after.1);
        self.touch(number);
        Some(number)
    }

    /// The queued push of a key and class is worth something until then, too. Returns whether there is one.
    pub(crate) fn extend(&mut self, target: Target, expires: Instant) -> bool {
        let Some(&number) = self.queued.get(&target.slot_key()) else {
            return false;
        };
        if let Some(held) = self.pushes.get_mut(&number) {
            held.expires = held.expires.map(|until| until.max(expires));
        }
        self.touch(number);
        true
    }

    /// Takes out what a push that was accepted covers, as the spool does: the one that is queued for the same key, if it waits for the
    /// provider and came before that one.
    pub(crate) fn cover(&mut self, target: Target, arrived: Instant) -> bool {
        let is_covered = |held: &HeldPush| held.waits_for_provider() && held.job.arrived <= arrived;
        self.queued_push(target).is_some_and(is_covered) && self.remove_queued(target).is_some()
    }

    /// A push by its number.
    pub(crate) fn get(&self, number: u64) -> Option<&HeldPush> {
        self.pushes.get(&number)
    }

    /// When the first one that waits is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// Takes note that the first push that waits is due, if it is, or if all are to go out now.
    pub(crate) fn pop_due(&mut self, now: Instant, all: bool) -> Option<(u64, &PushJob)> {
        let (due, number) = *self.by_due.first()?;
        if due > now && !all {
            return None;
        }
        self.by_due.pop_first();
        let held = self.pushes.get_mut(&number)?;
        held.state = HeldState::Due;
        Some((number, &held.job))
    }

    /// A push that is due.
    pub(crate) fn due(&self, number: u64) -> Option<&HeldPush> {
        self.pushes
            .get(&number)
            .filter(|held| held.state == HeldState::Due)
    }

    /// Makes a push that was not tried wait until then.
    pub(crate) fn postpone(&mut self, number: u64, due: Instant) {
        if let Some(held) = self.pushes.get_mut(&number) {
            (held.state, held.due) = (HeldState::Waiting, due);
            self.by_due.insert((due, number));
            self.touch(number);
        }
    }

    /// A push, whatever it does.
    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut HeldPush> {
        self.pushes.get_mut(&number)
    }

    /// Begins an attempt: from now on another push may be queued for its key.
    pub(crate) fn begin(&mut self, number: u64) -> Option<&mut HeldPush> {
        let held = self.pushes.get_mut(&number)?;
        held.state = HeldState::UnderWay;
        let key = held.job.target().slot_key();
        if self.queued.get(&key) == Some(&number) {
            self.queued.remove(&key);
        }
        Some(held)
    }

    /// Makes a push whose attempt failed wait until then. A newer one that is queued for its key takes its number, and waits as
    /// before: it may not be written down yet, and what is under this number is acknowledged. Returns whether that was so.
    pub(crate) fn requeue(&mut self, number: u64, due: Instant) -> bool {
        let Some(mut held) = self.take(number) else {
            return false;
        };
        let newer = self.remove_queued(held.job.target());
        let is_covered = newer.is_some();
        match newer {
            Some(newer) => held = newer,
            None => held.due = due,
        }
        held.state = HeldState::Waiting;
        self.push(number, held);
        is_covered
    }

    /// Takes out a push that needs nothing more.
    pub(crate) fn remove(&mut self, number: u64) -> Option<HeldPush> {
        let held = self.take(number)?;
        self.touch(number);
        Some(held)
    }

    /// Takes out a push that goes on elsewhere.
    pub(crate) fn take(&mut self, number: u64) -> Option<HeldPush> {
        let held = self.pushes.remove(&number)?;
        self.spooled -= usize::from(held.is_spooled);
        self.shares
            .take(held.job.sender.share, places(&held.job), held.job.encrypted());
        self.by_due.remove(&(held.due, number));
        let key = held.job.target().slot_key();
        if self.queued.get(&key) == Some(&number) {
            self.queued.remove(&key);
        }
        Some(held)
    }

    /// Makes a push that waits wait until then, if that is later.
    pub(crate) fn delay(&mut self, number: u64, due: Instant) {
        if let Some(held) = self.pushes.get_mut(&number)
            && held.state == HeldState::Waiting
            && held.due < due
        {
            self.by_due.remove(&(held.due, number));
            held.due = due;
            self.by_due.insert((due, number));
            self.touch(number);
        }
    }

    /// Takes out the push with this id, if it waits. A later one, which has taken its number, stays.
    pub(crate) fn remove_waiting(&mut self, number: u64, id: Uuid) -> Option<HeldPush> {
        let held = self.pushes.get(&number)?;
        if held.state == HeldState::Waiting && held.job.push.id == id {
            self.remove(number)
        } else {
            None
        }
    }

    /// The keys of a part of those that wait, from this number on, with the times at which they are due, and the number at
    /// which the next part begins.
    pub(crate) fn waiting_part(&self, from: u64, most: usize) -> (Vec<(Fingerprint, Instant)>, Option<u64>) {
        let mut numbered = self.pushes.range(from..);
        let part = numbered
            .by_ref()
            .take(most)
            .filter(|(_, held)| held.state == HeldState::Waiting)
            .map(|(_, held)| (held.job.target().slot_key(), held.due))
            .collect();
        (part, numbered.next().map(|(number, _)| *number))
    }

    /// Finds all under the fingerprints that this makes.
    pub(crate) fn rekey(&mut self, hasher: &TokenHasher) {
        self.queued.clear();
        for (number, held) in &mut self.pushes {
            held.job.rekey(hasher);
            if held.state != HeldState::UnderWay {
                self.queued.insert(held.job.target().slot_key(), *number);
            }
        }
    }

    /// Takes out the queued push of a key and class.
    pub(crate) fn remove_queued(&mut self, target: Target) -> Option<HeldPush> {
        let number = *self.queued.get(&target.slot_key())?;
        self.remove(number)
    }

    /// Takes out what is queued for a key, of all classes, if it is for this token: it is dead. Returns the keys of
    /// those.
    pub(crate) fn remove_dead(&mut self, key: Fingerprint, token: Fingerprint) -> Vec<Fingerprint> {
        let mut removed = Vec::new();
        for class in [Class::High, Class::Low, Class::Voip] {
            let key = key.with_class(class);
            let number = self.queued.get(&key).copied();
            let is_dead = |number: &u64| {
                self.pushes
                    .get(number)
                    .is_some_and(|held| held.job.token == token)
            };
            if let Some(number) = number.filter(is_dead) {
                self.remove(number);
                removed.push(key);
            }
        }
        removed
    }
}

/// How many places a push takes: one, unless it is longer than those of real devices. So a bound in places is one in bytes,
/// too.
pub(crate) fn places(job: &PushJob) -> usize {
    1 + job.texts() / LONGEST_OF_A_PLACE
}

/// Bytes of a push that takes one place, without what is encrypted in it: tokens have 64 to 250, nodes 70, hashes of accounts 40.
const LONGEST_OF_A_PLACE: usize = 512;
/// All in memory.
const BOUND: Bound = Bound {
    anybody: 100_000,
    all: 150_000,
};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fpush_push::{Encrypted, Extra};

    use super::*;
    use crate::{
        known::LastAccepted,
        testing::{job, job_of},
    };

    fn held(job: Box<PushJob>, due: Instant) -> HeldPush {
        HeldPush::new(job, due, Some(due + Duration::from_secs(600)))
    }

    /// Under the next number.
    fn push(queue: &mut HoldQueue, (job, due): (Box<PushJob>, Instant)) {
        let number = queue.pushes.last_key_value().map_or(0, |(last, _)| last + 1);
        queue.push(number, held(job, due));
    }

    fn numbers(queue: &HoldQueue) -> Vec<u64> {
        queue.pushes.keys().copied().collect()
    }

    #[test]
    fn pushes_come_out_when_they_are_due_and_in_that_order() {
        let start = Instant::now();
        let mut queue = HoldQueue::default();
        for seconds in [3, 1, 2] {
            let due = start + Duration::from_secs(seconds);
            push(&mut queue, (job(&seconds.to_string()), due));
        }
        assert!(queue.pop_due(start, false).is_none());
        let now = start + Duration::from_secs(2);
        assert_eq!(queue.pop_due(now, false).map(|(number, _)| number), Some(1));
        assert_eq!(queue.pop_due(now, false).map(|(number, _)| number), Some(2));
        assert!(queue.pop_due(now, false).is_none());
        assert_eq!(queue.pop_due(now, true).map(|(number, _)| number), Some(0));
    }

    #[test]
    fn a_push_that_has_to_wait_longer_is_written_down_anew() {
        let (mut queue, now) = (HoldQueue::default(), Instant::now());
        push(&mut queue, (job("t"), now));
        queue.begin_noting();
        assert!(queue.pop_due(now, false).is_some());
        queue.postpone(0, now + Duration::from_secs(60));
        assert_eq!(queue.take_touched(), [0]);
    }

    #[test]
    fn a_newer_push_for_the_key_stands_for_one_that_failed() {
        let (mut queue, now) = (HoldQueue::default(), Instant::now());
        push(&mut queue, (job("t"), now));
        assert!(queue.pop_due(now, false).is_some());
        assert!(queue.queued(job("t").target()).is_some());
        assert!(queue.begin(0).is_some());
        assert_eq!(queue.queued(job("t").target()), None);
        assert!(!queue.requeue(0, now));
        assert!(queue.pop_due(now, false).is_some());
        assert!(queue.begin(0).is_some());
        let later = now + Duration::from_secs(60);
        push(&mut queue, (job("t"), later));
        assert!(queue.requeue(0, now));
        assert_eq!(numbers(&queue), [0]);
        assert_eq!(queue.queued(job("t").target()), Some(later));
        let dead = job("t");
        assert_eq!(
            queue.remove_dead(dead.key, dead.token),
            [dead.target().slot_key()]
        );
        assert_eq!((queue.len(), queue.next_due()), (0, None));
    }

    fn sender(domain: &str, last_accepted: LastAccepted) -> SenderDomain {
        job_of(domain, "").sender.accepted(last_accepted)
    }

    #[test]
    fn a_domain_has_all_places_and_others_their_reserve() {
        let (mut queue, now) = (HoldQueue::default(), Instant::now());
        let fill = |queue: &mut HoldQueue, domain: &str, last, most: usize| {
            let mut filled = 0;
            while filled < most && queue.has_room(&sender(domain, last)) {
                push(queue, (job_of(domain, &filled.to_string()), now));
                filled += 1;
            }
            filled
        };
        assert_eq!(
            fill(&mut queue, "stranger.org", LastAccepted::Never, usize::MAX),
            1_000
        );
        let left = BOUND.anybody - 1_000;
        assert_eq!(
            fill(&mut queue, "one.org", LastAccepted::Lately, usize::MAX),
            left
        );
        assert_eq!(fill(&mut queue, "a.one.org", LastAccepted::Lately, usize::MAX), 0);
        assert_eq!(
            fill(&mut queue, "two.org", LastAccepted::Lately, usize::MAX),
            BOUND.anybody / 4
        );
        assert_eq!(fill(&mut queue, "three.org", LastAccepted::Lately, 10), 10);
        assert_eq!(fill(&mut queue, "other.org", LastAccepted::Never, usize::MAX), 0);
        for number in numbers(&queue) {
            assert!(queue.remove(number).is_some());
        }
        assert!(queue.shares.is_empty() && queue.queued.is_empty() && queue.by_due.is_empty());
    }

    #[test]
    fn a_push_that_is_longer_than_those_of_real_devices_takes_more_places() {
        let (mut queue, now) = (HoldQueue::default(), Instant::now());
        let token = |number: usize| format!("{number:04096}");
        let sender = sender("one.org", LastAccepted::Lately);
        let mut bytes = 0;
        while queue.has_room(&sender) {
            let job = job_of("one.org", &token(queue.len()));
            push(&mut queue, (job, now));
            bytes += 4_096;
        }
        assert!(bytes < 50_000_000 && queue.len() > 10_000, "{bytes}");
        for number in numbers(&queue) {
            assert!(queue.remove(number).is_some());
        }
        assert!(queue.shares.is_empty());
    }

    #[test]
    fn what_is_encrypted_is_counted_in_bytes() {
        let (mut queue, now) = (HoldQueue::default(), Instant::now());
        let kib = |domain: &str, number: usize| {
            let mut job = job_of(domain, &number.to_string());
            let encrypted = Some(Encrypted {
                iv: "iv".into(),
                ciphertext: "x".repeat(1_022).into(),
            });
            job.push.extra = Some(std::sync::Arc::new(Extra {
                account: None,
                channel: None,
                encrypted,
                call: false,
            }));
            held(job, now)
        };
        let share = |domain: &str| job_of(domain, "").sender.share;
        let mut number = 0;
        while queue.has_room_for_encrypted(share("one.org")) {
            queue.push(number as u64, kib("one.org", number));
            number += 1;
        }
        assert_eq!(number, 8 * 1_024, "half of it");
        while queue.has_room_for_encrypted(share("two.org")) {
            queue.push(number as u64, kib("two.org", number));
            number += 1;
        }
        assert_eq!(number, 12 * 1_024, "a quarter");
        for number in numbers(&queue) {
            assert!(queue.remove(number).is_some());
        }
        assert!(queue.shares.is_empty());
    }
}
