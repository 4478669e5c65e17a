//! How long to wait before the next attempt.

use std::time::Duration;

/// Exponential backoff with jitter for one push.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// A backoff that continues after this many failed attempts.
    pub fn after(attempts: u32) -> Self {
        Self { attempts }
    }

    /// The pause before the next attempt: half a second, doubled each time up to a minute, or what the
    /// provider asked for if that is more; lengthened by `jitter` (0 to 1) to up to one and a half of that.
    pub fn pause(&mut self, asked: Option<Duration>, jitter: f64) -> Duration {
        let doubled = FIRST * 2u32.pow(self.attempts.min(10));
        self.attempts += 1;
        let least = doubled.min(LONGEST).max(asked.unwrap_or_default());
        least + least.min(LONGEST).mul_f64(0.5 * jitter.clamp(0.0, 1.0))
    }
}

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_spread() {
        let pauses = |jitter: f64| {
            let mut backoff = Backoff::default();
            (0..9)
                .map(|_| backoff.pause(None, jitter).as_millis())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            pauses(0.0),
            [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
        );
        assert_eq!(pauses(1.0)[..2], [750, 1_500]);
    }

    #[test]
    fn what_the_provider_asks_for_is_the_least_and_no_excuse_for_knocking_on() {
        let asked = Some(Duration::from_secs(10));
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..7).map(|_| backoff.pause(asked, 0.0).as_secs()).collect();
        assert_eq!(pauses, [10, 10, 10, 10, 10, 16, 32]);
        assert_eq!(Backoff::default().pause(asked, 1.0), Duration::from_secs(15));
        assert_eq!(Backoff::default().pause(Some(Duration::ZERO), 0.0), FIRST);
    }
}
