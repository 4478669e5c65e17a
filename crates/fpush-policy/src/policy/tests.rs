//! The rules as a whole, with the time as an argument.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::SystemTime,
};

use fpush_push::{Encrypted, Extra, Failure, PushError, Unavailable};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    attempts::{Answered, Ended, Next, Notice, Tries},
    known::LastAccepted,
    outage::LaneState,
    records::{HeldChange, HeldRecord, Recipient},
    testing::{self, clocks, hasher, job_of, settings},
};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// The provider wants nothing for a minute.
const PAUSE: PushError = PushError::Pause {
    length: Duration::from_secs(60),
    alarm: false,
};

fn recipient(time_to_live: Duration) -> Recipient {
    let job = job_of("a.org", "t");
    Recipient {
        token: job.push.token.clone(),
        lane: LaneId::Main,
        elsewhere: crate::job::Elsewhere::Nowhere,
        sender: Arc::clone(&job.sender),
        time_to_live,
    }
}

/// A module whose waiting publishes are known by numbers.
struct Fixture {
    policy: Policy<u64>,
    start: Instant,
    /// Permits that are given, and not given back.
    out: usize,
    /// What is written down.
    file: BTreeMap<u64, HeldRecord>,
}

/// What became of a publish.
#[derive(Debug, PartialEq, Eq)]
enum Became {
    Sent(RateSlot),
    Waits(Ticket<Fingerprint>, Option<u64>),
    Queued,
    Answered(Outcome),
}

impl Fixture {
    fn new(permits: usize) -> Self {
        let clocks = clocks();
        let settings = ModuleSettings {
            max_in_flight: permits,
            ..settings()
        };
        Self {
            policy: Policy::new(settings, 0, clocks),
            start: clocks.now,
            out: 0,
            file: BTreeMap::new(),
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    /// What is written down by now.
    fn written(&mut self) -> BTreeMap<u64, HeldRecord> {
        for change in self.policy.take_changes() {
            change.apply(&mut self.file);
        }
        self.file.clone()
    }

    /// Whether what it holds is sent by one that begins so long after this one has ended.
    fn sends_after_a_stop(mut self, hours: u32, time_to_live: Duration, ended: Clocks) -> bool {
        let after = Clocks {
            now: ended.now + hours * HOUR,
            wall: ended.wall + hours * HOUR,
        };
        let mut next = Self::new(10).policy;
        for (number, record) in self.written() {
            let read = record.clone();
            let recipient = recipient(time_to_live);
            let remembered = next.remember_held(number, record, recipient.clone(), &hasher(), after);
            if remembered == Remembered::Expired {
                return false;
            }
            while next.make_due(after.now) {}
            for number in next.take_wanted() {
                let job = Policy::<u64>::job_of(read.clone(), recipient.clone(), &hasher(), after);
                next.loaded(number, Some(job), after.now);
            }
        }
        matches!(next.grant(after.now), Some(Grant::Held(_)))
    }

    fn publish(&mut self, domain: &str, token: &str, number: u64, millis: u64) -> Became {
        self.publish_job(job_of(domain, token), number, millis)
    }

    fn publish_job(&mut self, job: Box<PushJob>, number: u64, millis: u64) -> Became {
        let now = self.at(millis);
        let publish = Publish {
            target: job.target(),
            lane: job.lane,
            registered: false,
            spacing: None,
            time_to_live: Duration::MAX,
            sender: &job.sender,
        };
        match self.policy.publish(&publish, now) {
            Decision::Answer(outcome) => Became::Answered(outcome),
            Decision::Hold { until, .. } => {
                self.policy.hold(job, until);
                Became::Queued
            }
            Decision::Send { slot, .. } => match self.policy.take_turn(job.lane, &job.sender, || number) {
                Turn::Now => {
                    self.out += 1;
                    Became::Sent(slot)
                }
                Turn::Waiting(ticket, displaced) => Became::Waits(ticket, displaced),
                Turn::Full => {
                    self.policy.give_back(slot);
                    Became::Answered(Outcome::Overloaded)
                }
            },
        }
    }

    fn answer(&mut self, domain: &str, token: &str, answer: Result<(), PushError>, millis: u64) -> Answered {
        let (mut job, now) = (job_of(domain, token), self.at(millis));
        let failure = answer
            .err()
            .map(|error| Failure::new(error, "reason", "answer", ""));
        let answer = failure.as_ref().map_or(Ok(()), Err);
        let generation = self.policy.generation();
        let mut tries = Tries::new(now, 0);
        self.policy
            .answered(&mut job, &mut tries, answer, generation, now, 0.0)
    }

    /// Gives a permit back, and says who has it next.
    fn next(&mut self, millis: u64) -> Option<Grant<u64>> {
        self.policy.give_back_permit(LaneId::Main);
        let now = self.at(millis);
        self.policy.grant(now)
    }
}

#[test]
fn first_goes_second_waits_third_is_refused_and_the_window_starts_anew() {
    let mut f = Fixture::new(10);
    assert!(matches!(f.publish("a.org", "t", 0, 0), Became::Sent(_)));
    assert_eq!(f.publish("a.org", "t", 1, 5_000), Became::Queued);
    assert_eq!(
        f.publish("a.org", "t", 2, 6_000),
        Became::Answered(Outcome::Refused)
    );
    assert_eq!(f.policy.next_timer(f.at(6_000)), Some(f.at(20_000)));
    let now = f.at(20_000);
    while f.policy.make_due(now) {}
    assert!(matches!(f.policy.grant(now), Some(Grant::Held(_))));
    assert_eq!(f.publish("a.org", "t", 3, 21_000), Became::Queued);
    assert_eq!(f.policy.next_timer(f.at(21_000)), Some(f.at(40_000)));
}

/// Who owns a domain has as many names below it as he likes.
#[test]
fn names_below_one_domain_take_no_place_from_another_one() {
    let mut f = Fixture::new(4);
    for number in 0..4 {
        f.publish("flood.org", &format!("busy {number}"), number, 0);
    }
    let mut places = 0;
    for number in 0..1_000 {
        let domain = format!("d{number}.flood.org");
        places += u64::from(matches!(
            f.publish(&domain, "t", number, 1),
            Became::Waits(_, None)
        ));
    }
    assert_eq!(places, 40, "half of the places is kept for others");
    let Became::Waits(_, Some(_)) = f.publish("small.org", "t", 5_000, 2) else {
        panic!("it has a place");
    };
    // The two take turns, so that it is the second at the latest.
    let first_two = [f.next(3), f.next(3)].map(|grant| match grant {
        Some(Grant::Waiter(number)) => number,
        other => panic!("{other:?}"),
    });
    assert!(first_two.contains(&5_000), "{first_two:?}");
}

#[test]
fn half_of_the_places_is_kept_for_domains_of_which_a_push_was_accepted() {
    let mut f = Fixture::new(2);
    let known = |token: &str| {
        let mut job = job_of("known.org", token);
        job.sender = Arc::new(job.sender.accepted(LastAccepted::Lately));
        job
    };
    for number in 0..2 {
        f.publish_job(known(&format!("busy {number}")), number, 0);
    }
    for number in 0..100 {
        let domain = format!("stranger{number}.org");
        f.publish(&domain, "t", number, 1);
    }
    for number in 0..20 {
        let became = f.publish_job(known(&format!("t {number}")), 1_000 + number, 2);
        assert!(matches!(became, Became::Waits(_, None)), "{number}: {became:?}");
    }
}

#[test]
fn what_is_queued_behind_a_token_that_is_dead_goes() {
    let mut f = Fixture::new(20);
    for number in 0..10 {
        f.answer("a.org", &format!("living {number}"), Ok(()), 0);
    }
    assert!(matches!(f.publish("a.org", "t", 0, 0), Became::Sent(_)));
    assert_eq!(f.publish("a.org", "t", 1, 1), Became::Queued);
    let answered = f.answer("a.org", "t", Err(PushError::TokenGone { since: None }), 2);
    assert_eq!(answered.next, Next::Dead { since: None });
    let now = f.at(2);
    let job = job_of("a.org", "t");
    assert_eq!(
        f.policy.registry_said(&job, Ok(true), now),
        (Outcome::TokenDead, 1)
    );
    assert_eq!(f.policy.held(), 0);
    assert_eq!(
        f.publish("a.org", "t", 2, 3),
        Became::Answered(Outcome::TokenDead)
    );
}

/// One that is dead, in a lane that is calm.
fn with_a_dead_token() -> Fixture {
    let mut f = Fixture::new(20);
    for number in 0..10 {
        f.answer("a.org", &format!("living {number}"), Ok(()), 0);
    }
    let gone = PushError::TokenGone { since: None };
    assert_eq!(
        f.answer("a.org", "t", Err(gone), 0).next,
        Next::Dead { since: None }
    );
    let now = f.at(0);
    assert_eq!(
        f.policy.registry_said(&job_of("a.org", "t"), Ok(true), now).0,
        Outcome::TokenDead
    );
    f
}

const DEAD: Became = Became::Answered(Outcome::TokenDead);
const MINUTES: u64 = 60_000;

/// An app that uses its token again is not given up for a day.
#[test]
fn a_dead_token_is_asked_for_once_an_hour_until_it_is_accepted() {
    let mut f = with_a_dead_token();
    let gone = PushError::TokenGone { since: None };
    let doubted = f.policy.guard.doubted();
    let mut asked = 0;
    for minute in (5..48 * 60).step_by(5) {
        match f.publish("a.org", "t", 0, minute * MINUTES) {
            Became::Sent(slot) => {
                asked += 1;
                assert_eq!(
                    f.publish("a.org", "t", 1, minute * MINUTES),
                    DEAD,
                    "while one is under way"
                );
                // The lane is not calm any more, and still nothing new was said.
                let answered = f.answer("a.org", "t", Err(gone), minute * MINUTES);
                assert_eq!(answered, Answered::ended(Outcome::TokenDead, None));
                f.policy.give_back(slot);
                assert!(f.next(minute * MINUTES).is_none());
            }
            became => assert_eq!(became, DEAD, "{minute}"),
        }
    }
    assert!((40..=47).contains(&asked), "{asked} times in two days");
    assert_eq!(f.policy.guard.doubted(), doubted, "it says nothing of the lane");

    let later = 50 * 60 * MINUTES;
    let Became::Sent(_) = f.publish("a.org", "t", 2, later) else {
        panic!("it is asked for");
    };
    f.answer("a.org", "t", Ok(()), later);
    assert!(matches!(
        f.publish("a.org", "t", 3, later + MINUTES),
        Became::Sent(_)
    ));
}

/// What has no answer leaves the token as dead as it was, and is not held for it either.
#[test]
fn a_dead_token_is_not_asked_for_while_the_provider_is_down_or_its_window_runs() {
    let mut f = with_a_dead_token();
    for (token, millis) in [
        ("x", 60 * MINUTES),
        ("y", 60 * MINUTES + 3_000),
        ("z", 60 * MINUTES + 6_000),
    ] {
        f.answer("a.org", token, Err(PushError::Later { after: None }), millis);
    }
    let now = f.at(61 * MINUTES);
    assert!(f.policy.is_down(LaneId::Main, now));
    assert_eq!(f.publish("a.org", "t", 0, 61 * MINUTES), DEAD);
    let asked = f.policy.notify(job_of("a.org", "t").target(), LaneId::Main, now);
    assert_eq!(asked, Err(Outcome::TokenDead));

    let mut f = with_a_dead_token();
    let (target, now) = (job_of("a.org", "t").target(), f.at(61 * MINUTES));
    f.policy.limiter.take(target, HOUR, now);
    assert_eq!(f.publish("a.org", "t", 0, 62 * MINUTES), DEAD);
    assert_eq!(f.policy.held(), 0);
    // Nor is the hour used up by that.
    assert!(matches!(
        f.publish("a.org", "t", 1, 122 * MINUTES),
        Became::Sent(_)
    ));
}

/// A database that is away for an hour must not use up the deaths that a lane may cause before it is doubted.
#[test]
fn a_registry_that_cannot_be_asked_uses_up_no_deaths() {
    let mut f = Fixture::new(20);
    for number in 0..10 {
        f.answer("a.org", &format!("living {number}"), Ok(()), 0);
    }
    let job = job_of("a.org", "t");
    for round in 0..20 {
        let answered = f.answer("a.org", "t", Err(PushError::TokenGone { since: None }), round);
        assert_eq!(answered.next, Next::Dead { since: None }, "{round}");
        let now = f.at(round);
        let said = f.policy.registry_said(&job, Err(Unavailable), now);
        assert_eq!(said, (Outcome::RegistryUnavailable, 0));
    }
    let now = f.at(100);
    assert_eq!(f.policy.registry_said(&job, Ok(true), now).0, Outcome::TokenDead);
}

#[test]
fn held_pushes_that_are_due_take_turns_by_domain() {
    let mut f = Fixture::new(1);
    for domain in ["flood.org", "small.org"] {
        let most = if domain == "flood.org" { 50 } else { 1 };
        for number in 0..most {
            let job = job_of(domain, &number.to_string());
            let due = f.at(1_000);
            f.policy.hold(job, HoldUntil::Due(due));
        }
    }
    f.publish("a.org", "t", 0, 0);
    let now = f.at(2_000);
    while f.policy.make_due(now) {}
    let domains = [(); 2].map(|()| match f.next(2_000) {
        Some(Grant::Held(attempt)) => {
            let accepted = Ended::Settled(Outcome::Accepted);
            f.policy.held_ended(attempt.number, attempt.slot, &accepted, now);
            attempt.job.sender.name.to_string()
        }
        other => panic!("{other:?}"),
    });
    assert!(domains.contains(&"small.org".to_owned()), "{domains:?}");
}

/// Publishes wait for as long as a call takes.
#[test]
fn what_becomes_due_at_once_does_so_in_parts() {
    let mut f = Fixture::new(10);
    for number in 0..2_500 {
        let job = job_of("a.org", &number.to_string());
        let due = f.at(1);
        f.policy.hold(job, HoldUntil::Due(due));
    }
    let now = f.at(600);
    let mut parts = Vec::new();
    loop {
        let (more, due) = (f.policy.make_due(now), f.policy.turns.due.len());
        parts.push(due);
        if !more {
            break;
        }
    }
    assert_eq!(parts, [1_000, 2_000, 2_500]);
    assert_eq!(f.policy.next_timer(now), None);
}

#[test]
fn a_call_is_sent_or_refused_but_never_queued() {
    let mut f = Fixture::new(10);
    let mut job = job_of("a.org", "t");
    job.push.class = Class::Voip;
    let publish = |f: &mut Fixture, millis| {
        let now = f.at(millis);
        let publish = Publish {
            target: job.target(),
            lane: job.lane,
            registered: false,
            spacing: None,
            time_to_live: Duration::MAX,
            sender: &job.sender,
        };
        f.policy.publish(&publish, now)
    };
    let Decision::Send { slot, .. } = publish(&mut f, 0) else {
        panic!("it goes out");
    };
    assert_eq!(publish(&mut f, 1_000), Decision::Answer(Outcome::Refused));
    let now = f.at(1_000);
    assert_eq!(f.policy.busy(job.clone(), slot, now), Busy::Refused);
    assert_eq!(
        publish(&mut f, 600_000),
        Decision::Answer(Outcome::Refused),
        "the silence lasts"
    );
    assert!(matches!(publish(&mut f, 601_000), Decision::Send { .. }));
}

#[test]
fn a_busy_token_is_not_held_where_there_is_no_room() {
    let mut f = Fixture::new(10);
    let Became::Sent(slot) = f.publish("new.org", "busy", 0, 0) else {
        panic!("it goes out");
    };
    let due = f.at(86_400_000);
    for number in 0..1_000 {
        f.policy
            .hold(job_of("new.org", &number.to_string()), HoldUntil::Due(due));
    }
    let now = f.at(1);
    assert_eq!(f.policy.busy(job_of("new.org", "busy"), slot, now), Busy::Refused);
    assert_eq!(
        f.publish("new.org", "busy", 1, 2),
        Became::Answered(Outcome::Overloaded)
    );
}

/// One was under way when the daemon ended, and another one was queued behind it: the newer one knows more.
#[test]
fn after_a_restart_the_newer_one_of_two_pushes_for_a_key_stands_for_both() {
    let mut f = Fixture::new(10);
    f.policy.begin_noting(0);
    let due = f.at(1_000);
    f.policy.hold(job_of("a.org", "t"), HoldUntil::Due(due));
    while f.policy.make_due(due) {}
    assert!(matches!(f.policy.grant(due), Some(Grant::Held(_))));
    let later = f.at(21_000);
    f.policy.hold(job_of("a.org", "t"), HoldUntil::Due(later));
    let clocks = clocks();
    let held = f.policy.take_changes();
    assert_eq!(held.len(), 2);
    let mut next = Fixture::new(10);
    for change in held {
        let HeldChange::Put(number, record) = change else {
            panic!("both are held");
        };
        let remembered = next
            .policy
            .remember_held(number, *record, recipient(DAY), &hasher(), clocks);
        assert_eq!(remembered, Remembered::Held);
    }
    assert_eq!((next.policy.take_ended().len(), next.policy.held()), (1, 1));
    let left = next
        .policy
        .next_timer(clocks.now)
        .map(|timer| timer.duration_since(clocks.now));
    assert!(
        left.is_some_and(|left| left > Duration::from_secs(15)),
        "{left:?}"
    );
}

/// It was tried before the daemon ended, and its ten minutes are over when the next one begins.
#[test]
fn after_however_long_a_stop_what_is_held_is_tried_once_more() {
    for hours in [0, 1, 30] {
        let mut f = Fixture::new(10);
        f.policy.begin_noting(0);
        let until = HoldUntil::Due(f.start);
        f.policy.hold(job_of("a.org", "t"), until);
        while f.policy.make_due(f.start) {}
        assert!(matches!(f.policy.grant(f.start), Some(Grant::Held(_))));
        assert!(f.sends_after_a_stop(hours, DAY, clocks()), "{hours}");
    }
}

/// What waited until its provider is back, too: but what its provider would not have kept so long is worth nothing.
#[test]
fn after_a_stop_what_was_held_in_an_outage_is_tried_once_more_while_it_is_worth_something() {
    for (hours, time_to_live, is_sent) in [
        (3, HOUR, false),
        (3, DAY, true),
        (23, DAY, true),
        (25, DAY, false),
        (25, 28 * DAY, true),
    ] {
        let mut f = Fixture::new(10);
        f.policy.begin_noting(0);
        let mut job = job_of("a.org", "t");
        job.worth_until = Some(f.start + f.policy.hold_for.min(time_to_live));
        f.policy.hold(job, HoldUntil::Back);
        assert_eq!(
            f.sends_after_a_stop(hours, time_to_live, clocks()),
            is_sent,
            "{hours} hours, of {time_to_live:?}"
        );
    }
}

/// What is in the file was written by the other clock.
#[test]
fn when_the_clock_was_set_what_is_written_down_moves_with_it() {
    for (hours, is_sent) in [(0, true), (2, false)] {
        for wall in [0, 4_102_444_800] {
            let mut f = Fixture::new(10);
            let right = clocks();
            f.policy.follow_clock(Clocks {
                wall: SystemTime::UNIX_EPOCH + Duration::from_secs(wall),
                ..right
            });
            f.policy.begin_noting(0);
            let mut job = job_of("a.org", "t");
            job.worth_until = Some(f.start + HOUR);
            f.policy.hold(job, HoldUntil::Back);
            assert_eq!(f.written().len(), 1);
            f.policy.follow_clock(right);
            assert_eq!(f.sends_after_a_stop(hours, HOUR, right), is_sent, "{hours}");
        }
    }
}

/// A machine without a battery begins in 1970, and may have crashed just after its clock was set.
#[test]
fn what_was_written_by_a_clock_that_was_absurd_is_tried_once_more() {
    for wall in [0, 4_102_444_800] {
        let mut f = Fixture::new(10);
        let clocks = Clocks {
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(wall),
            ..clocks()
        };
        f.policy.follow_clock(clocks);
        f.policy.begin_noting(0);
        let mut job = job_of("a.org", "t");
        job.worth_until = Some(f.start + HOUR);
        f.policy.hold(job, HoldUntil::Back);
        assert!(f.sends_after_a_stop(0, HOUR, testing::clocks()));
    }
}

/// Google calls a whole crowd of devices too busy, each with a message for its app.
#[test]
fn what_is_encrypted_in_busy_pushes_is_bounded() {
    let mut f = Fixture::new(10_000);
    for number in 0..5_000 {
        let mut job = job_of(&format!("domain{number}.org"), "busy");
        job.push.extra = Some(Arc::new(Extra {
            account: None,
            channel: None,
            encrypted: Some(Encrypted {
                iv: "iv".into(),
                ciphertext: "c".repeat(5 * 1_024).into(),
            }),
            call: false,
        }));
        let slot = f.policy.limiter.take(job.target(), job.spacing, f.start);
        assert!(matches!(f.policy.busy(job, slot, f.start), Busy::Held(_)));
    }
    let due = f.at(3_600_000);
    while f.policy.make_due(due) {}
    let (mut pushes, mut bytes) = (0, 0);
    while let Some(Grant::Held(attempt)) = f.policy.grant(due) {
        pushes += 1;
        bytes += attempt.job.encrypted();
    }
    assert_eq!(pushes, 5_000, "each wakes its device");
    assert!(bytes < 17 * 1_024 * 1_024, "{bytes}");
}

/// Nobody else might come by to wake it.
#[test]
fn a_held_push_that_a_pause_stops_goes_out_when_the_pause_ends() {
    let mut f = Fixture::new(10);
    let due = f.at(1_000);
    f.policy.hold(job_of("a.org", "t"), HoldUntil::Due(due));
    f.answer("a.org", "other", Err(PAUSE), 500);
    let now = f.at(1_000);
    while f.policy.make_due(now) {}
    assert!(f.policy.grant(now).is_none());
    let end = f.at(60_500);
    assert_eq!(f.policy.next_timer(now), Some(end));
    assert!(matches!(f.policy.grant(end), Some(Grant::Held(_))));
}

/// What the settings were when an answer was asked for is what it says something about.
#[test]
fn an_answer_to_older_settings_says_nothing() {
    let mut f = Fixture::new(10);
    let (mut job, now) = (job_of("a.org", "t"), f.at(0));
    let generation = f.policy.generation();
    f.policy.configure(settings(), 1, now);
    let failure = Failure::new(PushError::TokenDoubted, "reason", "answer", "");
    let mut tries = Tries::new(now, 0);
    let answered = f
        .policy
        .answered(&mut job, &mut tries, Err(&failure), generation, now, 0.0);
    assert_eq!(
        (answered.next, f.policy.view(now).doubted_tokens),
        (Next::Again, 0)
    );
}

/// Whatever has become of the settings meanwhile, and whichever lane took it.
#[test]
fn an_accepted_push_takes_back_what_was_said_against_its_token() {
    for is_reloaded in [false, true] {
        for has_two_lanes in [false, true] {
            let mut f = Fixture::new(10);
            let (mut job, now) = (job_of("a.org", "t"), f.at(0));
            f.answer("a.org", "t", Err(PushError::TokenDoubted), 0);
            assert!(f.policy.guard.is_doubted(job.token));
            if has_two_lanes {
                (job.lane, job.elsewhere) = (
                    LaneId::Second,
                    crate::job::Elsewhere::Asked {
                        said: crate::job::Said::Wrong,
                    },
                );
            }
            let generation = f.policy.generation();
            if is_reloaded {
                let mut other = settings();
                other.max_in_flight += 1;
                f.policy.configure(other, 0, now);
            }
            let mut tries = Tries::new(now, 0);
            f.policy
                .answered(&mut job, &mut tries, Ok(()), generation, now, 0.0);
            assert!(
                !f.policy.guard.is_doubted(job.token),
                "{is_reloaded} {has_two_lanes}"
            );
        }
    }
}

#[test]
fn what_is_held_for_the_second_lane_does_not_wait_for_a_pause_of_the_main_one() {
    let mut f = Fixture::new(10);
    f.answer("a.org", "other", Err(PAUSE), 0);
    let mut job = job_of("a.org", "t");
    job.lane = LaneId::Second;
    let due = f.at(1_000);
    f.policy.hold(job, HoldUntil::Due(due));
    assert_eq!(f.policy.next_timer(f.at(500)), Some(due));
    while f.policy.make_due(due) {}
    assert!(matches!(f.policy.grant(due), Some(Grant::Held(_))));
}

proptest! {
    /// The rate limit's law, on any arrival pattern over a few tokens: in a window at most one push goes out at once and
    /// one is queued; the last publish of a burst is followed by a push; a refusal happens only while one is queued.
    #[test]
    fn law_of_the_rate_limit(arrivals in prop::collection::vec((0..3_usize, 0..9_000_u64), 1..200)) {
        let mut f = Fixture::new(1_000);
        let names = ["a", "b", "c"];
        let mut sent: HashMap<usize, Vec<u64>> = HashMap::new();
        let mut last: HashMap<usize, u64> = HashMap::new();
        let mut now = 0;
        let let_out = |f: &mut Fixture, sent: &mut HashMap<usize, Vec<u64>>, until: u64| {
            while let Some(due) = f.policy.next_timer(f.start).filter(|due| *due <= f.at(until)) {
                while f.policy.make_due(due) {}
                while let Some(Grant::Held(attempt)) = f.policy.grant(due) {
                    let token = names.iter().position(|name| *name == attempt.job.push.token.as_str());
                    let millis = due.duration_since(f.start).as_millis() as u64;
                    sent.entry(token.expect("it is one of them")).or_default().push(millis);
                    f.policy.held_ended(attempt.number, attempt.slot, &Ended::Settled(Outcome::Accepted), due);
                    f.policy.give_back_permit(LaneId::Main);
                }
            }
        };
        for (token, pause) in arrivals {
            now += pause;
            let_out(&mut f, &mut sent, now);
            last.insert(token, now);
            let queued = f.policy.held.queued(job_of("a.org", names[token]).target()).is_some();
            match f.publish("a.org", names[token], 0, now) {
                Became::Sent(_) => {
                    prop_assert!(!queued);
                    sent.entry(token).or_default().push(now);
                    f.policy.give_back_permit(LaneId::Main);
                }
                Became::Queued => prop_assert!(!queued),
                Became::Answered(Outcome::Refused) => prop_assert!(queued),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        // A push waits for up to 50 ms beyond its time.
        let_out(&mut f, &mut sent, now + 20_050);
        prop_assert_eq!(f.policy.held(), 0);
        for (token, times) in sent {
            prop_assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 20_000), "{:?}", times);
            prop_assert!(times.last() >= last.get(&token));
        }
    }
}

/// What it says is about that token's platform, however many such tokens somebody publishes to.
#[test]
fn a_token_that_cannot_be_served_is_blocked_and_says_nothing_of_the_module() {
    let mut f = Fixture::new(10);
    for number in 0..5 {
        let token = format!("token {number}");
        let answered = f.answer("a.org", &token, Err(PushError::TokenUnserved), number);
        assert_eq!(answered.next, Next::Ended(Ended::Settled(Outcome::TokenBlocked)));
        assert_eq!(answered.notice, Some(Notice::Unserved));
        let blocked = |f: &mut Fixture, millis| f.publish("a.org", &token, 0, millis);
        assert_eq!(blocked(&mut f, 599_000), Became::Answered(Outcome::TokenBlocked));
        assert!(matches!(blocked(&mut f, 601_000), Became::Sent(_)));
        f.policy.give_back_permit(LaneId::Main);
    }
    assert_eq!(f.policy.health.trouble(f.start), None);
    assert!(!f.policy.is_proven());
    assert_eq!(f.policy.changes()[1], 0, "no word, and no answer of the lane");
}

#[test]
fn a_limit_of_nobody_in_particular_is_the_tokens_until_devices_of_two_domains_meet_it() {
    let mut f = Fixture::new(10);
    let too_many = PushError::TooMany {
        pause: Duration::from_secs(60),
    };
    for (number, domain) in ["stranger.org"; 5].iter().enumerate() {
        let answered = f.answer(domain, &format!("token {number}"), Err(too_many), 0);
        assert_eq!(answered, Answered::next(Next::Ended(Ended::Busy)));
    }
    assert!(matches!(f.publish("a.org", "token 10", 0, 0), Became::Sent(_)));
    let answered = f.answer("a.org", "token 10", Err(too_many), 1_000);
    let resume = f.at(61_000);
    assert_eq!(answered.next, Next::Ended(Ended::Failed { resume }));
    assert!(matches!(
        answered.notice,
        Some(Notice::Paused { alarm: false, .. })
    ));
    assert!(f.policy.is_down(LaneId::Main, f.at(60_999)) && !f.policy.is_down(LaneId::Main, f.at(61_000)));
    assert!(matches!(
        f.publish("b.org", "token 11", 0, 61_000),
        Became::Sent(_)
    ));
}

#[test]
fn a_domain_has_the_same_share_under_any_name() {
    let share = |name: &str| SenderDomain::new(name, &hasher()).share;
    assert_eq!(share("a.example.co.uk"), share("b.c.example.co.uk"));
    assert_ne!(share("example.co.uk"), share("other.co.uk"));
}

/// Two publishes for one device are written in two groups, of which the first one fails.
#[test]
fn what_could_not_be_written_down_takes_no_later_push_with_it() {
    let job = |token, id| {
        let mut job = job_of("a.org", token);
        job.push.id = Uuid::from_u128(id);
        job
    };
    for is_queued in [false, true] {
        let mut f = Fixture::new(10);
        f.policy.begin_noting(0);
        let until = if is_queued {
            HoldUntil::Due(f.start + HOUR)
        } else {
            HoldUntil::Back
        };
        let target = job("t", 0).target();
        let held = f.policy.hold(job("t", 1), until);
        assert_eq!(held.new, Some(Uuid::from_u128(1)));
        let second = f.policy.hold(job("t", 2), HoldUntil::Back);
        assert_eq!((second.number, second.new), (held.number, None));
        assert!(!f.policy.not_written(held.number, Uuid::from_u128(1)));
        assert!(f.policy.is_held(target));
        let alone = f.policy.hold(job("u", 3), until);
        assert!(f.policy.not_written(alone.number, Uuid::from_u128(3)));
        assert!(!f.policy.is_held(job("u", 0).target()));
    }
}

/// Who publishes calls all the time would keep all that is held from being tried.
#[test]
fn a_call_does_not_take_the_turn_of_what_finds_out_whether_the_provider_is_back() {
    let mut f = Fixture::new(10);
    f.answer("a.org", "token", Err(PAUSE), 1_000);
    f.policy.hold(job_of("a.org", "held"), HoldUntil::Back);
    let mut call = job_of("b.org", "call");
    call.push.class = Class::Voip;
    assert_eq!(
        f.publish_job(call, 0, 61_000),
        Became::Answered(Outcome::ProviderUnavailable)
    );
    f.policy.make_due(f.at(61_000));
    assert!(matches!(f.next(61_000), Some(Grant::Held(_))));
}

#[test]
fn a_push_that_is_held_for_hours_outlasts_a_block_of_minutes() {
    let mut f = Fixture::new(10);
    f.policy.hold(job_of("a.org", "t"), HoldUntil::Back);
    f.answer("a.org", "t", Err(PushError::TokenUnserved), 0);
    f.policy.make_due(f.at(1_000));
    assert!(f.next(1_000).is_none());
    assert_eq!(f.policy.held(), 1);
    while f.policy.make_due(f.at(601_100)) {}
    assert!(matches!(f.next(601_000), Some(Grant::Held(_))));
}

/// A service with few devices: their provider is away, and nobody can tell that from their tokens.
#[test]
fn what_waits_for_its_provider_takes_later_publishes_with_it() {
    let mut f = Fixture::new(10);
    let Became::Sent(slot) = f.publish("a.org", "t", 0, 0) else {
        panic!("nothing is known yet");
    };
    let resume = f.at(10_000);
    let failed = f.policy.failed(job_of("a.org", "t"), slot, resume, f.at(1_000));
    assert!(matches!(failed, Failed::Held(_)), "{failed:?}");
    assert_eq!(f.publish("a.org", "t", 1, 5_000), Became::Queued);
    while f.policy.make_due(f.at(10_000)) {}
    let Some(Grant::Held(attempt)) = f.next(10_000) else {
        panic!("it is due");
    };
    let ended = Ended::Failed { resume: f.at(60_000) };
    let end = f
        .policy
        .held_ended(attempt.number, attempt.slot, &ended, f.at(20_000));
    assert_eq!(end, None);
    assert_eq!(f.publish("a.org", "t", 1, 30_000), Became::Queued);
    assert_eq!(f.policy.held(), 1, "one push stands for both");
}

/// Its pauses grow with its failures: what was forgotten of them would be a burst of attempts at a provider that is in trouble.
#[test]
fn how_often_a_push_has_failed_is_known_at_each_attempt_and_to_who_goes_on_with_it() {
    let mut f = Fixture::new(10);
    f.policy.begin_noting(0);
    let Became::Sent(slot) = f.publish("a.org", "t", 0, 0) else {
        panic!("nothing is known yet");
    };
    f.policy
        .failed(job_of("a.org", "t"), slot, f.at(10_000), f.at(1_000));
    for failures in 1..4 {
        let now = u64::from(failures) * 10_000;
        while f.policy.make_due(f.at(now)) {}
        let Some(Grant::Held(attempt)) = f.next(now) else {
            panic!("it is due");
        };
        assert_eq!(attempt.attempts, failures);
        let resume = f.at(now + 10_000);
        f.policy
            .held_ended(attempt.number, attempt.slot, &Ended::Failed { resume }, f.at(now));
    }
    let (number, record) = f.written().pop_first().unwrap();
    let before = Clocks {
        now: f.at(35_000),
        wall: clocks().wall + Duration::from_secs(35),
    };
    let attempts = |policy: &mut Policy<u64>| {
        while policy.make_due(f.at(40_000)) {}
        match policy.grant(f.at(40_000)) {
            Some(Grant::Held(attempt)) => attempt.attempts,
            other => panic!("{other:?}"),
        }
    };
    let mut next = Fixture::new(10).policy;
    let remembered = next.remember_held(number, record.clone(), recipient(HOUR), &hasher(), before);
    assert_eq!((remembered, attempts(&mut next)), (Remembered::Held, 4));
    let mut other = Fixture::new(10).policy;
    let taken = other.take_over(record, recipient(HOUR), &hasher(), before);
    assert_eq!((taken, attempts(&mut other)), (TakenOver::Held, 4));
}

/// While the older one was tried in vain, its window was over, and the newer one went out.
#[test]
fn what_was_tried_in_vain_goes_out_no_more_when_a_newer_push_was_accepted_and_not_within_its_window() {
    for is_accepted in [true, false] {
        let mut f = Fixture::new(10);
        let Became::Sent(slot) = f.publish("a.org", "t", 0, 0) else {
            panic!("nothing is known yet");
        };
        let mut older = job_of("a.org", "t");
        older.worth_until = Some(f.start + HOUR);
        let resume = f.at(10_000);
        let failed = f.policy.failed(older, slot, resume, f.at(1_000));
        assert!(matches!(failed, Failed::Held(_)), "{failed:?}");
        while f.policy.make_due(resume) {}
        let Some(Grant::Held(attempt)) = f.next(10_000) else {
            panic!("it is due");
        };
        let mut newer = job_of("a.org", "t");
        newer.arrived = f.at(500_000);
        assert!(matches!(
            f.publish_job(newer.clone(), 1, 500_000),
            Became::Sent(_)
        ));
        let ended = Ended::Failed {
            resume: f.at(501_000),
        };
        let end = f
            .policy
            .held_ended(attempt.number, attempt.slot, &ended, f.at(500_500));
        assert_eq!((end, f.policy.held()), (None, 1));
        if is_accepted {
            let (mut tries, now) = (Tries::new(f.start, 0), f.at(500_600));
            let generation = f.policy.generation();
            f.policy
                .answered(&mut newer, &mut tries, Ok(()), generation, now, 0.0);
            assert_eq!(f.policy.held(), 0);
            assert!(matches!(f.policy.take_ended()[..], [(_, HeldEnd::Covered)]));
        }
        while f.policy.make_due(f.at(501_000)) {}
        assert!(f.next(501_000).is_none(), "{is_accepted}");
    }
}

/// The newer one's publisher may get an error yet. Until it is written down, the older one is all that was acknowledged.
#[test]
fn an_acknowledged_push_that_fails_outlasts_a_newer_one_that_cannot_be_written_down() {
    let newer = || {
        let mut job = job_of("a.org", "t");
        job.push.id = Uuid::from_u128(2);
        job.arrived += Duration::from_secs(2);
        job.worth_until = Some(job.arrived + HOUR);
        job
    };
    for (is_down, newer_waits) in [(false, true), (true, true), (true, false)] {
        let mut f = Fixture::new(10);
        f.policy.begin_noting(0);
        let mut older = job_of("a.org", "t");
        older.worth_until = Some(f.start + HOUR);
        let older = f.policy.hold(older, HoldUntil::Due(f.at(1_000)));
        f.written();
        while f.policy.make_due(f.at(1_000)) {}
        let Some(Grant::Held(attempt)) = f.next(1_000) else {
            panic!("it is due");
        };
        let until = if newer_waits {
            HoldUntil::Due(f.at(9_000))
        } else {
            HoldUntil::Back
        };
        let second = f.policy.hold(newer(), until);
        if is_down {
            f.answer("a.org", "other", Err(PAUSE), 2_000);
        }
        let failed = Ended::Failed { resume: f.at(5_000) };
        let end = f
            .policy
            .held_ended(attempt.number, attempt.slot, &failed, f.at(3_000));
        assert_eq!((end, f.policy.held()), (None, 1));
        let file = f.written();
        assert_eq!(file.keys().copied().collect::<Vec<_>>(), [older.number]);
        assert!(!f.policy.not_written(second.number, Uuid::from_u128(2)));
        assert_eq!(f.policy.held(), 1, "{is_down} {newer_waits}");
        let ended = f.policy.take_ended();
        assert!(matches!(ended[..], [(_, HeldEnd::Covered)]));
    }
}

/// The lane was up again when the second one came, and the first one still waited for its turn.
#[test]
fn of_a_push_of_an_outage_and_one_that_its_window_holds_back_one_goes_out() {
    for spooled_is_newer in [false, true] {
        let mut f = Fixture::new(10);
        f.policy.begin_noting(0);
        let push = |id, seconds| {
            let mut job = job_of("a.org", "t");
            job.push.id = Uuid::from_u128(id);
            job.arrived += Duration::from_secs(seconds);
            job.worth_until = Some(job.arrived + HOUR);
            job
        };
        let (first, second) = if spooled_is_newer { (2, 1) } else { (1, 2) };
        let spooled = f.policy.hold(push(1, first), HoldUntil::Back);
        let until = HoldUntil::Due(f.at(9_000));
        f.policy.hold(push(2, second), until);
        assert_eq!(f.written().len(), 2);
        while f.policy.make_due(f.at(3_000)) {}
        assert_eq!(f.policy.held(), 1);
        let ended = f.policy.take_ended();
        assert!(matches!(ended[..], [(_, HeldEnd::Covered)]), "{ended:?}");
        let newer = if spooled_is_newer { 1 } else { 2 };
        let file = f.written();
        let ids: Vec<_> = file.iter().map(|(number, record)| (*number, record.id)).collect();
        assert_eq!(ids, [(spooled.number, Some(newer))]);
        let Some(Grant::Held(attempt)) = f.next(3_000) else {
            panic!("it is its turn");
        };
        assert_eq!(attempt.job.push.id, Uuid::from_u128(newer));
        let accepted = Ended::Settled(Outcome::Accepted);
        f.policy
            .held_ended(attempt.number, attempt.slot, &accepted, f.at(4_000));
        assert_eq!(f.policy.held(), 0);
        assert!(f.written().is_empty());
    }
}

/// The device is awake, and fetches all that came before. What has only waited for its window is sent as it was promised.
#[test]
fn an_accepted_push_is_all_that_an_older_one_would_have_been_that_waits_for_its_provider() {
    #[derive(Clone, Copy, Debug)]
    enum Waits {
        InTheSpool,
        AfterAFailure,
        ForItsWindow,
    }
    use Waits::{AfterAFailure, ForItsWindow, InTheSpool};
    for (waits, arrived, is_covered) in [
        (InTheSpool, 0, false),
        (InTheSpool, 2_000, true),
        (AfterAFailure, 0, false),
        (AfterAFailure, 2_000, true),
        (ForItsWindow, 2_000, false),
    ] {
        let mut f = Fixture::new(10);
        let push = |millis| {
            let mut job = job_of("a.org", "t");
            job.arrived += Duration::from_millis(millis);
            job.worth_until = Some(job.arrived + HOUR);
            job
        };
        let later = f.at(600_000);
        match waits {
            InTheSpool => drop(f.policy.hold(push(2_000), HoldUntil::Back)),
            ForItsWindow => drop(f.policy.hold(push(2_000), HoldUntil::Due(later))),
            AfterAFailure => {
                let Became::Sent(slot) = f.publish("a.org", "t", 0, 2_000) else {
                    panic!("nothing is known yet");
                };
                f.policy.failed(push(2_000), slot, later, f.at(2_500));
            }
        }
        let (now, mut tries) = (f.at(3_000), Tries::new(f.at(3_000), 0));
        f.policy
            .answered(&mut push(arrived), &mut tries, Ok(()), 0, now, 0.0);
        assert_eq!(f.policy.held(), usize::from(!is_covered), "{waits:?} {arrived}");
        let ended = f.policy.take_ended();
        assert_eq!(ended.len(), usize::from(is_covered));
        assert!(ended.iter().all(|(_, end)| matches!(end, HeldEnd::Covered)));
    }
}

/// Its turn has come in the second lane, and nobody has a permit there.
#[test]
fn a_newer_push_for_another_lane_does_not_wait_for_a_turn_of_the_older_ones() {
    let mut f = Fixture::new(1);
    let sender = job_of("b.org", "u").sender;
    assert!(matches!(
        f.policy.take_turn(LaneId::Second, &sender, || 0),
        Turn::Now
    ));
    let mut older = job_of("a.org", "t");
    older.lane = LaneId::Second;
    let until = HoldUntil::Due(f.at(1_000));
    f.policy.hold(older, until);
    while f.policy.make_due(f.at(1_000)) {}
    assert!(f.policy.grant(f.at(1_000)).is_none());
    let mut newer = job_of("a.org", "t");
    newer.arrived = f.at(2_000);
    f.policy.hold(newer, HoldUntil::Back);
    while f.policy.make_due(f.at(2_000)) {}
    let Some(Grant::Held(attempt)) = f.policy.grant(f.at(2_000)) else {
        panic!("there is a permit in its lane");
    };
    assert_eq!(attempt.job.lane, LaneId::Main);
    f.policy.give_back_permit(LaneId::Second);
    assert!(f.policy.grant(f.at(3_000)).is_none(), "it went out already");
    assert_eq!(f.policy.held(), 1);
}

/// One that has started with ten pushes held in this way.
fn started_with(until: impl Fn(&Fixture) -> HoldUntil) -> Fixture {
    let mut before = Fixture::new(10);
    before.policy.begin_noting(0);
    let mut f = Fixture::new(10);
    let after = clocks();
    let until = until(&before);
    for number in 0..10 {
        let mut job = job_of("a.org", &number.to_string());
        job.worth_until = Some(before.start + HOUR);
        before.policy.hold(job, until);
    }
    for (number, record) in before.written() {
        let recipient = Recipient {
            token: job_of("a.org", &number.to_string()).push.token.clone(),
            ..recipient(HOUR)
        };
        let remembered = f
            .policy
            .remember_held(number, record, recipient, &hasher(), after);
        assert_eq!(remembered, Remembered::Held);
    }
    f
}

fn call() -> Box<PushJob> {
    let mut call = job_of("b.org", "call");
    call.push.class = Class::Voip;
    call
}

/// What is queued says nothing of the provider: who publishes is not made to wait behind all that became due meanwhile.
#[test]
fn what_became_due_while_nobody_ran_stops_no_publish() {
    let mut f = started_with(|before| HoldUntil::Due(before.start));
    assert!(matches!(f.publish_job(call(), 0, 1), Became::Sent(_)));
    assert!(matches!(f.publish("b.org", "other", 1, 2), Became::Sent(_)));
    while f.policy.make_due(f.at(3)) {}
    let mut sent = 0;
    while let Some(Grant::Held(_)) = f.policy.grant(f.at(3)) {
        sent += 1;
    }
    assert_eq!(sent, 8, "all that there are permits for");
    assert_eq!(f.policy.outage.state(f.at(3)), LaneState::Up);
}

/// The provider is away, or was: a publish is held at once as before, because its sender would wait in vain. A call cannot be.
#[test]
fn after_a_start_in_an_outage_publishes_are_held_at_once_and_calls_are_tried_until_a_probe_has_failed() {
    let mut f = started_with(|_| HoldUntil::Back);
    assert_eq!(f.publish("b.org", "other", 1, 1), Became::Queued);
    assert!(matches!(f.publish_job(call(), 0, 2), Became::Sent(_)));
    while f.policy.make_due(f.at(3)) {}
    f.policy.take_wanted();
    assert_eq!(f.policy.spool.loading(), 1, "the probe has its turn");
    f.policy.outage.held_sent(f.at(4));
    f.policy.outage.held_ended(true, f.at(5));
    let mut other = call();
    other.push.token = job_of("b.org", "another").push.token.clone();
    (other.token, other.key) = (testing::fingerprint("another"), testing::fingerprint("another"));
    assert_eq!(
        f.publish_job(other, 0, 6),
        Became::Answered(Outcome::ProviderUnavailable)
    );
}

/// Nobody believes what the provider says in an incident, and a wrong setting can be mended: what is held outlasts both.
#[test]
fn what_is_held_for_hours_is_tried_again_after_words_that_are_not_believed_and_refusals() {
    for (error, outcome) in [
        (PushError::TokenGone { since: None }, Outcome::TokenBlocked),
        (PushError::Unexplained, Outcome::TokenBlocked),
        (PushError::Misconfigured, Outcome::ProviderUnavailable),
    ] {
        let mut f = Fixture::new(10);
        let mut job = job_of("a.org", "t");
        job.worth_until = Some(f.start + 4 * HOUR);
        f.policy.hold(job, HoldUntil::Due(f.at(1_000)));
        let mut millis = 1_000;
        for _ in 0..3 {
            while f.policy.make_due(f.at(millis)) {}
            let Some(Grant::Held(attempt)) = f.next(millis) else {
                panic!("it is due after {error:?} at {millis}");
            };
            f.answer("a.org", "t", Err(error), millis);
            let settled = Ended::Settled(outcome);
            let end = f
                .policy
                .held_ended(attempt.number, attempt.slot, &settled, f.at(millis));
            assert_eq!((end, f.policy.held()), (None, 1), "{error:?}");
            while f.policy.make_due(f.at(millis + 599_000)) {}
            assert!(f.next(millis + 599_000).is_none(), "{error:?}");
            // The second block of an answer that nobody explains lasts twice as long.
            millis += 1_230_000;
        }
    }
}

/// One that failed is acknowledged because another one is held for the device, which is given up earlier.
#[test]
fn what_goes_out_for_a_newer_push_is_worth_as_much() {
    for until in [HoldUntil::Back, HoldUntil::Due(Instant::now() + HOUR)] {
        let mut f = Fixture::new(10);
        let mut older = job_of("a.org", "t");
        older.worth_until = Some(f.at(60_000));
        f.policy.hold(older, until);
        let Became::Sent(slot) = f.publish("a.org", "other", 0, 0) else {
            panic!("nothing is known yet");
        };
        let mut newer = job_of("a.org", "t");
        newer.worth_until = Some(f.start + DAY);
        let failed = f.policy.failed(newer, slot, f.at(1_000), f.at(1_000));
        assert!(matches!(failed, Failed::Covered), "{failed:?}");
        let target = job_of("a.org", "t").target();
        let expires = f
            .policy
            .spool
            .expires(target)
            .or_else(|| f.policy.held.queued_push(target)?.expires);
        assert!(expires.unwrap() + Duration::from_secs(1) >= f.start + DAY);
    }
}

/// The older one's body is not in memory any more: there are too many.
#[test]
fn what_goes_out_for_a_newer_push_is_worth_as_much_after_a_restart() {
    let mut f = Fixture::new(10);
    f.policy.begin_noting(0);
    let mut older = job_of("a.org", "t");
    older.worth_until = Some(f.at(60_000));
    f.policy.hold(older, HoldUntil::Back);
    for number in 0..11_000 {
        let mut other = job_of(&format!("{}.org", number % 1_000), &format!("other {number}"));
        other.worth_until = Some(f.at(60_000));
        f.policy.hold(other, HoldUntil::Back);
    }
    assert_eq!(f.written().len(), 11_001);
    let target = job_of("a.org", "t").target();
    let number = f.policy.spool.find(target).unwrap();
    f.policy.written(number);
    assert!(f.policy.spool.body(number).is_none());
    let Became::Sent(slot) = f.publish("a.org", "another", 0, 0) else {
        panic!("nothing is known yet");
    };
    let mut newer = job_of("a.org", "t");
    newer.worth_until = Some(f.start + DAY);
    let failed = f.policy.failed(newer, slot, f.at(1_000), f.at(1_000));
    assert!(matches!(failed, Failed::Covered), "{failed:?}");
    let written = f.written()[&number].clone();
    let after = Clocks {
        now: f.start + 12 * HOUR,
        wall: clocks().wall + 12 * HOUR,
    };
    let mut next = Fixture::new(10).policy;
    let remembered = next.remember_held(number, written, recipient(2 * DAY), &hasher(), after);
    assert_ne!(remembered, Remembered::Expired);
}

/// "both" became "production": where a token lives is known from before.
#[test]
fn a_token_that_lives_in_the_other_environment_is_not_taken_for_dead_where_that_is_not_asked_any_more() {
    let mut f = Fixture::new(10);
    let now = f.start;
    let mut job = job_of("a.org", "t");
    (job.lane, job.elsewhere) = (LaneId::Second, crate::job::Elsewhere::Unasked);
    let generation = f.policy.generation();
    f.policy
        .answered(&mut job, &mut Tries::new(now, 0), Ok(()), generation, now, 0.0);
    assert_eq!(f.policy.home(job.token), LaneId::Second);
    assert!(!dies_of_two_words(&mut f, "t", PushError::TokenDoubted));
    assert!(dies_of_two_words(&mut f, "u", PushError::TokenDoubted));
}

/// The registry learns a little later where a device is at home, so that it may say what was true before.
#[test]
fn a_home_that_the_registry_says_is_believed_where_nothing_newer_is_known() {
    let mut f = Fixture::new(10);
    let (here, there) = (job_of("a.org", "here").token, job_of("a.org", "there").token);
    f.answer("a.org", "here", Ok(()), 0);
    let changes = f.policy.home_changes();
    for token in [here, there, there] {
        f.policy.hear_home(token);
    }
    assert_eq!(
        (f.policy.home(here), f.policy.home(there)),
        (LaneId::Main, LaneId::Second)
    );
    assert_eq!(f.policy.home_changes(), changes + 1, "it is written down once");
    // It protects a device as what was learnt here does.
    assert!(!dies_of_two_words(&mut f, "there", PushError::TokenDoubted));
    assert!(dies_of_two_words(&mut f, "u", PushError::TokenDoubted));
    f.answer("a.org", "there", Ok(()), 0);
    assert_eq!(f.policy.home(there), LaneId::Main);
    f.policy.hear_home(there);
    assert_eq!(f.policy.home(there), LaneId::Main, "it was accepted here since");
}

/// Few ask the other environment, so that nobody sees that it calls all its tokens wrong: with it the other one is believed alone.
#[test]
fn a_token_that_may_live_in_the_other_environment_is_not_taken_for_dead_while_that_accepts_nobody() {
    let in_second = |token, elsewhere| {
        let mut job = job_of("a.org", token);
        (job.lane, job.elsewhere) = (LaneId::Second, elsewhere);
        job
    };
    for accepts in [false, true] {
        let mut f = Fixture::new(10);
        let (generation, mut dies) = (f.policy.generation(), false);
        for hours in 0..50 {
            let millis = 3_600_000 * hours;
            for other in 0..20 {
                f.answer("a.org", &format!("main {other}"), Ok(()), millis + other);
            }
            let now = f.at(millis + 100);
            let mut tries = Tries::new(now, 0);
            for other in ["second 0", "second 1"] {
                let mut job = in_second(other, crate::job::Elsewhere::Unasked);
                if accepts || hours == 0 {
                    f.policy
                        .answered(&mut job, &mut tries, Ok(()), generation, now, 0.0);
                }
            }
            let said = crate::job::Said::Wrong;
            let mut job = in_second("t", crate::job::Elsewhere::Asked { said });
            let failure = Failure::new(PushError::TokenDoubted, "reason", "answer", "");
            let answered = f
                .policy
                .answered(&mut job, &mut tries, Err(&failure), generation, now, 0.0);
            dies |= matches!(answered.next, Next::Dead { .. });
        }
        assert_eq!(dies, accepts);
    }
}

/// A small app that names the wrong module is a small share of all that is answered.
#[test]
fn of_an_app_that_is_another_modules_no_token_is_taken_for_dead() {
    for (error, dies) in [
        (PushError::TokenOfAnotherApp, false),
        (PushError::TokenDoubted, true),
    ] {
        let mut f = Fixture::new(10);
        let mut dead = 0;
        for hours in 0..50 {
            for other in 0..50 {
                f.answer(
                    "a.org",
                    &format!("other {other}"),
                    Ok(()),
                    3_600_000 * hours + other,
                );
            }
            for token in 0..4 {
                let millis = 3_600_000 * hours + 100 + token;
                let answered = f.answer("a.org", &format!("t{token}"), Err(error), millis);
                dead += u32::from(matches!(answered.next, Next::Dead { .. }));
            }
        }
        assert_eq!(dead > 0, dies, "{error:?}");
    }
    let mut f = Fixture::new(10);
    assert!(
        dies_of_two_words(&mut f, "t", PushError::TokenOfAnotherApp),
        "one alone is one of nobody's"
    );
}

/// Whether a token is dead that is called wrong again and again for two days, while others are accepted.
fn dies_of_two_words(f: &mut Fixture, token: &str, error: PushError) -> bool {
    let mut dies = false;
    let before = f.policy.clock.seconds(f.start);
    for hours in 0..50_u64 {
        let millis = 3_600_000 * hours + before % 1_000;
        for other in 0..20 {
            f.answer("a.org", &format!("other {other}"), Ok(()), millis + other);
        }
        let answered = f.answer("a.org", token, Err(error), millis + 100);
        dies |= matches!(answered.next, Next::Dead { .. });
    }
    dies
}

/// While a push waits for its turn in one lane, a newer one takes its place that is for the other one.
#[test]
fn a_push_takes_the_permit_of_the_lane_in_which_it_waited() {
    let mut f = Fixture::new(1);
    let in_lane = |lane| {
        let mut job = job_of("a.org", "t");
        (job.lane, job.elsewhere) = (lane, crate::job::Elsewhere::Unasked);
        job.worth_until = Some(f.start + HOUR);
        job
    };
    let (older, newer) = (in_lane(LaneId::Second), in_lane(LaneId::Main));
    f.policy.hold(older, HoldUntil::Due(f.at(1_000)));
    let sender = job_of("b.org", "other").sender;
    assert!(matches!(
        f.policy.take_turn(LaneId::Second, &sender, || 1),
        Turn::Now
    ));
    assert!(matches!(
        f.policy.take_turn(LaneId::Main, &sender, || 2),
        Turn::Now
    ));
    while f.policy.make_due(f.at(1_000)) {}
    assert!(f.policy.grant(f.at(1_000)).is_none(), "both lanes are full");
    f.policy.hold(newer, HoldUntil::Back);
    f.policy.give_back_permit(LaneId::Second);
    assert!(f.policy.grant(f.at(2_000)).is_none(), "it is for the other lane");
    while f.policy.make_due(f.at(3_000)) {}
    assert!(f.policy.grant(f.at(3_000)).is_none(), "which is full");
    f.policy.give_back_permit(LaneId::Main);
    let Some(Grant::Held(attempt)) = f.policy.grant(f.at(3_000)) else {
        panic!("it has its turn");
    };
    assert_eq!(attempt.job.lane, LaneId::Main);
}
