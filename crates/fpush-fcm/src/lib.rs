//! Backend for Firebase Cloud Messaging (HTTP v1 API).
//!
//! Facts come from Google's pages "projects.messages", "`ErrorCode`" and "Scale FCM", and from the answers that
//! projects have seen on the wire.

mod access_token;
mod assertion;
mod backend;
mod content;
mod credentials;
#[doc(hidden)]
pub mod fuzz;
#[doc(hidden)]
pub mod hot;
mod message;
mod resource;
mod response;
mod settings;
mod token_endpoint;

pub use settings::Google;
