//! Many things at once, against a model.

use std::collections::BTreeMap;

use fpush_push::{CommandError, Recipient};
use fpush_registry::{Device, RegisterError, Time, Unowned};
use proptest::prelude::*;
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{
    behaviour::until,
    rig::{ADDRESS, Database, Open, value},
};

const OWNERS: [&str; 2] = ["alice@example.org", "bob@example.org"];
const KINDS: [&str; 2] = ["apns", "fcm"];

#[derive(Clone, Debug)]
enum Step {
    /// By an owner, or over HTTP.
    Register {
        by: Option<usize>,
        node: usize,
        kind: usize,
        token: usize,
    },
    Unregister {
        by: Option<usize>,
        node: usize,
        kind: usize,
    },
    /// Looks a node up and keeps what it found.
    Look { node: usize },
    /// What was found is said to be dead since so long after it last registered, or since now.
    Dead { node: usize, since: Option<i64> },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let by = || proptest::option::of(0..2_usize);
    let since = proptest::sample::select(vec![-1, 0, 1, 1_000_000]);
    let step = prop_oneof![
        4 => (by(), 0..2_usize, 0..2_usize, 0..3_usize)
            .prop_map(|(by, node, kind, token)| Step::Register { by, node, kind, token }),
        1 => (by(), 0..2_usize, 0..2_usize).prop_map(|(by, node, kind)| Step::Unregister { by, node, kind }),
        3 => (0..2_usize).prop_map(|node| Step::Look { node }),
        3 => (0..2_usize, proptest::option::of(since)).prop_map(|(node, since)| Step::Dead { node, since }),
    ];
    proptest::collection::vec(step, 1..24)
}

/// What should be registered.
#[derive(Default)]
struct Model {
    devices: BTreeMap<usize, Modelled>,
    looked: BTreeMap<usize, (Recipient, Modelled)>,
}

#[derive(Clone, PartialEq, Debug)]
struct Modelled {
    owner: Option<usize>,
    kind: usize,
    token: usize,
    secret: String,
    changed: i64,
}

async fn apply(open: &Open, model: &mut Model, step: Step) {
    match step {
        Step::Register {
            by,
            node,
            kind,
            token,
        } => {
            // Two registrations in one millisecond are one to the provider's clock.
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            let (name, text) = (format!("n-{node}"), format!("t-{token}"));
            let secret = match by {
                Some(owner) => {
                    let fields = [("type", KINDS[kind]), ("node", &name), ("token", &text)];
                    let answer = open.run("v1-register-push", OWNERS[owner], &fields).await;
                    answer.map(|completed| value(&completed, "secret"))
                }
                None => {
                    let device = Unowned::new(KINDS[kind], &name, None).unwrap();
                    let answer = open
                        .registry
                        .register(device, text.as_str().into(), true, ADDRESS)
                        .await;
                    answer
                        .map(|(registered, _)| registered.secret)
                        .map_err(CommandError::from)
                }
            };
            let existing = model.devices.get(&node);
            if existing.is_some_and(|existing| existing.owner != by) {
                assert_eq!(secret, Err(CommandError::Forbidden));
                return;
            }
            let secret = secret.unwrap();
            let kept = existing.is_some_and(|existing| existing.kind == kind);
            // Over HTTP nobody proves that the secret is theirs, and so it is another one.
            let is_shown = existing.is_some_and(|existing| existing.secret == secret);
            assert_eq!(is_shown, kept && by.is_some());
            let shown = open.registry.show(&name).await.unwrap().unwrap();
            assert_eq!(kept, shown.renewed.is_some());
            let changed = shown.changed().millis();
            model.devices.insert(
                node,
                Modelled {
                    owner: by,
                    kind,
                    token,
                    secret,
                    changed,
                },
            );
        }
        Step::Unregister { by, node, kind } => {
            let name = format!("n-{node}");
            let removed = match by {
                Some(owner) => {
                    let fields = [("type", KINDS[kind]), ("node", &name)];
                    open.run("v1-unregister-push", OWNERS[owner], &fields)
                        .await
                        .map(drop)
                }
                None => {
                    let device = Unowned::new(KINDS[kind], &name, None).unwrap();
                    let answer = open.registry.unregister(device, ADDRESS).await;
                    answer.map(drop).map_err(CommandError::from)
                }
            };
            let existing = model.devices.get(&node);
            let may = existing.is_some_and(|existing| existing.kind == kind && existing.owner == by);
            assert_eq!(removed, if may { Ok(()) } else { Err(CommandError::NotFound) });
            if may {
                model.devices.remove(&node);
            }
        }
        Step::Look { node } => {
            if let Some(modelled) = model.devices.get(&node) {
                let recipient = open.device(&format!("n-{node}"), Some(&modelled.secret)).await;
                assert_eq!(recipient.token.as_str(), format!("t-{}", modelled.token));
                model.looked.insert(node, (recipient, modelled.clone()));
            } else {
                assert!(open.is_missing(&format!("n-{node}")).await);
            }
        }
        Step::Dead { node, since } => {
            let Some((recipient, then)) = model.looked.get(&node) else {
                return;
            };
            let since = since.map(|since| u64::try_from(then.changed + since).unwrap());
            let ended = recipient.record.gone(since).await;
            // Dead is the device that has the token that was pushed to, and has not registered since.
            let dies = model.devices.get(&node).is_some_and(|device| {
                let later = match since {
                    Some(since) => device.changed < i64::try_from(since).unwrap(),
                    None => device.changed == then.changed,
                };
                device.token == then.token && later
            });
            assert_eq!(ended, Ok(dies));
            if dies {
                model.devices.remove(&node);
            }
        }
    }
}

async fn check(open: &Open, model: &Model) {
    let devices = open.registry.page(None, 100).await.unwrap().devices;
    assert_eq!(devices.len(), model.devices.len());
    for node in 0..2 {
        let is_missing = open.is_missing(&format!("n-{node}")).await;
        assert_eq!(is_missing, !model.devices.contains_key(&node));
    }
    for (node, modelled) in &model.devices {
        let name = format!("n-{node}");
        let device = devices.iter().find(|device| device.node == name).unwrap();
        let is = Modelled {
            owner: device
                .owner
                .as_ref()
                .and_then(|owner| OWNERS.iter().position(|name| name == owner)),
            kind: KINDS.iter().position(|kind| *kind == device.kind).unwrap(),
            token: device.token[2..].parse().unwrap(),
            secret: device.secret.clone(),
            changed: device.changed().millis(),
        };
        assert_eq!(&is, modelled);
        let found = open.device(&name, Some(&modelled.secret)).await;
        assert_eq!(found.token.as_str(), device.token);
    }
}

fn run(mut database: Database, steps: Vec<Step>) {
    // New devices of one address in a day.
    database.settings.max_per_owner = 1_000;
    Runtime::new().unwrap().block_on(async {
        let open = database.open().await;
        let mut model = Model::default();
        for step in steps {
            apply(&open, &mut model, step).await;
        }
        check(&open, &model).await;
        open.close().await;
        let open = database.open().await;
        check(&open, &model).await;
        open.close().await;
    });
}

/// The folder of the tests is not a place for files that they write.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn in_any_order_sqlite_does_what_the_model_does(steps in steps(), cache: bool) {
        run(Database::sqlite(cache), steps);
    }
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn in_any_order_postgres_does_what_the_model_does(steps in steps(), cache: bool) {
        run(Database::postgres(cache), steps);
    }
}

/// Renewals and dead tokens at once, by two processes on one database.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_at_the_same_time_wins() {
    for database in [
        Database::sqlite(true),
        Database::postgres(true),
        Database::postgres(false),
    ] {
        let (one, other) = (database.open().await, database.open().await);
        for round in 0..20 {
            let (owner, node) = (format!("{round}@example.org"), format!("n-{round}"));
            let secret = one.register(&owner, &node, "t").await.unwrap();
            let pushed = one.device(&node, Some(&secret)).await;
            let since = Time::now().millis() as u64;
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            let mut tasks = JoinSet::new();
            for number in 0..6 {
                let registry = if number % 2 == 0 {
                    &one.registry
                } else {
                    &other.registry
                };
                let registry = std::sync::Arc::clone(registry);
                let (owner, node) = (owner.clone(), node.clone());
                tasks.spawn(async move {
                    use fpush_push::Devices as _;
                    let fields = [("type", "fcm"), ("node", node.as_str()), ("token", "t")];
                    let command = crate::rig::command("v1-register-push", &owner, &fields);
                    value(&registry.execute(command).unwrap().await.unwrap(), "secret")
                });
                let record = std::sync::Arc::clone(&pushed.record);
                tasks.spawn(async move {
                    record.gone(Some(since)).await.unwrap();
                    String::new()
                });
            }
            let mut secrets = tasks.join_all().await;
            secrets.retain(|secret| !secret.is_empty());
            // At most one death came first, and a device that registered after it had a new secret.
            let last = one.registry.show(&node).await.unwrap().expect("a renewal wins");
            assert!(secrets.contains(&last.secret));
            secrets.sort_unstable();
            secrets.dedup();
            assert!(secrets.len() <= 2, "{}", secrets.len());
            until(async || memory_is(&one, &last).await && memory_is(&other, &last).await).await;
        }
        one.close().await;
        other.close().await;
    }
}

/// What another process has registered, replaced or ended is known at once, also to a registry that has all devices in
/// memory.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_one_has_registered_is_found_at_once() {
    use fpush_push::Found;
    for database in [Database::sqlite(true), Database::postgres(true)] {
        let (one, other) = (database.open().await, database.open().await);
        until(async || other.registry.counted().is_some()).await;
        for round in 0..20 {
            let (owner, node) = (format!("{round}@example.org"), format!("n-{round}"));
            let secret = one.register(&owner, &node, "t").await.unwrap();
            let found = other.find(&node, Some(&secret)).await;
            assert!(matches!(found, Ok(Found::Device(_))), "{round}");
            let found = other.find(&node, Some("another")).await;
            assert!(matches!(found, Ok(Found::WrongSecret)), "{round}");
            let fields = [("type", "apns"), ("node", node.as_str()), ("token", "t")];
            let completed = one.run("v1-register-push", &owner, &fields).await.unwrap();
            let found = other.find(&node, Some(&value(&completed, "secret"))).await;
            assert!(matches!(found, Ok(Found::Device(_))), "{round}");
        }
        let found = other.find("nobody", Some("x")).await;
        assert!(matches!(found, Ok(Found::Nothing)));
        one.close().await;
        other.close().await;
    }
}

async fn memory_is(open: &Open, device: &Device) -> bool {
    use fpush_push::Found;
    matches!(
        open.find(&device.node, Some(&device.secret)).await,
        Ok(Found::Device(_))
    )
}

/// A node that two want at once is one's alone.
#[tokio::test(flavor = "multi_thread")]
async fn two_owners_of_one_node_are_never_both_told_yes() {
    for database in [Database::sqlite(true), Database::postgres(false)] {
        let (one, other) = (database.open().await, database.open().await);
        for round in 0..20 {
            let node = format!("n-{round}");
            let (alice, bob) = (
                format!("alice{round}@example.org"),
                format!("bob{round}@example.org"),
            );
            let (first, second) =
                tokio::join!(one.register(&alice, &node, "t"), other.register(&bob, &node, "t"));
            assert!(first.is_ok() != second.is_ok());
            let refused = first.and(second).unwrap_err();
            assert_eq!(refused, CommandError::Forbidden);
        }
        one.close().await;
        other.close().await;
    }
    // Whichever error it is over HTTP, it is this one over XMPP.
    assert_eq!(
        CommandError::from(RegisterError::Forbidden),
        CommandError::Forbidden
    );
}
