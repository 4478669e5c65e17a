//! A database of SQLite, and folders for sockets, that cannot be used: the words name the path, the user that fpush runs as,
//! and what to do; of a start and of a check alike.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use fpush_testkit::Daemon;
use serde_json::{Value, json};

use crate::{
    denied::{Shared, set_mode},
    rig::{CONFIG, LONG, OS_ERROR, PROGRAM, Place, apple},
};

impl Shared {
    /// A folder with a database in it is named by the settings. The user owns the folder for the socket.
    fn with_database() -> (Self, PathBuf, PathBuf) {
        let shared = Self::new();
        let folder = shared.place.dir.path().join("db");
        let database = folder.join("devices.db");
        shared.place.set(|settings| registered(settings, &database));
        shared.give(&shared.place.settings());
        for folder in [&folder, &shared.place.dir.path().join("run")] {
            fs::create_dir(folder).unwrap();
            shared.give(folder);
        }
        (shared, folder, database)
    }

    /// Neither a start nor a check gets by, and both say all of this.
    #[track_caller]
    fn assert_refused(&self, start: &[&str], check: &[&str]) {
        let user = self.user();
        let start: Vec<_> = start.iter().copied().chain([&*user]).collect();
        for (args, status, parts) in [(&[][..], OS_ERROR, &start[..]), (&["check"], CONFIG, check)] {
            let said = self.run(args);
            assert_eq!(said.status, Some(status), "{}\n{}", said.out, said.err);
            for part in parts {
                assert!(said.err.contains(part), "{args:?}: no {part:?} in {}", said.err);
            }
        }
    }

    fn user(&self) -> String {
        if self.is_root {
            return "user nobody".to_owned();
        }
        format!("user {}", id())
    }
}

fn id() -> String {
    let id = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(id.stdout).unwrap().trim().to_owned()
}

fn registered(settings: &mut Value, database: &Path) {
    settings["registration"] = json!({ "store": { "path": database }, "types": { "apns": "ios" } });
}

fn sqlite(database: &Path, statement: &str) {
    let status = Command::new("sqlite3").arg(database).arg(statement).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_folder_in_which_nothing_can_be_made() {
    let (shared, folder, database) = Shared::with_database();
    let shown = folder.display().to_string();
    if !shared.is_root {
        set_mode(&folder, 0o555);
        shared.assert_refused(&[&shown, "(mode 555); do: chmod u+rwx"], &[&shown]);
        set_mode(&folder, 0o755);
        return;
    }
    // Without a database, and with one that is the user's: SQLite makes further files beside it.
    for with_file in [false, true] {
        if with_file {
            sqlite(&database, "CREATE TABLE other (x)");
            shared.give(&database);
        }
        std::os::unix::fs::chown(&folder, Some(0), Some(0)).unwrap();
        let whose = format!(
            "this runs as user nobody, and {shown} belongs to root (mode 755); do: chown nobody {shown}\n"
        );
        let check = format!(
            "user nobody cannot write to {shown}: Permission denied (os error 13); do: chown nobody {shown}"
        );
        shared.assert_refused(&[&database.display().to_string(), &whose], &[&check]);
    }
}

#[test]
fn a_file_that_cannot_be_written_to() {
    let (shared, _, database) = Shared::with_database();
    sqlite(&database, "CREATE TABLE other (x)");
    shared.take(&database);
    let shown = database.display().to_string();
    let opening = format!("cannot open the database {shown}: ");
    let start = shared.words(&database, "rw", "chown nobody PATH");
    shared.assert_refused(&[&opening, &start], &[&shown]);
    if shared.is_root {
        // It may be read.
        set_mode(&database, 0o644);
        let start = start.replace("mode 600", "mode 644");
        let check = format!("user nobody cannot read and write {shown}");
        shared.assert_refused(&[&opening, &start], &[&check, "do: chown nobody"]);
    }
}

/// Somebody looks at the service's devices as himself: the database must stay the service's.
#[test]
fn a_database_of_the_services_user() {
    let (shared, folder, database) = Shared::with_database();
    if !shared.is_root {
        return;
    }
    sqlite(&database, "CREATE TABLE other (x)");
    set_mode(&database, 0o600);
    for path in [&folder, &database] {
        std::os::unix::fs::chown(path, Some(1), Some(1)).unwrap();
    }
    let shown = database.display();
    for args in [&["devices", "list"][..], &["export"], &[]] {
        let said = shared.run(args);
        assert_eq!(
            said.status,
            Some(OS_ERROR),
            "{args:?}: {}\n{}",
            said.out,
            said.err
        );
        let words = format!(
            "this runs as user nobody, and {shown} belongs to daemon (mode 600); run this as user daemon, or, if it is to be \
             nobody's, do: chown nobody {shown}\n"
        );
        assert!(said.err.contains(&words), "{args:?}: no {words} in {}", said.err);
    }
}

#[test]
fn what_is_not_a_database_or_a_damaged_one() {
    let (shared, folder, database) = Shared::with_database();
    let shown = database.display().to_string();
    fs::write(
        &database,
        "this is not a database, and is long enough for a head".repeat(20),
    )
    .unwrap();
    shared.give(&database);
    let other = format!("{shown} is not an SQLite file: name another one in registration.store.path");
    shared.assert_refused(
        &["file is not a database", &other],
        &["file is not a database", &other],
    );

    fs::remove_file(&database).unwrap();
    sqlite(
        &database,
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    );
    let mut content = fs::read(&database).unwrap();
    content[100..200].fill(0x5a);
    fs::write(&database, content).unwrap();
    shared.give(&database);
    let damaged = format!("{shown} is damaged: stop fpush, and put a backup in its place");
    shared.assert_refused(&["malformed", &damaged], &["malformed", &damaged]);

    shared
        .place
        .set(|settings| registered(settings, &shared.place.dir.path().join("ca.pem/devices.db")));
    shared.give(&shared.place.settings());
    shared.assert_refused(
        &[
            "ca.pem is not a folder; registration.store.path",
            "must name a file, in a folder that belongs to user",
        ],
        &["ca.pem is not a folder"],
    );
    shared.place.set(|settings| registered(settings, &folder));
    shared.give(&shared.place.settings());
    shared.assert_refused(
        &[
            "cannot open the database",
            "must name a file, in a folder that belongs to user",
        ],
        &["is a folder; name a file"],
    );
}

/// A shell of SQLite that somebody has left open in a transaction.
struct Shell(Child);

impl Shell {
    fn lock(database: &Path) -> Self {
        let shell = Command::new("sqlite3")
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut shell = Self(shell.unwrap());
        let stdin = shell.0.stdin.as_mut().unwrap();
        stdin.write_all(b"BEGIN EXCLUSIVE;\nSELECT 'locked';\n").unwrap();
        stdin.flush().unwrap();
        let mut said = [0; 6];
        std::io::Read::read_exact(shell.0.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert_eq!(&said, b"locked");
        shell
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop((self.0.kill(), self.0.wait()));
    }
}

#[test]
fn a_database_that_another_program_has_locked() {
    let place = Place::new();
    let database = place.dir.path().join("devices.db");
    place.set(|settings| registered(settings, &database));
    let shown = database.display();
    let words = format!(
        "locked (fuser -v {shown} shows which it is: this runs as user {})",
        id()
    );
    // SQLite says that it is locked, or sqlx before that that it has no connection.
    let is_said = |text: &str| {
        text.replace(" locked for 2 s; end it (", " locked (")
            .contains(&words)
    };

    sqlite(&database, "CREATE TABLE other (x)");
    // A start goes on without it.
    let shell = Shell::lock(&database);
    let daemon = Daemon::builder(PROGRAM).args([place.settings()]).start();
    let mut link = place.accept(&daemon);
    let away = "the database of registered devices cannot be used";
    let line = daemon.wait_for_log(away, LONG);
    assert!(is_said(&line), "no {words} in {line}");
    drop(shell);
    daemon.wait_for_log("the database of registered devices can be used again", LONG);

    // While it runs registrations wait, and the log says why.
    let said = daemon.log().lines().filter(|line| line.contains(away)).count();
    let shell = Shell::lock(&database);
    let fields = [("type", "apns"), ("node", "n"), ("token", &apple(1))];
    let command = fpush_testkit::Command::new("id", "v1-register-push", &fields);
    link.send(command.from("alice@a.example/phone").action("execute"));
    let line = daemon.wait_for_nth_log(away, said + 1, LONG);
    assert!(is_said(&line), "no {words} in {line}");
    drop(shell);
    // This is said once a minute at most.
    link.reply_to("id", LONG);
}

#[test]
fn a_folder_for_the_socket_that_cannot_be_used() {
    let (shared, ..) = Shared::with_database();
    let run = shared.place.dir.path().join("run");
    let shown = run.display().to_string();
    let opening = format!("cannot use runtimeDirectory {shown}: ");
    if shared.is_root {
        std::os::unix::fs::chown(&run, Some(0), Some(0)).unwrap();
        let whose = format!(
            "this runs as user nobody, and {shown} belongs to root (mode 755); do: chown nobody {shown}\n"
        );
        let check = format!(
            "user nobody cannot write to {shown}: Permission denied (os error 13); do: chown nobody {shown}"
        );
        shared.assert_refused(&[&opening, &whose], &[&check]);
        shared.give(&run);
    }
    let socket = run.join("control.sock");
    fs::write(&socket, "somebody's").unwrap();
    let start = format!("{opening}{} is there, and no socket that user ", socket.display());
    shared.assert_refused(&[&start, "may replace; remove it, or choose another folder"], &[]);
    fs::remove_file(&socket).unwrap();

    let file = shared.place.dir.path().join("ca.pem");
    shared
        .place
        .set(|settings| settings["runtimeDirectory"] = json!(file));
    shared.give(&shared.place.settings());
    let words = format!("{} is not a folder", file.display());
    shared.assert_refused(&[&words, "make it a folder that belongs to"], &[&words]);

    let long = shared.place.dir.path().join("x".repeat(100));
    let length = long.as_os_str().len() + "/.control/control.sock".len();
    fs::create_dir(&long).unwrap();
    shared.give(&long);
    shared
        .place
        .set(|settings| settings["runtimeDirectory"] = json!(long));
    shared.give(&shared.place.settings());
    let words = format!(
        "the path of the folder is {} bytes too long for a socket in it; choose a shorter one, such as /run/fpush",
        length - 107
    );
    for (args, status) in [(&[][..], OS_ERROR), (&["check"][..], CONFIG)] {
        let said = shared.run(args);
        assert_eq!(said.status, Some(status), "{}\n{}", said.out, said.err);
        assert!(said.err.contains(&words), "no {words} in {}", said.err);
    }
}

/// The state directory knows three devices, two of them of a type that the settings lose.
#[test]
fn a_check_says_what_a_start_will_say_of_a_misspelt_path_and_of_a_lost_type() {
    let place = Place::new();
    let path = |name: &str| place.dir.path().join(name);
    let set = |database: &str, types: Value| {
        place.set(|settings| {
            settings["registration"] = json!({ "store": { "path": path(database) }, "types": types });
            settings["stateDirectory"] = json!(path("state"));
        });
    };
    let both = || json!({ "apns": "ios", "fcm": "android" });
    let device = |node: &str, kind: &str| {
        json!({
            "dialect": "mod_push_appserver", "type": kind, "node": node, "secret": "secret", "token": apple(1),
            "owner": "bob@a.example", "registered": "2026-01-01T00:00:00Z",
        })
        .to_string()
    };
    let lines = [device("a", "apns"), device("b", "fcm"), device("c", "fcm")].join("\n");
    let devices = place.write("devices.jsonl", &lines).display().to_string();
    set("devices.db", json!({ "apns": "ios" }));
    let lost = "push type \"fcm\", which registration.types does not have (2 devices)";
    let said = place.run_with(&["import", "json", &devices], &[]);
    assert_eq!(said.status, Some(0), "{}", said.err);
    assert!(said.err.contains(lost), "{}", said.err);
    let said = place.run_with(&["check"], &[]);
    assert_eq!(said.status, Some(0), "{}", said.err);
    assert!(said.err.contains(lost), "{}", said.err);

    let daemon = Daemon::builder(PROGRAM).args([place.settings()]).start();
    let link = place.accept(&daemon);
    daemon.wait_for_log("which registration.types does not have", LONG);
    let known = path("state/registry.jsonl");
    fpush_testkit::until(LONG, "the state directory knows the devices", || {
        fs::read_to_string(&known).is_ok_and(|known| known.contains("\"devices\":3"))
    });
    // What its reload would say.
    set("misspelt.db", both());
    let said = place.run_with(&["check"], &[]);
    let words = "the database there has no device, and the one in use has some";
    assert_eq!(said.status, Some(CONFIG), "{}", said.err);
    assert!(said.err.contains(words), "{}", said.err);
    drop((link, daemon));

    let words = "this is another database than the one that fpush knew, which had 3 registered devices";
    let said = place.run_with(&["check"], &[]);
    assert_eq!(said.status, Some(0), "{}", said.err);
    assert!(
        said.err.contains(words) && !path("misspelt.db").exists(),
        "{}",
        said.err
    );
    set("devices.db", both());
    let said = place.run_with(&["check"], &[]);
    assert_eq!((said.status, said.err.as_str()), (Some(0), ""), "{}", said.out);
}

/// A start says it of the first, and waits for nobody at the second.
#[test]
fn what_is_not_a_file_is_found_by_a_check() {
    let place = Place::new();
    let fifo = place.dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for (database, words) in [
        (Path::new("/dev/null"), "it is not a regular file"),
        (&*fifo, "it is not a regular file"),
        (Path::new("/proc/x/x.db"), "nothing can be made in /proc"),
    ] {
        place.set(|settings| registered(settings, database));
        let said = place.run_with(&["check"], &[]);
        assert_eq!(said.status, Some(CONFIG), "{}", said.err);
        assert!(said.err.contains(words), "{}", said.err);
    }
}
