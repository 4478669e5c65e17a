//! The push modules that run, and those that end.

use std::{collections::BTreeMap, env, mem, sync::Arc, time::Duration};

use fpush_driver::{Drain, Liveness, Module, Modules, Senders};
use fpush_policy::Clocks;
use fpush_push::{Built, Delivery, TokenHasher, metrics::Counter};
use tracing::info;

use super::plan::{ModuleStep, Plan};
use crate::{
    cluster::Sharing,
    settings::{ModuleValue, ParsedModule},
    state_dir::{Remembered, TypedModule},
};

/// All push modules. The table of those in the settings is shared with the code that finds modules for publishes.
pub(super) struct RunningModules {
    table: Arc<Modules>,
    active: Vec<TypedModule>,
    /// Modules that are not in the settings any more and still send what they hold.
    retired: Vec<TypedModule>,
    /// What was known before the start, of modules that are not in the settings.
    remembered: Remembered,
    /// Acknowledged pushes that modules could not deliver which are gone.
    lost: Arc<Counter>,
    senders: Senders,
    drain: Drain,
    liveness: Arc<Liveness>,
    /// What other instances share with this one.
    sharing: Option<Arc<Sharing>>,
}

impl RunningModules {
    pub(super) fn new(
        senders: Senders,
        drain: Drain,
        liveness: Arc<Liveness>,
        remembered: Remembered,
    ) -> Self {
        Self {
            table: Arc::default(),
            active: Vec::new(),
            retired: Vec::new(),
            lost: Arc::clone(remembered.lost()),
            remembered,
            senders,
            drain,
            liveness,
            sharing: None,
        }
    }

    /// What makes fingerprints.
    pub(super) fn hasher(&self) -> &TokenHasher {
        self.senders.hasher()
    }

    /// From now on all modules share what they know over this, or with nobody.
    pub(super) fn share(&mut self, sharing: Option<Arc<Sharing>>) {
        self.sharing = sharing;
        for TypedModule { module, .. } in self.active.iter().chain(&self.retired) {
            self.let_share(module);
        }
    }

    /// A shadow shares with nobody: what it takes for its own would not be sent by those who send.
    fn let_share(&self, module: &Module) {
        let sharing = match module.delivery() {
            Delivery::Real => self.sharing.as_ref(),
            Delivery::Shadow => None,
        };
        module.share(sharing.map(|sharing| sharing.cluster()));
    }

    pub(super) fn table(&self) -> &Arc<Modules> {
        &self.table
    }

    /// Those of the settings.
    pub(super) fn active(&self) -> &[TypedModule] {
        &self.active
    }

    /// Those that are not in the settings any more and still send what they hold.
    pub(super) fn retired(&self) -> &[TypedModule] {
        &self.retired
    }

    /// All that may hold something.
    pub(super) fn all(&self) -> Vec<TypedModule> {
        self.active.iter().chain(&self.retired).cloned().collect()
    }

    /// What was known before the start, of modules that are not in the settings.
    pub(super) fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// Acknowledged pushes that could not be delivered by modules that are gone.
    pub(super) fn lost(&self) -> &Arc<Counter> {
        &self.lost
    }

    /// How many acknowledged pushes are held.
    pub(super) fn held(&self) -> usize {
        self.all().iter().map(|typed| typed.module.held()).sum()
    }

    /// Forgets the retired modules that have ended, and what was held for too long for modules that did not come back.
    pub(super) fn tick(&mut self, clocks: Clocks) {
        self.retired.retain(|typed| {
            let ended = typed.module.has_ended();
            if ended {
                self.lost.add(typed.module.lost());
            }
            !ended
        });
        self.remembered.tick(clocks);
        self.senders.follow_clock(clocks);
    }

    /// Goes on with other modules: what is the same stays, what is another one goes on with what the old one knew and held,
    /// and what is not there any more ends by itself.
    pub(super) fn apply(&mut self, plan: &Plan, wanted: Vec<(ModuleValue, ParsedModule)>) {
        let count = wanted.len();
        let mut default = None;
        let mut active = Vec::with_capacity(count);
        let before = mem::take(&mut self.active).into_iter();
        let mut before: BTreeMap<_, _> = before
            .map(|typed| (typed.module.name().to_owned(), typed))
            .collect();
        for (step, (value, parsed)) in plan.modules.iter().zip(wanted) {
            let is_there = before.get(&value.name).is_some_and(|typed| is_of(typed, &value));
            let known = if is_there {
                before.remove(&value.name)
            } else {
                None
            };
            let typed = match (step, known) {
                (ModuleStep::Keep, Some(same)) => same,
                (ModuleStep::Keep | ModuleStep::Change | ModuleStep::Add, known) => {
                    let module = self.with_new_backend(&value, parsed, known);
                    match value.delivery {
                        Delivery::Real => verify_soon(&module, count),
                        Delivery::Shadow => {}
                    }
                    TypedModule {
                        module,
                        module_type: value.module_type,
                    }
                }
            };
            if value.is_default {
                default = Some(Arc::clone(&typed.module));
            }
            active.push(typed);
        }
        let all = active.iter().map(|typed| Arc::clone(&typed.module)).collect();
        self.table.set(all, default);
        self.active = active;
        for typed in before.into_values() {
            info!(
                module = typed.module.name(),
                held = typed.module.held(),
                "this module is not in the settings any more"
            );
            typed.module.retire();
            self.retired.push(typed);
        }
        self.remembered.settle();
    }

    /// A module whose backend is another one, or that is new, or that comes back with all that it knew.
    fn with_new_backend(
        &mut self,
        value: &ModuleValue,
        parsed: ParsedModule,
        known: Option<TypedModule>,
    ) -> Arc<Module> {
        let ParsedModule { settings, backend } = parsed;
        let Built { backend, background } = (backend.build)();
        let name = &value.name;
        if known.is_some() {
            info!(module = name, "the settings of this module have changed");
        }
        let known = known.map(|typed| typed.module).or_else(|| self.take_back(value));
        let module = match known {
            Some(module) => {
                module.replace(backend, settings);
                module
            }
            None => {
                let (senders, drain) = (self.senders.clone(), self.drain.clone());
                let module = Module::new(name, backend, settings, senders, drain);
                match value.delivery {
                    Delivery::Real => self.remembered.tell(&module, value.module_type),
                    // What was held to be sent waits for a module that sends.
                    Delivery::Shadow => {}
                }
                let probe = self.liveness.probe(format!("module {name}"));
                self.drain.spawn(Arc::clone(&module).run(probe));
                module
            }
        };
        self.let_share(&module);
        background.into_iter().for_each(|task| drop(tokio::spawn(task)));
        module
    }

    /// A module that was removed and has not ended yet.
    fn take_back(&mut self, value: &ModuleValue) -> Option<Arc<Module>> {
        let mut retired = self.retired.iter();
        let place = retired.position(|typed| is_of(typed, value) && typed.module.resume())?;
        Some(self.retired.swap_remove(place).module)
    }
}

fn is_of(typed: &TypedModule, value: &ModuleValue) -> bool {
    typed.module.name() == value.name
        && typed.module_type == value.module_type
        && typed.module.delivery() == value.delivery
}

/// Asks the module's provider whether it accepts the credentials, soon: not all providers at one moment.
fn verify_soon(module: &Arc<Module>, modules: usize) {
    if env::var_os(VERIFY).is_none_or(|verify| verify != "off") {
        let spread = VERIFICATION.min(VERIFICATION_OF_ONE * u32::try_from(modules).unwrap_or(u32::MAX));
        tokio::spawn(module.prove(spread));
    }
}

/// `off`: no provider is asked for anything but pushes.
const VERIFY: &str = "FPUSH_VERIFY";
/// Within this time after the start or a reload each new module has been verified.
const VERIFICATION: Duration = Duration::from_secs(60);
/// One module has less time, as there is nothing to spread.
const VERIFICATION_OF_ONE: Duration = Duration::from_secs(2);

#[cfg(test)]
#[cfg(feature = "enable_demo_support")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use fpush_testkit::TempDir;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        backends,
        settings::{Loaded, Settings, load},
    };

    /// A service with these modules, and how many backends were built for it.
    fn read(modules: &Value, built: &Arc<AtomicUsize>) -> (Settings, Vec<(ModuleValue, ParsedModule)>) {
        let dir = TempDir::new();
        let settings = json!({
            "component": { "componentHostname": "push.example.org", "componentKey": "s", "serverHostname": "::1",
                "serverPort": 5347 },
            "pushModules": modules,
        });
        let file = dir.write("settings.json", settings.to_string());
        let Loaded {
            settings, modules, ..
        } = load(&file, &backends::table()).0.unwrap();
        let counted = modules.into_iter().map(|mut parsed| {
            let (build, built) = (parsed.backend.build, Arc::clone(built));
            parsed.backend.build = Box::new(move || {
                built.fetch_add(1, Ordering::Relaxed);
                build()
            });
            parsed
        });
        let wanted = settings.modules.iter().cloned().zip(counted).collect();
        (settings, wanted)
    }

    #[tokio::test]
    async fn only_what_has_changed_gets_a_backend() {
        let built = Arc::default();
        let (senders, drain) = (Senders::new(TokenHasher::new().unwrap()), Drain::default());
        let mut running =
            RunningModules::new(senders, drain, Arc::new(Liveness::new()), Remembered::default());
        let demo = || json!({ "type": "demo" });
        let (before, wanted) = read(&json!({ "a": demo(), "b": demo() }), &built);
        running.apply(&Plan::start(&before), wanted);
        let [a, b] = ["a", "b"].map(|name| running.table().named(name).unwrap());
        assert_eq!(built.load(Ordering::Relaxed), 2);

        let other = json!({ "type": "demo", "maxInFlight": 7 });
        let (after, wanted) = read(&json!({ "a": demo(), "b": other, "c": demo() }), &built);
        running.apply(&Plan::reload(&before, &after), wanted);
        assert_eq!(built.load(Ordering::Relaxed), 4, "one for b and one for c");
        let named = |name| running.table().named(name).unwrap();
        assert!(Arc::ptr_eq(&a, &named("a")) && Arc::ptr_eq(&b, &named("b")));
        assert_eq!(running.active().len(), 3);

        let (last, wanted) = read(&json!({ "b": demo() }), &built);
        running.apply(&Plan::reload(&after, &last), wanted);
        assert_eq!((running.active().len(), running.all().len()), (1, 3));
        assert!(running.table().named("a").is_none());
    }
}
