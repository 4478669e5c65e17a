//! Debian packages that a task needs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};
use fpush_testkit::{
    Ntfy, Redis, is_root,
    servers::{Ejabberd, Prosody},
};

use crate::process::{self, cargo};

/// A server and what has to be installed for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Package {
    /// Prosody with the community modules.
    Prosody,
    /// ejabberd.
    Ejabberd,
    /// PostgreSQL, of whose programs the tests start an instance of their own.
    Postgresql,
    /// `MariaDB`, of whose programs the tests start an instance of their own.
    MariaDb,
    /// Redis or Valkey, of which the tests start servers of their own.
    Redis,
    /// A browser.
    Chromium,
    /// Another one, which decrypts pushes without its vendor's push service.
    Firefox,
    /// The client of the HTTP API's examples.
    Curl,
    /// What reads alert rules and metrics.
    Promtool,
    /// What moves the clocks of a program.
    Faketime,
    /// What gives a network of its own an address.
    Iproute,
    /// What shows what a program asks the system for.
    Strace,
    /// What looks into a database past fpush.
    Sqlite,
    /// What checks settings against their JSON Schema.
    JsonSchema,
    /// What reads YAML.
    Yaml,
    /// An XMPP client of others, with which users' commands are tried.
    Slixmpp,
    /// What fpush's own package depends on.
    Dependencies,
    /// What makes a folder for Python programs.
    PythonVenv,
    /// What looks into programs.
    Binutils,
    /// What makes a Debian of its own in a folder.
    Mmdebstrap,
    /// What boots one.
    Nspawn,
}

impl Package {
    fn is_installed(self) -> bool {
        match self {
            Self::Prosody => Prosody::is_installed(),
            Self::Ejabberd => Ejabberd::is_installed(),
            Self::Postgresql => Path::new("/usr/lib/postgresql").is_dir(),
            Self::MariaDb => ["mariadbd", "mariadb-install-db"].map(process::is_there) == [true; 2],
            Self::Redis => Redis::is_installed(),
            Self::Chromium => process::is_there("chromium"),
            Self::Firefox => process::is_there("firefox-esr"),
            Self::Curl => process::is_there("curl"),
            Self::Promtool => process::is_there("promtool"),
            Self::Faketime => process::is_there("faketime"),
            Self::Iproute => process::is_there("ip"),
            Self::Strace => process::is_there("strace"),
            Self::Sqlite => process::is_there("sqlite3"),
            Self::JsonSchema => has_python("jsonschema"),
            Self::Yaml => has_python("yaml"),
            Self::Slixmpp => Path::new("/usr/lib/python3/dist-packages/slixmpp").is_dir(),
            Self::Binutils => ["objdump", "strip"].map(process::is_there) == [true; 2],
            Self::Mmdebstrap => process::is_there("mmdebstrap"),
            Self::Nspawn => process::is_there("systemd-nspawn"),
            Self::PythonVenv => has_python("ensurepip, venv"),
            Self::Dependencies => ["/usr/sbin/adduser", "/usr/sbin/update-ca-certificates"]
                .iter()
                .all(|program| Path::new(program).exists()),
        }
    }

    fn debian_names(self) -> &'static [&'static str] {
        match self {
            Self::Prosody => &["prosody", "prosody-modules"],
            Self::Ejabberd => &["ejabberd"],
            Self::Postgresql => &["postgresql"],
            Self::MariaDb => &["mariadb-server"],
            Self::Redis => &["redis-server"],
            Self::Chromium => &["chromium"],
            Self::Firefox => &["firefox-esr"],
            Self::Curl => &["curl"],
            Self::Promtool => &["prometheus"],
            Self::Faketime => &["faketime"],
            Self::Iproute => &["iproute2"],
            Self::Strace => &["strace"],
            Self::Sqlite => &["sqlite3"],
            Self::JsonSchema => &["python3-jsonschema"],
            Self::Yaml => &["python3-yaml"],
            Self::Slixmpp => &["python3-slixmpp"],
            Self::Dependencies => &["adduser", "ca-certificates"],
            Self::PythonVenv => &["python3-venv"],
            Self::Binutils => &["binutils"],
            Self::Mmdebstrap => &["mmdebstrap"],
            Self::Nspawn => &["systemd-container"],
        }
    }
}

fn has_python(module: &str) -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", &format!("import {module}")]);
    process::succeeds(python)
}

/// Installs those that are missing, and says so first.
pub(crate) fn ensure(wanted: &[Package]) -> Result<()> {
    let missing = wanted
        .iter()
        .copied()
        .filter(|package| !package.is_installed())
        .collect::<Vec<_>>();
    let names = missing
        .iter()
        .flat_map(|package| package.debian_names())
        .copied()
        .collect::<Vec<_>>();
    if names.is_empty() {
        let names = wanted
            .iter()
            .flat_map(|package| package.debian_names())
            .copied()
            .collect::<Vec<_>>();
        println!("Installed already: {}.", names.join(", "));
        return Ok(());
    }
    let by_hand = format!("apt-get install {}", names.join(" "));
    if !process::is_there("apt-get") {
        bail!(
            "{} is missing and this machine has no apt-get: install it, then run this again",
            names.join(", ")
        );
    }
    let root = is_root();
    if !root && !process::is_there("sudo") {
        bail!(
            "{} is missing and there is no sudo: run `{by_hand}` as root, then run this again",
            names.join(", ")
        );
    }
    println!(
        "Installing from Debian: {}{by_hand}\nThe system-wide service is neither started now nor at boot: what runs \
         here are private servers.\n",
        if root { "" } else { "sudo " }
    );
    let mut command = Command::new(if root { "/bin/sh" } else { "sudo" });
    if !root {
        command.arg("/bin/sh");
    }
    command
        .args(["-c", INSTALL, "install"])
        .args(&names)
        .stdin(Stdio::null());
    process::run_named(&mut command, &by_hand).with_context(|| {
        format!(
            "could not install {}; run `{by_hand}` as root, then run this again",
            names.join(", ")
        )
    })?;
    for package in missing {
        if !package.is_installed() {
            bail!(
                "{} is installed and still not found",
                package.debian_names().join(", ")
            );
        }
    }
    println!();
    Ok(())
}

/// A subcommand of cargo that is installed with cargo.
#[derive(Clone, Copy)]
pub(crate) enum CargoTool {
    /// Checks dependencies and their licences.
    Deny,
    /// Makes Debian packages.
    Deb,
}

/// Installs it if it is missing, and says so first.
pub(crate) fn cargo_tool(tool: CargoTool) -> Result<()> {
    let (command, version) = match tool {
        CargoTool::Deny => ("deny", "^0.20"),
        CargoTool::Deb => ("deb", "^3"),
    };
    if process::succeeds(cargo(&[command, "--version"])) {
        println!("Installed already: cargo-{command}.");
        return Ok(());
    }
    println!("Installing cargo-{command} with cargo install; this takes a minute or two.");
    let package = format!("cargo-{command}");
    let mut install = cargo(&["install", &package, "--locked", "--version", version, "--debug"]);
    // It is built once and runs for seconds: neither optimised nor with debug information.
    install.env("CARGO_PROFILE_DEV_DEBUG", "0").stdin(Stdio::null());
    process::run(&mut install)
        .map_err(|error| anyhow!("{error:#}\nto repeat it: {}", process::line(&install)))
}

/// Installs zig and what lets cargo link with it below `target`, if they are missing, and says so first. Returns the folder of
/// the programs.
pub(crate) fn zig() -> Result<PathBuf> {
    let folder = env::current_dir()?.join("target/tools/zig");
    let (programs, installed) = (folder.join("bin"), folder.join("installed.txt"));
    let wanted = fs::read(ZIG).with_context(|| format!("cannot read {ZIG}"))?;
    if fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        println!("Installed already: zig.");
        return Ok(programs);
    }
    ensure(&[Package::PythonVenv])?;
    println!(
        "Installing zig and cargo-zigbuild with pip, in {}.",
        folder.display()
    );
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(&folder);
    process::run(venv.stdin(Stdio::null()))?;
    let mut pip = Command::new(programs.join("pip"));
    pip.args(["install", "--quiet", "--require-hashes", "-r", ZIG]);
    process::run(pip.stdin(Stdio::null()))?;
    fs::write(&installed, wanted).with_context(|| format!("cannot write {}", installed.display()))?;
    Ok(programs)
}

/// Unpacks ntfy below `target`, if it is not there and this machine has none, and says so first. Debian has it since its release 13,
/// and what that brings runs on older ones. Returns why there is none, if it cannot be had.
pub(crate) fn ntfy() -> Result<Option<String>> {
    if let Some(program) = Ntfy::program() {
        println!("Installed already: {}.", program.display());
        return Ok(None);
    }
    if !["apt-get", "dpkg-deb"]
        .iter()
        .all(|program| process::is_there(program))
    {
        return Ok(Some("this machine has no apt-get, and no ntfy".to_owned()));
    }
    let folder = env::current_dir()?.join("target/tools/ntfy");
    println!("Unpacking Debian's ntfy in {}.", folder.display());
    let mut unpack = Command::new("/bin/sh");
    unpack
        .args(["-c", UNPACK, "unpack"])
        .arg(&folder)
        .stdin(Stdio::null());
    let unpacked = process::run_named(&mut unpack, "getting ntfy of Debian 13");
    Ok(match (unpacked, Ntfy::program()) {
        (_, Some(_)) => None,
        (Err(error), None) => Some(format!("{error:#}")),
        (Ok(()), None) => Some("Debian's package has no /usr/bin/ntfy".to_owned()),
    })
}

/// The versions of zig and cargo-zigbuild, for pip.
const ZIG: &str = "packaging/zig.txt";

/// Gets a package of Debian 13 from where this machine gets its own, without a trace in the lists of this machine.
const UNPACK: &str = r#"
set -e
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/$' | head -n 1)
[ -n "$mirror" ] || { echo 'no mirror of Debian is known here' >&2; exit 1; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
mkdir -p "$place/lists/partial" "$place/cache/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$place/sources.list"
apt() {
    apt-get -q -o Dir::Etc::SourceList="$place/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$place/lists" -o Dir::Cache="$place/cache" -o APT::Sandbox::User="$(id -un)" "$@"
}
apt update
cd "$place"
apt download ntfy
mkdir -p "$1"
dpkg-deb -x ntfy_*.deb "$1"
"#;

/// Debian starts a service when its package is installed, unless policy-rc.d says no.
const INSTALL: &str = r#"
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    trap 'exit 1' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y "$@"
if command -v systemctl >/dev/null; then
    for service in "$@"; do
        systemctl disable --quiet "$service" 2>/dev/null || true
    done
fi
"#;
