//! Answers that no provider should give: whatever comes, fpush lives, keeps its memory, and unregisters nobody.

use std::time::Duration;

use fpush_testkit::{
    Answer, BodyEnd, FakeApns, FakeFcm, Reason, TestCa,
    answer::GoAway,
    certs::{fixture, service_account_email},
    fcm_error,
};
use serde_json::{Value, json};

use crate::{
    fcm::google,
    rig::{LONG, RESULT, Rig, UNAVAILABLE, modules, unlimited},
};

/// What a row expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Becomes {
    /// Accepted, with one request.
    Accepted,
    /// Not accepted, and the device keeps its registration.
    Kept,
}
use Becomes::{Accepted, Kept};

/// A token of Apple's that names its row.
fn apple_token(row: usize) -> String {
    format!("{row:064x}")
}

/// One of Google's.
fn google_token(row: usize) -> String {
    format!("dCXr7fTpTm2yXGVYTXJb6r:APA91b{row:032}")
}

fn row_of(token: &str) -> usize {
    usize::from_str_radix(
        &token[token.len() - 4..],
        if token.contains(':') { 10 } else { 16 },
    )
    .unwrap()
}

/// What both providers may answer, and what becomes of the push.
fn answers() -> Vec<(Answer, Becomes)> {
    let zeros = vec![b'0'; 16_384];
    let deep = "[".repeat(10_000);
    let reply = |status, body: &[u8]| Answer::raw(status, body.to_vec());
    // The words are Google's for a quota that stops the whole module; to Apple's they are none.
    let after = |status, value: &str| {
        let words = r#"{"error":{"code":429,"message":"Quota of the project."}}"#;
        Answer::raw(status, words).header("retry-after", value)
    };
    let dated = |status, value: &str| Answer::raw(status, "<html>").header("date", value);
    let mut rows = vec![
        // The status of a success is enough.
        (reply(200, b"{\"name\":").ending(BodyEnd::Stalls), Accepted),
        (reply(200, b"").ending(BodyEnd::Stalls), Accepted),
        (reply(200, &zeros).ending(BodyEnd::Endless), Accepted),
        (reply(200, b"{").ending(BodyEnd::Reset), Accepted),
        (reply(200, b"<html>"), Accepted),
        (
            Answer::status(200).header("date", "Fri, 31 Dec 9999 23:59:59 GMT"),
            Accepted,
        ),
        (
            Answer::status(200).header("date", "Mon, 99 Foo 1800 99:99:99 GMT"),
            Accepted,
        ),
        // So is that of a refusal, for not blaming the token.
        (reply(410, b"{\"reason\":\"Unregis").ending(BodyEnd::Stalls), Kept),
        (reply(410, b"").ending(BodyEnd::Stalls), Kept),
        (reply(404, b"{\"error\":").ending(BodyEnd::Stalls), Kept),
        (reply(400, &zeros).ending(BodyEnd::Endless), Kept),
        (reply(410, b"{").ending(BodyEnd::Reset), Kept),
        (reply(410, b"<html>"), Kept),
        (reply(404, b""), Kept),
        (reply(410, deep.as_bytes()), Kept),
        (reply(400, b"{\"reason\":7,\"error\":[]}"), Kept),
        (reply(410, b"[{\"reason\":\"Unregistered\"}]"), Kept),
        (
            reply(
                404,
                b"{\"error\":{\"status\":\"NOT_FOUND\",\"details\":\"UNREGISTERED\"}}",
            ),
            Kept,
        ),
        (reply(302, b"").header("location", "https://127.0.0.1:1/"), Kept),
        (reply(500, &[0xff; 1_000]), Kept),
        (Answer::status(503).header("x-large", &"x".repeat(20_000)), Kept),
        (dated(403, "Thu, 01 Jan 1970 00:00:00 GMT"), Kept),
        (dated(403, "Fri, 31 Dec 9999 23:59:59 GMT"), Kept),
    ];
    for value in [
        "0",
        "-1",
        "99999999999999999999999999",
        "1e9",
        "NaN",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Mon, 99 Foo 99999 99:99:99 GMT",
    ] {
        rows.extend([429, 503].map(|status| (after(status, value), Kept)));
    }
    rows
}

/// Publishes one push per row, each to a module of its own, and checks what became of them.
#[track_caller]
fn check(rig: &mut Rig, rows: &[Becomes], token: fn(usize) -> String, requests: impl Fn(&str) -> usize) {
    let ids: Vec<_> = (0..rows.len())
        .map(|row| rig.publish(&format!("m{row}"), &token(row)))
        .collect();
    for (row, (id, becomes)) in ids.iter().zip(rows).enumerate() {
        let verdict = rig.verdict(id);
        match becomes {
            Accepted => assert_eq!(
                (verdict.as_str(), requests(&token(row))),
                (RESULT, 1),
                "row {row}"
            ),
            Kept => assert!(verdict.starts_with("wait/"), "row {row}: {verdict}"),
        }
    }
    check_health(rig);
}

#[track_caller]
fn check_health(rig: &mut Rig) {
    let log = rig.daemon.log();
    assert!(rig.daemon.is_running() && !log.contains("panicked"), "{log}");
    // A debug build with some fifty modules has about 60 MB; an endless body fills gigabytes.
    let peak = rig.daemon.peak_rss_kib();
    assert!(peak < 300_000, "{peak} KiB");
}

#[test]
fn apples() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let (answers, rows): (Vec<_>, Vec<_>) = answers().into_iter().unzip();
    let module = |row: usize| {
        let apns = json!({
            "certFilePath": fixture("aps.pem"), "certKeyFilePath": fixture("aps.key.pem"),
            "topic": "org.example.app", "endpoint": apns.url(), "caFilePath": "ca.pem",
        });
        (format!("m{row}"), json!({ "type": "apple", "apns": apns }))
    };
    apns.answer_with(move |request| answers[row_of(&request.token)].clone());
    let mut rig = Rig::start(&ca, modules((0..rows.len()).map(module)), &[]);
    check(&mut rig, &rows, apple_token, |token| {
        apns.requests()
            .iter()
            .filter(|request| request.token == token)
            .count()
    });
}

#[test]
fn googles() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let (answers, rows): (Vec<_>, Vec<_>) = answers().into_iter().unzip();
    fcm.answer_with(move |send| answers[row_of(send.token())].clone());
    let module = |row: usize| (format!("m{row}"), google(&fcm, json!({})));
    let account = fcm.service_account("project-1");
    let mut rig = Rig::start(
        &ca,
        modules((0..rows.len()).map(module)),
        &[("fcm.json", &account)],
    );
    check(&mut rig, &rows, google_token, |token| fcm.data_for(token).len());
}

/// A token that is granted is used, whatever is said of its life; and what grants none costs nothing but the push.
#[test]
fn the_token_endpoints() {
    let grant = |expires_in: Value| {
        let body = json!({ "access_token": "ya29.x", "expires_in": expires_in, "token_type": "Bearer" });
        (Answer::json(200, &body), Accepted)
    };
    let json = |status, body: &str| Answer::raw(status, body.to_owned());
    let zeros = vec![b' '; 16_384];
    let endless = |status| Answer::raw(status, zeros.clone()).ending(BodyEnd::Endless);
    let rows = [
        grant(json!(260_000_000_000_u64)),
        grant(json!(i64::MIN)),
        grant(json!(i64::MAX)),
        grant(json!(u64::MAX)),
        grant(json!(3_599.5)),
        grant(json!(1e300)),
        grant(json!("3599")),
        grant(json!("soon")),
        grant(json!(-1)),
        grant(json!(0)),
        grant(json!(null)),
        grant(json!({})),
        (json(200, r#"{"access_token":"ya29.x"}"#), Accepted),
        (
            json(200, r#"{"access_token":"ya29.x","token_type":7,"scope":[]}"#),
            Accepted,
        ),
        (json(200, r#"{"access_token":"ya29\n.x"}"#), Kept),
        (json(200, r#"{"access_token":7}"#), Kept),
        (json(200, &"[".repeat(10_000)), Kept),
        (endless(200), Kept),
        (endless(502), Kept),
        (json(200, r#"{"access_token":"#).ending(BodyEnd::Stalls), Kept),
        (json(502, "<html>").ending(BodyEnd::Stalls), Kept),
        (json(200, "{").ending(BodyEnd::Reset), Kept),
        (json(200, "<html>"), Kept),
        (json(502, "<html>"), Kept),
        (
            json(302, "").header("location", "https://127.0.0.1:1/token"),
            Kept,
        ),
        (json(307, "").header("location", "/token"), Kept),
        (
            json(400, r#"{"error":"invalid_grant","error_description":[7]}"#),
            Kept,
        ),
        (
            json(403, r#"{"error":{"code":"403","status":"PERMISSION_DENIED"}}"#),
            Kept,
        ),
        (Answer::Silence, Kept),
        (Answer::CloseConnection, Kept),
        (Answer::status(200).header("x-large", &"x".repeat(100_000)), Kept),
    ];
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let (answers, rows): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let projects: Vec<_> = (0..rows.len()).map(|row| format!("project-{row}")).collect();
    let emails: Vec<_> = projects
        .iter()
        .map(|project| service_account_email(project))
        .collect();
    fcm.answer_tokens_with(move |request| {
        let issuer = request.assertion.as_ref().unwrap().claims["iss"].clone();
        let row = emails.iter().position(|email| issuer == **email).unwrap();
        answers[row].clone()
    });
    let module = |row: usize| {
        let file = json!({ "fcm": { "fcmSecretPath": format!("{row}.json"), "requestTimeout": 3 } });
        (format!("m{row}"), google(&fcm, file))
    };
    let accounts: Vec<_> = projects
        .iter()
        .enumerate()
        .map(|(row, project)| (format!("{row}.json"), fcm.service_account(project)))
        .collect();
    let files: Vec<_> = accounts
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let mut rig = Rig::start(&ca, modules((0..rows.len()).map(module)), &files);
    check(&mut rig, &rows, google_token, |token| fcm.data_for(token).len());
    assert!(
        !rig.daemon.log().contains("ya29"),
        "an access token is in the log"
    );
}

/// What Apple says besides its reason takes nothing away from it, whatever its type.
#[test]
fn an_odd_timestamp_does_not_hide_that_a_token_is_dead() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let module = json!({ "type": "apple", "apns": {
        "certFilePath": fixture("aps.pem"), "certKeyFilePath": fixture("aps.key.pem"),
        "topic": "org.example.app", "endpoint": apns.url(), "caFilePath": "ca.pem",
    } });
    let mut rig = Rig::start(
        &ca,
        modules([("m0", fpush_testkit::merged(module, unlimited()))]),
        &[],
    );
    let living: Vec<_> = (0..60).map(apple_token).collect();
    assert_eq!(rig.push_all("m0", &living), [RESULT; 60]);
    for (row, timestamp) in ["1454948015990.0", "\"1454948015990\"", "[]", "\"x\""]
        .into_iter()
        .enumerate()
    {
        let body = format!("{{\"reason\":\"Unregistered\",\"timestamp\":{timestamp}}}");
        apns.queue([Answer::raw(410, body)]);
        assert_eq!(
            rig.push("m0", &apple_token(100 + row)),
            crate::rig::DEAD,
            "{timestamp}"
        );
    }
}

/// A stalled body holds nothing up but itself.
#[test]
fn a_success_whose_body_stalls_is_not_sent_again() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let account = fcm.service_account("project-1");
    let module = google(&fcm, unlimited());
    let mut rig = Rig::start(&ca, modules([("m0", module)]), &[("fcm.json", &account)]);
    assert_eq!(rig.push("m0", &google_token(0)), RESULT);
    fcm.answer_with(|_| Answer::raw(200, "{").ending(BodyEnd::Stalls));
    let (verdict, time) = rig.timed("m0", &google_token(1));
    assert!(
        verdict == RESULT && time < Duration::from_secs(8),
        "{verdict} after {time:?}"
    );
    assert_eq!(fcm.count(), 2);
    fcm.answer_with(|_| fcm_error(503, "UNAVAILABLE", None, &[]).ending(BodyEnd::Stalls));
    assert_eq!(rig.push("m0", &google_token(2)), UNAVAILABLE);
    fcm.answer_normally();
    assert_eq!(rig.push("m0", &google_token(3)), RESULT);
    assert_eq!(fcm.wait_for(4, LONG).last().unwrap().token(), google_token(3));
}

/// Apple's reason helps the operator; whatever else may be there has no business in the log.
#[test]
fn what_is_said_at_the_end_of_a_connection_is_not_repeated() {
    let ca = TestCa::new();
    let (apns, fcm) = (FakeApns::start(&ca), FakeFcm::start(&ca));
    let good_bye = |number: usize| {
        let debug = format!(
            "{{\"reason\":\"BadCertificate\",\"token\":\"{}\"}}",
            apple_token(number)
        );
        Answer::GoAway(GoAway {
            reason: Reason::ENHANCE_YOUR_CALM,
            processed: true,
            debug,
        })
    };
    apns.queue([good_bye(1)]);
    fcm.queue([good_bye(1)]);
    fcm.queue_tokens([good_bye(1)]);
    let account = fcm.service_account("project-1");
    let ios = json!({ "type": "apple", "apns": {
        "certFilePath": fixture("aps.pem"), "certKeyFilePath": fixture("aps.key.pem"),
        "topic": "org.example.app", "endpoint": apns.url(), "caFilePath": "ca.pem",
    } });
    let all = modules([("ios", ios), ("android", google(&fcm, json!({})))]);
    let mut rig = Rig::start(&ca, all, &[("fcm.json", &account)]);
    assert_eq!(rig.push("ios", &apple_token(1)), RESULT);
    assert_eq!(rig.push("android", &google_token(1)), RESULT);
    let words =
        "the connection to the provider broke: GOAWAY with ENHANCE_YOUR_CALM and the reason BadCertificate";
    let log = rig.daemon.log();
    for module in ["module=ios", "module=android"] {
        let mut lines = log.lines();
        assert!(
            lines.any(|line| line.contains(module) && line.contains(words)),
            "{module}: {log}"
        );
    }
    assert!(log.contains("no access token"), "{log}");
    rig.assert_discreet(&[apple_token(1)]);
}
