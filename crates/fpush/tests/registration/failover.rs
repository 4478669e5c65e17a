//! A PostgreSQL server that is reached over TLS, by a URL in a file; and another one that takes its place, behind the same
//! name.

use fpush_testkit::{Postgres, TempDir, TestCa};
use serde_json::json;

use crate::rig::{ALICE, LONG, MISSING, RESULT, Rig, TROUBLE, apple, important, until};

/// Two daemons, of which the second has all devices in memory.
struct Pair {
    all: [Rig; 2],
    server: Postgres,
    _folder: TempDir,
}

impl Pair {
    fn start() -> Self {
        let (ca, folder) = (TestCa::new(), TempDir::new());
        let server = Postgres::with_tls(&ca.server_cert(&["localhost"], None));
        server.psql("postgres", "CREATE DATABASE devices").unwrap();
        let url = format!(
            "postgres://postgres@localhost:{}/devices?sslmode=verify-full&sslrootcert={}",
            server.port(),
            folder.write("ca.pem", ca.pem()).display()
        );
        let start = |cache: bool| {
            let store =
                json!({ "type": "postgres", "urlFile": "database.url", "path": null, "cache": cache });
            Rig::run(json!({ "store": store }), json!({}), |builder| {
                builder.file("database.url", &url)
            })
        };
        Self {
            all: [false, true].map(start),
            server,
            _folder: folder,
        }
    }

    /// What publishes for this device are answered while `happens` does, and a moment later.
    fn while_it(&mut self, node: &str, secret: &str, happens: impl FnOnce(&Postgres)) -> [Vec<String>; 2] {
        let sent = self.all.each_mut().map(|rig| {
            let ids: Vec<_> = (0..20).map(|_| rig.id()).collect();
            for id in &ids {
                rig.link.send(important(id, node, Some(secret), None));
            }
            ids
        });
        happens(&self.server);
        let [uncached, cached] = &mut self.all;
        let [first, second] = sent;
        [(uncached, first), (cached, second)].map(|(rig, ids)| {
            let replies = ids.iter().map(|id| rig.link.reply_to(id, LONG).verdict());
            let mut verdicts: Vec<_> = replies.collect();
            verdicts.push(rig.push(node, secret));
            verdicts
        })
    }
}

#[test]
fn a_new_primary_behind_the_same_name_takes_over() {
    let mut pair = Pair::start();
    let encrypted = "SELECT count(*) > 0 AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name = 'fpush'";
    assert_eq!(pair.server.psql("postgres", encrypted).as_deref(), Some("t\n"));
    let [uncached, cached] = &mut pair.all;
    let lives = uncached.register(ALICE, "lives", &apple(1));
    let ended = cached.register(ALICE, "ended", &apple(2));
    uncached.form(
        ALICE,
        "v1-unregister-push",
        &[("type", "apns"), ("node", "ended")],
    );
    for rig in [uncached, cached] {
        assert_eq!(rig.push("lives", &lives), RESULT);
        until(LONG, "the end is known", || rig.push("ended", &ended) == MISSING);
    }
    pair.server.copy();

    // The old one is gone.
    let [uncached, cached] = pair.while_it("lives", &lives, Postgres::stop);
    assert_eq!(uncached.last().map(String::as_str), Some(TROUBLE));
    assert!(
        uncached
            .iter()
            .all(|verdict| [RESULT, TROUBLE].contains(&&**verdict)),
        "{uncached:?}"
    );
    assert!(cached.iter().all(|verdict| verdict == RESULT), "{cached:?}");
    let fields = [("type", "apns"), ("node", "new"), ("token", &apple(3))];
    for rig in &mut pair.all {
        for node in ["ended", "unknown"] {
            assert_eq!(rig.push(node, &ended), TROUBLE, "{node}");
        }
        assert_eq!(rig.execute(ALICE, "v1-register-push", &fields).verdict(), TROUBLE);
    }

    // The new one is there, and cannot be written to yet.
    let [uncached, cached] = pair.while_it("lives", &lives, Postgres::fail_over);
    assert!(
        uncached
            .iter()
            .all(|verdict| [RESULT, TROUBLE].contains(&&**verdict)),
        "{uncached:?}"
    );
    assert!(cached.iter().all(|verdict| verdict == RESULT), "{cached:?}");
    for rig in &mut pair.all {
        until(LONG, "it is asked for devices", || {
            rig.push("lives", &lives) == RESULT
        });
        assert_eq!(rig.execute(ALICE, "v1-register-push", &fields).verdict(), TROUBLE);
        assert_ne!(rig.push("unknown", &ended), MISSING);
    }

    let answers = pair.while_it("lives", &lives, Postgres::promote);
    assert!(
        answers.iter().flatten().all(|verdict| verdict == RESULT),
        "{answers:?}"
    );
    let [uncached, cached] = &mut pair.all;
    let mut new = None;
    until(LONG, "devices register again", || {
        let reply = uncached.execute(ALICE, "v1-register-push", &fields);
        new = reply
            .is_result()
            .then(|| fpush_testkit::Form::of(&reply).value("secret").to_owned());
        new.is_some()
    });
    let new = new.unwrap();
    for rig in [&mut *uncached, &mut *cached] {
        assert_eq!(rig.push("new", &new), RESULT);
        assert_eq!(rig.push("lives", &lives), RESULT);
        assert_eq!(rig.push("ended", &ended), MISSING);
        assert_eq!(rig.push("unknown", &ended), TROUBLE);
    }
    // And each hears of the other again.
    assert_eq!(uncached.register(ALICE, "lives", &apple(4)), lives);
    until(LONG, "pushes go to the new token", || {
        assert_eq!(cached.push("lives", &lives), RESULT);
        cached
            .apns
            .requests()
            .iter()
            .any(|request| request.token == apple(4))
    });
}
