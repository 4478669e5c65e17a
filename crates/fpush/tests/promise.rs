//! The promise: no reply of fpush's costs a living device its push registration.
//!
//! Each test is a row of one table: a mistake of the operator's, or news from a provider, against what every server
//! would do with each reply. The program is the real one; its clocks are moved, so that it lives through days.
//!
//! * No mistake of an operator's unregisters a device: [`mistakes`], [`registry`].
//! * No incident at a provider unregisters more than ten: [`incidents`].
//! * What is really dead is unregistered: [`dead`].
//! * Of a module for two environments neither alone is believed: [`environments`].
//! * Neither does one on the way in or back, with an import, both environments or a shadow: [`moving`].
//! * The same of Web Push, where strangers choose who speaks: [`webpush`].
//! * No mistake of an operator's ends a registration of Push 2.0: [`push2`].
//! * A shadow unregisters nobody, whatever it decides, and neither it nor what follows it loses a push: [`shadow`].

#![cfg(all(
    feature = "enable_registration",
    feature = "enable_apns_support",
    feature = "enable_fcm_support"
))]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "promise/dead.rs"]
mod dead;
#[path = "promise/environments.rs"]
mod environments;
#[path = "promise/incidents.rs"]
mod incidents;
#[path = "promise/mistakes.rs"]
mod mistakes;
#[path = "promise/moving.rs"]
mod moving;
#[cfg(feature = "enable_webpush_support")]
#[path = "promise/push2.rs"]
mod push2;
#[path = "promise/registry.rs"]
mod registry;
#[path = "promise/rig.rs"]
mod rig;
#[path = "promise/shadow.rs"]
mod shadow;
#[path = "promise/time.rs"]
mod time;
#[cfg(feature = "enable_webpush_support")]
#[path = "promise/webpush.rs"]
mod webpush;
