//! What must survive a restart, with the real program and `stateDirectory`: its block list and the pushes that it
//! acknowledged and holds. A restart is one that systemd makes, or a crash.

#![cfg(feature = "enable_apns_support")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "state/blocks.rs"]
mod blocks;
#[path = "state/files.rs"]
mod files;
#[path = "state/held.rs"]
mod held;
#[cfg(feature = "enable_registration")]
#[path = "state/registered.rs"]
mod registered;
#[path = "state/rig.rs"]
mod rig;
