//! What an overload costs that comes from many domains, beside the same from one: the provider is at its limit, and many more
//! publishes come than it takes.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::group::Subject;
use super::load::Amount;
use super::providers::Backend;
use super::rig::Rig;
use super::target::Target;
use super::template::{Server, Template};
use super::throughput::per_push;

/// CPU for a publish in microseconds, publishes that were answered and pushes that got through a second.
struct Cost {
    cpu: f64,
    answered: f64,
    accepted: f64,
}

pub(super) fn measure(subject: &Subject<'_>) -> Result<Vec<Target>> {
    let count = subject.plan.domains.domains;
    println!("domains: {count}");
    let many = || (0..count).map(|number| publish(&format!("d{number}.org")));
    // Every other one is from the domain that floods.
    let flood = many().flat_map(|other| [publish("one.org"), other]);
    let one = cost(subject, &[publish("one.org")])?;
    let flood = cost(subject, &flood.collect::<Vec<_>>())?;
    let many = cost(subject, &many().collect::<Vec<_>>())?;
    let mut targets = vec![
        Target::none("CPU per publish, 1 domain", one.cpu, " us"),
        Target::none("answers, 1 domain", one.answered, "/s"),
        Target::none("pushes that get through, 1 domain", one.accepted, "/s"),
    ];
    let flooded = format!("one floods among {count}");
    for (what, cost) in [(format!("{count} domains"), many), (flooded, flood)] {
        targets.extend([
            Target::at_most(
                format!("CPU per publish / 1 domain: {what}"),
                cost.cpu / one.cpu,
                1.3,
                "",
            ),
            Target::none(format!("answers: {what}"), cost.answered, "/s"),
            Target::at_least(
                format!("pushes that get through / 1 domain: {what}"),
                cost.accepted / one.accepted,
                0.95,
                "",
            ),
        ]);
    }
    Ok(targets)
}

fn cost(subject: &Subject<'_>, templates: &[Template]) -> Result<Cost> {
    let plan = subject.plan.domains;
    let mut module = subject.stand_in.endpoints.slow_module();
    module["maxInFlight"] = plan.permits.into();
    let mut rig = Rig::start(subject.fpush, &json!({ MODULE: module }))?;
    let mut run = |time: Duration| rig.overload(templates, plan.in_flight, Amount::Time(time));
    run(plan.time)?;
    let (done, accepted, cpu) = run(plan.time)?;
    let seconds = done.elapsed.as_secs_f64();
    let cost = Cost {
        cpu: per_push(cpu, done.pushes),
        answered: done.pushes as f64 / seconds,
        accepted: accepted as f64 / seconds,
    };
    println!(
        "{} templates: {:.1} us, {:.0}/s answered, {:.0}/s accepted",
        templates.len(),
        cost.cpu,
        cost.answered,
        cost.accepted
    );
    Ok(cost)
}

fn publish(domain: &str) -> Template {
    Template::sent_by(domain, Server::Prosody, MODULE, &Backend::Certificate.token())
}

const MODULE: &str = "m";
