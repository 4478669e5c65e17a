//! `cargo xtask package --systemd`: the package on a Debian of its own, under a real systemd.

mod boot;
mod checks;
mod oldest;
mod role;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

pub(crate) use self::checks::check;
pub(crate) use self::oldest::test as test_oldest;
use crate::install::{self, Package};
use crate::place::Tested;
use crate::process;

/// The task that checks, in the network of the machine, so that its stand-ins are there.
pub(crate) const CHECK: &str = "machine-check";

/// Boots a Debian and tries a package in it.
pub(crate) fn test(package: &Path) -> Result<Tested> {
    if !fpush_testkit::is_root() {
        return Ok(Tested::No("only root can boot a machine in a folder".to_owned()));
    }
    if !process::is_there("apt-get") {
        return Ok(Tested::No(
            "this machine has no apt-get, and mmdebstrap needs it".to_owned(),
        ));
    }
    install::ensure(&[Package::Mmdebstrap, Package::Nspawn])?;
    role::lint()?;
    let package = fs::canonicalize(package).with_context(|| format!("no package {}", package.display()))?;
    let folder = Folder::unpack(&debian()?)?;
    let machine = boot::Machine::boot(&folder.0)?;
    let mut check = machine.in_its_network(process::this_program()?);
    check.args([CHECK, &machine.leader().to_string()]);
    check.arg(&folder.0).arg(package).stdin(Stdio::null());
    process::run_named(&mut check, "the test under systemd")?;
    Ok(Tested::Yes)
}

/// An archive of a small Debian, which is made once.
fn debian() -> Result<PathBuf> {
    let mut candidate = Command::new("apt-cache");
    candidate.args(["show", "--no-all-versions", "ansible-core"]);
    // What Ansible needs there and what its role sets up, where this Debian has them.
    let (name, packages) = if process::succeeds(candidate) {
        (
            "debian-ansible.tar",
            format!("{NEEDED},ansible-core,python3-apt,prosody"),
        )
    } else {
        ("debian.tar", NEEDED.to_owned())
    };
    let archive = Path::new("target/machine").join(name);
    if archive.is_file() {
        println!("There already: {}.", archive.display());
        return Ok(archive);
    }
    fs::create_dir_all("target/machine").context("cannot make target/machine")?;
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let release = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    println!("Making a small Debian with mmdebstrap; this takes a minute.");
    let new = archive.with_extension("new.tar");
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .arg("--variant=minbase")
        .arg(format!("--include={packages}"))
        .arg(release.unwrap_or("stable"))
        .arg(&new)
        .stdin(Stdio::null());
    println!("{}", process::line(&mmdebstrap));
    process::run(&mut mmdebstrap)?;
    fs::rename(new, &archive).context("cannot rename the archive")?;
    Ok(archive)
}

/// What a machine has at least.
const NEEDED: &str = "systemd-sysv,dbus,adduser,ca-certificates";

/// The files of a machine, which go when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn unpack(archive: &Path) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("fpush-machine-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let folder = Self(folder);
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner", "--xattrs", "-xpf"])
            .arg(archive)
            .arg("-C")
            .arg(&folder.0);
        process::run(&mut tar)?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The machine is down: nothing is mounted in there.
        let _ = fs::remove_dir_all(&self.0);
        let _ = fs::remove_file(boot::log(&self.0));
    }
}
