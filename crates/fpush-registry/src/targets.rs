//! From what clients call a kind of push to the push module that sends it.

use std::{collections::BTreeMap, sync::Arc};

use fpush_push::Scope;

use crate::device::Dialect;

/// The push modules of the push types and of the provider ids.
pub(crate) struct Targets {
    types: BTreeMap<String, String>,
    providers: BTreeMap<String, String>,
}

impl Targets {
    pub(crate) fn new(types: BTreeMap<String, String>, providers: BTreeMap<String, String>) -> Self {
        Self { types, providers }
    }

    /// The push module of a push type or provider id, if the settings have one.
    pub(crate) fn module(&self, dialect: Dialect, kind: &str) -> Option<&str> {
        let modules = match dialect {
            Dialect::Seed | Dialect::P2 => &self.types,
            Dialect::Tigase => &self.providers,
        };
        modules.get(kind).map(String::as_str)
    }

    /// The push module for devices of a kind. If the settings have lost the kind it is a module that does not exist:
    /// such pushes must be answered as ones for an unknown module, because the device lives.
    pub(crate) fn of(&self, dialect: Dialect, kind: &str) -> Arc<str> {
        let key = match dialect {
            Dialect::Seed | Dialect::P2 => "types",
            Dialect::Tigase => "providers",
        };
        match self.module(dialect, kind) {
            Some(module) => module.into(),
            None => format!("registration.{key}.{kind}").into(),
        }
    }

    /// The push types, each with its push module.
    pub(crate) fn types(&self) -> impl Iterator<Item = (&str, &str)> {
        self.types
            .iter()
            .map(|(kind, module)| (kind.as_str(), module.as_str()))
    }

    /// The provider ids whose push modules may be used.
    pub(crate) fn providers<'a>(&'a self, scope: &'a Scope) -> impl Iterator<Item = &'a str> {
        let providers = self.providers.iter();
        let providers = providers.filter(|(_, module)| scope.allows(module));
        providers.map(|(provider, _)| provider.as_str())
    }
}

impl Targets {
    /// Whether there are push types.
    pub(crate) fn has_types(&self) -> bool {
        !self.types.is_empty()
    }

    /// Whether there are provider ids.
    pub(crate) fn has_providers(&self) -> bool {
        !self.providers.is_empty()
    }
}
