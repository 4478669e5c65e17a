//! What a module counts for the metrics. The metrics themselves, with their help texts, are listed in `fpush-monitor`.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use crate::Outcome;

/// The meters of one module. A module that takes another one's place counts on where that one was.
pub(crate) struct Meters {
    module: String,
    outcomes: [Counter; Outcome::ALL.len()],
    accepted: Counter,
    attempts: Histogram,
    delivered: Counter,
    lost: Counter,
    dropped: Counter,
    covered: Counter,
    believed: Counter,
    doubted: Counter,
    bursts: Counter,
}

impl Meters {
    pub(crate) fn new(module: &str) -> Self {
        let module = module.to_owned();
        let held =
            |outcome| counter!("fpush_held_pushes_total", "module" => module.clone(), "outcome" => outcome);
        let rejected = |verdict| counter!("fpush_rejected_tokens_total", "module" => module.clone(), "verdict" => verdict);
        Self {
            outcomes: Outcome::ALL.map(
                |outcome| counter!("fpush_pushes_total", "module" => module.clone(), "outcome" => outcome.name()),
            ),
            accepted: counter!("fpush_provider_answers_total", "module" => module.clone(), "reason" => "accepted"),
            attempts: histogram!("fpush_provider_duration_seconds", "module" => module.clone()),
            delivered: held("delivered"),
            lost: held("lost"),
            dropped: held("dropped"),
            covered: held("covered"),
            believed: rejected("believed"),
            doubted: rejected("doubted"),
            bursts: counter!("fpush_rejection_bursts_total", "module" => module.clone()),
            module,
        }
    }

    /// What became of a publish.
    pub(crate) fn outcome(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].increment(1);
    }

    /// One attempt at the provider.
    pub(crate) fn attempt(&self, took: Duration, refused: Option<&'static str>) {
        self.attempts.record(took);
        match refused {
            None => self.accepted.increment(1),
            Some(reason) => {
                counter!("fpush_provider_answers_total", "module" => self.module.clone(), "reason" => reason)
                    .increment(1);
            }
        }
    }

    /// The provider has accepted a held push.
    pub(crate) fn held_delivered(&self) {
        self.delivered.increment(1);
    }

    /// A held push could not be delivered.
    pub(crate) fn held_lost(&self) {
        self.lost.increment(1);
    }

    /// A newer push is queued for the same device, and stands for an acknowledged one.
    pub(crate) fn held_covered(&self) {
        self.covered.increment(1);
    }

    /// The token of a held push is dead.
    pub(crate) fn held_dropped(&self) {
        self.dropped.increment(1);
    }

    /// The provider called a token dead or wrong.
    pub(crate) fn rejected(&self, believed: bool) {
        if believed {
            self.believed.increment(1);
        } else {
            self.doubted.increment(1);
        }
    }

    /// The provider has begun to reject far more tokens than usual.
    pub(crate) fn burst(&self) {
        self.bursts.increment(1);
    }
}
