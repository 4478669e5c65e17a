//! `component.push2`: notifications of Push 2.0 that come over a link.

use std::collections::BTreeSet;

use fpush_component::Push2Settings;
use fpush_policy::RelayLimits;
use fpush_push::{Scope, settings::Section};

/// A push module by its name, as far as it matters here.
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    /// Whether notifications can go out through modules of its type.
    pub(super) takes_notifications: bool,
}

/// Reads it, given all push modules and those that the link may use. `Some(None)` without it, which is how all
/// messages are dropped.
pub(super) fn read_push2(
    component: &mut Section<'_>,
    all: &[Named<'_>],
    scope: Option<&Scope>,
) -> Option<Option<Push2Settings>> {
    if !component.has("push2") {
        component.value("push2");
        return Some(None);
    }
    let mut push2 = component.section("push2")?;
    let modules = read_modules(&mut push2, all, scope);
    let mut limit = |key, default| push2.integer(key, 1..=MOST_IN_A_MINUTE, default) as u32;
    let limits = RelayLimits {
        per_domain: limit("maxPerDomain", PER_DOMAIN),
        per_receiver: limit("maxPerReceiver", PER_RECEIVER),
    };
    push2.finish();
    Some(Some(Push2Settings {
        modules: modules?,
        limits,
    }))
}

/// `modules`: in this order they are asked whether they can send to a client.
fn read_modules(push2: &mut Section<'_>, all: &[Named<'_>], scope: Option<&Scope>) -> Option<Vec<String>> {
    let expected = "a list of names of push modules, such as [\"exampleWeb\"]: those that notifications may go out through";
    let Some(modules) = push2.read::<Vec<String>>("modules", expected) else {
        if !push2.has("modules") {
            push2.error("modules", format_args!("expected {expected}, found none"));
        }
        return None;
    };
    let different: BTreeSet<_> = modules.iter().collect();
    if modules.is_empty() || different.len() < modules.len() {
        push2.error("modules", format_args!("expected {expected}, each once"));
        return None;
    }
    let named = |name: &String| all.iter().find(|module| module.name == name);
    if let Some(unknown) = modules.iter().find(|name| named(name).is_none()) {
        push2.error(
            "modules",
            format_args!("expected names from pushModules, which has none that is called {unknown}"),
        );
        return None;
    }
    let takes_none = |name: &&String| named(name).is_some_and(|module| !module.takes_notifications);
    if let Some(other) = modules.iter().find(takes_none) {
        push2.error(
            "modules",
            format_args!(
                "no notification can go out through {other}, whose type takes none; expected {expected}"
            ),
        );
        return None;
    }
    let is_out_of_scope = |name: &&String| scope.is_some_and(|scope| !scope.allows(name));
    if let Some(other) = modules.iter().find(is_out_of_scope) {
        push2.error(
            "modules",
            format_args!("the link may not use {other}: add it to its modules, too"),
        );
        return None;
    }
    Some(modules)
}

/// A hundred in a second: a server with tens of thousands of users that are away.
const PER_DOMAIN: u64 = 6_000;
const PER_RECEIVER: u64 = 60;
const MOST_IN_A_MINUTE: u64 = 1_000_000;
