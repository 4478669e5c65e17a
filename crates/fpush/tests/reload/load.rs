//! Reloads under load.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Write as _},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use fpush_testkit::{ApnsKey, Link, Reply, publish::ejabberd_publish};
use serde_json::{Value, json};

use crate::rig::{Conductor, LONG, OVERLOAD, RESULT, SECOND, World, apple, google, merged, title, until};

/// Publishes a second, as long as the machine has room for them.
const RATE: usize = 2_000;
/// Publishes under way at a time, at most: so a machine that is too slow for the rate takes longer, and nothing is
/// refused for want of room.
const WINDOW: usize = 200;
const RELOADS: usize = 20;
/// Publishes from one reload to the next, at least.
const EACH: usize = 900;

/// What a publish asks for: a few go to a module that comes and goes, the others to Apple and Google in equal parts. Of
/// ten two are for a token that has just had its push, and are held until its window is over; so is every second one of
/// those few.
fn publish(number: usize) -> (&'static str, String) {
    let (round, place) = (number / 20, number % 20);
    match place {
        17 if round % 2 == 1 => ("extra", apple(number - 20)),
        17 => ("extra", apple(number)),
        4 | 14 => ("ios", apple(number - 2)),
        5 | 15 => ("android", google(number - 2)),
        _ if place.is_multiple_of(2) => ("ios", apple(number)),
        _ => ("android", google(number)),
    }
}

/// What came of the publishes.
#[derive(Default)]
struct Tally {
    under_way: HashMap<String, usize>,
    sent: usize,
    /// How often each token was acknowledged.
    acknowledged: HashMap<String, usize>,
    /// Publishes that the module that comes and goes took, and those that it did not.
    extra: [usize; 2],
    /// Replies that should not have come.
    wrong: Vec<String>,
}

impl Tally {
    /// Publishes on until `ended`, and waits for all replies.
    fn pump(&mut self, link: &mut Link, sent: &AtomicUsize, ended: impl Fn() -> bool) {
        let start = Instant::now();
        let mut last_reply = start;
        loop {
            let ended = ended();
            let due = (start.elapsed().as_secs_f64() * RATE as f64) as usize;
            let mut batch = String::new();
            while !ended && self.sent < due && self.under_way.len() < WINDOW {
                let (module, token) = publish(self.sent);
                let id = format!("load-{}", self.sent);
                batch += &ejabberd_publish(&id, &token, Some(module), true).to_string();
                self.under_way.insert(id, self.sent);
                self.sent += 1;
            }
            if !batch.is_empty() {
                link.send(batch);
                sent.store(self.sent, Ordering::Relaxed);
            }
            for raw in link.pending() {
                self.note(&Reply::parse(&raw));
                last_reply = Instant::now();
            }
            if ended && self.under_way.is_empty() {
                return;
            }
            assert!(
                self.under_way.is_empty() || last_reply.elapsed() < 40 * SECOND,
                "nobody answers {:?}",
                self.under_way
            );
            // The pace.
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn note(&mut self, reply: &Reply) {
        let Some(number) = self.under_way.remove(&reply.id) else {
            return self.wrong.push(format!("nobody waits for {}", reply.raw));
        };
        let (module, token) = publish(number);
        let taken = match (module, reply.verdict().as_str()) {
            (_, RESULT) => true,
            ("extra", OVERLOAD) => false,
            _ => return self.wrong.push(format!("{number} to {module}: {}", reply.raw)),
        };
        if module == "extra" {
            self.extra[usize::from(taken)] += 1;
        }
        if taken {
            *self.acknowledged.entry(token).or_default() += 1;
        }
    }
}

/// The change of each reload, and what must be seen of it at once.
fn change(conductor: &mut Conductor, step: usize, extra: &Value) {
    let apple = |apns: Value| json!({ "pushModules": { "ios": { "apns": apns } } });
    let both = |more: Value| json!({ "pushModules": { "ios": more, "android": more } });
    match step % 8 {
        0 => conductor.reload(apple(json!({ "alertTitle": format!("Title {step}") }))),
        1 => conductor.reload(json!({ "pushModules": { "extra": null } })),
        2 => {
            let ttl = format!("{}s", 3_600 + step);
            conductor.reload(json!({ "pushModules": { "android": { "fcm": { "ttl": ttl } } } }));
        }
        3 => {
            let old = conductor.monitoring();
            let listen = if old.address().ip().to_string() == "127.0.0.1" {
                "127.0.0.2:0"
            } else {
                "127.0.0.1:0"
            };
            conductor.reload(json!({ "monitoring": { "listen": listen } }));
            let new = conductor.monitoring();
            assert_ne!(new.address(), old.address());
            assert_eq!(new.get("/livez").status, 200);
            until(LONG, "the old listener ends", || {
                old.try_request("GET", "/livez").is_err()
            });
        }
        4 => conductor.reload(json!({ "pushModules": { "extra": extra } })),
        5 => {
            let file = if step == 5 { "other.p8" } else { "key.p8" };
            conductor.reload(apple(json!({ "tokenKeyFilePath": file })));
        }
        6 => conductor.reload(both(json!({ "maxInFlight": 50 + step }))),
        _ => {
            let time = format!("{}s", 2 + step % 3);
            conductor.reload(both(json!({ "ratelimit": { "ratelimitTime": time } })));
        }
    }
}

/// As often as each of these occurs.
fn counted(tokens: impl IntoIterator<Item = String>) -> HashMap<String, usize> {
    let mut counted = HashMap::new();
    for token in tokens {
        *counted.entry(token).or_default() += 1;
    }
    counted
}

#[test]
fn reloads_under_load_lose_and_duplicate_nothing() {
    let world = World::new();
    let keys = [ApnsKey::generate(), ApnsKey::generate()];
    let limit = json!({ "ratelimit": { "enabled": true, "ratelimitTime": "3s" } });
    // A machine that is busy is not a provider that does not answer, after which a push would be sent again.
    let patient = |section: &str| merged(limit.clone(), json!({ section: { "requestTimeout": "25s" } }));
    let extra = world.apple(patient("apns"));
    let settings = world.settings(json!({
        "ios": world.by_token("key.p8", patient("apns")),
        "android": world.google(patient("fcm")),
        "extra": extra,
    }));
    let (key, other) = (keys[0].p8(), keys[1].p8());
    let mut rig = world.start(settings, &[("key.p8", &key), ("other.p8", &other)]);

    let mut tally = Tally::default();
    let sent = AtomicUsize::new(0);
    let (link, conductor) = (&mut rig.link, &mut rig.conductor);
    let start = Instant::now();
    thread::scope(|scope| {
        let reloading = scope.spawn(|| {
            for step in 0..RELOADS {
                until(LONG, "the load goes on", || {
                    sent.load(Ordering::Relaxed) >= EACH * (step + 1)
                });
                change(conductor, step, &extra);
            }
            let all = sent.load(Ordering::Relaxed) + EACH;
            until(LONG, "the load goes on", || sent.load(Ordering::Relaxed) >= all);
        });
        tally.pump(link, &sent, || reloading.is_finished());
    });
    let (took, rate) = (start.elapsed(), tally.sent as f64 / start.elapsed().as_secs_f64());
    let figures = format!(
        "{RELOADS} reloads within {} publishes, {rate:.0} a second of {RATE}, {took:.1?}",
        tally.sent
    );
    if rate < 0.95 * RATE as f64 {
        // Past the harness, which shows the output of tests that fail only.
        writeln!(io::stderr(), "{figures}: this machine is too slow for more").unwrap();
    } else {
        println!("{figures}");
    }

    assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
    let (apns, fcm) = (&rig.world.apns, &rig.world.fcm);
    let all: usize = tally.acknowledged.values().sum();
    until(LONG + 4 * SECOND, "what is held is sent, too", || {
        apns.count() + fcm.count() >= all
    });
    let conductor = &mut rig.conductor;
    let scrape = conductor.monitoring().scrape();
    let value = |name: &str, labels: &[(&str, &str)]| scrape.value(name, labels).unwrap_or_default();
    assert_eq!(value("fpush_reloads_total", &[("result", "ok")]), RELOADS as f64);
    assert_eq!(value("fpush_reloads_total", &[("result", "refused")]), 0.0);
    assert_eq!(
        value("fpush_component_connects_total", &[]),
        1.0,
        "the link stayed up"
    );
    assert_eq!(value("fpush_pushes_lost_total", &[]), 0.0);
    let held = value("fpush_held_pushes_total", &[("outcome", "delivered")]);
    assert!(held >= tally.sent as f64 / 10.0, "{held} were held");
    // After the end nothing can come twice any more.
    conductor.daemon.terminate();
    assert!(rig.link.expect_end(LONG).stream_closed);
    assert!(conductor.daemon.wait(LONG).success());
    conductor
        .daemon
        .wait_for_log("stopped undelivered=0 kept=0", LONG);

    let (requests, sends) = (apns.requests(), fcm.sends());
    let mut seen = counted(requests.iter().map(|request| request.token.clone()));
    seen.extend(counted(sends.iter().map(|send| send.token().to_owned())));
    let wrong = |(token, times): (&String, &usize)| {
        let acknowledged = tally.acknowledged.get(token).copied().unwrap_or_default();
        (acknowledged != *times).then(|| format!("{token}: acknowledged {acknowledged}, sent {times}"))
    };
    let wrong: Vec<_> = seen.iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let lost: Vec<_> = tally
        .acknowledged
        .keys()
        .filter(|token| !seen.contains_key(*token))
        .collect();
    assert!(lost.is_empty(), "never sent: {lost:#?}");
    let ids: HashSet<_> = requests.iter().map(|request| request.header("apns-id")).collect();
    assert_eq!(ids.len(), requests.len(), "nothing had to be tried twice");

    // All those reloads did change something.
    let [refused, taken] = tally.extra;
    assert!(
        refused > 0 && taken > 0,
        "the module came and went: {:?}",
        tally.extra
    );
    let titles: HashSet<_> = requests.iter().map(|request| title(&request.body)).collect();
    let ttls: HashSet<_> = sends
        .iter()
        .map(|send| send.message["android"]["ttl"].as_str().unwrap())
        .collect();
    for step in 0..RELOADS {
        match step % 8 {
            0 => assert!(titles.contains(&*format!("Title {step}")), "{titles:?}"),
            2 => assert!(ttls.contains(&*format!("{}s", 3_600 + step)), "{ttls:?}"),
            _ => {}
        }
    }
    // One of each key, although the first one came back.
    let tokens: HashSet<_> = requests
        .iter()
        .filter_map(|request| request.header("authorization"))
        .collect();
    assert_eq!(tokens.len(), 2);
    for key in &keys {
        assert!(tokens.iter().any(|token| key.verify(token).is_ok()));
    }
}
