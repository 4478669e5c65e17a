//! Settings with a runtime directory, all that they lead to, and the commands that use them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

pub(crate) use fpush_testkit::LONG;
use fpush_testkit::{
    ApnsKey, Daemon, FakeApns, FakeFcm, FakeXmpp, Link, TempDir, TestCa, publish::ejabberd_publish,
    run_to_end,
};
use serde_json::{Value, json};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_fpush");
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) const RESULT: &str = "result";
pub(crate) const DEAD: &str = "cancel/item-not-found";
pub(crate) const REFUSED: &str = "wait/service-unavailable";

/// What the commands begin with.
pub(crate) const ASKED: &str = "asked the running fpush (at ";
pub(crate) const ALONE: &str = "no fpush runs (none answers at ";

/// Exit statuses: of sysexits.h but the first one.
pub(crate) const NO: i32 = 1;
pub(crate) const OS_ERROR: i32 = 71;
pub(crate) const CONFIG: i32 = 78;

/// A folder with settings, and the servers that they name. Its push modules are `ios`, which is Apple's, and
/// `android`, which is Google's.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) xmpp: FakeXmpp,
    pub(crate) apns: FakeApns,
    pub(crate) fcm: FakeFcm,
}

/// A daemon with the settings of a place, whose link is up.
pub(crate) struct Running {
    pub(crate) daemon: Daemon,
    pub(crate) link: Link,
    published: usize,
}

/// How a command ended.
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    /// What it wrote to standard output.
    pub(crate) out: String,
    /// What it wrote to standard error.
    pub(crate) err: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        let ca = TestCa::new();
        let place = Self {
            dir: TempDir::new(),
            xmpp: FakeXmpp::start("push.localhost", "secret"),
            apns: FakeApns::start(&ca),
            fcm: FakeFcm::builder(&ca).check_tokens(true).start(),
        };
        for (name, content) in [
            ("ca.pem", ca.pem()),
            ("key.p8", ApnsKey::generate().p8()),
            ("fcm.json", place.fcm.service_account("project-1")),
        ] {
            place.write(name, &content);
        }
        place.set(|_| {});
        place
    }

    /// Writes a file that only its owner reads.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.write(name, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Writes the settings, after a change.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Value)) -> PathBuf {
        let file = |name: &str| self.dir.path().join(name);
        let limit = json!({ "ratelimitTime": "10min" });
        let mut settings = json!({
            "component": {
                "componentHostname": "push.localhost", "componentKey": "secret",
                "serverHostname": "127.0.0.1", "serverPort": self.xmpp.port(),
            },
            "pushModules": {
                "ios": { "type": "apple", "ratelimit": limit, "apns": {
                    "tokenKeyFilePath": file("key.p8"), "keyId": "KEY1234567", "teamId": "TEAM123456",
                    "topic": "org.example.app", "pushPriority": "auto",
                    "endpoint": self.apns.url(), "caFilePath": file("ca.pem"),
                } },
                "android": { "type": "google", "ratelimit": limit, "fcm": {
                    "fcmSecretPath": file("fcm.json"), "endpoint": self.fcm.url(), "caFilePath": file("ca.pem"),
                } },
            },
            "runtimeDirectory": file("run"),
            "timeout": { "xmppconnectionError": "100ms" },
        });
        change(&mut settings);
        self.write("settings.json", &settings.to_string())
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.dir.path().join("settings.json")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/control.sock")
    }

    /// Starts a daemon, and waits until it has logged in.
    pub(crate) fn start(&self) -> Running {
        let daemon = Daemon::builder(PROGRAM)
            .args([self.settings()])
            .rust_log("trace")
            .start();
        let link = self.accept(&daemon);
        Running::of(daemon, link)
    }

    pub(crate) fn accept(&self, daemon: &Daemon) -> Link {
        let mut last = None;
        // Somebody else's test may look for a closed port, and find this one.
        for _ in 0..3 {
            match self.xmpp.try_accept(LONG) {
                Ok(link) => return link,
                Err(e) => last = Some(e),
            }
        }
        panic!("no link: {last:?}; the log:\n{}", daemon.log());
    }

    /// Whether somebody has connected to the XMPP server and was not accepted yet.
    pub(crate) fn somebody_knocks(&self) -> bool {
        self.xmpp.try_accept(Duration::ZERO).is_ok()
    }

    /// Runs the program with these arguments and, after them, the settings.
    #[track_caller]
    pub(crate) fn fpush(&self, args: &[&str]) -> Said {
        let settings = self.settings();
        let args = args.iter().copied().chain([settings.to_str().unwrap()]);
        Said::of(run_to_end(PROGRAM, args, self.dir.path()))
    }

    /// Runs the program so with these variables in its environment.
    #[track_caller]
    pub(crate) fn run_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Said {
        let mut command = Command::new(PROGRAM);
        command
            .args(args)
            .arg(self.settings())
            .current_dir(self.dir.path());
        Said::of(command.envs(variables.iter().copied()).output().unwrap())
    }

    #[track_caller]
    pub(crate) fn send(&self, module: &str, token: &str) -> Said {
        self.fpush(&["send", "--module", module, "--token", token])
    }

    #[track_caller]
    pub(crate) fn check(&self) -> Said {
        self.fpush(&["check", "--connect"])
    }
}

impl Running {
    pub(crate) fn of(daemon: Daemon, link: Link) -> Self {
        Self {
            daemon,
            link,
            published: 0,
        }
    }

    /// Publishes, and returns how that was answered.
    #[track_caller]
    pub(crate) fn push(&mut self, module: &str, token: &str) -> String {
        self.published += 1;
        let id = format!("id-{}", self.published);
        self.link.send(ejabberd_publish(&id, token, Some(module), true));
        self.link.reply_to(&id, LONG).verdict()
    }

    /// Ends the daemon as an operator does. Returns its whole log.
    pub(crate) fn stop(mut self) -> String {
        self.daemon.terminate();
        self.link.close();
        assert!(self.daemon.wait(LONG).success(), "{}", self.daemon.log());
        self.daemon.log()
    }
}

impl Said {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Checks the exit status, and that standard output holds all these parts, in this order.
    #[track_caller]
    pub(crate) fn expect(&self, status: i32, parts: &[&str]) {
        let Self {
            status: found,
            out,
            err,
        } = self;
        assert_eq!(*found, Some(status), "{out}\n{err}");
        let mut rest = out.as_str();
        for part in parts {
            let Some((_, after)) = rest.split_once(part) else {
                panic!("no {part:?} where it should be in\n{out}\n{err}");
            };
            rest = after;
        }
    }
}

/// A token of Apple's.
pub(crate) fn apple(number: usize) -> String {
    format!("{number:08x}{}", "89abcdef".repeat(7))
}

/// A token of Google's.
pub(crate) fn google(number: usize) -> String {
    format!("dCXr7fTpTm2yXGVYTXJb6r:APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx_{number:06}")
}
