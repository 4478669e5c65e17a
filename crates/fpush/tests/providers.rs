//! The real program between a fake XMPP server and the fakes of Apple, Google and browsers' vendors, over real sockets: what of a
//! publish reaches the provider, and what of the provider's answer reaches the publish's sender.
//!
//! The defects of the original fpush, and which test shows that they are not here:
//!
//! | the original | here |
//! |---|---|
//! | reads PKCS#12 with the system's OpenSSL: files of Keychain fail | `apns::every_kind_of_certificate_file_works` |
//! | Apple's production port only | every test here: `endpoint` and `caFilePath` |
//! | `apns-expiration` is a date in 1970 | `apns::a_push_is_what_apple_wants` |
//! | no `apns-id`: what is sent again is not recognised | `connections::what_breaks_is_sent_again_at_once_under_the_same_id` |
//! | a push module is built twice if it is the default one | `limits::the_default_module_is_the_same_module_under_two_names` |
//! | a panic while modules are built | `settings.rs` |
//! | every stanza is a task, without bound | `limits::a_flood_delays_only_itself`; `fpush-driver`: `module::tests::line::never_more_are_at_the_provider_than_allowed` |
//! | tokens below 64 and above 512 bytes are acknowledged and not sent | `apns::what_is_not_a_token_of_apples_reaches_no_url`, `fcm::tokens_of_any_length_are_sent` |
//! | a queued push is answered when it has been sent | `limits::first_at_once_second_later_third_refused` |
//! | a queued push is sent although its token has died meanwhile | `fpush-driver`: `module::tests::queue::a_queued_push_is_dropped_when_its_token_dies` |
//! | a block shrinks when it is probed | `fpush-policy`: `blocklist::tests::a_publish_in_the_second_half_prolongs_a_block_and_never_shortens_it` |
//! | the rate limit's clean-up is inverted | `fpush-policy`: `limiter::tests::the_clean_up_forgets_what_is_older_than_its_interval_and_nothing_else` |
//! | any of `blacklist` given, all of it must be | `settings.rs`; `apns::part_of_a_blacklist_is_enough` |
//! | an outage is `cancel`/`bad-request`, which unregisters the device | `connections::no_outage_is_answered_with_anything_but_wait` |
//! | so are 403 and all other 400s | `apns::every_answer_of_apples`, `fcm::every_answer_of_googles` |
//! | `BadDeviceToken` is asked for ever | `fpush-policy`: `verdict::tests::a_wrong_token_is_dead_at_the_second_word_after_a_day_of_others_successes` |
//! | 410 is `policy-violation` | `apns::every_answer_of_apples` |
//! | Apple's 410 timestamp is ignored | `fpush-apns`: `response::tests::the_time_of_death_is_kept` |
//! | 429 is acknowledged, and the push is lost | `apns::a_busy_device_gets_its_push_later` |
//! | 404, 413 and unknown reasons block the token | `apns::every_answer_of_apples` |
//! | a project's quota punishes one token | `fcm::the_projects_quota_pauses_the_module_and_the_devices_quota_one_token` |
//! | errors without `errorCode` in the first detail are not errors | `fcm::every_answer_of_googles` |
//! | no signal is handled | `limits::sigterm_answers_and_delivers_everything` |
//! | no end of the retries, or none at all | `connections::who_does_not_answer_at_all_is_answered_for_in_25_seconds` |
//!
//! Those of the stream, the stanzas, the replies and the settings are in `component.rs` and `settings.rs`.

#![cfg(any(feature = "enable_apns_support", feature = "enable_fcm_support"))]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[cfg(feature = "enable_apns_support")]
#[path = "providers/apns.rs"]
mod apns;
#[cfg(feature = "enable_apns_support")]
#[path = "providers/connections.rs"]
mod connections;
#[cfg(feature = "enable_fcm_support")]
#[path = "providers/fcm.rs"]
mod fcm;
#[cfg(all(feature = "enable_apns_support", feature = "enable_fcm_support"))]
#[path = "providers/hostile.rs"]
mod hostile;
#[cfg(feature = "enable_fcm_support")]
#[path = "providers/installation_ids.rs"]
mod installation_ids;
#[cfg(feature = "enable_apns_support")]
#[path = "providers/limits.rs"]
mod limits;
#[cfg(all(feature = "enable_apns_support", feature = "enable_fcm_support"))]
#[path = "providers/network.rs"]
mod network;
#[cfg(feature = "enable_apns_support")]
#[path = "providers/payloads.rs"]
mod payloads;
#[path = "providers/rig.rs"]
mod rig;
#[cfg(feature = "enable_apns_support")]
#[path = "providers/spellings.rs"]
mod spellings;
#[cfg(feature = "enable_webpush_support")]
#[path = "providers/webpush.rs"]
mod webpush;
