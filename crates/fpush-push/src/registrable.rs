//! Which part of a domain somebody has registered.

use std::{borrow::Cow, net::IpAddr};

use idna::AsciiDenyList;
use psl::{List, Psl, Type};

/// The part of a domain that its owner has registered, in the one spelling in which domains are compared: lower case,
/// A-labels, no dot at the end. The owner of `example.co.uk` can invent any number of names below it, so that shares of
/// what senders can use up go by this part.
///
/// Only the ICANN part of the public suffix list counts. A domain below no known suffix, an IP address and a single
/// label are returned whole; an IPv6 address without its brackets.
#[must_use]
pub fn registrable(domain: &str) -> Cow<'_, str> {
    match spelling(domain) {
        Cow::Borrowed(name) => Cow::Borrowed(registered_part(name)),
        Cow::Owned(name) => match registered_part(&name) {
            part if part.len() == name.len() => Cow::Owned(name),
            part => Cow::Owned(part.to_owned()),
        },
    }
}

/// The domain as all others are written.
pub(crate) fn spelling(domain: &str) -> Cow<'_, str> {
    let domain = domain.trim_end_matches(is_dot);
    if let Some(address) = address(domain) {
        return Cow::Owned(address.to_canonical().to_string());
    }
    if !domain.is_ascii() {
        let name = a_labels(domain);
        // An address may have been among what the mapping takes away.
        return Cow::Owned(address(&name).map_or(name, |address| address.to_canonical().to_string()));
    }
    if domain.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(domain.to_ascii_lowercase());
    }
    Cow::Borrowed(domain)
}

/// A domain with other letters than those of ASCII. A label that cannot be one is only written in lower case, so that
/// it does not hide those behind it.
fn a_labels(domain: &str) -> String {
    if domain.len() > LONGEST_DOMAIN {
        return domain.replace(is_dot, ".").to_lowercase();
    }
    let label = |label: &str| match idna::domain_to_ascii_cow(label.as_bytes(), NOT_OF_DOMAINS) {
        Ok(label) => label.into_owned(),
        Err(_) => label.to_lowercase(),
    };
    let labels: Vec<_> = domain.split(is_dot).map(label).collect();
    let name = labels.join(".");
    name.trim_end_matches('.').to_owned()
}

fn address(domain: &str) -> Option<IpAddr> {
    let inner = domain
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(domain);
    // No longer text is an address.
    (inner.len() <= LONGEST_ADDRESS).then(|| inner.parse().ok())?
}

/// The suffix and the label before it; everything if there is no suffix, or nothing before it.
fn registered_part(name: &str) -> &str {
    let Some(suffix) = icann_suffix(name) else {
        return name;
    };
    match name[..name.len() - suffix.len()].strip_suffix('.') {
        Some(before) => {
            let start = before.rfind('.').map_or(0, |dot| dot + 1);
            &name[start..]
        }
        None => name,
    }
}

/// The longest suffix below which a registry, and no private company, gives away names.
fn icann_suffix(name: &str) -> Option<&str> {
    let mut rest = name;
    loop {
        let suffix = List.suffix(rest.as_bytes())?;
        let length = suffix.as_bytes().len();
        match suffix.typ()? {
            Type::Icann => return Some(&name[name.len() - length..]),
            // Shorter rules may lie below that one.
            Type::Private => {
                let private = &name[name.len() - length..];
                rest = private.split_once('.')?.1;
            }
        }
    }
}

/// The separators of labels in a domain (RFC 3490 section 3.1).
fn is_dot(character: char) -> bool {
    matches!(character, '.' | '\u{3002}' | '\u{FF0E}' | '\u{FF61}')
}

/// What separates the parts of an address: a letter that means the same (`\u{ff20}`) must not make one part of two, or
/// somebody's domain another one's account.
const NOT_OF_DOMAINS: AsciiDenyList = AsciiDenyList::new(false, "/@");
/// Of the domain of an address (RFC 7622 section 3.2).
const LONGEST_DOMAIN: usize = 1_023;
/// Eight groups, the last two of them as an IPv4 address.
const LONGEST_ADDRESS: usize = 45;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(cases: &[(&str, &str)]) {
        for (domain, expected) in cases {
            assert_eq!(registrable(domain), *expected, "{domain}");
        }
    }

    #[test]
    fn the_label_before_the_suffix_counts() {
        check(&[
            ("example.org", "example.org"),
            ("xmpp.example.org", "example.org"),
            ("a.b.c.example.org", "example.org"),
            ("a.example.co.uk", "example.co.uk"),
            ("example.co.uk", "example.co.uk"),
            // A rule with an asterisk, and its exception.
            ("a.b.c.ck", "b.c.ck"),
            ("a.www.ck", "www.ck"),
        ]);
    }

    #[test]
    fn private_suffixes_are_not_the_registrys() {
        check(&[
            ("one.github.io", "github.io"),
            ("a.two.github.io", "github.io"),
            ("github.io", "github.io"),
            ("a.b.s3.dualstack.eu-west-1.amazonaws.com", "amazonaws.com"),
            ("a.blogspot.co.uk", "blogspot.co.uk"),
            ("x.dyndns.org", "dyndns.org"),
        ]);
    }

    #[test]
    fn what_has_no_suffix_or_nothing_before_it_is_whole() {
        check(&[
            ("", ""),
            (".", ""),
            ("localhost", "localhost"),
            ("xmpp.internal", "xmpp.internal"),
            ("a.xmpp.local", "a.xmpp.local"),
            ("com", "com"),
            ("co.uk", "co.uk"),
            ("127.0.0.1", "127.0.0.1"),
            ("[127.0.0.1]", "127.0.0.1"),
            ("[::1]", "::1"),
            ("::1", "::1"),
            ("[2001:DB8:0:0:0::1]", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("[", "["),
            ("[]", "[]"),
            ("[xmpp.example.org]", "[xmpp.example.org]"),
        ]);
    }

    #[test]
    fn every_spelling_of_a_domain_is_one() {
        check(&[
            ("XMPP.Example.ORG", "example.org"),
            ("a.example.org.", "example.org"),
            ("a.example.org...", "example.org"),
            ("chat.b\u{fc}cher.example.com", "example.com"),
            ("chat.b\u{fc}cher.de", "xn--bcher-kva.de"),
            ("chat.B\u{dc}CHER.DE.", "xn--bcher-kva.de"),
            ("chat.bu\u{308}cher.de", "xn--bcher-kva.de"),
            ("chat.XN--Bcher-KVA.de", "xn--bcher-kva.de"),
            ("a\u{3002}b\u{fc}cher\u{ff0e}de\u{ff61}", "xn--bcher-kva.de"),
            ("a.\u{ff42}ook.\u{ff23}om", "book.com"),
            ("[2001:DB8::\u{feff}0001]", "2001:db8::1"),
            ("\u{ff11}92.0.2.1", "192.0.2.1"),
            ("a.b.\u{516c}\u{53f8}.cn", "b.xn--55qx5d.cn"),
            ("a.b.xn--55qx5d.cn", "b.xn--55qx5d.cn"),
        ]);
    }

    #[test]
    fn what_is_not_a_domain_is_cut_like_one() {
        check(&[
            ("x1..com", ".com"),
            (".com", ".com"),
            ("\u{fffd}1.evil.com", "evil.com"),
            ("\u{fffd}1.b\u{fc}cher.de", "xn--bcher-kva.de"),
            ("\u{fffd}2\u{3002}evil\u{3002}com", "evil.com"),
            ("a b.evil.com", "evil.com"),
            ("_1.evil.com", "evil.com"),
            ("-1-.evil.com", "evil.com"),
            ("xn--.evil.com", "evil.com"),
            ("xn--99999999999.evil.com", "evil.com"),
        ]);
    }

    #[test]
    fn a_megabyte_is_not_trouble() {
        let label = "a".repeat(1 << 20);
        assert_eq!(registrable(&label), label);
        assert_eq!(registrable(&format!("{label}.example.org")), "example.org");
        assert_eq!(
            registrable(&format!("{}example.org", "a.".repeat(1 << 19))),
            "example.org"
        );
        assert_eq!(
            registrable(&format!("{}.example.org", "\u{fc}".repeat(1 << 19))),
            "example.org"
        );
        assert_eq!(registrable(&".".repeat(1 << 20)), "");
    }

    proptest! {
        #[test]
        fn the_part_of_a_part_is_the_part(domain in ".{0,60}", tail in "(\\.(com|co\\.uk|github\\.io|b\u{fc}cher\\.de))?") {
            let domain = domain + &tail;
            let part = registrable(&domain).into_owned();
            prop_assert_eq!(&*registrable(&part), &*part);
        }
    }
}
