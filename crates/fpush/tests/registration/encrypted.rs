//! What a server has encrypted for the app: relayed, and nowhere else.

use fpush_testkit::{Answer, Monitoring};
use serde_json::{Value, json};

use crate::rig::{ALICE, LONG, RESULT, Rig, UNAVAILABLE, apple, google, notification};

const IV: &str = "aXYtb2YtdGhlLXRlc3Q=";
const HIGH: &str = "<priority xmlns='tigase:push:priority:0'>high</priority>";

fn encrypted(text: &str, attributes: &str) -> String {
    format!("<encrypted xmlns='tigase:push:encrypt:0' iv='{IV}'{attributes}>{text}</encrypted>")
}

/// Registers in Tigase's dialect. Returns the node.
fn register(rig: &mut Rig, provider: &str, token: &str, second: Option<&str>) -> String {
    let second = second.map(|second| ("device-second-token", second));
    let fields: Vec<_> = [("provider", provider), ("device-token", token)]
        .into_iter()
        .chain(second)
        .collect();
    rig.form(ALICE, "register-device", &fields)
        .value("node")
        .to_owned()
}

/// Publishes a notification with this content.
#[track_caller]
fn publish(rig: &mut Rig, node: &str, content: &str) {
    let id = rig.id();
    rig.link.send(notification(&id, node, None, None, content));
    assert_eq!(rig.link.reply_to(&id, LONG).verdict(), RESULT);
}

const SISKIN: &str = "tigase:messenger:apns:1";

#[test]
fn what_is_encrypted_reaches_the_app_and_nothing_else() {
    let mut rig = Rig::start();
    let (ios, android) = (
        register(&mut rig, SISKIN, &apple(1), None),
        register(&mut rig, "fcm-xmpp-api", &google(1), None),
    );
    let secret = rig.register(ALICE, "of the first dialect", &apple(2));
    let text = "Y2lwaGVydGV4dC1vZi10aGUtdGVzdA==";
    let content = encrypted(text, "") + HIGH;
    publish(&mut rig, &ios, &content);
    let request = &rig.apns.wait_for(1, LONG)[0];
    let headers = ["apns-push-type", "apns-topic", "apns-priority"].map(|name| request.header(name).unwrap());
    assert_eq!(headers, ["alert", "org.example.siskin", "10"]);
    assert_eq!(request.token, apple(1));
    let alert = json!({ "title": "New Message", "body": "New Message?" });
    assert_eq!(
        request.body,
        json!({
            "aps": { "alert": alert, "sound": "default", "mutable-content": 1 },
            "account": "alice@a.example", "encrypted": text, "iv": IV,
        })
    );
    publish(&mut rig, &android, &content);
    let send = &rig.fcm.wait_for(1, LONG)[0];
    let data = json!({ "account": "alice@a.example", "encrypted": text, "iv": IV });
    assert_eq!((send.token(), &send.message["data"]), (google(1).as_str(), &data));
    let id = rig.id();
    rig.link.send(notification(
        &id,
        "of the first dialect",
        Some(&secret),
        None,
        &content,
    ));
    assert_eq!(rig.link.reply_to(&id, LONG).verdict(), RESULT);
    let body = &rig.apns.wait_for(2, LONG)[1].body;
    assert_eq!(
        (&body["encrypted"], &body["account"]),
        (&json!(text), &Value::Null)
    );
    rig.assert_discreet(&[
        text,
        IV,
        &ios,
        &android,
        "of the first dialect",
        &secret,
        &apple(1),
        &apple(2),
        &google(1),
        "alice",
    ]);
    let database = [b"devices.db".as_slice(), b"devices.db-wal"]
        .map(|name| std::fs::read(rig.path(str::from_utf8(name).unwrap())).unwrap_or_default())
        .concat();
    let holds = |text: &str| {
        database
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    assert!(
        holds(&secret) && !holds(text) && !holds(IV),
        "it is stored nowhere"
    );
}

#[test]
fn a_call_rings_by_the_second_token() {
    let mut rig = Rig::start();
    let with = register(&mut rig, SISKIN, &apple(1), Some(&apple(2)));
    let without = register(&mut rig, SISKIN, &apple(3), None);
    let call = encrypted("Y2FsbA==", " type='voip'") + HIGH;
    publish(&mut rig, &with, &call);
    publish(&mut rig, &without, &call);
    // Nothing in it that the app could show: the phone must not ring for it.
    let proposal =
        "<jingle xmlns='tigase:push:jingle:0' action='propose' sid='s'><media>audio</media></jingle>";
    publish(&mut rig, &with, &format!("{HIGH}{proposal}"));
    publish(&mut rig, &with, &(encrypted("bWVzc2FnZQ==", "") + HIGH));
    let requests = rig.apns.wait_for(4, LONG);
    let seen: Vec<_> = requests
        .iter()
        .map(|request| {
            let header = |name| request.header(name).unwrap();
            (
                request.token.clone(),
                header("apns-push-type"),
                header("apns-topic"),
                request.body["encrypted"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (apple(2), "voip", "org.example.siskin.voip", Some("Y2FsbA==")),
            (apple(3), "alert", "org.example.siskin", Some("Y2FsbA==")),
            (apple(1), "alert", "org.example.siskin", None),
            (apple(1), "alert", "org.example.siskin", Some("bWVzc2FnZQ==")),
        ]
    );
    assert_eq!(requests[0].header("apns-priority"), Some("10"));
    assert_eq!(
        requests[0].body,
        json!({
            "aps": { "content-available": 1 },
            "account": "alice@a.example", "encrypted": "Y2FsbA==", "iv": IV,
        })
    );
    rig.assert_discreet(&[
        "Y2FsbA==",
        IV,
        &apple(1),
        &apple(2),
        &apple(3),
        &with,
        &without,
        "alice",
    ]);
}

#[test]
fn a_second_token_that_died_is_not_a_reason_to_give_up_the_device() {
    let mut rig = Rig::start();
    rig.stop();
    let run = rig.path("run");
    rig.change_all_settings(|settings| settings["runtimeDirectory"] = json!(run));
    rig.start_again();
    let node = register(&mut rig, SISKIN, &apple(1), Some(&apple(2)));
    let call = encrypted("Y2FsbA==", " type='voip'") + HIGH;
    rig.apns
        .queue([Answer::json(410, &json!({ "reason": "Unregistered" }))]);
    let id = rig.id();
    rig.link.send(notification(&id, &node, None, None, &call));
    assert_eq!(rig.link.reply_to(&id, LONG).verdict(), UNAVAILABLE);
    publish(&mut rig, &node, &call);
    publish(&mut rig, &node, &(encrypted("bWVzc2FnZQ==", "") + HIGH));
    let requests = rig.apns.wait_for(3, LONG);
    let tokens: Vec<_> = requests.iter().map(|request| &request.token).collect();
    assert_eq!(
        tokens,
        [&apple(2), &apple(1), &apple(1)],
        "a message is better than nothing"
    );
    assert_eq!(requests[1].header("apns-push-type"), Some("alert"));
    let scrape = Monitoring::of(&rig.daemon, LONG).scrape();
    let counted = |outcome| {
        scrape.value(
            "fpush_pushes_total",
            &[("module", "siskin"), ("outcome", outcome)],
        )
    };
    assert_eq!(
        (counted("token_blocked"), counted("accepted")),
        (Some(1.0), Some(2.0)),
        "each publish once"
    );
    let asked = rig.operate(&["token", "settings.json", "--node", &node]);
    let said = String::from_utf8(asked.stdout.clone()).unwrap();
    let second = said
        .find("the second token, for calls,")
        .unwrap_or_else(|| panic!("{asked:?}"));
    assert_eq!(said.matches("nothing is sent to this token").count(), 1, "{said}");
    assert!(said[second..].contains("nothing is sent to this token"), "{said}");
    // With the next registration calls ring again, even by the same token.
    assert_eq!(register(&mut rig, SISKIN, &apple(1), Some(&apple(2))), node);
    publish(&mut rig, &node, &call);
    assert_eq!(rig.apns.wait_for(4, LONG)[3].token, apple(2));
}

#[test]
fn what_is_too_large_becomes_the_plain_push() {
    let mut rig = Rig::start();
    let ios = register(&mut rig, SISKIN, &apple(1), None);
    let android = register(&mut rig, "fcm-xmpp-api", &google(1), None);
    // As much as the registration promised, and more than any provider takes.
    let (promised, large) = ("cHJv".repeat(750), "bGFy".repeat(1_024));
    for text in [&promised, &large] {
        publish(&mut rig, &ios, &(encrypted(text, "") + HIGH));
        publish(&mut rig, &android, &(encrypted(text, "") + HIGH));
    }
    let (requests, sends) = (rig.apns.wait_for(2, LONG), rig.fcm.wait_for(2, LONG));
    assert_eq!(requests[0].body["encrypted"], promised);
    assert_eq!(sends[0].message["data"]["encrypted"], promised);
    let plain = json!({ "account": "alice@a.example" });
    assert_eq!(sends[1].message["data"], plain);
    let alert = json!({ "title": "New Message", "body": "New Message?" });
    let aps = json!({ "alert": alert, "sound": "default", "mutable-content": 1 });
    assert_eq!(
        requests[1].body,
        json!({ "aps": aps, "account": plain["account"] })
    );

    // The provider has the last word.
    let refused = Answer::json(413, &json!({ "reason": "PayloadTooLarge" }));
    rig.apns.queue([refused]);
    publish(&mut rig, &ios, &(encrypted("c21hbGw=", "") + HIGH));
    let requests = rig.apns.wait_for(4, LONG);
    assert_eq!(requests[2].body["encrypted"], "c21hbGw=");
    assert_eq!(
        (&requests[3].body["encrypted"], &requests[3].body["account"]),
        (&Value::Null, &plain["account"])
    );
    assert_eq!(requests[2].header("apns-id"), requests[3].header("apns-id"));
    rig.assert_discreet(&["cHJvcHJv", "bGFybGFy", "c21hbGw="]);
}

#[test]
fn what_is_not_base64_is_not_relayed() {
    let mut rig = Rig::start();
    let node = register(&mut rig, SISKIN, &apple(1), None);
    let huge = "aHVn".repeat(3_000);
    for text in ["", "a b", "\"},\"aps\":{", "&lt;x/&gt;", "ä", &huge] {
        publish(&mut rig, &node, &(encrypted(text, "") + HIGH));
    }
    for request in rig.apns.wait_for(6, LONG) {
        assert_eq!(request.body["encrypted"], Value::Null, "{}", request.body);
        assert_eq!(request.body["aps"]["alert"]["body"], "New Message?");
    }
}
