//! Replies on their way to the server that asked.
//!
//! They outlive a connection: what is due while its link is down goes out over the next connection of the link, or before
//! that over another link of its group, unless it has come too late by then.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use fpush_policy::SenderDomain;
use fpush_push::{LinkMeters, Outcome, sync::lock};
use tokio::{
    sync::Notify,
    time::{Duration, Instant, sleep},
};
use tracing::debug;

use crate::{
    addresses::Addresses,
    meters::ComponentMeters,
    reply::{Named, Reply},
};

/// Everything that waits to be written over one link.
#[derive(Debug)]
pub(crate) struct Outbox {
    batch: Mutex<Batch>,
    filled: Notify,
    emptied: Notify,
    /// Requests that have no reply yet.
    pending: AtomicUsize,
    meters: Arc<LinkMeters>,
}

/// Links of which any may send the replies of any other: the nodes of one cluster. A link that is in no group of the settings
/// has one for itself and those that come in its place.
#[derive(Debug, Default)]
pub(crate) struct Group {
    left: Mutex<Left>,
    filled: Notify,
}

/// A request that has no reply yet, and gets exactly one.
#[derive(Debug)]
pub(crate) struct PendingReply {
    outbox: Arc<Outbox>,
    component: Arc<ComponentMeters>,
    addresses: Addresses,
    arrived: Instant,
    /// By that the lines of the log about one request are found.
    number: u64,
    /// Whose publish it is, if it is one.
    sender: Option<Arc<SenderDomain>>,
}

/// Replies that are written together.
#[derive(Debug)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each reply ends, and when its request arrived.
    ends: Vec<(usize, Instant)>,
    /// Whether replies are being written at the moment.
    is_writing: bool,
    /// Whether there is a connection over which they can be written.
    is_open: bool,
    /// Takes what is left when there is none.
    group: Arc<Group>,
}

/// What the links of a group could not send.
#[derive(Debug, Default)]
struct Left {
    replies: VecDeque<Orphan>,
    /// How many links there are.
    links: usize,
}

/// A reply whose link is down.
#[derive(Debug)]
struct Orphan {
    bytes: Vec<u8>,
    arrived: Instant,
    /// Of its link.
    meters: Arc<LinkMeters>,
}

/// Replies that are being written. Unless that [`succeeds`](Self::written) they are left to the group.
#[derive(Debug)]
pub(crate) struct Writing<'a> {
    outbox: &'a Outbox,
    bytes: Vec<u8>,
    ends: Vec<(usize, Instant)>,
    /// Those of others, whose bytes come first.
    orphans: VecDeque<Orphan>,
}

impl Outbox {
    /// One that is not open yet.
    pub(crate) fn new(group: Arc<Group>, meters: Arc<LinkMeters>) -> Arc<Self> {
        group.lock().links += 1;
        Arc::new(Self {
            batch: Mutex::new(Batch {
                bytes: Vec::new(),
                ends: Vec::new(),
                is_writing: false,
                is_open: false,
                group,
            }),
            filled: Notify::new(),
            emptied: Notify::new(),
            pending: AtomicUsize::new(0),
            meters,
        })
    }

    /// Expects the reply to a request that arrived then, and has these addresses.
    pub(crate) fn expect(
        self: &Arc<Self>,
        component: &Arc<ComponentMeters>,
        addresses: Addresses,
        number: u64,
        arrived: Instant,
    ) -> PendingReply {
        self.pending.fetch_add(1, Ordering::Relaxed);
        PendingReply {
            outbox: Arc::clone(self),
            component: Arc::clone(component),
            addresses,
            arrived,
            number,
            sender: None,
        }
    }

    /// Adds a reply to something that arrived then. It may be nothing.
    pub(crate) fn push(&self, arrived: Instant, write: impl FnOnce(&mut Vec<u8>)) {
        let mut batch = self.lock();
        if !batch.is_open {
            let mut bytes = Vec::new();
            write(&mut bytes);
            if !bytes.is_empty() {
                batch.group.leave([Orphan {
                    bytes,
                    arrived,
                    meters: Arc::clone(&self.meters),
                }]);
            }
            return;
        }
        let start = batch.bytes.len();
        write(&mut batch.bytes);
        let end = batch.bytes.len();
        if end == start {
            return;
        }
        batch.ends.push((end, arrived));
        drop(batch);
        if start == 0 {
            self.filled.notify_one();
        }
    }

    /// Waits for something to write: what the group has to send comes first.
    pub(crate) async fn take(&self) -> Writing<'_> {
        loop {
            let group = {
                let mut batch = self.lock();
                let orphans = batch.group.take(Instant::now());
                if !batch.bytes.is_empty() || !orphans.is_empty() {
                    batch.is_writing = true;
                    // The next batch is likely to be about as large.
                    let (bytes, ends) = (
                        Vec::with_capacity(batch.bytes.len()),
                        Vec::with_capacity(batch.ends.len()),
                    );
                    let mut bytes = mem::replace(&mut batch.bytes, bytes);
                    let ends = mem::replace(&mut batch.ends, ends);
                    self.emptied.notify_waiters();
                    if !orphans.is_empty() {
                        let others: Vec<_> = orphans.iter().map(|orphan| orphan.bytes.as_slice()).collect();
                        bytes = [&others.concat(), bytes.as_slice()].concat();
                    }
                    return Writing {
                        outbox: self,
                        bytes,
                        ends,
                        orphans,
                    };
                }
                Arc::clone(&batch.group)
            };
            tokio::select! {
                () = self.filled.notified() => {}
                () = group.filled.notified() => {}
            }
        }
    }

    /// There is a connection.
    pub(crate) fn open(&self) {
        self.lock().is_open = true;
    }

    /// The connection has ended: what it leaves, and what is due from now on, is the group's to send.
    pub(crate) fn close(&self) {
        let mut batch = self.lock();
        batch.is_open = false;
        let (bytes, ends) = (mem::take(&mut batch.bytes), mem::take(&mut batch.ends));
        batch.group.leave(self.orphans(&bytes, ends));
        drop(batch);
        self.emptied.notify_waiters();
    }

    /// From now on these are the links that may send its replies. What nobody is left to send in the former group comes
    /// along.
    pub(crate) fn join(&self, group: &Arc<Group>) {
        let mut batch = self.lock();
        if Arc::ptr_eq(&batch.group, group) {
            return;
        }
        let former = mem::replace(&mut batch.group, Arc::clone(group));
        group.lock().links += 1;
        group.leave(former.part());
        drop(batch);
        self.filled.notify_one();
    }

    /// The link is gone for good: its replies are sent by others of its group, or by nobody.
    pub(crate) fn end(&self) {
        self.close();
        drop_all(self.lock().group.part());
    }

    /// Drops what came too late to be sent.
    pub(crate) fn drop_late(&self, now: Instant) {
        self.lock().group.drop_late(now);
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

    /// Waits until everything is written, with what the group has to send.
    pub(crate) async fn until_written(&self) {
        while !self.is_written() {
            sleep(SHORT).await;
        }
    }

    /// Waits until every request has its reply, and everything is written.
    pub(crate) async fn until_idle(&self) {
        while self.pending.load(Ordering::Relaxed) > 0 {
            sleep(SHORT).await;
        }
        self.until_written().await;
    }

    fn is_written(&self) -> bool {
        let batch = self.lock();
        batch.bytes.is_empty() && !batch.is_writing && batch.group.lock().replies.is_empty()
    }

    /// What the link counts.
    pub(crate) fn meters(&self) -> &Arc<LinkMeters> {
        &self.meters
    }

    /// These replies of ours, one by one.
    fn orphans(&self, bytes: &[u8], ends: Vec<(usize, Instant)>) -> Vec<Orphan> {
        let mut start = 0;
        let orphan = |(end, arrived)| Orphan {
            bytes: bytes[mem::replace(&mut start, end)..end].to_vec(),
            arrived,
            meters: Arc::clone(&self.meters),
        };
        ends.into_iter().map(orphan).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Batch> {
        lock(&self.batch)
    }
}

impl Group {
    /// Takes replies that their link cannot send.
    fn leave(&self, orphans: impl IntoIterator<Item = Orphan>) {
        let mut left = self.lock();
        left.replies.extend(orphans);
        self.pass_on(left);
    }

    /// Has a link send what there is.
    fn pass_on(&self, mut left: MutexGuard<'_, Left>) {
        if left.links == 0 {
            return drop_all(mem::take(&mut left.replies));
        }
        if !left.replies.is_empty() {
            self.filled.notify_one();
        }
    }

    /// Takes everything that can still be sent.
    fn take(&self, now: Instant) -> VecDeque<Orphan> {
        self.drop_late(now);
        mem::take(&mut self.lock().replies)
    }

    /// Drops what came too late to be sent.
    fn drop_late(&self, now: Instant) {
        let mut left = self.lock();
        let is_late = |orphan: &Orphan| now >= orphan.arrived + WORTH;
        let (late, timely): (VecDeque<_>, _) = mem::take(&mut left.replies).into_iter().partition(is_late);
        left.replies = timely;
        drop_all(late);
    }

    /// A link goes. Returns what nobody is left to send.
    fn part(&self) -> VecDeque<Orphan> {
        let mut left = self.lock();
        left.links -= 1;
        if left.links == 0 {
            mem::take(&mut left.replies)
        } else {
            VecDeque::new()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        lock(&self.left)
    }
}

impl PendingReply {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn arrived(&self) -> Instant {
        self.arrived
    }

    /// It is for a publish of this sender.
    pub(crate) fn with_sender(mut self, sender: Arc<SenderDomain>) -> Self {
        self.sender = Some(sender);
        self
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
        self.component.durations.record(self.arrived.elapsed());
        if let Some(sender) = &self.sender {
            self.component.answers.count(sender, outcome, self.arrived);
        }
        self.write(&reply);
    }

    /// The reply to a publish that came to no push module.
    pub(crate) fn without_module(self, outcome: Outcome, named: Named<'_>) {
        self.component.outcomes.increment(outcome);
        self.published(outcome, named);
    }

    /// The reply to a notification of Push 2.0, if there is anything to say.
    pub(crate) fn notified(self, outcome: Outcome) {
        debug!(publish = self.number, outcome = %outcome.name(), "notified");
        self.component.durations.record(self.arrived.elapsed());
        self.component.notifications.increment(outcome);
        self.write(&Reply::Notified(outcome));
    }

    /// The reply to one that came to no push module.
    pub(crate) fn not_relayed(self, outcome: Outcome) {
        self.component.outcomes.increment(outcome);
        self.notified(outcome);
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

impl Writing<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The server has it.
    pub(crate) fn written(mut self) {
        self.ends.clear();
        self.orphans.clear();
    }
}

impl Drop for Writing<'_> {
    /// What arrived all the same will be repeated; a reply that nobody waits for does no harm.
    fn drop(&mut self) {
        let mut batch = self.outbox.lock();
        batch.is_writing = false;
        let others: usize = self.orphans.iter().map(|orphan| orphan.bytes.len()).sum();
        let own = self
            .outbox
            .orphans(&self.bytes[others..], mem::take(&mut self.ends));
        let mut again = mem::take(&mut self.orphans);
        again.extend(own);
        let mut left = batch.group.lock();
        // They come before what was left meanwhile.
        again.append(&mut left.replies);
        left.replies = again;
        batch.group.pass_on(left);
    }
}

/// Counts replies that nobody sends.
fn drop_all(orphans: impl IntoIterator<Item = Orphan>) {
    for Orphan { meters, .. } in orphans {
        meters.dropped_replies.increment();
    }
}

/// A reply is worth something for this long after its request arrived: ejabberd forgets a request after 32 s.
const WORTH: Duration = Duration::from_secs(25);
/// Above it nothing more is read from the server.
const MAX_BYTES: usize = 8 * 1_024 * 1_024;
/// Between two looks whether everything is written.
const SHORT: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::reply;

    fn outbox(group: &Arc<Group>) -> Arc<Outbox> {
        Outbox::new(Arc::clone(group), Arc::new(LinkMeters::new(reply::counters())))
    }

    fn alone() -> Arc<Outbox> {
        let outbox = outbox(&Arc::default());
        outbox.open();
        outbox
    }

    fn push(outbox: &Outbox, arrived: Instant, text: &str) {
        outbox.push(arrived, |out| out.extend_from_slice(text.as_bytes()));
    }

    fn dropped(outbox: &Outbox) -> u64 {
        outbox.meters().dropped_replies.get()
    }

    /// What there is to write at the moment.
    async fn written(outbox: &Outbox) -> String {
        let Ok(writing) = tokio::time::timeout(Duration::from_millis(1), outbox.take()).await else {
            return String::new();
        };
        let text = String::from_utf8(writing.bytes().to_vec()).unwrap();
        writing.written();
        text
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_written_goes_out_first_over_the_next_connection() {
        let (outbox, now) = (alone(), Instant::now());
        push(&outbox, now, "a");
        let unsent = outbox.take().await;
        push(&outbox, now, "b");
        drop(unsent);
        outbox.close();
        push(&outbox, now, "c");
        outbox.open();
        assert_eq!(written(&outbox).await, "abc");
        outbox.until_written().await;
    }

    #[tokio::test(start_paused = true)]
    async fn late_replies_are_dropped() {
        let (outbox, now) = (alone(), Instant::now());
        outbox.close();
        push(&outbox, now, "early");
        push(&outbox, now + Duration::from_secs(2), "late");
        advance(WORTH + Duration::from_secs(1)).await;
        outbox.open();
        assert_eq!(written(&outbox).await, "late");
        assert_eq!(dropped(&outbox), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_stuck_link_leaves_too_late_is_not_sent_by_another_one() {
        let (group, now) = (Arc::default(), Instant::now());
        let (stuck, other) = (outbox(&group), outbox(&group));
        stuck.open();
        other.open();
        push(&stuck, now, "early");
        let writing = stuck.take().await;
        push(&stuck, now + WORTH, "late");
        advance(WORTH + Duration::from_secs(1)).await;
        drop(writing);
        stuck.close();
        assert_eq!(written(&other).await, "late");
        assert_eq!((dropped(&stuck), dropped(&other)), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn another_link_of_the_group_sends_what_is_left_and_what_comes_later() {
        let (group, now) = (Arc::default(), Instant::now());
        let (one, other) = (outbox(&group), outbox(&group));
        one.open();
        other.open();
        push(&one, now, "a");
        drop(one.take().await);
        assert_eq!(written(&other).await, "a");
        push(&one, now, "b");
        one.close();
        push(&one, now, "c");
        push(&other, now, "d");
        let unsent = other.take().await;
        assert_eq!(unsent.bytes(), b"bcd");
        drop(unsent);
        other.close();
        one.open();
        assert_eq!(written(&one).await, "bcd", "each is whole, and none is lost");
        push(&one, now, "e");
        other.open();
        assert_eq!(written(&other).await, "", "a link that is up sends its own");
        assert_eq!(written(&one).await, "e");
        assert_eq!((dropped(&one), dropped(&other)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_already_is_woken() {
        let group = Arc::default();
        let (one, other) = (outbox(&group), outbox(&group));
        other.open();
        let waiting = tokio::spawn(async move { written(&other).await });
        tokio::task::yield_now().await;
        push(&one, Instant::now(), "a");
        assert_eq!(waiting.await.unwrap(), "a");
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_is_left_to_send_is_dropped_and_counted() {
        let (group, now) = (Arc::default(), Instant::now());
        let (one, other) = (outbox(&group), outbox(&group));
        one.open();
        push(&one, now, "a");
        one.end();
        push(&one, now, "b");
        assert_eq!(dropped(&one), 0, "there is another one");
        other.end();
        push(&one, now, "c");
        push(&other, now, "d");
        assert_eq!((dropped(&one), dropped(&other)), (3, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_joins_another_group_brings_its_replies_along() {
        let now = Instant::now();
        let (one, successor) = (alone(), outbox(&Arc::default()));
        push(&one, now, "a");
        one.close();
        let group = Arc::clone(&successor.lock().group);
        one.join(&group);
        push(&one, now, "b");
        one.end();
        push(&one, now, "c");
        successor.open();
        assert_eq!(written(&successor).await, "abc");
        assert_eq!(dropped(&one), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_being_written_is_not_written_yet() {
        let outbox = alone();
        push(&outbox, Instant::now(), "a");
        let writing = outbox.take().await;
        let waiting = tokio::time::timeout(Duration::from_secs(1), outbox.until_written());
        assert!(waiting.await.is_err());
        writing.written();
        outbox.until_written().await;
    }

    #[tokio::test(start_paused = true)]
    async fn reading_waits_while_the_server_does_not_read() {
        let outbox = alone();
        outbox.wait_for_room().await;
        push(&outbox, Instant::now(), &"x".repeat(MAX_BYTES));
        let waiting = tokio::time::timeout(Duration::from_secs(1), outbox.wait_for_room());
        assert!(waiting.await.is_err());
        outbox.take().await.written();
        outbox.wait_for_room().await;
    }
}
