//! Devices that registered.

use std::time::Duration;

use fpush_testkit::{
    Answer, Command, Form, Postgres,
    publish::{Publish, field, options},
};
use serde_json::json;

use crate::rig::{HELD, LONG, REFUSED, RESULT, Rig, token};

impl Rig {
    /// Registers a device. Returns its secret.
    fn register(&mut self, node: &str, token: &str) -> String {
        let fields = [("type", "apns"), ("node", node), ("token", token)];
        let command = Command::new(node, "v1-register-push", &fields)
            .from("alice@a.example/phone")
            .action("execute");
        self.link.send(command);
        let reply = self.link.reply_to(node, LONG);
        assert!(reply.is_result(), "{}", reply.raw);
        Form::of(&reply).value("secret").to_owned()
    }

    fn push_to_device(&mut self, id: &str, node: &str, secret: &str) -> String {
        let item = "<item><notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data' type='submit'>\
                    <field var='FORM_TYPE'><value>urn:xmpp:push:summary</value></field>\
                    <field var='last-message-body'><value>New message</value></field></x></notification></item>";
        let options = options("submit", &field("secret", secret));
        self.link.send(Publish::new(id, node, item, &options));
        self.link.reply_to(id, LONG).verdict()
    }
}

/// Between a crash and the next start a device may have registered anew, and what is held does not know that.
#[test]
fn what_was_held_never_ends_a_registration() {
    let registration = json!({
        "store": { "type": "sqlite", "path": "devices.db" }, "types": { "apns": "m" }, "rateLimit": "10min",
    });
    let mut rig = Rig::with(
        "10min",
        |settings| settings["registration"] = registration,
        |builder| builder,
    );
    let secret = rig.register("phone", &token(1));
    assert_eq!(rig.push_to_device("1", "phone", &secret), RESULT);
    assert_eq!(rig.push_to_device("2", "phone", &secret), RESULT);
    rig.wait_for(HELD, |text| text.contains(&token(1)));
    rig.daemon.kill();

    rig.start_again();
    rig.daemon.wait_for_log("held since before the start", LONG);
    rig.apns.queue([Answer::reason(410, "Unregistered")]);
    let last = rig.stop();
    assert_eq!(rig.sent(&token(1)), 2);
    assert!(
        last.contains("undelivered=0 kept=0"),
        "what the provider says against the token is not a loss: {last}"
    );

    rig.start_again();
    let verdict = rig.push_to_device("3", "phone", &secret);
    assert!(
        verdict == RESULT || verdict.starts_with("wait/"),
        "{verdict}: the device is still registered"
    );
    let secret = rig.register("phone", &token(2));
    assert_eq!(rig.push_to_device("4", "phone", &secret), RESULT);
    assert_eq!(rig.sent(&token(2)), 1);
}

/// Two accounts on one phone have a held push each, before a crash and after it.
#[test]
fn what_is_held_for_devices_with_one_token_is_held_for_each() {
    let registration = json!({
        "store": { "type": "sqlite", "path": "devices.db" }, "types": { "apns": "m" }, "rateLimit": "10min",
    });
    let mut rig = Rig::with(
        "10min",
        |settings| settings["registration"] = registration,
        |builder| builder,
    );
    let devices = ["first", "second"].map(|node| (node, rig.register(node, &token(1))));
    for (node, secret) in &devices {
        for id in ["1", "2"] {
            assert_eq!(rig.push_to_device(&format!("{node}-{id}"), node, secret), RESULT);
        }
    }
    assert_eq!(rig.apns.count(), 2);
    rig.wait_for(HELD, |text| text.matches(&token(1)).count() == 2);
    rig.daemon.kill();
    // The first version wrote no node, and the token in the case in which it was registered.
    rig.change_held("UPDATE held SET node = NULL, token = upper(token) WHERE node = 'first'");
    assert!(rig.read(HELD).contains(&token(1).to_uppercase()));
    rig.start_again();
    rig.daemon.wait_for_log("held since before the start", LONG);
    let (node, secret) = &devices[1];
    assert_eq!(
        rig.push_to_device("after", node, secret),
        REFUSED,
        "its push is held"
    );
    let last = rig.stop();
    assert!(last.contains("undelivered=0 kept=0"), "{last}");
    assert_eq!(rig.sent(&token(1)), 4);
    assert_eq!(rig.apns.count(), 4, "in one spelling");
}

/// Here for some 20 s, because everything that the database says takes its time.
#[test]
fn what_waits_is_written_while_a_reload_waits_for_a_database() {
    let server = Postgres::shared();
    let relay = server.relay();
    let url = server.through(&relay, &server.database());
    let mut rig = Rig::start("10min");
    relay.delay(Duration::from_millis(300));
    rig.change_settings(|settings| {
        settings["registration"] = json!({
            "store": { "type": "postgres", "url": url },
            "types": { "apns": "m" },
        });
    });
    rig.daemon.signal("HUP");
    rig.daemon.wait_for_log("reading the settings again", LONG);
    rig.hold(&token(1));
    rig.wait_for(HELD, |text| text.contains(&token(1)));
    let log = rig.daemon.log();
    assert!(
        !log.contains("settings reloaded") && !log.contains("reload rejected"),
        "{log}"
    );
    relay.delay(Duration::ZERO);
    rig.daemon.wait_for_log("settings reloaded", LONG);
}
