//! What it costs to decide about a publish.

use std::{borrow::Cow, hint::black_box, sync::Arc, time::Duration};

use criterion::Criterion;
use fpush_driver::{Admission, Drain, Module, Senders, clocks};
use fpush_policy::{Decision, ModuleSettings, Policy, Publish, RatelimitSettings, SenderDomain, Target};
use fpush_push::{
    BackendStatus, Choice, Class, Failure, Fingerprint, LaneId, Outcome, Push, PushError, PushTrait, Request,
    Sending, TokenHasher, Urgency, Verifying,
    settings::{Report, Section},
};
use tokio::{runtime, time::Instant};

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    decide(&mut criterion);
    limit(&mut criterion);
    criterion.final_summary();
}

/// Time passes as if 50,000 publishes came in a second, and tokens are forgotten after 20 s: so a million of them
/// are remembered, and each new one is the end of an old one.
const KNOWN: u64 = 1_000_000;
const PACE: Duration = Duration::from_micros(20);

fn ratelimit() -> RatelimitSettings {
    RatelimitSettings {
        spacing: Duration::from_secs(1),
        cleanup: Duration::from_secs(20),
        ..settings().ratelimit
    }
}

fn decide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");

    let (module, mut now, mut number) = (new_module(), Instant::now(), 0);
    let mut admit_new = || {
        (now, number) = (now + PACE, number + 1);
        admit(&module, &token(number), now)
    };
    let goes_out = |admission: &Admission| matches!(admission, Admission::Admitted(_));
    assert!((0..KNOWN).all(|_| goes_out(&admit_new())));
    group.bench_function("a new token", |bencher| bencher.iter(&mut admit_new));

    let (inside, then) = (token(KNOWN / 2), Instant::now());
    let fresh = new_module();
    assert!(goes_out(&admit(&fresh, &inside, then)));
    assert!(matches!(
        admit(&fresh, &inside, then),
        Admission::Answered(Outcome::Queued)
    ));
    group.bench_function("a token inside its window, one push queued", |bencher| {
        bencher.iter(|| admit(&fresh, black_box(&inside), then));
    });

    let (module, now) = (new_module(), Instant::now());
    block_all(&module, now);
    let mut number = 0;
    let mut admit_blocked = || {
        number = number % KNOWN + 1;
        admit(&module, &token(number), now)
    };
    assert!(matches!(
        admit_blocked(),
        Admission::Answered(Outcome::TokenBlocked)
    ));
    group.bench_function("a blocked token", |bencher| bencher.iter(&mut admit_blocked));
    group.finish();
}

fn limit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy");
    let hasher = TokenHasher::new().expect("there is randomness");
    let sender = SenderDomain::new("a.example", &hasher);
    // Twice as many as are remembered, so that the first ones are new again behind the last.
    let fingerprints: Vec<Fingerprint> = (0..2 * KNOWN)
        .map(|number| hasher.fingerprint(&token(number)))
        .collect();
    let policy = || {
        let settings = ModuleSettings {
            ratelimit: ratelimit(),
            ..settings()
        };
        Policy::<()>::new(settings, 0, clocks())
    };
    let publish = |policy: &mut Policy<()>, token, now: std::time::Instant| {
        let publish = Publish {
            target: Target {
                key: token,
                token,
                class: Class::High,
            },
            lane: LaneId::Main,
            registered: false,
            spacing: None,
            time_to_live: Duration::MAX,
            sender: &sender,
        };
        matches!(policy.publish(&publish, now), Decision::Send { .. })
    };

    let (mut now, mut new) = (clocks().now, policy());
    let mut next = fingerprints.iter().copied().cycle();
    let mut publish_new = || {
        now += PACE;
        next.next().map(|token| publish(&mut new, token, now))
    };
    assert!((0..KNOWN).all(|_| publish_new() == Some(true)));
    group.bench_function("a new token", |bencher| bencher.iter(&mut publish_new));

    let (now, mut full) = (clocks().now, policy());
    for token in &fingerprints[..KNOWN as usize] {
        publish(&mut full, *token, now);
    }
    let mut next = fingerprints[..KNOWN as usize].iter().copied().cycle();
    let mut publish_known = || next.next().map(|token| publish(&mut full, token, now));
    assert!((0..KNOWN).all(|_| publish_known() == Some(false)));
    group.bench_function("a token inside its window", |bencher| {
        bencher.iter(&mut publish_known);
    });
    let token = token(0);
    group.bench_function("fingerprint of a token", |bencher| {
        bencher.iter(|| hasher.fingerprint(black_box(&token)));
    });
    group.finish();
}

fn admit(module: &Arc<Module>, token: &str, now: Instant) -> Admission {
    let request = Request {
        token,
        choice: Choice::Named,
        urgency: Urgency::High,
        count: None,
        domain: "a.example",
        registered: None,
    };
    module.admit(request, now)
}

/// A token as long as Apple's.
fn token(number: u64) -> String {
    const LENGTH: usize = 64;
    let mut token = String::with_capacity(LENGTH);
    for place in (0..16).rev() {
        token.push(char::from(
            b"0123456789abcdef"[(number >> (4 * place)) as usize & 15],
        ));
    }
    token.push_str("c0ffee42c0ffee42c0ffee42c0ffee42c0ffee42c0ffee42");
    token
}

/// Has its provider declare all tokens dead, which is not believed.
fn block_all(module: &Arc<Module>, now: Instant) {
    let runtime = runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("there is a runtime").block_on(async {
        for number in 1..=KNOWN {
            let Admission::Admitted(admitted) = admit(module, &token(number), now) else {
                panic!("nothing is known of it yet");
            };
            assert_eq!(admitted.deliver().await, Outcome::TokenBlocked);
        }
    });
}

fn new_module() -> Arc<Module> {
    let settings = ModuleSettings {
        ratelimit: ratelimit(),
        ..settings()
    };
    let hasher = TokenHasher::new().expect("there is randomness");
    Module::new(
        "apple",
        Box::new(Graveyard),
        settings,
        Senders::new(hasher),
        Drain::default(),
    )
}

/// As they are where the settings do not say anything.
fn settings() -> ModuleSettings {
    let (report, empty) = (Report::default(), serde_json::Map::new());
    ModuleSettings::read(&mut Section::root(&empty, &report))
}

/// A provider that knows no living token.
struct Graveyard;

impl PushTrait for Graveyard {
    fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
        let known = token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
        known.then_some(Cow::Borrowed(token))
    }

    fn class(&self, _urgency: Urgency) -> Class {
        Class::High
    }

    fn send<'a>(&'a self, _push: &'a Push) -> Sending<'a> {
        Box::pin(async {
            Err(Failure::new(
                PushError::TokenGone { since: None },
                "gone",
                "gone",
                "",
            ))
        })
    }

    fn verify(&self, _deadline: std::time::Instant) -> Verifying<'_> {
        Box::pin(async { Ok("nothing to prove".into()) })
    }

    fn status(&self) -> BackendStatus {
        BackendStatus::default()
    }
}
