//! What may stand between fpush and its providers: what it does to pushes, and what its operator is told.

use fpush_testkit::{FakeApns, FakeFcm, FakeProxy, ProxyAnswer, TestCa, TlsServer, certs::fixture};
use serde_json::{Value, json};

use crate::{
    fcm::{google, token},
    rig::{LONG, RESULT, Rig, modules},
};

const APPLE: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn apple(url: &str) -> Value {
    json!({ "type": "apple", "apns": {
        "certFilePath": fixture("aps.pem"), "certKeyFilePath": fixture("aps.key.pem"),
        "topic": "org.example.app", "endpoint": url, "caFilePath": "ca.pem",
    } })
}

/// A daemon with both providers, and what it goes through.
fn start(ca: &TestCa, apns: &str, fcm: &FakeFcm, environment: &[(&str, &str)]) -> Rig {
    let account = fcm.service_account("project-1");
    let modules = modules([("ios", apple(apns)), ("android", google(fcm, json!({})))]);
    Rig::start_with(ca, modules, &[("fcm.json", &account)], environment)
}

#[test]
fn everything_goes_through_the_proxy_of_the_environment() {
    let ca = TestCa::new();
    let (apns, fcm, proxy) = (FakeApns::start(&ca), FakeFcm::start(&ca), FakeProxy::start());
    let url = proxy.url_with("me", "s3cret");
    let mut rig = start(&ca, &apns.url(), &fcm, &[("HTTPS_PROXY", &url)]);
    assert_eq!(rig.push("ios", APPLE), RESULT);
    assert_eq!(rig.push("android", &token(1)), RESULT);
    let mut asked = proxy.asked();
    asked.sort();
    let connect = |url: &str| {
        let host = url.strip_prefix("https://").unwrap();
        // "me:s3cret"
        let auth = "Proxy-Authorization: Basic bWU6czNjcmV0";
        format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n\r\n")
    };
    // One for Apple, one for Google, one for the access token.
    let mut expected = [connect(&apns.url()), connect(&fcm.url()), connect(&fcm.url())];
    expected.sort();
    assert_eq!(asked, expected);
    rig.assert_discreet(&["s3cret".to_owned(), "bWU6czNjcmV0".to_owned()]);
}

#[test]
fn no_proxy_goes_past_it() {
    let ca = TestCa::new();
    let (apns, fcm, proxy) = (FakeApns::start(&ca), FakeFcm::start(&ca), FakeProxy::start());
    let environment = [("HTTPS_PROXY", &*proxy.url()), ("NO_PROXY", "127.0.0.1")];
    let mut rig = start(&ca, &apns.url(), &fcm, &environment);
    assert_eq!(rig.push("ios", APPLE), RESULT);
    assert_eq!(rig.push("android", &token(1)), RESULT);
    assert_eq!(proxy.asked(), [""; 0]);
}

#[test]
fn a_proxy_that_lets_nobody_through_is_named_with_its_status() {
    let ca = TestCa::new();
    let (apns, fcm, proxy) = (FakeApns::start(&ca), FakeFcm::start(&ca), FakeProxy::start());
    for (says, cause, remedy) in [
        (
            "HTTP/1.1 403 Forbidden\r\n\r\n<html>",
            "answers CONNECT with status 403",
            "NO_PROXY",
        ),
        (
            "HTTP/1.0 503 Down\r\nRetry-After: 9\r\n\r\n",
            "answers CONNECT with status 503",
            "NO_PROXY",
        ),
        (
            "HTTP/1.1 407 Who\r\n\r\n",
            "answers CONNECT with status 407",
            "a user and a password",
        ),
        (
            "220 mail.example ESMTP\r\n",
            "gives no answer of HTTP to CONNECT",
            "not an HTTP proxy",
        ),
    ] {
        proxy.answer_with(ProxyAnswer::Say(says.to_owned()));
        let mut rig = start(&ca, &apns.url(), &fcm, &[("HTTPS_PROXY", &proxy.url())]);
        rig.publish("ios", APPLE);
        let line = rig.daemon.wait_for_log("the provider did not take a push", LONG);
        assert!(line.contains(cause) && line.contains(remedy), "{line}");
        let line = rig.daemon.wait_for_log("no access token", LONG);
        assert!(
            line.contains("cannot be reached") && line.contains(cause),
            "{line}"
        );
        assert!(line.contains(remedy), "{line}");
    }
    assert_eq!((apns.count(), fcm.count()), (0, 0));
}

#[test]
fn a_proxy_that_is_not_there_is_not_taken_for_the_provider() {
    let ca = TestCa::new();
    let (apns, fcm) = (FakeApns::start(&ca), FakeFcm::start(&ca));
    let mut rig = start(&ca, &apns.url(), &fcm, &[("HTTPS_PROXY", "http://127.0.0.1:1")]);
    rig.publish("ios", APPLE);
    let line = rig.daemon.wait_for_log("the provider did not take a push", LONG);
    assert!(
        line.contains("the proxy cannot be reached: Connection refused"),
        "{line}"
    );
}

/// The words for what stands at an endpoint.
#[test]
fn what_is_wrong_with_an_endpoint_is_said() {
    let (ca, foreign) = (TestCa::new(), TestCa::new());
    let fcm = FakeFcm::start(&ca);
    let http1 = TlsServer::start(&ca, &["http/1.1"], "HTTP/1.1 400 Bad Request\r\n\r\n");
    let silent = TlsServer::start(&ca, &[], "HTTP/1.1 400 Bad Request\r\n\r\n");
    let untrusted = FakeApns::start(&foreign);
    for (url, cause, remedy) in [
        (http1.url(), "this endpoint does not speak HTTP/2", "h2 (ALPN)"),
        (silent.url(), "this endpoint does not speak HTTP/2", "h2 (ALPN)"),
        (
            untrusted.url(),
            "its certificate is not accepted: its signature is not that of the authority",
            "caFilePath",
        ),
        ("https://127.0.0.1:1".to_owned(), "Connection refused", "firewall"),
    ] {
        let mut rig = start(&ca, &url, &fcm, &[]);
        rig.publish("ios", APPLE);
        let line = rig.daemon.wait_for_log("the provider did not take a push", LONG);
        assert!(line.contains(cause) && line.contains(remedy), "{url}: {line}");
    }
    assert_eq!((http1.requests(), silent.requests()), (0, 0), "nothing was sent");
}

/// Token endpoints need not speak HTTP/2.
#[test]
fn a_token_endpoint_of_http1() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let body = json!({ "access_token": "ya29.one", "expires_in": 3_599 }).to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length:";
    let good = format!("{head} {}\r\n\r\n{body}", body.len());
    let short = format!("{head} {}\r\n\r\n{body}", body.len() + 1);
    let ssh = "SSH-2.0-OpenSSH_9.2\r\n".to_owned();
    for (says, trouble) in [
        (good, None),
        (short, Some("holds no access token (status 200)")),
        (ssh, Some("the token endpoint's answer cannot be read")),
    ] {
        let endpoint = TlsServer::start(&ca, &["http/1.1"], says);
        let mut account: Value = serde_json::from_str(&fcm.service_account("project-1")).unwrap();
        account["token_uri"] = format!("{}/any/path?query=1", endpoint.url()).into();
        let module = google(&fcm, json!({}));
        let mut rig = Rig::start(
            &ca,
            modules([("android", module)]),
            &[("fcm.json", &account.to_string())],
        );
        if let Some(trouble) = trouble {
            let line = rig.daemon.wait_for_log("no access token", LONG);
            assert!(line.contains(trouble), "{line}");
        } else {
            assert_eq!(rig.push("android", &token(1)), RESULT);
            assert_eq!(fcm.sends()[0].bearer.as_deref(), Some("ya29.one"));
        }
    }
    assert_eq!(fcm.token_requests().len(), 0);
}
