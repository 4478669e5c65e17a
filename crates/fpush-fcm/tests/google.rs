//! The backend as its module uses it, against a stand-in for Google with TLS and HTTP/2.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use fpush_fcm::Google;
use fpush_push::{
    BackendType as _, Class, ConnectionStatus, CredentialKind, Failure, Form, Push, PushError, PushTrait,
    Token,
    settings::{Report, Section},
};
use fpush_testkit::{
    Answer, FakeFcm, TempDir, TestCa,
    certs::service_account_email,
    fake_fcm::{self, fcm_error, token_error},
};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

const TOKEN: &str = "dCXr7fTpTm2yXGVYTXJb6r:APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx_synthetic.0123456789";

/// The tokens that a fake gives, of which a test may revoke some.
#[derive(Clone, Default)]
struct Tokens {
    issued: Arc<AtomicUsize>,
    revoked: Arc<AtomicUsize>,
}

impl Tokens {
    /// Gives tokens at the fake's token endpoint, and refuses pushes whose token has been revoked.
    fn of(fcm: &FakeFcm) -> Self {
        let tokens = Self::default();
        let issuer = tokens.clone();
        fcm.answer_tokens_with(move |_| {
            let number = issuer.issued.fetch_add(1, Ordering::Relaxed) + 1;
            let token = format!("ya29.{number}");
            let body = json!({ "access_token": token, "expires_in": 3600, "token_type": "Bearer" });
            Answer::json(200, &body)
        });
        let checker = tokens.clone();
        fcm.answer_with(move |send| {
            let number = send
                .bearer
                .as_deref()
                .and_then(|token| token.strip_prefix("ya29."));
            let number = number.and_then(|number| number.parse::<usize>().ok());
            if number.is_some_and(|number| number > checker.revoked.load(Ordering::Relaxed)) {
                Answer::Normal
            } else {
                fcm_error(401, "UNAUTHENTICATED", None, &[])
            }
        });
        tokens
    }

    fn revoke(&self) {
        self.revoked
            .store(self.issued.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// The shown date of an answer.
fn date(time: SystemTime) -> String {
    httpdate::fmt_http_date(time)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// A backend whose task runs.
fn backend(ca: &TestCa, fcm: &FakeFcm, keys: Value) -> Arc<dyn PushTrait> {
    let folder = TempDir::new();
    let mut section = json!({
        "fcmSecretPath": folder.write("fcm.json", fcm.service_account("project-1")),
        "caFilePath": folder.write("ca.pem", ca.pem()),
        "endpoint": fcm.url(),
    });
    for (key, value) in keys.as_object().unwrap() {
        section[key] = value.clone();
    }
    let module = json!({ "fcm": section });
    let report = Report::default();
    let parsed = Google.read(&mut Section::root(module.as_object().unwrap(), &report));
    assert!(!report.has_errors(), "{:?}", report.into_problems());
    let built = (parsed.unwrap().build)();
    for task in built.background {
        tokio::spawn(task);
    }
    built.backend.into()
}

fn push() -> Push {
    Push {
        token: Token::new(TOKEN),
        class: Class::High,
        form: Form::Full,
        extra: None,
        notification: None,
        count: None,
        id: Uuid::new_v4(),
        deadline: (Instant::now() + Duration::from_secs(20)).into_std(),
    }
}

/// One push with the one more attempt that a module makes at once after a renewal.
async fn deliver(backend: &dyn PushTrait, push: &Push) -> Result<(), Failure> {
    match backend.send(push).await {
        Err(Failure {
            error: PushError::Renewed,
            ..
        }) => backend.send(push).await,
        other => other,
    }
}

fn todo(result: Result<(), Failure>) -> PushError {
    result.unwrap_err().error
}

#[tokio::test]
async fn an_accepted_push() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    Tokens::of(&fcm);
    let data = json!({ "kind": "wake" });
    let backend = backend(
        &ca,
        &fcm,
        json!({ "ttl": "1h", "collapseKey": "k", "additionalData": data }),
    );
    backend.send(&push()).await.unwrap();
    backend
        .send(&Push {
            form: Form::Minimal,
            ..push()
        })
        .await
        .unwrap();

    let sends = fcm.sends();
    let android = json!({ "priority": "HIGH", "ttl": "3600s", "collapse_key": "k" });
    assert_eq!(
        sends[0].body,
        json!({ "message": { "token": TOKEN, "android": android, "data": data } })
    );
    assert_eq!(sends[1].message["data"], json!({}));
    assert_eq!(sends[0].project, "project-1");
    assert_eq!(sends[0].bearer.as_deref(), Some("ya29.1"));
    assert_eq!(sends[0].headers["content-type"], "application/json");
    assert_eq!(fcm.connections(), 2, "one for the token, one for the pushes");
    let form = &fcm.token_requests()[0].form;
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let claims = form["assertion"].split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["iss"], service_account_email("project-1"));
    assert_eq!(
        claims["scope"],
        "https://www.googleapis.com/auth/firebase.messaging"
    );
    assert_eq!(claims["aud"], fcm.token_uri());
}

#[tokio::test]
async fn an_expired_token_under_500_pushes_costs_one_token_request() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let tokens = Tokens::of(&fcm);
    let backend = backend(&ca, &fcm, json!({}));
    backend.send(&push()).await.unwrap();
    tokens.revoke();

    let pushes: Vec<_> = (0..500)
        .map(|_| {
            let backend = Arc::clone(&backend);
            tokio::spawn(async move { deliver(&*backend, &push()).await })
        })
        .collect();
    for push in pushes {
        push.await.unwrap().unwrap();
    }
    assert_eq!(fcm.count(), 1 + 2 * 500, "each was refused once");
    assert_eq!(fcm.token_requests().len(), 2);
}

#[tokio::test]
async fn pushes_wait_while_the_token_endpoint_is_down() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    Tokens::of(&fcm);
    fcm.queue_tokens([Answer::CloseConnection, Answer::raw(502, "<html>")]);
    let backend = backend(&ca, &fcm, json!({}));
    let impatient = Push {
        deadline: (Instant::now() + Duration::from_millis(300)).into_std(),
        ..push()
    };
    assert_eq!(
        todo(backend.send(&impatient).await),
        PushError::Later { after: None }
    );
    assert_eq!(
        backend.status().credentials[0].trouble,
        None,
        "nobody has said anything about it"
    );
    backend.send(&push()).await.unwrap();
    assert_eq!(fcm.token_requests().len(), 3);
    assert_eq!(fcm.count(), 1);
}

#[tokio::test]
async fn a_refused_renewal_is_not_the_tokens_fault() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let tokens = Tokens::of(&fcm);
    let backend = backend(&ca, &fcm, json!({}));
    backend.send(&push()).await.unwrap();
    tokens.revoke();
    fcm.queue_tokens([token_error(400, "invalid_grant", "Invalid JWT Signature.")]);
    assert_eq!(
        todo(backend.send(&push()).await),
        PushError::Later { after: None }
    );
    deliver(&*backend, &push()).await.unwrap();
}

#[tokio::test]
async fn a_new_token_that_is_refused_again_is_left_alone_for_a_while() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    Tokens::of(&fcm);
    fcm.answer_with(|_| fcm_error(401, "UNAUTHENTICATED", None, &[]));
    let backend = backend(&ca, &fcm, json!({}));
    assert_eq!(todo(backend.send(&push()).await), PushError::Renewed);
    for _ in 0..5 {
        let error = todo(backend.send(&push()).await);
        assert!(matches!(error, PushError::Later { after: Some(_) }), "{error:?}");
    }
    assert_eq!(fcm.token_requests().len(), 2);
}

#[tokio::test]
async fn a_missing_permission_pauses_the_module_if_the_token_is_new() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    Tokens::of(&fcm);
    fcm.queue([fcm_error(403, "PERMISSION_DENIED", None, &[])]);
    let backend = backend(&ca, &fcm, json!({}));
    let failure = backend.send(&push()).await.unwrap_err();
    let length = Duration::from_secs(60);
    assert_eq!(failure.error, PushError::Pause { length, alarm: true });
    assert_eq!(failure.answer, "403 PERMISSION_DENIED");
    assert_eq!(fcm.token_requests().len(), 1);
}

#[tokio::test]
async fn html_instead_of_an_answer_is_an_outage() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    Tokens::of(&fcm);
    let html = Answer::raw(502, "<html>502</html>");
    fcm.queue([html.clone(), html.header("retry-after", "30")]);
    let backend = backend(&ca, &fcm, json!({}));
    for seconds in [10, 30] {
        let after = Some(Duration::from_secs(seconds));
        assert_eq!(todo(backend.send(&push()).await), PushError::Later { after });
    }
}

#[tokio::test]
async fn a_dead_token_and_a_busy_device_are_told_apart() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    Tokens::of(&fcm);
    let quota = fake_fcm::quota_failure("token", "Device message rate exceeded");
    fcm.queue([
        fcm_error(404, "NOT_FOUND", Some("UNREGISTERED"), &[]),
        fcm_error(429, "RESOURCE_EXHAUSTED", Some("QUOTA_EXCEEDED"), &[quota]),
    ]);
    let backend = backend(&ca, &fcm, json!({}));
    assert_eq!(
        todo(backend.send(&push()).await),
        PushError::TokenGone { since: None }
    );
    assert_eq!(todo(backend.send(&push()).await), PushError::TokenBusy);
}

#[tokio::test]
async fn a_reset_connection_is_replaced() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    Tokens::of(&fcm);
    let backend = backend(&ca, &fcm, json!({}));
    backend.send(&push()).await.unwrap();
    fcm.queue([Answer::CloseConnection]);
    assert_eq!(todo(backend.send(&push()).await), PushError::Reconnected);
    backend.send(&push()).await.unwrap();
    assert_eq!(fcm.connections(), 3);
}

#[tokio::test]
async fn silence_ends_with_the_request_timeout() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    Tokens::of(&fcm);
    fcm.queue([Answer::Silence]);
    let backend = backend(&ca, &fcm, json!({ "requestTimeout": "400ms" }));
    let start = Instant::now();
    assert_eq!(
        todo(backend.send(&push()).await),
        PushError::Later { after: None }
    );
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn good_credentials_are_proved_without_a_push() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    Tokens::of(&fcm);
    let backend = backend(&ca, &fcm, json!({}));
    let accepted = backend.verify(soon().into_std()).await.unwrap();
    assert!(accepted.contains("project-1"), "{accepted}");
    let sends = fcm.sends();
    assert_eq!(sends[0].body["validate_only"], true);
    assert!(!sends[0].token().is_empty());

    let invalid = fcm_error(400, "INVALID_ARGUMENT", Some("INVALID_ARGUMENT"), &[]);
    let gone = fcm_error(404, "NOT_FOUND", Some("UNREGISTERED"), &[]);
    fcm.queue([invalid, gone, Answer::CloseConnection]);
    for said in [
        "only the invented device token, as it should (400 INVALID_ARGUMENT)",
        "only the invented device token, as it should (404 UNREGISTERED)",
        "accepted the message",
    ] {
        let accepted = backend.verify(soon().into_std()).await.unwrap();
        assert!(accepted.contains(said), "{accepted}");
    }
    assert_eq!(fcm.token_requests().len(), 1);
}

#[tokio::test]
async fn what_the_settings_add_to_a_message_is_not_the_tokens_fault() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let invalid = || fcm_error(400, "INVALID_ARGUMENT", Some("INVALID_ARGUMENT"), &[]);
    let gone = || fcm_error(404, "NOT_FOUND", Some("UNREGISTERED"), &[]);
    let open = json!({ "apns": { "payload": { "aps": {} } }, "ttl": "1h" });
    for (keys, answers, error, requests) in [
        // It would take a plain message.
        (
            &open,
            vec![invalid(), Answer::Normal],
            PushError::Misconfigured,
            2,
        ),
        // It would not take that either.
        (&open, vec![invalid(), invalid()], PushError::TokenDoubted, 2),
        (
            &open,
            vec![invalid(), gone()],
            PushError::TokenGone { since: None },
            2,
        ),
        (&open, vec![gone()], PushError::TokenGone { since: None }, 1),
        // There is nothing that could be left out.
        (&json!({}), vec![invalid()], PushError::TokenDoubted, 1),
    ] {
        let backend = backend(&ca, &fcm, keys.clone());
        let before = fcm.sends().len();
        fcm.queue(answers);
        let failure = backend.send(&push()).await.unwrap_err();
        assert_eq!(failure.error, error, "{failure:?}");
        let sends = &fcm.sends()[before..];
        assert_eq!(sends.len(), requests, "{failure:?}");
        if let [first, plain] = sends {
            assert_eq!(first.message["apns"], keys["apns"]);
            let expected = json!({
                "validate_only": true,
                "message": { "token": TOKEN, "android": { "priority": "HIGH", "ttl": "3600s" }, "data": {} },
            });
            assert_eq!(plain.body, expected);
        }
    }
}

#[tokio::test]
async fn refused_credentials_are_explained() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    Tokens::of(&fcm);
    fcm.queue([
        fcm_error(403, "PERMISSION_DENIED", None, &[]),
        fcm_error(404, "NOT_FOUND", None, &[]),
        fcm_error(403, "PERMISSION_DENIED", Some("SENDER_ID_MISMATCH"), &[]),
        Answer::raw(502, "<html>"),
    ]);
    let backend = backend(&ca, &fcm, json!({}));
    for (reason, word) in [
        ("PERMISSION_DENIED", "Firebase Cloud Messaging API (V1)"),
        ("NOT_FOUND", "project"),
        ("SENDER_ID_MISMATCH", "another Firebase project"),
        ("unreadable", "HTTPS_PROXY"),
    ] {
        let failure = backend.verify(soon().into_std()).await.unwrap_err();
        assert_eq!(failure.reason, reason);
        assert!(failure.meaning.contains(word), "{failure:?}");
    }
}

#[tokio::test]
async fn a_revoked_access_token_is_replaced_while_proving() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let tokens = Tokens::of(&fcm);
    let backend = backend(&ca, &fcm, json!({}));
    backend.verify(soon().into_std()).await.unwrap();
    tokens.revoke();
    backend.verify(soon().into_std()).await.unwrap();
    tokens.revoke();
    let date = date(SystemTime::now() - Duration::from_secs(3_600));
    fcm.answer_with(move |_| fcm_error(401, "UNAUTHENTICATED", None, &[]).header("date", &date));
    let failure = backend.verify(soon().into_std()).await.unwrap_err();
    assert_eq!(failure.reason, "UNAUTHENTICATED");
    assert!(failure.meaning.contains("clock"), "{failure:?}");
    let status = backend.status();
    assert!((3_590..3_660).contains(&status.clock_offset.unwrap()));
    assert!(status.clock_trouble().unwrap().contains("ahead"), "{status:?}");
}

#[tokio::test]
async fn without_an_access_token_it_is_said_why() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    fcm.answer_tokens_with(|_| token_error(400, "invalid_grant", "Invalid JWT Signature."));
    let unauthenticated = fcm_error(401, "UNAUTHENTICATED", None, &[]);
    let dated = |time| unauthenticated.clone().header("date", &date(time));
    let now = SystemTime::now();
    fcm.queue([dated(now), dated(now + Duration::from_secs(600))]);
    let backend = backend(&ca, &fcm, json!({}));
    let start = Instant::now();
    for (word, offset) in [("key was deleted", false), ("NTP", true)] {
        let failure = backend
            .verify((Instant::now() + Duration::from_secs(20)).into_std())
            .await;
        let failure = failure.unwrap_err();
        assert_eq!(failure.reason, "no_access_token");
        assert!(failure.answer.contains("invalid_grant"), "{failure:?}");
        assert!(failure.meaning.contains(word), "{failure:?}");
        assert_eq!(backend.status().clock_offset.is_some(), offset);
    }
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(fcm.sends()[0].bearer, None);
    let trouble = backend.status().credentials[0].trouble.clone().unwrap();
    assert!(trouble.contains("invalid_grant"), "{trouble}");
    let start = Instant::now();
    let failure = backend.send(&push()).await.unwrap_err();
    assert!(
        failure.reason == "no_access_token" && failure.answer.contains("invalid_grant"),
        "{failure:?}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "it does not wait for a token"
    );
    let PushError::Later { after: Some(wait) } = failure.error else {
        panic!("{failure:?}");
    };
    assert!(
        wait > Duration::from_secs(18),
        "no attempt before its deadline is of use: {wait:?}"
    );
}

#[tokio::test]
async fn who_watches_sees_connection_and_access_token() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    Tokens::of(&fcm);
    let backend = backend(&ca, &fcm, json!({}));
    assert_eq!(backend.status().connection, Some(ConnectionStatus::default()));
    backend.send(&push()).await.unwrap();
    let status = backend.status();
    let connection = status.connection.unwrap();
    assert_eq!((connection.open, connection.connects), (1, 1));
    let credential = &status.credentials[0];
    assert_eq!(credential.kind, CredentialKind::AccessToken);
    assert_eq!(credential.trouble, None);
    assert!(credential.age.unwrap() < Duration::from_secs(10));
    let left = credential.expires.unwrap().duration_since(SystemTime::now());
    assert!((3_590..=3_600).contains(&left.unwrap().as_secs()));
}

#[tokio::test]
async fn the_task_ends_with_its_backend_and_before_it_runs_nobody_is_asked() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    Tokens::of(&fcm);
    let folder = TempDir::new();
    let module = json!({ "fcm": {
        "fcmSecretPath": folder.write("fcm.json", fcm.service_account("project-1")),
        "caFilePath": folder.write("ca.pem", ca.pem()),
        "endpoint": fcm.url(),
    } });
    let report = Report::default();
    let parsed = Google.read(&mut Section::root(module.as_object().unwrap(), &report));
    let mut built = (parsed.unwrap().build)();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(fcm.token_requests().len(), 0);
    let task = tokio::spawn(built.background.remove(0));
    built.backend.send(&push()).await.unwrap();
    drop(built.backend);
    let ended = tokio::time::timeout(Duration::from_secs(5), task).await;
    ended.unwrap().unwrap();
}
