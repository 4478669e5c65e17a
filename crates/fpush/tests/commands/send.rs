//! `fpush send`.

use std::{fs, time::Instant};

use fpush_testkit::{Answer, Daemon, NewConnections, fake_fcm::token_error, fcm_error, run_to_end};
use serde_json::json;

use crate::rig::{
    ALONE, ASKED, CONFIG, DEAD, LONG, NO, PROGRAM, Place, REFUSED, RESULT, SECOND, Said, apple, google,
};

/// Its connections, its provider token and its access token: a second provider token is one that Apple may refuse.
#[test]
fn a_running_daemon_sends_it_itself() {
    let place = Place::new();
    let mut running = place.start();
    assert_eq!(running.push("ios", &apple(1)), RESULT);
    assert_eq!(running.push("android", &google(1)), RESULT);
    let socket = place.socket();
    let asked = format!("{ASKED}{})", socket.display());

    place.send("ios", &apple(2)).expect(
        0,
        &[
            &asked,
            "module ios: the provider accepted the push (a visible push)",
            "The provider has it. If the phone shows nothing",
        ],
    );
    let requests = place.apns.wait_for(2, LONG);
    assert_eq!(
        (requests[1].token.as_str(), place.apns.connections()),
        (apple(2).as_str(), 1)
    );
    assert_eq!(
        requests[0].header("authorization"),
        requests[1].header("authorization")
    );
    assert_ne!(requests[0].header("apns-id"), requests[1].header("apns-id"));

    place
        .send("android", &google(2))
        .expect(0, &[&asked, "module android: the provider accepted the push"]);
    let sends = place.fcm.wait_for(2, LONG);
    assert_eq!(
        (sends[1].token(), sends[1].connection),
        (google(2).as_str(), sends[0].connection)
    );
    assert_eq!(place.fcm.token_requests().len(), 1);

    assert!(!place.somebody_knocks(), "one login");
    running.link.expect_silence(SECOND / 10);
}

/// What is sent is a push and no publish: nobody has to log in for it.
#[test]
fn without_a_daemon_it_goes_to_the_provider_directly() {
    let place = Place::new();
    let alone = format!("{ALONE}{})", place.socket().display());
    place.send("ios", &apple(1)).expect(
        0,
        &[
            &alone,
            "module ios: the provider accepted the push (a visible push)",
        ],
    );
    let requests = place.apns.wait_for(1, LONG);
    assert_eq!(requests[0].token, apple(1));
    assert_eq!(requests[0].body["aps"]["alert"]["title"], "New Message");

    place
        .send("android", &google(1))
        .expect(0, &[&alone, "module android: the provider accepted the push"]);
    let sends = place.fcm.wait_for(1, LONG);
    assert_eq!(
        sends[0].body["validate_only"],
        json!(null),
        "it is meant for the device"
    );
    assert_eq!(place.fcm.token_requests().len(), 1);

    assert!(!place.somebody_knocks());
    assert!(!place.socket().exists(), "a command opens no socket");
}

/// The same words on every way.
#[test]
fn what_the_provider_answered_is_said_with_what_it_means() {
    let place = Place::new();
    let of_apple = [
        (
            400,
            "BadDeviceToken",
            "builds from Xcode get tokens for environment \"sandbox\"",
        ),
        (410, "Unregistered", "The app was removed"),
        (
            403,
            "InvalidProviderToken",
            "Compare keyId and teamId with developer.apple.com",
        ),
    ];
    let of_google = [
        (
            404,
            "NOT_FOUND",
            "UNREGISTERED",
            "The app was removed from the device",
        ),
        (
            403,
            "PERMISSION_DENIED",
            "SENDER_ID_MISMATCH",
            "belongs to another Firebase project than the app",
        ),
    ];
    let all = |first_line: &str| {
        for (status, reason, meaning) in of_apple {
            place.apns.queue([Answer::reason(status, reason)]);
            place.send("ios", &apple(1)).expect(
                NO,
                &[
                    first_line,
                    "module ios: the provider did not accept the push: ",
                    reason,
                    "\n  ",
                    meaning,
                ],
            );
        }
        for (code, status, reason, meaning) in of_google {
            place.fcm.queue([fcm_error(code, status, Some(reason), &[])]);
            place.send("android", &google(1)).expect(
                NO,
                &[
                    first_line,
                    "module android: the provider did not accept the push: ",
                    reason,
                    "\n  ",
                    meaning,
                ],
            );
        }
    };
    all(ALONE);
    let sent = place.apns.count();
    let running = place.start();
    all(ASKED);
    assert_eq!(place.apns.count(), sent + of_apple.len(), "each was sent once");
    drop(running);
}

/// Nobody who waits at a terminal waits for the retries of a publish, or for ever for an access token.
#[test]
fn a_provider_that_cannot_be_reached_is_said() {
    let place = Place::new();
    place.apns.new_connections(NewConnections::Reset);
    place.fcm.new_connections(NewConnections::Reset);
    let refused = "the provider did not accept the push: ";
    let all = |first_line: &str| {
        let start = Instant::now();
        place
            .send("ios", &apple(1))
            .expect(NO, &[first_line, "module ios: ", refused]);
        assert!(start.elapsed() < 10 * SECOND, "{:?}", start.elapsed());
        let no_token = format!("{refused}no access token from Google");
        place
            .send("android", &google(1))
            .expect(NO, &[first_line, "module android: ", &no_token]);
        assert!(start.elapsed() < 40 * SECOND, "{:?}", start.elapsed());
    };
    all(ALONE);
    let running = place.start();
    all(ASKED);
    drop(running);
}

#[test]
fn an_account_that_google_does_not_know_is_said() {
    let place = Place::new();
    place
        .fcm
        .answer_tokens_with(|_| token_error(400, "invalid_grant", "Invalid JWT Signature."));
    let all = |first_line: &str| {
        place.send("android", &google(1)).expect(
            NO,
            &[
                first_line,
                "module android: ",
                "no access token from Google",
                "\n  ",
                "fcmSecretPath",
            ],
        );
    };
    all(ALONE);
    let running = place.start();
    all(ASKED);
    drop(running);
}

/// However the operator's tool has written it.
#[test]
fn a_token_is_sent_in_its_one_spelling() {
    let place = Place::new();
    place.send("ios", &apple(1).to_uppercase()).expect(0, &[ALONE]);
    let running = place.start();
    place.send("ios", &apple(2).to_uppercase()).expect(0, &[ASKED]);
    drop(running);
    let tokens: Vec<_> = place
        .apns
        .requests()
        .into_iter()
        .map(|request| request.token)
        .collect();
    assert_eq!(tokens, [apple(1), apple(2)]);
}

#[test]
fn what_names_no_module_and_what_is_not_a_token_reaches_nobody() {
    let place = Place::new();
    let long = "a".repeat(20_000);
    let all = |first_line: &str| {
        place.send("ipad", &apple(1)).expect(
            NO,
            &[
                first_line,
                "there is no push module ipad in the settings; there are: android, ios",
            ],
        );
        for text in ["not hexadecimal", "", &google(1), &long] {
            place.send("ios", text).expect(
                NO,
                &[
                    first_line,
                    "module ios: not sent: this cannot be a token of its provider",
                    "APNs: hexadecimal digits, 64 of them today; FCM:",
                ],
            );
        }
    };
    all(ALONE);
    let running = place.start();
    all(ASKED);
    drop(running);
    assert_eq!(place.apns.count(), 0);
}

#[test]
fn a_priority_is_what_the_provider_gets() {
    let place = Place::new();
    for (priority, class, kind, urgency) in [
        ("high", "a visible push", "alert", "10"),
        ("low", "a silent push", "background", "5"),
        ("call", "a call", "alert", "10"),
    ] {
        let said = place.fpush(&[
            "send",
            "--module",
            "ios",
            "--token",
            &apple(1),
            "--priority",
            priority,
        ]);
        said.expect(0, &[&format!("the provider accepted the push ({class})")]);
        let requests = place.apns.requests();
        let request = requests.last().unwrap();
        assert_eq!(
            (request.header("apns-push-type"), request.header("apns-priority")),
            (Some(kind), Some(urgency)),
            "{priority}"
        );
    }
    let said = place.fpush(&[
        "send",
        "--module",
        "ios",
        "--token",
        &apple(1),
        "--priority",
        "urgent",
    ]);
    assert_eq!(said.status, Some(2));
    assert!(
        said.err.contains("[possible values: high, low, call]"),
        "{}",
        said.err
    );
}

/// It takes no slot, gives none back, and neither what was held nor what comes next changes.
#[test]
fn the_rate_limit_neither_stops_it_nor_notices_it() {
    let place = Place::new();
    let mut running = place.start();
    let token = apple(1);
    place.send("ios", &token).expect(0, &[]);
    assert_eq!(running.push("ios", &token), RESULT);
    assert_eq!(place.apns.count(), 2, "the publish after it goes out at once");
    assert_eq!(running.push("ios", &token), RESULT, "held");
    assert_eq!(running.push("ios", &token), REFUSED);
    for count in 3..=4 {
        place.send("ios", &token).expect(0, &[ASKED]);
        assert_eq!(place.apns.count(), count);
        assert_eq!(running.push("ios", &token), REFUSED);
    }
    running.daemon.terminate();
    running.daemon.wait_for_log("held=1", LONG);
    running.link.close();
    assert!(running.daemon.wait(LONG).success());
    assert_eq!(place.apns.count(), 5, "what was held went out as well");
}

#[test]
fn the_block_list_does_not_stop_it_and_what_is_accepted_is_not_blocked_any_more() {
    let place = Place::new();
    let mut running = place.start();
    let (dead, alive) = (apple(1), apple(2));
    // Apple is believed when it has accepted pushes for others.
    for other in 11..=20 {
        assert_eq!(running.push("ios", &apple(other)), RESULT);
    }
    place.apns.queue([Answer::reason(410, "Unregistered")]);
    assert_eq!(running.push("ios", &dead), DEAD);
    assert_eq!(running.push("ios", &dead), DEAD);
    assert_eq!(place.apns.count(), 11, "the second one was not asked for");
    place.send("ios", &dead).expect(0, &[ASKED, "accepted"]);
    assert_eq!(place.apns.count(), 12);
    assert_eq!(running.push("ios", &dead), RESULT, "it is alive");
    assert_eq!(place.apns.count(), 13);

    place.apns.queue([Answer::reason(410, "Unregistered")]);
    place.send("ios", &alive).expect(NO, &[ASKED, "Unregistered"]);
    assert_eq!(running.push("ios", &alive), RESULT, "not blocked by that");
    // Refused credentials pause a module for what is published, but not because of this.
    place.apns.queue([Answer::reason(403, "InvalidProviderToken")]);
    place
        .send("ios", &alive)
        .expect(NO, &[ASKED, "InvalidProviderToken"]);
    assert_eq!(running.push("ios", &apple(3)), RESULT);
}

#[test]
fn a_token_on_standard_input_is_nowhere_to_be_seen() {
    let place = Place::new();
    let running = place.start();
    let token = apple(1);
    // As files end, and as people paste.
    place.write("token", &format!("  {token}\r\n"));
    let command = "exec \"$0\" \"$@\" < token";
    let args = [
        "-c",
        command,
        PROGRAM,
        "send",
        "--module",
        "ios",
        "--token",
        "-",
        "settings.json",
    ];
    Said::of(run_to_end("/bin/sh", args, place.dir.path())).expect(0, &[ASKED, "accepted"]);
    assert_eq!(place.apns.requests()[0].token, token);

    place.apns.queue([Answer::Normal.after(2 * SECOND)]);
    let from_file = format!("cd {} && {command}", place.dir.path().display());
    let mut slow = Daemon::builder("/bin/sh")
        .args([
            "-c",
            &from_file,
            PROGRAM,
            "send",
            "--module",
            "ios",
            "--token",
            "-",
            "settings.json",
        ])
        .start();
    place.apns.wait_for(2, LONG);
    let shown = fs::read(format!("/proc/{}/cmdline", slow.pid())).unwrap();
    let shown = String::from_utf8_lossy(&shown).replace('\0', " ");
    assert!(shown.contains(" send --module ios --token - "), "{shown}");
    assert!(!shown.contains(&token), "{shown}");
    assert!(slow.wait(LONG).success(), "{}", slow.log());

    place.send("android", &google(1)).expect(0, &[ASKED]);
    place.apns.queue([Answer::reason(400, "BadDeviceToken")]);
    place.send("ios", &apple(2)).expect(NO, &[ASKED]);
    // So that its log is complete.
    let log = running.stop();
    for token in [token, google(1), apple(2)] {
        assert!(!log.contains(&token), "{token} is in the log:\n{log}");
    }
}

#[test]
fn nothing_on_standard_input_is_said() {
    let place = Place::new();
    let said = place.send("ios", "-");
    assert_eq!((said.status, said.out.as_str()), (Some(NO), ""));
    assert_eq!(said.err, "error: there is no token on standard input\n");
}

#[test]
fn wrong_settings_send_nothing() {
    let place = Place::new();
    place.set(|settings| {
        settings["pushModules"]["ios"]["apns"]["topic"] = json!(5);
        // What is merely not known does not stop a daemon, and is not a reason here either.
        settings["monitorring"] = json!({});
    });
    let said = place.send("android", &google(1));
    assert_eq!(
        (said.status, said.out.as_str()),
        (Some(CONFIG), ""),
        "{}",
        said.err
    );
    assert!(
        said.err
            .starts_with("error: pushModules.ios.apns.topic: expected a string"),
        "{}",
        said.err
    );
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);

    fs::remove_file(place.settings()).unwrap();
    let said = place.send("android", &google(1));
    assert_eq!(
        (said.status, said.out.as_str()),
        (Some(CONFIG), ""),
        "{}",
        said.err
    );
    assert!(said.err.contains("cannot read the settings file"), "{}", said.err);
    assert_eq!((place.fcm.count(), place.fcm.token_requests().len()), (0, 0));
}

#[test]
fn an_installation_id_is_as_good_as_a_token() {
    let place = Place::new();
    let fid = "dCXr7fTpTm2yXGVYTXJb6r";
    place
        .send("android", fid)
        .expect(0, &["module android: the provider accepted the push"]);
    let sends = place.fcm.wait_for(1, LONG);
    assert_eq!((sends[0].fid(), sends[0].token()), (fid, ""));
}
