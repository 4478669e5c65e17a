//! The HTTP clients that backends reach their providers through.
//!
//! [`ProviderClient`] is for one provider that speaks HTTP/2: one connection carries all pushes of a module, straight over h2,
//! because the pools and channels of the layers above it cost more than the push. [`PooledClient`] is for receivers that are
//! many or may speak HTTP/1.1. Both have what h2 and hyper leave to others: dialing with trusted roots and proxies from the
//! operator, deadlines, leaving a connection that is idle or has gone silent, bounds for what an answer may be, and errors
//! sorted by what can be done about them.

mod activity;
mod answer;
mod client;
mod clock;
mod connection;
mod departures;
mod dial;
mod example;
#[doc(hidden)]
pub mod fuzz;
mod guard;
mod obstacle;
mod origin;
mod pool;
mod pooled;
mod retry_after;
mod settings;
mod tally;
mod tunnel;

pub use answer::{Answer, SendError};
pub use client::{ClientSettings, ProviderClient, Via};
pub use clock::CLOCK_WRONG;
pub use dial::{Dialer, ProxyError};
pub use example::example;
pub use fpush_tls::{Identity, Trust, TrustError};
pub use guard::Guard;
pub use obstacle::{Obstacle, root_cause};
pub use pooled::{PoolSettings, PooledClient, Wanted};
pub use retry_after::retry_after;
pub use settings::Endpoint;
