//! The attempts for one push.

use std::time::{Duration, Instant};

use fpush_push::{Backoff, Outcome};

use crate::verdict::LaneChange;

/// What is known of the attempts for one push so far.
#[derive(Debug)]
pub struct Tries {
    /// The next attempt has to be possible before then.
    pub(crate) patience: Instant,
    /// How often it has failed.
    failures: u32,
    reconnects: u32,
    renewed: bool,
    /// Whether it has failed since these tries began.
    has_failed: bool,
}

impl Tries {
    /// A push that may be tried until then, and was tried so often before.
    #[must_use]
    pub fn new(patience: Instant, before: u32) -> Self {
        Self {
            patience,
            failures: before,
            reconnects: 0,
            renewed: false,
            has_failed: false,
        }
    }

    /// The pause after one failure more, for which the provider may have asked.
    pub(crate) fn pause(&mut self, asked: Option<Duration>, jitter: f64) -> Duration {
        let pause = BACKOFF.pause_at_least(asked.unwrap_or_default(), self.failures, jitter);
        self.failures += 1;
        self.has_failed = true;
        pause
    }

    /// There was no permit for the next attempt: says when to try again. `jitter` is a random number from 0 to 1.
    #[must_use]
    pub fn no_permit(&mut self, now: Instant, jitter: f64) -> Instant {
        now + self.pause(None, jitter)
    }

    /// Whether it has failed since these tries began.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    pub(crate) fn may_reconnect(&mut self) -> bool {
        let may = self.reconnects < MAX_RECONNECTS;
        self.reconnects += u32::from(may);
        may
    }

    pub(crate) fn may_renew(&mut self) -> bool {
        !std::mem::replace(&mut self.renewed, true)
    }
}

/// What follows from an answer of the provider.
#[derive(Debug, PartialEq, Eq)]
pub struct Answered {
    /// What is to be done.
    pub next: Next,
    /// What a person should hear.
    pub notice: Option<Notice>,
}

/// What is to be done after an attempt.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Another attempt, at once.
    Again,
    /// Another attempt, in the lane that the push is in now: its permit goes back, and it takes its turn there.
    Elsewhere,
    /// Another attempt, then.
    After {
        /// When.
        resume: Instant,
    },
    /// The token is dead: the registry has the last word, where the device is a registered one.
    Dead {
        /// Since then, in milliseconds since 1970, if the provider says so.
        since: Option<u64>,
    },
    /// Nothing, for now.
    Ended(Ended),
}

/// How the attempts for one push ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing more is to be tried.
    Settled(Outcome),
    /// The provider wants silence for this token.
    Busy,
    /// Nobody could say yes or no; another attempt may help from then on.
    Failed {
        /// When.
        resume: Instant,
    },
}

/// Something that a person should hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The provider rejects more tokens than usual, or no more than that again.
    Lane(LaneChange),
    /// The push is too large for the provider; it goes out in the minimal form.
    TooLarge,
    /// The module begins to pause.
    Paused {
        /// For so long.
        length: Duration,
        /// Whether the provider refuses our credentials or settings.
        alarm: bool,
    },
    /// A vendor calls whatever is sent to it another key's.
    KeyRefused,
    /// The provider gave an answer that nobody knows.
    Unknown,
    /// The provider cannot reach the token's platform for this app.
    Unserved,
    /// The provider refuses the request, because of the settings.
    Refused,
    /// The provider did not take the push.
    NotTaken,
}

impl Answered {
    pub(crate) fn next(next: Next) -> Self {
        Self { next, notice: None }
    }

    pub(crate) fn ended(outcome: Outcome, notice: Option<Notice>) -> Self {
        Self {
            next: Next::Ended(Ended::Settled(outcome)),
            notice,
        }
    }
}

/// Of one push.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
/// How often one push tries again at once because its connection broke.
const MAX_RECONNECTS: u32 = 2;
