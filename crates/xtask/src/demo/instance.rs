//! One fpush in a demo: with the XMPP server that it has a link to, and one module for phones of Apple's.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use fpush_testkit::publish::ejabberd_publish;
use fpush_testkit::scrape::Monitoring;
use fpush_testkit::{ApnsKey, Daemon, FakeApns, FakeXmpp, Link, Reply, Scrape, TestCa, merged};
use serde_json::{Value, json};

/// Apple's stand-in, and what is needed to reach it.
pub(super) struct Apple {
    pub(super) apns: FakeApns,
    ca: TestCa,
    key: ApnsKey,
}

pub(super) struct Instance {
    pub(super) daemon: Daemon,
    xmpp: FakeXmpp,
    link: Link,
    monitoring: Monitoring,
    /// Messages that came in.
    pub(super) published: usize,
    /// What they were answered, as far as they were.
    pub(super) answers: Vec<String>,
}

impl Apple {
    pub(super) fn start() -> Self {
        let ca = TestCa::new();
        Self {
            apns: FakeApns::start(&ca),
            ca,
            key: ApnsKey::generate(),
        }
    }

    /// The phones that got a push, after so many requests.
    pub(super) fn woken(&self, requests: usize) -> BTreeSet<String> {
        let requests = self.apns.requests().into_iter().skip(requests);
        requests.map(|request| request.token).collect()
    }
}

impl Instance {
    /// Starts one with a state directory, and what `more` says over the other settings.
    pub(super) fn start(program: &Path, apple: &Apple, more: Value) -> Self {
        let xmpp = FakeXmpp::start("push.localhost", "made-up-secret");
        let builder = Daemon::builder(program)
            .file("ca.pem", apple.ca.pem())
            .file("key.p8", apple.key.p8());
        let settings = json!({
            "component": {
                "componentHostname": "push.localhost", "componentKey": "made-up-secret",
                "serverHostname": "127.0.0.1", "serverPort": xmpp.port(),
            },
            "pushModules": { MODULE: {
                "type": "apple",
                "apns": {
                    "tokenKeyFilePath": "key.p8", "keyId": "ABCDE12345", "teamId": "FGHIJ67890", "topic": "org.example.app",
                    "endpoint": apple.apns.url(), "caFilePath": "ca.pem",
                },
            } },
            "stateDirectory": builder.dir().join("state"),
            "monitoring": { "listen": "127.0.0.1:0" },
        });
        let daemon = builder.settings(&merged(settings, more)).start();
        Self {
            link: xmpp.accept(PATIENCE),
            monitoring: Monitoring::of(&daemon, PATIENCE),
            daemon,
            xmpp,
            published: 0,
            answers: Vec::new(),
        }
    }

    pub(super) fn xmpp_port(&self) -> u16 {
        self.xmpp.port()
    }

    /// A message comes in for this phone.
    pub(super) fn publish(&mut self, phone: usize) {
        let id = format!("message-{}", self.published);
        self.link
            .send(ejabberd_publish(&id, &token(phone), Some(MODULE), true));
        self.published += 1;
    }

    /// Takes note of the answers that have come.
    pub(super) fn hear(&mut self) {
        let replies = self.link.pending();
        let verdicts = replies.iter().map(|reply| Reply::parse(reply).verdict());
        self.answers.extend(verdicts);
    }

    pub(super) fn scrape(&self) -> Scrape {
        self.monitoring.scrape()
    }

    /// It ends without a word.
    pub(super) fn kill(&mut self) {
        self.daemon.kill();
    }

    pub(super) fn start_again(&mut self) {
        self.daemon.start_again();
        self.link = self.xmpp.accept(PATIENCE);
        self.monitoring = Monitoring::of(&self.daemon, PATIENCE);
    }
}

fn token(phone: usize) -> String {
    format!("{phone:064x}")
}

/// How many answers there were of which kind.
pub(super) fn summary(answers: &[String]) -> String {
    let kinds: BTreeSet<_> = answers.iter().collect();
    let count = |kind: &String| answers.iter().filter(|answer| *answer == kind).count();
    let kinds: Vec<_> = kinds
        .into_iter()
        .map(|kind| format!("{} {kind}", count(kind)))
        .collect();
    kinds.join(", ")
}

pub(super) const MODULE: &str = "iphone";
/// For everything that happens soon.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
