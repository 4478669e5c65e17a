//! The rate limit and the queue.

use super::*;

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
            count: None,
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

/// Otherwise a crash between the two could take a push that was acknowledged.
#[tokio::test(start_paused = true)]
async fn what_stands_for_a_refused_push_is_written_down_before_that_is_acknowledged() {
    for (is_written, expected) in [
        (true, [Outcome::Queued, Outcome::Coalesced]),
        (false, [Outcome::Overloaded; 2]),
    ] {
        let f = Fixture::with(acknowledging(), Class::High);
        let disk = f.keep();
        assert_eq!(f.push("t").await, Outcome::Accepted);
        *disk.slow.lock().unwrap() = Some(Vec::new());
        let publishes = [f.publish("t"), f.publish("t")];
        seconds(1).await;
        assert!(publishes.iter().all(|publish| !publish.is_finished()));
        for acknowledge in disk.slow.lock().unwrap().take().unwrap() {
            acknowledge.send(is_written).unwrap();
        }
        for (publish, expected) in publishes.into_iter().zip(expected) {
            assert_eq!(publish.await.unwrap(), expected);
        }
        if is_written {
            assert_eq!(f.settled("t"), Outcome::Coalesced);
        }
    }
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
async fn a_queued_push_that_meets_a_block_is_lost_only_if_nobody_knows_why() {
    for (error, lost) in [(PushError::Unexplained, 1), (PushError::TokenDoubted, 0)] {
        let f = Fixture::new();
        f.provider.queue([Step::SlowFail(15_000, error)]);
        let first = f.publish("t");
        seconds(1).await;
        assert_eq!(f.settled("t"), Outcome::Queued);
        assert_eq!(first.await.unwrap(), Outcome::TokenBlocked);
        seconds(60).await;
        assert_eq!(
            (f.provider.count(), f.module.held(), f.module.lost()),
            (1, 0, lost)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_provider_says_against_the_token_of_a_queued_push_is_not_a_loss() {
    let f = Fixture::new();
    assert_eq!(f.push("t").await, Outcome::Accepted);
    f.provider.queue([Step::Fail(PushError::TokenDoubted)]);
    assert_eq!(f.settled("t"), Outcome::Queued);
    seconds(60).await;
    assert_eq!((f.provider.count(), f.module.held(), f.module.lost()), (2, 0, 0));
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
