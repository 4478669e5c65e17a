//! Settings that change while the real program runs, between a fake XMPP server and the fakes of Apple and Google: what
//! a reload changes, what it must leave alone, and what becomes of pushes that are under way or held meanwhile.

#![cfg(all(
    feature = "enable_registration",
    feature = "enable_apns_support",
    feature = "enable_fcm_support"
))]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![expect(
    clippy::disallowed_macros,
    reason = "the harness of the tests catches what they print"
)]

#[path = "reload/component.rs"]
mod component;
#[path = "reload/files.rs"]
mod files;
#[path = "reload/load.rs"]
mod load;
#[path = "reload/modules.rs"]
mod modules;
#[path = "reload/refused.rs"]
mod refused;
#[path = "reload/registration.rs"]
mod registration;
#[path = "reload/rig.rs"]
mod rig;
