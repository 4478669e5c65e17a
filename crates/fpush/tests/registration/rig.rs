//! A daemon with registration, all that it talks to, and what the tests have in common.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Output,
    time::{Duration, Instant},
};

use fpush_testkit::{
    Command, Daemon, FakeApns, FakeFcm, FakeXmpp, Form, Link, Reply, TestCa, fixture, http_address,
    publish::{Publish, field, options},
    run_to_end,
};
pub(crate) use fpush_testkit::{Http, LONG, http, merged, try_http, until};
use serde_json::{Value, json};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_fpush");

pub(crate) const ALICE: &str = "alice@a.example/phone";
pub(crate) const MALLORY: &str = "mallory@a.example/phone";

pub(crate) const RESULT: &str = "result";
pub(crate) const MISSING: &str = "cancel/item-not-found";
pub(crate) const TROUBLE: &str = "wait/internal-server-error";
pub(crate) const UNAVAILABLE: &str = "wait/remote-server-timeout";
pub(crate) const REFUSED: &str = "wait/service-unavailable";
pub(crate) const TOO_MANY: &str = "wait/resource-constraint";

const OUT_OF_REACH: &str = "the database of registered devices is out of reach";
/// So long the daemon waits until a registration is on disk.
const DISK: Duration = Duration::from_secs(5);

/// A daemon whose link is up. Its push modules are `ios` and `siskin`, which are Apple's under topics of their names,
/// `android`, which is Google's, and Apple's `plain`, the default one.
pub(crate) struct Rig {
    pub(crate) link: Link,
    pub(crate) daemon: Daemon,
    pub(crate) apns: FakeApns,
    pub(crate) fcm: FakeFcm,
    xmpp: FakeXmpp,
    sent: usize,
}

impl Rig {
    /// Starts a daemon with a SQLite database. It limits the pushes of a device only if `more` below speaks of
    /// `rateLimit`.
    pub(crate) fn start() -> Self {
        Self::with(json!({}))
    }

    /// The same with what `more` says over the usual block `registration`; `null` takes a key away.
    pub(crate) fn with(more: Value) -> Self {
        Self::of(more, json!({}))
    }

    /// The same, and with what `modules` says over the usual push modules.
    pub(crate) fn of(more: Value, modules: Value) -> Self {
        Self::run(more, modules, |builder| builder)
    }

    /// The same, and started as `start` says.
    pub(crate) fn run(
        more: Value,
        modules: Value,
        start: impl FnOnce(fpush_testkit::daemon::Builder) -> fpush_testkit::daemon::Builder,
    ) -> Self {
        let ca = TestCa::new();
        let (apns, fcm) = (FakeApns::start(&ca), FakeFcm::start(&ca));
        let xmpp = FakeXmpp::start("push.localhost", "secret");
        let limit = json!({ "enabled": more.get("rateLimit").is_some() });
        let apple = |name: &str| {
            json!({ "type": "apple", "ratelimit": limit, "apns": {
                "certFilePath": fixture("aps.pem"), "certKeyFilePath": fixture("aps.key.pem"),
                "topic": format!("org.example.{name}"), "endpoint": apns.url(), "caFilePath": "ca.pem",
            } })
        };
        let fcm_settings =
            json!({ "fcmSecretPath": "fcm.json", "endpoint": fcm.url(), "caFilePath": "ca.pem" });
        let usual = json!({
            "ios": apple("ios"),
            "siskin": apple("siskin"),
            "plain": merged(apple("plain"), json!({ "is_default_module": true })),
            "android": { "type": "google", "ratelimit": limit, "fcm": fcm_settings },
        });
        let registration = json!({
            "store": { "type": "sqlite", "path": "devices.db" },
            "types": { "apns": "ios", "fcm": "android" },
            "providers": { "tigase:messenger:apns:1": "siskin", "fcm-xmpp-api": "android" },
            "http": { "listen": "127.0.0.1:0" },
        });
        let settings = json!({
            "component": {
                "componentHostname": "push.localhost", "componentKey": "secret",
                "serverHostname": "127.0.0.1", "serverPort": xmpp.port(),
            },
            "timeout": { "xmppconnectionError": "100ms" },
            "pushModules": fpush_testkit::without_holding(merged(usual, modules)),
            "monitoring": { "listen": "127.0.0.1:0" },
            "registration": merged(registration, more),
        });
        let builder = Daemon::builder(PROGRAM)
            .settings(&settings)
            .rust_log("trace")
            .file("ca.pem", ca.pem())
            .file("fcm.json", fcm.service_account("project-1"));
        let daemon = start(builder).start();
        let link = accept(&xmpp, &daemon);
        Self {
            link,
            daemon,
            apns,
            fcm,
            xmpp,
            sent: 0,
        }
    }

    /// Starts a daemon that has ended once more, on the same files.
    pub(crate) fn start_again(&mut self) {
        self.daemon.start_again();
        self.link = accept(&self.xmpp, &self.daemon);
    }

    /// Ends the daemon as an operator does.
    pub(crate) fn stop(&mut self) {
        self.daemon.terminate();
        // Before that it would log in again, and wait at the fake server for the next one.
        self.daemon.wait_for_log("SIGTERM: finishing", LONG);
        self.link.close();
        assert!(self.daemon.wait(LONG).success(), "{}", self.daemon.log());
    }

    /// From now on it has a state directory. Returns when it is written there what is known of the database.
    pub(crate) fn remember(&mut self) {
        self.stop();
        self.change_all_settings(|settings| settings["stateDirectory"] = json!("state"));
        self.start_again();
        let known = self.path("state/registry.jsonl");
        until(LONG, "what is known of the database is on disk", || {
            known.exists()
        });
    }

    /// Changes the settings, for the next start.
    pub(crate) fn change_all_settings(&self, change: impl FnOnce(&mut Value)) {
        let file = self.path("settings.json");
        let mut settings: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        change(&mut settings);
        fs::write(&file, settings.to_string()).unwrap();
    }

    /// Changes what the settings say of registration, for the next start.
    pub(crate) fn change_settings(&self, more: Value) {
        let file = self.daemon.dir().join("settings.json");
        let settings: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let changed = merged(settings, json!({ "registration": more }));
        fs::write(&file, changed.to_string()).unwrap();
    }

    /// An id that no stanza had yet.
    pub(crate) fn id(&mut self) -> String {
        self.sent += 1;
        format!("id-{}", self.sent)
    }

    /// Sends an iq with this content and returns the reply.
    #[track_caller]
    pub(crate) fn ask(&mut self, kind: &str, content: &str) -> Reply {
        let id = self.id();
        self.link.send(format!(
            "<iq type='{kind}' from='{ALICE}' to='push.localhost' id='{id}'>{content}</iq>"
        ));
        self.link.reply_to(&id, LONG)
    }

    /// Sends a command that was made with this id, and returns the reply.
    #[track_caller]
    pub(crate) fn send(&mut self, command: impl FnOnce(&str) -> Command) -> Reply {
        let id = self.id();
        self.link.send(command(&id));
        self.link.reply_to(&id, LONG)
    }

    /// Executes a command and returns the reply.
    #[track_caller]
    pub(crate) fn execute(&mut self, from: &str, node: &str, fields: &[(&str, &str)]) -> Reply {
        self.send(|id| Command::new(id, node, fields).from(from).action("execute"))
    }

    /// The same for a command that must succeed. A machine that stands still for longer than the daemon waits for its disk is
    /// no reason to fail: then the command is sent again, as apps do. An error that comes at once is one.
    #[track_caller]
    pub(crate) fn form(&mut self, from: &str, node: &str, fields: &[(&str, &str)]) -> Form {
        let mut attempts = 0;
        loop {
            let began = Instant::now();
            let reply = self.execute(from, node, fields);
            attempts += 1;
            let stood_still = reply.raw.contains(OUT_OF_REACH) && began.elapsed() >= DISK;
            if !stood_still || attempts == 3 {
                assert!(reply.is_result(), "{node}: {}", reply.raw);
                return Form::of(&reply);
            }
        }
    }

    /// Registers in the first dialect, which must succeed. Returns the secret.
    #[track_caller]
    pub(crate) fn register(&mut self, from: &str, node: &str, token: &str) -> String {
        let kind = if is_apple(token) { "apns" } else { "fcm" };
        let fields = [("type", kind), ("node", node), ("token", token)];
        self.form(from, "v1-register-push", &fields)
            .value("secret")
            .to_owned()
    }

    /// Imports a device of an account with a node that it may not choose, as old versions allowed it. Returns the secret.
    #[track_caller]
    pub(crate) fn import(&mut self, owner: &str, node: &str, token: &str) -> String {
        let kind = if is_apple(token) { "apns" } else { "fcm" };
        let (owner, _) = owner.split_once('/').unwrap();
        let device = json!({
            "dialect": "mod_push_appserver", "type": kind, "node": node, "secret": "imported", "token": token,
            "owner": owner, "registered": "2026-01-01T00:00:00Z",
        });
        fs::write(self.path("import.jsonl"), device.to_string()).unwrap();
        let imported = self.operate(&["import", "json", "import.jsonl", "settings.json"]);
        assert!(imported.status.success(), "{imported:?}");
        "imported".to_owned()
    }

    /// Publishes an important push, and returns the reply.
    #[track_caller]
    pub(crate) fn publish(&mut self, node: &str, secret: Option<&str>, module: Option<&str>) -> Reply {
        let id = self.id();
        self.link.send(important(&id, node, secret, module));
        self.link.reply_to(&id, LONG)
    }

    /// Publishes with a node and a secret, and returns how that was answered.
    #[track_caller]
    pub(crate) fn push(&mut self, node: &str, secret: &str) -> String {
        self.publish(node, Some(secret), None).verdict()
    }

    /// Has pushes to so many devices accepted that the provider's word about others is believed at once.
    #[track_caller]
    pub(crate) fn earn_trust(&mut self, module: &str, token: fn(usize) -> String) {
        for number in 900..940 {
            let reply = self.publish(&token(number), None, Some(module));
            assert_eq!(reply.verdict(), RESULT);
        }
    }

    /// Publishes with a node alone, and returns how that was answered.
    #[track_caller]
    pub(crate) fn push_plain(&mut self, node: &str) -> String {
        self.publish(node, None, None).verdict()
    }

    /// Publishes, and expects that exactly this token gets one more push, under this topic of Apple's.
    #[track_caller]
    pub(crate) fn expect_apple(&mut self, node: &str, secret: Option<&str>, topic: &str, token: &str) {
        let seen = self.apns.count();
        assert_eq!(self.publish(node, secret, None).verdict(), RESULT);
        let requests = self.apns.wait_for(seen + 1, LONG);
        assert_eq!(requests.len(), seen + 1);
        let request = &requests[seen];
        assert_eq!(
            (request.header("apns-topic"), request.token.as_str()),
            (Some(topic), token)
        );
    }

    /// The same with Google. Returns the data of the message.
    #[track_caller]
    pub(crate) fn expect_google(&mut self, node: &str, secret: Option<&str>, token: &str) -> Value {
        let seen = self.fcm.count();
        assert_eq!(self.publish(node, secret, None).verdict(), RESULT);
        let sends = self.fcm.wait_for(seen + 1, LONG);
        assert_eq!(sends.len(), seen + 1);
        assert_eq!(sends[seen].token(), token);
        sends[seen].message["data"].clone()
    }

    /// A request to the HTTP API, which is written as it is.
    #[track_caller]
    pub(crate) fn http(&self, request: &str, body: &str) -> Http {
        http(self.http_address(), request, body)
    }

    /// Where the HTTP API is.
    #[track_caller]
    pub(crate) fn http_address(&self) -> SocketAddr {
        http_address(&self.daemon, LONG)
    }

    /// Sends a form to an endpoint of the HTTP API, and returns the lines of the answer.
    #[track_caller]
    pub(crate) fn post(&self, endpoint: &str, form: &str) -> Vec<String> {
        let answer = self.http(&format!("POST /push_appserver/v1/{endpoint}"), form);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body.split('\n').map(str::to_owned).collect()
    }

    /// Runs the program with these arguments in the folder of the daemon.
    #[track_caller]
    pub(crate) fn operate(&self, arguments: &[&str]) -> Output {
        run_to_end(PROGRAM, arguments, self.daemon.dir())
    }

    /// All devices, as the operator exports them.
    #[track_caller]
    pub(crate) fn export(&self) -> Vec<Value> {
        let exported = self.operate(&["export", "settings.json"]);
        assert!(exported.status.success(), "{exported:?}");
        lines(&exported.stdout)
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// A path in the daemon's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.daemon.dir().join(name)
    }

    /// Checks that nothing of this is in the log, which is at trace level.
    #[track_caller]
    pub(crate) fn assert_discreet(&self, private: &[&str]) {
        // It is a log at trace level, and is read a little later than the reply.
        self.daemon.wait_for_log("reply", LONG);
        let log = self.daemon.log();
        for private in private {
            assert!(
                !private.is_empty() && !log.contains(private),
                "{private} is in the log:\n{log}"
            );
        }
    }
}

#[track_caller]
fn accept(xmpp: &FakeXmpp, daemon: &Daemon) -> Link {
    xmpp.try_accept(LONG)
        .unwrap_or_else(|e| panic!("no link: {e:?}; the log:\n{}", daemon.log()))
}

/// A publish with a body, and with these options.
pub(crate) fn important(id: &str, node: &str, secret: Option<&str>, module: Option<&str>) -> Publish {
    let body = field("last-message-body", "New message");
    notification(
        id,
        node,
        secret,
        module,
        &format!("<x xmlns='jabber:x:data'>{body}</x>"),
    )
}

/// A publish of a notification with this content, and with these options.
pub(crate) fn notification(
    id: &str,
    node: &str,
    secret: Option<&str>,
    module: Option<&str>,
    content: &str,
) -> Publish {
    let item = format!("<item><notification xmlns='urn:xmpp:push:0'>{content}</notification></item>");
    let fields: String = [("pushModule", module), ("secret", secret)]
        .into_iter()
        .filter_map(|(name, value)| Some(field(name, value?)))
        .collect();
    let form_type = field("FORM_TYPE", "http://jabber.org/protocol/pubsub#publish-options");
    let options = match fields.as_str() {
        "" => String::new(),
        fields => options("submit", &format!("{form_type}{fields}")),
    };
    Publish::new(id, node, &item, &options)
}

/// A token of Apple's.
pub(crate) fn apple(number: usize) -> String {
    format!("{number:08x}{}", &"fedcba9876543210".repeat(4)[8..])
}

/// A token of Google's.
pub(crate) fn google(number: usize) -> String {
    format!("dCXr7fTpTm2yXGVYTXJb6r:APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx_{number:06}")
}

fn is_apple(token: &str) -> bool {
    token.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether this is 256 bits in hex.
pub(crate) fn is_random(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) fn lines(output: &[u8]) -> Vec<String> {
    String::from_utf8(output.to_vec())
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}
