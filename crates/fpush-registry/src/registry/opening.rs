//! How a registry is opened: for the daemon, or for one command of the operator's.

use std::{pin::pin, sync::Arc, time::Duration};

use fpush_push::Background;
use tokio::{select, time::sleep};
use tracing::warn;

use super::Registry;
use crate::{
    cache::Cache,
    error::OpenError,
    lookup::Finder,
    past::Known,
    registrar::{NoModules, PushModules, Registrar},
    rules::Rules,
    secrets::WrongSecrets,
    settings::{RegistrySettings, StoreSettings},
    shared::Shared,
    store::{MigrateError, Store},
    strays::Strays,
    targets::Targets,
    writer::{Role, Writer},
};

/// What becomes of a command whose database is not there: its path may be misspelt, or a volume not mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfMissing {
    /// It makes one.
    Make,
    /// It fails.
    Fail,
}

impl Registry {
    /// Opens the database and makes what is missing in it. What is returned beside the registry has to be spawned: it
    /// brings all devices into memory, if that is to hold them and they are so many that it takes a while
    /// ([`is_loading`](Self::is_loading)), writes, and ends some time after [`close`](Self::close).
    ///
    /// `known` is the last change of the database that is remembered: a database that does not know it is doubted.
    ///
    /// A PostgreSQL server that is out of reach is not an error, nor is an SQLite file that another program has locked, or
    /// whose disk is full: until then registrations and lookups are answered with [`Unavailable`].
    ///
    /// # Errors
    ///
    /// The file cannot be opened by this user, or holds something else, or tables of a newer version.
    ///
    /// [`Unavailable`]: fpush_push::Unavailable
    pub async fn open(
        settings: RegistrySettings,
        modules: Arc<dyn PushModules>,
        known: Option<Known>,
    ) -> Result<(Arc<Self>, Background), OpenError> {
        let store = open_store(&settings.store).await?;
        Self::begin(store, settings, modules, Role::Daemon { before: known }).await
    }

    /// Opens the database for a command of the operator's, without anything in memory. However long that lasts, only what
    /// the command asks for is done: no device expires, and nothing that is old is forgotten.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and the database cannot be reached, because a command does not wait for it, or is not there.
    pub async fn open_for_command(
        settings: RegistrySettings,
        if_missing: IfMissing,
    ) -> Result<(Arc<Self>, Background), OpenError> {
        let store = match (&settings.store, if_missing) {
            (StoreSettings::Sqlite { path }, IfMissing::Fail) => Store::existing_sqlite(path).await?,
            (store, _) => open_store(store).await?,
        };
        if if_missing == IfMissing::Fail {
            match store.version().await {
                Ok(Some(_)) => {}
                Ok(None) => return Err(OpenError::NoTables),
                Err(problem) => return Err(OpenError::Database(store.explain(&problem).await)),
            }
        }
        let settings = RegistrySettings {
            cache: false,
            ..settings
        };
        Self::begin(store, settings, Arc::new(NoModules), Role::Command).await
    }

    async fn begin(
        store: Store,
        settings: RegistrySettings,
        modules: Arc<dyn PushModules>,
        role: Role,
    ) -> Result<(Arc<Self>, Background), OpenError> {
        let RegistrySettings {
            store: _,
            cache,
            types,
            providers,
            rate_limit,
            max_per_owner,
            max_devices,
            max_devices_per_domain,
            trusted_domains,
            expire_after,
        } = settings;
        let targets = Arc::new(Targets::new(types, providers));
        let rules = Rules {
            max_per_owner,
            max_devices,
            max_devices_per_domain,
            trusted: trusted_domains,
        };
        let cache = cache.then(|| Cache::new(Arc::clone(&targets)));
        let shared = Arc::new(Shared::new(store, cache, rules, expire_after));
        let may_wait = matches!(role, Role::Daemon { .. });
        let mut writer = Writer::new(Arc::clone(&shared), role)?;
        match writer.prepare().await {
            Ok(()) => {}
            Err(MigrateError::Newer { found, known }) => return Err(OpenError::Newer { found, known }),
            Err(MigrateError::Randomness(problem)) => return Err(problem.into()),
            Err(MigrateError::Database(problem)) if may_wait && shared.store.may_come_later(&problem) => {
                writer.fail(&shared.store.explain(&problem).await);
            }
            Err(MigrateError::Database(problem)) => {
                return Err(OpenError::Database(shared.store.explain(&problem).await));
            }
        }
        let looking = may_wait.then(|| say_strays(Arc::clone(&shared), Arc::clone(&targets)));
        let wrong_secrets = Arc::new(WrongSecrets::default());
        let finder = Finder::new(
            Arc::clone(&shared),
            Arc::clone(&targets),
            Arc::clone(&wrong_secrets),
            rate_limit,
        );
        let registrar = Registrar::new(Arc::clone(&shared), targets, modules, wrong_secrets);
        let registry = Self {
            shared,
            finder: Arc::new(finder),
            registrar: Arc::new(registrar),
        };
        let background = async move {
            let mut writing = pin!(writer.run());
            if let Some(looking) = looking {
                select! {
                    () = &mut writing => return,
                    () = looking => {}
                }
            }
            writing.await;
        };
        Ok((Arc::new(registry), Box::pin(background)))
    }
}

/// Says of which kinds there are devices that the settings do not have, as soon as the database can be asked. Nobody waits for
/// it: in a large database it takes a while. One in which it takes too long is not asked for ever.
async fn say_strays(shared: Arc<Shared>, targets: Arc<Targets>) {
    let mut left = QUESTIONS;
    while left > 0 {
        if shared.outage().is_none() {
            if let Ok(counted) = shared.store.kinds().await {
                for strays in Strays::among(counted, &targets) {
                    warn!("{strays}");
                }
                return;
            }
            left -= 1;
        }
        sleep(PAUSE).await;
    }
}

/// How often a database is asked that can be used, and does not answer.
const QUESTIONS: u32 = 3;
/// Between two attempts to ask a database that is out of reach.
const PAUSE: Duration = Duration::from_secs(5);

/// Opens a database, and makes the file that is missing.
async fn open_store(settings: &StoreSettings) -> Result<Store, OpenError> {
    match settings {
        StoreSettings::Sqlite { path } => Store::sqlite(path).await,
        StoreSettings::Postgres { url } => Store::postgres(url),
    }
}
