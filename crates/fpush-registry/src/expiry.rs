//! Whether the clock is believed when it says that nobody has used a device for long.
//!
//! A clock that is far ahead would make every device look unused, and servers forget what has expired. So nothing expires
//! where the clock contradicts the database or itself, for as long as the process runs: a device that stays too long
//! costs nothing. A device that is used by a clock that is ahead has its times, after which the next process finds no
//! contradiction. So the database remembers that a clock may have been ahead: by the same clock, nothing expires until every
//! device that is alive was used after that.

use std::time::Duration;

use tokio::time::Instant;

use crate::time::Time;

/// What the clock said when the database was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expiry {
    began: Instant,
    at: Time,
    /// Whether the last use of any device fits to it.
    is_plausible: bool,
    /// It is much later than the last use, which nobody has noted yet.
    is_ahead: bool,
    /// The latest time of a clock that may have been ahead.
    doubted: Option<Time>,
    expire_after: Duration,
}

impl Expiry {
    /// `used` is when a device was last used, if there is one: registered, or pushed to. `doubted` is what the database has of
    /// clocks that may have been ahead.
    pub(crate) fn begin(
        used: Option<Time>,
        doubted: Option<Time>,
        began: Instant,
        at: Time,
        expire_after: Duration,
    ) -> Self {
        // A longer rest of the whole service is taken for a clock that is ahead.
        let is_ahead = used.is_some_and(|used| at > used.after(longest_rest(expire_after)));
        let is_behind = used.is_some_and(|used| used > at.after(SLACK));
        Self {
            began,
            at,
            is_plausible: !is_ahead && !is_behind,
            is_ahead,
            doubted,
            expire_after,
        }
    }

    /// Whether devices may expire, at this time on both clocks.
    pub(crate) fn is_believed(&self, now: Instant, wall: Time) -> bool {
        let expected = self.expected(now);
        self.is_plausible
            && wall <= expected.after(SLACK)
            && expected <= wall.after(SLACK)
            && self
                .doubted
                .is_none_or(|doubted| doubted.after(self.expire_after) <= wall)
    }

    /// If the clock may be ahead, and that is not in the database yet: what has to be written there, and this after that.
    pub(crate) fn doubt(&self, now: Instant, wall: Time) -> Option<(Time, Self)> {
        let latest = self.expected(now).after(longest_rest(self.expire_after));
        if !self.is_ahead && wall <= latest {
            return None;
        }
        let doubted = self.doubted.map_or(wall, |doubted| doubted.max(wall));
        let noted = Self {
            began: now,
            at: wall,
            is_plausible: false,
            is_ahead: false,
            doubted: Some(doubted),
            expire_after: self.expire_after,
        };
        Some((doubted, noted))
    }

    fn expected(&self, now: Instant) -> Time {
        self.at.after(now.saturating_duration_since(self.began))
    }
}

/// The longest rest of the whole service after which the clock is believed.
fn longest_rest(expire_after: Duration) -> Duration {
    LONGEST_REST.min(expire_after / 2)
}

/// By how much clocks may differ: machines sleep.
const SLACK: Duration = Duration::from_secs(3_600);
const LONGEST_REST: Duration = Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn nothing_expires_while_the_clock_contradicts_the_database() {
        let (began, used) = (Instant::now(), Time::from_millis(1_700_000_000_000));
        let believed = |at: Time, expire_after: u32| {
            Expiry::begin(Some(used), None, began, at, expire_after * DAY).is_believed(began, at)
        };
        assert!(believed(used, 400) && believed(used.after(29 * DAY), 400));
        assert!(!believed(used.after(31 * DAY), 400) && !believed(used.after(401 * DAY), 400));
        assert!(!believed(used.before(DAY), 400), "the clock is behind");
        assert!(!believed(used.after(DAY), 1), "devices are short-lived here");
        let nobody = Expiry::begin(None, None, began, used.after(900 * DAY), 400 * DAY);
        assert!(nobody.is_believed(began, used.after(900 * DAY)));
    }

    #[test]
    fn nothing_expires_after_the_clock_was_set() {
        let (began, at) = (Instant::now(), Time::from_millis(1_700_000_000_000));
        let expiry = Expiry::begin(Some(at), None, began, at, 400 * DAY);
        assert!(
            expiry.is_believed(began + 500 * DAY, at.after(500 * DAY)),
            "time has passed"
        );
        assert!(!expiry.is_believed(began, at.after(DAY)));
        assert!(!expiry.is_believed(began + DAY, at));
    }

    #[test]
    fn a_clock_that_may_have_been_ahead_is_doubted_by_later_processes_too() {
        let (began, used) = (Instant::now(), Time::from_millis(1_700_000_000_000));
        let right = Expiry::begin(Some(used), None, began, used, 400 * DAY);
        assert!(right.doubt(began + 500 * DAY, used.after(500 * DAY)).is_none());
        assert!(right.doubt(began + DAY, used).is_none(), "it is behind");
        assert!(
            right.doubt(began, used.after(30 * DAY)).is_none(),
            "machines sleep"
        );
        let ahead = used.after(500 * DAY);
        // At the start, and while it runs.
        let wrong = Expiry::begin(Some(used), None, began, ahead, 400 * DAY);
        for (expiry, now) in [(wrong, began), (right, began)] {
            let (doubted, noted) = expiry.doubt(now, ahead).unwrap();
            assert_eq!(doubted, ahead);
            assert!(noted.doubt(now + DAY, ahead.after(DAY)).is_none(), "it is noted");
            assert!(
                !noted.is_believed(now + 500 * DAY, ahead.after(500 * DAY)),
                "until the next start"
            );
        }
        // A device was used since.
        let next =
            |at: Time| Expiry::begin(Some(at), Some(ahead), began, at, 400 * DAY).is_believed(began, at);
        assert!(!next(ahead) && !next(ahead.after(399 * DAY)) && next(ahead.after(400 * DAY)));
        // A clock that is further ahead, and one that is less so, which changes nothing.
        let further = Expiry::begin(Some(ahead), Some(ahead), began, ahead.after(40 * DAY), 400 * DAY);
        assert_eq!(
            further.doubt(began, ahead.after(40 * DAY)).unwrap().0,
            ahead.after(40 * DAY)
        );
        let less = Expiry::begin(Some(used), Some(ahead), began, used.after(40 * DAY), 400 * DAY);
        assert_eq!(less.doubt(began, used.after(40 * DAY)).unwrap().0, ahead);
    }
}
