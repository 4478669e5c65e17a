//! What a push costs while so many are in flight, in turns with the floor.

use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::helper::{Floor, StandIn};
use super::load::{Amount, Done, Kind};
use super::plan::{LOADS, Load, Plan, Rounds};
use super::proc;
use super::providers::Backend;
use super::rig::Rig;
use super::sample::Samples;
use super::stats::median;
use crate::table::Table;

pub(super) struct Throughput {
    /// The main load's is the first.
    rows: Vec<Row>,
    /// The length of a publish of the main load.
    publish_bytes: usize,
}

/// One load's rounds.
struct Row {
    load: Load,
    rounds: Vec<Round>,
}

/// One round of fpush and, right after it, one of the floor.
pub(super) struct Round {
    fpush: Side,
    floor: Option<Side>,
    /// Microseconds per push of fpush's round.
    load_cpu: f64,
    stand_in_cpu: f64,
}

#[derive(Clone, Copy)]
struct Side {
    per_second: f64,
    /// In microseconds per push.
    cpu: f64,
}

impl Side {
    fn new((done, cpu): (Done, Duration)) -> Self {
        Self {
            per_second: done.pushes as f64 / done.elapsed.as_secs_f64(),
            cpu: per_push(cpu, done.pushes),
        }
    }
}

pub(super) fn measure(
    fpush: &Path,
    plan: &Plan,
    stand_in: &StandIn,
    samples: &Samples,
) -> Result<Throughput> {
    let mut rows = Vec::new();
    for loads in LOADS.chunk_by(|one, other| one.backend == other.backend) {
        let mut bench = Bench::start(fpush, stand_in, samples, loads[0].backend)?;
        bench.round(loads[0], plan.warm_up)?;
        for &load in loads {
            let Rounds { count, time } = if rows.is_empty() { plan.main } else { plan.others };
            let mut rounds = Vec::new();
            for number in 1..=count {
                let round = bench.round(load, time)?;
                println!("{load}, round {number}/{count}: {round}");
                rounds.push(round);
            }
            rows.push(Row { load, rounds });
        }
    }
    Ok(Throughput {
        rows,
        publish_bytes: LOADS[0].template().len(),
    })
}

/// fpush with one module, and the floor for the same provider.
pub(super) struct Bench<'a> {
    rig: Rig,
    floor: Option<Floor>,
    stand_in: &'a StandIn,
}

impl<'a> Bench<'a> {
    pub(super) fn start(
        fpush: &Path,
        stand_in: &'a StandIn,
        samples: &Samples,
        backend: Backend,
    ) -> Result<Self> {
        let floor = match (samples.of(backend), stand_in.endpoints.url(backend)) {
            (Some(sample), Some(url)) => Some(Floor::start(stand_in, url, sample)?),
            _ => None,
        };
        let module = Map::from_iter([(backend.name().to_owned(), stand_in.endpoints.module(backend))]);
        Ok(Self {
            rig: Rig::start(fpush, &Value::Object(module))?,
            floor,
            stand_in,
        })
    }

    pub(super) fn round(&mut self, load: Load, time: Duration) -> Result<Round> {
        let cpu_times = || anyhow::Ok((proc::cpu_time(std::process::id())?, self.stand_in.cpu_time()?));
        let before = cpu_times()?;
        let templates = [load.template()];
        let (done, cpu) = self
            .rig
            .run(&templates, load.in_flight, Amount::Time(time), Kind::Result)?;
        let after = cpu_times()?;
        let floor = self.floor.as_mut().map(|floor| floor.run(load.in_flight, time));
        Ok(Round {
            fpush: Side::new((done, cpu)),
            floor: floor.transpose()?.map(Side::new),
            load_cpu: per_push(after.0 - before.0, done.pushes),
            stand_in_cpu: per_push(after.1 - before.1, done.pushes),
        })
    }
}

/// In microseconds.
pub(super) fn per_push(cpu: Duration, pushes: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / pushes.max(1) as f64
}

impl Throughput {
    /// CPU per push over that of the floor, under the main load.
    pub(super) fn ratio(&self) -> f64 {
        self.main().ratio().unwrap_or(f64::INFINITY)
    }

    /// As many a second as one core's time is enough for, under the main load.
    pub(super) fn capacity(&self) -> f64 {
        self.main().capacity()
    }

    /// As many a second as this machine brought, with everything on it, under the main load.
    pub(super) fn per_second(&self) -> f64 {
        self.main().median(|round| round.fpush.per_second)
    }

    /// Microseconds that the load itself takes per push.
    fn load_cpu(&self) -> f64 {
        self.main().median(|round| round.load_cpu)
    }

    fn stand_in_cpu(&self) -> f64 {
        self.main().median(|round| round.stand_in_cpu)
    }

    fn main(&self) -> &Row {
        &self.rows[0]
    }

    pub(super) fn table(&self) -> Table {
        Table {
            title: "Pushes".to_owned(),
            head: &[
                "module",
                "server",
                "in flight",
                "pushes/s",
                "CPU per push",
                "1 / CPU",
                "floor's CPU",
                "ratio",
            ],
            rows: self.rows.iter().map(Row::cells).collect(),
            notes: vec![
                format!(
                    "Medians of rounds; in each the floor, a bare HTTP/2 client, sends the same requests right \
                     after fpush. Pushes/s is with load and stand-in on the same cores, 1 / CPU what one core \
                     has time for. A publish of Prosody has {} bytes.",
                    self.publish_bytes
                ),
                format!(
                    "The load itself took {:.1} us of CPU per push: it could make {:.0} a second. The stand-in \
                     took {:.1} us per request.",
                    self.load_cpu(),
                    1e6 / self.load_cpu(),
                    self.stand_in_cpu()
                ),
            ],
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "publish_bytes": self.publish_bytes,
            "load_cpu_us": self.load_cpu(),
            "load_ceiling_per_second": 1e6 / self.load_cpu(),
            "stand_in_cpu_us": self.stand_in_cpu(),
        })
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        median(self.rounds.iter().filter_map(Round::ratio))
    }

    fn capacity(&self) -> f64 {
        1e6 / self.cpu()
    }

    fn cpu(&self) -> f64 {
        self.median(|round| round.fpush.cpu)
    }

    fn floor_cpu(&self) -> Option<f64> {
        let floor = self.rounds.iter().filter_map(|round| round.floor);
        median(floor.map(|floor| floor.cpu))
    }

    fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(figure)).unwrap_or_default()
    }

    fn cells(&self) -> Vec<String> {
        let Load {
            backend,
            server,
            in_flight,
        } = self.load;
        let floor = self.floor_cpu().map(|cpu| format!("{cpu:.1} us"));
        let ratio = self.ratio().map(|ratio| format!("{ratio:.2}"));
        vec![
            backend.name().to_owned(),
            server.name().to_owned(),
            in_flight.to_string(),
            format!("{:.0}", self.median(|round| round.fpush.per_second)),
            format!("{:.1} us", self.cpu()),
            format!("{:.0}", self.capacity()),
            floor.unwrap_or_default(),
            ratio.unwrap_or_default(),
        ]
    }

    fn json(&self) -> Value {
        let side = |side: Side| json!({ "per_second": side.per_second, "cpu_us": side.cpu });
        let rounds = self.rounds.iter().map(|round| {
            json!({
                "fpush": side(round.fpush),
                "floor": round.floor.map(side),
                "load_cpu_us": round.load_cpu,
                "stand_in_cpu_us": round.stand_in_cpu,
            })
        });
        json!({
            "module": self.load.backend.name(),
            "server": self.load.server.name(),
            "in_flight": self.load.in_flight,
            "pushes_per_second": self.median(|round| round.fpush.per_second),
            "cpu_us_per_push": self.cpu(),
            "one_over_cpu_per_second": self.capacity(),
            "floor_cpu_us_per_request": self.floor_cpu(),
            "ratio": self.ratio(),
            "rounds": rounds.collect::<Vec<_>>(),
        })
    }
}

impl Round {
    /// CPU of fpush per push, in microseconds.
    pub(super) fn cpu(&self) -> f64 {
        self.fpush.cpu
    }

    /// The same over that of the floor.
    pub(super) fn ratio(&self) -> Option<f64> {
        Some(self.fpush.cpu / self.floor?.cpu)
    }
}

impl Display for Round {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.fpush)?;
        match (self.floor, self.ratio()) {
            (Some(floor), Some(ratio)) => write!(f, ", floor {floor}, ratio {ratio:.2}"),
            _ => Ok(()),
        }
    }
}

impl Display for Side {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}/s {:.1} us", self.per_second, self.cpu)
    }
}
