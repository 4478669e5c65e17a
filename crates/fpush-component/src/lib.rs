//! The component: an XEP-0114 stream to the XMPP server, XEP-0357 publishes in, replies out.
//!
//! Bytes become stanzas in `stream`, stanzas requests in `request`, usual publishes requests at once in `usual`, `dispatcher` decides who does them, and the replies
//! go out through `outbox` as `reply` words them. `connection` is one connection, `link` what has one after the other,
//! `life` how it does so, and `component` all links.

mod addresses;
mod answers;
mod command;
mod component;
mod connection;
mod dial;
mod dispatcher;
mod domains;
#[doc(hidden)]
pub mod fuzz;
#[doc(hidden)]
pub mod hot;
mod life;
mod link;
mod login;
mod meters;
mod outbox;
mod pings;
mod push2;
mod reply;
mod request;
mod selftest;
mod service;
mod settings;
mod stream;
mod tls;
mod turns;
mod usual;
mod xml;

pub use component::{Component, Handle, LinkStep};
pub use dial::{Dial, Socket};
pub use link::LinkStatus;
pub use meters::ComponentMeters;
pub use settings::{LinkSettings, Push2Settings};
pub use tls::TlsSettings;
