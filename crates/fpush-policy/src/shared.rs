//! What several instances share of one module, as values: what one asks the others, what it hears, and what it tells.
//!
//! The policy decides first, by what this instance knows. What it would let out or hold is then claimed where all instances
//! claim ([`Claim`]), and [`Policy::claimed`](crate::Policy::claimed) says what the answer means. Whatever else the others
//! should know is a [`Change`]. Lengths of time go there and come back, never times, so that clocks need not agree.

use std::time::Duration;

use fpush_push::{Class, Fingerprint};
use uuid::Uuid;

use crate::{
    block::BlockReason,
    limiter::Target,
    records::{Clocks, HeldRecord, as_millis},
    verdict::MOST_DEATHS,
};

/// What one push wants of all instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What it is for.
    pub target: Target,
    /// What it means for it that its token is dead.
    pub dead: DeadBlock,
    /// The window that it begins; none if the rate limit is off.
    pub window: Duration,
    /// What is to become of it.
    pub wish: Wish,
    /// Names the push: one that is held may have been taken over by another instance.
    pub id: Uuid,
}

/// What the block of a dead token means for a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadBlock {
    /// It is not sent.
    Holds,
    /// It is sent if no instance has sent one to that token in the last hour.
    AskedAgain,
    /// Nothing: its device is a registered one.
    Void,
}

/// What this instance wants to do with a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Send it now, or hold it if another instance has sent one.
    Send,
    /// Hold it for so long, at least: this instance has sent one itself.
    Hold(Duration),
    /// Send what it holds: its time has come.
    SendHeld,
}

/// What all instances together say to a [`Claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It goes out: its window has begun, or there is none.
    Free {
        /// Its window.
        slot: Option<SharedSlot>,
        /// What another instance holds for the same key: the provider's acceptance makes it superfluous.
        covers: Option<SharedHeld>,
    },
    /// It is the queued one of its key, for so long. A call has to be refused.
    Held(Duration),
    /// One is queued for its key elsewhere.
    Queued,
    /// Its token is blocked for so long.
    Blocked(BlockReason, Duration),
    /// The module pauses for so long.
    Paused(Duration),
    /// It is held, and another instance has sent it, or one for the same key, or is about to.
    Taken,
}

/// A push that an instance holds, as all instances know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedHeld(pub u64);

/// A window that all instances know, by its end: to be given back if nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedSlot(pub u64);

/// Something that the other instances should know. Told twice it means the same as once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A window was not used.
    GiveBack(Fingerprint, SharedSlot),
    /// A push was accepted for a key and class, so that this one, which another instance holds, is not needed.
    Cover(Fingerprint, SharedHeld),
    /// A window of a key and class runs for so long.
    Window(Fingerprint, Duration),
    /// A push is queued for a key and class, for so long.
    Queue(Fingerprint, Duration),
    /// None is queued for it any more, and none was sent.
    Unqueue(Fingerprint),
    /// A token is blocked for so long.
    Block(Fingerprint, BlockReason, Duration),
    /// Nothing is said against a token any more.
    Unblock(Fingerprint),
    /// The provider has called a token dead or wrong now, and is not believed.
    Word(Fingerprint, SharedWord),
    /// So many tokens this instance takes for dead in an incident.
    Deaths(OwnDeaths),
    /// The provider wants silence for a token for so long.
    Silence(Fingerprint, Duration),
    /// The provider wants nothing from the module for so long.
    Pause(Duration),
    /// It does not say so any more.
    Resume,
}

/// What other instances should know of what is held, so that one of them sends it when this one is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldNews {
    /// It is like this now, under this number.
    Put(u64, SharedPush),
    /// What is held under this number is acknowledged: an older one for its key is not needed.
    Acknowledged(u64),
    /// Nothing more is to be done for what was held under this number.
    Gone(u64),
    /// The provider has accepted this push, which was held for this key.
    Delivered(Fingerprint, Uuid),
    /// This push was taken over, and is not held after all: it is worth nothing any more, or another one stands for it.
    Dismissed(Uuid),
}

/// A held push on its way between instances. Its record has neither times nor an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPush {
    /// What it is for.
    pub key: Fingerprint,
    /// Names it.
    pub id: Uuid,
    /// It is due in so long; none if it waits until its provider is back.
    pub due: Option<Duration>,
    /// It is given up in so long.
    pub give_up: Option<Duration>,
    /// It came so long ago; none if that was not written down.
    pub age: Option<Duration>,
    /// All else.
    pub record: Box<HeldRecord>,
}

impl SharedPush {
    /// Of a push as it is written down. `None` if it has no name, because the first versions have written it.
    #[must_use]
    pub fn of(mut record: Box<HeldRecord>, key: Fingerprint, clocks: Clocks) -> Option<Self> {
        let wall = clocks.wall_millis();
        let left = |millis: u64| Duration::from_millis(millis.saturating_sub(wall));
        let ago = |millis: u64| Duration::from_millis(wall.saturating_sub(millis));
        let id = Uuid::from_u128(record.id.take()?);
        let due = Some(record.due).filter(|due| *due > 0).map(left);
        let give_up = record.give_up.take().map(left);
        let age = record.arrived.take().map(ago);
        record.due = 0;
        Some(Self {
            key,
            id,
            due,
            give_up,
            age,
            record,
        })
    }

    /// The push as it would be written down here.
    #[must_use]
    pub fn into_record(self, clocks: Clocks) -> HeldRecord {
        let wall = clocks.wall_millis();
        let then = |left: Duration| wall.saturating_add(as_millis(left));
        HeldRecord {
            due: self.due.map_or(0, then),
            give_up: self.give_up.map(then),
            arrived: self.age.map(|age| wall.saturating_sub(as_millis(age))),
            id: Some(self.id.as_u128()),
            ..*self.record
        }
    }
}

/// How many tokens an instance has taken for dead since its lane was as usual. What all instances have is bounded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnDeaths {
    /// Of which lane: 0 for the main one, more than 0 for that of a vendor.
    pub lane: u16,
    /// So many, one that is claimed included.
    pub count: u32,
    /// How often that has changed: what is of an earlier version counts no more.
    pub version: u64,
    /// Whether the lane has just been seen to be as usual: instances that are gone had theirs in an incident that is over.
    pub calm: bool,
}

/// What the provider said against a token that is not believed dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedWord {
    /// How many seconds ago it was said first.
    pub age: u32,
    /// How many seconds ago it was said last.
    pub last: u32,
    /// On how many days it was said.
    pub days: u16,
    /// Whether it was a word beyond doubt.
    pub beyond_doubt: bool,
}

/// Something that another instance has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The provider has called a token dead or wrong.
    Word(Fingerprint, SharedWord),
    /// Nothing is said against a token any more.
    Unblock(Fingerprint),
    /// For how long the module pauses because the provider said so to any of them.
    Pause(Option<Duration>),
}

impl OwnDeaths {
    /// So many all instances have in an incident.
    pub const MOST: u32 = MOST_DEATHS;
}

impl Change {
    /// The same, told so much later: `None` if it means nothing any more.
    #[must_use]
    pub fn after(self, late: Duration) -> Option<Self> {
        let still = |left: Duration| Some(left.saturating_sub(late)).filter(|left| !left.is_zero());
        Some(match self {
            Self::Window(key, left) => Self::Window(key, still(left)?),
            Self::Queue(key, left) => Self::Queue(key, left.saturating_sub(late)),
            Self::Block(token, reason, left) => Self::Block(token, reason, still(left)?),
            Self::Silence(token, left) => Self::Silence(token, still(left)?),
            Self::Pause(left) => Self::Pause(still(left)?),
            Self::Word(token, word) => {
                let late = u32::try_from(late.as_secs()).unwrap_or(u32::MAX);
                let word = SharedWord {
                    age: word.age.saturating_add(late),
                    last: word.last.saturating_add(late),
                    ..word
                };
                Self::Word(token, word)
            }
            Self::Deaths(deaths) => Self::Deaths(OwnDeaths {
                calm: deaths.calm && late < STILL_CALM,
                ..deaths
            }),
            Self::GiveBack(..) | Self::Cover(..) | Self::Unqueue(_) | Self::Unblock(_) | Self::Resume => self,
        })
    }

    /// Whether it lifts something: what is known later does not say that.
    #[must_use]
    pub fn lifts(&self) -> bool {
        match self {
            Self::Unblock(_) | Self::Resume => true,
            Self::GiveBack(..)
            | Self::Cover(..)
            | Self::Window(..)
            | Self::Queue(..)
            | Self::Unqueue(_)
            | Self::Block(..)
            | Self::Word(..)
            | Self::Deaths(_)
            | Self::Silence(..)
            | Self::Pause(_) => false,
        }
    }
}

impl SharedWord {
    /// A first word.
    #[must_use]
    pub(crate) fn said_now(beyond_doubt: bool) -> Self {
        Self {
            age: 0,
            last: 0,
            days: 1,
            beyond_doubt,
        }
    }
}

impl Claim {
    /// The key and class of its window.
    #[must_use]
    pub fn slot_key(&self) -> Fingerprint {
        self.target.slot_key()
    }

    /// Whether it is a call, which is never held.
    #[must_use]
    pub fn is_call(&self) -> bool {
        self.target.class == Class::Voip
    }
}

/// What is to be told to others; nothing where there are none.
#[derive(Debug, Default)]
pub(crate) struct Outbox(Option<Vec<Change>>);

impl Outbox {
    /// Whether there are others.
    pub(crate) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn open(&mut self, open: bool) {
        self.0 = open.then(Vec::new);
    }

    /// Adds what is to be told; what it is costs nothing where nobody hears it.
    pub(crate) fn tell(&mut self, change: impl FnOnce() -> Change) {
        if let Some(changes) = &mut self.0 {
            changes.push(change());
        }
    }

    /// Takes out what is to be told.
    pub(crate) fn take(&mut self) -> Vec<Change> {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// What was seen of a lane so long ago says nothing of how it is.
const STILL_CALM: Duration = Duration::from_secs(1);
