//! Web Push: several providers behind one module, most of them chosen by strangers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use fpush_testkit::{
    Answer, ApnsKey, Daemon, FakeProxy, FakePush, FakeXmpp, Link, Moves, ProxyAnswer, Registration, TestCa,
    publish::ejabberd_publish,
};
use serde_json::json;

use super::{
    rig::{DAY, DEAD, HOUR, LONG, MINUTE, RESULT, accept},
    time::Time,
};

/// A daemon with a module for Web Push, under a clock that is moved. All hosts lead to one fake.
struct Web {
    link: Link,
    daemon: Daemon,
    time: Time,
    xmpp: FakeXmpp,
    push: FakePush,
    _proxy: FakeProxy,
    /// What is answered to pushes to a path, or to all of a host; 201 otherwise.
    news: Arc<Mutex<HashMap<String, Answer>>>,
    sent: usize,
}

/// A subscription, and what its user's server remembers of the answers.
struct Subscriber {
    path: String,
    token: String,
    registration: Registration,
    last: String,
}

/// The push services of vendors.
const VENDORS: [&str; 3] = [
    "fcm.googleapis.com",
    "web.push.apple.com",
    "updates.push.services.mozilla.com",
];
/// One that a stranger may have chosen.
const OTHER: &str = "up.example.org";

impl Web {
    fn start() -> Self {
        let (ca, proxy) = (TestCa::new(), FakeProxy::start());
        let push = FakePush::start(&ca);
        proxy.answer_with(ProxyAnswer::TunnelTo(push.address()));
        let news = Arc::new(Mutex::new(HashMap::<String, Answer>::new()));
        let heard = Arc::clone(&news);
        push.answer_with(move |pushed| {
            let news = heard.lock().unwrap();
            let own = news.get(&pushed.path).or_else(|| news.get(&pushed.authority));
            own.cloned().unwrap_or_else(|| Answer::status(201))
        });
        let xmpp = FakeXmpp::start("push.localhost", "secret");
        let builder = Daemon::builder(env!("CARGO_BIN_EXE_fpush"))
            .file("ca.pem", ca.pem())
            .file("vapid.key", ApnsKey::generate().p8())
            .env("HTTPS_PROXY", &proxy.url());
        let mut settings = json!({
            "component": {
                "componentHostname": "push.localhost", "componentKey": "secret",
                "serverHostname": "127.0.0.1", "serverPort": xmpp.port(),
            },
            "timeout": { "xmppconnectionError": "100ms" },
            "pushModules": { "web": { "type": "webpush", "ratelimit": { "enabled": false }, "webpush": {
                "vapidKeyFilePath": "vapid.key", "subject": "mailto:push@example.org", "caFilePath": "ca.pem",
                "allowedEndpoints": [VENDORS[0], VENDORS[1], VENDORS[2], OTHER],
            } } },
            "stateDirectory": builder.dir().join("state"),
        });
        let time = Time::of(&builder, Moves::Time, &mut settings);
        let daemon = time.run(builder.settings(&settings));
        Self {
            link: accept(&xmpp, &daemon),
            daemon,
            time,
            xmpp,
            push,
            _proxy: proxy,
            news,
            sent: 0,
        }
    }

    /// From now on pushes to this path, or to all of this host, are answered like this.
    fn gets(&self, path_or_host: &str, answer: Answer) {
        self.news.lock().unwrap().insert(path_or_host.to_owned(), answer);
    }

    fn is_well(&self, path_or_host: &str) {
        self.news.lock().unwrap().remove(path_or_host);
    }

    fn subscribers(&mut self, host: &str, number: usize) -> Vec<Subscriber> {
        (0..number)
            .map(|_| {
                self.sent += 1;
                let path = format!("/{}", self.sent);
                Subscriber {
                    token: self.push.subscribe_at(host, &path).token(),
                    path,
                    registration: Registration::default(),
                    last: String::new(),
                }
            })
            .collect()
    }

    #[track_caller]
    fn publish(&mut self, subscribers: &mut [Subscriber]) {
        let ids: Vec<_> = subscribers
            .iter()
            .enumerate()
            .map(|(n, subscriber)| {
                self.sent += 1;
                let id = format!("id-{}", self.sent);
                let publish = ejabberd_publish(&id, &subscriber.token, Some("web"), true);
                self.link
                    .send(publish.from(&format!("chat.server{}.example", n % 40)));
                id
            })
            .collect();
        for (subscriber, id) in subscribers.iter_mut().zip(ids) {
            subscriber.last = self.link.reply_to(&id, LONG).verdict();
            subscriber.registration.hear(&subscriber.last);
        }
    }

    #[track_caller]
    fn expect_all_arrive(&mut self, subscribers: &mut [Subscriber]) {
        self.publish(subscribers);
        for subscriber in subscribers {
            assert_eq!(subscriber.last, RESULT, "{}", self.daemon.log());
        }
    }

    #[track_caller]
    fn pass(&mut self, time: Duration) {
        self.time.pass(time, &self.daemon, &mut self.link);
    }

    #[track_caller]
    fn restart(&mut self) {
        self.daemon.terminate();
        self.daemon.wait_for_log("SIGTERM: finishing", LONG);
        self.link.close();
        assert!(self.daemon.wait(LONG).success(), "{}", self.daemon.log());
        self.daemon.start_again();
        self.link = accept(&self.xmpp, &self.daemon);
    }

    /// Publishes every so often until it is gone; how long that took, or `None` after `most`.
    fn until_dead(&mut self, dead: &mut [Subscriber], every: Duration, most: Duration) -> Option<Duration> {
        let mut passed = Duration::ZERO;
        while passed <= most {
            self.publish(dead);
            if dead
                .iter()
                .all(|subscriber| subscriber.registration.is_forgotten())
            {
                return Some(passed);
            }
            self.pass(every);
            passed += every;
        }
        None
    }
}

fn lost(subscribers: &[Subscriber]) -> usize {
    let kept = |subscriber: &&Subscriber| !subscriber.registration.is_kept();
    subscribers.iter().filter(kept).count()
}

/// A wrong key, a wrong clock, or a bad day of the vendor's.
#[test]
fn a_vendor_that_refuses_all_of_its_subscriptions_for_days_costs_none() {
    for (host, answer) in [
        (VENDORS[0], Answer::status(403)),
        (VENDORS[1], Answer::reason(400, "VapidPkHashMismatch")),
        (VENDORS[1], Answer::reason(403, "BadJwtToken")),
        (VENDORS[2], Answer::status(401)),
    ] {
        let mut web = Web::start();
        let mut others = web.subscribers(
            VENDORS[(VENDORS.iter().position(|v| *v == host).unwrap() + 1) % 3],
            60,
        );
        let mut all = web.subscribers(host, 100);
        web.expect_all_arrive(&mut others);
        web.expect_all_arrive(&mut all);
        web.gets(host, answer.clone());
        for step in 0..12 {
            web.publish(&mut all);
            // Another vendor takes what it gets, which is not a reason to believe this one.
            web.expect_all_arrive(&mut others);
            web.pass(11 * HOUR);
            if step == 5 {
                web.restart();
            }
        }
        assert_eq!(lost(&all), 0, "{answer:?}");
        let log = web.daemon.log();
        let is_told = [
            "refuses the key of this module",
            "refuses this module's credentials",
        ]
        .iter()
        .any(|words| log.contains(words));
        assert!(is_told, "the operator hears of {answer:?}\n{log}");
        web.is_well(host);
        web.pass(HOUR);
        web.expect_all_arrive(&mut all);
    }
}

/// Whatever a vendor calls its living subscriptions, ten are the most that it costs.
#[test]
fn an_incident_at_a_vendor_costs_ten_subscriptions_at_most() {
    for status in [404, 410] {
        let mut web = Web::start();
        let mut all = web.subscribers(VENDORS[0], 100);
        let mut others = web.subscribers(VENDORS[2], 60);
        web.expect_all_arrive(&mut all);
        web.gets(VENDORS[0], Answer::status(status));
        for _ in 0..10 {
            web.publish(&mut all);
            web.expect_all_arrive(&mut others);
            web.pass(5 * HOUR);
        }
        assert!(lost(&all) <= 10, "{} by {status}", lost(&all));
    }
}

#[test]
fn a_vendors_dead_subscription_goes_at_the_first_word_while_its_lane_is_calm() {
    for (host, status) in [(VENDORS[0], 404), (VENDORS[1], 410), (VENDORS[2], 410)] {
        let mut web = Web::start();
        let mut others = web.subscribers(host, 60);
        web.expect_all_arrive(&mut others);
        let mut dead = web.subscribers(host, 1);
        web.gets(&dead[0].path, Answer::status(status));
        web.publish(&mut dead);
        assert_eq!(dead[0].last, DEAD, "{host}\n{}", web.daemon.log());
        web.restart();
        web.publish(&mut dead);
        assert_eq!(dead[0].last, DEAD);
        web.expect_all_arrive(&mut others);
    }
}

/// A server that a stranger has chosen speaks for its own receivers, and only over time.
#[test]
fn a_strangers_server_is_believed_about_its_own_receivers_after_an_hour_or_a_day() {
    for (status, least, most) in [(410, HOUR, HOUR + 22 * MINUTE), (404, DAY, DAY + 22 * MINUTE)] {
        let mut web = Web::start();
        let mut others = web.subscribers(OTHER, 60);
        web.expect_all_arrive(&mut others);
        let mut dead = web.subscribers(OTHER, 1);
        web.gets(&dead[0].path, Answer::status(status));
        web.publish(&mut dead);
        web.restart();
        let took = web
            .until_dead(&mut dead, 11 * MINUTE, 3 * DAY)
            .expect("it is dead");
        assert!((least..=most).contains(&took), "{took:?} by {status}");
        web.expect_all_arrive(&mut others);
        assert_eq!(lost(&others), 0);
    }
}

/// An expired endpoint, or a server whose operator has closed it for us: nobody knows.
#[test]
fn what_a_strangers_server_does_not_allow_is_never_dead() {
    for answer in [
        Answer::status(401),
        Answer::status(403),
        Answer::status(400),
        Answer::status(418),
        Answer::status(507),
        Answer::status(503),
        Answer::reason(400, "VapidPkHashMismatch"),
    ] {
        let mut web = Web::start();
        let mut all = web.subscribers(OTHER, 5);
        web.gets(OTHER, answer.clone());
        for _ in 0..15 {
            web.publish(&mut all);
            web.pass(11 * HOUR);
        }
        assert_eq!(lost(&all), 0, "{answer:?}");
        let log = web.daemon.log();
        for alarm in [
            "rejects too many",
            "has rejected every token",
            "check the settings",
        ] {
            assert!(!log.contains(alarm), "{alarm} by {answer:?}\n{log}");
        }
    }
}
