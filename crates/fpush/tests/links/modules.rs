//! Which push modules a name may use.

use fpush_testkit::{
    Command, Form, TempDir, merged,
    publish::{ejabberd_publish, metronome_publish},
};
use serde_json::json;

use crate::rig::{LONG, ONE, OTHER, RESULT, Rig, link, server};

/// For a module that is not in the settings, or that the link may not use.
const UNKNOWN_MODULE: &str = "wait/internal-server-error";

#[test]
fn each_name_has_its_own_modules_and_its_own_default() {
    let servers = [server(ONE), server(OTHER)];
    let mut rig = Rig::start(&[
        link("one", ONE, &servers[0]),
        merged(
            link("other", OTHER, &servers[1]),
            json!({ "modules": ["demo"], "defaultModule": "demo" }),
        ),
    ]);
    let mut links = servers.each_ref().map(|server| rig.accept(server));
    let mut verdict = |rig: &mut Rig, place: usize, module: Option<&str>| {
        let (component, link) = ([ONE, OTHER][place], &mut links[place]);
        let (id, _) = rig.publish(component);
        let token = format!("{:064x}", 7);
        link.send(ejabberd_publish(&id, &token, module, true).to(component));
        link.reply_to(&id, LONG).verdict()
    };
    for module in [None, Some("ios"), Some("default")] {
        assert_eq!(verdict(&mut rig, 0, module), RESULT);
    }
    assert_eq!(rig.apns.count(), 3);
    for module in [None, Some("demo"), Some("default")] {
        assert_eq!(verdict(&mut rig, 1, module), RESULT);
    }
    assert_eq!(verdict(&mut rig, 1, Some("ios")), UNKNOWN_MODULE);
    assert_eq!(
        verdict(&mut rig, 0, Some("demo")),
        RESULT,
        "all, where the settings say nothing"
    );
    assert_eq!(rig.apns.count(), 3);
    rig.daemon.wait_for_log(
        "a publish is for the push module ios, which its link may not use: add it to component[1].modules",
        LONG,
    );

    // A reload changes that without a new connection.
    rig.reload(&[
        merged(link("one", ONE, &servers[0]), json!({ "modules": ["demo"] })),
        link("other", OTHER, &servers[1]),
    ]);
    assert_eq!(
        verdict(&mut rig, 0, None),
        UNKNOWN_MODULE,
        "the default module may not be used"
    );
    assert_eq!(verdict(&mut rig, 0, Some("demo")), RESULT);
    assert_eq!(verdict(&mut rig, 1, None), RESULT);
    assert_eq!(rig.apns.count(), 4);
    rig.expect_metrics(&[
        "fpush_component_connects_total{link=\"one\"} == 1",
        "fpush_component_connects_total{link=\"other\"} == 1",
    ]);
}

#[test]
fn devices_register_for_the_modules_of_the_name_alone() {
    let folder = TempDir::new();
    let servers = [server(ONE), server(OTHER)];
    let demo_only = merged(link("other", OTHER, &servers[1]), json!({ "modules": ["demo"] }));
    let rig = Rig::with(json!({
        "component": [link("one", ONE, &servers[0]), demo_only],
        "registration": {
            "store": { "type": "sqlite", "path": folder.path().join("devices.db") },
            "types": { "apns": "ios", "demo": "demo" },
            "providers": { "tigase:messenger:apns:1": "ios", "fcm-xmpp-api": "demo" },
        },
    }));
    let [mut one, mut other] = servers.each_ref().map(|server| rig.accept(server));
    let token = format!("{:064x}", 7);
    let fields = [("type", "apns"), ("node", "n1"), ("token", &*token)];
    other.send(Command::new("refused", "v1-register-push", &fields).to(OTHER));
    let refused = other.reply_to("refused", LONG);
    assert_eq!(refused.verdict(), "modify/bad-request", "{}", refused.raw);
    assert!(
        refused
            .raw
            .contains("no push module is configured for this push type"),
        "{}",
        refused.raw
    );
    one.send(Command::new("taken", "v1-register-push", &fields).to(ONE));
    let secret = Form::of(&one.reply_to("taken", LONG)).value("secret").to_owned();
    one.send(metronome_publish("woken", "n1", Some(&secret)).to(ONE));
    assert_eq!(one.reply_to("woken", LONG).verdict(), RESULT);
    // Its module is not that of the other name, and nobody unregisters it for that.
    other.send(metronome_publish("not here", "n1", Some(&secret)).to(OTHER));
    assert_eq!(other.reply_to("not here", LONG).verdict(), UNKNOWN_MODULE);
    // Nor does it register or unregister it, whatever name it says.
    for (id, command, fields) in [
        (
            "replace",
            "v1-register-push",
            &[("type", "demo"), ("node", "n1"), ("token", &*token)][..],
        ),
        (
            "remove",
            "v1-unregister-push",
            &[("type", "apns"), ("node", "n1")],
        ),
    ] {
        other.send(Command::new(id, command, fields).to(OTHER));
        let refused = other.reply_to(id, LONG).verdict();
        assert!(
            ["auth/forbidden", "cancel/item-not-found"].contains(&&*refused),
            "{id}: {refused}"
        );
    }
    one.send(metronome_publish("still here", "n1", Some(&secret)).to(ONE));
    assert_eq!(one.reply_to("still here", LONG).verdict(), RESULT);
    for (link, name, apns) in [(&mut one, ONE, true), (&mut other, OTHER, false)] {
        link.send(format!(
            "<iq type='get' from='a.example' to='{name}' id='disco'>\
             <query xmlns='http://jabber.org/protocol/disco#info'/></iq>"
        ));
        let disco = link.reply_to("disco", LONG).raw;
        assert_eq!(disco.contains("tigase:messenger:apns:1"), apns, "{disco}");
        assert!(disco.contains("fcm-xmpp-api"), "{disco}");
    }
}
