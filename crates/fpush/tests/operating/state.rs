//! The settings and the state directory, as their operator sees them.

use std::{fs, process};

use fpush_testkit::Daemon;
use serde_json::{Value, json};

use crate::rig::{GREEN, PROGRAM, RESULT, Rig, SOON, Sight};

fn with_state() -> Value {
    json!({ "pushModules": { "m": { "type": "demo" } }, "stateDirectory": "state" })
}

/// Tokens whose pushes are acknowledged and held.
fn busy(numbers: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    numbers.map(|number| format!("busy-{number}"))
}

/// A disk that takes nothing any more, made with the limit of the size of files.
#[test]
fn the_disk_is_full_and_then_it_is_not() {
    // A write beyond the limit is an error only for who does not want to die of it.
    let ignoring = format!("trap '' XFSZ; exec {PROGRAM} settings.json");
    let mut rig = Rig::with(with_state(), |builder| {
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
    rig.expect(GREEN);
    limit(&rig, "0:unlimited");
    assert_eq!(rig.push_all(busy(0..3)), [RESULT; 3]);
    rig.expect(Sight {
        page: &[(
            "error",
            "state directory",
            &["cannot write held.jsonl", "File too large", "is the disk full"],
        )],
        metrics: &[
            "fpush_state_directory_ok == 0",
            "fpush_state_writes_total{result=\"failed\"} >= 1",
            "fpush_module_up{module=\"m\"} == 1",
            "fpush_pushes_queued{module=\"m\"} == 3",
        ],
        log: &[("ERROR", "cannot write held.jsonl in stateDirectory")],
        // Pushes go on.
        unready: &[],
    });
    assert_eq!(rig.push_all(["alive".to_owned()]), [RESULT]);
    assert!(
        !rig.path("state/held.new").exists(),
        "half a file would fill the disk"
    );

    limit(&rig, "unlimited:unlimited");
    rig.expect(Sight {
        metrics: &[
            "fpush_state_directory_ok == 1",
            "fpush_state_writes_total{result=\"ok\"} >= 1",
        ],
        log: &[("INFO", "stateDirectory can be written to again")],
        ..GREEN
    });
    let held = fs::read_to_string(rig.path("state/held.jsonl")).unwrap();
    assert_eq!(
        held.lines().count(),
        1 + 3,
        "what was held meanwhile is there: {held}"
    );
}

#[test]
fn another_fpush_uses_the_state_directory() {
    let rig = Rig::with(with_state(), |builder| builder);
    let mut settings: Value = serde_json::from_slice(&fs::read(rig.path("settings.json")).unwrap()).unwrap();
    settings["stateDirectory"] = rig.path("state").to_str().into();
    let mut second = Daemon::builder(PROGRAM).settings(&settings).start();
    let status = second.wait(SOON);
    assert_eq!(status.code(), Some(71), "{}", second.log());
    let log = second.log();
    let words = format!(
        "another fpush uses stateDirectory {}",
        rig.path("state").display()
    );
    assert!(
        log.contains(&words) && log.contains("stop it, or choose another folder"),
        "{log}"
    );
    assert!(
        log.lines().next_back().unwrap().contains(&words),
        "it is the last word: {log}"
    );
    rig.expect(GREEN);
}

#[test]
fn new_settings_have_a_mistake() {
    let mut rig = Rig::with(with_state(), |builder| builder);
    rig.expect(Sight {
        metrics: &["fpush_reloads_total absent"],
        ..GREEN
    });
    rig.change_settings(json!({ "pushModules": { "m": { "maxInFlight": "many" } } }));
    rig.expect(Sight {
        page: &[(
            "warning",
            "settings",
            &[
                "the last reload was refused, and the settings from before it are in force",
                "pushModules.m.maxInFlight",
            ],
        )],
        metrics: &[
            "fpush_last_reload_successful == 0",
            "fpush_reloads_total{result=\"refused\"} == 1",
            "fpush_reloads_total{result=\"ok\"} absent",
            "fpush_module_up{module=\"m\"} == 1",
        ],
        log: &[
            ("INFO", "SIGHUP: reading the settings again"),
            ("ERROR", "pushModules.m.maxInFlight"),
            ("ERROR", "reload rejected, keeping the old settings"),
        ],
        unready: &[],
    });
    assert_eq!(rig.push_all(["alive".to_owned()]), [RESULT], "the old ones go on");
    rig.change_settings(json!({ "pushModules": { "m": { "maxInFlight": 10 } } }));
    rig.expect(Sight {
        metrics: &["fpush_reloads_total{result=\"ok\"} == 1"],
        log: &[("INFO", "the settings of this module have changed")],
        ..GREEN
    });
}
