//! `cargo xtask bench`: what a push costs, in one run with what it costs at least.
//!
//! Everything is on loopback and every part is a process of its own, so that the kernel tells their CPU time apart:
//! fpush; stand-ins for APNs and FCM; the floor, a bare HTTP/2 client that sends the same requests to the same
//! stand-in; and this process, which plays the XMPP server. Absolute figures differ from machine to machine and from
//! hour to hour; the ratio of fpush to the floor, measured in turns, does not.

mod against;
mod cluster;
mod devices;
mod domains;
mod flood;
mod floor;
mod group;
mod held;
mod helper;
mod latency;
mod load;
mod memory;
mod modules;
mod paced;
mod pacing;
mod plan;
mod proc;
mod providers;
mod report;
mod rig;
mod sample;
mod servers;
mod stalls;
mod startup;
mod stats;
mod target;
mod template;
mod throughput;
mod webpush;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};

use self::against::Programs;
pub(crate) use self::floor::floor;
use self::group::{GROUPS, Subject};
use self::helper::StandIn;
pub(crate) use self::helper::stand_in;
use self::plan::Plan;
use self::report::Report;
use self::sample::Samples;
use crate::install::{self, Package};
use crate::process;
use crate::table::Table;

/// The task that measures, once everything is built.
pub(crate) const MEASURE: &str = "bench-measure";

/// The task that is the stand-in for the providers.
pub(crate) const STAND_IN: &str = "bench-stand-in";

/// The task that is the bare client.
pub(crate) const FLOOR: &str = "bench-floor";

/// What is wanted.
pub(crate) struct Options {
    /// Checks that the bench works, not how fast fpush is.
    short: bool,
    /// Where the figures go as JSON.
    json: Option<PathBuf>,
    /// Where the tables go as Markdown.
    markdown: Option<PathBuf>,
    /// Another program, to be measured in turns with this one.
    against: Option<PathBuf>,
    /// What is measured alone; everything if there are none.
    names: Vec<String>,
}

impl Options {
    /// What CI runs.
    pub(crate) const SHORT: Self = Self {
        short: true,
        json: None,
        markdown: None,
        against: None,
        names: Vec::new(),
    };

    pub(crate) fn read(options: &[&str]) -> Result<Self> {
        let mut read = Self {
            short: false,
            json: None,
            markdown: None,
            against: None,
            names: Vec::new(),
        };
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let mut file = || {
                let file = options
                    .next()
                    .with_context(|| format!("{option} wants the name of a file"))?;
                anyhow::Ok(Some(std::path::absolute(file)?))
            };
            match *option {
                "--short" => read.short = true,
                "--json" => read.json = file()?,
                "--markdown" => read.markdown = file()?,
                "--against" => read.against = file()?,
                "--servers" => read.names.push(group::SERVERS.to_owned()),
                name if against::names().any(|known| known == name) => read.names.push(name.to_owned()),
                other => bail!(
                    "there is neither an option {other}, which `cargo xtask help` would list, nor such a figure: {}",
                    against::names().collect::<Vec<_>>().join(", ")
                ),
            }
        }
        ensure!(
            !read.is_selection() || read.json.is_none(),
            "--against, and figures by name, have no --json, only --markdown"
        );
        Ok(read)
    }

    /// Whether it is not the whole report.
    fn is_selection(&self) -> bool {
        self.against.is_some() || !self.names.is_empty()
    }
}

/// Builds everything and measures. The short form takes the debug build, which is there already.
pub(crate) fn run(options: &Options) -> Result<()> {
    install::ensure(&[Package::Redis, Package::Prosody, Package::Ejabberd])?;
    let profile: &[&str] = if options.short { &[] } else { &["--release"] };
    let fpush = process::build("fpush", profile)?;
    if options.short {
        return measure(&fpush, options);
    }
    let xtask = process::build("xtask", profile)?;
    let mut measure = Command::new(xtask);
    measure.arg(MEASURE).arg(fpush);
    let files = [
        ("--json", &options.json),
        ("--markdown", &options.markdown),
        ("--against", &options.against),
    ];
    for (option, file) in files {
        if let Some(file) = file {
            measure.arg(option).arg(file);
        }
    }
    measure.args(&options.names);
    Err(anyhow::Error::from(measure.exec()).context("cannot start the measuring"))
}

/// Measures this fpush, prints the tables and writes the files.
pub(crate) fn measure(fpush: &Path, options: &Options) -> Result<()> {
    let plan = if options.short { &Plan::SHORT } else { &Plan::FULL };
    let (start, date, commit) = (Instant::now(), SystemTime::now(), report::commit());
    println!("\nMachine: {}\nProgram: {}\n", proc::machine(), fpush.display());

    let samples = Samples::take(fpush)?;
    let mut stand_in = StandIn::start()?;
    if options.is_selection() {
        let programs = Programs {
            this: fpush,
            other: options.against.as_deref(),
        };
        let tables = against::measure(&programs, &options.names, plan, &stand_in, &samples)?;
        if let Some(file) = &options.markdown {
            let tables: Vec<_> = tables.iter().map(Table::markdown).collect();
            report::write(file, &tables.join("\n"))?;
        }
        if options.short {
            println!("\n{}", report::ONLY_SHORT);
        }
        return Ok(());
    }
    let throughput = throughput::measure(fpush, plan, &stand_in, &samples)?;
    let latency = latency::measure(fpush, plan, &mut stand_in, throughput.per_second())?;
    let modules = modules::measure(fpush, plan, &stand_in)?;
    let memory = memory::measure(fpush, plan)?;
    let flood = flood::measure(fpush, plan, &stand_in)?;
    let startup = startup::measure(fpush, plan, &stand_in)?;

    let subject = Subject {
        fpush,
        plan,
        stand_in: &stand_in,
        samples: &samples,
    };
    let groups = GROUPS
        .iter()
        .map(|group| anyhow::Ok((group, (group.measure)(&subject)?)));
    let groups = groups.collect::<Result<_>>()?;

    let report = Report {
        date,
        commit,
        short: options.short,
        throughput,
        latency,
        modules,
        memory,
        groups,
        flood,
        startup,
        took: start.elapsed(),
    };
    println!("\n{report}");
    if let Some(file) = &options.json {
        report::write(file, &(serde_json::to_string_pretty(&report.json())? + "\n"))?;
    }
    if let Some(file) = &options.markdown {
        report::write(file, &report.markdown())?;
    }
    if options.short {
        let refused = report.latency.refused();
        ensure!(refused == 0, "fpush refused {refused} publishes");
    }
    Ok(())
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let options = ["--short", "--json", "/tmp/a", "--markdown", "/tmp/b"];
        let options = Options::read(&options);
        let options = options.expect("they are known");
        assert!(options.short);
        assert_eq!(options.json.as_deref(), Some(Path::new("/tmp/a")));
        assert_eq!(options.markdown.as_deref(), Some(Path::new("/tmp/b")));
        let against = Options::read(&["--against", "/tmp/c"]).expect("it is known");
        assert_eq!(against.against.as_deref(), Some(Path::new("/tmp/c")));
        assert!(Options::read(&["--against", "/tmp/c", "--json", "/tmp/a"]).is_err());
        let named = Options::read(&["growth", "--servers"]).expect("they are known");
        assert_eq!(named.names, ["growth", "servers"]);
        assert!(Options::read(&["growth", "--json", "/tmp/a"]).is_err());
        for name in against::names() {
            assert!(crate::USAGE.contains(name), "{name} is not in the help");
        }
        assert!(Options::read(&["--json"]).is_err() && Options::read(&["--fast"]).is_err());
    }
}
