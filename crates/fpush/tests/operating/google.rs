//! Google, as its operator sees it.

use std::time::{Duration, Instant, SystemTime};

use fpush_testkit::{
    Answer, FakeFcm, TestCa,
    fake_fcm::{quota_failure, token_error},
    fcm_error,
};

use crate::rig::{
    GREEN, RESULT, Rig, Sight, UNAVAILABLE, expect_an_incident, google, google_token, google_tokens,
    http_date,
};

fn start(ca: &TestCa, fcm: &FakeFcm) -> Rig {
    crate::rig::start(
        ca,
        google(fcm),
        &[("fcm.json", &fcm.service_account("project-1"))],
    )
}

/// The service account is of another project than the app.
#[test]
fn all_tokens_are_of_another_project() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let mut rig = start(&ca, &fcm);
    assert_eq!(rig.push_all(google_tokens(200..220)), ["result"; 20]);
    fcm.answer_with(|_| fcm_error(403, "PERMISSION_DENIED", Some("SENDER_ID_MISMATCH"), &[]));
    assert_eq!(rig.push_all(google_tokens(0..200)), [UNAVAILABLE; 200]);
    rig.expect(Sight {
        page: &[(
            "error",
            "m",
            &["rejects too many tokens: check environment, topic and project"],
        )],
        metrics: &[
            "fpush_module_up{module=\"m\"} == 0",
            "fpush_module_trouble{module=\"m\",kind=\"wrong_tokens\"} == 1",
            "fpush_provider_answers_total{module=\"m\",reason=\"SENDER_ID_MISMATCH\"} == 200",
            "fpush_pushes_total{module=\"m\",outcome=\"token_dead\"} == 0",
        ],
        log: &[("ERROR", "belongs to another Firebase project than the app")],
        unready: &[],
    });
}

/// Devices that had just worked are all called dead: at most ten are believed, and there is one alarm.
#[test]
fn all_tokens_are_dead_from_now_on() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let mut rig = start(&ca, &fcm);
    assert_eq!(rig.push_all(google_tokens(200..300)), [RESULT; 100]);
    fcm.answer_with(|_| fcm_error(404, "NOT_FOUND", Some("UNREGISTERED"), &[]));
    let verdicts = rig.push_all(google_tokens(0..200));
    expect_an_incident(&rig, &verdicts);
}

#[test]
fn the_service_account_may_not_send() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    fcm.answer_with(|_| fcm_error(403, "PERMISSION_DENIED", None, &[]));
    let mut rig = start(&ca, &fcm);
    assert_eq!(rig.push_all(google_tokens(0..5)), [UNAVAILABLE; 5]);
    rig.expect(Sight {
        page: &[("error", "m", &["403 PERMISSION_DENIED"])],
        metrics: &[
            "fpush_module_up{module=\"m\"} == 0",
            "fpush_module_trouble{module=\"m\",kind=\"authentication\"} == 1",
            "fpush_provider_answers_total{module=\"m\",reason=\"PERMISSION_DENIED\"} >= 1",
        ],
        log: &[(
            "ERROR",
            "the provider refuses this module's credentials or settings",
        )],
        unready: &["module m: the provider's answer is 403 PERMISSION_DENIED"],
    });
}

#[test]
fn the_service_account_is_refused() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    fcm.answer_tokens_with(|_| token_error(400, "invalid_grant", "Invalid JWT Signature."));
    let mut rig = start(&ca, &fcm);
    // Nobody has to push for this to be seen.
    rig.expect(Sight {
        page: &[(
            "error",
            "m",
            &[
                "the service account is refused (invalid_grant)",
                "key was deleted or disabled",
            ],
        )],
        metrics: &[
            "fpush_module_up{module=\"m\"} == 0",
            "fpush_module_trouble{module=\"m\",kind=\"authentication\"} == 1",
            "fpush_credential_age_seconds{module=\"m\"} absent",
        ],
        log: &[(
            "ERROR",
            "no access token: the service account is refused (invalid_grant)",
        )],
        unready: &["module m: the service account is refused (invalid_grant)"],
    });
    let start = Instant::now();
    assert_eq!(rig.push_all(google_tokens(0..5)), [UNAVAILABLE; 5]);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "they do not wait for a token"
    );
    fcm.answer_normally();
    rig.scrape_when(&["fpush_credential_age_seconds{module=\"m\",kind=\"access_token\"} < 60"]);
    // Until a push has arrived, those that failed count.
    assert_eq!(rig.push_all([google_token(5)]), [RESULT]);
    rig.expect(Sight {
        log: &[("INFO", "there is an access token again")],
        ..GREEN
    });
}

/// That says nothing of the credentials: pushes wait, and fpush stays ready.
#[test]
fn the_token_endpoint_is_down_and_comes_back() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    fcm.answer_tokens_with(|_| Answer::CloseConnection);
    let mut rig = start(&ca, &fcm);
    rig.expect(Sight {
        page: &[(
            "warning",
            "m",
            &["there is no access token", "the problems below"],
        )],
        metrics: &["fpush_module_up{module=\"m\"} == 1"],
        log: &[("WARN", "no access token: the token endpoint cannot be reached")],
        unready: &[],
    });
    let ids: Vec<_> = google_tokens(0..5).map(|token| rig.publish(&token)).collect();
    fcm.answer_normally();
    assert_eq!(rig.verdicts(&ids), [RESULT; 5], "they have waited for the token");
    rig.expect(GREEN);
}

/// Nobody at Google has looked at the service account: it is not called refused, and fpush stays ready.
#[test]
fn a_page_answers_in_the_place_of_the_token_endpoint() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let mut last = None;
    for (status, words) in [
        (502, "the token endpoint has an outage (502)"),
        (
            200,
            "the token endpoint's answer holds no access token (status 200)",
        ),
        (
            302,
            "the token endpoint's answer holds no access token (status 302)",
        ),
        (
            403,
            "the token endpoint's answer holds no access token (status 403)",
        ),
    ] {
        fcm.answer_tokens_with(move |_| Answer::raw(status, "<html>"));
        let rig = last.insert(start(&ca, &fcm));
        rig.expect(Sight {
            page: &[(
                "warning",
                "m",
                &["there is no access token", "the problems below"],
            )],
            metrics: &["fpush_module_up{module=\"m\"} == 1"],
            log: &[("WARN", &format!("no access token: {words}"))],
            unready: &[],
        });
    }
    let mut rig = last.unwrap();
    let id = rig.publish(&google_token(0));
    fcm.answer_normally();
    assert_eq!(rig.verdicts(&[id]), [RESULT]);
}

/// First the clock is off and the access token is still good; then Google wants another one, and gives none to who
/// signs at a wrong time.
#[test]
fn the_clock_is_two_hours_off() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let there = || http_date(SystemTime::now() - Duration::from_secs(7_200));
    fcm.answer_with(move |_| Answer::raw(200, "{}").header("date", &there()));
    let mut rig = start(&ca, &fcm);
    assert_eq!(rig.push_all([google_token(0)]), [RESULT]);
    let clock: &[&str] = &[
        "the clock of this machine is 7",
        "s ahead of the provider's",
        "set the clock, and let NTP keep it right",
    ];
    rig.expect(Sight {
        page: &[("warning", "m", clock)],
        metrics: &[
            "fpush_module_up{module=\"m\"} == 1",
            "fpush_module_trouble{module=\"m\",kind=\"clock\"} == 1",
        ],
        ..Sight::default()
    });
    fcm.answer_with(move |_| fcm_error(401, "UNAUTHENTICATED", None, &[]).header("date", &there()));
    fcm.answer_tokens_with(|_| token_error(400, "invalid_grant", "Invalid JWT: iat must be in the past."));
    let ids: Vec<_> = google_tokens(1..4).map(|token| rig.publish(&token)).collect();
    rig.expect(Sight {
        page: &[
            (
                "error",
                "m",
                &[
                    "401 UNAUTHENTICATED",
                    "The clock of this machine is wrong by more than a minute",
                ],
            ),
            ("warning", "m", clock),
            // Which is good until its end, by our own clock.
            (
                "warning",
                "m",
                &[
                    "the service account is refused (invalid_grant)",
                    "the clock of this machine is wrong",
                ],
            ),
        ],
        metrics: &[
            "fpush_module_up{module=\"m\"} == 0",
            "fpush_module_trouble{module=\"m\",kind=\"provider\"} == 1",
            "fpush_provider_answers_total{module=\"m\",reason=\"UNAUTHENTICATED\"} >= 3",
        ],
        log: &[
            (
                "ERROR",
                "no access token: the service account is refused (invalid_grant)",
            ),
            ("WARN", "The clock of this machine is wrong by more than a minute"),
        ],
        unready: &[],
    });
    fcm.answer_normally();
    assert_eq!(rig.verdicts(&ids), [RESULT; 3], "the clock was set");
}

#[test]
fn the_quota_of_the_project_is_used_up() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let quota = quota_failure(
        "project:project-1",
        "Quota exceeded for message rate of the project",
    );
    let paused = fcm_error(429, "RESOURCE_EXHAUSTED", Some("QUOTA_EXCEEDED"), &[quota]);
    fcm.queue([paused.header("retry-after", "8")]);
    let mut rig = start(&ca, &fcm);
    assert_eq!(rig.push_all([google_token(0)]), [UNAVAILABLE]);
    assert_eq!(rig.push_all([google_token(1)]), [UNAVAILABLE], "it pauses");
    rig.expect(Sight {
        page: &[(
            "warning",
            "m",
            &["429 QUOTA_EXCEEDED", "used up its quota", "ask for more"],
        )],
        metrics: &[
            "fpush_module_up{module=\"m\"} == 1",
            "fpush_module_trouble{module=\"m\",kind=\"paused\"} == 1",
            "fpush_provider_answers_total{module=\"m\",reason=\"QUOTA_EXCEEDED\"} == 1",
        ],
        log: &[("WARN", "throttled by the provider; pausing this module")],
        unready: &[],
    });
    assert_eq!(fcm.count(), 1);
    rig.expect(GREEN);
    assert_eq!(rig.push_all([google_token(2)]), [RESULT]);
}
