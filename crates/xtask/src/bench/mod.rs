//! `cargo xtask bench`: what a push costs, in one run with what it costs at least.
//!
//! Everything is on loopback and every part is a process of its own, so that `/proc` tells their CPU time apart:
//! fpush; a stand-in for APNs; the floor, a bare HTTP/2 client that sends the same requests to the same stand-in; and
//! this process, which plays the XMPP server. Absolute figures differ from machine to machine and from hour to hour;
//! the ratio of fpush to the floor, measured in turns, does not.

mod floor;
mod helper;
mod load;
mod proc;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow, bail};
use fpush_testkit::{ApnsRequest, Daemon, FakeApns, TempDir, TestCa};
use serde_json::{Value, json};

pub(crate) use self::floor::floor;
pub(crate) use self::helper::stand_in;
use self::helper::{Floor, StandIn};
use self::load::{Amount, Done, Link, Listener, Template};
use crate::process::{self, cargo};

/// The task that measures, once everything is built.
pub(crate) const MEASURE: &str = "bench-measure";

/// The task that is the stand-in for APNs.
pub(crate) const STAND_IN: &str = "bench-stand-in";

/// The task that is the bare client.
pub(crate) const FLOOR: &str = "bench-floor";

/// What is wanted.
pub(crate) struct Options {
    /// Checks that the bench works, not how fast fpush is.
    short: bool,
    /// Where the figures go as JSON.
    json: Option<PathBuf>,
}

impl Options {
    /// What CI runs.
    pub(crate) const SHORT: Self = Self {
        short: true,
        json: None,
    };

    pub(crate) fn read(options: &[&str]) -> Result<Self> {
        let mut read = Self {
            short: false,
            json: None,
        };
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match *option {
                "--short" => read.short = true,
                "--json" => {
                    let file = options.next().context("--json wants the name of a file")?;
                    read.json = Some(std::path::absolute(file)?);
                }
                other => bail!("there is no option {other}; `cargo xtask help` lists them"),
            }
        }
        Ok(read)
    }
}

/// Builds everything and measures. The short form takes the debug build, which is there already.
pub(crate) fn run(options: &Options) -> Result<()> {
    let profile: &[&str] = if options.short { &[] } else { &["--release"] };
    let fpush = build("fpush", profile)?;
    if options.short {
        return measure(&fpush, options);
    }
    let xtask = build("xtask", profile)?;
    let mut measure = Command::new(xtask);
    measure.arg(MEASURE).arg(fpush);
    if let Some(file) = &options.json {
        measure.arg("--json").arg(file);
    }
    Err(anyhow::Error::from(measure.exec()).context("cannot start the measuring"))
}

fn build(package: &str, profile: &[&str]) -> Result<PathBuf> {
    println!("Building {package} {}", profile.join(" "));
    let mut command = cargo(&["build", "--message-format", "json-render-diagnostics"]);
    command.args(["--package", package]).args(profile);
    let mut program = None;
    process::run_reading(command.stdin(Stdio::null()), &mut |line| {
        let message = serde_json::from_str::<Value>(line).unwrap_or_default();
        if message["target"]["name"] == package
            && let Some(path) = message["executable"].as_str()
        {
            program = Some(PathBuf::from(path));
        }
    })?;
    program.with_context(|| format!("cargo names no program for {package}"))
}

/// Measures this fpush, prints the table and writes the JSON.
pub(crate) fn measure(fpush: &Path, options: &Options) -> Result<()> {
    let plan = if options.short { Plan::SHORT } else { Plan::FULL };
    println!("\nMachine: {}\nProgram: {}\n", proc::machine(), fpush.display());

    let sample = sample(fpush)?;
    let apns = measure_apns(fpush, &plan, &sample)?;
    let demo = measure_demo(fpush, &plan)?;
    let memory = measure_memory(fpush, &plan)?;

    let mut rows = apns.rows;
    rows.extend(demo);
    println!(
        "\n{:<28}{:>12}{:>16}{:>18}{:>8}",
        "", "pushes/s", "CPU per push", "floor's CPU", "ratio"
    );
    for row in &rows {
        println!("{row}");
    }
    println!(
        "\nThe load itself cost {:.1} us per push, the stand-in {:.1} us per request.",
        apns.load_cpu, apns.stand_in_cpu
    );
    println!(
        "Memory: {:.1} MB after start, {:.1} MB more after {} tokens.",
        megabytes(memory.start),
        megabytes(memory.end.saturating_sub(memory.start)),
        memory.tokens,
    );
    if options.short {
        println!("The bench works. This short form and this build say nothing about speed.");
    } else {
        let ratio = rows.first().and_then(Row::ratio).unwrap_or(f64::INFINITY);
        println!(
            "\nTargets, at {} in flight and with 1,000,000 tokens:",
            plan.main.in_flight
        );
        target("CPU per push / floor", ratio, MAX_RATIO, "");
        target("memory", memory.per_million(), MAX_MEGABYTES, " MB");
    }
    if let Some(file) = &options.json {
        let figures = json!({
            "date": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            "commit": commit(),
            "machine": proc::machine(),
            "short": options.short,
            "pushes": rows.iter().map(Row::json).collect::<Vec<_>>(),
            "load_cpu_us": apns.load_cpu,
            "stand_in_cpu_us": apns.stand_in_cpu,
            "memory": {
                "start_bytes": memory.start,
                "end_bytes": memory.end,
                "tokens": memory.tokens,
                "megabytes_per_million": memory.per_million(),
            },
        });
        let text = serde_json::to_string_pretty(&figures)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("\nWritten: {}", file.display());
    }
    Ok(())
}

/// How much is done.
struct Plan {
    main: Load,
    rounds: usize,
    others: [Load; 2],
    warm_up: Duration,
    tokens: u64,
}

#[derive(Clone, Copy)]
struct Load {
    in_flight: u64,
    time: Duration,
}

impl Plan {
    const FULL: Self = Self {
        main: Load {
            in_flight: 512,
            time: Duration::from_secs(3),
        },
        rounds: 7,
        others: [
            Load {
                in_flight: 64,
                time: Duration::from_secs(3),
            },
            Load {
                in_flight: 1,
                time: Duration::from_secs(3),
            },
        ],
        warm_up: Duration::from_secs(1),
        tokens: 1_000_000,
    };

    const SHORT: Self = Self {
        main: Load {
            in_flight: 512,
            time: Duration::from_millis(300),
        },
        rounds: 1,
        others: [
            Load {
                in_flight: 64,
                time: Duration::from_millis(100),
            },
            Load {
                in_flight: 1,
                time: Duration::from_millis(100),
            },
        ],
        warm_up: Duration::from_millis(100),
        tokens: 5_000,
    };
}

/// One round of one side.
#[derive(Clone, Copy, Debug)]
struct Round {
    per_second: f64,
    /// In microseconds.
    cpu: f64,
}

impl Round {
    fn new(done: Done, cpu: Duration) -> Self {
        let pushes = done.pushes.max(1) as f64;
        Self {
            per_second: pushes / done.elapsed.as_secs_f64(),
            cpu: cpu.as_secs_f64() * 1e6 / pushes,
        }
    }
}

/// One line of the table: the rounds of fpush, and those of the floor in between.
struct Row {
    name: &'static str,
    in_flight: u64,
    rounds: Vec<(Round, Option<Round>)>,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        let ratios = self
            .rounds
            .iter()
            .filter_map(|(ours, floor)| Some(ours.cpu / floor.as_ref()?.cpu));
        median(ratios)
    }

    fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(|(ours, _)| figure(ours))).unwrap_or_default()
    }

    fn median_of_floor(&self, figure: impl Fn(&Round) -> f64) -> Option<f64> {
        median(
            self.rounds
                .iter()
                .filter_map(|(_, floor)| Some(figure(floor.as_ref()?))),
        )
    }

    fn json(&self) -> Value {
        let round = |round: &Round| json!({ "per_second": round.per_second, "cpu_us": round.cpu });
        let rounds = self
            .rounds
            .iter()
            .map(|(ours, floor)| json!({ "fpush": round(ours), "floor": floor.as_ref().map(round) }));
        json!({
            "module": self.name,
            "shape": "Prosody",
            "in_flight": self.in_flight,
            "pushes_per_second": self.median(|round| round.per_second),
            "cpu_us_per_push": self.median(|round| round.cpu),
            "floor_cpu_us_per_request": self.median_of_floor(|round| round.cpu),
            "ratio": self.ratio(),
            "rounds": rounds.collect::<Vec<_>>(),
        })
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = format!("{}, {} in flight", self.name, self.in_flight);
        let (per_second, cpu) = (
            self.median(|round| round.per_second),
            self.median(|round| round.cpu),
        );
        write!(f, "{name:<28}{per_second:>12.0}{cpu:>13.1} us")?;
        match (self.median_of_floor(|round| round.cpu), self.ratio()) {
            (Some(floor), Some(ratio)) => write!(f, "{floor:>15.1} us{ratio:>8.2}"),
            _ => Ok(()),
        }
    }
}

fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures = figures.collect::<Vec<_>>();
    figures.sort_by(f64::total_cmp);
    let (low, high) = (
        figures.get(figures.len().checked_sub(1)? / 2)?,
        figures.get(figures.len() / 2)?,
    );
    Some((low + high) / 2.0)
}

/// A request as fpush sends it, for the floor to send the same.
fn sample(fpush: &Path) -> Result<ApnsRequest> {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let folder = TempDir::new();
    helper::write_client_files(&ca, folder.path())?;
    let module = apple(apns.port(), folder.path());
    let mut rig = Rig::start(fpush, &json!({ APPLE: module }))?;
    rig.link
        .run(&Template::new(APPLE), 1, Amount::Publishes(1))
        .map_err(|e| rig.explain(e))?;
    let request = apns
        .requests()
        .into_iter()
        .next()
        .context("no push reached the stand-in")?;
    let body = request.body.to_string();
    if body.len() != request.body_len {
        bail!("the request's body is not {body}");
    }
    Ok(request)
}

/// What [`measure_apns`] found.
struct Apns {
    rows: Vec<Row>,
    /// Microseconds per push.
    load_cpu: f64,
    /// Microseconds per request.
    stand_in_cpu: f64,
}

fn measure_apns(fpush: &Path, plan: &Plan, sample: &ApnsRequest) -> Result<Apns> {
    let stand_in = StandIn::start()?;
    let mut floor = Floor::start(&stand_in, &sample.headers, &sample.body.to_string())?;
    let module = apple(stand_in.port, stand_in.folder.path());
    let mut rig = Rig::start(fpush, &json!({ APPLE: module }))?;
    let template = Template::new(APPLE);
    println!("A publish has {} bytes.", template.len());

    let warm_up = Load {
        time: plan.warm_up,
        ..plan.main
    };
    rig.round(&template, warm_up)?;
    floor.run(warm_up.in_flight, warm_up.time)?;

    let (mut load_cpu, mut stand_in_cpu) = (Vec::new(), Vec::new());
    let mut rows = Vec::new();
    let loads = [(plan.main, plan.rounds)]
        .into_iter()
        .chain(plan.others.map(|load| (load, 1)));
    for (load, count) in loads {
        let mut rounds = Vec::new();
        for number in 1..=count {
            let before = (
                proc::cpu_time(std::process::id())?,
                proc::cpu_time(stand_in.process)?,
            );
            let (done, cpu) = rig.round(&template, load)?;
            if load.in_flight == plan.main.in_flight {
                let pushes = done.pushes.max(1) as f64;
                let ours = proc::cpu_time(std::process::id())? - before.0;
                load_cpu.push(ours.as_secs_f64() * 1e6 / pushes);
                let theirs = proc::cpu_time(stand_in.process)? - before.1;
                stand_in_cpu.push(theirs.as_secs_f64() * 1e6 / pushes);
            }
            let ours = Round::new(done, cpu);
            let (done, cpu) = floor.run(load.in_flight, load.time)?;
            let bare = Round::new(done, cpu);
            println!(
                "APNs, {} in flight, round {number}/{count}: fpush {:.0}/s {:.1} us, floor {:.0}/s {:.1} us, ratio {:.2}",
                load.in_flight,
                ours.per_second,
                ours.cpu,
                bare.per_second,
                bare.cpu,
                ours.cpu / bare.cpu
            );
            rounds.push((ours, Some(bare)));
        }
        rows.push(Row {
            name: "APNs",
            in_flight: load.in_flight,
            rounds,
        });
    }
    Ok(Apns {
        rows,
        load_cpu: median(load_cpu.into_iter()).unwrap_or_default(),
        stand_in_cpu: median(stand_in_cpu.into_iter()).unwrap_or_default(),
    })
}

fn measure_demo(fpush: &Path, plan: &Plan) -> Result<Vec<Row>> {
    let mut rig = Rig::start(fpush, &json!({ DEMO: { "type": "demo" } }))?;
    let template = Template::new(DEMO);
    let mut rows = Vec::new();
    for load in [plan.main].into_iter().chain(plan.others) {
        rig.round(
            &template,
            Load {
                time: plan.warm_up / 2,
                ..load
            },
        )?;
        let (done, cpu) = rig.round(&template, load)?;
        let round = Round::new(done, cpu);
        println!(
            "demo, {} in flight: {:.0}/s {:.1} us",
            load.in_flight, round.per_second, round.cpu
        );
        rows.push(Row {
            name: "demo",
            in_flight: load.in_flight,
            rounds: vec![(round, None)],
        });
    }
    Ok(rows)
}

/// What [`measure_memory`] found, in bytes.
struct Memory {
    start: u64,
    end: u64,
    tokens: u64,
}

impl Memory {
    fn per_million(&self) -> f64 {
        megabytes(self.end.saturating_sub(self.start)) * 1e6 / self.tokens as f64
    }
}

fn measure_memory(fpush: &Path, plan: &Plan) -> Result<Memory> {
    let module = json!({ "type": "demo", "ratelimit": { "ratelimitCleanupInterval": "1h" } });
    let mut rig = Rig::start(fpush, &json!({ DEMO: module }))?;
    let start = proc::resident(rig.daemon.pid())?;
    println!("memory: {} tokens, each once", plan.tokens);
    let all = Amount::Publishes(plan.tokens);
    rig.link
        .run(&Template::new(DEMO), plan.main.in_flight, all)
        .map_err(|e| rig.explain(e))?;
    let end = proc::resident(rig.daemon.pid())?;
    Ok(Memory {
        start,
        end,
        tokens: plan.tokens,
    })
}

/// A running fpush whose link is up.
struct Rig {
    daemon: Daemon,
    link: Link,
}

impl Rig {
    fn start(fpush: &Path, modules: &Value) -> Result<Self> {
        let listener = Listener::bind()?;
        let settings = json!({
            "component": {
                "componentHostname": "push.localhost",
                "componentKey": "made-up-component-secret",
                "serverHostname": "127.0.0.1",
                "serverPort": listener.port(),
            },
            "pushModules": modules,
        });
        let daemon = Daemon::builder(fpush)
            .settings(&settings)
            .rust_log("info")
            .start();
        let link = listener.accept().map_err(|error| explain(error, &daemon))?;
        Ok(Self { daemon, link })
    }

    /// Returns what was done and what CPU time it took fpush.
    fn round(&mut self, template: &Template, load: Load) -> Result<(Done, Duration)> {
        let before = proc::cpu_time(self.daemon.pid())?;
        let done = self
            .link
            .run(template, load.in_flight, Amount::Time(load.time))
            .map_err(|error| self.explain(error))?;
        Ok((done, proc::cpu_time(self.daemon.pid())? - before))
    }

    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        explain(error, &self.daemon)
    }
}

fn explain(error: anyhow::Error, daemon: &Daemon) -> anyhow::Error {
    anyhow!("{error:#}\nfpush says:\n{}", daemon.log())
}

/// A module with the certificate of that folder.
fn apple(port: u16, folder: &Path) -> Value {
    json!({
        "type": "apple",
        "apns": {
            "certFilePath": folder.join("client.pem"),
            "certKeyFilePath": folder.join("client.key.pem"),
            "topic": "org.example.app",
            "endpoint": format!("https://127.0.0.1:{port}"),
            "caFilePath": folder.join("ca.pem"),
        },
    })
}

fn target(what: &str, measured: f64, at_most: f64, unit: &str) {
    let verdict = if measured <= at_most { "met" } else { "MISSED" };
    println!("  {what:<24}{measured:>8.2}{unit}, at most {at_most}{unit}: {verdict}");
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"]).stdin(Stdio::null());
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

const APPLE: &str = "apple";

const DEMO: &str = "demo";

const MAX_RATIO: f64 = 2.7;

const MAX_MEGABYTES: f64 = 64.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn options_are_read() {
        let options = Options::read(&["--short", "--json", "/tmp/file"]).expect("they are known");
        assert!(options.short && options.json.as_deref() == Some(Path::new("/tmp/file")));
        assert!(Options::read(&["--json"]).is_err() && Options::read(&["--fast"]).is_err());
    }
}
