//! `cargo test` for programs that wait most of the time: several of them run at once, each with several tests at a time.

use std::collections::VecDeque;
use std::iter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::interrupt;
use crate::process::{self, cargo};

/// Builds the tests that arguments of `cargo test` select, with these features, and runs them all, whichever fail.
/// Lines of several programs come mixed, each with the name of its program; `read` gets them without that.
///
/// # Errors
/// The tests cannot be built, or some of them failed: then the error says how to run each of these again.
pub(crate) fn run(selection: &[&str], features: &[&str], read: &mut (dyn FnMut(&str) + Send)) -> Result<()> {
    let mut programs = build(selection, features)?;
    let place = |program: &Program| LONGEST.iter().position(|name| *name == program.target);
    programs.sort_by_key(|program| place(program).unwrap_or(LONGEST.len()));
    let (waiting, read) = (Mutex::new(VecDeque::from(programs)), Mutex::new(read));
    let next = || {
        if interrupt::happened() {
            return None;
        }
        waiting.lock().expect("mutex poisoned").pop_front()
    };
    let failed = thread::scope(|scope| {
        let run = || {
            iter::from_fn(next)
                .filter_map(|program| program.run(&read))
                .collect::<Vec<_>>()
        };
        let runners = [(); AT_ONCE].map(|()| scope.spawn(run));
        runners
            .map(|runner| runner.join().expect("a runner does not panic"))
            .concat()
    });
    interrupt::check()?;
    if !failed.is_empty() {
        // Said again where it is looked for: what the others have printed since is long.
        for Failed { program, said } in &failed {
            println!("\n{} failed:", program.label());
            for line in said.iter().filter(|line| !is_backtrace(line)) {
                println!("{line}");
            }
        }
        let commands = failed.iter().map(|failed| failed.program.repeat(features));
        bail!(
            "tests failed\nto repeat it: {}",
            commands.collect::<Vec<_>>().join("\n              ")
        );
    }
    Ok(())
}

/// A program of tests.
#[derive(Clone)]
struct Program {
    package: String,
    /// The package's folder: tests run there.
    folder: PathBuf,
    /// What it is the tests of, in cargo's words.
    kind: String,
    target: String,
    executable: PathBuf,
}

impl Program {
    /// Reads one of cargo's messages; `None` if it is of something else.
    fn of(message: &Value) -> Option<Self> {
        if message["profile"]["test"] != true {
            return None;
        }
        let folder = Path::new(message["manifest_path"].as_str()?).parent()?;
        Some(Self {
            package: folder.file_name()?.to_str()?.to_owned(),
            folder: folder.to_owned(),
            kind: message["target"]["kind"][0].as_str()?.to_owned(),
            target: message["target"]["name"].as_str()?.to_owned(),
            executable: message["executable"].as_str()?.into(),
        })
    }

    fn label(&self) -> String {
        format!("{}/{}", self.package, self.target)
    }

    /// Runs it. Returns it with what it said of its failures if tests failed.
    fn run(self, read: &Mutex<&mut (dyn FnMut(&str) + Send)>) -> Option<Failed> {
        let label = self.label();
        let mut said = Vec::new();
        let start = Instant::now();
        let mut command = Command::new(&self.executable);
        command
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder)
            .env("RUST_TEST_THREADS", THREADS)
            .stdin(Stdio::null());
        let outcome = process::run_reading(&mut command, &mut |line| {
            println!("{label}: {line}");
            if line == "failures:" || !said.is_empty() {
                said.push(line.to_owned());
            }
            read.lock().expect("mutex poisoned")(line);
        });
        println!("{label}: {:.1} s", start.elapsed().as_secs_f64());
        outcome.is_err().then_some(Failed { program: self, said })
    }

    /// How to run it alone.
    fn repeat(&self, features: &[&str]) -> String {
        let mut command = cargo(&["test", "--package", &self.package]);
        match self.kind.as_str() {
            kind @ ("bin" | "test" | "example" | "bench") => {
                command.args([&format!("--{kind}"), &self.target]);
            }
            _ => {
                command.arg("--lib");
            }
        }
        process::line(command.args(features))
    }
}

/// A program of which tests failed.
#[derive(Clone)]
struct Failed {
    program: Program,
    /// From its list of failures on.
    said: Vec<String>,
}

/// Whether a line is one of a backtrace, as the standard library prints them.
fn is_backtrace(line: &str) -> bool {
    let line = line.trim_start();
    let number = line.split_once(": ").map_or("", |(number, _)| number);
    line.starts_with("at ") || (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn build(selection: &[&str], features: &[&str]) -> Result<Vec<Program>> {
    let mut command = cargo(&["test", "--no-run", "--message-format", "json-render-diagnostics"]);
    command.args(selection).args(features);
    println!("{}", process::line(&command));
    let mut programs = Vec::new();
    process::run_reading(command.stdin(Stdio::null()), &mut |line| {
        let message = serde_json::from_str(line).unwrap_or_default();
        programs.extend(Program::of(&message));
    })?;
    if programs.is_empty() {
        bail!("cargo names no program of tests");
    }
    Ok(programs)
}

/// Programs that run at a time. Most of them wait for something most of the time.
const AT_ONCE: usize = 3;

/// Tests that each of them runs at a time.
const THREADS: &str = "4";

/// These take longest, so they come first: what wants the processor runs beside them.
const LONGEST: [&str; 5] = ["cluster", "promise", "outage", "registration", "providers"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_backtrace_are_known() {
        for line in [
            "   0: __rustc::rust_begin_unwind",
            "             at ./tests/cluster/engine.rs:95:5",
        ] {
            assert!(is_backtrace(line), "{line}");
        }
        for line in [
            "  left: \"result\"",
            "assertion `left == right` failed: at 3",
            "error: no",
        ] {
            assert!(!is_backtrace(line), "{line}");
        }
    }

    #[test]
    fn programs_are_read_from_what_cargo_says_and_can_be_run_alone() {
        let message = |test: bool, kind: &str| {
            serde_json::json!({
                "manifest_path": "/w/crates/fpush/Cargo.toml", "profile": { "test": test },
                "target": { "kind": [kind], "name": "cluster" }, "executable": "/w/target/debug/deps/cluster-1",
            })
        };
        assert!(Program::of(&message(false, "test")).is_none());
        let program = Program::of(&message(true, "test")).expect("it is a program of tests");
        assert_eq!(program.folder, Path::new("/w/crates/fpush"));
        assert_eq!(
            program.repeat(&["--features", "a"]),
            "cargo test --package fpush --test cluster --features a"
        );
        let library = Program::of(&message(true, "lib")).expect("it is a program of tests");
        assert_eq!(library.repeat(&[]), "cargo test --package fpush --lib");
    }
}
