//! `fpush check` and `fpush send`, with the real program beside a daemon and without one: who connects to
//! whom, what the operator reads, and what scripts learn from the exit status.

#![cfg(all(feature = "enable_apns_support", feature = "enable_fcm_support"))]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "commands/check.rs"]
mod check;
#[cfg(feature = "enable_registration")]
#[path = "commands/database.rs"]
mod database;
#[path = "commands/denied.rs"]
mod denied;
#[cfg(feature = "enable_registration")]
#[path = "commands/dynamic.rs"]
mod dynamic;
#[path = "commands/environment.rs"]
mod environment;
#[path = "commands/health.rs"]
mod health;
#[path = "commands/help.rs"]
mod help;
#[cfg(feature = "enable_registration")]
#[path = "commands/output.rs"]
mod output;
#[path = "commands/reload.rs"]
mod reload;
#[path = "commands/rig.rs"]
mod rig;
#[path = "commands/schema.rs"]
mod schema;
#[path = "commands/send.rs"]
mod send;
#[path = "commands/servers.rs"]
mod servers;
#[path = "commands/socket.rs"]
mod socket;
#[path = "commands/start.rs"]
mod start;
#[path = "commands/token.rs"]
mod token;
#[cfg(feature = "enable_webpush_support")]
#[path = "commands/webpush.rs"]
mod webpush;
