//! What is held goes out at its time, although nothing else happens to the module then.

use super::*;

/// When the provider got pushes to a token, in seconds since the start.
fn times_of(f: &Fixture, token: &str) -> Vec<f64> {
    let attempts = f.provider.attempts().into_iter();
    attempts
        .filter(|attempt| attempt.token == token)
        .map(|attempt| attempt.at.duration_since(f.start).as_secs_f64())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_push_that_wanted_a_permit_when_the_pause_began_goes_out_at_its_end() {
    let f = Fixture::with(one_at_a_time(), Class::High);
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.settled("t"), Outcome::Queued);
    seconds(19).await;
    f.provider.queue([Step::SlowFail(5_000, pause(60))]);
    assert_eq!(f.push("u").await, Outcome::ProviderUnavailable);
    seconds(100).await;
    let times = times_of(&f, "t");
    assert_eq!(times.len(), 2);
    assert_about(times[1], 84.0);
}

#[tokio::test(start_paused = true)]
async fn a_push_that_got_its_permit_while_its_token_was_silenced_goes_out_afterwards() {
    let two = ModuleSettings {
        max_in_flight: 2,
        ..settings()
    };
    let f = Fixture::with(two, Class::High);
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.settled("t"), Outcome::Queued);
    seconds(19).await;
    f.provider.queue([
        Step::SlowFail(5_000, PushError::TokenBusy),
        Step::SlowTake(20_000),
    ]);
    let low = Request {
        token: "t",
        choice: Choice::Named,
        urgency: Urgency::Low,
        count: None,
        domain: "a.example",
        registered: None,
    };
    let Admission::Admitted(low) = f.module.admit(low, Instant::now()) else {
        panic!("it has a window of its own");
    };
    let low = tokio::spawn(low.deliver());
    // It is the first one at the provider, however long it is delayed.
    sleep(Duration::from_millis(100)).await;
    let long = f.publish("u");
    assert_eq!(low.await.unwrap(), Outcome::Queued);
    assert_eq!(long.await.unwrap(), Outcome::Accepted);
    seconds(700).await;
    let times = times_of(&f, "t");
    assert_eq!(times.len(), 4, "{times:?}");
    assert_about(times[2], 624.0);
    assert_eq!(f.module.lost(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_during_a_pause_goes_out_when_other_settings_end_it() {
    let f = Fixture::new();
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.settled("t"), Outcome::Queued);
    f.provider.queue([Step::Fail(pause(3_600))]);
    assert_eq!(f.push("u").await, Outcome::ProviderUnavailable);
    seconds(30).await;
    let backend = Backend {
        provider: Arc::clone(&f.provider),
        high: Class::High,
        digest: 2,
    };
    f.module.replace(Box::new(backend), settings());
    seconds(1).await;
    let times = times_of(&f, "t");
    assert_eq!(times.len(), 2);
    assert_about(times[1], 30.0);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_during_a_pause_goes_out_when_the_credentials_are_proven() {
    let f = Fixture::new();
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.settled("t"), Outcome::Queued);
    f.provider.queue([Step::Fail(pause(3_600))]);
    assert_eq!(f.push("u").await, Outcome::ProviderUnavailable);
    seconds(30).await;
    f.module.verify(Instant::now()).await.unwrap();
    seconds(1).await;
    let times = times_of(&f, "t");
    assert_eq!(times.len(), 2);
    assert_about(times[1], 30.0);
}
