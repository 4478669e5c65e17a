//! Instances behave as one towards devices.

use std::time::{Duration, Instant};

use fpush_testkit::{Answer, Clock, Flow, Moves, Redis, TempDir, until};
use serde_json::json;

use crate::rig::{BLOCKED, DEAD, LONG, REFUSED, RESULT, Rig, Setup, TROUBLE, token};

#[test]
fn the_rate_limit_is_that_of_one_instance() {
    let mut rig = Rig::start(2, "8s");
    let device = token(1);
    // The window begins later than this: what is measured at Apple alone may have come late to it.
    let began = Instant::now();
    assert_eq!(rig.push(0, &device), RESULT, "sent");
    assert_eq!(rig.push(1, &device), RESULT, "queued");
    assert_eq!(
        rig.push(0, &device),
        REFUSED,
        "one is queued at the other instance"
    );
    assert_eq!(rig.push(1, &device), REFUSED);
    rig.apns.wait_for(2, LONG);
    let sent = rig.sent(&device);
    let waited = sent[1].at - began;
    assert!(waited >= Duration::from_secs(8), "{waited:?}");
    assert_eq!(rig.push(0, &device), RESULT, "queued behind the queued one");
    rig.apns.wait_for(3, LONG);
}

/// The first one's own limit would let both of its pushes be queued beside that of the other one.
#[test]
fn a_push_that_this_instance_would_hold_is_refused_if_one_is_queued_elsewhere() {
    let mut rig = Rig::start(2, "1h");
    let device = token(1);
    assert_eq!(rig.push(0, &device), RESULT, "sent");
    assert_eq!(rig.push(1, &device), RESULT, "queued");
    assert_eq!(rig.push(0, &device), REFUSED);
    rig.all[1].daemon.kill();
    assert_eq!(
        rig.push(0, &device),
        REFUSED,
        "it will be sent when that one is back"
    );
}

#[test]
fn a_push_that_failed_does_not_use_up_the_limit_of_all() {
    let mut rig = Rig::start(2, "1h");
    let device = token(1);
    rig.apns.queue([
        Answer::reason(413, "PayloadTooLarge"),
        Answer::reason(413, "PayloadTooLarge"),
    ]);
    assert_ne!(rig.push(0, &device), RESULT);
    until(LONG, "the window is given back", || {
        rig.redis.ask(&["ZCARD", "fpush:{m}:windows"]) == "0"
    });
    assert_eq!(rig.push(1, &device), RESULT);
    assert_eq!(
        rig.sent(&device).len(),
        3,
        "twice in vain by the first, and by the second"
    );
}

#[test]
fn a_token_that_is_dead_at_one_is_dead_at_all() {
    let mut rig = Rig::start(2, "0s");
    rig.earn_trust(0);
    let device = token(1);
    rig.apns.queue([Answer::reason(410, "Unregistered")]);
    assert_eq!(rig.push(0, &device), DEAD);
    rig.wait_for_key(":blocks:");
    assert_eq!(rig.push(1, &device), DEAD);
    assert_eq!(rig.sent(&device).len(), 1);
    // What it was told it knows from then on.
    rig.redis.kill();
    assert_eq!(rig.push(1, &device), DEAD);
}

#[test]
fn a_dead_token_is_asked_for_once_an_hour_by_all_together() {
    let folder = TempDir::new();
    let mut clock = Clock::new(folder.path(), Moves::Time);
    let hour = Duration::from_secs(61 * 60);
    let redis = Redis::under(&clock);
    let mut rig = Rig::with(Setup {
        urls: vec![Some(redis.url()); 2],
        redis,
        clock: Some(&clock),
        ..Setup::of(2, "0s")
    });
    rig.earn_trust(0);
    let device = token(1);
    rig.apns.answer_with(|_| Answer::reason(410, "Unregistered"));
    assert_eq!(rig.push(0, &device), DEAD);
    rig.wait_for_key(":blocks:");
    assert_eq!(rig.push(1, &device), DEAD, "which knows it now");
    for (first, second) in [(0, 1), (1, 0)] {
        let sent = rig.sent(&device).len();
        clock.advance(hour);
        rig.wait_until_asked();
        for instance in [first, second, first, second] {
            assert_eq!(rig.push(instance, &device), DEAD);
        }
        assert_eq!(rig.sent(&device).len(), sent + 1);
    }
    rig.apns.answer_with(|_| Answer::Normal);
    clock.advance(hour);
    rig.wait_until_asked();
    assert_eq!(rig.push(0, &device), RESULT);
    until(LONG, "all know that it is alive", || {
        rig.push(1, &device) == RESULT
    });
}

/// The promise is ten for the service, however many instances hear the same wrong words.
#[test]
fn an_incident_costs_ten_devices_in_all() {
    let mut rig = Rig::start(2, "0s");
    for instance in 0..2 {
        for number in 0..90 {
            let number = 10_000 * (instance + 1) + number;
            assert_eq!(rig.push(instance, &token(number)), RESULT);
        }
    }
    rig.apns.answer_with(|_| Answer::reason(410, "Unregistered"));
    let mut dead = [0; 2];
    for number in 0..9 {
        for (instance, dead) in dead.iter_mut().enumerate() {
            let number = 100 * (instance + 1) + number;
            match &*rig.push(instance, &token(number)) {
                DEAD => *dead += 1,
                other => assert_eq!(other, BLOCKED, "asked again later"),
            }
        }
    }
    assert_eq!(dead.iter().sum::<u32>(), 10, "{dead:?}");
    // Without the engine one more an instance that has had none, and these have had more.
    rig.redis.kill();
    for instance in 0..2 {
        for number in 0..3 {
            let number = 500 * (instance + 1) + number;
            assert_eq!(rig.push(instance, &token(number)), BLOCKED);
        }
    }
}

/// The engine has heard the claim, and has taken note of a push that nobody holds.
#[test]
fn a_claim_whose_answer_came_too_late_leaves_nothing_behind() {
    let redis = Redis::start_new();
    let (relay, url) = redis.relay();
    let mut rig = Rig::with(Setup {
        urls: vec![Some(redis.url()), Some(url)],
        redis,
        change: |settings| settings["cluster"]["timeout"] = "300ms".into(),
        ..Setup::of(2, "1h")
    });
    let device = token(1);
    assert_eq!(rig.push(0, &device), RESULT, "sent");
    relay.hold(Flow::Answers);
    assert_eq!(rig.push(1, &device), RESULT, "sent by who decides alone");
    assert_eq!(rig.sent(&device).len(), 2);
    relay.release();
    until(LONG, "what was claimed is taken back", || {
        rig.redis.ask(&["ZCARD", "fpush:{m}:queued"]) == "0"
    });
    assert_eq!(rig.push(0, &device), RESULT, "queued");
}

/// It was told to the engine when that did not answer.
#[test]
fn a_push_that_is_accepted_while_the_engine_stalls_lifts_the_word_when_it_is_back() {
    let redis = Redis::start_new();
    let (relay, url) = redis.relay();
    let mut rig = Rig::with(Setup {
        urls: vec![Some(redis.url()), Some(url)],
        redis,
        change: |settings| settings["cluster"]["timeout"] = "300ms".into(),
        ..Setup::of(2, "0s")
    });
    rig.earn_trust(0);
    let device = token(1);
    rig.apns.queue([Answer::reason(400, "BadDeviceToken")]);
    assert_eq!(rig.push(0, &device), BLOCKED);
    rig.wait_for_key(":words:");
    // The second instance has heard of it.
    rig.all[1].wait_until_asked();
    relay.hold(Flow::Questions);
    assert_eq!(rig.push(1, &device), RESULT);
    rig.all[1]
        .daemon
        .wait_for_log("this instance decides alone", LONG);
    // What was said is lost.
    relay.cut();
    relay.release();
    rig.all[1].daemon.wait_for_log("can be used again", LONG);
    until(LONG, "the word is lifted", || {
        !rig.redis.keys().iter().any(|key| key.contains(":words:"))
    });
    until(LONG, "the block is lifted", || rig.push(0, &device) == RESULT);
}

#[test]
fn a_word_against_a_token_is_known_to_all_and_lifted_by_the_first_push_that_is_accepted() {
    let mut rig = Rig::start(2, "0s");
    let device = token(1);
    // Of strangers' tokens nothing is told.
    assert_eq!(rig.push(0, &token(2)), RESULT);
    rig.apns.queue([Answer::reason(400, "BadDeviceToken")]);
    assert_eq!(rig.push(0, &device), BLOCKED);
    rig.wait_for_key(":blocks:");
    assert_eq!(rig.push(1, &device), BLOCKED);
    assert_eq!(rig.sent(&device).len(), 1);
    let count = |rig: &Rig, what: &str| {
        let keys = rig.redis.keys();
        let key = keys.iter().find(|key| key.contains(what)).cloned();
        key.map_or(0, |key| rig.redis.ask(&["ZCARD", &key]).parse::<usize>().unwrap())
    };
    assert_eq!((count(&rig, ":words:"), count(&rig, ":blocks:")), (1, 1));
    // As if its time were over; the second instance has heard of the word by then, and starts without its block.
    rig.all[1].wait_until_asked();
    rig.all[1].daemon.kill();
    std::fs::remove_dir_all(rig.all[1].daemon.dir().join("state")).unwrap();
    rig.all[1].start_again();
    let blocks = rig
        .redis
        .keys()
        .into_iter()
        .find(|key| key.contains(":blocks:"))
        .unwrap();
    rig.redis.ask(&["DEL", &blocks]);
    rig.all[1].wait_until_asked();
    assert_eq!(rig.push(1, &device), RESULT);
    until(LONG, "the word is lifted", || count(&rig, ":words:") == 0);
    // And the first instance hears that its block is.
    until(LONG, "the block is lifted", || rig.push(0, &device) == RESULT);
}

#[test]
fn a_pause_and_a_silence_are_those_of_all() {
    let mut rig = Rig::with(Setup {
        change: |settings| {
            let module = &mut settings["pushModules"]["m"];
            module["ratelimit"]["hardRatelimitTime"] = "3s".into();
            module["holdFor"] = "0s".into();
        },
        ..Setup::of(2, "0s")
    });
    let device = token(1);
    let began = Instant::now();
    rig.apns.queue([Answer::reason(429, "TooManyRequests")]);
    assert_eq!(rig.push(0, &device), RESULT, "queued until the silence is over");
    until(LONG, "the silence is told", || {
        rig.redis.ask(&["ZCARD", "fpush:{m}:silences"]) == "1"
    });
    assert_eq!(rig.push(1, &device), REFUSED);
    rig.apns.wait_for(2, LONG);
    let sent = rig.sent(&device);
    assert!(sent[1].at - began >= Duration::from_secs(3));

    rig.apns.answer_with(|_| Answer::reason(403, "BadCertificate"));
    assert_eq!(rig.push(0, &token(2)), TROUBLE);
    let count = rig.apns.count();
    rig.wait_for_key(":pause:");
    assert_eq!(rig.push(1, &token(3)), TROUBLE);
    assert_eq!(rig.apns.count(), count, "nothing is tried");
}

#[test]
fn what_is_published_while_all_pause_is_held_by_each() {
    let mut rig = Rig::start(2, "0s");
    rig.apns.answer_with(|_| Answer::reason(403, "BadCertificate"));
    assert_eq!(rig.push(0, &token(1)), RESULT, "held");
    let count = rig.apns.count();
    rig.wait_for_key(":pause:");
    assert_eq!(rig.push(1, &token(2)), RESULT, "held");
    assert_eq!(rig.apns.count(), count, "nothing is tried");
    rig.apns.answer_with(|_| Answer::Normal);
    // As if its time were over.
    let pause = rig
        .redis
        .keys()
        .into_iter()
        .find(|key| key.contains(":pause:"))
        .unwrap();
    rig.redis.ask(&["DEL", &pause]);
    until(LONG, "the second one sends what it holds", || {
        rig.sent(&token(2)).len() == 1
    });
}

#[test]
fn modules_with_other_credentials_share_no_verdicts() {
    let mut rig = Rig::start(2, "0s");
    rig.earn_trust(0);
    let device = token(1);
    rig.apns.queue([Answer::reason(410, "Unregistered")]);
    assert_eq!(rig.push(0, &device), DEAD);
    // The second instance is another app's from now on.
    rig.all[1].change_settings(|settings| {
        settings["pushModules"]["m"]["apns"]["topic"] = "org.example.other".into();
    });
    rig.all[1].daemon.signal("HUP");
    rig.all[1].daemon.wait_for_log("settings reloaded", LONG);
    assert_eq!(rig.push(1, &device), RESULT);
}

/// It sends what it holds at its end, and the others know that.
#[test]
fn what_an_instance_sends_at_its_end_is_known_to_the_others() {
    let mut rig = Rig::start(2, "1h");
    let device = token(1);
    assert_eq!(rig.push(0, &device), RESULT, "sent");
    assert_eq!(rig.push(1, &device), RESULT, "queued");
    rig.all[1].stop();
    assert_eq!(rig.sent(&device).len(), 2);
    assert_eq!(rig.push(0, &device), RESULT, "queued: none is any more");
    rig.all[1].start_again();
    assert_eq!(rig.push(1, &device), REFUSED);
    assert_eq!(rig.sent(&device).len(), 2);
}

/// Nobody is asked about it, so the others hear of it when it was accepted.
#[test]
fn a_users_test_push_counts_for_all_if_it_is_accepted_and_not_if_it_failed() {
    let mut rig = Rig::with(Setup {
        change: |settings| {
            settings["registration"] = json!({
                "store": { "type": "sqlite", "path": "devices.db" }, "types": { "apns": "m" },
            });
        },
        ..Setup::of(2, "1h")
    });
    let device = token(1);
    rig.apns.queue([
        Answer::reason(413, "PayloadTooLarge"),
        Answer::reason(413, "PayloadTooLarge"),
    ]);
    assert_eq!(rig.all[0].test_push(&device), "not_accepted");
    assert_eq!(rig.push(1, &device), RESULT);
    assert_eq!(
        rig.sent(&device).len(),
        3,
        "twice in vain, and by the second one at once"
    );

    let device = token(2);
    assert_eq!(rig.all[0].test_push(&device), "accepted");
    until(LONG, "its window is told", || {
        rig.redis.ask(&["ZCARD", "fpush:{m}:windows"]) == "2"
    });
    assert_eq!(rig.push(1, &device), RESULT, "queued");
    assert_eq!(rig.push(0, &device), REFUSED);
    assert_eq!(rig.sent(&device).len(), 1);
}
