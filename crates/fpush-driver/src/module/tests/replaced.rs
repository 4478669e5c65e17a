//! Another provider and other settings, while the daemon runs.

use super::*;

fn other() -> (Arc<Provider>, Box<Backend>) {
    let provider = Arc::<Provider>::default();
    let backend = Box::new(Backend {
        provider: Arc::clone(&provider),
        high: Class::High,
        digest: 1,
    });
    (provider, backend)
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_ends_where_it_began_and_all_else_goes_to_the_new_provider() {
    let f = Fixture::new();
    f.provider.queue([Step::Take, Step::SlowTake(3_000)]);
    assert_eq!(f.push("a").await, Outcome::Accepted);
    assert_eq!(f.push("a").await, Outcome::Queued);
    let slow = f.publish("slow");
    seconds(1).await;
    let (provider, backend) = other();
    f.module.replace(backend, settings());
    assert_eq!(f.push("b").await, Outcome::Accepted);
    assert_eq!(slow.await.unwrap(), Outcome::Accepted);
    seconds(20).await;
    let tokens = |provider: &Provider| -> Vec<_> {
        provider
            .attempts()
            .into_iter()
            .map(|attempt| attempt.token)
            .collect()
    };
    assert_eq!(tokens(&f.provider), ["a", "slow"]);
    assert_eq!(tokens(&provider), ["b", "a"], "the queued push, too");
}

#[tokio::test(start_paused = true)]
async fn what_has_no_time_left_is_not_sent_again_on_the_new_provider() {
    let f = Fixture::new();
    f.provider.always(Step::Silence);
    let silent = f.publish("a");
    seconds(1).await;
    let (provider, backend) = other();
    f.module.replace(backend, settings());
    assert_eq!(silent.await.unwrap(), Outcome::ProviderUnavailable);
    assert_eq!(provider.count(), 0, "its sender has the answer by then");
    assert_eq!(f.push("a").await, Outcome::Accepted, "it took no slot");
}

#[tokio::test(start_paused = true)]
async fn limiter_and_block_list_stay_and_the_pause_does_not() {
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider
        .queue([Step::Take, Step::Fail(GONE), Step::Fail(pause(60))]);
    assert_eq!(f.push("a").await, Outcome::Accepted);
    assert_eq!(f.push("dead").await, Outcome::TokenDead);
    assert_eq!(f.push("c").await, Outcome::ProviderUnavailable);
    let trouble = |f: &Fixture| f.module.status(Instant::now(), SystemTime::now()).trouble;
    assert_eq!(
        trouble(&f).map(|trouble| trouble.kind),
        Some(TroubleKind::Authentication)
    );
    let (_, backend) = other();
    f.module.replace(backend, settings());
    assert_eq!(trouble(&f), None);
    assert_eq!(f.push("c").await, Outcome::Accepted);
    assert_eq!(f.push("a").await, Outcome::Queued);
    assert_eq!(f.settled("dead"), Outcome::TokenDead);
}

/// It sends for another app, environment or project: what was said of tokens was said to somebody else.
#[tokio::test(start_paused = true)]
async fn under_another_digest_nothing_is_held_against_a_token() {
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider.queue(WORDS.map(Step::Fail));
    assert_eq!(f.push("dead").await, Outcome::TokenDead);
    assert_eq!(f.push("wrong").await, Outcome::TokenBlocked);
    let (provider, mut backend) = other();
    backend.digest = 2;
    f.module.replace(backend, settings());
    for token in ["dead", "wrong"] {
        assert_eq!(f.push(token).await, Outcome::Accepted, "{token}");
    }
    provider.queue([Step::Fail(GONE)]);
    assert_eq!(
        f.push("next").await,
        Outcome::TokenBlocked,
        "nobody knows how it works"
    );
}

#[tokio::test(start_paused = true)]
async fn a_retired_module_sends_what_it_holds_and_then_ends() {
    let f = Fixture::new();
    assert_eq!(f.push("a").await, Outcome::Accepted);
    assert_eq!(f.push("a").await, Outcome::Queued);
    f.module.retire();
    seconds(15).await;
    assert!(!f.module.has_ended());
    seconds(7).await;
    assert_eq!(f.provider.count(), 2);
    assert!(f.module.has_ended());
    assert!(!f.module.resume(), "too late");
    assert_eq!(f.settled("b"), Outcome::ShuttingDown);
    f.drain.begin();
    f.drain.until_idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_module_that_is_wanted_again_goes_on() {
    let f = Fixture::new();
    assert_eq!(f.push("a").await, Outcome::Accepted);
    assert_eq!(f.push("a").await, Outcome::Queued);
    f.module.retire();
    seconds(15).await;
    assert!(f.module.resume());
    seconds(15).await;
    assert!(!f.module.has_ended());
    assert_eq!(f.provider.count(), 2);
    assert_eq!(
        f.push("a").await,
        Outcome::Queued,
        "the queued one began a window"
    );
    seconds(30).await;
    assert_eq!(f.provider.count(), 3, "it still runs");
}

/// Wrong credentials, topic or environment made it fail, as likely as not.
#[tokio::test(start_paused = true)]
async fn what_the_old_provider_refuses_goes_to_the_new_one_and_says_nothing_of_that() {
    for refused in [
        GONE,
        PushError::TokenDoubted,
        PushError::Misconfigured,
        PushError::Unexplained,
        PushError::TokenBusy,
        PushError::TokenUnserved,
        TOO_MANY,
        LATER,
        pause(60),
    ] {
        let f = Fixture::new();
        f.earn_belief().await;
        f.provider.queue([Step::SlowFail(3_000, refused)]);
        let slow = f.publish("slow");
        seconds(1).await;
        let (provider, backend) = other();
        f.module.replace(backend, settings());
        assert_eq!(slow.await.unwrap(), Outcome::Accepted, "{refused:?}");
        assert_eq!((f.provider.count(), provider.count()), (1, 1), "{refused:?}");
        let status = f.module.status(Instant::now(), SystemTime::now());
        assert_eq!((status.trouble, status.blocked_tokens), (None, 0), "{refused:?}");
        assert_eq!(f.push("next").await, Outcome::Accepted, "{refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_old_provider_accepts_says_nothing_of_the_new_one() {
    let f = Fixture::new();
    f.provider.always(Step::SlowTake(3_000));
    let slow: Vec<_> = (0..20).map(|number| f.publish(&format!("{number}"))).collect();
    seconds(1).await;
    let (provider, backend) = other();
    f.module.replace(backend, settings());
    for push in slow {
        assert_eq!(push.await.unwrap(), Outcome::Accepted);
    }
    provider.queue([Step::Fail(GONE)]);
    assert_eq!(f.push("d").await, Outcome::TokenBlocked, "it is not believed yet");
}

#[tokio::test(start_paused = true)]
async fn more_pushes_may_be_at_the_new_provider() {
    let f = Fixture::with(one_at_a_time(), Class::High);
    f.provider.always(Step::SlowTake(4_000));
    let pushes: Vec<_> = ["a", "b", "c"].map(|token| f.publish(token)).into();
    seconds(1).await;
    assert_eq!(f.provider.most_under_way(), 1);
    let (provider, backend) = other();
    provider.always(Step::SlowTake(1_000));
    f.module.replace(backend, settings());
    for push in pushes {
        assert_eq!(push.await.unwrap(), Outcome::Accepted);
    }
    assert_eq!(provider.most_under_way(), 2);
}
