//! What other instances say and hear.

use std::time::{Duration, Instant};

use fpush_push::{Class, LaneId, Outcome, TokenHasher};
use uuid::Uuid;

use super::{Held, HeldEnd, HoldUntil, Phase, Policy, homes::Homes};
use crate::{
    attempts::Ended,
    block::BlockReason,
    blocklist::Blocklist,
    job::PushJob,
    limiter::{Limiter, RateSlot},
    shared::{Change, Claim, Claimed, DeadBlock, News, OwnDeaths, Wish},
    ticks::Ticks,
    verdict::{Publisher, VerdictGuard},
};

/// What becomes of a publish that was claimed.
#[derive(Debug)]
pub enum Confirmed {
    /// It goes out, with this slot.
    Send(Box<PushJob>, RateSlot),
    /// It is held now.
    Held(Held),
    /// The module pauses until then: to be passed to [`Policy::failed`], with its slot.
    Paused(Box<PushJob>, RateSlot, Instant),
    /// There is nothing left to do but to reply.
    Answer(Outcome),
}

/// Why a held push whose time has come is not sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Unsent {
    /// The others want it at this time: to be passed to [`Policy::held_waits`].
    Later(Instant),
    /// It has ended.
    Ended(Ended),
    /// Another instance has it: to be passed to [`Policy::held_taken`].
    Taken,
}

/// Where the next part of what is to be shared begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SharedPlace {
    /// Before all others.
    #[default]
    Start,
    /// At one of the windows.
    Windows(usize),
    /// At one of the blocks.
    Blocks(usize),
    /// At one of the words.
    Words(usize),
    /// At one of the silences.
    Silences(usize),
    /// At one of the held pushes, by its number.
    Held(u64),
}

impl<W> Policy<W> {
    /// From now on there are other instances to tell what they should know, or none.
    pub fn share(&mut self, shares: bool) {
        self.outbox.open(shares);
    }

    /// Takes out what the other instances should know.
    #[must_use]
    pub fn take_outbox(&mut self) -> Vec<Change> {
        self.outbox.take()
    }

    /// What a push wants of all instances.
    #[must_use]
    pub fn claim(&self, job: &PushJob, wish: Wish) -> Claim {
        let enabled = self.limiter.settings().enabled;
        let dead = if job.record.is_some() {
            DeadBlock::Void
        } else if wish == Wish::Send && self.blocklist.was_dead(job.token) {
            DeadBlock::AskedAgain
        } else {
            DeadBlock::Holds
        };
        Claim {
            target: job.target(),
            dead,
            window: if enabled { job.spacing } else { Duration::ZERO },
            wish,
            id: job.push.id,
        }
    }

    /// What the answer to the claim of a publish means that was to be sent.
    pub fn claimed(
        &mut self,
        mut job: Box<PushJob>,
        slot: RateSlot,
        claimed: Claimed,
        now: Instant,
    ) -> Confirmed {
        let left = match claimed {
            Claimed::Free { slot: shared, covers } => {
                return Confirmed::Send(job, slot.shared_by(shared, covers));
            }
            Claimed::Paused(left) => {
                let resume = now + left;
                self.paused_elsewhere(Some(resume), now);
                return Confirmed::Paused(job, slot, resume);
            }
            Claimed::Held(left) => Some(left),
            Claimed::Queued | Claimed::Blocked(..) | Claimed::Taken => None,
        };
        self.limiter.give_back(slot);
        let Some(left) = left else {
            return Confirmed::Answer(self.heard(&job, claimed, now));
        };
        let target = job.target();
        if target.class == Class::Voip {
            return Confirmed::Answer(self.refused(target.class));
        }
        if self.held.queued(target).is_some() {
            return Confirmed::Answer(self.refused(target.class));
        }
        let ending = self.end != Phase::Running;
        if ending || !self.held.has_room(&job.sender) {
            self.outbox.tell(|| Change::Unqueue(target.slot_key()));
            return Confirmed::Answer(if ending {
                Outcome::ShuttingDown
            } else {
                Outcome::Overloaded
            });
        }
        if !self.held.has_room_for_encrypted(job.sender.share) {
            job.become_plain();
        }
        // Of what waits for the provider there is one for each key.
        let until = if self.spool.find(target).is_some() {
            HoldUntil::Back
        } else {
            HoldUntil::Due(now + left)
        };
        Confirmed::Held(self.hold(job, until))
    }

    /// What the answer to the claim of the publish with this id means that is held under this number. Returns what its sender is told.
    pub fn claimed_to_hold(&mut self, number: u64, id: Uuid, claimed: Claimed, now: Instant) -> Outcome {
        match claimed {
            Claimed::Free { .. } => Outcome::Queued,
            Claimed::Held(left) => {
                self.held.delay(number, now + left);
                Outcome::Queued
            }
            Claimed::Paused(left) if !self.hold_for.is_zero() => {
                self.paused_elsewhere(Some(now + left), now);
                Outcome::Queued
            }
            Claimed::Queued | Claimed::Blocked(..) | Claimed::Paused(_) | Claimed::Taken => {
                // What is under way is not called back.
                match self.held.remove_waiting(number, id) {
                    Some(held) => self.heard(&held.job, claimed, now),
                    None => Outcome::Queued,
                }
            }
        }
    }

    /// What the answer to the claim of a held push means whose time has come.
    ///
    /// # Errors
    ///
    /// When it is sent, or how it ends.
    pub fn claimed_held(
        &mut self,
        job: &PushJob,
        slot: RateSlot,
        claimed: Claimed,
        now: Instant,
    ) -> Result<RateSlot, Unsent> {
        match claimed {
            Claimed::Free { slot: shared, covers } => Ok(slot.shared_by(shared, covers)),
            Claimed::Taken => Err(Unsent::Taken),
            // There is no later time to send at: it goes out before its window.
            _ if self.end != Phase::Running => {
                let (key, window) = (job.target().slot_key(), job.spacing);
                self.outbox.tell(|| Change::Unqueue(key));
                self.outbox.tell(|| Change::Window(key, window));
                Ok(slot)
            }
            Claimed::Held(left) | Claimed::Paused(left) => {
                if let Claimed::Paused(_) = claimed {
                    self.paused_elsewhere(Some(now + left), now);
                }
                Err(Unsent::Later(now + left))
            }
            Claimed::Queued => Ok(slot),
            // The block ends, and with it what speaks against sending it.
            Claimed::Blocked(BlockReason::Doubted | BlockReason::Unexplained, left)
                if job.worth_until.is_some_and(|until| now + left < until) =>
            {
                self.heard(job, claimed, now);
                Err(Unsent::Later(now + left))
            }
            Claimed::Blocked(..) => {
                let outcome = self.heard(job, claimed, now);
                Err(Unsent::Ended(Ended::Settled(outcome)))
            }
        }
    }

    /// Tells the others what becomes of a push for which they could not be asked, or did not answer in time: then something
    /// may stay there that nobody holds.
    pub fn decided_alone(&mut self, claim: &Claim) {
        let key = claim.slot_key();
        match claim.wish {
            Wish::Hold(left) => self.outbox.tell(|| Change::Queue(key, left)),
            Wish::Send | Wish::SendHeld => {
                self.outbox.tell(|| Change::Unqueue(key));
                if !claim.window.is_zero() {
                    self.outbox.tell(|| Change::Window(key, claim.window));
                }
            }
        }
    }

    /// What the others have to agree to before a token that the provider called dead is taken for dead.
    #[must_use]
    pub fn deaths(&mut self, lane: LaneId) -> Option<OwnDeaths> {
        self.guard_of(lane).own_deaths()
    }

    /// What the answer to that means: `None` if they cannot be asked.
    ///
    /// # Errors
    ///
    /// The token is not taken for dead now. What its sender is told.
    pub fn death_claimed(
        &mut self,
        job: &PushJob,
        claimed: Option<bool>,
        now: Instant,
    ) -> Result<(), Outcome> {
        let at = self.clock.seconds(now);
        let guard = self.guard_of(job.lane);
        if claimed.unwrap_or_else(|| guard.may_die_alone()) {
            return Ok(());
        }
        guard.refuse_death(job.token, Publisher::of(&job.sender), at);
        if let Some(word) = self.guard.to_share(job.token, at) {
            self.outbox.tell(|| Change::Word(job.token, word));
        }
        self.tell_deaths(job.lane);
        self.block(job.token, BlockReason::Doubted, now);
        Err(Outcome::TokenBlocked)
    }

    /// Takes note of why all instances together do not want a push. Returns what its sender is told.
    fn heard(&mut self, job: &PushJob, claimed: Claimed, now: Instant) -> Outcome {
        match claimed {
            Claimed::Blocked(reason, left) => {
                self.blocklist.adopt(job.token, reason, now + left, now);
                match reason {
                    BlockReason::Dead => Outcome::TokenDead,
                    BlockReason::Unexplained | BlockReason::Doubted => Outcome::TokenBlocked,
                }
            }
            Claimed::Paused(left) => {
                self.paused_elsewhere(Some(now + left), now);
                Outcome::ProviderUnavailable
            }
            // Never acknowledged: nobody knows whether the other instance still holds the one that is queued.
            Claimed::Free { .. } | Claimed::Held(_) | Claimed::Queued | Claimed::Taken => Outcome::Refused,
        }
    }

    /// Takes note of what another instance has told.
    pub fn hear(&mut self, news: News, now: Instant) {
        match news {
            News::Word(token, word) => {
                let at = self.clock.seconds(now);
                let accepted = self.recent.accepted_at(token);
                let lifted = accepted.map(|then| now.saturating_duration_since(then).as_secs());
                if lifted.is_some_and(|ago| ago <= u64::from(word.age)) {
                    self.outbox.tell(|| Change::Unblock(token));
                    // What was said here since then still counts.
                    if let Some(own) = self.guard.to_share(token, at) {
                        self.outbox.tell(|| Change::Word(token, own));
                    }
                } else {
                    self.guard.learn(token, word, at);
                }
            }
            News::Unblock(token) => {
                self.blocklist.unblock(token);
                self.guard.unblock(token);
                for guard in self.lanes.guards_mut() {
                    guard.unblock(token);
                }
            }
            News::Pause(left) => self.paused_elsewhere(left.map(|left| now + left), now),
        }
    }

    /// The provider has accepted the push of this slot: what another instance holds for the same key is not needed.
    pub fn accepted_with(&mut self, slot: RateSlot) {
        if let Some(covered) = slot.covers() {
            self.outbox.tell(|| Change::Cover(slot.key(), covered));
        }
    }

    /// The provider has accepted the push of this slot, for which the others were not asked: they hear of its window.
    pub fn accepted_alone(&mut self, slot: RateSlot, now: Instant) {
        if let Some(left) = self.limiter.left(slot, now) {
            self.outbox.tell(|| Change::Window(slot.key(), left));
        }
    }

    /// Until when the provider wants nothing, as it has told any instance.
    fn paused_elsewhere(&mut self, until: Option<Instant>, now: Instant) {
        let paused_before = self.health.paused_elsewhere(now);
        self.health.pause_elsewhere(until);
        match until {
            Some(until) => self.outage.paused(until, now),
            None if paused_before => self.outage.probe_soon(now),
            None => {}
        }
    }

    /// A held push was not sent, because the other instances want it at this time. Returns how it ends; `None` if it waits.
    pub fn held_waits(
        &mut self,
        number: u64,
        slot: RateSlot,
        until: Instant,
        now: Instant,
    ) -> Option<HeldEnd> {
        self.not_sent(number, slot, now);
        let expires = self.held.get(number)?.expires.unwrap_or(now);
        self.try_again(number, until, now >= expires, now)
    }

    /// A held push was not sent, because another instance has it. Returns how it ends.
    pub fn held_taken(&mut self, number: u64, slot: RateSlot, now: Instant) -> HeldEnd {
        self.not_sent(number, slot, now);
        self.held.remove(number);
        HeldEnd::Taken
    }

    /// A held push that had its permit has not gone out, which says nothing of the provider.
    fn not_sent(&mut self, number: u64, slot: RateSlot, now: Instant) {
        let lane = self.held.get(number).map_or(LaneId::Main, |held| held.job.lane);
        if lane == LaneId::Main {
            self.turns.held_out = self.turns.held_out.saturating_sub(1);
            self.outage.held_ended(false, now);
        }
        self.give_back(slot);
    }

    /// A part of all that the other instances should know, and the place of the next part: for those that have not heard of
    /// it, because they could not be told, or have lost it.
    #[must_use]
    pub fn shared_part(&self, place: SharedPlace, now: Instant) -> (Vec<Change>, Option<SharedPlace>) {
        let after = |next: Option<usize>, place: fn(usize) -> SharedPlace, end: SharedPlace| {
            Some(next.map_or(end, place))
        };
        match place {
            SharedPlace::Start => {
                let pause = self.health.own_pause(now);
                let pause = pause.map(|until| Change::Pause(until.duration_since(now)));
                let guards = self.lanes.guards().chain([&self.guard]);
                let deaths = guards.filter_map(VerdictGuard::own_deaths);
                let deaths = deaths.filter(|deaths| deaths.count > 0);
                let all = pause.into_iter().chain(deaths.map(Change::Deaths));
                (all.collect(), Some(SharedPlace::Windows(0)))
            }
            SharedPlace::Windows(from) => {
                let (part, next) = self.limiter.windows(from, PART, now);
                let part = part.map(|(key, left)| Change::Window(key, left)).collect();
                (part, after(next, SharedPlace::Windows, SharedPlace::Blocks(0)))
            }
            SharedPlace::Blocks(from) => {
                let (part, next) = self.blocklist.running_part(from, PART, now);
                let part = part.map(|(token, reason, left)| Change::Block(token, reason, left));
                let part = part.collect();
                (part, after(next, SharedPlace::Blocks, SharedPlace::Words(0)))
            }
            SharedPlace::Words(from) => {
                let at = self.clock.seconds(now);
                let (part, next) = self.guard.words(from, PART, at);
                let part = part.map(|(token, word)| Change::Word(token, word)).collect();
                (part, after(next, SharedPlace::Words, SharedPlace::Silences(0)))
            }
            SharedPlace::Silences(from) => {
                let (part, next) = self.limiter.silences(from, PART, now);
                let part = part.map(|(token, left)| Change::Silence(token, left)).collect();
                (part, after(next, SharedPlace::Silences, SharedPlace::Held(0)))
            }
            SharedPlace::Held(from) => {
                let (part, next) = self.held.waiting_part(from, PART);
                let queue = |(key, due): (_, Instant)| Change::Queue(key, due.saturating_duration_since(now));
                (part.into_iter().map(queue).collect(), next.map(SharedPlace::Held))
            }
        }
    }

    /// Goes on under another key of fingerprints, which the other instances have: what is known of fingerprints under the
    /// former one is forgotten, and what is held is found under its new ones.
    pub fn rekey(&mut self, hasher: &TokenHasher, now: Instant) {
        let ticks = Ticks::new(now);
        self.limiter = Limiter::new(self.limiter.settings().clone(), ticks);
        self.blocklist = Blocklist::new(self.blocklist.settings().clone(), ticks);
        self.homes = Homes::new();
        self.guard.rekey();
        self.lanes.guards_mut().for_each(VerdictGuard::rekey);
        self.held.rekey(hasher);
        self.spool.rekey(hasher);
    }
}

/// So many at a time, in less than a millisecond.
const PART: usize = 500;

#[cfg(test)]
mod tests;
