//! Of a build without registered devices.

use std::{convert::Infallible, net::SocketAddr, path::Path, sync::Arc};

use fpush_driver::{Drain, Modules};
use fpush_http::{Handle, Security};
use fpush_monitor::RegistryStatus;
use fpush_push::{
    Devices,
    settings::{Problem, Section},
};
use serde::{Deserialize, Serialize};

/// Nothing is.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum KnownChange {}

pub(crate) fn version(known: &KnownChange) -> Vec<u64> {
    match *known {}
}

/// There are none.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RegistrationSettings(Infallible);

pub(crate) fn facts(settings: &RegistrationSettings) -> Vec<(&'static str, String)> {
    match settings.0 {}
}

pub(crate) fn security(settings: &mut RegistrationSettings) -> Option<&mut Security> {
    match settings.0 {}
}

pub(crate) fn listen(settings: &RegistrationSettings) -> Option<SocketAddr> {
    match settings.0 {}
}

pub(crate) fn database_file(settings: &RegistrationSettings) -> Option<&Path> {
    match settings.0 {}
}

#[expect(clippy::unused_async, reason = "as the other one")]
pub(crate) async fn probe(
    settings: &RegistrationSettings,
    _connect: bool,
    _known: Option<&KnownChange>,
    _is_running: bool,
) -> Vec<Problem> {
    match settings.0 {}
}

/// There is nothing to find.
#[derive(Clone, Default)]
pub(crate) struct Lookup {}

impl Lookup {
    pub(crate) fn set(&self, registration: Option<(&RegistrationSettings, &Registering)>) {
        if let Some((settings, _)) = registration {
            match settings.0 {}
        }
    }

    #[expect(clippy::unused_async, reason = "as the other one")]
    pub(crate) async fn by_node(&self, _node: &str) -> super::Looked {
        super::Looked::NoRegistration
    }

    #[expect(clippy::unused_async, reason = "as the other one")]
    pub(crate) async fn by_token(&self, _token: &str, _spelling: &str) -> super::Looked {
        super::Looked::NoRegistration
    }
}

/// Nothing runs.
pub(crate) struct Registering(Infallible);

/// Nor is anything replaced.
pub(crate) enum Running {}

pub(crate) fn read(
    section: Section<'_>,
    _modules: &[&str],
    _components: &[&str],
) -> Option<RegistrationSettings> {
    section.error(
        "",
        "this fpush was built without registration; build it with the Cargo feature enable_registration",
    );
    None
}

#[expect(clippy::unused_async, reason = "as the other one")]
pub(crate) async fn start(
    settings: RegistrationSettings,
    _modules: &Arc<Modules>,
    _drain: &Drain,
    _old: Option<Running>,
    _known: Option<KnownChange>,
) -> anyhow::Result<(Arc<dyn Devices>, Registering)> {
    match settings.0 {}
}

impl Registering {
    pub(crate) fn running(&self) -> Running {
        match self.0 {}
    }

    pub(crate) fn listener(&self) -> Option<Handle> {
        match self.0 {}
    }

    pub(crate) fn devices(&self) -> Option<u64> {
        match self.0 {}
    }

    pub(crate) fn known(&self) -> Option<KnownChange> {
        match self.0 {}
    }

    pub(crate) fn status(&self) -> RegistryStatus {
        match self.0 {}
    }

    pub(crate) fn outage(&self) -> Option<String> {
        match self.0 {}
    }

    pub(crate) fn ended(&self) -> fpush_push::Ended {
        match self.0 {}
    }

    #[expect(clippy::unused_async, reason = "as the other one")]
    pub(crate) async fn close(self) {
        match self.0 {}
    }
}
