//! Everything that was found, as text, as Markdown and as JSON.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::devices::Devices;
use super::flood::Flood;
use super::held::Held;
use super::latency::Latency;
use super::memory::Memory;
use super::modules::Modules;
use super::proc;
use super::startup::Startup;
use super::stats::millis;
use super::throughput::Throughput;
use super::webpush::WebPush;
use crate::table::Table;

pub(super) struct Report {
    /// When the measuring began, and what was checked out then.
    pub(super) date: SystemTime,
    pub(super) commit: Option<String>,
    pub(super) short: bool,
    pub(super) throughput: Throughput,
    pub(super) latency: Latency,
    pub(super) modules: Modules,
    pub(super) memory: Memory,
    pub(super) devices: Devices,
    pub(super) flood: Flood,
    pub(super) held: Held,
    pub(super) cluster: Cluster,
    pub(super) webpush: WebPush,
    pub(super) startup: Startup,
    pub(super) took: Duration,
}

/// What is to be reached.
struct Target {
    what: &'static str,
    measured: f64,
    bound: Bound,
    unit: &'static str,
}

enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.measured <= most,
            Bound::AtLeast(least) => self.measured >= least,
        }
    }
}

impl Report {
    fn targets(&self) -> [Target; 18] {
        let target = |what, measured, bound, unit| Target {
            what,
            measured,
            bound,
            unit,
        };
        [
            target(
                "CPU per push / floor, APNs with certificate, 512 in flight",
                self.throughput.ratio(),
                Bound::AtMost(1.9),
                "",
            ),
            target(
                "1 / CPU per push, the same",
                self.throughput.capacity(),
                Bound::AtLeast(60_000.0),
                "/s",
            ),
            target(
                "memory of 1,000,000 tokens in the rate limiter",
                self.memory.per_million_tokens(),
                Bound::AtMost(48.0),
                " MB",
            ),
            target(
                "p99 of the added time, 5,000 pushes/s",
                self.latency.p99(),
                Bound::AtMost(2.0),
                " ms",
            ),
            target(
                "p99 of another domain's requests under a flood / (2 x p99 without + 5 ms)",
                self.flood.worst(),
                Bound::AtMost(1.0),
                "",
            ),
            target(
                "idle CPU, of one core",
                self.latency.idle_percent(),
                Bound::AtMost(0.1),
                " %",
            ),
            target("CPU of a held push", self.held.cpu(), Bound::AtMost(25.0), " us"),
            target(
                "disk of a held push",
                self.held.disk(),
                Bound::AtMost(400.0),
                " bytes",
            ),
            target(
                "from exec to link up with 1,000,000 held pushes",
                self.held.startup(),
                Bound::AtMost(3.0),
                " s",
            ),
            target(
                "p99 of new pushes while they are sent",
                self.held.p99(),
                Bound::AtMost(50.0),
                " ms",
            ),
            target(
                "CPU per push of an instance with a cluster / without",
                self.cluster.ratio(),
                Bound::AtMost(1.6),
                "",
            ),
            target(
                "the same of each of three on one engine",
                self.cluster.ratio_of_three(),
                Bound::AtMost(1.7),
                "",
            ),
            target(
                "what a cluster adds to the p50 of a push",
                self.cluster.p50(),
                Bound::AtMost(0.3),
                " ms",
            ),
            target(
                "what a cluster adds to the p99 of a push",
                self.cluster.p99(),
                Bound::AtMost(1.5),
                " ms",
            ),
            target(
                "CPU per web push / APNs push beside it, 512 in flight",
                self.webpush.ratio(),
                Bound::AtMost(2.5),
                "",
            ),
            target(
                "1 / CPU per web push, the same",
                self.webpush.capacity(),
                Bound::AtLeast(5_000.0),
                "/s",
            ),
            target(
                "p99 of a web push, less that of an APNs push, 5,000 pushes/s",
                self.webpush.p99(),
                Bound::AtMost(5.0),
                " ms",
            ),
            target(
                "memory of an origin in use, of 10,000",
                self.webpush.bytes_per_origin(),
                Bound::AtMost(20_000.0),
                " bytes",
            ),
        ]
    }

    fn tables(&self) -> Vec<Table> {
        let mut tables = vec![
            self.throughput.table(),
            self.latency.table(),
            self.modules.table(),
            self.memory.table(self.latency.memory_rows()),
            self.devices.table(),
            self.flood.table(),
            self.held.table(),
            self.cluster.table(),
            self.webpush.table(),
            Table {
                title: "Otherwise".to_owned(),
                head: &["", "measured"],
                rows: vec![
                    vec![
                        "idle after load, link up: CPU, of one core".to_owned(),
                        format!("{:.3} %", self.latency.idle_percent()),
                    ],
                    vec![
                        format!("from exec to link up, median of {}", self.startup.count()),
                        format!("{:.0} ms", millis(self.startup.median())),
                    ],
                ],
                notes: Vec::new(),
            },
        ];
        if !self.short {
            tables.push(self.target_table());
        }
        tables
    }

    fn target_table(&self) -> Table {
        let row = |target: &Target| {
            let Target {
                what,
                measured,
                ref bound,
                unit,
            } = *target;
            let figure = |figure: f64| {
                let digits = if figure >= 1_000.0 { 0 } else { 2 };
                format!("{figure:.digits$}{unit}")
            };
            vec![
                what.to_owned(),
                figure(measured),
                match *bound {
                    Bound::AtMost(most) => format!("at most {}", figure(most)),
                    Bound::AtLeast(least) => format!("at least {}", figure(least)),
                },
                if target.is_met() { "met" } else { "MISSED" }.to_owned(),
            ]
        };
        Table {
            title: "Targets".to_owned(),
            head: &["", "measured", "target", ""],
            rows: self.targets().iter().map(row).collect(),
            notes: Vec::new(),
        }
    }

    /// When, where and how, one line each.
    fn circumstances(&self) -> [String; 4] {
        let command = if self.short {
            "cargo xtask bench --short"
        } else {
            "cargo xtask bench"
        };
        [
            format!("Date: {}", self.date()),
            format!("Commit: {}", self.commit.as_deref().unwrap_or("unknown")),
            format!("Machine: {}, everything on it", proc::machine()),
            format!("Command: `{command}`, {:.0} s", self.took.as_secs_f64()),
        ]
    }

    fn date(&self) -> String {
        humantime::format_rfc3339_seconds(self.date).to_string()
    }

    pub(super) fn markdown(&self) -> String {
        let circumstances = self.circumstances().map(|line| format!("- {line}\n"));
        let tables = self
            .tables()
            .iter()
            .map(|table| format!("\n{}", table.markdown()))
            .collect::<String>();
        circumstances.concat() + &tables
    }

    pub(super) fn json(&self) -> Value {
        // Of the short form they would say nothing.
        let targets = (!self.short).then(|| self.targets());
        let target = |target: &Target| {
            let (at_most, at_least) = match target.bound {
                Bound::AtMost(most) => (Some(most), None),
                Bound::AtLeast(least) => (None, Some(least)),
            };
            json!({
                "what": target.what,
                "measured": target.measured,
                "at_most": at_most,
                "at_least": at_least,
                "met": target.is_met(),
            })
        };
        json!({
            "date": self.date(),
            "commit": self.commit,
            "machine": proc::machine(),
            "short": self.short,
            "seconds": self.took.as_secs_f64(),
            "pushes": self.throughput.json(),
            "paced": self.latency.json(),
            "modules": self.modules.json(),
            "memory": self.memory.json(),
            "devices": self.devices.json(),
            "flood": self.flood.json(),
            "held": self.held.json(),
            "cluster": self.cluster.json(),
            "webpush": self.webpush.json(),
            "startup": self.startup.json(),
            "targets": targets.map(|targets| targets.iter().map(target).collect::<Vec<_>>()),
        })
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for line in self.circumstances() {
            writeln!(f, "{line}")?;
        }
        for table in self.tables() {
            write!(f, "\n{table}")?;
        }
        if self.short {
            writeln!(
                f,
                "\nThe bench works. This short form and this build say nothing about speed."
            )?;
        }
        Ok(())
    }
}

pub(super) fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    println!("Written: {}", file.display());
    Ok(())
}

/// What is checked out.
pub(super) fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"]).stdin(Stdio::null());
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
