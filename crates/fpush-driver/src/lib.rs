//! Carries out what `fpush-policy` decides.
//!
//! A publish for a [`Module`] is admitted or answered at once ([`Module::admit`]). An admitted push knows its module, and
//! [`Admitted::deliver`] waits for its permit, makes the attempts and says what became of it. [`Module::run`] sends held
//! pushes when their time has come. Only this crate waits: what is to be done is the policy's to say.

mod clock;
mod drain;
mod lane;
mod liveness;
mod module;
mod modules;
mod senders;
mod shared;
mod store;

pub use clock::clocks;
pub use drain::Drain;
pub use liveness::{Liveness, Probe};
pub use module::{Admission, Admitted, Block, Home, Module, NotSent, TokenRole, TokenView, Words};
pub use modules::{Modules, Resolved};
pub use senders::Senders;
pub use shared::{Claiming, ClaimingDeath, Cluster, HandingOver, SharedLane, TakenPart, Taking, Telling};
pub use store::{Acknowledge, HeldStore, Part, Read};
