//! A root folder that looks like this machine and forgets everything: the machine below, memory above.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};

use crate::place::{bare, mount, said, shell, try_line};

/// Says by its success whether there can be one.
pub(crate) fn probe(place: &Path) -> Result<()> {
    let root = Root::mount(place)?;
    // What a package does to files: another owner, and a folder that is the machine's.
    root.sh("touch /etc/fpush.probe && chown 1:1 /etc/fpush.probe && mkdir /var/lib/dpkg/fpush.probe")
        .map(drop)
}

/// The root folder, in the mount namespace of this process and of nobody else.
pub(super) struct Root(PathBuf);

impl Root {
    /// Mounts it on an empty folder. Nothing unmounts it again: the namespace ends with the process.
    pub(super) fn mount(place: &Path) -> Result<Self> {
        mount(&["-t", "tmpfs", "-o", "mode=755", "tmpfs"], place)?;
        let part = |name: &str| {
            let part = place.join(name);
            fs::create_dir(&part).map(|()| part)
        };
        let (upper, work, root) = (part("upper")?, part("work")?, part("root")?);
        let layers = format!(
            "lowerdir=/,upperdir={},workdir={}",
            upper.display(),
            work.display()
        );
        mount(&["-t", "overlay", "-o", &layers, "overlay"], &root)?;
        mount(&["-t", "proc", "proc"], &root.join("proc"))?;
        for (folder, mode) in [("run", "mode=755"), ("tmp", "mode=1777"), ("dev", "mode=755")] {
            mount(&["-t", "tmpfs", "-o", mode, "tmpfs"], &root.join(folder))?;
        }
        for device in ["null", "zero", "full", "random", "urandom"] {
            let inside = root.join("dev").join(device);
            fs::write(&inside, "").with_context(|| format!("cannot make {}", inside.display()))?;
            mount(&["--bind", &format!("/dev/{device}")], &inside)?;
        }
        // The rest of the machine is there if it is on the same file system.
        ensure!(
            root.join("usr/bin/dpkg").exists() && root.join("var/lib/dpkg/status").exists(),
            "/usr or /var is a file system of its own"
        );
        Ok(Self(root))
    }

    /// Where a file of the root folder is for this process.
    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.0.join(inside.trim_start_matches('/'))
    }

    /// A program in there, with no more of the environment than a package may rely on.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = self.chroot();
        command.arg(program);
        bare(command)
    }

    fn chroot(&self) -> Command {
        let mut chroot = Command::new("chroot");
        chroot.arg(&self.0);
        chroot
    }

    /// Runs a line of shell in there, ten minutes at most. What it wrote, if it succeeds.
    pub(super) fn sh(&self, line: &str) -> Result<String> {
        said(&self.try_sh(line)?, line)
    }

    /// The same, whether it succeeds or not.
    pub(super) fn try_sh(&self, line: &str) -> Result<Output> {
        try_line(shell(self.chroot(), line), line)
    }

    /// The text of a file in there.
    pub(super) fn read(&self, file: &str) -> Result<String> {
        fs::read_to_string(self.path(file)).with_context(|| format!("cannot read {file}"))
    }

    /// Writes a file in there.
    pub(super) fn write(&self, file: &str, text: &str, mode: u32) -> Result<()> {
        let path = self.path(file);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("cannot write {file}"))
    }

    /// Whether there is something of that name, be it a link to nothing.
    pub(super) fn has(&self, file: &str) -> bool {
        fs::symlink_metadata(self.path(file)).is_ok()
    }

    /// Mode, user and group as `ls` shows them: `640 root fpush`. Empty if there is no such file.
    pub(super) fn owner(&self, file: &str) -> String {
        self.sh(&format!("stat -c '%a %U %G' {file} 2>/dev/null"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    /// The user that a process runs as.
    pub(super) fn user_of(&self, process: u32) -> Result<String> {
        let process = fs::metadata(self.path(&format!("proc/{process}"))).context("the process has ended")?;
        let name = self.sh(&format!("getent passwd {}", process.uid()))?;
        Ok(name.split(':').next().unwrap_or_default().to_owned())
    }
}
