//! What is held here and what other instances held: it is told to them, and taken over from them.
//!
//! A module does so where what it holds is written down: that is the truth, and what the others know of it is for the time when
//! this instance is gone. The rules are those of the crate that keeps it for all (`fpush-cluster/held.rs`).

use std::{collections::HashSet, sync::Arc, time::Duration};

use fpush_policy::{HeldChange, HeldNews, HeldRecord, PushJob, SharedPush, TakenOver};
use fpush_push::{Delivery, Outcome};
use tokio::{
    task::{JoinHandle, yield_now},
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{Module, settle::LONGEST_WRITE};
use crate::{
    SharedLane,
    clock::clocks,
    lane::{Life, State},
};

/// What is told to other instances of what is held.
#[derive(Default)]
pub(crate) struct Takeover {
    /// The task that tells and takes.
    task: Option<JoinHandle<()>>,
    /// All that is held has been told since that was last wanted.
    is_told: bool,
    /// Whatever has changed since a part of all began to be read, by number: what was read of it is not told, or not believed.
    changed: Option<HashSet<u64>>,
}

impl Takeover {
    /// Ends the task.
    pub(super) fn stop(self) {
        if let Some(task) = self.task {
            task.abort();
        }
    }
}

impl State {
    /// Tells other instances what has changed of what is held.
    pub(crate) fn tell_held(&mut self, changes: &[HeldChange]) {
        let Some(shared) = self.shared.as_ref().filter(|_| !changes.is_empty()) else {
            return;
        };
        if self.store.is_none() {
            return;
        }
        let clocks = clocks();
        let mut news = Vec::with_capacity(changes.len());
        for change in changes {
            let number = match change {
                // The others have its time from when its body was in memory last.
                HeldChange::Extended(..) | HeldChange::Jumped(_) => continue,
                HeldChange::Gone(number) => {
                    news.push(HeldNews::Gone(*number));
                    *number
                }
                HeldChange::Put(number, record) => {
                    let key = self.policy.key_of(*number);
                    let push = key.and_then(|key| SharedPush::of(record.clone(), key, clocks));
                    news.extend(push.map(|push| HeldNews::Put(*number, push)));
                    *number
                }
            };
            if let Some(changed) = &mut self.takeover.changed {
                changed.insert(number);
            }
        }
        if !news.is_empty() {
            shared.tell_held(news);
        }
    }

    /// Tells other instances that a held push is acknowledged.
    pub(crate) fn tell_acknowledged(&self, number: u64) {
        if let Some(shared) = self.shared.as_ref().filter(|_| self.store.is_some()) {
            shared.tell_held(vec![HeldNews::Acknowledged(number)]);
        }
    }

    /// Tells other instances that the provider has accepted a held push.
    pub(crate) fn tell_delivered(&self, job: &PushJob) {
        if let Some(shared) = self.shared.as_ref().filter(|_| self.store.is_some()) {
            let delivered = HeldNews::Delivered(job.target().slot_key(), job.push.id);
            shared.tell_held(vec![delivered]);
        }
    }

    /// What is held from before the start may have been taken over: it waits until the others were asked, but not for long.
    pub(crate) fn ask_others_first(&mut self) {
        if self.shared.is_some() && self.store.is_some() && self.policy.held() > 0 {
            let until = Instant::now() + LONGEST_QUESTION;
            self.policy.ask_others_first(Some(until.into_std()));
        }
    }
}

impl Module {
    /// Tells the others what is held, and takes over what one held that is gone. To be called once a second.
    pub(super) fn exchange_held(self: &Arc<Self>, shared: &Arc<dyn SharedLane>) {
        let mut state = self.lock();
        let is_running = |task: &JoinHandle<()>| !task.is_finished();
        if state.store.is_none()
            || self.delivery != Delivery::Real
            || self.drain.has_begun()
            || state.takeover.task.as_ref().is_some_and(is_running)
        {
            return;
        }
        if shared.wants_held() {
            state.takeover.is_told = false;
        }
        let exchanging = Arc::clone(self).tell_and_take(Arc::clone(shared));
        state.takeover.task = Some(tokio::spawn(exchanging));
    }

    async fn tell_and_take(self: Arc<Self>, shared: Arc<dyn SharedLane>) {
        if !self.lock().takeover.is_told && shared.is_up() {
            let is_told = self.tell_all_held(&*shared).await;
            let mut state = self.lock();
            state.takeover.is_told = is_told;
            if is_told {
                state.policy.ask_others_first(None);
                drop(state);
                self.lane.wake.notify_one();
            }
        }
        loop {
            let (most, told) = {
                let state = self.lock();
                let may =
                    state.life == Life::Wanted && state.takeover.is_told && state.policy.may_take_over();
                (if may { TAKEN_AT_A_TIME } else { 0 }, state.takeover.is_told)
            };
            let Some(taken) = shared.take_held(most, told).await else {
                return;
            };
            self.lane.meters.sent_twice(taken.sent_twice);
            self.take_over(&*shared, taken.taken_over, "an instance that is gone", |count| {
                self.lane.meters.took_over(count);
            })
            .await;
            self.take_over(
                &*shared,
                taken.handed_over,
                "an instance that was stopped",
                |count| {
                    self.lane.meters.handed_over(count);
                },
            )
            .await;
            if !taken.more || self.drain.has_begun() {
                return;
            }
            yield_now().await;
        }
    }

    /// Tells all that is held, part by part. Returns whether that was possible.
    async fn tell_all_held(&self, shared: &dyn SharedLane) -> bool {
        let mut from = 0;
        loop {
            let reading = {
                let mut state = self.lock();
                state.takeover.changed = Some(HashSet::new());
                state
                    .store
                    .as_ref()
                    .map(|store| store.read_part(from, TOLD_AT_A_TIME))
            };
            let read = match reading {
                Some(reading) => timeout(PATIENCE, reading).await,
                None => return false,
            };
            let Ok(Ok(records)) = read else {
                return false;
            };
            let is_last = records.len() < TOLD_AT_A_TIME;
            from = records.last().map_or(from, |(number, _)| number + 1);
            let (pushes, asking) = {
                let mut state = self.lock();
                let changed = state.takeover.changed.replace(HashSet::new()).unwrap_or_default();
                let unchanged = records
                    .into_iter()
                    .filter(|(number, _)| !changed.contains(number));
                let pushes: Vec<_> = unchanged
                    .filter_map(|(number, record)| Some((number, self.shared_push(&state, record)?)))
                    .collect();
                let names: Vec<_> = pushes
                    .iter()
                    .map(|(number, push)| (*number, push.key, push.id))
                    .collect();
                let news = pushes
                    .into_iter()
                    .map(|(number, push)| HeldNews::Put(number, push));
                // What changes from now on is told after it.
                (names, shared.tell_held_again(news.collect()))
            };
            let Ok(taken) = asking.await else {
                self.lock().takeover.changed = None;
                return false;
            };
            let taken: HashSet<_> = taken.into_iter().collect();
            {
                let mut state = self.lock();
                let changed = state.takeover.changed.take().unwrap_or_default();
                for (number, key, id) in pushes {
                    if taken.contains(&number) && !changed.contains(&number) {
                        state.policy.taken_over(number, key, id);
                    }
                }
            }
            if is_last {
                return true;
            }
            yield_now().await;
        }
    }

    fn shared_push(&self, state: &State, record: HeldRecord) -> Option<SharedPush> {
        let token = state.backend.canonical(record.token())?;
        let hasher = self.senders.hasher();
        let key = record.slot_key(&token, hasher);
        SharedPush::of(Box::new(record), key, clocks())
    }

    /// Holds what another instance held.
    async fn take_over(
        &self,
        shared: &dyn SharedLane,
        pushes: Vec<SharedPush>,
        from: &'static str,
        count: impl FnOnce(u64),
    ) {
        if pushes.is_empty() {
            return;
        }
        let (clocks, all) = (clocks(), pushes.len());
        let (mut dismissed, mut covered) = (Vec::new(), Vec::new());
        for push in pushes {
            let (id, record) = (push.id, push.into_record(clocks));
            match self.take_over_one(record.clone()) {
                Some(TakenOver::Held) => {}
                Some(TakenOver::Covered) => covered.push((id, record)),
                Some(TakenOver::Expired) | None => dismissed.push(HeldNews::Dismissed(id)),
            }
        }
        if !covered.is_empty() {
            // What covers it may not be acknowledged yet, and goes if it cannot be written down.
            let written = self.lock().write();
            let is_written = match written {
                Some(written) => timeout(LONGEST_WRITE, written).await == Ok(Ok(true)),
                None => true,
            };
            if !is_written {
                sleep(LONGEST_WRITE).await;
            }
            for (id, record) in covered {
                match self.take_over_one(record) {
                    Some(TakenOver::Held) => {}
                    Some(TakenOver::Covered) => {
                        self.lane.meters.held_covered();
                        dismissed.push(HeldNews::Dismissed(id));
                    }
                    Some(TakenOver::Expired) | None => dismissed.push(HeldNews::Dismissed(id)),
                }
            }
        }
        if !dismissed.is_empty() {
            shared.tell_held(dismissed);
        }
        count(all as u64);
        self.lane.wake.notify_one();
        info!(module = %self.name, pushes = all, "took over held pushes from {from}");
    }

    /// `None` for what cannot be sent.
    fn take_over_one(&self, record: HeldRecord) -> Option<TakenOver> {
        let Some(recipient) = self.recipient(&record) else {
            self.lose(self.fingerprint(record.token()), Outcome::TokenInvalid);
            return None;
        };
        let fingerprint = self.fingerprint(recipient.token.as_str());
        let hasher = self.senders.hasher();
        let taken = self.lock().policy.take_over(record, recipient, hasher, clocks());
        if taken == TakenOver::Expired {
            self.lose(fingerprint, Outcome::ProviderUnavailable);
        }
        Some(taken)
    }

    /// Hands over what is held, because this instance ends. Nothing is to be sent after that.
    pub async fn hand_over(&self) {
        let shared = {
            let mut state = self.lock();
            std::mem::take(&mut state.takeover).stop();
            state.shared.clone().filter(|_| state.store.is_some())
        };
        let held = self.held();
        if let Some(shared) = shared.filter(|_| self.delivery == Delivery::Real)
            && !shared.hand_over().await
            && held > 0
        {
            warn!(module = %self.name, held,
                "held pushes could not be handed over at once: another instance sends what it was told when it finds that this one is gone");
        }
    }
}

/// So many are told at a time.
const TOLD_AT_A_TIME: usize = 500;
/// So many are taken over at a time.
const TAKEN_AT_A_TIME: usize = 100;
/// For the disk.
const PATIENCE: Duration = Duration::from_secs(10);
/// After the start what is held from before waits for so long at most until the others were asked.
const LONGEST_QUESTION: Duration = Duration::from_secs(15);
