//! What the kernel knows about a process.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The processor time that a process has used, in user mode and in the kernel, to 10 ms.
pub(super) fn cpu_time(process: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))
        .with_context(|| format!("process {process} has ended"))?;
    // pid (name) state …, where the name may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |index: usize| {
        let field = fields.split_ascii_whitespace().nth(index);
        field.and_then(|ticks| ticks.parse::<u64>().ok())
    };
    let ticks = ticks(UTIME).zip(ticks(STIME)).map(|(user, system)| user + system);
    let ticks = ticks.with_context(|| format!("/proc/{process}/stat says {stat}"))?;
    Ok(Duration::from_millis(ticks * MILLIS_PER_TICK))
}

/// The memory that a process holds, in bytes.
pub(super) fn resident(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))
        .with_context(|| format!("process {process} has ended"))?;
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|line| line.split_ascii_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok());
    Ok(kibibytes.with_context(|| format!("/proc/{process}/status has no VmRSS"))? * 1024)
}

/// The model of the processor, and how many there are.
pub(super) fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("an unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} cores")
}

/// Positions behind the name.
const UTIME: usize = 11;
const STIME: usize = 12;

/// `/proc` counts in hundredths of a second on every architecture (`USER_HZ`).
const MILLIS_PER_TICK: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time_and_memory() {
        let process = std::process::id();
        while cpu_time(process).expect("this process runs") == Duration::ZERO {
            std::hint::spin_loop();
        }
        assert!(resident(process).expect("this process runs") > 100_000);
        assert!(cpu_time(0).is_err());
    }
}
