//! What clients, operators and push modules see.

use std::{cmp::Ordering, os::unix::fs::PermissionsExt as _, time::Duration};

use fpush_push::{BadPayload, CommandError, Devices as _, Found, TokenFlaw, Wording};
use fpush_registry::{Device, Dialect, Imported, RegisterError, StoreSettings, Time, Unowned, lines};

use crate::rig::{ADDRESS, Database, value};

const ALICE: &str = "alice@example.org";
const BOB: &str = "bob@example.org";
const PROVIDER: &str = "tigase:messenger:apns:1";

#[tokio::test]
async fn the_seeds_commands_register_renew_and_remove() {
    for database in Database::all() {
        let open = database.open().await;
        let fields = [("type", "fcm"), ("node", "n-1"), ("token", "t-1")];
        let completed = open.run("v1-register-push", ALICE, &fields).await.unwrap();
        assert_eq!(completed.wording, Wording::Original);
        let names: Vec<_> = completed.values.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["jid", "node", "secret"]);
        assert_eq!(value(&completed, "jid"), "push.example.org");
        assert_eq!(value(&completed, "node"), "n-1");
        let secret = value(&completed, "secret");
        assert!(secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()));

        let device = open.device("n-1", Some(&secret)).await;
        assert_eq!((&*device.module, device.token.as_str()), ("google", "t-1"));
        assert_eq!(device.spacing, Duration::from_secs(5));
        assert!(matches!(open.find("n-1", None).await, Ok(Found::WrongSecret)));
        assert!(matches!(
            open.find("n-1", Some(&"0".repeat(64))).await,
            Ok(Found::WrongSecret)
        ));
        assert!(open.is_missing("n-2").await);

        // Again: the secret stays, the token is another. A resource does not matter.
        let sender = format!("{ALICE}/phone");
        assert_eq!(open.register(&sender, "n-1", "t-2").await.unwrap(), secret);
        assert_eq!(open.device("n-1", Some(&secret)).await.token.as_str(), "t-2");
        let shown = open.registry.show("n-1").await.unwrap().unwrap();
        assert!(shown.renewed.is_some() && shown.owner.as_deref() == Some(ALICE));
        assert_eq!(
            *open.told.lock().unwrap(),
            [("google".into(), "t-1".into()), ("google".into(), "t-2".into())]
        );

        // Another type: another registration.
        let fields = [("type", "apns"), ("node", "n-1"), ("token", "t-3")];
        let other = value(
            &open.run("v1-register-push", ALICE, &fields).await.unwrap(),
            "secret",
        );
        assert_ne!(other, secret);
        for secret in [&other, &secret] {
            assert_eq!(&*open.device("n-1", Some(secret)).await.module, "apple");
        }
        assert!(
            open.registry
                .show("n-1")
                .await
                .unwrap()
                .unwrap()
                .renewed
                .is_none()
        );

        // Nobody else's business.
        assert_eq!(open.register(BOB, "n-1", "t").await, Err(CommandError::Forbidden));
        let fields = [("type", "apns"), ("node", "n-1")];
        let not_found = Err(CommandError::NotFound);
        assert_eq!(open.run("v1-unregister-push", BOB, &fields).await, not_found);
        let wrong_type = [("type", "fcm"), ("node", "n-1")];
        assert_eq!(
            open.run("v1-unregister-push", ALICE, &wrong_type).await,
            not_found
        );
        let completed = open.run("v1-unregister-push", ALICE, &fields).await.unwrap();
        assert_eq!(completed.values.len(), 2);
        assert!(open.is_missing("n-1").await);
        assert_eq!(open.run("v1-unregister-push", ALICE, &fields).await, not_found);
        open.close().await;
    }
}

#[tokio::test]
async fn p2s_commands_give_one_node_to_one_device() {
    for database in Database::all() {
        let open = database.open().await;
        let fields = [("token", "t-1"), ("android-id", "0123")];
        let completed = open.run("register-push-fcm", ALICE, &fields).await.unwrap();
        assert_eq!(completed.wording, Wording::Standard);
        let (node, secret) = (value(&completed, "node"), value(&completed, "secret"));
        assert_eq!(node.len(), 64);
        let device = open.device(&node, Some(&secret)).await;
        // printf 'alice@example.org\0000123' | sha1sum
        assert_eq!(
            device.account.as_deref(),
            Some("127a2e08fec44b4a3c6d31c1325042f2460747a7")
        );
        assert_eq!(device.channel, None);

        let again = [("token", "t-2"), ("device-id", "0123")];
        let again = open.run("register-push-fcm", ALICE, &again).await.unwrap();
        assert_eq!(
            (value(&again, "node"), value(&again, "secret")),
            (node.clone(), secret.clone())
        );
        let muc = [
            ("token", "t-2"),
            ("device-id", "0123"),
            ("muc", "room@muc.example.org"),
        ];
        let muc = open.run("register-push-fcm", ALICE, &muc).await.unwrap();
        assert_ne!(value(&muc, "node"), node);
        let device = open
            .device(&value(&muc, "node"), Some(&value(&muc, "secret")))
            .await;
        // printf 'room@muc.example.org\0000123' | sha1sum
        assert_eq!(
            device.channel.as_deref(),
            Some("c3fab2c50ef207943b692289a6082f9e4ac2f0a0")
        );
        let others = open.run("register-push-fcm", BOB, &fields).await.unwrap();
        assert_ne!(value(&others, "node"), node);

        let not_found = Err(CommandError::NotFound);
        let fields = [("device-id", "0123")];
        assert_eq!(open.run("unregister-push-apns", ALICE, &fields).await, not_found);
        open.run("unregister-push-fcm", ALICE, &fields).await.unwrap();
        assert!(open.is_missing(&node).await);
        assert_eq!(open.run("unregister-push-fcm", ALICE, &fields).await, not_found);
        // It gets the same node again.
        let fields = [("token", "t-2"), ("device-id", "0123")];
        let again = open.run("register-push-fcm", ALICE, &fields).await.unwrap();
        assert_eq!(value(&again, "node"), node);
        open.close().await;
    }
}

#[tokio::test]
async fn tigases_commands_give_a_node_that_needs_no_secret() {
    for database in Database::all() {
        let open = database.open().await;
        let fields = [
            ("provider", PROVIDER),
            ("device-token", "t-1"),
            ("device-second-token", "t-2"),
        ];
        let completed = open.run("register-device", ALICE, &fields).await.unwrap();
        assert_eq!(completed.wording, Wording::Standard);
        assert_eq!(value(&completed, "features"), "tigase:push:encrypt:0");
        assert_eq!(value(&completed, "max-payload-size"), "3000");
        let node = value(&completed, "node");
        let device = open.device(&node, None).await;
        assert_eq!((&*device.module, device.token.as_str()), ("siskin", "t-1"));
        assert_eq!(device.voip_token.unwrap().as_str(), "t-2");
        assert_eq!(device.account.as_deref(), Some(ALICE));
        let again = open.run("register-device", ALICE, &fields[..2]).await.unwrap();
        assert_eq!(value(&again, "node"), node);
        assert!(open.device(&node, None).await.voip_token.is_none());
        let not_found = Err(CommandError::NotFound);
        assert_eq!(open.run("unregister-device", BOB, &fields[..2]).await, not_found);
        open.run("unregister-device", ALICE, &fields[..2]).await.unwrap();
        assert!(open.is_missing(&node).await);
        open.close().await;
    }
}

#[tokio::test]
async fn only_what_the_settings_name_is_offered() {
    let mut database = Database::sqlite(true);
    let open = database.open().await;
    assert_eq!(open.registry.commands().len(), 8);
    assert_eq!(open.registry.features(&fpush_push::Scope::default()), [PROVIDER]);
    open.close().await;
    database.settings.types.remove("apns");
    database.settings.providers.clear();
    let open = database.open().await;
    let nodes: Vec<_> = open
        .registry
        .commands()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        nodes,
        [
            "v1-register-push",
            "v1-unregister-push",
            "register-push-fcm",
            "unregister-push-fcm"
        ]
    );
    let unknown = Err(CommandError::UnknownCommand);
    for node in ["register-push-apns", "register-device", "register", ""] {
        assert_eq!(
            open.run(node, ALICE, &[("token", "t"), ("device-id", "d")]).await,
            unknown
        );
    }
    let bad = |bad| Err(CommandError::BadPayload(bad));
    let other_type = [("type", "apns"), ("node", "n"), ("token", "t")];
    assert_eq!(
        open.run("v1-register-push", ALICE, &other_type).await,
        bad(BadPayload::UnknownType)
    );
    let bad_token = [("token", "bad"), ("device-id", "d")];
    assert_eq!(
        open.run("register-push-fcm", ALICE, &bad_token).await,
        bad(BadPayload::BadToken(TokenFlaw::Form))
    );
    let without_device = open.run("register-push-fcm", ALICE, &[("token", "t")]).await;
    assert_eq!(without_device, bad(BadPayload::Missing("android-id")));
    open.close().await;
}

#[tokio::test]
async fn over_http_a_node_is_open_unless_somebody_owns_it() {
    for database in Database::all() {
        let open = database.open().await;
        let register = async |token, secret| open.register_unowned("n-1", token, secret).await.unwrap();
        let first = register("t-1", None).await;
        // The secret is shown only to a command that says it.
        let second = register("t-2", None).await;
        assert_ne!(second, first);
        for secret in [&first, &second] {
            let found = open.find("n-1", Some(secret)).await.unwrap();
            assert!(matches!(found, Found::Device(device) if device.token.as_str() == "t-2"));
            assert_eq!(register("t-2", Some(secret)).await, second);
        }
        let found = open.find("n-1", Some("")).await.unwrap();
        assert!(matches!(found, Found::WrongSecret));
        assert_eq!(
            open.register_unowned("n-1", "t-3", Some("wrong")).await,
            Err(RegisterError::Forbidden)
        );

        // An account takes it over with the secret only.
        let mut fields = vec![("type", "fcm"), ("node", "n-1"), ("token", "t-4")];
        let forbidden = Err(CommandError::Forbidden);
        assert_eq!(open.run("v1-register-push", ALICE, &fields).await, forbidden);
        fields.push(("secret", "wrong"));
        assert_eq!(open.run("v1-register-push", ALICE, &fields).await, forbidden);
        let not_found = Err(CommandError::NotFound);
        assert_eq!(
            open.run("v1-unregister-push", ALICE, &fields[..2]).await,
            not_found
        );

        open.unregister_unowned("n-1", None).await.unwrap();
        let gone = open.unregister_unowned("n-1", None).await;
        assert_eq!(gone, Err(RegisterError::NotFound));

        let owned = open.register(ALICE, "n-2", "t").await.unwrap();
        for secret in [None, Some(owned.as_str())] {
            let taken = open.register_unowned("n-2", "t", secret).await;
            assert_eq!(taken, Err(RegisterError::Forbidden));
            let kept = open.unregister_unowned("n-2", secret).await;
            assert_eq!(kept, Err(RegisterError::NotFound));
        }
        let came = open.register_unowned("n-3", "t", None).await.unwrap();
        let fields = [
            ("type", "fcm"),
            ("node", "n-3"),
            ("token", "t-5"),
            ("secret", came.as_str()),
        ];
        let completed = open.run("v1-register-push", ALICE, &fields).await.unwrap();
        assert_eq!(value(&completed, "secret"), came);
        open.close().await;
    }
}

#[tokio::test]
async fn a_registry_says_of_those_only_that_they_are_gone_whom_it_has_ended_itself() {
    for database in Database::all() {
        let open = database.open().await;
        let end = [("type", "fcm"), ("node", "n-1")];
        for how in 0..3 {
            assert_eq!(open.has_ended("n-1").await, how > 0);
            let secret = open.register(ALICE, "n-1", "t-1").await.unwrap();
            assert!(!open.has_ended("n-1").await);
            match how {
                0 => drop(open.run("v1-unregister-push", ALICE, &end).await.unwrap()),
                1 => assert!(open.registry.remove("n-1").await.unwrap()),
                _ => {
                    let record = open.device("n-1", Some(&secret)).await.record;
                    assert_eq!(record.gone(None).await, Ok(true));
                }
            }
            assert!(open.has_ended("n-1").await);
        }
        assert!(!open.has_ended("n-2").await);
        let known = open.registry.known();
        open.close().await;
        // It is on disk; and an import is a life, too.
        let open = database.open_knowing(known).await;
        assert!(open.has_ended("n-1").await);
        open.registry.import(vec![device("n-1")]).await.unwrap();
        assert!(!open.has_ended("n-1").await);
        open.close().await;
    }
}

#[tokio::test]
async fn some_nodes_are_nobodys_to_choose() {
    let database = Database::sqlite(true);
    let open = database.open().await;
    let generated = "0123456789abcdef".repeat(4);
    let tigase = format!("tigase-{generated}");
    for node in ["token-of-a-provider", &generated, &tigase] {
        let refused = open.register(ALICE, node, "t").await;
        assert_eq!(refused, Err(BadPayload::ReservedNode.into()), "{node}");
        let refused = open.register_unowned(node, "t", None).await;
        assert_eq!(refused, Err(RegisterError::ReservedNode), "{node}");
        // What is there already, because it came from elsewhere, goes on.
        let imported = Device {
            owner: Some(ALICE.to_owned()),
            ..device(node)
        };
        open.registry.import(vec![imported]).await.unwrap();
        open.register(ALICE, node, "t-2").await.unwrap();
    }
    for node in [
        "92afd7a91cdba9a0",
        "E0FF1D8C-EB96-4E10-A912-F68B03FD8D3E",
        "phone",
    ] {
        open.register(BOB, node, "t").await.unwrap();
    }
    open.close().await;

    // A node that was made for a device is its owner's, whichever account has chosen it meanwhile.
    let open = database.open().await;
    let fields = [("token", "t-1"), ("device-id", "0123")];
    let made = open
        .run("register-push-fcm", "carol@example.org", &fields)
        .await
        .unwrap();
    let node = value(&made, "node");
    open.run("unregister-push-fcm", "carol@example.org", &fields)
        .await
        .unwrap();
    open.registry.import(vec![device(&node)]).await.unwrap();
    let again = open
        .run("register-push-fcm", "carol@example.org", &fields)
        .await
        .unwrap();
    assert_eq!(value(&again, "node"), node);
    assert!(matches!(
        open.find(&node, Some("secret")).await,
        Ok(Found::WrongSecret)
    ));
    open.close().await;
}

#[tokio::test]
async fn a_command_that_removes_removes_no_more_than_it_says() {
    let database = Database::sqlite(true);
    let open = database.open().await;
    let account = [("token", "t-1"), ("android-id", "0123")];
    let room = [account[0], account[1], ("muc", "room@muc.example.org")];
    let other_room = [account[0], account[1], ("muc", "other@muc.example.org")];
    let mut nodes = Vec::new();
    for fields in [&account[..], &room, &other_room] {
        let completed = open.run("register-push-fcm", ALICE, fields).await.unwrap();
        nodes.push((value(&completed, "node"), value(&completed, "secret")));
    }
    let channel = open.device(&nodes[1].0, Some(&nodes[1].1)).await.channel.unwrap();
    let unknown = Err(BadPayload::UnknownField.into());
    let not_found = Err(CommandError::NotFound);
    for (more, answer) in [
        (("room", "room@muc.example.org"), &unknown),
        (
            ("channel", "0123456789012345678901234567890123456789"),
            &not_found,
        ),
        (("token", "t-2"), &not_found),
    ] {
        let fields = [("android-id", "0123"), more];
        assert_eq!(
            &open.run("unregister-push-fcm", ALICE, &fields).await,
            answer,
            "{more:?}"
        );
    }
    let both = [("android-id", "0123"), other_room[2], ("channel", &channel)];
    assert_eq!(
        open.run("unregister-push-fcm", ALICE, &both).await,
        Err(BadPayload::TwoChats.into())
    );
    let fields = [("android-id", "0123"), ("channel", &*channel)];
    assert_eq!(open.run("unregister-push-fcm", BOB, &fields).await, not_found);
    let completed = open.run("unregister-push-fcm", ALICE, &fields).await.unwrap();
    assert_eq!(value(&completed, "node"), nodes[1].0);
    assert!(open.has_ended(&nodes[1].0).await);
    for (node, secret) in [&nodes[0], &nodes[2]] {
        open.device(node, Some(secret)).await;
    }

    open.register(ALICE, "n-1", "t-1").await.unwrap();
    let seed = [("type", "fcm"), ("node", "n-1")];
    for more in [("token", "t-2"), ("device-id", "0123")] {
        let fields = [seed[0], seed[1], more];
        assert!(
            open.run("v1-unregister-push", ALICE, &fields).await.is_err(),
            "{more:?}"
        );
    }
    let tigase = [("provider", PROVIDER), ("device-token", "t-9")];
    open.run("register-device", BOB, &tigase).await.unwrap();
    for more in [("account", ALICE), ("device-id", "0123")] {
        let fields = [tigase[0], tigase[1], more];
        assert!(
            open.run("unregister-device", BOB, &fields).await.is_err(),
            "{more:?}"
        );
    }
    // Over HTTP as well only with all that there is to know.
    let unregister = async |account, token| {
        let unregistered = open
            .registry
            .unregister_account(account, PROVIDER, token, ADDRESS);
        unregistered.await.unwrap()
    };
    assert!(!unregister(ALICE, "t-9").await && !unregister(BOB, "t-8").await);
    assert!(unregister(BOB, "t-9").await);
    assert!(!unregister(BOB, "t-9").await);
    assert_eq!(open.registry.count().await.unwrap(), 3);
    open.close().await;
}

#[tokio::test]
async fn a_secret_may_be_demanded_over_http() {
    for database in [Database::sqlite(true), Database::postgres(false)] {
        let open = database.open().await;
        let device = |secret| Unowned::new("fcm", "n-1", secret).unwrap().has_to_prove(true);
        let register = async |token: &str, secret| {
            let registered = open
                .registry
                .register(device(secret), token.into(), true, ADDRESS);
            registered.await.map(|(registered, _)| registered.secret)
        };
        let unregister = async |secret| open.registry.unregister(device(secret), ADDRESS).await.map(drop);
        let first = register("t-1", None).await.unwrap();
        for secret in [None, Some("wrong")] {
            assert_eq!(register("t-2", secret).await, Err(RegisterError::Forbidden));
            assert_eq!(unregister(secret).await, Err(RegisterError::NotFound));
        }
        assert_eq!(
            open.register(ALICE, "n-1", "t").await,
            Err(CommandError::Forbidden)
        );
        register("t-2", Some(&first)).await.unwrap();
        unregister(Some(&first)).await.unwrap();
        open.close().await;
    }
}

#[tokio::test]
async fn nobody_registers_without_end() {
    for database in [Database::sqlite(true), Database::postgres(false)] {
        let open = database.open().await;
        for number in 0..4 {
            open.register(ALICE, &format!("a-{number}"), "t").await.unwrap();
        }
        assert_eq!(open.register(ALICE, "a-4", "t").await, Err(CommandError::TooMany));
        open.register(ALICE, "a-3", "t-2").await.unwrap();
        open.register(BOB, "b-1", "t").await.unwrap();
        let mut refused = 0;
        for _ in 0..100 {
            refused += usize::from(open.register(BOB, "b-1", "t").await == Err(CommandError::TooMany));
        }
        assert!((50..90).contains(&refused), "{refused}");

        // Who may not add devices renews what is there.
        open.register_unowned("h-0", "t", None).await.unwrap();
        for (node, expected) in [("h-0", Ok(false)), ("h-1", Err(RegisterError::TooMany))] {
            let device = Unowned::new("fcm", node, None).unwrap();
            let registered = open.registry.register(device, "t".into(), false, ADDRESS).await;
            assert_eq!(registered.map(|(_, is_new)| is_new), expected);
        }
        open.close().await;
    }
}

#[tokio::test]
async fn a_dead_token_ends_a_registration_that_is_older() {
    for database in Database::all() {
        let open = database.open().await;
        let secret = open.register(ALICE, "n-1", "t-1").await.unwrap();
        let device = open.device("n-1", Some(&secret)).await;
        let registered = open
            .registry
            .show("n-1")
            .await
            .unwrap()
            .unwrap()
            .changed()
            .millis() as u64;
        assert_eq!(device.record.gone(Some(registered)).await, Ok(false));
        assert_eq!(device.record.gone(Some(1)).await, Ok(false));
        assert_eq!(device.record.gone(Some(registered + 1)).await, Ok(true));
        assert!(open.is_missing("n-1").await);

        let secret = open.register(ALICE, "n-1", "t-1").await.unwrap();
        let pushed = open.device("n-1", Some(&secret)).await;
        open.register(ALICE, "n-1", "t-2").await.unwrap();
        // Another token: whatever the provider says, it is not about this one.
        let later = Time::now().millis() as u64 + 1_000_000;
        assert_eq!(pushed.record.gone(Some(later)).await, Ok(false));
        assert_eq!(pushed.record.gone(None).await, Ok(false));
        assert_eq!(open.device("n-1", Some(&secret)).await.token.as_str(), "t-2");
        let record = open.device("n-1", Some(&secret)).await.record;
        assert_eq!(record.gone(None).await, Ok(true));
        assert!(open.is_missing("n-1").await);
        assert_eq!(record.gone(None).await, Ok(false), "it has ended once");
        open.close().await;
    }
}

#[tokio::test]
async fn times_of_pushes_are_written_together_and_at_the_end() {
    for database in Database::all() {
        let open = database.open().await;
        let secret = open.register(ALICE, "n-1", "t-1").await.unwrap();
        let device = open.device("n-1", Some(&secret)).await;
        let before = Time::now();
        device.record.delivered(fpush_push::LaneId::Main);
        device.record.failed();
        let shown = open.registry.show("n-1").await.unwrap().unwrap();
        assert!(shown.delivered.unwrap() >= before && shown.failed.unwrap() >= before);
        open.close().await;
        let open = database.open().await;
        let kept = open.registry.show("n-1").await.unwrap().unwrap();
        assert!(kept == shown);
        open.close().await;
    }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    for database in Database::all() {
        let open = database.open().await;
        let secret = open.register(ALICE, "n-1", "t-1").await.unwrap();
        let fields = [("token", "t-1"), ("device-id", "0123")];
        let p2 = open.run("register-push-fcm", ALICE, &fields).await.unwrap();
        open.close().await;
        let open = database.open().await;
        assert_eq!(open.device("n-1", Some(&secret)).await.token.as_str(), "t-1");
        let again = open.run("register-push-fcm", ALICE, &fields).await.unwrap();
        assert_eq!(value(&again, "node"), value(&p2, "node"));
        assert_eq!(open.registry.count().await.unwrap(), 2);
        open.close().await;
    }
}

#[tokio::test]
async fn what_another_process_changes_in_sqlite_is_seen() {
    see_changes_of_others(Database::sqlite(true)).await;
}

#[tokio::test]
async fn what_another_process_changes_in_postgres_is_seen() {
    see_changes_of_others(Database::postgres(true)).await;
}

async fn see_changes_of_others(database: Database) {
    let (one, other) = (database.open().await, database.open().await);
    let secret = other.register(ALICE, "n-1", "t-1").await.unwrap();
    until(async || !one.is_missing("n-1").await).await;
    one.register(ALICE, "n-1", "t-2").await.unwrap();
    until(async || other.device("n-1", Some(&secret)).await.token.as_str() == "t-2").await;
    assert!(one.registry.remove("n-1").await.unwrap());
    assert!(!one.registry.remove("n-1").await.unwrap());
    until(async || other.is_missing("n-1").await).await;
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn devices_that_nobody_uses_go() {
    for mut database in [Database::sqlite(true), Database::postgres(true)] {
        database.settings.expire_after = Duration::from_secs(10 * 86_400);
        let open = database.open().await;
        let now = Time::now().millis();
        let day = |days: i64| Time::from_millis(now - days * 86_400_000);
        let with = |node: &str, registered, renewed, delivered| Device {
            registered,
            renewed,
            delivered,
            ..device(node)
        };
        let devices = vec![
            with("unused", day(30), Some(day(11)), None),
            with("pushed", day(30), None, Some(day(9))),
            with("renewed", day(30), Some(day(9)), None),
            with("new", day(1), None, None),
        ];
        open.registry.import(devices).await.unwrap();
        database.by_hand("UPDATE devices SET arrived = NULL").await;
        // The first look at what is unused comes after a minute.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(61)).await;
        tokio::time::resume();
        until(async || open.is_missing("unused").await).await;
        let left = open.registry.page(None, 10).await.unwrap().devices;
        assert_eq!(
            left.iter().map(|device| device.node.as_str()).collect::<Vec<_>>(),
            ["new", "pushed", "renewed"]
        );
        open.close().await;
    }
}

#[tokio::test]
async fn an_import_is_idempotent_and_leaves_later_registrations_alone() {
    for database in Database::all() {
        let open = database.open().await;
        let devices: Vec<_> = (0..10).map(|number| device(&format!("n-{number}"))).collect();
        let imported = |added, changed, unchanged| Imported {
            added,
            changed,
            unchanged,
        };
        assert_eq!(
            open.registry.import(devices.clone()).await.unwrap(),
            imported(10, 0, 0)
        );
        assert_eq!(
            open.registry.import(devices.clone()).await.unwrap(),
            imported(0, 0, 10)
        );
        // Nobody knows whether it is an account's: the first account is its owner, and the secret of before, which is not
        // shown, is good for a while.
        let shown = open.register(ALICE, "n-3", "t").await.unwrap();
        assert_ne!(shown, "secret");
        open.register(ALICE, "n-3", "new").await.unwrap();
        assert_eq!(
            open.register(BOB, "n-3", "new").await,
            Err(CommandError::Forbidden)
        );
        assert_eq!(open.registry.import(devices).await.unwrap(), imported(0, 0, 10));
        assert_eq!(open.device("n-3", Some("secret")).await.token.as_str(), "new");
        let mut later = device("n-4");
        later.renewed = Some(Time::now());
        later.token = "later".to_owned();
        assert_eq!(
            open.registry.import(vec![later]).await.unwrap(),
            imported(0, 1, 0)
        );
        assert_eq!(open.device("n-4", Some("secret")).await.token.as_str(), "later");

        // Out and into another database, whose key makes other nodes: the client keeps its node all the same.
        let fields = [("token", "t-1"), ("device-id", "0123")];
        let p2 = open.run("register-push-fcm", BOB, &fields).await.unwrap();
        let exported = open.registry.page(None, 100).await.unwrap().devices;
        let lines: Vec<_> = exported.iter().map(lines::to_line).collect();
        let read: Vec<_> = lines.iter().map(|line| lines::from_line(line).unwrap()).collect();
        assert!(read == exported);
        let second = Database::sqlite(true);
        let target = second.open().await;
        assert_eq!(target.registry.import(read.clone()).await.unwrap().added, 11);
        assert_eq!(target.registry.import(read).await.unwrap().unchanged, 11);
        let again = target.run("register-push-fcm", BOB, &fields).await.unwrap();
        assert_eq!(value(&again, "node"), value(&p2, "node"));
        target.close().await;
        open.close().await;
    }
}

#[tokio::test]
async fn devices_are_listed_in_pages() {
    for database in Database::all() {
        let open = database.open().await;
        let devices = (0..25).map(|number| device(&format!("n-{number:02}"))).collect();
        open.registry.import(devices).await.unwrap();
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let page = open.registry.page(after.as_deref(), 10).await.unwrap().devices;
            let Some(last) = page.last() else { break };
            after = Some(last.node.clone());
            seen.extend(page.into_iter().map(|device| device.node));
        }
        assert!(seen.is_sorted() && seen.len() == 25);
        open.close().await;
    }
}

#[tokio::test]
async fn a_type_that_the_settings_lost_does_not_cost_a_device_its_registration() {
    let mut database = Database::sqlite(true);
    let open = database.open().await;
    let secret = open.register(ALICE, "n-1", "t-1").await.unwrap();
    open.close().await;
    database.settings.types.remove("fcm");
    for cache in [true, false] {
        database.settings.cache = cache;
        let open = database.open().await;
        assert_eq!(
            &*open.device("n-1", Some(&secret)).await.module,
            "registration.types.fcm"
        );
        open.close().await;
    }
}

#[tokio::test]
async fn the_file_is_for_its_user_alone() {
    let database = Database::sqlite(true);
    let open = database.open().await;
    open.register(ALICE, "n-1", "t-1").await.unwrap();
    let StoreSettings::Sqlite { path } = &database.settings.store else {
        unreachable!()
    };
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("{}{suffix}", path.display());
        let mode = std::fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    open.close().await;
}

/// The clock was set back by an hour after the device had registered, or after a push to it: its secret is used, and those of
/// later registrations are not.
#[tokio::test]
async fn a_push_comes_after_its_registration_whatever_the_clock_says() {
    for database in Database::all() {
        let open = database.open().await;
        let ahead = Time::from_millis(Time::now().millis() + 3_600_000);
        let registered = Device {
            registered: ahead,
            ..device("registered")
        };
        let pushed = Device {
            delivered: Some(ahead),
            ..device("pushed")
        };
        open.registry.import(vec![registered, pushed]).await.unwrap();
        let found = open.device("registered", Some("secret")).await;
        found.record.delivered(fpush_push::LaneId::Main);
        for (node, beside_ahead) in [("registered", Ordering::Greater), ("pushed", Ordering::Equal)] {
            for number in 0..70 {
                let device = Unowned::new("fcm", node, None).unwrap();
                let address = format!("192.0.2.{number}");
                let renewed = open.registry.register(device, "t".into(), true, &address).await;
                assert!(renewed.is_ok());
            }
            open.device(node, Some("secret")).await;
            let shown = open.registry.show(node).await.unwrap().unwrap();
            assert_eq!(shown.delivered.cmp(&Some(ahead)), beside_ahead, "{node}");
            assert!(shown.delivered < shown.renewed, "{node}");
        }
        open.close().await;
    }
}

/// Its app renews with the secret, and strangers register the node before the next push comes with it.
#[tokio::test]
async fn a_secret_in_use_stays_good_when_its_device_has_renewed_with_it() {
    for database in Database::all() {
        let open = database.open().await;
        open.registry.import(vec![device("n")]).await.unwrap();
        let found = open.device("n", Some("secret")).await;
        found.record.delivered(fpush_push::LaneId::Main);
        let register = async |secret, number: u8| {
            let device = Unowned::new("fcm", "n", secret).unwrap();
            let address = format!("192.0.2.{number}");
            open.registry.register(device, "t".into(), true, &address).await
        };
        for number in 0..2 {
            let renewed = register(Some("secret"), number).await.unwrap();
            assert_eq!(renewed.0.secret, "secret");
        }
        for number in 2..100 {
            assert!(register(None, number).await.is_ok());
        }
        open.device("n", Some("secret")).await;
        let shown = open.registry.show("n").await.unwrap().unwrap();
        let kept = |former: &&fpush_registry::Former| former.secret == "secret" && former.used;
        assert_eq!(shown.former.iter().filter(kept).count(), 1);
        open.close().await;
    }
}

/// A device as an import brings it.
pub(crate) fn device(node: &str) -> Device {
    Device {
        dialect: Dialect::Seed,
        kind: "fcm".to_owned(),
        node: node.to_owned(),
        secret: "secret".to_owned(),
        token: "t".to_owned(),
        voip_token: None,
        owner: None,
        account: None,
        channel: None,
        registered: Time::parse("2026-01-01T00:00:00Z").unwrap(),
        renewed: None,
        delivered: None,
        failed: None,
        former: Vec::new(),
        imported: true,
        in_second: false,
    }
}

/// Waits for what another task does.
pub(crate) async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..2_400 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it did not happen within a minute");
}
