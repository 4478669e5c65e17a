//! The policy against a scripted provider, in paused time.

mod end;
mod homes;
mod line;
mod order;
mod outage;
mod pauses;
mod queue;
mod registered;
mod remembered;
mod replaced;
mod retries;
mod shared;
mod story;
mod tried_out;
mod verdicts;
mod wakes;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Mutex,
    time::SystemTime,
};

use fpush_policy::{HeldChange, HeldRecord};
use fpush_push::{
    BackendStatus, Choice, Encrypted, Ending, Form, Push, PushError, Recipient, Record, Registered, Request,
    Sending, Token, TokenHasher, TroubleKind, Unavailable, Urgency, Verifying,
    settings::{Report, Section},
};
use proptest::prelude::*;
use tokio::{
    runtime,
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, sleep_until, timeout_at},
};
use uuid::Uuid;

use super::*;
use crate::Liveness;

/// What the scripted provider does with one attempt.
#[derive(Clone, Copy, Debug)]
enum Step {
    Take,
    Fail(PushError),
    /// Nothing until the push's deadline, and then the error of a timeout.
    Silence,
    /// The same as [`Take`](Self::Take) or [`Fail`](Self::Fail), after so many milliseconds.
    SlowTake(u64),
    SlowFail(u64, PushError),
}

/// One attempt as the provider saw it.
#[derive(Clone, Debug)]
struct Attempt {
    at: Instant,
    token: String,
    class: Class,
    form: Form,
    id: Uuid,
    /// When it was answered, and how; `None` while it is under way or if it was cancelled.
    answered: Option<(Instant, Result<(), PushError>)>,
}

#[derive(Default)]
struct Provider {
    /// The next answers.
    script: Mutex<VecDeque<Step>>,
    /// What comes after the script.
    rule: Mutex<Option<Step>>,
    attempts: Mutex<Vec<Attempt>>,
    under_way: Mutex<(usize, usize)>,
}

impl Provider {
    fn queue(&self, steps: impl IntoIterator<Item = Step>) {
        self.script.lock().unwrap().extend(steps);
    }

    fn always(&self, step: Step) {
        *self.rule.lock().unwrap() = Some(step);
    }

    fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.attempts.lock().unwrap().len()
    }

    fn most_under_way(&self) -> usize {
        self.under_way.lock().unwrap().1
    }

    async fn answer(&self, push: &Push) -> Result<(), Failure> {
        let step = self.script.lock().unwrap().pop_front();
        let step = step.or_else(|| *self.rule.lock().unwrap()).unwrap_or(Step::Take);
        let number = {
            let mut attempts = self.attempts.lock().unwrap();
            attempts.push(Attempt {
                at: Instant::now(),
                token: push.token.as_str().to_owned(),
                class: push.class,
                form: push.form,
                id: push.id,
                answered: None,
            });
            attempts.len() - 1
        };
        let (delay, result) = match step {
            Step::Take => (Duration::ZERO, Ok(())),
            Step::Fail(error) => (Duration::ZERO, Err(error)),
            Step::Silence => (Duration::MAX, Err(LATER)),
            Step::SlowTake(millis) => (Duration::from_millis(millis), Ok(())),
            Step::SlowFail(millis, error) => (Duration::from_millis(millis), Err(error)),
        };
        let _guest = Guest::new(self);
        let result = if delay.is_zero() || timeout_at(push.deadline.into(), sleep(delay)).await.is_ok() {
            result
        } else {
            Err(LATER)
        };
        self.attempts.lock().unwrap()[number].answered = Some((Instant::now(), result));
        result.map_err(|error| Failure::new(error, "scripted", "scripted", ""))
    }
}

/// Counts how many attempts are under way.
struct Guest<'a>(&'a Provider);

impl<'a> Guest<'a> {
    fn new(provider: &'a Provider) -> Self {
        let mut under_way = provider.under_way.lock().unwrap();
        under_way.0 += 1;
        under_way.1 = under_way.1.max(under_way.0);
        Self(provider)
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.0.under_way.lock().unwrap().0 -= 1;
    }
}

struct Backend {
    provider: Arc<Provider>,
    high: Class,
    digest: u128,
}

impl PushTrait for Backend {
    fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
        if token.starts_with("foreign") {
            None
        } else if token.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Some(token.to_ascii_lowercase().into())
        } else {
            Some(token.into())
        }
    }

    fn class(&self, urgency: Urgency) -> Class {
        match urgency {
            Urgency::High => self.high,
            Urgency::Low => Class::Low,
            Urgency::Voip => Class::Voip,
        }
    }

    fn send<'a>(&'a self, push: &'a Push) -> Sending<'a> {
        Box::pin(self.provider.answer(push))
    }

    fn verify(&self, _deadline: std::time::Instant) -> Verifying<'_> {
        Box::pin(async { Ok("nothing to prove".into()) })
    }

    fn status(&self) -> BackendStatus {
        BackendStatus::default()
    }

    fn digest(&self) -> u128 {
        self.digest
    }
}

/// A module that runs, its provider, and its end.
struct Fixture {
    module: Arc<Module>,
    provider: Arc<Provider>,
    drain: Drain,
    start: Instant,
}

impl Fixture {
    fn new() -> Self {
        Self::with(settings(), Class::High)
    }

    fn with(settings: ModuleSettings, high: Class) -> Self {
        let (provider, drain) = (Arc::<Provider>::default(), Drain::default());
        let backend = Box::new(Backend {
            provider: Arc::clone(&provider),
            high,
            digest: 1,
        });
        let module = Module::new(
            "m",
            backend,
            settings,
            Senders::new(TokenHasher::new().unwrap()),
            drain.clone(),
        );
        drain.spawn(Arc::clone(&module).run(Liveness::new().probe("m")));
        Self {
            module,
            provider,
            drain,
            start: Instant::now(),
        }
    }

    /// From now on what is held is written down.
    fn keep(&self) -> Arc<Disk> {
        let disk = Arc::<Disk>::default();
        self.module.keep_in(Arc::clone(&disk) as _, 0);
        disk
    }

    fn admit(&self, token: &str) -> Admission {
        self.admit_from(token, "a.example")
    }

    fn admit_from(&self, token: &str, domain: &str) -> Admission {
        let request = Request {
            token,
            choice: Choice::Named,
            urgency: Urgency::High,
            count: None,
            domain,
            registered: None,
        };
        self.module.admit(request, Instant::now())
    }

    /// What is decided at once.
    #[track_caller]
    fn settled(&self, token: &str) -> Outcome {
        match self.admit(token) {
            Admission::Answered(outcome) => outcome,
            Admission::Admitted(_) => panic!("it is to be delivered"),
        }
    }

    /// Starts what is not decided at once. Delivery is work that the shutdown waits for, as in the component.
    fn publish(&self, token: &str) -> JoinHandle<Outcome> {
        self.publish_from(token, "a.example")
    }

    fn publish_from(&self, token: &str, domain: &str) -> JoinHandle<Outcome> {
        let verdict = self.admit_from(token, domain);
        let (done, outcome) = oneshot::channel();
        self.drain.spawn(async move {
            let outcome = match verdict {
                Admission::Answered(outcome) => outcome,
                Admission::Admitted(admitted) => admitted.deliver().await,
            };
            let _ = done.send(outcome);
        });
        tokio::spawn(async { outcome.await.expect("every publish gets an outcome") })
    }

    async fn push(&self, token: &str) -> Outcome {
        self.publish(token).await.unwrap()
    }

    /// The outcome, and the seconds that it took.
    async fn timed(&self, token: &str) -> (Outcome, f64) {
        let start = Instant::now();
        let outcome = self.push(token).await;
        (outcome, start.elapsed().as_secs_f64())
    }

    /// The outcome, which must not take any time.
    #[track_caller]
    fn at_once(&self, token: &str) -> impl Future<Output = Outcome> {
        let (outcome, start) = (self.publish(token), Instant::now());
        async move {
            let outcome = outcome.await.unwrap();
            assert_about(start.elapsed().as_secs_f64(), 0.0);
            outcome
        }
    }

    /// Lets the module succeed so often that its provider is believed at once.
    async fn earn_belief(&self) {
        for number in 0..10 {
            assert_eq!(self.push(&format!("living {number}")).await, Outcome::Accepted);
        }
        self.provider.attempts.lock().unwrap().clear();
    }

    /// When the provider got something, in seconds since the start.
    fn times(&self) -> Vec<f64> {
        let since = |attempt: &Attempt| attempt.at.duration_since(self.start).as_secs_f64();
        self.provider.attempts().iter().map(since).collect()
    }
}

/// As they are where the file says nothing.
fn holding() -> ModuleSettings {
    let (report, empty) = (Report::default(), serde_json::Map::new());
    ModuleSettings::read(&mut Section::root(&empty, &report))
}

/// The same, but an outage is answered with an error.
fn settings() -> ModuleSettings {
    ModuleSettings {
        hold_for: Duration::ZERO,
        ..holding()
    }
}

/// A disk that never fails unless it is told to.
#[derive(Default)]
struct Disk {
    held: Mutex<BTreeMap<u64, HeldRecord>>,
    is_full: Mutex<bool>,
    /// Who waits, if the disk is slow.
    slow: Mutex<Option<Vec<crate::Acknowledge>>>,
}

impl Disk {
    fn numbers(&self) -> Vec<u64> {
        self.held.lock().unwrap().keys().copied().collect()
    }

    fn records(&self) -> Vec<HeldRecord> {
        self.held.lock().unwrap().values().cloned().collect()
    }
}

impl crate::HeldStore for Disk {
    fn has_unwritten(&self) -> bool {
        let slow = self.slow.lock().unwrap();
        slow.as_ref().is_some_and(|waiting| !waiting.is_empty())
    }

    fn write(&self, changes: Vec<HeldChange>, acknowledge: Option<crate::Acknowledge>) {
        let is_full = *self.is_full.lock().unwrap();
        for change in changes {
            if !(is_full && matches!(change, HeldChange::Put(..))) {
                change.apply(&mut self.held.lock().unwrap());
            }
        }
        match (&mut *self.slow.lock().unwrap(), acknowledge) {
            (Some(waiting), Some(acknowledge)) => waiting.push(acknowledge),
            (None, Some(acknowledge)) => drop(acknowledge.send(!is_full)),
            (_, None) => {}
        }
    }

    fn read_part(&self, from: u64, most: usize) -> oneshot::Receiver<crate::Part> {
        let (sender, reading) = oneshot::channel();
        let held = self.held.lock().unwrap();
        let part = held
            .range(from..)
            .map(|(number, record)| (*number, record.clone()));
        drop(sender.send(part.take(most).collect()));
        reading
    }

    fn read(&self, numbers: Vec<u64>) -> oneshot::Receiver<crate::Read> {
        let (sender, reading) = oneshot::channel();
        let held = self.held.lock().unwrap();
        let read = numbers.iter().map(|number| (*number, held.get(number).cloned()));
        drop(sender.send(read.collect()));
        reading
    }
}

fn one_at_a_time() -> ModuleSettings {
    ModuleSettings {
        max_in_flight: 1,
        ..settings()
    }
}

fn acknowledging() -> ModuleSettings {
    let mut settings = settings();
    settings.ratelimit.acknowledge_refused = true;
    settings
}

fn pause(seconds: u64) -> PushError {
    PushError::Pause {
        length: Duration::from_secs(seconds),
        alarm: true,
    }
}

fn after(seconds: u64) -> PushError {
    PushError::Later {
        after: Some(Duration::from_secs(seconds)),
    }
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

/// Timers count in milliseconds, and pushes may be delayed at random.
const SLACK: f64 = if cfg!(feature = "random_delay_before_push") {
    0.2
} else {
    0.01
};

#[track_caller]
fn assert_about(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() < SLACK,
        "{found} seconds instead of {expected}"
    );
}

const TOO_MANY: PushError = PushError::TooMany {
    pause: Duration::from_secs(60),
};
const LATER: PushError = PushError::Later { after: None };
const GONE: PushError = PushError::TokenGone { since: None };
/// The words, of which one may be about us.
const WORDS: [PushError; 2] = [GONE, PushError::TokenDoubted];

/// A registered device, and what it heard of its pushes.
#[derive(Default)]
struct Device {
    delivered: Mutex<u32>,
    failed: Mutex<u32>,
    /// Registered at that time, in milliseconds since 1970.
    registered: u64,
    /// Its database is away.
    unavailable: bool,
}

impl Record for Device {
    fn delivered(&self, _lane: LaneId) {
        *self.delivered.lock().unwrap() += 1;
    }

    fn failed(&self) {
        *self.failed.lock().unwrap() += 1;
    }

    fn gone(&self, since: Option<u64>) -> Ending {
        let ended = since.is_none_or(|since| since > self.registered);
        let unavailable = self.unavailable;
        Box::pin(async move { if unavailable { Err(Unavailable) } else { Ok(ended) } })
    }
}

fn recipient(device: &Arc<Device>) -> Recipient {
    Recipient {
        node: "n".into(),
        module: "m".into(),
        token: Token::new("t"),
        voip_token: None,
        account: Some("account".into()),
        channel: None,
        spacing: Duration::from_secs(5),
        home: LaneId::Main,
        record: Arc::<Device>::clone(device),
    }
}

fn to_registered<'a>(recipient: &'a Recipient, encrypted: Option<&'a Encrypted>) -> Request<'a> {
    Request {
        token: "t",
        choice: Choice::Registered,
        urgency: Urgency::High,
        count: None,
        domain: "a.example",
        registered: Some(Registered { recipient, encrypted }),
    }
}
