//! Outages of a provider, with the real program: publishes are acknowledged at once and held, whatever happens to the
//! program, and each device gets its push soon after the provider is back, at a rate that grows.

#![cfg(feature = "enable_fcm_support")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fpush_testkit::{
    Answer, Daemon, FakeFcm, FakeXmpp, Link, NewConnections, TestCa,
    fake_fcm::{fcm_error, quota_failure},
    publish::ejabberd_publish,
};
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fpush");
const LONG: Duration = Duration::from_secs(20);
const SECOND: Duration = Duration::from_secs(1);
/// So many devices get messages all the time.
const DEVICES: usize = 100;

/// A daemon with Google's module `m`, and what was said to it.
struct World {
    fcm: FakeFcm,
    xmpp: FakeXmpp,
    daemon: Daemon,
    link: Link,
    published: usize,
    /// What publishes were answered.
    answers: BTreeSet<String>,
}

impl World {
    fn start(hold_for: Option<&str>) -> Self {
        let ca = TestCa::new();
        let fcm = FakeFcm::start(&ca);
        let xmpp = FakeXmpp::start("push.localhost", "secret");
        let builder = Daemon::builder(PROGRAM)
            .file("ca.pem", ca.pem())
            .file("fcm.json", fcm.service_account("project-1"));
        let mut module = json!({
            "type": "google",
            "ratelimit": { "enabled": false },
            "fcm": { "fcmSecretPath": "fcm.json", "endpoint": fcm.url(), "caFilePath": "ca.pem" },
        });
        if let Some(hold_for) = hold_for {
            module["holdFor"] = hold_for.into();
        }
        let settings = json!({
            "component": {
                "componentHostname": "push.localhost", "componentKey": "secret",
                "serverHostname": "127.0.0.1", "serverPort": xmpp.port(),
            },
            "pushModules": { "m": module },
            "stateDirectory": builder.dir().join("state"),
            "timeout": { "xmppconnectionError": "100ms" },
        });
        let daemon = builder.settings(&settings).start();
        let link = accept(&xmpp, &daemon);
        Self {
            fcm,
            xmpp,
            daemon,
            link,
            published: 0,
            answers: BTreeSet::new(),
        }
    }

    /// Publishes, and says what the answer is.
    fn push(&mut self, device: usize) -> String {
        self.published += 1;
        let id = format!("id-{}", self.published);
        self.link
            .send(ejabberd_publish(&id, &token(device), Some("m"), true));
        self.link.reply_to(&id, 2 * LONG).verdict()
    }

    /// Publishes to many devices at a time, for so long.
    fn publish_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let mut ids = Vec::new();
        while Instant::now() < end {
            let device = self.published % DEVICES;
            self.published += 1;
            let id = format!("id-{}", self.published);
            self.link
                .send(ejabberd_publish(&id, &token(device), Some("m"), true));
            ids.push(id);
            thread::sleep(SECOND / 40);
        }
        for id in ids {
            let verdict = self.link.reply_to(&id, 2 * LONG).verdict();
            self.answers.insert(verdict);
        }
    }

    fn start_again(&mut self) {
        self.daemon.start_again();
        self.link = accept(&self.xmpp, &self.daemon);
    }

    fn crash(&mut self) {
        self.daemon.kill();
        self.start_again();
    }

    fn restart(&mut self) {
        self.daemon.terminate();
        self.daemon.wait_for_log("SIGTERM: finishing", LONG);
        self.link.close();
        assert!(self.daemon.wait(LONG).success(), "{}", self.daemon.log());
        self.start_again();
    }

    /// The pushes since then, by second.
    fn sends_since(&self, since: Instant) -> Vec<(Duration, String)> {
        let sends = self.fcm.sends();
        let late = sends.iter().filter(|send| send.at >= since);
        late.map(|send| (send.at - since, send.token().to_owned()))
            .collect()
    }
}

fn accept(xmpp: &FakeXmpp, daemon: &Daemon) -> Link {
    match xmpp.try_accept(LONG) {
        Ok(link) => link,
        Err(e) => panic!("no link: {e}; the log:\n{}", daemon.log()),
    }
}

fn token(number: usize) -> String {
    format!("device{number:04}:APA91b{}", "x".repeat(120))
}

/// An outage of twenty seconds with a restart and a crash in it.
fn outage(begin: impl FnOnce(&FakeFcm), end: impl FnOnce(&FakeFcm)) {
    let mut world = World::start(None);
    assert_eq!(world.push(DEVICES), "result");
    begin(&world.fcm);
    world.publish_for(8 * SECOND);
    world.restart();
    world.publish_for(4 * SECOND);
    world.crash();
    world.publish_for(4 * SECOND);
    // It is known to be down: nobody waits for its answer any more.
    let start = Instant::now();
    assert_eq!(world.push(0), "result");
    assert!(start.elapsed() < 3 * SECOND, "{:?}", start.elapsed());
    assert!(
        world.answers.iter().all(|answer| answer == "result"),
        "{:?}",
        world.answers
    );
    let back = Instant::now();
    end(&world.fcm);
    // Probes are fifteen seconds apart, and the ramp of this many takes some twenty.
    let until = Instant::now() + 75 * SECOND;
    let all: BTreeSet<_> = (0..DEVICES).map(token).collect();
    loop {
        let sends = world.sends_since(back);
        let woken: BTreeSet<_> = sends.iter().map(|(_, token)| token.clone()).collect();
        if all.is_subset(&woken) {
            break;
        }
        assert!(
            Instant::now() < until,
            "{} of {DEVICES} are awake\n{}",
            woken.len(),
            world.daemon.log()
        );
        thread::sleep(SECOND / 10);
    }
    thread::sleep(2 * SECOND);
    let sends = world.sends_since(back);
    assert!(sends.len() <= DEVICES + DEVICES / 20, "{} sends", sends.len());
    // No spike: the rate doubles every six seconds.
    let first = sends.iter().map(|(at, _)| *at).min().unwrap();
    let mut seconds = vec![0_usize; 100];
    for (at, _) in &sends {
        seconds[(*at - first).as_secs() as usize] += 1;
    }
    for (second, count) in seconds.iter().enumerate() {
        let rate = 2_f64.powf((second + 1) as f64 / 6.0);
        assert!(*count as f64 <= rate * 1.5 + 2.0, "{second}: {seconds:?}");
    }
    // And now as if nothing had been.
    assert_eq!(world.push(0), "result");
}

#[test]
fn nothing_is_lost_while_the_provider_answers_503() {
    outage(
        |fcm| fcm.answer_with(|_| fcm_error(503, "UNAVAILABLE", Some("UNAVAILABLE"), &[])),
        FakeFcm::answer_normally,
    );
}

#[test]
fn nothing_is_lost_while_the_provider_says_nothing() {
    outage(
        |fcm| fcm.answer_with(|_| Answer::Silence),
        FakeFcm::answer_normally,
    );
}

#[test]
fn nothing_is_lost_while_the_provider_refuses_connections() {
    outage(
        |fcm| {
            fcm.new_connections(NewConnections::Reset);
            fcm.reset_existing_connections();
        },
        |fcm| fcm.new_connections(NewConnections::Serve),
    );
}

#[test]
fn nothing_is_lost_while_the_provider_wants_a_pause() {
    outage(
        |fcm| {
            fcm.answer_with(|_| {
                let details = [quota_failure("project:project-1", "")];
                fcm_error(429, "RESOURCE_EXHAUSTED", Some("QUOTA_EXCEEDED"), &details)
                    .header("retry-after", "10")
            });
        },
        FakeFcm::answer_normally,
    );
}

#[test]
fn nothing_is_lost_while_the_token_endpoint_is_away() {
    let is_away = Arc::new(AtomicBool::new(true));
    let away = Arc::clone(&is_away);
    outage(
        |fcm| {
            fcm.answer_tokens_with(move |_| {
                if away.load(Ordering::Relaxed) {
                    Answer::status(503)
                } else {
                    Answer::Normal
                }
            });
            fcm.revoke_tokens();
        },
        |_| is_away.store(false, Ordering::Relaxed),
    );
}

/// As before: the server hears that its push did not arrive, and keeps the device.
#[test]
fn without_hold_for_an_outage_is_answered_wait() {
    let mut world = World::start(Some("0s"));
    world
        .fcm
        .answer_with(|_| fcm_error(503, "UNAVAILABLE", Some("UNAVAILABLE"), &[]));
    assert_eq!(world.push(0), "wait/remote-server-timeout");
    world.fcm.answer_normally();
    let before = world.fcm.count();
    thread::sleep(2 * SECOND);
    assert_eq!(world.fcm.count(), before);
}
