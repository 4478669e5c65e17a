//! The files of the image.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use fpush_testkit::TempDir;

use super::{STATE, USER, empty};
use crate::elf;
use crate::process;

/// The files of the image, and what they are made of.
pub(super) struct Tree {
    /// The folder that becomes `/`. The owner of everything in it is root, but for the state folder.
    pub(super) root: PathBuf,
    /// What fpush says with `--version`.
    pub(super) version: String,
    /// The packages that files come from: `libc6 2.36-9`.
    pub(super) packages: Vec<String>,
}

/// Whether the packages that it is made of can be had. Old lists of packages name files that are gone: root gets new ones first.
pub(super) fn can_be_had() -> bool {
    let is_there = || process::succeeds(download(&PACKAGES[..1], TempDir::new().path()));
    if is_there() {
        return true;
    }
    if !fpush_testkit::is_root() {
        return false;
    }
    println!(
        "Debian's packages cannot be downloaded by the lists that are here: getting new ones with apt-get update."
    );
    let mut update = Command::new("apt-get");
    update.args(["update", "-q"]).stdin(Stdio::null());
    process::run(&mut update).is_ok() && is_there()
}

/// The command that puts packages of Debian into a folder.
fn download(names: &[&str], folder: &Path) -> Command {
    let mut get = Command::new("apt-get");
    get.args(["download", "-q"])
        .args(names)
        .current_dir(folder)
        .stdin(Stdio::null());
    get
}

/// Makes it in an empty folder. `stage` has made the program and its documents.
pub(super) fn make(work: &Path) -> Result<Tree> {
    let (root, debian, archives) = (work.join("root"), work.join("debian"), work.join("archives"));
    for folder in [&root, &debian, &archives] {
        empty(folder)?;
    }
    for folder in FOLDERS.into_iter().chain([STATE.trim_start_matches('/')]) {
        fs::create_dir_all(root.join(folder)).with_context(|| format!("cannot make {folder}"))?;
    }
    let program = root.join("usr/bin/fpush");
    copy(Path::new("target/package/fpush"), &program)?;
    let mut wanted = elf::libraries(&program)?;
    // A program that was linked with zig needs nothing of gcc.
    let gcc = wanted.iter().any(|library| library == "libgcc_s.so.1");
    let packages = unpack(if gcc { WITH_GCC } else { PACKAGES }, &archives, &debian, &root)?;

    let found = files(&debian)?;
    let libraries = root.join("usr/lib").join(LIBRARIES);
    fs::create_dir_all(&libraries)?;
    // The loader is what the kernel starts; it looks for the others where Debian has them.
    copy_library(LOADER, &found, &libraries)?;
    symlink(
        format!("../lib/{LIBRARIES}/{LOADER}"),
        root.join("usr/lib64").join(LOADER),
    )?;
    for folder in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{folder}"), root.join(folder))?;
    }
    let mut copied = BTreeSet::from([LOADER.to_owned()]);
    while let Some(name) = wanted.pop() {
        if copied.insert(name.clone()) {
            copy_library(&name, &found, &libraries)?;
            wanted.extend(elf::libraries(&libraries.join(name))?);
        }
    }

    certificates(&debian, &root.join("etc/ssl/certs/ca-certificates.crt"))?;
    for (file, text) in [
        ("etc/passwd", PASSWD.replace("USER", &USER.to_string())),
        ("etc/group", GROUP.replace("USER", &USER.to_string())),
        ("etc/nsswitch.conf", NSSWITCH.to_owned()),
        // Everything may come from variables of the environment.
        ("etc/fpush/settings.json", "{}\n".to_owned()),
    ] {
        fs::write(root.join(file), text).with_context(|| format!("cannot write {file}"))?;
    }
    for (from, to) in [
        ("packaging/debian/copyright", "fpush/copyright"),
        ("target/package/doc/THIRD-PARTY", "fpush/THIRD-PARTY"),
    ] {
        copy(Path::new(from), &root.join("usr/share/doc").join(to))?;
    }
    let version = process::said_by(Command::new(program).arg("--version"))?;
    Ok(Tree {
        root,
        version: version.trim().trim_start_matches("fpush ").to_owned(),
        packages,
    })
}

/// Gets Debian's packages and unpacks them. What they are and their licences go into the image, where scanners look for them.
fn unpack(names: &[&str], archives: &Path, debian: &Path, root: &Path) -> Result<Vec<String>> {
    process::run(&mut download(names, archives))
        .context("glibc and certificates cannot be had; run `apt-get update` as root, then run this again")?;
    let mut packages = Vec::new();
    let mut found = files(archives)?;
    found.sort();
    for archive in found {
        process::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(debian))?;
        let control = process::said_by(Command::new("dpkg-deb").arg("-f").arg(&archive))?;
        let field = |name: &str| {
            let lines = control.lines();
            lines
                .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .next()
                .with_context(|| format!("{} has no {name}", archive.display()))
        };
        let name = field("Package")?;
        packages.push(format!("{name} {}", field("Version")?));
        fs::write(root.join("var/lib/dpkg/status.d").join(name), &control)?;
        let licence = Path::new("usr/share/doc").join(name).join("copyright");
        // libgcc-s1 has a link to the folder of another package in its place.
        if debian.join(&licence).is_file() {
            copy(&debian.join(&licence), &root.join(&licence))?;
        }
    }
    copy(Path::new("/etc/os-release"), &root.join("etc/os-release"))?;
    Ok(packages)
}

/// All authorities in one file, as `update-ca-certificates` makes it.
fn certificates(debian: &Path, to: &Path) -> Result<()> {
    let mut found = files(&debian.join("usr/share/ca-certificates"))?;
    found.retain(|file| file.extension().is_some_and(|extension| extension == "crt"));
    found.sort();
    ensure!(!found.is_empty(), "ca-certificates has no certificates");
    let mut bundle = String::new();
    for file in found {
        bundle += &fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        if !bundle.ends_with('\n') {
            bundle.push('\n');
        }
    }
    fs::write(to, bundle).context("cannot write the certificates")
}

fn copy_library(name: &str, found: &[PathBuf], to: &Path) -> Result<()> {
    // A link may lead to a file of this machine.
    let mut found = found.iter().filter(|file| !file.is_symlink());
    let file = found.find(|file| file.ends_with(name));
    let file =
        file.with_context(|| format!("fpush needs {name}, which is in none of Debian's {WITH_GCC:?}"))?;
    copy(file, &to.join(name))
}

/// All files and links below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// Of Debian, from which the image has files.
const PACKAGES: &[&str] = &["ca-certificates", "libc6"];
const WITH_GCC: &[&str] = &["ca-certificates", "libc6", "libgcc-s1"];

const LIBRARIES: &str = "x86_64-linux-gnu";
const LOADER: &str = "ld-linux-x86-64.so.2";

/// Some of them are for what a container's runtime mounts.
const FOLDERS: [&str; 11] = [
    "dev",
    "etc/fpush",
    "etc/ssl/certs",
    "proc",
    "run/secrets",
    "sys",
    "usr/bin",
    "usr/lib",
    "usr/lib64",
    "usr/share/doc",
    "var/lib/dpkg/status.d",
];

const PASSWD: &str = "\
root:x:0:0:root:/root:/usr/sbin/nologin
fpush:x:USER:USER:fpush:/nonexistent:/usr/sbin/nologin
";

const GROUP: &str = "\
root:x:0:
fpush:x:USER:
";

const NSSWITCH: &str = "\
passwd: files
group: files
hosts: files dns
";
