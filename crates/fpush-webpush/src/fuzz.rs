//! The readers of foreign bytes, for the fuzz targets.

use http::StatusCode;

use crate::{
    endpoint::Allowed,
    response::Refusal,
    service::{Service, Vendor},
    subscription::Subscription,
};

/// The one spelling of a token, where endpoints of many hosts are allowed.
#[must_use]
pub fn token(text: &str) -> Option<String> {
    let allowed = Allowed {
        hosts: ["*.org", "*.com", "localhost"].map(str::to_owned).to_vec(),
        ports: vec![443, 8443],
    };
    Subscription::read(text, &allowed).map(|subscription| subscription.token())
}

/// What is said of an answer of each service.
#[must_use]
pub fn answer(status: u16, body: &[u8]) -> Vec<String> {
    let Ok(status) = StatusCode::from_u16(status) else {
        return Vec::new();
    };
    let vendors = [Vendor::Mozilla, Vendor::Google, Vendor::Apple, Vendor::Microsoft];
    let services = vendors.into_iter().map(Service::Vendor).chain([Service::Other]);
    services
        .map(|service| Refusal::read(service, status, body, None).describe())
        .collect()
}
