//! What strangers send.

use fpush_push::{BadPayload, CommandError, Devices as _, Found, Lookup, canonical_jid};
use fpush_registry::RegisterError;

use crate::rig::{Database, value};

const INJECTIONS: [&str; 6] = [
    "'; DROP TABLE devices; --",
    "\" OR 1=1 --",
    "$1",
    "?1",
    "x'); DELETE FROM devices WHERE ('1'='1",
    "%_\\' || (SELECT value FROM meta)",
];

/// Whose secret is wrong may have been told a newer one by another instance, and the database is asked; for so many wrong ones
/// of one registrable domain, in a minute. Without a cache nobody else knows the right one, and each is asked for.
#[tokio::test]
async fn many_wrong_secrets_ask_the_database_for_nothing() {
    for database in Database::all() {
        let cache = database.settings.cache;
        let open = database.open().await;
        let right = open.register("a@a.example/x", "n", "t").await.unwrap();
        let asks = async |sender: &str, secret: &str| match open.registry.find("n", Some(secret), sender) {
            Lookup::Settled(found) => (false, found),
            Lookup::Asking(asking) => (true, asking.await.unwrap()),
        };
        for number in 0..40 {
            let sender = format!("host{number}.evil.org");
            let (asked, found) = asks(&sender, &format!("wrong-{number}")).await;
            assert!(matches!(found, Found::WrongSecret), "{found:?}");
            assert_eq!(asked, !cache || number < 12, "{number}");
            // The right one passes whatever came before it.
            let (asked, found) = asks(&sender, &right).await;
            assert!(matches!(found, Found::Device(_)), "{found:?}");
            assert_eq!(asked, !cache);
        }
        assert!(asks("good.org", "wrong").await.0, "others are not concerned");
        open.close().await;
    }
}

#[tokio::test]
async fn sql_is_text_like_any_other() {
    for mut database in Database::all() {
        database.settings.max_per_owner = 100;
        for text in INJECTIONS {
            database.settings.types.insert(text.to_owned(), text.to_owned());
            database
                .settings
                .providers
                .insert(text.to_owned(), text.to_owned());
        }
        let open = database.open().await;
        for text in INJECTIONS {
            let fields = [("type", text), ("node", text), ("token", text), ("secret", text)];
            let completed = open.run("v1-register-push", text, &fields).await.unwrap();
            let device = open.device(text, Some(&value(&completed, "secret"))).await;
            assert_eq!((&*device.module, device.token.as_str()), (text, text));
            assert!(matches!(
                open.find(text, Some(text)).await,
                Ok(Found::WrongSecret)
            ));
            let fields = [("token", text), ("device-id", text), ("muc", text)];
            let p2 = open.run("register-push-fcm", text, &fields).await.unwrap();
            let node = value(&p2, "node");
            assert_eq!(
                open.registry.show(&node).await.unwrap().unwrap().owner.as_deref(),
                Some(&*canonical_jid(text))
            );
            let fields = [
                ("provider", text),
                ("device-token", text),
                ("device-second-token", text),
            ];
            let tigase = open.run("register-device", text, &fields).await.unwrap();
            open.device(&value(&tigase, "node"), None).await;
        }
        assert_eq!(
            open.registry.page(None, 100).await.unwrap().devices.len(),
            3 * INJECTIONS.len()
        );
        for text in INJECTIONS {
            assert!(open.registry.remove(text).await.unwrap());
        }
        assert_eq!(
            open.registry.page(Some("'"), 100).await.unwrap().devices.len(),
            2 * INJECTIONS.len()
        );
        open.close().await;
    }
}

#[tokio::test]
async fn fields_without_measure_are_refused() {
    for database in [Database::sqlite(false), Database::postgres(false)] {
        let open = database.open().await;
        let long = "x".repeat(5_000);
        for text in [long.as_str(), "", "a\0b", "a\nb", "\u{85}"] {
            assert!(open.is_missing(text).await);
            assert!(open.registry.show(text).await.unwrap().is_none());
            assert!(!open.registry.remove(text).await.unwrap());
            let fields = [("type", "fcm"), ("node", text), ("token", "t")];
            let bad = |field| {
                let bad = match text {
                    "" => BadPayload::Missing(field),
                    _ => BadPayload::Impossible(field),
                };
                Err(CommandError::BadPayload(bad))
            };
            assert_eq!(open.run("v1-register-push", "a@b", &fields).await, bad("node"));
            assert_eq!(open.run("v1-unregister-push", "a@b", &fields).await, bad("node"));
            let fields = [("token", text), ("device-id", "d")];
            assert_eq!(open.run("register-push-fcm", "a@b", &fields).await, bad("token"));
            let refused = open.register_unowned(text, "t", None).await.map(drop);
            assert_eq!(refused, Err(RegisterError::BadField("node")));
        }
        let fields = [("type", "fcm"), ("node", "n"), ("token", "t")];
        let bad = Err(CommandError::BadPayload(BadPayload::Impossible("from")));
        assert_eq!(open.run("v1-register-push", &long, &fields).await, bad);
        // As long as may be, and not in ASCII.
        let (node, token) = ("ä".repeat(256), "t".repeat(4_096));
        let secret = open.register("a@b", &node, &token).await.unwrap();
        assert_eq!(open.device(&node, Some(&secret)).await.token.as_str(), token);
        open.close().await;
    }
}

#[tokio::test]
async fn nothing_is_shown_by_accident() {
    let database = Database::sqlite(true);
    let open = database.open().await;
    let secret = open
        .register("alice@example.org", "node-in-clear", "token-in-clear")
        .await
        .unwrap();
    let recipient = open.device("node-in-clear", Some(&secret)).await;
    let device = open.registry.show("node-in-clear").await.unwrap().unwrap();
    let shown = format!(
        "{recipient:?} {device:?} {:?} {:?}",
        open.registry, database.settings
    );
    for private in ["node-in-clear", "token-in-clear", "alice", secret.as_str()] {
        assert!(!shown.contains(private), "{shown}");
    }
    assert!(device.masked_secret().len() < 8 && secret.starts_with(&device.masked_secret()[..4]));
    open.close().await;
}

#[tokio::test]
async fn a_flood_of_forms_writes_little() {
    let database = Database::sqlite(true);
    let open = database.open().await;
    let mut answers = Vec::new();
    for number in 0..2_000 {
        answers.push(
            open.register("mallory@example.org", &format!("n-{}", number % 7), "t")
                .await
                .is_ok(),
        );
    }
    assert!(answers.iter().filter(|answer| **answer).count() <= 40);
    assert!(open.register("alice@example.org", "a", "t").await.is_ok());
    open.close().await;
}
