//! What the component counts beside its links, for the metrics. The metrics themselves, with their help texts, are listed
//! in `fpush-monitor`.

use std::sync::Arc;

use fpush_push::metrics::{Histogram, Outcomes, REPLY_SECONDS};
use tokio::time::Instant;

use crate::answers::Answers;

/// The meters of the component. What its links count is in their own, [`fpush_push::LinkMeters`].
#[derive(Debug)]
pub struct ComponentMeters {
    /// Publishes that came to no push module, by what became of them.
    pub outcomes: Arc<Outcomes>,
    /// Notifications of Push 2.0, by what became of them.
    pub notifications: Arc<Outcomes>,
    /// From a publish to its reply.
    pub durations: Arc<Histogram>,
    /// What each domain was answered.
    pub(crate) answers: Answers,
}

impl ComponentMeters {
    pub(crate) fn new() -> Self {
        Self {
            outcomes: Arc::default(),
            notifications: Arc::default(),
            durations: Arc::new(Histogram::new(REPLY_SECONDS)),
            answers: Answers::new(Instant::now()),
        }
    }
}
