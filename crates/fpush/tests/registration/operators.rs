//! What operators do on the command line, also while the daemon runs.

use std::{fs, process::Output, time::Duration};

use fpush_testkit::Postgres;
use serde_json::{Value, json};

use crate::rig::{ALICE, LONG, MISSING, RESULT, Rig, TROUBLE, apple, google, lines, merged, until};

/// What an operator does reaches a running daemon within 10 s; the rest is for a machine that has more to do.
const NOTICED: Duration = Duration::from_secs(12);

#[track_caller]
fn assert_says(output: &Output, status: i32, line: &str) {
    let said = lines(&output.stdout).concat() + &lines(&output.stderr).concat();
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    assert!(said.contains(line), "no {line:?} in {output:?}");
}

/// One device of each dialect. Returns nodes and secrets, in the order of registration.
fn populate(rig: &mut Rig) -> Vec<(String, String)> {
    let mut devices = vec![(
        "näh & 'so'".to_owned(),
        rig.register(ALICE, "näh & 'so'", &apple(1)),
    )];
    let answer = rig.post(
        "register",
        &format!("type=fcm&node=over+http&token={}", google(1)),
    );
    devices.push((answer[1].clone(), answer[2].clone()));
    let fields = [
        ("token", google(2)),
        ("device-id", "d".to_owned()),
        ("muc", "room@muc.a.example".to_owned()),
    ];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    let form = rig.form(ALICE, "register-push-fcm", &fields);
    devices.push((form.value("node").to_owned(), form.value("secret").to_owned()));
    let fields = [
        ("provider", "tigase:messenger:apns:1"),
        ("device-token", &apple(3)),
        ("device-second-token", &apple(4)),
    ];
    let form = rig.form(ALICE, "register-device", &fields);
    devices.push((form.value("node").to_owned(), "none is needed".to_owned()));
    devices
}

#[test]
fn what_is_exported_is_imported_elsewhere_as_it_was() {
    let mut rig = Rig::start();
    let devices = populate(&mut rig);
    for (node, secret) in &devices {
        assert_eq!(rig.push(node, secret), RESULT);
    }
    rig.stop();
    let exported = rig.operate(&["export", "settings.json"]).stdout;
    assert_eq!(lines(&exported).len(), 4);

    let mut other = Rig::start();
    fs::write(other.path("devices.jsonl"), &exported).unwrap();
    let import = ["import", "json", "devices.jsonl", "settings.json"];
    assert_says(
        &other.operate(&import),
        0,
        "4 devices added, 0 changed, 0 there already, 0 not imported",
    );
    assert_says(
        &other.operate(&import),
        0,
        "0 devices added, 0 changed, 4 there already, 0 not imported",
    );
    assert_eq!(other.operate(&["export", "settings.json"]).stdout, exported);
    other.stop();
    other.start_again();
    for (node, secret) in &devices {
        assert_eq!(other.push(node, secret), RESULT, "{node}");
    }
    assert!(
        other
            .apns
            .requests()
            .iter()
            .any(|request| request.token == apple(3))
    );
    let send = &other.fcm.data_for(&google(2))[0];
    assert!(
        send["account"].is_string() && send["channel"].is_string(),
        "{send}"
    );
    // The same client there renews the same device, although that server makes other nodes.
    let fields = [
        ("token", google(5)),
        ("device-id", "d".to_owned()),
        ("muc", "room@muc.a.example".to_owned()),
    ];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    let renewed = other.form(ALICE, "register-push-fcm", &fields);
    assert_eq!(
        (renewed.value("node"), renewed.value("secret")),
        (&*devices[2].0, &*devices[2].1)
    );
    // What was renewed since is left alone by the older line.
    assert_says(
        &other.operate(&import),
        0,
        "0 devices added, 0 changed, 4 there already, 0 not imported",
    );
    other.expect_google(&devices[2].0, Some(&devices[2].1), &google(5));
}

#[test]
fn a_running_daemon_hears_of_what_is_imported_and_removed() {
    let mut rig = Rig::start();
    let mut from = Rig::with(json!({ "http": null }));
    let imported = from.register(ALICE, "imported", &apple(2));
    fs::write(
        rig.path("devices.jsonl"),
        from.operate(&["export", "settings.json"]).stdout,
    )
    .unwrap();
    let removed = rig.register(ALICE, "removed", &apple(1));
    let kept = rig.register(ALICE, "kept", &apple(1));
    assert_says(
        &rig.operate(&["devices", "remove", "removed", "settings.json"]),
        0,
        "removed",
    );
    assert_says(
        &rig.operate(&["import", "json", "devices.jsonl", "settings.json"]),
        0,
        "1 devices added, 0 changed, 0 there already, 0 not imported",
    );
    until(NOTICED, "the removed device is gone", || {
        rig.push("removed", &removed) == MISSING
    });
    until(NOTICED, "the imported device is there", || {
        rig.push("imported", &imported) == RESULT
    });
    assert_eq!(rig.push("kept", &kept), RESULT);
    assert_says(
        &rig.operate(&["devices", "remove", "removed", "settings.json"]),
        1,
        "no device is registered under this node",
    );
}

#[test]
fn devices_are_listed_and_shown_without_their_secrets() {
    let mut rig = Rig::start();
    let devices = populate(&mut rig);
    rig.form(
        ALICE,
        "v1-register-push",
        &[("type", "apns"), ("node", &devices[0].0), ("token", &apple(1))],
    );
    let list = rig.operate(&["devices", "list", "settings.json"]);
    assert_eq!(list.status.code(), Some(0));
    let listed = lines(&list.stdout);
    assert_eq!(listed.len(), 4);
    // The first one has registered twice.
    let never = listed.iter().filter(|line| line.ends_with("\trenewed never"));
    assert_eq!(never.count(), 3, "{listed:?}");
    for ((node, _), kind) in devices
        .iter()
        .zip(["apns", "fcm", "fcm", "tigase:messenger:apns:1"])
    {
        assert!(
            listed
                .iter()
                .any(|line| line.starts_with(&format!("{node}\t{kind}\t"))),
            "{listed:?}"
        );
    }
    let shown = [
        [
            "dialect: mod_push_appserver",
            "type: apns",
            "owner: alice@a.example",
        ],
        [
            "dialect: mod_push_appserver",
            "type: fcm",
            "owner: none (registered over HTTP)",
        ],
        ["dialect: p2", "type: fcm", "owner: alice@a.example"],
        [
            "dialect: tigase",
            "type: tigase:messenger:apns:1",
            "owner: alice@a.example",
        ],
    ];
    for (number, ((node, secret), expected)) in devices.iter().zip(shown).enumerate() {
        let show = rig.operate(&["devices", "show", node, "settings.json"]);
        assert_eq!(show.status.code(), Some(0));
        let shown = lines(&show.stdout);
        for line in expected {
            assert!(shown.iter().any(|shown| shown == line), "{shown:?}");
        }
        assert!(
            shown.contains(&"last_successful_push: never".to_owned()),
            "{shown:?}"
        );
        assert_eq!(
            shown.contains(&"renewed: never".to_owned()),
            number != 0,
            "{shown:?}"
        );
        for output in [&list, &show] {
            let text = lines(&output.stdout).concat();
            assert!(
                !text.contains(secret) && !text.contains(&apple(1)) && !text.contains(&google(1)),
                "{text}"
            );
        }
    }
    assert_says(
        &rig.operate(&["devices", "show", "nothing", "settings.json"]),
        1,
        "no device is registered under this node",
    );
}

/// The path is misspelt, a volume is not mounted, or it is another database.
#[test]
fn a_command_makes_no_database_but_an_import() {
    let rig = Rig::start();
    let server = Postgres::shared();
    let nowhere = rig.path("not-mounted").join("devices.db");
    let file = json!({ "type": "sqlite", "path": nowhere });
    let tables = json!({ "type": "postgres", "path": null, "url": server.database() });
    let settings: Value =
        serde_json::from_str(&fs::read_to_string(rig.path("settings.json")).unwrap()).unwrap();
    let (no_file, no_tables) = (
        "not-mounted/devices.db; correct registration.store.path",
        "has never held registered devices",
    );
    for (store, problem) in [(file, no_file), (tables, no_tables)] {
        let other = merged(settings.clone(), json!({ "registration": { "store": store } }));
        fs::write(rig.path("other.json"), other.to_string()).unwrap();
        for command in [
            &["export"] as &[&str],
            &["devices", "list"],
            &["devices", "show", "n"],
            &["devices", "accept"],
            &["devices", "remove", "n"],
        ] {
            for _ in 0..2 {
                assert_says(&rig.operate(&[command, &["other.json"]].concat()), 71, problem);
            }
        }
        assert!(problem != no_file || !rig.path("not-mounted").exists());
        fs::write(rig.path("none.jsonl"), "").unwrap();
        let import = ["import", "json", "none.jsonl", "other.json"];
        assert_says(&rig.operate(&import), 0, "0 devices added");
        assert_says(&rig.operate(&["devices", "list", "other.json"]), 0, "");
    }
}

#[test]
fn a_command_says_why_the_database_failed() {
    let server = Postgres::shared();
    let url = server.database();
    let rig = Rig::with(json!({ "store": { "type": "postgres", "path": null, "url": url } }));
    let refusal = "ALTER TABLE devices ADD CHECK (node <> 'refused')";
    server.psql(server.name(&url), refusal).unwrap();
    let line = |node: &str| {
        json!({
            "dialect": "mod_push_appserver", "type": "apns", "node": node, "secret": "s", "token": apple(1),
            "registered": "2026-01-01T00:00:00Z",
        })
    };
    fs::write(rig.path("refused.jsonl"), line("refused").to_string()).unwrap();
    let import = rig.operate(&["import", "json", "refused.jsonl", "settings.json"]);
    assert_says(&import, 71, "the database refuses a registration");
    assert_says(&import, 71, "code 23514");
    assert_says(&import, 71, "0 devices were imported or there already");
    assert!(!lines(&import.stderr).concat().contains(&apple(1)));
    let list = rig.operate(&["devices", "list", "settings.json"]);
    assert_eq!(
        (list.status.code(), list.stderr.as_slice()),
        (Some(0), &[] as &[u8])
    );
}

#[test]
fn lines_that_are_not_devices_are_reported_and_the_others_imported() {
    let rig = Rig::start();
    let line = |node: &str, secret: &str| {
        json!({
            "dialect": "mod_push_appserver", "type": "apns", "node": node, "secret": secret,
            "token": apple(1), "registered": "2017-03-18T04:07:44Z",
        })
        .to_string()
    };
    let file = [
        line("good", "secret-1"),
        "secret-2".to_owned(),
        line("", "secret-3"),
        line("good", "secret-4"),
        line("bad\u{7}", "secret-5"),
        line("date", "secret-6").replace("2017-03-18", "yesterday"),
        line("also good", "secret-7"),
        line("cut", "secret-8")[..50].to_owned(),
    ]
    .join("\n");
    fs::write(rig.path("devices.jsonl"), file).unwrap();
    let import = rig.operate(&["import", "json", "devices.jsonl", "settings.json"]);
    assert_says(
        &import,
        1,
        "2 devices added, 0 changed, 0 there already, 6 not imported",
    );
    for (place, reason) in [
        ("line 2 and 1 more", "this is not a device"),
        ("line 3 and 1 more", "a field is empty"),
        ("line 6", "a time is not in the form"),
    ] {
        assert_says(
            &import,
            1,
            &format!("not imported: devices.jsonl, {place}: {reason}"),
        );
    }
    assert_says(&import, 1, "not imported: a node: it occurs twice");
    let said = [import.stdout, import.stderr].concat();
    assert!(!String::from_utf8(said).unwrap().contains("secret-"));
    let nodes: Vec<_> = rig
        .export()
        .iter()
        .map(|device| device["secret"].clone())
        .collect();
    assert_eq!(nodes, ["secret-7", "secret-1"]);

    // As an editor of another system leaves it, with more mistakes than anybody reads.
    let mut file = format!("\u{feff}{}\r\n", line("marked", "secret-9"));
    file += &"secret-10\r\n".repeat(15);
    fs::write(rig.path("devices.jsonl"), file).unwrap();
    let import = rig.operate(&["import", "json", "devices.jsonl", "settings.json"]);
    assert_says(
        &import,
        1,
        "1 devices added, 0 changed, 0 there already, 15 not imported",
    );
    let said = String::from_utf8(import.stderr).unwrap();
    assert!(
        said.contains("not imported: devices.jsonl, line 2 and 14 more: this is not a device"),
        "{said}"
    );
    assert!(
        said.matches("not imported").count() == 1 && !said.contains("secret-"),
        "{said}"
    );

    let tables: Vec<_> = (0..15)
        .map(|length| {
            (
                format!("{length}.dat"),
                "return { ".to_owned() + &"1; ".repeat(length),
            )
        })
        .collect();
    fs::create_dir_all(rig.path("many/push_appserver")).unwrap();
    for (name, table) in tables {
        fs::write(rig.path("many/push_appserver").join(name), table).unwrap();
    }
    let import = rig.operate(&["import", "mod_push_appserver", "many", "settings.json"]);
    assert_says(
        &import,
        1,
        "0 devices added, 0 changed, 0 there already, 15 not imported",
    );
    let said = String::from_utf8(import.stderr).unwrap();
    assert!(
        said.matches("not imported: ").count() == 11 && said.contains("not imported: 5 for other reasons"),
        "{said}"
    );

    let missing = rig.operate(&["import", "json", "nothing.jsonl", "settings.json"]);
    assert_says(&missing, 71, "cannot read nothing.jsonl");
}

#[test]
fn a_folder_of_the_originals_is_taken_over() {
    let mut rig = Rig::start();
    let store = |host: &str| {
        let store = rig.path("prosody").join(host).join("push_appserver");
        fs::create_dir_all(&store).unwrap();
        store
    };
    let (one, two) = (store("push%2elocalhost"), store("push%2dtwo%2eexample"));
    fs::create_dir_all(rig.path("prosody/push%2elocalhost/accounts")).unwrap();
    fs::write(rig.path("prosody/push%2elocalhost/accounts/x.dat"), "return {};").unwrap();
    let record = |node: &str, kind: &str, token: &str, more: &str| {
        format!(
            "return {{\n\t[\"type\"] = \"{kind}\";\n\t[\"node\"] = \"{node}\";\n\t[\"secret\"] = \"secret of {node}\";\n\
             \t[\"token\"] = \"{token}\";\n\t[\"registered\"] = \"2017-03-18T04:07:44Z\";\n{more}}};\n"
        )
    };
    let dates = "\t[\"renewed\"] = \"2022-11-05T10:00:00Z\";\n\t[\"last_successful_push\"] = \"2022-11-06T10:00:00Z\";\n";
    fs::write(
        one.join("E0FF1D8C%2dEB96.dat"),
        record("E0FF1D8C-EB96", "apns", &apple(1), dates),
    )
    .unwrap();
    fs::write(
        one.join("a%2fb%2e%c3%a4.dat"),
        record("a/b.\\195\\164", "fcm", &google(1), ""),
    )
    .unwrap();
    fs::write(two.join("second.dat"), record("second", "apns", &apple(2), "")).unwrap();
    fs::write(one.join("other.dat"), record("another", "apns", &apple(3), "")).unwrap();
    let touched = rig.path("touched");
    let attack = format!("os.execute(\"touch {}\")", touched.display());
    fs::write(one.join("lua.dat"), format!("{attack}; return {{}}")).unwrap();
    fs::write(
        one.join("call.dat"),
        format!("return {{ [\"type\"] = {attack} }}"),
    )
    .unwrap();
    fs::write(one.join("cut.dat"), &record("cut", "apns", &apple(4), "")[..60]).unwrap();
    fs::write(
        one.join("large.dat"),
        record("large", "apns", &"x".repeat(100_000), ""),
    )
    .unwrap();
    fs::create_dir(one.join("folder.dat")).unwrap();
    fs::write(one.join("notes.txt"), "no device").unwrap();

    let import = ["import", "mod_push_appserver", "prosody", "settings.json"];
    let first = rig.operate(&import);
    assert_says(
        &first,
        1,
        "3 devices added, 0 changed, 0 there already, 6 not imported",
    );
    let problems: Vec<_> = lines(&first.stderr)
        .into_iter()
        .filter(|line| line.starts_with("not imported: "))
        .collect();
    for (name, problem) in [
        ("other.dat", "is named after another node than the one in it"),
        ("lua.dat", "is not a table as Prosody writes it"),
        ("call.dat", "is not a table as Prosody writes it"),
        ("cut.dat", "is not a table as Prosody writes it"),
        ("large.dat", "is larger than 64 KiB"),
        ("folder.dat", "cannot be read"),
    ] {
        assert!(
            problems
                .iter()
                .any(|line| line.contains(name) && line.contains(problem)),
            "{name}: {problems:#?}"
        );
    }
    assert_eq!(problems.len(), 6);
    assert!(!touched.exists(), "nothing is executed");
    assert!(!problems.concat().contains("secret of"));
    assert_says(
        &rig.operate(&import),
        1,
        "0 devices added, 0 changed, 3 there already, 6 not imported",
    );
    for name in ["other", "lua", "call", "cut", "large"] {
        fs::remove_file(one.join(name).with_extension("dat")).unwrap();
    }
    fs::remove_dir(one.join("folder.dat")).unwrap();
    assert_says(
        &rig.operate(&import),
        0,
        "0 devices added, 0 changed, 3 there already, 0 not imported",
    );

    rig.stop();
    rig.start_again();
    assert_eq!(rig.push("second", "secret of second"), RESULT);
    rig.expect_apple(
        "E0FF1D8C-EB96",
        Some("secret of E0FF1D8C-EB96"),
        "org.example.ios",
        &apple(1),
    );
    rig.expect_google("a/b.ä", Some("secret of a/b.ä"), &google(1));
    assert_eq!(rig.push("second", "another"), TROUBLE);
    let device = rig
        .export()
        .into_iter()
        .find(|device| device["node"] == "E0FF1D8C-EB96")
        .unwrap();
    assert_eq!(device["registered"], "2017-03-18T04:07:44Z");
    assert_eq!(device["renewed"], "2022-11-05T10:00:00Z");
    // The app registers again, as if nothing had happened.
    let fields = [("type", "apns"), ("node", "E0FF1D8C-EB96"), ("token", &apple(9))];
    let form = rig.form(ALICE, "v1-register-push", &fields);
    assert_ne!(
        form.value("secret"),
        "secret of E0FF1D8C-EB96",
        "nobody has proved whose it is"
    );
    assert_says(&rig.operate(&import), 0, "3 there already");
    rig.expect_apple(
        "E0FF1D8C-EB96",
        Some("secret of E0FF1D8C-EB96"),
        "org.example.ios",
        &apple(9),
    );

    let empty = rig.operate(&[
        "import",
        "mod_push_appserver",
        "prosody/push%2elocalhost/accounts",
        "settings.json",
    ]);
    assert_says(&empty, 71, "there is no file HOST/push_appserver/NODE.dat");
    let nothing = rig.operate(&["import", "mod_push_appserver", "nothing", "settings.json"]);
    assert_says(&nothing, 71, "cannot read nothing");
}

#[test]
fn without_registration_there_is_nothing_to_look_at() {
    let rig = Rig::start();
    let settings = fs::read_to_string(rig.path("settings.json")).unwrap();
    let mut settings: Value = serde_json::from_str(&settings).unwrap();
    settings["registration"]["rateLimit"] = json!("soon");
    fs::write(rig.path("wrong.json"), settings.to_string()).unwrap();
    settings.as_object_mut().unwrap().remove("registration");
    fs::write(rig.path("none.json"), settings.to_string()).unwrap();
    for arguments in [
        ["export"].as_slice(),
        &["devices", "list"],
        &["devices", "show", "n"],
    ] {
        let with = |file| rig.operate(&[arguments, &[file]].concat());
        let none = with("none.json");
        assert!(!none.status.success());
        assert_says(
            &none,
            none.status.code().unwrap(),
            "has no block \"registration\"",
        );
        let wrong = with("wrong.json");
        assert!(!wrong.status.success());
        assert_says(&wrong, wrong.status.code().unwrap(), "registration.rateLimit");
    }
    let check = rig.operate(&["check", "settings.json"]);
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    assert!(
        lines(&check.stdout).concat().contains("SQLite, devices.db"),
        "{check:?}"
    );
    drop(rig.daemon.wait_for_log("started", LONG));
}

#[test]
fn what_registered_here_goes_back_to_mod_push_appserver() {
    let mut rig = Rig::start();
    let devices = populate(&mut rig);
    rig.register(ALICE, &"long node ".repeat(20), &apple(6));
    for (node, secret) in &devices {
        assert_eq!(rig.push(node, secret), RESULT);
    }
    rig.stop();
    let store = "prosody/push%2elocalhost/push_appserver";
    let args = [
        "export",
        "--format",
        "mod_push_appserver",
        "--folder",
        store,
        "settings.json",
    ];
    let exported = rig.operate(&args);
    assert_says(&exported, 1, "left out: 3 devices");
    let mut names: Vec<_> = fs::read_dir(rig.path(store))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["n%c3%a4h%20%26%20%27so%27.dat", "over%20http.dat"]);
    assert_says(&rig.operate(&args), 71, "is not empty");
    let unnamed = rig.operate(&["export", "--format", "mod_push_appserver", "settings.json"]);
    assert_eq!(unnamed.status.code(), Some(2));
    // What goes to standard output goes into no folder: nothing is written, least of all a secret to the terminal.
    for format in [&["--format", "json"] as &[&str], &["--format", "p2"], &[]] {
        let args = [&["export"], format, &["--folder", "elsewhere", "settings.json"]].concat();
        let refused = rig.operate(&args);
        assert_says(&refused, 2, "--folder is for --format mod_push_appserver alone");
        assert!(
            refused.stdout.is_empty() && !rig.path("elsewhere").exists(),
            "{args:?}"
        );
    }

    // Lua itself reads it as mod_push_appserver does.
    let file = rig.path(store).join(&names[0]);
    let script = format!(
        "local t = dofile({:?}); print(t.type, t.node, t.secret)",
        file.to_str().unwrap()
    );
    let read = std::process::Command::new("lua5.4")
        .args(["-e", &script])
        .output();
    let read = read.expect("Prosody depends on lua5.4");
    let (node, secret) = &devices[0];
    assert_eq!(
        String::from_utf8(read.stdout).unwrap(),
        format!("apns\t{node}\t{secret}\n")
    );

    // And what comes back is what went away.
    let mut other = Rig::start();
    other.stop();
    std::os::unix::fs::symlink(rig.path("prosody"), other.path("prosody")).unwrap();
    let import = ["import", "mod_push_appserver", "prosody", "settings.json"];
    assert_says(
        &other.operate(&import),
        0,
        "2 devices added, 0 changed, 0 there already, 0 not imported",
    );
    let dates = ["registered", "renewed", "last_successful_push", "last_push_error"];
    let seconds = |date: &Value| {
        date.as_str()
            .map(|date| date.split('.').next().unwrap().trim_end_matches('Z').to_owned())
    };
    for device in other.export() {
        let before = rig.export();
        let before = before
            .iter()
            .find(|before| before["node"] == device["node"])
            .unwrap();
        for key in ["type", "secret", "token"] {
            assert_eq!(device[key], before[key]);
        }
        for key in dates {
            assert_eq!(seconds(&device[key]), seconds(&before[key]), "{key}");
        }
    }
    // To where it came from it brings nothing new.
    assert_says(
        &rig.operate(&import),
        0,
        "0 devices added, 0 changed, 2 there already, 0 not imported",
    );
}
