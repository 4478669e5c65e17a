//! Registers and removes devices for their owners: every dialect ends here.

use std::{sync::Arc, time::Duration};

use fpush_push::{Scope, TokenFlaw, Unavailable, VapidKey, is_same_base64};
use tokio::time::Instant;

use crate::{
    change::{Change, Done},
    device::{Device, Dialect, share_of},
    error::RegisterError,
    jobs::Origin,
    nodes::{is_device_id, is_generated},
    rules::Claim,
    secrets::WrongSecrets,
    shared::{Shared, ask},
    targets::Targets,
    throttle::Throttle,
    time::Time,
};

/// What the registry asks and tells the push modules. The names of modules are those that the settings give.
pub trait PushModules: Send + Sync + 'static {
    /// The one spelling in which a module knows a token; `None` for what cannot be one of its tokens.
    fn canonical(&self, module: &str, token: &str) -> Option<String>;

    /// What is wrong with a text that a module does not take for one of its tokens.
    fn flaw(&self, _module: &str, _token: &str) -> TokenFlaw {
        TokenFlaw::Form
    }

    /// A device with this token registered, anew or again: what is known against the token is outdated.
    fn has_registered(&self, module: &str, token: &str);

    /// Whether some module would take a node for a token.
    fn looks_like_token(&self, node: &str) -> bool;

    /// The public key with which apps have to subscribe at their push service for this module (VAPID), if it has one.
    fn vapid_key(&self, _module: &str) -> Option<String> {
        None
    }
}

/// Takes every token as it is: for what looks at devices and sends nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoModules;

impl PushModules for NoModules {
    fn canonical(&self, _module: &str, token: &str) -> Option<String> {
        Some(token.to_owned())
    }

    fn has_registered(&self, _module: &str, _token: &str) {}

    fn looks_like_token(&self, _node: &str) -> bool {
        false
    }
}

/// Registers and removes devices.
pub(crate) struct Registrar {
    shared: Arc<Shared>,
    targets: Arc<Targets>,
    modules: Arc<dyn PushModules>,
    wrong_secrets: Arc<WrongSecrets>,
    /// Commands of owners and of their domains.
    commands: Throttle,
}

impl Registrar {
    pub(crate) fn new(
        shared: Arc<Shared>,
        targets: Arc<Targets>,
        modules: Arc<dyn PushModules>,
        wrong_secrets: Arc<WrongSecrets>,
    ) -> Self {
        Self {
            shared,
            targets,
            modules,
            wrong_secrets,
            commands: Throttle::new(Duration::from_secs(60)),
        }
    }

    /// Registers a device of a push module that may be used: returns it when it is on disk, and whether it is a new one.
    pub(crate) async fn register(
        &self,
        mut claim: Claim,
        voip_token: Option<String>,
        sender: &str,
        scope: &Scope,
    ) -> Result<(Device, bool), RegisterError> {
        let module = self.module(claim.dialect, &claim.kind, scope)?;
        self.may_replace(&claim, scope).await?;
        let canonical = |token: String| {
            self.modules
                .canonical(module, &token)
                .ok_or_else(|| RegisterError::BadToken(self.modules.flaw(module, &token)))
        };
        claim.token = canonical(claim.token)?;
        let voip_token = voip_token.map(canonical).transpose()?;
        let tried = self.tried_secret(&claim, sender).await?;
        let done = self.write(sender, Change::Register { claim, voip_token }).await;
        match self.weigh_secret(done, tried)? {
            Done::Device { device, is_new } => {
                self.modules.has_registered(module, &device.token);
                if let Some(token) = &device.voip_token {
                    self.modules.has_registered(module, token);
                }
                Ok((*device, is_new))
            }
            Done::Imported(_) | Done::Removed(_) | Done::Accepted(_) => Err(Unavailable.into()),
        }
    }

    /// The push module of a push type, if it may be used.
    fn module(&self, dialect: Dialect, kind: &str, scope: &Scope) -> Result<&str, RegisterError> {
        self.targets
            .module(dialect, kind)
            .filter(|module| scope.allows(module))
            .ok_or(RegisterError::UnknownType)
    }

    /// Checks the key that an app says it has subscribed with.
    pub(crate) fn check_key(
        &self,
        dialect: Dialect,
        kind: &str,
        key: Option<&str>,
        scope: &Scope,
    ) -> Result<(), RegisterError> {
        let Some(key) = key else { return Ok(()) };
        let module = self.module(dialect, kind, scope)?;
        let ours = self.modules.vapid_key(module);
        if ours.is_some_and(|ours| is_same_base64(&ours, key)) {
            Ok(())
        } else {
            Err(RegisterError::OtherKey)
        }
    }

    /// The keys with which apps have to subscribe, of the push types that have one and whose push module may be used.
    pub(crate) fn vapid_keys(&self, scope: &Scope) -> Vec<VapidKey> {
        let types = self.targets.types();
        types
            .filter(|(_, module)| scope.allows(module))
            .filter_map(|(kind, module)| {
                Some(VapidKey {
                    kind: kind.to_owned(),
                    key: self.modules.vapid_key(module)?,
                })
            })
            .collect()
    }

    /// Whether what is registered under the node of a claim, if anything, is of a push module that may be used.
    async fn may_replace(&self, claim: &Claim, scope: &Scope) -> Result<(), RegisterError> {
        if scope.modules().is_none() {
            return Ok(());
        }
        match ask(self.shared.store.find(&claim.node)).await? {
            Some(device) if !scope.allows(&self.targets.of(device.dialect, &device.kind)) => {
                Err(RegisterError::Forbidden)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Removes a registration of a push module that may be used: returns what it was when that is on disk.
    pub(crate) async fn unregister(
        &self,
        mut claim: Claim,
        sender: &str,
        scope: &Scope,
    ) -> Result<Device, RegisterError> {
        if !scope.allows(&self.targets.of(claim.dialect, &claim.kind)) {
            return Err(RegisterError::NotFound);
        }
        // What is registered is in its one spelling.
        let module = self.targets.module(claim.dialect, &claim.kind);
        if let Some(token) = module.and_then(|module| self.modules.canonical(module, &claim.token)) {
            claim.token = token;
        }
        let tried = self.tried_secret(&claim, sender).await?;
        let done = self.write(sender, Change::Unregister { claim }).await;
        match self.weigh_secret(done, tried)? {
            Done::Device { device, .. } => Ok(*device),
            Done::Imported(_) | Done::Removed(_) | Done::Accepted(_) => Err(Unavailable.into()),
        }
    }

    /// Has something written for a sender: a bare JID, or an address.
    async fn write(&self, sender: &str, change: Change) -> Result<Done, RegisterError> {
        let share = share_of(Some(sender));
        let (share, name) = (&*share, sender);
        let origin = if self.shared.rules.trusts(share) {
            Origin::Trusted { share, name }
        } else {
            Origin::Stranger { share, name }
        };
        self.shared.jobs.write(origin, change).await
    }

    /// The node and the sender of a claim with a secret. After too many wrong secrets the sender's have to be right before
    /// anything is written.
    async fn tried_secret(
        &self,
        claim: &Claim,
        sender: &str,
    ) -> Result<Option<(String, String)>, RegisterError> {
        let Some(secret) = claim.secret.as_deref() else {
            return Ok(None);
        };
        let node = claim.node.as_str();
        if !self.wrong_secrets.may_try(node, sender, Instant::now())
            && !self.is_right_secret(node, Some(secret)).await?
        {
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
            self.wrong_secrets.count(&node, &sender, Instant::now());
        }
        done
    }

    /// Whether a secret is that of the device with this node.
    pub(crate) async fn is_right_secret(
        &self,
        node: &str,
        secret: Option<&str>,
    ) -> Result<bool, Unavailable> {
        if secret.is_none() {
            return Ok(false);
        }
        let device = ask(self.shared.store.find(node)).await?;
        Ok(device.is_some_and(|device| device.secret_matches(secret, Time::now())))
    }

    /// Whether a node is one that nobody may choose.
    pub(crate) fn is_reserved(&self, node: &str) -> bool {
        is_generated(node) || (!is_device_id(node) && self.modules.looks_like_token(node))
    }

    /// Which kinds of devices there are.
    pub(crate) fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Makes a node that only we can make, and that is always the same for the same parts.
    pub(crate) fn node(&self, parts: &[&str]) -> Result<String, Unavailable> {
        self.shared.node(parts)
    }

    /// Counts a command of an owner, and returns whether those are not too many: of the owner, and of all owners of the
    /// registrable domain, unless it is trusted.
    pub(crate) fn is_command_allowed(&self, owner: &str) -> bool {
        let (now, domain) = (Instant::now(), share_of(Some(owner)));
        let most = if self.shared.rules.trusts(&domain) {
            u32::MAX
        } else {
            PER_DOMAIN
        };
        // What is refused to one of them is not the others' loss, and makes nobody forgotten.
        self.commands.would_allow(("domain", &domain), most, now)
            && self.commands.allows(("owner", owner), PER_OWNER, now)
            && self.commands.allows(("domain", &domain), most, now)
    }
}

/// Commands of one bare JID in a minute: a client that joins its group chats registers for each.
const PER_OWNER: u32 = 40;
/// Commands of one registrable domain in a minute: a new version of an app that starts on a hundred phones a second.
const PER_DOMAIN: u32 = 6_000;
