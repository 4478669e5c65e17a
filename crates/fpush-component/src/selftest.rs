//! Two commands (XEP-0050) with which every user finds out why a phone stays silent: `test-push` sends one push that can be
//! seen, `push-status` says what became of all the others.

mod forms;
mod own;
mod sessions;

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use fpush_driver::{Drain, Module, Modules, NotSent, Senders, TokenRole, Words};
use fpush_policy::Sender;
use fpush_push::{
    BadPayload, Choice, Class, CommandError, Devices, Fingerprint, Found, Lookup, Outcome, Recipient,
    Registered, Request as PushRequest, Scope, Unavailable, Urgency, sync::lock,
};
use tokio::time::Instant;
use uuid::Uuid;

use self::{
    own::Own,
    sessions::{NoSession, Sessions},
};
use crate::{
    command::{Action, AdHoc, Step},
    meters::ComponentMeters,
    outbox::PendingReply,
    reply::Reply,
    turns::{Turn, Turns},
};

/// Which of the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trial {
    Push,
    Status,
}

/// Where a command comes from, and what it may ask.
pub(crate) struct Visit {
    /// The domain of its sender.
    pub(crate) domain: String,
    /// The push modules that may be used there.
    pub(crate) scope: Arc<Scope>,
    pub(crate) devices: Option<Arc<dyn Devices>>,
}

/// Has these commands done.
pub(crate) struct Selftest {
    modules: Arc<Modules>,
    senders: Senders,
    drain: Drain,
    meters: Arc<ComponentMeters>,
    sessions: Mutex<Sessions>,
    /// At the database.
    turns: Arc<Turns>,
}

/// What a command wants, and the session of its answer: that of the form, by which clients know to what it belongs, or a new one.
struct Work {
    session: String,
    what: What,
}

enum What {
    /// The form.
    Ask,
    Push(Wanted),
    Status,
}

/// The device that a push is for.
enum Wanted {
    /// One of the sender's own, by its mark.
    Own(String),
    Node {
        node: String,
        secret: Option<String>,
    },
    Token {
        module: Option<String>,
        token: String,
    },
}

/// Who gets a push.
enum To {
    Device(Box<Recipient>),
    Token(String),
}

impl Trial {
    pub(crate) const ALL: [Self; 2] = [Self::Push, Self::Status];

    /// The command of this node.
    pub(crate) fn of(node: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|trial| trial.name() == node)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Push => "test-push",
            Self::Status => "push-status",
        }
    }

    /// For persons.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Push => "Send a test push",
            Self::Status => "Show what became of my pushes",
        }
    }
}

impl Selftest {
    pub(crate) fn new(
        modules: &Arc<Modules>,
        senders: &Senders,
        drain: &Drain,
        meters: &Arc<ComponentMeters>,
        turns: &Arc<Turns>,
    ) -> Arc<Self> {
        Arc::new(Self {
            modules: Arc::clone(modules),
            senders: senders.clone(),
            drain: drain.clone(),
            meters: Arc::clone(meters),
            sessions: Mutex::new(Sessions::new()),
            turns: Arc::clone(turns),
        })
    }

    /// Has a command done. Never waits.
    pub(crate) fn serve(
        self: &Arc<Self>,
        trial: Trial,
        command: AdHoc<'_>,
        visit: Visit,
        pending: PendingReply,
    ) {
        let domain = self.senders.domain(&visit.domain);
        let step = match command.into_step() {
            Ok(step) => step,
            Err(reply) => return pending.send(&reply),
        };
        // Users of a domain have turns of their own.
        let sender = Sender {
            name: self.senders.hasher().domain(&step.sender),
            ..domain.sender()
        };
        let work = match self.begin(trial, &step, &sender) {
            Ok(work) => work,
            Err(reply) => return pending.send(&reply),
        };
        let place = self.turns.enter(sender, step.size() + pending.size());
        let Some(place) = place.filter(|_| pending.can_be_kept()) else {
            return pending.send(&Reply::CommandFailed(CommandError::Unavailable(Unavailable)));
        };
        let selftest = Arc::clone(self);
        self.drain.spawn(async move {
            let reply = match place.turn().await {
                Some(turn) => selftest.work(work, &visit, &step.sender, turn).await,
                None => Reply::CommandFailed(CommandError::Unavailable(Unavailable)),
            };
            pending.send(&reply);
        });
    }

    /// What a command wants now; or the reply, if that is all.
    fn begin(&self, trial: Trial, step: &Step, sender: &Sender<Fingerprint>) -> Result<Work, Reply<'static>> {
        let (hasher, now) = (self.senders.hasher(), Instant::now());
        let Step {
            action,
            session,
            from,
            sender: _,
            fields,
        } = step;
        let owner = hasher.domain(from);
        let mut sessions = lock(&self.sessions);
        if !sessions.admit(sender.name, sender, now) {
            return Err(Reply::TooOften);
        }
        let id = session.as_deref().map(|session| hasher.domain(session));
        if let Some(id) = id {
            sessions.look(id, owner, trial, now).map_err(|why| match why {
                NoSession::Unknown => Reply::BadSession,
                NoSession::Expired => Reply::SessionExpired,
            })?;
        }
        let what = match (action, trial) {
            (Action::Previous, _) => return Err(Reply::BadAction),
            (Action::Unknown, _) => return Err(Reply::MalformedAction),
            (Action::Cancel, _) => {
                if let Some(id) = id {
                    sessions.end(id);
                }
                return Err(Reply::Xml(forms::canceled(trial, session.as_deref())));
            }
            (Action::Execute, Trial::Status) => What::Status,
            (Action::Execute, Trial::Push) => match Wanted::read(fields) {
                Ok(Some(wanted)) => What::Push(wanted),
                Ok(None) if session.is_none() => {
                    let session = Uuid::new_v4().to_string();
                    sessions.begin(hasher.domain(&session), owner, trial, now);
                    let what = What::Ask;
                    return Ok(Work { session, what });
                }
                Ok(None) => return Err(Reply::CommandFailed(BadPayload::NoDevice.into())),
                Err(why) => return Err(Reply::CommandFailed(why.into())),
            },
        };
        if let Some(id) = id {
            sessions.end(id);
        }
        let session = session.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
        Ok(Work { session, what })
    }

    async fn work(&self, work: Work, visit: &Visit, user: &str, turn: Turn) -> Reply<'static> {
        let Work { session, what } = work;
        let xml = match what {
            What::Ask => {
                // Without its own devices a sender can name others.
                let own = self.own(visit, user).await.unwrap_or_default();
                forms::ask(&session, &own)
            }
            What::Push(wanted) => {
                let recipient = self.recipient(wanted, visit, user).await;
                drop(turn);
                let (module, result, refused_for) = match recipient {
                    Ok((module, to)) => {
                        let result = self.push(&module, &to, &visit.domain).await;
                        let refused_for = last_reason(&module, &to);
                        (Some(module), result, refused_for)
                    }
                    Err(outcome) => (None, Err(NotSent::Answered(outcome)), None),
                };
                let (name, mut words) = (module.as_ref().map(|module| module.name()), Words::of(&result));
                // Without it nobody knows whether the app was removed or the module is a wrong one.
                if let Err(NotSent::Answered(Outcome::TokenBlocked | Outcome::TokenDead)) = result {
                    words.reason = refused_for;
                }
                forms::tested(&session, name, &words)
            }
            What::Status => {
                let own = self.own(visit, user).await;
                let (answers, now) = (&self.meters.answers, Instant::now());
                let domain = self.senders.hasher().domain(&visit.domain);
                let answered = (answers.of(domain, now), answers.counted_for(now));
                forms::status(&session, &answered, &own)
            }
        };
        Reply::Xml(xml)
    }

    /// The devices of a user.
    async fn own(&self, visit: &Visit, user: &str) -> Result<Vec<Own>, Unavailable> {
        let Some(devices) = &visit.devices else {
            return Ok(Vec::new());
        };
        let own = devices.owned(user).await?.into_iter();
        let (modules, hasher) = (&self.modules, self.senders.hasher());
        Ok(own
            .filter_map(|device| Own::new(device, modules, hasher, &visit.scope))
            .collect())
    }

    /// Who is meant, and the push module. What somebody else has registered is not told from what nobody has.
    async fn recipient(
        &self,
        wanted: Wanted,
        visit: &Visit,
        user: &str,
    ) -> Result<(Arc<Module>, To), Outcome> {
        let found = match wanted {
            Wanted::Token { module, token } => {
                let resolved = self.modules.resolve(&token, module.as_deref(), &visit.scope);
                let module = resolved.ok_or(Outcome::UnknownModule)?.module;
                return Ok((module, To::Token(token)));
            }
            Wanted::Own(mark) => {
                let own = self.own(visit, user).await;
                let mut own = own.map_err(|_| Outcome::RegistryUnavailable)?.into_iter();
                let own = own.find(|own| own.mark == mark).ok_or(Outcome::UnknownDevice)?;
                own.recipient
            }
            Wanted::Node { node, secret } => {
                let devices = visit.devices.as_ref().ok_or(Outcome::UnknownDevice)?;
                let found = match devices.find(&node, secret.as_deref(), &visit.domain) {
                    Lookup::Settled(found) => Ok(found),
                    Lookup::Asking(asking) => asking.await,
                };
                match found {
                    Ok(Found::Device(recipient)) => recipient,
                    Ok(Found::Ended) => return Err(Outcome::NotRegistered),
                    Ok(
                        Found::WrongSecret
                        | Found::Reserved
                        | Found::Unsure
                        | Found::Foreign
                        | Found::Nothing,
                    ) => {
                        return Err(Outcome::UnknownDevice);
                    }
                    Err(Unavailable) => return Err(Outcome::RegistryUnavailable),
                }
            }
        };
        let module = self.modules.named(&found.module);
        let module = module.filter(|module| visit.scope.allows(module.name()));
        Ok((module.ok_or(Outcome::UnknownModule)?, To::Device(Box::new(found))))
    }

    async fn push(&self, module: &Arc<Module>, to: &To, domain: &str) -> Result<Class, NotSent> {
        let (token, registered) = match to {
            To::Token(token) => (token.as_str(), None),
            To::Device(recipient) => {
                let registered = Registered {
                    recipient,
                    encrypted: None,
                };
                (recipient.token.as_str(), Some(registered))
            }
        };
        let request = PushRequest {
            token,
            choice: Choice::Named,
            urgency: Urgency::High,
            count: None,
            domain,
            registered,
        };
        module.test(request, Instant::now()).await
    }
}

/// For what the provider refused the last push to a device, as far as that is remembered.
fn last_reason(module: &Module, to: &To) -> Option<&'static str> {
    let token = match to {
        To::Token(token) => token.as_str(),
        To::Device(recipient) => recipient.token.as_str(),
    };
    let view = module.inspect(token, TokenRole::First, None, Instant::now(), SystemTime::now());
    view?.last?.reason
}

impl Wanted {
    /// The one device that a form names; `None` if it has no field with a value.
    fn read(fields: &[(&'static str, String)]) -> Result<Option<Self>, BadPayload> {
        let value = |name: &str| {
            let mut fields = fields.iter();
            fields
                .find(|(field, _)| *field == name)
                .map(|(_, value)| value.clone())
        };
        let [device, node, token] = ["device", "node", "token"].map(value);
        let [secret, module] = ["secret", "pushModule"].map(value);
        match (device, node, token) {
            (None, None, None) if secret.is_some() => Err(BadPayload::Missing("node")),
            (None, None, None) if module.is_some() => Err(BadPayload::Missing("token")),
            (None, None, None) => Ok(None),
            (Some(mark), None, None) => Ok(Some(Self::Own(mark))),
            (None, Some(node), None) => Ok(Some(Self::Node { node, secret })),
            (None, None, Some(token)) => Ok(Some(Self::Token { module, token })),
            (_, _, _) => Err(BadPayload::NoDevice),
        }
    }
}

impl fmt::Debug for Selftest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Selftest")
    }
}
