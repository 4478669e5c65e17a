//! Replies on their way to the server. They outlive a link: what is due while there is none goes out on the
//! next one, unless it has come too late by then.

use std::{
    mem,
    sync::{Mutex, MutexGuard},
};

use tokio::{
    sync::Notify,
    time::{Duration, Instant},
};

/// Everything that waits to be written.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    batch: Mutex<Batch>,
    filled: Notify,
    emptied: Notify,
}

/// Replies that are written together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Where each reply ends, and when it is worth nothing any more.
    ends: Vec<(usize, Instant)>,
}

impl Outbox {
    /// Adds a reply to something that arrived then.
    pub(crate) fn push(&self, arrived: Instant, write: impl FnOnce(&mut Vec<u8>)) {
        let mut batch = self.lock();
        let first = batch.bytes.is_empty();
        write(&mut batch.bytes);
        let end = batch.bytes.len();
        batch.ends.push((end, arrived + WORTH));
        drop(batch);
        if first {
            self.filled.notify_one();
        }
    }

    /// Waits for something to write. What could not be written must be [`put back`](Self::put_back).
    pub(crate) async fn take(&self) -> Batch {
        loop {
            let batch = mem::take(&mut *self.lock());
            if !batch.bytes.is_empty() {
                self.emptied.notify_waiters();
                return batch;
            }
            self.filled.notified().await;
        }
    }

    /// Takes back what a link could not write.
    pub(crate) fn put_back(&self, mut unsent: Batch) {
        let mut batch = self.lock();
        let offset = unsent.bytes.len();
        unsent.bytes.append(&mut batch.bytes);
        unsent
            .ends
            .extend(batch.ends.drain(..).map(|(end, until)| (end + offset, until)));
        *batch = unsent;
        drop(batch);
        self.filled.notify_one();
    }

    /// Drops what came too late. Called when a link is new.
    pub(crate) fn drop_late(&self, now: Instant) {
        let mut batch = self.lock();
        let late = mem::take(&mut *batch);
        let mut start = 0;
        for (end, until) in late.ends {
            if now < until {
                batch.bytes.extend_from_slice(&late.bytes[start..end]);
                let end = batch.bytes.len();
                batch.ends.push((end, until));
            }
            start = end;
        }
    }

    /// Waits while the server reads our replies more slowly than it causes them.
    pub(crate) async fn until_bearable(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().bytes.len() < MAX_BYTES {
                return;
            }
            emptied.await;
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().bytes.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().expect("nobody panics with this lock")
    }
}

impl Batch {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A reply is worth something for this long after its request arrived: ejabberd forgets a request after 32 s.
const WORTH: Duration = Duration::from_secs(25);
/// Above it nothing more is read from the server.
const MAX_BYTES: usize = 8 * 1_024 * 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn push(outbox: &Outbox, arrived: Instant, text: &str) {
        outbox.push(arrived, |out| out.extend_from_slice(text.as_bytes()));
    }

    #[tokio::test]
    async fn what_was_not_written_goes_out_first_on_the_next_link() {
        let (outbox, now) = (Outbox::default(), Instant::now());
        push(&outbox, now, "a");
        let unsent = outbox.take().await;
        push(&outbox, now, "b");
        outbox.put_back(unsent);
        outbox.drop_late(now);
        assert_eq!(outbox.take().await.bytes(), b"ab");
        assert!(outbox.is_empty());
    }

    #[tokio::test]
    async fn late_replies_are_dropped() {
        let (outbox, now) = (Outbox::default(), Instant::now());
        push(&outbox, now, "early");
        push(&outbox, now + Duration::from_secs(2), "late");
        outbox.drop_late(now + WORTH + Duration::from_secs(1));
        assert_eq!(outbox.take().await.bytes(), b"late");
    }

    #[tokio::test(start_paused = true)]
    async fn reading_waits_while_the_server_does_not_read() {
        let outbox = Outbox::default();
        outbox.until_bearable().await;
        push(&outbox, Instant::now(), &"x".repeat(MAX_BYTES));
        let waiting = tokio::time::timeout(Duration::from_secs(1), outbox.until_bearable());
        assert!(waiting.await.is_err());
        outbox.take().await;
        outbox.until_bearable().await;
    }
}
