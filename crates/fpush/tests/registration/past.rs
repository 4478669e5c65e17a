//! A database that is not what it was is not believed when it says that a device is gone, until an operator accepts it.

use std::{fs, process::Command};

use fpush_testkit::Answer;
use serde_json::json;

use crate::rig::{ALICE, LONG, MISSING, RESULT, Rig, TROUBLE, apple, until};

/// A daemon with a state directory, and two devices: one lives, and one was unregistered.
fn rig() -> (Rig, String, String) {
    let mut rig = Rig::with(json!({}));
    rig.stop();
    let file = rig.path("settings.json");
    let mut settings: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    settings["stateDirectory"] = json!("state");
    fs::write(&file, settings.to_string()).unwrap();
    rig.start_again();
    let lives = rig.register(ALICE, "lives", &apple(1));
    let ended = rig.register(ALICE, "ended", &apple(2));
    rig.form(
        ALICE,
        "v1-unregister-push",
        &[("type", "apns"), ("node", "ended")],
    );
    assert_eq!(rig.push("ended", &ended), MISSING);
    (rig, lives, ended)
}

fn accept(rig: &Rig) {
    let accepted = rig.operate(&["devices", "accept", "settings.json"]);
    assert!(accepted.status.success(), "{accepted:?}");
}

#[test]
fn a_backup_that_was_restored_is_doubted_until_it_is_accepted() {
    let (mut rig, lives, ended) = rig();
    rig.stop();
    fs::copy(rig.path("devices.db"), rig.path("backup.db")).unwrap();
    rig.start_again();
    assert_eq!(rig.push("ended", &ended), MISSING, "it is what it was");
    let again = rig.register(ALICE, "ended", &apple(3));
    rig.stop();
    fs::copy(rig.path("backup.db"), rig.path("devices.db")).unwrap();
    // Whatever is written before the start does not hide it.
    for number in 0..5 {
        rig.import(ALICE, &format!("imported-{number}"), &apple(4));
    }
    rig.start_again();
    rig.daemon.wait_for_log("fpush devices accept", LONG);
    assert_eq!(rig.push("ended", &again), TROUBLE, "it has registered since");
    assert_eq!(rig.push("lives", &lives), RESULT);
    rig.stop();
    rig.start_again();
    assert_eq!(rig.push("ended", &again), TROUBLE, "also after another start");
    accept(&rig);
    until(LONG, "the running daemon hears of it", || {
        rig.push("ended", &ended) == MISSING
    });
    rig.stop();
    rig.start_again();
    assert_eq!(rig.push("ended", &ended), MISSING, "it stays accepted");
    rig.stop();
}

/// The device of a backup has another token by now. What the provider says of its old one is true, and not about it.
#[test]
fn no_word_of_a_provider_ends_a_device_of_a_doubted_database() {
    let (mut rig, secret, _) = rig();
    rig.stop();
    fs::copy(rig.path("devices.db"), rig.path("backup.db")).unwrap();
    rig.start_again();
    assert_eq!(rig.register(ALICE, "lives", &apple(9)), secret);
    rig.stop();
    fs::copy(rig.path("backup.db"), rig.path("devices.db")).unwrap();
    rig.start_again();
    rig.daemon.wait_for_log("fpush devices accept", LONG);
    rig.earn_trust("ios", apple);
    rig.apns.answer_with(|request| {
        if request.token == apple(1) {
            Answer::reason(410, "Unregistered")
        } else {
            Answer::Normal
        }
    });
    assert!(rig.push("lives", &secret).starts_with("wait/"));
    accept(&rig);
    rig.daemon.wait_for_log("is believed again", LONG);
    assert_eq!(rig.push("lives", &secret), MISSING);
    rig.stop();
}

#[test]
fn another_database_and_missing_devices_are_doubted() {
    let (mut rig, lives, ended) = rig();
    rig.stop();
    rig.change_settings(json!({ "store": { "path": "devcies.db" } }));
    rig.start_again();
    rig.daemon.wait_for_log("this is another database", LONG);
    for (node, secret) in [("lives", &lives), ("ended", &ended)] {
        assert_eq!(rig.push(node, secret), TROUBLE, "{node}");
    }
    rig.stop();
    rig.change_settings(json!({ "store": { "path": "devices.db" } }));
    rig.start_again();
    assert_eq!(
        rig.push("ended", &ended),
        MISSING,
        "the right one needs nobody's word"
    );
    rig.stop();

    let removed = Command::new("sqlite3")
        .arg(rig.path("devices.db"))
        .arg("DELETE FROM devices")
        .status();
    assert!(removed.unwrap().success());
    rig.start_again();
    rig.daemon
        .wait_for_log("registered devices are missing in the database (1)", LONG);
    assert_eq!(rig.push("lives", &lives), TROUBLE);
    assert_eq!(rig.push("ended", &ended), TROUBLE);
    accept(&rig);
    until(LONG, "the running daemon hears of it", || {
        rig.push("ended", &ended) == MISSING
    });
    assert_eq!(rig.push("lives", &lives), TROUBLE, "it was not ended");
    rig.stop();
}

#[test]
fn siskin_removes_an_account_that_is_offline() {
    let mut rig = Rig::start();
    let token = apple(1);
    let fields = [("provider", "tigase:messenger:apns:1"), ("device-token", &*token)];
    let success = "{\"result\":\"success\"}";
    for path in ["/unregister-device", "/rest/push/unregister-device"] {
        let node = rig
            .form(ALICE, "register-device", &fields)
            .value("node")
            .to_owned();
        let body = |account: &str, more: &str| {
            format!(
                "{{\"account\":\"{account}\",\"provider\":\"tigase:messenger:apns:1\",\"device-token\":\"{}\"{more}}}",
                apple(1)
            )
        };
        let request = format!("POST {path}/push.localhost");
        // Whether there is such a registration is nobody's business.
        assert_eq!(rig.http(&request, &body("mallory@a.example", "")).body, success);
        assert_eq!(
            rig.http(&request, &body("alice@a.example", ",\"room\":\"x\""))
                .status,
            400
        );
        rig.expect_apple(&node, None, "org.example.siskin", &apple(1));
        assert_eq!(rig.http(&request, &body("alice@a.example", "")).body, success);
        assert_eq!(rig.push_plain(&node), MISSING);
    }
}
