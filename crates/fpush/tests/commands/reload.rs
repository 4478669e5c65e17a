//! `fpush reload`.

use std::{fs, os::unix::fs::symlink};

use serde_json::{Value, json};

use crate::rig::{CONFIG, LONG, NO, OS_ERROR, Place, RESULT, Said, apple};

fn reload(place: &Place) -> Said {
    place.fpush(&["reload"])
}

fn rejected(said: &Said) -> &str {
    assert_eq!(
        (said.status, said.out.as_str()),
        (Some(CONFIG), ""),
        "{}",
        said.err
    );
    let err = said.err.as_str();
    err.strip_suffix("error: reload rejected, keeping the old settings\n")
        .unwrap_or_else(|| panic!("{err}"))
}

#[test]
fn new_settings_are_in_force_when_it_ends() {
    let place = Place::new();
    let mut running = place.start();
    place.set(|settings| settings["pushModules"]["ios"]["apns"]["topic"] = json!("org.example.new"));
    let said = reload(&place);
    let words = format!("settings reloaded from {}\n", place.settings().display());
    assert_eq!((said.status, said.out, said.err.as_str()), (Some(0), words, ""));
    assert_eq!(running.push("ios", &apple(1)), RESULT);
    assert_eq!(
        place.apns.requests()[0].header("apns-topic"),
        Some("org.example.new")
    );
    let log = running.stop();
    assert!(log.contains("fpush reload: reading the settings again"), "{log}");
}

#[test]
fn every_mistake_is_listed_and_the_old_settings_go_on() {
    let place = Place::new();
    let mut running = place.start();
    place.set(|settings| {
        settings["pushModules"]["ios"]["apns"]["topic"] = json!(5);
        settings["component"]["serverPort"] = json!("x");
        settings["monitring"] = json!({});
    });
    let said = reload(&place);
    let lines: Vec<_> = rejected(&said).lines().collect();
    assert_eq!(lines.len(), 3, "{}", said.err);
    for (line, start) in lines.iter().zip([
        "error: component.serverPort: expected a whole number",
        "error: pushModules.ios.apns.topic: expected a string",
        "warning: monitring: this key is not known; did you mean \"monitoring\"?",
    ]) {
        assert!(line.starts_with(start), "{line}");
    }
    let said = place.fpush(&["reload", "--json"]);
    assert_eq!((said.status, said.err.as_str()), (Some(CONFIG), ""));
    let verdict: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(verdict["ok"], false);
    assert_eq!(verdict["problems"][0]["key"], "component.serverPort");
    assert_eq!(verdict["problems"][2]["severity"], "unknownKey");
    assert_eq!(running.push("ios", &apple(1)), RESULT);

    // With what a daemon ignores it is taken.
    place.set(|settings| settings["monitring"] = json!({}));
    let said = reload(&place);
    said.expect(0, &["settings reloaded from "]);
    assert!(said.err.starts_with("warning: monitring: "), "{}", said.err);
}

/// What can be seen only when it is tried is said as well.
#[test]
fn a_port_that_is_taken_is_a_refusal() {
    let place = Place::new();
    let _running = place.start();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    place.set(|settings| settings["monitoring"] = json!({ "listen": address }));
    let said = reload(&place);
    assert!(rejected(&said).contains(&address), "{}", said.err);
}

/// The file does not say where the daemon is, if it is not the usual place.
#[test]
fn a_file_that_cannot_be_read_is_refused_with_a_daemon_and_without_one() {
    let place = Place::new();
    place.set(|settings| drop(settings.as_object_mut().unwrap().remove("runtimeDirectory")));
    let run = place.dir.path().join("made-by-systemd");
    fs::create_dir(&run).unwrap();
    let daemon = fpush_testkit::Daemon::builder(crate::rig::PROGRAM)
        .args([place.settings()])
        .env("RUNTIME_DIRECTORY", run.to_str().unwrap())
        .start();
    let _link = place.accept(&daemon);
    let ask = |run: &str| {
        let script = format!("RUNTIME_DIRECTORY={run} exec \"$0\" reload \"$1\"");
        let settings = place.settings();
        let args = ["-c", &script, crate::rig::PROGRAM, settings.to_str().unwrap()];
        Said::of(fpush_testkit::run_to_end("/bin/sh", args, place.dir.path()))
    };
    ask(run.to_str().unwrap()).expect(0, &["settings reloaded"]);
    place.write("settings.json", "{ \"component\": ");
    assert!(rejected(&ask(run.to_str().unwrap())).contains("is not valid JSON"));
    let said = ask("/nowhere");
    assert_eq!(said.status, Some(CONFIG));
    assert!(
        said.err.contains("is not valid JSON") && said.err.lines().count() == 1,
        "{}",
        said.err
    );
    daemon.wait_for_log("reload rejected, keeping the old settings", LONG);
}

#[test]
fn where_none_runs_there_is_nothing_to_reload() {
    let place = Place::new();
    let said = reload(&place);
    let words = format!(
        "error: no fpush runs with these settings (none answers at {})",
        place.socket().display()
    );
    assert_eq!((said.status, said.out.as_str()), (Some(NO), ""));
    assert!(said.err.starts_with(&words), "{}", said.err);
    assert!(!place.somebody_knocks(), "it does not start one");
}

/// It would read its own file, and the operator would believe that it has read another one.
#[test]
fn a_daemon_with_another_file_does_not_answer() {
    let place = Place::new();
    let running = place.start();
    let text = fs::read_to_string(place.settings()).unwrap();
    place.write("other.json", &text);
    let said = Said::of(fpush_testkit::run_to_end(
        crate::rig::PROGRAM,
        ["reload", "other.json"],
        place.dir.path(),
    ));
    let words = format!(
        "error: the running fpush is that of push.localhost, and its settings file is {}, not {}\n",
        place.settings().display(),
        place.dir.path().join("other.json").display()
    );
    assert_eq!((said.status, said.err), (Some(NO), words));

    symlink(place.settings(), place.dir.path().join("link.json")).unwrap();
    let said = Said::of(fpush_testkit::run_to_end(
        crate::rig::PROGRAM,
        ["reload", "link.json"],
        place.dir.path(),
    ));
    said.expect(0, &["settings reloaded"]);
    let log = running.stop();
    assert_eq!(log.matches("reading the settings again").count(), 1, "{log}");
}

/// The name of the component is one of the things that a reload may change.
#[test]
fn a_new_name_of_the_component_is_no_other_daemon() {
    let place = Place::new();
    let running = place.start();
    place.set(|settings| settings["component"]["componentHostname"] = json!("other.localhost"));
    reload(&place).expect(0, &["settings reloaded"]);
    running
        .daemon
        .wait_for_log("links opened=1 reopened=0 closed=1", LONG);
}

#[test]
fn several_at_once_get_a_verdict_each() {
    let place = Place::new();
    let running = place.start();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| reload(&place).expect(0, &["settings reloaded"]));
        }
    });
    let log = running.stop();
    assert_eq!(log.matches("fpush reload: reading").count(), 6, "{log}");
}

#[test]
fn a_folder_that_is_none_is_said() {
    let place = Place::new();
    place.set(|settings| settings["runtimeDirectory"] = json!(place.settings().join("run")));
    let said = reload(&place);
    assert_eq!(said.status, Some(OS_ERROR));
    assert!(
        said.err.contains("check runtimeDirectory in the settings"),
        "{}",
        said.err
    );
}

/// Debug lines on and off again without a restart.
#[test]
fn the_level_of_the_log_changes_with_a_reload() {
    let place = Place::new();
    let level = |level: &str| {
        place.set(|settings| settings["logging"] = json!({ "level": level }));
    };
    level("warn");
    let daemon = fpush_testkit::Daemon::builder(crate::rig::PROGRAM)
        .args([place.settings()])
        .start();
    let mut link = place.accept(&daemon);
    let mut publish = |id: &str, token: &str| {
        link.send(fpush_testkit::publish::ejabberd_publish(
            id,
            token,
            Some("ios"),
            true,
        ));
        assert_eq!(link.reply_to(id, LONG).verdict(), RESULT);
    };
    publish("id-1", &apple(1));
    assert_eq!(daemon.log(), "", "not even that it has started");
    level("debug");
    reload(&place).expect(0, &[]);
    daemon.wait_for_log("the log's level is debug now", LONG);
    publish("id-2", &apple(2));
    daemon.wait_for_log("DEBUG fpush_", LONG);
    level("info");
    reload(&place).expect(0, &[]);
    daemon.wait_for_log("the log's level is info now", LONG);
    let before = daemon.log().matches("DEBUG").count();
    publish("id-3", &apple(3));
    assert_eq!(daemon.log().matches("DEBUG").count(), before, "{}", daemon.log());
    level("debgu");
    let said = reload(&place);
    assert!(
        rejected(&said).contains("did you mean \"debug\"?"),
        "{}",
        said.err
    );
}

#[test]
fn rust_log_wins_and_that_is_said() {
    let place = Place::new();
    place.set(|settings| settings["logging"] = json!({ "level": "debug" }));
    let daemon = fpush_testkit::Daemon::builder(crate::rig::PROGRAM)
        .args([place.settings()])
        .rust_log("info")
        .start();
    let _link = place.accept(&daemon);
    daemon.wait_for_log("RUST_LOG is set, so logging.level (debug) is ignored", LONG);
    assert!(!daemon.log().contains("DEBUG"), "{}", daemon.log());
}
