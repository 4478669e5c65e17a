//! The listener itself: what is there, what is not, and what never comes out of it.

use std::{
    collections::HashSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant, SystemTime},
};

use fpush_testkit::{
    Answer, Command, Daemon, FakeApns, FakeFcm, FakeXmpp, Form, TestCa, fcm_error,
    publish::{
        Publish, ejabberd_publish, field, mongooseim_publish, options, prosody_publish, tigase_publish,
    },
};
use serde_json::json;

use crate::{
    common,
    rig::{DOMAIN, GREEN, LONG, PROGRAM, RESULT, Rig, Sight, apple, apple_token, google, google_token},
};

#[test]
fn these_are_the_addresses() {
    let rig = Rig::start(json!({ "type": "demo" }));
    rig.expect(GREEN);
    for (path, kind, part) in [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/status.js", "text/javascript; charset=utf-8", "status.json"),
        ("/status.css", "text/css; charset=utf-8", "{"),
        ("/icon.svg", "image/svg+xml", "<svg"),
        ("/status.json", "application/json", "\"links\""),
        (
            "/metrics",
            "text/plain; version=0.0.4; charset=utf-8",
            "# TYPE fpush_component_up gauge\n",
        ),
        ("/livez", "text/plain; charset=utf-8", "ok\n"),
        ("/readyz", "text/plain; charset=utf-8", "ready\n"),
    ] {
        let page = rig.monitoring.get(path);
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, Some(kind)),
            "{path}"
        );
        assert!(
            page.body
                .to_ascii_lowercase()
                .contains(&part.to_ascii_lowercase()),
            "{path}: {}",
            page.body
        );
        assert_eq!(page.header("cache-control"), Some("no-store"), "{path}");
        let head = rig.monitoring.request("HEAD", path);
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            assert_eq!(
                rig.monitoring.request(method, path).status,
                405,
                "{method} {path}"
            );
        }
    }
    for path in [
        "/favicon.ico",
        "/metrics/",
        "/../etc/passwd",
        "/status",
        "/push_appserver/v1/register",
    ] {
        assert_eq!(rig.monitoring.get(path).status, 404, "{path}");
    }
}

/// Not ready, but alive: a restart because of `/livez` would help nobody.
#[test]
fn a_daemon_without_its_server_is_alive() {
    let xmpp = FakeXmpp::start(DOMAIN, common::SECRET);
    xmpp.close_port();
    let rig = Rig::unlinked(
        xmpp,
        json!({ "pushModules": { "m": { "type": "demo" } } }),
        |builder| builder,
    );
    rig.expect(Sight {
        page: &[("error", "link", &["cannot connect to the server"])],
        unready: &["link down: cannot connect to the server"],
        ..Sight::default()
    });
    let alive = rig.monitoring.get("/livez");
    assert_eq!((alive.status, alive.body.as_str()), (200, "ok\n"));
}

/// The sockets on which a process listens, as far as they are TCP's.
fn listening(daemon: &Daemon) -> usize {
    let proc = format!("/proc/{}", daemon.pid());
    let sockets: HashSet<_> = fs::read_dir(format!("{proc}/fd"))
        .unwrap()
        .filter_map(|fd| {
            let target = fs::read_link(fd.unwrap().path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let mut count = 0;
    for table in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("{proc}/net/{table}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            if fields[3] == LISTEN && sockets.contains(fields[9]) {
                count += 1;
            }
        }
    }
    count
}

#[test]
fn no_port_is_open_unless_the_settings_want_it() {
    let xmpp = FakeXmpp::start(DOMAIN, common::SECRET);
    let settings = common::settings(&xmpp, &json!({ "m": { "type": "demo" } }));
    let daemon = Daemon::builder(PROGRAM).settings(&settings).start();
    let _link = xmpp.accept(LONG);
    daemon.wait_for_log("link up", LONG);
    assert_eq!(listening(&daemon), 0);
    assert!(!daemon.log().contains("status page"));
    assert!(daemon.is_running());

    let rig = Rig::start(json!({ "type": "demo" }));
    assert_eq!(listening(&rig.daemon), 1);
    // A reload closes it, too.
    rig.change_settings(json!({ "monitoring": null }));
    let end = Instant::now() + LONG;
    while listening(&rig.daemon) > 0 {
        assert!(Instant::now() < end, "{}", rig.daemon.log());
        thread::sleep(Duration::from_millis(20));
    }
}

/// A certificate of ours, which browsers and apps refuse when it ends.
/// A page of a stranger reaches every address that a browser reaches, if its own name stands for that address (DNS
/// rebinding). Then the browser names the stranger's host.
#[test]
fn under_a_strangers_name_nothing_is_shown() {
    let names = json!(["status.example"]);
    let rig = Rig::with(
        json!({
            "pushModules": { "m": { "type": "demo" } },
            "monitoring": { "listen": "127.0.0.1:0", "hostNames": names },
        }),
        |builder| builder,
    );
    let status = |path: &str, host: &str| {
        let mut stream = TcpStream::connect(rig.monitoring.address()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    for path in ["/", "/status.json", "/metrics", "/status.js", "/livez"] {
        for host in [
            "evil.example",
            "evil.example:9114",
            "127.0.0.1.evil.example",
            "evil.status.example",
        ] {
            assert_eq!(status(path, &format!("Host: {host}\r\n")), 403, "{path} {host}");
        }
        for host in [
            "127.0.0.1:9114",
            "[::1]",
            "localhost:9114",
            "fpush:9114",
            "Status.Example",
        ] {
            assert_eq!(status(path, &format!("Host: {host}\r\n")), 200, "{path} {host}");
        }
    }
}

#[test]
fn the_certificate_of_a_listener_ends() {
    let day = Duration::from_secs(86_400);
    let ca = TestCa::new();
    for (days, level) in [(20, "warning"), (3, "error")] {
        let end = SystemTime::now() + days * day + day / 2;
        let certificate = ca.client_cert("push.example", end);
        let settings = json!({
            "pushModules": { "m": { "type": "demo" } },
            "registration": {
                "store": { "type": "sqlite", "path": "devices.db" },
                "types": { "apns": "m" },
                "http": { "listen": "127.0.0.1:0", "certFilePath": "http.pem", "keyFilePath": "http.key" },
            },
        });
        let rig = Rig::with(settings, |builder| {
            builder
                .file("http.pem", &certificate.cert_pem)
                .file("http.key", &certificate.key_pem)
        });
        let words = format!("the certificate ends in {days} days; renew it");
        let series = "fpush_certificate_expires_in_seconds{name=\"registration.http\"}";
        rig.expect(Sight {
            page: &[
                (level, "registration.http", &[&words]),
                ("warning", "registered devices", &["no device has registered yet"]),
            ],
            metrics: &[
                &format!("{series} > {}", days * 86_400),
                &format!("{series} < {}", (days + 1) * 86_400),
                "fpush_module_up{module=\"m\"} == 1",
            ],
            ..Sight::default()
        });
    }
}

/// After pushes and registrations of all kinds, whatever came of them.
#[test]
fn nothing_private_is_shown() {
    let ca = TestCa::new();
    let (apns, fcm) = (FakeApns::start(&ca), FakeFcm::start(&ca));
    // Providers that say the token back.
    apns.answer_with(|request| match () {
        () if request.token == apple_token(2) => Answer::reason_since(410, "Unregistered", 1_700_000_000_000),
        () if request.token == apple_token(3) => Answer::reason(400, &format!("Bad{}", request.token)),
        () if request.token == apple_token(4) => Answer::reason(429, "TooManyRequests"),
        () if request.token == apple_token(5) => {
            Answer::raw(500, request.token.clone()).header("retry-after", "1")
        }
        () => Answer::Normal,
    });
    fcm.answer_with(|send| {
        if send.token() == google_token(2) {
            fcm_error(400, send.token(), Some(send.token()), &[])
        } else {
            Answer::Normal
        }
    });
    let settings = json!({
        "pushModules": {
            "ios": apple(&apns.url(), json!({})),
            "android": google(&fcm),
            "m": { "type": "demo", "is_default_module": true },
        },
        "registration": {
            "store": { "type": "sqlite", "path": "devices.db" },
            "types": { "apns": "ios", "fcm": "android" },
            "http": { "listen": "127.0.0.1:0" },
        },
    });
    let service_account = fcm.service_account("project-1");
    let mut rig = Rig::with(settings, |builder| {
        builder
            .file("ca.pem", ca.pem())
            .file("fcm.json", &service_account)
    });

    let mut private: Vec<String> = (0..10).flat_map(|n| [apple_token(n), google_token(n)]).collect();
    private.extend(["juliet-the-user", "balcony-7", "a-node-of-hers", common::SECRET].map(str::to_owned));
    private.extend(
        [
            "dead-token-of-demo",
            "busy-token-of-demo",
            "But soft",
            "romeo",
            "PRIVATE KEY",
        ]
        .map(str::to_owned),
    );
    let from = "juliet-the-user@capulet.example/balcony-7";

    let fields = [
        ("type", "apns"),
        ("node", "a-node-of-hers"),
        ("token", &*apple_token(0)),
    ];
    rig.link()
        .send(Command::new("registration", "v1-register-push", &fields).from(from));
    let reply = rig.link().reply_to("registration", LONG);
    assert!(reply.is_result(), "{}", reply.raw);
    let secret = Form::of(&reply).value("secret").to_owned();
    // So that Apple's word about a token is believed.
    for number in 100..140 {
        let id = format!("trusted-{number}");
        rig.link()
            .send(prosody_publish(&id, &apple_token(number), Some("ios"), true));
        assert!(rig.link().reply_to(&id, LONG).is_result());
    }
    let with_secret = |id: &str, node: &str, secret: &str| {
        let item = "<item><notification xmlns='urn:xmpp:push:0'/></item>";
        Publish::new(id, node, item, &options("submit", &field("secret", secret)))
    };
    let mut publishes = vec![
        with_secret("registered", "a-node-of-hers", &secret),
        with_secret("wrong", "a-node-of-hers", "a-wrong-secret"),
        with_secret("nobody", "a-node-of-nobody", &secret),
        tigase_publish("tigase", &apple_token(1), Some("ios"), 1, true),
        prosody_publish("gone", &apple_token(2), Some("ios"), true),
        prosody_publish("unknown-answer", &apple_token(3), Some("ios"), true),
        prosody_publish("too-many", &apple_token(4), Some("ios"), true),
        prosody_publish("again", &apple_token(5), Some("ios"), true),
        prosody_publish("no-token", &google_token(6), Some("ios"), true),
        mongooseim_publish("mongoose", &google_token(1), Some("android")),
        ejabberd_publish("google-fails", &google_token(2), Some("android"), true),
        ejabberd_publish("other-module", &google_token(3), Some("a-module-of-nobody"), true),
        ejabberd_publish("default", &google_token(4), None, true),
        ejabberd_publish("dead", "dead-token-of-demo", Some("m"), true),
        ejabberd_publish("busy", "busy-token-of-demo", Some("m"), true),
    ];
    private.extend([secret, "a-wrong-secret".to_owned(), "a-node-of-nobody".to_owned()]);
    publishes = publishes.into_iter().map(|publish| publish.from(from)).collect();
    // Most domains send once, these more often.
    let mut from_domains = 0;
    for domain in 0..30 {
        for _ in 0..domain {
            from_domains += 1;
            let id = format!("domain-{from_domains}");
            let publish = ejabberd_publish(&id, "token-of-demo", Some("m"), true);
            publishes.push(publish.from(&format!("someone-{domain}@d{domain}.example/somewhere")));
        }
    }
    private.extend(["someone-", "somewhere", "token-of-demo"].map(str::to_owned));
    for publish in &publishes {
        rig.link().send(publish);
    }
    for id in ["registered", "tigase", "mongoose", "default", "busy", "too-many"] {
        assert_eq!(rig.link().reply_to(id, LONG).verdict(), RESULT, "{id}");
    }
    for id in [
        "wrong",
        "nobody",
        "gone",
        "unknown-answer",
        "no-token",
        "google-fails",
        "other-module",
        "dead",
    ] {
        assert!(!rig.link().reply_to(id, LONG).is_result(), "{id}");
    }
    rig.link().reply_to(&format!("domain-{from_domains}"), LONG);
    // The one that is tried again and again has failed at least once.
    rig.scrape_when(&[
        "fpush_provider_answers_total{module=\"ios\"} >= 6",
        "fpush_problems_total >= 3",
    ]);
    rig.monitoring.wait_for_news();

    let access_token = fcm.sends()[0].bearer.clone().unwrap();
    private.push(access_token.trim_start_matches("Bearer ").to_owned());
    for path in ["/metrics", "/status.json", "/readyz", "/", "/livez"] {
        let shown = rig.monitoring.get(path).body;
        for private in &private {
            assert!(
                !shown.contains(private.as_str()),
                "{private} is in {path}:\n{shown}"
            );
        }
    }
    let log = rig.daemon.log();
    for private in &private {
        assert!(!log.contains(private.as_str()), "{private} is in the log:\n{log}");
    }

    // That it would have been found: other things of these pushes are there.
    let scrape = rig.monitoring.scrape();
    for outcome in [
        "accepted",
        "queued",
        "token_dead",
        "token_invalid",
        "token_blocked",
        "unknown_module",
    ] {
        let counted = scrape.value("fpush_pushes_total", &[("outcome", outcome)]);
        assert!(
            counted.is_some_and(|count| count > 0.0),
            "{outcome}:\n{}",
            scrape.text
        );
    }
    assert_eq!(scrape.value("fpush_registered_devices", &[]), Some(1.0));
    let domains: Vec<_> = scrape.find("fpush_sender_publishes", &[]).collect();
    assert_eq!(domains.len(), 20);
    assert_eq!(
        scrape.value("fpush_sender_publishes", &[("domain", "d29.example")]),
        Some(29.0)
    );
    assert_eq!(
        scrape.value("fpush_sender_publishes", &[("domain", "capulet.example")]),
        Some(15.0)
    );
    assert_eq!(
        scrape.value("fpush_sender_publishes", &[("domain", "d1.example")]),
        None
    );
    let shown = rig.monitoring.status();
    assert_eq!(shown["senders"].as_array().map(Vec::len), Some(20));
    assert_eq!(shown["senders"][0], json!(["a.example", 40]));
    assert_eq!(shown["senders"][1], json!(["d29.example", 29]));
    let problems = shown["problems"].as_array().cloned().unwrap_or_default();
    assert!(
        problems.iter().any(|problem| problem["about"] == "ios"),
        "{problems:#?}"
    );
}

/// The state of a socket that listens, in `/proc/net/tcp`.
const LISTEN: &str = "0A";
