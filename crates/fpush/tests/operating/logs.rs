//! The log as a program, systemd's journal and a person in an outage read it.

use fpush_testkit::{Answer, FakeApns, TestCa, daemon::Builder};
use serde_json::{Value, json};

use crate::rig::{LONG, PROGRAM, Rig, UNAVAILABLE, apple, apple_token, apple_tokens};

/// A daemon that says something of each level: a warning at the start, an error of its only push, and its usual words.
fn talkative(settings: Value, start: impl FnOnce(Builder) -> Builder) -> Vec<String> {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    apns.answer_with(|_| Answer::reason(400, "BadTopic"));
    let mut all = json!({
        "pushModules": { "m": apple(&apns.url(), json!({})) },
        "timeout": { "xmppconnectionError": "1ms" },
    });
    all["logging"] = settings;
    let mut rig = Rig::with(all, |builder| start(builder.file("ca.pem", ca.pem())));
    assert_eq!(rig.push_all([apple_token(0)]), [UNAVAILABLE]);
    rig.daemon.terminate();
    rig.link().close();
    assert!(rig.daemon.wait(LONG).success());
    let lines: Vec<_> = rig.daemon.log().lines().map(str::to_owned).collect();
    assert!(lines.len() >= 5, "{lines:#?}");
    lines
}

#[test]
fn json_is_one_object_in_each_line() {
    let lines = talkative(json!({ "format": "json" }), |builder| builder);
    let mut levels = Vec::new();
    for line in &lines {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        assert!(object.is_object() && !text("timestamp").is_empty(), "{line}");
        assert!(
            text("target").starts_with("fpush") && !text("message").is_empty(),
            "{line}"
        );
        levels.push(text("level"));
        if text("message").contains("the provider refuses the request") {
            assert_eq!(
                (text("level"), text("module")),
                ("ERROR".to_owned(), "m".to_owned())
            );
            assert_eq!(text("answer"), "400 BadTopic");
        }
    }
    for level in ["ERROR", "WARN", "INFO"] {
        assert!(
            levels.iter().any(|known| known == level),
            "no {level} in {lines:#?}"
        );
    }
}

/// systemd says in `JOURNAL_STREAM` which file is the journal; here that is the pipe to the test.
fn to_the_journal(offset: &str) -> impl FnOnce(Builder) -> Builder {
    let script = format!(
        "device=$(stat -L -c %d /proc/self/fd/2); inode=$(stat -L -c %i /proc/self/fd/2)
         export JOURNAL_STREAM=$device:$((inode + {offset}))
         exec {PROGRAM} settings.json"
    );
    move |builder| builder.file("run.sh", script).program("/bin/sh").args(["run.sh"])
}

#[test]
fn the_journal_gets_priorities() {
    let lines = talkative(json!({}), to_the_journal("0"));
    for line in &lines {
        let (priority, rest) = line.split_at(3);
        assert!(["<3>", "<4>", "<6>"].contains(&priority), "{line}");
        assert!(
            rest.starts_with("fpush"),
            "neither time nor level, which the journal has: {line}"
        );
    }
    for (priority, part) in [
        ("<3>", "the provider refuses the request"),
        ("<4>", "settings.json; do: chmod"),
        ("<6>", "link up"),
    ] {
        let is_it = |line: &&String| line.contains(part);
        let line = lines
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("no {part} in {lines:#?}"));
        assert!(line.starts_with(priority), "{line}");
    }
}

/// In JSON each line has both: the priority is cut off by the journal.
#[test]
fn the_journal_gets_json_with_priorities() {
    for line in talkative(json!({ "format": "json" }), to_the_journal("0")) {
        let object = ["<3>", "<4>", "<6>"]
            .iter()
            .find_map(|priority| line.strip_prefix(priority));
        let object: Value = serde_json::from_str(object.unwrap_or_else(|| panic!("{line}"))).unwrap();
        assert!(object["message"].is_string(), "{line}");
    }
}

/// A redirection of standard error leaves the variable as it was.
#[test]
fn another_file_than_the_journal_gets_lines_for_people() {
    for line in talkative(json!({}), to_the_journal("1")) {
        assert!(!line.starts_with('<') && line.contains("Z "), "{line}");
    }
}

#[test]
fn an_outage_is_a_few_lines() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    apns.answer_with(|_| Answer::reason(503, "ServiceUnavailable"));
    let mut rig = crate::rig::start(&ca, apple(&apns.url(), json!({})), &[]);
    for token in apple_tokens(0..3_000) {
        rig.publish(&token);
    }
    let failed = apns.wait_for(3_000, LONG).len();
    rig.daemon.terminate();
    assert!(rig.daemon.wait(LONG).success());
    let log = rig.daemon.log();
    let count = log.lines().count();
    assert!(count < 30, "{count} lines:\n{log}");
    let said: Vec<_> = log
        .lines()
        .filter(|line| line.contains("the provider did not take a push"))
        .collect();
    assert_eq!(said.len(), 5 + 1, "five, and how many more:\n{log}");
    let summary = said[5];
    let (_, more) = summary
        .split_once("… and ")
        .unwrap_or_else(|| panic!("{summary}"));
    let (number, words) = more.split_once(" more in the last minute: ").unwrap();
    let number: usize = number.replace(',', "").parse().unwrap();
    assert!(number + 5 >= failed, "{number} of {failed}: {log}");
    assert!(
        words.contains("the provider did not take a push") && summary.contains("module=m"),
        "{summary}"
    );
}

/// The program at a terminal, which `script` gives it, with these variables.
fn at_a_terminal(variables: &str) -> String {
    let dir = fpush_testkit::TempDir::new();
    let command = format!("{variables} {PROGRAM} nothing.json");
    let args = ["--quiet", "--return", "--command", &command, "/dev/null"];
    let output = fpush_testkit::run_to_end("script", args, dir.path());
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn only_a_terminal_whose_user_wants_them_gets_colours() {
    for (variables, coloured) in [
        ("env -u NO_COLOR TERM=xterm", true),
        ("NO_COLOR= TERM=xterm", true),
        ("NO_COLOR=1 TERM=xterm", false),
        ("env -u NO_COLOR TERM=dumb", false),
    ] {
        let log = at_a_terminal(variables);
        assert!(
            log.contains("cannot read the settings file nothing.json"),
            "{log}"
        );
        assert_eq!(log.contains('\x1b'), coloured, "{variables}: {log:?}");
    }
}
