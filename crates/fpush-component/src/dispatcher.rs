//! Who does what somebody wants: the push modules, the registry, or nobody but ourselves.
//!
//! It decides and starts; what takes time is a task, whose reply goes out through the outbox.

use std::{
    fmt, mem,
    sync::{Arc, RwLock},
};

use fpush_driver::{Admission, Drain, Module, Modules, Senders};
use fpush_policy::Sender;
use fpush_push::{
    Choice, CommandError, Cut, Devices, Found, Lookup, Outcome, Registered, Request as PushRequest,
    Unavailable, canonical_domain, is_plain_name, is_tigase_node,
    sync::{read, write},
};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use crate::{
    command::{self, AdHoc, COMMANDS},
    domains::Domains,
    outbox::{Outbox, PendingReply},
    reply::{Named, Reply},
    request::{Incoming, Publish, Request},
    service,
    turns::{Bounds, Turns},
};

/// Has requests done. It outlives the links.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    modules: Arc<Modules>,
    settings: RwLock<LiveSettings>,
    drain: Drain,
    outbox: Arc<Outbox>,
    domains: Domains,
    senders: Senders,
    /// Of publishes whose node the registry's database is asked for.
    lookups: Arc<Turns>,
    commands: Arc<Turns>,
}

/// What the settings may change while the daemon runs.
struct LiveSettings {
    /// Our own address.
    name: Box<str>,
    devices: Option<Arc<dyn Devices>>,
}

impl fmt::Debug for LiveSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSettings")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Dispatcher {
    pub(crate) fn new(
        name: &str,
        modules: Arc<Modules>,
        devices: Option<Arc<dyn Devices>>,
        senders: Senders,
        drain: Drain,
    ) -> Arc<Self> {
        let (name, now) = (name.into(), Instant::now());
        Arc::new(Self {
            modules,
            settings: RwLock::new(LiveSettings { name, devices }),
            drain,
            outbox: Outbox::new(),
            domains: Domains::new(now),
            senders,
            lookups: Turns::new(SMALL_LOOKUPS, LARGE_LOOKUPS),
            commands: Turns::new(SMALL_COMMANDS, LARGE_COMMANDS),
        })
    }

    /// Serves these registered devices from now on.
    pub(crate) fn set_devices(&self, devices: Option<Arc<dyn Devices>>) {
        write(&self.settings).devices = devices;
    }

    /// Our address is this one from now on.
    pub(crate) fn set_name(&self, name: &str) {
        let former = mem::replace(&mut write(&self.settings).name, name.into());
        if canonical_domain(&former) != canonical_domain(name) {
            self.outbox.drop_former(Instant::now());
        }
    }

    /// How much each domain has sent lately.
    pub(crate) fn domains(&self) -> &Domains {
        &self.domains
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    fn devices(&self) -> Option<Arc<dyn Devices>> {
        read(&self.settings).devices.clone()
    }

    /// Has a request done that arrived now. It gets exactly one reply.
    pub(crate) fn dispatch(self: &Arc<Self>, incoming: Incoming<'_>, now: Instant) {
        let Incoming {
            addresses,
            domain,
            request,
        } = incoming;
        let pending = self.outbox.expect(addresses, now);
        let reply = match request {
            Request::Publish(publish) => return self.publish(publish, &domain, pending),
            Request::Command(command) => return self.command(command, &domain, pending),
            Request::NoNode => {
                self.domains.count(&domain, now);
                Reply::NoNode
            }
            Request::DiscoInfo(node) => self.describe(node.as_deref()),
            Request::DiscoItems(node) => self.list(node.as_deref()),
            Request::Ping => Reply::Nothing,
            Request::Version => Reply::Xml(service::version()),
            Request::OtherPubsub => Reply::UnsupportedPubsub,
            Request::Unknown => Reply::Unsupported,
            Request::Malformed => Reply::Malformed,
            Request::Unreadable => Reply::Unreadable,
            Request::Subscribe => Reply::Unsubscribed,
        };
        pending.send(&reply);
    }

    fn publish(self: &Arc<Self>, publish: Publish<'_>, domain: &str, pending: PendingReply) {
        self.domains.count(domain, pending.arrived());
        if !pending.can_be_kept() {
            return pending.published(Outcome::Overloaded, Named::by(&publish));
        }
        // Who names a module carries the token along.
        if publish.push_module.is_some() {
            return self.push_to_token(&publish, domain, false, pending);
        }
        let Some(devices) = self.devices() else {
            return self.push_to_token(&publish, domain, false, pending);
        };
        let secret = publish.secret.as_deref();
        let lookup = if [Some(&*publish.node), secret].into_iter().flatten().all(fits) {
            devices.find(&publish.node, secret, domain)
        } else {
            Lookup::Settled(Found::Nothing)
        };
        match lookup {
            Lookup::Settled(found) => self.push_to_found(Ok(found), &publish, domain, pending),
            Lookup::Asking(asking) => {
                let sender = self.senders.domain(domain).sender();
                // The registry keeps copies of what it looks up.
                let looked_up = publish.node.len() + secret.map_or(0, str::len) + domain.len();
                let bytes = publish.size() + looked_up + domain.len() + pending.size();
                let Some(place) = self.lookups.enter(sender, bytes) else {
                    return reply_outcome(pending, domain, Outcome::RegistryUnavailable, Named::Missing);
                };
                let (dispatcher, publish, domain) =
                    (Arc::clone(self), publish.into_owned(), domain.to_owned());
                self.drain.spawn(async move {
                    let found = match place.turn().await {
                        Some(_turn) => asking.await,
                        None => Err(Unavailable),
                    };
                    dispatcher.push_to_found(found, &publish, &domain, pending);
                });
            }
        }
    }

    fn push_to_found(
        &self,
        found: Result<Found, Unavailable>,
        publish: &Publish<'_>,
        domain: &str,
        pending: PendingReply,
    ) {
        let reply = |pending, outcome, named| reply_outcome(pending, domain, outcome, named);
        let has_secret = publish.secret.is_some();
        let recipient = match found {
            Ok(Found::Device(recipient)) => recipient,
            Ok(Found::Nothing) if !has_secret => return self.push_to_token(publish, domain, false, pending),
            // Somebody has registered a token as a node of their own: that must not keep its owner's pushes away. But if it
            // is a registered device whose secret was lost on the way, no answer of a provider about its node ends that.
            Ok(Found::WrongSecret) if !has_secret && self.modules.take_for_token(&publish.node) => {
                return self.push_to_token(publish, domain, true, pending);
            }
            Ok(Found::Ended) => return reply(pending, Outcome::NotRegistered, Named::Missing),
            Ok(Found::Nothing | Found::WrongSecret | Found::Reserved) => {
                return reply(pending, Outcome::UnknownDevice, Named::Missing);
            }
            Err(Unavailable) => return reply(pending, Outcome::RegistryUnavailable, Named::Missing),
        };
        let Some(module) = self.modules.named(&recipient.module) else {
            return reply(pending, Outcome::UnknownModule, Named::OfDevice);
        };
        let request = PushRequest {
            token: recipient.token.as_str(),
            choice: Choice::Registered,
            urgency: publish.urgency,
            count: publish.count,
            domain,
            registered: Some(Registered {
                recipient: &recipient,
                encrypted: publish.encrypted.as_ref(),
            }),
        };
        self.run(module, request, false, pending);
    }

    /// `is_registered`: a device is registered under what is taken for a token.
    fn push_to_token(&self, publish: &Publish<'_>, domain: &str, is_registered: bool, pending: PendingReply) {
        let named = Named::by(publish);
        // Where no registry is asked, the block `registration` may be missing by mistake.
        if publish.push_module.is_none() && is_tigase_node(&publish.node) {
            return reply_outcome(pending, domain, Outcome::UnknownDevice, named);
        }
        let push_module = publish.push_module.as_deref();
        let Some(resolved) = self.modules.resolve(&publish.node, push_module) else {
            complain_of_module(push_module, domain);
            return reply_outcome(pending, domain, Outcome::UnknownModule, named);
        };
        // With a secret and no module, its node is that of a registered device, and the registry may be missing by
        // mistake: no server may forget the device because a provider does not know the node.
        let may_be_registered = is_registered || (publish.secret.is_some() && push_module.is_none());
        let request = PushRequest {
            token: resolved.token,
            choice: match resolved.choice {
                Choice::Only if may_be_registered => Choice::Default,
                choice => choice,
            },
            urgency: publish.urgency,
            count: publish.count,
            domain,
            registered: None,
        };
        self.run(resolved.module, request, may_be_registered, pending);
    }

    /// Has a push module decide, and what it decides done. With `is_registered`, whatever a provider says of the token does
    /// not end a registration.
    fn run(&self, module: Arc<Module>, request: PushRequest<'_>, is_registered: bool, pending: PendingReply) {
        let sender = Cut(request.domain);
        debug!(publish = pending.number(), %sender, module = %module.name(),
            token = %module.fingerprint(request.token), "publish");
        let outcome_for = move |outcome| match outcome {
            Outcome::TokenDead if is_registered => Outcome::UnknownDevice,
            outcome => outcome,
        };
        match module.admit(request, pending.arrived()) {
            Admission::Answered(outcome) => {
                if outcome == Outcome::TokenInvalid {
                    warn!(module = module.name(), %sender,
                        "a publish carries a token that cannot be one for this module's provider: does the app name the \
                        right module?");
                }
                pending.published(outcome_for(outcome), Named::Known(module.name()));
            }
            Admission::Admitted(admitted) => {
                self.drain.spawn(async move {
                    let outcome = admitted.deliver().await;
                    pending.published(outcome_for(outcome), Named::Known(module.name()));
                });
            }
        }
    }

    fn command(&self, command: AdHoc<'_>, domain: &str, pending: PendingReply) {
        let Some(devices) = self.devices() else {
            return pending.send(&Reply::NoRegistration);
        };
        let (name, command) = match command.check(&*devices) {
            Ok(command) => command,
            Err(reply) => return pending.send(&reply),
        };
        // Users of a domain have turns of their own.
        let sender = Sender {
            name: self.senders.hasher().domain(&command.sender),
            ..self.senders.domain(domain).sender()
        };
        let bytes = command::size(&command) + pending.size();
        let executing = match devices.execute(command) {
            Ok(executing) => executing,
            Err(error) => return pending.send(&Reply::CommandFailed(error)),
        };
        let place = self.commands.enter(sender, bytes);
        let Some(place) = place.filter(|_| pending.can_be_kept()) else {
            return pending.send(&Reply::CommandFailed(CommandError::Unavailable(Unavailable)));
        };
        self.drain.spawn(async move {
            let completed = match place.turn().await {
                Some(_turn) => executing.await,
                None => Err(CommandError::Unavailable(Unavailable)),
            };
            pending.send(&match completed {
                Ok(completed) => Reply::Xml(command::completed(name, &completed)),
                Err(error) => Reply::CommandFailed(error),
            });
        });
    }

    /// disco#info.
    fn describe(&self, node: Option<&str>) -> Reply<'static> {
        match (node, self.devices()) {
            (None, None) => Reply::Xml(service::disco_info(None)),
            (None, Some(devices)) => Reply::Xml(service::disco_info(Some(&devices.features()))),
            (Some(COMMANDS), Some(_)) => Reply::Xml(service::command_list_info()),
            (Some(node), Some(devices)) => {
                let command = devices.commands().into_iter().find(|(name, _)| *name == node);
                command.map_or(Reply::UnknownNode, |(name, title)| {
                    Reply::Xml(service::command_info(name, title))
                })
            }
            (Some(_), None) => Reply::UnknownNode,
        }
    }

    /// disco#items.
    fn list(&self, node: Option<&str>) -> Reply<'static> {
        match (node, self.devices()) {
            (Some(COMMANDS), Some(devices)) => {
                let name = &read(&self.settings).name;
                Reply::Xml(service::command_items(name, &devices.commands()))
            }
            (Some(_) | None, _) => Reply::Xml(service::disco_items()),
        }
    }
}

/// Answers a publish that never came to a module.
fn reply_outcome(pending: PendingReply, domain: &str, outcome: Outcome, named: Named<'_>) {
    debug!(publish = pending.number(), sender = %Cut(domain), "publish without a module");
    pending.without_module(outcome, named);
}

/// Says that a publish came to no module because of what it names.
fn complain_of_module(push_module: Option<&str>, domain: &str) {
    let sender = Cut(domain);
    match push_module {
        Some(name) if is_plain_name(name) => {
            error!(%sender, "a publish names the push module {}, which is not in the settings: add it back, or correct \
                the name in the app", Cut(name));
        }
        Some(name) => {
            error!(%sender, "a publish names a push module of {} bytes, which is not in the settings; it is not shown, \
                because it may be a token: add the module back, or correct the name in the app", name.len());
        }
        None => {
            error!(%sender, "a publish names no push module, and the settings have no default one \
                (is_default_module)");
        }
    }
}

impl Named<'_> {
    /// What a publish names that came to no module.
    fn by(publish: &Publish<'_>) -> Self {
        match publish.push_module {
            Some(_) => Self::Unknown,
            None => Self::Missing,
        }
    }
}

/// Whether a node or a secret is of a size that makes sense.
fn fits(value: &str) -> bool {
    value.len() <= MAX_VALUE
}

/// 20 MiB of what was sent wait at most.
const SMALL_LOOKUPS: Bounds = Bounds {
    under_way: 32,
    waiting: 4_096,
};
const LARGE_LOOKUPS: Bounds = Bounds {
    under_way: 8,
    waiting: 128,
};
/// The registry writes together what comes together. 12 MiB wait at most.
const SMALL_COMMANDS: Bounds = Bounds {
    under_way: 64,
    waiting: 2_048,
};
const LARGE_COMMANDS: Bounds = Bounds {
    under_way: 16,
    waiting: 128,
};
/// Bytes of a node or a secret: the longest tokens have as many.
const MAX_VALUE: usize = 4_096;

#[cfg(test)]
mod tests;
