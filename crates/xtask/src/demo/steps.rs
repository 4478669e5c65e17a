//! What all demos begin with.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process::{self, cargo};

/// The title of a step.
pub(super) fn heading(title: &str) {
    println!("\n=== {title}\n");
}

/// Builds the daemon and returns where cargo put it.
pub(super) fn build() -> Result<PathBuf> {
    println!("The first build takes a few minutes.");
    let mut command = cargo(&[
        "build",
        "--package",
        "fpush",
        "--message-format",
        "json-render-diagnostics",
    ]);
    let mut program = None;
    process::run_reading(command.stdin(Stdio::null()), &mut |line| {
        let message = serde_json::from_str::<Value>(line).unwrap_or_default();
        if message["target"]["name"] == "fpush"
            && let Some(path) = message["executable"].as_str()
        {
            program = Some(PathBuf::from(path));
        }
    })
    .context("the build fails: if it asks for a C compiler, run `apt-get install build-essential`")?;
    let program = program.context("cargo names no program: is there a `fpush` binary in crates/fpush?")?;
    println!("Built: {}", program.display());
    Ok(program)
}
