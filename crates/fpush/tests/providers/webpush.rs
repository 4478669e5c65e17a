//! Web Push: what reaches a push service, what becomes of its answers, and where nobody can send us.

use std::{
    net::{Ipv4Addr, TcpListener},
    time::{Duration, SystemTime},
};

use fpush_testkit::{
    Answer, ApnsKey, FakeProxy, FakePush, Identity, Monitoring, ProxyAnswer, TestCa,
    answer::{BodyEnd, HttpReply},
    publish::ejabberd_publish,
    until,
};
use serde_json::{Value, json};

use crate::rig::{DEAD, LONG, OVERLOAD, RESULT, Rig, UNAVAILABLE, is_quick, merged, modules};

/// A module that may send to the fake, and to nothing else of this machine.
fn local(push: &FakePush, more: Value) -> Value {
    let base = json!({
        "type": "webpush",
        "webpush": {
            "vapidKeyFilePath": "vapid.key", "subject": "mailto:push@example.org", "caFilePath": "ca.pem",
            "allowedEndpoints": ["127.0.0.1"], "allowedPorts": [push.address().port()],
            "allowedNetworks": ["127.0.0.1"],
        },
    });
    merged(base, more)
}

/// A module as most operators have it.
fn usual() -> Value {
    json!({
        "type": "webpush",
        "webpush": {
            "vapidKeyFilePath": "vapid.key", "subject": "mailto:push@example.org", "caFilePath": "ca.pem",
        },
    })
}

fn start(ca: &TestCa, all: Value) -> Rig {
    Rig::start(ca, all, &[("vapid.key", &ApnsKey::generate().p8())])
}

/// A daemon for which a proxy leads to the fake, whatever host is meant.
fn start_behind(proxy: &FakeProxy, push: &FakePush, ca: &TestCa, all: Value) -> Rig {
    proxy.answer_with(ProxyAnswer::TunnelTo(push.address()));
    let files = [("vapid.key", &*ApnsKey::generate().p8())];
    Rig::start_with(ca, all, &files, &[("HTTPS_PROXY", &proxy.url())])
}

#[test]
fn a_push_is_what_browsers_want() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let more = json!({ "webpush": {
        "ttl": "1h", "topic": "xmpp", "urgency": "normal", "additionalData": { "a": { "b": 1 } },
        "declarative": { "title": "News", "navigate": "https://app.example/" },
    } });
    let all = modules([("usual", local(&push, json!({}))), ("more", local(&push, more))]);
    let mut rig = start(&ca, all);
    let (one, two) = (
        push.subscribe("/w/?token=a%2bB%3d"),
        push.subscribe("/upABC?up=1"),
    );
    assert_eq!(rig.push("usual", &one.token()), RESULT);
    assert_eq!(rig.push("more", &two.token()), RESULT);
    let pushes = push.wait_for(2, LONG);
    let [usual, more] = &pushes[..] else {
        panic!("{pushes:#?}")
    };
    assert_eq!((&*usual.path, &*more.path), ("/w/?token=a%2bB%3d", "/upABC?up=1"));
    assert_eq!(usual.json(), json!({}));
    assert_eq!(
        more.json(),
        json!({
            "web_push": 8030, "notification": { "title": "News", "navigate": "https://app.example/" },
            "a": { "b": 1 },
        })
    );
    for (pushed, headers) in [
        (usual, [("ttl", "2419200"), ("urgency", "high"), ("topic", "")]),
        (more, [("ttl", "3600"), ("urgency", "normal"), ("topic", "xmpp")]),
    ] {
        for (name, value) in headers {
            assert_eq!(pushed.header(name), value, "{name}");
        }
        assert_eq!(pushed.header("content-encoding"), "aes128gcm");
        assert_eq!(pushed.header("content-type"), "application/octet-stream");
        assert!(pushed.length <= 3_000);
        let claims = &pushed.claims.as_ref().unwrap().claims;
        assert_eq!(claims["sub"], "mailto:push@example.org");
        assert_eq!(claims["aud"], format!("https://{}", push.address()));
    }
    let mut secrets = Vec::new();
    for subscription in [one, two] {
        secrets.extend([subscription.endpoint, subscription.p256dh, subscription.auth]);
    }
    secrets.extend(["upABC", "a%2bB", "PRIVATE KEY", usual.header("authorization")].map(str::to_owned));
    rig.assert_discreet(&secrets);
}

#[test]
fn every_spelling_of_a_subscription_is_one_token() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let mut rig = start(&ca, modules([("w", local(&push, json!({})))]));
    let subscription = push.subscribe("/a");
    let standard = |text: &str| text.replace('-', "+").replace('_', "/");
    let (p256dh, auth) = (standard(&subscription.p256dh), standard(&subscription.auth));
    let other = format!(
        "webpush:{}|{p256dh}=|{auth}==",
        subscription.endpoint.replace("https", "HTTPS")
    );
    assert_eq!(rig.push("w", &subscription.token()), RESULT);
    // It is queued, because the rate limit knows the token.
    assert_eq!(rig.push("w", &other), RESULT);
    assert_eq!(push.pushes().len(), 1);
    // Who knows an endpoint makes any number of tokens for it: they are one receiver.
    for _ in 0..5 {
        let invented = push.subscribe("/a").token();
        assert_ne!(rig.push("w", &invented), UNAVAILABLE);
    }
    assert_eq!(push.pushes().len(), 1);
}

/// Edge's push service has hosts without number, whose connections break as all others do.
#[test]
fn a_broken_connection_to_any_host_costs_no_push_and_silences_nobody() {
    let ca = TestCa::new();
    let (push, proxy) = (FakePush::start(&ca), FakeProxy::start());
    let more = json!({ "webpush": { "allowedEndpoints": ["*.notify.windows.com", "up.example.org"] } });
    let mut rig = start_behind(&proxy, &push, &ca, modules([("w", merged(usual(), more))]));
    for host in ["wns2-par02p.notify.windows.com", "up.example.org"] {
        push.queue([Answer::CloseConnection]);
        let token = push.subscribe_at(host, &format!("/{host}")).token();
        assert_eq!(rig.push("w", &token), RESULT, "{host}");
    }
    push.queue([
        Answer::status(503),
        Answer::status(503).header("retry-after", "1"),
    ]);
    let token = push
        .subscribe_at("wns2-par02p.notify.windows.com", "/outage")
        .token();
    assert_eq!(rig.push("w", &token), RESULT);
}

#[test]
fn one_signature_serves_all_pushes_to_an_origin() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let mut rig = start(&ca, modules([("w", local(&push, json!({})))]));
    let tokens: Vec<_> = (0..50)
        .map(|n| push.subscribe(&format!("/{n}")).token())
        .collect();
    assert_eq!(rig.push_all("w", &tokens), [RESULT; 50]);
    let pushes = push.wait_for(50, LONG);
    let first = pushes[0].header("authorization").to_owned();
    assert!(
        pushes
            .iter()
            .all(|pushed| pushed.header("authorization") == first)
    );
    assert_eq!(push.connections(), 1);
}

/// What is said of one subscription is no other's loss, whatever it is, and no device dies of one word.
#[test]
fn no_answer_about_one_subscription_stops_the_others_or_loses_a_push() {
    let ca = TestCa::new();
    let (push, proxy) = (FakePush::start(&ca), FakeProxy::start());
    let more = json!({ "webpush": { "allowedEndpoints": [
        "fcm.googleapis.com", "*.push.apple.com", "*.notify.windows.com", "*.push.services.mozilla.com", "*.example.org",
    ] } });
    let mut rig = start_behind(&proxy, &push, &ca, modules([("w", merged(usual(), more))]));
    let bodies = [
        "",
        r#"{"reason":"BadJwtToken"}"#,
        r#"{"reason":"VapidPkHashMismatch"}"#,
        r#"{"errno":106}"#,
        "Use /wp/",
    ];
    let good = push.subscribe_at("fcm.googleapis.com", "/wp/good");
    for host in [
        "fcm.googleapis.com",
        "web.push.apple.com",
        "wns2-par02p.notify.windows.com",
        "updates.push.services.mozilla.com",
        "up.example.org",
    ] {
        let mut number = 0;
        for status in [
            301, 307, 400, 401, 402, 403, 404, 405, 406, 410, 411, 415, 418, 451, 507, 408,
        ] {
            // What is tried again takes its time.
            let bodies = if status == 408 { &bodies[..1] } else { &bodies };
            for &body in bodies {
                if (host, status) == ("web.push.apple.com", 403) && body.contains("BadJwtToken") {
                    // That is about our claims, which are the same for all.
                    continue;
                }
                number += 1;
                push.queue([Answer::raw(status, body).header("location", "https://up.example.org/wp/good")]);
                let token = push.subscribe_at(host, &format!("/{host}/{number}")).token();
                let verdict = rig.push("w", &token);
                let is_vendor = host != "up.example.org";
                // Who wants less gets an acknowledged push later, and a vendor that is not well is waited for.
                let is_held = status == 507 || (status == 406 && host.starts_with("wns"));
                let is_retried = is_vendor && status == 408;
                let expected = if is_held || is_retried {
                    RESULT
                } else {
                    UNAVAILABLE
                };
                assert_eq!(verdict, expected, "{host} {status} {body}");
            }
        }
    }
    assert_eq!(rig.push("w", &good.token()), RESULT);
    assert_eq!(push.pushes().last().unwrap().path, "/wp/good");
    let log = rig.daemon.log();
    for alarm in [
        "pausing",
        "pauses",
        "unregistered",
        "could not be delivered",
        "check the settings of this module",
    ] {
        assert!(!log.contains(alarm), "{alarm}");
    }
}

/// A vendor's word is believed as its own answers deserve, and not as another's.
#[test]
fn a_vendor_that_accepts_others_is_believed_and_another_vendor_is_not() {
    let ca = TestCa::new();
    let (push, proxy) = (FakePush::start(&ca), FakeProxy::start());
    let mut rig = start_behind(&proxy, &push, &ca, modules([("w", usual())]));
    let subscribe = |host: &str, path: &str| push.subscribe_at(host, path).token();
    let tokens: Vec<_> = (0..30)
        .map(|number| subscribe("fcm.googleapis.com", &format!("/wp/{number}")))
        .collect();
    assert_eq!(rig.push_all("w", &tokens), [RESULT; 30]);
    for status in [410, 404] {
        for (host, expected) in [
            ("updates.push.services.mozilla.com", UNAVAILABLE),
            ("fcm.googleapis.com", DEAD),
        ] {
            push.queue([Answer::status(status)]);
            let gone = subscribe(host, &format!("/gone/{status}"));
            assert_eq!(rig.push("w", &gone), expected, "{host} {status}");
            // Without another request.
            assert_eq!(rig.push("w", &gone), expected, "{host} {status}");
        }
    }
    assert_eq!(push.pushes().len(), 34);
}

/// Apple does not take what we say of ourselves: nobody is sent there for a while, and all the others go on.
#[test]
fn a_vendor_that_does_not_take_our_claims_pauses_alone() {
    let ca = TestCa::new();
    let (push, proxy) = (FakePush::start(&ca), FakeProxy::start());
    let mut rig = start_behind(&proxy, &push, &ca, modules([("w", usual())]));
    push.answer_with(|pushed| match &*pushed.authority {
        "web.push.apple.com" => Answer::reason(403, "BadJwtToken"),
        _ => Answer::status(201),
    });
    let subscribe = |host: &str, path: &str| push.subscribe_at(host, path).token();
    for number in 0..5 {
        let token = subscribe("web.push.apple.com", &format!("/apple/{number}"));
        assert_eq!(rig.push("w", &token), UNAVAILABLE);
        let token = subscribe("fcm.googleapis.com", &format!("/wp/{number}"));
        assert_eq!(rig.push("w", &token), RESULT);
    }
    let to_apple = push
        .pushes()
        .iter()
        .filter(|pushed| pushed.path.starts_with("/apple"))
        .count();
    assert_eq!(to_apple, 1);
    assert!(rig.daemon.log().contains("Apple answers 403 BadJwtToken"));
}

/// Edge's push service has many hosts, and one lane. What is too much for one that hangs is held, and leaves the rest to the others.
#[test]
fn a_host_of_a_vendor_that_hangs_does_not_hold_all_permits_of_the_vendor() {
    const HANGS: &str = "wns2-par02p.notify.windows.com";
    let ca = TestCa::new();
    let (push, proxy) = (FakePush::start(&ca), FakeProxy::start());
    push.answer_with(|pushed| match &*pushed.authority {
        HANGS => Answer::Silence,
        _ => Answer::status(201),
    });
    let more = json!({ "maxInFlight": 8, "webpush": { "allowedEndpoints": ["*.notify.windows.com"] } });
    let mut rig = start_behind(&proxy, &push, &ca, modules([("w", merged(usual(), more))]));
    let publish = |rig: &mut Rig, number: usize| {
        let token = push.subscribe_at(HANGS, &format!("/never/{number}")).token();
        rig.publish_from("a.example", "w", &token)
    };
    let waiting = [0, 1].map(|number| publish(&mut rig, number));
    push.wait_for(2, LONG);
    let held: Vec<_> = (2..20).map(|number| publish(&mut rig, number)).collect();
    for id in &held {
        assert_eq!(rig.verdict(id), RESULT, "it is held");
    }
    for number in 0..20 {
        let token = push
            .subscribe_at("wns2-by3p.notify.windows.com", &format!("/good/{number}"))
            .token();
        assert_eq!(rig.push("w", &token), RESULT);
    }
    let pushes = push.pushes();
    let to = |host: &str| pushes.iter().filter(|pushed| pushed.authority == host).count();
    assert_eq!(to("wns2-by3p.notify.windows.com"), 20);
    for id in &waiting {
        assert_eq!(rig.verdict(id), UNAVAILABLE);
    }
    assert!(!rig.daemon.log().contains("overloaded:"));
}

/// Servers that take pushes and never answer, more of them than there are permits.
#[test]
fn a_thousand_endpoints_that_hang_and_one_that_does_not() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let silent = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let hosts: Vec<_> = (0..1_000)
        .map(|number| format!("127.1.{}.{}", number / 250, 1 + number % 250))
        .collect();
    let allowed: Vec<_> = hosts.iter().map(String::as_str).chain(["127.0.0.1"]).collect();
    let more = json!({
        "maxInFlight": 100,
        "webpush": {
            "allowedEndpoints": allowed, "allowedPorts": [push.address().port(), port], "allowedNetworks": ["127.0.0.0/8"],
        },
    });
    let mut rig = start(&ca, modules([("w", local(&push, more))]));
    assert_eq!(rig.push("w", &push.subscribe("/before").token()), RESULT);
    let hanging: Vec<_> = hosts
        .iter()
        .map(|host| {
            let token = push.subscribe_at(&format!("{host}:{port}"), "/never").token();
            rig.publish_from("evil.example", "w", &token)
        })
        .collect();
    for number in 0..40 {
        assert!(is_quick(Duration::from_secs(5), |again| {
            let token = push.subscribe(&format!("/good/{number}/{again}")).token();
            let (verdict, took) = rig.timed("w", &token);
            assert_eq!(verdict, RESULT);
            took
        }));
    }
    for id in &hanging {
        let verdict = rig.verdict(id);
        assert!([UNAVAILABLE, OVERLOAD].contains(&&*verdict), "{verdict}");
    }
    // They are left alone: this one ends at once, without a request.
    let token = push
        .subscribe_at(&format!("{}:{port}", hosts[0]), "/again")
        .token();
    let id = rig.publish_from("evil.example", "w", &token);
    assert_eq!(rig.verdict(&id), UNAVAILABLE);
    let log = rig.daemon.log();
    for complaint in ["overloaded:", "did not take a push", "could not be delivered"] {
        assert!(!log.contains(complaint), "{complaint}");
    }
}

/// One at a host that a stranger chose is believed after an hour or a day, and never about who may send there.
#[test]
fn a_strangers_word_is_about_its_own_receiver_and_not_believed_at_once() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let mut rig = start(&ca, modules([("w", local(&push, json!({})))]));
    let tokens: Vec<_> = (0..30)
        .map(|n| push.subscribe(&format!("/{n}")).token())
        .collect();
    assert_eq!(rig.push_all("w", &tokens), [RESULT; 30]);
    for status in [410, 404, 403, 401] {
        push.queue([Answer::status(status)]);
        let token = push.subscribe(&format!("/gone/{status}")).token();
        assert_eq!(rig.push("w", &token), UNAVAILABLE, "{status}");
    }
    assert_eq!(rig.push("w", &push.subscribe("/other").token()), RESULT);
}

/// From the same machine, the same module may send to a server of the operator's and nowhere else.
#[test]
fn what_the_settings_do_not_allow_is_never_connected_to() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let trap = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    trap.set_nonblocking(true).unwrap();
    let port = trap.local_addr().unwrap().port();
    let more = json!({ "webpush": { "allowedEndpoints": ["127.0.0.1", "*.example.org", "localhost"] } });
    let mut rig = start(&ca, modules([("w", local(&push, more))]));
    let subscription = push.subscribe("/a");
    let at = |endpoint: &str| format!("webpush:{endpoint}|{}|{}", subscription.p256dh, subscription.auth);
    let good = push.address().port();
    for endpoint in [
        format!("https://127.0.0.1:{port}/a"),
        format!("https://localhost:{port}/a"),
        format!("http://127.0.0.1:{good}/a"),
        format!("https://127.1:{good}/a"),
        format!("https://0x7f.0.0.1:{good}/a"),
        format!("https://2130706433:{good}/a"),
        format!("https://[::1]:{good}/a"),
        format!("https://[::ffff:127.0.0.1]:{good}/a"),
        format!("https://user@127.0.0.1:{good}/a"),
        format!("https://127.0.0.1:{good}/a#b"),
        format!("https://169.254.169.254:{good}/a"),
        format!("https://x.example.net:{good}/a"),
        "https://127.0.0.1/a".to_owned(),
    ] {
        assert_eq!(rig.push("w", &at(&endpoint)), OVERLOAD, "{endpoint}");
    }
    assert_eq!(push.connections(), 0);
    assert!(trap.accept().is_err());
    assert_eq!(rig.push("w", &subscription.token()), RESULT);
}

/// The name is allowed, and the address is not.
#[test]
fn a_name_with_a_private_address_is_never_connected_to() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let port = push.address().port();
    let more = json!({ "webpush": { "allowedEndpoints": ["localhost", "127.0.0.1"], "allowedNetworks": ["127.0.0.9"] } });
    let mut rig = start(&ca, modules([("w", local(&push, more))]));
    for host in ["localhost", "127.0.0.1"] {
        let token = push
            .subscribe_at(&format!("{host}:{port}"), &format!("/{host}"))
            .token();
        assert_eq!(rig.push("w", &token), UNAVAILABLE);
    }
    assert_eq!(push.connections(), 0);
}

/// A stranger cannot tell what is behind an endpoint, and stops nobody by it.
#[test]
fn what_is_refused_not_there_or_silent_is_answered_alike() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let more = json!({ "webpush": {
        "allowedEndpoints": ["127.0.0.1", "127.0.0.2"],
        "allowedPorts": [push.address().port(), port, 1], "requestTimeout": "1s",
    } });
    let mut rig = start(&ca, modules([("w", local(&push, more))]));
    for authority in [
        "127.0.0.1:1".to_owned(),
        "127.0.0.2:1".to_owned(),
        format!("127.0.0.1:{port}"),
    ] {
        for number in 0..4 {
            let token = push
                .subscribe_at(&authority, &format!("/{authority}/{number}"))
                .token();
            assert_eq!(rig.push("w", &token), UNAVAILABLE, "{authority}");
        }
    }
    assert_eq!(rig.push("w", &push.subscribe("/good").token()), RESULT);
    rig.assert_discreet(&["/127.0.0.1".to_owned()]);
    // Of which three in a row would be the module's trouble.
    assert!(!rig.daemon.log().contains("the provider did not take a push"));
}

#[test]
fn a_redirect_is_not_followed() {
    let ca = TestCa::new();
    let (push, other) = (FakePush::start(&ca), FakePush::start(&ca));
    let more = json!({ "webpush": { "allowedPorts": [push.address().port(), other.address().port()] } });
    let mut rig = start(&ca, modules([("w", local(&push, more))]));
    for status in [301, 302, 303, 307, 308] {
        let path = format!("/{status}");
        let elsewhere = other.subscribe(&path).endpoint;
        push.queue([Answer::status(status).header("location", &elsewhere)]);
        assert_eq!(rig.push("w", &push.subscribe(&path).token()), UNAVAILABLE);
    }
    assert_eq!(other.connections(), 0);
}

#[test]
fn an_answer_without_end_is_an_answer() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let mut rig = start(&ca, modules([("w", local(&push, json!({})))]));
    for (number, end) in [BodyEnd::Endless, BodyEnd::Stalls, BodyEnd::Reset]
        .into_iter()
        .enumerate()
    {
        let endless = HttpReply {
            status: 201,
            headers: vec![("content-length".to_owned(), (1_u64 << 40).to_string())],
            body: vec![b'x'; 32 * 1_024].into(),
            end,
        };
        push.queue([Answer::Reply(endless)]);
        let token = push.subscribe(&format!("/{number}")).token();
        assert_eq!(rig.push("w", &token), RESULT, "{end:?}");
    }
}

#[test]
fn what_nobody_has_to_see_is_not_sent_unless_the_settings_say_so() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let send = json!({ "webpush": { "lowPriority": "send" } });
    let all = modules([("drop", local(&push, json!({}))), ("send", local(&push, send))]);
    let mut rig = start(&ca, all);
    let token = push.subscribe("/a").token();
    for module in ["drop", "send"] {
        rig.link
            .send(ejabberd_publish(module, &token, Some(module), false));
        assert_eq!(rig.verdict(module), RESULT);
    }
    let pushes = push.wait_for(1, LONG);
    assert_eq!(pushes.len(), 1);
    assert_eq!(pushes[0].header("urgency"), "low");
}

/// An outage of a vendor's is waited for, and a connection that breaks costs no push.
#[test]
fn a_vendors_outage_and_a_broken_connection_cost_no_push() {
    let ca = TestCa::new();
    let (push, proxy) = (FakePush::start(&ca), FakeProxy::start());
    let mut rig = start_behind(&proxy, &push, &ca, modules([("w", usual())]));
    push.queue([
        Answer::status(503).header("retry-after", "1"),
        Answer::CloseConnection,
    ]);
    let token = push.subscribe_at("web.push.apple.com", "/QGuQ").token();
    let (verdict, took) = rig.timed("w", &token);
    assert_eq!(verdict, RESULT);
    assert!(took >= Duration::from_secs(1), "{took:?}");
    let pushes = push.wait_for(3, LONG);
    assert_eq!(pushes.len(), 3);
    assert_eq!(
        pushes[2].claims.as_ref().unwrap().claims["aud"],
        "https://web.push.apple.com"
    );
    assert!(proxy.asked()[0].starts_with("CONNECT web.push.apple.com:443 "));
}

/// What the log says of a certificate, and one of a server of these names that is like that.
fn wrong_certificates(ca: &TestCa, names: &[&str]) -> [(&'static str, Identity); 5] {
    let yesterday = SystemTime::now() - Duration::from_secs(86_400);
    [
        ("it has expired", ca.server_cert(names, Some(yesterday))),
        (
            "it is for another name",
            ca.server_cert(&["push.example.org"], None),
        ),
        (
            "its authority is unknown",
            TestCa::named("another CA").server_cert(names, None),
        ),
        (
            "its signature is not that of the authority which it names",
            TestCa::new().server_cert(names, None),
        ),
        ("its authority is unknown", Identity::self_signed(names)),
    ]
}

/// Nobody can say whose mistake it is, or whose attack: the push waits, and its device lives.
#[test]
fn a_push_service_with_a_wrong_certificate_is_waited_for_and_ends_no_device() {
    const VENDOR: &str = "web.push.apple.com";
    let ca = TestCa::new();
    for (words, certificate) in wrong_certificates(&ca, &[VENDOR, "127.0.0.1"]) {
        let (good, bad) = (FakePush::start(&ca), FakePush::start_as(&ca, certificate));
        let proxy = FakeProxy::start();
        let more = json!({ "webpush": {
            "allowedEndpoints": [VENDOR, "127.0.0.1"], "allowedPorts": [443, bad.address().port()],
            "allowedNetworks": ["127.0.0.1"],
        } });
        let mut rig = start_behind(&proxy, &bad, &ca, modules([("w", merged(usual(), more))]));
        let found = format!("its certificate is not accepted: {words}");
        // A stranger's server is left alone, and each of its devices is told so.
        for number in 0..5 {
            let token = bad.subscribe(&format!("/{number}")).token();
            assert_eq!(rig.push("w", &token), UNAVAILABLE, "{words}");
        }
        assert_eq!(
            rig.daemon.log().matches(&found).count(),
            1,
            "{words}: {}",
            rig.daemon.log()
        );
        assert!(!rig.daemon.log().contains("did not take a push"));
        // A vendor is tried again, and has the device when its certificate is good.
        let device = good.subscribe_at(VENDOR, "/device").token();
        let waiting = rig.publish("w", &device);
        until(LONG, "the operator reads it", || {
            let log = rig.daemon.log();
            let told = log.lines().find(|line| line.contains("did not take a push"));
            told.is_some_and(|line| line.contains(&found))
        });
        proxy.answer_with(ProxyAnswer::TunnelTo(good.address()));
        assert_eq!(rig.verdict(&waiting), RESULT, "{words}");
        assert!(bad.pushes().is_empty(), "nothing is sent to it");
        rig.assert_discreet(&["/device".to_owned()]);
    }
}

/// An attacker with two domains can invent any number of names below that of a vendor that names no hosts.
#[test]
fn no_invented_host_of_a_vendor_is_its_outage() {
    let ca = TestCa::new();
    let (push, proxy) = (FakePush::start(&ca), FakeProxy::start());
    let mut rig = start_behind(&proxy, &push, &ca, modules([("w", usual())]));
    // As a proxy says it of a name that does not resolve.
    let nowhere = || ProxyAnswer::Say("HTTP/1.1 502 Bad Gateway\r\n\r\n".to_owned());
    let told = |rig: &Rig| rig.daemon.log().matches("did not take a push").count();
    let meet = |rig: &mut Rig, host: &dyn Fn(usize) -> String| {
        for number in 0..6 {
            let path = format!("/{}/{number}", host(number));
            let token = push.subscribe_at(&host(number), &path).token();
            rig.publish_from(&format!("stranger{}.example", number % 3), "w", &token);
        }
    };
    proxy.answer_with(nowhere());
    meet(&mut rig, &|number| format!("invented{number}.notify.windows.com"));
    until(LONG, "all have failed, more than once", || {
        rig.daemon.log().matches("push failed").count() >= 12
    });
    assert_eq!(told(&rig), 0);
    // One that exists, and accepts something.
    let real = "wns2-par02p.notify.windows.com";
    proxy.answer_with(ProxyAnswer::TunnelTo(push.address()));
    let device = push.subscribe_at(real, "/device").token();
    assert_eq!(rig.push("w", &device), RESULT);
    proxy.answer_with(nowhere());
    push.reset_existing_connections();
    meet(&mut rig, &|_| real.to_owned());
    until(LONG, "that is Microsoft's", || told(&rig) > 0);
}

/// An operator sees which vendor it is, and that the others are well.
#[test]
fn each_vendor_is_counted_and_complained_of_by_its_name() {
    let ca = TestCa::new();
    let (push, proxy) = (FakePush::start(&ca), FakeProxy::start());
    let more = json!({ "webpush": { "allowedEndpoints": ["fcm.googleapis.com", "web.push.apple.com", "up.example.org"] } });
    let mut rig = start_behind(&proxy, &push, &ca, modules([("w", merged(usual(), more))]));
    push.answer_with(|pushed| match &*pushed.authority {
        "web.push.apple.com" => Answer::reason(403, "BadJwtToken"),
        _ => Answer::status(201),
    });
    for (host, expected) in [
        ("fcm.googleapis.com", RESULT),
        ("fcm.googleapis.com", RESULT),
        ("web.push.apple.com", UNAVAILABLE),
        ("up.example.org", RESULT),
    ] {
        let path = format!("/{}", push.pushes().len());
        let token = push.subscribe_at(host, &path).token();
        assert_eq!(rig.push("w", &token), expected, "{host}");
    }
    let monitoring = Monitoring::of(&rig.daemon, LONG);
    let attempts = |vendor, result| {
        let labels = [("module", "w"), ("vendor", vendor), ("result", result)];
        monitoring.scrape().value("fpush_vendor_attempts_total", &labels)
    };
    assert_eq!(attempts("Google", "accepted"), Some(2.0));
    assert_eq!(attempts("Apple", "not_accepted"), Some(1.0));
    assert_eq!(attempts("other", "accepted"), Some(1.0));
    assert_eq!(attempts("Google", "not_accepted"), None);
    let trouble = |vendor| {
        let labels = [("module", "w"), ("vendor", vendor), ("kind", "authentication")];
        monitoring.scrape().value("fpush_vendor_trouble", &labels)
    };
    until(LONG, "Apple's trouble is seen", || trouble("Apple") == Some(1.0));
    assert_eq!(trouble("Google"), None);
}
