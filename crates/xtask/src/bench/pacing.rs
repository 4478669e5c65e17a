//! What a push costs and how long it takes where publishes do not come as fast as they can: beside the bare client in the same run.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::group::Subject;
use super::helper::Floor;
use super::load::{Amount, Kind};
use super::paced::Pace;
use super::plan::LOADS;
use super::providers::Backend;
use super::rig::Rig;
use super::stats::{Spread, median, millis};
use super::target::Target;
use super::template::{Server, Template};
use super::throughput::per_push;

pub(super) fn measure(subject: &Subject<'_>) -> Result<Vec<Target>> {
    let (plan, stand_in, backend) = (subject.plan, subject.stand_in, Backend::Certificate);
    let sample = subject.samples.of(backend).context("there is no sample")?;
    let url = stand_in.endpoints.url(backend).context("there is no stand-in")?;
    let mut floor = Floor::start(stand_in, url, sample)?;
    let mut rig = Rig::start(
        subject.fpush,
        &json!({ MODULE: stand_in.endpoints.module(backend) }),
    )?;
    let template = Template::new(Server::Prosody, MODULE, &backend.token());
    let templates = std::slice::from_ref(&template);
    rig.run(
        templates,
        LOADS[0].in_flight,
        Amount::Time(plan.warm_up),
        Kind::Result,
    )?;

    let even = plan.even_rate;
    let (mut cpus, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..plan.others.count {
        let (sent, cpu) = rig.paced(&template, Pace::even(even), plan.paced)?;
        let (requests, alone) = floor.run(1, plan.others.time)?;
        let cpu = per_push(cpu, sent.pushes());
        cpus.push(cpu);
        ratios.push(cpu / per_push(alone, requests.pushes));
    }

    let rate = plan.target_rate;
    println!("pacing: {rate} a second, Poisson, {:?}", plan.tail);
    let (sent, cpu) = rig.paced(&template, Pace::poisson(rate), plan.tail)?;
    ensure!(sent.refused == 0, "{} publishes were refused", sent.refused);
    let (taken, late) = (sent.spread(), Spread::of(sent.late.clone()));
    let bare = floor.paced(rate, plan.floor_tail)?;
    let allowed = (2 * bare.p999).max(Duration::from_millis(3));
    let median = |figures: Vec<f64>| median(figures.into_iter()).unwrap_or_default();
    Ok(vec![
        Target::none(
            format!("CPU per push, {even} a second, even"),
            median(cpus),
            " us",
        ),
        Target::at_most(
            "the same / that of the bare client with 1 in flight",
            median(ratios),
            1.35,
            "",
        ),
        Target::none(
            format!("CPU per push, {rate} a second, Poisson"),
            per_push(cpu, sent.pushes()),
            " us",
        ),
        Target::none("p50 of replies", millis(taken.p50), " ms"),
        Target::none("p99", millis(taken.p99), " ms"),
        Target::at_most("p99.9", millis(taken.p999), millis(allowed), " ms"),
        Target::none("longest", millis(taken.max), " ms"),
        Target::none("p50 of the bare client's answers", millis(bare.p50), " ms"),
        Target::none("p99", millis(bare.p99), " ms"),
        Target::none("p99.9", millis(bare.p999), " ms"),
        Target::none("longest", millis(bare.max), " ms"),
        Target::none("p99.9 of the load's lateness", millis(late.p999), " ms"),
    ])
}

const MODULE: &str = "m";
