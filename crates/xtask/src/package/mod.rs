//! `cargo xtask package`: the Debian package, and whether it can be installed, run, upgraded and removed.

mod checks;
mod licences;
mod root;
mod service;
mod stage;
mod unit;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

pub(crate) use self::checks::check;
pub(crate) use self::root::probe;
use crate::install::{self, CargoTool, Package};
use crate::process::{self, cargo};

/// The task that says whether there can be a root folder to install into, in namespaces of its own.
pub(crate) const PROBE: &str = "package-probe";

/// The task that installs, checks and removes, there too.
pub(crate) const CHECK: &str = "package-check";

/// Which build of the program goes into the package.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Build {
    /// For others.
    Release,
    /// For the test: it is there already.
    Debug,
}

/// Whether the package could be tested.
pub(crate) enum Tested {
    /// It was, and all is well.
    Yes,
    /// It was not, and why.
    No(String),
}

/// Builds the package that is given to others.
pub(crate) fn run() -> Result<()> {
    install::cargo_tool(CargoTool::Deb)?;
    let start = Instant::now();
    let package = build(Build::Release, Path::new("target/debian"))?;
    println!(
        "\n{} in {:.0} s",
        package.display(),
        start.elapsed().as_secs_f64()
    );
    println!("Check it with: cargo xtask package --test {}", package.display());
    Ok(())
}

/// Tests one that is there, or a package of the debug build.
pub(crate) fn run_test(package: Option<&str>) -> Result<()> {
    install::ensure(&[Package::Dependencies])?;
    if package.is_none() {
        install::cargo_tool(CargoTool::Deb)?;
    }
    match test(package.map(Path::new))? {
        Tested::Yes => Ok(()),
        Tested::No(reason) => bail!("the package was not tested: {reason}"),
    }
}

/// The same, as a step of `cargo xtask test`, which has installed what this needs.
pub(crate) fn test(package: Option<&Path>) -> Result<Tested> {
    if !process::is_there("dpkg-deb") {
        return Ok(Tested::No("this machine has no dpkg".to_owned()));
    }
    let package = match package {
        Some(package) => {
            fs::canonicalize(package).with_context(|| format!("there is no package {}", package.display()))?
        }
        None => build(Build::Debug, Path::new("target/package/test"))?,
    };
    lint(&package)?;
    let place = Place::new()?;
    // Root needs no more; others become root in a namespace with the users that /etc/subuid gives them.
    let ways: &[&[&str]] = if install::is_root() {
        &[&[]]
    } else {
        &[&["--map-root-user", "--map-auto"]]
    };
    let mut reasons = Vec::new();
    for way in ways {
        let output = place
            .inside(way, PROBE)?
            .stdin(Stdio::null())
            .output()
            .context("cannot run unshare")?;
        if output.status.success() {
            println!("Installing it into a copy of this machine that is gone afterwards.");
            process::run_named(
                place.inside(way, CHECK)?.arg(&package).stdin(Stdio::null()),
                "the test of the package",
            )?;
            return Ok(Tested::Yes);
        }
        reasons.push(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " "));
    }
    Ok(Tested::No(format!(
        "no place to install it into could be made here, which root can do outside of containers ({})",
        reasons.join("; ")
    )))
}

/// Makes the package in `folder`.
fn build(build: Build, folder: &Path) -> Result<PathBuf> {
    let profile: &[&str] = match build {
        Build::Release => &["--release"],
        Build::Debug => &[],
    };
    let program = process::build("fpush", profile)?;
    let time = stage::stage(&program)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // Quiet: it would warn of each file from target/package that it does not build it.
    let mut deb = cargo(&["deb", "--quiet", "--package", "fpush", "--no-build", "--output"]);
    deb.arg(env::current_dir()?.join(folder))
        .stdin(Stdio::null())
        .env("SOURCE_DATE_EPOCH", time);
    if build == Build::Debug {
        deb.arg("--fast");
    }
    println!("{}", process::line(&deb));
    let mut package = None;
    process::run_reading(&mut deb, &mut |line| {
        if line.ends_with(".deb") {
            package = Some(PathBuf::from(line.trim()));
        }
    })?;
    package.context("cargo deb names no package")
}

/// Lets lintian read the package, if it is there.
fn lint(package: &Path) -> Result<()> {
    if !process::is_there("lintian") {
        println!("There is no lintian here, which would read the package, too.");
        return Ok(());
    }
    let mut lintian = Command::new("lintian");
    lintian
        .args(["--allow-root", "--fail-on", "error,warning"])
        .arg("--suppress-tags")
        .arg(ACCEPTED.join(","))
        .arg(package)
        .stdin(Stdio::null());
    println!("{}", process::line(&lintian));
    process::run(&mut lintian)
}

/// What lintian says and is no fault here.
const ACCEPTED: [&str; 4] = [
    // There is no such bug: nobody has filed an intent to package it.
    "initial-upload-closes-no-bugs",
    // Whoever gives the package to others puts in an address.
    "bogus-mail-host",
    "bogus-mail-host-in-debian-changelog",
    // It has the name that the book and the repository call it by.
    "wrong-name-for-upstream-changelog",
];

/// An empty folder, on which everything is mounted; what is mounted there is seen by nobody else and goes with the last
/// process that sees it.
struct Place(PathBuf);

impl Place {
    fn new() -> Result<Self> {
        let place = env::temp_dir().join(format!("fpush-package-{}", std::process::id()));
        fs::create_dir(&place).with_context(|| format!("cannot make {}", place.display()))?;
        Ok(Self(place))
    }

    /// A task of this program in namespaces of its own, which ends with it.
    fn inside(&self, way: &[&str], task: &str) -> Result<Command> {
        let mut command = Command::new("unshare");
        command
            .args(way)
            .args(["--mount", "--pid", "--fork", "--kill-child", "--"])
            .arg(env::current_exe().context("cannot find this program")?)
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
