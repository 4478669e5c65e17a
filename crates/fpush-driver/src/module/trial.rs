//! Pushes that somebody wants to see arrive: the operator, past all rules, or a user, by those of every publish. What the
//! provider says of them counts for nobody: not against a token, and not against the module. Only one of the operator's that is
//! accepted proves that the module works.

use std::{sync::Arc, time::Duration};

use fpush_policy::{Elsewhere, SenderDomain};
use fpush_push::{
    Class, Delivery, Failure, Form, LaneId, Outcome, Push, PushError, PushTrait, Request, Token, Urgency,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Admission, Admitted, DEADLINE, Module, TokenRole, Way, admit::Purpose};
use crate::lane::{Permit, Turn};

/// Why a push that somebody wanted to see was not taken.
#[derive(Debug)]
pub enum NotSent {
    /// It was not sent.
    Answered(Outcome),
    /// The provider did not accept it.
    Refused(Failure),
}

/// What became of such a push, in words for persons, with what a script goes by.
#[derive(Debug, PartialEq, Eq)]
pub struct Words {
    /// The outcome by its name in metrics, or `not_accepted`.
    pub outcome: &'static str,
    /// The provider's reason by its own name, if it refused the push.
    pub reason: Option<&'static str>,
    /// What happened.
    pub said: String,
    /// What that means.
    pub meaning: &'static str,
    /// What to look at next.
    pub advice: &'static str,
}

impl Words {
    /// The words for what became of a push.
    #[must_use]
    pub fn of(result: &Result<Class, NotSent>) -> Self {
        let of_outcome = |outcome: Outcome, said| Self {
            outcome: outcome.name(),
            reason: None,
            said,
            meaning: outcome.meaning(),
            advice: outcome.advice(),
        };
        match result {
            Ok(class) => {
                let said = format!("the provider accepted the push ({})", class.words());
                of_outcome(Outcome::Accepted, said)
            }
            Err(NotSent::Answered(Outcome::TokenInvalid)) => {
                let said = "not sent: this cannot be a token of its provider".to_owned();
                of_outcome(Outcome::TokenInvalid, said)
            }
            Err(NotSent::Answered(outcome)) => of_outcome(*outcome, "the push was not sent".to_owned()),
            Err(NotSent::Refused(failure)) => Self {
                outcome: "not_accepted",
                reason: Some(failure.reason),
                said: format!("the provider did not accept the push: {}", failure.answer),
                meaning: failure.meaning,
                advice: failure.error.advice(),
            },
        }
    }
}

impl Module {
    /// Sends one push because the operator wants it: once, at once, past rate limit and block list, and without
    /// a trace in them. Returns the class that the push had. One that is accepted shows that the module works.
    ///
    /// # Errors
    ///
    /// The token cannot be one of the provider's, or the provider did not accept the push.
    pub async fn try_out(&self, token: &str, urgency: Urgency) -> Result<Class, NotSent> {
        let (backend, generation) = {
            let state = self.lock();
            (Arc::clone(&state.backend), state.policy.generation())
        };
        let token = backend.canonical(token);
        let token = token.ok_or(NotSent::Answered(Outcome::TokenInvalid))?;
        let class = backend.class(urgency);
        let push = Push {
            token: Token::new(&token),
            class,
            form: Form::Full,
            extra: None,
            notification: None,
            count: None,
            id: Uuid::new_v4(),
            deadline: (Instant::now() + DEADLINE).into_std(),
        };
        let fingerprint = self.fingerprint(&token);
        let lane = self.lock().lanes_of(&token, fingerprint, self.senders.hasher());
        let lane = self.attempt_alone(&*backend, lane, push, None).await?;
        let now = Instant::now().into_std();
        let mut state = self.lock();
        state.policy.tried(lane, generation, now);
        // Whatever was said against it before: it is alive.
        state.policy.unblock(fingerprint);
        drop(state);
        // What is held may find out at once.
        self.lane.wake.notify_one();
        Ok(class)
    }

    /// Sends one push because a user wants to see it: admitted as a publish of the same sender would be, with its turn and its
    /// window of the rate limit, but tried once, and never held. Returns the class that the push had.
    ///
    /// # Errors
    ///
    /// It was not admitted, or the provider did not accept it.
    pub async fn test(self: &Arc<Self>, request: Request<'_>, now: Instant) -> Result<Class, NotSent> {
        match self.delivery {
            Delivery::Real => {}
            Delivery::Shadow => return Err(NotSent::Answered(Outcome::Unwanted)),
        }
        let sender = self.senders.domain(request.domain);
        let way = match self.decide(request, &sender, TokenRole::First, Purpose::Test, now) {
            Admission::Answered(outcome) => return Err(NotSent::Answered(outcome)),
            Admission::Admitted(Admitted { way, .. }) => way,
        };
        let Way::Send { job, slot, turn, .. } = way else {
            return Err(NotSent::Answered(Outcome::Queued));
        };
        let permit = match turn {
            Turn::Now(permit) => Some(permit),
            Turn::Waiting(place) => self.wait_for_permit(*place, slot, now).await,
        };
        let Some(permit) = permit else {
            return Err(NotSent::Answered(Outcome::Overloaded));
        };
        let (lanes, mut push, turn) = ((job.lane, job.elsewhere), job.push, Some((permit, &*sender)));
        push.deadline = push.deadline.min((Instant::now() + PATIENCE).into_std());
        let (backend, class) = (self.backend(), push.class);
        let tried = self.attempt_alone(&*backend, lanes, push, turn).await;
        let now = Instant::now().into_std();
        let mut state = self.lock();
        match &tried {
            Ok(_) => state.policy.accepted_alone(slot, now),
            Err(_) => state.policy.give_back(slot),
        }
        drop(state);
        tried.map(|_lane| class)
    }

    /// Makes the attempts for a push of which the policy hears nothing. One that has taken a turn takes another one where it
    /// goes on in another lane. Returns the lane in which it was accepted.
    async fn attempt_alone(
        &self,
        backend: &dyn PushTrait,
        (mut lane, elsewhere): (LaneId, Elsewhere),
        mut push: Push,
        mut turn: Option<(Permit, &SenderDomain)>,
    ) -> Result<LaneId, NotSent> {
        let mut again = MAX_RECONNECTS;
        let mut other = match elsewhere {
            Elsewhere::Unasked => lane.other(),
            Elsewhere::Nowhere | Elsewhere::Asked { .. } => None,
        };
        loop {
            let start = Instant::now();
            let Some(result) = self.drain.run(backend.send_in(lane, &push)).await else {
                return Err(NotSent::Answered(Outcome::ShuttingDown));
            };
            self.count_attempt(start, &result, backend.vendor(lane));
            let Err(failure) = result else {
                return Ok(lane);
            };
            match failure.error {
                PushError::Reconnected | PushError::Renewed if again > 0 => again -= 1,
                PushError::TooLarge if push.form == Form::Full => push.form = Form::Minimal,
                PushError::TokenGone { .. } | PushError::TokenDoubted | PushError::TokenOfAnotherApp
                    if let Some(second) = other.take() =>
                {
                    lane = second;
                    if let Some((permit, sender)) = turn.take() {
                        drop(permit);
                        let permit = self.take_turn(lane, sender).await;
                        let permit = permit.ok_or(NotSent::Answered(Outcome::Overloaded))?;
                        turn = Some((permit, sender));
                    }
                }
                PushError::TokenGone { .. }
                | PushError::TokenDoubted
                | PushError::TokenOfAnotherApp
                | PushError::TokenBusy
                | PushError::Crowded
                | PushError::TooMany { .. }
                | PushError::TokenUnserved
                | PushError::Reconnected
                | PushError::Renewed
                | PushError::TooLarge
                | PushError::Later { .. }
                | PushError::HostAway { .. }
                | PushError::Pause { .. }
                | PushError::Misconfigured
                | PushError::Unexplained => return Err(NotSent::Refused(failure)),
            }
        }
    }
}

/// How long a user's push may take: clients wait for half a minute, some of them for less.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often such a push tries again at once because its connection broke.
const MAX_RECONNECTS: u32 = 2;
