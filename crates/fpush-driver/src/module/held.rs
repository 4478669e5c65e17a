//! Held pushes: they are sent when their time has come, and all at once when the daemon is about to stop.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use fpush_policy::{End, Ended, HeldAttempt, HeldEnd, Tries};
use fpush_push::{Fingerprint, Form, Outcome};
use tokio::{
    task::yield_now,
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, warn};

use super::{DEADLINE, Module, delay_at_random, shared::tell_others};
use crate::{
    Probe,
    lane::{Granted, Life, Permit},
};

impl Module {
    /// Sends held pushes when their time has come, and all of them at once when the daemon is about to stop.
    /// Ends when none is left after that, or after the module has retired.
    pub async fn run(self: Arc<Self>, mut probe: Probe) {
        loop {
            let now = Instant::now().into_std();
            let more = self.lock().policy.make_due(now);
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
        let keeps = self.keeps.load(Ordering::Relaxed);
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
        } = attempt;
        delay_at_random().await;
        let now = Instant::now();
        job.push.form = Form::Full;
        job.push.deadline = (now + DEADLINE).into_std();
        let mut tries = Tries::new(now.into_std(), attempts);
        let mut unclaimed = None;
        if let Some(shared) = self.shared() {
            match Box::pin(self.claim_held(&*shared, &job, slot)).await {
                Ok(claimed) => slot = claimed,
                Err(ended) => unclaimed = Some(ended),
            }
        }
        let mut ended = match unclaimed {
            Some(ended) => ended,
            None => self.attempts(&mut job, &mut tries).await,
        };
        if matches!(ended, Ended::Failed { .. }) && self.lock().policy.is_last_chance() {
            let patience = (Instant::now() + DEADLINE).into_std();
            job.push.deadline = patience;
            ended = self.attempts(&mut job, &mut Tries::new(patience, 0)).await;
        }
        drop(permit);
        let now = Instant::now().into_std();
        let mut state = self.lock();
        let end = state.policy.held_ended(number, slot, &ended, now);
        tell_others(state);
        match end {
            Some(end) => self.held_has_ended(job.token, end),
            // Its time may come before that of all others.
            None => self.lane.wake.notify_one(),
        }
    }

    /// Counts how an acknowledged push ended.
    pub(super) fn held_has_ended(&self, token: Fingerprint, end: HeldEnd) {
        match end {
            HeldEnd::Delivered => {
                self.meters.held_delivered();
                self.note(token, End::Delivered);
            }
            HeldEnd::Dropped => {
                self.meters.held_dropped();
                self.note(token, End::Dropped);
                debug!(module = %self.name, %token, "queued push dropped: the token is dead");
            }
            HeldEnd::Covered => self.meters.held_covered(),
            HeldEnd::Lost(outcome) => self.lose(token, outcome),
        }
    }

    pub(super) fn lose(&self, token: Fingerprint, outcome: Outcome) {
        self.meters.held_lost();
        self.note(token, End::Lost);
        warn!(module = %self.name, %token, outcome = outcome.name(),
            "an acknowledged push could not be delivered");
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

/// Between two looks whether a retired module has nothing left to do.
const RETIRING: Duration = Duration::from_secs(1);
