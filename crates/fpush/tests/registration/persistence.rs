//! What is left after a restart, after a crash, and while the disk is in trouble.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    process,
    sync::{Arc, Mutex},
    thread,
};

use fpush_testkit::{Command, Form, Reply};
use serde_json::json;

use crate::{
    bounds::Locked,
    rig::{ALICE, LONG, MISSING, PROGRAM, RESULT, Rig, TROUBLE, apple, google, try_http},
};

#[test]
fn a_restart_keeps_all_devices() {
    let mut rig = Rig::start();
    rig.remember();
    let secret = rig.register(ALICE, "n", &apple(1));
    let fields = [("token", google(1)), ("device-id", "d".to_owned())];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    let p2 = rig.form(ALICE, "register-push-fcm", &fields);
    let tigase = [
        ("provider", "tigase:messenger:apns:1"),
        ("device-token", &apple(2)),
    ];
    let node = rig
        .form(ALICE, "register-device", &tigase)
        .value("node")
        .to_owned();
    let over_http = rig
        .post("register", &format!("type=apns&node=h&token={}", apple(3)))
        .remove(2);
    let gone = rig.register(ALICE, "gone", &apple(4));
    rig.form(ALICE, "v1-unregister-push", &[("type", "apns"), ("node", "gone")]);
    for kill in [false, true] {
        if kill {
            rig.daemon.kill();
        } else {
            rig.stop();
        }
        rig.start_again();
        rig.expect_apple("n", Some(&secret), "org.example.ios", &apple(1));
        rig.expect_google(p2.value("node"), Some(p2.value("secret")), &google(1));
        rig.expect_apple(&node, None, "org.example.siskin", &apple(2));
        rig.expect_apple("h", Some(&over_http), "org.example.ios", &apple(3));
        assert_eq!(rig.push("gone", &gone), MISSING);
        // The nodes that the server makes stay the same, too.
        assert_eq!(
            rig.form(ALICE, "register-push-fcm", &fields).value("node"),
            p2.value("node")
        );
        assert_eq!(rig.form(ALICE, "register-device", &tigase).value("node"), node);
    }
    for file in fs::read_dir(rig.daemon.dir()).unwrap().map(Result::unwrap) {
        if file.file_name().to_string_lossy().starts_with("devices.db") {
            assert_eq!(
                file.metadata().unwrap().permissions().mode() & 0o077,
                0,
                "{file:?}"
            );
        }
    }
}

#[test]
fn a_crash_loses_nothing_that_was_acknowledged() {
    let mut rig = Rig::with(json!({ "maxPerOwner": 10_000 }));
    let address = rig.http_address();
    let acknowledged: Arc<Mutex<HashMap<String, String>>> = Arc::default();
    let clients: Vec<_> = (0..2)
        .map(|client| {
            let acknowledged = Arc::clone(&acknowledged);
            thread::spawn(move || {
                for number in 0.. {
                    let node = format!("http-{client}-{number}");
                    let form = format!("type=fcm&node={node}&token={}", google(number));
                    // The program ends in the midst of one of them.
                    let Ok(answer) = try_http(address, "POST /push_appserver/v1/register", &form) else {
                        break;
                    };
                    let lines: Vec<_> = answer.body.split('\n').collect();
                    let ["OK", node, secret] = lines[..] else { break };
                    acknowledged
                        .lock()
                        .unwrap()
                        .insert(node.to_owned(), secret.to_owned());
                }
            })
        })
        .collect();
    let take = |reply: &Reply| {
        let form = Form::of(reply);
        let (node, secret) = (form.value("node").to_owned(), form.value("secret").to_owned());
        acknowledged.lock().unwrap().insert(node, secret);
    };
    // Always so many under way, and the program dies while they are.
    let (under_way, enough) = (16, 200);
    for number in 0..enough + under_way {
        let (node, from, token) = (
            format!("xmpp-{number}"),
            format!("user{}@a.example/x", number / 4),
            apple(number),
        );
        let fields = [
            ("type", "apns"),
            ("node", node.as_str()),
            ("token", token.as_str()),
        ];
        rig.link
            .send(Command::new(&node, "v1-register-push", &fields).from(&from));
        if let Some(due) = number.checked_sub(under_way) {
            take(&rig.link.reply_to(&format!("xmpp-{due}"), LONG));
        }
    }
    rig.daemon.kill();
    rig.link.expect_end(LONG);
    for raw in rig.link.pending() {
        take(&Reply::parse(&raw));
    }
    for client in clients {
        client.join().unwrap();
    }
    rig.start_again();
    let acknowledged = acknowledged.lock().unwrap();
    let of_http = acknowledged
        .keys()
        .filter(|node| node.starts_with("http"))
        .count();
    assert!(
        acknowledged.len() - of_http >= enough && of_http > 0,
        "{} {of_http}",
        acknowledged.len()
    );
    let stored: HashMap<_, _> = rig
        .export()
        .iter()
        .map(|device| ["node", "secret"].map(|key| device[key].as_str().unwrap().to_owned()))
        .map(|[node, secret]| (node, secret))
        .collect();
    for (node, secret) in acknowledged.iter() {
        assert_eq!(stored.get(node), Some(secret), "{node} was acknowledged");
    }
    for (node, secret) in acknowledged.iter().step_by(20) {
        assert_eq!(rig.push(node, secret), RESULT, "{node}");
    }
}

/// A first start is not an alarm, and the log says what is.
#[test]
fn an_empty_database_is_not_an_alarm_at_the_first_start() {
    let mut rig = Rig::start();
    let line = rig.daemon.wait_for_log("no device has registered yet", LONG);
    assert!(line.contains(" INFO "), "{line}");
    rig.register(ALICE, "n", &apple(1));
    rig.daemon.kill();
    rig.start_again();
    let log = rig.daemon.log();
    assert!(!log.contains("no device has registered yet"), "{log}");
}

/// A disk that takes nothing any more, made with the limit of the size of files: every write to the database fails.
#[test]
fn while_the_disk_is_in_trouble_nothing_is_registered_and_pushes_go_on() {
    // A write beyond the limit is an error only for who does not want to die of it.
    let ignoring = format!("trap '' XFSZ; exec {PROGRAM} settings.json");
    let mut rig = Rig::run(json!({}), json!({}), |builder| {
        builder
            .file("run.sh", &ignoring)
            .program("/bin/sh")
            .args(["run.sh"])
    });
    let limit = |rig: &Rig, limit: &str| {
        let status = process::Command::new("prlimit")
            .args([format!("--pid={}", rig.daemon.pid()), format!("--fsize={limit}")])
            .status()
            .expect("this test needs prlimit, of util-linux");
        assert!(status.success());
    };
    let secret = rig.register(ALICE, "n", &apple(1));
    limit(&rig, "0:unlimited");
    let fields = [("type", "apns"), ("node", "m"), ("token", &apple(2))];
    rig.link.send(Command::new("new", "v1-register-push", &fields));
    rig.link.send(Command::new(
        "renewal",
        "v1-register-push",
        &[fields[0], ("node", "n"), fields[2]],
    ));
    rig.link.send(Command::new(
        "end",
        "v1-unregister-push",
        &[fields[0], ("node", "n")],
    ));
    let form = format!("type=apns&node=h&token={}", apple(3));
    assert_eq!(
        rig.post("register", &form),
        ["ERROR", "Internal server error, try again later!"]
    );
    for id in ["new", "renewal", "end"] {
        assert_eq!(rig.link.reply_to(id, LONG).verdict(), TROUBLE, "{id}");
    }
    // All as it was.
    rig.expect_apple("n", Some(&secret), "org.example.ios", &apple(1));
    assert_eq!(rig.push("n", "wrong"), TROUBLE);
    assert_eq!(rig.push("m", "any"), TROUBLE);
    rig.daemon
        .wait_for_log("the database of registered devices cannot be used", LONG);
    limit(&rig, "unlimited:unlimited");
    let reply = rig.execute(ALICE, "v1-register-push", &fields);
    assert!(reply.is_result(), "{}\n{}", reply.raw, rig.daemon.log());
    let late = Form::of(&reply).value("secret").to_owned();
    rig.expect_apple("m", Some(&late), "org.example.ios", &apple(2));
    rig.daemon.kill();
    rig.start_again();
    rig.expect_apple("n", Some(&secret), "org.example.ios", &apple(1));
    rig.expect_apple("m", Some(&late), "org.example.ios", &apple(2));
    let devices = rig.export();
    assert_eq!(devices.len(), 2, "what was refused came to nothing: {devices:?}");
    assert!(
        devices.iter().all(|device| device["renewed"].is_null()),
        "{devices:?}"
    );
}

#[test]
fn a_database_that_cannot_be_made_keeps_the_daemon_from_starting() {
    let mut rig = Rig::start();
    rig.stop();
    fs::write(
        rig.path("text.db"),
        "this is not a database, but long enough to look like one. ".repeat(40),
    )
    .unwrap();
    for (path, problem) in [
        (
            "/proc/nothing/devices.db",
            "cannot open the database /proc/nothing/devices.db",
        ),
        ("text.db", "not a database"),
        (".", "cannot open the database ."),
    ] {
        rig.change_settings(json!({ "store": { "path": path } }));
        rig.daemon.start_again();
        let status = rig.daemon.wait(LONG);
        assert_eq!(status.code(), Some(71), "{path}: {}", rig.daemon.log());
        assert!(rig.daemon.log().contains(problem), "{path}: {}", rig.daemon.log());
    }
}

#[test]
fn devices_of_a_type_that_the_settings_have_lost_are_kept_waiting() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "n", &apple(1));
    let tigase = [("provider", "fcm-xmpp-api"), ("device-token", &google(1))];
    let node = rig
        .form(ALICE, "register-device", &tigase)
        .value("node")
        .to_owned();
    rig.stop();
    rig.change_settings(json!({ "types": { "apns": null }, "providers": { "fcm-xmpp-api": null } }));
    rig.start_again();
    assert_eq!(rig.push("n", &secret), TROUBLE, "the device lives");
    assert_eq!(rig.push("n", "wrong"), TROUBLE);
    assert_eq!(rig.push_plain(&node), TROUBLE);
    let answer = rig.post("push", &format!("node=n&secret={secret}"));
    assert_eq!(answer, ["ERROR", "Internal error in push handler"]);
    rig.stop();
    rig.change_settings(json!({ "types": { "apns": "plain" }, "providers": { "fcm-xmpp-api": "android" } }));
    rig.start_again();
    rig.expect_apple("n", Some(&secret), "org.example.plain", &apple(1));
    rig.expect_google(&node, None, &google(1));
}

/// A backup or a person has it locked: what can be read is, and nobody is unregistered.
#[test]
fn a_database_that_is_locked_at_the_start_is_waited_for() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "n", &apple(1));
    rig.stop();
    let lock = Locked::new(&rig.path("devices.db"));
    rig.start_again();
    let line = rig
        .daemon
        .wait_for_log("the database of registered devices cannot be used", LONG);
    assert!(line.contains("another program has had"), "{line}");
    // It may be read.
    rig.expect_apple("n", Some(&secret), "org.example.ios", &apple(1));
    let register = [("type", "apns"), ("node", "m"), ("token", &apple(3))];
    let reply = rig.execute(ALICE, "v1-register-push", &register);
    assert_eq!(reply.verdict(), TROUBLE);
    let plain = rig.publish(&apple(2), None, Some("ios"));
    assert_eq!(plain.verdict(), RESULT, "this token is not registered");
    lock.release();
    rig.daemon
        .wait_for_log("the database of registered devices can be used again", LONG);
    rig.register(ALICE, "m", &apple(3));
}
