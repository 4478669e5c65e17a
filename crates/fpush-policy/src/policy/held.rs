//! Held pushes: when they go out, and what becomes of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fpush_push::{Class, Outcome, Token, TokenHasher};
use uuid::Uuid;

use super::{Busy, Grant, HeldAttempt, HeldEnd, Phase, Policy, turns::Wanting};
use crate::{
    attempts::Ended,
    blocklist::BlockReason,
    job::{PushJob, SenderDomain},
    limiter::RateSlot,
    records::{Clocks, HeldRecord},
    shared::Change,
};

impl<W> Policy<W> {
    /// Takes note of the time: [`grant`](Self::grant) lets out what is due. At the end nothing more becomes due. Returns
    /// whether it is to be called again, because many became due at once: after a pause, all that is held.
    pub fn make_due(&mut self, now: Instant) -> bool {
        if self.end != Phase::Running {
            return false;
        }
        self.let_wait_for_permits(now, PART);
        self.held.next_due().is_some_and(|due| due <= now)
    }

    fn let_wait_for_permits(&mut self, now: Instant, most: usize) {
        let all = self.end != Phase::Running;
        for _ in 0..most {
            let Some((number, job)) = self.held.pop_due(now, all) else {
                return;
            };
            self.turns.due.join(job.sender.sender(), number);
        }
    }

    /// When [`make_due`](Self::make_due) and [`grant`](Self::grant) are to be called next.
    #[must_use]
    pub fn next_timer(&self, now: Instant) -> Option<Instant> {
        let paused = self.holds_back(now);
        let blocked = paused.filter(|_| !self.turns.due.is_empty());
        let next = self
            .held
            .next_due()
            .map(|due| paused.map_or(due, |until| until.max(due)));
        [blocked, next].into_iter().flatten().min()
    }

    /// Says who has a free permit; `None` if there is no permit, or nobody who wants one. To be repeated until then.
    pub fn grant(&mut self, now: Instant) -> Option<Grant<W>> {
        while self.turns.out < self.turns.permits {
            let paused = self.holds_back(now).is_some();
            match self.turns.next(paused)? {
                Wanting::Waiter(waiter) => {
                    self.turns.out += 1;
                    return Some(Grant::Waiter(waiter));
                }
                Wanting::Held(number) => {
                    let grant = self.let_out(number, now);
                    if grant.is_some() {
                        return grant;
                    }
                }
            }
        }
        None
    }

    /// Begins the attempt for a held push, unless there is nothing to send any more.
    fn let_out(&mut self, number: u64, now: Instant) -> Option<Grant<W>> {
        let held = self.held.due(number)?;
        let (target, spacing, give_up) = (held.job.target(), held.job.spacing, held.give_up);
        let registered = held.job.record.is_some();
        let end = match self.blocked(target.token, registered, now) {
            Some(BlockReason::Dead) => Some(HeldEnd::Dropped),
            Some(BlockReason::Unexplained | BlockReason::Doubted) => {
                Some(HeldEnd::Lost(Outcome::TokenBlocked))
            }
            None => give_up
                .filter(|give_up| now >= *give_up + LAST_ATTEMPT)
                .map(|_| HeldEnd::Lost(Outcome::ProviderUnavailable)),
        };
        if let Some(end) = end {
            self.held.remove(number);
            return Some(Grant::Ended(target.token, end));
        }
        let silence = self.limiter.silence(target.token, now);
        if let Some(until) = silence.filter(|_| self.end == Phase::Running) {
            self.held.postpone(number, until);
            self.outbox
                .tell(|| Change::Queue(target.slot_key(), until.duration_since(now)));
            return None;
        }
        let slot = self.limiter.take(target, spacing, now);
        let held = self.held.begin(number)?;
        held.give_up.get_or_insert(now + HELD_PATIENCE);
        self.turns.out += 1;
        Some(Grant::Held(HeldAttempt {
            number,
            job: held.job.clone(),
            slot,
            attempts: held.attempts,
        }))
    }

    /// Decides about a push whose token its provider calls too busy.
    pub fn busy(&mut self, mut job: Box<PushJob>, slot: RateSlot, now: Instant) -> Busy {
        let until = self.silence(job.token, now);
        let target = job.target();
        if target.class != Class::Voip && self.held.queued(target).is_some() {
            return Busy::Covered;
        }
        self.give_back(slot);
        let room = self.held.has_room(&job.sender);
        if target.class == Class::Voip || !room || self.is_last_chance() {
            return Busy::Refused;
        }
        if !self.held.has_room_for_encrypted(job.sender.share) {
            job.become_plain();
        }
        self.outbox
            .tell(|| Change::Queue(target.slot_key(), until.duration_since(now)));
        self.hold(job, until);
        Busy::Held
    }

    /// Decides what becomes of a held push after an attempt; `None` if it waits for the next one.
    pub fn held_ended(
        &mut self,
        number: u64,
        slot: RateSlot,
        ended: &Ended,
        now: Instant,
    ) -> Option<HeldEnd> {
        let held = self.held.get_mut(number)?;
        held.attempts += 1;
        let (token, give_up) = (held.job.token, held.give_up.unwrap_or(now));
        let end = match ended {
            Ended::Settled(Outcome::Accepted) => HeldEnd::Delivered,
            Ended::Settled(Outcome::TokenDead) => HeldEnd::Dropped,
            Ended::Settled(outcome) => {
                self.give_back(slot);
                HeldEnd::Lost(*outcome)
            }
            Ended::Failed { resume } => {
                self.give_back(slot);
                let is_over = now >= give_up || *resume >= give_up + LAST_ATTEMPT;
                return self.try_again(number, *resume, is_over, now);
            }
            Ended::Busy => {
                self.give_back(slot);
                let until = self.silence(token, now);
                return self.try_again(number, until, now >= give_up, now);
            }
        };
        self.held.remove(number);
        Some(end)
    }

    /// Makes a held push wait for another attempt, unless its time is over or a newer one replaces it.
    fn try_again(&mut self, number: u64, due: Instant, is_over: bool, now: Instant) -> Option<HeldEnd> {
        let key = self.held.get_mut(number)?.job.target().slot_key();
        if is_over || self.is_last_chance() {
            self.held.remove(number);
            Some(HeldEnd::Lost(Outcome::ProviderUnavailable))
        } else if self.held.requeue(number, due) {
            self.outbox
                .tell(|| Change::Queue(key, due.saturating_duration_since(now)));
            None
        } else {
            Some(HeldEnd::Covered)
        }
    }

    /// Takes a push that was held before the daemon started, to a token in the spelling of its module. Returns how one
    /// ended, if not all are held: this one, or the one that it replaces.
    pub fn remember_held(
        &mut self,
        record: HeldRecord,
        token: Token,
        id: Uuid,
        sender: Arc<SenderDomain>,
        hasher: &TokenHasher,
        clocks: Clocks,
    ) -> Option<HeldEnd> {
        if self.held.is_full() {
            return Some(HeldEnd::Lost(Outcome::Overloaded));
        }
        let mut held = record.into_held(token, id, sender, hasher, clocks);
        // The clock may have been wrong when it was written. However long nobody ran, it is tried once more.
        let patience = clocks.now + HELD_PATIENCE;
        held.due = held.due.min(patience.max(clocks.now + held.job.spacing));
        held.give_up = held.give_up.map(|give_up| give_up.clamp(clocks.now, patience));
        // One was under way when this one was queued for its key.
        let covered = self.held.remove_queued(held.job.target());
        self.held.push(held);
        covered.map(|_| HeldEnd::Covered)
    }

    /// The end begins: nothing new is taken, and what is held goes out now. With `keeps_held` what cannot be delivered
    /// is not lost, because it is kept for the next start.
    pub fn begin_end(&mut self, keeps_held: bool, now: Instant) {
        self.end = Phase::Ending { keeps_held };
        // At once: what is published from now on is answered without them.
        self.let_wait_for_permits(now, usize::MAX);
    }

    /// Whether held pushes are due, and wait for nothing but a permit.
    #[must_use]
    pub fn has_due(&self, now: Instant) -> bool {
        !self.turns.due.is_empty() && self.holds_back(now).is_none()
    }

    /// Whether what is not delivered now is lost.
    #[must_use]
    pub fn is_last_chance(&self) -> bool {
        self.end == Phase::Ending { keeps_held: false }
    }

    /// The end of a pause, if pushes have to wait for it: at the end there is no later time to send at.
    pub(super) fn holds_back(&self, now: Instant) -> Option<Instant> {
        self.health.paused_until(now).filter(|_| !self.is_last_chance())
    }
}

/// So many become due at a time, in about a millisecond.
const PART: usize = 1_000;
/// An acknowledged push is tried for this long.
const HELD_PATIENCE: Duration = Duration::from_secs(600);
/// So much later than that its last attempt may be.
const LAST_ATTEMPT: Duration = Duration::from_secs(90);
