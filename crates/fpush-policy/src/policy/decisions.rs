//! What the policy is asked, and what it says.

use std::time::{Duration, Instant};

use fpush_push::{Fingerprint, LaneId, Outcome};
use uuid::Uuid;

use crate::{
    block::BlockReason,
    fair::Ticket,
    job::{PushJob, SenderDomain},
    limiter::{RateSlot, Target},
};

/// A publish, as far as decisions need it.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// What it is for.
    pub target: Target,
    /// What its token shares a fate with.
    pub lane: LaneId,
    /// Whether the device is one that registered.
    pub registered: bool,
    /// Between two pushes to the device, if it has a time of its own.
    pub spacing: Option<Duration>,
    /// How long its provider would keep it for the device: it is not worth more to us.
    pub time_to_live: Duration,
    /// Who published.
    pub sender: &'a SenderDomain,
}

/// What becomes of a publish.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is nothing left to do but to reply.
    Answer(Outcome),
    /// It is acknowledged and waits: to be passed to [`Policy::hold`](crate::Policy::hold).
    Hold {
        /// What it waits for.
        until: HoldUntil,
        /// Between two pushes to the device.
        spacing: Duration,
        /// Whether it keeps what is encrypted in it.
        encrypted: bool,
        /// For [`PushJob::worth_until`].
        worth_until: Option<Instant>,
    },
    /// It goes out: to be passed to [`Policy::take_turn`](crate::Policy::take_turn). The slot is given back if the provider does not take the push.
    Send {
        /// Its right to be sent.
        slot: RateSlot,
        /// Between two pushes to the device.
        spacing: Duration,
        /// For [`PushJob::worth_until`].
        worth_until: Option<Instant>,
    },
}

/// What an acknowledged push waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldUntil {
    /// This time.
    Due(Instant),
    /// The provider is back.
    Back,
}

/// A push that was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its number.
    pub number: u64,
    /// Whether it is due before all others.
    pub first: bool,
    /// Its id, if it has a number of its own; `None` if it took that of an older one.
    pub new: Option<Uuid>,
}

/// What a publish finds that wants a permit.
#[derive(Debug)]
pub enum Turn<W> {
    /// A permit, to be given back by [`Policy::give_back_permit`](crate::Policy::give_back_permit).
    Now,
    /// A place in the queue. Who had it before, if somebody had, has lost it.
    Waiting(Ticket<Fingerprint>, Option<W>),
    /// None.
    Full,
}

/// What is to be done next because a permit is free.
#[derive(Debug)]
pub enum Grant<W> {
    /// This publish has the permit.
    Waiter(W),
    /// The lane is down, so that this publish waits in vain: it can be held.
    Down(W),
    /// This held push has it.
    Held(HeldAttempt),
    /// A held push ended without an attempt; the permit is still free.
    Ended(Fingerprint, HeldEnd),
}

/// What becomes of a push whose attempts have ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It is acknowledged and waits, under this number.
    Held(u64),
    /// A newer push is held for its key, so this one is not needed.
    Covered,
    /// It is not held.
    Refused(Outcome),
}

/// What becomes of a push that was held before the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// It is held.
    Held,
    /// There is no room for it.
    Full,
    /// It is worth nothing any more.
    Expired,
}

/// A held push, to be sent.
#[derive(Debug)]
pub struct HeldAttempt {
    /// Its number in the hold queue.
    pub number: u64,
    /// The push.
    pub job: Box<PushJob>,
    /// Its right to be sent.
    pub slot: RateSlot,
    /// How often it has failed.
    pub attempts: u32,
    /// Whether it finds out if the provider is back, and is not to wait for long.
    pub is_probe: bool,
}

/// How an acknowledged push ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldEnd {
    /// The provider has it.
    Delivered,
    /// The provider refuses its token: it is dead, or left alone for longer than the push is worth something.
    Dropped,
    /// A newer push is queued for its key, so this one is not needed.
    Covered,
    /// Another instance has taken it over, or has sent one for its key.
    Taken,
    /// It could not be delivered.
    Lost(Outcome),
    /// The server that a stranger has chosen for it did not take it: that is nobody else's trouble.
    Unreached,
}

/// What becomes of a push that another instance held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenOver {
    /// It is held here now.
    Held,
    /// One is held here for its key, so it is not needed.
    Covered,
    /// It is worth nothing any more.
    Expired,
}

/// What becomes of a push whose token its provider calls too busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// It is acknowledged and waits, under this number.
    Held(u64),
    /// A newer push is queued for its key, so this one is not needed.
    Covered,
    /// There is no room for it.
    Refused,
}

impl HeldEnd {
    /// A push to a token that nothing is sent to. What its provider says against the token is not a loss of ours: a stranger who
    /// publishes to a token that he has made up could raise that alarm.
    pub(super) fn blocked(lane: LaneId, reason: BlockReason) -> Self {
        match reason {
            BlockReason::Dead | BlockReason::Doubted => Self::Dropped,
            BlockReason::Unexplained => Self::lost(lane, Outcome::TokenBlocked),
        }
    }

    /// A push in this lane could not be delivered.
    pub(super) fn lost(lane: LaneId, outcome: Outcome) -> Self {
        if lane.is_strangers() {
            Self::Unreached
        } else {
            Self::Lost(outcome)
        }
    }
}
