//! What becomes of a publish: decided at once, and never waits.

use std::sync::Arc;

use fpush_policy::{
    Claim, Decision, End, HoldUntil, Publish, PushJob, SenderDomain, Target, Turn as Decided, Wish,
};
use fpush_push::{Class, Extra, Form, LaneId, Outcome, Push, Registered, Request, Token};
use tokio::{sync::oneshot, time::Instant};
use tracing::warn;
use uuid::Uuid;

use super::{Admission, Admitted, DEADLINE, HeldClaim, Module, TokenRole, Way};
use crate::{
    SharedLane,
    lane::{Life, Permit, Place, State, Turn, Waiter},
};

/// What an admission is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A publish: what cannot be sent now is held.
    Publish,
    /// A push that somebody waits to see: it is sent now, or not at all.
    Test,
}

impl Module {
    /// Decides about a publish. Never waits.
    pub fn admit(self: &Arc<Self>, request: Request<'_>, now: Instant) -> Admission {
        let sender = self.senders.domain(request.domain);
        let to_second = request.voip_token().map(|token| {
            let request = Request { token, ..request };
            self.decide(request, &sender, TokenRole::Second, Purpose::Publish, now)
        });
        let admission = match to_second {
            // The second token does not work: then the phone shows a message.
            None | Some(Admission::Answered(Outcome::TokenBlocked | Outcome::TokenInvalid)) => {
                self.decide(request, &sender, TokenRole::First, Purpose::Publish, now)
            }
            Some(admission) => admission,
        };
        let outcome = match admission {
            Admission::Answered(outcome) => outcome,
            Admission::Admitted(_) => return admission,
        };
        self.lane.meters.outcome(outcome);
        if let Some(token) = self.canonical(request.token) {
            self.note(
                self.fingerprint_as(TokenRole::First, &token),
                End::Answered(outcome),
            );
        }
        Admission::Answered(self.told(outcome))
    }

    pub(super) fn decide(
        self: &Arc<Self>,
        request: Request<'_>,
        sender: &Arc<SenderDomain>,
        role: TokenRole,
        purpose: Purpose,
        now: Instant,
    ) -> Admission {
        let Request {
            token,
            choice,
            urgency,
            count,
            domain: _,
            registered,
        } = request;
        if self.drain.has_begun() {
            return Admission::Answered(Outcome::ShuttingDown);
        }
        let mut state = self.lock();
        if state.life == Life::Ended {
            return Admission::Answered(Outcome::ShuttingDown);
        }
        let Some(token) = state.backend.canonical(token) else {
            return Admission::Answered(Outcome::TokenInvalid);
        };
        if !state.backend.wants(urgency) {
            return Admission::Answered(Outcome::Unwanted);
        }
        let fingerprint = self.fingerprint_as(role, &token);
        if registered.is_some_and(|registered| registered.recipient.home == LaneId::Second) {
            state.policy.hear_home(fingerprint);
        }
        let (lane, elsewhere) = state.lanes_of(&token, fingerprint, self.senders.hasher());
        let class = match role {
            TokenRole::First => state.backend.class(urgency),
            TokenRole::Second => Class::Voip,
        };
        let key = registered.map_or(fingerprint, |registered| {
            self.senders.hasher().device(&registered.recipient.node)
        });
        let target = Target {
            key,
            token: fingerprint,
            class,
        };
        let publish = Publish {
            target,
            lane,
            registered: registered.is_some(),
            spacing: registered.map(|registered| registered.recipient.spacing),
            time_to_live: state.backend.time_to_live(class),
            sender,
        };
        let job = |spacing, encrypted, worth_until| {
            Box::new(PushJob {
                push: Push {
                    token: Token::new(&token),
                    class,
                    form: Form::Full,
                    extra: registered.and_then(|registered| extra(&registered, encrypted, role)),
                    notification: None,
                    count,
                    id: Uuid::new_v4(),
                    deadline: (now + DEADLINE).into_std(),
                },
                token: fingerprint,
                lane,
                elsewhere,
                vendor: None,
                key,
                node: registered.map(|registered| Arc::clone(&registered.recipient.node)),
                choice,
                sender: Arc::clone(sender),
                spacing,
                arrived: now.into_std(),
                worth_until,
                record: registered.map(|registered| Arc::clone(&registered.recipient.record)),
            })
        };
        match state.policy.publish(&publish, now.into_std()) {
            Decision::Answer(outcome) => {
                let written = match (outcome, purpose) {
                    // The one that is held for its key may have come a moment before.
                    (Outcome::Coalesced, Purpose::Publish) => state.write_the_last(),
                    _ => None,
                };
                drop(state);
                if let Some(written) = written {
                    return Admission::Admitted(Admitted {
                        module: Arc::clone(self),
                        way: Way::Coalesced { target, written },
                    });
                }
                if outcome == Outcome::Overloaded {
                    warn!(module = %self.name, "{NO_ROOM}");
                }
                Admission::Answered(outcome)
            }
            Decision::Hold { until, .. } if purpose == Purpose::Test => Admission::Answered(match until {
                HoldUntil::Due(_) => Outcome::Refused,
                HoldUntil::Back => Outcome::ProviderUnavailable,
            }),
            Decision::Hold {
                until,
                spacing,
                encrypted,
                worth_until,
            } => {
                let job = job(spacing, encrypted, worth_until);
                let claim = match until {
                    HoldUntil::Due(due) => claim_to_hold(&mut state, &job, due, now),
                    // Nobody can send it now.
                    HoldUntil::Back => None,
                };
                let held = state.policy.hold(job, until);
                let written = state.write();
                drop(state);
                if held.first {
                    self.lane.wake.notify_one();
                }
                if written.is_none() && claim.is_none() {
                    return Admission::Answered(Outcome::Queued);
                }
                let claim = claim.map(|(claim, shared)| Box::new(HeldClaim { claim, shared }));
                Admission::Admitted(Admitted {
                    module: Arc::clone(self),
                    way: Way::Hold {
                        held,
                        token: fingerprint,
                        written,
                        claim,
                    },
                })
            }
            Decision::Send {
                slot,
                spacing,
                worth_until,
            } => match self.turn(&mut state, lane, sender) {
                Some(turn) => {
                    let job = job(spacing, true, worth_until);
                    let shared = match purpose {
                        Purpose::Publish => shared(&mut state, &job, Wish::Send),
                        // They hear of it when it is accepted.
                        Purpose::Test => None,
                    };
                    Admission::Admitted(self.to_send(job, slot, turn, shared, now))
                }
                None => {
                    state.policy.give_back(slot);
                    drop(state);
                    self.complain_of_crowd(lane);
                    Admission::Answered(Outcome::Overloaded)
                }
            },
        }
    }

    /// A permit, or a place in the queue for one; `None` if it is full.
    pub(super) fn turn(&self, state: &mut State, lane: LaneId, sender: &SenderDomain) -> Option<Turn> {
        let mut receiver = None;
        let waiter = || {
            let (sender, waiting) = oneshot::channel();
            receiver = Some(waiting);
            Waiter { lane, sender }
        };
        match state.policy.take_turn(lane, sender, waiter) {
            Decided::Now => Some(Turn::Now(Permit::new(&self.lane, lane))),
            Decided::Waiting(ticket, displaced) => {
                // It finds out by that.
                drop(displaced);
                let place = receiver.map(|receiver| Place::new(&self.lane, receiver, lane, ticket));
                place.map(|place| Turn::Waiting(Box::new(place)))
            }
            Decided::Full => None,
        }
    }
}

/// What other instances share of the module, if they can be asked now. If they cannot, they are told later what becomes of the
/// push.
fn shared(state: &mut State, job: &PushJob, wish: Wish) -> Option<Arc<dyn SharedLane>> {
    let shared = state.shared.as_ref()?;
    if shared.is_up() {
        return Some(Arc::clone(shared));
    }
    let claim = state.policy.claim(job, wish);
    state.policy.decided_alone(&claim);
    None
}

/// What is asked of other instances about a push that is held for its time, if they can be asked now.
fn claim_to_hold(
    state: &mut State,
    job: &PushJob,
    due: std::time::Instant,
    now: Instant,
) -> Option<(Claim, Arc<dyn SharedLane>)> {
    let wish = Wish::Hold(due.saturating_duration_since(now.into_std()));
    let shared = shared(state, job, wish)?;
    Some((state.policy.claim(job, wish), shared))
}

/// What a push to a registered device carries beside the usual; without what is encrypted unless `encrypted` says so.
fn extra(registered: &Registered<'_>, encrypted: bool, role: TokenRole) -> Option<Arc<Extra>> {
    let extra = Extra {
        account: registered.recipient.account.clone(),
        channel: registered.recipient.channel.clone(),
        encrypted: registered.encrypted.filter(|_| encrypted).cloned(),
        call: role == TokenRole::Second,
    };
    let empty =
        extra.account.is_none() && extra.channel.is_none() && extra.encrypted.is_none() && !extra.call;
    (!empty).then(|| Arc::new(extra))
}

const NO_ROOM: &str = "the hold queue is full; publish refused: does a domain flood, or does the provider throttle many \
    devices?";
