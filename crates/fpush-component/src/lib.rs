//! The component: an XEP-0114 stream to the XMPP server, XEP-0357 publishes in, replies out.
//!
//! Bytes become stanzas in `stream`, stanzas requests in `request`, `dispatcher` decides who does them, and the replies
//! go out through `outbox` as `reply` words them. `link` is one connection, `component` the life with one connection
//! after the other.

mod command;
mod component;
mod dial;
mod dispatcher;
mod domains;
#[doc(hidden)]
pub mod fuzz;
#[doc(hidden)]
pub mod hot;
mod link;
mod login;
mod meters;
mod outbox;
mod reply;
mod request;
mod service;
mod settings;
mod stream;
mod turns;
mod xml;

pub use component::{Component, Handle, LinkStatus};
pub use dial::{Dial, Socket};
pub use meters::ComponentMeters;
pub use settings::ComponentSettings;
