//! The provider's verdict on tokens.

use super::*;

#[tokio::test(start_paused = true)]
async fn without_a_success_no_token_is_dead_and_each_is_asked_for_six_times_an_hour() {
    for word in WORDS {
        let mut settings = settings();
        settings.ratelimit.enabled = false;
        settings.blocklist.unexplained.initial = Duration::from_secs(1);
        let f = Fixture::with(settings, Class::High);
        f.provider.always(Step::Fail(word));
        for _ in 0..3_600 {
            assert_eq!(f.push("t").await, Outcome::TokenBlocked);
            seconds(1).await;
        }
        assert_eq!(f.provider.count(), 6, "{word:?}");
        f.provider.always(Step::Take);
        assert_eq!(f.push("t").await, Outcome::Accepted);
        assert_eq!(f.push("t").await, Outcome::Accepted, "nothing is held against it");
    }
}

#[tokio::test(start_paused = true)]
async fn among_successes_a_gone_token_is_dead_and_a_wrong_one_a_day_later() {
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider.queue(WORDS.map(Step::Fail));
    assert_eq!(f.push("gone").await, Outcome::TokenDead);
    assert_eq!(f.push("wrong").await, Outcome::TokenBlocked);
    seconds(86_400).await;
    f.earn_belief().await;
    f.provider.queue([Step::Fail(PushError::TokenDoubted)]);
    assert_eq!(f.push("wrong").await, Outcome::TokenDead);
    assert_eq!(f.settled("wrong"), Outcome::TokenDead);
    assert_eq!(f.provider.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_token_is_asked_for_once_an_hour() {
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider.always(Step::Fail(GONE));
    for hour in 1..=3 {
        for _ in 0..5 {
            assert_eq!(f.push("t").await, Outcome::TokenDead);
        }
        assert_eq!(f.provider.count(), hour);
        seconds(3_620).await;
    }
    f.provider.always(Step::Take);
    assert_eq!(f.push("t").await, Outcome::Accepted);
}

#[tokio::test(start_paused = true)]
async fn a_burst_costs_ten_devices_at_most_and_one_line_of_trouble() {
    for (word, most) in [(GONE, 10), (PushError::TokenDoubted, 0)] {
        let f = Fixture::new();
        f.earn_belief().await;
        f.provider.always(Step::Fail(word));
        let mut dead = 0;
        for number in 0..1_000 {
            dead += usize::from(f.push(&format!("{number}")).await == Outcome::TokenDead);
        }
        assert!(dead <= most, "{word:?}: {dead}");
        let status = f.module.status(Instant::now(), SystemTime::now());
        assert_eq!(
            status.trouble.map(|trouble| trouble.kind),
            Some(TroubleKind::WrongTokens)
        );
        assert_eq!(status.doubted_tokens, 1_000 - dead);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_token_of_the_default_module_of_several_is_never_dead() {
    let f = Fixture::new();
    let push = async || {
        let request = Request {
            token: "t",
            choice: Choice::Default,
            urgency: Urgency::High,
            count: None,
            domain: "a.example",
            registered: None,
        };
        match f.module.admit(request, Instant::now()) {
            Admission::Answered(outcome) => outcome,
            Admission::Admitted(admitted) => admitted.deliver().await,
        }
    };
    for _ in 0..5 {
        f.earn_belief().await;
        f.provider.queue([Step::Fail(PushError::TokenDoubted)]);
        assert_eq!(push().await, Outcome::TokenBlocked);
        assert_eq!(push().await, Outcome::TokenBlocked);
        seconds(2 * 86_400).await;
    }
    f.earn_belief().await;
    f.provider.queue([Step::Fail(GONE)]);
    assert_eq!(push().await, Outcome::TokenDead);
}

#[tokio::test(start_paused = true)]
async fn a_time_of_death_in_the_future_is_doubted() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let f = Fixture::new();
    f.earn_belief().await;
    let since = |ahead: u64| PushError::TokenGone {
        since: Some((now.as_secs() + ahead) * 1_000),
    };
    f.provider.queue([Step::Fail(since(0))]);
    assert_eq!(f.push("a").await, Outcome::TokenDead);
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider.queue([Step::Fail(since(60))]);
    assert_eq!(f.push("b").await, Outcome::TokenBlocked);
}

#[tokio::test(start_paused = true)]
async fn a_registration_forgets_the_first_word_and_the_block() {
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider.queue([Step::Fail(PushError::TokenDoubted)]);
    assert_eq!(f.push("t").await, Outcome::TokenBlocked);
    f.module.unblock("t");
    seconds(86_400).await;
    f.earn_belief().await;
    f.provider.queue([Step::Fail(PushError::TokenDoubted)]);
    assert_eq!(f.push("t").await, Outcome::TokenBlocked, "the first word");
}

#[tokio::test(start_paused = true)]
async fn after_a_jump_of_the_clock_the_hours_begin_again() {
    for jump in [0, 3_600] {
        let (before, f) = (clocks(), Fixture::new());
        f.earn_belief().await;
        f.provider.queue([Step::Fail(PushError::TokenDoubted)]);
        assert_eq!(f.push("t").await, Outcome::TokenBlocked);
        seconds(86_400).await;
        let now = Instant::now().into_std();
        // The wall clock does not know of paused time.
        let wall = before.wall + now.duration_since(before.now) + Duration::from_secs(jump);
        f.module.follow_clock(Clocks { now, wall });
        f.earn_belief().await;
        f.provider.queue([Step::Fail(PushError::TokenDoubted)]);
        let expected = if jump == 0 {
            Outcome::TokenDead
        } else {
            Outcome::TokenBlocked
        };
        assert_eq!(f.push("t").await, expected, "{jump}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_explain_blocks_the_token_for_a_while() {
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider.queue([Step::Fail(PushError::Unexplained)]);
    assert_eq!(f.push("t").await, Outcome::TokenBlocked);
    seconds(299).await;
    assert_eq!(f.settled("t"), Outcome::TokenBlocked);
    seconds(302).await;
    assert_eq!(f.push("t").await, Outcome::Accepted);
}
