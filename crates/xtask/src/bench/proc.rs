//! What the kernel knows about a process.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// The processor time that the threads of a process have used, in user mode and in the kernel.
///
/// `/proc/PID/stat` counts in hundredths of a second, which is too coarse for a process that idles; this counts in
/// nanoseconds. A thread that ended is missing, but the programs measured here do their work in threads that stay.
pub(super) fn cpu_time(process: u32) -> Result<Duration> {
    let mut nanos = 0;
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    for thread in threads.with_context(|| format!("process {process} has ended"))? {
        // One that has ended since then has no file any more.
        let file = thread?.path().join("schedstat");
        nanos += fs::read_to_string(file).map_or(0, |text| first_number(&text));
    }
    ensure!(
        nanos > 0,
        "this kernel does not count the time of threads (CONFIG_SCHED_INFO)"
    );
    Ok(Duration::from_nanos(nanos))
}

/// The memory that a process holds, in bytes.
pub(super) fn resident(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))
        .with_context(|| format!("process {process} has ended"))?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = kibibytes.with_context(|| format!("/proc/{process}/status has no VmRSS"))?;
    Ok(first_number(kibibytes) * 1024)
}

/// The time that all cores have been kept busy since the start of the machine, to some hundredths of a second: also
/// by the kernel, and, if this is a virtual machine, by others in our place.
pub(super) fn busy_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("there is no /proc/stat")?;
    let ticks = stat.lines().next().and_then(busy_ticks);
    Ok(Duration::from_millis(
        ticks.with_context(|| format!("/proc/stat says {stat}"))? * MILLIS_PER_TICK,
    ))
}

/// Of the line `cpu USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL …`.
fn busy_ticks(line: &str) -> Option<u64> {
    let ticks = line
        .strip_prefix("cpu ")?
        .split_ascii_whitespace()
        .map(str::parse);
    let ticks = ticks.collect::<Result<Vec<u64>, _>>().ok()?;
    let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] else {
        return None;
    };
    Some(user + nice + system + irq + softirq + steal)
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

fn first_number(text: &str) -> u64 {
    let number = text.split_ascii_whitespace().next();
    number.and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// `/proc/stat` counts in hundredths of a second on every architecture (`USER_HZ`).
const MILLIS_PER_TICK: u64 = 10;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn this_process_uses_time_and_memory() {
        let process = std::process::id();
        let (start, before) = (Instant::now(), cpu_time(process).expect("this process runs"));
        while cpu_time(process).expect("this process runs") < before + Duration::from_millis(20) {
            assert!(start.elapsed() < Duration::from_secs(20));
        }
        assert!(resident(process).expect("this process runs") > 100_000);
        assert!(cpu_time(0).is_err());
    }

    #[test]
    fn a_core_is_busy_unless_it_is_idle_or_waits_for_a_disk() {
        assert_eq!(
            busy_ticks("cpu  1 20 300 4000 50000 600000 7000000 80000000 9 9"),
            Some(87_600_321)
        );
        assert_eq!(busy_ticks("cpu0 1 2 3 4 5 6 7 8 9 9"), None);
        assert!(busy_time().expect("there is a machine") > Duration::ZERO);
    }
}
