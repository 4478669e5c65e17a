//! Whether a package can be installed, and its program starts, in the oldest Debian that it is made for.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::install::{self, Package};
use crate::place::Tested;
use crate::process;

/// Installs a package in a Debian of its own, with what it depends on there, and starts its program. Nothing is kept of it.
pub(crate) fn test(package: &Path) -> Result<Tested> {
    if !fpush_testkit::is_root() {
        return Ok(Tested::No(
            "only root can install a Debian into a folder".to_owned(),
        ));
    }
    if !process::is_there("apt-get") {
        return Ok(Tested::No(
            "this machine has no apt-get, and mmdebstrap needs it".to_owned(),
        ));
    }
    install::ensure(&[Package::Mmdebstrap])?;
    let package = fs::canonicalize(package).with_context(|| format!("no package {}", package.display()))?;
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--variant=minbase", "--format=null"]);
    let upload = format!("upload '{}' /fpush.deb", package.display());
    let inside = [
        "apt-get install --yes --no-install-recommends /fpush.deb",
        "fpush --version",
        // Cryptography and files.
        "fpush vapid new /tmp/vapid.key",
    ];
    let inside = inside.map(|line| format!("chroot \"$1\" {line}"));
    for hook in [upload].iter().chain(&inside) {
        mmdebstrap.arg(format!("--customize-hook={hook}"));
    }
    mmdebstrap.args([OLDEST, "/dev/null"]).stdin(Stdio::null());
    println!("{}", process::line(&mmdebstrap));
    process::run(&mut mmdebstrap)?;
    Ok(Tested::Yes)
}

/// The one with [`crate::release::OLDEST`].
const OLDEST: &str = "bullseye";
