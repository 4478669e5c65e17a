//! Held pushes: they are sent when their time has come, and all at once when the daemon is about to stop.

use std::{collections::HashSet, sync::Arc, time::Duration};

use fpush_policy::{Ended, HeldAttempt, HeldEnd, HeldRecord, Policy, PushJob, Tries, Unsent};
use fpush_push::{Fingerprint, Form, Outcome};
use tokio::{
    task::yield_now,
    time::{Instant, sleep, sleep_until},
};

use super::{DEADLINE, Module, delay_at_random};
use crate::{
    Probe,
    clock::clocks,
    lane::{Granted, Life, Permit, Waiter},
};

impl Module {
    /// Sends held pushes when their time has come, and all of them at once when the daemon is about to stop.
    /// Ends when none is left after that, or after the module has retired.
    pub async fn run(self: Arc<Self>, mut probe: Probe) {
        loop {
            let now = Instant::now().into_std();
            let (more, wanted) = {
                let mut state = self.lock();
                let more = state.policy.make_due(now);
                (more, state.policy.take_wanted())
            };
            self.read(wanted);
            self.lane.grant();
            self.start_granted();
            if more {
                yield_now().await;
                continue;
            }
            let (timer, retired) = {
                let mut state = self.lock();
                state.timer = state.policy.next_timer(now);
                (state.timer, state.life == Life::Retired)
            };
            tokio::select! {
                biased;
                () = self.drain.until_begun() => break,
                // Only who got through the loop, and had the lock above, is well.
                () = probe.asked() => probe.answer(),
                () = self.lane.wake.notified() => {}
                () = sleep_until_some(timer.map(Instant::from_std)) => {}
                () = sleep(RETIRING), if retired => {
                    if self.has_come_to_its_end() {
                        return;
                    }
                }
            }
        }
        // The end is bounded by the shutdown itself.
        drop(probe);
        let keeps = self.lock().store.is_some();
        self.lock().policy.begin_end(keeps, Instant::now().into_std());
        self.lane.grant();
        self.start_granted();
        while self.lock().policy.has_due(Instant::now().into_std()) {
            if self.drain.run(self.lane.wake.notified()).await.is_none() {
                return self.give_up();
            }
            self.start_granted();
        }
    }

    /// All patience has ended: nothing more is let out. What is left in the hold queue counts as under way, and what has
    /// left it without an attempt is counted here, because nothing comes after this.
    fn give_up(&self) {
        self.lock().life = Life::Ended;
        while let Some(granted) = self.lane.granted() {
            match granted {
                Granted::Attempt(_, permit) => drop(permit),
                Granted::Ended(token, end) => self.held_has_ended(token, end),
            }
        }
    }

    /// Starts what was granted. One that is granted later wakes [`run`](Self::run).
    fn start_granted(self: &Arc<Self>) {
        while let Some(granted) = self.lane.granted() {
            match granted {
                Granted::Attempt(attempt, permit) => {
                    self.drain.spawn(Arc::clone(self).deliver_held(attempt, permit));
                }
                Granted::Ended(token, end) => self.held_has_ended(token, end),
            }
        }
    }

    /// Makes one attempt for a held push. Where its failure would lose the push, because the daemon is about to stop, it
    /// tries again and again instead.
    async fn deliver_held(self: Arc<Self>, attempt: HeldAttempt, permit: Permit) {
        let HeldAttempt {
            number,
            mut job,
            mut slot,
            attempts,
            is_probe,
        } = attempt;
        let mut permit = Some(permit);
        delay_at_random().await;
        let now = Instant::now();
        job.push.form = Form::Full;
        job.ask_anew();
        let patience = if is_probe { PROBE } else { DEADLINE };
        job.push.deadline = (now + patience).into_std();
        let mut tries = Tries::new(now.into_std(), attempts);
        let claimed = match self.shared() {
            Some(shared) => Box::pin(self.claim_held(&*shared, &job, slot)).await,
            None => Ok(slot),
        };
        let ended = match claimed {
            Ok(claimed) => {
                slot = claimed;
                Ok(self
                    .attempts_for_held(number, &mut job, &mut tries, &mut permit)
                    .await)
            }
            Err(unsent) => Err(unsent),
        };
        let now = Instant::now().into_std();
        let mut state = self.lock();
        let end = match ended {
            Ok(ended) | Err(Unsent::Ended(ended)) => state.policy.held_ended(number, slot, &ended, now),
            Err(Unsent::Later(until)) => state.policy.held_waits(number, slot, until, now),
            Err(Unsent::Taken) => Some(state.policy.held_taken(number, slot, now)),
        };
        if end == Some(HeldEnd::Delivered) {
            state.tell_delivered(&job);
        }
        drop(state);
        // Only then another one may go out.
        drop(permit);
        if let Some(end) = end {
            self.held_has_ended(job.token, end);
        }
        // Its time may come before that of all others, and one that was a probe lets others go.
        self.lane.wake.notify_one();
    }

    async fn attempts_for_held(
        &self,
        number: u64,
        job: &mut PushJob,
        tries: &mut Tries,
        permit: &mut Option<Permit>,
    ) -> Ended {
        let ended = self.attempts(job, tries, permit, Some(number)).await;
        if !matches!(ended, Ended::Failed { .. }) || !self.lock().policy.is_last_chance() {
            return ended;
        }
        let patience = (Instant::now() + DEADLINE).into_std();
        job.push.deadline = patience;
        let mut tries = Tries::new(patience, 0);
        self.attempts(job, &mut tries, permit, Some(number)).await
    }

    /// Reads held pushes whose turn is near.
    fn read(self: &Arc<Self>, numbers: Vec<u64>) {
        let store = self.lock().store.clone();
        let Some(store) = store.filter(|_| !numbers.is_empty()) else {
            return;
        };
        let (module, reading) = (Arc::clone(self), store.read(numbers.clone()));
        self.drain.spawn(async move {
            // At the end they stay where they are.
            let Some(read) = module.drain.run(reading).await else {
                return;
            };
            let records = read.unwrap_or_default();
            let readable: HashSet<_> = records.iter().map(|(number, _)| *number).collect();
            module.have_read(records);
            let unreadable: Vec<_> = numbers
                .into_iter()
                .filter(|number| !readable.contains(number))
                .collect();
            if unreadable.is_empty() {
                return;
            }
            module.drain.run(sleep(READ_AGAIN)).await;
            let mut state = module.lock();
            unreadable
                .iter()
                .for_each(|number| state.policy.not_loaded(*number));
            drop(state);
            module.lane.wake.notify_one();
        });
    }

    fn have_read(&self, records: Vec<(u64, Option<HeldRecord>)>) {
        let clocks = clocks();
        for (number, record) in records {
            let job = record.and_then(|record| {
                let recipient = self.recipient(&record)?;
                let hasher = self.senders.hasher();
                Some(Policy::<Waiter>::job_of(record, recipient, hasher, clocks))
            });
            self.lock().policy.loaded(number, job, clocks.now);
        }
        self.lane.grant();
    }

    /// Counts how an acknowledged push ended.
    pub(super) fn held_has_ended(&self, token: Fingerprint, end: HeldEnd) {
        self.lock().has_ended(token, end);
    }

    pub(super) fn lose(&self, token: Fingerprint, outcome: Outcome) {
        self.held_has_ended(token, HeldEnd::Lost(outcome));
    }

    /// Ends a retired module that holds nothing. A push under way may be held yet.
    fn has_come_to_its_end(&self) -> bool {
        let mut state = self.lock();
        let idle = state.life == Life::Retired && state.policy.is_idle();
        if idle {
            state.life = Life::Ended;
        }
        idle
    }
}

async fn sleep_until_some(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// For a held push that finds out whether the provider is back.
const PROBE: Duration = Duration::from_secs(10);
/// After what could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Between two looks whether a retired module has nothing left to do.
const RETIRING: Duration = Duration::from_secs(1);
