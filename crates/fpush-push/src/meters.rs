//! What a module and a link count for the metrics. The metrics themselves, with their help texts, are listed in
//! `fpush-monitor`.

use std::time::Duration;

use crate::{
    Outcome,
    metrics::{Counter, Histogram, LabelledCounters, Outcomes, PROVIDER_SECONDS, WordCounters},
};

/// The meters of one link to an XMPP server. They outlast it: what is left of its replies is counted after its end.
#[derive(Debug)]
pub struct LinkMeters {
    /// Replies to what came over it, by type and condition.
    pub replies: LabelledCounters<2>,
    /// Replies that were dropped. They have been counted by type and condition as well.
    pub dropped_replies: Counter,
    /// Logins that worked.
    pub connects: Counter,
    /// Ends of its connections by reason.
    pub disconnects: WordCounters,
    /// Attempts to connect and log in that failed, by reason.
    pub login_failures: WordCounters,
}

impl LinkMeters {
    /// Nothing is counted yet; replies are counted here.
    #[must_use]
    pub fn new(replies: LabelledCounters<2>) -> Self {
        Self {
            replies,
            dropped_replies: Counter::new(),
            connects: Counter::new(),
            disconnects: WordCounters::default(),
            login_failures: WordCounters::default(),
        }
    }
}

/// The meters of one module. They go with it, and stay when its backend or its settings become others.
#[derive(Debug)]
pub struct Meters {
    outcomes: Outcomes,
    accepted: Counter,
    /// Every answer but the one that accepts the push, by the provider's reason.
    refusals: WordCounters,
    /// By vendor, where the module sends to several: what was accepted, and what was not.
    accepted_by: WordCounters,
    not_accepted_by: WordCounters,
    attempts: Histogram,
    delivered: Counter,
    lost: Counter,
    dropped: Counter,
    covered: Counter,
    taken: Counter,
    took_over: Counter,
    handed_over: Counter,
    sent_twice: Counter,
    believed: Counter,
    doubted: Counter,
    bursts: Counter,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            outcomes: Outcomes::default(),
            accepted: Counter::new(),
            refusals: WordCounters::default(),
            accepted_by: WordCounters::default(),
            not_accepted_by: WordCounters::default(),
            attempts: Histogram::new(PROVIDER_SECONDS),
            delivered: Counter::new(),
            lost: Counter::new(),
            dropped: Counter::new(),
            covered: Counter::new(),
            taken: Counter::new(),
            took_over: Counter::new(),
            handed_over: Counter::new(),
            sent_twice: Counter::new(),
            believed: Counter::new(),
            doubted: Counter::new(),
            bursts: Counter::new(),
        }
    }
}

/// Counting.
impl Meters {
    /// What became of a publish.
    pub fn outcome(&self, outcome: Outcome) {
        self.outcomes.increment(outcome);
    }

    /// One attempt at the provider, or at one of several.
    pub fn attempt(&self, took: Duration, refused: Option<&'static str>, vendor: Option<&'static str>) {
        self.attempts.record(took);
        let by_vendor = match refused {
            None => {
                self.accepted.increment();
                &self.accepted_by
            }
            Some(reason) => {
                self.refusals.increment(reason);
                &self.not_accepted_by
            }
        };
        if let Some(vendor) = vendor {
            by_vendor.increment(vendor);
        }
    }

    /// The provider has accepted a held push.
    pub fn held_delivered(&self) {
        self.delivered.increment();
    }

    /// A held push could not be delivered.
    pub fn held_lost(&self) {
        self.lost.increment();
    }

    /// An acknowledged push is dropped, because a newer one is queued for the same device.
    pub fn held_covered(&self) {
        self.covered.increment();
    }

    /// A held push is dropped, because another instance has taken it over, or has sent one for the same device.
    pub fn held_taken(&self) {
        self.taken.increment();
    }

    /// Pushes were taken over from an instance that said nothing any more.
    pub fn took_over(&self, count: u64) {
        self.took_over.add(count);
    }

    /// Pushes were taken over from an instance that was stopped.
    pub fn handed_over(&self, count: u64) {
        self.handed_over.add(count);
    }

    /// Held pushes have gone out here that another instance had taken over.
    pub fn sent_twice(&self, count: u64) {
        self.sent_twice.add(count);
    }

    /// The token of a held push is dead, or a server that a stranger has chosen did not take it.
    pub fn held_dropped(&self) {
        self.dropped.increment();
    }

    /// The provider called a token dead or wrong.
    pub fn rejected(&self, believed: bool) {
        if believed {
            self.believed.increment();
        } else {
            self.doubted.increment();
        }
    }

    /// The provider has begun to reject far more tokens than usual.
    pub fn burst(&self) {
        self.bursts.increment();
    }
}

/// Reading, with the words of labels.
impl Meters {
    /// Publishes by what became of them.
    #[must_use]
    pub fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// Answers of the provider to single attempts, by reason.
    #[must_use]
    pub fn answers(&self) -> Vec<(&'static str, u64)> {
        let mut answers = vec![("accepted", self.accepted.get())];
        answers.extend(self.refusals.get());
        answers
    }

    /// Attempts by vendor and result, where the module sends to several.
    pub fn vendors(&self) -> impl Iterator<Item = ([&'static str; 2], u64)> {
        let results = [
            ("accepted", &self.accepted_by),
            ("not_accepted", &self.not_accepted_by),
        ];
        results.into_iter().flat_map(|(result, counters)| {
            let counts = counters.get().into_iter();
            counts.map(move |(vendor, count)| ([vendor, result], count))
        })
    }

    /// How long the attempts took.
    #[must_use]
    pub fn attempts(&self) -> &Histogram {
        &self.attempts
    }

    /// Held pushes by what became of them.
    #[must_use]
    pub fn held(&self) -> [(&'static str, u64); 5] {
        [
            ("covered", self.covered.get()),
            ("delivered", self.delivered.get()),
            ("dropped", self.dropped.get()),
            ("lost", self.lost.get()),
            ("taken", self.taken.get()),
        ]
    }

    /// Held pushes that went from one instance to another, by how.
    #[must_use]
    pub fn takeovers(&self) -> [(&'static str, u64); 3] {
        [
            ("dead", self.took_over.get()),
            ("sent_twice", self.sent_twice.get()),
            ("stopped", self.handed_over.get()),
        ]
    }

    /// Acknowledged pushes that could not be delivered.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// Answers that called a token dead or wrong, by whether that was believed.
    #[must_use]
    pub fn rejections(&self) -> [(&'static str, u64); 2] {
        [("believed", self.believed.get()), ("doubted", self.doubted.get())]
    }

    /// Times that the provider began to reject far more tokens than usual.
    #[must_use]
    pub fn bursts(&self) -> u64 {
        self.bursts.get()
    }
}
