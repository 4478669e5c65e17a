//! A daemon whose settings change while it runs, all that it talks to, and what the tests have in common.

use std::{fs, time::Duration};

use fpush_testkit::{
    Daemon, FakeApns, FakeFcm, FakeXmpp, Link, Monitoring, TestCa, fixture, publish::ejabberd_publish,
};
pub(crate) use fpush_testkit::{LONG, merged, until};
use serde_json::{Value, json};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) const DOMAIN: &str = "push.localhost";
pub(crate) const SECRET: &str = "secret";

pub(crate) const RESULT: &str = "result";
pub(crate) const DEAD: &str = "cancel/item-not-found";
pub(crate) const REFUSED: &str = "wait/service-unavailable";
/// Also for a module that is not in the settings.
pub(crate) const OVERLOAD: &str = "wait/internal-server-error";

/// All that a daemon talks to.
pub(crate) struct World {
    ca: TestCa,
    pub(crate) apns: FakeApns,
    pub(crate) fcm: FakeFcm,
    pub(crate) xmpp: FakeXmpp,
}

impl World {
    pub(crate) fn new() -> Self {
        let ca = TestCa::new();
        Self {
            apns: FakeApns::start(&ca),
            fcm: FakeFcm::builder(&ca).check_tokens(true).start(),
            xmpp: FakeXmpp::start(DOMAIN, SECRET),
            ca,
        }
    }

    /// The authority of the fakes, from which they take client certificates, too.
    pub(crate) fn ca(&self) -> &TestCa {
        &self.ca
    }

    /// An `apple` module with a certificate and without a rate limit, over which goes what `more` says.
    pub(crate) fn apple(&self, more: Value) -> Value {
        let usual = json!({ "type": "apple", "ratelimit": { "enabled": false }, "apns": {
            "certFilePath": fixture("aps.pem"), "certKeyFilePath": fixture("aps.key.pem"),
            "topic": "org.example.app", "endpoint": self.apns.url(), "caFilePath": "ca.pem",
        } });
        merged(usual, more)
    }

    /// The same with provider tokens that this file signs.
    pub(crate) fn by_token(&self, file: &str, more: Value) -> Value {
        let keys = json!({ "apns": {
            "certFilePath": null, "certKeyFilePath": null,
            "tokenKeyFilePath": file, "keyId": "KEY1234567", "teamId": "TEAM123456",
        } });
        self.apple(merged(keys, more))
    }

    /// A `google` module without a rate limit, over which goes what `more` says.
    pub(crate) fn google(&self, more: Value) -> Value {
        let usual = json!({ "type": "google", "ratelimit": { "enabled": false }, "fcm": {
            "fcmSecretPath": "fcm.json", "endpoint": self.fcm.url(), "caFilePath": "ca.pem",
        } });
        merged(usual, more)
    }

    /// Settings with these modules, and a listener for metrics.
    pub(crate) fn settings(&self, modules: Value) -> Value {
        json!({
            "component": {
                "componentHostname": DOMAIN, "componentKey": SECRET,
                "serverHostname": "127.0.0.1", "serverPort": self.xmpp.port(),
            },
            "timeout": { "xmppconnectionError": "100ms" },
            "monitoring": { "listen": "127.0.0.1:0" },
            "pushModules": fpush_testkit::without_holding(modules),
        })
    }

    /// Starts a daemon and waits for its link. Beside these files it has `ca.pem`, and `fcm.json` for `project-1`.
    pub(crate) fn start(self, settings: Value, files: &[(&str, &str)]) -> Rig {
        let mut builder = Daemon::builder(env!("CARGO_BIN_EXE_fpush"))
            .settings(&settings)
            .rust_log("info,fpush::daemon=debug")
            .file("ca.pem", self.ca.pem())
            .file("fcm.json", self.fcm.service_account("project-1"));
        for (name, content) in files {
            builder = builder.file(name, content);
        }
        let daemon = builder.start();
        let link = accept(&self.xmpp, &daemon);
        Rig {
            world: self,
            link,
            conductor: Conductor {
                daemon,
                settings,
                taken_over: 0,
                refused: 0,
            },
            published: 0,
        }
    }
}

/// A daemon whose link is up.
pub(crate) struct Rig {
    pub(crate) world: World,
    pub(crate) link: Link,
    pub(crate) conductor: Conductor,
    published: usize,
}

/// Changes the settings of a daemon.
pub(crate) struct Conductor {
    pub(crate) daemon: Daemon,
    /// Those in force.
    pub(crate) settings: Value,
    taken_over: usize,
    refused: usize,
}

impl Rig {
    /// Sends an urgent publish. Returns its id.
    pub(crate) fn publish(&mut self, module: &str, token: &str) -> String {
        self.published += 1;
        let id = format!("id-{}", self.published);
        self.link.send(ejabberd_publish(&id, token, Some(module), true));
        id
    }

    /// How a publish is answered.
    #[track_caller]
    pub(crate) fn verdict(&mut self, id: &str) -> String {
        self.link.reply_to(id, LONG).verdict()
    }

    /// Publishes and waits for the answer.
    #[track_caller]
    pub(crate) fn push(&mut self, module: &str, token: &str) -> String {
        let id = self.publish(module, token);
        self.verdict(&id)
    }

    /// Publishes to an `apple` module, and returns the title that the push has at Apple.
    #[track_caller]
    pub(crate) fn title(&mut self, module: &str, token: &str) -> String {
        let seen = self.world.apns.count();
        assert_eq!(self.push(module, token), RESULT);
        let requests = self.world.apns.wait_for(seen + 1, LONG);
        title(&requests[seen].body).to_owned()
    }

    /// Takes over what `change` says over the settings in force; `null` takes a key away.
    #[track_caller]
    pub(crate) fn reload(&mut self, change: Value) {
        self.conductor.reload(change);
    }

    /// Waits for a login, and goes on with that link. Returns the one before.
    #[track_caller]
    pub(crate) fn next_link(&mut self) -> Link {
        let next = accept(&self.world.xmpp, &self.conductor.daemon);
        std::mem::replace(&mut self.link, next)
    }
}

impl Conductor {
    /// See [`Rig::reload`].
    #[track_caller]
    pub(crate) fn reload(&mut self, change: Value) {
        self.settings = merged(self.settings.take(), change);
        self.write(&self.settings.to_string());
        self.taken_over += 1;
        self.daemon.signal("HUP");
        self.daemon
            .wait_for_nth_log("settings reloaded", self.taken_over, LONG);
    }

    /// Makes this the settings file, which the daemon must refuse. Returns what the log says from the reload on.
    #[track_caller]
    pub(crate) fn refuse(&mut self, text: &str) -> String {
        let before = self.daemon.log().len();
        self.write(text);
        self.refused += 1;
        self.daemon.signal("HUP");
        self.daemon
            .wait_for_nth_log("reload rejected, keeping the old settings", self.refused, LONG);
        self.daemon.log().split_off(before)
    }

    /// What `change` makes of the settings in force.
    pub(crate) fn changed(&self, change: Value) -> Value {
        merged(self.settings.clone(), change)
    }

    /// Writes the settings file, of which nobody is told.
    pub(crate) fn write(&self, text: &str) {
        self.put("settings.json", text);
    }

    /// Writes a file in the daemon's folder anew.
    pub(crate) fn put(&self, name: &str, content: &str) {
        fs::write(self.daemon.dir().join(name), content).unwrap();
    }

    /// Where the metrics are now.
    #[track_caller]
    pub(crate) fn monitoring(&self) -> Monitoring {
        Monitoring::of(&self.daemon, LONG)
    }

    /// The value of a metric.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.monitoring().scrape().value(name, labels)
    }
}

#[track_caller]
pub(crate) fn accept(xmpp: &FakeXmpp, daemon: &Daemon) -> Link {
    xmpp.try_accept(LONG)
        .unwrap_or_else(|e| panic!("no link: {e:?}; the log:\n{}", daemon.log()))
}

/// The title of a push at Apple.
pub(crate) fn title(body: &Value) -> &str {
    body["aps"]["alert"]["title"].as_str().unwrap()
}

/// A token of Apple's.
pub(crate) fn apple(number: usize) -> String {
    format!("{number:08x}{}", &"0123456789abcdef".repeat(4)[8..])
}

/// A token of Google's.
pub(crate) fn google(number: usize) -> String {
    format!("dCXr7fTpTm2yXGVYTXJb6r:APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx_{number:06}")
}
