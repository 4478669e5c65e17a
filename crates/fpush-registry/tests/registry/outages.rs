//! Databases that are away, or are none.

use std::{sync::Arc, time::Duration};

use fpush_push::{CommandError, Unavailable};
use fpush_registry::{NoModules, OpenError, Registry, StoreSettings, Time};
use fpush_testkit::{Postgres, TempDir};
use tokio::time::Instant;

use crate::{
    behaviour::{device, until},
    rig::{Database, settings},
};

const ALICE: &str = "alice@example.org";

#[tokio::test(flavor = "multi_thread")]
async fn a_database_may_go_away_and_return() {
    let server = Arc::new(Postgres::start_new());
    let (cached, uncached) = (Database::on(&server, true), Database::on(&server, false));
    let (cached, uncached) = (cached.open().await, uncached.open().await);
    let secret = cached.register(ALICE, "n-1", "t-1").await.unwrap();
    let other = uncached.register(ALICE, "n-1", "t-1").await.unwrap();

    server.stop();
    let began = Instant::now();
    let unavailable = Err(CommandError::Unavailable(Unavailable));
    let (one, two) = tokio::join!(
        cached.register(ALICE, "n-2", "t"),
        uncached.register(ALICE, "n-2", "t")
    );
    assert_eq!(one.map(drop), unavailable.clone().map(drop));
    assert_eq!(two, unavailable);
    assert!(uncached.find("n-1", Some(&other)).await.is_err());
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert!(cached.registry.show("n-1").await.is_err());
    let device = cached.device("n-1", Some(&secret)).await;
    device.record.delivered(fpush_push::LaneId::Main);
    assert!(cached.is_missing("n-2").await);

    server.start();
    until(async || cached.register(ALICE, "n-2", "t").await.is_ok()).await;
    until(async || uncached.find("n-1", Some(&other)).await.is_ok()).await;
    until(async || uncached.register(ALICE, "n-2", "t").await.is_ok()).await;
    cached.registry.close().await;
    cached.writer.await.unwrap();
    uncached.close().await;
    let kept = server.psql("test0", "SELECT delivered > 0 FROM devices WHERE node = 'n-1'");
    assert_eq!(
        kept.as_deref(),
        Some("t\n"),
        "times of pushes wait until they can be written"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_fall_silent_and_wake() {
    let server = Arc::new(Postgres::start_new());
    let database = Database::on(&server, true);
    let open = database.open().await;
    let secret = open.register(ALICE, "n-1", "t-1").await.unwrap();
    server.signal_all("STOP");
    for _ in 0..3 {
        let began = Instant::now();
        assert!(open.register(ALICE, "n-2", "t").await.is_err());
        assert!(open.registry.show("n-1").await.is_err());
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    }
    open.device("n-1", Some(&secret)).await;
    server.signal_all("CONT");
    until(async || open.register(ALICE, "n-2", "t").await.is_ok()).await;
    open.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_come_later_than_the_registry() {
    let server = Arc::new(Postgres::start_new());
    let (cached, uncached) = (Database::on(&server, true), Database::on(&server, false));
    server.stop();
    let began = Instant::now();
    let (cached, uncached) = (cached.open().await, uncached.open().await);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for open in [&cached, &uncached] {
        assert!(open.find("n-1", None).await.is_err());
        assert!(
            open.run("register-push-fcm", ALICE, &[("token", "t"), ("device-id", "d")])
                .await
                .is_err()
        );
    }
    server.start();
    for open in [&cached, &uncached] {
        until(async || open.register(ALICE, "n-1", "t").await.is_ok()).await;
        assert!(open.is_missing("n-2").await);
    }
    cached.close().await;
    uncached.close().await;
}

#[tokio::test]
async fn what_is_not_a_registry_is_refused_in_words() {
    let folder = TempDir::new();
    let open = async |path| {
        let opened = Registry::open(
            settings(StoreSettings::Sqlite { path }, true),
            Arc::new(NoModules),
            None,
        )
        .await;
        opened.map(drop).unwrap_err().to_string()
    };
    let message = open(folder.path().to_owned()).await;
    assert!(message.starts_with("cannot open the database "), "{message}");
    let message = open(folder.write(
        "file",
        "no database at all, but long enough to look like one".repeat(50),
    ))
    .await;
    assert!(message.contains("not a database"), "{message}");
    let message = open("/proc/nothing/devices.db".into()).await;
    assert!(
        message.contains("cannot open the database /proc/nothing/devices.db"),
        "{message}"
    );
}

#[tokio::test]
async fn tables_of_a_newer_version_are_left_alone() {
    let database = Database::postgres(true);
    database.open().await.close().await;
    let StoreSettings::Postgres { url } = &database.settings.store else {
        unreachable!()
    };
    let server = database.server.as_ref().unwrap();
    let name = server.name(url);
    server
        .psql(name, "UPDATE meta SET value = '99' WHERE name = 'schema'")
        .unwrap();
    let opened = Registry::open(database.settings.clone(), Arc::new(NoModules), None).await;
    assert!(matches!(
        opened.map(drop),
        Err(OpenError::Newer { found: 99, .. })
    ));
}

/// Before addresses had one spelling, an owner was in the database as its server wrote it.
#[tokio::test]
async fn owners_of_an_older_database_stay_owners() {
    let database = Database::sqlite(true);
    let open = database.open().await;
    let secret = open.register("ju@müller.example", "n-1", "t-1").await.unwrap();
    let p2 = [("token", "t-2"), ("device-id", "d")];
    open.run("register-push-fcm", "ju@müller.example", &p2)
        .await
        .unwrap();
    open.close().await;
    let StoreSettings::Sqlite { path } = &database.settings.store else {
        unreachable!()
    };
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let old = sqlx::sqlite::SqlitePool::connect_with(options).await.unwrap();
    for sql in [
        "UPDATE devices SET owner = 'JU@Mu\u{308}ller.EXAMPLE.'",
        "DELETE FROM meta WHERE name = 'owners'",
    ] {
        assert!(sqlx::query(sql).execute(&old).await.unwrap().rows_affected() > 0);
    }
    old.close().await;

    let open = database.open().await;
    assert_eq!(open.register("ju@müller.example", "n-1", "t-3").await, Ok(secret));
    open.run("register-push-fcm", "ju@müller.example", &p2)
        .await
        .unwrap();
    let devices = open.registry.page(None, 10).await.unwrap().devices;
    assert_eq!(devices.len(), 2);
    for device in devices {
        assert_eq!(device.owner.as_deref(), Some("ju@müller.example"));
    }
    open.close().await;
}

/// Such as one that a later version has written.
#[tokio::test]
async fn a_device_that_cannot_be_read_is_not_gone_and_keeps_nobody_else_from_registering() {
    for database in Database::all() {
        let open = database.open().await;
        let secret = open.register(ALICE, "n-1", "t-1").await.unwrap();
        open.register("bob@example.org", "n-2", "t").await.unwrap();
        open.close().await;
        database
            .by_hand("UPDATE devices SET dialect = 'later' WHERE node = 'n-1'")
            .await;

        let open = database.open().await;
        open.register("carol@example.org", "n-3", "t").await.unwrap();
        open.register(ALICE, "n-4", "t").await.unwrap();
        assert!(open.find("n-1", Some(&secret)).await.is_err());
        for owner in [ALICE, "bob@example.org"] {
            let refused = open.register(owner, "n-1", "t-2").await;
            assert_eq!(refused, Err(CommandError::Unavailable(Unavailable)), "{owner}");
        }
        open.device("n-4", Some(&open.register(ALICE, "n-4", "t").await.unwrap()))
            .await;
        for limit in [1, 2, 10] {
            let (mut nodes, mut after, mut unreadable) = (Vec::new(), None, 0);
            loop {
                let page = open.registry.page(after.as_deref(), limit).await.unwrap();
                nodes.extend(page.devices.iter().map(|device| device.node.clone()));
                unreadable += usize::from(page.unreadable.is_some());
                after = nodes.last().cloned();
                if page.devices.len() < limit {
                    break;
                }
            }
            assert_eq!((nodes.join(" "), unreadable), ("n-2 n-3 n-4".to_owned(), 1));
        }

        // Both ways in which an operator mends it.
        let mut backup = device("n-1");
        backup.owner = Some(ALICE.to_owned());
        let imported = open.registry.import(vec![backup]).await.unwrap();
        assert_eq!((imported.added, imported.unchanged), (1, 0));
        open.register(ALICE, "n-1", "t-3").await.unwrap();
        database
            .by_hand("UPDATE devices SET dialect = 'later' WHERE node = 'n-1'")
            .await;
        assert!(open.registry.remove("n-1").await.unwrap());
        let secret = open.register("bob@example.org", "n-1", "t-4").await.unwrap();
        open.device("n-1", Some(&secret)).await;
        open.close().await;
    }
}

/// Nodes and secrets of hexadecimal digits are kept in half of the room.
#[tokio::test]
async fn a_row_that_is_longer_than_anything_fpush_writes_costs_itself_alone() {
    for (what, length) in [
        ("node", 1_024),
        ("node", 80_000),
        ("secret", 1_024),
        ("token", 80_000),
        ("account", 80_000),
    ] {
        for database in Database::all() {
            let open = database.open().await;
            let own = open.register(ALICE, "n-1", "t-1").await.unwrap();
            let secret = open.register(ALICE, "n-2", "t-2").await.unwrap();
            open.close().await;
            let long = "a".repeat(length);
            database
                .by_hand(&format!(
                    "UPDATE devices SET {what} = '{long}' WHERE node = 'n-1'"
                ))
                .await;
            let open = database.open().await;
            open.device("n-2", Some(&secret)).await;
            let given = if what == "secret" { &long } else { &own };
            if what != "node" {
                assert!(open.find("n-1", Some(given)).await.is_err(), "{what}");
            }
            open.close().await;
        }
    }
}

#[tokio::test]
async fn another_process_that_writes_for_long_is_an_outage() {
    let database = Database::sqlite(true);
    let open = database.open().await;
    let secret = open.register(ALICE, "n-1", "t-1").await.unwrap();
    let StoreSettings::Sqlite { path } = &database.settings.store else {
        unreachable!()
    };
    // Another process that writes and does not end.
    let lock =
        sqlx::sqlite::SqlitePool::connect_with(sqlx::sqlite::SqliteConnectOptions::new().filename(path))
            .await
            .unwrap();
    let writing = lock.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let refused = open.register(ALICE, "n-2", "t").await;
    assert_eq!(refused, Err(CommandError::Unavailable(Unavailable)));
    open.device("n-1", Some(&secret))
        .await
        .record
        .delivered(fpush_push::LaneId::Main);
    writing.rollback().await.unwrap();
    until(async || open.register(ALICE, "n-2", "t").await.is_ok()).await;
    let before = Time::now();
    open.close().await;
    let open = database.open().await;
    assert!(
        open.registry
            .show("n-1")
            .await
            .unwrap()
            .unwrap()
            .delivered
            .unwrap()
            <= before
    );
    open.close().await;
}
