//! The clock of this machine beside the provider's. Providers refuse credentials that were signed at a wrong time,
//! and do not say that this is why.

use std::{
    sync::Mutex,
    time::{Duration, SystemTime},
};

use fpush_push::sync::lock;
use http::{
    HeaderMap, StatusCode,
    header::{AGE, DATE},
};
use tokio::time::Instant;

/// Compares the clocks by the `Date` of answers (RFC 9110 section 6.6.1).
#[derive(Debug, Default)]
pub(crate) struct Clock(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// By how many seconds we are ahead, by the last answer that says so.
    offset: i64,
    /// When an answer that accepts something was last looked at.
    looked: Option<Instant>,
}

impl Clock {
    /// Looks at an answer: at each refusal, and now and then at another.
    pub(crate) fn note(&self, status: StatusCode, headers: &HeaderMap, now: Instant) {
        let mut seen = lock(&self.0);
        if status.is_success() {
            if seen.looked.is_some_and(|at| now - at < INTERVAL) {
                return;
            }
            seen.looked = Some(now);
        }
        if let Some(offset) = offset(headers, SystemTime::now()) {
            seen.offset = offset;
        }
    }

    /// By how many seconds we are ahead (behind if negative), if that is more than a minute.
    pub(crate) fn offset(&self) -> Option<i64> {
        let offset = lock(&self.0).offset;
        (offset.unsigned_abs() > TOLERATED.as_secs()).then_some(offset)
    }
}

/// By how many seconds `now` is ahead of the answer's date. One that comes from a cache says nothing.
fn offset(headers: &HeaderMap, now: SystemTime) -> Option<i64> {
    if headers.contains_key(AGE) {
        return None;
    }
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let seconds = |time: Duration| i64::try_from(time.as_secs()).ok();
    match now.duration_since(date) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => Some(-seconds(behind.duration())?),
    }
}

/// What a failure means if the clock is wrong and the provider does not take our credentials.
pub const CLOCK_WRONG: &str = "The clock of this machine is wrong by more than a minute, and what is signed at a wrong \
    time is refused. Set the clock, and let NTP keep it right.";

/// The time that an answer takes to arrive is not an error of the clock.
const TOLERATED: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn dated(time: SystemTime) -> HeaderMap {
        let date = HeaderValue::try_from(httpdate::fmt_http_date(time)).unwrap();
        HeaderMap::from_iter([(DATE, date)])
    }

    #[test]
    fn only_a_clock_that_is_wrong_by_more_than_a_minute_is_worth_a_word() {
        let (clock, wall) = (Clock::default(), SystemTime::now());
        let after = |headers: &HeaderMap| {
            clock.note(StatusCode::FORBIDDEN, headers, Instant::now());
            clock.offset()
        };
        assert_eq!(after(&HeaderMap::new()), None);
        assert_eq!(after(&dated(wall - Duration::from_secs(50))), None);
        let ahead = after(&dated(wall - Duration::from_secs(3_600))).unwrap();
        assert!((3_600..3_610).contains(&ahead), "{ahead}");
        assert!(
            after(&HeaderMap::new()).is_some(),
            "an answer without a date says nothing"
        );
        let behind = after(&dated(wall + Duration::from_secs(90))).unwrap();
        assert!((-90..-80).contains(&behind), "{behind}");
        let mut cached = dated(wall);
        cached.insert(AGE, HeaderValue::from_static("90"));
        assert!(after(&cached).is_some(), "nor does one from a cache");
        assert_eq!(after(&dated(wall)), None, "the clock was set");
    }

    #[test]
    fn of_many_answers_to_accepted_pushes_one_a_minute_is_looked_at() {
        let (clock, now) = (Clock::default(), Instant::now());
        let wrong = dated(SystemTime::UNIX_EPOCH);
        clock.note(StatusCode::OK, &dated(SystemTime::now()), now);
        clock.note(StatusCode::OK, &wrong, now + INTERVAL / 2);
        assert_eq!(clock.offset(), None);
        clock.note(StatusCode::OK, &wrong, now + INTERVAL);
        assert!(clock.offset().is_some());
    }
}
