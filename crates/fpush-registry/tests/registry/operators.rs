//! What operators take from one database to another.

use std::time::Duration;

use fpush_push::CommandError;
use fpush_registry::{Device, IfMissing, Registry, StoreSettings, lines};

use crate::rig::{Database, Open};

const ALICE: &str = "alice@a.example/phone";

async fn exported(registry: &Registry) -> Vec<String> {
    let devices = registry.page(None, 100).await.unwrap().devices;
    devices.iter().map(lines::to_line).collect()
}

/// A new database with these lines in it.
async fn imported(database: &Database, exported: &[String]) -> Open {
    let open = database.open().await;
    let devices: Vec<Device> = exported
        .iter()
        .map(|line| lines::from_line(line).unwrap())
        .collect();
    let added = devices.len();
    assert_eq!(open.registry.import(devices).await.unwrap().added, added);
    open
}

#[tokio::test]
async fn a_device_that_registered_over_http_is_not_an_accounts_after_an_import_either() {
    for (source, target) in Database::all().into_iter().zip(Database::all()) {
        let open = source.open().await;
        let secret = open.register_unowned("over-http", "t-1", None).await.unwrap();
        let lines = exported(&open.registry).await;
        open.close().await;

        let open = imported(&target, &lines).await;
        let claimed = open.register(ALICE, "over-http", "t-2").await;
        assert_eq!(claimed, Err(CommandError::Forbidden));
        open.device("over-http", Some(&secret)).await;
        let fields = [
            ("type", "fcm"),
            ("node", "over-http"),
            ("token", "t-2"),
            ("secret", &secret),
        ];
        assert!(open.run("v1-register-push", ALICE, &fields).await.is_ok());
        open.close().await;
    }
}

/// As older exports, and those of mod_push_appserver's devices.
#[tokio::test]
async fn a_device_of_which_nobody_knows_how_it_registers_belongs_to_the_first_account() {
    let line = r#"{"dialect":"mod_push_appserver","type":"fcm","node":"n","secret":"s","token":"t","registered":"2026-01-01T00:00:00Z"}"#;
    let flagged = line.replace(r#""registered""#, r#""imported":true,"registered""#);
    for line in [line.to_owned(), flagged.clone()] {
        let (first, second) = (Database::sqlite(true), Database::sqlite(true));
        let open = imported(&first, &[line]).await;
        let lines = exported(&open.registry).await;
        assert_eq!(lines, std::slice::from_ref(&flagged));
        open.close().await;
        let open = imported(&second, &lines).await;
        assert!(open.register(ALICE, "n", "t-2").await.is_ok());
        let owned = &exported(&open.registry).await[0];
        assert!(owned.contains(r#""owner":"alice@a.example""#) && !owned.contains("imported"));
        open.close().await;
    }
}

/// An answer of the database takes 10 ms: all of these devices take longer than the daemon's registrations wait.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_over_a_slow_line_lets_a_daemon_write_in_between() {
    const DEVICES: usize = 600;
    let database = Database::postgres(false);
    let (daemon, server) = (database.open().await, database.server.as_ref().unwrap());
    let mut far = database.settings.clone();
    let relay = server.relay();
    let StoreSettings::Postgres { url } = &mut far.store else {
        unreachable!()
    };
    *url = server.through(&relay, url);
    let (command, background) = Registry::open_for_command(far, IfMissing::Fail).await.unwrap();
    let background = tokio::spawn(background);
    relay.delay(Duration::from_millis(25));
    let line = |number| {
        format!(
            r#"{{"dialect":"p2","type":"fcm","node":"i-{number}","secret":"s","token":"t","registered":"2026-01-01T00:00:00Z"}}"#
        )
    };
    let devices = (0..DEVICES).map(|number| lines::from_line(&line(number)).unwrap());
    let devices = devices.collect();
    let import = tokio::spawn(async move {
        let imported = command.import(devices).await;
        command.close().await;
        imported
    });
    let (mut registered, mut in_between) = (0, 0);
    while !import.is_finished() {
        let others = daemon.registry.count().await.unwrap() as usize - registered;
        let node = format!("n-{registered}");
        daemon
            .register(&format!("a{registered}@a.example"), &node, "t")
            .await
            .unwrap();
        registered += 1;
        if (1..DEVICES).contains(&others) && !import.is_finished() {
            in_between += 1;
        }
    }
    let imported = import.await.unwrap().unwrap();
    assert_eq!(imported.added, DEVICES);
    assert!(in_between > 0, "none of {registered} registrations");
    let all = daemon.registry.count().await.unwrap();
    assert_eq!(all as usize, DEVICES + registered);
    daemon.close().await;
    background.await.unwrap();
}

/// To begin a transaction takes longer than jobs are gathered for.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_far_takes_registrations() {
    let mut database = Database::postgres(true);
    let relay = database.server.as_ref().unwrap().relay();
    if let (StoreSettings::Postgres { url }, Some(server)) = (&mut database.settings.store, &database.server)
    {
        *url = server.through(&relay, url);
    }
    relay.delay(Duration::from_millis(20));
    let open = database.open().await;
    let secret = open.register(ALICE, "far", "t").await.unwrap();
    open.device("far", Some(&secret)).await;
    open.close().await;
}
