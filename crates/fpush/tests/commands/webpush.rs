//! Keys for Web Push, and what the commands say of a Web Push module.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use fpush_testkit::{Answer, Daemon, FakePush, FakeXmpp, TempDir, TestCa, run_to_end};
use serde_json::json;

use crate::rig::{ASKED, CONFIG, LONG, NO, OS_ERROR, PROGRAM, Said};

fn run(dir: &TempDir, args: &[&str]) -> Said {
    Said::of(run_to_end(PROGRAM, args.iter().copied(), dir.path()))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Settings with a Web Push module for the fake, and a new key.
fn settings(dir: &TempDir, xmpp: &FakeXmpp, push: &FakePush, ca: &TestCa) -> serde_json::Value {
    dir.write("ca.pem", ca.pem());
    let key = dir.path().join("vapid.key");
    run(dir, &["vapid", "new", key.to_str().unwrap()]).expect(0, &[]);
    json!({
        "component": {
            "componentHostname": "push.localhost", "componentKey": "secret", "serverHostname": "127.0.0.1",
            "serverPort": xmpp.port(),
        },
        "runtimeDirectory": dir.path().join("run"),
        "pushModules": { "web": { "type": "webpush", "webpush": {
            "vapidKeyFilePath": key, "subject": "mailto:push@example.org", "caFilePath": dir.path().join("ca.pem"),
            "allowedEndpoints": ["127.0.0.1"], "allowedNetworks": ["127.0.0.1"],
            "allowedPorts": [push.address().port()],
        } } },
    })
}

#[test]
fn a_new_key_is_written_once_and_for_its_owner_only() {
    let dir = TempDir::new();
    let said = run(&dir, &["vapid", "new", "vapid.key"]);
    said.expect(0, &[]);
    let (public, path) = (said.out.trim().to_owned(), dir.path().join("vapid.key"));
    assert_eq!((public.len(), mode(&path)), (87, 0o600));
    let pem = fs::read_to_string(&path).unwrap();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert!(said.err.contains("vapid.key") && said.err.contains("vapidKeyFilePath"));
    assert!(!said.err.contains(&pem[40..80]));

    let again = run(&dir, &["vapid", "new", "vapid.key"]);
    assert_eq!((again.status, again.out.as_str()), (Some(NO), ""));
    assert!(again.err.contains("is there already"), "{}", again.err);
    assert_eq!(fs::read_to_string(&path).unwrap(), pem);

    let nowhere = run(&dir, &["vapid", "new", "no/such/folder"]);
    assert_eq!((nowhere.status, nowhere.out.as_str()), (Some(OS_ERROR), ""));
}

#[test]
fn the_check_shows_the_public_key_and_says_what_is_wrong() {
    let dir = TempDir::new();
    let (ca, xmpp) = (TestCa::new(), FakeXmpp::start("push.localhost", "secret"));
    let push = FakePush::start(&ca);
    let mut settings = settings(&dir, &xmpp, &push, &ca);
    dir.write("s.json", settings.to_string());
    let said = run(&dir, &["check", "s.json"]);
    said.expect(0, &[]);
    assert!(said.out.contains("VAPID public key: B"), "{}", said.out);

    let said = run(&dir, &["check", "--show-payloads", "s.json"]);
    said.expect(0, &[]);
    for words in [
        "POST https://push.example/ENDPOINT",
        "ttl: 2419200",
        "urgency: high",
        "vapid t=…, k=…",
    ] {
        assert!(said.out.contains(words), "{words} in {}", said.out);
    }

    let webpush = &mut settings["pushModules"]["web"]["webpush"];
    webpush["allowedEndpoints"] = json!(["*"]);
    dir.write("s.json", settings.to_string());
    let said = run(&dir, &["check", "s.json"]);
    said.expect(0, &[]);
    assert!(said.out.contains("endpoints: *"), "{}", said.out);
    let warning =
        "warning: pushModules.web.webpush.allowedEndpoints: \"*\" lets everybody who can register or publish";
    assert!(said.err.contains(warning), "{}", said.err);

    let webpush = &mut settings["pushModules"]["web"]["webpush"];
    webpush["allowedEndpoints"] = json!(["*.com"]);
    webpush["subject"] = json!("mailto:root@localhost");
    dir.write("s.json", settings.to_string());
    let said = run(&dir, &["check", "s.json"]);
    assert_eq!(said.status, Some(CONFIG));
    for words in [
        "pushModules.web.webpush.allowedEndpoints[0]: anybody can have a name below this domain",
        "pushModules.web.webpush.subject: expected how push services reach you",
    ] {
        assert!(said.err.contains(words), "{}", said.err);
    }
}

#[test]
fn one_push_is_sent_and_explained() {
    let dir = TempDir::new();
    let (ca, xmpp) = (TestCa::new(), FakeXmpp::start("push.localhost", "secret"));
    let push = FakePush::start(&ca);
    let settings = settings(&dir, &xmpp, &push, &ca);
    dir.write("s.json", settings.to_string());
    let daemon = Daemon::builder(PROGRAM).settings(&settings).start();
    let _link = xmpp.accept(LONG);
    let token = push.subscribe("/send").token();
    let args = ["send", "s.json", "--module", "web", "--token", &token];
    let said = run(&dir, &args);
    said.expect(0, &[]);
    assert!(said.out.starts_with(ASKED), "{}", said.out);
    assert_eq!(push.pushes().len(), 1);
    push.queue([Answer::status(410)]);
    let said = run(&dir, &args);
    assert_eq!(said.status, Some(NO));
    assert!(said.out.contains("the push service answers 410"), "{}", said.out);
    assert!(said.out.contains("The subscription has ended"), "{}", said.out);
    let said = run(
        &dir,
        &[
            "send",
            "s.json",
            "--module",
            "web",
            "--token",
            "webpush:https://x.example/|a|b",
        ],
    );
    assert_eq!(said.status, Some(NO));
    drop(daemon);
}
