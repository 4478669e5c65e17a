//! A daemon with several links, and the servers.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

pub(crate) use fpush_testkit::LONG;
use fpush_testkit::{
    Answer, Daemon, FakeApns, FakeXmpp, Link, Monitoring, TestCa, fixture,
    publish::{Publish, ejabberd_publish},
};
use serde_json::{Value, json};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_fpush");
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const RESULT: &str = "result";
pub(crate) const ONE: &str = "push.one.example";
pub(crate) const OTHER: &str = "push.other.example";

/// A link of the settings; its name is that of the server in the test.
pub(crate) fn link(name: &str, component: &str, server: &FakeXmpp) -> Value {
    json!({
        "linkName": name, "componentHostname": component, "componentKey": format!("secret of {component}"),
        "serverHostname": "127.0.0.1", "serverPort": server.port(),
    })
}

/// The same, in a group.
pub(crate) fn member(name: &str, group: &str, server: &FakeXmpp) -> Value {
    let mut link = link(name, ONE, server);
    link["group"] = group.into();
    link
}

pub(crate) fn server(component: &str) -> FakeXmpp {
    FakeXmpp::start(component, &format!("secret of {component}"))
}

/// A daemon whose links are up.
pub(crate) struct Rig {
    pub(crate) apns: FakeApns,
    pub(crate) daemon: Daemon,
    pub(crate) monitoring: Monitoring,
    settings: Value,
    sent: usize,
    reloads: usize,
}

impl Rig {
    /// One with these links, of which none has logged in yet.
    pub(crate) fn start(links: &[Value]) -> Self {
        Self::with(json!({ "component": links }))
    }

    /// The same with other settings.
    pub(crate) fn with(more: Value) -> Self {
        let ca = TestCa::new();
        let apns = FakeApns::start(&ca);
        // How long it takes is written in the token.
        apns.answer_with(|request| {
            let millis = u64::from_str_radix(&request.token[..8], 16).unwrap();
            Answer::Normal.after(Duration::from_millis(millis))
        });
        let module = json!({ "type": "apple", "is_default_module": true, "ratelimit": { "enabled": false }, "apns": {
            "certFilePath": fixture("aps.pem"), "certKeyFilePath": fixture("aps.key.pem"),
            "topic": "org.example.app", "endpoint": apns.url(), "caFilePath": "ca.pem",
            "requestTimeout": "24s",
        } });
        let usual = json!({
            "pushModules": { "ios": module, "demo": { "type": "demo", "ratelimit": { "enabled": false } } },
            "timeout": { "xmppconnectionError": "100ms" },
            "monitoring": { "listen": "127.0.0.1:0" },
        });
        let settings = fpush_testkit::merged(usual, more);
        let daemon = Daemon::builder(PROGRAM)
            .settings(&settings)
            .file("ca.pem", ca.pem())
            .start();
        let monitoring = Monitoring::of(&daemon, LONG);
        Self {
            apns,
            daemon,
            monitoring,
            settings,
            sent: 0,
            reloads: 0,
        }
    }

    /// Waits for a login at a server.
    #[track_caller]
    pub(crate) fn accept(&self, server: &FakeXmpp) -> Link {
        server
            .try_accept(LONG)
            .unwrap_or_else(|e| panic!("no link: {e}; the log:\n{}", self.daemon.log()))
    }

    /// A publish for a device of its own. Returns its id, too.
    pub(crate) fn publish(&mut self, component: &str) -> (String, Publish) {
        self.publish_that_takes(component, Duration::ZERO)
    }

    fn publish_that_takes(&mut self, component: &str, time: Duration) -> (String, Publish) {
        self.sent += 1;
        let id = format!("id-{}", self.sent);
        let token = format!("{:08x}{:056x}", time.as_millis(), self.sent);
        let publish = ejabberd_publish(&id, &token, None, true).to(component);
        (id, publish)
    }

    /// Publishes over a link, and waits for the answer there.
    #[track_caller]
    pub(crate) fn push(&mut self, component: &str, link: &mut Link) -> String {
        let (id, publish) = self.publish(component);
        link.send(publish);
        link.reply_to(&id, LONG).verdict()
    }

    /// Publishes over a link to a provider that answers after this time. Returns when the provider has it.
    #[track_caller]
    pub(crate) fn publish_slowly(&mut self, link: &Link, takes: Duration) -> String {
        let seen = self.apns.count();
        let (id, publish) = self.publish_that_takes(ONE, takes);
        link.send(publish);
        self.apns.wait_for(seen + 1, LONG);
        id
    }

    /// Goes on with these links.
    #[track_caller]
    pub(crate) fn reload(&mut self, links: &[Value]) {
        self.settings["component"] = links.into();
        let file = self.daemon.dir().join("settings.json");
        fs::write(file, self.settings.to_string()).unwrap();
        self.reloads += 1;
        self.daemon.signal("HUP");
        self.daemon
            .wait_for_nth_log("settings reloaded", self.reloads, LONG);
    }

    /// Waits until metrics compare so.
    #[track_caller]
    pub(crate) fn expect_metrics(&self, comparisons: &[&str]) {
        self.expect(&format!("{comparisons:?}"), |rig| {
            let scrape = rig.monitoring.scrape();
            comparisons.iter().all(|comparison| scrape.holds(comparison))
        });
    }

    /// Waits until the status page has these lines at its head, and no others: level, what it is about.
    #[track_caller]
    pub(crate) fn expect_lines(&self, lines: &[(&str, &str)]) {
        self.expect(&format!("{lines:?}"), |rig| {
            let status = rig.monitoring.status();
            let seen = status["concerns"].as_array().cloned().unwrap_or_default();
            let seen: Vec<_> = seen
                .iter()
                .map(|line| (line["level"].as_str().unwrap(), line["about"].as_str().unwrap()))
                .collect();
            !status.is_null() && seen == lines
        });
    }

    #[track_caller]
    pub(crate) fn expect(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + LONG;
        while !is_so(self) {
            assert!(
                Instant::now() < end,
                "not {what}: {:#}\n{}\n{}",
                self.monitoring.status(),
                self.monitoring.scrape().text,
                self.daemon.log()
            );
            thread::sleep(SECOND / 10);
        }
    }
}
