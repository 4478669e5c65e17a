//! The backend as its module and those who watch it use it, against a stand-in for Apple with TLS and HTTP/2.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use fpush_apns::Apple;
use fpush_push::{
    BackendType as _, Built, Class, ConnectionStatus, CredentialKind, Failure, Form, Push, PushError,
    PushTrait, Token,
    settings::{Report, Section},
};
use fpush_testkit::{Answer, ApnsKey, FakeApns, NewConnections, TempDir, TestCa, fixture};
use serde_json::{Value, json};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};
use uuid::Uuid;

/// A folder with what settings name, and the settings.
struct Rig {
    ca: TestCa,
    apns: FakeApns,
    folder: TempDir,
}

impl Rig {
    fn new() -> Self {
        let ca = TestCa::new();
        let apns = FakeApns::start(&ca);
        let folder = TempDir::new();
        folder.write("key.p8", ApnsKey::generate().p8());
        Self { ca, apns, folder }
    }

    fn build(&self, apple: &Apple, keys: Value) -> Built {
        let mut apns = json!({
            "topic": "org.example.app",
            "endpoint": self.apns.url(),
            "caFilePath": self.folder.write("ca.pem", self.ca.pem()),
            "requestTimeout": "2s",
        });
        for (key, value) in keys.as_object().unwrap() {
            apns[key] = value.clone();
        }
        let module = json!({ "apns": apns });
        let report = Report::default();
        let parsed = apple.read(&mut Section::root(module.as_object().unwrap(), &report));
        assert!(!report.has_errors(), "{:?}", report.into_problems());
        (parsed.unwrap().build)()
    }

    fn by_certificate(&self, name: &str) -> Box<dyn PushTrait> {
        let keys = json!({
            "certFilePath": fixture(&format!("{name}.pem")),
            "certKeyFilePath": fixture(&format!("{name}.key.pem")),
        });
        self.build(&Apple::default(), keys).backend
    }

    fn by_token(&self, apple: &Apple) -> Built {
        let keys = json!({ "tokenKeyFilePath": self.folder.path().join("key.p8"), "keyId": "KEY1234567",
            "teamId": "TEAM123456" });
        self.build(apple, keys)
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn push() -> Push {
    Push {
        token: Token::new(&"0123456789abcdef".repeat(4)),
        class: Class::High,
        form: Form::Full,
        extra: None,
        notification: None,
        count: None,
        id: Uuid::new_v4(),
        deadline: soon().into_std(),
    }
}

async fn refused(backend: &dyn PushTrait) -> Failure {
    backend.verify(soon().into_std()).await.unwrap_err()
}

fn connection(backend: &dyn PushTrait) -> ConnectionStatus {
    backend.status().connection.unwrap()
}

#[tokio::test]
async fn good_credentials_are_proved_without_a_push_to_anybody() {
    let rig = Rig::new();
    let backend = rig.by_certificate("aps");
    rig.apns.queue([
        Answer::reason(400, "BadDeviceToken"),
        Answer::reason(410, "Unregistered"),
        Answer::status(200),
        Answer::CloseConnection,
        Answer::reason(400, "BadDeviceToken"),
    ]);
    for said in [
        "only the invented device token, as it should (400 BadDeviceToken)",
        "only the invented device token, as it should (410 Unregistered)",
        "it accepted the push",
        "400 BadDeviceToken",
    ] {
        let accepted = backend.verify(soon().into_std()).await.unwrap();
        assert!(
            accepted.contains("org.example.app") && accepted.contains(said),
            "{accepted}"
        );
    }
    let requests = rig.apns.requests();
    assert_eq!(requests[0].token, "0".repeat(64));
    assert_eq!(requests[0].header("apns-topic"), Some("org.example.app"));
    assert_eq!(requests[0].header("apns-push-type"), Some("alert"));
}

#[tokio::test]
async fn refused_credentials_are_explained() {
    let rig = Rig::new();
    let backend = rig.by_token(&Apple::default()).backend;
    for (status, reason, word) in [
        (403, "InvalidProviderToken", "keyId"),
        (403, "BadEnvironmentKeyInToken", "environment"),
        (400, "TopicDisallowed", "bundle ID"),
        (400, "DeviceTokenNotForTopic", "topic"),
        (503, "ServiceUnavailable", "system-status"),
    ] {
        rig.apns.queue([Answer::reason(status, reason)]);
        let failure = refused(&*backend).await;
        let name = reason.replace("KeyInToken", "KeyIdInToken");
        assert_eq!(failure.reason, name);
        assert_eq!(failure.answer, format!("{status} {name}"));
        assert!(failure.meaning.contains(word), "{failure:?}");
    }
    rig.apns.queue([Answer::raw(403, "<html>")]);
    assert_eq!(refused(&*backend).await.reason, "unreadable");
    // Too young to be renewed.
    rig.apns.queue([Answer::reason(403, "ExpiredProviderToken")]);
    assert_eq!(refused(&*backend).await.reason, "ExpiredProviderToken");
}

#[tokio::test]
async fn who_cannot_be_reached_is_called_so() {
    let rig = Rig::new();
    let backend = rig.by_certificate("aps");
    rig.apns.new_connections(NewConnections::Reset);
    let failure = refused(&*backend).await;
    assert_eq!(failure.reason, "unreachable");
    assert!(failure.meaning.contains("firewall"), "{failure:?}");
    let ConnectionStatus {
        open,
        connects,
        failed_connects,
        ..
    } = connection(&*backend);
    assert_eq!((open, connects, failed_connects), (0, 0, 1));

    rig.apns.new_connections(NewConnections::Serve);
    rig.apns.queue([Answer::Silence]);
    assert_eq!(refused(&*backend).await.reason, "timeout");
    rig.apns.queue([Answer::CloseConnection, Answer::CloseConnection]);
    let failure = refused(&*backend).await;
    assert_eq!(
        (failure.reason, failure.error),
        ("broken", PushError::Reconnected)
    );
    assert_eq!(connection(&*backend).connects, 2, "one for each that was closed");
}

#[tokio::test]
async fn who_watches_sees_the_connection() {
    let rig = Rig::new();
    let backend: Arc<dyn PushTrait> = rig.by_certificate("aps").into();
    assert_eq!(connection(&*backend), ConnectionStatus::default());
    rig.apns
        .queue([Answer::status(200).after(Duration::from_millis(300))]);
    let sending = tokio::spawn({
        let backend = Arc::clone(&backend);
        async move { backend.send(&push()).await }
    });
    let begin = Instant::now();
    while connection(&*backend).streams == 0 {
        assert!(begin.elapsed() < Duration::from_secs(30));
        yield_now().await;
    }
    sending.await.unwrap().unwrap();
    let after = connection(&*backend);
    assert_eq!(
        (after.open, after.streams, after.connects, after.ping),
        (1, 0, 1, None)
    );
    while connection(&*backend).ping.is_none() {
        assert!(begin.elapsed() < Duration::from_secs(30));
        sleep(Duration::from_millis(50)).await;
    }
    assert!(connection(&*backend).ping < Some(Duration::from_secs(1)));
    rig.apns.reset_existing_connections();
    while connection(&*backend).open > 0 {
        assert!(begin.elapsed() < Duration::from_secs(30));
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_watches_sees_the_credentials() {
    let rig = Rig::new();
    for (name, trouble) in [("aps", false), ("expired", true)] {
        let credential = rig.by_certificate(name).status().credentials.remove(0);
        assert_eq!(credential.kind, CredentialKind::Certificate);
        assert_eq!(credential.expires.unwrap() < SystemTime::now(), trouble);
        assert_eq!(credential.trouble.is_some(), trouble, "{credential:?}");
    }
    let backend = rig.by_token(&Apple::default()).backend;
    let credential = backend.status().credentials.remove(0);
    assert_eq!(credential.kind, CredentialKind::ProviderToken);
    assert!(credential.age.unwrap() < Duration::from_secs(60));
    assert_eq!((credential.expires, credential.trouble), (None, None));
}

#[tokio::test]
async fn a_wrong_clock_is_noticed_and_explains_a_refusal() {
    let rig = Rig::new();
    let backend = rig.by_token(&Apple::default()).backend;
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(600));
    rig.apns.queue([
        Answer::reason(403, "InvalidProviderToken"),
        Answer::reason(403, "InvalidProviderToken").header("date", &date),
    ]);
    assert!(refused(&*backend).await.meaning.contains("keyId"));
    assert_eq!(backend.status().clock_offset, None);
    let failure = refused(&*backend).await;
    assert_eq!(failure.reason, "InvalidProviderToken");
    assert!(failure.meaning.contains("NTP"), "{failure:?}");
    let offset = backend.status().clock_offset.unwrap();
    assert!((-600..-540).contains(&offset), "{offset}");
}

#[tokio::test]
async fn settings_that_are_read_again_find_the_provider_token_that_is_in_use() {
    let rig = Rig::new();
    let apple = Apple::default();
    let first = rig.by_token(&apple);
    // Refused, and so never run.
    drop(rig.by_token(&apple));
    let third = rig.by_token(&apple);
    assert_eq!((first.background.len(), third.background.len()), (1, 1));
    let tasks: Vec<_> = first
        .background
        .into_iter()
        .chain(third.background)
        .map(tokio::spawn)
        .collect();
    first.backend.send(&push()).await.unwrap();
    drop(first.backend);
    third.backend.send(&push()).await.unwrap();
    let requests = rig.apns.requests();
    assert_eq!(
        requests[0].header("authorization"),
        requests[1].header("authorization")
    );
    assert_eq!(rig.apns.connections(), 2);
    assert_eq!(
        tasks.iter().filter(|task| task.is_finished()).count(),
        1,
        "one tends it"
    );
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}
