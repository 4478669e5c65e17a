//! By which names a listener may be asked for what only its operator should see.
//!
//! A page of a stranger can make a browser ask any address that the browser reaches, and read the answer, if the
//! stranger's own name resolves to that address at that moment (DNS rebinding). Then the request names the stranger's
//! host. So pages are served only under an address, or under a name that no stranger can have.

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, StatusCode, Uri, header},
    middleware::{Next, from_fn},
    response::IntoResponse as _,
};
use fpush_push::{canonical_domain, settings::Section};
use serde_json::Value;
use tracing::warn;

/// The names of the settings. Addresses, `localhost` and other names without a dot are good without being there:
/// nobody gets such a name in the public DNS, and containers call each other by them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNames(Vec<String>);

impl HostNames {
    /// Takes names as they are; `None` if one of them has a port, a scheme or anything else that no name has.
    #[must_use]
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let name = |name: &str| {
            let is_name = !name.is_empty()
                && !name.contains(|c: char| c.is_whitespace() || c.is_control() || "/:@?#[]*".contains(c));
            is_name.then(|| canonical_domain(name).into_owned())
        };
        names.into_iter().map(name).collect::<Option<_>>().map(Self)
    }

    /// Reads `hostNames`. Every mistake goes into the settings' report.
    pub(crate) fn read(section: &mut Section<'_>) -> Self {
        let names = match section.value("hostNames") {
            None => return Self::default(),
            Some(Value::Array(list)) => list.iter().map(Value::as_str).collect::<Option<Vec<_>>>(),
            Some(_) => None,
        };
        names.and_then(Self::new).unwrap_or_else(|| {
            section.error(
                "hostNames",
                "expected a list of host names without scheme and port, such as [\"status.example.org\"]",
            );
            Self::default()
        })
    }

    /// Whether a request names a host by which it may ask. One that names none comes from no browser.
    pub(crate) fn admit(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let authority = uri.authority().map(|authority| Some(authority.as_str()));
        let mut hosts = headers
            .get_all(header::HOST)
            .into_iter()
            .map(|host| host.to_str().ok())
            .chain(authority);
        hosts.all(|host| host.is_some_and(|host| self.knows(host)))
    }

    /// Whether this is an address, a name without a dot or one of the names, with a port or without.
    fn knows(&self, host: &str) -> bool {
        let host = match host.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            Some(_) | None => host,
        };
        if host.contains('@') {
            return false;
        }
        let name = canonical_domain(host);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<std::net::IpAddr>().is_ok()
            || !name.contains(['.', ':', '[', ']'])
            || self.0.iter().any(|known| **known == *name)
    }

    /// The router for requests under such a name; all others are answered 403. `setting` is the key that lists the names.
    pub fn guard(self, router: Router, setting: &'static str) -> Router {
        router.layer(from_fn(move |request: Request, next: Next| {
            let admitted = self.admit(request.uri(), request.headers());
            async move {
                if admitted {
                    next.run(request).await
                } else {
                    warn!("a request under an unknown host name was refused; if it is yours, add it to {setting}.hostNames");
                    refusal(setting).into_response()
                }
            }
        }))
    }
}

/// The answer to a request under an unknown name.
pub(crate) fn refusal(setting: &str) -> (StatusCode, String) {
    let text = format!(
        "This page is not given out under this host name. Ask by the address, or add the name to {setting}.hostNames.\n"
    );
    (StatusCode::FORBIDDEN, text)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn strangers_names_are_refused() {
        let names = HostNames::new(["Status.example", "müller.example"]).unwrap();
        let admits = |hosts: &[&str]| {
            let headers = hosts
                .iter()
                .map(|host| (header::HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap()))
                .collect();
            names.admit(&Uri::from_static("/"), &headers)
        };
        for host in [
            "127.0.0.1",
            "127.0.0.1:9114",
            "[::1]:9114",
            "[::1]",
            "192.0.2.7",
            "localhost",
            "LOCALHOST.:9114",
            "fpush:9114",
            "status.example",
            "STATUS.example.:443",
            "xn--mller-kva.example",
        ] {
            assert!(admits(&[host]), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9114",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "status.example.evil.example",
            "status.example@evil.example",
            "evil.example@127.0.0.1",
            "[::1].evil.example",
            "a.status.example",
            "\u{fffd}.example",
        ] {
            assert!(!admits(&[host]), "{host}");
        }
        assert!(admits(&[]), "HTTP/1.0");
        assert!(!admits(&["localhost", "evil.example"]));
        let absolute = Uri::from_static("http://evil.example/");
        assert!(!names.admit(&absolute, &HeaderMap::new()));
    }

    #[test]
    fn names_are_names() {
        for name in ["", "a:80", "https://a", "a/b", "*.example", "a b"] {
            assert!(HostNames::new([name]).is_none(), "{name}");
        }
    }
}
