//! Times of day, as the database and an export keep them.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A time in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub(crate) i64);

impl Time {
    /// The same without the part of a second.
    #[must_use]
    pub fn whole_seconds(self) -> Self {
        Self(self.0 - self.0.rem_euclid(1_000))
    }

    /// The present.
    #[must_use]
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// A time in milliseconds since 1970.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.0
    }

    /// Reads RFC 3339, in UTC.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        humantime::parse_rfc3339(text).ok().map(Self::from)
    }

    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    pub(crate) fn after(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add_unsigned(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    pub(crate) fn before(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_sub_unsigned(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// The last millisecond that four digits of a year can say.
    const LAST: i64 = 253_402_300_799_999;
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// RFC 3339 in UTC, with milliseconds where there are any: `2017-03-18T04:07:44Z`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.clamp(0, Self::LAST)).unwrap_or(0);
        let time = UNIX_EPOCH + Duration::from_millis(millis);
        if millis.is_multiple_of(1_000) {
            humantime::format_rfc3339_seconds(time).fmt(f)
        } else {
            humantime::format_rfc3339_millis(time).fmt(f)
        }
    }
}
