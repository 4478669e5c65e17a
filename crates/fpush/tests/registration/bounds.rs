//! How many devices there may be, in all and of one domain, on every database.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{self, Child, Stdio},
    time::{Duration, Instant},
};

use fpush_testkit::{Command, Form, Postgres, Reply};
use serde_json::{Value, json};

use crate::rig::{ALICE, LONG, RESULT, Rig, TOO_MANY, TROUBLE, apple};

/// For so long a registration waits for the database.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers to somebody who is one too many.
const NO_ROOM: &str = "there is no room for more devices here";

fn on_every_database(test: fn(Value)) {
    test(json!({}));
    test(json!({ "cache": false }));
    let server = Postgres::shared();
    for cache in [false, true] {
        test(json!({ "type": "postgres", "url": server.database(), "path": null, "cache": cache }));
    }
}

/// Registers a node, and returns how that was answered.
#[track_caller]
fn register(rig: &mut Rig, from: &str, node: &str, token: usize) -> String {
    let token = apple(token);
    let reply = rig.execute(
        &format!("{from}/x"),
        "v1-register-push",
        &[("type", "apns"), ("node", node), ("token", &token)],
    );
    if reply.verdict() == TOO_MANY {
        assert_eq!(reply.text(), Some(NO_ROOM));
    }
    reply.verdict()
}

#[track_caller]
fn unregister(rig: &mut Rig, from: &str, node: &str) {
    let fields = [("type", "apns"), ("node", node)];
    rig.form(&format!("{from}/x"), "v1-unregister-push", &fields);
}

fn post(rig: &Rig, node: &str) -> Vec<String> {
    rig.post("register", &format!("type=apns&node={node}&token={}", apple(9)))
}

#[test]
fn a_registrable_domain_has_half_of_all_devices() {
    on_every_database(|store| {
        let mut rig = Rig::with(json!({ "store": store, "maxDevices": 6 }));
        // The owner of a domain owns all names below it.
        for number in 0..3 {
            let from = format!("u@x{number}.flood.org");
            assert_eq!(register(&mut rig, &from, &format!("f-{number}"), number), RESULT);
        }
        for from in ["u@x3.flood.org", "u@FLOOD.org", "u@x0.flood.org"] {
            assert_eq!(register(&mut rig, from, "f-3", 3), TOO_MANY, "{from}");
        }
        assert_eq!(register(&mut rig, "alice@good.org", "g", 4), RESULT);
        // What is there already goes on: renewed, with another type, pushed to.
        for token in 10..13 {
            assert_eq!(register(&mut rig, "u@x0.flood.org", "f-0", token), RESULT);
        }
        let other = [
            ("type", "fcm"),
            ("node", "f-1"),
            ("token", &crate::rig::google(1)),
        ];
        let reply = rig.execute("u@x1.flood.org/x", "v1-register-push", &other);
        assert_eq!(reply.verdict(), RESULT);
        let secret = rig.register("u@x0.flood.org/x", "f-0", &apple(13));
        rig.expect_apple("f-0", Some(&secret), "org.example.ios", &apple(13));
        // So it is after a restart, and until a place is free.
        rig.stop();
        rig.start_again();
        assert_eq!(register(&mut rig, "u@x3.flood.org", "f-3", 3), TOO_MANY);
        assert_eq!(register(&mut rig, "u@x0.flood.org", "f-0", 14), RESULT);
        unregister(&mut rig, "u@x2.flood.org", "f-2");
        assert_eq!(register(&mut rig, "u@x3.flood.org", "f-3", 3), RESULT);
        assert_eq!(register(&mut rig, "u@x4.flood.org", "f-4", 3), TOO_MANY);
        // The token of one dies, and with it its place is free.
        let removed = rig.operate(&["devices", "remove", "f-1", "settings.json"]);
        assert!(removed.status.success(), "{removed:?}");
        assert_eq!(register(&mut rig, "u@x4.flood.org", "f-4", 3), RESULT);
        assert_eq!(rig.export().len(), 4);
    });
}

#[test]
fn there_is_a_bound_for_all_devices() {
    on_every_database(|store| {
        // The users of our own server, and of domains that are trusted, share no bound but that.
        let bounds = json!({
            "store": store, "maxDevices": 6, "maxDevicesPerDomain": 1, "trustedDomains": ["friends.org"],
        });
        let mut rig = Rig::with(bounds);
        for (number, from) in [
            "a@localhost",
            "b@localhost",
            "c@xmpp.friends.org",
            "d@friends.org",
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(register(&mut rig, from, &format!("n-{number}"), number), RESULT);
        }
        // Over HTTP nobody has a domain: all of it is one share.
        let first = post(&rig, "h-0");
        assert_eq!(first[0], "OK");
        let full = ["ERROR", "No room for more devices, try again later!"];
        assert_eq!(post(&rig, "h-1"), full);
        assert_eq!(register(&mut rig, "e@other.org", "n-4", 4), RESULT);
        for from in ["f@localhost", "g@friends.org", "h@another.org"] {
            assert_eq!(register(&mut rig, from, "n-5", 5), TOO_MANY, "{from}");
        }
        assert_eq!(post(&rig, "h-1"), full);
        // Renewals pass, over HTTP as well, and so does everything else.
        for token in 10..12 {
            assert_eq!(register(&mut rig, "a@localhost", "n-0", token), RESULT);
            assert_eq!(register(&mut rig, "e@other.org", "n-4", token), RESULT);
        }
        assert_eq!(post(&rig, "h-0")[0], "OK");
        assert_eq!(rig.push("h-0", &first[2]), RESULT);
        assert_eq!(rig.push("n-5", "none"), TROUBLE);
        let p2 = [("token", crate::rig::google(1)), ("device-id", "d".to_owned())];
        let p2 = p2.each_ref().map(|(name, value)| (*name, value.as_str()));
        let reply = rig.send(|id| Command::new(id, "register-push-fcm", &p2).from("a@localhost/x"));
        assert_eq!(reply.verdict(), TOO_MANY, "in every dialect");
        unregister(&mut rig, "b@localhost", "n-1");
        let reply = rig.send(|id| Command::new(id, "register-push-fcm", &p2).from("a@localhost/x"));
        let form = Form::of(&reply);
        assert_eq!(rig.push(form.value("node"), form.value("secret")), RESULT);
        assert_eq!(rig.export().len(), 6);
    });
}

#[test]
fn an_import_is_the_operators_and_is_warned_of() {
    on_every_database(|store| {
        let mut rig = Rig::with(json!({ "store": store, "maxDevices": 3 }));
        let line = |number: usize| {
            json!({
                "dialect": "mod_push_appserver", "type": "apns", "node": format!("i-{number}"), "secret": "s",
                "token": apple(number), "registered": "2026-01-01T00:00:00Z",
            })
        };
        let lines: Vec<_> = (0..5).map(|number| line(number).to_string()).collect();
        fs::write(rig.path("import.jsonl"), lines.join("\n")).unwrap();
        let imported = rig.operate(&["import", "json", "import.jsonl", "settings.json"]);
        assert!(imported.status.success(), "{imported:?}");
        let said = String::from_utf8(imported.stderr).unwrap();
        assert!(
            said.contains("count as 5") && said.contains("registration.maxDevices (3)"),
            "{said}"
        );
        assert_eq!(register(&mut rig, "a@localhost", "n", 9), TOO_MANY);
        // The owner of such a device gets it, whatever there is of their domain.
        for number in 0..5 {
            let from = format!("u{number}@new.org");
            assert_eq!(register(&mut rig, &from, &format!("i-{number}"), number), RESULT);
        }
        assert_eq!(register(&mut rig, "u9@new.org", "n", 9), TOO_MANY);
        assert_eq!(rig.push("i-0", "s"), RESULT);
    });
}

/// From invented addresses of one domain come more registrations than may wait, and nothing is written meanwhile: those
/// of others have places and turns.
#[test]
fn a_flood_of_registrations_keeps_nobody_elses_away() {
    // On a busy machine those of others may have waited too long when the database is free again: that proves nothing.
    let is_seen = (0..5).any(|_| flood_of_registrations());
    assert!(is_seen, "this machine is too slow");
}

/// Returns whether it proves anything.
fn flood_of_registrations() -> bool {
    const FLOOD: usize = 2_500;
    const OTHERS: usize = 26;
    let mut rig = Rig::start();
    let register = |id: String, from: &str| {
        let fields = [("type", "apns"), ("node", id.as_str()), ("token", &apple(1))];
        Command::new(&id, "v1-register-push", &fields)
            .from(from)
            .to_string()
    };
    let flood = (0..FLOOD).map(|number| {
        let from = format!("u{number}@x{number}.flood.org/x");
        register(format!("flood-{number}"), &from)
    });
    let others =
        (0..OTHERS).map(|number| register(format!("other-{number}"), &format!("u@good{number}.org/x")));
    let all: String = flood.chain(others).collect();
    let lock = Locked::new(&rig.path("devices.db"));
    let start = Instant::now();
    rig.link.send(all);
    // When the ping is answered all have come, and those that got no place are refused.
    rig.link.send(format!(
        "<iq type='get' from='{ALICE}' to='push.localhost' id='ping'><ping xmlns='urn:xmpp:ping'/></iq>"
    ));
    rig.link.reply_to("ping", LONG);
    lock.release();
    let replies: Vec<_> = (0..FLOOD + OTHERS)
        .map(|_| Reply::parse(&rig.link.next_stanza(LONG)))
        .map(|reply| (reply.id.clone(), reply.verdict()))
        .collect();
    let is_refused = |(_, verdict): &&(String, String)| verdict != RESULT;
    let refused: Vec<_> = replies.iter().filter(is_refused).collect();
    let has_waited = refused
        .iter()
        .any(|(id, verdict)| id.starts_with("other-") && verdict == TROUBLE);
    if has_waited && start.elapsed() > PATIENCE {
        return false;
    }
    assert!(!refused.is_empty(), "not all of them can wait");
    // One that waited too long may be written just then.
    let uncertain = refused.iter().filter(|(_, verdict)| verdict == TROUBLE).count();
    for (id, verdict) in refused {
        assert!(id.starts_with("flood-"), "{id} {verdict}");
        assert!([TOO_MANY, TROUBLE].contains(&verdict.as_str()), "{verdict}");
    }
    let written: Vec<_> = replies.iter().filter(|(_, verdict)| verdict == RESULT).collect();
    let last = written
        .iter()
        .rposition(|(id, _)| id.starts_with("other-"))
        .unwrap();
    assert!(last < 10 * OTHERS, "{last} were written before");
    let certain = written.len();
    assert!((certain..=certain + uncertain).contains(&rig.export().len()));
    true
}

/// One domain has so many commands in a minute, whatever the names below it are, and others have theirs.
#[test]
fn a_domain_registers_so_often_in_a_minute() {
    const MOST: usize = 6_000;
    let mut rig = Rig::start();
    let mut refused_of = |domain: &str| {
        // What fails costs a command, too.
        let commands = (0..MOST + 100).map(|number| {
            let from = format!("u{number}@x{number}.{domain}/x");
            Command::new(&format!("c-{number}"), "v1-unregister-push", &[])
                .from(&from)
                .to_string()
        });
        rig.link.send(commands.collect::<String>());
        let verdicts: Vec<_> = (0..MOST + 100)
            .map(|_| Reply::parse(&rig.link.next_stanza(LONG)).verdict())
            .collect();
        verdicts.iter().filter(|verdict| *verdict == TOO_MANY).count()
    };
    // What takes longer than the minute proves nothing.
    let refused = (0..5).find_map(|again| {
        let began = Instant::now();
        let refused = refused_of(&format!("flood{again}.org"));
        (began.elapsed() < Duration::from_secs(60)).then_some(refused)
    });
    assert_eq!(refused, Some(100));
    assert_eq!(register(&mut rig, "alice@good.org", "n", 1), RESULT);
    assert_eq!(register(&mut rig, "alice@localhost", "m", 1), RESULT);
}

/// Another program that keeps a database of SQLite from being written to.
pub(crate) struct Locked(Child);

impl Locked {
    pub(crate) fn new(file: &Path) -> Self {
        let mut child = process::Command::new("sqlite3")
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.as_mut().unwrap();
        input
            .write_all(b".timeout 5000\nBEGIN IMMEDIATE;\nSELECT 'locked';\n")
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "locked\n");
        Self(child)
    }

    pub(crate) fn release(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}
