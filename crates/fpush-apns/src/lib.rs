//! Backend for the Apple Push Notification service (HTTP/2 provider API).
//!
//! Facts come from Apple's pages "Sending notification requests to APNs", "Handling notification responses
//! from APNs" and "Establishing a token-based connection to APNs".

mod backend;
mod credentials;
#[doc(hidden)]
pub mod hot;
mod payload;
mod provider_token;
mod response;
mod settings;

pub use settings::Apple;
