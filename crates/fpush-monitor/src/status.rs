//! What there is to say about the daemon at one moment.

use std::{sync::Arc, time::SystemTime};

use fpush_push::{Ended, LinkMeters, Meters, ModuleStatus, canonical_domain};
use tokio::time::Instant;

use crate::counters::ByModule;

/// The daemon at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// The links to XMPP servers, in the order of the settings.
    pub links: Vec<Link>,
    /// What all links count that have ever been there, by their names.
    pub link_meters: Vec<(String, Arc<LinkMeters>)>,
    /// All push modules, in the order of their names.
    pub modules: Vec<Module>,
    /// What those modules count that are not in the settings any more and still send what they hold, by their names.
    pub retired: Vec<(String, Arc<Meters>)>,
    /// Certificates of the listeners.
    pub certificates: Vec<Certificate>,
    /// Registered devices, where there are any and they are counted.
    pub registered_devices: Option<u64>,
    /// The engine by which instances share what they know, where there is one.
    pub cluster: Option<ClusterStatus>,
    /// Whether the database of registered devices is believed, where there is one.
    pub registry: Option<RegistryStatus>,
    /// Why that database cannot be used now, if that is so.
    pub registry_outage: Option<String>,
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

/// What there is to say about the engine by which instances share what they know.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// Where it is.
    pub engine: String,
    /// Since when it is as it is.
    pub since: Instant,
    /// Whether it can be used.
    pub up: bool,
    /// Why it cannot, in words with what to do.
    pub down: Option<String>,
    /// How many instances use it, this one included.
    pub instances: u64,
    /// What is wrong with how it is set up, in words with what to do.
    pub concerns: Vec<String>,
    /// Held pushes that wait there for an instance of the version that wrote them.
    pub unread: u64,
    /// Requests of pushes by what became of them.
    pub requests: Vec<(&'static str, u64)>,
}

impl Status {
    /// Whether another link with the same address of ours is up.
    pub(crate) fn has_stand_in(&self, link: &Link) -> bool {
        let address = canonical_domain(&link.component);
        let is_up = |other: &Link| canonical_domain(&other.component) == address && other.down.is_none();
        self.links.iter().any(is_up)
    }

    /// Each link that is down: what it is called where several are shown, and why.
    pub(crate) fn links_down(&self) -> impl Iterator<Item = (&Link, String, &str)> {
        let about = |link: &Link| match self.links.len() {
            1 => "link".to_owned(),
            _ => format!("link {}", link.name),
        };
        self.links
            .iter()
            .filter_map(move |link| Some((link, about(link), link.down.as_deref()?)))
    }
}

/// What there is to say about the database of registered devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryStatus {
    /// It is the one that it was, or cannot be asked yet.
    Good,
    /// Not all devices are in memory yet: the database is asked for each until then.
    Loading,
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

/// A link to an XMPP server.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its name.
    pub name: String,
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
