//! `cargo xtask bench --against PROGRAM`: two programs in turns, in one run, so that whatever else the machine does
//! meanwhile is the same for both.

use std::path::Path;

use anyhow::Result;

use super::flood;
use super::helper::StandIn;
use super::memory;
use super::plan::{LOADS, Load, Plan, Rounds};
use super::providers::Backend;
use super::sample::Samples;
use super::stats::median;
use super::throughput::{Bench, Round};
use crate::table::Table;

/// The two programs.
pub(super) struct Programs<'a> {
    pub(super) this: &'a Path,
    pub(super) other: &'a Path,
}

/// Measures both, and returns the tables.
pub(super) fn measure(
    programs: &Programs<'_>,
    plan: &Plan,
    stand_in: &StandIn,
    samples: &Samples,
) -> Result<Vec<Table>> {
    Ok(vec![
        pushes(programs, plan, stand_in, samples)?,
        memory(programs, plan)?,
        flood(programs, plan, stand_in)?,
    ])
}

/// What the programs have cost in one round each.
struct Turn {
    this: Round,
    other: Round,
}

fn pushes(programs: &Programs<'_>, plan: &Plan, stand_in: &StandIn, samples: &Samples) -> Result<Table> {
    let mut rows = Vec::new();
    // The demo has no floor.
    let loads = LOADS.iter().filter(|load| load.backend != Backend::Demo);
    for &load in loads {
        let mut this = Bench::start(programs.this, stand_in, samples, load.backend)?;
        let mut other = Bench::start(programs.other, stand_in, samples, load.backend)?;
        this.round(load, plan.warm_up)?;
        other.round(load, plan.warm_up)?;
        let Rounds { count, time } = if rows.is_empty() { plan.main } else { plan.others };
        let mut turns = Vec::new();
        for number in 1..=count {
            let other = other.round(load, time)?;
            let this = this.round(load, time)?;
            println!("{load}, turn {number}/{count}: the other {other}; this {this}");
            turns.push(Turn { this, other });
        }
        rows.push(cells(load, &turns));
    }
    Ok(Table {
        title: "Pushes, in turns".to_owned(),
        head: &[
            "load",
            "the other: CPU per push",
            "/ floor",
            "this: CPU per push",
            "/ floor",
            "this / the other",
        ],
        rows,
        notes: vec!["Medians of the rounds; the last column is the median of the turns' ratios.".to_owned()],
    })
}

fn cells(load: Load, turns: &[Turn]) -> Vec<String> {
    let of = |figure: &dyn Fn(&Turn) -> Option<f64>| {
        let figure = median(turns.iter().filter_map(figure));
        figure.map(|figure| format!("{figure:.2}")).unwrap_or_default()
    };
    vec![
        load.to_string(),
        of(&|turn| Some(turn.other.cpu())),
        of(&|turn| turn.other.ratio()),
        of(&|turn| Some(turn.this.cpu())),
        of(&|turn| turn.this.ratio()),
        of(&|turn| Some(turn.this.cpu() / turn.other.cpu())),
    ]
}

fn memory(programs: &Programs<'_>, plan: &Plan) -> Result<Table> {
    let other = memory::measure(programs.other, plan)?;
    let this = memory::measure(programs.this, plan)?;
    let rows = other.rows().into_iter().zip(this.rows());
    Ok(Table {
        title: "Memory".to_owned(),
        head: &["", "the other", "this"],
        rows: rows
            .map(|([what, other], [_, this])| vec![what, other, this])
            .collect(),
        notes: Vec::new(),
    })
}

fn flood(programs: &Programs<'_>, plan: &Plan, stand_in: &StandIn) -> Result<Table> {
    let other = flood::measure(programs.other, plan, stand_in)?;
    let this = flood::measure(programs.this, plan, stand_in)?;
    let rows = other.p99().zip(this.p99());
    Ok(Table {
        title: "Flood of one domain: p99 of another one, without and with".to_owned(),
        head: &["request", "the other", "", "this", ""],
        rows: rows
            .map(|((what, other), (_, this))| {
                let cells = [other, this].into_iter().flatten();
                [what.to_owned()]
                    .into_iter()
                    .chain(cells.map(|time| format!("{time:.1} ms")))
                    .collect()
            })
            .collect(),
        notes: Vec::new(),
    })
}
