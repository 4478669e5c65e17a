//! The life of the package under systemd: installed, started, reloaded, hung, wrongly set up, stopped in an outage of the
//! provider, upgraded, purged.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fpush_testkit::publish::prosody_publish;
use fpush_testkit::{Answer, ApnsKey, FakeApns, FakeXmpp, Link, TestCa};
use serde_json::{Value, json};

use super::boot::shell;
use crate::interrupt;
use crate::place::{said, try_line};
use crate::tally::Tally;

/// Tries a package in a machine that runs. This process is in its network.
pub(crate) fn check(leader: &str, root: &Path, package: &Path) -> Result<()> {
    let ca = TestCa::new();
    let mut checks = Checks {
        leader: leader.parse().context("no process")?,
        root: root.to_owned(),
        apns: FakeApns::start(&ca),
        xmpp: None,
        ca,
        tally: Tally::default(),
    };
    fs::copy(package, root.join("root/fpush.deb")).context("cannot copy the package")?;
    for (title, part) in PARTS {
        println!("\n{title}");
        let start = Instant::now();
        part(&mut checks)
            .with_context(|| format!("part `{title}`; the log:\n{}", checks.log().unwrap_or_default()))?;
        println!("  {:.1} s", start.elapsed().as_secs_f64());
    }
    let log = checks.log().unwrap_or_default();
    checks.tally.conclude("the package under systemd", || log)
}

pub(super) struct Checks {
    leader: u32,
    root: PathBuf,
    ca: TestCa,
    apns: FakeApns,
    xmpp: Option<(FakeXmpp, Link)>,
    pub(super) tally: Tally,
}

type Part = fn(&mut Checks) -> Result<()>;

const PARTS: [(&str, Part); 11] = [
    ("install", Checks::install),
    ("start", Checks::start),
    ("reload", Checks::reload),
    ("a program that hangs", Checks::hang),
    ("wrong settings", Checks::wrong_settings),
    ("stop with held pushes", Checks::stop_with_held_pushes),
    ("what kills it", Checks::restarts),
    ("exposure", Checks::exposure),
    ("upgrade from an older layout, under load", Checks::upgrade),
    ("purge", Checks::purge),
    ("the Ansible role", Checks::role),
];

impl Checks {
    fn install(&mut self) -> Result<()> {
        self.sh("dpkg -i /root/fpush.deb")?;
        let state = self.state("ActiveState")?;
        self.tally
            .same("it is not started without settings", &state, "inactive");
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        self.write("etc/fpush/ca.pem", &self.ca.pem(), 0o644)?;
        self.write("etc/fpush/key.p8", &ApnsKey::generate().p8(), 0o644)?;
        let secret = fs::read_to_string(self.path("etc/fpush/component-key"))?;
        let xmpp = FakeXmpp::start(HOSTNAME, &secret);
        self.settings(xmpp.port(), "phones")?;
        // The same watchdog and restarts in less time.
        fs::create_dir_all(self.path("etc/systemd/system/fpush.service.d"))?;
        self.write("etc/systemd/system/fpush.service.d/soon.conf", SOON, 0o644)?;
        self.sh("systemctl daemon-reload && systemctl enable --now fpush")?;
        self.same_state("systemd takes it for ready", "ActiveState", "active")?;
        // The secret is in a file of root's, which systemd hands on.
        let link = xmpp.accept(PATIENCE);
        self.xmpp = Some((xmpp, link));
        let verdict = self.publish("first", "phones");
        self.tally.same("a publish", &verdict, "result");
        self.tally
            .same("pushes at the provider", &self.apns.count().to_string(), "1");
        let line = self.until("StatusText", "link up")?;
        self.tally
            .that(&format!("the status line: {line}"), line.contains("link up"));
        for (file, mode) in [
            ("/var/lib/fpush", "700 fpush fpush"),
            ("/run/fpush", "750 fpush fpush"),
            ("/run/fpush/control.sock", "600 fpush fpush"),
            ("/run/credentials/fpush.service/component-key", "400 fpush fpush"),
        ] {
            let is = self.sh(&format!("stat -c '%a %U %G' {file}")).unwrap_or_default();
            // Where systemd can, it leaves the owner to an access list.
            let holds = is.trim() == mode || (file.starts_with("/run/credentials") && is.starts_with("4"));
            self.tally.that(&format!("{file}: {}", is.trim()), holds);
        }
        let kind = self.sh("stat -c %F /run/fpush/control.sock")?;
        self.tally.same("the control socket", kind.trim(), "socket");
        Ok(())
    }

    fn reload(&mut self) -> Result<()> {
        let process = self.state("MainPID")?;
        let port = self.xmpp().0.port();
        self.settings(port, "tablets")?;
        self.sh("systemctl reload fpush")?;
        self.same_state("the process is the same", "MainPID", &process)?;
        let verdict = self.publish("second", "tablets");
        self.tally
            .same("a publish for the new module", &verdict, "result");

        self.write("etc/fpush/settings.json", "{}", 0o644)?;
        let reload = self.sh("systemctl reload fpush");
        self.tally
            .that("a reload of wrong settings fails", reload.is_err());
        self.same_state("fpush runs on", "ActiveState", "active")?;
        self.same_state("as the same process", "MainPID", &process)?;
        let log = self.log()?;
        self.tally.that(
            "the log says what is wrong",
            log.contains("component: this key is missing"),
        );
        let verdict = self.publish("third", "tablets");
        self.tally
            .same("a publish by the old settings", &verdict, "result");
        self.settings(port, "tablets")
    }

    fn hang(&mut self) -> Result<()> {
        let process = self.state("MainPID")?;
        self.sh("systemctl kill --signal=STOP --kill-whom=main fpush || systemctl kill --signal=STOP --kill-who=main fpush")?;
        let (xmpp, _) = self.xmpp.take().context("fpush has not been started")?;
        let link = xmpp.accept(PATIENCE);
        self.xmpp = Some((xmpp, link));
        self.same_state("systemd started it again", "ActiveState", "active")?;
        let now = self.state("MainPID")?;
        self.tally.that("as another process", now != process);
        let log = self.log()?;
        self.tally
            .that("because of the watchdog", log.contains("watchdog"));
        self.same_state("that was one restart", "NRestarts", "1")
    }

    fn wrong_settings(&mut self) -> Result<()> {
        self.write("etc/fpush/settings.json", "{}", 0o644)?;
        let restart = self.sh("systemctl restart fpush");
        self.tally
            .that("a start with wrong settings fails", restart.is_err());
        // As long as three restarts would take.
        thread::sleep(Duration::from_secs(4));
        self.same_state("its exit status", "ExecMainStatus", "78")?;
        self.same_state("it is not tried again", "NRestarts", "0")?;
        self.same_state("it has failed", "ActiveState", "failed")?;
        let (xmpp, _) = self.xmpp.take().context("fpush has not been started")?;
        self.settings(xmpp.port(), "tablets")?;
        self.sh("systemctl start fpush")?;
        let link = xmpp.accept(PATIENCE);
        self.xmpp = Some((xmpp, link));
        let verdict = self.publish("fourth", "tablets");
        self.tally
            .same("a publish once they are right", &verdict, "result");
        Ok(())
    }

    fn stop_with_held_pushes(&mut self) -> Result<()> {
        self.apns
            .answer_with(|_| Answer::reason(503, "ServiceUnavailable"));
        // While nobody knows yet that the provider is down, publishes are tried first.
        let publishes: Vec<_> = (0..HELD).map(|number| format!("held-{number}")).collect();
        let accepted = publishes
            .iter()
            .filter(|id| self.publish(id, "tablets") == "result")
            .count();
        let start = Instant::now();
        self.sh("systemctl stop fpush")?;
        self.tally
            .that("it stops in time", start.elapsed() < Duration::from_secs(15));
        self.same_state("systemd calls it a success", "Result", "success")?;
        self.same_state("it is stopped", "ActiveState", "inactive")?;
        self.tally.that(
            &format!("{accepted} of {HELD} publishes were accepted"),
            accepted == HELD,
        );

        self.apns.answer_normally();
        let before = self.apns.count();
        self.sh("systemctl start fpush")?;
        self.log_in()?;
        let end = Instant::now() + PATIENCE;
        while self.woken(before) < HELD && Instant::now() < end {
            interrupt::check()?;
            thread::sleep(Duration::from_millis(100));
        }
        let woken = self.woken(before);
        self.tally.same(
            "devices that got their push after the start",
            &woken.to_string(),
            &HELD.to_string(),
        );
        Ok(())
    }

    /// A process that is killed again and again is started again and again: there is no limit that ends the service.
    fn restarts(&mut self) -> Result<()> {
        for _ in 0..KILLS {
            let process = self.state("MainPID")?;
            self.sh("systemctl kill --signal=KILL --kill-whom=main fpush || systemctl kill --signal=KILL --kill-who=main fpush")?;
            self.log_in()?;
            let now = self.state("MainPID")?;
            self.tally
                .that(&format!("process {process} is followed by {now}"), now != process);
        }
        self.same_state("systemd counted them", "NRestarts", &KILLS.to_string())?;
        let verdict = self.publish("sixth", "tablets");
        self.tally.same("a publish", &verdict, "result");
        Ok(())
    }

    /// What systemd says of the service as it runs. Before systemd 250 it knows no threshold.
    fn exposure(&mut self) -> Result<()> {
        let said = self.sh("systemd-analyze --no-pager security fpush | tail -n 1")?;
        let exposure = said.split_whitespace().find_map(|word| word.parse::<f64>().ok());
        self.tally.that(
            said.trim().trim_start_matches(|c: char| !c.is_ascii()),
            exposure.is_some_and(|exposure| exposure <= MOST_EXPOSED),
        );
        Ok(())
    }

    /// From a package as version 0.1.0 was laid out, while publishes come.
    fn upgrade(&mut self) -> Result<()> {
        self.sh(OLDER)?;
        self.sh("cd /root && dpkg -i older.deb")?;
        self.log_in()?;
        let version = "dpkg-query --show --showformat='${Version}' fpush";
        let older = self.sh(version)?;
        self.tally.same("the older version runs", older.trim(), "0.0.9-1");
        let verdict = self.publish("fifth", "tablets");
        self.tally.same("a publish", &verdict, "result");
        let process = self.state("MainPID")?;

        let before = self.apns.count();
        let leader = self.leader;
        let line = "dpkg -i /root/fpush.deb";
        let installing = thread::spawn(move || said(&try_line(shell(leader, line), line)?, line));
        // Each gets an answer of the one or of the other, until the older one says goodbye.
        let (mut accepted, mut refused) = (0, 0);
        while !installing.is_finished() {
            let id = format!("held-load-{}", accepted + refused);
            let (xmpp, mut link) = self.xmpp.take().context("fpush has not been started")?;
            link.send(prosody_publish(&id, &token(&id), Some("tablets"), true));
            match link.try_reply_to(&id, PATIENCE) {
                Some(reply) if reply.verdict() == "result" => accepted += 1,
                Some(reply) => {
                    refused += 1;
                    self.tally.that(
                        &format!("a publish: {}", reply.verdict()),
                        reply.verdict().starts_with("wait"),
                    );
                }
                None => link = xmpp.accept(PATIENCE),
            }
            self.xmpp = Some((xmpp, link));
        }
        drop(installing.join().expect("it panics at nothing")?);
        let newer = self.sh(version)?;
        self.tally
            .that(&format!("{} is installed", newer.trim()), newer != older);
        let now = self.state("MainPID")?;
        self.tally
            .that("the new version took over", now != process && now != "0");
        let verdict = self.publish("seventh", "tablets");
        self.tally.same("a publish after it", &verdict, "result");
        let end = Instant::now() + PATIENCE;
        while self.woken(before) < accepted && Instant::now() < end {
            interrupt::check()?;
            thread::sleep(Duration::from_millis(100));
        }
        self.tally.that(
            &format!("of publishes meanwhile {accepted} were accepted, {refused} refused"),
            accepted > 0,
        );
        let woken = self.woken(before);
        self.tally.same(
            "devices that got their push",
            &woken.to_string(),
            &accepted.to_string(),
        );
        let reload = self.state("ExecReload")?;
        self.tally
            .that("the unit is the new one", reload.contains("fpush reload"));
        self.sh("systemctl reload fpush").map(drop)
    }

    fn purge(&mut self) -> Result<()> {
        let before = self.sh("systemctl stop fpush && find /var/lib/fpush -type f | sort")?;
        self.sh("touch /var/lib/fpush/devices.db")?;
        let said = self.sh("dpkg --purge fpush")?;
        self.tally
            .that("it says where devices stay", said.contains("/var/lib/fpush"));
        let loaded = self.state("LoadState")?;
        self.tally.same("the service is gone", &loaded, "not-found");
        self.tally.that(
            "the devices stay",
            self.path("var/lib/fpush/devices.db").is_file(),
        );
        let after = self.sh("find /var/lib/fpush -type f | grep -v devices.db | sort")?;
        self.tally
            .same("and so does all the rest of the state", &after, &before);
        self.tally.that(
            "the secret is gone",
            !self.path("etc/fpush/component-key").exists(),
        );
        Ok(())
    }

    /// Sends a publish for the token that its id stands for, and returns what it was answered.
    fn publish(&mut self, id: &str, module: &str) -> String {
        let link = &mut self.xmpp.as_mut().expect("fpush has been started").1;
        link.send(prosody_publish(id, &token(id), Some(module), true));
        link.reply_to(id, PATIENCE).verdict()
    }

    /// Devices that got a push, after so many requests.
    fn woken(&self, requests: usize) -> usize {
        let held = |token: &str| token.starts_with("68656c64");
        let requests = self.apns.requests().into_iter().skip(requests);
        let tokens: std::collections::BTreeSet<_> = requests.map(|request| request.token).collect();
        tokens.iter().filter(|token| held(token)).count()
    }

    fn xmpp(&self) -> &(FakeXmpp, Link) {
        self.xmpp.as_ref().expect("fpush has been started")
    }

    /// Waits until fpush logs in again.
    fn log_in(&mut self) -> Result<()> {
        let (xmpp, _) = self.xmpp.take().context("fpush has not been started")?;
        let link = xmpp.accept(PATIENCE);
        self.xmpp = Some((xmpp, link));
        Ok(())
    }

    fn settings(&self, port: u16, module: &str) -> Result<()> {
        self.write(
            "etc/fpush/settings.json",
            &self.some_settings(port, module).to_string(),
            0o644,
        )
    }

    /// Settings with one module, for an XMPP server at this port.
    pub(super) fn some_settings(&self, port: u16, module: &str) -> Value {
        json!({
            "component": {
                "componentHostname": HOSTNAME,
                "componentKeyFile": "/run/credentials/fpush.service/component-key",
                "serverHostname": "127.0.0.1",
                "serverPort": port,
            },
            "pushModules": { module: {
                "type": "apple",
                "ratelimit": { "enabled": false },
                "apns": {
                    "tokenKeyFilePath": "/etc/fpush/key.p8", "keyId": "ABCDE12345", "teamId": "FGHIJ67890",
                    "topic": "org.example.app", "endpoint": self.apns.url(), "caFilePath": "/etc/fpush/ca.pem",
                },
            } },
        })
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    pub(super) fn write(&self, file: &str, text: &str, mode: u32) -> Result<()> {
        let file = self.path(file);
        fs::write(&file, text)
            .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Runs a line of shell in the machine. What it wrote, if it succeeds.
    pub(super) fn sh(&self, line: &str) -> Result<String> {
        said(&try_line(shell(self.leader, line), line)?, line)
    }

    /// A property of the service.
    pub(super) fn state(&self, property: &str) -> Result<String> {
        let value = self.sh(&format!("systemctl show --value --property={property} fpush"))?;
        Ok(value.trim().to_owned())
    }

    pub(super) fn same_state(&mut self, what: &str, property: &str, should: &str) -> Result<()> {
        let is = self.state(property)?;
        self.tally.same(what, &is, should);
        Ok(())
    }

    /// Waits until a property holds a text, and returns what it holds at last.
    pub(super) fn until(&self, property: &str, text: &str) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let is = self.state(property)?;
            if is.contains(text) || Instant::now() >= end {
                return Ok(is);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn log(&self) -> Result<String> {
        self.sh("journalctl --no-pager --output=cat --unit=fpush --lines=200")
    }
}

/// A token that an id stands for.
fn token(id: &str) -> String {
    id.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// More than systemd starts a service in ten seconds by default.
const KILLS: u32 = 6;
/// As `systemd-analyze security` counts, of 10.
const MOST_EXPOSED: f64 = 2.0;

/// Makes a package that is laid out as that of version 0.1.0 was: one manual page, a reload by signal, devices that go with a
/// purge. The program is the same.
const OLDER: &str = r#"set -e
cd /root && rm -rf older && dpkg-deb -R fpush.deb older
sed -i 's/^Version: .*/Version: 0.0.9-1/' older/DEBIAN/control
sed -i 's|^ExecReload=.*|ExecReload=/bin/kill -HUP $MAINPID|; /^User=/i Environment=RUST_LOG=info' older/lib/systemd/system/fpush.service
sed -i 's|if \[ -d /var/lib/fpush \].*|rm -rf /var/lib/fpush; if false; then|' older/DEBIAN/postrm
mkdir older/usr/share/man/man1 && mv older/usr/share/man/man8/fpush.8.gz older/usr/share/man/man1/fpush.1.gz
rm -rf older/usr/share/man/man5 older/usr/share/doc/fpush/docs older/usr/share/doc/fpush/html older/DEBIAN/md5sums
dpkg-deb -Znone -b older older.deb && rm -r older"#;

const HOSTNAME: &str = "push.localhost";
const HELD: usize = 12;
const PATIENCE: Duration = Duration::from_secs(40);

const SOON: &str = "\
[Service]
WatchdogSec=3
RestartSec=1
";
