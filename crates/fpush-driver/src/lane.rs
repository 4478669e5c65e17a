//! What the pushes of a module share, and the permits to have one at the provider.

use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fpush_policy::{Elsewhere, End, Grant, HeldAttempt, HeldEnd, Policy, Ticket};
use fpush_push::{Fingerprint, LaneId, Meters, PushTrait, TokenHasher, sync::lock};
use tokio::{
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tracing::{debug, warn};

use crate::{HeldStore, SharedLane, module::Takeover};

/// What the pushes of a module share.
pub(crate) struct Lane {
    state: Mutex<State>,
    /// What is granted to held pushes, and how some of them ended, for [`Module::run`](crate::Module::run).
    granted: Mutex<VecDeque<Granted>>,
    /// Wakes [`Module::run`](crate::Module::run): something was granted, a held push is due before all others, or the
    /// module is to end.
    pub(crate) wake: Notify,
    pub(crate) meters: Arc<Meters>,
    name: Box<str>,
}

/// The state of a lane, locked. What has changed of what is held is written down before anybody else has it, and other instances
/// are told what they should know.
pub(crate) struct Locked<'a> {
    lane: &'a Lane,
    state: MutexGuard<'a, State>,
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
    /// Where held pushes are written down.
    pub(crate) store: Option<Arc<dyn HeldStore>>,
    /// What is told to other instances of what is held.
    pub(crate) takeover: Takeover,
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
pub(crate) struct Waiter {
    pub(crate) lane: LaneId,
    pub(crate) sender: oneshot::Sender<Permit>,
}

/// The right to have one push at the provider, in one of the module's lanes. When it is dropped, it goes to the next waiter.
pub(crate) struct Permit {
    lane: Arc<Lane>,
    of: LaneId,
}

/// A place in the queue for permits. It is given up when it is dropped.
pub(crate) struct Place {
    lane: Arc<Lane>,
    receiver: oneshot::Receiver<Permit>,
    of: LaneId,
    ticket: Ticket<Fingerprint>,
}

/// What a publish has that is admitted.
pub(crate) enum Turn {
    Now(Permit),
    Waiting(Box<Place>),
}

impl State {
    /// Where a push to a token is tried first, and where else.
    pub(crate) fn lanes_of(
        &self,
        token: &str,
        fingerprint: Fingerprint,
        hasher: &TokenHasher,
    ) -> (LaneId, Elsewhere) {
        if self.backend.has_second() {
            let lane = self.policy.home(fingerprint);
            (lane, Elsewhere::Unasked)
        } else {
            (self.backend.lane(token, hasher), Elsewhere::Nowhere)
        }
    }
}

impl Lane {
    pub(crate) fn new(name: &str, policy: Policy<Waiter>, backend: Arc<dyn PushTrait>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                policy,
                backend,
                shared: None,
                hearing: None,
                telling: None,
                life: Life::Wanted,
                store: None,
                takeover: Takeover::default(),
                timer: None,
            }),
            granted: Mutex::default(),
            wake: Notify::new(),
            meters: Arc::default(),
            name: name.into(),
        })
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked {
            lane: self,
            state: lock(&self.state),
        }
    }

    /// Counts how an acknowledged push ended.
    fn has_ended(&self, policy: &mut Policy<Waiter>, token: Fingerprint, end: HeldEnd) {
        let now = Instant::now().into_std();
        match end {
            HeldEnd::Delivered => {
                self.meters.held_delivered();
                policy.note(token, End::Delivered, now);
            }
            HeldEnd::Dropped => {
                self.meters.held_dropped();
                policy.note(token, End::Dropped, now);
                debug!(module = %self.name, %token, "queued push dropped: the provider refuses the token");
            }
            HeldEnd::Unreached => {
                self.meters.held_dropped();
                policy.note(token, End::Lost, now);
                debug!(module = %self.name, %token, "queued push dropped: the server of its endpoint did not take it");
            }
            HeldEnd::Covered => self.meters.held_covered(),
            HeldEnd::Taken => {
                self.meters.held_taken();
                debug!(module = %self.name, %token, "held push dropped: another instance has it");
            }
            HeldEnd::Lost(outcome) => {
                self.meters.held_lost();
                policy.note(token, End::Lost, now);
                warn!(module = %self.name, %token, outcome = outcome.name(),
                    "an acknowledged push could not be delivered");
            }
        }
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
                let timer = state.timer;
                let is_earlier = |next| timer.is_none_or(|timer| next < timer);
                if grant.is_none()
                    && (state.policy.wants_bodies() || state.policy.next_timer(now).is_some_and(is_earlier))
                {
                    self.wake.notify_one();
                }
                grant
            };
            let granted = match grant {
                None => return,
                Some(Grant::Waiter(waiter)) => {
                    // A waiter that gave up returns the permit by dropping it.
                    let Waiter { lane, sender } = waiter;
                    drop(sender.send(Permit::new(self, lane)));
                    continue;
                }
                // It finds out by that.
                Some(Grant::Down(waiter)) => {
                    drop(waiter);
                    continue;
                }
                Some(Grant::Held(attempt)) => {
                    let permit = Permit::new(self, attempt.job.lane);
                    Granted::Attempt(attempt, permit)
                }
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

impl Locked<'_> {
    /// Counts how an acknowledged push ended.
    pub(crate) fn has_ended(&mut self, token: Fingerprint, end: HeldEnd) {
        self.lane.has_ended(&mut self.state.policy, token, end);
    }

    /// Writes down what has changed of what is held. Returns who hears when that is done; nobody if it is not written down.
    pub(crate) fn write(&mut self) -> Option<oneshot::Receiver<bool>> {
        let store = Arc::clone(self.state.store.as_ref()?);
        let changes = self.state.policy.take_changes();
        self.state.tell_held(&changes);
        let (acknowledge, written) = oneshot::channel();
        store.write(changes, Some(acknowledge));
        Some(written)
    }

    /// Who hears when what is not written down yet is; nobody if all of it is.
    pub(crate) fn write_the_last(&mut self) -> Option<oneshot::Receiver<bool>> {
        self.state.store.as_ref().filter(|store| store.has_unwritten())?;
        self.write()
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let changes = self.state.policy.take_changes();
        self.state.tell_held(&changes);
        if let Some(store) = self.state.store.as_ref().filter(|_| !changes.is_empty()) {
            store.write(changes, None);
        }
        for (token, end) in self.state.policy.take_ended() {
            self.lane.has_ended(&mut self.state.policy, token, end);
        }
        let changes = self.state.policy.take_outbox();
        if let Some(shared) = self.state.shared.as_ref().filter(|_| !changes.is_empty()) {
            shared.tell(changes);
        }
    }
}

impl Permit {
    /// The one that the policy has granted.
    pub(crate) fn new(lane: &Arc<Lane>, of: LaneId) -> Self {
        Self {
            lane: Arc::clone(lane),
            of,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let somebody_waits = self.lane.lock().policy.give_back_permit(self.of);
        if somebody_waits {
            self.lane.grant();
        }
    }
}

impl Place {
    pub(crate) fn new(
        lane: &Arc<Lane>,
        receiver: oneshot::Receiver<Permit>,
        of: LaneId,
        ticket: Ticket<Fingerprint>,
    ) -> Self {
        Self {
            lane: Arc::clone(lane),
            receiver,
            of,
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
        self.lane.lock().policy.leave(self.of, &self.ticket);
    }
}

/// The longest wait of a publish for its permit.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
