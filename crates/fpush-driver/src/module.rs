//! One push module: carries out what the policy decides about its pushes.

mod admit;
mod attempts;
mod held;
mod inspect;
mod notify;
mod proof;
mod remember;
mod settle;
mod shared;
mod status;
mod takeover;
#[cfg(test)]
mod tests;
mod trial;

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use fpush_policy::{
    BlockRecord, Clocks, End, Held, HomeRecord, ModuleSettings, Policy, PushJob, RateSlot, Target, Tries,
    VerdictPlace, VerdictRecord,
};
use fpush_push::{Class, Delivery, Failure, Fingerprint, LaneId, Meters, Outcome, PushTrait, TokenFlaw};
use tokio::{sync::oneshot, time::Instant};
use tracing::warn;

use crate::{
    Drain, Senders, SharedLane,
    clock::clocks,
    lane::{Lane, Life, Locked, Permit, Place, Turn},
};

use self::shared::HeldClaim;
pub(crate) use self::takeover::Takeover;
pub use self::{
    inspect::{Block, Home, TokenRole, TokenView},
    trial::{NotSent, Words},
};

/// What becomes of a publish.
#[derive(Debug)]
pub enum Admission {
    /// There is nothing left to do but to reply.
    Answered(Outcome),
    /// It goes to the provider: [`Admitted::deliver`] knows the outcome when it is done.
    Admitted(Admitted),
}

/// A push that was admitted, by the module that sends or holds it.
pub struct Admitted {
    module: Arc<Module>,
    way: Way,
}

/// What is left to do for a push that was admitted.
enum Way {
    Send {
        job: Box<PushJob>,
        slot: RateSlot,
        turn: Turn,
        /// What other instances share of the module, if they can be asked.
        shared: Option<Arc<dyn SharedLane>>,
        arrived: Instant,
    },
    /// It is held, and acknowledged when it is written down, where it is, and the other instances want it.
    Hold {
        held: Held,
        token: Fingerprint,
        written: Option<oneshot::Receiver<bool>>,
        claim: Option<Box<HeldClaim>>,
    },
    /// It is acknowledged because another one is held for its key, as soon as that is written down.
    Coalesced {
        target: Target,
        written: oneshot::Receiver<bool>,
    },
}

/// One push module.
pub struct Module {
    name: Box<str>,
    senders: Senders,
    drain: Drain,
    /// It stays what it is: with another one it is another module.
    delivery: Delivery,
    lane: Arc<Lane>,
}

impl Module {
    /// A module in front of a backend.
    #[must_use]
    pub fn new(
        name: &str,
        backend: Box<dyn PushTrait>,
        settings: ModuleSettings,
        senders: Senders,
        drain: Drain,
    ) -> Arc<Self> {
        let delivery = settings.delivery;
        let mut policy = Policy::new(settings, backend.digest(), clocks());
        policy.set_ramp(backend.ramp());
        Arc::new(Self {
            name: name.into(),
            senders,
            drain,
            delivery,
            lane: Lane::new(name, policy, backend.into()),
        })
    }

    /// Goes on with another backend and other settings. Attempts under way end on the old backend; what the rate
    /// limit and the block list know, and what is held, stays. What the provider said against tokens stays where nothing
    /// has changed that this depends on.
    pub fn replace(&self, backend: Box<dyn PushTrait>, settings: ModuleSettings) {
        let mut state = self.lock();
        let now = Instant::now().into_std();
        state.policy.configure(settings, backend.digest(), now);
        state.policy.set_ramp(backend.ramp());
        state.backend = backend.into();
        drop(state);
        // It may have ended a pause, and there may be more permits.
        self.lane.wake.notify_one();
        self.lane.grant();
    }

    /// Ends the module, to which no more publishes may come: [`run`](Self::run) sends what is held when its time has
    /// come, and returns when nothing is left.
    pub fn retire(&self) {
        self.lock().life = Life::Retired;
        self.lane.wake.notify_one();
    }

    /// Takes [`retire`](Self::retire) back. Returns whether it was not too late for that.
    pub fn resume(&self) -> bool {
        let mut state = self.lock();
        if state.life == Life::Ended {
            return false;
        }
        state.life = Life::Wanted;
        true
    }

    /// Whether a retired module has nothing left to do.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.lock().life == Life::Ended
    }

    /// Whether its pushes go out.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// The name by which publishes mean this module.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many pushes were acknowledged and could not be delivered after all.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lane.meters.lost()
    }

    /// What it counts.
    #[must_use]
    pub fn meters(&self) -> &Arc<Meters> {
        &self.lane.meters
    }

    /// How many acknowledged pushes are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.lock().policy.held()
    }

    /// How often the block list, what is known of the provider's words, and where tokens are at home, have changed so far.
    #[must_use]
    pub fn changes(&self) -> [u64; 3] {
        self.lock().policy.changes()
    }

    /// A part of what is known of the provider's words about tokens, to be written down; see [`Policy::verdicts`].
    #[must_use]
    pub fn verdicts(&self, from: VerdictPlace, clocks: Clocks) -> (Vec<VerdictRecord>, Option<VerdictPlace>) {
        self.lock().policy.verdicts(from, clocks.now)
    }

    /// Follows the wall clock. To be called once a second.
    pub fn follow_clock(&self, clocks: Clocks) {
        self.lock().policy.follow_clock(clocks);
    }

    /// A part of the block list, to be written down; see [`Policy::blocks`].
    #[must_use]
    pub fn blocks(&self, from: usize, clocks: Clocks) -> (Vec<BlockRecord>, Option<usize>) {
        self.lock().policy.blocks(from, clocks)
    }

    /// A part of what was learnt of where tokens are at home, to be written down; see [`Policy::homes`].
    #[must_use]
    pub fn homes(&self, from: usize) -> (Vec<HomeRecord>, Option<usize>) {
        self.lock().policy.homes(from)
    }

    /// The one spelling of a token of the module's provider; `None` for what cannot be one.
    #[must_use]
    pub fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
        self.backend().canonical(token)
    }

    /// What is wrong with a text that cannot be a token of the module's provider.
    #[must_use]
    pub fn flaw(&self, token: &str) -> TokenFlaw {
        self.backend().flaw(token)
    }

    /// The public key with which apps have to subscribe at their push service (VAPID), if there is one.
    #[must_use]
    pub fn vapid_key(&self) -> Option<String> {
        self.backend().vapid_key().map(str::to_owned)
    }

    /// The hash by which the log names a token.
    #[must_use]
    pub fn fingerprint(&self, token: &str) -> Fingerprint {
        self.fingerprint_as(TokenRole::First, token)
    }

    /// Anybody can register anybody's token as a second one: what is said of it as such is not a word against it as a first one.
    fn fingerprint_as(&self, role: TokenRole, token: &str) -> Fingerprint {
        let fingerprint = self.senders.hasher().fingerprint(token);
        match role {
            TokenRole::First => fingerprint,
            TokenRole::Second => fingerprint.with_class(Class::Voip),
        }
    }

    /// Whether a text has the form of the provider's tokens. Where every text is a token, none has their form.
    #[must_use]
    pub fn knows_form_of(&self, text: &str) -> bool {
        let backend = self.backend();
        backend.canonical(text).is_some() && backend.canonical("?").is_none()
    }

    /// Forgets what it holds against a token: its device has registered anew.
    pub fn unblock(&self, token: &str) {
        if let Some(token) = self.canonical(token) {
            for role in [TokenRole::First, TokenRole::Second] {
                let fingerprint = self.fingerprint_as(role, &token);
                let mut state = self.lock();
                state.policy.unblock(fingerprint);
            }
        }
    }

    /// A push that is to be sent, after others are asked who share the module.
    fn to_send(
        self: &Arc<Self>,
        job: Box<PushJob>,
        slot: RateSlot,
        turn: Turn,
        shared: Option<Arc<dyn SharedLane>>,
        arrived: Instant,
    ) -> Admitted {
        Admitted {
            module: Arc::clone(self),
            way: Way::Send {
                job,
                slot,
                turn,
                shared,
                arrived,
            },
        }
    }

    /// Waits for a permit; gives the slot back if there is none in time.
    async fn wait_for_permit(&self, place: Place, slot: RateSlot, arrived: Instant) -> Option<Permit> {
        let permit = self.drain.run(place.permit(arrived)).await.flatten();
        if permit.is_none() {
            self.lock().policy.give_back(slot);
        }
        permit
    }

    /// What the sender is told of an outcome. Of a shadow nothing: another one wakes the devices.
    fn told(&self, outcome: Outcome) -> Outcome {
        match self.delivery {
            Delivery::Real => outcome,
            Delivery::Shadow => Outcome::Unwanted,
        }
    }

    /// For an operator who asks later why the phone got no push.
    fn note(&self, token: Fingerprint, end: End) {
        self.lock().policy.note(token, end, Instant::now().into_std());
    }

    /// In one place, so that it is one kind of problem.
    fn complain_of_crowd(&self, lane: LaneId) {
        // How fast a stranger's server is, or how many there are, is nobody's trouble but theirs.
        if !lane.is_strangers() {
            warn!(module = %self.name, "{CROWDED}");
        }
    }

    /// Counts an attempt that has ended now. Returns when that is.
    fn count_attempt(
        &self,
        start: Instant,
        result: &Result<(), Failure>,
        vendor: Option<&'static str>,
    ) -> Instant {
        let end = Instant::now();
        let refused = result.as_ref().err().map(|failure| failure.reason);
        self.lane
            .meters
            .attempt(end.duration_since(start), refused, vendor);
        end
    }

    fn backend(&self) -> Arc<dyn PushTrait> {
        Arc::clone(&self.lock().backend)
    }

    fn lock(&self) -> Locked<'_> {
        self.lane.lock()
    }
}

impl Admitted {
    /// Sends the push: waits for a permit for 5 s at most, then tries until the provider gave its answer or 25 s are
    /// over since the publish arrived. What got no answer is held, if the settings say so, and so is what cannot be sent now:
    /// then this waits until it is written down.
    pub async fn deliver(self) -> Outcome {
        let Self { module, way } = self;
        let (token, outcome) = match way {
            Way::Hold {
                held,
                token,
                written,
                claim,
            } => (token, Box::pin(module.hold(held, written, claim)).await),
            Way::Coalesced { target, written } => {
                let outcome = Box::pin(module.acknowledge_coalesced(target, written)).await;
                (target.token, outcome)
            }
            Way::Send {
                job,
                slot,
                turn,
                shared,
                arrived,
            } => (job.token, module.send(job, slot, turn, shared, arrived).await),
        };
        module.lane.meters.outcome(outcome);
        let told = module.told(outcome);
        match (outcome, told) {
            // The policy has taken note of it when it heard of it.
            (Outcome::Accepted, Outcome::Accepted) => {}
            (Outcome::Accepted, _) => module.note(token, End::Answered(told)),
            _ => module.note(token, End::Answered(outcome)),
        }
        told
    }
}

impl Module {
    /// Sends a push: claims it where others share the module, waits for a permit, makes the attempts.
    async fn send(
        self: &Arc<Self>,
        job: Box<PushJob>,
        slot: RateSlot,
        turn: Turn,
        shared: Option<Arc<dyn SharedLane>>,
        arrived: Instant,
    ) -> Outcome {
        let (mut job, slot, turn) = match shared {
            None => (job, slot, turn),
            // Boxed, so that the future of a push without others stays small.
            Some(shared) => match Box::pin(self.claim(&*shared, job, slot, turn)).await {
                Ok(claimed) => claimed,
                Err(outcome) => return outcome,
            },
        };
        let permit = match turn {
            Turn::Now(permit) => Some(permit),
            // Boxed, because few wait: the future of every other push stays small.
            Turn::Waiting(place) => Box::pin(self.wait_for_permit(*place, slot, arrived)).await,
        };
        let mut permit = permit;
        if permit.is_none() {
            let now = Instant::now().into_std();
            if self.lock().policy.is_down(job.lane, now) {
                return Box::pin(self.hold_failed(job, slot, now, None)).await;
            }
            if !self.drain.has_begun() {
                self.complain_of_crowd(job.lane);
            }
            return Outcome::Overloaded;
        }
        delay_at_random().await;
        let mut tries = Tries::new(job.push.deadline, 0);
        let ended = self.attempts(&mut job, &mut tries, &mut permit, None).await;
        self.settle(ended, job, slot, permit).await
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted").finish_non_exhaustive()
    }
}

/// With the feature `random_delay_before_push`: up to 50 ms, which spreads pushes that arrive together.
async fn delay_at_random() {
    #[cfg(feature = "random_delay_before_push")]
    tokio::time::sleep(Duration::from_millis(50).mul_f64(fpush_push::jitter())).await;
}

/// A reply is due this long after its publish; ejabberd forgets the publish after 32 s.
const DEADLINE: Duration = Duration::from_secs(25);
const CROWDED: &str = "overloaded: publishes arrive faster than the provider accepts them; some were refused: is the provider \
    slow, does a domain flood, or is maxInFlight too small?";
