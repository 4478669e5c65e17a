//! What there is to say about the daemon at one moment.

use std::{sync::Arc, time::SystemTime};

use fpush_push::{Ended, Meters, ModuleStatus};
use tokio::time::Instant;

use crate::counters::ByModule;

/// The daemon at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// The link to the XMPP server.
    pub link: Link,
    /// All push modules, in the order of their names.
    pub modules: Vec<Module>,
    /// What those modules count that are not in the settings any more and still send what they hold, by their names.
    pub retired: Vec<(String, Arc<Meters>)>,
    /// Certificates of the listeners.
    pub certificates: Vec<Certificate>,
    /// Registered devices, where there are any and they are counted.
    pub registered_devices: Option<u64>,
    /// Whether the database of registered devices is believed, where there is one.
    pub registry: Option<RegistryStatus>,
    /// Registrations that have ended since the database was opened, where there is one.
    pub ended: Option<Ended>,
    /// The last reload of the settings, if there was one.
    pub reload: Option<Reload>,
    /// Why nothing can be written to the state directory, if that is so: in words, with what to do.
    pub state_trouble: Option<String>,
    /// The domains that sent most publishes lately, and how many: most first, twenty at most. `None` if they are not to be shown.
    pub senders: Option<Vec<(String, u64)>>,
    /// The last problems, the latest first, fifty at most.
    pub problems: Vec<Problem>,
}

impl Status {
    /// What all modules count; of several with one name the one in the settings.
    pub(crate) fn meters(&self) -> ByModule<'_> {
        let mut all: ByModule<'_> = self
            .retired
            .iter()
            .map(|(name, meters)| (&**name, &**meters))
            .collect();
        all.extend(
            self.modules
                .iter()
                .map(|Module { status, .. }| (&*status.name, &*status.meters)),
        );
        all
    }
}

/// What there is to say about the database of registered devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryStatus {
    /// It is the one that it was, or cannot be asked yet.
    Good,
    /// No device has registered yet.
    New,
    /// It is not what it was: in words, with what to do.
    Doubted(String),
}

/// A push module at one moment.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its type in the settings: `apple`, `google`, `demo`.
    pub module_type: &'static str,
    /// What it says of itself.
    pub status: ModuleStatus,
}

/// The link to the XMPP server.
#[derive(Clone, Debug)]
pub struct Link {
    /// Our address there.
    pub component: String,
    /// The server, as `host:port`.
    pub server: String,
    /// Since when it is as it is.
    pub since: Instant,
    /// Why it is down, in words with what to do; `None` if it is up.
    pub down: Option<String>,
}

/// A certificate of ours, and when it ends.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// What it is for, such as `registration.http`.
    pub name: String,
    /// The end of its validity.
    pub expires: SystemTime,
}

/// The outcome of a reload.
#[derive(Clone, Debug)]
pub struct Reload {
    /// When.
    pub at: SystemTime,
    /// Why it was refused; `None` if the new settings are in force.
    pub refused: Option<String>,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Somebody has to act.
    Error,
    /// It may pass by itself.
    Warning,
}

/// Something that went wrong, once or many times.
#[derive(Clone, Debug)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The part of the program, or the push module, that it is about.
    pub about: String,
    /// What went wrong and what to do, as in the log.
    pub text: String,
    /// When it was first and last seen.
    pub first: SystemTime,
    /// The last time.
    pub last: SystemTime,
    /// How often it was seen.
    pub count: u64,
}
