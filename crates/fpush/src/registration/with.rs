//! Of a build with registered devices.

use super::{KnownDevice, Looked};
use crate::descriptors::listener_limits;
use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, bail};
use fpush_driver::{Drain, Modules};
use fpush_http::{Handle, HttpSettings, Listener, Security, api};
use fpush_monitor::RegistryStatus;
use fpush_push::{
    Devices, TokenFlaw, Unavailable,
    settings::{Problem, Section, Severity},
    sync::lock,
};
pub(crate) use fpush_registry::Known as KnownChange;
use fpush_registry::{Device, Dialect, Probe, PushModules, Registry, RegistrySettings, StoreSettings, Time};
use tokio::time::timeout;
use tracing::info;

/// What the block `registration` says, checked.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RegistrationSettings {
    pub(crate) registry: RegistrySettings,
    /// `http`: `None` if there is to be no listener.
    pub(crate) http: Option<HttpSettings>,
}

pub(crate) fn read(
    mut section: Section<'_>,
    modules: &[&str],
    components: &[&str],
) -> Option<RegistrationSettings> {
    let registry = RegistrySettings::read(&mut section, modules, components);
    let http = if section.has("http") {
        section.section("http").and_then(HttpSettings::read)
    } else {
        section.value("http");
        None
    };
    section.finish();
    Some(RegistrationSettings {
        registry: registry?,
        http,
    })
}

/// For `fpush check`.
pub(crate) fn facts(settings: &RegistrationSettings) -> Vec<(&'static str, String)> {
    let RegistrationSettings { registry, http } = settings;
    let store = match &registry.store {
        StoreSettings::Sqlite { path } => format!("SQLite, {}", path.display()),
        StoreSettings::Postgres { .. } => "PostgreSQL".to_owned(),
    };
    let targets = registry.types.iter().chain(&registry.providers);
    let listen = http.iter().map(|http| {
        let scheme = if http.security.tls.is_some() {
            "https"
        } else {
            "http"
        };
        (
            "HTTP API",
            format!("{scheme}://{}/push_appserver/v1/", http.listen),
        )
    });
    [("store", store)]
        .into_iter()
        .chain(targets.map(|(name, module)| ("devices", format!("{name} to module {module}"))))
        .chain(listen)
        .collect()
}

/// TLS and proxies of the HTTP API.
pub(crate) fn security(settings: &mut RegistrationSettings) -> Option<&mut Security> {
    settings.http.as_mut().map(|http| &mut http.security)
}

/// Where the HTTP API listens.
pub(crate) fn listen(settings: &RegistrationSettings) -> Option<SocketAddr> {
    settings.http.as_ref().map(|http| http.listen)
}

/// The file of the database, if it is one.
pub(crate) fn database_file(settings: &RegistrationSettings) -> Option<&Path> {
    match &settings.registry.store {
        StoreSettings::Sqlite { path } => Some(path),
        StoreSettings::Postgres { .. } => None,
    }
}

/// What a start would say of the database that knows this of it, and if one runs what its reload would say. A server is
/// asked only if `connect` says so.
pub(crate) async fn probe(
    settings: &RegistrationSettings,
    connect: bool,
    known: Option<&KnownChange>,
    is_running: bool,
) -> Vec<Problem> {
    let registry = &settings.registry;
    let say = |severity, path: &str, message: String| Problem {
        severity,
        path: path.to_owned(),
        message,
    };
    if matches!(registry.store, StoreSettings::Postgres { .. }) && !connect {
        let not_asked = "PostgreSQL was not asked: fpush check --connect asks it".to_owned();
        return vec![say(Severity::Note, STORE, not_asked)];
    }
    let probed = match registry.probe(known).await {
        Ok(probed) => probed,
        Err(e) => return vec![say(Severity::Error, STORE, e.to_string())],
    };
    let mut problems = Vec::new();
    let has_devices = matches!(probed, Probe::Usable { devices: 1.., .. });
    let is_missed = known.is_some_and(|known| known.devices > 0) && !has_devices;
    match (probed.doubt(known), &probed) {
        (Some(_), _) if is_running && is_missed => {
            problems.push(say(Severity::Error, STORE, NO_DEVICE.to_owned()));
        }
        (Some(doubt), _) => problems.push(say(Severity::Warning, STORE, doubt.to_string())),
        (None, Probe::Missing) => {
            let place = database_file(settings).unwrap_or_else(|| Path::new("")).display();
            problems.push(say(
                Severity::Note,
                STORE,
                format!("there is no database at {place} yet: the start makes an empty one"),
            ));
        }
        (None, Probe::Empty | Probe::Usable { .. }) => {}
    }
    if let Probe::Usable { strays, .. } = probed {
        let strays = strays.iter().map(ToString::to_string);
        problems.extend(strays.map(|strays| say(Severity::Warning, "registration", strays)));
    }
    problems
}

/// The push modules as the registry knows them.
struct Told(Arc<Modules>);

impl PushModules for Told {
    fn canonical(&self, module: &str, token: &str) -> Option<String> {
        let module = self.0.named(module)?;
        Some(module.canonical(token)?.into_owned())
    }

    fn flaw(&self, module: &str, token: &str) -> TokenFlaw {
        self.0
            .named(module)
            .map_or(TokenFlaw::Form, |module| module.flaw(token))
    }

    fn has_registered(&self, module: &str, token: &str) {
        if let Some(module) = self.0.named(module) {
            module.unblock(token);
        }
    }

    fn looks_like_token(&self, node: &str) -> bool {
        self.0.look_like_tokens(node)
    }

    fn vapid_key(&self, module: &str) -> Option<String> {
        self.0.named(module)?.vapid_key()
    }
}

/// Where somebody who asks finds registered devices; follows reloads.
#[derive(Clone, Default)]
pub(crate) struct Lookup(Arc<Mutex<Option<Known>>>);

type Known = (RegistrySettings, Arc<Registry>);

impl Lookup {
    /// From now on it is these.
    pub(crate) fn set(&self, registration: Option<(&RegistrationSettings, &Registering)>) {
        *lock(&self.0) = registration
            .map(|(settings, registering)| (settings.registry.clone(), Arc::clone(&registering.registry)));
    }

    /// The device with this node.
    pub(crate) async fn by_node(&self, node: &str) -> Looked {
        let Some((settings, registry)) = self.get() else {
            return Looked::NoRegistration;
        };
        let found = registry.show(node).await;
        found.map_or(Looked::Unavailable, |device| looked(&settings, device))
    }

    /// The devices with this token.
    pub(crate) async fn by_token(&self, token: &str, spelling: &str) -> Looked {
        let Some((settings, registry)) = self.get() else {
            return Looked::NoRegistration;
        };
        let found = registry.with_token(token, spelling).await;
        found.map_or(Looked::Unavailable, |devices| looked(&settings, devices))
    }

    fn get(&self) -> Option<Known> {
        lock(&self.0).clone()
    }
}

fn looked(settings: &RegistrySettings, devices: impl IntoIterator<Item = Device>) -> Looked {
    let known = |device: Device| {
        let modules = match device.dialect {
            Dialect::Seed | Dialect::P2 => &settings.types,
            Dialect::Tigase => &settings.providers,
        };
        let time = |time: Time| time.to_string();
        KnownDevice {
            module: modules.get(&device.kind).cloned(),
            kind: device.kind,
            dialect: device.dialect.name(),
            node: device.node,
            token: device.token,
            voip_token: device.voip_token,
            registered: time(device.registered),
            renewed: device.renewed.map(time),
            accepted: device.delivered.map(time),
            refused: device.failed.map(time),
        }
    };
    Looked::Devices(devices.into_iter().map(known).collect())
}

/// In whose place another one may come.
pub(crate) struct Running {
    registry: Arc<Registry>,
    listener: Option<Handle>,
}

/// What runs of it.
pub(crate) struct Registering {
    registry: Arc<Registry>,
    listener: Option<Handle>,
    drain: Drain,
}

/// Opens the registry and the HTTP listener. They may take the place of others: the listener takes over their port,
/// and a registry without devices is refused where there are some, because its path is misspelt, as likely as not, and so
/// is one that is out of reach: until it is there, all pushes for devices would have to wait. `known` is what is
/// remembered of the database.
pub(crate) async fn start(
    settings: RegistrationSettings,
    modules: &Arc<Modules>,
    drain: &Drain,
    old: Option<Running>,
    known: Option<KnownChange>,
) -> anyhow::Result<(Arc<dyn Devices>, Registering)> {
    let drain = drain.child();
    let RegistrationSettings { registry, http } = settings;
    let told = Arc::new(Told(Arc::clone(modules)));
    let (registry, background) = Registry::open(registry, told, known)
        .await
        .context("cannot open the database of registered devices")?;
    tokio::spawn(background);
    let limits = listener_limits();
    let bound = async {
        if let Some(old) = &old
            && old.registry.has_devices().await == Ok(true)
        {
            match registry.has_devices().await {
                Ok(true) => {}
                Ok(false) => bail!("{STORE}: {NO_DEVICE}"),
                Err(Unavailable) => bail!(
                    "registration.store: the database there is out of reach, and the one in use has devices: reload again \
                     when it is there, or restart fpush if that is meant"
                ),
            }
        }
        let Some(http) = http else { return Ok(None) };
        let running: Vec<_> = old.into_iter().filter_map(|old| old.listener).collect();
        let listener = Listener::bind(http.listen, http.security.clone(), limits, &running).await?;
        Ok(Some((http, listener)))
    };
    let bound = match bound.await {
        Ok(bound) => bound,
        Err(e) => {
            registry.close().await;
            return Err(e);
        }
    };
    let mut handle = None;
    if let Some((http, listener)) = bound {
        let tls = http.security.tls.is_some();
        info!(listen = %listener.address(), tls, "the HTTP API is open");
        handle = Some(listener.handle());
        let (registry, modules) = (Arc::clone(&registry), Arc::clone(modules));
        let router = api(&http, limits, registry, modules, drain.clone());
        drain.spawn(listener.serve(router, drain.clone()));
    }
    let devices = Arc::<Registry>::clone(&registry);
    let registering = Registering {
        registry,
        listener: handle,
        drain,
    };
    Ok((devices, registering))
}

impl Registering {
    /// In whose place another one may come.
    pub(crate) fn running(&self) -> Running {
        Running {
            registry: Arc::clone(&self.registry),
            listener: self.listener(),
        }
    }

    /// The HTTP listener, if there is one.
    pub(crate) fn listener(&self) -> Option<Handle> {
        self.listener.clone()
    }

    /// What is to be remembered of the database, unless it is doubted.
    pub(crate) fn known(&self) -> Option<KnownChange> {
        self.registry.known()
    }

    /// What is to be said of the database.
    pub(crate) fn status(&self) -> RegistryStatus {
        match self.registry.doubt() {
            Some(doubt) => RegistryStatus::Doubted(doubt.to_string()),
            None if self.registry.is_loading() => RegistryStatus::Loading,
            None if self.registry.known().is_some_and(|known| known.is_new()) => RegistryStatus::New,
            None => RegistryStatus::Good,
        }
    }

    /// Why the database cannot be used now, if that is so.
    pub(crate) fn outage(&self) -> Option<String> {
        self.registry.outage()
    }

    /// Registrations that have ended since the database was opened.
    pub(crate) fn ended(&self) -> fpush_push::Ended {
        self.registry.ended()
    }

    /// How many devices there are, if they are counted.
    pub(crate) fn devices(&self) -> Option<u64> {
        self.registry.counted()
    }

    /// Ends the listener and writes what is not written yet.
    pub(crate) async fn close(self) {
        self.drain.begin();
        // Who is not answered by then hears nothing from a registry that is closed either.
        drop(timeout(CLOSING, self.drain.until_idle()).await);
        self.registry.close().await;
    }
}

/// Stands for a change in what is known: other numbers for another one.
pub(crate) fn version(known: &KnownChange) -> Vec<u64> {
    vec![
        known.change.unsigned_abs(),
        u64::from_str_radix(&known.mark, 16).unwrap_or_default(),
        (known.seen / SEEN_AGAIN).unsigned_abs(),
    ]
}

/// In milliseconds. That the database was seen is written down so often, because after an hour without that it may have
/// been put back together with what is known of it.
const SEEN_AGAIN: i64 = 600_000;

const STORE: &str = "registration.store";
const NO_DEVICE: &str =
    "the database there has no device, and the one in use has some; restart fpush if that is meant";
/// For the requests that are under way when the listener ends.
const CLOSING: Duration = Duration::from_secs(2);
