//! `monitoring.senders`: who must not be seen.

use fpush_testkit::{
    Command, FakeXmpp, Form, TempDir,
    publish::{Publish, ejabberd_publish, field, options},
    run_to_end, until,
};
use serde_json::json;

use crate::{
    common,
    rig::{DEAD, DOMAIN, LONG, PROGRAM, RESULT, Rig},
};

/// Sends of all kinds that the log says something about: a push, a module that is not there, no module, a device too many.
fn send_all(rig: &mut Rig, name: &str) {
    let from = format!("juliet@{name}.example");
    let mut number = 0;
    let mut publish = |rig: &mut Rig, module: Option<&str>, token: &str| {
        number += 1;
        let id = format!("{name}-{number}");
        rig.link()
            .send(ejabberd_publish(&id, token, module, true).from(&from));
        rig.link().reply_to(&id, LONG).verdict()
    };
    assert_eq!(publish(rig, Some("m"), &format!("token-of-{name}")), RESULT);
    assert_ne!(publish(rig, Some("n"), "token"), RESULT);
    assert_ne!(publish(rig, Some(&"n".repeat(65)), "token"), RESULT);
    assert_ne!(publish(rig, None, "token"), RESULT);
    for node in 0..2 {
        let id = format!("{name}-node-{node}");
        let node = format!("node-{node}-of-{name}");
        let fields = [("type", "demo"), ("node", &node), ("token", "token")];
        rig.link()
            .send(Command::new(&id, "v1-register-push", &fields).from(&from));
        rig.link().reply_to(&id, LONG);
    }
}

fn start(senders: &str) -> Rig {
    Rig::with(
        json!({
            "pushModules": { "m": { "type": "demo" } },
            "registration": {
                "store": { "path": "devices.db" }, "types": { "demo": "m" }, "maxDevicesPerDomain": 1,
            },
            "monitoring": { "senders": senders },
        }),
        |builder| builder.rust_log("trace"),
    )
}

#[test]
fn no_domain_of_a_sender_is_kept_where_it_must_not_be() {
    let mut rig = start("off");
    send_all(&mut rig, "hidden");
    rig.monitoring.wait_for_news();
    for path in ["/metrics", "/status.json"] {
        let shown = rig.monitoring.get(path).body;
        assert!(!shown.contains("hidden.example"), "{path}:\n{shown}");
    }
    assert_eq!(rig.monitoring.status()["senders"], json!(null));
    let log = rig.daemon.log();
    assert!(!log.contains("hidden.example"), "{log}");

    // That it would have been found.
    let mut rig = start("top");
    send_all(&mut rig, "shown");
    rig.scrape_when(&["fpush_sender_publishes{domain=\"shown.example\"} == 4"]);
    assert_eq!(rig.monitoring.status()["senders"], json!([["shown.example", 4]]));
    let log = rig.daemon.log();
    for message in [
        ": publish publish=",
        "publish without a module",
        "names the push module n,",
        "names a push module of",
        "names no push module",
        "a new device was refused",
    ] {
        let mut lines = log.lines().filter(|line| line.contains(message));
        assert!(
            lines.any(|line| line.contains("shown.example")),
            "{message}:\n{log}"
        );
    }

    // A reload changes it, and what was counted before is forgotten.
    let mut reloads = 0;
    let mut reload = |rig: &Rig, senders: &str| {
        reloads += 1;
        rig.change_settings(json!({ "monitoring": { "senders": senders } }));
        rig.scrape_when(&[&format!("fpush_reloads_total{{result=\"ok\"}} == {reloads}")]);
        rig.monitoring.wait_for_news();
        rig.monitoring.status()["senders"].clone()
    };
    assert_eq!(reload(&rig, "off"), json!(null));
    assert_eq!(reload(&rig, "top"), json!([]));
}

#[test]
fn senders_can_be_hidden_without_a_listener() {
    let dir = TempDir::new();
    let xmpp = FakeXmpp::start(DOMAIN, common::SECRET);
    let mut settings = common::settings(&xmpp, &json!({ "m": { "type": "demo" } }));
    let mut check = |monitoring| {
        settings["monitoring"] = monitoring;
        let file = dir.write("settings.json", settings.to_string());
        let args = ["check".as_ref(), file.as_os_str()];
        let said = run_to_end(PROGRAM, args, dir.path());
        let out = String::from_utf8(said.stdout).unwrap() + &String::from_utf8(said.stderr).unwrap();
        (said.status.code(), out)
    };
    let (status, said) = check(json!({ "senders": "off" }));
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("domains of senders are in no metric"), "{said}");
    assert!(!said.contains("status page at"), "{said}");
    for (monitoring, problem) in [
        (json!({}), "monitoring.listen: "),
        (
            json!({ "senders": "off", "hostNames": [] }),
            "monitoring.listen: ",
        ),
        (json!({ "senders": "none" }), "monitoring.senders: "),
    ] {
        let (status, said) = check(monitoring);
        assert_eq!(status, Some(78), "{said}");
        assert!(said.contains(problem), "{said}");
    }
}

#[test]
fn ended_registrations_are_shown_by_domain_and_reason() {
    let mut rig = Rig::with(
        json!({
            "pushModules": { "m": { "type": "demo" } },
            "registration": { "store": { "path": "devices.db" }, "types": { "demo": "m" } },
        }),
        |builder| builder,
    );
    // It is not there before the database is open.
    until(LONG, "no registration has ended", || {
        rig.monitoring.status()["ended"] == json!({ "reasons": [], "domains": [] })
    });
    // So that the word about a token is believed.
    for verdict in rig.push_all((0..20).map(|number| format!("token-{number}"))) {
        assert_eq!(verdict, RESULT);
    }
    let register = |rig: &mut Rig, command: &str, domain: &str, token: &str| {
        let id = format!("{command}-{domain}-{token}");
        let node = format!("a node of {domain}");
        let fields = [("type", "demo"), ("node", &*node), ("token", token)];
        rig.link()
            .send(Command::new(&id, command, &fields).from(&format!("juliet@{domain}/balcony")));
        let reply = rig.link().reply_to(&id, LONG);
        assert!(reply.is_result(), "{}", reply.raw);
        reply
    };
    for domain in ["chat.one.org", "im.one.org", "two.org"] {
        register(&mut rig, "v1-register-push", domain, "token");
        register(&mut rig, "v1-unregister-push", domain, "token");
    }
    let reply = register(&mut rig, "v1-register-push", "two.org", "dead-token");
    let options = options("submit", &field("secret", Form::of(&reply).value("secret")));
    let item = "<item><notification xmlns='urn:xmpp:push:0'/></item>";
    rig.link()
        .send(Publish::new("dead", "a node of two.org", item, &options));
    assert_eq!(rig.link().reply_to("dead", LONG).verdict(), DEAD);
    rig.scrape_when(&[
        "fpush_registrations_ended_total{reason=\"unregistered\"} == 3",
        "fpush_registrations_ended_total{reason=\"dead\"} == 1",
        "fpush_domain_registrations_ended{domain=\"one.org\",reason=\"unregistered\"} == 2",
        "fpush_domain_registrations_ended{domain=\"two.org\",reason=\"unregistered\"} == 1",
        "fpush_domain_registrations_ended{domain=\"two.org\",reason=\"dead\"} == 1",
    ]);
    let reasons = json!([["dead", 1], ["unregistered", 3]]);
    let domains = json!([
        ["one.org", "unregistered", 2],
        ["two.org", "dead", 1],
        ["two.org", "unregistered", 1]
    ]);
    assert_eq!(
        rig.monitoring.status()["ended"],
        json!({ "reasons": reasons, "domains": domains })
    );
    rig.change_settings(json!({ "monitoring": { "senders": "off" } }));
    rig.scrape_when(&[
        "fpush_domain_registrations_ended absent",
        "fpush_registrations_ended_total{reason=\"dead\"} == 1",
    ]);
    assert_eq!(
        rig.monitoring.status()["ended"],
        json!({ "reasons": reasons, "domains": null })
    );
}
