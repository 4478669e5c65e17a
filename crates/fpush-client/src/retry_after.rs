//! `Retry-After` (RFC 9110 section 10.2.3).

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap,
    header::{DATE, RETRY_AFTER},
};

/// How long the provider wants us to wait, an hour at most: a number of seconds, or a date. A date is measured from the
/// answer's own, because our clock may be wrong, and from `now` if it has none.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
    };
    let date = |text| httpdate::parse_http_date(text).ok();
    let value = text(RETRY_AFTER)?;
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that does not fit is a very large one.
        value.parse().map_or(LONGEST, Duration::from_secs)
    } else {
        let now = text(DATE).and_then(date).unwrap_or(now);
        date(value)?.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(LONGEST))
}

/// What a provider wants to keep away for longer is asked again once an hour: nothing is so wrong by one number that a
/// module should be silent for a day.
const LONGEST: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(value: &'static str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        retry_after(&headers, now)
    }

    #[test]
    fn seconds_and_dates() {
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(
            read("Sun, 06 Nov 1994 08:49:47 GMT"),
            Some(Duration::from_secs(10))
        );
        assert_eq!(
            read("Sun, 06 Nov 1994 08:00:00 GMT"),
            Some(Duration::ZERO),
            "a date in the past"
        );
        assert_eq!(read("soon"), None);
    }

    #[test]
    fn absurd_values_are_bounded_or_say_nothing() {
        for long in [
            "3601",
            "99999999",
            "99999999999999999999999999",
            "Fri, 31 Dec 9999 23:59:59 GMT",
        ] {
            assert_eq!(read(long), Some(LONGEST), "{long}");
        }
        for nothing in [
            "",
            " ",
            "-1",
            "+1",
            "1.5",
            "1e9",
            "NaN",
            "0x10",
            "Sun, 06 Nov 99999 08:49:47 GMT",
        ] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
        assert_eq!(read("Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
    }

    #[test]
    fn a_date_is_measured_from_that_of_the_answer() {
        let until = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:47 GMT");
        let mut headers = HeaderMap::from_iter([(RETRY_AFTER, until)]);
        headers.insert(DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:17 GMT"));
        let wait = Some(Duration::from_secs(30));
        for seconds in [0, 784_111_777, 4_000_000_000] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(retry_after(&headers, now), wait, "our clock may be wrong");
        }
        headers.insert(DATE, HeaderValue::from_static("yesterday"));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_757);
        assert_eq!(retry_after(&headers, now), wait);
    }
}
