//! Where a request comes from: the client's address behind proxies, and whether a page of somebody else sent it.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, Uri, header};
use fpush_push::Network;

/// Who sent a request; every request of a [`Listener`](crate::Listener) carries it as an extension. There is no
/// `Debug`: nobody's address belongs in a log.
#[derive(Clone, Copy)]
pub struct Client {
    /// The address of the client itself, as far as it can be known.
    pub address: IpAddr,
    /// Whether a trusted proxy passed the request on.
    pub proxied: bool,
}

impl Client {
    /// Who sent a request with these headers over a connection from `peer`. What the headers say of addresses counts
    /// only if the peer is a trusted proxy: then the right-most address that is not one itself. If `X-Forwarded-For`
    /// and `Forwarded` are both there and disagree, one of them was made up by the client, and neither counts.
    pub(crate) fn of(peer: IpAddr, headers: &HeaderMap, trusted_proxies: &[Network]) -> Self {
        let peer = peer.to_canonical();
        let is_trusted = |address: IpAddr| trusted_proxies.iter().any(|network| network.contains(address));
        if !is_trusted(peer) {
            return Self {
                address: peer,
                proxied: false,
            };
        }
        let walk = |hops: Vec<Option<IpAddr>>| {
            let mut address = peer;
            for hop in hops {
                let Some(hop) = hop else { break };
                address = hop;
                if !is_trusted(hop) {
                    break;
                }
            }
            address
        };
        let usual = elements(headers, "x-forwarded-for").map(|hops| walk(hops.map(parse_address).collect()));
        let standard = elements(headers, "forwarded").map(|hops| walk(hops.map(parse_forwarded).collect()));
        let address = match (usual, standard) {
            (Some(usual), Some(standard)) if usual == standard => usual,
            (Some(_), Some(_)) | (None, None) => peer,
            (Some(address), None) | (None, Some(address)) => address,
        };
        Self {
            address,
            proxied: true,
        }
    }

    /// Whether a browser says that a page of another site made it send this. Apps are not browsers and say nothing.
    #[must_use]
    pub fn is_cross_site(self, uri: &Uri, headers: &HeaderMap) -> bool {
        if let Some(site) = headers.get("sec-fetch-site") {
            return site != "same-origin" && site != "none";
        }
        let Some(origin) = headers.get(header::ORIGIN) else {
            return false;
        };
        let Some((scheme, origin)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else {
            return true;
        };
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let host = uri
            .authority()
            .map(|authority| authority.as_str())
            .or_else(|| text("host"));
        let forwarded = text("x-forwarded-host").filter(|_| self.proxied);
        let default_port = if scheme == "https" { ":443" } else { ":80" };
        let plain = |host: &str| {
            host.strip_suffix(default_port)
                .unwrap_or(host)
                .to_ascii_lowercase()
        };
        ![host, forwarded]
            .into_iter()
            .flatten()
            .any(|host| plain(host) == plain(origin))
    }
}

/// Whether a browser sent this, as browsers say with each form. Apps are not browsers and say nothing.
#[cfg(feature = "registration")]
pub(crate) fn is_browser(headers: &HeaderMap) -> bool {
    headers.contains_key("sec-fetch-site") || headers.contains_key(header::ORIGIN)
}

/// The elements of all headers of this name, from the right; `None` if there is no such header.
fn elements<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<impl Iterator<Item = &'a str>> {
    let mut lines: Vec<_> = headers.get_all(name).iter().collect();
    lines.reverse();
    (!lines.is_empty()).then(|| {
        lines
            .into_iter()
            // A value that is not text is an element without an address.
            .flat_map(|line| line.to_str().unwrap_or_default().rsplit(','))
            .map(str::trim)
    })
}

/// The address in an element of `Forwarded`: `for="[2001:db8::1]:4711";proto=https`.
fn parse_forwarded(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("for")
            .then(|| parse_address(value.trim().trim_matches('"')))?
    })
}

/// An address, perhaps with a port, an IPv6 address perhaps in brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse()
        .ok()
        .or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()))
        .or_else(bracketed)
        .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        };
        lines.iter().map(line).collect()
    }

    fn address(peer: &str, lines: &[(&'static str, &str)]) -> String {
        let trusted =
            ["127.0.0.1", "10.0.0.0/8", "2001:db8:1::/48"].map(|network| Network::parse(network).unwrap());
        let client = Client::of(peer.parse().unwrap(), &headers(lines), &trusted);
        client.address.to_string()
    }

    #[test]
    fn only_a_trusted_proxy_may_say_who_the_client_is() {
        let forged = [("x-forwarded-for", "198.51.100.9")];
        assert_eq!(address("192.0.2.1", &forged), "192.0.2.1");
        assert_eq!(address("127.0.0.1", &forged), "198.51.100.9");
        assert_eq!(address("::ffff:127.0.0.1", &forged), "198.51.100.9");
        assert_eq!(address("127.0.0.1", &[]), "127.0.0.1");
    }

    #[test]
    fn the_right_most_address_that_is_not_a_proxy_is_the_client() {
        let of = |value| address("127.0.0.1", &[("x-forwarded-for", value)]);
        assert_eq!(
            of("198.51.100.9, 192.0.2.7"),
            "192.0.2.7",
            "the left one is the client's own invention"
        );
        assert_eq!(of("198.51.100.9, 192.0.2.7, 10.1.2.3"), "192.0.2.7");
        assert_eq!(
            of("198.51.100.9, nonsense, 10.1.2.3"),
            "10.1.2.3",
            "nothing left of nonsense counts"
        );
        assert_eq!(of("unknown"), "127.0.0.1");
        assert_eq!(of("10.1.1.1, 10.2.2.2"), "10.1.1.1", "all are proxies");
        assert_eq!(of("192.0.2.7:1234"), "192.0.2.7");
        assert_eq!(of("[2001:db8::1]:443"), "2001:db8::1");
        let lines = [
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-for", "192.0.2.8, 10.1.1.1"),
        ];
        assert_eq!(
            address("10.9.9.9", &lines),
            "192.0.2.8",
            "several lines are one list"
        );
    }

    #[test]
    fn forwarded_is_read_too_and_believed_only_if_nothing_contradicts_it() {
        let of = |value| address("127.0.0.1", &[("forwarded", value)]);
        assert_eq!(
            of("for=198.51.100.9, For=\"[2001:db8::17]:4711\";proto=https"),
            "2001:db8::17"
        );
        assert_eq!(of("proto=https;for=192.0.2.7;by=10.1.1.1"), "192.0.2.7");
        assert_eq!(of("for=192.0.2.7, for=unknown"), "127.0.0.1");
        let both = |forwarded| {
            address(
                "127.0.0.1",
                &[("x-forwarded-for", "192.0.2.7"), ("forwarded", forwarded)],
            )
        };
        assert_eq!(both("for=192.0.2.7"), "192.0.2.7");
        assert_eq!(both("for=198.51.100.9"), "127.0.0.1");
    }

    #[test]
    fn a_page_of_another_site_is_recognised() {
        let crossing = |proxied, lines: &[(&'static str, &str)]| {
            let client = Client {
                address: [127, 0, 0, 1].into(),
                proxied,
            };
            client.is_cross_site(&Uri::from_static("/push_appserver/v1/push"), &headers(lines))
        };
        assert!(!crossing(false, &[("host", "push.example")]), "an app");
        assert!(!crossing(
            false,
            &[("sec-fetch-site", "same-origin"), ("origin", "https://other")]
        ));
        assert!(!crossing(false, &[("sec-fetch-site", "none")]));
        assert!(crossing(
            false,
            &[
                ("sec-fetch-site", "cross-site"),
                ("host", "h"),
                ("origin", "http://h")
            ]
        ));
        assert!(crossing(false, &[("sec-fetch-site", "same-site")]));
        let origin = |origin| crossing(false, &[("host", "push.example:8280"), ("origin", origin)]);
        assert!(!origin("http://push.example:8280"));
        assert!(origin("http://push.example"));
        assert!(origin("http://evil.example:8280"));
        assert!(origin("null"));
        assert!(!crossing(
            false,
            &[("host", "Push.example:443"), ("origin", "https://push.example")]
        ));
        let behind = [
            ("host", "127.0.0.1:8280"),
            ("x-forwarded-host", "push.example"),
            ("origin", "https://push.example"),
        ];
        assert!(!crossing(true, &behind));
        assert!(
            crossing(false, &behind),
            "only a trusted proxy may say what the host was"
        );
    }
}
