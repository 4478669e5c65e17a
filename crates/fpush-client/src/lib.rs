//! The HTTP/2 client that backends reach their provider through.
//!
//! One connection per provider carries all pushes of a module, straight over h2: the pools and channels of the
//! layers above it cost more than the push. What h2 does not do by itself is here: dialing with trusted roots and
//! proxies from the operator, a deadline for each request, leaving a connection that is idle or has gone silent, and
//! errors sorted by what can be done about them.

mod activity;
mod answer;
mod client;
mod clock;
mod connection;
mod dial;
mod obstacle;
mod retry_after;
mod settings;
mod single;
mod tally;
mod trust;
mod tunnel;

pub use answer::{Answer, SendError};
pub use client::{ClientSettings, ProviderClient};
pub use clock::CLOCK_WRONG;
pub use dial::{Connector, Dialer, ProxyError};
pub use obstacle::{Obstacle, root_cause};
pub use retry_after::retry_after;
pub use settings::Endpoint;
pub use single::SingleClient;
pub use trust::{Identity, Trust, TrustError};
