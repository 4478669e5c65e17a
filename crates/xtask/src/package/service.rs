//! A service manager for one service: what systemd does with the unit file, as far as fpush can notice it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::root::Root;
use super::unit::Unit;
use crate::interrupt;

/// A service that has been started; it is killed on drop.
pub(super) struct Service<'a> {
    root: &'a Root,
    unit: Unit,
    process: Child,
    notifications: UnixDatagram,
    /// What the service has said of itself, line by line.
    told: Vec<String>,
    /// How many of these lines have been looked at.
    read: usize,
}

impl<'a> Service<'a> {
    /// Starts what the installed unit file describes.
    pub(super) fn start(root: &'a Root) -> Result<Self> {
        let unit = Unit::parse(&root.read(UNIT)?);
        let (user, group) = (unit.get("User")?, unit.get("Group")?);

        let mut environment = vec![
            ("USER".to_owned(), user.to_owned()),
            ("LOGNAME".to_owned(), user.to_owned()),
            ("NOTIFY_SOCKET".to_owned(), SOCKET.to_owned()),
            // The service gives its signs of life that much more often, so that the test need not wait.
            (
                "WATCHDOG_USEC".to_owned(),
                Self::patience(&unit)?.as_micros().to_string(),
            ),
        ];
        for assignments in unit.all("Environment") {
            let assignments = assignments.split_ascii_whitespace();
            environment.extend(
                assignments
                    .filter_map(|one| one.split_once('='))
                    .map(|(name, value)| (name.to_owned(), value.to_owned())),
            );
        }
        for (what, top) in [("State", "/var/lib"), ("Runtime", "/run")] {
            let folder = format!("{top}/{}", unit.get(&format!("{what}Directory"))?);
            let mode = unit.get(&format!("{what}DirectoryMode"))?;
            root.sh(&format!(
                "install -d -m {mode} {folder} && chown -R {user}:{group} {folder}"
            ))?;
            environment.push((format!("{}_DIRECTORY", what.to_uppercase()), folder));
        }
        root.sh(&format!("rm -rf {CREDENTIALS} && mkdir -p {CREDENTIALS}"))?;
        for credential in unit.all("LoadCredential") {
            let (name, file) = credential
                .split_once(':')
                .context("a credential without a file")?;
            root.sh(&format!("install -m 400 {file} {CREDENTIALS}/{name}"))
                .context("systemd would not start the service")?;
        }
        root.sh(&format!(
            "chown -R {user}:{group} {CREDENTIALS} && chmod 500 {CREDENTIALS}"
        ))?;
        environment.push(("CREDENTIALS_DIRECTORY".to_owned(), CREDENTIALS.to_owned()));

        let socket = root.path(SOCKET);
        fs::create_dir_all(root.path("/run/systemd"))?;
        if socket.exists() {
            fs::remove_file(&socket)?;
        }
        let notifications = UnixDatagram::bind(&socket).context("cannot listen for notifications")?;
        notifications.set_nonblocking(true)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o777))?;

        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(root.path(LOG))
            .context("cannot open the log")?;
        let mut command = as_service(root, &unit)?;
        let process = command
            // It becomes the service itself, so that the process stays the same.
            .args([
                "sh",
                "-c",
                "export WATCHDOG_PID=$$; umask \"$1\"; cd \"$2\"; shift 2; exec \"$@\"",
                "sh",
            ])
            .args([unit.get("UMask")?, unit.get("WorkingDirectory")?])
            .args(unit.words("ExecStart")?)
            .envs(environment)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the service")?;
        fs::write(root.path(ACTIVE), "")?;
        Ok(Self {
            root,
            unit,
            process,
            notifications,
            told: Vec::new(),
            read: 0,
        })
    }

    /// The process of the service.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The time for a start.
    pub(super) fn start_time(&self) -> Result<Duration> {
        self.unit.seconds("TimeoutStartSec")
    }

    /// The time in which a sign of life must come: a tenth of what the unit file says.
    pub(super) fn watchdog(&self) -> Result<Duration> {
        Self::patience(&self.unit)
    }

    fn patience(unit: &Unit) -> Result<Duration> {
        Ok(unit.seconds("WatchdogSec")? / 10)
    }

    /// Waits for the next notification that begins like this; those before it are done with.
    pub(super) fn tells(&mut self, wanted: &str, patience: Duration) -> Result<bool> {
        let end = Instant::now() + patience;
        loop {
            self.receive()?;
            while let Some(line) = self.told.get(self.read) {
                self.read += 1;
                if line.starts_with(wanted) {
                    return Ok(true);
                }
            }
            // One that has ended says no more, but what it said last may have come since.
            if Instant::now() >= end || (self.process.try_wait()?.is_some() && !self.receive()?) {
                return Ok(false);
            }
            interrupt::check()?;
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it ever said something that begins like this.
    pub(super) fn has_told(&mut self, wanted: &str) -> Result<bool> {
        self.receive()?;
        Ok(self.told.iter().any(|line| line.starts_with(wanted)))
    }

    fn receive(&mut self) -> Result<bool> {
        let mut some = false;
        let mut buffer = [0; 8192];
        loop {
            match self.notifications.recv(&mut buffer) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&buffer[..length]);
                    self.told.extend(text.lines().map(str::to_owned));
                    some = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(some),
                Err(error) => return Err(error).context("cannot read notifications"),
            }
        }
    }

    /// Runs the unit's `ExecReload`, as the user of the service. Returns its exit status, and what it wrote.
    pub(super) fn reload(&self) -> Result<(Option<i32>, String)> {
        let output = as_service(self.root, &self.unit)?
            .args(self.unit.words("ExecReload")?)
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// Sends the unit's `KillSignal`.
    pub(super) fn terminate(&self) -> Result<()> {
        let signal = self.unit.get("KillSignal")?.trim_start_matches("SIG");
        self.root
            .sh(&format!("kill -s {signal} {}", self.pid()))
            .map(drop)
    }

    /// Waits until it has ended, as long as the unit file allows.
    pub(super) fn end(&mut self) -> Result<ExitStatus> {
        let patience = self.unit.seconds("TimeoutStopSec")?;
        self.end_within(patience)?
            .with_context(|| format!("the service still runs after {patience:?}"))
    }

    /// How it ended, if it does in that time.
    pub(super) fn end_within(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + patience;
        loop {
            let status = self.process.try_wait()?;
            if status.is_some() || Instant::now() >= end {
                return Ok(status);
            }
            interrupt::check()?;
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it has logged, over all its starts.
    pub(super) fn log(root: &Root) -> String {
        root.read(LOG).unwrap_or_default()
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        // All of it fails if it is done already, which is as good. What belongs to a run goes with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(self.root.path(ACTIVE));
        let _ = fs::remove_dir_all(self.root.path(CREDENTIALS));
        if let Ok(folder) = self.unit.get("RuntimeDirectory") {
            let _ = fs::remove_dir_all(self.root.path(&format!("/run/{folder}")));
        }
    }
}

/// A program as the service's user, who may do nothing that others may not.
fn as_service(root: &Root, unit: &Unit) -> Result<Command> {
    let mut command = root.command("setpriv");
    command
        .args(["--reuid", unit.get("User")?, "--regid", unit.get("Group")?])
        .args(["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--"])
        .env_remove("DEBIAN_FRONTEND")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

/// The unit file of the package.
pub(super) const UNIT: &str = "/lib/systemd/system/fpush.service";

/// Is there while the service runs.
pub(super) const ACTIVE: &str = "/run/fpush.active";

const SOCKET: &str = "/run/systemd/notify";
const CREDENTIALS: &str = "/run/credentials/fpush.service";
const LOG: &str = "/tmp/fpush.log";
