//! How often a connection that still works is left for another one.

use std::time::Duration;

use tokio::time::Instant;

/// When connections of one client were left. A provider that is unwell may say of each new one what it said of the last.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    /// When the last one is forgotten that was left because the provider said so.
    forgotten: Option<Instant>,
}

impl Departures {
    /// Whether a connection may be left now because the provider says so: a few at once, then one a second.
    pub(crate) fn may_leave_as_told(&mut self, now: Instant) -> bool {
        let forgotten = self.forgotten.map_or(now, |forgotten| forgotten.max(now));
        let may = forgotten + BETWEEN <= now + AT_ONCE * BETWEEN;
        if may {
            self.forgotten = Some(forgotten + BETWEEN);
        }
        may
    }
}

/// So many may be left one right after the other, as when a provider's servers are replaced.
const AT_ONCE: u32 = 3;
const BETWEEN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_left_at_once_and_then_one_a_second() {
        let (mut departures, start) = (Departures::default(), Instant::now());
        let left = (0..10_000u32).filter(|tick| {
            let now = start + *tick * Duration::from_millis(1);
            departures.may_leave_as_told(now)
        });
        assert_eq!(left.count(), 3 + 9);
        let later = start + Duration::from_secs(100);
        assert_eq!((0..10).filter(|_| departures.may_leave_as_told(later)).count(), 3);
    }
}
