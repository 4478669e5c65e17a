//! Pushes that are held because their provider is away: what they cost, and how long a start with them takes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fpush_testkit::TempDir;
use serde_json::{Value, json};

use super::helper::StandIn;
use super::load::{Amount, Kind};
use super::megabytes;
use super::paced::Pace;
use super::plan::{LOADS, Plan};
use super::providers::Backend;
use super::rig::Rig;
use super::stats::{Spread, millis};
use super::template::{Server, Template};
use crate::table::Table;

pub(super) struct Held {
    count: u64,
    /// CPU for each, and how many were acknowledged in a second.
    cpu: f64,
    per_second: f64,
    /// On disk, for each.
    disk: f64,
    /// The memory that they take.
    bytes: u64,
    /// From exec to link up with all of them after `kill -9`, and without any.
    startup: [Duration; 2],
    /// From then on, with the provider back: until all were sent, and how long new pushes took meanwhile.
    drained: Duration,
    new: Spread,
}

pub(super) fn measure(fpush: &Path, plan: &Plan, stand_in: &StandIn) -> Result<Held> {
    let count = plan.held;
    println!("held pushes: {count}");
    let folder = TempDir::new();
    let state = folder.path().join("state");
    let mut apple = stand_in.endpoints.module(Backend::Certificate);
    // Nobody is there.
    apple["apns"]["endpoint"] = json!("https://127.0.0.1:1");
    let modules = json!({ DEMO: { "type": "demo" }, APPLE: apple });
    let mut rig = Rig::start_in(fpush, &modules, &state)?;
    let without = rig.startup;
    // A domain of which nothing was accepted holds little.
    publish(&mut rig, DEMO, Backend::Demo, 1)?;
    // These are answered when the outage is noticed.
    publish(&mut rig, APPLE, Backend::Certificate, 3)?;
    let before = rig.resident()?;
    let (cpu, per_second) = publish(&mut rig, APPLE, Backend::Certificate, count)?;
    let bytes = rig.resident()?.saturating_sub(before);
    // As it ends without a word.
    drop(rig);
    let files = ["spool.db", "spool.db-wal"].map(|name| fs::metadata(state.join(name)));
    let disk: u64 = files.into_iter().flatten().map(|metadata| metadata.len()).sum();
    let mut modules = modules;
    modules[APPLE] = stand_in.endpoints.module(Backend::Certificate);
    let mut rig = Rig::start_in(fpush, &modules, &state)?;
    let with = rig.startup;
    let (drained, new) = drain(&mut rig, plan)?;
    Ok(Held {
        count,
        cpu,
        per_second,
        disk: disk as f64 / count as f64,
        bytes,
        startup: [with, without],
        drained,
        new,
    })
}

/// Publishes for other devices until nothing is held any more. Returns how long that was, and how long pushes took meanwhile.
fn drain(rig: &mut Rig, plan: &Plan) -> Result<(Duration, Spread)> {
    let template = Template::new(Server::Prosody, APPLE, &Backend::Certificate.token());
    let pace = Pace::even(plan.drain_rate);
    rig.link.next = 1 << 40;
    let (start, mut times) = (Instant::now(), Vec::new());
    while rig.held()? > 0 {
        ensure!(start.elapsed() < LONGEST_DRAIN, "what is held is not sent");
        let (sent, _) = rig.paced(&template, pace, SLICE)?;
        times.extend(sent.accepted.into_iter().map(|(_, time)| time));
    }
    Ok((start.elapsed(), Spread::of(times)))
}

/// Publishes for so many tokens. Returns CPU for each in microseconds, and how many were answered in a second.
fn publish(rig: &mut Rig, module: &str, backend: Backend, count: u64) -> Result<(f64, f64)> {
    let template = Template::new(Server::Prosody, module, &backend.token());
    let (done, cpu) = rig.run(
        &[template],
        LOADS[0].in_flight,
        Amount::Publishes(count),
        Kind::Result,
    )?;
    let pushes = done.pushes as f64;
    Ok((
        cpu.as_secs_f64() * 1e6 / pushes,
        pushes / done.elapsed.as_secs_f64(),
    ))
}

impl Held {
    /// Microseconds of CPU for each.
    pub(super) fn cpu(&self) -> f64 {
        self.cpu
    }

    /// Bytes of disk for each.
    pub(super) fn disk(&self) -> f64 {
        self.disk
    }

    /// Seconds from exec to link up with all of them.
    pub(super) fn startup(&self) -> f64 {
        self.startup[0].as_secs_f64()
    }

    /// Milliseconds that one new push in a hundred exceeds while they are sent.
    pub(super) fn p99(&self) -> f64 {
        millis(self.new.p99)
    }

    pub(super) fn table(&self) -> Table {
        let row = |what: String, figure: String| vec![what, figure];
        let [with, without] = self.startup.map(millis);
        Table {
            title: "Held pushes in an outage".to_owned(),
            head: &["", "measured"],
            rows: vec![
                row(
                    "CPU for each, acknowledged and on disk".to_owned(),
                    format!("{:.1} us", self.cpu),
                ),
                row(
                    "acknowledged a second".to_owned(),
                    format!("{:.0}", self.per_second),
                ),
                row("bytes of disk for each".to_owned(), format!("{:.0}", self.disk)),
                row(
                    format!("memory of {}", self.count),
                    format!("{:.1} MB", megabytes(self.bytes)),
                ),
                row(
                    format!("from exec to link up after kill -9, with {} of them", self.count),
                    format!("{with:.0} ms"),
                ),
                row("the same without any".to_owned(), format!("{without:.0} ms")),
                row(
                    "until all are sent, with the provider back".to_owned(),
                    format!("{:.0} s", self.drained.as_secs_f64()),
                ),
                row(
                    "new pushes meanwhile: p50, p99, max".to_owned(),
                    format!(
                        "{:.1}, {:.1}, {:.1} ms",
                        millis(self.new.p50),
                        millis(self.new.p99),
                        millis(self.new.max)
                    ),
                ),
            ],
            notes: vec![
                "512 publishes in flight; a sync of the disk is shared by those that wait for it.".to_owned(),
            ],
        }
    }

    pub(super) fn json(&self) -> Value {
        let [with, without] = self.startup.map(millis);
        json!({
            "count": self.count,
            "cpu_us": self.cpu,
            "per_second": self.per_second,
            "disk_bytes_each": self.disk,
            "memory_bytes": self.bytes,
            "startup_ms": with,
            "startup_without_ms": without,
            "drained_seconds": self.drained.as_secs_f64(),
            "new_meanwhile": self.new.json(),
        })
    }
}

const DEMO: &str = "demo";
const APPLE: &str = "apple";
/// How often it is looked whether there are any left.
const SLICE: Duration = Duration::from_secs(2);
/// The rate doubles every few seconds, and a probe may be some seconds away.
const LONGEST_DRAIN: Duration = Duration::from_secs(900);
