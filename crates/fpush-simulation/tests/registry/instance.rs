//! An instance of the registry, as a daemon has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use fpush_push::{
    COMMAND_FIELDS, Command, CommandError, Devices as _, Found, Lookup, Unavailable, Value, canonical_jid,
};
use fpush_registry::{Known, PushModules, Registry, RegistrySettings, StoreSettings};
use tokio::task::JoinHandle;

pub(crate) struct Instance {
    registry: Arc<Registry>,
    writer: JoinHandle<()>,
}

/// Tokens have 64 digits.
struct Modules;

impl PushModules for Modules {
    fn canonical(&self, _module: &str, token: &str) -> Option<String> {
        is_token(token).then(|| token.to_owned())
    }

    fn has_registered(&self, _module: &str, _token: &str) {}

    fn looks_like_token(&self, node: &str) -> bool {
        is_token(node)
    }
}

fn is_token(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Instance {
    pub(crate) async fn open(path: &Path, cache: bool, known: Option<Known>) -> Self {
        let settings = RegistrySettings {
            store: StoreSettings::Sqlite {
                path: path.to_owned(),
            },
            cache,
            types: BTreeMap::from([("apns".to_owned(), "apple".to_owned())]),
            providers: BTreeMap::new(),
            rate_limit: Duration::from_secs(5),
            max_per_owner: 4,
            max_devices: MOST,
            max_devices_per_domain: MOST_OF_DOMAIN,
            trusted_domains: BTreeSet::new(),
            expire_after: Duration::from_secs(400 * 86_400),
        };
        let opened = Registry::open(settings, Arc::new(Modules), known).await;
        let (registry, writer) = opened.expect("the database can be opened");
        Self {
            registry,
            writer: tokio::spawn(writer),
        }
    }

    pub(crate) async fn find(&self, node: &str, secret: Option<&str>) -> Result<Found, Unavailable> {
        match self.registry.find(node, secret, "one.example.org") {
            Lookup::Settled(found) => Ok(found),
            Lookup::Asking(asking) => asking.await,
        }
    }

    /// Returns the secret.
    pub(crate) async fn register(
        &self,
        owner: &str,
        node: &str,
        token: &str,
    ) -> Result<String, CommandError> {
        let command = command(
            "v1-register-push",
            owner,
            &[("type", "apns"), ("node", node), ("token", token)],
        );
        let completed = self.registry.execute(command)?.await?;
        let secret = completed.values.iter().find(|(name, _)| *name == "secret");
        match secret {
            Some((_, Value::Text(secret))) => Ok(secret.clone()),
            Some((_, Value::Address(_) | Value::List(_))) | None => Ok(String::new()),
        }
    }

    pub(crate) async fn unregister(&self, owner: &str, node: &str) -> Result<(), CommandError> {
        let command = command("v1-unregister-push", owner, &[("type", "apns"), ("node", node)]);
        self.registry.execute(command)?.await.map(drop)
    }

    /// What the state directory remembers.
    pub(crate) fn known(&self) -> Option<Known> {
        self.registry.known()
    }

    pub(crate) async fn close(self) {
        self.registry.close().await;
        drop(self.writer.await);
    }

    /// The process is killed.
    pub(crate) fn crash(self) {
        self.writer.abort();
    }
}

fn command(name: &str, sender: &str, fields: &[(&str, &str)]) -> Command {
    let known = |name: &str| COMMAND_FIELDS.iter().find(|known| **known == name);
    Command {
        name: name.to_owned(),
        sender: canonical_jid(sender).into_owned(),
        written: sender.to_owned(),
        service: "push.example.org".to_owned(),
        scope: Arc::default(),
        fields: fields
            .iter()
            .filter_map(|(name, value)| Some((*known(name)?, (*value).to_owned())))
            .collect(),
        has_other_fields: false,
    }
}

/// Devices in all.
const MOST: i64 = 60;
pub(crate) const MOST_OF_DOMAIN: i64 = 6;
