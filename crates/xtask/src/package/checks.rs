//! The life of the package: installed, started, reloaded, upgraded, removed, installed again, purged. All of it is tried
//! even if something is wrong, so that one run shows every fault.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::root::Root;
use super::service::{ACTIVE, Service, UNIT};
use crate::interrupt;
use crate::tally::Tally;

/// Tries a package in the namespaces of this process.
pub(crate) fn check(place: &Path, package: &Path) -> Result<()> {
    let root = Root::mount(place)?;
    let mut checks = Checks {
        root: &root,
        start: Instant::now(),
        tally: Tally::default(),
    };
    checks.prepare(package)?;
    checks.part("install", Checks::install)?;
    checks.part("without settings", Checks::without_settings)?;
    checks.part("start, reload, upgrade, stop", Checks::run)?;
    checks.part("upgrade of a disabled service", Checks::upgrade_disabled)?;
    checks.part("remove", Checks::remove)?;
    checks.part("install again", Checks::install_again)?;
    checks.part("purge", Checks::purge)?;
    checks.part("install over settings", Checks::install_over_settings)?;

    let Checks { tally, .. } = checks;
    tally.conclude("the package", || Service::log(&root))
}

struct Checks<'a> {
    root: &'a Root,
    start: Instant,
    tally: Tally,
}

impl Checks<'_> {
    fn part(&mut self, title: &str, part: fn(&mut Self) -> Result<()>) -> Result<()> {
        println!("\n{title}");
        self.start = Instant::now();
        part(self)
            .with_context(|| format!("part `{title}`; the log:\n{}", Service::log(self.root).trim_end()))?;
        println!("  {:.1} s", self.start.elapsed().as_secs_f64());
        Ok(())
    }

    fn that(&mut self, what: &str, holds: bool) {
        self.tally.that(what, holds);
    }

    fn same(&mut self, what: &str, is: &str, should: &str) {
        self.tally.same(what, is, should);
    }

    /// A machine that has never had fpush, and runs systemd.
    fn prepare(&self, package: &Path) -> Result<()> {
        let root = self.root;
        root.try_sh("dpkg --purge fpush; userdel fpush; groupdel fpush")?;
        root.sh(
            "rm -rf /etc/fpush /var/lib/fpush /usr/local/bin/fpush /etc/systemd/system/fpush.service* \
             /etc/systemd/system/*/fpush.service /var/lib/systemd/deb-systemd-helper-*/*fpush* \
             /usr/sbin/policy-rc.d /usr/bin/systemctl; mkdir -p /run/systemd/system",
        )?;
        root.write("/usr/bin/systemctl", SYSTEMCTL, 0o755)?;
        fs::copy(package, root.path("/tmp/fpush.deb"))
            .with_context(|| format!("cannot copy {}", package.display()))?;
        root.sh(
            "cd /tmp && dpkg-deb -R fpush.deb newer && sed -i 's/^Version: .*/&+1/' newer/DEBIAN/control && \
             dpkg-deb -Znone -b newer newer.deb && rm -r newer",
        )?;
        Ok(())
    }

    /// Lets dpkg work, and returns what it ordered from systemd.
    fn dpkg(&self, what: &str) -> Result<Vec<String>> {
        self.root.sh(&format!("rm -f {ORDERS}; dpkg {what}"))?;
        let orders = self.root.read(ORDERS).unwrap_or_default();
        let orders = orders.lines().map(str::to_owned);
        // Questions are not orders.
        Ok(orders.filter(|order| !order.contains(" is-")).collect())
    }

    fn install(&mut self) -> Result<()> {
        let root = self.root;
        let orders = self.dpkg("-i /tmp/fpush.deb")?;
        for (file, mode) in [
            ("/usr/bin/fpush", "755"),
            (UNIT, "644"),
            ("/usr/share/man/man8/fpush.8.gz", "644"),
            ("/usr/share/man/man5/fpush.settings.5.gz", "644"),
            ("/usr/share/bash-completion/completions/fpush", "644"),
            ("/usr/share/zsh/vendor-completions/_fpush", "644"),
            ("/usr/share/fish/vendor_completions.d/fpush.fish", "644"),
            ("/usr/share/doc/fpush/copyright", "644"),
            ("/usr/share/doc/fpush/changelog.Debian.gz", "644"),
            ("/usr/share/doc/fpush/README.md", "644"),
            ("/usr/share/doc/fpush/CHANGELOG.md", "644"),
            ("/usr/share/doc/fpush/docs/SUMMARY.md", "644"),
            ("/usr/share/doc/fpush/docs/install/debian.md", "644"),
            ("/usr/share/doc/fpush/docs/status-page.png", "644"),
            ("/usr/share/doc/fpush/html/index.html", "644"),
            ("/usr/share/doc/fpush/html/docs/install/debian.html", "644"),
            ("/usr/share/doc/fpush/THIRD-PARTY", "644"),
            ("/usr/share/doc/fpush/examples/settings.example.json", "644"),
        ] {
            self.same(file, &root.owner(file), &format!("{mode} root root"));
        }
        if Path::new("contrib").is_dir() {
            self.same(
                "all of contrib is there",
                &root.sh("cd /usr/share/doc/fpush/contrib && find . -type f | sort")?,
                // The repository is the same in there.
                &said("cd contrib && find . -type f | LC_ALL=C.UTF-8 sort")?,
            );
        }
        self.same(
            "no file differs from the package",
            &root.sh("dpkg --verify fpush")?,
            "",
        );
        self.same(
            "no file is a conffile",
            root.sh("dpkg-query -W -f '${Conffiles}' fpush")?.trim(),
            "",
        );
        let version = root.sh("dpkg-query -W -f '${Version}' fpush")?;
        let version = version.rsplit_once('-').map_or("", |(version, _)| version);
        let said = root.sh("fpush --version")?;
        let said = said.trim();
        let (number, commit) = said.split_once(" (").unwrap_or((said, ""));
        self.same(
            "the program has the package's version",
            number,
            &format!("fpush {}", version.replace('~', "-")),
        );
        self.that(
            "the program names its commit, or that it is a development build",
            !commit.is_empty() && commit.ends_with(')'),
        );
        let licences = root.read("/usr/share/doc/fpush/THIRD-PARTY").unwrap_or_default();
        self.that(
            "the licences of what the program contains are there",
            [
                "\nrustls ",
                "\ntokio ",
                "\ntokio-xmpp ",
                "Mozilla Public License",
                "Permission is hereby granted",
            ]
            .iter()
            .all(|part| licences.contains(part)),
        );
        for (page, begins) in [
            ("man8/fpush.8", ".TH FPUSH 8 "),
            ("man5/fpush.settings.5", ".TH FPUSH.SETTINGS 5 "),
        ] {
            self.that(
                &format!("the manual page {page} is readable"),
                root.sh(&format!("gzip -dc /usr/share/man/{page}.gz"))?
                    .contains(begins),
            );
        }
        for (shell, file) in [
            ("bash", "/usr/share/bash-completion/completions/fpush"),
            ("zsh", "/usr/share/zsh/vendor-completions/_fpush"),
            ("fish", "/usr/share/fish/vendor_completions.d/fpush.fish"),
        ] {
            if root.try_sh(&format!("command -v {shell}"))?.status.success() {
                let read = root.try_sh(&format!("{shell} -n {file}"))?;
                self.that(&format!("{shell} reads its completions"), read.status.success());
            }
            self.that(
                &format!("the completions for {shell} know the commands"),
                root.read(file).is_ok_and(|script| script.contains("check")),
            );
        }
        let user = root.sh("getent passwd fpush").unwrap_or_default();
        let user = user.trim().split(':').collect::<Vec<_>>();
        self.that(
            "the user has neither a home nor a shell",
            user.ends_with(&["/nonexistent", "/usr/sbin/nologin"]),
        );
        self.same("/etc/fpush", &root.owner("/etc/fpush"), "750 root fpush");
        self.same(
            "the component's secret is root's",
            &root.owner("/etc/fpush/component-key"),
            "600 root root",
        );
        self.that(
            "the component's secret is 256 bits",
            root.read("/etc/fpush/component-key")
                .is_ok_and(|key| key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit())),
        );
        self.that("the service is not enabled", !root.has(ENABLED));
        self.same(
            "the service is not started",
            &orders.join(", "),
            "--system daemon-reload",
        );
        if root.try_sh("command -v systemd-analyze")?.status.success() {
            let said = root
                .try_sh(&format!("systemd-analyze --man=no verify {UNIT}"))?
                .stdout;
            let said = String::from_utf8_lossy(&said).into_owned();
            let faults = said.lines().filter(|line| line.contains("fpush"));
            self.same(
                "systemd reads the unit file",
                &faults.collect::<Vec<_>>().join("\n"),
                "",
            );
        }
        Ok(())
    }

    fn without_settings(&mut self) -> Result<()> {
        let mut service = Service::start(self.root)?;
        let status = service.end()?;
        self.same(
            "a start without settings is the operator's fault, and not tried again",
            &format!("{:?}", status.code()),
            "Some(78)",
        );
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let root = self.root;
        // The operator's part.
        root.write("/etc/fpush/settings.json", SETTINGS, 0o640)?;
        root.write("/etc/fpush/AuthKey.p8", "the operator's", 0o640)?;
        root.sh(
            "chown root:fpush /etc/fpush/settings.json /etc/fpush/AuthKey.p8; systemctl preset fpush.service",
        )?;
        let secret = root.read("/etc/fpush/component-key")?;

        let mut service = Service::start(root)?;
        self.started(&mut service)?;
        self.same("the service's user", &root.user_of(service.pid())?, "fpush");
        self.same("/var/lib/fpush", &root.owner("/var/lib/fpush"), "700 fpush fpush");
        self.same("/run/fpush", &root.owner("/run/fpush"), "750 fpush fpush");
        self.that(
            "the database is in /var/lib/fpush",
            root.has("/var/lib/fpush/devices.db"),
        );
        self.that(
            "the control socket is in /run/fpush",
            root.has("/run/fpush/control.sock"),
        );
        let watchdog = service.watchdog()?;
        for count in ["first", "second"] {
            let alive = service.tells("WATCHDOG=1", watchdog)?;
            self.that(&format!("the {count} sign of life comes in time"), alive);
        }

        let (status, said) = service.reload()?;
        self.same("ExecReload", &format!("{status:?} {said}"), RELOADED);
        let reloading = service.tells("RELOADING=1", A_MOMENT)?;
        self.that("RELOADING=1 after ExecReload", reloading);
        let ready = service.tells("READY=1", A_MOMENT)?;
        self.that("READY=1 after the reload", ready);
        root.write("/etc/fpush/settings.json", "{}", 0o640)?;
        root.sh("chown root:fpush /etc/fpush/settings.json")?;
        let (status, said) = service.reload()?;
        self.same(
            "ExecReload with wrong settings",
            &format!("{status:?}"),
            "Some(78)",
        );
        self.that(
            "it says what is wrong",
            said.contains("error: component: this key is missing"),
        );
        root.write("/etc/fpush/settings.json", SETTINGS, 0o640)?;
        root.sh("chown root:fpush /etc/fpush/settings.json")?;
        self.that(
            "it runs after the reload",
            service.end_within(Duration::ZERO)?.is_none(),
        );

        let orders = self.dpkg("-i /tmp/newer.deb")?;
        self.same(
            "an upgrade restarts it if it runs",
            &orders.join(", "),
            "--system daemon-reload, try-restart fpush.service",
        );
        self.that(
            "until then it goes on",
            service.end_within(Duration::ZERO)?.is_none(),
        );
        self.that("the upgrade leaves it enabled", root.has(ENABLED));
        self.same(
            "the upgrade leaves the settings alone",
            &root.read("/etc/fpush/settings.json")?,
            SETTINGS,
        );
        self.same(
            "and their owner",
            &root.owner("/etc/fpush/settings.json"),
            "640 root fpush",
        );
        self.same(
            "the upgrade leaves the secret alone",
            &root.read("/etc/fpush/component-key")?,
            &secret,
        );
        self.stopped(&mut service)?;
        drop(service);

        let mut service = Service::start(root)?;
        self.started(&mut service)?;
        let orders = self.dpkg("--remove fpush")?;
        self.same(
            "a removal stops it",
            &orders.join(", "),
            "stop fpush.service, --system daemon-reload",
        );
        self.stopped(&mut service)?;
        drop(service);
        // Back for the next part.
        self.dpkg("-i /tmp/newer.deb").map(drop)
    }

    /// Until the service is ready.
    fn started(&mut self, service: &mut Service<'_>) -> Result<()> {
        let patience = service.start_time()?.min(START);
        let ready = service.tells("READY=1", patience)?;
        self.that("READY=1 after the start", ready);
        if !ready {
            // The other checks are worth something even so.
            thread::sleep(Duration::from_secs(1));
        }
        self.that("it runs", service.end_within(Duration::ZERO)?.is_none());
        Ok(())
    }

    /// SIGTERM and what must follow.
    fn stopped(&mut self, service: &mut Service<'_>) -> Result<()> {
        service.terminate()?;
        let status = service.end()?;
        self.same(
            "exit status after SIGTERM",
            &format!("{:?}", status.code()),
            "Some(0)",
        );
        let told = service.tells("STOPPING=1", Duration::ZERO)?;
        self.that("STOPPING=1 after SIGTERM", told);
        let told = service.has_told("STATUS=")?;
        self.that("STATUS= while it ran", told);
        Ok(())
    }

    fn upgrade_disabled(&mut self) -> Result<()> {
        self.root.sh(&format!("rm {ENABLED}"))?;
        self.dpkg("-i /tmp/newer.deb")?;
        self.that("it stays disabled", !self.root.has(ENABLED));
        self.root.sh("systemctl preset fpush.service").map(drop)
    }

    fn remove(&mut self) -> Result<()> {
        let root = self.root;
        self.dpkg("--remove fpush")?;
        for gone in ["/usr/bin/fpush", UNIT, "/usr/share/doc/fpush"] {
            self.that(&format!("{gone} is gone"), !root.has(gone));
        }
        for stays in [
            "/etc/fpush/settings.json",
            "/etc/fpush/component-key",
            "/etc/fpush/AuthKey.p8",
            "/var/lib/fpush/devices.db",
        ] {
            self.that(&format!("{stays} stays"), root.has(stays));
        }
        Ok(())
    }

    fn install_again(&mut self) -> Result<()> {
        let orders = self.dpkg("-i /tmp/fpush.deb")?;
        self.same(
            "what was enabled is started again",
            &orders.join(", "),
            "--system daemon-reload, --quiet --system start fpush.service",
        );
        self.that("it is enabled", self.root.has(ENABLED));
        Ok(())
    }

    fn purge(&mut self) -> Result<()> {
        let root = self.root;
        self.dpkg("--purge fpush")?;
        for gone in [
            "/etc/fpush/settings.json",
            "/etc/fpush/component-key",
            "/var/lib/systemd/deb-systemd-helper-enabled/fpush.service.dsh-also",
            "/run/fpush.installing",
            ENABLED,
        ] {
            self.that(&format!("{gone} is gone"), !root.has(gone));
        }
        self.that(
            "the operator's other files stay",
            root.has("/etc/fpush/AuthKey.p8"),
        );
        self.that("registered devices stay", root.has("/var/lib/fpush/devices.db"));
        let user = root.try_sh("getent passwd fpush")?.status;
        self.that("the user stays", user.success());
        root.sh("rm /etc/fpush/AuthKey.p8").map(drop)
    }

    /// As after an installation by hand.
    fn install_over_settings(&mut self) -> Result<()> {
        let root = self.root;
        root.write("/etc/fpush/settings.json", SETTINGS, 0o640)?;
        let orders = self.dpkg("-i /tmp/fpush.deb")?;
        self.that("it is enabled", root.has(ENABLED));
        self.same(
            "it is started",
            orders.last().map_or("", String::as_str),
            "--quiet --system start fpush.service",
        );
        self.that("nothing ran that systemd did not start", !root.has(ACTIVE));
        self.dpkg("--purge fpush")?;
        self.that("the empty folder goes with the purge", !root.has("/etc/fpush"));
        Ok(())
    }
}

/// What a line of shell writes, outside.
fn said(line: &str) -> Result<String> {
    interrupt::check()?;
    let output = std::process::Command::new("sh").args(["-c", line]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The exit status and the output of a reload.
const RELOADED: &str = "Some(0) settings reloaded from /etc/fpush/settings.json\n";

/// Settings that need no provider, and an XMPP server that is not there: fpush is ready without its link.
const SETTINGS: &str = r#"{
  "component": {
    "componentHostname": "push.example.org",
    "componentKeyFile": "/run/credentials/fpush.service/component-key",
    "serverHostname": "127.0.0.1",
    "serverPort": 1
  },
  "pushModules": { "demo": { "type": "demo", "is_default_module": true } },
  "registration": {
    "store": { "type": "sqlite", "path": "/var/lib/fpush/devices.db" },
    "types": { "fcm": "demo" }
  }
}
"#;

/// In the place of systemctl: it does what changes files, answers questions, and writes down everything else.
const SYSTEMCTL: &str = r#"#!/bin/sh
link=/etc/systemd/system/multi-user.target.wants/fpush.service
case " $* " in
    *" preset "*)
        mkdir -p "${link%/*}"
        ln -sf /lib/systemd/system/fpush.service $link
        ;;
    *" is-enabled "*)
        [ -L $link ] && echo enabled
        ;;
    *" is-active "*)
        [ -e /run/fpush.active ]
        ;;
    *)
        echo "$*" >>/run/fpush.orders
        ;;
esac
"#;

/// What the package ordered from systemd.
const ORDERS: &str = "/run/fpush.orders";

/// Is there while the service is enabled.
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/fpush.service";

/// For a start that systemd would wait longer for.
const START: Duration = Duration::from_secs(20);

/// For what happens at once, on a machine that has much else to do.
const A_MOMENT: Duration = Duration::from_secs(10);
