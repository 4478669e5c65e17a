//! The end.

use super::*;

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
/// one has been taken from the queue and is in the line, the others are in the queue: each counts.
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
