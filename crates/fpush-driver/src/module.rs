//! One push module: carries out what the policy decides about its pushes.

mod held;
mod inspect;
mod proof;
mod status;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fpush_policy::{
    BlockRecord, Busy, Clocks, Decision, End, Ended, HeldEnd, HeldRecord, LaneChange, ModuleSettings, Next,
    Notice, Policy, Publish, PushJob, RateSlot, SenderDomain, Target, Tries, Turn as Decided, VerdictRecord,
};
use fpush_push::{
    Class, Extra, Failure, Fingerprint, Form, Meters, Outcome, Push, PushError, PushTrait, Registered,
    Request, Token, Unavailable, Urgency, jitter,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::{
    Drain, Senders,
    clock::clocks,
    lane::{Lane, Life, Permit, Place, State, Turn},
};

pub use self::inspect::{Block, Limit, TokenView};

/// What becomes of a publish.
#[derive(Debug)]
pub enum Admission {
    /// There is nothing left to do but to reply.
    Answered(Outcome),
    /// It goes to the provider: [`Admitted::deliver`] knows the outcome when it is done.
    Admitted(Admitted),
}

/// A push that was admitted, by the module that sends it.
pub struct Admitted {
    module: Arc<Module>,
    job: Box<PushJob>,
    slot: RateSlot,
    turn: Turn,
    arrived: Instant,
}

/// One push module.
pub struct Module {
    name: Box<str>,
    senders: Senders,
    drain: Drain,
    lane: Arc<Lane>,
    /// Whether what is held at the end is written down for the next start.
    keeps: AtomicBool,
    meters: Arc<Meters>,
}

impl Module {
    /// A module in front of a backend.
    #[must_use]
    pub fn new(
        name: &str,
        backend: Box<dyn PushTrait>,
        settings: ModuleSettings,
        senders: Senders,
        drain: Drain,
    ) -> Arc<Self> {
        let policy = Policy::new(settings, backend.digest(), clocks());
        Arc::new(Self {
            name: name.into(),
            senders,
            drain,
            lane: Lane::new(policy, backend.into()),
            keeps: AtomicBool::new(false),
            meters: Arc::default(),
        })
    }

    /// Goes on with another backend and other settings. Attempts under way end on the old backend; what the rate
    /// limit and the block list know, and what is held, stays. What the provider said against tokens stays where nothing
    /// has changed that this depends on.
    pub fn replace(&self, backend: Box<dyn PushTrait>, settings: ModuleSettings) {
        let mut state = self.lock();
        state.policy.configure(settings, backend.digest());
        state.backend = backend.into();
        drop(state);
        self.lane.grant();
    }

    /// Ends the module, to which no more publishes may come: [`run`](Self::run) sends what is held when its time has
    /// come, and returns when nothing is left.
    pub fn retire(&self) {
        self.lock().life = Life::Retired;
        self.lane.wake.notify_one();
    }

    /// Takes [`retire`](Self::retire) back. Returns whether it was not too late for that.
    pub fn resume(&self) -> bool {
        let mut state = self.lock();
        if state.life == Life::Ended {
            return false;
        }
        state.life = Life::Wanted;
        true
    }

    /// Whether a retired module has nothing left to do.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.lock().life == Life::Ended
    }

    /// The name by which publishes mean this module.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many pushes were acknowledged and could not be delivered after all.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.meters.lost()
    }

    /// What it counts.
    #[must_use]
    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// How many acknowledged pushes are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.lock().policy.held()
    }

    /// Sends one push because the operator wants it: once, at once, whatever rate limit and block list say, and without
    /// a trace in them. Returns the class that the push had.
    ///
    /// # Errors
    ///
    /// The token cannot be one of the provider's, or the provider did not accept the push.
    pub async fn try_out(&self, token: &str, urgency: Urgency) -> Result<Class, NotSent> {
        let backend = self.backend();
        let token = backend.canonical(token).ok_or(NotSent::Token)?;
        let class = backend.class(urgency);
        let mut push = Push {
            token: Token::new(&token),
            class,
            form: Form::Full,
            extra: None,
            id: Uuid::new_v4(),
            deadline: (Instant::now() + DEADLINE).into_std(),
        };
        let mut again = MAX_RECONNECTS;
        loop {
            let failure = match self.attempt(&*backend, &push).await {
                Ok(()) => return Ok(class),
                Err(failure) => failure,
            };
            match failure.error {
                PushError::Reconnected | PushError::Renewed if again > 0 => again -= 1,
                PushError::TooLarge if push.form == Form::Full => push.form = Form::Minimal,
                PushError::TokenGone { .. }
                | PushError::TokenDoubted
                | PushError::TokenBusy
                | PushError::Reconnected
                | PushError::Renewed
                | PushError::TooLarge
                | PushError::Later { .. }
                | PushError::Pause { .. }
                | PushError::Misconfigured
                | PushError::Unexplained => return Err(NotSent::Refused(failure)),
            }
        }
    }

    /// How often the block list, what is held, and what is known of the provider's words have changed so far.
    #[must_use]
    pub fn changes(&self) -> [u64; 3] {
        self.lock().policy.changes()
    }

    /// What is known of the provider's words about tokens, to be written down.
    #[must_use]
    pub fn verdicts(&self, clocks: Clocks) -> Vec<VerdictRecord> {
        self.lock().policy.verdicts(clocks.now)
    }

    /// Follows the clock on the wall. To be called once a second.
    pub fn follow_clock(&self, clocks: Clocks) {
        self.lock().policy.follow_clock(clocks);
    }

    /// A part of the block list, to be written down; see [`Policy::blocks`].
    #[must_use]
    pub fn blocks(&self, from: usize, clocks: Clocks) -> (Vec<BlockRecord>, Option<usize>) {
        self.lock().policy.blocks(from, clocks)
    }

    /// A part of what is held, to be written down; see [`Policy::held_records`].
    #[must_use]
    pub fn held_records(&self, from: u64, clocks: Clocks) -> (Vec<(Uuid, HeldRecord)>, Option<u64>) {
        self.lock().policy.held_records(from, clocks)
    }

    /// What is held when the daemon ends will be written down: it is not lost then.
    pub fn keep_held(&self) {
        self.keeps.store(true, Ordering::Relaxed);
    }

    /// Takes what was written down before the daemon started again. What is held goes out when its time has come.
    pub fn remember(
        &self,
        blocks: impl IntoIterator<Item = BlockRecord>,
        held: impl IntoIterator<Item = HeldRecord>,
        verdicts: impl IntoIterator<Item = VerdictRecord>,
        clocks: Clocks,
    ) {
        self.lock().policy.remember(blocks, verdicts, clocks);
        for record in held {
            // The settings may have changed since, and the file too.
            let canonical = self.canonical(record.token()).map(|token| Token::new(&token));
            let Some(token) = canonical else {
                self.lose(self.fingerprint(record.token()), Outcome::TokenInvalid);
                continue;
            };
            let fingerprint = self.fingerprint(token.as_str());
            let sender = self.senders.domain(record.domain());
            let hasher = self.senders.hasher();
            let end = self
                .lock()
                .policy
                .remember_held(record, token, Uuid::new_v4(), sender, hasher, clocks);
            if let Some(end) = end {
                self.held_has_ended(fingerprint, end);
            }
        }
        self.lane.wake.notify_one();
    }

    /// The one spelling of a token of the module's provider; `None` for what cannot be one.
    #[must_use]
    pub fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
        self.backend().canonical(token)
    }

    /// The hash by which the log names a token.
    #[must_use]
    pub fn fingerprint(&self, token: &str) -> Fingerprint {
        self.senders.hasher().fingerprint(token)
    }

    /// Whether a text has the form of the provider's tokens. Where every text is a token, none has their form.
    #[must_use]
    pub fn knows_form_of(&self, text: &str) -> bool {
        let backend = self.backend();
        backend.canonical(text).is_some() && backend.canonical("?").is_none()
    }

    /// Forgets what it holds against a token: its device has registered anew.
    pub fn unblock(&self, token: &str) {
        if let Some(token) = self.canonical(token) {
            let fingerprint = self.fingerprint(&token);
            self.lock().policy.unblock(fingerprint);
        }
    }

    /// Decides about a publish. Never waits.
    pub fn admit(self: &Arc<Self>, request: Request<'_>, now: Instant) -> Admission {
        let sender = self.senders.domain(request.domain);
        let to_second = request.call_token().map(|token| {
            let request = Request { token, ..request };
            self.decide(request, &sender, true, now)
        });
        let admission = match to_second {
            // The second token does not work: then the phone shows a message.
            None | Some(Admission::Answered(Outcome::TokenBlocked | Outcome::TokenInvalid)) => {
                self.decide(request, &sender, false, now)
            }
            Some(admission) => admission,
        };
        if let Admission::Answered(outcome) = admission {
            self.meters.outcome(outcome);
            if let Some(token) = self.canonical(request.token) {
                self.note(self.fingerprint(&token), End::Answered(outcome));
            }
        }
        admission
    }

    /// `second` says whether the token is the device's second one, for calls.
    fn decide(
        self: &Arc<Self>,
        request: Request<'_>,
        sender: &Arc<SenderDomain>,
        second: bool,
        now: Instant,
    ) -> Admission {
        let Request {
            token,
            choice,
            urgency,
            domain: _,
            registered,
        } = request;
        if self.drain.has_begun() {
            return Admission::Answered(Outcome::ShuttingDown);
        }
        let mut state = self.lock();
        if state.life == Life::Ended {
            return Admission::Answered(Outcome::ShuttingDown);
        }
        let Some(token) = state.backend.canonical(token) else {
            return Admission::Answered(Outcome::TokenInvalid);
        };
        let fingerprint = self.fingerprint(&token);
        let class = if second {
            Class::Voip
        } else {
            state.backend.class(urgency)
        };
        let key = registered.map_or(fingerprint, |registered| {
            self.senders.hasher().device(&registered.recipient.node)
        });
        let target = Target {
            key,
            token: fingerprint,
            class,
        };
        let publish = Publish {
            target,
            registered: registered.is_some(),
            spacing: registered.map(|registered| registered.recipient.spacing),
            sender,
        };
        let job = |spacing, encrypted| {
            Box::new(PushJob {
                push: Push {
                    token: Token::new(&token),
                    class,
                    form: Form::Full,
                    extra: registered.and_then(|registered| extra(&registered, encrypted, second)),
                    id: Uuid::new_v4(),
                    deadline: (now + DEADLINE).into_std(),
                },
                token: fingerprint,
                key,
                node: registered.map(|registered| Arc::clone(&registered.recipient.node)),
                choice,
                sender: Arc::clone(sender),
                spacing,
                record: registered.map(|registered| Arc::clone(&registered.recipient.record)),
            })
        };
        match state.policy.publish(&publish, now.into_std()) {
            Decision::Answer(outcome) => {
                drop(state);
                if outcome == Outcome::Overloaded {
                    warn!(module = %self.name, "{NO_ROOM}");
                }
                Admission::Answered(outcome)
            }
            Decision::Hold {
                due,
                spacing,
                encrypted,
            } => {
                let first = state.policy.hold(job(spacing, encrypted), due);
                drop(state);
                if first {
                    self.lane.wake.notify_one();
                }
                Admission::Answered(Outcome::Queued)
            }
            Decision::Send { slot, spacing } => match self.turn(&mut state, sender, now) {
                Some(turn) => Admission::Admitted(Admitted {
                    module: Arc::clone(self),
                    job: job(spacing, true),
                    slot,
                    turn,
                    arrived: now,
                }),
                None => {
                    state.policy.give_back(slot);
                    drop(state);
                    self.complain_of_crowd();
                    Admission::Answered(Outcome::Overloaded)
                }
            },
        }
    }

    /// A permit, or a place in the queue for one; `None` if it is full.
    fn turn(&self, state: &mut State, sender: &SenderDomain, now: Instant) -> Option<Turn> {
        let mut receiver = None;
        let waiter = || {
            let (waiter, waiting) = oneshot::channel();
            receiver = Some(waiting);
            waiter
        };
        match state.policy.take_turn(sender, waiter, now.into_std()) {
            Decided::Now => Some(Turn::Now(Permit::new(&self.lane))),
            Decided::Waiting(ticket, displaced) => {
                // It finds out by that.
                drop(displaced);
                receiver.map(|receiver| Turn::Waiting(Place::new(&self.lane, receiver, ticket)))
            }
            Decided::Full => None,
        }
    }

    /// Waits for a permit and sends.
    async fn carry_out(&self, admitted: Admitted) -> Outcome {
        let Admitted {
            module: _,
            mut job,
            slot,
            turn,
            arrived,
        } = admitted;
        let Some(permit) = self.drain.run(turn.permit(arrived)).await.flatten() else {
            self.lock().policy.give_back(slot);
            if !self.drain.has_begun() {
                self.complain_of_crowd();
            }
            return Outcome::Overloaded;
        };
        delay_at_random().await;
        let mut tries = Tries::new(job.push.deadline, 0);
        let ended = self.attempts(&mut job, &mut tries).await;
        drop(permit);
        let outcome = match ended {
            Ended::Busy => return self.hold_busy(job, slot),
            Ended::Failed { .. } => Outcome::ProviderUnavailable,
            Ended::Settled(outcome) => outcome,
        };
        if outcome != Outcome::Accepted {
            self.lock().policy.give_back(slot);
        }
        outcome
    }

    /// Makes a push whose token is too busy the queued one of its key.
    fn hold_busy(&self, job: Box<PushJob>, slot: RateSlot) -> Outcome {
        let busy = self.lock().policy.busy(job, slot, Instant::now().into_std());
        match busy {
            Busy::Held => {
                self.lane.wake.notify_one();
                Outcome::Queued
            }
            Busy::Covered => {
                self.meters.held_covered();
                Outcome::Queued
            }
            Busy::Refused => Outcome::Refused,
        }
    }

    /// Tries until there is an answer, or until the policy gives up.
    async fn attempts(&self, job: &mut PushJob, tries: &mut Tries) -> Ended {
        loop {
            let (backend, generation) = {
                let state = self.lock();
                if let Err(resume) = state.policy.may_attempt(Instant::now().into_std()) {
                    return Ended::Failed { resume };
                }
                (Arc::clone(&state.backend), state.policy.generation())
            };
            let Some(result) = self.drain.run(self.attempt(&*backend, &job.push)).await else {
                return Ended::Failed {
                    resume: Instant::now().into_std(),
                };
            };
            self.log_answer(job, &result);
            let (answered, is_current) = {
                let mut state = self.lock();
                let is_current = generation == state.policy.generation();
                let (now, jitter) = (
                    Instant::now().into_std(),
                    if result.is_ok() { 0.0 } else { jitter() },
                );
                let answer = result.as_ref().copied();
                let answered = state.policy.answered(job, tries, answer, generation, now, jitter);
                (answered, is_current)
            };
            match (&job.record, &result) {
                (Some(record), Ok(())) => record.delivered(),
                (Some(record), Err(_)) if is_current => record.failed(),
                (Some(_), Err(_)) | (None, _) => {}
            }
            if let Some(notice) = answered.notice {
                self.tell(notice, result.as_ref().err());
            }
            self.count_word(&answered.next, &result);
            match answered.next {
                Next::Again => {}
                Next::After { resume } => {
                    let pause = sleep_until(resume.into());
                    if self.drain.run(Box::pin(pause)).await.is_none() {
                        return Ended::Failed { resume };
                    }
                }
                Next::Dead { since } => return Ended::Settled(self.mark_dead(job, since).await),
                Next::Ended(ended) => return ended,
            }
        }
    }

    fn log_answer(&self, job: &PushJob, result: &Result<(), Failure>) {
        let (token, class) = (job.token, job.push.class);
        match result {
            Ok(()) => debug!(module = %self.name, %token, ?class, "push accepted"),
            Err(failure) => debug!(module = %self.name, %token, ?class, todo = ?failure.error,
                answer = %failure.answer, "push failed"),
        }
    }

    fn count_word(&self, next: &Next, result: &Result<(), Failure>) {
        let is_word = |failure: &Failure| {
            matches!(
                failure.error,
                PushError::TokenGone { .. } | PushError::TokenDoubted
            )
        };
        if *next != Next::Again && result.as_ref().is_err_and(is_word) {
            self.meters.rejected(matches!(next, Next::Dead { .. }));
        }
    }

    /// Takes a token for dead, unless its device has registered since it died: that is for the database to say, which
    /// has as long as the reply.
    async fn mark_dead(&self, job: &PushJob, since: Option<u64>) -> Outcome {
        let ended = match &job.record {
            None => Ok(true),
            Some(record) => {
                let asking = timeout_at(job.push.deadline.into(), record.gone(since));
                match self.drain.run(asking).await {
                    Some(Ok(answer)) => answer,
                    Some(Err(_)) | None => Err(Unavailable),
                }
            }
        };
        let now = Instant::now().into_std();
        let (outcome, dropped) = self.lock().policy.registry_said(job, ended, now);
        for _ in 0..dropped {
            self.held_has_ended(job.token, HeldEnd::Dropped);
        }
        outcome
    }

    /// Says what a person should hear.
    fn tell(&self, notice: Notice, failure: Option<&Failure>) {
        let (module, answer) = (&self.name, failure.map_or("", |failure| &*failure.answer));
        let meaning = failure.map_or("", |failure| failure.meaning);
        match notice {
            Notice::Lane(LaneChange::BurstBegan) => {
                self.meters.burst();
                error!(%module, answer, meaning, "{}", status::REJECTS_TOO_MANY);
            }
            Notice::Lane(LaneChange::NothingAccepted) => {
                warn!(%module, answer, meaning, "{}", status::ACCEPTS_NOTHING);
            }
            Notice::Lane(LaneChange::BurstEnded) => {
                info!(%module, "the provider accepts pushes again, and rejects no more tokens than usual");
            }
            Notice::TooLarge => error!(%module, answer, meaning,
                "the push is too large for the provider; sending the minimal form"),
            Notice::Paused { length, alarm } => {
                let seconds = length.as_secs();
                if alarm {
                    error!(%module, answer, meaning, seconds, "the provider refuses this module's credentials or settings: \
                        correct them; the module pauses, and no device is unregistered meanwhile");
                } else {
                    warn!(%module, answer, meaning, seconds, "throttled by the provider; pausing this module");
                }
            }
            Notice::Unknown => {
                error!(%module, answer, meaning, "the provider gave an answer that is not known");
            }
            Notice::Refused => error!(%module, answer, meaning,
                "the provider refuses the request; check the settings of this module"),
            Notice::NotTaken => warn!(%module, answer, meaning, "the provider did not take a push"),
        }
    }

    /// For whoever asks later why the phone got no push.
    fn note(&self, token: Fingerprint, end: End) {
        self.lock().policy.note(token, end, Instant::now().into_std());
    }

    /// In one place, so that it is one kind of problem.
    fn complain_of_crowd(&self) {
        warn!(module = %self.name, "{CROWDED}");
    }

    /// One attempt.
    async fn attempt(&self, backend: &dyn PushTrait, push: &Push) -> Result<(), Failure> {
        let start = Instant::now();
        let result = backend.send(push).await;
        let refused = result.as_ref().err().map(|failure| failure.reason);
        self.meters.attempt(start.elapsed(), refused);
        result
    }

    fn backend(&self) -> Arc<dyn PushTrait> {
        Arc::clone(&self.lock().backend)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.lane.lock()
    }
}

/// Why a push that the operator wanted was not sent.
#[derive(Debug)]
pub enum NotSent {
    /// The token cannot be one of the provider's.
    Token,
    /// The provider did not accept it.
    Refused(Failure),
}

impl Admitted {
    /// Sends the push: waits for a permit for 5 s at most, then tries until the provider gave its answer or 25 s are
    /// over since the publish arrived.
    pub async fn deliver(self) -> Outcome {
        let (module, token) = (Arc::clone(&self.module), self.job.token);
        let outcome = module.carry_out(self).await;
        module.meters.outcome(outcome);
        module.note(token, End::Answered(outcome));
        outcome
    }
}

/// What a push to a registered device carries beside the usual; without what is encrypted unless `encrypted` says so.
/// `call` says whether it goes to the device's second token.
fn extra(registered: &Registered<'_>, encrypted: bool, call: bool) -> Option<Arc<Extra>> {
    let extra = Extra {
        account: registered.recipient.account.clone(),
        channel: registered.recipient.channel.clone(),
        encrypted: registered.encrypted.filter(|_| encrypted).cloned(),
        call,
    };
    let empty =
        extra.account.is_none() && extra.channel.is_none() && extra.encrypted.is_none() && !extra.call;
    (!empty).then(|| Arc::new(extra))
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted")
            .field("job", &self.job)
            .finish_non_exhaustive()
    }
}

/// With the feature `random_delay_before_push`: up to 50 ms, which spreads pushes that arrive together.
async fn delay_at_random() {
    #[cfg(feature = "random_delay_before_push")]
    tokio::time::sleep(Duration::from_millis(50).mul_f64(jitter())).await;
}

/// A reply is due this long after its publish; ejabberd forgets the publish after 32 s.
const DEADLINE: Duration = Duration::from_secs(25);
/// How often a push that the operator wants tries again at once because its connection broke.
const MAX_RECONNECTS: u32 = 2;
const CROWDED: &str = "overloaded: publishes arrive faster than the provider accepts them; some were refused: is the provider \
    slow, does a domain flood, or is maxInFlight too small?";
const NO_ROOM: &str = "the hold queue is full; publish refused: does a domain flood, or does the provider throttle many \
    devices?";
