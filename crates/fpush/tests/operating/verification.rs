//! What is known of a module's credentials before anybody pushes: proven, not tried yet, or refused.

use std::time::{Duration, Instant};

use fpush_testkit::{Answer, ApnsKey, FakeApns, FakeFcm, NewConnections, TestCa, fcm_error};
use serde_json::{Value, json};

use crate::rig::{GREEN, LONG, RESULT, Rig, Sight, Way, apple_by_token, apple_token, google};

/// The token that no device has.
const NO_DEVICE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The settings of two push modules, `ios` and `android`, and all that they name; their providers answer as the real ones.
struct Place {
    ca: TestCa,
    apns: FakeApns,
    fcm: FakeFcm,
}

impl Place {
    fn new() -> Self {
        let ca = TestCa::new();
        let apns = FakeApns::start(&ca);
        let fcm = FakeFcm::start(&ca);
        apns.answer_with(|request| match request.token.as_str() {
            NO_DEVICE => Answer::reason(400, "BadDeviceToken"),
            _ => Answer::Normal,
        });
        fcm.answer_with(|send| match send.body["validate_only"] == json!(true) {
            true => fcm_error(400, "INVALID_ARGUMENT", Some("INVALID_ARGUMENT"), &[]),
            false => Answer::Normal,
        });
        Self { ca, apns, fcm }
    }

    fn modules(&self) -> Value {
        json!({ "ios": apple_by_token(&self.apns), "android": google(&self.fcm) })
    }

    fn start(&self, modules: Value, env: &[(&str, &str)]) -> Rig {
        Rig::with(json!({ "pushModules": modules }), |builder| {
            let builder = builder
                .file("ca.pem", self.ca.pem())
                .file("key.p8", ApnsKey::generate().p8())
                .file("fcm.json", self.fcm.service_account("project-1"))
                .env("FPUSH_VERIFY", "on");
            env.iter()
                .fold(builder, |builder, (name, value)| builder.env(name, value))
        })
    }
}

#[test]
fn each_module_is_verified_once_and_nothing_else_comes_of_it() {
    let place = Place::new();
    let mut rig = place.start(place.modules(), &[]);
    let proven = [
        "fpush_module_proof{module=\"ios\",state=\"proven\"} == 1",
        "fpush_module_proof{module=\"android\",state=\"proven\"} == 1",
        "fpush_module_proof{state=\"not_tried\"} absent",
        "fpush_ratelimit_tokens{module=\"ios\"} == 0",
        "fpush_blocklist_tokens{module=\"ios\"} == 0",
        "fpush_blocklist_tokens{module=\"android\"} == 0",
        "fpush_pushes_total{module=\"ios\",outcome=\"accepted\"} == 0",
    ];
    rig.expect(Sight {
        metrics: &proven,
        ..GREEN_OF_TWO
    });
    // Not again after a reload, but for the module whose settings have changed.
    rig.change_settings(json!({ "pushModules": { "ios": { "apns": { "topic": "org.example.other" } } } }));
    place.apns.wait_for(2, LONG);
    rig.expect(Sight {
        metrics: &proven,
        ..GREEN_OF_TWO
    });
    assert_eq!((place.apns.count(), place.fcm.count()), (2, 1));
    for request in place.apns.requests() {
        assert_eq!(request.token, NO_DEVICE);
    }
    assert_eq!(
        rig.monitoring.status()["modules"][1]["last_accepted"],
        Value::Null
    );
    // A device that has this token, if there were one, gets its push.
    let publish = fpush_testkit::publish::ejabberd_publish("id", &apple_token(1), Some("ios"), true);
    rig.link().send(publish);
    assert_eq!(rig.link().reply_to("id", LONG).verdict(), RESULT);
}

#[test]
fn while_no_provider_can_be_asked_nobody_says_that_all_is_well() {
    let place = Place::new();
    let (mut apple, mut google_way) = (Way::to(place.apns.port()), Way::to(port(&place.fcm.url())));
    let mut modules = place.modules();
    modules["ios"]["apns"]["endpoint"] = apple.url().into();
    modules["android"]["fcm"]["endpoint"] = google_way.url().into();
    apple.close();
    google_way.close();
    let rig = place.start(modules, &[]);
    let unproven = "not proven yet that the provider accepts its credentials; the last attempt failed: ";
    rig.expect(Sight {
        page: &[
            ("warning", "android", &[unproven, "Connection refused"]),
            ("warning", "ios", &[unproven, "Connection refused"]),
        ],
        metrics: &[
            "fpush_module_proof{module=\"ios\",state=\"not_tried\"} == 1",
            "fpush_module_proof{module=\"android\",state=\"not_tried\"} == 1",
            "fpush_module_trouble{module=\"ios\",kind=\"unproven\"} == 1",
            "fpush_blocklist_tokens{module=\"ios\"} == 0",
        ],
        log: &[(
            "WARN",
            "the provider cannot be asked whether it accepts this module's credentials",
        )],
        // An outage is none of ours.
        unready: &[],
    });
}

#[test]
fn credentials_that_are_refused_make_it_unready_before_anybody_pushes() {
    let place = Place::new();
    place
        .apns
        .answer_with(|_| Answer::reason(403, "InvalidProviderToken"));
    let rig = place.start(json!({ "ios": apple_by_token(&place.apns) }), &[]);
    rig.expect(Sight {
        page: &[("error", "ios", &["403 InvalidProviderToken", "keyId"])],
        metrics: &[
            "fpush_module_proof{module=\"ios\",state=\"refused\"} == 1",
            "fpush_module_trouble{module=\"ios\",kind=\"authentication\"} == 1",
        ],
        log: &[(
            "ERROR",
            "the provider refuses this module's credentials or settings",
        )],
        unready: &["module ios: ", "InvalidProviderToken"],
    });
    // What is put right mends it, without a push.
    place.apns.answer_with(|_| Answer::reason(400, "BadDeviceToken"));
    rig.change_settings(json!({ "pushModules": { "ios": { "apns": { "keyId": "KEY7654321" } } } }));
    rig.expect(Sight {
        metrics: &["fpush_module_proof{module=\"ios\",state=\"proven\"} == 1"],
        page: &[],
        log: &[],
        unready: &[],
    });
}

/// Before the first question there is nothing to say, good or bad.
#[test]
fn what_was_not_tried_yet_is_ready_and_is_called_so() {
    let place = Place::new();
    let rig = place.start(place.modules(), &[("FPUSH_VERIFY", "off")]);
    rig.expect(Sight {
        metrics: &[
            "fpush_module_proof{module=\"ios\",state=\"not_tried\"} == 1",
            "fpush_module_proof{module=\"android\",state=\"not_tried\"} == 1",
        ],
        ..GREEN_OF_TWO
    });
    let status = rig.monitoring.status();
    assert_eq!(status["modules"][0]["proof"], "not_tried");
    assert_eq!((place.apns.count(), place.fcm.count()), (0, 0));
}

#[test]
fn a_stop_and_a_reload_do_not_wait_for_a_verification() {
    let place = Place::new();
    place.apns.new_connections(NewConnections::Ignore);
    let mut rig = place.start(json!({ "ios": apple_by_token(&place.apns) }), &[]);
    rig.expect(Sight {
        metrics: &["fpush_module_proof{module=\"ios\",state=\"not_tried\"} == 1"],
        ..GREEN_OF_TWO
    });
    // Its connection hangs now, or will.
    rig.change_settings(json!({ "pushModules": { "ios": { "maxInFlight": 7 } } }));
    rig.expect(Sight {
        metrics: &["fpush_reloads_total{result=\"ok\"} == 1"],
        ..GREEN_OF_TWO
    });
    let start = Instant::now();
    rig.daemon.terminate();
    rig.link().close();
    assert!(rig.daemon.wait(LONG).success());
    let took = start.elapsed();
    assert!(
        took < Duration::from_secs(10),
        "an answer is waited for 15 s, and not by the end: {took:?}"
    );
}

fn port(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}

/// All is well, as [`GREEN`] has it, whatever the modules are called.
const GREEN_OF_TWO: Sight<'_> = Sight {
    metrics: &[],
    ..GREEN
};
