//! Which push modules somebody may use.

use std::collections::BTreeSet;

/// Which push modules may be used by what comes over a link, and which one is meant where none is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    modules: Option<BTreeSet<String>>,
    default: Option<String>,
}

impl Scope {
    /// These modules, and no others; all, if there is no such set. `default` takes the place of the default module of all.
    #[must_use]
    pub fn new(modules: Option<BTreeSet<String>>, default: Option<String>) -> Self {
        Self { modules, default }
    }

    /// Whether a module may be used.
    #[must_use]
    pub fn allows(&self, module: &str) -> bool {
        self.modules
            .as_ref()
            .is_none_or(|modules| modules.contains(module))
    }

    /// The modules that may be used; `None` if that is all of them.
    #[must_use]
    pub fn modules(&self) -> Option<&BTreeSet<String>> {
        self.modules.as_ref()
    }

    /// The default module, if it is another one than that of all.
    #[must_use]
    pub fn default_module(&self) -> Option<&str> {
        self.default.as_deref()
    }
}
