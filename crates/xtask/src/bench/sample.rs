//! Requests as fpush sends them, for the floor to send the same.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use fpush_testkit::TempDir;
use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::load::{Amount, Kind};
use super::plan::Load;
use super::providers::{Backend, Providers};
use super::rig::Rig;
use super::template::Server;

/// One request.
pub(super) struct Sample {
    path: String,
    headers: HeaderMap,
    body: String,
}

/// One request for each kind of module that sends any.
pub(super) struct Samples {
    certificate: Sample,
    provider_token: Sample,
    fcm: Sample,
}

impl Samples {
    /// Lets fpush send one push to each.
    pub(super) fn take(fpush: &Path) -> Result<Self> {
        let folder = TempDir::new();
        let providers = Providers::start(folder.path(), true)?;
        let endpoints = providers.endpoints(folder.path());
        let backends = [Backend::Certificate, Backend::ProviderToken, Backend::Fcm];
        let modules = backends.map(|backend| (backend.name().to_owned(), endpoints.module(backend)));
        let mut rig = Rig::start(fpush, &Value::Object(Map::from_iter(modules)))?;
        for backend in backends {
            let load = Load {
                backend,
                server: Server::Prosody,
                in_flight: 1,
            };
            rig.link.next = NUMBER;
            rig.run(
                &[load.template()],
                load.in_flight,
                Amount::Publishes(1),
                Kind::Result,
            )?;
        }
        let mut apns = providers.apns.requests().into_iter();
        let mut apns = || {
            let request = apns.next().context("a push did not reach the stand-in")?;
            Sample::new(request.path, request.headers, &request.body)
        };
        let fcm = providers.fcm.sends().into_iter().next();
        let fcm = fcm.context("the push did not reach the stand-in")?;
        Ok(Self {
            certificate: apns()?,
            provider_token: apns()?,
            fcm: Sample::new(
                format!("/v1/projects/{}/messages:send", fcm.project),
                fcm.headers,
                &fcm.body,
            )?,
        })
    }

    pub(super) fn of(&self, backend: Backend) -> Option<&Sample> {
        match backend {
            Backend::Certificate => Some(&self.certificate),
            Backend::ProviderToken => Some(&self.provider_token),
            Backend::Fcm => Some(&self.fcm),
            Backend::Demo => None,
        }
    }
}

impl Sample {
    fn new(path: String, headers: HeaderMap, body: &Value) -> Result<Self> {
        let body = body.to_string();
        let length = headers
            .get("content-length")
            .and_then(|length| length.to_str().ok());
        ensure!(
            length == Some(&body.len().to_string()),
            "the request's body is not {body}"
        );
        Ok(Self { path, headers, body })
    }

    pub(super) fn json(&self) -> Value {
        let headers = self.headers.iter().map(|(name, value)| {
            // Sensitive ones are written differently, and cost more.
            let text = String::from_utf8_lossy(value.as_bytes());
            json!([name.as_str(), text, value.is_sensitive()])
        });
        json!({ "path": self.path, "headers": headers.collect::<Vec<_>>(), "body": self.body })
    }
}

/// The number of the samples' publishes, which nothing else in a request looks like.
pub(super) const NUMBER: u64 = 0xfedc_ba98_7654_3210;
