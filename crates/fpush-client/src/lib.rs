//! The HTTP/2 client that backends reach their provider through.
//!
//! One connection per provider carries all pushes of a module. What hyper-util's client does not do by itself
//! is here: a deadline for each request, leaving a connection that has gone silent, trusted roots and
//! proxies from the operator, and errors sorted by what can be done about them.

mod activity;
mod client;
mod dial;
mod retry_after;
mod settings;
mod trust;

pub use activity::Watched;
pub use client::{Answer, ClientSettings, OauthClient, ProviderClient, SendError, root_cause};
pub use dial::{Connector, Dialer, ProxyError};
pub use retry_after::retry_after;
pub use settings::Endpoint;
pub use trust::{Identity, Trust, TrustError};
