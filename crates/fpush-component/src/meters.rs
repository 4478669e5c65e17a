//! What the component counts for the metrics. The metrics themselves, with their help texts, are listed in
//! `fpush-monitor`.

use std::sync::Arc;

use fpush_push::metrics::{Counter, Histogram, LabelledCounters, Outcomes, REPLY_SECONDS, WordCounters};

use crate::reply;

/// The meters of the component. All links that it has one after the other count on.
#[derive(Debug)]
pub struct ComponentMeters {
    /// Publishes that came to no push module, by what became of them.
    pub outcomes: Arc<Outcomes>,
    /// Replies by type and condition.
    pub replies: Arc<LabelledCounters<2>>,
    /// Replies that were dropped. They have been counted by type and condition as well, if they were written first.
    pub dropped_replies: Arc<Counter>,
    /// From a publish to its reply.
    pub durations: Arc<Histogram>,
    /// Logins that worked.
    pub connects: Arc<Counter>,
    /// Ends of the link by reason.
    pub disconnects: Arc<WordCounters>,
    /// Attempts to connect and log in that failed, by reason.
    pub login_failures: Arc<WordCounters>,
}

impl ComponentMeters {
    pub(crate) fn new() -> Self {
        Self {
            outcomes: Arc::default(),
            replies: Arc::new(reply::counters()),
            dropped_replies: Arc::default(),
            durations: Arc::new(Histogram::new(REPLY_SECONDS)),
            connects: Arc::default(),
            disconnects: Arc::default(),
            login_failures: Arc::default(),
        }
    }
}
