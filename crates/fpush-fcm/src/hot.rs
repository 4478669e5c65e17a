//! The hot pieces one by one. For the benches, and for nobody else: nothing here is part of the interface.

use std::time::Duration;

use bytes::Bytes;
use fpush_client::{ClientSettings, Dialer, ProviderClient, Trust};
use fpush_push::{
    Class, Push,
    settings::{Report, Section},
};
use http::{HeaderValue, Request, Uri};
use serde_json::Map;
use tokio::time::Instant;

use crate::{
    access_token::{AccessToken, Issued},
    backend::{Fcm, Mode},
    content::Contents,
    message::{Message, Target},
};

/// Makes the requests of a module with the usual settings.
pub struct Requests {
    fcm: Fcm,
    issued: Issued,
}

impl Requests {
    /// With an access token as long as Google's.
    #[must_use]
    pub fn new() -> Option<Self> {
        let uri = Uri::from_static("https://fcm.googleapis.com/v1/projects/project-1/messages:send");
        let (request_timeout, hour) = (Duration::from_secs(10), Duration::from_secs(3_600));
        let settings = ClientSettings {
            trust: Trust::new(None).ok()?,
            identity: None,
            dialer: Dialer::new(&uri).ok()?,
            request_timeout,
            idle_timeout: Duration::from_secs(600),
        };
        let (nothing, report) = (Map::new(), Report::default());
        let contents = Contents::read(&mut Section::root(&nothing, &report), &[]);
        let message = Message::new(Class::High, Target::Auto, contents.of(Class::High));
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", "x".repeat(1_024))).ok()?;
        authorization.set_sensitive(true);
        Some(Self {
            fcm: Fcm {
                client: ProviderClient::new(settings, uri.clone()),
                uri,
                access_token: AccessToken::new("").0,
                mode: Mode::One(Class::High, Box::new(message.ok()?)),
                request_timeout,
                digest: 0,
            },
            issued: Issued {
                authorization,
                generation: 1,
                since: Instant::now(),
                until: Instant::now() + hour,
            },
        })
    }

    /// The request for a push.
    #[must_use]
    pub fn build(&self, push: &Push) -> Request<Bytes> {
        self.fcm.request(push, &self.issued)
    }
}
