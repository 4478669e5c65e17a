//! Backend for Web Push: browsers, and apps that use `UnifiedPush`.
//!
//! A push is one POST to the endpoint that the browser or the app has got from its push service (RFC 8030), encrypted for
//! that one receiver (RFC 8291), and signed with the module's key (VAPID, RFC 8292). Facts about the push services come from
//! their sources, where those are open, and from the answers that others have seen on the wire.

mod backend;
mod encoding;
mod encryption;
mod endpoint;
#[doc(hidden)]
pub mod fuzz;
mod hosts;
mod key;
mod payload;
mod relay;
mod response;
mod service;
mod settings;
mod subscription;
mod vapid;

pub use key::{KeyError, NewKey, new_key};
pub use settings::WebPush;
