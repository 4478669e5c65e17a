//! Times in four bytes, because millions of them are kept.

use std::time::{Duration, Instant};

/// A time on the scale of a [`Ticks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u32);

/// A scale of times from a year before a module began to six years after that. What is earlier or later is its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks {
    origin: Instant,
}

impl Tick {
    /// So much later.
    pub(crate) fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(number(time)))
    }

    /// How many ticks it is later than another one; none if it is earlier.
    pub(crate) fn since(self, other: Self) -> u32 {
        self.0.saturating_sub(other.0)
    }

    pub(crate) fn to_number(self) -> u32 {
        self.0
    }

    pub(crate) fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// So much earlier.
    pub(crate) fn minus(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(number(time)))
    }
}

impl Ticks {
    pub(crate) fn new(begin: Instant) -> Self {
        Self {
            // Not every machine can name a time before its own start.
            origin: begin.checked_sub(BEFORE).unwrap_or(begin),
        }
    }

    /// The last tick that is not later.
    pub(crate) fn until(&self, instant: Instant) -> Tick {
        Tick(number(instant.saturating_duration_since(self.origin)))
    }

    /// The first tick that is not earlier: nothing that waits until then comes before its time.
    pub(crate) fn from(&self, instant: Instant) -> Tick {
        self.until(instant + (TICK - Duration::from_nanos(1)))
    }

    pub(crate) fn instant(&self, Tick(number): Tick) -> Instant {
        self.origin + Duration::from_millis(u64::from(number) * u64::from(TICK_MILLIS))
    }
}

/// How many ticks have passed by then.
fn number(time: Duration) -> u32 {
    let ticks = time.as_secs().saturating_mul(u64::from(1_000 / TICK_MILLIS))
        + u64::from(time.subsec_millis() / TICK_MILLIS);
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// What waits for a tick waits for less than that beyond its time.
/// No time is kept more exactly than that.
pub(crate) const TICK: Duration = Duration::from_millis(TICK_MILLIS as u64);
const TICK_MILLIS: u32 = 50;
const BEFORE: Duration = Duration::from_secs(365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_never_early_and_late_by_less_than_a_tick() {
        let begin = Instant::now();
        let ticks = Ticks::new(begin);
        for ahead in [0, 1, 49_999, 50_000, 50_001, 20_000_000, 86_400_000_001] {
            let instant = begin + Duration::from_micros(ahead);
            let (until, from) = (
                ticks.instant(ticks.until(instant)),
                ticks.instant(ticks.from(instant)),
            );
            assert!(until <= instant && instant <= from, "{ahead}");
            assert!(from - until <= Duration::from_millis(50), "{ahead}");
            assert!(from - instant < Duration::from_millis(50), "{ahead}");
        }
        let whole = begin + Duration::from_secs(20);
        assert_eq!(ticks.instant(ticks.from(whole)), whole, "a round time is kept");
    }

    #[test]
    fn the_scale_reaches_from_a_year_before_the_start_to_six_years_after_it() {
        let begin = Instant::now();
        let ticks = Ticks::new(begin);
        let (day, year) = (Duration::from_secs(86_400), Duration::from_secs(365 * 86_400));
        assert!(ticks.until(begin - day) < ticks.until(begin));
        assert!(ticks.from(begin + 5 * year) < ticks.from(begin + 5 * year + day));
        assert_eq!(ticks.from(begin + 100 * year), Tick(u32::MAX), "and no further");
    }
}
