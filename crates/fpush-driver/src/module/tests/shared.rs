//! Other instances, as far as a module sees them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fpush_policy::{Change, Claim, Claimed, HeldNews, News, OwnDeaths, SharedPush, SharedWord};

use super::*;
use crate::{Claiming, ClaimingDeath, Cluster, HandingOver, TakenPart, Taking, Telling};

/// What others say, and what they are told.
#[derive(Default)]
struct Others {
    is_down: AtomicBool,
    /// What they say to claims; nothing in time where there is none.
    claimed: Mutex<VecDeque<Claimed>>,
    death: Mutex<Option<bool>>,
    told: Mutex<Vec<Change>>,
    news: Mutex<Vec<News>>,
    /// How much was asked for at most.
    part: AtomicUsize,
    wants_all: AtomicBool,
    wants_held: AtomicBool,
    /// What they are told of what is held.
    held: Mutex<Vec<HeldNews>>,
    /// Numbers of what they have taken over.
    taken: Mutex<Vec<u64>>,
    /// What is there to take over.
    left: Mutex<Option<TakenPart>>,
    /// Tasks that tell all, and have no room for that.
    telling: Arc<()>,
}

/// The same ones for every module.
struct All(Arc<Others>);

impl Cluster for All {
    fn lane(&self, _module: &str, _digest: u128, _before: Option<&dyn SharedLane>) -> Arc<dyn SharedLane> {
        Arc::clone(&self.0) as _
    }
}

impl SharedLane for Others {
    fn is_up(&self) -> bool {
        !self.is_down.load(Ordering::Relaxed)
    }

    fn claim(&self, _claim: Claim) -> Claiming<'_> {
        let claimed = self.claimed.lock().unwrap().pop_front();
        Box::pin(async move { claimed })
    }

    fn claim_death(&self, _deaths: OwnDeaths) -> ClaimingDeath<'_> {
        let death = *self.death.lock().unwrap();
        Box::pin(async move { death })
    }

    fn tell(&self, changes: Vec<Change>) {
        self.told.lock().unwrap().extend(changes);
    }

    fn news(&self, most: usize) -> Vec<News> {
        let mut news = self.news.lock().unwrap();
        let most = most.min(news.len());
        self.part.fetch_max(most, Ordering::Relaxed);
        news.drain(..most).collect()
    }

    fn wants_all(&self) -> bool {
        self.wants_all.swap(false, Ordering::Relaxed)
    }

    fn tell_all(&self, _changes: Vec<Change>) -> Telling<'_> {
        let one_more = Arc::clone(&self.telling);
        Box::pin(async move {
            std::future::pending::<()>().await;
            drop(one_more);
        })
    }

    fn holders(&self) -> Vec<u64> {
        vec![1]
    }

    fn tell_held(&self, news: Vec<HeldNews>) {
        self.held.lock().unwrap().extend(news);
    }

    fn wants_held(&self) -> bool {
        self.wants_held.swap(false, Ordering::Relaxed)
    }

    fn tell_held_again(&self, part: Vec<HeldNews>) -> oneshot::Receiver<Vec<u64>> {
        let (sender, receiver) = oneshot::channel();
        self.tell_held(part);
        drop(sender.send(self.taken.lock().unwrap().clone()));
        receiver
    }

    fn take_held(&self, most: usize, _told: bool) -> Taking<'_> {
        let left = self.left.lock().unwrap().take_if(|_| most > 0);
        Box::pin(async { Some(left.unwrap_or_default()) })
    }

    fn hand_over(&self) -> HandingOver<'_> {
        Box::pin(async { true })
    }
}

impl Others {
    fn with(f: &Fixture) -> Arc<Self> {
        let others = Arc::<Self>::default();
        f.module.share(Some(&All(Arc::clone(&others))));
        others
    }

    fn told(&self) -> Vec<Change> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn no_token_is_dead_for_which_all_instances_have_no_room() {
    let f = Fixture::new();
    let others = Others::with(&f);
    for number in 0..45 {
        assert_eq!(f.push(&format!("living {number}")).await, Outcome::Accepted);
    }
    f.provider.always(Step::Fail(GONE));
    *others.death.lock().unwrap() = Some(false);
    assert_eq!(f.push("a").await, Outcome::TokenBlocked);
    *others.death.lock().unwrap() = None;
    assert_eq!(f.push("b").await, Outcome::TokenDead, "one, where nobody answers");
    *others.death.lock().unwrap() = Some(true);
    assert_eq!(f.push("c").await, Outcome::TokenDead);
    *others.death.lock().unwrap() = None;
    assert_eq!(f.push("d").await, Outcome::TokenBlocked, "no more than one");
}

#[tokio::test(start_paused = true)]
async fn what_others_were_not_asked_or_did_not_answer_is_told_to_them() {
    let f = Fixture::new();
    let others = Others::with(&f);
    for is_down in [false, true] {
        others.is_down.store(is_down, Ordering::Relaxed);
        let token = format!("t {is_down}");
        assert_eq!(f.push(&token).await, Outcome::Accepted);
        let told = others.told();
        assert!(
            matches!(told[..], [Change::Unqueue(a), Change::Window(b, _)] if a == b),
            "{told:?}"
        );
        assert_eq!(f.push(&token).await, Outcome::Queued);
        let told = others.told();
        assert!(matches!(told[..], [Change::Queue(..)]), "{told:?}");
        seconds(30).await;
        let told = others.told();
        assert!(
            matches!(told[..], [Change::Unqueue(a), Change::Window(b, _)] if a == b),
            "{told:?}"
        );
    }
    assert_eq!(f.provider.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn news_are_heard_in_parts_and_all_is_told_by_one_task() {
    let f = Fixture::new();
    let others = Others::with(&f);
    let word = SharedWord {
        age: 60,
        last: 60,
        days: 1,
        beyond_doubt: true,
    };
    let words = (0..5_000).map(|number| News::Word(Fingerprint::from_parts([number, 0]), word));
    others.news.lock().unwrap().extend(words);
    f.module.exchange();
    assert_eq!(others.news.lock().unwrap().len(), 4_500);
    seconds(1).await;
    assert!(others.news.lock().unwrap().is_empty());
    assert_eq!(others.part.load(Ordering::Relaxed), 500);
    let status = f.module.status(Instant::now(), SystemTime::now());
    assert_eq!(status.doubted_tokens, 5_000);
    // What is to be told is more than there is room for.
    for _ in 0..3 {
        others.wants_all.store(true, Ordering::Relaxed);
        f.module.exchange();
        seconds(1).await;
        assert_eq!(Arc::strong_count(&others.telling), 2);
    }
    f.module.share(None);
    seconds(1).await;
    assert_eq!(Arc::strong_count(&others.telling), 1);
}

/// What another instance held, and waits until its provider is back.
fn held_elsewhere(token: &str) -> SharedPush {
    let record = serde_json::json!({
        "token": token, "class": "High", "choice": "Named", "domain": "a.example", "spacing": 20_000,
        "registered": false, "due": 0, "attempts": 0,
    });
    SharedPush {
        key: Fingerprint::from_parts([1, 2]),
        id: Uuid::new_v4(),
        due: None,
        give_up: Some(Duration::from_secs(3_600)),
        age: Some(Duration::ZERO),
        record: serde_json::from_value(record).unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_told_and_what_others_have_taken_is_dropped() {
    let f = Fixture::with(holding(), Class::High);
    let disk = f.keep();
    let others = Others::with(&f);
    for token in ["t", "u"] {
        assert_eq!(f.push(token).await, Outcome::Accepted);
        assert_eq!(f.push(token).await, Outcome::Queued);
    }
    let numbers = disk.numbers();
    let told = std::mem::take(&mut *others.held.lock().unwrap());
    let puts: Vec<_> = told
        .iter()
        .filter_map(|news| match news {
            HeldNews::Put(number, push) => Some((*number, push.record.token().to_owned())),
            _ => None,
        })
        .collect();
    assert_eq!(puts, [(numbers[0], "t".to_owned()), (numbers[1], "u".to_owned())]);
    others.wants_held.store(true, Ordering::Relaxed);
    *others.taken.lock().unwrap() = vec![numbers[0]];
    f.module.exchange();
    seconds(1).await;
    assert_eq!((f.module.held(), disk.numbers()), (1, vec![numbers[1]]));
    assert_eq!(f.module.meters().held()[4], ("taken", 1));
    let told = std::mem::take(&mut *others.held.lock().unwrap());
    assert_eq!(
        told.last(),
        Some(&HeldNews::Gone(numbers[0])),
        "all was told, and then that"
    );
    assert_eq!(told.len(), 3);
    // The other one goes out, is told before it goes, and is not told as if it were there.
    seconds(30).await;
    let told = std::mem::take(&mut *others.held.lock().unwrap());
    assert!(
        matches!(told[..], [HeldNews::Delivered(..), HeldNews::Gone(gone)] if gone == numbers[1]),
        "{told:?}"
    );
    assert_eq!(f.provider.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_others_held_is_held_here_and_sent() {
    let f = Fixture::with(holding(), Class::High);
    let disk = f.keep();
    let others = Others::with(&f);
    let foreign = held_elsewhere("foreign");
    *others.left.lock().unwrap() = Some(TakenPart {
        taken_over: vec![held_elsewhere("a"), foreign.clone()],
        handed_over: vec![held_elsewhere("b")],
        sent_twice: 5,
        ..TakenPart::default()
    });
    f.module.exchange();
    tokio::task::yield_now().await;
    seconds(60).await;
    let mut sent: Vec<_> = f
        .provider
        .attempts()
        .into_iter()
        .map(|attempt| attempt.token)
        .collect();
    sent.sort();
    assert_eq!(sent, ["a", "b"]);
    assert_eq!((f.module.held(), disk.numbers()), (0, vec![]));
    let expected = [("dead", 2), ("sent_twice", 5), ("stopped", 1)];
    assert_eq!(f.module.meters().takeovers(), expected);
    assert_eq!(f.module.lost(), 1, "nobody can send it");
    let told = others.held.lock().unwrap();
    assert!(told.contains(&HeldNews::Dismissed(foreign.id)));
    let puts = told.iter().filter(|news| matches!(news, HeldNews::Put(..)));
    assert_eq!(puts.count(), 2, "it is told as what is held here");
}

/// A push is taken over while a publish for the same key waits for the disk, which is written down then or not. So many wait for the
/// disk together.
async fn take_over_while_one_is_written(taken: SharedPush, is_written: bool, waiting: usize) -> Fixture {
    let f = Fixture::with(holding(), Class::High);
    let disk = f.keep();
    let others = Others::with(&f);
    assert_eq!(f.push("a").await, Outcome::Accepted);
    *disk.slow.lock().unwrap() = Some(Vec::new());
    let publish = f.publish("a");
    tokio::task::yield_now().await;
    *others.left.lock().unwrap() = Some(TakenPart {
        taken_over: vec![taken],
        ..TakenPart::default()
    });
    f.module.exchange();
    seconds(1).await;
    let acknowledging = disk.slow.lock().unwrap().take().unwrap();
    assert_eq!(acknowledging.len(), waiting);
    for acknowledge in acknowledging {
        acknowledge.send(is_written).unwrap();
    }
    let expected = if is_written {
        Outcome::Queued
    } else {
        Outcome::Overloaded
    };
    assert_eq!(publish.await.unwrap(), expected);
    f
}

/// The publish is not acknowledged in the end.
#[tokio::test(start_paused = true)]
async fn what_others_held_stays_if_what_covers_it_cannot_be_written_down() {
    for is_written in [false, true] {
        let older = SharedPush {
            age: Some(Duration::from_secs(1)),
            ..held_elsewhere("a")
        };
        let f = take_over_while_one_is_written(older, is_written, 2).await;
        seconds(60).await;
        assert_eq!((f.provider.count(), f.module.held()), (2, 0), "{is_written}");
        assert_eq!(f.module.meters().held()[0], ("covered", u64::from(is_written)));
    }
}

/// Whether that could be written down or not: what another instance held is acknowledged.
#[tokio::test(start_paused = true)]
async fn what_others_held_stays_if_it_goes_for_an_older_one_that_is_being_written() {
    for is_written in [false, true] {
        let f = take_over_while_one_is_written(held_elsewhere("a"), is_written, 1).await;
        assert_eq!(f.module.held(), 1, "{is_written}");
        seconds(60).await;
        assert_eq!((f.provider.count(), f.module.held()), (2, 0), "{is_written}");
    }
}

/// Without a place to write it down, what is held is this instance's alone.
#[tokio::test(start_paused = true)]
async fn only_what_is_written_down_is_told_and_taken() {
    let f = Fixture::with(holding(), Class::High);
    let others = Others::with(&f);
    *others.left.lock().unwrap() = Some(TakenPart {
        taken_over: vec![held_elsewhere("a")],
        ..TakenPart::default()
    });
    assert_eq!(f.push("t").await, Outcome::Accepted);
    assert_eq!(f.push("t").await, Outcome::Queued);
    f.module.exchange();
    seconds(60).await;
    assert!(others.held.lock().unwrap().is_empty() && others.left.lock().unwrap().is_some());
}
