//! A daemon that passes notifications on, and what the tests have in common.

pub(crate) use fpush_testkit::LONG;
use fpush_testkit::{
    ApnsKey, Daemon, FakeApns, FakePush, FakeXmpp, Link, Notification, TestCa, fixture, merged,
    publish::ejabberd_publish,
};
use serde_json::{Value, json};

pub(crate) const GONE: &str = "cancel/item-not-found";
pub(crate) const LATER: &str = "wait/remote-server-timeout";
pub(crate) const FORBIDDEN: &str = "wait/policy-violation";
pub(crate) const TOO_MANY: &str = "wait/resource-constraint";
pub(crate) const BAD: &str = "modify/bad-request";
pub(crate) const TOO_LARGE: &str = "modify/not-acceptable";

/// A daemon whose link is up.
pub(crate) struct Rig {
    pub(crate) link: Link,
    pub(crate) daemon: Daemon,
    _xmpp: FakeXmpp,
    sent: usize,
}

impl Rig {
    /// One with a module `web` for a fake push service.
    pub(crate) fn web(ca: &TestCa, push: &FakePush) -> Self {
        let modules = json!({ "web": web(push, json!({})) });
        Self::start(ca, modules, json!({ "modules": ["web"] }))
    }

    /// One with these modules, and this in `push2`.
    pub(crate) fn start(ca: &TestCa, modules: Value, push2: Value) -> Self {
        Self::with(ca, modules, json!({ "push2": push2 }), &[])
    }

    /// One with this in `component`, and these variables in its environment.
    pub(crate) fn with(ca: &TestCa, modules: Value, component: Value, environment: &[(&str, &str)]) -> Self {
        let xmpp = FakeXmpp::start("push.localhost", "secret");
        let component = merged(json!({ "serverPort": xmpp.port() }), component);
        let daemon = Self::daemon(ca, modules, component, environment);
        let link = match xmpp.try_accept(LONG) {
            Ok(link) => link,
            Err(e) => panic!("no link: {e:?}; the log:\n{}", daemon.log()),
        };
        Self {
            link,
            daemon,
            _xmpp: xmpp,
            sent: 0,
        }
    }

    /// A daemon alone.
    pub(crate) fn daemon(
        ca: &TestCa,
        modules: Value,
        component: Value,
        environment: &[(&str, &str)],
    ) -> Daemon {
        let base = json!({
            "componentHostname": "push.localhost", "componentKey": "secret", "serverHostname": "127.0.0.1",
        });
        let settings = json!({ "component": merged(base, component), "pushModules": modules,
            "monitoring": { "listen": "127.0.0.1:0" } });
        let builder = Daemon::builder(env!("CARGO_BIN_EXE_fpush"))
            .settings(&settings)
            .rust_log("trace")
            .file("ca.pem", ca.pem())
            .file("vapid.key", ApnsKey::generate().p8());
        environment
            .iter()
            .fold(builder, |builder, (name, value)| builder.env(name, value))
            .start()
    }

    /// Sends a notification from a domain. Returns the id of its message.
    pub(crate) fn send_from(&mut self, domain: &str, notification: &Notification) -> String {
        self.sent += 1;
        let id = format!("3b1f-{}", self.sent);
        self.link.send(notification.message(domain, &id));
        id
    }

    pub(crate) fn send(&mut self, notification: &Notification) -> String {
        self.send_from("a.example", notification)
    }

    /// The error that answers the message with this id.
    #[track_caller]
    pub(crate) fn error(&mut self, id: &str) -> String {
        let reply = self.link.reply_to(id, LONG);
        assert!(reply.raw.starts_with("<message type='error'"), "{}", reply.raw);
        assert!(reply.text().is_some_and(|text| !text.is_empty()), "{}", reply.raw);
        reply.verdict()
    }

    /// Sends a notification that is answered with an error.
    #[track_caller]
    pub(crate) fn refused(&mut self, notification: &Notification) -> String {
        let id = self.send(notification);
        self.error(&id)
    }

    /// Checks that nothing was said to anything before, and that the stream is there.
    #[track_caller]
    pub(crate) fn assert_silent(&mut self) {
        self.sent += 1;
        let id = format!("ping-{}", self.sent);
        self.link.send(format!(
            "<iq type='get' from='a.example' to='push.localhost' id='{id}'><ping xmlns='urn:xmpp:ping'/></iq>"
        ));
        let next = self.link.next_stanza(LONG);
        assert!(next.contains(&id), "{next}");
    }

    /// Publishes as servers without Push 2.0 do. Returns the reply.
    #[track_caller]
    pub(crate) fn publish(&mut self, module: &str, token: &str) -> String {
        self.sent += 1;
        let id = format!("publish-{}", self.sent);
        self.link
            .send(ejabberd_publish(&id, token, Some(module), true).from("a.example"));
        self.link.reply_to(&id, LONG).verdict()
    }

    /// Checks that no secret is in the log, which is at trace level.
    #[track_caller]
    pub(crate) fn assert_discreet(&self, secrets: &[&str]) {
        let log = self.daemon.log();
        for secret in secrets {
            assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
        }
    }
}

/// A module that may send to the fake, and to nothing else of this machine.
pub(crate) fn web(push: &FakePush, more: Value) -> Value {
    let base = json!({
        "type": "webpush",
        "webpush": {
            "vapidKeyFilePath": "vapid.key", "subject": "mailto:push@example.org", "caFilePath": "ca.pem",
            "allowedEndpoints": ["127.0.0.1"], "allowedPorts": [push.address().port()],
            "allowedNetworks": ["127.0.0.1"],
        },
    });
    merged(base, more)
}

/// A module of an app with this bundle ID.
pub(crate) fn apple(apns: &FakeApns, topic: &str, more: Value) -> Value {
    let base = json!({
        "type": "apple",
        "apns": {
            "certFilePath": fixture("aps.pem"), "certKeyFilePath": fixture("aps.key.pem"), "topic": topic,
            "endpoint": apns.url(), "caFilePath": "ca.pem",
        },
    });
    merged(base, more)
}
