//! How long to wait before something is tried again.

use std::time::Duration;

/// Exponential backoff: decides from what it is given, and keeps no state.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// A backoff whose pauses grow from the first one to the longest one.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The pause after a failure that this many came before: doubled with each of them, up to the longest. `jitter` (0 to 1)
    /// lengthens it by up to a half, so that those who failed together do not come back together.
    #[must_use]
    pub fn pause(self, failures_before: u32, jitter: f64) -> Duration {
        self.pause_at_least(Duration::ZERO, failures_before, jitter)
    }

    /// The same, where somebody has asked for a pause: it is the least, and nobody lengthens it beyond half of the longest.
    #[must_use]
    pub fn pause_at_least(self, asked: Duration, failures_before: u32, jitter: f64) -> Duration {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(failures_before));
        let least = doubled.min(self.longest).max(asked);
        least + least.min(self.longest).mul_f64(0.5 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let seconds = |jitter: f64| {
            let pauses = (0..8).map(|failures| backoff.pause(failures, jitter));
            pauses.map(|pause| pause.as_secs_f64()).collect::<Vec<_>>()
        };
        assert_eq!(seconds(0.0), [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        assert_eq!(seconds(1.0), [1.5, 3.0, 6.0, 12.0, 24.0, 48.0, 90.0, 90.0]);
        assert_eq!(seconds(7.0), seconds(1.0));
        assert_eq!(backoff.pause(u32::MAX, 0.0), Duration::from_secs(60));
    }

    #[test]
    fn what_somebody_asks_for_is_the_least_and_no_excuse_for_knocking_on() {
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
        let asked = Duration::from_secs(10);
        let pauses = (0..7).map(|failures| backoff.pause_at_least(asked, failures, 0.0).as_secs());
        assert_eq!(pauses.collect::<Vec<_>>(), [10, 10, 10, 10, 10, 16, 32]);
        assert_eq!(backoff.pause_at_least(asked, 0, 1.0), Duration::from_secs(15));
        let hour = Duration::from_secs(3_600);
        assert_eq!(
            backoff.pause_at_least(hour, 0, 1.0),
            hour + Duration::from_secs(30)
        );
    }
}
