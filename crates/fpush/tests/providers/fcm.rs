//! Google: what reaches it, and what becomes of every answer.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use fpush_testkit::{
    Answer, FakeFcm, FcmSend, NewConnections, TestCa,
    certs::service_account_email,
    fake_fcm::{bad_request, quota_failure, token_error},
    fcm_error,
    publish::ejabberd_publish,
};
use serde_json::{Value, json};

use crate::rig::{
    DEAD, LONG, OVERLOAD, REFUSED, RESULT, Rig, SECOND, Scripts, UNAVAILABLE, is_quick, merged, modules,
    unlimited,
};

pub(crate) fn google(fcm: &FakeFcm, more: Value) -> Value {
    let base = json!({
        "type": "google",
        "fcm": { "fcmSecretPath": "fcm.json", "endpoint": fcm.url(), "caFilePath": "ca.pem" },
    });
    merged(base, more)
}

pub(crate) fn start(ca: &TestCa, fcm: &FakeFcm, all: Value) -> Rig {
    Rig::start(ca, all, &[("fcm.json", &fcm.service_account("project-1"))])
}

pub(crate) fn token(number: usize) -> String {
    format!("dCXr7fTpTm2yXGVYTXJb6r:APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx_{number:06}")
}

pub(crate) fn tokens(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(token).collect()
}

#[test]
fn a_push_is_what_google_wants() {
    let ca = TestCa::new();
    let fcm = FakeFcm::builder(&ca).check_tokens(true).start();
    let more = json!({ "fcm": {
        "priority": "normal", "ttl": "1h", "collapseKey": "wake", "additionalData": { "a": "b" },
    } });
    let all = modules([("usual", google(&fcm, json!({}))), ("more", google(&fcm, more))]);
    let mut rig = start(&ca, &fcm, all);
    assert_eq!(rig.push("usual", &token(1)), RESULT);
    assert_eq!(rig.push("more", &token(2)), RESULT);
    let sends = fcm.wait_for(2, LONG);
    assert_eq!(sends[0].project, "project-1");
    assert_eq!(
        sends[0].body,
        json!({ "message": {
            "token": token(1), "android": { "priority": "HIGH", "ttl": "2419200s" }, "data": {},
        } })
    );
    assert_eq!(
        sends[1].message,
        json!({
            "token": token(2), "android": { "priority": "NORMAL", "ttl": "3600s", "collapse_key": "wake" },
            "data": { "a": "b" },
        })
    );
    // The endpoint of the token is the one in the service account's file, and both modules have asked there.
    let requests = fcm.wait_for_token_requests(2, LONG);
    assert_eq!(requests.len(), 2);
    for request in &requests {
        let claims = &request.assertion.as_ref().unwrap().claims;
        assert_eq!(claims["aud"], fcm.token_uri());
        assert_eq!(claims["iss"], service_account_email("project-1"));
        assert_eq!(
            claims["scope"],
            "https://www.googleapis.com/auth/firebase.messaging"
        );
    }
    let bearer: Vec<_> = sends.iter().map(|send| send.bearer.clone().unwrap()).collect();
    assert!(
        bearer.iter().all(|bearer| bearer.starts_with("ya29.test-")),
        "{bearer:?}"
    );
    rig.assert_discreet(&[bearer, tokens(1..3), vec!["PRIVATE KEY".to_owned()]].concat());
}

#[test]
fn tokens_of_any_length_are_sent() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let module = google(&fcm, json!({ "is_default_module": true }));
    let mut rig = start(&ca, &fcm, modules([("g", module)]));
    for node in [
        "x".repeat(50),
        "y".repeat(600),
        "c0ffee".repeat(4),
        "z".repeat(4_096),
    ] {
        assert_eq!(rig.push("g", &node), RESULT);
    }
    assert_eq!(fcm.wait_for(4, LONG)[1].token().len(), 600);
    for node in [
        "short".to_owned(),
        "0123456789abcdef".repeat(4),
        format!("{}\"}}", token(1)),
        "z".repeat(4_097),
    ] {
        for module in [Some("g"), Some("default"), None] {
            rig.link.send(ejabberd_publish("x", &node, module, true));
            assert_eq!(rig.verdict("x"), OVERLOAD, "{node} at {module:?}");
        }
    }
    assert_eq!(fcm.count(), 4);
}

/// A token that is not good any more, under hundreds of pushes, is replaced by one request, and no push is lost.
#[test]
fn a_revoked_access_token_costs_one_request_whatever_is_under_way() {
    let ca = TestCa::new();
    let fcm = FakeFcm::builder(&ca).check_tokens(true).start();
    let mut rig = start(&ca, &fcm, modules([("g", google(&fcm, json!({})))]));
    assert_eq!(rig.push("g", &token(0)), RESULT);
    fcm.revoke_tokens();
    let verdicts = rig.push_all("g", &tokens(1..501));
    assert!(verdicts.iter().all(|verdict| verdict == RESULT), "{verdicts:?}");
    assert_eq!(fcm.token_requests().len(), 2, "exactly one more");
    assert_eq!(fcm.connections(), 3, "one for the pushes, one for each token");
    let delivered: HashSet<_> = fcm
        .sends()
        .into_iter()
        .filter(|send| send.bearer.as_deref() == Some("ya29.test-2"))
        .map(|send| send.token().to_owned())
        .collect();
    assert_eq!(delivered, tokens(1..501).into_iter().collect());
}

/// A second one within ten seconds would not help either: the operator has to look.
#[test]
fn an_access_token_that_is_revoked_again_at_once_is_not_replaced() {
    let ca = TestCa::new();
    let fcm = FakeFcm::builder(&ca).check_tokens(true).start();
    let mut rig = start(&ca, &fcm, modules([("g", google(&fcm, json!({})))]));
    assert_eq!(rig.push("g", &token(0)), RESULT);
    fcm.revoke_tokens();
    assert_eq!(rig.push("g", &token(1)), RESULT);
    assert_eq!(fcm.token_requests().len(), 2);
    fcm.revoke_tokens();
    let id = rig.publish("g", &token(2));
    std::thread::sleep(SECOND);
    assert_eq!(fcm.token_requests().len(), 2);
    drop(id);
}

/// One token for which Google says 401 without a code, while all else is taken: another access token does not help it.
#[test]
fn a_token_that_alone_is_unauthenticated_costs_one_access_token() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let mut rig = start(&ca, &fcm, modules([("g", google(&fcm, unlimited()))]));
    assert_eq!(rig.push("g", &token(0)), RESULT);
    let last = token(50);
    fcm.answer_with(move |send| match send.token() >= last.as_str() {
        true => fcm_error(401, "UNAUTHENTICATED", None, &[]),
        false => Answer::Normal,
    });
    let odd = rig.publish("g", &token(50));
    let sends = fcm.wait_for(3, LONG);
    assert_ne!(sends[1].bearer, sends[2].bearer, "it was tried with another one");
    assert_eq!(rig.push_all("g", &tokens(1..5)), [RESULT; 4]);
    assert_eq!(rig.verdict(&odd), UNAVAILABLE);
    assert_eq!(rig.push_all("g", &tokens(51..60)), [UNAVAILABLE; 9]);
    assert_eq!(fcm.token_requests().len(), 2);
    let before = fcm.count();
    assert_eq!(rig.push("g", &token(50)), UNAVAILABLE);
    assert_eq!(fcm.count(), before, "it is left alone");
    rig.daemon.wait_for_log("takes the same access token", LONG);
    assert_eq!(rig.push("g", &token(0)), RESULT);
}

#[test]
fn a_token_that_runs_out_is_renewed_ahead_of_time() {
    let ca = TestCa::new();
    let fcm = FakeFcm::builder(&ca)
        .check_tokens(true)
        .expires_in(Duration::from_secs(6))
        .start();
    let mut rig = start(&ca, &fcm, modules([("g", google(&fcm, unlimited()))]));
    let (start, mut pushes) = (Instant::now(), 0);
    for _ in 0..8 {
        assert!(
            is_quick(SECOND, |_| {
                let (verdict, took) = rig.timed("g", &token(0));
                assert_eq!(verdict, RESULT);
                pushes += 1;
                took
            }),
            "no push waits for a token"
        );
        std::thread::sleep(SECOND);
    }
    let refused = fcm.sends().len() - pushes;
    assert_eq!(refused, 0, "none was sent with a token that had run out");
    // Each is good for more than three seconds before the next one is asked for.
    let most = 2 + start.elapsed().as_secs() as usize / 3;
    assert!((2..=most).contains(&fcm.token_requests().len()));
}

#[test]
fn without_an_access_token_pushes_wait_for_one() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    fcm.queue_tokens([Answer::raw(503, "<html>"), Answer::CloseConnection]);
    let mut rig = start(&ca, &fcm, modules([("g", google(&fcm, json!({})))]));
    let verdicts = rig.push_all("g", &tokens(0..10));
    assert!(verdicts.iter().all(|verdict| verdict == RESULT), "{verdicts:?}");
    assert_eq!((fcm.token_requests().len(), fcm.count()), (3, 10));
    rig.daemon
        .wait_for_log("the token endpoint cannot be reached", LONG);
}

#[test]
fn nobody_waits_for_an_access_token_that_google_refuses_to_give() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    fcm.answer_tokens_with(|_| token_error(400, "invalid_grant", "Invalid JWT Signature."));
    let mut rig = start(&ca, &fcm, modules([("g", google(&fcm, json!({})))]));
    rig.daemon.wait_for_log("invalid_grant", LONG);
    assert!(is_quick(SECOND, |again| {
        let (verdict, took) = rig.timed("g", &token(again));
        assert_eq!(verdict, UNAVAILABLE);
        took
    }));
}

/// It is about the platform of that token (Apple's or a browser's push service behind Google), and nothing is wrong with others.
#[test]
fn a_token_of_a_platform_that_google_may_not_send_to_costs_one_request_and_no_light() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let ios = token(0);
    fcm.answer_with({
        let ios = ios.clone();
        move |send| match send.token() == ios {
            true => fcm_error(401, "UNAUTHENTICATED", Some("THIRD_PARTY_AUTH_ERROR"), &[]),
            false => Answer::Normal,
        }
    });
    let mut rig = start(&ca, &fcm, modules([("g", google(&fcm, unlimited()))]));
    for _ in 0..5 {
        assert_eq!(rig.push("g", &ios), UNAVAILABLE);
    }
    assert_eq!(fcm.count(), 1);
    rig.daemon
        .wait_for_log("cannot reach this token's platform", LONG);
    assert!(!rig.daemon.log().contains("check the settings of this module"));
    assert_eq!(rig.push("g", &token(1)), RESULT);
}

/// What a publish after the one that met the answer comes to, when Google is well again.
#[derive(Clone, Copy, Debug)]
enum Next {
    Sent,
    Unasked(&'static str),
}

type Row = (Vec<Answer>, &'static str, usize, Next);

fn rows() -> Vec<Row> {
    use Next::{Sent, Unasked};
    let error = |status, name: &str, code| vec![fcm_error(status, name, code, &[])];
    let device = quota_failure("token:0", "device message rate exceeded");
    let project = quota_failure(
        "project:project-1",
        "Quota exceeded for message rate of the project",
    );
    let field = bad_request("message.android.ttl", "Invalid ttl");
    let its_token = bad_request("message.token", "Invalid registration token");
    let other = json!({ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "X" });
    let later = |mut answers: Vec<Answer>| vec![answers.remove(0).header("retry-after", "3600")];
    vec![
        (vec![], RESULT, 1, Sent),
        // None of these modules has had a success yet: their first word about a token is not believed.
        (
            error(404, "NOT_FOUND", Some("UNREGISTERED")),
            UNAVAILABLE,
            1,
            Unasked(UNAVAILABLE),
        ),
        (
            vec![fcm_error(404, "NOT_FOUND", Some("UNREGISTERED"), &[other])],
            UNAVAILABLE,
            1,
            Unasked(UNAVAILABLE),
        ),
        (error(404, "NOT_FOUND", None), UNAVAILABLE, 1, Sent),
        (vec![Answer::raw(404, "<html>")], UNAVAILABLE, 1, Sent),
        (
            error(400, "INVALID_ARGUMENT", Some("INVALID_ARGUMENT")),
            UNAVAILABLE,
            1,
            Unasked(UNAVAILABLE),
        ),
        (
            vec![fcm_error(
                400,
                "INVALID_ARGUMENT",
                Some("INVALID_ARGUMENT"),
                &[its_token],
            )],
            UNAVAILABLE,
            1,
            Unasked(UNAVAILABLE),
        ),
        (
            vec![fcm_error(
                400,
                "INVALID_ARGUMENT",
                Some("INVALID_ARGUMENT"),
                &[field],
            )],
            UNAVAILABLE,
            1,
            Sent,
        ),
        (error(400, "INVALID_ARGUMENT", None), UNAVAILABLE, 1, Sent),
        (
            error(400, "X", Some("UNSPECIFIED_ERROR")),
            UNAVAILABLE,
            1,
            Unasked(UNAVAILABLE),
        ),
        (
            error(400, "X", Some("NEW_FANGLED")),
            UNAVAILABLE,
            1,
            Unasked(UNAVAILABLE),
        ),
        // It may be about us.
        (
            error(403, "PERMISSION_DENIED", Some("SENDER_ID_MISMATCH")),
            UNAVAILABLE,
            1,
            Unasked(UNAVAILABLE),
        ),
        (
            error(403, "PERMISSION_DENIED", None),
            UNAVAILABLE,
            1,
            Unasked(UNAVAILABLE),
        ),
        (
            error(401, "UNAUTHENTICATED", Some("THIRD_PARTY_AUTH_ERROR")),
            UNAVAILABLE,
            1,
            Unasked(UNAVAILABLE),
        ),
        (error(401, "UNAUTHENTICATED", None), RESULT, 2, Sent),
        (
            vec![fcm_error(
                429,
                "RESOURCE_EXHAUSTED",
                Some("QUOTA_EXCEEDED"),
                &[device],
            )],
            RESULT,
            1,
            Unasked(REFUSED),
        ),
        (
            vec![fcm_error(
                429,
                "RESOURCE_EXHAUSTED",
                Some("QUOTA_EXCEEDED"),
                &[project],
            )],
            UNAVAILABLE,
            1,
            Unasked(UNAVAILABLE),
        ),
        // Nobody says whose: this device is left alone.
        (
            error(429, "RESOURCE_EXHAUSTED", Some("QUOTA_EXCEEDED")),
            RESULT,
            1,
            Unasked(REFUSED),
        ),
        (vec![Answer::raw(429, "<html>")], RESULT, 1, Unasked(REFUSED)),
        (
            later(error(503, "UNAVAILABLE", Some("UNAVAILABLE"))),
            UNAVAILABLE,
            1,
            Sent,
        ),
        (
            later(error(500, "INTERNAL", Some("INTERNAL"))),
            UNAVAILABLE,
            1,
            Sent,
        ),
        (later(error(500, "INTERNAL", None)), UNAVAILABLE, 1, Sent),
        (
            later(vec![Answer::raw(502, "<html>Error 502 (Server Error)</html>")]),
            UNAVAILABLE,
            1,
            Sent,
        ),
        (later(vec![Answer::status(504)]), UNAVAILABLE, 1, Sent),
        (
            vec![Answer::raw(502, "<html>Error 502</html>").header("retry-after", "1")],
            RESULT,
            2,
            Sent,
        ),
        (vec![Answer::CloseConnection], RESULT, 2, Sent),
        (vec![Answer::raw(413, "")], RESULT, 2, Sent),
    ]
}

#[test]
fn every_answer_of_googles() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let rows = rows();
    let scripts = Scripts::default();
    fcm.answer_with({
        let scripts = scripts.clone();
        move |send| scripts.next(send.token())
    });
    let module = |number: usize| (format!("g{number}"), google(&fcm, unlimited()));
    let mut rig = start(&ca, &fcm, modules((0..rows.len()).map(module)));
    let mut ids = Vec::new();
    for (number, (answers, ..)) in rows.iter().enumerate() {
        scripts.set(&token(number), answers.clone());
        ids.push(rig.publish(&format!("g{number}"), &token(number)));
    }
    let of = |number: usize| -> Vec<FcmSend> {
        fcm.sends()
            .into_iter()
            .filter(|send| send.token() == token(number))
            .collect()
    };
    for (number, (answers, verdict, requests, next)) in rows.iter().enumerate() {
        assert_eq!(rig.verdict(&ids[number]), *verdict, "{answers:?}");
        assert_eq!(of(number).len(), *requests, "{answers:?}");
        let module = format!("g{number}");
        match next {
            Next::Sent => {
                assert_eq!(rig.push(&module, &token(number)), RESULT, "{answers:?}");
                assert_eq!(of(number).len(), requests + 1, "{answers:?}");
            }
            Next::Unasked(verdict) => {
                assert_eq!(rig.push(&module, &token(number)), *verdict, "{answers:?}");
                assert_eq!(of(number).len(), *requests, "{answers:?}");
            }
        }
    }
    rig.assert_discreet(&tokens(0..rows.len()));
}

#[test]
fn a_wrong_project_costs_no_device_its_registration() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let mut rig = start(&ca, &fcm, modules([("g", google(&fcm, unlimited()))]));
    fcm.answer_with(|_| fcm_error(403, "PERMISSION_DENIED", Some("SENDER_ID_MISMATCH"), &[]));
    let verdicts = rig.push_all("g", &tokens(0..50));
    assert!(
        verdicts.iter().all(|verdict| verdict == UNAVAILABLE),
        "{verdicts:?}"
    );
    fcm.answer_normally();
    for living in tokens(50..200) {
        assert_eq!(rig.push("g", &living), RESULT);
    }
    // Not even where all else is well, at the first word; a device that is gone is.
    fcm.queue([
        fcm_error(403, "PERMISSION_DENIED", Some("SENDER_ID_MISMATCH"), &[]),
        fcm_error(404, "NOT_FOUND", Some("UNREGISTERED"), &[]),
    ]);
    let count = fcm.count();
    for (number, verdict) in [(299, UNAVAILABLE), (300, DEAD)] {
        for _ in 0..3 {
            assert_eq!(rig.push("g", &token(number)), verdict);
        }
    }
    assert_eq!(fcm.count(), count + 2);
}

#[test]
fn the_projects_quota_pauses_the_module_and_the_devices_quota_one_token() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let limit = json!({ "ratelimit": { "ratelimitTime": "100ms", "hardRatelimitTime": "3s" } });
    let all = modules([
        ("device", google(&fcm, limit)),
        ("project", google(&fcm, json!({}))),
    ]);
    let mut rig = start(&ca, &fcm, all);
    let exceeded = |details: &[Value]| fcm_error(429, "RESOURCE_EXHAUSTED", Some("QUOTA_EXCEEDED"), details);

    fcm.queue([exceeded(&[quota_failure("token:1", "device message rate")])]);
    let began = Instant::now();
    assert_eq!(rig.push("device", &token(1)), RESULT, "it is held");
    assert_eq!(rig.push("device", &token(1)), REFUSED);
    assert_eq!(rig.push("device", &token(2)), RESULT);
    let sends = fcm.wait_for(3, LONG);
    assert_eq!(sends[2].token(), token(1));
    assert!(sends[2].at - began >= 3 * SECOND);

    assert_eq!(rig.push("device", &token(3)), RESULT);
    let of_project = quota_failure("project:project-1", "message rate");
    fcm.queue([exceeded(&[of_project]).header("retry-after", "2")]);
    assert_eq!(rig.push("project", &token(1)), UNAVAILABLE);
    assert_eq!(rig.push("project", &token(2)), UNAVAILABLE, "others wait, too");
    assert_eq!(fcm.count(), 5);
    assert_eq!(rig.push("device", &token(4)), RESULT, "but not another module");
}

/// Where Google does not say whether the device or the project gets too much, one stranger's device stops nobody.
#[test]
fn a_quota_of_nobody_in_particular_pauses_the_module_when_devices_of_two_domains_meet_it() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let mut rig = start(&ca, &fcm, modules([("g", google(&fcm, json!({})))]));
    let limit = || fcm_error(429, "RESOURCE_EXHAUSTED", Some("QUOTA_EXCEEDED"), &[]);
    let from = |rig: &mut Rig, domain: &str, number| {
        let id = rig.publish_from(domain, "g", &token(number));
        rig.verdict(&id)
    };
    fcm.queue((0..5).map(|_| limit()));
    for number in 0..5 {
        assert_eq!(from(&mut rig, "stranger.example", number), RESULT, "it is held");
    }
    assert_eq!(from(&mut rig, "a.example", 10), RESULT);
    assert_eq!(fcm.count(), 6);
    assert!(!rig.daemon.log().contains("throttled by the provider"));

    fcm.queue((0..3).map(|_| limit()));
    assert_eq!(
        from(&mut rig, "a.example", 11),
        UNAVAILABLE,
        "two of them are a stranger's, and this is the third"
    );
    assert_eq!(from(&mut rig, "a.example", 12), UNAVAILABLE, "it pauses");
    assert_eq!(fcm.count(), 7);
    rig.daemon.wait_for_log("throttled by the provider", LONG);
}

#[test]
fn hundreds_of_pushes_share_one_connection() {
    let ca = TestCa::new();
    let fcm = FakeFcm::builder(&ca).delay(SECOND / 10).start();
    // All of them wait for those before.
    let patient = json!({ "fcm": { "requestTimeout": 24 } });
    let mut rig = start(&ca, &fcm, modules([("g", google(&fcm, patient))]));
    let verdicts = rig.push_all("g", &tokens(0..512));
    assert!(verdicts.iter().all(|verdict| verdict == RESULT), "{verdicts:?}");
    assert_eq!(
        (fcm.count(), fcm.connections()),
        (512, 2),
        "one for the pushes, one for the token"
    );
    fcm.new_connections(NewConnections::Reset);
    fcm.reset_existing_connections();
    fcm.new_connections(NewConnections::Serve);
    assert_eq!(rig.push("g", &token(600)), RESULT);
}
