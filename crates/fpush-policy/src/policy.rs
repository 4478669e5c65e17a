//! What becomes of pushes: the decisions about one module.
//!
//! A publish arrives ([`Policy::publish`]), an attempt ended so ([`Policy::answered`]), a time has come
//! ([`Policy::make_due`]), a permit is free ([`Policy::grant`]), the settings have changed ([`Policy::configure`]), the end
//! begins ([`Policy::begin_end`]). Each answers with what is to be done. `W` is how the driver reaches a publish that waits
//! for its permit.

mod answers;
mod decisions;
mod down;
mod held;
mod homes;
mod lanes;
mod origins;
mod others;
mod retries;
mod shared;
mod takeover;
mod turns;
mod words;

use std::time::{Duration, Instant};

use fpush_push::{Class, Fingerprint, LaneId, Outcome};

pub use self::{homes::HomeRecord, words::VerdictPlace};

use self::lanes::SECOND;
use crate::{
    block::BlockReason,
    blocklist::Blocklist,
    fair::{Entered, Ticket},
    health::ModuleHealth,
    hold::{HeldPush, HoldQueue},
    job::{PushJob, SenderDomain},
    limiter::{Limiter, RateSlot, Target},
    outage::Outage,
    recent::{End, Recent},
    records::{Clocks, HELD_PATIENCE},
    settings::ModuleSettings,
    shared::{Change, Outbox},
    spool::Spool,
    ticks::Ticks,
    verdict::{LaneClock, VerdictGuard},
};

pub use self::decisions::{
    Busy, Decision, Failed, Grant, Held, HeldAttempt, HeldEnd, HoldUntil, Publish, Remembered, TakenOver,
    Turn,
};
pub use self::shared::{Confirmed, SharedPlace, Unsent};

/// The state of one module, of which all decisions about its pushes are functions.
#[derive(Debug)]
pub struct Policy<W> {
    pub(crate) limiter: Limiter,
    pub(crate) blocklist: Blocklist,
    pub(crate) guard: VerdictGuard,
    pub(crate) clock: LaneClock,
    pub(crate) held: HoldQueue,
    pub(crate) spool: Spool,
    pub(crate) outage: Outage,
    pub(crate) health: ModuleHealth,
    pub(crate) recent: Recent,
    turns: turns::Turns<W>,
    /// What other instances should know.
    pub(crate) outbox: Outbox,
    hold_for: Duration,
    /// The number of the next acknowledged push.
    next_number: u64,
    /// Acknowledged pushes that have ended without an attempt of their own.
    ended: Vec<(Fingerprint, HeldEnd)>,
    /// By how many milliseconds the wall clock has jumped, which is to be told to those who write down what is held.
    jumped: Vec<i64>,
    /// Those beside the main one, which all of the above belongs to that is a lane's.
    lanes: lanes::Lanes<W>,
    /// The other instances are asked first what they have taken over of what is held, until then at most.
    others_first: Option<Instant>,
    /// Where tokens are at home, where there are two lanes for them.
    homes: homes::Homes,
    /// How often the settings have changed: what was answered to older ones says nothing.
    generation: u64,
    end: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Nothing new is taken, and what is held goes out now. If it is kept for the next start, it is not lost.
    Ending {
        keeps_held: bool,
    },
}

impl<W> Policy<W> {
    /// The state of a module that has just begun. `digest` names the settings that the provider's words depend on.
    #[must_use]
    pub fn new(settings: ModuleSettings, digest: u128, clocks: Clocks) -> Self {
        let ModuleSettings {
            max_in_flight,
            hold_for,
            ratelimit,
            blocklist,
            delivery: _,
        } = settings;
        let ticks = Ticks::new(clocks.now);
        Self {
            limiter: Limiter::new(ratelimit, ticks),
            blocklist: Blocklist::new(blocklist, ticks),
            guard: VerdictGuard::new(digest),
            clock: LaneClock::new(clocks),
            held: HoldQueue::default(),
            spool: Spool::new(ticks),
            outage: Outage::new(DOUBLING),
            health: ModuleHealth::default(),
            recent: Recent::default(),
            turns: turns::Turns::new(max_in_flight),
            outbox: Outbox::default(),
            hold_for,
            next_number: 0,
            ended: Vec::new(),
            jumped: Vec::new(),
            lanes: lanes::Lanes::new(max_in_flight, digest),
            others_first: None,
            homes: homes::Homes::new(),
            generation: 0,
            end: Phase::Running,
        }
    }

    /// Goes on with other settings. What the rate limit and the block list know, and what is held, stays; what the
    /// provider said against tokens stays where nothing has changed that this depends on.
    pub fn configure(&mut self, settings: ModuleSettings, digest: u128, now: Instant) {
        let ModuleSettings {
            max_in_flight,
            hold_for,
            ratelimit,
            blocklist,
            delivery: _,
        } = settings;
        self.limiter.set_settings(ratelimit);
        self.blocklist.set_settings(blocklist);
        if self.guard.go_on_under(digest) {
            self.blocklist.unblock_all();
        }
        if self.health.has_paused() {
            self.outbox.tell(|| Change::Resume);
        }
        self.health = ModuleHealth::default();
        self.hold_for = hold_for;
        self.outage.begin_anew(now);
        self.turns.resize(max_in_flight);
        self.lanes.configure(max_in_flight, digest);
        self.generation += 1;
    }

    /// Which settings are in force.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Decides about a publish.
    pub fn publish(&mut self, publish: &Publish<'_>, now: Instant) -> Decision {
        let Publish {
            target,
            lane,
            registered,
            spacing,
            time_to_live,
            sender,
        } = *publish;
        if self.end != Phase::Running {
            return Decision::Answer(Outcome::ShuttingDown);
        }
        if let Some(outcome) = self.refused_as_blocked(target, lane, registered, now) {
            return Decision::Answer(outcome);
        }
        let spacing = spacing.unwrap_or_else(|| self.limiter.settings().spacing);
        let worth = self.worth(lane, time_to_live);
        let can_wait = target.class != Class::Voip && !worth.is_zero();
        let worth_until = can_wait.then(|| now + worth);
        if self.is_down(lane, now) {
            if can_wait {
                return self.publish_while_down(target, lane, sender, spacing, worth_until, now);
            }
            if !self.takes_as_probe(target, lane, now) {
                return Decision::Answer(Outcome::ProviderUnavailable);
            }
        }
        if let Some(queued) = self.held.queued_push(target) {
            return if queued.waits_for_provider() && can_wait {
                // With it waits whatever comes for the same key.
                self.publish_while_down(target, lane, sender, spacing, worth_until, now)
            } else {
                Decision::Answer(self.refused(target.class))
            };
        }
        let Some(due) = self.limiter.not_before(target, now) else {
            let slot = self.limiter.take(target, spacing, now);
            return Decision::Send {
                slot,
                spacing,
                worth_until,
            };
        };
        if target.class == Class::Voip {
            return Decision::Answer(self.refused(target.class));
        }
        if !self.held.has_room(sender) {
            return Decision::Answer(Outcome::Overloaded);
        }
        Decision::Hold {
            until: HoldUntil::Due(due),
            spacing,
            encrypted: self.held.has_room_for_encrypted(sender.share),
            worth_until,
        }
    }

    /// Decides about a notification of Push 2.0. It carries what no other push does, so it stands for no other one, and no other
    /// one for it: it goes out at once, or its sender hears that it does not.
    ///
    /// # Errors
    ///
    /// Why it does not.
    pub fn notify(&mut self, target: Target, lane: LaneId, now: Instant) -> Result<RateSlot, Outcome> {
        if self.end != Phase::Running {
            return Err(Outcome::ShuttingDown);
        }
        if let Some(outcome) = self.refused_as_blocked(target, lane, false, now) {
            return Err(outcome);
        }
        if self.is_down(lane, now) && !self.takes_as_probe(target, lane, now) {
            return Err(Outcome::ProviderUnavailable);
        }
        if self.limiter.not_before(target, now).is_some() {
            return Err(Outcome::Refused);
        }
        Ok(self.limiter.take(target, Duration::ZERO, now))
    }

    /// Holds an acknowledged push.
    pub fn hold(&mut self, job: Box<PushJob>, until: HoldUntil) -> Held {
        let id = job.push.id;
        let due = match until {
            HoldUntil::Due(due) => due,
            HoldUntil::Back => {
                let expires = job.worth_until.unwrap_or(job.arrived);
                let target = job.target();
                let is_queued = self.held.queued(target).is_some();
                let is_new = !is_queued && self.spool.find(target).is_none();
                if !is_new {
                    // One goes out for both, with what the newer one carries.
                    self.ended.push((target.token, HeldEnd::Covered));
                }
                let number = if is_queued {
                    self.held.renew(job, expires)
                } else {
                    let next = &mut self.next_number;
                    Some(self.spool.put(job, expires, || take_number(next)))
                };
                return Held {
                    number: number.unwrap_or_default(),
                    first: true,
                    new: is_new.then_some(id),
                };
            }
        };
        let first = self.held.next_due().is_none_or(|first| due < first);
        let expires = job.worth_until.map(|until| until.max(due + HELD_PATIENCE));
        let number = take_number(&mut self.next_number);
        self.held.push(number, HeldPush::new(job, due, expires));
        Held {
            number,
            first,
            new: Some(id),
        }
    }

    /// Lets a publish go to the provider, or wait for that.
    pub fn take_turn(&mut self, lane: LaneId, sender: &SenderDomain, waiter: impl FnOnce() -> W) -> Turn<W> {
        let entered = match lane {
            LaneId::Main => self.turns.take(sender.sender(), waiter),
            LaneId::Second => self.lanes.vendor(SECOND).turns.take(sender.sender(), waiter),
            LaneId::Vendor(vendor) => self.lanes.vendor(vendor).turns.take(sender.sender(), waiter),
            LaneId::Origin(origin) => self.lanes.origins.take_turn(origin, sender, waiter),
        };
        match entered {
            None => Turn::Now,
            Some(Entered::Waiting(ticket)) => Turn::Waiting(ticket, None),
            Some(Entered::Displacing(ticket, displaced)) => Turn::Waiting(ticket, Some(displaced)),
            Some(Entered::Full(_)) => Turn::Full,
        }
    }

    /// Gives up a place in the queue for the permits of a lane.
    pub fn leave(&mut self, lane: LaneId, ticket: &Ticket<Fingerprint>) {
        match lane {
            LaneId::Main => drop(self.turns.waiting.leave(ticket)),
            LaneId::Second => drop(self.lanes.vendor(SECOND).turns.waiting.leave(ticket)),
            LaneId::Vendor(vendor) => drop(self.lanes.vendor(vendor).turns.waiting.leave(ticket)),
            LaneId::Origin(origin) => self.lanes.origins.leave(origin, ticket),
        }
    }

    /// A push is not at its lane's provider any more. Returns whether somebody waits: [`grant`](Self::grant) says who has
    /// its permit.
    pub fn give_back_permit(&mut self, lane: LaneId) -> bool {
        let turns = match lane {
            LaneId::Main => {
                self.turns.out = self.turns.out.saturating_sub(1);
                return !self.turns.waiting.is_empty() || self.has_backlog();
            }
            LaneId::Second => &mut self.lanes.vendor(SECOND).turns,
            LaneId::Vendor(vendor) => &mut self.lanes.vendor(vendor).turns,
            LaneId::Origin(origin) => return self.lanes.origins.give_back(origin),
        };
        turns.out = turns.out.saturating_sub(1);
        turns.is_wanted()
    }

    /// Takes a slot back whose push was not accepted.
    pub fn give_back(&mut self, slot: RateSlot) {
        self.limiter.give_back(slot);
        if let Some(shared) = slot.shared() {
            self.outbox.tell(|| Change::GiveBack(slot.key(), shared));
        }
    }

    /// Whether nothing is under way, and nothing is held.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.held() == 0 && self.lengths() == (0, 0)
    }

    /// How many pushes are at the provider, and how many publishes wait for that.
    #[must_use]
    pub fn lengths(&self) -> (usize, usize) {
        let (out, waiting) = self.lanes.lengths();
        (self.turns.out + out, self.turns.waiting.len() + waiting)
    }

    /// Takes note of how a push ended, for the operator who asks why a phone gets none.
    pub fn note(&mut self, token: Fingerprint, end: End, now: Instant) {
        self.recent.ended(token, end, now);
    }

    /// Forgets what it holds against a token: its device has registered anew.
    pub fn unblock(&mut self, token: Fingerprint) {
        self.blocklist.unblock(token);
        self.forget_words(token);
        // Another instance may know more.
        self.outbox.tell(|| Change::Unblock(token));
    }

    /// Forgets what was said against a token in any lane.
    fn forget_words(&mut self, token: Fingerprint) {
        self.guard.unblock(token);
        for guard in self.lanes.guards_mut() {
            guard.unblock(token);
        }
    }

    /// Blocks a token.
    fn block(&mut self, token: Fingerprint, reason: BlockReason, now: Instant) {
        self.blocklist.block(token, reason, now);
        if self.outbox.is_open()
            && let Some((reason, until)) = self.blocklist.look(token, now)
        {
            self.outbox
                .tell(|| Change::Block(token, reason, until.duration_since(now)));
        }
    }

    /// Silences a token that its provider calls too busy. Returns until when.
    fn silence(&mut self, token: Fingerprint, now: Instant) -> Instant {
        let until = self.limiter.silence_now(token, now);
        self.outbox
            .tell(|| Change::Silence(token, until.duration_since(now)));
        until
    }

    /// Follows the wall clock, and goes on with what is done little by little. To be called once a second.
    pub fn follow_clock(&mut self, clocks: Clocks) {
        self.blocklist.sweep();
        for token in self.spool.expire(clocks.now) {
            self.lose(token);
        }
        self.outage.settle(self.has_backlog(), clocks.now);
        if let Some(jump) = self.clock.follow(clocks) {
            let now = self.clock.seconds(clocks.now);
            self.guard.begin_hours_again(now);
            for guard in self.lanes.guards_mut() {
                guard.begin_hours_again(now);
            }
            // What is written down has the times of the other clock.
            self.jumped.push(jump);
        }
    }

    /// Why nothing is to be sent to a token. What is registered is not dead: that its device has registered anew may have
    /// been forgotten by a restart, or was not heard of at all.
    fn blocked(&mut self, token: Fingerprint, registered: bool, now: Instant) -> Option<BlockReason> {
        match self.blocklist.check(token, now)? {
            BlockReason::Dead if registered => {
                self.blocklist.unblock(token);
                None
            }
            reason @ (BlockReason::Dead | BlockReason::Unexplained | BlockReason::Doubted) => Some(reason),
        }
    }

    /// The outcome for a push whose token is blocked. To a dead one a push goes out once an hour if nothing else is in its way:
    /// an app that uses its token again does not wait for the end of the block, and its server does not give it up.
    fn refused_as_blocked(
        &mut self,
        target: Target,
        lane: LaneId,
        registered: bool,
        now: Instant,
    ) -> Option<Outcome> {
        Some(match self.blocked(target.token, registered, now)? {
            BlockReason::Dead if self.may_ask_again(target, lane, now) => {
                self.blocklist.asked(target.token, now);
                return None;
            }
            BlockReason::Dead => Outcome::TokenDead,
            BlockReason::Unexplained | BlockReason::Doubted => Outcome::TokenBlocked,
        })
    }

    fn may_ask_again(&mut self, target: Target, lane: LaneId, now: Instant) -> bool {
        self.blocklist.may_ask(target.token, now)
            && !self.is_down(lane, now)
            && self.holds_back(lane, now).is_none()
            && self.held.queued_push(target).is_none()
            && self.limiter.not_before(target, now).is_none()
    }

    /// The outcome for a push for whose key one is queued. Calls are never queued, so no queued push replaces a call.
    fn refused(&self, class: Class) -> Outcome {
        match class {
            Class::High | Class::Low if self.limiter.settings().acknowledge_refused => Outcome::Coalesced,
            Class::High | Class::Low | Class::Voip => Outcome::Refused,
        }
    }
}

fn take_number(next: &mut u64) -> u64 {
    let number = *next;
    *next += 1;
    number
}

/// The rate of held pushes doubles in this time when a provider is back, unless it asks for another one.
const DOUBLING: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
