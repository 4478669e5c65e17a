//! `cargo xtask fuzz`: inputs that nobody thought of, for every reader of foreign bytes.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{interrupt, process};

/// For how long, in all.
pub(crate) fn read(seconds: &str) -> Result<Duration> {
    let number = seconds
        .parse()
        .with_context(|| format!("{seconds} is not a number of seconds"))?;
    Ok(Duration::from_secs(number))
}

/// Runs libFuzzer where there are a nightly compiler and cargo-fuzz, and otherwise what every compiler can do.
pub(crate) fn run(time: Duration) -> Result<()> {
    let fuzzer = |arguments: &[&str]| {
        let mut command = Command::new("rustup");
        command.args(["run", "nightly", "cargo", "fuzz"]).args(arguments);
        command
    };
    if !process::succeeds(fuzzer(&["--version"])) {
        println!(
            "There is no libFuzzer here: it needs `rustup toolchain install nightly` and `cargo install cargo-fuzz`.\n\
             The corpus is spoilt at random instead, without a look at what that reaches.\n"
        );
        let seconds = time.as_secs().to_string();
        let test = [
            "test",
            "-p",
            "fpush-fuzz",
            "--test",
            "replay",
            "--",
            "--ignored",
            "--nocapture",
        ];
        return process::run(process::cargo(&test).env("FPUSH_FUZZ_SECONDS", seconds));
    }
    let targets = targets()?;
    process::run(&mut fuzzer(&["build"]))?;
    let each = time.as_secs() / targets.len() as u64;
    for target in &targets {
        interrupt::check()?;
        // What it finds stays there, and what is worth it can be moved into the corpus by hand.
        let (found, corpus) = (format!("fuzz/work/{target}"), format!("fuzz/corpus/{target}"));
        fs::create_dir_all(&found)?;
        let limits = [
            format!("-max_total_time={}", each.max(1)),
            format!("-max_len={LONGEST}"),
            "-timeout=60".to_owned(),
            "-print_final_stats=1".to_owned(),
            "-verbosity=0".to_owned(),
        ];
        println!("\n{target}");
        process::run(fuzzer(&["run", target, &found, &corpus, "--"]).args(limits))?;
    }
    Ok(())
}

/// The names of all targets.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(Path::new("fuzz/fuzz_targets"))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        names.push(name.context("a target has a name")?.to_owned());
    }
    ensure!(!names.is_empty(), "there are no targets");
    names.sort();
    Ok(names)
}

/// Bytes of an input, as in the corpus.
const LONGEST: usize = 10 * 1_024;
