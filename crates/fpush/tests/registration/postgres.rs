//! Several daemons on one PostgreSQL server, which may go away.

use std::{
    thread,
    time::{Duration, Instant},
};

use fpush_testkit::{Answer, Command, Postgres};
use serde_json::json;

use crate::rig::{
    ALICE, LONG, MALLORY, MISSING, RESULT, Rig, TROUBLE, apple, google, http, important, until,
};

/// A daemon on this database.
fn on(url: &str, cache: Option<bool>) -> Rig {
    let mut store = json!({ "type": "postgres", "url": url, "path": null });
    if let Some(cache) = cache {
        store["cache"] = cache.into();
    }
    Rig::with(json!({ "store": store }))
}

#[test]
fn what_one_daemon_registers_the_other_one_pushes() {
    let server = Postgres::shared();
    let url = server.database();
    let (mut one, mut other, mut cached) = (on(&url, None), on(&url, None), on(&url, Some(true)));
    let removed = cached.register(ALICE, "removed", &apple(8));
    let died = cached.register(ALICE, "died", &apple(9));
    let secret = one.register(ALICE, "n", &apple(1));
    other.expect_apple("n", Some(&secret), "org.example.ios", &apple(1));
    assert_eq!(other.push("n", "wrong"), TROUBLE);
    assert_eq!(other.push_plain("n"), TROUBLE);
    assert_eq!(other.register(ALICE, "n", &apple(2)), secret);
    one.expect_apple("n", Some(&secret), "org.example.ios", &apple(2));
    let stolen = [("type", "apns"), ("node", "n"), ("token", &apple(666))];
    assert_eq!(
        other.execute(MALLORY, "v1-register-push", &stolen).verdict(),
        "auth/forbidden"
    );

    let p2 = [("token", google(1)), ("device-id", "d".to_owned())];
    let p2 = p2.each_ref().map(|(name, value)| (*name, value.as_str()));
    let form = one.form(ALICE, "register-push-fcm", &p2);
    assert_eq!(
        other.form(ALICE, "register-push-fcm", &p2).value("node"),
        form.value("node")
    );
    let data = other.expect_google(form.value("node"), Some(form.value("secret")), &google(1));
    assert_eq!(data["account"], sha1_of_alice());
    let tigase = [
        ("provider", "tigase:messenger:apns:1"),
        ("device-token", &apple(3)),
    ];
    let node = one
        .form(ALICE, "register-device", &tigase)
        .value("node")
        .to_owned();
    other.expect_apple(&node, None, "org.example.siskin", &apple(3));
    let over_http = one
        .post("register", &format!("type=fcm&node=h&token={}", google(2)))
        .remove(2);
    assert_eq!(
        other.post("push", &format!("node=h&secret={over_http}")),
        ["OK", "h"]
    );
    other.form(ALICE, "unregister-push-fcm", &p2[1..]);
    assert_eq!(one.push(form.value("node"), form.value("secret")), MISSING);

    // What dies at one is dead at all.
    one.earn_trust("ios", apple);
    one.apns
        .queue([Answer::json(410, &json!({ "reason": "Unregistered" }))]);
    assert_eq!(one.push("died", &died), MISSING);
    until(LONG, "the other daemon hears of the death", || {
        other.push("died", &died) == MISSING
    });
    other.form(
        ALICE,
        "v1-unregister-push",
        &[("type", "apns"), ("node", "removed")],
    );
    // A daemon that has all devices in memory asks the database before it says that there is none.
    cached.expect_apple("n", Some(&secret), "org.example.ios", &apple(2));
    until(
        Duration::from_secs(12),
        "the cached daemon has heard of the ends",
        || cached.push("died", &died) == MISSING && cached.push("removed", &removed) == MISSING,
    );
    cached.expect_apple("n", Some(&secret), "org.example.ios", &apple(2));
    one.assert_discreet(&[&secret, &apple(1), &apple(2), &node, "alice"]);
    // Until then each writes down when it pushed.
    for rig in [&mut one, &mut other, &mut cached] {
        rig.stop();
    }
    assert_eq!(one.export(), other.export());
    assert_eq!(one.export().len(), 3);
}

/// Of what waits is kept what is needed, and of all together no more than fits.
#[test]
fn what_waits_for_a_database_that_hangs_is_bounded_in_bytes() {
    let server = Postgres::start_new();
    let mut rig = on(&server.database(), Some(false));
    rig.register(ALICE, "mine", &apple(1));
    server.signal_all("STOP");
    let before = rig.daemon.peak_rss_kib();
    let large = "x".repeat(480_000);
    for number in 0..200 {
        let (from, token) = (format!("user{number}@a.example/x"), apple(number));
        let fields = [
            ("type", "apns"),
            ("node", "n"),
            ("token", token.as_str()),
            ("of nobody", large.as_str()),
        ];
        let command = Command::new(&format!("command-{number}"), "v1-register-push", &fields);
        rig.link.send(command.from(&from));
        let encrypted = format!(
            "<iq type='set' from='a.example' to='push.localhost' id='publish-{number}'><pubsub \
             xmlns='http://jabber.org/protocol/pubsub'><publish node='mine'><item><notification \
             xmlns='urn:xmpp:push:0'><encrypted xmlns='tigase:push:encrypt:0' iv='{large}'>{large}</encrypted>\
             </notification></item></publish></pubsub></iq>"
        );
        rig.link.send(encrypted);
    }
    let ping = rig.ask("get", "<ping xmlns='urn:xmpp:ping'/>");
    assert!(ping.is_result());
    let grown = rig.daemon.peak_rss_kib() - before;
    assert!(grown < 32 * 1_024, "{grown} KiB");
    server.signal_all("CONT");
    for number in 0..200 {
        // None is lost, whatever the database had time for.
        rig.link.reply_to(&format!("command-{number}"), LONG);
        let publish = rig.link.reply_to(&format!("publish-{number}"), LONG).verdict();
        assert_eq!(publish, TROUBLE);
    }
}

#[test]
fn a_database_may_go_away_and_return() {
    let server = Postgres::start_new();
    let url = server.database();
    let (mut uncached, mut cached) = (on(&url, None), on(&url, Some(true)));
    let secret = uncached.register(ALICE, "n", &apple(1));
    let own = cached.register(ALICE, "m", &apple(2));
    uncached.expect_apple("n", Some(&secret), "org.example.ios", &apple(1));

    server.stop();
    let mut late = on(&url, None);
    let fields = [("type", "apns"), ("node", "new"), ("token", &apple(3))];
    for rig in [&uncached, &cached, &late] {
        rig.link.send(Command::new("new", "v1-register-push", &fields));
    }
    let lookups = [
        ("right", "n", Some(secret.as_str())),
        ("wrong", "n", Some("wrong")),
        ("none", "n", None),
        // It may be a device for all that can be known.
        ("unknown", "nobody", Some("any")),
    ];
    for rig in [&uncached, &late] {
        for (id, node, secret) in lookups {
            rig.link.send(important(id, node, secret, None));
        }
    }
    let addresses = [&uncached, &cached, &late].map(Rig::http_address);
    let requests = [
        ("register", format!("type=apns&node=h&token={}", apple(4))),
        ("unregister", "type=apns&node=n".to_owned()),
    ];
    // The one that has all devices in memory has heard of this one, and pushes.
    let push = ("push", format!("node=n&secret={secret}"));
    let pushes = [&uncached, &late].map(|rig| (rig.http_address(), push.clone()));
    let posts: Vec<_> = addresses
        .into_iter()
        .flat_map(|address| requests.clone().map(|request| (address, request)))
        .chain(pushes)
        .map(|(address, (endpoint, form))| {
            thread::spawn(move || http(address, &format!("POST /push_appserver/v1/{endpoint}"), &form).body)
        })
        .collect();
    for rig in [&mut uncached, &mut late] {
        // Who names a module needs no database, and waits for nobody else's.
        let stateless = rig.publish(&apple(9), None, Some("ios"));
        assert_eq!(stateless.verdict(), RESULT);
        for (id, _, _) in lookups {
            assert_eq!(rig.link.reply_to(id, LONG).verdict(), TROUBLE, "{id}");
        }
    }
    cached.expect_apple("m", Some(&own), "org.example.ios", &apple(2));
    // The secret may have been replaced by somebody else.
    assert_eq!(cached.push("m", "wrong"), TROUBLE);
    for rig in [&mut uncached, &mut cached, &mut late] {
        assert_eq!(rig.link.reply_to("new", LONG).verdict(), TROUBLE);
        assert!(rig.daemon.is_running());
    }
    for post in posts {
        assert_eq!(
            post.join().unwrap(),
            "ERROR\nInternal server error, try again later!"
        );
    }

    const NEWS: &str = "the database of registered devices can be used again";
    for rig in [&uncached, &cached, &late] {
        rig.daemon
            .wait_for_log("devices cannot be used; trying again", LONG);
        assert!(!rig.daemon.log().contains(NEWS));
    }
    server.start();
    for rig in [&mut uncached, &mut cached, &mut late] {
        // One line, and no more than a line.
        let line = rig.daemon.wait_for_log(NEWS, LONG);
        assert!(line.contains(" INFO "), "{line}");
        let from = format!("{}@a.example", rig.daemon.pid());
        let fields = [("type", "apns"), ("node", from.as_str()), ("token", &apple(5))];
        until(LONG, "devices register again", || {
            rig.execute(&from, "v1-register-push", &fields).is_result()
        });
        let secret = rig.register(&from, &from, &apple(5));
        rig.expect_apple(&from, Some(&secret), "org.example.ios", &apple(5));
    }
    for rig in [&mut uncached, &mut late] {
        rig.expect_apple("n", Some(&secret), "org.example.ios", &apple(1));
        assert_eq!(rig.push("n", "wrong"), TROUBLE);
    }
    for rig in [&mut uncached, &mut cached, &mut late] {
        rig.stop();
    }
    assert_eq!(uncached.export().len(), 5);
}

/// `printf 'alice@a.example\0d' | sha1sum`
fn sha1_of_alice() -> &'static str {
    "246ba35cacd941353f93a51796f222417d20e2cb"
}

/// systemd kills what takes longer than the unit's `TimeoutStopSec`, and a container's runtime after 10 s. Here the
/// provider, the server and the database are silent at the same time.
#[test]
fn the_end_takes_ten_seconds_at_most() {
    let server = Postgres::start_new();
    let store = json!({ "type": "postgres", "url": server.database(), "path": null });
    let mut rig = Rig::with(json!({ "store": store, "rateLimit": "1h" }));
    let secret = rig.register(ALICE, "n", &apple(1));
    assert_eq!(rig.push("n", &secret), RESULT);
    assert_eq!(rig.push("n", &secret), RESULT);
    rig.apns.answer_with(|_| Answer::Silence);
    server.signal_all("STOP");
    let fields = [("type", "apns"), ("node", "m"), ("token", &apple(2))];
    rig.link.send(
        Command::new("hanging", "v1-register-push", &fields)
            .from(ALICE)
            .action("execute"),
    );
    let address = rig.http_address();
    let form = format!("type=fcm&node=h&token={}", google(1));
    thread::spawn(move || http(address, "POST /push_appserver/v1/register", &form));
    // The command is waiting for the database now.
    assert!(rig.ask("get", "<ping xmlns='urn:xmpp:ping'/>").is_result());
    let start = Instant::now();
    rig.daemon.terminate();
    assert!(rig.daemon.wait(LONG).success(), "{}", rig.daemon.log());
    let took = start.elapsed();
    server.signal_all("CONT");
    assert!(took < Duration::from_millis(11_500), "{took:?}");
    assert!(
        rig.daemon.log().contains("stopped undelivered=1"),
        "{}",
        rig.daemon.log()
    );
}
