//! A provider with two lanes, of which each knows other tokens.

use super::*;

/// The provider of each lane.
struct Two([Arc<Provider>; 2]);

impl PushTrait for Two {
    fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
        Some(token.into())
    }

    fn has_second(&self) -> bool {
        true
    }

    fn class(&self, urgency: Urgency) -> Class {
        Class::of(urgency)
    }

    fn send<'a>(&'a self, push: &'a Push) -> Sending<'a> {
        self.send_in(LaneId::Main, push)
    }

    fn send_in<'a>(&'a self, lane: LaneId, push: &'a Push) -> Sending<'a> {
        let Self([main, second]) = self;
        Box::pin(match lane {
            LaneId::Second => second.answer(push),
            LaneId::Main | LaneId::Vendor(_) | LaneId::Origin(_) => main.answer(push),
        })
    }

    fn verify(&self, _deadline: std::time::Instant) -> Verifying<'_> {
        Box::pin(async { Ok("nothing to prove".into()) })
    }

    fn status(&self) -> BackendStatus {
        BackendStatus::default()
    }
}

/// A module whose second lane has this provider.
fn two(settings: ModuleSettings) -> (Fixture, Arc<Provider>) {
    let (main, second) = (Arc::<Provider>::default(), Arc::<Provider>::default());
    let backend = Box::new(Two([Arc::clone(&main), Arc::clone(&second)]));
    let drain = Drain::default();
    let senders = Senders::new(TokenHasher::new().unwrap());
    let module = Module::new("m", backend, settings, senders, drain.clone());
    drain.spawn(Arc::clone(&module).run(Liveness::new().probe("m")));
    let fixture = Fixture {
        module,
        provider: main,
        drain,
        start: Instant::now(),
    };
    (fixture, second)
}

fn unlimited(mut settings: ModuleSettings) -> ModuleSettings {
    settings.ratelimit.enabled = false;
    settings
}

const WRONG: Step = Step::Fail(PushError::TokenDoubted);

#[tokio::test(start_paused = true)]
async fn a_token_is_tried_where_it_last_worked_and_once_elsewhere() {
    let (f, second) = two(unlimited(settings()));
    f.provider.queue([WRONG]);
    assert_eq!(f.push("a").await, Outcome::Accepted);
    assert_eq!((f.provider.count(), second.count()), (1, 1));
    assert_eq!(f.push("a").await, Outcome::Accepted);
    assert_eq!((f.provider.count(), second.count()), (1, 2), "at home");
    second.queue([WRONG]);
    assert_eq!(f.push("a").await, Outcome::Accepted);
    assert_eq!((f.provider.count(), second.count()), (2, 3), "it has moved");
    assert_eq!(f.push("a").await, Outcome::Accepted);
    assert_eq!((f.provider.count(), second.count()), (3, 3));
    let [first, other] = [f.provider.attempts(), second.attempts()];
    assert_eq!(first[0].id, other[0].id, "it is one push");
    assert_eq!(f.module.changes()[2], 2);
    let (homes, _) = f.module.homes(0);
    assert!(homes.is_empty());
}

/// The words of one lane alone are none.
#[tokio::test(start_paused = true)]
async fn what_one_lane_says_counts_for_nothing_before_the_other_has_answered() {
    let (f, second) = two(unlimited(settings()));
    f.earn_belief().await;
    for word in WORDS {
        for number in 0..30 {
            f.provider.queue([Step::Fail(word)]);
            let token = format!("{word:?} {number}");
            assert_eq!(f.push(&token).await, Outcome::Accepted, "{token}");
        }
    }
    // The other one does not answer: the server is told to wait, and nothing is blocked.
    for (number, word) in WORDS.into_iter().enumerate() {
        let token = format!("unanswered {number}");
        f.provider.queue([Step::Fail(word)]);
        second.queue([Step::Silence]);
        assert_eq!(f.push(&token).await, Outcome::ProviderUnavailable, "{word:?}");
        assert_eq!(f.push(&token).await, Outcome::Accepted);
    }
}

#[tokio::test(start_paused = true)]
async fn what_both_reject_is_weighed_as_ever() {
    let (f, second) = two(unlimited(settings()));
    f.earn_belief().await;
    for (number, words, outcome) in [
        (0, [Step::Fail(GONE), WRONG], Outcome::TokenDead),
        (1, [WRONG, WRONG], Outcome::TokenBlocked),
    ] {
        let token = format!("dead {number}");
        let [first, other] = words;
        f.provider.queue([first]);
        second.queue([other]);
        assert_eq!(f.push(&token).await, outcome, "{number}");
        let asked = (f.provider.count(), second.count());
        assert_eq!(f.push(&token).await, outcome, "{number}");
        assert_eq!(
            (f.provider.count(), second.count()),
            asked,
            "nobody is asked again"
        );
    }
}

/// The one that is away keeps its own pushes waiting, and nobody else's.
#[tokio::test(start_paused = true)]
async fn a_push_waits_for_the_lane_that_is_away() {
    for error in [LATER, pause(60)] {
        let (f, second) = two(unlimited(holding()));
        let disk = f.keep();
        f.provider.queue([WRONG, WRONG]);
        second.always(Step::Fail(error));
        assert_eq!(f.at_once("a").await, Outcome::Queued, "{error:?}");
        assert_eq!(f.at_once("b").await, Outcome::Queued, "{error:?}");
        assert_eq!(f.at_once("c").await, Outcome::Accepted, "the other lane is well");
        assert_eq!((f.module.held(), disk.numbers().len()), (2, 2));
        seconds(300).await;
        assert_eq!(f.module.held(), 2, "{error:?}");
        assert_eq!(f.at_once("d").await, Outcome::Accepted);
        second.always(Step::Take);
        seconds(130).await;
        assert_eq!((f.module.held(), f.module.lost()), (0, 0), "{error:?}");
        assert!(disk.numbers().is_empty());
        let count = f.provider.count();
        assert_eq!(f.push("a").await, Outcome::Accepted);
        assert_eq!(f.provider.count(), count, "it is known where it is at home");
        f.drain.begin();
    }
}

/// Of a push that asks the second lane, the first one has its permit back at once.
#[tokio::test(start_paused = true)]
async fn a_lane_that_is_slow_takes_no_permit_of_the_other() {
    let (f, second) = two(unlimited(one_at_a_time()));
    second.always(Step::SlowTake(20_000));
    f.provider.queue([WRONG]);
    let slow = f.publish("elsewhere");
    seconds(1).await;
    assert_eq!(second.count(), 1);
    for number in 0..10 {
        assert_eq!(
            f.at_once(&format!("t{number}")).await,
            Outcome::Accepted,
            "{number}"
        );
    }
    f.provider.queue([WRONG, WRONG]);
    for push in [f.publish("too"), f.publish("late")] {
        assert_eq!(
            push.await.unwrap(),
            Outcome::ProviderUnavailable,
            "no turn in time"
        );
    }
    assert_eq!(slow.await.unwrap(), Outcome::Accepted);
    assert_eq!((f.provider.count(), second.count()), (13, 1));
}

/// However many go on in the second lane, it has no more at a time than its permits.
#[tokio::test(start_paused = true)]
async fn a_held_push_takes_a_turn_in_the_lane_that_it_goes_on_in() {
    let mut settings = unlimited(holding());
    settings.max_in_flight = 2;
    let (f, second) = two(settings);
    f.provider.always(Step::Fail(LATER));
    for number in 0..5 {
        assert_eq!(f.push(&format!("t{number}")).await, Outcome::Queued);
    }
    second.always(Step::SlowTake(8_000));
    f.provider.always(WRONG);
    seconds(300).await;
    assert_eq!(
        (f.module.held(), f.module.lost(), second.most_under_way()),
        (0, 0, 2)
    );
    f.drain.begin();
}

/// What was held for the main lane goes on in the other one, whether that is well or not.
#[tokio::test(start_paused = true)]
async fn a_held_push_that_was_for_the_other_lane_goes_on_there() {
    for is_away in [false, true] {
        let (f, second) = two(unlimited(holding()));
        f.provider.always(Step::Fail(LATER));
        let mut pushes = Vec::new();
        for number in 0..5 {
            pushes.push(f.publish(&format!("t{number}")));
        }
        for push in pushes {
            assert_eq!(push.await.unwrap(), Outcome::Queued);
        }
        assert_eq!(f.module.held(), 5);
        if is_away {
            second.always(Step::Fail(LATER));
        }
        f.provider.always(WRONG);
        seconds(120).await;
        if is_away {
            assert_eq!(f.module.held(), 5);
            second.always(Step::Take);
            seconds(130).await;
        }
        assert_eq!((f.module.held(), f.module.lost()), (0, 0), "{is_away}");
        // What is none of its pushes tells nobody that the main lane is back; the next one of its own does.
        f.provider.always(Step::Take);
        f.push("fine").await;
        seconds(30).await;
        assert_eq!((f.module.held(), f.module.lost()), (0, 0), "{is_away}");
        assert_eq!(f.provider.attempts().last().unwrap().token, "fine");
        assert_eq!(f.at_once("fine").await, Outcome::Accepted);
        f.drain.begin();
    }
}
