//! What a reload does: a function of what is in force and what is to be.

use std::collections::HashMap;

use fpush_component::{LinkSettings, LinkStep};
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
    /// For each link of the new settings, in their order.
    pub(crate) links: Vec<LinkStep>,
    /// The names of the links of the old settings that are closed, and in whose place none comes.
    pub(crate) closed: Vec<String>,
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
    /// For a start, when the log has its settings.
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
            links: vec![LinkStep::Open; settings.links.len()],
            closed: Vec::new(),
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
            links,
            modules,
            registration,
            monitoring,
            // It is put in force each time, which changes nothing if it is the same.
            sender_names: _,
            logging,
            cluster,
            state_folder,
            runtime_folder,
        } = after;
        let (old, new) = (by_name(&before.modules), by_name(modules));
        let step = |module: &ModuleValue| match old.get(&*module.name) {
            Some(old) if *old == module => ModuleStep::Keep,
            Some(old) if old.is_same_module(module) => ModuleStep::Change,
            Some(_) | None => ModuleStep::Add,
        };
        let is_gone = |old: &&ModuleValue| !new.get(&*old.name).is_some_and(|new| old.is_same_module(new));
        let changed = |is_other: bool| if is_other { Step::Change } else { Step::Keep };
        let later = [
            ("stateDirectory", *state_folder != before.state_folder),
            ("runtimeDirectory", *runtime_folder != before.runtime_folder),
        ];
        let (links, closed) = plan_links(&before.links, links);
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
            links,
            closed,
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

    /// How many links are new, and how many are opened anew.
    pub(crate) fn count_links(&self) -> [usize; 2] {
        self.links
            .iter()
            .fold([0, 0], |[opened, reopened], step| match step {
                LinkStep::Keep | LinkStep::Adjust => [opened, reopened],
                LinkStep::Open => [opened + 1, reopened],
                LinkStep::Replace(_) => [opened, reopened + 1],
            })
    }
}

/// Each name is there once.
fn by_name(modules: &[ModuleValue]) -> HashMap<&str, &ModuleValue> {
    modules.iter().map(|module| (&*module.name, module)).collect()
}

/// A link is the same as long as it has its name and our address there. One that is gone has its place taken by a new one
/// with the same address, because a server may allow only one connection of that: one to the same server if there is one.
fn plan_links(before: &[LinkSettings], after: &[LinkSettings]) -> (Vec<LinkStep>, Vec<String>) {
    let is_same = |a: &LinkSettings, b: &LinkSettings| a.name == b.name && a.has_address_of(b);
    let mut gone: Vec<_> = before
        .iter()
        .filter(|old| !after.iter().any(|link| is_same(old, link)))
        .collect();
    let mut steps: Vec<_> = after
        .iter()
        .map(|link| {
            let old = before.iter().find(|old| is_same(old, link))?;
            Some(if old == link {
                LinkStep::Keep
            } else if link.has_connection_of(old) {
                LinkStep::Adjust
            } else {
                LinkStep::Replace(old.name.clone())
            })
        })
        .collect();
    let is_at_same = |a: &LinkSettings, b: &LinkSettings| a.server() == b.server();
    for takes_place in [is_at_same, |_: &_, _: &_| true] {
        for (link, step) in after.iter().zip(&mut steps) {
            let of_link = |old: &&LinkSettings| old.has_address_of(link) && takes_place(old, link);
            if step.is_none()
                && let Some(place) = gone.iter().position(of_link)
            {
                *step = Some(LinkStep::Replace(gone.remove(place).name.clone()));
            }
        }
    }
    let steps = steps.into_iter().map(|step| step.unwrap_or(LinkStep::Open));
    (
        steps.collect(),
        gone.into_iter().map(|old| old.name.clone()).collect(),
    )
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
            links: vec![LinkStep::Keep],
            closed: Vec::new(),
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
                    links: vec![LinkStep::Replace("push.example.org@[::1]:5347".to_owned())],
                    ..nothing()
                },
            ),
            (
                ("/component/group", json!("cluster")),
                Plan {
                    links: vec![LinkStep::Adjust],
                    ..nothing()
                },
            ),
            (
                ("/component/componentHostname", json!("push.example.com")),
                Plan {
                    links: vec![LinkStep::Open],
                    closed: vec!["push.example.org@[::1]:5347".to_owned()],
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

    fn link(change: impl FnOnce(&mut LinkSettings)) -> LinkSettings {
        let mut link = LinkSettings {
            name: "a".to_owned(),
            hostname: "push.example".to_owned(),
            secret: "secret".to_owned(),
            path: "component[0]".to_owned(),
            secret_key: "componentKey",
            tls: None,
            server_host: "localhost".to_owned(),
            server_port: 5347,
            max_stanza_size: 1_000,
            group: None,
            scope: std::sync::Arc::default(),
            push2: None,
            retry_after: std::time::Duration::ZERO,
        };
        change(&mut link);
        link
    }

    fn named(name: &str) -> LinkSettings {
        link(|link| link.name = name.to_owned())
    }

    #[test]
    fn links_stay_change_come_and_go_each_for_itself() {
        let replace = |name: &str| LinkStep::Replace(name.to_owned());
        let other = |name: &str| {
            link(|link| {
                link.name = name.to_owned();
                link.hostname = "other.example".to_owned();
            })
        };
        let elsewhere = |name: &str| {
            link(|link| {
                link.name = name.to_owned();
                link.server_port = 5348;
            })
        };
        let changed = link(|link| link.secret = "another".to_owned());
        let moved = link(|link| link.path = "component[1]".to_owned());
        for (before, after, steps, closed) in [
            // Others come and go, in whatever order.
            (
                vec![named("a")],
                vec![named("b"), named("a")],
                vec![LinkStep::Open, LinkStep::Keep],
                vec![],
            ),
            (
                vec![named("a"), named("b")],
                vec![named("b")],
                vec![LinkStep::Keep],
                vec!["a"],
            ),
            (
                vec![named("a")],
                vec![named("b"), moved],
                vec![LinkStep::Open, LinkStep::Adjust],
                vec![],
            ),
            // One changes.
            (
                vec![named("b"), named("a")],
                vec![named("b"), changed],
                vec![LinkStep::Keep, replace("a")],
                vec![],
            ),
            // Another name is another link, but the server may know only our address.
            (vec![named("a")], vec![named("b")], vec![replace("a")], vec![]),
            (
                vec![named("a"), named("b")],
                vec![named("c")],
                vec![replace("a")],
                vec!["b"],
            ),
            // One to the same server comes before others.
            (
                vec![named("a"), elsewhere("b")],
                vec![elsewhere("c"), named("d")],
                vec![replace("b"), replace("a")],
                vec![],
            ),
            (
                vec![named("a"), elsewhere("b")],
                vec![elsewhere("c")],
                vec![replace("b")],
                vec!["a"],
            ),
            // Under another address nobody is in the way.
            (
                vec![named("a")],
                vec![other("a")],
                vec![LinkStep::Open],
                vec!["a"],
            ),
            (
                vec![named("a"), other("b")],
                vec![other("c"), named("d")],
                vec![replace("b"), replace("a")],
                vec![],
            ),
        ] {
            let (got, gone) = plan_links(&before, &after);
            assert_eq!(
                (got, gone),
                (steps, closed.into_iter().map(str::to_owned).collect()),
                "{before:?} {after:?}"
            );
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
