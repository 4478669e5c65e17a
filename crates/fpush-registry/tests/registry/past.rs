//! Whether a registry is believed when it says that a device is gone goes by what is remembered of its database. Nobody
//! remembers what a backup has lost: a device that it calls gone may have registered since.

use std::{fs, path::PathBuf};

use fpush_registry::{Known, StoreSettings};

use crate::{
    behaviour::{device, until},
    rig::{Database, Open},
};

const ALICE: &str = "alice@a.example/phone";

async fn unregister(open: &Open, node: &str) {
    let fields = [("type", "fcm"), ("node", node)];
    open.run("v1-unregister-push", ALICE, &fields).await.unwrap();
}

/// A database of which there is a backup. In it `lives` is gone; after it `lives` has registered again.
struct BackedUp {
    database: Database,
    /// What was known of the database when the backup was made, and at the end.
    at_backup: Option<Known>,
    at_end: Option<Known>,
}

impl BackedUp {
    async fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for database in [Database::sqlite(true), Database::sqlite(false)] {
            let open = database.open().await;
            open.register(ALICE, "stays", "t-1").await.unwrap();
            open.register(ALICE, "lives", "t-2").await.unwrap();
            unregister(&open, "lives").await;
            assert!(open.has_ended("lives").await);
            let at_backup = open.registry.known();
            open.close().await;
            let file = file(&database);
            fs::copy(&file, file.with_extension("backup")).unwrap();
            let open = database.open_knowing(at_backup.clone()).await;
            open.register(ALICE, "lives", "t-3").await.unwrap();
            let at_end = open.registry.known();
            open.close().await;
            all.push(Self {
                database,
                at_backup,
                at_end,
            });
        }
        all
    }

    /// Puts the backup back, while nobody has the database open.
    fn restore(&self) {
        let file = file(&self.database);
        fs::copy(file.with_extension("backup"), &file).unwrap();
    }
}

fn file(database: &Database) -> PathBuf {
    match &database.settings.store {
        StoreSettings::Sqlite { path } => path.clone(),
        StoreSettings::Postgres { .. } => panic!("not a file"),
    }
}

/// An instance that remembers nothing believes what has ended since it came, by itself or by others.
#[tokio::test]
async fn without_a_past_only_what_ended_since_the_start_is_gone() {
    for past in BackedUp::all().await {
        past.restore();
        let open = past.database.open().await;
        assert_eq!(open.registry.doubt(), None, "there is nothing to compare it with");
        assert!(
            !open.has_ended("lives").await,
            "it has registered since the backup"
        );
        unregister(&open, "stays").await;
        assert!(open.has_ended("stays").await);
        let known = open.registry.known();
        open.close().await;
        // A start that remembers this one knows no more of the time before.
        let open = past.database.open_knowing(known.clone()).await;
        assert!(!open.has_ended("lives").await, "also after a start");
        assert!(open.has_ended("stays").await, "it was remembered");
        // A registration and its end, as ever.
        open.register(ALICE, "lives", "t-4").await.unwrap();
        unregister(&open, "lives").await;
        assert!(open.has_ended("lives").await);
        open.close().await;
        let open = past.database.open().await;
        for node in ["lives", "stays"] {
            assert!(!open.has_ended(node).await, "{node}: nothing is remembered again");
        }
        open.close().await;
    }
}

#[tokio::test]
async fn who_remembers_believes_what_ended_before() {
    for past in BackedUp::all().await {
        let open = past.database.open_knowing(past.at_end.clone()).await;
        unregister(&open, "lives").await;
        open.close().await;
        let open = past.database.open_knowing(past.at_backup.clone()).await;
        assert!(open.has_ended("lives").await);
        open.close().await;
    }
}

/// What an operator accepts may be a backup: then what is said there of the time before is not believed, by anybody.
#[tokio::test]
async fn an_acceptance_is_a_beginning() {
    for past in BackedUp::all().await {
        past.restore();
        let open = past.database.open_knowing(past.at_end.clone()).await;
        assert!(open.registry.doubt().is_some());
        let operator = past.database.open().await;
        operator.registry.accept().await.unwrap();
        operator.close().await;
        until(async || open.registry.doubt().is_none()).await;
        assert!(!open.has_ended("lives").await);
        unregister(&open, "stays").await;
        assert!(open.has_ended("stays").await);
        let known = open.registry.known();
        open.close().await;
        for known in [known, past.at_end.clone(), past.at_backup.clone()] {
            let open = past.database.open_knowing(known).await;
            assert_eq!(open.registry.doubt(), None);
            assert!(!open.has_ended("lives").await);
            assert!(open.has_ended("stays").await);
            open.close().await;
        }
    }
}

/// An operator who remembers nothing puts back one backup and then a later one: in the later one devices have ended that
/// registered after it.
#[tokio::test]
async fn a_later_backup_is_not_what_became_of_an_earlier_one() {
    for past in BackedUp::all().await {
        let file = file(&past.database);
        let later = past.database.open_knowing(past.at_end.clone()).await;
        unregister(&later, "stays").await;
        later.close().await;
        fs::copy(&file, file.with_extension("later")).unwrap();
        let end = past.database.open().await;
        end.register(ALICE, "stays", "t-5").await.unwrap();
        end.close().await;

        past.restore();
        let open = past.database.open().await;
        let known = open.registry.known();
        open.close().await;
        fs::copy(file.with_extension("later"), &file).unwrap();
        let open = past.database.open_knowing(known).await;
        assert!(open.registry.doubt().is_some());
        assert!(!open.has_ended("stays").await);
        open.close().await;
    }
}

/// What another instance ends counts for everybody who was there, and for nobody who came later and remembers nothing.
#[tokio::test]
async fn instances_believe_each_other_from_their_start_on() {
    for cache in [true, false] {
        let database = Database::postgres(cache);
        let first = database.open().await;
        for node in ["n-1", "n-2", "n-3"] {
            first.register(ALICE, node, "t-1").await.unwrap();
        }
        unregister(&first, "n-1").await;
        let second = database.open().await;
        unregister(&second, "n-2").await;
        unregister(&first, "n-3").await;
        until(async || {
            let mut all = true;
            for node in ["n-2", "n-3"] {
                all &= first.has_ended(node).await && second.has_ended(node).await;
            }
            all
        })
        .await;
        assert!(first.has_ended("n-1").await);
        assert!(!second.has_ended("n-1").await, "it had ended before");
        first.registry.import(vec![device("n-2")]).await.unwrap();
        for open in [&first, &second] {
            assert!(!open.has_ended("n-2").await, "an import is a life");
        }
        first.close().await;
        second.close().await;
    }
}
