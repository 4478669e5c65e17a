//! `cargo xtask demo --outage`: a provider is away, fpush is killed meanwhile, and every phone gets its push in the end.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fpush_testkit::publish::ejabberd_publish;
use fpush_testkit::scrape::Monitoring;
use fpush_testkit::{Answer, ApnsKey, Daemon, FakeApns, FakeXmpp, Link, Reply, TestCa};
use serde_json::json;

use super::steps::{build, heading};
use crate::interrupt;

/// Runs the demo. Whatever it started ends when this returns.
pub(crate) fn run() -> Result<()> {
    println!("{INTRODUCTION}");

    heading("1. Build fpush");
    let program = build()?;

    heading("2. Start everything");
    let ca = TestCa::new();
    let (apns, xmpp) = (
        FakeApns::start(&ca),
        FakeXmpp::start("push.localhost", "made-up-secret"),
    );
    let builder = Daemon::builder(program)
        .file("ca.pem", ca.pem())
        .file("key.p8", ApnsKey::generate().p8());
    let settings = json!({
        "component": {
            "componentHostname": "push.localhost", "componentKey": "made-up-secret",
            "serverHostname": "127.0.0.1", "serverPort": xmpp.port(),
        },
        "pushModules": { "iphone": {
            "type": "apple",
            "ratelimit": { "enabled": false },
            "apns": {
                "tokenKeyFilePath": "key.p8", "keyId": "ABCDE12345", "teamId": "FGHIJ67890", "topic": "org.example.app",
                "endpoint": apns.url(), "caFilePath": "ca.pem",
            },
        } },
        "stateDirectory": builder.dir().join("state"),
        "monitoring": { "listen": "127.0.0.1:0" },
    });
    let daemon = builder.settings(&settings).start();
    println!("stand-in for an XMPP server 127.0.0.1:{}", xmpp.port());
    println!("stand-in for APNs           {}", apns.url());
    println!("fpush                       with a state directory, and a push for each device at any time");
    let link = xmpp.accept(PATIENCE);
    let monitoring = Monitoring::of(&daemon, PATIENCE);
    let mut stage = Stage {
        daemon,
        apns,
        xmpp,
        link,
        monitoring,
        start: Instant::now(),
        published: 0,
        answers: Vec::new(),
    };

    heading("3. An outage of the provider, and its end");
    stage.play()?;
    println!("\nEverything is stopped, and nothing is left behind but the build.");
    Ok(())
}

/// Everything that runs. The fields end in this order.
struct Stage {
    daemon: Daemon,
    apns: FakeApns,
    xmpp: FakeXmpp,
    link: Link,
    monitoring: Monitoring,
    start: Instant,
    published: usize,
    /// What publishes were answered, as far as they were.
    answers: Vec<String>,
}

impl Stage {
    fn play(&mut self) -> Result<()> {
        println!("{HEAD}");
        self.publish();
        self.watch(2, Publishes::None)?;
        self.say("Apple's servers answer 503 from now on; messages for twelve phones come in");
        let before = self.apns.count();
        self.apns
            .answer_with(|_| Answer::reason(503, "ServiceUnavailable"));
        self.watch(8, Publishes::Two)?;
        self.say("kill -9: fpush ends without a word, and is started again");
        self.daemon.kill();
        self.daemon.start_again();
        self.link = self.xmpp.accept(PATIENCE);
        self.monitoring = Monitoring::of(&self.daemon, PATIENCE);
        self.watch(3, Publishes::Two)?;
        self.say("Apple is back; fpush finds out by one push, and sends the others at a rate that grows");
        let failed = self.apns.count();
        self.apns.answer_normally();
        let end = Instant::now() + PATIENCE;
        while self.woken(failed).len() < DEVICES && Instant::now() < end {
            self.watch(1, Publishes::None)?;
        }
        self.watch(1, Publishes::None)?;
        self.conclude(before, failed)
    }

    /// A line a second, for so many seconds.
    fn watch(&mut self, seconds: u32, publishes: Publishes) -> Result<()> {
        for _ in 0..seconds {
            interrupt::check()?;
            for _ in 0..publishes as usize {
                self.publish();
            }
            thread::sleep(Duration::from_secs(1));
            let replies = self.link.pending();
            let verdicts = replies.iter().map(|reply| Reply::parse(reply).verdict());
            self.answers.extend(verdicts);
            let metrics = self.monitoring.scrape();
            let of = |name: &str| {
                let mut samples = metrics.samples.iter();
                samples.find(|sample| sample.name == name)
            };
            let phase = of("fpush_module_outage").and_then(|sample| sample.labels.get("phase"));
            println!(
                "{:>5.1} s {:>11} {:>11} {:>11} {:>11}  {}",
                self.start.elapsed().as_secs_f64(),
                self.published,
                self.answers.len(),
                of("fpush_pushes_spooled").map_or(0.0, |sample| sample.value),
                self.apns.count(),
                phase.map_or("", String::as_str)
            );
        }
        Ok(())
    }

    fn say(&self, what: &str) {
        println!("{:>5.1} s  -- {what}", self.start.elapsed().as_secs_f64());
    }

    /// A message for the next phone.
    fn publish(&mut self) {
        let id = format!("message-{}", self.published);
        let token = token(self.published % DEVICES);
        self.link
            .send(ejabberd_publish(&id, &token, Some("iphone"), true));
        self.published += 1;
    }

    /// The phones that got a push, after so many requests.
    fn woken(&self, requests: usize) -> BTreeSet<String> {
        let requests = self.apns.requests().into_iter().skip(requests);
        requests.map(|request| request.token).collect()
    }

    fn conclude(&self, before: usize, failed: usize) -> Result<()> {
        let woken = self.woken(failed).len();
        let pushes = self.apns.count() - failed;
        println!(
            "\n{} publishes were answered: {}; {} were not, because fpush was killed at that moment. Of {DEVICES} phones {woken} \
             got a push after the outage, by {pushes} requests; {} were made in vain before.",
            self.answers.len(),
            summary(&self.answers),
            self.published - self.answers.len(),
            failed - before
        );
        ensure!(
            woken == DEVICES,
            "some phones got no push; the log of fpush:\n{}",
            self.daemon.log()
        );
        Ok(())
    }
}

/// How many messages come in a second.
#[derive(Clone, Copy)]
enum Publishes {
    None = 0,
    Two = 2,
}

fn token(device: usize) -> String {
    format!("{device:064x}")
}

fn summary(answers: &[String]) -> String {
    let kinds: BTreeSet<_> = answers.iter().collect();
    let count = |kind: &String| answers.iter().filter(|answer| *answer == kind).count();
    let kinds: Vec<_> = kinds
        .into_iter()
        .map(|kind| format!("{} {kind}", count(kind)))
        .collect();
    kinds.join(", ")
}

const INTRODUCTION: &str = "\
fpush demo: a provider is away, fpush is killed meanwhile, and every phone gets its push in the end.

It builds fpush, and starts on 127.0.0.1 stand-ins for an XMPP server and for Apple's push service, and fpush. Nothing
leaves this machine; tokens, keys and passwords are made up. It takes half a minute once fpush is built.";

const HEAD: &str = "   time   published    answered        held  requests   the provider is";

const DEVICES: usize = 12;

const PATIENCE: Duration = Duration::from_secs(30);
