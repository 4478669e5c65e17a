//! Numbers that are counted where things happen and read when somebody asks. Counting is one addition to memory that its
//! owner holds; names, labels and help texts are in `fpush-monitor`, which writes the numbers down.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::Outcome;

/// A number that only goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One that has counted nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts several.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// What was counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter for each outcome of a publish.
#[derive(Debug, Default)]
pub struct Outcomes([Counter; Outcome::ALL.len()]);

impl Outcomes {
    /// Counts a publish.
    pub fn increment(&self, outcome: Outcome) {
        self.0[outcome as usize].increment();
    }

    /// What was counted, in the order of [`Outcome::ALL`].
    #[must_use]
    pub fn get(&self) -> [u64; Outcome::ALL.len()] {
        self.0.each_ref().map(Counter::get)
    }

    /// The same, each with the name of its outcome.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); Outcome::ALL.len()] {
        Outcome::ALL.map(|outcome| (outcome.name(), self.0[outcome as usize].get()))
    }
}

/// Counters by the values of labels that are known from the start. The owner knows the place of each.
#[derive(Debug)]
pub struct LabelledCounters<const LABELS: usize>(Box<[([&'static str; LABELS], Counter)]>);

impl<const LABELS: usize> LabelledCounters<LABELS> {
    /// Counters with these values, in this order.
    #[must_use]
    pub fn new(labels: impl IntoIterator<Item = [&'static str; LABELS]>) -> Self {
        Self(
            labels
                .into_iter()
                .map(|labels| (labels, Counter::new()))
                .collect(),
        )
    }

    /// Counts one at a place.
    pub fn increment(&self, place: usize) {
        self.0[place].1.increment();
    }

    /// What was counted.
    pub fn get(&self) -> impl Iterator<Item = ([&'static str; LABELS], u64)> {
        self.0.iter().map(|(labels, counter)| (*labels, counter.get()))
    }
}

/// Counters by a word that becomes known when it is first counted: for what is rare, such as reasons of failures.
#[derive(Debug, Default)]
pub struct WordCounters(Mutex<BTreeMap<&'static str, u64>>);

impl WordCounters {
    /// Counts a word.
    pub fn increment(&self, word: &'static str) {
        *self.lock().entry(word).or_default() += 1;
    }

    /// What was counted, in the order of the words.
    #[must_use]
    pub fn get(&self) -> Vec<(&'static str, u64)> {
        self.lock().iter().map(|(word, count)| (*word, *count)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.0.lock().expect("mutex poisoned")
    }
}

/// How often a time was in which range.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// The last range is above all bounds.
    ranges: Box<[Counter]>,
    nanoseconds: Counter,
}

impl Histogram {
    /// One with these upper bounds, in seconds and ascending.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            ranges: (0..=bounds.len()).map(|_| Counter::new()).collect(),
            nanoseconds: Counter::new(),
        }
    }

    /// Counts a time.
    pub fn record(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.ranges[self.bounds.partition_point(|bound| *bound < seconds)].increment();
        self.nanoseconds.add(time.as_nanos() as u64);
    }

    /// How many times were at most as long as each bound, and at last how many there were in all, below infinity.
    #[must_use]
    pub fn cumulative(&self) -> Vec<(f64, u64)> {
        let mut total = 0;
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds
            .zip(&self.ranges)
            .map(|(bound, range)| {
                total += range.get();
                (bound, total)
            })
            .collect()
    }

    /// The sum of all times.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.get())
    }
}

/// Seconds that an attempt at a provider takes: tens of milliseconds usually, `requestTimeout` at most (5 s at Apple and
/// 10 s at Google, where the settings say nothing else). One that has to wait for an access token, too, or has a long
/// `requestTimeout`, ends with its publish after 25 s; what is above that ended late.
pub const PROVIDER_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 30.0,
];
/// Seconds until a reply: at once if the push is queued or refused, with the provider's answer otherwise. After 5 s in the
/// line a publish is given up, after 25 s in all, and after 32 s ejabberd takes no reply any more.
pub const REPLY_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 30.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_at_and_below_their_bounds() {
        let histogram = Histogram::new(&[0.005, 0.25, 30.0]);
        for micros in [0, 5_000, 5_001, 250_000, 30_000_000, 30_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        assert_eq!(
            histogram.cumulative(),
            [(0.005, 2), (0.25, 4), (30.0, 5), (f64::INFINITY, 6)]
        );
        assert_eq!(histogram.sum(), Duration::from_micros(60_260_002));
    }

    #[test]
    fn ranges_tell_the_time_limits_apart() {
        for bounds in [PROVIDER_SECONDS, REPLY_SECONDS] {
            assert!(bounds.is_sorted() && bounds.len() < 20, "{bounds:?}");
            // A place in the line, the two values of requestTimeout, a publish, and what is later than that.
            for limit in [5.0, 10.0, 25.0, 30.0] {
                assert!(bounds.contains(&limit), "{bounds:?} has no bound at {limit} s");
            }
        }
    }

    #[test]
    fn a_word_is_there_from_its_first_count_on() {
        let words = WordCounters::default();
        assert_eq!(words.get(), []);
        for word in ["timeout", "closed", "timeout"] {
            words.increment(word);
        }
        assert_eq!(words.get(), [("closed", 1), ("timeout", 2)]);
    }
}
