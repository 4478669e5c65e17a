//! The program that goes into a package or an image.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::elf::{self, Glibc};
use crate::install;
use crate::process;

/// Which build of the program it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// For others: it starts on every machine with [`OLDEST`] or a newer glibc.
    Portable,
    /// For machines whose glibc is as new as that of this one.
    Native,
    /// For tests: it is there already.
    Debug,
}

impl Build {
    /// Reads the options of a task that builds for others.
    pub(crate) fn read(options: &[&str]) -> Result<Self> {
        match options {
            [] => Ok(Self::Portable),
            [THIS_GLIBC] => Ok(Self::Native),
            _ => bail!("the only option is {THIS_GLIBC}"),
        }
    }

    /// Builds the program, and returns its path.
    pub(crate) fn program(self) -> Result<PathBuf> {
        match self {
            Self::Portable => portable(),
            Self::Native => process::build("fpush", &["--release", "--locked"]),
            Self::Debug => process::build("fpush", &[]),
        }
    }
}

/// Links with zig, which knows the symbols of each glibc.
fn portable() -> Result<PathBuf> {
    let programs = install::zig().with_context(|| {
        format!(
            "zig cannot be had, which links for an old glibc; with {THIS_GLIBC} the compiler of this machine is used, \
             and the program needs a glibc that is as new as this machine's"
        )
    })?;
    println!("Building fpush for glibc {OLDEST} and later; this takes some minutes.");
    let mut path = vec![programs.clone()];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let mut build = std::process::Command::new(programs.join("cargo-zigbuild"));
    build
        .args(["zigbuild", "--message-format", "json-render-diagnostics"])
        .args(["--package", "fpush", "--release", "--locked", "--target"])
        .arg(format!("{}-unknown-linux-gnu.{OLDEST}", env::consts::ARCH))
        .env("PATH", env::join_paths(path)?);
    let program = process::build_with(&mut build, "fpush")?;
    is_old_enough(&program)?;
    Ok(program)
}

fn is_old_enough(program: &Path) -> Result<()> {
    let glibc = elf::glibc(program)?;
    ensure!(
        glibc <= OLDEST,
        "{} asks for glibc {glibc}, and shall start with {OLDEST}",
        program.display()
    );
    println!("{} asks for glibc {glibc}.", program.display());
    Ok(())
}

/// That of Debian 11.
pub(crate) const OLDEST: Glibc = Glibc::new(2, 31);

/// The option for a machine on which zig cannot be had.
const THIS_GLIBC: &str = "--this-glibc";
