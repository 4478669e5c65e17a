//! The readers of foreign bytes, for the fuzz targets.

use http::StatusCode;

use crate::{
    endpoint::Allowed,
    response::Refusal,
    service::{Service, Vendor},
    subscription::Subscription,
};

/// Whom the `<client>` of a notification means, in its one spelling, where endpoints of many hosts are allowed.
#[must_use]
pub fn receiver(client: &str) -> Option<String> {
    allowed().endpoint(client).map(|endpoint| endpoint.text())
}

/// The one spelling of a token, where endpoints of many hosts are allowed.
#[must_use]
pub fn token(text: &str) -> Option<String> {
    Subscription::read(text, &allowed())
        .ok()
        .map(|subscription| subscription.token())
}

fn allowed() -> Allowed {
    Allowed {
        hosts: ["*.org", "*.com", "localhost"].map(str::to_owned).to_vec(),
        ports: vec![443, 8443],
    }
}

/// The name of an answer, and what is said of it, for each service.
#[must_use]
pub fn answer(status: StatusCode, body: &[u8]) -> Vec<(&'static str, String)> {
    let vendors = [Vendor::Mozilla, Vendor::Google, Vendor::Apple, Vendor::Microsoft];
    let services = vendors.into_iter().map(Service::Vendor).chain([Service::Other]);
    services
        .map(|service| {
            let refusal = Refusal::read(service, status, body, None);
            (refusal.entry().name, refusal.describe())
        })
        .collect()
}
