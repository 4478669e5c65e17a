//! The clocks that decisions are handed.

use std::time::{Duration, SystemTime};

use fpush_policy::Clocks;
use tokio::time::Instant;

/// The present moment on both clocks. Both are of one moment: where the process is stopped, or the machine sleeps, between
/// two readings, it would look as if somebody had set the time of day.
#[must_use]
pub fn clocks() -> Clocks {
    let mut now = Instant::now();
    for _ in 0..READINGS {
        let (wall, after) = (SystemTime::now(), Instant::now());
        if after.duration_since(now) < ONE_MOMENT {
            return Clocks {
                now: now.into_std(),
                wall,
            };
        }
        now = after;
    }
    Clocks {
        now: now.into_std(),
        wall: SystemTime::now(),
    }
}

/// Two readings with less between them are of one moment.
const ONE_MOMENT: Duration = Duration::from_secs(1);
/// A process that is stopped between all of these has other troubles.
const READINGS: u32 = 10;
