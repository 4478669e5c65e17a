//! What the kernel says about this process, from `/proc/self` alone: `ProcSubset=pid` hides the rest of `/proc`.

use std::fs;

use crate::{
    exposition::Exposition,
    table::{
        PROCESS_CPU, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT_MEMORY, PROCESS_THREADS,
        PROCESS_VIRTUAL_MEMORY,
    },
};

/// Appends the metrics of the process; what cannot be read is left out.
pub(crate) fn write(text: &mut Exposition) {
    let read = |name| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let (stat, status, limits) = (read("stat"), read("status"), read("limits"));
    // The directory is open itself while it is read.
    let open = fs::read_dir("/proc/self/fd").map(|entries| entries.count().saturating_sub(1));
    for (metric, value) in [
        (&PROCESS_CPU, cpu_seconds(&stat)),
        (
            &PROCESS_RESIDENT_MEMORY,
            in_status(&status, "VmRSS:").map(|kilobytes| kilobytes * 1_024.0),
        ),
        (
            &PROCESS_VIRTUAL_MEMORY,
            in_status(&status, "VmSize:").map(|kilobytes| kilobytes * 1_024.0),
        ),
        (&PROCESS_OPEN_FDS, open.ok().map(|count| count as f64)),
        (&PROCESS_MAX_FDS, max_fds(&limits)),
        (&PROCESS_THREADS, in_status(&status, "Threads:")),
    ] {
        if let Some(value) = value {
            text.single(metric, value);
        }
    }
}

/// `utime` and `stime`, the 14th and 15th field. The second one is the name in parentheses, which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

fn in_status(status: &str, key: &str) -> Option<f64> {
    let value = status.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_whitespace().next()?.parse().ok()
}

fn max_fds(limits: &str) -> Option<f64> {
    let value = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match value.split_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        number => number.parse().ok(),
    }
}

/// `USER_HZ`, which is part of the kernel's interface and the same on every architecture that Rust's std runs on.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_read_as_the_kernel_writes_them() {
        let stat = "4242 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 1234 66 0 0 20 0 1 0 99 1000 50";
        assert_eq!(cpu_seconds(stat), Some(13.0));
        let status = "Name:\tfpush\nVmSize:\t  123456 kB\nVmRSS:\t    2048 kB\nThreads:\t1\n";
        assert_eq!(in_status(status, "VmRSS:"), Some(2_048.0));
        assert_eq!(in_status(status, "VmSwap:"), None);
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024    524288   files\n";
        assert_eq!(max_fds(limits), Some(1_024.0));
        assert_eq!(
            max_fds("Max open files   unlimited unlimited files"),
            Some(f64::INFINITY)
        );
        for nothing in ["", "4242 (a", "1 (a) S 1"] {
            assert_eq!(cpu_seconds(nothing), None);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_all_of_them() {
        let mut text = Exposition::default();
        write(&mut text);
        let text = text.into_text();
        assert_eq!(
            text.lines().filter(|line| !line.starts_with('#')).count(),
            6,
            "{text}"
        );
    }
}
