//! Registrations over HTTP: how often an address may ask, and what it has to know.

use std::{net::IpAddr, sync::Arc, time::Duration};

use fpush_push::{Devices as _, Found, Lookup, Unavailable, client_network, client_site};
use fpush_registry::{Destination, RegisterError, Registered, Registry, Throttle, Unowned};
use tokio::time::Instant;

use crate::settings::HttpSettings;

/// The registry as addresses see it. Those who share a network count as one.
pub(crate) struct Registrations {
    registry: Arc<Registry>,
    /// Whether a known node is registered again or removed only with its secret.
    require_secret: bool,
    /// New devices of one address in a day.
    new_per_address: u32,
    /// Requests of one address in a minute: many phones may share it.
    requests_per_address: u32,
    requests: Throttle,
    new_devices: Throttle,
}

impl Registrations {
    pub(crate) fn new(registry: Arc<Registry>, settings: &HttpSettings) -> Self {
        Self {
            registry,
            require_secret: settings.require_secret,
            new_per_address: settings.new_per_address,
            requests_per_address: settings.requests_per_address,
            requests: Throttle::new(Duration::from_secs(60)),
            new_devices: Throttle::new(Duration::from_secs(86_400)),
        }
    }

    pub(crate) async fn register(
        &self,
        kind: &str,
        node: &str,
        destination: Destination<'_>,
        secret: Option<&str>,
        address: IpAddr,
    ) -> Result<Registered, RegisterError> {
        let network = client_network(address);
        let device = self.admit(kind, node, secret, network).await?;
        let may_add = self.reserve_new(network);
        let registered = self
            .registry
            .register(device, destination, may_add, &network.to_string())
            .await;
        // Only what is one device more counts as one.
        if may_add && !registered.as_ref().is_ok_and(|(_, is_new)| *is_new) {
            let now = Instant::now();
            self.new_devices.take_back(network, now);
            self.new_devices.take_back(site(network), now);
        }
        registered.map(|(registered, _)| registered)
    }

    pub(crate) async fn unregister(
        &self,
        kind: &str,
        node: &str,
        secret: Option<&str>,
        address: IpAddr,
    ) -> Result<Registered, RegisterError> {
        let network = client_network(address);
        let device = self.admit(kind, node, secret, network).await?;
        self.registry.unregister(device, &network.to_string()).await
    }

    /// Removes what only its app and its server know: account, provider and token. Returns whether it was there.
    pub(crate) async fn unregister_account(
        &self,
        account: &str,
        provider: &str,
        token: &str,
        address: IpAddr,
    ) -> Result<bool, RegisterError> {
        let network = client_network(address);
        if !self.is_request_allowed(network) {
            return Err(RegisterError::TooMany);
        }
        self.registry
            .unregister_account(account, provider, token, &network.to_string())
            .await
    }

    /// What a node refers to, for a push from this address.
    pub(crate) async fn find(&self, node: &str, secret: &str, address: IpAddr) -> Result<Found, Unavailable> {
        let sender = client_network(address).to_string();
        match self.registry.find(node, Some(secret), &sender) {
            Lookup::Settled(found) => Ok(found),
            Lookup::Asking(asking) => asking.await,
        }
    }

    /// The device that a request is about, if this network may ask for it now.
    async fn admit<'a>(
        &self,
        kind: &'a str,
        node: &'a str,
        secret: Option<&'a str>,
        network: IpAddr,
    ) -> Result<Unowned<'a>, RegisterError> {
        let device = Unowned::new(kind, node, secret)?.has_to_prove(self.require_secret);
        if !self.is_request_allowed(network) {
            return Err(RegisterError::TooMany);
        }
        let about = ("node", node, network);
        // Who knows the secret always gets through.
        if self.requests.allows(about, PER_NODE, Instant::now()) || self.registry.is_proven(device).await? {
            Ok(device)
        } else {
            Err(RegisterError::TooMany)
        }
    }

    fn is_request_allowed(&self, network: IpAddr) -> bool {
        let (most, now) = (self.requests_per_address, Instant::now());
        self.requests.allows(("address", network), most, now)
            && self
                .requests
                .allows(site(network), most.saturating_mul(SITE), now)
    }

    fn reserve_new(&self, network: IpAddr) -> bool {
        let (most, now) = (self.new_per_address, Instant::now());
        let most_of_site = most.saturating_mul(SITE);
        let has_room = self.new_devices.would_allow(network, most, now)
            && self.new_devices.would_allow(site(network), most_of_site, now);
        has_room
            && self.new_devices.allows(network, most, now)
            && self.new_devices.allows(site(network), most_of_site, now)
    }
}

/// What the networks of a site have in common.
fn site(network: IpAddr) -> (&'static str, IpAddr) {
    ("site", client_site(network))
}

/// As many networks of a site count.
const SITE: u32 = 8;

/// Requests of one address about one node in a minute, unless they come with its secret.
const PER_NODE: u32 = 12;
