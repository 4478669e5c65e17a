//! Pushes that were acknowledged and wait.

use std::{thread, time::Instant};

use fpush_testkit::Answer;
use serde_json::json;

use crate::rig::{HELD, LONG, REFUSED, RESULT, Rig, SECOND, token};

/// What waits goes out before the end, because a restart may take long; it must not go out again after it.
#[test]
fn a_clean_restart_sends_what_waits_once() {
    let mut rig = Rig::start("10min");
    rig.hold(&token(1));
    assert_eq!(rig.apns.count(), 1);
    let last = rig.stop();
    assert!(last.contains("stopped undelivered=0 kept=0"), "{last}");
    assert_eq!(rig.sent(&token(1)), 2);
    assert!(!rig.read(HELD).contains(&token(1)), "{}", rig.read(HELD));

    rig.start_again();
    assert_eq!(rig.push(&token(2)), RESULT);
    assert!(!rig.daemon.log().contains("held since before the start"));
    assert_eq!(
        rig.stop().split_once("stopped ").unwrap().1,
        "undelivered=0 kept=0"
    );
    assert_eq!((rig.sent(&token(1)), rig.apns.count()), (2, 3));
}

/// Its time is the one that it had: a crash must not turn the rate limit into a burst, and a restart not restart it.
#[test]
fn after_a_crash_what_waits_goes_out_once_and_when_it_is_due() {
    let mut rig = Rig::start("12s");
    let first = rig.hold(&token(1));
    rig.wait_for(HELD, |text| text.contains(&token(1)));
    // A part of its time is over then.
    thread::sleep(3 * SECOND);
    rig.daemon.kill();
    let over = first.elapsed();
    rig.start_again();
    rig.daemon.wait_for_log("held since before the start", LONG);
    // The window that it waits for is open again as well.
    assert_eq!(rig.push(&token(1)), REFUSED);
    assert_eq!(rig.apns.count(), 1);
    let requests = rig.apns.wait_for(2, LONG);
    let waited = requests[1].at - first;
    assert!(waited > 11 * SECOND, "{waited:?}");
    assert!(
        waited < over + 12 * SECOND,
        "it begins anew: {waited:?}, {over:?}"
    );
    assert_eq!(requests[1].token, token(1));
    assert_eq!(requests[1].header("apns-push-type"), Some("alert"));

    rig.wait_for(HELD, |text| !text.contains(&token(1)));
    rig.daemon.kill();
    rig.start_again();
    assert!(!rig.daemon.log().contains("held since before the start"));
    assert_eq!(rig.push(&token(2)), RESULT);
    assert_eq!(rig.apns.count(), 3, "nothing was sent twice");
}

/// What became due while fpush was away goes out at once, each once.
#[test]
fn what_became_due_meanwhile_goes_out_at_the_start() {
    let mut rig = Rig::start("12s");
    let tokens: Vec<_> = (0..20).map(token).collect();
    for token in &tokens {
        rig.hold(token);
    }
    rig.wait_for(HELD, |text| tokens.iter().all(|token| text.contains(token)));
    let due = Instant::now() + 12 * SECOND;
    rig.daemon.kill();
    assert_eq!(rig.apns.count(), 20, "none was due before");
    thread::sleep(due - Instant::now());
    rig.start_again();
    let line = rig.daemon.wait_for_log("held since before the start", LONG);
    assert!(
        line.contains("module=\"m\"") && line.contains("held=20"),
        "{line}"
    );
    rig.apns.wait_for(40, LONG);
    rig.stop();
    for token in &tokens {
        assert_eq!(rig.sent(token), 2, "{token}");
    }
}

/// The ten minutes of a push that fails go on counting, and its class and place stay.
#[test]
fn while_the_provider_is_down_what_waits_is_kept_for_the_next_start() {
    let mut rig = Rig::start("10min");
    let tokens: Vec<_> = (0..5).map(token).collect();
    for token in &tokens {
        rig.hold(token);
    }
    rig.apns
        .answer_with(|_| Answer::reason(503, "ServiceUnavailable"));
    let start = Instant::now();
    let last = rig.stop();
    assert!(last.contains("stopped undelivered=0 kept=5"), "{last}");
    assert!(start.elapsed() < 12 * SECOND, "{:?}", start.elapsed());
    let written = rig.read(HELD);
    assert!(tokens.iter().all(|token| written.contains(token)), "{written}");
    assert_eq!(written.lines().count(), 5, "{written}");

    rig.apns.answer_normally();
    let seen = rig.apns.count();
    rig.start_again();
    rig.apns.wait_for(seen + 5, LONG);
    let last = rig.stop();
    assert!(last.contains("stopped undelivered=0 kept=0"), "{last}");
    assert_eq!(rig.apns.count(), seen + 5);
    assert!(!rig.daemon.log().contains("could not be delivered"));
}

/// A provider that says nothing is not a reason to forget either.
#[test]
fn while_the_provider_is_silent_what_waits_is_kept_for_the_next_start() {
    let mut rig = Rig::start("10min");
    rig.hold(&token(1));
    rig.apns.answer_with(|_| Answer::Silence);
    let last = rig.stop();
    assert!(last.contains("stopped undelivered=0 kept=1"), "{last}");
    rig.apns.answer_normally();
    let seen = rig.apns.count();
    rig.start_again();
    rig.apns.wait_for(seen + 1, LONG);
    rig.stop();
    assert_eq!(rig.apns.count(), seen + 1);
}

#[test]
fn without_a_state_directory_it_is_counted_as_undelivered() {
    let mut rig = Rig::with(
        "10min",
        |settings| drop(settings.as_object_mut().unwrap().remove("stateDirectory")),
        |builder| builder,
    );
    rig.hold(&token(1));
    rig.apns
        .answer_with(|_| Answer::reason(503, "ServiceUnavailable"));
    let last = rig.stop();
    assert!(last.contains("stopped undelivered=1 kept=0"), "{last}");
    assert!(!rig.file("").exists());
    rig.apns.answer_normally();
    let seen = rig.apns.count();
    rig.start_again();
    assert_eq!(rig.push(&token(2)), RESULT);
    assert_eq!(rig.apns.count(), seen + 1);
}

/// Somebody renames a module, or loses its section, and restarts: what was acknowledged is there when it is back.
#[test]
fn pushes_of_a_module_that_is_not_in_the_settings_wait_for_it() {
    let mut rig = Rig::start("10min");
    rig.hold(&token(1));
    rig.hold(&token(2));
    rig.wait_for(HELD, |text| text.contains(&token(1)) && text.contains(&token(2)));
    rig.daemon.kill();
    rig.change_settings(|settings| {
        let module = settings["pushModules"]["m"].take();
        settings["pushModules"] = json!({ "other": module });
    });
    rig.start_again();
    let line = rig
        .daemon
        .wait_for_log("held for a module that is not in the settings", LONG);
    for part in [" WARN ", "module=\"m\"", "kind=\"apple\"", "held=2"] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    assert!(!line.contains(&token(1)));
    let last = rig.stop();
    assert!(last.contains("stopped undelivered=0 kept=2"), "{last}");

    rig.start_again();
    assert_eq!(rig.apns.count(), 2);
    rig.change_settings(|settings| {
        let module = settings["pushModules"]["other"].take();
        settings["pushModules"] = json!({ "m": module });
    });
    rig.daemon.signal("HUP");
    let line = rig.daemon.wait_for_log("held since before the start", LONG);
    assert!(line.contains("held=2"), "{line}");
    let last = rig.stop();
    assert!(last.contains("stopped undelivered=0 kept=0"), "{last}");
    assert_eq!((rig.sent(&token(1)), rig.sent(&token(2))), (2, 2));
    assert!(!rig.read(HELD).contains(&token(1)));
}

/// The clock of the machine may have been wrong: nothing is held for a year because of that.
#[test]
fn a_file_from_the_future_or_the_past_does_no_harm() {
    let mut rig = Rig::start("10min");
    rig.hold(&token(1));
    rig.hold(&token(2));
    rig.wait_for(HELD, |text| text.contains(&token(1)) && text.contains(&token(2)));
    rig.daemon.kill();
    rig.change_held(&format!(
        "UPDATE held SET due = 1 WHERE token = '{}'; UPDATE held SET due = {max}, expires = {max} WHERE token = '{}';",
        token(1),
        token(2),
        max = i64::MAX
    ));
    rig.start_again();
    let requests = rig.apns.wait_for(3, LONG);
    assert_eq!(requests[2].token, token(1), "it is long due");
    rig.wait_for(HELD, |text| !text.contains(&token(1)));
    let last = rig.stop();
    assert!(last.contains("stopped undelivered=0 kept=0"), "{last}");
    assert_eq!(rig.sent(&token(2)), 2, "sent at the end at the latest");
}

/// Nobody knows whether the provider got it: twice is better than never.
#[test]
fn a_second_signal_forgets_nothing_that_was_under_way() {
    let mut rig = Rig::start("10min");
    rig.hold(&token(1));
    rig.apns.answer_with(|_| Answer::Silence);
    rig.daemon.terminate();
    rig.apns.wait_for(2, LONG);
    rig.daemon.terminate();
    assert!(rig.daemon.wait(LONG).success());
    let log = rig.daemon.log();
    assert!(
        log.contains("ended at once") && log.contains("stopped undelivered=0 kept=1"),
        "{log}"
    );
    assert!(rig.read(HELD).contains(&token(1)), "{}", rig.read(HELD));
}

/// The same for a crash: what is at the provider has not been delivered yet.
#[test]
fn a_crash_forgets_nothing_that_was_under_way() {
    let mut rig = Rig::start("3s");
    rig.hold(&token(1));
    rig.apns.answer_with(|_| Answer::Silence);
    rig.apns.wait_for(2, LONG);
    thread::sleep(7 * SECOND);
    rig.daemon.kill();
    assert!(rig.read(HELD).contains(&token(1)), "{}", rig.read(HELD));
}
