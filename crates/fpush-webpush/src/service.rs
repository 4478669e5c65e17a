//! Whose push service an endpoint is of.

/// The browsers' vendors, each of which has one push service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vendor {
    /// autopush, for Firefox.
    Mozilla,
    /// FCM, for Chromium and its descendants.
    Google,
    /// For Safari and all browsers of iOS.
    Apple,
    /// WNS, for Edge.
    Microsoft,
}

/// A push service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// One of a vendor.
    Vendor(Vendor),
    /// Any other, which strangers may have chosen: a `UnifiedPush` server, mostly.
    Other,
}

impl Service {
    /// The service at this host, in lower case.
    pub(crate) fn of(host: &str) -> Self {
        let found = VENDORS.iter().find(|(pattern, _)| matches(pattern, host));
        found.map_or(Self::Other, |(_, vendor)| Self::Vendor(*vendor))
    }

    /// For the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vendor(Vendor::Mozilla) => "Mozilla",
            Self::Vendor(Vendor::Google) => "Google",
            Self::Vendor(Vendor::Apple) => "Apple",
            Self::Vendor(Vendor::Microsoft) => "Microsoft",
            Self::Other => "the push service",
        }
    }
}

/// Whether a host, in lower case, is the pattern's: the same one, or, for `*.` and a domain, any below that.
pub(crate) fn matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern == host,
        Some(domain) => host
            .strip_suffix(domain)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|below| !below.is_empty()),
    }
}

/// Whether a host is one that a vendor has named, and no name that anybody may have invented below a domain of a vendor's.
pub(crate) fn is_vendors_own(host: &str) -> bool {
    VENDORS.iter().any(|(pattern, _)| *pattern == host)
}

/// The hosts of the vendors' push services.
pub(crate) const VENDORS: [(&str, Vendor); 7] = [
    ("updates.push.services.mozilla.com", Vendor::Mozilla),
    ("*.push.services.mozilla.com", Vendor::Mozilla),
    ("fcm.googleapis.com", Vendor::Google),
    // Of Chromium that was built without Google's keys.
    ("jmt17.google.com", Vendor::Google),
    ("web.push.apple.com", Vendor::Apple),
    ("*.push.apple.com", Vendor::Apple),
    ("*.notify.windows.com", Vendor::Microsoft),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_below_a_vendors_domain_is_the_vendors() {
        for (host, service) in [
            (
                "updates.push.services.mozilla.com",
                Service::Vendor(Vendor::Mozilla),
            ),
            ("fcm.googleapis.com", Service::Vendor(Vendor::Google)),
            ("web.push.apple.com", Service::Vendor(Vendor::Apple)),
            (
                "wns2-par02p.notify.windows.com",
                Service::Vendor(Vendor::Microsoft),
            ),
            ("notify.windows.com", Service::Other),
            (".notify.windows.com", Service::Other),
            ("evilnotify.windows.com", Service::Other),
            ("fcm.googleapis.com.example", Service::Other),
            ("x.fcm.googleapis.com", Service::Other),
            ("up.example.org", Service::Other),
        ] {
            assert_eq!(Service::of(host), service, "{host}");
        }
        assert!(is_vendors_own("web.push.apple.com"));
        assert!(!is_vendors_own("invented.push.apple.com"));
    }
}
