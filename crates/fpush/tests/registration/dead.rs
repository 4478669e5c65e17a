//! Tokens that the provider calls dead, and tokens that are not.

use std::{
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use fpush_testkit::{Answer, fcm_error};
use serde_json::{Value, json};

use crate::rig::{ALICE, LONG, MISSING, RESULT, Rig, TROUBLE, UNAVAILABLE, apple, google, until};

/// Apple's answer about a token that died at this time, in milliseconds since 1970.
fn gone(timestamp: impl Into<Value>) -> Answer {
    let timestamp = timestamp.into();
    let mut body = json!({ "reason": "Unregistered" });
    if !timestamp.is_null() {
        body["timestamp"] = timestamp;
    }
    Answer::json(410, &body)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

const HOUR: u64 = 3_600_000;

/// Apple cannot know of a death to come: its clock, or ours, is wrong.
#[test]
fn a_death_in_the_future_ends_no_registration() {
    let mut rig = Rig::start();
    rig.earn_trust("ios", apple);
    let secret = rig.register(ALICE, "n", &apple(1));
    for timestamp in [json!(now() + HOUR), json!(u64::MAX)] {
        rig.apns.queue([gone(timestamp)]);
        assert_eq!(rig.push("n", &secret), UNAVAILABLE);
        assert_eq!(rig.register(ALICE, "n", &apple(1)), secret);
    }
    rig.expect_apple("n", Some(&secret), "org.example.ios", &apple(1));
}

#[test]
fn a_token_that_died_before_the_renewal_lives() {
    let mut rig = Rig::start();
    rig.earn_trust("ios", apple);
    let before = now() - 1;
    let secret = rig.register(ALICE, "n", &apple(1));
    for timestamp in [0, before - HOUR, before] {
        rig.apns.queue([gone(timestamp)]);
        assert_eq!(rig.push("n", &secret), UNAVAILABLE, "{timestamp}");
        let asked = rig.apns.count();
        assert_eq!(rig.push("n", &secret), UNAVAILABLE);
        assert_eq!(
            rig.apns.count(),
            asked,
            "the provider is not asked again and again"
        );
        // The app registers again when it is opened, and is heard at once.
        assert_eq!(rig.register(ALICE, "n", &apple(1)), secret);
        rig.expect_apple("n", Some(&secret), "org.example.ios", &apple(1));
    }
    rig.apns.queue([gone(before)]);
    assert_eq!(rig.push("n", &secret), UNAVAILABLE);
    rig.stop();
    rig.start_again();
    rig.expect_apple("n", Some(&secret), "org.example.ios", &apple(1));
}

#[test]
fn a_token_that_died_since_is_gone_for_good() {
    let mut rig = Rig::start();
    rig.remember();
    let devices: Vec<_> = (0..4)
        .map(|number| {
            let node = format!("n-{number}");
            let secret = rig.register(ALICE, &node, &apple(number));
            (node, secret)
        })
        .collect();
    rig.earn_trust("ios", apple);
    // Later than the registration, or without a time, which means now.
    for ((node, secret), timestamp) in devices.iter().zip([json!(now()), Value::Null, json!(now())]) {
        rig.apns.answer_with(move |_| gone(timestamp.clone()));
        assert_eq!(rig.push(node, secret), MISSING, "{node}");
        // As long as it is registered, the provider is asked and nobody else.
        until(LONG, "its registration has ended", || {
            let asked = rig.apns.count();
            assert_eq!(rig.push(node, secret), MISSING, "{node}");
            rig.apns.count() == asked
        });
    }
    rig.apns.answer_normally();
    let left: Vec<_> = rig.export().iter().map(|device| device["node"].clone()).collect();
    assert_eq!(left, ["n-3"]);
    rig.daemon.kill();
    rig.start_again();
    for (node, secret) in &devices[..3] {
        assert_eq!(rig.push(node, secret), MISSING, "{node}, after a crash");
    }
    rig.expect_apple("n-3", Some(&devices[3].1), "org.example.ios", &apple(3));
    // It is as if it never had been there, also for who registers the node anew.
    assert_ne!(rig.register("bob@a.example", "n-0", &apple(0)), devices[0].1);
}

#[test]
fn what_google_calls_unregistered_is_gone() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "n", &google(1));
    let fields = [("token", google(1)), ("device-id", "d".to_owned())];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    let other = rig.form(ALICE, "register-push-fcm", &fields);
    rig.earn_trust("android", google);
    rig.fcm.answer_with(|send| match send.token() == google(1) {
        true => fcm_error(404, "NOT_FOUND", Some("UNREGISTERED"), &[]),
        false => Answer::Normal,
    });
    assert_eq!(rig.push("n", &secret), MISSING);
    until(LONG, "its registration has ended", || {
        let asked = rig.fcm.count();
        assert_eq!(rig.push("n", &secret), MISSING);
        rig.fcm.count() == asked
    });
    // The same token under another node: its own next publish finds out.
    assert_eq!(rig.push(other.value("node"), other.value("secret")), MISSING);
    // And with a new token both live again.
    let secret = rig.register(ALICE, "n", &google(2));
    rig.expect_google("n", Some(&secret), &google(2));
}

#[test]
fn a_module_that_is_set_wrong_unregisters_nobody() {
    let mut rig = Rig::start();
    let devices: Vec<_> = (0..12)
        .map(|number| {
            let node = format!("n-{number}");
            let secret = rig.register(ALICE, &node, &apple(number));
            (node, secret)
        })
        .collect();
    rig.apns
        .answer_with(|_| Answer::json(400, &json!({ "reason": "BadDeviceToken" })));
    for (node, secret) in &devices {
        assert_eq!(rig.push(node, secret), UNAVAILABLE, "{node}");
    }
    assert_eq!(rig.apns.count(), devices.len());
    rig.apns.answer_normally();
    for (number, (node, secret)) in devices.iter().enumerate() {
        assert_eq!(rig.push(node, secret), UNAVAILABLE, "left alone for ten minutes");
        assert_eq!(
            rig.register(ALICE, node, &apple(number)),
            *secret,
            "or until it registers"
        );
    }
    assert_eq!(rig.apns.count(), devices.len());
    for (number, (node, secret)) in devices.iter().enumerate() {
        rig.expect_apple(node, Some(secret), "org.example.ios", &apple(number));
    }
    assert_eq!(rig.export().len(), 12);

    // Not even where all else is well: it takes a day.
    for _ in 0..2 {
        for (node, secret) in &devices {
            assert_eq!(rig.push(node, secret), RESULT);
        }
    }
    rig.apns
        .queue([Answer::json(400, &json!({ "reason": "BadDeviceToken" }))]);
    assert_eq!(rig.push("n-0", &devices[0].1), UNAVAILABLE);
    assert_eq!(rig.export().len(), 12);
}

#[test]
fn an_outage_or_wrong_credentials_unregister_nobody() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "n", &apple(1));
    for (status, reason) in [(400, "BadTopic"), (403, "InvalidProviderToken")] {
        rig.apns
            .queue([Answer::json(status, &json!({ "reason": reason }))]);
        assert_eq!(rig.push("n", &secret), UNAVAILABLE, "{reason}");
    }
    rig.fcm.queue([fcm_error(401, "UNAUTHENTICATED", None, &[])]);
    let android = rig.register(ALICE, "m", &google(1));
    assert_eq!(rig.push("m", &android), RESULT, "with a new access token");
    assert_eq!(rig.export().len(), 2);
}

#[test]
fn the_times_of_pushes_are_kept() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "good", &apple(1));
    let bad = rig.register(ALICE, "bad", &apple(2));
    assert_eq!(rig.push("good", &secret), RESULT);
    rig.apns
        .queue([Answer::json(400, &json!({ "reason": "BadTopic" }))]);
    assert_eq!(rig.push("bad", &bad), UNAVAILABLE);
    rig.stop();
    let devices = rig.export();
    let times = |node: &str| {
        let device = devices.iter().find(|device| device["node"] == node).unwrap();
        ["last_successful_push", "last_push_error"].map(|key| device[key].is_string())
    };
    assert_eq!(times("good"), [true, false]);
    assert_eq!(times("bad"), [false, true]);
}

/// Between two looks at the database another one takes its place: the word about a token comes before the next look.
#[test]
fn a_word_that_meets_a_database_which_is_another_one_ends_no_registration() {
    let mut rig = Rig::start();
    rig.earn_trust("ios", apple);
    let secret = rig.register(ALICE, "n", &apple(1));
    let changed = Command::new("sqlite3")
        .arg(rig.path("devices.db"))
        .args([".timeout 5000", "UPDATE states SET mark = 'another'"])
        .status();
    assert!(changed.unwrap().success());
    rig.apns.queue([gone(Value::Null)]);
    assert_eq!(rig.push("n", &secret), TROUBLE);
    let shown = rig.operate(&["devices", "show", "n", "settings.json"]);
    assert!(shown.status.success(), "{shown:?}");
}
