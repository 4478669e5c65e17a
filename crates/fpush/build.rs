//! Says which version the program calls itself: `FPUSH_VERSION`, with the commit where it is known.
//!
//! The commit is that of `FPUSH_COMMIT` in the environment of the build, for packages that are built without git, or that
//! of the checkout. Development builds go without the latter, so that a commit alone rebuilds nothing.

#![expect(clippy::disallowed_macros, reason = "cargo reads what a build script prints")]

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=FPUSH_COMMIT");
    let given = env::var("FPUSH_COMMIT").ok().filter(|commit| is_commit(commit));
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given.or_else(|| if is_release { commit_of_checkout() } else { None });
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    match commit {
        Some(commit) => println!("cargo::rustc-env=FPUSH_VERSION={version} ({commit})"),
        None if is_release => println!("cargo::rustc-env=FPUSH_VERSION={version}"),
        None => println!("cargo::rustc-env=FPUSH_VERSION={version} (development build)"),
    }
}

/// Whether it can be a commit, with a mark or without: it becomes part of a line.
fn is_commit(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c))
}

/// The commit of the checkout, with a plus if something in it was changed since. `None` outside of one, and where the
/// sources lie in another project's checkout.
fn commit_of_checkout() -> Option<String> {
    let root = Path::new(&env::var_os("CARGO_MANIFEST_DIR")?)
        .join("../..")
        .canonicalize()
        .ok()?;
    let top = git(&root, &["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != root {
        return None;
    }
    // What may change the answer: the commit, the branch that it is on, and all that the program is made of.
    let branch = git(&root, &["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD"].into_iter().chain(branch.as_deref()) {
        let file = root.join(git(&root, &["rev-parse", "--git-path", name])?);
        // Cargo takes a file that is not there for one that always changes.
        if file.exists() {
            println!("cargo::rerun-if-changed={}", file.display());
        }
    }
    for part in ["crates", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(part).display());
    }
    let commit = git(&root, &["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&root, &["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { commit + "+" })
}

/// What git says, without the line's end.
fn git(root: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim_end().to_owned())
}
