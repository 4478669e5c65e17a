//! Whom a request goes to: scheme, host and port of its URL (RFC 6454).

use http::{HeaderValue, Uri, uri::Scheme};

/// The origin of a URL, in one spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    https: bool,
    host: Box<str>,
    port: u16,
}

impl Origin {
    /// The origin of a URL that can be requested: one with a host and without a user.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(_) | None => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        Some(Self {
            https,
            host: authority.host().to_ascii_lowercase().into(),
            port: authority.port_u16().unwrap_or_else(|| default_port(https)),
        })
    }

    pub(crate) fn is_https(&self) -> bool {
        self.https
    }

    /// What the `Host` header of HTTP/1.1 says (RFC 9110 section 7.2).
    pub(crate) fn host_header(&self) -> Option<HeaderValue> {
        let Self { https, host, port } = self;
        if *port == default_port(*https) {
            HeaderValue::from_str(host).ok()
        } else {
            HeaderValue::try_from(format!("{host}:{port}")).ok()
        }
    }
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(uri: &str) -> Option<Origin> {
        Origin::of(&uri.parse().unwrap())
    }

    #[test]
    fn an_origin_has_one_spelling() {
        let one = origin("https://up.example.org/a?b").unwrap();
        for same in [
            "https://UP.example.ORG",
            "https://up.example.org:443/c",
            "HTTPS://up.example.org",
        ] {
            assert_eq!(origin(same).as_ref(), Some(&one), "{same}");
        }
        for other in [
            "http://up.example.org/a",
            "https://up.example.org:8443/a",
            "https://up2.example.org",
        ] {
            assert_ne!(origin(other).as_ref(), Some(&one), "{other}");
        }
        for none in [
            "/a",
            "ftp://a/b",
            "https://user:pw@up.example.org/",
            "example.org:443",
        ] {
            assert_eq!(origin(none), None, "{none}");
        }
    }

    #[test]
    fn the_port_of_the_scheme_is_not_named() {
        let host = |uri| origin(uri).unwrap().host_header().unwrap();
        assert_eq!(host("https://a.example:443/x"), "a.example");
        assert_eq!(host("http://a.example:80/x"), "a.example");
        assert_eq!(host("https://A.example:8443/x"), "a.example:8443");
        assert_eq!(host("https://[::1]:8443/x"), "[::1]:8443");
    }
}
