//! The line for permits.

use super::*;

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
