//! The registry: what the component, the HTTP listener and the command line ask and tell it.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, OnceLock, RwLock},
    time::Duration,
};

use aws_lc_rs::hmac;
use fpush_push::{
    Background, Command, CommandError, Devices, Ending, Executing, Found, Lookup, Recipient, Record, Token,
    Unavailable, client_network, registrable,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use crate::{
    asking::Asking,
    cache::{Cache, Cached},
    device::{Device, Dialect, MAX_JID, MAX_KIND, MAX_NODE, MAX_TOKEN, Time, hex, is_device_id, is_sane},
    dialects,
    entry::{Entry, Field},
    error::{OpenError, RegisterError},
    past::{Doubt, Known, Standing},
    rules::{By, Claim, Rules},
    settings::{RegistrySettings, StoreSettings},
    store::{MigrateError, Store, describe},
    targets::Targets,
    throttle::Throttle,
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
    /// Whether some module would take a node for a token.
    pub looks_like_token: Arc<LooksLikeToken>,
}

/// Spells a token as a module does.
pub type Canonical = dyn Fn(&str, &str) -> Option<String> + Send + Sync;

/// Answers a question about a node.
pub type LooksLikeToken = dyn Fn(&str) -> bool + Send + Sync;

/// Is told of a module and a token.
pub type Heard = dyn Fn(&str, &str) + Send + Sync;

impl Default for Hooks {
    /// Takes every token as it is and tells nobody.
    fn default() -> Self {
        Self {
            canonical: Arc::new(|_, token| Some(token.to_owned())),
            registered: Arc::new(|_, _| {}),
            looks_like_token: Arc::new(|_| false),
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
    asking: Arc<Asking>,
    standing: RwLock<Standing>,
    /// Commands, requests, and wrong secrets.
    minute: Throttle,
    /// New devices over HTTP.
    day: Throttle,
    new_per_address: u32,
}

impl Registry {
    /// Opens the database, makes what is missing in it, and loads all devices if memory is to hold them. What is
    /// returned beside the registry has to be spawned: it writes, and ends some time after [`close`](Self::close).
    ///
    /// `known` is the last change of the database that is remembered: a database that does not know it is doubted.
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
        known: Option<Known>,
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
            asking: Arc::default(),
            standing: RwLock::default(),
            new_per_address: settings.new_per_address,
            minute: Throttle::new(Duration::from_secs(60)),
            day: Throttle::new(Duration::from_secs(86_400)),
        });
        let mut writer = Writer::new(Arc::clone(&shared), jobs, known)?;
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
        let may_add = self.shared.reserve_new(address);
        let registered = async {
            let claim = self
                .http_claim(kind, node, token, secret, address, may_add)
                .await?;
            self.shared
                .register(claim, None, &client_network(address).to_string())
                .await
        };
        let registered = registered.await;
        // Only what is one device more counts as one.
        if may_add && !registered.as_ref().is_ok_and(|(_, is_new)| *is_new) {
            self.shared.give_back_new(address);
        }
        let (device, _) = registered?;
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
        let claim = self.http_claim(kind, node, "", secret, address, false).await?;
        let device = self
            .shared
            .unregister(claim, &client_network(address).to_string())
            .await?;
        Ok(Registered {
            node: device.node,
            secret: device.secret,
        })
    }

    /// Removes a registration of Tigase's dialect over HTTP, as Siskin does for an account that is offline. Account,
    /// provider and token must be those of the registration: only its app and its server know all three. Returns
    /// whether there was one.
    ///
    /// # Errors
    ///
    /// See [`RegisterError`].
    pub async fn unregister_account(
        &self,
        account: &str,
        provider: &str,
        token: &str,
        address: IpAddr,
    ) -> Result<bool, RegisterError> {
        check("account", account, MAX_JID)?;
        check("provider", provider, MAX_KIND)?;
        check("device-token", token, MAX_TOKEN)?;
        if !self.shared.is_request_allowed(address) {
            return Err(RegisterError::TooMany);
        }
        let claim = dialects::of_account(&self.shared, account, provider, token)?;
        match self
            .shared
            .unregister(claim, &client_network(address).to_string())
            .await
        {
            Ok(_) => Ok(true),
            Err(RegisterError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What a node stands for, for a push from this address.
    ///
    /// # Errors
    ///
    /// The database is out of reach.
    pub async fn verify(&self, node: &str, secret: &str, address: IpAddr) -> Result<Found, Unavailable> {
        match self.find(node, Some(secret), &client_network(address).to_string()) {
            Lookup::Settled(found) => Ok(found),
            Lookup::Asking(asking) => asking.await,
        }
    }

    /// The last change of the database that is known, to be remembered until the next start; `None` while it is doubted,
    /// or was not there to be asked yet.
    #[must_use]
    pub fn known(&self) -> Option<Known> {
        match &*self.shared.standing.read().expect("mutex poisoned") {
            Standing::Good(known) => Some(known.clone()),
            Standing::Unasked | Standing::Doubted(_) => None,
        }
    }

    /// Why the database is doubted, if it is.
    #[must_use]
    pub fn doubt(&self) -> Option<Doubt> {
        self.shared.doubt()
    }

    /// Notes in the database that it is the right one, whatever was known of it. Returns how many devices it has.
    ///
    /// # Errors
    ///
    /// The database is out of reach.
    pub async fn accept(&self) -> Result<u64, Unavailable> {
        match self.shared.write(Change::Accept).await {
            Ok(Done::Accepted(devices)) => Ok(devices),
            Ok(Done::Device { .. } | Done::Imported(_) | Done::Removed(_)) | Err(_) => Err(Unavailable),
        }
    }

    /// What is known of the database at this moment, asked for anew.
    ///
    /// # Errors
    ///
    /// The database is out of reach.
    pub async fn look(&self) -> Result<Known, Unavailable> {
        Ok(ask(self.shared.store.look()).await?.known)
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
            Ok(Done::Device { .. } | Done::Imported(_) | Done::Accepted(_)) | Err(_) => Err(Unavailable),
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
            Ok(Done::Device { .. } | Done::Removed(_) | Done::Accepted(_)) | Err(_) => Err(Unavailable),
        }
    }

    async fn http_claim(
        &self,
        kind: &str,
        node: &str,
        token: &str,
        secret: Option<&str>,
        address: IpAddr,
        may_add: bool,
    ) -> Result<Claim, RegisterError> {
        check("type", kind, MAX_KIND)?;
        check("node", node, MAX_NODE)?;
        let (shared, now) = (&self.shared, Instant::now());
        if !shared.is_request_allowed(address) {
            return Err(RegisterError::TooMany);
        }
        // Without a secret nobody knows whose request it is: then the node has so many. Who knows it always gets through.
        if !shared.minute.allows(("node", node), PER_NODE, now)
            && !shared.is_right_secret(node, secret).await?
        {
            return Err(RegisterError::TooMany);
        }
        Ok(Claim {
            dialect: Dialect::Seed,
            kind: kind.to_owned(),
            node: node.to_owned(),
            token: token.to_owned(),
            account: None,
            channel: None,
            by: By::Http { may_add },
            secret: secret.map(str::to_owned),
            is_reserved: shared.is_reserved(node),
            now: Time::now(),
        })
    }
}

impl Devices for Registry {
    fn find(&self, node: &str, secret: Option<&str>, sender: &str) -> Lookup {
        if !is_sane(node, MAX_NODE) {
            return Lookup::Settled(Found::Nothing);
        }
        let cached = self.shared.cache.as_ref().map(|cache| cache.find(node, secret));
        match cached {
            Some(Cached::Device(entry, module)) => {
                return Lookup::Settled(Found::Device(Arc::clone(&self.shared).recipient(entry, module)));
            }
            // Others may have replaced the secret; where none was given, or too many wrong ones were, nobody is asked.
            Some(Cached::WrongSecret)
                if secret.is_none() || !self.shared.may_try_secret(node, sender, Instant::now()) =>
            {
                return Lookup::Settled(Found::WrongSecret);
            }
            // Without a secret it may be a token, which no registry has to be asked for.
            Some(Cached::Nothing) if secret.is_none() && !dialects::is_made_for_no_secret(node) => {
                return Lookup::Settled(Found::Nothing);
            }
            // Others may have registered it since.
            Some(Cached::WrongSecret | Cached::Nothing | Cached::Incomplete) | None => {}
        }
        let (shared, node) = (Arc::clone(&self.shared), node.to_owned());
        let (secret, sender) = (secret.map(str::to_owned), sender.to_owned());
        Lookup::Asking(Box::pin(async move {
            let found = Arc::clone(&shared)
                .ask_for(&node, secret.as_deref(), &sender)
                .await?;
            if matches!(found, Found::WrongSecret) && secret.is_some() {
                shared.count_wrong_secret(&node, &sender, Instant::now());
            }
            Ok(found)
        }))
    }

    fn commands(&self) -> Vec<(&'static str, &'static str)> {
        dialects::list(&self.shared.targets)
    }

    fn features(&self) -> Vec<String> {
        self.shared.targets.providers().map(str::to_owned).collect()
    }

    fn execute(&self, command: Command) -> Result<Executing, CommandError> {
        dialects::admit(&self.shared, &command)?;
        let shared = Arc::clone(&self.shared);
        Ok(Box::pin(async move { dialects::execute(&shared, command).await }))
    }
}

impl Shared {
    /// Registers a device: returns it when it is on disk.
    pub(crate) async fn register(
        &self,
        mut claim: Claim,
        call_token: Option<String>,
        sender: &str,
    ) -> Result<(Device, bool), RegisterError> {
        let module = self
            .targets
            .module(claim.dialect, &claim.kind)
            .ok_or(RegisterError::UnknownType)?;
        let canonical = |token: String| (self.hooks.canonical)(module, &token).ok_or(RegisterError::BadToken);
        claim.token = canonical(claim.token)?;
        let call_token = call_token.map(canonical).transpose()?;
        let tried = self.tried_secret(&claim, sender).await?;
        let done = self.write(Change::Register { claim, call_token }).await;
        match self.weigh_secret(done, tried)? {
            Done::Device { device, is_new } => {
                (self.hooks.registered)(module, &device.token);
                if let Some(token) = &device.call_token {
                    (self.hooks.registered)(module, token);
                }
                Ok((*device, is_new))
            }
            Done::Imported(_) | Done::Removed(_) | Done::Accepted(_) => Err(Unavailable.into()),
        }
    }

    /// Removes a registration: returns what it was when that is on disk.
    pub(crate) async fn unregister(&self, claim: Claim, sender: &str) -> Result<Device, RegisterError> {
        let tried = self.tried_secret(&claim, sender).await?;
        let done = self.write(Change::Unregister { claim }).await;
        match self.weigh_secret(done, tried)? {
            Done::Device { device, .. } => Ok(*device),
            Done::Imported(_) | Done::Removed(_) | Done::Accepted(_) => Err(Unavailable.into()),
        }
    }

    /// The node and the sender of a claim with a secret. After too many wrong secrets for the node the sender's have to
    /// be right before anything is written.
    async fn tried_secret(
        &self,
        claim: &Claim,
        sender: &str,
    ) -> Result<Option<(String, String)>, RegisterError> {
        let Some(secret) = claim.secret.as_deref() else {
            return Ok(None);
        };
        let (node, now) = (claim.node.as_str(), Instant::now());
        if !self.may_try_secret(node, sender, now) && !self.is_right_secret(node, Some(secret)).await? {
            return Err(RegisterError::TooMany);
        }
        Ok(Some((node.to_owned(), sender.to_owned())))
    }

    /// Counts a wrong secret, if it was one.
    fn weigh_secret(
        &self,
        done: Result<Done, RegisterError>,
        tried: Option<(String, String)>,
    ) -> Result<Done, RegisterError> {
        if let (Err(RegisterError::Forbidden | RegisterError::NotFound), Some((node, sender))) =
            (&done, tried)
        {
            self.count_wrong_secret(&node, &sender, Instant::now());
        }
        done
    }

    /// Whether a sender has not sent too many wrong secrets for a node.
    fn may_try_secret(&self, node: &str, sender: &str, now: Instant) -> bool {
        let who = ("secret", node, registrable(sender));
        self.minute.would_allow(who, WRONG_SECRETS, now)
    }

    fn count_wrong_secret(&self, node: &str, sender: &str, now: Instant) {
        let who = ("secret", node, registrable(sender));
        self.minute.allows(who, WRONG_SECRETS, now);
    }

    /// Whether a secret is that of the device with this node.
    async fn is_right_secret(&self, node: &str, secret: Option<&str>) -> Result<bool, Unavailable> {
        if secret.is_none() {
            return Ok(false);
        }
        let device = ask(self.store.find(node)).await?;
        Ok(device.is_some_and(|device| device.opens(secret, Time::now())))
    }

    /// Whether a node is one that nobody may choose.
    pub(crate) fn is_reserved(&self, node: &str) -> bool {
        dialects::is_ours(node) || (!is_device_id(node) && (self.hooks.looks_like_token)(node))
    }

    /// Which kinds of devices there are.
    pub(crate) fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Counts a command of an owner, and returns whether those are not too many.
    pub(crate) fn is_command_allowed(&self, owner: &str) -> bool {
        self.minute.allows(("owner", owner), PER_OWNER, Instant::now())
    }

    /// Counts a request of an address, and returns whether those are not too many.
    fn is_request_allowed(&self, address: IpAddr) -> bool {
        let who = ("address", client_network(address));
        self.minute.allows(who, PER_ADDRESS, Instant::now())
    }

    /// Counts a new device of an address, and returns whether those are not too many.
    fn reserve_new(&self, address: IpAddr) -> bool {
        let (network, now) = (client_network(address), Instant::now());
        self.day.would_allow(network, self.new_per_address, now)
            && self.day.allows(network, self.new_per_address, now)
    }

    /// It was no new device.
    fn give_back_new(&self, address: IpAddr) {
        self.day.take_back(client_network(address), Instant::now());
    }

    pub(crate) fn set_standing(&self, standing: Standing) {
        *self.standing.write().expect("mutex poisoned") = standing;
    }

    /// Why the database is doubted, if it is.
    pub(crate) fn doubt(&self) -> Option<Doubt> {
        match &*self.standing.read().expect("mutex poisoned") {
            Standing::Doubted(doubt) => Some(*doubt),
            Standing::Unasked | Standing::Good(_) => None,
        }
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
    async fn ask_for(
        self: Arc<Self>,
        node: &str,
        secret: Option<&str>,
        sender: &str,
    ) -> Result<Found, Unavailable> {
        let _question = self.asking.begin(sender).ok_or(Unavailable)?;
        let Some(device) = ask(self.store.find(node)).await? else {
            let needs_none = dialects::is_made_for_no_secret(node);
            if (secret.is_some() || needs_none) && self.has_ended(node).await? {
                return Ok(Found::Ended);
            }
            return Ok(if needs_none {
                Found::Reserved
            } else {
                Found::Nothing
            });
        };
        if device.dialect == Dialect::Tigase || device.opens(secret, Time::now()) {
            let module = self.targets.of(device.dialect, &device.kind);
            Ok(Found::Device(self.recipient(Entry::new(&device, 0), module)))
        } else {
            Ok(Found::WrongSecret)
        }
    }

    /// Whether the registry has itself ended the registration of a node, and nothing that came after that can be lost.
    async fn has_ended(&self, node: &str) -> Result<bool, Unavailable> {
        let known = match &*self.standing.read().expect("mutex poisoned") {
            Standing::Good(known) => known.clone(),
            Standing::Unasked | Standing::Doubted(_) => return Ok(false),
        };
        let hash = self.tombstone(node).ok_or(Unavailable)?;
        ask(self.store.has_tombstone(&hash, &known)).await
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
                Ok(Done::Device { .. } | Done::Imported(_) | Done::Accepted(_)) | Err(_) => Err(Unavailable),
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
/// How long the end may take.
const CLOSING: Duration = Duration::from_secs(3);
/// Commands of one bare JID in a minute: a client that joins its group chats registers for each.
const PER_OWNER: u32 = 40;
/// Requests of one address in a minute: many phones may share it.
const PER_ADDRESS: u32 = 60;
/// Requests about one node in a minute, unless they come with its secret.
const PER_NODE: u32 = 12;
/// Wrong secrets for one node of one registrable domain, or of one address, in a minute.
const WRONG_SECRETS: u32 = 12;
const LARGEST_PAGE: usize = 5_000;
