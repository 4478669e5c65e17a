//! What becomes of a push after an attempt: it has ended, or is held for another one.

use std::time::{Duration, Instant};

use fpush_push::{LaneId, Outcome};

use super::{Busy, Failed, HeldEnd, HoldUntil, Phase, Policy};
use crate::{
    attempts::Ended, block::BlockReason, hold::HeldPush, job::PushJob, limiter::RateSlot, shared::Change,
    ticks::TICK,
};

impl<W> Policy<W> {
    /// Holds a push whose attempts have ended without an answer: it is acknowledged, and tried again from then on.
    pub fn failed(&mut self, mut job: Box<PushJob>, slot: RateSlot, resume: Instant, now: Instant) -> Failed {
        self.give_back(slot);
        let target = job.target();
        let Some(worth_until) = job.worth_until.filter(|until| now < *until) else {
            return Failed::Refused(Outcome::ProviderUnavailable);
        };
        if self.is_last_chance() {
            return Failed::Refused(Outcome::ProviderUnavailable);
        }
        // The one that goes out for both is worth something for as long as this one would be.
        if self.held.extend(target, worth_until) || self.spool.extend(target, worth_until) {
            return Failed::Covered;
        }
        let is_down = job.lane == LaneId::Main && self.is_down(job.lane, now);
        let (room, encrypted) = if is_down {
            let spool = &self.spool;
            (
                spool.has_room(&job.sender),
                spool.has_room_for_encrypted(job.sender.share),
            )
        } else {
            let held = &self.held;
            (
                held.has_room(&job.sender),
                held.has_room_for_encrypted(job.sender.share),
            )
        };
        if !room {
            return Failed::Refused(Outcome::Overloaded);
        }
        if !encrypted {
            job.become_plain();
        }
        let until = if is_down {
            HoldUntil::Back
        } else {
            let due = resume.max(now).min(worth_until);
            self.outbox
                .tell(|| Change::Queue(target.slot_key(), due.duration_since(now)));
            HoldUntil::Due(due)
        };
        let number = self.hold(job, until).number;
        if let Some(held) = self.held.get_mut(number) {
            held.attempts = 1;
        }
        Failed::Held(number)
    }

    /// Decides about a push whose token its provider calls too busy.
    pub fn busy(&mut self, mut job: Box<PushJob>, slot: RateSlot, now: Instant) -> Busy {
        let until = self.silence(job.token, now);
        let (target, can_wait) = (job.target(), job.can_wait());
        if can_wait && self.held.queued(target).is_some() {
            return Busy::Covered;
        }
        self.give_back(slot);
        let room = self.held.has_room(&job.sender);
        if !can_wait || !room || self.is_last_chance() {
            return Busy::Refused;
        }
        if !self.held.has_room_for_encrypted(job.sender.share) {
            job.become_plain();
        }
        self.outbox
            .tell(|| Change::Queue(target.slot_key(), until.duration_since(now)));
        Busy::Held(self.hold(job, HoldUntil::Due(until)).number)
    }

    /// Decides what becomes of a held push after an attempt; `None` if it waits for the next one.
    pub fn held_ended(
        &mut self,
        number: u64,
        slot: RateSlot,
        ended: &Ended,
        now: Instant,
    ) -> Option<HeldEnd> {
        let lane = self.held.get(number).map_or(LaneId::Main, |held| held.job.lane);
        if lane == LaneId::Main {
            self.turns.held_out = self.turns.held_out.saturating_sub(1);
            self.outage.held_ended(matches!(ended, Ended::Failed { .. }), now);
        }
        let held = self.held.get_mut(number)?;
        held.attempts += 1;
        let (token, expires) = (held.job.token, held.expires.unwrap_or(now));
        let end = match ended {
            Ended::Settled(Outcome::Accepted) => {
                self.accepted_with(slot);
                HeldEnd::Delivered
            }
            Ended::Settled(Outcome::TokenDead) => HeldEnd::Dropped,
            Ended::Settled(outcome) => {
                self.give_back(slot);
                let block = self.blocklist.look(token, now);
                if let Some(due) = again_after(*outcome, block, now)
                    && due < expires
                    && self.end == Phase::Running
                    && !self.held.is_full()
                {
                    return self.try_again(number, due, false, now);
                }
                match block {
                    Some((reason, _)) if *outcome == Outcome::TokenBlocked => HeldEnd::blocked(lane, reason),
                    _ => HeldEnd::lost(lane, *outcome),
                }
            }
            Ended::Failed { resume } => {
                self.give_back(slot);
                let is_over = now >= expires || *resume >= expires + self.grace(lane);
                return self.try_again(number, *resume, is_over, now);
            }
            Ended::Busy => {
                self.give_back(slot);
                let until = self.silence(token, now);
                return self.try_again(number, until, now >= expires, now);
            }
        };
        self.held.remove(number);
        Some(end)
    }

    /// A push was accepted: what waits for the provider for the same key, and came before it, is not needed any more.
    pub(super) fn cover(&mut self, accepted: &PushJob) {
        let target = accepted.target();
        if self.spool.cover(target, accepted.arrived) {
            self.ended.push((accepted.token, HeldEnd::Covered));
        }
        if self.held.cover(target, accepted.arrived) {
            self.ended.push((accepted.token, HeldEnd::Covered));
            self.outbox.tell(|| Change::Unqueue(target.slot_key()));
        }
    }

    /// So much later than its time is over the last attempt may be.
    pub(super) fn grace(&self, lane: LaneId) -> Duration {
        if self.worth(lane, Duration::MAX).is_zero() {
            LAST_ATTEMPT
        } else {
            Duration::ZERO
        }
    }

    /// Makes a held push wait for another attempt, unless its time is over or a newer one replaces it.
    pub(super) fn try_again(
        &mut self,
        number: u64,
        due: Instant,
        is_over: bool,
        now: Instant,
    ) -> Option<HeldEnd> {
        let job = &self.held.get(number)?.job;
        let (lane, target) = (job.lane, job.target());
        let is_running = self.end == Phase::Running && !self.worth(lane, Duration::MAX).is_zero();
        if is_over || self.is_last_chance() {
            let held = self.held.remove(number)?;
            Some(HeldEnd::lost(held.job.lane, Outcome::ProviderUnavailable))
        } else if is_running && lane == LaneId::Main && self.is_down(lane, now) {
            // Another one is the next probe.
            let held = self.held.take(number)?;
            self.spool_again(number, held, now)
        } else if self.held.requeue(number, due) {
            self.ended.push((target.token, HeldEnd::Covered));
            None
        } else {
            self.outbox
                .tell(|| Change::Queue(target.slot_key(), due.saturating_duration_since(now)));
            None
        }
    }

    /// Makes a push that was tried wait until its provider is back. A newer one for its key takes its number, unless that is
    /// written down for certain: what is under this number is acknowledged.
    fn spool_again(&mut self, number: u64, held: HeldPush, now: Instant) -> Option<HeldEnd> {
        let target = held.job.target();
        let queued = self.held.remove_queued(target);
        let newer = queued
            .map(|newer| (newer.job, newer.expires.unwrap_or(now)))
            .or_else(|| self.spool.take_with_body(target));
        if newer.is_some() {
            self.ended.push((target.token, HeldEnd::Covered));
        } else if self.spool.find(target).is_some() {
            self.held.touch(number);
            return Some(HeldEnd::Covered);
        }
        let (job, expires) = newer.unwrap_or_else(|| (held.job, held.expires.unwrap_or(now)));
        if self.spool.put(job, expires, || number) != number {
            // One was spooled beside the one that was queued, and is written down under its own number.
            self.ended.push((target.token, HeldEnd::Covered));
            self.held.touch(number);
        }
        None
    }
}

/// When an acknowledged push is tried again to which the provider said something that is not a reason to give it up: its token is not
/// believed dead, or the settings, which can be changed, are wrong.
fn again_after(outcome: Outcome, block: Option<(BlockReason, Instant)>, now: Instant) -> Option<Instant> {
    match (outcome, block) {
        (Outcome::TokenBlocked, Some((BlockReason::Doubted | BlockReason::Unexplained, until))) => {
            Some(until + TICK)
        }
        (Outcome::ProviderUnavailable, _) => Some(now + REFUSED_PAUSE),
        _ => None,
    }
}

/// As long as a block of a token that is not believed dead.
const REFUSED_PAUSE: Duration = Duration::from_secs(600);
/// So much later than its time is over the last attempt may be, where nothing is held for outages.
const LAST_ATTEMPT: Duration = Duration::from_secs(90);
