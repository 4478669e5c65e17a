//! Pauses.

use super::*;

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
