//! From what a publish names to the module and the token that it means.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock, RwLockReadGuard},
};

use fpush_push::{
    Choice, Scope,
    sync::{read, write},
};

use crate::Module;

/// All push modules by name. They may become others while the daemon runs.
#[derive(Debug, Default)]
pub struct Modules {
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_name: HashMap<Box<str>, Arc<Module>>,
    default: Option<Arc<Module>>,
}

/// Where a publish goes.
pub struct Resolved<'a> {
    /// The module.
    pub module: Arc<Module>,
    /// The token, from the node.
    pub token: &'a str,
    /// How the module was found.
    pub choice: Choice,
}

impl Modules {
    /// The modules, and which of them is meant when a publish names none.
    #[must_use]
    pub fn new(modules: Vec<Arc<Module>>, default: Option<Arc<Module>>) -> Self {
        let all = Self::default();
        all.set(modules, default);
        all
    }

    /// From now on it is these modules that publishes may mean.
    pub fn set(&self, modules: Vec<Arc<Module>>, default: Option<Arc<Module>>) {
        let by_name = modules
            .into_iter()
            .map(|module| (module.name().into(), module))
            .collect();
        *write(&self.table) = Table { by_name, default };
    }

    /// All modules, in the order of their names.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Module>> {
        let mut all: Vec<_> = self.read().by_name.values().cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// The module of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Module>> {
        self.read().by_name.get(name).cloned()
    }

    /// Whether a publish with this node that names no module would be one for a token of the default module.
    #[must_use]
    pub fn take_for_token(&self, node: &str, scope: &Scope) -> bool {
        let default = self.read().default(scope).cloned();
        default.is_some_and(|module| module.knows_form_of(node))
    }

    /// Whether some module would take a node for a token.
    #[must_use]
    pub fn look_like_tokens(&self, node: &str) -> bool {
        self.all().iter().any(|module| module.knows_form_of(node))
    }

    /// Finds the module for a publish by the `pushModule` of its options; an empty one counts as none, and
    /// `default` means the default module unless a module has that very name. The node is the token.
    #[must_use]
    pub fn resolve<'a>(
        &self,
        node: &'a str,
        push_module: Option<&str>,
        scope: &Scope,
    ) -> Option<Resolved<'a>> {
        let table = self.read();
        let named = push_module.filter(|name| !name.is_empty());
        let module = match named {
            Some(name) => table
                .by_name
                .get(name)
                .filter(|module| scope.allows(module.name()))
                .or_else(|| table.default(scope).filter(|_| name == "default")),
            None => table.default(scope),
        }?;
        Some(Resolved {
            token: node,
            // Where a link may use one of several modules, apps may still mean another one.
            choice: match named {
                Some(name) if name == module.name() => Choice::Named,
                Some(_) | None if table.by_name.len() == 1 => Choice::Only,
                Some(_) | None => Choice::Default,
            },
            module: Arc::clone(module),
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        read(&self.table)
    }
}

impl Table {
    /// The module that is meant where none is named.
    fn default(&self, scope: &Scope) -> Option<&Arc<Module>> {
        let default = match scope.default_module() {
            Some(name) => self.by_name.get(name),
            None => self.default.as_ref(),
        };
        default.filter(|module| scope.allows(module.name()))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use fpush_policy::ModuleSettings;
    use fpush_push::{
        BackendStatus, Class, Push, PushTrait, Sending, TokenHasher, Urgency, Verifying,
        settings::{Report, Section},
    };

    use crate::{Drain, Senders};

    struct Nothing;

    impl PushTrait for Nothing {
        fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
            Some(token.into())
        }

        fn class(&self, _urgency: Urgency) -> Class {
            Class::High
        }

        fn send<'a>(&'a self, _push: &'a Push) -> Sending<'a> {
            Box::pin(async { Ok(()) })
        }

        fn verify(&self, _deadline: std::time::Instant) -> Verifying<'_> {
            Box::pin(async { Ok("nothing to prove".into()) })
        }

        fn status(&self) -> BackendStatus {
            BackendStatus::default()
        }
    }

    fn modules(names: &[&str], default: Option<&str>) -> Modules {
        let build = |name: &&str| {
            let (report, empty) = (Report::default(), serde_json::Map::new());
            let settings = ModuleSettings::read(&mut Section::root(&empty, &report));
            Module::new(
                name,
                Box::new(Nothing),
                settings,
                Senders::new(TokenHasher::new().unwrap()),
                Drain::default(),
            )
        };
        let modules: Vec<_> = names.iter().map(build).collect();
        let default = modules
            .iter()
            .find(|module| Some(module.name()) == default)
            .cloned();
        Modules::new(modules, default)
    }

    fn resolve(modules: &Modules, push_module: Option<&str>) -> Option<(String, Choice)> {
        resolve_in(modules, push_module, &Scope::default())
    }

    fn resolve_in(modules: &Modules, push_module: Option<&str>, scope: &Scope) -> Option<(String, Choice)> {
        modules
            .resolve("t", push_module, scope)
            .map(|resolved| (resolved.module.name().to_owned(), resolved.choice))
    }

    #[test]
    fn a_scope_has_its_own_modules_and_its_own_default() {
        let all = modules(&["a", "b", "c"], Some("a"));
        let scope = |modules: &[&str], default: Option<&str>| {
            let modules = modules.iter().map(|name| (*name).to_owned()).collect();
            Scope::new(Some(modules), default.map(str::to_owned))
        };
        let chosen = |name: &str, choice| Some((name.to_owned(), choice));
        let two = scope(&["b", "c"], Some("c"));
        assert_eq!(resolve_in(&all, Some("b"), &two), chosen("b", Choice::Named));
        assert_eq!(resolve_in(&all, None, &two), chosen("c", Choice::Default));
        assert_eq!(
            resolve_in(&all, Some("default"), &two),
            chosen("c", Choice::Default)
        );
        assert_eq!(resolve_in(&all, Some("a"), &two), None);
        let one = scope(&["b"], Some("b"));
        assert_eq!(resolve_in(&all, None, &one), chosen("b", Choice::Default));
        // The default module of all does not help where it may not be used.
        assert_eq!(resolve_in(&all, None, &scope(&["b"], None)), None);
        let any = Scope::new(None, Some("b".to_owned()));
        assert_eq!(resolve_in(&all, None, &any), chosen("b", Choice::Default));
        assert_eq!(resolve_in(&all, Some("a"), &any), chosen("a", Choice::Named));
    }

    #[test]
    fn a_publish_goes_to_the_module_that_it_names_or_to_the_default_one() {
        let two = modules(&["a", "b"], Some("a"));
        assert_eq!(resolve(&two, Some("b")), Some(("b".to_owned(), Choice::Named)));
        assert_eq!(resolve(&two, Some("a")), Some(("a".to_owned(), Choice::Named)));
        for none in [None, Some(""), Some("default")] {
            assert_eq!(
                resolve(&two, none),
                Some(("a".to_owned(), Choice::Default)),
                "{none:?}"
            );
        }
        assert_eq!(resolve(&two, Some("c")), None);
        assert_eq!(
            resolve(&modules(&["a"], Some("a")), None),
            Some(("a".to_owned(), Choice::Only))
        );
        assert_eq!(resolve(&modules(&["a"], None), None), None);
        let named_default = modules(&["a", "default"], Some("a"));
        assert_eq!(
            resolve(&named_default, Some("default")),
            Some(("default".to_owned(), Choice::Named))
        );
    }
}
