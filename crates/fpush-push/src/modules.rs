//! From what a publish names to the module and the token that it means.

use std::{collections::HashMap, sync::Arc};

use crate::Module;

/// All push modules by name.
#[derive(Debug, Default)]
pub struct Modules {
    by_name: HashMap<Box<str>, Arc<Module>>,
    default: Option<Arc<Module>>,
}

/// Where a publish goes.
#[derive(Debug)]
pub struct Resolved<'a> {
    /// The module.
    pub module: &'a Arc<Module>,
    /// The token, from the node.
    pub token: &'a str,
    /// Whether the publish named the module, or it was only the default one.
    pub named: bool,
}

impl Modules {
    /// The modules, and which of them is meant when a publish names none.
    #[must_use]
    pub fn new(modules: Vec<Arc<Module>>, default: Option<Arc<Module>>) -> Self {
        let by_name = modules
            .into_iter()
            .map(|module| (module.name().into(), module))
            .collect();
        Self { by_name, default }
    }

    /// Finds the module for a publish by the `pushModule` of its options; an empty one counts as none, and
    /// `default` means the default module unless a module has that very name. The node is the token.
    #[must_use]
    pub fn resolve<'a>(&'a self, node: &'a str, push_module: Option<&str>) -> Option<Resolved<'a>> {
        let named = push_module.filter(|name| !name.is_empty());
        let module = match named {
            Some(name) => self
                .by_name
                .get(name)
                .or_else(|| self.default.as_ref().filter(|_| name == "default")),
            None => self.default.as_ref(),
        };
        Some(Resolved {
            module: module?,
            token: node,
            named: named.is_some_and(|name| name != "default"),
        })
    }

    /// Every module, once.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Module>> {
        self.by_name.values()
    }
}
