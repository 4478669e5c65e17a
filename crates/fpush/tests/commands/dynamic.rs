//! `fpush check` for a service whose user systemd makes at the start (`DynamicUser=yes`): the user is not there before, and
//! what it will get belongs to nobody yet. Only root checks as somebody else; others see what they may.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use fpush_testkit::{Daemon, is_root};
use serde_json::json;

use crate::rig::{CONFIG, PROGRAM, Place, Said};

/// A user that is not there.
const USER: &str = "fpush-of-a-test";
/// A group that every Debian has.
const GROUP: (u32, &str) = (1, "daemon");

/// A place that everybody can enter, with files that everybody can read.
fn open_place() -> Place {
    let place = Place::new();
    set_mode(place.dir.path(), 0o755);
    for file in ["settings.json", "ca.pem", "key.p8", "fcm.json"] {
        set_mode(&place.dir.path().join(file), 0o644);
    }
    place
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Changes the settings, which everybody can read.
fn set(place: &Place, change: impl FnOnce(&mut serde_json::Value)) {
    set_mode(&place.set(change), 0o644);
}

fn check(place: &Place, more: &str) -> Said {
    let units = place.dir.path().join("units");
    fs::create_dir_all(&units).unwrap();
    let unit = format!(
        "[Service]\nDynamicUser=yes\nUser={USER}\nExecStart=/usr/bin/fpush {}\nWorkingDirectory={}\n{more}\n",
        place.settings().display(),
        place.dir.path().display()
    );
    fs::write(units.join("fpush.service"), unit).unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .arg("check")
        .arg(place.settings())
        .current_dir(place.dir.path())
        .env("SYSTEMD_UNIT_PATH", units);
    Said::of(command.output().unwrap())
}

#[track_caller]
fn assert_fine(said: &Said) {
    assert_eq!(said.status, Some(0), "{}\n{}", said.out, said.err);
    assert!(!said.err.contains("error:"), "{}", said.err);
}

#[track_caller]
fn assert_wrong(said: &Said, parts: &[&str]) {
    assert_eq!(said.status, Some(CONFIG), "{}\n{}", said.out, said.err);
    for part in parts {
        assert!(said.err.contains(part), "no {part:?} in {}", said.err);
    }
}

/// The folder that systemd has made for a service whose user it makes, as it is while the service does not run: behind one
/// that root alone can enter.
struct StateFolder(String);

impl StateFolder {
    fn new(name: &str) -> Self {
        let folder = Self(format!("{USER}-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.private()).unwrap();
        set_mode(Path::new("/var/lib/private"), 0o700);
        symlink(Path::new("private").join(&folder.0), folder.path()).unwrap();
        folder
    }

    /// How the settings call it.
    fn path(&self) -> PathBuf {
        Path::new("/var/lib").join(&self.0)
    }

    fn private(&self) -> PathBuf {
        Path::new("/var/lib/private").join(&self.0)
    }

    fn unit(&self) -> String {
        format!("StateDirectory={}", self.0)
    }
}

impl Drop for StateFolder {
    fn drop(&mut self) {
        drop((fs::remove_file(self.path()), fs::remove_dir_all(self.private())));
    }
}

#[test]
fn a_user_that_is_not_there_yet_is_a_note_and_no_mistake() {
    let place = open_place();
    set(&place, |settings| {
        settings["stateDirectory"] = json!("/var/lib/fpush-of-a-test/state");
        settings["runtimeDirectory"] = json!("/run/fpush-of-a-test");
        settings["registration"] =
            json!({ "store": { "path": "/var/lib/fpush-of-a-test/devices.db" }, "types": { "apns": "ios" } });
        let component = settings["component"].as_object_mut().unwrap();
        component.remove("componentKey");
        component.insert(
            "componentKeyFile".to_owned(),
            "/run/credentials/fpush.service/of-a-test".into(),
        );
    });
    let key = place.write("component-key", "secret\n");
    let folders = "StateDirectory=fpush-of-a-test\nRuntimeDirectory=fpush-of-a-test\n";
    let said = check(
        &place,
        &format!("{folders}LoadCredential=of-a-test:{}", key.display()),
    );
    assert_fine(&said);
    let notes: Vec<_> = said
        .err
        .lines()
        .filter(|line| line.starts_with("note: "))
        .collect();
    assert_eq!(notes.len(), 2 + usize::from(is_root()), "{}", said.err);
    assert!(
        notes[0].starts_with("note: component.componentKeyFile: ") && notes[0].ends_with("was read instead"),
        "{}",
        said.err
    );
    let parts: &[&str] = if is_root() {
        &[
            "note: user fpush-of-a-test is not there until systemd makes it for fpush.service (DynamicUser=yes), which is normal",
            "whether fpush-of-a-test may write there was not tried",
        ]
    } else {
        &[
            "note: what is in the folders that systemd makes for fpush.service and its user (DynamicUser=yes) was not tried",
        ]
    };
    for part in parts {
        assert!(notes[1].contains(part), "no {part} in {}", said.err);
    }
    assert!(said.out.contains("component push.localhost"), "{}", said.out);
    if is_root() {
        assert!(
            said.out
                .contains("checked as a user that owns nothing, because systemd makes user fpush-of-a-test"),
            "{}",
            said.out
        );
    }

    // The name is the unit's if it has no other. There may be such a user on this machine.
    let said = check(
        &place,
        &format!("{folders}User=\nLoadCredential=of-a-test:{}", key.display()),
    );
    assert_fine(&said);
}

/// Each file is looked at with the rights that the user will have: those of one that owns nothing.
#[test]
fn files_are_read_as_that_user_will_read_them() {
    if !is_root() {
        return;
    }
    let place = open_place();
    let folders = "RuntimeDirectory=fpush-of-a-test\n";
    set(&place, |settings| {
        settings["runtimeDirectory"] = json!("/run/fpush-of-a-test");
    });
    assert_fine(&check(&place, folders));
    let key = place.dir.path().join("key.p8");
    set_mode(&key, 0o640);
    chown(&key, Some(0), Some(GROUP.0)).unwrap();
    let said = check(&place, folders);
    let words = format!(
        "this runs as a user that systemd makes at the start (DynamicUser=yes), and {} belongs to root (mode 640); hand the \
         file over with LoadCredential= of the unit file, or let a group read it that SupplementaryGroups= names",
        key.display()
    );
    assert_wrong(&said, &[&words]);
    assert!(
        !said.err.contains("setfacl") && !said.err.contains("65519"),
        "{}",
        said.err
    );
    let said = check(&place, &format!("{folders}SupplementaryGroups={}", GROUP.1));
    assert_fine(&said);
    assert!(said.err.contains("is in no group but daemon"), "{}", said.err);
    let said = check(
        &place,
        &format!("{folders}SupplementaryGroups=no-such-group-here"),
    );
    assert_eq!(said.status, Some(CONFIG), "{}", said.out);
    assert!(
        said.err.contains("correct SupplementaryGroups= in the unit file"),
        "{}",
        said.err
    );
}

/// Such a service may write to its own folders alone, whatever else the unit file says.
#[test]
fn places_that_are_not_its_own_are_refused() {
    let place = open_place();
    for (unit, hint) in [
        (
            "StateDirectory=fpush-of-a-test\nProtectSystem=no",
            "choose a place below /var/lib/fpush-of-a-test",
        ),
        ("", "add StateDirectory=fpush to the unit file"),
    ] {
        set(&place, |settings| {
            settings["stateDirectory"] = json!("/srv/fpush-of-a-test");
            settings["runtimeDirectory"] = json!("/run/fpush-of-a-test");
        });
        let said = check(&place, unit);
        let words = "stateDirectory: systemd keeps the service from writing to /srv/fpush-of-a-test (DynamicUser=yes in the unit \
                     file)";
        assert_wrong(&said, &[words, hint]);
        assert!(!said.err.contains("chown"), "{}", said.err);
    }
    if is_root() {
        // systemd lets it write there, but the folder is root's.
        let shared = Path::new("/srv").join(format!("{USER}-{}", std::process::id()));
        fs::create_dir_all(&shared).unwrap();
        set_mode(&shared, 0o755);
        set(&place, |settings| {
            settings["stateDirectory"] = json!(shared);
            settings["runtimeDirectory"] = json!("/run/fpush-of-a-test");
        });
        let unit = format!(
            "RuntimeDirectory=fpush-of-a-test\nStateDirectory=fpush-of-a-test\nReadWritePaths={}",
            shared.display()
        );
        let said = check(&place, &unit);
        fs::remove_dir(&shared).unwrap();
        let words = format!("stateDirectory: user {USER} cannot write to {}", shared.display());
        assert_wrong(&said, &[&words, "choose a place below /var/lib/fpush-of-a-test"]);
        assert!(!said.err.contains("chown"), "{}", said.err);
    }
}

/// Root sees what is in the folders that the user will get, and that is tried.
#[test]
fn what_is_in_folders_that_are_handed_over_is_looked_at() {
    if !is_root() {
        return;
    }
    let place = open_place();
    let folder = StateFolder::new("looked-at");
    let database = folder.path().join("devices.db");
    let change = |settings: &mut serde_json::Value| {
        settings["stateDirectory"] = json!(folder.path());
        settings["runtimeDirectory"] = json!(folder.path().join("run"));
        settings["registration"] = json!({ "store": { "path": database }, "types": { "apns": "ios" } });
        settings["monitoring"] = json!({ "listen": "127.0.0.1:0" });
    };
    set(&place, change);
    assert_fine(&check(&place, &folder.unit()));
    // As the last run of the service has left it.
    chown(folder.private(), Some(61_200), Some(61_200)).unwrap();
    set_mode(&folder.private(), 0o700);
    fs::write(
        &database,
        "this is not a database, and is long enough for a head".repeat(20),
    )
    .unwrap();
    chown(&database, Some(61_200), Some(61_200)).unwrap();
    set_mode(&database, 0o600);
    let said = check(&place, &folder.unit());
    assert_wrong(
        &said,
        &["registration.store: the database cannot be used: file is not a database"],
    );
    fs::remove_file(&database).unwrap();
    fs::create_dir(folder.path().join("lock")).unwrap();
    fs::remove_dir(folder.path().join("lock")).unwrap();

    // What the running one holds is not an obstacle, although nobody but root reaches its socket.
    let listen = {
        let [.., high, low] = std::process::id().to_be_bytes();
        format!("127.{high}.{low}.77:9114")
    };
    set(&place, |settings| {
        change(settings);
        settings["monitoring"] = json!({ "listen": listen });
    });
    let mut daemon = Daemon::builder(PROGRAM).args([place.settings()]).start();
    let link = place.accept(&daemon);
    assert_fine(&check(&place, &folder.unit()));
    drop(link);
    daemon.terminate();
    assert!(daemon.wait(crate::rig::LONG).success(), "{}", daemon.log());
}
