use std::{collections::BTreeSet, time::SystemTime};

use super::*;
use crate::{
    attempts::{Notice, Tries},
    known::LastAccepted,
    policy::{Decision, HeldEnd, HoldUntil, Publish, Turn, VerdictPlace},
    records::Clocks,
    testing::{fingerprint, job_of, settings},
};

/// A module with several lanes, on a clock of its own.
struct Fixture {
    policy: Policy<u64>,
    clocks: Clocks,
}

const APPLE: LaneId = LaneId::Vendor(1);
const GOOGLE: LaneId = LaneId::Vendor(2);
const GONE: PushError = PushError::TokenGone { since: None };
const LATER: PushError = PushError::Later { after: None };
const HOUR: u64 = 3_600;

fn server(name: &str) -> LaneId {
    LaneId::Origin(fingerprint(name))
}

fn job(lane: LaneId, token: &str) -> Box<PushJob> {
    let mut job = job_of("a.org", token);
    job.lane = lane;
    // What `publish` decides.
    job.worth_until = None;
    let sender = job.sender.accepted(LastAccepted::Lately);
    job.sender = sender.into();
    job
}

impl Fixture {
    fn new() -> Self {
        let clocks = Clocks {
            now: Instant::now(),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        };
        Self {
            policy: Policy::new(settings(), 0, clocks),
            clocks,
        }
    }

    fn pass(&mut self, seconds: u64) {
        let passed = Duration::from_secs(seconds);
        self.clocks.now += passed;
        self.clocks.wall += passed;
        self.policy.follow_clock(self.clocks);
    }

    fn publish(&mut self, lane: LaneId, token: &str) -> Decision {
        let job = job(lane, token);
        let publish = Publish {
            target: job.target(),
            lane,
            registered: false,
            spacing: None,
            time_to_live: Duration::MAX,
            sender: &job.sender,
        };
        self.policy.publish(&publish, self.clocks.now)
    }

    fn answer(&mut self, lane: LaneId, token: &str, answer: Result<(), PushError>) -> Answered {
        self.answer_to(job(lane, token), answer)
    }

    fn answer_to(&mut self, mut job: Box<PushJob>, answer: Result<(), PushError>) -> Answered {
        let now = self.clocks.now;
        let failure = answer
            .err()
            .map(|error| Failure::new(error, "reason", "answer", ""));
        let answer = failure.as_ref().map_or(Ok(()), Err);
        let (generation, mut tries) = (self.policy.generation(), Tries::new(now, 0));
        self.policy
            .answered(&mut job, &mut tries, answer, generation, now, 0.0)
    }

    fn is_dead(&mut self, lane: LaneId, token: &str, error: PushError) -> bool {
        let answered = self.answer(lane, token, Err(error));
        matches!(answered.next, Next::Dead { .. })
    }

    /// As after a restart.
    fn restart(&mut self) {
        let (mut records, mut from) = (Vec::new(), Some(VerdictPlace::default()));
        while let Some(place) = from {
            let (part, next) = self.policy.verdicts(place, self.clocks.now);
            records.extend(part);
            from = next;
        }
        let written = serde_json::to_string(&records).unwrap();
        self.policy = Policy::new(settings(), 0, self.clocks);
        let read: Vec<_> = serde_json::from_str(&written).unwrap();
        self.policy.remember([], read, self.clocks);
    }
}

#[test]
fn a_vendor_that_refuses_everything_pauses_alone_and_kills_nobody() {
    let mut f = Fixture::new();
    for number in 0..20 {
        let token = format!("of Apple {number}");
        f.answer(APPLE, &token, Ok(()));
        f.answer(GOOGLE, &format!("of Google {number}"), Ok(()));
    }
    for day in 0..5 {
        for number in 0..200 {
            let token = format!("of Google {number}");
            assert!(!f.is_dead(GOOGLE, &token, PushError::TokenDoubted), "day {day}");
        }
        for number in 0..20 {
            f.answer(APPLE, &format!("of Apple {number}"), Ok(()));
        }
        f.pass(24 * HOUR);
    }
    assert!(
        f.policy.view(f.clocks.now).condition > Condition::Well,
        "the operator sees it"
    );
    for number in 0..20 {
        f.answer(APPLE, &format!("of Apple {number}"), Ok(()));
    }
    assert!(f.is_dead(APPLE, "gone", GONE), "Apple is as it was");
    let pause = PushError::Pause {
        length: Duration::from_secs(60),
        alarm: true,
    };
    let answered = f.answer(GOOGLE, "x", Err(pause));
    assert!(matches!(
        answered.notice,
        Some(Notice::Paused { alarm: true, .. })
    ));
    let unavailable = Decision::Answer(Outcome::ProviderUnavailable);
    assert_eq!(f.publish(GOOGLE, "y"), unavailable);
    assert!(matches!(f.publish(APPLE, "y of Apple"), Decision::Send { .. }));
    let trouble = f.policy.view(f.clocks.now).trouble;
    assert_eq!(trouble.map(|(kind, _)| kind), Some(TroubleKind::Authentication));
}

/// What a wrong key looks like: nobody's token dies, and the operator hears of it.
#[test]
fn a_key_that_a_vendor_refuses_for_several_domains_is_trouble_until_a_push_is_accepted() {
    let mut f = Fixture::new();
    let kind = |f: &mut Fixture| f.policy.view(f.clocks.now).trouble.map(|(kind, _)| kind);
    let refuse = |f: &mut Fixture, domain: &str, token: &str| {
        let mut job = job_of(domain, token);
        job.lane = GOOGLE;
        let failure = Failure::new(PushError::TokenDoubted, "forbidden", "403", "the key");
        let (generation, now) = (f.policy.generation(), f.clocks.now);
        let mut tries = Tries::new(now, 0);
        let answered = f
            .policy
            .answered(&mut job, &mut tries, Err(&failure), generation, now, 0.0);
        answered.notice == Some(Notice::KeyRefused)
    };
    for number in 0..50 {
        assert!(!refuse(&mut f, "stranger.org", &number.to_string()));
    }
    assert_eq!(kind(&mut f), None, "one domain's own tokens, perhaps");
    assert!(!f.policy.view(f.clocks.now).proven);
    assert!(refuse(&mut f, "b.org", "x"), "the operator is told");
    assert!(!refuse(&mut f, "b.org", "y"), "once");
    assert_eq!(kind(&mut f), Some(TroubleKind::Authentication));
    f.answer(APPLE, "y", Ok(()));
    assert_eq!(
        kind(&mut f),
        Some(TroubleKind::Authentication),
        "Apple is not asked"
    );
    f.answer(GOOGLE, "z", Ok(()));
    assert_eq!(kind(&mut f), None);
    assert!(f.policy.view(f.clocks.now).proven);
}

#[test]
fn an_outage_that_one_domain_alone_meets_is_not_the_vendors() {
    let mut f = Fixture::new();
    for number in 0..20 {
        f.answer(GOOGLE, &number.to_string(), Err(LATER));
    }
    assert_eq!(f.policy.view(f.clocks.now).trouble, None);
    let mut job = job_of("b.org", "x");
    job.lane = GOOGLE;
    let failure = Failure::new(LATER, "unreachable", "no connection", "");
    let (generation, now) = (f.policy.generation(), f.clocks.now);
    f.policy.answered(
        &mut job,
        &mut Tries::new(now, 0),
        Err(&failure),
        generation,
        now,
        0.0,
    );
    let trouble = f.policy.view(now).trouble;
    assert_eq!(trouble.map(|(kind, _)| kind), Some(TroubleKind::Provider));
}

/// Names below a vendor's domain can be invented: that nobody is there is no outage of the vendor's, however many domains say so,
/// and no end of one that it has.
#[test]
fn hosts_that_never_accepted_anything_say_nothing_of_their_vendor() {
    let mut f = Fixture::new();
    let away = PushError::HostAway { after: None };
    let mut meet = |error, names: &[&str]| {
        for name in names {
            let mut job = job_of(&format!("{name}.org"), name);
            job.lane = GOOGLE;
            let answered = f.answer_to(job, Err(error));
            let is_told = answered.notice == Some(Notice::NotTaken);
            assert_eq!(is_told, error == LATER);
            assert!(matches!(answered.next, Next::Ended(Ended::Failed { .. })));
        }
        f.policy.view(f.clocks.now).trouble.map(|(kind, _)| kind)
    };
    assert_eq!(meet(away, &["a", "b", "c", "d", "e", "f"]), None);
    assert_eq!(meet(LATER, &["g", "h"]), None);
    assert_eq!(meet(LATER, &["i"]), Some(TroubleKind::Provider));
    assert_eq!(meet(away, &["k"]), Some(TroubleKind::Provider), "it goes on");
}

#[test]
fn a_calm_vendor_is_believed_at_once_whatever_another_one_says() {
    let mut f = Fixture::new();
    for number in 0..20 {
        f.answer(APPLE, &format!("of Apple {number}"), Ok(()));
        f.answer(
            GOOGLE,
            &format!("of Google {number}"),
            Err(PushError::TokenDoubted),
        );
    }
    assert!(f.is_dead(APPLE, "gone", GONE));
    assert!(!f.is_dead(GOOGLE, "gone, it says", GONE));
    f.restart();
    f.answer(APPLE, "of Apple 0", Ok(()));
    assert!(f.is_dead(APPLE, "gone, too", GONE), "it outlasts a restart");
    assert!(!f.is_dead(GOOGLE, "gone, it says", GONE));
}

#[test]
fn a_strangers_server_speaks_for_its_own_receivers_and_only_over_time() {
    let (mut f, lane) = (Fixture::new(), server("https://up.example"));
    assert!(!f.is_dead(lane, "gone", GONE));
    assert!(!f.is_dead(lane, "unknown", PushError::TokenDoubted));
    f.pass(HOUR - 1);
    assert!(!f.is_dead(lane, "gone", GONE));
    f.restart();
    f.pass(1);
    assert!(
        f.is_dead(lane, "gone", GONE),
        "an hour after the first word, over a restart"
    );
    assert!(!f.is_dead(lane, "unknown", PushError::TokenDoubted));
    assert!(
        !f.is_dead(lane, "unknown", GONE),
        "a word that was in doubt is not a first one"
    );
    f.pass(HOUR);
    assert!(f.is_dead(lane, "unknown", GONE));
    assert!(!f.is_dead(lane, "not found", PushError::TokenDoubted));
    f.pass(24 * HOUR - 1);
    assert!(!f.is_dead(lane, "not found", PushError::TokenDoubted));
    f.pass(1);
    assert!(f.is_dead(lane, "not found", PushError::TokenDoubted), "a day");
    for _ in 0..10 {
        assert!(!f.is_dead(lane, "forbidden", PushError::TokenUnserved));
        f.pass(24 * HOUR);
    }
}

/// Their senders sign for themselves, each in a lane of its own; but the provider is one.
#[test]
fn an_incident_of_a_vendor_ends_few_of_those_for_whom_their_senders_sign() {
    for (vendor, most) in [(Some(1), 10), (None, 60)] {
        let (mut f, mut dead) = (Fixture::new(), BTreeSet::new());
        for answer in [Ok(()), Err(GONE), Err(GONE), Err(GONE)] {
            for token in 0..60 {
                let mut job = job(server(&format!("of sender {}", token % 6)), &format!("t{token}"));
                job.vendor = vendor;
                let answered = f.answer_to(job, answer);
                if matches!(answered.next, Next::Dead { .. }) {
                    dead.insert(token);
                }
            }
            f.pass(2 * HOUR);
        }
        let dead = dead.len();
        assert!(
            dead <= most && (vendor.is_some() || dead == 60),
            "{vendor:?}: {dead}"
        );
    }
    // One that is gone goes at once while the others are accepted.
    let mut f = Fixture::new();
    let mut gone = |token: &str, answer| {
        let mut job = job(server("of a sender"), token);
        job.vendor = Some(1);
        matches!(f.answer_to(job, answer).next, Next::Dead { .. })
    };
    for token in 0..10 {
        gone(&format!("t{token}"), Ok(()));
    }
    assert!(gone("gone", Err(GONE)));
}

/// A stranger with thousands of origins makes no device die later, and none that is alive die.
#[test]
fn no_first_word_is_forgotten_with_its_origin_and_a_success_lifts_it() {
    let (mut f, lane) = (Fixture::new(), server("https://up.example"));
    for token in ["gone", "alive"] {
        f.answer(lane, token, Err(GONE));
    }
    for number in 0..11_000 {
        f.answer(server(&format!("https://up{number}.example")), "x", Err(LATER));
    }
    f.answer(lane, "alive", Ok(()));
    f.pass(HOUR);
    assert!(f.is_dead(lane, "gone", GONE));
    assert!(!f.is_dead(lane, "alive", GONE));
}

#[test]
fn a_strangers_dead_server_is_left_alone_and_nothing_is_the_modules_trouble() {
    let mut f = Fixture::new();
    let (dead, well) = (server("https://dead.example"), server("https://well.example"));
    for (number, error) in [
        LATER,
        PushError::Misconfigured,
        PushError::TooLarge,
        PushError::Unexplained,
        PushError::TokenUnserved,
        PushError::TokenDoubted,
        GONE,
        PushError::Reconnected,
        PushError::Pause {
            length: Duration::from_secs(86_400),
            alarm: true,
        },
    ]
    .into_iter()
    .cycle()
    .take(90)
    .enumerate()
    {
        let answered = f.answer(dead, &format!("token {number}"), Err(error));
        assert!(
            matches!(answered.notice, None | Some(Notice::TooLarge)),
            "{error:?}: {answered:?}"
        );
        assert!(
            !matches!(answered.next, Next::Dead { .. } | Next::After { .. }),
            "{error:?}"
        );
    }
    f.answer(dead, "x", Err(LATER));
    let unavailable = Decision::Answer(Outcome::ProviderUnavailable);
    assert_eq!(f.publish(dead, "y"), unavailable);
    assert!(matches!(f.publish(well, "z"), Decision::Send { .. }));
    let view = f.policy.view(f.clocks.now);
    assert_eq!((view.trouble, view.condition), (None, Condition::Well));
    assert!(!view.proven);
    f.pass(450);
    assert!(
        matches!(f.publish(dead, "y"), Decision::Send { .. }),
        "five minutes at most"
    );
}

#[test]
fn a_held_push_waits_while_its_server_is_away_and_is_nobodys_loss_in_the_end() {
    let (mut f, lane) = (Fixture::new(), server("https://up.example"));
    let due = f.clocks.now + Duration::from_secs(5);
    f.policy.hold(job(lane, "t"), HoldUntil::Due(due));
    f.pass(4);
    f.answer(lane, "other", Err(LATER));
    f.answer(server("https://well.example"), "other", Ok(()));
    let mut attempts = 0;
    loop {
        while f.policy.make_due(f.clocks.now) {}
        match f.policy.grant(f.clocks.now) {
            Some(Grant::Held(attempt)) => {
                attempts += 1;
                let ended = f.answer(lane, "t", Err(LATER));
                let Next::Ended(ended) = ended.next else {
                    panic!("{ended:?}");
                };
                let end = f
                    .policy
                    .held_ended(attempt.number, attempt.slot, &ended, f.clocks.now);
                f.policy.give_back_permit(lane);
                if let Some(end) = end {
                    assert_eq!(end, HeldEnd::Unreached);
                    break;
                }
            }
            Some(other) => panic!("{other:?}"),
            None => f.pass(1),
        }
    }
    assert!((5..20).contains(&attempts), "{attempts}");
    assert!(f.policy.is_idle());
}

/// Permits that others have are not in the way of a lane that has some.
#[test]
fn each_lane_has_permits_of_its_own() {
    let mut f = Fixture::new();
    let sender = job(GOOGLE, "t").sender;
    let mut take = |lane, number| f.policy.take_turn(lane, &sender, || number);
    for number in 0..10 {
        assert!(matches!(take(GOOGLE, number), Turn::Now));
    }
    assert!(matches!(take(GOOGLE, 10), Turn::Waiting(..)));
    assert!(matches!(take(APPLE, 11), Turn::Now));
    assert!(matches!(take(LaneId::Main, 12), Turn::Now));
    assert!(matches!(take(server("https://up.example"), 13), Turn::Now));
    assert_eq!(f.policy.lengths(), (13, 1));
    assert!(!f.policy.give_back_permit(APPLE));
    assert!(f.policy.grant(f.clocks.now).is_none());
    assert!(f.policy.give_back_permit(GOOGLE));
    assert!(matches!(f.policy.grant(f.clocks.now), Some(Grant::Waiter(10))));
    assert_eq!(f.policy.lengths(), (12, 0));
}
