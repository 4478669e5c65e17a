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
            Self::Vendor(vendor) => vendor.name(),
            Self::Other => "the push service",
        }
    }
}

/// Whether a host, in lower case, is the pattern's: the same one, or, for `*.` and a domain, any below that, or, for `*`, any.
pub(crate) fn matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern == EVERYBODY || pattern == host,
        Some(domain) => host
            .strip_suffix(domain)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|below| !below.is_empty()),
    }
}

/// How far what is at an endpoint is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is a vendor's own host: what it does is the vendor's doing.
    Vendors(Vendor),
    /// It is below a domain of a vendor that names no hosts. What it says is the vendor's word, but not about what is the same
    /// for all endpoints of a host: anybody may have found one that takes nothing from anybody.
    Below(Vendor),
    /// A stranger has chosen it, of all that there is.
    Strangers,
}

impl Standing {
    /// That of a host, in lower case, at a port. What is not a usual push service of a vendor's is a stranger's choice.
    pub(crate) fn of(host: &str, port: u16) -> Self {
        let own = VENDORS.iter().find(|(pattern, _)| *pattern == host);
        match (own, Service::of(host)) {
            _ if port != HTTPS => Self::Strangers,
            (Some((_, vendor)), _) => Self::Vendors(*vendor),
            (None, Service::Vendor(vendor)) => Self::Below(vendor),
            (None, Service::Other) => Self::Strangers,
        }
    }
}

impl Vendor {
    /// For the log and for metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mozilla => "Mozilla",
            Self::Google => "Google",
            Self::Apple => "Apple",
            Self::Microsoft => "Microsoft",
        }
    }

    /// The one whose lane has this number.
    pub(crate) fn of_lane(number: u8) -> Option<Self> {
        let mut all = VENDORS.iter().map(|(_, vendor)| *vendor);
        all.find(|vendor| vendor.lane() == number)
    }

    /// The number of its lane. It is written down: it never changes.
    pub(crate) fn lane(self) -> u8 {
        match self {
            Self::Mozilla => 0,
            Self::Google => 1,
            Self::Apple => 2,
            Self::Microsoft => 3,
        }
    }
}

/// The port of https.
pub(crate) const HTTPS: u16 = 443;

/// The pattern of all hosts.
pub(crate) const EVERYBODY: &str = "*";
/// The hosts of the vendors' push services, and no others of theirs: a stranger who registers makes this machine send to them.
pub(crate) const VENDORS: [(&str, Vendor); 4] = [
    ("updates.push.services.mozilla.com", Vendor::Mozilla),
    ("fcm.googleapis.com", Vendor::Google),
    ("web.push.apple.com", Vendor::Apple),
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
    }

    #[test]
    fn a_vendor_answers_for_what_it_has_named_and_for_no_invented_host_or_port() {
        for (host, port, standing) in [
            ("web.push.apple.com", 443, Standing::Vendors(Vendor::Apple)),
            ("fcm.googleapis.com", 443, Standing::Vendors(Vendor::Google)),
            (
                "wns2-par02p.notify.windows.com",
                443,
                Standing::Below(Vendor::Microsoft),
            ),
            ("web.push.apple.com", 8443, Standing::Strangers),
            ("api.push.apple.com", 443, Standing::Strangers),
            ("old.push.services.mozilla.com", 443, Standing::Strangers),
            ("up.example.org", 443, Standing::Strangers),
        ] {
            assert_eq!(Standing::of(host, port), standing, "{host}:{port}");
        }
    }
}
