//! The folder and its files.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use fpush_testkit::{Answer, Daemon, TempDir, until};
#[cfg(feature = "enable_fcm_support")]
use fpush_testkit::{FakeFcm, TestCa};
use serde_json::json;

use crate::rig::{
    BLOCKS, DEAD, HELD, LONG, OLD_HELD, PROGRAM, RESULT, Rig, SECOND, TRUSTED, old_line, token,
};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn nobody_else_reads_them() {
    // Whatever the umask of the daemon is.
    let mut rig = Rig::with(
        "10min",
        |_| {},
        |builder| {
            let settings = builder.dir().join("settings.json");
            let command = format!("umask 0; exec \"$0\" {}", settings.display());
            builder.program("/bin/sh").args(["-c", &command, PROGRAM])
        },
    );
    rig.earn_trust();
    rig.apns.queue([Answer::reason(410, "Unregistered")]);
    assert_eq!(rig.push(&token(1)), DEAD);
    rig.hold(&token(2));
    rig.wait_for(HELD, |text| text.contains(&token(2)));
    assert_eq!(mode(&rig.file("")), 0o700);
    rig.apns
        .answer_with(|_| Answer::reason(503, "ServiceUnavailable"));
    rig.stop();
    for file in fs::read_dir(rig.file("")).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    let blocks = rig.read(BLOCKS);
    assert!(
        !blocks.contains(&token(1)) && !blocks.contains(&token(2)),
        "{blocks}"
    );
    assert!(rig.read(HELD).contains(&token(2)), "it must be sent");
}

/// A power failure leaves the old file or the new one, and the new one if its name was said to be there: its content is on disk
/// before it takes the name, and the folder after that.
#[test]
fn a_file_and_its_name_are_on_disk_in_this_order() {
    let strace = Command::new("strace").arg("--version").output();
    assert!(strace.is_ok(), "strace is missing: install the package strace");
    let folder = TempDir::new();
    let trace = folder.path().join("trace");
    let mut rig = Rig::with(
        "10min",
        |_| {},
        |builder| {
            let settings = builder.dir().join("settings.json");
            let calls = "trace=rename,renameat,renameat2,fsync,fdatasync";
            let options = ["-D", "-f", "-y", "-e", calls, "-o"].map(PathBuf::from);
            let command = [trace.clone(), PROGRAM.into(), settings];
            builder.program("strace").args(options.into_iter().chain(command))
        },
    );
    rig.earn_trust();
    rig.apns.queue([Answer::reason(410, "Unregistered")]);
    assert_eq!(rig.push(&token(1)), DEAD);
    rig.stop();
    let pid = rig.daemon.pid().to_string();
    let has_ended =
        |call: &str| call.split_whitespace().next() == Some(&pid) && call.ends_with("+++ exited with 0 +++");
    until(LONG, "the trace is written", || {
        fs::read_to_string(&trace).is_ok_and(|text| text.lines().any(has_ended))
    });
    let trace = fs::read_to_string(&trace).unwrap();
    let state = format!("{}>", rig.file("").canonicalize().unwrap().display());
    for name in ["blocklist", "verdicts"] {
        let new = format!("{name}.new");
        let calls: Vec<_> = trace.lines().collect();
        let renamed = calls
            .iter()
            .position(|call| call.contains("rename") && call.contains(&new));
        let renamed = renamed.unwrap_or_else(|| panic!("{name} is written whole:\n{trace}"));
        let thread = calls[renamed].split_whitespace().next().unwrap();
        let is_sync = |call: &&&str, what: &str| {
            call.starts_with(thread) && call.contains("sync(") && call.contains(what)
        };
        assert!(
            calls[..renamed]
                .iter()
                .any(|call| is_sync(&call, &format!("{new}>"))),
            "{trace}"
        );
        let after = calls[renamed + 1..]
            .iter()
            .filter(|call| call.starts_with(thread));
        let next = after.take_while(|call| !call.contains("rename"));
        assert!(
            next.into_iter().any(|call| is_sync(&call, &state)),
            "{name}:\n{trace}"
        );
    }
}

#[test]
fn what_cannot_be_read_is_put_aside_and_the_rest_is_used() {
    let mut rig = Rig::start("10min");
    rig.earn_trust();
    rig.apns.queue([Answer::reason(410, "Unregistered")]);
    assert_eq!(rig.push(&token(1)), DEAD);
    rig.stop();

    // As a disk that was full or broke might leave them; what is not text at all is in the middle.
    let good = old_line("apple", &token(2)).into_bytes();
    let broken = rig.write_old(&[
        good.clone(),
        b"\xff\xfe".to_vec(),
        old_line("apple", &token(3)).into_bytes(),
        good[..40].to_vec(),
    ]);
    fs::write(rig.file(BLOCKS), "no block list").unwrap();
    let seen = rig.apns.count();
    rig.start_again();
    let line = rig.daemon.wait_for_log("held.jsonl is not all readable", LONG);
    assert!(
        line.contains("ERROR") && line.contains("unreadable=2") && line.contains("held.unreadable"),
        "{line}"
    );
    let line = rig
        .daemon
        .wait_for_log("blocklist.jsonl is not all readable", LONG);
    assert!(
        line.contains("ERROR") && line.contains("blocklist.unreadable"),
        "{line}"
    );
    for (aside, content) in [
        ("held.unreadable", broken.as_slice()),
        ("blocklist.unreadable", b"no block list"),
    ] {
        assert_eq!(fs::read(rig.file(aside)).unwrap(), content, "{aside}");
        assert_eq!(mode(&rig.file(aside)), 0o600, "{aside}");
    }
    let log = rig.daemon.log();
    assert!(!log.contains(&token(2)) && !log.contains(&token(3)), "{log}");
    rig.apns.wait_for(seen + 2, LONG);
    assert_eq!(rig.push(&token(1)), RESULT, "its block is forgotten");
    rig.stop();
    assert_eq!(rig.apns.count(), seen + 3);
}

#[test]
fn files_of_another_version_are_put_aside() {
    let mut rig = Rig::start("10min");
    rig.stop();
    fs::write(rig.file(OLD_HELD), "{\"fpush\":2}\n[\"m\",\"apple\",{}]\n").unwrap();
    rig.start_again();
    rig.daemon.wait_for_log("held.jsonl is not all readable", LONG);
    assert!(rig.file("held.unreadable").exists());
    assert_eq!(rig.push(&token(1)), RESULT);
}

/// Somebody copied the folder as another user: what was acknowledged must be there when its owner is corrected.
#[test]
fn a_file_that_cannot_be_opened_is_put_aside() {
    let mut rig = Rig::start("10min");
    rig.hold(&token(1));
    rig.wait_for(HELD, |text| text.contains(&token(1)));
    rig.daemon.kill();
    let held = rig.file(HELD);
    // Root reads everything, but takes nobody's files.
    if chown(&held, Some(65_534), None).is_err() {
        fs::set_permissions(&held, fs::Permissions::from_mode(0o000)).unwrap();
    }
    rig.start_again();
    let line = rig.daemon.wait_for_log("going on without what it holds", LONG);
    assert!(
        line.contains("ERROR") && line.contains("it is kept as") && line.contains("spool.unreadable"),
        "{line}"
    );
    rig.stop();
    assert!(!rig.read(HELD).contains(&token(1)));
    let aside = rig.file("spool.unreadable");
    if chown(&aside, Some(0), None).is_err() {
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).unwrap();
    }
    for suffix in ["", "-wal"] {
        let with = |path: &Path| format!("{}{suffix}", path.display());
        fs::rename(with(&aside), with(&held)).unwrap();
    }
    fs::remove_file(format!("{}-shm", aside.display())).unwrap();
    rig.start_again();
    rig.daemon.wait_for_log("held since before the start", LONG);
    rig.stop();
    assert_eq!(rig.sent(&token(1)), 2);
}

/// systemd makes it and says where it is, and fpush uses it without being told in the settings.
#[test]
fn the_folder_that_systemd_made_is_used_where_the_settings_name_none() {
    let without = |settings: &mut serde_json::Value| {
        settings.as_object_mut().unwrap().remove("stateDirectory");
    };
    let mut rig = Rig::with("20s", without, |builder| {
        let folders = format!("{0}/made:{0}/other", builder.dir().display());
        builder.env("STATE_DIRECTORY", &folders)
    });
    rig.earn_trust();
    rig.apns.queue([Answer::reason(410, "Unregistered")]);
    assert_eq!(rig.push(&token(1)), DEAD);
    rig.stop();
    let made = rig.daemon.dir().join("made");
    assert!(made.join(BLOCKS).exists() && !rig.daemon.dir().join("other").exists());
    rig.start_again();
    assert_eq!(rig.push(&token(1)), DEAD);
    assert_eq!(rig.apns.count(), TRUSTED + 1);
    rig.stop();

    // What the settings say counts more.
    let named = rig.daemon.dir().join("named");
    rig.change_settings(|settings| settings["stateDirectory"] = json!(named));
    rig.start_again();
    assert_eq!(rig.push(&token(1)), RESULT);
    rig.stop();
    assert!(named.join(BLOCKS).exists());
}

#[test]
fn a_second_daemon_does_not_use_it_and_says_so() {
    let mut rig = Rig::start("10min");
    rig.hold(&token(1));
    let settings = rig.daemon.dir().join("settings.json");
    let mut second = Daemon::builder(PROGRAM)
        .args([settings])
        .file("ca.pem", fs::read(rig.daemon.dir().join("ca.pem")).unwrap())
        .start();
    assert_eq!(second.wait(LONG).code(), Some(71), "{}", second.log());
    let words = format!(
        "another fpush uses stateDirectory {}: stop it, or choose another folder",
        rig.daemon.dir().join("state").display()
    );
    assert!(second.log().contains(&words), "{}", second.log());
    rig.link.expect_silence(SECOND / 10);
    let last = rig.stop();
    assert!(last.contains("undelivered=0 kept=0"), "{last}");
}

#[test]
fn a_folder_that_cannot_be_used_keeps_a_daemon_from_starting() {
    let rig = Rig::start("10min");
    let folder = rig.daemon.dir().join("settings.json/state");
    rig.change_settings(|settings| settings["stateDirectory"] = json!(folder));
    let mut daemon = Daemon::builder(PROGRAM)
        .args([rig.daemon.dir().join("settings.json")])
        .file("ca.pem", fs::read(rig.daemon.dir().join("ca.pem")).unwrap())
        .start();
    assert_eq!(daemon.wait(LONG).code(), Some(71), "{}", daemon.log());
    let words = format!("cannot use stateDirectory {}: Not a directory", folder.display());
    assert!(daemon.log().contains(&words), "{}", daemon.log());
    assert!(
        daemon
            .log()
            .contains("make it a folder that belongs to fpush's user, or choose another one")
    );
}

/// Somebody moves the folder: what is held goes where it is.
#[test]
fn a_folder_that_is_moved_keeps_what_is_held() {
    let mut rig = Rig::start("10min");
    let (state, away) = (rig.file(""), rig.daemon.dir().join("away"));
    fs::rename(&state, &away).unwrap();
    rig.hold(&token(1));
    assert_eq!(rig.push(&token(2)), RESULT);
    fs::rename(&away, &state).unwrap();
    rig.daemon.kill();
    assert!(rig.read(HELD).contains(&token(1)));
}

/// What others planted there is neither followed nor waited for, and from then on they can plant nothing.
#[test]
fn a_folder_that_others_could_write_to_is_ours_again() {
    let mut rig = Rig::start("10min");
    rig.stop();
    let victim = rig.daemon.dir().join("victim");
    fs::write(&victim, "precious").unwrap();
    fs::set_permissions(rig.file(""), fs::Permissions::from_mode(0o777)).unwrap();
    fs::remove_file(rig.file(HELD)).unwrap();
    fs::remove_file(rig.file(BLOCKS)).unwrap();
    let fifo = Command::new("mkfifo").arg(rig.file(HELD)).status();
    assert!(fifo.unwrap().success());
    symlink("/dev/zero", rig.file(BLOCKS)).unwrap();
    symlink(&victim, rig.file("held.new")).unwrap();
    symlink(&victim, rig.file("held.unreadable")).unwrap();
    rig.start_again();
    rig.daemon
        .wait_for_log("others could write to stateDirectory", LONG);
    for file in [HELD, BLOCKS] {
        let line = rig
            .daemon
            .wait_for_log(&format!("{file}: it is not a regular file"), LONG);
        assert!(line.contains("ERROR"), "{line}");
    }
    rig.hold(&token(1));
    rig.wait_for_kept(&token(1));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(mode(&rig.file("")) & 0o002, 0);
    assert_eq!(mode(&rig.file(HELD)), 0o600);
}

/// A volume that somebody else made: it is used, and its owner is named. Only root can give a folder away.
#[test]
fn a_folder_of_another_user_is_used_with_a_warning() {
    let mut rig = Rig::start("10min");
    rig.stop();
    let folder = rig.file("");
    if chown(&folder, Some(65_534), None).is_err() {
        return;
    }
    rig.start_again();
    let line = rig
        .daemon
        .wait_for_log("belongs to another user (uid 65534)", LONG);
    assert!(line.contains("WARN") && line.contains("do: chown root"), "{line}");
    rig.hold(&token(1));
    rig.wait_for_kept(&token(1));
    let own = fs::metadata(rig.daemon.dir()).unwrap().uid();
    assert_eq!(fs::metadata(rig.file(HELD)).unwrap().uid(), own);
}

/// Google's tokens are part of JSON, and of nothing else.
#[test]
#[cfg(feature = "enable_fcm_support")]
fn what_is_read_back_says_nothing_to_google_but_its_token() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let mut rig = Rig::with(
        "10min",
        |settings| {
            settings["pushModules"]["m"] = json!({
                "type": "google",
                "ratelimit": { "ratelimitTime": "10min" },
                "fcm": { "fcmSecretPath": "fcm.json", "endpoint": fcm.url(), "caFilePath": "fcm-ca.pem" },
            });
        },
        |builder| {
            builder
                .file("fcm.json", fcm.service_account("project-1"))
                .file("fcm-ca.pem", ca.pem())
        },
    );
    let token = format!("dCXr7fTpTm2yXGVYTXJb6r:APA91b{}", "xY-z_".repeat(24));
    for _ in 0..2 {
        assert_eq!(rig.push(&token), RESULT);
    }
    rig.wait_for(HELD, |text| text.contains(&token));
    rig.daemon.kill();
    let good = old_line("google", &token);
    let planted = [
        r#"x\",\"data\":{\"planted\":\"1\"},\"y\":\""#,
        r#"abcdefghijklmnopqrstuvwxyz\"}"#,
        r"abcdefghijklmnopqrstuvwxyz\n",
        r"abcdefghijklmnopqrstuvwxyz\\u0022",
    ]
    .map(|planted| good.replace(&token, planted).into_bytes());
    rig.write_old(&planted);
    rig.start_again();
    let line = rig.daemon.wait_for_log("held.jsonl is not all readable", LONG);
    let last = rig.stop();
    // One is not text; the others are not tokens of Google's, and are counted as lost.
    assert!(line.contains("unreadable=1"), "{line}");
    assert!(
        last.contains("undelivered=3") && last.contains("kept=0"),
        "{last}"
    );
    let sends = fcm.sends();
    assert_eq!(sends.len(), 2, "{sends:?}");
    assert_eq!(sends[1].message, sends[0].message);
}

/// A record that no fpush would have written reaches no provider.
#[test]
fn what_is_read_back_is_checked_like_a_publish() {
    let mut rig = Rig::start("10min");
    assert_eq!(rig.push(&token(9)), RESULT);
    rig.daemon.kill();
    let good = old_line("apple", &token(2));
    let bad = [
        good.replace(&token(2), "..%2f3%2fdevice"),
        good.replace(&token(2), "a\\u0000b"),
        good.replace("\"spacing\":600000", "\"spacing\":18446744073709551615"),
        good.replace("\"attempts\":0", "\"attempts\":4294967295"),
    ];
    assert!(bad.iter().all(|line| *line != good), "{good}");
    let lines: Vec<_> = [good].into_iter().chain(bad).map(String::into_bytes).collect();
    rig.write_old(&lines);
    let seen = rig.apns.count();
    rig.start_again();
    let line = rig.daemon.wait_for_log("held.jsonl is not all readable", LONG);
    assert!(line.contains("unreadable=3"), "{line}");
    rig.apns.wait_for(seen + 1, LONG);
    let last = rig.stop();
    assert!(last.contains("kept=0"), "{last}");
    assert_eq!(rig.apns.count(), seen + 1);
}
