//! Outages of a provider, with the real program: publishes are acknowledged at once and held, whatever happens to the
//! program, and each device gets its push soon after the provider is back, at a rate that grows.

#![cfg(feature = "enable_fcm_support")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{thread, time::Duration};

use fpush_testkit::{
    fake_fcm::fcm_error,
    outage::{Kind, World},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fpush");
const SECOND: Duration = Duration::from_secs(1);
/// So many devices get messages all the time.
const DEVICES: usize = 100;

/// An outage of sixteen seconds with a restart and a crash in it.
fn outage(kind: Kind) {
    let mut world = World::start(PROGRAM, DEVICES, None, || true);
    assert_eq!(world.push(DEVICES), "result");
    let outcome = world.outage(kind, 16 * SECOND).unwrap();
    let answers: Vec<_> = outcome.answers.keys().collect();
    assert_eq!(answers, ["result"], "{:?}", outcome.answers);
    // It is known to be down: nobody waits for its answer any more.
    assert!(outcome.answered_in < 3 * SECOND, "{:?}", outcome.answered_in);
    assert_eq!(outcome.woken(), DEVICES, "{}", world.daemon.log());
    assert_eq!(
        outcome.unexplained(),
        Vec::<String>::new(),
        "{}",
        world.daemon.log()
    );
    assert_eq!(outcome.spikes(), 0, "{:?}", outcome.by_second());
    // And now as if nothing had been.
    assert_eq!(world.push(0), "result");
}

#[test]
fn nothing_is_lost_while_the_provider_answers_503() {
    outage(Kind::Unavailable);
}

#[test]
fn nothing_is_lost_while_the_provider_says_nothing() {
    outage(Kind::Silent);
}

#[test]
fn nothing_is_lost_while_the_provider_refuses_connections() {
    outage(Kind::Refused);
}

#[test]
fn nothing_is_lost_while_the_provider_wants_a_pause() {
    outage(Kind::Quota);
}

#[test]
fn nothing_is_lost_while_the_token_endpoint_is_away() {
    outage(Kind::TokenEndpoint);
}

/// As before: the server hears that its push did not arrive, and keeps the device.
#[test]
fn without_hold_for_an_outage_is_answered_wait() {
    let mut world = World::start(PROGRAM, DEVICES, Some("0s"), || true);
    world
        .fcm
        .answer_with(|_| fcm_error(503, "UNAVAILABLE", Some("UNAVAILABLE"), &[]));
    assert_eq!(world.push(0), "wait/remote-server-timeout");
    world.fcm.answer_normally();
    let before = world.fcm.count();
    thread::sleep(2 * SECOND);
    assert_eq!(world.fcm.count(), before);
}
