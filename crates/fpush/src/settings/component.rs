//! `component`, one link or a list of them, and `timeout`.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use fpush_component::{LinkSettings, TlsSettings};
use fpush_push::{
    Scope,
    settings::{NamedFile, Section},
};
use fpush_tls::Trust;
use serde_json::{Map, Value};

use super::push2::{Named, read_push2};
use crate::backends::Row;

/// The objects of `component`, however many they are.
pub(super) fn objects(component: Option<&Value>) -> Vec<&Map<String, Value>> {
    let values = match component {
        Some(Value::Array(list)) => list.iter().collect(),
        one => Vec::from_iter(one),
    };
    values.into_iter().filter_map(Value::as_object).collect()
}

/// Every `componentHostname`.
pub(super) fn names(component: Option<&Value>) -> Vec<&str> {
    let names = objects(component)
        .into_iter()
        .filter_map(|link| link.get("componentHostname")?.as_str());
    names.collect()
}

/// `component`; `timeout`, which comes later in the file, makes the settings of it.
pub(super) fn read_component(
    root: &mut Section<'_>,
    types: &[Row],
) -> Option<impl FnOnce(Duration) -> Vec<LinkSettings> + use<>> {
    let mut links: Vec<LinkSettings> = Vec::new();
    let modules = root.value("pushModules").and_then(Value::as_object);
    let modules: Vec<_> = modules
        .into_iter()
        .flatten()
        .map(|(name, module)| Named {
            name,
            takes_notifications: takes_notifications(module, types),
        })
        .collect();
    let sections = root.one_or_more("component");
    let all = sections.len();
    for mut section in sections {
        let link = read_link(&mut section, &modules);
        if let Some(link) = link {
            check_against(&link, &links, &section);
            links.push(link);
        }
        section.finish();
    }
    (!links.is_empty() && links.len() == all).then_some(move |retry_after| {
        links.iter_mut().for_each(|link| link.retry_after = retry_after);
        links
    })
}

/// Whether a link fits to those before it.
fn check_against(link: &LinkSettings, others: &[LinkSettings], section: &Section<'_>) {
    if others.iter().any(|other| other.name == link.name) {
        let name = &link.name;
        let message = if section.has("linkName") {
            format!("another link is called {name}; give each a name of its own")
        } else {
            format!(
                "another link has this componentHostname at this server, too: remove one of the two, or, if the server is to \
                 have two connections (ejabberd allows that), give one a linkName; both are called {name} now"
            )
        };
        section.error(if section.has("linkName") { "linkName" } else { "" }, message);
    }
    let in_group = link.group.as_ref().and_then(|group| {
        let of_group = |other: &&LinkSettings| other.group.as_ref() == Some(group);
        others.iter().find(of_group)
    });
    if in_group.is_some_and(|other| other.scope != link.scope || other.push2 != link.push2) {
        section.error(
            "group",
            "all links of a group must have the same modules, the same defaultModule and the same push2, because a publish may \
             come over any of them",
        );
    }
    if in_group.is_some_and(|other| !other.has_address_of(link)) {
        section.error(
            "group",
            "all links of a group must have the same componentHostname, because they send each other's replies",
        );
    }
}

/// Whether notifications of Push 2.0 can go out through modules of this type. One that this build does not know is blamed
/// elsewhere.
fn takes_notifications(module: &Value, types: &[Row]) -> bool {
    let module_type = module.get("type").and_then(Value::as_str);
    let row = types.iter().find(|row| Some(row.name) == module_type);
    let backend = row.and_then(|row| row.backend.as_ref());
    backend.is_none_or(|backend| backend.takes_notifications())
}

fn read_link(component: &mut Section<'_>, modules: &[Named<'_>]) -> Option<LinkSettings> {
    let name = read_name(component, "linkName");
    let hostname = component.string("componentHostname");
    if hostname.is_some_and(|name| !is_domain(name)) {
        component.error(
            "componentHostname",
            "expected a domain name, such as \"push.example.org\"",
        );
    }
    if hostname.is_some_and(|name| is_domain(name) && name.split('.').any(str::is_empty)) {
        component.unusable(
            "componentHostname",
            "expected a domain name without a dot at its start or end, such as \"push.example.org\"",
        );
    }
    let secret = read_secret(component);
    let secret_key = if component.has("componentKeyFile") {
        "componentKeyFile"
    } else {
        "componentKey"
    };
    let server_host = read_host(component);
    let server_port = component.required_integer("serverPort", 1..=65_535);
    let tls = read_tls(component, server_host.as_deref());
    let max_stanza_size = component.integer("maxStanzaSize", 16 * 1_024..=64 * MEBIBYTE, MEBIBYTE) as usize;
    let group = read_name(component, "group");
    let names: Vec<_> = modules.iter().map(|module| module.name).collect();
    let scope = read_scope(component, &names);
    let push2 = read_push2(component, modules, scope.as_ref());
    let (secret, server_host) = (secret?, server_host?);
    let (hostname, server_port) = (hostname?.to_owned(), u16::try_from(server_port?).ok()?);
    Some(LinkSettings {
        name: name.unwrap_or_else(|| LinkSettings::usual_name(&hostname, &server_host, server_port)),
        hostname,
        secret,
        path: component.path_of(""),
        secret_key,
        server_host,
        server_port,
        tls: tls?,
        max_stanza_size,
        group,
        scope: Arc::new(scope?),
        push2: push2?,
        retry_after: Duration::ZERO,
    })
}

/// `modules` and `defaultModule`, given the names of all push modules.
fn read_scope(component: &mut Section<'_>, all: &[&str]) -> Option<Scope> {
    let known = || match all {
        [] => "which has none".to_owned(),
        all => format!("which has {}", all.join(", ")),
    };
    let modules = match component.value("modules") {
        None => None,
        Some(list) => {
            let names = list.as_array().filter(|list| !list.is_empty());
            let names: Option<BTreeSet<_>> = names.and_then(|names| {
                names
                    .iter()
                    .map(|name| name.as_str().map(str::to_owned))
                    .collect()
            });
            let Some(names) = names else {
                component.error(
                    "modules",
                    "expected a list of names of push modules, such as [\"exampleIos\"]",
                );
                return None;
            };
            if names.iter().any(|name| !all.contains(&name.as_str())) {
                component.error(
                    "modules",
                    format_args!("expected names from pushModules, {}", known()),
                );
                return None;
            }
            Some(names)
        }
    };
    let default = if component.has("defaultModule") {
        Some(component.string("defaultModule")?)
    } else {
        component.value("defaultModule");
        None
    };
    let scope = Scope::new(modules, default.map(str::to_owned));
    if default.is_some_and(|default| !all.contains(&default)) {
        component.error(
            "defaultModule",
            format_args!("expected a name from pushModules, {}", known()),
        );
        return None;
    }
    if default.is_some_and(|default| !scope.allows(default)) {
        component.error("defaultModule", "expected one of the names in modules");
        return None;
    }
    Some(scope)
}

/// `tls`: `true`, or an object that says more. `Some(None)` without TLS.
fn read_tls(component: &mut Section<'_>, server_host: Option<&str>) -> Option<Option<TlsSettings>> {
    let files = component.report().files().len();
    let (trust, server_name) = match component.value("tls") {
        None | Some(Value::Bool(false)) => return Some(None),
        Some(Value::Bool(true)) => {
            let trust = Trust::new(None);
            (trust.inspect_err(|e| component.error("tls", e)).ok(), None)
        }
        Some(Value::Object(_)) => {
            let mut tls = component.section("tls")?;
            let trust = Trust::read(&mut tls);
            let server_name = tls.has("serverName").then(|| tls.string("serverName"));
            if server_name.is_none() {
                tls.value("serverName");
            }
            tls.finish();
            (trust, server_name)
        }
        Some(_) => {
            component.error(
                "tls",
                "expected true, or an object such as { \"caFilePath\": \"ca.pem\", \"serverName\": \"xmpp.example.org\" }",
            );
            return None;
        }
    };
    let roots = NamedFile::digest_all(0, &component.report().files()[files..]);
    let (key, server_name) = match server_name {
        Some(server_name) => ("tls.serverName", server_name?),
        None => ("tls", server_host?),
    };
    let tls = TlsSettings::new(&trust?, server_name, roots);
    if tls.is_none() {
        component.error(
            key,
            "expected the name or the address that the server's certificate is for, such as \"xmpp.example.org\", in \
             tls.serverName",
        );
    }
    tls.map(Some)
}

/// A name that the operator chooses for metrics and the log.
fn read_name(component: &mut Section<'_>, key: &'static str) -> Option<String> {
    let name = if component.has(key) {
        component.string(key)?
    } else {
        component.value(key);
        return None;
    };
    if name.len() > MAX_NAME || name.chars().any(char::is_control) {
        component.error(
            key,
            format_args!("expected a name of at most {MAX_NAME} bytes without control characters"),
        );
        return None;
    }
    Some(name.to_owned())
}

/// `timeout.xmppconnectionError`.
pub(super) fn read_retry(root: &mut Section<'_>) -> Duration {
    let mut timeout = root.section_or_empty("timeout");
    let retry_after = timeout.duration("xmppconnectionError", Duration::from_secs(10));
    if retry_after < SHORTEST_RETRY {
        timeout.warning(
            "xmppconnectionError",
            "too short for the server's sake; \"100ms\" is used",
        );
    }
    timeout.finish();
    retry_after
}

/// `serverHostname`: a name or an address, which may be in brackets.
fn read_host(component: &mut Section<'_>) -> Option<String> {
    let host = component.string("serverHostname")?.trim();
    let without_brackets = |text: &str| {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        bare.map(str::to_owned)
    };
    let is_address = |address: &str| {
        let without_zone = address.split_once('%').map_or(address, |(address, _)| address);
        without_zone.parse::<Ipv6Addr>().is_ok()
    };
    let address = without_brackets(host).unwrap_or_else(|| host.to_owned());
    if is_address(&address) {
        return Some(address);
    }
    let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    // What ends with a number is an address or nothing (URL Standard, "ends in a number"). The dot of the root may follow.
    let is_number = |name: &str| {
        let name = name.strip_suffix('.').unwrap_or(name);
        let last = name.rsplit('.').next().unwrap_or(name);
        last.chars().all(|c| c.is_ascii_digit()) && name.parse::<Ipv4Addr>().is_err()
    };
    let is_label =
        |label: &str| (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-');
    let is_name = |name: &str| {
        let labels = name.strip_suffix('.').unwrap_or(name);
        name.len() <= 253 && name.chars().all(fits) && labels.split('.').all(is_label) && !is_number(name)
    };
    if is_name(host) {
        return Some(host.to_owned());
    }
    let is_host = is_name(name) || without_brackets(name).is_some_and(|address| is_address(&address));
    if is_host && port.parse::<u16>().is_ok() {
        component.error(
            "serverHostname",
            format_args!(
                "expected a name or an address without a port; the port {port} belongs into serverPort"
            ),
        );
    } else {
        component.error(
            "serverHostname",
            "expected the name or the address of the XMPP server, such as \"127.0.0.1\", \"::1\" or \"xmpp.example.org\"",
        );
    }
    None
}

/// `componentKey` or `componentKeyFile`, exactly one of them.
fn read_secret(component: &mut Section<'_>) -> Option<String> {
    match (component.has("componentKey"), component.has("componentKeyFile")) {
        (true, false) => {
            component.optional_file("componentKeyFile");
            component.string("componentKey").map(str::to_owned)
        }
        (false, true) => {
            component.optional_string("componentKey");
            let file = component.string("componentKeyFile")?;
            let path = component.path_of("componentKeyFile");
            let secret = component.report().read_secret_line(&path, file.as_ref())?;
            if secret.is_empty() {
                component.error(
                    "componentKeyFile",
                    "expected a file that holds the secret, found an empty one",
                );
                return None;
            }
            Some(secret)
        }
        (both, _) => {
            let found = if both { "found both" } else { "found neither" };
            component.optional_string("componentKey");
            component.optional_string("componentKeyFile");
            component.error(
                "componentKey",
                format_args!("expected either componentKey or componentKeyFile, {found}"),
            );
            None
        }
    }
}

/// Whether a text can be the domain of an address.
fn is_domain(name: &str) -> bool {
    name.len() <= 1_023
        && name
            .chars()
            .all(|c| !c.is_control() && !c.is_whitespace() && !"@/<>'\"&:".contains(c))
}

const MAX_NAME: usize = 128;
/// Shorter would be an attack on the server.
const SHORTEST_RETRY: Duration = Duration::from_millis(100);
const MEBIBYTE: u64 = 1_024 * 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_told_from_addresses() {
        assert!(is_domain("push.example.org") && is_domain("localhost") && is_domain("müller.example"));
        for no_domain in [
            "example.org:5347",
            "u@example.org",
            "example.org/r",
            "a b",
            "a'b",
            "<a>",
        ] {
            assert!(!is_domain(no_domain), "{no_domain}");
        }
    }
}
