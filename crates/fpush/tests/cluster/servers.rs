//! Three instances at one real ejabberd, the first of them at a real Prosody as well: they are one towards devices, also while
//! parts of it all are killed. Without the servers these tests fail and say what to install.

#![expect(clippy::disallowed_macros, reason = "what was counted is shown to who asks")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fpush_testkit::{
    Answer, ApnsKey, Daemon, FakeApns, Flow, Monitoring, Redis, Relay, TestCa,
    servers::{Client, Ejabberd, Prosody, Seen, Server, Tap, attribute},
    until,
};
use serde_json::{Value, json};

use crate::{
    rig::{LONG, PROGRAM, SECOND, settings, token, wait_until_engine_is},
    token::use_provider_token,
};

const COMPONENT: &str = "push.localhost";
const SECRET: &str = "made-up-component-secret";
const PASSWORD: &str = "made-up-password";
/// A server that is busy may say nothing for a while, and then go on.
const QUIET: Duration = Duration::from_secs(3);
/// ejabberd would keep a hundred messages for a user, and drop the others without a publish.
const MANY_MESSAGES: &str = "shaper_rules:\n  max_user_offline_messages: 1000000\n";

/// All of it: servers, instances, the engine, Apple.
struct Service {
    all: Vec<Member>,
    apple: Apple,
    redis: Redis,
    at_ejabberd: Phones,
    at_prosody: Phones,
    // They end last.
    ejabberd: Ejabberd,
    prosody: Prosody,
}

/// An instance.
struct Member {
    daemon: Daemon,
    is_killed: bool,
    /// One for each of its links.
    links: Vec<Books>,
    /// Its way to the engine.
    engine: Relay,
}

/// What went over a link.
struct Books {
    tap: Tap,
    read: usize,
    /// The newest connection over which something went by.
    connection: usize,
    /// By id: publishes that have no reply yet, over that one. Who sent them over an earlier one gets none.
    open: BTreeMap<String, (String, Instant)>,
    /// Publishes by token.
    published: BTreeMap<String, usize>,
    /// Those that were acknowledged: token, and when it was published.
    acknowledged: Vec<(String, Instant)>,
    dead: usize,
    wait: usize,
}

/// The provider, and what it accepted.
struct Apple {
    server: FakeApns,
    is_away: Arc<AtomicBool>,
    dead: Arc<Mutex<BTreeSet<String>>>,
    accepted: Arc<Mutex<Vec<Push>>>,
}

#[derive(Clone)]
struct Push {
    token: String,
    apns_id: String,
    at: Instant,
}

/// Users of a server whose phones are off, and one who writes to them.
struct Phones {
    writer: Client,
    tokens: Vec<String>,
    written: usize,
}

impl Service {
    fn start(spacing: &str) -> Self {
        let components = [(COMPONENT, SECRET)];
        let ejabberd = Ejabberd::start(&components, MANY_MESSAGES).unwrap();
        let prosody = Prosody::start(&components, "").unwrap();
        let (ca, redis, p8) = (TestCa::new(), Redis::start_new(), ApnsKey::generate().p8());
        let apple = Apple::start(&ca);
        let start = |instance: usize| {
            let servers: &[&dyn Server] = match instance {
                0 => &[&ejabberd, &prosody],
                _ => &[&ejabberd],
            };
            let links: Vec<_> = servers.iter().map(|server| Books::of(*server)).collect();
            let component: Value = servers
                .iter()
                .zip(&links)
                .map(|(server, books)| {
                    json!({
                        "linkName": server.name(), "componentHostname": COMPONENT, "componentKey": SECRET,
                        "serverHostname": "127.0.0.1", "serverPort": books.tap.port(), "group": server.name(),
                    })
                })
                .collect();
            let (engine, url) = redis.relay();
            let builder = Daemon::builder(PROGRAM)
                .file("ca.pem", ca.pem())
                .file("key.p8", &*p8);
            let mut settings = settings(builder.dir(), &component, &apple.server, spacing);
            use_provider_token(&mut settings);
            settings["cluster"] = json!({ "url": url, "timeout": "1s" });
            Member {
                daemon: builder.settings(&settings).start(),
                is_killed: false,
                links,
                engine,
            }
        };
        let all: Vec<_> = (0..3).map(start).collect();
        ejabberd.wait_for_component(3, LONG).unwrap();
        prosody.wait_for_component(1, LONG).unwrap();
        all.iter().for_each(Member::wait_for_engine);
        Self {
            all,
            apple,
            redis,
            at_ejabberd: Phones::of(&ejabberd),
            at_prosody: Phones::of(&prosody),
            ejabberd,
            prosody,
        }
    }

    /// Waits until so many publishes have come: a busy machine's servers take their time.
    #[track_caller]
    fn wait_for_publishes(&mut self, count: usize) {
        until(LONG, "all is published", || {
            self.all.iter_mut().for_each(Member::read);
            self.published() >= count
        });
    }

    /// Waits until all that was written has become publishes, and these have their replies. Of an instance that was killed
    /// none are expected.
    #[track_caller]
    fn settle(&mut self) {
        let mut since = Instant::now();
        until(LONG, "all publishes are answered", || {
            let before: usize = self.links().map(|books| books.read).sum();
            self.all.iter_mut().for_each(Member::read);
            let is_same = self.links().map(|books| books.read).sum::<usize>() == before;
            let alive = self.all.iter().filter(|member| !member.is_killed);
            let is_answered = alive
                .flat_map(|member| &member.links)
                .all(|books| books.open.is_empty());
            if !(is_same && is_answered) {
                since = Instant::now();
            }
            since.elapsed() >= QUIET
        });
    }

    fn logs(&self) -> String {
        let logs = self.all.iter().map(|member| member.daemon.log());
        logs.collect::<Vec<_>>().join("\n\n")
    }

    fn links(&self) -> impl Iterator<Item = &Books> {
        self.all.iter().flat_map(|member| &member.links)
    }

    /// All that was acknowledged: token, and when it was published.
    fn acknowledged(&self) -> Vec<(String, Instant)> {
        let all = self.links().flat_map(|books| books.acknowledged.clone());
        all.collect()
    }

    fn published(&self) -> usize {
        self.links().flat_map(|books| books.published.values()).sum()
    }

    fn wait_until_shared(&self, count: usize) {
        until(LONG, &format!("{count} are in the engine"), || {
            self.redis.ask(&["HLEN", "fpush:{m}:held"]) == count.to_string()
        });
    }

    /// Waits until none holds anything, and so nothing is stuck.
    #[track_caller]
    fn wait_until_nothing_is_held(&self) {
        for member in &self.all {
            until(LONG, "nothing is held", || {
                member.value("fpush_pushes_queued", &[("module", "m")]) == 0
            });
        }
        self.wait_until_shared(0);
    }

    #[track_caller]
    fn kill(&mut self, instance: usize) {
        let member = &mut self.all[instance];
        member.daemon.kill();
        member.is_killed = true;
    }

    /// Starts one again that was killed, and waits until its links are up.
    #[track_caller]
    fn start_again(&mut self, instance: usize) {
        let member = &mut self.all[instance];
        member.daemon.start_again();
        member.is_killed = false;
        let links = member.links.len();
        let start = Instant::now();
        while self.all[instance].value("fpush_component_up", &[]) != links {
            // A server that has not noticed the end of the former one refuses the new one for up to a minute.
            assert!(
                start.elapsed() < LONG,
                "the links are not up again: {}",
                self.all[instance].daemon.log()
            );
            thread::sleep(SECOND / 5);
        }
        println!(
            "the links of instance {instance} are up {:.1} s after its start",
            start.elapsed().as_secs_f64()
        );
    }
}

impl Member {
    fn monitoring(&self) -> Monitoring {
        Monitoring::of(&self.daemon, LONG)
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> usize {
        let scrape = self.monitoring().scrape();
        scrape.value(name, labels).unwrap_or_default() as usize
    }

    /// Until it uses the engine it decides alone.
    #[track_caller]
    fn wait_for_engine(&self) {
        wait_until_engine_is(true, self.monitoring());
    }

    /// Waits until it knows that it cannot ask the engine.
    #[track_caller]
    fn wait_without_engine(&self) {
        wait_until_engine_is(false, self.monitoring());
    }

    fn read(&mut self) {
        self.links.iter_mut().for_each(Books::read);
    }
}

impl Books {
    fn of(server: &dyn Server) -> Self {
        Self {
            tap: Tap::start(server.component_port()).unwrap(),
            read: 0,
            connection: 0,
            open: BTreeMap::new(),
            published: BTreeMap::new(),
            acknowledged: Vec::new(),
            dead: 0,
            wait: 0,
        }
    }

    fn read(&mut self) {
        let seen = self.tap.seen_after(self.read);
        self.read += seen.len();
        for stanza in seen {
            self.note(&stanza);
        }
    }

    fn note(&mut self, stanza: &Seen) {
        if stanza.connection > self.connection {
            self.connection = stanza.connection;
            self.open.clear();
        }
        let Some(id) = stanza.attribute("id").map(str::to_owned) else {
            return;
        };
        if stanza.from_server {
            let publish = stanza.xml.find("<publish ").map(|at| &stanza.xml[at..]);
            if let Some(token) = publish.and_then(|publish| attribute(publish, "node")) {
                *self.published.entry(token.to_owned()).or_default() += 1;
                if stanza.connection == self.connection {
                    self.open.insert(id, (token.to_owned(), stanza.at));
                }
            }
        } else if let Some(publish) = self.open.remove(&id) {
            match stanza.attribute("type") {
                Some("result") => self.acknowledged.push(publish),
                _ if stanza.xml.contains("item-not-found") => self.dead += 1,
                _ => {
                    assert!(stanza.xml.contains("type='wait'"), "{stanza:?}");
                    self.wait += 1;
                }
            }
        }
    }
}

impl Apple {
    fn start(ca: &TestCa) -> Self {
        let apple = Self {
            server: FakeApns::start(ca),
            is_away: Arc::default(),
            dead: Arc::default(),
            accepted: Arc::default(),
        };
        let (is_away, dead) = (Arc::clone(&apple.is_away), Arc::clone(&apple.dead));
        let accepted = Arc::clone(&apple.accepted);
        apple.server.answer_with(move |request| {
            if is_away.load(Ordering::Relaxed) {
                return Answer::reason(503, "ServiceUnavailable");
            }
            if dead.lock().unwrap().contains(&request.token) {
                return Answer::reason(410, "Unregistered");
            }
            accepted.lock().unwrap().push(Push {
                token: request.token.clone(),
                apns_id: request.header("apns-id").unwrap().to_owned(),
                at: request.at,
            });
            Answer::status(200)
        });
        apple
    }

    fn goes_away(&self) {
        self.is_away.store(true, Ordering::Relaxed);
    }

    fn comes_back(&self) {
        self.is_away.store(false, Ordering::Relaxed);
    }

    fn accepted(&self) -> Vec<Push> {
        self.accepted.lock().unwrap().clone()
    }

    /// How often it accepted a push for each token since then.
    fn accepted_since(&self, since: Instant) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for push in self.accepted().iter().filter(|push| push.at >= since) {
            *counts.entry(push.token.clone()).or_default() += 1;
        }
        counts
    }

    fn asked(&self, token: &str) -> usize {
        let requests = self.server.requests();
        requests.iter().filter(|request| request.token == token).count()
    }
}

impl Phones {
    fn of(server: &dyn Server) -> Self {
        server.register("writer", PASSWORD).unwrap();
        Self {
            writer: server.login("writer", PASSWORD).unwrap(),
            tokens: Vec::new(),
            written: 0,
        }
    }

    /// A user with a phone that has this token. Returns their number.
    fn add(&mut self, server: &dyn Server, token: &str) -> usize {
        let user = format!("user{}", self.tokens.len());
        server.register(&user, PASSWORD).unwrap();
        let mut phone = server.login(&user, PASSWORD).unwrap();
        phone.send_presence().unwrap();
        phone.enable_push(COMPONENT, token, Some("m")).unwrap();
        phone.logout().unwrap();
        self.tokens.push(token.to_owned());
        self.tokens.len() - 1
    }

    fn write(&mut self, user: usize) {
        self.written += 1;
        let text = format!("message {}", self.written);
        let to = format!("user{user}@localhost");
        self.writer.send_message(&to, &text).unwrap();
    }
}

/// Each in a share of its own of all tokens.
fn numbered(kind: usize, number: usize) -> String {
    token(1_000 * kind + number)
}

#[test]
fn limits_blocks_provider_token_and_held_pushes_are_those_of_one_instance() {
    let mut all = Service::start("1h");

    // A phone whose owner has an account at each server: one push is sent and one is queued, whatever link the server takes.
    let shared = numbered(1, 0);
    let at_ejabberd = all.at_ejabberd.add(&all.ejabberd, &shared);
    let at_prosody = all.at_prosody.add(&all.prosody, &shared);
    for _ in 0..6 {
        all.at_ejabberd.write(at_ejabberd);
        all.at_prosody.write(at_prosody);
    }
    all.wait_for_publishes(12);
    all.settle();
    assert_eq!(all.published(), 12);
    let acknowledged = all.acknowledged().len();
    assert_eq!(acknowledged, 2, "one is sent and one is queued: {}", all.logs());
    assert_eq!(all.apple.asked(&shared), 1);

    // Phones enough for each instance to have had ten of them: a word of Apple's is believed there from then on.
    let mut number = 0;
    let trust = |all: &Service| {
        let each = all.all.iter().map(|member| {
            let acknowledged = &member.links[0].acknowledged;
            let tokens: BTreeSet<_> = acknowledged.iter().map(|(token, _)| token).collect();
            tokens.len()
        });
        each.min().unwrap()
    };
    while trust(&all) < 12 {
        for _ in 0..20 {
            number += 1;
            let user = all.at_ejabberd.add(&all.ejabberd, &numbered(2, number));
            all.at_ejabberd.write(user);
        }
        all.settle();
    }
    let tokens: BTreeSet<_> = all
        .apple
        .server
        .requests()
        .iter()
        .map(|request| request.header("authorization").unwrap().to_owned())
        .collect();
    assert_eq!(
        tokens.len(),
        1,
        "three instances have one provider token: {tokens:?}"
    );

    // A phone that is gone. One instance hears it from Apple, and ejabberd from each that it asks, and so does Prosody.
    let gone = numbered(3, 0);
    let phones: Vec<_> = (0..8)
        .map(|_| all.at_ejabberd.add(&all.ejabberd, &gone))
        .collect();
    let at_prosody = all.at_prosody.add(&all.prosody, &gone);
    all.apple.dead.lock().unwrap().insert(gone.clone());
    all.at_ejabberd.write(phones[0]);
    all.settle();
    until(LONG, "the block is told", || {
        all.redis.keys().iter().any(|key| key.contains(":blocks:"))
    });
    let published = all.published();
    phones[1..].iter().for_each(|phone| all.at_ejabberd.write(*phone));
    all.at_prosody.write(at_prosody);
    all.wait_for_publishes(published + phones.len());
    all.settle();
    assert_eq!(all.links().map(|books| books.dead).sum::<usize>(), 9);
    assert_eq!(all.apple.asked(&gone), 1, "Apple is asked once");

    // Apple is away: each holds what it was given, and what the one held that is killed the others send.
    let held: Vec<_> = (0..16).map(|number| numbered(4, number)).collect();
    let before = all.acknowledged().len();
    all.apple.goes_away();
    let published = all.published();
    for (number, token) in held.iter().enumerate() {
        if number % 4 == 0 {
            let user = all.at_prosody.add(&all.prosody, token);
            all.at_prosody.write(user);
        } else {
            let user = all.at_ejabberd.add(&all.ejabberd, token);
            all.at_ejabberd.write(user);
        }
    }
    all.wait_for_publishes(published + held.len());
    all.settle();
    assert_eq!(
        all.acknowledged().len(),
        before + held.len(),
        "all are acknowledged"
    );
    // With the one that waits for its time.
    all.wait_until_shared(1 + held.len());
    all.kill(0);
    until(LONG, "the others take over", || {
        let labels = [("module", "m"), ("from", "dead")];
        let taken = |instance: usize| all.all[instance].value("fpush_held_takeovers_total", &labels);
        taken(1) + taken(2) >= 4
    });
    let back = Instant::now();
    all.apple.comes_back();
    until(LONG, "all are woken", || {
        let woken = all.apple.accepted_since(back);
        held.iter().all(|token| woken.contains_key(token))
    });
    all.start_again(0);
    all.wait_until_shared(1);
    let woken = all.apple.accepted_since(back);
    assert!(held.iter().all(|token| woken[token] == 1), "{woken:?}");
}

/// What is killed or stands still in the middle of a load.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Instance(usize),
    Engine,
    /// The way of this instance to the engine.
    Way(usize),
    /// The ways of all of them.
    Ways,
}

impl Fault {
    const ALL: [Self; 6] = [
        Self::Instance(0),
        Self::Instance(1),
        Self::Instance(2),
        Self::Engine,
        Self::Way(1),
        Self::Ways,
    ];

    fn begin(self, all: &mut Service) {
        match self {
            Self::Instance(instance) => all.kill(instance),
            Self::Engine => all.redis.kill(),
            Self::Way(instance) => all.all[instance].engine.hold(Flow::Answers),
            Self::Ways => all
                .all
                .iter()
                .for_each(|member| member.engine.hold(Flow::Answers)),
        }
    }

    /// Everything is as before, and known to be.
    fn end(self, all: &mut Service) {
        let mend = |member: &Member| {
            member.wait_without_engine();
            member.engine.cut();
            member.engine.release();
        };
        match self {
            Self::Instance(instance) => all.start_again(instance),
            Self::Engine => {
                all.all.iter().for_each(Member::wait_without_engine);
                all.redis.start();
            }
            Self::Way(instance) => mend(&all.all[instance]),
            Self::Ways => all.all.iter().for_each(mend),
        }
        all.all.iter().for_each(Member::wait_for_engine);
    }
}

/// What came of faults.
#[derive(Debug, Default)]
struct Tally {
    published: usize,
    /// Publishes that Apple got more than once, and devices that were woken more than once by what was held.
    twice: usize,
}

impl Service {
    /// Writes to all phones in turn, again and again, with this in the middle.
    fn load(&mut self, rounds: usize, fault: impl FnOnce(&mut Self)) {
        self.write(rounds / 2);
        fault(self);
        self.write(rounds / 2);
        self.settle();
    }

    fn write(&mut self, rounds: usize) {
        for _ in 0..rounds {
            for phones in [&mut self.at_ejabberd, &mut self.at_prosody] {
                (0..phones.tokens.len()).for_each(|user| phones.write(user));
            }
            thread::sleep(SECOND / 20);
        }
    }

    /// Waits until each device was woken after the last publish for it that was acknowledged.
    #[track_caller]
    fn expect_nothing_lost(&self) {
        let mut last = BTreeMap::new();
        for (token, at) in self.acknowledged() {
            let latest = last.entry(token).or_insert(at);
            *latest = at.max(*latest);
        }
        let mut missing = BTreeSet::new();
        let end = Instant::now() + LONG;
        loop {
            let accepted = self.apple.accepted();
            missing.extend(last.keys().cloned());
            for push in &accepted {
                if last.get(&push.token).is_some_and(|at| push.at >= *at) {
                    missing.remove(&push.token);
                }
            }
            if missing.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "not woken: {missing:?}\n{}", self.logs());
            thread::sleep(SECOND / 5);
        }
    }

    /// How many pushes Apple accepted that it had accepted before.
    fn duplicates(&self, since: Instant) -> usize {
        let accepted = self.apple.accepted();
        let since = accepted.iter().filter(|push| push.at >= since);
        let ids: Vec<_> = since.map(|push| &push.apns_id).collect();
        ids.len() - ids.iter().collect::<BTreeSet<_>>().len()
    }

    /// A load while Apple is there.
    fn while_apple_answers(&mut self, fault: Fault, tally: &mut Tally) {
        let (start, published) = (Instant::now(), self.published());
        self.load(ROUNDS, |all| fault.begin(all));
        self.expect_nothing_lost();
        fault.end(self);
        self.wait_until_nothing_is_held();
        let published = self.published() - published;
        let sent: usize = self.apple.accepted_since(start).values().sum();
        let twice = self.duplicates(start).max(sent.saturating_sub(published));
        println!("{fault:?} while Apple answers: {published} publishes, {sent} pushes, {twice} twice");
        tally.published += published;
        tally.twice += twice;
    }

    /// A load while Apple is away, so that all of it is held.
    fn while_apple_is_away(&mut self, fault: Fault, tally: &mut Tally) {
        let published = self.published();
        self.apple.goes_away();
        // From then on all know it, and what is published is held at once.
        self.write(1);
        self.settle();
        self.load(ROUNDS, |all| fault.begin(all));
        // Who is killed stays away: others send what it held. The engine has to be there for that.
        let is_instance = matches!(fault, Fault::Instance(_));
        if !is_instance {
            fault.end(self);
        }
        let back = Instant::now();
        self.apple.comes_back();
        self.expect_nothing_lost();
        if is_instance {
            fault.end(self);
        }
        self.wait_until_nothing_is_held();
        let published = self.published() - published;
        let woken = self.apple.accepted_since(back);
        let twice = woken.values().map(|count| count - 1).sum::<usize>();
        println!(
            "{fault:?} while Apple is away: {published} publishes, {} devices woken, {twice} twice",
            woken.len()
        );
        tally.published += published;
        tally.twice += twice;
    }
}

/// Of the load, on each side of a fault.
const ROUNDS: usize = 40;
const AT_EJABBERD: usize = 30;
const AT_PROSODY: usize = 8;

#[test]
#[ignore = "takes minutes: `cargo xtask test --long` runs it"]
fn whatever_is_killed_under_load_nothing_is_lost_or_stuck_and_less_than_one_in_a_thousand_goes_out_twice() {
    let mut all = Service::start("0s");
    for number in 0..AT_EJABBERD {
        all.at_ejabberd.add(&all.ejabberd, &numbered(1, number));
    }
    for number in 0..AT_PROSODY {
        all.at_prosody.add(&all.prosody, &numbered(2, number));
    }
    let mut tally = Tally::default();
    for fault in Fault::ALL {
        all.while_apple_answers(fault, &mut tally);
        all.while_apple_is_away(fault, &mut tally);
    }
    // No server has forgotten a device.
    let last = Instant::now();
    all.write(1);
    all.settle();
    all.expect_nothing_lost();
    assert_eq!(all.apple.accepted_since(last).len(), AT_EJABBERD + AT_PROSODY);
    assert_eq!(all.links().map(|books| books.dead).sum::<usize>(), 0);
    let Tally { published, twice } = tally;
    println!("{published} publishes, {twice} went out twice");
    assert!(twice * 1_000 < published, "{twice} of {published} went out twice");
}
