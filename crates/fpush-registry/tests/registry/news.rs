//! What another instance changes is in memory at once, on a database that tells it; and where nobody told it, or nobody
//! listened, a little later.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fpush_push::{Devices as _, Found, Lookup};
use fpush_registry::{RegistrySettings, StoreSettings};
use fpush_testkit::{Flow, Postgres};

use crate::{
    behaviour::until,
    rig::{Database, Open},
};

const ALICE: &str = "alice@example.org";
/// Between two looks of a registry that hears nothing.
const LOOKS: Duration = Duration::from_secs(5);

impl Open {
    /// The token of a device, if memory alone says it.
    fn token_in_memory(&self, node: &str, secret: &str) -> Option<String> {
        match self.registry.find(node, Some(secret), "a.example") {
            Lookup::Settled(Found::Device(recipient)) => Some(recipient.token.as_str().to_owned()),
            Lookup::Settled(_) | Lookup::Asking(_) => None,
        }
    }

    async fn unregister(&self, owner: &str, node: &str) {
        let fields = [("type", "fcm"), ("node", node)];
        self.run("v1-unregister-push", owner, &fields).await.unwrap();
    }
}

/// How long it takes until this is so.
async fn time_until(is_so: impl AsyncFn() -> bool) -> Duration {
    let began = Instant::now();
    until(is_so).await;
    began.elapsed()
}

/// So many waits took less in all than a registry would have needed that only looks.
#[track_caller]
fn assert_no_looks(took: Duration, waits: u32) {
    assert!(
        took < LOOKS * waits / 3,
        "{waits} changes were known after {took:?}: that is no faster than to look for them"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_change_is_known_to_others_at_once_with_nothing_in_memory() {
    let database = Database::postgres(false);
    let (one, other) = (database.open().await, database.open().await);
    let mut took = Duration::ZERO;
    for round in 0..10 {
        one.register(ALICE, "n-1", &format!("t-{round}")).await.unwrap();
        let known = |open: &Open| open.registry.known().map(|known| known.change);
        took += time_until(async || known(&other) == known(&one)).await;
    }
    assert_no_looks(took, 10);
    one.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_a_renewal_and_an_end_are_in_the_memory_of_others_at_once() {
    let database = Database::postgres(true);
    let (one, other) = (database.open().await, database.open().await);
    let mut took = Duration::ZERO;
    for round in 0..10 {
        let (owner, node) = (format!("{round}@example.org"), format!("n-{round}"));
        let secret = one.register(&owner, &node, "old").await.unwrap();
        took += time_until(async || other.token_in_memory(&node, &secret).as_deref() == Some("old")).await;
        assert_eq!(one.register(&owner, &node, "new").await.as_ref(), Ok(&secret));
        took += time_until(async || other.token_in_memory(&node, &secret).as_deref() == Some("new")).await;
        one.unregister(&owner, &node).await;
        took += time_until(async || other.registry.counted() == Some(0)).await;
        // That it has ended the database says.
        assert!(other.has_ended(&node).await);
    }
    assert_no_looks(took, 30);
    one.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_while_nobody_listens_is_read_as_soon_as_somebody_does() {
    let server = Arc::new(Postgres::start_new());
    let database = Database::on(&server, true);
    let (one, other) = (database.open().await, database.open().await);
    let mut took = Duration::ZERO;
    for round in 0..8 {
        let listens = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
        until(async || server.psql("test0", listens).as_deref() == Some("2\n")).await;
        server
            .psql(
                "test0",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'",
            )
            .unwrap();
        let (owner, node) = (format!("{round}@example.org"), format!("n-{round}"));
        let secret = one.register(&owner, &node, "t").await.unwrap();
        took += time_until(async || other.token_in_memory(&node, &secret).is_some()).await;
    }
    assert_no_looks(took, 8);
    one.close().await;
    other.close().await;
}

/// An older version tells nobody, and a pooler may swallow what is told.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_was_told_is_found_by_looking() {
    let database = Database::postgres(true);
    let (one, other) = (database.open().await, database.open().await);
    let secret = one.register(ALICE, "n-1", "t").await.unwrap();
    until(async || other.token_in_memory("n-1", &secret).is_some()).await;
    database
        .by_hand("UPDATE devices SET token = 'another' WHERE node = 'n-1'")
        .await;
    database
        .by_hand("INSERT INTO changes (node, at, source) VALUES ('n-1', 1767225600000, 'an older one')")
        .await;
    until(async || other.token_in_memory("n-1", &secret).as_deref() == Some("another")).await;
    one.close().await;
    other.close().await;
}

/// While it hears nothing it goes on with what it has, and calls nobody gone; then it reads what it has missed.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_cut_off_calls_nobody_gone_and_reads_everything_afterwards() {
    let server = Arc::new(Postgres::start_new());
    let (database, relay) = (Database::on(&server, true), server.relay());
    let StoreSettings::Postgres { url } = &database.settings.store else {
        unreachable!()
    };
    let mut far = Database::on(&server, true);
    far.settings.store = StoreSettings::Postgres {
        url: server.through(&relay, url),
    };
    let (near, far) = (database.open().await, far.open().await);
    for flow in [Flow::Answers, Flow::Questions] {
        let ends = near.register(ALICE, "ends", "t").await.unwrap();
        let stays = near.register(ALICE, "stays", "old").await.unwrap();
        until(async || far.token_in_memory("ends", &ends).is_some()).await;
        until(async || far.token_in_memory("stays", &stays).as_deref() == Some("old")).await;
        relay.hold(flow);
        near.unregister(ALICE, "ends").await;
        near.register(ALICE, "stays", "new").await.unwrap();
        let new = near.register(ALICE, "new", "t").await.unwrap();
        assert!(far.token_in_memory("ends", &ends).is_some());
        assert!(far.find("new", Some(&new)).await.is_err());
        assert!(far.find("ends", Some("another")).await.is_err());
        relay.release();
        until(async || far.token_in_memory("stays", &stays).as_deref() == Some("new")).await;
        until(async || far.token_in_memory("new", &new).is_some()).await;
        until(async || far.registry.counted() == Some(2)).await;
        assert!(far.has_ended("ends").await);
        near.unregister(ALICE, "new").await;
        near.unregister(ALICE, "stays").await;
        until(async || far.registry.counted() == Some(0)).await;
    }
    near.close().await;
    far.close().await;
}

/// A failover to a standby that was behind: of a device that has registered again it knows the end alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_primary_that_has_lost_the_last_changes_ends_nobody() {
    let server = Arc::new(Postgres::start_new());
    let (cached, uncached) = (Database::on(&server, true), Database::on(&server, false));
    let uncached = Database {
        settings: RegistrySettings {
            store: cached.settings.store.clone(),
            ..uncached.settings.clone()
        },
        ..uncached
    };
    let (near, far, idle) = (uncached.open().await, cached.open().await, uncached.open().await);
    let all = [&near, &far, &idle];
    let lives = near.register(ALICE, "lives", "t").await.unwrap();
    near.register(ALICE, "again", "t").await.unwrap();
    near.unregister(ALICE, "again").await;
    server.copy();
    near.register(ALICE, "again", "t").await.unwrap();
    near.register(ALICE, "lost", "t").await.unwrap();
    let known = |open: &Open| open.registry.known().map(|known| known.change);
    until(async || all.iter().all(|open| known(open) == known(&near))).await;
    server.fail_over();
    for node in ["again", "lost"] {
        for open in all {
            assert!(!matches!(open.find(node, Some("any")).await, Ok(Found::Ended)));
        }
    }
    server.promote();
    until(async || all.iter().all(|open| open.registry.doubt().is_some())).await;
    for open in all {
        open.device("lives", Some(&lives)).await;
        assert!(!open.has_ended("again").await);
    }
    // A device that was lost registers again, as apps do.
    let secret = far.register(ALICE, "lost", "t").await.unwrap();
    near.device("lost", Some(&secret)).await;
    near.registry.accept().await.unwrap();
    until(async || all.iter().all(|open| open.registry.doubt().is_none())).await;
    assert!(!far.has_ended("again").await);
    for open in [near, far, idle] {
        open.close().await;
    }
}
