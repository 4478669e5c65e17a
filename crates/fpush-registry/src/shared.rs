//! What look-ups, registrations and the writer share.

use std::{
    sync::{OnceLock, RwLock},
    time::Duration,
};

use aws_lc_rs::hmac;
use fpush_push::{EndedRegistrations, Unavailable, sync};
use tokio::{sync::Notify, time::timeout};

use crate::{
    cache::Cache,
    foreign::Foreign,
    jobs::Jobs,
    past::{DatabaseTrust, Doubt, Known},
    rules::Rules,
    store::{Store, describe},
    text::hex,
    times::Times,
};

/// The database, what is in memory of it, and the way to the writer.
pub(crate) struct Shared {
    pub(crate) store: Store,
    /// `None` if every look-up asks the database.
    pub(crate) cache: Option<Cache>,
    pub(crate) times: Times,
    pub(crate) rules: Rules,
    pub(crate) expire_after: Duration,
    /// What nodes look like that other push services made.
    pub(crate) foreign: Foreign,
    /// What waits to be written.
    pub(crate) jobs: Jobs,
    /// The writer hears that the end has come, and says when everything is written.
    pub(crate) end: Notify,
    pub(crate) ended: Notify,
    /// The writer hears that others may have changed devices.
    pub(crate) news: Notify,
    /// Those that this instance has ended.
    pub(crate) ended_registrations: EndedRegistrations,
    /// Makes nodes; it is in the database.
    key: OnceLock<hmac::Key>,
    trust: RwLock<DatabaseTrust>,
    /// Why the database cannot be used, as long as that is so.
    outage: RwLock<Option<String>>,
}

impl Shared {
    pub(crate) fn new(store: Store, cache: Option<Cache>, rules: Rules, expire_after: Duration) -> Self {
        Self {
            store,
            cache,
            times: Times::default(),
            rules,
            expire_after,
            foreign: Foreign::default(),
            jobs: Jobs::default(),
            end: Notify::new(),
            ended: Notify::new(),
            news: Notify::new(),
            ended_registrations: EndedRegistrations::default(),
            key: OnceLock::new(),
            trust: RwLock::default(),
            outage: RwLock::default(),
        }
    }

    pub(crate) fn set_trust(&self, trust: DatabaseTrust) {
        *sync::write(&self.trust) = trust;
    }

    /// The last change of the database that is known, unless the database is doubted.
    pub(crate) fn known(&self) -> Option<Known> {
        match &*sync::read(&self.trust) {
            DatabaseTrust::Good(known) => Some(known.clone()),
            DatabaseTrust::Unasked | DatabaseTrust::Doubted(_) => None,
        }
    }

    /// Why the database is doubted, if it is.
    pub(crate) fn doubt(&self) -> Option<Doubt> {
        match &*sync::read(&self.trust) {
            DatabaseTrust::Doubted(doubt) => Some(*doubt),
            DatabaseTrust::Unasked | DatabaseTrust::Good(_) => None,
        }
    }

    pub(crate) fn set_outage(&self, outage: Option<String>) {
        *sync::write(&self.outage) = outage;
    }

    /// Why the database cannot be used, if that is so.
    pub(crate) fn outage(&self) -> Option<String> {
        sync::read(&self.outage).clone()
    }

    /// By what the tombstone of a node is known. `None` while there is no key.
    pub(crate) fn tombstone(&self, node: &str) -> Option<String> {
        let hash = self.node(&["tombstone", node]).ok()?;
        Some(hash[..32].to_owned())
    }

    /// Makes a node that only we can make, and that is always the same for the same parts.
    pub(crate) fn node(&self, parts: &[&str]) -> Result<String, Unavailable> {
        let key = self.key.get().ok_or(Unavailable)?;
        Ok(hex(hmac::sign(key, parts.join("\0").as_bytes()).as_ref()))
    }

    pub(crate) fn set_key(&self, key: &str) {
        self.key
            .get_or_init(|| hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()));
    }
}

/// Asks the database, for 2 s at most.
pub(crate) async fn ask<T>(question: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Unavailable> {
    match timeout(PATIENCE, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(problem)) => {
            tracing::debug!(problem = describe(&problem), "the database did not answer");
            Err(Unavailable)
        }
        Err(_) => Err(Unavailable),
    }
}

/// How long an answer of the database may take.
const PATIENCE: Duration = Duration::from_secs(2);
