//! Registered devices: what the settings block `registration` switches on.
//!
//! A client registers its token in one of three dialects (or over HTTP) and learns a node and a secret; a publish
//! with these goes to that token. [`Registry`] is the whole of it: it finds devices and executes the clients'
//! commands ([`Devices`]), and keeps the database, in which one task writes.
//!
//! [`Devices`]: fpush_push::Devices

mod asking;
mod batch;
mod cache;
mod change;
mod device;
mod dialects;
mod entry;
mod error;
mod expiry;
mod foreign;
mod former;
mod full;
#[doc(hidden)]
pub mod fuzz;
mod jobs;
pub mod lines;
mod lookup;
mod nodes;
pub mod p2;
mod past;
pub mod prosody;
mod registrar;
mod registry;
mod rules;
mod secrets;
mod settings;
mod shared;
mod shelf;
mod store;
mod strays;
mod targets;
mod text;
mod throttle;
mod time;
mod times;
mod unreadable;
mod writer;

pub use batch::RowError;
pub use change::Imported;
pub use device::{Device, Dialect};
pub use error::{OpenError, RegisterError};
pub use former::Former;
pub use full::Full;
pub use past::{Doubt, Known};
pub use registrar::{NoModules, PushModules};
pub use registry::{Destination, IfMissing, Page, Registered, Registry, Unowned};
pub use settings::{RegistrySettings, StoreSettings};
pub use store::probe::Probe;
pub use strays::Strays;
pub use throttle::Throttle;
pub use time::Time;
pub use unreadable::Unreadable;
