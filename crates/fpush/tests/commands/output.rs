//! Output that nobody reads, or that cannot be written.

use std::{
    fs::File,
    io::{Read as _, pipe},
    process::{Command, Stdio},
};

use fpush_testkit::Daemon;
use serde_json::{Value, json};

use crate::rig::{CONFIG, LONG, NO, OS_ERROR, PROGRAM, Place, RESULT, apple};

/// The status that shells show for a program that `SIGPIPE` ended.
const CLOSED_PIPE: i32 = 141;

const SEND: [&str; 6] = ["send", "--module", "ios", "--token", "-", "settings.json"];

/// Every command that writes something.
const COMMANDS: [&[&str]; 16] = [
    &["--help"],
    &["--version"],
    &["check", "--help"],
    &["check", "settings.json"],
    &["check", "--json", "settings.json"],
    &["check", "--connect", "settings.json"],
    &["check", "--show-payloads", "settings.json"],
    &["completions", "bash"],
    &["devices", "accept", "settings.json"],
    &["devices", "list", "settings.json"],
    &["devices", "show", "n1", "settings.json"],
    &["export", "settings.json"],
    &["import", "json", "devices.jsonl", "settings.json"],
    &["reload", "settings.json"],
    &["schema"],
    &["token", "--node", "n1", "settings.json"],
];

/// A pipe whose reader has gone.
fn closed() -> Stdio {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer.into()
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// Runs it with these streams. Returns its exit status, and what it wrote to those that were piped.
#[track_caller]
fn run(place: &Place, args: &[&str], out: Stdio, err: Stdio) -> (Option<i32>, String) {
    let token = place.write("token", &apple(1));
    let output = Command::new(PROGRAM)
        .args(args)
        .current_dir(place.dir.path())
        .stdin(File::open(token).unwrap())
        .stdout(out)
        .stderr(err)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text)
}

/// A place with a device in its registry.
fn place() -> Place {
    let place = Place::new();
    place.set(|settings| {
        settings["registration"] = json!({
            "store": { "type": "sqlite", "path": place.dir.path().join("devices.db") },
            "types": { "apns": "ios" },
        });
    });
    let device = json!({ "dialect": "p2", "node": "n1", "secret": "s1", "type": "apns", "token": apple(1), "registered": "2026-01-01T00:00:00Z" });
    place.write("devices.jsonl", &format!("{device}\n"));
    let said = place.fpush(&["import", "json", "devices.jsonl"]);
    said.expect(0, &["1 devices added"]);
    place
}

#[test]
fn a_closed_pipe_ends_every_command_quietly() {
    let place = place();
    let _running = place.start();
    for args in COMMANDS.into_iter().chain([&SEND[..]]) {
        let (status, said) = run(&place, args, closed(), Stdio::piped());
        assert_eq!((status, said.as_str()), (Some(CLOSED_PIPE), ""), "{args:?}");
    }
    assert!(place.apns.count() > 0, "what was to be sent was sent");
}

#[test]
fn a_full_disk_is_an_error_of_every_command() {
    let place = place();
    let _running = place.start();
    for args in COMMANDS.into_iter().chain([&SEND[..]]) {
        let (status, said) = run(&place, args, full(), Stdio::piped());
        let error = "error: cannot write to standard output: No space left on device (os error 28)\n";
        assert_eq!((status, said.as_str()), (Some(OS_ERROR), error), "{args:?}");
    }
}

/// What changes something has done so; what found something wrong says that, because it is more.
#[test]
fn what_was_found_counts_more_than_who_reads_it() {
    let place = place();
    let args = ["devices", "remove", "n1", "settings.json"];
    let (status, said) = run(&place, &args, closed(), Stdio::piped());
    assert_eq!((status, said.as_str()), (Some(CLOSED_PIPE), ""));
    place.fpush(&["devices", "show", "n1"]).expect(NO, &[]);

    for stream in [closed, full] {
        place.set(|settings| settings["pushModules"] = json!({}));
        let (status, said) = run(&place, &["check", "settings.json"], Stdio::piped(), stream());
        assert_eq!((status, said.as_str()), (Some(CONFIG), ""));
        let (status, _) = run(&place, &["chek"], Stdio::piped(), stream());
        assert_eq!(status, Some(2));
        // A warning that nobody can have read.
        place.set(|settings| settings["timeout"]["xmppconnectionError"] = json!("1ms"));
        let (status, said) = run(&place, &["check", "settings.json"], Stdio::piped(), stream());
        assert_ne!(status, Some(0));
        assert!(said.contains("module ios"), "{said}");
    }
}

#[test]
fn a_log_that_cannot_be_written_stops_no_daemon() {
    for err in ["2>/dev/full", "> >(true) 2>&1"] {
        let place = Place::new();
        // The shell becomes the program, so that it ends with the test.
        let daemon = Daemon::builder("/bin/bash")
            .args([
                "-c",
                &format!("exec \"$0\" \"$1\" {err}"),
                PROGRAM,
                place.settings().to_str().unwrap(),
            ])
            .rust_log("trace")
            .start();
        let mut link = place.accept(&daemon);
        link.send(fpush_testkit::publish::ejabberd_publish(
            "id-1",
            &apple(1),
            Some("ios"),
            true,
        ));
        assert_eq!(link.reply_to("id-1", LONG).verdict(), RESULT);
    }
}

#[test]
fn scripts_get_json() {
    let place = place();
    let running = place.start();
    let json = |said: &crate::rig::Said| serde_json::from_str::<Value>(&said.out).unwrap();

    let said = place.fpush(&["check", "--json"]);
    said.expect(0, &[]);
    assert_eq!(said.err, "");
    let checked = json(&said);
    assert_eq!(checked["ok"], true);
    assert_eq!(checked["problems"], json!([]));
    assert_eq!(checked["settings"], place.settings().to_str().unwrap());
    let module = &checked["start"][2];
    assert_eq!(module["what"], "module ios (apple)");
    assert!(
        module["facts"]
            .as_array()
            .unwrap()
            .contains(&json!({ "name": "topic", "value": "org.example.app" })),
        "{module}"
    );

    let said = place.fpush(&["check", "--json", "--connect"]);
    let checked = json(&said);
    assert_eq!(checked["ok"], said.status == Some(0));
    assert_eq!(checked["connect"]["asked"], place.socket().to_str().unwrap());
    let findings = &checked["connect"]["findings"];
    assert_eq!(
        findings[0],
        json!({ "message": "component push.localhost: the XMPP server accepted the login" })
    );

    let said = place.fpush(&["send", "--json", "--module", "ios", "--token", &apple(1)]);
    said.expect(0, &[]);
    let sent = json(&said);
    assert_eq!(
        (&sent["ok"], &sent["asked"]),
        (&json!(true), &json!(place.socket()))
    );
    assert!(
        sent["findings"][0]["meaning"]
            .as_str()
            .unwrap()
            .starts_with("The provider has it."),
        "{sent}"
    );
    let said = place.fpush(&["send", "--json", "--module", "io", "--token", &apple(1)]);
    assert_eq!((said.status, json(&said)["ok"].clone()), (Some(NO), json!(false)));

    let device = json!({
        "node": "n1", "dialect": "p2", "type": "apns", "owner": null, "registered": "2026-01-01T00:00:00Z",
        "renewed": null, "last_successful_push": null, "last_push_error": null,
    });
    let said = place.fpush(&["devices", "list", "--json"]);
    assert_eq!(json(&said), device);
    let said = place.fpush(&["devices", "show", "--json", "n1"]);
    assert_eq!(json(&said), device);
    assert!(!said.out.contains(&apple(1)) && !said.out.contains("s1"));
    let said = place.fpush(&["devices", "remove", "--json", "n1"]);
    assert_eq!(json(&said), json!({ "removed": "n1" }));
    let missing = "no device is registered under this node";
    let no = |why: &str| json!({ "ok": false, "findings": [{ "message": why }] });
    for command in ["show", "remove"] {
        let said = place.fpush(&["devices", command, "--json", "n1"]);
        assert_eq!(
            (said.status, json(&said), &*said.err),
            (Some(NO), no(missing), "")
        );
    }
    running.stop();
    for args in [&["reload", "--json"][..], &["token", "--json", "--node", "n1"]] {
        let said = place.fpush(args);
        assert_eq!((said.status, &json(&said)["ok"]), (Some(NO), &json!(false)));
        assert!(
            said.err.contains("no fpush runs with these settings"),
            "{}",
            said.err
        );
    }
    place.set(|settings| settings["registration"] = Value::Null);
    let said = place.fpush(&["devices", "list", "--json"]);
    assert_eq!((said.status, &json(&said)["ok"]), (Some(CONFIG), &json!(false)));
    place.set(|settings| settings["registration"] = json!({ "store": { "type": "sqlit" } }));
    let said = place.fpush(&["devices", "list", "--json"]);
    assert_eq!((said.status, said.err.as_str()), (Some(CONFIG), ""));
    assert_eq!(json(&said)["problems"][0]["key"], "registration.store.type");

    place.set(|settings| settings["pushModules"]["ios"]["apns"]["topik"] = json!("x"));
    let said = place.fpush(&["check", "--json"]);
    assert_eq!((said.status, said.err.as_str()), (Some(CONFIG), ""));
    let checked = json(&said);
    assert_eq!(checked["ok"], false);
    assert_eq!(
        checked["problems"],
        json!([{
            "severity": "unknownKey", "key": "pushModules.ios.apns.topik",
            "message": "this key is not known; \"topic\" is there already",
        }]),
    );
    place.set(|settings| settings["component"]["serverPort"] = json!(0));
    let said = place.fpush(&["send", "--json", "--module", "ios", "--token", &apple(1)]);
    assert_eq!((said.status, said.err.as_str()), (Some(CONFIG), ""));
    assert_eq!(json(&said)["problems"][0]["key"], "component.serverPort");
}

#[test]
fn a_pipe_that_is_read_to_the_middle_ends_a_long_output() {
    let place = place();
    let devices: String = (0..20_000)
        .map(|n| json!({ "dialect": "p2", "node": format!("m{n}"), "secret": "s1", "type": "apns", "token": apple(n), "registered": "2026-01-01T00:00:00Z" }).to_string() + "\n")
        .collect();
    place.write("more.jsonl", &devices);
    place
        .fpush(&["import", "json", "more.jsonl"])
        .expect(0, &["20000 devices added"]);
    let mut child = Command::new(PROGRAM)
        .args(["export", "settings.json"])
        .current_dir(place.dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 100]).unwrap();
    drop(out);
    assert_eq!(child.wait().unwrap().code(), Some(CLOSED_PIPE));
}
