//! `cargo xtask image`: a container image with the program, glibc, the authorities' certificates and nothing else.

mod archive;
mod check;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

pub(crate) use self::check::{check, probe};
use crate::install::{self, Package};
use crate::package::stage;
use crate::place::{Task, Tested};
use crate::process;
use crate::release::Build;

/// The task that says whether an image can be run here, in namespaces of its own.
pub(crate) const PROBE: &str = "image-probe";

/// The task that runs it, there too.
pub(crate) const CHECK: &str = "image-check";

/// Makes the image that is given to others.
pub(crate) fn run(build: Build) -> Result<()> {
    let start = Instant::now();
    install::ensure(NEEDED)?;
    let image = make(build, Path::new("target/image"))?;
    let size = fs::metadata(&image)?.len();
    println!(
        "\n{} with {} MB in {:.0} s",
        image.display(),
        size / 1_000_000,
        start.elapsed().as_secs_f64()
    );
    println!("Check it with: cargo xtask image --test {}", image.display());
    println!(
        "Use it with: podman load -i {0}, or docker load -i {0}",
        image.display()
    );
    Ok(())
}

/// Tests one that is there, or an image of the debug build.
pub(crate) fn run_test(image: Option<&str>) -> Result<()> {
    install::ensure(NEEDED)?;
    match test(image.map(Path::new))? {
        Tested::Yes => Ok(()),
        Tested::No(reason) => bail!("the image was not tested: {reason}"),
    }
}

/// The same, as a step of `cargo xtask test`, which has installed what this needs.
pub(crate) fn test(image: Option<&Path>) -> Result<Tested> {
    if ["apt-get", "dpkg-deb"].map(process::is_there) != [true; 2] {
        return Ok(Tested::No(
            "glibc comes from Debian, and this machine has no apt-get".to_owned(),
        ));
    }
    if image.is_none() && !tree::can_be_had() {
        return Ok(Tested::No(
            "glibc cannot be downloaded from Debian now; `apt-get update` and `apt-get download libc6` say why".to_owned(),
        ));
    }
    let image = match image {
        Some(image) => {
            fs::canonicalize(image).with_context(|| format!("there is no image {}", image.display()))?
        }
        None => make(Build::Debug, Path::new("target/image/test"))?,
    };
    println!("Running it in a folder and namespaces of its own.");
    TASK.run(&image)
}

/// Makes the image in `folder`.
fn make(build: Build, folder: &Path) -> Result<PathBuf> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("images are made and tried on amd64 alone");
    }
    let program = build.program()?;
    let time = stage::stage(&program)?;
    let folder = std::env::current_dir()?.join(folder);
    empty(&folder.join("work"))?;
    let tree = tree::make(&folder.join("work"))?;
    let image = archive::make(&tree, &folder, &time)?;
    fs::remove_dir_all(folder.join("work")).context("cannot remove what the image was made of")?;
    Ok(image)
}

/// An empty folder. What was there is removed.
fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// The user of the program in the image, and its group.
const USER: u32 = 10_001;

/// The only folder that it writes to.
const STATE: &str = "/var/lib/fpush";

const NEEDED: &[Package] = &[Package::Binutils];

const TASK: Task = Task {
    probe: PROBE,
    check: CHECK,
    title: "the test of the image",
};
