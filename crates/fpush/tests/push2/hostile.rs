//! What strangers send: nothing of it ends the stream, goes to and fro, or reaches what nobody may reach.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use fpush_testkit::{Answer, FakePush, Gate, Notification, Push2Server, TestCa, until};
use serde_json::json;

use crate::rig::{FORBIDDEN, LONG, Rig, TOO_MANY, web};

#[test]
fn an_error_is_never_answered() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let mut rig = Rig::web(&ca, &push);
    let (server, device) = (Push2Server::new(), push.subscribe("/d"));
    for notification in [server.notification(&device, "x"), Notification::to("nonsense")] {
        let message = notification.message("a.example", "1");
        for kind in ["type='error'", "type=\"error\"", "type='&#101;rror'"] {
            let error = message.replacen("<message", &format!("<message {kind}"), 1);
            rig.link.send(&error);
            let refusal =
                "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
            rig.link
                .send(error.replace("</message>", &format!("{refusal}</message>")));
        }
    }
    rig.assert_silent();
    assert_eq!(push.pushes().len(), 0);
}

/// Two fpush, or one and itself: what one refuses is told to the other, and that is the end of it.
#[test]
fn what_we_say_to_ourselves_is_said_once() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let mut rig = Rig::web(&ca, &push);
    rig.link
        .send(Notification::to("nonsense").message("push.localhost", "1"));
    let error = rig.link.next_stanza(LONG);
    assert!(
        error.contains("type='error'") && error.contains("to='push.localhost'"),
        "{error}"
    );
    rig.link.send(&error);
    rig.assert_silent();
}

#[test]
fn messages_that_are_not_notifications_get_no_answer() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let mut rig = Rig::web(&ca, &push);
    let to = "from='a.example' to='push.localhost' id='1'";
    let client = "<client>nonsense</client>";
    for message in [
        format!("<message {to}/>"),
        format!("<message {to}><body>hello</body></message>"),
        format!("<message {to} type='groupchat'><body>hello</body></message>"),
        format!("<message {to}><notification>{client}</notification></message>"),
        format!("<message {to}><notification xmlns='urn:xmpp:push:0'>{client}</notification></message>"),
        format!("<message {to}><notification xmlns='urn:xmpp:push2:1'>{client}</notification></message>"),
        format!("<message {to}><x xmlns='urn:xmpp:push2:0'>{client}</x></message>"),
        format!(
            "<message {to}><notification xmlns='urn:xmpp:push2:0'><client>&nope;</client></notification></message>"
        ),
        format!(
            "<message {to}><notification xmlns='urn:xmpp:push2:0'><client>x</other></notification></message>"
        ),
        format!(
            "<message {to}><notification xmlns='urn:xmpp:push2:0'>{}</notification></message>",
            "x".repeat(2_000_000)
        ),
        // Nobody would know what it is about, or who asked.
        format!(
            "<message from='a.example' to='push.localhost'><notification xmlns='urn:xmpp:push2:0'>{client}</notification></message>"
        ),
        format!(
            "<message to='push.localhost' id='1'><notification xmlns='urn:xmpp:push2:0'>{client}</notification></message>"
        ),
        format!(
            "<message from='a.example' id='1'><notification xmlns='urn:xmpp:push2:0'>{client}</notification></message>"
        ),
        format!(
            "<message xmlns='urn:else' {to}><notification xmlns='urn:xmpp:push2:0'>{client}</notification></message>"
        ),
    ] {
        rig.link.send(&message);
        rig.assert_silent();
    }
    // Without an id it is passed on all the same.
    let (server, device) = (Push2Server::new(), push.subscribe("/d"));
    let message = server.notification(&device, "x").message("a.example", "1");
    rig.link.send(message.replacen(" id='1'", "", 1));
    assert_eq!(push.wait_for(1, LONG)[0].text.as_deref(), Ok("x"));
    rig.assert_silent();
}

/// `"*"` is for names of the public DNS, and what these resolve to.
#[test]
fn no_private_address_is_reached_whatever_the_settings_allow() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let port = push.address().port();
    let open = json!({ "webpush": {
        "allowedEndpoints": ["*", "localhost"], "allowedPorts": [443, port], "allowedNetworks": [],
    } });
    let mut rig = Rig::start(
        &ca,
        json!({ "web": web(&push, open) }),
        json!({ "modules": ["web"] }),
    );
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "10.0.0.1",
        "8.8.8.8",
        "intranet",
        "printer.local",
        "metadata.google.internal",
        "user@up.example.org",
        "up.example.org#",
    ] {
        let client = format!("https://{host}:{port}/x");
        assert_eq!(rig.refused(&Notification::to(&client)), FORBIDDEN, "{host}");
    }
    for client in [
        format!("http://localhost:{port}/x"),
        format!("https://localhost:{port}/x#fragment"),
        format!("https://localhost:{}/x", port.wrapping_add(1)),
        format!("https://localhost:{port}@evil.example/x"),
        "file:///etc/passwd".to_owned(),
        "gopher://localhost/x".to_owned(),
        "https://".to_owned(),
    ] {
        assert_eq!(rig.refused(&Notification::to(&client)), FORBIDDEN, "{client}");
    }
    // The operator has named it, but not the address that it has: that is found out where the connection is made.
    let named = Notification::to(&format!("https://localhost:{port}/x"));
    let id = rig.send(&named);
    assert_eq!(rig.error(&id), "wait/remote-server-timeout");
    assert_eq!((push.pushes().len(), push.connections()), (0, 0));
}

/// A stranger's own server, which never answers, and for which it has thousands of notifications, under many domains.
#[test]
fn a_flood_to_a_server_that_hangs_costs_nobody_else_anything() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs = hanging.local_addr().unwrap().port();
    let more = json!({ "webpush": { "allowedPorts": [push.address().port(), hangs], "requestTimeout": 25 } });
    let mut rig = Rig::start(
        &ca,
        json!({ "web": web(&push, more) }),
        json!({ "modules": ["web"] }),
    );
    let (server, device) = (Push2Server::new(), push.subscribe("/d"));
    for number in 0..2_000 {
        let client = format!("https://127.0.0.1:{hangs}/{number}");
        rig.send_from(
            &format!("x{number}.flood{}.org", number % 7),
            &Notification::to(&client),
        );
    }
    let start = Instant::now();
    rig.send(&server.notification(&device, "good"));
    assert_eq!(push.wait_for(1, LONG)[0].text.as_deref(), Ok("good"));
    assert_eq!(rig.publish("web", &push.subscribe("/e").token()), "result");
    // Before any of the others has given up.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    drop(hanging);
}

/// One domain uses up what it may have under way, and no other one's.
#[test]
fn what_is_under_way_has_a_share_for_each_domain() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let gate = Gate::new();
    let behind = gate.clone();
    push.answer_with(move |_| Answer::status(201).behind(&behind));
    let limits = json!({ "modules": ["web"], "maxPerReceiver": 100_000 });
    let more = json!({ "maxInFlight": 20_000 });
    let mut rig = Rig::start(&ca, json!({ "web": web(&push, more) }), limits);
    let (server, device) = (Push2Server::new(), push.subscribe("/d"));
    let notification = server.notification(&device, "x");
    let ids: Vec<_> = (0..1_000)
        .map(|_| rig.send_from("flood.org", &notification))
        .collect();
    assert_eq!(rig.error(ids.last().unwrap()), TOO_MANY);
    rig.send_from("other.example", &server.notification(&device, "other"));
    until(LONG, "the other one is there", || {
        let pushes = push.pushes();
        pushes.iter().any(|pushed| pushed.text.as_deref() == Ok("other"))
    });
    gate.open();
}
