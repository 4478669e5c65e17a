//! How often a connection that still works is left for another one.

use std::time::Duration;

use tokio::time::Instant;

/// When connections of one client were left. A provider that is unwell may say of each new one what it said of the last.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    /// When the last one is forgotten that was left because the provider said so.
    forgotten: Option<Instant>,
    /// When one was left because it let fewer requests through at a time than before.
    cut: Option<Instant>,
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

    /// Whether a connection may be left now because it lets fewer requests through at a time than before: once a minute.
    pub(crate) fn may_leave_cut(&mut self, now: Instant) -> bool {
        let may = self.cut.is_none_or(|cut| now.duration_since(cut) >= BETWEEN_CUTS);
        if may {
            self.cut = Some(now);
        }
        may
    }
}

/// So many may be left one right after the other, as when a provider's servers are replaced.
const AT_ONCE: u32 = 3;
const BETWEEN: Duration = Duration::from_secs(1);
/// Where the next connection gets no more it is the provider's wish.
const BETWEEN_CUTS: Duration = Duration::from_secs(60);

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

    #[test]
    fn those_that_are_cut_are_left_once_a_minute() {
        let (mut departures, start) = (Departures::default(), Instant::now());
        let left = (0..180).filter(|second| departures.may_leave_cut(start + Duration::from_secs(*second)));
        assert_eq!(left.collect::<Vec<_>>(), [0, 60, 120]);
    }
}
