//! What the pushes of a module share, and the permits to have one at the provider.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fpush_policy::{Grant, HeldAttempt, HeldEnd, Policy, Ticket};
use fpush_push::{Fingerprint, PushTrait, sync::lock};
use tokio::{
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::SharedLane;

/// What the pushes of a module share.
pub(crate) struct Lane {
    state: Mutex<State>,
    /// What is granted to held pushes, and how some of them ended, for [`Module::run`](crate::Module::run).
    granted: Mutex<VecDeque<Granted>>,
    /// Wakes [`Module::run`](crate::Module::run): something was granted, a held push is due before all others, or the
    /// module is to end.
    pub(crate) wake: Notify,
}

pub(crate) struct State {
    pub(crate) policy: Policy<Waiter>,
    /// Another one takes its place when the settings change; attempts under way end on the one that they began on.
    pub(crate) backend: Arc<dyn PushTrait>,
    /// What other instances share of this module, if there are any.
    pub(crate) shared: Option<Arc<dyn SharedLane>>,
    /// The tasks that hear what they have told, and tell them all.
    pub(crate) hearing: Option<JoinHandle<()>>,
    pub(crate) telling: Option<JoinHandle<()>>,
    pub(crate) life: Life,
    /// Until when [`Module::run`](crate::Module::run) sleeps, if nothing wakes it.
    pub(crate) timer: Option<std::time::Instant>,
}

/// Whether the settings have such a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Wanted,
    /// No more publishes come, and the module ends when nothing is held any more.
    Retired,
    /// It has ended.
    Ended,
}

/// What is to be done for a held push.
pub(crate) enum Granted {
    /// It is to be sent.
    Attempt(HeldAttempt, Permit),
    /// It ended without that.
    Ended(Fingerprint, HeldEnd),
}

/// How the policy reaches a publish that waits for its permit.
pub(crate) type Waiter = oneshot::Sender<Permit>;

/// The right to have one push at the provider. When it is dropped, it goes to the next waiter.
pub(crate) struct Permit {
    lane: Arc<Lane>,
}

/// A place in the queue for permits. It is given up when it is dropped.
pub(crate) struct Place {
    lane: Arc<Lane>,
    receiver: oneshot::Receiver<Permit>,
    ticket: Ticket<Fingerprint>,
}

/// What a publish has that is admitted.
pub(crate) enum Turn {
    Now(Permit),
    Waiting(Box<Place>),
}

impl Lane {
    pub(crate) fn new(policy: Policy<Waiter>, backend: Arc<dyn PushTrait>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                policy,
                backend,
                shared: None,
                hearing: None,
                telling: None,
                life: Life::Wanted,
                timer: None,
            }),
            granted: Mutex::default(),
            wake: Notify::new(),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Gives free permits to those who wait, as long as the module has not ended. Never to be called with the state locked.
    pub(crate) fn grant(self: &Arc<Self>) {
        loop {
            let grant = {
                let mut state = self.lock();
                if state.life == Life::Ended {
                    return;
                }
                let now = Instant::now().into_std();
                let grant = state.policy.grant(now);
                // What wanted a permit may have to wait for another reason now, which had no timer.
                let is_earlier = |next| state.timer.is_none_or(|timer| next < timer);
                if grant.is_none() && state.policy.next_timer(now).is_some_and(is_earlier) {
                    self.wake.notify_one();
                }
                grant
            };
            let granted = match grant {
                None => return,
                Some(Grant::Waiter(waiter)) => {
                    // A waiter that gave up returns the permit by dropping it.
                    drop(waiter.send(Permit::new(self)));
                    continue;
                }
                Some(Grant::Held(attempt)) => Granted::Attempt(attempt, Permit::new(self)),
                Some(Grant::Ended(token, end)) => Granted::Ended(token, end),
            };
            lock(&self.granted).push_back(granted);
            self.wake.notify_one();
        }
    }

    /// Takes out what was granted to held pushes.
    pub(crate) fn granted(&self) -> Option<Granted> {
        lock(&self.granted).pop_front()
    }
}

impl Permit {
    /// The one that the policy has granted.
    pub(crate) fn new(lane: &Arc<Lane>) -> Self {
        Self {
            lane: Arc::clone(lane),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let somebody_waits = self.lane.lock().policy.give_back_permit();
        if somebody_waits {
            self.lane.grant();
        }
    }
}

impl Place {
    pub(crate) fn new(
        lane: &Arc<Lane>,
        receiver: oneshot::Receiver<Permit>,
        ticket: Ticket<Fingerprint>,
    ) -> Self {
        Self {
            lane: Arc::clone(lane),
            receiver,
            ticket,
        }
    }

    /// Waits for the permit; `None` if it takes too long, or a newcomer took the place.
    pub(crate) async fn permit(mut self, arrived: Instant) -> Option<Permit> {
        let permit = timeout_at(arrived + LONGEST_WAIT, &mut self.receiver).await;
        permit.ok()?.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lane.lock().policy.leave(&self.ticket);
    }
}

/// The longest wait of a publish for its permit.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
