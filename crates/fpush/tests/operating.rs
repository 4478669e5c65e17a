//! What an operator sees of a daemon in trouble: the real program with `monitoring.listen`, between fakes of all that it
//! talks to. Each failure leads to a line on the status page, to metrics, to a line in the log and to what `/readyz` says;
//! and when it is over, all of that is as before.
//!
//! The status page says what is in `/status.json`: red are lines of level `error`, amber those of level `warning`. `trouble`
//! is the label `kind` of `fpush_module_trouble`; with those marked * the module is still up (`fpush_module_up 1`).
//!
//! | failure | status page | metric | log | `/readyz` |
//! |---|---|---|---|---|
//! | wrong component secret | red, link: `the server answered not-authorized`, and what to compare | `fpush_component_up 0`, `fpush_component_login_failures_total{reason="not-authorized"}` | ERROR `no link: the server answered not-authorized` | 503 `link down: …` |
//! | another instance has the name, at the login | red, link: `the server answered conflict` | the same with `reason="conflict"` | ERROR `no link: the server answered conflict` | 503 `link down: …` |
//! | another instance takes the name | red, link: `another instance has logged in as …`; the next attempt comes after a minute | `fpush_component_up 0`, `fpush_component_disconnects_total{reason="conflict"}` | WARN `link down: another instance …` | 503 `link down: …` |
//! | XMPP server down | red, link: `cannot connect to the server: …` | `fpush_component_up 0`, `…login_failures_total{reason="connect"}` | WARN `link down: …`, then ERROR `no link: …` | 503 `link down: …` |
//! | provider down | red: `no connection to the provider: Connection refused`, and where to look | trouble `provider`, `fpush_provider_connect_failures_total`, `fpush_provider_connections 0` | WARN `the provider did not take a push` | ready |
//! | provider down since the start | amber: `not proven yet that the provider accepts its credentials; the last attempt failed: …` | trouble `unproven`, `fpush_module_proof{state="not_tried"}` | WARN `the provider cannot be asked …` | ready |
//! | provider does not answer | red: `no answer from the provider in time` | trouble `provider`, `fpush_provider_answers_total{reason="timeout"}` | the same | ready |
//! | provider slow, line full | no line, the module works; among the problems: `overloaded: publishes arrive faster than the provider accepts them …` | `fpush_pushes_waiting`, `fpush_pushes_total{outcome="overloaded"}` | WARN, the same words | ready |
//! | project's quota used up | amber: `429 QUOTA_EXCEEDED`, until the pause is over | trouble `paused`* | WARN `throttled by the provider; pausing this module` | ready |
//! | certificate expired | red: `the certificate expired on …` | trouble `authentication`, `fpush_credential_expires_in_seconds` below 0 | WARN at the start | 503 `module …: the certificate expired …` |
//! | certificate ends in less than 30 days | amber, in the last 7 days red: `the certificate ends in … days` | trouble `expiring`*, `fpush_credential_expires_in_seconds` | WARN at the start | ready |
//! | a listener's certificate ends | amber from 30 days before, red from 7 | `fpush_certificate_expires_in_seconds` | WARN at the start, then once a day | ready |
//! | wrong `environment` from now on: all tokens are bad | red: `the provider rejects too many tokens: …`; publishes get `wait` | trouble `wrong_tokens`, `fpush_rejection_bursts_total`; no `token_dead` | one ERROR, the same words | ready |
//! | wrong `environment` from the start | amber: `the provider has rejected every token so far: …`; publishes get `wait` | trouble `nothing_accepted`; no `token_dead` | one WARN, the same words | ready |
//! | service account of another project (SENDER_ID_MISMATCH) | the same | the same with its reason | ERROR, the same words and `belongs to another Firebase project` | ready |
//! | service account may not send (403 PERMISSION_DENIED) | red: `403 PERMISSION_DENIED`, and what to allow | trouble `authentication` | ERROR `the provider refuses this module's credentials or settings` | 503 `module …: …` |
//! | APNs key refused (403 InvalidProviderToken) | red: `403 InvalidProviderToken: …` | trouble `authentication` | the same | 503 `module …: …` |
//! | service account refused (invalid_grant) | red: `the service account is refused (invalid_grant)`, also if nobody pushes; publishes get `wait` at once | trouble `authentication`, no `fpush_credential_age_seconds` | ERROR `no access token: …` | 503 `module …: …` |
//! | token endpoint down | amber: `there is no access token`; publishes wait for it, and when three have waited in vain, red: `the token endpoint cannot be reached` | no `fpush_credential_age_seconds`, then trouble `provider` | WARN `no access token: …` | ready |
//! | clock off by 2 h, Apple | red: `403 ExpiredProviderToken` or `InvalidProviderToken: The clock of this machine is wrong …`; amber: by how many seconds | trouble `authentication` | ERROR with the same words | 503 `module …: …` |
//! | clock off by 2 h, Google | amber while the access token is taken: `the clock of this machine is 7200 s ahead of the provider's …`; then red: `401 UNAUTHENTICATED: The clock …`, amber: `invalid_grant` | trouble `clock`*, then `provider` | ERROR `no access token: … (invalid_grant)`, WARN with the clock | ready: the token is good until its end, as far as we know |
//! | disk full in the state directory | red, state directory: `cannot write held.jsonl …`; pushes go on | `fpush_state_directory_ok 0`, `fpush_state_writes_total{result="failed"}` | ERROR, the same words; INFO `stateDirectory can be written to again` | ready |
//! | another fpush uses the state directory | none: it does not start, exit status 71 | none | ERROR `another fpush uses stateDirectory …: stop it, or choose another folder` | none |
//! | no device has registered yet | amber, registered devices: `no device has registered yet …` | `fpush_registry_trusted 1`, `fpush_registered_devices 0` | INFO, the same words | ready |
//! | the database is another one, or an older copy (start or reload) | red, registered devices: `this is another database …`, `the database does not know what it knew before …`; unknown devices get `wait` | `fpush_registry_trusted 0` | ERROR, the same words; INFO `… is believed again` | ready |
//! | the database cannot be used (start or later) | red, registered devices: `the database cannot be used: …` | `fpush_registry_up 0` | one ERROR `the database of registered devices cannot be used`, one INFO `… can be used again` | ready |
//! | a module is a shadow (`"shadow": true`) | amber: `a shadow ("shadow": true): it decides and counts, sends nothing …` | trouble `shadow`* | WARN `this module sends nothing …` | ready |
//! | a mistake in new settings | amber, settings: `the last reload was refused …` with every mistake | `fpush_last_reload_successful 0`, `fpush_reloads_total{result="refused"}` | ERROR with every mistake, then `reload rejected, keeping the old settings` | ready |

#![cfg(all(
    feature = "enable_registration",
    feature = "enable_apns_support",
    feature = "enable_fcm_support",
    feature = "enable_demo_support"
))]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![expect(
    clippy::disallowed_macros,
    reason = "the harness of the tests catches what they print"
)]

mod common;

#[path = "operating/apple.rs"]
mod apple;
#[path = "operating/descriptors.rs"]
mod descriptors;
#[path = "operating/google.rs"]
mod google;
#[path = "operating/link.rs"]
mod link;
#[path = "operating/listener.rs"]
mod listener;
#[path = "operating/load.rs"]
mod load;
#[path = "operating/logs.rs"]
mod logs;
#[path = "operating/registry.rs"]
mod registry;
#[path = "operating/rig.rs"]
mod rig;
#[path = "operating/senders.rs"]
mod senders;
#[path = "operating/shadow.rs"]
mod shadow;
#[path = "operating/state.rs"]
mod state;
#[path = "operating/systemd.rs"]
mod systemd;
#[path = "operating/verification.rs"]
mod verification;
