//! The registry: what the component, the HTTP listener and the command line ask and tell it.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use aws_lc_rs::hmac;
use fpush_push::{
    Background, Command, Commands, Directory, Ending, Executing, Found, Lookup, Recipient, Record, Token,
    Unavailable,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, timeout},
};

use crate::{
    cache::{Cache, Cached, opens},
    device::{Device, Dialect, MAX_KIND, MAX_NODE, MAX_TOKEN, Time, hex, is_sane},
    dialects,
    entry::{Entry, Field},
    error::{OpenError, RegisterError},
    rules::{By, Claim, Rules},
    settings::{RegistrySettings, StoreSettings},
    store::{MigrateError, Store, describe},
    targets::Targets,
    throttle::{Throttle, household},
    times::{Noted, Times},
    writer::{Change, Done, Imported, Job, Writer},
};

/// What the registry asks and tells the push modules. Both are called with the name of a module and a token.
#[derive(Clone)]
pub struct Hooks {
    /// The one spelling in which the module knows the token; `None` for what cannot be one of its tokens.
    pub canonical: Arc<Canonical>,
    /// A device with this token registered, anew or again: what is known against the token is outdated.
    pub registered: Arc<Heard>,
}

/// Spells a token as a module does.
pub type Canonical = dyn Fn(&str, &str) -> Option<String> + Send + Sync;

/// Is told of a module and a token.
pub type Heard = dyn Fn(&str, &str) + Send + Sync;

impl Default for Hooks {
    /// Takes every token as it is and tells nobody.
    fn default() -> Self {
        Self {
            canonical: Arc::new(|_, token| Some(token.to_owned())),
            registered: Arc::new(|_, _| {}),
        }
    }
}

/// A registration over HTTP.
#[derive(Clone, Copy)]
pub struct HttpRegistration<'a> {
    /// The push type.
    pub kind: &'a str,
    /// The node, which the client chose.
    pub node: &'a str,
    /// The token.
    pub token: &'a str,
    /// The secret, if the client gave it.
    pub secret: Option<&'a str>,
    /// Where it came from.
    pub address: IpAddr,
}

/// What a client learns of its registration.
#[derive(Clone, PartialEq, Eq)]
pub struct Registered {
    /// The node.
    pub node: String,
    /// The secret.
    pub secret: String,
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registered")
    }
}

/// All registered devices.
pub struct Registry {
    shared: Arc<Shared>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

/// What the registry, its records and its writer share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    /// `None` if every lookup asks the database.
    pub(crate) cache: Option<Cache>,
    pub(crate) times: Times,
    pub(crate) rules: Rules,
    pub(crate) expire_after: Duration,
    targets: Arc<Targets>,
    spacing: Duration,
    hooks: Hooks,
    queue: mpsc::Sender<Job>,
    /// Makes nodes; it is in the database.
    key: OnceLock<hmac::Key>,
    /// Lookups that ask the database.
    asking: Arc<Semaphore>,
    minute: Throttle,
    day: Throttle,
}

impl Registry {
    /// Opens the database, makes what is missing in it, and loads all devices if memory is to hold them. What is
    /// returned beside the registry has to be spawned: it writes, and ends some time after [`close`](Self::close).
    ///
    /// A PostgreSQL server that is out of reach is no error: until it can be reached registrations and lookups are
    /// answered with [`Unavailable`].
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or holds something else, or tables of a newer version.
    pub async fn open(
        settings: RegistrySettings,
        hooks: Hooks,
    ) -> Result<(Arc<Self>, Background), OpenError> {
        let store = match &settings.store {
            StoreSettings::Sqlite { path } => Store::sqlite(path).await?,
            StoreSettings::Postgres { url } => Store::postgres(url)?,
        };
        let may_come_later = matches!(settings.store, StoreSettings::Postgres { .. });
        let targets = Arc::new(Targets::new(settings.types, settings.providers));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            store,
            cache: settings.cache.then(|| Cache::new(Arc::clone(&targets))),
            times: Times::default(),
            rules: Rules {
                max_per_owner: settings.max_per_owner,
                require_secret: settings.require_secret,
            },
            expire_after: settings.expire_after,
            targets,
            spacing: settings.rate_limit,
            hooks,
            queue,
            key: OnceLock::new(),
            asking: Arc::new(Semaphore::new(ASKING)),
            minute: Throttle::new(Duration::from_secs(60)),
            day: Throttle::new(Duration::from_secs(86_400)),
        });
        let mut writer = Writer::new(Arc::clone(&shared), jobs)?;
        match writer.prepare().await {
            Ok(()) => {}
            Err(MigrateError::Newer { found, known }) => return Err(OpenError::Newer { found, known }),
            Err(MigrateError::Randomness(problem)) => return Err(problem.into()),
            Err(MigrateError::Database(problem)) if may_come_later => {
                writer.fail(&describe(&problem));
            }
            Err(MigrateError::Database(problem)) => return Err(OpenError::Database(describe(&problem))),
        }
        Ok((Arc::new(Self { shared }), Box::pin(writer.run())))
    }

    /// Writes what is gathered and ends all connections; returns when that is done, or after 3 s.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        let close = async {
            let job = Job {
                change: Change::Close,
                reply: Some(reply),
            };
            if self.shared.queue.send(job).await.is_ok() {
                drop(done.await);
            }
        };
        drop(timeout(CLOSING, close).await);
    }

    /// Registers a device over HTTP. A known node with the same push type keeps its secret; with another one it
    /// becomes another registration.
    ///
    /// # Errors
    ///
    /// See [`RegisterError`]: the node belongs to somebody who registered it over XMPP, for one.
    pub async fn register_http(
        &self,
        registration: HttpRegistration<'_>,
    ) -> Result<Registered, RegisterError> {
        let HttpRegistration {
            kind,
            node,
            token,
            secret,
            address,
        } = registration;
        check("token", token, MAX_TOKEN)?;
        let claim = self.http_claim(kind, node, token, secret, address)?;
        let device = self.shared.register(claim, None).await?;
        Ok(Registered {
            node: device.node,
            secret: device.secret,
        })
    }

    /// Removes a registration over HTTP.
    ///
    /// # Errors
    ///
    /// See [`RegisterError`]; whatever this address may not remove is not found.
    pub async fn unregister_http(
        &self,
        kind: &str,
        node: &str,
        secret: Option<&str>,
        address: IpAddr,
    ) -> Result<Registered, RegisterError> {
        let claim = self.http_claim(kind, node, "", secret, address)?;
        let device = self.shared.unregister(claim).await?;
        Ok(Registered {
            node: device.node,
            secret: device.secret,
        })
    }

    /// Counts a request of an address about a node, and returns whether those are not too many: 60 a minute of one
    /// address, 12 a minute about one node. Registering and unregistering count by themselves.
    #[must_use]
    pub fn allows(&self, address: IpAddr, node: &str) -> bool {
        let (minute, now) = (&self.shared.minute, Instant::now());
        minute.allows(("address", household(address)), PER_ADDRESS, now)
            && minute.allows(("node", node), PER_NODE, now)
    }

    /// The device with this node and secret, for a push; `None` if there is no such device.
    ///
    /// # Errors
    ///
    /// The database is out of reach.
    pub async fn verify(&self, node: &str, secret: &str) -> Result<Option<Recipient>, Unavailable> {
        let found = match self.find(node, Some(secret)) {
            Lookup::Settled(found) => found,
            Lookup::Asking(asking) => asking.await?,
        };
        Ok(match found {
            Found::Device(recipient) => Some(recipient),
            Found::WrongSecret | Found::Gone | Found::Nothing => None,
        })
    }

    /// Devices in the order of their nodes, after this one; 5,000 at most.
    ///
    /// # Errors
    ///
    /// The database is out of reach.
    pub async fn page(&self, after: Option<&str>, limit: usize) -> Result<Vec<Device>, Unavailable> {
        let page = self
            .shared
            .store
            .page(after.unwrap_or(""), limit.min(LARGEST_PAGE) as i64);
        let mut devices = ask(page).await?;
        for device in &mut devices {
            self.shared.times.complete(device);
        }
        Ok(devices)
    }

    /// Everything that is known of the device with this node.
    ///
    /// # Errors
    ///
    /// The database is out of reach.
    pub async fn show(&self, node: &str) -> Result<Option<Device>, Unavailable> {
        if !is_sane(node, MAX_NODE) {
            return Ok(None);
        }
        let mut device = ask(self.shared.store.find(node)).await?;
        if let Some(device) = &mut device {
            self.shared.times.complete(device);
        }
        Ok(device)
    }

    /// The devices that have this token, in one of these spellings, as their first or second one; a few at most.
    ///
    /// # Errors
    ///
    /// The database is out of reach.
    pub async fn with_token(&self, token: &str, spelling: &str) -> Result<Vec<Device>, Unavailable> {
        let mut devices = ask(self.shared.store.with_token(token, spelling)).await?;
        for device in &mut devices {
            self.shared.times.complete(device);
        }
        Ok(devices)
    }

    /// How many devices are registered.
    ///
    /// # Errors
    ///
    /// The database is out of reach.
    pub async fn count(&self) -> Result<u64, Unavailable> {
        if let Some(count) = self.counted() {
            return Ok(count);
        }
        let count = ask(self.shared.store.count()).await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Whether a node that is not in memory is none, and a secret that is another one there is wrong. It is not while
    /// another process, or another registry of this one, has registered devices of which this one has not heard yet:
    /// then the database is asked.
    pub fn trust_memory(&self, trusted: bool) {
        if let Some(cache) = &self.shared.cache {
            cache.trust(trusted);
        }
    }

    /// How many devices are registered, if that is known without asking the database.
    #[must_use]
    pub fn counted(&self) -> Option<u64> {
        let count = self.shared.cache.as_ref().and_then(Cache::len)?;
        Some(count as u64)
    }

    /// Removes the device with this node, whoever owns it. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// The database is out of reach.
    pub async fn remove(&self, node: &str) -> Result<bool, Unavailable> {
        if !is_sane(node, MAX_NODE) {
            return Ok(false);
        }
        match self
            .shared
            .write(Change::Remove {
                node: node.to_owned(),
            })
            .await
        {
            Ok(Done::Removed(removed)) => Ok(removed),
            Ok(Done::Device(_) | Done::Imported(_)) | Err(_) => Err(Unavailable),
        }
    }

    /// Writes devices that come from elsewhere, all or none of them. A device whose node is there already takes its
    /// place only if it registered later. At most 1,000 at once are a good measure.
    ///
    /// # Errors
    ///
    /// The database is out of reach, or refuses one of them.
    pub async fn import(&self, devices: Vec<Device>) -> Result<Imported, Unavailable> {
        match self.shared.write(Change::Import { devices }).await {
            Ok(Done::Imported(imported)) => Ok(imported),
            Ok(Done::Device(_) | Done::Removed(_)) | Err(_) => Err(Unavailable),
        }
    }

    fn http_claim(
        &self,
        kind: &str,
        node: &str,
        token: &str,
        secret: Option<&str>,
        address: IpAddr,
    ) -> Result<Claim, RegisterError> {
        check("type", kind, MAX_KIND)?;
        check("node", node, MAX_NODE)?;
        if !self.allows(address, node) {
            return Err(RegisterError::TooMany);
        }
        Ok(Claim {
            dialect: Dialect::Seed,
            kind: kind.to_owned(),
            node: node.to_owned(),
            token: token.to_owned(),
            account: None,
            channel: None,
            by: By::Address(address),
            secret: secret.map(str::to_owned),
            now: Time::now(),
        })
    }
}

impl Directory for Registry {
    fn find(&self, node: &str, secret: Option<&str>) -> Lookup {
        if !is_sane(node, MAX_NODE) {
            return Lookup::Settled(Found::Nothing);
        }
        let cached = self.shared.cache.as_ref().map(|cache| cache.find(node, secret));
        match cached {
            Some(Cached::Device(entry, module)) => {
                Lookup::Settled(Found::Device(Arc::clone(&self.shared).recipient(entry, module)))
            }
            Some(Cached::WrongSecret) => Lookup::Settled(Found::WrongSecret),
            Some(Cached::Nothing) => Lookup::Settled(dialects::nothing_at(node)),
            Some(Cached::Incomplete) | None => {
                let (shared, node) = (Arc::clone(&self.shared), node.to_owned());
                let secret = secret.map(str::to_owned);
                Lookup::Asking(Box::pin(
                    async move { shared.ask_for(&node, secret.as_deref()).await },
                ))
            }
        }
    }
}

impl Commands for Registry {
    fn list(&self) -> Vec<(&'static str, &'static str)> {
        dialects::list(&self.shared.targets)
    }

    fn features(&self) -> Vec<String> {
        self.shared.targets.providers().map(str::to_owned).collect()
    }

    fn fields(&self) -> &'static [&'static str] {
        dialects::FIELDS
    }

    fn execute(&self, command: Command) -> Executing {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { dialects::execute(&shared, command).await })
    }
}

impl Shared {
    /// Registers a device: returns it when it is on disk.
    pub(crate) async fn register(
        &self,
        mut claim: Claim,
        call_token: Option<String>,
    ) -> Result<Device, RegisterError> {
        let module = self
            .targets
            .module(claim.dialect, &claim.kind)
            .ok_or(RegisterError::UnknownType)?;
        let canonical = |token: String| (self.hooks.canonical)(module, &token).ok_or(RegisterError::BadToken);
        claim.token = canonical(claim.token)?;
        let call_token = call_token.map(canonical).transpose()?;
        match self.write(Change::Register { claim, call_token }).await? {
            Done::Device(device) => {
                (self.hooks.registered)(module, &device.token);
                if let Some(token) = &device.call_token {
                    (self.hooks.registered)(module, token);
                }
                Ok(*device)
            }
            Done::Imported(_) | Done::Removed(_) => Err(Unavailable.into()),
        }
    }

    /// Removes a registration: returns what it was when that is on disk.
    pub(crate) async fn unregister(&self, claim: Claim) -> Result<Device, RegisterError> {
        match self.write(Change::Unregister { claim }).await? {
            Done::Device(device) => Ok(*device),
            Done::Imported(_) | Done::Removed(_) => Err(Unavailable.into()),
        }
    }

    /// Which kinds of devices there are.
    pub(crate) fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Counts a command of an owner, and returns whether those are not too many.
    pub(crate) fn is_command_allowed(&self, owner: &str) -> bool {
        self.minute.allows(("owner", owner), PER_OWNER, Instant::now())
    }

    /// Counts a new device of an address, and returns whether those are not too many.
    pub(crate) fn is_new_allowed(&self, household: IpAddr) -> bool {
        let most = u32::try_from(self.rules.max_per_owner).unwrap_or(u32::MAX);
        self.day.allows(household, most, Instant::now())
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

    /// Has something written; waits until it is on disk, for 5 s.
    async fn write(&self, change: Change) -> Result<Done, RegisterError> {
        let (reply, done) = oneshot::channel();
        let job = Job {
            change,
            reply: Some(reply),
        };
        self.queue.try_send(job).map_err(|_| Unavailable)?;
        match timeout(WRITING, done).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Unavailable.into()),
        }
    }

    /// Asks the database for a node.
    async fn ask_for(self: Arc<Self>, node: &str, secret: Option<&str>) -> Result<Found, Unavailable> {
        // While the database hangs, no more than so many wait for it.
        let _permit = Arc::clone(&self.asking)
            .try_acquire_owned()
            .map_err(|_| Unavailable)?;
        let device = ask(self.store.find(node)).await?;
        Ok(match device {
            None => dialects::nothing_at(node),
            Some(device) => {
                if device.dialect == Dialect::Tigase || opens(device.secret.as_bytes(), secret) {
                    let module = self.targets.of(device.dialect, &device.kind);
                    Found::Device(self.recipient(Entry::new(&device, 0), module))
                } else {
                    Found::WrongSecret
                }
            }
        })
    }

    fn recipient(self: Arc<Self>, entry: Entry, module: Arc<str>) -> Recipient {
        let text = |field| entry.text(field);
        Recipient {
            node: text(Field::Node).unwrap_or_default().into(),
            module,
            token: Token::new(&text(Field::Token).unwrap_or_default()),
            call_token: text(Field::CallToken).map(|token| Token::new(&token)),
            account: text(Field::Account).map(Arc::from),
            channel: text(Field::Channel).map(Arc::from),
            spacing: self.spacing,
            record: Arc::new(Pushed { entry, shared: self }),
        }
    }
}

/// Where the pushes to a device that was found are recorded.
struct Pushed {
    shared: Arc<Shared>,
    /// The device as it was when it was found.
    entry: Entry,
}

impl Pushed {
    fn note(&self, noted: Noted) {
        if let Some(node) = self.entry.text(Field::Node) {
            self.shared.times.note(&node, noted);
        }
    }
}

impl Record for Pushed {
    fn delivered(&self) {
        self.note(Noted {
            delivered: Some(Time::now()),
            failed: None,
        });
    }

    fn failed(&self) {
        self.note(Noted {
            delivered: None,
            failed: Some(Time::now()),
        });
    }

    fn gone(&self, since: Option<u64>) -> Ending {
        // A provider that names no time speaks of the registration that the push was for.
        let before = match since {
            Some(since) => Time(i64::try_from(since).unwrap_or(i64::MAX)),
            None => self.entry.changed().next(),
        };
        let (shared, entry) = (Arc::clone(&self.shared), self.entry.clone());
        Box::pin(async move {
            let (Some(node), Some(token)) = (entry.text(Field::Node), entry.text(Field::Token)) else {
                return Err(Unavailable);
            };
            match shared.write(Change::Dead { node, token, before }).await {
                Ok(Done::Removed(removed)) => Ok(removed),
                Ok(Done::Device(_) | Done::Imported(_)) | Err(_) => Err(Unavailable),
            }
        })
    }
}

/// A field that must be there and be sane.
pub(crate) fn check(name: &'static str, text: &str, max: usize) -> Result<(), RegisterError> {
    if is_sane(text, max) {
        Ok(())
    } else {
        Err(RegisterError::BadField(name))
    }
}

/// Asks the database, for 2 s at most.
async fn ask<T>(question: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Unavailable> {
    match timeout(ASKING_PATIENCE, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(problem)) => {
            tracing::debug!(problem = describe(&problem), "the database did not answer");
            Err(Unavailable)
        }
        Err(_) => Err(Unavailable),
    }
}

/// Changes that may wait to be written.
const QUEUE: usize = 4_096;
/// How long a change may take until it is on disk.
const WRITING: Duration = Duration::from_secs(5);
/// How long an answer of the database may take.
const ASKING_PATIENCE: Duration = Duration::from_secs(2);
/// Lookups that may wait for the database.
const ASKING: usize = 1_000;
/// How long the end may take.
const CLOSING: Duration = Duration::from_secs(3);
/// Commands of one bare JID in a minute: a client that joins its group chats registers for each.
const PER_OWNER: u32 = 40;
/// Requests of one address in a minute: many phones may share it.
const PER_ADDRESS: u32 = 60;
/// Requests about one node in a minute.
const PER_NODE: u32 = 12;
const LARGEST_PAGE: usize = 5_000;
