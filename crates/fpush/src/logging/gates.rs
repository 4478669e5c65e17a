//! How often each kind of problem is written, and which ones there were.

use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::Entry as Place},
    sync::Arc,
    time::SystemTime,
};

use fpush_monitor::{Problem, Severity};
use tokio::time::{Duration, Instant};
use tracing::{Level, Metadata};

/// A kind of problem: a hash of the place in the program, the push module, the settings and the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind(pub(super) u64);

/// What a problem says. Made only for those that are written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// The message alone.
    pub(super) message: String,
    /// The message, and what was answered and what that means.
    pub(super) text: String,
    /// What it is about.
    pub(super) about: String,
    /// The fields that make it a kind of its own.
    pub(super) identity: Vec<Named>,
}

/// A field with its value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: &'static str,
    pub(super) value: String,
    /// Whether it was text, and not something that writes itself: that looks different in the log.
    pub(super) is_text: bool,
}

/// What is written for those that were withheld.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) metadata: &'static Metadata<'static>,
    pub(super) words: Arc<Words>,
    pub(super) withheld: u64,
}

/// Lets a few problems of each kind through in a minute and counts the others.
#[derive(Debug, Default)]
pub(super) struct Gates {
    kinds: HashMap<Kind, Gate>,
    /// How many problems there were.
    seen: u64,
}

#[derive(Debug)]
struct Gate {
    metadata: &'static Metadata<'static>,
    /// Of the last one that was let through.
    words: Arc<Words>,
    first: SystemTime,
    last: SystemTime,
    count: u64,
    /// What [`Gates::seen`] was at the last one: the clock may be set back, this is not.
    order: u64,
    /// When its minute began.
    minute: Option<Instant>,
    passed: u32,
    withheld: u64,
    /// Withheld in minutes that are over, and not yet summed up.
    owed: u64,
}

impl Gates {
    /// Notes a problem. Whether it may be written; then [`Self::describe`] has to follow.
    pub(super) fn note(
        &mut self,
        kind: Kind,
        metadata: &'static Metadata<'static>,
        now: Instant,
        at: SystemTime,
    ) -> bool {
        self.seen += 1;
        let order = self.seen;
        if self.kinds.len() >= MAX_KINDS && !self.kinds.contains_key(&kind) {
            self.forget_oldest();
        }
        let gate = match self.kinds.entry(kind) {
            Place::Occupied(gate) => gate.into_mut(),
            Place::Vacant(place) => place.insert(Gate::new(metadata, at)),
        };
        gate.last = at;
        gate.count += 1;
        gate.order = order;
        gate.pass(now)
    }

    /// Says what the problem was that has just been let through.
    pub(super) fn describe(&mut self, kind: Kind, words: Words) {
        if let Some(gate) = self.kinds.get_mut(&kind) {
            gate.words = Arc::new(words);
        }
    }

    /// What is to be written for the minutes that are over.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Summary> {
        for gate in self.kinds.values_mut() {
            gate.close(now);
        }
        self.summaries()
    }

    /// What is to be written for everything that was withheld, because this is the end.
    pub(super) fn finish(&mut self) -> Vec<Summary> {
        for gate in self.kinds.values_mut() {
            gate.owed += std::mem::take(&mut gate.withheld);
        }
        self.summaries()
    }

    fn summaries(&mut self) -> Vec<Summary> {
        let mut owing: Vec<_> = self.kinds.values_mut().filter(|gate| gate.owed > 0).collect();
        owing.sort_unstable_by_key(|gate| gate.order);
        let summary = |gate: &mut Gate| Summary {
            metadata: gate.metadata,
            words: Arc::clone(&gate.words),
            withheld: std::mem::take(&mut gate.owed),
        };
        owing.into_iter().map(summary).collect()
    }

    /// The last problems, the latest first.
    pub(super) fn recent(&self) -> Vec<Problem> {
        let mut gates: Vec<_> = self.kinds.values().collect();
        gates.sort_unstable_by_key(|gate| Reverse(gate.order));
        gates.into_iter().take(RECENT).map(Gate::problem).collect()
    }

    fn forget_oldest(&mut self) {
        let oldest = self.kinds.iter().min_by_key(|(_, gate)| gate.order);
        if let Some(kind) = oldest.map(|(kind, _)| *kind) {
            self.kinds.remove(&kind);
        }
    }
}

impl Gate {
    fn new(metadata: &'static Metadata<'static>, at: SystemTime) -> Self {
        Self {
            metadata,
            words: Arc::default(),
            first: at,
            last: at,
            count: 0,
            order: 0,
            minute: None,
            passed: 0,
            withheld: 0,
            owed: 0,
        }
    }

    fn pass(&mut self, now: Instant) -> bool {
        self.close(now);
        if self.minute.is_none() {
            self.minute = Some(now);
            self.passed = 0;
        }
        let passes = self.passed < PER_MINUTE;
        if passes {
            self.passed += 1;
        } else {
            self.withheld += 1;
        }
        passes
    }

    /// Ends the minute if it is over.
    fn close(&mut self, now: Instant) {
        if self
            .minute
            .is_some_and(|start| now.duration_since(start) >= MINUTE)
        {
            self.minute = None;
            self.owed += std::mem::take(&mut self.withheld);
        }
    }

    fn problem(&self) -> Problem {
        Problem {
            severity: if *self.metadata.level() == Level::ERROR {
                Severity::Error
            } else {
                Severity::Warning
            },
            about: self.words.about.clone(),
            text: self.words.text.clone(),
            first: self.first,
            last: self.last,
            count: self.count,
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const PER_MINUTE: u32 = 5;
/// Problems that are remembered.
const MAX_KINDS: usize = 1_000;
/// Problems that are shown.
const RECENT: usize = 50;

#[cfg(test)]
mod tests {
    use tracing::callsite::Callsite as _;

    use super::*;

    fn error() -> &'static Metadata<'static> {
        tracing::callsite! { name: "error", kind: tracing::metadata::Kind::EVENT, target: "fpush_test",
        level: Level::ERROR, fields: message }
        .metadata()
    }

    fn second(start: Instant, second: u64) -> Instant {
        start + Duration::from_secs(second)
    }

    fn note(gates: &mut Gates, kind: u64, now: Instant) -> bool {
        let passes = gates.note(Kind(kind), error(), now, SystemTime::now());
        if passes {
            let text = kind.to_string();
            gates.describe(
                Kind(kind),
                Words {
                    text,
                    ..Words::default()
                },
            );
        }
        passes
    }

    #[test]
    fn five_a_minute_pass_and_the_rest_is_summed_up() {
        let mut gates = Gates::default();
        let start = Instant::now();
        for _ in 0..5 {
            assert!(note(&mut gates, 1, start));
        }
        assert!(!note(&mut gates, 1, second(start, 1)));
        assert!(!note(&mut gates, 1, second(start, 59)));
        assert!(
            note(&mut gates, 2, second(start, 59)),
            "another kind has its own five"
        );
        assert!(gates.tick(second(start, 59)).is_empty());
        let summaries = gates.tick(second(start, 60));
        assert_eq!(summaries.len(), 1);
        assert_eq!((summaries[0].withheld, &*summaries[0].words.text), (2, "1"));
        assert!(gates.tick(second(start, 61)).is_empty());
        assert!(note(&mut gates, 1, second(start, 62)));
        assert!(gates.tick(second(start, 200)).is_empty(), "nothing was withheld");
    }

    #[test]
    fn a_minute_that_ended_before_the_tick_is_summed_up_too() {
        let mut gates = Gates::default();
        let start = Instant::now();
        for _ in 0..8 {
            note(&mut gates, 1, start);
        }
        for _ in 0..10 {
            note(&mut gates, 1, second(start, 60));
        }
        assert_eq!(gates.tick(second(start, 60))[0].withheld, 3);
        assert_eq!(gates.tick(second(start, 120))[0].withheld, 5);
    }

    #[test]
    fn at_the_end_everything_is_summed_up() {
        let mut gates = Gates::default();
        let now = Instant::now();
        for _ in 0..7 {
            note(&mut gates, 1, now);
        }
        assert_eq!(gates.finish()[0].withheld, 2);
        assert!(gates.finish().is_empty());
    }

    #[test]
    fn the_last_fifty_are_shown_the_latest_first() {
        let mut gates = Gates::default();
        let (start, epoch) = (Instant::now(), SystemTime::UNIX_EPOCH);
        for kind in 0..60 {
            note(&mut gates, kind, start);
        }
        gates.note(Kind(0), error(), start, epoch);
        let recent = gates.recent();
        assert_eq!(recent.len(), 50);
        assert_eq!((&*recent[0].text, recent[0].count), ("0", 2));
        assert_eq!(
            recent[0].last, epoch,
            "the clock was set back, and the order does not mind"
        );
        assert_eq!(recent[0].severity, Severity::Error);
        assert_eq!(recent[1].text, "59");
        assert_eq!(recent[49].text, "11");
    }

    #[test]
    fn no_more_than_a_thousand_kinds_are_remembered() {
        let mut gates = Gates::default();
        let start = Instant::now();
        for kind in 0..=1_000 {
            note(&mut gates, kind, start);
        }
        assert_eq!(gates.kinds.len(), MAX_KINDS);
        assert!(!gates.kinds.contains_key(&Kind(0)), "the oldest has gone");
        assert!(gates.kinds.contains_key(&Kind(1)));
    }
}
