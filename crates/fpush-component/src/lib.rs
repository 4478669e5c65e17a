//! The component: an XEP-0114 stream to the XMPP server, XEP-0357 publishes in, replies out.
//!
//! Bytes become stanzas in `stream`, stanzas requests in `request`, `desk` has them done, and what a module answers
//! becomes a reply in `reply`. `link` is one connection, `component` the life with one connection after the
//! other.

mod component;
mod desk;
#[doc(hidden)]
pub mod hot;
mod link;
mod login;
mod outbox;
mod reply;
mod request;
mod senders;
mod service;
mod stream;
mod xml;

pub use component::{Component, ComponentSettings, Handle, LinkStatus};
