//! What becomes of a push whose attempts have ended: it is answered, or held and acknowledged when it is written down.

use std::time::Duration;

use fpush_policy::{Busy, Ended, Failed, PushJob, RateSlot};
use fpush_push::Outcome;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::Module;
use crate::lane::Permit;

impl Module {
    /// What a push comes to whose attempts have ended.
    pub(super) async fn settle(
        &self,
        ended: Ended,
        job: Box<PushJob>,
        slot: RateSlot,
        permit: Permit,
    ) -> Outcome {
        match ended {
            // Boxed, because few are held: the future of every other push stays small.
            Ended::Busy => Box::pin(self.hold_busy(job, slot, permit)).await,
            Ended::Failed { resume } => Box::pin(self.hold_failed(job, slot, resume, Some(permit))).await,
            Ended::Settled(outcome) => {
                if outcome != Outcome::Accepted {
                    self.lock().policy.give_back(slot);
                }
                drop(permit);
                outcome
            }
        }
    }

    /// Makes a push whose token is too busy the queued one of its key.
    async fn hold_busy(&self, job: Box<PushJob>, slot: RateSlot, permit: Permit) -> Outcome {
        let (busy, written) = {
            let mut state = self.lock();
            let busy = state.policy.busy(job, slot, Instant::now().into_std());
            (busy, state.write())
        };
        // Not before that: who gets it may be another push to the token.
        drop(permit);
        match busy {
            Busy::Held(number) => self.acknowledge(number, true, written).await,
            Busy::Covered => {
                self.lane.meters.held_covered();
                Outcome::Queued
            }
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
        let (failed, written) = {
            let mut state = self.lock();
            let now = Instant::now().into_std();
            let failed = state.policy.failed(job, slot, resume, now);
            (failed, state.write())
        };
        drop(permit);
        match failed {
            Failed::Held(number) => self.acknowledge(number, true, written).await,
            Failed::Covered => {
                self.lane.meters.held_covered();
                Outcome::Queued
            }
            Failed::Refused(outcome) => outcome,
        }
    }

    /// Waits until a held push is written down, if it is. What cannot be written down is not acknowledged, and not held
    /// either, unless an older push has its number.
    pub(super) async fn acknowledge(
        &self,
        number: u64,
        is_new: bool,
        written: Option<oneshot::Receiver<bool>>,
    ) -> Outcome {
        self.lane.wake.notify_one();
        let Some(written) = written else {
            return Outcome::Queued;
        };
        match timeout(LONGEST_WRITE, written).await {
            Ok(Ok(true)) => {
                self.lock().policy.written(number);
                Outcome::Queued
            }
            Ok(Ok(false) | Err(_)) => {
                if is_new {
                    self.lock().policy.not_written(number);
                }
                Outcome::Overloaded
            }
            Err(_) => Outcome::Overloaded,
        }
    }
}

/// A disk that takes longer is too slow to acknowledge anything.
const LONGEST_WRITE: Duration = Duration::from_secs(4);
