//! `cargo xtask simulate`: random worlds around the policy, around the whole daemon and around the registry, in virtual time.

use anyhow::{Context as _, Result};

use crate::process;

/// Which worlds.
pub(crate) enum Worlds {
    /// So many of each simulation.
    Seeds(u64),
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
            [] => Ok(Self::Seeds(1_000)),
            ["--seeds", seeds] => number(seeds).map(Self::Seeds),
            ["--seed", seed, "--trace"] => number(seed).map(Self::Trace),
            _ => {
                anyhow::bail!("the options are --seeds N, or --seed S --trace; `cargo xtask help` lists them")
            }
        }
    }
}

/// The simulations: package, test target, and the test that reads the variables.
const SIMULATIONS: [(&str, &str, &str); 3] = [
    (
        "fpush-policy",
        "world",
        "nothing_that_was_acknowledged_vanishes_and_no_permit_is_lost",
    ),
    ("fpush-simulation", "daemon", "the_promises_hold_in_random_worlds"),
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
            Worlds::Seeds(seeds) => command.env("FPUSH_SEEDS", seeds.to_string()),
            Worlds::Trace(seed) => command.env("FPUSH_SEED", seed.to_string()),
        };
        process::run(&mut command)?;
    }
    Ok(())
}
