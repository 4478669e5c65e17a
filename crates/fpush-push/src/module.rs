//! One push module: the whole policy in front of a backend.
//!
//! [`Module::admit`] decides about a publish at once and without waiting: block list, token format, rate
//! limit, place in the line. What is left to do then is a [`Ticket`], and [`Ticket::deliver`] does it: wait in
//! the line, send, retry until the deadline. Pushes that were acknowledged because they have to wait are sent
//! by [`Module::run`].

mod inspect;
mod proof;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::{
    BackendStatus, BlockRecord, BlocklistSettings, Choice, Class, Clocks, Drain, Encrypted, Extra, Failure,
    Fingerprint, Form, HeldRecord, ModuleStatus, Outcome, Probe, Proof, Push, PushError, PushTrait,
    RatelimitSettings, Recipient, Token, TokenHasher, Trouble, TroubleKind, Unavailable, Urgency,
    VerdictRecord,
    blocklist::{BlockReason, Blocklist},
    fitness::Fitness,
    limiter::{Admission, Hold, Limiter, Release, Slot, Target},
    line::{Line, Permit, Place},
    meters::Meters,
    order::Order,
    queue::{Held, Queue},
    recent::{End, Recent},
    registrable,
    retry::{Backoff, jitter},
    settings::Section,
    verdict::{Belief, Condition, LaneClock, Turn, VerdictGuard, Word},
};

pub use self::inspect::{Block, Limit, TokenView};

/// What every module has, whatever its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSettings {
    /// `maxInFlight`: pushes at the provider at a time.
    pub max_in_flight: usize,
    /// `ratelimit`.
    pub ratelimit: RatelimitSettings,
    /// `blacklist`.
    pub blocklist: BlocklistSettings,
}

impl ModuleSettings {
    /// Reads the keys that every module has, except `type` and `is_default_module`.
    pub fn read(module: &mut Section<'_>) -> Self {
        Self {
            max_in_flight: module.integer("maxInFlight", 1..=100_000, 1_000) as usize,
            ratelimit: RatelimitSettings::read(module),
            blocklist: BlocklistSettings::read(module),
        }
    }
}

/// A publish for a module.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The token.
    pub token: &'a str,
    /// How certain it is that the publish means this module.
    pub choice: Choice,
    /// What the publish says about its importance.
    pub urgency: Urgency,
    /// The domain of its sender.
    pub domain: &'a str,
    /// The device, if it is one that registered.
    pub registered: Option<Registered<'a>>,
}

/// What a publish for a registered device says beside that.
#[derive(Clone, Copy)]
pub struct Registered<'a> {
    /// The device.
    pub recipient: &'a Recipient,
    /// What its server has for the app.
    pub encrypted: Option<&'a Encrypted>,
}

/// What [`Module::admit`] decided.
#[derive(Debug)]
pub enum Verdict {
    /// There is nothing left to do but to reply.
    Settled(Outcome),
    /// It goes to the provider: [`Ticket::deliver`] knows the outcome when it is done.
    Deliver(Ticket),
}

/// A push that was admitted, by the module that sends it.
#[derive(Debug)]
pub struct Ticket {
    module: Arc<Module>,
    order: Box<Order>,
    slot: Slot,
    place: Place,
    arrived: Instant,
}

/// One push module.
pub struct Module {
    name: Box<str>,
    hasher: TokenHasher,
    line: Arc<Line>,
    drain: Drain,
    state: Mutex<State>,
    /// Wakes [`run`](Self::run) when a push was held that is due before all others, and at the end of the module.
    wake: Notify,
    /// Whether what is held at the end is written down for the next start.
    keeps: AtomicBool,
    meters: Arc<Meters>,
    /// With a lock of its own, because it only watches.
    recent: Mutex<Recent>,
}

struct State {
    life: Life,
    /// Another one takes its place when the settings change; attempts under way end on the one that they began on.
    backend: Arc<dyn PushTrait>,
    acknowledge_refused: bool,
    limiter: Limiter,
    blocklist: Blocklist,
    guard: VerdictGuard,
    clock: LaneClock,
    queue: Queue,
    fitness: Fitness,
}

/// Whether the settings have such a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Wanted,
    /// No more publishes come, and [`Module::run`] ends when nothing is held any more.
    Retired,
    /// It has ended.
    Ended,
}

/// Logs what a person has to look at. It is no function because repeats are summed up by the place in the code.
macro_rules! complain {
    ($module:expr, $failure:expr, $message:literal) => {
        error!(module = %$module.name, answer = %$failure.answer, meaning = $failure.meaning, $message)
    };
}

/// How the attempts for one push ended.
enum Ended {
    /// Nothing more is to be tried.
    Settled(Outcome),
    /// The provider wants silence for this token.
    Busy,
    /// Nobody could say yes or no; another attempt may help from then on.
    Failed { resume: Instant },
}

/// What an answer means that no further attempt will change.
enum Judged {
    /// This became of the push.
    Settled(Outcome),
    /// The token is dead: since then, in milliseconds since 1970, if the provider says so.
    Dead { since: Option<u64> },
}

impl Module {
    /// A module in front of a backend.
    #[must_use]
    pub fn new(
        name: &str,
        backend: Box<dyn PushTrait>,
        settings: ModuleSettings,
        hasher: TokenHasher,
        drain: Drain,
    ) -> Arc<Self> {
        let ModuleSettings {
            max_in_flight,
            ratelimit,
            blocklist,
        } = settings;
        let guard = VerdictGuard::new(backend.digest());
        Arc::new(Self {
            name: name.into(),
            hasher,
            line: Line::new(max_in_flight),
            drain,
            state: Mutex::new(State {
                life: Life::Wanted,
                backend: backend.into(),
                acknowledge_refused: ratelimit.acknowledge_refused,
                limiter: Limiter::new(ratelimit, Instant::now()),
                blocklist: Blocklist::new(blocklist),
                guard,
                clock: LaneClock::new(Clocks::read()),
                queue: Queue::default(),
                fitness: Fitness::default(),
            }),
            wake: Notify::new(),
            keeps: AtomicBool::new(false),
            meters: Arc::default(),
            recent: Mutex::default(),
        })
    }

    /// Goes on with another backend and other settings. Attempts under way end on the old backend; what the rate
    /// limit and the block list know, and what is held, stays. What the provider said against tokens stays where nothing
    /// has changed that this depends on.
    pub fn replace(&self, backend: Box<dyn PushTrait>, settings: ModuleSettings) {
        let ModuleSettings {
            max_in_flight,
            ratelimit,
            blocklist,
        } = settings;
        let mut state = self.lock();
        state.backend = backend.into();
        state.acknowledge_refused = ratelimit.acknowledge_refused;
        state.limiter.set_settings(ratelimit);
        state.blocklist.set_settings(blocklist);
        // What the provider said to the old settings says nothing about the new ones.
        let digest = state.backend.digest();
        if state.guard.go_on_under(digest) {
            state.blocklist.forgive_all();
        }
        state.fitness = Fitness::default();
        drop(state);
        self.line.resize(max_in_flight);
    }

    /// Ends the module, to which no more publishes may come: [`run`](Self::run) sends what is held when its time has
    /// come, and returns when nothing is left.
    pub fn retire(&self) {
        self.lock().life = Life::Retired;
        self.wake.notify_one();
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
        self.lock().queue.len()
    }

    /// Everything that there is to say about the module now.
    #[must_use]
    pub fn status(&self, now: Instant, wall: SystemTime) -> ModuleStatus {
        let (in_flight, waiting) = self.line.lengths();
        let mut state = self.lock();
        let backend = state.backend.status();
        let trouble = state.trouble(&backend, now, wall);
        let proof = match trouble.as_ref().map(|trouble| trouble.kind) {
            Some(TroubleKind::Authentication) => Proof::Refused,
            Some(_) | None if state.fitness.is_proven() => Proof::Proven,
            Some(_) | None => Proof::NotTried,
        };
        ModuleStatus {
            name: self.name.to_string(),
            in_flight,
            waiting,
            held: state.queue.len(),
            limited_tokens: state.limiter.len(),
            blocked_tokens: state.blocklist.len(),
            doubted_tokens: state.guard.doubted(),
            meters: Arc::clone(&self.meters),
            last_accepted: state
                .fitness
                .last_accepted()
                .map(|accepted| now.saturating_duration_since(accepted)),
            proof,
            trouble,
            backend,
        }
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
            deadline: Instant::now() + DEADLINE,
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
        let state = self.lock();
        [
            state.blocklist.changes(),
            state.queue.changes(),
            state.guard.changes(),
        ]
    }

    /// What is known of the provider's words about tokens, to be written down.
    #[must_use]
    pub fn verdicts(&self, now: Instant) -> Vec<VerdictRecord> {
        let state = self.lock();
        state.guard.records(state.clock.seconds(now))
    }

    /// Follows the clock on the wall. To be called once a second.
    pub fn follow_clock(&self, clocks: Clocks) {
        let mut state = self.lock();
        if state.clock.follow(clocks) {
            let now = state.clock.seconds(clocks.now);
            state.guard.begin_hours_again(now);
        }
    }

    /// A part of the block list, to be written down, from a place on, and the place of the next part; none after the last
    /// one. In parts, because pushes wait for as long as this takes. A block that moves meanwhile may be in none of them.
    #[must_use]
    pub fn blocks(&self, from: usize, clocks: Clocks) -> (Vec<BlockRecord>, Option<usize>) {
        self.lock().blocklist.part(from, PART, clocks)
    }

    /// A part of what is held, to be written down, from a number on, and the number of the next part; none after the last
    /// one. A push that is in two parts is as it is in the later one.
    #[must_use]
    pub fn held_records(&self, from: u64, clocks: Clocks) -> (Vec<(Uuid, HeldRecord)>, Option<u64>) {
        self.lock().queue.part(from, PART, clocks)
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
        let mut state = self.lock();
        state.blocklist.remember(blocks, clocks);
        let now = state.clock.seconds(clocks.now);
        // What a provider said to other settings, or to nobody knows which, blocks nothing.
        if !state.guard.remember(verdicts, now) {
            state.blocklist.forgive_all();
        }
        for record in held {
            // The settings may have changed since, and the file too.
            let Some(token) = state
                .backend
                .canonical(record.token())
                .map(|token| Token::new(&token))
            else {
                self.lose(self.hasher.fingerprint(record.token()), Outcome::TokenInvalid);
                continue;
            };
            if !state.queue.has_room() {
                self.lose(self.hasher.fingerprint(token.as_str()), Outcome::Overloaded);
                continue;
            }
            let mut held = record.into_held(token, &self.hasher, clocks);
            // The clock may have been wrong when it was written.
            let patience = clocks.now + HELD_PATIENCE;
            held.due = held.due.min(patience.max(clocks.now + held.order.spacing));
            held.give_up = held.give_up.map(|give_up| give_up.min(patience));
            state.limiter.restore(held.order.target(), held.due);
            state.queue.push(held);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// The one spelling of a token of the module's provider; `None` for what cannot be one.
    #[must_use]
    pub fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
        self.backend().canonical(token)
    }

    /// The hash by which the log names a token.
    #[must_use]
    pub fn fingerprint(&self, token: &str) -> Fingerprint {
        self.hasher.fingerprint(token)
    }

    /// Whether a text has the form of the provider's tokens. Where every text is a token, none has their form.
    #[must_use]
    pub fn knows_form_of(&self, text: &str) -> bool {
        let backend = self.backend();
        backend.canonical(text).is_some() && backend.canonical("?").is_none()
    }

    /// Forgets what it holds against a token: its device has registered anew.
    pub fn forgive(&self, token: &str) {
        let Some(token) = self.canonical(token) else {
            return;
        };
        let fingerprint = self.hasher.fingerprint(&token);
        let mut state = self.lock();
        state.blocklist.forgive(fingerprint);
        state.guard.forgive(fingerprint);
    }

    /// Decides about a publish. Never waits.
    pub fn admit(self: &Arc<Self>, request: Request<'_>, now: Instant) -> Verdict {
        let to_second = request.second_token().map(|token| {
            let request = Request { token, ..request };
            self.decide(request, true, now)
        });
        let verdict = match to_second {
            // The second token does not work: then the phone shows a message.
            None | Some(Verdict::Settled(Outcome::TokenBlocked | Outcome::TokenInvalid)) => {
                self.decide(request, false, now)
            }
            Some(verdict) => verdict,
        };
        if let Verdict::Settled(outcome) = verdict {
            self.meters.outcome(outcome);
            if let Some(token) = self.canonical(request.token) {
                self.note(self.hasher.fingerprint(&token), End::Answered(outcome));
            }
        }
        verdict
    }

    /// `second` says whether the token is the device's second one, for calls.
    fn decide(self: &Arc<Self>, request: Request<'_>, second: bool, now: Instant) -> Verdict {
        let Request {
            token,
            choice,
            urgency,
            domain,
            registered,
        } = request;
        if self.drain.has_begun() {
            return Verdict::Settled(Outcome::ShuttingDown);
        }
        let mut state = self.lock();
        if state.life == Life::Ended {
            return Verdict::Settled(Outcome::ShuttingDown);
        }
        let Some(token) = state.backend.canonical(token) else {
            return Verdict::Settled(Outcome::TokenInvalid);
        };
        let fingerprint = self.hasher.fingerprint(&token);
        if let Some(reason) = state.blocked(fingerprint, registered.is_some(), now) {
            return Verdict::Settled(match reason {
                BlockReason::Dead => Outcome::TokenDead,
                BlockReason::Unexplained | BlockReason::Doubted => Outcome::TokenBlocked,
            });
        }
        if state.fitness.paused_until(now).is_some() {
            return Verdict::Settled(Outcome::ProviderUnavailable);
        }
        let class = if second {
            Class::Voip
        } else {
            state.backend.class(urgency)
        };
        let spacing = registered.map_or_else(
            || state.limiter.spacing(),
            |registered| registered.recipient.spacing,
        );
        let room = state.queue.has_room();
        let key = registered.map_or(fingerprint, |registered| {
            self.hasher.device(&registered.recipient.node)
        });
        let target = Target {
            key,
            token: fingerprint,
            class,
        };
        let admission = state.limiter.admit(target, spacing, room, now);
        let order = |encrypted| {
            Box::new(Order {
                push: Push {
                    token: Token::new(&token),
                    class,
                    form: Form::Full,
                    extra: registered.and_then(|registered| registered.extra(encrypted, second)),
                    id: Uuid::new_v4(),
                    deadline: now + DEADLINE,
                },
                fingerprint,
                key,
                node: registered.map(|registered| Arc::clone(&registered.recipient.node)),
                choice,
                domain: domain.into(),
                spacing,
                record: registered.map(|registered| Arc::clone(&registered.recipient.record)),
            })
        };
        let slot = match admission {
            Admission::Go(slot) => slot,
            Admission::Queue(due) => {
                let order = order(state.queue.has_room_for_encrypted());
                self.hold(state, Held::new(order, due));
                return Verdict::Settled(Outcome::Queued);
            }
            Admission::Refuse => return Verdict::Settled(state.refused(class)),
            Admission::NoRoom => {
                drop(state);
                warn!(module = %self.name, "{NO_ROOM}");
                return Verdict::Settled(Outcome::Overloaded);
            }
        };
        let place = self.line.enter(domain);
        if matches!(place, Place::Full) {
            state.limiter.give_back(slot);
            drop(state);
            self.complain_of_crowd();
            return Verdict::Settled(Outcome::Overloaded);
        }
        Verdict::Deliver(Ticket {
            module: Arc::clone(self),
            order: order(true),
            slot,
            place,
            arrived: now,
        })
    }

    /// Waits in the line and sends.
    async fn carry_out(&self, mut order: Box<Order>, slot: Slot, place: Place, arrived: Instant) -> Outcome {
        let permit = match place {
            Place::Now(permit) => Some(permit),
            Place::Waiting(waiting) => {
                let permit = self
                    .drain
                    .run(timeout_at(arrived + LONGEST_WAIT, waiting.permit()))
                    .await;
                permit.and_then(Result::ok).flatten()
            }
            Place::Full => None,
        };
        let Some(permit) = permit else {
            self.lock().limiter.give_back(slot);
            if !self.drain.has_begun() {
                self.complain_of_crowd();
            }
            return Outcome::Overloaded;
        };
        delay_at_random().await;
        let patience = order.push.deadline;
        let ended = self.attempts(&mut order, Backoff::default(), patience).await;
        drop(permit);
        let outcome = match ended {
            Ended::Busy => return self.hold_busy(Held::new(order, arrived), slot),
            Ended::Failed { .. } => Outcome::ProviderUnavailable,
            Ended::Settled(outcome) => outcome,
        };
        if outcome != Outcome::Accepted {
            self.lock().limiter.give_back(slot);
        }
        outcome
    }

    /// For whoever asks later why the phone got no push.
    fn note(&self, fingerprint: Fingerprint, end: End) {
        let mut recent = self.recent.lock().expect("mutex poisoned");
        recent.ended(fingerprint, end, Instant::now());
    }

    /// In one place, so that it is one kind of problem.
    fn complain_of_crowd(&self) {
        warn!(module = %self.name, "{CROWDED}");
    }

    /// Sends held pushes when their time has come, and all of them at once when the daemon is about to stop.
    /// Ends when none is left after that, or after the module has retired.
    pub async fn run(self: Arc<Self>, mut probe: Probe) {
        loop {
            let (next_due, retired) = {
                let state = self.lock();
                (state.queue.next_due(), state.life == Life::Retired)
            };
            tokio::select! {
                biased;
                () = self.drain.until_begun() => break,
                // Only who got through the loop, and had the lock above, is well.
                () = probe.asked() => probe.answer(),
                () = self.wake.notified() => {}
                () = sleep_until_some(next_due) => {}
                () = sleep(RETIRING), if retired => {
                    if self.has_come_to_its_end() {
                        return;
                    }
                }
            }
            let now = Instant::now();
            while let Some(held) = self.pop_due(now) {
                probe.while_waiting(self.start_held(held, now)).await;
            }
        }
        // The end is bounded by the shutdown itself.
        drop(probe);
        self.send_all_held().await;
    }

    /// Starts a held push whose time has come, or puts it back. One at a time stands in the line for its permit:
    /// held pushes have more time than those who want a reply. Only with the permit its window begins: until then it is
    /// the queued push of its key, however long that takes.
    async fn start_held(self: &Arc<Self>, held: Held, now: Instant) {
        let later = self.lock().limiter.not_before(held.order.target(), now);
        if let Some(due) = later {
            return self.postpone(held, due);
        }
        if let Some(until) = self.paused_until(now) {
            if let Some((held, slot)) = self.release(held, now) {
                self.put_back(held, slot, until);
            }
            return;
        }
        let Some(permit) = self.permit(&held.order.domain).await else {
            self.postpone(held, Instant::now() + CROWDED_PAUSE);
            return self.drain.until_begun_or(CROWDED_PAUSE).await;
        };
        if let Some((held, slot)) = self.release(held, Instant::now()) {
            self.drain
                .spawn(Arc::clone(self).deliver_held(held, slot, permit));
        }
    }

    /// Begins the window of a held push, or postpones it.
    fn release(&self, held: Held, now: Instant) -> Option<(Held, Slot)> {
        let released = self
            .lock()
            .limiter
            .release(held.order.target(), held.order.spacing, now);
        match released {
            Release::Go(slot) => Some((held, slot)),
            Release::NotBefore(due) => {
                self.postpone(held, due);
                None
            }
        }
    }

    /// Puts a held push back that was not tried: it is still the queued one of its key.
    fn postpone(&self, mut held: Held, due: Instant) {
        held.due = due;
        self.hold(self.lock(), held);
    }

    /// A permit for a held push, however long that takes; `None` if there is not even a place in the line.
    async fn permit(&self, domain: &str) -> Option<Permit> {
        match self.line.enter(domain) {
            Place::Now(permit) => Some(permit),
            Place::Waiting(waiting) => self.drain.run(waiting.permit()).await.flatten(),
            Place::Full => None,
        }
    }

    /// Sends everything that is held now. What fails is kept for the next start, or lost.
    async fn send_all_held(self: &Arc<Self>) {
        let all = self.lock().queue.take_all();
        for held in all {
            let permit = loop {
                if let Some(permit) = self.permit(&held.order.domain).await {
                    break permit;
                }
                if self.drain.run(sleep(CROWDED_PAUSE)).await.is_none() {
                    // This one and the rest count as under way.
                    return;
                }
            };
            let slot = self
                .lock()
                .limiter
                .occupy(held.order.target(), held.order.spacing, Instant::now());
            self.drain
                .spawn(Arc::clone(self).deliver_held(held, slot, permit));
        }
    }

    /// Makes one attempt for a held push, and puts it back if that failed. Where that would lose it, because the
    /// daemon is about to stop, it tries again and again instead.
    async fn deliver_held(self: Arc<Self>, held: Held, slot: Slot, permit: Permit) {
        let id = held.order.push.id;
        self.try_held(held, slot, permit).await;
        self.lock().queue.done(id);
    }

    async fn try_held(&self, mut held: Held, slot: Slot, permit: Permit) {
        let now = Instant::now();
        let fingerprint = held.order.fingerprint;
        let registered = held.order.record.is_some();
        let blocked = self.lock().blocked(fingerprint, registered, now);
        match blocked {
            None => {}
            Some(BlockReason::Dead) => {
                self.meters.held_dropped();
                debug!(module = %self.name, token = %fingerprint, "queued push dropped: the token is dead");
                return;
            }
            Some(BlockReason::Unexplained | BlockReason::Doubted) => {
                return self.lose(fingerprint, Outcome::TokenBlocked);
            }
        }
        delay_at_random().await;
        let give_up = *held.give_up.get_or_insert(now + HELD_PATIENCE);
        held.order.push.form = Form::Full;
        held.order.push.deadline = now + DEADLINE;
        let mut ended = self
            .attempts(&mut held.order, Backoff::after(held.attempts), now)
            .await;
        if matches!(ended, Ended::Failed { .. }) && self.is_last_chance() {
            let patience = Instant::now() + DEADLINE;
            held.order.push.deadline = patience;
            ended = self.attempts(&mut held.order, Backoff::default(), patience).await;
        }
        drop(permit);
        held.attempts += 1;
        match ended {
            Ended::Settled(Outcome::Accepted) => {
                self.meters.held_delivered();
                self.note(fingerprint, End::Delivered);
            }
            Ended::Settled(Outcome::TokenDead) => {
                self.meters.held_dropped();
                self.note(fingerprint, End::Dropped);
            }
            Ended::Settled(outcome) => {
                self.lock().limiter.give_back(slot);
                self.lose(fingerprint, outcome);
            }
            Ended::Failed { resume } => self.put_back(held, slot, resume),
            Ended::Busy if Instant::now() >= give_up => self.lose(fingerprint, Outcome::ProviderUnavailable),
            Ended::Busy => {
                if self.hold_busy(held, slot) != Outcome::Queued {
                    self.lose(fingerprint, Outcome::ProviderUnavailable);
                }
            }
        }
    }

    /// Puts an acknowledged push back in the queue, unless its time will be over by then.
    fn put_back(&self, held: Held, slot: Slot, due: Instant) {
        let over = |give_up| Instant::now() >= give_up || due >= give_up + LAST_ATTEMPT;
        if self.is_last_chance() || held.give_up.is_some_and(over) {
            let mut state = self.lock();
            state.limiter.give_back(slot);
            state.queue.done(held.order.push.id);
            drop(state);
            return self.lose(held.order.fingerprint, Outcome::ProviderUnavailable);
        }
        self.requeue(held, slot, due);
    }

    fn requeue(&self, mut held: Held, slot: Slot, due: Instant) {
        let mut state = self.lock();
        match state.limiter.requeue(slot, due) {
            Hold::Queue(due) => {
                held.due = due;
                self.hold(state, held);
            }
            // The one that is queued is newer, and wakes the device for this one too.
            Hold::Covered | Hold::Refuse => {
                state.queue.done(held.order.push.id);
                self.meters.held_covered();
            }
        }
    }

    /// Makes a push whose token is too busy the queued one of its key.
    fn hold_busy(&self, mut held: Held, slot: Slot) -> Outcome {
        let mut state = self.lock();
        // What was acknowledged before always has its place.
        let room = (held.attempts > 0 || state.queue.has_room()) && !self.is_last_chance();
        match state.limiter.hold(slot, room, Instant::now()) {
            Hold::Queue(due) => {
                held.due = due;
                self.hold(state, held);
                Outcome::Queued
            }
            Hold::Covered => {
                self.meters.held_covered();
                Outcome::Queued
            }
            // Nothing is held that could stand for it.
            Hold::Refuse => Outcome::Refused,
        }
    }

    /// Tries until there is an answer, or until the next attempt would be later than `patience`.
    async fn attempts(&self, order: &mut Order, mut backoff: Backoff, patience: Instant) -> Ended {
        let fingerprint = order.fingerprint;
        let (mut reconnects, mut renewed) = (0, false);
        loop {
            let backend = match self.backend_unless_paused(Instant::now()) {
                Ok(backend) => backend,
                Err(resume) => return Ended::Failed { resume },
            };
            let Some(result) = self.drain.run(self.attempt(&*backend, &order.push)).await else {
                return Ended::Failed {
                    resume: Instant::now(),
                };
            };
            let now = Instant::now();
            let failure = match result {
                Ok(()) => {
                    debug!(module = %self.name, token = %fingerprint, class = ?order.push.class, "push accepted");
                    let mut state = self.lock();
                    state.blocklist.forgive(fingerprint);
                    let mut turn = None;
                    if state.is_current(&backend) {
                        state.fitness.accepted(now);
                        let at = state.clock.seconds(now);
                        turn = state
                            .guard
                            .accepted(fingerprint, self.domain_key(&order.domain), at);
                    }
                    drop(state);
                    self.tell(turn, None);
                    if let Some(record) = &order.record {
                        record.delivered();
                    }
                    return Ended::Settled(Outcome::Accepted);
                }
                Err(failure) => failure,
            };
            debug!(module = %self.name, token = %fingerprint, class = ?order.push.class, todo = ?failure.error,
                answer = %failure.answer, "push failed");
            self.recent
                .lock()
                .expect("mutex poisoned")
                .failed(fingerprint, failure.reason, now);
            if !self.lock().is_current(&backend) {
                // The settings have changed meanwhile: what was refused with the old ones says nothing.
                continue;
            }
            if let Some(record) = &order.record {
                record.failed();
            }
            let asked = match failure.error {
                PushError::Reconnected if reconnects < MAX_RECONNECTS => {
                    reconnects += 1;
                    continue;
                }
                PushError::Renewed if !renewed => {
                    renewed = true;
                    continue;
                }
                PushError::TooLarge if order.push.form == Form::Full => {
                    complain!(
                        self,
                        failure,
                        "the push is too large for the provider; sending the minimal form"
                    );
                    order.push.form = Form::Minimal;
                    continue;
                }
                PushError::Later { after } => after,
                PushError::Reconnected | PushError::Renewed => None,
                PushError::TokenBusy => {
                    self.take_neutral(order, now).fitness.answered();
                    return Ended::Busy;
                }
                PushError::Pause { length, alarm } => {
                    let resume = self.pause(length, alarm, order, &failure, now);
                    return Ended::Failed { resume };
                }
                PushError::TokenGone { .. }
                | PushError::TokenDoubted
                | PushError::TooLarge
                | PushError::Misconfigured
                | PushError::Unexplained => {
                    return Ended::Settled(match self.judge(order, &failure, now) {
                        Judged::Settled(outcome) => outcome,
                        Judged::Dead { since } => self.bury(order, since).await,
                    });
                }
            };
            self.lock().fitness.unwell(&failure);
            warn!(module = %self.name, answer = %failure.answer, meaning = failure.meaning,
                "the provider did not take a push");
            let pause = backoff.pause(asked, jitter());
            let resume = now + pause;
            if resume + LEAST_ATTEMPT > patience || self.drain.run(Box::pin(sleep(pause))).await.is_none() {
                return Ended::Failed { resume };
            }
        }
    }

    /// Draws the conclusion from an answer that no further attempt will change.
    fn judge(&self, order: &Order, failure: &Failure, now: Instant) -> Judged {
        let outcome = match failure.error {
            PushError::TokenGone { since } => return self.weigh(order, Some(since), failure, now),
            PushError::TokenDoubted => return self.weigh(order, None, failure, now),
            PushError::Unexplained => {
                let mut state = self.take_neutral(order, now);
                state.fitness.answered();
                state
                    .blocklist
                    .block(order.fingerprint, BlockReason::Unexplained, now);
                drop(state);
                complain!(self, failure, "the provider gave an answer that is not known");
                Outcome::TokenBlocked
            }
            PushError::TooLarge
            | PushError::Misconfigured
            | PushError::TokenBusy
            | PushError::Reconnected
            | PushError::Renewed
            | PushError::Later { .. }
            | PushError::Pause { .. } => {
                let mut state = self.take_neutral(order, now);
                if failure.error == PushError::Misconfigured {
                    state.fitness.misconfigured(failure);
                } else {
                    state.fitness.answered();
                }
                drop(state);
                complain!(
                    self,
                    failure,
                    "the provider refuses the request; check the settings of this module"
                );
                Outcome::ProviderUnavailable
            }
        };
        Judged::Settled(outcome)
    }

    /// Weighs that the provider called a token dead, since then if it says so, or wrong (`None`). A second token, for
    /// calls, is no reason to give up the device: it is left alone for a while.
    fn weigh(&self, order: &Order, gone: Option<Option<u64>>, failure: &Failure, now: Instant) -> Judged {
        let (fingerprint, domain) = (order.fingerprint, self.domain_key(&order.domain));
        let mut state = self.lock();
        state.fitness.answered();
        let (at, wall) = (state.clock.seconds(now), state.clock.millis(now));
        let word = match gone {
            // A provider that speaks of the future may be wrong about all else.
            Some(since) if since.is_none_or(|since| since <= wall) => Word::BeyondDoubt,
            Some(_) | None => Word::AboutUs,
        };
        let is_second = order.push.extra.as_ref().is_some_and(|extra| extra.call);
        // Of another module, as likely as not, whose name was lost on the way.
        let is_astray = word == Word::AboutUs && order.choice == Choice::Default;
        let (belief, turn) = if is_second || is_astray {
            (Belief::Doubted, state.guard.rejected(fingerprint, domain, at))
        } else {
            state.guard.weigh(fingerprint, domain, word, at)
        };
        self.meters.rejected(belief == Belief::Dead);
        let judged = match belief {
            Belief::Dead => Judged::Dead {
                since: gone.flatten(),
            },
            Belief::Doubted => {
                state.blocklist.block(fingerprint, BlockReason::Doubted, now);
                Judged::Settled(Outcome::TokenBlocked)
            }
        };
        drop(state);
        self.tell(turn, Some(failure));
        judged
    }

    /// Says what a person should hear once.
    fn tell(&self, turn: Option<Turn>, failure: Option<&Failure>) {
        let (module, answer) = (&self.name, failure.map_or("", |failure| &*failure.answer));
        let meaning = failure.map_or("", |failure| failure.meaning);
        match turn {
            None => {}
            Some(Turn::BurstBegan) => {
                self.meters.burst();
                error!(%module, answer, meaning, "{REJECTS_TOO_MANY}");
            }
            Some(Turn::NothingAccepted) => warn!(%module, answer, meaning, "{ACCEPTS_NOTHING}"),
            Some(Turn::BurstEnded) => {
                info!(%module, "the provider accepts pushes again, and rejects no more tokens than usual");
            }
        }
    }

    /// Takes note of an answer that says nothing of the token.
    fn take_neutral(&self, order: &Order, now: Instant) -> MutexGuard<'_, State> {
        let domain = self.domain_key(&order.domain);
        let mut state = self.lock();
        let at = state.clock.seconds(now);
        state.guard.neutral(order.fingerprint, domain, at);
        state
    }

    /// What stands for everybody below a registrable domain.
    fn domain_key(&self, domain: &str) -> Fingerprint {
        self.hasher.fingerprint(&registrable(domain))
    }

    /// Takes a token for dead, unless its device has registered since it died: that is for the database to say, which
    /// has as long as the reply.
    async fn bury(&self, order: &Order, since: Option<u64>) -> Outcome {
        let ended = match &order.record {
            None => Ok(true),
            Some(record) => {
                let asking = timeout_at(order.push.deadline, record.gone(since));
                match self.drain.run(asking).await {
                    Some(Ok(answer)) => answer,
                    Some(Err(_)) | None => Err(Unavailable),
                }
            }
        };
        let (reason, outcome) = match ended {
            Ok(true) => (BlockReason::Dead, Outcome::TokenDead),
            Ok(false) => (BlockReason::Doubted, Outcome::TokenBlocked),
            // The provider will say it again.
            Err(Unavailable) => return Outcome::RegistryUnavailable,
        };
        let mut state = self.lock();
        state.guard.forgive(order.fingerprint);
        state.blocklist.block(order.fingerprint, reason, Instant::now());
        outcome
    }

    /// Sends nothing for a while. Returns when that is over.
    fn pause(
        &self,
        length: Duration,
        alarm: bool,
        order: &Order,
        failure: &Failure,
        now: Instant,
    ) -> Instant {
        let mut state = self.take_neutral(order, now);
        let until = now + length;
        let first = state.fitness.pause(until, alarm, failure, now);
        drop(state);
        if first {
            let (module, answer, meaning) = (&self.name, &failure.answer, failure.meaning);
            let seconds = length.as_secs();
            if alarm {
                error!(%module, %answer, meaning, seconds, "the provider refuses this module's credentials or settings: \
                    correct them; the module pauses, and no device is unregistered meanwhile");
            } else {
                warn!(%module, %answer, meaning, seconds, "throttled by the provider; pausing this module");
            }
        }
        until
    }

    /// The end of a pause, if there is one: for what was admitted before it began.
    fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.backend_unless_paused(now).err()
    }

    /// The backend, or the end of a pause, unless there is no later time to send at.
    fn backend_unless_paused(&self, now: Instant) -> Result<Arc<dyn PushTrait>, Instant> {
        let state = self.lock();
        match state.fitness.paused_until(now) {
            Some(until) if !self.is_last_chance() => Err(until),
            Some(_) | None => Ok(Arc::clone(&state.backend)),
        }
    }

    fn hold(&self, mut state: MutexGuard<'_, State>, held: Held) {
        let first = state.queue.next_due().is_none_or(|due| held.due < due);
        state.queue.push(held);
        drop(state);
        if first {
            self.wake.notify_one();
        }
    }

    fn lose(&self, fingerprint: Fingerprint, outcome: Outcome) {
        self.meters.held_lost();
        self.note(fingerprint, End::Lost);
        warn!(module = %self.name, token = %fingerprint, outcome = outcome.name(),
            "an acknowledged push could not be delivered");
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

    /// Whether what is not delivered now is lost.
    fn is_last_chance(&self) -> bool {
        self.drain.has_begun() && !self.keeps.load(Ordering::Relaxed)
    }

    /// Ends a retired module that holds nothing. A push under way may be held yet.
    fn has_come_to_its_end(&self) -> bool {
        let mut state = self.lock();
        let idle = state.life == Life::Retired && state.queue.len() == 0 && self.line.lengths() == (0, 0);
        if idle {
            state.life = Life::Ended;
        }
        idle
    }

    fn pop_due(&self, now: Instant) -> Option<Held> {
        self.lock().queue.pop_due(now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with this lock")
    }
}

impl State {
    /// Whether this is the backend that pushes are sent with now.
    fn is_current(&self, backend: &Arc<dyn PushTrait>) -> bool {
        Arc::ptr_eq(&self.backend, backend)
    }

    /// Why nothing is to be sent to a token. What is registered is not dead: that its device has registered anew may have
    /// been forgotten by a restart, or was not heard of at all.
    fn blocked(&mut self, fingerprint: Fingerprint, registered: bool, now: Instant) -> Option<BlockReason> {
        match self.blocklist.check(fingerprint, now)? {
            BlockReason::Dead if registered => {
                self.blocklist.forgive(fingerprint);
                None
            }
            reason @ (BlockReason::Dead | BlockReason::Unexplained | BlockReason::Doubted) => Some(reason),
        }
    }

    /// The outcome for a push that the limiter refuses: of a call none is queued that could stand for it.
    fn refused(&self, class: Class) -> Outcome {
        match class {
            Class::High | Class::Low if self.acknowledge_refused => Outcome::Coalesced,
            Class::High | Class::Low | Class::Voip => Outcome::Refused,
        }
    }

    /// The worst that there is to say about the module.
    fn trouble(&mut self, backend: &BackendStatus, now: Instant, wall: SystemTime) -> Option<Trouble> {
        let of_credentials = backend.credentials.iter().find_map(|credential| {
            let words = credential.trouble.as_ref()?.to_string();
            // A token that could not be renewed is good until its end.
            let still_good = credential.age.is_some() && credential.expires.is_some_and(|end| wall < end);
            let kind = if still_good {
                TroubleKind::Expiring
            } else {
                TroubleKind::Authentication
            };
            Some(Trouble { kind, words })
        });
        let clock = backend.clock_trouble().map(|words| Trouble {
            kind: TroubleKind::Clock,
            words,
        });
        let tokens = match self.guard.condition(self.clock.seconds(now)) {
            Condition::Well => None,
            Condition::Burst => Some((TroubleKind::WrongTokens, REJECTS_TOO_MANY)),
            Condition::NothingAccepted => Some((TroubleKind::NothingAccepted, ACCEPTS_NOTHING)),
            Condition::Stale => Some((TroubleKind::StaleTokens, STALE_TOKENS)),
        };
        let tokens = tokens.map(|(kind, words)| Trouble {
            kind,
            words: words.to_owned(),
        });
        let expiring = backend.credentials.iter().find_map(|credential| {
            // Others end all the time and are renewed.
            let expires = credential.expires.filter(|_| credential.age.is_none())?;
            let left = expires.duration_since(wall).unwrap_or_default();
            let days = left.as_secs() / 86_400;
            let unit = if days == 1 { "day" } else { "days" };
            (left < EXPIRING).then(|| Trouble {
                kind: TroubleKind::Expiring,
                words: format!(
                    "the certificate ends in {days} {unit}: get a new one, and put it in the old one's place"
                ),
            })
        });
        [of_credentials, tokens, self.fitness.trouble(now), clock, expiring]
            .into_iter()
            .flatten()
            .min_by_key(|trouble| trouble.kind)
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

impl<'a> Request<'a> {
    /// The token for a call, if this is one that the app can read: others would make the phone ring for nothing.
    fn second_token(&self) -> Option<&'a str> {
        let Registered { recipient, encrypted } = self.registered?;
        let token = recipient.call_token.as_ref()?;
        (self.urgency == Urgency::Call && encrypted.is_some()).then(|| token.as_str())
    }
}

impl Ticket {
    /// Sends the push: waits in the line for 5 s at most, then tries until the provider gave its answer or 25 s are
    /// over since the publish arrived.
    pub async fn deliver(self) -> Outcome {
        let Self {
            module,
            order,
            slot,
            place,
            arrived,
        } = self;
        let fingerprint = order.fingerprint;
        let outcome = module.carry_out(order, slot, place, arrived).await;
        module.meters.outcome(outcome);
        module.note(fingerprint, End::Answered(outcome));
        outcome
    }
}

impl Registered<'_> {
    /// What the push carries of it; without what is encrypted unless `encrypted` says so. `call` says whether it goes to
    /// the device's second token.
    fn extra(&self, encrypted: bool, call: bool) -> Option<Arc<Extra>> {
        let Recipient { account, channel, .. } = self.recipient;
        let extra = Extra {
            account: account.clone(),
            channel: channel.clone(),
            encrypted: self.encrypted.filter(|_| encrypted).cloned(),
            call,
        };
        let empty =
            extra.account.is_none() && extra.channel.is_none() && extra.encrypted.is_none() && !extra.call;
        (!empty).then(|| Arc::new(extra))
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

async fn sleep_until_some(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// With the feature `random_delay_before_push`: up to 50 ms, which spreads pushes that arrive together.
async fn delay_at_random() {
    #[cfg(feature = "random_delay_before_push")]
    sleep(Duration::from_millis(50).mul_f64(jitter())).await;
}

/// A reply is due this long after its publish; ejabberd forgets the publish after 32 s.
/// So many records are copied at a time, in a fraction of a millisecond.
const PART: usize = 1_000;
const DEADLINE: Duration = Duration::from_secs(25);
/// The longest stay in the line.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// An acknowledged push is tried for this long.
const HELD_PATIENCE: Duration = Duration::from_secs(600);
/// So much later than that its last attempt may be.
const LAST_ATTEMPT: Duration = Duration::from_secs(90);
/// How often one push tries again at once because its connection broke.
const MAX_RECONNECTS: u32 = 2;
/// An attempt with less time than this is not worth making.
const LEAST_ATTEMPT: Duration = Duration::from_secs(1);
/// Between two looks whether a retired module has nothing left to do.
const RETIRING: Duration = Duration::from_secs(1);
/// Before its end a certificate is trouble.
const EXPIRING: Duration = Duration::from_secs(30 * 86_400);
const REJECTS_TOO_MANY: &str = "the provider rejects too many tokens: check environment, topic and project of this module, and \
    whether the provider has an incident; the devices are kept meanwhile";
const ACCEPTS_NOTHING: &str = "the provider has rejected every token so far: check environment, topic and project of this \
    module; the devices are kept meanwhile";
const STALE_TOKENS: &str = "the provider rejects one token in ten or more, as it has before: devices that are gone are given up \
    after their second push; if the share does not fall within days, look for an app that names the wrong module";
const CROWDED: &str = "overloaded: publishes arrive faster than the provider accepts them; some were refused: is the provider \
    slow, does a domain flood, or is maxInFlight too small?";
const NO_ROOM: &str = "the hold queue is full; publish refused: does a domain flood, or does the provider throttle many \
    devices?";
/// Before a held push that found no permit tries again.
const CROWDED_PAUSE: Duration = Duration::from_millis(200);
