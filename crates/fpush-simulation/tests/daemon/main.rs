//! A random world around the whole daemon but its sockets, in virtual time: dispatcher, driver, policy, what outlasts a
//! restart, and a registry that does what the real one promises. Servers publish and send notifications of Push 2.0. After each
//! step the four promises hold: no reply costs a living device its registration, nothing that was acknowledged is lost uncounted, no stranger keeps others waiting, and
//! the log shows nobody's secret.
//!
//! The same seed is the same run. `FPUSH_SEEDS=100000` runs so many; `FPUSH_SEED=7` runs one and prints what happens in it.

#![cfg(target_os = "linux")]

mod books;
mod daemon;
mod device;
mod ledger;
mod log;
mod notifications;
mod provider;
mod random;
mod registry;
mod server;
mod stanzas;
mod world;

use std::{collections::BTreeSet, env, process::Command};

use world::{Failure, Plan, Report, run};

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn the_promises_hold_in_random_worlds() {
    let told = |seed| Plan {
        told: true,
        ..Plan::of(seed)
    };
    if let Some(seed) = number("FPUSH_SEED") {
        if let Err(failure) = run(&told(seed)) {
            panic!("seed {seed}, step {}: {}", failure.step, failure.what);
        }
        return;
    }
    let first = number("FPUSH_FIRST_SEED").unwrap_or(0);
    let mut sum = Report::default();
    for seed in first..first + number("FPUSH_SEEDS").unwrap_or(60) {
        match run(&Plan::of(seed)) {
            Ok(report) => sum.add(&report),
            Err(failure) => {
                let (plan, failure) = shortest(seed, failure);
                drop(run(&Plan { told: true, ..plan }));
                panic!(
                    "seed {seed}, step {}: {}; above is the shortest way there, FPUSH_SEED={seed} shows all of it",
                    failure.step, failure.what
                );
            }
        }
    }
    log::say(format_args!("{sum:#?}"));
    assert!(sum.publishes > 0 && sum.accepted > 0 && sum.crashes > 0);
}

/// Leaves steps out as long as the run still fails.
fn shortest(seed: u64, failure: Failure) -> (Plan, Failure) {
    let mut plan = Plan {
        steps: failure.step,
        ..Plan::of(seed)
    };
    let mut shortest = failure;
    let mut length = plan.steps.div_ceil(2).max(1);
    loop {
        let mut from = 0;
        while from < plan.steps {
            let without: BTreeSet<_> = plan
                .left_out
                .iter()
                .copied()
                .chain(from..(from + length).min(plan.steps))
                .collect();
            let shorter = Plan {
                left_out: without,
                ..plan.clone()
            };
            if shorter.left_out.len() > plan.left_out.len()
                && let Err(failure) = run(&shorter)
            {
                plan = Plan {
                    steps: failure.step.min(shorter.steps),
                    ..shorter
                };
                shortest = failure;
            }
            from += length;
        }
        if length == 1 {
            return (plan, shortest);
        }
        length = length.div_ceil(2);
    }
}

/// Each run is the first of a process: Tokio numbers the runtimes of a process, and draws by that number too. So a seed that
/// failed among others has to fail once more alone.
#[test]
fn the_same_seed_is_the_same_run() {
    if let Some(seed) = number("FPUSH_HASH_OF") {
        match run(&Plan::of(seed)) {
            Ok(report) => log::say(format_args!("hash {}", report.hash)),
            Err(failure) => panic!("seed {seed}, step {}: {}", failure.step, failure.what),
        }
        return;
    }
    for seed in [3_u64, 4, 5] {
        let hash = || {
            let run = Command::new(env::current_exe().unwrap())
                .args(["--exact", "the_same_seed_is_the_same_run", "--nocapture"])
                .env("FPUSH_HASH_OF", seed.to_string())
                .output()
                .unwrap();
            let said = String::from_utf8(run.stdout).unwrap() + &String::from_utf8(run.stderr).unwrap();
            let hash = said.lines().find_map(|line| line.split_once("hash "));
            hash.expect(&said).1.to_owned()
        };
        assert_eq!(hash(), hash(), "seed {seed}");
    }
}
