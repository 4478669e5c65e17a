//! What becomes of a publish: decided at once, and never waits.

use std::sync::Arc;

use fpush_policy::{Decision, End, Publish, PushJob, SenderDomain, Target, Turn as Decided, Wish};
use fpush_push::{Class, Extra, Form, Outcome, Push, Registered, Request, Token};
use tokio::{sync::oneshot, time::Instant};
use tracing::warn;
use uuid::Uuid;

use super::{Admission, Admitted, DEADLINE, HeldClaim, Module, Step, TokenRole};
use crate::{
    SharedLane,
    lane::{Life, Permit, Place, State, Turn},
};

impl Module {
    /// Decides about a publish. Never waits.
    pub fn admit(self: &Arc<Self>, request: Request<'_>, now: Instant) -> Admission {
        let sender = self.senders.domain(request.domain);
        let to_second = request.voip_token().map(|token| {
            let request = Request { token, ..request };
            self.decide(request, &sender, TokenRole::Second, now)
        });
        let admission = match to_second {
            // The second token does not work: then the phone shows a message.
            None | Some(Admission::Answered(Outcome::TokenBlocked | Outcome::TokenInvalid)) => {
                self.decide(request, &sender, TokenRole::First, now)
            }
            Some(admission) => admission,
        };
        if let Admission::Answered(outcome) = admission {
            self.meters.outcome(outcome);
            if let Some(token) = self.canonical(request.token) {
                self.note(
                    self.fingerprint_as(TokenRole::First, &token),
                    End::Answered(outcome),
                );
            }
        }
        admission
    }

    fn decide(
        self: &Arc<Self>,
        request: Request<'_>,
        sender: &Arc<SenderDomain>,
        role: TokenRole,
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
            registered: registered.is_some(),
            spacing: registered.map(|registered| registered.recipient.spacing),
            sender,
        };
        let job = |spacing, encrypted| {
            Box::new(PushJob {
                push: Push {
                    token: Token::new(&token),
                    class,
                    form: Form::Full,
                    extra: registered.and_then(|registered| extra(&registered, encrypted, role)),
                    count,
                    id: Uuid::new_v4(),
                    deadline: (now + DEADLINE).into_std(),
                },
                token: fingerprint,
                key,
                node: registered.map(|registered| Arc::clone(&registered.recipient.node)),
                choice,
                sender: Arc::clone(sender),
                spacing,
                record: registered.map(|registered| Arc::clone(&registered.recipient.record)),
            })
        };
        match state.policy.publish(&publish, now.into_std()) {
            Decision::Answer(outcome) => {
                drop(state);
                if outcome == Outcome::Overloaded {
                    warn!(module = %self.name, "{NO_ROOM}");
                }
                Admission::Answered(outcome)
            }
            Decision::Hold {
                due,
                spacing,
                encrypted,
            } => {
                let job = job(spacing, encrypted);
                let wish = Wish::Hold(due - now.into_std());
                let shared = shared(&mut state, &job, wish);
                let claim = shared.as_ref().map(|_| state.policy.claim(&job, wish));
                let first = state.policy.hold(job, due);
                let number = state.policy.last_held();
                drop(state);
                if first {
                    self.lane.wake.notify_one();
                }
                match claim {
                    None => Admission::Answered(Outcome::Queued),
                    Some(claim) => Admission::Admitted(Admitted {
                        module: Arc::clone(self),
                        token: fingerprint,
                        step: Step::Hold(Box::new(HeldClaim { number, claim })),
                        shared,
                        arrived: now,
                    }),
                }
            }
            Decision::Send { slot, spacing } => match self.turn(&mut state, sender) {
                Some(turn) => {
                    let job = job(spacing, true);
                    let shared = shared(&mut state, &job, Wish::Send);
                    Admission::Admitted(Admitted {
                        module: Arc::clone(self),
                        token: fingerprint,
                        step: Step::Send { job, slot, turn },
                        shared,
                        arrived: now,
                    })
                }
                None => {
                    state.policy.give_back(slot);
                    drop(state);
                    self.complain_of_crowd();
                    Admission::Answered(Outcome::Overloaded)
                }
            },
        }
    }

    /// A permit, or a place in the queue for one; `None` if it is full.
    fn turn(&self, state: &mut State, sender: &SenderDomain) -> Option<Turn> {
        let mut receiver = None;
        let waiter = || {
            let (waiter, waiting) = oneshot::channel();
            receiver = Some(waiting);
            waiter
        };
        match state.policy.take_turn(sender, waiter) {
            Decided::Now => Some(Turn::Now(Permit::new(&self.lane))),
            Decided::Waiting(ticket, displaced) => {
                // It finds out by that.
                drop(displaced);
                let place = receiver.map(|receiver| Place::new(&self.lane, receiver, ticket));
                place.map(|place| Turn::Waiting(Box::new(place)))
            }
            Decided::Full => None,
        }
    }
}

/// What other instances share of the module, if they can be asked now. If they cannot, they are told later what becomes of the
/// push.
fn shared(state: &mut State, job: &PushJob, wish: Wish) -> Option<Arc<dyn SharedLane>> {
    let shared = state.shared.clone()?;
    if shared.is_up() {
        return Some(shared);
    }
    let claim = state.policy.claim(job, wish);
    state.policy.decided_alone(&claim);
    shared.tell(state.policy.take_outbox());
    None
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
