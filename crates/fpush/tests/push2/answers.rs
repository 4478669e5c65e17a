//! What servers are told: nothing, unless something is wrong; and never that a device is gone because of what we think.

use fpush_testkit::{Answer, FakeProxy, FakePush, Notification, ProxyAnswer, Push2Server, TestCa, until};
use serde_json::json;

use crate::rig::{BAD, FORBIDDEN, GONE, LATER, LONG, Rig, TOO_LARGE, TOO_MANY, web};

/// By status: what the server hears of the first notification, and of the next one at once.
#[test]
fn no_first_word_of_a_push_service_ends_a_device() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let mut rig = Rig::web(&ca, &push);
    let server = Push2Server::new();
    let statuses = [400, 401, 403, 404, 405, 410, 413, 415, 418, 429, 301, 507];
    for status in statuses {
        push.answer_with(move |_| Answer::status(status));
        let device = push.subscribe(&format!("/{status}"));
        let verdict = rig.refused(&server.notification(&device, "x"));
        let expected = if matches!(status, 429 | 507) {
            TOO_MANY
        } else {
            LATER
        };
        assert_eq!(verdict, expected, "{status}");
    }
    push.answer_with(|_| Answer::status(201));
    let good = push.subscribe("/good");
    let before = push.pushes().len();
    rig.send(&server.notification(&good, "x"));
    push.wait_for(before + 1, LONG);
    rig.assert_silent();
    let log = rig.daemon.log();
    for alarm in [
        "ERROR",
        "pausing",
        "check the settings of this module",
        "the provider did not take",
    ] {
        assert!(!log.contains(alarm), "{alarm}");
    }
}

/// A server that ignores errors, as `mod_push2` does.
#[test]
fn who_ignores_errors_costs_no_requests() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    push.answer_with(|pushed| Answer::status(if pushed.path == "/dead" { 410 } else { 201 }));
    let mut rig = Rig::web(&ca, &push);
    let (server, dead) = (Push2Server::new(), push.subscribe("/dead"));
    for _ in 0..20 {
        assert_eq!(rig.refused(&server.notification(&dead, "x")), LATER);
    }
    assert_eq!(push.pushes().len(), 1);
    // That is the business of that domain alone.
    let id = rig.send_from("b.example", &server.notification(&dead, "x"));
    assert_eq!(rig.error(&id), LATER);
    assert_eq!(push.pushes().len(), 2);
}

/// What a vendor says of claims that are not ours is not a word about our key, nor about the device that registered with us.
#[test]
fn a_wrong_signature_at_a_vendor_silences_nobody_else() {
    let ca = TestCa::new();
    let (push, proxy) = (FakePush::start(&ca), FakeProxy::start());
    let mut rig = behind(&proxy, &push, &ca);
    let server = Push2Server::new();
    for host in [
        "web.push.apple.com",
        "fcm.googleapis.com",
        "updates.push.services.mozilla.com",
    ] {
        push.answer_with(|_| Answer::raw(403, r#"{"reason":"BadJwtToken"}"#));
        for (number, domain) in ["a.example", "b.example", "c.example", "d.example"]
            .iter()
            .enumerate()
        {
            let device = push.subscribe_at(host, &format!("/{host}/{number}"));
            let id = rig.send_from(domain, &server.notification(&device, "x"));
            assert_eq!(rig.error(&id), LATER, "{host}");
        }
        push.answer_with(|_| Answer::status(201));
        let device = push.subscribe_at(host, &format!("/{host}/0"));
        assert_eq!(rig.publish("web", &device.token()), "result", "{host}");
    }
    let log = rig.daemon.log();
    assert!(!log.contains("pauses") && !log.contains("ERROR"), "{log}");
}

/// A daemon for which a proxy leads to the fake, whatever vendor is meant.
fn behind(proxy: &FakeProxy, push: &FakePush, ca: &TestCa) -> Rig {
    proxy.answer_with(ProxyAnswer::TunnelTo(push.address()));
    let module = json!({ "type": "webpush", "webpush": {
        "vapidKeyFilePath": "vapid.key", "subject": "mailto:push@example.org", "caFilePath": "ca.pem",
    } });
    let component = json!({ "push2": { "modules": ["web"] } });
    let environment = [("HTTPS_PROXY", &*proxy.url())];
    Rig::with(ca, json!({ "web": module }), component, &environment)
}

/// The one error at which a server may give a registration up: a vendor says that the receiver is gone, and accepts what goes to
/// others.
#[test]
fn a_receiver_that_its_vendor_calls_gone_is_no_more_and_no_other_goes_with_it() {
    let ca = TestCa::new();
    let (push, proxy) = (FakePush::start(&ca), FakeProxy::start());
    let mut rig = behind(&proxy, &push, &ca);
    let (google, mozilla) = ("fcm.googleapis.com", "updates.push.services.mozilla.com");
    push.answer_with(|pushed| {
        Answer::status(if pushed.path.starts_with("/gone") {
            410
        } else {
            201
        })
    });
    let server = Push2Server::new();
    // The domain is a known one by what was published to a browser before.
    let browser = push.subscribe_at(google, "/browser");
    assert_eq!(rig.publish("web", &browser.token()), "result");
    let living: Vec<_> = (0..20)
        .map(|number| push.subscribe_at(google, &format!("/living/{number}")))
        .collect();
    for device in &living {
        rig.send(&server.notification(device, "x"));
    }
    push.wait_for(21, LONG);
    rig.assert_silent();
    let gone = push.subscribe_at(google, "/gone");
    assert_eq!(rig.refused(&server.notification(&gone, "x")), GONE);
    // Who does not hear of it is told that it is left alone.
    assert_eq!(rig.refused(&server.notification(&gone, "x")), LATER);
    assert_eq!(push.pushes().len(), 22, "it is asked once");
    // Another vendor that accepts nothing is not believed at once.
    let other = push.subscribe_at(mozilla, "/gone/too");
    assert_eq!(rig.refused(&server.notification(&other, "x")), LATER);
    for device in &living {
        rig.send(&server.notification(device, "x"));
    }
    push.wait_for(43, LONG);
    rig.assert_silent();
}

#[test]
fn an_outage_is_told_and_nothing_is_held() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let mut rig = Rig::web(&ca, &push);
    push.answer_with(|_| Answer::status(503));
    let (server, device) = (Push2Server::new(), push.subscribe("/d"));
    let id = rig.send(&server.notification(&device, "x"));
    assert_eq!(rig.error(&id), LATER);
}

#[test]
fn every_kind_of_malformed_notification_is_told_apart() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let mut rig = Rig::web(&ca, &push);
    let (server, device) = (Push2Server::new(), push.subscribe("/d"));
    let to = || Notification::to(&device.endpoint);
    let jwt = server.sign("https://x");
    let long = format!("{}{}", device.endpoint, "x".repeat(1_000));
    for (notification, expected) in [
        (Notification::to(""), BAD),
        (to().payload(b""), BAD),
        (to().payload(&[0; 4_097]), TOO_LARGE),
        (to().payload(&[0; 500_000]), TOO_LARGE),
        (to().jwt("a.b", &server.public_key()), BAD),
        (to().jwt("a.b.c,k=evil", &server.public_key()), BAD),
        (to().jwt(&"a".repeat(500_000), &server.public_key()), BAD),
        (to().jwt(&jwt, ""), BAD),
        (to().jwt(&jwt, "AAAA"), BAD),
        (Notification::to(&long), TOO_LARGE),
        (Notification::to("device-1"), FORBIDDEN),
        (Notification::to("https://evil.example/x"), FORBIDDEN),
    ] {
        assert_eq!(rig.refused(&notification), expected, "{notification:.200?}");
    }
    assert_eq!(push.pushes().len(), 0);
}

#[test]
fn a_domain_and_a_device_have_their_rates() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let limits = json!({ "modules": ["web"], "maxPerDomain": 30, "maxPerReceiver": 10 });
    let mut rig = Rig::start(&ca, json!({ "web": web(&push, json!({})) }), limits);
    let server = Push2Server::new();
    let mut flood = |domain: &str, path: &str| {
        let device = push.subscribe(path);
        let ids: Vec<_> = (0..20)
            .map(|_| rig.send_from(domain, &server.notification(&device, "x")))
            .collect();
        // The device gets one more in six seconds.
        for id in &ids[12..] {
            assert_eq!(rig.error(id), TOO_MANY);
        }
    };
    flood("x.flood.org", "/1");
    flood("y.flood.org", "/2");
    flood("z.flood.org", "/3");
    // The domain has had its thirty.
    flood("flood.org", "/4");
    assert!((30..50).contains(&push.wait_for(30, LONG).len()));
    let device = push.subscribe("/5");
    rig.send_from("other.example", &server.notification(&device, "other"));
    until(LONG, "another domain has its own", || {
        let pushes = push.pushes();
        pushes.iter().any(|pushed| pushed.text.as_deref() == Ok("other"))
    });
}
