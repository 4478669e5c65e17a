//! What the module and other instances tell each other.

use std::sync::Arc;

use fpush_policy::{Claim, Confirmed, Held, PushJob, RateSlot, SharedPlace, Unsent, Wish};
use fpush_push::Outcome;
use tokio::{
    sync::oneshot,
    task::{JoinHandle, yield_now},
    time::Instant,
};

use super::Module;
use crate::{Cluster, SharedLane, lane::Turn};

/// What a publish that is held here wants of other instances.
pub(super) struct HeldClaim {
    pub(super) claim: Claim,
    pub(super) shared: Arc<dyn SharedLane>,
}

impl Module {
    /// From now on the module shares what it knows with other instances, or with none.
    pub fn share(&self, cluster: Option<&dyn Cluster>) {
        let mut state = self.lock();
        state.policy.share(cluster.is_some());
        let digest = state.backend.digest();
        for task in [state.hearing.take(), state.telling.take()].into_iter().flatten() {
            task.abort();
        }
        let takeover = std::mem::take(&mut state.takeover);
        takeover.stop();
        let before = state.shared.take();
        state.shared = cluster.map(|cluster| cluster.lane(&self.name, digest, before.as_deref()));
        if before.is_none() {
            state.ask_others_first();
        }
    }

    /// Goes on under the key of fingerprints that the other instances have.
    pub fn rekey(&self) {
        let now = Instant::now().into_std();
        self.lock().policy.rekey(self.senders.hasher(), now);
    }

    /// What other instances share of this module.
    pub(super) fn shared(&self) -> Option<Arc<dyn SharedLane>> {
        self.lock().shared.clone()
    }

    /// Hears what other instances have told, and tells them what they do not know yet. To be called once a second.
    pub fn exchange(self: &Arc<Self>) {
        let Some(shared) = self.shared() else {
            return;
        };
        let is_heard = self.hear_part(&*shared);
        self.exchange_held(&shared);
        let mut state = self.lock();
        let is_hearing = |task: &JoinHandle<()>| !task.is_finished();
        if !is_heard && !state.hearing.as_ref().is_some_and(is_hearing) {
            let hearing = Arc::clone(self).hear_all(Arc::clone(&shared));
            state.hearing = Some(tokio::spawn(hearing));
        }
        if shared.wants_all() {
            // What that one has not told yet, this one tells.
            if let Some(before) = state.telling.take() {
                before.abort();
            }
            state.telling = Some(tokio::spawn(Arc::clone(self).tell_all(shared)));
        }
    }

    /// Hears a part of what other instances have told. Returns whether that was all.
    fn hear_part(&self, shared: &dyn SharedLane) -> bool {
        let (news, now) = (shared.news(NEWS_AT_A_TIME), Instant::now().into_std());
        let is_all = news.len() < NEWS_AT_A_TIME;
        let mut state = self.lock();
        let timer = state.policy.next_timer(now);
        for news in news {
            state.policy.hear(news, now);
        }
        // A pause may have ended.
        if state.policy.next_timer(now) != timer {
            self.lane.wake.notify_one();
        }
        is_all
    }

    /// Hears all of it, part by part.
    async fn hear_all(self: Arc<Self>, shared: Arc<dyn SharedLane>) {
        while !self.hear_part(&*shared) {
            yield_now().await;
        }
    }

    /// Tells other instances all that is known here, part by part.
    async fn tell_all(self: Arc<Self>, shared: Arc<dyn SharedLane>) {
        let mut place = Some(SharedPlace::default());
        while let Some(from) = place {
            let now = Instant::now().into_std();
            let (part, next) = self.lock().policy.shared_part(from, now);
            if !part.is_empty() {
                shared.tell_all(part).await;
            }
            place = next;
            yield_now().await;
        }
    }

    /// Claims a publish that this instance would send.
    pub(super) async fn claim(
        &self,
        shared: &dyn SharedLane,
        job: Box<PushJob>,
        slot: RateSlot,
        turn: Turn,
    ) -> Result<(Box<PushJob>, RateSlot, Turn), Outcome> {
        let claim = self.lock().policy.claim(&job, Wish::Send);
        let Some(claimed) = shared.claim(claim).await else {
            self.lock().policy.decided_alone(&claim);
            return Ok((job, slot, turn));
        };
        let (confirmed, written) = {
            let now = Instant::now().into_std();
            let mut state = self.lock();
            let confirmed = state.policy.claimed(job, slot, claimed, now);
            let is_held = matches!(confirmed, Confirmed::Held(_));
            let written = if is_held { state.write() } else { None };
            (confirmed, written)
        };
        match confirmed {
            Confirmed::Send(job, slot) => Ok((job, slot, turn)),
            Confirmed::Answer(outcome) => Err(outcome),
            Confirmed::Held(held) => {
                drop(turn);
                Err(self.acknowledge(held.number, held.new, written).await)
            }
            Confirmed::Paused(job, slot, resume) => {
                drop(turn);
                Err(self.hold_failed(job, slot, resume, None).await)
            }
        }
    }

    /// Acknowledges a publish that is held already, if the other instances want it.
    pub(super) async fn hold(
        &self,
        held: Held,
        written: Option<oneshot::Receiver<bool>>,
        claim: Option<Box<HeldClaim>>,
    ) -> Outcome {
        let Held { number, new, .. } = held;
        if let Some(claim) = claim {
            let HeldClaim { claim, shared } = *claim;
            let id = claim.id;
            match shared.claim(claim).await {
                Some(claimed) => {
                    let now = Instant::now().into_std();
                    let outcome = self.lock().policy.claimed_to_hold(number, id, claimed, now);
                    if outcome != Outcome::Queued {
                        return outcome;
                    }
                }
                None => self.lock().policy.decided_alone(&claim),
            }
        }
        self.acknowledge(number, new, written).await
    }

    /// Claims a held push whose time has come.
    pub(super) async fn claim_held(
        &self,
        shared: &dyn SharedLane,
        job: &PushJob,
        slot: RateSlot,
    ) -> Result<RateSlot, Unsent> {
        let claim = self.lock().policy.claim(job, Wish::SendHeld);
        let claimed = if shared.is_up() {
            shared.claim(claim).await
        } else {
            None
        };
        let Some(claimed) = claimed else {
            self.lock().policy.decided_alone(&claim);
            return Ok(slot);
        };
        let now = Instant::now().into_std();
        self.lock().policy.claimed_held(job, slot, claimed, now)
    }

    /// Asks the others before a token is taken for dead: how many may be in an incident is for all of them.
    pub(super) async fn claim_death(&self, job: &PushJob) -> Result<(), Outcome> {
        let (shared, deaths) = {
            let mut state = self.lock();
            match (state.shared.clone(), state.policy.deaths(job.lane)) {
                (Some(shared), Some(deaths)) => (shared, deaths),
                // What a stranger's server says of its own receivers has no bound.
                (None, _) | (_, None) => return Ok(()),
            }
        };
        let claimed = self.drain.run(shared.claim_death(deaths)).await.flatten();
        let now = Instant::now().into_std();
        let mut state = self.lock();
        state.policy.death_claimed(job, claimed, now)
    }
}

/// So many are heard at a time, in less than a millisecond.
const NEWS_AT_A_TIME: usize = 500;
