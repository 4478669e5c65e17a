//! A database that is not what it was is not believed when it says that a device is gone, until an operator accepts it.

use std::{fs, process::Command, sync::Arc};

use fpush_testkit::{Answer, Postgres};
use serde_json::json;

use crate::rig::{ALICE, LONG, MISSING, RESULT, Rig, TROUBLE, apple, until};

/// Where the devices are.
enum Base {
    Sqlite,
    /// The server, and the name of the database.
    Postgres(Arc<Postgres>, String),
}

/// A daemon with a state directory, its database, and two devices: one lives, and one was unregistered.
struct Place {
    rig: Rig,
    base: Base,
    lives: String,
    ended: String,
}

impl Place {
    /// One with SQLite, and one with PostgreSQL.
    fn all() -> [Self; 2] {
        let server = Postgres::shared();
        let url = server.database();
        let name = server.name(&url).to_owned();
        let store = json!({ "type": "postgres", "url": url, "path": null });
        [
            Self::start(Rig::start(), Base::Sqlite),
            Self::start(Rig::with(json!({ "store": store })), Base::Postgres(server, name)),
        ]
    }

    fn start(mut rig: Rig, base: Base) -> Self {
        rig.remember();
        let lives = rig.register(ALICE, "lives", &apple(1));
        let ended = rig.register(ALICE, "ended", &apple(2));
        unregister(&mut rig, "ended");
        assert_eq!(rig.push("ended", &ended), MISSING);
        Self {
            rig,
            base,
            lives,
            ended,
        }
    }

    /// Makes a backup while no daemon runs.
    fn back_up(&self) {
        match &self.base {
            Base::Sqlite => drop(fs::copy(self.rig.path("devices.db"), self.rig.path("backup.db")).unwrap()),
            Base::Postgres(server, name) => {
                let copy = format!("CREATE DATABASE {name}_backup TEMPLATE {name}");
                server.psql("postgres", &copy).unwrap();
            }
        }
    }

    /// Puts the backup back.
    fn restore(&self) {
        match &self.base {
            Base::Sqlite => drop(fs::copy(self.rig.path("backup.db"), self.rig.path("devices.db")).unwrap()),
            Base::Postgres(server, name) => {
                for sql in [
                    format!("DROP DATABASE {name}"),
                    format!("CREATE DATABASE {name} TEMPLATE {name}_backup"),
                ] {
                    server.psql("postgres", &sql).unwrap();
                }
            }
        }
    }

    /// Settings that name a database where nothing is.
    fn misspell(&self) {
        let store = match &self.base {
            Base::Sqlite => json!({ "path": "devcies.db" }),
            Base::Postgres(server, _) => json!({ "url": server.database() }),
        };
        self.rig.change_settings(json!({ "store": store }));
    }

    /// And the right one again.
    fn correct(&self) {
        let store = match &self.base {
            Base::Sqlite => json!({ "path": "devices.db" }),
            Base::Postgres(server, name) => json!({ "url": server.url(name) }),
        };
        self.rig.change_settings(json!({ "store": store }));
    }

    /// Does this past fpush.
    #[track_caller]
    fn sql(&self, sql: &str) {
        match &self.base {
            Base::Sqlite => {
                let done = Command::new("sqlite3")
                    .args(["-cmd", ".timeout 10000"])
                    .arg(self.rig.path("devices.db"))
                    .arg(sql)
                    .status();
                assert!(done.unwrap().success(), "{sql}");
            }
            Base::Postgres(server, name) => drop(server.psql(name, sql).unwrap()),
        }
    }

    #[track_caller]
    fn accept(&self) {
        let accepted = self.rig.operate(&["devices", "accept", "settings.json"]);
        assert!(accepted.status.success(), "{accepted:?}");
    }
}

#[track_caller]
fn unregister(rig: &mut Rig, node: &str) {
    rig.form(ALICE, "v1-unregister-push", &[("type", "apns"), ("node", node)]);
}

#[test]
fn a_backup_that_was_restored_is_doubted_until_it_is_accepted() {
    for mut place in Place::all() {
        place.rig.stop();
        place.back_up();
        place.rig.start_again();
        assert_eq!(
            place.rig.push("ended", &place.ended),
            MISSING,
            "it is what it was"
        );
        let again = place.rig.register(ALICE, "ended", &apple(3));
        place.rig.stop();
        place.restore();
        // Whatever is written before the start does not hide it.
        for number in 0..5 {
            place.rig.import(ALICE, &format!("imported-{number}"), &apple(4));
        }
        place.rig.start_again();
        place.rig.daemon.wait_for_log("fpush devices accept", LONG);
        assert_eq!(
            place.rig.push("ended", &again),
            TROUBLE,
            "it has registered since"
        );
        assert_eq!(place.rig.push("lives", &place.lives), RESULT);
        place.rig.stop();
        place.rig.start_again();
        assert_eq!(
            place.rig.push("ended", &again),
            TROUBLE,
            "also after another start"
        );
        place.accept();
        place.rig.daemon.wait_for_log("is believed again", LONG);
        for start in 0..2 {
            assert_eq!(
                place.rig.push("ended", &again),
                TROUBLE,
                "start {start}: an operator who accepts it does not know who has registered since"
            );
            let node = format!("new-{start}");
            let secret = place.rig.register(ALICE, &node, &apple(5));
            unregister(&mut place.rig, &node);
            assert_eq!(place.rig.push(&node, &secret), MISSING, "it is accepted");
            place.rig.stop();
            place.rig.start_again();
            assert_eq!(place.rig.push(&node, &secret), MISSING, "it stays accepted");
        }
        place.rig.stop();
    }
}

/// Who remembers nothing cannot doubt a backup: what ended before the start may have registered again since, and that is lost.
#[test]
fn a_backup_that_was_restored_ends_nobody_where_nothing_is_remembered() {
    type Forget = fn(&Place);
    let forget: [(&str, Forget); 3] = [
        ("no state directory", |place| {
            place.rig.change_all_settings(|settings| {
                drop(settings.as_object_mut().unwrap().remove("stateDirectory"));
            });
        }),
        ("a new state directory", |place| {
            place
                .rig
                .change_all_settings(|settings| settings["stateDirectory"] = json!("other"));
        }),
        ("a file that nobody can read", |place| {
            fs::write(place.rig.path("state/registry.jsonl"), "{\"version\":").unwrap();
        }),
    ];
    for (what, forget) in forget {
        for mut place in Place::all() {
            place.rig.stop();
            place.back_up();
            place.rig.start_again();
            let again = place.rig.register(ALICE, "ended", &apple(3));
            place.rig.stop();
            place.restore();
            forget(&place);
            place.rig.start_again();
            for start in 0..3 {
                assert_eq!(place.rig.push("ended", &again), TROUBLE, "{what}, start {start}");
                assert_eq!(place.rig.push("lives", &place.lives), RESULT, "{what}");
                let node = format!("new-{start}");
                let secret = place.rig.register(ALICE, &node, &apple(4));
                unregister(&mut place.rig, &node);
                assert_eq!(place.rig.push(&node, &secret), MISSING, "{what}: of this run");
                if start == 1 {
                    place.rig.daemon.kill();
                } else {
                    place.rig.stop();
                }
                place.rig.start_again();
            }
            place.rig.stop();
        }
    }
}

/// A virtual machine, say, was put back to what it was: database and state directory know the same.
#[test]
fn a_machine_that_was_put_back_ends_nobody() {
    for mut place in Place::all() {
        for (minutes, answer) in [(40, MISSING), (70, TROUBLE)] {
            place.rig.stop();
            let file = place.rig.path("state/registry.jsonl");
            let text = fs::read_to_string(&file).unwrap();
            let (before, after) = text.split_once("\"seen\":").unwrap();
            let end = after.find(|letter: char| !letter.is_ascii_digit()).unwrap();
            let seen = after[..end].parse::<i64>().unwrap() - minutes * 60_000;
            fs::write(&file, format!("{before}\"seen\":{seen}{}", &after[end..])).unwrap();
            place.rig.start_again();
            assert_eq!(place.rig.push("ended", &place.ended), answer, "{minutes} min ago");
            assert_eq!(place.rig.push("lives", &place.lives), RESULT);
        }
        let new = place.rig.register(ALICE, "new", &apple(4));
        unregister(&mut place.rig, "new");
        assert_eq!(place.rig.push("new", &new), MISSING, "it ended after that");
        place.rig.stop();
    }
}

/// The device of a backup has another token by now. What the provider says of its old one is true, and not about it.
#[test]
fn no_word_of_a_provider_ends_a_device_of_a_doubted_database() {
    for mut place in Place::all() {
        place.rig.stop();
        place.back_up();
        place.rig.start_again();
        assert_eq!(place.rig.register(ALICE, "lives", &apple(9)), place.lives);
        place.rig.stop();
        place.restore();
        place.rig.start_again();
        place.rig.daemon.wait_for_log("fpush devices accept", LONG);
        place.rig.earn_trust("ios", apple);
        place.rig.apns.answer_with(|request| dead(&request.token));
        assert!(place.rig.push("lives", &place.lives).starts_with("wait/"));
        place.accept();
        place.rig.daemon.wait_for_log("is believed again", LONG);
        assert_eq!(place.rig.push("lives", &place.lives), MISSING);
        place.rig.stop();
    }
}

/// Apple's opinion of the first device.
fn dead(token: &str) -> Answer {
    if token == apple(1) {
        Answer::reason(410, "Unregistered")
    } else {
        Answer::Normal
    }
}

/// A backup that is restored while the daemon runs has no moment in which it is believed. Nobody has told the daemon.
#[test]
fn a_database_that_has_just_been_exchanged_ends_nobody() {
    for mut place in Place::all() {
        place.rig.earn_trust("ios", apple);
        place.rig.apns.answer_with(|request| dead(&request.token));
        // What tells one history of a database from another one.
        place.sql("UPDATE states SET mark = 'another'");
        let verdicts = ["lives", "ended"].map(|node| place.rig.push(node, &place.lives));
        assert!(
            verdicts.iter().all(|verdict| verdict.starts_with("wait/")),
            "{verdicts:?}"
        );
        place.rig.daemon.wait_for_log("fpush devices accept", LONG);
        assert_eq!(place.rig.export().len(), 1);
    }
}

#[test]
fn another_database_and_missing_devices_are_doubted() {
    for mut place in Place::all() {
        let (lives, ended) = (place.lives.clone(), place.ended.clone());
        place.rig.stop();
        place.misspell();
        place.rig.start_again();
        place.rig.daemon.wait_for_log("this is another database", LONG);
        for (node, secret) in [("lives", &lives), ("ended", &ended)] {
            assert_eq!(place.rig.push(node, secret), TROUBLE, "{node}");
        }
        place.rig.stop();
        place.correct();
        place.rig.start_again();
        assert_eq!(
            place.rig.push("ended", &ended),
            MISSING,
            "the right one needs nobody's word"
        );
        place.rig.stop();

        place.sql("DELETE FROM devices");
        place.rig.start_again();
        place
            .rig
            .daemon
            .wait_for_log("registered devices are missing in the database (1)", LONG);
        assert_eq!(place.rig.push("lives", &lives), TROUBLE);
        assert_eq!(place.rig.push("ended", &ended), TROUBLE);
        place.accept();
        place.rig.daemon.wait_for_log("is believed again", LONG);
        assert_eq!(place.rig.push("lives", &lives), TROUBLE, "it was not ended");
        assert_eq!(place.rig.push("ended", &ended), TROUBLE, "before it was accepted");
        let secret = place.rig.register(ALICE, "ended", &apple(6));
        unregister(&mut place.rig, "ended");
        assert_eq!(place.rig.push("ended", &secret), MISSING);
        place.rig.stop();
    }
}

/// However a registration ended, it is known, over starts; a new one takes that back, and so does an import.
#[test]
fn what_has_ended_is_known_until_it_is_there_again() {
    for mut place in Place::all() {
        let rig = &mut place.rig;
        let dead = rig.register(ALICE, "dead", &apple(3));
        let removed = rig.register(ALICE, "removed", &apple(4));
        let imported = rig.register(ALICE, "imported", &apple(5));
        unregister(rig, "imported");
        rig.earn_trust("ios", apple);
        rig.apns.queue([Answer::reason(410, "Unregistered")]);
        assert_eq!(rig.push("dead", &dead), MISSING);
        let done = rig.operate(&["devices", "remove", "removed", "settings.json"]);
        assert!(done.status.success(), "{done:?}");
        let secrets = [
            ("ended", &place.ended),
            ("dead", &dead),
            ("removed", &removed),
            ("imported", &imported),
        ];
        until(LONG, "the daemon hears what the command did", || {
            secrets
                .iter()
                .all(|(node, secret)| rig.push(node, secret) == MISSING)
        });
        rig.stop();
        rig.start_again();
        for (node, secret) in secrets {
            assert_eq!(rig.push(node, secret), MISSING, "{node}");
            // It needs no right secret: there is nobody whose it could be.
            assert_eq!(rig.push(node, "another"), MISSING, "{node}");
        }
        assert_eq!(rig.push("nobody", "any"), TROUBLE);
        rig.import(ALICE, "imported", &apple(5));
        for (node, secret) in [("ended", &place.ended), ("dead", &dead), ("removed", &removed)] {
            let new = rig.register(ALICE, node, &apple(6));
            assert_ne!(&new, secret);
            assert_eq!(rig.push(node, secret), TROUBLE, "{node} is another registration");
            rig.expect_apple(node, Some(&new), "org.example.ios", &apple(6));
        }
        until(LONG, "the daemon hears of the import", || {
            rig.push("imported", "imported") == RESULT
        });
        assert_eq!(rig.push("imported", &imported), TROUBLE);
        rig.stop();
    }
}

/// What Siskin sends, under both paths.
#[test]
fn what_siskin_sends_for_an_account_that_is_offline_ends_its_registration() {
    const SENT: &str = include_str!("../fixtures/siskin-unregister.http");
    let mut rig = Rig::start();
    let (head, body) = SENT.split_once("\n\n").unwrap();
    let request = head.split(" HTTP/1.1").next().unwrap();
    let sent: serde_json::Value = serde_json::from_str(body).unwrap();
    let token = sent["device-token"].as_str().unwrap();
    let from = format!("{}/siskin", sent["account"].as_str().unwrap());
    let fields = [
        ("provider", sent["provider"].as_str().unwrap()),
        ("device-token", token),
    ];
    for below in ["/", "/rest/push/"] {
        let node = rig
            .form(&from, "register-device", &fields)
            .value("node")
            .to_owned();
        rig.expect_apple(&node, None, "org.example.siskin", token);
        let request = request
            .replace("push.example.org", "push.localhost")
            .replacen('/', below, 1);
        assert_eq!(
            rig.http(&request, body.trim_end()).body,
            "{\"result\":\"success\"}"
        );
        assert_eq!(rig.push_plain(&node), MISSING);
    }
}

#[test]
fn siskin_removes_an_account_that_is_offline() {
    let mut rig = Rig::start();
    let token = apple(1);
    let fields = [("provider", "tigase:messenger:apns:1"), ("device-token", &*token)];
    let success = "{\"result\":\"success\"}";
    for path in ["/unregister-device", "/rest/push/unregister-device"] {
        let node = rig
            .form(ALICE, "register-device", &fields)
            .value("node")
            .to_owned();
        let body = |account: &str, more: &str| {
            format!(
                "{{\"account\":\"{account}\",\"provider\":\"tigase:messenger:apns:1\",\"device-token\":\"{}\"{more}}}",
                apple(1)
            )
        };
        let request = format!("POST {path}/push.localhost");
        // Whether there is such a registration is nobody's business.
        assert_eq!(rig.http(&request, &body("mallory@a.example", "")).body, success);
        assert_eq!(
            rig.http(&request, &body("alice@a.example", ",\"room\":\"x\""))
                .status,
            400
        );
        rig.expect_apple(&node, None, "org.example.siskin", &apple(1));
        assert_eq!(rig.http(&request, &body("alice@a.example", "")).body, success);
        assert_eq!(rig.push_plain(&node), MISSING);
    }
}
