//! What several instances share of one module, as values: what one asks the others, what it hears, and what it tells.
//!
//! The policy decides first, by what this instance knows. What it would let out or hold is then claimed where all instances
//! claim ([`Claim`]), and [`Policy::claimed`](crate::Policy::claimed) says what the answer means. Whatever else the others
//! should know is a [`Change`]. Lengths of time go there and come back, never times, so that clocks need not agree.

use std::time::Duration;

use fpush_push::{Class, Fingerprint};

use crate::{blocklist::BlockReason, limiter::Target};

/// What one push wants of all instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What it is for.
    pub target: Target,
    /// Whether its device is a registered one: no dead token blocks it.
    pub registered: bool,
    /// The window that it begins; none if the rate limit is off.
    pub window: Duration,
    /// What is to become of it.
    pub wish: Wish,
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
    Free(Option<SharedSlot>),
    /// It is the queued one of its key, for so long. A call has to be refused.
    Held(Duration),
    /// One is queued for its key elsewhere.
    Queued,
    /// Its token is blocked for so long.
    Blocked(BlockReason, Duration),
    /// The module pauses for so long.
    Paused(Duration),
}

/// A window that all instances know, by its end: to be given back if nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedSlot(pub u64);

/// Something that the other instances should know. Told twice it means the same as once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A window was not used.
    GiveBack(Fingerprint, SharedSlot),
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
    /// The provider wants silence for a token for so long.
    Silence(Fingerprint, Duration),
    /// The provider wants nothing from the module for so long.
    Pause(Duration),
    /// It does not say so any more.
    Resume,
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
