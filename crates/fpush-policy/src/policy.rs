//! What becomes of pushes: the decisions about one module.
//!
//! A publish arrives ([`Policy::publish`]), an attempt ended so ([`Policy::answered`]), a time has come
//! ([`Policy::make_due`]), a permit is free ([`Policy::grant`]), the settings have changed ([`Policy::configure`]), the end
//! begins ([`Policy::begin_end`]). Each answers with what is to be done. `W` is how the driver reaches a publish that waits
//! for its permit.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fpush_push::{Class, Failure, Fingerprint, Form, Outcome, PushError, Unavailable};

use crate::{
    attempts::{Answered, Ended, Next, Notice, Tries},
    blocklist::{BlockReason, Blocklist},
    fair::{Entered, FairQueue, Standing, Ticket},
    health::ModuleHealth,
    hold::{HeldPush, HoldQueue},
    job::{PushJob, SenderDomain},
    limiter::{Limiter, RateSlot, Target},
    recency::Recency,
    recent::{End, Recent},
    records::Clocks,
    settings::ModuleSettings,
    verdict::{Belief, LaneClock, VerdictGuard, Word},
};

/// The state of one module, of which all decisions about its pushes are functions.
#[derive(Debug)]
pub struct Policy<W> {
    pub(crate) limiter: Limiter,
    pub(crate) blocklist: Blocklist,
    pub(crate) guard: VerdictGuard,
    pub(crate) clock: LaneClock,
    pub(crate) held: HoldQueue,
    pub(crate) health: ModuleHealth,
    pub(crate) recent: Recent,
    turns: Turns<W>,
    /// Domains of which a push was accepted not long ago, with the day on which the last one was.
    accepted_domains: Recency<u64>,
    /// How often the settings have changed: what was answered to older ones says nothing.
    generation: u64,
    end: Phase,
}

/// Who is at the provider, and who waits for that.
#[derive(Debug)]
struct Turns<W> {
    permits: usize,
    /// Permits that are out. They may be more for a while after `permits` became fewer.
    out: usize,
    /// Publishes whose senders wait for a reply.
    waiting: FairQueue<Fingerprint, W>,
    /// Held pushes that are due, by their numbers.
    due: FairQueue<Fingerprint, u64>,
    /// Whether a held push has the next turn, if one is due.
    held_next: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Nothing new is taken, and what is held goes out now. If it is kept for the next start, it is not lost.
    Ending {
        keeps_held: bool,
    },
}

/// A publish, as far as decisions need it.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// What it is for.
    pub target: Target,
    /// Whether the device is one that registered.
    pub registered: bool,
    /// Between two pushes to the device, if it has a time of its own.
    pub spacing: Option<Duration>,
    /// Who published.
    pub sender: &'a SenderDomain,
}

/// What becomes of a publish.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is nothing left to do but to reply.
    Answer(Outcome),
    /// It is acknowledged and waits: to be passed to [`Policy::hold`].
    Hold {
        /// Not before then.
        due: Instant,
        /// Between two pushes to the device.
        spacing: Duration,
        /// Whether it keeps what is encrypted in it.
        encrypted: bool,
    },
    /// It goes out: to be passed to [`Policy::take_turn`]. The slot is given back if the provider does not take the push.
    Send {
        /// Its right to be sent.
        slot: RateSlot,
        /// Between two pushes to the device.
        spacing: Duration,
    },
}

/// What a publish finds that wants a permit.
#[derive(Debug)]
pub enum Turn<W> {
    /// A permit, to be given back by [`Policy::give_back_permit`].
    Now,
    /// A place in the queue. Who had it before, if somebody had, has lost it.
    Waiting(Ticket<Fingerprint>, Option<W>),
    /// None.
    Full,
}

/// What is to be done next because a permit is free.
#[derive(Debug)]
pub enum Grant<W> {
    /// This publish has the permit.
    Waiter(W),
    /// This held push has it.
    Held(HeldAttempt),
    /// A held push ended without an attempt; the permit is still free.
    Ended(Fingerprint, HeldEnd),
}

/// A held push, to be sent.
#[derive(Debug)]
pub struct HeldAttempt {
    /// Its number in the hold queue.
    pub number: u64,
    /// The push.
    pub job: Box<PushJob>,
    /// Its right to be sent.
    pub slot: RateSlot,
    /// How often it has failed.
    pub attempts: u32,
}

/// How an acknowledged push ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldEnd {
    /// The provider has it.
    Delivered,
    /// Its token is dead.
    Dropped,
    /// A newer push is queued for its key, and stands for it.
    Covered,
    /// It could not be delivered.
    Lost(Outcome),
}

/// What becomes of a push whose token its provider calls too busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// It is acknowledged and waits.
    Held,
    /// A newer push is queued for its key, and stands for it.
    Covered,
    /// There is no room for it.
    Refused,
}

impl<W> Policy<W> {
    /// The state of a module that has just begun. `digest` names the settings that the provider's words depend on.
    #[must_use]
    pub fn new(settings: ModuleSettings, digest: u128, clocks: Clocks) -> Self {
        let ModuleSettings {
            max_in_flight,
            ratelimit,
            blocklist,
        } = settings;
        Self {
            limiter: Limiter::new(ratelimit, clocks.now),
            blocklist: Blocklist::new(blocklist),
            guard: VerdictGuard::new(digest),
            clock: LaneClock::new(clocks),
            held: HoldQueue::default(),
            health: ModuleHealth::default(),
            recent: Recent::default(),
            turns: Turns::new(max_in_flight),
            accepted_domains: Recency::new(MAX_ACCEPTED_DOMAINS),
            generation: 0,
            end: Phase::Running,
        }
    }

    /// Goes on with other settings. What the rate limit and the block list know, and what is held, stays; what the
    /// provider said against tokens stays where nothing has changed that this depends on.
    pub fn configure(&mut self, settings: ModuleSettings, digest: u128) {
        let ModuleSettings {
            max_in_flight,
            ratelimit,
            blocklist,
        } = settings;
        self.limiter.set_settings(ratelimit);
        self.blocklist.set_settings(blocklist);
        if self.guard.go_on_under(digest) {
            self.blocklist.unblock_all();
        }
        self.health = ModuleHealth::default();
        self.turns.resize(max_in_flight);
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
            registered,
            spacing,
            sender,
        } = *publish;
        if self.end != Phase::Running {
            return Decision::Answer(Outcome::ShuttingDown);
        }
        if let Some(reason) = self.blocked(target.token, registered, now) {
            return Decision::Answer(match reason {
                BlockReason::Dead => Outcome::TokenDead,
                BlockReason::Unexplained | BlockReason::Doubted => Outcome::TokenBlocked,
            });
        }
        if self.health.paused_until(now).is_some() {
            return Decision::Answer(Outcome::ProviderUnavailable);
        }
        if self.held.queued(target).is_some() {
            return Decision::Answer(self.refused(target.class));
        }
        let spacing = spacing.unwrap_or_else(|| self.limiter.settings().spacing);
        let Some(due) = self.limiter.not_before(target, now) else {
            let slot = self.limiter.take(target, spacing, now);
            return Decision::Send { slot, spacing };
        };
        if target.class == Class::Voip {
            return Decision::Answer(self.refused(target.class));
        }
        if !self.held.has_room(sender.share, self.standing(sender, now)) {
            return Decision::Answer(Outcome::Overloaded);
        }
        Decision::Hold {
            due,
            spacing,
            encrypted: self.held.has_room_for_encrypted(sender.share),
        }
    }

    /// Holds an acknowledged push. Returns whether it is due before all others.
    pub fn hold(&mut self, job: Box<PushJob>, due: Instant) -> bool {
        let first = self.held.next_due().is_none_or(|first| due < first);
        self.held.push(HeldPush::new(job, due));
        first
    }

    /// Lets a publish go to the provider, or wait for that.
    pub fn take_turn(&mut self, sender: &SenderDomain, waiter: impl FnOnce() -> W, now: Instant) -> Turn<W> {
        if self.turns.out < self.turns.permits {
            self.turns.out += 1;
            return Turn::Now;
        }
        let standing = self.standing(sender, now);
        match self.turns.waiting.enter(sender.sender(standing), waiter()) {
            Entered::Waiting(ticket) => Turn::Waiting(ticket, None),
            Entered::Displacing(ticket, displaced) => Turn::Waiting(ticket, Some(displaced)),
            Entered::Full(_) => Turn::Full,
        }
    }

    /// Gives up a place in the queue for permits.
    pub fn leave(&mut self, ticket: &Ticket<Fingerprint>) {
        self.turns.waiting.leave(ticket);
    }

    /// A push is not at the provider any more: [`grant`](Self::grant) says who has its permit.
    pub fn give_back_permit(&mut self) {
        self.turns.out = self.turns.out.saturating_sub(1);
    }

    /// Takes a slot back whose push was not accepted.
    pub fn give_back(&mut self, slot: RateSlot) {
        self.limiter.give_back(slot);
    }

    /// Takes note of the time: [`grant`](Self::grant) lets out what is due. At the end nothing more becomes due.
    pub fn make_due(&mut self, now: Instant) {
        if self.end == Phase::Running {
            self.let_wait_for_permits(now, false);
        }
    }

    fn let_wait_for_permits(&mut self, now: Instant, all: bool) {
        while let Some((number, job)) = self.held.pop_due(now, all) {
            let sender = Arc::clone(&job.sender);
            let standing = standing(&self.accepted_domains, sender.share, today(&self.clock, now));
            match self.turns.due.enter(sender.sender(standing), number) {
                Entered::Waiting(_) | Entered::Displacing(..) => {}
                Entered::Full(number) => self.held.postpone(number, now + CROWDED_PAUSE),
            }
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

    /// Whether an attempt may begin now; otherwise when the pause ends.
    ///
    /// # Errors
    ///
    /// The end of the pause.
    pub fn may_attempt(&self, now: Instant) -> Result<(), Instant> {
        match self.holds_back(now) {
            Some(until) => Err(until),
            None => Ok(()),
        }
    }

    /// What an answer of the provider means for the push that it was given to. `generation` is that of the settings with
    /// which the attempt was made, `jitter` a random number from 0 to 1.
    pub fn answered(
        &mut self,
        job: &mut PushJob,
        tries: &mut Tries,
        answer: Result<(), &Failure>,
        generation: u64,
        now: Instant,
        jitter: f64,
    ) -> Answered {
        let is_current = generation == self.generation;
        let failure = match answer {
            Ok(()) => {
                self.blocklist.unblock(job.token);
                self.accepted_domain(job.sender.share, now);
                let mut notice = None;
                if is_current {
                    self.health.accepted(now);
                    let at = self.clock.seconds(now);
                    let change = self.guard.accepted(job.token, job.sender.share, at);
                    notice = change.map(Notice::Lane);
                }
                return Answered::ended(Outcome::Accepted, notice);
            }
            Err(failure) => failure,
        };
        self.recent.failed(job.token, failure.reason, now);
        if !is_current {
            // What was refused with other settings says nothing.
            return Answered::next(Next::Again);
        }
        let asked = match failure.error {
            PushError::Reconnected if tries.may_reconnect() => return Answered::next(Next::Again),
            PushError::Renewed if tries.may_renew() => return Answered::next(Next::Again),
            PushError::TooLarge if job.push.form == Form::Full => {
                job.push.form = Form::Minimal;
                return Answered {
                    next: Next::Again,
                    notice: Some(Notice::TooLarge),
                };
            }
            PushError::Later { after } => after,
            PushError::Reconnected | PushError::Renewed => None,
            PushError::TokenBusy => {
                self.take_neutral(job, now);
                self.health.answered();
                return Answered::next(Next::Ended(Ended::Busy));
            }
            PushError::Pause { length, alarm } => {
                self.take_neutral(job, now);
                let resume = now + length;
                let first = self.health.pause(resume, alarm, failure, now);
                return Answered {
                    next: Next::Ended(Ended::Failed { resume }),
                    notice: first.then_some(Notice::Paused { length, alarm }),
                };
            }
            PushError::TokenGone { since } => return self.weigh(job, Some(since), now),
            PushError::TokenDoubted => return self.weigh(job, None, now),
            PushError::Unexplained => {
                self.take_neutral(job, now);
                self.health.answered();
                self.blocklist.block(job.token, BlockReason::Unexplained, now);
                return Answered::ended(Outcome::TokenBlocked, Some(Notice::Unknown));
            }
            PushError::Misconfigured => {
                self.take_neutral(job, now);
                self.health.misconfigured(failure);
                return Answered::ended(Outcome::ProviderUnavailable, Some(Notice::Refused));
            }
            PushError::TooLarge => {
                self.take_neutral(job, now);
                self.health.answered();
                return Answered::ended(Outcome::ProviderUnavailable, Some(Notice::Refused));
            }
        };
        self.health.unwell(failure);
        let resume = now + tries.backoff.pause(asked, jitter);
        Answered {
            next: if resume + LEAST_ATTEMPT > tries.patience {
                Next::Ended(Ended::Failed { resume })
            } else {
                Next::After { resume }
            },
            notice: Some(Notice::NotTaken),
        }
    }

    /// Weighs that the provider called a token dead, since then if it says so, or wrong (`None`). A second token, for
    /// calls, is no reason to give up the device: it is left alone for a while.
    fn weigh(&mut self, job: &PushJob, gone: Option<Option<u64>>, now: Instant) -> Answered {
        self.health.answered();
        let (token, domain) = (job.token, job.sender.share);
        let (at, wall) = (self.clock.seconds(now), self.clock.millis(now));
        let word = match gone {
            // A provider that speaks of the future may be wrong about all else.
            Some(since) if since.is_none_or(|since| since <= wall) => Word::BeyondDoubt,
            Some(_) | None => Word::AboutUs,
        };
        let is_second = job.push.extra.as_ref().is_some_and(|extra| extra.call);
        // Of another module, as likely as not, whose name was lost on the way.
        let is_astray = word == Word::AboutUs && job.choice == fpush_push::Choice::Default;
        let (belief, change) = if is_second || is_astray {
            (Belief::Doubted, self.guard.rejected(token, domain, at))
        } else {
            self.guard.weigh(token, domain, word, at)
        };
        let next = match belief {
            Belief::Dead => Next::Dead {
                since: gone.flatten(),
            },
            Belief::Doubted => {
                self.blocklist.block(token, BlockReason::Doubted, now);
                Next::Ended(Ended::Settled(Outcome::TokenBlocked))
            }
        };
        Answered {
            next,
            notice: change.map(Notice::Lane),
        }
    }

    /// The registry has said whether the registration of a dead token has ended; where there is none, it has. Returns what
    /// became of the push, and how many queued pushes went with the token.
    pub fn registry_said(
        &mut self,
        job: &PushJob,
        ended: Result<bool, Unavailable>,
        now: Instant,
    ) -> (Outcome, usize) {
        let (reason, outcome) = match ended {
            Ok(true) => (BlockReason::Dead, Outcome::TokenDead),
            // The device has registered since.
            Ok(false) => (BlockReason::Doubted, Outcome::TokenBlocked),
            // The provider will say it again.
            Err(Unavailable) => return (Outcome::RegistryUnavailable, 0),
        };
        self.guard.unblock(job.token);
        self.blocklist.block(job.token, reason, now);
        let dropped = match outcome {
            Outcome::TokenDead => self.held.remove_dead(job.key, job.token),
            _ => 0,
        };
        (outcome, dropped)
    }

    /// Decides about a push whose token its provider calls too busy.
    pub fn busy(&mut self, job: Box<PushJob>, slot: RateSlot, now: Instant) -> Busy {
        let until = self.limiter.silence_now(job.token, now);
        let target = job.target();
        if target.class != Class::Voip && self.held.queued(target).is_some() {
            return Busy::Covered;
        }
        self.limiter.give_back(slot);
        let sender = Arc::clone(&job.sender);
        let room = self.held.has_room(sender.share, self.standing(&sender, now));
        if target.class == Class::Voip || !room || self.is_last_chance() {
            return Busy::Refused;
        }
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
        let held = self.held.begin(number)?;
        held.attempts += 1;
        let (token, give_up) = (held.job.token, held.give_up.unwrap_or(now));
        let end = match ended {
            Ended::Settled(Outcome::Accepted) => HeldEnd::Delivered,
            Ended::Settled(Outcome::TokenDead) => HeldEnd::Dropped,
            Ended::Settled(outcome) => {
                self.limiter.give_back(slot);
                HeldEnd::Lost(*outcome)
            }
            Ended::Failed { resume } => {
                self.limiter.give_back(slot);
                let over = now >= give_up || *resume >= give_up + LAST_ATTEMPT;
                if over || self.is_last_chance() {
                    HeldEnd::Lost(Outcome::ProviderUnavailable)
                } else if self.held.requeue(number, *resume) {
                    return None;
                } else {
                    HeldEnd::Covered
                }
            }
            Ended::Busy => {
                let until = self.limiter.silence_now(token, now);
                self.limiter.give_back(slot);
                if now >= give_up || self.is_last_chance() {
                    HeldEnd::Lost(Outcome::ProviderUnavailable)
                } else if self.held.requeue(number, until) {
                    return None;
                } else {
                    HeldEnd::Covered
                }
            }
        };
        self.held.remove(number);
        Some(end)
    }

    /// The end begins: nothing new is taken, and what is held goes out now. With `keeps_held` what cannot be delivered
    /// is not lost, because it is kept for the next start.
    pub fn begin_end(&mut self, keeps_held: bool, now: Instant) {
        self.end = Phase::Ending { keeps_held };
        self.let_wait_for_permits(now, true);
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

    /// Whether nothing is under way, and nothing is held.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.held.len() == 0 && self.lengths() == (0, 0)
    }

    /// How many pushes are at the provider, and how many publishes wait for that.
    #[must_use]
    pub fn lengths(&self) -> (usize, usize) {
        (self.turns.out, self.turns.waiting.len())
    }

    /// Takes note of how a push ended, for whoever asks why a phone gets none.
    pub fn note(&mut self, token: Fingerprint, end: End, now: Instant) {
        self.recent.ended(token, end, now);
    }

    /// Forgets what it holds against a token: its device has registered anew.
    pub fn unblock(&mut self, token: Fingerprint) {
        self.blocklist.unblock(token);
        self.guard.unblock(token);
    }

    /// Follows the clock on the wall. To be called once a second.
    pub fn follow_clock(&mut self, clocks: Clocks) {
        if self.clock.follow(clocks) {
            let now = self.clock.seconds(clocks.now);
            self.guard.begin_hours_again(now);
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

    /// The outcome for a push for whose key one is queued: of a call none is queued that could stand for it.
    fn refused(&self, class: Class) -> Outcome {
        match class {
            Class::High | Class::Low if self.limiter.settings().acknowledge_refused => Outcome::Coalesced,
            Class::High | Class::Low | Class::Voip => Outcome::Refused,
        }
    }

    /// The end of a pause, if pushes have to wait for it: at the end there is no later time to send at.
    fn holds_back(&self, now: Instant) -> Option<Instant> {
        self.health.paused_until(now).filter(|_| !self.is_last_chance())
    }

    /// Takes note of an answer that says nothing of the token.
    fn take_neutral(&mut self, job: &PushJob, now: Instant) {
        let at = self.clock.seconds(now);
        self.guard.neutral(job.token, job.sender.share, at);
    }

    fn standing(&self, sender: &SenderDomain, now: Instant) -> Standing {
        standing(&self.accepted_domains, sender.share, today(&self.clock, now))
    }

    fn accepted_domain(&mut self, share: Fingerprint, now: Instant) {
        let today = today(&self.clock, now);
        if self.accepted_domains.get(share) != Some(&today) {
            self.accepted_domains.touch(share, today);
        }
    }

    /// Takes domains for known of which pushes were accepted before the daemon started.
    pub(crate) fn remember_domains(&mut self, now: Instant) {
        let today = today(&self.clock, now);
        for domain in self.guard.known_domains() {
            self.accepted_domains.touch(domain, today);
        }
    }
}

fn standing(accepted: &Recency<u64>, share: Fingerprint, today: u64) -> Standing {
    match accepted.get(share) {
        Some(day) if today.saturating_sub(*day) <= KNOWN_DAYS => Standing::Known,
        Some(_) | None => Standing::Unknown,
    }
}

fn today(clock: &LaneClock, now: Instant) -> u64 {
    clock.seconds(now) / 86_400
}

enum Wanting<W> {
    Waiter(W),
    Held(u64),
}

impl<W> Turns<W> {
    fn new(permits: usize) -> Self {
        Self {
            permits,
            out: 0,
            waiting: FairQueue::new(permits.saturating_mul(PLACES_PER_PERMIT)),
            // What is acknowledged has a place in the hold queue already.
            due: FairQueue::new(usize::MAX),
            held_next: false,
        }
    }

    fn resize(&mut self, permits: usize) {
        self.permits = permits;
        self.waiting.set_places(permits.saturating_mul(PLACES_PER_PERMIT));
    }

    /// Publishes and held pushes take turns while both wait.
    fn next(&mut self, without_held: bool) -> Option<Wanting<W>> {
        let held_waits = !without_held && !self.due.is_empty();
        let held_has_turn = held_waits && (self.held_next || self.waiting.is_empty());
        self.held_next = held_waits && !held_has_turn;
        if held_has_turn {
            self.due.serve().map(Wanting::Held)
        } else {
            self.waiting.serve().map(Wanting::Waiter)
        }
    }
}

/// Publishes that may wait, for each push that may be at the provider; half of them from domains that are not known.
const PLACES_PER_PERMIT: usize = 20;
/// An acknowledged push is tried for this long.
const HELD_PATIENCE: Duration = Duration::from_secs(600);
/// So much later than that its last attempt may be.
const LAST_ATTEMPT: Duration = Duration::from_secs(90);
/// An attempt with less time than this is not worth making.
const LEAST_ATTEMPT: Duration = Duration::from_secs(1);
/// Before a held push that found no place tries again.
const CROWDED_PAUSE: Duration = Duration::from_millis(200);
/// Half of all places are kept for domains of which a push was accepted within so many days.
const KNOWN_DAYS: u64 = 30;
/// 40 bytes each.
const MAX_ACCEPTED_DOMAINS: u32 = 100_000;

#[cfg(test)]
mod tests;
