//! A daemon with its XMPP server, and what the tests have in common.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fpush_testkit::{Answer, Daemon, FakeXmpp, Link, TestCa, daemon::Builder, publish::ejabberd_publish};
pub(crate) use fpush_testkit::{LONG, merged};
use serde_json::{Map, Value, json};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Whether something takes less time than this, of three times at most: a busy machine may take the processor away from one.
pub(crate) fn is_quick(limit: Duration, mut once: impl FnMut(usize) -> Duration) -> bool {
    (0..3).any(|again| once(again) < limit)
}

/// So many accepted pushes make a module trust its provider's word that a device is gone.
#[cfg(feature = "enable_apns_support")]
pub(crate) const TRUSTED: usize = 10;

pub(crate) const RESULT: &str = "result";
pub(crate) const DEAD: &str = "cancel/item-not-found";
pub(crate) const UNAVAILABLE: &str = "wait/remote-server-timeout";
pub(crate) const REFUSED: &str = "wait/service-unavailable";
pub(crate) const OVERLOAD: &str = "wait/internal-server-error";

/// A daemon whose link is up.
pub(crate) struct Rig {
    pub(crate) link: Link,
    pub(crate) daemon: Daemon,
    _xmpp: FakeXmpp,
    published: usize,
}

impl Rig {
    /// Starts a daemon with these push modules. In their settings `ca.pem` is the authority, and the other files
    /// are there under their names.
    pub(crate) fn start(ca: &TestCa, modules: impl Into<Value>, files: &[(&str, &str)]) -> Self {
        Self::start_with(ca, modules, files, &[])
    }

    /// The same with these variables in its environment.
    pub(crate) fn start_with(
        ca: &TestCa,
        modules: impl Into<Value>,
        files: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> Self {
        Self::launch(ca, modules, files, |builder| {
            let all = environment.iter();
            all.fold(builder, |builder, (name, value)| builder.env(name, value))
                .start()
        })
    }

    /// The same with a daemon that is started so.
    pub(crate) fn launch(
        ca: &TestCa,
        modules: impl Into<Value>,
        files: &[(&str, &str)],
        start: impl FnOnce(Builder) -> Daemon,
    ) -> Self {
        let xmpp = FakeXmpp::start("push.localhost", "secret");
        let settings = json!({
            "component": {
                "componentHostname": "push.localhost", "componentKey": "secret",
                "serverHostname": "127.0.0.1", "serverPort": xmpp.port(),
            },
            "pushModules": fpush_testkit::without_holding(modules.into()),
            "monitoring": { "listen": "127.0.0.1:0" },
        });
        let mut builder = Daemon::builder(env!("CARGO_BIN_EXE_fpush"))
            .settings(&settings)
            .rust_log("trace")
            .file("ca.pem", ca.pem());
        for (name, content) in files {
            builder = builder.file(name, content);
        }
        let daemon = start(builder);
        let link = match xmpp.try_accept(LONG) {
            Ok(link) => link,
            Err(e) => panic!("no link: {e:?}; the log:\n{}", daemon.log()),
        };
        Self {
            link,
            daemon,
            _xmpp: xmpp,
            published: 0,
        }
    }

    /// Sends an urgent publish. Returns its id.
    pub(crate) fn publish(&mut self, module: &str, token: &str) -> String {
        self.publish_from("a.example", module, token)
    }

    pub(crate) fn publish_from(&mut self, domain: &str, module: &str, token: &str) -> String {
        self.published += 1;
        let id = format!("id-{}", self.published);
        self.link
            .send(ejabberd_publish(&id, token, Some(module), true).from(domain));
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

    /// The same, and how long it took.
    #[track_caller]
    pub(crate) fn timed(&mut self, module: &str, token: &str) -> (String, Duration) {
        let start = Instant::now();
        (self.push(module, token), start.elapsed())
    }

    /// Has pushes to so many devices accepted that the provider is believed at once.
    #[cfg(feature = "enable_apns_support")]
    #[track_caller]
    pub(crate) fn earn_trust(&mut self, module: &str, token: fn(usize) -> String) {
        let tokens: Vec<_> = (900..900 + TRUSTED).map(token).collect();
        assert_eq!(self.push_all(module, &tokens), [RESULT; TRUSTED]);
    }

    /// Publishes once for each token, and then waits for all answers.
    #[track_caller]
    pub(crate) fn push_all(&mut self, module: &str, tokens: &[String]) -> Vec<String> {
        let ids: Vec<_> = tokens.iter().map(|token| self.publish(module, token)).collect();
        ids.iter().map(|id| self.verdict(id)).collect()
    }

    /// Checks that no token and no secret is in the log, which is at trace level.
    pub(crate) fn assert_discreet(&self, secrets: &[String]) {
        let log = self.daemon.log();
        for secret in secrets {
            assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
        }
    }
}

/// What the answer for each token is, one after the other; then the fake's usual one.
#[derive(Clone, Default)]
pub(crate) struct Scripts(Arc<Mutex<HashMap<String, VecDeque<Answer>>>>);

impl Scripts {
    pub(crate) fn set(&self, token: &str, answers: impl IntoIterator<Item = Answer>) {
        let answers = answers.into_iter().collect();
        self.0.lock().unwrap().insert(token.to_owned(), answers);
    }

    pub(crate) fn next(&self, token: &str) -> Answer {
        let mut scripts = self.0.lock().unwrap();
        let next = scripts.get_mut(token).and_then(VecDeque::pop_front);
        next.unwrap_or(Answer::Normal)
    }
}

/// The modules of a settings file.
pub(crate) fn modules<N: Into<String>>(modules: impl IntoIterator<Item = (N, Value)>) -> Value {
    let modules: Map<_, _> = modules
        .into_iter()
        .map(|(name, module)| (name.into(), module))
        .collect();
    modules.into()
}

/// Publishes for one token after the other are each sent.
pub(crate) fn unlimited() -> Value {
    json!({ "ratelimit": { "enabled": false } })
}
