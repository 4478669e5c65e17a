//! Medians and percentiles.

use std::time::Duration;

use serde_json::{Value, json};

/// The figure in the middle.
pub(super) fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures = figures.collect::<Vec<_>>();
    figures.sort_by(f64::total_cmp);
    let (low, high) = (
        figures.get(figures.len().checked_sub(1)? / 2)?,
        figures.get(figures.len() / 2)?,
    );
    Some((low + high) / 2.0)
}

/// How times are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spread {
    pub(super) p50: Duration,
    pub(super) p90: Duration,
    pub(super) p99: Duration,
    pub(super) p999: Duration,
    pub(super) max: Duration,
}

impl Spread {
    /// All zero if there are no times.
    pub(super) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        // The smallest time that so many of a thousand do not exceed.
        let percentile = |per_mille: usize| {
            let rank = (times.len() * per_mille).div_ceil(1_000);
            times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self {
            p50: percentile(500),
            p90: percentile(900),
            p99: percentile(990),
            p999: percentile(999),
            max: percentile(1_000),
        }
    }

    /// In milliseconds.
    pub(super) fn json(&self) -> Value {
        json!({
            "p50_ms": millis(self.p50),
            "p90_ms": millis(self.p90),
            "p99_ms": millis(self.p99),
            "p999_ms": millis(self.p999),
            "max_ms": millis(self.max),
        })
    }
}

pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn a_percentile_is_a_time_that_so_many_percent_do_not_exceed() {
        let ms = Duration::from_millis;
        let spread = Spread::of((1..=1000).rev().map(ms).collect());
        assert_eq!(
            (spread.p50, spread.p90, spread.p99, spread.p999, spread.max),
            (ms(500), ms(900), ms(990), ms(999), ms(1000))
        );
        let one = Spread::of(vec![ms(7)]);
        assert_eq!((one.p50, one.p99, one.max), (ms(7), ms(7), ms(7)));
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }
}
