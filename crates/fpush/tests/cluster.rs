//! Several daemons that share what they know over one engine, which may be away, slow, full or flushed; each has an XMPP server
//! of its own, and all have one Apple.

#![cfg(all(feature = "enable_apns_support", feature = "enable_cluster"))]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "cluster/engine.rs"]
mod engine;
#[path = "cluster/kinds.rs"]
mod kinds;
#[path = "cluster/load.rs"]
mod load;
#[path = "cluster/nodes.rs"]
mod nodes;
#[path = "cluster/rig.rs"]
mod rig;
#[path = "cluster/servers.rs"]
mod servers;
#[path = "cluster/sharing.rs"]
mod sharing;
#[path = "cluster/takeover.rs"]
mod takeover;
#[path = "cluster/token.rs"]
mod token;
