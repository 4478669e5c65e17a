//! What is written down of a run: the time, the trace, what is true of devices and providers, and what was promised.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use crate::{
    device::Device, ledger::Ledger, log::say, notifications::Notifications, provider::App, random::Random,
    registry::Registrations,
};

/// Milliseconds since the world began, which no crash and no wall clock changes.
pub(crate) type Millis = u64;

pub(crate) const SECOND: Millis = 1_000;
pub(crate) const HOUR: Millis = 3_600 * SECOND;

#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Books>>);

pub(crate) struct Books {
    /// For everybody but the steps.
    pub(crate) random: Random,
    pub(crate) trace: Trace,
    pub(crate) apps: Vec<App>,
    pub(crate) devices: Vec<Device>,
    pub(crate) registrations: Registrations,
    pub(crate) ledger: Ledger,
    pub(crate) notifications: Notifications,
    /// Tokens that were called dead or wrong when something was published for them.
    pub(crate) rejected: BTreeSet<String>,
    /// Since when the settings are right, if they are.
    pub(crate) right_since: Option<Millis>,
    /// When a module had another backend, last.
    pub(crate) replaced_at: Option<Millis>,
    /// Pushes that a module may have at its provider.
    pub(crate) permits: usize,
    /// How often the tasks are asked whether they are well.
    pub(crate) asks_every: Millis,
    /// What is wrong first.
    pub(crate) failure: Option<String>,
    pub(crate) counts: Counts,
    /// When the run of the daemon began, on its clock and on the world's.
    began: Option<(Instant, Millis)>,
    stopped: Millis,
}

/// What was done, because virtual time does not see what that costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) stanzas: u64,
    pub(crate) replies: u64,
    pub(crate) attempts: u64,
    pub(crate) accepted: u64,
}

#[derive(Default)]
pub(crate) struct Trace {
    told: bool,
    hash: DefaultHasher,
}

impl Shared {
    pub(crate) fn new(random: Random, told: bool) -> Self {
        Self(Arc::new(Mutex::new(Books {
            random,
            trace: Trace {
                told,
                hash: DefaultHasher::new(),
            },
            apps: Vec::new(),
            devices: Vec::new(),
            registrations: Registrations::default(),
            ledger: Ledger::default(),
            notifications: Notifications::default(),
            rejected: BTreeSet::new(),
            right_since: Some(0),
            replaced_at: None,
            permits: 0,
            asks_every: SECOND,
            failure: None,
            counts: Counts::default(),
            began: None,
            stopped: 0,
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    pub(crate) fn now(&self) -> Millis {
        match self.began {
            Some((instant, millis)) => millis + instant.elapsed().as_millis() as Millis,
            None => self.stopped,
        }
    }

    /// When the daemon began; never, if it does not run.
    pub(crate) fn began_at(&self) -> Millis {
        self.began.map_or(Millis::MAX / 2, |(_, millis)| millis)
    }

    /// To be called on a new runtime.
    pub(crate) fn begin(&mut self) {
        self.began = Some((Instant::now(), self.stopped));
    }

    /// To be called on a runtime that ends.
    pub(crate) fn stop(&mut self) {
        self.stopped = self.now();
        self.began = None;
    }

    pub(crate) fn tell(&mut self, what: &str) {
        let now = self.now();
        self.trace.line(now, what);
    }

    /// Something is not as it must be.
    pub(crate) fn fail(&mut self, what: String) {
        self.tell(&format!("FAILURE: {what}"));
        self.failure.get_or_insert(what);
    }

    /// The devices with a token.
    pub(crate) fn with_token(&self, app: usize, token: usize) -> Vec<usize> {
        let devices = self.devices.iter().enumerate();
        devices
            .filter(|(_, device)| (device.app, device.token) == (app, token))
            .map(|(number, _)| number)
            .collect()
    }

    /// Whether a device is there and wants its pushes.
    pub(crate) fn is_alive(&self, device: usize) -> bool {
        let Device { app, token, .. } = self.devices[device];
        self.apps[app].tokens[token].gone.is_none()
            && self.devices[device]
                .node()
                .is_none_or(|node| self.registrations.wants_pushes(node))
    }
}

impl Trace {
    fn line(&mut self, now: Millis, what: &str) {
        (now, what).hash(&mut self.hash);
        if self.told {
            say(format_args!("{:>9}.{:03} s: {what}", now / SECOND, now % SECOND));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.finish()
    }
}
