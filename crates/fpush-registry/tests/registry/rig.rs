//! A registry with what a test needs around it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use fpush_push::{
    COMMAND_FIELDS, Command, CommandError, Completed, Devices as _, Found, Lookup, Recipient, Unavailable,
    Value, canonical_jid,
};
use fpush_registry::{Known, PushModules, RegisterError, Registry, RegistrySettings, StoreSettings, Unowned};
use fpush_testkit::{Postgres, TempDir};
use sqlx::Connection as _;
use tokio::{sync::oneshot, task::JoinHandle};

/// Where devices without an owner come from.
pub(crate) const ADDRESS: &str = "192.0.2.7";

/// A database for one test.
pub(crate) struct Database {
    pub(crate) settings: RegistrySettings,
    pub(crate) _folder: TempDir,
    pub(crate) server: Option<Arc<Postgres>>,
}

/// An open registry.
pub(crate) struct Open {
    pub(crate) registry: Arc<Registry>,
    pub(crate) writer: JoinHandle<()>,
    /// What the hook was told.
    pub(crate) told: Arc<Mutex<Vec<(String, String)>>>,
}

impl Database {
    pub(crate) fn sqlite(cache: bool) -> Self {
        let folder = TempDir::new();
        let path = folder.path().join("folder").join("devices.db");
        Self {
            settings: settings(StoreSettings::Sqlite { path }, cache),
            _folder: folder,
            server: None,
        }
    }

    pub(crate) fn postgres(cache: bool) -> Self {
        Self::on(&Postgres::shared(), cache)
    }

    /// A database of this server.
    pub(crate) fn on(server: &Arc<Postgres>, cache: bool) -> Self {
        let url = server.database();
        Self {
            settings: settings(StoreSettings::Postgres { url }, cache),
            _folder: TempDir::new(),
            server: Some(Arc::clone(server)),
        }
    }

    /// One of each kind.
    pub(crate) fn all() -> Vec<Self> {
        vec![
            Self::sqlite(true),
            Self::sqlite(false),
            Self::postgres(true),
            Self::postgres(false),
        ]
    }

    /// What an operator does with SQL.
    pub(crate) async fn by_hand(&self, sql: &str) {
        match &self.settings.store {
            StoreSettings::Sqlite { path } => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
                let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
                sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()))
                    .execute(&mut connection)
                    .await
                    .unwrap();
                connection.close().await.unwrap();
            }
            StoreSettings::Postgres { url } => {
                let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
                sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()))
                    .execute(&mut connection)
                    .await
                    .unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// Opens it as somebody who remembers nothing of it.
    pub(crate) async fn open(&self) -> Open {
        self.open_knowing(None).await
    }

    /// Opens it as somebody who remembers this of it.
    pub(crate) async fn open_knowing(&self, known: Option<Known>) -> Open {
        let (open, idle) = self.open_idle(known).await;
        drop(idle);
        open
    }

    /// Opens it in the same way; its writer does nothing until what is returned beside it is dropped.
    pub(crate) async fn open_idle(&self, known: Option<Known>) -> (Open, oneshot::Sender<()>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let modules = Arc::new(Modules {
            told: Arc::clone(&told),
        });
        let (registry, writer) = Registry::open(self.settings.clone(), modules, known)
            .await
            .unwrap();
        let (idle, dropped) = oneshot::channel::<()>();
        let writer = tokio::spawn(async move {
            drop(dropped.await);
            writer.await;
        });
        let open = Open {
            registry,
            writer,
            told,
        };
        (open, idle)
    }
}

/// Tokens that begin with `bad` are none, and nodes that begin with `token-` look like some.
struct Modules {
    told: Arc<Mutex<Vec<(String, String)>>>,
}

impl PushModules for Modules {
    fn canonical(&self, _module: &str, token: &str) -> Option<String> {
        (!token.starts_with("bad")).then(|| token.to_owned())
    }

    fn has_registered(&self, module: &str, token: &str) {
        self.told
            .lock()
            .unwrap()
            .push((module.to_owned(), token.to_owned()));
    }

    fn looks_like_token(&self, node: &str) -> bool {
        node.starts_with("token-")
    }
}

impl Open {
    pub(crate) async fn close(self) {
        self.registry.close().await;
        self.writer.await.unwrap();
    }

    pub(crate) async fn find(&self, node: &str, secret: Option<&str>) -> Result<Found, Unavailable> {
        match self.registry.find(node, secret, "a.example") {
            Lookup::Settled(found) => Ok(found),
            Lookup::Asking(asking) => asking.await,
        }
    }

    pub(crate) async fn device(&self, node: &str, secret: Option<&str>) -> Recipient {
        match self.find(node, secret).await.unwrap() {
            Found::Device(recipient) => recipient,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn is_missing(&self, node: &str) -> bool {
        matches!(
            self.find(node, None).await.unwrap(),
            Found::Nothing | Found::Unsure | Found::Foreign | Found::Reserved | Found::Ended
        )
    }

    /// Whether the registry says that the node was registered and has ended.
    pub(crate) async fn has_ended(&self, node: &str) -> bool {
        matches!(self.find(node, Some("any")).await.unwrap(), Found::Ended)
    }

    pub(crate) async fn run(
        &self,
        node: &str,
        sender: &str,
        fields: &[(&str, &str)],
    ) -> Result<Completed, CommandError> {
        self.registry.execute(command(node, sender, fields))?.await
    }

    /// Registers a device without an owner, as HTTP does, and returns its secret.
    pub(crate) async fn register_unowned(
        &self,
        node: &str,
        token: &str,
        secret: Option<&str>,
    ) -> Result<String, RegisterError> {
        let device = Unowned::new("fcm", node, secret)?;
        let registered = self.registry.register(device, token.into(), true, ADDRESS).await;
        registered.map(|(registered, _)| registered.secret)
    }

    /// Removes such a device.
    pub(crate) async fn unregister_unowned(
        &self,
        node: &str,
        secret: Option<&str>,
    ) -> Result<(), RegisterError> {
        let device = Unowned::new("fcm", node, secret)?;
        self.registry.unregister(device, ADDRESS).await.map(drop)
    }

    /// Registers with mod_push_appserver's command and returns the secret.
    pub(crate) async fn register(
        &self,
        sender: &str,
        node: &str,
        token: &str,
    ) -> Result<String, CommandError> {
        let fields = [("type", "fcm"), ("node", node), ("token", token)];
        let completed = self.run("v1-register-push", sender, &fields).await?;
        Ok(value(&completed, "secret"))
    }
}

pub(crate) fn command(name: &str, sender: &str, fields: &[(&str, &str)]) -> Command {
    let known = |name: &str| COMMAND_FIELDS.iter().find(|known| **known == name);
    Command {
        name: name.to_owned(),
        sender: canonical_jid(sender).into_owned(),
        written: sender.split('/').next().unwrap_or_default().to_owned(),
        service: "push.example.org".to_owned(),
        scope: Arc::default(),
        fields: fields
            .iter()
            .filter_map(|(name, value)| Some((*known(name)?, (*value).to_owned())))
            .collect(),
        has_other_fields: fields.iter().any(|(name, _)| known(name).is_none()),
    }
}

pub(crate) fn value(completed: &Completed, name: &str) -> String {
    let value = completed.values.iter().find(|(known, _)| *known == name);
    match value {
        Some((_, Value::Text(value) | Value::Address(value))) => value.clone(),
        Some((_, Value::List(values))) => values[0].clone(),
        None => panic!("no field {name}"),
    }
}

pub(crate) fn settings(store: StoreSettings, cache: bool) -> RegistrySettings {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    RegistrySettings {
        store,
        cache,
        types: map(&[("apns", "apple"), ("fcm", "google")]),
        providers: map(&[("tigase:messenger:apns:1", "siskin")]),
        rate_limit: Duration::from_secs(5),
        max_per_owner: 4,
        max_devices: 2_000_000,
        max_devices_per_domain: 1_000_000,
        trusted_domains: BTreeSet::new(),
        expire_after: Duration::from_secs(400 * 86_400),
    }
}
