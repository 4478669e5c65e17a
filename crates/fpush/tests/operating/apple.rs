//! Apple, as its operator sees it.

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fpush_testkit::{Answer, ApnsKey, Clock, FakeApns, Moves, TempDir, TestCa, fixture, run_to_end};
use serde_json::json;

use crate::rig::{
    GREEN, PROGRAM, RESULT, Rig, Sight, UNAVAILABLE, Way, apple, apple_by_token, apple_token, apple_tokens,
    expect_an_incident, http_date, start,
};

const OVERLOADED: &str = "wait/internal-server-error";

#[test]
fn the_provider_is_down_and_comes_back() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let mut way = Way::to(apns.port());
    let mut rig = start(&ca, apple(&way.url(), json!({})), &[]);
    assert_eq!(rig.push_all([apple_token(0)]), [RESULT]);
    rig.expect(GREEN);

    way.close();
    let ids: Vec<_> = apple_tokens(1..6).map(|token| rig.publish(&token)).collect();
    rig.expect(Sight {
        page: &[(
            "error",
            "m",
            &["no connection to the provider: Connection refused", "firewall"],
        )],
        metrics: &[
            "fpush_module_up{module=\"m\"} == 0",
            "fpush_module_trouble{module=\"m\",kind=\"provider\"} == 1",
            "fpush_provider_connections{module=\"m\"} == 0",
            "fpush_provider_connect_failures_total{module=\"m\"} >= 1",
            "fpush_provider_answers_total{module=\"m\",reason=\"unreachable\"} >= 3",
            "fpush_pushes_in_flight{module=\"m\"} == 5",
        ],
        log: &[("WARN", "the provider did not take a push")],
        // Another instance would not reach it either.
        unready: &[],
    });
    way.open();
    assert_eq!(rig.verdicts(&ids), [RESULT; 5], "all of them are tried again");
    rig.expect(GREEN);
    rig.expect(Sight {
        metrics: &[
            "fpush_provider_connections{module=\"m\"} == 1",
            "fpush_provider_connects_total{module=\"m\"} == 2",
            "fpush_pushes_total{module=\"m\",outcome=\"accepted\"} == 6",
            "fpush_pushes_in_flight{module=\"m\"} == 0",
        ],
        ..GREEN
    });
}

#[test]
fn the_certificate_has_expired() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let expired = json!({ "apns": {
        "certFilePath": fixture("expired.pem"), "certKeyFilePath": fixture("expired.key.pem"),
    } });
    let rig = start(&ca, apple(&apns.url(), expired), &[]);
    rig.expect(Sight {
        page: &[(
            "error",
            "m",
            &["the certificate expired on 2021-01-01", "developer.apple.com"],
        )],
        metrics: &[
            "fpush_module_up{module=\"m\"} == 0",
            "fpush_module_trouble{module=\"m\",kind=\"authentication\"} == 1",
            "fpush_credential_expires_in_seconds{module=\"m\",kind=\"certificate\"} < 0",
        ],
        log: &[("WARN", "the certificate expired on 2021-01-01")],
        unready: &["module m: the certificate expired on 2021-01-01"],
    });
}

/// It is replaced where it is, and the daemon finds that by itself; here it is told.
#[test]
fn the_certificate_ends_in_ten_days_and_is_replaced() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let day = Duration::from_secs(86_400);
    let now = SystemTime::now();
    let [old, new] = [10, 400].map(|days| ca.client_cert("org.example.app", now + days * day + day / 2));
    let files = json!({ "apns": { "certFilePath": "aps.pem", "certKeyFilePath": "aps.key" } });
    let files_of_old = [("aps.pem", &*old.cert_pem), ("aps.key", &*old.key_pem)];
    let mut rig = start(&ca, apple(&apns.url(), files), &files_of_old);
    assert_eq!(rig.push_all([apple_token(0)]), [RESULT]);
    rig.expect(Sight {
        page: &[(
            "warning",
            "m",
            &["the certificate ends in 10 days", "get a new one"],
        )],
        metrics: &[
            "fpush_module_up{module=\"m\"} == 1",
            "fpush_module_trouble{module=\"m\",kind=\"expiring\"} == 1",
            "fpush_credential_expires_in_seconds{module=\"m\",kind=\"certificate\"} < 907200",
            "fpush_credential_expires_in_seconds{module=\"m\",kind=\"certificate\"} > 900000",
        ],
        log: &[("WARN", "get a new one soon")],
        unready: &[],
    });
    fs::write(rig.path("aps.pem"), &new.cert_pem).unwrap();
    fs::write(rig.path("aps.key"), &new.key_pem).unwrap();
    rig.daemon.signal("HUP");
    rig.expect(Sight {
        metrics: &["fpush_credential_expires_in_seconds{module=\"m\",kind=\"certificate\"} > 34000000"],
        log: &[("INFO", "the settings of this module have changed")],
        ..GREEN
    });
}

/// With the wrong environment from the start Apple rejects every token; no device may lose its registration by that.
/// Anybody can invent twenty tokens: the module is not red.
#[test]
fn all_tokens_are_of_another_environment_from_the_start() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    apns.answer_with(|_| Answer::reason(400, "BadDeviceToken"));
    let mut rig = start(&ca, apple(&apns.url(), json!({})), &[]);
    assert_eq!(rig.push_all(apple_tokens(0..20)), [UNAVAILABLE; 20]);
    rig.expect(Sight {
        page: &[(
            "warning",
            "m",
            &["rejected every token so far: check environment, topic and project"],
        )],
        metrics: &[
            "fpush_module_up{module=\"m\"} == 1",
            "fpush_module_trouble{module=\"m\",kind=\"nothing_accepted\"} == 1",
            "fpush_provider_answers_total{module=\"m\",reason=\"BadDeviceToken\"} == 20",
            "fpush_pushes_total{module=\"m\",outcome=\"token_blocked\"} == 20",
            "fpush_blocklist_tokens{module=\"m\"} == 20",
            "fpush_doubted_tokens{module=\"m\"} == 20",
            "fpush_rejected_tokens_total{module=\"m\",verdict=\"doubted\"} == 20",
        ],
        log: &[("WARN", "the provider has rejected every token so far")],
        unready: &[],
    });
}

/// Devices that got their pushes are rejected all at once: one alarm, however many they are.
#[test]
fn all_tokens_are_of_another_environment_from_now_on() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let mut rig = start(&ca, apple(&apns.url(), json!({})), &[]);
    assert_eq!(rig.push_all(apple_tokens(200..220)), ["result"; 20]);
    apns.answer_with(|_| Answer::reason(400, "BadDeviceToken"));
    assert_eq!(rig.push_all(apple_tokens(0..200)), [UNAVAILABLE; 200]);
    rig.expect(Sight {
        page: &[(
            "error",
            "m",
            &["rejects too many tokens: check environment, topic and project"],
        )],
        metrics: &[
            "fpush_module_up{module=\"m\"} == 0",
            "fpush_module_trouble{module=\"m\",kind=\"wrong_tokens\"} == 1",
            "fpush_rejection_bursts_total{module=\"m\"} == 1",
            "fpush_rejected_tokens_total{module=\"m\",verdict=\"believed\"} == 0",
            "fpush_rejected_tokens_total{module=\"m\",verdict=\"doubted\"} == 200",
            "fpush_pushes_total{module=\"m\",outcome=\"token_blocked\"} == 200",
            "fpush_pushes_total{module=\"m\",outcome=\"token_dead\"} == 0",
            "fpush_problems_total{level=\"error\"} == 1",
        ],
        log: &[("ERROR", "the provider rejects too many tokens")],
        unready: &[],
    });
}

/// Devices that had just worked are all called dead: at most ten are believed, and there is one alarm.
#[test]
fn all_tokens_are_dead_from_now_on() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let mut rig = start(&ca, apple(&apns.url(), json!({})), &[]);
    assert_eq!(rig.push_all(apple_tokens(200..300)), [RESULT; 100]);
    apns.answer_with(|_| Answer::reason(410, "Unregistered"));
    let verdicts = rig.push_all(apple_tokens(0..200));
    expect_an_incident(&rig, &verdicts);
}

#[test]
fn the_credentials_are_refused() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    apns.answer_with(|_| Answer::reason(403, "InvalidProviderToken"));
    let key = ApnsKey::generate().p8();
    let mut rig = start(&ca, apple_by_token(&apns), &[("key.p8", &key)]);
    assert_eq!(rig.push_all(apple_tokens(0..5)), [UNAVAILABLE; 5]);
    rig.expect(Sight {
        page: &[(
            "error",
            "m",
            &["403 InvalidProviderToken", "Compare keyId and teamId"],
        )],
        metrics: &[
            "fpush_module_up{module=\"m\"} == 0",
            "fpush_module_trouble{module=\"m\",kind=\"authentication\"} == 1",
            "fpush_provider_answers_total{module=\"m\",reason=\"InvalidProviderToken\"} >= 1",
            "fpush_credential_age_seconds{module=\"m\",kind=\"provider_token\"} < 60",
        ],
        log: &[(
            "ERROR",
            "the provider refuses this module's credentials or settings",
        )],
        unready: &["module m: the provider's answer is 403 InvalidProviderToken"],
    });
    // While the module pauses, nothing is asked of Apple.
    let asked = apns.count();
    assert_eq!(rig.push_all(apple_tokens(5..10)), [UNAVAILABLE; 5]);
    assert_eq!(apns.count(), asked);

    // What the operator has corrected counts at once, and not when the pause is over.
    apns.answer_normally();
    rig.change_settings(json!({ "pushModules": { "m": { "apns": { "keyId": "OTHERKEY12" } } } }));
    rig.expect(GREEN);
    assert_eq!(rig.push_all([apple_token(10)]), [RESULT]);
}

/// Apple says so of tokens that were signed two hours ago or will be in two hours; its `Date` tells which.
#[test]
fn the_clock_is_two_hours_off() {
    for (reason, provider_is_ahead) in [("ExpiredProviderToken", true), ("InvalidProviderToken", false)] {
        let ca = TestCa::new();
        let apns = FakeApns::start(&ca);
        apns.answer_with(move |_| {
            let now = SystemTime::now();
            let two_hours = Duration::from_secs(7_200);
            let there = if provider_is_ahead {
                now + two_hours
            } else {
                now - two_hours
            };
            Answer::reason(403, reason).header("date", &http_date(there))
        });
        let key = ApnsKey::generate().p8();
        let mut rig = start(&ca, apple_by_token(&apns), &[("key.p8", &key)]);
        assert_eq!(rig.push_all(apple_tokens(0..3)), [UNAVAILABLE; 3]);
        let way = if provider_is_ahead {
            "s behind the provider's"
        } else {
            "s ahead of the provider's"
        };
        let answer = format!("403 {reason}");
        rig.expect(Sight {
            page: &[
                (
                    "error",
                    "m",
                    &[
                        &answer,
                        "The clock of this machine is wrong by more than a minute",
                    ],
                ),
                (
                    "warning",
                    "m",
                    &[
                        "the clock of this machine is 7",
                        way,
                        "set the clock, and let NTP keep it right",
                    ],
                ),
            ],
            metrics: &[
                "fpush_module_up{module=\"m\"} == 0",
                "fpush_module_trouble{module=\"m\",kind=\"authentication\"} == 1",
            ],
            log: &[(
                "ERROR",
                "The clock of this machine is wrong by more than a minute",
            )],
            unready: &["module m: ", &answer, "The clock of this machine is wrong"],
        });
    }
}

/// While Apple still takes what was signed, a wrong clock is a warning.
#[test]
fn the_clock_is_off_and_apple_does_not_mind() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    apns.answer_with(|_| {
        Answer::status(200).header("date", &http_date(SystemTime::now() + Duration::from_secs(300)))
    });
    let key = ApnsKey::generate().p8();
    let mut rig = start(&ca, apple_by_token(&apns), &[("key.p8", &key)]);
    assert_eq!(rig.push_all([apple_token(0)]), [RESULT]);
    rig.expect(Sight {
        page: &[(
            "warning",
            "m",
            &[
                "the clock of this machine is",
                "s behind the provider's",
                "set the clock",
            ],
        )],
        metrics: &[
            "fpush_module_up{module=\"m\"} == 1",
            "fpush_module_trouble{module=\"m\",kind=\"clock\"} == 1",
        ],
        ..Sight::default()
    });
}

#[test]
fn apple_does_not_answer_in_time() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    apns.answer_with(|_| Answer::Silence);
    let module = json!({ "apns": { "requestTimeout": "300ms" } });
    let mut rig = start(&ca, apple(&apns.url(), module), &[]);
    let ids: Vec<_> = apple_tokens(0..4).map(|token| rig.publish(&token)).collect();
    rig.expect(Sight {
        page: &[(
            "error",
            "m",
            &["no answer from the provider in time", "raise requestTimeout"],
        )],
        metrics: &[
            "fpush_module_trouble{module=\"m\",kind=\"provider\"} == 1",
            "fpush_provider_answers_total{module=\"m\",reason=\"timeout\"} >= 3",
            "fpush_pushes_in_flight{module=\"m\"} == 4",
        ],
        log: &[("WARN", "the provider did not take a push")],
        unready: &[],
    });
    assert!(!rig.daemon.log().contains("works again"), "{}", rig.daemon.log());
    apns.answer_normally();
    assert_eq!(rig.verdicts(&ids), [RESULT; 4]);
    rig.expect(Sight {
        log: &[("INFO", "the module works again module=\"m\" trouble=\"provider\"")],
        ..GREEN
    });
}

/// Apple answers, but so slowly that publishes wait in the line, and then that there is no place in it. That does no harm
/// of the module, whose pushes arrive; it is among the problems of the status page.
#[test]
fn apple_is_slow_and_the_line_fills() {
    let ca = TestCa::new();
    let apns = FakeApns::builder(&ca).delay(Duration::from_secs(2)).start();
    let mut rig = start(&ca, apple(&apns.url(), json!({ "maxInFlight": 2 })), &[]);
    let ids: Vec<_> = apple_tokens(0..40).map(|token| rig.publish(&token)).collect();
    rig.scrape_when(&[
        "fpush_pushes_in_flight{module=\"m\"} == 2",
        "fpush_pushes_waiting{module=\"m\"} > 0",
    ]);
    let verdicts = rig.verdicts(&ids);
    assert!(
        verdicts
            .iter()
            .all(|verdict| [RESULT, OVERLOADED].contains(&verdict.as_str())),
        "{verdicts:?}"
    );
    rig.expect(Sight {
        metrics: &[
            "fpush_pushes_total{module=\"m\",outcome=\"accepted\"} >= 2",
            "fpush_pushes_total{module=\"m\",outcome=\"overloaded\"} >= 10",
            "fpush_pushes_waiting{module=\"m\"} == 0",
        ],
        log: &[(
            "WARN",
            "overloaded: publishes arrive faster than the provider accepts them",
        )],
        ..GREEN
    });
    let status = rig.monitoring.status();
    let problem = &status["problems"][0];
    assert_eq!(
        (&problem["about"], &problem["level"]),
        (&json!("m"), &json!("warning")),
        "{status:#}"
    );
    assert!(
        problem["text"]
            .as_str()
            .unwrap()
            .contains("is maxInFlight too small"),
        "{status:#}"
    );
}

/// What Apple said of provider tokens that were signed by the wrong clock holds no longer than the operator needs to set it.
#[test]
fn the_clock_is_set_right() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let key = Arc::new(ApnsKey::generate());
    let signed = Arc::clone(&key);
    apns.answer_with(move |request| {
        let token = request
            .header("authorization")
            .and_then(|it| it.strip_prefix("bearer "));
        let jwt = signed.verify(token.unwrap()).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        if jwt.claims["iat"].as_u64().unwrap() > now + 3_600 {
            Answer::reason(403, "InvalidProviderToken")
        } else {
            Answer::Normal
        }
    });
    let folder = TempDir::new();
    let mut clock = Clock::new(folder.path(), Moves::TimeOfDay);
    clock.advance(Duration::from_secs(7_200));
    let settings = json!({ "runtimeDirectory": "run", "pushModules": { "m": apple_by_token(&apns) } });
    let mut rig = Rig::with(settings, |builder| {
        let builder = builder.file("ca.pem", ca.pem()).file("key.p8", key.p8());
        clock.over(builder)
    });
    assert_eq!(rig.push_all(apple_tokens(0..3)), [UNAVAILABLE; 3]);
    let refused = apns.count();
    assert_eq!(rig.push_all([apple_token(9)]), [UNAVAILABLE]);
    assert_eq!(apns.count(), refused, "the module pauses");
    rig.scrape_when(&["fpush_module_trouble{module=\"m\",kind=\"authentication\"} == 1"]);

    clock.set_right();
    // The operator does not wait for the end of the pause.
    let send = [
        "send",
        "--module",
        "m",
        "--token",
        &apple_token(9),
        "settings.json",
    ];
    let sent = run_to_end(PROGRAM, send, rig.daemon.dir());
    assert!(sent.status.success(), "{sent:?}\n{}", rig.daemon.log());
    assert_eq!(rig.push_all(apple_tokens(0..3)), [RESULT; 3]);
    rig.expect(Sight {
        log: &[("INFO", "the module works again")],
        ..GREEN
    });
}
