//! The policy against a scripted provider, in paused time.

mod wakes;

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
    time::SystemTime,
};

use fpush_push::{
    BackendStatus, Choice, Encrypted, Ending, Recipient, Record, Registered, Request, Sending, TokenHasher,
    TroubleKind, Unavailable, Verifying,
    settings::{Report, Section},
};
use proptest::prelude::*;
use tokio::{
    runtime,
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, sleep_until, timeout_at},
};

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

    fn admit(&self, token: &str) -> Admission {
        self.admit_from(token, "a.example")
    }

    fn admit_from(&self, token: &str, domain: &str) -> Admission {
        let request = Request {
            token,
            choice: Choice::Named,
            urgency: Urgency::High,
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
fn settings() -> ModuleSettings {
    let (report, empty) = (Report::default(), serde_json::Map::new());
    ModuleSettings::read(&mut Section::root(&empty, &report))
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

// The order: block list, token format, rate limit, line.

#[tokio::test(start_paused = true)]
async fn a_blocked_token_is_answered_without_asking_the_provider() {
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider.queue([Step::Fail(GONE)]);
    assert_eq!(f.push("t").await, Outcome::TokenDead);
    assert_eq!(f.settled("t"), Outcome::TokenDead);
    assert_eq!(f.provider.count(), 1);
    seconds(24 * 3_600).await;
    assert_eq!(f.push("t").await, Outcome::Accepted, "the block has ended");
}

#[tokio::test(start_paused = true)]
async fn the_block_list_comes_before_the_rate_limit_and_the_pause() {
    let f = Fixture::new();
    f.earn_belief().await;
    let slow = f.publish("t");
    assert_eq!(slow.await.unwrap(), Outcome::Accepted);
    assert_eq!(f.settled("t"), Outcome::Queued);
    f.provider.queue([Step::Fail(GONE), Step::Fail(pause(60))]);
    seconds(21).await;
    assert_eq!(
        f.settled("t"),
        Outcome::TokenDead,
        "the queued push found it dead"
    );
    assert_eq!(f.push("u").await, Outcome::ProviderUnavailable);
    assert_eq!(f.settled("t"), Outcome::TokenDead, "also while the module pauses");
}

#[tokio::test(start_paused = true)]
async fn a_token_of_the_wrong_format_reaches_no_provider_and_takes_no_slot() {
    let f = Fixture::new();
    let request = |choice| Request {
        token: "foreign",
        choice,
        urgency: Urgency::High,
        domain: "a.example",
        registered: None,
    };
    for choice in [Choice::Named, Choice::Only, Choice::Default] {
        for _ in 0..3 {
            match f.module.admit(request(choice), Instant::now()) {
                Admission::Answered(settled) => assert_eq!(settled, Outcome::TokenInvalid, "{choice:?}"),
                Admission::Admitted(_) => panic!("it must not be delivered"),
            }
        }
    }
    assert_eq!(f.provider.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_rate_limit_comes_before_the_line() {
    let f = Fixture::with(one_at_a_time(), Class::High);
    f.provider.queue([Step::SlowTake(4_000)]);
    let first = f.publish("t");
    let mut waiting: Vec<_> = (0..10).map(|n| f.publish(&format!("w{n}"))).collect();
    assert_eq!(f.settled("other"), Outcome::Overloaded, "the line is full");
    assert_eq!(f.settled("t"), Outcome::Queued, "what is queued needs no place");
    assert_eq!(f.settled("t"), Outcome::Refused);
    assert_eq!(first.await.unwrap(), Outcome::Accepted);
    for outcome in waiting.drain(..) {
        assert_eq!(outcome.await.unwrap(), Outcome::Accepted);
    }
    assert_eq!(f.push("other").await, Outcome::Accepted, "overload took no slot");
}

// Retries.

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_tried_again_at_once_up_to_the_bound() {
    let f = Fixture::new();
    f.provider.queue([Step::Fail(PushError::Reconnected); 2]);
    assert_eq!(f.at_once("t").await, Outcome::Accepted);
    let attempts = f.provider.attempts();
    assert_eq!(attempts.len(), 3);
    assert!(
        attempts.iter().all(|attempt| attempt.id == attempts[0].id),
        "the same push"
    );

    f.provider.queue([Step::Fail(PushError::Reconnected); 3]);
    let (outcome, took) = f.timed("u").await;
    assert_eq!(outcome, Outcome::Accepted);
    assert!((0.5..=0.75 + SLACK).contains(&took), "then with a pause: {took}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_tried_again_with_growing_pauses_until_the_reply_is_due() {
    let f = Fixture::new();
    f.provider.always(Step::Fail(LATER));
    let (outcome, took) = f.timed("t").await;
    assert_eq!(outcome, Outcome::ProviderUnavailable);
    assert!((15.0..25.0).contains(&took), "{took}");
    let attempts = f.provider.attempts();
    assert!((5..=6).contains(&attempts.len()), "{}", attempts.len());
    assert!(attempts.iter().all(|attempt| attempt.id == attempts[0].id));
    let times = f.times();
    for (number, pair) in times.windows(2).enumerate() {
        let least = 0.5 * f64::from(2u32.pow(number as u32));
        let pause = pair[1] - pair[0];
        assert!(
            (least..least * 1.5 + 0.002).contains(&pause),
            "pause {number}: {pause}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_ends_in_time_costs_nothing() {
    let f = Fixture::new();
    f.provider
        .queue([Step::Fail(LATER), Step::SlowFail(5_000, LATER)]);
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.provider.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_silent_provider_is_answered_for_after_25_seconds() {
    let f = Fixture::new();
    f.provider.always(Step::Silence);
    let (outcome, took) = f.timed("t").await;
    assert_eq!(outcome, Outcome::ProviderUnavailable);
    assert_about(took, 25.0);
    assert_eq!(f.provider.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_provider_asks_for_is_waited_out_or_answered_at_once() {
    let f = Fixture::new();
    f.provider.queue([Step::Fail(after(10))]);
    let (outcome, took) = f.timed("t").await;
    assert_eq!(outcome, Outcome::Accepted);
    assert!((10.0..=15.0 + SLACK).contains(&took), "{took}");

    f.provider.queue([Step::Fail(after(3_600))]);
    assert_eq!(f.at_once("u").await, Outcome::ProviderUnavailable);
    assert_eq!(f.at_once("u").await, Outcome::Accepted, "it used up no slot");
}

#[tokio::test(start_paused = true)]
async fn renewed_credentials_are_tried_at_once_but_only_once() {
    let f = Fixture::new();
    f.provider.queue([Step::Fail(PushError::Renewed)]);
    assert_eq!(f.at_once("t").await, Outcome::Accepted);

    f.provider.queue([Step::Fail(PushError::Renewed); 2]);
    let (outcome, took) = f.timed("u").await;
    assert_eq!(outcome, Outcome::Accepted);
    assert!((0.5..=0.75 + SLACK).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_sent_in_the_minimal_form_once() {
    let f = Fixture::new();
    f.provider.queue([Step::Fail(PushError::TooLarge)]);
    assert_eq!(f.at_once("t").await, Outcome::Accepted);
    f.provider.queue([Step::Fail(PushError::TooLarge); 2]);
    assert_eq!(f.at_once("u").await, Outcome::ProviderUnavailable);
    let forms: Vec<_> = f.provider.attempts().iter().map(|attempt| attempt.form).collect();
    assert_eq!(forms, [Form::Full, Form::Minimal, Form::Full, Form::Minimal]);
    assert_eq!(f.push("u").await, Outcome::Accepted, "the token is innocent");
}

#[tokio::test(start_paused = true)]
async fn our_mistake_is_not_tried_again_and_costs_no_device_anything() {
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider.always(Step::Fail(PushError::Misconfigured));
    for _ in 0..3 {
        assert_eq!(f.at_once("t").await, Outcome::ProviderUnavailable);
    }
    assert_eq!(f.provider.count(), 3);
}

// The line.

#[tokio::test(start_paused = true)]
async fn the_line_is_left_after_five_seconds() {
    let f = Fixture::with(one_at_a_time(), Class::High);
    f.provider.queue([Step::SlowTake(6_000)]);
    let first = f.publish("first");
    seconds(0).await;
    let (outcome, took) = f.timed("second").await;
    assert_eq!(outcome, Outcome::Overloaded);
    assert_about(took, 5.0);
    assert_eq!(first.await.unwrap(), Outcome::Accepted);
    assert_eq!(f.push("second").await, Outcome::Accepted, "it gave its slot back");
    assert_eq!(f.provider.count(), 2, "nothing was sent for the one that left");
}

#[tokio::test(start_paused = true)]
async fn time_in_the_line_counts_towards_the_25_seconds() {
    let f = Fixture::with(one_at_a_time(), Class::High);
    f.provider.queue([Step::SlowTake(4_900), Step::Silence]);
    let first = f.publish("first");
    seconds(0).await;
    let (outcome, took) = f.timed("second").await;
    assert_eq!(outcome, Outcome::ProviderUnavailable);
    assert_about(took, 25.0);
    assert_eq!(first.await.unwrap(), Outcome::Accepted);
}

#[tokio::test(start_paused = true)]
async fn never_more_are_at_the_provider_than_allowed() {
    let mut settings = settings();
    settings.max_in_flight = 7;
    let f = Fixture::with(settings, Class::High);
    f.provider.always(Step::SlowTake(100));
    let all: Vec<_> = (0..77).map(|n| f.publish(&format!("t{n}"))).collect();
    assert_eq!(f.settled("one too many"), Outcome::Overloaded);
    for outcome in all {
        assert_eq!(outcome.await.unwrap(), Outcome::Accepted);
    }
    assert_eq!(f.provider.most_under_way(), 7);
}

#[tokio::test(start_paused = true)]
async fn who_is_displaced_from_the_line_is_overload_and_keeps_its_slot() {
    let f = Fixture::with(one_at_a_time(), Class::High);
    f.provider.always(Step::SlowTake(1_000));
    let mut flood: Vec<_> = (0..11)
        .map(|n| f.publish_from(&format!("f{n}"), "flood.example"))
        .collect();
    let (newcomer, start) = (f.publish_from("n", "small.example"), Instant::now());
    assert_eq!(flood.pop().unwrap().await.unwrap(), Outcome::Overloaded);
    assert_eq!(newcomer.await.unwrap(), Outcome::Accepted);
    assert!(start.elapsed().as_secs_f64() < 3.0 + SLACK, "served in turn");
    f.provider.always(Step::Take);
    seconds(10).await;
    assert_eq!(
        f.push("f10").await,
        Outcome::Accepted,
        "the displaced push took no slot"
    );
}

// The rate limit and the queue.

#[tokio::test(start_paused = true)]
async fn a_queued_push_goes_out_once_at_its_time_and_restarts_the_window() {
    let f = Fixture::new();
    assert_eq!(f.push("t").await, Outcome::Accepted);
    seconds(5).await;
    assert_eq!(f.settled("t"), Outcome::Queued);
    assert_eq!(f.module.held(), 1);
    for _ in 0..3 {
        seconds(4).await;
        assert_eq!(f.settled("t"), Outcome::Refused);
    }
    seconds(4).await;
    assert_eq!(f.module.held(), 0);
    // The queued one went out at 20: the window lasts until 40.
    assert_eq!(f.settled("t"), Outcome::Queued);
    seconds(100).await;
    let times = f.times();
    assert_eq!(times.len(), 3, "{times:?}");
    for (found, expected) in times.into_iter().zip([0.0, 20.0, 40.0]) {
        assert_about(found, expected);
    }
    assert_eq!(
        f.push("t").await,
        Outcome::Accepted,
        "the window is over: at once again"
    );
    assert_eq!(f.module.lost(), 0);
}

#[tokio::test(start_paused = true)]
async fn queued_pushes_go_out_in_the_order_of_their_times() {
    let f = Fixture::new();
    for token in ["a", "b", "c"] {
        assert_eq!(f.push(token).await, Outcome::Accepted);
        seconds(1).await;
    }
    for token in ["c", "a", "b"] {
        assert_eq!(f.settled(token), Outcome::Queued);
    }
    seconds(60).await;
    let tokens: Vec<_> = f.provider.attempts().into_iter().map(|a| a.token).collect();
    assert_eq!(tokens[3..], ["a", "b", "c"]);
    for (found, expected) in f.times()[3..].iter().zip([20.0, 21.0, 22.0]) {
        assert_about(*found, expected);
    }
}

/// Under load: while the queued push waits for its permit it stays the one that is queued, and its window begins when it
/// goes out.
#[tokio::test(start_paused = true)]
async fn the_window_of_a_held_push_begins_with_its_permit() {
    let mut settings = settings();
    settings.max_in_flight = 1;
    let f = Fixture::with(settings, Class::High);
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.settled("t"), Outcome::Queued);
    seconds(19).await;
    f.provider.queue([Step::SlowTake(24_000)]);
    let other = f.publish("x");
    seconds(22).await;
    assert_eq!(f.settled("t"), Outcome::Refused, "it is queued yet");
    assert_eq!(other.await.unwrap(), Outcome::Accepted);
    seconds(18).await;
    assert_eq!(f.settled("t"), Outcome::Queued);
    seconds(10).await;
    let times: Vec<_> = f
        .provider
        .attempts()
        .into_iter()
        .filter(|attempt| attempt.token == "t")
        .map(|attempt| attempt.at.duration_since(f.start).as_secs_f64())
        .collect();
    assert_eq!(times.len(), 3, "{times:?}");
    for (found, expected) in times.iter().zip([0.0, 43.0, 63.0]) {
        assert_about(*found, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_push_gives_its_slot_back() {
    let f = Fixture::new();
    for error in [PushError::Misconfigured, after(3_600), pause(1)] {
        f.provider.queue([Step::Fail(error)]);
        assert_eq!(f.push("t").await, Outcome::ProviderUnavailable, "{error:?}");
        seconds(2).await;
    }
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.settled("t"), Outcome::Queued);
}

#[tokio::test(start_paused = true)]
async fn with_the_limit_off_every_push_goes_out_at_once() {
    let mut settings = settings();
    settings.ratelimit.enabled = false;
    let f = Fixture::with(settings, Class::High);
    for _ in 0..5 {
        assert_eq!(f.at_once("t").await, Outcome::Accepted);
    }
    f.provider.queue([Step::Fail(PushError::TokenBusy)]);
    assert_eq!(
        f.push("t").await,
        Outcome::Queued,
        "what the provider asks for is honoured"
    );
    assert_eq!(f.settled("t"), Outcome::Refused);
    seconds(601).await;
    assert_eq!(f.provider.count(), 7);
    assert_eq!(f.push("t").await, Outcome::Accepted);
}

#[tokio::test(start_paused = true)]
async fn classes_of_a_token_have_windows_of_their_own() {
    let f = Fixture::new();
    let low = || {
        let request = Request {
            token: "t",
            choice: Choice::Named,
            urgency: Urgency::Low,
            domain: "a.example",
            registered: None,
        };
        f.module.admit(request, Instant::now())
    };
    assert_eq!(f.push("t").await, Outcome::Accepted);
    let Admission::Admitted(admitted) = low() else {
        panic!("it has a window of its own")
    };
    assert_eq!(admitted.deliver().await, Outcome::Accepted);
    assert!(matches!(low(), Admission::Answered(Outcome::Queued)));
    assert_eq!(f.settled("t"), Outcome::Queued);
    seconds(21).await;
    let mut classes: Vec<_> = f.provider.attempts().iter().map(|a| a.class as u8).collect();
    classes[2..].sort_unstable();
    assert_eq!(classes, [1, 2, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_sent_or_refused_and_never_acknowledged_without_being_sent() {
    for settings in [settings(), acknowledging()] {
        let f = Fixture::with(settings, Class::Voip);
        assert_eq!(f.push("t").await, Outcome::Accepted);
        assert_eq!(
            f.settled("t"),
            Outcome::Refused,
            "nothing is queued that stands for it"
        );
        seconds(21).await;
        f.provider.queue([Step::Fail(PushError::TokenBusy)]);
        assert_eq!(f.push("t").await, Outcome::Refused);
        assert_eq!(f.module.held(), 0);
        seconds(599).await;
        assert_eq!(f.settled("t"), Outcome::Refused, "silence for this token");
        seconds(2).await;
        assert_eq!(f.push("t").await, Outcome::Accepted);
        assert_eq!(f.provider.count(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_push_is_acknowledged_where_the_operator_wants_it() {
    let f = Fixture::with(acknowledging(), Class::High);
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.settled("t"), Outcome::Queued);
    assert_eq!(f.settled("t"), Outcome::Coalesced);
    seconds(60).await;
    assert_eq!(f.provider.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_busy_token_is_silenced_and_its_push_goes_out_afterwards() {
    let f = Fixture::new();
    f.provider.queue([Step::Fail(PushError::TokenBusy)]);
    assert_eq!(f.at_once("t").await, Outcome::Queued);
    for _ in 0..5 {
        seconds(100).await;
        assert_eq!(f.settled("t"), Outcome::Refused);
        assert_eq!(
            f.push(&format!("other {:?}", Instant::now())).await,
            Outcome::Accepted
        );
    }
    f.provider.attempts.lock().unwrap().clear();
    seconds(200).await;
    assert_eq!(f.times().len(), 1);
    assert_about(f.times()[0], 600.0);
    assert_eq!(f.module.lost(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_busy_again_and_again_is_silenced_each_time_and_in_the_end_lost() {
    let f = Fixture::new();
    f.provider.always(Step::Fail(PushError::TokenBusy));
    assert_eq!(f.push("t").await, Outcome::Queued);
    seconds(600 + 600 + 60).await;
    let times = f.times();
    assert_eq!(times.len(), 3);
    assert_about(times[1], 600.0);
    assert_about(times[2], 1_200.0);
    assert_eq!((f.module.held(), f.module.lost()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_push_that_is_too_busy_while_another_is_queued_is_covered_by_that_one() {
    let f = Fixture::new();
    f.provider.queue([Step::SlowFail(10_000, PushError::TokenBusy)]);
    let first = f.publish("t");
    seconds(5).await;
    assert_eq!(f.settled("t"), Outcome::Queued);
    assert_eq!(first.await.unwrap(), Outcome::Queued);
    assert_eq!(f.module.held(), 1);
    seconds(700).await;
    let times = f.times();
    assert_eq!(times.len(), 2, "{times:?}");
    assert_about(times[1], 610.0);
    assert_eq!(f.module.lost(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_queued_push_is_tried_for_ten_minutes_and_then_counted_as_lost() {
    let f = Fixture::new();
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.settled("t"), Outcome::Queued);
    f.provider.always(Step::Fail(LATER));
    seconds(20 + 590).await;
    assert_eq!((f.module.held(), f.module.lost()), (1, 0), "it is still held");
    assert_eq!(f.settled("t"), Outcome::Refused, "and stands for the others");
    seconds(120).await;
    assert_eq!((f.module.held(), f.module.lost()), (0, 1));
    let attempts = f.provider.attempts();
    let last = *f.times().last().unwrap();
    assert!((600.0..=720.0).contains(&last), "{last}");
    assert!((12..30).contains(&attempts.len()), "{}", attempts.len());
    assert!(
        attempts[1..].iter().all(|attempt| attempt.id == attempts[1].id),
        "one push has one id, however often it is tried"
    );
    f.provider.always(Step::Take);
    assert_eq!(f.push("t").await, Outcome::Accepted, "it gave its slot back");
}

#[tokio::test(start_paused = true)]
async fn a_failed_queued_push_is_covered_by_the_next_one() {
    let f = Fixture::new();
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.settled("t"), Outcome::Queued);
    f.provider.queue([Step::SlowFail(10_000, LATER)]);
    seconds(25).await;
    assert_eq!(f.settled("t"), Outcome::Queued, "the first one is under way");
    seconds(6).await;
    assert_eq!(f.module.held(), 1, "one stands for both");
    seconds(100).await;
    assert_eq!((f.provider.count(), f.module.lost()), (3, 0));
    assert_about(f.times()[2], 40.0);
}

#[tokio::test(start_paused = true)]
async fn a_queued_push_survives_an_outage() {
    let f = Fixture::new();
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.settled("t"), Outcome::Queued);
    f.provider.always(Step::Fail(LATER));
    seconds(300).await;
    f.provider.always(Step::Take);
    seconds(120).await;
    let taken = f.provider.attempts().into_iter();
    let taken = taken.filter(|a| matches!(a.answered, Some((_, Ok(()))))).count();
    assert_eq!((taken, f.module.held(), f.module.lost()), (2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_queued_push_is_dropped_when_its_token_dies() {
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider.queue([Step::SlowFail(15_000, GONE)]);
    let first = f.publish("t");
    seconds(1).await;
    assert_eq!(f.settled("t"), Outcome::Queued);
    assert_eq!(first.await.unwrap(), Outcome::TokenDead);
    seconds(60).await;
    assert_eq!((f.provider.count(), f.module.held(), f.module.lost()), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_queued_push_that_meets_another_block_is_counted_as_lost() {
    let f = Fixture::new();
    f.provider.queue([Step::SlowFail(15_000, PushError::Unexplained)]);
    let first = f.publish("t");
    seconds(1).await;
    assert_eq!(f.settled("t"), Outcome::Queued);
    assert_eq!(first.await.unwrap(), Outcome::TokenBlocked);
    seconds(60).await;
    assert_eq!((f.provider.count(), f.module.held(), f.module.lost()), (1, 0, 1));
}

// One after the other delayed at random, they would take longer than the first one's window.
#[cfg(not(feature = "random_delay_before_push"))]
#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_are_queued_and_not_one_more() {
    const MOST_HELD: usize = 100_000;
    let f = Fixture::new();
    let busy = |number: usize| format!("{number}");
    for number in 0..MOST_HELD + 1 {
        let Admission::Admitted(admitted) = f.admit(&busy(number)) else {
            panic!("the first goes out")
        };
        assert_eq!(admitted.deliver().await, Outcome::Accepted);
    }
    for number in 0..MOST_HELD {
        assert_eq!(f.settled(&busy(number)), Outcome::Queued);
    }
    assert_eq!(f.module.held(), MOST_HELD);
    assert_eq!(f.settled(&busy(MOST_HELD)), Outcome::Overloaded);
    f.provider.queue([Step::Fail(PushError::TokenBusy)]);
    assert_eq!(
        f.push("too busy").await,
        Outcome::Refused,
        "where there is no room a busy token's push is not acknowledged"
    );
    assert_eq!(f.settled(&busy(0)), Outcome::Refused, "one stands for it");
    let counted = f.provider.count();
    seconds(25).await;
    let counted = f.provider.count() - counted;
    assert_eq!((counted, f.module.held()), (MOST_HELD, 0));
    assert!(f.provider.most_under_way() <= 1_000);
    assert_eq!(f.push(&busy(MOST_HELD)).await, Outcome::Accepted);
    assert_eq!(f.module.lost(), 0);
}

// The provider's verdict on tokens.

/// The words, of which one may be about us.
const WORDS: [PushError; 2] = [GONE, PushError::TokenDoubted];

#[tokio::test(start_paused = true)]
async fn without_a_success_no_token_is_dead_and_each_is_asked_for_six_times_an_hour() {
    for word in WORDS {
        let mut settings = settings();
        settings.ratelimit.enabled = false;
        settings.blocklist.unexplained.initial = Duration::from_secs(1);
        let f = Fixture::with(settings, Class::High);
        f.provider.always(Step::Fail(word));
        for _ in 0..3_600 {
            assert_eq!(f.push("t").await, Outcome::TokenBlocked);
            seconds(1).await;
        }
        assert_eq!(f.provider.count(), 6, "{word:?}");
        f.provider.always(Step::Take);
        assert_eq!(f.push("t").await, Outcome::Accepted);
        assert_eq!(f.push("t").await, Outcome::Accepted, "nothing is held against it");
    }
}

#[tokio::test(start_paused = true)]
async fn among_successes_a_gone_token_is_dead_and_a_wrong_one_a_day_later() {
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider.queue(WORDS.map(Step::Fail));
    assert_eq!(f.push("gone").await, Outcome::TokenDead);
    assert_eq!(f.push("wrong").await, Outcome::TokenBlocked);
    seconds(86_400).await;
    f.earn_belief().await;
    f.provider.queue([Step::Fail(PushError::TokenDoubted)]);
    assert_eq!(f.push("wrong").await, Outcome::TokenDead);
    assert_eq!(f.settled("wrong"), Outcome::TokenDead);
    assert_eq!(f.provider.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_burst_costs_ten_devices_at_most_and_one_line_of_trouble() {
    for (word, most) in [(GONE, 10), (PushError::TokenDoubted, 0)] {
        let f = Fixture::new();
        f.earn_belief().await;
        f.provider.always(Step::Fail(word));
        let mut dead = 0;
        for number in 0..1_000 {
            dead += usize::from(f.push(&format!("{number}")).await == Outcome::TokenDead);
        }
        assert!(dead <= most, "{word:?}: {dead}");
        let status = f.module.status(Instant::now(), SystemTime::now());
        assert_eq!(
            status.trouble.map(|trouble| trouble.kind),
            Some(TroubleKind::WrongTokens)
        );
        assert_eq!(status.doubted_tokens, 1_000 - dead);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_token_of_the_default_module_of_several_is_never_dead() {
    let f = Fixture::new();
    let push = async || {
        let request = Request {
            token: "t",
            choice: Choice::Default,
            urgency: Urgency::High,
            domain: "a.example",
            registered: None,
        };
        match f.module.admit(request, Instant::now()) {
            Admission::Answered(outcome) => outcome,
            Admission::Admitted(admitted) => admitted.deliver().await,
        }
    };
    for _ in 0..5 {
        f.earn_belief().await;
        f.provider.queue([Step::Fail(PushError::TokenDoubted)]);
        assert_eq!(push().await, Outcome::TokenBlocked);
        assert_eq!(push().await, Outcome::TokenBlocked);
        seconds(2 * 86_400).await;
    }
    f.earn_belief().await;
    f.provider.queue([Step::Fail(GONE)]);
    assert_eq!(push().await, Outcome::TokenDead);
}

#[tokio::test(start_paused = true)]
async fn a_time_of_death_in_the_future_is_doubted() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let f = Fixture::new();
    f.earn_belief().await;
    let since = |ahead: u64| PushError::TokenGone {
        since: Some((now.as_secs() + ahead) * 1_000),
    };
    f.provider.queue([Step::Fail(since(0))]);
    assert_eq!(f.push("a").await, Outcome::TokenDead);
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider.queue([Step::Fail(since(60))]);
    assert_eq!(f.push("b").await, Outcome::TokenBlocked);
}

#[tokio::test(start_paused = true)]
async fn a_registration_forgets_the_first_word_and_the_block() {
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider.queue([Step::Fail(PushError::TokenDoubted)]);
    assert_eq!(f.push("t").await, Outcome::TokenBlocked);
    f.module.unblock("t");
    seconds(86_400).await;
    f.earn_belief().await;
    f.provider.queue([Step::Fail(PushError::TokenDoubted)]);
    assert_eq!(f.push("t").await, Outcome::TokenBlocked, "the first word");
}

#[tokio::test(start_paused = true)]
async fn after_a_jump_of_the_clock_the_hours_begin_again() {
    for jump in [0, 3_600] {
        let f = Fixture::new();
        f.earn_belief().await;
        f.provider.queue([Step::Fail(PushError::TokenDoubted)]);
        assert_eq!(f.push("t").await, Outcome::TokenBlocked);
        let clocks = clocks();
        seconds(86_400).await;
        f.module.follow_clock(Clocks {
            now: Instant::now().into_std(),
            wall: clocks.wall + Duration::from_secs(86_400 + jump),
        });
        f.earn_belief().await;
        f.provider.queue([Step::Fail(PushError::TokenDoubted)]);
        let expected = if jump == 0 {
            Outcome::TokenDead
        } else {
            Outcome::TokenBlocked
        };
        assert_eq!(f.push("t").await, expected, "{jump}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_explain_blocks_the_token_for_a_while() {
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider.queue([Step::Fail(PushError::Unexplained)]);
    assert_eq!(f.push("t").await, Outcome::TokenBlocked);
    seconds(299).await;
    assert_eq!(f.settled("t"), Outcome::TokenBlocked);
    seconds(302).await;
    assert_eq!(f.push("t").await, Outcome::Accepted);
}

// Pauses.

#[tokio::test(start_paused = true)]
async fn a_paused_module_sends_nothing_and_then_goes_on() {
    let f = Fixture::new();
    assert_eq!(f.push("queued").await, Outcome::Accepted);
    assert_eq!(f.settled("queued"), Outcome::Queued);
    seconds(10).await;
    f.provider.queue([Step::Fail(pause(60))]);
    assert_eq!(f.at_once("t").await, Outcome::ProviderUnavailable);
    assert_eq!(f.settled("t"), Outcome::ProviderUnavailable);
    assert_eq!(f.settled("other"), Outcome::ProviderUnavailable);
    assert_eq!(f.settled("queued"), Outcome::ProviderUnavailable);
    seconds(59).await;
    assert_eq!(f.settled("other"), Outcome::ProviderUnavailable);
    assert_eq!((f.provider.count(), f.module.held()), (2, 1));
    seconds(2).await;
    assert_eq!(f.module.held(), 0);
    assert_about(f.times()[2], 70.0);
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.module.lost(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_never_shortened() {
    let f = Fixture::new();
    f.provider.queue([
        Step::SlowFail(1_000, pause(600)),
        Step::SlowFail(2_000, pause(10)),
    ]);
    let (one, two) = (f.publish("a"), f.publish("b"));
    assert_eq!(one.await.unwrap(), Outcome::ProviderUnavailable);
    assert_eq!(two.await.unwrap(), Outcome::ProviderUnavailable);
    seconds(590).await;
    assert_eq!(f.settled("c"), Outcome::ProviderUnavailable);
    seconds(10).await;
    assert_eq!(f.push("c").await, Outcome::Accepted);
}

#[tokio::test(start_paused = true)]
async fn a_pause_also_stops_those_in_the_line_and_those_between_two_attempts() {
    let f = Fixture::with(one_at_a_time(), Class::High);
    f.provider.queue([Step::SlowFail(1_000, pause(60))]);
    let all: Vec<_> = (0..11).map(|n| f.publish(&format!("{n}"))).collect();
    for outcome in all {
        assert_eq!(outcome.await.unwrap(), Outcome::ProviderUnavailable);
    }
    assert_eq!(f.provider.count(), 1, "who refuses everything is asked once");
    seconds(60).await;
    assert_eq!(f.push("1").await, Outcome::Accepted, "and they took no slot");

    let f = Fixture::new();
    f.provider
        .queue([Step::Fail(after(5)), Step::SlowFail(1_000, pause(60))]);
    let (retrying, pausing) = (f.publish("retrying"), f.publish("pausing"));
    assert_eq!(pausing.await.unwrap(), Outcome::ProviderUnavailable);
    assert_eq!(retrying.await.unwrap(), Outcome::ProviderUnavailable);
    assert_eq!(f.provider.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_queued_push_that_meets_the_pause_itself_waits_for_its_end() {
    let f = Fixture::new();
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.settled("t"), Outcome::Queued);
    f.provider.queue([Step::Fail(pause(60))]);
    seconds(100).await;
    let times = f.times();
    assert_eq!(times.len(), 3);
    assert_about(times[2], 80.0);
    assert_eq!(f.module.lost(), 0);
}

/// Its ten minutes begin with its first attempt, and there is none during the pause.
#[tokio::test(start_paused = true)]
async fn a_long_pause_takes_nothing_from_the_patience_with_a_queued_push() {
    let f = Fixture::new();
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.settled("t"), Outcome::Queued);
    f.provider
        .queue([Step::Fail(pause(3_600)), Step::Fail(LATER), Step::Fail(LATER)]);
    assert_eq!(f.push("u").await, Outcome::ProviderUnavailable);
    seconds(3_700).await;
    let sent = f.provider.attempts().into_iter();
    let sent = sent.filter(|a| a.token == "t").count();
    assert_eq!((sent, f.module.held(), f.module.lost()), (4, 0, 0));
}

// The end.

#[tokio::test(start_paused = true)]
async fn at_the_end_new_ones_are_refused_and_held_ones_sent_at_once() {
    let f = Fixture::new();
    for number in 0..50 {
        let token = format!("{number}");
        assert_eq!(f.push(&token).await, Outcome::Accepted);
        assert_eq!(f.settled(&token), Outcome::Queued);
    }
    f.provider.queue([Step::Fail(PushError::TokenBusy)]);
    assert_eq!(f.push("busy").await, Outcome::Queued);
    let end = Instant::now();
    f.drain.begin();
    assert_eq!(f.settled("new"), Outcome::ShuttingDown);
    f.drain.until_idle().await;
    assert_about(end.elapsed().as_secs_f64(), 0.0);
    assert_eq!(f.provider.count(), 50 + 1 + 51);
    assert_eq!((f.module.held(), f.module.lost()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn at_the_end_held_ones_are_tried_until_the_patience_is_over_and_counted() {
    let f = Fixture::new();
    f.earn_belief().await;
    for number in 0..3 {
        let token = format!("{number}");
        assert_eq!(f.push(&token).await, Outcome::Accepted);
        assert_eq!(f.settled(&token), Outcome::Queued);
    }
    f.provider.queue([Step::Fail(LATER), Step::Fail(GONE)]);
    f.provider.always(Step::Silence);
    let end = Instant::now();
    f.drain.begin();
    seconds(2).await;
    f.provider.always(Step::Take);
    seconds(5).await;
    f.drain.expire();
    f.drain.until_idle().await;
    // The first was sent at its second attempt at the latest, the second is dead, the third met silence.
    let taken = f.provider.attempts().into_iter();
    let taken = taken.filter(|a| matches!(a.answered, Some((_, Ok(()))))).count();
    assert_eq!(taken + f.module.lost() as usize, 3 + 2);
    assert!(f.module.lost() >= 1 && f.module.held() == 0);
    assert_about(end.elapsed().as_secs_f64(), 7.0);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_one_failure_is_not_the_last_attempt() {
    let f = Fixture::new();
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.settled("t"), Outcome::Queued);
    f.provider.queue([Step::Fail(LATER); 3]);
    f.drain.begin();
    f.drain.until_idle().await;
    assert_eq!((f.provider.count(), f.module.lost()), (1 + 4, 0));
    assert!(f.start.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_when_all_patience_ends_is_answered() {
    let f = Fixture::with(one_at_a_time(), Class::High);
    f.provider.always(Step::Silence);
    let (sending, waiting) = (f.publish("sending"), f.publish("waiting"));
    seconds(1).await;
    f.drain.begin();
    seconds(3).await;
    f.drain.expire();
    f.drain.until_idle().await;
    assert_eq!(sending.await.unwrap(), Outcome::ProviderUnavailable);
    // It may get the place that the other one leaves, at the last moment.
    assert!(matches!(
        waiting.await.unwrap(),
        Outcome::ProviderUnavailable | Outcome::Overloaded
    ));
    assert_about(f.start.elapsed().as_secs_f64(), 4.0);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_next_attempt_when_all_patience_ends_is_answered() {
    let f = Fixture::new();
    f.provider.always(Step::Fail(after(15)));
    let retrying = f.publish("t");
    seconds(1).await;
    f.drain.begin();
    f.drain.expire();
    assert_eq!(retrying.await.unwrap(), Outcome::ProviderUnavailable);
    assert_about(f.start.elapsed().as_secs_f64(), 1.0);
}

/// With one push at the provider at a time and a provider that is silent, one held push is at the provider,
/// one has been taken from the queue and stands in the line, the others are in the queue: each counts.
#[tokio::test(start_paused = true)]
async fn every_held_push_that_was_not_sent_is_counted() {
    let f = Fixture::with(one_at_a_time(), Class::High);
    for number in 0..20 {
        let token = format!("{number}");
        assert_eq!(f.push(&token).await, Outcome::Accepted);
        assert_eq!(f.settled(&token), Outcome::Queued);
    }
    f.provider.queue([Step::Take]);
    f.provider.always(Step::Silence);
    f.drain.begin();
    seconds(7).await;
    f.drain.expire();
    f.drain.until_idle().await;
    assert_eq!(f.module.lost() as usize + f.module.held(), 19);
}

/// The last permit is given back when all patience has ended: the push whose turn it would be then is of a blocked token.
#[tokio::test(start_paused = true)]
async fn a_held_push_of_a_blocked_token_is_counted_at_the_end_of_all_patience() {
    let f = Fixture::with(one_at_a_time(), Class::High);
    assert_eq!(f.push("silent").await, Outcome::Accepted);
    assert_eq!(f.settled("silent"), Outcome::Queued);
    f.provider.queue([Step::SlowFail(2_000, PushError::Unexplained)]);
    f.provider.always(Step::Silence);
    let blocked = f.publish("blocked");
    seconds(1).await;
    assert_eq!(f.settled("blocked"), Outcome::Queued);
    assert_eq!(blocked.await.unwrap(), Outcome::TokenBlocked);
    f.drain.begin();
    seconds(7).await;
    f.drain.expire();
    f.drain.until_idle().await;
    assert_eq!(f.module.lost() as usize + f.module.held(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_push_that_falls_due_as_the_end_begins_is_sent_all_the_same() {
    let f = Fixture::with(one_at_a_time(), Class::High);
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.settled("t"), Outcome::Queued);
    // The one at the provider and a full line, so that the push that is due finds no place.
    f.provider.always(Step::SlowTake(4_000));
    sleep_until(f.start + Duration::from_secs(20) - Duration::from_millis(10)).await;
    let others: Vec<_> = (0..11).map(|n| f.publish(&format!("{n}"))).collect();
    // Without a turn of the module in between.
    tokio::time::advance(Duration::from_millis(50)).await;
    f.provider.always(Step::Take);
    f.drain.begin();
    f.drain.until_idle().await;
    for other in others {
        assert!(matches!(
            other.await.unwrap(),
            Outcome::Accepted | Outcome::Overloaded
        ));
    }
    assert_eq!((f.module.held(), f.module.lost()), (0, 0));
    let sent = f
        .provider
        .attempts()
        .into_iter()
        .filter(|a| a.token == "t")
        .count();
    assert_eq!(sent, 2);
}

#[tokio::test(start_paused = true)]
async fn a_pause_does_not_keep_held_pushes_from_their_last_chance() {
    let f = Fixture::new();
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.settled("t"), Outcome::Queued);
    f.provider.queue([Step::Fail(pause(600))]);
    assert_eq!(f.push("u").await, Outcome::ProviderUnavailable);
    f.drain.begin();
    f.drain.until_idle().await;
    assert_eq!((f.provider.count(), f.module.lost()), (3, 0));
}

// Every publish, whatever the provider does.

#[derive(Clone, Debug)]
struct Story {
    max_in_flight: usize,
    script: Vec<Step>,
    publishes: Vec<(u8, u64)>,
    /// How long the provider goes on as scripted before the end begins.
    rest: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let error = prop_oneof![
        4 => Just(LATER),
        1 => (0..40u64).prop_map(after),
        2 => Just(PushError::TokenBusy),
        2 => Just(PushError::Reconnected),
        1 => Just(PushError::Renewed),
        1 => Just(PushError::TooLarge),
        1 => Just(PushError::Misconfigured),
        1 => Just(PushError::Unexplained),
        1 => Just(PushError::TokenUnserved),
        1 => Just(TOO_MANY),
        1 => Just(PushError::TokenDoubted),
        1 => Just(GONE),
        1 => (1..120u64).prop_map(pause),
    ];
    prop_oneof![
        6 => Just(Step::Take),
        2 => (1..40_000u64).prop_map(Step::SlowTake),
        6 => error.clone().prop_map(Step::Fail),
        2 => (1..40_000u64, error).prop_map(|(millis, error)| Step::SlowFail(millis, error)),
        1 => Just(Step::Silence),
    ]
}

fn story() -> impl Strategy<Value = Story> {
    (
        prop_oneof![Just(1usize), Just(2), Just(1_000)],
        prop::collection::vec(step(), 1..40),
        prop::collection::vec((0..4u8, 0..12_000u64), 1..60),
        prop_oneof![Just(0u64), Just(30), Just(3_000)],
    )
        .prop_map(|(max_in_flight, script, publishes, rest)| Story {
            max_in_flight,
            script,
            publishes,
            rest,
        })
}

/// One publish that was answered.
struct Answered {
    token: String,
    arrived: Instant,
    answered: Instant,
    outcome: Outcome,
}

async fn tell(story: Story) -> Result<(), TestCaseError> {
    let mut settings = settings();
    settings.max_in_flight = story.max_in_flight;
    let f = Fixture::with(settings, Class::High);
    f.provider.queue(story.script);
    let mut open = Vec::new();
    for (token, pause) in story.publishes {
        sleep(Duration::from_millis(pause)).await;
        let (token, arrived) = (token.to_string(), Instant::now());
        let outcome = f.publish(&token);
        open.push(tokio::spawn(async move {
            let outcome = outcome.await.unwrap();
            Answered {
                token,
                arrived,
                answered: Instant::now(),
                outcome,
            }
        }));
    }
    seconds(story.rest).await;
    f.drain.begin();
    let idle = tokio::time::timeout(Duration::from_secs(7), f.drain.until_idle()).await;
    if idle.is_err() {
        f.drain.expire();
        let last = tokio::time::timeout(Duration::from_secs(2), f.drain.until_idle()).await;
        prop_assert!(last.is_ok(), "somebody does not stop");
    }

    let mut answered = Vec::new();
    for open in open {
        answered.push(open.await.unwrap());
    }
    let attempts = f.provider.attempts();
    let (mut accepted, mut last_acknowledged) = (0, HashMap::new());
    for Answered {
        token,
        arrived,
        answered,
        outcome,
    } in answered
    {
        let took = answered - arrived;
        prop_assert!(
            took <= DEADLINE + Duration::from_millis(2),
            "{outcome:?} after {took:?}"
        );
        match outcome {
            Outcome::Accepted => accepted += 1,
            Outcome::Queued => {
                let last = last_acknowledged.entry(token).or_insert((answered, 0));
                *last = (last.0.max(answered), last.1 + 1);
            }
            _ => {}
        }
    }
    let taken = |a: &&Attempt| matches!(a.answered, Some((_, Ok(()))));
    let acknowledged: usize = last_acknowledged.values().map(|(_, count)| count).sum();
    let all_taken = attempts.iter().filter(taken).count();
    prop_assert!(accepted <= all_taken);
    prop_assert!(
        all_taken <= accepted + acknowledged,
        "each push is delivered once: {all_taken} of {accepted} and {acknowledged}"
    );
    // What was acknowledged last for a token was sent, or the token is dead, or it is counted.
    let mut missing = 0;
    for (token, (at, _)) in last_acknowledged {
        let taken_since = |a: &Attempt| {
            a.answered
                .is_some_and(|(when, result)| when >= at && result.is_ok())
        };
        let sent = attempts.iter().any(|a| a.token == token && taken_since(a));
        let view = f.module.inspect(&token, None, Instant::now(), SystemTime::now());
        let dead = view.and_then(|view| view.block).is_some_and(|block| block.dead);
        missing += u64::from(!sent && !dead);
    }
    let counted = f.module.lost() + f.module.held() as u64;
    prop_assert!(missing <= counted, "{missing} are missing, {counted} are counted");
    prop_assert!(counted <= acknowledged as u64);
    Ok(())
}

proptest! {
    #[test]
    fn every_publish_has_one_outcome_and_no_acknowledged_push_vanishes(story in story()) {
        let runtime = runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(tell(story))?;
    }
}

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
    fn delivered(&self) {
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
        record: Arc::<Device>::clone(device),
    }
}

fn to_registered<'a>(recipient: &'a Recipient, encrypted: Option<&'a Encrypted>) -> Request<'a> {
    Request {
        token: "t",
        choice: Choice::Registered,
        urgency: Urgency::High,
        domain: "a.example",
        registered: Some(Registered { recipient, encrypted }),
    }
}

#[tokio::test(start_paused = true)]
async fn a_registered_device_has_a_window_of_its_own_and_hears_of_its_pushes() {
    let f = Fixture::new();
    let device = Arc::new(Device::default());
    let recipient = recipient(&device);
    let push = || match f.module.admit(to_registered(&recipient, None), Instant::now()) {
        Admission::Admitted(admitted) => Ok(admitted),
        Admission::Answered(outcome) => Err(outcome),
    };
    f.provider.queue([Step::Fail(LATER), Step::Take]);
    let admitted = push().unwrap();
    assert_eq!(admitted.deliver().await, Outcome::Accepted);
    assert_eq!(
        (*device.failed.lock().unwrap(), *device.delivered.lock().unwrap()),
        (1, 1)
    );
    assert_eq!(push().unwrap_err(), Outcome::Queued);
    assert_eq!(push().unwrap_err(), Outcome::Refused);
    seconds(6).await;
    assert_eq!(
        f.provider.count(),
        3,
        "the queued one went out after 5 seconds, not after 20"
    );
    assert_eq!(*device.delivered.lock().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_registered_after_its_tokens_death_is_not_dead() {
    let f = Fixture::new();
    f.earn_belief().await;
    let device = Arc::new(Device {
        registered: 1_000,
        ..Device::default()
    });
    let recipient = recipient(&device);
    for (since, outcome) in [
        (Some(999), Outcome::TokenBlocked),
        (Some(1_001), Outcome::TokenDead),
        (None, Outcome::TokenDead),
    ] {
        f.provider.queue([Step::Fail(PushError::TokenGone { since })]);
        let Admission::Admitted(admitted) = f.module.admit(to_registered(&recipient, None), Instant::now())
        else {
            panic!("it is not blocked")
        };
        assert_eq!(admitted.deliver().await, outcome, "{since:?}");
        f.module.unblock("t");
    }
}

#[tokio::test(start_paused = true)]
async fn while_its_database_is_away_no_device_is_dead_and_its_token_is_not_blocked() {
    let f = Fixture::new();
    f.earn_belief().await;
    let device = Arc::new(Device {
        unavailable: true,
        ..Device::default()
    });
    let recipient = recipient(&device);
    for _ in 0..2 {
        f.provider
            .queue([Step::Fail(PushError::TokenGone { since: None })]);
        let Admission::Admitted(admitted) = f.module.admit(to_registered(&recipient, None), Instant::now())
        else {
            panic!("it is not blocked")
        };
        let outcome = admitted.deliver().await;
        assert_eq!(outcome, Outcome::RegistryUnavailable);
    }
}

#[tokio::test(start_paused = true)]
async fn a_setting_that_makes_every_token_foreign_costs_no_registration() {
    let f = Fixture::new();
    let device = Arc::new(Device::default());
    let recipient = recipient(&device);
    let request = Request {
        token: "foreign",
        ..to_registered(&recipient, None)
    };
    let verdict = f.module.admit(request, Instant::now());
    assert!(
        matches!(verdict, Admission::Answered(Outcome::TokenInvalid)),
        "{verdict:?}"
    );
}

/// Another provider and other settings, while the daemon runs.
mod replaced {
    use super::*;

    fn other() -> (Arc<Provider>, Box<Backend>) {
        let provider = Arc::<Provider>::default();
        let backend = Box::new(Backend {
            provider: Arc::clone(&provider),
            high: Class::High,
            digest: 1,
        });
        (provider, backend)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_ends_where_it_began_and_all_else_goes_to_the_new_provider() {
        let f = Fixture::new();
        f.provider.queue([Step::Take, Step::SlowTake(3_000)]);
        assert_eq!(f.push("a").await, Outcome::Accepted);
        assert_eq!(f.push("a").await, Outcome::Queued);
        let slow = f.publish("slow");
        seconds(1).await;
        let (provider, backend) = other();
        f.module.replace(backend, settings());
        assert_eq!(f.push("b").await, Outcome::Accepted);
        assert_eq!(slow.await.unwrap(), Outcome::Accepted);
        seconds(20).await;
        let tokens = |provider: &Provider| -> Vec<_> {
            provider
                .attempts()
                .into_iter()
                .map(|attempt| attempt.token)
                .collect()
        };
        assert_eq!(tokens(&f.provider), ["a", "slow"]);
        assert_eq!(tokens(&provider), ["b", "a"], "the queued push, too");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_time_left_is_not_sent_again_on_the_new_provider() {
        let f = Fixture::new();
        f.provider.always(Step::Silence);
        let silent = f.publish("a");
        seconds(1).await;
        let (provider, backend) = other();
        f.module.replace(backend, settings());
        assert_eq!(silent.await.unwrap(), Outcome::ProviderUnavailable);
        assert_eq!(provider.count(), 0, "its sender has the answer by then");
        assert_eq!(f.push("a").await, Outcome::Accepted, "it took no slot");
    }

    #[tokio::test(start_paused = true)]
    async fn limiter_and_block_list_stay_and_the_pause_does_not() {
        let f = Fixture::new();
        f.earn_belief().await;
        f.provider
            .queue([Step::Take, Step::Fail(GONE), Step::Fail(pause(60))]);
        assert_eq!(f.push("a").await, Outcome::Accepted);
        assert_eq!(f.push("dead").await, Outcome::TokenDead);
        assert_eq!(f.push("c").await, Outcome::ProviderUnavailable);
        let trouble = |f: &Fixture| f.module.status(Instant::now(), SystemTime::now()).trouble;
        assert_eq!(
            trouble(&f).map(|trouble| trouble.kind),
            Some(TroubleKind::Authentication)
        );
        let (_, backend) = other();
        f.module.replace(backend, settings());
        assert_eq!(trouble(&f), None);
        assert_eq!(f.push("c").await, Outcome::Accepted);
        assert_eq!(f.push("a").await, Outcome::Queued);
        assert_eq!(f.settled("dead"), Outcome::TokenDead);
    }

    /// It sends for another app, environment or project: what was said of tokens was said to somebody else.
    #[tokio::test(start_paused = true)]
    async fn under_another_digest_nothing_is_held_against_a_token() {
        let f = Fixture::new();
        f.earn_belief().await;
        f.provider.queue(WORDS.map(Step::Fail));
        assert_eq!(f.push("dead").await, Outcome::TokenDead);
        assert_eq!(f.push("wrong").await, Outcome::TokenBlocked);
        let (provider, mut backend) = other();
        backend.digest = 2;
        f.module.replace(backend, settings());
        for token in ["dead", "wrong"] {
            assert_eq!(f.push(token).await, Outcome::Accepted, "{token}");
        }
        provider.queue([Step::Fail(GONE)]);
        assert_eq!(
            f.push("next").await,
            Outcome::TokenBlocked,
            "nobody knows how it works"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_retired_module_sends_what_it_holds_and_then_ends() {
        let f = Fixture::new();
        assert_eq!(f.push("a").await, Outcome::Accepted);
        assert_eq!(f.push("a").await, Outcome::Queued);
        f.module.retire();
        seconds(15).await;
        assert!(!f.module.has_ended());
        seconds(7).await;
        assert_eq!(f.provider.count(), 2);
        assert!(f.module.has_ended());
        assert!(!f.module.resume(), "too late");
        assert_eq!(f.settled("b"), Outcome::ShuttingDown);
        f.drain.begin();
        f.drain.until_idle().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_module_that_is_wanted_again_goes_on() {
        let f = Fixture::new();
        assert_eq!(f.push("a").await, Outcome::Accepted);
        assert_eq!(f.push("a").await, Outcome::Queued);
        f.module.retire();
        seconds(15).await;
        assert!(f.module.resume());
        seconds(15).await;
        assert!(!f.module.has_ended());
        assert_eq!(f.provider.count(), 2);
        assert_eq!(
            f.push("a").await,
            Outcome::Queued,
            "the queued one began a window"
        );
        seconds(30).await;
        assert_eq!(f.provider.count(), 3, "it still runs");
    }

    /// Wrong credentials, topic or environment made it fail, as likely as not.
    #[tokio::test(start_paused = true)]
    async fn what_the_old_provider_refuses_goes_to_the_new_one_and_says_nothing_of_that() {
        for refused in [
            GONE,
            PushError::TokenDoubted,
            PushError::Misconfigured,
            PushError::Unexplained,
            PushError::TokenBusy,
            PushError::TokenUnserved,
            TOO_MANY,
            LATER,
            pause(60),
        ] {
            let f = Fixture::new();
            f.earn_belief().await;
            f.provider.queue([Step::SlowFail(3_000, refused)]);
            let slow = f.publish("slow");
            seconds(1).await;
            let (provider, backend) = other();
            f.module.replace(backend, settings());
            assert_eq!(slow.await.unwrap(), Outcome::Accepted, "{refused:?}");
            assert_eq!((f.provider.count(), provider.count()), (1, 1), "{refused:?}");
            let status = f.module.status(Instant::now(), SystemTime::now());
            assert_eq!((status.trouble, status.blocked_tokens), (None, 0), "{refused:?}");
            assert_eq!(f.push("next").await, Outcome::Accepted, "{refused:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_old_provider_accepts_says_nothing_of_the_new_one() {
        let f = Fixture::new();
        f.provider.always(Step::SlowTake(3_000));
        let slow: Vec<_> = (0..20).map(|number| f.publish(&format!("{number}"))).collect();
        seconds(1).await;
        let (provider, backend) = other();
        f.module.replace(backend, settings());
        for push in slow {
            assert_eq!(push.await.unwrap(), Outcome::Accepted);
        }
        provider.queue([Step::Fail(GONE)]);
        assert_eq!(f.push("d").await, Outcome::TokenBlocked, "it is not believed yet");
    }

    #[tokio::test(start_paused = true)]
    async fn more_pushes_may_be_at_the_new_provider() {
        let f = Fixture::with(one_at_a_time(), Class::High);
        f.provider.always(Step::SlowTake(4_000));
        let pushes: Vec<_> = ["a", "b", "c"].map(|token| f.publish(token)).into();
        seconds(1).await;
        assert_eq!(f.provider.most_under_way(), 1);
        let (provider, backend) = other();
        provider.always(Step::SlowTake(1_000));
        f.module.replace(backend, settings());
        for push in pushes {
            assert_eq!(push.await.unwrap(), Outcome::Accepted);
        }
        assert_eq!(provider.most_under_way(), 2);
    }
}

/// What is written down and read again.
mod remembered {
    use super::*;

    /// A module that knows what another one knew, as after a new start.
    fn started_again(f: &Fixture) -> Fixture {
        started_again_with(f, clocks())
    }

    /// The same with a clock that was wrong when things were written down.
    fn started_again_with(f: &Fixture, written: Clocks) -> Fixture {
        let hasher = TokenHasher::with_key(f.module.senders.hasher().key());
        let provider = Arc::<Provider>::default();
        let drain = Drain::default();
        let backend = Box::new(Backend {
            provider: Arc::clone(&provider),
            high: Class::High,
            digest: 1,
        });
        let module = Module::new("m", backend, settings(), Senders::new(hasher), drain.clone());
        let held: Vec<HeldRecord> =
            serde_json::from_str(&serde_json::to_string(&held_records(&f.module, written)).unwrap()).unwrap();
        let blocks: Vec<BlockRecord> =
            serde_json::from_str(&serde_json::to_string(&f.module.blocks(0, written).0).unwrap()).unwrap();
        let (mut verdicts, mut from) = (Vec::new(), Some(VerdictPlace::default()));
        while let Some(place) = from {
            let part;
            (part, from) = f.module.verdicts(place, clocks());
            verdicts.extend(part);
        }
        module.remember(blocks, held, verdicts, clocks());
        drain.spawn(Arc::clone(&module).run(Liveness::new().probe("m")));
        Fixture {
            module,
            provider,
            drain,
            start: Instant::now(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn queued_pushes_go_out_when_their_time_has_come() {
        let f = Fixture::new();
        assert_eq!(f.push("a").await, Outcome::Accepted);
        assert_eq!(f.push("a").await, Outcome::Queued);
        seconds(5).await;
        let again = started_again(&f);
        assert_eq!(again.settled("a"), Outcome::Refused, "one is queued already");
        seconds(30).await;
        let times = again.times();
        assert_eq!(times.len(), 1);
        assert_about(times[0], 15.0);
    }

    #[tokio::test(start_paused = true)]
    async fn dead_tokens_stay_dead() {
        let f = Fixture::new();
        f.earn_belief().await;
        f.provider.queue([Step::Fail(GONE)]);
        assert_eq!(f.push("dead").await, Outcome::TokenDead);
        let again = started_again(&f);
        assert_eq!(again.settled("dead"), Outcome::TokenDead);
        assert_eq!(again.push("living").await, Outcome::Accepted);
        assert_eq!(f.module.changes()[0], 1);
        seconds(60 * 60 * 25).await;
        assert_eq!(again.push("dead").await, Outcome::Accepted);
    }

    /// The clock was a year ahead when it was written.
    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_wrong_delays_no_push_for_long() {
        let f = Fixture::new();
        let clocks = clocks();
        let wrong = Clocks {
            wall: clocks.wall + Duration::from_secs(365 * 86_400),
            ..clocks
        };
        assert_eq!(f.push("a").await, Outcome::Accepted);
        assert_eq!(f.push("a").await, Outcome::Queued);
        let again = started_again_with(&f, wrong);
        again.provider.always(Step::Fail(LATER));
        seconds(601).await;
        assert!(again.provider.count() > 0);
        seconds(2_000).await;
        assert_eq!((again.module.held(), again.module.lost()), (0, 1), "not for ever");
    }

    /// That it has registered anew may have been forgotten, or another process may have been told.
    #[tokio::test(start_paused = true)]
    async fn a_registered_device_is_not_dead_whatever_was_written() {
        let f = Fixture::new();
        f.earn_belief().await;
        f.provider.queue([Step::Fail(GONE)]);
        assert_eq!(f.push("t").await, Outcome::TokenDead);
        let again = started_again(&f);
        assert_eq!(again.settled("t"), Outcome::TokenDead);
        let device = Arc::new(Device::default());
        let recipient = recipient(&device);
        let Admission::Admitted(admitted) = again
            .module
            .admit(to_registered(&recipient, None), Instant::now())
        else {
            panic!("it is dead")
        };
        let outcome = admitted.deliver().await;
        assert_eq!(outcome, Outcome::Accepted);
    }

    /// There is the next start to send them: the provider is not pressed.
    #[tokio::test(start_paused = true)]
    async fn at_the_end_each_is_tried_once_and_none_during_a_pause() {
        for (answer, attempts) in [(LATER, 2), (pause(600), 2), (PushError::TokenBusy, 2)] {
            let f = Fixture::new();
            f.module.keep_held();
            assert_eq!(f.push("a").await, Outcome::Accepted);
            assert_eq!(f.push("a").await, Outcome::Queued);
            f.provider.always(Step::Fail(answer));
            f.drain.begin();
            f.drain.until_idle().await;
            assert_eq!(f.provider.count(), attempts, "{answer:?}");
            assert_eq!((f.module.held(), f.module.lost()), (1, 0), "{answer:?}");
        }
        let f = Fixture::new();
        f.module.keep_held();
        assert_eq!(f.push("a").await, Outcome::Accepted);
        assert_eq!(f.push("a").await, Outcome::Queued);
        f.provider.queue([Step::Fail(pause(600))]);
        assert_eq!(f.push("b").await, Outcome::ProviderUnavailable);
        f.drain.begin();
        f.drain.until_idle().await;
        assert_eq!((f.provider.count(), f.module.held(), f.module.lost()), (2, 1, 0));
    }

    /// Nobody knows whether the provider got it: twice is better than never.
    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_is_held_until_the_provider_has_answered() {
        let f = Fixture::new();
        assert_eq!(f.push("a").await, Outcome::Accepted);
        assert_eq!(f.push("a").await, Outcome::Queued);
        f.provider.queue([Step::SlowTake(10_000)]);
        seconds(25).await;
        assert_eq!(f.provider.count(), 2);
        assert_eq!((f.module.held(), held_records(&f.module, clocks()).len()), (1, 1));
        seconds(10).await;
        assert_eq!((f.module.held(), held_records(&f.module, clocks()).len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn no_token_is_in_what_a_record_prints() {
        let f = Fixture::new();
        f.push("s3cret").await;
        assert_eq!(f.push("s3cret").await, Outcome::Queued);
        let records = held_records(&f.module, clocks());
        assert!(!format!("{records:?}").contains("s3cret"));
    }
}

mod tried_out {
    use super::*;

    /// The operator has mended something at the provider.
    #[tokio::test(start_paused = true)]
    async fn credentials_that_the_provider_accepts_again_end_the_pause() {
        let f = Fixture::new();
        f.provider.queue([Step::Fail(pause(600))]);
        assert_eq!(f.push("a").await, Outcome::ProviderUnavailable);
        assert_eq!(f.settled("a"), Outcome::ProviderUnavailable);
        assert!(f.module.verify(Instant::now()).await.is_ok());
        assert_eq!(f.push("a").await, Outcome::Accepted);
    }

    #[tokio::test(start_paused = true)]
    async fn the_operators_push_goes_out_whatever_the_limiter_says_and_leaves_no_trace() {
        let f = Fixture::new();
        assert_eq!(f.push("a").await, Outcome::Accepted);
        assert!(matches!(
            f.module.try_out("a", Urgency::High).await,
            Ok(Class::High)
        ));
        f.provider.queue([Step::Fail(GONE)]);
        let refused = f.module.try_out("b", Urgency::Low).await;
        assert!(matches!(refused, Err(NotSent::Refused(failure)) if failure.error == GONE));
        assert_eq!(f.push("b").await, Outcome::Accepted, "nothing is held against it");
        let no_token = f.module.try_out("foreign", Urgency::High).await;
        assert!(matches!(no_token, Err(NotSent::Token)));
        f.provider.queue([
            Step::Fail(PushError::Reconnected),
            Step::Fail(PushError::TooLarge),
        ]);
        assert!(f.module.try_out("c", Urgency::High).await.is_ok());
        assert_eq!(f.provider.attempts().last().unwrap().form, Form::Minimal);
    }
}

fn held_records(module: &Module, clocks: Clocks) -> Vec<HeldRecord> {
    let (records, next) = module.held_records(0, clocks);
    assert_eq!(next, None, "one part is enough for a test");
    records.into_iter().map(|(_, record)| record).collect()
}
