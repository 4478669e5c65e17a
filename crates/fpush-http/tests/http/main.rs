//! The HTTP API over real sockets, with a real registry.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod api;
mod browser;
mod curl;
mod end;
mod limits;
mod log;
mod rig;
mod tls;
