//! `cargo xtask simulate`: random worlds around the policy, around the whole daemon and around the registry, in virtual time.

use std::{
    env,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::process;

/// Which worlds.
pub(crate) enum Worlds {
    /// So many of each simulation, from this seed on.
    Seeds { first: u64, count: u64 },
    /// This one of each simulation, with every step printed.
    Trace(u64),
}

impl Worlds {
    pub(crate) fn read(options: &[&str]) -> Result<Self> {
        let number = |text: &str| {
            let number = text.parse();
            number.with_context(|| format!("{text} is not a number"))
        };
        match options {
            [] => Ok(Self::Seeds {
                first: 0,
                count: 1_000,
            }),
            ["--seeds", seeds] => Ok(Self::Seeds {
                first: 0,
                count: number(seeds)?,
            }),
            ["--seeds", seeds, "--from", first] => Ok(Self::Seeds {
                first: number(first)?,
                count: number(seeds)?,
            }),
            ["--seed", seed, "--trace"] => number(seed).map(Self::Trace),
            _ => {
                anyhow::bail!(
                    "the options are --seeds N with or without --from S, or --seed S --trace; `cargo xtask help` lists them"
                )
            }
        }
    }
}

/// The simulations: package, test target, and the test that reads the variables.
const SIMULATIONS: [(&str, &str, &str); 6] = [
    (
        "fpush-policy",
        "world",
        "nothing_that_was_acknowledged_vanishes_and_no_permit_is_lost",
    ),
    ("fpush-simulation", "daemon", "the_promises_hold_in_random_worlds"),
    (
        "fpush-policy",
        "world",
        "a_dead_device_goes_at_once_while_its_lane_is_calm",
    ),
    (
        "fpush-policy",
        "world",
        "an_incident_costs_ten_devices_at_most_and_gone_devices_go",
    ),
    (
        "fpush-policy",
        "world",
        "while_one_lane_is_away_the_other_ends_nobody",
    ),
    (
        "fpush-simulation",
        "registry",
        "no_answer_ends_a_living_device_and_each_is_found",
    ),
];

pub(crate) fn run(worlds: &Worlds) -> Result<()> {
    for (package, target, test) in SIMULATIONS {
        let mut command = process::cargo(&[
            "test",
            "--release",
            "-p",
            package,
            "--test",
            target,
            "--",
            "--nocapture",
            "--exact",
            test,
        ]);
        match worlds {
            Worlds::Seeds { first, count } => command
                .env("FPUSH_FIRST_SEED", first.to_string())
                .env("FPUSH_SEEDS", count.to_string()),
            Worlds::Trace(seed) => command.env("FPUSH_SEED", seed.to_string()),
        };
        process::run(&mut command)?;
    }
    match worlds {
        Worlds::Seeds { .. } => process::run(&mut count()?),
        Worlds::Trace(_) => Ok(()),
    }
}

/// The test of what decisions cost, with our crates compiled so that blocks of code are counted.
pub(crate) fn count() -> Result<Command> {
    let mut command = process::cargo(&[
        "test",
        "-p",
        "fpush-simulation",
        "--test",
        "cost",
        "--",
        "--ignored",
    ]);
    command
        .env("RUSTC_WORKSPACE_WRAPPER", process::this_program()?)
        .env(COMPILES, "1");
    Ok(command)
}

/// Stands in for the compiler while [`count`] runs; cargo passes it and its arguments.
pub(crate) fn compile(arguments: &[&str]) -> Option<ExitCode> {
    let (rustc, rest) = arguments.split_first()?;
    env::var_os(COMPILES)?;
    let mut command = Command::new(rustc);
    command.args(rest);
    // It is the one that counts.
    if !rest.windows(2).any(|pair| pair == ["--crate-name", COUNTER]) {
        command.args([
            "-Cpasses=sancov-module",
            "-Cllvm-args=-sanitizer-coverage-level=3",
            "-Cllvm-args=-sanitizer-coverage-trace-pc-guard",
        ]);
    }
    let succeeded = command.status().is_ok_and(|status| status.success());
    Some(if succeeded {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Set where this program compiles.
const COMPILES: &str = "FPUSH_COUNTS_BLOCKS";
const COUNTER: &str = "fpush_simulation";
