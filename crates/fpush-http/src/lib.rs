//! HTTP listeners, and with the feature `registration` the API of `mod_push_appserver`: devices register, unregister
//! and are pushed to over HTTP exactly as there, so that its apps work unchanged.
//!
//! [`Listener::bind`] opens a port or takes over one that a running listener has, [`Listener::serve`] serves any router
//! on it. `listener.rs` accepts connections, speaks TLS and keeps all bounds; `connections.rs` decides which of them ends for
//! another; `settings.rs` is what an operator can say
//! of a listener; `hosts.rs` keeps strangers' pages from what is the operator's; `api.rs` is the router with the endpoints, `registrations.rs`
//! how often an address may ask, `wording.rs` has the tables from outcomes and errors to lines of text;
//! `pages.rs` has the HTML.

mod answers;
#[cfg(feature = "registration")]
mod api;
mod connections;
#[cfg(feature = "registration")]
mod cors;
#[cfg(feature = "registration")]
mod form;
#[doc(hidden)]
pub mod fuzz;
mod hosts;
mod limits;
mod listener;
mod origin;
mod own_thread;
#[cfg(feature = "registration")]
mod pages;
#[cfg(feature = "registration")]
mod registrations;
mod settings;
mod shares;
mod tls;
#[cfg(feature = "registration")]
mod wording;

#[cfg(feature = "registration")]
pub use crate::{api::api, cors::AllowedOrigins, settings::HttpSettings};
pub use crate::{
    hosts::HostNames,
    limits::Limits,
    listener::{Handle, Listener, StartError},
    origin::Client,
    settings::{Security, read_listen},
    tls::ServerCertificate,
};
