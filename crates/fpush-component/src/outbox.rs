//! Replies on their way to the server. They outlive a link: what is due while there is none goes out on the
//! next one, unless it has come too late by then.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use fpush_push::{Outcome, sync::lock};
use tokio::{
    sync::Notify,
    time::{Duration, Instant, sleep},
};
use tracing::debug;

use crate::{
    meters::ComponentMeters,
    reply::{Addresses, Named, Reply},
};

/// Everything that waits to be written.
#[derive(Debug)]
pub(crate) struct Outbox {
    batch: Mutex<Batch>,
    filled: Notify,
    emptied: Notify,
    /// Requests so far.
    requests: AtomicU64,
    /// Those that have no reply yet.
    pending: AtomicUsize,
    meters: ComponentMeters,
}

/// A request that has no reply yet, and gets exactly one.
#[derive(Debug)]
pub(crate) struct PendingReply {
    outbox: Arc<Outbox>,
    addresses: Addresses,
    arrived: Instant,
    /// By that the lines of the log about one request are found.
    number: u64,
}

/// Replies that are written together.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each reply ends, and when its request arrived.
    ends: Vec<(usize, Instant)>,
    /// Replies to what arrived before are not wanted any more.
    since: Option<Instant>,
    /// Whether other replies are being written at the moment.
    writing: bool,
}

/// Replies that are being written. Unless that [`succeeds`](Self::written) they go back.
#[derive(Debug)]
pub(crate) struct Writing<'a> {
    outbox: &'a Outbox,
    bytes: Vec<u8>,
    ends: Vec<(usize, Instant)>,
}

impl Outbox {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            batch: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
            requests: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
            meters: ComponentMeters::new(),
        })
    }

    /// Expects the reply to a request that arrived then, and has these addresses.
    pub(crate) fn expect(self: &Arc<Self>, addresses: Addresses, arrived: Instant) -> PendingReply {
        self.pending.fetch_add(1, Ordering::Relaxed);
        PendingReply {
            outbox: Arc::clone(self),
            addresses,
            arrived,
            number: self.requests.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }

    /// Adds a reply to something that arrived then.
    pub(crate) fn push(&self, arrived: Instant, write: impl FnOnce(&mut Vec<u8>)) {
        let mut batch = self.lock();
        if batch.since.is_some_and(|since| arrived < since) {
            return self.meters.dropped_replies.increment();
        }
        let first = batch.bytes.is_empty();
        write(&mut batch.bytes);
        let end = batch.bytes.len();
        batch.ends.push((end, arrived));
        drop(batch);
        if first {
            self.filled.notify_one();
        }
    }

    /// Waits for something to write.
    pub(crate) async fn take(&self) -> Writing<'_> {
        loop {
            {
                let mut batch = self.lock();
                if !batch.bytes.is_empty() {
                    batch.writing = true;
                    // The next batch is likely to be about as large.
                    let (bytes, ends) = (
                        Vec::with_capacity(batch.bytes.len()),
                        Vec::with_capacity(batch.ends.len()),
                    );
                    let bytes = mem::replace(&mut batch.bytes, bytes);
                    let ends = mem::replace(&mut batch.ends, ends);
                    self.emptied.notify_waiters();
                    return Writing {
                        outbox: self,
                        bytes,
                        ends,
                    };
                }
            }
            self.filled.notified().await;
        }
    }

    /// Drops what came too late. Called when a link is new.
    pub(crate) fn drop_late(&self, now: Instant) {
        let dropped = self.lock().retain(|arrived| now < arrived + WORTH);
        self.meters.dropped_replies.add(dropped as u64);
    }

    /// Drops the replies to everything that arrived before now, those included that are not here yet. Called when our
    /// address has become another: a server ends the stream of a component that speaks under an address that is not its
    /// own.
    pub(crate) fn drop_former(&self, now: Instant) {
        let mut batch = self.lock();
        batch.since = Some(now);
        let dropped = batch.retain(|arrived| arrived >= now);
        drop(batch);
        self.meters.dropped_replies.add(dropped as u64);
    }

    /// Waits while the server reads our replies more slowly than it causes them.
    pub(crate) async fn wait_for_room(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().bytes.len() < MAX_BYTES {
                return;
            }
            emptied.await;
        }
    }

    /// Waits until everything is written.
    pub(crate) async fn until_written(&self) {
        loop {
            let emptied = self.emptied.notified();
            {
                let batch = self.lock();
                if batch.bytes.is_empty() && !batch.writing {
                    return;
                }
            }
            emptied.await;
        }
    }

    /// Waits until every request has its reply, and everything is written.
    pub(crate) async fn until_idle(&self) {
        while self.pending.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(20)).await;
        }
        self.until_written().await;
    }

    /// What the component counts.
    pub(crate) fn meters(&self) -> &ComponentMeters {
        &self.meters
    }

    fn lock(&self) -> MutexGuard<'_, Batch> {
        lock(&self.batch)
    }
}

impl PendingReply {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn arrived(&self) -> Instant {
        self.arrived
    }

    /// How many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        self.addresses.size()
    }

    /// Whether it is short enough to wait until others have answered.
    pub(crate) fn can_be_kept(&self) -> bool {
        self.addresses.can_be_kept()
    }

    pub(crate) fn send(self, reply: &Reply<'_>) {
        debug!(answer = ?reply, "reply");
        self.write(reply);
    }

    /// The reply to a publish.
    pub(crate) fn published(self, outcome: Outcome, named: Named<'_>) {
        let reply = Reply::Published(outcome, named);
        debug!(answer = ?reply, publish = self.number, outcome = %outcome.name(), "reply");
        self.outbox.meters.durations.record(self.arrived.elapsed());
        self.write(&reply);
    }

    /// The reply to a publish that came to no push module.
    pub(crate) fn without_module(self, outcome: Outcome, named: Named<'_>) {
        self.outbox.meters.outcomes.increment(outcome);
        self.published(outcome, named);
    }

    fn write(&self, reply: &Reply<'_>) {
        let counters = &self.outbox.meters.replies;
        self.outbox
            .push(self.arrived, |out| reply.write(&self.addresses, counters, out));
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        self.outbox.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Batch {
    /// Keeps the replies to what arrived at certain times; returns how many are dropped.
    fn retain(&mut self, keep: impl Fn(Instant) -> bool) -> usize {
        let (bytes, ends) = (mem::take(&mut self.bytes), mem::take(&mut self.ends));
        let (all, mut start) = (ends.len(), 0);
        for (end, arrived) in ends {
            if keep(arrived) {
                self.bytes.extend_from_slice(&bytes[start..end]);
                self.ends.push((self.bytes.len(), arrived));
            }
            start = end;
        }
        all - self.ends.len()
    }
}

impl Writing<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The server has it.
    pub(crate) fn written(mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

impl Drop for Writing<'_> {
    /// What arrived all the same will be repeated; a reply that nobody waits for does no harm.
    fn drop(&mut self) {
        let mut batch = self.outbox.lock();
        batch.writing = false;
        let offset = self.bytes.len();
        if offset > 0 {
            let later = mem::take(&mut batch.bytes);
            self.bytes.extend_from_slice(&later);
            self.ends
                .extend(batch.ends.drain(..).map(|(end, arrived)| (end + offset, arrived)));
            batch.bytes = mem::take(&mut self.bytes);
            batch.ends = mem::take(&mut self.ends);
            self.outbox.filled.notify_one();
        }
        drop(batch);
        self.outbox.emptied.notify_waiters();
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
        let (outbox, now) = (Outbox::new(), Instant::now());
        push(&outbox, now, "a");
        let unsent = outbox.take().await;
        push(&outbox, now, "b");
        drop(unsent);
        outbox.drop_late(now);
        let writing = outbox.take().await;
        assert_eq!(writing.bytes(), b"ab");
        writing.written();
        outbox.until_written().await;
    }

    #[tokio::test]
    async fn late_replies_are_dropped() {
        let (outbox, now) = (Outbox::new(), Instant::now());
        push(&outbox, now, "early");
        push(&outbox, now + Duration::from_secs(2), "late");
        outbox.drop_late(now + WORTH + Duration::from_secs(1));
        assert_eq!(outbox.take().await.bytes(), b"late");
        assert_eq!(outbox.meters().dropped_replies.get(), 1);
    }

    #[tokio::test]
    async fn under_another_address_only_later_requests_are_answered() {
        let (outbox, now) = (Outbox::new(), Instant::now());
        let later = now + Duration::from_secs(1);
        push(&outbox, now, "waits");
        drop(outbox.take().await);
        outbox.drop_former(later);
        push(&outbox, now, "comes late");
        push(&outbox, later, "new");
        assert_eq!(outbox.take().await.bytes(), b"new");
        assert_eq!(outbox.meters().dropped_replies.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_being_written_is_not_written_yet() {
        let outbox = Outbox::new();
        push(&outbox, Instant::now(), "a");
        let writing = outbox.take().await;
        let waiting = tokio::time::timeout(Duration::from_secs(1), outbox.until_written());
        assert!(waiting.await.is_err());
        writing.written();
        outbox.until_written().await;
    }

    #[tokio::test(start_paused = true)]
    async fn reading_waits_while_the_server_does_not_read() {
        let outbox = Outbox::new();
        outbox.wait_for_room().await;
        push(&outbox, Instant::now(), &"x".repeat(MAX_BYTES));
        let waiting = tokio::time::timeout(Duration::from_secs(1), outbox.wait_for_room());
        assert!(waiting.await.is_err());
        outbox.take().await.written();
        outbox.wait_for_room().await;
    }
}
