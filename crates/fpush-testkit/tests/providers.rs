//! The fake APNs and the fake FCM, as a client sees them.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(
    clippy::disallowed_macros,
    reason = "the harness of the tests catches what they print"
)]

mod common;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use common::{Client, LONG, SHORT, sign_es256, sign_rs256};
use fpush_testkit::answer::GoAway;
use fpush_testkit::certs::Identity;
use fpush_testkit::fake_fcm::{bad_request, quota_failure, token_error};
use fpush_testkit::{
    Answer, ApnsKey, ClientAuth, FakeApns, FakeFcm, NewConnections, Reason, TestCa, fcm_error, fixture,
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

async fn apns() -> (TestCa, FakeApns, Client) {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let client = Client::connect(&ca, &apns.url(), None).await.unwrap();
    (ca, apns, client)
}

const DEVICE: &str = "/3/device/abc123";
/// Longer than anything takes that does not wait, also on a busy machine.
const DELAY: Duration = Duration::from_millis(700);
const HOUR: Duration = Duration::from_secs(3600);
/// Requests that are answered together.
const AT_ONCE: usize = 50;

#[tokio::test]
async fn apns_accepts_and_records() {
    let (_ca, apns, client) = apns().await;
    let headers = [("apns-id", "ID-1"), ("apns-topic", "org.example.app")];
    let answer = client
        .post(DEVICE, &headers, r#"{"aps":{"alert":"hi"}}"#)
        .await
        .unwrap();
    assert_eq!(
        (answer.status, answer.header("apns-id"), answer.body.as_str()),
        (200, Some("ID-1"), "")
    );

    let requests = apns.wait_for(1, LONG);
    let request = &requests[0];
    assert_eq!(
        (
            request.token.as_str(),
            request.method.as_str(),
            request.path.as_str()
        ),
        ("abc123", "POST", DEVICE)
    );
    assert_eq!(request.header("apns-topic"), Some("org.example.app"));
    assert_eq!(
        (&request.body, request.body_len),
        (&json!({"aps": {"alert": "hi"}}), 22)
    );
    assert_eq!(
        (request.connection, request.client_cert, apns.connections()),
        (1, false, 1)
    );

    // A body of several frames, and one that is not JSON.
    let big = format!("\"{}\"", "x".repeat(40_000));
    client.post("/other", &[], big.clone()).await.unwrap();
    client.post(DEVICE, &[], "{").await.unwrap();
    let requests = apns.requests();
    assert_eq!(
        (requests[1].token.as_str(), requests[1].body_len),
        ("/other", big.len())
    );
    assert_eq!(requests[1].body.as_str().unwrap().len(), 40_000);
    assert_eq!((&requests[2].body, apns.count()), (&Value::Null, 3));
}

#[tokio::test]
async fn apns_answers_as_scripted() {
    let (_ca, apns, client) = apns().await;
    apns.answer_with(|request| match request.token.as_str() {
        "dead" => Answer::reason_since(410, "Unregistered", 1_700_000_000_000),
        "busy" => Answer::reason(429, "TooManyRequests")
            .header("retry-after", "7")
            .header("apns-id", "other"),
        _ => Answer::Normal,
    });
    apns.queue([Answer::raw(502, "<html>"), Answer::Normal]);
    let answer = client.post("/3/device/dead", &[], "{}").await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (502, "<html>"));
    assert_eq!(
        client.post("/3/device/dead", &[], "{}").await.unwrap().status,
        200
    );
    let answer = client
        .post("/3/device/dead", &[("apns-id", "1")], "{}")
        .await
        .unwrap();
    assert_eq!((answer.status, answer.header("apns-id")), (410, Some("1")));
    assert_eq!(
        answer.json(),
        json!({"reason": "Unregistered", "timestamp": 1_700_000_000_000_u64})
    );
    let answer = client
        .post("/3/device/busy", &[("apns-id", "1")], "{}")
        .await
        .unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("7")));
    assert_eq!(
        answer.headers.get_all("apns-id").iter().collect::<Vec<_>>(),
        ["other"]
    );
    assert_eq!(client.post(DEVICE, &[], "{}").await.unwrap().status, 200);
    apns.answer_normally();
    assert_eq!(
        client.post("/3/device/dead", &[], "{}").await.unwrap().status,
        200
    );
}

#[tokio::test]
async fn apns_delays_one_answer_and_not_the_others() {
    let (_ca, apns, client) = apns().await;
    apns.queue([
        Answer::Normal.after(HOUR),
        Answer::reason(500, "InternalServerError").after(DELAY),
        Answer::Normal,
    ]);
    let start = Instant::now();
    let never = client.start(DEVICE, &[], "{}").await.unwrap();
    let late = client.start(DEVICE, &[], "{}").await.unwrap();
    assert_eq!(client.post(DEVICE, &[], "{}").await.unwrap().status, 200);
    assert_eq!(late.await.unwrap().status, 500);
    assert!(start.elapsed() >= DELAY);
    assert!(timeout(Duration::ZERO, never).await.is_err());
}

#[tokio::test]
async fn apns_stays_silent_or_resets_one_stream() {
    let (_ca, apns, client) = apns().await;
    apns.queue([Answer::Silence, Answer::ResetStream(Reason::REFUSED_STREAM)]);
    let silent = client.start(DEVICE, &[], "{}").await.unwrap();
    let error = client.post(DEVICE, &[], "{}").await.unwrap_err();
    assert_eq!(
        (error.reason(), error.is_reset(), error.is_remote()),
        (Some(Reason::REFUSED_STREAM), true, true)
    );
    assert!(timeout(SHORT, silent).await.is_err());
    // The connection is none the worse for it.
    assert_eq!(client.post(DEVICE, &[], "{}").await.unwrap().status, 200);
    assert_eq!(apns.connections(), 1);
}

#[tokio::test]
async fn apns_drops_the_connection() {
    let (ca, apns, client) = apns().await;
    apns.queue([Answer::Silence, Answer::CloseConnection]);
    let silent = client.start(DEVICE, &[], "{}").await.unwrap();
    let closed = client.start(DEVICE, &[], "{}").await.unwrap();
    for answer in [
        timeout(LONG, silent).await.unwrap().unwrap_err(),
        timeout(LONG, closed).await.unwrap().unwrap_err(),
    ] {
        assert!(answer.is_io(), "{answer:?}");
    }
    let client = Client::connect(&ca, &apns.url(), None).await.unwrap();
    assert_eq!(client.post(DEVICE, &[], "{}").await.unwrap().status, 200);
    assert_eq!(
        apns.requests()
            .iter()
            .map(|request| request.connection)
            .collect::<Vec<_>>(),
        [1, 1, 2]
    );

    apns.queue([Answer::Silence]);
    let silent = client.start(DEVICE, &[], "{}").await.unwrap();
    assert!(timeout(SHORT, client.driver).await.is_err());
    apns.reset_existing_connections();
    assert!(timeout(LONG, silent).await.unwrap().unwrap_err().is_io());
}

#[tokio::test]
async fn apns_goes_away() {
    for processed in [true, false] {
        let (_ca, apns, client) = apns().await;
        let debug = r#"{"reason":"IdleTimeout"}"#.to_owned();
        apns.queue([
            Answer::Silence,
            Answer::GoAway(GoAway {
                reason: Reason::ENHANCE_YOUR_CALM,
                processed,
                debug,
            }),
        ]);
        let first = client.start(DEVICE, &[], "{}").await.unwrap();
        let second = client.start(DEVICE, &[], "{}").await.unwrap();
        let second = timeout(LONG, second).await.unwrap().unwrap_err();
        let first = timeout(LONG, first).await.unwrap().unwrap_err();
        // h2 gives the reason of the frame to the streams above its last id, and to the others the end of the
        // connection.
        assert_eq!(second.is_go_away(), !processed, "{second:?}");
        assert!(!first.is_go_away(), "{first:?}");
        let end = timeout(LONG, client.driver).await.unwrap().unwrap().unwrap_err();
        assert_eq!(
            (end.is_go_away(), end.reason()),
            (true, Some(Reason::ENHANCE_YOUR_CALM)),
            "{end:?}"
        );
        assert!(format!("{end:?}").contains("IdleTimeout"), "{end:?}");
    }
}

#[tokio::test]
async fn apns_drains() {
    let (_ca, apns, client) = apns().await;
    apns.queue([
        Answer::Normal.after(SHORT),
        Answer::Drain(Box::new(Answer::Normal)),
    ]);
    let first = client.start(DEVICE, &[], "{}").await.unwrap();
    let second = client.start(DEVICE, &[], "{}").await.unwrap();
    assert_eq!(timeout(LONG, second).await.unwrap().unwrap().status, 200);
    assert_eq!(timeout(LONG, first).await.unwrap().unwrap().status, 200);
    timeout(LONG, client.driver).await.unwrap().unwrap().unwrap();
    assert!(client.send.ready().await.is_err());
}

#[tokio::test]
async fn apns_stalls() {
    let (ca, apns, mut client) = apns().await;
    client.post(DEVICE, &[], "{}").await.unwrap();
    timeout(LONG, client.pings.ping(h2::Ping::opaque()))
        .await
        .unwrap()
        .unwrap();
    apns.stall_existing_connections();
    let answer = client.start(DEVICE, &[], "{}").await.unwrap();
    assert!(
        timeout(SHORT, client.pings.ping(h2::Ping::opaque()))
            .await
            .is_err()
    );
    assert!(timeout(SHORT, answer).await.is_err());
    assert!(!client.driver.is_finished());
    let other = Client::connect(&ca, &apns.url(), None).await.unwrap();
    assert_eq!(other.post(DEVICE, &[], "{}").await.unwrap().status, 200);
    assert_eq!(
        apns.requests()
            .iter()
            .map(|request| request.connection)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    apns.reset_existing_connections();
    assert!(timeout(LONG, client.driver).await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn apns_limits_streams() {
    let ca = TestCa::new();
    let apns = FakeApns::builder(&ca).max_concurrent_streams(1).start();
    let client = Client::connect(&ca, &apns.url(), None).await.unwrap();
    client.post(DEVICE, &[], "{}").await.unwrap();
    assert_eq!(client.send.current_max_send_streams(), 1);
    let other = FakeApns::start(&ca);
    let client = Client::connect(&ca, &other.url(), None).await.unwrap();
    client.post(DEVICE, &[], "{}").await.unwrap();
    assert_eq!(client.send.current_max_send_streams(), 1000);
}

#[tokio::test]
async fn apns_counts_and_delays_without_a_record() {
    let ca = TestCa::new();
    let apns = FakeApns::builder(&ca).recording(false).delay(DELAY).start();
    let client = Client::connect(&ca, &apns.url(), None).await.unwrap();
    let start = Instant::now();
    let mut answers = Vec::new();
    for _ in 0..AT_ONCE {
        answers.push(client.start(DEVICE, &[], "{}").await.unwrap());
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    // One after another they would take 50 times as long; a busy machine needs its time too.
    assert!((DELAY..25 * DELAY).contains(&start.elapsed()));
    assert_eq!(
        (
            apns.count(),
            apns.requests().len(),
            apns.wait_for(AT_ONCE, LONG).len()
        ),
        (AT_ONCE, 0, 0)
    );
    apns.queue([Answer::status(503)]);
    assert_eq!(client.post(DEVICE, &[], "{}").await.unwrap().status, 503);
    assert_eq!(apns.count(), AT_ONCE + 1);
}

#[tokio::test]
async fn apns_checks_client_certificates() {
    let ca = TestCa::new();
    let apns = FakeApns::builder(&ca).client_auth(ClientAuth::Required).start();
    let good = ca.client_cert("Apple Push Services: org.example.app", SystemTime::now() + HOUR);
    let expired = ca.client_cert("Apple Push Services: org.example.app", SystemTime::now() - HOUR);
    let stranger = TestCa::new().client_cert("x", SystemTime::now() + HOUR);
    for identity in [
        None,
        Some(expired),
        Some(stranger),
        Some(fixture_identity("expired")),
    ] {
        // With TLS 1.3 the client learns of it when it reads.
        if let Ok(client) = Client::connect(&ca, &apns.url(), identity).await {
            client.post(DEVICE, &[], "{}").await.unwrap_err();
        }
    }
    // The server counts when its task comes to it; the client may have read the alert before.
    let start = Instant::now();
    while apns.failed_handshakes() < 4 && start.elapsed() < LONG {
        tokio::time::sleep(SHORT / 10).await;
    }
    assert_eq!((apns.connections(), apns.failed_handshakes()), (0, 4));
    for identity in [good, fixture_identity("aps")] {
        let client = Client::connect(&ca, &apns.url(), Some(identity)).await.unwrap();
        assert_eq!(client.post(DEVICE, &[], "{}").await.unwrap().status, 200);
    }
    assert!(apns.requests().iter().all(|request| request.client_cert));
    assert_eq!(apns.count(), 2);
}

fn fixture_identity(name: &str) -> Identity {
    let (cert, key) = (
        fixture(&format!("{name}.pem")),
        fixture(&format!("{name}.key.pem")),
    );
    Identity {
        cert_der: CertificateDer::from_pem_file(&cert).unwrap(),
        key_der: PrivateKeyDer::from_pem_file(&key).unwrap(),
        cert_pem: fs::read_to_string(cert).unwrap(),
        key_pem: fs::read_to_string(key).unwrap(),
    }
}

#[tokio::test]
async fn apns_turns_new_connections_away() {
    let (ca, apns, client) = apns().await;
    apns.new_connections(NewConnections::Reset);
    assert!(
        timeout(LONG, Client::connect(&ca, &apns.url(), None))
            .await
            .unwrap()
            .is_err()
    );
    apns.new_connections(NewConnections::Ignore);
    assert!(
        timeout(SHORT, Client::connect(&ca, &apns.url(), None))
            .await
            .is_err()
    );
    assert_eq!(client.post(DEVICE, &[], "{}").await.unwrap().status, 200);
    apns.new_connections(NewConnections::Serve);
    let client = Client::connect(&ca, &apns.url(), None).await.unwrap();
    assert_eq!(client.post(DEVICE, &[], "{}").await.unwrap().status, 200);
    assert_eq!(apns.connections(), 2);
}

#[tokio::test]
async fn nobody_trusts_another_ca_and_drop_stops_the_server() {
    let (ca, apns, _client) = apns().await;
    assert!(Client::connect(&TestCa::new(), &apns.url(), None).await.is_err());
    let url = apns.url();
    drop(apns);
    assert!(Client::connect(&ca, &url, None).await.is_err());
}

#[tokio::test]
async fn a_panic_in_a_script_fails_the_test() {
    let (_ca, apns, client) = apns().await;
    apns.answer_with(|request| {
        assert_eq!(request.token, "other", "this panic is wanted");
        Answer::Normal
    });
    client.post(DEVICE, &[], "{}").await.unwrap_err();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(apns))).is_err());
}

#[test]
fn waiting_in_vain_panics() {
    let apns = FakeApns::start(&TestCa::new());
    let panic = catch_unwind(AssertUnwindSafe(|| apns.wait_for(1, Duration::from_millis(20)))).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(
        message.starts_with("wanted 1 requests at the fake APNs within 20ms, but 0 arrived"),
        "{message}"
    );
    assert_eq!(apns.requests().len(), 0);
}

#[test]
fn a_provider_token_needs_the_right_key() {
    let key = ApnsKey::generate();
    let (header, claims) = (json!({"alg": "ES256", "kid": "K"}), json!({"iss": "T", "iat": 1}));
    let token = sign_es256(&key.p8(), &header, &claims);
    let jwt = key.verify(&format!("bearer {token}")).unwrap();
    assert_eq!((jwt.header, jwt.claims), (header, claims.clone()));
    ApnsKey::generate().verify(&token).unwrap_err();
    key.verify(&format!("{token}==")).unwrap_err();
    key.verify(&sign_es256(&key.p8(), &json!({"alg": "none"}), &claims))
        .unwrap_err();
}

async fn fcm(build: impl FnOnce(fpush_testkit::fake_fcm::Builder<'_>) -> FakeFcm) -> (FakeFcm, Client) {
    let ca = TestCa::new();
    let fcm = build(FakeFcm::builder(&ca));
    let client = Client::connect(&ca, &fcm.url(), None).await.unwrap();
    (fcm, client)
}

const SEND: &str = "/v1/projects/p-1/messages:send";
const MESSAGE: &str = r#"{"message":{"token":"t:1","data":{"a":"b"}}}"#;

/// The form of a token request, signed with the key of the service account.
fn grant(fcm: &FakeFcm) -> String {
    let account: Value = serde_json::from_str(&fcm.service_account("p-1")).unwrap();
    let claims = json!({"iss": account["client_email"], "aud": account["token_uri"]});
    let key = account["private_key"].as_str().unwrap();
    let assertion = sign_rs256(key, &json!({"alg": "RS256"}), &claims);
    format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}&x=a+b%20%C3%BC"
    )
}

#[tokio::test]
async fn fcm_accepts_and_records() {
    let (fcm, client) = fcm(|builder| builder.start()).await;
    let answer = client
        .post(SEND, &[("authorization", "Bearer t")], MESSAGE)
        .await
        .unwrap();
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"name": "projects/p-1/messages/0:1"}))
    );
    let send = &fcm.wait_for(1, LONG)[0];
    assert_eq!(
        (send.project.as_str(), send.bearer.as_deref(), send.token()),
        ("p-1", Some("t"), "t:1")
    );
    assert_eq!(send.message, json!({"token": "t:1", "data": {"a": "b"}}));
    assert_eq!(
        client
            .post("/v1/p-1/messages:send", &[], MESSAGE)
            .await
            .unwrap()
            .status,
        404
    );
    assert_eq!(fcm.count(), 1);
}

#[tokio::test]
async fn fcm_errors_have_googles_shape() {
    let (fcm, client) = fcm(|builder| builder.start()).await;
    fcm.queue([
        fcm_error(404, "NOT_FOUND", Some("UNREGISTERED"), &[]),
        fcm_error(
            400,
            "INVALID_ARGUMENT",
            Some("INVALID_ARGUMENT"),
            &[bad_request("message.ttl", "bad")],
        ),
        fcm_error(
            429,
            "RESOURCE_EXHAUSTED",
            None,
            &[quota_failure("project:p", "Requests")],
        )
        .header("retry-after", "3"),
        fcm_error(503, "UNAVAILABLE", None, &[]),
    ]);
    let answer = client.post(SEND, &[], MESSAGE).await.unwrap();
    let fcm_type = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.json(),
        json!({"error": {"code": 404, "message": "Scripted by the test.", "status": "NOT_FOUND",
            "details": [{"@type": fcm_type, "errorCode": "UNREGISTERED"}]}})
    );
    let answer = client.post(SEND, &[], MESSAGE).await.unwrap();
    assert_eq!(
        answer.json()["error"]["details"],
        json!([
            {"@type": "type.googleapis.com/google.rpc.BadRequest",
             "fieldViolations": [{"field": "message.ttl", "description": "bad"}]},
            {"@type": fcm_type, "errorCode": "INVALID_ARGUMENT"},
        ])
    );
    let answer = client.post(SEND, &[], MESSAGE).await.unwrap();
    assert_eq!(answer.header("retry-after"), Some("3"));
    assert_eq!(
        answer.json()["error"]["details"],
        json!([{"@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"subject": "project:p", "description": "Requests"}]}])
    );
    let answer = client.post(SEND, &[], MESSAGE).await.unwrap();
    assert_eq!(
        (answer.status, answer.json()["error"].get("details")),
        (503, None)
    );
}

#[tokio::test]
async fn fcm_gives_and_checks_access_tokens() {
    let (fcm, client) = fcm(|builder| {
        builder
            .check_tokens(true)
            .expires_in(Duration::from_secs(77))
            .start()
    })
    .await;
    let answer = client.post("/token", &[], grant(&fcm)).await.unwrap();
    assert_eq!(
        answer.json(),
        json!({"access_token": "ya29.test-1", "expires_in": 77, "token_type": "Bearer"})
    );
    let request = &fcm.wait_for_token_requests(1, LONG)[0];
    let claims = &request.assertion.as_ref().unwrap().claims;
    assert_eq!(claims["iss"], "fpush@p-1.iam.gserviceaccount.com");
    assert_eq!(
        (claims["aud"].as_str(), request.form["x"].as_str()),
        (Some(fcm.token_uri().as_str()), "a b ü")
    );

    let status = async |token: &str| {
        client
            .post(SEND, &[("authorization", &format!("Bearer {token}"))], MESSAGE)
            .await
            .unwrap()
            .status
    };
    assert_eq!(status("ya29.test-1").await, 200);
    assert_eq!(status("ya29.test-2").await, 401);
    assert_eq!(
        client.post(SEND, &[], MESSAGE).await.unwrap().json()["error"]["status"],
        "UNAUTHENTICATED"
    );
    fcm.revoke_tokens();
    assert_eq!(status("ya29.test-1").await, 401);
    fcm.set_expires_in(Duration::ZERO);
    client.post("/token", &[], grant(&fcm)).await.unwrap();
    assert_eq!(status("ya29.test-2").await, 401);
    fcm.set_expires_in(Duration::from_secs(60));
    client.post("/token", &[], grant(&fcm)).await.unwrap();
    assert_eq!(
        (
            status("ya29.test-3").await,
            fcm.count(),
            fcm.token_requests().len()
        ),
        (200, 6, 3)
    );
}

#[tokio::test]
async fn fcm_refuses_bad_assertions_and_fails_as_scripted() {
    let (fcm, client) = fcm(|builder| builder.start()).await;
    let good = grant(&fcm);
    let (start, end) = good.split_at(good.find("&x=").unwrap());
    // The last character may hold only padding bits, so the one before it is changed.
    let (head, tail) = start.split_at(start.len() - 2);
    let forged = format!(
        "{head}{}{}{end}",
        if tail.starts_with('A') { 'B' } else { 'A' },
        &tail[1..]
    );
    for form in [
        forged.as_str(),
        "grant_type=x",
        "assertion=a.b.c",
        &good.replace("jwt-bearer", "other"),
    ] {
        let answer = client.post("/token", &[], form.to_owned()).await.unwrap();
        assert_eq!(answer.status, 400, "{form}");
    }
    fcm.queue_tokens([Answer::status(500)]);
    fcm.answer_tokens_with(|_| token_error(401, "invalid_client", "The OAuth client was not found."));
    assert_eq!(
        client.post("/token", &[], good.clone()).await.unwrap().status,
        500
    );
    assert_eq!(
        client.post("/token", &[], good.clone()).await.unwrap().json()["error"],
        "invalid_client"
    );
    fcm.answer_normally();
    assert_eq!(
        client.post("/token", &[], good).await.unwrap().json()["access_token"],
        "ya29.test-1"
    );
}

/// `cargo test -p fpush-testkit --release -- --ignored --nocapture throughput`
#[test]
#[ignore = "measures, and proves nothing"]
fn throughput() {
    let ca = TestCa::new();
    let apns = FakeApns::builder(&ca).recording(false).start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = Client::connect(&ca, &apns.url(), None).await.unwrap();
        client.post(DEVICE, &[], "{}").await.unwrap();
        let start = Instant::now();
        let workers: Vec<_> = (0..512)
            .map(|_| {
                let (send, url) = (client.send.clone(), apns.url() + DEVICE);
                tokio::spawn(async move {
                    for _ in 0..500 {
                        let request = http::Request::post(&url)
                            .header("apns-id", "36dbeb59-6b2c-42a7-a1f3-6ac0d3ab02d6")
                            .header("authorization", "bearer x")
                            .body(())
                            .unwrap();
                        let mut send = send.clone().ready().await.unwrap();
                        let (answer, mut stream) = send.send_request(request, false).unwrap();
                        stream
                            .send_data(r#"{"aps":{"content-available":1}}"#.into(), true)
                            .unwrap();
                        assert_eq!(answer.await.unwrap().status(), 200);
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await.unwrap();
        }
        println!(
            "{:.0} requests/s",
            f64::from(512 * 500) / start.elapsed().as_secs_f64()
        );
    });
    assert_eq!(apns.count(), 512 * 500 + 1);
}
