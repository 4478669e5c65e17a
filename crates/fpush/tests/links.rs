//! Several links of one process, between fake XMPP servers and a fake of Apple: which replies go where, what an operator
//! sees of each link, and what a reload leaves alone.

#![cfg(all(
    feature = "enable_registration",
    feature = "enable_apns_support",
    feature = "enable_demo_support"
))]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "links/check.rs"]
mod check;
#[path = "links/groups.rs"]
mod groups;
#[path = "links/modules.rs"]
mod modules;
#[path = "links/reload.rs"]
mod reload;
#[path = "links/rig.rs"]
mod rig;
#[path = "links/servers.rs"]
mod servers;
#[path = "links/several.rs"]
mod several;
#[path = "links/tls.rs"]
mod tls;
