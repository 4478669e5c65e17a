//! `cargo xtask soak`: each kind of outage of a provider for minutes, with a restart and a `kill -9` in it. Every device has
//! to get its push; what it gets twice is counted.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fpush_testkit::outage::{Kind, Outcome, World};

use crate::interrupt;
use crate::process;
use crate::table::Table;

/// For how long each outage lasts if nobody says it.
pub(crate) const USUAL: Duration = Duration::from_secs(300);

/// Runs all outages, of so long each, and prints a table.
pub(crate) fn run(time: Duration) -> Result<()> {
    ensure!(
        time >= SHORTEST,
        "an outage lasts {} s at least",
        SHORTEST.as_secs()
    );
    let devices = (time.as_secs() as usize * PER_SECOND).min(MOST_DEVICES);
    println!(
        "Outages of {} s each, with messages for {devices} devices, a restart after half of it and kill -9 after three quarters. \
         Everything is on 127.0.0.1.\n",
        time.as_secs()
    );
    let program = process::build("fpush", &[])?;
    let start = Instant::now();
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for kind in Kind::ALL {
        println!("the provider {} …", kind.name());
        let mut world = World::start(&program, devices, None, || !interrupt::happened());
        // One that was accepted: its domain is a known one from then on.
        let first = world.push(devices);
        ensure!(first == RESULT, "a push before the outage was answered {first}");
        let outcome = world.outage(kind, time);
        interrupt::check()?;
        let outcome = outcome.context("it was left undone")?;
        if let Some(why) = fault(&outcome, devices) {
            println!("{}\n{why}", world.daemon.log());
            failed.push(format!("the provider {}: {why}", kind.name()));
        }
        rows.push(row(kind, &outcome, devices));
    }
    let notes = vec![
        "Acknowledged: publishes while the provider was away; each device has several, and is woken once."
            .to_owned(),
        "First and last push: since the provider is back. A probe goes out every 15 s at most.".to_owned(),
        "No answer: requests of which nobody knows what the provider has made of them. Twice: second pushes; each of them is to a \
         device with such a request. The last of these may be the probe that was under way when the provider came back: a message \
         that came before its answer gets a push of its own, because the probe may have woken the device before that message was there."
            .to_owned(),
        "Above the rate: seconds with more pushes than the rate allows that doubles every six seconds."
            .to_owned(),
    ];
    let table = Table {
        title: format!("Outages of {} s", time.as_secs()),
        head: &[
            "the provider",
            "acknowledged",
            "otherwise",
            "answered in",
            "requests in vain",
            "no answer",
            "woken",
            "first push",
            "last push",
            "twice",
            "above the rate",
        ],
        rows,
        notes,
    };
    println!("\n{table}\n{} s in all", start.elapsed().as_secs());
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// Why an outage was not as it has to be.
fn fault(outcome: &Outcome, devices: usize) -> Option<String> {
    let others: Vec<_> = outcome
        .answers
        .keys()
        .filter(|answer| *answer != RESULT)
        .collect();
    if !others.is_empty() {
        return Some(format!("publishes were answered {others:?}"));
    }
    let (woken, twice, spikes) = (outcome.woken(), outcome.twice(), outcome.spikes());
    if woken < devices {
        return Some(format!("{woken} of {devices} devices were woken"));
    }
    let unexplained = outcome.unexplained();
    if !unexplained.is_empty() {
        return Some(format!(
            "{} of {twice} second pushes have no reason: {}",
            unexplained.len(),
            unexplained.join("; ")
        ));
    }
    (spikes > 0).then(|| format!("more went out than the rate allows: {:?}", outcome.by_second()))
}

fn row(kind: Kind, outcome: &Outcome, devices: usize) -> Vec<String> {
    let acknowledged = outcome.answers.get(RESULT).copied().unwrap_or_default();
    let all: usize = outcome.answers.values().sum();
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    let [first, last] = match outcome.span() {
        Some((first, last)) => [first, last].map(seconds),
        None => [String::new(), String::new()],
    };
    vec![
        kind.name().to_owned(),
        acknowledged.to_string(),
        (all - acknowledged).to_string(),
        format!("{} ms", outcome.answered_in.as_millis()),
        outcome.in_vain.to_string(),
        outcome.unanswered.values().sum::<usize>().to_string(),
        format!("{} of {devices}", outcome.woken()),
        first,
        last,
        outcome.twice().to_string(),
        outcome.spikes().to_string(),
    ]
}

const RESULT: &str = "result";
/// Until an outage is noticed, and everything has happened in it, some time passes.
const SHORTEST: Duration = Duration::from_secs(8);
/// Devices for each second of the outage: all of them get messages in each part of it.
const PER_SECOND: usize = 8;
const MOST_DEVICES: usize = 2_000;
