//! The files of the package that are not simply files of the repository, in `target/package`. The list of what goes where
//! is in `crates/fpush/Cargo.toml`, below `package.metadata.deb`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::licences;
use crate::{book, process};

/// Makes them, and returns the time of this version in seconds since 1970.
pub(crate) fn stage(program: &Path) -> Result<String> {
    let folder = Path::new("target/package");
    for part in ["completions", "doc"] {
        let part = folder.join(part);
        if part.exists() {
            fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
        }
    }
    for part in ["completions", "doc/examples"] {
        fs::create_dir_all(folder.join(part)).context("cannot make target/package")?;
    }

    let mut strip = Command::new("strip");
    strip
        .args(["--strip-unneeded", "-o"])
        .arg(folder.join("fpush"))
        .arg(program);
    process::run(&mut strip)?;

    for shell in ["bash", "zsh", "fish"] {
        let file = folder.join("completions").join(format!("fpush.{shell}"));
        let script = process::said_by(Command::new(program).args(["completions", shell]))?;
        write(&file, &script)?;
    }

    let unit = fs::read_to_string("fpush.service").context("cannot read fpush.service")?;
    write(&folder.join("fpush.service"), &packaged(&unit)?)?;

    let time = time()?;
    let date = process::said_by(Command::new("date").args(["-R", "-u", "-d", &format!("@{time}")]))?;
    let version = env!("CARGO_PKG_VERSION");
    let changelog = format!(
        "fpush ({}-1) unstable; urgency=medium\n\n  * Version {version}; CHANGELOG.md beside this file says what \
         changed.\n\n -- {MAINTAINER}  {}\n",
        version.replace('-', "~"),
        date.trim()
    );
    write(&folder.join("changelog"), &changelog)?;

    let doc = folder.join("doc");
    for file in DOCUMENTS {
        copy(Path::new(file), &doc.join(file))?;
    }
    // Below the same names as in the repository, so that the links between them hold.
    copy_folder(Path::new("docs"), &doc.join("docs"))?;
    // They are among the manual pages.
    fs::remove_dir_all(doc.join("docs/man")).context("cannot leave out docs/man")?;
    book::build(Path::new("."), &doc.join("html"))?;
    copy_folder(Path::new("examples"), &doc.join("examples"))?;
    write(&doc.join("THIRD-PARTY"), &licences::third_party()?)?;
    copy(
        Path::new("settings.example.json"),
        &doc.join("examples/settings.example.json"),
    )?;
    if Path::new("contrib").is_dir() {
        copy_folder(Path::new("contrib"), &doc.join("contrib"))?;
    }
    Ok(time)
}

/// The unit file with the program where a package has it. There is one unit file, and this is all that differs.
fn packaged(unit: &str) -> Result<String> {
    for key in ["ExecStart", "ExecReload"] {
        let line = format!("\n{key}={BY_HAND}");
        ensure!(
            unit.matches(&line).count() == 1,
            "fpush.service has not one {key}={BY_HAND}"
        );
    }
    Ok(unit
        .lines()
        .filter(|line| !line.starts_with("# The package has the program"))
        .map(|line| line.replace(BY_HAND, "/usr/bin/fpush ") + "\n")
        .collect())
}

/// The time of the last commit, so that the same sources make the same package; without git, now.
fn time() -> Result<String> {
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]);
    process::said_by(&mut git)
        .or_else(|_| process::said_by(Command::new("date").arg("+%s")))
        .map(|time| time.trim().to_owned())
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// Copies all that is in a folder.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            copy(&entry.path(), &to)?;
        }
    }
    Ok(())
}

/// Documents beside the book, which is in `docs`.
const DOCUMENTS: [&str; 5] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
];

/// The program in the unit file, for an installation by hand.
const BY_HAND: &str = "/usr/local/bin/fpush ";

/// As `crates/fpush/Cargo.toml` has it.
const MAINTAINER: &str = "The fpush authors <fpush@fpush.invalid>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_and_its_changelog_name_one_maintainer() {
        let manifest = include_str!("../../../fpush/Cargo.toml");
        assert!(manifest.contains(&format!("\nmaintainer = \"{MAINTAINER}\"\n")));
    }

    #[test]
    fn the_path_of_the_program_is_all_that_differs() {
        let unit = "[Service]\n# The package has the program elsewhere.\nExecStart=/usr/local/bin/fpush /etc/a\n\
            ExecReload=/usr/local/bin/fpush reload /etc/a\nUser=b\n";
        assert_eq!(
            packaged(unit).unwrap(),
            "[Service]\nExecStart=/usr/bin/fpush /etc/a\nExecReload=/usr/bin/fpush reload /etc/a\nUser=b\n"
        );
        packaged("[Service]\nExecStart=/usr/local/bin/fpush /etc/a\nExecReload=/bin/kill $MAINPID\n")
            .unwrap_err();
        packaged("[Service]\nExecStart=/opt/fpush /etc/a\nExecReload=/usr/local/bin/fpush\n").unwrap_err();
    }
}
