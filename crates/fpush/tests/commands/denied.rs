//! Files that the user who runs fpush may not open: the words name this user, whose the file is, and the command.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::rig::{CONFIG, OS_ERROR, PROGRAM, Place, Said};

/// A user that owns nothing, and its name on Debian.
pub(crate) const NOBODY: u32 = 65_534;

/// A place that `nobody` can enter, with the program in it. Root becomes `nobody`, others stay who they are.
pub(crate) struct Shared {
    pub(crate) place: Place,
    program: PathBuf,
    pub(crate) is_root: bool,
}

impl Shared {
    pub(crate) fn new() -> Self {
        let place = Place::new();
        let is_root = fpush_testkit::is_root();
        let program = place.dir.path().join("fpush");
        // Copied by another process: what this one has open for writing is open in what it starts meanwhile, and cannot be run then.
        let copied = Command::new("cp").arg(PROGRAM).arg(&program).status();
        assert!(copied.unwrap().success());
        let shared = Self {
            place,
            program,
            is_root,
        };
        set_mode(shared.place.dir.path(), 0o755);
        for file in ["settings.json", "ca.pem", "key.p8", "fcm.json"] {
            shared.give(&shared.place.dir.path().join(file));
        }
        shared
    }

    /// Makes it the user's own.
    pub(crate) fn give(&self, path: &Path) {
        if self.is_root {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// Makes it somebody else's, or at least nothing that the user may open.
    pub(crate) fn take(&self, path: &Path) {
        if self.is_root {
            chown(path, Some(0), Some(0)).unwrap();
            set_mode(path, 0o600);
        } else {
            set_mode(path, 0o000);
        }
    }

    pub(crate) fn run(&self, args: &[&str]) -> Said {
        let mut command = Command::new(&self.program);
        command.args(args).arg(self.place.settings());
        if self.is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        Said::of(command.output().unwrap())
    }

    /// What must be said of a file that was taken.
    pub(crate) fn words(&self, path: &Path, rights: &str, commands: &str) -> String {
        let shown = path.display();
        if self.is_root {
            let commands = commands.replace("PATH", &shown.to_string());
            format!("this runs as user nobody, and {shown} belongs to root (mode 600); do: {commands}")
        } else {
            format!("(mode 0); do: chmod u+{rights} {shown}")
        }
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

const READ: &str = "setfacl -m u:nobody:r PATH, or chown nobody PATH, or hand the file over with LoadCredential= of the unit \
    file";

#[test]
fn a_key_that_is_somebody_elses() {
    let shared = Shared::new();
    let key = shared.place.dir.path().join("key.p8");
    shared.take(&key);
    let said = shared.run(&["check"]);
    assert_eq!(said.status, Some(CONFIG), "{}", said.err);
    let words = shared.words(&key, "r", READ);
    assert!(said.err.contains(&words), "no {words} in {}", said.err);
}

#[test]
fn settings_that_are_somebody_elses() {
    let shared = Shared::new();
    shared.take(&shared.place.settings());
    let said = shared.run(&["check"]);
    assert_eq!(said.status, Some(CONFIG), "{}", said.err);
    let words = shared.words(&shared.place.settings(), "r", READ);
    assert!(said.err.contains(&words), "no {words} in {}", said.err);
}

/// The user's own state directory, and in it a file of this name that is somebody else's.
fn with_left_in_the_state_directory(name: &str) -> (Shared, PathBuf) {
    let shared = Shared::new();
    let state = shared.place.dir.path().join("state");
    shared
        .place
        .set(|settings| settings["stateDirectory"] = json!(state));
    shared.give(&shared.place.settings());
    fs::create_dir(&state).unwrap();
    set_mode(&state, 0o700);
    let left = state.join(name);
    fs::write(&left, "").unwrap();
    shared.give(&state);
    shared.take(&left);
    (shared, left)
}

/// What a start could not open, a check names, with the command that mends it.
#[test]
fn a_check_finds_whatever_root_has_left_in_the_state_directory() {
    for name in ["lock", "spool.db", "spool.db-wal", "blocklist.jsonl"] {
        let (shared, left) = with_left_in_the_state_directory(name);
        let said = shared.run(&["check"]);
        assert_eq!(said.status, Some(CONFIG), "{name}: {}", said.err);
        let shown = left.display();
        let words = format!("cannot read and write {shown}: ");
        assert!(said.err.contains(&words), "no {words} in {}", said.err);
        let command = format!("do: chown nobody {shown}");
        assert!(!shared.is_root || said.err.contains(&command), "{}", said.err);
    }
}

/// As after a start by root, by mistake. The folder itself is right.
#[test]
fn a_lock_that_root_has_left() {
    let (shared, lock) = with_left_in_the_state_directory("lock");
    let said = shared.run(&[]);
    assert_eq!(said.status, Some(OS_ERROR), "{}", said.err);
    let words = shared.words(&lock, "rw", "chown nobody PATH");
    assert!(said.err.contains(&words), "no {words} in {}", said.err);
    assert!(!said.err.contains("make it a folder"), "{}", said.err);
}
