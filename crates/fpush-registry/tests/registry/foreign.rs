//! Nodes of other push services, from which devices were imported: a publish for one that is not known here is none for a token.

use fpush_push::Found;
use fpush_registry::{Device, IfMissing, Registry, lines};

use crate::{
    behaviour::until,
    rig::{Database, Open},
};

const UUID: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
const OTHER_UUID: &str = "5eedf00d-4f89-41d3-9a0c-0305e82c3302";
const OF_P2: &str = "AAAAAAAAAAAB";
const OTHER_OF_P2: &str = "BBBBBBBBBBBC";

/// A token of Apple's, which no import makes a node.
fn token() -> String {
    "c0de".repeat(16)
}

fn device(dialect: &str, node: &str) -> Device {
    let line = format!(
        r#"{{"dialect":"{dialect}","type":"fcm","node":"{node}","secret":"s","token":"t","owner":"a@a.example","registered":"2026-01-01T00:00:00Z"}}"#
    );
    lines::from_line(&line).unwrap()
}

/// Databases of all kinds, in whose settings nobody registers with Tigase's commands.
fn all() -> Vec<Database> {
    let mut all = Database::all();
    for database in &mut all {
        database.settings.providers.clear();
    }
    all
}

async fn is_foreign(open: &Open, node: &str) -> bool {
    matches!(open.find(node, None).await, Ok(Found::Foreign))
}

async fn is_nothing(open: &Open, node: &str) -> bool {
    matches!(open.find(node, None).await, Ok(Found::Nothing))
}

/// As `fpush import` does beside a daemon.
async fn import(database: &Database, devices: Vec<Device>) {
    let settings = database.settings.clone();
    let (command, background) = Registry::open_for_command(settings, IfMissing::Fail)
        .await
        .unwrap();
    let background = tokio::spawn(background);
    command.import(devices).await.unwrap();
    command.close().await;
    background.await.unwrap();
}

#[tokio::test]
async fn a_node_like_those_that_were_imported_is_not_a_token_of_a_module_that_nobody_named() {
    for database in all() {
        let daemon = database.open().await;
        for node in [OF_P2, UUID, &token()] {
            assert!(is_nothing(&daemon, node).await, "{node}");
        }
        import(&database, vec![device("p2", OF_P2), device("tigase", UUID)]).await;
        // It runs, and hears of it.
        until(async || is_foreign(&daemon, OTHER_OF_P2).await).await;
        assert!(is_foreign(&daemon, OTHER_UUID).await);
        // With a secret it never was a token.
        assert!(matches!(
            daemon.find(OTHER_OF_P2, Some("s")).await,
            Ok(Found::Nothing)
        ));
        assert!(is_nothing(&daemon, &token()).await);
        // The one that is there is found, as its push service's nodes are: with or without a secret.
        daemon.device(OF_P2, Some("s")).await;
        daemon.device(UUID, None).await;
        daemon.close().await;

        // Also when none is left.
        let daemon = database.open().await;
        for node in [OF_P2, UUID] {
            assert!(daemon.registry.remove(node).await.unwrap());
        }
        assert!(
            matches!(daemon.find(UUID, None).await, Ok(Found::Ended)),
            "it needs no secret"
        );
        assert!(is_foreign(&daemon, OF_P2).await);
        daemon.close().await;
        let daemon = database.open().await;
        for node in [OF_P2, OTHER_OF_P2, OTHER_UUID] {
            assert!(is_foreign(&daemon, node).await, "{node}");
        }
        assert!(is_nothing(&daemon, &token()).await);
        daemon.close().await;
    }
}

/// Nodes that may be tokens as well go to the default module, and what a provider says of them ends nothing.
#[tokio::test]
async fn a_node_that_may_be_a_token_is_asked_about_and_believed_in_nothing() {
    for database in all() {
        let open = database.open().await;
        let imported = device("tigase", &"5eed".repeat(16));
        open.registry.import(vec![imported]).await.unwrap();
        assert!(matches!(open.find(&token(), None).await, Ok(Found::Unsure)));
        open.close().await;
    }
}

#[tokio::test]
async fn another_database_that_gets_the_devices_knows_it_too() {
    for (source, target) in all().into_iter().zip(all()) {
        let open = source.open().await;
        let devices = vec![device("p2", OF_P2), device("tigase", UUID)];
        open.registry.import(devices).await.unwrap();
        let page = open.registry.page(None, 10).await.unwrap();
        let exported: Vec<_> = page.devices.iter().map(lines::to_line).collect();
        open.close().await;
        let open = target.open().await;
        let devices = exported.iter().map(|line| lines::from_line(line).unwrap());
        open.registry.import(devices.collect()).await.unwrap();
        assert!(is_foreign(&open, OTHER_OF_P2).await && is_foreign(&open, OTHER_UUID).await);
        open.close().await;
    }
}

/// Before, nobody noted what nodes look like.
#[tokio::test]
async fn in_an_old_database_the_nodes_say_what_was_imported() {
    for database in all() {
        let open = database.open().await;
        let made_here = format!("tigase-{}", token());
        let devices = vec![
            device("p2", OF_P2),
            device("tigase", UUID),
            device("p2", &token()),
            device("tigase", &made_here),
            device("mod_push_appserver", "chosen"),
        ];
        open.registry.import(devices).await.unwrap();
        open.close().await;
        for sql in [
            "DROP TABLE foreign_nodes",
            "ALTER TABLE devices DROP COLUMN in_second",
            "UPDATE meta SET value = '7' WHERE name = 'schema'",
        ] {
            database.by_hand(sql).await;
        }
        let open = database.open().await;
        assert!(is_foreign(&open, OTHER_OF_P2).await && is_foreign(&open, OTHER_UUID).await);
        for node in [&"beef".repeat(16), "chesen"] {
            assert!(is_nothing(&open, node).await, "{node}");
        }
        open.close().await;
    }
}
