//! A Web Push subscription as apps name it, and the one string that it is as a token.

/// What a browser, or a `UnifiedPush` distributor, has given to its app (Push API, `PushSubscription`), as texts that nobody has
/// looked at. There is no `Debug`: all of it is secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// Where pushes go: a URL.
    pub endpoint: &'a str,
    /// The receiver's public key, in base64.
    pub p256dh: &'a str,
    /// The secret of receiver and sender, in base64.
    pub auth: &'a str,
}

impl<'a> Subscription<'a> {
    /// Takes a token apart: `webpush:ENDPOINT|P256DH|AUTH`.
    #[must_use]
    pub fn of_token(token: &'a str) -> Option<Self> {
        // The endpoint may have bars, too.
        let mut parts = token.strip_prefix(PREFIX)?.rsplitn(3, '|');
        let (auth, p256dh, endpoint) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            endpoint,
            p256dh,
            auth,
        })
    }

    /// The token.
    #[must_use]
    pub fn to_token(self) -> String {
        let Self {
            endpoint,
            p256dh,
            auth,
        } = self;
        format!("{PREFIX}{endpoint}|{p256dh}|{auth}")
    }
}

/// Whether two texts are the same bytes in base64: base64url or standard, with padding or without.
#[must_use]
pub fn is_same_base64(a: &str, b: &str) -> bool {
    fn plain(text: &str) -> impl Iterator<Item = char> {
        text.trim_end_matches('=').chars().map(|c| match c {
            '+' => '-',
            '/' => '_',
            other => other,
        })
    }
    plain(a).eq(plain(b))
}

const PREFIX: &str = "webpush:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_one_string() {
        let token = "webpush:https://up.example.org/a|b?c|P|A";
        let subscription = Subscription::of_token(token).unwrap();
        assert_eq!(subscription.endpoint, "https://up.example.org/a|b?c");
        assert_eq!((subscription.p256dh, subscription.auth), ("P", "A"));
        assert_eq!(subscription.to_token(), token);
        for none in [
            "",
            "https://up.example.org/|P|A",
            "webpush:https://up.example.org/|P",
        ] {
            assert!(Subscription::of_token(none).is_none(), "{none}");
        }
    }

    #[test]
    fn base64_has_four_spellings() {
        for same in ["-_-_", "+/+/", "-_-_==", "+/+/="] {
            assert!(is_same_base64("-_-_", same), "{same}");
        }
        for other in ["", "-_-", "-_-_A", "a_-_"] {
            assert!(!is_same_base64("-_-_", other), "{other}");
        }
    }
}
