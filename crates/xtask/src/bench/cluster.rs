//! What it costs that instances share what they know: one of them beside one that shares nothing, in turns, and three at a time on
//! one engine.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use fpush_testkit::Redis;
use serde_json::{Value, json};

use super::helper::StandIn;
use super::load::{Amount, Kind};
use super::paced::Pace;
use super::plan::{LOADS, Plan, Rounds};
use super::proc;
use super::providers::Backend;
use super::rig::Rig;
use super::stats::{Spread, median, millis};
use super::template::{Server, Template};
use super::throughput::per_push;
use crate::table::Table;

pub(super) struct Cluster {
    turns: Vec<Turn>,
    paces: Vec<Paced>,
    per_second: u64,
    /// Memory of the engine for each key whose last push it remembers.
    bytes_each: f64,
}

/// Microseconds of CPU per push.
struct Turn {
    without: f64,
    with: f64,
    of_three: f64,
    /// The engine's, for a push of the three.
    engine: f64,
}

/// How long pushes took, without and with.
struct Paced {
    without: Spread,
    with: Spread,
}

pub(super) fn measure(fpush: &Path, plan: &Plan, stand_in: &StandIn) -> Result<Cluster> {
    let redis = Redis::start_new();
    let modules = json!({ MODULE: stand_in.endpoints.module(Backend::Certificate) });
    let mut without = Instance::of(Rig::start(fpush, &modules)?, 0);
    let mut sharing = Vec::new();
    for number in 1..=INSTANCES {
        let rig = Rig::start_sharing(fpush, &modules, &redis.tcp_url())?;
        sharing.push(Instance::of(rig, number));
    }
    for instance in sharing.iter_mut().chain([&mut without]) {
        instance.run(Amount::Time(plan.warm_up))?;
    }
    let Rounds { count, time } = plan.main;
    let mut turns = Vec::new();
    for number in 1..=count {
        let turn = Turn::take(&mut without, &mut sharing, &redis, time)?;
        println!("with a cluster, turn {number}/{count}: {turn:?}");
        turns.push(turn);
    }
    let pace = Pace::even(plan.target_rate);
    let mut paces = Vec::new();
    for _ in 0..plan.others.count {
        paces.push(Paced {
            without: without.paced(pace, plan.paced)?,
            with: sharing[0].paced(pace, plan.paced)?,
        });
    }
    Ok(Cluster {
        turns,
        paces,
        per_second: plan.target_rate,
        bytes_each: bytes_each(&redis, &mut sharing[0], plan.tokens)?,
    })
}

/// fpush, and who publishes to it.
struct Instance {
    rig: Rig,
    template: Template,
}

impl Instance {
    fn of(mut rig: Rig, number: u64) -> Self {
        // No two have a device in common.
        rig.link.next = number << 40;
        Self {
            rig,
            template: Template::new(Server::Prosody, MODULE, &Backend::Certificate.token()),
        }
    }

    /// How many pushes, and what they cost.
    fn run(&mut self, amount: Amount) -> Result<(u64, Duration)> {
        let templates = std::slice::from_ref(&self.template);
        let (done, cpu) = self
            .rig
            .run(templates, LOADS[0].in_flight, amount, Kind::Result)?;
        Ok((done.pushes, cpu))
    }

    fn paced(&mut self, pace: Pace, time: Duration) -> Result<Spread> {
        let (sent, _) = self.rig.paced(&self.template, pace, time)?;
        Ok(sent.spread())
    }
}

impl Turn {
    fn take(without: &mut Instance, sharing: &mut [Instance], redis: &Redis, time: Duration) -> Result<Self> {
        let amount = Amount::Time(time);
        let alone = without.run(amount)?;
        let one = sharing[0].run(amount)?;
        let engine = proc::cpu_time(redis.pid())?;
        let all = thread::scope(|scope| {
            let runs: Vec<_> = sharing
                .iter_mut()
                .map(|instance| scope.spawn(|| instance.run(amount)))
                .collect();
            let runs = runs
                .into_iter()
                .map(|run| run.join().map_err(|_| anyhow!("a load panicked"))?);
            runs.collect::<Result<Vec<_>>>()
        })?;
        let engine = proc::cpu_time(redis.pid())? - engine;
        let pushes = all.iter().map(|(pushes, _)| pushes).sum();
        Ok(Self {
            without: per_push(alone.1, alone.0),
            with: per_push(one.1, one.0),
            of_three: per_push(all.iter().map(|(_, cpu)| *cpu).sum(), pushes),
            engine: per_push(engine, pushes),
        })
    }
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            without,
            with,
            of_three,
            engine,
        } = self;
        write!(
            f,
            "without {without:.1} us, with {with:.1} us, each of three {of_three:.1} us, the engine {engine:.1} us"
        )
    }
}

/// What the engine needs for a key, by pushes to so many.
fn bytes_each(redis: &Redis, instance: &mut Instance, tokens: u64) -> Result<f64> {
    let state = || {
        let info = redis.ask(&["INFO", "memory"]);
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        let keys = redis.ask(&["ZCARD", &format!("fpush:{{{MODULE}}}:windows")]);
        anyhow::Ok((
            used.context("the engine does not say what it uses")?
                .trim()
                .parse::<f64>()?,
            keys.parse::<f64>().context("the engine remembers no push")?,
        ))
    };
    // Without what the loads have left behind, which would go meanwhile.
    redis.ask(&["DEL", &format!("fpush:{{{MODULE}}}:windows")]);
    let before = state()?;
    instance.run(Amount::Publishes(tokens))?;
    let after = state()?;
    Ok((after.0 - before.0) / (after.1 - before.1).max(1.0))
}

impl Cluster {
    fn median(&self, figure: impl Fn(&Turn) -> f64) -> f64 {
        median(self.turns.iter().map(figure)).unwrap_or_default()
    }

    fn added(&self, figure: impl Fn(&Spread) -> Duration) -> f64 {
        let added = |paced: &Paced| millis(figure(&paced.with)) - millis(figure(&paced.without));
        median(self.paces.iter().map(added)).unwrap_or_default()
    }

    /// CPU per push of an instance over that of one that shares nothing.
    pub(super) fn ratio(&self) -> f64 {
        self.median(|turn| turn.with / turn.without)
    }

    /// The same of each of three.
    pub(super) fn ratio_of_three(&self) -> f64 {
        self.median(|turn| turn.of_three / turn.without)
    }

    /// Milliseconds that it adds to the median.
    pub(super) fn p50(&self) -> f64 {
        self.added(|spread| spread.p50)
    }

    /// Milliseconds that it adds to the time that one push in a hundred exceeds.
    pub(super) fn p99(&self) -> f64 {
        self.added(|spread| spread.p99)
    }

    pub(super) fn table(&self) -> Table {
        let row = |what: &str, figure: String| vec![what.to_owned(), figure];
        let micros = |figure: fn(&Turn) -> f64| format!("{:.1} us", self.median(figure));
        let carried = 1e6 / self.median(|turn| turn.engine);
        let instance = 1e6 / self.median(|turn| turn.of_three);
        Table {
            title: "With a cluster".to_owned(),
            head: &["", "measured"],
            rows: vec![
                row("CPU per push without", micros(|turn| turn.without)),
                row("CPU per push of one instance", micros(|turn| turn.with)),
                row("over that without", format!("{:.2}", self.ratio())),
                row("CPU per push of each of three", micros(|turn| turn.of_three)),
                row("over that without", format!("{:.2}", self.ratio_of_three())),
                row(
                    &format!("added at {}/s: p50", self.per_second),
                    format!("{:.2} ms", self.p50()),
                ),
                row(
                    &format!("added at {}/s: p99", self.per_second),
                    format!("{:.2} ms", self.p99()),
                ),
                row("the engine's CPU per push", micros(|turn| turn.engine)),
                row(
                    "pushes/s that one core of an engine carries",
                    format!("{carried:.0}"),
                ),
                row(
                    "instances at full load that one engine carries",
                    format!("{:.1}", carried / instance),
                ),
                row(
                    "memory of the engine for a key",
                    format!("{:.0} bytes", self.bytes_each),
                ),
            ],
            notes: vec![format!(
                "APNs with certificate, Prosody, {} in flight at each instance; medians of turns, in each of which first the one \
                 without, then one, then three together have the load. The engine keeps an append-only file.",
                LOADS[0].in_flight
            )],
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "cpu_us_without": self.median(|turn| turn.without),
            "cpu_us_with": self.median(|turn| turn.with),
            "cpu_us_of_three": self.median(|turn| turn.of_three),
            "ratio": self.ratio(),
            "ratio_of_three": self.ratio_of_three(),
            "added_p50_ms": self.p50(),
            "added_p99_ms": self.p99(),
            "engine_cpu_us": self.median(|turn| turn.engine),
            "engine_bytes_each": self.bytes_each,
        })
    }
}

const MODULE: &str = "apple";
const INSTANCES: u64 = 3;
