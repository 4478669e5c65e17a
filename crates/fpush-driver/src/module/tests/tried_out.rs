//! A push that the operator wants.

use super::*;

/// The operator has mended something at the provider.
#[tokio::test(start_paused = true)]
async fn credentials_that_the_provider_accepts_again_end_the_pause() {
    let f = Fixture::new();
    f.provider.queue([Step::Fail(pause(600))]);
    assert_eq!(f.push("a").await, Outcome::ProviderUnavailable);
    assert_eq!(f.settled("a"), Outcome::ProviderUnavailable);
    assert!(f.module.verify(Instant::now()).await.is_ok());
    assert_eq!(f.push("a").await, Outcome::Accepted);
}

#[tokio::test(start_paused = true)]
async fn the_operators_push_goes_out_whatever_the_limiter_says_and_leaves_no_trace() {
    let f = Fixture::new();
    assert_eq!(f.push("a").await, Outcome::Accepted);
    assert!(matches!(
        f.module.try_out("a", Urgency::High).await,
        Ok(Class::High)
    ));
    f.provider.queue([Step::Fail(GONE)]);
    let refused = f.module.try_out("b", Urgency::Low).await;
    assert!(matches!(refused, Err(NotSent::Refused(failure)) if failure.error == GONE));
    assert_eq!(f.push("b").await, Outcome::Accepted, "nothing is held against it");
    let no_token = f.module.try_out("foreign", Urgency::High).await;
    assert!(matches!(no_token, Err(NotSent::Answered(Outcome::TokenInvalid))));
    f.provider.queue([
        Step::Fail(PushError::Reconnected),
        Step::Fail(PushError::TooLarge),
    ]);
    assert!(f.module.try_out("c", Urgency::High).await.is_ok());
    assert_eq!(f.provider.attempts().last().unwrap().form, Form::Minimal);
}
