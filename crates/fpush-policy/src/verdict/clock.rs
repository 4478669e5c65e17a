//! The clock of a lane.

use std::time::Instant;

use crate::records::Clocks;

use super::{JUMP, window::Seconds};

/// Tells the time of day by the clock that never jumps, so that a jump of the other one is noticed.
#[derive(Debug)]
pub(crate) struct LaneClock {
    last: Clocks,
}

impl LaneClock {
    pub(crate) fn new(clocks: Clocks) -> Self {
        Self { last: clocks }
    }

    /// Seconds since 1970.
    pub(crate) fn seconds(&self, now: Instant) -> Seconds {
        self.millis(now) / 1_000
    }

    /// Milliseconds since 1970.
    pub(crate) fn millis(&self, now: Instant) -> u64 {
        self.last.to_millis(now)
    }

    /// Follows the wall clock. Returns by how many milliseconds it has jumped, if it has.
    pub(crate) fn follow(&mut self, clocks: Clocks) -> Option<i64> {
        let expected = self.millis(clocks.now);
        self.last = clocks;
        let jump = self
            .millis(clocks.now)
            .cast_signed()
            .saturating_sub(expected.cast_signed());
        (jump.unsigned_abs() > JUMP * 1_000).then_some(jump)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_step_of_more_than_a_minute_is_a_jump_and_time_that_passes_is_none() {
        let start = crate::testing::clocks();
        let mut clock = LaneClock::new(start);
        let mut at = |now: u64, wall: u64| {
            let clocks = Clocks {
                now: start.now + Duration::from_secs(now),
                wall: start.wall + Duration::from_secs(wall),
            };
            clock.follow(clocks).is_some()
        };
        assert!(!at(86_400, 86_400));
        assert!(!at(86_401, 86_461));
        assert!(!at(86_402, 86_402), "back again by small steps");
        assert!(at(86_403, 86_403 + 61));
        assert!(!at(86_404, 86_404 + 61), "it is the right one from then on");
        assert!(at(86_405, 86_405));
        assert!(at(86_406, 0));
    }
}
