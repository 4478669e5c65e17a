//! The registry: what the component, the HTTP listener and the command line ask and tell it.

mod opening;

use std::{fmt, sync::Arc, time::Duration};

use fpush_push::{
    Command, CommandError, Devices, Ended, Executing, Lookup, Owning, Scope, Unavailable, VapidKey,
};
use tokio::time::timeout;

use crate::{
    cache::Cache,
    change::{Change, Done, Imported},
    device::{Device, Dialect},
    dialects,
    error::RegisterError,
    full::Full,
    jobs::Origin,
    lookup::Finder,
    past::{Doubt, Known},
    registrar::Registrar,
    rules::{By, Claim},
    shared::{Shared, ask},
    strays::Strays,
    text::{MAX_JID, MAX_KIND, MAX_NODE, MAX_TOKEN, is_sane},
    time::Time,
    unreadable::Unreadable,
};

pub use self::opening::IfMissing;

/// A registration that belongs to no account, because it comes over HTTP.
#[derive(Clone, Copy)]
pub struct Unowned<'a> {
    kind: &'a str,
    node: &'a str,
    secret: Option<&'a str>,
    has_to_prove: bool,
}

impl<'a> Unowned<'a> {
    /// The one with this push type and this node, which the client chose.
    ///
    /// # Errors
    ///
    /// One of them cannot be one.
    pub fn new(kind: &'a str, node: &'a str, secret: Option<&'a str>) -> Result<Self, RegisterError> {
        check("type", kind, MAX_KIND)?;
        check("node", node, MAX_NODE)?;
        Ok(Self {
            kind,
            node,
            secret,
            has_to_prove: false,
        })
    }

    /// Only who knows the secret may change it if it is there already.
    #[must_use]
    pub fn has_to_prove(self, has_to_prove: bool) -> Self {
        Self { has_to_prove, ..self }
    }

    fn claim(self, registrar: &Registrar, token: &str, may_add: bool) -> Claim {
        Claim {
            dialect: Dialect::Seed,
            kind: self.kind.to_owned(),
            node: self.node.to_owned(),
            token: token.to_owned(),
            account: None,
            channel: None,
            by: By::Http {
                may_add,
                has_to_prove: self.has_to_prove,
            },
            secret: self.secret.map(str::to_owned),
            is_reserved: registrar.is_reserved(self.node),
            now: Time::now(),
        }
    }
}

/// Where the pushes of a registration go.
#[derive(Clone, Copy)]
pub struct Destination<'a> {
    /// The token.
    pub token: &'a str,
    /// The public key that the app has subscribed with (VAPID), if it says so.
    pub key: Option<&'a str>,
}

impl<'a> From<&'a str> for Destination<'a> {
    /// A token, of which the app says no more.
    fn from(token: &'a str) -> Self {
        Self { token, key: None }
    }
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

/// Some of the devices.
#[derive(Debug)]
pub struct Page {
    /// Those that can be read.
    pub devices: Vec<Device>,
    /// Those between them that cannot be.
    pub unreadable: Option<Unreadable>,
}

/// All registered devices.
pub struct Registry {
    shared: Arc<Shared>,
    finder: Arc<Finder>,
    registrar: Arc<Registrar>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

impl Registry {
    /// Writes what is gathered and ends all connections; returns when that is done, or after 3 s.
    pub async fn close(&self) {
        self.shared.end.notify_one();
        drop(timeout(CLOSING, self.shared.ended.notified()).await);
    }

    /// Registers a device for a sender, an address. A known node with the same push type keeps its secret; with another one
    /// it becomes another registration. Returns, too, whether it is a new device, which it must not be unless `may_add`.
    ///
    /// # Errors
    ///
    /// See [`RegisterError`]: the node belongs to somebody who registered it over XMPP, for one.
    pub async fn register(
        &self,
        device: Unowned<'_>,
        destination: Destination<'_>,
        may_add: bool,
        sender: &str,
    ) -> Result<(Registered, bool), RegisterError> {
        let Destination { token, key } = destination;
        check("token", token, MAX_TOKEN)?;
        let claim = device.claim(&self.registrar, token, may_add);
        let scope = Scope::default();
        self.registrar
            .check_key(claim.dialect, &claim.kind, key, &scope)?;
        let (device, is_new) = self.registrar.register(claim, None, sender, &scope).await?;
        Ok((device.into(), is_new))
    }

    /// Removes a registration for a sender, an address.
    ///
    /// # Errors
    ///
    /// See [`RegisterError`]; whatever this sender may not remove is not found.
    pub async fn unregister(&self, device: Unowned<'_>, sender: &str) -> Result<Registered, RegisterError> {
        let claim = device.claim(&self.registrar, "", false);
        Ok(self
            .registrar
            .unregister(claim, sender, &Scope::default())
            .await?
            .into())
    }

    /// Whether the secret of a registration is said, and right.
    ///
    /// # Errors
    ///
    /// The database is out of reach.
    pub async fn is_proven(&self, device: Unowned<'_>) -> Result<bool, Unavailable> {
        self.registrar.is_right_secret(device.node, device.secret).await
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
        sender: &str,
    ) -> Result<bool, RegisterError> {
        check("account", account, MAX_JID)?;
        check("provider", provider, MAX_KIND)?;
        check("device-token", token, MAX_TOKEN)?;
        let claim = dialects::of_account(&self.registrar, account, provider, token)?;
        match self.registrar.unregister(claim, sender, &Scope::default()).await {
            Ok(_) => Ok(true),
            Err(RegisterError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The last change of the database that is known, to be remembered until the next start; `None` while it is doubted,
    /// or was not there to be asked yet.
    #[must_use]
    pub fn known(&self) -> Option<Known> {
        self.shared.known()
    }

    /// Registrations that this instance has ended since it was opened.
    #[must_use]
    pub fn ended(&self) -> Ended {
        self.shared.ended_registrations.get()
    }

    /// Why the database is doubted, if it is.
    #[must_use]
    pub fn doubt(&self) -> Option<Doubt> {
        self.shared.doubt()
    }

    /// Why the database cannot be used now, if that is so: in words that hold no values.
    #[must_use]
    pub fn outage(&self) -> Option<String> {
        self.shared.outage()
    }

    /// Notes in the database that it is the right one, whatever was known of it. Returns how many devices it has.
    ///
    /// # Errors
    ///
    /// The database is out of reach.
    pub async fn accept(&self) -> Result<u64, Unavailable> {
        match self.shared.jobs.write(Origin::Own, Change::Accept).await {
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

    /// Devices in the order of their nodes, after this one; so many, or 5,000, unless there are no more.
    ///
    /// # Errors
    ///
    /// The database is out of reach.
    pub async fn page(&self, after: Option<&str>, limit: usize) -> Result<Page, Unavailable> {
        let limit = limit.min(LARGEST_PAGE);
        let (mut devices, mut unreadable) = (Vec::new(), 0);
        let mut next = Some(after.unwrap_or("").to_owned());
        while let Some(after) = next.filter(|_| devices.len() < limit) {
            let page = ask(self.shared.store.page(&after, limit - devices.len())).await?;
            devices.extend(page.devices);
            unreadable += page.unreadable;
            next = page.next;
        }
        for device in &mut devices {
            self.shared.times.complete(device);
        }
        Ok(Page {
            devices,
            unreadable: Unreadable::of(unreadable),
        })
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

    /// Which bounds leave no room for new devices: what an import may lead to, which is bound by none of them.
    ///
    /// # Errors
    ///
    /// The database is out of reach.
    pub async fn full(&self) -> Result<Vec<Full>, Unavailable> {
        let (store, rules) = (&self.shared.store, &self.shared.rules);
        let devices = ask(store.count_places()).await?;
        let without_owner = ask(store.count_without_owner()).await?;
        let all = (devices >= rules.max_devices).then_some(Full::All {
            devices,
            most: rules.max_devices,
        });
        let without_owner = (without_owner >= rules.max_devices_per_domain).then_some(Full::WithoutOwner {
            devices: without_owner,
            most: rules.max_devices_per_domain,
        });
        Ok(all.into_iter().chain(without_owner).collect())
    }

    /// Devices of kinds that the settings do not have.
    ///
    /// # Errors
    ///
    /// The database is out of reach.
    pub async fn strays(&self) -> Result<Vec<Strays>, Unavailable> {
        let counted = ask(self.shared.store.kinds()).await?;
        Ok(Strays::among(counted, self.registrar.targets()))
    }

    /// How many devices are registered, if that is known without asking the database.
    #[must_use]
    pub fn counted(&self) -> Option<u64> {
        let count = self.shared.cache.as_ref().and_then(Cache::len)?;
        Some(count as u64)
    }

    /// Whether the devices are to be in memory, and are not all there yet: the database is asked for each until then.
    #[must_use]
    pub fn is_loading(&self) -> bool {
        let cache = self.shared.cache.as_ref();
        cache.is_some_and(|cache| cache.len().is_none())
    }

    /// Whether any device is registered.
    ///
    /// # Errors
    ///
    /// The database is out of reach.
    pub async fn has_devices(&self) -> Result<bool, Unavailable> {
        // What is in memory is there whether the database answers or not.
        match self.shared.cache.as_ref().and_then(Cache::has_devices) {
            Some(has_devices) => Ok(has_devices),
            None => ask(self.shared.store.has_devices()).await,
        }
    }

    /// Removes the device with this node; its owner does not matter. Returns whether there was one.
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
            .jobs
            .write(
                Origin::Own,
                Change::Remove {
                    node: node.to_owned(),
                },
            )
            .await
        {
            Ok(Done::Removed(removed)) => Ok(removed),
            Ok(Done::Device { .. } | Done::Imported(_) | Done::Accepted(_)) | Err(_) => Err(Unavailable),
        }
    }

    /// Writes devices that come from elsewhere. A device whose node is there already takes its place only if it registered
    /// later. Others write in between: after a failure some of them are there, and importing all again changes nothing of
    /// those.
    ///
    /// # Errors
    ///
    /// The database is out of reach, or refuses one of them.
    pub async fn import(&self, devices: Vec<Device>) -> Result<Imported, Unavailable> {
        let (devices, mut imported) = (Arc::<[Device]>::from(devices), Imported::default());
        while imported.total() < devices.len() {
            let change = Change::Import {
                devices: Arc::clone(&devices),
                first: imported.total(),
            };
            match self.shared.jobs.write(Origin::Own, change).await {
                Ok(Done::Imported(more)) => imported += more,
                Ok(Done::Device { .. } | Done::Removed(_) | Done::Accepted(_)) | Err(_) => {
                    return Err(Unavailable);
                }
            }
        }
        Ok(imported)
    }
}

impl Devices for Registry {
    fn find(&self, node: &str, secret: Option<&str>, sender: &str) -> Lookup {
        self.finder.find(node, secret, sender)
    }

    fn commands(&self) -> Vec<(&'static str, &'static str)> {
        dialects::list(self.registrar.targets())
    }

    fn vapid_keys(&self, scope: &Scope) -> Vec<VapidKey> {
        self.registrar.vapid_keys(scope)
    }

    fn features(&self, scope: &Scope) -> Vec<String> {
        let providers = self.registrar.targets().providers(scope);
        providers.map(str::to_owned).collect()
    }

    fn execute(&self, command: Command) -> Result<Executing, CommandError> {
        dialects::admit(&self.registrar, &command)?;
        let registrar = Arc::clone(&self.registrar);
        Ok(Box::pin(
            async move { dialects::execute(&registrar, command).await },
        ))
    }

    fn owned(&self, owner: &str) -> Owning {
        let (finder, owner) = (Arc::clone(&self.finder), owner.to_owned());
        Box::pin(async move { finder.owned(&owner).await })
    }
}

impl From<Device> for Registered {
    fn from(device: Device) -> Self {
        Self {
            node: device.node,
            secret: device.secret,
        }
    }
}

/// A field that must be there and be sane.
fn check(name: &'static str, text: &str, max: usize) -> Result<(), RegisterError> {
    if is_sane(text, max) {
        Ok(())
    } else {
        Err(RegisterError::BadField(name))
    }
}

/// How long the end may take.
const CLOSING: Duration = Duration::from_secs(3);
const LARGEST_PAGE: usize = 5_000;
