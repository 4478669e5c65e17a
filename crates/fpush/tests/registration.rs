//! Registered devices, with the real program between a fake XMPP server, HTTP clients, the fakes of Apple and Google,
//! and real databases: who registers how, what a publish then does, and what is left of it after a crash.
//!
//! The defects of `mod_push_appserver`, and which test shows that they are not here:
//!
//! | the original | here |
//! |---|---|
//! | both commands reach the other one's handler | `dialects::the_first_dialect_answers_as_its_clients_expect` |
//! | unregistering demands a token that its form lacks | the same |
//! | who knows a node can take it over or remove it | `owners::nobody_else_renews_or_removes_a_device`, `http::the_secret_can_be_demanded` |
//! | secrets come from the clock of the process | `dialects::secrets_and_nodes_are_random` |
//! | Apple's 410 timestamp is ignored | `dead::a_token_that_died_before_the_renewal_lives` |
//! | a wrong environment unregisters every device | `dead::a_module_that_is_set_wrong_unregisters_nobody` |
//! | a throttled publish gets no reply until its push ran | `limits::first_at_once_second_later_third_refused` |
//! | calls go out as visible pushes | `encrypted::a_call_rings_by_the_second_token` |
//! | a crash loses what was registered last | `persistence::a_crash_loses_nothing_that_was_acknowledged` |

#![cfg(all(
    feature = "enable_registration",
    feature = "enable_apns_support",
    feature = "enable_fcm_support"
))]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "registration/bounds.rs"]
mod bounds;
#[path = "registration/dead.rs"]
mod dead;
#[path = "registration/dialects.rs"]
mod dialects;
#[path = "registration/disco.rs"]
mod disco;
#[path = "registration/encrypted.rs"]
mod encrypted;
#[path = "registration/failover.rs"]
mod failover;
#[cfg(feature = "enable_webpush_support")]
#[path = "registration/firefox.rs"]
mod firefox;
#[path = "registration/floods.rs"]
mod floods;
#[path = "registration/former.rs"]
mod former;
#[path = "registration/hostile.rs"]
mod hostile;
#[path = "registration/http.rs"]
mod http;
#[path = "registration/imports.rs"]
mod imports;
#[path = "registration/installation_ids.rs"]
mod installation_ids;
#[path = "registration/instances.rs"]
mod instances;
#[path = "registration/keys.rs"]
mod keys;
#[path = "registration/limits.rs"]
mod limits;
#[path = "registration/migration.rs"]
mod migration;
#[path = "registration/operators.rs"]
mod operators;
#[path = "registration/owners.rs"]
mod owners;
#[path = "registration/p2.rs"]
mod p2;
#[path = "registration/past.rs"]
mod past;
#[path = "registration/persistence.rs"]
mod persistence;
#[path = "registration/postgres.rs"]
mod postgres;
#[path = "registration/publishes.rs"]
mod publishes;
#[path = "registration/rig.rs"]
mod rig;
#[path = "registration/secrets.rs"]
mod secrets;
#[path = "registration/selftest.rs"]
mod selftest;
#[cfg(feature = "enable_webpush_support")]
#[path = "registration/unifiedpush.rs"]
mod unifiedpush;
#[cfg(feature = "enable_webpush_support")]
#[path = "registration/web_client.rs"]
mod web_client;
#[cfg(feature = "enable_webpush_support")]
#[path = "registration/webpush.rs"]
mod webpush;
