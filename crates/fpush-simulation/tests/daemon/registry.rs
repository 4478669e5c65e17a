//! A registry that does what the real one promises to the component, and has a database that may be slow, away or another
//! one. What is decided inside of the real one has a simulation of its own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fpush_push::{
    Command, CommandError, Completed, Devices, Ending, Executing, Found, LaneId, Lookup, Recipient, Record,
    Token, Unavailable, Value, Wording,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::books::{Books, Millis, SECOND, Shared};

/// How the database is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Health {
    #[default]
    Fine,
    Slow,
    Away,
    /// It is another one, without a past.
    Another,
}

#[derive(Default)]
pub(crate) struct Registrations {
    by_node: BTreeMap<String, Registration>,
    pub(crate) health: Health,
    /// Since when the database is the right one and answers, if it does.
    pub(crate) well_since: Option<Millis>,
    /// By how much the clock of the machine is wrong.
    pub(crate) jumped: i64,
    /// When the database is done with what was asked so far.
    free: Millis,
}

#[derive(Clone)]
pub(crate) struct Registration {
    pub(crate) module: &'static str,
    pub(crate) token: String,
    pub(crate) secret: String,
    pub(crate) account: Option<String>,
    pub(crate) changed: Millis,
    pub(crate) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    There,
    /// A provider's word ended it.
    Ended,
    /// Its owner has unregistered.
    Left,
}

impl Registrations {
    pub(crate) fn add(&mut self, node: &str, registration: Registration) {
        self.by_node.insert(node.to_owned(), registration);
    }

    /// Whether its app has not unregistered it.
    pub(crate) fn wants_pushes(&self, node: &str) -> bool {
        self.by_node
            .get(node)
            .is_some_and(|registration| registration.state != State::Left)
    }

    /// Whether nothing has ended it.
    pub(crate) fn is_there(&self, node: &str) -> bool {
        self.by_node
            .get(node)
            .is_some_and(|registration| registration.state == State::There)
    }

    pub(crate) fn set_health(&mut self, health: Health, now: Millis) {
        self.health = health;
        match health {
            Health::Fine | Health::Slow => self.well_since = self.well_since.or(Some(now)),
            Health::Away | Health::Another => self.well_since = None,
        }
    }

    pub(crate) fn of(&mut self, node: &str) -> Option<&mut Registration> {
        self.by_node.get_mut(node)
    }

    /// Milliseconds since 1970.
    pub(crate) fn true_wall(&self, now: Millis) -> u64 {
        BEGINNING + now
    }

    /// What the machine takes for that.
    pub(crate) fn wall(&self, now: Millis) -> u64 {
        self.true_wall(now).saturating_add_signed(self.jumped)
    }
}

/// When worlds begin.
const BEGINNING: u64 = 20_000 * 86_400 * SECOND;

#[derive(Clone)]
pub(crate) struct Registry(pub(crate) Shared);

impl Registry {
    /// When the database has answered one more question; `None` if it does not.
    fn question(&self) -> Option<Instant> {
        let mut books = self.0.lock();
        let now = books.now();
        let Books {
            registrations,
            random,
            ..
        } = &mut *books;
        let cost = match registrations.health {
            Health::Fine | Health::Another => random.between(1, 3),
            Health::Slow => random.between(5, 25),
            Health::Away => return None,
        };
        registrations.free = registrations.free.max(now) + cost;
        Some(Instant::now() + Duration::from_millis(registrations.free - now))
    }

    async fn asked(&self) -> Result<(), Unavailable> {
        match self.question() {
            Some(at) => {
                sleep_until(at).await;
                Ok(())
            }
            None => {
                sleep(PATIENCE).await;
                Err(Unavailable)
            }
        }
    }

    fn look(&self, node: &str, secret: Option<&str>) -> Found {
        let books = self.0.lock();
        let registrations = &books.registrations;
        let registration = registrations.by_node.get(node);
        let Some(registration) = registration.filter(|_| registrations.health != Health::Another) else {
            return Found::Nothing;
        };
        match registration.state {
            State::Ended | State::Left if secret.is_some() => return Found::Ended,
            State::Ended | State::Left => return Found::Nothing,
            State::There => {}
        }
        if secret != Some(&*registration.secret) {
            return Found::WrongSecret;
        }
        Found::Device(Recipient {
            node: node.into(),
            module: registration.module.into(),
            token: Token::new(&registration.token),
            voip_token: None,
            account: registration.account.as_deref().map(Arc::from),
            channel: None,
            spacing: Duration::from_millis(books.ledger.spacing),
            home: LaneId::Main,
            record: Arc::new(Known {
                registry: self.clone(),
                node: node.to_owned(),
                changed: registration.changed,
            }),
        })
    }
}

impl Devices for Registry {
    fn find(&self, node: &str, secret: Option<&str>, _sender: &str) -> Lookup {
        let is_cached = {
            let mut books = self.0.lock();
            books.registrations.health == Health::Fine && books.random.one_in(2)
        };
        if is_cached {
            return Lookup::Settled(self.look(node, secret));
        }
        let (registry, node, secret) = (self.clone(), node.to_owned(), secret.map(str::to_owned));
        Lookup::Asking(Box::pin(async move {
            registry.asked().await?;
            Ok(registry.look(&node, secret.as_deref()))
        }))
    }

    fn commands(&self) -> Vec<(&'static str, &'static str)> {
        vec![(REGISTER, "Register")]
    }

    fn features(&self, _scope: &fpush_push::Scope) -> Vec<String> {
        Vec::new()
    }

    fn execute(&self, command: Command) -> Result<Executing, CommandError> {
        let registry = self.clone();
        Ok(Box::pin(async move {
            registry.asked().await?;
            let field = |wanted| {
                let mut fields = command.fields.iter();
                fields
                    .find(|(name, _)| *name == wanted)
                    .map(|(_, value)| value.clone())
            };
            let (Some(node), Some(token), Some(secret)) = (field("node"), field("token"), field("secret"))
            else {
                return Err(CommandError::NotFound);
            };
            let mut books = registry.0.lock();
            let changed = books.registrations.true_wall(books.now());
            let registration = Registration {
                module: "apple",
                token,
                secret,
                account: None,
                changed,
                state: State::There,
            };
            books
                .registrations
                .by_node
                .entry(node.clone())
                .or_insert(registration);
            Ok(Completed {
                wording: Wording::Standard,
                values: vec![("node", Value::Text(node))],
            })
        }))
    }
}

/// A device as it was when it was found.
struct Known {
    registry: Registry,
    node: String,
    changed: Millis,
}

impl Record for Known {
    fn delivered(&self, _lane: LaneId) {}

    fn failed(&self) {}

    fn gone(&self, since: Option<u64>) -> Ending {
        let (registry, node) = (self.registry.clone(), self.node.clone());
        let before = since.unwrap_or(self.changed + 1);
        Box::pin(async move {
            registry.asked().await?;
            let mut books = registry.0.lock();
            if books.registrations.health == Health::Another {
                return Err(Unavailable);
            }
            let Some(registration) = books.registrations.by_node.get_mut(&node) else {
                return Ok(false);
            };
            let is_over = registration.changed < before;
            if is_over && registration.state == State::There {
                registration.state = State::Ended;
                let token = registration.token.clone();
                books.tell(&format!("{node} is ended"));
                if !books.rejected.contains(&token) {
                    books.fail(format!(
                        "{node} is ended, and nobody has said anything against its token"
                    ));
                }
            }
            Ok(is_over)
        })
    }
}

pub(crate) const REGISTER: &str = "register";
/// For a database that is away.
const PATIENCE: Duration = Duration::from_secs(5);
