//! `component`, and `timeout`.

use std::{net::Ipv6Addr, time::Duration};

use fpush_component::ComponentSettings;
use fpush_push::settings::Section;

/// `component`; `timeout`, which comes later in the file, makes the settings of it.
pub(super) fn read_component(
    root: &mut Section<'_>,
) -> Option<impl FnOnce(Duration) -> ComponentSettings + use<>> {
    let mut component = root.section("component")?;
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
    let secret = read_secret(&mut component);
    let by_file = component.has("componentKeyFile");
    let server_host = read_host(&mut component);
    let server_port = component.required_integer("serverPort", 1..=65_535);
    let max_stanza_size = component.integer("maxStanzaSize", 16 * 1_024..=64 * MEBIBYTE, MEBIBYTE) as usize;
    component.finish();
    let (hostname, secret, server_host) = (hostname?.to_owned(), secret?, server_host?);
    let server_port = u16::try_from(server_port?).ok()?;
    let secret_key = if by_file {
        "componentKeyFile"
    } else {
        "componentKey"
    };
    Some(move |retry_after| ComponentSettings {
        hostname,
        secret,
        secret_key,
        server_host,
        server_port,
        max_stanza_size,
        retry_after,
    })
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
    let is_name = |name: &str| !name.is_empty() && name.len() <= 253 && name.chars().all(fits);
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
