//! The one spelling of an address, for whatever is compared or counted by it.
//!
//! Servers write one address in many ways: ejabberd passes on what a foreign server wrote, Prosody normalises it. Replies
//! repeat an address as it came; nothing else may look at that spelling.

use std::{borrow::Cow, net::Ipv6Addr};

use crate::registrable::spelling;

/// The bare address (JID) in the one spelling in which owners are compared: without a resource, the localpart as nodeprep
/// has it (RFC 6122 appendix A: case, width, composition), the domain as [`canonical_domain`] has it.
///
/// It is what a server writes that normalises addresses, as Prosody does. So owners that were stored as such a server
/// wrote them stay as they are; before a comparison with older ones from other servers, both are brought into this spelling. What
/// cannot be an address at all is left as it is: then it equals nothing but itself.
#[must_use]
pub fn canonical_jid(jid: &str) -> Cow<'_, str> {
    let bare = jid.split_once('/').map_or(jid, |(bare, _)| bare);
    let Some((localpart, domain)) = bare.split_once('@') else {
        return canonical_domain(bare);
    };
    let localpart = stringprep::nodeprep(localpart).unwrap_or(Cow::Borrowed(localpart));
    match (&localpart, canonical_domain(domain)) {
        (Cow::Borrowed(localpart), Cow::Borrowed(domain))
            if localpart.len() + domain.len() + 1 == bare.len() =>
        {
            Cow::Borrowed(bare)
        }
        (localpart, domain) => Cow::Owned(format!("{localpart}@{domain}")),
    }
}

/// The domain of an address in one spelling: lower case, composed, no dot at the end, U-labels in the place of A-labels
/// (IDNA 2008 with the mappings of UTS #46), IP addresses in their usual form.
///
/// Names that some servers take for one and DNS does not (`straße.example`, `strasse.example`) stay two: nobody gets
/// at what belongs to another.
#[must_use]
pub fn canonical_domain(domain: &str) -> Cow<'_, str> {
    let name = spelling(domain);
    if name.contains(':') && name.parse::<Ipv6Addr>().is_ok() {
        // An IPv6 address is in brackets (RFC 7622 section 3.2).
        return Cow::Owned(format!("[{name}]"));
    }
    if !name.contains(A_LABEL) {
        return name;
    }
    let labels: Vec<_> = name.split('.').map(u_label).collect();
    Cow::Owned(labels.join("."))
}

/// The label as people read it, if it is an A-label of one.
fn u_label(label: &str) -> Cow<'_, str> {
    if !label.starts_with(A_LABEL) {
        return Cow::Borrowed(label);
    }
    match idna::domain_to_unicode(label) {
        (text, Ok(())) if *spelling(&text) == *label => Cow::Owned(text),
        _ => Cow::Borrowed(label),
    }
}

const A_LABEL: &str = "xn--";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_an_address_is_one() {
        for (jid, expected) in [
            ("u@a.example", "u@a.example"),
            ("u@a.example/r@x/y", "u@a.example"),
            ("a.example", "a.example"),
            ("U@A.Example", "u@a.example"),
            ("u@a.example.", "u@a.example"),
            ("\u{ff35}@\u{ff41}.example", "u@a.example"),
            ("u@a\u{3002}example", "u@a.example"),
            ("Ü@a.example", "ü@a.example"),
            ("u\u{308}@a.example", "ü@a.example"),
            ("u@mu\u{308}ller.example", "u@müller.example"),
            ("u@MÜLLER.example", "u@müller.example"),
            ("u@xn--mller-kva.example", "u@müller.example"),
            ("u@XN--MLLER-KVA.example.", "u@müller.example"),
            ("u@[2001:DB8::0001]", "u@[2001:db8::1]"),
            ("u@[2001:DB8::\u{feff}0001]", "u@[2001:db8::1]"),
            ("u@192.0.2.1", "u@192.0.2.1"),
        ] {
            assert_eq!(canonical_jid(jid), expected, "{jid}");
        }
        assert!(matches!(
            canonical_jid("u@a.example/r"),
            Cow::Borrowed("u@a.example")
        ));
        assert!(matches!(
            canonical_domain("a.example."),
            Cow::Borrowed("a.example")
        ));
    }

    #[test]
    fn what_belongs_to_two_stays_two() {
        for (one, other) in [
            ("u@straße.example", "u@strasse.example"),
            ("u@xn--strae-oqa.example", "u@strasse.example"),
            ("u@a.example", "v@a.example"),
            ("u@a.example", "a.example"),
            ("u@xn--nonsense!.example", "u@nonsense.example"),
            ("alice\u{ff20}a.example", "alice@a.example"),
            ("alice@a.example\u{ff0f}b.example", "alice@a.example/b.example"),
            // No localparts.
            ("\u{1}@a.example", "@a.example"),
        ] {
            assert_ne!(canonical_jid(one), canonical_jid(other));
        }
    }

    proptest! {
        #[test]
        fn the_one_spelling_is_its_own(jid in "[a-zA-Z.@/xn\\-ÄäßＡ。é\u{308}:\\[\\]0-9]{0,20}") {
            let once = canonical_jid(&jid).into_owned();
            prop_assert_eq!(canonical_jid(&once), once.as_str());
        }
    }
}
