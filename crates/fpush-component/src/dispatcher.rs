//! Who does what somebody wants: the push modules, the registry, or nobody but ourselves.
//!
//! It decides and starts; what takes time is a task, whose reply goes out through the outbox.

mod notify;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use fpush_driver::{Admission, Drain, Module, Modules, Senders};
use fpush_policy::{Relaying, Sender};
use fpush_push::{
    Choice, CommandError, Cut, Devices, Found, Lookup, Outcome, Registered, Request as PushRequest, Scope,
    Unavailable, is_plain_name, is_tigase_node, sender,
    sync::{read, write},
};
use tokio::time::Instant;
use tracing::{debug, error, field::display, warn};

use crate::{
    command::{self, AdHoc, COMMANDS},
    domains::Domains,
    link::Link,
    meters::ComponentMeters,
    outbox::PendingReply,
    pings::Pings,
    reply::{Named, Reply},
    request::{Incoming, Publish, Request},
    selftest::{Selftest, Trial, Visit},
    service,
    settings::LinkSettings,
    turns::{Bounds, Turns},
};

/// Has the requests of all links done.
pub(crate) struct Dispatcher {
    modules: Arc<Modules>,
    devices: RwLock<Option<Arc<dyn Devices>>>,
    drain: Drain,
    meters: Arc<ComponentMeters>,
    /// Requests so far.
    requests: AtomicU64,
    pings: Pings,
    domains: Domains,
    senders: Senders,
    /// Of publishes whose node the registry's database is asked for.
    lookups: Arc<Turns>,
    commands: Arc<Turns>,
    /// Notifications of Push 2.0.
    relaying: Mutex<Relaying>,
    selftest: Arc<Selftest>,
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").finish_non_exhaustive()
    }
}

impl Dispatcher {
    pub(crate) fn new(
        modules: Arc<Modules>,
        devices: Option<Arc<dyn Devices>>,
        senders: Senders,
        drain: Drain,
    ) -> Arc<Self> {
        let meters = Arc::new(ComponentMeters::new());
        let commands = Turns::new(SMALL_COMMANDS, LARGE_COMMANDS);
        Arc::new(Self {
            selftest: Selftest::new(&modules, &senders, &drain, &meters, &commands),
            modules,
            devices: RwLock::new(devices),
            drain,
            meters,
            requests: AtomicU64::new(0),
            pings: Pings::default(),
            domains: Domains::new(Instant::now()),
            senders,
            lookups: Turns::new(SMALL_LOOKUPS, LARGE_LOOKUPS),
            commands,
            relaying: Mutex::default(),
        })
    }

    /// Serves these registered devices from now on.
    pub(crate) fn set_devices(&self, devices: Option<Arc<dyn Devices>>) {
        *write(&self.devices) = devices;
    }

    /// How much each domain has sent lately.
    pub(crate) fn domains(&self) -> &Domains {
        &self.domains
    }

    /// What the component counts beside its links.
    pub(crate) fn meters(&self) -> &ComponentMeters {
        &self.meters
    }

    /// The pings of all links.
    pub(crate) fn pings(&self) -> &Pings {
        &self.pings
    }

    fn devices(&self) -> Option<Arc<dyn Devices>> {
        read(&self.devices).clone()
    }

    /// Has a request done that arrived now over this link. It gets exactly one reply, or, if it is a message, one at most.
    pub(crate) fn dispatch(self: &Arc<Self>, link: &Link, incoming: Incoming<'_>, now: Instant) {
        let Incoming {
            addresses,
            domain,
            request,
        } = incoming;
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let pending = link.outbox().expect(&self.meters, addresses, number, now);
        let reply = match request {
            Request::Publish(publish) => {
                let settings = link.settings();
                let arrival = Arrival {
                    domain: &domain,
                    link: &settings,
                };
                return self.publish(publish, arrival, pending);
            }
            Request::Command(command) => {
                return self.command(command, &domain, &link.settings().scope, pending);
            }
            Request::Notify(sent) => {
                return self.notify(&sent, &domain, &link.settings(), pending);
            }
            Request::NoNode => {
                self.domains.count(&domain, now);
                Reply::NoNode
            }
            Request::DiscoInfo(node) => self.describe(&link.settings().scope, node.as_deref()),
            Request::DiscoItems(node) => self.list(&link.settings().hostname, node.as_deref()),
            Request::Ping(id) => {
                self.pings.arrived(&id);
                Reply::Nothing
            }
            Request::Version => Reply::Xml(service::version()),
            Request::OtherPubsub => Reply::UnsupportedPubsub,
            Request::Unknown => Reply::Unsupported,
            Request::Malformed => Reply::Malformed,
            Request::Unreadable => Reply::Unreadable,
            Request::Subscribe => Reply::Unsubscribed,
        };
        pending.send(&reply);
    }

    fn publish(self: &Arc<Self>, publish: Publish<'_>, arrival: Arrival<'_>, pending: PendingReply) {
        let domain = arrival.domain;
        self.domains.count(domain, pending.arrived());
        let pending = pending.with_sender(self.senders.domain(domain));
        if !pending.can_be_kept() {
            return pending.published(Outcome::Overloaded, Named::by(&publish));
        }
        // Who names a module carries the token along.
        if publish.push_module.is_some() {
            return self.push_to_token(&publish, arrival, false, pending);
        }
        let Some(devices) = self.devices() else {
            return self.push_to_token(&publish, arrival, false, pending);
        };
        let secret = publish.secret.as_deref();
        let lookup = if [Some(&*publish.node), secret].into_iter().flatten().all(fits) {
            devices.find(&publish.node, secret, domain)
        } else {
            Lookup::Settled(Found::Nothing)
        };
        match lookup {
            Lookup::Settled(found) => self.push_to_found(Ok(found), &publish, arrival, pending),
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
                let link = Arc::clone(arrival.link);
                self.drain.spawn(async move {
                    let found = match place.turn().await {
                        Some(_turn) => asking.await,
                        None => Err(Unavailable),
                    };
                    let arrival = Arrival {
                        domain: &domain,
                        link: &link,
                    };
                    dispatcher.push_to_found(found, &publish, arrival, pending);
                });
            }
        }
    }

    fn push_to_found(
        &self,
        found: Result<Found, Unavailable>,
        publish: &Publish<'_>,
        arrival: Arrival<'_>,
        pending: PendingReply,
    ) {
        let Arrival { domain, link } = arrival;
        let reply = |pending, outcome, named| reply_outcome(pending, domain, outcome, named);
        let has_secret = publish.secret.is_some();
        let recipient = match found {
            Ok(Found::Device(recipient)) => recipient,
            Ok(Found::Nothing) if !has_secret => return self.push_to_token(publish, arrival, false, pending),
            Ok(Found::Foreign) if !has_secret && publish.push_module.is_some() => {
                return self.push_to_token(publish, arrival, false, pending);
            }
            Ok(Found::Unsure) if !has_secret => return self.push_to_token(publish, arrival, true, pending),
            // Somebody has registered a token as a node of their own: that must not keep its owner's pushes away. But if it
            // is a registered device whose secret was lost on the way, no answer of a provider about its node ends that.
            Ok(Found::WrongSecret)
                if !has_secret && self.modules.take_for_token(&publish.node, &link.scope) =>
            {
                return self.push_to_token(publish, arrival, true, pending);
            }
            Ok(Found::Ended) => return reply(pending, Outcome::NotRegistered, Named::Missing),
            Ok(Found::Nothing | Found::Unsure | Found::Foreign | Found::WrongSecret | Found::Reserved) => {
                return reply(pending, Outcome::UnknownDevice, Named::Missing);
            }
            Err(Unavailable) => return reply(pending, Outcome::RegistryUnavailable, Named::Missing),
        };
        let Some(module) = self.modules.named(&recipient.module) else {
            return reply(pending, Outcome::UnknownModule, Named::OfDevice);
        };
        if !link.scope.allows(module.name()) {
            complain_of_scope(module.name(), arrival);
            return reply(pending, Outcome::UnknownModule, Named::OfDevice);
        }
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

    /// `is_registered`: a device is registered under what is taken for a token, or may be elsewhere.
    fn push_to_token(
        &self,
        publish: &Publish<'_>,
        arrival: Arrival<'_>,
        is_registered: bool,
        pending: PendingReply,
    ) {
        let Arrival { domain, link } = arrival;
        let named = Named::by(publish);
        // Where no registry is asked, the block `registration` may be missing by mistake.
        if publish.push_module.is_none() && is_tigase_node(&publish.node) {
            return reply_outcome(pending, domain, Outcome::UnknownDevice, named);
        }
        let push_module = publish.push_module.as_deref();
        let Some(resolved) = self.modules.resolve(&publish.node, push_module, &link.scope) else {
            match push_module.and_then(|name| self.modules.named(name)) {
                Some(module) => complain_of_scope(module.name(), arrival),
                None => complain_of_module(push_module, arrival),
            }
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
        let sender = sender(request.domain).map(display);
        debug!(publish = pending.number(), sender, module = %module.name(),
            token = %module.fingerprint(request.token), "publish");
        let outcome_for = move |outcome| match outcome {
            Outcome::TokenDead if is_registered => Outcome::UnknownDevice,
            outcome => outcome,
        };
        match module.admit(request, pending.arrived()) {
            Admission::Answered(outcome) => {
                if outcome == Outcome::TokenInvalid {
                    warn!(
                        module = module.name(),
                        sender,
                        "a publish carries a token that cannot be one for this module's provider: does the app name the \
                        right module?"
                    );
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

    fn command(&self, command: AdHoc<'_>, domain: &str, scope: &Arc<Scope>, pending: PendingReply) {
        let devices = self.devices();
        if let Some(trial) = Trial::of(command.node()) {
            let visit = Visit {
                domain: domain.to_owned(),
                scope: Arc::clone(scope),
                devices,
            };
            return self.selftest.serve(trial, command, visit, pending);
        }
        let Some(devices) = devices else {
            return pending.send(&Reply::NoRegistration);
        };
        let (name, command) = match command.check(&*devices, Arc::clone(scope)) {
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
    fn describe(&self, scope: &Scope, node: Option<&str>) -> Reply<'static> {
        match node {
            None => {
                let devices = self.devices();
                let of_devices = devices.map(|devices| (devices.features(scope), devices.vapid_keys(scope)));
                let (features, keys) = of_devices.unwrap_or_default();
                Reply::Xml(service::disco_info(&features, &keys))
            }
            Some(COMMANDS) => Reply::Xml(service::command_list_info()),
            Some(node) => {
                let command = self.command_names().into_iter().find(|(name, _)| *name == node);
                command.map_or(Reply::UnknownNode, |(name, title)| {
                    Reply::Xml(service::command_info(name, title))
                })
            }
        }
    }

    /// disco#items of what has this address.
    fn list(&self, address: &str, node: Option<&str>) -> Reply<'static> {
        Reply::Xml(match node {
            Some(COMMANDS) => service::command_items(address, &self.command_names()),
            Some(_) | None => service::disco_items(),
        })
    }

    /// All commands, each with its title for persons: those with which devices register, and those with which users find out
    /// what became of a push.
    fn command_names(&self) -> Vec<(&'static str, &'static str)> {
        let of_devices = self.devices().map(|devices| devices.commands());
        let own = Trial::ALL.map(|trial| (trial.name(), trial.title()));
        of_devices.unwrap_or_default().into_iter().chain(own).collect()
    }
}

/// Where a publish came from.
#[derive(Clone, Copy)]
struct Arrival<'a> {
    /// The sender's domain.
    domain: &'a str,
    /// The settings of the link.
    link: &'a Arc<LinkSettings>,
}

/// Answers a publish that never came to a module.
fn reply_outcome(pending: PendingReply, domain: &str, outcome: Outcome, named: Named<'_>) {
    debug!(
        publish = pending.number(),
        sender = sender(domain).map(display),
        "publish without a module"
    );
    pending.without_module(outcome, named);
}

/// Says that a publish came to no module because of what it names.
fn complain_of_module(push_module: Option<&str>, arrival: Arrival<'_>) {
    let Arrival { domain, link } = arrival;
    let (sender, link) = (sender(domain).map(display), link.name.as_str());
    match push_module {
        Some(name) if is_plain_name(name) => {
            error!(
                sender,
                link,
                "a publish names the push module {}, which is not in the settings: add it back, or correct \
                the name in the app",
                Cut(name)
            );
        }
        Some(name) => {
            error!(
                sender,
                link,
                "a publish names a push module of {} bytes, which is not in the settings; it is not shown, \
                because it may be a token: add the module back, or correct the name in the app",
                name.len()
            );
        }
        None => {
            error!(
                sender,
                link,
                "a publish names no push module, and the settings have no default one for its link \
                (is_default_module, component.defaultModule)"
            );
        }
    }
}

/// Says that a publish came to no module because its link may not use that.
fn complain_of_scope(module: &str, arrival: Arrival<'_>) {
    let Arrival { domain, link } = arrival;
    error!(
        sender = sender(domain).map(display),
        link = link.name,
        "a publish is for the push module {module}, which its link may not use: \
        add it to {}.modules, or correct the address in the app",
        link.path
    );
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
