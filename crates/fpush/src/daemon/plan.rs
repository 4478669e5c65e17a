//! What a reload does: a function of what is in force and what is to be.

use fpush_http::{Security, ServerCertificate};

use crate::{
    registration,
    settings::{ModuleValue, Settings},
};

/// What is to be done to get from some settings to others.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// For each module of the new settings, in their order.
    pub(crate) modules: Vec<ModuleStep>,
    /// The modules of the old settings that are in the new ones no more.
    pub(crate) retired: Vec<ModuleValue>,
    pub(crate) monitoring: ListenerStep,
    /// The registry, its commands and its listener.
    pub(crate) registration: ListenerStep,
    pub(crate) link: Step,
    pub(crate) logging: Step,
    /// The engine by which instances share what they know.
    pub(crate) cluster: Step,
    /// Keys that have changed and take effect with the next start.
    pub(crate) later: Vec<&'static str>,
}

/// What becomes of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModuleStep {
    /// It is as it was.
    Keep,
    /// It gets a new backend and new settings.
    Change,
    /// It is new, or comes back.
    Add,
}

/// What becomes of a listener and of what is behind it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ListenerStep {
    /// It is as it was, or is as little there as before.
    Keep,
    /// It gets another certificate, and is otherwise as it was.
    Renew(ServerCertificate),
    /// It is opened; in the place of the old one, if there is one.
    Open,
    /// It ends.
    Close,
}

/// What becomes of something that is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Keep,
    Change,
}

impl Plan {
    /// For a start, when the link and the log have their settings.
    pub(crate) fn start(settings: &Settings) -> Self {
        let open = |wanted: bool| {
            if wanted {
                ListenerStep::Open
            } else {
                ListenerStep::Keep
            }
        };
        Self {
            modules: vec![ModuleStep::Add; settings.modules.len()],
            retired: Vec::new(),
            monitoring: open(settings.monitoring.is_some()),
            registration: open(settings.registration.is_some()),
            link: Step::Keep,
            logging: Step::Keep,
            cluster: if settings.cluster.is_some() {
                Step::Change
            } else {
                Step::Keep
            },
            later: Vec::new(),
        }
    }

    /// For a reload.
    pub(crate) fn reload(before: &Settings, after: &Settings) -> Self {
        let Settings {
            component,
            modules,
            registration,
            monitoring,
            logging,
            cluster,
            state_folder,
            runtime_folder,
        } = after;
        let is_same_module =
            |a: &ModuleValue, b: &ModuleValue| a.name == b.name && a.module_type == b.module_type;
        let step = |module: &ModuleValue| {
            let old = before.modules.iter().find(|old| is_same_module(old, module));
            match old {
                Some(old) if old == module => ModuleStep::Keep,
                Some(_) => ModuleStep::Change,
                None => ModuleStep::Add,
            }
        };
        let is_gone = |old: &&ModuleValue| !modules.iter().any(|module| is_same_module(old, module));
        let changed = |is_other: bool| if is_other { Step::Change } else { Step::Keep };
        let later = [
            ("stateDirectory", *state_folder != before.state_folder),
            ("runtimeDirectory", *runtime_folder != before.runtime_folder),
        ];
        Self {
            modules: modules.iter().map(step).collect(),
            retired: before.modules.iter().filter(is_gone).cloned().collect(),
            monitoring: listener(before.monitoring.as_ref(), monitoring.as_ref(), |monitoring| {
                Some(&mut monitoring.security)
            }),
            registration: listener(
                before.registration.as_ref(),
                registration.as_ref(),
                registration::security,
            ),
            link: changed(*component != before.component),
            logging: changed(*logging != before.logging),
            cluster: changed(*cluster != before.cluster),
            later: later
                .into_iter()
                .filter_map(|(key, is_other)| is_other.then_some(key))
                .collect(),
        }
    }

    /// How many modules there are for which this is to be done.
    pub(crate) fn count(&self, step: ModuleStep) -> usize {
        self.modules.iter().filter(|this| **this == step).count()
    }
}

fn listener<T: Clone + PartialEq>(
    before: Option<&T>,
    after: Option<&T>,
    security: impl Fn(&mut T) -> Option<&mut Security>,
) -> ListenerStep {
    let (before, after) = match (before, after) {
        (None, None) => return ListenerStep::Keep,
        (None, Some(_)) => return ListenerStep::Open,
        (Some(_), None) => return ListenerStep::Close,
        (Some(before), Some(after)) if before == after => return ListenerStep::Keep,
        (Some(before), Some(after)) => (before, after),
    };
    let certificate = |of: &T| security(&mut of.clone())?.tls.take();
    if let (Some(_), Some(new)) = (certificate(before), certificate(after)) {
        let mut renewed = before.clone();
        if let Some(security) = security(&mut renewed) {
            security.tls = Some(new.clone());
        }
        if renewed == *after {
            return ListenerStep::Renew(new);
        }
    }
    ListenerStep::Open
}

#[cfg(test)]
#[cfg(feature = "enable_demo_support")]
mod tests {
    use std::fs;

    use fpush_testkit::{TempDir, fixture};
    use serde_json::{Value, json};

    use super::*;
    use crate::{backends, settings::load};

    struct Folder(TempDir);

    impl Folder {
        fn new() -> Self {
            let folder = Self(TempDir::new());
            folder.put("aps");
            folder
        }

        /// Puts a certificate and its key in the place of those of the listener.
        fn put(&self, name: &str) {
            for suffix in ["pem", "key.pem"] {
                let content = fs::read(fixture(&format!("{name}.{suffix}"))).unwrap();
                fs::write(self.0.path().join(format!("tls.{suffix}")), content).unwrap();
            }
        }

        /// The settings of a service with two modules and monitoring with TLS, with these keys changed.
        fn settings(&self, changes: &[(&str, Value)]) -> Settings {
            let tls = |name: &str| self.0.path().join(name);
            let mut settings = json!({
                "component": { "componentHostname": "push.example.org", "componentKey": "s", "serverHostname": "::1",
                    "serverPort": 5347 },
                "pushModules": { "a": { "type": "demo" }, "b": { "type": "demo" } },
                "monitoring": { "listen": "127.0.0.1:0", "certFilePath": tls("tls.pem"), "keyFilePath": tls("tls.key.pem") },
                "logging": {},
                "runtimeDirectory": "run",
            });
            for (pointer, value) in changes {
                let (object, key) = pointer.rsplit_once('/').unwrap();
                let object = settings.pointer_mut(object).unwrap().as_object_mut().unwrap();
                match value {
                    Value::Null => drop(object.remove(key)),
                    value => drop(object.insert(key.to_owned(), value.clone())),
                }
            }
            let file = self.0.write("settings.json", settings.to_string());
            let (loaded, problems) = load(&file, &backends::table());
            loaded.unwrap_or_else(|| panic!("{problems:?}")).settings
        }

        fn plan(&self, changes: &[(&str, Value)]) -> Plan {
            Plan::reload(&self.settings(&[]), &self.settings(changes))
        }
    }

    fn nothing() -> Plan {
        Plan {
            modules: vec![ModuleStep::Keep; 2],
            retired: Vec::new(),
            monitoring: ListenerStep::Keep,
            registration: ListenerStep::Keep,
            link: Step::Keep,
            logging: Step::Keep,
            cluster: Step::Keep,
            later: Vec::new(),
        }
    }

    #[test]
    fn what_is_the_same_stays() {
        assert_eq!(Folder::new().plan(&[]), nothing());
    }

    #[test]
    fn modules_stay_change_come_and_go_each_for_itself() {
        let folder = Folder::new();
        let plan = folder.plan(&[("/pushModules/a/maxInFlight", json!(7))]);
        assert_eq!(plan.modules, [ModuleStep::Change, ModuleStep::Keep]);
        let plan = folder.plan(&[
            ("/pushModules/a", Value::Null),
            ("/pushModules/c", json!({ "type": "demo" })),
        ]);
        assert_eq!(plan.modules, [ModuleStep::Keep, ModuleStep::Add]);
        let retired: Vec<_> = plan.retired.iter().map(|module| &*module.name).collect();
        assert_eq!(retired, ["a"]);
    }

    #[test]
    fn a_part_changes_alone() {
        let folder = Folder::new();
        for (change, expected) in [
            (
                ("/component/serverPort", json!(5348)),
                Plan {
                    link: Step::Change,
                    ..nothing()
                },
            ),
            (
                ("/logging/format", json!("json")),
                Plan {
                    logging: Step::Change,
                    ..nothing()
                },
            ),
            (
                ("/monitoring/listen", json!("127.0.0.2:0")),
                Plan {
                    monitoring: ListenerStep::Open,
                    ..nothing()
                },
            ),
            (
                ("/monitoring", Value::Null),
                Plan {
                    monitoring: ListenerStep::Close,
                    ..nothing()
                },
            ),
            (
                ("/runtimeDirectory", json!("other")),
                Plan {
                    later: vec!["runtimeDirectory"],
                    ..nothing()
                },
            ),
        ] {
            assert_eq!(folder.plan(std::slice::from_ref(&change)), expected, "{change:?}");
        }
    }

    #[test]
    fn another_certificate_opens_no_listener() {
        let folder = Folder::new();
        let before = folder.settings(&[]);
        folder.put("expired");
        let after = folder.settings(&[]);
        let plan = Plan::reload(&before, &after);
        let renewed = after.monitoring.clone().unwrap().security.tls.unwrap();
        assert_eq!(plan.monitoring, ListenerStep::Renew(renewed));
        let without = folder.settings(&[
            ("/monitoring/certFilePath", Value::Null),
            ("/monitoring/keyFilePath", Value::Null),
        ]);
        assert_eq!(Plan::reload(&before, &without).monitoring, ListenerStep::Open);
    }

    #[test]
    fn a_start_makes_everything() {
        let plan = Plan::start(&Folder::new().settings(&[]));
        assert_eq!(plan.count(ModuleStep::Add), 2);
        assert_eq!(
            (plan.monitoring, plan.registration),
            (ListenerStep::Open, ListenerStep::Keep)
        );
    }
}
