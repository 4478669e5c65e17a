//! The socket between the commands and a daemon.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
        process::CommandExt as _,
    },
    path::Path,
    process::Command,
    thread,
};

use fpush_testkit::Daemon;
use serde_json::json;

use crate::rig::{ALONE, ASKED, LONG, NO, OS_ERROR, PROGRAM, Place, RESULT, Said, apple};

/// A user that owns nothing.
const NOBODY: u32 = 65_534;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn nobody_else_can_open_it_and_it_goes_with_the_daemon() {
    let place = Place::new();
    let running = place.start();
    let socket = place.socket();
    assert_eq!((mode(socket.parent().unwrap()), mode(&socket)), (0o700, 0o600));
    running.stop();
    assert!(!socket.exists());
}

#[test]
fn what_a_killed_daemon_left_behind_is_replaced() {
    let place = Place::new();
    let mut running = place.start();
    running.daemon.kill();
    assert!(place.socket().exists());
    place.send("ios", &apple(1)).expect(0, &[ALONE, "accepted"]);
    running.daemon.start_again();
    let _link = place.accept(&running.daemon);
    place.send("ios", &apple(1)).expect(0, &[ASKED, "accepted"]);
}

#[test]
fn a_second_daemon_says_so_and_takes_nothing_from_the_first() {
    let place = Place::new();
    let mut running = place.start();
    let mut second = Daemon::builder(PROGRAM).args([place.settings()]).start();
    assert_eq!(second.wait(LONG).code(), Some(OS_ERROR), "{}", second.log());
    let folder = place.dir.path().join("run");
    let words = format!(
        "another fpush uses runtimeDirectory {}: stop it, or choose another folder",
        folder.display()
    );
    assert!(second.log().contains(&words), "{}", second.log());
    assert!(!place.somebody_knocks(), "it did not log in either");
    place.send("ios", &apple(1)).expect(0, &[ASKED]);
    assert_eq!(running.push("ios", &apple(1)), RESULT);
}

/// What it said of its own modules would not be an answer.
#[test]
fn a_daemon_does_not_answer_for_another_one() {
    let place = Place::new();
    let _running = place.start();
    place.set(|settings| settings["component"]["componentHostname"] = json!("other.localhost"));
    let words = [
        ASKED,
        "this is the fpush of push.localhost, and the settings are those of other.localhost",
        "a runtimeDirectory of its own",
    ];
    place.send("ios", &apple(1)).expect(NO, &words);
    place.check().expect(NO, &words);
    assert_eq!(place.apns.count(), 0);
}

/// With the folder that systemd makes there may be several daemons, of which one is asked.
#[test]
fn where_the_settings_name_no_folder_a_second_daemon_runs_and_warns() {
    let place = Place::new();
    place.set(|settings| drop(settings.as_object_mut().unwrap().remove("runtimeDirectory")));
    let run = place.dir.path().join("made-by-systemd");
    fs::create_dir(&run).unwrap();
    let start = || {
        let daemon = Daemon::builder(PROGRAM)
            .args([place.settings()])
            .env("RUNTIME_DIRECTORY", run.to_str().unwrap())
            .start();
        let link = place.accept(&daemon);
        (daemon, link)
    };
    let (first, _link) = start();
    assert!(run.join("control.sock").exists());
    let (second, _other_link) = start();
    let line = second.wait_for_log("another fpush answers at", LONG);
    assert!(
        line.contains("WARN") && line.contains("runtimeDirectory of its own"),
        "{line}"
    );
    assert!(!first.log().contains("another fpush"));
}

#[test]
fn a_folder_that_cannot_be_made_keeps_a_daemon_from_starting() {
    let place = Place::new();
    let folder = place.settings().join("run");
    place.set(|settings| settings["runtimeDirectory"] = json!(folder));
    let mut daemon = Daemon::builder(PROGRAM).args([place.settings()]).start();
    assert_eq!(daemon.wait(LONG).code(), Some(OS_ERROR));
    let words = format!(
        "cannot use runtimeDirectory {}: Not a directory",
        folder.display()
    );
    assert!(daemon.log().contains(&words), "{}", daemon.log());
    assert!(
        daemon
            .log()
            .contains("make it a folder that belongs to fpush's user")
    );

    let said = place.send("ios", &apple(1));
    assert_eq!(
        (said.status, said.out.as_str()),
        (Some(OS_ERROR), ""),
        "{}",
        said.err
    );
    assert!(
        said.err.contains("cannot ask the running fpush at"),
        "{}",
        said.err
    );
    assert_eq!(place.apns.count(), 0);
}

/// A file that happens to have the name is not removed.
#[test]
fn what_is_not_a_socket_stays() {
    let place = Place::new();
    fs::create_dir(place.dir.path().join("run")).unwrap();
    place.write("run/control.sock", "somebody's");
    let mut daemon = Daemon::builder(PROGRAM).args([place.settings()]).start();
    assert_eq!(daemon.wait(LONG).code(), Some(OS_ERROR), "{}", daemon.log());
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "somebody's");
}

/// A second login would disturb the daemon that runs: who may not ask it must not connect instead.
#[test]
fn who_may_not_open_it_is_told_and_nothing_is_sent() {
    let place = Place::new();
    let mut running = place.start();
    let args = ["send", "--module", "ios", "--token", &apple(1)];
    let said = if fs::metadata(place.dir.path()).unwrap().uid() == 0 {
        // Root may open everything, and becomes somebody else for this.
        fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(place.settings(), fs::Permissions::from_mode(0o644)).unwrap();
        let program = place.dir.path().join("fpush");
        fs::copy(PROGRAM, &program).unwrap();
        let mut command = Command::new(program);
        command.args(args).arg(place.settings()).uid(NOBODY).gid(NOBODY);
        Said::of(command.output().unwrap())
    } else {
        fs::set_permissions(place.socket(), fs::Permissions::from_mode(0o000)).unwrap();
        place.fpush(&args)
    };
    assert_eq!(
        (said.status, said.out.as_str()),
        (Some(OS_ERROR), ""),
        "{}",
        said.err
    );
    let user = match fs::metadata(place.dir.path()).unwrap().uid() {
        0 => "nobody".to_owned(),
        _ => {
            let id = Command::new("id").arg("-un").output().unwrap();
            String::from_utf8(id.stdout).unwrap().trim().to_owned()
        }
    };
    let words = format!(
        "error: cannot ask the running fpush at {}: Permission denied (os error 13); this is user {user}: run it as root or as \
         fpush's user\n",
        place.socket().display()
    );
    assert_eq!(said.err, words);
    assert_eq!(place.apns.count(), 0);
    assert_eq!(running.push("ios", &apple(1)), RESULT);
}

#[test]
fn nonsense_is_answered_and_harms_nobody() {
    let place = Place::new();
    let running = place.start();
    let long = "x".repeat(100_000) + "\n";
    for question in [
        "\n",
        "nonsense\n",
        "{\"send\":{\"module\":5}}\n",
        "\"check\"",
        &long,
    ] {
        let mut stream = UnixStream::connect(place.socket()).unwrap();
        // A daemon that has read enough of it closes the rest.
        drop(stream.write_all(question.as_bytes()));
        drop(stream.shutdown(std::net::Shutdown::Write));
        let mut answer = String::new();
        drop(stream.read_to_string(&mut answer));
        if question == "\"check\"" {
            assert!(answer.contains("\"ok\":"), "{answer}");
        } else {
            assert!(
                answer.contains("is it of another version?") || question.len() > 1_000,
                "{answer}"
            );
        }
    }
    // More than it answers at a time, none of which ever asks.
    let silent: Vec<_> = (0..3)
        .map(|_| UnixStream::connect(place.socket()).unwrap())
        .collect();
    place.send("ios", &apple(1)).expect(0, &[ASKED]);
    drop(silent);
    assert!(
        !running.daemon.log().contains("ERROR"),
        "{}",
        running.daemon.log()
    );
}

/// As one of another version might.
#[test]
fn an_answer_that_cannot_be_read_is_not_a_success() {
    let place = Place::new();
    fs::create_dir(place.dir.path().join("run")).unwrap();
    let listener = UnixListener::bind(place.socket()).unwrap();
    let answering = thread::spawn(move || {
        for answer in ["{\"fine\":true}\n", ""] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = [0; 1_024];
            assert!(stream.read(&mut question).unwrap() > 0);
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    for words in [
        "cannot be read: is it of another version?",
        "gave no answer: was it stopped meanwhile?",
    ] {
        let said = place.send("ios", &apple(1));
        assert_eq!(
            (said.status, said.out.as_str()),
            (Some(OS_ERROR), ""),
            "{}",
            said.err
        );
        assert!(
            said.err.starts_with("error: ") && said.err.contains(words),
            "{}",
            said.err
        );
    }
    answering.join().unwrap();
    assert_eq!(place.apns.count(), 0);
}
