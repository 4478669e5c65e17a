//! What the component says about itself (XEP-0030, XEP-0050 section 2).

use serde_json::json;

use crate::rig::{MISSING, Rig};

const INFO: &str = "http://jabber.org/protocol/disco#info";
const ITEMS: &str = "http://jabber.org/protocol/disco#items";
const COMMANDS: &str = "http://jabber.org/protocol/commands";

#[track_caller]
fn query(rig: &mut Rig, namespace: &str, node: Option<&str>) -> String {
    let node = node.map(|node| format!(" node='{node}'")).unwrap_or_default();
    let reply = rig.ask("get", &format!("<query xmlns='{namespace}'{node}/>"));
    if reply.is_result() {
        reply.raw
    } else {
        reply.verdict()
    }
}

/// The values of this attribute, wherever it stands.
fn values<'a>(xml: &'a str, attribute: &str) -> Vec<&'a str> {
    let start = format!(" {attribute}='");
    let mut values: Vec<_> = xml
        .split(&start)
        .skip(1)
        .map(|rest| rest.split('\'').next().unwrap())
        .collect();
    values.sort_unstable();
    values
}

#[test]
fn clients_see_that_they_are_welcome() {
    let mut rig = Rig::start();
    let info = query(&mut rig, INFO, None);
    assert_eq!(
        (values(&info, "category"), values(&info, "name")),
        (vec!["pubsub"], vec!["fpush"])
    );
    let features = values(&info, "var");
    for feature in [
        "urn:xmpp:push:0",
        INFO,
        ITEMS,
        COMMANDS,
        "tigase:messenger:apns:1",
        "fcm-xmpp-api",
    ] {
        assert!(features.contains(&feature), "{feature} in {info}");
    }

    let items = query(&mut rig, ITEMS, Some(COMMANDS));
    let commands = [
        "http://jabber.org/protocol/commands", // of the query itself
        "push-status",
        "register-device",
        "register-push-apns",
        "register-push-fcm",
        "test-push",
        "unregister-device",
        "unregister-push-apns",
        "unregister-push-fcm",
        "v1-register-push",
        "v1-unregister-push",
    ];
    assert_eq!(values(&items, "node"), commands);
    assert_eq!(values(&items, "jid"), ["push.localhost"; 10]);
    assert_eq!(values(&items, "name").len(), 10);
    let top = query(&mut rig, ITEMS, None);
    assert!(values(&top, "node").is_empty(), "{top}");

    let list = query(&mut rig, INFO, Some(COMMANDS));
    assert_eq!(
        (values(&list, "category"), values(&list, "type")[0]),
        (vec!["automation"], "command-list")
    );
    for command in &commands[1..] {
        let info = query(&mut rig, INFO, Some(command));
        assert_eq!(values(&info, "node"), [*command]);
        assert!(values(&info, "type").contains(&"command-node"), "{info}");
        assert!(values(&info, "var").contains(&"jabber:x:data"), "{info}");
    }
    assert_eq!(query(&mut rig, INFO, Some("register-push-webpush")), MISSING);
}

#[test]
fn only_what_the_settings_have_is_offered() {
    let mut rig = Rig::with(json!({ "types": { "apns": null }, "providers": null }));
    let items = query(&mut rig, ITEMS, Some(COMMANDS));
    assert_eq!(
        values(&items, "node")[1..],
        [
            "push-status",
            "register-push-fcm",
            "test-push",
            "unregister-push-fcm",
            "v1-register-push",
            "v1-unregister-push"
        ]
    );
    let info = query(&mut rig, INFO, None);
    assert!(!info.contains("tigase"), "{info}");
    for command in ["register-device", "unregister-device", "register-push-apns"] {
        let reply = rig.execute("a@b", command, &[]);
        assert_eq!(reply.verdict(), MISSING, "{command}");
    }
}
