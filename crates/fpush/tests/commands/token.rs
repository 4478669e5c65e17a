//! `fpush token`: why a phone gets no push.

use std::{fs::File, process::Command as Process};

use fpush_testkit::{Answer, run_to_end};
#[cfg(feature = "enable_registration")]
use fpush_testkit::{Command, Form};
use serde_json::{Value, json};

use crate::rig::{CONFIG, LONG, NO, PROGRAM, Place, REFUSED, RESULT, Running, Said, apple, google};

impl Place {
    /// Asks for a token of a module, which comes from standard input.
    fn why(&self, module: &str, token: &str, more: &[&str]) -> Said {
        let token = self.write("token", &format!("{token}\n"));
        let mut command = Process::new(PROGRAM);
        command
            .args(["token", "--module", module, "--token", "-"])
            .args(more)
            .arg(self.settings())
            .current_dir(self.dir.path())
            .stdin(File::open(token).unwrap());
        Said::of(command.output().unwrap())
    }
}

/// The name of the only token in the log.
fn hash(running: &Running) -> String {
    let line = running.daemon.wait_for_log("push accepted", LONG);
    let (_, rest) = line.split_once("token=").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

/// What is left of ten minutes is said behind these words: all of them, if nothing took any time.
#[track_caller]
fn expect_ten_minutes(said: &Said, words: &str) {
    let (_, left) = said.out.split_once(words).unwrap();
    assert!(left.starts_with("10m") || left.starts_with("9m "), "{left}");
}

#[test]
fn the_life_of_a_token_can_be_read() {
    let place = Place::new();
    let mut running = place.start();
    let token = apple(7);
    place.why("ios", &token, &[]).expect(
        0,
        &["the log calls this token", "last push: none since the start"],
    );

    assert_eq!(running.push("ios", &token), RESULT);
    let hash = hash(&running);
    let said = place.why("ios", &token.to_uppercase(), &[]);
    let words = [
        &*format!("module ios: the log calls this token {hash}\n  "),
        "journalctl",
        "module: works",
        "block list: not on it",
        "rate limit: a visible push may go out in ",
        "last push: ",
        "accepted\n  The provider has it.",
    ];
    said.expect(0, &words);
    expect_ten_minutes(&said, "may go out in ");

    assert_eq!(running.push("ios", &token), RESULT);
    let said = place.why("ios", &token, &[]);
    let waits = "queue: a visible push waits, and goes out in ";
    said.expect(0, &[waits, "ago): queued\n"]);
    expect_ten_minutes(&said, waits);
    assert_eq!(running.push("ios", &token), REFUSED);
    place.why("ios", &token, &[]).expect(
        0,
        &["queue: a visible push waits", "ago): refused\n", "queued already"],
    );

    // One that is left alone for a while.
    let other = apple(8);
    place.apns.queue([Answer::reason(400, "SomethingNew")]);
    running.push("ios", &other);
    let said = place.why("ios", &other, &[]);
    said.expect(
        NO,
        &[
            "block list: for another ",
            "fpush send",
            "token_blocked, the provider's reason: ",
        ],
    );
    expect_ten_minutes(&said, "block list: for another ");

    // And all that for scripts, without a token in it.
    let said = place.why("ios", &other, &["--json"]);
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.status, &answer["ok"]), (Some(NO), &json!(false)));
    let view = &answer["tokens"][0];
    assert_eq!(
        (&view["module"], &view["blocked"]["dead"]),
        (&json!("ios"), &json!(false))
    );
    assert_eq!(view["last"]["outcome"], "token_blocked");
    assert_eq!(view["hash"].as_str().unwrap().len(), 8);
    for said in [said, place.why("ios", &token, &[])] {
        assert!(
            !said.out.contains(&other) && !said.out.contains(&token),
            "{}",
            said.out
        );
    }
    let requests = place.apns.count();
    place.why("ios", &token, &[]);
    assert_eq!(place.apns.count(), requests, "nobody is asked");
}

/// As editors and shells of other systems hand it over.
#[test]
fn a_token_is_read_whatever_wrote_it() {
    let place = Place::new();
    let _running = place.start();
    let token = apple(1);
    let marked = format!("\u{feff}{token}");
    for given in [&*marked, &format!("{marked}\r\n"), &format!("\u{feff} {token}\r")] {
        place
            .why("ios", given, &[])
            .expect(0, &["the log calls this token"]);
    }
    // `--token "$(cat file)"`.
    for (number, given) in [&*marked, &format!(" {token}\r")].into_iter().enumerate() {
        place.send("ios", given).expect(0, &["accepted"]);
        assert_eq!(place.apns.requests()[number].token, token);
        let said = place.fpush(&["token", "--module", "ios", "--token", given]);
        said.expect(0, &["the log calls this token"]);
    }
    let units: Vec<_> = marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
    place.dir.write("token", units);
    for command in ["send", "token"] {
        let line = "exec \"$0\" \"$1\" --module ios --token - settings.json < token";
        let said = Said::of(run_to_end(
            "/bin/sh",
            ["-c", line, PROGRAM, command],
            place.dir.path(),
        ));
        assert!(said.err.contains("the file is in UTF-16"), "{}", said.err);
    }
}

#[test]
fn what_cannot_be_asked_is_said() {
    let place = Place::new();
    let said = place.why("ios", &apple(1), &[]);
    assert_eq!((said.status, said.out.as_str()), (Some(NO), ""), "{}", said.err);
    assert!(
        said.err.contains("no fpush runs with these settings"),
        "{}",
        said.err
    );
    let _running = place.start();
    place.why("phone", &apple(1), &[]).expect(
        NO,
        &["there is no push module phone in the settings; there are: android, ios"],
    );
    place
        .why("ios", &google(1), &[])
        .expect(NO, &["this cannot be a token of its provider"]);
    let said = place.fpush(&["token", "--module", "ios"]);
    assert_eq!(said.status, Some(2), "{}", said.err);
    place
        .fpush(&["token", "--node", "mine"])
        .expect(NO, &["the settings have no block \"registration\""]);
    place.set(|settings| settings["component"]["componentHostname"] = json!("other.localhost"));
    place
        .why("ios", &apple(1), &[])
        .expect(NO, &["this is the fpush of push.localhost"]);
    place.write("settings.json", "no settings");
    assert!([Some(CONFIG), Some(NO)].contains(&place.why("ios", &apple(1), &[]).status));
}

/// The whole module is in trouble: the token is not to blame.
#[test]
fn a_module_in_trouble_is_named() {
    let place = Place::new();
    let mut running = place.start();
    place
        .apns
        .answer_with(|_| Answer::reason(403, "InvalidProviderToken"));
    running.push("ios", &apple(1));
    let words = [
        "module: the provider's answer is 403 InvalidProviderToken",
        "all devices of the module",
    ];
    place.why("ios", &apple(2), &[]).expect(NO, &words);
}

/// Nobody takes its pushes now: that is said of the module, and that its push is not lost of the token.
#[test]
fn an_outage_and_what_is_held_in_it_are_named() {
    let place = Place::new();
    let mut running = place.start();
    place
        .apns
        .answer_with(|_| Answer::reason(429, "TooManyProviderTokenUpdates"));
    // The whole module pauses, and nobody waits for an answer after that.
    assert_eq!(running.push("ios", &apple(1)), RESULT);
    let held = "queue: a visible push is held until the provider is back, for another 3h 59m ";
    for number in [1, 2] {
        assert_eq!(running.push("ios", &apple(number)), RESULT);
        let said = place.why("ios", &apple(number), &[]);
        said.expect(
            NO,
            &[
                "outage: the provider has taken nothing for ",
                "all devices of the module",
                held,
            ],
        );
    }
    let said = place.why("ios", &apple(3), &[]);
    said.expect(NO, &["held until it is back: 2\n", "queue: none waits"]);
    let said = place.why("ios", &apple(2), &["--json"]);
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    let view = &answer["tokens"][0];
    assert_eq!(view["limits"][0]["state"], "held");
    assert_eq!(view["outage"]["phase"], "down");
}

#[test]
#[cfg(feature = "enable_registration")]
fn a_registered_device_is_found_by_its_token_and_by_its_node() {
    let place = Place::new();
    place.set(|settings| {
        settings["registration"] = json!({ "store": { "path": "devices.db" }, "types": { "apns": "ios" } });
    });
    let mut running = place.start();
    let token = apple(3);
    let fields = [("type", "apns"), ("node", "mine"), ("token", &*token)];
    running
        .link
        .send(Command::new("register", "v1-register-push", &fields));
    let reply = running.link.reply_to("register", LONG);
    let form = Form::of(&reply);
    let secret = form.value("secret");

    let registration = "registration: node mine, type apns (mod_push_appserver), since ";
    place
        .why("ios", &token, &[])
        .expect(0, &["the log calls this token", registration, "never"]);
    place.fpush(&["token", "--node", "mine"]).expect(
        0,
        &[
            registration,
            "module ios: the log calls this token ",
            "last push: none",
        ],
    );
    let said = place.fpush(&["token", "--json", "--node", "mine"]);
    assert!(
        !said.out.contains(secret) && !said.out.contains(&token),
        "{}",
        said.out
    );
    place
        .why("ios", &apple(4), &[])
        .expect(0, &["registration: no device is registered with this token"]);
    place
        .fpush(&["token", "--node", "other"])
        .expect(NO, &["no device is registered under this node", "register again"]);

    // A reload that takes the registration away takes it from this, too.
    place.set(|_| {});
    running.daemon.signal("HUP");
    running.daemon.wait_for_log("settings reloaded", LONG);
    place
        .fpush(&["token", "--node", "mine"])
        .expect(NO, &["the settings have no block \"registration\""]);
}
