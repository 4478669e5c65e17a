//! A daemon whose clocks are moved, its providers, and devices whose servers remember what they were told.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

pub(crate) use fpush_testkit::LONG;
use fpush_testkit::{
    Answer, Command, Daemon, FakeApns, FakeFcm, FakeXmpp, Form, Link, Moves, Registration, TestCa, fcm_error,
    fixture, http, http_address,
    publish::{Publish, field, options},
    run_to_end,
};
use serde_json::{Value, json};

use super::time::{Time, expect_answers};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fpush");
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) const RESULT: &str = "result";
pub(crate) const DEAD: &str = "cancel/item-not-found";

/// A daemon with the modules `ios` and `beta`, which are Apple's, and `android`, which is Google's and the default one.
pub(crate) struct World {
    pub(crate) link: Link,
    pub(crate) daemon: Daemon,
    pub(crate) apns: FakeApns,
    pub(crate) fcm: FakeFcm,
    time: Time,
    xmpp: FakeXmpp,
    news: Arc<Mutex<News>>,
    sent: usize,
}

/// What the providers say. Without news they accept every push.
#[derive(Default)]
struct News {
    /// To every push.
    all: Option<Answer>,
    /// To pushes for these tokens.
    tokens: HashMap<String, Answer>,
    /// How often that was said.
    said: HashMap<String, usize>,
    /// To pushes for these tokens that come as another app's, by Apple's topic or Google's project.
    apps: HashMap<String, (&'static str, Answer)>,
}

/// Who a provider is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    Apple,
    Google,
}

/// A device, and what its server knows of it.
pub(crate) struct Device {
    pub(crate) provider: Provider,
    pub(crate) node: String,
    pub(crate) token: String,
    pub(crate) module: Option<&'static str>,
    pub(crate) secret: Option<String>,
    pub(crate) domain: String,
    pub(crate) registration: Registration,
    /// The reply to the last publish.
    pub(crate) last: String,
}

/// How a daemon ends that is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Stop,
    Kill,
}

/// How changed settings come into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Restart,
    Reload,
}

impl World {
    pub(crate) fn start() -> Self {
        Self::with(|_| {}, Moves::Time)
    }

    pub(crate) fn with(change: impl FnOnce(&mut Value), moves: Moves) -> Self {
        let ca = TestCa::new();
        let (apns, fcm) = (
            FakeApns::builder(&ca).recording(false).start(),
            FakeFcm::builder(&ca).recording(false).start(),
        );
        let news = Arc::new(Mutex::new(News::default()));
        let heard = Arc::clone(&news);
        apns.answer_with(move |request| {
            let topic = request.header("apns-topic").unwrap_or_default();
            heard.lock().unwrap().answer(&request.token, topic)
        });
        let heard = Arc::clone(&news);
        fcm.answer_with(move |send| {
            let target = send.message["fid"].as_str().unwrap_or_else(|| send.token());
            heard.lock().unwrap().answer(target, &send.project)
        });
        let xmpp = FakeXmpp::start("push.localhost", "secret");
        let builder = Daemon::builder(PROGRAM)
            .file("ca.pem", ca.pem())
            .file("fcm.json", fcm.service_account("project-1"));
        let apple = |topic: &str| {
            json!({ "type": "apple", "ratelimit": { "enabled": false }, "apns": {
                "certFilePath": fixture("aps.pem"), "certKeyFilePath": fixture("aps.key.pem"),
                "topic": topic, "endpoint": apns.url(), "caFilePath": "ca.pem",
            } })
        };
        let mut settings = json!({
            "component": {
                "componentHostname": "push.localhost", "componentKey": "secret",
                "serverHostname": "127.0.0.1", "serverPort": xmpp.port(),
            },
            "timeout": { "xmppconnectionError": "100ms" },
            "pushModules": {
                "ios": apple("org.example.app"),
                "beta": apple("org.example.beta"),
                "android": { "type": "google", "is_default_module": true, "ratelimit": { "enabled": false }, "fcm": {
                    "fcmSecretPath": "fcm.json", "endpoint": fcm.url(), "caFilePath": "ca.pem",
                } },
            },
            "registration": {
                "store": { "type": "sqlite", "path": "devices.db" },
                "types": { "apns": "ios", "fcm": "android" },
                "maxPerOwner": 10_000,
            },
            "stateDirectory": builder.dir().join("state"),
        });
        let time = Time::of(&builder, moves, &mut settings);
        change(&mut settings);
        let daemon = time.run(builder.settings(&settings));
        let link = accept(&xmpp, &daemon);
        Self {
            link,
            daemon,
            apns,
            fcm,
            time,
            xmpp,
            news,
            sent: 0,
        }
    }

    /// From now on every push of every module is answered like this; with `None` as usual.
    pub(crate) fn everybody_gets(&self, answer: Option<Answer>) {
        self.news.lock().unwrap().all = answer;
    }

    /// From now on pushes to this token are answered like this, also during an incident.
    pub(crate) fn token_gets(&self, token: &str, answer: Answer) {
        self.news.lock().unwrap().tokens.insert(token.to_owned(), answer);
    }

    /// These devices are this app's, by topic or project: pushes to them as another one's are answered like this.
    pub(crate) fn devices_are_of(&self, devices: &[Device], app: &'static str, otherwise: &Answer) {
        let mut news = self.news.lock().unwrap();
        for device in devices {
            news.apps.insert(device.token.clone(), (app, otherwise.clone()));
        }
    }

    /// Pushes to this token are answered as usual again.
    pub(crate) fn token_is_well(&self, token: &str) {
        self.news.lock().unwrap().tokens.remove(token);
    }

    /// So much time passes.
    #[track_caller]
    pub(crate) fn pass(&mut self, time: Duration) {
        self.time.pass(time, &self.daemon, &mut self.link);
    }

    /// How often a provider has said to a push what pushes for its token get.
    pub(crate) fn said(&self, token: &str) -> usize {
        self.news
            .lock()
            .unwrap()
            .said
            .get(token)
            .copied()
            .unwrap_or_default()
    }

    /// The clock of the machine is wrong from the next start on.
    pub(crate) fn set_clock_ahead(&mut self, time: Duration) {
        self.time.set_ahead(time);
    }

    /// The daemon ends, and starts again.
    #[track_caller]
    pub(crate) fn restart(&mut self, end: End) {
        match end {
            End::Stop => self.stop(),
            End::Kill => self.daemon.kill(),
        }
        self.go_on();
    }

    /// The daemon ends as an operator ends it.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.daemon.terminate();
        // Before that it would log in again, and wait at the fake server for the next one.
        self.daemon.wait_for_log("SIGTERM: finishing", LONG);
        self.link.close();
        assert!(self.daemon.wait(LONG).success(), "{}", self.daemon.log());
    }

    /// A daemon that has ended starts again.
    #[track_caller]
    pub(crate) fn go_on(&mut self) {
        self.daemon.start_again();
        self.link = accept(&self.xmpp, &self.daemon);
    }

    /// The operator changes the settings.
    #[track_caller]
    pub(crate) fn change_settings(&mut self, how: Change, change: impl FnOnce(&mut Value)) {
        let file = self.file("settings.json");
        let mut settings: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        change(&mut settings);
        fs::write(&file, settings.to_string()).unwrap();
        match how {
            Change::Restart => self.restart(End::Stop),
            Change::Reload => {
                let reloads = self.daemon.log().matches(RELOADED).count();
                self.daemon.signal("HUP");
                self.daemon.wait_for_nth_log(RELOADED, reloads + 1, LONG);
            }
        }
    }

    /// What an operator does on the command line, without the name of the settings at its end.
    #[track_caller]
    pub(crate) fn operate(&self, arguments: &[&str]) -> Vec<u8> {
        let arguments: Vec<_> = arguments.iter().copied().chain(["settings.json"]).collect();
        let done = run_to_end(PROGRAM, &arguments, self.daemon.dir());
        assert!(done.status.success(), "{done:?}");
        done.stdout
    }

    /// The owner of a registered device removes it, as [`register`](Self::register) made it.
    #[track_caller]
    pub(crate) fn unregister(&mut self, device: &Device, n: usize) {
        let id = self.id();
        let fields = [("type", device.provider.push_type()), ("node", &*device.node)];
        let command = Command::new(&id, "v1-unregister-push", &fields)
            .from(&format!("user{n}@{}/phone", device.domain))
            .action("execute");
        self.link.send(command);
        assert!(self.link.reply_to(&id, LONG).is_result());
    }

    /// A file in the daemon's folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.daemon.dir().join(name)
    }

    /// Waits until so many tokens are on disk whose devices were alive: the daemon writes some of them down before the others are
    /// accepted.
    #[track_caller]
    pub(crate) fn wait_until_known_alive(&self, tokens: usize) {
        let (file, end) = (self.file("state/verdicts.jsonl"), Instant::now() + LONG);
        loop {
            let content = fs::read_to_string(&file).unwrap_or_default();
            let alive = content.lines().filter_map(|line| {
                let record: Value = serde_json::from_str(line).ok()?;
                Some(record.get(2)?.get("Alive")?.as_array()?.len())
            });
            let known = alive.sum::<usize>();
            if known >= tokens {
                return;
            }
            assert!(
                Instant::now() < end,
                "{known} of {tokens} are in {}",
                file.display()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Publishes once for each device. Each keeps the reply.
    #[track_caller]
    pub(crate) fn publish(&mut self, devices: &mut [Device]) {
        // So many wait for their replies at a time. A provider's stand-in that is busy says to all of them that accept before it says
        // anything else, because only that has a body: fifty answers in a row are to have both.
        for devices in devices.chunks_mut(20) {
            let ids: Vec<_> = devices
                .iter()
                .map(|device| {
                    let id = self.id();
                    self.link.send(device.publish(&id));
                    id
                })
                .collect();
            for (device, id) in devices.iter_mut().zip(ids) {
                let reply = self.link.reply_to(&id, LONG);
                device.last = reply.verdict();
                device.registration.hear(&device.last);
            }
        }
    }

    /// Publishes, and expects that every push arrives.
    #[track_caller]
    pub(crate) fn expect_all_arrive(&mut self, devices: &mut [Device]) {
        self.publish(devices);
        for device in devices {
            assert_eq!(
                device.last,
                RESULT,
                "{:?}\n{}",
                device.provider,
                self.daemon.log()
            );
        }
    }

    /// Devices that the app names with their tokens, at many servers.
    pub(crate) fn stateless(&mut self, provider: Provider, number: usize) -> Vec<Device> {
        (0..number)
            .map(|n| {
                let token = self.token(provider);
                Device {
                    provider,
                    node: token.clone(),
                    token,
                    module: Some(provider.module()),
                    secret: None,
                    domain: domain(n),
                    registration: Registration::default(),
                    last: String::new(),
                }
            })
            .collect()
    }

    /// Devices that register here, at many servers.
    #[track_caller]
    pub(crate) fn registered(&mut self, provider: Provider, number: usize) -> Vec<Device> {
        (0..number)
            .map(|n| {
                let node = format!("node-{}", self.id());
                self.register(provider, &node, n)
            })
            .collect()
    }

    /// The `n`th account's device with this node registers, with a new token. As an app it asks again if it is told to wait: the
    /// disk of a busy machine may take longer than fpush waits for it.
    #[track_caller]
    pub(crate) fn register(&mut self, provider: Provider, node: &str, n: usize) -> Device {
        let (token, domain, end) = (self.token(provider), domain(n), Instant::now() + LONG);
        let fields = [("type", provider.push_type()), ("node", node), ("token", &token)];
        let reply = loop {
            let id = self.id();
            let command = Command::new(&id, "v1-register-push", &fields)
                .from(&format!("user{n}@{domain}/phone"))
                .action("execute");
            self.link.send(command);
            let reply = self.link.reply_to(&id, LONG);
            if Instant::now() > end || !reply.verdict().starts_with("wait/") {
                break reply;
            }
        };
        assert!(reply.is_result(), "{}", reply.raw);
        Device {
            provider,
            node: node.to_owned(),
            token,
            module: None,
            secret: Some(Form::of(&reply).value("secret").to_owned()),
            domain,
            registration: Registration::default(),
            last: String::new(),
        }
    }

    /// A device with this node registers over HTTP, with a new token.
    #[track_caller]
    pub(crate) fn register_over_http(&mut self, provider: Provider, node: &str) -> Device {
        let token = self.token(provider);
        let form = format!("type={}&node={node}&token={token}", provider.push_type());
        let address = http_address(&self.daemon, LONG);
        let answer = http(address, "POST /push_appserver/v1/register", &form);
        let secret = answer.body.strip_prefix(&format!("OK\n{node}\n"));
        Device {
            provider,
            node: node.to_owned(),
            token,
            module: None,
            secret: Some(secret.unwrap_or_else(|| panic!("{answer:?}")).to_owned()),
            domain: domain(0),
            registration: Registration::default(),
            last: String::new(),
        }
    }

    /// Devices of both kinds.
    #[track_caller]
    pub(crate) fn devices(&mut self, provider: Provider, number: usize) -> Vec<Device> {
        let registered = number.min(200) / 2;
        let mut devices = self.registered(provider, registered);
        devices.extend(self.stateless(provider, number - registered));
        devices
    }

    fn token(&mut self, provider: Provider) -> String {
        self.sent += 1;
        let n = self.sent;
        match provider {
            Provider::Apple => format!("{n:08x}{}", "89abcdef".repeat(7)),
            Provider::Google => format!("tok{n:08}:APA91b{}", "xY-z_".repeat(24)),
        }
    }

    fn id(&mut self) -> String {
        self.sent += 1;
        format!("id-{}", self.sent)
    }
}

impl News {
    fn answer(&mut self, token: &str, app: &str) -> Answer {
        if let Some((own, answer)) = self.apps.get(token)
            && *own != app
        {
            return answer.clone();
        }
        // What nobody owns is asked to prove the credentials.
        let of_token = self.tokens.get(token);
        if of_token.is_some() {
            *self.said.entry(token.to_owned()).or_default() += 1;
        }
        of_token.or(self.all.as_ref()).cloned().unwrap_or(Answer::Normal)
    }
}

impl Provider {
    pub(crate) fn module(self) -> &'static str {
        match self {
            Self::Apple => "ios",
            Self::Google => "android",
        }
    }

    fn push_type(self) -> &'static str {
        match self {
            Self::Apple => "apns",
            Self::Google => "fcm",
        }
    }

    /// Words that leave no doubt that the token is dead.
    pub(crate) fn words_beyond_doubt(self) -> Vec<Answer> {
        match self {
            Self::Apple => vec![
                Answer::reason(410, "Unregistered"),
                Answer::reason(410, "ExpiredToken"),
            ],
            Self::Google => vec![fcm_error(404, "NOT_FOUND", Some("UNREGISTERED"), &[])],
        }
    }

    /// Words that may be about the settings of the module.
    pub(crate) fn words_about_us(self) -> Vec<Answer> {
        match self {
            Self::Apple => vec![
                Answer::reason(400, "BadDeviceToken"),
                Answer::reason(400, "DeviceTokenNotForTopic"),
                Answer::reason(410, "SomethingNew"),
            ],
            Self::Google => vec![
                fcm_error(403, "PERMISSION_DENIED", Some("SENDER_ID_MISMATCH"), &[]),
                fcm_error(400, "INVALID_ARGUMENT", Some("INVALID_ARGUMENT"), &[]),
            ],
        }
    }
}

impl Device {
    fn publish(&self, id: &str) -> Publish {
        let mut fields = String::new();
        if let Some(module) = self.module {
            fields += &field("pushModule", module);
        }
        if let Some(secret) = &self.secret {
            fields += &field("secret", secret);
        }
        Publish::new(id, &self.node, ITEM, &options("submit", &fields)).from(&self.domain)
    }
}

/// The files of the database.
pub(crate) const DATABASE: [&str; 3] = ["devices.db", "devices.db-wal", "devices.db-shm"];

/// Copies the database to one of another name, or back, while no daemon runs.
pub(crate) fn copy_database(world: &World, from: &str, to: &str) {
    for file in DATABASE {
        let (from, to) = (file.replace("devices", from), file.replace("devices", to));
        let _ = fs::remove_file(world.file(&to));
        let _ = fs::copy(world.file(&from), world.file(&to));
    }
}

/// Those of whom some server has forgotten the registration.
pub(crate) fn lost(devices: &[Device]) -> Vec<&Device> {
    devices
        .iter()
        .filter(|device| !device.registration.is_kept())
        .collect()
}

/// Twenty publishes for each device over more than three days: more than any server has patience for.
pub(crate) fn publish_for_days(world: &mut World, devices: &mut [Device]) {
    for pause in [MINUTE, HOUR + MINUTE, 23 * HOUR, DAY + HOUR, DAY] {
        for _ in 0..4 {
            world.publish(devices);
            world.pass(11 * MINUTE);
        }
        world.pass(pause);
    }
}

/// Checks that no server has forgotten a device.
#[track_caller]
pub(crate) fn assert_all_kept(devices: &[Device], what: &str) {
    let lost = lost(devices);
    if let Some(first) = lost.first() {
        panic!(
            "{what}: {} of {} devices lost; the first, {:?}, was {} at {:?}",
            lost.len(),
            devices.len(),
            first.provider,
            first.registration,
            first.last
        );
    }
}

/// The daemon logs in.
#[track_caller]
pub(crate) fn accept(xmpp: &FakeXmpp, daemon: &Daemon) -> Link {
    let mut link = match xmpp.try_accept(LONG) {
        Ok(link) => link,
        Err(e) => panic!("no link: {e}; the log:\n{}", daemon.log()),
    };
    // Until it knows that it is logged in, time that passes would end that.
    expect_answers(&mut link);
    link
}

fn domain(n: usize) -> String {
    format!("chat.server{}.example", n % 40)
}

/// What ejabberd publishes for a message.
const ITEM: &str = "<item><notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data' type='submit'>\
    <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field>\
    <field var='last-message-body'><value>New message</value></field></x></notification></item>";
/// What the log says when new settings are in force.
const RELOADED: &str = "settings reloaded";
