//! `cargo xtask test`: everything that must hold before a change is merged, in steps, up to the first that fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fpush_testkit::{TempDir, is_root};

use crate::bench;
use crate::image;
use crate::install::{self, CargoTool, Package};
use crate::machine;
use crate::package;
use crate::place::Tested;
use crate::process::{self, cargo};
use crate::release::Build;
use crate::simulate;
use crate::suite;

/// How much is run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Everything, and the tests that take minutes.
    Long,
    /// Everything that takes no more than half an hour.
    Full,
    /// Without the runs for each Cargo feature alone.
    Quick,
}

impl Extent {
    /// Whether each Cargo feature is tried alone.
    fn has_features(self) -> bool {
        match self {
            Self::Long | Self::Full => true,
            Self::Quick => false,
        }
    }
}

/// Runs the steps. The last line printed is `N passed, N failed`.
pub(crate) fn run(extent: Extent) -> Result<()> {
    let mut report = Report::default();
    let outcome = steps(extent, &mut report);
    if let Err(error) = &outcome {
        crate::show(error);
        // A step that is not a test must not look like a pass.
        report.failed = report.failed.max(1);
    }
    println!("\n{} steps in {}", report.steps, seconds(report.start.elapsed()));
    for skipped in &report.skipped {
        println!("skipped: {skipped}");
    }
    println!("{} passed, {} failed", report.passed, report.failed);
    outcome.map_err(|_| anyhow::Error::new(Reported))
}

fn steps(extent: Extent, report: &mut Report) -> Result<()> {
    let mut no_ntfy = None;
    report.step("what the tests need", |_| {
        install::ensure(&[
            Package::Prosody,
            Package::Ejabberd,
            Package::Postgresql,
            Package::MariaDb,
            Package::Redis,
            Package::Chromium,
            Package::Curl,
            Package::Promtool,
            Package::Faketime,
            Package::Iproute,
            Package::Strace,
            Package::Sqlite,
            Package::JsonSchema,
            Package::Slixmpp,
            Package::Yaml,
            Package::Dependencies,
            Package::Binutils,
        ])?;
        if extent == Extent::Long {
            install::ensure(&[Package::Firefox])?;
            no_ntfy = install::ntfy()?;
        }
        rust_tools()?;
        install::cargo_tool(CargoTool::Deny)?;
        install::cargo_tool(CargoTool::Deb)
    })?;
    if let Some(reason) = no_ntfy {
        report.skip("a push through ntfy", &reason);
    }
    report.run("formatting", cargo(&["fmt", "--all", "--check"]))?;

    let manifest = fs::read_to_string(MANIFEST).with_context(|| format!("cannot read {MANIFEST}"))?;
    let backends = backends(&manifest);
    report.run("clippy", clippy(&["--workspace"]))?;
    if extent.has_features() {
        report.run(
            "clippy: no backend",
            clippy(&["-p", "fpush", "--no-default-features"]),
        )?;
        for feature in &backends {
            report.run(
                &format!("clippy: {feature} alone"),
                clippy(&["-p", "fpush", "--no-default-features", "--features", feature]),
            )?;
        }
        report.run(
            "clippy: with the options",
            clippy(&["-p", "fpush", "--features", OPTIONS]),
        )?;
    }

    let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    report.run("documentation", doc)?;

    if Path::new(AUDIT).is_file() {
        let mut audit = Command::new(AUDIT);
        audit.arg("Cargo.lock");
        report.run("known vulnerabilities", audit)?;
    } else {
        report.skip("known vulnerabilities", &format!("there is no {AUDIT}"));
    }
    report.run(
        "dependencies",
        cargo(&["deny", "check", "bans", "licenses", "sources"]),
    )?;
    report.step("one version each of the large dependencies", |_| {
        let lock = fs::read_to_string("Cargo.lock").context("cannot read Cargo.lock")?;
        occur_once(&lock, &ONCE)
    })?;

    if !is_root() {
        report.skip(
            "what root alone can do to files of other users",
            "this is not root",
        );
    }
    report.suite("tests", &["--workspace"], &[])?;
    report.run(
        "tests in the documentation",
        cargo(&["test", "--workspace", "--doc"]),
    )?;
    report.tests("what decisions cost in a crowd", simulate::count()?)?;
    if extent == Extent::Long {
        report.tests(
            "tests that take minutes, or another browser",
            cargo(&[
                "test",
                "-p",
                "fpush",
                "--test",
                "cluster",
                "--test",
                "links",
                "--test",
                "promise",
                "--test",
                "registration",
                "--no-fail-fast",
                "--",
                "--ignored",
            ]),
        )?;
        report.tests(
            "the demo with a web page",
            cargo(&["test", "-p", "xtask", "--test", "demo", "--", "--ignored"]),
        )?;
        let mut promise = cargo(&["test", "-p", "fpush", "--test", "promise", "--no-fail-fast"]);
        promise.env("FPUSH_TEST_WITH_CLUSTER", "1");
        report.tests("the promise with a cluster", promise)?;
    }
    if extent.has_features() {
        for feature in &backends {
            report.suite(
                &format!("tests: {feature} alone"),
                &DEPEND_ON_FEATURES,
                &["--no-default-features", "--features", feature],
            )?;
        }
        report.suite(
            "tests: the driver with random_delay_before_push",
            &["--package", "fpush-driver"],
            &["--features", "random_delay_before_push"],
        )?;
    }

    report.step("the bench, in its short form", |_| {
        bench::run(&bench::Options::SHORT)
    })?;

    if process::is_there("systemd-analyze") {
        let mut security = Command::new("systemd-analyze");
        security.args([
            "security",
            "--offline=true",
            "--no-pager",
            &format!("--threshold={EXPOSURE}"),
            UNIT,
        ]);
        report.run("exposure of the service", security)?;
        report.step("the unit file", |_| verify_unit())?;
    } else {
        report.skip("the unit file", "there is no systemd-analyze");
    }

    report.place("the Debian package", || package::test(None))?;
    report.place("the container image", || image::test(None))?;
    if extent == Extent::Long {
        let mut package = PathBuf::new();
        report.step("the Debian package for others", |_| {
            // The one in target/debian is the last one: cargo deb removes what is there whenever it makes one.
            let again = package::make(Build::Portable, Path::new("target/package/again"))?;
            package = package::make(Build::Portable, Path::new("target/debian"))?;
            ensure!(
                fs::read(&again)? == fs::read(&package)?,
                "made again of the same program, {} has other bytes",
                package.display()
            );
            Ok(())
        })?;
        report.place("the Debian package for others, installed", || {
            package::test(Some(&package))
        })?;
        report.place("the Debian package in the oldest Debian", || {
            machine::test_oldest(&package)
        })?;
        report.place("the Debian package under systemd", || machine::test(&package))?;
    }
    Ok(())
}

/// Says that the failure stands above already.
#[derive(Debug)]
struct Reported;

impl std::fmt::Display for Reported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a step failed")
    }
}

impl std::error::Error for Reported {}

/// Whether the error has been shown to the user already.
pub(crate) fn is_reported(error: &anyhow::Error) -> bool {
    error.is::<Reported>()
}

/// What has been run so far.
struct Report {
    start: Instant,
    steps: u32,
    passed: u64,
    failed: u64,
    /// Steps that could not be done here, and why.
    skipped: Vec<String>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            steps: 0,
            passed: 0,
            failed: 0,
            skipped: Vec::new(),
        }
    }
}

impl Report {
    fn step(&mut self, title: &str, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        println!("\n=== {title}");
        let start = Instant::now();
        self.steps += 1;
        step(self).with_context(|| format!("step `{title}` failed after {}", seconds(start.elapsed())))?;
        println!("=== {title}: ok, {}", seconds(start.elapsed()));
        Ok(())
    }

    /// Says so now, and once more at the end, where it is not overlooked.
    fn skip(&mut self, title: &str, reason: &str) {
        println!("\n=== {title}: skipped, {reason}");
        self.skipped.push(format!("{title}, because {reason}"));
    }

    /// A step that needs a place of its own, which cannot be had everywhere.
    fn place(&mut self, title: &str, step: impl FnOnce() -> Result<Tested>) -> Result<()> {
        let mut tested = Tested::Yes;
        self.step(title, |_| {
            tested = step()?;
            Ok(())
        })?;
        if let Tested::No(reason) = tested {
            self.skip(title, &reason);
        }
        Ok(())
    }

    /// A step that is one command.
    fn run(&mut self, title: &str, mut command: Command) -> Result<()> {
        self.step(title, |_| {
            println!("{}", process::line(&command));
            process::run(command.stdin(Stdio::null()))
                .map_err(|error| repeatable(error, &process::line(&command)))
        })
    }

    /// A step that runs all these tests.
    fn suite(&mut self, title: &str, selection: &[&str], features: &[&str]) -> Result<()> {
        self.step(title, |report| {
            suite::run(selection, features, &mut |line| report.count(line))
        })
    }

    /// A step that is one `cargo test`.
    fn tests(&mut self, title: &str, mut command: Command) -> Result<()> {
        self.step(title, |report| {
            let shown = process::line(&command);
            println!("{shown}");
            process::run_reading(command.stdin(Stdio::null()), &mut |line| {
                println!("{line}");
                report.count(line);
            })
            .map_err(|error| repeatable(error, &shown))
        })
    }

    fn count(&mut self, line: &str) {
        let (passed, failed) = results(line);
        self.passed += passed;
        self.failed += failed;
    }
}

/// Adds to an error what to run to see it again.
fn repeatable(error: anyhow::Error, command: &str) -> anyhow::Error {
    anyhow!("{error:#}\nto repeat it: {command}")
}

fn clippy(selection: &[&str]) -> Command {
    let mut command = cargo(&["clippy", "--all-targets"]);
    command.args(selection).args(["--", "-D", "warnings"]);
    command
}

fn rust_tools() -> Result<()> {
    for (component, tool) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        if !process::succeeds(cargo(&[tool, "--version"])) {
            bail!("cargo has no {tool}: run `rustup component add {component}`, then run this again");
        }
    }
    Ok(())
}

/// Fails unless each of `names` is exactly one package of the lock file.
fn occur_once(lock: &str, names: &[&str]) -> Result<()> {
    let mut versions = BTreeMap::<&str, Vec<&str>>::new();
    let mut name = "";
    for line in lock.lines() {
        let value = |key: &str| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"');
        if let Some(found) = value("name") {
            name = found;
        } else if let Some(version) = value("version") {
            versions.entry(name).or_default().push(version);
        }
    }
    let mut faults = Vec::new();
    for name in names {
        match versions.get(name).map_or(&[][..], Vec::as_slice) {
            [version] => println!("{name} {version}"),
            [] => faults.push(format!("{name} does not occur")),
            several => faults.push(format!("{name} occurs as {}", several.join(" and "))),
        }
    }
    if !faults.is_empty() {
        bail!(
            "Cargo.lock: {}; `cargo tree --duplicates` shows who asks for it",
            faults.join(", ")
        );
    }
    Ok(())
}

/// Lets systemd read the unit file. It also looks for the program, which need not be installed here.
fn verify_unit() -> Result<()> {
    let unit = fs::read_to_string(UNIT).with_context(|| format!("cannot read {UNIT}"))?;
    let unit = unit
        .lines()
        .map(|line| {
            // `ExecStart=` and `ExecReload=`
            match line.split_once('=') {
                Some((key, _)) if key.starts_with("Exec") => format!("{key}=/bin/true"),
                Some(_) | None => line.to_owned(),
            }
        })
        .collect::<Vec<_>>()
        .join("\n");
    let folder = TempDir::new();
    let file = folder.write(UNIT, unit + "\n");
    let output = Command::new("systemd-analyze")
        .args(["--man=no", "verify"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .context("cannot run systemd-analyze")?;
    let said = String::from_utf8_lossy(&output.stderr);
    // It speaks of the units of this machine too, and calls it a success if it ignores a line.
    let faults = said
        .lines()
        .filter(|line| line.contains(UNIT))
        .collect::<Vec<_>>();
    if !output.status.success() || !faults.is_empty() {
        bail!(
            "systemd-analyze verify {UNIT} ({}):\n{}",
            output.status,
            said.trim_end()
        );
    }
    Ok(())
}

/// Passed and failed, if the line is the last one of a test program.
fn results(line: &str) -> (u64, u64) {
    let Some((_, counts)) = line.split_once("test result: ") else {
        return (0, 0);
    };
    let count = |word: &str| {
        let before = counts
            .split(word)
            .next()
            .filter(|before| before.len() < counts.len())?;
        before
            .trim_end()
            .rsplit(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    };
    (count(" passed").unwrap_or(0), count(" failed").unwrap_or(0))
}

fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} min {:02} s", duration.as_secs() / 60, duration.as_secs() % 60)
    }
}

/// The features of fpush that bring a backend: each must build and pass its tests without the others.
fn backends(manifest: &str) -> Vec<&str> {
    let features = manifest.lines().filter_map(|line| line.split_once(" = ["));
    features
        .map(|(feature, _)| feature)
        .filter(|feature| feature.starts_with("enable_") && feature.ends_with("_support"))
        .collect()
}

const MANIFEST: &str = "crates/fpush/Cargo.toml";

/// Features that change something else, and can be together.
const OPTIONS: &str = "random_delay_before_push,release_max_level_warn,release_max_level_info";

/// What a build with one backend does otherwise than one with all is in the library and in these tests of the program. That the
/// others compile, clippy shows.
const DEPEND_ON_FEATURES: [&str; 7] = [
    "--package",
    "fpush",
    "--lib",
    "--test",
    "settings",
    "--test",
    "state",
];

/// Two versions of these would mean two TLS or HTTP stacks, or two runtimes, in one program.
const ONCE: [&str; 4] = ["rustls", "hyper", "h2", "tokio"];

/// Checks a lock file against the published advisories; it may be beside the repository.
const AUDIT: &str = "../shared/tools/audit";

const UNIT: &str = "fpush.service";

/// The exposure that systemd may find in the unit, in tenths.
const EXPOSURE: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_results_are_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(results(line), (12, 3));
        let coloured = "test result: \x1b[32mok\x1b(B\x1b[m. 4 passed; 0 failed; 0 ignored; 0 measured";
        assert_eq!(results(coloured), (4, 0));
        assert_eq!(results("test a_test ... ok"), (0, 0));
    }

    #[test]
    fn the_features_of_backends_are_read() {
        let found = backends(include_str!("../../fpush/Cargo.toml"));
        assert!(found.contains(&"enable_demo_support"), "{found:?}");
        assert!(
            found.len() > 1 && !found.contains(&"enable_registration"),
            "{found:?}"
        );
    }

    #[test]
    fn a_second_version_is_noticed() {
        let package =
            |name: &str, version: &str| format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n");
        let lock = package("a", "1.0.0") + &package("b", "1.0.0") + &package("b", "2.0.0");
        assert!(occur_once(&lock, &["a"]).is_ok());
        let error = occur_once(&lock, &["a", "b", "c"])
            .expect_err("b occurs twice, c never")
            .to_string();
        assert!(
            error.contains("b occurs as 1.0.0 and 2.0.0, c does not occur"),
            "{error}"
        );
    }
}
