//! File descriptors: as many as the system gives, and a reserve for ourselves, so that strangers' connections keep nobody
//! from his provider, his database or his files.

use fpush_http::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Raises the soft limit to the hard one. The soft one is small for the sake of programs that use `select`.
pub(crate) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if limit.current != limit.maximum
        && let Err(e) = setrlimit(Resource::Nofile, raised)
    {
        warn!("cannot raise the limit of open files: {e}");
    }
}

/// The bounds of a listener in this process.
pub(crate) fn listener_limits() -> Limits {
    let usual = Limits::default();
    let connections = getrlimit(Resource::Nofile)
        .current
        .map_or(usual.connections, connections);
    Limits {
        connections: connections.min(usual.connections),
        ..usual
    }
}

fn connections(descriptors: u64) -> usize {
    let each = descriptors.saturating_sub(RESERVE) / LISTENERS;
    usize::try_from(each).unwrap_or(usize::MAX).max(LEAST)
}

/// For links, providers, the database, the state directory and the control socket.
const RESERVE: u64 = 256;
/// Two, and one that is being replaced.
const LISTENERS: u64 = 3;
/// A listener without connections would be none.
const LEAST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_leave_a_reserve() {
        for (descriptors, expected) in [(0, 8), (256, 8), (1_024, 256), (20_000, 6_581)] {
            assert_eq!(connections(descriptors), expected, "{descriptors}");
        }
        assert!(connections(u64::MAX) > 1_000_000);
    }
}
