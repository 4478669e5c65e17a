//! Everything that was found, as text, as Markdown and as JSON.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::flood::Flood;
use super::group::Group;
use super::latency::Latency;
use super::memory::Memory;
use super::modules::Modules;
use super::proc;
use super::startup::Startup;
use super::stats::millis;
use super::target::{self, Target};
use super::throughput::Throughput;
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
    /// With the figures of each.
    pub(super) groups: Vec<(&'static Group, Vec<Target>)>,
    pub(super) flood: Flood,
    pub(super) startup: Startup,
    pub(super) took: Duration,
}

impl Report {
    fn targets(&self) -> Vec<Target> {
        vec![
            Target::at_most(
                "CPU per push / floor, APNs with certificate, 512 in flight",
                self.throughput.ratio(),
                1.9,
                "",
            ),
            Target::at_least(
                "1 / CPU per push, the same",
                self.throughput.capacity(),
                60_000.0,
                "/s",
            ),
            Target::at_most(
                "memory of 1,000,000 tokens in the rate limiter",
                self.memory.per_million_tokens(),
                48.0,
                " MB",
            ),
            Target::at_most(
                "memory of a blocked token",
                self.memory.per_blocked(),
                40.0,
                " bytes",
            ),
            Target::at_most(
                "p99 of the added time, 5,000 pushes/s",
                self.latency.p99(),
                2.0,
                " ms",
            ),
            Target::at_most(
                "p99 of another domain's requests under a flood / (2 x p99 without + 5 ms)",
                self.flood.worst(),
                1.0,
                "",
            ),
            Target::at_most("idle CPU, of one core", self.latency.idle_percent(), 0.1, " %"),
        ]
    }

    fn tables(&self) -> Vec<Table> {
        let mut tables = vec![
            self.throughput.table(),
            self.latency.table(),
            self.modules.table(),
            self.memory.table(self.latency.memory_rows()),
            self.flood.table(),
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
        let groups = self.groups.iter();
        tables.extend(groups.map(|(group, targets)| target::table(group.title, targets)));
        if !self.short {
            let targets = self.targets();
            let groups = self.groups.iter().flat_map(|(_, targets)| targets);
            let all = targets.iter().chain(groups).filter(|target| target.is_bound());
            tables.push(target::table("Targets", all));
        }
        tables
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
        let figures = |targets: &[Target]| targets.iter().map(Target::json).collect::<Value>();
        let groups = self
            .groups
            .iter()
            .map(|(group, targets)| (group.name.to_owned(), figures(targets)));
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
            "groups": groups.collect::<Map<_, _>>(),
            "flood": self.flood.json(),
            "startup": self.startup.json(),
            "targets": targets.map(|targets| figures(&targets)),
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
            writeln!(f, "\n{ONLY_SHORT}")?;
        }
        Ok(())
    }
}

/// What the short form says at its end.
pub(super) const ONLY_SHORT: &str =
    "The bench works. This short form and this build say nothing about speed.";

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
