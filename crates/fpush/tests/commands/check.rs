//! `fpush check --connect`.

use std::time::Instant;

use fpush_testkit::{Answer, Daemon, NewConnections, Refusal, fake_fcm::token_error, fcm_error, run_to_end};
use serde_json::{Value, json};

use crate::rig::{ALONE, ASKED, CONFIG, LONG, NO, PROGRAM, Place, RESULT, SECOND, Said, apple};

/// The token that no device has, which asks Apple for its opinion of everything else.
const NO_DEVICE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

const APPLE_SAYS: &str = "module ios: Apple accepts the credentials for topic org.example.app at 127.0.0.1: it refused \
    only the invented device token, as it should (400 BadDeviceToken)";
const GOOGLE_SAYS: &str = "module android: Google accepts the credentials for project project-1: it refused only the \
    invented device token, as it should (";
const LINK_UP: &str = "component push.localhost: the XMPP server accepted the login";

/// The providers answer as the real ones do.
fn answer_as_usual(place: &Place) {
    place.apns.answer_with(|request| {
        if request.token == NO_DEVICE {
            Answer::reason(400, "BadDeviceToken")
        } else {
            Answer::Normal
        }
    });
    place.fcm.answer_with(|send| {
        if send.body["validate_only"] == json!(true) {
            fcm_error(400, "INVALID_ARGUMENT", Some("INVALID_ARGUMENT"), &[])
        } else {
            Answer::Normal
        }
    });
}

/// No device could get anything of what has reached the providers so far.
#[track_caller]
fn assert_harmless(place: &Place) {
    for request in place.apns.requests() {
        assert_eq!(request.token, NO_DEVICE);
    }
    for send in place.fcm.sends() {
        assert_eq!(send.body["validate_only"], json!(true), "{}", send.body);
    }
}

#[test]
fn a_running_daemon_is_asked_for_what_it_knows() {
    let place = Place::new();
    answer_as_usual(&place);
    let mut running = place.start();
    for count in 1..=2 {
        place.check().expect(
            0,
            &[
                "module ios (apple)",
                "module android (google)",
                ASKED,
                LINK_UP,
                GOOGLE_SAYS,
                APPLE_SAYS,
            ],
        );
        assert_eq!((place.apns.count(), place.fcm.count()), (count, count));
    }
    assert_harmless(&place);
    assert!(
        !place.somebody_knocks(),
        "a second login would disturb the first one"
    );

    assert_eq!(running.push("ios", &apple(1)), RESULT);
    let requests = place.apns.wait_for(3, LONG);
    assert_eq!(
        requests[0].header("authorization"),
        requests[2].header("authorization")
    );
    assert_eq!(
        (place.apns.connections(), place.fcm.token_requests().len()),
        (1, 1)
    );
    running.link.expect_silence(SECOND / 10);
}

/// What it says is about other settings than those in the file.
#[test]
fn who_has_edited_the_settings_and_not_reloaded_them_is_told() {
    let place = Place::new();
    answer_as_usual(&place);
    let _running = place.start();
    let edited = format!("warning: {} was edited", place.settings().display());
    assert!(!place.check().out.contains(&edited));
    place.set(|settings| settings["pushModules"]["ios"]["ratelimit"] = json!({ "enabled": false }));
    place
        .check()
        .expect(0, &[ASKED, &edited, "fpush reload", LINK_UP]);
    place.fpush(&["reload"]).expect(0, &["settings reloaded"]);
    let said = place.check();
    assert!(!said.out.contains(&edited), "{}", said.out);
}

#[test]
fn a_link_that_is_down_and_providers_that_refuse_are_found() {
    let place = Place::new();
    answer_as_usual(&place);
    let running = place.start();
    place.xmpp.close_port();
    running.link.drop_tcp();
    running.daemon.wait_for_log("no link", LONG);
    place.check().expect(
        NO,
        &[
            ASKED,
            "component push.localhost: ",
            "refused",
            "component_ports",
            GOOGLE_SAYS,
            APPLE_SAYS,
        ],
    );
    place.xmpp.open_port();
    let _link = place.accept(&running.daemon);
    running.daemon.wait_for_nth_log("link up", 2, LONG);

    place.apns.queue([Answer::reason(403, "InvalidProviderToken")]);
    place.check().expect(
        NO,
        &[
            ASKED,
            LINK_UP,
            GOOGLE_SAYS,
            "module ios: ",
            "InvalidProviderToken",
            "\n  ",
            "Compare keyId and teamId",
        ],
    );
    place.fcm.queue([fcm_error(404, "NOT_FOUND", None, &[])]);
    place.check().expect(
        NO,
        &[
            ASKED,
            LINK_UP,
            "module android: ",
            "NOT_FOUND",
            "\n  ",
            APPLE_SAYS,
        ],
    );
    assert_harmless(&place);
}

/// It says goodbye as a component does, so that the server has nothing to complain of.
#[test]
fn without_a_daemon_it_logs_in_and_out() {
    let place = Place::new();
    answer_as_usual(&place);
    let mut command = Daemon::builder(PROGRAM)
        .args(["check".into(), "--connect".into(), place.settings()])
        .start();
    let mut link = place.accept(&command);
    assert!(link.expect_end(LONG).stream_closed);
    assert!(link.pending().is_empty(), "it asks the server nothing");
    assert!(command.wait(LONG).success(), "{}", command.log());
    let log = command.log();
    for part in [ALONE, LINK_UP, GOOGLE_SAYS, APPLE_SAYS] {
        assert!(log.contains(part), "no {part} in {log}");
    }
    assert_harmless(&place);
    assert_eq!(
        (
            place.apns.count(),
            place.fcm.count(),
            place.fcm.token_requests().len()
        ),
        (1, 1, 1)
    );
    assert!(!place.somebody_knocks() && !place.socket().exists());
}

#[test]
fn without_a_daemon_everybody_who_refuses_us_is_named() {
    let place = Place::new();
    answer_as_usual(&place);
    place
        .fcm
        .answer_tokens_with(|_| token_error(400, "invalid_grant", "Invalid JWT Signature."));
    let mut command = Daemon::builder(PROGRAM)
        .args(["check".into(), "--connect".into(), place.settings()])
        .start();
    place.xmpp.refuse(Refusal::NotAuthorized, LONG);
    assert_eq!(command.wait(LONG).code(), Some(NO), "{}", command.log());
    let log = command.log();
    for part in [
        "component push.localhost: the server answered not-authorized\n  the server does not accept \
         component.componentKey",
        "module android: the provider did not accept the credentials: no access token from Google: ",
        APPLE_SAYS,
    ] {
        assert!(log.contains(part), "no {part} in {log}");
    }
    assert_harmless(&place);
}

/// Firewalls drop what they do not let through.
#[test]
fn a_provider_that_says_nothing_is_not_waited_for_long() {
    let place = Place::new();
    answer_as_usual(&place);
    place.apns.new_connections(NewConnections::Ignore);
    let running = place.start();
    let start = Instant::now();
    place
        .check()
        .expect(NO, &[ASKED, LINK_UP, GOOGLE_SAYS, "module ios: ", "\n  "]);
    let took = start.elapsed();
    assert!(took < 40 * SECOND, "an answer is waited for 15 s: {took:?}");
    drop(running);
}

/// Here a key that is not known is wrong, too.
#[test]
fn wrong_settings_connect_to_nobody() {
    let place = Place::new();
    let wrong: [(&str, _); 2] = [("monitorring", json!({})), ("pushModules", json!({}))];
    for (key, value) in wrong {
        place.set(|settings| settings[key] = value);
        let said = place.check();
        assert_eq!(said.status, Some(CONFIG), "{}\n{}", said.out, said.err);
        assert!(said.err.contains(&format!("error: {key}: ")), "{}", said.err);
        assert!(!said.out.contains(ALONE), "{}", said.out);
    }
    assert!(!place.somebody_knocks());
    assert_eq!((place.apns.count(), place.fcm.token_requests().len()), (0, 0));
}

#[test]
fn requests_are_shown_as_they_would_go_out_and_no_secret_is_in_them() {
    let place = Place::new();
    place.set(|settings| {
        settings["pushModules"]["ios"]["apns"]["badge"] = json!("count");
        settings["pushModules"]["android"]["fcm"]["notification"] = json!({ "title": "New" });
    });
    let check = |more: &[&str]| {
        let args = [&["check", "settings.json", "--show-payloads"], more].concat();
        Said::of(run_to_end(PROGRAM, args, place.dir.path()))
    };
    let said = check(&[]);
    said.expect(
        0,
        &[
            "what module ios sends",
            "  a visible push, ",
            &format!("    POST {}/3/device/TOKEN", place.apns.url()),
            "    apns-topic: org.example.app",
            "    authorization: bearer …",
            "\"title\": \"New Message\"",
            "\"badge\": 1",
            "    apns-push-type: background",
            "    apns-topic: org.example.app.voip",
            "what module android sends",
            &format!("    POST {}/v1/projects/project-1/messages:send", place.fcm.url()),
            "\"title\": \"New\"",
        ],
    );
    assert!(
        !said.out.contains("eyJ"),
        "a provider token is shown: {}",
        said.out
    );
    let said = check(&["--json"]);
    let report: Value = serde_json::from_str(&said.out).unwrap();
    let module = report["start"].as_array().unwrap().iter();
    let mut payloads = module.filter_map(|part| part["payloads"].as_array());
    let (ios, android) = (payloads.next().unwrap(), payloads.next().unwrap());
    let kinds: Vec<_> = ios
        .iter()
        .map(|payload| payload["headers"]["apns-push-type"].clone())
        .collect();
    assert_eq!(kinds, ["alert", "background", "voip"]);
    assert_eq!(
        android[0]["body"]["message"]["notification"],
        json!({ "title": "New" })
    );
    assert!(place.apns.requests().is_empty() && place.fcm.sends().is_empty());
}
