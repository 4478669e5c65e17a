//! A machine that systemd-nspawn boots in a folder, with a network of its own that leads nowhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::interrupt;
use crate::place;
use crate::process;

/// A machine that runs; it is powered off on drop.
pub(super) struct Machine {
    nspawn: Child,
    leader: u32,
}

impl Machine {
    /// Boots what is in the folder, and waits until all of its services run.
    pub(super) fn boot(folder: &Path) -> Result<Self> {
        println!("Booting it with systemd-nspawn.");
        let console = fs::File::create(log(folder)).context("cannot write the log of the machine")?;
        let nspawn = Command::new("systemd-nspawn")
            .args([
                "--register=no",
                "--keep-unit",
                "--private-network",
                "--quiet",
                "--boot",
            ])
            .args(["--console=pipe", "--directory"])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()
            .context("cannot run systemd-nspawn")?;
        let mut machine = Self { nspawn, leader: 0 };
        let end = Instant::now() + BOOT;
        while Instant::now() < end {
            interrupt::check()?;
            if let Some(status) = machine.nspawn.try_wait()? {
                bail!("systemd-nspawn ended ({status}); {}", said(folder));
            }
            if machine.leader == 0 {
                machine.leader = leader(machine.nspawn.id()).unwrap_or(0);
            } else if is_up(machine.leader) {
                return Ok(machine);
            }
            thread::sleep(Duration::from_millis(200));
        }
        bail!("the machine is not up after {BOOT:?}; {}", said(folder))
    }

    /// Its first process, as seen from outside.
    pub(super) fn leader(&self) -> u32 {
        self.leader
    }

    /// A program of this machine, in the network of that one.
    pub(super) fn in_its_network(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.leader.to_string(), "--net", "--"])
            .arg(program);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SIGTERM to it is an orderly end of the machine.
        let mut kill = Command::new("kill");
        kill.args(["-TERM", &self.nspawn.id().to_string()]);
        process::succeeds(kill);
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            if !matches!(self.nspawn.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
    }
}

/// A line of shell in the machine.
pub(super) fn shell(leader: u32, line: &str) -> Command {
    let mut command = Command::new("nsenter");
    command
        .args([
            "--target",
            &leader.to_string(),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
        ])
        .args(["--root", "--wd=/", "--"]);
    place::shell(command, line)
}

/// The process that is the first one in the machine: a child of nspawn with the number 1 in there.
fn leader(nspawn: u32) -> Option<u32> {
    process::children(nspawn).into_iter().find(|process| {
        fs::read_to_string(format!("/proc/{process}/status")).is_ok_and(|status| {
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            numbers.is_some_and(|numbers| numbers.split_whitespace().skip(1).last() == Some("1"))
        })
    })
}

fn is_up(leader: u32) -> bool {
    // A unit that such a machine cannot have, and that failed, is no matter: "degraded".
    let state = shell(leader, "systemctl is-system-running").output();
    state.is_ok_and(|output| matches!(output.stdout.trim_ascii(), b"running" | b"degraded"))
}

/// What the machine writes to its console.
pub(super) fn log(folder: &Path) -> PathBuf {
    folder.with_extension("log")
}

fn said(folder: &Path) -> String {
    let log = fs::read_to_string(log(folder)).unwrap_or_default();
    format!("it said:\n{}", log.trim())
}

const BOOT: Duration = Duration::from_secs(90);
