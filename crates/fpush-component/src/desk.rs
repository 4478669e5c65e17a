//! What is done with everything that wants an answer.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use fpush_push::{
    BadPayload, COMMAND_FIELDS, Choice, Command, CommandError, Cut, Devices, Drain, Encrypted, Found, Lookup,
    Module, Modules, Outcome, Registered, Request as PushRequest, Unavailable, Urgency, Verdict,
    canonical_domain, canonical_jid, is_tigase_node,
};
use metrics::{Histogram, counter, histogram};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tracing::{debug, error, warn};

use crate::{
    link::Event,
    outbox::Outbox,
    reply::{Addresses, Answer, Named, write_unsubscribed},
    request::{Action, AdHoc, Ciphertext, Publish, Request},
    senders::Senders,
    service,
};

/// Handles requests, and has the replies written. It outlives the links.
#[derive(Debug)]
pub(crate) struct Desk {
    modules: Arc<Modules>,
    /// What the settings may change while the daemon runs.
    terms: RwLock<Arc<Terms>>,
    drain: Drain,
    outbox: Outbox,
    /// Bytes of the publishes and commands that may yet wait for a database.
    room: Arc<Semaphore>,
    /// Publishes so far.
    publishes: AtomicU64,
    /// Requests whose reply is not there yet.
    under_way: AtomicUsize,
    senders: Senders,
    durations: Histogram,
}

#[derive(Clone)]
struct Terms {
    /// Our own address.
    name: Box<str>,
    devices: Option<Arc<dyn Devices>>,
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A request whose reply is not there yet.
struct UnderWay(Arc<Desk>);

impl UnderWay {
    fn new(desk: &Arc<Desk>) -> Self {
        desk.under_way.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(desk))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A publish with everything that must be known of it once its device is found.
struct Arrival<'a> {
    node: &'a str,
    push_module: Option<&'a str>,
    has_secret: bool,
    /// Whether a device is registered under the node, although the publish is not known to be for it.
    is_registered: bool,
    urgency: Urgency,
    encrypted: Option<Encrypted>,
    domain: &'a str,
    asked: Asked,
}

/// What is needed to answer a publish.
struct Asked {
    /// By that the lines of the log about one publish are found.
    number: u64,
    addresses: Addresses,
    at: Instant,
}

impl Desk {
    pub(crate) fn new(
        name: &str,
        modules: Arc<Modules>,
        devices: Option<Arc<dyn Devices>>,
        drain: Drain,
    ) -> Arc<Self> {
        Arc::new(Self {
            modules,
            terms: RwLock::new(Arc::new(Terms {
                name: name.into(),
                devices,
            })),
            drain,
            outbox: Outbox::default(),
            room: Arc::new(Semaphore::new(MAX_WAITING)),
            publishes: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            senders: Senders::new(Instant::now()),
            durations: histogram!("fpush_reply_duration_seconds"),
        })
    }

    /// Serves registered devices like this from now on.
    pub(crate) fn set_devices(&self, devices: Option<Arc<dyn Devices>>) {
        self.change_terms(|terms| terms.devices = devices);
    }

    /// Our address is this one from now on.
    pub(crate) fn set_name(&self, name: &str) {
        if canonical_domain(&self.terms().name) != canonical_domain(name) {
            self.outbox.drop_former(Instant::now());
        }
        self.change_terms(|terms| terms.name = name.into());
    }

    /// Whether every request that came has its reply in the outbox.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) == 0
    }

    /// Which domains send most publishes.
    pub(crate) fn senders(&self) -> &Senders {
        &self.senders
    }

    fn change_terms(&self, change: impl FnOnce(&mut Terms)) {
        let mut terms = self.terms.write().expect("nobody panics with this lock");
        change(Arc::make_mut(&mut terms));
    }

    fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read().expect("nobody panics with this lock"))
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    pub(crate) fn handle(self: &Arc<Self>, event: Event<'_>, now: Instant) {
        match event {
            Event::Request {
                addresses,
                domain,
                request,
            } => match request {
                Request::Publish(publish) => self.publish(publish, addresses, domain, now),
                Request::Command(command) => self.command(command, addresses, now),
                Request::DiscoInfo(node) => {
                    let answer = self.describe(node.as_deref());
                    self.reply(&addresses, &answer, now);
                }
                Request::DiscoItems(node) => {
                    let answer = self.list(node.as_deref());
                    self.reply(&addresses, &answer, now);
                }
                Request::Ping => self.reply(&addresses, &Answer::Nothing, now),
                Request::Version => self.reply(&addresses, &Answer::Payload(service::version()), now),
                Request::OtherPubsub => self.reply(&addresses, &Answer::UnsupportedPubsub, now),
                Request::Unknown => self.reply(&addresses, &Answer::Unsupported, now),
                Request::Malformed => self.reply(&addresses, &Answer::Malformed, now),
                Request::Unreadable => self.reply(&addresses, &Answer::Unreadable, now),
            },
            Event::TooLarge { addresses } => self.reply(&addresses, &Answer::Unreadable, now),
            Event::Subscribe { addresses } => {
                self.outbox.push(now, |out| write_unsubscribed(&addresses, out));
            }
        }
    }

    fn publish(self: &Arc<Self>, publish: Publish<'_>, addresses: Addresses, domain: &str, now: Instant) {
        let Publish {
            node,
            push_module,
            secret,
            urgency,
            encrypted,
        } = publish;
        self.senders.count(domain, now);
        let Some(node) = node else {
            return self.reply(&addresses, &Answer::NoNode, now);
        };
        let asked = Asked {
            number: self.publishes.fetch_add(1, Ordering::Relaxed) + 1,
            addresses,
            at: now,
        };
        let push_module = push_module.as_deref().filter(|name| !name.is_empty());
        if !asked.addresses.can_be_kept() {
            return self.published(&asked, Outcome::Overloaded, Named::of(push_module));
        }
        let arrival = Arrival {
            node: &node,
            push_module,
            has_secret: secret.is_some(),
            is_registered: false,
            urgency,
            encrypted: None,
            domain,
            asked,
        };
        // Who names a module carries the token along.
        if arrival.push_module.is_some() {
            return self.push_to_token(arrival);
        }
        let terms = self.terms();
        let Some(devices) = &terms.devices else {
            return self.push_to_token(arrival);
        };
        let encrypted = encrypted.map(|Ciphertext { iv, text }| Encrypted {
            iv: iv.into(),
            ciphertext: text.into(),
        });
        let secret = secret.as_deref();
        let lookup = if [Some(&*node), secret].into_iter().flatten().all(fits) {
            devices.find(&node, secret, domain)
        } else {
            Lookup::Settled(Found::Nothing)
        };
        match lookup {
            Lookup::Settled(found) => self.push_to_found(Ok(found), Arrival { encrypted, ..arrival }),
            Lookup::Asking(asking) => {
                let kept = encrypted
                    .as_ref()
                    .map_or(0, |encrypted| encrypted.iv.len() + encrypted.ciphertext.len());
                let bytes = [
                    kept,
                    arrival.asked.addresses.size(),
                    domain.len(),
                    node.len(),
                    secret.map_or(0, str::len),
                ];
                let Some(room) = self.room_for(bytes) else {
                    return self.settle(&arrival, Outcome::RegistryUnavailable, Named::Missing);
                };
                let (has_secret, asked) = (arrival.has_secret, arrival.asked);
                let (desk, node, domain) = (Arc::clone(self), node.into_owned(), domain.to_owned());
                let under_way = UnderWay::new(self);
                self.drain.spawn(async move {
                    let found = asking.await;
                    drop(room);
                    let arrival = Arrival {
                        node: &node,
                        push_module: None,
                        has_secret,
                        is_registered: false,
                        urgency,
                        encrypted,
                        domain: &domain,
                        asked,
                    };
                    desk.push_to_found(found, arrival);
                    drop(under_way);
                });
            }
        }
    }

    /// Room for what is kept of a request while a database is asked; `None` if there is none left.
    fn room_for(&self, bytes: impl IntoIterator<Item = usize>) -> Option<OwnedSemaphorePermit> {
        let bytes: usize = bytes.into_iter().chain([OVERHEAD]).sum();
        let permits = u32::try_from(bytes).ok()?;
        Arc::clone(&self.room).try_acquire_many_owned(permits).ok()
    }

    fn push_to_found(self: &Arc<Self>, found: Result<Found, Unavailable>, arrival: Arrival<'_>) {
        let recipient = match found {
            Ok(Found::Device(recipient)) => recipient,
            Ok(Found::Nothing) if !arrival.has_secret => return self.push_to_token(arrival),
            // Somebody has registered a token as a node of their own: that must not keep its owner's pushes away. But if it
            // is a registered device whose secret was lost on the way, no answer of a provider about its node ends that.
            Ok(Found::WrongSecret) if !arrival.has_secret && self.modules.take_for_token(arrival.node) => {
                let arrival = Arrival {
                    is_registered: true,
                    ..arrival
                };
                return self.push_to_token(arrival);
            }
            Ok(Found::Ended) => return self.settle(&arrival, Outcome::NotRegistered, Named::Missing),
            Ok(Found::Nothing | Found::WrongSecret | Found::Reserved) => {
                return self.settle(&arrival, Outcome::UnknownDevice, Named::Missing);
            }
            Err(Unavailable) => {
                return self.settle(&arrival, Outcome::RegistryUnavailable, Named::Missing);
            }
        };
        let Some(module) = self.modules.named(&recipient.module) else {
            return self.settle(&arrival, Outcome::UnknownModule, Named::OfDevice);
        };
        let request = PushRequest {
            token: recipient.token.as_str(),
            choice: Choice::Registered,
            urgency: arrival.urgency,
            domain: arrival.domain,
            registered: Some(Registered {
                recipient: &recipient,
                encrypted: arrival.encrypted.as_ref(),
            }),
        };
        let verdict = module.admit(request, arrival.asked.at);
        self.carry_out(verdict, &module, recipient.token.as_str(), arrival);
    }

    fn push_to_token(self: &Arc<Self>, arrival: Arrival<'_>) {
        // Where no registry is asked, the block `registration` may be missing by mistake.
        if arrival.push_module.is_none() && is_tigase_node(arrival.node) {
            return self.settle(&arrival, Outcome::UnknownDevice, Named::of(None));
        }
        let Some(resolved) = self.modules.resolve(arrival.node, arrival.push_module) else {
            complain_of_module(arrival.push_module, arrival.domain);
            return self.settle(&arrival, Outcome::UnknownModule, Named::of(arrival.push_module));
        };
        let choice = match resolved.choice {
            // With a secret and no module, its node is that of a registered device, and the registry may be missing by
            // mistake: no server may forget the device because a provider does not know the node.
            Choice::Only
                if (arrival.has_secret && arrival.push_module.is_none()) || arrival.is_registered =>
            {
                Choice::Default
            }
            choice => choice,
        };
        let request = PushRequest {
            token: resolved.token,
            choice,
            urgency: arrival.urgency,
            domain: arrival.domain,
            registered: None,
        };
        let verdict = resolved.module.admit(request, arrival.asked.at);
        self.carry_out(verdict, &resolved.module, resolved.token, arrival);
    }

    /// `is_registered`: a device is registered under what is taken for a token, and whatever a provider says of that does
    /// not end its registration.
    fn carry_out(
        self: &Arc<Self>,
        verdict: Verdict,
        module: &Arc<Module>,
        token: &str,
        arrival: Arrival<'_>,
    ) {
        let Arrival {
            domain,
            asked,
            is_registered,
            ..
        } = arrival;
        let outcome_for = move |outcome| match outcome {
            Outcome::TokenDead if is_registered => Outcome::UnknownDevice,
            outcome => outcome,
        };
        debug!(publish = asked.number, sender = %Cut(domain), module = %module.name(),
            token = %module.fingerprint(token), "publish");
        match verdict {
            Verdict::Settled(outcome) => {
                if outcome == Outcome::TokenInvalid {
                    warn!(module = module.name(), sender = %Cut(domain),
                        "a publish carries a token that cannot be one for this module's provider: does the app name the \
                        right module?");
                }
                self.published(&asked, outcome_for(outcome), Named::Known(module.name()));
            }
            Verdict::Deliver(ticket) => {
                let (under_way, module) = (UnderWay::new(self), Arc::clone(module));
                self.drain.spawn(async move {
                    let outcome = ticket.deliver().await;
                    under_way
                        .0
                        .published(&asked, outcome_for(outcome), Named::Known(module.name()));
                });
            }
        }
    }

    fn command(self: &Arc<Self>, command: AdHoc<'_>, addresses: Addresses, now: Instant) {
        let terms = self.terms();
        let Some(devices) = &terms.devices else {
            return self.reply(&addresses, &Answer::NoRegistration, now);
        };
        if !command.is_sayable() {
            return self.reply(&addresses, &Answer::BadCharacters, now);
        }
        let commands = devices.commands();
        let Some((node, _)) = commands.into_iter().find(|(node, _)| *node == command.node) else {
            return self.reply(
                &addresses,
                &Answer::CommandFailed(CommandError::UnknownCommand),
                now,
            );
        };
        match command.action {
            Action::Execute => {}
            Action::Cancel => {
                return self.reply(&addresses, &Answer::Payload(service::canceled(node)), now);
            }
            Action::Other => return self.reply(&addresses, &Answer::BadAction, now),
        }
        let (fields, has_other_fields) = match known_fields(command.fields) {
            Ok(known) => known,
            Err(bad) => return self.reply(&addresses, &Answer::CommandFailed(bad.into()), now),
        };
        let sender = canonical_jid(&command.sender).into_owned();
        let kept = [
            addresses.size(),
            sender.len(),
            command.sender.len(),
            command.service.len(),
        ];
        let bytes = kept
            .into_iter()
            .chain(fields.iter().map(|(var, value)| var.len() + value.len()));
        let Some(room) = self.room_for(bytes).filter(|_| addresses.can_be_kept()) else {
            let error = CommandError::Unavailable(Unavailable);
            return self.reply(&addresses, &Answer::CommandFailed(error), now);
        };
        let executing = devices.execute(Command {
            name: node.to_owned(),
            sender,
            written: command.sender,
            service: command.service,
            fields,
            has_other_fields,
        });
        let under_way = UnderWay::new(self);
        self.drain.spawn(async move {
            let answer = match executing.await {
                Ok(completed) => Answer::Payload(service::completed(node, &completed)),
                Err(error) => Answer::CommandFailed(error),
            };
            drop(room);
            under_way.0.reply(&addresses, &answer, now);
        });
    }

    /// disco#info.
    fn describe(&self, node: Option<&str>) -> Answer<'static> {
        let terms = self.terms();
        match (node, &terms.devices) {
            (None, None) => Answer::Payload(service::disco_info(None)),
            (None, Some(devices)) => Answer::Payload(service::disco_info(Some(&devices.features()))),
            (Some(service::COMMANDS), Some(_)) => Answer::Payload(service::command_list_info()),
            (Some(node), Some(devices)) => {
                let command = devices.commands().into_iter().find(|(command, _)| *command == node);
                command.map_or(Answer::UnknownNode, |(node, name)| {
                    Answer::Payload(service::command_info(node, name))
                })
            }
            (Some(_), None) => Answer::UnknownNode,
        }
    }

    /// disco#items.
    fn list(&self, node: Option<&str>) -> Answer<'static> {
        let terms = self.terms();
        match (node, &terms.devices) {
            (Some(service::COMMANDS), Some(devices)) => {
                Answer::Payload(service::command_items(&terms.name, &devices.commands()))
            }
            (Some(_) | None, _) => Answer::Payload(service::disco_items()),
        }
    }

    /// Answers a publish that never came to a module.
    fn settle(&self, arrival: &Arrival<'_>, outcome: Outcome, named: Named<'_>) {
        counter!("fpush_pushes_total", "module" => "", "outcome" => outcome.name()).increment(1);
        debug!(publish = arrival.asked.number, sender = %Cut(arrival.domain), "publish without a module");
        self.published(&arrival.asked, outcome, named);
    }

    /// Answers a publish.
    fn published(&self, asked: &Asked, outcome: Outcome, named: Named<'_>) {
        let answer = Answer::Published(outcome, named);
        debug!(?answer, publish = asked.number, outcome = %outcome.name(), "reply");
        self.durations.record(asked.at.elapsed());
        self.outbox
            .push(asked.at, |out| answer.write(&asked.addresses, out));
    }

    /// Answers everything else.
    fn reply(&self, addresses: &Addresses, answer: &Answer<'_>, arrived: Instant) {
        debug!(?answer, "reply");
        self.outbox.push(arrived, |out| answer.write(addresses, out));
    }
}

impl<'a> Named<'a> {
    /// What a publish says that came to no module.
    fn of(push_module: Option<&str>) -> Self {
        push_module.map_or(Self::Missing, |_| Self::Unknown)
    }
}

/// Of the fields that were sent those that commands read, each once, and whether there are others; an error if one is
/// larger than any that makes sense.
fn known_fields(
    sent: Vec<(Cow<'_, str>, Cow<'_, str>)>,
) -> Result<(Vec<(&'static str, String)>, bool), BadPayload> {
    let (mut fields, mut has_others) = (Vec::<(&str, String)>::new(), false);
    for (var, value) in sent {
        let Some(name) = COMMAND_FIELDS.iter().find(|name| **name == var) else {
            has_others |= var != "FORM_TYPE" && !value.is_empty();
            continue;
        };
        if !fits(&value) {
            return Err(BadPayload::Impossible(name));
        }
        // Of several the first one with a value counts.
        if !value.is_empty() && !fields.iter().any(|(known, _)| known == name) {
            fields.push((name, value.into_owned()));
        }
    }
    Ok((fields, has_others))
}

/// Whether a node, a secret or a field is of a size that makes sense.
fn fits(value: &str) -> bool {
    value.len() <= MAX_VALUE
}

fn complain_of_module(push_module: Option<&str>, domain: &str) {
    let sender = Cut(domain);
    match push_module {
        Some(name) => {
            error!(%sender, "a publish names the push module {}, which is not in the settings: add it back, or correct the name in the app",
                Cut(name));
        }
        None => {
            error!(%sender, "a publish names no push module, and the settings have no default one \
                (is_default_module)");
        }
    }
}

/// Bytes of what may wait for a database at a time.
const MAX_WAITING: usize = 16 * 1_024 * 1_024;
/// Bytes that each takes beside what is counted.
const OVERHEAD: usize = 1_024;
/// Bytes of a node, a secret or a field: the longest tokens have as many.
const MAX_VALUE: usize = 4_096;
