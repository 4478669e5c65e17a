//! One push module: the whole policy in front of a backend.
//!
//! [`Module::admit`] decides about a publish at once and without waiting: block list, token format, rate
//! limit, place in the line. What is left to do then is a [`Ticket`], and [`Module::deliver`] does it: wait in
//! the line, send, retry until the deadline. Pushes that were acknowledged because they have to wait are sent
//! by [`Module::run`].

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tracing::{debug, error, warn};
use uuid::Uuid;

use crate::{
    BlocklistSettings, Choice, Class, Drain, Encrypted, Extra, Failure, Fingerprint, Form, LogGate, Outcome,
    Push, PushError, PushTrait, RatelimitSettings, Recipient, Token, TokenHasher, Urgency,
    blocklist::{BlockReason, Blocklist},
    doubt::{Doubt, Sign},
    limiter::{Admission, Hold, Limiter, Release, Slot},
    line::{Line, Permit, Place},
    order::Order,
    queue::{Held, Queue},
    retry::{Backoff, jitter},
    settings::Section,
};

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
    /// Whether the token is the device's second one, for calls.
    pub call: bool,
}

/// What [`Module::admit`] decided.
#[derive(Debug)]
pub enum Verdict {
    /// There is nothing left to do but to reply.
    Settled(Outcome),
    /// It goes to the provider: [`Module::deliver`] knows the outcome when it is done.
    Deliver(Ticket),
}

/// A push that was admitted.
#[derive(Debug)]
pub struct Ticket {
    order: Box<Order>,
    slot: Slot,
    place: Place,
    arrived: Instant,
}

/// One push module.
pub struct Module {
    name: Box<str>,
    backend: Box<dyn PushTrait>,
    hasher: TokenHasher,
    acknowledge_refused: bool,
    line: Arc<Line>,
    drain: Drain,
    state: Mutex<State>,
    /// Wakes [`run`](Self::run) when a push was held that is due before all others.
    held: Notify,
    lost: AtomicU64,
    gates: Gates,
}

struct State {
    limiter: Limiter,
    blocklist: Blocklist,
    doubt: Doubt,
    queue: Queue,
    paused_until: Option<Instant>,
}

/// One gate for each kind of message that strangers or providers can cause.
#[derive(Default)]
struct Gates {
    too_large: LogGate,
    doubted: LogGate,
    unexplained: LogGate,
    misconfigured: LogGate,
    problems: LogGate,
    losses: LogGate,
}

impl LogGate {
    /// Logs what a person has to look at.
    fn error(&self, module: &str, failure: &Failure, message: &'static str) {
        if let Some(withheld) = self.pass(Instant::now()) {
            error!(module, answer = %failure.answer, withheld, "{message}");
        }
    }
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
        let acknowledge_refused = ratelimit.acknowledge_refused;
        Arc::new(Self {
            name: name.into(),
            backend,
            hasher,
            acknowledge_refused,
            line: Line::new(max_in_flight),
            drain,
            state: Mutex::new(State {
                limiter: Limiter::new(ratelimit, Instant::now()),
                blocklist: Blocklist::new(blocklist),
                doubt: Doubt::default(),
                queue: Queue::default(),
                paused_until: None,
            }),
            held: Notify::new(),
            lost: AtomicU64::new(0),
            gates: Gates::default(),
        })
    }

    /// The name by which publishes mean this module.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many pushes were acknowledged and could not be delivered after all.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// How many acknowledged pushes are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.lock().queue.len()
    }

    /// Whether this can be a token of the module's provider.
    #[must_use]
    pub fn accepts(&self, token: &str) -> bool {
        self.backend.accepts(token)
    }

    /// Forgets what it holds against a token: its device has registered anew.
    pub fn forgive(&self, token: &str) {
        let fingerprint = self.hasher.fingerprint(token);
        self.lock().blocklist.forgive(fingerprint);
    }

    /// Decides about a publish. Never waits.
    pub fn admit(self: &Arc<Self>, request: Request<'_>, now: Instant) -> Verdict {
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
        let fingerprint = self.hasher.fingerprint(token);
        let mut state = self.lock();
        if let Some(reason) = state.blocklist.check(fingerprint, now) {
            return Verdict::Settled(match reason {
                BlockReason::Dead => Outcome::TokenDead,
                BlockReason::Unexplained | BlockReason::Malformed => Outcome::TokenBlocked,
            });
        }
        if !self.backend.accepts(token) {
            return Verdict::Settled(match choice {
                Choice::Named => Outcome::TokenInvalid,
                Choice::Registered | Choice::Only | Choice::Default => Outcome::TokenForeign,
            });
        }
        if state.paused_until.is_some_and(|until| now < until) {
            return Verdict::Settled(Outcome::ProviderUnavailable);
        }
        let class = match registered {
            Some(Registered { call: true, .. }) => Class::Voip,
            Some(_) | None => self.backend.class(urgency),
        };
        let spacing = registered.map_or_else(
            || state.limiter.spacing(),
            |registered| registered.recipient.spacing,
        );
        let room = state.queue.has_room();
        let admission = state.limiter.admit(fingerprint, class, spacing, room, now);
        let order = |encrypted| {
            Box::new(Order {
                push: Push {
                    token: Token::new(token),
                    class,
                    form: Form::Full,
                    extra: registered.and_then(|registered| registered.extra(encrypted)),
                    id: Uuid::new_v4(),
                    deadline: now + DEADLINE,
                },
                fingerprint,
                choice,
                domain: domain.into(),
                spacing,
                record: registered.map(|registered| Arc::clone(&registered.recipient.record)),
            })
        };
        let slot = match admission {
            Admission::Go(slot) => slot,
            Admission::Queue(due) => {
                let order = order(state.queue.len() < MAX_HELD_ENCRYPTED);
                self.hold(state, Held::new(order, due));
                return Verdict::Settled(Outcome::Queued);
            }
            Admission::Refuse => return Verdict::Settled(self.refused(class)),
            Admission::NoRoom => return Verdict::Settled(Outcome::Overloaded),
        };
        let place = self.line.enter(domain);
        if matches!(place, Place::Full) {
            state.limiter.give_back(slot);
            return Verdict::Settled(Outcome::Overloaded);
        }
        Verdict::Deliver(Ticket {
            order: order(true),
            slot,
            place,
            arrived: now,
        })
    }

    /// Sends an admitted push: waits in the line for 5 s at most, then tries until the provider gave its
    /// answer or 25 s are over since the publish arrived.
    pub async fn deliver(self: Arc<Self>, ticket: Ticket) -> Outcome {
        let Ticket {
            mut order,
            slot,
            place,
            arrived,
        } = ticket;
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

    /// Sends held pushes when their time has come, and all of them at once when the daemon is about to stop.
    /// Ends when none is left after that.
    pub async fn run(self: Arc<Self>) {
        loop {
            let next_due = self.lock().queue.next_due();
            tokio::select! {
                biased;
                () = self.drain.until_begun() => break,
                () = self.held.notified() => {}
                () = sleep_until_some(next_due) => {}
            }
            let now = Instant::now();
            while let Some(held) = self.pop_due(now) {
                self.start_held(held, now).await;
            }
        }
        self.send_all_held().await;
    }

    /// Starts a held push whose time has come, or puts it back. One at a time stands in the line for its permit:
    /// held pushes have more time than those who want a reply.
    async fn start_held(self: &Arc<Self>, mut held: Held, now: Instant) {
        let Order {
            fingerprint,
            spacing,
            ref push,
            ..
        } = *held.order;
        let released = self.lock().limiter.release(fingerprint, push.class, spacing, now);
        let slot = match released {
            Release::Go(slot) => slot,
            Release::NotBefore(due) => {
                held.due = due;
                return self.hold(self.lock(), held);
            }
        };
        if let Some(until) = self.paused_until(now) {
            return self.put_back(held, slot, until);
        }
        match self.permit(&held.order.domain).await {
            Some(permit) => self
                .drain
                .spawn(Arc::clone(self).deliver_held(held, slot, permit)),
            None => {
                self.requeue(held, slot, now + CROWDED_PAUSE);
                self.drain.until_begun_or(CROWDED_PAUSE).await;
            }
        }
    }

    /// A permit for a held push, however long that takes; `None` if there is not even a place in the line.
    async fn permit(&self, domain: &str) -> Option<Permit> {
        match self.line.enter(domain) {
            Place::Now(permit) => Some(permit),
            Place::Waiting(waiting) => self.drain.run(waiting.permit()).await.flatten(),
            Place::Full => None,
        }
    }

    async fn send_all_held(self: &Arc<Self>) {
        while let Some(held) = self.pop() {
            let permit = self.permit(&held.order.domain).await;
            if let Some(permit) = permit {
                let Order {
                    fingerprint,
                    spacing,
                    ref push,
                    ..
                } = *held.order;
                let slot = self
                    .lock()
                    .limiter
                    .occupy(fingerprint, push.class, spacing, Instant::now());
                self.drain
                    .spawn(Arc::clone(self).deliver_held(held, slot, permit));
            } else {
                self.lock().queue.push(held);
                if self.drain.run(sleep(CROWDED_PAUSE)).await.is_none() {
                    return;
                }
            }
        }
    }

    /// Makes one attempt for a held push, and puts it back if that failed. When the daemon is about to stop
    /// it tries again and again instead.
    async fn deliver_held(self: Arc<Self>, mut held: Held, slot: Slot, permit: Permit) {
        let now = Instant::now();
        let fingerprint = held.order.fingerprint;
        let blocked = self.lock().blocklist.check(fingerprint, now);
        match blocked {
            None => {}
            Some(BlockReason::Dead) => {
                debug!(module = %self.name, token = %fingerprint, "queued push dropped: the token is dead");
                return;
            }
            Some(BlockReason::Unexplained | BlockReason::Malformed) => {
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
        if matches!(ended, Ended::Failed { .. }) && self.drain.has_begun() {
            let patience = Instant::now() + DEADLINE;
            held.order.push.deadline = patience;
            ended = self.attempts(&mut held.order, Backoff::default(), patience).await;
        }
        drop(permit);
        held.attempts += 1;
        match ended {
            Ended::Settled(Outcome::Accepted | Outcome::TokenDead) => {}
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
        if self.drain.has_begun() || held.give_up.is_some_and(over) {
            self.lock().limiter.give_back(slot);
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
            // The one that is queued wakes the device for this one too.
            Hold::Covered | Hold::Refuse => {}
        }
    }

    /// Makes a push whose token is too busy the queued one of its token.
    fn hold_busy(&self, mut held: Held, slot: Slot) -> Outcome {
        let mut state = self.lock();
        // What was acknowledged before always has its place.
        let room = (held.attempts > 0 || state.queue.has_room()) && !self.drain.has_begun();
        match state.limiter.hold(slot, room, Instant::now()) {
            Hold::Queue(due) => {
                held.due = due;
                self.hold(state, held);
                Outcome::Queued
            }
            Hold::Covered => Outcome::Queued,
            // Nothing is held that could stand for it.
            Hold::Refuse => Outcome::Refused,
        }
    }

    /// Tries until there is an answer, or until the next attempt would be later than `patience`.
    async fn attempts(&self, order: &mut Order, mut backoff: Backoff, patience: Instant) -> Ended {
        let (fingerprint, push) = (order.fingerprint, &mut order.push);
        let (mut reconnects, mut renewed) = (0, false);
        loop {
            if let Some(resume) = self.paused_until(Instant::now()) {
                return Ended::Failed { resume };
            }
            let Some(result) = self.drain.run(self.backend.send(push)).await else {
                return Ended::Failed {
                    resume: Instant::now(),
                };
            };
            let now = Instant::now();
            let failure = match result {
                Ok(()) => {
                    debug!(module = %self.name, token = %fingerprint, class = ?push.class, "push accepted");
                    let mut state = self.lock();
                    state.doubt.record(Sign::Accepted, now);
                    state.blocklist.forgive(fingerprint);
                    drop(state);
                    if let Some(record) = &order.record {
                        record.delivered();
                    }
                    return Ended::Settled(Outcome::Accepted);
                }
                Err(failure) => failure,
            };
            debug!(module = %self.name, token = %fingerprint, class = ?push.class, todo = ?failure.error,
                answer = %failure.answer, "push failed");
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
                PushError::TooLarge if push.form == Form::Full => {
                    self.gates.too_large.error(
                        &self.name,
                        &failure,
                        "the push is too large for the provider; sending the minimal form",
                    );
                    push.form = Form::Minimal;
                    continue;
                }
                PushError::Later { after } => after,
                PushError::Reconnected | PushError::Renewed => None,
                PushError::TokenBusy => {
                    self.lock().doubt.record(Sign::Neutral, now);
                    return Ended::Busy;
                }
                PushError::Pause { length, alarm } => {
                    let resume = self.pause(length, alarm, &failure, now);
                    return Ended::Failed { resume };
                }
                PushError::TokenGone { .. }
                | PushError::TokenDoubted
                | PushError::TokenMalformed
                | PushError::TooLarge
                | PushError::Misconfigured
                | PushError::Unexplained => {
                    return Ended::Settled(self.judge(order, &failure, now));
                }
            };
            self.problem(&failure, now);
            let pause = backoff.pause(asked, jitter());
            let resume = now + pause;
            if resume + LEAST_ATTEMPT > patience || self.drain.run(sleep(pause)).await.is_none() {
                return Ended::Failed { resume };
            }
        }
    }

    /// Draws the conclusion from an answer that no further attempt will change.
    fn judge(&self, order: &Order, failure: &Failure, now: Instant) -> Outcome {
        let (fingerprint, choice) = (order.fingerprint, order.choice);
        let mut state = self.lock();
        let wrong_token = matches!(failure.error, PushError::TokenDoubted | PushError::TokenMalformed);
        state.doubt.record(
            if wrong_token {
                Sign::WrongToken
            } else {
                Sign::Neutral
            },
            now,
        );
        match failure.error {
            PushError::TokenGone { since } => self.bury(order, since, state, now),
            // Of another module, as likely as not, whose name was lost on the way.
            PushError::TokenDoubted | PushError::TokenMalformed if choice == Choice::Default => {
                state.blocklist.block(fingerprint, BlockReason::Unexplained, now);
                Outcome::TokenForeign
            }
            PushError::TokenDoubted if state.doubt.believes(now) => self.bury(order, None, state, now),
            PushError::TokenDoubted => {
                self.gates.doubted.error(
                    &self.name,
                    failure,
                    "the provider calls too many tokens wrong: check environment, topic and project of this \
                     module; no device is unregistered meanwhile",
                );
                Outcome::ProviderUnavailable
            }
            PushError::TokenMalformed => {
                if state.blocklist.was_malformed(fingerprint, now) && state.doubt.believes(now) {
                    return self.bury(order, None, state, now);
                }
                state.blocklist.block(fingerprint, BlockReason::Malformed, now);
                Outcome::TokenBlocked
            }
            PushError::Unexplained => {
                let message = "the provider gave an answer that is not known";
                self.gates.unexplained.error(&self.name, failure, message);
                state.blocklist.block(fingerprint, BlockReason::Unexplained, now);
                Outcome::TokenBlocked
            }
            PushError::TooLarge
            | PushError::Misconfigured
            | PushError::TokenBusy
            | PushError::Reconnected
            | PushError::Renewed
            | PushError::Later { .. }
            | PushError::Pause { .. } => {
                let message = "the provider refuses the request; check the settings of this module";
                self.gates.misconfigured.error(&self.name, failure, message);
                Outcome::ProviderUnavailable
            }
        }
    }

    /// Takes a token for dead, unless its device has registered since it died. A second token, for calls, is no reason
    /// to give up the device: it is left alone for a while.
    fn bury(
        &self,
        order: &Order,
        since: Option<u64>,
        mut state: MutexGuard<'_, State>,
        now: Instant,
    ) -> Outcome {
        let is_second = order.push.extra.as_ref().is_some_and(|extra| extra.call);
        let (reason, outcome) = match &order.record {
            Some(record) if is_second || !record.gone(since) => {
                (BlockReason::Unexplained, Outcome::TokenBlocked)
            }
            Some(_) | None => (BlockReason::Dead, Outcome::TokenDead),
        };
        state.blocklist.block(order.fingerprint, reason, now);
        outcome
    }

    /// Sends nothing for a while. Returns when that is over.
    fn pause(&self, length: Duration, alarm: bool, failure: &Failure, now: Instant) -> Instant {
        let mut state = self.lock();
        state.doubt.record(Sign::Neutral, now);
        let until = now + length;
        let paused = state.paused_until.filter(|paused| *paused > now);
        state.paused_until = Some(paused.map_or(until, |paused| paused.max(until)));
        drop(state);
        if paused.is_none() {
            let (module, answer, seconds) = (&self.name, &failure.answer, length.as_secs());
            if alarm {
                error!(%module, %answer, seconds, "the provider refuses this module's credentials or settings: correct \
                    them; the module pauses, and no device is unregistered meanwhile");
            } else {
                warn!(%module, %answer, seconds, "the provider wants less from this module, which pauses");
            }
        }
        until
    }

    /// The end of a pause, if there is one: for what was admitted before it began. When the daemon is about to
    /// stop there is no later time to send at.
    fn paused_until(&self, now: Instant) -> Option<Instant> {
        if self.drain.has_begun() {
            return None;
        }
        self.lock().paused_until.filter(|until| now < *until)
    }

    fn hold(&self, mut state: MutexGuard<'_, State>, held: Held) {
        let first = state.queue.next_due().is_none_or(|due| held.due < due);
        state.queue.push(held);
        drop(state);
        if first {
            self.held.notify_one();
        }
    }

    /// The outcome for a push that the limiter refuses: of a call none is queued that could stand for it.
    fn refused(&self, class: Class) -> Outcome {
        match class {
            Class::High | Class::Low if self.acknowledge_refused => Outcome::Coalesced,
            Class::High | Class::Low | Class::Voip => Outcome::Refused,
        }
    }

    fn lose(&self, fingerprint: Fingerprint, outcome: Outcome) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        if let Some(withheld) = self.gates.losses.pass(Instant::now()) {
            warn!(module = %self.name, token = %fingerprint, ?outcome, withheld,
                "an acknowledged push could not be delivered");
        }
    }

    fn problem(&self, failure: &Failure, now: Instant) {
        if let Some(withheld) = self.gates.problems.pass(now) {
            warn!(module = %self.name, answer = %failure.answer, withheld, "the provider did not take a push");
        }
    }

    fn pop_due(&self, now: Instant) -> Option<Held> {
        self.lock().queue.pop_due(now)
    }

    fn pop(&self) -> Option<Held> {
        self.lock().queue.pop()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with this lock")
    }
}

impl Registered<'_> {
    /// What the push carries of it; without what is encrypted if `encrypted` says so.
    fn extra(&self, encrypted: bool) -> Option<Arc<Extra>> {
        let Recipient { account, channel, .. } = self.recipient;
        let extra = Extra {
            account: account.clone(),
            channel: channel.clone(),
            encrypted: self.encrypted.filter(|_| encrypted).cloned(),
            call: self.call,
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
/// Of more held pushes than that nothing encrypted is kept, so that strangers do not fill the memory with it.
const MAX_HELD_ENCRYPTED: usize = 10_000;
/// Before a held push that found no permit tries again.
const CROWDED_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
