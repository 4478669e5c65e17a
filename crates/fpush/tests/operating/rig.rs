//! A daemon that is monitored, and what its operator should see of it.

use std::{
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    process,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fpush_testkit::{
    Daemon, FakeApns, FakeFcm, FakeXmpp, Link, Monitoring, Scrape, TestCa,
    daemon::Builder,
    fixture,
    own_port::{OwnPort, stop_listening},
    publish::ejabberd_publish,
};
pub(crate) use fpush_testkit::{LONG, merged};
use serde_json::{Value, json};

use crate::common;
pub(crate) use crate::common::DOMAIN;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_fpush");
pub(crate) const RESULT: &str = "result";
pub(crate) const DEAD: &str = "cancel/item-not-found";
pub(crate) const UNAVAILABLE: &str = "wait/remote-server-timeout";

/// What an operator sees.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sight<'a> {
    /// The lines at the head of the status page, and no others: level, what it is about, parts of the words.
    pub(crate) page: &'a [(&'a str, &'a str, &'a [&'a str])],
    /// Comparisons of metrics that hold.
    pub(crate) metrics: &'a [&'a str],
    /// Lines that the log has: level, part of the line.
    pub(crate) log: &'a [(&'a str, &'a str)],
    /// Why it is not ready: parts of the words. Nothing if it is ready.
    pub(crate) unready: &'a [&'a str],
}

/// All is well.
pub(crate) const GREEN: Sight<'_> = Sight {
    page: &[],
    metrics: &[
        "fpush_component_up == 1",
        "fpush_module_up{module=\"m\"} == 1",
        "fpush_module_trouble absent",
        "fpush_state_directory_ok == 1",
        "fpush_last_reload_successful == 1",
    ],
    log: &[],
    unready: &[],
};

/// A daemon with its XMPP server. Its push module in these tests is `m`.
pub(crate) struct Rig {
    pub(crate) xmpp: FakeXmpp,
    pub(crate) daemon: Daemon,
    pub(crate) monitoring: Monitoring,
    link: Option<Link>,
    sent: usize,
}

impl Rig {
    /// A daemon with this push module, whose link is up.
    pub(crate) fn start(module: Value) -> Self {
        Self::with(json!({ "pushModules": { "m": module } }), |builder| builder)
    }

    /// The same with other settings, where `null` takes a key away, and started as `start` says.
    pub(crate) fn with(settings: Value, start: impl FnOnce(Builder) -> Builder) -> Self {
        let mut rig = Self::unlinked(FakeXmpp::start(DOMAIN, common::SECRET), settings, start);
        rig.accept();
        rig
    }

    /// The same without a link.
    pub(crate) fn unlinked(xmpp: FakeXmpp, settings: Value, start: impl FnOnce(Builder) -> Builder) -> Self {
        let usual = common::settings(&xmpp, &json!({}));
        let mut settings = merged(
            merged(usual, json!({ "monitoring": { "listen": "127.0.0.1:0" } })),
            settings,
        );
        settings["pushModules"] = fpush_testkit::without_holding(settings["pushModules"].take());
        let daemon = start(Daemon::builder(PROGRAM).settings(&settings)).start();
        let monitoring = Monitoring::of(&daemon, LONG);
        Self {
            xmpp,
            daemon,
            monitoring,
            link: None,
            sent: 0,
        }
    }

    /// Waits until the daemon has logged in.
    #[track_caller]
    pub(crate) fn accept(&mut self) {
        match self.xmpp.try_accept(LONG) {
            Ok(link) => self.keep(link),
            Err(e) => panic!("no link: {e}; the log:\n{}", self.daemon.log()),
        }
    }

    /// This is the link from now on.
    pub(crate) fn keep(&mut self, link: Link) {
        self.link = Some(link);
    }

    /// The link, which is up.
    pub(crate) fn link(&mut self) -> &mut Link {
        self.link.as_mut().expect("the test has accepted a link")
    }

    /// Takes the link away.
    pub(crate) fn take_link(&mut self) -> Link {
        self.link.take().expect("the test has accepted a link")
    }

    /// Sends a publish for `m`. Returns its id.
    pub(crate) fn publish(&mut self, token: &str) -> String {
        self.sent += 1;
        let id = format!("id-{}", self.sent);
        let publish = ejabberd_publish(&id, token, Some("m"), true);
        self.link().send(publish);
        id
    }

    /// Sends a publish for each token, and waits for all answers.
    #[track_caller]
    pub(crate) fn push_all(&mut self, tokens: impl IntoIterator<Item = String>) -> Vec<String> {
        let ids: Vec<_> = tokens.into_iter().map(|token| self.publish(&token)).collect();
        self.verdicts(&ids)
    }

    /// How these publishes are answered.
    #[track_caller]
    pub(crate) fn verdicts(&mut self, ids: &[String]) -> Vec<String> {
        let link = self.link();
        ids.iter().map(|id| link.reply_to(id, LONG).verdict()).collect()
    }

    /// Waits until the operator sees this.
    #[track_caller]
    pub(crate) fn expect(&self, sight: Sight<'_>) {
        // Some of it comes with the next attempt, or with the end of a pause.
        let end = Instant::now() + LONG;
        loop {
            let missing = self.missing(sight);
            if missing.is_empty() {
                return;
            }
            if Instant::now() >= end {
                panic!(
                    "not seen: {missing:#?}\nstatus: {:#}\nreadiness: {:?}\nlog:\n{}\nmetrics:\n{}",
                    self.monitoring.status(),
                    self.monitoring.readiness(),
                    self.daemon.log(),
                    self.monitoring.scrape().text,
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// What of it there is not to be seen.
    fn missing(&self, sight: Sight<'_>) -> Vec<String> {
        let Sight {
            page,
            metrics,
            log,
            unready,
        } = sight;
        let mut missing = Vec::new();
        let status = self.monitoring.status();
        let lines = status["concerns"].as_array().cloned().unwrap_or_default();
        for (level, about, parts) in page {
            let is_it = |line: &Value| {
                let words = line["words"].as_str().unwrap_or_default();
                line["level"] == *level && line["about"] == *about && parts.iter().all(|p| words.contains(p))
            };
            if !lines.iter().any(is_it) {
                missing.push(format!("the line {level} {about} {parts:?}"));
            }
        }
        if status.is_null() || lines.len() != page.len() {
            missing.push(format!("exactly {} lines", page.len()));
        }
        let scrape = self.monitoring.scrape();
        let broken = metrics.iter().filter(|comparison| !scrape.holds(comparison));
        missing.extend(broken.map(|comparison| (*comparison).to_owned()));
        let text = self.daemon.log();
        for (level, part) in log {
            let level = format!(" {level} ");
            if !text
                .lines()
                .any(|line| line.contains(&level) && line.contains(part))
            {
                missing.push(format!("the log's line{level}{part}"));
            }
        }
        let (code, text) = self.monitoring.readiness();
        let ready = code == 200 && text == "ready\n";
        let fits = if unready.is_empty() {
            ready
        } else {
            code == 503 && unready.iter().all(|part| text.contains(part))
        };
        if !fits {
            missing.push(format!("unready because of {unready:?}"));
        }
        missing
    }

    /// The metrics, as soon as these comparisons hold.
    #[track_caller]
    pub(crate) fn scrape_when(&self, comparisons: &[&str]) -> Scrape {
        let end = Instant::now() + LONG;
        loop {
            let scrape = self.monitoring.scrape();
            if comparisons.iter().all(|comparison| scrape.holds(comparison)) {
                return scrape;
            }
            assert!(Instant::now() < end, "not {comparisons:?}:\n{}", scrape.text);
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Changes the settings, where `null` takes a key away, and has them read again.
    pub(crate) fn change_settings(&self, change: Value) {
        let file = self.path("settings.json");
        let settings: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        fs::write(&file, merged(settings, change).to_string()).unwrap();
        self.daemon.signal("HUP");
    }

    /// A path in the daemon's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.daemon.dir().join(name)
    }
}

/// An `apple` module with a certificate that is good, at this address, and with what `more` says.
pub(crate) fn apple(url: &str, more: Value) -> Value {
    let base = json!({
        "type": "apple",
        "apns": {
            "certFilePath": fixture("aps.pem"), "certKeyFilePath": fixture("aps.key.pem"),
            "topic": "org.example.app", "endpoint": url, "caFilePath": "ca.pem",
        },
    });
    merged(base, more)
}

/// The same with a provider token from `key.p8`.
pub(crate) fn apple_by_token(apns: &FakeApns) -> Value {
    let keys = json!({ "apns": {
        "certFilePath": null, "certKeyFilePath": null,
        "tokenKeyFilePath": "key.p8", "keyId": "KEY1234567", "teamId": "TEAM123456",
    } });
    apple(&apns.url(), keys)
}

/// A `google` module with the service account in `fcm.json`.
pub(crate) fn google(fcm: &FakeFcm) -> Value {
    json!({
        "type": "google",
        "fcm": { "fcmSecretPath": "fcm.json", "endpoint": fcm.url(), "caFilePath": "ca.pem" },
    })
}

/// Starts a daemon with this module and these files, beside the authority in `ca.pem`.
pub(crate) fn start(ca: &TestCa, module: Value, files: &[(&str, &str)]) -> Rig {
    Rig::with(json!({ "pushModules": { "m": module } }), |builder| {
        let builder = builder.file("ca.pem", ca.pem());
        files
            .iter()
            .fold(builder, |builder, (name, content)| builder.file(name, content))
    })
}

/// A token of Apple's.
pub(crate) fn apple_token(number: usize) -> String {
    format!("{number:08x}{}", &"fedcba9876543210".repeat(4)[8..])
}

pub(crate) fn apple_tokens(numbers: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    numbers.map(apple_token)
}

/// A token of Google's.
pub(crate) fn google_token(number: usize) -> String {
    format!("dCXr7fTpTm2yXGVYTXJb6r:APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx_{number:06}")
}

pub(crate) fn google_tokens(numbers: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    numbers.map(google_token)
}

/// What stands in the `Date` of an answer at this time.
pub(crate) fn http_date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let date = process::Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

/// The way to a provider, which can be closed: then a connection is refused, as by a machine where nothing listens.
pub(crate) struct Way {
    port: OwnPort,
    provider: u16,
    open: Option<(Arc<TcpListener>, JoinHandle<()>)>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    /// The way to a provider at this port. It is open.
    pub(crate) fn to(provider: u16) -> Self {
        let mut way = Self {
            port: OwnPort::take().unwrap(),
            provider,
            open: None,
            streams: Arc::default(),
        };
        way.open();
        way
    }

    /// Where it begins.
    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port.number())
    }

    /// Opens it, where it was before.
    pub(crate) fn open(&mut self) {
        let listener = Arc::new(self.port.listen().unwrap());
        let (open, streams, provider) = (Arc::clone(&listener), Arc::clone(&self.streams), self.provider);
        let accepting = thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let far = TcpStream::connect((Ipv4Addr::LOCALHOST, provider)).unwrap();
                for (mut from, mut to) in [
                    (near.try_clone().unwrap(), far.try_clone().unwrap()),
                    (far.try_clone().unwrap(), near.try_clone().unwrap()),
                ] {
                    thread::spawn(move || {
                        // However one direction ends, the other one has nothing left to say.
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.flush();
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                streams.lock().unwrap().extend([near, far]);
            }
        });
        self.open = Some((open, accepting));
    }

    /// Closes it, and ends what went over it.
    pub(crate) fn close(&mut self) {
        let Some((listener, accepting)) = self.open.take() else {
            return;
        };
        stop_listening(&listener).unwrap();
        accepting.join().unwrap();
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.close();
    }
}

/// An incident of the provider's after which many of the publishes were answered so: at most ten devices are believed to be
/// dead, and there is one alarm.
#[track_caller]
pub(crate) fn expect_an_incident(rig: &Rig, verdicts: &[String]) {
    let dead = verdicts.iter().filter(|verdict| *verdict == DEAD).count();
    let doubted = verdicts.iter().filter(|verdict| *verdict == UNAVAILABLE).count();
    assert_eq!(dead + doubted, verdicts.len(), "{verdicts:?}");
    assert!(dead <= 10, "{dead} of {}", verdicts.len());
    let rejected = |verdict: &str, number: usize| {
        format!("fpush_rejected_tokens_total{{module=\"m\",verdict=\"{verdict}\"}} == {number}")
    };
    rig.expect(Sight {
        page: &[(
            "error",
            "m",
            &["rejects too many tokens: check environment, topic and project"],
        )],
        metrics: &[
            "fpush_module_up{module=\"m\"} == 0",
            "fpush_module_trouble{module=\"m\",kind=\"wrong_tokens\"} == 1",
            "fpush_rejection_bursts_total{module=\"m\"} == 1",
            "fpush_problems_total{level=\"error\"} == 1",
            &rejected("believed", dead),
            &rejected("doubted", doubted),
        ],
        log: &[("ERROR", "the provider rejects too many tokens")],
        unready: &[],
    });
    let log = rig.daemon.log();
    let errors = log.lines().filter(|line| line.contains("ERROR ")).count();
    assert_eq!(errors, 1, "{log}");
}
