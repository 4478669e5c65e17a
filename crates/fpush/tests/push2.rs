//! Push 2.0: the real program between a fake XMPP server, whose messages are those of Prosody's `mod_push2`, and the fakes of
//! push services and of Apple. What is passed on, what is answered, and what strangers cannot do with it.

#![cfg(all(feature = "enable_webpush_support", feature = "enable_apns_support"))]

#[path = "push2/answers.rs"]
mod answers;
#[path = "push2/hostile.rs"]
mod hostile;
#[path = "push2/prosody.rs"]
mod prosody;
#[path = "push2/relay.rs"]
mod relay;
#[path = "push2/rig.rs"]
mod rig;
