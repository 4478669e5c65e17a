//! A random world around the registry: two instances on one database, clients that register, renew and leave, providers that
//! call tokens dead, strangers, crashes, and operators who take another database or a copy of yesterday. No answer ends a
//! living device, and where nobody has slipped each is found by every instance.
//!
//! The steps are the seed's; the database answers in real time, one step after the other. `FPUSH_SEEDS` and `FPUSH_SEED` as
//! in the simulation of the daemon.

#![cfg(target_os = "linux")]

mod instance;
mod world;

use std::{env, thread};

use world::World;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Runs a world on a thread of its own, on which chance has its seed.
fn run(seed: u64, told: bool) -> Result<u64, String> {
    let world = move || {
        fpush_simulation::begin(seed, world::BEGINNING);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let result = runtime.block_on(World::new(seed, told).live());
        runtime.shutdown_background();
        result
    };
    match thread::spawn(world).join() {
        Ok(result) => result,
        Err(_) => Err("it has panicked".to_owned()),
    }
}

#[test]
fn no_answer_ends_a_living_device_and_each_is_found() {
    let seeds = match number("FPUSH_SEED") {
        Some(seed) => seed..seed + 1,
        // Each takes half a second, because the database is a real one.
        None => {
            let first = number("FPUSH_FIRST_SEED").unwrap_or(0);
            first..first + number("FPUSH_SEEDS").map_or(6, |seeds| (seeds / 100).max(6))
        }
    };
    let told = number("FPUSH_SEED").is_some();
    let mut found = 0;
    for seed in seeds {
        match run(seed, told) {
            Ok(count) => found += count,
            Err(what) => panic!("seed {seed}: {what}; FPUSH_SEED={seed} shows the way there"),
        }
    }
    assert!(told || found > 0);
}
