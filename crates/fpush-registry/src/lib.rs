//! Registered devices: what the settings block `registration` switches on.
//!
//! A client registers its token in one of three dialects (or over HTTP) and learns a node and a secret; a publish
//! with these goes to that token. [`Registry`] is the whole of it: it finds devices and executes the clients'
//! commands ([`Devices`]), and keeps the database, in which one task writes.
//!
//! [`Devices`]: fpush_push::Devices

mod asking;
mod cache;
mod device;
mod dialects;
mod entry;
mod error;
mod expiry;
mod former;
pub mod lines;
mod past;
pub mod prosody;
mod registry;
mod rules;
mod settings;
mod store;
mod targets;
mod throttle;
mod times;
mod writer;

pub use device::{Device, Dialect, Time};
pub use error::{OpenError, RegisterError};
pub use former::Former;
pub use past::{Doubt, Known};
pub use registry::{Canonical, Heard, Hooks, HttpRegistration, LooksLikeToken, Registered, Registry};
pub use settings::{RegistrySettings, StoreSettings};
pub use store::Probe;
pub use writer::Imported;
