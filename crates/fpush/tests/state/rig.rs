//! A daemon that can end in every way and start again on the same files, and what it writes there.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

pub(crate) use fpush_testkit::LONG;
use fpush_testkit::{
    Daemon, FakeApns, FakeXmpp, Link, TestCa, daemon::Builder, fixture, publish::ejabberd_publish,
};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_fpush");
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) const RESULT: &str = "result";
pub(crate) const DEAD: &str = "cancel/item-not-found";
pub(crate) const REFUSED: &str = "wait/service-unavailable";

pub(crate) const HELD: &str = "spool.db";
pub(crate) const OLD_HELD: &str = "held.jsonl";
pub(crate) const BLOCKS: &str = "blocklist.jsonl";

/// A daemon whose link is up. Its only push module is Apple's `m`.
pub(crate) struct Rig {
    pub(crate) link: Link,
    pub(crate) daemon: Daemon,
    pub(crate) apns: FakeApns,
    xmpp: FakeXmpp,
    published: usize,
}

impl Rig {
    /// Starts a daemon whose state is in the folder `state`, and which sends a second push to a token after this time.
    pub(crate) fn start(spacing: &str) -> Self {
        Self::with(spacing, |_| {}, |builder| builder)
    }

    /// The same with changed settings, and started as `prepare` says.
    pub(crate) fn with(
        spacing: &str,
        change: impl FnOnce(&mut Value),
        prepare: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let ca = TestCa::new();
        let apns = FakeApns::start(&ca);
        let xmpp = FakeXmpp::start("push.localhost", "secret");
        let builder = Daemon::builder(PROGRAM)
            .rust_log("debug")
            .file("ca.pem", ca.pem());
        let mut settings = json!({
            "component": {
                "componentHostname": "push.localhost", "componentKey": "secret",
                "serverHostname": "127.0.0.1", "serverPort": xmpp.port(),
            },
            "pushModules": { "m": {
                "type": "apple",
                "ratelimit": { "ratelimitTime": spacing },
                "apns": {
                    "certFilePath": fixture("aps.pem"), "certKeyFilePath": fixture("aps.key.pem"),
                    "topic": "org.example.app", "endpoint": apns.url(), "caFilePath": "ca.pem",
                },
            } },
            "stateDirectory": builder.dir().join("state"),
            "timeout": { "xmppconnectionError": "100ms" },
        });
        change(&mut settings);
        let daemon = prepare(builder.settings(&settings)).start();
        let link = accept(&xmpp, &daemon);
        Self {
            link,
            daemon,
            apns,
            xmpp,
            published: 0,
        }
    }

    /// Changes the settings, for the next start.
    pub(crate) fn change_settings(&self, change: impl FnOnce(&mut Value)) {
        let file = self.daemon.dir().join("settings.json");
        let mut settings: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        change(&mut settings);
        fs::write(&file, settings.to_string()).unwrap();
    }

    /// Ends the daemon as systemd does. Returns its last line.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> String {
        self.daemon.terminate();
        // Before that it would log in again, and wait at the fake server for the next one.
        self.daemon.wait_for_log("SIGTERM: finishing", LONG);
        self.link.close();
        assert!(self.daemon.wait(LONG).success(), "{}", self.daemon.log());
        self.daemon.log().lines().last().unwrap().to_owned()
    }

    /// Starts a daemon that has ended once more.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.daemon.start_again();
        self.link = accept(&self.xmpp, &self.daemon);
    }

    /// Publishes, and returns how that was answered.
    #[track_caller]
    pub(crate) fn push(&mut self, token: &str) -> String {
        self.published += 1;
        let id = format!("id-{}", self.published);
        self.link.send(ejabberd_publish(&id, token, Some("m"), true));
        self.link.reply_to(&id, LONG).verdict()
    }

    /// Has pushes to so many devices accepted that Apple's word about others is believed at once.
    #[track_caller]
    pub(crate) fn earn_trust(&mut self) {
        for number in 900..900 + TRUSTED {
            assert_eq!(self.push(&token(number)), RESULT);
        }
    }

    /// Publishes twice, so that a push to the token is held. Returns when the first one reached the provider.
    #[track_caller]
    pub(crate) fn hold(&mut self, token: &str) -> Instant {
        assert_eq!(self.push(token), RESULT);
        assert_eq!(self.push(token), RESULT);
        let requests = self.apns.requests();
        let first = requests.iter().rfind(|request| request.token == token).unwrap();
        first.at
    }

    /// How many pushes have reached the provider for this token.
    pub(crate) fn sent(&self, token: &str) -> usize {
        self.apns
            .requests()
            .iter()
            .filter(|request| request.token == token)
            .count()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.daemon.dir().join("state").join(name)
    }

    /// What a file says; nothing if it is not there.
    pub(crate) fn read(&self, name: &str) -> String {
        if name == HELD {
            let tokens: Vec<_> = self.held().into_iter().map(|(_, token)| token).collect();
            return tokens.join("\n");
        }
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// What is held, by number.
    pub(crate) fn held(&self) -> Vec<(i64, String)> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
            let connection = Connection::open_with_flags(self.file(HELD), flags)?;
            let mut statement =
                connection.prepare("SELECT number, token FROM held ORDER BY module, number")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        read().unwrap_or_default()
    }

    /// Writes a file of the versions that had what is held in lines.
    pub(crate) fn write_old(&self, lines: &[Vec<u8>]) -> Vec<u8> {
        let head = b"{\"fpush\":1}".to_vec();
        let text = [&[head], lines].concat().join(&b'\n');
        fs::write(self.file(OLD_HELD), &text).unwrap();
        fs::set_permissions(self.file(OLD_HELD), fs::Permissions::from_mode(0o600)).unwrap();
        text
    }

    /// Changes what is held, while no daemon runs.
    pub(crate) fn change_held(&self, statement: &str) {
        let connection = Connection::open(self.file(HELD)).unwrap();
        connection.execute_batch(statement).unwrap();
    }

    /// Waits until this token is in the file of what is held, which may be something else before: a FIFO is not to be read.
    #[track_caller]
    pub(crate) fn wait_for_kept(&self, token: &str) {
        let end = Instant::now() + LONG;
        while !self.file(HELD).is_file() {
            assert!(Instant::now() < end, "{}", self.daemon.log());
            thread::sleep(Duration::from_millis(20));
        }
        self.wait_for(HELD, |text| text.contains(token));
    }

    /// Waits until a file says what is wanted.
    #[track_caller]
    pub(crate) fn wait_for(&self, name: &str, wanted: impl Fn(&str) -> bool) {
        let end = Instant::now() + LONG;
        while !wanted(&self.read(name)) {
            assert!(
                Instant::now() < end,
                "{name} is still {:?}\n{}",
                self.read(name),
                self.daemon.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn accept(xmpp: &FakeXmpp, daemon: &Daemon) -> Link {
    match xmpp.try_accept(LONG) {
        Ok(link) => link,
        Err(e) => panic!("no link: {e}; the log:\n{}", daemon.log()),
    }
}

/// So many accepted pushes make a module trust its provider's word that a device is gone.
pub(crate) const TRUSTED: usize = 10;

/// A token of Apple's.
pub(crate) fn token(number: usize) -> String {
    format!("{number:08x}{}", "89abcdef".repeat(7))
}

/// A line of the versions that had what is held in lines: it is due.
pub(crate) fn old_line(kind: &str, token: &str) -> String {
    json!(["m", kind, {
        "token": token, "class": "High", "choice": "Named", "domain": "a.example", "spacing": 600_000,
        "registered": false, "due": 1, "attempts": 0,
    }])
    .to_string()
}
