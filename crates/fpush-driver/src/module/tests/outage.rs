//! A provider that is away, and what is held meanwhile.

use super::*;

/// Publishes to so many devices, one after the other; returns what they were answered.
async fn publish_all(f: &Fixture, devices: usize) -> Vec<Outcome> {
    let all: Vec<_> = (0..devices)
        .map(|device| f.publish(&format!("d{device}")))
        .collect();
    let mut outcomes = Vec::new();
    for publish in all {
        outcomes.push(publish.await.unwrap());
    }
    outcomes
}

/// How often the provider took a push for each of so many devices after that.
fn taken(f: &Fixture, devices: usize) -> Vec<usize> {
    let attempts = f.provider.attempts();
    let count = |device: usize| {
        let token = format!("d{device}");
        let taken = attempts
            .iter()
            .filter(|attempt| attempt.token == token && matches!(attempt.answered, Some((_, Ok(())))));
        taken.count()
    };
    (0..devices).map(count).collect()
}

/// An hour, with a device that is published to all the time.
#[tokio::test(start_paused = true)]
async fn an_hour_of_errors_loses_no_wake_up_and_ends_in_a_ramp() {
    let f = Fixture::with(holding(), Class::High);
    let disk = f.keep();
    f.provider.always(Step::Fail(LATER));
    assert_eq!(publish_all(&f, 500).await, [Outcome::Queued; 500]);
    assert_eq!(disk.numbers().len(), 500);
    for _ in 0..60 {
        seconds(60).await;
        assert_eq!(f.at_once("d7").await, Outcome::Queued);
    }
    // Those that were tried before anybody knew, and a probe every fifteen seconds.
    let before = f.provider.count();
    assert!(before < 5_000, "{before}");
    f.provider.always(Step::Take);
    let back = Instant::now();
    seconds(60).await;
    assert_eq!(taken(&f, 500), [1; 500]);
    assert_eq!(
        (f.module.held(), f.module.lost(), disk.numbers().len()),
        (0, 0, 0)
    );
    let mut by_second = vec![0_usize; 61];
    for attempt in f.provider.attempts().iter().filter(|attempt| attempt.at > back) {
        by_second[(attempt.at - back).as_secs() as usize] += 1;
    }
    let first = by_second.iter().position(|count| *count > 0).unwrap();
    assert!(first <= 15, "{by_second:?}");
    for (second, count) in by_second[first..].iter().enumerate() {
        let rate = 2_f64.powf((second + 1) as f64 / 3.0);
        assert!(*count as f64 <= rate * 1.5 + 2.0, "{second}: {by_second:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_it_is_silent_publishes_wait_for_nobody() {
    let f = Fixture::with(holding(), Class::High);
    f.provider.always(Step::Silence);
    let first: Vec<_> = (0..3).map(|device| f.publish(&format!("d{device}"))).collect();
    seconds(6).await;
    assert_eq!(f.at_once("d4").await, Outcome::Queued);
    for publish in first {
        assert_eq!(publish.await.unwrap(), Outcome::Queued);
    }
    f.provider.always(Step::Take);
    seconds(60).await;
    assert_eq!(taken(&f, 5), [1, 1, 1, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn new_publishes_go_first_when_it_is_back_and_stand_for_what_was_held() {
    let f = Fixture::with(holding(), Class::High);
    f.provider.queue([Step::Fail(pause(60))]);
    assert_eq!(f.push("d0").await, Outcome::Queued);
    assert_eq!(publish_all(&f, 300).await, [Outcome::Queued; 300]);
    seconds(62).await;
    assert!(f.module.held() > 200, "{}", f.module.held());
    assert_eq!(f.at_once("d299").await, Outcome::Accepted);
    seconds(60).await;
    assert_eq!(taken(&f, 300), [1; 300]);
    assert_eq!(f.module.lost(), 0);
}

/// Retry-After.
#[tokio::test(start_paused = true)]
async fn what_it_asks_for_is_honoured() {
    let f = Fixture::with(holding(), Class::High);
    let asked = PushError::Later {
        after: Some(Duration::from_secs(300)),
    };
    f.provider.always(Step::Fail(asked));
    publish_all(&f, 3).await;
    seconds(6).await;
    f.push("d4").await;
    seconds(240).await;
    assert!(f.provider.count() <= 4, "{}", f.provider.count());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_held_for_longer_than_it_is_worth_something() {
    let f = Fixture::with(
        ModuleSettings {
            hold_for: Duration::from_secs(600),
            ..holding()
        },
        Class::High,
    );
    let disk = f.keep();
    f.provider.queue([Step::Fail(pause(3_600))]);
    assert_eq!(publish_all(&f, 20).await, [Outcome::Queued; 20]);
    seconds(599).await;
    f.module.follow_clock(clocks());
    assert_eq!(f.module.held(), 20);
    seconds(2).await;
    f.module.follow_clock(clocks());
    assert_eq!(
        (f.module.held(), f.module.lost(), disk.numbers().len()),
        (1, 19, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_is_never_held() {
    let f = Fixture::with(holding(), Class::Voip);
    f.provider.queue([Step::Fail(pause(60))]);
    assert_eq!(f.push("d0").await, Outcome::ProviderUnavailable);
    assert_eq!(f.at_once("d1").await, Outcome::ProviderUnavailable);
    seconds(61).await;
    assert_eq!(f.push("d1").await, Outcome::Accepted);
}

/// Nothing is acknowledged that would not outlast a crash.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_down_is_answered_wait() {
    let f = Fixture::with(holding(), Class::High);
    let disk = f.keep();
    f.provider.queue([Step::Fail(pause(60))]);
    assert_eq!(f.push("d0").await, Outcome::Queued);
    *disk.is_full.lock().unwrap() = true;
    assert_eq!(f.at_once("d1").await, Outcome::Overloaded);
    assert_eq!(f.module.held(), 1);
    // One that is held already stays.
    assert_eq!(f.at_once("d0").await, Outcome::Overloaded);
    assert_eq!(f.module.held(), 1);
    *disk.is_full.lock().unwrap() = false;
    *disk.slow.lock().unwrap() = Some(Vec::new());
    let (outcome, took) = f.timed("d2").await;
    assert_eq!(outcome, Outcome::Overloaded);
    assert!(took < 5.0, "{took}");
}

/// Thousands of bodies are not in memory.
#[tokio::test(start_paused = true)]
async fn more_than_memory_has_room_for_is_read_again() {
    let f = Fixture::with(holding(), Class::High);
    let disk = f.keep();
    f.provider.queue([Step::Fail(pause(60))]);
    let many = 12_000;
    // A domain that was never accepted may hold a thousand.
    let publish = |device: usize| {
        f.publish_from(
            &format!("d{device}"),
            &format!("s{}.example{}", device, device % 20),
        )
    };
    for device in 0..many {
        publish(device).await.unwrap();
    }
    assert_eq!((f.module.held(), disk.numbers().len()), (many, many));
    seconds(120).await;
    assert_eq!(
        (f.module.held(), f.module.lost(), disk.numbers().len()),
        (0, 0, 0)
    );
    assert_eq!(taken(&f, many), vec![1; many]);
}
