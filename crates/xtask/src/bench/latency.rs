//! What fpush adds to the time of a push, and what a push costs, while publishes come at a steady pace.
//!
//! A push's time begins when its publish is written and ends when its reply is read. From it goes the time that the
//! stand-in says it took for this very push: from the head of the request to its answer, the delay included. What is
//! left is called the added time. It still holds what is not fpush's: two ways over loopback, TLS and HTTP/2 at the
//! stand-in, and the wait for a core, because load and stand-in share the cores with fpush. So it is an upper bound.
//! Percentiles of a bare client's times could be taken off as well; but they are not pushes of the same moment, and
//! a figure that may be too large is better than one that may be too small.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::helper::StandIn;
use super::load::{Amount, Kind};
use super::megabytes;
use super::paced::{Pace, Sent};
use super::plan::{LOADS, Plan};
use super::proc;
use super::providers::{Backend, DELAY};
use super::rig::Rig;
use super::stats::{Spread, millis};
use super::template::{Server, Template};
use super::throughput::per_push;
use crate::interrupt;
use crate::table::Table;

pub(super) struct Latency {
    rows: Vec<Row>,
    /// Among them the one that has a target.
    target: usize,
    idle: Idle,
}

struct Row {
    /// Why this pace, if for a reason.
    name: &'static str,
    delay: Duration,
    pace: Pace,
    /// As it came out.
    per_second: f64,
    cpu_us: f64,
    refused: u64,
    added: Spread,
    provider: Spread,
    late: Spread,
    /// How many cores were busy with something that is not a part of the bench.
    foreign: f64,
    /// How long each part lasted, and how many bytes fpush held after it.
    parts: Vec<(Duration, u64)>,
}

struct Idle {
    time: Duration,
    cpu: Duration,
}

/// `carried` is how many pushes a second fpush brought when it was given as much as it could take.
pub(super) fn measure(fpush: &Path, plan: &Plan, stand_in: &mut StandIn, carried: f64) -> Result<Latency> {
    let mut bench = Bench::start(fpush, plan, stand_in)?;
    let target = Pace::even(plan.target_rate);
    let (fast, slow) = (Duration::ZERO, DELAY);
    let mut rows = vec![bench.row("", fast, target, &plan.soak)?];
    for &per_second in plan.rates {
        rows.push(bench.row("", fast, Pace::even(per_second), &[plan.paced])?);
    }
    rows.sort_by_key(|row| row.pace.per_second);
    let target_row = rows.iter().position(|row| row.pace == target);
    let half = |carried: f64| Pace::even((carried / 2.0).max(1.0) as u64);
    rows.push(bench.row("half load", fast, half(carried), &[plan.paced])?);
    rows.push(bench.row("", slow, target, &[plan.paced])?);
    // With a slow provider it carries no more than may be in flight there.
    let slow_carried = carried.min(MAX_IN_FLIGHT / DELAY.as_secs_f64());
    rows.push(bench.row("half load", slow, half(slow_carried), &[plan.paced])?);
    Ok(Latency {
        rows,
        target: target_row.context("the row with the target is missing")?,
        idle: bench.idle(plan.idle)?,
    })
}

/// One fpush with two modules, for an APNs that answers at once and for a slow one.
struct Bench<'a> {
    rig: Rig,
    stand_in: &'a mut StandIn,
    fast: Template,
    slow: Template,
}

impl<'a> Bench<'a> {
    fn start(fpush: &Path, plan: &Plan, stand_in: &'a mut StandIn) -> Result<Self> {
        let [window, keep] = plan.soak_limit;
        let limit = json!({ "ratelimitTime": window, "ratelimitCleanupInterval": keep });
        let mut modules = json!({
            "fast": stand_in.endpoints.module(Backend::Certificate),
            "slow": stand_in.endpoints.slow_module(),
        });
        modules["fast"]["ratelimit"] = limit.clone();
        modules["slow"]["ratelimit"] = limit;
        let mut rig = Rig::start(fpush, &modules)?;
        let mut template = |module: &str| {
            let template = || Template::new(Server::Prosody, module, &Backend::Certificate.token());
            let warm_up = Amount::Time(plan.warm_up);
            rig.run(&[template()], LOADS[0].in_flight, warm_up, Kind::Result)?;
            anyhow::Ok(template())
        };
        Ok(Self {
            fast: template("fast")?,
            slow: template("slow")?,
            rig,
            stand_in,
        })
    }

    fn row(&mut self, name: &'static str, delay: Duration, pace: Pace, times: &[Duration]) -> Result<Row> {
        let template = if delay.is_zero() { &self.fast } else { &self.slow };
        let (mut sent, mut cpu, mut at_provider) = (Sent::default(), Duration::ZERO, HashMap::new());
        let mut parts = Vec::new();
        let (busy, bench) = (proc::busy_time()?, self.bench_time()?);
        for &time in times {
            self.stand_in.start_timing()?;
            let (more, more_cpu) = self.rig.paced(template, pace, time)?;
            sent.add(more);
            cpu += more_cpu;
            at_provider.extend(self.stand_in.take_times()?);
            parts.push((time, self.rig.resident()?));
        }
        let foreign = (proc::busy_time()? - busy).saturating_sub(self.bench_time()? - bench);
        let (mut added, mut provider) = (Vec::new(), Vec::new());
        for (number, total) in &sent.accepted {
            let there = at_provider
                .get(number)
                .with_context(|| format!("publish {number} reached nobody"))?;
            added.push(total.saturating_sub(*there));
            provider.push(*there);
        }
        let row = Row {
            name,
            delay,
            pace,
            per_second: sent.pushes() as f64 / sent.elapsed.as_secs_f64(),
            cpu_us: per_push(cpu, sent.pushes()),
            refused: sent.refused,
            added: Spread::of(added),
            provider: Spread::of(provider),
            late: Spread::of(sent.late),
            foreign: foreign.as_secs_f64() / sent.elapsed.as_secs_f64(),
            parts,
        };
        println!("{row}");
        Ok(row)
    }

    /// The processor time of everything that runs for the bench.
    fn bench_time(&self) -> Result<Duration> {
        let load = proc::cpu_time(std::process::id())?;
        Ok(load + self.stand_in.cpu_time()? + self.rig.cpu_time()?)
    }

    /// What fpush does when there is nothing to do.
    fn idle(&mut self, time: Duration) -> Result<Idle> {
        println!("idle: nothing is sent for {time:?}");
        let (start, before) = (Instant::now(), self.rig.cpu_time()?);
        while start.elapsed() < time {
            interrupt::check()?;
            thread::sleep(Duration::from_millis(100).min(time));
        }
        let cpu = self.rig.cpu_time()? - before;
        Ok(Idle {
            time: start.elapsed(),
            cpu,
        })
    }
}

impl Latency {
    /// The added time that one in a hundred pushes exceeds at the rate with the target, in milliseconds.
    pub(super) fn p99(&self) -> f64 {
        let row = &self.rows[self.target];
        // Where pushes are refused the others' times say little.
        if row.refused > 0 {
            f64::INFINITY
        } else {
            millis(row.added.p99)
        }
    }

    /// Percent of one core.
    pub(super) fn idle_percent(&self) -> f64 {
        self.idle.cpu.as_secs_f64() / self.idle.time.as_secs_f64() * 100.0
    }

    /// How many were answered with an error.
    pub(super) fn refused(&self) -> u64 {
        self.rows.iter().map(|row| row.refused).sum()
    }

    pub(super) fn table(&self) -> Table {
        let row = |row: &Row| {
            let ms = |time: Duration| format!("{:.2}", millis(time));
            vec![
                row.pace.per_second.to_string(),
                row.name.to_owned(),
                format!("{} ms", row.delay.as_millis()),
                format!("{:.0}", row.per_second),
                format!("{:.1} us", row.cpu_us),
                ms(row.added.p50),
                ms(row.added.p90),
                ms(row.added.p99),
                ms(row.added.max),
                ms(row.provider.p99),
                ms(row.late.p99),
                format!("{:.2}", row.foreign),
                row.refused.to_string(),
            ]
        };
        Table {
            title: "Time added and cost at a steady pace (APNs, certificate, Prosody; times in ms)"
                .to_owned(),
            head: &[
                "a second",
                "",
                "provider's delay",
                "achieved",
                "CPU per push",
                "p50",
                "p90",
                "p99",
                "max",
                "provider's p99",
                "load's p99 lateness",
                "foreign load",
                "refused",
            ],
            rows: self.rows.iter().map(row).collect(),
            notes: vec![
                "p50 to max: from the writing of a publish to the reading of its reply, less the time that \
                 the stand-in took for this very push, from the head of the request to its answer. It holds \
                 the ways over loopback, TLS and HTTP/2 at the stand-in and waiting for a core, so it is an \
                 upper bound."
                    .to_owned(),
                format!(
                    "Publishes are sent when they are due, whatever became of those before; how late they left \
                     is in a column of its own. Half load is half of what was carried with {} in flight; with a delay of \
                     {} ms that is at most {MAX_IN_FLIGHT} in flight.",
                    LOADS[0].in_flight,
                    DELAY.as_millis()
                ),
                "Foreign load: how many cores were busy with something that is not a part of the bench, or taken \
                 away by the host. It should be nearly 0, because who waits for a core is late."
                    .to_owned(),
            ],
        }
    }

    /// Rows of the table of memory: what the daemon holds after each part of the longest load.
    pub(super) fn memory_rows(&self) -> Vec<Vec<String>> {
        let row = &self.rows[self.target];
        let mut passed = Duration::ZERO;
        let rows = row.parts.iter().map(|(time, resident)| {
            passed += *time;
            vec![
                format!("{passed:?} of {} pushes a second, APNs", row.pace.per_second),
                format!("{:.1} MB", megabytes(*resident)),
            ]
        });
        rows.collect()
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "idle": {
                "seconds": self.idle.time.as_secs_f64(),
                "cpu_seconds": self.idle.cpu.as_secs_f64(),
                "percent_of_a_core": self.idle_percent(),
            },
        })
    }
}

impl Row {
    fn json(&self) -> Value {
        let parts = self.parts.iter().map(
            |(time, resident)| json!({ "seconds": time.as_secs_f64(), "resident_bytes_after": resident }),
        );
        json!({
            "per_second": self.pace.per_second,
            "achieved_per_second": self.per_second,
            "half_load": !self.name.is_empty(),
            "provider_delay_ms": millis(self.delay),
            "cpu_us_per_push": self.cpu_us,
            "refused": self.refused,
            "added": self.added.json(),
            "provider": self.provider.json(),
            "load_lateness": self.late.json(),
            "foreign_cores": self.foreign,
            "parts": parts.collect::<Vec<_>>(),
        })
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} a second, delay {:?}: achieved {:.0}/s, {:.1} us, added p50 {:.2?} p99 {:.2?} max {:.2?}",
            self.pace.per_second,
            self.delay,
            self.per_second,
            self.cpu_us,
            self.added.p50,
            self.added.p99,
            self.added.max
        )?;
        if self.refused > 0 {
            write!(f, ", {} refused", self.refused)?;
        }
        Ok(())
    }
}

/// `maxInFlight` of a module where the settings do not say anything else.
const MAX_IN_FLIGHT: f64 = 1_000.0;
