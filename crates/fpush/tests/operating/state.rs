//! The settings and the state directory, as their operator sees them.

use std::{fs, io::Write as _, path::PathBuf, process};

use fpush_testkit::{Daemon, TempDir};
use serde_json::{Value, json};

use crate::rig::{GREEN, LONG, PROGRAM, RESULT, Rig, Sight};

const OVERLOADED: &str = "wait/internal-server-error";
const REFUSED: &str = "wait/service-unavailable";

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
    // What cannot be written down is not acknowledged.
    assert_eq!(rig.push_all(busy(0..3)), [OVERLOADED; 3]);
    rig.expect(Sight {
        page: &[(
            "error",
            "state directory",
            &["cannot write to", "state/spool.db", "is the disk full"],
        )],
        metrics: &[
            "fpush_state_directory_ok == 0",
            "fpush_state_writes_total{result=\"failed\"} >= 1",
            "fpush_module_up{module=\"m\"} == 1",
            "fpush_pushes_queued{module=\"m\"} == 0",
        ],
        log: &[("ERROR", "state/spool.db: ")],
        // Pushes go on.
        unready: &[],
    });
    assert_eq!(rig.push_all(["alive".to_owned()]), [RESULT]);

    limit(&rig, "unlimited:unlimited");
    rig.expect(Sight {
        metrics: &[
            "fpush_state_directory_ok == 1",
            "fpush_state_writes_total{result=\"ok\"} >= 1",
        ],
        log: &[("INFO", "held pushes can be written down again")],
        ..GREEN
    });
    assert_eq!(rig.push_all(busy(0..3)), [RESULT; 3]);
    assert_eq!(rig.push_all(busy(0..3)), [REFUSED; 3]);
    rig.daemon.kill();
    let connection = rusqlite::Connection::open(rig.path("state/spool.db")).unwrap();
    let held: i64 = connection
        .query_row("SELECT count(*) FROM held", [], |row| row.get(0))
        .unwrap();
    assert_eq!(held, 3, "what was acknowledged is on the disk, once");
}

/// A disk of one mebibyte, as far as this user may make one.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> Option<Self> {
        let folder = TempDir::new();
        let mount = process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"])
            .arg(folder.path())
            .output();
        mount
            .is_ok_and(|said| said.status.success())
            .then(|| Self(folder))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Takes what is left.
    fn fill(&self) {
        let mut filler = fs::File::create(self.path("filler")).unwrap();
        while filler.write_all(&[0; 512]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(
            process::Command::new("umount")
                .arg("-l")
                .arg(self.0.path())
                .status(),
        );
    }
}

/// Nothing is acknowledged that is not there after a crash.
#[test]
fn a_small_disk_is_full_and_then_it_is_not() {
    let Some(disk) = SmallDisk::new() else {
        return;
    };
    let mut settings = with_state();
    settings["stateDirectory"] = disk.path("state").to_str().into();
    let mut rig = Rig::with(settings, |builder| builder);
    rig.expect(GREEN);
    disk.fill();
    let (mut published, mut acknowledged) = (0, 0);
    let mut push = |rig: &mut Rig| {
        let answers = rig.push_all(busy(published..published + 50));
        published += 50;
        let taken = answers.iter().filter(|answer| *answer == RESULT).count();
        assert!(
            answers
                .iter()
                .all(|answer| *answer == RESULT || *answer == OVERLOADED),
            "{answers:?}"
        );
        acknowledged += taken;
        taken < 50
    };
    // There may be room left in the files.
    assert!((0..100).any(|_| push(&mut rig)), "it does not get full");
    rig.expect(Sight {
        page: &[(
            "error",
            "state directory",
            &["cannot write to", "state/spool.db", "disk is full"],
        )],
        metrics: &[
            "fpush_state_directory_ok == 0",
            "fpush_module_up{module=\"m\"} == 1",
        ],
        log: &[("ERROR", "database or disk is full")],
        unready: &[],
    });
    fs::remove_file(disk.path("filler")).unwrap();
    rig.expect(GREEN);
    assert!(!push(&mut rig));
    rig.daemon.kill();
    let connection = rusqlite::Connection::open(disk.path("state/spool.db")).unwrap();
    let held: i64 = connection
        .query_row("SELECT count(*) FROM held", [], |row| row.get(0))
        .unwrap();
    assert_eq!(usize::try_from(held).unwrap(), acknowledged);
}

#[test]
fn another_fpush_uses_the_state_directory() {
    let rig = Rig::with(with_state(), |builder| builder);
    let mut settings: Value = serde_json::from_slice(&fs::read(rig.path("settings.json")).unwrap()).unwrap();
    settings["stateDirectory"] = rig.path("state").to_str().into();
    let mut second = Daemon::builder(PROGRAM).settings(&settings).start();
    let status = second.wait(LONG);
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
