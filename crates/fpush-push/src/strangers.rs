//! Who counts as one client, and what may be shown of a secret or of a name.

use std::net::{IpAddr, Ipv6Addr};

/// What of a client's address counts: with IPv6 the network of 64 bits, because a client with one address there has them
/// all. An IPv4 address in IPv6's clothes is an IPv4 address.
#[must_use]
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// The 48 bits of an IPv6 address that an internet provider gives to a site, which holds 65,536
/// [networks](client_network); an IPv4 address is all of its own.
#[must_use]
pub fn client_site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80)).into(),
    }
}

/// The name under which clients of the HTTP API from an address publish: their [network](client_network), as RFC 4632 and
/// RFC 4291 write it. No domain has such a name.
#[must_use]
pub fn network_name(address: IpAddr) -> String {
    let network = client_network(address);
    let bits = if network.is_ipv4() { 32 } else { 64 };
    format!("{network}/{bits}")
}

/// Whether a publish came over HTTP, by the name under which it came.
#[must_use]
pub fn is_network_name(name: &str) -> bool {
    name.contains('/')
}

/// So much of a secret that two of them can be told apart; nothing of a short one.
#[must_use]
pub fn masked(secret: &str) -> String {
    let shown = if secret.len() < 16 { 0 } else { 4 };
    secret.chars().take(shown).chain(['…']).collect()
}

/// Whether a name that a stranger chose may be in the log. What may be a token of some provider, also of one that the
/// settings do not have, is not shown: apps exchange the fields of name and token.
#[must_use]
pub fn is_plain_name(name: &str) -> bool {
    let is_hex = || name.len() >= 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    // A Firebase installation ID, in base64url.
    let is_installation_id = || name.len() == 22 && name.bytes().any(|byte| byte.is_ascii_uppercase());
    name.len() <= MAX_PLAIN && !is_hex() && !is_installation_id()
}

/// Bytes of the longest name that is shown. Registration tokens are longer.
const MAX_PLAIN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let of = |address: &str| client_network(address.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.2"), of("192.0.2.1"));
    }

    #[test]
    fn what_may_be_a_token_is_not_a_plain_name() {
        for name in [
            "",
            "ios",
            "example-ios-production",
            "org.example.app",
            "0123456789abcde",
        ] {
            assert!(is_plain_name(name), "{name}");
        }
        let long = "a".repeat(33);
        for name in [
            "cYzXb1mQRk-3kH2b0vL9xA",
            "0123456789abcdef",
            &"0f".repeat(32),
            &long,
        ] {
            assert!(!is_plain_name(name), "{name}");
        }
    }

    #[test]
    fn little_is_shown_of_a_secret() {
        assert_eq!(masked("0123456789abcdef"), "0123…");
        assert_eq!(masked("s3cret"), "…");
    }
}
