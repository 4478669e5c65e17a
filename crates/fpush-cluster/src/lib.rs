//! What several instances of fpush share, in one engine: Valkey or Redis.
//!
//! The policy of each instance decides first; the engine confirms, in one script and one round trip ([`Engine`] makes the
//! lanes that a module asks). An engine that is away, slow or wrong costs nothing but the sharing: each instance decides alone
//! then, and when the engine is back all tell it what they know. Nothing here elects, replicates or gossips.

mod address;
mod agreement;
mod connection;
mod engine;
#[doc(hidden)]
pub mod fuzz;
mod held;
mod lane;
mod link;
mod names;
mod outbox;
mod report;
mod script;
mod settings;
mod trouble;
mod wire;

pub use self::{
    engine::{Engine, EngineStatus, Fingerprints, probe},
    settings::ClusterSettings,
    trouble::{Missing, Trouble},
};
