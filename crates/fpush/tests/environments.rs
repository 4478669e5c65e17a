//! One push module for both of Apple's environments, with the real program and a stand-in for each of them: builds from Xcode
//! have tokens that only the sandbox knows, all others have tokens that only production knows.

#![cfg(all(feature = "enable_apns_support", feature = "enable_registration"))]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    collections::HashSet,
    fs,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use fpush_testkit::{
    Answer, Command, Daemon, FakeApns, FakeXmpp, Form, LONG, Link, Monitoring, Postgres, TestCa, fixture,
    publish::{ejabberd_publish, field, options},
    run_to_end, until,
};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fpush");
const RESULT: &str = "result";
const DEAD: &str = "cancel/item-not-found";
const BLOCKED: &str = "wait/remote-server-timeout";

/// One environment, which knows some tokens.
struct Environment {
    apns: FakeApns,
    is_away: Arc<AtomicBool>,
}

impl Environment {
    /// It knows the tokens that begin with this digit; of those with `dead` behind it, that they are gone.
    fn start(ca: &TestCa, digit: char) -> Self {
        let (apns, is_away) = (FakeApns::start(ca), Arc::new(AtomicBool::new(false)));
        let away = Arc::clone(&is_away);
        apns.answer_with(move |request| {
            if away.load(Ordering::Relaxed) {
                Answer::reason(503, "ServiceUnavailable")
            } else if !request.token.starts_with(digit) {
                Answer::reason(400, "BadDeviceToken")
            } else if request.token[1..].starts_with("dead") {
                Answer::reason(410, "Unregistered")
            } else {
                Answer::status(200)
            }
        });
        Self { apns, is_away }
    }

    fn set_away(&self, away: bool) {
        self.is_away.store(away, Ordering::Relaxed);
    }

    /// How often it was asked for a token.
    fn asked(&self, token: &str) -> usize {
        let requests = self.apns.requests();
        requests.iter().filter(|request| request.token == token).count()
    }
}

/// A daemon whose module `app` is for both.
struct World {
    link: Link,
    daemon: Daemon,
    production: Environment,
    sandbox: Environment,
    xmpp: FakeXmpp,
    published: usize,
}

impl World {
    fn start() -> Self {
        Self::with(json!({}))
    }

    /// With what `more` says over the usual module.
    fn with(more: Value) -> Self {
        Self::with_settings(more, &json!({}))
    }

    /// With what `others` says beside it, too.
    fn with_settings(more: Value, others: &Value) -> Self {
        let ca = TestCa::new();
        let (production, sandbox) = (Environment::start(&ca, 'a'), Environment::start(&ca, 'b'));
        let xmpp = FakeXmpp::start("push.localhost", "secret");
        let builder = Daemon::builder(PROGRAM).file("ca.pem", ca.pem());
        let module = json!({
            "type": "apple", "ratelimit": { "enabled": false }, "apns": {
                "certFilePath": fixture("aps.pem"), "certKeyFilePath": fixture("aps.key.pem"),
                "topic": "org.example.app", "environment": "both", "caFilePath": "ca.pem",
                "endpoint": production.apns.url(), "sandboxEndpoint": sandbox.apns.url(),
            },
        });
        let settings = json!({
            "component": {
                "componentHostname": "push.localhost", "componentKey": "secret",
                "serverHostname": "127.0.0.1", "serverPort": xmpp.port(),
            },
            "pushModules": { "app": fpush_testkit::merged(module, more) },
            "registration": {
                "store": { "type": "sqlite", "path": "devices.db" },
                "types": { "apns": "app" }, "rateLimit": "1ms",
            },
            "stateDirectory": builder.dir().join("state"),
            "runtimeDirectory": builder.dir().join("run"),
            "timeout": { "xmppconnectionError": "100ms" },
        });
        let settings = fpush_testkit::merged(settings, others.clone());
        let daemon = builder.settings(&settings).rust_log("trace").start();
        let link = accept(&xmpp, &daemon);
        Self {
            link,
            daemon,
            production,
            sandbox,
            xmpp,
            published: 0,
        }
    }

    fn id(&mut self) -> String {
        self.published += 1;
        format!("id-{}", self.published)
    }

    /// Publishes to a token, and returns how that was answered.
    #[track_caller]
    fn push(&mut self, token: &str) -> String {
        let id = self.id();
        self.link.send(ejabberd_publish(&id, token, Some("app"), true));
        self.link.reply_to(&id, LONG).verdict()
    }

    /// Registers a device. Returns its secret.
    #[track_caller]
    fn register(&mut self, node: &str, token: &str) -> String {
        let id = self.id();
        let fields = [("type", "apns"), ("node", node), ("token", token)];
        self.link.send(Command::new(&id, "v1-register-push", &fields));
        Form::of(&self.link.reply_to(&id, LONG))
            .value("secret")
            .to_owned()
    }

    /// Publishes to a registered device.
    #[track_caller]
    fn push_to(&mut self, node: &str, secret: &str) -> String {
        let id = self.id();
        let item = "<item><notification xmlns='urn:xmpp:push:0'/></item>";
        let options = options("submit", &field("secret", secret));
        let publish = fpush_testkit::publish::Publish::new(&id, node, item, &options);
        self.link.send(publish);
        self.link.reply_to(&id, LONG).verdict()
    }

    /// Has pushes to so many devices of each environment accepted that Apple's word is believed at once.
    #[track_caller]
    fn earn_trust(&mut self) {
        for number in 0..60 {
            for digit in ["a", "b"] {
                assert_eq!(self.push(&token(digit, number)), RESULT);
            }
        }
    }

    fn stop(&mut self) {
        self.daemon.terminate();
        self.daemon.wait_for_log("SIGTERM: finishing", LONG);
        self.link.close();
        assert!(self.daemon.wait(LONG).success(), "{}", self.daemon.log());
    }

    fn restart(&mut self) {
        self.stop();
        self.daemon.start_again();
        self.link = accept(&self.xmpp, &self.daemon);
    }

    fn operate(&self, arguments: &[&str]) -> Output {
        run_to_end(PROGRAM, arguments, self.daemon.dir())
    }

    fn devices(&self) -> usize {
        let exported = self.operate(&["export", "settings.json"]);
        assert!(exported.status.success(), "{exported:?}");
        String::from_utf8(exported.stdout).unwrap().lines().count()
    }
}

#[track_caller]
fn accept(xmpp: &FakeXmpp, daemon: &Daemon) -> Link {
    xmpp.try_accept(LONG)
        .unwrap_or_else(|e| panic!("no link: {e:?}; the log:\n{}", daemon.log()))
}

/// A token of the environment that knows those with this digit.
fn token(digit: &str, number: usize) -> String {
    format!("{digit}0{number:062x}")
}

fn dead(digit: &str, number: usize) -> String {
    format!("{digit}dead{number:059x}")
}

#[test]
fn a_device_of_either_environment_gets_its_pushes_and_its_home_is_remembered() {
    let mut world = World::start();
    let [store, xcode] = ["a", "b"].map(|digit| token(digit, 1));
    for token in [&store, &xcode, &store, &xcode] {
        assert_eq!(world.push(token), RESULT);
    }
    let asked = |world: &World| {
        let environments = [&world.production, &world.sandbox];
        [&store, &xcode].map(|token| environments.map(|environment| environment.asked(token)))
    };
    assert_eq!(
        asked(&world),
        [[2, 0], [1, 2]],
        "production first, and then where it worked"
    );
    world.restart();
    for token in [&store, &xcode] {
        assert_eq!(world.push(token), RESULT);
    }
    assert_eq!(asked(&world), [[3, 0], [1, 3]]);
    for (token, words) in [
        (
            &store,
            "environment: it is tried in the main one first, then in the sandbox",
        ),
        (&xcode, "environment: it is tried in the sandbox first"),
    ] {
        let said = world.operate(&["token", "--module", "app", "--token", token, "settings.json"]);
        let said = String::from_utf8_lossy(&said.stdout);
        assert!(said.contains(words), "{said}");
    }
    let log = world.daemon.log();
    assert!(!log.contains(&store) && !log.contains(&xcode), "{log}");
}

/// The registry knows it, too.
#[test]
fn a_registered_device_is_found_where_it_is_after_the_state_directory_is_lost() {
    let mut world = World::start();
    let xcode = token("b", 1);
    let secret = world.register("n", &xcode);
    for _ in 0..2 {
        assert_eq!(world.push_to("n", &secret), RESULT);
    }
    let asked =
        |world: &World| [&world.production, &world.sandbox].map(|environment| environment.asked(&xcode));
    assert_eq!(asked(&world), [1, 2]);
    world.stop();
    fs::remove_dir_all(world.daemon.dir().join("state")).unwrap();
    world.daemon.start_again();
    world.link = accept(&world.xmpp, &world.daemon);
    assert_eq!(world.push_to("n", &secret), RESULT);
    assert_eq!(asked(&world), [1, 3], "the registry said where");
    // A token that came from elsewhere is tried as ever.
    let store = token("a", 2);
    let secret = world.register("n", &store);
    assert_eq!(world.push_to("n", &secret), RESULT);
    assert_eq!(
        [world.production.asked(&store), world.sandbox.asked(&store)],
        [1, 0]
    );
}

#[test]
fn another_instance_finds_a_registered_device_where_it_is() {
    const DEVICES: usize = 20;
    let server = Postgres::shared();
    for cache in [true, false] {
        let url = server.database();
        let store = json!({ "type": "postgres", "url": url, "path": null, "cache": cache });
        let store = json!({ "registration": { "store": store } });
        let mut one = World::with_settings(json!({}), &store);
        let devices: Vec<_> = (0..DEVICES)
            .map(|number| {
                let (node, token) = (format!("n-{number}"), token("b", number));
                let secret = one.register(&node, &token);
                (node, secret, token)
            })
            .collect();
        for (node, secret, token) in &devices {
            assert_eq!(one.push_to(node, secret), RESULT);
            assert_eq!(one.production.asked(token), 1);
        }
        // What is to be written is written at the end, too.
        one.stop();
        let sql = "SELECT count(*) FROM devices WHERE in_second = 1";
        let known = server.psql(server.name(&url), sql).unwrap();
        assert_eq!(known.trim(), DEVICES.to_string());
        let mut other = World::with_settings(json!({}), &store);
        for (node, secret, token) in &devices {
            assert_eq!(other.push_to(node, secret), RESULT);
            let asked = [other.production.asked(token), other.sandbox.asked(token)];
            assert_eq!(asked, [0, 1], "cache {cache}");
        }
        other.stop();
    }
}

/// The operator's push and a user's go where the device is as well.
#[test]
fn a_test_push_finds_its_environment() {
    let mut world = World::start();
    for (digit, outcome) in [("a", "accepted"), ("b", "accepted"), ("c", "not_accepted")] {
        let (id, token) = (world.id(), token(digit, 1));
        let fields = [("pushModule", "app"), ("token", token.as_str())];
        world.link.send(Command::new(&id, "test-push", &fields));
        let form = Form::of(&world.link.reply_to(&id, LONG));
        assert_eq!(form.value("outcome"), outcome, "{form:?}");
        let sent = world.operate(&["send", "--module", "app", "--token", &token, "settings.json"]);
        assert_eq!(sent.status.success(), outcome == "accepted", "{sent:?}");
    }
    let checked = world.operate(&["check", "--connect", "settings.json"]);
    let said = String::from_utf8_lossy(&checked.stdout);
    let proofs = said.matches("it refused only the invented device token");
    assert_eq!(proofs.count(), 2, "{checked:?}");
}

/// The operator sees both: each one's requests, and how each one is.
#[test]
fn both_environments_are_shown() {
    let mut world = World::with_settings(json!({}), &json!({ "monitoring": { "listen": "127.0.0.1:0" } }));
    let shown = world.operate(&["check", "--show-payloads", "settings.json"]);
    let said = String::from_utf8_lossy(&shown.stdout);
    for environment in [&world.production, &world.sandbox] {
        let request = format!("POST {}/3/device/TOKEN", environment.apns.url());
        assert!(said.contains(&request), "no {request:?} in {said}");
    }
    for pushes in ["  a visible push, ", "  a visible push, to a build from Xcode, "] {
        assert!(said.contains(pushes), "no {pushes:?} in {said}");
    }
    let monitoring = Monitoring::of(&world.daemon, LONG);
    let second = |word: &str| monitoring.status()["modules"][0]["second"][word].clone();
    assert_eq!(second("name"), "sandbox");
    assert_eq!(second("last_accepted"), Value::Null);
    assert_eq!(world.push(&token("b", 1)), RESULT);
    until(LONG, "the page says so", || {
        second("last_accepted") != Value::Null
    });
    assert_eq!(second("connection")["open"], 1);
}

#[test]
fn a_token_that_both_reject_ends_as_in_one_environment() {
    let mut world = World::start();
    world.earn_trust();
    for digit in ["a", "b"] {
        let gone = dead(digit, 1);
        assert_eq!(
            world.push(&gone),
            DEAD,
            "{digit}: one is sure, and the other does not know it"
        );
        assert_eq!(world.push(&gone), DEAD);
        let asked = [&world.production, &world.sandbox].map(|environment| environment.asked(&gone));
        assert_eq!(asked, [1, 1], "{digit}");
    }
    let wrong = token("c", 1);
    assert_eq!(world.push(&wrong), BLOCKED, "that may be a mistake of ours");
    assert_eq!(world.push(&wrong), BLOCKED);
    let asked = [&world.production, &world.sandbox].map(|environment| environment.asked(&wrong));
    assert_eq!(asked, [1, 1]);
    let (node, secret) = ("n", world.register("n", &dead("b", 2)));
    assert_eq!(world.push_to(node, &secret), DEAD);
    assert_eq!(world.devices(), 0);
    for digit in ["a", "b"] {
        assert_eq!(world.push(&token(digit, 1)), RESULT);
    }
}

/// Whichever is away: its devices wait, and the others' get theirs at once.
#[test]
fn an_outage_of_one_environment_costs_no_registration() {
    let mut world = World::start();
    world.earn_trust();
    let nodes = ["store", "xcode", "new-xcode"];
    let tokens = [token("a", 1), token("b", 1), token("b", 777)];
    let secrets: Vec<_> = nodes
        .iter()
        .zip(&tokens)
        .map(|(node, token)| world.register(node, token))
        .collect();
    let before = |world: &World| {
        [
            world.production.asked(&tokens[0]),
            world.sandbox.asked(&tokens[1]),
            world.sandbox.asked(&tokens[2]),
        ]
    };
    // The sandbox is away.
    let [stores, xcodes, _] = before(&world);
    world.sandbox.set_away(true);
    let began = Instant::now();
    for (node, secret) in nodes.iter().zip(&secrets) {
        assert_eq!(world.push_to(node, secret), RESULT, "{node}");
    }
    assert!(began.elapsed() < Duration::from_secs(20), "nobody waits for it");
    assert_eq!(world.production.asked(&tokens[0]), stores + 1);
    world.sandbox.set_away(false);
    let accepted = |world: &World, token: &str| {
        let sandbox = &world.sandbox;
        sandbox.asked(token)
    };
    let [first, second] = [1, 2].map(|place| accepted(&world, &tokens[place]));
    until(LONG, "what was held goes out", || {
        accepted(&world, &tokens[1]) > first && accepted(&world, &tokens[2]) > second
    });
    assert!(world.sandbox.asked(&tokens[1]) > xcodes);

    // Production is away: the devices that are known to be elsewhere do not wait for it.
    world.production.set_away(true);
    let xcodes = world.sandbox.asked(&tokens[1]);
    for (node, secret) in nodes.iter().zip(&secrets) {
        assert_eq!(world.push_to(node, secret), RESULT, "{node}");
    }
    assert_eq!(world.sandbox.asked(&tokens[1]), xcodes + 1);
    world.production.set_away(false);
    let stores = world.production.asked(&tokens[0]);
    until(LONG, "what was held goes out", || {
        world.production.asked(&tokens[0]) > stores
    });
    assert_eq!(world.devices(), 3);
}

/// What is acknowledged outlasts a restart, and a device whose home is not known is found all the same.
#[test]
fn what_waits_for_the_sandbox_outlasts_a_restart() {
    let mut world = World::start();
    world.sandbox.set_away(true);
    let tokens: HashSet<_> = (0..5).map(|number| token("b", number)).collect();
    for token in &tokens {
        assert_eq!(world.push(token), RESULT);
    }
    world.restart();
    world.sandbox.set_away(false);
    let before = world.sandbox.apns.count();
    until(LONG, "all go out", || {
        let requests = world.sandbox.apns.requests();
        let sent: HashSet<_> = requests[before..]
            .iter()
            .map(|request| request.token.clone())
            .collect();
        sent == tokens
    });
}

/// A living device gets no error that ends it, also where nothing is held.
#[test]
fn without_holding_the_server_is_told_to_wait() {
    let mut world = World::with(json!({ "holdFor": "0s" }));
    world.earn_trust();
    world.sandbox.set_away(true);
    assert_eq!(world.push(&token("b", 777)), BLOCKED);
    assert_eq!(world.push(&token("b", 1)), BLOCKED);
    assert_eq!(world.push(&token("a", 1)), RESULT);
    world.sandbox.set_away(false);
    assert_eq!(world.push(&token("b", 777)), RESULT);
}
