//! Held pushes: when they go out, and what becomes of them.

use std::time::{Duration, Instant};

use fpush_push::{Fingerprint, LaneId, Outcome, TokenHasher};
use uuid::Uuid;

use super::{Grant, HeldAttempt, HeldEnd, Phase, Policy, Remembered, turns::Wanting};
use crate::{
    block::BlockReason,
    hold::HeldPush,
    job::PushJob,
    limiter::Target,
    outage::LaneState,
    records::{Clocks, HELD_PATIENCE, HeldChange, HeldRecord, Recipient},
    shared::Change,
    spool::Near,
    ticks::TICK,
};

impl<W> Policy<W> {
    /// Takes note of the time: [`grant`](Self::grant) lets out what is due. At the end nothing more becomes due. Returns
    /// whether it is to be called again, because many became due at once.
    pub fn make_due(&mut self, now: Instant) -> bool {
        if self.end != Phase::Running {
            return false;
        }
        self.outage.settle(self.has_backlog(), now);
        self.let_wait_for_permits(now, PART);
        self.come_near(now);
        self.held.next_due().is_some_and(|due| due <= now)
    }

    fn let_wait_for_permits(&mut self, now: Instant, most: usize) {
        let all = self.end != Phase::Running;
        for _ in 0..most {
            let Some((number, _)) = self.held.pop_due(now, all) else {
                return;
            };
            self.let_wait(number);
        }
    }

    /// Takes out of the spool what goes out next.
    fn come_near(&mut self, now: Instant) {
        if self.end != Phase::Running || self.spool.len() == 0 || self.may_send_held(now) == Err(None) {
            return;
        }
        let ahead = self.outage.ahead(now);
        // What is left is asked for at once again.
        for _ in 0..PART {
            if self.turns.due.len() + self.spool.loading() >= ahead {
                return;
            }
            match self.spool.next(now) {
                None => return,
                Some(Near::Ready(number, job, expires)) => self.become_due(number, job, expires, now),
                Some(Near::Asked) => {}
                Some(Near::Expired(token)) => self.lose(token),
            }
        }
    }

    fn become_due(&mut self, number: u64, job: Box<PushJob>, expires: Instant, now: Instant) {
        let spooled = HeldPush::spooled(job, now, expires);
        match self.held.remove_queued(spooled.job.target()) {
            None => self.held.add(number, spooled),
            // It was queued for the same key while the lane was up again.
            Some(queued) => {
                self.ended.push((queued.job.token, HeldEnd::Covered));
                self.held.push(number, spooled.merged(queued));
            }
        }
        // It may be in another lane than when it was spooled: where its token is at home was learnt meanwhile.
        self.let_wait(number);
    }

    /// Whether bodies of held pushes are to be read.
    #[must_use]
    pub fn wants_bodies(&self) -> bool {
        self.spool.wants_bodies()
    }

    /// The numbers of held pushes whose bodies are to be read from where they are written down.
    pub fn take_wanted(&mut self) -> Vec<u64> {
        self.spool.take_wanted()
    }

    /// The body of a held push was read; `None` if it is not there, or is nothing that could be sent. To be followed by
    /// [`grant`](Self::grant).
    pub fn loaded(&mut self, number: u64, job: Option<Box<PushJob>>, now: Instant) {
        match job {
            Some(job) => {
                if let Some(expires) = self.spool.loaded(number) {
                    self.become_due(number, job, expires, now);
                }
            }
            None => {
                if let Some(token) = self.spool.missing(number) {
                    self.lose(token);
                }
            }
        }
    }

    /// The body of a held push cannot be read now.
    pub fn not_loaded(&mut self, number: u64) {
        self.spool.not_loaded(number);
    }

    /// A held push is written down.
    pub fn written(&mut self, number: u64) {
        self.spool.written(number);
    }

    /// A push with this id, held under this number, cannot be written down, so that it was not acknowledged. Returns whether it
    /// was here: a later one, which has taken its number, stays.
    pub fn not_written(&mut self, number: u64, id: Uuid) -> bool {
        if self.held.get(number).is_some_and(|held| held.job.push.id == id)
            && let Some(held) = self.held.remove(number)
        {
            self.outbox.tell(|| Change::Unqueue(held.job.target().slot_key()));
            return true;
        }
        self.spool.take_back(number, id)
    }

    /// Whether a push is held that makes another one for the same key superfluous.
    #[must_use]
    pub fn is_held(&self, target: Target) -> bool {
        self.newest_held(target).is_some()
    }

    /// When the newest push came that is held for a key and class, and is not under way.
    pub(super) fn newest_held(&self, target: Target) -> Option<Instant> {
        let queued = self.held.queued_push(target).map(|held| held.job.arrived);
        queued.max(self.spool.arrived(target))
    }

    /// From now on what is held is written down: [`take_changes`](Self::take_changes) says what has changed.
    /// No number from this one on is taken yet.
    pub fn begin_noting(&mut self, free: u64) {
        self.next_number = self.next_number.max(free);
        self.held.begin_noting();
        self.spool.begin_noting();
    }

    /// What has changed of what is held, to be written down.
    pub fn take_changes(&mut self) -> Vec<HeldChange> {
        let mut touched = self.held.take_touched();
        touched.append(&mut self.spool.take_touched());
        if touched.len() > 1 {
            touched.sort_unstable();
            touched.dedup();
        }
        let extended = self.spool.take_extended().into_iter();
        let millis = |instant| self.clock.millis(instant);
        let change = |number| {
            if let Some(held) = self.held.get(number) {
                return HeldChange::Put(number, Box::new(HeldRecord::of(held, millis)));
            }
            match self.spool.body(number) {
                Some((job, expires)) => {
                    HeldChange::Put(number, Box::new(HeldRecord::spooled(job, expires, millis)))
                }
                None => HeldChange::Gone(number),
            }
        };
        let jumps = self.jumped.drain(..).map(HeldChange::Jumped);
        let extended = extended.map(|(number, until)| HeldChange::Extended(number, millis(until)));
        jumps
            .chain(extended)
            .chain(touched.into_iter().map(change))
            .collect()
    }

    /// How acknowledged pushes have ended without an attempt of their own.
    pub fn take_ended(&mut self) -> Vec<(Fingerprint, HeldEnd)> {
        std::mem::take(&mut self.ended)
    }

    /// A held push could not be delivered while it was worth something.
    pub(super) fn lose(&mut self, token: Fingerprint) {
        let end = HeldEnd::Lost(Outcome::ProviderUnavailable);
        self.ended.push((token, end));
    }

    /// The rate of held pushes doubles in this time when the provider is back.
    pub fn set_ramp(&mut self, doubling: Duration) {
        self.outage.set_ramp(doubling);
    }

    /// When [`make_due`](Self::make_due) and [`grant`](Self::grant) are to be called next.
    #[must_use]
    pub fn next_timer(&mut self, now: Instant) -> Option<Instant> {
        let paused = self.holds_back(LaneId::Main, now);
        let backlog = match self.may_send_held(now) {
            Err(time) => time.filter(|_| self.has_backlog()),
            Ok(()) => (self.turns.due.is_empty() && self.spool.has_next()).then_some(now),
        };
        let backlog = paused.filter(|_| self.has_backlog()).or(backlog);
        let beside = self.next_beside(now);
        // One for another lane does not wait for the end of this one's pause.
        [backlog, beside, self.held.next_due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether one more held push may go out. Some permits are left to publishes, which go first.
    fn may_send_held(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        if let Some(until) = self.others_first.filter(|until| now < *until) {
            return Err(Some(until));
        }
        if self.end == (Phase::Ending { keeps_held: true }) && self.outage.state(now) != LaneState::Up {
            return Err(None);
        }
        if self.end != Phase::Running || self.hold_for.is_zero() {
            return match self.holds_back(LaneId::Main, now) {
                Some(until) => Err(Some(until)),
                None => Ok(()),
            };
        }
        let most = self.turns.permits - self.turns.permits / KEPT_FOR_PUBLISHES;
        if self.turns.held_out >= most {
            return Err(None);
        }
        if let Some(until) = self.holds_back(LaneId::Main, now) {
            return Err(Some(until));
        }
        self.outage.may_send_held(self.turns.held_out, now)
    }

    /// Says who has a free permit; `None` if there is no permit, or nobody who wants one. To be repeated until then.
    pub fn grant(&mut self, now: Instant) -> Option<Grant<W>> {
        let is_down = self.end == Phase::Running && self.is_down(LaneId::Main, now);
        while self.turns.out < self.turns.permits {
            if self.turns.due.is_empty() {
                self.come_near(now);
            }
            let without_held = self.may_send_held(now).is_err();
            let Some(wanting) = self.turns.next(without_held) else {
                break;
            };
            match wanting {
                Wanting::Waiter(waiter) if is_down && !self.hold_for.is_zero() => {
                    return Some(Grant::Down(waiter));
                }
                Wanting::Waiter(waiter) => {
                    self.turns.out += 1;
                    return Some(Grant::Waiter(waiter));
                }
                Wanting::Held(number) => {
                    let grant = self.let_out(number, LaneId::Main, now);
                    if grant.is_some() {
                        return grant;
                    }
                }
            }
        }
        self.grant_beside(now)
    }

    /// Begins the attempt for a held push whose turn has come in this lane, unless there is nothing to send any more.
    pub(super) fn let_out(&mut self, number: u64, lane: LaneId, now: Instant) -> Option<Grant<W>> {
        let held = self.held.due(number)?;
        if held.job.lane != lane {
            // A newer push that is for another lane has taken its place while it waited: that takes its turn there.
            self.held.postpone(number, now + TICK);
            return None;
        }
        let (target, spacing) = (held.job.target(), held.job.spacing);
        let waits_for_provider = held.waits_for_provider();
        // What was never tried is tried once, however late its turn comes.
        let over = held.expires.filter(|_| waits_for_provider);
        let (expires, over) = (held.expires, over.map(|expires| expires + self.grace(lane)));
        let registered = held.job.record.is_some();
        let end = match self.blocked(target.token, registered, now) {
            // The block ends, and with it what speaks against sending it.
            Some(BlockReason::Unexplained | BlockReason::Doubted)
                if self.end == Phase::Running
                    && let Some((_, until)) = self.blocklist.look(target.token, now)
                    && expires.is_some_and(|expires| until < expires) =>
            {
                self.held.postpone(number, until + TICK);
                return None;
            }
            Some(reason) => Some(HeldEnd::blocked(lane, reason)),
            None => over
                .filter(|over| now >= *over)
                .map(|_| HeldEnd::lost(lane, Outcome::ProviderUnavailable)),
        };
        if let Some(end) = end {
            self.held.remove(number);
            return Some(Grant::Ended(target.token, end));
        }
        let wait = if waits_for_provider {
            // A push may have gone out to the device meanwhile: if that is accepted, this one is not needed.
            self.limiter.not_before(target, now)
        } else {
            self.limiter.silence(target.token, now)
        };
        if let Some(until) = wait.filter(|_| self.end == Phase::Running) {
            self.held.postpone(number, until);
            self.outbox
                .tell(|| Change::Queue(target.slot_key(), until.duration_since(now)));
            return None;
        }
        let slot = self.limiter.take(target, spacing, now);
        let held = self.held.begin(number)?;
        held.expires.get_or_insert(now + HELD_PATIENCE);
        let (mut job, attempts) = (held.job.clone(), held.attempts);
        // What a lane said in an attempt of hours ago is not weighed by how it is now.
        job.ask_anew();
        let is_probe = self.take_held_permit(&job, now);
        Some(Grant::Held(HeldAttempt {
            number,
            job,
            slot,
            attempts,
            is_probe,
        }))
    }

    /// Takes a permit of a lane for a held push. Returns whether that finds out if the provider is back.
    fn take_held_permit(&mut self, job: &PushJob, now: Instant) -> bool {
        if job.lane != LaneId::Main {
            self.take_permit(job);
            return false;
        }
        self.turns.out += 1;
        self.turns.held_out += 1;
        self.outage.held_sent(now) && self.end == Phase::Running
    }

    /// Takes a push that was held before the daemon started, under its number, if it is worth something
    /// and there is room.
    pub fn remember_held(
        &mut self,
        number: u64,
        record: HeldRecord,
        recipient: Recipient,
        hasher: &TokenHasher,
        clocks: Clocks,
    ) -> Remembered {
        self.next_number = self.next_number.max(number + 1);
        let expires = record.expires(self.hold_for, recipient.time_to_live, clocks);
        let is_spooled = recipient.lane == LaneId::Main && record.is_spooled(clocks);
        let (due, attempts) = (clocks.to_instant(record.due), record.attempts);
        let mut job = record.into_job(recipient, hasher, clocks);
        let spacing = job.spacing;
        job.worth_until = Some(expires);
        let target = job.target();
        if expires <= clocks.now {
            return Remembered::Expired;
        }
        // One was under way when this one was queued for its key.
        if self.held.remove_queued(target).is_some() || self.spool.remove(target.slot_key()).is_some() {
            self.ended.push((target.token, HeldEnd::Covered));
        }
        if is_spooled {
            if self.spool.is_full() {
                return Remembered::Full;
            }
            self.spool.remember(&job, number, expires);
            self.outage.begin_down(clocks.now);
            return Remembered::Held;
        }
        if self.held.is_full() {
            return Remembered::Full;
        }
        let mut held = HeldPush::new(
            job,
            due.min(clocks.now + HELD_PATIENCE.max(spacing)),
            Some(expires),
        );
        held.attempts = attempts;
        self.held.add(number, held);
        Remembered::Held
    }

    /// The job of a record that was read.
    pub fn job_of(
        record: HeldRecord,
        recipient: Recipient,
        hasher: &TokenHasher,
        clocks: Clocks,
    ) -> Box<PushJob> {
        record.into_job(recipient, hasher, clocks)
    }

    /// The end begins: nothing new is taken, and what is held goes out now. With `keeps_held` what cannot be delivered
    /// is not lost, because it is kept for the next start.
    pub fn begin_end(&mut self, keeps_held: bool, now: Instant) {
        self.end = Phase::Ending { keeps_held };
        // At once: what is published from now on is answered without them.
        self.let_wait_for_permits(now, usize::MAX);
        while !keeps_held && let Some(near) = self.spool.next(now) {
            match near {
                Near::Ready(number, job, expires) => self.become_due(number, job, expires, now),
                Near::Asked => {}
                Near::Expired(token) => self.lose(token),
            }
        }
    }

    /// Whether held pushes are due, and wait for nothing but a permit.
    #[must_use]
    pub fn has_due(&mut self, now: Instant) -> bool {
        let is_due = !self.turns.due.is_empty() && self.may_send_held(now).is_ok();
        is_due || self.has_due_beside(now)
    }

    /// Whether what is not delivered now is lost.
    #[must_use]
    pub fn is_last_chance(&self) -> bool {
        self.end == Phase::Ending { keeps_held: false }
    }

    /// The end of a lane's pause, if pushes have to wait for it: at the end there is no later time to send at.
    pub(super) fn holds_back(&self, lane: LaneId, now: Instant) -> Option<Instant> {
        self.paused_until(lane, now).filter(|_| !self.is_last_chance())
    }
}

/// So many become due at a time, in about a millisecond.
const PART: usize = 1_000;
/// One permit in so many.
const KEPT_FOR_PUBLISHES: usize = 8;
