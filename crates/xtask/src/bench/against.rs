//! `cargo xtask bench NAME …` and `cargo xtask bench --against PROGRAM`: some figures, of one program or of two in turns, in one
//! run, so that whatever else the machine does meanwhile is the same for both.

use std::path::Path;

use anyhow::Result;

use super::group::{GROUPS, Since, Subject};
use super::helper::StandIn;
use super::plan::{LOADS, Load, Plan, Rounds};
use super::providers::Backend;
use super::sample::Samples;
use super::stats::median;
use super::throughput::{Bench, Round};
use super::{flood, memory, target, throughput};
use crate::table::Table;

/// The programs.
pub(super) struct Programs<'a> {
    pub(super) this: &'a Path,
    pub(super) other: Option<&'a Path>,
}

/// What can be named, besides the groups.
const PUSHES: &str = "pushes";
const MEMORY: &str = "memory";
const FLOOD: &str = "flood";

/// Everything that can be named.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let groups = GROUPS.iter().map(|group| group.name);
    [PUSHES, MEMORY, FLOOD].into_iter().chain(groups)
}

/// Measures what has these names, everything if there are none, and returns the tables.
pub(super) fn measure(
    programs: &Programs<'_>,
    names: &[String],
    plan: &Plan,
    stand_in: &StandIn,
    samples: &Samples,
) -> Result<Vec<Table>> {
    let is_wanted = |name: &str| names.is_empty() || names.iter().any(|named| named == name);
    let this = programs.this;
    let mut tables = Vec::new();
    let mut add = |table: Table| {
        println!("\n{table}");
        tables.push(table);
    };
    if is_wanted(PUSHES) {
        add(match programs.other {
            Some(other) => pushes(this, other, plan, stand_in, samples)?,
            None => throughput::measure(this, plan, stand_in, samples)?.table(),
        });
    }
    if is_wanted(MEMORY) {
        add(match programs.other {
            Some(other) => memory(this, other, plan)?,
            None => memory::measure(this, plan)?.table(Vec::new()),
        });
    }
    if is_wanted(FLOOD) {
        add(match programs.other {
            Some(other) => flood(this, other, plan, stand_in)?,
            None => flood::measure(this, plan, stand_in)?.table(),
        });
    }
    for group in GROUPS.iter().filter(|group| is_wanted(group.name)) {
        let measure = |fpush| {
            (group.measure)(&Subject {
                fpush,
                plan,
                stand_in,
                samples,
            })
        };
        add(match (programs.other, group.since) {
            (Some(other), Since::First) => {
                target::table_against(group.title, &measure(other)?, &measure(this)?)
            }
            (Some(_), Since::Later) | (None, _) => target::table(group.title, &measure(this)?),
        });
    }
    Ok(tables)
}

/// What the programs have cost in one round each.
struct Turn {
    this: Round,
    other: Round,
}

fn pushes(this: &Path, other: &Path, plan: &Plan, stand_in: &StandIn, samples: &Samples) -> Result<Table> {
    let (this_program, other_program) = (this, other);
    let mut rows = Vec::new();
    // The demo has no floor.
    let loads = LOADS.iter().filter(|load| load.backend != Backend::Demo);
    for &load in loads {
        let mut this = Bench::start(this_program, stand_in, samples, load.backend)?;
        let mut other = Bench::start(other_program, stand_in, samples, load.backend)?;
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

fn memory(this: &Path, other: &Path, plan: &Plan) -> Result<Table> {
    let other = memory::measure(other, plan)?;
    let this = memory::measure(this, plan)?;
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

fn flood(this: &Path, other: &Path, plan: &Plan, stand_in: &StandIn) -> Result<Table> {
    let other = flood::measure(other, plan, stand_in)?;
    let this = flood::measure(this, plan, stand_in)?;
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
