//! Every publish, whatever the provider does.

use super::*;

#[derive(Clone, Debug)]
struct Story {
    max_in_flight: usize,
    script: Vec<Step>,
    publishes: Vec<(u8, u64)>,
    /// How long the provider goes on as scripted before the end begins.
    rest: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let error = prop_oneof![
        4 => Just(LATER),
        1 => (0..40u64).prop_map(after),
        2 => Just(PushError::TokenBusy),
        2 => Just(PushError::Reconnected),
        1 => Just(PushError::Renewed),
        1 => Just(PushError::TooLarge),
        1 => Just(PushError::Misconfigured),
        1 => Just(PushError::Unexplained),
        1 => Just(PushError::TokenUnserved),
        1 => Just(TOO_MANY),
        1 => Just(PushError::TokenDoubted),
        1 => Just(GONE),
        1 => (1..120u64).prop_map(pause),
    ];
    prop_oneof![
        6 => Just(Step::Take),
        2 => (1..40_000u64).prop_map(Step::SlowTake),
        6 => error.clone().prop_map(Step::Fail),
        2 => (1..40_000u64, error).prop_map(|(millis, error)| Step::SlowFail(millis, error)),
        1 => Just(Step::Silence),
    ]
}

fn story() -> impl Strategy<Value = Story> {
    (
        prop_oneof![Just(1usize), Just(2), Just(1_000)],
        prop::collection::vec(step(), 1..40),
        prop::collection::vec((0..4u8, 0..12_000u64), 1..60),
        prop_oneof![Just(0u64), Just(30), Just(3_000)],
    )
        .prop_map(|(max_in_flight, script, publishes, rest)| Story {
            max_in_flight,
            script,
            publishes,
            rest,
        })
}

/// One publish that was answered.
struct Answered {
    token: String,
    arrived: Instant,
    answered: Instant,
    outcome: Outcome,
}

async fn tell(story: Story) -> Result<(), TestCaseError> {
    let mut settings = settings();
    settings.max_in_flight = story.max_in_flight;
    let f = Fixture::with(settings, Class::High);
    f.provider.queue(story.script);
    let mut open = Vec::new();
    for (token, pause) in story.publishes {
        sleep(Duration::from_millis(pause)).await;
        let (token, arrived) = (token.to_string(), Instant::now());
        let outcome = f.publish(&token);
        open.push(tokio::spawn(async move {
            let outcome = outcome.await.unwrap();
            Answered {
                token,
                arrived,
                answered: Instant::now(),
                outcome,
            }
        }));
    }
    seconds(story.rest).await;
    f.drain.begin();
    let idle = tokio::time::timeout(Duration::from_secs(7), f.drain.until_idle()).await;
    if idle.is_err() {
        f.drain.expire();
        let last = tokio::time::timeout(Duration::from_secs(2), f.drain.until_idle()).await;
        prop_assert!(last.is_ok(), "somebody does not stop");
    }

    let mut answered = Vec::new();
    for open in open {
        answered.push(open.await.unwrap());
    }
    let attempts = f.provider.attempts();
    let (mut accepted, mut last_acknowledged) = (0, HashMap::new());
    for Answered {
        token,
        arrived,
        answered,
        outcome,
    } in answered
    {
        let took = answered - arrived;
        prop_assert!(
            took <= DEADLINE + Duration::from_millis(2),
            "{outcome:?} after {took:?}"
        );
        match outcome {
            Outcome::Accepted => accepted += 1,
            Outcome::Queued => {
                let last = last_acknowledged.entry(token).or_insert((answered, 0));
                *last = (last.0.max(answered), last.1 + 1);
            }
            _ => {}
        }
    }
    let taken = |a: &&Attempt| matches!(a.answered, Some((_, Ok(()))));
    let acknowledged: usize = last_acknowledged.values().map(|(_, count)| count).sum();
    let all_taken = attempts.iter().filter(taken).count();
    prop_assert!(accepted <= all_taken);
    prop_assert!(
        all_taken <= accepted + acknowledged,
        "each push is delivered once: {all_taken} of {accepted} and {acknowledged}"
    );
    // What was acknowledged last for a token was sent, or it is counted.
    let mut missing = 0;
    for (token, (at, _)) in last_acknowledged {
        let taken_since = |a: &Attempt| {
            a.answered
                .is_some_and(|(when, result)| when >= at && result.is_ok())
        };
        let sent = attempts.iter().any(|a| a.token == token && taken_since(a));
        missing += u64::from(!sent);
    }
    let held = f.module.meters().held();
    let unsent = held
        .into_iter()
        .filter(|(name, _)| ["dropped", "lost"].contains(name));
    let counted = unsent.map(|(_, count)| count).sum::<u64>() + f.module.held() as u64;
    prop_assert!(missing <= counted, "{missing} are missing, {counted} are counted");
    prop_assert!(counted <= acknowledged as u64);
    Ok(())
}

proptest! {
    #[test]
    fn every_publish_has_one_outcome_and_no_acknowledged_push_vanishes(story in story()) {
        let runtime = runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(tell(story))?;
    }
}
