//! When which file is written.

use std::time::Duration;

use tokio::time::Instant;

use super::folder::StateFile;

/// When a file was last written, and with what.
pub(super) struct SaveSchedule {
    pub(super) file: StateFile,
    pub(super) interval: Duration,
    pub(super) next: Instant,
    pub(super) written: Vec<u64>,
    /// Why the last attempt to write it failed.
    pub(super) trouble: Option<String>,
}

impl SaveSchedule {
    pub(super) fn new(file: StateFile, interval: Duration, now: Instant) -> Self {
        Self {
            file,
            interval,
            next: now + interval,
            written: Vec::new(),
            trouble: None,
        }
    }

    /// Takes note of what is to be written; returns whether that is something else than last time.
    pub(super) fn has_changed(&mut self, changes: Vec<u64>, now: Option<Instant>) -> bool {
        if let Some(now) = now {
            self.next = now + self.interval;
        }
        let news = self.written != changes;
        self.written = changes;
        news
    }
}
