//! Whether a push gets dearer with the number of modules.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::helper::StandIn;
use super::load::{Amount, Kind};
use super::plan::{LOADS, Plan};
use super::providers::Backend;
use super::rig::Rig;
use super::stats::{median, millis};
use super::template::{Server, Template};
use super::throughput::per_push;
use crate::table::Table;

pub(super) struct Modules {
    rows: Vec<Row>,
}

struct Row {
    backend: Backend,
    modules: u64,
    /// The module of each publish is the next one, or always the first.
    spread: bool,
    cpu_us: f64,
    startup: Duration,
}

pub(super) fn measure(fpush: &Path, plan: &Plan, stand_in: &StandIn) -> Result<Modules> {
    let mut rows = Vec::new();
    let demo = plan.demo_modules.iter().map(|&modules| (Backend::Demo, modules));
    let apns = plan
        .apns_modules
        .iter()
        .map(|&modules| (Backend::Certificate, modules));
    for (backend, modules) in demo.chain(apns) {
        let names = (0..modules).map(|number| format!("module{number}"));
        let module = stand_in.endpoints.module(backend);
        let all = names.clone().map(|name| (name, module.clone()));
        let mut rig = Rig::start(fpush, &Value::Object(Map::from_iter(all)))?;
        let templates = names.map(|name| Template::new(Server::Prosody, &name, &backend.token()));
        let templates = templates.collect::<Vec<_>>();
        for spread in [false, true] {
            let templates = if spread { &templates } else { &templates[..1] };
            let mut run = |time| rig.run(templates, LOADS[0].in_flight, Amount::Time(time), Kind::Result);
            run(plan.warm_up)?;
            let mut rounds = Vec::new();
            for _ in 0..plan.others.count {
                let (done, cpu) = run(plan.others.time)?;
                rounds.push(per_push(cpu, done.pushes));
            }
            let row = Row {
                backend,
                modules,
                spread,
                cpu_us: median(rounds.into_iter()).unwrap_or_default(),
                startup: rig.startup,
            };
            println!(
                "{modules} modules, {}, publishes for {}: {:.1} us",
                backend.name(),
                row.target(),
                row.cpu_us
            );
            rows.push(row);
        }
    }
    Ok(Modules { rows })
}

impl Modules {
    pub(super) fn table(&self) -> Table {
        let row = |row: &Row| {
            vec![
                row.backend.name().to_owned(),
                row.modules.to_string(),
                row.target().to_owned(),
                format!("{:.1} us", row.cpu_us),
                format!("{:.0} ms", millis(row.startup)),
            ]
        };
        Table {
            title: format!("Cost with many modules ({} in flight)", LOADS[0].in_flight),
            head: &["module", "modules", "publishes for", "CPU per push", "start-up"],
            rows: self.rows.iter().map(row).collect(),
            notes: vec![
                "Each module of APNs has a connection of its own, and what many pushes share on one \
                 connection (packets, TLS records, system calls) they do not share on many."
                    .to_owned(),
            ],
        }
    }

    pub(super) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "module": row.backend.name(),
                "modules": row.modules,
                "publishes_for": row.target(),
                "cpu_us_per_push": row.cpu_us,
                "startup_ms": millis(row.startup),
            })
        });
        rows.collect()
    }
}

impl Row {
    fn target(&self) -> &'static str {
        if self.spread { "all" } else { "the first" }
    }
}
