//! What becomes of a notification of Push 2.0: decided at once, and never waits. Nothing of it is held, and other instances
//! are not asked: it stands for no other push.

use std::{sync::Arc, time::Duration};

use fpush_policy::{PushJob, Target};
use fpush_push::{
    Choice, Class, Extra, Form, LaneId, Notification, Outcome, Priority, Push, Receiver, Token,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Admission, DEADLINE, Module, TokenRole};
use crate::lane::Life;

impl Module {
    /// Whom the `<client>` of a notification means here; `None` if nothing may be sent to it from here.
    #[must_use]
    pub fn receiver(&self, client: &str, call: bool) -> Option<Receiver> {
        self.backend().receiver(client, call)
    }

    /// Decides about a notification. Never waits.
    pub fn notify(
        self: &Arc<Self>,
        receiver: &Receiver,
        notification: &Arc<Notification>,
        domain: &str,
        now: Instant,
    ) -> Admission {
        match self.decide_to_notify(receiver, notification, domain, now) {
            Admission::Answered(outcome) => {
                self.lane.meters.outcome(outcome);
                Admission::Answered(self.told(outcome))
            }
            admitted @ Admission::Admitted(_) => admitted,
        }
    }

    fn decide_to_notify(
        self: &Arc<Self>,
        receiver: &Receiver,
        notification: &Arc<Notification>,
        domain: &str,
        now: Instant,
    ) -> Admission {
        let Receiver { token, call } = receiver;
        let sender = self.senders.domain(domain);
        if self.drain.has_begun() {
            return Admission::Answered(Outcome::ShuttingDown);
        }
        let mut state = self.lock();
        if state.life == Life::Ended {
            return Admission::Answered(Outcome::ShuttingDown);
        }
        let role = if *call {
            TokenRole::Second
        } else {
            TokenRole::First
        };
        let fingerprint = self.fingerprint_as(role, token);
        let (lane, elsewhere) = state.lanes_of(token, fingerprint, self.senders.hasher());
        let vendor = match lane {
            LaneId::Vendor(vendor) => Some(vendor),
            LaneId::Main | LaneId::Second | LaneId::Origin(_) => None,
        };
        let lane = lane.of_sender(sender.share);
        let own = fingerprint.of_sender(sender.share);
        let target = Target {
            // No queued push stands for it, and it for none.
            key: own,
            token: match lane {
                LaneId::Main | LaneId::Second => fingerprint,
                LaneId::Vendor(_) | LaneId::Origin(_) => own,
            },
            class: class(notification, *call),
        };
        let slot = match state.policy.notify(target, lane, now.into_std()) {
            Ok(slot) => slot,
            Err(outcome) => return Admission::Answered(outcome),
        };
        let Some(turn) = self.turn(&mut state, lane, &sender) else {
            state.policy.give_back(slot);
            drop(state);
            self.complain_of_crowd(lane);
            return Admission::Answered(Outcome::Overloaded);
        };
        let extra = Extra {
            account: None,
            channel: None,
            encrypted: None,
            call: true,
        };
        let job = Box::new(PushJob {
            push: Push {
                token: Token::new(token),
                class: target.class,
                form: Form::Full,
                extra: call.then(|| Arc::new(extra)),
                notification: Some(Arc::clone(notification)),
                count: None,
                id: Uuid::new_v4(),
                deadline: (now + DEADLINE).into_std(),
            },
            token: target.token,
            lane,
            elsewhere,
            vendor,
            key: target.key,
            node: None,
            choice: Choice::Named,
            sender,
            spacing: Duration::ZERO,
            arrived: now.into_std(),
            worth_until: None,
            record: None,
        });
        Admission::Admitted(self.to_send(job, slot, turn, None, now))
    }
}

/// The class that it has everywhere: what it carries is the sender's business, and how much that matters as well.
fn class(notification: &Notification, call: bool) -> Class {
    match notification.priority {
        _ if call => Class::Voip,
        Priority::High | Priority::Normal => Class::High,
        Priority::Low => Class::Low,
    }
}
