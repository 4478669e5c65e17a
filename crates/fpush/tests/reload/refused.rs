//! Settings with a mistake change nothing.

use std::{fs, net::TcpListener, time::SystemTime};

use fpush_testkit::fixture;
use serde_json::{Value, json};

use crate::rig::{OVERLOAD, RESULT, Rig, SECOND, World, apple, merged};

/// What must not be in force: a module that is right, another title, another format of the log, another place for the
/// metrics.
fn good(rig: &Rig) -> Value {
    let changes = json!({
        "pushModules": {
            "ios": { "apns": { "alertTitle": "New" } },
            "fresh": rig.world.apple(json!({})),
        },
        "logging": { "format": "json" },
        "monitoring": { "listen": "127.0.0.2:0" },
        "component": { "maxStanzaSize": 100_000 },
    });
    rig.conductor.changed(changes)
}

/// A daemon whose module has the title `Old`.
fn start() -> Rig {
    let world = World::new();
    let settings = world.settings(json!({ "ios": world.apple(json!({ "apns": { "alertTitle": "Old" } })) }));
    let identity = world.ca().client_cert("tls", SystemTime::now() + 3_600 * SECOND);
    let other_key = fs::read_to_string(fixture("other.key.pem")).unwrap();
    let files = [("tls.pem", &*identity.cert_pem), ("tls.key.pem", &*other_key)];
    world.start(settings, &files)
}

/// Tries files that hold all that is good and one of these mistakes, of which the log must say this, and then one
/// without a mistake.
fn expect_refusals(rig: &mut Rig, mistakes: &[(&str, String)]) {
    let monitoring = rig.conductor.monitoring();
    for (number, (word, text)) in mistakes.iter().enumerate() {
        let log = rig.conductor.refuse(text);
        let line = log.lines().find(|line| line.contains(word));
        assert!(
            line.is_some_and(|line| line.contains("ERROR")),
            "nothing of {word:?} in the log:\n{log}"
        );
        assert!(log.contains("reload rejected, keeping the old settings"), "{log}");
        assert!(!log.contains("\"message\""), "the format has changed:\n{log}");
        assert_eq!(rig.title("ios", &apple(number)), "Old", "{word}");
        assert_eq!(rig.push("fresh", &apple(number)), OVERLOAD, "{word}");
        let scrape = monitoring.scrape();
        assert_eq!(
            scrape.value("fpush_reloads_total", &[("result", "refused")]),
            Some(number as f64 + 1.0)
        );
        assert_eq!(scrape.value("fpush_component_connects_total", &[]), Some(1.0));
    }
    monitoring.wait_for_news();
    let scrape = monitoring.scrape();
    assert_eq!(scrape.value("fpush_last_reload_successful", &[]), Some(0.0));
    assert_eq!(scrape.value("fpush_component_up", &[]), Some(1.0));
    let now = rig.conductor.monitoring();
    assert_eq!(now.address(), monitoring.address(), "the metrics have not moved");

    let corrected = good(rig);
    rig.reload(corrected);
    rig.next_link();
    assert_eq!(rig.title("ios", &apple(100)), "New");
    assert_eq!(rig.push("fresh", &apple(101)), RESULT);
    let moved = rig.conductor.monitoring();
    assert_eq!(moved.address().ip().to_string(), "127.0.0.2");
    let log = rig.conductor.daemon.log();
    assert!(
        log.lines().any(|line| line.starts_with('{')),
        "the format:\n{log}"
    );
    moved.wait_for_news();
    let scrape = moved.scrape();
    assert_eq!(scrape.value("fpush_last_reload_successful", &[]), Some(1.0));
    assert_eq!(
        scrape.value("fpush_reloads_total", &[("result", "ok")]),
        Some(1.0)
    );
}

/// What `mistake` makes of settings that are right.
fn with(rig: &Rig, mistake: Value) -> String {
    merged(good(rig), mistake).to_string()
}

#[test]
fn a_mistake_in_the_settings_is_refused_as_a_whole_and_the_old_ones_go_on() {
    let mut rig = start();
    let ios = |apns: Value| json!({ "pushModules": { "ios": { "apns": apns } } });
    let broken = good(&rig).to_string();
    let mistakes = [
        (
            "pushModules.bad.type",
            with(&rig, json!({ "pushModules": { "bad": { "type": "appel" } } })),
        ),
        (
            "cannot read the file nothing.pem",
            with(&rig, ios(json!({ "certFilePath": "nothing.pem" }))),
        ),
        ("is not valid JSON", broken[..broken.len() - 1].to_owned()),
        (
            "the private key does not belong to the certificate",
            with(&rig, ios(json!({ "certKeyFilePath": fixture("other.key.pem") }))),
        ),
    ];
    expect_refusals(&mut rig, &mistakes);
}

/// What only shows when the settings are used.
#[test]
fn what_cannot_be_had_is_refused_as_a_whole_and_the_old_settings_go_on() {
    let mut rig = start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let tls = json!({ "certFilePath": "tls.pem", "keyFilePath": "tls.key.pem" });
    let registration = json!({
        "store": { "type": "sqlite", "path": "tls.pem/devices.db" }, "types": { "apns": "ios" },
    });
    let with_http = merged(
        registration.clone(),
        json!({ "store": { "path": "devices.db" }, "http": { "listen": listen } }),
    );
    let mistakes = [
        (
            "another program has this port",
            with(&rig, json!({ "monitoring": { "listen": listen } })),
        ),
        (
            "tls.pem and tls.key.pem cannot be used together",
            with(&rig, json!({ "monitoring": tls })),
        ),
        (
            "cannot open the database",
            with(&rig, json!({ "registration": registration })),
        ),
        (
            "another program has this port",
            with(&rig, json!({ "registration": with_http })),
        ),
    ];
    expect_refusals(&mut rig, &mistakes);
}
