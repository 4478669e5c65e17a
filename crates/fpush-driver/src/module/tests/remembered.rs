//! What is written down and read again.

use super::*;

/// A module that knows what another one knew, as after a new start.
fn started_again(f: &Fixture, disk: &Disk) -> Fixture {
    started_again_with(f, disk, settings(), |_| {})
}

/// The same with other settings and another disk.
fn started_again_with(
    f: &Fixture,
    disk: &Disk,
    settings: ModuleSettings,
    change: impl Fn(&mut HeldRecord),
) -> Fixture {
    let written = clocks();
    let hasher = TokenHasher::with_key(f.module.senders.hasher().key());
    let provider = Arc::<Provider>::default();
    let drain = Drain::default();
    let backend = Box::new(Backend {
        provider: Arc::clone(&provider),
        high: Class::High,
        digest: 1,
    });
    let module = Module::new("m", backend, settings, Senders::new(hasher), drain.clone());
    let blocks: Vec<BlockRecord> =
        serde_json::from_str(&serde_json::to_string(&f.module.blocks(0, written).0).unwrap()).unwrap();
    let (mut verdicts, mut from) = (Vec::new(), Some(VerdictPlace::default()));
    while let Some(place) = from {
        let part;
        (part, from) = f.module.verdicts(place, clocks());
        verdicts.extend(part);
    }
    module.remember(blocks, verdicts, clocks());
    for (number, record) in disk.held.lock().unwrap().iter() {
        let mut record = record.clone();
        change(&mut record);
        module.remember_held(*number, record, clocks());
    }
    drain.spawn(Arc::clone(&module).run(Liveness::new().probe("m")));
    Fixture {
        module,
        provider,
        drain,
        start: Instant::now(),
    }
}

#[tokio::test(start_paused = true)]
async fn queued_pushes_go_out_when_their_time_has_come() {
    let f = Fixture::new();
    let disk = f.keep();
    assert_eq!(f.push("a").await, Outcome::Accepted);
    assert_eq!(f.push("a").await, Outcome::Queued);
    seconds(5).await;
    // The wall clock does not move here.
    let again = started_again_with(&f, &disk, settings(), |record| record.due -= 5_000);
    assert_eq!(again.settled("a"), Outcome::Refused, "one is queued already");
    seconds(30).await;
    let times = again.times();
    assert_eq!(times.len(), 1);
    assert_about(times[0], 15.0);
}

#[tokio::test(start_paused = true)]
async fn dead_tokens_stay_dead() {
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider.queue([Step::Fail(GONE)]);
    assert_eq!(f.push("dead").await, Outcome::TokenDead);
    let again = started_again(&f, &Disk::default());
    assert_eq!(again.settled("dead"), Outcome::TokenDead);
    assert_eq!(again.push("living").await, Outcome::Accepted);
    assert_eq!(f.module.changes()[0], 1);
    seconds(60 * 60 * 25).await;
    assert_eq!(again.push("dead").await, Outcome::Accepted);
}

/// The clock was a year ahead when it was written.
#[tokio::test(start_paused = true)]
async fn a_clock_that_was_wrong_delays_no_push_for_long() {
    let f = Fixture::new();
    let disk = f.keep();
    assert_eq!(f.push("a").await, Outcome::Accepted);
    assert_eq!(f.push("a").await, Outcome::Queued);
    let again = started_again_with(&f, &disk, settings(), |record| {
        let year = 365 * 86_400_000;
        record.due += year;
        record.give_up = record.give_up.map(|give_up| give_up + year);
    });
    again.provider.always(Step::Fail(LATER));
    seconds(601).await;
    assert!(again.provider.count() > 0);
    seconds(2_000).await;
    assert_eq!((again.module.held(), again.module.lost()), (0, 1), "not for ever");
}

/// That it has registered anew may have been forgotten, or another process may have been told.
#[tokio::test(start_paused = true)]
async fn a_registered_device_is_not_dead_whatever_was_written() {
    let f = Fixture::new();
    f.earn_belief().await;
    f.provider.queue([Step::Fail(GONE)]);
    assert_eq!(f.push("t").await, Outcome::TokenDead);
    let again = started_again(&f, &Disk::default());
    assert_eq!(again.settled("t"), Outcome::TokenDead);
    let device = Arc::new(Device::default());
    let recipient = recipient(&device);
    let Admission::Admitted(admitted) = again
        .module
        .admit(to_registered(&recipient, None), Instant::now())
    else {
        panic!("it is dead")
    };
    let outcome = admitted.deliver().await;
    assert_eq!(outcome, Outcome::Accepted);
}

/// There is the next start to send them: the provider is not pressed.
#[tokio::test(start_paused = true)]
async fn at_the_end_each_is_tried_once_and_none_during_a_pause() {
    for (answer, attempts) in [(LATER, 2), (pause(600), 2), (PushError::TokenBusy, 2)] {
        let f = Fixture::new();
        f.keep();
        assert_eq!(f.push("a").await, Outcome::Accepted);
        assert_eq!(f.push("a").await, Outcome::Queued);
        f.provider.always(Step::Fail(answer));
        f.drain.begin();
        f.drain.until_idle().await;
        assert_eq!(f.provider.count(), attempts, "{answer:?}");
        assert_eq!((f.module.held(), f.module.lost()), (1, 0), "{answer:?}");
    }
    let f = Fixture::new();
    f.keep();
    assert_eq!(f.push("a").await, Outcome::Accepted);
    assert_eq!(f.push("a").await, Outcome::Queued);
    f.provider.queue([Step::Fail(pause(600))]);
    assert_eq!(f.push("b").await, Outcome::ProviderUnavailable);
    f.drain.begin();
    f.drain.until_idle().await;
    assert_eq!((f.provider.count(), f.module.held(), f.module.lost()), (2, 1, 0));
}

/// Nobody knows whether the provider got it: twice is better than never.
#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_held_until_the_provider_has_answered() {
    let f = Fixture::new();
    let disk = f.keep();
    assert_eq!(f.push("a").await, Outcome::Accepted);
    assert_eq!(f.push("a").await, Outcome::Queued);
    f.provider.queue([Step::SlowTake(10_000)]);
    seconds(25).await;
    assert_eq!(f.provider.count(), 2);
    assert_eq!((f.module.held(), disk.numbers().len()), (1, 1));
    seconds(10).await;
    assert_eq!((f.module.held(), disk.numbers().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn no_token_is_in_what_a_record_prints() {
    let f = Fixture::new();
    let disk = f.keep();
    f.push("s3cret").await;
    assert_eq!(f.push("s3cret").await, Outcome::Queued);
    let records = disk.records();
    assert_eq!(records.len(), 1);
    assert!(!format!("{records:?}").contains("s3cret"));
}
