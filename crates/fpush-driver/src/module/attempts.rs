//! The attempts for one push, and what a person hears of them.

use std::sync::Arc;

use fpush_policy::{Ended, HeldEnd, LaneChange, Next, Notice, PushJob, SenderDomain, Tries};
use fpush_push::{Delivery, Failure, LaneId, Outcome, PushError, Unavailable, jitter};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, error, info, warn};

use super::{Module, status};
use crate::lane::{Permit, Turn};

impl Module {
    /// Tries until there is an answer, or until the policy gives up. Another permit takes the place of this one where the push
    /// has to go on in another lane; none if it got none there. `held` is the number of a held push.
    pub(super) async fn attempts(
        &self,
        job: &mut PushJob,
        tries: &mut Tries,
        permit: &mut Option<Permit>,
        held: Option<u64>,
    ) -> Ended {
        match self.delivery {
            Delivery::Real => {}
            // The policy hears of no answer: nobody said anything of provider, token, device or domain.
            Delivery::Shadow => return Ended::Settled(Outcome::Accepted),
        }
        loop {
            let start = Instant::now();
            let (backend, generation) = {
                let mut state = self.lock();
                let (deadline, now) = (job.push.deadline, start.into_std());
                if let Err(resume) = state.policy.may_attempt(job.lane, tries, deadline, now) {
                    return Ended::Failed { resume };
                }
                (Arc::clone(&state.backend), state.policy.generation())
            };
            let Some(result) = self.drain.run(backend.send_in(job.lane, &job.push)).await else {
                return Ended::Failed {
                    resume: Instant::now().into_std(),
                };
            };
            // What is not kept while it waits makes the future of a push no larger.
            let vendor = backend.vendor(job.vendor.map_or(job.lane, LaneId::Vendor));
            match self.hear(job, tries, start, generation, result, vendor) {
                Next::Again => {}
                // Boxed, because few do: the future of every other push stays small.
                Next::Elsewhere => {
                    if let Err(resume) = Box::pin(self.go_on_elsewhere(job, tries, permit, held)).await {
                        return Ended::Failed { resume };
                    }
                }
                Next::After { resume } => {
                    let pause = sleep_until(resume.into());
                    if self.drain.run(Box::pin(pause)).await.is_none() {
                        return Ended::Failed { resume };
                    }
                }
                // Boxed likewise.
                Next::Dead { since } => return Ended::Settled(Box::pin(self.mark_dead(job, since)).await),
                Next::Ended(ended) => return ended,
            }
        }
    }

    /// Gives the permit back and takes a turn in the lane that the push is in now: how slow that one is, is nothing to the
    /// first one.
    ///
    /// # Errors
    ///
    /// There is none in time: when to try again.
    async fn go_on_elsewhere(
        &self,
        job: &PushJob,
        tries: &mut Tries,
        permit: &mut Option<Permit>,
        held: Option<u64>,
    ) -> Result<(), std::time::Instant> {
        if let Some(number) = held {
            let now = Instant::now().into_std();
            self.lock().policy.held_moved(number, job, now);
        }
        *permit = None;
        *permit = self.take_turn(job.lane, &job.sender).await;
        match permit {
            Some(_) => Ok(()),
            None => Err(tries.no_permit(Instant::now().into_std(), jitter())),
        }
    }

    /// Takes a turn in a lane, for a push that had one in another.
    pub(super) async fn take_turn(&self, lane: LaneId, sender: &SenderDomain) -> Option<Permit> {
        let turn = self.turn(&mut self.lock(), lane, sender)?;
        match turn {
            Turn::Now(permit) => Some(permit),
            Turn::Waiting(place) => self.drain.run(place.permit(Instant::now())).await.flatten(),
        }
    }

    /// Hears an answer: counts it, and says what is to be done next.
    fn hear(
        &self,
        job: &mut PushJob,
        tries: &mut Tries,
        start: Instant,
        generation: u64,
        result: Result<(), Failure>,
        vendor: Option<&'static str>,
    ) -> Next {
        let now = self.count_attempt(start, &result, vendor);
        self.log_answer(job, &result);
        let (answered, is_current) = {
            let mut state = self.lock();
            let is_current = generation == state.policy.generation();
            let jitter = if result.is_ok() { 0.0 } else { jitter() };
            let (answer, now) = (result.as_ref().copied(), now.into_std());
            let answered = state.policy.answered(job, tries, answer, generation, now, jitter);
            (answered, is_current)
        };
        match (&job.record, &result) {
            (Some(record), Ok(())) => record.delivered(job.lane),
            (Some(record), Err(_)) if is_current => record.failed(),
            (Some(_), Err(_)) | (None, _) => {}
        }
        // A stranger's own server accepts whatever it likes: that proves nothing of who publishes.
        if result.is_ok() && !job.lane.is_strangers() {
            self.senders.note_accepted(&job.sender);
        }
        if let Some(notice) = answered.notice {
            self.tell(notice, result.as_ref().err());
        }
        self.count_word(&answered.next, &result);
        answered.next
    }

    fn log_answer(&self, job: &PushJob, result: &Result<(), Failure>) {
        let (token, class) = (job.token, job.push.class);
        match result {
            Ok(()) => debug!(module = %self.name, %token, ?class, "push accepted"),
            Err(failure) => debug!(module = %self.name, %token, ?class, todo = ?failure.error,
                answer = %failure.answer, "push failed"),
        }
    }

    fn count_word(&self, next: &Next, result: &Result<(), Failure>) {
        let is_word = |failure: &Failure| {
            matches!(
                failure.error,
                PushError::TokenGone { .. } | PushError::TokenDoubted | PushError::TokenOfAnotherApp
            )
        };
        if !matches!(next, Next::Again | Next::Elsewhere) && result.as_ref().is_err_and(is_word) {
            // A token that is dead already is as dead as one that is taken for it now.
            let is_believed = matches!(
                next,
                Next::Dead { .. } | Next::Ended(Ended::Settled(Outcome::TokenDead))
            );
            self.lane.meters.rejected(is_believed);
        }
    }

    /// Takes a token for dead, unless its device has registered since it died: that is for the database to say, which
    /// has as long as the reply.
    async fn mark_dead(&self, job: &PushJob, since: Option<u64>) -> Outcome {
        if let Err(outcome) = self.claim_death(job).await {
            return outcome;
        }
        let ended = match &job.record {
            None => Ok(true),
            Some(record) => {
                let asking = timeout_at(job.push.deadline.into(), record.gone(since));
                match self.drain.run(asking).await {
                    Some(Ok(answer)) => answer,
                    Some(Err(_)) | None => Err(Unavailable),
                }
            }
        };
        let now = Instant::now().into_std();
        let (outcome, dropped) = self.lock().policy.registry_said(job, ended, now);
        for _ in 0..dropped {
            self.held_has_ended(job.token, HeldEnd::Dropped);
        }
        outcome
    }

    /// Says what a person should hear.
    fn tell(&self, notice: Notice, failure: Option<&Failure>) {
        let (module, answer) = (&self.name, failure.map_or("", |failure| &*failure.answer));
        let meaning = failure.map_or("", |failure| failure.meaning);
        match notice {
            Notice::Lane(LaneChange::BurstBegan) => {
                self.lane.meters.burst();
                error!(%module, answer, meaning, "{}", status::REJECTS_TOO_MANY);
            }
            Notice::Lane(LaneChange::NothingAccepted) => {
                warn!(%module, answer, meaning, "{}", status::ACCEPTS_NOTHING);
            }
            Notice::Lane(LaneChange::BurstEnded) => {
                info!(%module, "the provider accepts pushes again, and rejects no more tokens than usual");
            }
            Notice::TooLarge => error!(%module, answer, meaning,
                "the push is too large for the provider; sending the minimal form"),
            Notice::Paused { length, alarm } => {
                let seconds = length.as_secs();
                if alarm {
                    error!(%module, answer, meaning, seconds, "the provider refuses this module's credentials or settings: \
                        correct them; the module pauses, and no device is unregistered meanwhile");
                } else {
                    warn!(%module, answer, meaning, seconds, "throttled by the provider; pausing this module");
                }
            }
            Notice::KeyRefused => {
                error!(%module, answer, meaning, "a push service refuses the key of this module for several \
                subscriptions, and has accepted none since: check the key, the clock and the subject; no device is unregistered \
                over it");
            }
            Notice::Unknown => {
                error!(%module, answer, meaning, "the provider gave an answer that is not known");
            }
            Notice::Unserved => warn!(%module, answer, meaning,
                "the provider cannot reach this token's platform; the token is left alone for a while"),
            Notice::Refused => error!(%module, answer, meaning,
                "the provider refuses the request; check the settings of this module"),
            Notice::NotTaken => warn!(%module, answer, meaning, "the provider did not take a push"),
        }
    }
}
