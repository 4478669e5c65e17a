//! What all connections of one client have in common: figures for those who watch it.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use fpush_push::ConnectionStatus;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    open: AtomicUsize,
    streams: AtomicUsize,
    connects: AtomicU64,
    failed_connects: AtomicU64,
    /// The last PING in microseconds, and one more; 0 before the first.
    ping: AtomicU64,
}

/// One more, as long as this lives.
#[derive(Debug)]
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl Tally {
    /// A connection came to be. It counts as open as long as the value lives.
    pub(crate) fn connected(&self) -> Counted<'_> {
        self.connects.fetch_add(1, Ordering::Relaxed);
        Counted::new(&self.open)
    }

    /// No connection came to be.
    pub(crate) fn count_failed_connect(&self) {
        self.failed_connects.fetch_add(1, Ordering::Relaxed);
    }

    /// A request is sent. It counts as one without an answer as long as the value lives.
    pub(crate) fn requested(&self) -> Counted<'_> {
        Counted::new(&self.streams)
    }

    /// A PING was answered after this time.
    pub(crate) fn note_ping(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX - 1);
        self.ping.store(micros + 1, Ordering::Relaxed);
    }

    pub(crate) fn status(&self) -> ConnectionStatus {
        ConnectionStatus {
            open: self.open.load(Ordering::Relaxed),
            streams: self.streams.load(Ordering::Relaxed),
            connects: self.connects.load(Ordering::Relaxed),
            failed_connects: self.failed_connects.load(Ordering::Relaxed),
            ping: self
                .ping
                .load(Ordering::Relaxed)
                .checked_sub(1)
                .map(Duration::from_micros),
        }
    }
}

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_not_counted_any_more() {
        let tally = Tally::default();
        assert_eq!(tally.status(), ConnectionStatus::default());
        let (first, second) = (tally.connected(), tally.connected());
        let request = tally.requested();
        tally.count_failed_connect();
        tally.note_ping(Duration::ZERO);
        let all = ConnectionStatus {
            open: 2,
            streams: 1,
            connects: 2,
            failed_connects: 1,
            ping: Some(Duration::ZERO),
        };
        assert_eq!(tally.status(), all);
        drop((first, second, request));
        assert_eq!(
            tally.status(),
            ConnectionStatus {
                open: 0,
                streams: 0,
                ..all
            }
        );
    }
}
