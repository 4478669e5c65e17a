//! Which publish goes to which device.

use serde_json::json;

use crate::rig::{ALICE, LONG, RESULT, Rig, TROUBLE, apple, google, important};

/// With all devices in memory, and with a question to the database for each publish.
fn both() -> [Rig; 2] {
    [true, false].map(|cache| Rig::with(json!({ "store": { "cache": cache } })))
}

#[test]
fn one_answer_for_wrong_and_missing_secrets_and_unknown_nodes() {
    for mut rig in both() {
        let secret = rig.register(ALICE, "known", &apple(1));
        let nearly = format!(
            "{}{}",
            &secret[..63],
            if secret.ends_with('0') { '1' } else { '0' }
        );
        let mut replies = Vec::new();
        for (node, secret) in [
            ("known", Some("wrong")),
            ("known", Some("")),
            ("known", Some(&nearly)),
            ("known", Some(&secret[..63])),
            ("known", Some(&format!("{secret}0"))),
            ("known", Some(&secret.to_uppercase())),
            ("known", None),
            ("unknown", Some(&secret)),
            ("KNOWN", Some(&secret)),
            ("known ", Some(&secret)),
        ] {
            rig.link.send(important("same", node, secret, None));
            let reply = rig.link.reply_to("same", LONG);
            assert_eq!(reply.verdict(), TROUBLE, "{node} {secret:?}");
            replies.push(reply.raw);
        }
        replies.dedup();
        assert_eq!(replies.len(), 1, "{replies:?}");
        assert_eq!((rig.apns.count(), rig.fcm.count()), (0, 0));
        rig.expect_apple("known", Some(&secret), "org.example.ios", &apple(1));
        rig.assert_discreet(&[&secret, &nearly, &apple(1)]);
    }
}

/// An app that exchanges node and module: what the log says of a module that is not there shows no token.
/// An app exchanges the two fields. The module of that provider need not be in the settings: then it was lost there.
#[test]
fn a_token_that_comes_as_a_module_is_not_in_the_log() {
    let tokens = [apple(3), google(3), "cYzXb1mQRk-3kH2b0vL9xA".to_owned()];
    let only_google = (
        json!({ "types": { "apns": null }, "providers": { "tigase:messenger:apns:1": null } }),
        json!({ "ios": null, "siskin": null, "plain": null }),
    );
    let only_apple = (
        json!({ "types": { "fcm": null }, "providers": { "fcm-xmpp-api": null } }),
        json!({ "android": null }),
    );
    for (registration, modules) in [(json!({}), json!({})), only_google, only_apple] {
        let mut rig = Rig::of(registration, modules);
        for token in &tokens {
            assert!(!rig.publish("node", None, Some(token)).is_result());
        }
        rig.daemon.wait_for_nth_log("may be a token", tokens.len(), LONG);
        rig.assert_discreet(&tokens.each_ref().map(String::as_str));
    }
}

#[test]
fn who_names_a_module_carries_the_token_along() {
    for mut rig in both() {
        // The same name as a node and as a token, which no stranger may mix up.
        let secret = rig.import(ALICE, &google(7), &apple(1));
        assert_eq!(
            rig.publish(&google(7), Some(&secret), Some("android")).verdict(),
            RESULT
        );
        assert_eq!(rig.publish(&google(8), None, Some("android")).verdict(), RESULT);
        let tokens: Vec<_> = rig
            .fcm
            .wait_for(2, LONG)
            .iter()
            .map(|send| send.token().to_owned())
            .collect();
        assert_eq!(tokens, [google(7), google(8)]);
        assert_eq!(rig.apns.count(), 0);
        let unknown = rig.publish(&google(7), Some(&secret), Some("nothing"));
        assert_eq!(unknown.verdict(), "wait/internal-server-error");
        // A name without letters names none.
        assert_eq!(rig.publish(&google(7), Some(&secret), Some("")).verdict(), RESULT);
        assert_eq!(rig.apns.wait_for(1, LONG)[0].token, apple(1));
    }
}

#[test]
fn a_publish_with_neither_is_registered_if_its_node_is_known() {
    for mut rig in both() {
        let fields = [
            ("provider", "tigase:messenger:apns:1"),
            ("device-token", &apple(1)),
        ];
        let node = rig
            .form(ALICE, "register-device", &fields)
            .value("node")
            .to_owned();
        rig.expect_apple(&node, None, "org.example.siskin", &apple(1));
        rig.expect_apple(&apple(2), None, "org.example.plain", &apple(2));
        // A token is nobody's node to choose.
        let fields = [("type", "fcm"), ("node", &apple(3)), ("token", &google(1))];
        let reply = rig.execute(ALICE, "v1-register-push", &fields);
        assert_eq!(reply.verdict(), "modify/bad-request");
        rig.expect_apple(&apple(3), None, "org.example.plain", &apple(3));
    }
}

#[test]
fn the_secret_is_found_wherever_it_stands() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "n", &apple(1));
    let field = |var: &str, value: &str| format!("<field var='{var}'><value>{value}</value></field>");
    let form_type = field("FORM_TYPE", "http://jabber.org/protocol/pubsub#publish-options");
    let many: String = (0..50).map(|n| field(&format!("more-{n}"), "x")).collect();
    for (number, fields) in [
        format!("{}{form_type}", field("secret", &secret)),
        format!("{form_type}{many}{}", field("secret", &secret)),
        format!("{}{}", field("secret", &secret), field("secret", "another")),
        format!("{form_type}{}", field("secret", &secret.replace('a', "&#97;"))),
    ]
    .iter()
    .enumerate()
    {
        for kind in ["", " type='submit'", " type='form'"] {
            let id = format!("{number}{kind}").replace('\'', "");
            let options =
                format!("<publish-options><x xmlns='jabber:x:data'{kind}>{fields}</x></publish-options>");
            rig.link
                .send(fpush_testkit::publish::Publish::new(&id, "n", "", &options));
            assert_eq!(rig.link.reply_to(&id, LONG).verdict(), RESULT, "{options}");
        }
    }
    assert_eq!(rig.apns.wait_for(12, LONG).len(), 12);
}
