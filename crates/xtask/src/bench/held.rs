//! Pushes that are held because their provider is away: what they cost, and how long a start with them takes.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fpush_testkit::TempDir;
use serde_json::json;

use super::group::Subject;
use super::load::{Amount, Kind};
use super::megabytes;
use super::paced::Pace;
use super::plan::{LOADS, Plan};
use super::providers::Backend;
use super::rig::Rig;
use super::stats::{Spread, millis};
use super::target::Target;
use super::template::{Server, Template};

pub(super) fn measure(subject: &Subject<'_>) -> Result<Vec<Target>> {
    let Subject {
        fpush,
        plan,
        stand_in,
        ..
    } = *subject;
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
    Ok(vec![
        Target::at_most("CPU for each, acknowledged and on disk", cpu, 25.0, " us"),
        Target::none("acknowledged a second", per_second, "/s"),
        Target::at_most("disk for each", disk as f64 / count as f64, 400.0, " bytes"),
        Target::none(format!("memory of {count}"), megabytes(bytes), " MB"),
        Target::at_most(
            format!("from exec to link up after kill -9, with {count} of them"),
            with.as_secs_f64(),
            3.0,
            " s",
        ),
        Target::none("the same without any", without.as_secs_f64(), " s"),
        Target::none(
            "until all are sent, with the provider back",
            drained.as_secs_f64(),
            " s",
        ),
        Target::none("new pushes meanwhile: p50", millis(new.p50), " ms"),
        Target::at_most("the same: p99", millis(new.p99), 50.0, " ms"),
        Target::none("the same: max", millis(new.max), " ms"),
    ])
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

const DEMO: &str = "demo";
const APPLE: &str = "apple";
/// How often it is looked whether there are any left.
const SLICE: Duration = Duration::from_secs(2);
/// The rate doubles every few seconds, and a probe may be some seconds away.
const LONGEST_DRAIN: Duration = Duration::from_secs(900);
