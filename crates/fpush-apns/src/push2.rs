//! Whom the `<client>` of a notification of Push 2.0 means at Apple. No specification says it: this is the form of the pusher that
//! the draft's apps use, `https://api.push.apple.com/3/device/TOKEN#TOPIC`, with `&` and the token for calls behind it, if there
//! is one.

use fpush_push::Receiver;

use crate::{backend::canonical, purpose::Environment};

/// The app of a module.
#[derive(Clone, Debug)]
pub(crate) struct App {
    /// Its bundle ID.
    pub(crate) topic: String,
    /// Where the module sends to; `None` if that is a relay, which may be anywhere.
    pub(crate) environment: Option<Environment>,
}

impl App {
    /// The token that is meant, in its one spelling: that for calls, if this is one and there is such a token. `None` for what
    /// is not a device of this app.
    pub(crate) fn receiver(&self, client: &str, call: bool) -> Option<Receiver> {
        if client.len() > LONGEST {
            return None;
        }
        let (host, path) = client.strip_prefix("https://")?.split_once('/')?;
        let is_sandbox = SANDBOX.contains(&host);
        let is_served = match self.environment {
            Some(Environment::Production) => !is_sandbox,
            Some(Environment::Sandbox) => is_sandbox,
            Some(Environment::Both) | None => true,
        };
        if !(is_sandbox || host == PRODUCTION) || !is_served {
            return None;
        }
        let (token, named) = path.strip_prefix("3/device/")?.split_once('#')?;
        let (topic, for_calls) = match named.split_once('&') {
            Some((topic, token)) => (topic, Some(token).filter(|token| !token.is_empty())),
            None => (named, None),
        };
        if topic != self.topic {
            return None;
        }
        let (token, call) = match for_calls {
            Some(for_calls) if call => (for_calls, true),
            Some(_) | None => (token, false),
        };
        let token = canonical(token)?.into_owned();
        Some(Receiver { token, call })
    }
}

const PRODUCTION: &str = "api.push.apple.com";
/// Apple has two names for it.
const SANDBOX: [&str; 2] = ["api.development.push.apple.com", "api.sandbox.push.apple.com"];
/// Bytes of a `<client>`.
const LONGEST: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn app(environment: Option<Environment>) -> App {
        App {
            topic: "org.example.app".to_owned(),
            environment,
        }
    }

    fn found(app: &App, client: &str, call: bool) -> Option<(String, bool)> {
        let receiver = app.receiver(client, call)?;
        Some((receiver.token, receiver.call))
    }

    #[test]
    fn a_client_names_token_and_topic() {
        let app = app(Some(Environment::Production));
        let client = "https://api.push.apple.com/3/device/ABcd12#org.example.app";
        let plain = Some(("abcd12".to_owned(), false));
        assert_eq!(found(&app, client, false), plain);
        assert_eq!(found(&app, client, true), plain, "there is no other token");
        let both = format!("{client}&Ef34");
        assert_eq!(found(&app, &both, false), plain);
        assert_eq!(found(&app, &both, true), Some(("ef34".to_owned(), true)));
        assert_eq!(found(&app, &format!("{client}&"), true), plain);
    }

    #[test]
    fn a_module_takes_those_of_its_own_environment() {
        use Environment::{Both, Production, Sandbox};
        for (host, served_by) in [
            ("api.push.apple.com", [None, Some(Both), Some(Production)]),
            (
                "api.development.push.apple.com",
                [None, Some(Both), Some(Sandbox)],
            ),
            ("api.sandbox.push.apple.com", [None, Some(Both), Some(Sandbox)]),
        ] {
            let client = format!("https://{host}/3/device/abcd#org.example.app");
            for environment in [None, Some(Both), Some(Production), Some(Sandbox)] {
                let taken = app(environment).receiver(&client, false).is_some();
                assert_eq!(taken, served_by.contains(&environment), "{host} {environment:?}");
            }
        }
    }

    #[test]
    fn what_is_not_a_device_of_the_app_is_nobody() {
        let long = "ab".repeat(500);
        for client in [
            "",
            "https://",
            "https://api.push.apple.com",
            "https://api.push.apple.com/3/device/abcd",
            "https://api.push.apple.com/3/device/abcd#",
            "https://api.push.apple.com/3/device/abcd#org.example.other",
            "https://api.push.apple.com/3/device/abcd#org.example.app.voip",
            "https://api.push.apple.com/3/device/#org.example.app",
            "https://api.push.apple.com/3/device/abc#org.example.app",
            "https://api.push.apple.com/3/device/ab/../cd#org.example.app",
            "https://api.push.apple.com/3/device/%61%62#org.example.app",
            "https://api.push.apple.com/4/device/abcd#org.example.app",
            "https://api.push.apple.com:443/3/device/abcd#org.example.app",
            "https://user@api.push.apple.com/3/device/abcd#org.example.app",
            "https://api.push.apple.com.evil.example/3/device/abcd#org.example.app",
            "http://api.push.apple.com/3/device/abcd#org.example.app",
            &format!("https://api.push.apple.com/3/device/{long}#org.example.app"),
        ] {
            assert_eq!(found(&app(None), client, false), None, "{client}");
        }
        let bad = "https://api.push.apple.com/3/device/abcd#org.example.app&xyz";
        assert_eq!(found(&app(None), bad, true), None);
        assert!(found(&app(None), bad, false).is_some());
    }
}
