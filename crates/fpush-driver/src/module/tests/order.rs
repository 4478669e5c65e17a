//! The order in which a publish is looked at: block list, token format, rate limit, line.

use super::*;

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
        count: None,
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
