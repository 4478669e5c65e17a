//! What a registry answers while its devices are coming into memory: what the database says, and nothing is called gone
//! that is not certainly so.

use std::time::{Duration, Instant};

use fpush_push::{Devices as _, Found, Lookup};

use tokio::sync::oneshot;

use crate::{
    behaviour::until,
    rig::{Database, Open},
};

const ALICE: &str = "alice@a.example/phone";

/// More than are loaded before a registry is open.
const MANY: u64 = 30_000;

/// A database with many devices, and `lives`, `leaves` and `gone`, of which the last one is not registered any more.
/// Its writer does nothing until what is returned beside it is dropped.
async fn large(database: &Database) -> (Open, oneshot::Sender<()>) {
    large_of(database, MANY).await
}

async fn large_of(database: &Database, many: u64) -> (Open, oneshot::Sender<()>) {
    let open = database.open().await;
    for node in ["lives", "leaves", "gone"] {
        open.register(ALICE, node, &format!("t-{node}")).await.unwrap();
    }
    unregister(&open, "gone").await;
    assert!(open.has_ended("gone").await);
    let known = open.registry.known();
    open.close().await;
    let insert = format!(
        "WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < {many}) \
         INSERT INTO devices (node, dialect, kind, secret, token, registered, imported) \
         SELECT 'many' || number, 'mod_push_appserver', 'fcm', 'secret', 't' || number, 1767225600000, 1 FROM numbers"
    );
    database.by_hand(&insert).await;
    let counted = format!(
        "UPDATE states SET devices = devices + {many} WHERE change = (SELECT max(change) FROM states)"
    );
    database.by_hand(&counted).await;
    database.open_idle(known).await
}

async fn unregister(open: &Open, node: &str) {
    let fields = [("type", "fcm"), ("node", node)];
    open.run("v1-unregister-push", ALICE, &fields).await.unwrap();
}

fn databases() -> [Database; 2] {
    [Database::sqlite(true), Database::postgres(true)]
}

#[tokio::test]
async fn before_the_database_is_judged_it_is_asked_for_devices_and_calls_none_gone() {
    for database in databases() {
        let (open, idle) = large(&database).await;
        assert!(open.registry.is_loading() && open.registry.known().is_none());
        let device = open.device("many7", Some("secret")).await;
        assert_eq!(device.token.as_str(), "t7");
        for (node, secret) in [("gone", Some("any")), ("unknown", Some("any")), ("unknown", None)] {
            let found = open.find(node, secret).await.unwrap();
            // Without a secret it may be one of another push service's nodes, where the settings have such.
            let is_right = match secret {
                Some(_) => matches!(found, Found::Nothing),
                None => matches!(found, Found::Unsure),
            };
            assert!(is_right, "{node}: {found:?}");
        }
        // Without a secret, too, it is not a token that nobody registered.
        for secret in [Some("wrong"), None] {
            let wrong = open.find("many7", secret).await.unwrap();
            assert!(matches!(wrong, Found::WrongSecret), "{wrong:?}");
        }
        drop(idle);
        open.close().await;
    }
}

#[tokio::test]
async fn devices_register_and_leave_while_others_come_into_memory() {
    for database in databases() {
        let (open, idle) = large(&database).await;
        drop(idle);
        open.register(ALICE, "new", "t-new").await.unwrap();
        unregister(&open, "leaves").await;
        // Between them and the end there are dozens of parts.
        assert!(open.registry.is_loading());
        assert!(open.has_ended("gone").await, "the database was judged before");
        assert!(open.has_ended("leaves").await);
        let device = open.device("many7", Some("secret")).await;
        assert_eq!(device.token.as_str(), "t7");
        let unknown = open.find("unknown", Some("any")).await.unwrap();
        assert!(matches!(unknown, Found::Nothing), "{unknown:?}");

        until(async || !open.registry.is_loading()).await;
        assert_eq!(open.registry.counted(), Some(MANY + 2));
        for node in ["many1", "many7", "many30000"] {
            let settled = open.registry.find(node, Some("secret"), "a.example");
            assert!(matches!(settled, Lookup::Settled(Found::Device(_))), "{node}");
        }
        assert!(open.has_ended("leaves").await && open.has_ended("gone").await);
        let new = open.registry.find("new", None, "a.example");
        assert!(
            matches!(new, Lookup::Settled(Found::WrongSecret)),
            "it is in memory"
        );
        open.close().await;
    }
}

/// A measurement: `cargo test -p fpush-registry --test registry -- --ignored --nocapture two_million`.
#[tokio::test]
#[ignore = "it takes minutes, and measures"]
#[expect(clippy::disallowed_macros, reason = "a measurement")]
async fn two_million_devices_keep_nobody_waiting() {
    let database = Database::sqlite(true);
    let (open, idle) = large_of(&database, 2_000_000).await;
    drop((open.registry.known(), idle));
    open.close().await;
    let began = Instant::now();
    let open = database.open().await;
    drop(open.device("many7", Some("secret")).await);
    let first = began.elapsed();
    let (mut asked, mut longest) = (0, Duration::ZERO);
    while open.registry.is_loading() {
        let asking = Instant::now();
        drop(open.device("many1999999", Some("secret")).await);
        (asked, longest) = (asked + 1, longest.max(asking.elapsed()));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let loaded = began.elapsed();
    eprintln!(
        "first answer {first:?}, all in memory {loaded:?}; the longest of {asked} look-ups until then {longest:?}"
    );
    open.close().await;
}
