//! What is one for the rate limit: a registered device, of which one phone has as many as accounts and chats.

use fpush_testkit::{Answer, Gate, Monitoring};
use serde_json::json;

use crate::rig::{ALICE, LONG, REFUSED, RESULT, Rig, apple, google, until};

const BOB: &str = "bob@b.example/phone";

#[test]
fn accounts_and_chats_on_one_phone_do_not_stand_for_each_other() {
    let mut rig = Rig::with(json!({ "rateLimit": "1h" }));
    let token = google(1);
    let device = [("token", token.as_str()), ("device-id", "phone")];
    let room = [device[0], device[1], ("muc", "room@muc.example")];
    let nodes: Vec<_> = [(ALICE, &device[..]), (ALICE, &room[..]), (BOB, &device[..])]
        .into_iter()
        .map(|(from, fields)| {
            let form = rig.form(from, "register-push-fcm", fields);
            (form.value("node").to_owned(), form.value("secret").to_owned())
        })
        .collect();
    for expected in [RESULT, RESULT, REFUSED] {
        for (node, secret) in &nodes {
            assert_eq!(rig.push(node, secret), expected);
        }
    }
    assert_eq!(rig.fcm.count(), 3, "one for each at once");
    rig.stop();
    let mut told: Vec<_> = rig
        .fcm
        .wait_for(6, LONG)
        .iter()
        .map(|send| {
            assert_eq!(send.token(), token);
            let data = &send.message["data"];
            format!("{} {}", data["account"], data["channel"])
        })
        .collect();
    assert_eq!(told.len(), 6, "what was acknowledged has been sent");
    told.sort();
    let (first, second): (Vec<_>, Vec<_>) = told.chunks(2).map(|pair| (&pair[0], &pair[1])).unzip();
    assert_eq!(first, second, "two for each");
    told.dedup();
    assert_eq!(told.len(), 3, "{told:?}");
}

#[test]
fn a_token_that_did_not_register_is_another_key_than_its_device() {
    let mut rig = Rig::of(
        json!({ "rateLimit": "1h" }),
        json!({ "ios": { "ratelimit": { "ratelimitTime": "1h" } } }),
    );
    let secret = rig.register(ALICE, "n", &apple(1));
    for expected in [RESULT, RESULT, REFUSED] {
        assert_eq!(rig.push("n", &secret), expected);
        let plain = rig.publish(&apple(1), None, Some("ios"));
        assert_eq!(plain.verdict(), expected);
    }
    assert_eq!(rig.apns.count(), 2);
}

/// What the provider says of a token goes for all whose token it is.
#[test]
fn the_silence_of_a_busy_token_is_that_of_all_its_devices() {
    let mut rig = Rig::with(json!({ "rateLimit": "1s" }));
    let alice = rig.register(ALICE, "alice", &apple(1));
    let bob = rig.register(BOB, "bob", &apple(1));
    let other = rig.register(BOB, "tablet", &apple(2));
    rig.apns.queue([Answer::reason(429, "TooManyRequests")]);
    assert_eq!(rig.push("alice", &alice), RESULT, "it is queued now");
    for (node, secret) in [("alice", &alice), ("bob", &bob)] {
        let expected = if node == "bob" { RESULT } else { REFUSED };
        assert_eq!(rig.push(node, secret), expected, "{node}");
        assert_eq!(rig.push(node, secret), REFUSED, "{node}");
    }
    assert_eq!(rig.apns.count(), 1, "Apple is not asked meanwhile");
    assert_eq!(rig.push("tablet", &other), RESULT);
    assert_eq!(rig.apns.wait_for(2, LONG)[1].token, apple(2));
    rig.stop();
    assert_eq!(rig.apns.wait_for(4, LONG).len(), 4);
}

/// Whatever the case in which it came, also from another database; its device keeps its node.
#[test]
fn every_spelling_of_a_token_is_one_registration() {
    let mut rig = Rig::with(json!({ "rateLimit": "1h" }));
    let (lower, upper) = (apple(1), apple(1).to_uppercase());
    let secret = rig.register(ALICE, "n", &upper);
    rig.expect_apple("n", Some(&secret), "org.example.ios", &lower);
    let mut nodes = Vec::new();
    for token in [&upper, &lower, &upper] {
        let fields = [
            ("provider", "tigase:messenger:apns:1"),
            ("device-token", token.as_str()),
        ];
        nodes.push(
            rig.form(ALICE, "register-device", &fields)
                .value("node")
                .to_owned(),
        );
    }
    nodes.dedup();
    assert_eq!(nodes.len(), 1, "{nodes:?}");
    let devices = rig.export();
    assert_eq!(devices.len(), 2);
    assert!(
        devices.iter().all(|device| device["token"] == json!(lower)),
        "{devices:?}"
    );

    // As an older version has written it.
    let old: String = devices
        .iter()
        .map(|device| {
            let mut device = device.clone();
            device["token"] = json!(upper);
            device["registered"] = json!("2036-01-01T00:00:00Z");
            device["renewed"] = json!("2036-01-01T00:00:00Z");
            format!("{device}\n")
        })
        .collect();
    std::fs::write(rig.path("old.jsonl"), old).unwrap();
    rig.stop();
    let imported = rig.operate(&["import", "json", "old.jsonl", "settings.json"]);
    assert!(imported.status.success(), "{imported:?}");
    rig.start_again();
    assert!(rig.export().iter().all(|device| device["token"] == json!(upper)));
    let fields = [
        ("provider", "tigase:messenger:apns:1"),
        ("device-token", lower.as_str()),
    ];
    rig.expect_apple("n", Some(&secret), "org.example.ios", &lower);
    let form = rig.form(ALICE, "register-device", &fields);
    assert_eq!(form.value("node"), nodes[0]);
    assert_eq!(rig.export().len(), 2);
    let gone = rig.form(ALICE, "unregister-device", &[fields[0], ("device-token", &upper)]);
    assert_eq!(gone.value("node"), nodes[0]);
}

/// An older push that failed is not sent again if a newer one is queued for the same device. It was acknowledged, so it
/// is counted.
#[test]
fn what_a_newer_push_covers_is_counted() {
    let mut rig = Rig::with(json!({ "rateLimit": "5s" }));
    let secret = rig.register(ALICE, "n", &apple(1));
    assert_eq!(rig.push("n", &secret), RESULT);
    let gate = Gate::new();
    let refusal = Answer::reason(503, "ServiceUnavailable");
    rig.apns.queue([Answer::Behind(gate.clone(), Box::new(refusal))]);
    assert_eq!(rig.push("n", &secret), RESULT, "it is queued");
    rig.apns.wait_for(2, LONG);
    assert_eq!(rig.push("n", &secret), RESULT, "the next one is queued behind it");
    gate.open();
    rig.apns.wait_for(3, LONG);
    let monitoring = Monitoring::of(&rig.daemon, LONG);
    let counted = |outcome| {
        let labels = [("module", "ios"), ("outcome", outcome)];
        monitoring.scrape().value("fpush_held_pushes_total", &labels)
    };
    until(LONG, "what was queued last is delivered", || {
        counted("delivered") == Some(1.0)
    });
    assert_eq!((counted("covered"), counted("lost")), (Some(1.0), Some(0.0)));
    rig.stop();
    assert_eq!(rig.apns.count(), 3);
}
