//! What could hold up pushes for a moment: the longest replies while tables grow, while metrics are read, while settings are
//! reloaded and while a block list is written down.
//!
//! The modules are demos, so that no stand-in can stall in fpush's place. A thread that wakes up late is the load's fault; how
//! late it was at most is in a column of its own.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use fpush_testkit::{Monitoring, TempDir};
use serde_json::{Map, Value, json};

use super::group::Subject;
use super::load::Amount;
use super::paced::{Pace, Sent};
use super::plan::LOADS;
use super::providers::Backend;
use super::rig::Rig;
use super::stats::{Spread, millis};
use super::target::Target;
use super::template::{NUMBER, Server, Template};

/// While each push is for a new token.
pub(super) fn growth(subject: &Subject<'_>) -> Result<Vec<Target>> {
    let plan = subject.plan.growth;
    println!("growth: {} tokens", plan.tokens);
    let mut rig = Rig::start(subject.fpush, &modules(1, WINDOW))?;
    let time = Duration::from_secs_f64(plan.tokens as f64 / plan.per_second as f64);
    let pace = Pace::poisson(plan.per_second);
    let sent = rig.paced_while(&templates(1), pace, time, |_| ())?;
    let taken = accepted(&sent)?;
    let what = format!(
        "{} new tokens, {} a second, Poisson",
        plan.tokens, plan.per_second
    );
    Ok(vec![
        Target::at_most(format!("longest reply: {what}"), millis(taken.max), 20.0, " ms"),
        Target::none("p99.9", millis(taken.p999), " ms"),
        late(&sent),
    ])
}

/// While all metrics of many modules are read every second.
pub(super) fn scrape(subject: &Subject<'_>) -> Result<Vec<Target>> {
    let plan = subject.plan.stall;
    println!("scrape: {} modules", plan.modules);
    let folder = TempDir::new();
    let (all, state) = (modules(plan.modules, WINDOW), folder.path().join("state"));
    let mut rig = Rig::start_in(subject.fpush, &all, &state)?;
    let (pace, templates) = (Pace::poisson(plan.per_second), templates(plan.modules));
    // Each module has its first push behind it.
    rig.paced_while(&templates, pace, plan.time, |_| ())?;
    let without = rig.paced_while(&templates, pace, plan.time, |_| ())?;
    let read = AtomicU64::new(0);
    let with = rig.paced_while(&templates, pace, plan.time, |daemon| {
        let page = Monitoring::of(daemon, PATIENCE).get("/metrics");
        read.fetch_add(page.body.len() as u64, Ordering::Relaxed);
    })?;
    let seconds = plan.time.as_secs().max(1);
    ensure!(read.load(Ordering::Relaxed) > 0, "there are no metrics");
    let (calm, scraped) = (accepted(&without)?, accepted(&with)?);
    Ok(vec![
        Target::none("p99 without", millis(calm.p99), " ms"),
        Target::none("p99 scraped every second", millis(scraped.p99), " ms"),
        Target::at_most(
            format!("the second / the first, {} modules", plan.modules),
            scraped.p99.as_secs_f64() / calm.p99.as_secs_f64(),
            3.0,
            "",
        ),
        Target::none("longest reply without", millis(calm.max), " ms"),
        Target::none("longest reply scraped every second", millis(scraped.max), " ms"),
        Target::none(
            "metrics",
            read.into_inner() as f64 / seconds as f64 / 1e6,
            " MB/s",
        ),
        late(&with),
    ])
}

/// While the settings of all of many modules change every second.
pub(super) fn reload(subject: &Subject<'_>) -> Result<Vec<Target>> {
    let plan = subject.plan.stall;
    println!("reload: {} modules", plan.modules);
    let mut rig = Rig::start(subject.fpush, &modules(plan.modules, WINDOW))?;
    let (pace, templates) = (Pace::poisson(plan.per_second), templates(plan.modules));
    let without = rig.paced_while(&templates, pace, plan.time, |_| ())?;
    let reloads = AtomicU64::new(0);
    let with = rig.paced_while(&templates, pace, plan.time, |daemon| {
        let file = daemon.dir().join("settings.json");
        let number = reloads.fetch_add(1, Ordering::Relaxed);
        let window = if number.is_multiple_of(2) {
            OTHER_WINDOW
        } else {
            WINDOW
        };
        let settings = fs::read_to_string(&file).unwrap_or_default();
        let mut settings = serde_json::from_str(&settings).unwrap_or(Value::Null);
        settings["pushModules"] = modules(plan.modules, window);
        // What cannot be written is not reloaded, which is noticed below.
        if fs::write(&file, settings.to_string()).is_ok() {
            daemon.signal("HUP");
        }
    })?;
    let done = rig.log_lines("settings reloaded") + rig.log_lines("the settings were taken over");
    ensure!(done > 0, "nothing was reloaded");
    let (calm, reloaded) = (accepted(&without)?, accepted(&with)?);
    Ok(vec![
        Target::none("longest reply without", millis(calm.max), " ms"),
        Target::at_most(
            format!("longest reply while {} modules change {done} times", plan.modules),
            millis(reloaded.max),
            10.0,
            " ms",
        ),
        Target::none("p99", millis(reloaded.p99), " ms"),
        late(&with),
    ])
}

/// While a block list of a million tokens, and what waits for its turn, are written to the state directory.
pub(super) fn snapshot(subject: &Subject<'_>) -> Result<Vec<Target>> {
    let (plan, stall) = (subject.plan, subject.plan.stall);
    println!("snapshot: {} blocked tokens", plan.tokens);
    let folder = TempDir::new();
    let mut all = modules(1, HOUR);
    all[BLOCKED] = json!({ "type": "demo" });
    let mut rig = Rig::start_in(subject.fpush, &all, &folder.path().join("state"))?;
    let dead = [Template::new(Server::Prosody, BLOCKED, &format!("dead{NUMBER}"))];
    let in_flight = LOADS[0].in_flight;
    let (done, lived, _) = rig.overload(&dead, in_flight, Amount::Publishes(plan.tokens))?;
    ensure!(
        lived == 0 && done.pushes == plan.tokens,
        "a dead token was accepted"
    );
    // The second push for each of these waits for the end of the first one's window.
    let templates = templates(1);
    for _ in 0..2 {
        rig.link.next = 1 << 40;
        rig.overload(&templates, in_flight, Amount::Publishes(plan.queued))?;
    }
    rig.link.next = 1 << 41;
    let pace = Pace::poisson(stall.per_second);
    let sent = rig.paced_while(&templates, pace, plan.snapshot, |_| ())?;
    let written = fs::metadata(folder.path().join("state/blocklist.jsonl")).map_or(0, |file| file.len());
    let taken = accepted(&sent)?;
    Ok(vec![
        Target::at_most(
            format!(
                "longest reply with {} blocked and {} held",
                plan.tokens, plan.queued
            ),
            millis(taken.max),
            10.0,
            " ms",
        ),
        Target::none("p99.9", millis(taken.p999), " ms"),
        Target::none("block list on disk", written as f64 / 1e6, " MB"),
        late(&sent),
    ])
}

/// How long the replies took, all of which must be results.
fn accepted(sent: &Sent) -> Result<Spread> {
    ensure!(sent.refused == 0, "{} publishes were refused", sent.refused);
    Ok(sent.spread())
}

fn late(sent: &Sent) -> Target {
    let late = Spread::of(sent.late.clone());
    Target::none("the load was late by at most", millis(late.max), " ms")
}

fn modules(count: u64, window: &str) -> Value {
    let limit = json!({ "ratelimitTime": window, "ratelimitCleanupInterval": "2h" });
    let module = json!({ "type": "demo", "ratelimit": limit });
    let modules = (0..count).map(|number| (name(number), module.clone()));
    Value::Object(Map::from_iter(modules))
}

fn templates(count: u64) -> Vec<Template> {
    let template = |number| Template::new(Server::Prosody, &name(number), &Backend::Demo.token());
    (0..count).map(template).collect()
}

fn name(number: u64) -> String {
    format!("module{number}")
}

const BLOCKED: &str = "blocked";
const WINDOW: &str = "20s";
const OTHER_WINDOW: &str = "21s";
const HOUR: &str = "1h";
const PATIENCE: Duration = Duration::from_secs(30);
