//! The steps of a world.

use std::{
    collections::BTreeSet,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use fpush_push::Urgency;
use tokio::{
    runtime,
    task::{LocalSet, yield_now},
    time::sleep,
};

use crate::{
    books::{Counts, HOUR, Millis, SECOND, Shared},
    daemon::{Daemon, Disk, ModuleValue},
    device::{Device, Kind, Way},
    ledger::{LONGEST_WRITE, What},
    log::{self, Log, shows_secret},
    provider::{ACCEPTED, App, Weather},
    random::Random,
    registry::{Health, Registration, State},
    server::{Net, Order},
    stanzas,
};

/// What is run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) steps: usize,
    /// Steps that do nothing.
    pub(crate) left_out: BTreeSet<usize>,
    pub(crate) told: bool,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        Self {
            seed,
            steps: 100,
            left_out: BTreeSet::new(),
            told: false,
        }
    }
}

/// Something was not as it must be.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) step: usize,
    pub(crate) what: String,
}

/// What happened in a run, or in several.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) hash: u64,
    pub(crate) worlds: u64,
    pub(crate) publishes: u64,
    pub(crate) notifications: u64,
    pub(crate) stanzas: u64,
    pub(crate) replies: u64,
    pub(crate) attempts: u64,
    pub(crate) accepted: u64,
    pub(crate) crashes: u64,
    pub(crate) restarts: u64,
    pub(crate) reloads: u64,
    pub(crate) hours: u64,
}

impl Report {
    pub(crate) fn add(&mut self, other: &Self) {
        self.hash ^= other.hash;
        self.worlds += 1;
        self.publishes += other.publishes;
        self.notifications += other.notifications;
        self.stanzas += other.stanzas;
        self.replies += other.replies;
        self.attempts += other.attempts;
        self.accepted += other.accepted;
        self.crashes += other.crashes;
        self.restarts += other.restarts;
        self.reloads += other.reloads;
        self.hours += other.hours;
    }
}

/// Runs a world on a thread of its own, on which chance has the world's seed.
pub(crate) fn run(plan: &Plan) -> Result<Report, Failure> {
    let (plan, seed) = (plan.clone(), plan.seed);
    let world = thread::Builder::new().name(format!("world {}", plan.seed));
    let (sender, result) = mpsc::channel();
    let running = world.spawn(move || {
        fpush_simulation::begin(plan.seed, 0);
        log::keep_panics();
        let world = World::new(plan);
        let result = tracing::subscriber::with_default(world.log.clone(), || world.live());
        drop(sender.send(result));
    });
    match running.map(|_| result.recv_timeout(STANDSTILL)) {
        Ok(Ok(result)) => result,
        Ok(Err(RecvTimeoutError::Timeout)) => {
            panic!("seed {seed}: there is always something to do at the same moment, so that no time passes")
        }
        Ok(Err(RecvTimeoutError::Disconnected)) | Err(_) => Err(Failure {
            step: 0,
            what: "the simulation itself has panicked".to_owned(),
        }),
    }
}

/// Of real time. A world takes less than a second; one that takes so long never ends.
/// A step of the wall clock that is noticed is longer, in milliseconds.
const NOTICED: u64 = 60_000;
const STANDSTILL: Duration = Duration::from_secs(300);

/// What a world is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Climate {
    /// Everything may happen.
    Mixed,
    /// Few devices, one permit, and a provider that is silent again and again.
    Narrow,
    /// All is well but for strangers, who send all the time.
    Siege,
}

impl Climate {
    fn of(seed: u64) -> Self {
        match seed % 4 {
            2 => Self::Narrow,
            3 => Self::Siege,
            _ => Self::Mixed,
        }
    }
}

/// Why a run of the daemon ended.
enum End {
    Crash,
    Stopped,
    Over,
}

struct World {
    plan: Plan,
    step: usize,
    books: Shared,
    net: Net,
    disk: Disk,
    settings: Vec<ModuleValue>,
    right: Vec<ModuleValue>,
    log: Log,
    report: Report,
    climate: Climate,
    /// The longest that time passes in a step.
    longest: Millis,
}

impl World {
    fn new(plan: Plan) -> Self {
        let mut random = Random::new(plan.seed);
        let books = Shared::new(Random::new(random.next()), plan.told);
        let climate = Climate::of(plan.seed);
        let mut right = right_settings(&mut random);
        for module in &mut right {
            match climate {
                Climate::Mixed => {}
                Climate::Narrow => module.max_in_flight = 1,
                Climate::Siege => module.max_in_flight = 5,
            }
        }
        {
            let mut books = books.lock();
            let tokens = match climate {
                Climate::Mixed if random.one_in(2) => 40,
                Climate::Mixed => 6,
                Climate::Narrow => 2,
                Climate::Siege => 20,
            };
            let kinds = [Kind::Hex, Kind::Text, Kind::Hex];
            books.apps = kinds.map(|kind| App::new(kind, tokens, &mut random)).into();
            books.apps[2].has_lanes = random.one_in(2);
            if climate == Climate::Siege {
                for app in &mut books.apps {
                    app.slowness = 1_500;
                }
            }
            let mut number = 0;
            for (app, module) in right.iter().enumerate() {
                for token in 0..tokens {
                    // Accounts on one phone have one token.
                    for _ in 0..=usize::from(random.one_in(3)) {
                        let device = Device::new(
                            number,
                            app,
                            token,
                            module.is_default,
                            climate == Climate::Siege,
                            &mut random,
                        );
                        let is_new = device.account().is_some() || books.with_token(app, token).is_empty();
                        if is_new {
                            number += 1;
                            books.devices.push(device);
                        }
                    }
                }
            }
            for device in 0..books.devices.len() {
                let (token, app) = (books.devices[device].token, books.devices[device].app);
                if let Way::Registered {
                    node,
                    secret,
                    account,
                } = books.devices[device].way.clone()
                {
                    let registration = Registration {
                        module: right[app].name,
                        token: books.apps[app].tokens[token].text.clone(),
                        secret,
                        account: Some(account),
                        changed: books.registrations.true_wall(0),
                        state: State::There,
                    };
                    books.registrations.add(&node, registration);
                }
                // Some have been gone for long.
                if random.one_in(20) {
                    books.apps[app].tokens[token].gone = Some(0);
                }
            }
            books.ledger.spacing = right[0].spacing * SECOND;
            books.permits = right[0].max_in_flight;
            // Nobody's push may wait for that.
            books.asks_every = random.one_of(&[SECOND, HOUR]);
            books.registrations.set_health(Health::Fine, 0);
            if climate == Climate::Siege && random.one_in(2) {
                books.registrations.set_health(Health::Slow, 0);
            }
        }
        let latency = random.one_of(&[0, 0, 20, LONGEST_WRITE]);
        let longest = match climate {
            Climate::Mixed => random.one_of(&[SECOND, 40 * SECOND, 600 * SECOND, 600 * SECOND, 6 * HOUR]),
            Climate::Narrow => 20 * SECOND,
            Climate::Siege => 3 * SECOND,
        };
        Self {
            step: 0,
            net: Net::new(books.clone()),
            log: Log::new(books.clone()),
            books,
            disk: Disk::new(latency),
            settings: right.clone(),
            right,
            report: Report::default(),
            longest,
            climate,
            plan,
        }
    }

    fn live(mut self) -> Result<Report, Failure> {
        loop {
            let runtime = runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                // A crash may come between any two polls.
                .event_interval(1)
                .build()
                .expect("a runtime needs nothing");
            let tasks = LocalSet::new();
            let end = tasks.block_on(&runtime, self.one_run());
            self.disk.daemon_has_ended();
            drop((tasks, runtime));
            self.net.reset();
            self.verdict()?;
            match end {
                End::Crash => self.report.crashes += 1,
                End::Stopped => self.report.restarts += 1,
                End::Over => {
                    let books = self.books.lock();
                    let Counts {
                        stanzas,
                        replies,
                        attempts,
                        accepted,
                    } = books.counts;
                    return Ok(Report {
                        hash: books.trace.hash(),
                        stanzas,
                        replies,
                        attempts,
                        accepted,
                        hours: books.now() / HOUR,
                        ..self.report
                    });
                }
            }
        }
    }

    fn verdict(&self) -> Result<(), Failure> {
        let mut failure = self.books.lock().failure.clone();
        if let Some(panicked) = log::panicked() {
            failure.get_or_insert(panicked);
        }
        match failure {
            Some(what) => Err(Failure {
                step: self.step,
                what,
            }),
            None => Ok(()),
        }
    }

    async fn one_run(&mut self) -> End {
        {
            let mut books = self.books.lock();
            books.begin();
            let wall = books.registrations.wall(books.now());
            fpush_simulation::set_wall(wall);
            books.tell("start");
        }
        let mut daemon = Daemon::start(&self.books, &self.net, &self.settings, &self.disk);
        let end = self.steps(&mut daemon).await;
        self.read_log(&daemon);
        let mut books = self.books.lock();
        books.tell("end");
        books.stop();
        fpush_simulation::stop_wall();
        end
    }

    async fn steps(&mut self, daemon: &mut Daemon) -> End {
        while self.step < self.plan.steps {
            let step = self.step;
            self.step += 1;
            if self.plan.left_out.contains(&step) {
                continue;
            }
            let mut random = Random::new(self.plan.seed ^ (step as u64 + 1) << 32);
            let ended = self.one_step(daemon, &mut random).await;
            self.check(daemon);
            if self.verdict().is_err() {
                return End::Over;
            }
            if let Some(end) = ended {
                return end;
            }
        }
        self.end_well(daemon).await;
        End::Over
    }

    async fn one_step(&mut self, daemon: &mut Daemon, random: &mut Random) -> Option<End> {
        let chance = random.below(1_000);
        match self.climate {
            Climate::Mixed => return self.mixed_step(daemon, random, chance).await,
            Climate::Narrow => match chance {
                0..450 => self.publish(random),
                450..500 => self.notify(random),
                500..870 => {
                    let millis = 1 + random.below(self.longest);
                    self.pass(daemon, millis).await;
                }
                870..990 => {
                    let app = random.index(3);
                    self.turn(app, &[Weather::Silent, Weather::Silent, Weather::Away], random);
                }
                _ => return Some(self.crash(daemon, random).await),
            },
            Climate::Siege => match chance {
                0..250 => self.publish(random),
                250..300 => self.notify(random),
                300..700 => {
                    let millis = 1 + random.below(self.longest);
                    self.pass(daemon, millis).await;
                }
                700..705 => return Some(self.crash(daemon, random).await),
                705..720 => {
                    let mut books = self.books.lock();
                    let now = books.now();
                    books.registrations.set_health(Health::Slow, now);
                }
                720..740 => self.register(random),
                _ => self.flood(random),
            },
        }
        None
    }

    async fn mixed_step(&mut self, daemon: &mut Daemon, random: &mut Random, chance: u64) -> Option<End> {
        match chance {
            0..400 => self.publish(random),
            400..450 => self.notify(random),
            450..800 => {
                let longest = random.one_of(&[20, SECOND, 30 * SECOND, self.longest]);
                let millis = 1 + random.below(longest);
                self.pass(daemon, millis).await;
            }
            800..830 => self.weather(random),
            830..850 => self.reload(daemon, random).await,
            850..870 => self.link(random),
            870..880 => self.database(random),
            880..890 => {
                let furthest = random.one_of(&[HOUR, HOUR, 48 * HOUR]);
                let jump = random.below(2 * furthest).cast_signed() - furthest.cast_signed();
                self.jump(daemon, jump);
            }
            890..900 => self.lose_device(random),
            900..920 => self.flood(random),
            920..940 => self.other_requests(random),
            940..950 => return Some(self.crash(daemon, random).await),
            950..953 => {
                {
                    let mut books = self.books.lock();
                    books.tell("stop");
                    // What is held goes out at once.
                    books.ledger.is_stopping = true;
                }
                daemon.stop(&mut self.disk).await;
                self.started_again();
                return Some(End::Stopped);
            }
            _ => {
                for _ in 0..random.between(2, 20) {
                    self.publish(random);
                }
            }
        }
        None
    }

    fn publish(&mut self, random: &mut Random) {
        let mut books = self.books.lock();
        // Some are busier than others.
        let busy = if random.one_in(2) { 6 } else { usize::MAX };
        let device = random.index(books.devices.len().min(busy));
        let urgency = random.one_of(&[
            Urgency::High,
            Urgency::High,
            Urgency::High,
            Urgency::High,
            Urgency::Low,
            Urgency::Voip,
        ]);
        let Some(link) = self.net.link() else {
            return;
        };
        let number = books.publish(device, urgency, link);
        books.counts.stanzas += 1;
        books.tell(&format!("r{number}: publish for device {device}, {urgency:?}"));
        let Device {
            app,
            token,
            way,
            from,
            ..
        } = &books.devices[device];
        let text = &books.apps[*app].tokens[*token].text;
        let id = format!("r{number}");
        let stanza = match way {
            Way::Named => stanzas::publish(&id, from, text, Some(self.right[*app].name), None, urgency),
            Way::Unnamed => stanzas::publish(&id, from, text, None, None, urgency),
            Way::Registered { node, secret, .. } => {
                stanzas::publish(&id, from, node, None, Some(secret), urgency)
            }
        };
        self.net.order(Order::Send(stanza));
        self.report.publishes += 1;
    }

    /// A server sends a notification of Push 2.0 to the phone of one of the devices. Some send one after the other.
    fn notify(&mut self, random: &mut Random) {
        for _ in 0..random.one_of(&[1, 1, 2, 5]) {
            let mut books = self.books.lock();
            let busy = if random.one_in(2) { 3 } else { usize::MAX };
            let device = random.index(books.devices.len().min(busy));
            let Some(link) = self.net.link() else {
                return;
            };
            let number = books.notify(device, link);
            books.counts.stanzas += 1;
            books.tell(&format!("r{number}: notification for device {device}"));
            let Device { app, token, from, .. } = &books.devices[device];
            let text = &books.apps[*app].tokens[*token].text;
            let priority = random.one_of(&["high", "normal", "low"]);
            let stanza = stanzas::notification(&format!("r{number}"), from, *app, text, priority);
            drop(books);
            self.net.order(Order::Send(stanza));
            self.report.notifications += 1;
        }
    }

    /// Lets time pass.
    async fn pass(&mut self, daemon: &mut Daemon, millis: Millis) {
        let tick = (millis / 60).max(SECOND);
        let mut left = millis;
        while left > 0 {
            let now = left.min(tick);
            sleep(Duration::from_millis(now)).await;
            left -= now;
            daemon.tick(&mut self.disk);
            self.check(daemon);
            daemon.check();
            if self.verdict().is_err() {
                return;
            }
        }
    }

    fn weather(&mut self, random: &mut Random) {
        let all = [
            Weather::Gone,
            Weather::Wrong,
            Weather::WrongForSome,
            Weather::Away,
            Weather::Silent,
            Weather::Resets,
            Weather::Odd,
            Weather::Refuses,
        ];
        let app = random.index(3);
        self.turn(app, &all, random);
    }

    /// The weather of an app turns.
    fn turn(&mut self, app: usize, bad: &[Weather], random: &mut Random) {
        let mut books = self.books.lock();
        let now = books.now();
        let weather = if books.apps[app].weather == Weather::Fine {
            random.one_of(bad)
        } else {
            Weather::Fine
        };
        books.tell(&format!("app {app}: {weather:?}"));
        books.apps[app].set_weather(weather, now);
        books.ledger.was_held_up(now);
    }

    /// An operator reloads, with a slip or to put it right.
    async fn reload(&mut self, daemon: &mut Daemon, random: &mut Random) {
        if random.one_in(2) {
            // Some pushes are at their providers meanwhile.
            for _ in 0..random.between(1, 6) {
                self.publish(random);
            }
            let millis = 1 + random.below(200);
            self.pass(daemon, millis).await;
        }
        let mut settings = self.right.clone();
        let is_put_right = self.settings != self.right && random.one_in(2);
        match if is_put_right { 7 } else { random.below(8) } {
            0 => exchange(&mut settings, 0, 2),
            1 => exchange(&mut settings, 0, 1),
            2 => drop(settings.remove(random.index(3))),
            3 => {
                settings[0].is_default = false;
                settings[1].is_default = true;
            }
            4 => settings[random.index(3)].credential += 1 + u128::from(random.below(3)),
            5 => settings[random.index(3)].max_in_flight = 1 + random.index(30),
            _ => {}
        }
        self.go_on_with(daemon, settings);
        if random.one_in(3) {
            // They see it at once, but not before some pushes went the wrong way.
            for _ in 0..random.between(1, 10) {
                self.publish(random);
            }
            let millis = 1 + random.below(100);
            self.pass(daemon, millis).await;
            self.go_on_with(daemon, self.right.clone());
        }
    }

    fn go_on_with(&mut self, daemon: &mut Daemon, settings: Vec<ModuleValue>) {
        {
            let mut books = self.books.lock();
            let names: Vec<_> = settings.iter().map(|module| (module.name, module.app)).collect();
            books.tell(&format!("reload: {names:?}"));
            let now = books.now();
            books.ledger.was_held_up(now);
            books.right_since = (settings == self.right).then_some(now);
        }
        daemon.reload(&settings);
        self.settings = settings;
        self.report.reloads += 1;
    }

    fn link(&mut self, random: &mut Random) {
        match random.below(4) {
            0 => self.net.order(Order::Close),
            1 => self.net.order(Order::Drop),
            2 => {
                self.net.set_away(true);
                self.net.order(Order::Drop);
            }
            _ => self.net.set_away(false),
        }
    }

    fn database(&mut self, random: &mut Random) {
        let health = random.one_of(&[
            Health::Fine,
            Health::Fine,
            Health::Slow,
            Health::Away,
            Health::Another,
        ]);
        let mut books = self.books.lock();
        let now = books.now();
        books.registrations.set_health(health, now);
        books.tell(&format!("database: {health:?}"));
    }

    /// Somebody sets the wall clock.
    fn jump(&mut self, daemon: &mut Daemon, jump: i64) {
        let mut books = self.books.lock();
        books.registrations.jumped += jump;
        if jump.unsigned_abs() <= NOTICED {
            books.ledger.unnoticed += jump.unsigned_abs();
        }
        let wall = books.registrations.wall(books.now());
        fpush_simulation::set_wall(wall);
        books.tell(&format!("the clock jumps by {jump} ms"));
        // Times on disk are those of the other clock.
        self.disk.blocks_at = 0;
        drop(books);
        daemon.tick(&mut self.disk);
    }

    /// A phone is lost, or its app removed; or an owner unregisters.
    fn lose_device(&mut self, random: &mut Random) {
        let mut books = self.books.lock();
        let (device, now) = (random.index(books.devices.len()), books.now());
        let Device { app, token, .. } = books.devices[device];
        let node = books.devices[device].node().map(str::to_owned);
        match node {
            Some(node) if random.one_in(2) => {
                if let Some(registration) = books.registrations.of(&node) {
                    registration.state = State::Left;
                }
                books.tell(&format!("device {device} unregisters"));
            }
            Some(_) | None => {
                books.apps[app].tokens[token].gone.get_or_insert(now);
                books.tell(&format!("the token of device {device} dies"));
            }
        }
    }

    /// A stranger sends as much as they like, from as many names as they like.
    fn flood(&mut self, random: &mut Random) {
        let kind = if self.climate == Climate::Siege && random.one_in(3) {
            3
        } else {
            random.below(5)
        };
        let most = match (self.climate, kind) {
            (Climate::Siege, 0 | 4) => 120,
            (Climate::Siege, _) => 700,
            (Climate::Mixed | Climate::Narrow, _) => random.one_of(&[50, 50, 200]),
        };
        let twice = kind == 3;
        // What is queued has a bound for each module.
        let only = twice.then(|| random.index(3));
        for number in 0..random.between(20, most) {
            let mut books = self.books.lock();
            let Some(link) = self.net.link() else {
                return;
            };
            let now = books.now();
            let request = if kind == 4 {
                books.ledger.may_answer(What::Strange, link, now)
            } else {
                books.ledger.expect(What::Strange, link, now)
            };
            books.counts.stanzas += 1;
            let id = format!("r{request}");
            let from = format!("d{number}.evil.org");
            let (app, invented) = (only.unwrap_or_else(|| random.index(3)), random.next());
            let mut token = books.apps[app].kind.token(random);
            if twice {
                // Strangers have phones, too.
                token += ACCEPTED;
            }
            let stanza = match kind {
                0 | 3 => stanzas::publish(
                    &id,
                    &from,
                    &token,
                    Some(self.right[app].name),
                    None,
                    Urgency::High,
                ),
                1 => {
                    let secret = format!("{}{invented:x}", stanzas::MARK);
                    stanzas::publish(
                        &id,
                        &from,
                        &format!("node{invented:x}"),
                        None,
                        Some(&secret),
                        Urgency::High,
                    )
                }
                4 => {
                    // To phones of theirs, to nobody's, and to those of others.
                    match random.below(3) {
                        0 => token += ACCEPTED,
                        1 => {
                            let victim = random.index(books.apps[app].tokens.len());
                            token.clone_from(&books.apps[app].tokens[victim].text);
                        }
                        _ => {}
                    }
                    stanzas::notification(&id, &from, app, &token, "high")
                }
                _ => {
                    let node = format!("{}{invented:x}", stanzas::MARK);
                    let from = format!("{}{number}@{from}/r", stanzas::MARK);
                    let fields = [("node", &*node), ("token", &token), ("secret", &node)];
                    stanzas::command(&id, &from, crate::registry::REGISTER, &fields)
                }
            };
            drop(books);
            self.net.order(Order::Send(stanza));
            if twice {
                // The second one is queued.
                let mut books = self.books.lock();
                let request = books.ledger.expect(What::Strange, link, now);
                books.counts.stanzas += 1;
                drop(books);
                let (id, module) = (format!("r{request}"), self.right[app].name);
                let stanza = stanzas::publish(&id, &from, &token, Some(module), None, Urgency::High);
                self.net.order(Order::Send(stanza));
            }
        }
    }

    /// A device registers.
    fn register(&mut self, random: &mut Random) {
        let mut books = self.books.lock();
        let Some(link) = self.net.link() else {
            return;
        };
        let now = books.now();
        let request = books.ledger.expect(What::Registration, link, now);
        books.counts.stanzas += 1;
        let (number, token) = (random.next(), books.apps[0].kind.token(random));
        books.tell(&format!("r{request}: a device registers"));
        drop(books);
        let node = format!("{}{number:x}", stanzas::MARK);
        let from = format!("{}{number:x}@new-{}.example/r", stanzas::MARK, random.below(8));
        let fields = [("node", &*node), ("token", &token), ("secret", &node)];
        let stanza = stanzas::command(&format!("r{request}"), &from, crate::registry::REGISTER, &fields);
        self.net.order(Order::Send(stanza));
    }

    /// Pings; and a stranger who registers a victim's token as a node.
    fn other_requests(&mut self, random: &mut Random) {
        let mut books = self.books.lock();
        let Some(link) = self.net.link() else {
            return;
        };
        let now = books.now();
        let number = books.ledger.expect(What::Other, link, now);
        books.counts.stanzas += 1;
        let id = format!("r{number}");
        let victims = books
            .devices
            .iter()
            .filter(|device| matches!(device.way, Way::Unnamed));
        let victims: Vec<_> = victims.map(|device| (device.app, device.token)).collect();
        let stanza = if victims.is_empty() || random.one_in(2) {
            stanzas::ping(&id, "one.example.org")
        } else {
            let (app, token) = random.one_of(&victims);
            let token = books.apps[app].tokens[token].text.clone();
            let from = format!("{}@evil.org/r", stanzas::MARK);
            let secret = format!("{}stranger", stanzas::MARK);
            let fields = [("node", &*token), ("token", &token), ("secret", &secret)];
            stanzas::command(&id, &from, crate::registry::REGISTER, &fields)
        };
        drop(books);
        self.net.order(Order::Send(stanza));
    }

    /// The process is killed, between any two polls of its tasks.
    async fn crash(&mut self, daemon: &mut Daemon, random: &mut Random) -> End {
        let millis = random.below(2 * SECOND);
        self.pass(daemon, millis).await;
        for _ in 0..random.below(4) {
            self.publish(random);
        }
        for _ in 0..random.below(60) {
            yield_now().await;
        }
        self.books.lock().tell("crash");
        self.read_log(daemon);
        self.started_again();
        End::Crash
    }

    fn started_again(&mut self) {
        let mut books = self.books.lock();
        let now = books.now();
        books.ledger.is_stopping = false;
        books.ledger.forget_requests();
        books.notifications.forget_requests(now);
        books.ledger.was_held_up(now);
        books.ledger.forget_windows();
        let written = self.disk.blocks_at;
        for app in &mut books.apps {
            app.forget_blocks(written);
            app.keep_doubts(now);
        }
    }

    fn check(&self, daemon: &Daemon) {
        self.read_log(daemon);
        self.books.lock().check();
    }

    /// Looks for secrets, and for what is said to be lost.
    fn read_log(&self, daemon: &Daemon) {
        for line in self.log.take() {
            let mut books = self.books.lock();
            if shows_secret(&line) {
                books.fail(format!("the log shows a secret: {line}"));
            }
            if line.contains("could not be delivered") || line.contains("queued push dropped") {
                let hash = line
                    .split(" token=")
                    .nth(1)
                    .and_then(|rest| rest.get(..8))
                    .unwrap_or_default();
                let mut found = None;
                for (number, app) in books.apps.iter().enumerate() {
                    let mut tokens = app.tokens.iter();
                    let place = tokens.position(|token| daemon.fingerprint(&token.text) == hash);
                    found = found.or(place.map(|place| (number, place)));
                }
                if let Some((app, token)) = found {
                    books.counted_as_lost(app, token);
                }
            }
        }
    }

    /// All is well again: what was acknowledged reaches its device, and nothing is left over.
    async fn end_well(&mut self, daemon: &mut Daemon) {
        if self.settings != self.right {
            self.go_on_with(daemon, self.right.clone());
        }
        self.net.set_away(false);
        {
            let mut books = self.books.lock();
            let now = books.now();
            books.registrations.set_health(Health::Fine, now);
            for app in &mut books.apps {
                app.set_weather(Weather::Fine, now);
            }
            books.ledger.was_held_up(now);
            books.tell("all is well");
        }
        for _ in 0..60 {
            self.pass(daemon, 40 * SECOND).await;
            if self.verdict().is_err() {
                return;
            }
            if daemon.held() == 0 && self.books.lock().ledger.owed() == 0 {
                break;
            }
        }
        self.pass(daemon, 60 * SECOND).await;
        daemon.check_idle();
        let mut books = self.books.lock();
        let (owed, waiting) = (books.ledger.owed(), books.ledger.waiting());
        if owed > 0 || waiting > 0 {
            books.fail(format!(
                "{owed} acknowledged pushes are missing, {waiting} requests have no answer"
            ));
        }
        if !daemon.is_linked() {
            books.fail("there is no link".to_owned());
        }
    }
}

fn right_settings(random: &mut Random) -> Vec<ModuleValue> {
    let max_in_flight = random.one_of(&[1, 2, 5, 20, 1_000]);
    let spacing = random.one_of(&[20, 20, 5, 60]);
    let acknowledges_refused = random.one_in(4);
    let module = |name, kind, app| ModuleValue {
        name,
        kind,
        app,
        credential: app as u128 * 100,
        is_default: app == 0,
        max_in_flight,
        spacing,
        acknowledges_refused,
    };
    vec![
        module("apple", Kind::Hex, 0),
        module("google", Kind::Text, 1),
        module("second", Kind::Hex, 2),
    ]
}

/// Two modules have each other's backends.
fn exchange(settings: &mut [ModuleValue], one: usize, other: usize) {
    let [first, second] =
        [&settings[one], &settings[other]].map(|module| (module.kind, module.app, module.credential));
    (settings[one].kind, settings[one].app, settings[one].credential) = second;
    (
        settings[other].kind,
        settings[other].app,
        settings[other].credential,
    ) = first;
}
