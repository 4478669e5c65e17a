//! Daemons that share an engine and a provider.

use std::{fs, path::Path, time::Duration};

pub(crate) use fpush_testkit::LONG;
use fpush_testkit::{
    ApnsRequest, Clock, Command, Daemon, FakeApns, FakeXmpp, Form, Link, Monitoring, Redis, TestCa, fixture,
    publish::ejabberd_publish, until,
};
use serde_json::{Value, json};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_fpush");
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) const RESULT: &str = "result";
pub(crate) const DEAD: &str = "cancel/item-not-found";
pub(crate) const REFUSED: &str = "wait/service-unavailable";
pub(crate) const BLOCKED: &str = TROUBLE;
/// The provider cannot be used now.
pub(crate) const TROUBLE: &str = "wait/remote-server-timeout";

/// Daemons on one engine. Their only push module is Apple's `m`.
pub(crate) struct Rig {
    pub(crate) all: Vec<Instance>,
    pub(crate) apns: FakeApns,
    pub(crate) redis: Redis,
}

/// One of them, with its XMPP server.
pub(crate) struct Instance {
    pub(crate) daemon: Daemon,
    pub(crate) link: Link,
    pub(crate) xmpp: FakeXmpp,
    published: usize,
}

/// What is different from one test to another.
pub(crate) struct Setup<'a> {
    pub(crate) redis: Redis,
    /// Between two pushes to a token.
    pub(crate) spacing: &'a str,
    /// For each instance the URL of the engine; none where it shares nothing.
    pub(crate) urls: Vec<Option<String>>,
    pub(crate) change: fn(&mut Value),
    /// Beside the settings.
    pub(crate) files: Vec<(&'a str, Vec<u8>)>,
    /// Under which all run, if that is not the machine's.
    pub(crate) clock: Option<&'a Clock>,
}

impl Rig {
    /// So many instances that send a second push to a token after this time.
    pub(crate) fn start(instances: usize, spacing: &str) -> Self {
        Self::with(Setup::of(instances, spacing))
    }

    pub(crate) fn with(setup: Setup<'_>) -> Self {
        let Setup {
            redis,
            spacing,
            urls,
            change,
            files,
            clock,
        } = setup;
        let ca = TestCa::new();
        let apns = FakeApns::start(&ca);
        let start = |url: Option<String>| {
            let xmpp = FakeXmpp::start("push.localhost", "secret");
            let mut builder = Daemon::builder(PROGRAM)
                .rust_log("debug")
                .file("ca.pem", ca.pem());
            for (name, content) in &files {
                builder = builder.file(name, content);
            }
            let component = json!({
                "componentHostname": "push.localhost", "componentKey": "secret",
                "serverHostname": "127.0.0.1", "serverPort": xmpp.port(),
            });
            let mut settings = settings(builder.dir(), &component, &apns, spacing);
            if let Some(url) = &url {
                // A busy machine is not a slow engine.
                settings["cluster"] = json!({ "url": url, "timeout": "1s" });
            }
            change(&mut settings);
            let builder = builder.settings(&settings);
            let daemon = match clock {
                Some(clock) => clock.run(builder),
                None => builder.start(),
            };
            let link = accept(&xmpp, &daemon);
            Instance {
                daemon,
                link,
                xmpp,
                published: 0,
            }
        };
        Self {
            all: urls.into_iter().map(start).collect(),
            apns,
            redis,
        }
    }

    /// Waits until all instances ask the engine again.
    #[track_caller]
    pub(crate) fn wait_until_asked(&self) {
        self.all.iter().for_each(Instance::wait_until_asked);
    }

    /// Publishes at an instance, and returns how that was answered.
    #[track_caller]
    pub(crate) fn push(&mut self, instance: usize, token: &str) -> String {
        self.all[instance].push(token)
    }

    /// The pushes that have reached the provider for this token.
    pub(crate) fn sent(&self, token: &str) -> Vec<ApnsRequest> {
        let requests = self.apns.requests();
        requests
            .into_iter()
            .filter(|request| request.token == token)
            .collect()
    }

    /// Waits until an instance has told what is under a key with this in its name.
    #[track_caller]
    pub(crate) fn wait_for_key(&self, part: &str) {
        until(LONG, part, || {
            self.redis.keys().iter().any(|key| key.contains(part))
        });
    }

    /// Has pushes to so many devices accepted at an instance that Apple's word about others is believed there at once.
    #[track_caller]
    pub(crate) fn earn_trust(&mut self, instance: usize) {
        for number in 0..TRUSTED {
            let number = 1_000 * (instance + 1) + number;
            assert_eq!(self.push(instance, &token(number)), RESULT);
        }
    }
}

impl<'a> Setup<'a> {
    /// So many instances on one engine.
    pub(crate) fn of(instances: usize, spacing: &'a str) -> Self {
        let redis = Redis::start_new();
        let urls = vec![Some(redis.url()); instances];
        Self {
            redis,
            spacing,
            urls,
            change: |_| {},
            files: Vec::new(),
            clock: None,
        }
    }
}

impl Instance {
    #[track_caller]
    pub(crate) fn push(&mut self, token: &str) -> String {
        let id = self.publish(token);
        self.link.reply_to(&id, LONG).verdict()
    }

    /// Publishes; returns the id.
    pub(crate) fn publish(&mut self, token: &str) -> String {
        self.published += 1;
        let id = format!("id-{}", self.published);
        self.link.send(ejabberd_publish(&id, token, Some("m"), true));
        id
    }

    /// A user's test push to this token. Returns how it ended.
    #[track_caller]
    pub(crate) fn test_push(&mut self, token: &str) -> String {
        self.published += 1;
        let id = format!("id-{}", self.published);
        let command = Command::new(&id, "test-push", &[("pushModule", "m"), ("token", token)]);
        self.link
            .send(command.from("user@a.example/phone").action("execute"));
        Form::of(&self.link.reply_to(&id, LONG))
            .value("outcome")
            .to_owned()
    }

    pub(crate) fn monitoring(&self) -> Monitoring {
        Monitoring::of(&self.daemon, LONG)
    }

    /// Waits until it has seen what has happened, also that time has passed, and asks the engine: what it asked it meanwhile may have
    /// been answered too late for it.
    #[track_caller]
    pub(crate) fn wait_until_asked(&self) {
        wait_until_asked(self.monitoring());
    }

    /// Changes the settings, for the next start or reload.
    pub(crate) fn change_settings(&self, change: impl FnOnce(&mut Value)) {
        let file = self.daemon.dir().join("settings.json");
        let mut settings: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        change(&mut settings);
        fs::write(&file, settings.to_string()).unwrap();
    }

    /// Ends it as systemd does.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.daemon.terminate();
        self.daemon.wait_for_log("SIGTERM: finishing", LONG);
        self.link.close();
        assert!(self.daemon.wait(LONG).success(), "{}", self.daemon.log());
    }

    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.daemon.start_again();
        self.link = accept(&self.xmpp, &self.daemon);
    }
}

/// As [`Instance::wait_until_asked`], on a thread of its own.
#[track_caller]
pub(crate) fn wait_until_asked(monitoring: Monitoring) {
    monitoring.wait_for_news();
    wait_until_engine_is(true, monitoring);
}

/// Waits until an instance uses the engine, or knows that it cannot.
#[track_caller]
pub(crate) fn wait_until_engine_is(is_used: bool, monitoring: Monitoring) {
    let expected = Some(f64::from(u8::from(is_used)));
    until(LONG, &format!("whether the engine is used: {is_used}"), || {
        monitoring.scrape().value("fpush_cluster_up", &[]) == expected
    });
}

/// Those of an instance in this folder that shares nothing yet. Apple's authority is in `ca.pem` there.
pub(crate) fn settings(folder: &Path, component: &Value, apns: &FakeApns, spacing: &str) -> Value {
    json!({
        "component": component,
        "pushModules": { "m": {
            "type": "apple",
            "ratelimit": { "ratelimitTime": spacing },
            "apns": {
                "certFilePath": fixture("aps.pem"), "certKeyFilePath": fixture("aps.key.pem"),
                "topic": "org.example.app", "endpoint": apns.url(), "caFilePath": "ca.pem",
            },
        } },
        "stateDirectory": folder.join("state"),
        "timeout": { "xmppconnectionError": "100ms" },
        "monitoring": { "listen": "127.0.0.1:0" },
    })
}

fn accept(xmpp: &FakeXmpp, daemon: &Daemon) -> Link {
    match xmpp.try_accept(LONG) {
        Ok(link) => link,
        Err(e) => panic!("no link: {e}; the log:\n{}", daemon.log()),
    }
}

const TRUSTED: usize = 10;

/// A token of Apple's.
/// Waits until a replica has what its primary has now.
#[track_caller]
pub(crate) fn wait_until_it_has_all(replica: &Redis, primary: &Redis) {
    let offset = |node: &Redis, name: &str| -> u64 {
        let said = node.ask(&["INFO", "replication"]);
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{said}")).trim().parse().unwrap()
    };
    let now = offset(primary, "master_repl_offset:");
    until(LONG, "the replica has all", || {
        offset(replica, "slave_repl_offset:") >= now
    });
}

pub(crate) fn token(number: usize) -> String {
    format!("{number:08x}{}", "89abcdef".repeat(7))
}
