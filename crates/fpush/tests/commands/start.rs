//! What `fpush check` finds of ports, folders, database and the installed service, with the rights of who will run fpush.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use fpush_testkit::{Daemon, fixture, is_root, run_to_end};
use serde_json::{Value, json};

use crate::rig::{CONFIG, LONG, PROGRAM, Place, RESULT, Said, apple};

/// A user that owns nothing, and its name.
const NOBODY: (u32, &str) = (65_534, "nobody");

impl Place {
    /// Checks as it is.
    #[track_caller]
    fn try_start(&self) -> Said {
        self.fpush(&["check"])
    }

    /// Checks with this unit installed, and these options.
    fn check_with_unit(&self, unit: &str, options: &[&str]) -> Said {
        let units = self.dir.path().join("units");
        fs::create_dir_all(&units).unwrap();
        fs::write(units.join("fpush.service"), unit).unwrap();
        let mut command = Command::new(PROGRAM);
        command
            .arg("check")
            .args(options)
            .arg(self.settings())
            .current_dir(self.dir.path())
            .env("SYSTEMD_UNIT_PATH", units);
        Said::of(command.output().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The names of everything in the folder, and below.
    fn everything(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                }
                found.push(path);
            }
        }
        let mut found = Vec::new();
        walk(self.dir.path(), &mut found);
        found.sort();
        found
    }
}

/// A port where nobody listens, and that no other test has: each has an address of its own.
fn listen(port: u16) -> String {
    use std::sync::atomic::{AtomicU8, Ordering};
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    format!("127.{high}.{low}.{}:{port}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[track_caller]
fn assert_wrong(said: &Said, parts: &[&str]) {
    assert_eq!(said.status, Some(CONFIG), "{}\n{}", said.out, said.err);
    for part in parts {
        assert!(said.err.contains(part), "no {part:?} in {}", said.err);
    }
    assert!(
        !said.out.contains("component push"),
        "a start that does not happen: {}",
        said.out
    );
}

#[test]
fn ports_that_others_have_and_addresses_of_other_machines_are_found() {
    let place = Place::new();
    let (taken, free) = (listen(9114), listen(8280));
    let _other = TcpListener::bind(&taken).unwrap();
    place.set(|settings| settings["monitoring"] = json!({ "listen": taken }));
    let words = format!("error: monitoring.listen: another program listens at {taken}");
    assert_wrong(&place.try_start(), &[&words, "ss -ltnp"]);

    place.set(|settings| settings["monitoring"] = json!({ "listen": "192.0.2.1:9114" }));
    assert_wrong(
        &place.try_start(),
        &["monitoring.listen: 192.0.2.1 is not an address of this machine"],
    );

    // Both want the same one.
    place.set(|settings| {
        settings["monitoring"] = json!({ "listen": free });
        settings["registration"] = registration(&place.path("db/devices.db"), &free);
    });
    assert_wrong(
        &place.try_start(),
        &[&format!(
            "registration.http.listen: monitoring.listen is {free}, and two listeners cannot have one port; choose another one"
        )],
    );
    // Nor if the one that runs has it, or listens at all addresses there.
    let _running = {
        place.set(|settings| settings["monitoring"] = json!({ "listen": free }));
        place.start()
    };
    let (_, port) = free.rsplit_once(':').unwrap();
    let everywhere = format!("0.0.0.0:{port}");
    place.set(|settings| {
        settings["monitoring"] = json!({ "listen": everywhere });
        settings["registration"] = registration(&place.path("db/devices.db"), &free);
    });
    assert_wrong(&place.try_start(), &["two listeners cannot have one port"]);
    let said = place.fpush(&["reload"]);
    assert_eq!(said.status, Some(CONFIG));
    assert!(
        said.err.contains("two listeners cannot have one port"),
        "{}",
        said.err
    );
}

/// Two instances of one service on one machine.
#[test]
fn what_another_instance_of_the_same_name_holds_is_not_free() {
    let place = Place::new();
    place.set(|settings| settings["stateDirectory"] = json!(place.path("state")));
    let _running = place.start();
    let check = |state: &str, run: &str| {
        let settings = place.set(|settings| {
            settings["stateDirectory"] = json!(place.path(state));
            settings["runtimeDirectory"] = json!(place.path(run));
        });
        fs::rename(settings, place.path("second.json")).unwrap();
        Said::of(run_to_end(PROGRAM, ["check", "second.json"], place.dir.path()))
    };
    assert_wrong(
        &check("second", "run"),
        &["runtimeDirectory: another fpush answers at "],
    );
    assert_eq!(check("second", "second-run").status, Some(0));
    // A copy that is to be tried, and may be more than that.
    let said = check("state", "run");
    assert_eq!(said.status, Some(0));
    let words = format!(
        "note: runtimeDirectory: these are taken for new settings of the fpush that runs with {}; another instance needs",
        place.settings().display()
    );
    assert!(said.err.contains(&words), "{}", said.err);
}

fn registration(database: &Path, listen: &str) -> Value {
    json!({ "store": { "path": database }, "types": { "apns": "ios" }, "http": { "listen": listen } })
}

/// What the running fpush holds is not an obstacle, and everything that was tried is as it was.
#[test]
fn what_the_running_daemon_holds_is_fine_and_nothing_is_left_behind() {
    let place = Place::new();
    let (monitoring, http) = (listen(9114), listen(8280));
    place.set(|settings| {
        settings["monitoring"] = json!({ "listen": monitoring });
        settings["registration"] = registration(&place.path("db/devices.db"), &http);
        settings["stateDirectory"] = json!(place.path("state"));
    });
    let before = place.everything();
    let said = place.try_start();
    let note = format!(
        "note: registration.store: there is no database at {} yet: the start makes an empty one\n",
        place.path("db/devices.db").display()
    );
    assert_eq!((said.status, said.err), (Some(0), note), "{}", said.out);
    assert_eq!(place.everything(), before);

    let mut running = place.start();
    let before = place.everything();
    let said = place.try_start();
    assert_eq!((said.status, said.err.as_str()), (Some(0), ""), "{}", said.out);
    assert_eq!(place.everything(), before);
    assert_eq!(running.push("ios", &apple(1)), RESULT);

    // Another fpush with other settings gets nothing of it.
    let words = format!("another program listens at {monitoring}");
    place.set(|settings| {
        settings["runtimeDirectory"] = json!(place.path("another"));
        settings["monitoring"] = json!({ "listen": monitoring });
        settings["stateDirectory"] = json!(place.path("state"));
    });
    assert_wrong(
        &place.try_start(),
        &[&words, "stateDirectory: another fpush uses "],
    );
    place.set(|settings| settings["component"]["componentHostname"] = json!("other.localhost"));
    assert_eq!(
        place.try_start().status,
        Some(0),
        "these are the settings of the one that runs"
    );
    fs::rename(place.settings(), place.path("other.json")).unwrap();
    let said = Said::of(run_to_end(PROGRAM, ["check", "other.json"], place.dir.path()));
    assert_wrong(&said, &["runtimeDirectory: another fpush answers at "]);
    running.stop();
}

#[test]
fn folders_and_a_database_that_cannot_be_used_are_found() {
    let place = Place::new();
    place.write("file", "");
    place.set(|settings| {
        settings["stateDirectory"] = json!(place.path("file/state"));
        settings["runtimeDirectory"] = json!(place.path("file"));
        settings["registration"] = registration(&place.path("devices.db"), "127.0.0.1:0");
    });
    place.write(
        "devices.db",
        &"this is not a database, and is long enough for a head".repeat(20),
    );
    let file = place.path("file");
    let (state, run) = (
        format!("error: stateDirectory: {} is not a folder", file.display()),
        format!("error: runtimeDirectory: {} is not a folder", file.display()),
    );
    let parts = [
        &*state,
        &run,
        "error: registration.store: the database cannot be used: file is not a database",
    ];
    assert_wrong(&place.try_start(), &parts);
    fs::remove_file(place.path("devices.db")).unwrap();
    fs::create_dir(place.path("devices.db")).unwrap();
    assert_wrong(
        &place.try_start(),
        &["registration.store.path: ", "devices.db is a folder; name a file"],
    );
}

#[test]
fn what_another_user_cannot_read_or_write_is_found_if_root_checks_for_it() {
    let place = Place::new();
    if !is_root() {
        let said = place.fpush(&["check", "--user", "root"]);
        assert_eq!(said.status, Some(CONFIG));
        assert!(
            said.err.contains("only root can check as another user"),
            "{}",
            said.err
        );
        return;
    }
    place.set(|settings| {
        settings["stateDirectory"] = json!(place.path("state"));
        settings["registration"] = registration(&place.path("db/devices.db"), "127.0.0.1:0");
        settings["monitoring"] = json!({ "listen": listen(80) });
    });
    for folder in ["state", "db"] {
        fs::create_dir(place.path(folder)).unwrap();
    }
    fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(place.settings(), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(place.try_start().status, Some(0), "root may");
    let said = place.fpush(&["check", "--user", NOBODY.1]);
    assert_eq!(said.status, Some(CONFIG), "{}\n{}", said.out, said.err);
    for file in ["key.p8", "fcm.json"] {
        let words = format!(
            "cannot read the file {}: Permission denied",
            place.path(file).display()
        );
        assert!(said.err.contains(&words), "no {words} in {}", said.err);
    }

    for file in ["key.p8", "fcm.json", "ca.pem"] {
        chown(place.path(file), Some(NOBODY.0), None).unwrap();
    }
    let said = place.fpush(&["check", "--user", NOBODY.1]);
    let state = format!("user nobody cannot write to {}", place.path("state").display());
    let database = format!("user nobody cannot write to {}", place.path("db").display());
    let run = format!("user nobody cannot make {}", place.path("run").display());
    let parts = [
        &*state,
        &database,
        &run,
        "Permission denied",
        "do: chown nobody ",
        "monitoring.listen: user nobody may not listen at port 80",
    ];
    assert_wrong(&said, &parts);
    for folder in ["state", "db"] {
        chown(place.path(folder), Some(NOBODY.0), None).unwrap();
    }
    fs::write(place.path("state/lock"), "").unwrap();
    fs::set_permissions(place.path("state/lock"), fs::Permissions::from_mode(0o600)).unwrap();
    let lock = format!(
        "user nobody cannot read and write {}",
        place.path("state/lock").display()
    );
    assert_wrong(
        &place.fpush(&["check", "--user", NOBODY.1]),
        &[&lock, "do: chown nobody "],
    );

    let said = place.fpush(&["check", "--user", "no-such-user-here"]);
    assert_eq!(said.status, Some(CONFIG));
    assert!(
        said.err
            .contains("there is no user no-such-user-here on this machine"),
        "{}",
        said.err
    );
}

/// The credential that systemd provides is there only while the service runs.
#[test]
fn a_credential_of_the_installed_service_is_read_where_systemd_will_read_it() {
    let place = Place::new();
    let key = place.write("component-key", "secret\n");
    place.set(|settings| {
        let component = settings["component"].as_object_mut().unwrap();
        component.remove("componentKey");
        component.insert(
            "componentKeyFile".to_owned(),
            "/run/credentials/fpush.service/of-a-test".into(),
        );
    });
    let unit = |name: &str| format!("[Service]\nLoadCredential={name}:{}\n", key.display());
    let said = place.try_start();
    assert_wrong(
        &said,
        &[
            "No such file",
            "is it in LoadCredential= of the unit file, under this name?",
        ],
    );
    let said = place.check_with_unit(&unit("another-name"), &[]);
    assert_wrong(
        &said,
        &["is it in LoadCredential= of the unit file, under this name?"],
    );

    let said = place.check_with_unit(&unit("of-a-test"), &[]);
    assert_eq!(said.status, Some(0), "{}\n{}", said.out, said.err);
    let words = format!(
        "note: component.componentKeyFile: /run/credentials/fpush.service/of-a-test is not there until systemd makes it for \
         fpush.service from {0}, which is normal; {0} was read instead\n",
        key.display()
    );
    assert_eq!(said.err, words);
    assert!(
        !said.out.contains("secret") && said.out.contains("component push.localhost"),
        "{}",
        said.out
    );

    // What is wrong with it is found there.
    place.write("component-key", "");
    assert_wrong(
        &place.check_with_unit(&unit("of-a-test"), &[]),
        &["expected a file that holds the secret"],
    );
    fs::remove_file(&key).unwrap();
    let said = place.check_with_unit(&unit("of-a-test"), &[]);
    assert_wrong(
        &said,
        &["which cannot be read: No such file", "correct LoadCredential="],
    );
}

#[test]
fn the_installed_service_says_as_who_and_where_a_check_looks() {
    let place = Place::new();
    let settings = place.settings();
    let unit = |more: &str| {
        let folder = place.dir.path().display();
        format!(
            "[Service]\nExecStart=/usr/bin/fpush {}\nWorkingDirectory={folder}\n{more}\n",
            settings.display()
        )
    };
    // A service that may write below its own folders alone.
    let said = place.check_with_unit(&unit("ProtectSystem=strict\nStateDirectory=fpush-of-a-test"), &[]);
    let run = place.path("run");
    let words = format!(
        "runtimeDirectory: systemd keeps the service from writing to {}",
        run.display()
    );
    assert_wrong(&said, &[&words, &format!("ReadWritePaths={}", run.display())]);
    let more = format!("ProtectSystem=strict\nReadWritePaths={}", run.display());
    assert_eq!(place.check_with_unit(&unit(&more), &[]).status, Some(0));

    // systemd makes this folder, and fpush uses it.
    let said = place.check_with_unit(&unit("StateDirectory=fpush-of-a-test"), &[]);
    said.expect(0, &["state directory: /var/lib/fpush-of-a-test"]);

    if is_root() {
        let said = place.check_with_unit(&unit("User=nobody"), &[]);
        assert_eq!(said.status, Some(CONFIG), "{}\n{}", said.out, said.err);
        assert!(said.err.contains("Permission denied"), "{}", said.err);
        let said = place.check_with_unit(&unit("User=nobody"), &["--user", "root"]);
        said.expect(0, &["checked as user root\n", "component push.localhost"]);
        let said = place.check_with_unit(&unit("User=no-such-user-here"), &[]);
        assert_eq!(said.status, Some(CONFIG), "{}", said.out);
        assert!(
            said.err.contains("correct User= in the unit file"),
            "{}",
            said.err
        );
    }
}

/// A check says 78; a start and a reload go on with the other modules.
#[test]
fn an_expired_certificate_of_one_module_does_not_take_the_others_down() {
    let place = Place::new();
    let expired = |settings: &mut Value| {
        settings["pushModules"]["old"] = settings["pushModules"]["ios"].clone();
        let apns = settings["pushModules"]["old"]["apns"].as_object_mut().unwrap();
        for key in ["tokenKeyFilePath", "keyId", "teamId"] {
            apns.remove(key);
        }
        apns.insert("certFilePath".to_owned(), json!(fixture("expired.pem")));
        apns.insert("certKeyFilePath".to_owned(), json!(fixture("expired.key.pem")));
    };
    let mut running = place.start();
    place.set(expired);
    let said = place.try_start();
    assert_eq!(said.status, Some(CONFIG), "{}\n{}", said.out, said.err);
    let words = "error: pushModules.old.apns.certFilePath: the certificate expired on 2021-01-01";
    assert!(said.err.contains(words), "{}", said.err);
    assert!(
        said.out.contains("module old (apple)"),
        "a start does happen: {}",
        said.out
    );

    running.daemon.signal("HUP");
    running.daemon.wait_for_log("settings reloaded", LONG);
    let requests = place.apns.count();
    for number in 1..4 {
        assert_eq!(running.push("old", &apple(number)), RESULT, "it is held");
    }
    assert_eq!(place.apns.count(), requests, "Apple would refuse it");
    assert_eq!(running.push("ios", &apple(1)), RESULT);
    let log = running.daemon.log();
    assert!(
        log.contains("WARN") && log.contains("the certificate expired on 2021-01-01"),
        "{log}"
    );
    assert_eq!(
        log.matches("refuses this module's credentials or settings")
            .count(),
        1,
        "{log}"
    );
    running.stop();

    let daemon = Daemon::builder(PROGRAM).args([place.settings()]).start();
    let mut link = place.accept(&daemon);
    link.send(fpush_testkit::publish::ejabberd_publish(
        "id",
        &apple(2),
        Some("ios"),
        true,
    ));
    assert_eq!(link.reply_to("id", LONG).verdict(), RESULT);
}

#[test]
fn a_check_says_what_is_missing_without_a_runtime_directory() {
    let place = Place::new();
    let note = "note: runtimeDirectory: there is none, so fpush send";
    let said = place.run_with(&["check"], &[]);
    assert!(!said.err.contains(note), "{}", said.err);
    place.set(|settings| {
        settings.as_object_mut().unwrap().remove("runtimeDirectory");
    });
    let folder = place.path("made").display().to_string();
    let by_systemd = place.run_with(&["check"], &[("RUNTIME_DIRECTORY", &folder)]);
    assert!(!by_systemd.err.contains(note), "{}", by_systemd.err);
    // An installed fpush would have one.
    if !Path::new("/run/fpush").exists() {
        let said = place.run_with(&["check"], &[]);
        assert_eq!(said.status, Some(0), "{}", said.err);
        assert!(said.err.contains(note), "{}", said.err);
    }
}
