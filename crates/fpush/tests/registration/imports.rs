//! What an operator sees of an import that takes long, in each form; and what it does when it is run again: nothing.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use fpush_testkit::until;

use crate::rig::{LONG, PROGRAM, Rig, lines};

/// The program at a terminal, which `script` gives it.
struct AtTerminal {
    script: Child,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl AtTerminal {
    fn run(rig: &Rig, arguments: &str) -> Self {
        let command = format!("{PROGRAM} {arguments}");
        let mut script = Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .current_dir(rig.path(""))
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut output, shown) = (script.stdout.take().unwrap(), Arc::clone(&seen));
        thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().extend(&bytes[..read]);
            }
        });
        Self { script, seen }
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    fn wait(&mut self) -> ExitStatus {
        self.script.wait().unwrap()
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

fn json(number: usize) -> String {
    format!(
        r#"{{"dialect":"p2","type":"fcm","node":"n-{number}","secret":"s-{number}","token":"t-{number}","registered":"2026-01-01T00:00:00Z"}}"#
    )
}

fn p2(number: usize) -> String {
    format!("FCM\t{number:040x}\t\ta.example\tt-{number}\tn-{number}\ts-{number}")
}

fn mod_push_appserver(number: usize) -> String {
    format!(
        "return {{ [\"type\"] = \"fcm\"; [\"node\"] = \"n-{number}\"; [\"secret\"] = \"s-{number}\"; [\"token\"] = \"t-{number}\"; \
         [\"registered\"] = \"2026-01-01T00:00:00Z\"; }};\n"
    )
}

/// Runs an import again, without a terminal, and expects that it is nothing; not even in what an export says.
#[track_caller]
fn expect_nothing_new(rig: &Rig, import: &[&str], devices: usize) {
    let before = rig.operate(&["export", "settings.json"]).stdout;
    assert_eq!(lines(&before).len(), devices);
    for _ in 0..2 {
        let said = rig.operate(import);
        assert!(said.status.success(), "{said:?}");
        let expected = format!("0 devices added, 0 changed, {devices} there already, 0 not imported");
        assert_eq!(lines(&said.stdout), [expected]);
        assert_eq!(lines(&said.stderr), [""; 0], "nobody sees a bar there");
        assert_eq!(rig.operate(&["export", "settings.json"]).stdout, before);
    }
}

/// A file that comes slowly: it says how far it is while it waits.
#[test]
fn a_slow_import_says_how_far_it_is_and_again_is_nothing() {
    let mut rig = Rig::start();
    rig.stop();
    let columns = "service\tdevice\tchannel\tdomain\ttoken\tnode\tsecret\n";
    for (form, first, line) in [("json", "", json as fn(usize) -> String), ("p2", columns, p2)] {
        let pipe = format!("{form}.pipe");
        let made = Command::new("mkfifo").arg(rig.path(&pipe)).status();
        assert!(made.unwrap().success());
        let mut import = AtTerminal::run(&rig, &format!("import {form} {pipe} settings.json"));
        let mut file = File::options().write(true).open(rig.path(&pipe)).unwrap();
        let mut all = first.to_owned();
        file.write_all(first.as_bytes()).unwrap();
        for (devices, shown) in [(0..700, "700 devices read"), (700..1_700, "1,700 devices read")] {
            let part: String = devices.map(|number| line(number) + "\n").collect();
            file.write_all(part.as_bytes()).unwrap();
            all += &part;
            // It has read a line that is not complete yet.
            until(LONG, shown, || import.seen().contains(shown));
            assert!(!import.seen().contains("added"), "{}", import.seen());
        }
        drop(file);
        assert!(import.wait().success(), "{}", import.seen());
        let summary = "1700 devices added, 0 changed, 0 there already, 0 not imported";
        until(LONG, "the summary", || import.seen().contains(summary));
        let name = format!("{form}.file");
        fs::write(rig.path(&name), all).unwrap();
        expect_nothing_new(&rig, &["import", form, &name, "settings.json"], 1_700);
        for database in ["devices.db", "devices.db-wal", "devices.db-shm"] {
            let _ = fs::remove_file(rig.path(database));
        }
    }
}

/// Of files it is known how many there are.
#[test]
fn an_import_of_many_files_says_how_far_it_is_of_how_many_and_again_is_nothing() {
    let mut rig = Rig::start();
    rig.stop();
    let store = rig.path("prosody/push%2eexample/push_appserver");
    fs::create_dir_all(&store).unwrap();
    for number in 0..1_100 {
        let file = store.join(format!("n%2d{number}.dat"));
        fs::write(file, mod_push_appserver(number)).unwrap();
    }
    let mut import = AtTerminal::run(&rig, "import mod_push_appserver prosody settings.json");
    assert!(import.wait().success(), "{}", import.seen());
    let summary = "1100 devices added, 0 changed, 0 there already, 0 not imported";
    until(LONG, "the summary", || import.seen().contains(summary));
    assert!(import.seen().contains("of 1,100 devices"), "{}", import.seen());
    let import = ["import", "mod_push_appserver", "prosody", "settings.json"];
    expect_nothing_new(&rig, &import, 1_100);
}
