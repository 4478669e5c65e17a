//! The hot pieces one by one. For the benches, and for nobody else: nothing here is part of the interface.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use fpush_client::{ClientSettings, Dialer, ProviderClient, Trust};
use fpush_push::{
    Class, Push,
    settings::{Report, Section},
};
use http::{Request, Uri, uri::Authority};
use serde_json::Map;

use crate::{
    backend::{Apns, Authentication, Mode},
    content::Contents,
    credentials::Validity,
    payload::{PayloadSettings, Ready},
    provider_token::{Agreements, Clocks, ProviderToken},
    purpose::Environment,
    push2::App,
};

/// Makes the requests of a module with the usual settings.
pub struct Requests(Apns);

impl Requests {
    /// Of one with a client certificate, of which there is nothing in a request.
    #[must_use]
    pub fn with_certificate() -> Option<Self> {
        Self::new(Authentication::Certificate(Box::new(Validity {
            subject: String::new(),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
            from: String::new(),
            until: String::new(),
        })))
    }

    /// Of one with a provider token, signed with the key in this .p8 file.
    #[must_use]
    pub fn with_provider_token(p8: &str) -> Option<Self> {
        let token = ProviderToken::new(
            p8.as_bytes(),
            "ABC123DEFG",
            "DEF123GHIJ",
            Agreements::default(),
            Clocks::now(),
        )
        .ok()?;
        Self::new(Authentication::Token(Arc::new(token)))
    }

    fn new(authentication: Authentication) -> Option<Self> {
        let uri = Uri::from_static("https://api.push.apple.com");
        let settings = ClientSettings {
            trust: Trust::new(None).ok()?,
            identity: None,
            dialer: Dialer::new(&uri).ok()?,
            request_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(600),
        };
        let payload = PayloadSettings {
            topic: "org.example.app".to_owned(),
            collapse: false,
        };
        let (nothing, report) = (Map::new(), Report::default());
        let contents = Contents::read(&mut Section::root(&nothing, &report), &[]);
        let ready = |class| Ready::new(class, &payload, contents.of(class)).ok().map(Box::new);
        Some(Self(Apns {
            client: ProviderClient::new(settings, uri),
            authority: Authority::from_static("api.push.apple.com"),
            authentication,
            mode: Mode::One(Class::High, ready(Class::High)?),
            call: ready(Class::Voip)?,
            app: App {
                topic: "org.example.app".to_owned(),
                environment: Some(Environment::Production),
            },
            ttl: Duration::from_secs(28 * 86_400),
            digest: 0,
        }))
    }

    /// The request for a push.
    #[must_use]
    pub fn build(&self, push: &Push) -> Option<Request<Bytes>> {
        self.0.request(push).map(|(request, _)| request)
    }
}
