//! The parts of the bench that run as programs of their own.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fpush_testkit::TempDir;

use super::load::Done;
use super::providers::{Endpoints, Providers};
use super::sample::Sample;
use super::stats::Spread;
use super::template::read_number;
use super::{FLOOR, STAND_IN, floor, proc};
use crate::interrupt;

/// A program that answers lines with lines. It is killed on drop.
struct Helper {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Helper {
    fn start(task: &str, argument: &Path) -> Result<Self> {
        // This very program, even if the file has been built anew meanwhile.
        let mut child = Command::new("/proc/self/exe")
            .arg(task)
            .arg(argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {task}"))?;
        let (input, output) = child
            .stdin
            .take()
            .zip(child.stdout.take())
            .context("it has pipes")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    fn ask(&mut self, line: &str) -> Result<String> {
        writeln!(self.input, "{line}")?;
        self.line()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        interrupt::check()?;
        if line.is_empty() {
            bail!("a part of the bench ended ({})", self.child.wait()?);
        }
        Ok(line.trim_end().to_owned())
    }

    fn cpu_time(&self) -> Result<Duration> {
        proc::cpu_time(self.child.id())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Both fail if it has ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The providers.
pub(super) struct StandIn {
    helper: Helper,
    folder: TempDir,
    pub(super) endpoints: Endpoints,
}

impl StandIn {
    pub(super) fn start() -> Result<Self> {
        let folder = TempDir::new();
        let mut helper = Helper::start(STAND_IN, folder.path())?;
        let endpoints = Endpoints::read(folder.path(), &helper.line()?)?;
        Ok(Self {
            helper,
            folder,
            endpoints,
        })
    }

    pub(super) fn cpu_time(&self) -> Result<Duration> {
        self.helper.cpu_time()
    }

    /// Both of APNs note from now on how long each request takes there.
    pub(super) fn start_timing(&mut self) -> Result<()> {
        self.helper.ask(START_TIMING)?;
        Ok(())
    }

    /// How long the request of each publish has taken since then, by the publish's number.
    pub(super) fn take_times(&mut self) -> Result<HashMap<u64, Duration>> {
        self.helper.ask(TAKE_TIMES)?;
        let times = fs::read_to_string(self.folder.path().join(TIMES))?;
        let time = |line: &str| {
            let (path, nanos) = line.split_once(' ')?;
            let token = path.strip_prefix("/3/device/")?;
            let time = Duration::from_nanos(nanos.parse().ok()?);
            Some((read_number(token.as_bytes())?, time))
        };
        let times = times.lines().map(time).collect::<Option<_>>();
        times.context("the stand-in's times cannot be read")
    }
}

/// What [`StandIn`] starts. It ends with its standard input.
pub(crate) fn stand_in(folder: &Path) -> Result<()> {
    let providers = Providers::start(folder, false)?;
    println!("{}", providers.endpoints(folder).line());
    let timed = [&providers.apns, &providers.slow_apns];
    for line in io::stdin().lock().lines() {
        match line?.as_str() {
            START_TIMING => timed.iter().for_each(|apns| apns.start_timing()),
            TAKE_TIMES => {
                let mut text = String::new();
                for (path, taken) in timed.iter().flat_map(|apns| apns.take_times()) {
                    writeln!(text, "{path} {}", taken.as_nanos())?;
                }
                fs::write(folder.join(TIMES), text)?;
            }
            other => bail!("the stand-in does not understand {other:?}"),
        }
        println!("done");
    }
    Ok(())
}

/// The bare client, connected to a stand-in.
pub(super) struct Floor {
    helper: Helper,
}

impl Floor {
    pub(super) fn start(stand_in: &StandIn, url: &str, sample: &Sample) -> Result<Self> {
        let config = floor::config(url, &stand_in.endpoints.ca(), sample);
        let file = stand_in.folder.write("floor.json", config.to_string());
        let mut helper = Helper::start(FLOOR, &file)?;
        helper.line()?;
        Ok(Self { helper })
    }

    /// Sends requests for so long; returns what it did and what processor time it took.
    pub(super) fn run(&mut self, in_flight: u64, time: Duration) -> Result<(Done, Duration)> {
        let before = self.helper.cpu_time()?;
        let line = self.helper.ask(&format!("{in_flight} {}", time.as_millis()))?;
        let cpu = self.helper.cpu_time()? - before;
        let (requests, micros) = line.split_once(' ').context("the bare client counts")?;
        let done = Done {
            pushes: requests.parse()?,
            elapsed: Duration::from_micros(micros.parse()?),
        };
        Ok((done, cpu))
    }
}

impl Floor {
    /// Sends so many requests a second, at times as those of many senders; returns how long they took.
    pub(super) fn paced(&mut self, per_second: u64, time: Duration) -> Result<Spread> {
        let line = format!("{}{per_second} {}", floor::PACED, time.as_millis());
        let times = self.helper.ask(&line)?;
        let times = times
            .split_ascii_whitespace()
            .map(|nanos| nanos.parse().map(Duration::from_nanos));
        Ok(Spread::of(times.collect::<Result<_, _>>()?))
    }
}

const START_TIMING: &str = "time";
const TAKE_TIMES: &str = "times";

/// The file in the stand-in's folder that they are written to.
const TIMES: &str = "times";
