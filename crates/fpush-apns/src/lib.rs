//! Backend for the Apple Push Notification service (HTTP/2 provider API).
//!
//! Facts come from Apple's pages "Sending notification requests to APNs", "Handling notification responses
//! from APNs" and "Establishing a token-based connection to APNs".

mod backend;
mod both;
mod content;
mod credentials;
#[doc(hidden)]
pub mod fuzz;
#[doc(hidden)]
pub mod hot;
mod payload;
mod pkcs12;
mod provider_token;
mod purpose;
mod push2;
mod response;
mod settings;
mod topic;

pub use settings::Apple;
