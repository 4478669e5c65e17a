//! What becomes of a push whose attempts have ended: it is answered, or held and acknowledged when it is written down.

use std::time::Duration;

use fpush_policy::{Busy, Ended, Failed, PushJob, RateSlot, Target};
use fpush_push::Outcome;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use uuid::Uuid;

use super::Module;
use crate::lane::Permit;

impl Module {
    /// What a push comes to whose attempts have ended.
    pub(super) async fn settle(
        &self,
        ended: Ended,
        job: Box<PushJob>,
        slot: RateSlot,
        permit: Option<Permit>,
    ) -> Outcome {
        match ended {
            // Boxed, because few are held: the future of every other push stays small.
            Ended::Busy => Box::pin(self.hold_busy(job, slot, permit)).await,
            Ended::Failed { resume } => Box::pin(self.hold_failed(job, slot, resume, permit)).await,
            Ended::Settled(outcome) => {
                match outcome {
                    Outcome::Accepted if slot.covers().is_some() => self.lock().policy.accepted_with(slot),
                    Outcome::Accepted => {}
                    _ => self.lock().policy.give_back(slot),
                }
                drop(permit);
                outcome
            }
        }
    }

    /// Makes a push whose token is too busy the queued one of its key.
    async fn hold_busy(&self, job: Box<PushJob>, slot: RateSlot, permit: Option<Permit>) -> Outcome {
        let (id, target) = (job.push.id, job.target());
        let (busy, written) = {
            let mut state = self.lock();
            let busy = state.policy.busy(job, slot, Instant::now().into_std());
            (busy, state.write())
        };
        // Not before that: who gets it may be another push to the token.
        drop(permit);
        match busy {
            Busy::Held(number) => self.acknowledge(number, Some(id), written).await,
            Busy::Covered => self.acknowledge_covered(target, written).await,
            Busy::Refused => Outcome::Refused,
        }
    }

    /// Holds a push that got no answer.
    pub(super) async fn hold_failed(
        &self,
        job: Box<PushJob>,
        slot: RateSlot,
        resume: std::time::Instant,
        permit: Option<Permit>,
    ) -> Outcome {
        let (id, target) = (job.push.id, job.target());
        let (failed, written) = {
            let mut state = self.lock();
            let now = Instant::now().into_std();
            let failed = state.policy.failed(job, slot, resume, now);
            (failed, state.write())
        };
        drop(permit);
        match failed {
            Failed::Held(number) => self.acknowledge(number, Some(id), written).await,
            Failed::Covered => self.acknowledge_covered(target, written).await,
            Failed::Refused(outcome) => outcome,
        }
    }

    /// Acknowledges a push for which another one is held, if that is written down: it may have come at the same moment.
    async fn acknowledge_covered(&self, target: Target, written: Option<oneshot::Receiver<bool>>) -> Outcome {
        if let Some(written) = written
            && !self.is_held_for_certain(target, written).await
        {
            return Outcome::Overloaded;
        }
        self.lane.meters.held_covered();
        Outcome::Queued
    }

    /// Acknowledges a publish because a push is held for its key, if that is written down: it may have come a moment before.
    pub(super) async fn acknowledge_coalesced(
        &self,
        target: Target,
        written: oneshot::Receiver<bool>,
    ) -> Outcome {
        if self.is_held_for_certain(target, written).await {
            Outcome::Coalesced
        } else {
            Outcome::Overloaded
        }
    }

    /// Waits until all that was to be written is, and says whether a push is held for this then.
    async fn is_held_for_certain(&self, target: Target, written: oneshot::Receiver<bool>) -> bool {
        let is_written = timeout(LONGEST_WRITE, written).await;
        is_written == Ok(Ok(true)) && self.lock().policy.is_held(target)
    }

    /// Waits until a held push is written down, if it is. What cannot be written down is not acknowledged, and, if it has a
    /// number of its own (`new`), not held either.
    pub(super) async fn acknowledge(
        &self,
        number: u64,
        new: Option<Uuid>,
        written: Option<oneshot::Receiver<bool>>,
    ) -> Outcome {
        self.lane.wake.notify_one();
        let Some(written) = written else {
            return Outcome::Queued;
        };
        match timeout(LONGEST_WRITE, written).await {
            Ok(Ok(true)) => {
                let mut state = self.lock();
                state.policy.written(number);
                state.tell_acknowledged(number);
                Outcome::Queued
            }
            Ok(Ok(false) | Err(_)) => {
                if let Some(id) = new {
                    self.lock().policy.not_written(number, id);
                }
                Outcome::Overloaded
            }
            Err(_) => Outcome::Overloaded,
        }
    }
}

/// A disk that takes longer is too slow to acknowledge anything.
pub(super) const LONGEST_WRITE: Duration = Duration::from_secs(4);
