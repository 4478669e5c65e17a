//! The writer step by step, without its loop: what it does when a test says so, and never by the clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fpush_push::Background;
use fpush_testkit::{Postgres, TempDir};
use sqlx::{AssertSqlSafe, Row as _};
use tokio::sync::oneshot;

use super::*;
use crate::{
    cache::{Cache, Cached},
    change::Change,
    device::{Device, Dialect},
    former::Former,
    past::{DatabaseTrust, Doubt},
    registrar::NoModules,
    registry::{IfMissing, Registry},
    rules::{By, Claim, Rules},
    settings::{RegistrySettings, StoreSettings},
    store::{LAST_USE_IN_SQL, MOST_CHANGES, Store},
    targets::Targets,
    times::Noted,
};

const DAY: Duration = Duration::from_secs(86_400);

/// Databases of each kind, and what has to outlive them.
struct Databases {
    folder: TempDir,
    server: Arc<Postgres>,
}

impl Databases {
    fn new() -> Self {
        Self {
            folder: TempDir::new(),
            server: Postgres::shared(),
        }
    }

    /// One of each kind.
    fn each(&self) -> [StoreSettings; 2] {
        [
            StoreSettings::Sqlite {
                path: self.folder.path().join("devices.db"),
            },
            StoreSettings::Postgres {
                url: self.server.database(),
            },
        ]
    }
}

/// A writer that has all devices in memory.
async fn writer(store: &StoreSettings) -> Writer {
    bounded(store, 2_000_000, 1_000_000).await
}

/// One with bounds for all devices and for those of a domain.
async fn bounded(store: &StoreSettings, max_devices: i64, max_devices_per_domain: i64) -> Writer {
    let store = match store {
        StoreSettings::Sqlite { path } => Store::sqlite(path).await.unwrap(),
        StoreSettings::Postgres { url } => Store::postgres(url).unwrap(),
    };
    let types = BTreeMap::from([("fcm".to_owned(), "google".to_owned())]);
    let targets = Arc::new(Targets::new(types, BTreeMap::new()));
    let rules = Rules {
        max_per_owner: 1_000_000,
        max_devices,
        max_devices_per_domain,
        trusted: BTreeSet::new(),
    };
    let shared = Shared::new(store, Some(Cache::new(targets)), rules, 400 * DAY);
    let mut writer = Writer::new(Arc::new(shared), Role::Daemon { before: None }).unwrap();
    writer.prepare().await.unwrap();
    writer
}

/// A device that registered so many milliseconds after the first ones.
fn device(node: &str, after: i64) -> Device {
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
        registered: Time::parse("2026-01-01T00:00:00Z")
            .unwrap()
            .after(Duration::from_millis(after.unsigned_abs())),
        renewed: None,
        delivered: None,
        failed: None,
        former: Vec::new(),
        imported: true,
        in_second: false,
    }
}

/// A registration over XMPP.
fn claim(owner: &str, node: &str, token: &str) -> Claim {
    Claim {
        dialect: Dialect::Seed,
        kind: "fcm".to_owned(),
        node: node.to_owned(),
        token: token.to_owned(),
        account: None,
        channel: None,
        by: By::Owner(owner.to_owned()),
        secret: None,
        is_reserved: false,
        now: Time::now(),
    }
}

impl Writer {
    async fn make(&mut self, change: Change) -> Result<Done, RegisterError> {
        let (reply, _done) = oneshot::channel();
        let mut jobs = vec![Job { change, reply }];
        self.transact(&mut jobs, None).await.unwrap().remove(0)
    }

    /// Whether memory has it that a device is in the second lane.
    fn has_in_second(&self, node: &str) -> bool {
        let cache = self.shared.cache.as_ref().unwrap();
        match cache.find(node, Some("secret")) {
            Cached::Device { entry, .. } => entry.in_second(),
            Cached::WrongSecret | Cached::Nothing | Cached::Incomplete => panic!("it is not there"),
        }
    }

    /// Registers over XMPP.
    async fn register(&mut self, owner: &str, node: &str, token: &str) -> Result<(), RegisterError> {
        let claim = claim(owner, node, token);
        let voip_token = None;
        self.make(Change::Register { claim, voip_token }).await.map(drop)
    }

    async fn import(&mut self, devices: Vec<Device>) {
        let (devices, mut first) = (Arc::<[Device]>::from(devices), 0);
        while first < devices.len() {
            let change = Change::Import {
                devices: Arc::clone(&devices),
                first,
            };
            let Ok(Done::Imported(imported)) = self.make(change).await else {
                panic!("not imported");
            };
            first += imported.total();
        }
    }

    fn remembers(&self, node: &str) -> bool {
        let cache = self.shared.cache.as_ref().unwrap();
        matches!(cache.find(node, Some("secret")), Cached::Device { .. })
    }
}

/// What an operator does with SQL.
async fn by_hand(store: &Store, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    match store {
        Store::Sqlite(pool) => drop(sqlx::query(sql).execute(pool).await.unwrap()),
        Store::Postgres(pool) => drop(sqlx::query(sql).execute(pool).await.unwrap()),
    }
}

async fn number(store: &Store, sql: &'static str) -> i64 {
    match store {
        Store::Sqlite(pool) => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
        Store::Postgres(pool) => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
    }
}

/// As the next start of the daemon, or another instance.
async fn cleaned(store: &StoreSettings) -> Writer {
    let mut writer = writer(store).await;
    while writer.try_to_clean().await.unwrap() {}
    writer
}

/// A device that nobody used for 500 days, as the system says from which it comes.
fn unused(node: &str) -> Device {
    Device {
        registered: Time::now().before(500 * DAY),
        renewed: Some(Time::now().before(450 * DAY)),
        delivered: Some(Time::now().before(450 * DAY)),
        ..device(node, 0)
    }
}

#[tokio::test]
async fn a_device_that_was_imported_expires_by_the_time_of_the_import() {
    let databases = Databases::new();
    for store in databases.each() {
        let mut one = writer(&store).await;
        let fresh = Device {
            registered: Time::now(),
            ..device("fresh", 0)
        };
        one.import(vec![fresh, unused("from-elsewhere")]).await;
        one.shared.store.close().await;

        let one = cleaned(&store).await;
        assert!(one.remembers("from-elsewhere"), "an import is a use");
        let long_ago = Time::now().before(401 * DAY).millis();
        let earlier = format!("UPDATE devices SET arrived = {long_ago}");
        by_hand(&one.shared.store, &earlier).await;
        one.shared.store.close().await;

        let one = cleaned(&store).await;
        assert!(one.remembers("fresh") && !one.remembers("from-elsewhere"));
        one.shared.store.close().await;
    }
}

fn settings(store: &StoreSettings) -> RegistrySettings {
    RegistrySettings {
        store: store.clone(),
        cache: true,
        types: BTreeMap::from([("fcm".to_owned(), "google".to_owned())]),
        providers: BTreeMap::new(),
        rate_limit: Duration::ZERO,
        max_per_owner: 4,
        max_devices: 1_000,
        max_devices_per_domain: 1_000,
        trusted_domains: BTreeSet::new(),
        expire_after: 400 * DAY,
    }
}

/// What a registry does until the time of the first cleaning has come. Returns how many devices there are then.
async fn after_a_minute((registry, background): (Arc<Registry>, Background)) -> usize {
    let background = tokio::spawn(background);
    assert!(!registry.remove("nobody").await.unwrap(), "it runs");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    // Which of what is due comes next is random: after so many jobs a cleaning has come.
    for _ in 0..64 {
        registry.remove("nobody").await.unwrap();
    }
    let left = registry.page(None, 10).await.unwrap().devices.len();
    registry.close().await;
    background.await.unwrap();
    left
}

#[tokio::test]
async fn a_command_that_lasts_a_minute_ends_no_device() {
    let databases = Databases::new();
    for store in databases.each() {
        let mut one = writer(&store).await;
        let fresh = Device {
            registered: Time::now(),
            ..device("fresh", 0)
        };
        one.import(vec![fresh, unused("unused")]).await;
        by_hand(&one.shared.store, "UPDATE devices SET arrived = NULL").await;
        one.shared.store.close().await;

        let command = Registry::open_for_command(settings(&store), IfMissing::Fail)
            .await
            .unwrap();
        assert_eq!(after_a_minute(command).await, 2);
        let daemon = Registry::open(settings(&store), Arc::new(NoModules), None).await;
        assert_eq!(after_a_minute(daemon.unwrap()).await, 1);
    }
}

#[tokio::test]
async fn an_acceptance_counts_also_if_the_clock_was_ahead_when_the_database_was_last_known() {
    let databases = Databases::new();
    for store in databases.each() {
        let mut one = writer(&store).await;
        one.import(vec![device("n", 0)]).await;
        let known = Known {
            database: "another".to_owned(),
            seen: Time::now().after(DAY).millis(),
            ..one.shared.store.look().await.unwrap().known
        };
        let mut two = writer(&store).await;
        two.before = Some(known);
        two.look_at_past(false).await.unwrap();
        assert!(two.shared.doubt().is_some());
        // A backup that was restored meanwhile says that it was accepted once: that is not an answer to this doubt.
        by_hand(&one.shared.store, "UPDATE states SET mark = 'restored'").await;
        by_hand(
            &one.shared.store,
            "INSERT INTO meta (name, value) VALUES ('accepted', '5 1')",
        )
        .await;
        for _ in 0..2 {
            two.look_at_past(false).await.unwrap();
            assert!(two.shared.doubt().is_some());
        }
        one.make(Change::Accept).await.unwrap();
        two.look_at_past(false).await.unwrap();
        assert!(two.shared.doubt().is_none());
        one.shared.store.close().await;
        two.shared.store.close().await;
    }
}

#[tokio::test]
async fn devices_of_tables_without_the_time_of_imports_expire_by_the_time_of_the_update() {
    let databases = Databases::new();
    for store in databases.each() {
        let mut one = writer(&store).await;
        let fresh = Device {
            registered: Time::now(),
            ..device("fresh", 0)
        };
        one.import(vec![fresh, unused("from-elsewhere")]).await;
        for old in [
            "ALTER TABLE devices DROP COLUMN arrived",
            "ALTER TABLE states DROP COLUMN places",
            "ALTER TABLE tombstones DROP COLUMN change",
            "DROP TABLE foreign_nodes",
            "ALTER TABLE devices DROP COLUMN in_second",
            "UPDATE meta SET value = '3' WHERE name = 'schema'",
        ] {
            by_hand(&one.shared.store, old).await;
        }
        one.shared.store.close().await;
        let one = cleaned(&store).await;
        assert!(one.remembers("from-elsewhere"));
        one.shared.store.close().await;
    }
}

/// What registers by a clock that is wrong must not make it believed, nor a database that was not compared with what is known.
#[tokio::test]
async fn nothing_is_written_into_a_large_database_before_it_is_judged() {
    let databases = Databases::new();
    for store in databases.each() {
        let small = writer(&store).await;
        assert!(small.is_well() && small.expiry.is_some() && small.loading.is_none());
        by_hand(&small.shared.store, "UPDATE states SET devices = 20001").await;
        small.shared.store.close().await;
        let mut large = writer(&store).await;
        assert!(!large.is_well() && large.expiry.is_none() && large.shared.known().is_none());
        large.begin().await.unwrap();
        assert!(large.is_well() && large.expiry.is_some() && large.loading.is_some());
        assert_eq!(large.shared.doubt(), Some(Doubt::Fewer { missing: 20_001 }));
        large.shared.store.close().await;
    }
}

/// What is asked for once in a transaction is asked for as it is then.
#[tokio::test]
async fn registrations_of_one_transaction_see_each_other() {
    let databases = Databases::new();
    for store in databases.each() {
        let mut one = bounded(&store, 2_000_000, 3).await;
        let job = |change| Job {
            change,
            reply: oneshot::channel().0,
        };
        let register = |owner: &str, node: &str, token: &str| {
            let claim = claim(owner, node, token);
            let voip_token = None;
            job(Change::Register { claim, voip_token })
        };
        let owner = |number: usize| format!("u@d{number}.example");
        let mut jobs: Vec<_> = (0..120)
            .map(|number| register(&owner(number), &format!("n{number}"), "t"))
            .collect();
        jobs.push(register(&owner(115), "n115", "renewed"));
        jobs.push(register(&owner(1), "n116", "stolen"));
        let claim = claim(&owner(117), "n117", "t");
        jobs.push(job(Change::Unregister { claim }));
        jobs.extend(
            (0..4).map(|number| register(&format!("u{number}@crowd.example"), &format!("c{number}"), "t")),
        );
        let results = one.transact(&mut jobs, None).await.unwrap();
        let is_new = |result: &Result<Done, RegisterError>| match result {
            Ok(Done::Device { is_new, .. }) => Some(*is_new),
            _ => None,
        };
        let seen: Vec<_> = results[118..].iter().map(is_new).collect();
        let (new, known) = (Some(true), Some(false));
        assert_eq!(seen, [new, new, known, None, known, new, new, new, None]);
        assert!(matches!(results.last(), Some(Err(RegisterError::Full))));
        let store = &one.shared.store;
        assert_eq!(number(store, "SELECT count(*) FROM devices").await, 122);
        assert_eq!(
            number(store, "SELECT devices FROM states ORDER BY change DESC LIMIT 1").await,
            122
        );
        let crowd = "SELECT devices FROM domains WHERE name = 'crowd.example'";
        assert_eq!(number(store, crowd).await, 3);
        assert_eq!(number(store, CHANGES).await, 123, "each node once");
        assert_eq!(number(store, "SELECT count(*) FROM tombstones").await, 1);
        let renewed = "SELECT count(*) FROM devices WHERE node = 'n115' AND token = 'renewed'";
        assert_eq!(number(store, renewed).await, 1);
        assert!(!one.remembers("n117"));
        one.shared.store.close().await;
    }
}

#[tokio::test]
async fn of_devices_that_are_imported_the_later_registration_stays() {
    let databases = Databases::new();
    for store in databases.each() {
        let mut one = writer(&store).await;
        let many = |after: i64| (0..130).map(move |number| device(&format!("n{number}"), after));
        one.import(many(5).collect()).await;
        // The node that is there twice is in a part with fifty of those that are there.
        let again: Vec<_> = many(7)
            .take(60)
            .chain([device("n3", 9), device("n59", 8), device("n59", 6)])
            .chain(many(4).skip(60))
            .collect();
        one.import(again).await;
        let store = &one.shared.store;
        let first = device("n", 0).registered.millis();
        for (after, expected) in [(5, 70), (7, 58), (8, 1), (9, 1), (4, 0), (6, 0)] {
            let sql = format!("DELETE FROM devices WHERE registered = {}", first + after);
            let before = number(store, "SELECT count(*) FROM devices").await;
            by_hand(store, &sql).await;
            let left = number(store, "SELECT count(*) FROM devices").await;
            assert_eq!(before - left, expected, "{after}");
        }
        assert_eq!(
            number(store, "SELECT devices FROM states ORDER BY change DESC LIMIT 1").await,
            130
        );
        one.shared.store.close().await;
    }
}

const CHANGES: &str = "SELECT count(*) FROM changes";

#[tokio::test]
async fn however_often_devices_renew_the_table_of_changes_has_a_bound_and_who_fell_behind_reads_all_anew() {
    let databases = Databases::new();
    for store in databases.each() {
        let (mut busy, mut behind) = (writer(&store).await, writer(&store).await);
        busy.import(vec![device("early", 0)]).await;
        // What renewals of hours have left.
        let earlier = format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MOST_CHANGES}) \
             INSERT INTO changes (node, at, source) SELECT 'a', {}, 'another' FROM n",
            Time::now().millis()
        );
        by_hand(&busy.shared.store, &earlier).await;
        for round in 0..20 {
            let renewed = (0..150).map(|number| device(&format!("n-{number}"), round));
            busy.import(renewed.collect()).await;
        }
        let left = number(&busy.shared.store, CHANGES).await;
        assert!(left <= MOST_CHANGES + 2 * BATCH as i64, "{left}");

        assert!(!behind.remembers("early") && !behind.remembers("n-149"));
        while behind.try_to_read_news().await.unwrap() {}
        assert!(behind.remembers("early") && behind.remembers("n-149"));
        // From then on it hears of single changes again.
        busy.import(vec![device("late", 0)]).await;
        assert!(!behind.try_to_read_news().await.unwrap());
        assert!(behind.remembers("late"));
        busy.shared.store.close().await;
        behind.shared.store.close().await;
    }
}

#[tokio::test]
async fn changes_of_which_an_older_version_has_left_millions_go_in_pieces_and_the_last_one_stays() {
    let databases = Databases::new();
    for store in databases.each() {
        let mut one = writer(&store).await;
        let earlier = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25000) \
                       INSERT INTO changes (node, at, source) SELECT 'a', 0, 'another' FROM n";
        by_hand(&one.shared.store, earlier).await;
        for left in [15_000, 5_000] {
            assert!(one.try_to_clean().await.unwrap(), "there is more");
            assert_eq!(number(&one.shared.store, CHANGES).await, left);
        }
        for _ in 0..2 {
            assert!(!one.try_to_clean().await.unwrap());
            assert_eq!(number(&one.shared.store, CHANGES).await, 1);
        }
        assert_eq!(one.shared.store.last_change().await.unwrap(), 25_000);
        one.shared.store.close().await;
    }
}

#[tokio::test]
async fn states_and_tombstones_have_a_bound_also_while_the_database_is_doubted() {
    let databases = Databases::new();
    let (states, tombstones) = ("SELECT count(*) FROM states", "SELECT count(*) FROM tombstones");
    for store in databases.each() {
        let mut one = writer(&store).await;
        let earlier = "WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 75000) \
                       INSERT INTO states (change, mark, devices, at) SELECT i, 'm', 0, 0 FROM n";
        by_hand(&one.shared.store, earlier).await;
        one.shared
            .set_trust(DatabaseTrust::Doubted(Doubt::Fewer { missing: 1 }));
        for (left, more) in [(65_000, true), (55_000, true), (50_001, false), (50_001, false)] {
            assert_eq!(one.try_to_clean().await.unwrap(), more);
            assert_eq!(number(&one.shared.store, states).await, left);
        }
        one.shared.store.close().await;
    }
    // What commands leave in between two cleans.
    let [store, _] = databases.each();
    let mut one = writer(&store).await;
    let earlier = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000) \
                   INSERT INTO tombstones (hash, at, reason, change) SELECT i, i, 'unregistered', 1 FROM n";
    by_hand(&one.shared.store, earlier).await;
    let nodes = (0..9_500).map(|node| format!("n-{node}"));
    one.import(nodes.clone().map(|node| device(&node, 0)).collect())
        .await;
    for node in nodes.take(1_000) {
        one.make(Change::Remove { node }).await.unwrap();
    }
    let left = number(&one.shared.store, tombstones).await;
    assert!(left < 2_000_600, "{left}");
    one.shared.store.close().await;
}

#[tokio::test]
async fn a_change_of_a_device_that_cannot_be_read_is_not_an_outage() {
    let databases = Databases::new();
    for store in databases.each() {
        let (mut one, mut other) = (writer(&store).await, writer(&store).await);
        one.import(vec![device("n-1", 0), device("n-2", 0)]).await;
        by_hand(
            &one.shared.store,
            "UPDATE devices SET dialect = 'later' WHERE node = 'n-1'",
        )
        .await;
        assert!(!other.try_to_read_news().await.unwrap());
        assert!(other.remembers("n-2") && !other.remembers("n-1"));
        // The use of a replaced secret of such a device is forgotten.
        let noted = Noted {
            former: Some("former".into()),
            ..Noted::default()
        };
        one.shared.times.note("n-1", noted);
        assert!(!one.write_times().await && one.is_well());
        one.shared.store.close().await;
        other.shared.store.close().await;
    }
}

#[tokio::test]
async fn a_backup_that_is_restored_under_a_registry_is_read_anew() {
    let server = Postgres::shared();
    for looked_at in [false, true] {
        let url = server.database();
        let name = server.name(&url);
        let store = StoreSettings::Postgres { url: url.clone() };
        let mut one = writer(&store).await;
        one.import(vec![device("n-1", 0), device("n-2", 0)]).await;
        one.shared.store.close().await;
        let psql = |sql: String| server.psql("postgres", &sql).unwrap();
        psql(format!("CREATE DATABASE {name}_copy TEMPLATE {name}"));

        let mut one = writer(&store).await;
        for number in 3..6 {
            one.import(vec![device(&format!("n-{number}"), 0)]).await;
        }
        one.look_at_past(false).await.unwrap();
        while one.try_to_read_news().await.unwrap() {}
        assert!(one.remembers("n-1") && one.remembers("n-3"));
        psql(format!("DROP DATABASE {name} WITH (FORCE)"));
        psql(format!("ALTER DATABASE {name}_copy RENAME TO {name}"));

        if looked_at {
            one.try_again().await.unwrap();
            assert!(one.shared.doubt().is_some());
        }
        let mut other = writer(&store).await;
        other.make(Change::Accept).await.unwrap();
        let node = "n-1".to_owned();
        other.make(Change::Remove { node }).await.unwrap();
        // More changes than the first one has seen.
        for number in 6..16 {
            other.import(vec![device(&format!("n-{number}"), 0)]).await;
        }
        one.try_again().await.unwrap();
        assert_eq!(one.shared.doubt(), None);
        assert!(!one.remembers("n-1"), "it was removed in the backup");
        assert!(!one.remembers("n-3"), "the backup does not know it");
        assert!(one.remembers("n-2") && one.remembers("n-15"));
        one.shared.store.close().await;
        other.shared.store.close().await;
    }
}

#[tokio::test]
async fn the_first_uses_of_replaced_secrets_are_written_together() {
    let databases = Databases::new();
    for store in databases.each() {
        let mut one = writer(&store).await;
        let until = Time::now().after(DAY);
        let replaced = |number: usize| Device {
            former: vec![Former {
                until,
                used: false,
                secret: "former".to_owned(),
            }],
            ..device(&format!("n-{number}"), 0)
        };
        let number_of = 400;
        one.import((0..number_of).map(replaced).collect()).await;
        for number in 0..number_of {
            let noted = Noted {
                former: Some("former".into()),
                delivered: (number % 2 == 0).then_some(until),
                ..Noted::default()
            };
            one.shared.times.note(&format!("n-{number}"), noted);
        }
        assert!(!one.write_times().await && one.is_well());
        for number in 0..number_of {
            let device = one
                .shared
                .store
                .find(&format!("n-{number}"))
                .await
                .unwrap()
                .unwrap();
            assert!(device.former[0].used, "{number}");
            assert_eq!(device.delivered.is_some(), number % 2 == 0);
            let cached = one
                .shared
                .cache
                .as_ref()
                .unwrap()
                .find(&device.node, Some("former"));
            assert!(matches!(
                cached,
                Cached::Device {
                    is_first_use: false,
                    ..
                }
            ));
        }
        if let Store::Postgres(_) = &one.shared.store {
            let transactions = "SELECT count(DISTINCT xmin::text) FROM devices";
            assert_eq!(number(&one.shared.store, transactions).await, 1);
        }
        one.shared.store.close().await;
    }
}

/// Where a device is at home, of two lanes, is written with the dates of its pushes.
#[tokio::test]
async fn a_device_that_is_in_the_other_lane_is_so_in_the_memory_of_all_and_goes_back_with_another_token() {
    let databases = Databases::new();
    for store in databases.each() {
        let (mut one, mut other) = (writer(&store).await, writer(&store).await);
        one.import(vec![device("n-1", 0)]).await;
        other.try_to_read_news().await.unwrap();
        let note = |in_second| Noted {
            delivered: Some(Time::now()),
            in_second,
            ..Noted::default()
        };
        for in_second in [true, false, true] {
            one.shared.times.note("n-1", note(Some(in_second)));
            assert!(!one.write_times().await && one.is_well());
            assert_eq!(one.has_in_second("n-1"), in_second);
            assert_eq!(other.has_in_second("n-1"), !in_second, "nobody told it yet");
            other.try_to_read_news().await.unwrap();
            assert_eq!(other.has_in_second("n-1"), in_second);
        }
        // Of what has not changed nobody is told.
        let told = number(&one.shared.store, CHANGES).await;
        one.shared.times.note("n-1", note(None));
        assert!(!one.write_times().await && one.is_well());
        assert_eq!(number(&one.shared.store, CHANGES).await, told);
        for (token, in_second) in [("t", true), ("t-2", false)] {
            one.register("a@a.example", "n-1", token).await.unwrap();
            assert_eq!(one.has_in_second("n-1"), in_second, "{token}");
            let stored = one.shared.store.find("n-1").await.unwrap().unwrap();
            assert_eq!(stored.in_second, in_second, "{token}");
        }
        one.shared.store.close().await;
        other.shared.store.close().await;
    }
}

#[tokio::test]
async fn who_registers_long_tokens_uses_up_room_by_their_bytes() {
    let databases = Databases::new();
    for store in databases.each() {
        let mut one = bounded(&store, 100, 90).await;
        let (mallory, long) = ("mallory@evil.org", "t".repeat(4_096));
        // Each counts as nine.
        for number in 0..10 {
            assert_eq!(one.register(mallory, &format!("n-{number}"), &long).await, Ok(()));
        }
        let full = Err(RegisterError::Full);
        assert_eq!(one.register("eve@x1.evil.org", "n-10", "t").await, full);
        // What is there renews.
        assert_eq!(one.register(mallory, "n-0", &long).await, Ok(()));
        // There is room in all, but not for one more large one.
        assert_eq!(one.register("bob@example.org", "b-1", &long).await, Ok(()));
        assert_eq!(one.register("bob@example.org", "b-2", &long).await, full);
        assert_eq!(one.register("bob@example.org", "b-2", "t").await, Ok(()));
        assert_eq!(one.register("carol@example.net", "c-1", "t").await, full);

        // What ends, and what gets shorter, leaves as much room; the count is the same by whomever it is made.
        for node in ["n-1", "b-1"].map(str::to_owned) {
            one.make(Change::Remove { node }).await.unwrap();
        }
        assert_eq!(one.register(mallory, "n-2", "short").await, Ok(()));
        let places = "SELECT places FROM states ORDER BY change DESC LIMIT 1";
        let of_domain = "SELECT devices FROM domains WHERE name = 'evil.org'";
        for _ in 0..2 {
            assert_eq!(number(&one.shared.store, places).await, 8 * 9 + 1 + 1);
            assert_eq!(number(&one.shared.store, of_domain).await, 8 * 9 + 1);
            one.make(Change::Accept).await.unwrap();
        }
        for number in 0..17 {
            assert_eq!(one.register(mallory, &format!("s-{number}"), "t").await, Ok(()));
        }
        assert_eq!(one.register(mallory, "s-17", "t").await, full);

        // Where there is no room a renewal may be somewhat longer, as tokens of another form are, and no more.
        assert_eq!(one.register(mallory, "s-0", &"t".repeat(900)).await, Ok(()));
        assert_eq!(one.register(mallory, "s-1", &"t".repeat(1_100)).await, full);
        let kept = one.shared.store.find("s-1").await.unwrap().unwrap();
        assert_eq!(kept.token, "t");
        one.shared.store.close().await;
    }
}

#[tokio::test]
async fn the_devices_of_an_old_database_count_by_their_bytes() {
    let databases = Databases::new();
    for store in databases.each() {
        let mut one = writer(&store).await;
        let long = Device {
            owner: Some("a@evil.org".to_owned()),
            token: "ü".repeat(2_000),
            voip_token: Some("t".repeat(4_000)),
            account: Some("a".repeat(100)),
            channel: Some("c".repeat(100)),
            ..device("long", 0)
        };
        let places = long.places();
        assert_eq!(places, 17);
        one.import(vec![long, device("short", 0)]).await;
        for old in [
            "ALTER TABLE states DROP COLUMN places",
            "ALTER TABLE tombstones DROP COLUMN change",
            "DROP TABLE foreign_nodes",
            "ALTER TABLE devices DROP COLUMN in_second",
            "UPDATE meta SET value = '4' WHERE name = 'schema'",
        ] {
            by_hand(&one.shared.store, old).await;
        }
        let one = writer(&store).await;
        let all = "SELECT places FROM states ORDER BY change DESC LIMIT 1";
        assert_eq!(number(&one.shared.store, all).await, places + 1);
        let of_domain = "SELECT devices FROM domains WHERE name = 'evil.org'";
        assert_eq!(number(&one.shared.store, of_domain).await, places);
        one.shared.store.close().await;
    }
}

#[tokio::test]
async fn an_owner_who_registers_without_end_makes_a_device_no_larger() {
    let folder = TempDir::new();
    let path = folder.path().join("devices.db");
    let mut one = writer(&StoreSettings::Sqlite { path }).await;
    for number in 0..20 {
        // Another type gets another secret.
        let claim = Claim {
            kind: format!("type-{number}"),
            ..claim("mallory@evil.org", "n", "t")
        };
        let voip_token = None;
        one.make(Change::Register { claim, voip_token }).await.unwrap();
    }
    let device = one.shared.store.find("n").await.unwrap().unwrap();
    assert_eq!(device.former.len(), 8);
    one.shared.store.close().await;
}

#[tokio::test]
async fn what_is_old_is_forgotten_by_a_clock_that_is_believed_alone() {
    let databases = Databases::new();
    for store in databases.each() {
        let mut one = writer(&store).await;
        for old in [
            "INSERT INTO changes (node, at, source) VALUES ('a', 0, 'another'), ('b', 0, 'another')",
            "INSERT INTO tombstones (hash, at, reason) VALUES ('a', 0, 'expired'), ('b', 0, 'expired')",
        ] {
            by_hand(&one.shared.store, old).await;
        }
        let tombstones = "SELECT count(*) FROM tombstones";
        let (began, now) = (Instant::now(), Time::now());
        // The clock has jumped; then it has not.
        for (at, left) in [(now.before(2 * DAY), [2, 2]), (now, [1, 0])] {
            one.expiry = Some(Expiry::begin(None, None, began, at, 400 * DAY));
            assert!(!one.try_to_clean().await.unwrap());
            let [changes, buried] = left;
            assert_eq!(number(&one.shared.store, CHANGES).await, changes);
            assert_eq!(number(&one.shared.store, tombstones).await, buried);
        }
        one.shared.store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_another_one_removes_meanwhile_is_not_missing() {
    let databases = Databases::new();
    for store in databases.each() {
        let (mut one, mut other) = (writer(&store).await, writer(&store).await);
        let changing = tokio::spawn(async move {
            for _ in 0..150 {
                other.import(vec![device("n", 0)]).await;
                let node = "n".to_owned();
                other.make(Change::Remove { node }).await.unwrap();
            }
            other.shared.store.close().await;
        });
        while !changing.is_finished() {
            one.look_at_past(true).await.unwrap();
            assert_eq!(one.shared.doubt(), None);
        }
        changing.await.unwrap();
        one.shared.store.close().await;
    }
}

#[tokio::test]
async fn the_last_use_of_a_device_is_found_in_one_scan() {
    let databases = Databases::new();
    for store in databases.each() {
        let mut one = writer(&store).await;
        assert_eq!(one.shared.store.last_use().await.unwrap(), None);
        let (registered, renewed, delivered) = (device("a", 5), device("b", 0), device("c", 0));
        let used = [
            registered.clone(),
            Device {
                renewed: Some(registered.registered.after(DAY)),
                ..renewed
            },
            Device {
                delivered: Some(registered.registered.after(2 * DAY)),
                ..delivered
            },
        ];
        for (days, device) in (0..).zip(used) {
            one.import(vec![device]).await;
            let last = one.shared.store.last_use().await.unwrap();
            assert_eq!(last, Some(registered.registered.after(days * DAY)));
        }
        if let Store::Sqlite(pool) = &one.shared.store {
            let plan = format!("EXPLAIN QUERY PLAN {LAST_USE_IN_SQL}");
            let plan = sqlx::query(AssertSqlSafe(plan)).fetch_all(pool).await.unwrap();
            let steps = plan.iter().map(|row| row.get::<String, _>("detail"));
            assert_eq!(steps.filter(|step| step.contains("devices")).count(), 1);
        }
        one.shared.store.close().await;
    }
}

/// Changes of a few nodes by a few owners, of which many get into each other's way; always the same ones for a number.
fn changes(number: u64) -> Vec<Change> {
    let mut state = number;
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let change = |_| {
        let owner = format!("{}@example.org", ["alice", "bob", "carol"][random(3) as usize]);
        let (node, token) = (format!("n{}", random(5)), format!("t{}", random(3)));
        let mut claim = claim(&owner, &node, &token);
        match random(3) {
            0 => {
                // The node is made of owner and device; an account of somebody may have it, too.
                let device = random(2);
                (claim.dialect, claim.node) = (Dialect::P2, format!("{owner}-{device}"));
                claim.account = Some(format!("account{device}"));
            }
            1 if random(3) == 0 => {
                claim.by = By::Http {
                    may_add: true,
                    has_to_prove: false,
                };
            }
            _ => {}
        }
        let voip_token = None;
        match random(14) {
            0 | 1 => Change::Unregister { claim },
            2 => Change::Remove { node },
            3 => Change::Dead {
                node,
                token,
                before: Time::now().after(DAY),
            },
            4 => Change::Import {
                devices: Arc::new([Device {
                    owner: Some("@example.org".to_owned()),
                    account: Some("account1".to_owned()),
                    dialect: Dialect::P2,
                    imported: false,
                    ..device(&node, 7)
                }]),
                first: 0,
            },
            _ => Change::Register { claim, voip_token },
        }
    };
    (0..40).map(change).collect()
}

/// What came of a change, and who has what then, but for the secrets, which are random.
fn said(result: &Result<Done, RegisterError>) -> String {
    match result {
        Ok(Done::Device { device, is_new }) => format!(
            "{is_new} {} {:?} {:?} {}",
            device.node, device.owner, device.account, device.token
        ),
        Ok(Done::Removed(removed)) => format!("{removed}"),
        Ok(Done::Imported(imported)) => format!("{imported:?}"),
        Ok(Done::Accepted(_)) => "accepted".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

#[tokio::test]
async fn changes_that_are_made_together_are_made_as_if_one_came_after_the_other() {
    const DEVICES: &str = "SELECT CAST(coalesce(sum(devices), 0) AS BIGINT) FROM domains";
    let databases = Databases::new();
    for number_of_run in 0..12 {
        let mut outcomes = Vec::new();
        for (store, together) in databases.each().into_iter().zip([true, number_of_run % 2 == 0]) {
            // A file of its own: the other kind is new each time.
            let store = match store {
                StoreSettings::Sqlite { .. } => StoreSettings::Sqlite {
                    path: databases.folder.path().join(format!("{number_of_run}.db")),
                },
                StoreSettings::Postgres { .. } => store,
            };
            let mut writer = bounded(&store, 9, 8).await;
            Arc::get_mut(&mut writer.shared).unwrap().rules.max_per_owner = 3;
            let mut results = Vec::new();
            if together {
                let job = |change| Job {
                    change,
                    reply: oneshot::channel().0,
                };
                let mut jobs = changes(number_of_run).into_iter().map(job).collect();
                results.extend(writer.transact(&mut jobs, None).await.unwrap().iter().map(said));
            } else {
                for change in changes(number_of_run) {
                    results.push(said(&writer.make(change).await));
                }
            }
            let page = writer.shared.store.page("", 100).await.unwrap();
            let mut left: Vec<_> = page
                .devices
                .iter()
                .map(|device| {
                    let cached = writer.shared.cache.as_ref().unwrap();
                    let cached = cached.find(&device.node, Some(&device.secret));
                    assert!(matches!(cached, Cached::Device { .. }), "memory follows");
                    format!("{} {:?} {}", device.node, device.owner, device.token)
                })
                .collect();
            left.sort();
            let missing = writer.shared.store.missing().await.unwrap();
            assert_eq!(missing, 0, "as many as were counted");
            let counted = number(&writer.shared.store, DEVICES).await;
            let tombstones = number(&writer.shared.store, "SELECT count(*) FROM tombstones").await;
            outcomes.push((results, left, counted, tombstones));
            writer.shared.store.close().await;
        }
        assert_eq!(outcomes[0], outcomes[1], "run {number_of_run}");
    }
}
