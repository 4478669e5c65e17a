//! What it costs that instances share what they know: one of them beside one that shares nothing, in turns, and three at a time on
//! one engine.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use fpush_testkit::Redis;
use serde_json::json;

use super::group::Subject;
use super::load::{Amount, Kind};
use super::paced::Pace;
use super::plan::{LOADS, Rounds};
use super::proc;
use super::providers::Backend;
use super::rig::Rig;
use super::stats::{Spread, median, millis};
use super::target::Target;
use super::template::{Server, Template};
use super::throughput::per_push;

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

pub(super) fn measure(subject: &Subject<'_>) -> Result<Vec<Target>> {
    let Subject {
        fpush,
        plan,
        stand_in,
        ..
    } = *subject;
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
    let bytes_each = bytes_each(&redis, &mut sharing[0], plan.tokens)?;
    let cpu = |figure: fn(&Turn) -> f64| median(turns.iter().map(figure)).unwrap_or_default();
    let added = |figure: fn(&Spread) -> Duration| {
        let added = |paced: &Paced| millis(figure(&paced.with)) - millis(figure(&paced.without));
        median(paces.iter().map(added)).unwrap_or_default()
    };
    let carried = 1e6 / cpu(|turn| turn.engine);
    let rate = plan.target_rate;
    Ok(vec![
        Target::none("CPU per push without", cpu(|turn| turn.without), " us"),
        Target::none("CPU per push of one instance", cpu(|turn| turn.with), " us"),
        Target::at_most("over that without", cpu(|turn| turn.with / turn.without), 1.6, ""),
        Target::none("CPU per push of each of three", cpu(|turn| turn.of_three), " us"),
        Target::at_most(
            "over that without",
            cpu(|turn| turn.of_three / turn.without),
            1.7,
            "",
        ),
        Target::at_most(
            format!("added at {rate}/s: p50"),
            added(|spread| spread.p50),
            0.3,
            " ms",
        ),
        Target::at_most(
            format!("added at {rate}/s: p99"),
            added(|spread| spread.p99),
            1.5,
            " ms",
        ),
        Target::none("the engine's CPU per push", cpu(|turn| turn.engine), " us"),
        Target::none("pushes that one core of an engine carries", carried, "/s"),
        Target::none(
            "instances at full load that one engine carries",
            carried * cpu(|turn| turn.of_three) / 1e6,
            "",
        ),
        Target::none("memory of the engine for a key", bytes_each, " bytes"),
    ])
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

const MODULE: &str = "apple";
const INSTANCES: u64 = 3;
