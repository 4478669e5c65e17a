//! Time spans as the settings write them.

use std::time::Duration;

use humantime_serde::Serde;
use serde::Deserialize;

/// A string such as `"20s"` or `"10min 30s"`, of at most ten years.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "Serde<Duration>")]
pub(super) struct Span(pub(super) Duration);

/// A string like that, or a number of seconds; never zero.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "Spelling")]
pub(super) struct SpanOrSeconds(pub(super) Duration);

#[derive(Deserialize)]
#[serde(untagged)]
enum Spelling {
    Seconds(u64),
    Span(Serde<Duration>),
}

impl TryFrom<Serde<Duration>> for Span {
    type Error = &'static str;

    fn try_from(span: Serde<Duration>) -> Result<Self, Self::Error> {
        let span = span.into_inner();
        (span <= LONGEST).then_some(Self(span)).ok_or("too long")
    }
}

impl TryFrom<Spelling> for SpanOrSeconds {
    type Error = &'static str;

    fn try_from(spelling: Spelling) -> Result<Self, Self::Error> {
        let Span(span) = match spelling {
            Spelling::Seconds(seconds) => Serde::from(Duration::from_secs(seconds)),
            Spelling::Span(span) => span,
        }
        .try_into()?;
        (!span.is_zero()).then_some(Self(span)).ok_or("zero")
    }
}

const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);
