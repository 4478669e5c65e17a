//! Which endpoints a module sends to. The app that registers chooses the endpoint, so it is an address that a stranger makes this
//! machine connect to: its text is judged here, and what its name resolves to where the connection is made.

use std::net::Ipv6Addr;

use http::Uri;

use crate::service::{HTTPS, Service, Standing, matches};

/// What the settings allow.
#[derive(Clone, Debug)]
pub(crate) struct Allowed {
    /// Hosts, in lower case, and domains as `*.example.org`.
    pub(crate) hosts: Vec<String>,
    pub(crate) ports: Vec<u16>,
}

/// An endpoint that the settings allow.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// Path and query are byte for byte what the app gave.
    pub(crate) uri: Uri,
    /// As RFC 6454 writes it: the port only if it is not 443.
    pub(crate) origin: Box<str>,
    pub(crate) service: Service,
    pub(crate) standing: Standing,
}

impl Allowed {
    /// The endpoint of this text, if it is one that may be sent to: an https URL with a host of the list, a port of the list,
    /// and neither user nor fragment.
    pub(crate) fn endpoint(&self, text: &str) -> Option<Endpoint> {
        if text.len() > LONGEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let scheme = text.get(..SCHEME.len())?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return None;
        }
        let rest = text.get(SCHEME.len()..)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = split_port(authority)?;
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if !self.ports.contains(&port) || !self.allows_host(&host) {
            return None;
        }
        let origin = if port == HTTPS {
            format!("{SCHEME}{host}")
        } else {
            format!("{SCHEME}{host}:{port}")
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        let canonical = format!("{origin}{slash}{path}");
        let uri: Uri = canonical.parse().ok()?;
        // What the parser leaves out, such as a fragment, or takes for something else is not an endpoint.
        let is_whole = uri.host() == Some(&host) && uri.to_string() == canonical;
        is_whole.then(|| Endpoint {
            uri,
            service: Service::of(&host),
            standing: Standing::of(&host, port),
            origin: origin.into(),
        })
    }

    /// A host that the settings name in full is the operator's choice, whatever it is; any other has to be a name of the
    /// public DNS.
    fn allows_host(&self, host: &str) -> bool {
        let is_named = self.hosts.iter().any(|named| named == host);
        let is_allowed = is_named || self.hosts.iter().any(|pattern| matches(pattern, host));
        is_allowed && (is_named || is_public_name(host))
    }
}

impl Endpoint {
    /// Its one spelling.
    pub(crate) fn text(&self) -> String {
        self.uri.to_string()
    }
}

/// Host and port of an authority without a user.
fn split_port(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')? + 2;
            (authority.get(..end)?, authority.get(end..)?)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => HTTPS,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok()?
        }
        Some(_) | None => return None,
    };
    is_host(host).then_some((host, port))
}

/// Whether this can be a host at all: letters, digits, dashes, underscores and dots, or an IPv6 address in brackets.
pub(crate) fn is_host(text: &str) -> bool {
    let literal = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    if let Some(literal) = literal {
        return literal.parse::<Ipv6Addr>().is_ok();
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Whether a name is one of the public DNS: no address in any spelling that a resolver takes for one, and no name that means
/// something on this machine or in its network alone (RFC 6761, RFC 6762, RFC 7686, RFC 8375, RFC 9476).
fn is_public_name(host: &str) -> bool {
    let Some((_, last)) = host.rsplit_once('.') else {
        return false;
    };
    // `127.1`, `0x7f.1`, `2130706433`: all that ends with a number is an address (URL Standard, "ends in a number").
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let is_special = SPECIAL.iter().any(|domain| {
        host.strip_suffix(domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    !host.starts_with('[') && !is_number && !is_special
}

/// Domains that are nobody's in the public DNS.
const SPECIAL: [&str; 10] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "home.arpa",
    "onion",
    "test",
    "invalid",
    "alt",
    "lan",
];
const SCHEME: &str = "https://";
/// Bytes of an endpoint (`UnifiedPush` AND 3.0.0).
const LONGEST: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(hosts: &[&str]) -> Allowed {
        Allowed {
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            ports: vec![443, 8443],
        }
    }

    fn text(allowed: &Allowed, url: &str) -> Option<String> {
        allowed.endpoint(url).map(|endpoint| endpoint.text())
    }

    /// Lets every name of the public DNS pass that is below one of many domains.
    fn open() -> Allowed {
        let domains = [
            "*.org",
            "*.com",
            "*.1",
            "*.0x1",
            "*.local",
            "*.internal",
            "*.localdomain",
            "*.arpa",
            "*.onion",
            "*.test",
            "*.invalid",
            "*.localhost",
            "*.lan",
            "*.alt",
            "*.0x",
        ];
        allowed(&domains)
    }

    #[test]
    fn path_and_query_stay_byte_for_byte() {
        for url in [
            "https://up.example.org/upABC?up=1",
            "https://up.example.org/w/?token=BQY%2bAAD%3d%3d&x=a|b~c",
            "https://up.example.org//a/../b;c=%41",
            "https://up.example.org:8443/push/ey.J0.x-_",
        ] {
            assert_eq!(text(&open(), url).as_deref(), Some(url));
        }
    }

    #[test]
    fn an_endpoint_has_one_spelling() {
        let one = text(&open(), "https://up.example.org/A").unwrap();
        for same in [
            "HTTPS://UP.Example.ORG/A",
            "https://up.example.org:443/A",
            "https://up.example.org./A",
        ] {
            assert_eq!(text(&open(), same).as_ref(), Some(&one), "{same}");
        }
        assert_eq!(
            text(&open(), "https://up.example.org").as_deref(),
            Some("https://up.example.org/")
        );
        let endpoint = open().endpoint("https://UP.example.org:8443/A").unwrap();
        assert_eq!(&*endpoint.origin, "https://up.example.org:8443");
        assert_eq!(endpoint.uri.host(), Some("up.example.org"));
    }

    #[test]
    fn what_is_not_an_endpoint_is_refused() {
        let long = format!("https://up.example.org/{}", "x".repeat(978));
        for url in [
            "",
            "https://",
            "http://up.example.org/x",
            "ftp://up.example.org/x",
            "//up.example.org/x",
            "up.example.org/x",
            "https:/up.example.org/x",
            "https://user@up.example.org/x",
            "https://user:pw@up.example.org/x",
            "https://up.example.org@evil.example/x",
            "https://up.example.org/x#fragment",
            "https://up.example.org#",
            "https://up.example.org\\@evil.org/x",
            "https://up.example.org /x",
            "https://up.example.org/x y",
            "https://up.example.org/x\r\nHost: evil",
            "https://up.example.org/\u{e4}",
            "https://\u{fc}p.example.org/x",
            "https://up..example.org/x",
            "https://.example.org/x",
            "https://up.example.org../x",
            "https://up.example.org:/x",
            "https://up.example.org:+443/x",
            "https://up.example.org:99999/x",
            "https://up.example.org:22/x",
            "https://up%2eexample.org/x",
            &long,
        ] {
            assert_eq!(text(&open(), url), None, "{url}");
        }
        assert!(text(&open(), &long[..1_000]).is_some());
    }

    #[test]
    fn no_spelling_of_an_address_is_a_name() {
        for host in [
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "0x7f.0x1",
            "2130706433",
            "017700000001",
            "0177.0.0.1",
            "127.0.0.1.",
            "1.0x",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[fe80::1]",
            "[2001:4860:4860::8888]",
            "8.8.8.1",
            "[::1",
            "[1.2.3.4]",
            "[v1.x]",
            "[fe80::1%25eth0]",
        ] {
            let mut all = open();
            all.hosts.extend(["*.8".to_owned(), "*.0.0.1".to_owned()]);
            assert_eq!(text(&all, &format!("https://{host}/x")), None, "{host}");
            assert_eq!(text(&all, &format!("https://{host}:8443/x")), None, "{host}");
        }
    }

    #[test]
    fn no_name_of_this_machine_or_its_network_is_allowed_by_a_pattern() {
        for host in [
            "localhost",
            "a.localhost",
            "LOCALHOST.",
            "printer.local",
            "metadata.google.internal",
            "x.localdomain",
            "router.home.arpa",
            "a.onion",
            "a.test",
            "a.invalid",
            "a.lan",
            "a.alt",
            "intranet",
        ] {
            assert_eq!(text(&open(), &format!("https://{host}/x")), None, "{host}");
        }
    }

    #[test]
    fn what_is_open_for_everybody_is_open_for_names_of_the_public_dns_alone() {
        let everybody = allowed(&["*"]);
        assert!(text(&everybody, "https://up.example.org/x").is_some());
        for host in [
            "localhost",
            "printer.local",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "[::1]",
            "[2001:4860:4860::8888]",
            "8.8.8.8",
            "intranet",
        ] {
            assert_eq!(text(&everybody, &format!("https://{host}/x")), None, "{host}");
        }
        assert!(text(&allowed(&["*", "127.0.0.1"]), "https://127.0.0.1/x").is_some());
    }

    #[test]
    fn what_the_operator_names_in_full_is_allowed() {
        for host in ["localhost", "127.0.0.1", "[::1]", "ntfy.lan", "ntfy"] {
            let url = format!("https://{host}/x");
            assert_eq!(text(&allowed(&[host]), &url), Some(url.clone()));
            assert_eq!(text(&allowed(&["other", "*.x"]), &url), None);
        }
    }

    #[test]
    fn only_hosts_of_the_list_are_allowed() {
        let list = allowed(&["fcm.googleapis.com", "*.notify.windows.com"]);
        assert!(text(&list, "https://fcm.googleapis.com/wp/x").is_some());
        assert!(text(&list, "https://a.b.notify.windows.com/w/?token=x").is_some());
        for url in [
            "https://notify.windows.com/x",
            "https://evilnotify.windows.com/x",
            "https://fcm.googleapis.com.evil.org/x",
            "https://x.fcm.googleapis.com/x",
            "https://evil.org/fcm.googleapis.com",
        ] {
            assert_eq!(text(&list, url), None, "{url}");
        }
    }
}
