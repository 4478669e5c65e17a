//! Whether the clock is believed when it says that nobody has used a device for long.
//!
//! A clock that is far ahead would make every device look unused, and servers forget what has expired. So nothing expires
//! where the clock contradicts the database or itself, for as long as the process runs: a device that stays too long
//! costs nothing.

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
}

impl Expiry {
    /// `used` is when a device was last used, if there is one: registered, or pushed to.
    pub(crate) fn begin(used: Option<Time>, began: Instant, at: Time, expire_after: Duration) -> Self {
        // After a longer rest of the whole service nothing expires until the next start.
        let longest = LONGEST_REST.min(expire_after / 2);
        let fits = |used: Time| used <= at.after(SLACK) && at <= used.after(longest);
        Self {
            began,
            at,
            is_plausible: used.is_none_or(fits),
        }
    }

    /// Whether devices may expire, at this time on both clocks.
    pub(crate) fn is_believed(&self, now: Instant, wall: Time) -> bool {
        let expected = self.at.after(now.saturating_duration_since(self.began));
        self.is_plausible && wall <= expected.after(SLACK) && expected <= wall.after(SLACK)
    }
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
            Expiry::begin(Some(used), began, at, expire_after * DAY).is_believed(began, at)
        };
        assert!(believed(used, 400) && believed(used.after(29 * DAY), 400));
        assert!(!believed(used.after(31 * DAY), 400) && !believed(used.after(401 * DAY), 400));
        assert!(!believed(used.before(DAY), 400), "the clock is behind");
        assert!(!believed(used.after(DAY), 1), "devices are short-lived here");
        let nobody = Expiry::begin(None, began, used.after(900 * DAY), 400 * DAY);
        assert!(nobody.is_believed(began, used.after(900 * DAY)));
    }

    #[test]
    fn nothing_expires_after_the_clock_was_set() {
        let (began, at) = (Instant::now(), Time::from_millis(1_700_000_000_000));
        let expiry = Expiry::begin(Some(at), began, at, 400 * DAY);
        assert!(
            expiry.is_believed(began + 500 * DAY, at.after(500 * DAY)),
            "time has passed"
        );
        assert!(!expiry.is_believed(began, at.after(DAY)));
        assert!(!expiry.is_believed(began + DAY, at));
    }
}
