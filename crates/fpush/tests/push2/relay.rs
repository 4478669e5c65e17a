//! What is passed on, byte for byte.

use fpush_testkit::{
    FakeApns, FakePush, Monitoring, Notification, Push2Server, TestCa, push2::encrypt, until,
};
use serde_json::json;

use crate::rig::{FORBIDDEN, LONG, Rig, apple, web};

#[test]
fn a_notification_reaches_its_browser_as_the_server_made_it() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let mut rig = Rig::web(&ca, &push);
    let (server, device) = (Push2Server::new(), push.subscribe("/w/?token=a%2bB%3d"));
    let text = "<envelope xmlns='urn:xmpp:sce:1'><content>Sw0rdfish</content></envelope>";
    rig.send(&server.notification(&device, text));
    let pushed = &push.wait_for(1, LONG)[0];
    assert_eq!(pushed.path, "/w/?token=a%2bB%3d");
    assert_eq!(pushed.text.as_deref(), Ok(text));
    assert_eq!(pushed.key, server.public_key());
    let claims = &pushed.claims.as_ref().unwrap().claims;
    assert_eq!(claims["sub"], "mailto:admin@a.example", "those of the server");
    for (name, value) in [
        ("content-encoding", "aes128gcm"),
        ("content-type", "application/octet-stream"),
        ("ttl", "2419200"),
        ("urgency", "normal"),
        ("topic", ""),
    ] {
        assert_eq!(pushed.header(name), value, "{name}");
    }
    rig.assert_silent();
    let count = |outcome| {
        let scrape = Monitoring::of(&rig.daemon, LONG).scrape();
        scrape.value("fpush_push2_notifications_total", &[("outcome", outcome)])
    };
    until(LONG, "it is counted", || count("accepted") == Some(1.0));
    rig.assert_discreet(&[
        &device.endpoint,
        "a%2bB",
        "Sw0rdfish",
        pushed.header("authorization"),
    ]);
}

#[test]
fn each_priority_is_its_own_urgency_and_a_call_is_worth_a_minute() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    // The module's own ways are for its own pushes.
    let own =
        json!({ "webpush": { "ttl": "1h", "topic": "xmpp", "urgency": "very-low", "lowPriority": "drop" } });
    let mut rig = Rig::start(
        &ca,
        json!({ "web": web(&push, own) }),
        json!({ "modules": ["web"] }),
    );
    let (server, device) = (Push2Server::new(), push.subscribe("/d"));
    let notification = server.notification(&device, "x");
    for (number, (notification, urgency, ttl)) in [
        (notification.clone().priority("high"), "high", "3600"),
        (notification.clone().priority("low"), "low", "3600"),
        (notification.clone().priority("nonsense"), "normal", "3600"),
        (notification.voip(), "high", "60"),
    ]
    .into_iter()
    .enumerate()
    {
        rig.send(&notification);
        let pushes = push.wait_for(number + 1, LONG);
        let pushed = pushes.last().unwrap();
        let said = [
            pushed.header("urgency"),
            pushed.header("ttl"),
            pushed.header("topic"),
        ];
        assert_eq!(said, [urgency, ttl, ""]);
    }
    rig.assert_silent();
}

/// A chat of a minute: each says something else, so none stands for another.
#[test]
fn messages_for_one_device_are_passed_on_one_after_the_other() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let mut rig = Rig::web(&ca, &push);
    let (server, device) = (Push2Server::new(), push.subscribe("/d"));
    for number in 0..10 {
        rig.send(&server.notification(&device, &number.to_string()));
    }
    let mut texts: Vec<_> = push
        .wait_for(10, LONG)
        .iter()
        .map(|pushed| pushed.text.clone().unwrap())
        .collect();
    texts.sort_unstable();
    assert_eq!(
        texts,
        (0..10).map(|number| number.to_string()).collect::<Vec<_>>()
    );
    rig.assert_silent();
    // A wake-up for the same device is neither queued behind them nor covered by them.
    assert_eq!(rig.publish("web", &device.token()), "result");
    assert_ne!(push.wait_for(11, LONG)[10].key, server.public_key());
}

#[test]
fn what_nobody_has_signed_we_sign_and_what_carries_nothing_is_empty() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    push.answer_with(|_| fpush_testkit::Answer::status(201));
    let mut rig = Rig::web(&ca, &push);
    let device = push.subscribe("/d");
    rig.send(&Notification::to(&device.endpoint).payload(&encrypt(&device, "unsigned")));
    let unsigned = push.wait_for(1, LONG).remove(0);
    assert_eq!(unsigned.text.as_deref(), Ok("unsigned"));
    assert_eq!(unsigned.claims.unwrap().claims["sub"], "mailto:push@example.org");
    rig.send(&Notification::to(&device.endpoint));
    let empty = push.wait_for(2, LONG).remove(1);
    assert_eq!(empty.length, 0);
    assert_eq!(empty.header("content-encoding"), "");
    assert_eq!(empty.header("ttl"), "2419200");
    rig.assert_silent();
}

#[test]
fn what_is_too_large_for_a_push_service_wakes_the_app_at_least() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    push.answer_with(|pushed| fpush_testkit::Answer::status(if pushed.length > 0 { 413 } else { 201 }));
    let mut rig = Rig::web(&ca, &push);
    let (server, device) = (Push2Server::new(), push.subscribe("/d"));
    rig.send(&server.notification(&device, &"x".repeat(2_847)));
    let lengths: Vec<_> = push
        .wait_for(2, LONG)
        .iter()
        .map(|pushed| pushed.length)
        .collect();
    assert_eq!(lengths, [2_950, 0]);
    rig.assert_silent();
    assert!(!rig.daemon.log().contains("too large"), "that is not an alarm");
}

#[test]
fn an_iphone_gets_what_its_extension_reads() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let modules = json!({
        "other": apple(&apns, "org.example.other", json!({})),
        "ios": apple(&apns, "org.example.app", json!({ "apns": { "pushPriority": "auto", "collapsePushes": true } })),
    });
    let mut rig = Rig::start(&ca, modules, json!({ "modules": ["other", "ios"] }));
    let (token, for_calls) = ("A1".repeat(32), "b2".repeat(32));
    let client = format!("https://api.push.apple.com/3/device/{token}#org.example.app&{for_calls}");
    let notification = Notification::to(&client).payload(b"\xfb\xfb\xfb");
    for (number, (notification, path, headers)) in [
        (
            notification.clone(),
            token.to_lowercase(),
            ["alert", "10", "org.example.app"],
        ),
        (
            notification.clone().priority("low"),
            token.to_lowercase(),
            ["alert", "5", "org.example.app"],
        ),
        (
            notification.voip(),
            for_calls.clone(),
            ["voip", "10", "org.example.app.voip"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        rig.send(&notification);
        let request = apns.wait_for(number + 1, LONG).remove(number);
        assert_eq!(request.path, format!("/3/device/{path}"));
        let found =
            ["apns-push-type", "apns-priority", "apns-topic"].map(|name| request.header(name).unwrap());
        assert_eq!(found, headers);
        assert_eq!(request.header("apns-collapse-id"), None);
        assert_eq!(request.body["rfc8291"], "+/v7");
    }
    rig.assert_silent();
    // No module is for that app.
    let other = Notification::to(&client.replace("org.example.app", "org.example.third"));
    assert_eq!(rig.refused(&other), FORBIDDEN);
    rig.assert_discreet(&[&token, &token.to_lowercase(), &for_calls, "+/v7"]);
}

#[test]
fn without_the_block_a_notification_is_a_message_as_any_other() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let mut rig = Rig::with(&ca, json!({ "web": web(&push, json!({})) }), json!({}), &[]);
    let (server, device) = (Push2Server::new(), push.subscribe("/d"));
    rig.send(&server.notification(&device, "x"));
    rig.send(&Notification::to("nonsense"));
    rig.assert_silent();
    assert_eq!(push.pushes().len(), 0);
}
