//! `cargo xtask simulate`: random worlds around the policy, in virtual time.

use anyhow::{Context as _, Result};

use crate::process;

/// Which worlds.
pub(crate) enum Worlds {
    /// So many of them.
    Seeds(u64),
    /// This one, with every step printed.
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

pub(crate) fn run(worlds: &Worlds) -> Result<()> {
    let mut command = process::cargo(&[
        "test",
        "--release",
        "-p",
        "fpush-policy",
        "--test",
        "world",
        "--",
        "--nocapture",
        "nothing_that_was_acknowledged_vanishes_and_no_permit_is_lost",
    ]);
    match worlds {
        Worlds::Seeds(seeds) => command.env("FPUSH_SEEDS", seeds.to_string()),
        Worlds::Trace(seed) => command.env("FPUSH_SEED", seed.to_string()),
    };
    process::run(&mut command)
}
