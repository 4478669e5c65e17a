//! TLS as a client: whom to trust, as whom to present ourselves, and what is wrong with a certificate. For providers, XMPP
//! servers and whatever else is reached.

mod fault;
mod trust;

pub use fault::{certificate_fault, fault_of};
pub use trust::{Identity, Trust, TrustError};
