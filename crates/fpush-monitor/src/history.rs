//! The last hour: how many pushes there were and what became of them.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, SystemTime},
};

use fpush_push::Outcome;
use tokio::time::Instant;

/// How often each module had had each outcome at one moment, in the order of [`Outcome::ALL`].
pub(crate) type Counts = BTreeMap<Box<str>, [u64; OUTCOMES]>;

/// The last hour, and the last minute of each module.
#[derive(Clone, Default)]
pub(crate) struct History {
    /// What was read in the last minute, the latest last.
    recent: VecDeque<(Instant, Counts)>,
    points: VecDeque<Point>,
}

/// What happened between two readings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    /// When it ended.
    pub(crate) end: SystemTime,
    /// How long it took.
    pub(crate) length: Duration,
    outcomes: [u64; OUTCOMES],
}

/// What outcomes have in common for those who look at a plot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// The provider has the push.
    Delivered,
    /// It goes out later.
    Held,
    /// The device gets too many, or was left alone.
    Refused,
    /// There is no such device any more.
    Gone,
    /// Something is wrong, here or at the provider.
    Failed,
}

impl Group {
    /// All groups.
    pub(crate) const ALL: [Self; 5] = [
        Self::Delivered,
        Self::Held,
        Self::Refused,
        Self::Gone,
        Self::Failed,
    ];

    /// The group of an outcome.
    pub(crate) fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Accepted => Self::Delivered,
            Outcome::Queued | Outcome::Coalesced => Self::Held,
            Outcome::Refused | Outcome::TokenBlocked | Outcome::Unwanted => Self::Refused,
            Outcome::TokenDead | Outcome::NotRegistered => Self::Gone,
            Outcome::TokenInvalid
            | Outcome::ProviderUnavailable
            | Outcome::Overloaded
            | Outcome::ShuttingDown
            | Outcome::UnknownModule
            | Outcome::UnknownDevice
            | Outcome::RegistryUnavailable => Self::Failed,
        }
    }

    /// Its name and what it means, for the page.
    pub(crate) fn name_and_meaning(self) -> (&'static str, &'static str) {
        match self {
            Self::Delivered => ("Delivered", "The provider has taken them."),
            Self::Held => (
                "Held",
                "Acknowledged; they go out when the device may get the next one.",
            ),
            Self::Refused => (
                "Turned away",
                "Too many for one device, its token is left alone for a while, or nobody has to see them.",
            ),
            Self::Gone => ("Device gone", "There is no such device any more."),
            Self::Failed => ("Failed", "Something is wrong, here or at the provider."),
        }
    }
}

impl History {
    /// Whether it is time to read the counters.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let last = self.recent.back();
        last.is_none_or(|(at, _)| now.saturating_duration_since(*at) >= STEP)
    }

    /// Adds what the counters say now.
    pub(crate) fn add(&mut self, counts: Counts, now: Instant, wall: SystemTime) {
        if let Some((before, old)) = self.recent.back() {
            let mut outcomes = [0; OUTCOMES];
            for (module, new) in &counts {
                let old = old.get(module).copied().unwrap_or_default();
                for ((sum, new), old) in outcomes.iter_mut().zip(new).zip(old) {
                    *sum += new.saturating_sub(old);
                }
            }
            let length = now.saturating_duration_since(*before);
            self.points.push_back(Point {
                end: wall,
                length,
                outcomes,
            });
        }
        self.recent.push_back((now, counts));
        while self.recent.len() > MINUTE + 1 {
            self.recent.pop_front();
        }
        while self.points.len() > HOUR {
            self.points.pop_front();
        }
    }

    /// The points of the last hour, the latest last.
    pub(crate) fn points(&self) -> impl Iterator<Item = &Point> {
        self.points.iter()
    }

    /// How often there was each outcome in the last hour.
    pub(crate) fn totals(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.iter().enumerate().map(|(at, outcome)| {
            let total = self.points.iter().map(|point| point.outcomes[at]).sum();
            (*outcome, total)
        })
    }

    /// Pushes of a module per second, in the last minute.
    pub(crate) fn rate(&self, module: &str) -> f64 {
        let (Some((begin, first)), Some((end, last))) = (self.recent.front(), self.recent.back()) else {
            return 0.0;
        };
        let of = |counts: &Counts| {
            counts
                .get(module)
                .map_or(0, |outcomes| outcomes.iter().sum::<u64>())
        };
        per_second(of(last).saturating_sub(of(first)), *end - *begin)
    }
}

impl Point {
    /// Pushes per second with an outcome of this group.
    pub(crate) fn rate(&self, group: Group) -> f64 {
        let outcomes = Outcome::ALL.iter().zip(self.outcomes);
        let count = outcomes.filter(|(outcome, _)| Group::of(**outcome) == group);
        per_second(count.map(|(_, count)| count).sum(), self.length)
    }
}

fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        count as f64 / time.as_secs_f64()
    }
}

const OUTCOMES: usize = Outcome::ALL.len();
const STEP: Duration = Duration::from_secs(10);
/// Steps of a minute, and of an hour.
const MINUTE: usize = 6;
const HOUR: usize = 360;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_become_rates() {
        let counts = |accepted: u64, failed: u64| {
            let of = |outcome: Outcome, count| {
                let mut outcomes = [0; OUTCOMES];
                outcomes[outcome as usize] = count;
                outcomes
            };
            Counts::from([
                ("a".into(), of(Outcome::Accepted, accepted)),
                ("b".into(), of(Outcome::ProviderUnavailable, failed)),
            ])
        };
        let (start, wall) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let mut history = History::default();
        assert!(history.is_due(start));
        history.add(counts(100, 0), start, wall);
        assert_eq!(
            history.points().count(),
            0,
            "what was before the start is not a rate"
        );
        assert!(!history.is_due(start + Duration::from_secs(9)));
        let now = start + STEP;
        assert!(history.is_due(now));
        history.add(counts(150, 20), now, wall + STEP);
        let point = history.points().next().unwrap();
        assert_eq!(
            (point.rate(Group::Delivered), point.rate(Group::Failed)),
            (5.0, 2.0)
        );
        assert_eq!(
            (history.rate("a"), history.rate("b"), history.rate("c")),
            (5.0, 2.0, 0.0)
        );
        let totals: Vec<_> = history.totals().filter(|(_, total)| *total > 0).collect();
        assert_eq!(
            totals,
            [(Outcome::Accepted, 50), (Outcome::ProviderUnavailable, 20)]
        );

        let mut without_a = counts(0, 25);
        without_a.remove("a");
        history.add(without_a, start + STEP * 2, wall + STEP * 2);
        let totals: Vec<_> = history.totals().filter(|(_, total)| *total > 0).collect();
        assert_eq!(
            totals,
            [(Outcome::Accepted, 50), (Outcome::ProviderUnavailable, 25)],
            "a module that is gone takes nothing away"
        );

        for step in 3..1_000 {
            history.add(counts(150, 20), start + STEP * step, wall + STEP * step);
        }
        assert_eq!(history.points().count(), HOUR);
        assert_eq!(history.rate("a"), 0.0);
        assert_eq!(history.totals().map(|(_, total)| total).sum::<u64>(), 0);
    }
}
