//! The database of registered devices, as its operator sees it.

use std::process;

use fpush_testkit::{
    Command, Form, Monitoring, Postgres,
    publish::{Publish, field, options},
    run_to_end,
};
use serde_json::{Value, json};

use crate::rig::{GREEN, LONG, PROGRAM, RESULT, Rig, Sight};

const TROUBLE: &str = "wait/internal-server-error";
const GONE: &str = "cancel/item-not-found";

fn settings() -> Value {
    json!({
        "pushModules": { "m": { "type": "demo" } },
        "registration": {
            "store": { "type": "sqlite", "path": "devices.db" }, "types": { "apns": "m" }, "rateLimit": "1ms",
        },
        "stateDirectory": "state",
    })
}

/// The database is believed, and has devices.
const TRUSTED: Sight<'_> = Sight {
    metrics: &[
        "fpush_registry_trusted == 1",
        "fpush_registered_devices > 0",
        "fpush_module_up{module=\"m\"} == 1",
    ],
    ..GREEN
};

/// Asks for something of a node, and returns the reply.
#[track_caller]
fn command(rig: &mut Rig, command: &str, node: &str) -> fpush_testkit::Reply {
    let fields = [("type", "apns"), ("node", node), ("token", "alive")];
    let id = format!("{command}-{node}");
    rig.link().send(Command::new(&id, command, &fields));
    let reply = rig.link().reply_to(&id, LONG);
    assert!(reply.is_result(), "{}", reply.raw);
    reply
}

/// Registers a device, and returns its secret.
#[track_caller]
fn register(rig: &mut Rig, node: &str) -> String {
    let reply = command(rig, "v1-register-push", node);
    Form::of(&reply).value("secret").to_owned()
}

#[track_caller]
fn push(rig: &mut Rig, node: &str, secret: &str) -> String {
    let item = "<item><notification xmlns='urn:xmpp:push:0'/></item>";
    let options = options("submit", &field("secret", secret));
    rig.link().send(Publish::new("push", node, item, &options));
    rig.link().reply_to("push", LONG).verdict()
}

#[track_caller]
fn operate(rig: &Rig, arguments: &[&str]) {
    let output = run_to_end(PROGRAM, arguments, rig.daemon.dir());
    assert!(output.status.success(), "{output:?}");
}

/// Before that nobody can tell whether it is the right one: it may be a misspelt path.
#[test]
fn it_is_amber_until_the_first_device_has_registered() {
    let mut rig = Rig::with(settings(), |builder| builder);
    rig.expect(Sight {
        page: &[(
            "warning",
            "registered devices",
            &["no device has registered yet", "correct registration.store"],
        )],
        metrics: &["fpush_registry_trusted == 1", "fpush_registered_devices == 0"],
        log: &[("INFO", "no device has registered yet")],
        // Pushes for those that did not register go out.
        unready: &[],
    });
    assert_eq!(push(&mut rig, "of a device", "secret"), TROUBLE);
    let secret = register(&mut rig, "n");
    rig.expect(TRUSTED);

    rig.daemon.kill();
    rig.daemon.start_again();
    rig.monitoring = Monitoring::of(&rig.daemon, LONG);
    rig.accept();
    rig.expect(TRUSTED);
    assert_eq!(push(&mut rig, "n", &secret), RESULT);
    // That nobody is left is not the same.
    command(&mut rig, "v1-unregister-push", "n");
    rig.expect(Sight {
        metrics: &["fpush_registry_trusted == 1", "fpush_registered_devices == 0"],
        ..GREEN
    });
    assert_eq!(push(&mut rig, "n", &secret), GONE);
}

/// Whether the server is away or refuses the password.
#[test]
fn a_database_that_cannot_be_used_is_red_until_it_can() {
    let server = Postgres::start_new();
    let url = server.database();
    server.stop();
    let mut settings = settings();
    settings["registration"]["store"] = json!({ "type": "postgres", "url": url });
    let mut rig = Rig::with(settings, |builder| builder);
    let seen = Sight {
        page: &[(
            "error",
            "registered devices",
            &["the database cannot be used: ", "are answered wait"],
        )],
        metrics: &["fpush_registry_up == 0", "fpush_registry_trusted == 1"],
        log: &[("ERROR", "the database of registered devices cannot be used")],
        unready: &[],
    };
    rig.expect(seen);
    assert_eq!(push(&mut rig, "of a device", "secret"), TROUBLE);
    server.start();
    rig.daemon
        .wait_for_log("the database of registered devices can be used again", LONG);
    register(&mut rig, "n");
    let good = Sight {
        metrics: &["fpush_registry_up == 1"],
        ..GREEN
    };
    rig.expect(good);
    // Nobody asks for anything meanwhile.
    server.stop();
    rig.daemon
        .wait_for_nth_log("the database of registered devices cannot be used", 2, LONG);
    rig.expect(seen);
}

/// New settings with another database are taken, because that may be meant; it is believed when the operator says so.
#[test]
fn a_reload_onto_a_database_that_is_not_what_it_was_is_red() {
    let mut rig = Rig::with(settings(), |builder| builder);
    let lives = register(&mut rig, "lives");
    let ended = register(&mut rig, "ended");
    // One of another service, and a backup of this one.
    let mut elsewhere = settings();
    elsewhere["component"] = json!({
        "componentHostname": "push.localhost", "componentKey": "secret", "serverHostname": "localhost", "serverPort": 1,
    });
    elsewhere["registration"]["store"]["path"] = json!("other.db");
    std::fs::write(rig.path("elsewhere.json"), elsewhere.to_string()).unwrap();
    let device = json!({
        "dialect": "mod_push_appserver", "type": "apns", "node": "theirs", "secret": "their secret", "token": "alive",
        "owner": "bob@a.example", "registered": "2026-01-01T00:00:00Z",
    });
    std::fs::write(rig.path("devices.jsonl"), device.to_string()).unwrap();
    operate(&rig, &["import", "json", "devices.jsonl", "elsewhere.json"]);
    let backup = process::Command::new("sqlite3")
        .arg(rig.path("devices.db"))
        .arg(format!(".backup {}", rig.path("backup.db").display()))
        .status();
    assert!(backup.unwrap().success());
    command(&mut rig, "v1-unregister-push", "ended");
    assert_eq!(push(&mut rig, "ended", &ended), GONE);
    rig.expect(TRUSTED);

    let mut reloads = 0;
    let mut reload = |rig: &Rig, path: &str| {
        rig.change_settings(json!({ "registration": { "store": { "path": path } } }));
        reloads += 1;
        rig.daemon.wait_for_nth_log("settings reloaded", reloads, LONG);
    };
    for (path, node, secret, words) in [
        ("other.db", "theirs", "their secret", "this is another database"),
        ("backup.db", "lives", &*lives, "does not know what it knew before"),
    ] {
        reload(&rig, path);
        rig.expect(Sight {
            page: &[("error", "registered devices", &[words, "fpush devices accept"])],
            metrics: &["fpush_registry_trusted == 0", "fpush_registered_devices > 0"],
            log: &[("ERROR", words)],
            unready: &[],
        });
        assert_eq!(push(&mut rig, node, secret), RESULT);
        command(&mut rig, "v1-register-push", "of the meantime");
        command(&mut rig, "v1-unregister-push", "of the meantime");
        for node in ["ended", "of the meantime", "nobody"] {
            assert_ne!(push(&mut rig, node, &ended), GONE, "{path}: {node}");
        }
        // The right one needs nobody's word.
        reload(&rig, "devices.db");
        rig.expect(TRUSTED);
        assert_eq!(push(&mut rig, "lives", &lives), RESULT);
        assert_eq!(push(&mut rig, "ended", &ended), GONE);
    }

    reload(&rig, "backup.db");
    rig.daemon
        .wait_for_nth_log("does not know what it knew before", 2, LONG);
    operate(&rig, &["devices", "accept", "settings.json"]);
    rig.expect(Sight {
        log: &[("INFO", "is believed again")],
        ..TRUSTED
    });
    // It does not know what came after the backup.
    for node in ["ended", "of the meantime"] {
        assert_eq!(push(&mut rig, node, "any"), TROUBLE, "{node}");
    }
    command(&mut rig, "v1-register-push", "ended");
    command(&mut rig, "v1-unregister-push", "ended");
    assert_eq!(push(&mut rig, "ended", "any"), GONE);
}
