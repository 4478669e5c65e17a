//! How much there may be of everything.

use std::time::Duration;

/// The bounds of a listener and of what is behind it. The defaults fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time. A further one takes the place of one without a request; if there is none, it waits.
    pub connections: usize,
    /// Connections of one address at a time; further ones are closed. Trusted proxies have as many as there are.
    pub connections_per_address: usize,
    /// From the beginning of a connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// From there to the end of the first request's head.
    pub first_request: Duration,
    /// How long a connection stays without a request.
    pub idle: Duration,
    /// From the end of a request's head to the end of its body.
    pub body: Duration,
    /// Pushes under way at a time.
    pub pushes: usize,
    /// Pushes of one address under way at a time.
    pub pushes_per_address: usize,
    /// Other requests that ask the registry, at a time.
    pub lookups: usize,
    /// Other requests of one address that ask the registry, at a time.
    pub lookups_per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1_024,
            connections_per_address: 128,
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(10),
            // Longer than proxies keep an unused connection (nginx: 60 s), so that they are the ones to end it.
            idle: Duration::from_secs(75),
            body: Duration::from_secs(10),
            pushes: 512,
            pushes_per_address: 128,
            lookups: 512,
            lookups_per_address: 128,
        }
    }
}
