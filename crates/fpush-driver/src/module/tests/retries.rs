//! What is tried again, and how often.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_tried_again_at_once_up_to_the_bound() {
    let f = Fixture::new();
    f.provider.queue([Step::Fail(PushError::Reconnected); 2]);
    assert_eq!(f.at_once("t").await, Outcome::Accepted);
    let attempts = f.provider.attempts();
    assert_eq!(attempts.len(), 3);
    assert!(
        attempts.iter().all(|attempt| attempt.id == attempts[0].id),
        "the same push"
    );

    f.provider.queue([Step::Fail(PushError::Reconnected); 3]);
    let (outcome, took) = f.timed("u").await;
    assert_eq!(outcome, Outcome::Accepted);
    assert!((0.5..=0.75 + SLACK).contains(&took), "then with a pause: {took}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_tried_again_with_growing_pauses_until_the_reply_is_due() {
    let f = Fixture::new();
    f.provider.always(Step::Fail(LATER));
    let (outcome, took) = f.timed("t").await;
    assert_eq!(outcome, Outcome::ProviderUnavailable);
    assert!((15.0..25.0).contains(&took), "{took}");
    let attempts = f.provider.attempts();
    assert!((5..=6).contains(&attempts.len()), "{}", attempts.len());
    assert!(attempts.iter().all(|attempt| attempt.id == attempts[0].id));
    let times = f.times();
    for (number, pair) in times.windows(2).enumerate() {
        let least = 0.5 * f64::from(2u32.pow(number as u32));
        let pause = pair[1] - pair[0];
        assert!(
            (least..least * 1.5 + 0.002).contains(&pause),
            "pause {number}: {pause}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_ends_in_time_costs_nothing() {
    let f = Fixture::new();
    f.provider
        .queue([Step::Fail(LATER), Step::SlowFail(5_000, LATER)]);
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.provider.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_silent_provider_is_answered_for_after_25_seconds() {
    let f = Fixture::new();
    f.provider.always(Step::Silence);
    let (outcome, took) = f.timed("t").await;
    assert_eq!(outcome, Outcome::ProviderUnavailable);
    assert_about(took, 25.0);
    assert_eq!(f.provider.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_provider_asks_for_is_waited_out_or_answered_at_once() {
    let f = Fixture::new();
    f.provider.queue([Step::Fail(after(10))]);
    let (outcome, took) = f.timed("t").await;
    assert_eq!(outcome, Outcome::Accepted);
    assert!((10.0..=15.0 + SLACK).contains(&took), "{took}");

    f.provider.queue([Step::Fail(after(3_600))]);
    assert_eq!(f.at_once("u").await, Outcome::ProviderUnavailable);
    assert_eq!(f.at_once("u").await, Outcome::Accepted, "it used up no slot");
}

#[tokio::test(start_paused = true)]
async fn renewed_credentials_are_tried_at_once_but_only_once() {
    let f = Fixture::new();
    f.provider.queue([Step::Fail(PushError::Renewed)]);
    assert_eq!(f.at_once("t").await, Outcome::Accepted);

    f.provider.queue([Step::Fail(PushError::Renewed); 2]);
    let (outcome, took) = f.timed("u").await;
    assert_eq!(outcome, Outcome::Accepted);
    assert!((0.5..=0.75 + SLACK).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_sent_in_the_minimal_form_once() {
    let f = Fixture::new();
    f.provider.queue([Step::Fail(PushError::TooLarge)]);
    assert_eq!(f.at_once("t").await, Outcome::Accepted);
    f.provider.queue([Step::Fail(PushError::TooLarge); 2]);
    assert_eq!(f.at_once("u").await, Outcome::ProviderUnavailable);
    let forms: Vec<_> = f.provider.attempts().iter().map(|attempt| attempt.form).collect();
    assert_eq!(forms, [Form::Full, Form::Minimal, Form::Full, Form::Minimal]);
    assert_eq!(f.push("u").await, Outcome::Accepted, "the token is innocent");
}

#[tokio::test(start_paused = true)]
async fn our_mistake_is_not_tried_again_and_costs_no_device_anything() {
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider.always(Step::Fail(PushError::Misconfigured));
    for _ in 0..3 {
        assert_eq!(f.at_once("t").await, Outcome::ProviderUnavailable);
    }
    assert_eq!(f.provider.count(), 3);
}
