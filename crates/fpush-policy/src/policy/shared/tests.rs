//! What other instances say, with the time as an argument.

use std::sync::Arc;

use fpush_push::{Failure, Fingerprint, PushError};

use super::*;
use crate::{
    attempts::{Next, Tries},
    known::LastAccepted,
    policy::{Decision, Failed, Grant, HeldEnd, Publish},
    settings::ModuleSettings,
    shared::{DeadBlock, SharedSlot, SharedWord},
    testing::{clocks, hasher, job, job_of, settings},
};

struct Fixture {
    policy: Policy<()>,
    start: Instant,
}

impl Fixture {
    fn new() -> Self {
        let clocks = clocks();
        let mut policy = Policy::new(settings(), 0, clocks);
        policy.share(true);
        Self {
            policy,
            start: clocks.now,
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn decide(&mut self, job: &PushJob, seconds: u64) -> Decision {
        let publish = Publish {
            lane: job.lane,
            target: job.target(),
            registered: false,
            spacing: None,
            time_to_live: Duration::from_secs(4 * 3_600),
            sender: &job.sender,
        };
        self.policy.publish(&publish, self.at(seconds))
    }

    /// The slot of a publish that this instance would send.
    #[track_caller]
    fn slot(&mut self, job: &PushJob, seconds: u64) -> RateSlot {
        match self.decide(job, seconds) {
            Decision::Send { slot, .. } => slot,
            other => panic!("{other:?}"),
        }
    }

    /// What becomes of a publish to which all instances say this.
    #[track_caller]
    fn claimed(&mut self, token: &str, claimed: Claimed, seconds: u64) -> Confirmed {
        let job = job(token);
        let slot = self.slot(&job, seconds);
        self.policy.claimed(job, slot, claimed, self.at(seconds))
    }

    /// The provider answers a push of a known domain.
    fn answer(&mut self, token: &str, error: Option<PushError>, seconds: u64) {
        self.answer_to(known(token), error, seconds);
    }

    fn answer_to(&mut self, mut job: Box<PushJob>, error: Option<PushError>, seconds: u64) {
        let now = self.at(seconds);
        let failure = error.map(|error| Failure::new(error, "reason", "answer", ""));
        let answer = failure.as_ref().map_or(Ok(()), Err);
        let mut tries = Tries::new(now, 0);
        let generation = self.policy.generation();
        self.policy
            .answered(&mut job, &mut tries, answer, generation, now, 0.0);
    }

    /// A token of a known domain is called dead, and other instances say this to that. Returns how many are dead here with it, what
    /// becomes of it, and what they are told.
    fn die(&mut self, token: &str, claimed: Option<bool>) -> (u32, Result<(), Outcome>, Vec<Change>) {
        let (mut job, now) = (known(token), self.at(1));
        let failure = Failure::new(PushError::TokenGone { since: None }, "reason", "answer", "");
        let mut tries = Tries::new(now, 0);
        let answered = self
            .policy
            .answered(&mut job, &mut tries, Err(&failure), 0, now, 0.0);
        assert_eq!(answered.next, Next::Dead { since: None });
        let deaths = self.policy.deaths(LaneId::Main).unwrap();
        let claimed = self.policy.death_claimed(&job, claimed, now);
        (deaths.count, claimed, self.policy.take_outbox())
    }

    /// All that a new engine is told.
    fn all(&self, seconds: u64) -> Vec<Change> {
        let (mut all, mut place) = (Vec::new(), Some(SharedPlace::default()));
        while let Some(from) = place {
            let part;
            (part, place) = self.policy.shared_part(from, self.at(seconds));
            all.extend(part);
        }
        all
    }
}

/// A push of a known domain.
fn known(token: &str) -> Box<PushJob> {
    let mut job = job(token);
    job.sender = Arc::new(job.sender.accepted(LastAccepted::Today));
    job
}

fn slot_key(token: &str) -> Fingerprint {
    job(token).target().slot_key()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_window_of_another_instance_makes_a_push_the_queued_one() {
    let mut f = Fixture::new();
    let confirmed = f.claimed("t", Claimed::Held(seconds(7)), 0);
    assert!(matches!(confirmed, Confirmed::Held(Held { first: true, .. })));
    assert_eq!(f.policy.next_timer(f.at(0)), Some(f.at(7)));
    assert_eq!(f.decide(&job("t"), 1), Decision::Answer(Outcome::Refused));
    // When its time has come it is claimed again.
    while f.policy.make_due(f.at(7)) {}
    let Some(Grant::Held(attempt)) = f.policy.grant(f.at(7)) else {
        panic!("it is due");
    };
    let claim = f.policy.claim(&attempt.job, Wish::SendHeld);
    assert_eq!((claim.slot_key(), claim.window), (slot_key("t"), seconds(20)));
    let later = Claimed::Held(seconds(5));
    let now = f.at(7);
    let unsent = f.policy.claimed_held(&attempt.job, attempt.slot, later, now);
    let Err(Unsent::Later(until)) = unsent else {
        panic!("{unsent:?}");
    };
    assert_eq!(
        f.policy.held_waits(attempt.number, attempt.slot, until, now),
        None,
        "it waits"
    );
    assert_eq!(f.policy.next_timer(now), Some(f.at(12)));
    let queued = Change::Queue(slot_key("t"), seconds(5));
    assert_eq!(f.policy.take_outbox(), [queued]);
}

#[test]
fn a_slot_that_was_not_used_is_given_back_to_all() {
    let mut f = Fixture::new();
    let shared = SharedSlot(77);
    let Confirmed::Send(_, slot) = f.claimed(
        "t",
        Claimed::Free {
            slot: Some(shared),
            covers: None,
        },
        0,
    ) else {
        panic!("it goes out");
    };
    f.policy.give_back(slot);
    assert_eq!(f.policy.take_outbox(), [Change::GiveBack(slot_key("t"), shared)]);
    // One that only this instance knows is nobody else's.
    let slot = f.slot(&job("u"), 0);
    f.policy.give_back(slot);
    assert_eq!(f.policy.take_outbox(), []);
}

#[test]
fn what_is_held_here_goes_if_one_is_queued_elsewhere_and_nobody_hears_of_it_twice() {
    let mut f = Fixture::new();
    f.slot(&job("t"), 0);
    let Decision::Hold { until, .. } = f.decide(&job("t"), 1) else {
        panic!("it is held");
    };
    let number = f.policy.hold(job("t"), until).number;
    let now = f.at(1);
    assert_eq!(
        f.policy
            .claimed_to_hold(number, job("t").push.id, Claimed::Queued, now),
        Outcome::Refused
    );
    assert_eq!(f.policy.held(), 0);
    // The other one's window is longer.
    let number = f.policy.hold(job("t"), until).number;
    let (id, held) = (job("t").push.id, Claimed::Held(seconds(40)));
    assert_eq!(f.policy.claimed_to_hold(number, id, held, now), Outcome::Queued);
    // A later push has taken its number: that one is acknowledged, and stays.
    let earlier = Uuid::from_u128(77);
    assert_eq!(
        f.policy.claimed_to_hold(number, earlier, Claimed::Queued, now),
        Outcome::Queued
    );
    assert_eq!(f.policy.held(), 1);
    assert_eq!(f.policy.next_timer(now), Some(f.at(41)));
}

#[test]
fn blocks_and_pauses_of_others_are_known_from_then_on() {
    let mut f = Fixture::new();
    let dead = Claimed::Blocked(BlockReason::Dead, seconds(1_000_000_000));
    assert!(matches!(
        f.claimed("t", dead, 0),
        Confirmed::Answer(Outcome::TokenDead)
    ));
    assert_eq!(f.decide(&job("t"), 1), Decision::Answer(Outcome::TokenDead));
    let longest = 5 * 86_400;
    assert!(
        matches!(f.decide(&job("t"), longest + 1), Decision::Send { .. }),
        "never longer than the rule has it"
    );
}

#[test]
fn a_pause_of_others_is_one_here_until_they_end_it() {
    let mut f = Fixture::new();
    let job_of = |f: &Fixture, token: &str| {
        let mut job = job(token);
        job.worth_until = Some(f.at(3_600));
        job
    };
    let paused = |f: &mut Fixture| {
        let job = job_of(f, "u");
        let slot = f.slot(&job, 0);
        let now = f.at(0);
        let confirmed = f.policy.claimed(job, slot, Claimed::Paused(seconds(60)), now);
        let Confirmed::Paused(job, slot, resume) = confirmed else {
            panic!("{confirmed:?}");
        };
        assert_eq!(resume, f.at(60));
        f.policy.failed(job, slot, resume, now)
    };
    assert!(matches!(paused(&mut f), Failed::Held(_)));
    let until_back = |decision| {
        matches!(
            decision,
            Decision::Hold {
                until: HoldUntil::Back,
                ..
            }
        )
    };
    assert!(until_back(f.decide(&job("v"), 1)));
    assert_eq!(f.policy.grant(f.at(1)).map(|_| ()), None, "nothing is tried");
    // What is held finds out whether it is over when they say so.
    f.policy.hear(News::Pause(None), f.at(2));
    while f.policy.make_due(f.at(2)) {}
    assert!(matches!(f.policy.grant(f.at(2)), Some(Grant::Held(probe)) if probe.is_probe));

    // Where nothing is held for outages, it is refused.
    let mut f = Fixture::new();
    let refused = Outcome::ProviderUnavailable;
    let now = f.at(0);
    f.policy.configure(
        ModuleSettings {
            hold_for: Duration::ZERO,
            ..settings()
        },
        0,
        now,
    );
    let mut job = job("u");
    job.worth_until = None;
    let slot = f.slot(&job, 0);
    let Confirmed::Paused(job, slot, resume) = f.policy.claimed(job, slot, Claimed::Paused(seconds(60)), now)
    else {
        panic!("it pauses");
    };
    assert_eq!(f.policy.failed(job, slot, resume, now), Failed::Refused(refused));
    assert_eq!(f.decide(&self::job("v"), 1), Decision::Answer(refused));
    f.policy.hear(News::Pause(None), f.at(2));
    assert!(matches!(f.decide(&self::job("v"), 3), Decision::Send { .. }));
}

#[test]
fn a_call_is_never_held_for_the_sake_of_others() {
    let mut f = Fixture::new();
    let mut call = job("t");
    call.push.class = Class::Voip;
    let slot = f.slot(&call, 0);
    let claim = f.policy.claim(&call, Wish::Send);
    assert!(claim.is_call());
    let now = f.at(0);
    let confirmed = f.policy.claimed(call, slot, Claimed::Held(seconds(5)), now);
    assert!(matches!(confirmed, Confirmed::Answer(Outcome::Refused)));
}

#[test]
fn all_that_others_should_know_is_told_as_it_happens_and_again_as_a_whole() {
    let mut f = Fixture::new();
    f.slot(&job("window"), 0);
    f.answer("doubted", Some(PushError::TokenDoubted), 0);
    let token = job("doubted").token;
    let told = f.policy.take_outbox();
    assert!(
        matches!(told[..], [Change::Word(a, word), Change::Block(b, BlockReason::Doubted, left)]
            if a == token && b == token && !word.beyond_doubt && left > seconds(590)),
        "{told:?}"
    );
    let slot = f.slot(&job("busy"), 0);
    let now = f.at(0);
    f.policy.busy(job("busy"), slot, now);
    let told = f.policy.take_outbox();
    assert!(
        matches!(told[..], [Change::Silence(..), Change::Queue(..)]),
        "{told:?}"
    );
    let pause = PushError::Pause {
        length: seconds(90),
        alarm: false,
    };
    f.answer("other", Some(pause), 0);
    assert_eq!(f.policy.take_outbox(), [Change::Pause(seconds(90))]);

    let all = f.all(1);
    let count = |is: fn(&Change) -> bool| all.iter().filter(|change| is(change)).count();
    assert_eq!(count(|change| matches!(change, Change::Pause(_))), 1);
    assert_eq!(count(|change| matches!(change, Change::Window(..))), 1);
    assert_eq!(count(|change| matches!(change, Change::Block(..))), 1);
    assert_eq!(count(|change| matches!(change, Change::Word(..))), 1);
    assert_eq!(count(|change| matches!(change, Change::Silence(..))), 1);
    assert_eq!(count(|change| matches!(change, Change::Queue(..))), 1);

    // A push that is accepted lifts what was said against its token, once.
    f.answer("doubted", None, 2);
    f.answer("doubted", None, 3);
    assert_eq!(f.policy.take_outbox(), [Change::Unblock(token)]);

    f.policy.share(false);
    f.answer("doubted", Some(PushError::TokenDoubted), 4);
    assert_eq!(f.policy.take_outbox(), []);
}

/// What may be about us needs a day in which this lane was watched; a device that is gone is gone.
#[test]
fn of_two_first_words_the_earlier_one_counts_unless_it_may_be_about_us() {
    let mut f = Fixture::new();
    let word = |beyond_doubt, age| SharedWord {
        age,
        last: age,
        days: 1,
        beyond_doubt,
    };
    let (gone, doubted) = (job("gone").token, job("doubted").token);
    let now = f.at(0);
    f.policy.hear(News::Word(gone, word(true, 7_200)), now);
    f.policy.hear(News::Word(doubted, word(false, 90_000)), now);
    let age = |f: &Fixture, token| {
        let all = f.all(0);
        let word = all.iter().find_map(|change| match change {
            Change::Word(of, word) if *of == token => Some(*word),
            _ => None,
        });
        word.map(|word| word.age)
    };
    assert_eq!((age(&f, gone), age(&f, doubted)), (Some(7_200), Some(0)));
    // A later one says nothing new, an earlier one does.
    f.policy.hear(News::Word(gone, word(true, 60)), now);
    assert_eq!(age(&f, gone), Some(7_200));
    f.policy.hear(News::Word(gone, word(true, 9_000)), now);
    assert_eq!(age(&f, gone), Some(9_000));
    f.policy.hear(News::Unblock(gone), now);
    assert_eq!(age(&f, gone), None);
}

/// Who was away hears of words that were lifted here meanwhile.
#[test]
fn a_word_from_before_a_push_was_accepted_here_is_lifted_for_all() {
    let mut f = Fixture::new();
    let token = job("t").token;
    let word = |age, last| {
        let (days, beyond_doubt) = (1, true);
        News::Word(
            token,
            SharedWord {
                age,
                last,
                days,
                beyond_doubt,
            },
        )
    };
    f.answer("t", None, 100);
    assert_eq!(f.policy.take_outbox(), []);
    let now = f.at(110);
    f.policy.hear(word(60, 0), now);
    assert_eq!(f.all(110), [], "it is not believed here");
    assert_eq!(f.policy.take_outbox(), [Change::Unblock(token)]);
    // It was accepted in between, whatever was said since.
    f.answer("t", Some(PushError::TokenGone { since: None }), 120);
    drop(f.policy.take_outbox());
    let now = f.at(130);
    f.policy.hear(word(3_600, 5), now);
    let age = |f: &Fixture| {
        f.all(130).iter().find_map(|change| match change {
            Change::Word(_, word) => Some(word.age),
            _ => None,
        })
    };
    assert_eq!(age(&f), Some(10), "its own stays");
    // What was said after that counts.
    f.policy.hear(word(20, 20), now);
    assert_eq!(age(&f), Some(20));
}

/// Who cannot ask the others takes one token for dead, and who is refused none.
#[test]
fn a_death_that_the_others_have_no_room_for_is_a_doubt() {
    let mut f = Fixture::new();
    for number in 0..60 {
        f.answer(&format!("accepted{number}"), None, 0);
    }
    drop(f.policy.take_outbox());
    let (count, claimed, told) = f.die("a", None);
    assert_eq!((count, claimed, told), (1, Ok(()), vec![]));
    let (count, claimed, told) = f.die("b", None);
    assert_eq!((count, claimed), (2, Err(Outcome::TokenBlocked)));
    let b = known("b").token;
    assert!(
        matches!(told[..], [Change::Word(word, _), Change::Deaths(own), Change::Block(block, BlockReason::Doubted, _)]
            if word == b && block == b && own.count == 1 && !own.calm),
        "{told:?}"
    );
    let (count, claimed, _) = f.die("c", Some(true));
    assert_eq!((count, claimed), (2, Ok(())));
    assert_eq!(f.die("d", Some(false)).1, Err(Outcome::TokenBlocked));
    assert_eq!(f.policy.deaths(LaneId::Main).unwrap().count, 2);
    let all = f.all(1);
    let of_deaths = |change: &&Change| matches!(change, Change::Deaths(own) if own.count == 2);
    assert_eq!(all.iter().filter(of_deaths).count(), 1);
    // It is over: that is said, although the count stays what it is.
    for number in 0..100 {
        f.answer(&format!("later{number}"), None, 2);
    }
    let told = f.policy.take_outbox();
    let over = told
        .iter()
        .filter(|change| matches!(change, Change::Deaths(own) if own.count == 0 && own.calm));
    assert!(over.count() > 0, "{told:?}");
}

/// The answer that completes the fifty may accept a push, or call a token dead that is taken for dead at once.
#[test]
fn that_an_incident_is_over_is_told_whichever_answer_shows_it() {
    for place in 0..50 {
        let mut f = Fixture::new();
        for number in 0..60 {
            f.answer(&format!("accepted{number}"), None, 0);
        }
        assert_eq!(f.die("refused", Some(false)).1, Err(Outcome::TokenBlocked));
        let mut told = Vec::new();
        for number in 0..50 {
            if number == place {
                told.extend(f.die("dead", Some(true)).2);
            } else {
                f.answer(&format!("later{number}"), None, 1);
                told.extend(f.policy.take_outbox());
            }
        }
        let over = told
            .iter()
            .filter(|change| matches!(change, Change::Deaths(own) if own.calm));
        assert_eq!(over.count(), 1, "{place}: {told:?}");
    }
}

/// An incident may have begun since.
#[test]
fn that_an_incident_was_over_while_there_were_no_others_is_not_told() {
    let mut f = Fixture::new();
    f.policy.share(false);
    for number in 0..60 {
        f.answer(&format!("accepted{number}"), None, 0);
    }
    f.die("dead", None).1.unwrap();
    for number in 0..120 {
        f.answer(&format!("later{number}"), None, 1);
    }
    assert_eq!(f.policy.deaths(LaneId::Main).unwrap().count, 0, "it was over");
    f.policy.share(true);
    let (.., told) = f.die("of another one", Some(true));
    assert_eq!(told, []);
}

#[test]
fn what_is_decided_alone_is_told() {
    let mut f = Fixture::new();
    let key = slot_key("t");
    for (wish, changes) in [
        (
            Wish::Send,
            vec![Change::Unqueue(key), Change::Window(key, seconds(20))],
        ),
        (
            Wish::SendHeld,
            vec![Change::Unqueue(key), Change::Window(key, seconds(20))],
        ),
        (Wish::Hold(seconds(7)), vec![Change::Queue(key, seconds(7))]),
    ] {
        let claim = f.policy.claim(&job("t"), wish);
        f.policy.decided_alone(&claim);
        assert_eq!(f.policy.take_outbox(), changes);
    }
}

#[test]
fn what_is_told_late_has_the_time_that_is_left() {
    let (key, late) = (slot_key("t"), seconds(60));
    let word = |age, last| SharedWord {
        age,
        last,
        days: 1,
        beyond_doubt: true,
    };
    let deaths = |calm| {
        Change::Deaths(OwnDeaths {
            lane: 0,
            count: 3,
            version: 7,
            calm,
        })
    };
    assert_eq!(deaths(true).after(seconds(0)), Some(deaths(true)));
    for (change, then) in [
        (Change::Pause(seconds(3_600)), Some(Change::Pause(seconds(3_540)))),
        (Change::Pause(seconds(60)), None),
        (Change::Window(key, seconds(20)), None),
        (
            Change::Silence(key, seconds(61)),
            Some(Change::Silence(key, seconds(1))),
        ),
        (Change::Block(key, BlockReason::Doubted, seconds(9)), None),
        // It waits for its permit, or for its next attempt.
        (
            Change::Queue(key, seconds(20)),
            Some(Change::Queue(key, seconds(0))),
        ),
        (
            Change::Word(key, word(5, 2)),
            Some(Change::Word(key, word(65, 62))),
        ),
        (Change::Unblock(key), Some(Change::Unblock(key))),
        (Change::Resume, Some(Change::Resume)),
        // The lane may be as it was, or not.
        (deaths(true), Some(deaths(false))),
    ] {
        assert_eq!(change.after(late), then, "{change:?}");
    }
}

/// Nobody knows whether it still holds it.
#[test]
fn what_another_instance_says_it_holds_is_never_acknowledged() {
    let mut f = Fixture::new();
    let mut ratelimit = settings().ratelimit;
    ratelimit.acknowledge_refused = true;
    f.policy.limiter.set_settings(ratelimit);
    assert!(matches!(
        f.claimed("t", Claimed::Queued, 0),
        Confirmed::Answer(Outcome::Refused)
    ));
    f.slot(&job("t"), 0);
    let Decision::Hold { until, .. } = f.decide(&job("t"), 1) else {
        panic!("it is held");
    };
    let number = f.policy.hold(job("t"), until).number;
    assert_eq!(
        f.decide(&job("t"), 2),
        Decision::Answer(Outcome::Coalesced),
        "this one is held here"
    );
    let now = f.at(2);
    assert_eq!(
        f.policy
            .claimed_to_hold(number, job("t").push.id, Claimed::Queued, now),
        Outcome::Refused
    );
}

/// Anybody can invent tokens and domains: what is said of those would displace what is said of devices.
#[test]
fn words_about_tokens_of_strangers_are_not_told() {
    let mut f = Fixture::new();
    f.answer_to(job_of("stranger.example", "t"), Some(PushError::TokenDoubted), 0);
    let told = f.policy.take_outbox();
    assert!(matches!(told[..], [Change::Block(..)]), "{told:?}");
    assert!(!f.all(1).iter().any(|change| matches!(change, Change::Word(..))));
    f.answer_to(known("u"), Some(PushError::TokenDoubted), 0);
    let told = f.policy.take_outbox();
    assert!(
        matches!(told[..], [Change::Word(..), Change::Block(..)]),
        "{told:?}"
    );
    // What was heard is told again: who told it knows its domain.
    let word = SharedWord {
        age: 9,
        last: 9,
        days: 1,
        beyond_doubt: true,
    };
    let now = f.at(1);
    f.policy.hear(News::Word(job("v").token, word), now);
    let all = f.all(1);
    let words = all.iter().filter(|change| matches!(change, Change::Word(..)));
    assert_eq!(words.count(), 2, "{all:?}");
}

#[test]
fn under_another_key_what_is_held_is_found_and_nothing_else() {
    let mut f = Fixture::new();
    f.slot(&job("t"), 0);
    f.answer("u", Some(PushError::TokenDoubted), 0);
    let Decision::Hold { until, .. } = f.decide(&job("t"), 1) else {
        panic!("it is held");
    };
    f.policy.hold(job("t"), until);
    let (hasher, now) = (hasher(), f.at(2));
    hasher.set_key([9; 16]);
    let domain = known("t").sender.share;
    for number in 0..60 {
        f.answer(&format!("accepted{number}"), None, 2);
    }
    assert!(f.policy.guard.is_proven_domain(domain));
    f.policy.rekey(&hasher, now);
    assert!(
        f.policy.guard.is_proven_domain(domain),
        "domains have a key of their own"
    );
    let queued = hasher.fingerprint("t").with_class(Class::High);
    assert_eq!(f.all(2), [Change::Queue(queued, seconds(18))]);
    while f.policy.make_due(f.at(20)) {}
    let Some(Grant::Held(attempt)) = f.policy.grant(f.at(20)) else {
        panic!("it is due");
    };
    assert_eq!(attempt.job.token, hasher.fingerprint("t"));
    let ended = Ended::Settled(Outcome::Accepted);
    let end = f
        .policy
        .held_ended(attempt.number, attempt.slot, &ended, f.at(20));
    assert_eq!(end, Some(HeldEnd::Delivered));
}

#[test]
fn a_dead_token_is_asked_for_once_an_hour_if_no_other_instance_has() {
    let mut f = Fixture::new();
    let device = job("t");
    assert_eq!(f.policy.claim(&device, Wish::Send).dead, DeadBlock::Holds);
    f.policy.blocklist.block(device.token, BlockReason::Dead, f.at(0));
    assert_eq!(f.decide(&device, 3_599), Decision::Answer(Outcome::TokenDead));
    let slot = f.slot(&device, 3_620);
    let claim = f.policy.claim(&device, Wish::Send);
    assert_eq!(claim.dead, DeadBlock::AskedAgain);
    assert_eq!(f.policy.claim(&device, Wish::SendHeld).dead, DeadBlock::Holds);
    // Another one has.
    let blocked = Claimed::Blocked(BlockReason::Dead, seconds(80_000));
    let confirmed = f.policy.claimed(job("t"), slot, blocked, f.at(3_620));
    assert!(matches!(confirmed, Confirmed::Answer(Outcome::TokenDead)));
    assert_eq!(f.decide(&device, 7_000), Decision::Answer(Outcome::TokenDead));
    assert!(matches!(f.decide(&device, 7_240), Decision::Send { .. }));
}
