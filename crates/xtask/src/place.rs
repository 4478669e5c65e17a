//! An empty folder, and namespaces in which something is mounted there and run. Nobody else sees it, and all of it goes
//! with the last process that sees it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::interrupt;
use crate::process;

/// Whether something could be tested.
pub(crate) enum Tested {
    /// It was, and all is well.
    Yes,
    /// It was not, and why.
    No(String),
}

/// A task of this program that needs such a place.
pub(crate) struct Task {
    /// The task that says by its success whether there can be one. It gets the folder.
    pub(crate) probe: &'static str,
    /// The task itself. It gets the folder and the file.
    pub(crate) check: &'static str,
    /// What it is called.
    pub(crate) title: &'static str,
}

impl Task {
    /// Runs it with a file, if there can be a place for it here.
    pub(crate) fn run(&self, file: &Path) -> Result<Tested> {
        let place = Place::new()?;
        // Root needs no more; others become root in a namespace with the users that /etc/subuid gives them.
        let way: &[&str] = if fpush_testkit::is_root() {
            &[]
        } else {
            &["--map-root-user", "--map-auto"]
        };
        let probe = place
            .inside(way, self.probe)?
            .stdin(Stdio::null())
            .output()
            .context("cannot run unshare")?;
        if !probe.status.success() {
            let reason = String::from_utf8_lossy(&probe.stderr).trim().replace('\n', " ");
            return Ok(Tested::No(format!(
                "no place for it could be made here, which root can do outside of containers ({reason})"
            )));
        }
        process::run_named(
            place.inside(way, self.check)?.arg(file).stdin(Stdio::null()),
            self.title,
        )?;
        Ok(Tested::Yes)
    }
}

/// Mounts something. Nothing unmounts it again: the namespace ends with the process.
pub(crate) fn mount(arguments: &[&str], at: &Path) -> Result<()> {
    let output = Command::new("mount")
        .args(arguments)
        .arg(at)
        .stdin(Stdio::null())
        .output()
        .context("cannot run mount")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "mount {} {}: {}",
        arguments.join(" "),
        at.display(),
        said.trim()
    );
    Ok(())
}

/// Leaves a command that enters another root no more of the environment than a package may rely on.
pub(crate) fn bare(mut enter: Command) -> Command {
    enter
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null());
    enter
}

/// Has a command that enters another root run a line of shell there, ten minutes at most.
pub(crate) fn shell(mut enter: Command, line: &str) -> Command {
    enter
        .args(["timeout", "--kill-after=5", "600", "sh", "-c"])
        .arg(format!("exec 2>&1; {line}"));
    bare(enter)
}

/// Runs a line of shell, whether it succeeds or not.
pub(crate) fn try_line(mut shell: Command, line: &str) -> Result<Output> {
    interrupt::check()?;
    shell.output().with_context(|| format!("cannot run `{line}`"))
}

/// What a line of shell wrote, if it succeeded.
pub(crate) fn said(output: &Output, line: &str) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "`{line}` failed ({}):\n{}",
        output.status,
        said.trim_end()
    );
    Ok(said)
}

struct Place(PathBuf);

impl Place {
    fn new() -> Result<Self> {
        let place = env::temp_dir().join(format!("fpush-place-{}", std::process::id()));
        fs::create_dir(&place).with_context(|| format!("cannot make {}", place.display()))?;
        Ok(Self(place))
    }

    /// A task of this program in namespaces of its own, which ends with it.
    fn inside(&self, way: &[&str], task: &str) -> Result<Command> {
        let mut command = Command::new("unshare");
        command
            .args(way)
            .args(["--mount", "--pid", "--fork", "--kill-child", "--"])
            .arg(process::this_program()?)
            .arg(task)
            .arg(&self.0);
        Ok(command)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Never more than the folder itself: if anything were mounted there still, it would be the machine's.
        let _ = fs::remove_dir(&self.0);
    }
}
