//! `cargo xtask package`: the Debian package, and whether it can be installed, run, upgraded and removed.

mod checks;
mod licences;
mod root;
mod service;
pub(crate) mod stage;
mod unit;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use fpush_testkit::TempDir;

pub(crate) use self::checks::check;
pub(crate) use self::root::probe;
use crate::elf::{self, Glibc};
use crate::install::{self, CargoTool, Package};
use crate::machine;
use crate::place::{Task, Tested};
use crate::process::{self, cargo};
use crate::release::{Build, OLDEST};

/// The task that says whether there can be a root folder to install into, in namespaces of its own.
pub(crate) const PROBE: &str = "package-probe";

/// The task that installs, checks and removes, there too.
pub(crate) const CHECK: &str = "package-check";

/// Builds the package that is given to others.
pub(crate) fn run(build: Build) -> Result<()> {
    install::cargo_tool(CargoTool::Deb)?;
    let start = Instant::now();
    let package = make(build, Path::new("target/debian"))?;
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
        None => make(Build::Debug, Path::new("target/package/test"))?,
    };
    lint(&package)?;
    declares_its_glibc(&package)?;
    println!("Installing it into a copy of this machine that is gone afterwards.");
    TASK.run(&package)
}

/// Tests a package under a real systemd: one that is there, or one of the debug build.
pub(crate) fn run_systemd(package: Option<&str>) -> Result<()> {
    let package = match package {
        Some(package) => package.into(),
        None => {
            install::cargo_tool(CargoTool::Deb)?;
            make(Build::Debug, Path::new("target/package/test"))?
        }
    };
    if declared_glibc(&package)? <= OLDEST
        && let Tested::No(reason) = machine::test_oldest(&package)?
    {
        println!("skipped: the package in the oldest Debian, because {reason}");
    }
    if let Tested::No(reason) = machine::test(&package)? {
        println!("skipped: the package under systemd, because {reason}");
    }
    Ok(())
}

/// Fails if the program would not start with the oldest glibc that the package can be installed with.
fn declares_its_glibc(package: &Path) -> Result<()> {
    let folder = TempDir::new();
    process::run(
        Command::new("dpkg-deb")
            .arg("--extract")
            .args([package, folder.path()]),
    )?;
    let asks = elf::glibc(&folder.path().join("usr/bin/fpush"))?;
    let declared = declared_glibc(package)?;
    println!("The program asks for glibc {asks}, the package for {declared}.");
    ensure!(
        asks <= declared,
        "the package can be installed with glibc {declared}, and the program asks for {asks}"
    );
    Ok(())
}

/// The oldest glibc that a package can be installed with.
fn declared_glibc(package: &Path) -> Result<Glibc> {
    let fields = process::said_by(
        Command::new("dpkg-deb")
            .arg("--field")
            .arg(package)
            .arg("Depends"),
    )?;
    glibc_of(&fields).with_context(|| format!("no glibc among {fields}"))
}

/// The same among its dependencies: `libc6 (>= 2.31)`.
fn glibc_of(depends: &str) -> Option<Glibc> {
    let version = depends.split_once("libc6 (>= ")?.1;
    Glibc::parse(version.split([')', '-', '~']).next()?)
}

/// Makes the package in `folder`.
pub(crate) fn make(build: Build, folder: &Path) -> Result<PathBuf> {
    let program = build.program()?;
    let time = stage::stage(&program)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // Quiet: it would warn of each file from target/package that it does not build it.
    let mut deb = cargo(&["deb", "--quiet", "--package", "fpush", "--no-build", "--output"]);
    deb.arg(env::current_dir()?.join(folder))
        .stdin(Stdio::null())
        .env("SOURCE_DATE_EPOCH", time);
    match build {
        Build::Portable => {
            deb.args(["--variant", "portable"]);
        }
        Build::Native => {}
        Build::Debug => {
            deb.arg("--fast");
        }
    }
    println!("{}", process::line(&deb));
    let mut package = None;
    process::run_reading(&mut deb, &mut |line| {
        if line.ends_with(".deb") {
            package = Some(PathBuf::from(line.trim()));
        }
    })?;
    let package = package.context("cargo deb names no package")?;
    if build == Build::Portable {
        let declared = declared_glibc(&package)?;
        ensure!(
            declared <= OLDEST,
            "{} cannot be installed with glibc {OLDEST}",
            package.display()
        );
    }
    Ok(package)
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

/// What lintian says and is not a fault here.
const ACCEPTED: [&str; 2] = [
    // There is no such bug: nobody has filed an intent to package it.
    "initial-upload-closes-no-bugs",
    // It has the name that the book and the repository call it by.
    "wrong-name-for-upstream-changelog",
];

const TASK: Task = Task {
    probe: PROBE,
    check: CHECK,
    title: "the test of the package",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declared_glibc_is_read() {
        let depends = "adduser, libc6 (>= 2.31), libgcc-s1";
        assert_eq!(glibc_of(depends), Some(Glibc::new(2, 31)));
        assert_eq!(glibc_of("libc6 (>= 2.34-1~)"), Some(Glibc::new(2, 34)));
        assert_eq!(glibc_of("libc6"), None);
    }
}
